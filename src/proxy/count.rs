//! `POST /v1/messages/count_tokens`: an estimate, made here; upstream is not asked.

use http::{Request, Response};
use hyper::body::Incoming;

use crate::proxy::body::Body;
use crate::proxy::intake;
use crate::proxy::reply::Reply;
use crate::proxy::service::json;
use crate::translate::estimate;
use crate::wire::envelope::ErrorKind;
use crate::wire::messages;

/// Answers `{"input_tokens":N}`.
pub async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Reply> {
    let (head, body) = request.into_parts();
    let body = intake::read(&head.headers, body).await?;
    let request = messages::Request::parse(&body)
        .map_err(|error| Reply::refused(400, ErrorKind::InvalidRequest, error.to_string()))?;
    let tokens = estimate::input_tokens(&request);
    Ok(json(format!(r#"{{"input_tokens":{tokens}}}"#)))
}
