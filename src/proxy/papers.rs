//! The texts of the PDFs that conversations hold, each taken out once.
//!
//! A client sends a PDF again with every later turn. Its text is found by a digest of what was sent, so that each
//! turn is told the same, also where a file could not be read. A request without a PDF, or for a model that reads
//! files, comes by without a look.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::catalogue::model::Lane;
use crate::pdf::apart::Reader;
use crate::translate::papers::{LONGEST_TEXT_BYTES, Paper, Papers, wanted};
use crate::wire::messages::Request;

/// What is kept, in bytes of text: forty of the longest.
const MOST_BYTES: usize = 16 << 20;

/// How long the files of one request may take together. Those that are not reached are tried again with the next.
const LONGEST: Duration = Duration::from_secs(30);

type Key = [u8; 32];

/// The texts, and the way to more.
#[derive(Debug)]
pub struct PaperShelf {
    reader: Reader,
    /// Least recently used first.
    kept: Mutex<VecDeque<(Key, Arc<Paper>)>>,
    /// One file is read at a time: whoever waits may find that it was read meanwhile.
    reading: tokio::sync::Mutex<()>,
}

impl PaperShelf {
    /// Makes an empty one.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            kept: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// Returns what is known of the PDFs in `request`, if it goes to `lane`; reads those that are new.
    pub async fn read<'a>(&self, request: &Request<'a>, lane: Lane) -> Papers<'a> {
        let mut papers = Papers::default();
        let end = Instant::now() + LONGEST;
        for data in wanted(&request.messages, lane) {
            let key = digest(data);
            let paper = match self.find(&key) {
                Some(paper) => paper,
                None => match self.read_one(key, data, end).await {
                    Some(paper) => paper,
                    None => continue,
                },
            };
            papers.add(data, paper);
        }
        papers
    }

    /// As [`PaperShelf::read`], of those only that are known already.
    pub fn known<'a>(&self, request: &Request<'a>, lane: Lane) -> Papers<'a> {
        let mut papers = Papers::default();
        for data in wanted(&request.messages, lane) {
            if let Some(paper) = self.find(&digest(data)) {
                papers.add(data, paper);
            }
        }
        papers
    }

    /// `None` if the time is over, or the process that reads cannot be started.
    async fn read_one(&self, key: Key, data: &str, end: Instant) -> Option<Arc<Paper>> {
        let turn = tokio::time::timeout_at(end, self.reading.lock()).await;
        let _turn = turn.ok()?;
        if let Some(paper) = self.find(&key) {
            return Some(paper);
        }
        if Instant::now() >= end {
            return None;
        }
        let reader = self.reader.clone();
        let data = data.to_owned();
        let started = Instant::now();
        let (done, read) = oneshot::channel();
        // A thread of its own: the end of a session waits for the runtime's, and not for this.
        let thread = thread::Builder::new().name("pdf".into());
        let spawned = thread.spawn(move || {
            let read = || {
                let Some(pdf) = decode(&data) else {
                    return Ok(Paper::Unreadable);
                };
                let reading = reader.read(&pdf, LONGEST_TEXT_BYTES)?;
                Ok(Paper::of(reading.pages, &reading.texts))
            };
            // Whoever asked may be gone.
            let _ = done.send(read());
        });
        let read = match spawned {
            Ok(_) => read.await,
            Err(error) => Ok(Err(error)),
        };
        let paper = match read {
            Ok(Ok(paper)) => Arc::new(paper),
            Ok(Err(error)) => {
                tracing::warn!(why = %error, "a PDF cannot be read: no process for it");
                return None;
            }
            // It was reported when it happened.
            Err(_panicked) => Arc::new(Paper::Unreadable),
        };
        tracing::info!(
            found = paper.kind(),
            took_ms = started.elapsed().as_millis() as u64,
            "a PDF was read"
        );
        self.keep(key, Arc::clone(&paper));
        Some(paper)
    }

    fn find(&self, key: &Key) -> Option<Arc<Paper>> {
        let mut kept = self.kept();
        let at = kept.iter().position(|(known, _)| known == key)?;
        let entry = kept.remove(at)?;
        let paper = Arc::clone(&entry.1);
        kept.push_back(entry);
        Some(paper)
    }

    fn keep(&self, key: Key, paper: Arc<Paper>) {
        let mut kept = self.kept();
        kept.push_back((key, paper));
        while kept.iter().map(|(_, paper)| paper.bytes()).sum::<usize>() > MOST_BYTES {
            kept.pop_front();
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Key, Arc<Paper>)>> {
        // What a panic leaves half done is at worst a text that is taken out again.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(data: &str) -> Key {
    Sha256::digest(data).into()
}

/// Decodes base64 as JSON may hold it: with escaped slashes and line ends, with or without padding.
fn decode(data: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    if let Ok(bytes) = engine.decode(data) {
        return Some(bytes);
    }
    let text: String = serde_json::from_str(&format!("\"{data}\"")).ok()?;
    let text: String = text.split_ascii_whitespace().collect();
    engine.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_json_may_hold_it() {
        for data in ["JVBERg==", "JVBERg", r"JVBE\nRg==", r"JVBE\r\n Rg=="] {
            assert_eq!(decode(data).as_deref(), Some(&b"%PDF"[..]), "{data}");
        }
        assert_eq!(decode(r"\/\/\/\/"), Some(vec![0xff; 3]));
        assert_eq!(decode("not base64!"), None);
    }
}
