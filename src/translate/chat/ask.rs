//! A chat request becomes a Messages request.
//!
//! Texts, schemas and pictures are copied as they were escaped. The conversation keeps its order; results that follow each
//! other become one message, as the Messages API has them.

use crate::translate::loss::{Loss, Place};
use crate::translate::writer;
use crate::wire::chat::{Call, Format, Message, Part, Request, Role, Tool};
use crate::wire::json::{Kind, ParseError, Raw, Reader, Text};

/// A chat request in the words of the Messages API.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// The body of the Messages request.
    pub body: Vec<u8>,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
    /// What had to be left out on the way.
    pub losses: Vec<Loss>,
}

/// Translates a body.
///
/// # Errors
///
/// It cannot be read, or asks for something that no answer can be: several at once, sound, a kind of tool that there is
/// not.
pub fn translate(body: &[u8]) -> Result<Asked, ParseError> {
    let request = Request::parse(body)?;
    if request.count.is_some_and(|count| count.text() != "1") {
        return Err(ParseError::expected("1: there is one answer to a request").within("n"));
    }
    let mut losses: Vec<Loss> = request
        .without_place
        .iter()
        .map(|name| Loss::dropped(name))
        .collect();
    let mut body = Vec::with_capacity(body.len() + body.len() / 8 + 512);
    let out = &mut body;
    writer::json(out, r#"{"model":"#);
    writer::text(out, request.model.unwrap_or_default());
    writer::json(
        out,
        match request.stream {
            true => r#","stream":true"#,
            false => r#","stream":false"#,
        },
    );
    conversation(out, &request.messages);
    if !request.tools.is_empty() {
        writer::json(out, r#","tools":["#);
        let mut first = true;
        for (at, one) in request.tools.iter().enumerate() {
            writer::comma(out, &mut first);
            tool(out, one);
            if one.is_strict {
                losses.push(Loss::approximated("tool_strict").at(Place::Tool(at)));
            }
        }
        out.push(b']');
    }
    choice(out, &request, &mut losses)?;
    output(out, &request);
    if let Some(most) = request.most_tokens {
        writer::json(out, r#","max_tokens":"#);
        writer::raw(out, most);
    }
    if !request.stops.is_empty() {
        writer::json(out, r#","stop_sequences":["#);
        let mut first = true;
        for stop in &request.stops {
            writer::comma(out, &mut first);
            writer::text(out, *stop);
        }
        out.push(b']');
    }
    for (name, value) in [
        (r#","temperature":"#, request.temperature),
        (r#","top_p":"#, request.top_p),
    ] {
        // What the API does where nothing is said.
        let is_default = |value: &Raw<'_>| matches!(value.text(), "1" | "1.0");
        if let Some(value) = value.filter(|value| !is_default(value)) {
            writer::json(out, name);
            writer::raw(out, value);
        }
    }
    match request.service_tier.map(|tier| tier.value()).as_deref() {
        None | Some("auto" | "default") => {}
        Some("priority" | "fast") => writer::json(out, r#","speed":"fast""#),
        Some(_) => losses.push(Loss::dropped("service_tier")),
    }
    if let Some(key) = request.cache_key {
        writer::json(out, r#","metadata":{"user_id":"#);
        let id = serde_json::json!({ "session_id": key.value() });
        writer::string(out, &id.to_string());
        out.push(b'}');
    }
    out.push(b'}');
    Ok(Asked {
        body,
        include_usage: request.include_usage,
        losses,
    })
}

/// Writes `system` and `messages`. What is said first by the program stands outside the conversation, where it has one.
fn conversation(out: &mut Vec<u8>, messages: &[Message<'_>]) {
    let is_system = |message: &&Message<'_>| message.role == Role::System;
    let mut leading = messages.iter().take_while(is_system).count();
    if leading == messages.len() {
        leading = 0;
    }
    let (system, messages) = messages.split_at(leading);
    if !system.is_empty() {
        writer::json(out, r#","system":["#);
        let mut first = true;
        for message in system {
            parts(out, &message.parts, &mut first);
        }
        out.push(b']');
    }
    writer::json(out, r#","messages":["#);
    let mut first = true;
    let mut at = 0;
    while let Some(message) = messages.get(at) {
        writer::comma(out, &mut first);
        at += 1;
        let role = match message.role {
            Role::System => "system",
            Role::User | Role::Tool => "user",
            Role::Assistant => "assistant",
        };
        writer::json(out, r#"{"role":""#);
        writer::json(out, role);
        writer::json(out, r#"","content":["#);
        let mut first = true;
        if message.role == Role::Tool {
            result(out, message, &mut first);
            while let Some(next) = messages.get(at).filter(|next| next.role == Role::Tool) {
                result(out, next, &mut first);
                at += 1;
            }
        } else {
            parts(out, &message.parts, &mut first);
            for one in &message.calls {
                call(out, one, &mut first);
            }
        }
        if first {
            writer::json(out, r#"{"type":"text","text":""}"#);
        }
        writer::json(out, "]}");
    }
    out.push(b']');
}

fn parts(out: &mut Vec<u8>, parts: &[Part<'_>], first: &mut bool) {
    for part in parts {
        match part {
            Part::Text(text) if text.is_empty() => {}
            Part::Text(text) => {
                writer::comma(out, first);
                writer::json(out, r#"{"type":"text","text":"#);
                writer::text(out, *text);
                out.push(b'}');
            }
            Part::Image(url) => {
                writer::comma(out, first);
                writer::json(out, r#"{"type":"image","#);
                source(out, *url);
                out.push(b'}');
            }
            Part::File { data, name } => {
                writer::comma(out, first);
                writer::json(out, r#"{"type":"document","#);
                source(out, *data);
                if let Some(name) = name {
                    writer::json(out, r#","title":"#);
                    writer::text(out, *name);
                }
                out.push(b'}');
            }
        }
    }
}

/// Writes `"source":…` for an address or a data URL.
fn source(out: &mut Vec<u8>, url: Text<'_>) {
    let value = url.value();
    let inline = value.strip_prefix("data:").and_then(|rest| {
        let (head, data) = rest.split_once(',')?;
        Some((head.strip_suffix(";base64")?, data))
    });
    match inline {
        Some((media_type, data)) => {
            // Parameters say nothing that upstream needs.
            let media_type = media_type.split(';').next().unwrap_or_default();
            writer::json(out, r#""source":{"type":"base64","media_type":"#);
            writer::string(out, media_type);
            writer::json(out, r#","data":"#);
            writer::string(out, data);
        }
        None => {
            writer::json(out, r#""source":{"type":"url","url":"#);
            writer::text(out, url);
        }
    }
    out.push(b'}');
}

fn call(out: &mut Vec<u8>, call: &Call<'_>, first: &mut bool) {
    writer::comma(out, first);
    writer::json(out, r#"{"type":"tool_use","id":"#);
    writer::text(out, call.id);
    writer::json(out, r#","name":"#);
    writer::text(out, call.name);
    writer::json(out, r#","input":"#);
    let arguments = call.arguments.value();
    // What is no object is kept as the text that it is.
    match is_object(&arguments) {
        true => writer::json(out, &arguments),
        false => writer::text(out, call.arguments),
    }
    out.push(b'}');
}

fn is_object(json: &str) -> bool {
    let read = || {
        let mut reader = Reader::new(json.as_bytes()).ok()?;
        let value = reader.raw().ok()?;
        reader.end().ok()?;
        Some(value.kind() == Kind::Object && !value.is_broken())
    };
    read() == Some(true)
}

fn result(out: &mut Vec<u8>, message: &Message<'_>, first: &mut bool) {
    writer::comma(out, first);
    writer::json(out, r#"{"type":"tool_result","tool_use_id":"#);
    writer::text(out, message.answers.unwrap_or_default());
    writer::json(out, r#","content":["#);
    parts(out, &message.parts, &mut true);
    writer::json(out, "]}");
}

fn tool(out: &mut Vec<u8>, tool: &Tool<'_>) {
    writer::json(out, r#"{"name":"#);
    writer::text(out, tool.name);
    if let Some(description) = tool.description {
        writer::json(out, r#","description":"#);
        writer::text(out, description);
    }
    writer::json(out, r#","input_schema":"#);
    match tool.parameters {
        Some(schema) => writer::raw(out, schema),
        None => writer::json(out, r#"{"type":"object","properties":{}}"#),
    }
    out.push(b'}');
}

/// Writes `tool_choice`.
fn choice(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    losses: &mut Vec<Loss>,
) -> Result<(), ParseError> {
    let mut named = None;
    let mut mode = None;
    if let Some(choice) = request.tool_choice {
        let kind = match choice.as_text() {
            Some(word) => word.value().into_owned(),
            None => {
                let read = read_choice(choice).map_err(|error| error.within("tool_choice"))?;
                named = read.1;
                read.0
            }
        };
        mode = Some(match kind.as_str() {
            "auto" => "auto",
            "none" => "none",
            "required" => "any",
            "function" if named.is_some() => "tool",
            "allowed_tools" => {
                losses.push(Loss::approximated("tool_choice"));
                "auto"
            }
            _ => {
                return Err(
                    ParseError::expected("auto, none, required or a function's name")
                        .within("tool_choice"),
                );
            }
        });
    }
    let one_at_a_time = request.parallel_tool_calls == Some(false);
    if request.tools.is_empty() || (mode.is_none() && !one_at_a_time) {
        return Ok(());
    }
    writer::json(out, r#","tool_choice":{"type":""#);
    writer::json(out, mode.unwrap_or("auto"));
    out.push(b'"');
    if let (Some("tool"), Some(name)) = (mode, named) {
        writer::json(out, r#","name":"#);
        writer::text(out, name);
    }
    if one_at_a_time {
        writer::json(out, r#","disable_parallel_tool_use":true"#);
    }
    out.push(b'}');
    Ok(())
}

/// Reads the type of a choice that is an object, and the function that it names.
fn read_choice(choice: Raw<'_>) -> Result<(String, Option<Text<'_>>), ParseError> {
    let mut kind = String::new();
    let mut name = None;
    choice.reader().object(|reader, key| {
        match key {
            "type" => kind = reader.string()?.value().into_owned(),
            "function" => reader.object(|reader, key| {
                match key {
                    "name" => name = Some(reader.string()?),
                    _ => drop(reader.raw()?),
                }
                Ok(())
            })?,
            _ => drop(reader.raw()?),
        }
        Ok(())
    })?;
    Ok((kind, name))
}

/// Writes `output_config` and `thinking`. Who says how hard the model should think wants to see something of it.
fn output(out: &mut Vec<u8>, request: &Request<'_>) {
    let effort = request.reasoning_effort;
    if effort.is_none() && request.format == Format::Text {
        return;
    }
    if effort.is_some_and(|effort| effort.value() != "none") {
        writer::json(out, r#","thinking":{"type":"adaptive"}"#);
    }
    writer::json(out, r#","output_config":{"#);
    let mut first = true;
    if let Some(effort) = effort {
        writer::comma(out, &mut first);
        writer::json(out, r#""effort":"#);
        writer::text(out, effort);
    }
    if request.format != Format::Text {
        writer::comma(out, &mut first);
        writer::json(out, r#""format":{"type":"json_schema","schema":"#);
        match request.format {
            Format::Schema(schema) => writer::raw(out, schema),
            Format::Object | Format::Text => writer::json(out, r#"{"type":"object"}"#),
        }
        out.push(b'}');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages;
    use serde_json::{Value, json};

    fn asked(body: &Value) -> (Value, Vec<Loss>) {
        let asked = translate(body.to_string().as_bytes()).unwrap();
        assert!(messages::Request::parse(&asked.body).is_ok());
        (serde_json::from_slice(&asked.body).unwrap(), asked.losses)
    }

    #[test]
    fn a_conversation_with_calls_and_pictures() {
        let (body, losses) = asked(&json!({
            "model": "gpt-x",
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
                {"role": "user", "content": [
                    {"type": "text", "text": "Look \"here\""},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}}
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{\"x\":1}"}},
                    {"id": "c2", "type": "function", "function": {"name": "b", "arguments": "no json"}},
                    {"id": "c3", "type": "function", "function": {"name": "b", "arguments": ""}}
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "one"},
                {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
                {"role": "system", "content": "Hurry."}
            ]
        }));
        assert_eq!(losses, []);
        assert_eq!(
            body,
            json!({
                "model": "gpt-x",
                "stream": false,
                "system": [{"type": "text", "text": "Be short."}, {"type": "text", "text": "Be kind."}],
                "messages": [
                    {"role": "user", "content": [
                        {"type": "text", "text": "Look \"here\""},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                        {"type": "document", "source":
                            {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}, "title": "a.pdf"}
                    ]},
                    {"role": "assistant", "content": [
                        {"type": "tool_use", "id": "c1", "name": "a", "input": {"x": 1}},
                        {"type": "tool_use", "id": "c2", "name": "b", "input": "no json"},
                        {"type": "tool_use", "id": "c3", "name": "b", "input": ""}
                    ]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]},
                        {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]}
                    ]},
                    {"role": "system", "content": [{"type": "text", "text": "Hurry."}]}
                ]
            })
        );
    }

    #[test]
    fn what_is_asked_beside_the_conversation() {
        let (body, losses) = asked(&json!({
            "model": "m", "stream": true, "messages": [{"role": "system", "content": "hi"}],
            "stream_options": {"include_usage": true},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": false,
            "response_format": {"type": "json_object"},
            "reasoning_effort": "high",
            "max_tokens": 5, "max_completion_tokens": 7,
            "stop": "END", "temperature": 1, "top_p": 0.5, "n": 1, "seed": 7,
            "service_tier": "priority", "prompt_cache_key": "k-1", "user": "somebody"
        }));
        assert_eq!(
            losses,
            [
                Loss::dropped("seed"),
                Loss::approximated("tool_strict").at(Place::Tool(0))
            ]
        );
        assert_eq!(
            body,
            json!({
                "model": "m", "stream": true,
                "messages": [{"role": "system", "content": [{"type": "text", "text": "hi"}]}],
                "tools": [{"name": "f", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
                "thinking": {"type": "adaptive"},
                "output_config": {"effort": "high",
                    "format": {"type": "json_schema", "schema": {"type": "object"}}},
                "max_tokens": 7,
                "stop_sequences": ["END"],
                "top_p": 0.5,
                "speed": "fast",
                "metadata": {"user_id": "{\"session_id\":\"k-1\"}"}
            })
        );
    }

    #[test]
    fn several_answers_are_refused() {
        let body = json!({"model": "m", "messages": [], "n": 2}).to_string();
        let error = translate(body.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("n: "), "{error}");
    }
}
