//! What a failure says about the account that was asked: most say nothing.
//!
//! Decides on types. A request that is refused as it stands, an upstream that is overloaded or not reached, an answer
//! that is cut: each would happen to any account.

use std::time::Duration;

use crate::account::health::{Cooldown, Kind};
use crate::account::memory::{Outlook, Setback};
use crate::time::UnixSeconds;
use crate::upstream::failure::Failure;
use crate::upstream::limits::Limits;

/// A client waits this long for a rate limit to pass; moving would cost the cache.
const WORTH_WAITING: Duration = Duration::from_secs(60);

/// Returns why the account no longer serves `model`, if `failure` lies with the account.
pub fn setback(failure: &Failure, model: &str, now: UnixSeconds) -> Option<Setback> {
    match failure {
        Failure::UsageLimit {
            resets_at, window, ..
        } => {
            let window = window.as_ref();
            let is_of_model = window.is_some_and(|window| window.family.is_some());
            let length = window.and_then(|window| window.length);
            Some(Setback::Limit(Cooldown {
                window_seconds: length.map(|length| length.as_secs()),
                model: is_of_model.then(|| model.to_owned()),
                ..Cooldown::told(Kind::Usage, resets_at.map(UnixSeconds), now)
            }))
        }
        Failure::RateLimited {
            retry_after: Some(wait),
            ..
        } if *wait > WORTH_WAITING => {
            let until = Some(now.plus(*wait));
            Some(Setback::Limit(Cooldown::told(Kind::Rate, until, now)))
        }
        Failure::Unauthorized { .. } | Failure::SignedOut { .. } => Some(Setback::SignedOut),
        Failure::ModelUnavailable { .. } => Some(Setback::ModelRefused),
        Failure::RateLimited { .. }
        | Failure::Forbidden { .. }
        | Failure::Blocked { .. }
        | Failure::ReasoningRefused { .. }
        | Failure::TooLong
        | Failure::Overloaded { .. }
        | Failure::ContextTooLong { .. }
        | Failure::StillTooLong { .. }
        | Failure::Rejected { .. }
        | Failure::Server { .. }
        | Failure::Unreachable { .. }
        | Failure::Cut
        | Failure::Empty
        | Failure::Unusable { .. }
        | Failure::Late { .. }
        | Failure::Stalled { .. }
        | Failure::Malformed { .. } => None,
    }
}

/// Completes a limit that was reported inside a stream by what the head of the same answer said: the stream names
/// no window, and not always a time.
pub fn completed(failure: Failure, head: &Limits, now: UnixSeconds) -> Failure {
    match failure {
        Failure::UsageLimit {
            message,
            resets_at,
            window: None,
        } => {
            let resets_at = resets_at.or(head.exhausted_until(now).map(|at| at.0));
            Failure::UsageLimit {
                message,
                resets_at,
                window: head.used_up(resets_at.map(UnixSeconds), now),
            }
        }
        other => other,
    }
}

/// Returns the failure that stands when no account is left: a limit ends when the first account is free again.
pub fn last(failure: Failure, outlook: &Outlook) -> Failure {
    match (failure, &outlook.soonest) {
        (
            Failure::UsageLimit {
                message,
                resets_at,
                window,
            },
            Some((_, first)),
        ) if outlook.may_move && resets_at.is_none_or(|at| first.0 < at) => Failure::UsageLimit {
            message,
            resets_at: Some(first.0),
            window: window.filter(|_| resets_at.is_none()),
        },
        (failure, _) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::limits::{UsedUp, Window};

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn limit(resets_at: Option<u64>, window: Option<UsedUp>) -> Failure {
        Failure::UsageLimit {
            message: "m".to_owned(),
            resets_at,
            window,
        }
    }

    fn used_up(hours: u64, family: Option<&str>) -> Option<UsedUp> {
        Some(UsedUp {
            length: Some(Duration::from_secs(hours * 3_600)),
            family: family.map(str::to_owned),
        })
    }

    fn rate(seconds: u64) -> Failure {
        Failure::RateLimited {
            message: "m".to_owned(),
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    fn cooldown(failure: &Failure) -> Option<(Kind, Option<u64>, Option<String>, u64)> {
        match setback(failure, "sol", NOW)? {
            Setback::Limit(found) => Some((
                found.kind,
                found.window_seconds,
                found.model,
                found.until.0 - NOW.0,
            )),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn limits_mark_the_account_until_upstreams_time() {
        let at = |after| Some(NOW.0 + after);
        for (failure, want) in [
            (
                limit(at(90), used_up(5, None)),
                Some((Kind::Usage, Some(18_000), None, 90)),
            ),
            (limit(at(90), None), Some((Kind::Usage, None, None, 90))),
            (limit(None, None), Some((Kind::Usage, None, None, 300))),
            (
                limit(at(90), used_up(5, Some("moon"))),
                Some((Kind::Usage, Some(18_000), Some("sol".to_owned()), 90)),
            ),
            (rate(600), Some((Kind::Rate, None, None, 600))),
            (rate(60), None),
        ] {
            assert_eq!(cooldown(&failure), want, "{failure:?}");
        }
    }

    #[test]
    fn what_would_happen_to_anybody_marks_nobody() {
        let message = || "m".to_owned();
        for failure in [
            Failure::Rejected {
                status: 400,
                code: None,
                message: message(),
            },
            Failure::Rejected {
                status: 422,
                code: Some("invalid_prompt".to_owned()),
                message: message(),
            },
            Failure::ContextTooLong {
                limit: None,
                tokens: None,
            },
            Failure::Forbidden { why: message() },
            Failure::Blocked { why: message() },
            Failure::ReasoningRefused { message: message() },
            Failure::TooLong,
            Failure::Late {
                after: Duration::from_secs(15),
            },
            Failure::Overloaded {
                message: message(),
                retry_after: Some(Duration::from_secs(900)),
            },
            Failure::Server {
                status: 500,
                message: message(),
            },
            Failure::Unreachable { what: message() },
            Failure::Cut,
            Failure::Empty,
            Failure::Stalled {
                idle: Duration::from_secs(300),
            },
            Failure::Malformed { what: message() },
        ] {
            assert_eq!(setback(&failure, "sol", NOW), None, "{failure:?}");
        }
    }

    #[test]
    fn the_head_of_an_answer_completes_what_its_stream_says() {
        let head = Limits {
            windows: vec![Window {
                family: None,
                minutes: 300,
                used_percent: 100.0,
                resets_at: Some(UnixSeconds(NOW.0 + 50)),
                resets_after: None,
            }],
            ..Limits::default()
        };
        let whole = limit(Some(NOW.0 + 50), used_up(5, None));
        assert_eq!(completed(limit(None, None), &head, NOW), whole);
        assert_eq!(completed(whole.clone(), &Limits::default(), NOW), whole);
        assert_eq!(completed(Failure::Cut, &head, NOW), Failure::Cut);
    }

    #[test]
    fn with_nobody_left_the_first_to_come_back_counts() {
        let outlook = |after, may_move| Outlook {
            soonest: Some(("b".to_owned(), UnixSeconds(after))),
            may_move,
            ..Outlook::default()
        };
        let told = || limit(Some(90), used_up(5, None));
        assert_eq!(last(told(), &outlook(50, true)), limit(Some(50), None));
        assert_eq!(last(told(), &outlook(90, true)), told());
        assert_eq!(last(told(), &outlook(50, false)), told());
        assert_eq!(last(Failure::Cut, &outlook(50, true)), Failure::Cut);
    }
}
