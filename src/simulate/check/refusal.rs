//! A refusal: status and body as upstream words them.

use std::fmt;

use serde_json::{Value, json};

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: Value,
    /// Headers beyond the content type.
    pub headers: Vec<(&'static str, &'static str)>,
}

impl Refusal {
    /// Returns the short form, `{"detail": …}`.
    pub fn detail(status: u16, detail: impl Into<String>) -> Self {
        Self {
            status,
            body: json!({"detail": detail.into()}),
            headers: Vec::new(),
        }
    }

    /// Returns the long form with `code` and the place `param`, status 400.
    pub fn invalid(code: &str, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            body: json!({"error": {
                "message": message.into(),
                "type": "invalid_request_error",
                "param": param.into(),
                "code": code,
            }}),
            headers: Vec::new(),
        }
    }

    /// Returns the refusal of an access token (contract §9.1).
    pub fn token_expired() -> Self {
        Self {
            status: 401,
            body: json!({
                "error": {
                    "message": "Provided authentication token is expired. Please try signing in again.",
                    "type": null,
                    "code": "token_expired",
                    "param": null,
                },
                "status": 401,
            }),
            headers: vec![("x-openai-authorization-error", "token_expired")],
        }
    }

    /// Returns the same refusal with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Returns `error.code`, where the long form was used.
    pub fn code(&self) -> Option<&str> {
        self.body["error"]["code"].as_str()
    }

    /// Returns `error.param`, where the long form was used.
    pub fn param(&self) -> Option<&str> {
        self.body["error"]["param"].as_str()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.body["detail"]
            .as_str()
            .or_else(|| self.body["error"]["message"].as_str())
            .unwrap_or_default();
        write!(f, "{}: {words}", self.status)
    }
}

impl std::error::Error for Refusal {}

/// The refusal of a value of the wrong type.
pub(super) fn wrong_type(param: impl Into<String>, expected: &str) -> Refusal {
    let param = param.into();
    let message = format!("Invalid type for '{param}': expected {expected}.");
    Refusal::invalid("invalid_type", param, message)
}

/// The refusal of a value that is not one of those known.
pub(super) fn wrong_value(param: impl Into<String>, value: &Value, known: &[&str]) -> Refusal {
    let param = param.into();
    let message = format!(
        "Invalid value: {value}. Supported values are: '{}'.",
        known.join("', '")
    );
    Refusal::invalid("invalid_value", param, message)
}

/// The refusal of something that must be there.
pub(super) fn missing(param: impl Into<String>) -> Refusal {
    let param = param.into();
    let message = format!("Missing required parameter: '{param}'.");
    Refusal::invalid("missing_required_parameter", param, message)
}

/// Refuses every key of `map` that is not `known`.
pub(super) fn only_keys(
    at: &str,
    map: &serde_json::Map<String, Value>,
    known: &[&str],
) -> Result<(), Refusal> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Refusal::invalid(
            "unknown_parameter",
            format!("{at}.{key}"),
            format!("Unknown parameter: '{at}.{key}'."),
        )),
    }
}

/// Refuses a string above `limit` characters.
pub(super) fn at_most(param: &str, text: &str, limit: usize) -> Result<(), Refusal> {
    let length = text.chars().count();
    if length <= limit {
        return Ok(());
    }
    Err(Refusal::invalid(
        "string_above_max_length",
        param,
        format!(
            "Invalid '{param}': string too long. Expected a string with maximum length {limit}, but got a string with length {length} instead."
        ),
    ))
}

/// Returns the string at `map[key]`.
pub(super) fn string<'a>(
    at: &str,
    map: &'a serde_json::Map<String, Value>,
    key: &str,
) -> Result<&'a str, Refusal> {
    match map.get(key) {
        None => Err(missing(format!("{at}.{key}"))),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong_type(format!("{at}.{key}"), "a string")),
    }
}
