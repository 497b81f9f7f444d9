//! The words of a refused call, taken out of the shapes they come in.
//!
//! Upstream and what stands before it refuse in five shapes: `{"error":{…}}`, `{"detail":"…"}`,
//! `{"detail":{"code":…}}`, `{"detail":[{"loc","msg"}]}`, and HTML. Here they become one [`Refusal`]
//! with words that may be shown: no markup, no control characters, nothing that looks like a token,
//! bounded length. What a refusal means is decided in `failure`.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::time::UnixSeconds;

/// The most characters of upstream's words that are passed on: enough for every known message, too few to flood a
/// terminal.
const MESSAGE_LIMIT: usize = 500;

/// A refused call in upstream's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `error.code`, `detail.code` or `detail.error_code`.
    pub(super) code: Option<String>,
    /// `error.type`.
    pub(super) kind: Option<String>,
    /// `error.param`.
    pub(super) param: Option<String>,
    /// The message, fit to be shown; never empty once it is [`Self::worded`].
    pub(super) message: String,
    /// A web page came, or a challenge: something before upstream refused.
    pub(super) is_page: bool,
    /// The plan does not include the model: see [`is_model_sentence`].
    pub(super) names_model_as_unsupported: bool,
    /// `resets_at`: seconds since 1970.
    pub(super) resets_at: Option<u64>,
    /// `resets_in_seconds`.
    pub(super) resets_in: Option<u64>,
}

impl Refusal {
    /// Reads the refusal out of a reply.
    pub(super) fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let is_html = header(headers, "content-type").contains("html") || looks_like_html(body);
        if is_html || !header(headers, "cf-mitigated").is_empty() {
            return Self {
                message: in_place_of_html(status, headers),
                is_page: true,
                ..Self::default()
            };
        }
        let mut refusal = match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::from_json(&value),
            Err(_) => Self {
                message: clean(&String::from_utf8_lossy(body)),
                ..Self::default()
            },
        };
        if refusal.code.is_none() {
            refusal.code = word(header(headers, "x-openai-authorization-error"));
        }
        refusal.worded(|| format!("status {status} without a message"))
    }

    /// Puts something to show where there is no message: the code or the type, else `otherwise`.
    pub(super) fn worded(mut self, otherwise: impl FnOnce() -> String) -> Self {
        if self.message.is_empty() {
            let word = self.code.as_ref().or(self.kind.as_ref());
            self.message = word.cloned().unwrap_or_else(otherwise);
        }
        self
    }

    fn from_json(value: &Value) -> Self {
        match (&value["error"], &value["detail"]) {
            (Value::Object(_), _) => Self::from_object(&value["error"]),
            (Value::String(text), _) => Self {
                code: word(text),
                message: clean(value["error_description"].as_str().unwrap_or(text)),
                ..Self::default()
            },
            (_, Value::String(text)) => Self {
                message: clean(text),
                names_model_as_unsupported: is_model_sentence(text),
                ..Self::default()
            },
            (_, Value::Object(_)) => Self::from_object(&value["detail"]),
            (_, Value::Array(list)) => Self {
                message: clean(&faults(list)),
                ..Self::default()
            },
            _ => Self::from_object(value),
        }
    }

    fn from_object(object: &Value) -> Self {
        let text = |name: &str| object[name].as_str();
        Self {
            code: text("code").or_else(|| text("error_code")).and_then(word),
            kind: text("type").and_then(word),
            param: text("param").and_then(word),
            message: clean(
                text("message")
                    .or_else(|| text("detail"))
                    .unwrap_or_default(),
            ),
            is_page: false,
            names_model_as_unsupported: false,
            resets_at: whole(&object["resets_at"]),
            resets_in: whole(&object["resets_in_seconds"]),
        }
    }

    /// Returns when the limit starts anew, as the body says it: the absolute time unless it has passed, else the
    /// relative one.
    pub(super) fn resets(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        let absolute = self.resets_at.map(UnixSeconds).filter(|at| *at > now);
        absolute.or_else(|| {
            self.resets_in
                .map(|left| now.plus(Duration::from_secs(left)))
        })
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Takes seconds as an integer, a fraction or digits in a string.
fn whole(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))
        .or_else(|| value.as_str()?.parse().ok())
}

/// Takes `text` as a code: one word of bounded length.
fn word(text: &str) -> Option<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '[' | ']');
    (1..=100)
        .contains(&text.len())
        .then(|| text.chars().all(is_word).then(|| text.to_owned()))
        .flatten()
}

/// Says whether `detail` refuses a model for this kind of account.
///
/// The one place where a sentence decides: upstream gives neither code nor type here, only
/// `{"detail":"The 'X' model is not supported when using Codex with a ChatGPT account."}` under the
/// status that every fault of a request has (contract chatgpt-codex §9.1). The quoted name in front
/// keeps other uses of the words out.
fn is_model_sentence(detail: &str) -> bool {
    detail
        .strip_prefix("The '")
        .and_then(|rest| rest.split_once("' model is not supported"))
        .is_some_and(|(name, _)| !name.is_empty() && !name.contains('\''))
}

