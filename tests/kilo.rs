//! The Kilo lane: off until it is chosen, one reply for a failure, and answers that Claude Code can use.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;

use ccx::ledger::Outcome;
use serde_json::{Value, json};
use support::proxy::{Answer, Proxy, prompt};

const MODEL: &str = "z-ai/glm-5:free";

/// Chunks with these deltas, and how they end.
fn chunks(deltas: &[Value], finish: Option<&str>) -> String {
    let mut text = ": OPENROUTER PROCESSING\n\n".to_owned();
    for delta in deltas {
        let chunk = json!({"id": "gen-1", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        text.push_str(&format!("data: {chunk}\n\n"));
    }
    if let Some(finish) = finish {
        let end =
            json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": finish}]});
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 10}}});
        text.push_str(&format!("data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n"));
    }
    text
}

/// A proxy with Kilo chosen as `set` says, where Kilo answers with `reply`.
fn proxy(set: &str, reply: Value) -> Proxy {
    let scenario = json!({
        "about": "Kilo beside ChatGPT",
        "routes": [
            {"path": "/api/openrouter/chat/completions", "reply": reply}
        ],
        "steps": [{"name": "only", "answer": [{"text": "from ChatGPT"}]}]
    });
    Proxy::start_after(&scenario, |home| {
        let directory = home.join("ccx/config");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.toml"), set).unwrap();
    })
}

fn chosen(reply: Value) -> Proxy {
    proxy(&format!("kilo = \"{MODEL}\"\n"), reply)
}

fn stream(deltas: &[Value], finish: Option<&str>) -> Value {
    json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": chunks(deltas, finish)})
}

async fn haiku(proxy: &Proxy, is_stream: bool) -> Answer {
    let mut body = prompt("hello", is_stream);
    body["model"] = "claude-haiku-5-5".into();
    body["tools"] = json!([{"name": "look", "input_schema": {"type": "object"}}]);
    proxy.messages(&body).await
}

/// What Kilo was asked.
fn asked(proxy: &Proxy) -> Vec<Value> {
    let seen = proxy.backend.requests();
    let kilo = seen
        .iter()
        .filter(|seen| seen.target.contains("openrouter"));
    kilo.map(|seen| (*seen.body).clone()).collect()
}

#[tokio::test]
async fn it_is_off_until_it_is_chosen() {
    for set in ["", "kilo = \"off\"\n"] {
        let proxy = proxy(
            set,
            stream(&[json!({"content": "from Kilo"})], Some("stop")),
        );
        assert_eq!(haiku(&proxy, true).await.text(), "from ChatGPT");
        assert_eq!(asked(&proxy), Vec::<Value>::new());
    }
}

#[tokio::test]
async fn the_small_model_goes_there_and_no_other() {
    let proxy = chosen(stream(
        &[
            json!({"role": "assistant", "reasoning": "Hm."}),
            json!({"content": "from "}),
            json!({"content": "Kilo"}),
        ],
        Some("stop"),
    ));
    let answer = haiku(&proxy, true).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.text(), "from Kilo");
    let events = answer.events();
    assert!(
        events[0].1["message"]["id"]
            .as_str()
            .unwrap()
            .starts_with("msg_")
    );
    let thought = events
        .iter()
        .any(|(_, data)| data["delta"]["thinking"] == "Hm.");
    assert!(thought, "{}", answer.body);
    let whole = haiku(&proxy, false).await.json();
    assert_eq!(whole["content"][1]["text"], "from Kilo", "{whole}");
    assert_eq!(whole["usage"]["input_tokens"], 20);
    assert_eq!(whole["usage"]["cache_read_input_tokens"], 10);
    assert_eq!(
        proxy.messages(&prompt("hello", true)).await.text(),
        "from ChatGPT"
    );
    let asked = asked(&proxy);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0]["model"], MODEL);
    assert_eq!(
        asked[0]["messages"][1],
        json!({"role": "user", "content": "hello"})
    );
    assert_eq!(asked[0]["tools"][0]["function"]["name"], "look");
    // Nothing of the person's goes there but the content.
    let seen = proxy.backend.requests();
    let kilo = seen
        .iter()
        .find(|seen| seen.target.contains("openrouter"))
        .unwrap();
    assert_eq!(kilo.header("chatgpt-account-id"), None);
    let (entries, _) = proxy.finished(3).await;
    assert_eq!(entries[0].model, MODEL);
    assert_eq!(entries[0].account, "");
    assert_eq!(entries[0].outcome, Outcome::Done);
}

#[tokio::test]
async fn calls_are_put_together_from_chunks_without_ids() {
    let call = |delta: Value| json!({"tool_calls": [delta]});
    let proxy = chosen(stream(
        &[
            json!({"content": "Looking."}),
            call(
                json!({"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": ""}}),
            ),
            call(
                json!({"index": 1, "id": "b", "type": "function", "function": {"name": "look", "arguments": "{\"p\""}}),
            ),
            call(json!({"index": 0, "function": {"arguments": "{}"}})),
            call(json!({"index": 1, "function": {"arguments": ":1}"}})),
        ],
        Some("tool_calls"),
    ));
    let answer = haiku(&proxy, false).await.json();
    assert_eq!(
        answer["content"],
        json!([
            {"type": "text", "text": "Looking."},
            {"type": "tool_use", "id": "a", "name": "look", "input": {}},
            {"type": "tool_use", "id": "b", "name": "look", "input": {"p": 1}}
        ])
    );
    assert_eq!(answer["stop_reason"], "tool_use");
}

#[tokio::test]
async fn a_limit_is_max_tokens() {
    let proxy = chosen(stream(&[json!({"content": "half"})], Some("length")));
    let answer = haiku(&proxy, false).await.json();
    assert_eq!(answer["stop_reason"], "max_tokens", "{answer}");
}

