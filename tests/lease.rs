//! The user's own settings file in whole launches: pointed at the proxy, kept private, and given back, also after a
//! kill between any two writes.
//!
//! The client is a script that stays until the test lets it go.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");
const PATIENCE: Duration = Duration::from_secs(60);

/// Odd, but settings.
const ODD: &str = "\u{feff}{\"b\" : 1.50e+10,\r\n\t\"a\":\"\\u0041\\/\", \"a\": 123456789012345678901234567890,\r\n\"env\": { \"A\" :\"x\" } }";

/// A home whose client does `script`; then it opens `gate-NAME` for the first word that it is given, and stays until
/// somebody has opened and closed that.
fn stage(script: &str) -> Stage {
    let mut stage = Stage::new("chat");
    let path = stage.path("work/claude");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo '2.1.330 (Claude Code)' && exit 0\n\
         settings=\"${{CLAUDE_CONFIG_DIR:-$HOME/.claude}}/settings.json\"\nprivate=$2; shift 2\n{script}\n\
         [ -n \"$1\" ] && cat \"gate-$1\" >/dev/null\nexit 0\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    stage.environment.retain(|(name, _)| name != "CCX_CLAUDE");
    stage
        .environment
        .push(("CCX_CLAUDE".to_owned(), path.to_str().unwrap().to_owned()));
    stage
}

/// A client that notes what it finds.
fn noting() -> Stage {
    stage(
        "cp \"$settings\" \"seen-$1\" 2>/dev/null; stat -L -c %a \"$settings\" >\"mode-$1\" 2>/dev/null",
    )
}

fn set(stage: &mut Stage, name: &str, value: &str) {
    stage.environment.retain(|(known, _)| known != name);
    stage.environment.push((name.to_owned(), value.to_owned()));
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A session that runs until it is let go.
struct Session {
    child: Child,
    gate: PathBuf,
}

impl Session {
    fn start(stage: &Stage, name: &str, words: &[&str]) -> Self {
        let gate = stage.path(&format!("work/gate-{name}"));
        pipe(&gate);
        let mut command = stage.command(CCX);
        command.args(words).arg(name);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, gate }
    }

    /// Waits until its client stands at the gate; it goes on when what is returned is dropped.
    fn arrived(&self) -> File {
        // Opens when the other side does.
        fs::OpenOptions::new().write(true).open(&self.gate).unwrap()
    }

    /// Kills ccx; its client goes too.
    fn kill(mut self, gate: File) {
        kill(self.child.id());
        self.child.wait().unwrap();
        drop(gate);
    }

    fn end(self, gate: File) -> Output {
        drop(gate);
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        output
    }
}

