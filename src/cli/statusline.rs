//! `ccx statusline`: one line for the client's `statusLine`, from what is known on this machine.
//!
//! Runs after every turn, so it asks nobody, locks nothing and makes nothing. Whatever is missing or damaged is left
//! out: a status line has nobody to complain to.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::account::record::{Record, printable};
use crate::account::select::select;
use crate::account::store::{Accounts, Store};
use crate::cli::draw::{COLUMNS, Style, columns, percent};
use crate::cli::environment::Environment;
use crate::cli::{setup, ui};
use crate::error::Report;
use crate::proxy::entry::now;
use crate::proxy::gauges;
use crate::proxy::readings::{Readings, Turn};
use crate::time::{UnixSeconds, in_words};
use crate::upstream::quota::Quota;

/// The client's report is a few kilobytes.
const INPUT_LIMIT: u64 = 1024 * 1024;

/// What another command may print.
const OUTPUT_LIMIT: u64 = 64 * 1024;

/// How long another command may take. The client asks again soon anyway.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the client keeps free beside the line (observed with 2.1.330).
const MARGIN: usize = 4;

/// A width below this was not meant.
const NARROWEST: usize = 20;

/// The shortest that an account's name is cut to.
const SHORTEST_NAME: usize = 12;

/// What was typed behind `ccx statusline`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct StatuslineWords {
    /// Run CMD first, as Claude Code would, and print what it prints above
    #[arg(long, value_name = "CMD")]
    pub with: Option<OsString>,
    /// The account of the session, until a turn says it
    #[arg(long, value_name = "ID", hide = true)]
    pub account: Option<String>,
}

/// What the client says of the session.
#[derive(Debug, Default, PartialEq, Eq)]
struct Session {
    id: Option<String>,
    model: Option<String>,
}

/// Prints the line.
pub fn run(environment: &Environment, words: &StatuslineWords) -> Result<u8, Report> {
    let mut input = Vec::new();
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        // Cut short or broken off: as good as nothing.
        let _ = stdin.lock().take(INPUT_LIMIT).read_to_end(&mut input);
    }
    // It works while we do.
    let other = words.with.as_deref().map(|command| start(command, &input));
    let places = setup::places(environment)?;
    let kept = Store::peek(&places);
    let readings = gauges::load(&places);
    let columns = environment.text("COLUMNS");
    let columns: Option<usize> = columns.and_then(|text| text.parse().ok());
    let width = columns.map(|columns| columns.saturating_sub(MARGIN));
    let style = Style {
        unicode: ui::is_unicode(environment),
        width: width.filter(|width| *width >= NARROWEST).unwrap_or(COLUMNS),
        ..Style::plain()
    };
    let session = Session::read(&input);
    let line = line(
        &kept,
        &readings,
        &session,
        words.account.as_deref(),
        &style,
        now(),
    );
    let above = other.and_then(Result::ok).map(finish).unwrap_or_default();
    ui::result(&format!("{above}{line}\n"));
    Ok(0)
}

impl Session {
    fn read(input: &[u8]) -> Self {
        let report: Value = serde_json::from_slice(input).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            id: text(&report["session_id"]),
            model: text(&report["model"]["id"]),
        }
    }
}

