//! `health.json` below the state directory: what is known of the accounts, kept from start to start and shared by
//! the processes of this user.
//!
//! Changes happen under a lock and replace the file whole. It is knowledge that can be had again: a damaged file
//! counts as none and is written over, one of a newer ccx is left alone.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::account::health::{Health, VERSION};
use crate::files::atomic::{self, WriteError};
use crate::files::directory::{self, DirectoryError};
use crate::files::lock::{Lock, LockError};
use crate::files::places::Places;

/// How long to wait for somebody who writes: a matter of milliseconds.
const WAIT: Duration = Duration::from_secs(2);

/// A file longer than this is none of ours: some hundred accounts take less.
const LIMIT_BYTES: u64 = 1024 * 1024;

/// Why nothing was written. What the file said before is still there.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Its directory is not private.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Somebody else keeps it locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The system refused to replace it.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A newer ccx wrote it.
    #[error("{} was written by a newer ccx (format {found}, this one knows {VERSION})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
}

/// A handle on the file. Holds nothing open.
#[derive(Clone, Debug)]
pub struct HealthFile {
    path: PathBuf,
    locks: PathBuf,
}

enum Found {
    Health(Health),
    Newer(u64),
}

impl HealthFile {
    /// Makes the handle; touches nothing.
    pub fn new(places: &Places) -> Self {
        Self {
            path: places.state.join("health.json"),
            locks: places.state.join("locks"),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the file says; nothing if there is none that can be read.
    pub fn read(&self) -> Health {
        match self.parse() {
            Found::Health(health) => health,
            Found::Newer(_) => Health::default(),
        }
    }

    /// Reads, lets `edit` change, and writes, all under the lock. Writes nothing if nothing changed. Returns what
    /// is known now.
    ///
    /// # Errors
    ///
    /// It could not be written: what `edit` did is lost.
    pub fn change(&self, edit: impl FnOnce(&mut Health)) -> Result<Health, HealthError> {
        directory::ensure_private(&self.locks)?;
        let _lock = Lock::acquire(&self.locks.join("health.lock"), WAIT)?;
        let before = match self.parse() {
            Found::Health(health) => health,
            Found::Newer(found) => {
                let path = self.path.clone();
                return Err(HealthError::Newer { path, found });
            }
        };
        let mut after = before.clone();
        edit(&mut after);
        if after != before {
            // Whoever left something staged has died: a living writer would hold the lock.
            atomic::sweep(&self.path);
            let mut bytes = serde_json::to_vec_pretty(&after)
                .expect("health is plain values with string keys, which always serialise");
            bytes.push(b'\n');
            atomic::write(&self.path, &bytes, 0o600)?;
        }
        Ok(after)
    }

    fn parse(&self) -> Found {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let nothing = Found::Health(Health::default());
        let Ok(bytes) = self.bytes() else {
            return nothing;
        };
        match serde_json::from_slice::<Head>(&bytes) {
            Ok(Head { version }) if version > VERSION => Found::Newer(version),
            Ok(_) => serde_json::from_slice(&bytes).map_or(nothing, Found::Health),
            Err(_) => nothing,
        }
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(&self.path)?;
        file.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::health::{Cooldown, Kind, Note};
    use crate::time::UnixSeconds;
    use std::os::unix::fs::PermissionsExt as _;

    fn home() -> (tempfile::TempDir, HealthFile) {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path());
        directory::ensure_private(&places.state).unwrap();
        (root, HealthFile::new(&places))
    }

    fn limit(until: u64) -> Note {
        let until = Some(UnixSeconds(until));
        Note::Limit(Cooldown::told(Kind::Usage, until, UnixSeconds(1)))
    }

    #[test]
    fn what_was_learnt_is_there_at_the_next_start_and_private() {
        let (_root, file) = home();
        assert_eq!(file.read(), Health::default());
        assert!(!file.path().exists(), "reading makes no file");
        let known = file.change(|health| health.apply("a", &limit(50))).unwrap();
        assert_eq!(file.read(), known);
        let until = known.cooling_until("a", "m", UnixSeconds(2));
        assert_eq!(until, Some(UnixSeconds(50)));
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn damage_is_as_good_as_nothing() {
        let (_root, file) = home();
        file.change(|health| health.apply("a", &limit(50))).unwrap();
        let whole = fs::read(file.path()).unwrap();
        for damage in [
            &b""[..],
            b"null",
            b"{}",
            b"\0\0",
            br#"{"version":1,"accounts":[]}"#,
            &whole[..whole.len() / 2],
        ] {
            fs::write(file.path(), damage).unwrap();
            assert_eq!(file.read(), Health::default());
            file.change(|health| health.apply("b", &limit(60))).unwrap();
            assert_eq!(file.read().accounts.len(), 1);
        }
    }

    #[test]
    fn a_newer_file_is_left_alone() {
        let (_root, file) = home();
        let newer = r#"{"version": 2, "accounts": "somewhere else"}"#;
        fs::write(file.path(), newer).unwrap();
        assert_eq!(file.read(), Health::default());
        let error = file.change(|health| health.apply("a", &limit(50)));
        assert!(matches!(error, Err(HealthError::Newer { found: 2, .. })));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), newer);
    }

    #[test]
    fn ten_threads_lose_nothing() {
        let (_root, file) = home();
        std::thread::scope(|scope| {
            for number in 0..10 {
                let file = &file;
                scope.spawn(move || {
                    let id = format!("a{number}");
                    file.change(|health| health.apply(&id, &limit(50))).unwrap();
                });
            }
        });
        assert_eq!(file.read().accounts.len(), 10);
    }
}
