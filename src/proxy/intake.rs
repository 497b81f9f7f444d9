//! Reads the body of a request, up to a limit, and undoes its content codings.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::proxy::coding::{self, Coding, DecodeError};
use crate::proxy::reply::Reply;
use crate::wire::envelope::ErrorKind;

/// The longest body that is read, and the longest that one may be without its codings. The client's own limit is
/// 32 MB; images in a long history add up.
pub const LONGEST_BODY_BYTES: u64 = 64 * 1024 * 1024;

/// How much of a body that is too long is still taken, so that the client, who reads only after it has
/// written, sees the answer and not a broken connection.
const DISCARDED_BYTES: u64 = 256 * 1024 * 1024;

/// How long a silent client may keep a body unfinished.
const BODY_IDLE: Duration = Duration::from_secs(60);

/// Reads the whole of `body`, which came with `headers`.
pub async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Reply> {
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    let codings = match coding::codings(encodings.map(HeaderValue::as_bytes)) {
        Ok(codings) => codings,
        Err(unknown) => {
            discard(body).await;
            let words = unknown.to_string();
            return Err(Reply::refused(415, ErrorKind::InvalidRequest, words));
        }
    };
    let whole = gather(body).await?;
    match codings.is_empty() {
        true => Ok(whole),
        false => decode(codings, whole).await,
    }
}

/// Decodes off the runtime's thread: megabytes take a while.
async fn decode(codings: Vec<Coding>, body: Bytes) -> Result<Bytes, Reply> {
    let decoding = move || coding::decode(&codings, body, LONGEST_BODY_BYTES);
    match tokio::task::spawn_blocking(decoding).await {
        Ok(Ok(decoded)) => Ok(decoded),
        Ok(Err(DecodeError::TooLarge { .. })) => Err(too_large()),
        Ok(Err(error @ DecodeError::Broken { .. })) => Err(unfinished(&error.to_string())),
        // It was reported when it happened.
        Err(_panicked) => Err(unfinished("the request's body cannot be decoded")),
    }
}

async fn gather(mut body: Incoming) -> Result<Bytes, Reply> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > LONGEST_BODY_BYTES) {
        discard(body).await;
        return Err(too_large());
    }
    let mut whole = BytesMut::with_capacity(announced.map_or(0, |length| length as usize));
    loop {
        let frame = match tokio::time::timeout(BODY_IDLE, body.frame()).await {
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(unfinished("the request's body was cut")),
            Err(_) => return Err(unfinished("the request's body did not come to an end")),
        };
        if let Some(chunk) = frame.data_ref() {
            if whole.len() as u64 + chunk.len() as u64 > LONGEST_BODY_BYTES {
                drop(whole);
                discard(body).await;
                return Err(too_large());
            }
            whole.extend_from_slice(chunk);
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut left = DISCARDED_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(BODY_IDLE, body.frame()).await {
        let taken = frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
        match left.checked_sub(taken) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn too_large() -> Reply {
    Reply::refused(
        413,
        ErrorKind::RequestTooLarge,
        format!(
            "the request is larger than {} MiB; remove images or files, or /compact",
            LONGEST_BODY_BYTES / 1024 / 1024
        ),
    )
}

fn unfinished(message: &str) -> Reply {
    Reply::refused(400, ErrorKind::InvalidRequest, message)
}
