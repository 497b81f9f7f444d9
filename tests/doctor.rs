//! `ccx doctor`: nothing wrong where nothing is wrong, and each thing that may be wrong found and told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use ccx::account::record::{DeadReason, Death, Source};
use ccx::account::store::Store;
use ccx::files::places::Places;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};
use support::stage::Stage;

/// A stage with a client that says what `script` does.
fn stage(script: &str) -> Stage {
    let mut stage = Stage::new("chat");
    let path = stage.path("work/claude");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    stage.environment.retain(|(name, _)| name != "CCX_CLAUDE");
    stage.environment.push(("CCX_CLAUDE".to_owned(), path));
    stage
}

fn healthy() -> Stage {
    stage("echo '2.1.330 (Claude Code)'")
}

fn store(stage: &Stage) -> Store {
    Store::open(&Places::below(&stage.path("ccx"))).unwrap()
}

fn edit(stage: &Stage, change: impl FnOnce(&mut ccx::account::record::Record)) {
    let change = store(stage).change(|store| change(&mut store.accounts[0]));
    change.unwrap();
}

#[track_caller]
fn without_secrets(output: &Output) -> String {
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let err = String::from_utf8(output.stderr.clone()).unwrap();
    for text in [&out, &err] {
        for secret in ["rt_", "eyJ", "SECRET"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(err, "");
    out
}

/// Runs it both ways; returns what is wrong, as `about: words`.
#[track_caller]
fn findings(stage: &Stage, words: &[&str]) -> Vec<String> {
    let as_text = stage.ccx(&[&["doctor"], words].concat());
    let as_json = stage.ccx(&[&["doctor", "--json"], words].concat());
    let text = without_secrets(&as_text);
    let told: Value = serde_json::from_str(&without_secrets(&as_json)).unwrap();
    let checks = told["checks"].as_array().unwrap();
    let found: Vec<String> = checks
        .iter()
        .filter(|check| check["state"] == "finding")
        .map(|check| {
            format!(
                "{}: {}",
                check["about"].as_str().unwrap(),
                check["words"].as_str().unwrap()
            )
        })
        .collect();
    let code = i32::from(!found.is_empty());
    assert_eq!(as_text.status.code(), Some(code), "{text}");
    assert_eq!(as_json.status.code(), Some(code), "{told}");
    assert_eq!(told["findings"], found.len());
    assert_eq!(
        text.lines().filter(|line| line.starts_with("!!")).count(),
        found.len(),
        "{text}"
    );
    assert_eq!(
        text.lines().last(),
        Some("Claude Code's own doctor: `ccx -- doctor`")
    );
    found
}

#[track_caller]
fn assert_only(found: &[String], start: &str, part: &str) {
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(start), "{found:?}");
    assert!(found[0].contains(part), "{found:?}");
}

#[test]
fn nothing_is_wrong_with_a_working_ccx() {
    let stage = healthy();
    assert_eq!(findings(&stage, &[]), Vec::<String>::new());
    assert_eq!(findings(&stage, &["--online"]), Vec::<String>::new());
    let text = without_secrets(&stage.ccx(&["doctor"]));
    for part in [
        "2.1.330 (Claude Code), ",
        "test@example.com (pro): token good for ",
        ", renewed by the Codex CLI",
        "no two hold the same refresh token",
        "not asked without --online",
        "\nNothing is wrong.\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Asked for nothing but its name; without --online not even that.
    assert!(stage.backend.asked_by("test").is_empty());
}

#[test]
fn help_names_the_clients_doctor_last() {
    let stage = healthy();
    let help = String::from_utf8(stage.ccx(&["doctor", "--help"]).stdout).unwrap();
    assert_eq!(
        help.trim_end().lines().last(),
        Some("Claude Code's own doctor: `ccx -- doctor`")
    );
    let help = String::from_utf8(stage.ccx(&["--help"]).stdout).unwrap();
    assert!(help.trim_end().ends_with("`ccx -- doctor`"), "{help}");
}

#[test]
fn an_empty_home_is_told_and_stays_empty() {
    let stage = healthy();
    fs::remove_dir_all(stage.path("ccx")).unwrap();
    assert_only(
        &findings(&stage, &[]),
        "accounts: ",
        "no ChatGPT account is signed in",
    );
    assert!(!stage.path("ccx").exists());
}

#[test]
fn a_client_that_is_not_there_or_does_not_run_is_found() {
    assert_only(
        &findings(&stage("echo hello"), &[]),
        "client: ",
        "does not say its version",
    );
    assert_only(
        &findings(&stage("exit 7"), &[]),
        "client: ",
        "does not say its version",
    );
    let stage = healthy();
    fs::remove_file(stage.path("work/claude")).unwrap();
    assert_only(&findings(&stage, &[]), "client: ", "is not there");
}

#[test]
fn a_config_that_is_not_understood_is_found_with_its_line() {
    let stage = healthy();
    fs::create_dir_all(stage.path("ccx/config")).unwrap();
    fs::write(stage.path("ccx/config/config.toml"), "\nsecret = 1\n").unwrap();
    assert_only(
        &findings(&stage, &[]),
        "config: ",
        "line 2: unknown key `secret`",
    );
}

#[test]
fn files_that_others_can_read_are_found() {
    let stage = healthy();
    let store = stage.path("ccx/state/accounts.json");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o644)).unwrap();
    assert_only(
        &findings(&stage, &[]),
        "files: ",
        "accounts.json (mode 644)",
    );
}