/// Makes the line. What does not fit into the width is left out or shortened, the least telling first.
fn line(
    kept: &Accounts,
    readings: &Readings,
    session: &Session,
    account: Option<&str>,
    style: &Style,
    now: UnixSeconds,
) -> String {
    let turn = session.id.as_ref().and_then(|id| readings.sessions.get(id));
    let by_id = |id: &str| kept.accounts.iter().find(|record| record.id == id);
    let record = turn
        .and_then(|turn| by_id(&turn.account))
        .or_else(|| account.and_then(by_id))
        .or_else(|| select(&kept.accounts, kept.active.as_deref(), None).ok());
    let Some(record) = record else {
        return "ccx: no account".to_owned();
    };
    let quota = readings
        .accounts
        .get(&record.id)
        .and_then(|reading| reading.quota.as_ref());
    let whole = Shown {
        record,
        quota,
        turn,
        session,
        now,
        name: usize::MAX,
        has_plan: true,
        has_words: true,
        has_resets: true,
        has_cache: true,
    };
    let steps: [fn(&mut Shown<'_>); 5] = [
        |shown| shown.has_words = false,
        |shown| shown.has_plan = false,
        |shown| shown.has_resets = false,
        |shown| shown.has_cache = false,
        |shown| shown.name = SHORTEST_NAME,
    ];
    let mut shown = whole;
    for step in steps {
        if columns(&shown.text(style)) <= style.width {
            break;
        }
        step(&mut shown);
    }
    style.fit(&shown.text(style), style.width)
}

/// The parts of the line, and which of them are shown.
struct Shown<'a> {
    record: &'a Record,
    quota: Option<&'a Quota>,
    turn: Option<&'a Turn>,
    session: &'a Session,
    now: UnixSeconds,
    name: usize,
    has_plan: bool,
    has_words: bool,
    has_resets: bool,
    has_cache: bool,
}

impl Shown<'_> {
    fn text(&self, style: &Style) -> String {
        let mut parts = vec![style.fit(&self.record.name(), self.name)];
        let told = self.quota.and_then(|quota| quota.plan.as_ref());
        if let Some(plan) = told.or(self.record.plan.as_ref()).filter(|_| self.has_plan) {
            parts.push(printable(plan));
        }
        for window in self.quota.iter().flat_map(|quota| quota.own_windows()) {
            let label = window.label().replace(' ', "");
            let mut part = format!("{label} {}", percent(window.remaining_percent(self.now)));
            if self.has_words {
                part.push_str(" left");
            }
            if let Some(at) = window
                .resets_at
                .filter(|at| self.has_resets && *at > self.now)
            {
                part.push_str(&format!(" ({})", in_words(at.since(self.now))));
            }
            parts.push(part);
        }
        let cache = self.turn.and_then(Turn::cache_percent);
        if let Some(cache) = cache.filter(|_| self.has_cache) {
            parts.push(format!("cache {cache}%"));
        }
        let model = self
            .turn
            .map(Turn::true_model)
            .or(self.session.model.as_deref());
        if let Some(model) = model {
            parts.push(printable(model));
        }
        parts.join(style.separator())
    }
}

/// Starts the user's own command with what the client said.
fn start(command: &std::ffi::OsStr, input: &[u8]) -> io::Result<Child> {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // A command that does not read must not hold us up.
        thread::spawn(move || stdin.write_all(&input));
    }
    Ok(child)
}

