//! What ccx is in the two hidden processes between itself and the client.
//!
//! The **leader** leads the session of the client's terminal. It gives the client the foreground,
//! passes signals on, and shows in its own wait status what happens to the client: stops when the
//! client stops, ends as the client ends. The **child** is the client before it is the client: it ties
//! its life to its parent's, waits for the foreground and becomes the program. Neither knows what the
//! client is; neither writes to the terminal unless the client cannot be started.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpgrp, getpid, getppid, ioctl_tiocsctty,
    kill_process, kill_process_group, setrlimit, setsid, waitpid,
};
use rustix::stdio;
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
};
use signal_hook::iterator::Signals;

use crate::error::{Kind, Report};

use super::session::{Launch, meaning};
use super::supervise::{Ending, Event};

/// First word of a leader's command line.
pub const LEADER_WORD: &str = "--ccx-leader";

/// First word of the command line of a client-to-be.
pub const CHILD_WORD: &str = "--ccx-child";

/// What ccx sends the leader to have the client killed: the leader alone knows which one it is, and
/// nobody sends this signal to a process that set no alarm.
pub(super) const KILL_CLIENT: Signal = Signal::ALARM;

/// How long the client may take to tidy up once ccx is gone. Contract supervision T18: 5 s in all.
const ORPHAN_GRACE: Duration = Duration::from_millis(2500);

/// How long the client-to-be waits for the foreground, which its leader gives it within a few
/// microseconds; after that it starts without.
const FOREGROUND_WAIT: Duration = Duration::from_secs(1);

const FOREGROUND_LOOK: Duration = Duration::from_micros(200);

/// Words after which the child waits for the foreground, or does not.
const IN_TERMINAL: &str = "terminal";
const INHERITED: &str = "inherited";

/// Returns the command line of a leader for `launch`, its own program not included.
pub(super) fn leader_words(launch: &Launch) -> Vec<OsString> {
    let mut words = vec![
        LEADER_WORD.into(),
        own_pid(),
        launch.leader.clone().into_os_string(),
    ];
    words.push(launch.program.clone().into_os_string());
    words.extend(launch.arguments.iter().cloned());
    words
}

/// Returns the command line of a client-to-be without a terminal of its own.
pub(super) fn child_words(launch: &Launch) -> Vec<OsString> {
    let mut words = vec![CHILD_WORD.into(), INHERITED.into(), own_pid()];
    words.push(launch.program.clone().into_os_string());
    words.extend(launch.arguments.iter().cloned());
    words
}

fn own_pid() -> OsString {
    getpid().as_raw_nonzero().to_string().into()
}

/// Runs as leader. `words` are those after [`LEADER_WORD`]: the pid of ccx, our own program, the
/// client's program, its arguments. Standard input is the client's terminal.
///
/// Ends as the client ends, by the same signal if it was one; the code is for an ordinary end.
pub fn main(words: &[OsString]) -> ExitCode {
    let [parent, ourselves, program, arguments @ ..] = words else {
        return fail(Kind::Usage, "this word is for ccx itself", None);
    };
    match lead(parent, ourselves, program, arguments) {
        Ok(ending) => mirror(ending),
        Err(error) => fail(Kind::Internal, "could not lead the session", Some(error)),
    }
}

/// Becomes the client. `words` are those after [`CHILD_WORD`]: the way, the pid of the parent, the
/// client's program, its arguments. Returns only if that fails.
pub fn child(words: &[OsString]) -> ExitCode {
    let [way, parent, program, arguments @ ..] = words else {
        return fail(Kind::Usage, "this word is for ccx itself", None);
    };
    match tie_to_parent(parent) {
        Ok(true) => {}
        Ok(false) => return ExitCode::from(Ending::Signal(Signal::TERM.as_raw()).exit_code()),
        Err(error) => return fail(Kind::Internal, "could not watch the parent", Some(error)),
    }
    if way == IN_TERMINAL {
        await_foreground();
    }
    let error = Command::new(program).args(arguments).exec();
    let path = Path::new(program);
    let kind = if error.kind() == io::ErrorKind::NotFound && !path.exists() {
        Kind::ClientMissing
    } else {
        Kind::ClientBroken
    };
    fail(
        kind,
        &format!("could not start {}", path.display()),
        Some(error),
    )
}

