//! What the client is told when something failed: one table from failures to statuses.
//!
//! The client acts on the status, on `x-should-retry` and `retry-after`, and on a few wordings
//! (contract claude-code §4, §5): 400 "prompt is too long" makes it compact, 429/5xx make it try
//! again up to ten times, 401 too unless told not to.

use std::time::Duration;

use crate::account::memory::Outlook;
use crate::proxy::advice::advice;
use crate::proxy::guard::Refusal;
use crate::proxy::patience::Tried;
use crate::proxy::route::NoRoute;
use crate::time::{UnixSeconds, in_words};
use crate::upstream::failure::Failure;
use crate::upstream::limits::UsedUp;
use crate::upstream::quota;
use crate::wire::envelope::ErrorKind;

/// A longer `retry-after` makes the client give up anyway (the bound lies between 30 and 90 s).
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// An error reply, before it becomes bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `error.type`.
    pub kind: ErrorKind,
    /// `error.message`.
    pub message: String,
    /// Seconds for `retry-after`.
    pub retry_after: Option<u64>,
    /// Whether the same request may succeed later: `x-should-retry: false` goes out when not.
    pub retryable: bool,
    /// `error.code` of the OpenAI APIs.
    pub code: Option<&'static str>,
    /// Value of `allow`, for 405.
    pub allow: Option<&'static str>,
}

impl Reply {
    /// Makes a reply that a retry cannot help.
    pub fn refused(status: u16, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            retry_after: None,
            retryable: false,
            code: None,
            allow: None,
        }
    }

    /// Takes in how often the same was tried: where that is enough, the client is told not to come back.
    #[must_use]
    pub fn after(mut self, tried: Tried) -> Self {
        if self.retryable && !tried.may_repeat {
            self.retryable = false;
            self.retry_after = None;
            let times = match tried.asked {
                0 | 1 => String::new(),
                asked => format!("; asked {asked} times in {}", in_words(tried.took)),
            };
            self.message
                .push_str(&format!("{times}. Send the message again to go on trying"));
        }
        self
    }

    /// Makes a reply after which the client may try again.
    fn later(status: u16, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            retryable: true,
            ..Self::refused(status, kind, message)
        }
    }
}

/// What the table needs beside the failure.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// For times in words.
    pub now: UnixSeconds,
    /// Upstream's name of the model.
    pub model: &'a str,
    /// The model's usable window in tokens.
    pub window: u64,
    /// Estimated tokens of the request.
    pub tokens: u64,
    /// How other accounts stand, where that was looked at.
    pub outlook: Option<&'a Outlook>,
}

/// Turns an upstream failure into the reply.
pub fn from_failure(failure: &Failure, context: Context<'_>) -> Reply {
    let words = failure.to_string();
    match failure {
        Failure::Unauthorized { .. } => Reply::refused(
            401,
            ErrorKind::Authentication,
            format!("{words}; end this session, sign in again with `ccx login` and resume it"),
        ),
        Failure::SignedOut { .. } => Reply::refused(401, ErrorKind::Authentication, words),
        Failure::Forbidden { .. } => Reply::refused(403, ErrorKind::Permission, words),
        Failure::UsageLimit {
            message,
            resets_at,
            window,
        } => usage_limit(message, *resets_at, window.as_ref(), context),
        Failure::RateLimited { retry_after, .. } => {
            waiting(429, ErrorKind::RateLimit, words, *retry_after)
        }
        Failure::Overloaded { retry_after, .. } => {
            waiting(529, ErrorKind::Overloaded, words, *retry_after)
        }
        Failure::ContextTooLong { limit, tokens } => {
            // This wording makes the client compact; its numbers must not contradict it.
            let limit = limit.unwrap_or(context.window);
            let tokens = tokens.unwrap_or(context.tokens).max(limit + 1);
            Reply {
                code: Some("context_length_exceeded"),
                ..Reply::refused(
                    400,
                    ErrorKind::InvalidRequest,
                    format!("prompt is too long: {tokens} tokens > {limit} maximum"),
                )
            }
        }
        // Not the words that make the client compact: that is what has failed.
        Failure::StillTooLong { .. } => Reply::refused(
            400,
            ErrorKind::InvalidRequest,
            format!(
                "{words}; begin anew with /clear, or choose a model with a larger window with /model"
            ),
        ),
        Failure::ModelUnavailable { .. } => Reply {
            code: Some("model_not_found"),
            ..Reply::refused(
                404,
                ErrorKind::NotFound,
                format!("{words} ({}); choose another with /model", context.model),
            )
        },
        Failure::Rejected { status: 413, .. } => {
            Reply::refused(413, ErrorKind::RequestTooLarge, words)
        }
        Failure::Rejected { .. } | Failure::ReasoningRefused { .. } => {
            Reply::refused(400, ErrorKind::InvalidRequest, words)
        }
        // Asked twice already: ten more times would be ten more answers of the plan.
        Failure::Empty | Failure::Unusable { .. } | Failure::TooLong => {
            Reply::refused(502, ErrorKind::Api, words)
        }
        Failure::Server { .. }
        | Failure::Unreachable { .. }
        | Failure::Cut
        | Failure::Blocked { .. }
        | Failure::Malformed { .. } => Reply::later(502, ErrorKind::Api, words),
        Failure::Late { .. } | Failure::Stalled { .. } => {
            Reply::later(504, ErrorKind::Timeout, words)
        }
    }
}

