//! The history: what is kept of requests, by several processes at once, and what may happen to its file.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ccx::history::database::{self, Bounds, Database};
use ccx::history::keeper::History;
use ccx::history::pages;
use ccx::history::plot::{Span, Step};
use ccx::history::record::{Ending, Filter, Record};
use ccx::ledger::{Entry, Ledger, Outcome, Running, Sent};
use ccx::proxy::readings::Readings;
use ccx::time::UnixSeconds;
use ccx::upstream::quota::{Quota, Window};
use ccx::wire::responses::Usage;
use serde_json::json;

use support::proxy::{Proxy, now, prompt};

fn entry(id: &str, at: u64, outcome: Outcome) -> Entry {
    let milliseconds = std::time::Duration::from_millis;
    Entry {
        id: id.to_owned(),
        at: UnixSeconds(at),
        conversation: "conversation".to_owned(),
        account: "account".to_owned(),
        asked: "claude-opus-5-5".to_owned(),
        model: "gpt-6.1-sol".to_owned(),
        served: Some("gpt-6.1-sol-2".to_owned()),
        class: "main".to_owned(),
        course: Some(Sent {
            lane: "lite",
            effort: Some("high"),
            tier: Some("priority"),
        }),
        is_stream: Some(true),
        why_account: Some("because"),
        has_capture: true,
        attempts: 2,
        hops: 1,
        cache_lost: 9,
        prepared: milliseconds(3),
        first_byte: Some(milliseconds(250)),
        first_content: Some(milliseconds(300)),
        total: milliseconds(1_500),
        usage: Some(Usage {
            input_tokens: 100,
            cached_tokens: 60,
            output_tokens: 20,
            reasoning_tokens: 5,
        }),
        is_estimate: true,
        losses: vec!["temperature", "temperature", "top_k"],
        outcome,
    }
}

fn record(id: &str, at: u64) -> Record {
    Record::from(&entry(id, at, Outcome::Done))
}

fn failed(status: u16) -> Outcome {
    Outcome::Failed {
        status,
        message: "100% of it_is gone".to_owned(),
    }
}

fn open(state: &Path) -> Database {
    Database::open(state, Bounds::default()).unwrap()
}

fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.id.as_str()).collect()
}

