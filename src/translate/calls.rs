//! Tool calls and their results.
//!
//! Every call has exactly one output upstream, right where its result stood. A result that belongs
//! to no call stays visible as text; a call that was never answered is answered here.

use std::borrow::Cow;

use crate::catalogue::model::Lane;
use crate::translate::items::{Items, Open};
use crate::translate::loss::Loss;
use crate::translate::pairs::Answer;
use crate::translate::writer;
use crate::wire::blocks::{Block, Content, ToolResult, ToolUse};
use crate::wire::json::Text;

/// Output of a call whose result never came.
const INTERRUPTED: &str = "[The call was interrupted; there is no result]";

/// Output of a call that returned nothing.
const EMPTY: &str = "(no output)";

/// Stands before the output of a call that failed.
const FAILED: &str = "[error] ";

impl<'a> Items<'_, 'a> {
    pub(super) fn call(&mut self, call: &ToolUse<'a>) {
        let Some(paired) = self.next_call() else {
            return;
        };
        self.item();
        writer::json(self.out, r#"{"type":"function_call","call_id":"#);
        writer::string(self.out, &paired.id);
        writer::json(self.out, r#","name":"#);
        let name = self.upstream_name(call.name);
        writer::string(self.out, &name);
        writer::json(self.out, r#","arguments":"#);
        match call.input {
            None => writer::json(self.out, r#""{}""#),
            Some(input) => match input.as_text() {
                // What the model wrote was no JSON, and the client kept it as text.
                Some(text) if text.is_empty() => writer::json(self.out, r#""{}""#),
                Some(text) => writer::text(self.out, text),
                None => writer::raw_as_string(self.out, input),
            },
        }
        self.out.push(b'}');
        if !paired.is_answered {
            self.unanswered.push(self.call_ids.len());
        }
        self.call_ids.push(paired.id);
    }

    /// Writes outputs for the calls of the message at hand that nobody answered.
    pub(super) fn answer_the_unanswered(&mut self) {
        for at in std::mem::take(&mut self.unanswered) {
            self.lose(Loss::approximated("missing_tool_result"));
            self.begin_output(at);
            writer::string(self.out, INTERRUPTED);
            self.out.push(b'}');
        }
    }

    pub(super) fn result(&mut self, result: &ToolResult<'a>) {
        match self.next_answer() {
            Some(Answer::To(at)) => {
                self.begin_output(at);
                self.output(result);
                self.out.push(b'}');
                self.show_loaded();
            }
            Some(Answer::Again) => self.lose(Loss::dropped("repeated_tool_result")),
            Some(Answer::Orphan) | None => {
                self.lose(Loss::approximated("orphan_tool_result"));
                self.note("[Result of a tool call that is not part of this conversation]");
                if let Some(content) = &result.content {
                    self.parts(content);
                }
            }
        }
    }

    /// Returns upstream's name of a tool.
    pub(super) fn upstream_name(&mut self, name: Text<'a>) -> Cow<'a, str> {
        self.found.names.rename(name.value(), |_| false)
    }

    fn begin_output(&mut self, at: usize) {
        self.drop_waiting();
        self.item();
        writer::json(self.out, r#"{"type":"function_call_output","call_id":"#);
        writer::string(self.out, &self.call_ids[at]);
        writer::json(self.out, r#","output":"#);
    }

    /// Writes the value of `output`: a string where one says everything, else a list of parts.
    fn output(&mut self, result: &ToolResult<'a>) {
        let failed = if result.is_error { FAILED } else { "" };
        let text = match &result.content {
            None => Some(Text::default()),
            Some(Content::Text(text)) => Some(*text),
            Some(Content::Blocks(blocks)) => only_text(blocks),
        };
        let Some(text) = text else {
            return self.output_list(result);
        };
        self.out.push(b'"');
        writer::characters(self.out, failed);
        if text.is_empty() {
            writer::characters(self.out, EMPTY);
        } else {
            writer::inner(self.out, text);
        }
        self.out.push(b'"');
    }

    fn output_list(&mut self, result: &ToolResult<'a>) {
        self.out.push(b'[');
        self.open = Open::Output { is_empty: true };
        if result.is_error {
            self.note(FAILED.trim_end());
        }
        if let Some(content) = &result.content {
            self.parts(content);
        }
        // All of it may have been something that leaves no part.
        if matches!(self.open, Open::Output { is_empty: true }) {
            self.note(EMPTY);
        }
        self.open = Open::Nothing;
        self.out.push(b']');
    }

    /// Shows the tools that were referred to. On the lite lane here, behind what loaded them; on the full lane they
    /// are put at the end of `tools`, in the order of loading.
    pub(super) fn show_loaded(&mut self) {
        let tools = self.place.tools;
        let mut definitions = Vec::new();
        for at in std::mem::take(&mut self.loading) {
            if self.found.loaded.contains(&at) {
                continue;
            }
            self.found.loaded.push(at);
            if !definitions.is_empty() {
                definitions.push(b',');
            }
            definitions.extend_from_slice(&tools.deferred[at].definition);
        }
        if self.place.lane == Lane::Lite && !definitions.is_empty() {
            self.additional_tools(&definitions);
        }
    }
}

/// Returns the one text that says everything (empty if there is nothing); `None` if there is more.
fn only_text<'a>(blocks: &[Block<'a>]) -> Option<Text<'a>> {
    let mut only = Text::default();
    for block in blocks {
        match block {
            Block::Text(text) if text.is_empty() => {}
            Block::Text(text) if only.is_empty() => only = *text,
            _ => return None,
        }
    }
    Some(only)
}
