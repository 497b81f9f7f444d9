//! Runs upstream's events through the machine that answers with Messages events.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test binaries, each uses a part"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ccx::sse::{Decoder, Frame};
use ccx::translate::fold::Fold;
use ccx::translate::names::ToolNames;
use ccx::translate::reasoning::Origin;
use ccx::translate::search::Search;
use ccx::translate::stream::{Machine, Setup, Step};
use ccx::wire::envelope::ErrorKind;
use ccx::wire::responses::{StreamFailure, Usage};
use serde_json::{Value, json};

use super::grammar::{Message, check};

pub fn setup() -> Setup {
    let mut names = ToolNames::default();
    names.insert("short".to_owned(), "mcp__a very long name".to_owned());
    Setup {
        message_id: "msg_1".to_owned(),
        model: "gpt-\"6\"".to_owned(),
        origin: Origin {
            account: "0123456789ab".to_owned(),
            model: "gpt-6".to_owned(),
        },
        names: Arc::new(names),
        search: None,
        input_tokens: 42,
        bounds: None,
        answers_safeguards: false,
    }
}

/// What became of a stream.
#[derive(Debug, PartialEq)]
pub struct Run {
    /// The Messages stream; a failure or a cut is ended with an error record.
    pub output: String,
    pub step: Step,
    pub usage: Option<Usage>,
}

/// As [`setup`], of a request that asks for searches.
pub fn searching(search: Search) -> Setup {
    Setup {
        search: Some(Arc::new(search)),
        ..setup()
    }
}

pub fn run(chunks: &[&[u8]]) -> Run {
    run_with(setup(), chunks)
}

pub fn run_with(setup: Setup, chunks: &[&[u8]]) -> Run {
    let mut decoder = Decoder::default();
    let mut machine = Machine::new(setup);
    let mut out = Vec::new();
    let mut last = Step::Continue;
    'stream: for chunk in chunks {
        decoder.feed(chunk).unwrap();
        while let Some(frame) = decoder.next_frame() {
            let before = out.len();
            let was_committed = machine.is_committed();
            let step = machine.feed(frame, &mut out);
            assert!(machine.is_committed() || !was_committed);
            assert!(machine.has_begun() || out.len() == before);
            if step != Step::Continue {
                last = step;
                break 'stream;
            }
        }
    }
    match &last {
        Step::Finished | Step::Cut => {
            // Nothing is written after the end, whatever comes.
            let end = out.len();
            machine.fail(ErrorKind::Api, "late", &mut out);
            machine.end_empty(&mut out);
            let late = Frame {
                event: "response.output_text.delta",
                data: r#"{"delta":"late"}"#,
            };
            assert_eq!(machine.feed(late, &mut out), Step::Finished);
            assert_eq!(out.len(), end);
        }
        Step::Failed(failure) => {
            let end = out.len();
            let late = Frame {
                event: "response.output_text.delta",
                data: r#"{"delta":"late"}"#,
            };
            assert_eq!(machine.feed(late, &mut out), Step::Continue);
            assert_eq!(out.len(), end);
            let StreamFailure {
                code, incomplete, ..
            } = failure;
            let message = code
                .as_deref()
                .or(incomplete.as_deref())
                .unwrap_or("no code");
            machine.fail(ErrorKind::Api, message, &mut out);
        }
        Step::Continue => machine.fail(ErrorKind::Api, "cut", &mut out),
    }
    Run {
        output: String::from_utf8(out).unwrap(),
        step: last,
        usage: machine.usage(),
    }
}

pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The recorded streams, and the frames recorded of the other transport as if they had come in a stream.
pub fn fixtures() -> BTreeMap<String, Vec<u8>> {
    let read = |directory: &str, prefix: &str| -> BTreeMap<String, Vec<u8>> {
        fs::read_dir(here().join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path: PathBuf| {
                let name = path.file_stem().unwrap().to_str().unwrap();
                (format!("{prefix}{name}"), fs::read(&path).unwrap())
            })
            .collect()
    };
    let mut found = read("tests/fixtures/codex/sse", "");
    for (name, frames) in read("tests/fixtures/codex/ws", "ws-") {
        let frames = String::from_utf8(frames).unwrap();
        let stream: String = frames
            .lines()
            .map(|frame| format!("data: {frame}\n\n"))
            .collect();
        found.insert(name, stream.into_bytes());
    }
    assert!(found.len() >= 32);
    found
}

