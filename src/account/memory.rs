//! What a chooser knows of accounts and conversations, and what it decides by it.
//!
//! A value that is fed: knows no clock and no disk. `chooser` asks the disk and keeps this.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::account::bindings::{Bindings, Bound, Talk};
use crate::account::freshness::{Freshness, freshness};
use crate::account::health::{Cooldown, Health, Note, Trouble};
use crate::account::record::Record;
use crate::account::select::{SelectError, select};
use crate::account::strategy::{self, Candidate, Strategy, choose};
use crate::time::UnixSeconds;

/// How long an account is passed over for which no token was to be had: signing in again should not take a
/// restart.
const SIGNED_OUT: Duration = Duration::from_secs(60);

/// How long a model counts as not served that upstream refused although the account's list has it.
const REFUSED: Duration = Duration::from_secs(3_600);

/// How often upstream is asked although every account is known to be refused: quota may be back early, and only
/// upstream knows.
const PROBE: Duration = Duration::from_secs(60);

/// Notes that wait for a disk that does not take them.
const LONGEST_QUEUE: usize = 64;

/// What a proxy may do with accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// ccx's own id of the account that conversations begin on; `None` is the active one at that time.
    pub home: Option<String>,
    /// Whether `home` is never left, whatever happens.
    pub is_pinned: bool,
    /// How new conversations are given to accounts.
    pub strategy: Strategy,
    /// Whether a conversation moves to another account when its own no longer serves.
    pub failover: bool,
}

impl Rules {
    /// Says whether a conversation may move.
    pub const fn may_move(&self) -> bool {
        self.failover && !self.is_pinned
    }

    /// Says whether conversations may be on different accounts.
    pub fn may_spread(&self) -> bool {
        !self.is_pinned && (self.failover || self.strategy != Strategy::Sticky)
    }

    /// Returns the only account there is for this proxy, if there is only one.
    pub(super) fn only(&self) -> Option<&str> {
        self.home.as_deref().filter(|_| !self.may_spread())
    }
}

/// The account for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// ccx's own id of the account.
    pub account: String,
    /// Where the conversation was until now, if that was elsewhere.
    pub left: Option<Bound>,
}

/// How things stand with all accounts, for the words that a person reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// How many accounts there are.
    pub accounts: usize,
    /// The names of those that would serve, but for the one that was asked.
    pub free: Vec<String>,
    /// Which one is free first, and when, where none is.
    pub soonest: Option<(String, UnixSeconds)>,
    /// Whether the conversation was pinned to its account.
    pub is_pinned: bool,
    /// Whether it was allowed to move.
    pub may_move: bool,
}

/// Why an account no longer serves a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setback {
    /// A limit was reached.
    Limit(Cooldown),
    /// No token that upstream takes is to be had.
    SignedOut,
    /// The account is not served the model, whatever its list says.
    ModelRefused,
}

/// What to do with a request whose account no longer serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask on this account.
    Move(Pick),
    /// Tell the client.
    Stay(Outlook),
}

/// Why no account was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPick {
    /// Nobody is signed in.
    Nobody,
    /// It is not clear who is meant.
    Select(SelectError),
    /// All accounts are refused for now, and upstream was asked just before.
    Exhausted(Outlook),
}

/// What an account's gauges show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Level {
    /// What is left of its tightest window, in percent; `None` when nothing was told.
    pub remaining_percent: Option<f64>,
    /// When upstream said that nothing stops the account: what it refused before that is over.
    pub free_as_of: Option<UnixSeconds>,
}

/// What a choice is about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) view: &'a View,
    pub(super) rules: &'a Rules,
    pub(super) talk: &'a Talk,
    /// Upstream's name of the model.
    pub(super) model: &'a str,
    /// What an account's gauges show.
    pub(super) gauge: &'a dyn Fn(&str, UnixSeconds) -> Level,
    pub(super) now: UnixSeconds,
}

#[derive(Default)]
pub(super) struct Memory {
    pub(super) bindings: Bindings,
    pub(super) health: Health,
    /// Learnt and not yet on disk.
    pub(super) pending: Vec<(String, Note)>,
    /// When the disk last knew everything.
    pub(super) written: UnixSeconds,
    /// By account: the number of the last choice that fell on it.
    turns: HashMap<String, u64>,
    turn: u64,
    /// By account and model: until when it counts as not served.
    refused: HashMap<(String, String), UnixSeconds>,
    /// By account: until when it is passed over.
    passed_over: HashMap<String, UnixSeconds>,
    /// When upstream was last asked although nobody was free.
    probed: Option<UnixSeconds>,
}

