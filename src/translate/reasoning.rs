//! Upstream's encrypted reasoning, carried by the client in the `signature` of a thinking block.
//!
//! The client keeps any string there and sends it back verbatim (contract, measured with client
//! 2.1.330), so a restarted proxy loses nothing. The seal names the account and the model that
//! made the reasoning: neither another account nor another model can read it.

/// Says who made a piece of encrypted reasoning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A short digest of the upstream account id (see [`Origin::new`]); shows nothing of it.
    pub account: String,
    /// The upstream model slug.
    pub model: String,
}

/// The parts of a signature that ccx minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal<'a> {
    /// Digest of the account, as in [`Origin::account`].
    pub account: &'a str,
    /// The upstream model slug.
    pub model: &'a str,
    /// The reasoning item's id (`rs_…`); may be empty.
    pub id: &'a str,
    /// Upstream's `encrypted_content`.
    pub encrypted: &'a str,
}

const PREFIX: &str = "ccx1:";

impl Origin {
    /// Makes the origin of reasoning by `account_id` and `model`. The account's digest is 12 hex
    /// characters of SHA-256.
    pub fn new(account_id: &str, model: &str) -> Self {
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::digest(account_id.as_bytes());
        Self {
            account: digest[..6]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            model: model.to_owned(),
        }
    }

    /// Says whether `seal` was made by this account and model.
    pub fn made(&self, seal: &Seal<'_>) -> bool {
        self.account == seal.account && self.model == seal.model
    }
}

impl<'a> Seal<'a> {
    /// Reads a signature; `None` if it is not ours or was truncated.
    pub fn open(signature: &'a str) -> Option<Self> {
        let mut parts = signature.strip_prefix(PREFIX)?.splitn(4, ':');
        let seal = Self {
            account: parts.next()?,
            model: parts.next()?,
            id: parts.next()?,
            encrypted: parts.next()?.strip_suffix(';')?,
        };
        (!seal.encrypted.is_empty()).then_some(seal)
    }

    /// Writes the signature. The trailing `;` shows that nothing was cut off.
    pub fn write(&self) -> String {
        let Self {
            account,
            model,
            id,
            encrypted,
        } = self;
        format!("{PREFIX}{account}:{model}:{id}:{encrypted};")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_survives_the_round_trip_and_no_truncation() {
        let origin = Origin::new("acc-1", "gpt-5.5");
        let seal = Seal {
            account: &origin.account,
            model: "gpt-5.5",
            id: "rs_1",
            encrypted: "gAAA==",
        };
        let text = seal.write();
        assert_eq!(Seal::open(&text), Some(seal));
        assert!(origin.made(&seal));
        assert!(!Origin::new("acc-2", "gpt-5.5").made(&seal));
        for cut in 0..text.len() {
            assert_eq!(Seal::open(&text[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn foreign_signatures_are_not_ours() {
        for foreign in ["", "ErUBCkYIBxgCIkD", "ccx1:", "ccx1:a:b:c:;"] {
            assert_eq!(Seal::open(foreign), None);
        }
    }
}
