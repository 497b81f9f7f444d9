//! Upstream's own API: what is made of a request so that the plan takes it, and an answer that stays as upstream says it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use ccx::account::chooser::Rules;
use ccx::ledger::Outcome;
use ccx::translate::native::ask;
use serde_json::{Value, json};
use support::proxy::{Answer, Proxy};

/// A scenario that answers every request with `answer`.
fn answering(answer: Value) -> Value {
    json!({"about": "one answer to everything", "steps": [{"name": "only", "answer": answer}]})
}

async fn ask(proxy: &Proxy, body: &Value) -> Answer {
    let request = proxy.request("POST", "/v1/responses");
    proxy.send(request.body(body.to_string())).await
}

/// The bodies that upstream was asked with.
fn told(proxy: &Proxy) -> Vec<Value> {
    let seen = proxy.backend.requests();
    let turns = seen.iter().filter(|seen| seen.is_response());
    turns.map(|seen| (*seen.body).clone()).collect()
}

fn function() -> Value {
    json!({"type": "function", "name": "look", "strict": false,
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}})
}

#[tokio::test]
async fn a_stream_is_upstreams_own() {
    let proxy = Proxy::start(&answering(
        json!([{"reasoning": ["Hm."]}, {"text": "Hello."}]),
    ));
    let answer = ask(
        &proxy,
        &json!({"model": "gpt-6.1-sol", "input": "hi", "stream": true, "temperature": 0.2,
            "max_output_tokens": 9, "store": true, "metadata": {"a": "b"}}),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let events = answer.events();
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[0], "response.created");
    assert_eq!(*names.last().unwrap(), "response.completed");
    assert!(names.contains(&"response.output_text.delta"), "{names:?}");
    assert!(events.iter().all(|(name, data)| data["type"] == *name));
    // SDKs read the answer from the last event, where upstream leaves it out.
    let output = &events.last().unwrap().1["response"]["output"];
    assert_eq!(output[1]["content"][0]["text"], "Hello.");
    let id = answer.headers["x-request-id"].to_str().unwrap();
    assert!(id.starts_with("req_"));
    let (entries, totals) = proxy.finished(1).await;
    assert_eq!(entries[0].class, "responses");
    assert_eq!(entries[0].outcome, Outcome::Done);
    assert_eq!(entries[0].losses, ["temperature", "max_output_tokens"]);
    assert!(totals.usage.output_tokens > 0);
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn a_whole_response_is_folded_from_its_items() {
    let proxy = Proxy::start(&answering(json!([
        {"text": "Look."}, {"call": {"name": "look", "arguments": {"path": "a"}, "call_id": "c1"}}
    ])));
    for model in ["gpt-6.1-sol", "gpt-5.5", "claude-opus-5-5"] {
        let body = json!({"model": model, "instructions": "Be short.", "tools": [function()],
            "tool_choice": "auto", "input": [{"role": "user", "content": "hi"}]});
        let answer = ask(&proxy, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body = answer.json();
        assert_eq!(body["object"], "response");
        assert_eq!(body["status"], "completed");
        let output = body["output"].as_array().unwrap();
        assert_eq!(output.len(), 2, "{body}");
        assert_eq!(output[0]["content"][0]["text"], "Look.");
        assert_eq!(output[1]["call_id"], "c1");
        assert!(body["usage"]["output_tokens"].as_u64().unwrap() > 0);
    }
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn a_history_goes_back_as_it_came() {
    let proxy = Proxy::start(&json!({"about": "a call, then a text", "steps": [
        {"name": "call", "when": {"outputs": 0}, "answer": [
            {"reasoning": ["Look first."]}, {"call": {"name": "look", "arguments": {"path": "a"}}}]},
        {"name": "tell", "answer": [{"text": "It is red."}]}
    ]}));
    let first = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what?"}]});
    let system = json!({"role": "system", "content": "Be short."});
    let body =
        |input: Value| json!({"model": "gpt-6.1-sol", "tools": [function()], "input": input});
    let answer = ask(&proxy, &body(json!([system, first]))).await.json();
    let mut input = vec![system.clone(), first.clone()];
    for item in answer["output"].as_array().unwrap() {
        let mut item = item.clone();
        // What SDKs put beside what they were told.
        item["id"] = format!("{}{}", item["id"].as_str().unwrap_or("x_"), "a".repeat(80)).into();
        input.push(item);
    }
    let call = input.last().unwrap()["call_id"].clone();
    input.push(json!({"type": "function_call_output", "call_id": call, "output": "red"}));
    let answer = ask(&proxy, &body(input.into())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.json()["output"][0]["content"][0]["text"],
        "It is red."
    );
    let told = told(&proxy);
    let kinds: Vec<_> = told[1]["input"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "additional_tools",
            "message",
            "message",
            "reasoning",
            "function_call",
            "function_call_output"
        ]
    );
    // The second is the first, and goes on.
    let items = |at: usize| told[at]["input"].as_array().unwrap().clone();
    assert_eq!(items(1)[..3], items(0)[..]);
    assert_eq!(told[0]["prompt_cache_key"], told[1]["prompt_cache_key"]);
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn what_upstream_keeps_nothing_of_is_refused() {
    let proxy = Proxy::start(&answering(json!([{"text": "never"}])));
    for (body, status, said) in [
        (
            json!({"model": "gpt-6.1-sol", "input": "x", "previous_response_id": "resp_1"}),
            400,
            "previous_response_id: ",
        ),
        (
            json!({"model": "gpt-6.1-sol", "input": "x", "background": true}),
            400,
            "background: ",
        ),
        (json!({"model": "gpt-6.1-sol", "input": {}}), 400, "input: "),
        (json!({"model": "gpt-6.1-sol"}), 400, "input: "),
        (
            json!({"model": "gpt-nothing", "input": "x"}),
            404,
            "gpt-6.1-sol",
        ),
    ] {
        let answer = ask(&proxy, &body).await;
        assert_eq!(answer.status, status, "{body}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    assert_eq!(told(&proxy), Vec::<Value>::new());
}

#[tokio::test]
async fn failures_are_statuses_first_and_events_then() {
    let proxy = Proxy::start(&json!({"about": "fails", "steps": [
        {"name": "overload", "times": 1, "answer": [{"failed": {"code": "server_is_overloaded", "message": "busy"}}]},
        {"name": "fine", "times": 1, "answer": [{"text": "fine"}]},
        {"name": "cut", "times": 1, "answer": [{"text": "half"}, "cut"]},
        {"name": "limit", "reply": {"status": 429, "body":
            {"error": {"type": "usage_limit_reached", "message": "weekly", "resets_in_seconds": 3600}}}}
    ]}));
    let body = json!({"model": "gpt-6.1-sol", "input": "x", "stream": true});
    // A failure before the first content stays invisible, and leaves no trace in the stream.
    let answer = ask(&proxy, &body).await;
    let names: Vec<_> = answer.events().into_iter().map(|(name, _)| name).collect();
    let begun = names
        .iter()
        .filter(|name| *name == "response.created")
        .count();
    assert_eq!(
        (begun, names.last().unwrap().as_str()),
        (1, "response.completed")
    );
    let answer = ask(&proxy, &body).await;
    assert_eq!(answer.last(), "response.failed");
    let error = answer.events().pop().unwrap().1["response"]["error"].clone();
    assert_eq!(error["code"], "server_error");
    let answer = ask(&proxy, &body).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["error"]["code"], "usage_limit_reached");
    let (entries, _) = proxy.finished(3).await;
    assert_eq!(entries[0].attempts, 2);
}

#[tokio::test]
async fn another_account_is_not_sent_what_it_cannot_read() {
    let limit = json!({"status": 429, "body":
        {"error": {"type": "usage_limit_reached", "message": "weekly", "resets_in_seconds": 3600}}});
    let scenario = json!({"about": "a limit, then a text", "steps": [
        {"name": "think", "times": 1, "answer": [{"reasoning": ["Hm."]}, {"text": "one"}]},
        {"name": "limit", "times": 1, "reply": limit},
        {"name": "other", "answer": [{"text": "two"}]}
    ]});
    let rules = Rules {
        failover: true,
        ..Rules::default()
    };
    let proxy = Proxy::start_among(&scenario, &["one", "two"], rules, |_| {});
    let first = json!({"role": "user", "content": "x"});
    let body =
        |input: Value| json!({"model": "gpt-6.1-sol", "prompt_cache_key": "k", "input": input});
    let answer = ask(&proxy, &body(json!([first]))).await.json();
    let mut input = vec![first];
    input.extend(answer["output"].as_array().unwrap().iter().cloned());
    input.push(json!({"role": "user", "content": "y"}));
    let answer = ask(&proxy, &body(input.into())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["output"][0]["content"][0]["text"], "two");
    let told = told(&proxy);
    assert!(told[1].to_string().contains("encrypted_content\":\""));
    assert!(
        !told[2].to_string().contains("encrypted_content\":\""),
        "{}",
        told[2]
    );
    let (entries, _) = proxy.finished(2).await;
    assert_eq!(entries[1].hops, 1);
    assert_eq!(entries[1].losses, ["reasoning"]);
}

#[test]
fn reasoning_is_left_out_and_nothing_else() {
    let body = br#"{"a":1,"input":[{"type":"reasoning","encrypted_content":"x"},{"type":"message"}],"b":[2]}"#;
    let bare = ask::without_reasoning(body).unwrap();
    assert_eq!(bare, br#"{"a":1,"input":[{"type":"message"}],"b":[2]}"#);
    assert_eq!(ask::without_reasoning(&bare), None);
}
