//! The laws of the lease, on a home in memory, with a crash after every step.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use ccx::secret::Secret;
use ccx::settings::journal::{Content, Current, Journal, Session, TOKEN_PREFIX, Wish};
use ccx::settings::succession::{Came, Event, Now, Step, decide};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

const OURS: &str = "gpt-only-here";

fn session(id: &str, wish: Wish) -> Session {
    Session {
        id: id.to_owned(),
        url: format!("http://127.0.0.1:4{id}"),
        token: Secret::new(format!("{TOKEN_PREFIX}{id}")),
        wish,
        inherits: false,
    }
}

/// A home in memory.
#[derive(Clone, Default)]
struct Home {
    file: Option<Content>,
    journal: Option<String>,
    /// What was remembered last.
    picked: Option<Option<String>>,
    alive: BTreeSet<String>,
    is_foreign: bool,
    is_listening: bool,
    landings: usize,
    replaced: usize,
}

impl Home {
    fn with(file: Option<&str>) -> Self {
        let content = |text: &str| Content {
            text: text.to_owned(),
            mode: 0o644,
        };
        Self {
            file: file.map(content),
            ..Self::default()
        }
    }

    fn journal(&self) -> Option<Journal> {
        let text = self.journal.as_ref()?;
        Some(serde_json::from_str(text).unwrap())
    }

    fn current(&self) -> Current {
        match &self.file {
            Some(content) => Current::read(content.text.as_bytes(), content.mode),
            None => Current::Absent,
        }
    }

    fn plan(&self, event: &Event) -> (Vec<Step>, Came) {
        let lander = format!("lander-{}", self.landings);
        let now = Now {
            current: &self.current(),
            is_alive: &|id| self.alive.contains(id),
            is_listening: &|_| self.is_listening,
            is_foreign: self.is_foreign,
            lander: &lander,
        };
        let outcome = decide(self.journal().as_ref(), "/t", event, &now);
        (outcome.steps, outcome.came)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Keep(journal) => {
                self.journal = Some(serde_json::to_string(&*journal).unwrap());
            }
            Step::Forget => self.journal = None,
            Step::Remember(pick) => self.picked = Some(pick),
            Step::Replace(content) => {
                self.replaced += 1;
                self.file = content;
            }
            Step::RemoveDirectory => {}
        }
    }

    /// Carries `event` out, at most `limit` steps of it; says whether it came to its end.
    fn happen(&mut self, event: &Event, limit: usize) -> Option<Came> {
        let (steps, came) = self.plan(event);
        let count = steps.len();
        for step in steps.into_iter().take(limit) {
            self.step(step);
            self.check();
        }
        if count > limit {
            return None;
        }
        if came == Came::Landing {
            self.alive.insert(format!("lander-{}", self.landings));
            self.landings += 1;
        }
        Some(came)
    }

    /// The laws that hold at every moment.
    fn check(&self) {
        let Some(content) = &self.file else { return };
        let value: Value =
            serde_json::from_str(content.text.trim_start_matches('\u{feff}')).unwrap();
        let token = value["env"]["ANTHROPIC_AUTH_TOKEN"]
            .as_str()
            .unwrap_or_default();
        if let Some(id) = token.strip_prefix(TOKEN_PREFIX) {
            assert_eq!(content.mode & 0o177, 0, "a token of ours is private");
            let url = value["env"]["ANTHROPIC_BASE_URL"]
                .as_str()
                .unwrap_or_default();
            let is_theirs = !url.starts_with("http://127.0.0.1:");
            assert!(
                is_theirs || url == format!("http://127.0.0.1:4{id}"),
                "{value}"
            );
            assert!(
                self.journal.is_some() || self.is_listening,
                "it is never there without a journal"
            );
        }
    }

    fn begin(&mut self, id: &str, wish: Wish, limit: usize) -> Option<Came> {
        self.alive.insert(id.to_owned());
        let event = Event::Begin {
            session: session(id, wish),
            models: vec![OURS.to_owned()],
            is_first: false,
        };
        let came = self.happen(&event, limit);
        if came.is_none() {
            self.alive.remove(id);
        }
        came
    }

    fn end(&mut self, id: &str, limit: usize) -> Option<Came> {
        let came = self.happen(&Event::End { id: id.to_owned() }, limit);
        self.alive.remove(id);
        came
    }

    /// What the next start does, until nothing is left to do.
    fn repair(&mut self) {
        for _ in 0..4 {
            self.happen(&Event::Look, usize::MAX);
            self.land(usize::MAX);
        }
    }

    /// The lander that is known wakes up.
    fn land(&mut self, limit: usize) {
        let lander = self
            .journal()
            .and_then(|journal| journal.lander().map(str::to_owned));
        let Some(lander) = lander.filter(|lander| self.alive.contains(lander)) else {
            return;
        };
        self.happen(
            &Event::Landed {
                lander: lander.clone(),
            },
            limit,
        );
        self.alive.remove(&lander);
    }

    fn text(&self) -> &str {
        self.file.as_ref().map_or("", |content| &content.text)
    }

    fn value(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    /// The client saves: known keys in another order, other spaces, no lock.
    fn save(&mut self, change: impl FnOnce(&mut Map<String, Value>)) {
        let mut all: Map<String, Value> = match &self.file {
            Some(content) => {
                serde_json::from_str(content.text.trim_start_matches('\u{feff}')).unwrap()
            }
            None => Map::new(),
        };
        change(&mut all);
        let mode = self.file.as_ref().map_or(0o644, |content| content.mode);
        let text = format!("{:#}\n", Value::Object(all));
        self.file = Some(Content { text, mode });
    }
}

