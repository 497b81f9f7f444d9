//! Which account each conversation is on: a bounded memory, nothing more.

use std::collections::HashMap;

/// How many conversations are remembered. One that was forgotten begins anew, at worst on another account.
pub const LIMIT: usize = 512;

/// One thread of talk: the main conversation of a session, or one of its subagents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Talk {
    /// The session.
    pub session: String,
    /// The subagent; empty for the main conversation.
    pub agent: String,
}

impl Talk {
    /// Returns the main conversation of the same session.
    pub fn main(&self) -> Self {
        Self {
            session: self.session.clone(),
            agent: String::new(),
        }
    }
}

/// Where a conversation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// ccx's own id of the account.
    pub account: String,
    /// Whether it answered there: then upstream keeps a cache of it, which a move loses.
    pub has_answered: bool,
}

/// Conversations and their accounts. The one not asked for longest is forgotten first.
#[derive(Debug, Default)]
pub struct Bindings {
    bound: HashMap<Talk, (Bound, u64)>,
    ticks: u64,
}

impl Bindings {
    /// Returns where `talk` is.
    pub fn get(&mut self, talk: &Talk) -> Option<&Bound> {
        self.ticks += 1;
        let (bound, touched) = self.bound.get_mut(talk)?;
        *touched = self.ticks;
        Some(bound)
    }

    /// Puts `talk` on `account` and returns where it was, if that was elsewhere.
    pub fn put(&mut self, talk: &Talk, account: &str) -> Option<Bound> {
        self.ticks += 1;
        let new = Bound {
            account: account.to_owned(),
            has_answered: false,
        };
        if let Some((bound, touched)) = self.bound.get_mut(talk) {
            *touched = self.ticks;
            let is_elsewhere = bound.account != account;
            return is_elsewhere.then(|| std::mem::replace(bound, new));
        }
        if self.bound.len() >= LIMIT {
            let oldest = self.bound.iter().min_by_key(|(_, (_, touched))| *touched);
            if let Some(oldest) = oldest.map(|(talk, _)| talk.clone()) {
                self.bound.remove(&oldest);
            }
        }
        self.bound.insert(talk.clone(), (new, self.ticks));
        None
    }

    /// Notes that `talk` was answered on `account`; if it has moved meanwhile, nothing.
    pub fn answered(&mut self, talk: &Talk, account: &str) {
        if let Some((bound, _)) = self.bound.get_mut(talk)
            && bound.account == account
        {
            bound.has_answered = true;
        }
    }

    /// Forgets every conversation that is on `account`.
    pub fn forget(&mut self, account: &str) {
        self.bound.retain(|_, (bound, _)| bound.account != account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(session: impl ToString, agent: &str) -> Talk {
        Talk {
            session: session.to_string(),
            agent: agent.to_owned(),
        }
    }

    #[test]
    fn a_conversation_stays_until_it_is_moved() {
        let mut bindings = Bindings::default();
        let main = talk("s", "");
        assert_eq!(bindings.get(&main), None);
        assert_eq!(bindings.put(&main, "a"), None);
        assert_eq!(bindings.put(&main, "a"), None);
        assert_eq!(bindings.get(&talk("s", "agent")), None);
        assert_eq!(talk("s", "agent").main(), main);
        bindings.answered(&main, "b");
        bindings.answered(&main, "a");
        let was = Bound {
            account: "a".to_owned(),
            has_answered: true,
        };
        assert_eq!(bindings.put(&main, "b"), Some(was));
        assert!(!bindings.get(&main).unwrap().has_answered);
        bindings.forget("b");
        assert_eq!(bindings.get(&main), None);
    }

    #[test]
    fn the_one_not_asked_for_longest_is_forgotten() {
        let mut bindings = Bindings::default();
        for number in 0..LIMIT {
            bindings.put(&talk(number, ""), "a");
        }
        bindings.get(&talk(0, ""));
        for number in LIMIT..LIMIT + 5 {
            bindings.put(&talk(number, ""), "a");
        }
        assert_eq!(bindings.bound.len(), LIMIT);
        assert!(bindings.get(&talk(0, "")).is_some());
        assert!(bindings.get(&talk(5, "")).is_none());
        assert!(bindings.get(&talk(6, "")).is_some());
    }
}
