//! What is known of each account's standing with upstream: until when it is refused, when it last answered, what
//! last went wrong.
//!
//! Values only, also the shape of `health.json`: renaming a field here forgets what older files say. Only upstream
//! marks an account; a request that it refuses as badly made says nothing about who sent it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::time::UnixSeconds;

/// How long an account rests that has run into a limit of which upstream did not say the end.
pub const UNTOLD: Duration = Duration::from_secs(300);

/// The longest rest that is believed. The longest window known is of thirty days.
const LONGEST: Duration = Duration::from_secs(32 * 86_400);

/// The format that this ccx writes.
pub const VERSION: u64 = 1;

/// Everything known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    version: u64,
    /// By ccx's own id of the account.
    #[serde(default)]
    pub accounts: BTreeMap<String, Standing>,
    /// Fields of a newer ccx; written back as they came.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// What is known of one account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Why it is not asked now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooldowns: Vec<Cooldown>,
    /// When it last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixSeconds>,
    /// What last went wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Trouble>,
    /// By model: windows that turned out smaller than their list says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub windows: BTreeMap<String, Window>,
    /// Fields of a newer ccx; written back as they came.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A model's window, as overflows have shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// In tokens, the answer's included.
    pub tokens: u64,
    /// What the list said when this was learnt: once it says more, this is over.
    pub listed: u64,
    /// Whether upstream named the number; else it was estimated.
    pub is_told: bool,
    /// When it was learnt.
    pub since: UnixSeconds,
}

/// How many windows are kept of an account; it has a dozen models.
const MOST_WINDOWS: usize = 32;

/// How long a window counts that was only estimated.
const ESTIMATED: Duration = Duration::from_secs(3 * 86_400);

/// A smaller one is believed of no model.
const SMALLEST_WINDOW: u64 = 16_000;

/// A request that did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// The model.
    pub model: String,
    /// Its whole window, as its list has it, in tokens.
    pub listed: u64,
    /// What upstream says that it is.
    pub told: Option<u64>,
    /// The size of the request, where that is known well.
    pub tokens: Option<u64>,
    /// When.
    pub at: UnixSeconds,
}

impl Overflow {
    /// Returns the window that it shows, if that is another than the list's.
    fn window(&self) -> Option<Window> {
        // What did not fit is longer than the window, by how much nobody knows; a twentieth is for the estimate.
        let estimated = self.tokens.map(|tokens| tokens / 20 * 19);
        // Requests that fill the listed window show nothing new.
        let shown = estimated.filter(|tokens| *tokens < self.listed / 20 * 18);
        let tokens = self.told.or(shown)?;
        (SMALLEST_WINDOW..self.listed)
            .contains(&tokens)
            .then_some(Window {
                tokens,
                listed: self.listed,
                is_told: self.told.is_some(),
                since: self.at,
            })
    }
}

/// A time in which upstream refuses an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// Which limit was reached.
    pub kind: Kind,
    /// How long the window is that ran out, in seconds; absent when it is not known which one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
    /// The only model it is for; absent when it is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// When it was told.
    pub since: UnixSeconds,
    /// When it ends, by upstream's word.
    pub until: UnixSeconds,
}

/// Which limit was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The plan's: a window is used up, and no credits are left.
    Usage,
    /// Too many requests at once.
    Rate,
    /// Of a newer ccx.
    #[serde(untagged)]
    Other(String),
}

/// Something that went wrong with an account, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When.
    pub at: UnixSeconds,
    /// What, in upstream's words, cut to a bounded length.
    pub message: String,
}

/// The longest message that is kept, in characters.
const LONGEST_MESSAGE: usize = 300;

/// Something that was learnt about an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Upstream refuses it until a time.
    Limit(Cooldown),
    /// Upstream took a request for `model` that was sent at `sent`: what was told before that is no longer true.
    Served {
        /// The model.
        model: String,
        /// When the request was sent.
        sent: UnixSeconds,
        /// When it was taken.
        at: UnixSeconds,
    },
    /// Upstream says that there is quota again, or credits (the usage endpoint at `at`).
    Restored {
        /// When it said so.
        at: UnixSeconds,
    },
    /// Something went wrong that lies with the account.
    Trouble(Trouble),
    /// A request did not fit.
    Overflowed(Overflow),
    /// A request of so many tokens fitted.
    Fitted {
        /// The model.
        model: String,
        /// The request.
        tokens: u64,
    },
}

