//! What happened: the requests under way, the last ones, and the totals of all of them. Knows no clock and no disk.
//!
//! Who wants to know of each request as it ends (the history, pages that watch) hears the ledger: [`Hearer`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::metrics::Meters;
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
    /// How it was sent; `None` if it was not translated.
    pub course: Option<Sent>,
    /// Whether the client asked for a stream; `None` if it was not even read.
    pub is_stream: Option<bool>,
    /// Why it went to this account, in words, where there is something to say.
    pub why_account: Option<&'static str>,
    /// Whether both its sides are kept.
    pub has_capture: bool,
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

/// How a request was sent upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The form: `full`, `lite`, or the name of another lane.
    pub lane: &'static str,
    /// The effort that was asked for; `None` leaves it to upstream.
    pub effort: Option<&'static str>,
    /// The service tier that was asked for; `None` is the standard one.
    pub tier: Option<&'static str>,
}

/// A request that is being answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The request id that the client was told.
    pub id: String,
    /// When it arrived.
    pub at: UnixSeconds,
    /// The conversation's key.
    pub conversation: String,
    /// The model as the client named it.
    pub asked: String,
    /// Upstream's name of the model.
    pub model: String,
    /// ccx's id of the account.
    pub account: String,
    /// What it is for.
    pub class: String,
}

/// Who is told of requests. Called on the proxy's thread with the ledger locked: it must not wait.
pub trait Hearer: Send {
    /// A request was understood and goes upstream.
    fn begun(&mut self, _running: &Running) {}

    /// A request has ended.
    fn ended(&mut self, entry: &Entry);
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

/// The requests under way, the ring of the last ones, the totals.
#[derive(Default)]
pub struct Ledger {
    running: Vec<Running>,
    recent: VecDeque<Entry>,
    totals: Totals,
    meters: Meters,
    hearers: Vec<Box<dyn Hearer>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("running", &self.running)
            .field("totals", &self.totals)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Has `hearer` told of every request from now on.
    pub fn hear(&mut self, hearer: Box<dyn Hearer>) {
        self.hearers.push(hearer);
    }

    /// Notes that a request was understood and goes upstream. It stands among those under way until it is added.
    pub fn begin(&mut self, running: Running) {
        for hearer in &mut self.hearers {
            hearer.begun(&running);
        }
        self.running.push(running);
    }

    /// Adds a finished request.
    pub fn add(&mut self, entry: Entry) {
        self.running.retain(|running| running.id != entry.id);
        self.meters.count(&entry);
        for hearer in &mut self.hearers {
            hearer.ended(&entry);
        }
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

    /// Returns the requests under way, in the order in which they were understood.
    pub fn running(&self) -> &[Running] {
        &self.running
    }

    /// Returns what is counted for `/metrics`.
    pub const fn meters(&self) -> &Meters {
        &self.meters
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
            course: None,
            is_stream: None,
            why_account: None,
            has_capture: false,
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

    fn running(id: usize) -> Running {
        Running {
            id: id.to_string(),
            at: UnixSeconds(1),
            conversation: String::new(),
            asked: String::new(),
            model: String::new(),
            account: String::new(),
            class: String::new(),
        }
    }

    #[test]
    fn hearers_are_told_and_what_has_ended_is_not_under_way() {
        struct Heard(std::sync::mpsc::Sender<String>);
        impl Hearer for Heard {
            fn begun(&mut self, running: &Running) {
                self.0.send(format!("begun {}", running.id)).unwrap();
            }
            fn ended(&mut self, entry: &Entry) {
                self.0.send(format!("ended {}", entry.id)).unwrap();
            }
        }
        let (sender, heard) = std::sync::mpsc::channel();
        let mut ledger = Ledger::default();
        ledger.hear(Box::new(Heard(sender)));
        ledger.begin(running(1));
        ledger.begin(running(2));
        ledger.add(entry(1, Outcome::Done));
        // Never understood.
        ledger.add(entry(3, Outcome::Cancelled));
        assert_eq!(ledger.running(), [running(2)]);
        let heard: Vec<String> = heard.try_iter().collect();
        assert_eq!(heard, ["begun 1", "begun 2", "ended 1", "ended 3"]);
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