/// What the settings name.
fn proxy(text: &str) -> Option<(String, String)> {
    let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
    let text = |name: &str| Some(value["env"][name].as_str()?.to_owned());
    Some((text("ANTHROPIC_BASE_URL")?, text("ANTHROPIC_AUTH_TOKEN")?))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn journals(stage: &Stage) -> usize {
    let names = names(&stage.path("ccx/state/lease"));
    names.iter().filter(|name| name.ends_with(".json")).count()
}

fn write(stage: &Stage, text: &str) {
    fs::write(stage.settings(), text).unwrap();
    fs::set_permissions(stage.settings(), fs::Permissions::from_mode(0o644)).unwrap();
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client that ccx does not start, in the same home.
struct Foreign {
    child: Child,
}

impl Foreign {
    fn start(stage: &Stage) -> Self {
        let path = stage.path("home/claude");
        fs::write(&path, "#!/bin/sh\nread line\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let child = stage
            .command(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
fn l02_old_bytes_and_old_mode_come_back() {
    for text in [ODD, "{}", "{ }", "{\n  \"env\": {}\n}\n"] {
        let stage = noting();
        write(&stage, text);
        let session = Session::start(&stage, "a", &[]);
        let gate = session.arrived();
        let seen = read(&stage.path("work/seen-a"));
        let (url, token) = proxy(&seen).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        assert!(
            token.starts_with("ccx-lease-") && token.len() >= 42,
            "its own secret"
        );
        assert_eq!(
            read(&stage.path("work/mode-a")).trim(),
            "600",
            "private meanwhile"
        );
        // All other keys as they were, to the byte.
        for part in text.trim_end_matches([' ', '}', '\n']).split("{}") {
            assert!(seen.contains(part), "{seen}");
        }
        session.end(gate);
        assert_eq!(read(&stage.settings()), text);
        assert_eq!(mode(&stage.settings()), 0o644);
        assert_eq!(journals(&stage), 0);
    }
}

#[test]
fn l03_links_are_followed_and_stay() {
    let stage = noting();
    let real = stage.path("home/dotfiles/claude.json");
    fs::create_dir(real.parent().unwrap()).unwrap();
    fs::write(&real, ODD).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../dotfiles/link", stage.settings()).unwrap();
    symlink("claude.json", stage.path("home/dotfiles/link")).unwrap();
    let owner = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid())
    };
    let before = owner(&real);
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    assert!(proxy(&read(&real)).is_some());
    assert!(fs::symlink_metadata(stage.settings()).unwrap().is_symlink());
    session.end(gate);
    assert_eq!((read(&real).as_str(), mode(&real)), (ODD, 0o640));
    assert_eq!(owner(&real), before);
    assert!(fs::symlink_metadata(stage.settings()).unwrap().is_symlink());
    assert_eq!(names(real.parent().unwrap()), ["claude.json", "link"]);
}

#[test]
fn l04_no_file_and_no_directory_afterwards_where_there_was_none() {
    let stage = noting();
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    assert!(proxy(&read(&stage.path("work/seen-a"))).is_some());
    assert_eq!(mode(&stage.settings()), 0o600);
    session.end(gate);
    assert!(!stage.settings().exists());

    fs::remove_dir_all(stage.path("home/.claude")).unwrap();
    let session = Session::start(&stage, "b", &[]);
    let gate = session.arrived();
    assert!(proxy(&read(&stage.path("work/seen-b"))).is_some());
    session.end(gate);
    assert!(!stage.path("home/.claude").exists());

    // What others have put there stays.
    let session = Session::start(&stage, "c", &[]);
    let gate = session.arrived();
    fs::write(stage.path("home/.claude/other"), "").unwrap();
    session.end(gate);
    assert_eq!(names(&stage.path("home/.claude")), ["other"]);
}

#[test]
fn l05_what_is_no_settings_file_is_never_written_and_the_session_runs() {
    for text in ["{,}", "[]", "", "{\"env\": 7}", "{\"a\": 1,}\n", "// a\n{}"] {
        let stage = noting();
        write(&stage, text);
        let before = fs::metadata(stage.settings()).unwrap();
        let session = Session::start(&stage, "a", &[]);
        let gate = session.arrived();
        session.end(gate);
        let after = fs::metadata(stage.settings()).unwrap();
        assert_eq!(read(&stage.settings()), text);
        assert_eq!(
            (after.ino(), after.mtime_nsec()),
            (before.ino(), before.mtime_nsec())
        );
        assert_eq!(journals(&stage), 0, "{text}");
    }
    let stage = stage("true");
    for kind in ["directory", "dangling", "pipe"] {
        match kind {
            "directory" => fs::create_dir(stage.settings()).unwrap(),
            "dangling" => symlink("nowhere", stage.settings()).unwrap(),
            _ => pipe(&stage.settings()),
        }
        let output = stage.ccx(&[""]);
        assert!(output.status.success(), "{kind}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{kind}");
        assert_eq!(names(&stage.path("home/.claude")), ["settings.json"]);
        match kind {
            "directory" => fs::remove_dir(stage.settings()).unwrap(),
            _ => fs::remove_file(stage.settings()).unwrap(),
        }
    }
}

#[test]
fn l05_a_terminal_is_told_file_line_and_column() {
    let stage = stage("true");
    write(&stage, "{\n  \"a\": 1,\n}");
    let mut screen = support::screen::Screen::start(
        Path::new(CCX),
        &[""],
        &stage.environment,
        &stage.path("work"),
        (24, 200),
    );
    screen.wait();
    let told = format!(
        "ccx: {} is not valid JSON at line 3 column 1; only this session uses ccx",
        stage.settings().display()
    );
    let said = String::from_utf8(screen.bytes()).unwrap();
    assert!(said.contains(&told), "{said}");
}

#[test]
fn l06_a_file_that_may_not_be_written_is_left_as_it_is() {
    let stage = noting();
    write(&stage, ODD);
    fs::set_permissions(stage.settings(), fs::Permissions::from_mode(0o444)).unwrap();
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    assert_eq!(read(&stage.path("work/seen-a")), ODD);
    session.end(gate);
    // Another name would keep the old content.
    fs::set_permissions(stage.settings(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::hard_link(stage.settings(), stage.path("home/other")).unwrap();
    let session = Session::start(&stage, "b", &[]);
    let gate = session.arrived();
    assert_eq!(read(&stage.path("work/seen-b")), ODD);
    session.end(gate);
    assert_eq!(
        (read(&stage.settings()).as_str(), journals(&stage)),
        (ODD, 0)
    );
}

/// A file system that is full: no file may grow beyond `blocks` of 512 bytes.
fn with_little_room(stage: &Stage, blocks: u64, words: &[&str]) -> Output {
    stage
        .command("/bin/sh")
        .args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""),
            CCX,
        ])
        .args(words)
        .output()
        .unwrap()
}

#[test]
fn l06_a_full_disk_leaves_the_file_whole_and_no_litter() {
    let stage = noting();
    let large = json!({"x": "y".repeat(100_000), "env": {"A": "b"}}).to_string();
    write(&stage, &large);
    // At the start: nothing is written.
    let output = with_little_room(&stage, 64, &[""]);
    assert!(output.status.success(), "{output:?}");
    assert!(read(&stage.settings()) == large, "as it was");
    assert_eq!(names(&stage.path("home/.claude")), ["settings.json"]);
    assert_eq!(journals(&stage), 0);

    // At the end: it is not given back, which the next start makes good.
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    session.kill(gate);
    let output = with_little_room(&stage, 64, &["restore"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("cannot write beside"),
        "{output:?}"
    );
    assert!(
        proxy(&read(&stage.settings())).is_some(),
        "whole, and what it was"
    );
    assert_eq!(names(&stage.path("home/.claude")), ["settings.json"]);
    assert!(stage.ccx(&["restore"]).status.success());
    assert!(read(&stage.settings()) == large, "given back");
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn l06_a_directory_that_cannot_be_written_leaves_the_file_as_it_is() {
    let mut stage = noting();
    write(&stage, ODD);
    // Root may write everywhere: another user is needed, who has everything here but that one directory.
    let nobody = rustix::process::geteuid().is_root().then_some(65_534);
    let program = stage.path("ccx-copy");
    fs::copy(CCX, &program).unwrap();
    if let Some(user) = nobody {
        let all = Command::new("chown")
            .args(["-R", &user.to_string()])
            .arg(stage.path(""))
            .status();
        assert!(all.unwrap().success());
    }
    fs::set_permissions(
        stage.path("home/.claude"),
        fs::Permissions::from_mode(0o555),
    )
    .unwrap();
    set(&mut stage, "LC_ALL", "C");
    let mut command = stage.command(&program);
    if let Some(user) = nobody {
        std::os::unix::process::CommandExt::uid(&mut command, user);
        std::os::unix::process::CommandExt::gid(&mut command, user);
    }
    let output = command.arg("").output().unwrap();
    fs::set_permissions(
        stage.path("home/.claude"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(read(&stage.path("work/seen-")), ODD);
    assert_eq!(read(&stage.settings()), ODD);
    assert_eq!(names(&stage.path("home/.claude")), ["settings.json"]);
    assert_eq!(journals(&stage), 0);
}

#[test]
fn l07_eight_sessions_in_any_order_and_readers_always_find_a_whole_file() {
    let stage = noting();
    let text = "{\n  \"env\": {\n    \"A\": \"b\"\n  },\n  \"z\": [1, 2]\n}\n";
    write(&stage, text);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u32;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let text = read(&stage.settings());
                let value: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(
                    (&value["env"]["A"], &value["z"]),
                    (&json!("b"), &json!([1, 2]))
                );
                reads += 1;
            }
            reads
        });
        let mut sessions: Vec<Session> = (0..8)
            .map(|number| Session::start(&stage, &number.to_string(), &[]))
            .collect();
        let mut gates: Vec<File> = sessions.iter().map(Session::arrived).collect();
        for at in [3, 0, 5, 2, 0, 1, 1, 0] {
            let (url, _) = proxy(&read(&stage.settings())).unwrap();
            let port = url.rsplit(':').next().unwrap().parse().unwrap();
            std::net::TcpStream::connect(("127.0.0.1", port))
                .unwrap_or_else(|_| panic!("{url} is dead"));
            let (session, gate) = (sessions.remove(at), gates.remove(at));
            session.end(gate);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(read(&stage.settings()), text);
    assert_eq!(journals(&stage), 0);
}

#[test]
fn l08_with_a_client_that_runs_already_only_the_private_file_is_used() {
    let stage = noting();
    write(&stage, "{}");
    let foreign = Foreign::start(&stage);
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    assert_eq!(read(&stage.path("work/seen-a")), "{}");
    let status: Value = serde_json::from_slice(&stage.ccx(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["lease"], json!(null), "{status}");
    let status = String::from_utf8(stage.ccx(&["status"]).stdout).unwrap();
    assert!(
        status.contains("a Claude Code runs that ccx did not start"),
        "{status}"
    );
    session.end(gate);
    // `always` takes it, and sends those whom it drew in back before it lets go.
    let session = Session::start(&stage, "b", &["--ccx-lease", "always"]);
    let gate = session.arrived();
    assert!(proxy(&read(&stage.path("work/seen-b"))).is_some());
    session.end(gate);
    let landed = proxy(&read(&stage.settings())).unwrap();
    assert_eq!(landed, (String::new(), String::new()));
    wait_until("the end of the landing", || read(&stage.settings()) == "{}");
    wait_until("the end of the lander", || journals(&stage) == 0);
    drop(foreign);
    // Never does not.
    let session = Session::start(&stage, "c", &["--ccx-lease=never"]);
    let gate = session.arrived();
    assert_eq!(read(&stage.path("work/seen-c")), "{}");
    session.end(gate);
}

#[test]
fn l08_a_client_of_another_home_does_not_matter() {
    let stage = noting();
    write(&stage, "{}");
    let other = noting();
    let _foreign = Foreign::start(&other);
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    assert!(proxy(&read(&stage.path("work/seen-a"))).is_some());
    session.end(gate);
    assert_eq!(read(&stage.settings()), "{}");
}

/// Asks as a client would that has read the settings file.
fn ask(url: &str, token: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "GET /v1/models HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn l08_whoever_was_served_is_told_before_the_keys_vanish() {
    let stage = noting();
    write(
        &stage,
        "{\"env\":{\"ANTHROPIC_BASE_URL\":\"https://gate.way\"}}",
    );
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    let (url, token) = proxy(&read(&stage.settings())).unwrap();
    assert!(ask(&url, "wrong").starts_with("HTTP/1.1 401 "));
    assert!(ask(&url, &token).starts_with("HTTP/1.1 200 "));
    session.end(gate);
    let landed = proxy(&read(&stage.settings())).unwrap();
    assert_eq!(landed, ("https://gate.way".to_owned(), String::new()));
    // A second start in that time takes the file over at once.
    let session = Session::start(&stage, "b", &[]);
    let gate = session.arrived();
    assert_ne!(proxy(&read(&stage.settings())).unwrap().1, "");
    session.end(gate);
    let expected = "{\"env\":{\"ANTHROPIC_BASE_URL\":\"https://gate.way\"}}";
    wait_until("the end of the landing", || {
        read(&stage.settings()) == expected
    });
    wait_until("the end of the lander", || journals(&stage) == 0);
}

#[test]
fn l08_a_shell_that_names_a_host_of_its_own_keeps_its_clients() {
    // A client that is started from it would not find that host again: the file's value takes its place.
    let mut stage = noting();
    write(&stage, "{}");
    set(&mut stage, "ANTHROPIC_BASE_URL", "https://gate.way");
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    assert_eq!(read(&stage.path("work/seen-a")), "{}");
    session.end(gate);
}

#[test]
fn l09_what_the_client_saved_meanwhile_stays() {
    // As the client saves: another order, other spaces, and what it has read.
    let script = r#"sed -e 's/"a":1/"theme": "dark"/' "$settings" >new && mv new "$settings"; chmod 600 "$settings""#;
    let stage = stage(script);
    write(&stage, "{\"a\":1,\"env\":{\"K\":1.0}}");
    let output = stage.ccx(&[""]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        read(&stage.settings()),
        "{\"theme\": \"dark\",\"env\":{\"K\":1.0}}"
    );
    assert_eq!(mode(&stage.settings()), 0o644);

    let stage = self::stage("rm \"$settings\"");
    write(&stage, "{}");
    assert!(stage.ccx(&[""]).status.success());
    assert!(!stage.settings().exists(), "deleted stays deleted");
    assert_eq!(journals(&stage), 0);
}

/// Starts ccx so that it is killed at its `number`th point between two writes. Says whether it came to such a point.
fn killed_at(stage: &Stage, number: u32) -> bool {
    let mut command = stage.command(CCX);
    let status = command
        .env("CCX_FAULT", number.to_string())
        .arg("")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    std::os::unix::process::ExitStatusExt::signal(&status).is_some()
}

#[test]
fn l10_a_kill_between_any_two_writes_leaves_a_whole_file_that_is_given_back() {
    let stage = stage("true");
    let mut number = 1;
    let mut kinds = [0; 3];
    while {
        write(&stage, ODD);
        killed_at(&stage, number)
    } {
        let text = read(&stage.settings());
        match proxy(&text) {
            Some(_) => kinds[0] += 1,
            None => kinds[1] += 1,
        }
        // By the word, or by the next start.
        if number % 2 == 0 {
            let output = stage.ccx(&["restore"]);
            assert_eq!(output.status.code(), Some(0), "{number}: {output:?}");
            let again = stage.ccx(&["restore"]);
            assert_eq!(again.status.code(), Some(0), "{number}: {again:?}");
            let told = String::from_utf8(again.stdout).unwrap();
            assert!(told.ends_with(": as you left it\n"), "{number}: {told}");
        } else {
            kinds[2] += 1;
            let output = stage.ccx(&[""]);
            assert!(output.status.success(), "{number}: {output:?}");
        }
        // The client of the killed one may be seen dying: then the others are told first.
        wait_until("the file", || {
            read(&stage.settings()) == ODD && journals(&stage) == 0
        });
        assert_eq!(read(&stage.settings()), ODD, "{number}");
        assert_eq!(mode(&stage.settings()), 0o644, "{number}");
        assert_eq!(journals(&stage), 0, "{number}");
        // L11: nothing is left lying about.
        assert_eq!(
            names(&stage.path("home/.claude")),
            ["settings.json"],
            "{number}"
        );
        assert_eq!(names(&stage.path("ccx/state/lease")), ["lock"], "{number}");
        number += 1;
    }
    assert!(
        kinds.iter().all(|count| *count >= 5),
        "{kinds:?} of {number}"
    );
    assert_eq!(read(&stage.settings()), ODD);
}

#[test]
fn l10_a_fault_of_ccx_gives_the_file_back() {
    let mut stage = noting();
    write(&stage, ODD);
    let trigger = stage.path("work/now");
    let fault = format!("session@{}", trigger.display());
    set(&mut stage, "CCX_TEST_FAULT", &fault);
    // `always`: another client of this user may be running.
    let mut session = Session::start(&stage, "a", &["--ccx-lease", "always"]);
    let gate = session.arrived();
    assert!(proxy(&read(&stage.settings())).is_some());
    fs::write(&trigger, "").unwrap();
    // Something that the session's loop hears of.
    let pid = Pid::from_raw(session.child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(session.child.wait().unwrap().code(), Some(70));
    drop(gate);
    wait_until("the file", || {
        read(&stage.settings()) == ODD && journals(&stage) == 0
    });
    assert_eq!(mode(&stage.settings()), 0o644);
}

#[test]
fn l10_of_two_sessions_only_the_dead_ones_share_is_undone() {
    let stage = noting();
    write(&stage, ODD);
    let first = Session::start(&stage, "a", &[]);
    let first_gate = first.arrived();
    let (url, _) = proxy(&read(&stage.settings())).unwrap();
    let second = Session::start(&stage, "b", &[]);
    let second_gate = second.arrived();
    first.kill(first_gate);
    let output = stage.ccx(&["restore"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("a ccx that runs has it now"), "{told}");
    let (passed, _) = proxy(&read(&stage.settings())).unwrap();
    assert_ne!(passed, url);
    let told = String::from_utf8(stage.ccx(&["restore"]).stdout).unwrap();
    assert!(told.contains("which gives it back when it ends"), "{told}");
    second.end(second_gate);
    assert_eq!(
        (read(&stage.settings()).as_str(), journals(&stage)),
        (ODD, 0)
    );
}

/// Also not of a session that was killed, once the next one has looked.
#[test]
fn l11_nothing_of_ours_is_left_with_the_client_or_among_temporary_files() {
    let mut stage = stage("ls -A \"$HOME/.claude\" >seen; ls -A \"$TMPDIR\" >>seen");
    fs::create_dir(stage.path("temporary")).unwrap();
    let temporary = stage.path("temporary");
    set(&mut stage, "TMPDIR", temporary.to_str().unwrap());
    write(&stage, ODD);
    assert!(stage.ccx(&[""]).status.success());
    assert_eq!(
        read(&stage.path("work/seen")),
        "settings.json\n",
        "while it runs"
    );
    // Each of the next ones finds what the one before left.
    let mut number = 1;
    while killed_at(&stage, number) {
        number += 3;
    }
    assert!(number > 10, "{number}");
    assert!(stage.ccx(&[""]).status.success());
    wait_until("the file", || {
        read(&stage.settings()) == ODD && journals(&stage) == 0
    });
    assert_eq!(names(&stage.path("home/.claude")), ["settings.json"]);
    assert_eq!(names(&temporary), [""; 0]);
}

#[test]
fn l13_the_clients_directory_is_where_its_variable_says() {
    let mut stage = noting();
    write(&stage, "{}");
    let directory = stage.path("home/elsewhere");
    fs::create_dir(&directory).unwrap();
    let settings = directory.join("settings.json");
    fs::write(&settings, ODD).unwrap();
    set(&mut stage, "CLAUDE_CONFIG_DIR", directory.to_str().unwrap());
    let session = Session::start(&stage, "a", &[]);
    let gate = session.arrived();
    assert!(proxy(&read(&stage.path("work/seen-a"))).is_some());
    assert_eq!(read(&stage.settings()), "{}");
    session.kill(gate);
    assert!(proxy(&read(&settings)).is_some());
    // B12: a start with another directory leaves no dead address in the first.
    stage
        .environment
        .retain(|(name, _)| name != "CLAUDE_CONFIG_DIR");
    let session = Session::start(&stage, "b", &[]);
    let gate = session.arrived();
    assert_eq!(read(&settings), ODD);
    session.end(gate);
    assert_eq!(read(&stage.settings()), "{}");
}

/// The settings that the client was handed.
fn handed(stage: &Stage) -> Value {
    serde_json::from_str(&read(&stage.path("work/handed"))).unwrap()
}

#[test]
fn l15_a_pick_of_ours_becomes_the_default_of_ccx_and_never_stays_with_the_client() {
    for mode in ["auto", "never"] {
        let script = r#"cp "$private" handed; [ -f pick ] && sed -e "s/\"x\":1/\"model\":\"$(cat pick)\"/" "$settings" >new && mv new "$settings""#;
        let stage = stage(script);
        let start = || {
            let output = stage.ccx(&["--ccx-lease", mode, ""]);
            assert!(output.status.success(), "{output:?}");
        };
        write(&stage, "{\"x\":1}");
        start();
        let usual = handed(&stage)["model"].clone();
        assert_ne!(usual, "gpt-6-luna");
        fs::write(stage.path("work/pick"), "gpt-6-luna").unwrap();
        start();
        assert_eq!(read(&stage.settings()), "{}", "{mode}");
        fs::remove_file(stage.path("work/pick")).unwrap();
        start();
        assert_eq!(handed(&stage)["model"], "gpt-6-luna", "{mode}");

        // Killed before its end: the next start takes it out.
        write(&stage, "{\"x\":1}");
        fs::write(stage.path("work/pick"), "gpt-6-astra").unwrap();
        let session = Session::start(&stage, "a", &["--ccx-lease", mode]);
        let gate = session.arrived();
        assert!(read(&stage.settings()).contains("gpt-6-astra"));
        session.kill(gate);
        fs::remove_file(stage.path("work/pick")).unwrap();
        assert!(stage.ccx(&["restore"]).status.success());
        assert_eq!(read(&stage.settings()), "{}", "{mode}");
        start();
        assert_eq!(handed(&stage)["model"], "gpt-6-astra", "{mode}");

        // One of the client's own stays, and is the default again.
        write(&stage, "{\"x\":1}");
        fs::write(stage.path("work/pick"), "sonnet").unwrap();
        start();
        assert_eq!(read(&stage.settings()), "{\"model\":\"sonnet\"}", "{mode}");
        fs::remove_file(stage.path("work/pick")).unwrap();
        start();
        assert_eq!(handed(&stage)["model"], Value::Null, "{mode}");
    }
}
