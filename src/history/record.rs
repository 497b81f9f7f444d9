//! What is kept of a request, what can be asked of what is kept, and the shapes of the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::ledger::{Entry, Outcome};
use crate::upstream::quota::{self, Quota};
use crate::wire::responses::Usage;

/// The longest message that is kept.
const LONGEST_MESSAGE: usize = 2_000;

/// A finished request as it is kept: owned words and whole numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Counts up with every request that is kept; 0 until it is.
    pub row: i64,
    /// The request id that the client was told.
    pub id: String,
    /// When it arrived, in unix seconds.
    pub at: u64,
    /// The conversation's key.
    pub conversation: String,
    /// ccx's id of the account.
    pub account: String,
    /// The model as the client named it.
    pub asked: String,
    /// Upstream's name of the model.
    pub model: String,
    /// The model that upstream says served it.
    pub served: Option<String>,
    /// What it was for.
    pub class: String,
    /// The form in which it was sent.
    pub lane: Option<String>,
    /// The effort asked for.
    pub effort: Option<String>,
    /// The tier asked for.
    pub tier: Option<String>,
    /// Whether the client asked for a stream.
    pub is_stream: Option<bool>,
    /// Why it went to that account.
    pub why_account: Option<String>,
    /// How often upstream was asked.
    pub attempts: u64,
    /// How often the conversation moved for it.
    pub hops: u64,
    /// Tokens that had to be read anew, by estimate.
    pub cache_lost: u64,
    /// Reading and translating, in milliseconds.
    pub prepared_ms: u64,
    /// From arrival to upstream's first byte.
    pub first_byte_ms: Option<u64>,
    /// From arrival to the first content.
    pub first_content_ms: Option<u64>,
    /// From arrival to the end.
    pub total_ms: u64,
    /// Upstream's counts.
    pub usage: Option<Usage>,
    /// Whether they are an estimate.
    pub is_estimate: bool,
    /// What upstream could not be told, by kind.
    pub losses: BTreeMap<String, u64>,
    /// How it ended.
    pub ending: Ending,
    /// The status told; `None` where the client went away.
    pub status: Option<u16>,
    /// What was told.
    pub message: Option<String>,
    /// Whether both its sides are kept.
    pub has_capture: bool,
}

/// How a request ended, without its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The whole answer was delivered.
    #[default]
    Done,
    /// It ended in an error.
    Failed,
    /// The client went away first.
    Cancelled,
}

impl Ending {
    /// All of them, in the order of their numbers on disk.
    pub const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Cancelled];

    /// Returns its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns how something ended.
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Failed { .. } => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
        }
    }

    /// Returns the number that stands for it on disk.
    pub const fn number(self) -> i64 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Cancelled => 2,
        }
    }

    /// Reads it by its word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.word() == word)
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Entry> for Record {
    fn from(entry: &Entry) -> Self {
        let (ending, status, message) = match &entry.outcome {
            Outcome::Done => (Ending::Done, Some(200), None),
            Outcome::Failed { status, message } => {
                let short = message.chars().take(LONGEST_MESSAGE).collect();
                (Ending::Failed, Some(*status), Some(short))
            }
            Outcome::Cancelled => (Ending::Cancelled, None, None),
        };
        let word = |word: Option<&'static str>| word.map(str::to_owned);
        let losses = entry.losses_by_kind().into_iter();
        Self {
            row: 0,
            id: entry.id.clone(),
            at: entry.at.0,
            conversation: entry.conversation.clone(),
            account: entry.account.clone(),
            asked: entry.asked.clone(),
            model: entry.model.clone(),
            served: entry.served.clone(),
            class: entry.class.clone(),
            lane: word(entry.course.map(|course| course.lane)),
            effort: word(entry.course.and_then(|course| course.effort)),
            tier: word(entry.course.and_then(|course| course.tier)),
            is_stream: entry.is_stream,
            why_account: word(entry.why_account),
            attempts: entry.attempts.into(),
            hops: entry.hops.into(),
            cache_lost: entry.cache_lost,
            prepared_ms: milliseconds(entry.prepared),
            first_byte_ms: entry.first_byte.map(milliseconds),
            first_content_ms: entry.first_content.map(milliseconds),
            total_ms: milliseconds(entry.total),
            usage: entry.usage,
            is_estimate: entry.is_estimate,
            losses: losses
                .map(|(kind, count)| (kind.to_owned(), count))
                .collect(),
            ending,
            status,
            message,
            has_capture: entry.has_capture,
        }
    }
}

impl Record {
    /// Returns it in the form that pages get; `name` says what an account is called.
    pub fn value(&self, name: impl Fn(&str) -> String) -> Value {
        let usage = self.usage.map(|usage| {
            json!({
                "input_tokens": usage.input_tokens,
                "cached_tokens": usage.cached_tokens,
                "output_tokens": usage.output_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
            })
        });
        json!({
            "row": self.row,
            "id": self.id,
            "at": self.at,
            "conversation": self.conversation,
            "account": self.account,
            "account_name": name(&self.account),
            "asked": self.asked,
            "model": self.model,
            "served": self.served,
            "class": self.class,
            "lane": self.lane,
            "effort": self.effort,
            "tier": self.tier,
            "stream": self.is_stream,
            "attempts": self.attempts,
            "hops": self.hops,
            "cache_lost": self.cache_lost,
            "prepared_ms": self.prepared_ms,
            "first_byte_ms": self.first_byte_ms,
            "first_content_ms": self.first_content_ms,
            "total_ms": self.total_ms,
            "usage": usage,
            "is_estimate": self.is_estimate,
            "losses": self.losses,
            "outcome": self.ending.word(),
            "status": self.status,
            "message": self.message,
            "hint": self.hint(),
            "has_capture": self.has_capture,
        })
    }

