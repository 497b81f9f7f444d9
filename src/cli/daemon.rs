//! `ccx daemon run`: the proxy in the foreground, for clients that ccx did not launch.

use anyhow::Context as _;

use crate::cli::environment::Environment;
use crate::cli::host::{Host, fresh_secret};
use crate::cli::setup::{self, Setup};
use crate::cli::{sign_in, ui};
use crate::error::{Kind, Report};
use crate::files::atomic;
use crate::log;
use crate::secret::Secret;

use std::fs;
use std::path::Path;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The port when neither `--port` nor `PORT` says another.
pub(super) const DEFAULT_PORT: u16 = 8081;

/// How long requests in flight may go on once the daemon is asked to end, unless it is asked twice.
const DRAIN: Duration = Duration::from_secs(30);

/// Serves until it is interrupted.
pub fn run(environment: &Environment, port: Option<u16>) -> Result<u8, Report> {
    let port = match (port, environment.text("PORT")) {
        (Some(port), _) => port,
        (None, None) => DEFAULT_PORT,
        (None, Some(text)) => text
            .parse()
            .with_context(|| format!("PORT is not a port: {text}"))
            .map_err(|error| Report::new(Kind::Usage, error))?,
    };
    // Armed first: a signal during the start must not leave a half-started daemon.
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .context("could not watch for signals")
        .map_err(|error| Report::new(Kind::Internal, error))?;
    let setup = Setup::new(environment)?;
    let _log = log::start(&setup.places.state, environment.text("CCX_LOG"))
        .context("could not open the log")
        .map_err(|error| Report::new(Kind::Internal, error))?;
    setup.settle_secrets()?;
    let account = sign_in::require_account(&setup, environment, None)?;
    let key_file = setup.places.state.join("daemon.key");
    let secret = key(&key_file)?;
    let parts = setup.parts(setup.rules(None), secret)?;
    parts.shelf.adopt(&account.id);
    let host = Host::start(setup::listen(port)?, parts)
        .context("could not start the proxy")
        .map_err(|error| Report::new(Kind::Internal, error))?;
    ui::note(&format!(
        "ccx serves the Messages API on http://127.0.0.1:{}; its key is in {}",
        host.port(),
        key_file.display()
    ));
    let _ = signals.forever().next();
    // Whoever asks again does not want to wait for the answers in flight.
    let hurry = host.hurry();
    std::thread::spawn(move || signals.forever().for_each(|_| hurry()));
    host.stop(DRAIN);
    Ok(0)
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
