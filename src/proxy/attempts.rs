//! One request's way upstream: send, and send again as long as that is invisible and may help.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::account::credentials::Credentials;
use crate::catalogue::model::Lane;
use crate::proxy::entry::{OpenEntry, now};
use crate::proxy::service::Service;
use crate::proxy::turns::Whose;
use crate::upstream::answer::Answer;
use crate::upstream::failure::Failure;
use crate::upstream::http::Call;
use crate::upstream::limits::Facts;
use crate::upstream::retry::{self, Decision};

/// The request, and how often it was sent.
#[derive(Debug)]
pub struct Attempts {
    /// How requests get upstream, who renews a token that it refuses, and who wants to know what an answer tells.
    pub service: Arc<Service>,
    /// The token in use.
    pub credentials: Credentials,
    /// The translated request.
    pub body: Bytes,
    /// The form that `body` has.
    pub lane: Lane,
    /// The conversation and the model, and what else tells this turn from others.
    pub whose: Whose,
    /// Upstream's state of the turn, when this request goes on with one.
    pub turn_state: Option<String>,
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
                model: &self.whose.model,
                conversation: &self.whose.conversation,
                turn_state: self.turn_state.as_deref(),
                tier: self.tier,
            };
            let client = &self.service.client;
            match client.respond(&self.credentials, call).await {
                Ok(answer) => {
                    self.learn(&answer.facts);
                    return Ok(answer);
                }
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    /// Passes on what the head of an answer tells beside the answer.
    fn learn(&self, facts: &Facts) {
        let Service {
            shelf,
            client,
            turns,
            ..
        } = &*self.service;
        if let Some(etag) = &facts.models_etag {
            shelf.note_etag(etag);
        }
        shelf.keep_fresh(client, &self.credentials, now());
        if let Some(state) = &facts.turn_state {
            // What a panic could leave half done here is at worst a state that is missing.
            let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.keep(&self.whose, state);
        }
        if let Some(served) = &facts.served_model
            && *served != self.whose.model
        {
            tracing::warn!(asked = self.whose.model, served, "another model answers");
        }
    }

    /// As [`Attempts::open`], and notes in `entry` how it went.
    pub async fn open_for(&mut self, entry: &mut OpenEntry) -> Result<Answer, Failure> {
        let opened = self.open().await;
        entry.note(|entry, age| {
            entry.attempts = self.sent;
            entry.first_byte = opened.is_ok().then_some(age);
            entry.account.clone_from(&self.credentials.account);
            let answer = opened.as_ref().ok();
            entry.served = answer.and_then(|answer| answer.facts.served_model.clone());
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
            Decision::Renew => match self.service.broker.renew(&self.credentials).await {
                Ok(credentials) => {
                    self.credentials = credentials;
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(why = %error, "a refused token could not be renewed");
                    if error.is_transient() {
                        return Err(Failure::Unreachable {
                            what: error.to_string(),
                        });
                    }
                    let why = format!("{error}; {}", error.mend());
                    Err(Failure::SignedOut { why })
                }
            },
            Decision::GiveUp => Err(failure),
        }
    }
}
