//! Why upstream did not answer: decided once, on codes, types and statuses.
//!
//! Pure: `now` is passed in. Reads the two forms in which upstream says it, a reply that is no
//! success and a failure inside a stream; the shapes of a reply are taken apart in `refusal`. What a
//! client is told for each failure is decided in `proxy`, whether to try again in `retry`.

use std::time::Duration;

use http::HeaderMap;

use crate::time::UnixSeconds;
use crate::translate::stream::{EMPTY_COMPLETION, NAMELESS_CALL, STALLED_ARGUMENTS, TOO_LONG};
use crate::upstream::limits::{Limits, UsedUp};
use crate::upstream::overflow;
use crate::upstream::refusal::{self, Refusal};
use crate::wire::responses::StreamFailure;

/// A failure of one attempt, as the rest of ccx sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The access token was not taken.
    #[error("upstream did not accept the access token: {message}")]
    Unauthorized {
        /// Upstream's words.
        message: String,
    },
    /// The access token was not taken, and there is no other to be had.
    #[error("{why}")]
    SignedOut {
        /// Why not, and what mends it.
        why: String,
    },
    /// The account may not do this.
    #[error("upstream refused: {why}")]
    Forbidden {
        /// Upstream's words, or what stood in their place.
        why: String,
    },
    /// Something before upstream sent a page in place of an answer: no verdict on the account.
    #[error("upstream was not reached: {why}")]
    Blocked {
        /// What came.
        why: String,
    },
    /// The request's encrypted reasoning cannot be read where it was sent.
    #[error("upstream cannot read the reasoning of earlier turns: {message}")]
    ReasoningRefused {
        /// Upstream's words.
        message: String,
    },
    /// The plan's limit is used up.
    #[error("usage limit reached: {message}")]
    UsageLimit {
        /// Upstream's words.
        message: String,
        /// When the window starts anew, in seconds since 1970.
        resets_at: Option<u64>,
        /// Which window it is, where that can be told.
        window: Option<UsedUp>,
    },
    /// Too many requests for now.
    #[error("rate limited: {message}")]
    RateLimited {
        /// Upstream's words.
        message: String,
        /// How long upstream asks to wait.
        retry_after: Option<Duration>,
    },
    /// No capacity for now.
    #[error("upstream is overloaded: {message}")]
    Overloaded {
        /// Upstream's words.
        message: String,
        /// How long upstream asks to wait.
        retry_after: Option<Duration>,
    },
    /// The request does not fit the model's window.
    #[error("the request is longer than the model's context window")]
    ContextTooLong {
        /// The window in tokens, where upstream says it.
        limit: Option<u64>,
        /// The request in tokens, where upstream says it.
        tokens: Option<u64>,
    },
    /// A request for a summary does not fit, whatever is left out of it.
    #[error(
        "the conversation does not fit the model's window of {window} tokens, even after ccx left out what it could"
    )]
    StillTooLong {
        /// The window in tokens.
        window: u64,
    },
    /// The account is not served this model.
    #[error("model not available: {message}")]
    ModelUnavailable {
        /// Upstream's words.
        message: String,
    },
    /// The request was refused as it stands; the same again will be refused again.
    #[error("upstream rejected the request ({status}): {message}")]
    Rejected {
        /// Upstream's status.
        status: u16,
        /// Upstream's code.
        code: Option<String>,
        /// Upstream's words.
        message: String,
    },
    /// A fault on upstream's side.
    #[error("upstream failed{}: {message}", in_brackets(*status))]
    Server {
        /// Upstream's status; 200 when the fault came inside a stream.
        status: u16,
        /// Upstream's words.
        message: String,
    },
    /// No connection.
    #[error("upstream cannot be reached: {what}")]
    Unreachable {
        /// Which part failed: name, connection, TLS, timeout.
        what: String,
    },
    /// The stream ended before the answer was complete.
    #[error("upstream cut the stream before the answer was complete")]
    Cut,
    /// The answer was not complete in the time that such a request has.
    #[error("upstream's answer was not complete after {} s", after.as_secs())]
    Late {
        /// The time that it has.
        after: Duration,
    },
    /// Nothing came for too long.
    #[error("upstream sent nothing for {} s", idle.as_secs())]
    Stalled {
        /// How long nothing came.
        idle: Duration,
    },
    /// An answer came to its end without any content.
    #[error("upstream's answer is empty")]
    Empty,
    /// An answer came, but nobody could make use of it.
    #[error("upstream's answer cannot be used: {what}")]
    Unusable {
        /// What is wrong with it, in a few words.
        what: &'static str,
    },
    /// An answer came that is longer than any that ccx takes; another would be as long.
    #[error("upstream's answer is longer than any that ccx takes")]
    TooLong,
    /// What came is not what upstream says it sends.
    #[error("upstream sent something that is not an event stream: {what}")]
    Malformed {
        /// What came, in a few words.
        what: String,
    },
}

