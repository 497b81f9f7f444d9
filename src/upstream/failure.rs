//! Why upstream did not answer: decided once, on types.

use std::time::Duration;

/// A failure of one attempt, as the rest of ccx sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The access token was not taken.
    #[error("upstream did not accept the access token: {message}")]
    Unauthorized {
        /// Upstream's words.
        message: String,
    },
    /// The account may not do this.
    #[error("upstream refused: {why}")]
    Forbidden {
        /// Upstream's words, or what stood in their place.
        why: String,
    },
    /// The plan's limit is used up.
    #[error("usage limit reached: {message}")]
    UsageLimit {
        /// Upstream's words.
        message: String,
        /// When the window starts anew, in seconds since 1970.
        resets_at: Option<u64>,
    },
    /// Too many requests for now.
    #[error("rate limited: {message}")]
    RateLimited {
        /// Upstream's words.
        message: String,
        /// How long upstream asks to wait.
        retry_after: Option<Duration>,
    },
    /// No capacity for now.
    #[error("upstream is overloaded: {message}")]
    Overloaded {
        /// Upstream's words.
        message: String,
        /// How long upstream asks to wait.
        retry_after: Option<Duration>,
    },
    /// The request does not fit the model's window.
    #[error("the request is longer than the model's context window")]
    ContextTooLong {
        /// The window in tokens, where known.
        limit: Option<u64>,
    },
    /// The account is not served this model.
    #[error("model not available: {message}")]
    ModelUnavailable {
        /// Upstream's words.
        message: String,
    },
    /// The request was refused as it stands; the same again will be refused again.
    #[error("upstream rejected the request ({status}): {message}")]
    Rejected {
        /// Upstream's status.
        status: u16,
        /// Upstream's code.
        code: Option<String>,
        /// Upstream's words.
        message: String,
    },
    /// A fault on upstream's side.
    #[error("upstream failed ({status}): {message}")]
    Server {
        /// Upstream's status; 200 when the fault came inside a stream.
        status: u16,
        /// Upstream's words.
        message: String,
    },
    /// No connection.
    #[error("upstream cannot be reached: {what}")]
    Unreachable {
        /// Which part failed: name, connection, TLS, timeout.
        what: String,
    },
    /// The stream ended before the answer was complete.
    #[error("upstream cut the stream before the answer was complete")]
    Cut,
    /// Nothing came for too long.
    #[error("upstream sent nothing for {} s", idle.as_secs())]
    Stalled {
        /// How long nothing came.
        idle: Duration,
    },
    /// What came is not what upstream says it sends.
    #[error("upstream sent something that is not an event stream: {what}")]
    Malformed {
        /// What came, in a few words.
        what: String,
    },
}
