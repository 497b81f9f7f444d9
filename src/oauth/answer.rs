//! What the issuer's answer to a refresh means: decided on status and codes, never on sentences.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::account::record::DeadReason;
use crate::secret::Secret;

/// What the issuer gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The new access token.
    pub access_token: Secret<String>,
    /// The new refresh token; absent: the old one stays good.
    pub refresh_token: Option<Secret<String>>,
    /// The new id token.
    pub id_token: Option<Secret<String>>,
    /// How long the access token lasts from now; absent when the issuer does not say, or says nothing useful.
    pub expires_in: Option<Duration>,
}

/// Why there are no new tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The issuer will never take this refresh token again.
    #[error("{0}")]
    Refused(DeadReason),
    /// The issuer was not reached, or did not answer in time. Whether it has taken the token is unknown.
    #[error("the issuer cannot be reached: {what}")]
    Unreachable {
        /// Which part failed.
        what: &'static str,
    },
    /// The issuer answered with a status that says nothing of the token: busy, failing, or something in between
    /// answered in its place.
    #[error("the issuer answered {status}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Status {
        /// HTTP status.
        status: u16,
        /// The issuer's word for it.
        code: Option<String>,
    },
    /// The issuer said yes, but not with usable tokens.
    #[error("the issuer's answer is unusable: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Reads a yes. Its bytes are full of tokens, so an error tells nothing of them.
///
/// # Errors
///
/// [`ExchangeError::Malformed`]: not JSON, or no access token in it.
pub fn accept(body: &[u8]) -> Result<Tokens, ExchangeError> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: Option<String>,
        refresh_token: Option<String>,
        id_token: Option<String>,
        #[serde(default)]
        expires_in: Value,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| ExchangeError::Malformed {
        what: "not the JSON of tokens",
    })?;
    let given = |token: Option<String>| token.filter(|token| !token.is_empty()).map(Secret::new);
    Ok(Tokens {
        access_token: given(answer.access_token).ok_or(ExchangeError::Malformed {
            what: "no access token",
        })?,
        refresh_token: given(answer.refresh_token),
        id_token: given(answer.id_token),
        expires_in: answer
            .expires_in
            .as_u64()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
    })
}

/// Reads a no: final only where the issuer speaks of the token itself.
///
/// Source: Codex client 0.169, which takes the three codes and `invalid_grant` under any 4xx, and any other 401, as
/// final. A page of HTML is neither: something between us and the issuer made it.
pub fn refuse(status: u16, body: &[u8]) -> ExchangeError {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let code = answer.as_ref().and_then(|answer| {
        let error = &answer["error"];
        error["code"].as_str().or_else(|| error.as_str())
    });
    let reason = match (status, code) {
        (400..=499, Some("refresh_token_expired")) => Some(DeadReason::Expired),
        (400..=499, Some("refresh_token_reused")) => Some(DeadReason::Reused),
        (400..=499, Some("refresh_token_invalidated")) => Some(DeadReason::Revoked),
        (400..=499, Some("invalid_grant")) => Some(DeadReason::Rejected),
        (401, _) if !is_markup(body) => Some(DeadReason::Rejected),
        _ => None,
    };
    match reason {
        Some(reason) => ExchangeError::Refused(reason),
        None => ExchangeError::Status {
            status,
            // Goes into messages and logs: only what looks like a code.
            code: code
                .filter(|code| code.len() <= 64)
                .filter(|code| {
                    code.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
                })
                .map(str::to_owned),
        },
    }
}

fn is_markup(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}
