//! The account for a request that has just arrived, and a token for it.

use crate::account::bindings::Bound;
use crate::account::chooser::{Next, PickError, Setback, Talk};
use crate::account::credentials::Credentials;
use crate::account::select::SelectError;
use crate::account::sign_in::SignInError;
use crate::proxy::entry::now;
use crate::proxy::reply::{self, Reply};
use crate::proxy::service::Service;

/// Where a request is sent.
#[derive(Debug)]
pub struct Seat {
    /// The token.
    pub credentials: Credentials,
    /// Where the conversation was until now, if that was elsewhere.
    pub left: Option<Bound>,
}

/// Finds an account for a request of `talk` for upstream's `model`.
///
/// # Errors
///
/// The reply that says why there is none.
pub async fn find(service: &Service, talk: &Talk, model: &str) -> Result<Seat, Reply> {
    let chooser = &service.chooser;
    let mut left = None;
    let mut tried = Vec::new();
    let mut pick = chooser.pick(talk, model).await.map_err(from_pick)?;
    loop {
        left = left.or(pick.left);
        let account = pick.account;
        let error = match service.broker.credentials(Some(&account)).await {
            Ok(credentials) => return Ok(Seat { credentials, left }),
            Err(error) => error,
        };
        let is_again = tried.contains(&account);
        tried.push(account.clone());
        let error = match error {
            // The account was removed meanwhile: a conversation that was not told to stay there begins anew.
            SignInError::Removed | SignInError::Select(SelectError::Unknown { .. }) => {
                chooser.forget(&account);
                if !is_again {
                    pick = chooser.pick(talk, model).await.map_err(from_pick)?;
                    if pick.account != account {
                        continue;
                    }
                }
                SignInError::Removed
            }
            other => other,
        };
        if !error.is_transient() {
            let next = chooser
                .exhausted(talk, &account, Setback::SignedOut, model, &tried)
                .await;
            if let Next::Move(next) = next {
                tracing::warn!(account, why = %error, "an account without a token is passed over");
                pick = next;
                continue;
            }
        }
        return Err(from_sign_in(&error));
    }
}

fn from_sign_in(error: &SignInError) -> Reply {
    let words = format!("{error}; {}", error.mend());
    reply::from_sign_in(words, error.is_transient())
}

fn from_pick(error: PickError) -> Reply {
    match error {
        PickError::SignIn(error) => from_sign_in(&error),
        PickError::Exhausted(outlook) => reply::all_exhausted(&outlook, now()),
    }
}