fn usage_limit(
    message: &str,
    resets_at: Option<u64>,
    window: Option<&UsedUp>,
    context: Context<'_>,
) -> Reply {
    let left = resets_at.map(|at| UnixSeconds(at).since(context.now));
    let mut text = format!("ChatGPT usage limit reached: {message}");
    let length = window.and_then(|window| window.length);
    let window = length.map(|length| format!("{} window", quota::label(length.as_secs())));
    let resets = left.map(|left| format!("resets in {}", in_words(left)));
    match (window, resets) {
        (None, None) => {}
        (Some(one), None) | (None, Some(one)) => text.push_str(&format!(" ({one})")),
        (Some(window), Some(resets)) => text.push_str(&format!(" ({window}, {resets})")),
    }
    if let Some(advice) = context
        .outlook
        .and_then(|outlook| advice(outlook, context.now))
    {
        text.push_str(". ");
        text.push_str(&advice);
    }
    Reply {
        retry_after: left.map(|left| left.as_secs().max(1)),
        code: Some("usage_limit_reached"),
        ..Reply::refused(429, ErrorKind::RateLimit, text)
    }
}

/// Makes the reply to a request that nobody was asked about: all accounts are known to be used up.
pub fn all_exhausted(outlook: &Outlook, now: UnixSeconds) -> Reply {
    let left = outlook.soonest.as_ref().map(|(_, at)| at.since(now));
    let advice = advice(outlook, now).unwrap_or_else(|| "no account can go on now".to_owned());
    Reply {
        retry_after: left.map(|left| left.as_secs().max(1)),
        code: Some("usage_limit_reached"),
        ..Reply::refused(
            429,
            ErrorKind::RateLimit,
            format!("ChatGPT usage limit reached. {advice}"),
        )
    }
}

fn waiting(status: u16, kind: ErrorKind, words: String, wait: Option<Duration>) -> Reply {
    match wait {
        Some(wait) => Reply {
            retry_after: Some(wait.as_secs().max(1)),
            retryable: wait <= LONGEST_WAIT,
            ..Reply::refused(status, kind, words)
        },
        None => Reply::later(status, kind, words),
    }
}

/// Turns a sign-in that did not yield a token into the reply. `transient`: it may succeed later.
pub fn from_sign_in(words: String, transient: bool) -> Reply {
    if transient {
        Reply::later(502, ErrorKind::Api, words)
    } else {
        Reply::refused(401, ErrorKind::Authentication, words)
    }
}

/// Turns a refused entry into the reply.
pub fn from_refusal(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Host => Reply::refused(
            403,
            ErrorKind::Permission,
            "the host header does not name this proxy",
        ),
        Refusal::Origin => Reply::refused(
            403,
            ErrorKind::Permission,
            "requests from web pages are refused",
        ),
        Refusal::Secret => Reply {
            code: Some("invalid_api_key"),
            ..Reply::refused(
                401,
                ErrorKind::Authentication,
                "the key of this ccx instance is missing or wrong",
            )
        },
    }
}

