//! Chat completions: what upstream is asked, what the client is told, and how failures look in that API.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/rules.rs"]
mod rules;
mod support;

use ccx::ledger::Outcome;
use ccx::translate::chat::ask;
use ccx::wire::messages;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::proxy::{Answer, Proxy};

/// A scenario that answers every request with `answer`.
fn answering(answer: Value) -> Value {
    json!({"about": "one answer to everything", "steps": [{"name": "only", "answer": answer}]})
}

fn asking(text: &str, more: Value) -> Value {
    let mut body = json!({"model": "gpt-6.1-sol", "messages": [
        {"role": "system", "content": "You are a test."}, {"role": "user", "content": text}
    ]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn ask(proxy: &Proxy, body: &Value) -> Answer {
    let request = proxy.request("POST", "/v1/chat/completions");
    proxy.send(request.body(body.to_string())).await
}

/// The data of a stream's records; the last is `null` for `[DONE]`.
fn chunks(answer: &Answer) -> Vec<Value> {
    let lines = answer.body.lines();
    let data = lines.filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| match data {
        "[DONE]" => Value::Null,
        data => serde_json::from_str(data).unwrap(),
    })
    .collect()
}

fn deltas(answer: &Answer, field: &str) -> String {
    let chunks = chunks(answer);
    let deltas = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str());
    deltas.collect()
}

fn finish(answer: &Answer) -> Option<String> {
    let chunks = chunks(answer);
    let mut reasons = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str());
    let first = reasons.next().map(str::to_owned);
    assert_eq!(reasons.next(), None, "{}", answer.body);
    first
}

/// The body that upstream was asked with last.
fn told(proxy: &Proxy) -> Value {
    let seen = proxy.backend.requests();
    let last = seen.iter().rfind(|seen| seen.is_response()).unwrap();
    (*last.body).clone()
}

const TOOLS: fn() -> Value = || {
    json!([{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters":
        {"type": "object", "properties": {"path": {"type": "string"}}}}}])
};

