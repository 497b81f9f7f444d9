//! `config.toml` as commands and launches take it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::ffi::OsString;
use std::fs;
use std::process::Output;

use ccx::cli::args::{self, Words};
use ccx::config::{Config, KEYS, Overrides, Scope};
use serde_json::Value;
use support::stage::Stage;
use support::stand_in;

#[test]
fn the_client() {
    stand_in::play();
}

fn stage() -> Stage {
    let mut stage = Stage::new("chat");
    let client = stand_in::script(&stage.path("work"), "the_client");
    let client = client.to_str().unwrap().to_owned();
    stage.environment.push(("CCX_CLAUDE".to_owned(), client));
    // A keychain of whoever runs this test is not ours to write: there is none.
    let nowhere = "unix:path=/nonexistent/bus".to_owned();
    stage
        .environment
        .push(("DBUS_SESSION_BUS_ADDRESS".to_owned(), nowhere));
    stage
}

fn write(stage: &Stage, config: &str) {
    fs::create_dir_all(stage.path("ccx/config")).unwrap();
    fs::write(stage.path("ccx/config/config.toml"), config).unwrap();
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_mistake_ends_a_launch_with_its_line() {
    // [B16]
    let stage = stage();
    for (config, told) in [
        (
            "secrets = \"file\"\n\nstategy = \"sticky\"\n",
            "cause: line 3: unknown key `stategy`; the keys are ",
        ),
        (
            "failover = 1",
            "cause: line 1: `failover` must be \"on\" or \"off\"",
        ),
        ("secrets = \"fi", "cause: line 1: "),
    ] {
        write(&stage, config);
        for words in [
            &["-p", "hello there"][..],
            &["status"],
            &["login", "--import"],
        ] {
            let output = stage.ccx(words);
            assert_eq!(output.status.code(), Some(4), "{words:?}: {output:?}");
            let said = stderr(&output);
            let first = format!(
                "error: could not read {}\n",
                stage.path("ccx/config/config.toml").display()
            );
            assert!(said.starts_with(&first), "{said}");
            assert!(said.contains(told), "{said}");
            assert!(said.contains("\nhint:  "), "{said}");
            assert_eq!(stdout(&output), "");
        }
        for words in ["--help", "--version"] {
            assert!(stage.ccx(&[words]).status.success());
        }
    }
    assert!(stage.backend.asked_by("test").is_empty());
}

#[test]
fn families_are_the_persons() {
    let stage = stage();
    write(
        &stage,
        "[families]\nopus = [\"gpt-none\", \"gpt-6-astra\"]\n",
    );
    let output = stage.ccx(&["status", "--json"]);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["models"]["opus"], "gpt-6-astra", "{told}");

    let output = stage.ccx(&["-p", "x"]);
    assert!(stdout(&output).contains("answer 200: "), "{output:?}");
    let asked = stage.backend.requests();
    let models: Vec<&Value> = asked
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| &seen.body["model"])
        .collect();
    assert_eq!(models, ["gpt-6-astra"]);
}

#[test]
fn without_a_keychain_the_launch_says_so_in_one_line_and_goes_on() {
    let stage = stage();
    write(&stage, "secrets = \"keychain\"\n");
    for _ in 0..2 {
        let output = stage.ccx(&["-p", "x"]);
        assert!(output.status.success(), "{output:?}");
        assert!(stdout(&output).contains("answer 200: "), "{output:?}");
        let said = stderr(&output);
        let ours: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("ccx:"))
            .collect();
        assert_eq!(
            ours,
            ["ccx: tokens are kept in the account store: this session has no keychain"],
            "{said}"
        );
    }
    write(&stage, "");
    let output = stage.ccx(&["-p", "x"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!stderr(&output).contains("ccx:"), "{output:?}");
    let store = fs::read_to_string(stage.path("ccx/state/accounts.json")).unwrap();
    assert!(!store.contains("\"secrets\""), "{store}");
}

#[test]
fn a_launch_sets_keys_for_itself() {
    let stage = stage();
    let output = stage.ccx(&["--ccx-strategy", "sticky", "--ccx-failover=off", "-p", "x"]);
    assert!(output.status.success(), "{output:?}");
    let output = stage.ccx(&["--ccx-strategy", "lucky", "-p", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).starts_with("error: --ccx-strategy must be \"sticky\", "),
        "{output:?}"
    );
}

/// The requests for an answer that a launch with `words` made.
fn asked(stage: &Stage, words: &[&str]) -> Vec<ccx::simulate::record::Seen> {
    let before = stage.backend.requests().len();
    let output = stage.ccx(&[words, &["-p", "x"]].concat());
    assert!(stdout(&output).contains("answer 200: "), "{output:?}");
    let mut asked = stage.backend.requests();
    let asked = asked.drain(before..).filter(|seen| seen.is_response());
    asked.collect()
}

