//! What `count_tokens` answers: by the tokenizer, by stated rules, and never less for more.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::{LazyLock, Mutex};

use ccx::translate::count::{Known, input_tokens};
use ccx::translate::reasoning::Seal;
use ccx::translate::tokenizer::Tokenizer;
use ccx::wire::messages::Request;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use support::proxy::Proxy;

mod support;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn count_text(body: &str) -> u64 {
    let request = Request::parse(body.as_bytes()).unwrap();
    input_tokens(&request, &TOKENIZER, &KNOWN, || true).unwrap()
}

fn count(body: &Value) -> u64 {
    count_text(&body.to_string())
}

fn of(messages: Value) -> u64 {
    count(&json!({"model": "m", "messages": messages}))
}

fn said(content: Value) -> u64 {
    of(json!([{"role": "user", "content": content}]))
}

fn recorded(name: &str) -> Value {
    let path = format!("tests/fixtures/claude-code/{name}.json");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["request"]["body"].take()
}

/// The recorded requests stand with filler for prose, so nothing that upstream reported fits them. What is held here is
/// what an independent implementation of the vocabulary counts in them, by the same rules.
#[test]
fn recorded_requests_are_counted() {
    let message = recorded("22-count-tokens-message");
    let text = message["messages"][0]["content"].as_str().unwrap();
    assert_eq!(count(&message), 4 + TOKENIZER.count(text));
    let tools = recorded("23-count-tokens-tools");
    let parts = tools["tools"].as_array().unwrap().iter().map(|tool| {
        let text = |name: &str| TOKENIZER.count(tool[name].as_str().unwrap());
        8 + text("name") + text("description") + TOKENIZER.count(&tool["input_schema"].to_string())
    });
    assert_eq!(count(&tools), 4 + 1 + parts.sum::<u64>());
}

#[test]
fn parts_cost_what_the_rules_say() {
    let base = said(json!([]));
    assert_eq!(base, 4);
    let costs = |block: Value| said(json!([block])) - base;
    let sealed = |size: usize| {
        Seal {
            account: "a",
            model: "m",
            id: "rs_1",
            encrypted: &"A".repeat(size),
        }
        .write()
    };
    let picture = |data: &str| json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}});
    let cases = [
        (json!({"type": "text", "text": "hello world"}), 2),
        (json!({"type": "text", "text": ""}), 0),
        (
            json!({"type": "text", "text": "x-anthropic-billing-header: cc_version=1;"}),
            0,
        ),
        (json!({"type": "text", "text": "中文与代码"}), 3),
        (
            json!({"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}),
            1_844,
        ),
        (picture("iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA10dzk"), 300),
        (picture("AAAA"), 1_844),
        (
            json!({"type": "document", "source": {"type": "text", "data": "hello world"}}),
            2,
        ),
        (
            json!({"type": "document", "title": "hello", "source": {"type": "base64", "media_type": "application/pdf", "data": "A".repeat(300_000)}}),
            10_001,
        ),
        (
            json!({"type": "tool_use", "id": "toolu_0123456789", "name": "hello", "input": {}}),
            12,
        ),
        (
            json!({"type": "tool_result", "tool_use_id": "toolu_0123456789", "content": "hello world"}),
            12,
        ),
        (
            json!({"type": "thinking", "thinking": "not ours, so not sent", "signature": "ErUBCkYIBxgC"}),
            0,
        ),
        (
            json!({"type": "thinking", "thinking": "", "signature": sealed(4_000)}),
            (3_000 - 650) / 4,
        ),
        (
            json!({"type": "thinking", "thinking": "", "signature": sealed(10)}),
            0,
        ),
        (json!({"type": "redacted_thinking", "data": "abc"}), 0),
        (json!({"type": "no_such_block"}), 0),
    ];
    for (block, tokens) in cases {
        assert_eq!(costs(block.clone()), tokens, "{block}");
    }
}

#[test]
fn a_deferred_tool_costs_nothing_until_it_is_loaded() {
    let tool = |deferred: bool| json!({"name": "lookup", "description": "looks up things", "input_schema": {"type": "object"}, "defer_loading": deferred});
    let with = |tools: Value, content: Value| {
        count(
            &json!({"model": "m", "tools": tools, "messages": [{"role": "user", "content": content}]}),
        )
    };
    let loads = json!([{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "tool_reference", "tool_name": "lookup"}]}]);
    let none = with(json!([]), json!("x"));
    assert_eq!(with(json!([tool(true)]), json!("x")), none);
    let cost = with(json!([tool(false)]), json!("x")) - none;
    assert!(cost > 8);
    assert_eq!(
        with(json!([tool(true)]), loads.clone()) - with(json!([]), loads),
        cost
    );
}

