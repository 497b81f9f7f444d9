//! One account as commands show it: what the store says and what was read of it, joined.

use serde_json::{Value, json};

use crate::account::freshness::{Freshness, freshness};
use crate::account::record::{Record, printable};
use crate::account::select::select;
use crate::account::store::Accounts;
use crate::cli::draw::{Style, percent};
use crate::proxy::readings::{Reading, Readings};
use crate::time::{UnixSeconds, in_words};
use crate::upstream::quota::Quota;

/// An account and what is known of it.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The account.
    pub record: &'a Record,
    /// What was read of it.
    pub reading: Reading,
    /// It is used when none is named.
    pub is_active: bool,
    /// A name that no other account has.
    pub name: String,
    now: UnixSeconds,
}

/// How an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Can be used.
    Ready,
    /// Its access token has ended; it is renewed, or read again, at the next use.
    Renewing,
    /// Nothing is left of the plan.
    Limited {
        /// When something is again.
        until: Option<UnixSeconds>,
    },
    /// Its sign-in cannot be renewed any more, but its token still lasts.
    Ending,
    /// Has to be signed in again.
    SignedOut,
}

impl State {
    /// Returns the word that scripts read.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Renewing => "renewing",
            Self::Limited { .. } => "limited",
            Self::Ending => "ending",
            Self::SignedOut => "signed_out",
        }
    }
}

/// Returns the views of all accounts, in the store's order.
pub fn all<'a>(kept: &'a Accounts, readings: &Readings, now: UnixSeconds) -> Vec<View<'a>> {
    let chosen = select(&kept.accounts, kept.active.as_deref(), None);
    let chosen = chosen.ok().map(|record| record.id.as_str());
    let accounts = kept.accounts.iter();
    accounts
        .map(|record| View {
            record,
            reading: readings
                .accounts
                .get(&record.id)
                .cloned()
                .unwrap_or_default(),
            is_active: chosen == Some(record.id.as_str()),
            name: unique_name(record, &kept.accounts),
            now,
        })
        .collect()
}

/// Returns the account's name, with the beginning of its id where others have the same: one person may be in several
/// workspaces.
fn unique_name(record: &Record, all: &[Record]) -> String {
    let name = record.name();
    let is_shared = all
        .iter()
        .any(|other| other.id != record.id && other.name() == name);
    match is_shared {
        true => format!("{name} ({})", printable(&id_start(&record.id, all))),
        false => name,
    }
}

/// Returns the shortest beginning of an id, five characters at least, that no other id has.
fn id_start(id: &str, all: &[Record]) -> String {
    let count = id.chars().count();
    (5..count)
        .map(|length| id.chars().take(length).collect::<String>())
        .find(|start| {
            all.iter()
                .filter(|other| other.id.starts_with(start))
                .count()
                == 1
        })
        .unwrap_or_else(|| id.to_owned())
}

