//! The client's calls beside the conversation: who answers them, and that they leave no trace in it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use serde_json::{Value, json};

use support::proxy::{Proxy, prompt};

fn anything() -> Value {
    json!({"about": "answers anything", "steps": [
        {"name": "any", "when": {}, "answer": [{"text": "<block>no</block>"}]},
    ]})
}

fn title() -> Value {
    json!({
        "model": "claude-opus-5-5", "max_tokens": 128_000, "stream": true, "tools": [],
        "messages": [{"role": "user", "content": "<session>hello</session>"}],
        "output_config": {"effort": "medium", "format": {"type": "json_schema", "schema": {
            "type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"], "additionalProperties": false,
        }}},
    })
}

fn check() -> Value {
    json!({
        "model": "claude-sonnet-5", "max_tokens": 64, "stop_sequences": ["</block>"],
        "thinking": {"type": "disabled"}, "system": "Judge.",
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "<transcript>\n"},
            {"type": "text", "text": "{\"user\":\"list\"}\n"},
            {"type": "text", "text": "</transcript>\n"},
        ]}],
    })
}

/// The bodies that upstream was sent, oldest first.
fn bodies(proxy: &Proxy) -> Vec<Arc<Value>> {
    let requests = proxy.backend.requests();
    let responses = requests.into_iter().filter(|seen| seen.is_response());
    responses.map(|seen| seen.body).collect()
}

async fn ask(proxy: &Proxy, body: &Value) {
    let request = proxy.request("POST", "/v1/messages?beta=true");
    let request = request.header("x-claude-code-session-id", "s-1");
    let answer = proxy.send(request.body(body.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn small_calls_go_to_the_small_model_and_have_a_cache_of_their_own() {
    // [E07, I13]
    let proxy = Proxy::start(&anything());
    ask(&proxy, &prompt("hello", true)).await;
    ask(&proxy, &title()).await;
    ask(&proxy, &check()).await;
    ask(&proxy, &prompt("hello", true)).await;
    let sent = bodies(&proxy);
    let of = |at: usize| {
        (
            sent[at]["model"].as_str().unwrap(),
            sent[at]["reasoning"]["effort"].as_str().unwrap(),
        )
    };
    assert_eq!(of(0).0, "gpt-6.1-sol");
    assert_eq!(of(1), ("gpt-6-luna", "low"));
    assert_eq!(of(2), ("gpt-6-luna", "low"));
    assert_eq!(of(3), of(0));
    let keys: Vec<&str> = sent
        .iter()
        .map(|body| body["prompt_cache_key"].as_str().unwrap())
        .collect();
    assert_eq!((keys[0], keys[3]), ("s-1", "s-1"));
    assert!(
        keys[1] != keys[2] && keys[1] != "s-1" && keys[2] != "s-1",
        "{keys:?}"
    );
    let (entries, _) = proxy.finished(4).await;
    let classes: Vec<&str> = entries.iter().map(|entry| entry.class.as_str()).collect();
    assert_eq!(classes, ["main", "title", "classifier", "main"]);
    // All of them belong to the one session.
    assert!(entries.iter().all(|entry| entry.conversation == "s-1"));
}

#[tokio::test]
async fn a_plan_without_the_small_model_answers_with_the_one_that_was_asked_for() {
    // [I10]
    let mut scenario = anything();
    scenario["accounts"] = json!({"test": {"refused": ["gpt-6-luna"]}});
    let proxy = Proxy::start(&scenario);
    ask(&proxy, &title()).await;
    let models: Vec<String> = bodies(&proxy)
        .iter()
        .map(|body| body["model"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(models, ["gpt-6-luna", "gpt-6.1-sol"]);
    let (entries, _) = proxy.finished(1).await;
    assert_eq!(
        (entries[0].model.as_str(), entries[0].attempts),
        ("gpt-6.1-sol", 2)
    );
}

#[tokio::test]
async fn who_asks_for_a_verdict_is_told_that_there_is_none() {
    let proxy = Proxy::start(&anything());
    let mut request = prompt("hello", true);
    request["safeguards"] = json!([{"type": "dangerous_tool_use"}]);
    let answer = proxy.messages(&request).await;
    let events = answer.events();
    let (_, end) = events
        .iter()
        .find(|(name, _)| name == "message_delta")
        .unwrap();
    assert_eq!(
        end["delta"]["safeguard_results"],
        json!([{"type": "dangerous_tool_use", "status": {"type": "unsupported"}}])
    );
    let answer = proxy.messages(&prompt("hello", true)).await;
    assert!(!answer.body.contains("safeguard_results"));
}
