//! What was read of each account and each session: the plan's state, the last turn, the last error.
//!
//! Values only, and the shape of `quota.json`. Several processes read and write that file, each knowing a part:
//! [`Readings::merge`] makes one of two, in any order. Holds no secret and no text of a conversation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::account::record::printable;
use crate::time::UnixSeconds;
use crate::upstream::quota::{Quota, may_ask};

/// The format that this ccx writes.
const VERSION: u64 = 1;

/// Sessions that are kept: more than anybody has open at once.
const SESSIONS: usize = 64;

/// The longest error text that is kept.
const LONGEST_MESSAGE: usize = 300;

/// Everything that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    version: u64,
    /// By ccx's id of the account.
    #[serde(default)]
    pub accounts: BTreeMap<String, Reading>,
    /// The last main turn of each session, by the client's id of the session.
    #[serde(default)]
    pub sessions: BTreeMap<String, Turn>,
    /// What upstream could not be told in each session, by the client's id of the session.
    #[serde(default)]
    pub losses: BTreeMap<String, Losses>,
}

/// How often each kind of loss was met in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// When the last one was.
    pub at: UnixSeconds,
    /// By kind, in requests that were sent: what stands in a conversation is sent with each of its turns.
    pub requests: BTreeMap<String, u64>,
}

/// What was read of one account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// How much of its plan is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// When upstream's usage endpoint was last asked about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<UnixSeconds>,
    /// When its last turn ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixSeconds>,
    /// The last request that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Fault>,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub at: UnixSeconds,
    /// The status that the client was told.
    pub status: u16,
    /// What it was told.
    pub message: String,
}

/// A turn that ended well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// When it ended.
    pub at: UnixSeconds,
    /// ccx's id of the account that it ran on.
    pub account: String,
    /// Upstream's name of the model that was asked for.
    pub model: String,
    /// The model that upstream says served it, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// All input tokens.
    #[serde(default)]
    pub input_tokens: u64,
    /// Of these, read from upstream's cache.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// Whether upstream's usage endpoint may be asked about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// By whoever holds this, once.
    Granted {
        /// When it was asked before.
        before: Option<UnixSeconds>,
    },
    /// It was asked a moment ago.
    TooSoon,
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            version: VERSION,
            accounts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            losses: BTreeMap::new(),
        }
    }
}

impl Fault {
    /// Makes one of what the client was told.
    pub fn new(at: UnixSeconds, status: u16, message: &str) -> Self {
        let short: String = message.chars().take(LONGEST_MESSAGE).collect();
        Self {
            at,
            status,
            message: printable(&short),
        }
    }
}

impl Turn {
    /// Returns the model that really answered.
    pub fn true_model(&self) -> &str {
        self.served.as_deref().unwrap_or(&self.model)
    }

    /// Returns which part of the input came from upstream's cache, in percent; `None` when nothing was counted.
    pub fn cache_percent(&self) -> Option<u64> {
        let input = self.input_tokens;
        (input > 0).then(|| self.cached_tokens.min(input) * 100 / input)
    }
}