/// Files that are hard to give back.
const FILES: &[Option<&str>] = &[
    None,
    Some("{}"),
    Some("{ }\r\n"),
    Some("\u{feff}{\"model\":\"opus\", \"n\":1.0e+2,\"n\":1.00,\r\n\"env\":{ }}"),
    Some(
        "{\n\t\"env\" : { \"A\":\"\\u0062\",\n\"ANTHROPIC_BASE_URL\": \"https:\\/\\/gate.way\" } , \"x\": [ ] }",
    ),
    Some(
        r#"{"env":{"ANTHROPIC_AUTH_TOKEN":"a","ANTHROPIC_AUTH_TOKEN":"b","ANTHROPIC_BASE_URL":""},"env":{"C":1}}"#,
    ),
    Some(
        "{\n  \"env\": {\n    \"ANTHROPIC_BASE_URL\": \"https://mine\",\n    \"ANTHROPIC_AUTH_TOKEN\": \"sk\"\n  }\n}\n",
    ),
];

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for at in 0..=shorter.len() {
            let mut order = shorter.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}

/// Where the crash comes: in which operation, after how many steps.
fn limit(crash: Option<(usize, usize)>, operation: usize) -> usize {
    crash
        .filter(|(at, _)| *at == operation)
        .map_or(usize::MAX, |(_, steps)| steps)
}

#[test]
fn l10_every_order_of_ending_with_a_crash_after_every_step_gives_the_same_bytes_back() {
    let mut runs = 0;
    for (number, file) in FILES.iter().enumerate() {
        // The forms of the file and three leases each multiply; together they only cost time.
        let most = if number % 3 == 0 { 3 } else { 2 };
        for count in 1..=most {
            for order in orders(count) {
                for is_served in [false, true] {
                    let crashes =
                        (0..count * 2 + 1).flat_map(|at| (0..5).map(move |n| Some((at, n))));
                    for crash in std::iter::once(None).chain(crashes) {
                        runs += 1;
                        let mut home = Home::with(*file);
                        let mut operation = 0;
                        let mut next = || {
                            operation += 1;
                            limit(crash, operation - 1)
                        };
                        for id in 0..count {
                            home.begin(&id.to_string(), Wish::Auto, next());
                        }
                        if is_served
                            && let Some(journal) = home.journal()
                            && let Some(holder) = journal.holder()
                        {
                            let id = holder.id.clone();
                            home.happen(&Event::Served { id }, usize::MAX);
                        }
                        for id in &order {
                            let limit = next();
                            if home.alive.contains(&id.to_string()) {
                                home.end(&id.to_string(), limit);
                            }
                        }
                        home.land(next());
                        home.repair();
                        let told = format!("{file:?} {order:?} {is_served} {crash:?}");
                        assert_eq!(home.file, Home::with(*file).file, "{told}");
                        assert_eq!(home.journal, None, "{told}");
                        assert_eq!(home.picked, None, "{told}");
                    }
                }
            }
        }
    }
    assert!(runs > 1000, "{runs}");
}

#[test]
fn l07_the_lease_passes_on_and_only_the_last_one_gives_it_back() {
    for order in orders(3) {
        let mut home = Home::with(Some("{}"));
        for id in ["0", "1", "2"] {
            let came = home.begin(id, Wish::Auto, usize::MAX);
            assert_eq!(
                came,
                Some(if id == "0" { Came::Taken } else { Came::Stays })
            );
        }
        assert_eq!(home.replaced, 1, "a second one does not write");
        let mut alive: BTreeSet<usize> = (0..3).collect();
        for id in order {
            home.end(&id.to_string(), usize::MAX);
            alive.remove(&id);
            let url = home.value()["env"]["ANTHROPIC_BASE_URL"].clone();
            match alive.first() {
                Some(_) => assert!(
                    alive
                        .iter()
                        .any(|id| url == format!("http://127.0.0.1:4{id}")),
                    "{url} {alive:?}"
                ),
                None => assert_eq!(home.text(), "{}"),
            }
        }
    }
}

