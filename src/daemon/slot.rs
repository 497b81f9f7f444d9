//! The place that only one daemon of a user can have, and what it says of itself there.
//!
//! A lock of the kernel decides, not a file: it is held for life and gone with its holder, however that ends. The record
//! beside it counts only if the holder of the lock wrote it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::atomic::{self, WriteError};
use crate::files::lock::{Lock, LockError};

/// How long a daemon that starts waits for its place: others that start at the same time are quick.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a daemon says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its process.
    pub pid: u32,
    /// Its loopback port.
    pub port: u16,
    /// The version of its ccx.
    pub version: String,
    /// When it was ready, in unix seconds.
    pub started: u64,
}

/// Who has the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A daemon that is not ready yet, or is ending.
    Silent {
        /// Its process, if it has said so.
        pid: Option<u32>,
    },
    /// A daemon that said where it is.
    Ready(Record),
}

impl Holder {
    /// Returns its process.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Nobody => None,
            Self::Silent { pid } => *pid,
            Self::Ready(record) => Some(record.pid),
        }
    }
}

/// The place, held. Dropped, it is free; the record goes first.
#[derive(Debug)]
pub struct Slot {
    record: PathBuf,
    _lock: Lock,
}

impl Slot {
    /// Takes the place below the directory `state`, which exists.
    ///
    /// # Errors
    ///
    /// Another daemon has it, or the system refuses.
    pub fn take(state: &Path) -> Result<Self, LockError> {
        let path = lock_file(state);
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        // Who starts does so alone: what a killed one left goes before the lock is held, so that nobody who looks
        // takes it for the word of the holder.
        let _alone = Lock::acquire(&state.join("daemon.start"), PATIENCE)?;
        if let Some(holder) = holder(&path).map_err(failed)? {
            return Err(LockError::Busy {
                path,
                holder,
                waited: Duration::ZERO,
            });
        }
        let record = record_file(state);
        let _ = fs::remove_file(&record);
        let emptied = OpenOptions::new().write(true).truncate(true).open(&path);
        match emptied {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let lock = Lock::acquire(&path, PATIENCE)?;
        lock.sign();
        Ok(Self {
            record,
            _lock: lock,
        })
    }

    /// Tells others where the daemon is.
    ///
    /// # Errors
    ///
    /// The record cannot be written.
    pub fn tell(&self, record: &Record) -> Result<(), WriteError> {
        let text = serde_json::to_vec(record).unwrap_or_default();
        atomic::write(&self.record, &text, 0o600)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Whoever finds it finds a free lock beside it.
        let _ = fs::remove_file(&self.record);
    }
}

/// Looks who has the place below `state`.
///
/// # Errors
///
/// The lock cannot be looked at.
pub fn look(state: &Path) -> io::Result<Holder> {
    let Some(holder) = holder(&lock_file(state))? else {
        return Ok(Holder::Nobody);
    };
    let record = fs::read(record_file(state))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
        .filter(|record| Some(record.pid) == holder);
    Ok(record.map_or(Holder::Silent { pid: holder }, Holder::Ready))
}

/// Returns the process that holds the lock, if one does and if it has said so. Looks through a shared lock: those who look
/// at the same time do not take each other for a daemon.
fn holder(path: &Path) -> io::Result<Option<Option<u32>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            Ok(Some(pid.trim().parse().ok()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Returns the port that a daemon was last told to use, if it was told one.
pub fn remembered_port(state: &Path) -> Option<u16> {
    fs::read_to_string(port_file(state))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Keeps `port` for the next start.
///
/// # Errors
///
/// It cannot be written.
pub fn remember_port(state: &Path, port: u16) -> Result<(), WriteError> {
    if remembered_port(state) == Some(port) {
        return Ok(());
    }
    atomic::write(&port_file(state), format!("{port}\n").as_bytes(), 0o600)
}

fn lock_file(state: &Path) -> PathBuf {
    state.join("daemon.lock")
}

fn record_file(state: &Path) -> PathBuf {
    state.join("daemon.json")
}

fn port_file(state: &Path) -> PathBuf {
    state.join("daemon.port")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            pid: std::process::id(),
            port: 8081,
            version: "1".to_owned(),
            started: 7,
        }
    }

    #[test]
    fn d02_only_one_has_the_place_and_says_so() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        assert_eq!(look(state).unwrap(), Holder::Nobody);
        let slot = Slot::take(state).unwrap();
        let pid = Some(std::process::id());
        assert_eq!(look(state).unwrap(), Holder::Silent { pid });
        slot.tell(&record()).unwrap();
        assert_eq!(look(state).unwrap(), Holder::Ready(record()));
        assert!(matches!(Slot::take(state), Err(LockError::Busy { .. })));
        drop(slot);
        assert_eq!(look(state).unwrap(), Holder::Nobody);
    }

    #[test]
    fn d04_a_record_without_its_writer_is_not_believed() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        let text = serde_json::to_vec(&record()).unwrap();
        fs::write(record_file(state), &text).unwrap();
        assert_eq!(
            look(state).unwrap(),
            Holder::Nobody,
            "nobody holds the lock"
        );
        let slot = Slot::take(state).unwrap();
        let other = Record { pid: 1, ..record() };
        fs::write(record_file(state), serde_json::to_vec(&other).unwrap()).unwrap();
        let pid = Some(std::process::id());
        assert_eq!(look(state).unwrap(), Holder::Silent { pid });
        drop(slot);
    }

    #[test]
    fn d04_who_looks_takes_no_other_for_a_daemon() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        drop(Slot::take(state).unwrap());
        // As a daemon that was killed leaves it: a record that fits the word in the lock.
        fs::write(lock_file(state), format!("{}\n", std::process::id())).unwrap();
        fs::write(record_file(state), serde_json::to_vec(&record()).unwrap()).unwrap();
        let other = File::open(lock_file(state)).unwrap();
        other.try_lock_shared().unwrap();
        assert_eq!(look(state).unwrap(), Holder::Nobody);
        drop(other);
        let slot = Slot::take(state).unwrap();
        let pid = Some(std::process::id());
        assert_eq!(
            look(state).unwrap(),
            Holder::Silent { pid },
            "its record is gone"
        );
        drop(slot);
    }

    #[test]
    fn a_port_is_remembered() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(remembered_port(state.path()), None);
        remember_port(state.path(), 9000).unwrap();
        assert_eq!(remembered_port(state.path()), Some(9000));
    }
}
