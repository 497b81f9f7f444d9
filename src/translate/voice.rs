//! In which API an answer is told. What reads upstream's events and decides about ends and failures is the same for all.

use crate::sse::Frame;
use crate::translate::chat::tell::{Chunks, Completion, Options};
use crate::translate::fold::Fold;
use crate::translate::native::relay::{Relay, Response};
use crate::translate::reasoning::Origin;
use crate::translate::stream::{Machine, Setup, Step, ping};
use crate::wire::envelope::ErrorKind;
use crate::wire::responses::Usage;

/// The API of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// Messages.
    Messages,
    /// Chat completions.
    Chat(Options),
    /// Responses: upstream's own.
    Native,
}

/// An answer that is streamed.
#[derive(Debug)]
pub enum Voice {
    /// As events of the Messages API.
    Messages(Box<Machine>),
    /// As chunks of a chat completion.
    Chat(Box<Chunks>),
    /// As upstream says them.
    Native(Box<Relay>),
}

/// An answer that is gathered.
#[derive(Debug)]
pub enum Gathered {
    /// A Message.
    Messages(Box<Fold>),
    /// A chat completion.
    Chat(Box<Completion>),
    /// A response.
    Native(Box<Response>),
}

impl Tongue {
    /// Starts an answer that is streamed; writes nothing yet.
    pub fn voice(&self, setup: Setup) -> Voice {
        match self {
            Self::Messages => Voice::Messages(Box::new(Machine::new(setup))),
            Self::Chat(options) => Voice::Chat(Box::new(Chunks::new(setup, options.clone()))),
            Self::Native => Voice::Native(Box::default()),
        }
    }

    /// Starts an answer that is gathered.
    pub fn gathered(&self, setup: Setup) -> Gathered {
        match self {
            Self::Messages => Gathered::Messages(Box::new(Fold::new(setup))),
            Self::Chat(options) => {
                Gathered::Chat(Box::new(Completion::new(setup, options.clone())))
            }
            Self::Native => Gathered::Native(Box::default()),
        }
    }
}

impl Voice {
    /// As [`Machine::restart`].
    pub fn restart(&mut self, origin: Origin) {
        match self {
            Self::Messages(machine) => machine.restart(origin),
            Self::Chat(chunks) => chunks.restart(origin),
            Self::Native(relay) => **relay = Relay::default(),
        }
    }

    /// As [`Machine::start`].
    pub fn start(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Messages(machine) => machine.start(out),
            Self::Chat(chunks) => chunks.start(out),
            // It begins with what upstream says first.
            Self::Native(_) => {}
        }
    }

    /// As [`Machine::feed`].
    pub fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Step {
        match self {
            Self::Messages(machine) => machine.feed(frame, out),
            Self::Chat(chunks) => chunks.feed(frame, out),
            Self::Native(relay) => relay.feed(frame, out),
        }
    }

    /// As [`Machine::is_committed`].
    pub fn is_committed(&self) -> bool {
        match self {
            Self::Messages(machine) => machine.is_committed(),
            Self::Chat(chunks) => chunks.is_committed(),
            Self::Native(relay) => relay.has_begun(),
        }
    }

    /// As [`Machine::has_begun`].
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Messages(machine) => machine.has_begun(),
            Self::Chat(chunks) => chunks.machine().has_begun(),
            Self::Native(relay) => relay.has_begun(),
        }
    }

    /// Ends the answer with an error: as [`Machine::fail`].
    pub fn fail(&mut self, kind: ErrorKind, message: &str, out: &mut Vec<u8>) {
        match self {
            Self::Messages(machine) => machine.fail(kind, message, out),
            Self::Chat(chunks) => chunks.fail(kind.openai_name(), None, message, out),
            Self::Native(relay) => relay.fail(kind.openai_name(), message, out),
        }
    }

    /// As [`Machine::end_empty`].
    pub fn end_empty(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Messages(machine) => machine.end_empty(out),
            Self::Chat(chunks) => chunks.end_empty(out),
            // What upstream said, however little, was passed on.
            Self::Native(_) => {}
        }
    }

    /// Writes something that says no more than that the connection lives.
    pub fn ping(&self, out: &mut Vec<u8>) {
        match self {
            Self::Messages(_) => ping(out),
            Self::Chat(_) | Self::Native(_) => out.extend_from_slice(b": ping\n\n"),
        }
    }

    /// As [`Machine::usage`].
    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Messages(machine) => machine.usage(),
            Self::Chat(chunks) => chunks.machine().usage(),
            Self::Native(relay) => relay.usage(),
        }
    }

    /// As [`Machine::is_estimate`].
    pub fn is_estimate(&self) -> bool {
        match self {
            Self::Messages(machine) => machine.is_estimate(),
            Self::Chat(chunks) => chunks.machine().is_estimate(),
            Self::Native(_) => false,
        }
    }
}

impl Gathered {
    /// As [`Fold::feed`].
    pub fn feed(&mut self, frame: Frame<'_>) -> Step {
        match self {
            Self::Messages(fold) => fold.feed(frame),
            Self::Chat(completion) => completion.feed(frame),
            Self::Native(response) => response.feed(frame),
        }
    }

    /// As [`Fold::end_empty`].
    pub fn end_empty(&mut self) {
        match self {
            Self::Messages(fold) => fold.end_empty(),
            Self::Chat(completion) => completion.end_empty(),
            Self::Native(_) => {}
        }
    }

    /// Returns the answer as JSON: as [`Fold::into_body`].
    pub fn into_body(self) -> Vec<u8> {
        match self {
            Self::Messages(fold) => fold.into_body(),
            Self::Chat(completion) => completion.into_body(),
            Self::Native(response) => response.into_body(),
        }
    }

    /// As [`Fold::usage`].
    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Messages(fold) => fold.usage(),
            Self::Chat(completion) => completion.fold().usage(),
            Self::Native(response) => response.usage(),
        }
    }

    /// As [`Fold::is_estimate`].
    pub fn is_estimate(&self) -> bool {
        match self {
            Self::Messages(fold) => fold.is_estimate(),
            Self::Chat(completion) => completion.fold().is_estimate(),
            Self::Native(_) => false,
        }
    }
}
