//! The log file: one JSON object a line, private, bounded. Never the terminal.
//!
//! At the default level it holds no secret, no prompt and no answer: callers log ids, counts, times
//! and error words.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// A file that has grown beyond this is set aside when ccx starts.
const LARGEST_BYTES: u64 = 10 * 1024 * 1024;

/// Files set aside that are kept.
const KEPT: u32 = 5;

/// What is logged when the user asks for nothing else.
const DEFAULT_FILTER: &str = "warn,ccx=info";

/// Keeps the log's writer alive; lines written after it is dropped are lost.
#[derive(Debug)]
pub struct LogGuard {
    /// Dropping it flushes what was written.
    _writer: WorkerGuard,
}

/// Starts logging to `ccx.log` in `directory` (which exists). `filter` is the user's `CCX_LOG`; one that
/// does not parse counts as none.
///
/// # Errors
/// The file cannot be opened. A log that was started already stays as it is.
pub fn start(directory: &Path, filter: Option<&str>) -> io::Result<LogGuard> {
    let file = open(&directory.join("ccx.log"))?;
    let (writer, guard) = NonBlocking::new(file);
    let filter = filter
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(writer)
        .try_init();
    Ok(LogGuard { _writer: guard })
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
