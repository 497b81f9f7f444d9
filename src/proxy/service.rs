//! Dispatches requests: guard, route, the one that answers.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::account::broker::Broker;
use crate::account::chooser::Chooser;
use crate::capture::keeper::Captures;
use crate::catalogue::families::Families;
use crate::catalogue::shelf::Shelf;
use crate::config::Config;
use crate::fault;
use crate::files::settings::SettingsFile;
use crate::history::keeper::History;
use crate::ledger::Ledger;
use crate::proxy::body::Body;
use crate::proxy::counting::Counting;
use crate::proxy::entry::now;
use crate::proxy::gauges::Gauges;
use crate::proxy::guard::Guard;
use crate::proxy::lessons::Lessons;
use crate::proxy::papers::PaperShelf;
use crate::proxy::patience::Patience;
use crate::proxy::reply::{self, Reply};
use crate::proxy::route::{Route, is_openai, route};
use crate::proxy::seals::Seals;
use crate::proxy::turns::Turns;
use crate::proxy::{chat, choices, count, messages, models, records, responses};
use crate::time::UnixSeconds;
use crate::translate::request::ToolCache;
use crate::upstream::http::Client;
use crate::upstream::kilo::Kilo;
use crate::wire::chat as openai;
use crate::wire::envelope::error_body;

/// Everything that answering a request takes. One for each proxy.
#[derive(Debug)]
pub struct Service {
    /// Who may ask.
    pub guard: Guard,
    /// Tokens.
    pub broker: Arc<Broker>,
    /// Which account a request is for.
    pub chooser: Arc<Chooser>,
    /// The way upstream.
    pub client: Arc<Client>,
    /// The way to Kilo's gateway.
    pub kilo: Kilo,
    /// Where a choice is kept that is made while it runs; `None` keeps it for as long as it runs.
    pub settings_file: Option<SettingsFile>,
    /// The models.
    pub shelf: Arc<Shelf>,
    /// Which model a family means.
    pub families: Families,
    /// What the person has set, as it was when the proxy began.
    pub config: Config,
    /// Translated tool lists.
    pub tools: Mutex<ToolCache>,
    /// What the PDFs of conversations say.
    pub papers: PaperShelf,
    /// What answers taught of sizes.
    pub lessons: Arc<Lessons>,
    /// Who counts tokens.
    pub counting: Arc<Counting>,
    /// Upstream's state of the turns under way.
    pub turns: Mutex<Turns>,
    /// Requests that failed lately.
    pub patience: Mutex<Patience>,
    /// Conversations whose sealed reasoning upstream could not read.
    pub seals: Mutex<Seals>,
    /// What happened.
    pub ledger: Arc<Mutex<Ledger>>,
    /// What is left of the accounts' plans.
    pub gauges: Arc<Gauges>,
    /// What happened over months; `None` where no thread could be made for it.
    pub history: Option<History>,
    /// Who keeps both sides of requests; `None` where the person does not want that.
    pub captures: Option<Captures>,
    /// When it began.
    pub started_at: UnixSeconds,
}

/// Returns a fresh id of the form `prefix` + 24 hex digits.
pub fn fresh_id(prefix: &str) -> String {
    let random: [u8; 12] = rand::random();
    let mut id = String::with_capacity(prefix.len() + 24);
    id.push_str(prefix);
    for byte in random {
        id.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        id.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    id
}

/// Answers one request.
pub async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Response<Body> {
    let id = fresh_id("req_");
    let is_openai = is_openai(request.uri().path());
    let mut response = match dispatch(&service, &id, request).await {
        Ok(response) => response,
        Err(reply) if is_openai => openai_error(&reply),
        Err(reply) => error(&reply, &id),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        if is_openai {
            // Where clients of those APIs look for it.
            response.headers_mut().insert("x-request-id", value.clone());
        }
        response.headers_mut().insert("request-id", value);
    }
    response
}

async fn dispatch(
    service: &Arc<Service>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let guard = &service.guard;
    let headers = request.headers();
    guard.check_origin(headers).map_err(reply::from_refusal)?;
    let route = route(request.method(), request.uri().path());
    if route != Ok(Route::Live) {
        guard.check_secret(headers).map_err(reply::from_refusal)?;
    }
    let route = route.map_err(|reason| {
        reply::from_no_route(reason, request.method().as_str(), request.uri().path())
    })?;
    fault::point("request");
    match route {
        Route::Live => Ok(alive(request.method())),
        Route::Health => Ok(health(service.started_at)),
        Route::Messages => messages::answer(service, id, request).await,
        Route::Chat => chat::answer(service, id, request).await,
        Route::Responses => responses::answer(service, id, request).await,
        Route::CountTokens => count::answer(service, request).await,
        Route::Models => Ok(models::answer(service)),
        Route::Requests => Ok(records::requests(service, request.uri().query()).await),
        Route::Request => Ok(records::request(service, request.uri().path()).await),
        Route::Usage => Ok(records::usage(service, request.uri().query()).await),
        Route::Metrics => Ok(records::metrics(service).await),
        Route::HaikuModel => Ok(choices::haiku_model(service)),
        Route::ChooseHaikuModel => choices::choose_haiku_model(service, request).await,
        Route::KiloModels => choices::kilo_models(service).await,
    }
}

fn health(started_at: UnixSeconds) -> Response<Body> {
    json(format!(
        r#"{{"status":"ok","version":"{}","pid":{},"uptime":{}}}"#,
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        now().since(started_at).as_secs()
    ))
}

fn alive(method: &Method) -> Response<Body> {
    if *method == Method::HEAD {
        Response::new(Body::whole(Bytes::new()))
    } else {
        json(r#"{"status":"ok"}"#)
    }
}

/// Makes a 200 with a JSON body.
pub fn json(body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn error(reply: &Reply, id: &str) -> Response<Body> {
    let mut response = json(error_body(reply.kind, &reply.message, id));
    *response.status_mut() =
        http::StatusCode::from_u16(reply.status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    error_headers(response.headers_mut(), reply);
    response
}

/// As [`error`], for clients of the OpenAI APIs. They do not know 529.
fn openai_error(reply: &Reply) -> Response<Body> {
    let kind = reply.kind.openai_name();
    let mut response = json(openai::error_body(kind, reply.code, &reply.message));
    let status = match reply.status {
        529 => 503,
        status => status,
    };
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    error_headers(response.headers_mut(), reply);
    response
}

fn error_headers(headers: &mut HeaderMap, reply: &Reply) {
    if !reply.retryable {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    if let Some(seconds) = reply.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some(allow) = reply.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
}
