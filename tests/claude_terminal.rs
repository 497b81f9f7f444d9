//! The terminal of the real Claude Code: stopped and continued, interrupted, ended from outside, pasted into.
//!
//! Built with `--features real-client`; `CCX_TEST_CLAUDE` names the client. `shell/test.sh` sees to both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::screen::{PATIENCE, Screen};
use support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");

/// What the terminal shows once the client waits for a prompt.
const READY: &str = "auto mode on";

/// A shell's prompt that nothing else looks like.
const PROMPT: &str = "shell-prompt>";

fn stage() -> Stage {
    let client = std::env::var("CCX_TEST_CLAUDE")
        .expect("CCX_TEST_CLAUDE must name the real client; run shell/test.sh");
    assert!(Path::new(&client).exists(), "{client} is not there");
    Stage::new("chat")
}

fn start(stage: &Stage, program: &str, arguments: &[&str]) -> Screen {
    Screen::start(
        Path::new(program),
        arguments,
        &stage.environment,
        &stage.path("work"),
        (40, 110),
    )
}

fn started(stage: &Stage) -> Screen {
    let screen = start(stage, CCX, &[]);
    screen.wait_for_text(READY);
    screen
}

/// Types a prompt and Enter. The two must not come as one piece: that would count as a paste.
fn say(screen: &Screen, prompt: &str) {
    screen.send(prompt);
    screen.wait_for(prompt, |text| text.contains(prompt));
    screen.send("\r");
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn assert_tidy(stage: &Stage, screen: &Screen) {
    assert_eq!(screen.modes(), (false, false, false));
    assert!(screen.is_cooked(), "the terminal echoes again");
    let left: Vec<_> = std::fs::read_dir(stage.path("ccx/run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn t19_stopped_resized_and_continued_from_a_shell() {
    let mut stage = stage();
    for (name, value) in [("PS1", "shell-prompt> "), ("ENV", "/dev/null")] {
        stage.environment.push((name.to_owned(), value.to_owned()));
    }
    let mut screen = start(&stage, "/bin/sh", &["-i"]);
    screen.wait_for_text(PROMPT);
    screen.send(&format!("'{CCX}'\n"));
    screen.wait_for_text(READY);
    assert!(!screen.is_cooked());
    for columns in [90, 100] {
        screen.send("\x1a");
        screen.wait_for("the shell's prompt", |text| {
            text.trim_end().ends_with(PROMPT)
        });
        assert!(screen.is_cooked(), "the shell has its terminal");
        screen.resize(36, columns);
        screen.send("fg\n");
        screen.wait_for("a screen of the new width", |text| {
            let rule = text
                .lines()
                .rfind(|line| line.starts_with("────"))
                .map(|line| line.chars().count());
            rule == Some(usize::from(columns)) && text.contains(READY)
        });
        until("the raw terminal", || !screen.is_cooked());
    }
    say(&screen, "still there");
    screen.wait_for_text("You said: still there");
    screen.wait_for("the end of the answer", |text| {
        text.contains("think thinks first")
    });
    say(&screen, "/exit");
    screen.wait_for("the shell's prompt", |text| {
        text.trim_end().ends_with(PROMPT)
    });
    assert!(screen.is_cooked());
    screen.send("exit\n");
    screen.wait();
}

#[test]
fn t16_interrupted_twice_it_ends_in_its_own_way() {
    let stage = stage();
    let mut screen = started(&stage);
    screen.send("\x03");
    screen.wait_for("the question for a second one", |text| {
        text.to_lowercase().contains("again to exit")
    });
    screen.send("\x03");
    assert_eq!(screen.wait().exit_code(), 0);
    assert_tidy(&stage, &screen);
}

#[test]
fn t15_term_and_hup_to_ccx_end_the_client_and_leave_a_terminal_of_use() {
    for signal in [Signal::TERM, Signal::HUP] {
        let stage = stage();
        let mut screen = started(&stage);
        let pid = Pid::from_raw(screen.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let status = screen.wait();
        assert_ne!(status.exit_code(), 0, "{signal:?}");
        assert_tidy(&stage, &screen);
    }
}

#[test]
fn t08_a_large_paste_reaches_the_model_whole() {
    let stage = stage();
    let mut screen = started(&stage);
    let line = "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let pasted: String = (0..16_000).map(|at| format!("{at:05} {line}\n")).collect();
    assert!(pasted.len() > 1_000_000);
    screen.send(&format!("\x1b[200~{pasted}\x1b[201~"));
    screen.wait_for_text("Pasted text");
    screen.send("\r");
    let last = format!("15999 {line}");
    until("the request", || {
        let requests = stage.backend.requests();
        requests
            .iter()
            .filter(|seen| seen.is_response())
            .any(|seen| seen.body.to_string().contains(&last))
    });
    let requests = stage.backend.requests();
    let whole = requests
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| seen.body.to_string())
        .find(|body| body.contains(&last))
        .unwrap();
    for at in 0..16_000 {
        assert!(whole.contains(&format!("{at:05} 0123456789")), "line {at}");
    }
    screen.wait_for_text(READY);
    say(&screen, "/exit");
    assert_eq!(screen.wait().exit_code(), 0);
}

#[test]
fn p02_pipes_in_and_out_and_the_clients_own_commands() {
    let stage = stage();
    let piped = |words: &str| {
        let output = stage
            .command("/bin/sh")
            .args(["-c", words])
            .env("CCX", CCX)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words}");
        assert!(output.status.success(), "{words}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = piped("\"$CCX\" -p 'hi there' </dev/null | cat");
    assert!(told.starts_with("You said: hi there"), "{told:?}");
    let told = piped("echo from a file >f; cat f | \"$CCX\" -p 'and' | cat");
    assert!(told.starts_with("You said: and"), "{told:?}");
    let requests = stage.backend.requests();
    let mut bodies = requests.iter().map(|seen| seen.body.to_string());
    assert!(bodies.any(|body| body.contains("from a file")));
    let told = piped("\"$CCX\" mcp list </dev/null");
    assert!(told.contains("No MCP servers configured"), "{told:?}");
}
