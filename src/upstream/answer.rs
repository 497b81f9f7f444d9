//! The body of an answer, chunk by chunk as it comes.
//!
//! Polling knows no timer: how long a silence may last is the pipe's to say. Dropping an [`Answer`] cancels
//! the call: the connection is closed (HTTP/1.1) or the stream reset (HTTP/2).
//!
//! Whether an answer is an event stream is decided on its first bytes, not on its content type:
//! both have been seen wrong. JSON or a page in place of a stream becomes a [`Failure`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;

use crate::capture::tape::Tape;
use crate::time::UnixSeconds;
use crate::translate::chat::back::Back;
use crate::upstream::failure::Failure;
use crate::upstream::limits::Facts;

/// The most that is kept of something that is no event stream: enough for every known error.
pub(super) const ERROR_BODY_LIMIT: usize = 64 * 1024;

/// The end of a body follows its terminal event within milliseconds, or not at all.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// An answer that has begun: what its headers say, and its body.
pub struct Answer {
    /// What the headers say.
    pub facts: Facts,
    /// Gathers what comes, where that is wanted.
    pub tape: Option<Tape>,
    status: u16,
    headers: HeaderMap,
    body: reqwest::Body,
    state: State,
    now: UnixSeconds,
    /// What makes upstream's events of the body, where it is a chat stream.
    back: Option<Box<Back>>,
}

enum State {
    /// Nothing was seen but white space.
    Beginning,
    /// The first bytes were looked at ahead of the reader.
    Seen(Bytes),
    /// An event stream.
    Passing,
    /// Something else, gathered until its end.
    Gathering(BytesMut),
    Over,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// Takes over a reply with a status of success. `now` is when it came.
    pub(super) fn new(reply: http::Response<reqwest::Body>, now: UnixSeconds) -> Self {
        let (parts, body) = reply.into_parts();
        Self {
            facts: Facts::read(&parts.headers),
            tape: None,
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            state: State::Beginning,
            now,
            back: None,
        }
    }

    /// As [`Answer::new`], of a chat stream.
    pub(super) fn of_chat(reply: http::Response<reqwest::Body>, now: UnixSeconds) -> Self {
        Self {
            back: Some(Box::default()),
            ..Self::new(reply, now)
        }
    }

    /// Says whether the headers promise an event stream.
    pub(super) fn promises_events(&self) -> bool {
        self.headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().starts_with("text/event-stream"))
    }

    /// Waits for the first bytes and looks at them; they are still given out by [`Answer::poll_chunk`].
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        match self.chunk().await {
            Some(Ok(bytes)) => {
                self.state = State::Seen(bytes);
                Ok(())
            }
            Some(Err(failure)) => Err(failure),
            None => Err(Failure::Malformed {
                what: "an empty answer".to_owned(),
            }),
        }
    }

    /// Polls for the next bytes, those of a chat stream as the events that they mean; `None` at the end of the body. After
    /// an error comes `None`.
    ///
    /// [`Failure::Cut`] when the body breaks off; the failure that upstream meant when it sent JSON in
    /// place of a stream; [`Failure::Malformed`] for anything else that is no event stream.
    pub fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            let chunk = ready!(self.poll_raw(context));
            if let (Some(tape), Some(Ok(bytes))) = (&self.tape, &chunk) {
                tape.came(bytes);
            }
            let Some(back) = &mut self.back else {
                return Poll::Ready(chunk);
            };
            let mut events = Vec::new();
            match chunk {
                Some(Ok(bytes)) => {
                    if back.feed(&bytes, &mut events).is_err() {
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(Failure::TooLong)));
                    }
                    if events.is_empty() {
                        continue;
                    }
                }
                None => {
                    back.end(&mut events);
                    if events.is_empty() {
                        return Poll::Ready(None);
                    }
                }
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
            }
            return Poll::Ready(Some(Ok(events.into())));
        }
    }

    /// Polls for the next bytes, exactly as they came.
    fn poll_raw(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if matches!(self.state, State::Over) {
            return Poll::Ready(None);
        }
        if let State::Seen(bytes) = &mut self.state {
            let bytes = std::mem::take(bytes);
            self.state = State::Passing;
            return Poll::Ready(Some(Ok(bytes)));
        }
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            let bytes = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => bytes,
                    // Trailers say nothing that we need.
                    _ => continue,
                },
                Some(Err(_)) => {
                    self.state = State::Over;
                    return Poll::Ready(Some(Err(Failure::Cut)));
                }
                None => {
                    let state = std::mem::replace(&mut self.state, State::Over);
                    return Poll::Ready(match state {
                        State::Gathering(body) => Some(Err(self.not_a_stream(&body))),
                        _ => None,
                    });
                }
            };
            match &mut self.state {
                State::Passing => return Poll::Ready(Some(Ok(bytes))),
                State::Gathering(body) => {
                    body.extend_from_slice(&bytes);
                    if body.len() > ERROR_BODY_LIMIT {
                        let body = std::mem::take(body);
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(self.not_a_stream(&body))));
                    }
                }
                State::Beginning | State::Seen(_) | State::Over => match bytes.trim_ascii_start() {
                    [] => return Poll::Ready(Some(Ok(bytes))),
                    [b'{' | b'[' | b'<', ..] => {
                        self.state = State::Gathering(BytesMut::from(bytes));
                    }
                    _ => {
                        self.state = State::Passing;
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                },
            }
        }
    }

    /// Waits for the next bytes: see [`Answer::poll_chunk`].
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Failure>> {
        std::future::poll_fn(|context| self.poll_chunk(context)).await
    }

    /// Reads what is left after the terminal event and throws it away, so that the connection serves the next call
    /// and upstream sees no cancellation. Gives up, which cancels, after a second or 64 kB.
    pub async fn drain(mut self) {
        let rest = async {
            let mut left = ERROR_BODY_LIMIT;
            while let Some(Ok(bytes)) = self.chunk().await {
                match left.checked_sub(bytes.len()) {
                    Some(less) => left = less,
                    None => break,
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_LIMIT, rest).await;
    }

    /// Classifies a body under a status of success that is no event stream.
    fn not_a_stream(&self, body: &[u8]) -> Failure {
        let says_why = |value: serde_json::Value| {
            ["error", "detail"]
                .iter()
                .any(|name| value.get(name).is_some_and(|why| !why.is_null()))
        };
        if serde_json::from_slice(body).is_ok_and(says_why) {
            return Failure::from_reply(self.status, &self.headers, body, self.now);
        }
        let what = match body.first() {
            Some(b'<') => "a web page",
            _ => "JSON",
        };
        Failure::Malformed {
            what: what.to_owned(),
        }
    }
}
