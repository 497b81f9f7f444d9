//! The way to Kilo's gateway: chat completions of models that are free for anybody.
//!
//! No account of the person is named and no token of theirs is sent. Whatever fails is said to be Kilo's failure.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use tokio::sync::Mutex;

use crate::upstream::answer::{Answer, ERROR_BODY_LIMIT};
use crate::upstream::connections::{ClientError, Connections};
use crate::upstream::failure::Failure;
use crate::upstream::http::{failure, now, read_up_to, within};

/// The gateway may think this long before the first byte of an answer.
const HEADER_LIMIT: Duration = Duration::from_secs(120);

/// For the list of models.
const SIDE_LIMIT: Duration = Duration::from_secs(10);

/// The list holds some hundred models, each with a page of text.
const LIST_LIMIT: usize = 16 * 1024 * 1024;

/// How long a list is good for.
const LIST_AGE: Duration = Duration::from_secs(600);

const COMPLETIONS: &str = "/api/openrouter/chat/completions";
const MODELS: &str = "/api/openrouter/models";

/// Who asks, in the words of a gateway that wants some.
const ANYBODY: &str = "Bearer anonymous";

/// Connections to the gateway.
#[derive(Debug)]
pub struct Kilo {
    origin: String,
    connections: Connections,
    chosen: RwLock<Option<String>>,
    models: Mutex<Option<(Instant, Bytes)>>,
}

impl Kilo {
    /// Makes a way to `origin`, where `chosen` answers if anything does. Opens nothing.
    pub fn new(origin: &str, chosen: Option<String>) -> Result<Self, ClientError> {
        Ok(Self {
            origin: origin.to_owned(),
            connections: Connections::new(origin)?,
            chosen: RwLock::new(chosen),
            models: Mutex::new(None),
        })
    }

    /// Returns the model that answers in the place of the small one; `None` leaves it with ChatGPT.
    pub fn chosen(&self) -> Option<String> {
        let chosen = self.chosen.read();
        chosen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Chooses it, from the next request on.
    pub fn choose(&self, model: Option<String>) {
        let mut chosen = self.chosen.write().unwrap_or_else(PoisonError::into_inner);
        *chosen = model;
    }

    /// Sends a chat request and waits until its stream begins, which is told as events of a Responses stream.
    ///
    /// # Errors
    ///
    /// What Kilo refused, or why it was not reached. Nothing is tried again.
    pub async fn ask(&self, body: Bytes) -> Result<Answer, Failure> {
        let begin = async {
            let url = format!("{}{COMPLETIONS}", self.origin);
            let request = self.pool().await?.post(url).body(body);
            let request = request
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, "text/event-stream");
            Ok(Answer::of_chat(send(request).await?, now()))
        };
        within(HEADER_LIMIT, begin).await
    }

    /// Returns the list of models: JSON, as Kilo sends it, at most ten minutes old. One flight at a time.
    pub async fn models(&self) -> Result<Bytes, Failure> {
        let mut kept = self.models.lock().await;
        if let Some((at, list)) = &*kept
            && at.elapsed() < LIST_AGE
        {
            return Ok(list.clone());
        }
        let ask = async {
            let url = format!("{}{MODELS}", self.origin);
            let mut reply = send(self.pool().await?.get(url)).await?;
            read_up_to(reply.body_mut(), LIST_LIMIT).await
        };
        let list = within(SIDE_LIMIT, ask).await?;
        if list.len() > LIST_LIMIT {
            return Err(Failure::TooLong);
        }
        *kept = Some((Instant::now(), list.clone()));
        Ok(list)
    }

    /// Returns the models that are free: see [`Kilo::models`].
    pub async fn free(&self) -> Result<Vec<FreeModel>, Failure> {
        free(&self.models().await?).ok_or_else(|| Failure::Malformed {
            what: "Kilo: something that is no list of models".to_owned(),
        })
    }

    async fn pool(&self) -> Result<&reqwest::Client, Failure> {
        let prepared = self.connections.get().await;
        prepared.map_err(|_| Failure::Unreachable {
            what: "Kilo: the system's root certificates cannot be read".to_owned(),
        })
    }
}

