//! What the backend saw: one entry for each request, newest last, bounded.
//!
//! Holds no tokens: they are replaced before anything is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// How many requests are kept; older ones are forgotten. A long demo makes some hundreds.
pub const KEPT_REQUESTS: usize = 1024;

/// How many bytes of bodies are kept; older bodies become `null`. A long context is about 3 MB.
pub const KEPT_BODY_BYTES: usize = 96 << 20;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is being sent.
    Open,
    /// The answer was sent to its end, whatever end the scenario wanted.
    Sent,
    /// The peer left before the end.
    Cancelled,
}

/// One request as the backend saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counts from 0 over all requests of this backend.
    pub ordinal: u64,
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, in wire order; the credential is replaced by `Bearer (redacted)`.
    pub headers: Vec<(String, String)>,
    /// The JSON body; `null` when there was none, it was no JSON, or it was forgotten.
    pub body: Arc<Value>,
    /// Length of the body in bytes.
    pub body_bytes: usize,
    /// The forged name of the account that asked; `None` where nobody was admitted.
    pub account: Option<String>,
    /// Status of the answer.
    pub status: u16,
    /// The scenario's step that answered, where one did.
    pub step: Option<String>,
    /// Why it was refused, where it was.
    pub refused: Option<String>,
    /// When its body was complete, counted from the backend's start.
    pub at: Duration,
    /// When the last byte of the answer was handed over, or the peer left.
    pub ended: Option<Duration>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Seen {
    /// Returns the first header called `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Says whether this is a request for an answer of a model.
    pub fn is_response(&self) -> bool {
        self.method == "POST" && self.target == "/backend-api/codex/responses"
    }
}

/// The list of requests.
#[derive(Debug, Default)]
pub(super) struct Record {
    seen: VecDeque<Seen>,
    next: u64,
    body_bytes: usize,
    cancelled: usize,
}

impl Record {
    /// Adds `seen` under the next number, which is returned; forgets the oldest.
    pub(super) fn add(&mut self, mut seen: Seen) -> u64 {
        let ordinal = self.next;
        self.next += 1;
        seen.ordinal = ordinal;
        self.body_bytes += seen.body_bytes;
        self.seen.push_back(seen);
        while self.seen.len() > KEPT_REQUESTS {
            if let Some(old) = self.seen.pop_front() {
                self.body_bytes -= kept_bytes(&old);
            }
        }
        for old in &mut self.seen {
            if self.body_bytes <= KEPT_BODY_BYTES {
                break;
            }
            self.body_bytes -= kept_bytes(old);
            old.body = Arc::new(Value::Null);
        }
        ordinal
    }

    /// Notes how the request `ordinal` ended. A second end does not count.
    pub(super) fn end(&mut self, ordinal: u64, outcome: Outcome, at: Duration) {
        if outcome == Outcome::Cancelled {
            self.cancelled += 1;
        }
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.ordinal == ordinal) {
            seen.outcome = outcome;
            seen.ended = Some(at);
        }
    }

    /// Returns a copy; bodies are shared.
    pub(super) fn snapshot(&self) -> Vec<Seen> {
        self.seen.iter().cloned().collect()
    }

    /// Returns how many answers the peer dropped.
    pub(super) const fn cancelled(&self) -> usize {
        self.cancelled
    }
}

fn kept_bytes(seen: &Seen) -> usize {
    if seen.body.is_null() {
        0
    } else {
        seen.body_bytes
    }
}

/// Returns `headers` fit to be kept: names in lower case, no credential.
pub(super) fn without_credentials(headers: &http::HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = if name == http::header::AUTHORIZATION {
                "Bearer (redacted)".to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(body_bytes: usize) -> Seen {
        Seen {
            ordinal: 0,
            method: "POST".to_owned(),
            target: "/".to_owned(),
            headers: Vec::new(),
            body: Arc::new(json!({})),
            body_bytes,
            account: None,
            status: 200,
            step: None,
            refused: None,
            at: Duration::ZERO,
            ended: None,
            outcome: Outcome::Open,
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut record = Record::default();
        for _ in 0..KEPT_REQUESTS + 10 {
            record.add(seen(1));
        }
        let kept = record.snapshot();
        assert_eq!(kept.len(), KEPT_REQUESTS);
        assert_eq!(kept[0].ordinal, 10);
        record.end(10, Outcome::Cancelled, Duration::from_secs(1));
        assert_eq!(record.snapshot()[0].outcome, Outcome::Cancelled);
        assert_eq!(record.cancelled(), 1);
    }

    #[test]
    fn bodies_are_forgotten_before_requests() {
        let mut record = Record::default();
        for _ in 0..3 {
            record.add(seen(KEPT_BODY_BYTES / 2));
        }
        let kept: Vec<bool> = record
            .snapshot()
            .iter()
            .map(|seen| !seen.body.is_null())
            .collect();
        assert_eq!(kept, [false, true, true]);
        assert!(record.body_bytes <= KEPT_BODY_BYTES);
    }

    #[test]
    fn a_credential_is_not_kept() {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", "Bearer abc".parse().unwrap());
        headers.insert("accept", "x".parse().unwrap());
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            without_credentials(&headers),
            [
                pair("authorization", "Bearer (redacted)"),
                pair("accept", "x")
            ]
        );
    }
}
