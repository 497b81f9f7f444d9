//! `ccx login`: makes an account known to ccx, by a sign-in of its own or by taking over a login.
//!
//! One file for each way; here is what they share: which one is meant, who is asked, where the account goes.

mod browser;
mod device;
mod failure;
mod lines;
mod qr;
mod seed;
mod talk;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::failure::Failure;
use self::talk::Talk;
use crate::account::import::{ImportError, import_codex, take_over_codex};
use crate::account::own;
use crate::account::record::{Record, printable};
use crate::account::seed as seed_file;
use crate::account::sign_in::SignInError;
use crate::account::store::{Store, StoreError};
use crate::cli::args::LoginWords;
use crate::cli::environment::Environment;
use crate::cli::setup::{self, Setup};
use crate::error::{Kind, Report};
use crate::files::places::Places;
use crate::oauth::exchange::Tokens;
use crate::oauth::issuer::Issuer;
use crate::proxy::entry::now;
use crate::time::{UnixSeconds, in_words};
use crate::upstream::connections::Connections;

/// How a person signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In this machine's browser, which comes back by itself; on a terminal also by paste.
    Browser,
    /// Anywhere, with a code to type.
    Device,
    /// Anywhere, with the address at the end to paste.
    Paste,
}

/// Runs `ccx login`.
pub fn login(words: &LoginWords, environment: &Environment) -> Result<(), Report> {
    let (mut out, mut notes) = (io::stdout(), io::stderr());
    if let Some(path) = &words.import {
        let path = path.clone().or_else(|| setup::codex_login(environment));
        let path = path.ok_or_else(|| {
            usage("neither CODEX_HOME nor HOME says where the Codex CLI's login is")
        })?;
        let wanted = Import {
            from: &path,
            label: words.label.as_deref(),
            take_over: words.take_over,
            json: words.json,
        };
        let setup = Setup::new(environment)?;
        setup.settle_secrets()?;
        return import(&setup.places, &wanted, now(), &mut out, &mut notes);
    }
    let setup = Setup::new(environment)?;
    setup.settle_secrets()?;
    if let Some(path) = &words.import_seed {
        let path = path.clone();
        let path = path.or_else(|| environment.home().map(|home| seed_file::path(&home)));
        let path = path.ok_or_else(|| usage("HOME does not say where the accounts are"))?;
        return seed::import(&setup.store, &path, words.json, now(), &mut out, &mut notes);
    }
    let way = match (words.headless, words.paste) {
        (_, true) => Way::Paste,
        (true, false) => Way::Device,
        (false, false) => Way::Browser,
    };
    let account = sign_in(&setup, environment, way, words.label.as_deref())?;
    let active = setup.store.active().map_err(store_failed)?;
    let is_active = active.as_ref() == Some(&account.id);
    tell(&account, is_active, words.json, now(), &mut out)
        .and_then(|()| match is_active {
            true => Ok(()),
            false => writeln!(
                notes,
                "Another account stays the active one; `ccx --account {}` uses this one.",
                account.name()
            ),
        })
        .context("cannot write the result")
        .map_err(|error| Report::new(Kind::Internal, error))
}

fn usage(words: &'static str) -> Report {
    Report::new(Kind::Usage, anyhow::anyhow!(words))
}

fn store_failed(error: StoreError) -> Report {
    SignInError::from(error).report()
}