/// A model that anybody may use for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeModel {
    /// What it is called in requests.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Tokens that it takes, where that is told.
    pub context_length: Option<u64>,
    /// Whether it calls tools.
    pub supports_tools: bool,
}

/// Reads the free models of a list; `None` if it is none.
fn free(list: &[u8]) -> Option<Vec<FreeModel>> {
    let list: serde_json::Value = serde_json::from_slice(list).ok()?;
    let models = list["data"].as_array()?.iter();
    let free = models.filter(|model| model["isFree"] == true);
    let read = |model: &serde_json::Value| {
        let id = model["id"].as_str()?.to_owned();
        let parameters = model["supported_parameters"].as_array();
        Some(FreeModel {
            name: model["name"].as_str().unwrap_or(&id).to_owned(),
            context_length: model["context_length"].as_u64(),
            supports_tools: parameters.is_some_and(|all| all.iter().any(|one| one == "tools")),
            id,
        })
    };
    Some(free.filter_map(read).collect())
}

/// Sends a request; a reply that is no success is a failure.
async fn send(request: reqwest::RequestBuilder) -> Result<http::Response<reqwest::Body>, Failure> {
    let request = request
        .header(AUTHORIZATION, ANYBODY)
        .header(USER_AGENT, concat!("ccx/", env!("CARGO_PKG_VERSION")));
    let reply = request
        .send()
        .await
        .map_err(|error| match failure(&error) {
            Failure::Unreachable { what } => Failure::Unreachable {
                what: format!("Kilo: {what}"),
            },
            other => other,
        })?;
    let mut reply = http::Response::<reqwest::Body>::from(reply);
    let status = reply.status().as_u16();
    if reply.status().is_success() {
        return Ok(reply);
    }
    let wait = reply
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let body = within(SIDE_LIMIT, read_up_to(reply.body_mut(), ERROR_BODY_LIMIT)).await;
    Err(refused(status, wait, &body.unwrap_or_default()))
}

/// Classifies a reply that is no success.
fn refused(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said = said.and_then(|value| {
        let error = value.get("error")?;
        let text = error.get("message").and_then(|text| text.as_str());
        text.or(error.as_str()).map(str::to_owned)
    });
    let said: String = said
        .unwrap_or_else(|| "no reason was given".to_owned())
        .chars()
        .filter(|character| !character.is_control())
        .take(300)
        .collect();
    let message = format!("Kilo: {said}");
    match status {
        429 => Failure::RateLimited {
            message,
            retry_after,
        },
        401..=403 => Failure::Forbidden { why: message },
        400..500 => Failure::Rejected {
            status,
            code: None,
            message,
        },
        _ => Failure::Server { status, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_free_models_are_listed() {
        let list = br#"{"data":[
            {"id":"a/b","name":"B","isFree":true,"context_length":128000,"supported_parameters":["tools","stop"]},
            {"id":"a/c","isFree":false},{"id":"a/d","isFree":true},{"isFree":true}]}"#;
        let model = |id: &str, name: &str, context_length, supports_tools| FreeModel {
            id: id.to_owned(),
            name: name.to_owned(),
            context_length,
            supports_tools,
        };
        let want = [
            model("a/b", "B", Some(128_000), true),
            model("a/d", "a/d", None, false),
        ];
        assert_eq!(free(list).unwrap(), want);
        assert_eq!(free(b"<html>"), None);
    }

    #[test]
    fn a_refusal_is_kilos_whatever_it_is() {
        let body = br#"{"error":{"message":"no \n credits","code":402}}"#;
        for (status, words) in [
            (401, "upstream refused: Kilo: no  credits"),
            (402, "upstream refused: Kilo: no  credits"),
            (
                404,
                "upstream rejected the request (404): Kilo: no  credits",
            ),
            (429, "rate limited: Kilo: no  credits"),
            (503, "upstream failed (503): Kilo: no  credits"),
        ] {
            assert_eq!(refused(status, None, body).to_string(), words);
        }
        assert!(
            refused(500, None, b"<html>")
                .to_string()
                .contains("no reason")
        );
    }
}
