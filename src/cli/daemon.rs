//! `ccx daemon`: the proxy without a client. Here it runs; `manage` starts and ends it from outside.

use anyhow::Context as _;

use crate::cli::args::DaemonVerb;
use crate::cli::environment::Environment;
use crate::cli::host::{Host, fresh_secret};
use crate::cli::setup::{self, Setup, VERSION};
use crate::cli::{sign_in, ui};
use crate::daemon::slot::{self, Record, Slot};
use crate::error::{Kind, Report};
use crate::files::atomic;
use crate::files::lock::LockError;
use crate::log;
use crate::proxy::entry::now;
use crate::secret::Secret;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

mod manage;

/// The port when neither `--port` nor `PORT` says another.
pub(super) const DEFAULT_PORT: u16 = 8081;

/// How long requests in flight may go on once the daemon is asked to end, unless it is asked twice.
const DRAIN: Duration = Duration::from_secs(30);

/// Flag of a daemon that was started for itself: it leaves the terminal and says one word when it is ready.
const DETACHED: &str = "--detached";

/// The word.
const READY: &str = "ready";

/// Does what `verb` says.
pub fn run(environment: &Environment, verb: &DaemonVerb) -> Result<u8, Report> {
    match verb {
        DaemonVerb::Start { port } => manage::start(environment, *port),
        DaemonVerb::Stop { now } => manage::stop(environment, *now),
        DaemonVerb::Restart { port } => manage::restart(environment, *port),
        DaemonVerb::Status { json } => manage::status(environment, *json),
        DaemonVerb::Logs { follow } => manage::logs(environment, *follow),
        DaemonVerb::Run { port, detached } => serve(environment, *port, *detached),
    }
}

/// The port that was asked for: by the word, by `PORT`, or the last time.
fn port_of(environment: &Environment, port: Option<u16>, state: &Path) -> Result<u16, Report> {
    match (port, environment.text("PORT")) {
        (Some(port), _) => Ok(port),
        (None, None) => Ok(slot::remembered_port(state).unwrap_or(DEFAULT_PORT)),
        (None, Some(text)) => text
            .parse()
            .with_context(|| format!("PORT is not a port: {text}"))
            .map_err(|error| Report::new(Kind::Usage, error)),
    }
}

/// Serves until it is interrupted.
fn serve(environment: &Environment, port: Option<u16>, detached: bool) -> Result<u8, Report> {
    let internal = |error: anyhow::Error| Report::new(Kind::Internal, error);
    if detached {
        rustix::process::setsid()
            .context("could not leave the terminal")
            .map_err(internal)?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    }
    // Armed first: a signal during the start must not leave a half-started daemon.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])
        .context("could not watch for signals")
        .map_err(internal)?;
    let setup = Setup::new(environment)?;
    let state = &setup.places.state;
    let port = port_of(environment, port, state)?;
    let slot = take(state)?;
    let _log = log::start(state, environment.text("CCX_LOG"))
        .context("could not open the log")
        .map_err(internal)?;
    setup.settle_secrets()?;
    let account = sign_in::require_account(&setup, environment, None)?;
    let key_file = state.join("daemon.key");
    let secret = key(&key_file)?;
    let parts = setup.parts(setup.rules(None), secret)?;
    parts.shelf.adopt(&account.id);
    let host = Host::start(setup::listen(port)?, parts)
        .context("could not start the proxy")
        .map_err(internal)?;
    let record = Record {
        pid: std::process::id(),
        port: host.port(),
        version: VERSION.to_owned(),
        started: now().0,
    };
    slot.tell(&record)
        .and_then(|()| match port {
            0 => Ok(()),
            port => slot::remember_port(state, port),
        })
        .context("could not say where the daemon is")
        .map_err(internal)?;
    if detached {
        leave_descriptors()
            .context("could not leave the terminal")
            .map_err(internal)?;
    } else {
        ui::note(&format!(
            "ccx serves the Messages API on http://127.0.0.1:{}; its key is in {}",
            host.port(),
            key_file.display()
        ));
    }
    // Without a terminal nobody hangs up; the word is kept for reading the settings anew.
    let _ = signals
        .forever()
        .find(|signal| !(detached && *signal == SIGHUP));
    // Whoever asks again does not want to wait for the answers in flight.
    let hurry = host.hurry();
    std::thread::spawn(move || signals.forever().for_each(|_| hurry()));
    host.stop(DRAIN);
    drop(slot);
    Ok(0)
}

fn take(state: &Path) -> Result<Slot, Report> {
    Slot::take(state).map_err(|error| match error {
        LockError::Busy { holder, .. } => {
            let pid = holder.map_or_else(String::new, |pid| format!(", process {pid}"));
            Report::new(Kind::Busy, anyhow::anyhow!("a daemon runs already{pid}"))
                .hint("`ccx daemon status` says where, `ccx daemon stop` ends it")
        }
        LockError::Io { .. } => Report::new(Kind::Internal, anyhow::Error::new(error)),
    })
}

/// Says that it is ready, and lets go of whoever waited for that.
fn leave_descriptors() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    // Whoever waited may be gone; the daemon is there all the same.
    let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Reads the daemon's key, or makes one: it stays the same from run to run, so that clients need not be told.
fn key(path: &Path) -> Result<Secret<String>, Report> {
    let failed = |error: anyhow::Error| Report::new(Kind::Internal, error);
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(Secret::new(text.trim().to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            let error = anyhow::Error::new(error);
            return Err(failed(
                error.context(format!("could not read {}", path.display())),
            ));
        }
    }
    let secret = fresh_secret();
    atomic::write(path, secret.expose().as_bytes(), 0o600)
        .context("could not store the daemon's key")
        .map_err(failed)?;
    Ok(secret)
}
