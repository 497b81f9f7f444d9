//! Whether a failed attempt is made again, and after which wait.
//!
//! Pure: randomness is passed in. The caller asks only while nothing of the answer has been passed
//! on to the client; after that nobody may try again.
//!
//! The client repeats a failed request itself, up to ten times in about three minutes, so ccx stays
//! modest: at most [`MAX_ATTEMPTS`] attempts, and one where the client is repeating (`proxy::patience`
//! ends that). Worst cases for one request of the client: waits of 8 s between attempts (`retry-after`
//! of 5 s and 2.5 s), 30 s for an upstream that cannot be connected to (two connects of 15 s), 300 s for
//! one that takes the request and says nothing (made once, never again).

use std::time::Duration;

use crate::upstream::failure::Failure;

/// How many attempts one request of the client may cost, the first one included. A renewed token does not
/// count.
pub const MAX_ATTEMPTS: u32 = 3;

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after the wait.
    Again(Duration),
    /// Renew the access token, then try again at once.
    Renew,
    /// Tell the client.
    GiveUp,
}

/// The attempts of one request: remembers what [`next`] cannot know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    failed: u32,
    renewed: bool,
}

impl Attempts {
    /// The attempts of a request that the client repeats because it has failed: the client does the repeating, so it is
    /// sent once.
    pub const fn of_a_repeat() -> Self {
        Self {
            failed: MAX_ATTEMPTS,
            renewed: false,
        }
    }

    /// Takes the failure of the latest attempt. `random` lies in 0.0..1.0.
    ///
    /// The token is renewed at most once, at whichever attempt it was refused.
    pub fn failed(&mut self, failure: &Failure, random: f64) -> Decision {
        if matches!(failure, Failure::Unauthorized { .. }) {
            if self.renewed {
                return Decision::GiveUp;
            }
            self.renewed = true;
            return Decision::Renew;
        }
        self.failed += 1;
        next(self.failed, failure, random)
    }
}

/// Decides after the failure of attempt number `attempt` (from 1). `random` lies in 0.0..1.0.
///
/// Renews the token only after the first attempt; [`Attempts`] does so after any, once.
pub fn next(attempt: u32, failure: &Failure, random: f64) -> Decision {
    let random = random.clamp(0.0, 1.0);
    match failure {
        Failure::Unauthorized { .. } if attempt <= 1 => Decision::Renew,
        Failure::RateLimited { retry_after, .. } | Failure::Overloaded { retry_after, .. } => {
            match retry_after {
                Some(wait) => wait_as_told(attempt, *wait, random),
                None => back_off(attempt, MAX_ATTEMPTS, Duration::from_secs(1), random),
            }
        }
        Failure::Server { .. } | Failure::Cut => {
            back_off(attempt, MAX_ATTEMPTS, Duration::from_millis(400), random)
        }
        Failure::Unreachable { .. }
        | Failure::Malformed { .. }
        | Failure::Blocked { .. }
        | Failure::Empty
        | Failure::Unusable { .. } => back_off(attempt, 2, Duration::from_millis(400), random),
        // Stalled: a silence of minutes is told, not repeated. Reasoning that cannot be read is left out by the caller.
        Failure::Unauthorized { .. }
        | Failure::SignedOut { .. }
        | Failure::Forbidden { .. }
        | Failure::UsageLimit { .. }
        | Failure::ContextTooLong { .. }
        | Failure::StillTooLong { .. }
        | Failure::ModelUnavailable { .. }
        | Failure::Rejected { .. }
        | Failure::ReasoningRefused { .. }
        | Failure::TooLong
        | Failure::Late { .. }
        | Failure::Stalled { .. } => Decision::GiveUp,
    }
}

/// Waits as long as upstream asked (5 s at most, then 2.5 s), a little longer so that many clients do not come
/// back at the same moment.
fn wait_as_told(attempt: u32, wait: Duration, random: f64) -> Decision {
    let longest = match attempt {
        0 | 1 => Duration::from_secs(5),
        2 => Duration::from_millis(2_500),
        _ => return Decision::GiveUp,
    };
    if wait > longest {
        return Decision::GiveUp;
    }
    Decision::Again(wait + Duration::from_millis(250).mul_f64(random))
}