fn lead(
    parent: &OsString,
    ourselves: &OsString,
    program: &OsString,
    arguments: &[OsString],
) -> io::Result<Ending> {
    setsid()?;
    ioctl_tiocsctty(stdio::stdin())?;
    let mut signals = Signals::new([
        SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT, SIGALRM,
    ])?;
    if !tie_to_parent(parent)? {
        return Ok(Ending::Signal(Signal::TERM.as_raw()));
    }
    let child = Command::new(ourselves)
        .args([CHILD_WORD, IN_TERMINAL])
        .arg(own_pid())
        .arg(program)
        .args(arguments)
        .process_group(0)
        .spawn()?;
    let client = Pid::from_child(&child);
    // Fails if it is gone already, which its status will tell.
    let _ = tcsetpgrp(stdio::stdin(), client);
    // Taking the foreground back at the end happens from the background. Not earlier: what is blocked
    // here would be blocked in the client.
    let mut mask = SigSet::empty();
    mask.add(Blocked::SIGTTOU);
    mask.thread_block()?;
    let ending = attend(&mut signals, parent, client);
    // What the client left in its group would be hung up with us if it had the foreground.
    let _ = tcsetpgrp(stdio::stdin(), getpgrp());
    Ok(ending)
}

/// Serves the client until it ends.
fn attend(signals: &mut Signals, parent: &OsString, client: Pid) -> Ending {
    let mut is_orphan = false;
    loop {
        for number in signals.wait() {
            if !is_orphan && !is_child_of(parent) {
                is_orphan = true;
                hang_up(client);
            }
            // The client may be gone when a signal for it comes.
            let _ = match number {
                SIGCHLD => {
                    if let Some(ending) = look(client) {
                        return ending;
                    }
                    Ok(())
                }
                SIGHUP => kill_process_group(client, Signal::HUP),
                SIGCONT => kill_process_group(client, Signal::CONT),
                SIGTERM => kill_process(client, Signal::TERM),
                SIGINT => kill_process(client, Signal::INT),
                SIGQUIT => kill_process(client, Signal::QUIT),
                SIGUSR1 => kill_process(client, Signal::USR1),
                SIGUSR2 => kill_process(client, Signal::USR2),
                SIGTSTP => kill_process(client, Signal::TSTP),
                SIGALRM => kill_process(client, Signal::KILL),
                _ => Ok(()),
            };
        }
    }
}

/// Tells what became of the client; stops with it, by STOP: our group has no parent in its session,
/// so that any other stop would not count.
fn look(client: Pid) -> Option<Ending> {
    while let Ok(Some((_, status))) =
        waitpid(Some(client), WaitOptions::NOHANG | WaitOptions::UNTRACED)
    {
        match meaning(status) {
            Event::ClientEnded(ending) => return Some(ending),
            _ => {
                let _ = kill_process(getpid(), Signal::STOP);
            }
        }
    }
    None
}

/// Ends a client whose ccx is gone: politely, then not.
fn hang_up(client: Pid) {
    let _ = kill_process_group(client, Signal::HUP);
    let _ = kill_process_group(client, Signal::CONT);
    let watch = move || {
        thread::sleep(ORPHAN_GRACE);
        // Our own process ends with the client, so that the number is still its.
        let _ = kill_process(client, Signal::KILL);
    };
    if thread::Builder::new()
        .name("ccx-orphan".into())
        .spawn(watch)
        .is_err()
    {
        let _ = kill_process(client, Signal::KILL);
    }
}

/// Asks for TERM when the parent dies; `false` if it is dead already. The asking survives exec.
fn tie_to_parent(parent: &OsString) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    Ok(is_child_of(parent))
}

fn is_child_of(parent: &OsString) -> bool {
    let pid = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    pid.is_some_and(|pid| *parent == *pid)
}

fn await_foreground() {
    let mut waited = Duration::ZERO;
    while waited < FOREGROUND_WAIT
        && tcgetpgrp(stdio::stdin()).is_ok_and(|group| group != getpgrp())
    {
        thread::sleep(FOREGROUND_LOOK);
        waited += FOREGROUND_LOOK;
    }
}

/// Ends as the client ended. No second core file: the client has left its own.
fn mirror(ending: Ending) -> ExitCode {
    if let Ending::Signal(signal) = ending {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = setrlimit(Resource::Core, none);
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    // Still here: an ordinary end, or a signal that has no name everywhere.
    ExitCode::from(ending.exit_code())
}

/// Says on standard error why there is no client, and returns the code for it.
fn fail(kind: Kind, attempt: &str, cause: Option<io::Error>) -> ExitCode {
    let error = match cause {
        Some(cause) => anyhow::Error::new(cause).context(attempt.to_owned()),
        None => anyhow::Error::msg(attempt.to_owned()),
    };
    // Nobody to tell if that fails.
    let _ = writeln!(io::stderr(), "{}", Report::new(kind, error));
    ExitCode::from(kind.exit_code())
}
