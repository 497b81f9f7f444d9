//! Which of several accounts a conversation begins on, or moves to.
//!
//! A decision on values: knows no clock, no store and no upstream. What the values mean is `health`'s, who asks is
//! `chooser`.

use std::cmp::Ordering;

use crate::time::UnixSeconds;

/// How new conversations are given to accounts. A conversation that has begun stays where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// All on the active account, as long as it serves.
    #[default]
    Sticky,
    /// Each on the account whose turn is longest ago.
    RoundRobin,
    /// Each on the account with most of its plan left.
    MostRemaining,
}

impl Strategy {
    /// All strategies.
    pub const ALL: [Self; 3] = [Self::Sticky, Self::RoundRobin, Self::MostRemaining];

    /// Returns the name in the configuration: `sticky`, `round-robin`, `most-remaining`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::RoundRobin => "round-robin",
            Self::MostRemaining => "most-remaining",
        }
    }
}

/// An account as far as choosing goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// ccx's own id of the account.
    pub id: String,
    /// What is left of its tightest window, in percent; `None` when nothing was told yet.
    pub remaining_percent: Option<f64>,
    /// Until when upstream refuses it.
    pub cooling_until: Option<UnixSeconds>,
    /// When it last answered.
    pub last_used: Option<UnixSeconds>,
    /// Counts the choices of this process: the number of the last one that fell on it, 0 for none. Several
    /// choices fall into one second.
    pub turn: u64,
    /// No token can be had for it.
    pub is_dead: bool,
    /// Whether its list of models has the one that is asked for; an unknown list has.
    pub serves_model: bool,
}

/// What is assumed to be left of an account that has answered and yet told nothing: neither first nor last.
const UNTOLD_PERCENT: f64 = 50.0;

impl Candidate {
    /// Says whether upstream would serve it at `now`, as far as is known.
    ///
    /// A window that is used up does not count: credits may go on where the plan ends, and only upstream knows.
    pub fn is_free(&self, now: UnixSeconds) -> bool {
        !self.is_dead && self.serves_model && self.cooling_until.is_none_or(|until| until <= now)
    }

    /// An account that nobody has tried counts as full: it would never be tried otherwise.
    fn assumed_percent(&self) -> f64 {
        let is_new = self.last_used.is_none() && self.turn == 0;
        let untold = if is_new { 100.0 } else { UNTOLD_PERCENT };
        self.remaining_percent
            .filter(|percent| percent.is_finite())
            .unwrap_or(untold)
    }

    /// Who has waited longest comes first.
    fn by_turn(&self, other: &Self) -> Ordering {
        (self.turn, self.last_used).cmp(&(other.turn, other.last_used))
    }
}

/// Returns the account that a conversation begins on at `now`; `None` when none is free. `home` is the one to stay
/// with. Where two are alike the first counts.
pub fn choose<'a>(
    candidates: &'a [Candidate],
    strategy: Strategy,
    home: Option<&str>,
    now: UnixSeconds,
) -> Option<&'a Candidate> {
    let mut free = candidates.iter().filter(|one| one.is_free(now));
    match strategy {
        Strategy::Sticky => {
            let at_home = candidates
                .iter()
                .find(|one| Some(one.id.as_str()) == home && one.is_free(now));
            at_home.or_else(|| free.next())
        }
        Strategy::RoundRobin => free.min_by(|a, b| a.by_turn(b)),
        Strategy::MostRemaining => free.min_by(|a, b| {
            b.assumed_percent()
                .total_cmp(&a.assumed_percent())
                .then_with(|| a.by_turn(b))
        }),
    }
}

