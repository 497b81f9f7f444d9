//! Stop sequences and limits of tokens, which upstream does not know: kept on the stream and in the whole answer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/grammar.rs"]
mod grammar;
#[path = "support/machine.rs"]
mod machine;
mod support;

use std::sync::Arc;

use ccx::ledger::Outcome;
use ccx::sse::Decoder;
use ccx::translate::cut::Bounds;
use ccx::translate::fold::Fold;
use ccx::translate::stream::{Setup, Step};
use ccx::wire::messages::Request;
use serde_json::{Value, json};

use grammar::check;
use machine::{run_with, setup};
use support::proxy::Proxy;

fn bounded(bounds: &Value) -> Setup {
    let mut body = json!({"model": "m", "messages": []});
    for (name, value) in bounds.as_object().unwrap() {
        body[name] = value.clone();
    }
    let body = body.to_string();
    let bounds = Bounds::of(&Request::parse(body.as_bytes()).unwrap()).unwrap();
    Setup {
        bounds: Some(Arc::clone(bounds.as_ref().unwrap())),
        ..setup()
    }
}

fn frames(events: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        let name = event["type"].as_str().unwrap();
        out.extend_from_slice(format!("event: {name}\ndata: {event}\n\n").as_bytes());
    }
    out
}

fn item(kind: &str, index: u64, item: &Value) -> Value {
    json!({"type": format!("response.output_item.{kind}"), "output_index": index, "item": item})
}

fn message(index: u64, pieces: &[&str]) -> Vec<Value> {
    let id = format!("msg_{index}");
    let text: String = pieces.concat();
    let whole =
        json!({"type": "message", "id": id, "content": [{"type": "output_text", "text": text}]});
    let mut events = vec![item(
        "added",
        index,
        &json!({"type": "message", "id": id, "content": []}),
    )];
    for piece in pieces {
        events.push(json!({"type": "response.output_text.delta", "output_index": index, "item_id": id, "content_index": 0, "delta": piece}));
    }
    events.push(item("done", index, &whole));
    events
}

fn call(index: u64, arguments: &[&str]) -> Vec<Value> {
    let call = |arguments: &str| json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "Bash", "arguments": arguments});
    let mut events = vec![item("added", index, &call(""))];
    for piece in arguments {
        events.push(json!({"type": "response.function_call_arguments.delta", "output_index": index, "item_id": "fc_1", "delta": piece}));
    }
    events.push(item("done", index, &call(&arguments.concat())));
    events
}

fn completed() -> Value {
    json!({"type": "response.completed", "response": {"id": "r", "usage": {"input_tokens": 10, "output_tokens": 3}}})
}

/// What the client makes of `events` under `bounds`: the whole answer, and whether upstream was let go of. Both ways
/// of answering must say the same.
fn answer(bounds: &Value, events: &[Value]) -> (Value, Step) {
    let stream = frames(events);
    let run = run_with(bounded(bounds), &[&stream]);
    let streamed = check(&run.output);
    let mut fold = Fold::new(bounded(bounds));
    let mut decoder = Decoder::default();
    decoder.feed(&stream).unwrap();
    let mut step = Step::Continue;
    while let Some(frame) = decoder.next_frame() {
        step = fold.feed(frame);
        if step != Step::Continue {
            break;
        }
    }
    assert_eq!(step, run.step);
    assert_eq!(fold.usage(), run.usage);
    assert_eq!(fold.is_estimate(), step == Step::Cut);
    let body: Value = serde_json::from_slice(&fold.into_body()).unwrap();
    let (reason, usage) = streamed.end.unwrap();
    assert_eq!(body["content"], Value::from(streamed.content));
    assert_eq!(body["stop_reason"], reason);
    assert_eq!(body["usage"], usage);
    (body, step)
}

fn events(parts: &[Vec<Value>]) -> Vec<Value> {
    let mut events = parts.concat();
    events.push(completed());
    events
}

