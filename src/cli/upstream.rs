//! The way upstream of a command that asks something and ends.

use anyhow::Context as _;

use crate::account::credentials::Credentials;
use crate::cli::host::{Parts, fresh_secret};
use crate::cli::setup::Setup;
use crate::error::{Kind, Report};
use crate::upstream::failure::Failure;

/// A runtime and what speaks upstream on it.
#[derive(Debug)]
pub struct Upstream {
    runtime: tokio::runtime::Runtime,
    /// What a proxy would be made of; nothing is served here.
    pub parts: Parts,
}

impl Upstream {
    /// Prepares to ask; opens nothing.
    pub fn new(setup: &Setup) -> Result<Self, Report> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not prepare to ask upstream")
            .map_err(|error| Report::new(Kind::Internal, error))?;
        Ok(Self {
            runtime,
            parts: setup.parts(setup.rules(None), fresh_secret())?,
        })
    }

    /// Runs `work` to its end, and what it has begun with it: a rotated refresh token must be on disk before the
    /// process ends.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            let result = work.await;
            self.parts.broker.settle().await;
            result
        })
    }

    /// Returns credentials of the account with this id.
    pub async fn credentials(&self, id: &str) -> Result<Credentials, Report> {
        let credentials = self.parts.broker.credentials(Some(id)).await;
        credentials.map_err(crate::account::sign_in::SignInError::report)
    }
}

/// Returns the report of a call that upstream refused or that did not reach it. `attempt` says what was attempted.
pub fn report(failure: Failure, attempt: String) -> Report {
    let (kind, hint) = match &failure {
        Failure::Unauthorized { .. } => (
            Kind::SignIn,
            Some("`ccx accounts refresh NAME` asks for a new token"),
        ),
        Failure::Forbidden { .. } => (Kind::SignIn, None),
        Failure::Unreachable { .. } | Failure::Cut | Failure::Stalled { .. } => (
            Kind::Upstream,
            Some("look at the network connection, then try again"),
        ),
        _ => (Kind::Upstream, None),
    };
    let report = Report::new(kind, anyhow::Error::new(failure).context(attempt));
    match hint {
        Some(hint) => report.hint(hint),
        None => report,
    }
}
