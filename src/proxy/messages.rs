//! `POST /v1/messages`: from a client's request to upstream's answer.

use std::fmt::Display;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::account::chooser::Talk;
use crate::account::credentials::Credentials;
use crate::catalogue::lanes::Route;
use crate::catalogue::list::UnknownModel;
use crate::ledger::Outcome;
use crate::proxy::attempts::{Attempts, Moves, Window};
use crate::proxy::body::Body;
use crate::proxy::class::RequestClass;
use crate::proxy::conversation::{self, Conversation};
use crate::proxy::course::Course;
use crate::proxy::entry::OpenEntry;
use crate::proxy::intake;
use crate::proxy::original::{self, Original};
use crate::proxy::patience::Repeated;
use crate::proxy::pipe::{self, Facts, Pipe};
use crate::proxy::reply::Reply;
use crate::proxy::seat::{self, Seat};
use crate::proxy::service::{Service, fresh_id, json};
use crate::proxy::turns::Whose;
use crate::sse::Decoder;
use crate::translate::cut::Bounds;
use crate::translate::estimate;
use crate::translate::fold::Fold;
use crate::translate::papers::Papers;
use crate::translate::reasoning::Origin;
use crate::translate::stream::{Setup, Step};
use crate::upstream::answer::Answer;
use crate::upstream::failure::Failure;
use crate::upstream::limits::{self, Limits};
use crate::upstream::retry;
use crate::wire::envelope::ErrorKind;
use crate::wire::json::ParseError;
use crate::wire::messages;
use crate::wire::newest::Newest;

/// How much of a model's name the ledger keeps of what a client says.
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
        service.lessons.clone(),
        id.to_owned(),
    );
    match run(service, &mut entry, request).await {
        Ok(Run::Whole(body)) => Ok(json(body)),
        Ok(Run::Stream(begun)) => {
            let (begun, attempts, prepared) = *begun;
            Ok(stream(Pipe::new(begun, attempts, prepared.facts, entry)))
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
    let request = parse(service, &body).map_err(refuse)?;
    let Conversation { key, agent } = Conversation::of(&head.headers, &request);
    let catalogue = service.shelf.current();
    let class = RequestClass::of(&head.headers, &request);
    let model = service.config.classes.model(class, &request.model);
    let route = original::route(service, &catalogue, &request, &model)
        .map_err(|error| unknown_model(&error))?;
    let talk = Talk {
        session: key,
        agent,
    };
    let Seat { credentials, left } = seat::find(service, &talk, &route.0.choice.model.slug).await?;
    entry.note(|entry, _| entry.account.clone_from(&credentials.account));
    let papers = service.papers.read(&request, route.1.lane).await;
    let understood = Understood {
        request: &request,
        papers: &papers,
        route,
        talk,
        class,
    };
    let (mut prepared, translated, origin) = prepare(service, entry, &credentials, understood)?;
    let asked = (*model != *request.model).then(|| request.model.clone().into_owned());
    let may_be_told_anew = service.chooser.rules().may_move()
        || asked.is_some()
        || prepared.whose.class == RequestClass::Compaction
        || original::holds_seals(&request);
    let original = may_be_told_anew.then(|| Original {
        body: body.clone(),
        catalogue: Arc::clone(&catalogue),
        thread: prepared.thread.clone(),
        model: model.clone().into_owned(),
        asked,
        shortened_to: None,
    });
    // The client's form of the request is not needed any more but to be told anew: elsewhere, shorter, without reasoning
    // that cannot be read. Upstream's is kept for retries.
    drop(papers);
    drop(model);
    drop(request);
    drop(body);
    let mut moves = Moves::default();
    moves.count(left.as_ref(), prepared.facts.tokens);
    if let Some(left) = &left {
        tracing::info!(
            from = left.account,
            to = credentials.account,
            cache_lost = moves.cache_lost,
            "the conversation goes on on another account"
        );
    }
    let mut attempts = Attempts {
        service: service.clone(),
        credentials,
        origin,
        body: translated,
        original,
        lane: prepared.lane,
        thread: std::mem::take(&mut prepared.thread),
        whose: std::mem::take(&mut prepared.whose),
        turn_state: prepared.turn_state.take(),
        tier: prepared.tier,
        tokens: prepared.facts.tokens,
        window: prepared.window,
        shortened: 0,
        sent: 0,
        failures: prepared.failures,
        has_left_reasoning: false,
        moves,
        outlook: None,
    };
    if !prepared.is_stream {
        let answer = whole(&mut attempts, &prepared, entry);
        let answer = match class.deadline() {
            None => answer.await,
            Some(after) => match tokio::time::timeout(after, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::Late { after }),
            },
        };
        return answer
            .map(Run::Whole)
            .map_err(|failure| told(&failure, &attempts, &prepared));
    }
    match pipe::begin(&mut attempts, &prepared.setup, &prepared.facts, entry).await {
        Ok(begun) => Ok(Run::Stream(Box::new((begun, attempts, prepared)))),
        Err(failure) => Err(told(&failure, &attempts, &prepared)),
    }
}

/// Reads the client's request; of a list of tools that an earlier one had it reads no more than that it is the same.
fn parse<'a>(service: &Service, body: &'a [u8]) -> Result<messages::Request<'a>, ParseError> {
    // A translation that panicked leaves the cache whole or empty: it is only a cache.
    let tools = service.tools.lock().unwrap_or_else(PoisonError::into_inner);
    messages::Request::parse_knowing(body, &tools.sources())
}

