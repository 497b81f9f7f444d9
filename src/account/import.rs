//! The Codex CLI's login as an account of ccx.
//!
//! `auth.json` belongs to that program: here it is read, never written, and its refresh token is not copied. Two
//! programs that spend one refresh token both end up signed out. When the access token ends, the file is read
//! again: the Codex CLI will have put a newer one there. Where the person has agreed that ccx renews it too,
//! `takeover` does that.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::account::freshness::{Freshness, freshness};
use crate::account::record::{Record, Source, identity};
use crate::account::store::{Store, StoreError};
use crate::oauth::claims::Claims;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// The file is about 7 kB. More than this is something else.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// Why a login could not be taken over. Tells nothing of the file's text: it is full of tokens.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is no such file.
    #[error("there is no Codex login at {}", path.display())]
    Missing {
        /// Where it was looked for.
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
    /// It is not the file that the Codex CLI writes.
    #[error("{} is not a Codex login: not understood at line {line} column {column}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// It holds an API key, which does not reach a ChatGPT plan.
    #[error("{} holds an API key and no ChatGPT login", path.display())]
    ApiKeyOnly {
        /// The file.
        path: PathBuf,
    },
    /// It holds no access token.
    #[error("{} holds no login", path.display())]
    NoTokens {
        /// The file.
        path: PathBuf,
    },
    /// Its tokens do not say whose they are.
    #[error("the login in {} does not say which account it is for", path.display())]
    Nobody {
        /// The file.
        path: PathBuf,
    },
    /// Its access token has ended.
    #[error("the Codex login in {} has expired", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// It holds nothing to renew it with, which is what was asked for.
    #[error("the Codex login in {} holds no refresh token", path.display())]
    NoRefreshToken {
        /// The file.
        path: PathBuf,
    },
    /// ccx has a sign-in of its own for this account, which does more than an imported one.
    #[error("{name} is already signed in to ccx itself")]
    HasOwn {
        /// The account.
        name: String,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImportError {
    /// Returns what the person can do, where there is something.
    pub const fn mend(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some(
                "run `codex login` first; if Codex keeps its login in the system keyring, set \
                 `cli_auth_credentials_store = \"file\"` in its config.toml before",
            ),
            Self::Damaged { .. }
            | Self::NoTokens { .. }
            | Self::Nobody { .. }
            | Self::NoRefreshToken { .. } => Some("run `codex login`, then `ccx login --import`"),
            Self::ApiKeyOnly { .. } => {
                Some("run `codex login` and choose ChatGPT, then `ccx login --import`")
            }
            Self::Expired { .. } => Some(
                "run `codex` once so that it renews its login (or `codex login`), then \
                 `ccx login --import`",
            ),
            Self::Read { .. } | Self::HasOwn { .. } | Self::Store(_) => None,
        }
    }
}

/// What ccx uses of an `auth.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodexLogin {
    /// The bearer token.
    pub access_token: Secret<String>,
    /// Says who signed in.
    pub id_token: Option<Secret<String>>,
    /// Exchanged for the next access token. For `takeover` only: it never goes into a record.
    pub refresh_token: Option<Secret<String>>,
    /// When it was last renewed, as the file says it.
    pub renewed_at: Option<UnixSeconds>,
    /// What the two say together, with the file's own account id before theirs: it is the one that the Codex
    /// CLI sends.
    pub claims: Claims,
}

impl CodexLogin {
    /// Returns ccx's id of the account, if the login says enough to tell it.
    ///
    /// A person is known by user id, else by e-mail address.
    pub fn id(&self) -> Option<String> {
        let user = self.user();
        let account = self
            .claims
            .chatgpt_account_id
            .as_deref()
            .unwrap_or_default();
        (!(user.is_empty() && account.is_empty())).then(|| identity(user, account))
    }

    fn user(&self) -> &str {
        let Claims {
            chatgpt_user_id,
            email,
            ..
        } = &self.claims;
        chatgpt_user_id
            .as_deref()
            .or(email.as_deref())
            .unwrap_or_default()
    }

    /// Puts these tokens into the record of the same account.
    pub fn adopt_into(&self, record: &mut Record, now: UnixSeconds) {
        record.access_token = self.access_token.clone();
        record.id_token = self.id_token.clone();
        record.refresh_token = None;
        record.expires_at = self.claims.expires_at;
        record.renewed_at = Some(now);
        record.dead = None;
        record.describe(&self.claims);
    }
}

