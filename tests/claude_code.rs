//! The real Claude Code through the real ccx, against a simulated ChatGPT.
//!
//! Built with `--features real-client`; `CCX_TEST_CLAUDE` names the client. `shell/test.sh` sees to both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ccx::simulate::scenario::Scenario;
use serde_json::{Value, json};
use support::screen::{PATIENCE, Screen};
use support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");

/// What the terminal shows once the client waits for a prompt.
const READY: &str = "auto mode on";

fn stage(scenario: &str) -> Stage {
    require_client();
    Stage::new(scenario)
}

/// Fails loudly without the client.
fn require_client() {
    let client = std::env::var("CCX_TEST_CLAUDE")
        .expect("CCX_TEST_CLAUDE must name the real client; run shell/test.sh");
    assert!(Path::new(&client).exists(), "{client} is not there");
}

fn start(stage: &Stage, size: (u16, u16)) -> Screen {
    let screen = Screen::start(
        Path::new(CCX),
        &[],
        &stage.environment,
        &stage.path("work"),
        size,
    );
    screen.wait_for_text(READY);
    screen
}

/// Types a prompt and Enter. The two must not come as one piece: that would count as a paste.
fn say(screen: &Screen, prompt: &str) {
    screen.send(prompt);
    let last = prompt.chars().rev().take(12).collect::<Vec<_>>();
    let last: String = last.into_iter().rev().collect();
    screen.wait_for(prompt, |text| text.contains(&last));
    screen.send("\r");
}

/// The requests for a model's turn that upstream has seen so far.
fn turns(stage: &Stage) -> usize {
    let requests = stage.backend.requests();
    requests.iter().filter(|seen| seen.is_response()).count()
}

