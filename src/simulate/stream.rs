//! Turns the pieces of an answer into the events upstream would send, and the waits between them.
//!
//! Order and fields: contract chatgpt-codex §6. Pure: [`super::play`] sends what is made here.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::scenario::{Found, Pacing};
use super::script::{Ending, Piece};
use super::usage::{Tokens, count};
use crate::time::UnixSeconds;

/// One thing to do while sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Send nothing for this long.
    Wait(Duration),
    /// Send these bytes.
    Send(Bytes),
    /// Drop the connection.
    Cut,
    /// Send nothing until the peer leaves.
    Stall,
}

/// What an answer says about itself.
#[derive(Clone, Debug)]
pub struct Heading<'a> {
    /// `resp_…`.
    pub response_id: &'a str,
    /// The model that answers.
    pub model: &'a str,
    /// When.
    pub created_at: UnixSeconds,
    /// Input counts; the output's are added here.
    pub tokens: Tokens,
}

/// Returns everything to do for an answer, the end included.
pub fn beats(heading: &Heading<'_>, pacing: Pacing, pieces: &[Piece]) -> Vec<Beat> {
    let mut writer = Writer {
        heading,
        pacing,
        beats: Vec::new(),
        sequence: 0,
        index: 0,
        tokens: heading.tokens,
    };
    writer.open();
    for piece in pieces {
        writer.piece(piece);
    }
    writer.beats
}

struct Writer<'a> {
    heading: &'a Heading<'a>,
    pacing: Pacing,
    beats: Vec<Beat>,
    sequence: u64,
    index: usize,
    tokens: Tokens,
}