/// Reads a Codex CLI login; says nothing of whether it has expired.
///
/// # Errors
///
/// No file, no readable one, or no ChatGPT login in it.
pub fn read(path: &Path) -> Result<CodexLogin, ImportError> {
    #[derive(Deserialize)]
    struct Auth {
        #[serde(rename = "OPENAI_API_KEY")]
        api_key: Option<String>,
        tokens: Option<Tokens>,
        last_refresh: Option<Value>,
    }
    #[derive(Default, Deserialize)]
    struct Tokens {
        access_token: Option<String>,
        id_token: Option<String>,
        refresh_token: Option<String>,
        account_id: Option<String>,
    }
    let bytes = read_bytes(path).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ImportError::Missing { path },
            _ => ImportError::Read { path, source },
        }
    })?;
    let auth: Auth = serde_json::from_slice(&bytes).map_err(|error| ImportError::Damaged {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    })?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let tokens = auth.tokens.unwrap_or_default();
    let Some(access_token) = given(tokens.access_token) else {
        let path = path.to_owned();
        return Err(match given(auth.api_key) {
            Some(_) => ImportError::ApiKeyOnly { path },
            None => ImportError::NoTokens { path },
        });
    };
    let id_token = given(tokens.id_token);
    let mut claims = Claims::of_pair(id_token.as_deref(), &access_token);
    claims.chatgpt_account_id = given(tokens.account_id).or(claims.chatgpt_account_id);
    let renewed_at = auth.last_refresh.as_ref().and_then(Value::as_str);
    Ok(CodexLogin {
        access_token: access_token.into(),
        id_token: id_token.map(Secret::new),
        refresh_token: given(tokens.refresh_token).map(Secret::new),
        renewed_at: renewed_at.and_then(point),
        claims,
    })
}

/// Reads a point in time as the Codex CLI writes it (RFC 3339).
fn point(text: &str) -> Option<UnixSeconds> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_second()).ok().map(UnixSeconds)
}

