//! The non-streaming answer, folded from the same events as the streaming one.
//!
//! Reads the records that [`Machine`] writes, so that both forms say the same by construction.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sse::{Decoder, Frame, RecordTooLong};
use crate::translate::reasoning::Origin;
use crate::translate::stream::{Machine, Setup, Step, TOO_LONG};
use crate::wire::responses::{StreamFailure, Usage, literal};

/// Collects one answer.
#[derive(Debug)]
pub struct Fold {
    machine: Machine,
    decoder: Decoder,
    records: Vec<u8>,
    message_id: String,
    model: String,
    blocks: Vec<Collected>,
    stop_reason: String,
    /// As JSON.
    stop_sequence: String,
    /// The usage of `message_delta`, as JSON.
    usage: String,
}

/// A content block. Texts are still escaped.
#[derive(Debug)]
enum Collected {
    Text {
        text: String,
        /// As JSON.
        citations: Vec<String>,
    },
    Thinking {
        text: String,
        signature: String,
    },
    Tool {
        /// The block as it began, as JSON without its input.
        head: String,
        input: String,
    },
    /// A block that came as a whole, as JSON.
    Whole(String),
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<Piece<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Started<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    signature: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow)]
    citation: Option<&'a RawValue>,
    stop_reason: Option<&'a str>,
    #[serde(borrow)]
    stop_sequence: Option<&'a RawValue>,
}

impl Fold {
    /// Starts an answer.
    pub fn new(setup: Setup) -> Self {
        Self {
            message_id: setup.message_id.clone(),
            model: setup.model.clone(),
            machine: Machine::new(setup),
            decoder: Decoder::default(),
            records: Vec::new(),
            blocks: Vec::new(),
            stop_reason: String::new(),
            stop_sequence: "null".to_owned(),
            usage: "null".to_owned(),
        }
    }

    /// Forgets an attempt that came to nothing: as [`Machine::restart`].
    pub fn restart(&mut self, origin: Origin) {
        self.machine.restart(origin);
    }

    /// Takes one upstream frame.
    pub fn feed(&mut self, frame: Frame<'_>) -> Step {
        let step = self.machine.feed(frame, &mut self.records);
        match self.collect() {
            Ok(()) => step,
            // Pieces that were held come as one record, which can outgrow the decoder.
            Err(RecordTooLong) => Step::Failed(StreamFailure {
                code: Some(TOO_LONG.to_owned()),
                ..StreamFailure::default()
            }),
        }
    }

    /// Ends an answer that came out empty: as [`Machine::end_empty`].
    pub fn end_empty(&mut self) {
        self.machine.end_empty(&mut self.records);
        // The records of an empty end are short.
        let _ = self.collect();
    }

    /// Says whether anything of the answer's content came: as [`Machine::is_committed`].
    ///
    /// The client has seen nothing of it yet, so a caller may ask again with a new fold.
    pub fn is_committed(&self) -> bool {
        self.machine.is_committed()
    }

    /// Says whether upstream has begun to answer: as [`Machine::has_begun`].
    pub fn has_begun(&self) -> bool {
        self.machine.has_begun()
    }

    /// Returns the Message as JSON. Whole only after [`Step::Finished`], [`Step::Cut`] or [`Fold::end_empty`].
    pub fn into_body(self) -> Vec<u8> {
        let content: Vec<String> = self.blocks.into_iter().map(Collected::into_json).collect();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            r#"{{"id":{},"type":"message","role":"assistant","model":{},"content":[{}],"stop_reason":{},"stop_sequence":{},"usage":{}}}"#,
            quoted(&self.message_id),
            quoted(&self.model),
            content.join(","),
            quoted(&self.stop_reason),
            self.stop_sequence,
            self.usage
        )
        .into_bytes()
    }

    /// Returns upstream's usage once the answer is complete: as [`Machine::usage`].
    pub fn usage(&self) -> Option<Usage> {
        self.machine.usage()
    }

    /// Says whether [`Fold::usage`] is an estimate.
    pub fn is_estimate(&self) -> bool {
        self.machine.is_estimate()
    }

    fn collect(&mut self) -> Result<(), RecordTooLong> {
        let fed = self.decoder.feed(&self.records);
        self.records.clear();
        fed?;
        while let Some(frame) = self.decoder.next_frame() {
            let Ok(record) = serde_json::from_str::<Record<'_>>(frame.data) else {
                continue;
            };
            if let Some(block) = record.content_block.and_then(Collected::new) {
                self.blocks.push(block);
            }
            if let Some(usage) = record.usage {
                self.usage = usage.get().to_owned();
            }
            if let Some(piece) = record.delta {
                if let Some(reason) = piece.stop_reason {
                    self.stop_reason = reason.to_owned();
                    let sequence = piece.stop_sequence.map_or("null", RawValue::get);
                    self.stop_sequence = sequence.to_owned();
                } else if let Some(block) = self.blocks.last_mut() {
                    block.add(&piece);
                }
            }
        }
        Ok(())
    }
}

impl Collected {
    /// Takes a block as it begins.
    fn new(block: &RawValue) -> Option<Self> {
        let started: Started<'_> = serde_json::from_str(block.get()).ok()?;
        Some(match started.kind {
            "thinking" => Self::Thinking {
                text: String::new(),
                signature: String::new(),
            },
            kind @ ("tool_use" | "server_tool_use") => Self::Tool {
                head: format!(
                    r#""type":"{kind}","id":{},"name":{}"#,
                    started.id.map_or("null", RawValue::get),
                    started.name.map_or("null", RawValue::get)
                ),
                input: String::new(),
            },
            "web_search_tool_result" => Self::Whole(block.get().to_owned()),
            _ => Self::Text {
                text: String::new(),
                citations: Vec::new(),
            },
        })
    }

    fn add(&mut self, piece: &Piece<'_>) {
        let push = |target: &mut String, value: Option<&RawValue>| {
            if let Some(text) = value.and_then(literal) {
                target.push_str(&text);
            }
        };
        match self {
            Self::Text { text, citations } => {
                push(text, piece.text);
                citations.extend(piece.citation.map(|citation| citation.get().to_owned()));
            }
            Self::Thinking { text, signature } => {
                push(text, piece.thinking);
                push(signature, piece.signature);
            }
            Self::Tool { input, .. } => push(input, piece.partial_json),
            Self::Whole(_) => {}
        }
    }

    fn into_json(self) -> String {
        match self {
            Self::Text { text, citations } if citations.is_empty() => {
                format!(r#"{{"type":"text","text":"{text}"}}"#)
            }
            Self::Text { text, citations } => format!(
                r#"{{"type":"text","text":"{text}","citations":[{}]}}"#,
                citations.join(",")
            ),
            Self::Whole(json) => json,
            Self::Thinking { text, signature } => {
                format!(r#"{{"type":"thinking","thinking":"{text}","signature":"{signature}"}}"#)
            }
            Self::Tool { head, input } => {
                // Input that is no JSON is shown as the text it is: the client then tells the
                // model, as it does in a stream.
                let string = format!("\"{input}\"");
                let decoded = serde_json::from_str::<String>(&string).ok();
                let json = decoded.as_deref().and_then(|text| {
                    serde_json::from_str::<&RawValue>(text)
                        .ok()
                        .map(RawValue::get)
                });
                format!(r#"{{{head},"input":{}}}"#, json.unwrap_or(&string))
            }
        }
    }
}
