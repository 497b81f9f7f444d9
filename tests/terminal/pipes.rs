//! Without a terminal: the client gets the very same descriptors.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use crate::bed::{Terminal, Way, await_gone, client, contains, piped_script};
use crate::support::stage::Stage;

#[test]
fn p01_output_and_errors_are_native_and_apart() {
    let mut stage = Stage::new("chat");
    client(
        &mut stage,
        "printf 'out\\000\\377'; printf wrong >&2; printf more",
    );
    for words in [&["-p", "hi"][..], &["--ccx-no-pty", "-p"], &["mcp", "list"]] {
        let output = stage.ccx(words);
        assert_eq!(output.stdout, b"out\0\xffmore", "{words:?}");
        assert_eq!(output.stderr, b"wrong", "{words:?}");
        assert!(output.status.success());
    }
}

#[test]
fn p02_input_and_its_end_pass_through() {
    let mut child = piped_script("cat; printf wrong >&2; exit 5")
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"in\0\xff\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(Terminal::shown(&output.stdout), b"in\0\xff\n");
    assert_eq!(output.stderr, b"wrong");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn p03_bulk_and_an_immediate_end_are_complete() {
    let output = piped_script("head -c 50000000 /dev/zero; printf last")
        .output()
        .unwrap();
    let shown = Terminal::shown(&output.stdout);
    assert_eq!(shown.len(), 50_000_004);
    assert!(shown.ends_with(b"\0last"));
    for _ in 0..10 {
        let output = piped_script("printf gone; kill -KILL $$").output().unwrap();
        assert_eq!(Terminal::shown(&output.stdout), b"gone");
    }
}

#[test]
fn p04_a_reader_that_leaves_ends_both() {
    let mut child = piped_script("while :; do echo line; done").spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut head = [0; 256];
    stdout.read_exact(&mut head).unwrap();
    drop(stdout);
    let begin = Instant::now();
    let status = child.wait().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5));
    // PIPE has its default in the client.
    assert_eq!(status.code(), Some(141), "{:?}", status.signal());
}

