//! The daemon as a person starts, looks at and ends it. The ids are those of the contract for supervision, section 4.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getsid, kill_process};
use serde_json::Value;
use support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");
/// Nothing here takes nearly as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// A home whose daemon ends with it.
struct Home {
    stage: Stage,
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.stage.ccx(&["daemon", "stop", "--now"]);
    }
}

impl Home {
    fn new() -> Self {
        Self {
            stage: Stage::new("chat"),
        }
    }

    #[track_caller]
    fn told(&self, words: &[&str], code: i32) -> String {
        let output = self.stage.ccx(words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self) -> Value {
        let port = free_port().to_string();
        self.told(&["daemon", "start", "--port", &port], 0);
        self.status(0)
    }

    #[track_caller]
    fn status(&self, code: i32) -> Value {
        serde_json::from_str(&self.told(&["daemon", "status", "--json"], code)).unwrap()
    }

    fn key(&self) -> String {
        let key = fs::read_to_string(self.stage.path("ccx/state/daemon.key")).unwrap();
        key.trim().to_owned()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn port(status: &Value) -> u16 {
    status["port"].as_u64().unwrap().try_into().unwrap()
}

fn pid(status: &Value) -> Pid {
    let pid = status["pid"].as_i64().unwrap();
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

fn ask(port: u16, path: &str, key: Option<&str>) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let key = key.map_or_else(String::new, |key| format!("x-api-key: {key}\r\n"));
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\n{key}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn until(what: &str, mut is_met: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_met() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn d01_start_returns_when_it_answers_and_again_changes_nothing() {
    let home = Home::new();
    assert_eq!(home.status(3)["running"], false);
    home.told(&["daemon", "stop"], 0);
    let first = home.start();
    assert_eq!(first["running"], true);
    assert!(ask(port(&first), "/health", None).contains("200 OK"));
    home.told(&["daemon"], 0);
    assert_eq!(home.status(0), first);
    assert!(
        home.told(&["daemon", "status"], 0)
            .starts_with("running, process ")
    );
    home.told(&["daemon", "stop"], 0);
    assert_eq!(home.status(3)["running"], false);
    assert!(TcpStream::connect(("127.0.0.1", port(&first))).is_err());
}

#[test]
fn d02_ten_starts_at_once_are_one_daemon() {
    let home = Home::new();
    let port = free_port().to_string();
    let mut starts: Vec<Child> = (0..10)
        .map(|_| {
            home.stage
                .command(CCX)
                .args(["daemon", "start", "--port", &port])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for start in &mut starts {
        assert!(start.wait().unwrap().success());
    }
    let status = home.status(0);
    assert_eq!(status["port"].to_string(), port);
    // In the foreground there is no second one either.
    let output = home.stage.ccx(&["daemon", "run", "--port", "0"]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(home.status(0), status);
}

#[test]
fn d03_it_has_a_session_of_its_own_and_nothing_of_its_starters() {
    let home = Home::new();
    let port = free_port().to_string();
    // A pipe that somebody else holds open would keep `output` waiting.
    let output = home
        .stage
        .command("sh")
        .args([
            "-c",
            "exec 5>&1; \"$@\"",
            "sh",
            CCX,
            "daemon",
            "start",
            "--port",
            &port,
        ])
        .env("TERM", "xterm")
        .env("EDITOR", "vi")
        .env("CLAUDECODE", "1")
        .env("CLAUDE_CODE_ENTRYPOINT", "cli")
        .env("STYLE", "kept")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    let status = home.status(0);
    let pid = pid(&status);
    assert_eq!(getsid(Some(pid)).unwrap(), pid);
    let about = |name: &str| format!("/proc/{}/{name}", pid.as_raw_nonzero());
    if fs::metadata("/proc/self").is_ok() {
        assert_eq!(fs::read_link(about("cwd")).unwrap().to_str(), Some("/"));
        for descriptor in ["fd/0", "fd/1", "fd/2"] {
            let target = fs::read_link(about(descriptor)).unwrap();
            assert_eq!(target.to_str(), Some("/dev/null"), "{descriptor}");
        }
        let environment = fs::read(about("environ")).unwrap();
        let has = |name: &str| {
            let mut entries = environment.split(|byte| *byte == 0);
            entries.any(|entry| entry.starts_with(name.as_bytes()))
        };
        assert!(has("STYLE=kept"), "it begins as STY does, and is none");
        for name in ["TERM=", "EDITOR=", "CLAUDECODE=", "CLAUDE_CODE_"] {
            assert!(!has(name), "{name}");
        }
        let status = fs::read_to_string(about("status")).unwrap();
        assert!(status.contains("Umask:\t0077"), "{status}");
    }
}

#[test]
fn d04_d05_killed_it_is_gone_at_once_and_starts_again_with_port_and_key() {
    let home = Home::new();
    let first = home.start();
    let key = home.key();
    kill_process(pid(&first), Signal::KILL).unwrap();
    until("the end", || {
        home.stage.ccx(&["daemon", "status"]).status.code() == Some(3)
    });
    assert!(
        home.stage.path("ccx/state/daemon.json").exists(),
        "a stale record"
    );
    // Without a word about the port.
    home.told(&["daemon", "start"], 0);
    let second = home.status(0);
    assert_eq!((port(&second), home.key()), (port(&first), key.clone()));
    assert_ne!(second["pid"], first["pid"]);
    home.told(&["daemon", "restart"], 0);
    let third = home.status(0);
    assert_eq!((port(&third), home.key()), (port(&first), key));
    assert_ne!(third["pid"], second["pid"]);
}

#[test]
fn d05_a_start_while_the_old_one_ends_waits_and_starts_anew() {
    let home = Home::new();
    let first = home.start();
    for _ in 0..5 {
        let stop = home.stage.command(CCX).args(["daemon", "stop"]).spawn();
        home.told(&["daemon", "start"], 0);
        assert!(stop.unwrap().wait().unwrap().success());
        // Whichever came first: a start behind it finds one, or makes one.
        home.told(&["daemon", "start"], 0);
        assert_eq!(port(&home.status(0)), port(&first));
    }
}

#[test]
fn d06_a_stranger_on_the_port_is_named_and_not_shown_the_key() {
    let home = Home::new();
    let stranger = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    stranger.set_nonblocking(true).unwrap();
    let port = stranger.local_addr().unwrap().port().to_string();
    let output = home.stage.ccx(&["daemon", "start", "--port", &port]);
    assert_ne!(output.status.code(), Some(0));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&format!("127.0.0.1:{port}")), "{told}");
    assert_eq!(home.status(3)["running"], false);
    assert!(stranger.accept().is_err(), "nobody came");
}

#[test]
fn d07_what_it_keeps_is_private() {
    let home = Home::new();
    home.start();
    let state = home.stage.path("ccx/state");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn d09_answers_in_flight_end_unless_it_is_to_end_now() {
    let home = Home::new();
    let status = home.start();
    let address = ("127.0.0.1", port(&status));
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"POST /v1/messages HTTP/1.1\r\nhost:")
        .unwrap();
    // Connections are taken in order: once another one is served, the half one is.
    assert!(ask(port(&status), "/health", None).contains("200 OK"));
    let mut patient = home
        .stage
        .command(CCX)
        .args(["daemon", "stop"])
        .spawn()
        .unwrap();
    until("the closed door", || TcpStream::connect(address).is_err());
    assert!(patient.try_wait().unwrap().is_none(), "it waits for others");
    home.told(&["daemon", "stop", "--now"], 0);
    assert!(patient.wait().unwrap().success());
    assert!(!home.stage.path("ccx/state/daemon.json").exists());
}

#[test]
fn d11_the_clients_settings_are_not_touched() {
    let home = Home::new();
    let settings = home.stage.settings();
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(&settings, "{ }").unwrap();
    home.start();
    assert_eq!(fs::read_to_string(&settings).unwrap(), "{ }");
    home.told(&["daemon", "stop"], 0);
    assert_eq!(fs::read_to_string(&settings).unwrap(), "{ }");
}

#[test]
fn d12_the_log_is_printed_and_holds_no_key() {
    let home = Home::new();
    let status = home.start();
    let key = home.key();
    ask(port(&status), "/healthz", Some(&key));
    home.told(&["daemon", "stop"], 0);
    let told = home.told(&["daemon", "logs"], 0);
    assert!(!told.contains(&key));
}

#[test]
fn d16_who_answers_is_told_to_whoever_has_the_key() {
    let home = Home::new();
    let status = home.start();
    let port = port(&status);
    assert!(ask(port, "/healthz", None).contains(" 401 "));
    let answer = ask(port, "/healthz", Some(&home.key()));
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["pid"], status["pid"]);
    assert_eq!(body["version"], status["version"]);
    assert!(body["uptime"].is_u64());
}
