//! `/settings/haiku-model` and `/settings/kilo-models`: whether what haiku is asked goes to Kilo, and to which model there.
//!
//! A choice counts from the next request on, and is kept in `config.toml`. The proxy of a launch takes none.

use std::fmt::Display;

use http::{Request, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{self, Setting, WriteError};
use crate::files::settings::ChangeError;
use crate::proxy::body::Body;
use crate::proxy::intake;
use crate::proxy::reply::Reply;
use crate::proxy::service::{self, Service};
use crate::wire::envelope::ErrorKind;

/// The key in `config.toml`.
const KEY: &str = "kilo";

/// What a person has to know who turns the lane on.
const NOTICE: &str = "what haiku is asked goes to api.kilo.ai, a third party, from now on: titles, summaries, fetched pages, \
    whatever subagents on haiku read";

/// Tells the choice.
pub fn haiku_model(service: &Service) -> Response<Body> {
    answer(&json!({"success": true, "haikuKiloModel": service.kilo.chosen()}))
}

/// Makes a choice: `{"haikuKiloModel": "z-ai/glm-5:free"}`, or `null` for none.
///
/// # Errors
///
/// This proxy takes no choice, the body says no model, or the choice cannot be kept.
pub async fn choose_haiku_model(
    service: &Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    #[derive(Deserialize)]
    struct Choice {
        #[serde(rename = "haikuKiloModel", deserialize_with = "Option::deserialize")]
        model: Option<String>,
    }
    let Some(file) = service.settings_file.clone() else {
        let why =
            "a session's proxy takes no settings: ask the daemon, or set `kilo` in config.toml";
        return Err(Reply::refused(403, ErrorKind::Permission, why.to_owned()));
    };
    let (head, body) = request.into_parts();
    let body = intake::read(&head.headers, body).await?;
    let choice: Choice = serde_json::from_slice(&body).map_err(refused)?;
    let word = choice.model.unwrap_or_else(|| "off".to_owned());
    let chosen = config::kilo(&word).ok_or_else(|| {
        refused(
            "haikuKiloModel: expected null or the name of one of Kilo's models, as z-ai/glm-5:free",
        )
    })?;
    let word = chosen.clone().unwrap_or(word);
    let change = move || file.change(|text| config::set(text, &[KEY], Setting::Word(&word)));
    let changed = tokio::task::spawn_blocking(change).await;
    changed
        .map_err(|_| failed("the settings could not be written"))?
        .map_err(|error: ChangeError<WriteError>| match error {
            ChangeError::Refused(error) => {
                failed(format!("config.toml was left as it is: {error}"))
            }
            other => failed(other),
        })?;
    service.kilo.choose(chosen.clone());
    tracing::info!(model = chosen, "who answers in haiku's place was chosen");
    let mut told = json!({"success": true, "haikuKiloModel": chosen});
    if chosen.is_some() {
        told["notice"] = NOTICE.into();
    }
    Ok(answer(&told))
}

/// Tells the models of Kilo's that anybody may use.
///
/// # Errors
///
/// Kilo does not tell them.
pub async fn kilo_models(service: &Service) -> Result<Response<Body>, Reply> {
    let models = service.kilo.free().await;
    let models =
        models.map_err(|failure| Reply::refused(502, ErrorKind::Api, failure.to_string()))?;
    let models: Vec<Value> = models
        .into_iter()
        .map(|model| {
            json!({
                "id": model.id,
                "name": model.name,
                "context_length": model.context_length,
                "supportsTools": model.supports_tools,
            })
        })
        .collect();
    Ok(answer(
        &json!({"success": true, "models": models, "current": service.kilo.chosen()}),
    ))
}

fn answer(value: &Value) -> Response<Body> {
    service::json(value.to_string())
}

fn refused(why: impl Display) -> Reply {
    Reply::refused(400, ErrorKind::InvalidRequest, why.to_string())
}

fn failed(why: impl Display) -> Reply {
    Reply::refused(500, ErrorKind::Api, why.to_string())
}
