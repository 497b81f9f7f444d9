//! Conversations whose sealed reasoning upstream could not read.
//!
//! Such reasoning stays in the client's history and would fail every later turn. So a conversation gets a new epoch, and
//! with it another origin: what was sealed before is foreign from then on and left out, what comes after is replayed as
//! ever. Works on values only; an epoch that was forgotten is found again by the next refusal.

use std::collections::VecDeque;

use crate::translate::reasoning::Origin;

/// Conversations that are remembered.
const KEPT: usize = 64;

/// The epochs of conversations that are not in their first.
#[derive(Debug, Default)]
pub struct Seals {
    /// The one that was refused last is last.
    epochs: VecDeque<(String, u32)>,
}

impl Seals {
    /// Returns the origin of reasoning that `model` makes for `conversation` under an account now.
    pub fn origin(&self, conversation: &str, account_id: &str, model: &str) -> Origin {
        let known = self.epochs.iter().find(|(known, _)| known == conversation);
        match known {
            None => Origin::new(account_id, model),
            Some((_, epoch)) => Origin::new(&format!("{account_id}#{epoch}"), model),
        }
    }

    /// Takes in that reasoning of the conversation's present epoch could not be read.
    pub fn broke(&mut self, conversation: &str) {
        let at = self
            .epochs
            .iter()
            .position(|(known, _)| known == conversation);
        let before = at.and_then(|at| self.epochs.remove(at));
        if self.epochs.len() >= KEPT {
            self.epochs.pop_front();
        }
        let epoch = before.map_or(1, |(_, epoch)| epoch.saturating_add(1));
        self.epochs.push_back((conversation.to_owned(), epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_that_broke_is_of_another_origin_and_no_other_is() {
        let mut seals = Seals::default();
        let origin = |seals: &Seals, conversation: &str| seals.origin(conversation, "acc", "m");
        let first = origin(&seals, "a");
        assert_eq!(first, Origin::new("acc", "m"));
        seals.broke("a");
        let second = origin(&seals, "a");
        assert_ne!(first, second);
        assert_eq!(origin(&seals, "b"), first);
        assert_eq!(origin(&seals, "a"), second);
        seals.broke("a");
        assert_ne!(origin(&seals, "a"), second);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seals = Seals::default();
        for number in 0..2 * KEPT {
            seals.broke(&number.to_string());
        }
        assert_eq!(seals.epochs.len(), KEPT);
    }
}