#[tokio::test]
async fn a_failure_is_one_reply() {
    let error = |status: u16| json!({"status": status, "body": {"error": {"message": "no luck", "code": status}}});
    for (status, told) in [(429, 429), (401, 403), (404, 400), (500, 502)] {
        let proxy = chosen(error(status));
        for is_stream in [true, false] {
            let answer = haiku(&proxy, is_stream).await;
            let (found, _, message) = answer.error();
            assert_eq!(found, told, "{message}");
            assert!(message.contains("Kilo: no luck"), "{message}");
        }
        assert_eq!(asked(&proxy).len(), 2, "each was sent once");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_end() {
    let late = json!({"error": {"message": "no luck", "code": 502}});
    let mut broken = chunks(&[json!({"content": "half"})], None);
    let cut = chosen(
        json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": broken}),
    );
    broken.push_str(&format!("data: {late}\n\n"));
    let failed = chosen(
        json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": broken}),
    );
    for proxy in [cut, failed] {
        let answer = haiku(&proxy, true).await;
        assert_eq!(answer.text(), "half");
        assert_eq!(answer.last(), "error", "{}", answer.body);
        assert_eq!(haiku(&proxy, false).await.status, 502);
        let (entries, _) = proxy.finished(2).await;
        assert!(
            entries
                .iter()
                .all(|entry| matches!(entry.outcome, Outcome::Failed { .. }))
        );
    }
}

#[tokio::test]
async fn old_short_names_are_understood() {
    let proxy = proxy(
        "kilo = \"glm-5\"\n",
        stream(&[json!({"content": "x"})], Some("stop")),
    );
    assert_eq!(haiku(&proxy, true).await.text(), "x");
    assert_eq!(asked(&proxy)[0]["model"], MODEL);
}

#[tokio::test]
async fn clients_of_the_chat_api_go_there_too() {
    let proxy = chosen(stream(&[json!({"content": "from Kilo"})], Some("stop")));
    let body = json!({"model": "claude-haiku-5-5", "messages": [{"role": "user", "content": "x"}]});
    let request = proxy
        .request("POST", "/v1/chat/completions")
        .body(body.to_string());
    let answer = proxy.send(request).await.json();
    assert_eq!(
        answer["choices"][0]["message"]["content"], "from Kilo",
        "{answer}"
    );
    assert_eq!(answer["usage"]["prompt_tokens"], 30);
}

#[tokio::test]
async fn the_choice_can_be_made_while_it_runs_and_is_kept() {
    let scenario = json!({
        "about": "Kilo beside ChatGPT",
        "routes": [
            {"path": "/api/openrouter/models", "times": 1, "reply": {"status": 200, "body": {"data": [
                {"id": MODEL, "name": "GLM 5", "isFree": true, "context_length": 128_000, "supported_parameters": ["tools"]},
                {"id": "a/paid", "isFree": false}
            ]}}},
            {"path": "/api/openrouter/chat/completions", "reply": stream(&[json!({"content": "from Kilo"})], Some("stop"))}
        ],
        "steps": [{"name": "only", "answer": [{"text": "from ChatGPT"}]}]
    });
    let proxy = Proxy::start_after(&scenario, |home| {
        let directory = home.join("ccx/config");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.toml"), "failover = true # mine\n").unwrap();
    });
    let proxy = &proxy;
    let choose = |choice: Value| async move {
        let request = proxy.request("POST", "/settings/haiku-model");
        proxy.send(request.body(choice.to_string())).await
    };
    let kept = || fs::read_to_string(proxy.home().join("ccx/config/config.toml")).unwrap();
    // Asked twice, Kilo is asked once: the list is good for ten minutes.
    for current in [Value::Null, json!(MODEL)] {
        let answer = proxy
            .send(proxy.request("GET", "/settings/kilo-models"))
            .await
            .json();
        assert_eq!(
            answer["models"],
            json!([
                {"id": MODEL, "name": "GLM 5", "context_length": 128_000, "supportsTools": true}
            ])
        );
        assert_eq!(answer["current"], current);
        let answer = choose(json!({"haikuKiloModel": "glm-5"})).await.json();
        assert_eq!(answer["haikuKiloModel"], MODEL);
        assert!(answer["notice"].as_str().unwrap().contains("third party"));
    }
    assert_eq!(haiku(proxy, true).await.text(), "from Kilo");
    assert_eq!(
        kept(),
        format!("failover = true # mine\nkilo = \"{MODEL}\"\n")
    );
    for wrong in [
        json!({}),
        json!({"haikuKiloModel": "no model"}),
        json!({"haikuKiloModel": 3}),
        json!([]),
    ] {
        assert_eq!(choose(wrong).await.status, 400);
    }
    assert_eq!(choose(json!({"haikuKiloModel": null})).await.status, 200);
    let answer = proxy
        .send(proxy.request("GET", "/settings/haiku-model"))
        .await
        .json();
    assert_eq!(answer, json!({"success": true, "haikuKiloModel": null}));
    assert_eq!(haiku(proxy, true).await.text(), "from ChatGPT");
    assert_eq!(kept(), "failover = true # mine\nkilo = \"off\"\n");
    // What is not understood is left alone, and the choice does not count.
    fs::write(proxy.home().join("ccx/config/config.toml"), "stategy = 1\n").unwrap();
    assert_eq!(choose(json!({"haikuKiloModel": "glm-5"})).await.status, 500);
    assert_eq!(kept(), "stategy = 1\n");
    assert_eq!(haiku(proxy, true).await.text(), "from ChatGPT");
}
