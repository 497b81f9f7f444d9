//! A stream on its way from upstream to the client: one read, all complete events translated, one write.
//!
//! No task and no channel stand between the two: the client's connection polls upstream directly, so a
//! slow client slows upstream down, and a client that has gone drops upstream at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use crate::account::memory::Outlook;
use crate::ledger::Outcome;
use crate::proxy::attempts::Attempts;
use crate::proxy::entry::{OpenEntry, now};
use crate::proxy::patience::{Patience, Repeated};
use crate::proxy::reply;
use crate::proxy::service::Service;
use crate::sse::Decoder;
use crate::time::UnixSeconds;
use crate::translate::stream::{Setup, Step};
use crate::translate::voice::{Tongue, Voice};
use crate::upstream::answer::Answer;
use crate::upstream::failure::Failure;
use crate::upstream::limits::{self, Limits};

/// Silence after which the client is sent a `ping`. It gives up after 300 s; people look sooner.
const PING_AFTER: Duration = Duration::from_secs(9);

/// Silence of upstream after which the answer counts as stalled.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(300);

/// Events are gathered up to here before the client is sent a piece.
const PIECE_BYTES: usize = 32 * 1024;

/// How often in a row upstream must have had nothing more before what was gathered goes out.
///
/// Upstream's connection is a task of its own and hands over one chunk at a time, although its last read may have
/// brought many. It gets a turn between two polls of ours. Two, because the client's connection polls twice in a turn.
const EMPTY_POLLS: u32 = 2;

/// How long a beginning is waited for before the response's head goes out without it.
///
/// Failures that upstream reports inside a stream come at its very start; while none of the head was
/// sent they still become a proper status.
const BEGINNING: Duration = Duration::from_secs(3);

/// What the table of replies has to know of the request.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Upstream's name of the model.
    pub model: String,
    /// The model's usable window in tokens.
    pub window: u64,
    /// Estimated tokens of the request.
    pub tokens: u64,
    /// How other accounts stand, once one was used up.
    pub outlook: Option<Outlook>,
    /// Whether an answer without content may end the turn: every tool that was called has done its work.
    pub may_end_empty: bool,
    /// What the request has in common with the client's repeats of it.
    pub repeated: Repeated,
    /// When it arrived.
    pub arrived: UnixSeconds,
    /// Who remembers how often it failed.
    pub service: Arc<Service>,
}

