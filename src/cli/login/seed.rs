//! `ccx login --import-seed`: takes over the accounts of codex-claude-proxy.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{told, words};
use crate::account::record::printable;
use crate::account::seed::{self, Seed, SeedError};
use crate::account::sign_in::SignInError;
use crate::account::store::Store;
use crate::error::{Kind, Report};
use crate::time::UnixSeconds;

/// Imports what can be used of the file at `path`, and says on `out` what that is.
///
/// With `as_json` one object on one line: `accounts`, each as in `ccx login --json`, and `skipped`, each with
/// `name` and `reason`.
///
/// # Errors
///
/// The file cannot be read, holds nothing that can be used, or the store fails.
pub(super) fn import(
    store: &Store,
    path: &Path,
    as_json: bool,
    now: UnixSeconds,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Report> {
    let mut seed = seed::read(path, now).map_err(refused)?;
    let failed = |error| SignInError::from(error).report();
    seed.keep(store).map_err(failed)?;
    let active = store.active().map_err(failed)?;
    let is_active = |id: &str| active.as_deref() == Some(id);
    if as_json {
        let accounts = seed.accounts.iter();
        let accounts = accounts.map(|account| told(account, is_active(&account.id)));
        let skipped = seed.skipped.iter();
        let skipped = skipped.map(|(name, why)| json!({"name": name, "reason": why.to_string()}));
        let result = json!({
            "accounts": accounts.collect::<Vec<Value>>(),
            "skipped": skipped.collect::<Vec<Value>>(),
        });
        writeln!(out, "{result}")
    } else {
        in_words(&seed, now, out, notes)
    }
    .and_then(|()| match seed.accounts.is_empty() {
        true => Ok(()),
        false => writeln!(
            notes,
            "ccx renews these sign-ins from now on: do not run codex-claude-proxy with them any more, or \
             both will be signed out. {} was not changed.",
            path.display()
        ),
    })
    .context("cannot write the result")
    .map_err(|error| Report::new(Kind::Internal, error))?;
    if seed.accounts.is_empty()
        && !seed
            .skipped
            .iter()
            .any(|(_, why)| *why == seed::Skipped::HasOwn)
    {
        let nothing = anyhow::anyhow!("{} holds no account that ccx can use", path.display());
        return Err(Report::new(Kind::SignIn, nothing).hint("run `ccx login`"));
    }
    Ok(())
}

fn in_words(
    seed: &Seed,
    now: UnixSeconds,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> io::Result<()> {
    for account in &seed.accounts {
        writeln!(out, "{}", words(account, now))?;
    }
    for (name, why) in &seed.skipped {
        writeln!(notes, "Left out {}: {why}", printable(name))?;
    }
    Ok(())
}

fn refused(error: SeedError) -> Report {
    let hint = match &error {
        SeedError::Missing { .. } => {
            "name the file: `ccx login --import-seed PATH`, or run `ccx login`"
        }
        SeedError::Read { .. } | SeedError::Damaged { .. } => "run `ccx login`",
    };
    let error = anyhow::Error::new(error).context("could not import the accounts");
    Report::new(Kind::SignIn, error).hint(hint)
}
