//! What the real Claude Code looks up on the web: its WebSearch, answered by upstream's search, and its WebFetch.
//!
//! Built with `--features real-client`, as `claude_code.rs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ccx::simulate::record::Seen;
use ccx::simulate::scenario::Scenario;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::stage::Stage;

const LITE: &str = "x-openai-internal-codex-responses-lite";

/// Fails loudly without the client.
fn require_client() {
    let client = std::env::var("CCX_TEST_CLAUDE")
        .expect("CCX_TEST_CLAUDE must name the real client; run shell/test.sh");
    assert!(Path::new(&client).exists(), "{client} is not there");
}

/// Runs a prompt and returns what the client's tools returned: `tool_use_result` of each.
fn run(stage: &Stage, words: &[&str]) -> Vec<Value> {
    let format = ["--output-format", "stream-json", "--verbose"];
    let output = stage.ccx(&[words, &format].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let messages = text.lines().map(|line| serde_json::from_str(line).unwrap());
    messages
        .filter(|message: &Value| message["type"] == "user")
        .map(|message| message["tool_use_result"].clone())
        .collect()
}

/// The requests that upstream saw of `kind`: those whose only tool is a search, or those without tools.
fn asked(stage: &Stage, with: impl Fn(&Value) -> bool) -> Vec<Seen> {
    let requests = stage.backend.requests();
    let asked = requests.into_iter().filter(Seen::is_response);
    asked.filter(|seen| with(&seen.body)).collect()
}

fn is_search(body: &Value) -> bool {
    body["tools"][0]["type"] == "web_search"
}

#[test]
fn web_search_finds_links_on_every_model() {
    // [I01]
    require_client();
    for (own, answers) in [
        (&[][..], "gpt-6.1-sol"),
        (&["--model", "gpt-6-luna"], "gpt-6-sol"),
    ] {
        let stage = Stage::new("chat");
        let prompt = [
            "-p",
            "search: rust news",
            "--allowedTools",
            "WebSearch,ToolSearch",
        ];
        let results = run(&stage, &[own, &prompt].concat());
        let found = results.last().unwrap();
        assert_eq!(found["query"], "rust news");
        assert_eq!(found["searchCount"], 1, "{found}");
        assert_eq!(
            found["results"][0]["content"],
            json!([
                {"title": "Example Domain", "url": "https://example.com/"},
                {"title": "Reserved names", "url": "https://www.iana.org/help/example-domains"},
            ])
        );
        let summary = found["results"][1].as_str().unwrap();
        assert!(summary.starts_with("Nothing was looked up"), "{summary}");

        let searches = asked(&stage, is_search);
        let [search] = &searches[..] else {
            panic!("{} searches", searches.len())
        };
        assert_eq!(search.body["model"], answers);
        assert_eq!(search.header(LITE), None);
        assert!(search.body["input"].to_string().contains("at most 8 times"));
        assert_eq!(stage.backend.complaints(), Vec::<String>::new());
    }
}

#[test]
fn the_domains_of_a_web_search_hold() {
    // [I02]
    require_client();
    let call = json!({"call": {"name": "WebSearch", "arguments":
        {"query": "crabs", "blocked_domains": ["out.example"]}}});
    let scenario = json!({"about": "searches within bounds", "steps": [
        {"name": "load", "when": {"kind": "main", "outputs": 0}, "answer": [
            {"call": {"name": "ToolSearch", "arguments": {"query": "select:WebSearch", "max_results": 1}}}]},
        {"name": "search", "when": {"kind": "main", "outputs": 1}, "answer": [call]},
        {"name": "tell", "when": {"kind": "main"}, "answer": [{"text": "Done."}]},
        {"name": "leak", "when": {"kind": "search"}, "answer": [
            {"search": {"query": "crabs", "results": [
                {"title": "Out", "url": "https://a.out.example/"}, {"title": "In", "url": "https://in.example/"}]}},
            {"search": {"query": "more crabs", "failed": true}},
            {"text": "Both."},
        ]},
    ]});
    let scenario = Scenario::parse("bounds", &scenario.to_string()).unwrap();
    let stage = Stage::with(scenario, &["test"]);
    let results = run(
        &stage,
        &["-p", "crabs", "--allowedTools", "WebSearch,ToolSearch"],
    );
    let found = results.last().unwrap();
    assert_eq!(found["searchCount"], 2, "{found}");
    let told = found["results"].as_array().unwrap();
    assert_eq!(
        told[0]["content"],
        json!([{"title": "In", "url": "https://in.example/"}])
    );
    assert_eq!(told[1], "Web search error: unavailable");
    assert_eq!(told[2], "Both.");
    let searches = asked(&stage, is_search);
    assert_eq!(
        searches[0].body["tools"][0]["filters"],
        json!({"blocked_domains": ["out.example"]})
    );
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());
}

/// Serves one page over TLS, which the client insists on, for as long as the process runs. Returns its address, and
/// the certificate in PEM.
fn page() -> (String, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let chain = vec![CertificateDer::from(certified.cert.der().to_vec())];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut connection, &mut socket);
            let mut asked = Vec::new();
            let mut buffer = [0; 4096];
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => asked.extend_from_slice(&buffer[..count]),
                }
            }
            let page = "<html><body><h1>Crabs</h1><p>They walk sideways.</p></body></html>";
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                page.len()
            );
            // Whoever has gone misses the page.
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
            connection.send_close_notify();
            let _ = connection.complete_io(&mut socket);
        }
    });
    let url = format!("https://127.0.0.1:{port}/crabs");
    (url, certified.cert.pem())
}

#[test]
fn web_fetch_reads_a_page_and_has_it_summed_up() {
    require_client();
    let (url, certificate) = page();
    let scenario = json!({"about": "fetches a page", "steps": [
        {"name": "load", "when": {"kind": "main", "outputs": 0}, "answer": [
            {"call": {"name": "ToolSearch", "arguments": {"query": "select:WebFetch", "max_results": 1}}}]},
        {"name": "fetch", "when": {"kind": "main", "outputs": 1}, "answer": [
            {"call": {"name": "WebFetch", "arguments": {"url": url, "prompt": "What do crabs do?"}}}]},
        {"name": "tell", "when": {"kind": "main"}, "answer": [{"text": "Done."}]},
        {"name": "sum up", "when": {"kind": "side", "prompt": ["They walk sideways."]}, "answer": [
            {"text": "Crabs walk sideways."}]},
    ]});
    let scenario = Scenario::parse("fetch", &scenario.to_string()).unwrap();
    let mut stage = Stage::with(scenario, &["test"]);
    // The client asks its vendor about the domain first, which nobody can answer here.
    let settings = json!({"skipWebFetchPreflight": true});
    std::fs::write(stage.settings(), settings.to_string()).unwrap();
    let file = stage.path("page.pem");
    std::fs::write(&file, certificate).unwrap();
    let trusted = ("NODE_EXTRA_CA_CERTS", file.to_str().unwrap());
    stage
        .environment
        .push((trusted.0.to_owned(), trusted.1.to_owned()));
    let results = run(
        &stage,
        &["-p", "crabs", "--allowedTools", "WebFetch,ToolSearch"],
    );
    let fetched = results.last().unwrap();
    assert_eq!(fetched["code"], 200, "{fetched}");
    assert_eq!(fetched["result"], "Crabs walk sideways.");
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());
}
