//! The body's own fields; items and tools have files of their own.

use serde_json::{Map, Value};

use super::refusal::{Refusal, at_most, missing, only_keys, wrong_type, wrong_value};
use super::{items, tools};
use crate::simulate::models::{Entry, Models};

/// The fields that are taken (contract §3).
const FIELDS: &[&str] = &[
    "model",
    "stream",
    "service_tier",
    "instructions",
    "input",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "store",
    "include",
    "prompt_cache_key",
    "text",
    "client_metadata",
];

const LITE: &str = "X-OpenAI-Internal-Codex-Responses-Lite";

/// Checks `body` against the bundled catalogue; `lite` is whether the lite header was sent.
pub fn check(lite: bool, body: &Value) -> Result<(), Refusal> {
    check_with(&Models::default(), lite, body)
}

/// Checks `body` against `models`; `lite` is whether the lite header was sent.
pub fn check_with(models: &Models, lite: bool, body: &Value) -> Result<(), Refusal> {
    let Value::Object(body) = body else {
        return Err(Refusal::detail(400, "Request body must be a JSON object"));
    };
    let model = model(models, lite, body)?;
    if let Some(field) = body.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(Refusal::detail(
            400,
            format!("Unsupported parameter: {field}"),
        ));
    }
    if body.get("stream") != Some(&Value::Bool(true)) {
        return Err(Refusal::detail(400, "Stream must be set to true"));
    }
    if body.get("store") != Some(&Value::Bool(false)) {
        return Err(Refusal::detail(400, "Store must be set to false"));
    }
    let Some(Value::Array(input)) = body.get("input") else {
        return Err(Refusal::detail(400, "Input must be a list"));
    };
    if lite {
        lite_rules(body)?;
    }
    scalars(body)?;
    reasoning(model, body)?;
    text(body)?;
    let mut offered = Vec::new();
    if let Some(list) = body.get("tools") {
        tools::check("tools", list, lite, &mut offered)?;
    }
    items::check(input, lite, &mut offered)?;
    calls(body, &offered, lite)
}

fn model<'a>(
    models: &'a Models,
    lite: bool,
    body: &Map<String, Value>,
) -> Result<Entry<'a>, Refusal> {
    let slug = match body.get("model") {
        Some(Value::String(slug)) => slug,
        Some(_) => return Err(wrong_type("model", "a string")),
        None => return Err(missing("model")),
    };
    let entry = models.get(slug).ok_or_else(|| {
        Refusal::detail(
            400,
            format!("The '{slug}' model is not supported when using Codex with a ChatGPT account."),
        )
    })?;
    if !lite && entry.is_lite_only() {
        return Err(Refusal::detail(404, format!("Model not found {slug}-free")));
    }
    if lite && !entry.is_lite() {
        return Err(Refusal::invalid(
            "unsupported_value",
            "model",
            format!("{LITE} is not supported with the model '{slug}'."),
        ));
    }
    Ok(entry)
}

/// What the lite form asks for (contract §4).
fn lite_rules(body: &Map<String, Value>) -> Result<(), Refusal> {
    let refuse = |param: &str, must: &str| {
        Err(Refusal::invalid(
            "unsupported_value",
            param,
            format!("{LITE} requires `{param}` to be {must}."),
        ))
    };
    if body.get("parallel_tool_calls") != Some(&Value::Bool(false)) {
        return refuse("parallel_tool_calls", "false");
    }
    if body
        .get("reasoning")
        .and_then(|reasoning| reasoning.get("context"))
        .is_none_or(|context| context != "all_turns")
    {
        return refuse("reasoning.context", "all_turns");
    }
    for field in ["tools", "instructions"] {
        if body.contains_key(field) {
            return refuse(field, "omitted");
        }
    }
    Ok(())
}

fn scalars(body: &Map<String, Value>) -> Result<(), Refusal> {
    if body
        .get("instructions")
        .is_some_and(|text| !text.is_string())
    {
        return Err(wrong_type("instructions", "a string"));
    }
    match body.get("prompt_cache_key") {
        None => {}
        Some(Value::String(key)) => at_most("prompt_cache_key", key, 64)?,
        Some(_) => return Err(wrong_type("prompt_cache_key", "a string")),
    }
    if let Some(tier) = body.get("service_tier") {
        let known = ["auto", "default", "flex", "priority", "ultrafast"];
        if !tier.as_str().is_some_and(|tier| known.contains(&tier)) {
            return Err(wrong_value("service_tier", tier, &known));
        }
    }
    match body.get("client_metadata") {
        None => {}
        Some(Value::Object(map)) if map.values().all(Value::is_string) => {}
        Some(_) => return Err(wrong_type("client_metadata", "a map of strings")),
    }
    match body.get("include") {
        None => Ok(()),
        Some(Value::Array(list)) => {
            let known = ["reasoning.encrypted_content"];
            match list
                .iter()
                .find(|entry| !entry.as_str().is_some_and(|name| known.contains(&name)))
            {
                None => Ok(()),
                Some(entry) => Err(wrong_value("include", entry, &known)),
            }
        }
        Some(_) => Err(wrong_type("include", "a list")),
    }
}