#[test]
fn what_is_kept_comes_back_whole_and_is_counted_once() {
    // [J17]
    let home = tempfile::tempdir().unwrap();
    let mut database = open(home.path());
    let kept = record("req_1", 10_000);
    database.keep(std::slice::from_ref(&kept), &[]).unwrap();
    // Told again, by another process or after a failed write.
    database.keep(std::slice::from_ref(&kept), &[]).unwrap();
    let found = database.request("req_1").unwrap().unwrap();
    assert_eq!(found, Record { row: 1, ..kept });
    assert_eq!(database.request("req_2").unwrap(), None);
    let day = database.since(0).unwrap();
    assert_eq!((day.sums.requests, day.sums.input_tokens), (1, 100));
    let span = Span {
        from: 0,
        to: 20_000,
        step: Step::Hour,
        offset: 0,
    };
    let parts = database.parts(&span).unwrap();
    let requests: u64 = parts.iter().map(|part| part.sums.requests).sum();
    assert_eq!(requests, 1);
    let mode = |name: &str| {
        let path = home.path().join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    for name in ["history.db", "history.db-wal", "history.db-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
}

#[test]
fn requests_are_found_by_what_they_are() {
    let home = tempfile::tempdir().unwrap();
    let mut database = open(home.path());
    let mut all: Vec<Record> = (1..=5)
        .map(|number| record(&format!("req_{number}"), 1_000 + number))
        .collect();
    all[1] = Record::from(&entry("req_2", 1_002, failed(529)));
    all[2].model = "gpt-other".to_owned();
    all[3].account = "second".to_owned();
    all[4].ending = Ending::Cancelled;
    database.keep(&all, &[]).unwrap();
    let find = |filter: Filter, limit| {
        let found = database.requests(&filter, limit).unwrap();
        ids(&found).join(" ")
    };
    let word = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    assert_eq!(find(none(), 2), "req_5 req_4");
    let before = Some(4);
    assert_eq!(find(Filter { before, ..none() }, 2), "req_3 req_2");
    let ending = Some(Ending::Failed);
    assert_eq!(find(Filter { ending, ..none() }, 9), "req_2");
    let model = word("gpt-other");
    assert_eq!(find(Filter { model, ..none() }, 9), "req_3");
    let account = word("second");
    assert_eq!(find(Filter { account, ..none() }, 9), "req_4");
    // Marks of a pattern are letters here.
    for (words, wanted) in [
        ("100% of it_is", "req_2"),
        ("100% of itsis", ""),
        ("eq_5", "req_5"),
        ("'", ""),
    ] {
        let words = word(words);
        assert_eq!(find(Filter { words, ..none() }, 9), wanted);
    }
}

#[test]
fn a_session_counts_what_its_subagents_ask() {
    // [J17]
    let home = tempfile::tempdir().unwrap();
    let mut database = open(home.path());
    let mut side = record("req_2", 5_100);
    side.class = "subagent".to_owned();
    side.model = "gpt-small".to_owned();
    let mut other = record("req_3", 5_050);
    other.conversation = "other".to_owned();
    let mut old = record("req_4", 100);
    old.conversation = "old".to_owned();
    let mut unread = record("req_5", 5_200);
    unread.conversation = String::new();
    let all = [record("req_1", 5_000), side, other, old, unread];
    database.keep(&all, &[]).unwrap();
    let sessions = database.sessions(4_000, 9).unwrap();
    let names: Vec<&str> = sessions
        .iter()
        .map(|one| one.conversation.as_str())
        .collect();
    assert_eq!(names, ["conversation", "other"]);
    let first = &sessions[0];
    assert_eq!(
        (
            first.requests,
            first.input_tokens,
            first.since,
            first.last_at
        ),
        (2, 200, 5_000, 5_100)
    );
    // What the person sees of it is the main turn.
    assert_eq!(
        (first.model.as_str(), first.class.as_str()),
        ("gpt-6.1-sol", "main")
    );
    assert_eq!(first.context_tokens, Some(120));
    assert_eq!(database.sessions(4_000, 1).unwrap().len(), 1);
}

#[test]
fn bounds_hold_and_sums_outlive_single_requests() {
    // [J09]
    const DAY: u64 = 86_400;
    let home = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        rows: 50,
        days: 10,
        hour_days: 100,
        bytes: u64::MAX,
    };
    let mut database = Database::open(home.path(), bounds).unwrap();
    let now = 1_000 * DAY;
    let old: Vec<Record> = (0..20)
        .map(|n| record(&format!("old_{n}"), now - 20 * DAY))
        .collect();
    let new: Vec<Record> = (0..80)
        .map(|n| record(&format!("new_{n}"), now - DAY + n))
        .collect();
    database.keep(&old, &[]).unwrap();
    database.keep(&new, &[]).unwrap();
    database.trim(now).unwrap();
    let left = database.requests(&Filter::default(), 500).unwrap();
    assert_eq!((left.len(), left[49].id.as_str()), (50, "new_30"));
    let span = |step| Span {
        from: now - 30 * DAY,
        to: now + DAY,
        step,
        offset: 0,
    };
    let parts = database.parts(&span(Step::Day)).unwrap();
    assert_eq!(
        parts.iter().map(|part| part.sums.requests).sum::<u64>(),
        100
    );
    database.trim(now + 200 * DAY).unwrap();
    assert_eq!(database.parts(&span(Step::Day)).unwrap(), []);
}

#[test]
fn the_file_keeps_to_its_size() {
    // [J09]
    let home = tempfile::tempdir().unwrap();
    let limit = 512 * 1024;
    let bounds = Bounds {
        bytes: limit,
        ..Bounds::default()
    };
    let mut database = Database::open(home.path(), bounds).unwrap();
    for round in 0..20 {
        let many: Vec<Record> = (0..200)
            .map(|n| record(&format!("req_{round}_{n}"), 1_000_000))
            .collect();
        database.keep(&many, &[]).unwrap();
        database.trim(1_000_000).unwrap();
    }
    let newest = database.requests(&Filter::default(), 1).unwrap();
    assert_eq!(ids(&newest), ["req_19_199"]);
    drop(database);
    let bytes = fs::metadata(database::path(home.path())).unwrap().len();
    assert!(bytes <= limit + 64 * 1024, "{bytes}");
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begins() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("locks")).unwrap();
    let path = database::path(home.path());
    fs::write(
        &path,
        "this is no database, whatever its name says. ".repeat(100),
    )
    .unwrap();
    let history = History::start(home.path()).unwrap();
    let mut ears = history.hearer();
    ears.ended(&entry("req_1", 1_000, Outcome::Done));
    let found = history.requests(&Filter::default(), 9).unwrap();
    assert_eq!(ids(&found), ["req_1"]);
    let aside = fs::read_to_string(home.path().join("history.db.damaged")).unwrap();
    assert!(aside.starts_with("this is no database"));
}

