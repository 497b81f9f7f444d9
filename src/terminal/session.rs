//! Runs one client from its start to its end, and tells how it ended.
//!
//! With a terminal at all of 0, 1 and 2 the client gets a terminal of its own with the leader
//! between; otherwise it gets our descriptors (`plain`). Decides nothing itself: it carries events to
//! the supervisor and does what that says. Does not know what the client is or who it talks to.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Number, WaitOptions, WaitStatus, kill_process, waitpid};
use rustix::stdio;

use crate::fault;

use super::leader;
use super::plain;
use super::pty::{Master, Pty};
use super::raw::{self, RawGuard};
use super::relay::{self, Relay};
use super::signals::{self, Listener, Note};
use super::supervise::{Action, Ending, Event, GRACE, KILL_WAIT, Supervisor, Way};

/// Notes that may wait for the loop. A full channel holds up the thread that has something to say,
/// which the loop ends soon: it never waits for those threads.
pub(super) const NOTES: usize = 64;

/// What to start, and with which environment.
#[derive(Clone)]
pub struct Launch {
    /// The client, as a path with at least one slash.
    pub program: PathBuf,
    /// Its arguments, as they are.
    pub arguments: Vec<OsString>,
    /// Variables to set; everything else is inherited.
    pub set: Vec<(OsString, OsString)>,
    /// Variables to remove. Comes before `set`.
    pub unset: Vec<OsString>,
    /// Our own program, which understands [`leader::LEADER_WORD`] and [`leader::CHILD_WORD`].
    pub leader: PathBuf,
    /// Gives the client our own descriptors even if they are terminals.
    pub no_pty: bool,
}

impl fmt::Debug for Launch {
    /// Shows which variables are set and not to what: one of them is the session's secret. Nor the arguments: they
    /// hold what the person asks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.set.iter().map(|(name, _)| name).collect();
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("set", &names)
            .field("unset", &self.unset)
            .finish_non_exhaustive()
    }
}

impl Launch {
    /// Returns our own program with the environment of the client.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.leader);
        for name in &self.unset {
            command.env_remove(name);
        }
        for (name, value) in &self.set {
            command.env(name, value);
        }
        command
    }
}

