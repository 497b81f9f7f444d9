//! Who points the user's settings file at its proxy next, and what has to be written for it, in which order.
//!
//! A decision: the journal as it is on disk, the file as it is now and what happened go in, steps come out. Knows no
//! files, locks, clocks or processes (see `lease`). Whoever carries the steps out may die after each of them: the
//! next look at the same file goes on from there.

use super::journal::{Clean, Content, Current, Holder, Journal, Lease, Session, Wish, Write};
use super::journal::{model_in, places};

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session starts.
    Begin {
        /// It; [`Session::inherits`] is decided here.
        session: Session,
        /// The models that it offers under names that mean nothing without ccx.
        models: Vec<String>,
        /// Whether the file's directory has to be made for it.
        is_first: bool,
    },
    /// A session ends.
    End {
        /// Its name.
        id: String,
    },
    /// The lease of a session has served a client that ccx did not start.
    Served {
        /// Its name.
        id: String,
    },
    /// Somebody looks whether there is something to repair.
    Look,
    /// The time of a landing is over.
    Landed {
        /// The process that waited for it.
        lander: String,
    },
}

/// What is known besides.
pub struct Now<'a> {
    /// The file.
    pub current: &'a Current,
    /// Whether the session or lander of that name lives.
    pub is_alive: &'a dyn Fn(&str) -> bool,
    /// Whether somebody listens at that address, of which no journal of ours tells.
    pub is_listening: &'a dyn Fn(&str) -> bool,
    /// Whether a client that ccx did not start is running.
    pub is_foreign: bool,
    /// The name of a lander, should one be needed.
    pub lander: &'a str,
}

/// One thing to do. None of them is begun before the one before it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keep this journal.
    Keep(Box<Journal>),
    /// Forget the journal.
    Forget,
    /// Remember which model of ours the person has picked; `None`: something else.
    Remember(Option<String>),
    /// Replace the file, if it still is what was seen; `None`: remove it.
    Replace(Option<Content>),
    /// Remove the file's directory, if nobody has put anything into it.
    RemoveDirectory,
}

/// What the steps come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Nothing: the file is the user's.
    Nothing,
    /// The session that starts holds the lease.
    Taken,
    /// A session holds it as before.
    Stays,
    /// It passes to another session.
    HandedOver,
    /// Running clients are told first.
    Landing,
    /// The file is given back.
    GivenBack,
    /// The file cannot be edited now; a journal that is needed later stays.
    Stuck,
    /// A ccx with other directories holds the file.
    Elsewhere,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In this order.
    pub steps: Vec<Step>,
    /// What they come to.
    pub came: Came,
}

/// What becomes of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// There is none, and there will be none.
    None,
    /// It stays as it is.
    Stays,
    /// The session that starts takes it, over whatever is left of another.
    Take,
    /// It passes to the session of that name.
    HandOver(String),
    /// It ends, and running clients are told.
    Land,
    /// It ends.
    GiveBack,
}

/// Decides what `event` leads to. `journal` is the one on disk; without one, nobody has touched the file `target`.
pub fn decide(journal: Option<&Journal>, target: &str, event: &Event, now: &Now<'_>) -> Outcome {
    let mut next = match journal {
        Some(journal) => journal.clone(),
        None => Journal::new(target.to_owned()),
    };
    next.sessions.retain(|session| (now.is_alive)(&session.id));
    // While a session runs, what its user has picked may stand in the file.
    let mut is_over = next.sessions.is_empty();
    match event {
        Event::Begin { models, .. } => {
            let known = &mut next.model.ours;
            for name in models {
                if !known.contains(name) {
                    known.push(name.clone());
                }
            }
        }
        Event::End { id } => {
            next.sessions.retain(|session| session.id != *id);
            is_over = true;
        }
        Event::Served { id } => {
            if let Some(lease) = &mut next.lease
                && lease.holder == Holder::Session(id.clone())
            {
                lease.served = true;
            }
            return Outcome {
                steps: kept(journal, next),
                came: Came::Nothing,
            };
        }
        Event::Look | Event::Landed { .. } => {}
    }
    if journal.is_none() {
        next.model.before = now.current.model().map(str::to_owned);
    }
    if let Some(came) = refusal(&next, event, now) {
        if let Event::Begin { session, .. } = event {
            let inherits = came == Came::Stuck && session.wish != Wish::Never && next.is_leased();
            next.sessions.push(Session {
                inherits,
                ..session.clone()
            });
        }
        return Outcome {
            steps: kept(journal, next),
            came,
        };
    }
    let clean = next
        .clean(now.current, is_over)
        .expect("what cannot be edited was refused");
    let mut steps = Vec::new();
    if let Some(pick) = &clean.pick {
        steps.push(Step::Remember(pick.clone()));
        next.model.before = model_in(clean.content.as_ref());
    }
    let plan = plan(&next, &clean, event, now);
    if let Event::Begin { session, .. } = event {
        next.sessions.push(Session {
            inherits: inherits(&next, &plan, session.wish),
            ..session.clone()
        });
    }
    let came = carry_out(&plan, journal, next, clean, event, now, &mut steps);
    Outcome { steps, came }
}

/// Why the file is not edited, if it is not.
fn refusal(journal: &Journal, event: &Event, now: &Now<'_>) -> Option<Came> {
    match now.current {
        Current::Absent => None,
        Current::Unusable(_) => {
            let is_wished =
                matches!(event, Event::Begin { session, .. } if session.wish != Wish::Never);
            Some(match is_wished || journal.is_leased() {
                true => Came::Stuck,
                false => Came::Nothing,
            })
        }
        Current::File { document, .. } => {
            let is_theirs = journal.is_stray(document)
                && (now.current.leased_to()).is_some_and(|url| (now.is_listening)(&url));
            is_theirs.then_some(Came::Elsewhere)
        }
    }
}

