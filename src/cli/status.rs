//! `ccx status`: the account in use and what is left of it, what the families mean, which client would run.
//!
//! Shows what is known on this machine: asks nobody, changes nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::account::health::Window;
use crate::account::health_file::HealthFile;
use crate::account::record::printable;
use crate::catalogue::families::Family;
use crate::catalogue::knobs::Knobs;
use crate::catalogue::model::{Lane, Model};
use crate::cli::draw::{Style, ago, pad};
use crate::cli::environment::Environment;
use crate::cli::setup::{Setup, VERSION};
use crate::cli::view::View;
use crate::cli::{accounts, launch, lease, ui, view};
use crate::config::Key;
use crate::error::Report;
use crate::proxy::entry::now;
use crate::proxy::gauges;
use crate::proxy::readings::{Readings, Turn};
use crate::settings::journal::Wish;
use crate::settings::lease::{Has, Leases};
use crate::settings::private;
use crate::settings::target::Target;
use crate::time::UnixSeconds;

const FAMILIES: [(&str, Family); 4] = [
    ("opus", Family::Opus),
    ("sonnet", Family::Sonnet),
    ("haiku", Family::Haiku),
    ("fable", Family::Fable),
];

/// Columns of the names in front of the lines.
const NAMES: usize = 10;

/// What a family stands for, and what is set for that model.
struct Meant {
    family: &'static str,
    model: String,
    /// Words behind the names of their keys; the last says why one of them does not count.
    knobs: Vec<(&'static str, &'static str, &'static str)>,
}

/// Everything that is shown.
struct Status<'a> {
    views: &'a [View<'a>],
    readings: &'a Readings,
    /// Of the active account: what overflows have shown of models' windows, smaller than their list says.
    windows: BTreeMap<String, Window>,
    models: Vec<Meant>,
    /// What is set beside the models.
    settings: Vec<(&'static str, String)>,
    /// Models that have settings of their own and that the account does not have.
    unknown: Vec<String>,
    client: Option<String>,
    sessions: usize,
    lease: Option<Has>,
    wish: Wish,
    /// Why `auto` takes no lease now, if it does not.
    why_not: Option<&'static str>,
    state: String,
    now: UnixSeconds,
}

/// Prints the state.
pub fn status(environment: &Environment, as_json: bool) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let now = now();
    let kept = accounts::read(&setup)?;
    let readings = gauges::load(&setup.places);
    let views = view::all(&kept, &readings, now);
    let shelf = setup.shelf();
    if let Some(view) = views.iter().find(|view| view.is_active) {
        shelf.adopt(&view.record.id);
    }
    let catalogue = shelf.current();
    let families = setup.config.models();
    let meant = |(name, family)| {
        let model = families.target(&catalogue, family);
        Meant {
            family: name,
            model: model.map_or_else(|| "-".to_owned(), |model| model.slug.clone()),
            knobs: model.map_or_else(Vec::new, |model| {
                in_force(&setup.config.knobs_for(model, &catalogue, &families), model)
            }),
        }
    };
    let is_known = |name: &str| {
        FAMILIES.iter().any(|(family, _)| *family == name) || catalogue.get(name).is_some()
    };
    let named = setup.config.models.iter().map(|(name, _)| name);
    let client = launch::find_client(environment).ok();
    let health = HealthFile::new(&setup.places).read();
    let active = views.iter().find(|view| view.is_active);
    let windows = active
        .and_then(|view| health.accounts.get(&view.record.id))
        .map(|standing| standing.windows.clone())
        .unwrap_or_default();
    let sessions = private::running(&setup.places.run);
    let why_not = || lease::why_not(&setup, environment);
    let status = Status {
        views: &views,
        readings: &readings,
        windows,
        models: FAMILIES.map(meant).into(),
        settings: Key::plain(&setup.config),
        unknown: named.filter(|name| !is_known(name)).cloned().collect(),
        client: client.map(|path| path.display().to_string()),
        sessions,
        lease: held(&setup, environment),
        wish: setup.config.lease,
        why_not: (sessions > 0).then(why_not).flatten(),
        state: setup.places.state.display().to_string(),
        now,
    };
    match as_json {
        true => ui::json(&status.json()),
        false => ui::result(&status.text(&ui::style(environment))),
    }
    Ok(0)
}

/// Who has the client's settings file, if anybody but the user does.
fn held(setup: &Setup, environment: &Environment) -> Option<Has> {
    let target = Target::find(&environment.client_settings()?).ok()?;
    let states = Leases::below(&setup.places.state).states();
    let state = states
        .into_iter()
        .find(|state| state.path == target.path())?;
    (state.has != Has::Nobody).then_some(state.has)
}