fn refuse(error: impl Display) -> Reply {
    Reply::refused(400, ErrorKind::InvalidRequest, error.to_string())
}

/// The reply to a request that upstream did not answer.
fn told(failure: &Failure, attempts: &Attempts, prepared: &Prepared) -> Reply {
    let facts = Facts {
        outlook: attempts.outlook.clone(),
        ..prepared.facts.clone()
    };
    facts.reply(failure, attempts.sent)
}

/// What is known of a request once it was translated.
#[derive(Clone, Debug)]
struct Prepared {
    is_stream: bool,
    setup: Setup,
    facts: Facts,
    lane: crate::catalogue::model::Lane,
    thread: String,
    whose: Whose,
    turn_state: Option<String>,
    tier: Option<&'static str>,
    failures: retry::Attempts,
    window: Window,
}

/// What the client's request says, before it is translated.
struct Understood<'a> {
    request: &'a messages::Request<'a>,
    papers: &'a Papers<'a>,
    route: (Route<'a>, Course),
    talk: Talk,
    class: RequestClass,
}

/// Translates the client's request for an account.
fn prepare(
    service: &Arc<Service>,
    entry: &mut OpenEntry,
    credentials: &Credentials,
    understood: Understood<'_>,
) -> Result<(Prepared, Bytes, Origin), Reply> {
    let Understood {
        request,
        papers,
        route,
        talk,
        class,
    } = understood;
    let (model, course) = (route.0.choice.model, route.1);
    let thread = match class.has_conversation() {
        true => talk.session.clone(),
        false => conversation::beside(&talk.session, class),
    };
    let (translated, origin) =
        original::translated(service, request, &route, &thread, credentials, papers)
            .map_err(refuse)?;
    let newest = request.newest();
    let whose = Whose {
        conversation: talk.session,
        agent: talk.agent,
        class,
        has_tools: !request.tools.is_empty(),
        account: credentials.account.clone(),
        model: model.slug.clone(),
        lane: course.lane,
        tier: course.tier,
    };
    let turn_state = {
        // What a panic could leave half done here is at worst a state that is missing.
        let mut turns = service.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.resume(&whose, newest)
    };
    let estimate = estimate::input_tokens(request);
    let tokens = service.lessons.corrected(&model.slug, estimate);
    entry.expect(estimate);
    let account = &credentials.account;
    let whole = service
        .chooser
        .window(account, &model.slug, model.context_window);
    let window = Window {
        listed: model.context_window,
        usable: model.usable(whole),
    };
    entry.note(|entry, age| {
        entry.prepared = age;
        entry.asked = request.model.chars().take(LONGEST_NAME).collect();
        entry.model.clone_from(&model.slug);
        entry.conversation.clone_from(&whose.conversation);
        whose.class.name().clone_into(&mut entry.class);
        entry.losses = translated.losses.iter().map(|loss| loss.kind).collect();
    });
    let setup = Setup {
        message_id: fresh_id("msg_"),
        model: request.model.clone().into_owned(),
        origin: origin.clone(),
        names: Arc::new(translated.names),
        search: translated.search,
        input_tokens: tokens,
        bounds: Bounds::of(request).map_err(refuse)?,
        answers_safeguards: request.safeguards,
    };
    let facts = Facts {
        model: model.slug.clone(),
        window: window.usable,
        tokens,
        outlook: None,
        may_end_empty: newest == Newest::Results { has_failed: false },
        repeated: Repeated::of(&whose, request),
        arrived: service.chooser.now(),
        service: Arc::clone(service),
    };
    let is_repeat = {
        let patience = &service.patience;
        let patience = patience.lock().unwrap_or_else(PoisonError::into_inner);
        patience.is_repeat(facts.repeated, facts.arrived)
    };
    let prepared = Prepared {
        is_stream: request.stream,
        setup,
        facts,
        lane: course.lane,
        thread,
        whose,
        turn_state,
        tier: course.tier,
        failures: match is_repeat {
            true => retry::Attempts::of_a_repeat(),
            false => retry::Attempts::default(),
        },
        window,
    };
    Ok((prepared, translated.body.into(), origin))
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
        let mut fold = Fold::new(Setup {
            origin: attempts.origin.clone(),
            ..prepared.setup.clone()
        });
        let failure = match gather(answer, &mut fold, entry).await {
            Ok(()) => {
                prepared.facts.answered();
                return Ok(fold.into_body());
            }
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
        decoder.feed(&chunk).map_err(|_| Failure::TooLong)?;
        while let Some(frame) = decoder.next_frame() {
            if frame.event == limits::EVENT
                && let Some(limits) = Limits::from_event(frame.data)
            {
                entry.note_limits(&limits);
            }
            match fold.feed(frame) {
                Step::Continue => {}
                step @ (Step::Finished | Step::Cut) => {
                    let usage = fold.usage();
                    entry.note(|entry, age: Duration| {
                        entry.first_content = Some(age);
                        entry.is_estimate = fold.is_estimate();
                    });
                    entry.finish(Outcome::Done, usage);
                    if step == Step::Finished {
                        tokio::spawn(answer.drain());
                    }
                    return Ok(());
                }
                Step::Failed(failure) => return Err(Failure::from_stream(&failure)),
            }
        }
    }
}
