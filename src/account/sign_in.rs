//! Why there is no token to be had, in words, and which command mends it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::account::apart::Told;
use crate::account::codex_file::CodexFileError;
use crate::account::import::ImportError;
use crate::account::record::{DeadReason, Record, Sealed};
use crate::account::select::SelectError;
use crate::account::store::StoreError;
use crate::error::{Kind, Report};
use crate::files::lock::LockError;
use crate::oauth::exchange::ExchangeError;

/// Why an account cannot be used now. Cloned to everybody who waited for the same renewal.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignInError {
    /// Nobody is signed in.
    #[error("no ChatGPT account is signed in")]
    NoAccount {
        /// A damaged store that may hold the accounts that are missed.
        set_aside: Option<PathBuf>,
    },
    /// No single account is meant.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The account was removed meanwhile.
    #[error("the account is no longer signed in")]
    Removed,
    /// The issuer has refused to renew the sign-in, for good.
    #[error("{account} is signed out: {reason}")]
    Refused {
        /// Which account.
        account: String,
        /// Why.
        reason: DeadReason,
    },
    /// The tokens are in a keychain that does not give them.
    #[error("the tokens of {account} are in the system's keychain, and {why}")]
    Sealed {
        /// Which account.
        account: String,
        /// Why they cannot be had.
        why: Sealed,
    },
    /// The access token has ended, or is refused, and there is nothing to renew it with.
    #[error("the sign-in of {account} has ended and cannot be renewed")]
    NoRefreshToken {
        /// Which account.
        account: String,
    },
    /// Upstream refuses even a token that was just renewed.
    #[error("the ChatGPT backend refuses {account} although its sign-in was just renewed")]
    StillRefused {
        /// Which account.
        account: String,
    },
    /// The imported login has ended, and the Codex CLI has not renewed it. ccx does not: a refresh token that two
    /// programs spend signs both out.
    #[error("the Codex login of {account} in {} has expired", path.display())]
    ImportExpired {
        /// Which account.
        account: String,
        /// The Codex CLI's file.
        path: PathBuf,
    },
    /// Upstream refuses the imported login, and the Codex CLI has not renewed it.
    #[error("the ChatGPT backend refuses the Codex login of {account} in {}", path.display())]
    ImportRefused {
        /// Which account.
        account: String,
        /// The Codex CLI's file.
        path: PathBuf,
    },
    /// The file is now somebody else's login.
    #[error("{} no longer holds the login of {account}", path.display())]
    ImportChanged {
        /// Which account.
        account: String,
        /// The Codex CLI's file.
        path: PathBuf,
    },
    /// The file can no longer be read.
    #[error(
        "the login of {account} has ended, and the Codex login it came from cannot be read again"
    )]
    ImportUnreadable {
        /// Which account.
        account: String,
        /// Why.
        source: Arc<ImportError>,
    },
    /// The login is to be renewed together with the Codex CLI, and its file cannot be written.
    #[error("the login of {account} has ended, and the Codex login in {} cannot be renewed", path.display())]
    NotShared {
        /// Which account.
        account: String,
        /// The Codex CLI's file.
        path: PathBuf,
        /// Why.
        source: Arc<CodexFileError>,
    },
    /// The issuer was not reached or made no sense. May pass.
    #[error("the sign-in of {account} could not be renewed")]
    Unreachable {
        /// Which account.
        account: String,
        /// Why.
        source: ExchangeError,
    },
    /// The store failed.
    #[error("the account store cannot be used")]
    Store(#[source] Arc<StoreError>),
    /// Another process is renewing the account and does not finish.
    #[error("another ccx is still renewing the sign-in")]
    Busy(#[source] Arc<LockError>),
    /// The process that was to renew it could not.
    #[error(transparent)]
    Elsewhere(Told),
    /// ccx itself is ending.
    #[error("the renewal of the sign-in was interrupted")]
    Interrupted,
}

impl SignInError {
    /// Says whether the same call may succeed later without the person doing anything.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy(_) | Self::Interrupted => true,
            Self::Elsewhere(told) => told.is_transient,
            _ => false,
        }
    }

    /// Says why the tokens of `record` cannot be had, if they cannot.
    ///
    /// # Errors
    ///
    /// They are in a keychain that does not give them.
    pub fn check_sealed(record: &Record) -> Result<(), Self> {
        match record.sealed() {
            Some(why) => Err(Self::Sealed {
                account: record.name(),
                why,
            }),
            None => Ok(()),
        }
    }

    /// Returns what kind of trouble this is for a command that fails by it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } | Self::Busy(_) => Kind::Upstream,
            Self::Elsewhere(told) if told.is_transient => Kind::Upstream,
            Self::Interrupted => Kind::Internal,
            Self::Select(SelectError::Ambiguous { .. } | SelectError::Unknown { .. }) => {
                Kind::Usage
            }
            _ => Kind::SignIn,
        }
    }

    /// Returns what the person can do, naming the command.
    pub fn mend(&self) -> Cow<'static, str> {
        match self {
            Self::Elsewhere(told) => told.mend.clone().into(),
            Self::NoAccount {
                set_aside: Some(path),
            } => format!(
                "run `ccx login`; earlier accounts may still be in {}",
                path.display()
            )
            .into(),
            Self::NoAccount { set_aside: None }
            | Self::Select(SelectError::Empty)
            | Self::Removed
            | Self::Refused { .. }
            | Self::NoRefreshToken { .. }
            | Self::StillRefused { .. } => "run `ccx login`".into(),
            Self::Sealed { why, .. } => match why {
                Sealed::Locked => "unlock the keychain, then try again",
                Sealed::Absent => {
                    "start ccx in the desktop session that has the keychain, or sign in once more here"
                }
                Sealed::Gone => "sign in once more: run `ccx login`",
                Sealed::Failed => "look at the keychain, then try again; nothing was lost",
            }
            .into(),
            Self::ImportUnreadable { source, .. } => {
                source.mend().unwrap_or("run `ccx login`").into()
            }
            Self::ImportExpired { .. } | Self::ImportRefused { .. } => {
                "run `codex` once so that it renews its login (or `codex login`), then try again; \
                 ccx takes over the new login by itself"
                    .into()
            }
            Self::ImportChanged { .. } => {
                "run `ccx login --import` to use the login that is there now".into()
            }
            Self::NotShared { .. } => {
                "look at that file and its directory, then try again; nothing was spent".into()
            }
            Self::Select(SelectError::Ambiguous { .. }) => {
                "name one by its label, its e-mail address or its id: `ccx --account NAME`".into()
            }
            Self::Select(SelectError::Unknown { .. }) => {
                "look at the name after `--account`".into()
            }
            Self::Unreachable { .. } => {
                "look at the network connection, then try again; nothing was lost".into()
            }
            Self::Store(source) => match **source {
                StoreError::Newer { .. } => "update ccx".into(),
                StoreError::Damaged { .. } => {
                    "mend the file that was set aside and put it back, or run `ccx login`".into()
                }
                _ => "look at that file and its directory, then try again".into(),
            },
            Self::Busy(_) | Self::Interrupted => "try again".into(),
        }
    }

    /// Returns the report for a command that ends by it.
    pub fn report(self) -> Report {
        let (kind, mend) = (self.kind(), self.mend());
        Report::new(kind, self).hint(mend)
    }
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
