//! What upstream could not be told: every deviation from what the client asked has a name and a place.

use std::fmt;

/// Something of the request that upstream cannot be told in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A stable name of the kind, e.g. `temperature`, `document`.
    pub kind: &'static str,
    /// How it was met: `dropped`, `approximated`, `marked`.
    pub how: &'static str,
    /// Where it stands.
    pub place: Place,
}

/// A place in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field of the request, which the kind is named after.
    Field,
    /// The system prompt.
    System,
    /// A message, and the block in it where there is one. Both count from 0.
    Message {
        /// Which message.
        at: usize,
        /// Which block of it.
        block: Option<usize>,
    },
    /// A tool, counted from 0.
    Tool(usize),
}

impl Loss {
    /// The model is not told at all.
    pub const fn dropped(kind: &'static str) -> Self {
        Self::new(kind, "dropped")
    }

    /// The model is told something close.
    pub const fn approximated(kind: &'static str) -> Self {
        Self::new(kind, "approximated")
    }

    /// The model is told, in words at the same place, that something was there.
    pub const fn marked(kind: &'static str) -> Self {
        Self::new(kind, "marked")
    }

    const fn new(kind: &'static str, how: &'static str) -> Self {
        Self {
            kind,
            how,
            place: Place::Field,
        }
    }

    /// Returns the same loss at `place`.
    #[must_use]
    pub const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

/// The place as the client's API names it, and what is lost there.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, how, place } = self;
        match place {
            // The client knows these words: it leaves such a field out from then on.
            Place::Field if *how == "dropped" => {
                return write!(f, "{kind}: Extra inputs are not permitted");
            }
            Place::Field => write!(f, "{kind}")?,
            Place::System => write!(f, "system")?,
            Place::Message { at, block: None } => write!(f, "messages.{at}")?,
            Place::Message {
                at,
                block: Some(block),
            } => write!(f, "messages.{at}.content.{block}")?,
            Place::Tool(at) => write!(f, "tools.{at}")?,
        }
        write!(f, ": {kind} would be {how}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_with_its_place() {
        let message = |block| Place::Message { at: 3, block };
        for (loss, expected) in [
            (
                Loss::dropped("safeguards"),
                "safeguards: Extra inputs are not permitted",
            ),
            (
                Loss::approximated("effort"),
                "effort: effort would be approximated",
            ),
            (
                Loss::dropped("web_search").at(Place::Tool(4)),
                "tools.4: web_search would be dropped",
            ),
            (
                Loss::marked("image").at(Place::System),
                "system: image would be marked",
            ),
            (
                Loss::approximated("document_text").at(message(Some(1))),
                "messages.3.content.1: document_text would be approximated",
            ),
            (
                Loss::approximated("missing_tool_result").at(message(None)),
                "messages.3: missing_tool_result would be approximated",
            ),
        ] {
            assert_eq!(loss.to_string(), expected);
        }
    }
}
