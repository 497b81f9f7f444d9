//! The user's settings file with the real Claude Code: one that ccx launched, and plain ones beside it.
//!
//! Built with `--features real-client`; `CCX_TEST_CLAUDE` names the client. `shell/test.sh` sees to both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ccx::settings::lease::LANDING;
use serde_json::{Value, json};
use support::screen::{PATIENCE, Screen};
use support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");

/// The login of plain Claude Codes.
const LOGIN: &str = "sk-ant-oat01-forged";

/// What the host of plain Claude Codes says.
const REFUSAL: &str = "this is the own host";

/// The host that plain Claude Codes speak to: it refuses what they ask, and notes with which login.
struct Host {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || answer(stream, &noted));
            }
        });
        Self { url, seen }
    }

    /// The logins of the model requests so far.
    fn logins(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Answers one request with a refusal, and closes.
fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    let head = loop {
        let count = stream.read(&mut piece).unwrap_or(0);
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match text.split_once("\r\n\r\n") {
            Some((head, _)) => break head.to_owned(),
            None if count == 0 => return,
            None => {}
        }
    };
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let length: usize = header("content-length").parse().unwrap_or(0);
    while bytes.len() < head.len() + 4 + length {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
    if head.starts_with("POST /v1/messages") {
        seen.lock().unwrap().push(header("authorization"));
    }
    let body =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": REFUSAL}});
    let body = body.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-should-retry: false\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// A home whose plain Claude Code is signed in and has a host of its own.
fn stage() -> (Stage, Host, String) {
    let client = std::env::var("CCX_TEST_CLAUDE")
        .expect("CCX_TEST_CLAUDE must name the real client; run shell/test.sh");
    assert!(Path::new(&client).exists(), "{client} is not there");
    let (stage, host) = (Stage::new("chat"), Host::start());
    let login = json!({"claudeAiOauth": {
        "accessToken": LOGIN, "refreshToken": "sk-ant-ort01-forged", "expiresAt": 4_102_444_800_000_u64,
        "scopes": ["user:inference", "user:profile"], "subscriptionType": "max",
    }});
    let path = stage.path("home/.claude/.credentials.json");
    fs::write(path, login.to_string()).unwrap();
    // Odd spacing shows whether anybody wrote here.
    let settings = format!(
        "{{ \"env\" : {{\"ANTHROPIC_BASE_URL\": \"{}\"}},\n\t\"theme\":\"dark\"\n}}",
        host.url
    );
    fs::write(stage.settings(), &settings).unwrap();
    (stage, host, settings)
}

fn start(stage: &Stage, program: &str) -> Screen {
    let screen = Screen::start(
        Path::new(program),
        &[],
        &stage.environment,
        &stage.path("work"),
        (40, 110),
    );
    screen.wait_for("a prompt", |text| text.contains("❯"));
    screen
}

fn plain(stage: &Stage) -> Screen {
    start(stage, &std::env::var("CCX_TEST_CLAUDE").unwrap())
}

/// Types a prompt and Enter. The two must not come as one piece: that would count as a paste.
fn say(screen: &Screen, prompt: &str) {
    screen.send(prompt);
    screen.wait_for_text(prompt);
    screen.send("\r");
}

fn exit(mut screen: Screen) {
    say(&screen, "/exit");
    let status = screen.wait();
    assert_eq!(status.exit_code(), 0, "{status:?}");
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn settings(stage: &Stage) -> String {
    fs::read_to_string(stage.settings()).unwrap()
}

fn token(stage: &Stage) -> Value {
    let value: Value = serde_json::from_str(&settings(stage)).unwrap();
    value["env"]["ANTHROPIC_AUTH_TOKEN"].clone()
}

/// Asks the host of its own, with the login of its own.
#[track_caller]
fn assert_at_home(screen: &Screen, host: &Host, prompt: &str) {
    let before = host.logins().len();
    say(screen, prompt);
    wait_until("a request at the own host", || host.logins().len() > before);
    let logins = host.logins();
    assert!(
        logins
            .iter()
            .all(|login| *login == format!("Bearer {LOGIN}")),
        "only with its own login: {}",
        logins.iter().any(|login| login.contains("ccx-lease"))
    );
}

#[test]
fn l08_a_plain_client_that_runs_already_is_never_drawn_in() {
    let (stage, host, original) = stage();
    let foreign = plain(&stage);
    assert_at_home(&foreign, &host, "before the session");
    let session = start(&stage, CCX);
    assert_eq!(settings(&stage), original);
    say(&session, "hello from the session");
    session.wait_for_text("You said: hello from the session");
    assert_at_home(&foreign, &host, "while it runs");
    exit(session);
    assert_eq!(settings(&stage), original);
    assert_at_home(&foreign, &host, "after its end");
    let bodies: String = (stage.backend.requests().iter())
        .map(|seen| seen.body.to_string())
        .collect();
    assert!(!bodies.contains("while it runs") && !bodies.contains("after its end"));
}

#[test]
fn l08_a_plain_client_is_served_handed_over_and_finds_home() {
    let (stage, host, original) = stage();
    let first = start(&stage, CCX);
    let held = token(&stage);
    assert!(held.as_str().unwrap().starts_with("ccx-lease-"));
    let foreign = plain(&stage);
    say(&foreign, "hello by the file");
    foreign.wait_for_text("You said: hello by the file");
    assert_eq!(host.logins(), Vec::<String>::new());

    let second = start(&stage, CCX);
    assert_eq!(token(&stage), held, "the second does not write");
    exit(first);
    assert_ne!(token(&stage), held, "it passes on");
    // It looks at the file every three seconds, and nothing shows that it has.
    std::thread::sleep(LANDING);
    say(&foreign, "hello after the first");
    foreign.wait_for_text("You said: hello after the first");
    say(&second, "hello from the second");
    second.wait_for_text("You said: hello from the second");
    exit(second);
    assert_eq!(token(&stage), "", "it is told first");
    wait_until("the end of the landing", || settings(&stage) == original);
    assert_at_home(&foreign, &host, "hello at home");
    foreign.wait_for_text(REFUSAL);
}

#[test]
fn l15_a_pick_in_the_session_does_not_stay_in_the_settings() {
    let (stage, _host, original) = stage();
    let original: Value = serde_json::from_str(&original).unwrap();
    let session = start(&stage, CCX);
    say(&session, "/model");
    session.wait_for_text("Select model");
    // Away from the one that it is now, a row at a time: two keys at once could be taken for one.
    let row = |text: &str| {
        let chosen = text
            .lines()
            .find(|line| line.contains('❯') && line.contains("GPT-"));
        chosen.map(str::to_owned)
    };
    let now = session.wait_for("a chosen row", |text| row(text).is_some());
    session.send("\x1b[B");
    let shown = session.wait_for("the next row", |text| {
        row(text).is_some() && row(text) != row(&now)
    });
    session.send("\r");
    wait_until("the client's save", || {
        settings(&stage).contains("\"model\"")
    });
    let saved: Value = serde_json::from_str(&settings(&stage)).unwrap();
    let picked = saved["model"].as_str().unwrap().to_owned();
    assert!(picked.starts_with("gpt-"), "{picked}: {shown}");
    exit(session);
    let after: Value = serde_json::from_str(&settings(&stage)).unwrap();
    assert_eq!(after, original);
    // The next launch begins with it.
    let asked = stage.backend.requests().len();
    let output = stage.ccx(&["-p", "with which model"]);
    assert!(output.status.success(), "{output:?}");
    let requests = stage.backend.requests();
    let models: Vec<&Value> = requests[asked..]
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| &seen.body["model"])
        .collect();
    assert!(models.contains(&&json!(picked)), "{models:?}");
}

#[test]
fn l01_whatever_settings_say_requests_reach_our_proxy() {
    let (mut stage, host, _) = stage();
    fs::create_dir_all(stage.path("work/.claude")).unwrap();
    for name in ["settings.json", "settings.local.json"] {
        let elsewhere =
            json!({"env": {"ANTHROPIC_BASE_URL": host.url, "ANTHROPIC_AUTH_TOKEN": "theirs"}});
        fs::write(stage.path("work/.claude").join(name), elsewhere.to_string()).unwrap();
    }
    for (name, value) in [
        ("ANTHROPIC_BASE_URL", host.url.as_str()),
        ("ANTHROPIC_AUTH_TOKEN", "theirs"),
    ] {
        stage.environment.push((name.to_owned(), value.to_owned()));
    }
    let output = stage.ccx(&["-p", "hello there"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("You said: hello there"), "{output:?}");
    assert_eq!(host.logins(), Vec::<String>::new());
}