#[test]
fn a_file_that_is_damaged_while_it_is_open_costs_no_later_request() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("locks")).unwrap();
    let history = History::start(home.path()).unwrap();
    let mut ears = history.hearer();
    for number in 0..400 {
        ears.ended(&entry(&format!("req_{number}"), 1_000, Outcome::Done));
    }
    assert_eq!(
        history.requests(&Filter::default(), 500).unwrap().len(),
        400
    );
    // All of it, the log included.
    for end in ["", "-wal"] {
        let path = home.path().join(format!("history.db{end}"));
        let length = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x5a; length as usize], 0).unwrap();
    }
    // The first to look finds out.
    assert_eq!(history.requests(&Filter::default(), 500).unwrap(), []);
    assert!(home.path().join("history.db.damaged").exists());
    ears.ended(&entry("late", 2_000, Outcome::Done));
    let found = history.requests(&Filter::default(), 500).unwrap();
    assert_eq!(ids(&found), ["late"]);
}

/// What [`a_full_disk_hurts_no_request_and_what_waited_is_written`] runs in a process of its own, whose files may not grow.
#[test]
fn write_with_a_limit() {
    let Ok(state) = std::env::var("CCX_TEST_LIMIT") else {
        return;
    };
    use rustix::process::{Resource, getrlimit, setrlimit};
    let history = History::start(Path::new(&state)).unwrap();
    let mut ears = history.hearer();
    let all = |history: &History| history.requests(&Filter::default(), 500);
    ears.ended(&entry("before", now().0, Outcome::Done));
    assert_eq!(ids(&all(&history).unwrap()), ["before"]);
    let before = getrlimit(Resource::Fsize);
    let tight = rustix::process::Rlimit {
        current: Some(1),
        maximum: before.maximum,
    };
    setrlimit(Resource::Fsize, tight).unwrap();
    ears.ended(&entry("during", now().0, Outcome::Done));
    let during = all(&history);
    setrlimit(Resource::Fsize, before).unwrap();
    assert!(during.is_err() || ids(&during.unwrap()) == ["before"]);
    ears.ended(&entry("after", now().0, Outcome::Done));
    assert_eq!(ids(&all(&history).unwrap()), ["after", "during", "before"]);
    assert_eq!(history.dropped(), 0);
}

#[test]
fn a_full_disk_hurts_no_request_and_what_waited_is_written() {
    let home = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    // A shell that ignores the signal hands that down: a write over the limit is an error then, as a full disk's is.
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; exec \"$0\" write_with_a_limit --exact --nocapture",
        ])
        .arg(test)
        .env("CCX_TEST_LIMIT", home.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_file_of_a_later_ccx_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()));
    let path = database::path(home.path());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let before = fs::read(&path).unwrap();
    let history = History::start(home.path()).unwrap();
    history
        .hearer()
        .ended(&entry("req_1", 1_000, Outcome::Done));
    let told = history.requests(&Filter::default(), 9).unwrap_err();
    assert!(told.to_string().contains("later version"), "{told}");
    history.end();
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// What [`kept_by_a_process`] runs in a process of its own: `CCX_TEST_WRITE` is the state directory and a name.
#[test]
fn write_until_killed() {
    let Ok(words) = std::env::var("CCX_TEST_WRITE") else {
        return;
    };
    let (state, name) = words.rsplit_once('|').unwrap();
    let history = History::start(Path::new(state)).unwrap();
    let mut ears = history.hearer();
    for number in 0..u64::MAX {
        ears.ended(&entry(&format!("{name}_{number}"), now().0, Outcome::Done));
        if number % 50 == 49 {
            // What was settled is on disk: say so.
            history.since(u64::MAX >> 2).unwrap();
            fs::write(
                Path::new(state).join(format!("{name}.settled")),
                number.to_string(),
            )
            .unwrap();
        }
        if number == 499 && name == "whole" {
            break;
        }
    }
}