/// Returns what is set for `model`, and what of it does not count.
fn in_force(knobs: &Knobs, model: &Model) -> Vec<(&'static str, &'static str, &'static str)> {
    let turned = Key::turned(knobs).into_iter();
    let noted = turned.map(|(key, word)| {
        let note = match key {
            "tier" if word != "standard" && knobs.tier(model, false).is_none() => "not offered",
            "lane" if knobs.lane(model) != Lane::Full => "not served",
            "verbosity" if !model.support_verbosity => "not taken",
            _ => "",
        };
        (key, word, note)
    });
    noted.collect()
}

impl Status<'_> {
    fn lease_json(&self) -> Value {
        match &self.lease {
            None | Some(Has::Nobody) => Value::Null,
            Some(Has::Session(url)) => json!({"state": "held", "url": url}),
            Some(Has::Lander) => json!({"state": "ending"}),
            Some(Has::Dead) => json!({"state": "dead"}),
        }
    }

    fn lease_in_words(&self) -> String {
        match (&self.lease, self.wish) {
            (Some(Has::Session(url)), _) => format!("settings.json leads to {url}"),
            (Some(Has::Lander), _) => "being given back, after running clients are told".to_owned(),
            (Some(Has::Dead), _) => "left by a ccx that was killed; `ccx restore`".to_owned(),
            (_, Wish::Never) => "none, as `lease` says: settings.json is yours".to_owned(),
            (_, _) if self.sessions > 0 => {
                let why = self.why_not.unwrap_or("see docs/settings-lease.md");
                format!("not taken: {why}")
            }
            _ => "none: settings.json is yours".to_owned(),
        }
    }

    fn active(&self) -> Option<&View<'_>> {
        self.views.iter().find(|view| view.is_active)
    }

    /// The last turn on the active account, of whichever session.
    fn last_turn(&self) -> Option<&Turn> {
        let id = &self.active()?.record.id;
        let turns = self.readings.sessions.values();
        turns
            .filter(|turn| turn.account == *id)
            .max_by_key(|turn| turn.at)
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.views.iter().map(View::json).collect();
        let models: Map<String, Value> = self
            .models
            .iter()
            .map(|meant| (meant.family.to_owned(), meant.model.clone().into()))
            .collect();
        let knobs: Map<String, Value> = self
            .models
            .iter()
            .map(|meant| {
                let words = meant.knobs.iter().filter(|(.., note)| note.is_empty());
                let words: Map<String, Value> = words
                    .map(|(key, word, _)| ((*key).to_owned(), (*word).into()))
                    .collect();
                (meant.family.to_owned(), words.into())
            })
            .collect();
        let settings: Map<String, Value> = self
            .settings
            .iter()
            .map(|(key, word)| ((*key).to_owned(), word.clone().into()))
            .collect();
        let turn = self.last_turn().map(|turn| {
            json!({"at": turn.at, "model": turn.true_model(), "asked_model": turn.model,
                "input_tokens": turn.input_tokens, "cached_tokens": turn.cached_tokens})
        });
        json!({
            "version": VERSION,
            "accounts": rows,
            "last_turn": turn,
            "sessions": self.sessions,
            "losses": self.readings.losses_by_kind(),
            "lease": self.lease_json(),
            "models": models,
            "windows": self.windows,
            "knobs": knobs,
            "settings": settings,
            "client": self.client,
            "state": self.state,
        })
    }

    fn text(&self, style: &Style) -> String {
        let mut lines = vec![format!("ccx {VERSION}")];
        let mut line = |name: &str, words: &str| {
            let text = format!("{} {words}", pad(name, NAMES));
            lines.push(style.fit(&text, style.width));
        };
        match self.active() {
            Some(view) => {
                line("account", &view.title());
                line("state", &view.state_in_words());
                let quota = view.quota_lines(style, NAMES);
                let is_known = !quota.is_empty();
                // They keep to the width themselves, and may hold colours.
                lines.extend(quota);
                let mut line = |name: &str, words: &str| {
                    let text = format!("{} {words}", pad(name, NAMES));
                    lines.push(style.fit(&text, style.width));
                };
                match &view.reading.quota {
                    Some(quota) if is_known => line("read", &ago(quota.at, self.now)),
                    _ => line("left", "not known yet; `ccx quota` asks"),
                }
                if let Some(turn) = self.last_turn() {
                    line("last turn", &self.turn_in_words(turn));
                }
                if let Some(fault) = &view.reading.last_error {
                    let (status, when) = (fault.status, ago(fault.at, self.now));
                    line("last error", &format!("{when}: {status} {}", fault.message));
                }
            }
            None if self.views.is_empty() => {
                line("account", "none; `ccx login` signs in");
            }
            None => line("account", "none is active; `ccx use NAME` chooses one"),
        }
        let mut line = |name: &str, words: &str| {
            let text = format!("{} {words}", pad(name, NAMES));
            lines.push(style.fit(&text, style.width));
        };
        for view in self.views.iter().filter(|view| !view.is_active) {
            let words = format!(
                "{}, {}, {}",
                view.title(),
                view.state_in_short(),
                view.windows_in_short()
            );
            line("also", &words);
        }
        line(
            "proxy",
            &match self.sessions {
                0 => "none runs: each session brings its own".to_owned(),
                1 => "one session runs, with a proxy of its own".to_owned(),
                count => format!("{count} sessions run, each with a proxy of its own"),
            },
        );
        line("lease", &self.lease_in_words());
        let losses = self.readings.losses_by_kind();
        if !losses.is_empty() {
            line("losses", &losses_in_words(&losses));
        }
        for meant in &self.models {
            let mut words = printable(&meant.model);
            for (key, word, note) in &meant.knobs {
                words.push_str(&format!(", {key} {word}"));
                if !note.is_empty() {
                    words.push_str(&format!(" ({note})"));
                }
            }
            line(meant.family, &words);
        }
        for (model, window) in &self.windows {
            let about = if window.is_told { "" } else { "about " };
            let words = format!(
                "{} takes {about}{}k tokens, not {}k: learnt {}",
                printable(model),
                window.tokens / 1000,
                window.listed / 1000,
                ago(window.since, self.now)
            );
            line("window", &words);
        }
        for name in &self.unknown {
            let name = printable(name);
            line(
                "unknown",
                &format!("{name}: has settings, but the account has no such model"),
            );
        }
        let settings: Vec<String> = self
            .settings
            .iter()
            .map(|(key, word)| format!("{key} {word}"))
            .collect();
        line("settings", &settings.join(", "));
        line("client", self.client.as_deref().unwrap_or("not found"));
        line("files", &self.state);
        lines.push(String::new());
        lines.join("\n")
    }

    fn turn_in_words(&self, turn: &Turn) -> String {
        let mut words = format!(
            "{}, {}",
            ago(turn.at, self.now),
            printable(turn.true_model())
        );
        if turn.served.is_some() {
            words.push_str(&format!(" in place of {}", printable(&turn.model)));
        }
        if let Some(percent) = turn.cache_percent() {
            words.push_str(&format!(", {percent}% of the input from the cache"));
        }
        words
    }
}