/// Waits `base`, then twice that, each ± 25 %.
fn back_off(attempt: u32, most: u32, base: Duration, random: f64) -> Decision {
    if attempt >= most {
        return Decision::GiveUp;
    }
    let doubled = base * (1 << attempt.saturating_sub(1).min(4));
    Decision::Again(doubled.mul_f64(0.75 + random / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(milliseconds: u64) -> Decision {
        Decision::Again(Duration::from_millis(milliseconds))
    }

    fn words() -> String {
        "x".to_owned()
    }

    fn rate_limited(milliseconds: u64) -> Failure {
        Failure::RateLimited {
            message: words(),
            retry_after: Some(Duration::from_millis(milliseconds)),
        }
    }

    #[test]
    fn every_failure_has_its_decisions() {
        let overloaded = Failure::Overloaded {
            message: words(),
            retry_after: None,
        };
        let server = Failure::Server {
            status: 500,
            message: words(),
        };
        let unreachable = Failure::Unreachable { what: words() };
        let malformed = Failure::Malformed { what: words() };
        let never = [Decision::GiveUp; 3];
        for (failure, expected) in [
            (
                Failure::Unauthorized { message: words() },
                [Decision::Renew, Decision::GiveUp, Decision::GiveUp],
            ),
            (Failure::Forbidden { why: words() }, never),
            (Failure::ReasoningRefused { message: words() }, never),
            (Failure::TooLong, never),
            (
                Failure::Blocked { why: words() },
                [again(400), Decision::GiveUp, Decision::GiveUp],
            ),
            (
                Failure::UsageLimit {
                    message: words(),
                    resets_at: Some(1),
                    window: None,
                },
                never,
            ),
            (
                Failure::ContextTooLong {
                    limit: None,
                    tokens: None,
                },
                never,
            ),
            (Failure::ModelUnavailable { message: words() }, never),
            (
                Failure::Rejected {
                    status: 400,
                    code: None,
                    message: words(),
                },
                never,
            ),
            (
                Failure::Stalled {
                    idle: Duration::from_secs(300),
                },
                never,
            ),
            (overloaded, [again(1_000), again(2_000), Decision::GiveUp]),
            (
                rate_limited(1_000),
                [again(1_125), again(1_125), Decision::GiveUp],
            ),
            (
                rate_limited(4_000),
                [again(4_125), Decision::GiveUp, Decision::GiveUp],
            ),
            (rate_limited(6_000), never),
            (server, [again(400), again(800), Decision::GiveUp]),
            (Failure::Cut, [again(400), again(800), Decision::GiveUp]),
            (
                unreachable,
                [again(400), Decision::GiveUp, Decision::GiveUp],
            ),
            (malformed, [again(400), Decision::GiveUp, Decision::GiveUp]),
            (
                Failure::Empty,
                [again(400), Decision::GiveUp, Decision::GiveUp],
            ),
            (
                Failure::Unusable { what: "x" },
                [again(400), Decision::GiveUp, Decision::GiveUp],
            ),
            (Failure::SignedOut { why: words() }, never),
        ] {
            let decided = [1, 2, 3].map(|attempt| next(attempt, &failure, 0.5));
            assert_eq!(decided, expected, "{failure:?}");
        }
    }

    #[test]
    fn the_waits_of_one_request_stay_under_the_promised_sum() {
        let failures = [
            Failure::Cut,
            rate_limited(5_000),
            rate_limited(2_500),
            Failure::Overloaded {
                message: words(),
                retry_after: None,
            },
        ];
        for first in &failures {
            for second in &failures {
                let mut sum = Duration::ZERO;
                for (attempt, failure) in [(1, first), (2, second)] {
                    if let Decision::Again(wait) = next(attempt, failure, 1.0) {
                        sum += wait;
                    }
                }
                assert!(sum <= Duration::from_secs(8), "{sum:?}");
            }
        }
    }

    #[test]
    fn a_token_is_renewed_once_at_whichever_attempt() {
        let refused = Failure::Unauthorized { message: words() };
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(&Failure::Cut, 0.5), again(400));
        assert_eq!(attempts.failed(&refused, 0.5), Decision::Renew);
        assert_eq!(attempts.failed(&Failure::Cut, 0.5), again(800));
        assert_eq!(attempts.failed(&refused, 0.5), Decision::GiveUp);
    }

    #[test]
    fn random_values_out_of_range_do_no_harm() {
        for random in [-1.0, 2.0, f64::MAX] {
            assert!(matches!(next(1, &Failure::Cut, random), Decision::Again(_)));
        }
    }
}
