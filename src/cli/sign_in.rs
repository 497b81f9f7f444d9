//! Makes sure that there is an account before anything else is touched.

use std::io;

use crate::account::record::Record;
use crate::account::select::{SelectError, select};
use crate::account::sign_in::SignInError;
use crate::cli::environment::Environment;
use crate::cli::login::{self, Import};
use crate::cli::setup::{Setup, codex_login};
use crate::cli::ui;
use crate::error::Report;
use crate::proxy::entry::now;

/// Returns the account that `wanted` means, or the active one. Without any, a person at a terminal is offered
/// the Codex CLI's login if there is one; otherwise the report says what to do.
pub fn require_account(
    setup: &Setup,
    environment: &Environment,
    wanted: Option<&str>,
) -> Result<Record, Report> {
    match chosen(setup, wanted) {
        Err(SignInError::NoAccount { .. }) if offer_codex(setup, environment)? => {
            chosen(setup, wanted)
        }
        other => other,
    }
    .map_err(SignInError::report)
}

fn chosen(setup: &Setup, wanted: Option<&str>) -> Result<Record, SignInError> {
    let store = &setup.store;
    let kept = store
        .read()
        .map_err(|error| SignInError::Store(error.into()))?;
    select(&kept.accounts, kept.active.as_deref(), wanted)
        .cloned()
        .map_err(|error| match error {
            SelectError::Empty => SignInError::NoAccount {
                set_aside: store.set_aside().pop(),
            },
            error => SignInError::Select(error),
        })
}

/// Says whether the Codex CLI's login was there, was wanted, and was taken over.
fn offer_codex(setup: &Setup, environment: &Environment) -> Result<bool, Report> {
    let Some(path) = codex_login(environment).filter(|path| path.is_file()) else {
        return Ok(false);
    };
    let question = format!(
        "No account yet. Use the Codex CLI's login in {}?",
        path.display()
    );
    if !ui::can_ask() || !ui::confirm(&question) {
        return Ok(false);
    }
    let wanted = Import {
        from: &path,
        label: None,
        json: false,
    };
    // The client owns stdout, also its first line.
    let (mut out, mut notes) = (io::stderr(), io::stderr());
    login::import(&setup.places, &wanted, now(), &mut out, &mut notes)?;
    Ok(true)
}
