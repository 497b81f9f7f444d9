//! The accounts: can each be used, and does anybody else spend its refresh token?

use std::path::{Path, PathBuf};

use super::Check;
use crate::account::freshness::{Freshness, freshness};
use crate::account::import::{self, CodexLogin, ImportError};
use crate::account::record::{Record, Source, printable};
use crate::account::sign_in::SignInError;
use crate::account::store::{Store, StoreError};
use crate::cli::environment::Environment;
use crate::cli::setup;
use crate::files::places::Places;
use crate::secret::Secret;
use crate::time::{UnixSeconds, in_words};

/// Looks at the store and every account in it. Returns the accounts too.
pub(super) fn accounts(
    places: &Places,
    environment: &Environment,
    now: UnixSeconds,
) -> (Vec<Check>, Vec<Record>) {
    // Not opened where there is none: that would make it.
    let records = match places.state.is_dir() {
        true => Store::open(places).and_then(|store| Ok((store.examine()?, store.set_aside()))),
        false => Ok((Vec::new(), Vec::new())),
    };
    let (records, aside) = match records {
        Ok(found) => found,
        Err(error) => {
            let words = anyhow::Error::from(error);
            return (vec![unusable(&words)], Vec::new());
        }
    };
    let mut checks = Vec::new();
    if records.is_empty() {
        let none = Check::finding("accounts", "no ChatGPT account is signed in");
        checks.push(none.hint("run `ccx login`"));
    }
    for path in aside {
        let words = format!("a damaged store was set aside as {}", path.display());
        checks.push(Check::note("accounts", words));
    }
    let mut logins = Logins::default();
    if let Some(path) = setup::codex_login(environment) {
        logins.add(&path);
    }
    for record in &records {
        checks.push(account(record, &mut logins, now));
    }
    checks.extend(shared(&records, &logins));
    (checks, records)
}

fn unusable(error: &anyhow::Error) -> Check {
    let check = Check::error("accounts", error);
    match error.downcast_ref() {
        Some(StoreError::Newer { .. }) => check.hint("update ccx"),
        Some(StoreError::Unreadable { .. }) => check.hint(
            "mend the file; otherwise the next start sets it aside, and you can sign in anew",
        ),
        _ => check.hint("look at that file and its directory"),
    }
}

/// The Codex CLI's logins that matter here, each read once.
#[derive(Default)]
struct Logins(Vec<(PathBuf, Result<CodexLogin, ImportError>)>);

impl Logins {
    fn add(&mut self, path: &Path) -> &Result<CodexLogin, ImportError> {
        let at = match self.0.iter().position(|(known, _)| known == path) {
            Some(at) => at,
            None => {
                self.0.push((path.to_owned(), import::read(path)));
                self.0.len() - 1
            }
        };
        &self.0[at].1
    }
}

/// Says how one account stands, by what is on this machine.
fn account(record: &Record, logins: &mut Logins, now: UnixSeconds) -> Check {
    let name = match &record.plan {
        Some(plan) => format!("{} ({})", record.name(), printable(plan)),
        None => record.name(),
    };
    if let Err(error) = SignInError::check_sealed(record) {
        return Check::finding("account", error.to_string()).hint(error.mend());
    }
    let state = freshness(record.expires_at, now);
    let left = record.expires_at.map(|end| in_words(end.since(now)));
    let token = match (state, left) {
        (Freshness::Expired, _) => "token expired".to_owned(),
        (_, Some(left)) => format!("token good for {left}"),
        (_, None) => "token good".to_owned(),
    };
    if let Some(death) = &record.dead {
        let words = format!("{name}: {token}, and cannot be renewed: {}", death.reason);
        return Check::finding("account", words).hint("sign in again: `ccx login`");
    }
    let path = match &record.source {
        Source::Own => {
            return match (&record.refresh_token, state) {
                (Some(_), Freshness::Expired) => Check::fine(
                    "account",
                    format!("{name}: {token}, renewed when it is used"),
                ),
                (Some(_), _) => Check::fine("account", format!("{name}: {token}")),
                (None, _) => Check::finding("account", format!("{name}: {token}, not renewable"))
                    .hint("sign in again: `ccx login`"),
            };
        }
        Source::Other(_) => {
            let words = format!("{name}: of a newer ccx, used while its token is good");
            return Check::note("account", words);
        }
        Source::CodexFile { path } | Source::CodexShared { path, .. } => path,
    };
    let is_shared = matches!(record.source, Source::CodexShared { .. });
    let file = path.display();
    let hint = "run `codex` once so that it renews its login, or `ccx login` for one of ccx's own";
    match logins.add(path) {
        Err(error) => {
            let check = Check::finding("account", format!("{name}: {error}"));
            check.hint(error.mend().unwrap_or("look at that file"))
        }
        Ok(login) if login.id().as_ref() != Some(&record.id) => {
            let words = format!("{name}: {file} now holds another login");
            Check::finding("account", words).hint("import it with `ccx login --import`")
        }
        Ok(_) if is_shared => {
            let words = format!("{name}: {token}, renewed by ccx and the Codex CLI in turn");
            Check::fine("account", words)
        }
        Ok(login)
            if state == Freshness::Expired
                && freshness(login.claims.expires_at, now) == Freshness::Expired =>
        {
            let words = format!("{name}: {token}, and the Codex CLI has not renewed it in {file}");
            Check::finding("account", words).hint(hint)
        }
        Ok(_) => {
            let words = format!("{name}: {token}, renewed by the Codex CLI");
            Check::fine("account", words)
        }
    }
}

/// Finds refresh tokens that two would spend: whoever comes second is signed out, and often both.
fn shared(records: &[Record], logins: &Logins) -> Vec<Check> {
    let ours = records
        .iter()
        .filter_map(|record| Some((record.name(), record.refresh_token.as_ref()?)));
    let theirs = logins.0.iter().filter_map(|(path, login)| {
        let token = login.as_ref().ok()?.refresh_token.as_ref()?;
        Some((format!("the Codex login in {}", path.display()), token))
    });
    let holders: Vec<(String, &Secret<String>)> = ours.chain(theirs).collect();
    let mut found = Vec::new();
    for (at, (name, token)) in holders.iter().enumerate() {
        for (other, same) in &holders[at + 1..] {
            if token == same {
                let words = format!("{name} and {other} hold the same refresh token");
                found.push(
                    Check::finding("tokens", words).hint(
                        "the first to renew it signs the other out; sign in anew: `ccx login`",
                    ),
                );
            }
        }
    }
    if found.is_empty() {
        found.push(Check::fine("tokens", "no two hold the same refresh token"));
    }
    found
}
