//! What the client starts with: words, environment, directory, descriptors, signals, limits.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::{Command, Stdio};

use crate::bed::{BEGIN, Terminal, Way, client, piped};
use crate::parts::masks;
use crate::support::stage::Stage;

const WHAT_IT_GOT: &str =
    "for word; do printf '%s\\0' \"$word\"; done; printf '\\036'; pwd; printf '\\036'; env -0";

fn odd() -> OsString {
    OsString::from_vec(b"\xff\xfe".to_vec())
}

fn odd_arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = [
        "",
        "two words",
        "a\nb",
        "--settings",
        "--",
        "*$HOME'\"",
        "\u{1b}[c",
    ]
    .map(OsString::from)
    .to_vec();
    arguments.push(odd());
    arguments
}

#[test]
fn t01_arguments_environment_and_directory_are_unchanged() {
    let arguments = odd_arguments();
    let mut words: Vec<&OsStr> = ["/bin/sh", "-c", WHAT_IT_GOT, "name"]
        .map(OsStr::new)
        .to_vec();
    words.extend(arguments.iter().map(OsString::as_os_str));
    let directory = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| {
        let output = command
            .current_dir(directory.path())
            .env_remove("SHELL")
            .env_remove("OLDPWD")
            .env("CCX_REMOVED", "1")
            .env("ODD", odd())
            .env("EMPTY", "")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let through = run(&mut piped(&words));
    let parts: Vec<&[u8]> = Terminal::shown(&through)
        .split(|byte| *byte == BEGIN)
        .collect();
    let mut expected = Vec::new();
    for argument in &arguments {
        expected.extend_from_slice(argument.as_bytes());
        expected.push(0);
    }
    assert_eq!(parts[0], expected);
    let native = run(Command::new(words[0]).args(&words[1..]));
    let native: Vec<&[u8]> = native.split(|byte| *byte == BEGIN).collect();
    assert_eq!(parts[1], native[1], "working directory");
    let variables = |text: &[u8]| -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = text
            .split(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
            .filter(|entry| !entry.starts_with(b"CCX_REMOVED="))
            .collect();
        all.sort();
        all
    };
    let mut wanted = variables(native[2]);
    wanted.push(b"CCX_ADDED=yes".to_vec());
    wanted.sort();
    assert_eq!(variables(parts[2]), wanted);
}

/// The real ccx, in a terminal both ways and without one.
#[test]
fn t01_the_real_ccx_changes_its_own_variables_only() {
    let mut stage = Stage::new("chat");
    let told = stage.path("work/told");
    let text = format!("{{ {WHAT_IT_GOT}; }} >'{}'", told.display());
    client(&mut stage, &text);
    for (name, value) in [
        ("TERM", "dumb"),
        ("COLORTERM", "truecolor"),
        ("TERM_PROGRAM", "vscode"),
        ("TMUX", "/tmp/tmux-0/default,1,0"),
        ("SSH_TTY", "/dev/pts/9"),
        ("VSCODE_PID", "7"),
        ("EMPTY", ""),
    ] {
        stage.environment.push((name.to_owned(), value.to_owned()));
    }
    let read = || {
        let all = fs::read(&told).unwrap();
        let parts: Vec<Vec<u8>> = all
            .split(|byte| *byte == BEGIN)
            .map(<[u8]>::to_vec)
            .collect();
        let variables: BTreeSet<String> = parts[2]
            .split(|byte| *byte == 0)
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .collect();
        (parts[0].clone(), parts[1].clone(), variables)
    };
    let program = stage.path("work/client");
    let native = stage
        .command(program)
        .args(["-p", "a b", ""])
        .status()
        .unwrap();
    assert!(native.success());
    let (arguments, directory, variables) = read();
    assert_eq!(arguments, b"-p\0a b\0\0");
    for way in [None, Some(Way::Pty), Some(Way::Plain)] {
        fs::remove_file(&told).unwrap();
        let words = ["-p", "a b", ""];
        match way {
            None => assert!(stage.ccx(&words).status.success()),
            Some(way) => assert_eq!(Terminal::ccx(&stage, way, &words).end_as_before().0, 0),
        }
        let (given, found, through) = read();
        let given = String::from_utf8(given).unwrap();
        let given: Vec<&str> = given.split_terminator('\0').collect();
        assert_eq!(given[0], "--settings", "{way:?}");
        assert_eq!(given[2..], words, "{way:?}");
        assert_eq!(found, directory, "{way:?}");
        let changed: Vec<&str> = through
            .symmetric_difference(&variables)
            .map(|entry| entry.split('=').next().unwrap())
            .filter(|name| !name.starts_with("ANTHROPIC_") && !name.starts_with("CCX_"))
            .collect();
        assert_eq!(changed, [""; 0], "{way:?}");
    }
}

#[test]
fn t02_the_client_has_a_terminal_and_its_foreground() {
    for way in Way::BOTH {
        let mut terminal = Terminal::playing(way, "look");
        let text = terminal.until_text("descriptors");
        assert!(
            text.contains("terminals [true, true, true] foreground true tty true"),
            "{way:?} {text}"
        );
        assert_eq!(terminal.end_as_before().0, 0);
    }
}

#[test]
fn t03_the_client_has_no_other_descriptors_or_signals() {
    for way in Way::BOTH {
        let mut terminal = Terminal::playing(way, "look");
        // 0 to 2 and the one that counts.
        let text = terminal.until_text(" descriptors 4.\r");
        // The same as in this process, which is the same program.
        let expected = format!("masks {:?}", masks());
        assert!(text.contains(&expected), "{way:?} {text}, not {expected}");
        assert_eq!(terminal.end_as_before().0, 0);
    }
}

const FDS: &str = "cd /proc/$$/fd; echo *; cd - >/dev/null";

/// The real ccx has locks, a log, a listener and connections; and what it was given goes through.
#[test]
fn t03_descriptors_umask_limits_and_niceness_are_inherited() {
    let mut stage = Stage::new("chat");
    client(
        &mut stage,
        // With nothing but the shell itself: a child that it starts shows for a moment in its mask and descriptors.
        &format!(
            "while read name value; do case $name in SigBlk:|SigIgn:) echo $name $value;; esac; done </proc/$$/status; \
             umask; ulimit -n; ulimit -c; {FDS}; nice; cat <&7"
        ),
    );
    fs::write(stage.path("work/seven"), "through seven").unwrap();
    let run = |program: &OsStr, words: &[&str]| {
        let wrapper =
            "umask 027; ulimit -n 333; ulimit -c 0; exec 7<seven; exec nice -n 3 \"$0\" \"$@\"";
        let output = stage
            .command("/bin/sh")
            .args(["-c", wrapper])
            .arg(program)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let native = run(stage.path("work/client").as_os_str(), &["-p"]);
    assert!(native.contains("through seven"), "{native}");
    let through = run(OsStr::new(env!("CARGO_BIN_EXE_ccx")), &["-p"]);
    assert_eq!(through, native);
    // In a terminal of its own it has the descriptors that it has natively.
    let fds = |text: &str| text.lines().last().unwrap().to_owned();
    client(&mut stage, FDS);
    let (_, native) = Terminal::sh(&stage, &["-c", "exec ./client"]).end_as_before();
    let native = fds(&native);
    for way in Way::BOTH {
        let (code, shown) = Terminal::ccx(&stage, way, &["-c"]).end_as_before();
        assert_eq!((code, fds(&shown)), (0, native.clone()), "{way:?}");
    }
}
