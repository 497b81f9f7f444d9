//! `POST /v1/messages/count_tokens`: counted here; upstream is not asked, and nothing is generated.

use http::{Request, Response};
use hyper::body::Incoming;

use crate::proxy::body::Body;
use crate::proxy::counting::NoCount;
use crate::proxy::intake;
use crate::proxy::reply::Reply;
use crate::proxy::service::{Service, json};
use crate::wire::envelope::ErrorKind;

/// Answers `{"input_tokens":N}`.
pub async fn answer(
    service: &Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let (head, body) = request.into_parts();
    let body = intake::read(&head.headers, body).await?;
    let refused = |status, kind, message| Err(Reply::refused(status, kind, message));
    match service.counting.count(body).await {
        Ok(tokens) => Ok(json(format!(r#"{{"input_tokens":{tokens}}}"#))),
        Err(NoCount::Parse(error)) => refused(400, ErrorKind::InvalidRequest, error.to_string()),
        Err(NoCount::Stopped) => refused(
            500,
            ErrorKind::Api,
            "the tokens could not be counted".to_owned(),
        ),
    }
}
