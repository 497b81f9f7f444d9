//! One stored account.
//!
//! Also the shape of one entry of `accounts.json`: renaming a field here breaks existing stores.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::account::credentials::Credentials;
use crate::oauth::claims::Claims;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// An account as the store keeps it.
///
/// Who it is: the pair of ChatGPT user and ChatGPT account (workspace). One e-mail address in a personal
/// and a team workspace is two accounts.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// ccx's own id; the same for the same user and workspace, see [`identity`].
    pub id: String,
    /// As the issuer says it; not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The person's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The workspace; sent as `chatgpt-account-id`; empty when unknown.
    #[serde(default)]
    pub chatgpt_account_id: String,
    /// The person; empty when unknown.
    #[serde(default)]
    pub chatgpt_user_id: String,
    /// `plus`, `pro`, `team`, …, as the issuer says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Where its tokens come from, which fixes who may renew them.
    pub source: Source,
    /// Sent upstream as the bearer token.
    pub access_token: Secret<String>,
    /// Exchanged for the next access token; single use. Absent where somebody else renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret<String>>,
    /// Says who signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<Secret<String>>,
    /// When the access token ends, by this machine's clock; absent when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixSeconds>,
    /// When the account came into the store.
    #[serde(default)]
    pub added_at: UnixSeconds,
    /// When its tokens last changed by renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<UnixSeconds>,
    /// Why its refresh token is of no more use. The access token may have time left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<Death>,
    /// Where its tokens are if not here: then they are empty in the store's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keychain: Option<Kept>,
    /// Fields of a newer ccx; written back as they came.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Tokens in the system's keychain, see `account::vault`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The account's entry; the names of its secrets begin with it.
    pub entry: String,
    /// Which of the two counts.
    pub slot: Slot,
    /// What the pieces that belong together begin with.
    pub generation: String,
    /// How many there are.
    pub pieces: u32,
    /// Why they could not be read just now; never stored.
    #[serde(skip)]
    pub sealed: Option<Sealed>,
}

/// One of two places for an account's tokens: one is written while the other counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Returns the one that this is not.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Returns the letter that stands for it in names.
    pub const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// Why tokens that are in the keychain cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Sealed {
    /// This session has no keychain.
    #[error("this session has no keychain")]
    Absent,
    /// It is not open.
    #[error("the keychain is locked")]
    Locked,
    /// It is open, and they are not in it.
    #[error("they are no longer there")]
    Gone,
    /// It does not work.
    #[error("the keychain does not answer as it should")]
    Failed,
}

/// Where an account's tokens come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// A sign-in of our own: nobody else knows the refresh token.
    Own,
    /// The Codex CLI's login. That program renews it; ccx reads the file and never writes it.
    CodexFile {
        /// The `auth.json`.
        path: PathBuf,
    },
    /// The Codex CLI's login, which both programs renew: the person has agreed to that. Its refresh token is in that
    /// file; only where one could not be written there is it here.
    CodexShared {
        /// The `auth.json`.
        path: PathBuf,
        /// When the person agreed.
        agreed_at: UnixSeconds,
    },
    /// Of a newer ccx; kept as it is and never renewed.
    #[serde(untagged)]
    Other(Value),
}

/// The end of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// What the issuer said.
    pub reason: DeadReason,
    /// When it said so.
    pub at: UnixSeconds,
}

/// Why the issuer will never again take a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// Not used for too long.
    #[error("the sign-in has expired")]
    Expired,
    /// Spent before: two programs shared it.
    #[error("another program has already used this sign-in's refresh token")]
    Reused,
    /// Taken back: signed out elsewhere, password changed.
    #[error("the sign-in was revoked")]
    Revoked,
    /// Refused without one of the reasons above.
    #[error("the issuer no longer accepts the sign-in")]
    Rejected,
    /// Of a newer ccx.
    #[serde(untagged)]
    #[error("the issuer no longer accepts the sign-in")]
    Other(String),
}