    /// Returns what the person can do about a failure, where its status says that.
    pub fn hint(&self) -> Option<&'static str> {
        if self.ending != Ending::Failed {
            return None;
        }
        match self.status? {
            401 => Some("sign the account in again: `ccx login`"),
            403 => Some("ask whoever administers the plan, or use another account: `ccx use NAME`"),
            404 => Some("the Models page lists the names that exist"),
            413 => Some("make the conversation shorter: `/compact` in Claude Code"),
            429 => Some("wait until the limit ends, or use another account: `ccx use NAME`"),
            502..=504 => Some("see whether ChatGPT can be reached: `ccx doctor --online`"),
            529 => Some("upstream has too much to do; Claude Code asks again by itself"),
            _ => None,
        }
    }
}

/// Which requests are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that were kept before this row.
    pub before: Option<i64>,
    /// Only those that ended so.
    pub ending: Option<Ending>,
    /// Only those of this model: upstream's name, or the client's.
    pub model: Option<String>,
    /// Only those of this account, by ccx's id.
    pub account: Option<String>,
    /// Only those with these letters in their id, conversation, names, class or message.
    pub words: Option<String>,
}

/// Sums over requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Finished requests.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Of these, given up by the client.
    pub cancelled: u64,
    /// All input tokens.
    pub input_tokens: u64,
    /// Of these, read from the cache.
    pub cached_tokens: u64,
    /// All output tokens.
    pub output_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
}

impl Sums {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.input_tokens += other.input_tokens;
        self.cached_tokens += other.cached_tokens;
        self.output_tokens += other.output_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }

    /// Returns all tokens, each counted once.
    pub const fn tokens(&self) -> u64 {
        self.input_tokens + self.output_tokens
    }
}

/// What happened since a moment, in sum and by model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Since {
    /// All of it.
    #[serde(flatten)]
    pub sums: Sums,
    /// By upstream's name of the model, most tokens first.
    pub by_model: Vec<OfModel>,
}

/// What happened with one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OfModel {
    /// Upstream's name.
    pub model: String,
    /// Finished requests.
    pub requests: u64,
    /// All input tokens.
    pub input_tokens: u64,
    /// Of these, read from the cache.
    pub cached_tokens: u64,
    /// All output tokens.
    pub output_tokens: u64,
}

/// One conversation, as far as its requests tell of it. What its subagents ask belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Its key.
    pub conversation: String,
    /// ccx's id of the account of its last request.
    pub account: String,
    /// The model as the client named it last.
    pub asked: String,
    /// Upstream's name of it.
    pub model: String,
    /// The effort asked for last.
    pub effort: Option<String>,
    /// What its last request was for.
    pub class: String,
    /// When its first request of those that are kept arrived.
    pub since: u64,
    /// When its last one arrived.
    pub last_at: u64,
    /// How many there were.
    pub requests: u64,
    /// All their input tokens.
    pub input_tokens: u64,
    /// Of these, read from the cache.
    pub cached_tokens: u64,
    /// All output tokens.
    pub output_tokens: u64,
    /// How much of the window the last main turn filled.
    pub context_tokens: Option<u64>,
}

/// How much of one window of a plan was used at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// ccx's id of the account.
    pub account: String,
    /// The window's name: `5 h`, `7 d`, with the limit's own name where it is beside the plan's main one.
    pub window: String,
    /// When, in unix seconds.
    pub at: u64,
    /// 0 to 100.
    pub used_percent: f64,
}

/// Returns what `quota` says of each window of `account`.
pub fn levels(account: &str, quota: &Quota) -> Vec<Level> {
    let windows = quota.windows.iter().map(|window| {
        let label = quota::label(window.length_seconds);
        Level {
            account: account.to_owned(),
            window: match &window.family {
                None => label,
                Some(family) => format!("{family} {label}"),
            },
            at: quota.at.0,
            used_percent: window.used_percent,
        }
    });
    windows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_keep_their_numbers() {
        for (number, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending.number(), number as i64);
            assert_eq!(Ending::named(ending.word()), Some(ending));
        }
        assert_eq!(Ending::named("done "), None);
    }

    #[test]
    fn what_is_not_known_is_null_and_only_failures_have_hints() {
        let mut record = Record {
            status: Some(429),
            ..Record::default()
        };
        let value = record.value(|_| "somebody".into());
        for name in [
            "served",
            "usage",
            "first_byte_ms",
            "hint",
            "effort",
            "stream",
        ] {
            assert!(value[name].is_null(), "{name}: {value}");
        }
        assert_eq!(value["account_name"], "somebody");
        record.ending = Ending::Failed;
        assert!(record.hint().unwrap().contains("another account"));
    }
}
