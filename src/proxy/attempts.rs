//! One request's way upstream: send, and send again as long as that is invisible and may help.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::account::bindings::Bound;
use crate::account::chooser::{Next, Outlook, Setback, Talk};
use crate::account::credentials::Credentials;
use crate::capture::tape::Tape;
use crate::catalogue::model::Lane;
use crate::proxy::entry::{OpenEntry, now};
use crate::proxy::hop;
use crate::proxy::original::{Again, Original};
use crate::proxy::service::Service;
use crate::proxy::turns::Whose;
use crate::time::UnixSeconds;
use crate::translate::native;
use crate::translate::reasoning::Origin;
use crate::upstream::answer::Answer;
use crate::upstream::failure::Failure;
use crate::upstream::http::Call;
use crate::upstream::limits::{Facts, Limits};
use crate::upstream::retry::{self, Decision};

/// The request, and how often it was sent.
#[derive(Debug)]
pub struct Attempts {
    /// Gathers what goes by, where that is wanted.
    pub tape: Option<Tape>,
    /// How requests get upstream, who renews a token that it refuses, and who wants to know what an answer tells.
    pub service: Arc<Service>,
    /// The token in use.
    pub credentials: Credentials,
    /// Who makes the reasoning now.
    pub origin: Origin,
    /// The translated request.
    pub body: Bytes,
    /// The request as it came; kept only where it may have to be translated for another account.
    pub original: Option<Original>,
    /// Whether `body` is of a client that speaks upstream's own API: there is no other form of it, and what another account
    /// cannot read is left out of it.
    pub is_native: bool,
    /// The form that `body` has.
    pub lane: Lane,
    /// The conversation's key upstream.
    pub thread: String,
    /// The conversation and the model, and what else tells this turn from others.
    pub whose: Whose,
    /// Upstream's state of the turn, when this request goes on with one.
    pub turn_state: Option<String>,
    /// The service tier asked for.
    pub tier: Option<&'static str>,
    /// Estimated tokens of the request.
    pub tokens: u64,
    /// The model's window.
    pub window: Window,
    /// How often it was refused for its length.
    pub shortened: u32,
    /// How often it was sent.
    pub sent: u32,
    /// How often that failed, and in which ways.
    pub failures: retry::Attempts,
    /// Whether the reasoning of earlier turns was left out because upstream could not read it.
    pub has_left_reasoning: bool,
    /// How it went with accounts.
    pub moves: Moves,
    /// How other accounts stand, once one was used up and none took its place.
    pub outlook: Option<Outlook>,
}

/// How long a request a model takes, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// The whole window, as the model's list has it.
    pub listed: u64,
    /// What of it a request may fill, by all that was learnt.
    pub usable: u64,
}

/// How one request went from account to account.
#[derive(Debug, Default)]
pub struct Moves {
    /// How often the conversation moved for it.
    pub hops: u32,
    /// Tokens that the new account has to read anew, by estimate.
    pub cache_lost: u64,
    /// The accounts that no longer served it.
    tried: Vec<String>,
    /// What went wrong with the first of them.
    first: Option<Failure>,
    /// Whether one of them refused the model.
    is_model_refused: bool,
    /// What upstream could not be told after the last move, by kind.
    losses: Option<Vec<&'static str>>,
    /// Whether reasoning was left out of a body that has no other form, and that is not noted yet.
    has_left_out: bool,
    /// What the head of the last answer said of limits.
    head: Limits,
}

impl Moves {
    /// Counts a move away from `left`, of a request of about `tokens`.
    pub fn count(&mut self, left: Option<&Bound>, tokens: u64) {
        let Some(left) = left else { return };
        self.hops += 1;
        if left.has_answered {
            self.cache_lost = tokens;
        }
    }
}