/// Returns what the command has printed, whole lines, once it has ended; nothing if it takes too long.
fn finish(mut child: Child) -> String {
    let Some(stdout) = child.stdout.take() else {
        return String::new();
    };
    let reading = thread::spawn(move || {
        let mut output = Vec::new();
        let _ = stdout.take(OUTPUT_LIMIT).read_to_end(&mut output);
        output
    });
    let end = Instant::now() + PATIENCE;
    while !reading.is_finished() && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    let output = match reading.is_finished() {
        true => reading.join().unwrap_or_default(),
        false => Vec::new(),
    };
    // Whatever it does beside printing is over with the line.
    let _ = child.kill();
    let _ = child.wait();
    let mut text = String::from_utf8_lossy(&output).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::quota::Window;
    use serde_json::json;

    const NOW: UnixSeconds = UnixSeconds(1_795_457_600);

    fn accounts(list: Value) -> Accounts {
        serde_json::from_value(json!({"version": 1, "accounts": list})).unwrap()
    }

    fn two() -> Accounts {
        let account = |id: &str, email: &str, label: Option<&str>, plan: &str| {
            json!({"id": id, "email": email, "label": label, "plan": plan, "source": {"kind": "own"},
                "access_token": "SECRET"})
        };
        accounts(json!([
            account("a1", "somebody.with.a.long.name@example.com", None, "free"),
            account("b2", "bob@example.com", Some("work"), "plus"),
        ]))
    }

    fn readings() -> Readings {
        let mut readings = Readings::default();
        let window = |length_seconds, used_percent, after: u64| Window {
            family: None,
            length_seconds,
            used_percent,
            resets_at: Some(UnixSeconds(NOW.0 + after)),
        };
        let quota = |plan: &str, windows: Vec<Window>| Quota {
            plan: Some(plan.to_owned()),
            windows,
            at: NOW,
            ..Quota::default()
        };
        readings.note_quota("a1", quota("free", vec![window(2_592_000, 7.0, 900_000)]));
        let extra = Window {
            family: Some("extra".to_owned()),
            ..window(604_800, 1.0, 5)
        };
        readings.note_quota(
            "b2",
            quota(
                "pro",
                vec![
                    window(18_000, 12.5, 9000),
                    window(604_800, 40.0, 300_000),
                    extra,
                ],
            ),
        );
        let turn = Turn {
            at: NOW,
            account: "b2".to_owned(),
            model: "gpt-6.1-sol".to_owned(),
            served: None,
            input_tokens: 1000,
            cached_tokens: 870,
        };
        readings.note_turn("s1", turn.clone());
        let rerouted = Turn {
            served: Some("gpt-5.5\u{1b}".to_owned()),
            ..turn
        };
        readings.note_turn("s2", rerouted);
        readings
    }

    #[test]
    fn lines() {
        let session = |id: &str| Session {
            id: Some(id.to_owned()),
            model: Some("gpt-6-luna".to_owned()),
        };
        let wide = Style {
            width: 100,
            ..Style::plain()
        };
        let narrow = |width| Style {
            width,
            unicode: false,
            ..Style::plain()
        };
        for (session, account, style, expected) in [
            (
                session("s1"),
                None,
                &wide,
                "work · pro · 5h 88% left (2h 30m) · 7d 60% left (3d 11h) · cache 87% · gpt-6.1-sol",
            ),
            (
                session("s1"),
                Some("a1"),
                &Style::plain(),
                "work · pro · 5h 88% (2h 30m) · 7d 60% (3d 11h) · cache 87% · gpt-6.1-sol",
            ),
            (
                session("s2"),
                None,
                &narrow(60),
                "work | 5h 88% | 7d 60% | cache 87% | gpt-5.5\u{fffd}",
            ),
            (
                session("new"),
                Some("a1"),
                &Style::plain(),
                "somebody.with.a.long.name@example.com · free · 30d 93% (10d 10h) · gpt-6-luna",
            ),
            (
                session("new"),
                Some("a1"),
                &narrow(36),
                "somebody.wi~ | 30d 93% | gpt-6-luna",
            ),
            (
                Session::default(),
                Some("b2"),
                &narrow(20),
                "work | 5h 88% | 7d~",
            ),
            (Session::default(), Some("gone"), &wide, "ccx: no account"),
        ] {
            let line = line(&two(), &readings(), &session, account, style, NOW);
            assert_eq!(line, expected);
            assert!(columns(&line) <= style.width);
        }
    }

    #[test]
    fn what_is_missing_is_left_out() {
        let one = accounts(json!([
            {"id": "a", "email": "a@x.com", "source": {"kind": "own"}, "access_token": "SECRET"}
        ]));
        let style = Style::plain();
        let session = Session::default();
        let shown = |kept: &Accounts, readings: &Readings| {
            line(kept, readings, &session, None, &style, NOW)
        };
        assert_eq!(shown(&one, &Readings::default()), "a@x.com");
        assert_eq!(shown(&accounts(json!([])), &readings()), "ccx: no account");
        let empty = Session::default();
        for odd in ["", "{", "[]", r#"{"session_id":7}"#] {
            assert_eq!(Session::read(odd.as_bytes()), empty, "{odd}");
        }
    }
}
