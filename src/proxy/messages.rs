//! `POST /v1/messages`: from a client's request to upstream's answer.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::account::credentials::Credentials;
use crate::catalogue::list::UnknownModel;
use crate::ledger::Outcome;
use crate::proxy::attempts::Attempts;
use crate::proxy::body::Body;
use crate::proxy::conversation::Conversation;
use crate::proxy::entry::OpenEntry;
use crate::proxy::intake;
use crate::proxy::pipe::{self, Facts, Pipe};
use crate::proxy::reply::{self, Reply};
use crate::proxy::service::{Service, fresh_id, json};
use crate::proxy::turns::Whose;
use crate::sse::Decoder;
use crate::translate::estimate;
use crate::translate::fold::Fold;
use crate::translate::reasoning::Origin;
use crate::translate::request::{Target, translate};
use crate::translate::stream::{Setup, Step};
use crate::upstream::answer::Answer;
use crate::upstream::failure::Failure;
use crate::upstream::limits::{self, Limits};
use crate::upstream::retry;
use crate::wire::envelope::ErrorKind;
use crate::wire::messages;
use crate::wire::newest::Newest;

/// How much of a model's name and of a label the ledger keeps of what a client says.
const LONGEST_NAME: usize = 100;

/// Answers a request, as a stream or whole.
pub async fn answer(
    service: &Arc<Service>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let mut entry = OpenEntry::new(
        service.ledger.clone(),
        service.gauges.clone(),
        id.to_owned(),
    );
    match run(service, &mut entry, request).await {
        Ok(Run::Whole(body)) => Ok(json(body)),
        Ok(Run::Stream(begun)) => {
            let (begun, attempts, prepared) = *begun;
            let pipe = Pipe::new(
                begun,
                attempts,
                prepared.setup.origin,
                prepared.facts,
                entry,
            );
            Ok(stream(pipe))
        }
        Err(reply) => {
            let outcome = Outcome::Failed {
                status: reply.status,
                message: reply.message.clone(),
            };
            entry.finish(outcome, None);
            Err(reply)
        }
    }
}

enum Run {
    Whole(Vec<u8>),
    Stream(Box<(pipe::Begun, Attempts, Prepared)>),
}

async fn run(
    service: &Arc<Service>,
    entry: &mut OpenEntry,
    request: Request<Incoming>,
) -> Result<Run, Reply> {
    let (head, body) = request.into_parts();
    let body = intake::read(&head.headers, body).await?;
    let credentials = service
        .broker
        .credentials(service.account.as_deref())
        .await
        .map_err(|error| {
            let words = format!("{error}; {}", error.mend());
            reply::from_sign_in(words, error.is_transient())
        })?;
    entry.note(|entry, _| entry.account.clone_from(&credentials.account));
    let (mut prepared, translated) = prepare(service, entry, &head.headers, &credentials, &body)?;
    // The client's form of the request is not needed any more; upstream's is kept for retries.
    drop(body);
    let mut attempts = Attempts {
        service: service.clone(),
        credentials,
        body: translated,
        lane: prepared.lane,
        whose: std::mem::take(&mut prepared.whose),
        turn_state: prepared.turn_state.take(),
        tier: prepared.tier,
        sent: 0,
        failures: retry::Attempts::default(),
    };
    let told = |failure: Failure| reply::from_failure(&failure, prepared.facts.context());
    if !prepared.is_stream {
        let answer = whole(&mut attempts, &prepared, entry).await;
        return answer.map(Run::Whole).map_err(told);
    }
    match pipe::begin(&mut attempts, &prepared.setup, &prepared.facts, entry).await {
        Ok(begun) => Ok(Run::Stream(Box::new((begun, attempts, prepared)))),
        Err(failure) => Err(told(failure)),
    }
}

/// What is known of a request once it was translated.
#[derive(Clone, Debug)]
struct Prepared {
    is_stream: bool,
    setup: Setup,
    facts: Facts,
    lane: crate::catalogue::model::Lane,
    whose: Whose,
    turn_state: Option<String>,
    tier: Option<&'static str>,
}