impl Facts {
    /// Returns the context of a reply that is made now.
    pub fn context(&self) -> reply::Context<'_> {
        reply::Context {
            now: now(),
            model: &self.model,
            window: self.window,
            tokens: self.tokens,
            outlook: self.outlook.as_ref(),
        }
    }

    /// Returns what the client is told of a failure after upstream was asked `asked` times, and remembers it.
    pub fn reply(&self, failure: &Failure, asked: u32) -> reply::Reply {
        let reply = reply::from_failure(failure, self.context());
        let now = self.service.chooser.now();
        let tried = self
            .patience()
            .failed(self.repeated, failure, asked, self.arrived, now);
        reply.after(tried)
    }

    /// Notes that the request was answered.
    pub fn answered(&self) {
        self.patience().answered(self.repeated);
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        let patience = &self.service.patience;
        // What a panic could leave half done is a failure that is not counted.
        patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer of upstream in the making, read up to where it has begun.
#[derive(Debug)]
pub struct Begun {
    answer: Option<Answer>,
    decoder: Decoder,
    voice: Voice,
    out: Vec<u8>,
    /// What the client was told, if it has failed behind its first content already.
    failed: Option<reply::Reply>,
    /// What upstream said of the account's limits within the stream, until it is noted.
    limits: Option<Box<Limits>>,
}

/// Asks upstream until an answer has begun. Until then a failure can still become a status.
pub async fn begin(
    attempts: &mut Attempts,
    tongue: &Tongue,
    setup: &Setup,
    facts: &Facts,
    entry: &mut OpenEntry,
) -> Result<Begun, Failure> {
    loop {
        let answer = attempts.open_for(entry).await?;
        let setup = Setup {
            origin: attempts.origin.clone(),
            ..setup.clone()
        };
        let mut begun = Begun::new(answer, tongue.voice(setup));
        let failure = match read_beginning(&mut begun, facts).await {
            Ok(()) => return Ok(begun),
            Err(failure) => failure,
        };
        match attempts.recover(failure).await {
            Ok(()) => {}
            Err(Failure::Empty) if facts.may_end_empty => {
                begun.end_empty();
                return Ok(begun);
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// As [`begin`], of an answer that nobody asks for again.
///
/// # Errors
///
/// It failed before any content of it came.
pub async fn begin_once(
    answer: Answer,
    tongue: &Tongue,
    setup: &Setup,
    facts: &Facts,
) -> Result<Begun, Failure> {
    let mut begun = Begun::new(answer, tongue.voice(setup.clone()));
    match read_beginning(&mut begun, facts).await {
        Ok(()) => {}
        Err(Failure::Empty) if facts.may_end_empty => begun.end_empty(),
        Err(failure) => return Err(failure),
    }
    Ok(begun)
}

async fn read_beginning(begun: &mut Begun, facts: &Facts) -> Result<(), Failure> {
    let deadline = Instant::now() + BEGINNING;
    while let Some(answer) = &mut begun.answer {
        let chunk = match tokio::time::timeout_at(deadline, answer.chunk()).await {
            Err(_) => break,
            Ok(None) => return Err(Failure::Cut),
            Ok(Some(chunk)) => chunk?,
        };
        match begun.take(&chunk) {
            Ok(()) => {}
            Err(failure) if begun.voice.is_committed() => {
                begun.fail(facts.reply(&failure, 1));
            }
            Err(failure) => return Err(failure),
        }
        if begun.voice.has_begun() {
            break;
        }
    }
    begun.voice.start(&mut begun.out);
    Ok(())
}

impl Begun {
    fn new(answer: Answer, voice: Voice) -> Self {
        Self {
            answer: Some(answer),
            decoder: Decoder::default(),
            voice,
            out: Vec::with_capacity(1024),
            failed: None,
            limits: None,
        }
    }

    /// Translates what a read gave. An answer that is complete lets go of upstream.
    fn take(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        if self.decoder.feed(chunk).is_err() {
            return Err(Failure::TooLong);
        }
        while let Some(frame) = self.decoder.next_frame() {
            if frame.event == limits::EVENT {
                self.limits = Limits::from_event(frame.data).map(Box::new);
            }
            match self.voice.feed(frame, &mut self.out) {
                Step::Continue => {}
                Step::Finished => {
                    finish(self.answer.take());
                    break;
                }
                Step::Cut => {
                    self.answer = None;
                    break;
                }
                Step::Failed(failure) => return Err(Failure::from_stream(&failure)),
            }
        }
        Ok(())
    }

    fn fail(&mut self, reply: reply::Reply) {
        self.answer = None;
        self.voice.fail(reply.kind, &reply.message, &mut self.out);
        self.failed = Some(reply);
    }

    fn end_empty(&mut self) {
        self.answer = None;
        self.voice.end_empty(&mut self.out);
    }
}

/// Lets an answer that is complete come to its end, so that its connection serves the next request.
///
/// The task ends by itself within a second.
fn finish(answer: Option<Answer>) {
    if let Some(answer) = answer {
        tokio::spawn(answer.drain());
    }
}

type Reopening = Pin<Box<dyn Future<Output = (Box<Attempts>, Result<Answer, Failure>)> + Send>>;

/// Where the next bytes come from.
enum Source {
    /// From the answer that is open.
    Live,
    /// From a new attempt, made behind a head that was sent already.
    Reopening(Reopening),
}

/// A stream in the making. Dropping it cancels upstream and notes that the client has gone.
pub struct Pipe {
    begun: Begun,
    source: Source,
    /// Whether the time of the first content is noted.
    is_committed: bool,
    /// Kept while another attempt would be invisible; frees the request's body after that.
    attempts: Option<Box<Attempts>>,
    facts: Facts,
    entry: OpenEntry,
    tick: Pin<Box<Sleep>>,
    last_in: Instant,
    last_out: Instant,
    /// Whether the first content was given out.
    has_sent_content: bool,
    /// Polls in a row that brought nothing.
    empty_polls: u32,
    is_over: bool,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("facts", &self.facts)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl Pipe {
    /// Carries on with an answer that has begun. Without `attempts` there is no other.
    pub fn new(
        begun: Begun,
        attempts: Option<Attempts>,
        facts: Facts,
        mut entry: OpenEntry,
    ) -> Self {
        let now = Instant::now();
        let is_committed = begun.voice.is_committed();
        if is_committed {
            entry.note(|entry, age| entry.first_content = Some(age));
        }
        if let Some(limits) = &begun.limits {
            entry.note_limits(limits);
        }
        Self {
            begun,
            source: Source::Live,
            attempts: attempts.filter(|_| !is_committed).map(Box::new),
            is_committed,
            facts,
            entry,
            tick: Box::pin(tokio::time::sleep_until(now + PING_AFTER)),
            last_in: now,
            last_out: now,
            has_sent_content: false,
            empty_polls: 0,
            is_over: false,
        }
    }

    /// Returns the next piece of the stream, `None` at its end.
    pub fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut has_gained = false;
        loop {
            let is_ended = self.begun.answer.is_none() && matches!(self.source, Source::Live);
            if is_ended || self.begun.out.len() >= PIECE_BYTES {
                break;
            }
            let step = match &mut self.source {
                Source::Live => self.poll_answer(context),
                Source::Reopening(reopening) => {
                    let step = reopening.as_mut().poll(context);
                    step.map(|(attempts, outcome)| self.reopened(attempts, outcome))
                }
            };
            if step.is_ready() {
                has_gained = true;
                continue;
            }
            if self.begun.out.is_empty() {
                ready!(self.tick.as_mut().poll(context));
                self.on_tick();
            } else if self.is_gathered(has_gained) {
                break;
            } else {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if self.begun.out.is_empty() {
            self.end();
            return Poll::Ready(None);
        }
        self.has_sent_content = self.begun.voice.is_committed();
        self.last_out = Instant::now();
        let room = self.begun.out.len().min(PIECE_BYTES);
        let piece = std::mem::replace(&mut self.begun.out, Vec::with_capacity(room));
        if let Some(tape) = self.entry.tape() {
            tape.told(&piece);
        }
        Poll::Ready(Some(piece.into()))
    }

    /// Says whether what is there should go out now that upstream has nothing more for the moment.
    fn is_gathered(&mut self, has_gained: bool) -> bool {
        self.empty_polls = if has_gained { 0 } else { self.empty_polls + 1 };
        // Until then nothing is waited for: the beginning goes out with the head, the first content at once.
        !self.has_sent_content || self.empty_polls >= EMPTY_POLLS
    }

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(answer) = &mut self.begun.answer else {
            return Poll::Ready(());
        };
        let failure = match ready!(answer.poll_chunk(context)) {
            Some(Ok(chunk)) => {
                self.last_in = Instant::now();
                self.begun.take(&chunk).err()
            }
            Some(Err(failure)) => Some(failure),
            None => Some(Failure::Cut),
        };
        if let Some(failure) = failure {
            self.on_failure(failure);
        }
        if let Some(limits) = self.begun.limits.take() {
            self.entry.note_limits(&limits);
        }
        if self.begun.voice.is_committed() {
            self.commit();
        }
        Poll::Ready(())
    }

    /// Frees what only another attempt would need.
    fn commit(&mut self) {
        self.attempts = None;
        if !std::mem::replace(&mut self.is_committed, true) {
            self.entry
                .note(|entry, age| entry.first_content = Some(age));
        }
    }

    fn on_failure(&mut self, failure: Failure) {
        self.begun.answer = None;
        match self.attempts.take() {
            Some(mut attempts) if !self.begun.voice.is_committed() => {
                self.source = Source::Reopening(Box::pin(async move {
                    let outcome = match attempts.recover(failure).await {
                        Ok(()) => attempts.open().await,
                        Err(failure) => Err(failure),
                    };
                    (attempts, outcome)
                }));
            }
            _ => self.give_up(&failure),
        }
    }

    fn reopened(&mut self, mut attempts: Box<Attempts>, outcome: Result<Answer, Failure>) {
        self.source = Source::Live;
        attempts.note(&mut self.entry);
        match outcome {
            Ok(answer) => {
                self.last_in = Instant::now();
                self.begun.answer = Some(answer);
                self.begun.decoder = Decoder::default();
                self.begun.voice.restart(attempts.origin.clone());
                self.attempts = Some(attempts);
            }
            Err(failure) => {
                self.facts.outlook = attempts.outlook.take();
                self.give_up(&failure);
            }
        }
    }

    /// Tells the client, inside the stream, that the answer will not be completed; or completes it, where nothing
    /// is as good an end as any.
    fn give_up(&mut self, failure: &Failure) {
        if *failure == Failure::Empty && self.facts.may_end_empty {
            return self.begun.end_empty();
        }
        let reply = self.facts.reply(failure, self.entry.attempts());
        self.begun.fail(reply);
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        if matches!(self.source, Source::Live) && now - self.last_in >= UPSTREAM_IDLE {
            self.on_failure(Failure::Stalled {
                idle: UPSTREAM_IDLE,
            });
        } else if now - self.last_out >= PING_AFTER {
            self.begun.voice.ping(&mut self.begun.out);
            self.last_out = now;
        }
        self.tick.as_mut().reset(self.last_out + PING_AFTER);
    }

    fn end(&mut self) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        let outcome = match self.begun.failed.take() {
            None => {
                self.facts.answered();
                Outcome::Done
            }
            Some(reply) => Outcome::Failed {
                status: reply.status,
                message: reply.message,
            },
        };
        let voice = &self.begun.voice;
        self.entry
            .note(|entry, _| entry.is_estimate = voice.is_estimate());
        self.entry.finish(outcome, voice.usage());
    }
}
