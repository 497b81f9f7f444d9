//! A request that is translated for the full lane becomes a chat request, for a lane that speaks nothing else.
//!
//! It begins where [`translate`](crate::translate::request::translate) ends: calls are paired with their results there,
//! documents and pictures are met, and losses counted.

use serde_json::{Map, Value, json};

use crate::translate::loss::Loss;

/// Stands where a tool returned a picture, which comes right behind.
const PICTURE: &str = "[picture, see the next message]";

/// Translates the body of a Responses request for the chat model `model`; adds what cannot be told to `losses`.
///
/// Fields of a wrong type count as absent: the body is our own.
pub fn translate(body: &[u8], model: &str, losses: &mut Vec<Loss>) -> Vec<u8> {
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut chat = Map::new();
    chat.insert("model".to_owned(), model.into());
    let mut history = History::default();
    for item in body["input"].as_array().into_iter().flatten() {
        history.add(item, losses);
    }
    history.show_pictures();
    chat.insert("messages".to_owned(), history.messages.into());
    let mut tools = Vec::new();
    for tool in body["tools"].as_array().into_iter().flatten() {
        if tool["type"] == "function" {
            tools.push(json!({"type": "function", "function": {
                "name": tool["name"],
                "description": tool["description"].as_str().unwrap_or_default(),
                "parameters": tool["parameters"],
            }}));
        } else {
            losses.push(Loss::dropped("hosted_tool"));
        }
    }
    if !tools.is_empty() {
        chat.insert("tools".to_owned(), tools.into());
        let choice = &body["tool_choice"];
        let choice = match (choice.as_str(), choice["name"].as_str()) {
            (Some(word), _) => word.into(),
            (None, Some(name)) => json!({"type": "function", "function": {"name": name}}),
            (None, None) => "auto".into(),
        };
        chat.insert("tool_choice".to_owned(), choice);
        if body["parallel_tool_calls"] == false {
            chat.insert("parallel_tool_calls".to_owned(), false.into());
        }
    }
    let format = &body["text"]["format"];
    if format["type"] == "json_schema" {
        let schema = json!({"type": "json_schema", "json_schema": {
            "name": format["name"], "strict": format["strict"], "schema": format["schema"],
        }});
        chat.insert("response_format".to_owned(), schema);
    }
    chat.insert("stream".to_owned(), true.into());
    chat.insert("stream_options".to_owned(), json!({"include_usage": true}));
    Value::Object(chat).to_string().into_bytes()
}

/// The messages so far.
#[derive(Default)]
struct History {
    messages: Vec<Value>,
    /// Pictures that tools returned: results must follow their calls, so pictures wait until all are there.
    pictures: Vec<Value>,
}

impl History {
    fn add(&mut self, item: &Value, losses: &mut Vec<Loss>) {
        match item["type"].as_str() {
            Some("message") => {
                self.show_pictures();
                self.message(item);
            }
            Some("function_call") => {
                self.show_pictures();
                let call = json!({"id": item["call_id"], "type": "function", "function":
                    {"name": item["name"], "arguments": item["arguments"]}});
                match self.messages.last_mut() {
                    Some(last) if last["role"] == "assistant" => match &mut last["tool_calls"] {
                        Value::Array(calls) => calls.push(call),
                        none => *none = json!([call]),
                    },
                    _ => self
                        .messages
                        .push(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
                }
            }
            Some("function_call_output") => {
                let content = self.output(&item["output"]);
                self.messages.push(
                    json!({"role": "tool", "tool_call_id": item["call_id"], "content": content}),
                );
            }
            // Only who made it can read it.
            Some("reasoning") => {}
            _ => losses.push(Loss::dropped("unknown_item")),
        }
    }

    fn message(&mut self, item: &Value) {
        let role = match item["role"].as_str() {
            Some("developer") => "system",
            Some("assistant") => "assistant",
            _ => "user",
        };
        let parts = item["content"].as_array().map_or(&[][..], Vec::as_slice);
        let only_text = parts.iter().all(|part| part["text"].is_string());
        let content = match only_text {
            true => {
                let texts: Vec<&str> = parts
                    .iter()
                    .filter_map(|part| part["text"].as_str())
                    .collect();
                Value::from(texts.join("\n\n"))
            }
            false => parts.iter().map(part).collect(),
        };
        self.messages
            .push(json!({"role": role, "content": content}));
    }

    /// Returns the text of what a tool returned.
    fn output(&mut self, output: &Value) -> String {
        let Some(parts) = output.as_array() else {
            return output.as_str().unwrap_or_default().to_owned();
        };
        let mut texts = Vec::new();
        for one in parts {
            match one["text"].as_str() {
                Some(text) => texts.push(text),
                None => {
                    texts.push(PICTURE);
                    self.pictures.push(part(one));
                }
            }
        }
        texts.join("\n")
    }

    fn show_pictures(&mut self) {
        if !self.pictures.is_empty() {
            let pictures = std::mem::take(&mut self.pictures);
            self.messages
                .push(json!({"role": "user", "content": pictures}));
        }
    }
}

/// Returns a part of a message in the words of chat.
fn part(part: &Value) -> Value {
    match part["type"].as_str() {
        Some("input_image") => {
            json!({"type": "image_url", "image_url": {"url": part["image_url"]}})
        }
        Some("input_file") => json!({"type": "file", "file":
            {"filename": part["filename"], "file_data": part["file_data"]}}),
        _ => json!({"type": "text", "text": part["text"].as_str().unwrap_or_default()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_messages_in_their_order() {
        let text = |kind: &str, text: &str| json!({"type": kind, "text": text});
        let image = "data:image/png;base64,AA";
        let body = json!({
            "model": "x", "input": [
                {"type": "message", "role": "developer", "content": [text("input_text", "Be"), text("input_text", "short.")]},
                {"type": "message", "role": "user", "content": [text("input_text", "see"), {"type": "input_image", "image_url": image}]},
                {"type": "reasoning", "encrypted_content": "x"},
                {"type": "message", "role": "assistant", "content": [text("output_text", "Looking.")]},
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_image", "image_url": image}]},
                {"type": "function_call_output", "call_id": "b", "output": "two"},
                {"type": "message", "role": "user", "content": [text("input_text", "go on")]}
            ],
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}, {"type": "web_search"}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "answer", "strict": false, "schema": {}}}
        });
        let mut losses = Vec::new();
        let chat = translate(body.to_string().as_bytes(), "z-ai/glm-5:free", &mut losses);
        let chat: Value = serde_json::from_slice(&chat).unwrap();
        assert_eq!(losses, [Loss::dropped("hosted_tool")]);
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let shown = json!({"type": "image_url", "image_url": {"url": image}});
        assert_eq!(
            chat,
            json!({
                "model": "z-ai/glm-5:free",
                "messages": [
                    {"role": "system", "content": "Be\n\nshort."},
                    {"role": "user", "content": [{"type": "text", "text": "see"}, shown]},
                    {"role": "assistant", "content": "Looking.", "tool_calls": [call("a"), call("b")]},
                    {"role": "tool", "tool_call_id": "a", "content": PICTURE},
                    {"role": "tool", "tool_call_id": "b", "content": "two"},
                    {"role": "user", "content": [shown]},
                    {"role": "user", "content": "go on"}
                ],
                "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": false, "schema": {}}},
                "stream": true, "stream_options": {"include_usage": true}
            })
        );
    }
}