impl View<'_> {
    /// Returns how the account stands.
    pub fn state(&self) -> State {
        let token = freshness(self.record.expires_at, self.now);
        let quota = self.reading.quota.as_ref();
        match (&self.record.dead, token) {
            (Some(_), Freshness::Expired) => State::SignedOut,
            (Some(_), _) => State::Ending,
            (None, _) if quota.is_some_and(|quota| quota.stopped(self.now).is_some()) => {
                State::Limited {
                    until: quota.and_then(|quota| quota.exhausted_until(self.now)),
                }
            }
            (None, Freshness::Expired) => State::Renewing,
            (None, _) => State::Ready,
        }
    }

    /// Returns the state in a word or two, for a table.
    pub fn state_in_short(&self) -> String {
        match self.state() {
            State::Ready | State::Renewing => "ready".to_owned(),
            State::Limited { until: None } => "limit".to_owned(),
            State::Limited { until: Some(until) } => {
                format!("limit, {}", in_words(until.since(self.now)))
            }
            State::Ending => "ending".to_owned(),
            State::SignedOut => "signed out".to_owned(),
        }
    }

    /// Returns the state in words.
    pub fn state_in_words(&self) -> String {
        let quota = self.reading.quota.as_ref();
        let why_dead = self.record.dead.as_ref().map(|death| &death.reason);
        match (self.state(), why_dead) {
            (State::Limited { until }, _) => {
                let stopped = quota.and_then(|quota| quota.stopped(self.now));
                let stopped = stopped.unwrap_or("the plan's limit is reached");
                match until {
                    Some(until) => {
                        format!("{stopped}, for {}", in_words(until.since(self.now)))
                    }
                    None => stopped.to_owned(),
                }
            }
            (State::SignedOut, Some(reason)) => format!("signed out: {reason}"),
            (State::Ending, Some(reason)) => format!("{}; {reason}", self.token_in_words()),
            _ => self.token_in_words(),
        }
    }

    /// Returns how long the access token lasts.
    pub fn token_in_words(&self) -> String {
        match self.record.expires_at.map(|end| end.since(self.now)) {
            None => "ready".to_owned(),
            Some(left) if left.is_zero() => {
                "ready, the token is renewed at the next use".to_owned()
            }
            Some(left) => format!("ready, token good for {}", in_words(left)),
        }
    }

    /// Returns the plan: as upstream last said, else as the token does.
    pub fn plan(&self) -> Option<String> {
        let told = self
            .reading
            .quota
            .as_ref()
            .and_then(|quota| quota.plan.as_ref());
        told.or(self.record.plan.as_ref())
            .map(|plan| printable(plan))
    }

    /// Returns name, address and plan: `work (ann@example.com), plan pro`.
    pub fn title(&self) -> String {
        let mut title = self.name.clone();
        if let (Some(_), Some(email)) = (&self.record.label, &self.record.email) {
            title = format!("{title} ({})", printable(email));
        }
        match self.plan() {
            Some(plan) => format!("{title}, plan {plan}"),
            None => title,
        }
    }

    /// Returns what is left of the plan's own windows: `5h 88%  7d 60%`.
    pub fn windows_in_short(&self) -> String {
        let windows = self.reading.quota.iter().flat_map(Quota::own_windows);
        let windows: Vec<String> = windows
            .map(|window| {
                let left = percent(window.remaining_percent(self.now));
                format!("{} {left}", window.label().replace(' ', ""))
            })
            .collect();
        match windows.is_empty() {
            true => "-".to_owned(),
            false => windows.join("  "),
        }
    }

    /// Returns the lines on what is left of the plan: windows, credits, models; none when nothing is known. Names are
    /// padded to `label` columns.
    pub fn quota_lines(&self, style: &Style, label: usize) -> Vec<String> {
        let Some(quota) = &self.reading.quota else {
            return Vec::new();
        };
        let mut lines = style.windows(quota, label, self.now);
        let mut line = |name: &str, words: &str| {
            let name = crate::cli::draw::pad(name, label);
            lines.push(style.fit(&format!("{name} {words}"), style.width));
        };
        if let Some(credits) = &quota.credits {
            let words = match (&credits.balance, credits.unlimited, credits.available) {
                (_, true, _) => Some("unlimited".to_owned()),
                (Some(balance), false, true) => Some(printable(balance)),
                (None, false, true) => Some("some left".to_owned()),
                (_, false, false) => None,
            };
            if let Some(words) = words {
                line("credits", &words);
            }
        }
        for blocked in &quota.unavailable {
            let model = printable(&blocked.model);
            match blocked.until {
                Some(until) if until <= self.now => {}
                Some(until) => {
                    let left = in_words(until.since(self.now));
                    line("blocked", &format!("{model}, for {left}"));
                }
                None => line("blocked", &model),
            }
        }
        lines
    }

    /// Returns the account for scripts. Holds no secret.
    pub fn json(&self) -> Value {
        let record = self.record;
        let until = match self.state() {
            State::Limited { until } => until,
            _ => None,
        };
        json!({
            "id": record.id,
            "name": self.name,
            "email": record.email,
            "label": record.label,
            "plan": self.plan(),
            "chatgpt_account_id": record.chatgpt_account_id,
            "source": record.source,
            "active": self.is_active,
            "state": self.state().code(),
            "limited_until": until,
            "expires_at": record.expires_at,
            "quota": self.reading.quota.as_ref().map(|quota| self.quota_json(quota)),
            "last_used": self.reading.last_used,
            "last_error": self.reading.last_error,
        })
    }

    fn quota_json(&self, quota: &Quota) -> Value {
        let windows: Vec<Value> = quota
            .windows
            .iter()
            .map(|window| {
                json!({
                    "label": window.label(),
                    "family": window.family,
                    "length_seconds": window.length_seconds,
                    "used_percent": window.used_percent,
                    "remaining_percent": window.remaining_percent(self.now),
                    "resets_at": window.resets_at,
                })
            })
            .collect();
        json!({
            "plan": quota.plan,
            "remaining_percent": quota.remaining_percent(self.now),
            "windows": windows,
            "credits": quota.credits,
            "reached": quota.reached,
            "unavailable_models": quota.unavailable,
            "at": quota.at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::quota::Window;

    const NOW: UnixSeconds = UnixSeconds(1_795_457_600);

    fn accounts(list: Value) -> Accounts {
        serde_json::from_value(json!({"version": 1, "accounts": list})).unwrap()
    }

    fn readings(used: f64) -> Readings {
        let mut readings = Readings::default();
        readings.note_quota(
            "a1",
            Quota {
                plan: Some("pro".to_owned()),
                windows: vec![Window {
                    family: None,
                    length_seconds: 18_000,
                    used_percent: used,
                    resets_at: Some(UnixSeconds(NOW.0 + 900)),
                }],
                at: NOW,
                ..Quota::default()
            },
        );
        readings
    }

    #[test]
    fn states() {
        let dead = json!({"reason": "revoked", "at": 5});
        for (expires, dead, used, code, words) in [
            (
                9000,
                Value::Null,
                5.0,
                "ready",
                "ready, token good for 2h 30m",
            ),
            (
                -5,
                Value::Null,
                5.0,
                "renewing",
                "ready, the token is renewed at the next use",
            ),
            (
                9000,
                Value::Null,
                100.0,
                "limited",
                "the plan's limit is reached, for 15m",
            ),
            (
                9000,
                dead.clone(),
                5.0,
                "ending",
                "ready, token good for 2h 30m; the sign-in was revoked",
            ),
            (
                -5,
                dead,
                100.0,
                "signed_out",
                "signed out: the sign-in was revoked",
            ),
        ] {
            let kept = accounts(json!([{
                "id": "a1", "email": "ann@x.com", "source": {"kind": "own"}, "access_token": "SECRET",
                "refresh_token": "SECRET", "expires_at": NOW.0.saturating_add_signed(expires), "dead": dead
            }]));
            let views = all(&kept, &readings(used), NOW);
            let view = &views[0];
            assert_eq!(view.state().code(), code);
            assert_eq!(view.state_in_words(), words);
            assert!(view.is_active, "the only one is the one that is used");
            assert!(!view.json().to_string().contains("SECRET"));
        }
    }

    #[test]
    fn accounts_of_one_person_are_told_apart() {
        let account = |id: &str, email: &str, label: Option<&str>| json!({"id": id, "email": email, "label": label, "source": {"kind": "own"}, "access_token": "t"});
        let kept = accounts(json!([
            account("a1234567", "ann@x.com", None),
            account("a1234599", "ann@x.com", None),
            account("b", "ann@x.com", Some("work")),
            account("c", "\u{1b}[2Jx", None),
        ]));
        let views = all(&kept, &Readings::default(), NOW);
        let names: Vec<_> = views.iter().map(|view| view.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "ann@x.com (a123456)",
                "ann@x.com (a123459)",
                "work",
                "\u{fffd}[2Jx"
            ]
        );
        assert_eq!(views[2].title(), "work (ann@x.com)");
        assert!(views.iter().all(|view| !view.is_active));
    }
}