/// What the disk says.
pub(super) struct View {
    pub(super) accounts: Vec<Record>,
    /// The id of the active one.
    pub(super) active: Option<String>,
    /// By account: the names of its models, where they are known.
    pub(super) lists: HashMap<String, Vec<String>>,
    /// A damaged store, when no account is left.
    pub(super) set_aside: Option<PathBuf>,
}

/// What the disk knows after it was given `pending`, and what it did not take.
pub(super) struct Written {
    pub(super) health: Health,
    pub(super) left: Vec<(String, Note)>,
}

impl Memory {
    /// Says whether `account` would serve `model`, as far as memory goes.
    pub(super) fn is_free(&self, account: &str, model: &str, now: UnixSeconds) -> bool {
        self.health.cooling_until(account, model, now).is_none()
            && !self.is_refused(account, model, now)
            && !self.is_passed_over(account, now)
    }

    fn is_refused(&self, account: &str, model: &str, now: UnixSeconds) -> bool {
        let key = (account.to_owned(), model.to_owned());
        self.refused.get(&key).is_some_and(|until| *until > now)
    }

    fn is_passed_over(&self, account: &str, now: UnixSeconds) -> bool {
        let until = self.passed_over.get(account);
        until.is_some_and(|until| *until > now)
    }

    /// Takes `note` of `account` in, and keeps it for the disk.
    pub(super) fn learn(&mut self, account: &str, note: Note) {
        self.health.apply(account, &note);
        // Of several uses the last one says it all.
        if let Note::Served { model, .. } = &note {
            self.pending.retain(|(other, old)| {
                other != account
                    || !matches!(old, Note::Served { model: known, .. } if known == model)
            });
        }
        if self.pending.len() >= LONGEST_QUEUE {
            self.pending.remove(0);
        }
        self.pending.push((account.to_owned(), note));
    }

    /// Takes over what the disk knows; what was learnt meanwhile stays.
    pub(super) fn adopt(&mut self, done: Written, now: UnixSeconds) {
        let meanwhile = std::mem::replace(&mut self.pending, done.left);
        self.pending.extend(meanwhile);
        let over = self.pending.len().saturating_sub(LONGEST_QUEUE);
        self.pending.drain(..over);
        self.health = done.health;
        for (account, note) in &self.pending {
            self.health.apply(account, note);
        }
        self.written = now;
    }

    /// Takes in that `account` no longer serves `model`.
    pub(super) fn set_back(
        &mut self,
        account: &str,
        setback: Setback,
        model: &str,
        now: UnixSeconds,
    ) {
        let message = match setback {
            Setback::Limit(cooldown) => {
                self.learn(account, Note::Limit(cooldown));
                "a usage limit was reached".to_owned()
            }
            Setback::SignedOut => {
                let until = now.plus(SIGNED_OUT);
                self.passed_over.insert(account.to_owned(), until);
                "the sign-in was not accepted".to_owned()
            }
            Setback::ModelRefused => {
                self.refused.retain(|_, until| *until > now);
                let key = (account.to_owned(), model.to_owned());
                self.refused.insert(key, now.plus(REFUSED));
                format!("it is not served {model}")
            }
        };
        self.learn(account, Note::Trouble(Trouble::new(now, &message)));
    }

    fn candidates(&self, asked: Asked<'_>) -> Vec<Candidate> {
        let Asked {
            view, model, now, ..
        } = asked;
        let candidate = |record: &Record| {
            let id = record.id.as_str();
            let is_ended = freshness(record.expires_at, now) == Freshness::Expired;
            let lists_model = view
                .lists
                .get(id)
                .is_none_or(|slugs| slugs.iter().any(|slug| slug == model));
            Candidate {
                id: id.to_owned(),
                remaining_percent: (asked.gauge)(id, now).remaining_percent,
                cooling_until: self.health.cooling_until(id, model, now),
                last_used: self.health.last_used(id),
                turn: self.turns.get(id).copied().unwrap_or(0),
                is_dead: (record.dead.is_some() && is_ended) || self.is_passed_over(id, now),
                serves_model: lists_model && !self.is_refused(id, model, now),
            }
        };
        view.accounts.iter().map(candidate).collect()
    }

