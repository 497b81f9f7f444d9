//! The records of a Messages stream, written as bytes.
//!
//! Keeps the grammar of content blocks: one open at a time, indices without gaps, each closed.
//! Does not know where the content comes from. Texts are taken still escaped, as they came from
//! upstream, and go between the quotes as they are.

use crate::sse;
use crate::wire::envelope::{self, ErrorKind};
use crate::wire::responses::Usage;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    EndTurn,
    ToolUse,
    MaxTokens,
    StopSequence,
}

impl StopReason {
    const fn wire_name(self) -> &'static str {
        match self {
            Self::EndTurn => "end_turn",
            Self::ToolUse => "tool_use",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
        }
    }
}

/// A content block as it begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Block<'a> {
    Text,
    Thinking,
    Tool {
        id: &'a str,
        name: &'a str,
    },
    /// A search that upstream ran.
    Search {
        id: &'a str,
        name: &'a str,
    },
}

/// The content blocks of one answer.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    begun: u64,
    is_open: bool,
    has_tool: bool,
    /// Whether the answer was cut: nothing is written any more.
    is_shut: bool,
    /// The open block's delta record up to the text.
    before_delta: Vec<u8>,
}

const AFTER_DELTA: &[u8] = b"\"}}\n\n";

impl Blocks {
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Says whether any block was begun.
    pub(super) fn has_any(&self) -> bool {
        self.begun > 0
    }

    /// Says whether a tool block was begun.
    pub(super) fn has_tool(&self) -> bool {
        self.has_tool
    }

    /// Ends the open block and writes nothing of any other.
    pub(super) fn shut(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        self.is_shut = true;
    }

    /// Begins a block; ends the open one first.
    pub(super) fn open(&mut self, block: Block<'_>, out: &mut Vec<u8>) {
        if self.is_shut {
            return;
        }
        self.close(out);
        let index = self.begun;
        self.begun += 1;
        self.is_open = true;
        let (content, delta) = match block {
            Block::Text => (
                r#"{"type":"text","text":""}"#.to_owned(),
                r#""text_delta","text":""#,
            ),
            Block::Thinking => (
                r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned(),
                r#""thinking_delta","thinking":""#,
            ),
            Block::Tool { id, name } => {
                self.has_tool = true;
                (
                    format!(
                        r#"{{"type":"tool_use","id":{},"name":{},"input":{{}}}}"#,
                        quoted(id),
                        quoted(name)
                    ),
                    r#""input_json_delta","partial_json":""#,
                )
            }
            Block::Search { id, name } => (
                format!(
                    r#"{{"type":"server_tool_use","id":{},"name":{},"input":{{}}}}"#,
                    quoted(id),
                    quoted(name)
                ),
                r#""input_json_delta","partial_json":""#,
            ),
        };
        sse::encode(
            "content_block_start",
            format!(
                r#"{{"type":"content_block_start","index":{index},"content_block":{content}}}"#
            )
            .as_bytes(),
            out,
        );
        self.before_delta.clear();
        self.before_delta.extend_from_slice(
            format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":{delta}").as_bytes(),
        );
    }

    /// Writes a piece of the open block's text.
    pub(super) fn delta(&self, literal: &str, out: &mut Vec<u8>) {
        if self.is_shut {
            return;
        }
        debug_assert!(self.is_open);
        out.reserve(self.before_delta.len() + literal.len() + AFTER_DELTA.len());
        out.extend_from_slice(&self.before_delta);
        out.extend_from_slice(literal.as_bytes());
        out.extend_from_slice(AFTER_DELTA);
    }

    /// Writes the open thinking block's signature.
    pub(super) fn signature(&self, signature: &str, out: &mut Vec<u8>) {
        if self.is_shut {
            return;
        }
        debug_assert!(self.is_open);
        let data = format!(
            r#"{{"type":"content_block_delta","index":{},"delta":{{"type":"signature_delta","signature":{}}}}}"#,
            self.begun - 1,
            quoted(signature)
        );
        sse::encode("content_block_delta", data.as_bytes(), out);
    }

    /// Writes a citation in the open text block.
    pub(super) fn citation(&self, citation: &str, out: &mut Vec<u8>) {
        if self.is_shut {
            return;
        }
        debug_assert!(self.is_open);
        let data = format!(
            r#"{{"type":"content_block_delta","index":{},"delta":{{"type":"citations_delta","citation":{citation}}}}}"#,
            self.begun - 1
        );
        sse::encode("content_block_delta", data.as_bytes(), out);
    }

    /// Writes a block that comes as a whole; ends the open one first.
    pub(super) fn whole(&mut self, content: &str, out: &mut Vec<u8>) {
        if self.is_shut {
            return;
        }
        self.close(out);
        let index = self.begun;
        self.begun += 1;
        self.is_open = true;
        let data = format!(
            r#"{{"type":"content_block_start","index":{index},"content_block":{content}}}"#
        );
        sse::encode("content_block_start", data.as_bytes(), out);
        self.close(out);
    }

    /// Ends the open block, if one is open.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_open) {
            let data = format!(
                r#"{{"type":"content_block_stop","index":{}}}"#,
                self.begun - 1
            );
            sse::encode("content_block_stop", data.as_bytes(), out);
        }
    }
}

