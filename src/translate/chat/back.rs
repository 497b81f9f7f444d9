//! Chunks of a chat completion become events of a Responses stream, so that one machine reads all answers.
//!
//! A value that is fed bytes, however they are cut. Texts and reasoning are told as they come; calls are told side by side,
//! each at the place that its index names, since only its first chunk says who it is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::sse::{self, Decoder, RecordTooLong};

/// A chat stream on its way.
#[derive(Debug, Default)]
pub struct Back {
    decoder: Decoder,
    /// The item that is being told, if it is no call.
    open: Option<(Channel, u64)>,
    /// By index in the chat stream: the item's place.
    calls: BTreeMap<u64, u64>,
    /// The place of the next item.
    next: u64,
    finish: Option<String>,
    usage: Value,
    is_over: bool,
}

/// What is told in pieces beside calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Text,
    Reasoning,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Delta>,
    finish_reason: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning: Option<String>,
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

impl Back {
    /// Takes bytes of the chat stream and appends the events that they mean to `out`.
    ///
    /// # Errors
    ///
    /// A record is longer than any that is read.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), RecordTooLong> {
        self.decoder.feed(bytes)?;
        let mut decoder = std::mem::take(&mut self.decoder);
        while let Some(frame) = decoder.next_frame() {
            if self.is_over {
                break;
            }
            match frame.data.trim() {
                "[DONE]" => self.end(out),
                data => {
                    if let Ok(chunk) = serde_json::from_str::<Chunk>(data) {
                        self.chunk(chunk, out);
                    }
                }
            }
        }
        self.decoder = decoder;
        Ok(())
    }

    /// Ends the stream: as what it said last, and as nothing if it said no end. Who forgets `[DONE]` has ended all the same.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        let Some(finish) = self.finish.take().filter(|_| !self.is_over) else {
            return;
        };
        self.is_over = true;
        self.close(out);
        let count = |name: &str| self.usage[name].as_u64();
        let detail = |of: &str, name: &str| self.usage[of][name].as_u64();
        let usage = count("prompt_tokens").map(|input| {
            json!({
                "input_tokens": input,
                "input_tokens_details": {"cached_tokens": detail("prompt_tokens_details", "cached_tokens")},
                "output_tokens": count("completion_tokens"),
                "output_tokens_details":
                    {"reasoning_tokens": detail("completion_tokens_details", "reasoning_tokens")},
            })
        });
        let reason = match finish.as_str() {
            "length" => Some("max_output_tokens"),
            "content_filter" => Some("content_filter"),
            "error" => return self.error(&json!("the model failed"), out),
            _ => None,
        };
        let (kind, status) = match reason {
            Some(_) => ("response.incomplete", "incomplete"),
            None => ("response.completed", "completed"),
        };
        let details = reason.map(|reason| json!({ "reason": reason }));
        event(
            kind,
            json!({"response": {"status": status, "incomplete_details": details, "usage": usage, "output": []}}),
            out,
        );
    }

    fn error(&mut self, error: &Value, out: &mut Vec<u8>) {
        self.is_over = true;
        let message = error["message"].as_str().or(error.as_str());
        let message = format!("Kilo: {}", message.unwrap_or("the answer failed"));
        let status = error["code"].as_u64();
        event(
            "error",
            json!({"error": {"message": message}, "status": status}),
            out,
        );
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        if let Some(usage) = chunk.usage {
            self.usage = usage;
        }
        let error = chunk.error.filter(|error| !error.is_null());
        if let Some(error) = error {
            return self.error(&error, out);
        }
        let Some(choice) = chunk.choices.into_iter().next() else {
            return;
        };
        if let Some(error) = choice.error.filter(|error| !error.is_null()) {
            return self.error(&error, out);
        }
        if let Some(delta) = choice.delta {
            let thought = delta.reasoning.or(delta.reasoning_content);
            self.tell(Channel::Reasoning, thought, out);
            self.tell(Channel::Text, delta.content, out);
            for call in delta.tool_calls.into_iter().flatten() {
                self.call(call, out);
            }
        }
        if choice.finish_reason.is_some() {
            self.finish = choice.finish_reason;
        }
    }

    fn tell(&mut self, channel: Channel, text: Option<String>, out: &mut Vec<u8>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return;
        };
        let place = match self.open {
            Some((open, place)) if open == channel => place,
            _ => self.open(channel, out),
        };
        let kind = match channel {
            Channel::Text => "response.output_text.delta",
            Channel::Reasoning => "response.reasoning_summary_text.delta",
        };
        event(kind, json!({"output_index": place, "delta": text}), out);
    }

    /// Begins an item; the one before it has ended then.
    fn open(&mut self, channel: Channel, out: &mut Vec<u8>) -> u64 {
        self.close(out);
        let place = self.place();
        self.open = Some((channel, place));
        item("response.output_item.added", place, channel.item(), out);
        place
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((channel, place)) = self.open.take() {
            item("response.output_item.done", place, channel.item(), out);
        }
    }

    fn place(&mut self) -> u64 {
        let place = self.next;
        self.next += 1;
        place
    }

    fn call(&mut self, call: Call, out: &mut Vec<u8>) {
        // Without an index, what has an id begins and what has none goes on.
        let last = self.calls.keys().last().copied();
        let index = match (call.index, &call.id, last) {
            (Some(index), _, _) => index,
            (None, None, Some(last)) => last,
            (None, _, last) => last.map_or(0, |last| last + 1),
        };
        let (name, arguments) = match call.function {
            Some(function) => (function.name, function.arguments),
            None => (None, None),
        };
        let place = match self.calls.get(&index) {
            Some(place) => *place,
            None => {
                self.close(out);
                let place = self.place();
                self.calls.insert(index, place);
                let begun = json!({"type": "function_call", "call_id": call.id, "name": name});
                item("response.output_item.added", place, begun, out);
                place
            }
        };
        if let Some(arguments) = arguments.filter(|arguments| !arguments.is_empty()) {
            event(
                "response.function_call_arguments.delta",
                json!({"output_index": place, "delta": arguments}),
                out,
            );
        }
    }
}