    /// Chooses for a conversation that is nowhere, or whose account no longer serves.
    pub(super) fn pick(&mut self, asked: Asked<'_>) -> Result<Pick, NoPick> {
        let Asked {
            view, rules, now, ..
        } = asked;
        let home = self.home(asked);
        // Without a home: the one that is meant when none is named.
        let at_home = || match home.as_deref().and_then(|home| view.record(home)) {
            Some(record) => Ok(record),
            None => view.selected(),
        };
        if rules.strategy == Strategy::Sticky && !rules.may_move() {
            return at_home().map(|record| self.bind(asked, &record.id));
        }
        self.read_gauges(asked);
        let mut candidates = self.candidates(asked);
        // Lists may be old: rather upstream says no than we do.
        if !candidates.iter().any(|one| one.serves_model) {
            for one in &mut candidates {
                one.serves_model = true;
            }
        }
        if let Some(one) = choose(&candidates, rules.strategy, home.as_deref(), now) {
            return Ok(self.bind(asked, &one.id));
        }
        let Some((first, _)) = strategy::soonest(&candidates, now) else {
            // Nobody can be used: the broker says why, in words, about the one that was meant.
            let record = at_home().or_else(|_| view.accounts.first().ok_or(NoPick::Nobody))?;
            return Ok(self.bind(asked, &record.id));
        };
        // The last account is never locked from here: upstream says it best itself.
        let is_last = candidates.iter().filter(|one| !one.is_dead).count() == 1;
        let is_due = self
            .probed
            .is_none_or(|probed| now < probed || now.since(probed) >= PROBE);
        if is_last || is_due || !rules.may_move() {
            self.probed = Some(now);
            return Ok(self.bind(asked, &first.id));
        }
        Err(NoPick::Exhausted(self.outlook(asked, "")))
    }

    /// Chooses for a request that `account` did not serve, but none of `tried`.
    pub(super) fn next(&mut self, asked: Asked<'_>, account: &str, tried: &[String]) -> Next {
        let Asked {
            view,
            rules,
            talk,
            now,
            ..
        } = asked;
        if rules.may_move() {
            self.read_gauges(asked);
            let mut candidates = self.candidates(asked);
            candidates.retain(|one| one.id != account && !tried.contains(&one.id));
            // Another request of the same conversation may have moved it already: follow it.
            let bound = self.bindings.get(talk).map(|bound| bound.account.clone());
            let followed = candidates
                .iter()
                .find(|one| Some(&one.id) == bound.as_ref() && one.is_free(now));
            let home = rules.home.as_deref().or(view.active.as_deref());
            if let Some(one) = followed.or_else(|| choose(&candidates, rules.strategy, home, now)) {
                return Next::Move(self.bind(asked, &one.id));
            }
            self.probed = Some(now);
        }
        Next::Stay(self.outlook(asked, account))
    }

    /// Ends the rests that are over by what the gauges show, whoever has read them.
    fn read_gauges(&mut self, asked: Asked<'_>) {
        for record in &asked.view.accounts {
            let Some(at) = (asked.gauge)(&record.id, asked.now).free_as_of else {
                continue;
            };
            let note = Note::Restored { at };
            if self.health.is_news(&record.id, &note) {
                self.learn(&record.id, note);
            }
        }
    }

    /// The account that a conversation would stay with.
    fn home(&mut self, asked: Asked<'_>) -> Option<String> {
        let Asked {
            view, rules, talk, ..
        } = asked;
        let mut at = |talk: &Talk| self.bindings.get(talk).map(|bound| bound.account.clone());
        at(talk)
            .or_else(|| at(&talk.main()))
            .or_else(|| rules.home.clone())
            .or_else(|| view.active.clone())
    }

    fn bind(&mut self, asked: Asked<'_>, account: &str) -> Pick {
        self.turn += 1;
        self.turns.insert(account.to_owned(), self.turn);
        Pick {
            account: account.to_owned(),
            left: self.bindings.put(asked.talk, account),
        }
    }

    /// How things stand beside the account `but`.
    fn outlook(&self, asked: Asked<'_>, but: &str) -> Outlook {
        let Asked {
            view, rules, now, ..
        } = asked;
        let candidates = self.candidates(asked);
        let name = |one: &Candidate| view.record(&one.id).map(Record::name).unwrap_or_default();
        let free: Vec<String> = candidates
            .iter()
            .filter(|one| one.id != but && one.is_free(now))
            .map(name)
            .collect();
        let soonest = strategy::soonest(&candidates, now).map(|(one, until)| (name(one), until));
        Outlook {
            accounts: candidates.len(),
            soonest: soonest.filter(|_| free.is_empty()),
            free,
            is_pinned: rules.is_pinned,
            may_move: rules.may_move(),
        }
    }
}

impl View {
    fn record(&self, id: &str) -> Option<&Record> {
        self.accounts.iter().find(|record| record.id == id)
    }

