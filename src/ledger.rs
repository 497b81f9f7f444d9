//! What happened: the last requests and the totals of all of them. Knows no clock and no disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::time::UnixSeconds;
use crate::wire::responses::Usage;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer was delivered.
    Done,
    /// It was answered with an error, or its stream ended in one.
    Failed {
        /// The status told to the client, also for an error inside a stream.
        status: u16,
        /// What was told.
        message: String,
    },
    /// The client went away first.
    Cancelled,
}

/// One finished request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The request id that the client was told.
    pub id: String,
    /// When it arrived.
    pub at: UnixSeconds,
    /// The conversation's key.
    pub conversation: String,
    /// ccx's id of the account; empty if it came to none.
    pub account: String,
    /// The model as the client named it.
    pub asked: String,
    /// Upstream's name of the model that answered; empty if none was chosen.
    pub model: String,
    /// The model that upstream says served it.
    pub served: Option<String>,
    /// What it was for (`main`, `subagent`, `title`, …); empty if it was not even read.
    pub class: String,
    /// How often upstream was asked.
    pub attempts: u32,
    /// How often the conversation moved to another account for it.
    pub hops: u32,
    /// Tokens that the account it moved to has to read anew, by estimate: the cache of the other one is lost.
    pub cache_lost: u64,
    /// Reading and translating the request.
    pub prepared: Duration,
    /// From arrival to upstream's first byte.
    pub first_byte: Option<Duration>,
    /// From arrival to the first content.
    pub first_content: Option<Duration>,
    /// From arrival to the end.
    pub total: Duration,
    /// Upstream's counts.
    pub usage: Option<Usage>,
    /// Whether `usage` is ccx's own estimate: the answer was cut here, and upstream not heard to its end.
    pub is_estimate: bool,
    /// What upstream could not be told, by kind.
    pub losses: Vec<&'static str>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Entry {
    /// Returns how often each kind of loss stands in [`Entry::losses`]: a long conversation has one of them many times.
    pub fn losses_by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for loss in &self.losses {
            *counts.entry(*loss).or_default() += 1;
        }
        counts
    }
}

/// Sums over all requests since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Finished requests.
    pub requests: u64,
    /// Of these, answered with an error.
    pub failed: u64,
    /// Of these, given up by the client.
    pub cancelled: u64,
    /// Sums of upstream's counts.
    pub usage: Usage,
    /// Losses by kind.
    pub losses: BTreeMap<&'static str, u64>,
}

/// Entries kept: enough for a page of history, at most a few hundred kilobytes.
const KEPT: usize = 500;

/// The ring of the last requests and the totals.
#[derive(Debug, Default)]
pub struct Ledger {
    recent: VecDeque<Entry>,
    totals: Totals,
}

impl Ledger {
    /// Adds a finished request.
    pub fn add(&mut self, entry: Entry) {
        let totals = &mut self.totals;
        totals.requests += 1;
        match entry.outcome {
            Outcome::Done => {}
            Outcome::Failed { .. } => totals.failed += 1,
            Outcome::Cancelled => totals.cancelled += 1,
        }
        if let Some(usage) = entry.usage {
            totals.usage.input_tokens += usage.input_tokens;
            totals.usage.cached_tokens += usage.cached_tokens;
            totals.usage.output_tokens += usage.output_tokens;
            totals.usage.reasoning_tokens += usage.reasoning_tokens;
        }
        for loss in &entry.losses {
            *totals.losses.entry(loss).or_default() += 1;
        }
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(entry);
    }

    /// Returns the last requests, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Entry> {
        self.recent.iter()
    }

    /// Returns the sums.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: usize, outcome: Outcome) -> Entry {
        Entry {
            id: id.to_string(),
            at: UnixSeconds(1),
            conversation: String::new(),
            asked: "claude-opus-5-5".into(),
            model: "gpt-6.1-sol".into(),
            account: String::new(),
            served: None,
            class: String::new(),
            attempts: 1,
            hops: 0,
            cache_lost: 0,
            prepared: Duration::ZERO,
            first_byte: None,
            first_content: None,
            total: Duration::from_secs(1),
            usage: Some(Usage {
                input_tokens: 10,
                cached_tokens: 4,
                output_tokens: 3,
                reasoning_tokens: 1,
            }),
            is_estimate: false,
            losses: vec!["temperature"],
            outcome,
        }
    }

    #[test]
    fn totals_count_everything_and_the_ring_is_bounded() {
        let mut ledger = Ledger::default();
        for id in 0..KEPT + 2 {
            ledger.add(entry(id, Outcome::Done));
        }
        ledger.add(entry(900, Outcome::Cancelled));
        ledger.add(entry(
            901,
            Outcome::Failed {
                status: 529,
                message: String::new(),
            },
        ));
        let count = KEPT as u64 + 4;
        assert_eq!(ledger.recent().count(), KEPT);
        assert_eq!(ledger.recent().next().unwrap().id, "4");
        assert_eq!(
            *ledger.totals(),
            Totals {
                requests: count,
                failed: 1,
                cancelled: 1,
                usage: Usage {
                    input_tokens: 10 * count,
                    cached_tokens: 4 * count,
                    output_tokens: 3 * count,
                    reasoning_tokens: count,
                },
                losses: BTreeMap::from([("temperature", count)]),
            }
        );
    }
}
