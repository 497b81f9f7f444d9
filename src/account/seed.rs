//! The accounts of codex-claude-proxy, which ccx replaces.
//!
//! Its `accounts.json` is read, never written, and read with patience: whatever entry can be used is used.
//! Source: contract seed-api §3.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::account::freshness::{Freshness, freshness};
use crate::account::import::read_bytes;
use crate::account::own;
use crate::account::record::{Record, Source};
use crate::account::store::{Store, StoreError};
use crate::oauth::answer::Tokens;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// What that tool calls a login that it took from the Codex CLI.
const IMPORTED: &str = "imported";

/// What was read from the file.
#[derive(Debug, Default)]
pub struct Seed {
    /// The accounts that can be used, in its order.
    pub accounts: Vec<Record>,
    /// The others: the name as it stands there, and why.
    pub skipped: Vec<(String, Skipped)>,
    /// The e-mail address of the account it used.
    active: Option<String>,
}

/// Why nothing could be read. Tells nothing of the file's text: it is full of tokens.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// There is no such file.
    #[error("there are no accounts of codex-claude-proxy at {}", path.display())]
    Missing {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not the file that codex-claude-proxy writes.
    #[error(
        "{} holds no accounts of codex-claude-proxy: not understood at line {line} column {column}",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        line: usize,
        /// Where in that line.
        column: usize,
    },
}

/// Why an entry is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// No access token.
    #[error("it has no access token")]
    NoToken,
    /// The tokens and the entry do not say whose they are.
    #[error("it does not say which account it is for")]
    Nobody,
    /// Its access token has ended, and it cannot be renewed here.
    #[error("its sign-in has ended and cannot be renewed by ccx")]
    Ended,
    /// ccx has a sign-in of its own for it.
    #[error("it is already signed in to ccx itself")]
    HasOwn,
}

/// Returns where that tool keeps its accounts, below the home directory.
pub fn path(home: &Path) -> PathBuf {
    home.join(".codex-claude-proxy").join("accounts.json")
}

/// Reads the file at `path`; the tokens are judged at `now`.
///
/// A login that the tool took from the Codex CLI comes without its refresh token: the Codex CLI spends it too,
/// and two programs that spend one refresh token both end up signed out.
///
/// # Errors
///
/// There is no such file, it cannot be read, or it is no JSON of accounts.
pub fn read(path: &Path, now: UnixSeconds) -> Result<Seed, SeedError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        accounts: Vec<Value>,
        #[serde(default)]
        active_account: Value,
    }
    let bytes = read_bytes(path).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => SeedError::Missing { path },
            _ => SeedError::Read { path, source },
        }
    })?;
    let file: File = serde_json::from_slice(&bytes).map_err(|error| SeedError::Damaged {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    })?;
    let mut seed = Seed {
        active: file.active_account.as_str().map(str::to_owned),
        ..Seed::default()
    };
    for entry in file.accounts.iter().filter(|entry| entry.is_object()) {
        match record(entry, now) {
            Ok(record) => seed.accounts.push(record),
            Err(why) => {
                let name = text(entry, "email").unwrap_or_else(|| "(no name)".to_owned());
                seed.skipped.push((name, why));
            }
        }
    }
    Ok(seed)
}

impl Seed {
    /// Puts the accounts into the store. The account that the old tool used becomes the active one if there is none.
    ///
    /// # Errors
    ///
    /// The store fails; accounts before that are in it.
    pub fn keep(&mut self, store: &Store) -> Result<(), StoreError> {
        let before = store.read()?;
        let mut kept = Vec::new();
        for record in std::mem::take(&mut self.accounts) {
            let known = before.accounts.iter().find(|known| known.id == record.id);
            let is_own =
                known.is_some_and(|known| known.source == Source::Own && known.dead.is_none());
            if is_own {
                self.skipped.push((record.name(), Skipped::HasOwn));
            } else {
                kept.push(store.upsert(record)?);
            }
        }
        self.accounts = kept;
        if before.active.is_none()
            && let Some(active) = &self.active
            && let Some(record) = self
                .accounts
                .iter()
                .find(|a| a.email.as_ref() == Some(active))
        {
            store.activate(&record.id)?;
        }
        Ok(())
    }
}

fn record(entry: &Value, now: UnixSeconds) -> Result<Record, Skipped> {
    let access_token = text(entry, "accessToken").ok_or(Skipped::NoToken)?;
    let is_shared = entry["source"] == IMPORTED;
    let refresh_token = text(entry, "refreshToken").filter(|_| !is_shared);
    let tokens = Tokens {
        access_token: access_token.into(),
        refresh_token: refresh_token.map(Secret::new),
        id_token: text(entry, "idToken").map(Secret::new),
        expires_in: None,
    };
    let claims = own::claims(&tokens);
    let mut record = own::record_of(tokens, text(entry, "accountId"), text(entry, "email"), now)
        .map_err(|own::Nobody| Skipped::Nobody)?;
    // Not fresh from the issuer: an end that is over is over.
    let stored = entry["expiresAt"].as_f64().map(|milliseconds| {
        UnixSeconds(Duration::from_millis(milliseconds.max(0.0) as u64).as_secs())
    });
    record.expires_at = claims.expires_at.or(stored);
    record.plan = record.plan.or_else(|| text(entry, "planType"));
    let has_ended = freshness(record.expires_at, now) == Freshness::Expired;
    if has_ended && record.refresh_token.is_none() {
        return Err(Skipped::Ended);
    }
    Ok(record)
}

