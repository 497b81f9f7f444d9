//! Tools, the choice among them, and the schema of a structured answer (contract §5.3, §5.4).

use serde_json::{Map, Value};

use super::refusal::{Refusal, at_most, missing, only_keys, string, wrong_type, wrong_value};

const KINDS: &[&str] = &[
    "function",
    "custom",
    "namespace",
    "tool_search",
    "web_search",
];

/// Checks the list of tools at `at` and adds the names that may be called to `offered`.
pub(super) fn check(
    at: &str,
    list: &Value,
    lite: bool,
    offered: &mut Vec<String>,
) -> Result<(), Refusal> {
    let list = list.as_array().ok_or_else(|| wrong_type(at, "a list"))?;
    for (number, tool) in list.iter().enumerate() {
        let at = format!("{at}[{number}]");
        let tool = tool
            .as_object()
            .ok_or_else(|| wrong_type(&at, "an object"))?;
        match string(&at, tool, "type")? {
            "function" => function(&at, tool, offered)?,
            "custom" => {
                only_keys(&at, tool, &["type", "name", "description", "format"])?;
                name(&at, tool, offered)?;
            }
            "namespace" => {
                only_keys(&at, tool, &["type", "name", "description", "tools"])?;
                name(&at, tool, &mut Vec::new())?;
                let inner = tool
                    .get("tools")
                    .ok_or_else(|| missing(format!("{at}.tools")))?;
                check(&format!("{at}.tools"), inner, lite, offered)?;
            }
            "tool_search" => {
                let known = ["type", "execution", "description", "parameters"];
                only_keys(&at, tool, &known)?;
                if lite && tool.get("execution").is_none_or(|who| who != "client") {
                    return Err(hosted("tool_search"));
                }
                offered.push("tool_search".to_owned());
            }
            "web_search" if lite => return Err(hosted("web_search")),
            "web_search" => {
                let known = [
                    "type",
                    "external_web_access",
                    "search_content_types",
                    "filters",
                    "search_context_size",
                    "user_location",
                ];
                only_keys(&at, tool, &known)?;
                if let Some(filters) = tool.get("filters") {
                    search_filters(&format!("{at}.filters"), filters)?;
                }
                offered.push("web_search".to_owned());
            }
            _ => {
                let kind = tool.get("type").unwrap_or(&Value::Null);
                return Err(wrong_value(format!("{at}.type"), kind, KINDS));
            }
        }
    }
    Ok(())
}

/// Lists of bare domains, at most 100 in each.
fn search_filters(at: &str, filters: &Value) -> Result<(), Refusal> {
    let filters = filters
        .as_object()
        .ok_or_else(|| wrong_type(at, "an object"))?;
    only_keys(at, filters, &["allowed_domains", "blocked_domains"])?;
    for (name, list) in filters {
        let at = format!("{at}.{name}");
        let list = list.as_array().ok_or_else(|| wrong_type(&at, "a list"))?;
        let is_bare = |domain: &Value| {
            domain
                .as_str()
                .is_some_and(|text| !text.is_empty() && !text.contains(['/', ':', '*', ' ']))
        };
        if list.len() > 100 || !list.iter().all(is_bare) {
            return Err(Refusal::invalid(
                "invalid_value",
                &at,
                format!("Invalid '{at}': expected at most 100 domains without a scheme."),
            ));
        }
    }
    Ok(())
}

fn hosted(kind: &str) -> Refusal {
    Refusal::invalid(
        "unsupported_value",
        "tools",
        format!(
            "X-OpenAI-Internal-Codex-Responses-Lite does not support the hosted tool '{kind}'."
        ),
    )
}

fn name(at: &str, tool: &Map<String, Value>, offered: &mut Vec<String>) -> Result<(), Refusal> {
    let name = string(at, tool, "name")?;
    let param = format!("{at}.name");
    at_most(&param, name, 64)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(Refusal::invalid(
            "invalid_value",
            &param,
            format!("Invalid '{param}': string does not match pattern '^[a-zA-Z0-9_-]+$'."),
        ));
    }
    if offered.iter().any(|known| known == name) {
        return Err(Refusal::invalid(
            "invalid_value",
            &param,
            format!("Tool names must be unique: '{name}'."),
        ));
    }
    offered.push(name.to_owned());
    Ok(())
}

fn function(at: &str, tool: &Map<String, Value>, offered: &mut Vec<String>) -> Result<(), Refusal> {
    let known = ["type", "name", "description", "strict", "parameters"];
    only_keys(at, tool, &known)?;
    name(at, tool, offered)?;
    if tool
        .get("description")
        .is_some_and(|text| !text.is_string())
    {
        return Err(wrong_type(format!("{at}.description"), "a string"));
    }
    let strict = match tool.get("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(strict)) => *strict,
        Some(_) => return Err(wrong_type(format!("{at}.strict"), "a boolean")),
    };
    let name = string(at, tool, "name")?;
    let schema = tool
        .get("parameters")
        .ok_or_else(|| missing(format!("{at}.parameters")))?;
    let refuse = |why: &str| {
        Refusal::invalid(
            "invalid_function_parameters",
            format!("{at}.parameters"),
            format!("Invalid schema for function '{name}': {why}"),
        )
    };
    if schema["type"] != "object" {
        return Err(refuse(&format!(
            "schema must be a JSON Schema of 'type: \"object\"', got 'type: {}'.",
            schema["type"]
        )));
    }
    walk(schema, strict).map_err(|why| refuse(&why))
}

