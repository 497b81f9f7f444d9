//! Responses streams become legal Messages streams: recorded ones, cut ones, and any soup of events.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ccx::sse::{Decoder, Frame};
use ccx::translate::fold::Fold;
use ccx::translate::names::ToolNames;
use ccx::translate::reasoning::Origin;
use ccx::translate::stream::{
    EMPTY_COMPLETION, Machine, NAMELESS_CALL, STALLED_ARGUMENTS, Setup, Step, TOO_LONG, UNSTATED,
};
use ccx::wire::envelope::ErrorKind;
use ccx::wire::responses::{StreamFailure, Usage};
use proptest::prelude::*;
use serde_json::{Value, json};

fn setup() -> Setup {
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
        input_tokens: 42,
    }
}

/// What became of a stream.
#[derive(Debug, PartialEq)]
struct Run {
    /// The Messages stream; a failure or a cut is ended with an error record.
    output: String,
    step: Step,
    usage: Option<Usage>,
}

fn run(chunks: &[&[u8]]) -> Run {
    let mut decoder = Decoder::default();
    let mut machine = Machine::new(setup());
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
        Step::Finished => {
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

/// Content blocks as the client puts them together, and how the stream ended.
#[derive(Debug, Default, PartialEq)]
struct Message {
    content: Vec<Value>,
    end: Option<(Value, Value)>,
    error: Option<Value>,
}

/// Reads a Messages stream and holds it to the grammar.
fn check(output: &str) -> Message {
    let mut decoder = Decoder::default();
    decoder.feed(output.as_bytes()).unwrap();
    let mut message = Message::default();
    let mut is_started = false;
    let mut is_over = false;
    // The open block, and its partial JSON.
    let mut open: Option<(usize, String)> = None;
    while let Some(frame) = decoder.next_frame() {
        let data: Value = serde_json::from_str(frame.data)
            .unwrap_or_else(|error| panic!("{error}: {}", frame.data));
        assert_eq!(data["type"], frame.event, "the type is the event's name");
        assert!(!is_over, "{} after the end", frame.event);
        assert!(
            is_started || matches!(frame.event, "message_start" | "error"),
            "{} before the start",
            frame.event
        );
        match frame.event {
            "message_start" => {
                assert!(!is_started, "a second start");
                is_started = true;
                assert_eq!(data["message"]["content"], json!([]));
                assert_eq!(data["message"]["role"], "assistant");
            }
            "content_block_start" => {
                assert_eq!(open, None, "two blocks open");
                assert_eq!(data["index"], message.content.len());
                message.content.push(data["content_block"].clone());
                open = Some((message.content.len() - 1, String::new()));
            }
            "content_block_delta" => {
                let (index, partial) = open.as_mut().expect("a block is open");
                assert_eq!(data["index"], *index);
                let block = &mut message.content[*index];
                let delta = &data["delta"];
                let (field, wanted) = match delta["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("signature", "thinking"),
                    "input_json_delta" => {
                        assert_eq!(block["type"], "tool_use");
                        partial.push_str(delta["partial_json"].as_str().unwrap());
                        continue;
                    }
                    other => panic!("unknown delta {other}"),
                };
                assert_eq!(block["type"], wanted);
                assert!(
                    field != "thinking" || block["signature"] == "",
                    "thinking after the signature"
                );
                let text =
                    block[field].as_str().unwrap().to_owned() + delta[field].as_str().unwrap();
                block[field] = Value::from(text);
            }
            "content_block_stop" => {
                let (index, partial) = open.take().expect("a block is open");
                assert_eq!(data["index"], index);
                let block = &mut message.content[index];
                match block["type"].as_str().unwrap() {
                    "text" => assert_ne!(block["text"], "", "an empty text block"),
                    "thinking" => assert!(
                        block["thinking"] != "" || block["signature"] != "",
                        "an empty thinking block"
                    ),
                    _ => {
                        assert_ne!(block["name"], "");
                        assert_ne!(block["id"], "");
                        block["input"] =
                            serde_json::from_str(&partial).unwrap_or(Value::from(partial));
                    }
                }
            }
            "message_delta" => {
                assert_eq!(open, None, "an open block at the end");
                assert_eq!(message.end, None);
                message.end = Some((data["delta"]["stop_reason"].clone(), data["usage"].clone()));
                let has_tool = message
                    .content
                    .iter()
                    .any(|block| block["type"] == "tool_use");
                match data["delta"]["stop_reason"].as_str().unwrap() {
                    "tool_use" => assert!(has_tool),
                    "end_turn" => assert!(!has_tool),
                    "max_tokens" => {}
                    other => panic!("unknown stop reason {other}"),
                }
                assert_eq!(data["delta"]["stop_sequence"], Value::Null);
            }
            "message_stop" => {
                assert!(message.end.is_some());
                is_over = true;
            }
            "error" => {
                assert_eq!(message.end, None);
                message.error = Some(data["error"].clone());
                is_over = true;
            }
            other => panic!("unknown event {other}"),
        }
    }
    assert!(!decoder.has_tail());
    assert!(is_over, "the stream has no end");
    message
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixtures() -> BTreeMap<String, Vec<u8>> {
    let found: BTreeMap<String, Vec<u8>> = fs::read_dir(here().join("tests/fixtures/codex/sse"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path: PathBuf| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                fs::read(&path).unwrap(),
            )
        })
        .collect();
    assert!(found.len() >= 27);
    found
}

/// Compares with a golden file; `CCX_BLESS=1` writes it instead.
fn golden(path: &str, text: &str) {
    let path = here().join("tests/golden").join(path);
    if std::env::var_os("CCX_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; CCX_BLESS=1 writes it", path.display()));
    assert!(
        wanted == text,
        "{} differs; CCX_BLESS=1 rewrites it. Now:\n{text}",
        path.display()
    );
}

fn fold(stream: &[u8]) -> (Fold, Step) {
    let mut decoder = Decoder::default();
    decoder.feed(stream).unwrap();
    let mut fold = Fold::new(setup());
    while let Some(frame) = decoder.next_frame() {
        let step = fold.feed(frame);
        if step != Step::Continue {
            return (fold, step);
        }
    }
    (fold, Step::Continue)
}

#[test]
fn recorded_streams_translate_as_written_down() {
    for (name, stream) in fixtures() {
        let run = run(&[&stream]);
        check(&run.output);
        golden(&format!("streams/{name}.sse"), &run.output);
    }
}

#[test]
fn recorded_streams_fold_to_what_they_stream() {
    for (name, stream) in fixtures() {
        let streamed = run(&[&stream]);
        let (fold, step) = fold(&stream);
        assert_eq!(step, streamed.step, "{name}");
        assert_eq!(fold.usage(), streamed.usage, "{name}");
        if step == Step::Finished {
            same_message(&fold.into_body(), &check(&streamed.output));
        }
    }
}

fn same_message(body: &[u8], streamed: &Message) {
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

#[test]
fn truncated_streams_are_legal_prefixes_and_never_look_whole() {
    for (name, stream) in fixtures() {
        let whole = run(&[&stream]);
        let mut checked = String::new();
        for cut in 0..stream.len() {
            let part = run(&[&stream[..cut]]);
            if part.output != checked {
                check(&part.output);
                checked.clone_from(&part.output);
            }
            if part.step == Step::Continue {
                assert!(
                    !part.output.contains("message_stop"),
                    "{name} cut at byte {cut}"
                );
                let told = part.output.split("event: error").next().unwrap();
                assert!(whole.output.starts_with(told), "{name} cut at byte {cut}");
            } else {
                // The cut came after the terminal event.
                assert_eq!(part, whole, "{name} cut at byte {cut}");
            }
        }
    }
}

#[test]
fn streams_do_not_depend_on_chunking() {
    for (name, stream) in fixtures() {
        let whole = run(&[&stream]);
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(run(&[head, tail]), whole, "{name} cut at byte {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(run(&bytes), whole, "{name} byte by byte");
        let crlf = String::from_utf8(stream).unwrap().replace('\n', "\r\n");
        assert_eq!(run(&[crlf.as_bytes()]), whole, "{name} with CRLF");
    }
}

/// A stream of events; each is its type and the rest of its data.
fn stream(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| {
            let name = event["type"].as_str().unwrap();
            format!("event: {name}\ndata: {event}\n\n")
        })
        .collect()
}

fn text_delta(index: u64, delta: &str) -> Value {
    json!({"type": "response.output_text.delta", "output_index": index, "item_id": format!("i{index}"), "content_index": 0, "delta": delta})
}

fn arguments_delta(index: u64, delta: &str) -> Value {
    json!({"type": "response.function_call_arguments.delta", "output_index": index, "item_id": format!("i{index}"), "delta": delta})
}

fn summary_delta(index: u64, part: u64, delta: &str) -> Value {
    json!({"type": "response.reasoning_summary_text.delta", "output_index": index, "item_id": format!("i{index}"), "summary_index": part, "delta": delta})
}

fn added(index: u64, item: Value) -> Value {
    json!({"type": "response.output_item.added", "output_index": index, "item": item})
}

fn done(index: u64, item: Value) -> Value {
    json!({"type": "response.output_item.done", "output_index": index, "item": item})
}

fn message(index: u64, text: &str) -> Value {
    json!({"type": "message", "id": format!("i{index}"), "content": [{"type": "output_text", "text": text}]})
}

fn call(index: u64, name: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": format!("i{index}"), "call_id": format!("call{index}"), "name": name, "arguments": arguments})
}

fn reasoning(index: u64, summary: &[&str], encrypted: Option<&str>) -> Value {
    let summary: Vec<Value> = summary
        .iter()
        .map(|text| json!({"type": "summary_text", "text": text}))
        .collect();
    json!({"type": "reasoning", "id": format!("i{index}"), "summary": summary, "encrypted_content": encrypted})
}

fn completed() -> Value {
    json!({"type": "response.completed", "response": {"id": "r", "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}}}})
}

/// The message that the events make, streamed and folded.
fn told(events: &[Value]) -> Message {
    let stream = stream(events);
    let run = run(&[stream.as_bytes()]);
    let message = check(&run.output);
    let (fold, step) = fold(stream.as_bytes());
    assert_eq!(step, run.step);
    if step == Step::Finished {
        same_message(&fold.into_body(), &message);
    }
    message
}

fn content(events: &[Value]) -> Vec<Value> {
    let message = told(events);
    assert_eq!(message.error, None);
    message.content
}

fn failure(events: &[Value]) -> StreamFailure {
    match run(&[stream(events).as_bytes()]).step {
        Step::Failed(failure) => failure,
        step => panic!("no failure: {step:?}"),
    }
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn thinking(thinking: &str, signature: &str) -> Value {
    json!({"type": "thinking", "thinking": thinking, "signature": signature})
}

fn tool(id: &str, name: &str, input: Value) -> Value {
    json!({"type": "tool_use", "id": id, "name": name, "input": input})
}

#[test]
fn interleaved_items_become_blocks_in_upstreams_order() {
    let events = [
        added(0, message(0, "")),
        added(1, call(1, "a", "")),
        added(2, call(2, "short", "")),
        arguments_delta(2, "{\"x\":"),
        text_delta(0, "He"),
        arguments_delta(1, "{\"y\""),
        done(2, call(2, "short", "{\"x\":1}")),
        text_delta(0, "llo"),
        arguments_delta(1, ":2}"),
        done(0, message(0, "Hello")),
        done(1, call(1, "a", "{\"y\":2}")),
        completed(),
    ];
    assert_eq!(
        content(&events),
        [
            text("Hello"),
            tool("call1", "a", json!({"y": 2})),
            tool("call2", "mcp__a very long name", json!({"x": 1})),
        ]
    );
}

#[test]
fn every_text_is_told_once_however_it_comes() {
    let deltas = [text_delta(0, "He"), text_delta(0, "llo")];
    let done_text = json!({"type": "response.output_text.done", "output_index": 0, "item_id": "i0", "content_index": 0, "text": "Hello"});
    let item_done = done(0, message(0, "Hello"));
    let in_completed =
        json!({"type": "response.completed", "response": {"output": [message(0, "Hello")]}});
    for events in [
        vec![deltas[0].clone(), deltas[1].clone(), completed()],
        vec![deltas[0].clone(), done_text.clone(), completed()],
        vec![deltas[0].clone(), item_done.clone(), completed()],
        vec![
            done_text.clone(),
            done_text.clone(),
            item_done.clone(),
            item_done.clone(),
            completed(),
        ],
        vec![item_done.clone(), deltas[1].clone(), done_text, completed()],
        vec![item_done, in_completed.clone()],
        vec![
            added(0, message(0, "")),
            deltas[0].clone(),
            in_completed.clone(),
        ],
        vec![in_completed],
    ] {
        assert_eq!(content(&events), [text("Hello")], "{events:?}");
    }
    // What was streamed cannot be taken back, and is not told again in other words.
    let events = [
        text_delta(0, "Hullo"),
        done(0, message(0, "Hello you")),
        completed(),
    ];
    assert_eq!(content(&events), [text("Hullo")]);
}

#[test]
fn arguments_are_told_once_and_never_empty() {
    let arguments_done = |arguments: &str| json!({"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "i0", "arguments": arguments});
    let whole = "{\"a\":\"\\n\"}";
    let begin = added(0, call(0, "f", ""));
    let end = done(0, call(0, "f", whole));
    let wanted = [tool("call0", "f", json!({"a": "\n"}))];
    for events in [
        vec![
            begin.clone(),
            arguments_delta(0, "{\"a\":"),
            arguments_done(whole),
            end.clone(),
            completed(),
        ],
        vec![begin.clone(), arguments_done(whole), completed()],
        vec![begin.clone(), end.clone(), completed()],
        vec![end.clone(), completed()],
        // The name comes last.
        vec![
            arguments_delta(0, "{\"a\":"),
            arguments_done(whole),
            end.clone(),
            completed(),
        ],
        vec![
            added(0, call(0, "", "")),
            arguments_delta(0, "{\"a\":"),
            end,
            completed(),
        ],
        vec![
            begin.clone(),
            done(
                0,
                json!({"type": "function_call", "id": "i0", "arguments": {"a": "\n"}}),
            ),
            completed(),
        ],
    ] {
        assert_eq!(content(&events), wanted, "{events:?}");
    }
    for empty in ["", " ", "\n\t"] {
        let events = [
            begin.clone(),
            arguments_delta(0, empty),
            done(0, call(0, "f", empty)),
            completed(),
        ];
        assert_eq!(
            content(&events),
            [tool("call0", "f", json!({}))],
            "{empty:?}"
        );
    }
    // Arguments that contradict what was streamed add nothing to it.
    let events = [
        begin,
        arguments_delta(0, "{\"a\":1"),
        done(0, call(0, "f", "{ \"a\": 1}")),
        completed(),
    ];
    assert_eq!(content(&events), [tool("call0", "f", json!("{\"a\":1"))]);
}

#[test]
fn a_call_needs_a_name_but_no_id() {
    let events = [
        done(
            0,
            json!({"type": "function_call", "name": "f", "id": "fc_1", "arguments": "{}"}),
        ),
        completed(),
    ];
    assert_eq!(content(&events), [tool("fc_1", "f", json!({}))]);
    let events = [
        done(
            0,
            json!({"type": "function_call", "name": "f", "call_id": null, "arguments": "{}"}),
        ),
        completed(),
    ];
    assert_eq!(content(&events), [tool("call_msg_1_0", "f", json!({}))]);
    for events in [
        vec![done(
            0,
            json!({"type": "function_call", "call_id": "c", "arguments": "{}"}),
        )],
        vec![arguments_delta(0, "{}"), completed()],
    ] {
        assert_eq!(failure(&events).code.as_deref(), Some(NAMELESS_CALL));
    }
}

#[test]
fn arguments_that_stall_in_whitespace_fail() {
    let mut events = vec![
        added(0, call(0, "Read", "")),
        arguments_delta(0, "{\"a\":1,"),
    ];
    let blank = " \n".repeat(500);
    events.extend((0..40).map(|_| arguments_delta(0, &blank)));
    events.push(completed());
    assert_eq!(failure(&events).code.as_deref(), Some(STALLED_ARGUMENTS));
}

#[test]
fn reasoning_is_one_thinking_block_with_its_seal() {
    let seal = "ccx1:0123456789ab:gpt-6:i0:gAAA==;";
    let answer = done(1, message(1, "x"));
    for (events, wanted) in [
        (
            vec![
                summary_delta(0, 0, "a"),
                summary_delta(0, 1, "b"),
                done(0, reasoning(0, &["a", "b"], Some("gAAA=="))),
            ],
            Some(thinking("a\n\nb", seal)),
        ),
        (
            vec![done(0, reasoning(0, &["a", "b"], Some("gAAA==")))],
            Some(thinking("a\n\nb", seal)),
        ),
        (
            vec![
                added(0, reasoning(0, &[], None)),
                done(0, reasoning(0, &[], Some("gAAA=="))),
            ],
            Some(thinking("", seal)),
        ),
        (
            vec![
                added(0, reasoning(0, &[], None)),
                done(0, reasoning(0, &["a"], None)),
            ],
            Some(thinking("a", "")),
        ),
        (
            vec![
                added(0, reasoning(0, &[], None)),
                done(0, reasoning(0, &[""], Some(""))),
            ],
            None,
        ),
        (
            vec![
                json!({"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "raw"}),
                done(0, reasoning(0, &[], None)),
            ],
            Some(thinking("raw", "")),
        ),
    ] {
        let events = [events, vec![answer.clone(), completed()]].concat();
        let wanted: Vec<Value> = wanted.into_iter().chain([text("x")]).collect();
        assert_eq!(content(&events), wanted, "{events:?}");
    }
}

#[test]
fn parts_of_a_message_are_blocks_and_refusals_are_text() {
    let item = json!({"type": "message", "id": "i0", "content": [
        {"type": "output_text", "text": "a"}, null, {"type": "refusal", "refusal": "I cannot"}, {"type": "output_image"}
    ]});
    let refusal = json!({"type": "response.refusal.delta", "output_index": 0, "item_id": "i0", "content_index": 2, "delta": "I can"});
    let message = told(&[text_delta(0, "a"), refusal, done(0, item), completed()]);
    assert_eq!(message.content, [text("a"), text("I cannot")]);
    assert_eq!(message.end.unwrap().0, "end_turn");
}

#[test]
fn a_custom_call_carries_its_text_as_input() {
    let item = |input: &str| json!({"type": "custom_tool_call", "id": "i0", "call_id": "c", "name": "short", "input": input});
    let delta = json!({"type": "response.custom_tool_call_input.delta", "output_index": 0, "item_id": "i0", "delta": "say \"h"});
    for events in [
        vec![
            added(0, item("")),
            delta,
            done(0, item("say \"hi\"\n\\")),
            completed(),
        ],
        vec![done(0, item("say \"hi\"\n\\")), completed()],
    ] {
        assert_eq!(
            content(&events),
            [tool(
                "c",
                "mcp__a very long name",
                json!({"input": "say \"hi\"\n\\"})
            )]
        );
    }
    assert_eq!(
        content(&[done(0, item("")), completed()]),
        [tool("c", "mcp__a very long name", json!({"input": ""}))]
    );
}

#[test]
fn items_without_place_or_id_are_kept_apart() {
    let bare = |text: &str| json!({"type": "response.output_item.done", "item": {"type": "message", "content": [{"type": "output_text", "text": text}]}});
    assert_eq!(
        content(&[bare("a"), bare("b"), completed()]),
        [text("a"), text("b")]
    );
    let delta = |text: &str| json!({"type": "response.output_text.delta", "delta": text});
    assert_eq!(
        content(&[delta("a"), delta("b"), bare("abc"), completed()]),
        [text("abc")]
    );
    // The same place again, but another item.
    let events = [
        done(0, message(0, "a")),
        done(0, message(1, "b")),
        done(0, message(1, "b")),
        completed(),
    ];
    assert_eq!(content(&events), [text("a"), text("b")]);
}

#[test]
fn usage_is_told_in_anthropics_terms() {
    let run = run(&[stream(&[done(0, message(0, "a")), completed()]).as_bytes()]);
    assert_eq!(
        run.usage,
        Some(Usage {
            input_tokens: 10,
            cached_tokens: 4,
            output_tokens: 3,
            reasoning_tokens: 1
        })
    );
    let usage = check(&run.output).end.unwrap().1;
    assert_eq!(
        usage,
        json!({"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 3})
    );
    for odd in [json!(null), json!("many"), json!({"input_tokens": "x"})] {
        let end = json!({"type": "response.completed", "response": {"usage": odd}});
        let usage = told(&[done(0, message(0, "a")), end]).end.unwrap().1;
        assert_eq!(usage, json!({"output_tokens": 0}));
    }
    let more_cached = json!({"type": "response.done", "response": {"usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 5}, "output_tokens_details": null}}});
    let usage = told(&[done(0, message(0, "a")), more_cached])
        .end
        .unwrap()
        .1;
    assert_eq!(
        usage,
        json!({"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1, "output_tokens": 0})
    );
}

#[test]
fn failures_are_read_in_every_shape() {
    let code = |code: &str| StreamFailure {
        code: Some(code.to_owned()),
        ..StreamFailure::default()
    };
    for (event, wanted) in [
        (
            json!({"type": "response.failed", "response": {"error": {"code": "a", "message": "m", "type": "t", "resets_at": 7}}}),
            StreamFailure {
                message: Some("m".to_owned()),
                kind: Some("t".to_owned()),
                resets_at: Some(7),
                ..code("a")
            },
        ),
        (
            json!({"type": "response.failed", "response": {"error": null}}),
            StreamFailure::default(),
        ),
        (json!({"type": "response.failed"}), StreamFailure::default()),
        (
            json!({"type": "response.completed", "response": {"status": "failed", "error": null}}),
            StreamFailure::default(),
        ),
        (
            json!({"type": "response.completed", "response": {"error": {"code": "a"}}}),
            code("a"),
        ),
        (
            json!({"type": "response.done", "response": {"status": "failed", "error": {"code": "a"}}}),
            code("a"),
        ),
        (
            json!({"type": "error", "error": {"code": "a"}, "status": 429}),
            StreamFailure {
                status: Some(429),
                ..code("a")
            },
        ),
        (
            json!({"type": "error", "error": {"code": null, "message": null, "type": null}, "status": null}),
            StreamFailure::default(),
        ),
        (
            json!({"type": "error", "error": "boom"}),
            StreamFailure {
                message: Some("boom".to_owned()),
                ..StreamFailure::default()
            },
        ),
        (
            json!({"type": "error", "code": "a", "message": null, "param": null}),
            code("a"),
        ),
        (json!({"type": "error", "code": 500}), code("500")),
        (
            json!({"type": "error", "error": null, "code": "a"}),
            code("a"),
        ),
        (
            json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}),
            StreamFailure {
                incomplete: Some("content_filter".to_owned()),
                ..StreamFailure::default()
            },
        ),
        (
            json!({"type": "response.incomplete", "response": {"incomplete_details": null}}),
            StreamFailure {
                incomplete: Some(UNSTATED.to_owned()),
                ..StreamFailure::default()
            },
        ),
        (completed(), code(EMPTY_COMPLETION)),
    ] {
        assert_eq!(failure(std::slice::from_ref(&event)), wanted, "{event}");
    }
    for data in [r#"{"error":{"code":"a"}}"#, r#"{"detail":{"code":"a"}}"#] {
        let step = run(&[format!("data: {data}\n\n").as_bytes()]).step;
        assert_eq!(step, Step::Failed(code("a")), "{data}");
    }
    assert_eq!(
        run(&[b"event: error\ndata: no json\n\n"]).step,
        Step::Failed(StreamFailure::default())
    );
}

#[test]
fn the_last_token_ends_the_turn_with_what_there_is() {
    let end = json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}});
    for (events, wanted) in [
        (vec![text_delta(0, "half")], vec![text("half")]),
        (vec![], vec![]),
        (vec![arguments_delta(0, "{\"a")], vec![]),
        (
            vec![added(0, call(0, "f", "")), arguments_delta(0, "{\"a")],
            vec![tool("call0", "f", json!("{\"a"))],
        ),
    ] {
        let message = told(&[events, vec![end.clone()]].concat());
        assert_eq!(message.content, wanted);
        assert_eq!(message.end.unwrap().0, "max_tokens");
    }
}

#[test]
fn what_says_nothing_is_passed_over() {
    let noise = "data: [DONE]\n\ndata: not json\n\nevent: keepalive\ndata: {}\n\nevent: response.created\ndata: {\n\n\
        event: response.output_text.delta\ndata: {\"delta\":7}\n\nevent: response.output_text.delta\ndata: {\"delta\":\"x\"\n\n\
        event: response.output_item.done\ndata: {\"item\":[1]}\n\nevent: response.output_item.done\ndata: {\"item\":{\"type\":7}}\n\n\
        event: response.completed\ndata: {\"response\":{\n\n";
    let mut machine = Machine::new(setup());
    let mut out = Vec::new();
    let mut decoder = Decoder::default();
    decoder.feed(noise.as_bytes()).unwrap();
    while let Some(frame) = decoder.next_frame() {
        assert_eq!(machine.feed(frame, &mut out), Step::Continue, "{frame:?}");
    }
    assert!(out.is_empty());
    assert!(!machine.is_committed());
}

#[test]
fn only_content_commits_and_an_attempt_can_be_begun_again() {
    let mut machine = Machine::new(setup());
    let mut out = Vec::new();
    let feed = |machine: &mut Machine, event: Value, out: &mut Vec<u8>| {
        let (name, data) = (
            event["type"].as_str().unwrap().to_owned(),
            event.to_string(),
        );
        machine.feed(
            Frame {
                event: &name,
                data: &data,
            },
            out,
        )
    };
    feed(
        &mut machine,
        json!({"type": "response.created", "response": {}}),
        &mut out,
    );
    feed(&mut machine, json!({"type": "codex.rate_limits"}), &mut out);
    assert!(!machine.has_begun());
    machine.start(&mut out);
    feed(&mut machine, added(0, reasoning(0, &[], None)), &mut out);
    feed(
        &mut machine,
        text_delta(1, "held, lost with its attempt"),
        &mut out,
    );
    assert!(machine.has_begun() && !machine.is_committed());
    let step = feed(&mut machine, json!({"type": "response.failed"}), &mut out);
    assert_eq!(step, Step::Failed(StreamFailure::default()));
    machine.restart(Origin {
        account: "other".to_owned(),
        model: "gpt-6".to_owned(),
    });
    assert!(!machine.has_begun());
    feed(
        &mut machine,
        done(0, reasoning(0, &[], Some("g"))),
        &mut out,
    );
    assert!(machine.is_committed());
    feed(&mut machine, done(1, message(1, "yes")), &mut out);
    assert_eq!(feed(&mut machine, completed(), &mut out), Step::Finished);
    let message = check(&String::from_utf8(out).unwrap());
    assert_eq!(
        message.content,
        [thinking("", "ccx1:other:gpt-6:i0:g;"), text("yes")]
    );
}

#[test]
fn an_empty_completion_can_be_settled_for() {
    let events = stream(&[completed()]);
    let (mut fold, step) = fold(events.as_bytes());
    assert!(matches!(step, Step::Failed(_)));
    fold.end_empty();
    let body: Value = serde_json::from_slice(&fold.into_body()).unwrap();
    assert_eq!(body["content"], json!([]));
    assert_eq!(body["stop_reason"], "end_turn");
    assert_eq!(body["usage"]["input_tokens"], 6);
}

#[test]
fn held_content_above_the_decoders_limit_fails_the_fold_and_no_more() {
    let megabyte = "x".repeat(1 << 20);
    let mut events = vec![added(0, reasoning(0, &[], None))];
    events.extend((0..17).map(|_| text_delta(1, &megabyte)));
    events.push(completed());
    let stream = stream(&events);
    assert_eq!(run(&[stream.as_bytes()]).step, Step::Finished);
    let (_, step) = fold(stream.as_bytes());
    let Step::Failed(failure) = step else {
        panic!("{step:?}");
    };
    assert_eq!(failure.code.as_deref(), Some(TOO_LONG));
}

#[test]
fn an_answer_without_end_fails() {
    let megabyte = "x".repeat(1 << 20);
    let events = vec![text_delta(0, &megabyte); 65];
    assert_eq!(failure(&events).code.as_deref(), Some(TOO_LONG));
}

#[test]
fn halves_of_a_surrogate_pair_pass_as_they_are() {
    let delta = |half: &str| {
        format!(
            "event: response.output_text.delta\ndata: {{\"output_index\":0,\"delta\":\"{half}\"}}\n\n"
        )
    };
    let stream = delta(r"\ud83d") + &delta(r"\ude00") + &self::stream(&[completed()]);
    let run = run(&[stream.as_bytes()]);
    assert!(
        run.output.contains(r#""text":"\ud83d"}"#) && run.output.contains(r#""text":"\ude00"}"#)
    );
    let (fold, _) = fold(stream.as_bytes());
    let body: Value = serde_json::from_slice(&fold.into_body()).unwrap();
    assert_eq!(body["content"], json!([{"type": "text", "text": "😀"}]));
}

/// Rewrites every JSON of a stream so that the quick reading gives up on it.
fn slowed(stream: &str) -> String {
    stream
        .lines()
        .map(|line| match line.strip_prefix("data: {") {
            Some(rest) => format!("data: {{ {rest}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn quick_and_plain_reading_write_the_same() {
    for (name, stream) in fixtures() {
        let stream = String::from_utf8(stream).unwrap();
        assert_eq!(
            run(&[slowed(&stream).as_bytes()]),
            run(&[stream.as_bytes()]),
            "{name}"
        );
        let nameless: String = stream
            .lines()
            .filter(|line| !line.starts_with("event:"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(
            run(&[nameless.as_bytes()]),
            run(&[stream.as_bytes()]),
            "{name} without event fields"
        );
    }
}

fn soup_item() -> impl Strategy<Value = Value> {
    let piece = prop_oneof![
        Just(String::new()),
        Just(" ".to_owned()),
        "[a-c\"\\\\\n\u{e4}]{1,4}"
    ];
    let id = prop_oneof![
        Just(Value::Null),
        (0..4u64).prop_map(|id| json!(format!("i{id}")))
    ];
    (0..4u8, id, piece.clone(), piece, proptest::option::of(Just("gAA")), any::<bool>()).prop_map(
        |(kind, id, one, two, encrypted, has_name)| {
            let name = has_name.then_some("f");
            match kind {
                0 => json!({"type": "message", "id": id, "content": [{"text": one}, {"refusal": two}]}),
                1 => json!({"type": "reasoning", "id": id, "summary": [{"text": one}, {"text": two}], "encrypted_content": encrypted}),
                2 => json!({"type": "function_call", "id": id, "call_id": name, "name": name, "arguments": one}),
                _ => json!({"type": "custom_tool_call", "id": id, "call_id": name, "name": name, "input": two}),
            }
        },
    )
}

fn soup_event() -> impl Strategy<Value = Value> {
    let index = prop_oneof![1 => Just(Value::Null), 4 => (0..4u64).prop_map(|index| json!(index))];
    let id = prop_oneof![
        Just(Value::Null),
        (0..4u64).prop_map(|id| json!(format!("i{id}")))
    ];
    const NAMES: [&str; 12] = [
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.output_text.done",
        "response.reasoning_summary_text.done",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.done",
        "response.created",
        "response.unknown",
    ];
    let text = "[a-c\"\\\\\n\u{e4}]{0,4}";
    prop_oneof![
        6 => (proptest::sample::select(&NAMES[..]), index.clone(), id, 0..3u64, text).prop_map(|(name, index, id, part, text)| json!({
            "type": name, "output_index": index, "item_id": id, "content_index": part,
            "delta": text, "text": text, "arguments": text, "input": text,
        })),
        2 => (index.clone(), soup_item()).prop_map(|(index, item)| json!({"type": "response.output_item.added", "output_index": index, "item": item})),
        3 => (index, soup_item()).prop_map(|(index, item)| json!({"type": "response.output_item.done", "output_index": index, "item": item})),
    ]
}

fn soup_end() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(json!({"type": "response.failed", "response": {"error": {"code": "a"}}}))),
        1 => Just(Some(json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}))),
        4 => proptest::collection::vec(soup_item(), 0..3).prop_map(|output| Some(json!({"type": "response.completed", "response": {"output": output}}))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_soup_of_events_is_a_legal_stream(
        events in proptest::collection::vec(soup_event(), 0..24),
        end in soup_end(),
    ) {
        let events: Vec<Value> = events.into_iter().chain(end).collect();
        let stream = stream(&events);
        let whole = run(&[stream.as_bytes()]);
        // The quick way is the plain way with less work.
        prop_assert_eq!(&run(&[slowed(&stream).as_bytes()]), &whole);
        told(&events);
    }

    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&run(&[&bytes]).output);
    }

    #[test]
    fn an_interleaving_tells_what_the_sequence_tells(
        order in proptest::collection::vec(0..3usize, 0..40),
        texts in proptest::collection::vec("[a-z\"\\\\\n ]{1,6}", 3),
    ) {
        // Three items, each with its own sequence of events, told in turns.
        let arguments = json!({"a": texts[1]}).to_string();
        let (head, tail) = arguments.split_at(4);
        let items = [
            vec![added(0, reasoning(0, &[], None)), summary_delta(0, 0, &texts[0]), done(0, reasoning(0, &[&texts[0]], Some("g")))],
            vec![added(1, call(1, "f", "")), arguments_delta(1, head), arguments_delta(1, tail), done(1, call(1, "f", &arguments))],
            vec![added(2, message(2, "")), text_delta(2, &texts[2]), done(2, message(2, &texts[2]))],
        ];
        let mut rest: Vec<_> = items.iter().map(|events| events.iter()).collect();
        // The first item begins: upstream announces items in their order.
        let mut events: Vec<Value> = rest.iter_mut().filter_map(|item| item.next().cloned()).collect();
        events.extend(order.iter().filter_map(|at| rest[*at].next().cloned()));
        events.extend(rest.into_iter().flatten().cloned());
        events.push(completed());
        let sequence: Vec<Value> = items.concat().into_iter().chain([completed()]).collect();
        prop_assert_eq!(content(&events), content(&sequence));
    }
}