    fn selected(&self) -> Result<&Record, NoPick> {
        select(&self.accounts, self.active.as_deref(), None).map_err(|error| match error {
            SelectError::Empty => NoPick::Nobody,
            other => NoPick::Select(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::health::Kind;
    use serde_json::json;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn at(after: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 + after)
    }

    fn view(ids: &[&str]) -> View {
        let record = |id: &&str| {
            let record = json!({"id": id, "source": {"kind": "own"}, "access_token": "t"});
            serde_json::from_value(record).unwrap()
        };
        View {
            accounts: ids.iter().map(record).collect(),
            active: Some(ids[0].to_owned()),
            lists: HashMap::new(),
            set_aside: None,
        }
    }

    fn limit(until: u64) -> Setback {
        Setback::Limit(Cooldown::told(Kind::Usage, Some(at(until)), NOW))
    }

    /// A memory in front of a store, asked by one conversation.
    struct Desk {
        memory: Memory,
        view: View,
        rules: Rules,
        /// Of account `a`.
        level: Level,
    }

    impl Desk {
        fn new(ids: &[&str]) -> Self {
            Self {
                memory: Memory::default(),
                view: view(ids),
                rules: Rules {
                    failover: true,
                    ..Rules::default()
                },
                level: Level::default(),
            }
        }

        fn with<T>(
            &mut self,
            now: UnixSeconds,
            act: impl FnOnce(&mut Memory, Asked<'_>) -> T,
        ) -> T {
            let talk = Talk {
                session: "s".to_owned(),
                agent: String::new(),
            };
            let level = self.level;
            let gauge = move |id: &str, _| if id == "a" { level } else { Level::default() };
            let asked = Asked {
                view: &self.view,
                rules: &self.rules,
                talk: &talk,
                model: "sol",
                gauge: &gauge,
                now,
            };
            act(&mut self.memory, asked)
        }

        fn pick(&mut self, now: UnixSeconds) -> Result<String, NoPick> {
            let picked = self.with(now, |memory, asked| memory.pick(asked));
            picked.map(|pick| pick.account)
        }
    }

    #[test]
    fn a_rest_is_over_when_the_gauges_show_so_later() {
        let mut desk = Desk::new(&["a", "b"]);
        desk.memory.set_back("a", limit(5_000), "sol", NOW);
        // What was read before says nothing, nor does the reading that came with the refusal.
        for (free_as_of, want) in [(None, "b"), (Some(NOW), "b"), (Some(at(1)), "a")] {
            desk.memory.bindings = Bindings::default();
            desk.level.free_as_of = free_as_of;
            assert_eq!(desk.pick(at(2)).unwrap(), want, "{free_as_of:?}");
        }
    }

    #[test]
    fn nobody_free_is_asked_once_a_minute_and_the_last_one_always() {
        let mut desk = Desk::new(&["a", "b"]);
        desk.memory.set_back("a", limit(5_000), "sol", NOW);
        desk.memory.set_back("b", limit(900), "sol", NOW);
        assert_eq!(desk.pick(at(1)).unwrap(), "b", "soonest");
        let Err(NoPick::Exhausted(outlook)) = desk.pick(at(60)) else {
            panic!("asked twice within a minute");
        };
        assert_eq!(outlook.soonest.unwrap().1, at(900));
        assert_eq!(desk.pick(at(61)).unwrap(), "b");
        // A clock that was set back does not lock anybody out.
        assert!(desk.pick(at(5)).is_ok());

        let mut desk = Desk::new(&["a"]);
        desk.memory.set_back("a", limit(5_000), "sol", NOW);
        for second in 1..5 {
            assert_eq!(desk.pick(at(second)).unwrap(), "a");
        }
    }

    #[test]
    fn a_second_request_follows_the_move_of_the_first() {
        let mut desk = Desk::new(&["a", "b", "c"]);
        desk.rules.strategy = Strategy::RoundRobin;
        let first = desk.pick(NOW).unwrap();
        desk.memory.set_back(&first, limit(5_000), "sol", NOW);
        let tried = [first.clone()];
        let mut next = || {
            let next = desk.with(NOW, |memory, asked| memory.next(asked, &first, &tried));
            let Next::Move(pick) = next else {
                panic!("{next:?}");
            };
            pick.account
        };
        assert_eq!(next(), next());
    }

    #[test]
    fn who_has_no_token_is_passed_over_for_a_minute() {
        let mut desk = Desk::new(&["a", "b"]);
        desk.memory.set_back("a", Setback::SignedOut, "sol", NOW);
        assert_eq!(desk.pick(at(59)).unwrap(), "b");
        desk.memory.bindings = Bindings::default();
        assert_eq!(desk.pick(at(60)).unwrap(), "a");
    }

    #[test]
    fn notes_that_the_disk_does_not_take_are_bounded_and_count_all_the_same() {
        let mut memory = Memory::default();
        for number in 0..LONGEST_QUEUE * 2 {
            memory.set_back(&number.to_string(), limit(50), "sol", NOW);
        }
        assert_eq!(memory.pending.len(), LONGEST_QUEUE);
        let left = std::mem::take(&mut memory.pending);
        memory.set_back("late", limit(50), "sol", NOW);
        let health = Health::default();
        memory.adopt(Written { health, left }, NOW);
        assert!(!memory.is_free("late", "sol", NOW));
        assert!(memory.pending.len() <= LONGEST_QUEUE);
    }
}
