//! The shape of a capture's file, made of what was gathered: redacted, and cut where it is too long.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::capture::redact::Redactor;
use crate::capture::tape::{Exchange, Gathered};

/// The format that this ccx writes.
const VERSION: u32 = 1;

/// The longest that one text may be, in bytes. Four of them are the most of a usual file.
const LONGEST_TEXT: usize = 1024 * 1024;

/// Both sides of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// The format.
    pub version: u32,
    /// The version of ccx.
    pub ccx: String,
    /// The request id that the client was told.
    pub id: String,
    /// When it arrived, in unix seconds.
    pub at: u64,
    /// How it ended.
    pub outcome: String,
    /// The client's request.
    pub request: String,
    /// The attempts upstream, the last one last.
    pub exchanges: Vec<Turn>,
    /// What the client was sent.
    pub response: String,
    /// Whether something was too long to be kept whole.
    pub truncated: bool,
}

/// One attempt upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The request's body.
    pub request: String,
    /// Its form.
    pub lane: String,
    /// What came, as it came.
    pub response: String,
    /// Why there was no answer.
    pub failure: Option<String>,
}

/// What is known of the request beside its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The version of ccx.
    pub ccx: String,
    /// The request id.
    pub id: String,
    /// When it arrived.
    pub at: u64,
    /// How it ended.
    pub outcome: String,
}

impl Transcript {
    /// Makes one of what was gathered, without what `redactor` takes out.
    pub fn new(label: Label, gathered: &Gathered, redactor: &Redactor) -> Self {
        let mut truncated = gathered.is_cut;
        let mut text = |bytes: &[u8]| {
            let mut text = redactor.clean(&String::from_utf8_lossy(bytes));
            if text.len() > LONGEST_TEXT {
                text.truncate(text.floor_char_boundary(LONGEST_TEXT));
                truncated = true;
            }
            text
        };
        let request = text(&gathered.request);
        let response = text(&gathered.response);
        let turn = |exchange: &Exchange| Turn {
            request: text(&exchange.request),
            lane: exchange.lane.to_owned(),
            response: text(&exchange.response),
            failure: exchange
                .failure
                .as_ref()
                .map(|failure| redactor.clean(&failure.to_string())),
        };
        let exchanges = gathered.exchanges.iter().map(turn).collect();
        Self {
            version: VERSION,
            ccx: label.ccx,
            id: label.id,
            at: label.at,
            outcome: label.outcome,
            request,
            exchanges,
            response,
            truncated,
        }
    }

    /// Returns it in the form that pages get: the last attempt counts.
    pub fn value(&self) -> Value {
        let last = self.exchanges.last();
        json!({
            "request": self.request,
            "upstream_request": last.map(|last| &last.request),
            "upstream_response": last.map(|last| match &last.failure {
                Some(failure) if last.response.is_empty() => failure,
                _ => &last.response,
            }),
            "response": self.response,
            "truncated": self.truncated,
        })
    }
}