/// A status for failures inside a stream that come without one.
const IN_STREAM: u16 = 200;

/// A status as it stands behind words; one of success says nothing there.
fn in_brackets(status: u16) -> String {
    match status {
        IN_STREAM => String::new(),
        _ => format!(" ({status})"),
    }
}

impl Failure {
    /// Classifies a reply that is no success. `headers` and `body` are the reply's, `now` is when it came (times
    /// may be told relative to it).
    pub fn from_reply(status: u16, headers: &HeaderMap, body: &[u8], now: UnixSeconds) -> Self {
        let refusal = Refusal::read(status, headers, body);
        let limits = Limits::read(headers);
        let wait = retry_after(headers, now);
        let resets_at = refusal
            .resets(now)
            .or_else(|| limits.exhausted_until(now))
            .or_else(|| wait.map(|wait| now.plus(wait)))
            .map(|at| at.0);
        if refusal.code.is_none() && status == 429 && limits.reached.is_some() {
            return Self::UsageLimit {
                message: refusal.message,
                resets_at,
                window: limits.used_up(resets_at.map(UnixSeconds), now),
            };
        }
        match classify(status, refusal, wait, resets_at) {
            Self::UsageLimit {
                message, resets_at, ..
            } => Self::UsageLimit {
                message,
                resets_at,
                window: limits.used_up(resets_at.map(UnixSeconds), now),
            },
            other => other,
        }
    }

    /// Classifies a failure that upstream reported inside a stream, a `response.incomplete` that is no ordinary end,
    /// or what the translation found an answer to lack.
    pub fn from_stream(failure: &StreamFailure) -> Self {
        match failure.code.as_deref() {
            Some(EMPTY_COMPLETION) => return Self::Empty,
            Some(NAMELESS_CALL) => {
                return Self::Unusable {
                    what: "it calls a tool without naming one",
                };
            }
            Some(STALLED_ARGUMENTS) => {
                return Self::Unusable {
                    what: "a tool call consists of white space without end",
                };
            }
            Some(TOO_LONG) => return Self::TooLong,
            _ => {}
        }
        if let Some(reason) = &failure.incomplete {
            return match reason.as_str() {
                "content_filter" => Self::Rejected {
                    status: 400,
                    code: Some(reason.clone()),
                    message: "upstream's content filter stopped the answer".to_owned(),
                },
                _ => Self::Server {
                    status: IN_STREAM,
                    message: refusal::clean(&format!("the answer is incomplete: {reason}")),
                },
            };
        }
        let words = failure.message.as_deref().unwrap_or_default();
        let refusal = Refusal {
            code: failure.code.clone(),
            kind: failure.kind.clone(),
            message: refusal::clean(words),
            ..Refusal::default()
        }
        .worded(|| "it did not say why".to_owned());
        let wait = refusal::try_again_in(words);
        classify(
            failure.status.unwrap_or(IN_STREAM),
            refusal,
            wait,
            failure.resets_at,
        )
    }
}

/// What a code or type means, whatever the status.
enum Meaning {
    Unauthorized,
    Forbidden,
    Blocked,
    ReasoningRefused,
    UsageLimit,
    RateLimited,
    Overloaded,
    ContextTooLong,
    ModelUnavailable,
    Rejected,
    Server,
}

