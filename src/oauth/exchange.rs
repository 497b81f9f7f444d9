//! Exchanges a code for the first tokens, and a refresh token for the next ones.
//!
//! One call, one answer: who may call, how often, and where the tokens go is decided by `account::broker` and by
//! the sign-in. Codes and refresh tokens are single use, so a call is never repeated here.

use std::time::Duration;

use serde::Serialize;

use crate::oauth::answer::{accept, refuse};
use crate::oauth::form;
use crate::oauth::issuer::Issuer;
use crate::secret::Secret;
use crate::upstream::connections::Connections;

pub use crate::oauth::answer::{ExchangeError, Tokens};
pub use crate::oauth::authorize::CLIENT_ID;

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
    issuer: Issuer,
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
        Self::of(Issuer::new(auth_origin, connections))
    }

    /// Speaks to `issuer`.
    pub const fn of(issuer: Issuer) -> Self {
        Self { issuer }
    }

    /// Returns the same, but giving up after `time_limit` from the start of a call to the end of its answer.
    #[must_use]
    pub fn within(mut self, time_limit: Duration) -> Self {
        self.issuer = self.issuer.within(time_limit);
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
        self.tokens("application/json", body).await
    }

    /// Exchanges the `code` of a sign-in that was made with `verifier` and comes back to `redirect_uri`.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::Refused`]: the issuer does not take this code, or not any more. After any other error the
    /// same code may be tried again.
    pub async fn redeem(
        &self,
        code: &Secret<String>,
        verifier: &Secret<String>,
        redirect_uri: &str,
    ) -> Result<Tokens, ExchangeError> {
        let body = form::encode(&[
            ("grant_type", "authorization_code"),
            ("client_id", CLIENT_ID),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose()),
        ]);
        self.tokens("application/x-www-form-urlencoded", body.into_bytes())
            .await
    }

    async fn tokens(
        &self,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Tokens, ExchangeError> {
        let reply = self.issuer.post("/oauth/token", content_type, body).await?;
        if reply.is_success() {
            accept(&reply.body)
        } else {
            Err(refuse(reply.status, &reply.body))
        }
    }
}
