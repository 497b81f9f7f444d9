//! How many tokens a request is, by the tokenizer: what `count_tokens` answers.
//!
//! A conversation says most of what it said before, and the client asks for a score of counts at once, so counts of
//! longer texts are remembered by a digest ([`Known`]). `weigh` says what is counted.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use crate::translate::shrink::Weigher;
use crate::translate::tokenizer::{Tally, Tokenizer};
use crate::translate::weigh::{
    Scale, Shown, picture_tokens, shown, weigh, weigh_block, weigh_message,
};
use crate::wire::blocks::Block;
use crate::wire::json::Text;
use crate::wire::messages::{Message, Request, Tools};

/// Around a tool's definition.
const TOOL_TOKENS: u64 = 8;

/// Shorter texts are counted quicker than they are looked up.
const LONG_BYTES: usize = 256;

/// How many counts are remembered at most, twice. A long conversation has some thousand texts; this takes 0.3 MB.
const KNOWN_LIMIT: usize = 4_096;

/// Up to here texts are counted; what follows is taken by its size, at [`BYTES_A_TOKEN`]. No window holds as much by far,
/// and nobody can keep the tokenizer busy for minutes.
const COUNTED_BYTES: u64 = 16 << 20;

/// Bytes of a token, as texts go; rather too few.
const BYTES_A_TOKEN: u64 = 3;

/// Counts of texts that came before, by digest. Two generations: what was not asked for while the newer one filled up
/// is forgotten.
#[derive(Debug, Default)]
pub struct Known {
    newer: HashMap<u64, u64>,
    older: HashMap<u64, u64>,
}

impl Known {
    fn get(&mut self, digest: u64) -> Option<u64> {
        if let Some(tokens) = self.newer.get(&digest) {
            return Some(*tokens);
        }
        let tokens = self.older.remove(&digest)?;
        self.put(digest, tokens);
        Some(tokens)
    }

    fn put(&mut self, digest: u64, tokens: u64) {
        if self.newer.len() >= KNOWN_LIMIT {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(digest, tokens);
    }
}

/// Returns the input tokens of `request`, never zero; `None` if `may_go_on` said no, which is asked every few
/// milliseconds.
pub fn input_tokens(
    request: &Request<'_>,
    tokenizer: &Tokenizer,
    known: &Mutex<Known>,
    may_go_on: impl FnMut() -> bool,
) -> Option<u64> {
    let mut counter = Counter::new(tokenizer, known, may_go_on);
    weigh(request, &mut counter);
    (!counter.is_stopped).then(|| counter.tokens.max(1))
}

/// Counts a request and its parts, one after the other.
pub struct Counter<'k, 't, F> {
    tally: Tally<'t>,
    known: &'k Mutex<Known>,
    may_go_on: F,
    tokens: u64,
    left_bytes: u64,
    is_stopped: bool,
}

/// What is looked at: a string as it was written, or JSON that is shown as it stands.
#[derive(Clone, Copy)]
enum Part<'a> {
    Text(Text<'a>),
    Json(&'a str),
}

impl Part<'_> {
    fn written(&self) -> &str {
        match self {
            Self::Text(text) => text.escaped(),
            Self::Json(text) => text,
        }
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        matches!(self, Self::Text(_)).hash(&mut hasher);
        self.written().hash(&mut hasher);
        hasher.finish()
    }
}

impl<'k, 't, F: FnMut() -> bool> Counter<'k, 't, F> {
    /// Begins. See [`input_tokens`] for `may_go_on`.
    pub fn new(tokenizer: &'t Tokenizer, known: &'k Mutex<Known>, may_go_on: F) -> Self {
        Self {
            tally: tokenizer.tally(),
            known,
            may_go_on,
            tokens: 0,
            left_bytes: COUNTED_BYTES,
            is_stopped: false,
        }
    }

    /// Says whether it was told to stop: what it has returned since then is not to be used.
    pub const fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Returns what `weigh` hands over.
    fn alone(&mut self, weigh: impl FnOnce(&mut Self)) -> u64 {
        self.left_bytes = COUNTED_BYTES;
        self.tokens = 0;
        weigh(self);
        self.tokens
    }

    fn part(&mut self, part: Part<'_>) {
        let size = part.written().len();
        if self.is_stopped || size == 0 {
            return;
        }
        let Some(left) = self.left_bytes.checked_sub(size as u64) else {
            self.tokens += size as u64 / BYTES_A_TOKEN;
            return;
        };
        self.left_bytes = left;
        let digest = (size >= LONG_BYTES).then(|| part.digest());
        if let Some(tokens) = digest.and_then(|digest| self.known().get(digest)) {
            self.tokens += tokens;
            return;
        }
        let Self {
            tally, may_go_on, ..
        } = self;
        let mut is_whole = true;
        match part {
            Part::Text(text) => {
                text.for_each_part(|part| is_whole = is_whole && tally.feed(part, may_go_on));
            }
            Part::Json(text) => is_whole = tally.feed(text, may_go_on),
        }
        let tokens = tally.finish();
        if !is_whole {
            self.is_stopped = true;
            return;
        }
        self.tokens += tokens;
        if let Some(digest) = digest {
            self.known().put(digest, tokens);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // What a panic could leave half done is at worst a count that is missing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: FnMut() -> bool> Weigher for Counter<'_, '_, F> {
    fn request(&mut self, request: &Request<'_>) -> u64 {
        self.alone(|scale| weigh(request, scale))
    }

    fn block(&mut self, block: &Block<'_>) -> u64 {
        self.alone(|scale| weigh_block(block, scale))
    }

    fn message(&mut self, message: &Message<'_>) -> u64 {
        self.alone(|scale| weigh_message(message, scale))
    }
}

impl<F: FnMut() -> bool> Scale for Counter<'_, '_, F> {
    fn text(&mut self, text: Text<'_>) {
        self.part(Part::Text(text));
    }

    fn json(&mut self, text: &str) {
        self.part(Part::Json(text));
    }

    fn tokens(&mut self, tokens: u64) {
        self.tokens += tokens;
    }

    fn picture(&mut self, data: &str) {
        self.tokens += picture_tokens(data);
    }

    fn tools(&mut self, tools: &Tools<'_>, loaded: &[Text<'_>]) {
        for Shown {
            name,
            description,
            schema,
        } in shown(tools, loaded)
        {
            self.tokens += TOOL_TOKENS;
            self.text(name);
            if let Some(description) = description {
                self.text(description);
            }
            if let Some(schema) = schema {
                self.json(schema.text());
            }
        }
    }
}
