//! The scripted backend over a real socket: a job of several steps, its streams, its refusals.
//!
//! Speaks HTTP by hand, so that nothing of ccx's own client is trusted here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ccx::simulate::backend::Backend;
use ccx::simulate::forge::{Account, CLIENT_ID, LIFETIME};
use ccx::simulate::record::Outcome;
use ccx::simulate::scenario::Scenario;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixSeconds(since.as_secs())
}

fn start(scenario: Scenario) -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Backend::start(listener, scenario, vec![Account::new("demo")]).unwrap()
}

fn bundled(name: &str) -> Backend {
    start(Scenario::bundled(name).unwrap().unpaced())
}

fn token() -> String {
    let account = Account::new("demo");
    account.access_token(now(), LIFETIME, 0).expose().clone()
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
    /// Whether the body came to its proper end.
    is_whole: bool,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The events of a stream; each must name its type twice.
    fn events(&self) -> Vec<Value> {
        self.body
            .split("\n\n")
            .filter(|record| !record.is_empty())
            .map(|record| {
                let (event, data) = record
                    .strip_prefix("event: ")
                    .and_then(|rest| rest.split_once("\ndata: "))
                    .unwrap();
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(data["type"], event);
                data
            })
            .collect()
    }

    /// The finished items of a stream.
    fn items(&self) -> Vec<Value> {
        let events = self.events();
        events
            .iter()
            .filter(|event| event["type"] == "response.output_item.done")
            .map(|event| event["item"].clone())
            .collect()
    }
}

fn connect(backend: &Backend) -> TcpStream {
    let url = backend.base_url();
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send(stream: &mut TcpStream, line: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

fn exchange(backend: &Backend, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut stream = connect(backend);
    send(&mut stream, line, headers, body);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let (body, is_whole) = if head.contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        (body.to_owned(), true)
    };
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body,
        is_whole,
    }
}

fn unchunked(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    (body, false)
}

fn ask(backend: &Backend, body: &Value) -> Reply {
    ask_as(backend, &token(), body)
}

fn ask_as(backend: &Backend, token: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("chatgpt-account-id", "acc-demo-forged"),
        ("content-type", "application/json"),
        ("x-openai-internal-codex-responses-lite", "true"),
    ];
    let line = "POST /backend-api/codex/responses";
    exchange(backend, line, &headers, body.to_string().as_bytes())
}

/// A request as ccx makes it of Claude Code's: lite, tools in the input, the folder in a developer
/// message.
fn request(prompt: &str) -> Value {
    let tool = |name: &str, parameters: &[&str]| {
        let properties: serde_json::Map<String, Value> = parameters
            .iter()
            .map(|name| ((*name).to_owned(), json!({"type": "string"})))
            .collect();
        json!({"type": "function", "name": name, "strict": false,
            "parameters": {"type": "object", "properties": properties, "required": [parameters[0]]}})
    };
    json!({
        "model": "gpt-6.1-sol",
        "stream": true,
        "store": false,
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [
                tool("Read", &["file_path", "limit"]),
                tool("Write", &["file_path", "content"]),
                tool("Bash", &["command", "description"]),
            ]},
            {"type": "message", "role": "developer", "content": "x".repeat(3000)},
            {"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": prompt}]},
            {"type": "message", "role": "developer",
                "content": " - Primary working directory: /home/demo\n"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": false,
        "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"},
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "conversation-1",
    })
}

/// Adds an answer's items to the conversation and what each call returned.
fn feed_back(body: &mut Value, reply: &Reply, outputs: &[&str]) {
    let input = body["input"].as_array_mut().unwrap();
    let mut outputs = outputs.iter();
    let mut returned = Vec::new();
    for mut item in reply.items() {
        if item["type"] == "function_call" {
            returned.push(
                json!({"type": "function_call_output", "call_id": item["call_id"],
                "output": outputs.next().unwrap()}),
            );
        }
        if item["type"] != "reasoning" {
            item.as_object_mut().unwrap().remove("id");
        }
        input.push(item);
    }
    // The client answers in the order of completion.
    returned.reverse();
    input.extend(returned);
}

fn calls(reply: &Reply) -> Vec<(String, Value)> {
    reply
        .items()
        .iter()
        .filter(|item| item["type"] == "function_call")
        .map(|item| {
            let arguments = item["arguments"].as_str().unwrap();
            (
                item["name"].as_str().unwrap().to_owned(),
                serde_json::from_str(arguments).unwrap(),
            )
        })
        .collect()
}

