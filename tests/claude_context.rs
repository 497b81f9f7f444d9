//! The real Claude Code and its context window: `/context`, compaction at the true window, by hand and after an overflow.
//!
//! Built with `--features real-client`; `CCX_TEST_CLAUDE` names the client. `shell/test.sh` sees to both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use ccx::simulate::record::Seen;
use ccx::simulate::scenario::Scenario;
use serde_json::{Value, json};
use support::screen::Screen;
use support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");

/// What the terminal shows once the client waits for a prompt.
const READY: &str = "auto mode on";

/// What a summary says here.
const SUMMARY: &str = "the tale of the job so far";

fn stage(scenario: &Value) -> Stage {
    let client = std::env::var("CCX_TEST_CLAUDE")
        .expect("CCX_TEST_CLAUDE must name the real client; run shell/test.sh");
    assert!(Path::new(&client).exists(), "{client} is not there");
    let scenario = Scenario::parse("context", &scenario.to_string()).unwrap();
    Stage::with(scenario, &["test"])
}

/// A scenario that answers prompts by `steps` and requests for a summary with one.
fn scenario(windows: &Value, steps: &[Value]) -> Value {
    let compaction = json!({"name": "compaction", "when": {"kind": "compaction"},
        "answer": [{"text": format!("<summary>{SUMMARY}</summary>")}]});
    let steps: Vec<Value> = std::iter::once(compaction)
        .chain(steps.iter().cloned())
        .collect();
    json!({"about": "a conversation that grows", "windows": windows, "steps": steps})
}

fn start(stage: &Stage) -> Screen {
    let work = stage.path("work");
    let screen = Screen::start(Path::new(CCX), &[], &stage.environment, &work, (50, 110));
    screen.wait_for_text(READY);
    screen
}

/// Types a prompt and Enter. The two must not come as one piece: that would count as a paste.
fn say(screen: &Screen, prompt: &str) {
    screen.send(prompt);
    screen.wait_for_text(prompt);
    screen.send("\r");
}

/// The steps that answered the conversation's own requests, and the refusals between them.
fn story(stage: &Stage) -> Vec<String> {
    let requests = stage.backend.requests();
    let told = |seen: &Seen| match (&seen.step, &seen.refused) {
        (Some(step), _) => step.clone(),
        (None, _) => "refused".to_owned(),
    };
    requests
        .iter()
        .filter(|seen| seen.is_response())
        .map(told)
        .filter(|step| !step.starts_with("title"))
        .collect()
}

/// How long the requests were, in tokens of the simulator.
fn sizes(stage: &Stage) -> Vec<usize> {
    let requests = stage.backend.requests();
    let turns = requests.iter().filter(|seen| seen.is_response());
    turns.map(|seen| seen.body_bytes / 4).collect()
}

#[test]
fn context_shows_what_upstream_counted_and_asks_it_nothing() {
    let stage = stage(&scenario(
        &json!({}),
        &[
            json!({"name": "main", "when": {"kind": "main"}, "answer": [{"text": "here you are"}], "usage": {"input": 120_000, "cached": 100_000}}),
        ],
    ));
    let screen = start(&stage);
    say(&screen, "hello there");
    screen.wait_for_text("here you are");
    let before = stage
        .backend
        .requests()
        .iter()
        .filter(|seen| seen.is_response())
        .count();
    say(&screen, "/context");
    let shown = screen.wait_for_text("258.4k");
    assert!(shown.contains("120k/258.4k"), "{shown}");
    let after = stage
        .backend
        .requests()
        .iter()
        .filter(|seen| seen.is_response())
        .count();
    assert_eq!(before, after, "a count generates nothing");
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());
}

#[test]
fn the_client_compacts_before_the_turn_that_would_not_fit() {
    let stage = stage(&scenario(
        &json!({}),
        &[
            json!({"name": "small", "when": {"kind": "main"}, "times": 1, "answer": [{"text": "hardly begun"}], "usage": {"input": 20_000}}),
            json!({"name": "full", "when": {"kind": "main"}, "times": 1, "answer": [{"text": "nearly full"}], "usage": {"input": 250_000}}),
            json!({"name": "after", "when": {"kind": "main"}, "answer": [{"text": "room again"}], "usage": {"input": 20_000}}),
        ],
    ));
    let screen = start(&stage);
    say(&screen, "hello there");
    screen.wait_for_text("hardly begun");
    say(&screen, "go on");
    screen.wait_for_text("nearly full");
    say(&screen, "and now this");
    screen.wait_for_text("room again");
    assert_eq!(story(&stage), ["small", "full", "compaction", "after"]);
    let requests = stage.backend.requests();
    let last = requests
        .iter()
        .rfind(|seen| seen.step.as_deref() == Some("after"))
        .unwrap();
    let body = last.body.to_string();
    assert!(
        body.contains(SUMMARY) && body.contains("and now this"),
        "{body}"
    );
    assert!(!body.contains("hardly begun"), "{body}");
}