#[test]
fn l08_a_client_that_runs_already_is_never_drawn_in() {
    let mut home = Home::with(Some("{}"));
    home.is_foreign = true;
    assert_eq!(home.begin("0", Wish::Auto, usize::MAX), Some(Came::Nothing));
    assert_eq!(
        home.begin("1", Wish::Never, usize::MAX),
        Some(Came::Nothing)
    );
    assert_eq!(home.text(), "{}");
    // Somebody who insists; the lease does not pass to those who would not have taken it.
    assert_eq!(home.begin("2", Wish::Always, usize::MAX), Some(Came::Taken));
    assert_eq!(home.begin("3", Wish::Auto, usize::MAX), Some(Came::Stays));
    assert_eq!(home.begin("4", Wish::Always, usize::MAX), Some(Came::Stays));
    assert_eq!(home.end("2", usize::MAX), Some(Came::HandedOver));
    assert_eq!(home.journal().unwrap().holder().unwrap().id, "4");
    assert_eq!(home.end("4", usize::MAX), Some(Came::Landing));
    home.land(usize::MAX);
    assert_eq!(home.text(), "{}");
    for id in ["0", "1", "3"] {
        assert_eq!(home.end(id, usize::MAX), Some(Came::Nothing));
    }
    assert_eq!((home.text(), &home.journal), ("{}", &None));
}

