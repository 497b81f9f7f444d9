//! Hears signals: turns the system's numbers into [`Signal`]s and hands them to the loop of a session.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread;

use rustix::process::Signal as Number;
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::{Handle, Signals};

use crate::fault;

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

/// Tells the loop of a session when the thread that holds it is ended by a panic.
pub(super) struct Alarm(pub(super) SyncSender<Note>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody listens once the session is over.
            let _ = self.0.send(Note::Event(Event::Fault));
        }
    }
}

/// Hears signals until it is dropped.
///
/// Handlers, never "ignore": that would be inherited by the client. Without a terminal of its own a resize reaches
/// the client without us.
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
        let mut wanted = vec![
            SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT,
        ];
        if way == Way::Pty {
            wanted.push(SIGWINCH);
        }
        let mut signals = Signals::new(wanted)?;
        let handle = signals.handle();
        let closed = handle.clone();
        thread::Builder::new()
            .name("ccx-signals".into())
            .spawn(move || {
                let _alarm = Alarm(notes.clone());
                loop {
                    let mut batch: Vec<i32> = signals.wait().collect();
                    if closed.is_closed() {
                        return;
                    }
                    // As in the kernel: what continues a process takes back the stops that are still waiting. One that
                    // came to the client too, and was heard of only after both were continued, would stop it again.
                    if batch.contains(&SIGCONT) {
                        batch.retain(|number| *number != SIGTSTP);
                    }
                    fault::point("signals");
                    for note in batch.into_iter().filter_map(note) {
                        if notes.send(note).is_err() {
                            return;
                        }
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