impl Cooldown {
    /// Makes the rest of an account that was told at `now` to come back at `until`; without that it is
    /// [`UNTOLD`], and never longer than a plan's longest window.
    pub fn told(kind: Kind, until: Option<UnixSeconds>, now: UnixSeconds) -> Self {
        let until = until
            .filter(|until| *until > now)
            .unwrap_or(now.plus(UNTOLD));
        Self {
            kind,
            window_seconds: None,
            model: None,
            since: now,
            until: until.min(now.plus(LONGEST)),
        }
    }

    fn is_for(&self, model: &str) -> bool {
        self.model.as_deref().is_none_or(|only| only == model)
    }
}

impl Trouble {
    /// Makes one of what was said at `at`.
    pub fn new(at: UnixSeconds, message: &str) -> Self {
        Self {
            at,
            message: message.chars().take(LONGEST_MESSAGE).collect(),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            version: VERSION,
            accounts: BTreeMap::new(),
            unknown: Map::new(),
        }
    }
}

impl Health {
    /// Returns until when `account` is refused for `model`; `None` when it is not, at `now`.
    pub fn cooling_until(
        &self,
        account: &str,
        model: &str,
        now: UnixSeconds,
    ) -> Option<UnixSeconds> {
        self.cooldowns(account)
            .iter()
            .filter(|one| one.until > now && one.is_for(model))
            .map(|one| one.until)
            .max()
    }

    fn cooldowns(&self, account: &str) -> &[Cooldown] {
        let standing = self.accounts.get(account);
        standing.map_or(&[], |standing| &standing.cooldowns)
    }

    /// Returns the whole window of `model` on `account` in tokens, where `listed` is what its list says: less if overflows
    /// have shown that.
    pub fn window(&self, account: &str, model: &str, listed: u64, now: UnixSeconds) -> u64 {
        let standing = self.accounts.get(account);
        let window = standing.and_then(|standing| standing.windows.get(model));
        let is_true = |window: &&Window| {
            window.listed >= listed && (window.is_told || now.since(window.since) < ESTIMATED)
        };
        window
            .filter(is_true)
            .map_or(listed, |window| window.tokens.min(listed))
    }

    /// Returns when `account` last answered.
    pub fn last_used(&self, account: &str) -> Option<UnixSeconds> {
        self.accounts.get(account)?.last_used
    }

    /// Takes `note` of `account` in.
    pub fn apply(&mut self, account: &str, note: &Note) {
        let standing = self.accounts.entry(account.to_owned()).or_default();
        let cooldowns = &mut standing.cooldowns;
        match note {
            Note::Limit(new) => {
                // Upstream's latest word on the same limit counts, also when it is earlier.
                let is_same = |old: &Cooldown| {
                    (&old.kind, old.window_seconds, &old.model)
                        == (&new.kind, new.window_seconds, &new.model)
                };
                cooldowns.retain(|old| !is_same(old) && old.until > new.since);
                cooldowns.push(new.clone());
            }
            Note::Served { model, sent, at } => {
                cooldowns.retain(|old| old.since >= *sent || !old.is_for(model));
                standing.last_used = standing.last_used.max(Some(*at));
            }
            Note::Restored { at } => cooldowns.retain(|old| old.since >= *at),
            Note::Trouble(trouble) => standing.last_error = Some(trouble.clone()),
            Note::Overflowed(overflow) => {
                let windows = &mut standing.windows;
                match overflow.window() {
                    // A number that upstream named outlasts an estimate.
                    Some(new)
                        if !new.is_told
                            && windows.get(&overflow.model).is_some_and(|old| old.is_told) => {}
                    Some(new) => {
                        if windows.len() >= MOST_WINDOWS {
                            windows.pop_first();
                        }
                        windows.insert(overflow.model.clone(), new);
                    }
                    // By upstream's word the list is right after all.
                    None if overflow.told.is_some() => {
                        windows.remove(&overflow.model);
                    }
                    None => {}
                }
            }
            Note::Fitted { model, tokens } => {
                if standing
                    .windows
                    .get(model)
                    .is_some_and(|window| window.tokens < *tokens)
                {
                    standing.windows.remove(model);
                }
            }
        }
    }

