//! `POST /v1/chat/completions`: asked and answered by way of the Messages API.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::proxy::body::Body;
use crate::proxy::entry::{OpenEntry, now};
use crate::proxy::exchange;
use crate::proxy::intake;
use crate::proxy::messages::{self, Asked, refuse};
use crate::proxy::reply::Reply;
use crate::proxy::service::Service;
use crate::translate::chat::ask;
use crate::translate::chat::tell::Options;
use crate::translate::voice::Tongue;

/// Answers a request, as a stream of chunks or whole.
pub async fn answer(
    service: &Arc<Service>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let mut entry = OpenEntry::of(service, id);
    let (head, body) = request.into_parts();
    let answered = async {
        let body = intake::read(&head.headers, body).await?;
        let asked = ask::translate(&body).map_err(refuse)?;
        drop(body);
        let options = Options {
            created: now().0,
            include_usage: asked.include_usage,
        };
        let (body, asked) = (
            asked.body,
            Asked {
                tongue: Tongue::Chat(options),
                losses: asked.losses,
            },
        );
        messages::run(service, &mut entry, &head.headers, body.into(), asked).await
    };
    let answered = answered.await;
    exchange::respond(answered, entry)
}
