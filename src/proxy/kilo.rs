//! The Kilo lane: what is asked of the small model goes to a third party, where the person has chosen one.
//!
//! One attempt, no account. What needs ChatGPT (a search of the web) or must not be judged elsewhere (a permission check)
//! stays where it is.

use std::sync::Arc;

use bytes::Bytes;

use crate::account::chooser::Talk;
use crate::catalogue::knobs::Knobs;
use crate::catalogue::lanes::Search;
use crate::catalogue::model::{Lane, Model};
use crate::ledger::{Outcome, Sent};
use crate::proxy::class::RequestClass;
use crate::proxy::entry::OpenEntry;
use crate::proxy::exchange::{self, Run};
use crate::proxy::messages::{Asked, LONGEST_NAME, refuse};
use crate::proxy::patience::Repeated;
use crate::proxy::pipe::{self, Facts};
use crate::proxy::reply::Reply;
use crate::proxy::service::{Service, fresh_id};
use crate::proxy::turns::Whose;
use crate::translate::chat::onward;
use crate::translate::cut::Bounds;
use crate::translate::estimate;
use crate::translate::papers::Papers;
use crate::translate::reasoning::Origin;
use crate::translate::request::{RequestError, Target, ToolCache, translate};
use crate::translate::search;
use crate::translate::stream::Setup;
use crate::upstream::failure::Failure;
use crate::wire::messages::Request;
use crate::wire::newest::Newest;

/// The account of what no account is asked for.
const NO_ACCOUNT: &str = "";

/// The name of the lane in the ledger.
const LANE: &str = "kilo";

/// Says which of Kilo's models answers a request of `class` for `model`, which the client called `request.model`.
pub fn model(
    service: &Service,
    request: &Request<'_>,
    model: &str,
    class: RequestClass,
) -> Option<String> {
    let chosen = service.kilo.chosen()?;
    let is_ours = is_small(&request.model)
        && is_small(model)
        && !matches!(class, RequestClass::Classifier(_))
        && search::wish(request) == Search::Unwanted;
    is_ours.then_some(chosen)
}

/// Says whether a name means the small model of the client's.
fn is_small(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("anthropic/").unwrap_or(&name);
    let mut parts = name.split(['-', ':', '[']);
    match parts.next() {
        Some("haiku") => true,
        Some("claude") => parts.any(|part| part == "haiku"),
        _ => false,
    }
}

/// Asks `kilo`, one of its models, for an answer.
///
/// # Errors
///
/// What the client is told instead of an answer.
pub async fn run(
    service: &Arc<Service>,
    entry: &mut OpenEntry,
    request: &Request<'_>,
    kilo: &str,
    (asked, class, talk): (Asked, RequestClass, Talk),
) -> Result<Run, Reply> {
    let model = stand_in(kilo);
    let origin = Origin::new(LANE, kilo);
    let papers: Papers<'_> = Papers::default();
    let target = Target {
        model: &model,
        lane: Lane::Full,
        origin: &origin,
        conversation: &talk.session,
        tier: None,
        knobs: Knobs::default(),
        papers: &papers,
    };
    let mut translated = translate(request, &target, &mut ToolCache::default()).map_err(refuse)?;
    let mut losses = std::mem::take(&mut translated.losses);
    losses.extend(&asked.losses);
    let body = onward::translate(&translated.body, kilo, &mut losses);
    if service.config.strict
        && let Some(&first) = losses.first()
    {
        let more = losses.len() - 1;
        return Err(refuse(RequestError::Lossy { first, more }));
    }
    let whose = Whose {
        conversation: talk.session,
        agent: talk.agent,
        class,
        has_tools: !request.tools.is_empty(),
        account: NO_ACCOUNT.to_owned(),
        model: kilo.to_owned(),
        lane: Lane::Full,
        tier: None,
    };
    let tokens = estimate::input_tokens(request);
    entry.note(|entry, age| {
        entry.prepared = age;
        entry.asked = request.model.chars().take(LONGEST_NAME).collect();
        entry.model = kilo.to_owned();
        entry.conversation.clone_from(&whose.conversation);
        class.name().clone_into(&mut entry.class);
        entry.losses = losses.iter().map(|loss| loss.kind).collect();
        entry.is_stream = Some(request.stream);
        entry.attempts = 1;
        entry.course = Some(Sent {
            lane: LANE,
            effort: None,
            tier: None,
        });
    });
    entry.begin();
    let setup = Setup {
        message_id: fresh_id("msg_"),
        model: request.model.clone().into_owned(),
        origin,
        names: Arc::new(translated.names),
        search: None,
        input_tokens: tokens,
        bounds: Bounds::of(request).map_err(refuse)?,
        answers_safeguards: request.safeguards,
    };
    let facts = Facts {
        model: kilo.to_owned(),
        window: model.usable_window(),
        tokens,
        outlook: None,
        may_end_empty: request.newest() == Newest::Results { has_failed: false },
        repeated: Repeated::of(&whose, request),
        arrived: service.chooser.now(),
        service: Arc::clone(service),
    };
    let told = |failure: &Failure| facts.reply(failure, 1);
    let body = Bytes::from(body);
    if let Some(tape) = entry.tape() {
        tape.sent(body.clone(), LANE);
    }
    let answer = service.kilo.ask(body).await;
    let mut answer = answer.map_err(|failure| told(&failure))?;
    answer.tape = entry.tape().cloned();
    entry.note(|entry, age| entry.first_byte = Some(age));
    if request.stream {
        let begun = pipe::begin_once(answer, &asked.tongue, &setup, &facts).await;
        let begun = begun.map_err(|failure| told(&failure))?;
        return Ok(Run::Stream(Box::new((begun, None, facts))));
    }
    let mut gathered = asked.tongue.gathered(setup);
    match exchange::gather(answer, &mut gathered, entry).await {
        Ok(()) => facts.answered(),
        Err(Failure::Empty) if facts.may_end_empty => {
            gathered.end_empty();
            entry.finish(Outcome::Done, gathered.usage());
        }
        Err(failure) => return Err(told(&failure)),
    }
    Ok(Run::Whole(gathered.into_body()))
}

/// What is known of a model that no catalogue of ours lists.
fn stand_in(kilo: &str) -> Model {
    Model {
        slug: kilo.to_owned(),
        display_name: kilo.to_owned(),
        listed: false,
        priority: 0,
        context_window: 200_000,
        effective_percent: 95,
        efforts: Vec::new(),
        default_effort: None,
        support_verbosity: false,
        default_verbosity: None,
        service_tiers: Vec::new(),
        images: true,
        lite: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_small_model_is_meant() {
        for (name, is) in [
            ("claude-haiku-5-5", true),
            ("claude-3-5-haiku-20241022", true),
            ("anthropic/Claude-Haiku-5-5[1m]", true),
            ("haiku", true),
            ("haiku-low", true),
            ("claude-opus-5-5", false),
            ("gpt-6-luna", false),
            ("my-haiku", false),
        ] {
            assert_eq!(is_small(name), is, "{name}");
        }
    }
}