impl Writer<'_> {
    fn open(&mut self) {
        for kind in ["response.created", "response.in_progress"] {
            let response = self.response("in_progress", Value::Null);
            self.event(json!({"type": kind, "response": response}));
        }
        self.wait(self.pacing.first_ms);
    }

    fn piece(&mut self, piece: &Piece) {
        match piece {
            Piece::Reasoning {
                id,
                parts,
                encrypted,
            } => self.reasoning(id, parts, encrypted),
            Piece::Text { id, text, cited } => self.text(id, text, cited),
            Piece::Search { id, action, failed } => self.search(id, action, *failed),
            Piece::Call {
                id,
                call_id,
                name,
                arguments,
            } => self.call(id, call_id, name, arguments),
            Piece::Wait(time) => self.beats.push(Beat::Wait(*time)),
            Piece::Event(event) => self.event(event.clone()),
            Piece::Raw(bytes) => self.beats.push(Beat::Send(Bytes::from(bytes.clone()))),
            Piece::Ending(ending) => self.ending(ending),
        }
    }

    fn reasoning(&mut self, id: &str, parts: &[String], encrypted: &str) {
        let item = |summary: Vec<Value>, encrypted: Value| json!({"type": "reasoning", "id": id, "summary": summary, "encrypted_content": encrypted});
        self.added(item(Vec::new(), Value::Null));
        let at = self.index;
        for (part_at, text) in parts.iter().enumerate() {
            let event = |kind: &str, name: &str, value: Value| {
                json!({"type": format!("response.reasoning_summary_{kind}"), "item_id": id,
                    "output_index": at, "summary_index": part_at, name: value})
            };
            let part = |text: &str| json!({"type": "summary_text", "text": text});
            self.event(event("part.added", "part", part("")));
            for delta in deltas(text, self.pacing.delta_chars) {
                self.wait(self.pacing.delta_ms);
                self.event(event("text.delta", "delta", json!(delta)));
            }
            self.event(event("text.done", "text", json!(text)));
            self.event(event("part.done", "part", part(text)));
            self.tokens.reasoning += count(text);
        }
        // Thinking is longer than its summary.
        self.tokens.reasoning += 32;
        let summary = parts
            .iter()
            .map(|text| json!({"type": "summary_text", "text": text}))
            .collect();
        self.done(item(summary, json!(encrypted)));
    }

    /// A search tells nothing of its pages but, where asked to, their addresses.
    fn search(&mut self, id: &str, action: &Value, failed: bool) {
        self.added(json!({"type": "web_search_call", "id": id, "status": "in_progress"}));
        let at = self.index;
        for kind in ["in_progress", "searching", "completed"] {
            self.event(
                json!({"type": format!("response.web_search_call.{kind}"), "item_id": id,
                "output_index": at}),
            );
            self.wait(self.pacing.delta_ms);
        }
        let status = if failed { "failed" } else { "completed" };
        self.done(json!({"type": "web_search_call", "id": id, "status": status, "action": action}));
    }

    fn text(&mut self, id: &str, text: &str, cited: &[Found]) {
        let item = |status: &str, content: Vec<Value>| {
            json!({"type": "message", "id": id, "status": status, "role": "assistant",
                "content": content})
        };
        let annotations: Vec<Value> = cited.iter().map(|page| annotation(text, page)).collect();
        let part = |text: &str, annotations: &[Value]| json!({"type": "output_text", "text": text, "annotations": annotations, "logprobs": []});
        self.added(item("in_progress", Vec::new()));
        let at = self.index;
        let event = |kind: &str, name: &str, value: Value| {
            json!({"type": format!("response.{kind}"), "item_id": id, "output_index": at,
                "content_index": 0, name: value})
        };
        self.event(event("content_part.added", "part", part("", &[])));
        for delta in deltas(text, self.pacing.delta_chars) {
            self.wait(self.pacing.delta_ms);
            let mut event = event("output_text.delta", "delta", json!(delta));
            event["logprobs"] = json!([]);
            self.event(event);
        }
        for (number, annotation) in annotations.iter().enumerate() {
            let mut event = event(
                "output_text.annotation.added",
                "annotation",
                annotation.clone(),
            );
            event["annotation_index"] = json!(number);
            self.event(event);
        }
        self.event(event("output_text.done", "text", json!(text)));
        let whole = part(text, &annotations);
        self.event(event("content_part.done", "part", whole.clone()));
        self.tokens.output += count(text);
        self.done(item("completed", vec![whole]));
    }

    fn call(&mut self, id: &str, call_id: &str, name: &str, arguments: &str) {
        let item = |status: &str, arguments: &str| {
            json!({"type": "function_call", "id": id, "status": status, "name": name,
                "arguments": arguments, "call_id": call_id})
        };
        self.added(item("in_progress", ""));
        let at = self.index;
        let event = |kind: &str, name: &str, value: &str| {
            json!({"type": format!("response.function_call_arguments.{kind}"), "item_id": id,
                "output_index": at, name: value})
        };
        for delta in deltas(arguments, self.pacing.delta_chars) {
            self.wait(self.pacing.delta_ms);
            self.event(event("delta", "delta", delta));
        }
        self.event(event("done", "arguments", arguments));
        self.tokens.output += count(name) + count(arguments);
        self.done(item("completed", arguments));
    }

    fn ending(&mut self, ending: &Ending) {
        match ending {
            Ending::Completed => {
                let response = self.response("completed", Value::Null);
                self.event(json!({"type": "response.completed", "response": response}));
            }
            Ending::Failed(error) => {
                let response = self.response("failed", error.clone());
                self.event(json!({"type": "response.failed", "response": response}));
            }
            Ending::Incomplete(reason) => {
                let mut response = self.response("incomplete", Value::Null);
                response["incomplete_details"] = json!({"reason": reason});
                self.event(json!({"type": "response.incomplete", "response": response}));
            }
            Ending::Bare => {}
            Ending::Cut => self.beats.push(Beat::Cut),
            Ending::Stall => self.beats.push(Beat::Stall),
        }
    }

    /// The `response` object in `status`; usage only where upstream tells it.
    fn response(&self, status: &str, error: Value) -> Value {
        let has_usage = matches!(status, "completed" | "incomplete");
        let tokens = Tokens {
            output: self.tokens.output + self.tokens.reasoning,
            ..self.tokens
        };
        let mut response = json!({
            "id": self.heading.response_id,
            "object": "response",
            "created_at": self.heading.created_at.0,
            "status": status,
            "model": self.heading.model,
            // With `store: false` upstream leaves the items out here: `output_item.done` has them.
            "output": [],
            "usage": if has_usage { tokens.to_json() } else { Value::Null },
        });
        if !error.is_null() {
            response["error"] = error;
        }
        response
    }

    fn added(&mut self, item: Value) {
        self.event(
            json!({"type": "response.output_item.added", "output_index": self.index,
            "item": item}),
        );
    }

    fn done(&mut self, item: Value) {
        self.event(
            json!({"type": "response.output_item.done", "output_index": self.index,
            "item": item}),
        );
        self.index += 1;
    }

    fn event(&mut self, mut event: Value) {
        event["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        let kind = event["type"].as_str().unwrap_or("message");
        self.beats.push(Beat::Send(Bytes::from(format!(
            "event: {kind}\ndata: {event}\n\n"
        ))));
    }

    fn wait(&mut self, milliseconds: u64) {
        if milliseconds > 0 {
            self.beats
                .push(Beat::Wait(Duration::from_millis(milliseconds)));
        }
    }
}

