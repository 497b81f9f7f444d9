//! What one call upstream needs of an account.

use crate::secret::Secret;
use crate::time::UnixSeconds;

/// An access token and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// ccx's own id of the account in the store.
    pub account: String,
    /// Sent as the bearer token.
    pub access_token: Secret<String>,
    /// Sent as `chatgpt-account-id`; empty when unknown.
    pub chatgpt_account_id: String,
    /// When the access token expires.
    pub expires_at: UnixSeconds,
}
