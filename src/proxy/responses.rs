//! `POST /v1/responses`: clients that speak upstream's own API, with an account of ccx.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use crate::account::chooser::Talk;
use crate::catalogue::model::Effort;
use crate::ledger::Sent;
use crate::proxy::attempts::{Attempts, Moves, Window};
use crate::proxy::body::Body;
use crate::proxy::class::RequestClass;
use crate::proxy::conversation::Conversation;
use crate::proxy::course::{Course, Said};
use crate::proxy::entry::OpenEntry;
use crate::proxy::exchange::{self, Prepared, Run};
use crate::proxy::intake;
use crate::proxy::messages::{LONGEST_NAME, refuse, unknown_model};
use crate::proxy::patience::Repeated;
use crate::proxy::pipe::Facts;
use crate::proxy::reply::Reply;
use crate::proxy::seat::{self, Seat};
use crate::proxy::service::{Service, fresh_id};
use crate::proxy::turns::Whose;
use crate::translate::native::ask::{self, Target};
use crate::translate::reasoning::Origin;
use crate::translate::request::RequestError;
use crate::translate::stream::Setup;
use crate::translate::voice::Tongue;
use crate::upstream::retry;
use crate::wire::newest::Newest;

/// Bytes of a request to a token, where nothing was counted.
const BYTES_PER_TOKEN: u64 = 4;

/// Answers a request, as upstream's stream or whole.
pub async fn answer(
    service: &Arc<Service>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let mut entry = OpenEntry::of(service, id);
    let (head, body) = request.into_parts();
    let answered = async {
        let body = intake::read(&head.headers, body).await?;
        run(service, &mut entry, &head.headers, body).await
    };
    let answered = answered.await;
    exchange::respond(answered, entry)
}

async fn run(
    service: &Arc<Service>,
    entry: &mut OpenEntry,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Run, Reply> {
    if let Some(tape) = entry.tape() {
        tape.asked(body.clone());
    }
    let request = ask::Request::parse(&body).map_err(refuse)?;
    let cache_key = request.cache_key.map(|key| key.value());
    let beginning = request.beginning();
    let Conversation { key, agent } =
        Conversation::native(headers, cache_key.as_deref(), &beginning);
    let catalogue = service.shelf.current();
    let asked = request.model.value();
    let choice = catalogue
        .resolve(&asked, &service.families)
        .map_err(|error| unknown_model(&error))?;
    let tier = request.service_tier.map(|tier| tier.value());
    let said = Said {
        is_fast: matches!(tier.as_deref(), Some("priority" | "fast")),
        ..Said::default()
    };
    let course = Course::of(
        &service.config,
        &service.families,
        &catalogue,
        &choice,
        said,
    );
    let model = choice.model;
    let lane = request.lane(model, course.lane);
    let asks_for_flex = tier.as_deref() == Some("flex");
    let tier = course.tier.or(asks_for_flex.then_some("flex"));
    let target = Target {
        model,
        lane,
        conversation: &key,
        tier,
        knobs: course.knobs,
    };
    let (translated, losses) = request.translate(&target).map_err(refuse)?;
    if service.config.strict
        && let Some(&first) = losses.first()
    {
        let more = losses.len() - 1;
        return Err(refuse(RequestError::Lossy { first, more }));
    }
    let talk = Talk {
        session: key.clone(),
        agent: agent.clone(),
    };
    let Seat { credentials, left } = seat::find(service, &talk, &model.slug).await?;
    let whose = Whose {
        conversation: key.clone(),
        agent,
        class: RequestClass::Responses,
        has_tools: true,
        account: credentials.account.clone(),
        model: model.slug.clone(),
        lane,
        tier,
    };
    let newest = match request.last_kind().ends_with("_output") {
        true => Newest::Results { has_failed: false },
        false => Newest::Prompt,
    };
    let turn_state = {
        // What a panic could leave half done here is at worst a state that is missing.
        let mut turns = service.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.resume(&whose, newest)
    };
    let tokens = translated.len() as u64 / BYTES_PER_TOKEN;
    let whole = service
        .chooser
        .window(&credentials.account, &model.slug, model.context_window);
    let window = Window {
        listed: model.context_window,
        usable: model.usable(whole),
    };
    entry.note(|entry, age| {
        entry.prepared = age;
        entry.account.clone_from(&credentials.account);
        entry.asked = asked.chars().take(LONGEST_NAME).collect();
        entry.model.clone_from(&model.slug);
        entry.conversation.clone_from(&key);
        RequestClass::Responses.name().clone_into(&mut entry.class);
        entry.losses = losses.iter().map(|loss| loss.kind).collect();
        entry.is_stream = Some(request.stream);
        entry.course = Some(Sent {
            lane: lane.name(),
            effort: request.effort(&target).map(Effort::wire_name),
            tier,
        });
    });
    entry.begin();
    let facts = Facts {
        model: model.slug.clone(),
        window: window.usable,
        tokens,
        outlook: None,
        may_end_empty: false,
        repeated: Repeated::of_body(&whose, &body),
        arrived: service.chooser.now(),
        service: Arc::clone(service),
    };
    let is_repeat = {
        let patience = &service.patience;
        let patience = patience.lock().unwrap_or_else(PoisonError::into_inner);
        patience.is_repeat(facts.repeated, facts.arrived)
    };
    let failures = match is_repeat {
        true => retry::Attempts::of_a_repeat(),
        false => retry::Attempts::default(),
    };
    let origin = Origin::new(&credentials.chatgpt_account_id, &model.slug);
    let prepared = Prepared {
        is_stream: request.stream,
        setup: Setup {
            message_id: fresh_id("resp_"),
            model: asked.into_owned(),
            origin: origin.clone(),
            names: Arc::default(),
            search: None,
            input_tokens: tokens,
            bounds: None,
            answers_safeguards: false,
        },
        facts,
    };
    let mut moves = Moves::default();
    moves.count(left.as_ref(), tokens);
    let attempts = Attempts {
        tape: entry.tape().cloned(),
        service: service.clone(),
        credentials,
        origin,
        body: translated.into(),
        original: None,
        is_native: true,
        lane,
        thread: key,
        whose,
        turn_state,
        tier,
        tokens,
        window,
        shortened: 0,
        sent: 0,
        failures,
        has_left_reasoning: false,
        moves,
        outlook: None,
    };
    drop(request);
    drop(body);
    exchange::run(attempts, Tongue::Native, prepared, entry).await
}