/// Checks `text.format`.
pub(super) fn format(format: &Map<String, Value>) -> Result<(), Refusal> {
    let at = "text.format";
    match string(at, format, "type")? {
        "text" => only_keys(at, format, &["type"]),
        "json_object" => only_keys(at, format, &["type"]),
        "json_schema" => {
            let known = ["type", "name", "description", "strict", "schema"];
            only_keys(at, format, &known)?;
            name(at, format, &mut Vec::new())?;
            let schema = format
                .get("schema")
                .ok_or_else(|| missing("text.format.schema"))?;
            let strict = format.get("strict") == Some(&Value::Bool(true));
            walk(schema, strict).map_err(|why| {
                Refusal::invalid(
                    "invalid_json_schema",
                    "text.format.schema",
                    format!("Invalid schema for response_format: {why}"),
                )
            })
        }
        _ => Err(wrong_value(
            "text.format.type",
            format.get("type").unwrap_or(&Value::Null),
            &["text", "json_object", "json_schema"],
        )),
    }
}

/// Walks a schema: patterns that the server's dialect does not know are refused everywhere, open
/// objects where the schema is strict.
fn walk(schema: &Value, strict: bool) -> Result<(), String> {
    match schema {
        Value::Array(list) => list.iter().try_for_each(|entry| walk(entry, strict)),
        Value::Object(map) => {
            if let Some(Value::String(pattern)) = map.get("pattern")
                && ["(?=", "(?!", "(?<"].iter().any(|it| pattern.contains(it))
            {
                return Err(format!("'{pattern}' is not a supported 'regex'."));
            }
            if strict && let Some(Value::Object(properties)) = map.get("properties") {
                if map.get("additionalProperties") != Some(&Value::Bool(false)) {
                    return Err("'additionalProperties' is required to be false.".to_owned());
                }
                let required = map.get("required").and_then(Value::as_array);
                let is_required = |name: &String| {
                    required.is_some_and(|list| list.iter().any(|entry| entry == name))
                };
                if let Some(name) = properties.keys().find(|name| !is_required(name)) {
                    return Err(format!("'required' is missing '{name}'."));
                }
            }
            map.iter()
                .try_for_each(|(key, entry)| match (key.as_str(), entry) {
                    // Names of properties are no keywords.
                    ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                        named.values().try_for_each(|entry| walk(entry, strict))
                    }
                    ("const" | "default" | "enum" | "examples", _) => Ok(()),
                    _ => walk(entry, strict),
                })
        }
        _ => Ok(()),
    }
}

/// Checks `tool_choice` against the names that are offered.
pub(super) fn choice(choice: &Value, offered: &[String]) -> Result<(), Refusal> {
    let known = ["auto", "none", "required"];
    match choice {
        Value::String(word) if word == "required" && offered.is_empty() => Err(Refusal::invalid(
            "invalid_value",
            "tool_choice",
            "Tool choice 'required' must be specified with 'tools' parameter.",
        )),
        Value::String(word) if known.contains(&word.as_str()) => Ok(()),
        Value::Object(map) => {
            let named = match string("tool_choice", map, "type")? {
                "function" | "custom" => {
                    only_keys("tool_choice", map, &["type", "name"])?;
                    vec![string("tool_choice", map, "name")?]
                }
                "allowed_tools" => {
                    only_keys("tool_choice", map, &["type", "mode", "tools"])?;
                    map.get("tools")
                        .and_then(Value::as_array)
                        .ok_or_else(|| missing("tool_choice.tools"))?
                        .iter()
                        .filter_map(|tool| tool["name"].as_str().or(tool["type"].as_str()))
                        .collect()
                }
                "web_search" => vec!["web_search"],
                _ => return Err(wrong_value("tool_choice", choice, &known)),
            };
            match named
                .iter()
                .find(|name| !offered.iter().any(|known| known == *name))
            {
                None => Ok(()),
                // Forcing a search that is not registered is a fault of the server upstream.
                Some(&"web_search") => Err(Refusal::detail(502, "Bad Gateway")),
                Some(name) => Err(Refusal::invalid(
                    "invalid_value",
                    "tool_choice",
                    format!("Tool choice '{name}' not found in 'tools' parameter."),
                )),
            }
        }
        _ => Err(wrong_value("tool_choice", choice, &known)),
    }
}