#[test]
fn a_stop_sequence_ends_the_answer_before_it() {
    let stops = json!({"stop_sequences": ["</block>"]});
    for pieces in [
        &["<block>no</block> because"][..],
        &["<block>", "no", "</", "bl", "ock", "> because"],
        &["<block>no<", "/block>"],
    ] {
        let (body, step) = answer(&stops, &events(&[message(0, pieces)]));
        assert_eq!(
            body["content"],
            json!([{"type": "text", "text": "<block>no"}])
        );
        assert_eq!(body["stop_reason"], "stop_sequence");
        assert_eq!(body["stop_sequence"], "</block>");
        assert_eq!(step, Step::Cut);
        // Two tokens by estimate, and the input as it was estimated at the start.
        assert_eq!(body["usage"]["input_tokens"], 42);
        assert!(body["usage"]["output_tokens"].as_u64().unwrap() >= 2);
    }
}

#[test]
fn what_was_held_back_is_shown_when_it_turns_out_to_be_none() {
    let stops = json!({"stop_sequences": ["</block>"]});
    let (body, step) = answer(&stops, &events(&[message(0, &["a </blo", "ck"])]));
    assert_eq!(
        body["content"],
        json!([{"type": "text", "text": "a </block"}])
    );
    assert_eq!(body["stop_reason"], "end_turn");
    assert_eq!(body["stop_sequence"], Value::Null);
    assert_eq!(step, Step::Finished);
    assert_eq!(body["usage"]["output_tokens"], 3);
}

#[test]
fn a_stop_sequence_does_not_reach_from_one_block_into_another() {
    let stops = json!({"stop_sequences": ["ab"]});
    let (body, _) = answer(&stops, &events(&[message(0, &["xa"]), message(1, &["b"])]));
    assert_eq!(body["content"].as_array().unwrap().len(), 2);
    assert_eq!(body["stop_reason"], "end_turn");
}

#[test]
fn an_answer_that_is_nothing_but_a_stop_sequence_is_empty() {
    let stops = json!({"stop_sequences": ["STOP"]});
    let (body, _) = answer(&stops, &events(&[message(0, &["ST", "OP", "x"])]));
    assert_eq!(body["content"], json!([]));
    assert_eq!(body["stop_reason"], "stop_sequence");
}

#[test]
fn texts_that_come_only_as_a_whole_are_cut_too() {
    let whole = json!({"type": "message", "id": "m", "content": [{"type": "output_text", "text": "one STOP two"}]});
    let (body, _) = answer(
        &json!({"stop_sequences": ["STOP"]}),
        &[item("done", 0, &whole), completed()],
    );
    assert_eq!(body["content"], json!([{"type": "text", "text": "one "}]));
}

#[test]
fn a_limit_of_tokens_ends_the_text() {
    let long = "word ".repeat(40);
    let (body, step) = answer(
        &json!({"max_tokens": 10}),
        &events(&[message(0, &[&long, &long])]),
    );
    let text = body["content"][0]["text"].as_str().unwrap();
    assert_eq!(text, "word ".repeat(10));
    assert_eq!(body["stop_reason"], "max_tokens");
    assert_eq!(body["usage"]["output_tokens"], 10);
    assert_eq!(step, Step::Cut);
}

#[test]
fn a_limit_that_is_not_reached_changes_nothing() {
    let (body, step) = answer(
        &json!({"max_tokens": 100}),
        &events(&[message(0, &["short"])]),
    );
    assert_eq!(body["stop_reason"], "end_turn");
    assert_eq!(step, Step::Finished);
}