/// A failure of our own; the client does not run or could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The settings of the terminal cannot be read or changed.
    #[error("could not set up the terminal")]
    Settings(#[source] io::Error),
    /// No terminal for the client.
    #[error("could not open a terminal for the client")]
    Open(#[source] io::Error),
    /// Signals or threads cannot be set up.
    #[error("could not watch over the client")]
    Watch(#[source] io::Error),
    /// Our own program cannot be started again.
    #[error("could not start {path}", path = path.display())]
    Start {
        /// Our own program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs a client to its end.
///
/// Call it on a thread that lives as long as the process, best the main one: on Linux the client is
/// ended when that thread ends. Afterwards TERM, HUP, INT and QUIT stay without effect for the rest
/// of the process, which is expected to end soon.
///
/// # Errors
///
/// When the client could not be started or watched for a reason of our own; the terminal is as it was.
pub fn run(launch: &Launch) -> Result<Ending, TerminalError> {
    if launch.no_pty || !raw::is_all_terminal() {
        return plain::run(launch);
    }
    raw::await_foreground().map_err(TerminalError::Settings)?;
    let (notes, inbox) = sync_channel(NOTES);
    // In this order: signals before the first size is read, or a change in between is missed; the
    // way back before the first change.
    let _listener = Listener::start(Way::Pty, notes.clone()).map_err(TerminalError::Watch)?;
    let guard = RawGuard::arm().map_err(TerminalError::Settings)?;
    let size = raw::size().map_err(TerminalError::Settings)?;
    let pty = Pty::open(size, &guard.own()).map_err(TerminalError::Open)?;
    guard.enter().map_err(TerminalError::Settings)?;
    let leader = start_leader(launch, &pty)?;
    let (ends, master) = pty.split().map_err(TerminalError::Open)?;
    let relay = Relay::start(ends, &notes).map_err(TerminalError::Watch)?;
    let mut session = Session {
        leader: Tether::new(leader, leader::KILL_CLIENT),
        guard,
        master,
        relay,
        timer: None,
        _notes: notes,
    };
    let ending = session.watch(&inbox);
    session.leader.is_over();
    session.tidy(ending);
    Ok(ending)
}

fn start_leader(launch: &Launch, pty: &Pty) -> Result<Pid, TerminalError> {
    let side = || -> Result<Stdio, TerminalError> {
        Ok(pty.client_side().map_err(TerminalError::Open)?.into())
    };
    let child = launch
        .command()
        .args(leader::leader_words(launch))
        .stdin(side()?)
        .stdout(side()?)
        .stderr(side()?)
        .spawn()
        .map_err(|source| TerminalError::Start {
            path: launch.leader.clone(),
            source,
        })?;
    Ok(Pid::from_child(&child))
}

/// Asks once how the child `pid` is; `None` when nothing (more) is to be told.
pub(super) fn ask(pid: Pid, stops: bool) -> Option<Event> {
    let mut options = WaitOptions::NOHANG;
    if stops {
        options |= WaitOptions::UNTRACED;
    }
    match waitpid(Some(pid), options) {
        Ok(Some((_, status))) => Some(meaning(status)),
        // Nothing new, or told already.
        Ok(None) | Err(_) => None,
    }
}

/// Returns what a wait status says.
pub(super) fn meaning(status: WaitStatus) -> Event {
    if let Some(code) = status.exit_status() {
        return Event::ClientEnded(Ending::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
    }
    match status.terminating_signal() {
        Some(signal) => Event::ClientEnded(Ending::Signal(signal)),
        None => Event::ClientStopped,
    }
}

/// Waits for a note, at most until `deadline`; `None` when that has come.
pub(super) fn next(inbox: &Receiver<Note>, deadline: Option<Instant>) -> Option<Note> {
    let Some(deadline) = deadline else {
        // The session holds a sender, so the channel cannot be closed.
        return inbox.recv().ok();
    };
    let left = deadline.saturating_duration_since(Instant::now());
    inbox.recv_timeout(left).ok()
}

/// Returns the moment `after` from now.
pub(super) fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}

/// A client in a terminal of its own, with all that has to be undone.
struct Session {
    leader: Tether,
    guard: RawGuard,
    master: Master,
    relay: Relay,
    timer: Option<Instant>,
    // Keeps the channel open, whatever becomes of the threads.
    _notes: SyncSender<Note>,
}

impl Session {
    fn watch(&mut self, inbox: &Receiver<Note>) -> Ending {
        let mut supervisor = Supervisor::new(Way::Pty);
        loop {
            let event = match next(inbox, self.timer) {
                Some(Note::Event(event)) => event,
                Some(Note::ChildChanged) => match ask(self.leader.pid(), true) {
                    Some(event) => event,
                    None => continue,
                },
                None => {
                    self.timer = None;
                    Event::TimeUp {
                        quiet: self.relay.is_quiet(),
                    }
                }
            };
            fault::point("session");
            if let Some(ending) = self.feed(&mut supervisor, event) {
                return ending;
            }
        }
    }

    /// Does what the supervisor says to `event` and to what comes of that.
    fn feed(&mut self, supervisor: &mut Supervisor, event: Event) -> Option<Ending> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in supervisor.on(event) {
                match self.act(action) {
                    Done::Ended(ending) => return Some(ending),
                    Done::Happened(event) => events.push(event),
                    Done::Nothing => {}
                }
            }
        }
        None
    }

    /// Does one thing. A leader that is gone, or a terminal that is gone, is told by other events;
    /// their errors add nothing.
    fn act(&mut self, action: Action) -> Done {
        match action {
            Action::Forward(signal) => self.tell(signals::number(signal)),
            Action::Kill => self.tell(leader::KILL_CLIENT),
            Action::Abandon => self.tell(Number::KILL),
            Action::Wake => self.tell(Number::CONT),
            Action::Suspend => {
                self.relay.settle();
                self.guard.restore();
                if !raw::stop_group() {
                    return Done::Happened(resumed());
                }
            }
            Action::LookAround => return Done::Happened(resumed()),
            Action::Reenter => {
                let _ = self.guard.enter();
            }
            Action::Resize => {
                if let Ok(size) = raw::size() {
                    let _ = self.master.resize(size);
                }
            }
            Action::StopInput => self.relay.stop_input(),
            Action::SetTimer(after) => self.timer = Some(deadline(after)),
            Action::Finish(ending) => return Done::Ended(ending),
        }
        Done::Nothing
    }

    fn tell(&self, number: Number) {
        let _ = kill_process(self.leader.pid(), number);
    }

    /// A client that could not tidy up is tidied up after; then the terminal is put back.
    fn tidy(&self, ending: Ending) {
        let modes = self.relay.finish();
        if matches!(ending, Ending::Signal(_)) && raw::is_foreground() {
            let _ = relay::write_all(stdio::stdout(), &modes.reset());
        }
        self.guard.restore();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(ending) = self.leader.cut() {
            self.tidy(ending);
        }
    }
}

fn resumed() -> Event {
    Event::Resumed {
        foreground: raw::is_foreground(),
    }
}

/// Ends a client that is still there when a fault of ours ends its session.
pub(super) struct Tether {
    pid: Pid,
    /// What ends the client at once.
    kill: Number,
    is_over: bool,
}

impl Tether {
    pub(super) const fn new(pid: Pid, kill: Number) -> Self {
        Self {
            pid,
            kill,
            is_over: false,
        }
    }

    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }

    /// Notes that the client is gone, or has been given up.
    pub(super) const fn is_over(&mut self) {
        self.is_over = true;
    }

    /// Ends the client, if that is not over: politely, then not. Returns how it ended; `None` if there was nothing to do.
    pub(super) fn cut(&mut self) -> Option<Ending> {
        if std::mem::replace(&mut self.is_over, true) {
            return None;
        }
        for (number, wait) in [
            (Number::TERM, GRACE),
            (self.kill, KILL_WAIT),
            (Number::KILL, KILL_WAIT),
        ] {
            let _ = kill_process(self.pid, number);
            let _ = kill_process(self.pid, Number::CONT);
            let end = deadline(wait);
            while Instant::now() < end {
                match ask(self.pid, false) {
                    Some(Event::ClientEnded(ending)) => return Some(ending),
                    _ => thread::sleep(CUT_LOOK),
                }
            }
        }
        Some(Ending::Signal(Number::KILL.as_raw()))
    }
}

impl Drop for Tether {
    fn drop(&mut self) {
        self.cut();
    }
}

/// How often a client that is being cut off is looked at.
const CUT_LOOK: Duration = Duration::from_millis(10);

/// What came of an action.
pub(super) enum Done {
    Nothing,
    Happened(Event),
    Ended(Ending),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let launch = Launch {
            program: "/bin/claude".into(),
            arguments: vec!["-p".into(), "PRIVATE".into()],
            set: vec![("ANTHROPIC_AUTH_TOKEN".into(), "PRIVATE".into())],
            unset: Vec::new(),
            leader: "/bin/ccx".into(),
            no_pty: false,
        };
        let shown = format!("{launch:?}");
        assert!(
            shown.contains("ANTHROPIC_AUTH_TOKEN") && !shown.contains("PRIVATE"),
            "{shown}"
        );
    }
}
