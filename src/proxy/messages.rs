//! `POST /v1/messages`: from a client's request to upstream's answer.

use std::fmt::Display;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use crate::account::chooser::Talk;
use crate::account::credentials::Credentials;
use crate::catalogue::lanes::Route;
use crate::catalogue::list::UnknownModel;
use crate::catalogue::model::Lane;
use crate::ledger::Sent;
use crate::proxy::attempts::{Attempts, Moves, Window};
use crate::proxy::body::Body;
use crate::proxy::class::RequestClass;
use crate::proxy::conversation::{self, Conversation};
use crate::proxy::course::Course;
use crate::proxy::entry::OpenEntry;
use crate::proxy::exchange::{self, Prepared, Run};
use crate::proxy::intake;
use crate::proxy::kilo;
use crate::proxy::original::{self, Original};
use crate::proxy::patience::Repeated;
use crate::proxy::pipe::Facts;
use crate::proxy::reply::Reply;
use crate::proxy::seat::{self, Seat};
use crate::proxy::service::{Service, fresh_id};
use crate::proxy::turns::Whose;
use crate::translate::cut::Bounds;
use crate::translate::estimate;
use crate::translate::loss::Loss;
use crate::translate::papers::Papers;
use crate::translate::reasoning::Origin;
use crate::translate::stream::Setup;
use crate::translate::voice::Tongue;
use crate::upstream::retry;
use crate::wire::envelope::ErrorKind;
use crate::wire::json::ParseError;
use crate::wire::messages;
use crate::wire::newest::Newest;

/// How much of a model's name the ledger keeps of what a client says.
pub(super) const LONGEST_NAME: usize = 100;

/// Answers a request, as a stream or whole.
pub async fn answer(
    service: &Arc<Service>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let mut entry = OpenEntry::of(service, id);
    let (head, body) = request.into_parts();
    let answered = async {
        let body = intake::read(&head.headers, body).await?;
        run(service, &mut entry, &head.headers, body, Asked::default()).await
    };
    let answered = answered.await;
    exchange::respond(answered, entry)
}

/// What is known of a request beside its body, which is in the words of the Messages API by now.
#[derive(Debug)]
pub struct Asked {
    /// In which API it is answered.
    pub tongue: Tongue,
    /// What was lost on the way to the Messages API.
    pub losses: Vec<Loss>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            tongue: Tongue::Messages,
            losses: Vec::new(),
        }
    }
}

/// Asks upstream for an answer to `body`, which is in the words of the Messages API.
///
/// # Errors
///
/// What the client is told instead of an answer.
pub async fn run(
    service: &Arc<Service>,
    entry: &mut OpenEntry,
    headers: &HeaderMap,
    body: Bytes,
    asked: Asked,
) -> Result<Run, Reply> {
    if let Some(tape) = entry.tape() {
        tape.asked(body.clone());
    }
    let request = parse(service, &body).map_err(refuse)?;
    let Conversation { key, agent } = Conversation::of(headers, &request);
    let catalogue = service.shelf.current();
    let class = match &asked.tongue {
        Tongue::Messages => RequestClass::of(headers, &request),
        Tongue::Chat(_) => RequestClass::Chat,
        Tongue::Native => RequestClass::Responses,
    };
    let model = service.config.classes.model(class, &request.model);
    let talk = Talk {
        session: key,
        agent,
    };
    if let Some(kilo) = kilo::model(service, &request, &model, class) {
        return kilo::run(service, entry, &request, &kilo, (asked, class, talk)).await;
    }
    let route = original::route(service, &catalogue, &request, &model)
        .map_err(|error| unknown_model(&error))?;
    let Seat { credentials, left } = seat::find(service, &talk, &route.0.choice.model.slug).await?;
    entry.note(|entry, _| {
        entry.account.clone_from(&credentials.account);
        entry.why_account = Some(why(service, left.is_some()));
    });
    let papers = service.papers.read(&request, route.1.lane).await;
    let understood = Understood {
        request: &request,
        papers: &papers,
        route,
        talk,
        class,
        beyond: &asked.losses,
    };
    let (prepared, way, translated, origin) = prepare(service, entry, &credentials, understood)?;
    let Asked { tongue, losses } = asked;
    let asked = (*model != *request.model).then(|| request.model.clone().into_owned());
    let may_be_told_anew = service.chooser.rules().may_move()
        || asked.is_some()
        || way.whose.class == RequestClass::Compaction
        || original::holds_seals(&request);
    let original = may_be_told_anew.then(|| Original {
        body: body.clone(),
        catalogue: Arc::clone(&catalogue),
        thread: way.thread.clone(),
        model: model.clone().into_owned(),
        asked,
        shortened_to: None,
        beyond: losses,
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
    let attempts = Attempts {
        tape: entry.tape().cloned(),
        service: service.clone(),
        credentials,
        origin,
        body: translated,
        original,
        is_native: false,
        lane: way.lane,
        thread: way.thread,
        whose: way.whose,
        turn_state: way.turn_state,
        tier: way.tier,
        tokens: prepared.facts.tokens,
        window: way.window,
        shortened: 0,
        sent: 0,
        failures: way.failures,
        has_left_reasoning: false,
        moves,
        outlook: None,
    };
    exchange::run(attempts, tongue, prepared, entry).await
}

/// Reads the client's request; of a list of tools that an earlier one had it reads no more than that it is the same.
fn parse<'a>(service: &Service, body: &'a [u8]) -> Result<messages::Request<'a>, ParseError> {
    // A translation that panicked leaves the cache whole or empty: it is only a cache.
    let tools = service.tools.lock().unwrap_or_else(PoisonError::into_inner);
    messages::Request::parse_knowing(body, &tools.sources())
}

/// Says why a request goes to the account that it goes to.
fn why(service: &Service, has_moved: bool) -> &'static str {
    let rules = service.chooser.rules();
    match has_moved {
        true => "the conversation moved here from an account that could not go on",
        false if rules.is_pinned => "this account was named for the whole session",
        false => "the conversation's own account",
    }
}

/// The reply to a request that cannot be understood.
pub fn refuse(error: impl Display) -> Reply {
    Reply::refused(400, ErrorKind::InvalidRequest, error.to_string())
}

/// How a request goes upstream.
#[derive(Debug)]
struct Way {
    lane: Lane,
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
    beyond: &'a [Loss],
}

/// Translates the client's request for an account.
fn prepare(
    service: &Arc<Service>,
    entry: &mut OpenEntry,
    credentials: &Credentials,
    understood: Understood<'_>,
) -> Result<(Prepared, Way, Bytes, Origin), Reply> {
    let Understood {
        request,
        papers,
        route,
        talk,
        class,
        beyond,
    } = understood;
    let (model, course) = (route.0.choice.model, route.1);
    let thread = match class.has_conversation() {
        true => talk.session.clone(),
        false => conversation::beside(&talk.session, class),
    };
    let (translated, origin) = original::translated(
        service,
        request,
        &route,
        &thread,
        credentials,
        papers,
        beyond,
    )
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
        entry.is_stream = Some(request.stream);
        entry.course = Some(Sent {
            lane: course.lane.name(),
            effort: translated.effort,
            tier: course.tier,
        });
    });
    entry.begin();
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
    };
    let way = Way {
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
    Ok((prepared, way, translated.body.into(), origin))
}

/// The reply to a request for a model that there is not.
pub fn unknown_model(error: &UnknownModel) -> Reply {
    Reply {
        code: Some("model_not_found"),
        ..Reply::refused(404, ErrorKind::NotFound, error.to_string())
    }
}
