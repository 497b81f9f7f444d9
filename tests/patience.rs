//! What a failing upstream costs over all the times that the client repeats a request, and reasoning that upstream
//! cannot read any more.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};

use support::proxy::{Answer, Proxy, prompt};

fn always(step: &Value) -> Value {
    let mut step = step.clone();
    step["name"] = json!("always");
    step["when"] = json!({});
    json!({"about": "always the same", "steps": [step]})
}

fn may_be_repeated(answer: &Answer) -> bool {
    answer
        .headers
        .get("x-should-retry")
        .is_none_or(|value| value != "false")
}

fn responses(proxy: &Proxy) -> usize {
    let requests = proxy.backend.requests();
    requests.iter().filter(|seen| seen.is_response()).count()
}

#[tokio::test]
async fn the_repeats_of_a_failing_request_come_to_an_end() {
    // [H05, H06]
    let broken = json!({"reply": {"status": 500, "body": {"error": {"message": "out of order"}}}});
    let proxy = Proxy::start(&always(&broken));
    let mut told = Vec::new();
    for (asked, ahead) in [(3, 0), (4, 50), (5, 50), (6, 50)] {
        proxy.advance(Duration::from_secs(ahead));
        // The client repeats without streaming once a stream has broken: that is the same request.
        let answer = proxy.messages(&prompt("hello", asked % 2 == 1)).await;
        assert_eq!(answer.status, 502);
        assert_eq!(responses(&proxy), asked, "a repeat is sent once");
        told.push((may_be_repeated(&answer), answer.error().2));
    }
    let may: Vec<bool> = told.iter().map(|(may, _)| *may).collect();
    assert_eq!(may, [true, true, true, false]);
    let last = &told[3].1;
    assert!(last.contains("out of order; asked 6 times in 2m"), "{last}");
    assert!(
        last.ends_with("Send the message again to go on trying"),
        "{last}"
    );

    // Another request has a patience of its own, and so has the same one later.
    let answer = proxy.messages(&prompt("and now", true)).await;
    assert!(may_be_repeated(&answer));
    proxy.advance(Duration::from_secs(120));
    let answer = proxy.messages(&prompt("hello", true)).await;
    assert!(may_be_repeated(&answer));
}

#[tokio::test]
async fn an_answer_ends_what_was_counted() {
    let broken =
        json!({"name": "broken", "when": {}, "times": 3, "reply": {"status": 500, "body": "no"}});
    let fine = json!({"name": "fine", "when": {}, "times": 1, "answer": [{"text": "well"}]});
    let mut again = broken.clone();
    again["times"] = json!(100);
    let proxy = Proxy::start(&json!({"about": "comes and goes", "steps": [broken, fine, again]}));
    assert_eq!(proxy.messages(&prompt("hello", true)).await.status, 502);
    assert_eq!(proxy.messages(&prompt("hello", true)).await.text(), "well");
    // Three attempts again: this is no repeat.
    assert_eq!(proxy.messages(&prompt("hello", true)).await.status, 502);
    assert_eq!(responses(&proxy), 7);
}