/// The citation of `page` in `text`: where its address stands, or else all of it. Counted in characters.
fn annotation(text: &str, page: &Found) -> Value {
    let characters = |bytes: usize| text[..bytes].chars().count();
    let (start, end) = match text.find(&page.url) {
        Some(at) => (characters(at), characters(at + page.url.len())),
        None => (0, characters(text.len())),
    };
    json!({"type": "url_citation", "start_index": start, "end_index": end, "title": page.title, "url": page.url})
}

/// Cuts `text` into deltas of `size` characters; zero leaves it whole.
fn deltas(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match size {
            0 => rest.len(),
            _ => rest
                .char_indices()
                .nth(size)
                .map_or(rest.len(), |(at, _)| at),
        };
        let (delta, left) = rest.split_at(end);
        rest = left;
        Some(delta)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: Heading<'_> = Heading {
        response_id: "resp_1",
        model: "gpt-6.1-sol",
        created_at: UnixSeconds(1_795_000_000),
        tokens: Tokens {
            input: 1200,
            cached: 1024,
            output: 0,
            reasoning: 0,
        },
    };

    /// Runs of the same event count once.
    fn kinds(beats: &[Beat]) -> Vec<String> {
        let mut kinds: Vec<String> = events(beats)
            .iter()
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect();
        kinds.dedup();
        kinds
    }

    fn events(beats: &[Beat]) -> Vec<Value> {
        beats
            .iter()
            .filter_map(|beat| match beat {
                Beat::Send(bytes) => Some(std::str::from_utf8(bytes).unwrap()),
                _ => None,
            })
            .map(|record| {
                let (event, data) = record
                    .strip_prefix("event: ")
                    .and_then(|rest| rest.strip_suffix("\n\n"))
                    .and_then(|rest| rest.split_once("\ndata: "))
                    .unwrap();
                let value: Value = serde_json::from_str(data).unwrap();
                assert_eq!(value["type"], event);
                value
            })
            .collect()
    }

    fn answer() -> Vec<Piece> {
        vec![
            Piece::Reasoning {
                id: "rs_1".to_owned(),
                parts: vec!["**Plan**\n\nThink.".to_owned(), "Again.".to_owned()],
                encrypted: "gAAAAA".to_owned(),
            },
            Piece::Text {
                id: "msg_1".to_owned(),
                text: "Größe ändern".to_owned(),
                cited: Vec::new(),
            },
            Piece::Call {
                id: "fc_1".to_owned(),
                call_id: "call_1".to_owned(),
                name: "Read".to_owned(),
                arguments: r#"{"file_path":"/x"}"#.to_owned(),
            },
            Piece::Ending(Ending::Completed),
        ]
    }

    #[test]
    fn the_order_is_that_of_the_contract() {
        let pacing = Pacing {
            delta_chars: 3,
            ..Pacing::default()
        };
        let beats = beats(&HEADING, pacing, &answer());
        let part = [
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
        ];
        let want = [
            &["response.created", "response.in_progress"][..],
            &["response.output_item.added"],
            &part,
            &part,
            &["response.output_item.done", "response.output_item.added"],
            &["response.content_part.added", "response.output_text.delta"],
            &["response.output_text.done", "response.content_part.done"],
            &["response.output_item.done", "response.output_item.added"],
            &[
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
            ],
            &["response.output_item.done", "response.completed"],
        ]
        .concat();
        assert_eq!(kinds(&beats), want);
        for (number, event) in events(&beats).iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
    }

    #[test]
    fn deltas_join_to_what_is_done_at_every_size() {
        for delta_chars in 0..20 {
            let pacing = Pacing {
                delta_chars,
                ..Pacing::default()
            };
            let events = events(&beats(&HEADING, pacing, &answer()));
            let joined = |kind: &str| -> String {
                events
                    .iter()
                    .filter(|event| event["type"] == kind)
                    .map(|event| event["delta"].as_str().unwrap())
                    .collect()
            };
            assert_eq!(joined("response.output_text.delta"), "Größe ändern");
            assert_eq!(
                joined("response.function_call_arguments.delta"),
                r#"{"file_path":"/x"}"#
            );
        }
    }

    #[test]
    fn usage_counts_input_once_and_output_with_its_reasoning() {
        let events = events(&beats(&HEADING, Pacing::default(), &answer()));
        let completed = &events.last().unwrap()["response"];
        assert_eq!(
            completed["usage"],
            json!({
                "input_tokens": 1200,
                "input_tokens_details": {"cached_tokens": 1024},
                "output_tokens": 48,
                "output_tokens_details": {"reasoning_tokens": 38},
                "total_tokens": 1248,
            })
        );
        assert_eq!(completed["status"], "completed");
    }

    #[test]
    fn each_ending_is_what_upstream_would_do() {
        let error = json!({"code": "server_error", "message": "x"});
        for (ending, kind) in [
            (Ending::Failed(error.clone()), "response.failed"),
            (
                Ending::Incomplete("max_output_tokens".to_owned()),
                "response.incomplete",
            ),
            (Ending::Bare, "response.in_progress"),
            (Ending::Cut, "response.in_progress"),
            (Ending::Stall, "response.in_progress"),
        ] {
            let beats = beats(
                &HEADING,
                Pacing::default(),
                &[Piece::Ending(ending.clone())],
            );
            let events = events(&beats);
            let last = events.last().unwrap();
            assert_eq!(last["type"], kind);
            match ending {
                Ending::Failed(error) => assert_eq!(last["response"]["error"], error),
                Ending::Incomplete(reason) => {
                    assert_eq!(last["response"]["incomplete_details"]["reason"], reason);
                }
                Ending::Cut => assert_eq!(beats.last(), Some(&Beat::Cut)),
                Ending::Stall => assert_eq!(beats.last(), Some(&Beat::Stall)),
                Ending::Bare | Ending::Completed => {}
            }
        }
    }

    #[test]
    fn pacing_puts_waits_between() {
        let pacing = Pacing {
            accept_ms: 7,
            first_ms: 5,
            delta_ms: 3,
            delta_chars: 6,
        };
        let beats = beats(&HEADING, pacing, &answer()[1..2]);
        let waits: Vec<Duration> = beats
            .iter()
            .filter_map(|beat| match beat {
                Beat::Wait(time) => Some(*time),
                _ => None,
            })
            .collect();
        let ms = Duration::from_millis;
        assert_eq!(waits, [ms(5), ms(3), ms(3)]);
    }
}
