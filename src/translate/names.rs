//! Tool names: what upstream takes (`[A-Za-z0-9_-]{1,64}`) and what the client called them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// The longest name that upstream takes.
const LONGEST: usize = 64;

/// Hex digits of the digest that makes a changed name unique.
const DIGEST_DIGITS: usize = 12;

/// Maps the names that had to be changed for upstream back to what the client said.
///
/// Empty for almost every request: names that upstream takes as they are do not appear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolNames {
    /// Upstream's name → the client's name.
    renamed: BTreeMap<String, String>,
}

impl ToolNames {
    /// Returns the client's name for `upstream_name`.
    pub fn original<'a>(&'a self, upstream_name: &'a str) -> &'a str {
        self.renamed
            .get(upstream_name)
            .map_or(upstream_name, String::as_str)
    }

    /// Remembers that `original` was sent upstream as `upstream_name`.
    pub fn insert(&mut self, upstream_name: String, original: String) {
        self.renamed.insert(upstream_name, original);
    }

    /// Returns the name to send upstream for `original`, and remembers it if it had to be changed.
    ///
    /// Depends on `original` alone, so that it is the same in every request, unless another tool
    /// really has the changed name (`is_taken`).
    pub fn rename<'a>(
        &mut self,
        original: Cow<'a, str>,
        is_taken: impl Fn(&str) -> bool,
    ) -> Cow<'a, str> {
        if is_legal(&original) {
            return original;
        }
        if let Some((known, _)) = self.renamed.iter().find(|(_, name)| **name == original) {
            return Cow::Owned(known.clone());
        }
        let changed = (0u32..)
            .map(|attempt| changed(&original, attempt))
            .find(|name| !is_taken(name) && !self.renamed.contains_key(name))
            .expect("some attempt out of 2^32 is free: requests are smaller than that");
        self.insert(changed.clone(), original.into_owned());
        Cow::Owned(changed)
    }
}

/// Says whether upstream takes `name` as it is.
pub(super) fn is_legal(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_legal_byte)
}

const fn is_legal_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// As much of `name` as is legal, and a digest of all of it.
fn changed(name: &str, attempt: u32) -> String {
    let mut changed: String = name
        .chars()
        .take(LONGEST - 1 - DIGEST_DIGITS)
        .map(|c| match u8::try_from(c) {
            Ok(byte) if is_legal_byte(byte) => c,
            _ => '_',
        })
        .collect();
    changed.push('_');
    let mut digest = Sha256::new();
    digest.update(name);
    digest.update(attempt.to_le_bytes());
    changed.push_str(&hex(&digest.finalize(), DIGEST_DIGITS));
    changed
}

/// The first `digits` hex digits of `bytes`.
pub(super) fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_stay_as_they_are() {
        let mut names = ToolNames::default();
        let longest = "x".repeat(64);
        for name in ["Bash", "mcp__srv__hello-1", longest.as_str()] {
            assert_eq!(names.rename(name.into(), |_| false), name);
        }
        assert_eq!(names, ToolNames::default());
    }

    #[test]
    fn changed_names_are_legal_distinct_stable_and_lead_back() {
        let long = |last: char| format!("mcp__{}{last}", "server".repeat(12));
        let originals = [
            long('a'),
            long('b'),
            "a.b".into(),
            "a b".into(),
            "é".into(),
            String::new(),
        ];
        let mut names = ToolNames::default();
        let mut seen = std::collections::BTreeSet::new();
        for original in &originals {
            let name = names.rename(original.into(), |_| false).into_owned();
            assert!(is_legal(&name), "{name}");
            assert!(seen.insert(name.clone()), "{name} twice");
            assert_eq!(names.original(&name), original);
            assert_eq!(names.rename(original.into(), |_| false), name);
            assert_eq!(
                ToolNames::default().rename(original.into(), |_| false),
                name
            );
        }
    }

    #[test]
    fn a_changed_name_avoids_a_tool_that_is_really_called_so() {
        let first = ToolNames::default().rename("a.b".into(), |_| false);
        let mut names = ToolNames::default();
        let second = names.rename("a.b".into(), |name| name == first);
        assert_ne!(first, second);
        assert_eq!(names.original(&second), "a.b");
    }
}