pub fn fold(stream: &[u8]) -> (Fold, Step) {
    fold_with(setup(), stream)
}

pub fn fold_with(setup: Setup, stream: &[u8]) -> (Fold, Step) {
    let mut decoder = Decoder::default();
    decoder.feed(stream).unwrap();
    let mut fold = Fold::new(setup);
    while let Some(frame) = decoder.next_frame() {
        let step = fold.feed(frame);
        if step != Step::Continue {
            return (fold, step);
        }
    }
    (fold, Step::Continue)
}

pub fn same_message(body: &[u8], streamed: &Message) {
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["content"], Value::from(streamed.content.clone()));
    let (reason, usage) = streamed.end.clone().unwrap();
    assert_eq!(
        body,
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "gpt-\"6\"",
            "content": streamed.content, "stop_reason": reason, "stop_sequence": null, "usage": usage,
        })
    );
}

/// A stream of events; each is its type and the rest of its data.
pub fn stream(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| {
            let name = event["type"].as_str().unwrap();
            format!("event: {name}\ndata: {event}\n\n")
        })
        .collect()
}

pub fn text_delta(index: u64, delta: &str) -> Value {
    json!({"type": "response.output_text.delta", "output_index": index, "item_id": format!("i{index}"), "content_index": 0, "delta": delta})
}

pub fn arguments_delta(index: u64, delta: &str) -> Value {
    json!({"type": "response.function_call_arguments.delta", "output_index": index, "item_id": format!("i{index}"), "delta": delta})
}

pub fn summary_delta(index: u64, part: u64, delta: &str) -> Value {
    json!({"type": "response.reasoning_summary_text.delta", "output_index": index, "item_id": format!("i{index}"), "summary_index": part, "delta": delta})
}

pub fn added(index: u64, item: Value) -> Value {
    json!({"type": "response.output_item.added", "output_index": index, "item": item})
}

pub fn done(index: u64, item: Value) -> Value {
    json!({"type": "response.output_item.done", "output_index": index, "item": item})
}

pub fn message(index: u64, text: &str) -> Value {
    json!({"type": "message", "id": format!("i{index}"), "content": [{"type": "output_text", "text": text}]})
}

pub fn call(index: u64, name: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": format!("i{index}"), "call_id": format!("call{index}"), "name": name, "arguments": arguments})
}

pub fn reasoning(index: u64, summary: &[&str], encrypted: Option<&str>) -> Value {
    let summary: Vec<Value> = summary
        .iter()
        .map(|text| json!({"type": "summary_text", "text": text}))
        .collect();
    json!({"type": "reasoning", "id": format!("i{index}"), "summary": summary, "encrypted_content": encrypted})
}

pub fn completed() -> Value {
    json!({"type": "response.completed", "response": {"id": "r", "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}}}})
}

/// The message that the events make, streamed and folded.
pub fn told(events: &[Value]) -> Message {
    told_with(&setup(), events)
}

pub fn told_with(setup: &Setup, events: &[Value]) -> Message {
    let stream = stream(events);
    let run = run_with(setup.clone(), &[stream.as_bytes()]);
    let message = check(&run.output);
    let (fold, step) = fold_with(setup.clone(), stream.as_bytes());
    assert_eq!(step, run.step);
    if step == Step::Finished {
        same_message(&fold.into_body(), &message);
    }
    message
}

pub fn content(events: &[Value]) -> Vec<Value> {
    let message = told(events);
    assert_eq!(message.error, None);
    message.content
}

pub fn failure(events: &[Value]) -> StreamFailure {
    match run(&[stream(events).as_bytes()]).step {
        Step::Failed(failure) => failure,
        step => panic!("no failure: {step:?}"),
    }
}

pub fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

pub fn thinking(thinking: &str, signature: &str) -> Value {
    json!({"type": "thinking", "thinking": thinking, "signature": signature})
}

pub fn tool(id: &str, name: &str, input: Value) -> Value {
    json!({"type": "tool_use", "id": id, "name": name, "input": input})
}

/// Rewrites every JSON of a stream so that the quick reading gives up on it.
pub fn slowed(stream: &str) -> String {
    stream
        .lines()
        .map(|line| match line.strip_prefix("data: {") {
            Some(rest) => format!("data: {{ {rest}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}