/// Returns what `word` (an `error.code` or `error.type`) means; `None` where it does not decide.
fn meaning(word: &str) -> Option<Meaning> {
    Some(match word {
        "usage_limit_reached"
        | "usage_limit_exceeded"
        | "insufficient_quota"
        | "credit_balance_exhausted"
        | "organization_spend_limit_exceeded"
        | "billing_hard_limit_reached"
        | "subscription_sharing_usage_limit_exceeded"
        | "workspace_owner_credits_depleted"
        | "workspace_member_credits_depleted"
        | "workspace_owner_usage_limit_reached"
        | "workspace_member_usage_limit_reached" => Meaning::UsageLimit,
        "rate_limit_exceeded" | "rate_limit_reached" | "too_many_requests" => Meaning::RateLimited,
        "server_is_overloaded" | "slow_down" | "overloaded" | "overloaded_error" => {
            Meaning::Overloaded
        }
        "context_length_exceeded"
        | "context_window_exceeded"
        | "model_context_window_exceeded"
        | "prompt_too_long"
        | "input_too_long" => Meaning::ContextTooLong,
        "model_not_found" | "model_not_available" | "model_not_supported" | "unsupported_model" => {
            Meaning::ModelUnavailable
        }
        "usage_not_included"
        | "unsupported_country_region_territory"
        | "request_forbidden"
        | "deactivated_workspace"
        | "subscription_sharing_user_not_eligible" => Meaning::Forbidden,
        "token_expired" | "token_invalidated" | "token_revoked" | "invalid_token" => {
            Meaning::Unauthorized
        }
        "invalid_encrypted_content" => Meaning::ReasoningRefused,
        "invalid_prompt" | "cyber_policy" | "bio_policy" | "content_filter" => Meaning::Rejected,
        "server_error" | "internal_server_error" => Meaning::Server,
        _ => return None,
    })
}

fn classify(
    status: u16,
    refusal: Refusal,
    retry_after: Option<Duration>,
    resets_at: Option<u64>,
) -> Failure {
    let word = |word: &Option<String>| word.as_deref().and_then(meaning);
    let meaning = word(&refusal.code)
        .or_else(|| word(&refusal.kind))
        .or_else(|| {
            refusal
                .names_model_as_unsupported
                .then_some(Meaning::ModelUnavailable)
        })
        .or_else(|| {
            let (code, param) = (refusal.code.as_deref(), refusal.param.as_deref());
            overflow::is_told(status, code, param, &refusal.message)
                .then_some(Meaning::ContextTooLong)
        })
        .unwrap_or_else(|| by_status(status, &refusal));
    let Refusal { code, message, .. } = refusal;
    match meaning {
        Meaning::Unauthorized => Failure::Unauthorized { message },
        Meaning::Forbidden => Failure::Forbidden { why: message },
        Meaning::Blocked => Failure::Blocked { why: message },
        Meaning::ReasoningRefused => Failure::ReasoningRefused { message },
        Meaning::UsageLimit => Failure::UsageLimit {
            message,
            resets_at,
            window: None,
        },
        Meaning::RateLimited => Failure::RateLimited {
            message,
            retry_after,
        },
        Meaning::Overloaded => Failure::Overloaded {
            message,
            retry_after,
        },
        Meaning::ContextTooLong => {
            let overflow::Sizes { limit, tokens } = overflow::sizes(&message);
            Failure::ContextTooLong { limit, tokens }
        }
        Meaning::ModelUnavailable => Failure::ModelUnavailable { message },
        Meaning::Rejected => Failure::Rejected {
            status: if status == IN_STREAM { 400 } else { status },
            code,
            message,
        },
        Meaning::Server => Failure::Server { status, message },
    }
}

fn by_status(status: u16, refusal: &Refusal) -> Meaning {
    match status {
        401 => Meaning::Unauthorized,
        403 if refusal.is_page => Meaning::Blocked,
        402 | 403 => Meaning::Forbidden,
        // An input item that is not stored upstream is the request's fault, not the model's.
        404 if refusal.param.is_some() || refusal.code.is_some() => Meaning::Rejected,
        404 => Meaning::ModelUnavailable,
        408 => Meaning::Server,
        429 => Meaning::RateLimited,
        503 | 529 => Meaning::Overloaded,
        400..=499 => Meaning::Rejected,
        _ if refusal.kind.as_deref() == Some("invalid_request_error") => Meaning::Rejected,
        _ => Meaning::Server,
    }
}