#[tokio::test]
async fn a_stream_has_the_chunks_of_a_completion() {
    let proxy = Proxy::start(&answering(json!([
        {"reasoning": ["Looking at it."]}, {"text": "Hello from upstream."}
    ])));
    let body = asking(
        "hello",
        json!({"stream": true, "stream_options": {"include_usage": true}, "reasoning_effort": "high", "seed": 1}),
    );
    let answer = ask(&proxy, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/event-stream"));
    assert_eq!(deltas(&answer, "content"), "Hello from upstream.");
    assert_eq!(deltas(&answer, "reasoning_content"), "Looking at it.");
    assert_eq!(finish(&answer).as_deref(), Some("stop"));
    let chunks = chunks(&answer);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
    assert_eq!(chunks[0]["model"], "gpt-6.1-sol");
    let id = chunks[0]["id"].as_str().unwrap();
    assert!(id.starts_with("chatcmpl-"), "{id}");
    let (end, usage) = (&chunks[chunks.len() - 1], &chunks[chunks.len() - 2]);
    assert_eq!(*end, Value::Null);
    assert_eq!(usage["choices"], json!([]));
    let count = |name: &str| usage["usage"][name].as_u64().unwrap();
    assert!(count("completion_tokens") > 0, "{usage}");
    assert_eq!(
        count("total_tokens"),
        count("prompt_tokens") + count("completion_tokens")
    );
    assert!(
        chunks[..chunks.len() - 2]
            .iter()
            .all(|chunk| chunk["id"] == id && chunk["usage"].is_null())
    );
    let (entries, _) = proxy.finished(1).await;
    assert_eq!(entries[0].class, "chat");
    assert_eq!(entries[0].outcome, Outcome::Done);
    assert_eq!(entries[0].losses, ["seed"]);
    assert_eq!(told(&proxy)["reasoning"]["effort"], "high");
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn a_whole_completion_says_the_same() {
    let proxy = Proxy::start(&answering(json!([
        {"text": "Two at once."},
        {"call": {"name": "look", "arguments": {"path": "a"}, "call_id": "c1"}},
        {"call": {"name": "look", "arguments": {"path": "b"}, "call_id": "c2"}}
    ])));
    let more = json!({"tools": TOOLS(), "tool_choice": "required"});
    let answer = ask(&proxy, &asking("hello", more.clone())).await;
    let body = answer.json();
    assert_eq!(body["object"], "chat.completion", "{body}");
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "Two at once.");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let one = |at: usize| {
        let arguments = calls[at]["function"]["arguments"].as_str().unwrap();
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        (calls[at]["id"].clone(), arguments)
    };
    assert_eq!(one(0), (json!("c1"), json!({"path": "a"})));
    assert_eq!(one(1), (json!("c2"), json!({"path": "b"})));
    assert!(body["usage"]["prompt_tokens"].as_u64().unwrap() > 0);

    let mut body = asking("hello", more);
    body["stream"] = true.into();
    let answer = ask(&proxy, &body).await;
    assert_eq!(finish(&answer).as_deref(), Some("tool_calls"));
    let mut calls = vec![(Value::Null, String::new()); 2];
    for chunk in chunks(&answer) {
        let Some(call) = chunk["choices"][0]["delta"]["tool_calls"][0]
            .as_object()
            .cloned()
        else {
            continue;
        };
        let into = &mut calls[call["index"].as_u64().unwrap() as usize];
        if let Some(id) = call.get("id") {
            assert_eq!(into.0, Value::Null, "the id comes once");
            into.0 = id.clone();
        }
        into.1
            .push_str(call["function"]["arguments"].as_str().unwrap());
    }
    assert_eq!(calls[0].0, "c1");
    assert_eq!(calls[1].0, "c2");
    let arguments: Value = serde_json::from_str(&calls[1].1).unwrap();
    assert_eq!(arguments, json!({"path": "b"}));
}

#[tokio::test]
async fn results_pictures_and_schemas_reach_upstream() {
    let proxy = Proxy::start(&answering(json!([{"text": "{\"a\":1}"}])));
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false});
    let body = json!({"model": "gpt-6.1-sol", "tools": TOOLS(), "messages": [
        {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": png}}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"path\":\"a\"}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "it is red"}
    ], "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}});
    let answer = ask(&proxy, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = told(&proxy);
    assert_eq!(told["text"]["format"]["schema"], schema);
    assert_eq!(told["text"]["format"]["strict"], true);
    let items = told["input"].to_string();
    for part in [
        "it is red",
        png,
        "function_call_output",
        r#""call_id":"c1""#,
    ] {
        assert!(items.contains(part), "{part}: {items}");
    }
}

#[tokio::test]
async fn limits_and_stop_sequences_are_kept_here() {
    let proxy = Proxy::start(&answering(
        json!([{"text": "one two three four five six seven END eight"}]),
    ));
    let answer = ask(&proxy, &asking("x", json!({"stop": ["END"]})))
        .await
        .json();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "one two three four five six seven "
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let answer = ask(&proxy, &asking("x", json!({"max_completion_tokens": 3})))
        .await
        .json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let answer = ask(
        &proxy,
        &asking("x", json!({"max_tokens": 3, "stream": true})),
    )
    .await;
    assert_eq!(finish(&answer).as_deref(), Some("length"));
}

#[tokio::test]
async fn refusals_have_the_shape_of_that_api() {
    let proxy = Proxy::start(&answering(json!([{"text": "never"}])));
    let refused = |body: Value| {
        let proxy = &proxy;
        async move {
            let answer = ask(proxy, &body).await;
            let error = answer.json()["error"].clone();
            (
                answer.status,
                error["type"].clone(),
                error["code"].clone(),
                error["message"].clone(),
            )
        }
    };
    let invalid = json!("invalid_request_error");
    let (status, kind, _, message) = refused(asking("x", json!({"n": 2}))).await;
    assert_eq!((status, &kind), (400, &invalid));
    assert!(message.as_str().unwrap().starts_with("n: "), "{message}");
    let (status, kind, code, message) = refused(asking("x", json!({"model": "gpt-nothing"}))).await;
    assert_eq!(
        (status, &kind, code),
        (404, &invalid, json!("model_not_found"))
    );
    assert!(
        message.as_str().unwrap().contains("gpt-6.1-sol"),
        "{message}"
    );
    let (status, kind, _, _) = refused(json!({"model": "gpt-6.1-sol", "messages": []})).await;
    assert_eq!((status, &kind), (400, &invalid));

    let answer = proxy
        .send(proxy.request("GET", "/v1/chat/completions"))
        .await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["error"]["type"], invalid);
    assert_eq!(answer.headers["allow"], "POST");
    let url = format!("{}/v1/chat/completions", proxy.url);
    let answer = proxy
        .send(proxy.http.post(url).bearer_auth("wrong").body("{}"))
        .await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn failures_keep_their_status_and_never_look_like_an_end() {
    let reply = json!({"name": "limit", "times": 1, "reply": {"status": 429, "body":
        {"error": {"type": "usage_limit_reached", "message": "weekly", "resets_in_seconds": 3600}}}});
    let cut = json!({"name": "cut", "times": 1, "answer": [{"text": "half of it"}, "cut"]});
    let filtered = json!({"name": "filter", "answer": [{"text": "some of it"}, {"incomplete": "content_filter"}]});
    let proxy = Proxy::start(&json!({"about": "fails", "steps": [reply, cut, filtered]}));
    let answer = ask(&proxy, &asking("x", json!({"stream": true}))).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    assert_eq!(answer.json()["error"]["code"], "usage_limit_reached");
    assert!(answer.headers.contains_key("retry-after"));
    proxy.advance(std::time::Duration::from_secs(4_000));

    let answer = ask(&proxy, &asking("x", json!({"stream": true}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(deltas(&answer, "content"), "half of it");
    assert_eq!(finish(&answer), None);
    let last = chunks(&answer).pop().unwrap();
    assert_eq!(last["error"]["type"], "server_error", "{}", answer.body);

    let answer = ask(&proxy, &asking("x", json!({"stream": true}))).await;
    assert_eq!(finish(&answer).as_deref(), Some("content_filter"));
    assert_eq!(chunks(&answer).pop().unwrap(), Value::Null);
    let answer = ask(&proxy, &asking("x", json!({}))).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
    let (entries, _) = proxy.finished(4).await;
    let statuses: Vec<_> = entries
        .iter()
        .map(|entry| match entry.outcome {
            Outcome::Failed { status, .. } => status,
            _ => 200,
        })
        .collect();
    assert_eq!(statuses, [429, 502, 200, 200]);
}

fn content() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        "[a-z \"\\\\\n]{0,12}".prop_map(Value::from),
        "[a-z]{1,8}".prop_map(|text| json!([{"type": "text", "text": text}])),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    let call = (
        "c[0-3]",
        "[a-c]",
        prop_oneof![Just("{}"), Just("{\"a\":[1]}"), Just(""), Just("no")],
    );
    let calls = proptest::collection::vec(call, 0..3).prop_map(|calls| {
        let calls = calls.into_iter().map(|(id, name, arguments)| {
            json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
        });
        Value::from(calls.collect::<Vec<_>>())
    });
    prop_oneof![
        (
            prop_oneof![Just("system"), Just("developer"), Just("user")],
            content()
        )
            .prop_map(|(role, content)| json!({"role": role, "content": content})),
        (content(), calls).prop_map(|(content, calls)| {
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }),
        ("c[0-3]", content()).prop_map(|(id, content)| {
            json!({"role": "tool", "tool_call_id": id, "content": content})
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the history: upstream gets what it takes, and each call one output behind it.
    #[test]
    fn any_history_is_valid_upstream(messages in proptest::collection::vec(message(), 1..8)) {
        let body = json!({"model": "gpt-6.1-sol", "messages": messages, "tools": TOOLS()});
        let asked = ask::translate(body.to_string().as_bytes()).unwrap();
        let request = messages::Request::parse(&asked.body).unwrap();
        for lane in rules::LANES {
            let translated = rules::translated(&request, lane).unwrap();
            rules::check(&translated.body, lane);
        }
    }
}
