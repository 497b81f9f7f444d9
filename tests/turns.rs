//! What a request leaves for the next one of its turn, how a turn may end, and what else an answer or a refusal of
//! upstream changes in the proxy.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use ccx::ledger::Outcome;
use ccx::simulate::forge::Account;
use serde_json::{Value, json};
use support::proxy::{Proxy, prompt};

/// The tool of these conversations.
fn tools() -> Value {
    json!([{
        "name": "Look",
        "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
    }])
}

/// A request whose newest message brings the result of a call.
fn with_result(is_error: bool, is_stream: bool) -> Value {
    let mut request = prompt("look at it", is_stream);
    request["tools"] = tools();
    request["messages"] = json!([
        {"role": "user", "content": "look at it"},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "call_1", "name": "Look", "input": {"at": "it"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "seen", "is_error": is_error},
        ]},
    ]);
    request
}

#[tokio::test]
async fn a_turn_state_goes_back_within_its_turn_and_nowhere_else() {
    let proxy = Proxy::start(&json!({
        "about": "one call, then a text",
        "steps": [
            {"name": "call", "when": {"kind": "main", "outputs": 0}, "answer": [
                {"call": {"name": "Look", "arguments": {"at": "it"}, "call_id": "call_1"}},
            ]},
            {"name": "tell", "answer": [{"text": "done"}]},
        ],
    }));
    let mut begin = prompt("look at it", true);
    begin["tools"] = tools();
    let mut anew = with_result(false, true);
    let messages = anew["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "done"}));
    messages.push(json!({"role": "user", "content": "once more"}));
    let plain = prompt("a title", true);
    let go_on = with_result(false, true);
    let sent = [
        (&begin, None, None, false),
        // In the middle of the turn the client asks for something else, and may not say so.
        (&plain, Some("auxiliary"), None, false),
        (&plain, None, None, false),
        (&go_on, None, None, true),
        (&go_on, None, Some("a01"), false),
        (&go_on, None, None, true),
        (&anew, None, None, false),
    ];
    for (body, class, agent, _) in sent {
        let mut request = proxy.request("POST", "/v1/messages").body(body.to_string());
        request = request.header("x-claude-code-session-id", "s-1");
        if let Some(class) = class {
            request = request.header("x-claude-code-request-class", class);
        }
        if let Some(agent) = agent {
            request = request.header("x-claude-code-agent-id", agent);
        }
        let answer = proxy.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let requests = proxy.backend.requests();
    let seen: Vec<bool> = requests
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| seen.header("x-codex-turn-state").is_some())
        .collect();
    assert_eq!(seen, sent.map(|(.., goes_back)| goes_back));
}

/// Answers nothing, ever.
fn empty() -> Value {
    json!({"about": "nothing", "steps": [
        {"name": "nothing", "answer": [{"event": {"type": "keepalive"}}]},
    ]})
}

#[tokio::test]
async fn nothing_is_an_end_only_after_tools_that_did_their_work() {
    for is_stream in [true, false] {
        let proxy = Proxy::start(&empty());
        let answer = proxy.messages(&with_result(false, is_stream)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let stop = if is_stream {
            let events = answer.events();
            let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["message_start", "message_delta", "message_stop"]);
            events[1].1["delta"]["stop_reason"].clone()
        } else {
            assert_eq!(answer.json()["content"], json!([]));
            answer.json()["stop_reason"].clone()
        };
        assert_eq!(stop, "end_turn");
        let (entries, _) = proxy.finished(1).await;
        assert_eq!(
            (entries[0].attempts, &entries[0].outcome),
            (2, &Outcome::Done)
        );

        for request in [with_result(true, is_stream), prompt("hello", is_stream)] {
            let proxy = Proxy::start(&empty());
            let answer = proxy.messages(&request).await;
            let (status, kind, message) = answer.error();
            assert_eq!((status, kind.as_str()), (502, "api_error"), "{message}");
            assert_eq!(message, "upstream's answer is empty");
            assert_eq!(answer.headers["x-should-retry"], "false");
            assert_eq!(proxy.finished(1).await.0[0].attempts, 2);
        }
    }
}

#[tokio::test]
async fn a_failure_in_the_same_read_as_the_first_text_is_noted_and_worded_as_any_other() {
    let event = |data: Value| {
        format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap()
        )
    };
    let body = event(json!({"type": "response.output_text.delta", "delta": "half"}))
        + &event(json!({"type": "response.failed", "response": {"error": {
            "code": "usage_limit_reached", "message": "weekly", "resets_at": support::proxy::now().0 + 3_700,
        }}}));
    let proxy = Proxy::start(&json!({"about": "a limit in the middle", "steps": [{
        "name": "only",
        "reply": {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": body},
    }]}));
    let answer = proxy.messages(&prompt("hello", true)).await;
    let (name, error) = answer.events().pop().unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert_eq!(name, "error");
    assert!(message.ends_with("(resets in 1h 1m)"), "{message}");
    let (entries, totals) = proxy.finished(1).await;
    assert_eq!(totals.failed, 1);
    assert!(matches!(
        entries[0].outcome,
        Outcome::Failed { status: 429, .. }
    ));
}

fn edit_account(home: &Path, edit: impl FnOnce(&mut Value)) {
    let path = home.join("ccx/state/accounts.json");
    let mut store: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut store["accounts"][0]);
    fs::write(path, store.to_string()).unwrap();
}

