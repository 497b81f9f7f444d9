//! Responses events become Messages events: a state machine that is fed frames and writes SSE bytes.
//!
//! Messages blocks come one after the other, upstream's items may be told side by side: the item
//! whose turn it is is written at once, the others are held ([`Draft`]) and follow in upstream's
//! order. Texts are never decoded, only moved. Does not know of bytes cut in the middle
//! ([`crate::sse`]), of time, or of retries.

use std::sync::Arc;

use crate::sse::Frame;
use crate::translate::cut::{Bounds, Cut};
use crate::translate::draft::{self, Channel, Draft, Pen, Told};
use crate::translate::hits::Searches;
use crate::translate::names::ToolNames;
use crate::translate::reasoning::Origin;
use crate::translate::records::{self, Blocks, StopReason};
use crate::translate::search::Search;
use crate::wire::envelope::ErrorKind;
use crate::wire::responses::{
    self, Delta, Item, ItemEvent, ItemKind, Kind, StreamFailure, Terminal, Usage, Whole,
};
use crate::wire::searches::{self, Call, Cited};

/// The `code` of the failure reported for an answer that ended well but empty. Nothing was
/// written for it, so the caller may ask again, or settle for it with [`Machine::end_empty`].
pub const EMPTY_COMPLETION: &str = "ccx_empty_completion";

/// The `code` of the failure reported for a tool call that never got a name.
pub const NAMELESS_CALL: &str = "ccx_nameless_call";

/// The `code` of the failure reported for tool arguments that are nothing but whitespace for
/// more than [`BLANK_LIMIT`] bytes: a model that is stuck goes on like that to its last token.
pub const STALLED_ARGUMENTS: &str = "ccx_stalled_arguments";

/// The `code` of the failure reported for an answer above [`ANSWER_LIMIT`] or [`ITEM_LIMIT`].
pub const TOO_LONG: &str = "ccx_answer_too_long";

/// The `incomplete` of the failure reported when upstream did not say why it is incomplete.
pub const UNSTATED: &str = "unstated";

/// How many bytes of content an answer may have. A model's longest answer is about half a
/// megabyte; content that waits for its turn is held in memory, so there must be an end.
pub const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// How many items an answer may have.
pub const ITEM_LIMIT: usize = 4096;

/// How many bytes of whitespace in a row the arguments of a call may have. Far above the
/// indentation of any real file.
pub const BLANK_LIMIT: usize = 32 * 1024;

/// What the machine has to know before the first event.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The answer's id (`msg_…`).
    pub message_id: String,
    /// The model's name as the client will see it.
    pub model: String,
    /// Who makes the reasoning: sealed into signatures.
    pub origin: Origin,
    /// Tool names to map back.
    pub names: Arc<ToolNames>,
    /// What searches by upstream may do; none were asked for if `None`.
    pub search: Option<Arc<Search>>,
    /// Estimated input tokens for `message_start`; zero when unknown.
    pub input_tokens: u64,
    /// Where the answer has to stop although upstream would go on.
    pub bounds: Option<Arc<Bounds>>,
    /// Whether the client asked for a verdict on tool calls: it is told that there is none, and makes its own check.
    pub answers_safeguards: bool,
}

/// What feeding a frame led to.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// More is to come.
    Continue,
    /// The answer is complete; nothing may be written after it.
    Finished,
    /// The answer is complete because it was cut at its bounds: upstream would go on, and has to be let go of.
    Cut,
    /// Upstream said that it failed. Nothing was written for it: the caller decides between a retry
    /// (only while [`Machine::is_committed`] is false) and [`Machine::fail`].
    Failed(StreamFailure),
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// A failure was reported; the caller has not decided yet.
    Failed,
    /// `message_stop` or `error` was written.
    Ended,
}

/// The state machine of one answer.
#[derive(Debug)]
pub struct Machine {
    setup: Setup,
    phase: Phase,
    is_started: bool,
    has_begun: bool,
    blocks: Blocks,
    drafts: Vec<Draft>,
    /// The draft whose turn it is. It is not finished.
    live: Option<usize>,
    /// Bytes of content told so far.
    told: usize,
    usage: Option<Usage>,
    is_estimate: bool,
    cut: Option<Box<Cut>>,
    searches: Searches,
}

