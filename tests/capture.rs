//! Captures: which requests are kept, what is not in them, and that they can be played back; the report of `ccx doctor`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ccx::account::chooser::Rules;
use ccx::capture::keeper::{self, Captures, FILES};
use ccx::capture::tape::Gathered;
use ccx::capture::transcript::{Label, Transcript};
use ccx::cli::replay;
use ccx::config::Capture;
use serde_json::{Value, json};

use support::proxy::{Proxy, prompt};
use support::stage::Stage;

fn scenario() -> Value {
    let refusal = json!({"status": 400, "body": {"error": {"message": "no", "code": "x"}}});
    json!({"about": "answers, then not", "steps": [
        {"name": "answer", "when": {}, "times": 1, "answer": [{"text": "a fine answer"}]},
        {"name": "refused", "when": {}, "reply": refusal},
    ]})
}

/// A proxy whose `config.toml` says `capture`.
fn capturing(word: &str, scenario: &Value) -> Proxy {
    Proxy::start_after(scenario, |home| {
        let config = home.join("ccx/config");
        fs::create_dir_all(&config).unwrap();
        fs::write(
            config.join("config.toml"),
            format!("capture = \"{word}\"\n"),
        )
        .unwrap();
    })
}

fn files(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(keeper::directory_below(state)) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Everything that `proxy` has kept, once it has ended.
fn kept(proxy: &mut Proxy) -> Vec<Transcript> {
    proxy.restart(Rules::default());
    let files = files(&proxy.home().join("ccx/state"));
    let mut all: Vec<Transcript> = files
        .iter()
        .map(|path| keeper::load(path).unwrap())
        .collect();
    all.sort_by(|a, b| a.outcome.cmp(&b.outcome));
    all
}

#[tokio::test]
async fn off_keeps_nothing_and_errors_keeps_failures() {
    // [J05]
    for (word, wanted) in [
        ("off", &[][..]),
        ("errors", &["failed"]),
        ("all", &["done", "failed"]),
    ] {
        let mut proxy = capturing(word, &scenario());
        assert_eq!(proxy.messages(&prompt("hello", true)).await.status, 200);
        assert_eq!(proxy.messages(&prompt("hello", false)).await.status, 400);
        let (entries, _) = proxy.finished(2).await;
        let kept = kept(&mut proxy);
        let outcomes: Vec<&str> = kept.iter().map(|one| one.outcome.as_str()).collect();
        assert_eq!(outcomes, wanted, "{word}");
        let marked = entries.iter().filter(|entry| entry.has_capture).count();
        assert_eq!(marked, wanted.len());
    }
}

#[tokio::test]
async fn nothing_secret_is_in_a_capture() {
    // [J04]
    let mut proxy = capturing(
        "all",
        &json!({"about": "repeats a secret", "steps": [
            {"name": "only", "when": {}, "answer": [{"text": "write to ada@example.org"}]},
        ]}),
    );
    let state = proxy.home().join("ccx/state");
    let accounts: Value =
        serde_json::from_slice(&fs::read(state.join("accounts.json")).unwrap()).unwrap();
    let account = &accounts["accounts"][0];
    let text = |name: &str| account[name].as_str().unwrap().to_owned();
    let secrets = [
        text("access_token"),
        text("chatgpt_account_id"),
        text("email"),
        proxy.secret.clone(),
        "ada@example.org".to_owned(),
        "device-0815".to_owned(),
    ];
    let words = secrets.join(" and ");
    let mut body = prompt(&words, false);
    body["metadata"] = json!({"user_id": "{\"device_id\":\"device-0815\"}"});
    body["messages"][0]["content"] = json!([
        {"type": "text", "text": words.replace("device-0815", "x")},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo".repeat(200)}},
    ]);
    assert_eq!(proxy.messages(&body).await.status, 200);
    proxy.finished(1).await;
    let kept = kept(&mut proxy);
    let raw = fs::read_to_string(&files(&state)[0]).unwrap();
    for secret in &secrets {
        assert!(!raw.contains(secret.as_str()), "{secret} in {raw}");
    }
    assert!(!raw.contains("iVBORw0KGgoiVBORw0KGgo"));
    let only = &kept[0];
    // Both sides are there, and JSON is still JSON.
    for text in [&only.request, &only.exchanges[0].request, &only.response] {
        serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    assert!(only.exchanges[0].response.contains("response.completed"));
    assert!(
        only.response.contains("write to (e-mail)"),
        "{}",
        only.response
    );
    assert!(!only.truncated);
}

#[test]
fn captures_are_private_and_few() {
    // [J05]
    let home = tempfile::tempdir().unwrap();
    let captures = Captures::new(Capture::All, home.path(), "9.9", Box::new(Vec::new)).unwrap();
    for number in 0..FILES as u64 + 5 {
        let label = Label {
            id: format!("req_{number}"),
            at: 1_000 + number,
            ..Label::default()
        };
        captures.keep(label, Gathered::default());
        captures.settle();
    }
    let found = files(home.path());
    assert_eq!(found.len(), FILES);
    assert!(keeper::find(home.path(), "req_4").is_none());
    assert_eq!(keeper::find(home.path(), "req_5").unwrap().ccx, "9.9");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&found[0]), 0o600);
    assert_eq!(mode(found[0].parent().unwrap()), 0o700);
    assert!(Captures::new(Capture::Off, home.path(), "9.9", Box::new(Vec::new)).is_none());
}

