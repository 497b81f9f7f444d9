//! Words on the command line, and which program is the client.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;

use crate::bed::{Terminal, Way, client, processes};
use crate::support::stage::Stage;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn program(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Sets a variable of `stage`.
fn set(stage: &mut Stage, name: &str, value: &str) {
    stage.environment.retain(|(known, _)| known != name);
    stage.environment.push((name.to_owned(), value.to_owned()));
}

/// A stage whose only `claude` is what the test puts there.
fn bare() -> Stage {
    let mut stage = Stage::new("chat");
    stage.environment.retain(|(name, _)| name != "CCX_CLAUDE");
    let path = format!("{}:/usr/bin:/bin", stage.path("bin").display());
    set(&mut stage, "PATH", &path);
    stage
}

#[test]
fn t21_a_client_that_cannot_be_started_is_told_in_one_line_with_its_path() {
    let stage = bare();
    let claude = stage.path("bin/claude");
    let settings = stage.settings();
    fs::write(&settings, "{}").unwrap();
    let output = stage.ccx(&["-p", "x"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.starts_with("error: claude was not found; looked in "),
        "{said}"
    );
    assert!(said.contains(stage.path("bin").to_str().unwrap()), "{said}");
    assert!(
        said.contains("npm install -g @anthropic-ai/claude-code"),
        "{said}"
    );
    for (text, mode, code, told) in [
        ("#!/bin/sh\n", 0o644, 126, "it is not an executable file"),
        (
            "#!/no/such/thing\n",
            0o755,
            126,
            "its interpreter /no/such/thing was not found",
        ),
        (
            "#!/usr/bin/env no-such-node\n",
            0o755,
            126,
            "its interpreter no-such-node was not found",
        ),
    ] {
        program(&claude, text, mode);
        let output = stage.ccx(&["-p", "x"]);
        assert_eq!(output.status.code(), Some(code), "{text:?} {output:?}");
        let said = stderr(&output);
        let first = said.lines().next().unwrap();
        let path = claude.to_str().unwrap();
        assert!(
            first.starts_with("error: could not start ") && first.contains(path),
            "{said}"
        );
        assert!(said.contains(told), "{said}");
        assert_eq!(stdout(&output), "");
        for way in Way::BOTH {
            let (found, shown) = Terminal::ccx(&stage, way, &[]).end_as_before();
            assert_eq!(found, u32::try_from(code).unwrap(), "{way:?} {shown}");
            assert!(shown.contains("error: could not start "), "{way:?} {shown}");
        }
    }
    assert_eq!(fs::read_to_string(&settings).unwrap(), "{}");
}

#[test]
fn t22_places_are_tried_in_order_and_ccx_itself_never() {
    let mut stage = bare();
    let found = |stage: &Stage| stdout(&stage.ccx(&["-p", "x"]));
    // From the last place to the first.
    for place in [
        "home/.npm-global/bin",
        "home/.claude/local",
        "home/.local/bin",
        "bin",
    ] {
        let text = format!("#!/bin/sh\nprintf '{place}'\n");
        program(&stage.path(place).join("claude"), &text, 0o755);
        assert_eq!(found(&stage), place);
    }
    let other = stage.path("other/my client");
    program(&other, "#!/bin/sh\nprintf explicit\n", 0o755);
    set(&mut stage, "CCX_CLAUDE", other.to_str().unwrap());
    assert_eq!(found(&stage), "explicit");
    stage.environment.retain(|(name, _)| name != "CCX_CLAUDE");
    // A link to ccx, and a copy of a link.
    fs::remove_file(stage.path("bin/claude")).unwrap();
    symlink(CCX, stage.path("bin/really")).unwrap();
    symlink(stage.path("bin/really"), stage.path("bin/claude")).unwrap();
    assert_eq!(found(&stage), "home/.local/bin");
}

#[test]
fn t22_scripts_that_come_back_to_ccx_are_stepped_over() {
    let mut stage = bare();
    let path = format!(
        "{}:{}:{}:/usr/bin:/bin",
        stage.path("a").display(),
        stage.path("b").display(),
        stage.path("c").display()
    );
    set(&mut stage, "PATH", &path);
    let back = format!("#!/bin/sh\necho \"$0\" >>\"$HOME/tried\"\n'{CCX}' \"$@\"\n");
    for place in ["a", "b"] {
        program(&stage.path(place).join("claude"), &back, 0o755);
    }
    // None but them: each is tried once, and that is told.
    let output = stage.ccx(&["-p", "x"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let tried = fs::read_to_string(stage.path("home/tried")).unwrap();
    assert_eq!(tried.lines().count(), 2, "{tried}");
    program(
        &stage.path("c").join("claude"),
        "#!/bin/sh\nprintf 'real %s' \"$2\"\n",
        0o755,
    );
    let output = stage.ccx(&["mcp", "list"]);
    assert_eq!(stdout(&output), "real list", "{output:?}");
}

#[test]
fn t23_own_words_count_only_as_the_first() {
    let mut stage = Stage::new("chat");
    client(
        &mut stage,
        "case $1 in --settings) shift 2;; esac; for word; do printf '<%s>' \"$word\"; done",
    );
    // Words that are the client's own stay its own.
    for word in [
        "logs", "stop", "update", "auth", "import", "install", "gateway", "mcp", "agents",
    ] {
        assert_eq!(
            stdout(&stage.ccx(&[word, "login"])),
            format!("<{word}><login>")
        );
    }
    for (words, given) in [
        (&["-p", "login"][..], "<-p><login>"),
        (&["-p", "--help"], "<-p><--help>"),
        (&["--", "doctor"], "<doctor>"),
        (&["--", "--help"], "<--help>"),
        (&["--", "--version"], "<--version>"),
        (&["--", "login", "--", "x"], "<login><--><x>"),
        (&["--ccx-no-pty", "--", "--ccx-no-pty"], "<--ccx-no-pty>"),
        (&["-p", "--ccx-no-pty"], "<-p><--ccx-no-pty>"),
        (&["-p", "x", "--account", "test@example.com"], "<-p><x>"),
        (&["-p", "--account=test@example.com", "x"], "<-p><x>"),
        (&["-p", "--", "--account", "y"], "<-p><--><--account><y>"),
        (&["", "login"], "<><login>"),
    ] {
        let output = stage.ccx(words);
        assert_eq!(stdout(&output), given, "{words:?} {output:?}");
    }
    for word in [
        "login",
        "logout",
        "accounts",
        "use",
        "status",
        "models",
        "quota",
        "config",
        "doctor",
        "restore",
        "daemon",
        "start",
        "dashboard",
        "demo",
        "completions",
        "statusline",
        "help",
        "--help",
        "-h",
        "--version",
        "-V",
    ] {
        let output = stage.ccx(&[word, "--no-such-flag-anywhere"]);
        assert!(
            !stdout(&output).contains('<'),
            "{word} went to the client: {output:?}"
        );
    }
    for (words, last) in [
        (&["--help"][..], "`ccx -- doctor`"),
        (&["doctor", "--help"], "`ccx -- doctor`"),
    ] {
        let output = stdout(&stage.ccx(words));
        assert!(
            output.trim_end().lines().last().unwrap().contains(last),
            "{output}"
        );
    }
}

#[test]
fn t24_what_is_added_stands_first_and_settings_are_merged() {
    let mut stage = Stage::new("chat");
    client(
        &mut stage,
        "printf '%s\\n' \"$1\" \"$3\" \"$4\" \"$5\"; cat \"$2\"",
    );
    let file = stage.path("work/mine.json");
    let mine = r#"{"env":{"ANTHROPIC_BASE_URL":"http://elsewhere","MINE":"1"},"own":[1]}"#;
    fs::write(&file, mine).unwrap();
    let path = file.to_str().unwrap();
    let joined = format!("--settings={path}");
    for words in [
        &["--settings", mine, "-p"][..],
        &["--settings", path, "-p"],
        &["-p", &joined],
        &["--settings", "{\"own\":2}", "-p", "--settings", path],
    ] {
        let told = stdout(&stage.ccx(words));
        let (first, json) = told.split_once('{').unwrap();
        let given: Vec<&str> = first.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(given, ["--settings", "-p"], "{words:?}");
        let merged: serde_json::Value = serde_json::from_str(&format!("{{{json}")).unwrap();
        assert_eq!(merged["own"], serde_json::json!([1]), "{words:?}");
        assert_eq!(merged["env"]["MINE"], "1");
        let url = merged["env"]["ANTHROPIC_BASE_URL"].as_str().unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    }
    // What cannot be read is the client's to complain about, in its own words.
    client(&mut stage, "echo \"no good: $1 $2\" >&2; exit 1");
    for value in ["/no/such/file", "{broken}"] {
        let output = stage.ccx(&["--settings", value, "-p"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stderr(&output), format!("no good: --settings {value}\n"));
    }
}

#[test]
fn t25_the_secret_is_in_no_argument_list() {
    let mut stage = Stage::new("chat");
    client(
        &mut stage,
        "printf 'secret=%s.' \"$ANTHROPIC_AUTH_TOKEN\"; stat -c '%a' \"$2\"; echo over; read line; exit 0",
    );
    for way in Way::BOTH {
        let mut terminal = Terminal::ccx(&stage, way, &["-c"]);
        let text = terminal.until_text("over");
        let (secret, rest) = text.trim_start_matches("secret=").split_once('.').unwrap();
        assert!(secret.len() >= 32, "{secret}");
        assert!(rest.starts_with("600"), "{rest}");
        assert!(!processes(&["client", "--settings"]).is_empty());
        assert_eq!(processes(&[secret]), [""; 0], "{way:?}");
        terminal.press(b"\n");
        assert_eq!(terminal.end_as_before().0, 0);
    }
}

#[test]
fn t26_ccx_inside_ccx_has_its_own_session() {
    let mut stage = Stage::new("chat");
    // The variables that Claude Code gives its tools have none of the guard. Three deep: each says where it is, then starts the next.
    client(
        &mut stage,
        &format!(
            "echo \"$DEEP $ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN\"; [ \"$DEEP\" = xxx ] && exit 7; \
             DEEP=x$DEEP CCX_GUARD= '{CCX}' -p; code=$?; echo \"$DEEP $ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN\"; exit $code"
        ),
    );
    let output = stage.ccx(&["-p"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let told = stdout(&output);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 7, "{told}");
    for (begin, end) in [(0, 6), (1, 5), (2, 4)] {
        assert_eq!(
            lines[begin], lines[end],
            "the outer one's values are left alone"
        );
    }
    let mut urls: Vec<&str> = lines[..4]
        .iter()
        .map(|line| line.rsplit(' ').nth(1).unwrap())
        .collect();
    urls.sort_unstable();
    urls.dedup();
    assert_eq!(urls.len(), 4, "{told}");
    for way in Way::BOTH {
        assert_eq!(
            Terminal::ccx(&stage, way, &["-c"]).end_as_before().0,
            7,
            "{way:?}"
        );
    }
}