impl Machine {
    /// Starts an answer; writes nothing yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            cut: setup
                .bounds
                .as_ref()
                .map(|bounds| Box::new(Cut::new(bounds))),
            setup,
            phase: Phase::Running,
            is_started: false,
            has_begun: false,
            blocks: Blocks::default(),
            drafts: Vec::new(),
            live: None,
            told: 0,
            usage: None,
            is_estimate: false,
            searches: Searches::default(),
        }
    }

    /// Forgets an attempt of which no content was written, so that the frames of the next one
    /// can be fed. `origin` is who makes the reasoning now. `message_start` is not written again.
    pub fn restart(&mut self, origin: Origin) {
        debug_assert!(!self.is_committed());
        let setup = Setup {
            origin,
            ..self.setup.clone()
        };
        *self = Self {
            is_started: self.is_started,
            ..Self::new(setup)
        };
    }

    /// Writes `message_start`, once. [`Machine::feed`] does it before the first content if nobody
    /// has done it.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        let mut pen = Pen {
            setup: &self.setup,
            is_started: &mut self.is_started,
            blocks: &mut self.blocks,
            cut: None,
            out,
        };
        pen.start();
    }

    /// Takes one upstream frame and appends what it means to `out` as whole SSE records.
    ///
    /// Frames that say nothing, or nothing that can be read, write nothing. After a failure or
    /// the end nothing is written any more.
    pub fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Step {
        match self.phase {
            Phase::Running => {}
            Phase::Failed => return Step::Continue,
            Phase::Ended => return Step::Finished,
        }
        match self.take(frame, out) {
            Ok(Step::Continue) if self.is_cut() => {
                self.end_cut(out);
                Step::Cut
            }
            Ok(step) => step,
            Err(failure) => {
                self.phase = Phase::Failed;
                Step::Failed(*failure)
            }
        }
    }

    /// Says whether anything of the answer's content was written: no retry after that.
    pub fn is_committed(&self) -> bool {
        self.blocks.has_any() || self.phase == Phase::Ended
    }

    /// Says whether upstream has begun to answer with content or an end, i.e. more than `created`.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Ends the answer with an `error` event. Open blocks stay open: the
    /// client must not take a cut answer for a whole one.
    pub fn fail(&mut self, kind: ErrorKind, message: &str, out: &mut Vec<u8>) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            records::error(kind, message, out);
        }
    }

    /// Ends an answer that came out empty ([`EMPTY_COMPLETION`]) as a turn that says nothing.
    /// Does nothing if content was written or the answer has ended.
    pub fn end_empty(&mut self, out: &mut Vec<u8>) {
        if !self.is_committed() {
            self.end(StopReason::EndTurn, out);
        }
    }

    /// Returns upstream's usage once the answer is complete; `None` if upstream did not say. Of an answer that was
    /// cut it is an estimate: see [`Machine::is_estimate`].
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Says whether [`Machine::usage`] is an estimate, because upstream was not heard to the end.
    pub fn is_estimate(&self) -> bool {
        self.is_estimate
    }

    fn is_cut(&self) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.is_over())
    }

    /// Ends an answer that was cut in the middle.
    fn end_cut(&mut self, out: &mut Vec<u8>) {
        if let Some(cut) = &self.cut {
            self.is_estimate = true;
            self.usage = Some(Usage {
                input_tokens: self.setup.input_tokens,
                output_tokens: cut.tokens(),
                ..Usage::default()
            });
        }
        self.end(self.stop_at_bounds(), out);
    }

    /// The reason for the end of an answer that was cut. A tool that was called is run whatever the reason, so that
    /// comes first.
    fn stop_at_bounds(&self) -> StopReason {
        let at_sequence = self
            .cut
            .as_ref()
            .is_some_and(|cut| cut.stopped_at().is_some());
        match (self.blocks.has_tool(), at_sequence) {
            (true, _) => StopReason::ToolUse,
            (false, true) => StopReason::StopSequence,
            (false, false) => StopReason::MaxTokens,
        }
    }

    fn take(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Outcome {
        let data = frame.data;
        match Kind::of(frame.event, data) {
            Kind::TextDelta => self.delta(Channel::Text, data, out),
            Kind::SummaryDelta => self.delta(Channel::Summary, data, out),
            Kind::ThoughtDelta => self.delta(Channel::Thought, data, out),
            Kind::ArgumentsDelta => self.delta(Channel::Arguments, data, out),
            Kind::InputDelta => self.delta(Channel::Input, data, out),
            Kind::TextDone => self.whole(Channel::Text, data, out),
            Kind::SummaryDone => self.whole(Channel::Summary, data, out),
            Kind::ThoughtDone => self.whole(Channel::Thought, data, out),
            Kind::ArgumentsDone => self.whole(Channel::Arguments, data, out),
            Kind::InputDone => self.whole(Channel::Input, data, out),
            Kind::Annotation => self.annotation(data, out),
            kind @ (Kind::ItemAdded | Kind::ItemDone) => {
                let Ok(event) = serde_json::from_str::<ItemEvent<'_>>(data) else {
                    return Ok(Step::Continue);
                };
                self.has_begun = true;
                let item = event.item.get();
                self.item(kind == Kind::ItemDone, event.output_index, item, out)
            }
            kind @ (Kind::Completed | Kind::Incomplete | Kind::Failed) => {
                let Some(terminal) = Terminal::parse(data) else {
                    return Ok(Step::Continue);
                };
                self.has_begun = true;
                self.terminal(kind, &terminal, out)
            }
            Kind::Error => {
                self.has_begun = true;
                Err(Box::new(responses::failure(data)))
            }
            Kind::Aside => Ok(Step::Continue),
        }
    }

    fn delta(&mut self, channel: Channel, data: &str, out: &mut Vec<u8>) -> Outcome {
        let Some(delta) = Delta::read(data) else {
            return Ok(Step::Continue);
        };
        self.has_begun = true;
        let at = self.place(channel.item(), delta.output_index, delta.item_id.as_deref())?;
        let draft = &mut self.drafts[at];
        if channel == Channel::Arguments {
            draft.blank_run = if draft::is_blank(&delta.delta) {
                draft.blank_run + delta.delta.len()
            } else {
                0
            };
            if draft.blank_run > BLANK_LIMIT {
                return Err(failure(STALLED_ARGUMENTS));
            }
        }
        self.tell(at, Told::Piece((channel, delta.part), delta.delta), out)
    }

    fn whole(&mut self, channel: Channel, data: &str, out: &mut Vec<u8>) -> Outcome {
        let Ok(whole) = serde_json::from_str::<Whole<'_>>(data) else {
            return Ok(Step::Continue);
        };
        let Some(text) = whole.text() else {
            return Ok(Step::Continue);
        };
        self.has_begun = true;
        let at = self.place(channel.item(), whole.output_index, whole.item_id.as_deref())?;
        self.tell(at, Told::Whole((channel, whole.part()), text), out)
    }

    fn item(
        &mut self,
        is_done: bool,
        index: Option<u64>,
        json: &str,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(item) = Item::parse(json) else {
            return Ok(Step::Continue);
        };
        let Some(kind) = item.kind() else {
            return Ok(Step::Continue);
        };
        if kind == ItemKind::Search && self.setup.search.is_none() {
            return Ok(Step::Continue);
        }
        let at = self.place(kind, index, item.id().as_deref())?;
        if self.drafts[at].is_done {
            return Ok(Step::Continue);
        }
        self.drafts[at].learn(&item);
        self.live.get_or_insert(at);
        if !is_done {
            self.go_on(out);
            return Ok(Step::Continue);
        }
        match kind {
            ItemKind::Search => return self.search(at, json, out),
            ItemKind::Message if self.setup.search.is_some() => {
                for page in searches::citations(json).into_iter().flatten() {
                    self.searches.cite(page);
                }
            }
            _ => {}
        }
        let message_id = &self.setup.message_id;
        self.drafts[at].assume_call_id(|| format!("call_{message_id}_{at}"));
        if !self.drafts[at].is_ready() {
            return Err(failure(NAMELESS_CALL));
        }
        let step = self.tell(at, Told::Done(json.into()), out)?;
        self.drafts[at].is_done = true;
        if kind == ItemKind::Message && self.searches.has_cited() {
            self.settle(out);
        }
        Ok(step)
    }

    /// Takes a citation, which may come long before the text that it stands in is whole.
    fn annotation(&mut self, data: &str, out: &mut Vec<u8>) -> Outcome {
        if self.setup.search.is_none() {
            return Ok(Step::Continue);
        }
        let Some(cited) = Cited::parse(data) else {
            return Ok(Step::Continue);
        };
        self.has_begun = true;
        self.searches.cite(cited.page.clone());
        let kind = ItemKind::Message;
        let at = self.place(kind, cited.output_index, cited.item_id.as_deref())?;
        self.tell(at, Told::Cite((Channel::Text, cited.part), cited.page), out)
    }

    /// Takes a search that is done.
    fn search(&mut self, at: usize, json: &str, out: &mut Vec<u8>) -> Outcome {
        let Some(rules) = self.setup.search.clone() else {
            return Ok(Step::Continue);
        };
        self.told += json.len();
        if self.told > ANSWER_LIMIT {
            return Err(failure(TOO_LONG));
        }
        let last = self.drafts[..at]
            .iter_mut()
            .rev()
            .filter_map(|draft| draft.found.as_deref_mut())
            .find(|found| !found.is_settled);
        let found = self.searches.take(Call::parse(json), &rules, last);
        let draft = &mut self.drafts[at];
        draft.is_done = true;
        draft.is_finished = found.is_none();
        draft.found = found.map(Box::new);
        self.go_on(out);
        Ok(Step::Continue)
    }

    /// Writes the results of the searches that are done, and what has waited for them.
    fn settle(&mut self, out: &mut Vec<u8>) {
        let Some(rules) = &self.setup.search else {
            return;
        };
        let waiting = self
            .drafts
            .iter_mut()
            .filter_map(|draft| draft.found.as_deref_mut())
            .filter(|found| !found.is_settled);
        self.searches.settle(waiting, &rules.domains);
        self.go_on(out);
    }

    /// Finds the draft that an event is about, or begins one.
    ///
    /// The place in the answer decides, the id where there is no place. An event about a finished
    /// item is a repetition, unless its id shows that it is about another one.
    fn place(
        &mut self,
        kind: ItemKind,
        index: Option<u64>,
        id: Option<&str>,
    ) -> Result<usize, Box<StreamFailure>> {
        let same_id = |draft: &Draft| id.is_some() && draft.id.as_deref() == id;
        let other_id = |draft: &Draft| id.is_some() && draft.id.is_some() && !same_id(draft);
        let same_place = |draft: &Draft| match (draft.index, index) {
            (Some(known), Some(told)) => known == told,
            _ => !other_id(draft),
        };
        if let Some(at) = self.live {
            let draft = &self.drafts[at];
            if draft.kind == kind && same_place(draft) {
                return Ok(at);
            }
        }
        let found = |test: &dyn Fn(&Draft) -> bool| {
            self.drafts
                .iter()
                .position(|draft| draft.kind == kind && test(draft))
        };
        let at = found(&|draft| !draft.is_done && same_place(draft))
            .or_else(|| found(&|draft| same_id(draft) && (index.is_none() || same_place(draft))))
            .or_else(|| found(&|draft| index.is_some() && same_place(draft) && !other_id(draft)));
        if let Some(at) = at {
            return Ok(at);
        }
        if self.drafts.len() == ITEM_LIMIT {
            return Err(failure(TOO_LONG));
        }
        self.drafts.push(Draft::new(kind, index, id));
        Ok(self.drafts.len() - 1)
    }

    /// Writes what was told of a draft if its turn has come, else keeps it.
    fn tell(&mut self, at: usize, told: Told<'_>, out: &mut Vec<u8>) -> Outcome {
        if self.drafts[at].is_done {
            return Ok(Step::Continue);
        }
        self.told += told.size();
        if self.told > ANSWER_LIMIT {
            return Err(failure(TOO_LONG));
        }
        let live = *self.live.get_or_insert(at);
        if live != at || !self.drafts[at].is_ready() {
            self.drafts[at].hold(told);
            return Ok(Step::Continue);
        }
        let (draft, mut pen) = self.draft(at, out);
        draft.release(&mut pen);
        draft.write(&told, &mut pen);
        if self.drafts[at].is_finished {
            self.go_on(out);
        }
        Ok(Step::Continue)
    }

    /// Gives the turn to the next draft as long as the one that has it is finished.
    fn go_on(&mut self, out: &mut Vec<u8>) {
        loop {
            if self.live.is_none_or(|at| self.drafts[at].is_finished) {
                self.live = self.next_draft();
            }
            let Some(at) = self.live else {
                return;
            };
            if self.drafts[at].is_ready() && self.drafts[at].has_held() {
                let (draft, mut pen) = self.draft(at, out);
                draft.release(&mut pen);
            }
            if self.drafts[at].found.is_some() {
                let (draft, mut pen) = self.draft(at, out);
                draft.search(&mut pen);
            }
            if !self.drafts[at].is_finished {
                return;
            }
        }
    }

    /// The unfinished draft that comes first in upstream's order.
    fn next_draft(&self) -> Option<usize> {
        (0..self.drafts.len())
            .filter(|at| !self.drafts[*at].is_finished)
            .min_by_key(|at| self.drafts[*at].index.unwrap_or(u64::MAX))
    }

    /// A draft and what to write it with.
    fn draft<'a>(&'a mut self, at: usize, out: &'a mut Vec<u8>) -> (&'a mut Draft, Pen<'a>) {
        let pen = Pen {
            setup: &self.setup,
            is_started: &mut self.is_started,
            blocks: &mut self.blocks,
            cut: self.cut.as_deref_mut(),
            out,
        };
        (&mut self.drafts[at], pen)
    }

    fn terminal(&mut self, kind: Kind, terminal: &Terminal<'_>, out: &mut Vec<u8>) -> Outcome {
        self.usage = terminal.usage();
        let status = terminal.status();
        let status = status.as_deref().unwrap_or_default();
        if let Some(failure) = terminal.error() {
            return Err(Box::new(failure));
        }
        if kind == Kind::Failed || matches!(status, "failed" | "cancelled") {
            return Err(Box::default());
        }
        let is_incomplete = kind == Kind::Incomplete || status == "incomplete";
        if is_incomplete {
            let reason = terminal.incomplete_reason();
            if reason.as_deref() != Some("max_output_tokens") {
                return Err(Box::new(StreamFailure {
                    incomplete: Some(reason.unwrap_or_else(|| UNSTATED.to_owned())),
                    ..StreamFailure::default()
                }));
            }
        }
        self.take_output(terminal, out)?;
        self.settle(out);
        while let Some(at) = self.live.or_else(|| self.next_draft()) {
            self.live = Some(at);
            if self.drafts[at].is_ready() {
                let (draft, mut pen) = self.draft(at, out);
                draft.release(&mut pen);
                match draft.is_finished {
                    true => {}
                    false if is_incomplete => draft.cut_off(&mut pen),
                    false => draft.finish(&mut pen),
                }
            } else if is_incomplete {
                // The answer was cut before the call's name came: there is nothing to show.
                self.drafts[at].is_finished = true;
            } else {
                return Err(failure(NAMELESS_CALL));
            }
            self.live = None;
        }
        if self.is_cut() {
            // Upstream was heard to its end all the same: its usage is exact.
            self.end(self.stop_at_bounds(), out);
        } else if is_incomplete {
            self.end(StopReason::MaxTokens, out);
        } else if !self.blocks.has_any() {
            return Err(failure(EMPTY_COMPLETION));
        } else if self.blocks.has_tool() {
            self.end(StopReason::ToolUse, out);
        } else {
            self.end(StopReason::EndTurn, out);
        }
        Ok(Step::Finished)
    }

    /// Takes from the final list of items what no event has told: all of it if there were no
    /// items, else the ends of those that had none.
    fn take_output(
        &mut self,
        terminal: &Terminal<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<StreamFailure>> {
        let had_none = self.drafts.is_empty();
        for (index, json) in (0..).zip(terminal.output()) {
            let is_wanted = had_none
                || Item::parse(json.get())
                    .and_then(|item| item.id())
                    .is_some_and(|id| {
                        self.drafts
                            .iter()
                            .any(|draft| !draft.is_done && draft.id.as_deref() == Some(&*id))
                    });
            if is_wanted {
                let index = had_none.then_some(index);
                self.item(true, index, json.get(), out)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, stop: StopReason, out: &mut Vec<u8>) {
        self.start(out);
        let cut = self.cut.as_ref();
        let sequence = match stop {
            StopReason::StopSequence => cut.and_then(|cut| cut.stopped_at()),
            StopReason::EndTurn | StopReason::ToolUse | StopReason::MaxTokens => None,
        };
        let safeguards = self.setup.answers_safeguards;
        let searches = self.setup.search.as_ref().map(|_| self.searches.answered);
        records::message_end(stop, sequence, safeguards, self.usage, searches, out);
        self.phase = Phase::Ended;
    }
}

/// What an event led to; a failure is rare and large, hence the box.
type Outcome = Result<Step, Box<StreamFailure>>;

fn failure(code: &str) -> Box<StreamFailure> {
    Box::new(StreamFailure {
        code: Some(code.to_owned()),
        ..StreamFailure::default()
    })
}

/// Appends a `ping` record, which may stand between any two records of an answer.
pub fn ping(out: &mut Vec<u8>) {
    records::ping(out);
}