#[test]
fn p04_the_real_ccx_before_head() {
    let mut stage = Stage::new("chat");
    client(&mut stage, "while :; do echo line; done");
    let output = stage
        .command("/bin/sh")
        .args(["-c", "{ \"$0\" -p hi; echo code=$? >&2; } | head -1"])
        .arg(env!("CARGO_BIN_EXE_ccx"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"line\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "code=141\n");
    // ccx's own words survive it too.
    let output = stage
        .command("/bin/sh")
        .args(["-c", "\"$0\" --help | true; \"$0\" status | true"])
        .arg(env!("CARGO_BIN_EXE_ccx"))
        .output()
        .unwrap();
    assert!(!contains(&output.stderr, "panicked"), "{output:?}");
    assert!(!contains(&output.stderr, "fault"), "{output:?}");
}

#[test]
fn p05_exit_codes_are_as_in_a_terminal() {
    for (text, code) in [
        ("exit 0", 0),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -INT $$", 130),
    ] {
        let output = piped_script(text).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        let silent = (Terminal::shown(&output.stdout), &output.stderr[..]);
        assert_eq!(silent, (&b""[..], &b""[..]));
    }
}

/// What a client says.
struct Said {
    stdout: ChildStdout,
    seen: Vec<u8>,
}

impl Said {
    fn by(child: &mut Child) -> Self {
        Self {
            stdout: child.stdout.take().unwrap(),
            seen: Vec::new(),
        }
    }

    /// Waits until it has said `text`, and returns all that it said.
    fn until(&mut self, text: &str) -> String {
        while !contains(Terminal::shown(&self.seen), text) {
            let mut byte = [0];
            self.stdout.read_exact(&mut byte).unwrap();
            self.seen.push(byte[0]);
        }
        String::from_utf8_lossy(Terminal::shown(&self.seen)).into_owned()
    }
}

#[test]
fn p06_term_is_passed_on_and_the_groups_interrupt_comes_once() {
    let mut child = piped_script("trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
        .spawn()
        .unwrap();
    let mut said = Said::by(&mut child);
    said.until("ready");
    let driver = Pid::from_child(&child);
    // Not ours to act on: the keyboard's reaches the client by itself.
    kill_process(driver, Signal::INT).unwrap();
    kill_process(driver, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));

    let mut child = piped_script(
        "n=0; trap 'n=$((n+1))' INT; trap 'echo n=$n; exit 7' TERM; echo ready; while :; do sleep 0.05; done",
    )
    .process_group(0)
    .spawn()
    .unwrap();
    let mut said = Said::by(&mut child);
    said.until("ready");
    let group = Pid::from_child(&child);
    kill_process_group(group, Signal::INT).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill_process(group, Signal::TERM).unwrap();
    assert!(said.until("n=").starts_with("ready\nn="));
    said.until("n=1\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn p07_the_client_does_not_outlive_ccx() {
    let mut child = piped_script("trap '' HUP; echo pid=$$.; exec sleep 60")
        .spawn()
        .unwrap();
    let said = Said::by(&mut child).until(".");
    let pid = said.trim_start_matches("pid=").trim_end_matches('.');
    let client = Pid::from_raw(pid.parse().unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    await_gone(client, Duration::from_secs(5));
}

#[test]
fn p08_what_the_client_left_running_holds_nobody_up_and_lives_on() {
    let mut child = piped_script("sleep 30 & echo pid=$!.; exit 3")
        .spawn()
        .unwrap();
    let said = Said::by(&mut child).until(".");
    let begin = Instant::now();
    // Not until the end of the output, which the one that was left behind keeps open.
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(begin.elapsed() < Duration::from_secs(2));
    let pid = said.trim_start_matches("pid=").trim_end_matches('.');
    let left = Pid::from_raw(pid.parse().unwrap()).unwrap();
    assert!(test_kill_process(left).is_ok());
    kill_process(left, Signal::KILL).unwrap();
}

#[test]
fn p09_of_mixed_ends_each_stays_what_it_is() {
    let mut stage = Stage::new("chat");
    let told = stage.path("work/told");
    let look = format!(
        "exec 3>'{}'; for n in 0 1 2; do if test -t $n; then printf y >&3; else printf n >&3; fi; done",
        told.display()
    );
    client(&mut stage, &look);
    let ccx = env!("CARGO_BIN_EXE_ccx");
    for (line, kinds) in [
        ("\"$0\" -p 2>log", "yyn"),
        ("\"$0\" -p | cat", "yny"),
        ("\"$0\" -p <client", "nyy"),
        ("cat client | \"$0\" -p | cat", "nny"),
        ("\"$0\" -p", "yyy"),
    ] {
        let (code, shown) = Terminal::sh(&stage, &["-c", line, ccx]).end_as_before();
        assert_eq!((code, shown.as_str()), (0, ""), "{line}");
        assert_eq!(fs::read_to_string(&told).unwrap(), kinds, "{line}");
    }
}

/// Whoever reads our output may have set the terminal up for itself: it is left alone.
#[test]
fn p09_a_pager_keeps_its_terminal() {
    for how in ["exit 0", "kill -KILL $$"] {
        let mut stage = Stage::new("chat");
        client(&mut stage, &format!("echo text; {how}"));
        let line = "\"$0\" -p | { read text; was=$(stty -g </dev/tty); stty raw -echo </dev/tty; cat; sleep 0.3; \
                    stty -a </dev/tty | grep -c -- -icanon; stty \"$was\" </dev/tty; }";
        let words = ["-c", line, env!("CARGO_BIN_EXE_ccx")];
        let (_, shown) = Terminal::sh(&stage, &words).end_as_before();
        assert!(shown.starts_with('1'), "{how} {shown}");
    }
}

#[test]
fn p10_closed_input_and_a_full_device_are_no_panic() {
    let mut stage = Stage::new("chat");
    client(&mut stage, "echo text 2>/dev/null || exit 8");
    let ccx = env!("CARGO_BIN_EXE_ccx");
    for (line, code) in [
        ("exec \"$0\" -p <&- >/dev/full", 8),
        ("exec \"$0\" -p <&-", 0),
        ("exec \"$0\" -p <&- >&- 2>&-", 0),
        ("exec \"$0\" --ccx-no-pty -p >/dev/full 2>/dev/full", 8),
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let begin = Instant::now();
        let output = stage
            .command("/bin/sh")
            .args(["-c", line, ccx])
            .output()
            .unwrap();
        drop(full);
        assert_eq!(output.status.code(), Some(code), "{line} {output:?}");
        assert!(begin.elapsed() < Duration::from_secs(20));
        assert_eq!(output.stderr, b"", "{line}");
    }
    for words in [
        &["--help"][..],
        &["status"],
        &["status", "--json"],
        &["--nonsense"],
    ] {
        for line in [
            "exec \"$0\" \"$@\" >/dev/full",
            "exec \"$0\" \"$@\" >/dev/full 2>/dev/full <&-",
        ] {
            let mut command = stage.command("/bin/sh");
            let output = command
                .args(["-c", line, ccx])
                .args(words)
                .stdin(Stdio::null())
                .output();
            let output = output.unwrap();
            assert!(
                !contains(&output.stderr, "panicked"),
                "{words:?} {output:?}"
            );
            assert!(!contains(&output.stderr, "fault"), "{words:?} {output:?}");
            assert_ne!(output.status.code(), None, "{words:?}");
        }
    }
}

#[test]
fn p01_the_option_changes_nothing_without_a_terminal() {
    assert_eq!(Way::Plain.words(), ["--ccx-no-pty"]);
    let mut stage = Stage::new("chat");
    client(&mut stage, "cat; exit 4");
    for way in Way::BOTH {
        let mut child = stage
            .command(env!("CARGO_BIN_EXE_ccx"))
            .args(way.words())
            .args(["-p"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"through").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(4), &b"through"[..])
        );
    }
}