/// Decides what becomes of the lease.
fn plan(journal: &Journal, clean: &Clean, event: &Event, now: &Now<'_>) -> Plan {
    let may_take = match event {
        Event::Begin { session, .. } => match session.wish {
            Wish::Auto => !now.is_foreign,
            Wish::Always => true,
            Wish::Never => false,
        },
        _ => false,
    };
    let Some(lease) = &journal.lease else {
        return if may_take { Plan::Take } else { Plan::None };
    };
    let end = |is_told| match is_told && clean.needs_landing() {
        true => Plan::Land,
        false => Plan::GiveBack,
    };
    match &lease.holder {
        Holder::Session(id) if journal.session(id).is_some() => Plan::Stays,
        Holder::Session(_) => match heir(journal) {
            Some(heir) => Plan::HandOver(heir.id.clone()),
            None if may_take => Plan::Take,
            None => end(lease.served || lease.drew || now.is_foreign),
        },
        Holder::Lander(_) if may_take => Plan::Take,
        Holder::Lander(id) => match event {
            Event::Landed { lander } if lander == id => Plan::GiveBack,
            _ if (now.is_alive)(id) => Plan::Stays,
            // It died: those whom it waited for may not have seen the landing values.
            _ => end(true),
        },
    }
}

/// The session that the lease passes to: the one that has run longest.
fn heir(journal: &Journal) -> Option<&Session> {
    journal.sessions.iter().find(|session| session.inherits)
}

/// Says whether the lease may pass to the session that starts. A client that ran before a session with
/// [`Wish::Auto`] must not be drawn to it: it only inherits a lease that drew in nobody (contract supervision L8).
fn inherits(journal: &Journal, plan: &Plan, wish: Wish) -> bool {
    match wish {
        Wish::Never => false,
        Wish::Always => true,
        Wish::Auto => {
            let is_held = match plan {
                Plan::Take | Plan::HandOver(_) => true,
                Plan::Stays => journal.lander().is_none(),
                Plan::None | Plan::Land | Plan::GiveBack => false,
            };
            is_held && !journal.lease.as_ref().is_some_and(|lease| lease.drew)
        }
    }
}

/// Adds the steps that `plan` takes, and says what they come to.
fn carry_out(
    plan: &Plan,
    journal: Option<&Journal>,
    mut next: Journal,
    clean: Clean,
    event: &Event,
    now: &Now<'_>,
    steps: &mut Vec<Step>,
) -> Came {
    let old = next.lease.take();
    let (holder, places, came) = match plan {
        Plan::None | Plan::GiveBack => {
            let is_changed = clean.content != now.current.content();
            let is_made = old.as_ref().is_some_and(|lease| lease.made_directory);
            let is_removed = is_made && clean.content.is_none();
            if is_changed {
                steps.push(Step::Replace(clean.content));
            }
            if is_removed {
                steps.push(Step::RemoveDirectory);
            }
            steps.extend(kept(journal, next));
            return match old.is_some() || is_changed {
                true => Came::GivenBack,
                false => Came::Nothing,
            };
        }
        Plan::Stays => {
            let lease = old.as_ref().expect("it stays");
            let came = match lease.holder {
                Holder::Session(_) => Came::Stays,
                Holder::Lander(_) => Came::Landing,
            };
            // A model of ours has to go although the lease stays; nothing else is written.
            if !matches!(clean.pick, Some(Some(_))) {
                next.lease = old;
                steps.extend(kept(journal, next));
                return came;
            }
            (lease.holder.clone(), clean.keys, came)
        }
        Plan::Take => {
            let Event::Begin { session, .. } = event else {
                unreachable!("only a session that starts takes it")
            };
            let holder = Holder::Session(session.id.clone());
            (holder, places().to_vec(), Came::Taken)
        }
        Plan::HandOver(id) => (Holder::Session(id.clone()), clean.keys, Came::HandedOver),
        Plan::Land => {
            let lander = Holder::Lander(now.lander.to_owned());
            (lander, clean.keys, Came::Landing)
        }
    };
    let is_told = matches!(old.as_ref().map(|old| &old.holder), Some(Holder::Lander(_)));
    let write = match &holder {
        Holder::Session(id) => {
            let session = next
                .session(id)
                .expect("only a session that lives holds it");
            Write::Session(session)
        }
        Holder::Lander(_) => Write::Landing,
    };
    let (mut lease, content) = Lease::plan(
        old,
        now.current,
        clean.content,
        &places,
        (holder.clone(), write),
    );
    if came == Came::Taken {
        lease.made_directory |= matches!(event, Event::Begin { is_first: true, .. });
        lease.drew |= now.is_foreign;
        // Whoever was being told may not have seen it yet.
        lease.served |= is_told;
    }
    next.lease = Some(lease);
    steps.push(Step::Keep(Box::new(next)));
    if content != now.current.content() {
        steps.push(Step::Replace(content));
    }
    came
}

/// The steps that keep `next` in the place of `journal`.
fn kept(journal: Option<&Journal>, next: Journal) -> Vec<Step> {
    let is_over = next.sessions.is_empty() && !next.is_leased();
    match journal {
        None if is_over => Vec::new(),
        Some(_) if is_over => vec![Step::Forget],
        Some(same) if *same == next => Vec::new(),
        _ => vec![Step::Keep(Box::new(next))],
    }
}
