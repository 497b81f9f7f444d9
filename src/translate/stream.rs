//! Responses events become Messages events: a state machine that is fed frames and writes SSE bytes.

use std::sync::Arc;

use crate::sse::Frame;
use crate::translate::names::ToolNames;
use crate::translate::reasoning::Origin;
use crate::wire::envelope::ErrorKind;
use crate::wire::responses::{StreamFailure, Usage};

/// What the machine has to know before the first event.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The answer's id (`msg_…`).
    pub message_id: String,
    /// The model's name as the client will see it.
    pub model: String,
    /// Who makes the reasoning: sealed into signatures.
    pub origin: Origin,
    /// Tool names to map back.
    pub names: Arc<ToolNames>,
    /// Estimated input tokens for `message_start`; zero when unknown.
    pub input_tokens: u64,
}

/// What feeding a frame led to.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// More is to come.
    Continue,
    /// The answer is complete; nothing may be written after it.
    Finished,
    /// Upstream said that it failed. Nothing was written for it: the caller decides between a retry
    /// (only while [`Machine::is_committed`] is false) and [`Machine::fail`].
    Failed(StreamFailure),
}

/// The state machine of one answer.
#[derive(Debug)]
pub struct Machine {
    setup: Setup,
}

impl Machine {
    /// Starts an answer; writes nothing yet.
    pub fn new(setup: Setup) -> Self {
        Self { setup }
    }

    /// Writes `message_start`.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        let _ = (&self.setup, out);
    }

    /// Takes one upstream frame and appends what it means to `out` as whole SSE records.
    pub fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Step {
        let _ = (frame, out);
        Step::Continue
    }

    /// Says whether anything of the answer's content was written: no retry after that.
    pub fn is_committed(&self) -> bool {
        false
    }

    /// Says whether upstream has begun to answer with content or an end, i.e. more than `created`.
    pub fn has_begun(&self) -> bool {
        false
    }

    /// Ends the answer with an `error` event. Open blocks stay open: the
    /// client must not take a cut answer for a whole one.
    pub fn fail(&mut self, kind: ErrorKind, message: &str, out: &mut Vec<u8>) {
        let _ = (kind, message, out);
    }

    /// Returns upstream's usage once the answer is complete.
    pub fn usage(&self) -> Option<Usage> {
        None
    }
}

/// The `code` of the failure reported for an answer that ended well but empty. Nothing was
/// written for it, so the caller may ask again.
pub const EMPTY_COMPLETION: &str = "ccx_empty_completion";

/// Appends a `ping` record.
pub fn ping(out: &mut Vec<u8>) {
    crate::sse::encode("ping", br#"{"type":"ping"}"#, out);
}
