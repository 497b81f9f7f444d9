//! A Messages request becomes a Responses request.

use crate::catalogue::model::{Effort, Lane, Model};
use crate::translate::names::ToolNames;
use crate::translate::reasoning::Origin;
use crate::wire::messages;

/// Where a request goes and what that place can take.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The catalogue entry of the upstream model.
    pub model: &'a Model,
    /// Which form of the request that model is served.
    pub lane: Lane,
    /// The account and model whose encrypted reasoning may be replayed.
    pub origin: &'a Origin,
    /// The conversation: becomes `prompt_cache_key`. Stable from turn to turn.
    pub conversation: &'a str,
    /// `service_tier` to ask for, already known to be offered by the model.
    pub tier: Option<&'a str>,
    /// Effort that outranks what the request says (configuration).
    pub effort: Option<Effort>,
}

/// A request in upstream's form.
#[derive(Debug)]
pub struct Translated {
    /// The JSON body. The same request and target give the same bytes.
    pub body: Vec<u8>,
    /// Tool names that had to be changed.
    pub names: ToolNames,
    /// What upstream could not be told, one entry for each kind and place.
    pub losses: Vec<Loss>,
}

/// Something of the request that upstream cannot be told in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A stable name of the kind, e.g. `temperature`, `document`.
    pub kind: &'static str,
    /// How it was met: `dropped`, `approximated`, `marked`.
    pub how: &'static str,
}

/// A request that cannot be translated: the client's fault, answered with 400.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No messages at all.
    #[error("messages: at least one message is required")]
    NoMessages,
}

/// Translated tool lists of earlier requests, so that a conversation's tools are translated once.
#[derive(Debug, Default)]
pub struct ToolCache {}

/// Translates `request` for `target`.
pub fn translate(
    request: &messages::Request<'_>,
    target: &Target<'_>,
    cache: &mut ToolCache,
) -> Result<Translated, RequestError> {
    let _ = (request, target, cache);
    Err(RequestError::NoMessages)
}
