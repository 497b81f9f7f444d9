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
    let kind = match error {
        ImportError::Store(_) => Kind::Internal,
        _ => Kind::SignIn,
    };
    let mend = error.mend();
    let report = Report::new(
        kind,
        anyhow::Error::new(error).context("could not import the Codex login"),
    );
    match mend {
        Some(mend) => report.hint(mend),
        None => report,
    }
}
