//! Anthropic Messages: requests, as Claude Code sends them.

use serde::Deserialize;

/// The body of `POST /v1/messages`, borrowed from the bytes received.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The model's name as the client says it.
    #[serde(borrow)]
    pub model: std::borrow::Cow<'a, str>,
    /// Whether the answer is a stream; absent means no.
    #[serde(default)]
    pub stream: bool,
}
