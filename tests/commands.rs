//! ccx's commands as a person types them, and the ends that people put to them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");
/// Nothing here takes nearly as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

#[track_caller]
fn until(what: &str, mut is_met: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_met() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// It used to leave its home behind when it was ended before it was ready, and with HUP or QUIT always.
#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        for is_early in [true, false] {
            let mut demo = Command::new(CCX)
                .args(["demo", "--serve"])
                .env_clear()
                .env("HOME", root.path())
                .env("TMPDIR", root.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut exports = BufReader::new(demo.stdout.take().unwrap()).lines();
            if is_early {
                until("its home", || !names(root.path()).is_empty());
            } else {
                exports.next().unwrap().unwrap();
            }
            send(&demo, signal);
            assert_eq!(ended(&mut demo).signal(), Some(signal.as_raw()));
            assert!(names(root.path()).is_empty(), "{signal:?} {is_early}");
        }
    }
}

#[test]
fn a_fetch_that_is_interrupted_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("bin")).unwrap();
    // It holds on to nothing of the test's, and goes when its home does.
    let npm = "#!/bin/sh\nexec >/dev/null 2>&1\nwhile [ -d \"$HOME\" ]; do sleep 0.1; done\n";
    fs::write(path("bin/npm"), npm).unwrap();
    fs::set_permissions(path("bin/npm"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut demo = Command::new(CCX)
        .args(["demo", "--yes"])
        .env_clear()
        .env("HOME", root.path())
        .env("CCX_CLAUDE", path("no-client"))
        .env("PATH", format!("{}:/usr/bin:/bin", path("bin").display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let halves = || names(&path(".cache/ccx/client"));
    until("the fetch", || {
        path(".cache/ccx/client").exists() && !halves().is_empty()
    });
    send(&demo, Signal::TERM);
    assert_eq!(ended(&mut demo).signal(), Some(Signal::TERM.as_raw()));
    assert!(halves().is_empty());
}

/// A request that never becomes whole used to hold the daemon for half a minute, whatever was pressed.
#[test]
fn a_daemon_that_is_asked_twice_ends_at_once() {
    let stage = Stage::new("chat");
    let mut daemon = stage
        .command(CCX)
        .args(["daemon", "run", "--port", "0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let note = notes.next().unwrap().unwrap();
    let address = note.split("http://").nth(1).unwrap();
    let address = address.split(';').next().unwrap();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"POST /v1/messages HTTP/1.1\r\nhost:")
        .unwrap();
    // Connections are taken in order: once another one is served, the half one is.
    let mut whole = TcpStream::connect(address).unwrap();
    write!(whole, "GET /health HTTP/1.0\r\nhost: {address}\r\n\r\n").unwrap();
    let answer = BufReader::new(whole).lines().next().unwrap().unwrap();
    assert!(answer.ends_with("200 OK"), "{answer}");

    send(&daemon, Signal::INT);
    until("the closed door", || TcpStream::connect(address).is_err());
    assert!(daemon.try_wait().unwrap().is_none(), "it waits for others");
    send(&daemon, Signal::INT);
    assert!(ended(&mut daemon).success());
}

/// T20: a process that the client leaves behind used to hold ccx for three seconds by asking its proxy.
#[test]
fn t20_who_goes_on_asking_after_the_clients_end_holds_nobody_up() {
    let stage = Stage::new("chat");
    let client = stage.path("client");
    let text = "#!/bin/bash\n\
                address=${ANTHROPIC_BASE_URL##*/}\n\
                exec 3<>/dev/tcp/${address/://}\n\
                printf 'POST /v1/messages HTTP/1.1\\r\\nhost:' >&3\n\
                sleep 30 </dev/null >/dev/null 2>&1 &\n\
                echo $! > left; exit 5\n";
    fs::write(&client, text).unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    let status = stage
        .command(CCX)
        .env("CCX_CLAUDE", &client)
        .status()
        .unwrap();
    let now = SystemTime::now();
    let left = stage.path("work/left");
    let client_ended = fs::metadata(&left).unwrap().modified().unwrap();
    let pid = fs::read_to_string(left).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(status.code(), Some(5));
    let after = now.duration_since(client_ended).unwrap();
    assert!(after < Duration::from_secs(2), "{after:?}");
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    // [A09]
    let stage = Stage::new("chat");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let output = stage
        .command(CCX)
        .args(["daemon", "run", "--port", &port])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&address.to_string()), "{told}");
    assert!(told.contains("--port"), "{told}");
}

/// A launch whose client says `request` (after the line with the host) to its proxy, and shows the first line of the answer.
fn asked_by_a_client(request: &str) -> String {
    let mut stage = Stage::new("chat");
    let program = stage.path("work/client");
    // Address and secret are in the private file of settings; bash can speak to a port by itself.
    let script = format!(
        r#"#!/bin/bash
told() {{ sed -n "s/.*$1\": *\"\([^\"]*\)\".*/\1/p" "$2"; }}
url=$(told ANTHROPIC_BASE_URL "$2"); token=$(told ANTHROPIC_AUTH_TOKEN "$2")
exec 3<>"/dev/tcp/127.0.0.1/${{url##*:}}" || exit 9
printf '{request}' "${{url##*/}}" "$token" >&3
head -1 <&3
"#
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    stage.environment.retain(|(name, _)| name != "CCX_CLAUDE");
    let program = program.to_str().unwrap().to_owned();
    stage.environment.push(("CCX_CLAUDE".to_owned(), program));
    String::from_utf8(stage.ccx(&["-p", "hi"]).stdout).unwrap()
}

/// The client's first words may be a request: the port takes them before the client's process exists.
#[test]
fn a_client_that_asks_at_once_is_answered() {
    // [A10]
    let request = r"GET /health HTTP/1.0\r\nhost: %s\r\nx: %s\r\n\r\n";
    let told = asked_by_a_client(request);
    assert!(told.ends_with("200 OK\r\n"), "{told:?}");
}

/// What a client's tools run has its secret: it is not to choose a third party.
#[test]
fn a_sessions_proxy_takes_no_settings() {
    let request = r#"POST /settings/haiku-model HTTP/1.0\r\nhost: %s\r\nx-api-key: %s\r\ncontent-length: 26\r\n\r\n{"haikuKiloModel":"glm-5"}"#;
    let told = asked_by_a_client(request);
    assert!(told.contains(" 403 "), "{told:?}");
}
