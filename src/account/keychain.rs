//! The system's keychain: named secrets that outlive the process.
//!
//! macOS keeps them in its Keychain, other systems in a Secret Service (GNOME Keyring, KWallet, KeePassXC) if the
//! session has one. Knows nothing of what it keeps; how an account's tokens are laid out there is `vault`'s business.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::secret::Secret;

/// Under which the keychain shows our secrets to the person.
const SERVICE: &str = "ccx";

/// How long the keychain may take: it may ask the person for a password.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest secret that is given to the keychain whole. The services take more, but none promises it; a sign-in is
/// about 6 kB.
const PIECE: usize = 16 * 1024;

/// Why the keychain was not read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeychainError {
    /// This session has none: no desktop, a container, a login over ssh.
    #[error("this session has no keychain")]
    Absent,
    /// It is there, and the person did not or could not open it.
    #[error("the keychain is locked")]
    Locked,
    /// It did not answer.
    #[error("the keychain did not answer within {} s", limit.as_secs())]
    Silent {
        /// How long we waited.
        limit: Duration,
    },
    /// It failed otherwise.
    #[error("the keychain failed: {what}")]
    Failed {
        /// What it said, on one line. Holds nothing that was to be kept.
        what: String,
    },
}

/// Named secrets. Every call blocks its thread, and may ask the person.
pub trait Keychain: fmt::Debug + Send + Sync {
    /// Returns the secret `name`, if there is one.
    ///
    /// # Errors
    ///
    /// The keychain cannot be used; that says nothing of the secret.
    fn get(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, KeychainError>;

    /// Keeps `secret` as `name`, in place of what was there.
    ///
    /// # Errors
    ///
    /// It was not kept.
    fn set(&self, name: &str, secret: &[u8]) -> Result<(), KeychainError>;

    /// Removes `name`; one that is not there is removed already.
    ///
    /// # Errors
    ///
    /// It may still be there.
    fn remove(&self, name: &str) -> Result<(), KeychainError>;

    /// Returns how many bytes one secret may have.
    fn piece(&self) -> usize;
}

/// The keychain of this session. Making it touches nothing: the first call connects.
#[derive(Debug, Default)]
pub struct System {
    /// It once did not answer: the call still hangs, and others would hang behind it.
    is_silent: AtomicBool,
}

impl System {
    /// Runs `work` on a thread that may hang: a keychain waits for a person, or for ever.
    fn patiently<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&keyring::Entry) -> keyring::Result<T> + Send + 'static,
    ) -> Result<Option<T>, KeychainError> {
        let silent = KeychainError::Silent { limit: PATIENCE };
        if self.is_silent.load(Ordering::Relaxed) {
            return Err(silent);
        }
        let (sender, receiver) = mpsc::channel();
        let name = name.to_owned();
        let thread = thread::Builder::new().name("keychain".into());
        let started = thread.spawn(move || {
            let outcome = keyring::Entry::new(SERVICE, &name).and_then(|entry| work(&entry));
            // Nobody is waiting any more when it took too long.
            let _ = sender.send(outcome);
        });
        started.map_err(|error| KeychainError::Failed {
            what: error.to_string(),
        })?;
        let Ok(outcome) = receiver.recv_timeout(PATIENCE) else {
            self.is_silent.store(true, Ordering::Relaxed);
            return Err(silent);
        };
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(keyring::Error::NoEntry) => Ok(None),
            Err(error) => Err(told(&error)),
        }
    }
}

/// An error of ours. The library's own may carry what it read, which must not be shown.
fn told(error: &keyring::Error) -> KeychainError {
    let what = match error {
        keyring::Error::NoDefaultStore => return KeychainError::Absent,
        keyring::Error::NoStorageAccess(_) => return KeychainError::Locked,
        keyring::Error::PlatformFailure(cause) => cause.to_string(),
        keyring::Error::TooLong(_, limit) => format!("more than {limit} bytes"),
        keyring::Error::Ambiguous(_) => "several secrets have the same name".to_owned(),
        _ => "an answer that was not understood".to_owned(),
    };
    KeychainError::Failed {
        what: what.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

impl Keychain for System {
    fn get(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, KeychainError> {
        self.patiently(name, |entry| entry.get_secret().map(Secret::new))
    }

    fn set(&self, name: &str, secret: &[u8]) -> Result<(), KeychainError> {
        let secret = Secret::new(secret.to_vec());
        self.patiently(name, move |entry| entry.set_secret(secret.expose()))
            .map(drop)
    }

    fn remove(&self, name: &str) -> Result<(), KeychainError> {
        self.patiently(name, |entry| entry.delete_credential())
            .map(drop)
    }

    fn piece(&self) -> usize {
        PIECE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_no_secret_and_one_line() {
        for (error, told_as) in [
            (
                keyring::Error::NoDefaultStore,
                "this session has no keychain",
            ),
            (
                keyring::Error::NoStorageAccess("x".into()),
                "the keychain is locked",
            ),
            (
                keyring::Error::PlatformFailure("a\n  b".into()),
                "the keychain failed: a b",
            ),
            (
                keyring::Error::BadEncoding(b"SECRET".to_vec()),
                "the keychain failed: an answer that was not understood",
            ),
            (
                keyring::Error::TooLong("password".into(), 2560),
                "the keychain failed: more than 2560 bytes",
            ),
        ] {
            let error = told(&error);
            assert_eq!(error.to_string(), told_as);
            assert!(!format!("{error:?}").contains("SECRET"));
        }
    }
}
