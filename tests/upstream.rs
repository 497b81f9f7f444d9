//! Calls to a backend on loopback that says exactly what each test wants, byte by byte.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ccx::account::credentials::Credentials;
use ccx::catalogue::list::Catalogue;
use ccx::catalogue::model::Lane;
use ccx::catalogue::shelf::{FRESH, RefreshError, Shelf};
use ccx::secret::Secret;
use ccx::time::UnixSeconds;
use ccx::upstream::answer::Answer;
use ccx::upstream::endpoints::Endpoints;
use ccx::upstream::failure::Failure;
use ccx::upstream::http::{Call, Client};
use ccx::upstream::lane::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const TOKEN: &str = "forged-token-0123456789";
const NO_ROUTE: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_1\r\nopenai-model: gpt-5.5\r\ntransfer-encoding: chunked\r\n\r\n";

/// What the backend saw.
#[derive(Debug, PartialEq)]
enum Event {
    /// A connection, by its number.
    Opened(usize),
    /// Method and path, header lines in lower case, body.
    Request(usize, String, Vec<String>, String),
    /// The client closed the connection.
    Closed(usize),
}

/// A backend: `answer` gives the bytes for a method and path. An answer that ends in `\0` is followed by the end of
/// the connection.
struct Backend {
    base: String,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Backend {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (sender, events) = mpsc::unbounded_channel();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = sender.send(Event::Opened(number));
                let (sender, answer) = (sender.clone(), Arc::clone(&answer));
                tokio::spawn(async move {
                    serve(stream, number, &sender, &*answer).await;
                    let _ = sender.send(Event::Closed(number));
                });
            }
        });
        Self { base, events }
    }

    fn client(&self) -> Client {
        client(&self.base)
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(10), self.events.recv())
            .await
            .expect("the backend saw nothing")
            .unwrap()
    }

    /// Waits for the next request and returns its path, headers and body.
    async fn request(&mut self) -> (String, Vec<String>, String) {
        loop {
            if let Event::Request(_, line, headers, body) = self.event().await {
                return (line, headers, body);
            }
        }
    }

    fn seen(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    number: usize,
    events: &mpsc::UnboundedSender<Event>,
    answer: &(dyn Fn(&str) -> String + Send + Sync),
) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        };
        let text = String::from_utf8(buffer[..head].to_vec()).unwrap();
        let mut lines = text.trim_end().split("\r\n").map(str::to_owned);
        let line = lines.next().unwrap();
        let line = line.trim_end_matches(" HTTP/1.1").to_owned();
        let headers: Vec<String> = lines.collect();
        let length: usize = headers
            .iter()
            .find_map(|header| header.strip_prefix("content-length: "))
            .map_or(0, |value| value.parse().unwrap());
        while buffer.len() < head + length {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        let body = String::from_utf8(buffer[head..head + length].to_vec()).unwrap();
        buffer.drain(..head + length);
        let reply = answer(&line);
        let _ = events.send(Event::Request(number, line, headers, body));
        let (reply, ends) = match reply.strip_suffix('\0') {
            Some(reply) => (reply, true),
            None => (reply.as_str(), false),
        };
        if stream.write_all(reply.as_bytes()).await.is_err() || ends {
            return;
        }
    }
}

fn client(base: &str) -> Client {
    let endpoints = Endpoints::resolve(Some(base), None, true).unwrap();
    let version = "0.1.0".to_owned();
    Client::new(endpoints, Identity { version }).unwrap()
}

fn credentials() -> Credentials {
    Credentials {
        account: "one".to_owned(),
        access_token: Secret::new(TOKEN.to_owned()),
        chatgpt_account_id: "acc-1".to_owned(),
        expires_at: UnixSeconds(0),
    }
}