fn kept_by_a_process(state: &Path, name: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["write_until_killed", "--exact", "--nocapture"])
        .env("CCX_TEST_WRITE", format!("{}|{name}", state.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn settled(state: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(state.join(format!("{name}.settled"))).ok()?;
    text.parse().ok()
}

#[test]
fn two_processes_write_at_once_and_one_is_killed() {
    // [J11]
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("locks")).unwrap();
    let mut whole = kept_by_a_process(home.path(), "whole");
    let mut killed = kept_by_a_process(home.path(), "killed");
    while settled(home.path(), "killed").is_none_or(|number| number < 149) {
        assert!(killed.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    // No signal that it could hear: SIGKILL.
    killed.kill().unwrap();
    killed.wait().unwrap();
    let sure = settled(home.path(), "killed").unwrap();
    assert!(whole.wait().unwrap().success());
    let database = Database::look(home.path()).unwrap().unwrap();
    assert!(database.is_sound());
    for (name, count) in [("whole", 499), ("killed", sure)] {
        for number in 0..=count {
            let id = format!("{name}_{number}");
            assert!(database.request(&id).unwrap().is_some(), "{id}");
        }
    }
}

#[tokio::test]
async fn what_a_proxy_answers_is_in_the_history_after_it_has_ended() {
    let refusal = json!({"status": 400, "body": {"error": {"message": "no", "code": "x"}}});
    let scenario = json!({"about": "answers, once not", "steps": [
        {"name": "answer", "when": {}, "times": 2, "answer": [{"text": "done"}]},
        {"name": "refused", "when": {}, "reply": refusal},
    ]});
    let mut proxy = Proxy::start(&scenario);
    assert_eq!(proxy.messages(&prompt("hello", true)).await.status, 200);
    assert_eq!(proxy.messages(&prompt("hello", false)).await.status, 200);
    assert_eq!(proxy.messages(&prompt("too much", false)).await.status, 400);
    proxy.finished(3).await;
    proxy.restart(ccx::account::chooser::Rules::default());
    let database = Database::look(&proxy.home().join("ccx/state"))
        .unwrap()
        .unwrap();
    let found = database.requests(&Filter::default(), 9).unwrap();
    let ended: Vec<_> = found
        .iter()
        .map(|record| (record.ending, record.status, record.is_stream))
        .collect();
    assert_eq!(
        ended,
        [
            (Ending::Failed, Some(400), Some(false)),
            (Ending::Done, Some(200), Some(false)),
            (Ending::Done, Some(200), Some(true)),
        ]
    );
    let first = &found[2];
    assert!(first.at.abs_diff(now().0) < 600);
    assert!(first.usage.is_some() && first.effort.is_some() && first.lane.is_some());
    assert_eq!(first.class, "main");
    // Nothing of what was said.
    let bytes = fs::read(proxy.home().join("ccx/state/history.db")).unwrap();
    assert!(memchr::memmem::find(&bytes, b"hello").is_none());
    // The plan was read, and the reading kept.
    assert!(!database.levels(0, u64::MAX >> 2).unwrap().is_empty());
}

#[test]
fn readings_that_do_not_change_are_kept_now_and_then() {
    let home = tempfile::tempdir().unwrap();
    let history = History::start(home.path()).unwrap();
    let read = |at, used_percent| {
        let window = Window {
            family: None,
            length_seconds: 18_000,
            used_percent,
            resets_at: None,
        };
        let quota = Quota {
            windows: vec![window],
            at: UnixSeconds(at),
            ..Quota::default()
        };
        history.note_quota("a", &quota);
    };
    for at in 0..700 {
        read(1_000 + at, 5.0);
    }
    read(1_701, 6.0);
    let span = Span {
        from: 0,
        to: 7_200,
        step: Step::Hour,
        offset: 0,
    };
    let value = history.usage(&span, str::to_owned).unwrap();
    let points = &value["quota"][0]["points"];
    assert_eq!(*points, json!([[1_000, 5.0], [1_600, 5.0], [1_701, 6.0]]));
    assert_eq!(value["quota"][0]["window"], "5 h");
}

#[test]
fn pages_are_told_in_their_shapes() {
    let home = tempfile::tempdir().unwrap();
    let history = History::start(home.path()).unwrap();
    let mut ears = history.hearer();
    let at = now().0;
    for number in 0..5 {
        ears.ended(&entry(&format!("req_{number}"), at, Outcome::Done));
    }
    ears.ended(&entry("req_5", at, failed(429)));
    let ask = |query: &str| pages::requests(&history, query, |_| "me".to_owned());
    let first = ask("limit=4").unwrap();
    let names = |page: &serde_json::Value| -> Vec<String> {
        let requests = page["requests"].as_array().unwrap();
        let names = requests
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned());
        names.collect()
    };
    assert_eq!(names(&first), ["req_5", "req_4", "req_3", "req_2"]);
    assert_eq!(first["requests"][0]["account_name"], "me");
    let next = first["next"].as_i64().unwrap();
    let second = ask(&format!("limit=4&before={next}")).unwrap();
    assert_eq!((names(&second).len(), second["next"].is_null()), (2, true));
    assert_eq!(names(&ask("outcome=failed&q=it_is").unwrap()), ["req_5"]);
    for wrong in ["limit=x", "limit=0", "before=-", "outcome=odd"] {
        assert_eq!(ask(wrong).unwrap_err().status(), 400, "{wrong}");
    }
    let one = |id: &str| pages::request(&history, id, str::to_owned, || Some(json!("both sides")));
    assert_eq!(one("req_5").unwrap().unwrap()["capture"], "both sides");
    assert_eq!(one("req_5").unwrap().unwrap()["why_account"], "because");
    assert_eq!(one("req_9").unwrap(), None);
    let plot = |query: &str| pages::usage(&history, query, UnixSeconds(at), 0, str::to_owned);
    let day = plot("step=hour").unwrap();
    let requests = |value: &serde_json::Value| -> u64 {
        let series = value["series"].as_array().unwrap();
        series
            .iter()
            .filter_map(|point| point["requests"].as_u64())
            .sum()
    };
    // The hour that has begun is the last point.
    assert_eq!(requests(&plot(&format!("to={}", at + 1)).unwrap()), 6);
    assert_eq!(day["step"], "hour");
    for wrong in [
        "step=week",
        "from=9&to=9",
        "from=0&step=minute",
        "to=99999999999999999999",
    ] {
        assert_eq!(plot(wrong).unwrap_err().status(), 400, "{wrong}");
    }
    let today = pages::today(&history, UnixSeconds(at), 0).unwrap();
    assert_eq!((today.sums.requests, today.sums.failed), (6, 1));
    let running = Running {
        id: "req_6".to_owned(),
        at: UnixSeconds(at),
        conversation: "new".to_owned(),
        asked: "opus".to_owned(),
        model: "gpt-6.1-sol".to_owned(),
        account: "account".to_owned(),
        class: "main".to_owned(),
    };
    let window = |_: &str| Some(1_000);
    let live = pages::sessions(&history, &[running], UnixSeconds(at), window).unwrap();
    let told: Vec<_> = live
        .iter()
        .map(|one| {
            (
                one["conversation"].as_str().unwrap(),
                one["running"].as_u64(),
                one["requests"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("new", Some(1), Some(0)),
            ("conversation", Some(0), Some(6))
        ]
    );
    assert_eq!(live[1]["context_window"], 1_000);
}

#[test]
fn metrics_name_no_person() {
    let mut readings = Readings::default();
    let quota = Quota {
        windows: vec![Window {
            family: None,
            length_seconds: 604_800,
            used_percent: 40.0,
            resets_at: None,
        }],
        ..Quota::default()
    };
    readings.note_quota("an-account-with-a-long-id", quota);
    let mut ledger = Ledger::default();
    ledger.add(entry("req_1", 1, Outcome::Done));
    let text = pages::metrics(&ledger, &readings, None, "9.9", UnixSeconds(7));
    for line in [
        "ccx_build_info{version=\"9.9\"} 1",
        "ccx_start_time_seconds 7",
        "ccx_requests_total{class=\"main\",outcome=\"done\"} 1",
        "ccx_quota_used_percent{account=\"an-account-w\",window=\"7 d\"} 40",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let memory = text
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    assert!(memory.unwrap().parse::<u64>().unwrap() > 100_000);
}

#[test]
fn losses_are_counted_by_kind() {
    let losses = record("req_1", 1).losses;
    let wanted = [("temperature".to_owned(), 2), ("top_k".to_owned(), 1)];
    assert_eq!(losses, BTreeMap::from(wanted));
}