fn reasoning(model: Entry<'_>, body: &Map<String, Value>) -> Result<(), Refusal> {
    let reasoning = match body.get("reasoning") {
        None => return Ok(()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(wrong_type("reasoning", "an object")),
    };
    only_keys("reasoning", reasoning, &["effort", "summary", "context"])?;
    if let Some(effort) = reasoning.get("effort")
        && !effort.as_str().is_some_and(|name| model.takes_effort(name))
    {
        return Err(Refusal::invalid(
            "unsupported_value",
            "reasoning.effort",
            format!("Unsupported value: {effort} is not supported with this model."),
        ));
    }
    if let Some(summary) = reasoning.get("summary") {
        let known = ["auto", "concise", "detailed"];
        if !summary.as_str().is_some_and(|name| known.contains(&name)) {
            return Err(wrong_value("reasoning.summary", summary, &known));
        }
    }
    if let Some(context) = reasoning.get("context")
        && context != "all_turns"
    {
        return Err(wrong_value("reasoning.context", context, &["all_turns"]));
    }
    Ok(())
}

fn text(body: &Map<String, Value>) -> Result<(), Refusal> {
    let text = match body.get("text") {
        None => return Ok(()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(wrong_type("text", "an object")),
    };
    only_keys("text", text, &["verbosity", "format"])?;
    if let Some(verbosity) = text.get("verbosity") {
        let known = ["low", "medium", "high"];
        if !verbosity.as_str().is_some_and(|name| known.contains(&name)) {
            return Err(wrong_value("text.verbosity", verbosity, &known));
        }
    }
    match text.get("format") {
        None => Ok(()),
        Some(Value::Object(format)) => tools::format(format),
        Some(_) => Err(wrong_type("text.format", "an object")),
    }
}

/// `tool_choice` and `parallel_tool_calls` against the tools that there are.
fn calls(body: &Map<String, Value>, offered: &[String], lite: bool) -> Result<(), Refusal> {
    if let Some(choice) = body.get("tool_choice") {
        tools::choice(choice, offered)?;
    }
    match body.get("parallel_tool_calls") {
        None => Ok(()),
        Some(Value::Bool(_)) if lite || !offered.is_empty() => Ok(()),
        Some(Value::Bool(_)) => Err(Refusal::invalid(
            "invalid_value",
            "parallel_tool_calls",
            "'parallel_tool_calls' is only allowed when 'tools' are specified.",
        )),
        Some(_) => Err(wrong_type("parallel_tool_calls", "a boolean")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn full() -> Value {
        json!({
            "model": "gpt-5.5",
            "stream": true,
            "store": false,
            "instructions": "be brief",
            "input": [{"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": "hi"}]}],
            "tools": [{"type": "function", "name": "Read", "strict": false,
                "parameters": {"type": "object", "properties": {"pattern": {"type": "string"}}}}],
            "tool_choice": "auto",
            "parallel_tool_calls": true,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "c",
            "text": {"verbosity": "low"},
        })
    }

    fn lite() -> Value {
        json!({
            "model": "gpt-6.1-sol",
            "stream": true,
            "store": false,
            "input": [
                {"type": "additional_tools", "role": "developer", "tools": [
                    {"type": "function", "name": "Read", "parameters": {"type": "object"}}]},
                {"type": "message", "role": "developer", "content": "be brief"},
                {"type": "message", "role": "user", "content": "hi"},
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": false,
            "reasoning": {"effort": "max", "context": "all_turns"},
        })
    }

    /// Sets what `pointer` names in `body`, or takes it away for `null`.
    fn change(body: &mut Value, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = body.pointer_mut(parent).unwrap();
        match (parent, value) {
            (Value::Object(map), Value::Null) => {
                map.remove(name);
            }
            (Value::Object(map), value) => {
                map.insert(name.to_owned(), value);
            }
            (Value::Array(list), value) => match name.parse::<usize>() {
                Ok(at) => list[at] = value,
                Err(_) => list.push(value),
            },
            (other, _) => panic!("{other} has no {name}"),
        }
    }

    #[test]
    fn the_recorded_requests_of_the_real_client_pass() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/codex/requests");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let recorded: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let lite = recorded["headers"]
                .as_array()
                .unwrap()
                .iter()
                .any(|pair| pair[0] == "x-openai-internal-codex-responses-lite");
            let outcome = check(lite, &recorded["body"]);
            assert_eq!(outcome, Ok(()), "{}", path.display());
            count += 1;
        }
        assert_eq!(count, 12);
    }

    #[test]
    fn the_plain_requests_pass() {
        assert_eq!(check(false, &full()), Ok(()));
        assert_eq!(check(true, &lite()), Ok(()));
        // Sol is served on the full lane as well.
        let mut sol = full();
        change(&mut sol, "/model", json!("gpt-6.1-sol"));
        assert_eq!(check(false, &sol), Ok(()));
    }

    #[test]
    fn the_full_lane_refuses_what_it_is_known_to_refuse() {
        let long = "x".repeat(65);
        let call = json!({"type": "function_call", "call_id": "a", "name": "Read",
            "arguments": "{}"});
        let tool = |extra: Value| {
            let mut tool = json!({"type": "function", "name": "T",
                "parameters": {"type": "object"}});
            for (key, value) in extra.as_object().unwrap() {
                tool[key] = value.clone();
            }
            tool
        };
        for (pointer, value, message) in [
            (
                "/model",
                json!("gpt-9"),
                "400: The 'gpt-9' model is not supported when using Codex with a ChatGPT account.",
            ),
            (
                "/model",
                json!("gpt-6-luna"),
                "404: Model not found gpt-6-luna-free",
            ),
            ("/stream", json!(false), "400: Stream must be set to true"),
            ("/store", Value::Null, "400: Store must be set to false"),
            ("/store", json!(true), "400: Store must be set to false"),
            ("/input", json!("hi"), "400: Input must be a list"),
            (
                "/max_output_tokens",
                json!(1),
                "400: Unsupported parameter: max_output_tokens",
            ),
            (
                "/temperature",
                json!(1),
                "400: Unsupported parameter: temperature",
            ),
            (
                "/metadata",
                json!({}),
                "400: Unsupported parameter: metadata",
            ),
            (
                "/previous_response_id",
                json!("r"),
                "400: Unsupported parameter: previous_response_id",
            ),
            (
                "/reasoning/effort",
                json!("max"),
                "400: Unsupported value: \"max\" is not supported with this model.",
            ),
            (
                "/reasoning/effort",
                json!("minimal"),
                "400: Unsupported value: \"minimal\" is not supported with this model.",
            ),
            (
                "/reasoning/summary",
                json!("none"),
                "400: Invalid value: \"none\". Supported values are: 'auto', 'concise', 'detailed'.",
            ),
            (
                "/tools",
                Value::Null,
                "400: 'parallel_tool_calls' is only allowed when 'tools' are specified.",
            ),
            (
                "/tool_choice",
                json!({"type": "function", "name": "No"}),
                "400: Tool choice 'No' not found in 'tools' parameter.",
            ),
            (
                "/tool_choice",
                json!({"type": "web_search"}),
                "502: Bad Gateway",
            ),
            (
                "/tools/+",
                tool(json!({"name": "a b"})),
                "400: Invalid 'tools[1].name': string does not match pattern '^[a-zA-Z0-9_-]+$'.",
            ),
            (
                "/tools/+",
                tool(json!({"name": "Read"})),
                "400: Tool names must be unique: 'Read'.",
            ),
            (
                "/tools/+",
                tool(json!({"defer_loading": true})),
                "400: Unknown parameter: 'tools[1].defer_loading'.",
            ),
            (
                "/tools/+",
                tool(json!({"parameters": {}})),
                "400: Invalid schema for function 'T': schema must be a JSON Schema of 'type: \"object\"', got 'type: null'.",
            ),
            (
                "/tools/+",
                tool(
                    json!({"parameters": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?!x)"}}}}),
                ),
                "400: Invalid schema for function 'T': '(?!x)' is not a supported 'regex'.",
            ),
            (
                "/tools/+",
                tool(
                    json!({"strict": true, "parameters": {"type": "object", "properties": {"a": {}}, "additionalProperties": false}}),
                ),
                "400: Invalid schema for function 'T': 'required' is missing 'a'.",
            ),
            (
                "/input/+",
                json!({"type": "message", "role": "system", "content": "x"}),
                "400: System messages are not allowed",
            ),
            (
                "/input/+",
                json!({"type": "message", "role": "assistant", "content": [{"type": "input_text", "text": ""}]}),
                "400: Invalid value: \"input_text\". Supported values are: 'output_text', 'refusal'.",
            ),
            (
                "/input/+",
                json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "", "cache_control": {}}]}),
                "400: Unknown parameter: 'input[1].content[0].cache_control'.",
            ),
            (
                "/input/+",
                json!({"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]}),
                "400: Invalid 'input[1].content[0].image_url'. Expected a base64-encoded data URL with a media type.",
            ),
            (
                "/input/+",
                json!({"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "data:image/bmp;base64,AAAA"}]}),
                "400: Invalid value: \"image/bmp\". Supported values are: 'image/png', 'image/jpeg', 'image/gif', 'image/webp'.",
            ),
            (
                "/input/+",
                json!({"type": "additional_tools", "role": "developer", "tools": []}),
                "400: Invalid value: \"additional_tools\". Supported values are: 'message', 'reasoning', 'function_call', 'function_call_output', 'custom_tool_call', 'custom_tool_call_output', 'web_search_call', 'additional_tools', 'compaction', 'compaction_trigger'.",
            ),
            (
                "/input/+",
                call,
                "400: No tool output found for function call a.",
            ),
            (
                "/input/+",
                json!({"type": "function_call_output", "call_id": "b", "output": ""}),
                "400: No tool call found for function call output with call_id b.",
            ),
            (
                "/input/+",
                json!({"type": "function_call_output", "call_id": long, "output": ""}),
                "400: Invalid 'input[1].call_id': string too long. Expected a string with maximum length 64, but got a string with length 65 instead.",
            ),
            (
                "/input/+",
                json!({"type": "function_call", "id": "toolu_1", "call_id": "a", "name": "Read", "arguments": "{}"}),
                "400: Invalid 'input[1].id': 'toolu_1'. Expected an ID that begins with 'fc'.",
            ),
            (
                "/input/+",
                json!({"type": "reasoning", "id": "rs_1", "summary": []}),
                "404: Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.",
            ),
            (
                "/input/+",
                json!({"type": "reasoning", "summary": []}),
                "400: Missing required parameter: 'input[1].encrypted_content'.",
            ),
            (
                "/prompt_cache_key",
                json!("x".repeat(65)),
                "400: Invalid 'prompt_cache_key': string too long. Expected a string with maximum length 64, but got a string with length 65 instead.",
            ),
            (
                "/text/format",
                json!({"type": "json_schema", "name": "t", "strict": true, "schema": {"type": "object", "properties": {}}}),
                "400: Invalid schema for response_format: 'additionalProperties' is required to be false.",
            ),
        ] {
            let mut body = full();
            change(&mut body, pointer, value.clone());
            let refusal = check(false, &body).expect_err(message);
            assert_eq!(refusal.to_string(), message, "{pointer} = {value}");
        }
    }

    #[test]
    fn the_lite_lane_has_rules_of_its_own() {
        for (pointer, value, code, param) in [
            (
                "/parallel_tool_calls",
                Value::Null,
                "unsupported_value",
                "parallel_tool_calls",
            ),
            (
                "/parallel_tool_calls",
                json!(true),
                "unsupported_value",
                "parallel_tool_calls",
            ),
            (
                "/reasoning/context",
                Value::Null,
                "unsupported_value",
                "reasoning.context",
            ),
            (
                "/reasoning",
                Value::Null,
                "unsupported_value",
                "reasoning.context",
            ),
            ("/tools", json!([]), "unsupported_value", "tools"),
            (
                "/instructions",
                json!("x"),
                "unsupported_value",
                "instructions",
            ),
            ("/model", json!("gpt-5.5"), "unsupported_value", "model"),
            (
                "/input/0/tools/+",
                json!({"type": "web_search"}),
                "unsupported_value",
                "tools",
            ),
            (
                "/input/0/role",
                json!("user"),
                "invalid_value",
                "input[0].role",
            ),
            (
                "/input/2/content",
                json!([{"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AAAA"}]),
                "unsupported_value",
                "input[2].content[0].detail",
            ),
            (
                "/input/2/content",
                json!([{"type": "input_image", "image_url": "https://x/y.png"}]),
                "invalid_value",
                "input[2].content[0].image_url",
            ),
        ] {
            let mut body = lite();
            change(&mut body, pointer, value.clone());
            let refusal = check(true, &body).expect_err(pointer);
            assert_eq!(
                (refusal.status, refusal.code(), refusal.param()),
                (400, Some(code), Some(param)),
                "{pointer} = {value}"
            );
        }
        assert_eq!(
            check(true, &{
                let mut body = lite();
                change(&mut body, "/parallel_tool_calls", Value::Null);
                body
            })
            .unwrap_err()
            .to_string(),
            "400: X-OpenAI-Internal-Codex-Responses-Lite requires `parallel_tool_calls` to be false."
        );
    }
}
