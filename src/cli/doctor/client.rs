//! Is Claude Code there, does it run, and do its settings let it reach ccx?

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::Check;
use crate::cli::environment::Environment;
use crate::cli::launch;
use crate::settings::{layers, managed, merge, overlay};
use crate::terminal::find;

/// The client says its version within a second; a wrapper may take longer.
const LIMIT: Duration = Duration::from_secs(10);

/// A version is one short line. More than this is something else.
const ANSWER: u64 = 4096;

/// Finds the client and asks for its version.
pub(super) fn program(environment: &Environment) -> Check {
    let lookup = match launch::lookup(environment) {
        Ok(lookup) => lookup,
        Err(report) => return Check::report("client", &report),
    };
    let path = match find::find(&lookup) {
        Ok(path) => path,
        Err(error) => {
            return Check::finding("client", error.to_string()).hint(find::INSTALL_HINT);
        }
    };
    let (name, value) = find::guard(&lookup, &path);
    let started = Command::new(&path)
        .arg("--version")
        .env(name, value)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let at = path.display();
    match started.map(|child| answer(child, LIMIT)) {
        Ok(Some(version)) => {
            let way = installed(&path, lookup.explicit.is_some());
            Check::fine("client", format!("{version}, {at}, {way}"))
        }
        Ok(None) => Check::finding("client", format!("{at} does not say its version"))
            .hint("run `ccx -- --version` and see; CCX_CLAUDE can name another Claude Code"),
        Err(error) => Check::finding("client", format!("cannot start {at}: {error}"))
            .hint("CCX_CLAUDE can name another Claude Code"),
    }
}

/// Says how the client came there, by where it lies.
fn installed(path: &Path, is_explicit: bool) -> &'static str {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let has = |part: &str| real.to_string_lossy().contains(part);
    if is_explicit {
        "named by CCX_CLAUDE"
    } else if has("/.claude/local/") {
        "the old local install"
    } else if has("/claude/versions/") {
        "by its own installer"
    } else if has("/node_modules/") {
        "by npm"
    } else {
        "installed in some other way"
    }
}

/// Returns the first line that the client says, if it says one within `limit` and ends well.
fn answer(mut child: Child, limit: Duration) -> Option<String> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.take(ANSWER).read_to_string(&mut text);
        // Nobody is waiting any more when it took too long.
        let _ = sender.send(read.map(|_| text));
    });
    let said = receiver.recv_timeout(limit);
    let said = match said {
        Ok(Ok(text)) => text,
        Ok(Err(_)) | Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
    };
    let status = child.wait().ok()?;
    let line = said.lines().next().unwrap_or_default().trim();
    let is_version = status.success() && line.starts_with(|c: char| c.is_ascii_digit());
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    is_version.then_some(line)
}

/// Looks for settings that would take a session elsewhere, or past a proxy.
pub(super) fn settings(environment: &Environment) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(foreign) = managed::find_foreign(Path::new(managed::DIRECTORY)) {
        checks.push(
            Check::finding("settings", foreign.to_string())
                .hint("ask who administers this machine; ccx cannot be used with it"),
        );
    }
    if let Some(file) = environment.client_settings() {
        checks.extend(user_settings(&file, environment));
        let directory = file.parent().unwrap_or(&file);
        if let Ok(start) = std::env::current_dir() {
            checks.extend(elsewhere(&layers::files(directory, &start)[1..]));
        }
    }
    checks
}

/// Settings of the project that name another host: harmless, since ccx's own outrank them.
fn elsewhere(files: &[PathBuf]) -> Vec<Check> {
    let named = |file: &&PathBuf| {
        let is_file = file.metadata().is_ok_and(|found| found.is_file());
        let text = is_file
            .then(|| std::fs::read_to_string(file).ok())
            .flatten();
        let settings = text.and_then(|text| merge::parse(&text));
        settings.is_some_and(|settings| {
            let env = settings.get("env").and_then(Value::as_object);
            env.is_some_and(|env| env.contains_key("ANTHROPIC_BASE_URL"))
        })
    };
    files
        .iter()
        .filter(named)
        .map(|file| {
            let words = format!(
                "{} sets ANTHROPIC_BASE_URL: sessions of ccx do not follow it",
                file.display()
            );
            Check::note("settings", words)
        })
        .collect()
}

/// The user's own settings: they must be readable, and a proxy in them must spare this machine.
fn user_settings(path: &Path, environment: &Environment) -> Option<Check> {
    let text = std::fs::read_to_string(path).ok()?;
    let at = path.display();
    let settings: Value = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(settings) => settings,
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let words = format!("{at} is not valid JSON at line {line} column {column}");
            return Some(Check::finding("settings", words).hint("mend that line"));
        }
    };
    let theirs = |name: &str| settings["env"][name].as_str().map(str::to_owned);
    if overlay::proxy_exceptions(theirs).is_empty() {
        return None;
    }
    let either = |name: &str| theirs(name).or_else(|| environment.text(name).map(str::to_owned));
    if overlay::proxy_exceptions(either).is_empty() {
        return None;
    }
    let words = format!("{at} sets a proxy that would also take requests to this machine");
    Some(Check::finding("settings", words).hint("add `\"NO_PROXY\": \"127.0.0.1\"` to its `env`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(script: &str, limit: Duration) -> Option<String> {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn();
        answer(child.unwrap(), limit)
    }

    #[test]
    fn a_version_is_what_a_client_says() {
        assert_eq!(
            said("echo '2.1.330 (Claude Code)'; echo more", LIMIT).as_deref(),
            Some("2.1.330 (Claude Code)")
        );
        for script in ["exit 0", "echo hello", "echo 1.2; exit 3", "printf '\\377'"] {
            assert_eq!(said(script, LIMIT), None, "{script}");
        }
    }

    #[test]
    fn a_client_that_hangs_is_not_waited_for() {
        let limit = Duration::from_millis(50);
        assert_eq!(said("exec sleep 60", limit), None);
        // It says a version and does not end.
        let begun = std::time::Instant::now();
        assert_eq!(said("echo 1.2.3; exec sleep 60", limit), None);
        assert!(begun.elapsed() < LIMIT);
    }

    #[test]
    fn a_proxy_in_the_settings_must_spare_this_machine() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("settings.json");
        let mut environment = Environment::default();
        let state = |text: &str, environment: &Environment| {
            std::fs::write(&path, text).unwrap();
            user_settings(&path, environment).map(|check| check.words)
        };
        assert_eq!(state("{}", &environment), None);
        assert_eq!(state(r#"{"env": {"A": "b"}}"#, &environment), None);
        let proxied = r#"{"env": {"HTTP_PROXY": "http://user:SECRET@p:1"}}"#;
        let found = state(proxied, &environment).unwrap();
        assert!(
            found.contains("sets a proxy") && !found.contains("SECRET"),
            "{found}"
        );
        environment.set("NO_PROXY", "127.0.0.1");
        environment.set("no_proxy", "127.0.0.1");
        assert_eq!(state(proxied, &environment), None);
        let broken = state("{\n\"env\": SECRET", &environment).unwrap();
        assert!(
            broken.ends_with("is not valid JSON at line 2 column 8"),
            "{broken}"
        );
        assert_eq!(user_settings(&root.path().join("none"), &environment), None);
    }
}