/// Turns a request without a route into the reply.
pub fn from_no_route(reason: NoRoute, method: &str, path: &str) -> Reply {
    let path: String = path.chars().take(200).collect();
    match reason {
        NoRoute::Unknown => Reply::refused(
            404,
            ErrorKind::NotFound,
            format!("ccx does not serve {method} {path}"),
        ),
        NoRoute::Method { allow } => Reply {
            allow: Some(allow),
            ..Reply::refused(
                405,
                ErrorKind::InvalidRequest,
                format!("{path} takes {allow}, not {method}"),
            )
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'_> = Context {
        now: UnixSeconds(1_000),
        model: "gpt-6.1-sol",
        window: 258_400,
        tokens: 300_000,
        outlook: None,
    };

    fn told(failure: Failure) -> (u16, bool, Option<u64>) {
        let reply = from_failure(&failure, CONTEXT);
        (reply.status, reply.retryable, reply.retry_after)
    }

    #[test]
    fn statuses_are_those_the_client_acts_on() {
        let message = || "m".to_owned();
        let wait = |seconds| Some(Duration::from_secs(seconds));
        for (failure, want) in [
            (
                Failure::Unauthorized { message: message() },
                (401, false, None),
            ),
            (Failure::Forbidden { why: message() }, (403, false, None)),
            (Failure::Blocked { why: message() }, (502, true, None)),
            (
                Failure::ReasoningRefused { message: message() },
                (400, false, None),
            ),
            (Failure::TooLong, (502, false, None)),
            (
                Failure::Late {
                    after: Duration::from_secs(15),
                },
                (504, true, None),
            ),
            (
                Failure::UsageLimit {
                    message: message(),
                    resets_at: Some(4_600),
                    window: None,
                },
                (429, false, Some(3_600)),
            ),
            (
                Failure::UsageLimit {
                    message: message(),
                    resets_at: None,
                    window: None,
                },
                (429, false, None),
            ),
            (
                Failure::RateLimited {
                    message: message(),
                    retry_after: wait(20),
                },
                (429, true, Some(20)),
            ),
            (
                Failure::RateLimited {
                    message: message(),
                    retry_after: wait(900),
                },
                (429, false, Some(900)),
            ),
            (
                Failure::Overloaded {
                    message: message(),
                    retry_after: None,
                },
                (529, true, None),
            ),
            (
                Failure::ModelUnavailable { message: message() },
                (404, false, None),
            ),
            (
                Failure::Rejected {
                    status: 422,
                    code: None,
                    message: message(),
                },
                (400, false, None),
            ),
            (
                Failure::Rejected {
                    status: 413,
                    code: None,
                    message: message(),
                },
                (413, false, None),
            ),
            (
                Failure::Server {
                    status: 500,
                    message: message(),
                },
                (502, true, None),
            ),
            (Failure::Cut, (502, true, None)),
            (Failure::Empty, (502, false, None)),
            (Failure::Unusable { what: "m" }, (502, false, None)),
            (Failure::SignedOut { why: message() }, (401, false, None)),
            (
                Failure::Stalled {
                    idle: Duration::from_secs(300),
                },
                (504, true, None),
            ),
        ] {
            assert_eq!(told(failure.clone()), want, "{failure:?}");
        }
    }

    #[test]
    fn an_overflow_is_worded_so_that_the_client_compacts() {
        let said = |limit, told, tokens| {
            let failure = Failure::ContextTooLong {
                limit,
                tokens: told,
            };
            from_failure(&failure, Context { tokens, ..CONTEXT }).message
        };
        let say = |limit, tokens| said(limit, None, tokens);
        assert_eq!(
            said(Some(272_000), Some(280_123), 300_000),
            "prompt is too long: 280123 tokens > 272000 maximum"
        );
        assert_eq!(
            say(None, 300_000),
            "prompt is too long: 300000 tokens > 258400 maximum"
        );
        assert_eq!(
            say(Some(272_000), 1_000),
            "prompt is too long: 272001 tokens > 272000 maximum"
        );
    }

    #[test]
    fn a_usage_limit_names_the_time_left() {
        let failure = Failure::UsageLimit {
            message: "weekly".into(),
            resets_at: Some(12_100),
            window: None,
        };
        assert_eq!(
            from_failure(&failure, CONTEXT).message,
            "ChatGPT usage limit reached: weekly (resets in 3h 5m)"
        );
        let failure = Failure::UsageLimit {
            message: "no more".into(),
            resets_at: Some(12_100),
            window: Some(UsedUp {
                length: Some(Duration::from_secs(604_800)),
                family: None,
            }),
        };
        let outlook = Outlook {
            accounts: 2,
            free: vec!["bob".into()],
            is_pinned: true,
            ..Outlook::default()
        };
        let context = Context {
            outlook: Some(&outlook),
            ..CONTEXT
        };
        assert_eq!(
            from_failure(&failure, context).message,
            "ChatGPT usage limit reached: no more (7 d window, resets in 3h 5m). This session is pinned to its \
             account. To go on with another (bob): /exit, then `ccx --account bob --continue`"
        );
    }

    #[test]
    fn all_used_up_is_one_reply_with_the_earliest_reset() {
        let outlook = Outlook {
            accounts: 2,
            soonest: Some(("bob".into(), UnixSeconds(4_600))),
            may_move: true,
            ..Outlook::default()
        };
        let reply = all_exhausted(&outlook, CONTEXT.now);
        assert_eq!(
            (reply.status, reply.retryable, reply.retry_after),
            (429, false, Some(3_600))
        );
        assert_eq!(
            reply.message,
            "ChatGPT usage limit reached. None of the 2 accounts can go on now; the first is bob, in 1h"
        );
    }
}