#[test]
fn a_store_that_cannot_be_used_is_told_and_left_alone() {
    let stage = healthy();
    let path = stage.path("ccx/state/accounts.json");
    for (text, told) in [
        (
            "{\"version\": 1,\n \"accounts\": SECRET",
            "is damaged at line 2",
        ),
        ("{\"version\": 99}", "was written by a newer ccx"),
    ] {
        fs::write(&path, text).unwrap();
        assert_only(&findings(&stage, &[]), "accounts: ", told);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn accounts_that_cannot_be_used_are_found() {
    let stage = healthy();
    let name = "account: test@example.com (pro): ";
    edit(&stage, |record| {
        record.source = Source::Own;
        record.refresh_token = Some("rt_own".to_owned().into());
        record.dead = Some(Death {
            reason: DeadReason::Revoked,
            at: UnixSeconds(1),
        });
    });
    assert_only(&findings(&stage, &[]), name, "the sign-in was revoked");

    edit(&stage, |record| {
        record.dead = None;
        record.expires_at = Some(UnixSeconds(1));
    });
    assert_eq!(findings(&stage, &[]), Vec::<String>::new(), "it is renewed");
    edit(&stage, |record| record.refresh_token = None);
    assert_only(&findings(&stage, &[]), name, "not renewable");

    let file = stage.path("home/.codex/auth.json");
    edit(&stage, |record| {
        record.source = Source::CodexFile { path: file.clone() }
    });
    assert_eq!(
        findings(&stage, &[]),
        Vec::<String>::new(),
        "the file has a good one"
    );
    fs::rename(&file, stage.path("home/.codex/aside")).unwrap();
    assert_only(&findings(&stage, &[]), name, "there is no Codex login at ");
}

#[test]
fn a_refresh_token_that_two_hold_is_found() {
    let stage = healthy();
    let file = stage.path("home/.codex/auth.json");
    let auth: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let token = auth["tokens"]["refresh_token"].as_str().unwrap().to_owned();
    edit(&stage, |record| {
        record.source = Source::Own;
        record.refresh_token = Some(token.into());
    });
    assert_only(
        &findings(&stage, &[]),
        "tokens: test@example.com and the Codex login in ",
        "hold the same refresh token",
    );

    // Two accounts of ccx: one person in two workspaces, copied by hand.
    fs::remove_file(&file).unwrap();
    let copied = store(&stage).change(|store| {
        let mut copy = store.accounts[0].clone();
        copy.id = "a2".to_owned();
        copy.label = Some("team".to_owned());
        store.accounts.push(copy);
    });
    copied.unwrap();
    assert_only(
        &findings(&stage, &[]),
        "tokens: test@example.com and team ",
        "hold the same refresh token",
    );

    // Shared on purpose: the token is in one place only.
    fs::write(&file, auth.to_string()).unwrap();
    let store = store(&stage);
    store.remove("a2").unwrap();
    edit(&stage, |record| {
        record.source = Source::CodexShared {
            path: file.clone(),
            agreed_at: UnixSeconds(1),
        };
        record.refresh_token = None;
    });
    assert_eq!(findings(&stage, &[]), Vec::<String>::new());
}

#[test]
fn an_upstream_that_is_down_is_found_only_when_asked_for() {
    let mut stage = healthy();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    stage
        .environment
        .retain(|(name, _)| name != "CCX_UPSTREAM_URL");
    stage
        .environment
        .push(("CCX_UPSTREAM_URL".to_owned(), origin));
    assert_eq!(findings(&stage, &[]), Vec::<String>::new());
    assert_only(
        &findings(&stage, &["--online"]),
        "upstream: http://127.0.0.1:",
        "cannot be reached: ",
    );
}

#[test]
fn settings_that_lead_past_ccx_are_found() {
    let stage = healthy();
    let proxied = json!({"env": {"HTTPS_PROXY": "http://u:SECRET@proxy:1"}});
    fs::write(stage.settings(), proxied.to_string()).unwrap();
    assert_only(&findings(&stage, &[]), "settings: ", "sets a proxy");
}

#[test]
fn l10_what_a_killed_ccx_left_is_found_and_fixed() {
    let stage = healthy();
    let settings = json!({"env": {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1", "ANTHROPIC_AUTH_TOKEN": "ccx-lease-00", "A": "b",
    }});
    fs::write(stage.settings(), settings.to_string()).unwrap();
    fs::create_dir_all(stage.path("ccx/run")).unwrap();
    fs::write(stage.path("ccx/run/overlay-1.json"), "").unwrap();
    let store = stage.path("ccx/state/accounts.json");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o644)).unwrap();
    let found = findings(&stage, &[]);
    assert_eq!(found.len(), 3, "{found:?}");
    for part in ["lease: ", "leftovers: 1 ", "files: "] {
        assert!(
            found.iter().any(|told| told.starts_with(part)),
            "{part} {found:?}"
        );
    }
    let fixed = without_secrets(&stage.ccx(&["doctor", "--fix"]));
    assert!(
        fixed.contains("given back") && fixed.contains("Nothing is wrong."),
        "{fixed}"
    );
    assert_eq!(findings(&stage, &["--fix"]), Vec::<String>::new());
    assert_eq!(
        fs::read_to_string(stage.settings()).unwrap(),
        r#"{"env":{"A":"b"}}"#
    );
}

#[test]
fn b13_a_project_that_names_another_host_is_mentioned() {
    let stage = healthy();
    fs::create_dir_all(stage.path("work/.claude")).unwrap();
    let elsewhere = json!({"env": {"ANTHROPIC_BASE_URL": "https://else.where"}}).to_string();
    fs::write(stage.path("work/.claude/settings.local.json"), elsewhere).unwrap();
    assert_eq!(findings(&stage, &[]), Vec::<String>::new());
    let text = without_secrets(&stage.ccx(&["doctor"]));
    assert!(
        text.contains(
            "settings.local.json sets ANTHROPIC_BASE_URL: sessions of ccx do not follow it"
        ),
        "{text}"
    );
    for part in [
        "named by CCX_CLAUDE",
        "\nok lease ",
        "\nok terminal ",
        "\nok ports ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
