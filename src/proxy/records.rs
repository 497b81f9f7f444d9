//! `GET /api/requests`, `/api/requests/{id}`, `/api/usage` and `/metrics`: what happened, for pages and programs.
//!
//! The database is read on threads that may wait. Errors have the shape of the pages' API.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::capture::keeper;
use crate::history::keeper::History;
use crate::history::pages::{self, Problem};
use crate::proxy::body::Body;
use crate::proxy::entry::now;
use crate::proxy::service::{self, Service};

/// Where one request is, without its id.
const ONE: &str = "/api/requests/";

/// The version of the text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers for the counts since the start.
pub async fn metrics(service: &Arc<Service>) -> Response<Body> {
    let service = Arc::clone(service);
    let text = move || {
        let readings = service.gauges.readings();
        let history = service.history.as_ref();
        // A panic elsewhere leaves the ledger's counts whole.
        let ledger = service
            .ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let version = env!("CARGO_PKG_VERSION");
        pages::metrics(&ledger, &readings, history, version, service.started_at)
    };
    let Ok(text) = tokio::task::spawn_blocking(text).await else {
        return failed(500, "internal_error", "the counts could not be told");
    };
    let mut response = Response::new(Body::whole(text));
    let kind = HeaderValue::from_static(METRICS);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Answers for the list of requests.
pub async fn requests(service: &Arc<Service>, query: Option<&str>) -> Response<Body> {
    let query = query.unwrap_or_default().to_owned();
    told(service, move |history, names| {
        pages::requests(history, &query, |id| name(names, id)).map(Some)
    })
    .await
}

/// Answers for the one request that `path` names.
pub async fn request(service: &Arc<Service>, path: &str) -> Response<Body> {
    let id = path.strip_prefix(ONE).unwrap_or_default().to_owned();
    told(service, move |history, names| {
        let capture = || keeper::find(history.state(), &id).map(|found| found.value());
        pages::request(history, &id, |id| name(names, id), capture)
    })
    .await
}

/// Answers for the plots.
pub async fn usage(service: &Arc<Service>, query: Option<&str>) -> Response<Body> {
    let query = query.unwrap_or_default().to_owned();
    told(service, move |history, names| {
        let now = now();
        let offset = pages::local_offset(now);
        pages::usage(history, &query, now, offset, |id| name(names, id)).map(Some)
    })
    .await
}

/// What accounts are called, by ccx's id.
type Names = BTreeMap<String, String>;

fn name(names: &Names, id: &str) -> String {
    names.get(id).map_or(id, String::as_str).to_owned()
}

async fn told(
    service: &Arc<Service>,
    ask: impl FnOnce(&History, &Names) -> Result<Option<Value>, Problem> + Send + 'static,
) -> Response<Body> {
    let Some(history) = service.history.clone() else {
        return failed(503, "unavailable", "there is no history in this process");
    };
    let store = service.broker.store().clone();
    let answer = tokio::task::spawn_blocking(move || {
        // A store that cannot be read names nobody; ids are told then.
        let accounts = store
            .outline()
            .map(|known| known.accounts)
            .unwrap_or_default();
        let names = accounts.into_iter().map(|record| {
            let name = record.label.or(record.email);
            (record.id.clone(), name.unwrap_or(record.id))
        });
        ask(&history, &names.collect())
    });
    match answer.await {
        Ok(Ok(Some(value))) => service::json(value.to_string()),
        Ok(Ok(None)) => failed(404, "not_found", "no such request is kept"),
        Ok(Err(problem)) => {
            let kind = match &problem {
                Problem::Query { .. } => "invalid_request",
                Problem::Trouble(_) => "unavailable",
            };
            failed(problem.status(), kind, &problem.to_string())
        }
        Err(_) => failed(500, "internal_error", "the question could not be answered"),
    }
}

fn failed(status: u16, kind: &str, message: &str) -> Response<Body> {
    let body = json!({"error": {"type": kind, "message": message}});
    let mut response = service::json(body.to_string());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response
}
