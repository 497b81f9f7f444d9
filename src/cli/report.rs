//! `ccx doctor --report`: one file that holds what a bug report needs, and nothing that must not leave the machine.
//!
//! No capture goes into it, no prompt and no answer. What ccx wrote down anyhow is cleaned once more.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::account::store::Store;
use crate::capture;
use crate::capture::redact::Redactor;
use crate::cli::environment::Environment;
use crate::cli::setup::{self, VERSION};
use crate::error::{Kind, Report};
use crate::files::atomic;
use crate::files::directory;
use crate::files::places::Places;
use crate::history::database::Database;
use crate::history::record::Filter;
use crate::time::UnixSeconds;

/// Bytes of the log's end.
const LOG_BYTES: u64 = 128 * 1024;

/// Lines of it.
const LOG_LINES: usize = 300;

/// Requests of the history.
const REQUESTS: usize = 50;

/// Crash reports.
const CRASHES: usize = 3;

/// Bytes of one other file.
const FILE_BYTES: u64 = 64 * 1024;

/// Writes the report of `places` at `now`, with `checks` (the doctor's findings, JSON) in it, and returns what the person
/// is told.
///
/// # Errors
///
/// The file cannot be written.
pub fn write(
    environment: &Environment,
    places: &Places,
    checks: &str,
    now: UnixSeconds,
) -> Result<String, Report> {
    let failed = |error: anyhow::Error| Report::new(Kind::Internal, error);
    let redactor = redactor(environment, places);
    let log = tail(&places.state.join("ccx.log"), LOG_BYTES);
    let lines: Vec<&str> = log.lines().collect();
    let lines = &lines[lines.len().saturating_sub(LOG_LINES)..];
    let requests = requests(&places.state);
    let crashes = crashes(&places.state);
    let (many_requests, many_crashes) = (requests.len(), crashes.len());
    let value = json!({
        "about": "made by `ccx doctor --report`; tokens, addresses, account ids and texts are left out",
        "ccx": VERSION,
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "terminal": environment.text("TERM"),
        "at": now.0,
        "doctor": serde_json::from_str::<Value>(checks).unwrap_or_default(),
        "config": tail(&setup::config_file(places), FILE_BYTES),
        "log": lines,
        "requests": requests,
        "crashes": crashes,
    });
    let text = redactor.clean(&format!("{value:#}\n"));
    directory::ensure_private(&places.state).map_err(|error| Report::new(Kind::Internal, error))?;
    let path = places.state.join(format!("report-{}.json", now.0));
    atomic::write(&path, text.as_bytes(), 0o600)
        .context("could not write the report")
        .map_err(failed)?;
    Ok(format!(
        "{}\nIn it: what the doctor found, versions, config.toml, {} lines of the log, {many_requests} requests without their \
         texts, {many_crashes} crash reports. Tokens, addresses and account ids are left out: look through it before you \
         pass it on.\n",
        path.display(),
        lines.len(),
    ))
}

/// Knows the secrets of all accounts, the daemon's key and the name of the home directory.
fn redactor(environment: &Environment, places: &Places) -> Redactor {
    let mut known = Vec::new();
    for record in &Store::peek(places).accounts {
        known.extend(capture::known(record));
        known.extend(record.label.iter().map(|label| (label.clone(), "(label)")));
    }
    let key = tail(&places.state.join("daemon.key"), FILE_BYTES);
    known.push((key.trim().to_owned(), "(key)"));
    let home = environment.home();
    let home = home
        .as_deref()
        .and_then(Path::to_str)
        .filter(|home| home.len() > 1);
    known.extend(home.map(|home| (home.to_owned(), "~")));
    Redactor::new(known)
}

fn requests(state: &Path) -> Vec<Value> {
    let Ok(Some(database)) = Database::look(state) else {
        return Vec::new();
    };
    let found = database
        .requests(&Filter::default(), REQUESTS)
        .unwrap_or_default();
    let values = found.iter().map(|record| record.value(|_| String::new()));
    values.collect()
}

fn crashes(state: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(state) else {
        return Vec::new();
    };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("crash-") && name.ends_with(".txt"))
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths.filter(is_ours).collect();
    found.sort();
    let newest = found.iter().rev().take(CRASHES);
    newest.map(|path| tail(path, FILE_BYTES)).collect()
}

/// The last bytes of a file as text, without a line that is cut; nothing of one that cannot be read.
fn tail(path: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        let skipped = length.saturating_sub(bytes);
        file.seek(SeekFrom::Start(skipped))?;
        let mut read = Vec::new();
        file.take(bytes).read_to_end(&mut read)?;
        let text = String::from_utf8_lossy(&read).into_owned();
        Ok(match text.split_once('\n') {
            Some((_, rest)) if skipped > 0 => rest.to_owned(),
            _ => text,
        })
    };
    read().unwrap_or_default()
}