/// Returns ccx's id for a user in a workspace: the same for the same pair, safe as a file name.
pub fn identity(chatgpt_user_id: &str, chatgpt_account_id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(chatgpt_user_id.as_bytes());
    // No id contains a zero byte, so two different pairs never hash the same text.
    hash.update([0]);
    hash.update(chatgpt_account_id.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    digest[..8]
        .iter()
        .fold(String::from("a"), |id, byte| format!("{id}{byte:02x}"))
}

impl Record {
    /// Returns what a call upstream needs.
    pub fn credentials(&self) -> Credentials {
        Credentials {
            account: self.id.clone(),
            access_token: self.access_token.clone(),
            chatgpt_account_id: self.chatgpt_account_id.clone(),
            expires_at: self.expires_at.unwrap_or(UnixSeconds(u64::MAX)),
        }
    }

    /// Says why the tokens are not in this record, if they are in a keychain that did not give them.
    pub fn sealed(&self) -> Option<Sealed> {
        self.keychain.as_ref()?.sealed
    }

    /// Returns the name to show a person: label, e-mail address or id, without control characters.
    pub fn name(&self) -> String {
        let name = self
            .label
            .as_deref()
            .or(self.email.as_deref())
            .unwrap_or(&self.id);
        printable(name)
    }

    /// Takes over what a token says of the person and the plan. What it does not say stays.
    pub fn describe(&mut self, claims: &Claims) {
        let take = |ours: &mut Option<String>, theirs: &Option<String>| {
            if theirs.is_some() {
                ours.clone_from(theirs);
            }
        };
        take(&mut self.email, &claims.email);
        take(&mut self.plan, &claims.plan);
    }
}

/// Returns `text` with every control character replaced: it may come from a token and go to a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

impl fmt::Debug for Record {
    /// Shows no token, and of unknown fields only the names: a newer ccx may keep secrets there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("email", &self.email)
            .field("label", &self.label)
            .field("chatgpt_account_id", &self.chatgpt_account_id)
            .field("plan", &self.plan)
            .field("expires_at", &self.expires_at)
            .field("renewed_at", &self.renewed_at)
            .field("dead", &self.dead)
            .field("unknown", &self.unknown.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_unknown_survives() {
        for text in [
            json!({"id": "a1", "source": {"kind": "own"}, "access_token": "t", "chatgpt_account_id": "",
                   "chatgpt_user_id": "", "added_at": 3, "later": {"deep": [1, "x"]}}),
            json!({"id": "a1", "source": {"kind": "cloud", "region": "x"}, "access_token": "t",
                   "chatgpt_account_id": "w", "chatgpt_user_id": "u", "added_at": 3,
                   "dead": {"reason": "bored", "at": 5}}),
            json!({"id": "a1", "source": {"kind": "codex_shared", "path": "/c/auth.json", "agreed_at": 9},
                   "access_token": "", "chatgpt_account_id": "w", "chatgpt_user_id": "u", "added_at": 3,
                   "keychain": {"entry": "e-a1", "slot": "b", "generation": "00ff", "pieces": 2}}),
            json!({"id": "a1", "source": {"kind": "codex_file", "path": "/c/auth.json"}, "access_token": "t",
                   "chatgpt_account_id": "w", "chatgpt_user_id": "u", "added_at": 3,
                   "dead": {"reason": "reused", "at": 5}}),
        ] {
            let record: Record = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(serde_json::to_value(&record).unwrap(), text);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let record: Record = serde_json::from_value(json!({
            "id": "a1", "email": "u@example.com", "source": {"kind": "own"}, "access_token": "SECRET-1",
            "refresh_token": "SECRET-2", "id_token": "SECRET-3", "vault": "SECRET-4"
        }))
        .unwrap();
        let shown = format!("{record:?} {:?}", record.credentials());
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(shown.contains("u@example.com") && shown.contains("vault"));
    }

    #[test]
    fn identity_is_the_pair() {
        let id = identity("user-1", "acc-1");
        assert_eq!(id, identity("user-1", "acc-1"));
        assert_eq!(id.len(), 17);
        for (user, account) in [
            ("user-1", "acc-2"),
            ("user-2", "acc-1"),
            ("user-1acc-1", ""),
        ] {
            assert_ne!(id, identity(user, account));
        }
        assert_ne!(identity("a", ""), identity("", "a"));
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        let mut record: Record = serde_json::from_value(json!({
            "id": "a1", "email": "u\u{1b}[2J@x", "source": {"kind": "own"}, "access_token": "t"
        }))
        .unwrap();
        assert_eq!(record.name(), "u\u{fffd}[2J@x");
        record.label = Some("work".to_owned());
        assert_eq!(record.name(), "work");
        (record.label, record.email) = (None, None);
        assert_eq!(record.name(), "a1");
    }
}
