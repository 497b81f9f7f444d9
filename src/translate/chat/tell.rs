//! An answer becomes chunks of a chat completion, or a whole one.
//!
//! Reads the records that [`Machine`] and [`Fold`] write, so that every API says the same by construction.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::sse::{Decoder, Frame};
use crate::translate::fold::Fold;
use crate::translate::reasoning::Origin;
use crate::translate::stream::{Machine, Setup, Step, TOO_LONG};
use crate::wire::chat;
use crate::wire::responses::{StreamFailure, Usage};

/// Why upstream ended an answer that its filter did not let pass.
const FILTERED: &str = "content_filter";

/// What a completion says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
}

/// A completion that is streamed.
#[derive(Debug)]
pub struct Chunks {
    machine: Machine,
    options: Options,
    /// `"id":…,"object":…,"created":…,"model":…`, as JSON.
    head: String,
    decoder: Decoder,
    /// Records of the machine, on their way.
    records: Vec<u8>,
    /// Calls begun so far.
    calls: u64,
    finish: &'static str,
    is_ended: bool,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    content_block: Option<Started<'a>>,
    #[serde(borrow)]
    delta: Option<Piece<'a>>,
    #[serde(borrow)]
    error: Option<Failed<'a>>,
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
    partial_json: Option<&'a RawValue>,
    stop_reason: Option<&'a str>,
}

#[derive(Deserialize)]
struct Failed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: String,
}

/// Returns the `finish_reason` of a Messages `stop_reason`.
fn finish_reason(stop: &str) -> &'static str {
    match stop {
        "tool_use" => "tool_calls",
        "max_tokens" => "length",
        _ => "stop",
    }
}

/// Returns the id of the completion: the message's, with the prefix of this API.
fn id(message: &str) -> String {
    let random = message.strip_prefix("msg_").unwrap_or(message);
    format!("chatcmpl-{random}")
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}

fn is_filtered(step: &Step) -> bool {
    matches!(step, Step::Failed(failure) if failure.incomplete.as_deref() == Some(FILTERED))
}

impl Chunks {
    /// Starts a completion; writes nothing yet.
    pub fn new(setup: Setup, options: Options) -> Self {
        let head = format!(
            r#""id":{},"object":"chat.completion.chunk","created":{},"model":{}"#,
            Value::from(id(&setup.message_id)),
            options.created,
            Value::from(setup.model.as_str()),
        );
        Self {
            machine: Machine::new(setup),
            options,
            head,
            decoder: Decoder::default(),
            records: Vec::new(),
            calls: 0,
            finish: "stop",
            is_ended: false,
        }
    }

    /// Returns the machine that reads the answer.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// As [`Machine::is_committed`].
    pub fn is_committed(&self) -> bool {
        self.is_ended || self.machine.is_committed()
    }

    /// As [`Machine::restart`].
    pub fn restart(&mut self, origin: Origin) {
        self.machine.restart(origin);
    }

