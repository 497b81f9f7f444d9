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
