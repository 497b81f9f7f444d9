//! Why a sign-in did not come about, in words.

use std::io;

use crate::account::own::Nobody;
use crate::account::sign_in::SignInError;
use crate::account::store::StoreError;
use crate::error::{Kind, Report};
use crate::oauth::authorize::Denial;
use crate::oauth::callback::CallbackError;
use crate::oauth::device::DeviceError;
use crate::oauth::exchange::ExchangeError;

/// Why nobody is signed in now. Shows no code and no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Ctrl-C.
    #[error("the sign-in was interrupted; nothing was changed")]
    Interrupted,
    /// Somebody asked for the port with `/cancel`.
    #[error("another sign-in on this machine has taken the place of this one")]
    TakenOver,
    /// Nobody came back.
    #[error("nobody signed in within {minutes} minutes")]
    TimedOut { minutes: u64 },
    /// The person or the issuer said no on the page.
    #[error("the sign-in was refused")]
    Denied(#[source] Denial),
    /// Standard input ended before anything usable came.
    #[error("no code was pasted")]
    NothingPasted,
    /// Neither port, and nobody to paste.
    #[error("the browser could not come back to ccx")]
    NoPort(#[source] CallbackError),
    /// The issuer does not take the code.
    #[error(
        "the issuer does not take this code: it was used before, is too old, or belongs to another sign-in"
    )]
    CodeRefused,
    /// The code could not be exchanged.
    #[error("the code could not be exchanged for tokens")]
    Exchange(#[source] ExchangeError),
    /// The device way leads nowhere.
    #[error("could not sign in with a code")]
    Device(#[source] DeviceError),
    /// The tokens are nobody's.
    #[error("the sign-in cannot be used")]
    Nobody(#[source] Nobody),
    /// The system.
    #[error("could not {attempt}")]
    System {
        attempt: &'static str,
        source: io::Error,
    },
    /// The accounts could not be written.
    #[error("signed in, but the account could not be kept")]
    Store(#[source] StoreError),
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(_) => Self::CodeRefused,
            other => Self::Exchange(other),
        }
    }
}

impl Failure {
    /// Says whether trying the same code again may help.
    pub(super) const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Exchange(ExchangeError::Unreachable { .. } | ExchangeError::Status { .. })
        )
    }

    /// Returns the report for a command that ends by it.
    pub(super) fn report(self) -> Report {
        const CONNECTION: &str = "look at the network connection, then try again";
        let (kind, hint) = match &self {
            Self::Interrupted => (Kind::Interrupted, None),
            Self::TakenOver | Self::TimedOut { .. } | Self::Denied(_) | Self::CodeRefused => {
                (Kind::SignIn, Some("run `ccx login` again"))
            }
            Self::NothingPasted => (
                Kind::SignIn,
                Some("run `ccx login --paste` and paste the address that the browser ends at"),
            ),
            Self::NoPort(_) => (
                Kind::SignIn,
                Some(
                    "end the program that has these ports, or run `ccx login --headless` or `--paste`",
                ),
            ),
            Self::Exchange(ExchangeError::Malformed { .. })
            | Self::Device(DeviceError::Issuer(ExchangeError::Malformed { .. })) => {
                (Kind::Upstream, Some("try again in a while"))
            }
            Self::Exchange(_) | Self::Device(DeviceError::Issuer(_)) => {
                (Kind::Upstream, Some(CONNECTION))
            }
            Self::Device(DeviceError::Disabled) => (
                Kind::SignIn,
                Some(
                    "allow device codes in ChatGPT's security settings (in a workspace its \
                     administrator does), or run `ccx login --paste`",
                ),
            ),
            Self::Device(DeviceError::Denied | DeviceError::Expired) => {
                (Kind::SignIn, Some("run `ccx login --headless` again"))
            }
            Self::Nobody(_) => (
                Kind::SignIn,
                Some("sign in with an account that has a ChatGPT plan"),
            ),
            Self::System { .. } => (Kind::Internal, None),
            Self::Store(_) => (Kind::SignIn, None),
        };
        if let Self::Store(error) = self {
            let mut report = SignInError::from(error).report();
            report.error = report
                .error
                .context("signed in, but the account could not be kept");
            return report;
        }
        let report = Report::new(kind, self);
        match hint {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}
