//! The log file: one JSON object a line, private, bounded. Never the terminal.
//!
//! At the default level it holds no secret, no prompt and no answer: callers log ids, counts, times
//! and error words. Whoever logs never waits for the disk: a thread of its own writes what came
//! together in [`PAUSE`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A file that has grown beyond this is set aside when ccx starts.
const LARGEST_BYTES: u64 = 10 * 1024 * 1024;

/// Files set aside that are kept.
const KEPT: u32 = 5;

/// What is logged when the user asks for nothing else.
const DEFAULT_FILTER: &str = "warn,ccx=info";

/// How long lines may wait for more. A process that is killed loses no more than this.
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes that may wait for the disk; lines beyond are dropped, so that a full disk costs no memory.
const WAITING_BYTES: usize = 256 * 1024;

/// Keeps the log's writer alive; lines written after it is dropped are lost.
#[derive(Debug)]
pub struct LogGuard {
    lines: Lines,
    writer: Option<JoinHandle<()>>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.lines.waiting().is_over = true;
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            // It can only have ended by a panic, which was reported when it happened.
            let _ = writer.join();
        }
    }
}

/// Lines on their way to the disk. Clones share them.
#[derive(Clone, Debug, Default)]
struct Lines {
    shared: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    writer: Option<Thread>,
    is_over: bool,
}

impl Lines {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change under the lock is one call: a panic elsewhere leaves it whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes until the guard is dropped, and what is left then.
    fn write_to(&self, mut file: File) {
        loop {
            let (mut is_empty, mut is_over) = self.state();
            while is_empty && !is_over {
                std::thread::park();
                (is_empty, is_over) = self.state();
            }
            let until = Instant::now() + PAUSE;
            while !is_over {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
                is_over = self.state().1;
            }
            let bytes = std::mem::take(&mut self.waiting().bytes);
            // A line that the disk does not take is lost: there is no place to say so.
            let _ = file.write_all(&bytes);
            if is_over {
                return;
            }
        }
    }

    /// Whether nothing waits, and whether nothing more will come.
    fn state(&self) -> (bool, bool) {
        let waiting = self.waiting();
        (waiting.bytes.is_empty(), waiting.is_over)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + line.len() <= WAITING_BYTES && !waiting.is_over {
            // Behind other lines it is written with them: no need to wake anybody.
            let is_first = waiting.bytes.is_empty();
            waiting.bytes.extend_from_slice(line);
            if is_first && let Some(writer) = &waiting.writer {
                writer.unpark();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging to `ccx.log` in `directory` (which exists). `filter` is the user's `CCX_LOG`: levels by target,
/// as in `warn,ccx=debug`; one that does not parse counts as none.
///
/// # Errors
/// The file cannot be opened, or the writer's thread cannot be made. A log that was started already stays as it is.
pub fn start(directory: &Path, filter: Option<&str>) -> io::Result<LogGuard> {
    let file = open(&directory.join("ccx.log"))?;
    let (lines, guard) = writer(file)?;
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(move || lines.clone());
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(layer)
        .with(targets(filter))
        .try_init();
    Ok(guard)
}

/// Starts the thread that writes to `file`.
fn writer(file: File) -> io::Result<(Lines, LogGuard)> {
    let lines = Lines::default();
    let source = lines.clone();
    let writer = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || source.write_to(file))?;
    lines.waiting().writer = Some(writer.thread().clone());
    let guard = LogGuard {
        lines: lines.clone(),
        writer: Some(writer),
    };
    Ok((lines, guard))
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
    fn lines_reach_the_file_in_order_and_none_is_lost_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ccx.log");
        let (lines, guard) = writer(open(&path).unwrap()).unwrap();
        let mut wanted = String::new();
        for number in 0..1_000 {
            let line = format!("line {number}\n");
            lines.clone().write_all(line.as_bytes()).unwrap();
            wanted.push_str(&line);
        }
        drop(guard);
        lines.clone().write_all(b"too late\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), wanted);
    }

    #[test]
    fn lines_that_find_no_room_are_dropped() {
        let mut lines = Lines::default();
        let line = [b'x'; 1000];
        for _ in 0..2 * WAITING_BYTES / line.len() {
            lines.write_all(&line).unwrap();
        }
        let kept = lines.waiting().bytes.len();
        assert!((WAITING_BYTES - line.len()..=WAITING_BYTES).contains(&kept));
    }

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