#[tokio::test]
async fn a_capture_is_played_back() {
    let mut proxy = capturing("all", &scenario());
    let first = proxy.messages(&prompt("hello", true)).await;
    assert_eq!(first.text(), "a fine answer");
    assert_eq!(proxy.messages(&prompt("hello", false)).await.status, 400);
    proxy.finished(2).await;
    proxy.restart(Rules::default());
    for path in files(&proxy.home().join("ccx/state")) {
        let transcript = keeper::load(&path).unwrap();
        let scenario = replay::scenario(&path).unwrap();
        let again = Proxy::start_playing(scenario);
        let answer = again.messages(&prompt("something else", true)).await;
        if transcript.outcome == "done" {
            assert_eq!((answer.status, answer.text()), (200, first.text()));
        } else {
            assert!(answer.status >= 500, "{answer:?}");
        }
    }
    let nothing = proxy.home().join("nothing.json");
    fs::write(&nothing, "{}").unwrap();
    assert!(replay::scenario(&nothing).is_err());
}

#[test]
fn a_report_is_one_private_file_without_secrets() {
    // [J04]
    let stage = Stage::new("chat");
    let state = stage.path("ccx/state");
    let accounts: Value =
        serde_json::from_slice(&fs::read(state.join("accounts.json")).unwrap()).unwrap();
    let account = &accounts["accounts"][0];
    let text = |name: &str| account[name].as_str().unwrap().to_owned();
    let mut log = fs::read_to_string(state.join("ccx.log")).unwrap_or_default();
    log.push_str(&format!("{{\"token\":\"{}\"}}\n", text("access_token")));
    log.push_str(&format!(
        "account {} of {}\n",
        text("chatgpt_account_id"),
        text("email")
    ));
    fs::write(state.join("ccx.log"), log).unwrap();
    fs::write(state.join("crash-1-1.txt"), "thread proxy\nat src/x.rs\n").unwrap();
    let output = stage.ccx(&["doctor", "--report"]);
    let told = String::from_utf8(output.stdout).unwrap();
    let path = PathBuf::from(told.lines().next().unwrap());
    assert!(path.starts_with(&state), "{told}");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let raw = fs::read_to_string(&path).unwrap();
    let report: Value = serde_json::from_str(&raw).unwrap();
    for secret in [
        text("access_token"),
        text("chatgpt_account_id"),
        text("email"),
    ] {
        assert!(!raw.contains(&secret), "{secret}");
    }
    assert!(!raw.contains(stage.path("home").to_str().unwrap()));
    assert!(report["doctor"]["checks"].as_array().unwrap().len() > 3);
    assert!(report["log"].as_array().unwrap().len() > 1);
    assert!(report["crashes"][0].as_str().unwrap().contains("src/x.rs"));
}
