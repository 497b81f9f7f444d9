//! The conversation becomes upstream's list of input items.
//!
//! One message after the other, nothing looked up in later ones except whether a call is answered:
//! what was written for a conversation is the beginning of what is written for its next turn, byte
//! by byte, and upstream's prompt cache depends on that. For the same reason a message means the
//! same as a string or as blocks, and cache marks mean nothing.
//!
//! Parts of content are written in [`super::content`], calls and results in [`super::calls`].

use std::collections::HashSet;

use crate::catalogue::model::Lane;
use crate::translate::loss::{self, Loss};
use crate::translate::names::ToolNames;
use crate::translate::pairs::{Answer, Call, Pairs};
use crate::translate::papers::Papers;
use crate::translate::reasoning::{Origin, Seal};
use crate::translate::tools::ToolList;
use crate::translate::writer;
use crate::wire::blocks::{Block, Content};
use crate::wire::json::Text;
use crate::wire::messages::{Message, Role};

/// The client's label of the request. It changes from request to request, and
/// what follows it could never be taken from the prompt cache.
pub(super) const LABEL: &str = "x-anthropic-billing-header:";

/// Stands in for a system prompt: upstream wants developer instructions (contract chatgpt-codex §3).
const NO_SYSTEM: &str = "You are a helpful assistant.";

/// What the items depend on beside the conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'t> {
    pub(super) lane: Lane,
    pub(super) origin: &'t Origin,
    /// Whether the model takes images.
    pub(super) images: bool,
    pub(super) tools: &'t ToolList,
    /// What is known of the PDFs (lite lane).
    pub(super) papers: &'t Papers<'t>,
}

/// What was found out while the items were written.
#[derive(Debug)]
pub(super) struct Found {
    /// Places in [`ToolList::deferred`] of the tools that the conversation loaded, in that order.
    pub(super) loaded: Vec<usize>,
    pub(super) names: ToolNames,
    pub(super) losses: Vec<Loss>,
}

/// The item that parts are being written into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    Nothing,
    /// A message, which has parts already.
    Message,
    /// The output of a call as a list of parts; empty as yet.
    Output {
        is_empty: bool,
    },
}

/// Writes input items. The array's brackets are the caller's.
#[derive(Debug)]
pub(super) struct Items<'t, 'a> {
    pub(super) out: &'t mut Vec<u8>,
    pub(super) place: Place<'t>,
    pub(super) role: Role,
    pub(super) open: Open,
    pub(super) found: Found,
    first: bool,
    calls: std::vec::IntoIter<Call<'a>>,
    /// Ids of the calls met so far, for their results.
    pub(super) call_ids: Vec<std::borrow::Cow<'a, str>>,
    /// Calls of the message at hand that have no result.
    pub(super) unanswered: Vec<usize>,
    answers: std::vec::IntoIter<Answer>,
    /// Signatures of reasoning that waits for the item it led to.
    waiting: Vec<Text<'a>>,
    replayed: HashSet<&'a str>,
    /// Bytes of base64 met so far, and how many of them from the beginning on are left out.
    pub(super) media_bytes: usize,
    pub(super) left_out: usize,
    /// Places in [`ToolList::deferred`] of tools that were referred to and are to be shown.
    pub(super) loading: Vec<usize>,
    /// Where in the request the writing is.
    place_now: loss::Place,
}

impl<'t, 'a> Items<'t, 'a> {
    /// Gets ready for `messages`. The first `left_out` bytes of their pictures and files are too many.
    pub(super) fn new(
        out: &'t mut Vec<u8>,
        place: Place<'t>,
        messages: &[Message<'a>],
        left_out: usize,
    ) -> Self {
        let pairs = Pairs::of(messages);
        Self {
            out,
            place,
            role: Role::System,
            open: Open::Nothing,
            found: Found {
                loaded: Vec::new(),
                names: place.tools.names.clone(),
                losses: Vec::new(),
            },
            first: true,
            call_ids: Vec::with_capacity(pairs.calls.len()),
            calls: pairs.calls.into_iter(),
            unanswered: Vec::new(),
            answers: pairs.results.into_iter(),
            waiting: Vec::new(),
            replayed: HashSet::new(),
            media_bytes: 0,
            left_out,
            loading: Vec::new(),
            place_now: loss::Place::System,
        }
    }

    /// Writes everything and says what was found out.
    pub(super) fn write(mut self, system: Option<&Content<'a>>, messages: &[Message<'a>]) -> Found {
        if self.place.lane == Lane::Lite && !self.place.tools.shown.is_empty() {
            self.additional_tools(&self.place.tools.shown);
        }
        self.base_system(system);
        for (at, message) in messages.iter().enumerate() {
            self.message(at, message);
        }
        self.drop_waiting();
        self.found
    }