/// Returns the account that is free soonest, among those that could serve at all, and when that is.
pub fn soonest(candidates: &[Candidate], now: UnixSeconds) -> Option<(&Candidate, UnixSeconds)> {
    candidates
        .iter()
        .filter(|one| !one.is_dead && one.serves_model)
        .map(|one| (one, one.cooling_until.unwrap_or(now).max(now)))
        .min_by_key(|(_, until)| *until)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn account(id: &str) -> Candidate {
        Candidate {
            id: id.to_owned(),
            serves_model: true,
            ..Candidate::default()
        }
    }

    fn left(id: &str, percent: f64, used_ago: u64) -> Candidate {
        Candidate {
            remaining_percent: Some(percent),
            last_used: Some(UnixSeconds(NOW.0 - used_ago)),
            ..account(id)
        }
    }

    fn cooling(id: &str, seconds: u64) -> Candidate {
        Candidate {
            cooling_until: Some(UnixSeconds(NOW.0 + seconds)),
            ..account(id)
        }
    }

    #[track_caller]
    fn assert_choice(strategy: Strategy, among: &[Candidate], home: Option<&str>, want: &str) {
        let chosen = choose(among, strategy, home, NOW).map_or("-", |one| one.id.as_str());
        assert_eq!(chosen, want, "{strategy:?} among {among:?}");
    }

    #[test]
    fn sticky_stays_at_home_while_home_serves() {
        let dead = Candidate {
            is_dead: true,
            ..account("a")
        };
        let without_model = Candidate {
            serves_model: false,
            ..account("a")
        };
        for (first, home, want) in [
            (account("a"), Some("b"), "b"),
            (account("a"), Some("gone"), "a"),
            (account("a"), None, "a"),
            (cooling("a", 1), Some("a"), "b"),
            // It ends when upstream said it would.
            (cooling("a", 0), Some("a"), "a"),
            (dead, Some("a"), "b"),
            (without_model, Some("a"), "b"),
            // What is left does not matter.
            (left("a", 0.0, 5), Some("a"), "a"),
        ] {
            assert_choice(Strategy::Sticky, &[first, account("b")], home, want);
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let turn = |id: &str, turn| Candidate {
            turn,
            ..account(id)
        };
        let robin = Strategy::RoundRobin;
        assert_choice(
            robin,
            &[turn("a", 3), turn("b", 2), turn("c", 4)],
            None,
            "b",
        );
        assert_choice(robin, &[turn("a", 3), account("b")], None, "b");
        assert_choice(robin, &[left("a", 9.0, 5), left("b", 9.0, 60)], None, "b");
        assert_choice(robin, &[left("a", 9.0, 5), cooling("b", 9)], Some("b"), "a");
    }

    #[test]
    fn most_remaining_tries_a_new_account_and_then_believes_what_is_told() {
        let most = Strategy::MostRemaining;
        assert_choice(most, &[left("a", 20.0, 5), left("b", 70.0, 5)], None, "b");
        assert_choice(most, &[left("a", 99.0, 5), account("new")], None, "new");
        // Used, and told nothing: in the middle.
        let untold = Candidate {
            remaining_percent: None,
            ..left("x", 0.0, 5)
        };
        assert_choice(most, &[untold.clone(), left("b", 70.0, 5)], None, "b");
        assert_choice(most, &[untold, left("b", 30.0, 5)], None, "x");
        assert_choice(most, &[left("a", 50.0, 5), left("b", 50.0, 60)], None, "b");
        // Nothing left is still better than nothing at all: there may be credits.
        assert_choice(most, &[cooling("a", 9), left("b", 0.0, 5)], None, "b");
    }

    #[test]
    fn nobody_is_free_and_somebody_is_first() {
        let among = [cooling("a", 90), cooling("b", 30)];
        for strategy in Strategy::ALL {
            assert_choice(strategy, &among, Some("a"), "-");
            assert_choice(strategy, &[], None, "-");
        }
        let (first, until) = soonest(&among, NOW).unwrap();
        assert_eq!((first.id.as_str(), until), ("b", UnixSeconds(NOW.0 + 30)));
        assert_eq!(soonest(&[], NOW), None);
    }
}