    /// Says whether [`Health::apply`] would end a rest of `account`, or begin one: news that other processes and
    /// the next start should know at once.
    pub fn is_news(&self, account: &str, note: &Note) -> bool {
        match note {
            Note::Limit(_) | Note::Trouble(_) | Note::Overflowed(_) => true,
            Note::Fitted { model, tokens } => self
                .accounts
                .get(account)
                .and_then(|standing| standing.windows.get(model))
                .is_some_and(|window| window.tokens < *tokens),
            Note::Served { model, sent, .. } => {
                let ends = |one: &Cooldown| one.since < *sent && one.is_for(model);
                self.cooldowns(account).iter().any(ends)
            }
            Note::Restored { at } => self.cooldowns(account).iter().any(|one| one.since < *at),
        }
    }

    /// Forgets rests that are over at `now`, and accounts of which nothing is left to know.
    pub fn prune(&mut self, now: UnixSeconds) {
        for standing in self.accounts.values_mut() {
            standing.cooldowns.retain(|one| one.until > now);
        }
        self.accounts
            .retain(|_, standing| *standing != Standing::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn at(after: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 + after)
    }

    fn limit(since: u64, until: u64) -> Cooldown {
        Cooldown::told(Kind::Usage, Some(at(until)), at(since))
    }

    fn served(model: &str, sent: u64) -> Note {
        Note::Served {
            model: model.to_owned(),
            sent: at(sent),
            at: at(sent + 1),
        }
    }

    #[test]
    fn a_rest_ends_when_upstream_said() {
        let mut health = Health::default();
        health.apply("a", &Note::Limit(limit(0, 100)));
        for (now, want) in [(0, Some(at(100))), (99, Some(at(100))), (100, None)] {
            assert_eq!(health.cooling_until("a", "m", at(now)), want, "at {now}");
        }
        assert_eq!(health.cooling_until("b", "m", NOW), None);
    }

    #[test]
    fn a_rest_without_an_end_is_short_and_one_without_sense_is_bounded() {
        for (until, want) in [
            (None, at(300)),
            (Some(at(0)), at(300)),
            (Some(UnixSeconds(5)), at(300)),
            (Some(at(7)), at(7)),
            (Some(UnixSeconds(u64::MAX)), at(32 * 86_400)),
        ] {
            assert_eq!(Cooldown::told(Kind::Usage, until, NOW).until, want);
        }
    }

    #[test]
    fn windows_rest_side_by_side_and_the_last_word_on_one_counts() {
        let window = |seconds, until| Cooldown {
            window_seconds: Some(seconds),
            ..limit(0, until)
        };
        let mut health = Health::default();
        health.apply("a", &Note::Limit(window(18_000, 50)));
        health.apply("a", &Note::Limit(window(604_800, 500)));
        assert_eq!(health.cooling_until("a", "m", NOW), Some(at(500)));
        health.apply("a", &Note::Limit(window(604_800, 20)));
        assert_eq!(health.cooling_until("a", "m", NOW), Some(at(50)));
        assert_eq!(health.accounts["a"].cooldowns.len(), 2);
    }

    #[test]
    fn an_answer_ends_what_was_told_before_it_was_asked_for() {
        let mut health = Health::default();
        health.apply("a", &Note::Limit(limit(10, 100)));
        // Sent before the limit was told: it proves nothing.
        assert!(!health.is_news("a", &served("m", 9)));
        health.apply("a", &served("m", 9));
        assert_eq!(health.cooling_until("a", "m", at(20)), Some(at(100)));
        assert!(health.is_news("a", &served("m", 11)));
        health.apply("a", &served("m", 11));
        assert_eq!(health.cooling_until("a", "m", at(20)), None);
        assert_eq!(health.last_used("a"), Some(at(12)));
        assert!(!health.is_news("a", &served("m", 13)));
    }

    #[test]
    fn a_limit_of_one_model_is_for_that_model() {
        let mut health = Health::default();
        let only = Cooldown {
            model: Some("luna".to_owned()),
            ..limit(0, 100)
        };
        health.apply("a", &Note::Limit(only));
        assert_eq!(health.cooling_until("a", "sol", NOW), None);
        assert_eq!(health.cooling_until("a", "luna", NOW), Some(at(100)));
        health.apply("a", &served("sol", 5));
        assert_eq!(health.cooling_until("a", "luna", NOW), Some(at(100)));
        health.apply("a", &Note::Restored { at: at(6) });
        assert_eq!(health.cooling_until("a", "luna", NOW), None);
    }

    fn overflow(told: Option<u64>, tokens: Option<u64>) -> Note {
        Note::Overflowed(Overflow {
            model: "sol".to_owned(),
            listed: 272_000,
            told,
            tokens,
            at: NOW,
        })
    }

    #[test]
    fn an_overflow_shows_the_window_where_upstream_names_it_or_the_size_is_known() {
        for (told, tokens, window) in [
            (Some(200_000), None, 200_000),
            (Some(200_000), Some(250_000), 200_000),
            (None, Some(200_000), 190_000),
            // The list is right, or nothing is known.
            (Some(272_000), Some(100_000), 272_000),
            (Some(400_000), None, 272_000),
            (None, Some(270_000), 272_000),
            (None, Some(300_000), 272_000),
            (None, None, 272_000),
            // Nonsense.
            (Some(0), None, 272_000),
            (None, Some(5_000), 272_000),
        ] {
            let mut health = Health::default();
            health.apply("a", &overflow(told, tokens));
            let found = health.window("a", "sol", 272_000, NOW);
            assert_eq!(found, window, "{told:?} {tokens:?}");
            assert_eq!(health.window("a", "luna", 272_000, NOW), 272_000);
            assert_eq!(health.window("b", "sol", 272_000, NOW), 272_000);
        }
    }

    #[test]
    fn a_window_is_forgotten_when_more_fits_the_list_grows_or_it_was_only_a_guess() {
        let fitted = |tokens| Note::Fitted {
            model: "sol".to_owned(),
            tokens,
        };
        let mut health = Health::default();
        health.apply("a", &overflow(Some(200_000), None));
        // A guess does not replace what upstream named.
        health.apply("a", &overflow(None, Some(150_000)));
        assert_eq!(health.window("a", "sol", 272_000, NOW), 200_000);
        for (listed, window) in [
            (272_000, 200_000),
            (250_000, 200_000),
            (150_000, 150_000),
            (500_000, 500_000),
        ] {
            assert_eq!(health.window("a", "sol", listed, NOW), window);
        }
        assert!(!health.is_news("a", &fitted(200_000)));
        health.apply("a", &fitted(200_000));
        assert_eq!(health.window("a", "sol", 272_000, at(9_999_999)), 200_000);
        assert!(health.is_news("a", &fitted(200_001)));
        health.apply("a", &fitted(200_001));
        assert_eq!(health.window("a", "sol", 272_000, NOW), 272_000);
        health.apply("a", &overflow(None, Some(200_000)));
        assert_eq!(health.window("a", "sol", 272_000, at(3_600)), 190_000);
        assert_eq!(health.window("a", "sol", 272_000, at(4 * 86_400)), 272_000);
        health.apply("a", &overflow(Some(272_000), None));
        assert!(health.accounts["a"].windows.is_empty());
    }

    #[test]
    fn windows_are_bounded() {
        let mut health = Health::default();
        for number in 0..100 {
            let Note::Overflowed(mut overflow) = overflow(Some(200_000), None) else {
                unreachable!()
            };
            overflow.model = format!("m{number}");
            health.apply("a", &Note::Overflowed(overflow));
        }
        assert_eq!(health.accounts["a"].windows.len(), MOST_WINDOWS);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut health = Health::default();
        health.apply("a", &Note::Limit(limit(0, 100)));
        health.apply("b", &served("m", 0));
        health.prune(at(100));
        assert_eq!(health.accounts.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn the_shape_on_disk_is_kept_and_unknown_fields_survive() {
        let text = json!({
            "version": 1,
            "accounts": {"a": {
                "cooldowns": [
                    {"kind": "usage", "window_seconds": 18_000, "since": 1, "until": 2},
                    {"kind": "moon", "model": "m", "since": 1, "until": 2},
                ],
                "last_used": 3,
                "last_error": {"at": 4, "message": "no"},
                "mood": "fine",
            }},
            "later": [1],
        });
        let health: Health = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(health.accounts["a"].cooldowns[0].kind, Kind::Usage);
        assert_eq!(serde_json::to_value(&health).unwrap(), text);
        assert_eq!(Trouble::new(NOW, &"é".repeat(900)).message.len(), 600);
    }
}
