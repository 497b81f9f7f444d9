//! Sends the beats of an answer as an HTTP body, and notes how it ended.
//!
//! A body, not a task: it is polled by the connection, so that it ends with it, and a peer that
//! leaves is noticed by its being dropped.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};

use super::backend::Shared;
use super::record::Outcome;
use super::stream::Beat;

/// Pause before a cut: hyper throws away what it has not written yet when a body fails, and what was
/// said before the cut must arrive.
const BEFORE_CUT: Duration = Duration::from_millis(20);

/// An answer that is being sent.
#[derive(Debug)]
pub(super) struct Play {
    beats: VecDeque<Beat>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    is_cut: bool,
    note: Note,
}

/// The end of an answer: noted as sent when asked to, else as cancelled when it is dropped.
#[derive(Debug)]
pub(super) struct Note {
    shared: Arc<Shared>,
    ordinal: u64,
    is_ended: bool,
}

/// The connection is dropped on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the scenario cuts the connection")]
pub(super) struct CutHere;

impl Note {
    pub(super) const fn new(shared: Arc<Shared>, ordinal: u64) -> Self {
        Self {
            shared,
            ordinal,
            is_ended: false,
        }
    }

    /// Notes that the whole answer was handed over.
    pub(super) fn sent(&mut self) {
        self.end(Outcome::Sent);
    }

    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.is_ended, true) {
            self.shared.end(self.ordinal, outcome);
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl Play {
    pub(super) fn new(beats: Vec<Beat>, note: Note) -> Self {
        Self {
            beats: beats.into(),
            sleep: None,
            is_cut: false,
            note,
        }
    }
}

impl Body for Play {
    type Data = Bytes;
    type Error = CutHere;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutHere>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.sleep = None;
            }
            if self.is_cut {
                self.note.sent();
                return Poll::Ready(Some(Err(CutHere)));
            }
            match self.beats.pop_front() {
                Some(Beat::Wait(time)) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                }
                Some(Beat::Send(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Beat::Cut) => {
                    self.is_cut = true;
                    self.sleep = Some(Box::pin(tokio::time::sleep(BEFORE_CUT)));
                }
                Some(Beat::Stall) => {
                    // Stays until the peer leaves: the connection drops this body then.
                    self.beats.push_front(Beat::Stall);
                    return Poll::Pending;
                }
                None => {
                    self.note.sent();
                    return Poll::Ready(None);
                }
            }
        }
    }
}
