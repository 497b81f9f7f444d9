//! `ccx logout`: takes a sign-in back at the issuer, then forgets the account.

use std::time::Duration;

use serde_json::json;

use crate::account::record::{Record, Source};
use crate::cli::environment::Environment;
use crate::cli::setup::Setup;
use crate::cli::{accounts, ui};
use crate::error::{Kind, Report};
use crate::oauth::issuer::Issuer;
use crate::oauth::revoke::revoke;
use crate::upstream::connections::Connections;

/// How long to wait for somebody who is renewing the account's token: revoking the old one would not touch the new.
const LOCK_WAIT: Duration = Duration::from_secs(35);

/// What became of the sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The issuer takes it back.
    Revoked,
    /// It was the Codex CLI's, and stays that.
    Theirs,
    /// There was nothing to take back any more.
    Nothing,
}

/// Signs out of the account `name`, or of the active one. Only a sign-in of ccx's own is revoked: the Codex CLI goes
/// on with its.
///
/// # Errors
///
/// The issuer cannot be reached: then the account stays as it is.
pub fn run(environment: &Environment, name: Option<&str>, as_json: bool) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let kept = accounts::read(&setup)?;
    let id = accounts::find(&setup, &kept, name)?.id.clone();
    let lock = setup.store.lock_account(&id, LOCK_WAIT);
    let _lock = lock.map_err(|error| Report::new(Kind::Upstream, error).hint("try again"))?;
    // Read again: the token may have been renewed while we waited.
    let record = setup.store.account(&id).map_err(accounts::store_failed)?;
    let record = record.ok_or_else(accounts::removed)?;
    let ending = end(&setup, &record)?;
    accounts::forget(&setup, &record)?;
    let name = record.name();
    if as_json {
        let told = json!({"signed_out": {"id": record.id, "name": name,
            "revoked": ending == Ending::Revoked}});
        ui::json(&told);
    } else {
        ui::result(&match ending {
            Ending::Revoked => format!("Signed out of {name}; its sign-in is revoked\n"),
            Ending::Theirs => {
                format!("Forgot {name}; the Codex CLI stays signed in\n")
            }
            Ending::Nothing => format!("Forgot {name}; its sign-in had ended already\n"),
        });
    }
    accounts::note_what_is_left(&setup)?;
    Ok(0)
}

fn end(setup: &Setup, record: &Record) -> Result<Ending, Report> {
    let token = match (&record.source, &record.refresh_token, &record.dead) {
        (Source::CodexFile { .. } | Source::CodexShared { .. }, _, _) => return Ok(Ending::Theirs),
        (Source::Own, Some(token), None) => token,
        _ => return Ok(Ending::Nothing),
    };
    let internal = |error: anyhow::Error| Report::new(Kind::Internal, error);
    let connections =
        Connections::new(&setup.endpoints.auth).map_err(|error| internal(error.into()))?;
    let issuer = Issuer::new(&setup.endpoints.auth, connections);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| internal(error.into()))?;
    runtime.block_on(revoke(&issuer, token)).map_err(|error| {
        let attempt = format!(
            "could not sign out of {}; nothing was changed",
            record.name()
        );
        Report::new(Kind::Upstream, anyhow::Error::new(error).context(attempt))
            .hint("try again, or forget it on this machine only: `ccx accounts remove NAME`")
    })?;
    Ok(Ending::Revoked)
}
