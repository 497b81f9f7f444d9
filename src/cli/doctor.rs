//! `ccx doctor`: looks at everything a launch depends on, and says what is wrong and what mends it.
//!
//! Changes nothing unless `--fix` is given, spends no token, and asks nobody unless `--online` is. One
//! file for each thing that is looked at; here is what they report and how that is shown.

mod accounts;
mod client;
mod lease;
mod network;
mod places;
mod terminal;

use serde_json::json;

use crate::cli::environment::Environment;
use crate::cli::report;
use crate::cli::setup::{self, VERSION};
use crate::cli::ui;
use crate::error::Report;
use crate::proxy::entry::now;

/// The words of `ccx doctor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct DoctorWords {
    /// Also ask whether ChatGPT can be reached
    #[arg(long)]
    pub online: bool,
    /// Mend what ccx can mend: what sessions that were killed left behind, and who can read its files
    #[arg(long)]
    pub fix: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Write what a bug report needs into one file, without secrets and without your texts
    #[arg(long)]
    pub report: bool,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it should be.
    Fine,
    /// Worth knowing, but nothing is wrong.
    Note,
    /// Wrong.
    Finding,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    /// What it is about: one word.
    about: &'static str,
    state: State,
    /// One line.
    words: String,
    /// What mends it.
    hint: Option<String>,
}

impl Check {
    fn fine(about: &'static str, words: impl Into<String>) -> Self {
        Self::new(about, State::Fine, words)
    }

    fn note(about: &'static str, words: impl Into<String>) -> Self {
        Self::new(about, State::Note, words)
    }

    fn finding(about: &'static str, words: impl Into<String>) -> Self {
        Self::new(about, State::Finding, words)
    }

    fn new(about: &'static str, state: State, words: impl Into<String>) -> Self {
        Self {
            about,
            state,
            words: words.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A finding in the words of an error and its causes.
    fn error(about: &'static str, error: &anyhow::Error) -> Self {
        Self::finding(about, format!("{error:#}"))
    }

    /// The findings of a report that would end a launch.
    fn report(about: &'static str, report: &Report) -> Self {
        let check = Self::error(about, &report.error);
        match report.hints.is_empty() {
            true => check,
            false => check.hint(report.hints.join("; ")),
        }
    }
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Finding => "finding",
        }
    }

    const fn mark(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "--",
            Self::Finding => "!!",
        }
    }
}

/// Looks at everything and says how it stands: 0 when nothing is wrong, else 1.
///
/// # Errors
///
/// It cannot be told where ccx's files would be.
pub fn run(environment: &Environment, words: DoctorWords) -> Result<u8, Report> {
    let places = setup::places(environment)?;
    let now = now();
    let mut checks = Vec::new();
    if words.fix {
        checks.extend(lease::fix(&places, environment));
        checks.extend(places::fix(&places));
    }
    checks.push(client::program(environment));
    checks.extend(client::settings(environment));
    checks.extend(lease::lease(&places, environment));
    checks.push(terminal::terminal(environment));
    checks.extend(terminal::ports());
    checks.push(places::config(&places));
    checks.extend(places::directories(&places));
    let (found, records) = accounts::accounts(&places, environment, now);
    checks.extend(found);
    checks.push(places::clock(&records, now));
    checks.extend(network::proxies(environment));
    checks.extend(network::upstream(environment, words.online, now));
    let findings = checks
        .iter()
        .filter(|check| check.state == State::Finding)
        .count();
    if words.report {
        let told = report::write(environment, &places, &as_value(&checks, findings), now)?;
        ui::result(&told);
        return Ok(u8::from(findings > 0));
    }
    ui::result(&match words.json {
        true => as_value(&checks, findings),
        false => as_text(&checks, findings),
    });
    Ok(u8::from(findings > 0))
}

fn as_value(checks: &[Check], findings: usize) -> String {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            json!({"about": check.about, "state": check.state.word(), "words": check.words, "hint": check.hint})
        })
        .collect();
    let told = json!({"version": VERSION, "findings": findings, "checks": checks});
    format!("{told:#}\n")
}

fn as_text(checks: &[Check], findings: usize) -> String {
    let mut text = String::new();
    for check in checks {
        let (mark, about) = (check.state.mark(), check.about);
        text.push_str(&format!("{mark} {about:<10} {}\n", check.words));
        if let Some(hint) = &check.hint {
            text.push_str(&format!("{:13} {hint}\n", "     hint:"));
        }
    }
    let summary = match findings {
        0 => "Nothing is wrong.".to_owned(),
        1 => "1 finding.".to_owned(),
        many => format!("{many} findings."),
    };
    format!("{text}\n{summary}\nClaude Code's own doctor: `ccx -- doctor`\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_in_columns() {
        let checks = [
            Check::fine("client", "claude 1.2.3"),
            Check::note("config", "none"),
            Check::finding("clock", "it is 1970").hint("set it"),
        ];
        assert_eq!(
            as_text(&checks, 1),
            "ok client     claude 1.2.3\n\
             -- config     none\n\
             !! clock      it is 1970\n     \
             hint:    set it\n\
             \n\
             1 finding.\n\
             Claude Code's own doctor: `ccx -- doctor`\n"
        );
        assert!(as_text(&checks[..1], 0).contains("\nNothing is wrong.\n"));
        let told: serde_json::Value = serde_json::from_str(&as_value(&checks, 1)).unwrap();
        assert_eq!(
            told["checks"][2],
            json!({"about": "clock", "state": "finding", "words": "it is 1970", "hint": "set it"})
        );
        assert_eq!(
            (told["findings"].as_u64(), &told["version"]),
            (Some(1), &json!(VERSION))
        );
    }
}
