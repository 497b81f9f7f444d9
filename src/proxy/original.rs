//! The client's request as upstream is told it: translated for one account, and kept while it may have to be told
//! to another.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::account::credentials::Credentials;
use crate::catalogue::lanes::Route;
use crate::catalogue::list::{Catalogue, UnknownModel};
use crate::catalogue::model::Lane;
use crate::proxy::course::{Course, Said};
use crate::proxy::service::Service;
use crate::translate::loss::Loss;
use crate::translate::papers::Papers;
use crate::translate::reasoning::{Origin, Seal};
use crate::translate::request::{RequestError, Target, Translated, translate};
use crate::translate::search;
use crate::translate::shrink::SHORTENED;
use crate::wire::blocks::{Block, Content};
use crate::wire::messages::Request;

/// A request in the client's form.
#[derive(Clone, Debug)]
pub struct Original {
    /// The body as it came.
    pub body: Bytes,
    /// The list that its model was looked up in: the model stays the same, whatever becomes of the list.
    pub catalogue: Arc<Catalogue>,
    /// The conversation's key upstream.
    pub thread: String,
    /// The name of the model that answers.
    pub model: String,
    /// The name that the client said, where that is another: for a model that the plan turns out to lack.
    pub asked: Option<String>,
    /// The most tokens that it may have; more than that is left out of it.
    pub shortened_to: Option<u64>,
    /// What was lost before it was in this form.
    pub beyond: Vec<Loss>,
}

/// A request that was shortened.
#[derive(Debug)]
pub struct Shortened {
    /// What upstream is told.
    pub again: Again,
    /// The tokens that it was to have at most.
    pub target: u64,
    /// The tokens that it has, by count.
    pub tokens: u64,
}

/// A request that was translated again.
#[derive(Debug)]
pub struct Again {
    /// The request in upstream's form.
    pub translated: Translated,
    /// Who makes the reasoning now.
    pub origin: Origin,
    /// Upstream's name of the model.
    pub model: String,
    /// The form of the body.
    pub lane: Lane,
    /// The service tier asked for.
    pub tier: Option<&'static str>,
}

/// Says which model of `catalogue` answers `request`, which goes to the one called `name`, and how it is sent there.
///
/// # Errors
///
/// The name means no model.
pub fn route<'a>(
    service: &Service,
    catalogue: &'a Catalogue,
    request: &Request<'_>,
    name: &str,
) -> Result<(Route<'a>, Course), UnknownModel> {
    let families = &service.families;
    let choice = catalogue.resolve(name, families)?;
    let route = catalogue.route(choice, search::wish(request));
    let thinking = request.thinking.as_ref();
    let said = Said {
        is_fast: request.fast,
        is_quick: thinking.is_some_and(|thinking| thinking.kind == "disabled"),
        is_of_class: *name != *request.model,
    };
    let mut course = Course::of(&service.config, families, catalogue, &route.choice, said);
    // A search needs the full lane, whatever is set.
    if route.lane == Lane::Full {
        course.lane = Lane::Full;
    }
    Ok((route, course))
}

/// Translates `request` for the account of `credentials`: encrypted reasoning of another account is left out.
/// `beyond`: what was lost before.
///
/// # Errors
///
/// The request says something that cannot be told upstream.
pub fn translated(
    service: &Service,
    request: &Request<'_>,
    (route, course): &(Route<'_>, Course),
    conversation: &str,
    credentials: &Credentials,
    papers: &Papers<'_>,
    beyond: &[Loss],
) -> Result<(Translated, Origin), RequestError> {
    let choice = &route.choice;
    let model = choice.model;
    let origin = {
        // What a panic could leave half done here is at worst an epoch that is missing.
        let seals = service.seals.lock().unwrap_or_else(PoisonError::into_inner);
        seals.origin(conversation, &credentials.chatgpt_account_id, &model.slug)
    };
    let target = Target {
        model,
        lane: course.lane,
        origin: &origin,
        conversation,
        tier: course.tier,
        knobs: course.knobs,
        papers,
    };
    // A translation that panicked leaves the cache whole or empty: it is only a cache.
    let mut tools = service.tools.lock().unwrap_or_else(PoisonError::into_inner);
    let mut translated = translate(request, &target, &mut tools)?;
    translated.losses.extend(beyond);
    if route.is_stand_in {
        translated.losses.push(Loss::approximated("search_model"));
    }
    let translated = match service.config.strict {
        true => translated.strictly()?,
        false => translated,
    };
    Ok((translated, origin))
}

/// Says whether `request` brings reasoning that ccx sealed: it may turn out that nobody can read it any more.
pub fn holds_seals(request: &Request<'_>) -> bool {
    let blocks = request
        .messages
        .iter()
        .filter_map(|message| match &message.content {
            Content::Blocks(blocks) => Some(blocks),
            Content::Text(_) => None,
        });
    blocks.flatten().any(|block| match block {
        Block::Thinking { signature, .. } => Seal::open(signature.escaped()).is_some(),
        Block::RedactedThinking(data) => Seal::open(data.escaped()).is_some(),
        _ => false,
    })
}

impl Original {
    /// Translates it again, for the account of `credentials`. `None` cannot happen to a request that was translated
    /// before, since nothing but the account differs.
    pub fn translate(&self, service: &Service, credentials: &Credentials) -> Option<Again> {
        match self.shortened_to {
            None => {
                let request = Request::parse(&self.body).ok()?;
                self.told(service, &request, credentials)
            }
            // Counted just before, so that it takes no time.
            Some(target) => {
                let done = self.shortened(service, credentials, |_| Some(target), &|| true);
                Some(done?.again)
            }
        }
    }

    /// Shortens and translates it. `target` gets the tokens that it has and says how many it may have. Takes time: not
    /// for the proxy's thread.
    ///
    /// `None`: there is no target, or `may_go_on` says no.
    pub fn shortened(
        &self,
        service: &Service,
        credentials: &Credentials,
        target: impl FnOnce(u64) -> Option<u64>,
        may_go_on: &dyn Fn() -> bool,
    ) -> Option<Shortened> {
        let mut request = Request::parse(&self.body).ok()?;
        let counting = &service.counting;
        let (target, tokens) = counting.shorten(&mut request, target, may_go_on)?;
        let mut again = self.told(service, &request, credentials)?;
        again.translated.losses.push(SHORTENED);
        Some(Shortened {
            again,
            target,
            tokens,
        })
    }

    fn told(
        &self,
        service: &Service,
        request: &Request<'_>,
        credentials: &Credentials,
    ) -> Option<Again> {
        let way = route(service, &self.catalogue, request, &self.model).ok()?;
        let papers = service.papers.known(request, way.1.lane);
        let thread = &self.thread;
        let (translated, origin) = translated(
            service,
            request,
            &way,
            thread,
            credentials,
            &papers,
            &self.beyond,
        )
        .ok()?;
        let (choice, course) = (way.0.choice, way.1);
        Some(Again {
            translated,
            origin,
            model: choice.model.slug.clone(),
            lane: course.lane,
            tier: course.tier,
        })
    }
}
