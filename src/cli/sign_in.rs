//! Makes sure that there is an account before anything else is touched.

use std::io;

use crate::account::freshness::{Freshness, freshness};
use crate::account::record::Record;
use crate::account::select::{SelectError, select};
use crate::account::sign_in::SignInError;
use crate::cli::environment::Environment;
use crate::cli::login::{self, Import, Way};
use crate::cli::setup::{Setup, codex_login};
use crate::cli::ui;
use crate::error::Report;
use crate::proxy::entry::now;

/// Returns the account that `wanted` means, or the active one. If there is none, or it is signed out for good, a
/// person at a terminal is offered a way to sign in; otherwise the report says what to do.
pub fn require_account(
    setup: &Setup,
    environment: &Environment,
    wanted: Option<&str>,
) -> Result<Record, Report> {
    let found = chosen(setup, wanted).and_then(usable);
    let is_first = match &found {
        Err(SignInError::NoAccount { .. }) => true,
        Err(SignInError::Refused { .. }) => false,
        _ => return found.map_err(SignInError::report),
    };
    if !ui::can_ask() {
        return found.map_err(SignInError::report);
    }
    let is_signed_in = if is_first {
        ui::note("No ChatGPT account is signed in yet.");
        offer_codex(setup, environment) || offer_browser(setup, environment)?
    } else {
        if let Err(error) = &found {
            ui::note(&format!("{error}."));
        }
        offer_browser(setup, environment)?
    };
    if is_signed_in {
        chosen(setup, wanted).and_then(usable)
    } else {
        found
    }
    .map_err(SignInError::report)
}

fn chosen(setup: &Setup, wanted: Option<&str>) -> Result<Record, SignInError> {
    let store = &setup.store;
    let kept = store
        .read()
        .map_err(|error| SignInError::Store(error.into()))?;
    let record = select(&kept.accounts, kept.active.as_deref(), wanted)
        .cloned()
        .map_err(|error| match error {
            SelectError::Empty => SignInError::NoAccount {
                set_aside: store.set_aside().pop(),
            },
            error => SignInError::Select(error),
        })?;
    SignInError::check_sealed(&record)?;
    Ok(record)
}

/// What the issuer will not renew is of use as long as its access token.
fn usable(account: Record) -> Result<Record, SignInError> {
    match &account.dead {
        Some(death) if freshness(account.expires_at, now()) == Freshness::Expired => {
            Err(SignInError::Refused {
                account: account.name(),
                reason: death.reason.clone(),
            })
        }
        _ => Ok(account),
    }
}

/// Says whether the Codex CLI's login was there, was wanted, and was taken over.
fn offer_codex(setup: &Setup, environment: &Environment) -> bool {
    let Some(path) = codex_login(environment).filter(|path| path.is_file()) else {
        return false;
    };
    let question = format!("Use the Codex CLI's login in {}?", path.display());
    if !ui::confirm(&question) {
        return false;
    }
    let wanted = Import {
        from: &path,
        label: None,
        take_over: false,
        json: false,
    };
    // The client owns stdout, also its first line.
    let (mut out, mut notes) = (io::stderr(), io::stderr());
    let imported = login::import(&setup.places, &wanted, now(), &mut out, &mut notes);
    if let Err(report) = &imported {
        ui::note(&report.to_string());
    }
    imported.is_ok()
}

/// Says whether a sign-in was wanted; it then succeeded.
fn offer_browser(setup: &Setup, environment: &Environment) -> Result<bool, Report> {
    if !ui::confirm("Sign in to ChatGPT with the browser now?") {
        return Ok(false);
    }
    let account = login::sign_in(setup, environment, Way::Browser, None)?;
    ui::note(&format!("Signed in as {}.", account.name()));
    Ok(true)
}
