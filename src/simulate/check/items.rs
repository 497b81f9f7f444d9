//! Input items: shapes, ids, images, and that every call has its output (contract §5.1, §5.2).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::refusal::{Refusal, at_most, missing, only_keys, string, wrong_type, wrong_value};
use super::tools;

/// Longest id of an item or a call.
const ID_LIMIT: usize = 64;

/// Fields that each item may have beside its own.
const COMMON: &[&str] = &["type", "id", "internal_chat_message_metadata_passthrough"];

const KINDS: &[&str] = &[
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "web_search_call",
    "additional_tools",
    "compaction",
    "compaction_trigger",
];

/// Checks all items; names of tools that come with them are added to `offered`.
pub(super) fn check(input: &[Value], lite: bool, offered: &mut Vec<String>) -> Result<(), Refusal> {
    if input.is_empty() {
        return Err(Refusal::invalid(
            "empty_array",
            "input",
            "Invalid 'input': empty array. Expected an array with minimum length 1.",
        ));
    }
    for (number, item) in input.iter().enumerate() {
        let at = format!("input[{number}]");
        let item = item
            .as_object()
            .ok_or_else(|| wrong_type(&at, "an object"))?;
        let is_last = number + 1 == input.len();
        one(
            &Place {
                at: &at,
                item,
                lite,
            },
            is_last,
            offered,
        )?;
    }
    pairs(input)
}

/// An item and where it stands.
struct Place<'a> {
    at: &'a str,
    item: &'a Map<String, Value>,
    lite: bool,
}

impl Place<'_> {
    fn string(&self, key: &str) -> Result<&str, Refusal> {
        string(self.at, self.item, key)
    }

    fn only(&self, own: &[&str]) -> Result<(), Refusal> {
        only_keys(self.at, self.item, &[COMMON, own].concat())
    }

    /// An id is optional; if there is one, its beginning tells the type.
    fn id(&self, prefix: &str) -> Result<(), Refusal> {
        let param = format!("{}.id", self.at);
        match self.item.get("id") {
            None => Ok(()),
            Some(Value::String(id)) if !id.starts_with(prefix) => Err(Refusal::invalid(
                "invalid_value",
                &param,
                format!("Invalid '{param}': '{id}'. Expected an ID that begins with '{prefix}'."),
            )),
            Some(Value::String(id)) => at_most(&param, id, ID_LIMIT),
            Some(_) => Err(wrong_type(param, "a string")),
        }
    }

    fn call_id(&self) -> Result<(), Refusal> {
        let id = self.string("call_id")?;
        let param = format!("{}.call_id", self.at);
        if id.is_empty() {
            return Err(Refusal::invalid(
                "invalid_value",
                &param,
                format!("Invalid '{param}': empty string."),
            ));
        }
        at_most(&param, id, ID_LIMIT)
    }
}

fn one(place: &Place<'_>, is_last: bool, offered: &mut Vec<String>) -> Result<(), Refusal> {
    let kind = match place.item.get("type") {
        // The short form of a message has no type.
        None if place.item.contains_key("role") => "message",
        _ => place.string("type")?,
    };
    match kind {
        "message" => message(place),
        "reasoning" => reasoning(place),
        "function_call" => {
            place.only(&["call_id", "name", "arguments", "status", "namespace"])?;
            place.id("fc")?;
            place.call_id()?;
            place.string("name")?;
            place.string("arguments").map(|_| ())
        }
        "custom_tool_call" => {
            place.only(&["call_id", "name", "input", "status", "namespace"])?;
            place.id("ctc")?;
            place.call_id()?;
            place.string("name")?;
            place.string("input").map(|_| ())
        }
        "function_call_output" | "custom_tool_call_output" => {
            place.only(&["call_id", "output", "status"])?;
            place.call_id()?;
            match place.item.get("output") {
                None => Err(missing(format!("{}.output", place.at))),
                Some(Value::String(_)) => Ok(()),
                Some(parts) => content(place, "output", parts, "user"),
            }
        }
        "web_search_call" => {
            place.only(&["status", "action"])?;
            place.id("ws")
        }
        "additional_tools" if !place.lite => Err(wrong_value(
            format!("{}.type", place.at),
            &Value::from("additional_tools"),
            KINDS,
        )),
        "additional_tools" => {
            place.only(&["role", "tools"])?;
            place.id("at")?;
            if place.string("role")? != "developer" {
                let role = &place.item["role"];
                return Err(wrong_value(
                    format!("{}.role", place.at),
                    role,
                    &["developer"],
                ));
            }
            let list = place
                .item
                .get("tools")
                .ok_or_else(|| missing(format!("{}.tools", place.at)))?;
            tools::check(&format!("{}.tools", place.at), list, true, offered)
        }
        "compaction" => {
            place.only(&["encrypted_content"])?;
            place.id("cmp")?;
            place.string("encrypted_content").map(|_| ())
        }
        "compaction_trigger" if is_last => place.only(&[]),
        other => Err(wrong_value(
            format!("{}.type", place.at),
            &Value::from(other),
            KINDS,
        )),
    }
}

fn message(place: &Place<'_>) -> Result<(), Refusal> {
    place.only(&["role", "content", "status", "phase"])?;
    place.id("msg")?;
    let role = place.string("role")?;
    match role {
        "system" => {
            return Err(Refusal::detail(400, "System messages are not allowed"));
        }
        "developer" | "user" | "assistant" => {}
        _ => {
            return Err(wrong_value(
                format!("{}.role", place.at),
                &place.item["role"],
                &["assistant", "developer", "user"],
            ));
        }
    }
    match place.item.get("content") {
        None => Err(missing(format!("{}.content", place.at))),
        Some(Value::String(_)) => Ok(()),
        Some(parts) => content(place, "content", parts, role),
    }
}

