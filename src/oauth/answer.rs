//! What the issuer's answer to a refresh means: decided on status and codes, never on sentences.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::account::record::DeadReason;
use crate::secret::Secret;

/// What the issuer gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Says whether something answered with a page: it was not the issuer that we asked.
pub fn is_markup(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn the_recorded_refusals_are_read_as_the_codex_client_reads_them() {
        let recorded: Vec<Value> = serde_json::from_str(include_str!(
            "../../tests/fixtures/codex/auth/refresh-error-responses.json"
        ))
        .unwrap();
        for case in recorded {
            let status = case["status"].as_u64().unwrap() as u16;
            let body = match &case["body"] {
                Value::String(text) => text.clone(),
                json => json.to_string(),
            };
            let expected = match case["client_0_169_treats_as"].as_str().unwrap() {
                "permanent: expired" => ExchangeError::Refused(DeadReason::Expired),
                "permanent: already used" => ExchangeError::Refused(DeadReason::Reused),
                "permanent: revoked" => ExchangeError::Refused(DeadReason::Revoked),
                "permanent: other" => ExchangeError::Refused(DeadReason::Rejected),
                _ => ExchangeError::Status { status, code: None },
            };
            assert_eq!(refuse(status, body.as_bytes()), expected, "{case}");
        }
    }

    #[test]
    fn only_the_issuers_own_word_is_final() {
        let reused = r#"{"error":{"code":"refresh_token_reused"}}"#;
        let code = |status, code: &str| ExchangeError::Status {
            status,
            code: Some(code.to_owned()),
        };
        let bare = |status| ExchangeError::Status { status, code: None };
        let rejected = ExchangeError::Refused(DeadReason::Rejected);
        for (status, body, expected) in [
            (403, reused, ExchangeError::Refused(DeadReason::Reused)),
            (500, reused, code(500, "refresh_token_reused")),
            (401, "", rejected.clone()),
            (401, "no", rejected),
            (
                401,
                " <html>sign in to the hotel's network</html>",
                bare(401),
            ),
            (403, "<html>blocked</html>", bare(403)),
            (
                400,
                r#"{"error":"invalid_request"}"#,
                code(400, "invalid_request"),
            ),
            (
                429,
                r#"{"error":{"code":"rate_limit_exceeded"}}"#,
                code(429, "rate_limit_exceeded"),
            ),
            (400, r#"{"error":"rt_SECRET with a space"}"#, bare(400)),
            (400, r#"{"error":{"code":7}}"#, bare(400)),
            (307, "", bare(307)),
            (503, "\u{0}", bare(503)),
        ] {
            assert_eq!(refuse(status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn tokens_are_read() {
        let tokens = |refresh: Option<&str>, id: Option<&str>, expires_in| {
            Ok(Tokens {
                access_token: secret("at"),
                refresh_token: refresh.map(secret),
                id_token: id.map(secret),
                expires_in: Option::map(expires_in, Duration::from_secs),
            })
        };
        let no_token = Err(ExchangeError::Malformed {
            what: "no access token",
        });
        let no_json = Err(ExchangeError::Malformed {
            what: "not the JSON of tokens",
        });
        for (body, expected) in [
            (
                json!({"access_token": "at", "refresh_token": "rt", "id_token": "it", "expires_in": 864_000, "scope": "x"}),
                tokens(Some("rt"), Some("it"), Some(864_000)),
            ),
            (json!({"access_token": "at"}), tokens(None, None, None)),
            (
                json!({"access_token": "at", "refresh_token": "", "id_token": null, "expires_in": 0}),
                tokens(None, None, None),
            ),
            (
                json!({"access_token": "at", "expires_in": "3600"}),
                tokens(None, None, None),
            ),
            (
                json!({"access_token": "at", "expires_in": -1}),
                tokens(None, None, None),
            ),
            (json!({"access_token": ""}), no_token.clone()),
            (json!({"access_token": null}), no_token.clone()),
            (json!({"error": "x"}), no_token),
            (json!({"access_token": {"SECRET": 1}}), no_json.clone()),
            (json!([]), no_json.clone()),
            (json!("SECRET"), no_json),
        ] {
            assert_eq!(accept(body.to_string().as_bytes()), expected, "{body}");
        }
        assert!(accept(b"<html>").is_err());
        assert!(accept(b"").is_err());
    }
}
