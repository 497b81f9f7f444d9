//! Asks upstream how much of an account's plan is left. Spends nothing of it.

use std::time::Duration;

use crate::account::credentials::Credentials;
use crate::time::UnixSeconds;
use crate::upstream::failure::Failure;
use crate::upstream::http::Client;
use crate::upstream::quota::Quota;

/// Upstream may be asked about the same account no more often than this (contract chatgpt-codex §9.2).
pub const SPACING: Duration = Duration::from_secs(60);

/// Says whether an account that was asked about at `asked_at` may be asked about again at `now`.
///
/// A moment in the future was written under another clock and holds nobody up.
pub fn may_ask(asked_at: Option<UnixSeconds>, now: UnixSeconds) -> bool {
    asked_at.is_none_or(|asked| asked > now || asked.plus(SPACING) <= now)
}

/// Asks once. Who calls keeps the distance: see [`may_ask`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_lies_between_two_questions() {
        let now = UnixSeconds(1000);
        for (asked_at, expected) in [
            (None, true),
            (Some(1000), false),
            (Some(941), false),
            (Some(940), true),
            (Some(0), true),
            (Some(1001), true),
        ] {
            assert_eq!(
                may_ask(asked_at.map(UnixSeconds), now),
                expected,
                "{asked_at:?}"
            );
        }
    }
}