fn usage(reply: &Reply) -> Value {
    reply.events().last().unwrap()["response"]["usage"].clone()
}

/// Plays the whole job and returns the last answer and the body that led to it.
fn job(backend: &Backend) -> (Reply, Value) {
    let mut body = request("Read notes.txt, write \"summary.md\", count the words.");
    let look = ask(backend, &body);
    assert_eq!(look.status, 200, "{}", look.body);
    assert_eq!(
        calls(&look),
        [
            (
                "Read".to_owned(),
                json!({"file_path": "/home/demo/notes.txt"})
            ),
            (
                "Bash".to_owned(),
                json!({"command": "ls", "description": "List the folder"})
            ),
        ]
    );
    feed_back(
        &mut body,
        &look,
        &["1\tShopping\n2\tbread\n3\t", "notes.txt\nx"],
    );
    let write = ask(backend, &body);
    assert_eq!(
        calls(&write),
        [(
            "Write".to_owned(),
            json!({"file_path": "/home/demo/summary.md",
                "content": "# Summary\n\nThe notes begin with: Shopping\n\nThey have 2 lines.\n"})
        )]
    );
    feed_back(&mut body, &write, &["File created"]);
    let measure = ask(backend, &body);
    let command = "wc -w 'notes.txt' 'summary.md'";
    assert_eq!(calls(&measure)[0].1["command"], command);
    let counts = "  2 notes.txt\n 11 summary.md\n 13 total";
    feed_back(&mut body, &measure, &[counts]);
    (ask(backend, &body), body)
}

#[test]
fn a_job_goes_on_as_the_tools_return() {
    let backend = bundled("job");
    let (report, _) = job(&backend);
    let items = report.items();
    let text = items[1]["content"][0]["text"].as_str().unwrap();
    assert_eq!(
        text,
        "Done.\n\n- I read `notes.txt`; it begins with \"Shopping\".\n\
         - The folder held: notes.txt …\n- I wrote `summary.md`.\n\
         - `wc` counted 2 words in the notes and 11 in the summary.\n"
    );
    assert_eq!(backend.complaints(), Vec::<String>::new());
    let steps: Vec<Option<String>> = backend.requests().into_iter().map(|it| it.step).collect();
    assert_eq!(
        steps,
        ["look", "write", "measure", "report"].map(|step| Some(step.to_owned()))
    );
}

#[test]
fn every_run_is_the_same() {
    let (first, body) = job(&bundled("job"));
    let (second, same) = job(&bundled("job"));
    assert_eq!(body, same);
    assert_eq!(usage(&first), usage(&second));
}

#[test]
fn the_cache_sees_a_growing_conversation_and_a_changed_one() {
    let backend = bundled("job");
    let (report, mut body) = job(&backend);
    let cached = |reply: &Reply| usage(reply)["input_tokens_details"]["cached_tokens"].clone();
    let total = usage(&report)["input_tokens"].as_u64().unwrap();
    let read = cached(&report).as_u64().unwrap();
    assert!(read > 1024 && read < total && read.is_multiple_of(128));
    // Of what stands before the change, the tools, one block is whole.
    body["input"][1]["content"] = json!("y");
    assert_eq!(cached(&ask(&backend, &body)), 128);
}

#[test]
fn streams_end_with_usage_and_count_their_events() {
    let backend = bundled("chat");
    for prompt in ["hello", "run: ls", "read: x", "write: x"] {
        let reply = ask(&backend, &request(prompt));
        assert!(reply.is_whole);
        assert!(reply.head.contains("content-type: text/event-stream"));
        assert!(reply.head.contains("openai-model: gpt-6.1-sol"));
        let events = reply.events();
        assert_eq!(events[0]["type"], "response.created");
        assert_eq!(events[1]["type"], "response.in_progress");
        assert_eq!(events.last().unwrap()["type"], "response.completed");
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
    }
}