#[test]
fn compact_by_hand() {
    let stage = stage(&scenario(
        &json!({}),
        &[
            json!({"name": "main", "when": {"kind": "main"}, "answer": [{"text": "here you are, {{n}}"}]}),
        ],
    ));
    let screen = start(&stage);
    say(&screen, "hello there");
    screen.wait_for_text("here you are");
    say(&screen, "/compact");
    screen.wait_for_text("ompacted");
    say(&screen, "what was it");
    screen.wait_for("the next answer", |text| {
        text.matches("here you are").count() > 0 && text.contains("what was it")
    });
    let end = std::time::Instant::now() + support::screen::PATIENCE;
    while story(&stage).len() < 3 {
        assert!(std::time::Instant::now() < end, "{:?}", story(&stage));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(story(&stage), ["main", "compaction", "main"]);
    let requests = stage.backend.requests();
    let last = requests
        .iter()
        .rfind(|seen| seen.step.as_deref() == Some("main"))
        .unwrap();
    assert!(last.body.to_string().contains(SUMMARY));
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());
}

/// Each call prints 31 kB, until that is too much. The client sums up what came before; that is refused too, once, and
/// sent again with less in it.
#[test]
fn an_overflow_in_the_middle_of_a_job_is_summed_up_and_the_job_goes_on() {
    let call = |at: usize| {
        json!({"name": format!("call {at}"), "when": {"kind": "main", "outputs": at}, "times": 1, "answer": [
            {"call": {"name": "Bash", "arguments": {"command": format!("seq {at}000000 {}", at * 1_000_000 + 3_500), "description": "count"}}}
        ]})
    };
    let too_long = json!({"status": 400, "body": {"error": {"code": "context_length_exceeded", "message": "x"}}});
    let mut steps = vec![
        json!({"name": "goes on", "when": {"kind": "main", "prompt": [SUMMARY]}, "answer": [{"text": "the job is done"}]}),
    ];
    steps.extend((0..6).map(call));
    let mut scenario = scenario(&json!({"gpt-6.1-sol": {"tokens": 45_000}}), &steps);
    let refusal = json!({"name": "refused summary", "when": {"kind": "compaction"}, "times": 1, "reply": too_long});
    scenario["steps"].as_array_mut().unwrap().insert(0, refusal);
    let stage = stage(&scenario);
    let output = stage.ccx(&["-p", "count and count again", "--allowedTools", "Bash"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let story = story(&stage);
    assert!(
        output.status.success(),
        "{output:?} {story:?} {:?}",
        sizes(&stage)
    );
    assert!(text.contains("the job is done"), "{text}");
    let at = |name: &str| story.iter().position(|step| step == name);
    let refused = at("refused").expect("the window was too small");
    let end = ["refused", "refused summary", "compaction", "goes on"];
    assert_eq!(story[refused..], end);
    let requests = stage.backend.requests();
    let summed = requests
        .iter()
        .find(|seen| seen.step.as_deref() == Some("compaction"))
        .unwrap();
    let summed = summed.body.to_string();
    assert!(
        summed.contains("ccx left the rest"),
        "{story:?} {:?}",
        sizes(&stage)
    );
    assert_eq!(stage.backend.complaints(), Vec::<String>::new());
}

#[test]
fn a_window_that_was_learnt_is_the_next_sessions() {
    let refusal = json!({"status": 400, "body": {"error": {"code": "context_length_exceeded",
        "message": "This model's maximum context length is 150000 tokens."}}});
    let stage = stage(&scenario(
        &json!({}),
        &[
            json!({"name": "refusal", "when": {"kind": "main"}, "times": 1, "reply": refusal}),
            json!({"name": "main", "when": {"kind": "main"}, "answer": [{"text": "here you are"}]}),
        ],
    ));
    let output = stage.ccx(&["-p", "hello"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.to_lowercase().contains("prompt is too long"), "{text}");
    let status = stage.ccx(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.contains("gpt-6.1-sol takes 150k tokens, not 272k"),
        "{status}"
    );
    let screen = start(&stage);
    say(&screen, "/context");
    screen.wait_for_text("142.5k");
}