/// Writes `message_start`.
pub(super) fn message_start(id: &str, model: &str, input_tokens: u64, out: &mut Vec<u8>) {
    let data = format!(
        r#"{{"type":"message_start","message":{{"id":{},"type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{input_tokens},"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}}}}"#,
        quoted(id),
        quoted(model)
    );
    sse::encode("message_start", data.as_bytes(), out);
}

/// Says that there is no verdict on tool calls. Said outright, the client makes its own check and asks no more; where it
/// is left to guess, it also warns the person (contract claude-code §2.1).
const UNSUPPORTED: &str =
    r#","safeguard_results":[{"type":"dangerous_tool_use","status":{"type":"unsupported"}}]"#;

/// Writes `message_delta` and `message_stop`. `sequence` is the stop sequence at which the answer ended.
///
/// In Anthropic's terms the input does not include what was read from the cache. Without usage
/// from upstream the estimate of `message_start` stands: the client keeps what is not told again.
///
/// `searches` is how often upstream searched, where it was asked to.
pub(super) fn message_end(
    stop: StopReason,
    sequence: Option<&str>,
    has_safeguards: bool,
    usage: Option<Usage>,
    searches: Option<u64>,
    out: &mut Vec<u8>,
) {
    let searches = searches.map_or_else(String::new, |searches| {
        format!(r#","server_tool_use":{{"web_search_requests":{searches}}}"#)
    });
    let usage = match usage {
        Some(usage) => format!(
            r#"{{"input_tokens":{},"cache_creation_input_tokens":0,"cache_read_input_tokens":{},"output_tokens":{}{searches}}}"#,
            usage.input_tokens.saturating_sub(usage.cached_tokens),
            usage.cached_tokens,
            usage.output_tokens
        ),
        None => format!(r#"{{"output_tokens":0{searches}}}"#),
    };
    let data = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{}","stop_sequence":{}{}}},"usage":{usage}}}"#,
        stop.wire_name(),
        sequence.map_or_else(|| "null".to_owned(), quoted),
        if has_safeguards { UNSUPPORTED } else { "" }
    );
    sse::encode("message_delta", data.as_bytes(), out);
    sse::encode("message_stop", br#"{"type":"message_stop"}"#, out);
}

/// Writes an `error` record.
pub(super) fn error(kind: ErrorKind, message: &str, out: &mut Vec<u8>) {
    sse::encode("error", &envelope::error_body(kind, message, ""), out);
}

/// Writes a `ping` record.
pub(super) fn ping(out: &mut Vec<u8>) {
    sse::encode("ping", br#"{"type":"ping"}"#, out);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