#[test]
fn side_requests_are_answered_in_every_scenario() {
    let backend = bundled("job");
    let side = |prompt: &str| {
        let mut body = request(prompt);
        body["input"].as_array_mut().unwrap().remove(0);
        body
    };
    let mut title = side("<session>x</session>");
    title["text"] = json!({"format": {"type": "json_schema", "name": "title", "strict": true,
        "schema": {"type": "object", "properties": {"title": {"type": "string"}},
            "required": ["title"], "additionalProperties": false}}});
    let said = |reply: Reply| {
        assert_eq!(reply.status, 200, "{}", reply.body);
        let items = reply.items();
        items[0]["content"][0]["text"].as_str().unwrap().to_owned()
    };
    let title: Value = serde_json::from_str(&said(ask(&backend, &title))).unwrap();
    assert!(title["title"].is_string());
    assert_eq!(
        said(ask(&backend, &side("<transcript>\n{}\n"))),
        "<block>no"
    );
    let summary = said(ask(
        &backend,
        &request("Make a summary of the conversation so far, in <summary> tags."),
    ));
    assert!(summary.contains("<summary>") && summary.contains("</summary>"));
}

#[test]
fn reasoning_must_come_back_as_it_was() {
    let backend = bundled("job");
    let (_, body) = job(&backend);
    let at = body["input"]
        .as_array()
        .unwrap()
        .iter()
        .position(|item| item["type"] == "reasoning")
        .unwrap();
    let code = |body: &Value| ask(&backend, body).json()["error"]["code"].clone();
    let mut changed = body.clone();
    let sealed = changed["input"][at]["encrypted_content"].as_str().unwrap();
    changed["input"][at]["encrypted_content"] = json!(sealed.replacen('A', "B", 9));
    assert_eq!(code(&changed), "invalid_encrypted_content");
    let mut elsewhere = body.clone();
    elsewhere["model"] = json!("gpt-6-sol");
    assert_eq!(code(&elsewhere), "invalid_encrypted_content");
    let mut bare = body;
    bare["input"][at]
        .as_object_mut()
        .unwrap()
        .remove("encrypted_content");
    let refused = ask(&backend, &bare);
    assert_eq!(refused.status, 404, "{}", refused.body);
}

#[test]
fn what_does_not_fit_the_scenario_is_loud() {
    let backend = bundled("job");
    let mut body = request("Read a.txt and write b.md");
    body["input"][0]["tools"][0]["parameters"]["properties"] = json!({"path": {}});
    body["input"][0]["tools"][0]["parameters"]["required"] = json!([]);
    let reply = ask(&backend, &body);
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].clone()),
        (400, json!("simulator"))
    );
    assert_eq!(
        backend.complaints(),
        ["scenario job, step look: tool Read and argument file_path do not fit"]
    );
}

#[test]
fn credentials_are_checked_and_not_kept() {
    let backend = bundled("chat");
    let body = request("hello");
    let account = Account::new("demo");
    let old = account.access_token(UnixSeconds(now().0 - 100), Duration::from_secs(50), 0);
    let stranger = Account::new("other").access_token(now(), LIFETIME, 0);
    for (given, status, code) in [
        (old.expose().as_str(), 401, json!("token_expired")),
        (stranger.expose(), 403, Value::Null),
        ("nonsense", 401, Value::Null),
    ] {
        let reply = ask_as(&backend, given, &body);
        assert_eq!(reply.status, status);
        assert_eq!(reply.json()["error"]["code"], code);
    }
    assert_eq!(ask(&backend, &body).status, 200);
    backend.expire_access();
    assert_eq!(ask(&backend, &body).status, 401);
    for seen in backend.requests() {
        assert_eq!(seen.header("authorization"), Some("Bearer (redacted)"));
    }
}

#[test]
fn the_issuer_takes_json_and_forms_and_each_token_once() {
    let backend = bundled("chat");
    let post = |kind: &str, body: &str| {
        let headers = [("content-type", kind)];
        exchange(&backend, "POST /oauth/token", &headers, body.as_bytes())
    };
    let json_body = json!({"client_id": CLIENT_ID, "grant_type": "refresh_token",
        "refresh_reason": "proactive_expiry", "refresh_token": "rt_forged_demo_0000"})
    .to_string();
    let first = post("application/json", &json_body);
    assert_eq!(first.status, 200);
    let again = post("application/json", &json_body);
    assert_eq!(again.json()["error"]["code"], "refresh_token_reused");
    let next = first.json()["refresh_token"].as_str().unwrap().to_owned();
    let form = format!("grant_type=refresh_token&client_id={CLIENT_ID}&refresh_token={next}");
    let second = post("application/x-www-form-urlencoded", &form);
    assert_eq!(second.status, 200);
    backend.expire_access();
    let old = first.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(ask_as(&backend, &old, &request("hello")).status, 401);
    let kept = format!("{:?}", backend.requests());
    assert!(!kept.contains("rt_forged"));
}