impl Reading {
    /// Takes over what another reading of the same account knows better.
    pub fn merge(&mut self, other: &Self) {
        self.quota = match (self.quota.take(), other.quota.clone()) {
            (Some(ours), Some(theirs)) => Some(ours.merge(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        self.asked_at = self.asked_at.max(other.asked_at);
        self.last_used = self.last_used.max(other.last_used);
        let at = |fault: &Option<Fault>| fault.as_ref().map(|fault| fault.at);
        if at(&other.last_error) > at(&self.last_error) {
            self.last_error.clone_from(&other.last_error);
        }
    }
}

impl Readings {
    /// Reads the file's text. What is damaged, or of a newer ccx, counts as nothing: all of it can be read again.
    pub fn parse(text: &[u8]) -> Self {
        serde_json::from_slice::<Self>(text)
            .ok()
            .filter(|readings| readings.version == VERSION)
            .unwrap_or_default()
    }

    /// Returns the file's text.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self)
            .expect("readings are plain values with string keys, which always serialise");
        text.push(b'\n');
        text
    }

    /// Takes over what `other` knows better.
    pub fn merge(&mut self, other: &Self) {
        for (id, reading) in &other.accounts {
            self.accounts.entry(id.clone()).or_default().merge(reading);
        }
        for (session, turn) in &other.sessions {
            self.note_turn(session, turn.clone());
        }
        for (session, theirs) in &other.losses {
            let ours = self.losses.entry(session.clone()).or_default();
            ours.at = ours.at.max(theirs.at);
            for (kind, count) in &theirs.requests {
                // One process counts for a session, and goes on from what it has read: the higher count is the later.
                let known = ours.requests.entry(kind.clone()).or_default();
                *known = (*known).max(*count);
            }
        }
        self.forget_losses();
    }

    /// Takes the right to ask about an account at `now`. Taken before asking, so that two do not ask at once.
    pub fn claim(&mut self, account: &str, now: UnixSeconds) -> Claim {
        let reading = self.accounts.entry(account.to_owned()).or_default();
        let before = reading.asked_at;
        if !may_ask(before, now) {
            return Claim::TooSoon;
        }
        reading.asked_at = Some(now);
        Claim::Granted { before }
    }

    /// Counts what upstream could not be told in a request of a session.
    pub fn note_losses<'a>(
        &mut self,
        session: &str,
        kinds: impl IntoIterator<Item = &'a str>,
        now: UnixSeconds,
    ) {
        let mut kinds = kinds.into_iter().peekable();
        if kinds.peek().is_none() {
            return;
        }
        let losses = self.losses.entry(session.to_owned()).or_default();
        losses.at = losses.at.max(now);
        for kind in kinds {
            *losses.requests.entry(kind.to_owned()).or_default() += 1;
        }
        self.forget_losses();
    }

    fn forget_losses(&mut self) {
        while self.losses.len() > SESSIONS {
            let oldest = self.losses.iter().min_by_key(|(_, losses)| losses.at);
            let Some(oldest) = oldest.map(|(session, _)| session.clone()) else {
                return;
            };
            self.losses.remove(&oldest);
        }
    }

    /// Returns in how many requests of the sessions that are kept each kind of loss was met.
    pub fn losses_by_kind(&self) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::new();
        for losses in self.losses.values() {
            for (kind, count) in &losses.requests {
                *sums.entry(kind.as_str()).or_default() += count;
            }
        }
        sums
    }

