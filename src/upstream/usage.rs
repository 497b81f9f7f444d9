//! Asks upstream how much of an account's plan is left. Spends nothing of it.

use crate::account::credentials::Credentials;
use crate::time::UnixSeconds;
use crate::upstream::failure::Failure;
use crate::upstream::http::Client;
use crate::upstream::quota::Quota;

/// Asks once. Who calls keeps the distance: see [`crate::upstream::quota::may_ask`].
///
/// # Errors
///
/// Upstream refused or was not reached; [`Failure::Malformed`] when what it sent is no usage report.
pub async fn ask(
    client: &Client,
    credentials: &Credentials,
    now: UnixSeconds,
) -> Result<Quota, Failure> {
    let body = client.usage(credentials).await?;
    Quota::from_usage(&body, now).map_err(|error| Failure::Malformed {
        what: error.to_string(),
    })
}
