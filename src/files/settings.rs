//! A settings file of ccx's own, changed by one at a time.
//!
//! Knows nothing of what is in it: what becomes of the text is the caller's to say.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::files::atomic::{self, WriteError};
use crate::files::lock::{Lock, LockError};

/// Whoever changes the file holds its lock for some milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The file is the person's own; nobody else has to read it.
const MODE: u32 = 0o600;

/// A file, and the lock of those who change it.
#[derive(Clone, Debug)]
pub struct SettingsFile {
    path: PathBuf,
    lock: PathBuf,
}

/// Why a file was not changed. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// Somebody else is at it, or the lock cannot be had.
    #[error("the settings are being changed by somebody else")]
    Lock(#[from] LockError),
    /// It cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It cannot be written.
    #[error("could not write the settings")]
    Write(#[from] WriteError),
    /// The caller says no.
    #[error(transparent)]
    Refused(E),
}

impl SettingsFile {
    /// Names the file `path`, which need not be there, and the lock file `lock`.
    pub const fn new(path: PathBuf, lock: PathBuf) -> Self {
        Self { path, lock }
    }

    /// Replaces the text of the file with what `change` makes of it. Blocks its thread.
    ///
    /// # Errors
    ///
    /// `change` refuses, or the system does.
    pub fn change<E>(
        &self,
        change: impl FnOnce(&str) -> Result<String, E>,
    ) -> Result<(), ChangeError<E>> {
        let _lock = Lock::acquire(&self.lock, LOCK_WAIT)?;
        let read = |error| ChangeError::Read {
            path: self.path.clone(),
            error,
        };
        let before = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(read(error)),
        };
        let after = change(&before).map_err(ChangeError::Refused)?;
        if after == before {
            return Ok(());
        }
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory).map_err(read)?;
        }
        Ok(atomic::write(&self.path, after.as_bytes(), MODE)?)
    }
}
