//! `ccx quota`, `status`, `accounts`, `use`, `logout` and `statusline`: the real binary against the simulated ChatGPT.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ccx::account::record::{Record, identity};
use ccx::account::store::Store;
use ccx::files::places::Places;
use ccx::proxy::gauges;
use ccx::proxy::readings::Readings;
use ccx::simulate::forge::{Account, LIFETIME};
use ccx::upstream::connections::Connections;
use serde_json::{Value, json};
use support::proxy::{now, prompt};
use support::screen::{PATIENCE, Screen};
use support::stage::Stage;

fn places(stage: &Stage) -> Places {
    Places::below(&stage.path("ccx"))
}

fn store(stage: &Stage) -> Store {
    Store::open(&places(stage)).unwrap()
}

/// A sign-in of ccx's own for `account`, with the first tokens.
fn own(account: &Account, lifetime: Duration) -> Record {
    serde_json::from_value(json!({
        "id": identity(&account.user_id, &account.chatgpt_account_id),
        "email": account.email,
        "chatgpt_account_id": account.chatgpt_account_id,
        "chatgpt_user_id": account.user_id,
        "plan": account.plan,
        "source": {"kind": "own"},
        "access_token": account.access_token(now(), lifetime, 0).expose(),
        "refresh_token": account.refresh_token(0).expose(),
        "expires_at": now().plus(lifetime),
    }))
    .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a command that must end with `code`; returns both outputs.
#[track_caller]
fn run(stage: &Stage, words: &[&str], code: i32) -> (String, String) {
    let output = stage.ccx(words);
    assert_eq!(output.status.code(), Some(code), "{words:?} {output:?}");
    let both = (out(&output), err(&output));
    for text in [&both.0, &both.1] {
        assert!(!text.contains('\u{1b}'), "coloured when piped: {text:?}");
        assert!(!text.contains("eyJ"), "a token is shown: {text}");
        assert!(!text.contains("rt_forged"), "a token is shown: {text}");
    }
    for line in both.0.lines().filter(|_| !words.contains(&"--json")) {
        assert!(line.chars().count() <= 80, "{words:?} {line}");
    }
    both
}

fn json_of(stage: &Stage, words: &[&str]) -> Value {
    let (text, notes) = run(stage, words, 0);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {notes}"))
}

/// How often the backend was asked for `path`.
fn asked(stage: &Stage, path: &str) -> usize {
    let seen = stage.backend.requests();
    seen.iter().filter(|seen| seen.target == path).count()
}

const USAGE: &str = "/backend-api/wham/usage";

#[test]
fn quota_asks_once_a_minute_and_shows_what_it_knows_when_it_cannot() {
    let mut stage = Stage::new("chat");
    let (text, notes) = run(&stage, &["quota"], 0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(notes, "");
    assert_eq!(lines[0], "test@example.com, plan pro");
    assert!(
        lines[1].starts_with("5 h      █████████████████████░░░  88% left, resets in 2h "),
        "{text}"
    );
    assert!(
        lines[2].starts_with("7 d      ██████████████░░░░░░░░░░  60% left, resets in 3d "),
        "{text}"
    );
    assert_eq!(lines[3..], ["credits  9.99", lines[4]]);
    assert!(lines[4].starts_with("read     "), "{text}");
    assert_eq!(asked(&stage, USAGE), 1);

    let told = json_of(&stage, &["quota", "--json"]);
    assert_eq!(told["quota"]["remaining_percent"], 60.0);
    assert_eq!(told["quota"]["windows"][0]["label"], "5 h");
    assert_eq!(
        json_of(&stage, &["quota", "--all", "--json"]),
        json!({ "accounts": [told] })
    );
    assert_eq!(asked(&stage, USAGE), 1, "a minute has not passed");

    // A minute later, and upstream is gone: what is known is shown, and the exit code says why it is old.
    let id = told["id"].as_str().unwrap().to_owned();
    gauges::change(&places(&stage), |known| {
        let reading = known.accounts.get_mut(&id).unwrap();
        reading.asked_at = Some(ccx::time::UnixSeconds(now().0 - 60));
    })
    .unwrap();
    let gone = (
        "CCX_UPSTREAM_URL".to_owned(),
        "http://127.0.0.1:9".to_owned(),
    );
    stage.environment.push(gone);
    let (text, notes) = run(&stage, &["quota"], 5);
    assert!(text.contains("60% left"), "{text}");
    assert!(
        notes.starts_with(
            "error: could not ask how much of test@example.com's plan is left\ncause: "
        ),
        "{notes}"
    );
    stage.environment.pop();
    run(&stage, &["quota"], 0);
    assert_eq!(
        asked(&stage, USAGE),
        2,
        "the failed question does not count"
    );
}

#[test]
fn names_that_fit_nobody_or_several_are_told() {
    let stage = Stage::new("chat");
    let (_, notes) = run(&stage, &["quota", "nobody"], 2);
    assert!(
        notes.starts_with("error: no account is called nobody\nhint:  `ccx accounts` lists them"),
        "{notes}"
    );
    store(&stage)
        .upsert(own(&Account::new("team"), LIFETIME))
        .unwrap();
    let (_, notes) = run(&stage, &["accounts", "verify", "te"], 2);
    assert!(
        notes.contains("several accounts fit: test@example.com"),
        "{notes}"
    );
    run(&stage, &["accounts", "rename", "test"], 2);

    let empty = Stage::new("chat");
    run(&empty, &["accounts", "remove", "test", "--yes"], 0);
    for words in [
        &["quota"][..],
        &["quota", "--all"],
        &["logout"],
        &["use", "test"],
    ] {
        let (_, notes) = run(&empty, words, 3);
        assert!(notes.contains("no ChatGPT account is signed in"), "{notes}");
    }
    assert_eq!(run(&empty, &["accounts"], 0).0, "No accounts\n");
    assert_eq!(
        json_of(&empty, &["accounts", "--json"]),
        json!({"accounts": []})
    );
}

#[test]
fn accounts_are_listed_named_chosen_and_forgotten() {
    let stage = Stage::new("chat");
    let mut other = Account::new("other");
    other.plan = "free".to_owned();
    store(&stage).upsert(own(&other, LIFETIME)).unwrap();
    run(&stage, &["quota", "test"], 0);
    let (text, _) = run(&stage, &["accounts"], 0);
    assert_eq!(
        text,
        "   ACCOUNT            PLAN  STATE  LEFT            LAST USED\n\
         *  test@example.com   pro   ready  5h 88%  7d 60%  -\n\
         \x20  other@example.com  free  ready  -               -\n"
    );
    let (text, _) = run(&stage, &["accounts", "rename", "other", " home "], 0);
    assert_eq!(text, "other@example.com is now called home\n");
    let (_, notes) = run(&stage, &["accounts", "rename", "test", "home"], 2);
    assert!(
        notes.contains("another account is called home already"),
        "{notes}"
    );
    run(&stage, &["accounts", "rename", "test", "a\u{7}b"], 2);
    let told = json_of(&stage, &["use", "home", "--json"]);
    assert_eq!(told["active"]["name"], "home");
    let told = json_of(&stage, &["accounts", "--json"]);
    let active: Vec<&Value> = told["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|account| &account["active"])
        .collect();
    assert_eq!(active, [&json!(false), &json!(true)]);
    assert!(
        run(&stage, &["status"], 0)
            .0
            .contains("also       test@example.com, plan pro")
    );

    // Nobody is there to be asked.
    let (_, notes) = run(&stage, &["accounts", "remove", "home"], 2);
    assert!(notes.contains("hint:  add --yes"), "{notes}");
    let (text, _) = run(&stage, &["accounts", "remove", "home", "--yes"], 0);
    assert_eq!(text, "Forgot home\n");
    assert_eq!(asked(&stage, "/oauth/revoke"), 0);
    let (text, _) = run(&stage, &["accounts", "rename", "test", ""], 0);
    assert_eq!(text, "test@example.com is now called test@example.com\n");
    assert!(
        run(&stage, &["accounts"], 0)
            .0
            .contains("*  test@example.com")
    );
}

#[test]
fn verify_spends_no_refresh_token_and_refresh_spends_one() {
    let stage = Stage::new("chat");
    let account = Account::new("test");
    // About to end: everything else would renew it first.
    let record = own(&account, Duration::from_secs(100));
    store(&stage).upsert(record.clone()).unwrap();
    let (text, _) = run(&stage, &["accounts", "verify", "test"], 0);
    assert!(
        text.starts_with("test@example.com: upstream takes its token, good for 1m"),
        "{text}"
    );
    assert_eq!(asked(&stage, "/oauth/token"), 0);
    stage.backend.expire_access();
    let (_, notes) = run(&stage, &["accounts", "verify", "test"], 3);
    assert!(
        notes.contains("upstream did not accept the access token"),
        "{notes}"
    );
    assert_eq!(asked(&stage, "/oauth/token"), 0);

    let told = json_of(&stage, &["accounts", "refresh", "test", "--json"]);
    assert_eq!(told["refreshed"]["new"], true);
    assert_eq!(asked(&stage, "/oauth/token"), 1);
    let kept = store(&stage).account(&record.id).unwrap().unwrap();
    assert_eq!(kept.refresh_token, Some(account.refresh_token(1)));
    let told = json_of(&stage, &["accounts", "verify", "test", "--json"]);
    assert_eq!(told["verified"]["name"], "test@example.com");

    store(&stage)
        .update(&record.id, |record| {
            record.expires_at = Some(ccx::time::UnixSeconds(5))
        })
        .unwrap();
    let seen = stage.backend.requests().len();
    let (_, notes) = run(&stage, &["accounts", "verify", "test"], 3);
    assert!(
        notes.contains("the access token of test@example.com has ended"),
        "{notes}"
    );
    assert_eq!(
        stage.backend.requests().len(),
        seen,
        "there is nothing to ask"
    );
}

#[test]
fn logout_revokes_our_own_sign_in_and_leaves_the_codex_login_alone() {
    let mut stage = Stage::new("chat");
    let login = stage.path("home/.codex/auth.json");
    let before = fs::read(&login).unwrap();
    let told = json_of(&stage, &["accounts", "refresh", "test", "--json"]);
    assert_eq!(
        told["refreshed"]["new"], false,
        "the Codex CLI has not renewed it"
    );
    let (text, _) = run(&stage, &["logout"], 0);
    assert_eq!(
        text,
        "Forgot test@example.com; the Codex CLI stays signed in\n"
    );
    assert_eq!(asked(&stage, "/oauth/revoke"), 0);
    assert_eq!(asked(&stage, "/oauth/token"), 0);
    assert_eq!(fs::read(&login).unwrap(), before);

    store(&stage)
        .upsert(own(&Account::new("test"), LIFETIME))
        .unwrap();
    let gone = ("CCX_AUTH_URL".to_owned(), "http://127.0.0.1:9".to_owned());
    stage.environment.push(gone);
    let (_, notes) = run(&stage, &["logout", "test"], 5);
    assert!(
        notes.starts_with("error: could not sign out of test@example.com; nothing was changed"),
        "{notes}"
    );
    assert_eq!(store(&stage).accounts().unwrap().len(), 1);
    stage.environment.pop();
    let told = json_of(&stage, &["logout", "test", "--json"]);
    assert_eq!(told["signed_out"]["revoked"], true);
    assert_eq!(asked(&stage, "/oauth/revoke"), 1);
    let requests = stage.backend.requests();
    let revocation = requests
        .iter()
        .find(|seen| seen.target == "/oauth/revoke")
        .unwrap();
    assert_eq!(revocation.body["token_type_hint"], "refresh_token");
    assert!(store(&stage).accounts().unwrap().is_empty());

    // The issuer has ended it before: nothing is left to revoke.
    let mut record = own(&Account::new("test"), LIFETIME);
    record.dead = serde_json::from_value(json!({"reason": "revoked", "at": 5})).unwrap();
    store(&stage).upsert(record).unwrap();
    let (text, _) = run(&stage, &["logout", "test"], 0);
    assert_eq!(
        text,
        "Forgot test@example.com; its sign-in had ended already\n"
    );
    assert_eq!(asked(&stage, "/oauth/revoke"), 1);
}

#[test]
fn a_terminal_of_80_columns_gets_colours_unless_they_are_unwanted() {
    let mut stage = Stage::new("chat");
    run(&stage, &["quota"], 0);
    for (is_wanted, name, value) in [
        (true, "X", "1"),
        (false, "NO_COLOR", "1"),
        (false, "TERM", "dumb"),
    ] {
        stage.environment.push((name.to_owned(), value.to_owned()));
        let mut screen = Screen::start(
            env!("CARGO_BIN_EXE_ccx").as_ref(),
            &["status"],
            &stage.environment,
            &stage.path("work"),
            (30, 80),
        );
        screen.wait();
        let text = screen.wait_for_text("files  ");
        assert!(
            text.contains("5 h        █████████████████████░░░  88% left"),
            "{text}"
        );
        let bytes = String::from_utf8(screen.bytes()).unwrap();
        assert_eq!(bytes.contains("\u{1b}[32m"), is_wanted, "{name}");
        assert_eq!(
            bytes.matches('\n').count(),
            text.trim_end().lines().count(),
            "a line was broken"
        );
        stage.environment.pop();
    }
}

/// A client that keeps its settings and runs until its input ends.
fn waiting_client(stage: &mut Stage) -> (PathBuf, PathBuf) {
    let (client, settings) = (stage.path("client"), stage.path("overlay.json"));
    let script = format!(
        "#!/bin/sh\ncp \"$2\" '{0}.part' && mv '{0}.part' '{0}'\ncat > /dev/null\n",
        settings.display()
    );
    fs::write(&client, script).unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    let text = client.to_str().unwrap().to_owned();
    stage.environment.push(("CCX_CLAUDE".to_owned(), text));
    (client, settings)
}

/// Waits until `found` finds something.
#[track_caller]
fn until<T>(what: &str, found: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks the session's proxy as its client would; returns the status once the answer is whole.
fn turn(overlay: &Value, text: &str) -> u16 {
    let env = |name: &str| overlay["env"][name].as_str().unwrap().to_owned();
    let origin = env("ANTHROPIC_BASE_URL");
    let mut body = prompt(text, true);
    // Without tools it would not pass for the conversation that the user sees.
    body["tools"] =
        json!([{"name": "Read", "description": "Reads", "input_schema": {"type": "object"}}]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let connections = Connections::new(&origin).unwrap();
        let answer = connections
            .get()
            .await
            .unwrap()
            .post(format!("{origin}/v1/messages?beta=true"))
            .bearer_auth(env("ANTHROPIC_AUTH_TOKEN"))
            .header("x-claude-code-session-id", "s-1")
            .header("x-claude-code-request-class", "main")
            .body(body.to_string())
            .timeout(PATIENCE)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        answer.text().await.unwrap();
        status
    })
}

/// Runs a status line's command as the client does.
fn status_line(stage: &Stage, command: &str, report: &Value) -> String {
    let mut child = stage
        .command("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(report.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    out(&output)
}

#[test]
fn a_session_has_a_status_line_that_knows_its_last_turn() {
    let mut stage = Stage::new("chat");
    let (_, settings) = waiting_client(&mut stage);
    let mut session = stage
        .command(env!("CARGO_BIN_EXE_ccx"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let overlay: Value = until("the session's settings", || {
        serde_json::from_slice(&fs::read(&settings).ok()?).ok()
    });
    assert_eq!(overlay["statusLine"]["type"], "command");
    let command = overlay["statusLine"]["command"]
        .as_str()
        .unwrap()
        .to_owned();
    let report = json!({"session_id": "s-1", "model": {"id": "gpt-6.1-sol"}});

    // Asked at the start, so that there is something to show before the first turn.
    let known = || gauges::load(&places(&stage));
    until("what is left", || {
        known().accounts.values().next()?.quota.clone()
    });
    assert_eq!(asked(&stage, USAGE), 1);
    let line = status_line(&stage, &command, &report);
    assert!(
        line.starts_with("test@example.com · pro · 5h 88% (2h "),
        "{line}"
    );
    assert!(line.ends_with(" · gpt-6.1-sol\n"), "{line}");
    assert!(
        run(&stage, &["status"], 0)
            .0
            .contains("one session runs, with a proxy of its own")
    );
    let (_, notes) = run(&stage, &["accounts", "verify", "test"], 0);
    assert_eq!(notes, "");

    let long = "say it again ".repeat(400);
    assert_eq!(turn(&overlay, &long), 200);
    let first = until("the first turn", || known().sessions.get("s-1").cloned());
    assert_eq!(turn(&overlay, &long), 200);
    let cached = until("the second turn", || {
        let turn = known().sessions.get("s-1").cloned()?;
        (turn.cached_tokens > first.cached_tokens).then(|| turn.cache_percent().unwrap())
    });
    let line = status_line(&stage, &command, &report);
    assert!(
        line.contains(&format!(" · cache {cached}% · gpt-6.1-sol")),
        "{line}"
    );
    assert!(line.chars().count() <= 81, "{line}");
    // With a command of the user's own above it, which sees the same report.
    let own = format!("{command} --with 'sed s/.*s-1.*/mine/'");
    assert_eq!(status_line(&stage, &own, &report), format!("mine\n{line}"));
    let broken = format!("{command} --with 'exit 7'");
    assert_eq!(status_line(&stage, &broken, &report), line);

    let (text, _) = run(&stage, &["accounts"], 0);
    assert!(text.contains(" ago") || text.contains("just now"), "{text}");
    // Forgotten under a running session.
    let (_, notes) = run(&stage, &["logout", "test"], 0);
    assert!(notes.contains("A session is still running"), "{notes}");
    assert_eq!(status_line(&stage, &command, &report), "ccx: no account\n");
    drop(session.stdin.take());
    assert!(session.wait().unwrap().success());
    let mode = fs::metadata(places(&stage).state.join("quota.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn who_has_a_status_line_keeps_it() {
    let mut stage = Stage::new("chat");
    let (_, settings) = waiting_client(&mut stage);
    let theirs = r#"{"statusLine":{"type":"command","command":"echo theirs"}}"#;
    fs::create_dir_all(stage.path("work/.claude")).unwrap();
    for file in [
        "home/.claude/settings.json",
        "work/.claude/settings.json",
        "work/.claude/settings.local.json",
    ] {
        fs::write(stage.path(file), theirs).unwrap();
        assert!(stage.ccx(&[]).status.success());
        let overlay: Value = serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap();
        assert_eq!(overlay.get("statusLine"), None, "{file}");
        fs::remove_file(stage.path(file)).unwrap();
    }
    assert!(stage.ccx(&["--settings", theirs]).status.success());
    let overlay: Value = serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap();
    assert_eq!(overlay["statusLine"]["command"], "echo theirs");
}

#[test]
fn a_limit_that_is_reached_shows_everywhere() {
    let mut stage = Stage::new("usage-limit");
    let (_, settings) = waiting_client(&mut stage);
    let mut session = stage
        .command(env!("CARGO_BIN_EXE_ccx"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let overlay: Value = until("the session's settings", || {
        serde_json::from_slice(&fs::read(&settings).ok()?).ok()
    });
    // The limits are the same minute's news: the refusal's headers come after the usage endpoint's answer.
    let known = || -> Readings { gauges::load(&places(&stage)) };
    until("what is left", || {
        known().accounts.values().next()?.quota.clone()
    });
    assert_eq!(turn(&overlay, "hi"), 429);
    until("the refusal", || {
        known().accounts.values().next()?.last_error.clone()
    });
    drop(session.stdin.take());
    assert!(session.wait().unwrap().success());
    // An hour, or a second less.
    let status = run(&stage, &["status"], 0).0.replace("in 1h", "in 59m");
    let text = status.replace("for 1h", "for 59m");
    assert!(
        text.contains("\nstate      the plan's limit is reached, for 59m"),
        "{text}"
    );
    assert!(
        text.contains("\n5 h        ░░░░░░░░░░░░░░░░░░░░░░░░   0% left, resets in 59m"),
        "{text}"
    );
    assert!(
        text.contains("\n7 d        "),
        "what the refusal did not name stays: {text}"
    );
    assert!(text.contains("\nlast error "), "{text}");
    assert!(run(&stage, &["accounts"], 0).0.contains("  limit, "));
    let told = json_of(&stage, &["accounts", "--json"]);
    assert_eq!(told["accounts"][0]["state"], "limited");
    assert_eq!(told["accounts"][0]["last_error"]["status"], 429);
}

#[test]
fn limits_told_within_a_stream_are_noted() {
    let mut stage = Stage::new("noise");
    let (_, settings) = waiting_client(&mut stage);
    let mut session = stage
        .command(env!("CARGO_BIN_EXE_ccx"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let overlay: Value = until("the session's settings", || {
        serde_json::from_slice(&fs::read(&settings).ok()?).ok()
    });
    // The answer of the usage endpoint comes first, or it would be the newer one.
    let known = || gauges::load(&places(&stage));
    until("what is left", || {
        known().accounts.values().next()?.quota.clone()
    });
    assert_eq!(turn(&overlay, "hi"), 200);
    drop(session.stdin.take());
    assert!(session.wait().unwrap().success());
    let known = gauges::load(&places(&stage));
    let quota = known
        .accounts
        .values()
        .next()
        .unwrap()
        .quota
        .clone()
        .unwrap();
    // The headers name another moment; the event came behind them.
    assert_eq!(
        quota.windows[0].resets_at,
        Some(ccx::time::UnixSeconds(1_795_010_000))
    );
}

#[test]
fn a_status_line_is_there_at_once_and_without_anything() {
    let stage = Stage::new("chat");
    let line = |command: &mut Command| {
        let output = command.arg("statusline").output().unwrap();
        assert!(output.status.success());
        out(&output)
    };
    let ccx = env!("CARGO_BIN_EXE_ccx");
    assert_eq!(line(&mut stage.command(ccx)), "test@example.com · pro\n");
    assert_eq!(
        line(stage.command(ccx).env("LC_ALL", "C")),
        "test@example.com | pro\n"
    );
    // Neither a place that is not there nor a damaged store is made, moved or complained about.
    let nowhere = stage.path("nowhere");
    assert_eq!(
        line(stage.command(ccx).env("CCX_HOME", &nowhere)),
        "ccx: no account\n"
    );
    assert!(!nowhere.exists());
    let file = places(&stage).state.join("accounts.json");
    fs::write(&file, "{").unwrap();
    fs::write(places(&stage).state.join("quota.json"), "{").unwrap();
    assert_eq!(line(&mut stage.command(ccx)), "ccx: no account\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{");
    assert_eq!(stage.backend.requests().len(), 0);
}