/// Reads a login file whole: a regular one of bounded size.
pub(super) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(SIZE_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Takes the Codex CLI's login at `path` into the store and returns its account as stored.
///
/// Only the access token and the id token are copied; the account remembers the file, whose owner renews it.
///
/// # Errors
///
/// As [`read`]; the login has expired or does not say whose it is; ccx has a living sign-in of its own for that
/// account; the store fails. In each case the store is as before.
pub fn import_codex(store: &Store, path: &Path, now: UnixSeconds) -> Result<Record, ImportError> {
    let login = read(path)?;
    if freshness(login.claims.expires_at, now) == Freshness::Expired {
        let path = path.to_owned();
        return Err(ImportError::Expired { path });
    }
    let source = Source::CodexFile {
        path: path.to_owned(),
    };
    put_in(store, &login, source, path, now)
}

/// As [`import_codex`], for a person who has agreed that ccx renews this login too: the account says so and since
/// when. From then on both programs spend the refresh token in the file, one after the other (`takeover`); it is not
/// copied. A login that has expired will do: it is renewed when it is used.
///
/// # Errors
///
/// As [`import_codex`], or the login cannot be renewed.
pub fn take_over_codex(
    store: &Store,
    path: &Path,
    now: UnixSeconds,
) -> Result<Record, ImportError> {
    let login = read(path)?;
    if login.refresh_token.is_none() {
        let path = path.to_owned();
        return Err(ImportError::NoRefreshToken { path });
    }
    let source = Source::CodexShared {
        path: path.to_owned(),
        agreed_at: now,
    };
    put_in(store, &login, source, path, now)
}

fn put_in(
    store: &Store,
    login: &CodexLogin,
    source: Source,
    path: &Path,
    now: UnixSeconds,
) -> Result<Record, ImportError> {
    let id = login.id().ok_or_else(|| ImportError::Nobody {
        path: path.to_owned(),
    })?;
    if let Some(known) = store.account(&id)?
        && known.source == Source::Own
        && known.dead.is_none()
    {
        return Err(ImportError::HasOwn { name: known.name() });
    }
    let mut record = Record {
        id,
        email: None,
        label: None,
        chatgpt_account_id: login.claims.chatgpt_account_id.clone().unwrap_or_default(),
        chatgpt_user_id: login.user().to_owned(),
        plan: None,
        source,
        access_token: Secret::default(),
        refresh_token: None,
        id_token: None,
        expires_at: None,
        added_at: now,
        renewed_at: None,
        dead: None,
        keychain: None,
        unknown: Map::new(),
    };
    login.adopt_into(&mut record, now);
    record.renewed_at = None;
    Ok(store.upsert(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::record::{DeadReason, Death};
    use crate::files::places::Places;
    use base64::Engine as _;
    use serde_json::json;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn jwt(payload: &Value) -> String {
        let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload.to_string());
        format!("e30.{part}.c2ln")
    }

    fn auth(exp: u64) -> Value {
        let access = jwt(&json!({"exp": exp, "jti": "SECRET", "sub": "user-1"}));
        let id = jwt(
            &json!({"email": "ann@x.com", "https://api.openai.com/auth": {
            "chatgpt_user_id": "user-1", "chatgpt_account_id": "of-id", "chatgpt_plan_type": "plus"}}),
        );
        json!({
            "auth_mode": "chatgpt", "OPENAI_API_KEY": null, "last_refresh": "2026-01-01T00:00:00Z",
            "tokens": {"id_token": id, "access_token": access, "refresh_token": "rt_SECRET",
                       "account_id": "acc-1", "login_owner_id": "x"}
        })
    }

    struct Home {
        root: tempfile::TempDir,
        store: Store,
        file: PathBuf,
    }

    fn home(auth: &str) -> Home {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&Places::below(root.path())).unwrap();
        let file = root.path().join("auth.json");
        fs::write(&file, auth).unwrap();
        Home { root, store, file }
    }

    #[test]
    fn a_login_becomes_an_account() {
        let text = auth(NOW.0 + 9000).to_string();
        let Home {
            store,
            file,
            root: _root,
        } = home(&text);
        let record = import_codex(&store, &file, NOW).unwrap();
        assert_eq!(store.accounts().unwrap(), vec![record.clone()]);
        assert_eq!(store.active().unwrap(), Some(record.id.clone()));
        assert_eq!(record.id, identity("user-1", "acc-1"));
        assert_eq!(record.name(), "ann@x.com");
        assert_eq!(record.plan.as_deref(), Some("plus"));
        assert_eq!(record.chatgpt_account_id, "acc-1");
        assert_eq!(record.source, Source::CodexFile { path: file.clone() });
        assert_eq!(record.expires_at, Some(UnixSeconds(NOW.0 + 9000)));
        assert_eq!(record.added_at, NOW);
        let stored = fs::read_to_string(store.path()).unwrap();
        assert!(
            !stored.contains("rt_SECRET"),
            "its refresh token is not ours to keep"
        );
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            text,
            "the file is not ours to write"
        );
    }

    #[test]
    fn the_recorded_file_is_read() {
        let text = include_str!("../../tests/fixtures/codex/auth/auth.json.sample");
        let Home {
            store,
            file,
            root: _root,
        } = home(text);
        // Its tokens say neither who nor until when: the account id alone makes it an account.
        let record = import_codex(&store, &file, NOW).unwrap();
        assert_eq!(record.id, identity("", "acc-00000000-forged"));
        assert_eq!(record.expires_at, None);
        assert_eq!(record.name(), record.id);
    }

    #[test]
    fn what_is_no_login_is_told_apart() {
        let with = |edit: fn(&mut Value)| {
            let mut auth = auth(NOW.0 + 9000);
            edit(&mut auth);
            auth.to_string()
        };
        let whole = auth(NOW.0 + 9000).to_string();
        for (expected, text) in [
            (
                "ApiKeyOnly",
                json!({"OPENAI_API_KEY": "sk-SECRET", "tokens": null}).to_string(),
            ),
            (
                "ApiKeyOnly",
                json!({"OPENAI_API_KEY": "sk-SECRET"}).to_string(),
            ),
            ("NoTokens", "{}".to_owned()),
            ("NoTokens", with(|auth| auth["tokens"] = json!({}))),
            (
                "NoTokens",
                with(|auth| auth["tokens"]["access_token"] = json!("")),
            ),
            (
                "Nobody",
                with(|auth| auth["tokens"] = json!({"access_token": "opaque-SECRET"})),
            ),
            ("Expired", auth(NOW.0).to_string()),
            ("Damaged", whole[..whole.len() / 2].to_owned()),
            ("Damaged", String::new()),
            ("Damaged", "[1]".to_owned()),
            ("Damaged", with(|auth| auth["tokens"] = json!("rt_SECRET"))),
            (
                "Damaged",
                with(|auth| auth["tokens"]["id_token"] = json!({"raw": "SECRET"})),
            ),
        ] {
            let Home {
                store,
                file,
                root: _root,
            } = home(&text);
            let error = import_codex(&store, &file, NOW).unwrap_err();
            let shown = format!("{error:?} {error} {:?}", error.mend());
            assert!(shown.starts_with(expected), "{text}: {shown}");
            assert!(!shown.contains("SECRET"), "{shown}");
            assert!(
                error.mend().is_some_and(|mend| mend.contains("codex")),
                "{shown}"
            );
            assert!(!store.path().exists());
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_file_is_told_apart() {
        let Home { store, file, root } = home("");
        fs::remove_file(&file).unwrap();
        let missing = import_codex(&store, &file, NOW).unwrap_err();
        assert!(
            matches!(missing, ImportError::Missing { .. }),
            "{missing:?}"
        );
        assert!(missing.mend().is_some_and(|mend| mend.contains("keyring")));
        let directory = import_codex(&store, root.path(), NOW).unwrap_err();
        assert!(
            matches!(directory, ImportError::Read { .. }),
            "{directory:?}"
        );
        let made = std::process::Command::new("mkfifo")
            .arg(&file)
            .status()
            .unwrap();
        assert!(made.success());
        let pipe = import_codex(&store, &file, NOW).unwrap_err();
        assert!(matches!(pipe, ImportError::Read { .. }), "{pipe:?}");
    }

    #[test]
    fn sharing_is_what_the_person_agrees_to_and_takes_back() {
        let mut text = auth(NOW.0);
        let Home {
            store,
            file,
            root: _root,
        } = home(&text.to_string());
        // Expired: of no use to one who only reads.
        import_codex(&store, &file, NOW).unwrap_err();
        let record = take_over_codex(&store, &file, NOW).unwrap();
        let agreed = Source::CodexShared {
            path: file.clone(),
            agreed_at: NOW,
        };
        assert_eq!((&record.source, &record.refresh_token), (&agreed, &None));
        let stored = fs::read_to_string(store.path()).unwrap();
        assert!(!stored.contains("rt_SECRET"), "{stored}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text.to_string());

        // A plain import is the way back.
        text = auth(NOW.0 + 9000);
        fs::write(&file, text.to_string()).unwrap();
        let again = import_codex(&store, &file, NOW).unwrap();
        assert_eq!(again.source, Source::CodexFile { path: file.clone() });
        assert_eq!(again.id, record.id);

        text["tokens"]["refresh_token"] = json!("");
        fs::write(&file, text.to_string()).unwrap();
        let error = take_over_codex(&store, &file, NOW).unwrap_err();
        assert!(
            matches!(error, ImportError::NoRefreshToken { .. }),
            "{error:?}"
        );
        assert!(error.mend().is_some_and(|mend| mend.contains("codex")));
    }

    #[test]
    fn the_last_renewal_is_read_where_it_is_told() {
        for (value, expected) in [
            (json!("1970-01-12T13:46:40.25Z"), Some(NOW)),
            (json!("yesterday"), None),
            (json!(7), None),
            (Value::Null, None),
        ] {
            let mut auth = auth(NOW.0 + 9);
            auth["last_refresh"] = value;
            let Home {
                file, root: _root, ..
            } = home(&auth.to_string());
            assert_eq!(read(&file).unwrap().renewed_at, expected);
        }
    }

    #[test]
    fn a_living_sign_in_of_our_own_is_not_replaced() {
        let Home {
            store,
            file,
            root: _root,
        } = home(&auth(NOW.0 + 9000).to_string());
        let mut own = import_codex(&store, &file, NOW).unwrap();
        own.source = Source::Own;
        own.refresh_token = Some("ours".to_owned().into());
        store.upsert(own.clone()).unwrap();
        let error = import_codex(&store, &file, NOW).unwrap_err();
        assert!(
            matches!(&error, ImportError::HasOwn { name } if name == "ann@x.com"),
            "{error:?}"
        );
        assert_eq!(store.accounts().unwrap(), [own.clone()]);

        own.dead = Some(Death {
            reason: DeadReason::Reused,
            at: NOW,
        });
        store.upsert(own).unwrap();
        let again = import_codex(&store, &file, NOW).unwrap();
        assert_eq!((again.dead, again.refresh_token), (None, None));
    }
}
