//! The proxy between a client and a simulated ChatGPT: answers, refusals, and an upstream that misbehaves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::proxy::{Answer, Proxy, prompt};

/// A scenario that answers every request with `answer`.
fn answering(answer: Value) -> Value {
    json!({
        "about": "one answer to everything",
        "steps": [{"name": "only", "answer": answer}],
    })
}

/// A scenario that answers the first requests with `first` and the rest with a text.
fn at_first(times: u32, first: Value) -> Value {
    let mut step = json!({"name": "first", "times": times});
    for (name, value) in first.as_object().unwrap() {
        step[name] = value.clone();
    }
    json!({
        "about": "something at first, a text from then on",
        "steps": [step, {"name": "then", "answer": [{"text": "all is well"}]}],
    })
}

fn names(answer: &Answer) -> Vec<String> {
    answer.events().into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_streamed_answer_is_whole() {
    let proxy = Proxy::start(&answering(json!([
        {"reasoning": ["Looking at it."]},
        {"text": "Hello from upstream."},
    ])));
    let answer = proxy.messages(&prompt("hello", true)).await;
    assert_eq!(answer.status, 200);
    let header = |name: &str| answer.headers[name].to_str().unwrap();
    assert!(header("content-type").starts_with("text/event-stream"));
    assert!(header("request-id").starts_with("req_"));
    assert_eq!(answer.text(), "Hello from upstream.");
    let names = names(&answer);
    assert_eq!(names.first().unwrap(), "message_start");
    assert_eq!(names.last().unwrap(), "message_stop");
    let events = answer.events();
    let end = events
        .iter()
        .find(|(name, _)| name == "message_delta")
        .unwrap();
    assert_eq!(end.1["delta"]["stop_reason"], "end_turn");
    let (entries, totals) = proxy.finished(1).await;
    assert_eq!(entries[0].model, "gpt-6.1-sol");
    assert!(totals.usage.output_tokens > 0, "{totals:?}");
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn a_whole_answer_says_the_same() {
    let proxy = Proxy::start(&answering(json!([{"text": "Hello from upstream."}])));
    let answer = proxy.messages(&prompt("hello", false)).await;
    let body = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(body["type"], "message");
    assert_eq!(
        body["content"],
        json!([{"type": "text", "text": "Hello from upstream."}])
    );
    assert_eq!(body["stop_reason"], "end_turn");
    // `stream` left out means no.
    let mut request = prompt("hello", false);
    request.as_object_mut().unwrap().remove("stream");
    assert_eq!(proxy.messages(&request).await.json()["type"], "message");
}

#[tokio::test]
async fn every_refusal_is_told_in_the_envelope_and_the_next_request_works() {
    let proxy = Proxy::start(&answering(json!([{"text": "fine"}])));
    let post = |body: &str| proxy.request("POST", "/v1/messages").body(body.to_owned());
    let refused = [
        (
            post(r#"{"model": "claude-opus-5-5", "messages": ["#),
            400,
            "invalid_request_error",
        ),
        (post("not json"), 400, "invalid_request_error"),
        (post(""), 400, "invalid_request_error"),
        (post("[]"), 400, "invalid_request_error"),
        (
            post(r#"{"model": 7, "messages": []}"#),
            400,
            "invalid_request_error",
        ),
        (
            post(r#"{"model": "claude-opus-5-5", "messages": "x"}"#),
            400,
            "invalid_request_error",
        ),
        (
            post(r#"{"model": "claude-opus-5-5", "messages": []}"#),
            400,
            "invalid_request_error",
        ),
        (
            post(r#"{"messages": [{"role": "user", "content": "x"}]}"#),
            400,
            "invalid_request_error",
        ),
        (
            post(r#"{"model": "gpt-0", "messages": [{"role": "user", "content": "x"}]}"#),
            404,
            "not_found_error",
        ),
        (
            post("{}").header("content-encoding", "gzip, compress"),
            415,
            "invalid_request_error",
        ),
        (
            post("{}").header("content-encoding", "gzip"),
            400,
            "invalid_request_error",
        ),
        (
            proxy.request("GET", "/v1/messages"),
            405,
            "invalid_request_error",
        ),
        (proxy.request("GET", "/v1/nothing"), 404, "not_found_error"),
        (
            proxy
                .http
                .post(format!("{}/v1/messages", proxy.url))
                .bearer_auth("wrong"),
            401,
            "authentication_error",
        ),
        (
            post("{}").header("origin", "https://evil.example"),
            403,
            "permission_error",
        ),
        (
            post("{}").header("host", "evil.example"),
            403,
            "permission_error",
        ),
    ];
    for (number, (request, status, kind)) in refused.into_iter().enumerate() {
        let answer = proxy.send(request).await;
        let (got, got_kind, message) = answer.error();
        assert_eq!(
            (got, got_kind.as_str()),
            (status, kind),
            "request {number}: {message}"
        );
        assert_eq!(
            answer.headers["x-should-retry"], "false",
            "request {number}"
        );
        assert!(
            answer.headers.contains_key("request-id"),
            "request {number}"
        );
        assert!(!answer.body.contains(&proxy.secret));
    }
    let answer = proxy.messages(&prompt("hello", true)).await;
    assert_eq!(answer.text(), "fine");
}

#[tokio::test]
async fn nobody_without_the_secret_learns_more_than_that_it_lives() {
    let proxy = Proxy::start(&answering(json!([{"text": "fine"}])));
    let bare = |method: &str, path: &str| {
        proxy
            .http
            .request(method.parse().unwrap(), format!("{}{path}", proxy.url))
    };
    let hello = proxy.send(bare("HEAD", "/api/hello")).await;
    assert_eq!((hello.status, hello.body.as_str()), (200, ""));
    let health = proxy.send(bare("GET", "/health")).await;
    assert_eq!(
        (health.status, health.body.as_str()),
        (200, r#"{"status":"ok"}"#)
    );
    for (method, path) in [
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/v1/models"),
        ("GET", "/"),
        ("GET", "/v1/nothing"),
    ] {
        let answer = proxy.send(bare(method, path)).await;
        assert_eq!(answer.error().0, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_of_a_hundred_megabytes_is_refused_and_one_of_sixty_is_not() {
    let proxy = Proxy::start(&answering(json!([{"text": "fine"}])));
    let of = |megabytes: usize| {
        let text = "x".repeat(megabytes * 1024 * 1024);
        proxy.messages_owned(prompt(&text, false))
    };
    let (status, kind, _) = of(100).await.error();
    assert_eq!((status, kind.as_str()), (413, "request_too_large"));
    assert_eq!(of(60).await.status, 200);
}

#[tokio::test]
async fn a_compressed_body_means_what_it_holds_and_a_bomb_is_too_large() {
    // [D40]
    let proxy = Proxy::start(&answering(json!([{"text": "fine"}])));
    let squeezed = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let post = |path: &str, coding: &str, body: Vec<u8>| {
        let request = proxy.request("POST", path).body(body);
        proxy.send(request.header("content-encoding", coding))
    };
    let body = prompt(&"hello ".repeat(1_000), true).to_string();
    let zstd = ruzstd::encoding::compress_to_vec(
        body.as_bytes(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    for (coding, body) in [
        ("gzip", squeezed(body.as_bytes())),
        ("zstd", zstd.clone()),
        ("ZSTD, gzip", squeezed(&zstd)),
        ("identity", body.clone().into_bytes()),
    ] {
        let answer = post("/v1/messages", coding, body.clone()).await;
        assert_eq!(answer.text(), "fine", "{coding}: {}", answer.body);
        let counted = post("/v1/messages/count_tokens", coding, body).await;
        assert!(
            counted.json()["input_tokens"].as_u64().unwrap() > 500,
            "{coding}"
        );
    }
    let sent = proxy.backend.requests();
    let sent: Vec<_> = sent.iter().filter(|seen| seen.is_response()).collect();
    assert!(sent.iter().all(|seen| seen.body == sent[0].body));

    let bomb = squeezed(&squeezed(&vec![b' '; 65 * 1024 * 1024]));
    assert!(bomb.len() < 100_000);
    let (status, kind, message) = post("/v1/messages", "gzip, gzip", bomb).await.error();
    assert_eq!(
        (status, kind.as_str()),
        (413, "request_too_large"),
        "{message}"
    );
}

#[tokio::test]
async fn what_is_lost_is_counted_and_refused_where_that_is_wanted() {
    let scenario = answering(json!([{"text": "fine"}]));
    let mut request = prompt("hello", true);
    request["messages"] = json!([{"role": "user", "content": [
        {"type": "text", "text": "what is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}}
    ]}]);
    let proxy = Proxy::start(&scenario);
    assert_eq!(proxy.messages(&request).await.text(), "fine");
    let (entries, totals) = proxy.finished(1).await;
    assert_eq!(entries[0].losses, ["image_data", "image_source"]);
    assert_eq!(totals.losses["image_data"], 1);

    let strict = |home: &Path| {
        let directory = home.join("ccx/config");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.toml"), "strict = true").unwrap();
    };
    let proxy = Proxy::start_after(&scenario, strict);
    let (status, kind, message) = proxy.messages(&request).await.error();
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert_eq!(
        message,
        "messages.0.content.1: image_data would be marked, and 1 more; refused, because ccx is set to `strict`"
    );
    // The client knows these words, and leaves the field out from then on.
    request = prompt("hello", true);
    request["safeguards"] = json!([{}]);
    let (_, _, message) = proxy.messages(&request).await.error();
    assert!(
        message.starts_with("safeguards: Extra inputs are not permitted"),
        "{message}"
    );
    assert_eq!(proxy.messages(&prompt("hello", true)).await.text(), "fine");
    let requests = proxy.backend.requests();
    let sent = requests.iter().filter(|seen| seen.is_response()).count();
    assert_eq!(sent, 1, "what is refused is not sent");
}

#[tokio::test]
async fn an_upstream_that_misbehaves_is_told_and_not_passed_on() {
    let html = json!({"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>"});
    let garbage =
        json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": "{{{"});
    let nothing =
        json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": ""});
    let inside = json!({
        "status": 200,
        "headers": {"content-type": "application/json"},
        "body": {"error": {"code": "server_error", "message": "inside"}},
    });
    for (what, first) in [
        ("html", json!({"reply": html})),
        ("garbage", json!({"reply": garbage})),
        ("nothing", json!({"reply": nothing})),
        ("an error inside", json!({"reply": inside})),
        (
            "half an event",
            json!({"answer": [{"raw": "event: response.output_te"}, "cut"]}),
        ),
        ("an empty end", json!({"answer": ["end"]})),
        ("a cut", json!({"answer": ["cut"]})),
    ] {
        for is_stream in [true, false] {
            let proxy = Proxy::start(&at_first(100, first.clone()));
            let (status, kind, message) = proxy.messages(&prompt("hello", is_stream)).await.error();
            assert!((500..=504).contains(&status), "{what}: {status} {message}");
            assert_eq!(kind, "api_error", "{what}");
            // The same, but only once: the second attempt is invisible, and so is all that went wrong.
            let proxy = Proxy::start(&at_first(1, first.clone()));
            let answer = proxy.messages(&prompt("hello", is_stream)).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.body);
            assert!(
                answer.body.contains("all is well"),
                "{what}: {}",
                answer.body
            );
            assert_eq!(proxy.finished(1).await.0[0].attempts, 2, "{what}");
        }
    }
}

#[tokio::test]
async fn a_failure_behind_the_first_text_is_an_error_and_never_an_end() {
    let error = json!({"code": "server_error", "message": "it broke"});
    for (what, ending) in [
        ("failed", json!({"failed": error})),
        ("cut", json!("cut")),
        ("no last event", json!("end")),
    ] {
        let proxy = Proxy::start(&answering(json!([{"text": "half of it"}, ending])));
        let answer = proxy.messages(&prompt("hello", true)).await;
        assert_eq!(answer.status, 200, "{what}");
        assert_eq!(answer.last(), "error", "{what}: {}", answer.body);
        assert!(
            !answer.body.contains("message_stop"),
            "{what}: {}",
            answer.body
        );
        let requests = proxy.backend.requests();
        let sent = requests.iter().filter(|seen| seen.is_response()).count();
        assert_eq!(sent, 1, "{what}: what was committed is not asked for again");
    }
}

#[tokio::test]
async fn limits_are_told_with_their_end_and_are_not_tried_again() {
    let proxy = Proxy::start(&at_first(
        1,
        json!({"reply": {"status": 429, "body": {"error": {
            "type": "usage_limit_reached",
            "message": "The usage limit has been reached",
            "plan_type": "plus",
            "resets_in_seconds": 3_700,
        }}}}),
    ));
    let answer = proxy.messages(&prompt("hello", true)).await;
    let (status, kind, message) = answer.error();
    assert_eq!(
        (status, kind.as_str()),
        (429, "rate_limit_error"),
        "{message}"
    );
    assert!(message.contains("resets in 1h"), "{message}");
    assert_eq!(answer.headers["x-should-retry"], "false");
    assert_eq!(proxy.finished(1).await.0[0].attempts, 1);
    assert_eq!(
        proxy.messages(&prompt("hello", true)).await.text(),
        "all is well"
    );
}

#[tokio::test]
async fn an_overflow_inside_the_stream_is_the_status_that_makes_the_client_compact() {
    let error =
        json!({"code": "context_length_exceeded", "message": "Your input exceeds the window."});
    let proxy = Proxy::start(&answering(json!([{"failed": error}])));
    for is_stream in [true, false] {
        let (status, kind, message) = proxy.messages(&prompt("hello", is_stream)).await.error();
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
        assert!(message.starts_with("prompt is too long: "), "{message}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_upstream_with_it() {
    let proxy = Proxy::start(&answering(json!([{"text": "the beginning"}, "stall"])));
    let request = proxy
        .request("POST", "/v1/messages")
        .body(prompt("hello", true).to_string());
    let mut answer = request.send().await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("the beginning") {
        seen.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
    }
    drop(answer);
    let (entries, totals) = proxy.finished(1).await;
    assert_eq!(totals.cancelled, 1, "{entries:?}");
    let limit = tokio::time::timeout(Duration::from_secs(5), async {
        while proxy.backend.cancelled() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    limit
        .await
        .expect("upstream sees that nobody listens any more");
}

#[tokio::test]
async fn models_are_those_of_the_account_and_the_names_that_are_mapped() {
    let proxy = Proxy::start(&answering(json!([{"text": "fine"}])));
    let answer = proxy
        .send(proxy.request("GET", "/v1/models?limit=1000"))
        .await;
    let body = answer.json();
    let ids: Vec<&str> = body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&"gpt-6.1-sol"), "{ids:?}");
    assert!(ids.contains(&"claude-opus-5-5"), "{ids:?}");
    assert_eq!(body["first_id"], ids[0]);
    assert_eq!(body["has_more"], false);
}

#[tokio::test]
async fn tokens_are_counted_without_upstream() {
    let proxy = Proxy::start(&answering(json!([{"text": "fine"}])));
    let count = async |text: &str| {
        let request = proxy.request("POST", "/v1/messages/count_tokens?beta=true");
        let answer = proxy
            .send(request.body(prompt(text, false).to_string()))
            .await;
        answer.json()["input_tokens"].as_u64().unwrap()
    };
    let (short, long) = (count("hello").await, count(&"hello ".repeat(1_000)).await);
    assert!(short > 0 && long > short + 500, "{short} {long}");
    assert!(
        !proxy
            .backend
            .requests()
            .iter()
            .any(|seen| seen.is_response())
    );
}