/// Signs in by `way` and keeps the account. Says on stderr what the person has to do; writes nothing to stdout.
///
/// # Errors
///
/// Nobody signed in, and the store is as it was.
pub fn sign_in(
    setup: &Setup,
    environment: &Environment,
    way: Way,
    label: Option<&str>,
) -> Result<Record, Report> {
    let connections = Connections::new(&setup.endpoints.auth)
        .map_err(|error| Report::new(Kind::Internal, error))?;
    let issuer = Issuer::new(&setup.endpoints.auth, connections);
    let keep = |tokens| keep(&setup.store, tokens, label);
    let mut talk = Talk::new(environment);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not prepare the sign-in")
        .map_err(|error| Report::new(Kind::Internal, error))?;
    let outcome = runtime.block_on(async {
        // Watched for before the first word is said: from then on Ctrl-C may come.
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(|source| Failure::System {
                attempt: "watch for Ctrl-C",
                source,
            })?;
        match way {
            Way::Device => {
                tokio::select! {
                    biased;
                    outcome = device::run(issuer, &mut talk, &keep) => outcome,
                    _ = interrupt.recv() => Err(Failure::Interrupted),
                }
            }
            Way::Browser | Way::Paste => {
                let mut callback = None;
                let is_listening = way == Way::Browser;
                let outcome = tokio::select! {
                    biased;
                    outcome = browser::run(issuer, &mut talk, &keep, is_listening, &mut callback) => outcome,
                    _ = interrupt.recv() => Err(Failure::Interrupted),
                };
                if let Some(callback) = callback {
                    callback.close().await;
                }
                outcome
            }
        }
    });
    talk.end();
    outcome.map_err(Failure::report)
}

/// Puts a fresh sign-in into the store, before anybody is told of it.
///
/// It becomes the active account if there is none, or if the active one is signed out.
fn keep(store: &Store, tokens: Tokens, label: Option<&str>) -> Result<Record, Failure> {
    let mut record = own::record(tokens, now()).map_err(Failure::Nobody)?;
    record.label = label.map(str::to_owned);
    let record = store.upsert(record).map_err(Failure::Store)?;
    let kept = store.read().map_err(Failure::Store)?;
    let active = kept
        .accounts
        .iter()
        .find(|a| Some(&a.id) == kept.active.as_ref());
    if active.is_none_or(|active| active.dead.is_some()) {
        store.activate(&record.id).map_err(Failure::Store)?;
    }
    Ok(record)
}

/// What `ccx login --import` was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Import<'a> {
    /// The Codex CLI's `auth.json`, or the directory it lies in.
    pub from: &'a Path,
    /// The person's own name for the account.
    pub label: Option<&'a str>,
    /// The person agrees that ccx renews this login too.
    pub take_over: bool,
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
    let take_in = if wanted.take_over {
        take_over_codex
    } else {
        import_codex
    };
    let mut account = take_in(&store, &path, now).map_err(refused)?;
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
            let path = path.display();
            match wanted.take_over {
                true => writeln!(
                    notes,
                    "ccx and the Codex CLI now renew this login in turn, each writing it to {path}. Should \
                     both do so in the same moment, one may be signed out; `ccx login --import` ends this."
                ),
                false => writeln!(
                    notes,
                    "The Codex CLI goes on renewing this login; ccx reads {path} and never writes it."
                ),
            }
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
) -> io::Result<()> {
    if as_json {
        writeln!(out, "{}", json!({"account": told(account, is_active)}))
    } else {
        writeln!(out, "{}", words(account, now))
    }
}

/// An account as programs are told of it; no tokens.
fn told(account: &Record, is_active: bool) -> Value {
    json!({
        "id": account.id,
        "email": account.email,
        "label": account.label,
        "plan": account.plan,
        "chatgpt_account_id": account.chatgpt_account_id,
        "expires_at": account.expires_at,
        "source": account.source,
        "active": is_active,
    })
}

/// An account as a person is told of it: one line.
fn words(account: &Record, now: UnixSeconds) -> String {
    let mut words = format!("Signed in as {}", account.name());
    if let Some(plan) = &account.plan {
        words.push_str(", plan ");
        words.push_str(&printable(plan));
    }
    if let Some(end) = account.expires_at {
        let left = in_words(end.since(now));
        words.push_str(&format!(", token good for {left}"));
    }
    words
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
        let wanted = Import {
            from,
            label,
            take_over: false,
            json,
        };
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
