//! Runs the client with our own descriptors, in our own process group: pipes stay pipes, a terminal
//! stays that terminal, and what the keyboard sends reaches the client without us.

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use rustix::process::{Pid, Signal as Number, getpid, kill_process};
use rustix::stdio;
use rustix::termios::Termios;

use crate::fault;

use super::leader;
use super::modes;
use super::raw::{self, RawGuard};
use super::relay;
use super::session::{Done, Launch, NOTES, TerminalError, Tether, ask, deadline, next};
use super::signals::{self, Listener, Note};
use super::supervise::{Action, Ending, Event, Supervisor, Way};

/// Runs a client to its end. Same duties as [`super::session::run`].
pub(super) fn run(launch: &Launch) -> Result<Ending, TerminalError> {
    let (notes, inbox) = sync_channel(NOTES);
    let _listener = Listener::start(Way::Plain, notes).map_err(TerminalError::Watch)?;
    // Nothing is changed by us, but a client may leave its own changes behind. With output into a pipe the terminal may
    // be somebody else's by then, as in `ccx -p … | less`.
    let guard = (std::io::stdin().is_terminal() && std::io::stdout().is_terminal())
        .then(RawGuard::arm)
        .transpose()
        .map_err(TerminalError::Settings)?;
    let child = launch
        .command()
        .args(leader::child_words(launch))
        .spawn()
        .map_err(|source| TerminalError::Start {
            path: launch.leader.clone(),
            source,
        })?;
    let mut session = Session {
        client: Tether::new(Pid::from_child(&child), Number::KILL),
        guard,
        clients: None,
        timer: None,
    };
    let ending = session.watch(&inbox);
    session.client.is_over();
    session.tidy(ending);
    Ok(ending)
}

/// A client that has our descriptors, with what has to be undone.
struct Session {
    client: Tether,
    guard: Option<RawGuard>,
    /// Its settings of the terminal, while it is stopped.
    clients: Option<Termios>,
    timer: Option<Instant>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(ending) = self.client.cut() {
            self.tidy(ending);
        }
    }
}

impl Session {
    /// Puts the terminal back as it was before the client had it.
    fn tidy(&self, ending: Ending) {
        let Some(guard) = &self.guard else { return };
        guard.restore_changed_by_client();
        if matches!(ending, Ending::Signal(_)) && raw::is_foreground() {
            let _ = relay::write_all(stdio::stdout(), modes::reset_all());
        }
    }

    fn watch(&mut self, inbox: &Receiver<Note>) -> Ending {
        let mut supervisor = Supervisor::new(Way::Plain);
        loop {
            let mut event = match next(inbox, self.timer) {
                Some(Note::Event(event)) => event,
                Some(Note::ChildChanged) => match ask(self.client.pid(), true) {
                    Some(event) => event,
                    None => continue,
                },
                None => {
                    self.timer = None;
                    Event::TimeUp { quiet: true }
                }
            };
            fault::point("session");
            loop {
                let mut then = None;
                for action in supervisor.on(event) {
                    match self.act(action) {
                        Done::Nothing => {}
                        Done::Happened(event) => then = Some(event),
                        Done::Ended(ending) => return ending,
                    }
                }
                match then {
                    Some(next) => event = next,
                    None => break,
                }
            }
        }
    }

    fn act(&mut self, action: Action) -> Done {
        // A child that is gone is told by another event.
        let tell = |number| {
            let _ = kill_process(self.client.pid(), number);
        };
        match action {
            Action::Forward(signal) => tell(signals::number(signal)),
            Action::Kill | Action::Abandon => tell(Number::KILL),
            Action::Wake => tell(Number::CONT),
            Action::SetTimer(after) => self.timer = Some(deadline(after)),
            Action::Finish(ending) => return Done::Ended(ending),
            Action::Suspend => {
                if raw::has_job_control() {
                    self.clients = self.guard.as_ref().and_then(RawGuard::lend);
                    // Not the whole group: others of a pipeline stop, or not, by themselves.
                    let _ = kill_process(getpid(), Number::STOP);
                }
            }
            Action::LookAround => {
                return Done::Happened(Event::Resumed {
                    foreground: raw::is_foreground(),
                });
            }
            Action::Reenter => {
                let clients = self.clients.take();
                if let Some(guard) = &self.guard {
                    guard.hand_back(clients);
                }
            }
            Action::Resize | Action::StopInput => {}
        }
        Done::Nothing
    }
}
