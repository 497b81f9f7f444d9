//! The ledger entry of a request in flight: written exactly once, whatever happens to the request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::capture::keeper::Captures;
use crate::capture::tape::Tape;
use crate::capture::transcript::Label;
use crate::history::record::Ending;
use crate::ledger::{Entry, Ledger, Outcome, Running};
use crate::proxy::gauges::Gauges;
use crate::proxy::lessons::Lessons;
use crate::proxy::service::Service;
use crate::time::UnixSeconds;
use crate::upstream::limits::Limits;
use crate::wire::responses::Usage;

/// Returns the time of the system's clock.
pub fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds(since.unwrap_or_default().as_secs())
}

/// A request in flight. Dropped before [`OpenEntry::finish`], it counts as given up by the client.
#[derive(Debug)]
pub struct OpenEntry {
    ledger: Arc<Mutex<Ledger>>,
    gauges: Arc<Gauges>,
    lessons: Arc<Lessons>,
    /// Tokens of the request by estimate, uncorrected; zero if it is not known.
    estimate: u64,
    arrived: Instant,
    /// `None` once it is in the ledger.
    entry: Option<Entry>,
    /// Gathers both sides, where that is wanted.
    tape: Option<Recording>,
}

/// Both sides of a request in the making.
#[derive(Debug)]
struct Recording {
    captures: Captures,
    tape: Tape,
    /// What stands on the file; `None` while the request is in flight, or if it is not kept.
    label: Option<Label>,
}

impl OpenEntry {
    /// Opens the entry of a request that has just arrived.
    pub fn new(
        ledger: Arc<Mutex<Ledger>>,
        gauges: Arc<Gauges>,
        lessons: Arc<Lessons>,
        id: String,
    ) -> Self {
        let entry = Entry {
            id,
            at: now(),
            conversation: String::new(),
            asked: String::new(),
            account: String::new(),
            model: String::new(),
            served: None,
            class: String::new(),
            course: None,
            is_stream: None,
            why_account: None,
            has_capture: false,
            attempts: 0,
            hops: 0,
            cache_lost: 0,
            prepared: Duration::ZERO,
            first_byte: None,
            first_content: None,
            total: Duration::ZERO,
            usage: None,
            is_estimate: false,
            losses: Vec::new(),
            outcome: Outcome::Cancelled,
        };
        Self {
            ledger,
            gauges,
            lessons,
            estimate: 0,
            arrived: Instant::now(),
            entry: Some(entry),
            tape: None,
        }
    }

    /// Opens the entry of a request to `service`.
    pub fn of(service: &Service, id: &str) -> Self {
        let mut open = Self::new(
            service.ledger.clone(),
            service.gauges.clone(),
            service.lessons.clone(),
            id.to_owned(),
        );
        open.tape = service.captures.as_ref().map(|captures| Recording {
            captures: captures.clone(),
            tape: Tape::default(),
            label: None,
        });
        open
    }

    /// Returns what gathers both sides of the request, where that is wanted.
    pub fn tape(&self) -> Option<&Tape> {
        self.tape.as_ref().map(|recording| &recording.tape)
    }

    /// Returns the id that the client is told.
    pub fn id(&self) -> &str {
        self.entry.as_ref().map_or("", |entry| &entry.id)
    }

    /// Returns how often upstream was asked.
    pub fn attempts(&self) -> u32 {
        self.entry.as_ref().map_or(0, |entry| entry.attempts)
    }

    /// Notes how many tokens the request has by an estimate that nothing corrected; zero if that is not known.
    pub const fn expect(&mut self, estimate: u64) {
        self.estimate = estimate;
    }

    /// Changes the entry.
    pub fn note(&mut self, change: impl FnOnce(&mut Entry, Duration)) {
        let age = self.arrived.elapsed();
        if let Some(entry) = &mut self.entry {
            change(entry, age);
        }
    }

    /// Notes that the request was understood and goes upstream now.
    pub fn begin(&self) {
        let Some(entry) = &self.entry else { return };
        let running = Running {
            id: entry.id.clone(),
            at: entry.at,
            conversation: entry.conversation.clone(),
            asked: entry.asked.clone(),
            model: entry.model.clone(),
            account: entry.account.clone(),
            class: entry.class.clone(),
        };
        self.ledger().begin(running);
    }

    /// Notes what upstream says of the account's limits in the middle of an answer.
    pub fn note_limits(&self, limits: &Limits) {
        if let Some(entry) = &self.entry {
            self.gauges.note(&entry.account, limits, now());
        }
    }

    /// Puts the entry into the ledger.
    pub fn finish(&mut self, outcome: Outcome, usage: Option<Usage>) {
        let Some(mut entry) = self.entry.take() else {
            return;
        };
        entry.total = self.arrived.elapsed();
        entry.outcome = outcome;
        entry.usage = usage;
        log(&entry);
        if let (Outcome::Done, Some(usage)) = (&entry.outcome, &entry.usage) {
            let (account, model) = (&entry.account, &entry.model);
            self.lessons
                .answered(account, model, self.estimate, usage.input_tokens);
        }
        if let Some(recording) = &mut self.tape {
            let has_failed = matches!(entry.outcome, Outcome::Failed { .. });
            entry.has_capture = recording.captures.wants(has_failed);
            recording.label = entry.has_capture.then(|| Label {
                id: entry.id.clone(),
                at: entry.at.0,
                outcome: Ending::of(&entry.outcome).word().to_owned(),
                ..Label::default()
            });
        }
        self.gauges.note_entry(&entry, now());
        self.ledger().add(entry);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere leaves the ledger's counts whole: each `add` is complete or not begun.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenEntry {
    fn drop(&mut self) {
        self.finish(Outcome::Cancelled, None);
        // Only now has the client been told everything.
        if let Some(Recording {
            captures,
            tape,
            label: Some(label),
        }) = self.tape.take()
        {
            captures.keep(label, tape.take());
        }
    }
}

fn log(entry: &Entry) {
    let milliseconds = |span: Duration| span.as_millis() as u64;
    let usage = entry.usage.unwrap_or_default();
    let losses: Vec<_> = entry
        .losses_by_kind()
        .into_iter()
        .map(|(kind, count)| format!("{kind}:{count}"))
        .collect();
    let (ended, status, why) = match &entry.outcome {
        Outcome::Done => ("done", 200, ""),
        Outcome::Failed { status, message } => ("failed", *status, message.as_str()),
        Outcome::Cancelled => ("cancelled", 499, ""),
    };
    tracing::info!(
        request = entry.id,
        conversation = entry.conversation,
        asked = entry.asked,
        account = entry.account,
        model = entry.model,
        class = entry.class,
        attempts = entry.attempts,
        hops = entry.hops,
        first_byte_ms = entry.first_byte.map(milliseconds),
        first_content_ms = entry.first_content.map(milliseconds),
        total_ms = milliseconds(entry.total),
        input_tokens = usage.input_tokens,
        cached_tokens = usage.cached_tokens,
        output_tokens = usage.output_tokens,
        estimated = entry.is_estimate,
        losses = losses.join(","),
        ended,
        status,
        why,
        "request"
    );
}