#[tokio::test]
async fn a_proxy_that_began_without_a_token_fetches_the_models_once_it_has_one() {
    let scenario =
        json!({"about": "a text", "steps": [{"name": "only", "answer": [{"text": "fine"}]}]});
    let proxy = Proxy::start_after(&scenario, |home| {
        edit_account(home, |account| account["expires_at"] = json!(1));
        fs::rename(home.join("auth.json"), home.join("away.json")).unwrap();
    });
    let (status, kind, message) = proxy.messages(&prompt("hello", true)).await.error();
    assert_eq!(
        (status, kind.as_str()),
        (401, "authentication_error"),
        "{message}"
    );
    fs::rename(
        proxy.home().join("away.json"),
        proxy.home().join("auth.json"),
    )
    .unwrap();
    assert_eq!(proxy.messages(&prompt("hello", true)).await.text(), "fine");
    let fetched = tokio::time::timeout(Duration::from_secs(10), async {
        let is_list = |target: &str| target.starts_with("/backend-api/codex/models");
        while !proxy
            .backend
            .requests()
            .iter()
            .any(|seen| is_list(&seen.target))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    fetched
        .await
        .expect("the list of models is renewed beside the first answer");
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_final_only_if_it_is() {
    let refusing = json!({
        "about": "no token is good enough",
        "routes": [{"path": "/oauth/token", "reply": {"status": 500, "body": "oops"}}],
        "steps": [{"name": "only", "reply": {
            "status": 401, "body": {"error": {"code": "token_expired", "message": "expired"}},
        }}],
    });
    // The Codex CLI's login: only that program can renew it.
    let proxy = Proxy::start(&refusing);
    let answer = proxy.messages(&prompt("hello", true)).await;
    let (status, _, message) = answer.error();
    assert_eq!(status, 401);
    assert_eq!(answer.headers["x-should-retry"], "false");
    assert!(message.contains("run `codex` once"), "{message}");
    assert!(!message.contains("end this session"), "{message}");

    // A sign-in of our own whose issuer is down for the moment.
    let proxy = Proxy::start_after(&refusing, |home| {
        let refresh = Account::new("test").refresh_token(0);
        edit_account(home, |account| {
            account["source"] = json!({"kind": "own"});
            account["refresh_token"] = json!(refresh.expose());
        });
    });
    let answer = proxy.messages(&prompt("hello", true)).await;
    let (status, kind, message) = answer.error();
    assert_eq!((status, kind.as_str()), (502, "api_error"), "{message}");
    assert!(!answer.headers.contains_key("x-should-retry"));
}
