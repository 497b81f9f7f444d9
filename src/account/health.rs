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
    /// Fields of a newer ccx; written back as they came.
    #[serde(flatten)]
    unknown: Map<String, Value>,
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
        }
    }

    /// Says whether [`Health::apply`] would end a rest of `account`, or begin one: news that other processes and
    /// the next start should know at once.
    pub fn is_news(&self, account: &str, note: &Note) -> bool {
        match note {
            Note::Limit(_) | Note::Trouble(_) => true,
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
