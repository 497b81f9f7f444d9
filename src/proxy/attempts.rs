//! One request's way upstream: send, and send again as long as that is invisible and may help.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::account::broker::Broker;
use crate::account::credentials::Credentials;
use crate::catalogue::model::Lane;
use crate::proxy::entry::OpenEntry;
use crate::upstream::answer::Answer;
use crate::upstream::failure::Failure;
use crate::upstream::http::{Call, Client};
use crate::upstream::retry::{self, Decision};

/// The request, and how often it was sent.
#[derive(Debug)]
pub struct Attempts {
    /// How requests get upstream.
    pub client: Arc<Client>,
    /// Who renews a token that upstream refuses.
    pub broker: Arc<Broker>,
    /// The token in use.
    pub credentials: Credentials,
    /// The translated request.
    pub body: Bytes,
    /// The form that `body` has.
    pub lane: Lane,
    /// Upstream's name of the model.
    pub model: String,
    /// The conversation's key.
    pub conversation: String,
    /// The service tier asked for.
    pub tier: Option<&'static str>,
    /// How often it was sent.
    pub sent: u32,
    /// How often that failed, and in which ways.
    pub failures: retry::Attempts,
}

impl Attempts {
    /// Sends the request until upstream begins a stream, or nothing more can be done.
    pub async fn open(&mut self) -> Result<Answer, Failure> {
        loop {
            self.sent += 1;
            let call = Call {
                body: self.body.clone(),
                lane: self.lane,
                model: &self.model,
                conversation: &self.conversation,
                turn_state: None,
                tier: self.tier,
            };
            match self.client.respond(&self.credentials, call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    /// As [`Attempts::open`], and notes in `entry` how it went.
    pub async fn open_for(&mut self, entry: &mut OpenEntry) -> Result<Answer, Failure> {
        let opened = self.open().await;
        entry.note(|entry, age| {
            entry.attempts = self.sent;
            entry.first_byte = opened.is_ok().then_some(age);
        });
        opened
    }

    /// Does what makes another attempt worth while, or returns the failure that stands.
    pub async fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        match self.failures.failed(&failure, rand::random()) {
            Decision::Again(wait) => {
                tracing::warn!(
                    attempt = self.sent,
                    wait_ms = wait.as_millis() as u64,
                    why = %failure,
                    "upstream is asked again"
                );
                if wait > Duration::ZERO {
                    tokio::time::sleep(wait).await;
                }
                Ok(())
            }
            Decision::Renew => match self.broker.renew(&self.credentials).await {
                Ok(credentials) => {
                    self.credentials = credentials;
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(why = %error, "a refused token could not be renewed");
                    let message = format!("{error}; {}", error.mend());
                    Err(Failure::Unauthorized { message })
                }
            },
            Decision::GiveUp => Err(failure),
        }
    }
}