fn text(entry: &Value, name: &str) -> Option<String> {
    let text = entry[name].as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::record::identity;
    use crate::files::places::Places;
    use base64::Engine as _;
    use serde_json::json;
    use std::fs;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn jwt(payload: &Value) -> String {
        let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload.to_string());
        format!("e30.{part}.SECRET")
    }

    fn entry(name: &str, exp: u64, more: &Value) -> Value {
        let access = jwt(
            &json!({"exp": exp, "sub": format!("user-{name}"), "https://api.openai.com/auth":
            {"chatgpt_account_id": format!("acc-{name}"), "chatgpt_plan_type": "plus"}}),
        );
        let mut entry = json!({
            "email": format!("{name}@x.com"), "accountId": format!("acc-{name}"), "planType": "free",
            "accessToken": access, "refreshToken": format!("rt-{name}-SECRET"), "idToken": null,
            "expiresAt": exp * 1000, "addedAt": "2026-03-01T00:00:00Z", "lastUsed": null,
            "quota": {"usage": {}}
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            entry[key] = value.clone();
        }
        entry
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = path(root.path());
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        (root, path)
    }

    #[test]
    fn what_can_be_used_is_used_and_the_file_stays() {
        let text = json!({"version": 1, "activeAccount": "bob@x.com", "accounts": [
            null,
            entry("ann", NOW.0 + 900, &json!({})),
            7,
            entry("old", NOW.0 - 1, &json!({})),
            entry("bob", NOW.0 + 900, &json!({"source": "imported"})),
            entry("gone", NOW.0 - 1, &json!({"source": "imported"})),
            entry("bare", NOW.0 - 1, &json!({"refreshToken": null})),
            {"email": "none@x.com", "accessToken": null},
            {"email": "", "accessToken": "opaque-SECRET"},
            {"email": "opaque@x.com", "accessToken": "opaque-SECRET", "expiresAt": (NOW.0 + 9) * 1000},
        ]})
        .to_string();
        let (root, path) = file(&text);
        let mut seed = read(&path, NOW).unwrap();
        let skipped = [
            ("gone@x.com", Skipped::Ended),
            ("bare@x.com", Skipped::Ended),
            ("none@x.com", Skipped::NoToken),
            ("(no name)", Skipped::Nobody),
        ];
        assert_eq!(
            seed.skipped,
            skipped.map(|(name, why)| (name.to_owned(), why))
        );
        let store = Store::open(&Places::below(&root.path().join("ccx"))).unwrap();
        seed.keep(&store).unwrap();
        let kept = store.accounts().unwrap();
        let names: Vec<_> = kept.iter().map(Record::name).collect();
        assert_eq!(
            names,
            ["ann@x.com", "old@x.com", "bob@x.com", "opaque@x.com"]
        );
        assert_eq!(
            store.active().unwrap(),
            Some(identity("user-bob", "acc-bob"))
        );
        let [ann, old, bob, opaque] = &kept[..] else {
            panic!("{kept:?}")
        };
        assert_eq!(
            (&ann.source, ann.plan.as_deref()),
            (&Source::Own, Some("plus"))
        );
        assert_eq!(ann.refresh_token, Some("rt-ann-SECRET".to_owned().into()));
        assert_eq!(old.expires_at, Some(UnixSeconds(NOW.0 - 1)));
        assert_eq!(bob.refresh_token, None, "the Codex CLI spends it");
        assert_eq!(opaque.id, identity("opaque@x.com", ""));
        assert_eq!(opaque.expires_at, Some(UnixSeconds(NOW.0 + 9)));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);

        // Again: a sign-in that lives is not replaced by what may be an older one.
        let mut seed = read(&path, NOW).unwrap();
        seed.keep(&store).unwrap();
        assert!(seed.accounts.is_empty());
        assert_eq!(store.accounts().unwrap(), kept);
    }

    #[test]
    fn what_is_no_such_file_is_told_without_its_text() {
        for text in [
            "",
            "[]",
            "{}",
            "{\"accounts\": 7}",
            "{\"accounts\": [\"SECRET",
        ] {
            let (_root, path) = file(text);
            let error = read(&path, NOW).unwrap_err();
            assert!(
                matches!(error, SeedError::Damaged { .. }),
                "{text}: {error:?}"
            );
            assert!(!format!("{error} {error:?}").contains("SECRET"));
        }
        let (root, _path) = file("{}");
        let missing = read(&root.path().join("nothing"), NOW).unwrap_err();
        assert!(matches!(missing, SeedError::Missing { .. }), "{missing:?}");
    }
}
