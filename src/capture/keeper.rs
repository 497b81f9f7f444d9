//! The directory of captures: files for their owner alone, bounded in number and size, the oldest gone first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::capture::redact::Redactor;
use crate::capture::tape::Gathered;
use crate::capture::transcript::{Label, Transcript};
use crate::config::Capture;
use crate::files::atomic;
use crate::files::directory;

/// Files that are kept.
pub const FILES: usize = 50;

/// Bytes of all of them.
pub const BYTES: u64 = 100 * 1024 * 1024;

/// Captures that may be on their way to the disk: what comes beyond is not kept.
const UNDER_WAY: usize = 4;

/// Returns the secrets that are known now, and what to say instead of each.
pub type Known = Box<dyn Fn() -> Vec<(String, &'static str)> + Send + Sync>;

/// Keeps captures. Clones share it.
#[derive(Clone)]
pub struct Captures {
    shared: Arc<Shared>,
}

struct Shared {
    wish: Capture,
    directory: PathBuf,
    version: String,
    known: Known,
    under_way: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Captures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captures")
            .field("wish", &self.shared.wish)
            .field("directory", &self.shared.directory)
            .finish_non_exhaustive()
    }
}

impl Captures {
    /// Makes a keeper for the directory `captures` below `state`; `None` when nothing is to be captured.
    pub fn new(wish: Capture, state: &Path, version: &str, known: Known) -> Option<Self> {
        let shared = Shared {
            wish,
            directory: directory_below(state),
            version: version.to_owned(),
            known,
            under_way: Mutex::default(),
        };
        (wish != Capture::Off).then(|| Self {
            shared: Arc::new(shared),
        })
    }

    /// Says whether a request is kept that ended so.
    pub fn wants(&self, has_failed: bool) -> bool {
        match self.shared.wish {
            Capture::Off => false,
            Capture::Errors => has_failed,
            Capture::All => true,
        }
    }

    /// Keeps a request, on a thread that may wait for the disk.
    pub fn keep(&self, mut label: Label, gathered: Gathered) {
        let shared = Arc::clone(&self.shared);
        label.ccx.clone_from(&shared.version);
        let mut under_way = self.under_way();
        under_way.retain(|thread| !thread.is_finished());
        if under_way.len() >= UNDER_WAY {
            tracing::warn!(
                request = label.id,
                "too many captures at once: one is not kept"
            );
            return;
        }
        let write = move || {
            if let Err(error) = shared.write(label, &gathered) {
                tracing::warn!(why = %error, "a capture could not be written");
            }
        };
        match std::thread::Builder::new()
            .name("capture".into())
            .spawn(write)
        {
            Ok(thread) => under_way.push(thread),
            Err(error) => tracing::warn!(why = %error, "there is no thread for a capture"),
        }
    }

    /// Waits until nothing is on its way to the disk any more.
    pub fn settle(&self) {
        let threads = std::mem::take(&mut *self.under_way());
        for thread in threads {
            // It can only have ended by a panic, which was reported when it happened.
            let _ = thread.join();
        }
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // A panic elsewhere leaves the list whole.
        self.shared
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn write(&self, label: Label, gathered: &Gathered) -> io::Result<()> {
        let name = format!("{:012}-{}.json", label.at, label.id);
        let transcript = Transcript::new(label, gathered, &Redactor::new((self.known)()));
        let text = serde_json::to_vec_pretty(&transcript)?;
        directory::ensure_private(&self.directory).map_err(io::Error::other)?;
        atomic::write(&self.directory.join(name), &text, 0o600).map_err(io::Error::other)?;
        sweep(&self.directory)
    }
}

/// Returns where captures are below the state directory.
pub fn directory_below(state: &Path) -> PathBuf {
    state.join("captures")
}

/// Returns the capture of the request `id`, if it is still kept.
pub fn find(state: &Path, id: &str) -> Option<Transcript> {
    let end = format!("-{id}.json");
    let path = files(&directory_below(state))
        .ok()?
        .into_iter()
        .rev()
        .find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.ends_with(&end))
        })?;
    load(&path).ok()
}

/// Reads a capture's file.
///
/// # Errors
///
/// It cannot be read, or is none.
pub fn load(path: &Path) -> io::Result<Transcript> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The captures, the oldest first: their names begin with the time.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn sweep(directory: &Path) -> io::Result<()> {
    let (mut count, mut bytes) = (0, 0);
    for path in files(directory)?.into_iter().rev() {
        count += 1;
        bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if count > FILES || bytes > BYTES {
            // One that is gone already, or cannot be removed, is no reason to stop.
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}