#[test]
fn l08_a_client_that_was_served_is_sent_back_to_its_own_host() {
    for (file, landing) in [
        (
            None,
            json!({"ANTHROPIC_BASE_URL": "", "ANTHROPIC_AUTH_TOKEN": ""}),
        ),
        (
            Some("{}"),
            json!({"ANTHROPIC_BASE_URL": "", "ANTHROPIC_AUTH_TOKEN": ""}),
        ),
        (
            Some(r#"{"env":{"ANTHROPIC_BASE_URL":"https://gate.way"}}"#),
            json!({"ANTHROPIC_BASE_URL": "https://gate.way", "ANTHROPIC_AUTH_TOKEN": ""}),
        ),
    ] {
        // Seen running, or known by its requests alone.
        for is_seen in [true, false] {
            let mut home = Home::with(file);
            home.begin("0", Wish::Auto, usize::MAX);
            match is_seen {
                true => home.is_foreign = true,
                false => {
                    home.happen(&Event::Served { id: "0".to_owned() }, usize::MAX);
                }
            }
            assert_eq!(home.end("0", usize::MAX), Some(Came::Landing));
            assert_eq!(home.value()["env"], landing);
            // Others leave the lander alone while it lives.
            assert_eq!(
                home.begin("1", Wish::Never, usize::MAX),
                Some(Came::Landing)
            );
            assert_eq!(home.end("1", usize::MAX), Some(Came::Landing));
            home.land(usize::MAX);
            assert_eq!(home.text(), file.unwrap_or_default());
            assert_eq!(home.journal, None);
        }
    }
    // Where both keys had a value, that one is the landing value: there is nothing to wait for.
    let mut home = Home::with(FILES[6]);
    home.begin("0", Wish::Auto, usize::MAX);
    home.is_foreign = true;
    assert_eq!(home.end("0", usize::MAX), Some(Came::GivenBack));
    assert_eq!(Some(home.text()), FILES[6]);
}

#[test]
fn l08_a_start_during_a_landing_takes_the_file_over_and_tells_the_served_ones_later() {
    let mut home = Home::with(Some("{}"));
    home.begin("0", Wish::Auto, usize::MAX);
    home.happen(&Event::Served { id: "0".to_owned() }, usize::MAX);
    home.end("0", usize::MAX);
    assert_eq!(home.begin("1", Wish::Auto, usize::MAX), Some(Came::Taken));
    // The lander finds that its time has passed.
    home.happen(
        &Event::Landed {
            lander: "lander-0".to_owned(),
        },
        usize::MAX,
    );
    assert_eq!(
        home.value()["env"]["ANTHROPIC_BASE_URL"],
        "http://127.0.0.1:41"
    );
    assert_eq!(home.end("1", usize::MAX), Some(Came::Landing));
    home.land(usize::MAX);
    assert_eq!((home.text(), &home.journal), ("{}", &None));
}

#[test]
fn l09_keys_that_somebody_else_wrote_are_left() {
    let mut home = Home::with(Some(r#"{"model":"opus","env":{"A":"b"}}"#));
    home.begin("0", Wish::Auto, usize::MAX);
    home.save(|all| {
        all["env"]["ANTHROPIC_BASE_URL"] = json!("https://mine");
        all.insert("theme".to_owned(), json!("dark"));
    });
    home.end("0", usize::MAX);
    assert_eq!(
        home.value(),
        json!({"model": "opus", "theme": "dark", "env": {"A": "b", "ANTHROPIC_BASE_URL": "https://mine"}})
    );
    assert_eq!(home.file.unwrap().mode, 0o644, "the old mode comes back");

    // A file that is deleted stays deleted, also when the lease passes on.
    let mut home = Home::with(Some("{}"));
    home.begin("0", Wish::Auto, usize::MAX);
    home.begin("1", Wish::Auto, usize::MAX);
    home.file = None;
    home.end("0", usize::MAX);
    assert_eq!(home.file, None);
    home.end("1", usize::MAX);
    assert_eq!((home.file, home.journal), (None, None));

    // Made by us, written by the client: it stays without what is ours.
    let mut home = Home::with(None);
    home.begin("0", Wish::Auto, usize::MAX);
    home.save(|all| drop(all.insert("theme".to_owned(), json!("dark"))));
    home.end("0", usize::MAX);
    assert_eq!(home.value(), json!({"theme": "dark"}));
}

#[test]
fn l09_a_file_that_somebody_broke_is_left_until_it_can_be_read() {
    let mut home = Home::with(Some("{\"a\":1}"));
    home.begin("0", Wish::Auto, usize::MAX);
    let leased = home.text().to_owned();
    home.file.as_mut().unwrap().text = leased.replace("\"a\":1", "\"a\":,");
    let broken = home.file.clone();
    assert_eq!(home.plan(&Event::End { id: "0".to_owned() }).1, Came::Stuck);
    let (steps, _) = home.plan(&Event::End { id: "0".to_owned() });
    steps.into_iter().for_each(|step| home.step_unchecked(step));
    home.alive.clear();
    assert_eq!(home.file, broken);
    home.file.as_mut().unwrap().text = leased.replace("\"a\":1", "\"a\":2");
    home.repair();
    assert_eq!((home.text(), &home.journal), ("{\"a\":2}", &None));
}

impl Home {
    fn step_unchecked(&mut self, step: Step) {
        self.step(step);
    }
}

#[test]
fn l15_a_pick_of_ours_is_taken_out_and_remembered() {
    for wish in Wish::ALL {
        for (before, pick, after, picked) in [
            (
                json!({}),
                json!(OURS),
                json!({}),
                Some(Some(OURS.to_owned())),
            ),
            (
                json!({"model": "opus"}),
                json!(OURS),
                json!({"model": "opus"}),
                Some(Some(OURS.to_owned())),
            ),
            (
                json!({}),
                json!("sonnet"),
                json!({"model": "sonnet"}),
                Some(None),
            ),
            (
                json!({"model": "opus"}),
                json!("opus"),
                json!({"model": "opus"}),
                None,
            ),
        ] {
            // The session ends, or is killed and repaired after.
            for is_killed in [false, true] {
                let mut home = Home::with(Some(&before.to_string()));
                home.begin("0", wish, usize::MAX);
                home.save(|all| drop(all.insert("model".to_owned(), pick.clone())));
                if is_killed {
                    home.alive.clear();
                    home.repair();
                } else {
                    home.end("0", usize::MAX);
                }
                assert_eq!(home.value(), after, "{wish:?} {pick} {is_killed}");
                assert_eq!(home.picked, picked, "{wish:?} {pick} {is_killed}");
                assert_eq!(home.journal, None);
            }
        }
    }
}

#[test]
fn l15_a_pick_in_a_lease_that_passes_on_does_not_come_back() {
    let mut home = Home::with(Some("{}"));
    home.begin("0", Wish::Auto, usize::MAX);
    home.begin("1", Wish::Auto, usize::MAX);
    home.save(|all| drop(all.insert("model".to_owned(), json!(OURS))));
    // The holder is killed; a third one sees it and hands the lease on while the second may still use its model.
    home.alive.remove("0");
    assert_eq!(
        home.begin("2", Wish::Auto, usize::MAX),
        Some(Came::HandedOver)
    );
    home.end("2", usize::MAX);
    home.end("1", usize::MAX);
    assert_eq!(home.value(), json!({}));
    assert_eq!(home.picked, Some(Some(OURS.to_owned())));
}

#[test]
fn b03_what_a_lost_journal_left_behind_is_no_original() {
    let mut home = Home::with(Some("{\"a\":1}"));
    home.begin("0", Wish::Auto, usize::MAX);
    home.alive.clear();
    home.journal = None;
    // A ccx with other directories may still serve it.
    home.is_listening = true;
    let leased = home.file.clone();
    assert_eq!(
        home.begin("1", Wish::Auto, usize::MAX),
        Some(Came::Elsewhere)
    );
    home.end("1", usize::MAX);
    assert_eq!((&home.file, &home.journal), (&leased, &None));
    home.is_listening = false;
    assert_eq!(home.begin("2", Wish::Auto, usize::MAX), Some(Came::Taken));
    home.end("2", usize::MAX);
    assert_eq!(home.text(), "{\"a\":1}");
}

/// What a person, a client or the machine may do.
#[derive(Clone, Debug)]
enum Deed {
    Begin(u8, Wish),
    End(u8),
    Kill(u8),
    Served,
    Foreign(bool),
    Land,
    Look,
    Set(&'static str, &'static str),
    Unset(&'static str),
    Theme(u8),
    Delete,
}

fn deed() -> impl Strategy<Value = Deed> {
    let id = 0..3u8;
    let key = prop::sample::select(&["ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "OTHER"][..]);
    let wish = prop::sample::select(&Wish::ALL[..]);
    prop_oneof![
        4 => (id.clone(), wish).prop_map(|(id, wish)| Deed::Begin(id, wish)),
        4 => id.clone().prop_map(Deed::End),
        2 => id.prop_map(Deed::Kill),
        1 => Just(Deed::Served),
        1 => any::<bool>().prop_map(Deed::Foreign),
        2 => Just(Deed::Land),
        1 => Just(Deed::Look),
        2 => key.clone().prop_map(|key| Deed::Set(key, "theirs")),
        1 => key.prop_map(Deed::Unset),
        2 => any::<u8>().prop_map(Deed::Theme),
        1 => Just(Deed::Delete),
    ]
}

/// Without what makes no difference: an `env` that is empty, a file that holds nothing.
fn meaning(file: Option<&Content>) -> Value {
    let text = file.map_or("{}", |content| content.text.trim_start_matches('\u{feff}'));
    let mut value: Value = serde_json::from_str(text).unwrap();
    if value["env"].as_object().is_some_and(Map::is_empty) {
        value.as_object_mut().unwrap().remove("env");
    }
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn l09_whatever_others_write_survives_and_nothing_of_ours_does(
        file in prop::sample::select(FILES),
        deeds in prop::collection::vec((deed(), prop_oneof![3 => Just(usize::MAX), 1 => 0..4usize]), 0..24),
    ) {
        let mut home = Home::with(file);
        // The same home without ccx.
        let mut native = home.clone();
        for (deed, limit) in deeds {
            match deed {
                Deed::Begin(id, wish) => {
                    if !home.alive.contains(&id.to_string()) {
                        home.begin(&id.to_string(), wish, limit);
                    }
                }
                Deed::End(id) => {
                    if home.alive.contains(&id.to_string()) {
                        home.end(&id.to_string(), limit);
                    }
                }
                Deed::Kill(id) => drop(home.alive.remove(&id.to_string())),
                Deed::Served => {
                    let holder = home.journal().and_then(|journal| Some(journal.holder()?.id.clone()));
                    if let Some(id) = holder {
                        home.happen(&Event::Served { id }, limit);
                    }
                }
                Deed::Foreign(is) => home.is_foreign = is,
                Deed::Land => home.land(limit),
                Deed::Look => drop(home.happen(&Event::Look, limit)),
                Deed::Set(key, value) => for home in [&mut home, &mut native] {
                    home.save(|all| {
                        let env = all.entry("env").or_insert_with(|| json!({}));
                        env[key] = json!(value);
                    });
                },
                Deed::Unset(key) => for home in [&mut home, &mut native] {
                    home.save(|all| {
                        if let Some(env) = all.get_mut("env") {
                            env.as_object_mut().unwrap().remove(key);
                        }
                    });
                },
                Deed::Theme(value) => for home in [&mut home, &mut native] {
                    home.save(|all| drop(all.insert("theme".to_owned(), json!(value))));
                },
                Deed::Delete => {
                    home.file = None;
                    native.file = None;
                }
            }
        }
        home.alive.clear();
        home.repair();
        prop_assert_eq!(meaning(home.file.as_ref()), meaning(native.file.as_ref()));
        prop_assert_eq!(home.journal, None);
    }
}