/// The kinds by the number of requests in which they were met, the most frequent first.
fn losses_in_words(losses: &BTreeMap<&str, u64>) -> String {
    let mut kinds: Vec<_> = losses.iter().collect();
    kinds.sort_by_key(|(kind, count)| (std::cmp::Reverse(**count), **kind));
    let words: Vec<_> = kinds
        .into_iter()
        .map(|(kind, count)| format!("{} {count}", printable(kind)))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::store::Accounts;
    use crate::cli::draw::columns;
    use crate::proxy::readings::Fault;
    use crate::upstream::quota::{self, Quota};

    /// 2026-11-23 18:13:20 UTC, a Monday.
    const NOW: UnixSeconds = UnixSeconds(1_795_457_600);

    fn before(seconds: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 - seconds)
    }

    fn kept() -> Accounts {
        serde_json::from_value(json!({"version": 1, "active": "b2", "accounts": [
            {"id": "a1", "email": "ann@example.com", "plan": "free", "source": {"kind": "own"},
             "access_token": "SECRET", "expires_at": NOW.0 + 9000},
            {"id": "b2", "email": "bob@example.com", "label": "work", "source": {"kind": "own"},
             "access_token": "SECRET", "expires_at": NOW.0 + 900_000},
        ]}))
        .unwrap()
    }

    fn readings() -> Readings {
        let mut readings = Readings::default();
        let window = |length_seconds, used_percent, after: u64| quota::Window {
            family: None,
            length_seconds,
            used_percent,
            resets_at: Some(UnixSeconds(NOW.0 + after)),
        };
        let quota = |plan: &str, windows| Quota {
            plan: Some(plan.to_owned()),
            windows,
            at: before(80),
            ..Quota::default()
        };
        readings.note_quota("a1", quota("free", vec![window(2_592_000, 100.0, 900_000)]));
        readings.note_quota(
            "b2",
            quota(
                "pro",
                vec![window(18_000, 12.5, 9000), window(604_800, 96.0, 300_000)],
            ),
        );
        readings.note_turn(
            "s",
            Turn {
                at: before(80),
                account: "b2".to_owned(),
                model: "gpt-6.1-sol".to_owned(),
                served: Some("gpt-5.5".to_owned()),
                input_tokens: 1000,
                cached_tokens: 870,
            },
        );
        for _ in 0..12 {
            readings.note_losses("s", ["document_text"], before(90));
        }
        readings.note_losses("t", ["image_url", "document_text"], before(90));
        let fault = Fault::new(
            before(7200),
            529,
            "upstream is overloaded: the servers are busy now, try again",
        );
        readings
            .accounts
            .entry("b2".to_owned())
            .or_default()
            .last_error = Some(fault);
        readings
    }

    fn shown(kept: &Accounts, readings: &Readings, sessions: usize) -> (String, Value) {
        let views = view::all(kept, readings, NOW);
        let status = Status {
            views: &views,
            readings,
            models: vec![
                Meant {
                    family: "opus",
                    model: "gpt-6.1-sol".to_owned(),
                    knobs: vec![("tier", "fast", ""), ("lane", "full", "not served")],
                },
                Meant {
                    family: "haiku",
                    model: "-".to_owned(),
                    knobs: Vec::new(),
                },
            ],
            windows: [(
                "gpt-6.1-sol".to_owned(),
                Window {
                    tokens: 200_000,
                    listed: 272_000,
                    is_told: true,
                    since: before(80),
                },
            )]
            .into(),
            settings: vec![("failover", "off".to_owned())],
            unknown: vec!["gpt-x".to_owned()],
            client: None,
            sessions,
            lease: None,
            why_not: None,
            wish: Wish::Auto,
            state: "/home/ann/.local/state/ccx".to_owned(),
            now: NOW,
        };
        (status.text(&Style::plain()), status.json())
    }

    #[test]
    fn everything_at_80_columns() {
        let (text, told) = shown(&kept(), &readings(), 2);
        let expected = format!(
            "ccx {VERSION}
account    work (bob@example.com), plan pro
state      ready, token good for 10d 10h
5 h        █████████████████████░░░  88% left, resets in 2h 30m (20:43)
7 d        █░░░░░░░░░░░░░░░░░░░░░░░   4% left, resets in 3d 11h (Fri 05:33)
read       1m ago
last turn  1m ago, gpt-5.5 in place of gpt-6.1-sol, 87% of the input from the c…
last error 2h ago: 529 upstream is overloaded: the servers are busy now, try ag…
also       ann@example.com, plan free, limit, 10d 10h, 30d 0%
proxy      2 sessions run, each with a proxy of its own
lease      not taken: see docs/settings-lease.md
losses     document_text 13, image_url 1
opus       gpt-6.1-sol, tier fast, lane full (not served)
haiku      -
window     gpt-6.1-sol takes 200k tokens, not 272k: learnt 1m ago
unknown    gpt-x: has settings, but the account has no such model
settings   failover off
client     not found
files      /home/ann/.local/state/ccx
"
        );
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| columns(line) <= 80));
        assert!(!told.to_string().contains("SECRET"));
        assert_eq!(told["accounts"][0]["state"], "limited");
        assert_eq!(told["accounts"][1]["quota"]["remaining_percent"], 4.0);
        assert_eq!(told["last_turn"]["model"], "gpt-5.5");
        assert_eq!(told["losses"], json!({"document_text": 13, "image_url": 1}));
        assert_eq!(
            told["knobs"],
            json!({"opus": {"tier": "fast"}, "haiku": {}})
        );
        assert_eq!(told["settings"], json!({"failover": "off"}));
        assert_eq!(
            (&told["sessions"], &told["lease"]),
            (&json!(2), &json!(null))
        );
    }

    #[test]
    fn nothing_is_made_up() {
        let none = serde_json::from_value(json!({"version": 1})).unwrap();
        let (text, told) = shown(&none, &Readings::default(), 0);
        assert!(text.contains("\naccount    none; `ccx login"), "{text}");
        assert!(text.contains("\nproxy      none runs"), "{text}");
        assert_eq!(told["accounts"], json!([]));
        let mut two = kept();
        two.active = None;
        let (text, _) = shown(&two, &Readings::default(), 1);
        assert!(
            text.contains("\naccount    none is active; `ccx use NAME` chooses one\nalso       ann@example.com"),
            "{text}"
        );
        two.active = Some("b2".to_owned());
        let (text, _) = shown(&two, &Readings::default(), 1);
        assert!(
            text.contains("\nleft       not known yet; `ccx quota` asks\n"),
            "{text}"
        );
    }
}
