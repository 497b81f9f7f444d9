//! Calls to the issuer: one POST, one bounded answer, a time limit over both.
//!
//! Knows nothing of what is asked and what an answer means.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};

use crate::oauth::answer::ExchangeError;
use crate::upstream::connections::Connections;

/// A call takes well under a second; an issuer that takes this long is down.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Three tokens are about 6 kB. More than this is something else.
const ANSWER_LIMIT: usize = 256 * 1024;

/// The way to one issuer. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Issuer {
    origin: String,
    connections: Arc<Connections>,
    time_limit: Duration,
}

/// What the issuer said, not yet understood.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; full of secrets if the status is a yes.
    pub body: Vec<u8>,
}

impl Reply {
    /// Says whether the status is a yes.
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

impl Issuer {
    /// Speaks to the issuer at `auth_origin` (`https://auth.openai.com`) through `connections`.
    ///
    /// They must not follow redirects: one to another host would be sent the secrets.
    pub fn new(auth_origin: &str, connections: impl Into<Connections>) -> Self {
        Self {
            origin: auth_origin.trim_end_matches('/').to_owned(),
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

    /// Returns scheme, host and port.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Posts `body` to `path`. Never repeated here: codes and refresh tokens are good once.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::Unreachable`], and [`ExchangeError::Malformed`] when the answer is too long. Any status is
    /// a reply.
    pub async fn post(
        &self,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Reply, ExchangeError> {
        let connections = self.connections.get().await;
        let connections = connections.map_err(|_| ExchangeError::Unreachable {
            what: "the system's root certificates cannot be read",
        })?;
        let mut answer = connections
            .post(format!("{}{path}", self.origin))
            .header(CONTENT_TYPE, content_type)
            .header(USER_AGENT, concat!("ccx/", env!("CARGO_PKG_VERSION")))
            .header("originator", "ccx")
            .timeout(self.time_limit)
            .body(body)
            .send()
            .await
            .map_err(|error| unreachable(&error))?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(ExchangeError::Malformed { what: "too long" });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body })
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
