//! Writes renewed tokens into the Codex CLI's login, where the person has agreed to that.
//!
//! `auth.json` is another program's: under its locks, read again, only the tokens and the time replaced, every other
//! key, the file's mode and a link kept, and put in place whole. When to renew is `takeover`'s business. Locks as
//! traced with Codex 0.169: `auth.lock` around a change, `auth.json.lock` around the writing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::account::import::{self, CodexLogin, ImportError};
use crate::files::atomic::{self, Staged, WriteError};
use crate::files::lock::{Lock, LockError};
use crate::oauth::answer::Tokens;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// How long the other program may write: it does not wait for us either, and holds this lock for milliseconds.
const WRITE_WAIT: Duration = Duration::from_secs(2);

/// Why the file was not written. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CodexFileError {
    /// The other program is at it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It cannot be read any more.
    #[error(transparent)]
    Read(#[from] ImportError),
    /// The system refuses.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The login, with the Codex CLI kept from changing it; it may still renew it meanwhile, since it takes the lock
/// only after it has the new tokens.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    _lock: Lock,
}

impl Held {
    /// Takes the lock beside the login at `path`; waits at most `wait`, and blocks its thread.
    ///
    /// # Errors
    ///
    /// Somebody else still holds it, or the system refuses.
    pub fn acquire(path: &Path, wait: Duration) -> Result<Self, LockError> {
        Ok(Self {
            _lock: Lock::acquire(&path.with_file_name("auth.lock"), wait)?,
            path: path.to_owned(),
        })
    }

    /// Reads the login.
    ///
    /// # Errors
    ///
    /// As [`import::read`].
    pub fn read(&self) -> Result<CodexLogin, ImportError> {
        import::read(&self.path)
    }

    /// Finds out whether new tokens could be kept, by writing the file's own bytes beside it: a token must not be
    /// spent whose successor has no place.
    ///
    /// # Errors
    ///
    /// They could not.
    pub fn check(&self) -> Result<(), CodexFileError> {
        let bytes = self.bytes()?;
        Ok(Staged::write(&self.path, &bytes, 0o600).map(drop)?)
    }

    /// Puts `tokens`, which came at `at`, into the file. With `spent`, only if it still holds the refresh token that
    /// they were given for. Says whether it did.
    ///
    /// # Errors
    ///
    /// The file is not a login any more, or cannot be written.
    pub fn put_back(
        &self,
        spent: Option<&Secret<String>>,
        tokens: &Tokens,
        at: UnixSeconds,
    ) -> Result<bool, CodexFileError> {
        let _writing = Lock::acquire(&self.second_lock(), WRITE_WAIT)?;
        let damaged = |line, column| ImportError::Damaged {
            path: self.path.clone(),
            line,
            column,
        };
        let mut auth: Value = serde_json::from_slice(&self.bytes()?)
            .map_err(|error| damaged(error.line(), error.column()))?;
        let kept = auth.get_mut("tokens").and_then(Value::as_object_mut);
        let kept = kept.ok_or_else(|| damaged(1, 1))?;
        let is_spent = |spent: &Secret<String>| {
            kept.get("refresh_token").and_then(Value::as_str) == Some(spent.expose().as_str())
        };
        if !spent.is_none_or(is_spent) {
            return Ok(false);
        }
        let given = [
            ("access_token", Some(&tokens.access_token)),
            ("refresh_token", tokens.refresh_token.as_ref()),
            ("id_token", tokens.id_token.as_ref()),
        ];
        for (name, token) in given {
            if let Some(token) = token {
                kept.insert(name.to_owned(), token.expose().as_str().into());
            }
        }
        if let (Ok(seconds), Some(auth)) = (i64::try_from(at.0), auth.as_object_mut())
            && let Ok(at) = jiff::Timestamp::from_second(seconds)
        {
            auth.insert("last_refresh".to_owned(), at.to_string().into());
        }
        let bytes = serde_json::to_vec_pretty(&auth)
            .map(Secret::new)
            .expect("a value that was read from JSON always serialises");
        let mode = fs::metadata(&self.path)
            .map(|found| found.permissions().mode() & 0o777)
            .unwrap_or(0o600);
        // Only what a ccx left that died here: its names are ours.
        atomic::sweep(&self.path);
        atomic::write(&self.path, bytes.expose(), mode)?;
        Ok(true)
    }

    fn bytes(&self) -> Result<Vec<u8>, ImportError> {
        import::read_bytes(&self.path).map_err(|source| ImportError::Read {
            path: self.path.clone(),
            source,
        })
    }

    /// Beside the file, named after it.
    fn second_lock(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        self.path.with_file_name(name)
    }
}
