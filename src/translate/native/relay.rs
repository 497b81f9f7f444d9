//! An answer that is passed on as upstream says it: its events as they come, or one response folded from its items.
//!
//! One thing is added: the last event's list of items, which upstream leaves empty and clients of the public API read.
//! Events before the first content are held, so that an attempt that fails there leaves no trace.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::sse::{self, Frame};
use crate::translate::stream::{ANSWER_LIMIT, ITEM_LIMIT, Step, TOO_LONG};
use crate::wire::responses::{self, ItemEvent, Kind, StreamFailure, Terminal, Usage};

/// An answer that is streamed.
#[derive(Debug, Default)]
pub struct Relay {
    /// Events before the first content.
    held: Vec<u8>,
    has_begun: bool,
    is_ended: bool,
    /// The event that upstream failed with, behind content: nobody can say it better.
    failed: Vec<u8>,
    items: Items,
    usage: Option<Usage>,
}

/// The items of an answer, by their places.
#[derive(Debug, Default)]
struct Items {
    kept: BTreeMap<u64, Box<RawValue>>,
    bytes: usize,
}

impl Items {
    /// Keeps the item of an event; says whether there is room.
    fn keep(&mut self, data: &str) -> bool {
        let Ok(event) = serde_json::from_str::<ItemEvent<'_>>(data) else {
            return true;
        };
        self.bytes += event.item.get().len();
        if self.bytes > ANSWER_LIMIT || self.kept.len() >= ITEM_LIMIT {
            return false;
        }
        let next = self.kept.keys().last().map_or(0, |last| last + 1);
        let at = event.output_index.unwrap_or(next);
        self.kept.insert(at, event.item.to_owned());
        true
    }

    /// Puts the items into a response that tells none.
    fn tell(&self, response: &mut Map<String, Value>) {
        let is_told = |output: &Value| output.as_array().is_some_and(|items| !items.is_empty());
        if !response.get("output").is_some_and(is_told) {
            let items = self.kept.values();
            let items: Vec<Value> = items
                .filter_map(|item| serde_json::from_str(item.get()).ok())
                .collect();
            response.insert("output".to_owned(), items.into());
        }
    }
}

impl Relay {
    /// Says whether content or an end has come.
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns upstream's usage once the answer is complete.
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Takes one upstream frame and appends it to `out`.
    pub fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Step {
        if self.is_ended {
            return Step::Finished;
        }
        let kind = Kind::of(frame.event, frame.data);
        let failure = match kind {
            Kind::Failed => Some(
                Terminal::parse(frame.data)
                    .and_then(|terminal| terminal.error())
                    .unwrap_or_default(),
            ),
            Kind::Error => Some(responses::failure(frame.data)),
            _ => None,
        };
        if let Some(failure) = failure {
            write(frame, &mut self.failed);
            return Step::Failed(failure);
        }
        if kind == Kind::Aside && !self.has_begun {
            write(frame, &mut self.held);
            return match self.held.len() > ANSWER_LIMIT {
                true => too_long(),
                false => Step::Continue,
            };
        }
        self.has_begun = true;
        out.append(&mut self.held);
        if kind == Kind::ItemDone && !self.items.keep(frame.data) {
            return too_long();
        }
        if matches!(kind, Kind::Completed | Kind::Incomplete) {
            self.is_ended = true;
            let event = serde_json::from_str::<Map<String, Value>>(frame.data).ok();
            let told = event.and_then(|mut event| {
                self.items.tell(event.get_mut("response")?.as_object_mut()?);
                Some(Value::Object(event).to_string())
            });
            let data = told.as_deref().unwrap_or(frame.data);
            write(Frame { data, ..frame }, out);
            self.usage = Terminal::parse(frame.data).and_then(|terminal| terminal.usage());
            return Step::Finished;
        }
        write(frame, out);
        Step::Continue
    }

    /// Ends the stream with a failure: upstream's own event where it said one.
    pub fn fail(&mut self, code: &str, message: &str, out: &mut Vec<u8>) {
        if self.is_ended {
            return;
        }
        self.is_ended = true;
        out.append(&mut self.held);
        if !self.failed.is_empty() {
            out.append(&mut self.failed);
            return;
        }
        let event = json!({
            "type": "response.failed",
            "response": {
                "object": "response",
                "status": "failed",
                "error": {"code": code, "message": message},
                "output": [],
            },
        });
        sse::encode("response.failed", event.to_string().as_bytes(), out);
    }
}

fn write(frame: Frame<'_>, out: &mut Vec<u8>) {
    if !frame.event.is_empty() && frame.event != "message" {
        return sse::encode(frame.event, frame.data.as_bytes(), out);
    }
    // The type stands in the data.
    for line in frame.data.split('\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}

fn too_long() -> Step {
    Step::Failed(StreamFailure {
        code: Some(TOO_LONG.to_owned()),
        ..StreamFailure::default()
    })
}

/// An answer that is folded. The last event leaves the items out, so they are taken as they come.
#[derive(Debug, Default)]
pub struct Response {
    items: Items,
    response: Map<String, Value>,
    usage: Option<Usage>,
}

impl Response {
    /// Returns upstream's usage once the answer is complete.
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Takes one upstream frame.
    pub fn feed(&mut self, frame: Frame<'_>) -> Step {
        #[derive(Deserialize)]
        struct Ended {
            response: Map<String, Value>,
        }
        match Kind::of(frame.event, frame.data) {
            Kind::ItemDone => match self.items.keep(frame.data) {
                true => Step::Continue,
                false => too_long(),
            },
            Kind::Failed => Step::Failed(
                Terminal::parse(frame.data)
                    .and_then(|terminal| terminal.error())
                    .unwrap_or_default(),
            ),
            Kind::Error => Step::Failed(responses::failure(frame.data)),
            Kind::Completed | Kind::Incomplete => {
                self.usage = Terminal::parse(frame.data).and_then(|terminal| terminal.usage());
                if let Ok(ended) = serde_json::from_str::<Ended>(frame.data) {
                    self.response = ended.response;
                }
                Step::Finished
            }
            _ => Step::Continue,
        }
    }

    /// Returns the response as JSON.
    pub fn into_body(mut self) -> Vec<u8> {
        self.items.tell(&mut self.response);
        self.response
            .entry("object")
            .or_insert_with(|| "response".into());
        self.response
            .entry("status")
            .or_insert_with(|| "completed".into());
        Value::Object(self.response).to_string().into_bytes()
    }
}
