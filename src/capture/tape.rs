//! What goes by while a request is in flight. Gathers, bounded; decides and writes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::upstream::failure::Failure;

/// Bytes of an answer that are gathered, on each side.
pub const LARGEST_ANSWER: usize = 1024 * 1024;

/// Attempts that are gathered: more are not made for one request but in rare cases.
const ATTEMPTS: usize = 8;

/// One attempt upstream.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// The request's body as it was sent.
    pub request: Bytes,
    /// Its form.
    pub lane: &'static str,
    /// The stream's bytes as they came, up to [`LARGEST_ANSWER`].
    pub response: Vec<u8>,
    /// Why there is no answer, or no whole one.
    pub failure: Option<Failure>,
}

/// Everything that went by.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// The client's request.
    pub request: Bytes,
    /// The attempts upstream.
    pub exchanges: Vec<Exchange>,
    /// What the client was sent.
    pub response: Vec<u8>,
    /// Whether something is missing.
    pub is_cut: bool,
}

/// Gathers what goes by. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    gathered: Arc<Mutex<Gathered>>,
}

impl Tape {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        // Each change is one call: a panic elsewhere leaves it whole.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the client's request.
    pub fn asked(&self, body: Bytes) {
        self.gathered().request = body;
    }

    /// Notes that `body` is sent upstream.
    pub fn sent(&self, body: Bytes, lane: &'static str) {
        let mut gathered = self.gathered();
        if gathered.exchanges.len() == ATTEMPTS {
            gathered.exchanges.remove(0);
            gathered.is_cut = true;
        }
        gathered.exchanges.push(Exchange {
            request: body,
            lane,
            ..Exchange::default()
        });
    }

    /// Notes what came of the last attempt.
    pub fn came(&self, bytes: &[u8]) {
        let mut gathered = self.gathered();
        let Gathered {
            exchanges, is_cut, ..
        } = &mut *gathered;
        if let Some(last) = exchanges.last_mut() {
            *is_cut |= append(&mut last.response, bytes);
        }
    }

    /// Notes why the last attempt failed.
    pub fn failed(&self, failure: &Failure) {
        if let Some(last) = self.gathered().exchanges.last_mut() {
            last.failure = Some(failure.clone());
        }
    }

    /// Notes what the client was sent.
    pub fn told(&self, bytes: &[u8]) {
        let mut gathered = self.gathered();
        let Gathered {
            response, is_cut, ..
        } = &mut *gathered;
        *is_cut |= append(response, bytes);
    }

    /// Takes out what was gathered.
    pub fn take(&self) -> Gathered {
        std::mem::take(&mut self.gathered())
    }
}

/// Appends as much as there is room for; says whether something had none.
fn append(to: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let room = LARGEST_ANSWER.saturating_sub(to.len());
    to.extend_from_slice(&bytes[..bytes.len().min(room)]);
    bytes.len() > room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_is_bounded() {
        // [J05]
        let tape = Tape::default();
        tape.came(b"nobody asked yet");
        for number in 0..ATTEMPTS + 2 {
            tape.sent(Bytes::from(number.to_string()), "full");
        }
        for _ in 0..3 {
            tape.came(&vec![b'x'; LARGEST_ANSWER / 2 + 1]);
        }
        tape.told(b"short");
        let gathered = tape.take();
        assert_eq!(gathered.exchanges.len(), ATTEMPTS);
        assert_eq!(gathered.exchanges[0].request, "2");
        assert_eq!(
            gathered.exchanges[ATTEMPTS - 1].response.len(),
            LARGEST_ANSWER
        );
        assert!(gathered.is_cut);
        assert_eq!(gathered.response, b"short");
    }
}