/// Joins the entries of a validation error: `body.input: field required`.
fn faults(list: &[Value]) -> String {
    let place = |entry: &Value| {
        let parts = entry["loc"].as_array()?.iter().map(|part| match part {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Some(parts.collect::<Vec<_>>().join("."))
    };
    list.iter()
        .take(5)
        .map(|entry| {
            let what = entry["msg"].as_str().unwrap_or("not accepted");
            match place(entry) {
                Some(place) => format!("{place}: {what}"),
                None => what.to_owned(),
            }
        })
        .collect::<Vec<_>>()
        .join("; ")
}

fn looks_like_html(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

/// Returns words in place of a page: nobody reads HTML in a terminal, and a challenge page is no verdict on the
/// account.
fn in_place_of_html(status: u16, headers: &HeaderMap) -> String {
    let ray = match header(headers, "cf-ray") {
        "" => String::new(),
        ray => format!(" (ray {})", clean(ray)),
    };
    if status == 403 || !header(headers, "cf-mitigated").is_empty() {
        format!(
            "a web page came instead of an answer: something before upstream blocked the \
             connection{ray}; this says nothing about the account, try another network or later"
        )
    } else {
        format!("a web page with status {status} came instead of an answer{ray}")
    }
}

/// Returns `text` fit to be shown: one line, bounded, without markup and without anything that looks like a token.
pub(super) fn clean(text: &str) -> String {
    if looks_like_html(text.as_bytes()) {
        return "a web page came instead of a message".to_owned();
    }
    let mut words = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if words.len() + word.len() > MESSAGE_LIMIT {
            words.extend(word.chars().take(MESSAGE_LIMIT.saturating_sub(words.len())));
            words.push('…');
            break;
        }
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(if is_token(word) { "(hidden)" } else { word });
    }
    words
}

/// Says whether a word looks like a credential: a JWT, or a key by its customary prefix. Quotes and brackets around
/// it do not hide it.
fn is_token(word: &str) -> bool {
    let bare = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let long = bare.len() >= 20;
    word.contains("eyJ") && long
        || ["sk-", "sess-", "rt_", "rt.", "at_", "gAAAA"]
            .iter()
            .any(|prefix| bare.starts_with(prefix) && long)
}

/// Returns a wait out of "try again in 1.5s", "… 20ms", "… 1m30s". Only the number is taken from the sentence: that
/// it is a rate limit was said by the code.
pub(super) fn try_again_in(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("try again in ")?;
    let mut total = Duration::ZERO;
    let mut rest = rest;
    let mut found = false;
    loop {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else {
            break;
        };
        let unit = rest[digits..].trim_start();
        let (seconds, after) = if let Some(after) = unit.strip_prefix("ms") {
            (number / 1_000.0, after)
        } else if let Some(after) = unit.strip_prefix('s') {
            (number, after)
        } else if let Some(after) = unit.strip_prefix('m') {
            (number * 60.0, after)
        } else if let Some(after) = unit.strip_prefix('h') {
            (number * 3_600.0, after)
        } else {
            break;
        };
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        found = true;
        rest = after;
    }
    found.then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_models_own_sentence_counts() {
        for (detail, expected) in [
            (
                "The 'gpt-9' model is not supported when using Codex with a ChatGPT account.",
                true,
            ),
            ("Unsupported parameter: model", false),
            ("The model is not supported", false),
            ("The '' model is not supported", false),
            ("The tool 'x' model is not supported", false),
        ] {
            assert_eq!(is_model_sentence(detail), expected, "{detail}");
        }
    }

    #[test]
    fn words_are_made_fit_to_be_shown() {
        let long = "word ".repeat(1_000);
        assert!(clean(&long).chars().count() <= MESSAGE_LIMIT + 1);
        assert!(clean(&"x".repeat(10_000)).chars().count() <= MESSAGE_LIMIT + 1);
        for (text, expected) in [
            ("a\r\nb\u{1b}[31m  c", "a b [31m c"),
            (
                "bad key 'eyJhbGciOiJub25lIn0.eyJmIjp0cnVlfQ.c2ln' given",
                "bad key (hidden) given",
            ),
            ("key sk-abcdefghijklmnopqrstuvwxyz", "key (hidden)"),
            ("sk-short stays", "sk-short stays"),
            (
                " <!DOCTYPE html><p>",
                "a web page came instead of a message",
            ),
            ("", ""),
        ] {
            assert_eq!(clean(text), expected, "{text}");
        }
    }

    #[test]
    fn waits_are_read_out_of_the_sentence() {
        for (message, milliseconds) in [
            ("Please try again in 1.5s.", Some(1_500)),
            ("try again in 20ms", Some(20)),
            ("try again in 1m30s.", Some(90_000)),
            ("try again in 2 s", Some(2_000)),
            (
                "try again in 18000000000000000000s18000000000000000000s",
                None,
            ),
            ("try again in a while", None),
            ("try again in 7", None),
            ("no", None),
        ] {
            assert_eq!(
                try_again_in(message),
                milliseconds.map(Duration::from_millis),
                "{message}"
            );
        }
    }
}