    fn base_system(&mut self, system: Option<&Content<'a>>) {
        self.role = Role::System;
        match system {
            None => {}
            Some(Content::Text(text)) => self.system_text(*text),
            Some(Content::Blocks(blocks)) => {
                for block in blocks {
                    match block {
                        Block::Text(text) => self.system_text(*text),
                        // Calls and results were counted in the messages only.
                        block => self.part(block),
                    }
                }
            }
        }
        if let Some(search) = &self.place.tools.search {
            self.note(&search.instruction());
        }
        // Decided here and not at the end: a system message later on must not change the beginning.
        if self.open == Open::Nothing {
            self.note(NO_SYSTEM);
        }
        self.close();
    }

    fn system_text(&mut self, text: Text<'a>) {
        if !text.escaped().starts_with(LABEL) {
            self.text(text);
        }
    }

    fn message(&mut self, at: usize, message: &Message<'a>) {
        if message.role != Role::Assistant {
            self.drop_waiting();
        }
        self.role = message.role;
        match &message.content {
            Content::Text(text) => self.text(*text),
            Content::Blocks(blocks) => {
                for (block_at, block) in blocks.iter().enumerate() {
                    self.place_now = loss::Place::Message {
                        at,
                        block: Some(block_at),
                    };
                    self.block(block);
                }
            }
        }
        self.place_now = loss::Place::Message { at, block: None };
        self.close();
        self.answer_the_unanswered();
        // Referred to outside of a result: that of a call which was cut away, for instance.
        self.show_loaded();
    }

    fn block(&mut self, block: &Block<'a>) {
        match block {
            Block::ToolUse(call) => self.call(call),
            Block::ToolResult(result) => self.result(result),
            Block::Thinking { signature, .. } => self.thinking(*signature),
            Block::RedactedThinking(data) => self.thinking(*data),
            _ => self.part(block),
        }
    }

    /// Starts an item.
    pub(super) fn item(&mut self) {
        self.close();
        self.replay_waiting();
        writer::comma(self.out, &mut self.first);
    }

    /// Ends the message at hand, if one is open.
    pub(super) fn close(&mut self) {
        if self.open == Open::Message {
            writer::json(self.out, "]}");
            self.open = Open::Nothing;
        }
    }

    pub(super) fn next_call(&mut self) -> Option<Call<'a>> {
        self.calls.next()
    }

    pub(super) fn next_answer(&mut self) -> Option<Answer> {
        self.answers.next()
    }

    pub(super) fn lose(&mut self, loss: Loss) {
        self.found.losses.push(loss.at(self.place_now));
    }

    /// Writes an item that shows the model more tools (lite lane).
    pub(super) fn additional_tools(&mut self, definitions: &[u8]) {
        // Reasoning that waits does not lead to tools: it waits on.
        self.close();
        writer::comma(self.out, &mut self.first);
        writer::json(
            self.out,
            r#"{"type":"additional_tools","role":"developer","tools":["#,
        );
        self.out.extend_from_slice(definitions);
        writer::json(self.out, "]}");
    }

    /// Takes a thinking block. Its text is not sent: upstream reads the encrypted reasoning, and
    /// nobody else's thinking may pass for it.
    fn thinking(&mut self, signature: Text<'a>) {
        let is_ours = Seal::open(&signature.value())
            .is_some_and(|seal| self.place.origin.made(&seal) && self.role == Role::Assistant);
        if !is_ours {
            self.lose(Loss::dropped("thinking"));
        } else if self.replayed.insert(signature.escaped()) {
            self.close();
            self.waiting.push(signature);
        }
    }

    /// Writes the reasoning that led to the item about to be written.
    fn replay_waiting(&mut self) {
        for signature in std::mem::take(&mut self.waiting) {
            let signature = signature.value();
            let Some(seal) = Seal::open(&signature) else {
                continue;
            };
            writer::comma(self.out, &mut self.first);
            writer::json(self.out, r#"{"type":"reasoning","#);
            if is_reasoning_id(seal.id) {
                writer::json(self.out, r#""id":"#);
                writer::string(self.out, seal.id);
                self.out.push(b',');
            }
            writer::json(
                self.out,
                r#""summary":[],"content":null,"encrypted_content":"#,
            );
            writer::string(self.out, seal.encrypted);
            self.out.push(b'}');
        }
    }

    /// Reasoning that led to nothing is refused upstream.
    pub(super) fn drop_waiting(&mut self) {
        for signature in std::mem::take(&mut self.waiting) {
            self.replayed.remove(signature.escaped());
            self.lose(Loss::dropped("reasoning_alone"));
        }
    }
}

/// Says whether upstream takes `id` on a reasoning item (contract chatgpt-codex §5.2).
fn is_reasoning_id(id: &str) -> bool {
    id.starts_with("rs_") && id.len() <= 64
}
