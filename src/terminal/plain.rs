//! Runs the client with our own descriptors, in our own process group: pipes stay pipes, a terminal
//! stays that terminal, and what the keyboard sends reaches the client without us.

use std::io::IsTerminal as _;
use std::sync::mpsc::sync_channel;

use rustix::process::{Pid, Signal as Number, kill_process};
use rustix::stdio;

use super::leader;
use super::modes;
use super::raw::RawGuard;
use super::relay;
use super::session::{Launch, NOTES, TerminalError, ask, deadline, next};
use super::signals::{self, Listener, Note};
use super::supervise::{Action, Ending, Event, Supervisor, Way};

/// Runs a client to its end. Same duties as [`super::session::run`].
pub(super) fn run(launch: &Launch) -> Result<Ending, TerminalError> {
    let (notes, inbox) = sync_channel(NOTES);
    let _listener = Listener::start(Way::Plain, notes).map_err(TerminalError::Watch)?;
    // Nothing is changed by us, but a killed client leaves its own changes behind.
    let guard = std::io::stdin()
        .is_terminal()
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
    let ending = watch(Pid::from_child(&child), &inbox);
    if matches!(ending, Ending::Signal(_)) {
        if let Some(guard) = guard {
            guard.restore_changed_by_client();
        }
        if std::io::stdout().is_terminal() && super::raw::is_foreground() {
            let _ = relay::write_all(stdio::stdout(), modes::reset_all());
        }
    }
    Ok(ending)
}

fn watch(child: Pid, inbox: &std::sync::mpsc::Receiver<Note>) -> Ending {
    let mut supervisor = Supervisor::new(Way::Plain);
    let mut timer = None;
    loop {
        let event = match next(inbox, timer) {
            Some(Note::Event(event)) => event,
            Some(Note::ChildChanged) => match ask(child, false) {
                Some(event) => event,
                None => continue,
            },
            None => {
                timer = None;
                Event::TimeUp { quiet: true }
            }
        };
        for action in supervisor.on(event) {
            // A child that is gone is told by another event.
            let _ = match action {
                Action::Forward(signal) => kill_process(child, signals::number(signal)),
                Action::Kill | Action::Abandon => kill_process(child, Number::KILL),
                Action::Wake => kill_process(child, Number::CONT),
                Action::SetTimer(after) => {
                    timer = Some(deadline(after));
                    Ok(())
                }
                Action::Finish(ending) => return ending,
                Action::Suspend
                | Action::LookAround
                | Action::Reenter
                | Action::Resize
                | Action::StopInput => Ok(()),
            };
        }
    }
}
