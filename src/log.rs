//! The log file: one JSON object a line, private, bounded. Never the terminal.
//!
//! At the default level it holds no secret, no prompt and no answer: callers log ids, counts, times
//! and error words.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A file that has grown beyond this is set aside when ccx starts.
const LARGEST_BYTES: u64 = 10 * 1024 * 1024;

/// Files set aside that are kept.
const KEPT: u32 = 5;

/// What is logged when the user asks for nothing else.
const DEFAULT_FILTER: &str = "warn,ccx=info";

/// Lines that wait for the disk; more are dropped, so that a full disk never holds a request up.
///
/// The queue takes its memory at once: the library's own 128,000 lines are 4 MB.
const WAITING_LINES: usize = 1024;

/// Keeps the log's writer alive; lines written after it is dropped are lost.
#[derive(Debug)]
pub struct LogGuard {
    /// Dropping it flushes what was written.
    _writer: WorkerGuard,
}

/// Starts logging to `ccx.log` in `directory` (which exists). `filter` is the user's `CCX_LOG`: levels by target,
/// as in `warn,ccx=debug`; one that does not parse counts as none.
///
/// # Errors
/// The file cannot be opened. A log that was started already stays as it is.
pub fn start(directory: &Path, filter: Option<&str>) -> io::Result<LogGuard> {
    let file = open(&directory.join("ccx.log"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(file);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(writer);
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(targets(filter))
        .try_init();
    Ok(LogGuard { _writer: guard })
}

fn targets(filter: Option<&str>) -> Targets {
    let ours = || DEFAULT_FILTER.parse().expect("the default filter parses");
    filter
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(ours)
}

fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.size() > LARGEST_BYTES) {
        set_aside(path)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// `ccx.log` → `ccx.log.1` → … → `ccx.log.5` → gone.
fn set_aside(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    };
    for number in (1..KEPT).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_levels_by_target_and_a_broken_one_counts_as_none() {
        use tracing::Level;
        for (filter, ours_at_info, ours_at_debug, others_at_info) in [
            (None, true, false, false),
            (Some("no filter = at all"), true, false, false),
            (Some("warn,ccx=debug"), true, true, false),
            (Some("info"), true, false, true),
            (Some("ccx::proxy=info"), true, false, false),
            (Some("off"), false, false, false),
        ] {
            let targets = targets(filter);
            let ours = "ccx::proxy::entry";
            assert_eq!(
                (
                    targets.would_enable(ours, &Level::INFO),
                    targets.would_enable(ours, &Level::DEBUG),
                    targets.would_enable("hyper", &Level::INFO),
                ),
                (ours_at_info, ours_at_debug, others_at_info),
                "{filter:?}"
            );
        }
    }

    #[test]
    fn a_large_log_is_set_aside_and_five_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ccx.log");
        for round in 0..8 {
            let file = open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
            file.set_len(LARGEST_BYTES + 1 + round).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "ccx.log",
                "ccx.log.1",
                "ccx.log.2",
                "ccx.log.3",
                "ccx.log.4",
                "ccx.log.5"
            ]
        );
    }
}