#[test]
fn a_text_counts_the_same_however_it_is_escaped() {
    let body = |text: &str| {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#)
    };
    let plain = "große Dinge 😀 – 中文/x ".repeat(40);
    let escaped = r"gro\u00dfe Dinge \ud83d\ude00 \u2013 \u4e2d\u6587\/x ".repeat(40);
    assert_eq!(count_text(&body(&plain)), count_text(&body(&escaped)));
    assert_eq!(count_text(&body(&plain)), 4 + TOKENIZER.count(&plain));
}

#[test]
fn a_text_that_was_counted_before_counts_the_same() {
    let long = "fn main() { println!(\"hello\"); }\n".repeat(500);
    let known = Mutex::default();
    let body = json!({"model": "m", "messages": [{"role": "user", "content": long}]}).to_string();
    let request = Request::parse(body.as_bytes()).unwrap();
    let first = input_tokens(&request, &TOKENIZER, &known, || true);
    assert_eq!(first, Some(4 + TOKENIZER.count(&long)));
    // Nothing is counted any more: a count that may not go on still answers.
    assert_eq!(input_tokens(&request, &TOKENIZER, &known, || false), first);
    assert_eq!(
        input_tokens(&request, &TOKENIZER, &Mutex::default(), || false),
        None
    );
}

#[test]
fn an_endless_text_is_taken_by_its_size_in_the_end() {
    let text = "x".repeat(17 << 20);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    assert_eq!(count_text(&body), 4 + (17 << 20) / 3);
}

fn block() -> impl Strategy<Value = Value> {
    prop_oneof![
        "(?s).{0,60}".prop_map(|text| json!({"type": "text", "text": text})),
        "[a-z]{1,8}".prop_map(|name| json!({"type": "tool_use", "id": "a", "name": name, "input": {"x": name}})),
        "(?s).{0,300}".prop_map(|text| json!({"type": "tool_result", "tool_use_id": "a", "content": text})),
        Just(json!({"type": "image", "source": {"type": "url", "url": "u"}})),
        "[A-Za-z0-9+/]{0,80}".prop_map(|data| json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})),
        "(?s).{0,60}".prop_map(|text| json!({"type": "document", "title": text, "source": {"type": "text", "data": text}})),
        "[A-Za-z0-9]{0,2000}".prop_map(|text| json!({"type": "thinking", "thinking": "", "signature": format!("ccx1:a:b:c:{text};")})),
        Just(json!({"type": "tool_reference", "tool_name": "t1"})),
        Just(json!({"type": "new"})),
    ]
}

fn tool() -> impl Strategy<Value = Value> {
    ("t[0-9]", "(?s).{0,40}", any::<bool>()).prop_map(|(name, description, deferred)| {
        json!({"name": name, "description": description, "input_schema": {"type": "object"}, "defer_loading": deferred})
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn more_content_is_never_fewer_tokens(
        blocks in prop::collection::vec(block(), 0..6),
        tools in prop::collection::vec(tool(), 0..4),
        at in 0usize..6,
        more in block(),
        other in tool(),
    ) {
        let whole = |blocks: &[Value], tools: &[Value]| {
            count(&json!({"model": "m", "tools": tools, "messages": [{"role": "user", "content": blocks}]}))
        };
        let before = whole(&blocks, &tools);
        let mut larger = blocks.clone();
        larger.insert(at.min(blocks.len()), more.clone());
        prop_assert!(whole(&larger, &tools) >= before);
        let more_tools: Vec<_> = tools.iter().chain([&other]).cloned().collect();
        prop_assert!(whole(&blocks, &more_tools) >= before);
        let parted = of(json!([{"role": "user", "content": blocks}, {"role": "assistant", "content": [more]}]));
        prop_assert!(parted >= said(json!(blocks)));
    }
}

/// The client asks for a score of counts at once (`/context`).
#[tokio::test]
async fn many_counts_at_once_are_all_answered_and_upstream_is_not_asked() {
    let proxy = Proxy::start(&json!({"about": "nothing is asked", "steps": []}));
    let section = "A section of the prompt, in words. ".repeat(2_000);
    let asked = (0..22).map(|at| {
        let body = json!({"model": "gpt-5.5", "tools": [], "messages": [{"role": "user", "content": format!("{at}")}, {"role": "user", "content": section}]});
        let request = proxy.request("POST", "/v1/messages/count_tokens?beta=true");
        let expected = count(&body);
        tokio::spawn(async move {
            let answer = request.body(body.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(answer, json!({"input_tokens": expected}));
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    let requests = proxy.backend.requests();
    assert!(!requests.iter().any(|seen| seen.is_response()));
}

#[tokio::test]
async fn a_count_of_no_request_is_refused_with_the_place() {
    let proxy = Proxy::start(&json!({"about": "nothing is asked", "steps": []}));
    let request = proxy.request("POST", "/v1/messages/count_tokens");
    let answer = proxy
        .send(request.body(r#"{"model":"m","messages":5}"#))
        .await;
    let (status, kind, message) = answer.error();
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert_eq!(message, "messages: expected an array");
}