#[test]
fn a_call_that_has_begun_is_told_whole_and_nothing_after_it() {
    let arguments = [r#"{"command":"#, r#""echo a long line of words""#, "}"];
    let both = [
        message(0, &["a"]),
        call(1, &arguments),
        message(2, &["more"]),
    ];
    let (body, step) = answer(&json!({"max_tokens": 3}), &events(&both));
    assert_eq!(body["content"].as_array().unwrap().len(), 2);
    assert_eq!(
        body["content"][1]["input"],
        json!({"command": "echo a long line of words"})
    );
    assert_eq!(body["stop_reason"], "tool_use");
    assert_eq!(step, Step::Cut);

    // One that would begin behind the limit is not told at all.
    let long = "word ".repeat(8);
    let late = [message(0, &[&long]), call(1, &arguments)];
    let (body, _) = answer(&json!({"max_tokens": 8}), &events(&late));
    assert_eq!(body["content"].as_array().unwrap().len(), 1);
    assert_eq!(body["stop_reason"], "max_tokens");
}

#[test]
fn thinking_is_not_counted() {
    let thought = "thinking ".repeat(100);
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": thought}], "encrypted_content": "gAAA"});
    let (body, _) = answer(
        &json!({"max_tokens": 5}),
        &events(&[vec![item("done", 0, &reasoning)], message(1, &["yes"])]),
    );
    assert_eq!(body["content"].as_array().unwrap().len(), 2);
    assert_eq!(body["stop_reason"], "end_turn");
}

#[test]
fn a_call_that_upstream_cut_off_never_looks_complete() {
    let incomplete = json!({"type": "response.incomplete", "response": {"id": "r", "incomplete_details": {"reason": "max_output_tokens"}}});
    let begun = |item_: Value| vec![item("added", 0, &item_)];
    let function = json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "Bash", "arguments": ""});
    let custom = json!({"type": "custom_tool_call", "id": "ct_1", "call_id": "c", "name": "patch", "input": ""});
    let piece = json!({"type": "response.custom_tool_call_input.delta", "output_index": 0, "item_id": "ct_1", "delta": "*** Begin"});
    for (mut events, blocks) in [
        (begun(function), 0),
        (begun(custom.clone()), 0),
        ([begun(custom), vec![piece]].concat(), 1),
    ] {
        events.push(incomplete.clone());
        let run = run_with(setup(), &[&frames(&events)]);
        let message = check(&run.output);
        assert_eq!(message.content.len(), blocks, "{events:?}");
        for block in message.content {
            assert!(block["input"].is_string(), "{block}");
        }
        assert_eq!(message.end.unwrap().0, "max_tokens");
    }
}

/// A permission check of the client, stage 1.
fn check_of(text: &str) -> Value {
    json!({
        "model": "claude-sonnet-5", "max_tokens": 64, "stop_sequences": ["</block>"],
        "thinking": {"type": "disabled"},
        "system": "Judge the call.",
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "<transcript>\n"},
            {"type": "text", "text": text},
            {"type": "text", "text": "</transcript>\n"},
        ]}],
    })
}

#[tokio::test]
async fn upstream_is_let_go_of_at_the_cut_and_the_ledger_says_that_it_estimates() {
    let scenario = json!({"about": "never ends by itself", "steps": [
        {"name": "judge", "when": {}, "answer": [{"text": "<block>no</block>"}, "stall"]},
    ]});
    let proxy = Proxy::start(&scenario);
    let answer = proxy.messages(&check_of("{\"user\":\"list\"}\n")).await;
    let body = answer.json();
    assert_eq!(
        body["content"],
        json!([{"type": "text", "text": "<block>no"}])
    );
    assert_eq!(body["stop_reason"], "stop_sequence");
    let mut streamed = check_of("x");
    streamed["stream"] = json!(true);
    let answer = proxy.messages(&streamed).await;
    assert_eq!(answer.text(), "<block>no");
    assert_eq!(answer.last(), "message_stop");
    let (entries, _) = proxy.finished(2).await;
    while proxy.backend.cancelled() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for entry in entries {
        assert_eq!(entry.outcome, Outcome::Done);
        assert!(entry.is_estimate);
        assert!(entry.usage.unwrap().output_tokens >= 2);
        assert!(entry.losses.is_empty(), "{:?}", entry.losses);
    }
}

#[tokio::test]
async fn stop_sequences_without_end_are_refused() {
    let proxy = Proxy::start(&json!({"about": "nothing", "steps": []}));
    let mut request = check_of("x");
    request["stop_sequences"] = json!(["x".repeat(5_000)]);
    let (status, kind, message) = proxy.messages(&request).await.error();
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert!(message.starts_with("stop_sequences: "), "{message}");
}