#[test]
fn a_job_in_print_mode_is_done_and_the_settings_stay_as_they_were() {
    let stage = stage("job");
    std::fs::write(stage.path("work/notes.txt"), "One.\nTwo.\nThree.\n").unwrap();
    // A dead end: whoever follows it never reaches ccx. Odd spacing shows whether anybody wrote here.
    let settings = "{ \"env\" : {\"ANTHROPIC_BASE_URL\": \"http://127.0.0.1:9/\",\n\t\"ANTHROPIC_API_KEY\":\"sk-own\" }\n}";
    std::fs::write(stage.settings(), settings).unwrap();
    let prompt = "Read notes.txt, write a summary of it to summary.md, check the result with a \
                  shell command, and tell me what you found.";
    let output = stage.ccx(&["-p", prompt, "--allowedTools", "Read,Write,Bash"]);
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        answer.contains("One."),
        "the answer uses what the tools returned: {answer}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let summary = std::fs::read_to_string(stage.path("work/summary.md")).unwrap();
    assert!(summary.contains("One."), "{summary}");
    assert_eq!(std::fs::read_to_string(stage.settings()).unwrap(), settings);
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());

    // Turn by turn, upstream saw the same conversation grow: the same beginning to the byte, one cache key.
    let requests = stage.backend.requests();
    let bodies: Vec<&Value> = requests
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| &*seen.body)
        .collect();
    assert!(bodies.len() >= 3, "{}", bodies.len());
    for (before, after) in bodies.iter().zip(&bodies[1..]) {
        let (before_input, after_input) = (
            before["input"].as_array().unwrap(),
            after["input"].as_array().unwrap(),
        );
        assert_eq!(after_input[..before_input.len()], before_input[..]);
        assert_eq!(before["prompt_cache_key"], after["prompt_cache_key"]);
    }
    // It is one turn, and upstream was told so.
    let states: Vec<Option<&str>> = requests
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| seen.header("x-codex-turn-state"))
        .collect();
    assert_eq!(states[0], None);
    assert!(states[1..].iter().all(Option::is_some), "{states:?}");
    let last = bodies.last().unwrap()["input"].as_array().unwrap();
    let count = |kind: &str| last.iter().filter(|item| item["type"] == kind).count();
    assert!(count("function_call") >= 3, "{}", count("function_call"));
    assert!(count("reasoning") >= 2, "{}", count("reasoning"));

    // Nothing is left behind, and the secret is nowhere.
    let left: Vec<_> = std::fs::read_dir(stage.path("ccx/run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_session_on_the_screen() {
    let stage = stage("chat");
    let mut screen = start(&stage, (40, 110));
    let first = screen.text();
    assert!(
        first.contains("GPT-6.1-Sol"),
        "the true name is shown:\n{first}"
    );

    say(&screen, "hello there");
    screen.wait_for_text("You said: hello there");
    screen.wait_for("the end of the answer", |text| {
        text.contains("think thinks first")
    });

    // A command that wants a permission check: the client asks a model of ours for a verdict.
    say(&screen, "run: echo made by a tool > made.txt; cat made.txt");
    screen.wait_for_text("The tool returned:");
    let made = std::fs::read_to_string(stage.path("work/made.txt")).unwrap();
    assert_eq!(made, "made by a tool\n");

    screen.resize(30, 80);
    screen.wait_for("a screen of the new width", |text| {
        let rule = text
            .lines()
            .find(|line| line.starts_with("────"))
            .map(|line| line.chars().count());
        rule == Some(80) && text.contains(READY)
    });

    say(&screen, "/model");
    let models = screen.wait_for_text("Select model");
    for name in ["GPT-6.1-Sol", "GPT-6-Astra", "GPT-6-Sol", "GPT-6-Luna"] {
        assert!(models.contains(name), "{name}:\n{models}");
    }
    assert!(
        !models.contains("Opus") && !models.contains("Sonnet"),
        "{models}"
    );
    screen.send("\x1b");
    screen.wait_for("the list to close", |text| !text.contains("Select model"));

    say(&screen, "/context");
    screen.wait_for_text("258.4k");

    let before = turns(&stage);
    say(&screen, "slow please");
    screen.wait_for_text("Line 2 of seventy");
    assert_eq!(stage.backend.cancelled(), 0);
    screen.send("\x1b");
    screen.wait_for_text("Interrupted");
    let end = Instant::now() + Duration::from_secs(5);
    while stage.backend.cancelled() == 0 {
        assert!(Instant::now() < end, "Esc did not stop the answer upstream");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(turns(&stage) > before);

    say(&screen, "/exit");
    let status = screen.wait();
    assert_eq!(status.exit_code(), 0, "{status:?}");
    let (is_alternate, is_pasting, is_hidden) = screen.modes();
    assert_eq!((is_alternate, is_pasting, is_hidden), (false, false, false));
    assert!(screen.is_cooked(), "the terminal echoes again");
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());
}

#[test]
fn two_sessions_each_reach_their_own_proxy() {
    let (one, two) = (stage("chat"), stage("chat"));
    // The second one's home is the first one's, so that they share every file of the client.
    let mut environment = two.environment.clone();
    for (name, value) in &mut environment {
        if name == "HOME" {
            *value = one.path("home").to_str().unwrap().to_owned();
        }
    }
    std::fs::write(
        one.settings(),
        json!({"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_AUTH_TOKEN": "theirs"}})
            .to_string(),
    )
    .unwrap();
    let first = start(&one, (36, 100));
    let work = one.path("work");
    let second = Screen::start(Path::new(CCX), &[], &environment, &work, (36, 100));
    second.wait_for_text(READY);
    for (screen, stage, prompt) in [
        (&first, &one, "from the first"),
        (&second, &two, "from the second"),
        (&first, &one, "first once more"),
    ] {
        let before = turns(stage);
        say(screen, prompt);
        screen.wait_for_text(&format!("You said: {prompt}"));
        assert!(turns(stage) > before, "{prompt}");
    }
    for (stage, others) in [(&one, "second"), (&two, "first")] {
        let bodies: String = stage
            .backend
            .requests()
            .iter()
            .map(|seen| seen.body.to_string())
            .collect();
        assert!(!bodies.contains(&format!("from the {others}")));
    }
}

#[test]
fn a_client_that_is_killed_leaves_a_terminal_that_can_be_used() {
    let stage = stage("chat");
    let mut screen = start(&stage, (36, 100));
    let client = client_of(screen.pid());
    kill("KILL", client);
    let status = screen.wait();
    assert_eq!(status.exit_code(), 137, "{status:?}");
    let (is_alternate, is_pasting, is_hidden) = screen.modes();
    assert_eq!((is_alternate, is_pasting, is_hidden), (false, false, false));
    assert!(screen.is_cooked(), "the terminal echoes again");
    let bytes = screen.bytes();
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(400)..]).into_owned();
    for mode in ["\x1b[?2004l", "\x1b[?1004l"] {
        assert!(tail.contains(mode), "{mode:?} is switched off: {tail:?}");
    }
}