impl Channel {
    fn item(self) -> Value {
        match self {
            Self::Text => json!({"type": "message", "role": "assistant"}),
            Self::Reasoning => json!({"type": "reasoning"}),
        }
    }
}

fn item(kind: &str, place: u64, item: Value, out: &mut Vec<u8>) {
    event(kind, json!({"output_index": place, "item": item}), out);
}

fn event(kind: &str, mut data: Value, out: &mut Vec<u8>) {
    data["type"] = kind.into();
    sse::encode(kind, data.to_string().as_bytes(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut back, mut out) = (Back::default(), Vec::new());
        for piece in pieces {
            back.feed(piece, &mut out).unwrap();
        }
        back.end(&mut out);
        out
    }

    #[test]
    fn events_do_not_depend_on_chunking() {
        let stream = concat!(
            ": OPENROUTER PROCESSING\n\n",
            r#"data: {"choices":[{"delta":{"role":"assistant","content":"","reasoning":"Hm"}}]}"#,
            "\n\n",
            r#"data: {"choices":[{"delta":{"content":"Hi"}}]}"#,
            "\n\n",
            r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}]}}]}"#,
            "\n\n",
            r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]},"finish_reason":"tool_calls"}]}"#,
            "\n\n",
            r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
            "\n\ndata: [DONE]\n\n"
        )
        .as_bytes();
        let whole = back(&[stream]);
        let text = String::from_utf8(whole.clone()).unwrap();
        assert!(text.contains("response.completed"), "{text}");
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(back(&[head, tail]), whole, "cut at byte {cut}");
        }
    }

    #[test]
    fn without_an_end_there_is_none() {
        let stream = br#"data: {"choices":[{"delta":{"content":"Hi"}}]}"#;
        let text = String::from_utf8(back(&[stream, b"\n\n"])).unwrap();
        assert!(
            text.contains("Hi") && !text.contains("response.completed"),
            "{text}"
        );
    }
}
