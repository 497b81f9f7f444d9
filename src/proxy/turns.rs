//! Upstream's state of each turn that is under way, to be sent back within that turn (contract
//! chatgpt-codex §2.1).
//!
//! Works on values only. What was kept can be lost without harm: upstream then serves the turn as if
//! it were a new one.

use std::collections::VecDeque;

use crate::catalogue::model::Lane;
use crate::proxy::class::RequestClass;
use crate::wire::newest::Newest;

/// Turns that are kept: a session's main conversation and subagents, for more sessions than a person has.
const KEPT: usize = 256;

/// The longest state that is kept; it has to fit a header.
const LONGEST: usize = 4096;

/// Whose turn it is. Requests that differ in one of these know nothing of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// The conversation's key.
    pub conversation: String,
    /// The subagent; empty for the main conversation.
    pub agent: String,
    /// What the request is for: a title or a permission check in between is no part of the turn.
    pub class: RequestClass,
    /// Whether tools are offered: not every request in between is known for what it is, and those offer none.
    pub has_tools: bool,
    /// ccx's own id of the account.
    pub account: String,
    /// Upstream's name of the model.
    pub model: String,
    /// The form of the request.
    pub lane: Lane,
    /// The service tier asked for.
    pub tier: Option<&'static str>,
}

/// The turns under way.
#[derive(Debug, Default)]
pub struct Turns {
    /// Least recently used first.
    kept: VecDeque<(Whose, String)>,
}

impl Turns {
    /// Returns what has to be sent back with a request that brings `newest`. A turn that begins forgets the one
    /// before.
    pub fn resume(&mut self, whose: &Whose, newest: Newest) -> Option<String> {
        let at = self.kept.iter().position(|(known, _)| known == whose)?;
        let turn = self.kept.remove(at)?;
        match newest {
            Newest::Prompt => None,
            Newest::Results { .. } => {
                let state = turn.1.clone();
                self.kept.push_back(turn);
                Some(state)
            }
        }
    }

    /// Keeps the state that an answer told. The first one of a turn counts.
    pub fn keep(&mut self, whose: &Whose, state: &str) {
        if state.len() > LONGEST || self.kept.iter().any(|(known, _)| known == whose) {
            return;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((whose.clone(), state.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULTS: Newest = Newest::Results { has_failed: false };

    fn whose(agent: &str) -> Whose {
        Whose {
            conversation: "c".into(),
            agent: agent.into(),
            ..Whose::default()
        }
    }

    #[test]
    fn a_state_lasts_as_long_as_its_turn() {
        let mut turns = Turns::default();
        let main = whose("");
        assert_eq!(turns.resume(&main, RESULTS), None);
        turns.keep(&main, "s1");
        // A later answer of the same turn may tell another one.
        turns.keep(&main, "s2");
        assert_eq!(turns.resume(&main, RESULTS).as_deref(), Some("s1"));
        assert_eq!(turns.resume(&main, RESULTS).as_deref(), Some("s1"));
        assert_eq!(turns.resume(&main, Newest::Prompt), None);
        assert_eq!(turns.resume(&main, RESULTS), None);
        turns.keep(&main, "s3");
        assert_eq!(turns.resume(&main, RESULTS).as_deref(), Some("s3"));
    }

    #[test]
    fn nobody_is_sent_the_state_of_another() {
        let mut turns = Turns::default();
        turns.keep(&whose(""), "main");
        turns.keep(&whose("a1"), "agent");
        let check = Whose {
            class: RequestClass::Auxiliary,
            ..whose("")
        };
        assert_eq!(turns.resume(&check, Newest::Prompt), None);
        assert_eq!(turns.resume(&whose(""), RESULTS).as_deref(), Some("main"));
        assert_eq!(
            turns.resume(&whose("a1"), RESULTS).as_deref(),
            Some("agent")
        );
        assert_eq!(turns.resume(&whose("a2"), RESULTS), None);
        // [E14]
        for other in [
            Whose {
                lane: Lane::Lite,
                ..whose("")
            },
            Whose {
                tier: Some("priority"),
                ..whose("")
            },
            Whose {
                has_tools: true,
                ..whose("")
            },
        ] {
            assert_eq!(turns.resume(&other, RESULTS), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut turns = Turns::default();
        turns.keep(&whose("long"), &"x".repeat(LONGEST + 1));
        assert_eq!(turns.kept.len(), 0);
        for number in 0..KEPT {
            turns.keep(&whose(&number.to_string()), "s");
        }
        // In use again, hence not the next to go.
        assert!(turns.resume(&whose("0"), RESULTS).is_some());
        turns.keep(&whose("new"), "s");
        assert_eq!(turns.kept.len(), KEPT);
        assert!(turns.resume(&whose("0"), RESULTS).is_some());
        assert!(turns.resume(&whose("1"), RESULTS).is_none());
    }
}