/// Reads and translates the client's request: everything that borrows from its body.
fn prepare(
    service: &Service,
    entry: &mut OpenEntry,
    headers: &HeaderMap,
    credentials: &Credentials,
    body: &[u8],
) -> Result<(Prepared, Bytes), Reply> {
    let refuse = |words: String| Reply::refused(400, ErrorKind::InvalidRequest, words);
    let request = messages::Request::parse(body).map_err(|error| refuse(error.to_string()))?;
    let conversation = Conversation::of(headers, &request);
    let catalogue = service.shelf.current();
    let choice = catalogue
        .resolve(&request.model, &service.families)
        .map_err(|error| unknown_model(&error))?;
    let model = choice.model;
    let lane = model.lane();
    let origin = Origin::new(&credentials.chatgpt_account_id, &model.slug);
    let target = Target {
        model,
        lane,
        origin: &origin,
        conversation: &conversation.key,
        tier: choice.tier,
        effort: choice.effort,
    };
    let translated = {
        // A translation that panicked leaves the cache whole or empty: it is only a cache.
        let mut tools = service.tools.lock().unwrap_or_else(PoisonError::into_inner);
        translate(&request, &target, &mut tools).map_err(|error| refuse(error.to_string()))?
    };
    let newest = request.newest();
    let whose = Whose {
        conversation: conversation.key,
        agent: conversation.agent,
        class: class(headers),
        has_tools: !request.tools.is_empty(),
        account: credentials.account.clone(),
        model: model.slug.clone(),
    };
    let turn_state = {
        // What a panic could leave half done here is at worst a state that is missing.
        let mut turns = service.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.resume(&whose, newest)
    };
    let tokens = estimate::input_tokens(&request);
    entry.note(|entry, age| {
        entry.prepared = age;
        entry.asked = request.model.chars().take(LONGEST_NAME).collect();
        entry.model.clone_from(&model.slug);
        entry.conversation.clone_from(&whose.conversation);
        entry.class.clone_from(&whose.class);
        entry.losses = translated.losses.iter().map(|loss| loss.kind).collect();
    });
    let setup = Setup {
        message_id: fresh_id("msg_"),
        model: request.model.clone().into_owned(),
        origin,
        names: Arc::new(translated.names),
        input_tokens: tokens,
    };
    let facts = Facts {
        model: model.slug.clone(),
        window: model.usable_window(),
        tokens,
        may_end_empty: newest == Newest::Results { has_failed: false },
    };
    let prepared = Prepared {
        is_stream: request.stream,
        setup,
        facts,
        lane,
        whose,
        turn_state,
        tier: choice.tier,
    };
    Ok((prepared, translated.body.into()))
}

fn class(headers: &HeaderMap) -> String {
    let value = headers.get("x-claude-code-request-class");
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    text.chars().take(LONGEST_NAME).collect()
}

fn unknown_model(error: &UnknownModel) -> Reply {
    Reply::refused(404, ErrorKind::NotFound, error.to_string())
}

fn stream(pipe: Pipe) -> Response<Body> {
    let mut response = Response::new(Body::Stream(Box::new(pipe)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Gathers a whole answer: nothing was sent to the client, so every failure may be tried again.
async fn whole(
    attempts: &mut Attempts,
    prepared: &Prepared,
    entry: &mut OpenEntry,
) -> Result<Vec<u8>, Failure> {
    loop {
        let answer = attempts.open_for(entry).await?;
        let mut fold = Fold::new(prepared.setup.clone());
        let failure = match gather(answer, &mut fold, entry).await {
            Ok(()) => return Ok(fold.into_body()),
            Err(failure) => failure,
        };
        match attempts.recover(failure).await {
            Ok(()) => {}
            Err(Failure::Empty) if prepared.facts.may_end_empty => {
                fold.end_empty();
                entry.finish(Outcome::Done, fold.usage());
                return Ok(fold.into_body());
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn gather(mut answer: Answer, fold: &mut Fold, entry: &mut OpenEntry) -> Result<(), Failure> {
    let mut decoder = Decoder::default();
    let idle = pipe::UPSTREAM_IDLE;
    loop {
        let chunk = match tokio::time::timeout(idle, answer.chunk()).await {
            Err(_) => return Err(Failure::Stalled { idle }),
            Ok(None) => return Err(Failure::Cut),
            Ok(Some(chunk)) => chunk?,
        };
        decoder.feed(&chunk).map_err(|_| Failure::Malformed {
            what: "an event longer than any that upstream sends".into(),
        })?;
        while let Some(frame) = decoder.next_frame() {
            if frame.event == limits::EVENT
                && let Some(limits) = Limits::from_event(frame.data)
            {
                entry.note_limits(&limits);
            }
            match fold.feed(frame) {
                Step::Continue => {}
                Step::Finished => {
                    let usage = fold.usage();
                    entry.note(|entry, age: Duration| entry.first_content = Some(age));
                    entry.finish(Outcome::Done, usage);
                    tokio::spawn(answer.drain());
                    return Ok(());
                }
                Step::Failed(failure) => return Err(Failure::from_stream(&failure)),
            }
        }
    }
}