#[test]
fn a_ccx_that_is_killed_takes_the_client_with_it() {
    let stage = stage("chat");
    let mut screen = start(&stage, (36, 100));
    let client = client_of(screen.pid());
    kill("KILL", screen.pid());
    screen.wait();
    let end = Instant::now() + Duration::from_secs(5);
    while is_running(client) {
        assert!(Instant::now() < end, "the client lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
    // What it left is swept by the next start.
    let output = stage.ccx(&["-p", "hello again"]);
    assert!(output.status.success(), "{output:?}");
    let left = std::fs::read_dir(stage.path("ccx/run")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn the_demo_does_its_job() {
    let stage = stage("chat");
    let started = Instant::now();
    let output = stage.ccx(&["demo", "--yes"]);
    assert!(output.status.success(), "{output:?}");
    assert!(started.elapsed() < PATIENCE);
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(notes.contains("summary.md on disk"), "{notes}");
    assert!(notes.contains("4 tool calls"), "{notes}");
}

/// The job of the demo, for two accounts of which the first has room for `requests`.
fn two_accounts(requests: u64) -> Stage {
    require_client();
    let mut job: Value =
        serde_json::from_str(include_str!("../src/simulate/scenarios/job.json")).unwrap();
    let window = json!({"seconds": 18_000, "requests": requests});
    job["accounts"] = json!({"ann": {"windows": [window]}});
    let scenario = Scenario::parse("job", &job.to_string()).unwrap();
    let stage = Stage::with(scenario, &["ann", "bob"]);
    std::fs::write(stage.path("work/notes.txt"), "One.\nTwo.\nThree.\n").unwrap();
    stage
}

fn job(stage: &Stage, own: &[&str]) -> std::process::Output {
    let prompt = "Read notes.txt, write a summary of it to summary.md, check the result with a \
                  shell command, and tell me what you found.";
    let mut words = own.to_vec();
    words.extend(["-p", prompt, "--allowedTools", "Read,Write,Bash"]);
    stage.ccx(&words)
}

/// How many turns `name` was asked for.
fn turns_of(stage: &Stage, name: &str) -> usize {
    let asked = stage.backend.asked_by(name);
    asked.iter().filter(|seen| seen.is_response()).count()
}

#[test]
fn a_limit_in_the_middle_of_a_job_is_told_with_its_end_and_the_way_on() {
    let stage = two_accounts(2);
    let output = job(&stage, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for words in ["resets in", "ccx use"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(turns_of(&stage, "bob"), 0);
}

#[test]
fn with_failover_the_job_is_done_on_the_second_account_and_nobody_notices() {
    let stage = two_accounts(2);
    let output = job(&stage, &["--ccx-failover", "on"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(stage.path("work/summary.md").exists());
    assert_eq!(turns_of(&stage, "ann"), 3, "two answers and the refusal");
    assert!(turns_of(&stage, "bob") >= 2, "{}", turns_of(&stage, "bob"));
    // What was sealed for the first account under the second would be a complaint.
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());
}

#[test]
fn a_pinned_launch_never_moves() {
    let stage = two_accounts(2);
    let output = job(
        &stage,
        &["--account", "ann@example.com", "--ccx-failover", "on"],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(turns_of(&stage, "bob"), 0);
}

#[test]
fn pipes_stay_pipes() {
    let stage = stage("chat");
    let mut child = stage
        .command(CCX)
        .args(["-p", "say what you got"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through the pipe\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.starts_with("You said: say what you got"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text:?}");
    let requests = stage.backend.requests();
    assert!(
        requests
            .iter()
            .any(|seen| seen.body.to_string().contains("through the pipe"))
    );
}

/// The process id of the client below the ccx `pid`.
fn client_of(pid: u32) -> u32 {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let mut found = vec![pid];
        let mut at = 0;
        while at < found.len() {
            let children = children(found[at]);
            found.extend(children);
            at += 1;
        }
        let client = found.into_iter().find(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(program).contains("claude")
        });
        match client {
            Some(client) => return client,
            None => assert!(Instant::now() < end, "no client below {pid}"),
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let output = Command::new("ps")
        .args(["-o", "pid=", "--ppid", &pid.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect()
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

fn is_running(pid: u32) -> bool {
    // A zombie of somebody else's does not run any more.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}