    /// Notes the last turn of a session, if it is the last.
    pub fn note_turn(&mut self, session: &str, turn: Turn) {
        match self.sessions.get(session) {
            Some(known) if known.at > turn.at => return,
            _ => self.sessions.insert(session.to_owned(), turn),
        };
        while self.sessions.len() > SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, turn)| turn.at);
            let Some(oldest) = oldest.map(|(session, _)| session.clone()) else {
                return;
            };
            self.sessions.remove(&oldest);
        }
    }

    /// Notes what upstream said of an account, on top of what was known.
    pub fn note_quota(&mut self, account: &str, quota: Quota) {
        let reading = self.accounts.entry(account.to_owned()).or_default();
        reading.quota = Some(match reading.quota.take() {
            Some(known) => known.merge(quota),
            None => quota,
        });
    }

    /// Forgets an account, also as the one that sessions ran on.
    pub fn forget(&mut self, account: &str) {
        self.accounts.remove(account);
        self.sessions.retain(|_, turn| turn.account != account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::quota::Window;

    fn turn(at: u64, account: &str) -> Turn {
        Turn {
            at: UnixSeconds(at),
            account: account.to_owned(),
            model: "gpt-6.1-sol".to_owned(),
            served: None,
            input_tokens: 1000,
            cached_tokens: 870,
        }
    }

    fn reading(at: u64, used_percent: f64) -> Reading {
        let at = UnixSeconds(at);
        Reading {
            quota: Some(Quota {
                windows: vec![Window {
                    family: None,
                    length_seconds: 18_000,
                    used_percent,
                    resets_at: Some(UnixSeconds(9000)),
                }],
                at,
                ..Quota::default()
            }),
            asked_at: Some(at),
            last_used: Some(at),
            last_error: Some(Fault::new(at, 429, "limit")),
        }
    }

    fn readings(account: Reading, turns: &[(&str, Turn)]) -> Readings {
        let mut readings = Readings::default();
        readings.accounts.insert("a".to_owned(), account);
        for (session, turn) in turns {
            readings.note_turn(session, turn.clone());
        }
        readings
    }

    #[test]
    fn the_order_of_merging_does_not_matter() {
        let one = readings(
            reading(10, 1.0),
            &[("s1", turn(10, "a")), ("s2", turn(5, "a"))],
        );
        let two = readings(reading(20, 2.0), &[("s1", turn(9, "b"))]);
        let merged = |first: &Readings, second: &Readings| {
            let mut merged = first.clone();
            merged.merge(second);
            merged
        };
        let expected = readings(
            reading(20, 2.0),
            &[("s1", turn(10, "a")), ("s2", turn(5, "a"))],
        );
        assert_eq!(merged(&one, &two), expected);
        assert_eq!(merged(&two, &one), expected);
        assert_eq!(merged(&one, &one), one);
        assert_eq!(merged(&Readings::default(), &one), one);
    }

    #[test]
    fn sessions_are_bounded_and_the_newest_stay() {
        let mut readings = Readings::default();
        for at in 0..200 {
            readings.note_turn(&format!("s{at}"), turn(at, "a"));
        }
        assert_eq!(readings.sessions.len(), SESSIONS);
        assert!(readings.sessions.contains_key("s199"));
        assert!(!readings.sessions.contains_key("s135"));
        readings.forget("a");
        assert_eq!(readings, Readings::default());
    }

    #[test]
    fn losses_are_counted_by_request_and_by_session() {
        let counting = |requests: u64| {
            let mut readings = Readings::default();
            for at in 0..requests {
                readings.note_losses("s", ["thinking", "image"], UnixSeconds(at));
            }
            readings.note_losses("s", [], UnixSeconds(900));
            readings
        };
        let mut known = counting(3);
        // A process that knows less tells nothing new, one that knows more does.
        known.merge(&counting(2));
        assert_eq!(known, counting(3));
        known.merge(&counting(5));
        assert_eq!(known, counting(5));
        known.note_losses("t", ["image"], UnixSeconds(7));
        assert_eq!(
            known.losses_by_kind(),
            BTreeMap::from([("image", 6), ("thinking", 5)])
        );
        assert_eq!(Readings::parse(&known.to_text()), known);
        for at in 0..200 {
            known.note_losses(&format!("s{at}"), ["image"], UnixSeconds(100 + at));
        }
        assert_eq!(known.losses.len(), SESSIONS);
        assert!(known.losses.contains_key("s199") && !known.losses.contains_key("t"));
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_nothing() {
        let known = readings(reading(10, 1.0), &[("s", turn(10, "a"))]);
        assert_eq!(Readings::parse(&known.to_text()), known);
        for damaged in [
            &b""[..],
            b"{",
            b"[]",
            br#"{"version":2,"accounts":{}}"#,
            br#"{"version":1,"accounts":{"a":{"quota":7}}}"#,
        ] {
            assert_eq!(Readings::parse(damaged), Readings::default());
        }
    }

    #[test]
    fn the_true_model_and_the_cache() {
        let plain = turn(1, "a");
        assert_eq!(
            (plain.true_model(), plain.cache_percent()),
            ("gpt-6.1-sol", Some(87))
        );
        let rerouted = Turn {
            served: Some("gpt-5.5".to_owned()),
            input_tokens: 0,
            ..plain
        };
        assert_eq!(
            (rerouted.true_model(), rerouted.cache_percent()),
            ("gpt-5.5", None)
        );
    }

    #[test]
    fn an_error_is_kept_short_and_printable() {
        let fault = Fault::new(UnixSeconds(1), 500, &"\u{1b}x".repeat(400));
        assert_eq!(fault.message.chars().count(), LONGEST_MESSAGE);
        assert!(!fault.message.contains('\u{1b}'));
    }
}
