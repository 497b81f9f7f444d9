//! Hears signals: turns the system's numbers into [`Signal`]s and hands them to the loop of a session.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread;

use rustix::process::Signal as Number;
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::{Handle, Signals};

use super::supervise::{Event, Signal, Way};

/// What the loop of a session waits for.
pub(super) enum Note {
    /// Something for the supervisor.
    Event(Event),
    /// A child changed its state: somebody has to ask which and how.
    ChildChanged,
}

/// Returns the system's name of a signal.
pub(super) const fn number(signal: Signal) -> Number {
    match signal {
        Signal::Terminate => Number::TERM,
        Signal::Hangup => Number::HUP,
        Signal::Interrupt => Number::INT,
        Signal::Quit => Number::QUIT,
        Signal::User1 => Number::USR1,
        Signal::User2 => Number::USR2,
        Signal::Stop => Number::TSTP,
        Signal::Continue => Number::CONT,
        Signal::Resize => Number::WINCH,
    }
}

fn note(number: i32) -> Option<Note> {
    let signal = match number {
        SIGCHLD => return Some(Note::ChildChanged),
        SIGTERM => Signal::Terminate,
        SIGHUP => Signal::Hangup,
        SIGINT => Signal::Interrupt,
        SIGQUIT => Signal::Quit,
        SIGUSR1 => Signal::User1,
        SIGUSR2 => Signal::User2,
        SIGTSTP => Signal::Stop,
        SIGCONT => Signal::Continue,
        SIGWINCH => Signal::Resize,
        _ => return None,
    };
    Some(Note::Event(Event::Signal(signal)))
}

/// Hears signals until it is dropped.
///
/// Handlers, never "ignore": that would be inherited by the client. Without a terminal of its own
/// the client's group stops and continues with ours, so those signals keep their meaning.
pub(super) struct Listener {
    handle: Handle,
}

impl Listener {
    /// Starts to listen. Set it up before the child starts, or its end may be missed.
    ///
    /// # Errors
    ///
    /// When a handler or the thread cannot be set up.
    pub(super) fn start(way: Way, notes: SyncSender<Note>) -> io::Result<Self> {
        let mut wanted = vec![SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2];
        if way == Way::Pty {
            wanted.extend([SIGTSTP, SIGCONT, SIGWINCH]);
        }
        let mut signals = Signals::new(wanted)?;
        let handle = signals.handle();
        thread::Builder::new()
            .name("ccx-signals".into())
            .spawn(move || {
                for note in signals.forever().filter_map(note) {
                    if notes.send(note).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self { handle })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
    }
}
