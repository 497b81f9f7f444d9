//! Whether a process lives: it holds the lock of a file of its own, which the kernel frees when it is gone.
//!
//! Never a process id: those are used again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const PREFIX: &str = "alive-";

/// Held for as long as the process, or what it does, goes on.
#[derive(Debug)]
pub struct Alive {
    path: PathBuf,
    // Holds the lock.
    _file: File,
}

/// Returns a name that nobody else has.
pub fn fresh_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Alive {
    /// Says from now on that `id` lives. Only for the holder of the lease's lock, so that no sweep comes between.
    ///
    /// # Errors
    ///
    /// The file cannot be made, or the file system has no locks.
    pub fn hold(directory: &Path, id: &str) -> io::Result<Self> {
        let path = place(directory, id);
        // Opened for reading too: network file systems make record locks of these, which need it.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _file: file }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error.into())
            }
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // The lock goes after it: nobody sees a file without one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Says whether `id` lives.
pub fn is_alive(directory: &Path, id: &str) -> bool {
    is_locked(&place(directory, id))
}

/// Removes what processes left behind that did not end by themselves; returns how many they were. Only for the holder
/// of the lease's lock.
pub fn sweep(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let ours = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(PREFIX))
    });
    ours.filter(|entry| !is_locked(&entry.path()))
        .filter(|entry| fs::remove_file(entry.path()).is_ok())
        .count()
}

fn place(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{PREFIX}{id}"))
}

fn is_locked(path: &Path) -> bool {
    // Shared, and given back at once: two who ask do not take each other for the holder.
    File::open(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l10_a_lock_tells_who_lives() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (fresh_id(), fresh_id());
        let held = Alive::hold(root.path(), &one).unwrap();
        assert!(is_alive(root.path(), &one) && !is_alive(root.path(), &two));
        // Left by somebody who was killed.
        fs::write(place(root.path(), &two), "").unwrap();
        fs::write(root.path().join("other"), "").unwrap();
        assert!(!is_alive(root.path(), &two));
        assert_eq!((sweep(root.path()), sweep(root.path())), (1, 0));
        assert!(is_alive(root.path(), &one));
        drop(held);
        assert!(!is_alive(root.path(), &one));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