    /// Writes the first chunk, once.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        self.machine.start(&mut self.records);
        self.pass(out);
    }

    /// Takes one upstream frame and appends what it means to `out`.
    pub fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Step {
        if self.is_ended {
            return Step::Finished;
        }
        let step = self.machine.feed(frame, &mut self.records);
        if is_filtered(&step) {
            self.machine.start(&mut self.records);
            self.pass(out);
            self.finish = FILTERED;
            self.end(out);
            return Step::Finished;
        }
        match self.pass(out) {
            true => step,
            false => Step::Failed(StreamFailure {
                code: Some(TOO_LONG.to_owned()),
                ..StreamFailure::default()
            }),
        }
    }

    /// As [`Machine::end_empty`].
    pub fn end_empty(&mut self, out: &mut Vec<u8>) {
        self.machine.end_empty(&mut self.records);
        self.pass(out);
    }

    /// Ends the stream with an error, and without `[DONE]`: it is not whole.
    pub fn fail(&mut self, kind: &str, code: Option<&str>, message: &str, out: &mut Vec<u8>) {
        if !self.is_ended {
            self.is_ended = true;
            data(&chat::error_body(kind, code, message), out);
        }
    }

    /// Passes the machine's records on as chunks; says whether all were short enough to be read.
    fn pass(&mut self, out: &mut Vec<u8>) -> bool {
        let fed = self.decoder.feed(&self.records);
        self.records.clear();
        if fed.is_err() {
            return false;
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        while let Some(frame) = decoder.next_frame() {
            self.record(frame, out);
        }
        self.decoder = decoder;
        true
    }

    fn record(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) {
        match frame.event {
            "message_start" => self.chunk(r#"{"role":"assistant","content":""}"#, None, out),
            "message_stop" => self.end(out),
            _ => {
                let Ok(record) = serde_json::from_str::<Record<'_>>(frame.data) else {
                    return;
                };
                if let Some(block) = record
                    .content_block
                    .filter(|block| block.kind == "tool_use")
                {
                    self.calls += 1;
                    let delta = format!(
                        r#"{{"tool_calls":[{{"index":{},"id":{},"type":"function","function":{{"name":{},"arguments":""}}}}]}}"#,
                        self.calls - 1,
                        block.id.map_or("null", RawValue::get),
                        block.name.map_or("null", RawValue::get),
                    );
                    self.chunk(&delta, None, out);
                }
                if let Some(piece) = record.delta {
                    self.piece(&piece, out);
                }
                if let Some(error) = record.error {
                    self.fail(error.kind, None, &error.message, out);
                }
            }
        }
    }

    fn piece(&mut self, piece: &Piece<'_>, out: &mut Vec<u8>) {
        if let Some(stop) = piece.stop_reason {
            self.finish = finish_reason(stop);
        }
        let delta = if let Some(text) = piece.text {
            format!(r#"{{"content":{}}}"#, text.get())
        } else if let Some(text) = piece.thinking {
            format!(r#"{{"reasoning_content":{}}}"#, text.get())
        } else if let Some(json) = piece.partial_json.filter(|_| self.calls > 0) {
            format!(
                r#"{{"tool_calls":[{{"index":{},"function":{{"arguments":{}}}}}]}}"#,
                self.calls - 1,
                json.get()
            )
        } else {
            return;
        };
        self.chunk(&delta, None, out);
    }

    fn chunk(&self, delta: &str, finish: Option<&str>, out: &mut Vec<u8>) {
        let finish = finish.map_or_else(|| "null".to_owned(), |reason| format!("\"{reason}\""));
        let usage = match self.options.include_usage {
            true => r#","usage":null"#,
            false => "",
        };
        let chunk = format!(
            r#"{{{},"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]{usage}}}"#,
            self.head
        );
        data(chunk.as_bytes(), out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.is_ended {
            return;
        }
        self.is_ended = true;
        self.chunk("{}", Some(self.finish), out);
        if self.options.include_usage {
            let counts = self.machine.usage().map_or(Value::Null, usage);
            let chunk = format!(r#"{{{},"choices":[],"usage":{counts}}}"#, self.head);
            data(chunk.as_bytes(), out);
        }
        data(b"[DONE]", out);
    }
}

fn data(json: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}

/// A completion that is answered whole.
#[derive(Debug)]
pub struct Completion {
    fold: Fold,
    options: Options,
    is_filtered: bool,
}

impl Completion {
    /// Starts a completion.
    pub fn new(setup: Setup, options: Options) -> Self {
        Self {
            fold: Fold::new(setup),
            options,
            is_filtered: false,
        }
    }

    /// Returns what gathers the answer.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// As [`Fold::feed`].
    pub fn feed(&mut self, frame: Frame<'_>) -> Step {
        let step = self.fold.feed(frame);
        if is_filtered(&step) {
            self.is_filtered = true;
            return Step::Finished;
        }
        step
    }

    /// As [`Fold::end_empty`].
    pub fn end_empty(&mut self) {
        self.fold.end_empty();
    }

    /// Returns the completion as JSON.
    pub fn into_body(self) -> Vec<u8> {
        let counts = self.fold.usage();
        let message: Value = serde_json::from_slice(&self.fold.into_body()).unwrap_or(Value::Null);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (mut said, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
        for block in message["content"].as_array().into_iter().flatten() {
            match block["type"].as_str() {
                Some("text") => said.push_str(&text(&block["text"])),
                Some("thinking") => thought.push_str(&text(&block["thinking"])),
                Some("tool_use") => {
                    let input = &block["input"];
                    // What the model wrote was no JSON, and is kept as the text that it is.
                    let arguments = match input.as_str() {
                        Some(text) => text.to_owned(),
                        None => input.to_string(),
                    };
                    calls.push(json!({
                        "id": block["id"],
                        "type": "function",
                        "function": {"name": block["name"], "arguments": arguments},
                    }));
                }
                _ => {}
            }
        }
        let finish = match self.is_filtered {
            true => FILTERED,
            false => finish_reason(&text(&message["stop_reason"])),
        };
        let content = match said.is_empty() && !calls.is_empty() {
            true => Value::Null,
            false => Value::from(said),
        };
        let mut answer = json!({"role": "assistant", "content": content, "refusal": null});
        if !thought.is_empty() {
            answer["reasoning_content"] = thought.into();
        }
        if !calls.is_empty() {
            answer["tool_calls"] = calls.into();
        }
        json!({
            "id": id(&text(&message["id"])),
            "object": "chat.completion",
            "created": self.options.created,
            "model": message["model"],
            "choices": [{"index": 0, "message": answer, "logprobs": null, "finish_reason": finish}],
            "usage": counts.map_or(Value::Null, usage),
        })
        .to_string()
        .into_bytes()
    }
}