#[tokio::test]
async fn a_page_in_place_of_an_answer_is_no_verdict_on_the_account() {
    // [C16, H08]
    let page = json!({"reply": {"status": 403, "headers": {"content-type": "text/html"}, "body": "<html>Just a moment</html>"}});
    let proxy = Proxy::start(&always(&page));
    let answer = proxy.messages(&prompt("hello", true)).await;
    assert!(may_be_repeated(&answer));
    let (status, kind, message) = answer.error();
    assert_eq!((status, kind.as_str()), (502, "api_error"));
    assert!(
        message.contains("says nothing about the account"),
        "{message}"
    );
    assert!(!message.contains("Just a moment"), "{message}");
    // An account that is refused is told at once, and as what it is.
    let refused = json!({"reply": {"status": 403, "body": {"error": {"code": "unsupported_country_region_territory", "message": "not here"}}}});
    let proxy = Proxy::start(&always(&refused));
    let answer = proxy.messages(&prompt("hello", true)).await;
    assert!(!may_be_repeated(&answer));
    assert_eq!(answer.error().0, 403);
    assert_eq!(responses(&proxy), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_fetched_once() {
    let long = json!({"answer": [{"text": {"text": "0123456789abcdef", "repeat": 1_100_000}}]});
    let proxy = Proxy::start(&always(&long));
    let answer = proxy.messages(&prompt("hello", false)).await;
    assert!(!may_be_repeated(&answer));
    let (status, _, message) = answer.error();
    assert_eq!(status, 502);
    assert!(
        message.contains("longer than any that ccx takes"),
        "{message}"
    );
    assert_eq!(responses(&proxy), 1);
}

/// What the client replays of an answer.
fn content(answer: &Answer) -> Value {
    answer.json()["content"].clone()
}

/// Turns the reasoning of `content` into something that upstream did not make.
fn spoiled(mut content: Value) -> Value {
    let signature = content[0]["signature"].as_str().unwrap();
    let spoiled = signature.replace("gAAAAA", "gAAAAB");
    assert_ne!(signature, spoiled);
    content[0]["signature"] = json!(spoiled);
    content
}

fn after(turns: &[(&str, &Value)], text: &str) -> Value {
    let mut messages = Vec::new();
    for (said, content) in turns {
        messages.push(json!({"role": "user", "content": said}));
        messages.push(json!({"role": "assistant", "content": content}));
    }
    messages.push(json!({"role": "user", "content": text}));
    let mut request = prompt("", false);
    request["messages"] = messages.into();
    request["metadata"] = json!({"user_id": "user_1_account__session_s-1"});
    request
}

#[tokio::test]
async fn reasoning_that_upstream_cannot_read_is_left_out_and_the_conversation_goes_on() {
    let thinks = json!({"answer": [{"reasoning": ["**Thinking**"]}, {"text": "well"}]});
    let proxy = Proxy::start(&always(&thinks));
    let first = content(&proxy.messages(&after(&[], "one")).await);
    let first = spoiled(first);

    let answer = proxy.messages(&after(&[("one", &first)], "two")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let second = content(&answer);
    let (entries, _) = proxy.finished(2).await;
    assert_eq!(entries[1].attempts, 2);
    assert_eq!(entries[1].losses, ["thinking"]);

    // It is remembered: no later turn fails first. What was thought since is replayed.
    let turns = [("one", &first), ("two", &second)];
    let answer = proxy.messages(&after(&turns, "three")).await;
    assert_eq!(answer.status, 200);
    let (entries, _) = proxy.finished(3).await;
    assert_eq!(
        (entries[2].attempts, &entries[2].losses[..]),
        (1, &["thinking"][..])
    );
    let sent = proxy.backend.requests();
    let last = sent.iter().rfind(|seen| seen.is_response()).unwrap();
    let items = last.body["input"].as_array().unwrap();
    let thoughts = items.iter().filter(|item| item["type"] == "reasoning");
    assert_eq!(thoughts.count(), 1);
}

#[tokio::test]
async fn reasoning_is_left_out_once_and_then_the_refusal_is_told() {
    let refused = json!({"reply": {"status": 400, "body": {"error": {"code": "invalid_encrypted_content", "message": "cannot be verified"}}}});
    let thinks = json!({"name": "think", "when": {}, "times": 1, "answer": [{"reasoning": ["x"]}, {"text": "well"}]});
    let mut always = refused.clone();
    always["name"] = json!("refuse");
    always["when"] = json!({});
    let proxy = Proxy::start(&json!({"about": "refuses", "steps": [thinks, always]}));
    let first = content(&proxy.messages(&after(&[], "one")).await);
    let answer = proxy.messages(&after(&[("one", &first)], "two")).await;
    assert!(!may_be_repeated(&answer));
    assert_eq!(answer.error().0, 400);
    assert_eq!(responses(&proxy), 3);
}
