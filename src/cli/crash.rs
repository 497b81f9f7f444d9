//! What is left of a fault of ccx itself: a report for whoever mends it, and a line for the person.
//!
//! The report holds where it happened and how ccx came there: names of functions, never what they worked on. A message that
//! was put together from data is left out: it may quote a prompt or a token. Nothing is printed while the client may own
//! the screen.

use std::backtrace::Backtrace;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cli::environment::Environment;
use crate::cli::setup::{self, VERSION};
use crate::proxy::entry::now;

/// Reports that are kept; the oldest go first.
const KEPT: usize = 5;

/// The longest that one process writes: a fault that comes again and again must not fill a disk.
const LARGEST_BYTES: u64 = 256 * 1024;

const PREFIX: &str = "crash-";

/// The report of this process, once there is one.
static REPORT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Whether a part of ccx is gone without which a session cannot go on.
static IS_FATAL: AtomicBool = AtomicBool::new(false);

/// Leaves a report of every panic from here on, in place of words on the screen.
pub fn arm(environment: &Environment) {
    // Without a directory of ours there is no place for a report.
    let state = setup::places(environment).map(|places| places.state).ok();
    panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        if name == "main" || name.starts_with("ccx-") {
            note_fatal();
        }
        if let Some(state) = &state {
            // Nobody can be told now; the line at the end says that there is no report.
            let _ = write(state, &text(info, name));
        }
    }));
}

/// Notes that the session ends because of a fault.
pub fn note_fatal() {
    IS_FATAL.store(true, Ordering::SeqCst);
}

/// Says whether a session ended, or could not go on, because of a fault.
pub fn is_fatal() -> bool {
    IS_FATAL.load(Ordering::SeqCst)
}

/// Returns what the person is told, if there was a fault.
pub fn told() -> Option<String> {
    let report = REPORT.lock().unwrap_or_else(PoisonError::into_inner);
    let what = match is_fatal() {
        true => "a fault in ccx ended this",
        false => "a fault in ccx spoiled a request; the session went on",
    };
    match (&*report, is_fatal()) {
        (Some(path), _) => Some(format!(
            "error: {what}\nhint:  a report without your texts is in {}",
            path.display()
        )),
        (None, true) => Some(format!("error: {what}; no report could be written")),
        (None, false) => None,
    }
}

fn text(info: &PanicHookInfo<'_>, thread: &str) -> String {
    let message = info.payload().downcast_ref::<&'static str>();
    let mut text = format!(
        "ccx {VERSION} on {} {}, {} seconds after 1970\nthread {thread}\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
        now().0,
    );
    if let Some(place) = info.location() {
        let _ = writeln!(text, "at {place}");
    }
    let message = message.unwrap_or(&"(left out: it was made from data)");
    let _ = writeln!(text, "{message}\n\n{}\n", Backtrace::force_capture());
    text
}

fn write(state: &Path, text: &str) -> io::Result<()> {
    let mut report = REPORT.lock().unwrap_or_else(PoisonError::into_inner);
    let path = match &*report {
        Some(path) => path.clone(),
        None => {
            sweep(state);
            state.join(format!("{PREFIX}{}-{}.txt", now().0, std::process::id()))
        }
    };
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)?;
    if file.metadata()?.len() < LARGEST_BYTES {
        file.write_all(text.as_bytes())?;
    }
    *report = Some(path);
    Ok(())
}

/// Makes room for one more report.
fn sweep(state: &Path) {
    let Ok(entries) = fs::read_dir(state) else {
        return;
    };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(".txt"))
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths.filter(is_ours).collect();
    found.sort();
    let many = (found.len() + 1).saturating_sub(KEPT);
    for path in &found[..many] {
        // One that cannot be removed stays.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_reports_go() {
        let state = tempfile::tempdir().unwrap();
        for number in 1..=7 {
            fs::write(state.path().join(format!("crash-{number}-1.txt")), "").unwrap();
        }
        fs::write(state.path().join("crash-notes.md"), "").unwrap();
        sweep(state.path());
        let mut left: Vec<String> = fs::read_dir(state.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "crash-4-1.txt",
                "crash-5-1.txt",
                "crash-6-1.txt",
                "crash-7-1.txt",
                "crash-notes.md"
            ]
        );
    }
}
