//! OpenAI Responses: stream events and their items.

use serde::Deserialize;

/// Token counts of an answer. `input_tokens` includes the cached ones, `output_tokens` the reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// All input tokens.
    pub input_tokens: u64,
    /// Of these, read from the cache.
    #[serde(skip)]
    pub cached_tokens: u64,
    /// All output tokens.
    pub output_tokens: u64,
    /// Of these, reasoning.
    #[serde(skip)]
    pub reasoning_tokens: u64,
}

/// A failure that upstream reported inside a stream, as it said it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFailure {
    /// `error.code`.
    pub code: Option<String>,
    /// `error.type`.
    pub kind: Option<String>,
    /// `error.message`.
    pub message: Option<String>,
    /// `status` of an `error` event.
    pub status: Option<u16>,
    /// `resets_at` (seconds since 1970), where it was told.
    pub resets_at: Option<u64>,
    /// `incomplete_details.reason` of a `response.incomplete` that is no ordinary end.
    pub incomplete: Option<String>,
}
