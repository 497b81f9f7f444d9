//! Whether a client that ccx did not start is running for this user: it would be drawn along by a change of the
//! settings file (contract supervision F3).
//!
//! Looks at the processes of this user, without any right of root. In doubt a process counts: then the file is left
//! alone, which harms nobody.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use sysinfo::{
    Pid, Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind,
};

use super::private;
use super::target::Target;

/// Words of a command line that are looked at: an interpreter, perhaps an option of its, and a script.
const WORDS: usize = 3;

/// Processes between a client and the ccx that started it. More than this is no launch.
const DEEPEST: usize = 32;

/// How often a process is looked at that does not tell its environment, and how long between.
const LOOKS: usize = 3;
const PAUSE: Duration = Duration::from_millis(2);

/// Says whether a client runs that reads `target` and was not started by a ccx.
pub fn is_foreign_running(target: &Path) -> bool {
    let Ok(mut system) = System::new() else {
        return true;
    };
    let kind = ProcessRefreshKind::nothing()
        .with_user(UpdateKind::OnlyIfNotSet)
        .with_cmd(UpdateKind::OnlyIfNotSet)
        .with_exe(UpdateKind::OnlyIfNotSet)
        .without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, false, kind);
    let us = geteuid().as_raw();
    let is_suspect = |process: &Process| {
        let is_ours = process.effective_user_id().is_none_or(|user| **user == us);
        is_ours && is_living(process) && is_client(process.name(), process.exe(), process.cmd())
    };
    let suspects: Vec<Pid> = system
        .processes()
        .values()
        .filter(|process| is_suspect(process))
        .filter(|process| !is_bound(process.cmd()) && !is_launched(&system, process))
        .map(Process::pid)
        .collect();
    let mut left = suspects;
    for _ in 0..LOOKS {
        if left.is_empty() {
            return false;
        }
        let kind = ProcessRefreshKind::nothing()
            .with_environ(UpdateKind::Always)
            .without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&left), true, kind);
        let mut unknown = Vec::new();
        for pid in left {
            let Some(process) = system.process(pid).filter(|process| is_living(process)) else {
                continue;
            };
            match settings(process.environ()) {
                Some(path) if Target::find(&path).is_ok_and(|theirs| theirs.path() == target) => {
                    return true;
                }
                Some(_) => {}
                None => unknown.push(pid),
            }
        }
        left = unknown;
        // One that is about to end tells nothing any more: soon it is gone.
        if !left.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
    !left.is_empty()
}

fn is_living(process: &Process) -> bool {
    !matches!(
        process.status(),
        ProcessStatus::Zombie | ProcessStatus::Dead
    )
}

/// The settings file of a process with that environment; `None` if that is not told.
fn settings(environment: &[OsString]) -> Option<PathBuf> {
    let value = |name: &str| {
        let found = environment.iter().find_map(|entry| {
            let (key, value) = entry.to_str()?.split_once('=')?;
            (key == name).then_some(value)
        });
        found.filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    let directory = value("CLAUDE_CONFIG_DIR").or_else(|| Some(value("HOME")?.join(".claude")))?;
    Some(directory.join("settings.json"))
}

/// Says whether it was handed a private file of ours, which outranks the user's: also when its ccx is dead.
fn is_bound(words: &[OsString]) -> bool {
    let mut pairs = words.iter().zip(words.iter().skip(1));
    pairs.any(|(flag, file)| flag == "--settings" && private::is_private(Path::new(file)))
}

/// Says whether a ccx started it: one is among those it comes from, in the same session. What a client's tools start
/// has a session of its own (contract supervision F12), and is not bound to a proxy as the client is.
fn is_launched(system: &System, process: &Process) -> bool {
    let session = process.session_id();
    let mut parent = process.parent();
    for _ in 0..DEEPEST {
        let Some(above) = parent.and_then(|pid| system.process(pid)) else {
            return false;
        };
        let file = above.exe().and_then(Path::file_name);
        // An updated ccx's old program is `ccx (deleted)`.
        if file.is_some_and(|file| file.to_string_lossy().starts_with("ccx")) {
            return above.session_id() == session;
        }
        parent = above.parent();
    }
    false
}

/// Says whether a process looks like the client: by its name, its program, or the script that it runs.
fn is_client(name: &OsStr, program: Option<&Path>, words: &[OsString]) -> bool {
    let is_named = |name: &OsStr| name == "claude" || name == "claude.exe";
    let is_client = |path: &Path| {
        let text = path.to_string_lossy();
        let parts = ["/claude-code/", "/claude-agent-sdk/", "/claude/versions/"];
        path.file_name().is_some_and(is_named) || parts.iter().any(|part| text.contains(part))
    };
    let mut words = words.iter().take(WORDS).map(|word| word.to_string_lossy());
    is_named(name)
        || program.is_some_and(is_client)
        || words.any(|word| !word.contains(char::is_whitespace) && is_client(Path::new(&*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_name_program_or_script() {
        for (name, program, words, expected) in [
            ("claude", None, &[][..], true),
            (
                "node",
                Some("/usr/bin/node"),
                &[
                    "node",
                    "/opt/lib/node_modules/@anthropic-ai/claude-code/cli.js",
                ],
                true,
            ),
            (
                "2.1.330",
                Some("/home/a/.local/share/claude/versions/2.1.330"),
                &["claude"],
                true,
            ),
            (
                "MainThread",
                Some("/usr/bin/node"),
                &["node", "--title", "/usr/local/bin/claude"],
                true,
            ),
            (
                "node",
                None,
                &[
                    "node",
                    "/x/node_modules/@anthropic-ai/claude-agent-sdk/cli.js",
                ],
                true,
            ),
            ("claude.exe", Some("/x/claude.exe"), &[], true),
            ("vi", Some("/usr/bin/vi"), &["vi", "claude.md"], false),
            (
                "bash",
                Some("/bin/bash"),
                &["bash", "-c", "cd /src/claude-code/ && make"],
                false,
            ),
            (
                "ccx",
                Some("/usr/bin/ccx"),
                &["ccx", "-p", "hi", "/x/claude"],
                false,
            ),
            ("claudette", None, &["claudette"], false),
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let found = is_client(OsStr::new(name), program.map(Path::new), &words);
            assert_eq!(found, expected, "{name} {words:?}");
        }
    }

    #[test]
    fn l08_a_client_that_was_handed_a_private_file_follows_no_other() {
        let is_bound = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            is_bound(&words)
        };
        let file = "/run/user/1/ccx/overlay-0123.json";
        assert!(is_bound(&["claude", "--settings", file, "-p"]));
        assert!(!is_bound(&["claude", "--settings", "/home/a/overlay.json"]));
        assert!(!is_bound(&["claude", file]));
        assert!(!is_bound(&["claude", "--settings"]));
    }

    #[test]
    fn l13_the_settings_of_a_process_are_where_its_environment_says() {
        let path = |entries: &[&str]| {
            let entries: Vec<OsString> = entries.iter().map(OsString::from).collect();
            settings(&entries).map(|path| path.display().to_string())
        };
        assert_eq!(
            path(&["A=b", "HOME=/h"]).as_deref(),
            Some("/h/.claude/settings.json")
        );
        assert_eq!(
            path(&["HOME=/h", "CLAUDE_CONFIG_DIR=/c"]).as_deref(),
            Some("/c/settings.json")
        );
        assert_eq!(
            path(&["HOME=/h", "CLAUDE_CONFIG_DIR="]).as_deref(),
            Some("/h/.claude/settings.json")
        );
        assert_eq!(path(&[]), None);
    }
}