fn call(body: &'static str) -> Call<'static> {
    Call {
        body: Bytes::from_static(body.as_bytes()),
        lane: Lane::Lite,
        model: "gpt-6.1-sol",
        conversation: "conversation-1",
        turn_state: None,
        tier: None,
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn whole(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A backend that says `reply` to every turn and knows no routes.
async fn saying(reply: String) -> Backend {
    Backend::start(move |line| {
        if line.starts_with("POST /backend-api/codex/responses") {
            reply.clone()
        } else {
            NO_ROUTE.to_owned()
        }
    })
    .await
}

async fn failure_of(reply: String) -> Failure {
    let backend = saying(reply).await;
    let client = backend.client();
    match client.respond(&credentials(), call("{}")).await {
        Ok(mut answer) => loop {
            match answer.chunk().await {
                Some(Ok(_)) => {}
                Some(Err(failure)) => break failure,
                None => panic!("the answer ended in peace"),
            }
        },
        Err(failure) => failure,
    }
}

async fn text(answer: &mut Answer) -> String {
    let mut text = Vec::new();
    while let Some(bytes) = answer.chunk().await {
        text.extend_from_slice(&bytes.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_turn_goes_there_and_comes_back() {
    let events = "event: a\ndata: {}\n\n";
    let mut backend = saying(format!(
        "{EVENTS}{}{}0\r\n\r\n",
        chunk(events),
        chunk(": x\n\n")
    ))
    .await;
    let client = backend.client();
    let mut answer = client
        .respond(&credentials(), call(r#"{"stream":true}"#))
        .await
        .unwrap();
    assert_eq!(answer.facts.request_id.as_deref(), Some("req_1"));
    assert_eq!(answer.facts.served_model.as_deref(), Some("gpt-5.5"));
    assert_eq!(text(&mut answer).await, format!("{events}: x\n\n"));
    assert!(answer.chunk().await.is_none());

    let (line, headers, _) = backend.request().await;
    assert_eq!(line, "GET /backend-api/wham/accounts/check");
    assert!(headers.contains(&format!("authorization: Bearer {TOKEN}")));
    let (line, headers, body) = backend.request().await;
    assert_eq!(line, "POST /backend-api/codex/responses");
    assert_eq!(body, r#"{"stream":true}"#);
    let mut names: Vec<_> = headers
        .iter()
        .map(|header| header.split(": ").next().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "chatgpt-account-id",
            "content-length",
            "content-type",
            "host",
            "originator",
            "session-id",
            "thread-id",
            "user-agent",
            "version",
            "x-client-request-id",
            "x-codex-beta-features",
            "x-codex-routing-hint",
            "x-codex-window-id",
            "x-openai-internal-codex-responses-lite",
        ],
        "no cookie, no referer, no accept-encoding, no connection header"
    );
}

#[tokio::test]
async fn warming_opens_the_connection_that_the_turns_use() {
    let mut backend = saying(whole(
        "200 OK",
        "content-type: text/event-stream\r\n",
        "data: x\n\n",
    ))
    .await;
    let client = backend.client();
    client.warm(&credentials()).await;
    for _ in 0..3 {
        let mut answer = client.respond(&credentials(), call("{}")).await.unwrap();
        assert_eq!(text(&mut answer).await, "data: x\n\n");
    }
    let lines: Vec<_> = backend
        .seen()
        .into_iter()
        .map(|event| match event {
            Event::Opened(number) => format!("opened {number}"),
            Event::Request(number, line, ..) => format!("{number} {line}"),
            Event::Closed(number) => format!("closed {number}"),
        })
        .collect();
    let turn = "0 POST /backend-api/codex/responses";
    assert_eq!(
        lines,
        [
            "opened 0",
            "0 GET /backend-api/wham/accounts/check",
            turn,
            turn,
            turn
        ]
    );
}

#[tokio::test]
async fn dropping_an_answer_closes_the_connection_at_once() {
    let mut backend = saying(format!("{EVENTS}{}", chunk("data: x\n\n"))).await;
    let client = backend.client();
    let mut answer = client.respond(&credentials(), call("{}")).await.unwrap();
    answer.chunk().await.unwrap().unwrap();
    backend.request().await;
    backend.request().await;
    assert_eq!(backend.seen(), []);
    drop(answer);
    assert_eq!(backend.event().await, Event::Closed(0));
}

#[tokio::test]
async fn a_drained_answer_leaves_its_connection_to_the_next_call() {
    let rest = chunk(": nothing that matters\n\n");
    let mut backend = saying(format!("{EVENTS}{}{rest}0\r\n\r\n", chunk("data: x\n\n"))).await;
    let client = backend.client();
    for _ in 0..3 {
        let mut answer = client.respond(&credentials(), call("{}")).await.unwrap();
        answer.chunk().await.unwrap().unwrap();
        answer.drain().await;
    }
    let opened = |event: &Event| matches!(event, Event::Opened(_));
    assert_eq!(
        backend.seen().iter().filter(|event| opened(event)).count(),
        1
    );
}

#[tokio::test]
async fn dropping_a_call_that_waits_for_its_headers_closes_the_connection_at_once() {
    let mut backend = saying(String::new()).await;
    let client = backend.client();
    let waiting = tokio::spawn(async move { client.respond(&credentials(), call("{}")).await });
    backend.request().await;
    backend.request().await;
    waiting.abort();
    assert_eq!(backend.event().await, Event::Closed(0));
}

#[tokio::test]
async fn events_pass_under_any_content_type() {
    for content_type in [
        "",
        "content-type: application/json\r\n",
        "content-type: text/html\r\n",
        "content-type: text/event-stream; charset=utf-8\r\n",
    ] {
        let events = "\n\ndata: {\"a\":1}\n\n";
        let backend = saying(whole("200 OK", content_type, events)).await;
        let client = backend.client();
        let mut answer = client.respond(&credentials(), call("{}")).await.unwrap();
        assert_eq!(text(&mut answer).await, events, "{content_type}");
    }
}

#[tokio::test]
async fn what_is_no_event_stream_is_a_failure_under_any_content_type() {
    let limit = r#"{"error":{"type":"usage_limit_reached","message":"m","resets_at":9999999999}}"#;
    let malformed = |what: &str| Failure::Malformed {
        what: what.to_owned(),
    };
    for content_type in ["application/json", "text/event-stream"] {
        let header = format!("content-type: {content_type}\r\n");
        for (body, expected) in [
            (
                limit,
                Failure::UsageLimit {
                    message: "m".to_owned(),
                    resets_at: Some(9_999_999_999),
                    window: None,
                },
            ),
            (
                r#"{"detail":"Bad"}"#,
                Failure::Server {
                    status: 200,
                    message: "Bad".to_owned(),
                },
            ),
            (r#"{"id":"resp_1"}"#, malformed("JSON")),
            ("<html><body>hello</body></html>", malformed("a web page")),
        ] {
            let failure = failure_of(whole("200 OK", &header, body)).await;
            assert_eq!(failure, expected, "{content_type} {body}");
        }
    }
    let nothing = failure_of(whole("200 OK", "", "")).await;
    assert_eq!(nothing, malformed("an empty answer"));
    let endless = format!("[{}", "1,".repeat(100_000));
    assert_eq!(
        failure_of(whole("200 OK", "", &endless)).await,
        malformed("JSON")
    );
}

#[tokio::test]
async fn refusals_are_classified_bounded_and_without_secrets() {
    let echo = format!(r#"{{"error":{{"message":"token {TOKEN} is bad"}}}}"#);
    assert_eq!(
        failure_of(whole("401 Unauthorized", "", &echo)).await,
        Failure::Unauthorized {
            message: "token (hidden) is bad".to_owned()
        }
    );
    let huge = "word ".repeat(1_000_000);
    let failure = failure_of(whole("500 Oops", "", &huge)).await;
    assert!(matches!(failure, Failure::Server { status: 500, .. }));
    assert!(failure.to_string().len() < 1_000);
    // The body breaks off: the status still counts.
    let cut = "HTTP/1.1 503 Busy\r\ncontent-length: 100\r\nretry-after: 2\r\n\r\n{\"err\0";
    assert_eq!(
        failure_of(cut.to_owned()).await,
        Failure::Overloaded {
            message: "status 503 without a message".to_owned(),
            retry_after: Some(Duration::from_secs(2)),
        }
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut elsewhere = saying(String::new()).await;
    let location = format!("location: {}/login\r\n", elsewhere.base);
    let failure = failure_of(whole("307 Temporary Redirect", &location, "")).await;
    assert_eq!(
        failure,
        Failure::Malformed {
            what: "a redirect (307)".to_owned()
        }
    );
    assert_eq!(elsewhere.seen(), []);
}

#[tokio::test]
async fn connections_that_break_or_never_come() {
    assert_eq!(failure_of("\0".to_owned()).await, Failure::Cut);
    assert_eq!(
        failure_of(format!("{EVENTS}{}\0", chunk("data: x\n\n"))).await,
        Failure::Cut
    );
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let refused = client(&base).respond(&credentials(), call("{}")).await;
    assert_eq!(
        refused.unwrap_err(),
        Failure::Unreachable {
            what: "the connection was refused".to_owned()
        }
    );
}

#[tokio::test]
async fn a_bound_workspace_is_served_where_it_belongs() {
    let events = whole(
        "200 OK",
        "content-type: text/event-stream\r\n",
        "data: x\n\n",
    );
    let mut workspace = saying(events).await;
    let body = format!(
        r#"{{"accounts":[{{"id":"acc-1","workspace_backend_origin":"{}","account_routing_override":"us"}}]}}"#,
        workspace.base
    );
    let mut front = Backend::start(move |_| whole("200 OK", "", &body)).await;
    let client = front.client();
    client.warm(&credentials()).await;
    let (line, ..) = workspace.request().await;
    assert_eq!(
        line, "HEAD /backend-api/codex/responses",
        "warmed there too"
    );
    for _ in 0..2 {
        let mut answer = client.respond(&credentials(), call("{}")).await.unwrap();
        text(&mut answer).await;
        let (_, headers, _) = workspace.request().await;
        assert!(headers.contains(&"x-openai-account-routing-override: us".to_owned()));
    }
    let seen = front.seen();
    let asked = |event: &&Event| matches!(event, Event::Request(..));
    assert_eq!(seen.iter().filter(asked).count(), 1);
}

#[tokio::test]
async fn a_wrong_route_is_told_and_nothing_is_sent() {
    let body =
        r#"{"accounts":[{"id":"acc-1","workspace_backend_origin":"https://elsewhere.example"}]}"#;
    let mut backend = Backend::start(move |_| whole("200 OK", "", body)).await;
    let refused = backend.client().respond(&credentials(), call("{}")).await;
    assert_eq!(
        refused.unwrap_err(),
        Failure::Forbidden {
            why: "workspace routing: the workspace's origin is not on this machine".to_owned()
        }
    );
    backend.request().await;
    assert!(
        !backend
            .seen()
            .iter()
            .any(|e| matches!(e, Event::Request(..)))
    );
}

fn listing(body: &'static str) -> impl Fn(&str) -> String + Send + Sync + 'static {
    move |line| {
        if line == "GET /backend-api/codex/models?client_version=0.169.0" {
            whole("200 OK", "etag: \"e1\"\r\n", body)
        } else {
            NO_ROUTE.to_owned()
        }
    }
}

#[tokio::test]
async fn the_list_of_models_is_renewed_kept_and_adopted() {
    let root = tempfile::tempdir().unwrap();
    let backend = Backend::start(listing(r#"{"models":[{"slug":"gpt-9"}]}"#)).await;
    let client = backend.client();
    let shelf = Shelf::new(root.path().to_owned(), Catalogue::bundled());
    let now = UnixSeconds(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    );
    assert!(!shelf.adopt("one"));
    assert!(shelf.is_stale(now));
    assert!(shelf.refresh(&client, &credentials()).await.unwrap());
    assert_eq!(shelf.current().models[0].slug, "gpt-9");
    assert!(!shelf.is_stale(now));
    assert!(shelf.is_stale(now.plus(FRESH + Duration::from_secs(60))));
    assert!(!shelf.refresh(&client, &credentials()).await.unwrap());

    let next = Shelf::new(root.path().to_owned(), Catalogue::bundled());
    assert!(next.adopt("one"));
    assert!(!next.adopt("two"));
    assert_eq!(next.current(), shelf.current());
    assert!(!next.is_stale(now));
    next.note_etag("one", "e1");
    assert!(!next.is_stale(now));
    next.note_etag("one", "e2");
    assert!(next.is_stale(now), "another etag");
    next.refresh(&client, &credentials()).await.unwrap();
    next.note_etag("one", "e2");
    assert!(!next.is_stale(now), "told twice in two forms: no loop");
}

#[tokio::test]
async fn a_renewal_that_fails_keeps_the_old_list() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(root.path().to_owned(), Catalogue::bundled());
    for body in ["<html>", r#"{"models":[]}"#, r#"{"models":[{"slug":1}]}"#] {
        let backend = Backend::start(listing(body)).await;
        let error = shelf.refresh(&backend.client(), &credentials()).await;
        assert!(matches!(error, Err(RefreshError::Catalogue(_))), "{body}");
    }
    let backend = Backend::start(|_| NO_ROUTE.to_owned()).await;
    let error = shelf.refresh(&backend.client(), &credentials()).await;
    assert!(matches!(error, Err(RefreshError::Upstream(_))));
    assert_eq!(shelf.current(), Catalogue::bundled());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}
