//! A lock that the kernel gives back when its holder dies.
//!
//! A lock is a file that is never deleted: deleting one under a waiter would let two in. What it
//! protects is the caller's business.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a lock that somebody else holds: short at first, since most holders only write one
/// small file; then longer, since the others wait for the network.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of a process id that was written into a lock.
const SIGNATURE: u64 = 16;

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else held it for as long as we were willing to wait.
    #[error(
        "{} was in use by {} for {} s",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
        waited.as_secs()
    )]
    Busy {
        /// The lock.
        path: PathBuf,
        /// The process that has signed it last, if it was signed.
        holder: Option<u32>,
        /// How long we waited.
        waited: Duration,
    },
    /// The system refused.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A held lock; dropping it gives it back. It belongs to the open file: two in one process exclude each
/// other too, and a child that was started meanwhile does not inherit it.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock `path`, making the file if need be; waits at most `wait`.
    ///
    /// Blocks its thread: asynchronous callers give it one of its own.
    ///
    /// # Errors
    ///
    /// Still held by somebody else after `wait`, or the system refuses.
    pub fn acquire(path: &Path, wait: Duration) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let deadline = Instant::now() + wait;
        let mut pause = FIRST_PAUSE;
        loop {
            match fs4::FileExt::try_lock(&file) {
                Ok(()) => return Ok(Self { file }),
                Err(fs4::TryLockError::WouldBlock) => {}
                Err(fs4::TryLockError::Error(source)) => return Err(failed(source)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let mut holder = String::new();
                let _ = (&file).take(SIGNATURE).read_to_string(&mut holder);
                return Err(LockError::Busy {
                    path: path.to_owned(),
                    holder: holder.trim().parse().ok(),
                    waited: wait,
                });
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Writes our process id into the lock, for the words of whoever waits in vain. Nothing depends on it.
    pub fn sign(&self) {
        let text = format!("{}\n", std::process::id());
        let _ = self.file.set_len(0);
        let _ = (&self.file).write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Another test's child may hold a copy of the open file for the moment between fork and exec.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_lock_excludes_and_is_given_back() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.lock");
        let first = Lock::acquire(&path, Duration::ZERO).unwrap();
        assert!(matches!(
            Lock::acquire(&path, Duration::from_millis(5)),
            Err(LockError::Busy { path: named, .. }) if named == path
        ));
        drop(first);
        Lock::acquire(&path, PATIENCE).unwrap();
        assert!(path.exists(), "a lock file is never deleted");
    }

    #[test]
    fn a_waiter_gets_it_when_the_holder_lets_go() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.lock");
        let held = Lock::acquire(&path, Duration::ZERO).unwrap();
        let (sender, receiver) = mpsc::channel();
        let waiter = thread::spawn({
            let path = path.clone();
            move || {
                sender.send(()).unwrap();
                Lock::acquire(&path, PATIENCE).map(drop)
            }
        });
        receiver.recv().unwrap();
        drop(held);
        waiter.join().unwrap().unwrap();
    }

    #[test]
    fn l12_who_waits_in_vain_is_told_the_holder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.lock");
        let held = Lock::acquire(&path, Duration::ZERO).unwrap();
        held.sign();
        let error = Lock::acquire(&path, Duration::ZERO).unwrap_err();
        let told = format!("was in use by process {} for 0 s", std::process::id());
        assert!(error.to_string().ends_with(&told), "{error}");
        drop(held);
        Lock::acquire(&path, PATIENCE).unwrap();
    }

    #[test]
    fn a_lock_that_cannot_be_opened_is_named() {
        let error = Lock::acquire(Path::new("/nonexistent/a.lock"), Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "cannot lock /nonexistent/a.lock");
    }

    #[test]
    fn children_do_not_inherit_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.lock");
        let held = Lock::acquire(&path, Duration::ZERO).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(held);
        let again = Lock::acquire(&path, PATIENCE);
        drop(child.stdin.take());
        child.wait().unwrap();
        again.unwrap();
    }
}