#[test]
fn the_knobs_of_models_reach_upstream() {
    // [D33] The stand-in asks for opus.
    let stage = stage();
    for (config, words, body, hint) in [
        ("", &[][..], [Value::Null, "low".into(), "low".into()], ""),
        (
            "tier = \"fast\"\neffort = \"high\"\n",
            &[],
            ["priority".into(), "high".into(), "low".into()],
            ";tier=priority",
        ),
        (
            "tier = \"fast\"\n[models.opus]\nverbosity = \"medium\"\n",
            &["--ccx-tier", "standard", "--ccx-effort=max"],
            [Value::Null, "max".into(), "medium".into()],
            "",
        ),
    ] {
        write(&stage, config);
        let seen = asked(&stage, words);
        let seen = seen.last().unwrap();
        let found = [
            &seen.body["service_tier"],
            &seen.body["reasoning"]["effort"],
            &seen.body["text"]["verbosity"],
        ];
        assert_eq!(found, body.each_ref(), "{config} {words:?}");
        let said = seen.header("x-codex-routing-hint").unwrap();
        let model = seen.body["model"].as_str().unwrap();
        assert_eq!(said, format!("model={model}{hint}"), "{config}");
    }
}

#[test]
fn the_full_lane_is_had_by_asking() {
    let stage = stage();
    let is_lite = |seen: &ccx::simulate::record::Seen| {
        seen.header("x-openai-internal-codex-responses-lite")
            .is_some()
    };
    assert!(asked(&stage, &[]).iter().all(is_lite));
    let full = asked(&stage, &["--ccx-lane", "full"]);
    assert!(!full.is_empty() && !full.iter().any(is_lite));
    write(
        &stage,
        "lane = \"full\"\n[models.opus]\nlane = \"auto\"\n[models.gpt-none]\ntier = \"fast\"\n",
    );
    assert!(asked(&stage, &[]).iter().all(is_lite));

    let output = stage.ccx(&["status", "--json"]);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["knobs"]["opus"], serde_json::json!({}), "{told}");
    assert_eq!(told["knobs"]["sonnet"]["lane"], "full", "{told}");
    assert_eq!(told["settings"]["strategy"], "sticky", "{told}");
    let shown = stdout(&stage.ccx(&["status"]));
    assert!(
        shown.contains("\nhaiku      gpt-6-luna, lane full (not served)\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\nunknown    gpt-none: has settings"),
        "{shown}"
    );
}

/// The cells of the page's table of keys.
fn rows(page: &str) -> Vec<Vec<&str>> {
    page.lines()
        .skip_while(|line| !line.starts_with("| key "))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// What stands in the page's blocks of this language.
fn samples<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let mut parts = page.split("```");
    let mut found = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        found.extend(block.strip_prefix(language).map(str::trim));
    }
    found
}

#[test]
fn the_page_tells_every_key_as_it_is() {
    let page = include_str!("../docs/config.md");
    let rows = rows(page);
    assert!(rows.iter().all(|row| row.len() == 5), "{rows:?}");
    let told: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(told, known);
    let sections: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| known.contains(title))
        .collect();
    assert_eq!(sections, known, "a section for each, in the same order");
    for (key, row) in KEYS.iter().zip(rows) {
        let [_, values, default, launch, model] = row[..] else {
            panic!("{row:?}");
        };
        assert_eq!(model == "yes", key.is_of_models(), "{}", key.name);
        let flag = match key.scope {
            Scope::Launch => format!("`--ccx-{}`", key.name),
            Scope::File => String::new(),
        };
        assert_eq!(launch, flag, "{}", key.name);
        let shown = key.shown(&Config::default());
        let shown = shown.map_or_else(String::new, |word| format!("`{word}`"));
        assert_eq!(default, shown, "{}", key.name);
        // Every word that the page names is taken, and every word that a message names is in the page.
        for word in values.split(", ").filter(|word| word.starts_with('`')) {
            let text = format!("{} = \"{}\"", key.name, word.trim_matches('`'));
            assert!(Config::parse(&text).is_ok(), "{text}");
        }
        for word in key.wanted.split('"').skip(1).step_by(2) {
            assert!(
                values.contains(&format!("`{word}`")),
                "{}: {word}",
                key.name
            );
        }
    }
}

#[test]
fn the_pages_samples_are_understood() {
    let page = include_str!("../docs/config.md");
    let files = samples(page, "toml");
    assert!(files.len() >= 2, "{files:?}");
    for sample in files {
        let read = Config::parse(sample);
        assert!(
            read.is_ok_and(|config| config != Config::default()),
            "{sample}"
        );
    }
    let lines = samples(page, "sh");
    assert!(!lines.is_empty());
    let launches = lines.iter().flat_map(|block| block.lines());
    for line in launches {
        let words = line.strip_prefix("ccx ").unwrap().split(' ');
        let words: Vec<OsString> = words.map(OsString::from).collect();
        match args::parse(&words) {
            Ok(Words::Launch(launch)) => {
                assert_ne!(launch.overrides, Overrides::default(), "{line}")
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}
