//! The private file that hands a client its settings: readable by its owner alone, named at random,
//! gone at the end.
//!
//! Does not know what is in it. Liveness is a lock that the kernel frees (never a pid): a file whose
//! lock is free belongs to nobody and is swept. After a power cut such a file may be left, whole or
//! empty; it names a port that nobody listens on.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::merge::{Source, parse};

const PREFIX: &str = "overlay-";
const SUFFIX: &str = ".json";

/// Largest `--settings` file that is read. The client's own are a few kilobytes.
const SETTINGS_LIMIT: u64 = 16 * 1024 * 1024;

/// A private file; it is there and locked as long as this is.
#[derive(Debug)]
pub struct PrivateFile {
    path: PathBuf,
    // Holds the lock.
    file: Option<File>,
}

impl PrivateFile {
    /// Writes `text` into a new file below `directory`, which is made (0700) or tightened.
    ///
    /// # Errors
    ///
    /// When the directory is somebody else's, or it or the file cannot be written.
    pub fn write(directory: &Path, text: &str) -> io::Result<Self> {
        prepare(directory)?;
        loop {
            let name = format!("{PREFIX}{:032x}{SUFFIX}", rand::random::<u128>());
            let path = directory.join(name);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            let mut made = Self {
                path,
                file: Some(file),
            };
            let file = made.file.as_mut().expect("it was just put there");
            // A sweep may have taken the file between its making and its lock: make another.
            if !is_locked_at(&made.path, file)? {
                made.file = None;
                continue;
            }
            // The umask may have taken more away than we ask for.
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            return Ok(made);
        }
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file.
    ///
    /// # Errors
    ///
    /// When it is still there.
    pub fn release(mut self) -> io::Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> io::Result<()> {
        // Before the lock goes: nobody may sweep it and think it was a leftover.
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let removed = fs::remove_file(&self.path);
        drop(file);
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "could not remove the session's settings file");
        }
    }
}

/// Removes what sessions left behind that did not end by themselves. Returns how many files it were;
/// a file that cannot be looked at is left for the next time.
pub fn sweep(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| is_ours(&entry.file_name()))
        .filter(|entry| sweep_one(&entry.path()).unwrap_or(false))
        .count()
}

/// Returns how many files sessions have left behind that did not end by themselves.
pub fn leftovers(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let ours = entries
        .flatten()
        .filter(|entry| is_ours(&entry.file_name()));
    ours.count().saturating_sub(running(directory))
}

/// Returns how many sessions are running: files whose owner holds their lock.
pub fn running(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| is_ours(&entry.file_name()))
        .filter_map(|entry| File::open(entry.path()).ok())
        // Shared, and given back at once: it keeps no owner and no sweep waiting.
        .filter(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        .count()
}

/// Says whether a path is one that such a file would have.
pub fn is_private(path: &Path) -> bool {
    path.file_name().is_some_and(is_ours)
}

fn is_ours(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
}

fn sweep_one(path: &Path) -> io::Result<bool> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(
            i32::try_from((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits())
                .unwrap_or(0),
        )
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {
            fs::remove_file(path)?;
            Ok(true)
        }
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Locks the file and says whether it is still the one at `path`.
fn is_locked_at(path: &Path, file: &File) -> io::Result<bool> {
    file.lock()?;
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let there = fs::metadata(directory)?;
    if there.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the directory belongs to somebody else",
        ));
    }
    if there.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Reads the user's own `--settings`; `None` if the client would refuse it, so that it is handed
/// over as it is and the client says why.
pub fn read_user_settings(value: &OsStr) -> Option<Map<String, Value>> {
    match Source::of(value) {
        Source::Inline(text) => parse(text),
        Source::File(path) => {
            let mut bytes = Vec::new();
            // May be a pipe (`<(…)`): read it once, to its end.
            File::open(path)
                .ok()?
                .take(SETTINGS_LIMIT)
                .read_to_end(&mut bytes)
                .ok()?;
            parse(std::str::from_utf8(&bytes).ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn file_is_private_and_goes_with_its_guard() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state/overlays");
        let file = PrivateFile::write(&directory, "{}").unwrap();
        let path = file.path().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        assert_eq!((mode(&path), mode(&directory)), (0o600, 0o700));
        assert_eq!(sweep(&directory), 0, "its owner lives");
        assert_eq!(running(&directory), 1);
        file.release().unwrap();
        assert!(!path.exists());
        assert_eq!(running(&directory), 0);

        let path = PrivateFile::write(&directory, "{}")
            .unwrap()
            .path()
            .to_owned();
        assert!(!path.exists(), "dropped");
    }

    #[test]
    fn a_lax_directory_is_tightened() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let _file = PrivateFile::write(root.path(), "{}").unwrap();
        assert_eq!(mode(root.path()), 0o700);
    }

    #[test]
    fn leftovers_are_swept_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let live = PrivateFile::write(root.path(), "{}").unwrap();
        for name in [
            "overlay-1.json",
            "overlay-2.json",
            "other.json",
            "overlay-3.txt",
        ] {
            fs::write(root.path().join(name), "{}").unwrap();
        }
        assert_eq!(sweep(root.path()), 2);
        assert_eq!(sweep(root.path()), 0);
        assert!(live.path().exists());
        assert!(root.path().join("other.json").exists());
        assert!(root.path().join("overlay-3.txt").exists());
        assert_eq!(sweep(&root.path().join("nowhere")), 0);
    }

    #[test]
    fn writers_and_sweepers_do_not_meet() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..50 {
                            sweep(root.path());
                            let file = PrivateFile::write(root.path(), "{}").unwrap();
                            assert_eq!(fs::read_to_string(file.path()).unwrap(), "{}");
                            file.release().unwrap();
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
        });
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn user_settings_come_inline_or_from_a_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.json");
        fs::write(&path, r#"{"model":"x"}"#).unwrap();
        for value in [path.as_os_str(), OsStr::new(r#"{"model":"x"}"#)] {
            assert_eq!(read_user_settings(value).unwrap()["model"], "x");
        }
        for value in ["/no/such/file", "{]}", ""] {
            assert_eq!(read_user_settings(OsStr::new(value)), None);
        }
        assert_eq!(read_user_settings(root.path().as_os_str()), None);
    }
}
