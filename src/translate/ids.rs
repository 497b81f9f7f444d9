//! Call ids: what ties a tool result to its call.
//!
//! Upstream refuses ids of more than 64 characters (contract chatgpt-codex §5.2) but mints longer
//! ones itself, so the shortening depends on the id alone: it is the same on the call, on its
//! result and in every later request.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::translate::names::hex;

/// The longest id, in characters.
const LONGEST: usize = 64;

/// Hex digits of the digest that replaces the end of a long id.
const DIGEST_DIGITS: usize = 32;

/// Returns the id to send upstream for the client's `id`.
///
/// `earlier` is how many calls before this one had the same id: those are told apart.
pub(super) fn call_id(id: Cow<'_, str>, earlier: usize) -> Cow<'_, str> {
    let is_short = id.len() <= LONGEST || id.chars().count() <= LONGEST;
    if earlier == 0 && is_short && !id.is_empty() {
        return id;
    }
    let mut digest = Sha256::new();
    digest.update(id.as_bytes());
    if earlier > 0 {
        digest.update([0]);
        digest.update((earlier as u64).to_le_bytes());
    }
    let mut short: String = id.chars().take(LONGEST - 1 - DIGEST_DIGITS).collect();
    short.push('_');
    short.push_str(&hex(&digest.finalize(), DIGEST_DIGITS));
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_up_to_the_limit_stay_and_longer_ones_are_told_apart() {
        let id = |length: usize, last: &str| format!("{}{last}", "c".repeat(length - 1));
        for kept in ["toolu_01", "ünïcödé", &id(64, "x")] {
            assert_eq!(call_id(kept.into(), 0), kept);
        }
        let a = call_id(id(65, "a").into(), 0).into_owned();
        let b = call_id(id(65, "b").into(), 0).into_owned();
        assert_ne!(a, b);
        assert_eq!((a.len(), b.len()), (64, 64));
        assert_eq!(call_id(id(65, "a").into(), 0), a);
        assert!(!call_id("".into(), 0).is_empty());
    }

    #[test]
    fn calls_with_one_id_are_told_apart() {
        let ids: std::collections::BTreeSet<_> = (0..4).map(|n| call_id("a".into(), n)).collect();
        assert_eq!(ids.len(), 4);
    }
}