impl Attempts {
    /// Sends the request until upstream begins a stream, or nothing more can be done.
    pub async fn open(&mut self) -> Result<Answer, Failure> {
        loop {
            self.sent += 1;
            let sent_at = self.service.chooser.now();
            let call = Call {
                body: self.body.clone(),
                lane: self.lane,
                model: &self.whose.model,
                conversation: &self.thread,
                turn_state: self.turn_state.as_deref(),
                tier: self.tier,
            };
            if let Some(tape) = &self.tape {
                tape.sent(self.body.clone(), self.lane.name());
            }
            let client = &self.service.client;
            match client.respond(&self.credentials, call).await {
                Ok(mut answer) => {
                    answer.tape.clone_from(&self.tape);
                    self.learn(&answer.facts, sent_at);
                    return Ok(answer);
                }
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    /// Passes on what the head of an answer tells beside the answer.
    fn learn(&mut self, facts: &Facts, sent_at: UnixSeconds) {
        let Service {
            shelf,
            client,
            turns,
            chooser,
            ..
        } = &*self.service;
        let account = &self.credentials.account;
        chooser.served(&self.talk(), account, &self.whose.model, sent_at);
        self.moves.head.clone_from(&facts.limits);
        if let Some(etag) = &facts.models_etag {
            shelf.note_etag(account, etag);
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
        self.note(entry);
        entry.note(|entry, age| {
            entry.first_byte = opened.is_ok().then_some(age);
            let answer = opened.as_ref().ok();
            entry.served = answer.and_then(|answer| answer.facts.served_model.clone());
        });
        opened
    }

    /// Notes in `entry` how often it was sent, and where it is now.
    pub fn note(&mut self, entry: &mut OpenEntry) {
        if self.shortened > 0 {
            // What is sent now has another size.
            entry.expect(0);
        }
        let moves = &mut self.moves;
        entry.note(|entry, _| {
            entry.attempts = self.sent;
            entry.hops = moves.hops;
            entry.cache_lost = moves.cache_lost;
            entry.account.clone_from(&self.credentials.account);
            entry.model.clone_from(&self.whose.model);
            if let Some(losses) = moves.losses.take() {
                entry.losses = losses;
            }
            if std::mem::take(&mut moves.has_left_out) {
                entry.losses.push("reasoning");
            }
        });
    }

    /// Does what makes another attempt worth while, or returns the failure that stands.
    pub async fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        if let Some(tape) = &self.tape {
            tape.failed(&failure);
        }
        if matches!(failure, Failure::ReasoningRefused { .. }) {
            return self.leave_reasoning(failure);
        }
        if matches!(failure, Failure::ModelUnavailable { .. })
            && let Some(original) = &mut self.original
            && let Some(asked) = original.asked.take()
        {
            tracing::warn!(
                model = original.model,
                asked,
                "the plan lacks the model of a small call"
            );
            original.model = asked;
            return self.tell_again(failure);
        }
        match self.again(failure).await {
            Ok(()) => Ok(()),
            Err(failure @ Failure::ContextTooLong { .. }) => self.shorten(failure).await,
            Err(failure) => self.go_elsewhere(failure).await,
        }
    }

    /// Does what makes another attempt on the same account worth while.
    async fn again(&mut self, failure: Failure) -> Result<(), Failure> {
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

    /// Tells the chooser about a failure that lies with the account, and moves to the account that it names.
    async fn go_elsewhere(&mut self, failure: Failure) -> Result<(), Failure> {
        let service = Arc::clone(&self.service);
        let (chooser, talk) = (&service.chooser, self.talk());
        let now = chooser.now();
        let mut failure = hop::completed(failure, &self.moves.head, now);
        let Some(mut setback) = hop::setback(&failure, &self.whose.model, now) else {
            return Err(failure);
        };
        let mut account = self.credentials.account.clone();
        loop {
            let is_model = setback == Setback::ModelRefused;
            self.moves.tried.push(account.clone());
            let tried = &self.moves.tried;
            let model = &self.whose.model;
            let next = chooser
                .exhausted(&talk, &account, setback, model, tried)
                .await;
            let pick = match next {
                // Whatever list is old, two in a row are the model's fault.
                Next::Move(pick) if !(is_model && self.moves.is_model_refused) => pick,
                Next::Move(_) => return Err(failure),
                Next::Stay(outlook) => {
                    // The limit that began it says more than what the last account lacked.
                    if !matches!(failure, Failure::UsageLimit { .. })
                        && let Some(first) = self.moves.first.take()
                    {
                        failure = first;
                    }
                    let failure = hop::last(failure, &outlook);
                    self.outlook = Some(outlook);
                    return Err(failure);
                }
            };
            self.moves.is_model_refused |= is_model;
            match service.broker.credentials(Some(&pick.account)).await {
                Ok(credentials) => {
                    self.moves.count(pick.left.as_ref(), self.tokens);
                    tracing::info!(
                        from = self.credentials.account,
                        to = pick.account,
                        why = %failure,
                        cache_lost = self.moves.cache_lost,
                        "the conversation moves to another account"
                    );
                    return self.sit_down(credentials, failure);
                }
                Err(error) => {
                    tracing::warn!(account = pick.account, why = %error, "an account without a token is passed over");
                    (account, setback) = (pick.account, Setback::SignedOut);
                }
            }
        }
    }

    /// Makes the request one of another account: nothing that the other one made goes with it.
    fn sit_down(&mut self, credentials: Credentials, failure: Failure) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.credentials, credentials);
        if let Err(failure) = self.tell_again(failure.clone()) {
            self.credentials = before;
            return Err(failure);
        }
        self.turn_state = None;
        self.whose.account.clone_from(&self.credentials.account);
        self.failures = retry::Attempts::default();
        self.moves.first.get_or_insert(failure);
        Ok(())
    }

    /// Makes the request one without the reasoning of earlier turns, once; the conversation goes on without it.
    fn leave_reasoning(&mut self, failure: Failure) -> Result<(), Failure> {
        if (self.original.is_none() && !self.is_native) || self.has_left_reasoning {
            return Err(failure);
        }
        let (thread, model) = (&self.thread, &self.whose.model);
        {
            let seals = &self.service.seals;
            // What a panic could leave half done here is at worst an epoch that is missing.
            let mut seals = seals.lock().unwrap_or_else(PoisonError::into_inner);
            let account = &self.credentials.chatgpt_account_id;
            // Another request of the conversation may have found it out meanwhile.
            if seals.origin(thread, account, model) == self.origin {
                seals.broke(thread);
            }
        }
        tracing::warn!(thread, why = %failure, "the conversation goes on without its earlier reasoning");
        self.has_left_reasoning = true;
        self.tell_again(failure)
    }

    /// Translates the request again, for the account and the model that count now.
    fn tell_again(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.is_native {
            return match native::ask::without_reasoning(&self.body) {
                Some(body) => {
                    self.body = body.into();
                    self.moves.has_left_out = true;
                    Ok(())
                }
                None if matches!(failure, Failure::ReasoningRefused { .. }) => Err(failure),
                None => Ok(()),
            };
        }
        let original = self.original.as_ref();
        let told = original.and_then(|one| one.translate(&self.service, &self.credentials));
        let Some(again) = told else {
            return Err(failure);
        };
        self.take_over(again);
        Ok(())
    }

    /// Sends what a new translation made from here on.
    pub(super) fn take_over(&mut self, again: Again) {
        let losses = again.translated.losses.iter();
        self.moves.losses = Some(losses.map(|loss| loss.kind).collect());
        self.body = again.translated.body.into();
        self.origin = again.origin;
        self.whose.model = again.model;
        self.lane = again.lane;
        self.tier = again.tier;
    }

    fn talk(&self) -> Talk {
        Talk {
            session: self.whose.conversation.clone(),
            agent: self.whose.agent.clone(),
        }
    }
}
