//! `ccx login`: makes an account known to ccx.
//!
//! Here only `--import`, which takes over the login of the Codex CLI.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use crate::account::import::{ImportError, import_codex};
use crate::account::record::{Record, printable};
use crate::account::sign_in::SignInError;
use crate::account::store::Store;
use crate::error::{Kind, Report};
use crate::files::places::Places;
use crate::time::{UnixSeconds, in_words};

/// What `ccx login --import` was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Import<'a> {
    /// The Codex CLI's `auth.json`, or the directory it lies in.
    pub from: &'a Path,
    /// The person's own name for the account.
    pub label: Option<&'a str>,
    /// Print one JSON object instead of words.
    pub json: bool,
}

/// Returns where the Codex CLI keeps its login: `auth.json` below `CODEX_HOME`, else below `.codex` in `HOME`.
/// Takes the values of both variables; `None` when neither is set.
pub fn codex_login(codex_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let given = |value: Option<&OsStr>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
    given(codex_home)
        .or_else(|| given(home).map(|home| home.join(".codex")))
        .map(|directory| directory.join("auth.json"))
}

/// Imports the Codex CLI's login into the store below `places`, and says on `out` whose it is.
///
/// What goes with it (that the Codex CLI goes on renewing it) is said on `notes`, which is stderr; with `json` too,
/// where `out` is one object on one line: `account` {`id`, `email`, `label`, `plan`, `chatgpt_account_id`,
/// `expires_at` in seconds since 1970 or null, `source`, `active`}.
///
/// # Errors
///
/// The login cannot be used or the store fails; the report names the command that mends it.
pub fn import(
    places: &Places,
    wanted: &Import<'_>,
    now: UnixSeconds,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Report> {
    let path = match wanted.from.is_dir() {
        true => wanted.from.join("auth.json"),
        false => wanted.from.to_owned(),
    };
    // Remembered and read again later, from whatever directory ccx then runs in.
    let path = std::path::absolute(&path).unwrap_or(path);
    let store = Store::open(places).map_err(|error| refused(error.into()))?;
    let mut account = import_codex(&store, &path, now).map_err(refused)?;
    if let Some(label) = wanted.label {
        let label = label.to_owned();
        let named = store.update(&account.id, |account| account.label = Some(label));
        account = named
            .map_err(|error| refused(error.into()))?
            .unwrap_or(account);
    }
    let active = store.active().map_err(|error| refused(error.into()))?;
    let is_active = active.as_ref() == Some(&account.id);
    tell(&account, is_active, wanted.json, now, out)
        .and_then(|()| {
            writeln!(
                notes,
                "The Codex CLI goes on renewing this login; ccx reads {} and never writes it.",
                path.display()
            )
        })
        .context("cannot write the result")
        .map_err(|error| Report::new(Kind::Internal, error))
}

fn tell(
    account: &Record,
    is_active: bool,
    as_json: bool,
    now: UnixSeconds,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if as_json {
        let told = json!({"account": {
            "id": account.id,
            "email": account.email,
            "label": account.label,
            "plan": account.plan,
            "chatgpt_account_id": account.chatgpt_account_id,
            "expires_at": account.expires_at,
            "source": account.source,
            "active": is_active,
        }});
        return writeln!(out, "{told}");
    }
    write!(out, "Signed in as {}", account.name())?;
    if let Some(plan) = &account.plan {
        write!(out, ", plan {}", printable(plan))?;
    }
    if let Some(end) = account.expires_at {
        write!(out, ", token good for {}", in_words(end.since(now)))?;
    }
    writeln!(out)
}

fn refused(error: ImportError) -> Report {
    const ATTEMPT: &str = "could not import the Codex login";
    let mend = error.mend();
    let mut report = match error {
        ImportError::Store(error) => SignInError::from(error).report(),
        other => Report::new(Kind::SignIn, other),
    };
    report.error = report.error.context(ATTEMPT);
    match mend {
        Some(mend) => report.hint(mend),
        None => report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use serde_json::Value;
    use std::fs;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn codex_home() -> tempfile::TempDir {
        let part = |payload: Value| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload.to_string())
        };
        let token = format!(
            "e30.{}.c2ln",
            part(
                json!({"exp": NOW.0 + 9000, "email": "ann@x.com\u{7}", "sub": "user-1",
                        "https://api.openai.com/auth": {"chatgpt_plan_type": "pro"}})
            )
        );
        let root = tempfile::tempdir().unwrap();
        let auth = json!({"tokens": {"access_token": token, "account_id": "acc-1", "refresh_token": "rt"}});
        fs::write(root.path().join("auth.json"), auth.to_string()).unwrap();
        root
    }

    /// Runs the command; returns stdout and stderr, or the report.
    fn run(
        home: &Path,
        from: &Path,
        label: Option<&str>,
        json: bool,
    ) -> Result<(String, String), Report> {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let wanted = Import { from, label, json };
        import(&Places::below(home), &wanted, NOW, &mut out, &mut notes)?;
        Ok((
            String::from_utf8(out).unwrap(),
            String::from_utf8(notes).unwrap(),
        ))
    }

    #[test]
    fn the_default_is_where_the_codex_cli_looks() {
        let path = |codex_home: Option<&str>, home: Option<&str>| {
            codex_login(codex_home.map(OsStr::new), home.map(OsStr::new))
        };
        assert_eq!(path(None, Some("/h")), Some("/h/.codex/auth.json".into()));
        assert_eq!(
            path(Some(""), Some("/h")),
            Some("/h/.codex/auth.json".into())
        );
        assert_eq!(path(Some("/c"), Some("/h")), Some("/c/auth.json".into()));
        assert_eq!(path(None, None), None);
    }

    #[test]
    fn an_import_says_whose_login_it_is() {
        let (home, codex) = (tempfile::tempdir().unwrap(), codex_home());
        let file = codex.path().join("auth.json");
        let (out, notes) = run(home.path(), &file, None, false).unwrap();
        assert_eq!(
            out,
            "Signed in as ann@x.com\u{fffd}, plan pro, token good for 2h 30m\n"
        );
        assert!(notes.contains(file.to_str().unwrap()), "{notes}");
        // The directory does as well, and a label names the account from then on.
        let (out, _) = run(home.path(), codex.path(), Some("work"), false).unwrap();
        assert!(out.starts_with("Signed in as work, "), "{out}");
    }

    #[test]
    fn json_is_one_object_without_secrets() {
        let (home, codex) = (tempfile::tempdir().unwrap(), codex_home());
        let (out, _) = run(home.path(), codex.path(), Some("work"), true).unwrap();
        let told: Value = serde_json::from_str(&out).unwrap();
        let file = codex.path().join("auth.json");
        let id = crate::account::record::identity("user-1", "acc-1");
        assert_eq!(
            told,
            json!({"account": {"id": id, "email": "ann@x.com\u{7}", "label": "work", "plan": "pro",
                "chatgpt_account_id": "acc-1", "expires_at": NOW.0 + 9000,
                "source": {"kind": "codex_file", "path": file}, "active": true}})
        );
        assert_eq!(out.lines().count(), 1);
    }

    #[test]
    fn a_failure_names_the_command_that_mends_it() {
        let home = tempfile::tempdir().unwrap();
        let report = run(home.path(), &home.path().join("nothing"), None, false).unwrap_err();
        assert_eq!(report.kind, Kind::SignIn);
        let words = report.to_string();
        assert!(
            words.starts_with(
                "error: could not import the Codex login\ncause: there is no Codex login at "
            ),
            "{words}"
        );
        assert!(
            words.contains("\nhint:  run `codex login` first"),
            "{words}"
        );
    }
}
