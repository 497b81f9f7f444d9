//! Takes a sign-in back at the issuer (contract chatgpt-codex §10.7).

use serde::Serialize;

use crate::oauth::answer::{ExchangeError, refuse};
use crate::oauth::exchange::CLIENT_ID;
use crate::oauth::issuer::Issuer;
use crate::secret::Secret;

#[derive(Serialize)]
struct Revocation<'a> {
    token: &'a str,
    token_type_hint: &'a str,
    client_id: &'a str,
}

/// Revokes `refresh_token`. A token that is of no more use anyway counts as revoked (RFC 7009, section 2.2).
///
/// # Errors
///
/// The issuer was not reached, or its answer leaves open whether the token is still good.
pub async fn revoke(issuer: &Issuer, refresh_token: &Secret<String>) -> Result<(), ExchangeError> {
    let body = serde_json::to_vec(&Revocation {
        token: refresh_token.expose(),
        token_type_hint: "refresh_token",
        client_id: CLIENT_ID,
    })
    .expect("three strings always serialise");
    let reply = issuer
        .post("/oauth/revoke", "application/json", body)
        .await?;
    if reply.is_success() {
        return Ok(());
    }
    match refuse(reply.status, &reply.body) {
        ExchangeError::Refused(_) => Ok(()),
        other => Err(other),
    }
}
