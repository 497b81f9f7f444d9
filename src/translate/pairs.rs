//! Which tool result answers which call.
//!
//! Upstream refuses a request in which a call lacks its output or an output its call (contract
//! chatgpt-codex §5.2). Histories that were cut, resumed or merged have both, so pairs are made
//! before anything is written.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::translate::ids::call_id;
use crate::wire::blocks::{Block, Content};
use crate::wire::messages::Message;

/// The calls and results of a conversation, in the order in which they stand there.
#[derive(Debug)]
pub(super) struct Pairs<'a> {
    pub(super) calls: Vec<Call<'a>>,
    pub(super) results: Vec<Answer>,
}

/// One tool call.
#[derive(Debug, PartialEq)]
pub(super) struct Call<'a> {
    /// Its id upstream.
    pub(super) id: Cow<'a, str>,
    /// Whether a result for it follows.
    pub(super) is_answered: bool,
}

/// What a tool result belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To the call at this place in [`Pairs::calls`].
    To(usize),
    /// To a call that was answered already.
    Again,
    /// To no call before it.
    Orphan,
}

/// The calls that share one id.
#[derive(Default)]
struct Shared {
    calls: Vec<usize>,
    answered: usize,
}

impl<'a> Pairs<'a> {
    pub(super) fn of(messages: &[Message<'a>]) -> Self {
        let mut pairs = Self {
            calls: Vec::new(),
            results: Vec::new(),
        };
        let mut by_id: HashMap<Cow<'a, str>, Shared> = HashMap::new();
        for message in messages {
            let Content::Blocks(blocks) = &message.content else {
                continue;
            };
            for block in blocks {
                match block {
                    Block::ToolUse(call) => {
                        let shared = by_id.entry(call.id.value()).or_default();
                        let id = call_id(call.id.value(), shared.calls.len());
                        shared.calls.push(pairs.calls.len());
                        pairs.calls.push(Call {
                            id,
                            is_answered: false,
                        });
                    }
                    Block::ToolResult(result) => {
                        let answer = match by_id.get_mut(&result.id.value()) {
                            None => Answer::Orphan,
                            Some(shared) => match shared.calls.get(shared.answered) {
                                None => Answer::Again,
                                Some(&call) => {
                                    shared.answered += 1;
                                    pairs.calls[call].is_answered = true;
                                    Answer::To(call)
                                }
                            },
                        };
                        pairs.results.push(answer);
                    }
                    _ => {}
                }
            }
        }
        pairs
    }
}
