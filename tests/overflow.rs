//! What does not fit the model's window: told so that the client compacts, shortened where the summary itself is asked
//! for, and remembered.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use ccx::account::chooser::Rules;
use serde_json::{Value, json};
use support::proxy::{Answer, Proxy};

/// A scenario whose model takes `window`, and that answers everything with a text.
fn scenario(window: &Value) -> Value {
    json!({
        "about": "a small window",
        "windows": {"gpt-6.1-sol": window},
        "steps": [{"name": "all", "answer": [{"text": "the answer"}]}]
    })
}

/// Rounds of a call and its result of `bytes`, then what `last` asks.
fn conversation(rounds: usize, bytes: usize, last: &str, is_stream: bool) -> Value {
    let mut messages = vec![json!({"role": "user", "content": "do the job"})];
    for round in 0..rounds {
        let id = format!("toolu_{round}");
        messages.push(json!({"role": "assistant", "content": [
            {"type": "text", "text": format!("step {round}")},
            {"type": "tool_use", "id": id, "name": "Read", "input": {"file_path": format!("/p/{round}")}}
        ]}));
        let output: String = (0..bytes / 10)
            .map(|at| format!("line {at:04}\n"))
            .collect();
        messages.push(json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "content": output}
        ]}));
    }
    messages.push(json!({"role": "assistant", "content": "done so far"}));
    messages.push(json!({"role": "user", "content": last}));
    json!({
        "model": "gpt-6.1-sol",
        "max_tokens": 32_000,
        "stream": is_stream,
        "system": "You are a test.",
        "tools": [{"name": "Read", "description": "reads", "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}}}],
        "messages": messages,
    })
}

/// The instruction of a compaction, as far as it is recognised.
const COMPACT: &str = "CRITICAL: Respond with TEXT ONLY. Put the summary into <summary> tags.";

async fn ask(proxy: &Proxy, class: &str, body: &Value) -> Answer {
    let request = proxy
        .request("POST", "/v1/messages?beta=true")
        .header("x-claude-code-request-class", class);
    proxy.send(request.body(body.to_string())).await
}

/// What upstream was sent, oldest first.
fn sent(proxy: &Proxy) -> Vec<Value> {
    let requests = proxy.backend.requests();
    let sent = requests.iter().filter(|seen| seen.is_response());
    sent.map(|seen| (*seen.body).clone()).collect()
}

/// The windows that are known of the only account.
fn learnt(proxy: &Proxy) -> Value {
    let path = proxy.home().join("ccx/state/health.json");
    let Ok(text) = fs::read_to_string(&path) else {
        return Value::Null;
    };
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let health: Value = serde_json::from_str(&text).unwrap();
    let accounts = health["accounts"].as_object().unwrap();
    accounts
        .values()
        .next()
        .map_or(Value::Null, |account| account["windows"].clone())
}

/// Waits until the windows that are known are as `is_wanted` says.
async fn wait_for_windows(proxy: &Proxy, is_wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let windows = learnt(proxy);
        if is_wanted(&windows) {
            return windows;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_conversation_that_does_not_fit_makes_the_client_compact_and_is_sent_once() {
    for window in [
        json!({"tokens": 20_000}),
        json!({"tokens": 20_000, "failed": {"code": "context_length_exceeded", "message": "x"}}),
        json!({"tokens": 20_000, "reply": {"status": 400, "body": {"detail": "This model's maximum context length is 20000 tokens. However, your messages resulted in 50123 tokens."}}}),
    ] {
        let proxy = Proxy::start(&scenario(&window));
        for is_stream in [true, false] {
            let before = sent(&proxy).len();
            let body = conversation(10, 20_000, "go on", is_stream);
            let answer = ask(&proxy, "main", &body).await;
            let (status, kind, message) = answer.error();
            assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
            assert!(message.starts_with("prompt is too long: "), "{message}");
            let numbers: Vec<u64> = message
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            assert!(numbers[0] > numbers[1], "{message}");
            if window["reply"].is_object() {
                assert_eq!(numbers, [50_123, 20_000]);
            }
            assert_eq!(answer.headers["x-should-retry"], "false");
            assert_eq!(sent(&proxy).len(), before + 1, "{window}");
        }
    }
}

#[tokio::test]
async fn a_summary_that_does_not_fit_is_asked_for_again_with_less() {
    for window in [
        json!({"tokens": 20_000, "reply": {"status": 400, "body": {"error": {"code": "context_length_exceeded", "message": "maximum context length is 20000 tokens"}}}}),
        // Upstream names no number: ccx goes down in steps.
        json!({"tokens": 30_000}),
        json!({"tokens": 30_000, "failed": {"code": "context_length_exceeded", "message": "x"}}),
    ] {
        for is_stream in [true, false] {
            let proxy = Proxy::start(&scenario(&window));
            let body = conversation(10, 20_000, COMPACT, is_stream);
            let answer = ask(&proxy, "compaction", &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.contains("the answer"), "{answer:?}");
            let sent = sent(&proxy);
            assert!((2..=4).contains(&sent.len()), "{}", sent.len());
            let last = sent.last().unwrap().to_string();
            assert!(last.len() / 4 <= window["tokens"].as_u64().unwrap() as usize);
            for words in [
                "do the job",
                "Put the summary into",
                "ccx left the rest",
                "toolu_9",
            ] {
                assert!(last.contains(words), "{words}");
            }
            let (entries, _) = proxy.finished(1).await;
            assert!(entries[0].losses.contains(&"conversation_shortened"));
            assert_eq!(entries[0].attempts as usize, sent.len());
            // Upstream's rules on calls and results are the simulator's too.
            assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn what_can_not_be_made_short_enough_is_told_with_what_helps() {
    let reply = json!({"status": 400, "body": {"error": {"code": "context_length_exceeded", "message": "maximum context length is 3000 tokens"}}});
    let proxy = Proxy::start(&scenario(&json!({"tokens": 3_000, "reply": reply})));
    let mut body = conversation(3, 1_000, COMPACT, true);
    body["system"] = "rules ".repeat(20_000).into();
    let (status, _, message) = ask(&proxy, "compaction", &body).await.error();
    assert_eq!(status, 400);
    for words in ["does not fit", "3000 tokens", "/clear", "/model"] {
        assert!(message.contains(words), "{message}");
    }
    assert!(!message.contains("prompt is too long"));
    assert_eq!(sent(&proxy).len(), 1, "nothing is sent that cannot fit");
}

#[tokio::test]
async fn a_window_that_upstream_names_is_kept_and_forgotten_when_more_fits() {
    let told = json!({"status": 400, "body": {"error": {"code": "context_length_exceeded", "message": "This model's maximum context length is 20000 tokens."}}});
    let scenario = json!({
        "about": "a window that is not what the list says",
        "steps": [
            {"name": "refused", "times": 1, "reply": told},
            {"name": "silent", "times": 1, "reply": {"status": 400, "body": {"error": {"code": "context_length_exceeded", "message": "x"}}}},
            {"name": "small", "times": 1, "answer": [{"text": "a"}], "usage": {"input": 19_000}},
            {"name": "large", "answer": [{"text": "a"}], "usage": {"input": 21_000, "cached": 1_000}}
        ]
    });
    let mut proxy = Proxy::start(&scenario);
    let body = conversation(1, 1_000, "go on", true);
    assert_eq!(ask(&proxy, "main", &body).await.status, 400);
    let windows = wait_for_windows(&proxy, |windows| windows.is_object()).await;
    assert_eq!(windows["gpt-6.1-sol"]["tokens"], 20_000);
    assert_eq!(windows["gpt-6.1-sol"]["listed"], 272_000);
    // What is told is what can be used of it.
    let (_, _, message) = ask(&proxy, "main", &body).await.error();
    assert!(message.ends_with("> 19000 maximum"), "{message}");
    proxy.restart(Rules::default());
    assert_eq!(ask(&proxy, "main", &body).await.status, 200);
    proxy.finished(1).await;
    assert_eq!(learnt(&proxy)["gpt-6.1-sol"]["tokens"], 20_000);
    assert_eq!(ask(&proxy, "main", &body).await.status, 200);
    wait_for_windows(&proxy, |windows| !windows.is_object()).await;
}

#[tokio::test]
async fn usage_is_estimated_at_the_start_better_each_turn_and_exact_at_the_end() {
    let scenario = json!({
        "about": "counts less than ccx estimates",
        "steps": [{"name": "all", "answer": [{"text": "a"}], "usage": {"input": 10_000, "cached": 8_000}}]
    });
    let proxy = Proxy::start(&scenario);
    let body = conversation(3, 20_000, "go on", true);
    let mut started = Vec::new();
    for turn in 1..=2 {
        let answer = ask(&proxy, "main", &body).await;
        let events = answer.events();
        let start = &events[0].1["message"]["usage"];
        started.push(start["input_tokens"].as_u64().unwrap());
        let (_, end) = events
            .iter()
            .find(|(name, _)| name == "message_delta")
            .unwrap();
        assert_eq!(end["usage"]["input_tokens"], 2_000);
        assert_eq!(end["usage"]["cache_read_input_tokens"], 8_000);
        proxy.finished(turn).await;
    }
    assert!(started[0] > 15_000, "{started:?}");
    assert_eq!(started[1], 10_000);
}
