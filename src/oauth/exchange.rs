//! Exchanges a refresh token for the next tokens at the issuer.
//!
//! One call, one answer: who may call, how often, and where the tokens go is `account::broker`'s business. A
//! refresh token is single use, so a call is never repeated here.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use serde::Serialize;

use crate::oauth::answer::{accept, refuse};
use crate::secret::Secret;
use crate::upstream::connections::Connections;

pub use crate::oauth::answer::{ExchangeError, Tokens};

/// The public client of the Codex CLI; ChatGPT plans are reached under it.
pub const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// A refresh takes well under a second; an issuer that takes this long is down.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Three tokens are about 6 kB. More than this is something else.
const ANSWER_LIMIT: usize = 256 * 1024;

/// Why a token is renewed; the issuer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshReason {
    /// It is about to end.
    ProactiveExpiry,
    /// Upstream refused it.
    UnauthorizedRecovery,
}

/// The token endpoint of an issuer.
#[derive(Clone, Debug)]
pub struct Exchange {
    url: String,
    connections: Arc<Connections>,
    time_limit: Duration,
}

#[derive(Serialize)]
struct Refresh<'a> {
    client_id: &'a str,
    grant_type: &'a str,
    refresh_reason: RefreshReason,
    refresh_token: &'a str,
}

impl Exchange {
    /// Speaks to the issuer at `auth_origin` (`https://auth.openai.com`) through `connections`.
    ///
    /// They must not follow redirects: one to another host would be sent the refresh token.
    pub fn new(auth_origin: &str, connections: impl Into<Connections>) -> Self {
        let url = format!("{}/oauth/token", auth_origin.trim_end_matches('/'));
        Self {
            url,
            connections: Arc::new(connections.into()),
            time_limit: TIME_LIMIT,
        }
    }

    /// Returns the same, but giving up after `time_limit` from the start of a call to the end of its answer.
    #[must_use]
    pub fn within(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Spends `refresh_token`. Dropping the future may lose what the issuer has already answered.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::Refused`] is final for this refresh token; everything else may pass.
    pub async fn refresh(
        &self,
        refresh_token: &Secret<String>,
        reason: RefreshReason,
    ) -> Result<Tokens, ExchangeError> {
        let body = serde_json::to_vec(&Refresh {
            client_id: CLIENT_ID,
            grant_type: "refresh_token",
            refresh_reason: reason,
            refresh_token: refresh_token.expose(),
        })
        .expect("four strings always serialise");
        let connections = self.connections.get().await;
        let connections = connections.map_err(|_| ExchangeError::Unreachable {
            what: "the system's root certificates cannot be read",
        })?;
        let mut answer = connections
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("ccx/", env!("CARGO_PKG_VERSION")))
            .header("originator", "ccx")
            .timeout(self.time_limit)
            .body(body)
            .send()
            .await
            .map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(ExchangeError::Malformed { what: "too long" });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            accept(&body)
        } else {
            Err(refuse(status.as_u16(), &body))
        }
    }
}

/// The error's own text names the address, which says nothing to a person; its kind does.
fn unreachable(error: &reqwest::Error) -> ExchangeError {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    ExchangeError::Unreachable { what }
}