fn reasoning(place: &Place<'_>) -> Result<(), Refusal> {
    place.only(&["summary", "content", "encrypted_content", "status"])?;
    place.id("rs")?;
    let summary = place
        .item
        .get("summary")
        .ok_or_else(|| missing(format!("{}.summary", place.at)))?;
    let is_summary = |part: &Value| part["type"] == "summary_text" && part["text"].is_string();
    if !summary
        .as_array()
        .is_some_and(|parts| parts.iter().all(is_summary))
    {
        return Err(wrong_type(
            format!("{}.summary", place.at),
            "a list of summary_text parts",
        ));
    }
    match (place.item.get("encrypted_content"), place.item.get("id")) {
        (Some(Value::String(_)), _) => Ok(()),
        // Nothing is stored, so an id alone names nothing.
        (_, Some(id)) => Err(Refusal::invalid(
            "not_found",
            "input",
            format!(
                "Item with id '{}' not found. Items are not persisted when `store` is set to false.",
                id.as_str().unwrap_or_default()
            ),
        )
        .with_status(404)),
        (_, None) => Err(missing(format!("{}.encrypted_content", place.at))),
    }
}

fn content(place: &Place<'_>, key: &str, parts: &Value, role: &str) -> Result<(), Refusal> {
    let at = format!("{}.{key}", place.at);
    let parts = parts
        .as_array()
        .ok_or_else(|| wrong_type(&at, "a string or a list"))?;
    let known: &[&str] = match role {
        "assistant" => &["output_text", "refusal"],
        _ => &["input_text", "input_image", "input_file"],
    };
    for (number, part) in parts.iter().enumerate() {
        let at = format!("{at}[{number}]");
        let part = part
            .as_object()
            .ok_or_else(|| wrong_type(&at, "an object"))?;
        let kind = string(&at, part, "type")?;
        if !known.contains(&kind) {
            return Err(wrong_value(format!("{at}.type"), &part["type"], known));
        }
        match kind {
            "input_image" => image(&at, part, place.lite)?,
            "input_file" => {
                only_keys(&at, part, &["type", "filename", "file_data"])?;
                string(&at, part, "filename")?;
                data_url(&format!("{at}.file_data"), string(&at, part, "file_data")?)?;
            }
            "refusal" => {
                only_keys(&at, part, &["type", "refusal"])?;
                string(&at, part, "refusal")?;
            }
            "output_text" => {
                only_keys(&at, part, &["type", "text", "annotations", "logprobs"])?;
                string(&at, part, "text")?;
            }
            _ => {
                only_keys(&at, part, &["type", "text"])?;
                string(&at, part, "text")?;
            }
        }
    }
    Ok(())
}

fn image(at: &str, part: &Map<String, Value>, lite: bool) -> Result<(), Refusal> {
    only_keys(at, part, &["type", "image_url", "detail"])?;
    let url = string(at, part, "image_url")?;
    let param = format!("{at}.image_url");
    if lite && part.contains_key("detail") {
        return Err(Refusal::invalid(
            "unsupported_value",
            format!("{at}.detail"),
            "X-OpenAI-Internal-Codex-Responses-Lite does not support image `detail`.",
        ));
    }
    if let Some(detail) = part.get("detail") {
        let known = ["auto", "high", "low", "original"];
        if !detail.as_str().is_some_and(|name| known.contains(&name)) {
            return Err(wrong_value(format!("{at}.detail"), detail, &known));
        }
    }
    if url.starts_with("https://") && !lite {
        return Ok(());
    }
    let kind = data_url(&param, url)?;
    let known = ["image/png", "image/jpeg", "image/gif", "image/webp"];
    if known.contains(&kind) {
        return Ok(());
    }
    Err(wrong_value(param, &Value::from(kind), &known))
}

/// Returns the media type of a base64 data URL.
fn data_url<'a>(param: &str, url: &'a str) -> Result<&'a str, Refusal> {
    url.strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"))
        .filter(|(_, data)| !data.is_empty() && STANDARD.decode(data).is_ok())
        .map(|(kind, _)| kind)
        .ok_or_else(|| {
            Refusal::invalid(
                "invalid_value",
                param,
                format!("Invalid '{param}'. Expected a base64-encoded data URL with a media type."),
            )
        })
}

/// Every output needs its call before it, every call its output.
fn pairs(input: &[Value]) -> Result<(), Refusal> {
    for (call, output, words) in [
        ("function_call", "function_call_output", "function call"),
        (
            "custom_tool_call",
            "custom_tool_call_output",
            "custom tool call",
        ),
    ] {
        let mut open: Vec<&str> = Vec::new();
        let mut answered = HashSet::new();
        for item in input {
            let id = item["call_id"].as_str().unwrap_or_default();
            if item["type"] == call {
                open.push(id);
            } else if item["type"] == output {
                if !open.contains(&id) {
                    return Err(Refusal::invalid(
                        "invalid_value",
                        "input",
                        format!("No tool call found for {words} output with call_id {id}."),
                    ));
                }
                answered.insert(id);
            }
        }
        // A compaction replaces what came before it, outputs included.
        let is_compacting = input
            .last()
            .is_some_and(|item| item["type"] == "compaction_trigger");
        if let Some(id) = open.iter().find(|id| !answered.contains(*id))
            && !is_compacting
        {
            return Err(Refusal::invalid(
                "invalid_value",
                "input",
                format!("No tool output found for {words} {id}."),
            ));
        }
    }
    Ok(())
}