/// Returns how long upstream asks to wait: `retry-after-ms`, or `retry-after` in seconds or as an HTTP date.
/// Source: RFC 9110, section 10.2.3; the first is upstream's own.
fn retry_after(headers: &HeaderMap, now: UnixSeconds) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(wait) = text("retry-after-ms").and_then(|value| value.parse::<u64>().ok()) {
        return Some(Duration::from_millis(wait));
    }
    let value = text("retry-after")?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    let at = u64::try_from(date.timestamp().as_second()).ok()?;
    Some(UnixSeconds(at).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const NOW: UnixSeconds = UnixSeconds(1_795_000_000);

    fn words(text: &str) -> String {
        text.to_owned()
    }

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Failure {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::try_from(*name).unwrap(),
                    HeaderValue::try_from(*value).unwrap(),
                )
            })
            .collect();
        Failure::from_reply(status, &headers, body.as_bytes(), NOW)
    }

    /// The replies of `tests/fixtures/codex/errors`.
    fn fixture(name: &str) -> Failure {
        let path = format!(
            "{}/tests/fixtures/codex/errors/{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let headers = value["headers"].as_object().unwrap().iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let body = match &value["body"] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let status = value["status"].as_u64().unwrap();
        reply(u16::try_from(status).unwrap(), &headers, &body)
    }

    #[test]
    fn every_recorded_reply_is_classified() {
        let expected = [
            (
                "400-context-length",
                Failure::ContextTooLong {
                    limit: None,
                    tokens: None,
                },
            ),
            (
                "400-model-not-supported-detail",
                Failure::ModelUnavailable {
                    message: words(
                        "The 'gpt-9' model is not supported when using Codex with a ChatGPT account.",
                    ),
                },
            ),
            (
                "400-unsupported-parameter-detail",
                Failure::Rejected {
                    status: 400,
                    code: None,
                    message: words("Unsupported parameter: max_output_tokens"),
                },
            ),
            (
                "401-token-expired",
                Failure::Unauthorized {
                    message: words(
                        "Provided authentication token is expired. Please try signing in again.",
                    ),
                },
            ),
            (
                "402-deactivated-workspace",
                Failure::Forbidden {
                    why: words("deactivated_workspace"),
                },
            ),
            (
                "403-cloudflare-html",
                Failure::Blocked {
                    why: words(
                        "a web page came instead of an answer: something before upstream blocked the \
                         connection (ray abc-AMS); this says nothing about the account, try another \
                         network or later",
                    ),
                },
            ),
            (
                "403-detail",
                Failure::Forbidden {
                    why: words("Forbidden"),
                },
            ),
            (
                "403-unsupported-country",
                Failure::Forbidden {
                    why: words("Country, region, or territory not supported"),
                },
            ),
            (
                "404-detail",
                Failure::ModelUnavailable {
                    message: words("Not Found"),
                },
            ),
            (
                "422-detail-array",
                Failure::Rejected {
                    status: 422,
                    code: None,
                    message: words("body.input: field required"),
                },
            ),
            (
                "429-rate-limit-retry-after",
                Failure::RateLimited {
                    message: words("Too many requests"),
                    retry_after: Some(Duration::from_secs(1)),
                },
            ),
            (
                "429-usage-limit-reached",
                Failure::UsageLimit {
                    message: words("The usage limit has been reached"),
                    resets_at: Some(1_795_461_600),
                    window: Some(UsedUp {
                        length: Some(Duration::from_secs(18_000)),
                        family: None,
                    }),
                },
            ),
            (
                "429-usage-not-included",
                Failure::Forbidden { why: words("no") },
            ),
            (
                "500-server-error",
                Failure::Server {
                    status: 500,
                    message: words("boom"),
                },
            ),
            (
                "502-html",
                Failure::Server {
                    status: 502,
                    message: words("a web page with status 502 came instead of an answer"),
                },
            ),
            (
                "503-server-is-overloaded",
                Failure::Overloaded {
                    message: words("overloaded"),
                    retry_after: None,
                },
            ),
        ];
        for (name, failure) in &expected {
            assert_eq!(fixture(name), *failure, "{name}");
        }
        let all = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/codex/errors");
        assert_eq!(std::fs::read_dir(all).unwrap().count(), expected.len());
    }

    #[test]
    fn codes_decide_before_statuses() {
        let message = words("m");
        let retry_after = None;
        for (status, error, expected) in [
            (
                404,
                r#""code":"usage_limit_reached""#,
                Failure::UsageLimit {
                    message: message.clone(),
                    resets_at: None,
                    window: None,
                },
            ),
            (
                403,
                r#""code":"rate_limit_exceeded""#,
                Failure::RateLimited {
                    message: message.clone(),
                    retry_after,
                },
            ),
            (
                429,
                r#""type":"server_is_overloaded","code":null"#,
                Failure::Overloaded {
                    message: message.clone(),
                    retry_after,
                },
            ),
            (
                413,
                r#""type":"invalid_request_error","code":"context_length_exceeded""#,
                Failure::ContextTooLong {
                    limit: None,
                    tokens: None,
                },
            ),
            (
                404,
                r#""type":"invalid_request_error","code":"model_not_found""#,
                Failure::ModelUnavailable {
                    message: message.clone(),
                },
            ),
            (
                404,
                r#""type":"invalid_request_error","param":"input","code":null"#,
                Failure::Rejected {
                    status: 404,
                    code: None,
                    message: message.clone(),
                },
            ),
            (
                400,
                r#""code":"cyber_policy""#,
                Failure::Rejected {
                    status: 400,
                    code: Some(words("cyber_policy")),
                    message: message.clone(),
                },
            ),
            (
                400,
                r#""code":"subscription_sharing_user_not_eligible""#,
                Failure::Forbidden {
                    why: message.clone(),
                },
            ),
        ] {
            let body = format!(r#"{{"error":{{"message":"m",{error}}}}}"#);
            assert_eq!(reply(status, &[], &body), expected, "{status} {error}");
        }
    }

    #[test]
    fn an_overflow_is_known_by_its_code_or_its_words_in_a_reply_and_in_a_stream() {
        let words_alone = "This model's maximum context length is 272000 tokens. However, your messages resulted in 300123 tokens.";
        for (code, message, limit, tokens) in [
            (Some("context_length_exceeded"), "too much", None, None),
            (Some("context_window_exceeded"), "", None, None),
            (Some("model_context_window_exceeded"), "", None, None),
            (Some("prompt_too_long"), "", None, None),
            (None, words_alone, Some(272_000), Some(300_123)),
            (
                Some("invalid_request_error"),
                words_alone,
                Some(272_000),
                Some(300_123),
            ),
            (
                Some("bad_request"),
                "Your input exceeds the context window of this model.",
                None,
                None,
            ),
        ] {
            let expected = Failure::ContextTooLong { limit, tokens };
            let error = serde_json::json!({"type": "invalid_request_error", "code": code, "message": message});
            let in_error = serde_json::json!({"error": error}).to_string();
            for status in [400, 413] {
                assert_eq!(reply(status, &[], &in_error), expected, "{in_error}");
            }
            if code.is_none() {
                let detail = serde_json::json!({"detail": message}).to_string();
                assert_eq!(reply(400, &[], &detail), expected, "{detail}");
                assert_eq!(reply(400, &[], message), expected);
            }
            let in_stream = StreamFailure {
                code: code.map(str::to_owned),
                message: Some(message.to_owned()),
                ..StreamFailure::default()
            };
            assert_eq!(Failure::from_stream(&in_stream), expected, "{in_stream:?}");
        }
    }

    #[test]
    fn words_about_a_window_are_no_overflow() {
        let body = r#"{"error":{"message":"the context window of the editor is closed","type":"invalid_request_error"}}"#;
        assert!(matches!(
            reply(400, &[], body),
            Failure::Rejected { status: 400, .. }
        ));
    }

    #[test]
    fn a_reset_is_taken_from_the_best_that_was_told() {
        let limit = r#""type":"usage_limit_reached""#;
        let primary = [
            ("x-codex-primary-used-percent", "100"),
            ("x-codex-primary-reset-at", "1795010000"),
        ];
        let after = [("retry-after", "60")];
        for (headers, rest, resets_at) in [
            (
                &primary[..],
                r#","resets_at":1795461600,"resets_in_seconds":5"#,
                Some(1_795_461_600),
            ),
            // A time that has passed is no reset.
            (
                &[],
                r#","resets_at":1,"resets_in_seconds":3600"#,
                Some(1_795_003_600),
            ),
            (&[], r#","resets_in_seconds":"3600""#, Some(1_795_003_600)),
            (&primary[..], "", Some(1_795_010_000)),
            (&after[..], "", Some(1_795_000_060)),
            (&[], "", None),
        ] {
            let body = format!(r#"{{"error":{{{limit}{rest}}}}}"#);
            let Failure::UsageLimit {
                message,
                resets_at: told,
                ..
            } = reply(429, headers, &body)
            else {
                panic!("no usage limit: {rest}");
            };
            assert_eq!(message, "usage_limit_reached");
            assert_eq!(told, resets_at, "{rest}");
        }
    }

    #[test]
    fn a_bare_429_is_a_limit_only_if_the_headers_say_so() {
        assert_eq!(
            reply(429, &[], ""),
            Failure::RateLimited {
                message: words("status 429 without a message"),
                retry_after: None
            }
        );
        let reached = [("x-codex-rate-limit-reached-type", "rate_limit_reached")];
        assert!(matches!(
            reply(429, &reached, ""),
            Failure::UsageLimit { .. }
        ));
    }

    #[test]
    fn waits_are_read_in_every_form() {
        for (name, value, milliseconds) in [
            ("retry-after", "2", Some(2_000)),
            ("retry-after", "0.5", Some(500)),
            ("retry-after-ms", "250", Some(250)),
            // 1795000000 is 2026-11-18T11:06:40Z.
            ("retry-after", "Wed, 18 Nov 2026 11:06:45 GMT", Some(5_000)),
            ("retry-after", "Wed, 18 Nov 2020 11:06:45 GMT", Some(0)),
            ("retry-after", "soon", None),
            ("retry-after", "-1", None),
            ("retry-after", "1e300", None),
        ] {
            let Failure::RateLimited { retry_after, .. } = reply(429, &[(name, value)], "{}")
            else {
                panic!("{value}");
            };
            assert_eq!(
                retry_after,
                milliseconds.map(Duration::from_millis),
                "{value}"
            );
        }
    }

    #[test]
    fn nothing_that_looks_like_a_token_or_a_page_gets_into_words() {
        let jwt = "eyJhbGciOiJub25lIn0.eyJmIjp0cnVlfQ.c2ln";
        let body = format!(r#"{{"error":{{"message":"bad {jwt}"}}}}"#);
        for failure in [
            reply(401, &[], &body),
            reply(400, &[], &format!("bad {jwt}")),
            reply(500, &[("content-type", "text/html")], &body),
            reply(400, &[], &format!("<p>{jwt}")),
            reply(500, &[], &"x".repeat(100_000)),
        ] {
            let text = failure.to_string();
            assert!(!text.contains("eyJ") && !text.contains('<'), "{text}");
            assert!(text.chars().count() < 700, "{text}");
        }
    }

    #[test]
    fn failures_inside_a_stream() {
        let failure = |code: &str, message: &str| {
            Failure::from_stream(&StreamFailure {
                code: Some(words(code)),
                message: Some(words(message)),
                resets_at: Some(7),
                ..StreamFailure::default()
            })
        };
        let message = || words("m");
        for (code, expected) in [
            (
                "context_length_exceeded",
                Failure::ContextTooLong {
                    limit: None,
                    tokens: None,
                },
            ),
            (
                "insufficient_quota",
                Failure::UsageLimit {
                    message: message(),
                    resets_at: Some(7),
                    window: None,
                },
            ),
            (
                "usage_limit_reached",
                Failure::UsageLimit {
                    message: message(),
                    resets_at: Some(7),
                    window: None,
                },
            ),
            ("usage_not_included", Failure::Forbidden { why: message() }),
            (
                "server_is_overloaded",
                Failure::Overloaded {
                    message: message(),
                    retry_after: None,
                },
            ),
            (
                "slow_down",
                Failure::Overloaded {
                    message: message(),
                    retry_after: None,
                },
            ),
            (
                "invalid_prompt",
                Failure::Rejected {
                    status: 400,
                    code: Some(words("invalid_prompt")),
                    message: message(),
                },
            ),
            (
                "server_error",
                Failure::Server {
                    status: 200,
                    message: message(),
                },
            ),
            (
                "something_new",
                Failure::Server {
                    status: 200,
                    message: message(),
                },
            ),
        ] {
            assert_eq!(failure(code, "m"), expected, "{code}");
        }
        let Failure::RateLimited { retry_after, .. } =
            failure("rate_limit_exceeded", "Limit. Please try again in 1.5s.")
        else {
            panic!("not a rate limit");
        };
        assert_eq!(retry_after, Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn what_the_translation_finds_is_told_in_words() {
        let told = |code: Option<&str>| {
            let code = code.map(str::to_owned);
            let failure = StreamFailure {
                code,
                ..StreamFailure::default()
            };
            Failure::from_stream(&failure).to_string()
        };
        for (code, expected) in [
            (Some(EMPTY_COMPLETION), "upstream's answer is empty"),
            (
                Some(NAMELESS_CALL),
                "upstream's answer cannot be used: it calls a tool without naming one",
            ),
            (
                Some(STALLED_ARGUMENTS),
                "upstream's answer cannot be used: a tool call consists of white space without end",
            ),
            (
                Some(TOO_LONG),
                "upstream's answer is longer than any that ccx takes",
            ),
            (Some("new_code"), "upstream failed: new_code"),
            (None, "upstream failed: it did not say why"),
        ] {
            assert_eq!(told(code), expected);
        }
        let outside = Failure::Server {
            status: 500,
            message: words("m"),
        };
        assert_eq!(outside.to_string(), "upstream failed (500): m");
    }

    #[test]
    fn a_stream_failure_may_bring_its_status_or_only_a_type() {
        let with = |status, kind: Option<&str>| {
            Failure::from_stream(&StreamFailure {
                status,
                kind: kind.map(str::to_owned),
                ..StreamFailure::default()
            })
        };
        assert!(matches!(
            with(Some(401), None),
            Failure::Unauthorized { .. }
        ));
        assert!(matches!(with(Some(429), None), Failure::RateLimited { .. }));
        assert!(matches!(
            with(None, Some("invalid_request_error")),
            Failure::Rejected { status: 400, .. }
        ));
        assert!(matches!(
            with(None, None),
            Failure::Server { status: 200, .. }
        ));
    }

    #[test]
    fn an_incomplete_answer_is_refused_by_a_filter_or_a_fault() {
        let incomplete = |reason: &str| {
            Failure::from_stream(&StreamFailure {
                incomplete: Some(words(reason)),
                ..StreamFailure::default()
            })
        };
        assert!(matches!(
            incomplete("content_filter"),
            Failure::Rejected { .. }
        ));
        assert!(matches!(incomplete("other"), Failure::Server { .. }));
    }

    proptest::proptest! {
        #[test]
        fn anything_may_come_and_is_classified_in_bounded_words(
            status in 100u16..1000,
            body in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            message in ".{0,2000}",
            header in "[ -~]{0,40}",
        ) {
            let headers = [
                ("retry-after", header.as_str()),
                ("x-codex-primary-used-percent", "100"),
                ("x-codex-primary-reset-at", header.as_str()),
            ];
            let json = serde_json::json!({"error": {"message": message, "code": header}});
            for body in [String::from_utf8_lossy(&body).into_owned(), json.to_string()] {
                let words = reply(status, &headers, &body).to_string();
                proptest::prop_assert!(words.chars().count() < 700);
                proptest::prop_assert!(!words.contains(char::is_control));
            }
        }
    }
}