#[test]
fn the_other_paths_answer_in_their_shapes() {
    let backend = bundled("chat");
    let bearer = format!("Bearer {}", token());
    let headers = [
        ("authorization", bearer.as_str()),
        ("chatgpt-account-id", "acc-demo-forged"),
    ];
    let get = |path: &str| exchange(&backend, &format!("GET {path}"), &headers, b"");
    let models = get("/backend-api/codex/models?client_version=0.169.0");
    assert!(models.head.contains("etag: "));
    let models = models.json();
    assert_eq!(models["models"][0]["slug"], "gpt-6.1-sol");
    assert_eq!(models["models"].as_array().unwrap().len(), 12);
    let routing = get("/backend-api/wham/accounts/check").json();
    assert_eq!(routing["accounts"][0]["id"], "acc-demo-forged");
    let usage = get("/backend-api/wham/usage").json();
    assert_eq!(
        usage["rate_limit"]["primary_window"]["limit_window_seconds"],
        18_000
    );
    assert_eq!(get("/backend-api/wham/settings/user").status, 200);
    assert_eq!(get("/backend-api/nothing").status, 404);
    let none = exchange(&backend, "GET /backend-api/codex/models", &[], b"");
    assert_eq!(none.status, 401);
}

#[test]
fn a_peer_that_leaves_is_noticed() {
    let backend = start(Scenario::bundled("chat").unwrap());
    let mut stream = connect(&backend);
    let bearer = format!("Bearer {}", token());
    let headers = [
        ("authorization", bearer.as_str()),
        ("chatgpt-account-id", "acc-demo-forged"),
        ("content-type", "application/json"),
        ("x-openai-internal-codex-responses-lite", "true"),
    ];
    let body = request("slow").to_string();
    let line = "POST /backend-api/codex/responses";
    send(&mut stream, line, &headers, body.as_bytes());
    let mut some = [0; 64];
    stream.read_exact(&mut some).unwrap();
    assert_eq!(backend.cancelled(), 0);
    drop(stream);
    let seen = backend
        .wait_for(PATIENCE, |seen| seen[0].outcome == Outcome::Cancelled)
        .unwrap();
    assert!(seen[0].ended.is_some());
    assert_eq!(backend.cancelled(), 1);
}

#[test]
fn faults_are_what_they_are_called() {
    for (name, status, is_whole, last) in [
        ("usage-limit", 429, true, None),
        ("overloaded-once", 503, true, None),
        ("challenge", 403, true, None),
        ("failed", 200, true, Some("response.failed")),
        ("incomplete-length", 200, true, Some("response.incomplete")),
        ("error-event", 200, true, Some("error")),
        ("cut-once", 200, false, Some("response.in_progress")),
        (
            "cut-after-text",
            200,
            false,
            Some("response.output_item.done"),
        ),
        ("end", 200, true, Some("response.output_item.done")),
        ("interleaved", 200, true, Some("response.completed")),
    ] {
        let reply = ask(&bundled(name), &request("hello"));
        assert_eq!((reply.status, reply.is_whole), (status, is_whole), "{name}");
        if let Some(last) = last {
            assert_eq!(reply.events().last().unwrap()["type"], last, "{name}");
        }
    }
    let limit = ask(&bundled("usage-limit"), &request("hello"));
    let resets_at = limit.json()["error"]["resets_at"].as_u64().unwrap();
    assert!(resets_at.abs_diff(now().0 + 3600) < 60);
    assert!(
        limit
            .head
            .contains(&format!("x-codex-primary-reset-at: {resets_at}"))
    );
}

#[test]
fn a_fault_that_comes_once_is_followed_by_a_good_answer() {
    let backend = bundled("cut-once");
    let body = request("hello");
    assert!(!ask(&backend, &body).is_whole);
    let reply = ask(&backend, &body);
    assert!(reply.is_whole);
    assert_eq!(reply.items()[0]["content"][0]["text"], "All is well again.");
}

#[test]
fn every_bundled_scenario_answers_a_first_prompt() {
    for name in Scenario::names() {
        if ["silence", "late-headers", "stall", "stall-after-text"].contains(&name) {
            continue;
        }
        let backend = bundled(name);
        ask(&backend, &request("hello"));
        assert_eq!(backend.complaints(), Vec::<String>::new(), "{name}");
        assert!(backend.requests()[0].step.is_some(), "{name}");
    }
}
