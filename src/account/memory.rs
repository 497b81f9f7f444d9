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

/// What a choice is about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) view: &'a View,
    pub(super) rules: &'a Rules,
    pub(super) talk: &'a Talk,
    /// Upstream's name of the model.
    pub(super) model: &'a str,
    /// What is left of an account's tightest window, in percent.
    pub(super) gauge: &'a dyn Fn(&str, UnixSeconds) -> Option<f64>,
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
                remaining_percent: (asked.gauge)(id, now),
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
