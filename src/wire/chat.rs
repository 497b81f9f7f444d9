//! OpenAI chat completions: requests, as clients of that API send them, and the envelope of its errors.
//!
//! Everything borrows from the body. Unknown fields are ignored; a known field of the wrong type is an error that names
//! the place. What upstream can take is decided elsewhere.

use std::borrow::Cow;

use crate::wire::json::{Kind, ParseError, Raw, Reader, Text};

/// The body of `POST /v1/chat/completions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'a> {
    /// The model's name as the client says it.
    pub model: Option<Text<'a>>,
    /// The conversation.
    pub messages: Vec<Message<'a>>,
    /// Whether the answer is a stream; absent means no.
    pub stream: bool,
    /// Whether the stream ends with the usage.
    pub include_usage: bool,
    /// What may be called.
    pub tools: Vec<Tool<'a>>,
    /// Which tool has to be called, as written.
    pub tool_choice: Option<Raw<'a>>,
    /// Whether several may be called at a time, where that is said.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    pub format: Format<'a>,
    /// How hard the model should try.
    pub reasoning_effort: Option<Text<'a>>,
    /// The most tokens that the answer may have, as written: `max_completion_tokens`, else `max_tokens`.
    pub most_tokens: Option<Raw<'a>>,
    /// Texts at which the answer has to stop.
    pub stops: Vec<Text<'a>>,
    /// `temperature`, as written.
    pub temperature: Option<Raw<'a>>,
    /// `top_p`, as written.
    pub top_p: Option<Raw<'a>>,
    /// How many answers are wanted, as written.
    pub count: Option<Raw<'a>>,
    /// What the prompt cache goes by.
    pub cache_key: Option<Text<'a>>,
    /// How fast it should go.
    pub service_tier: Option<Text<'a>>,
    /// Names of fields that are set to something and for which upstream has no place.
    pub without_place: Vec<&'static str>,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Who says it.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part<'a>>,
    /// The calls of an assistant.
    pub calls: Vec<Call<'a>>,
    /// The call that a tool answers.
    pub answers: Option<Text<'a>>,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `system` and `developer`.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a call.
    Tool,
}

/// A part of what a message says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// A text, also that of a refusal.
    Text(Text<'a>),
    /// A picture: an address or a data URL.
    Image(Text<'a>),
    /// A file.
    File {
        /// A data URL.
        data: Text<'a>,
        /// What it is called.
        name: Option<Text<'a>>,
    },
}

/// A call of a tool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call<'a> {
    /// Identity of the call.
    pub id: Text<'a>,
    /// Name of the tool.
    pub name: Text<'a>,
    /// The arguments: JSON in a string.
    pub arguments: Text<'a>,
}

/// A tool that may be called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tool<'a> {
    /// What it is called.
    pub name: Text<'a>,
    /// What it does.
    pub description: Option<Text<'a>>,
    /// JSON Schema of its arguments, as written.
    pub parameters: Option<Raw<'a>>,
    /// Whether the arguments must keep to the schema.
    pub is_strict: bool,
}

/// `response_format`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Format<'a> {
    /// Plain text.
    #[default]
    Text,
    /// Some JSON object.
    Object,
    /// What fits this JSON Schema.
    Schema(Raw<'a>),
}

/// Fields for which upstream has no place, each with how it is written where it asks for nothing.
const WITHOUT_PLACE: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("frequency_penalty", &["0", "0.0"]),
    ("logit_bias", &["{}"]),
    ("logprobs", &["false"]),
    ("modalities", &[r#"["text"]"#]),
    ("prediction", &[]),
    ("presence_penalty", &["0", "0.0"]),
    ("seed", &[]),
    ("store", &["false"]),
    ("top_logprobs", &["0"]),
    ("verbosity", &[]),
    ("web_search_options", &[]),
];

impl<'a> Request<'a> {
    /// Reads a body in one pass.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(body)?;
        let mut request = Self::default();
        let mut has_messages = false;
        let (mut most, mut most_older) = (None, None);
        reader.object(|reader, key| {
            let into = &mut request;
            match key {
                "model" => into.model = Some(reader.string()?),
                "messages" => {
                    has_messages = true;
                    reader.list(|reader| {
                        into.messages.push(Message::read(reader)?);
                        Ok(())
                    })?;
                }
                "stream" => into.stream = present(reader, Reader::bool)?.unwrap_or(false),
                "stream_options" => {
                    present(reader, |reader| {
                        reader.object(|reader, key| match key {
                            "include_usage" => {
                                let value = present(reader, Reader::bool)?;
                                into.include_usage = value.unwrap_or(false);
                                Ok(())
                            }
                            _ => reader.raw().map(drop),
                        })
                    })?;
                }
                "tools" => {
                    present(reader, |reader| {
                        reader.list(|reader| {
                            into.tools.push(Tool::read(reader)?);
                            Ok(())
                        })
                    })?;
                }
                "tool_choice" => into.tool_choice = present(reader, Reader::raw)?,
                "parallel_tool_calls" => {
                    into.parallel_tool_calls = present(reader, Reader::bool)?;
                }
                "response_format" => {
                    into.format = present(reader, Format::read)?.unwrap_or_default();
                }
                "reasoning_effort" => into.reasoning_effort = present(reader, Reader::string)?,
                "max_completion_tokens" => most = present(reader, Reader::raw)?,
                "max_tokens" => most_older = present(reader, Reader::raw)?,
                "stop" => match reader.kind()? {
                    Kind::Text => into.stops = vec![reader.string()?],
                    Kind::Null => drop(reader.raw()?),
                    _ => reader.list(|reader| {
                        into.stops.push(reader.string()?);
                        Ok(())
                    })?,
                },
                "temperature" => into.temperature = present(reader, Reader::raw)?,
                "top_p" => into.top_p = present(reader, Reader::raw)?,
                "n" => into.count = present(reader, Reader::raw)?,
                "prompt_cache_key" => into.cache_key = present(reader, Reader::string)?,
                "service_tier" => into.service_tier = present(reader, Reader::string)?,
                "functions" | "function_call" => {
                    if present(reader, Reader::raw)?.is_some() {
                        return Err(ParseError::expected(
                            "left out: `tools` has taken its place",
                        ));
                    }
                }
                other => {
                    let value = reader.raw()?;
                    let known = WITHOUT_PLACE.iter().find(|(name, _)| *name == other);
                    if let Some((name, nothing)) = known
                        && value.kind() != Kind::Null
                        && !nothing.contains(&value.text())
                    {
                        into.without_place.push(name);
                    }
                }
            }
            Ok(())
        })?;
        reader.end()?;
        request.most_tokens = most.or(most_older);
        if !has_messages {
            return Err(ParseError::missing("messages"));
        }
        if request.model.is_none() {
            return Err(ParseError::missing("model"));
        }
        Ok(request)
    }
}

impl<'a> Message<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut role = None;
        let mut message = Self {
            role: Role::User,
            parts: Vec::new(),
            calls: Vec::new(),
            answers: None,
        };
        reader.object(|reader, key| {
            match key {
                "role" => {
                    role = Some(match reader.string()?.value().as_ref() {
                        "system" | "developer" => Role::System,
                        "user" => Role::User,
                        "assistant" => Role::Assistant,
                        "tool" => Role::Tool,
                        _ => {
                            return Err(ParseError::expected(
                                "system, developer, user, assistant or tool",
                            ));
                        }
                    });
                }
                "content" => match reader.kind()? {
                    Kind::Null => drop(reader.raw()?),
                    Kind::Text => message.parts.push(Part::Text(reader.string()?)),
                    _ => reader.list(|reader| {
                        message.parts.push(Part::read(reader)?);
                        Ok(())
                    })?,
                },
                "refusal" => {
                    let text = present(reader, Reader::string)?;
                    message.parts.extend(text.map(Part::Text));
                }
                "tool_calls" => {
                    present(reader, |reader| {
                        reader.list(|reader| {
                            message.calls.push(Call::read(reader)?);
                            Ok(())
                        })
                    })?;
                }
                "tool_call_id" => message.answers = present(reader, Reader::string)?,
                "function_call" => {
                    if present(reader, Reader::raw)?.is_some() {
                        return Err(ParseError::expected(
                            "left out: `tool_calls` has taken its place",
                        ));
                    }
                }
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        message.role = role.ok_or_else(|| ParseError::missing("role"))?;
        if message.role == Role::Tool && message.answers.is_none() {
            return Err(ParseError::missing("tool_call_id"));
        }
        Ok(message)
    }
}

impl<'a> Part<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut kind: Option<Cow<'a, str>> = None;
        let mut text = None;
        let (mut image, mut file) = (None, None);
        reader.object(|reader, key| {
            match key {
                "type" => kind = Some(reader.string()?.value()),
                "text" | "refusal" => text = present(reader, Reader::string)?.or(text),
                "image_url" => image = Some(reader.raw()?),
                "file" => file = Some(reader.raw()?),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        let kind = kind.ok_or_else(|| ParseError::missing("type"))?;
        let missing = |name| move || ParseError::missing(name);
        match kind.as_ref() {
            "text" | "refusal" => text.map(Self::Text).ok_or_else(missing("text")),
            "image_url" => {
                let value: Raw<'a> = image.ok_or_else(missing("image_url"))?;
                // Some clients write the address alone.
                let url = match value.as_text() {
                    Some(url) => Some(url),
                    None => field(value, "url").map_err(|error| error.within("image_url"))?,
                };
                let url = url.ok_or_else(|| ParseError::missing("image_url.url"))?;
                Ok(Self::Image(url))
            }
            "file" => {
                let value: Raw<'a> = file.ok_or_else(missing("file"))?;
                let read = |name| field(value, name).map_err(|error| error.within("file"));
                let data = read("file_data")?;
                Ok(Self::File {
                    data: data.ok_or_else(|| ParseError::missing("file.file_data"))?,
                    name: read("filename")?,
                })
            }
            _ => Err(ParseError::expected("text, image_url or file").within("type")),
        }
    }
}

impl<'a> Call<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut id = None;
        let mut function = None;
        reader.object(|reader, key| {
            match key {
                "id" => id = Some(reader.string()?),
                "function" => function = Some(reader.raw()?),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        let function: Raw<'a> = function.ok_or_else(|| ParseError::missing("function"))?;
        let read = |name| field(function, name).map_err(|error| error.within("function"));
        Ok(Self {
            id: id.ok_or_else(|| ParseError::missing("id"))?,
            name: read("name")?.ok_or_else(|| ParseError::missing("function.name"))?,
            arguments: read("arguments")?.unwrap_or_default(),
        })
    }
}

impl<'a> Tool<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut function = None;
        reader.object(|reader, key| {
            match key {
                "type" => {
                    if reader.string()?.value() != "function" {
                        return Err(ParseError::expected("function"));
                    }
                }
                "function" => function = Some(reader.raw()?),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        let function: Raw<'a> = function.ok_or_else(|| ParseError::missing("function"))?;
        let mut name = None;
        let (mut description, mut parameters, mut is_strict) = (None, None, false);
        let read = function.reader().object(|reader, key| {
            match key {
                "name" => name = Some(reader.string()?),
                "description" => description = present(reader, Reader::string)?,
                "parameters" => parameters = present(reader, Reader::raw)?,
                "strict" => is_strict = present(reader, Reader::bool)?.unwrap_or(false),
                _ => drop(reader.raw()?),
            }
            Ok(())
        });
        read.map_err(|error| error.within("function"))?;
        Ok(Self {
            name: name.ok_or_else(|| ParseError::missing("function.name"))?,
            description,
            parameters,
            is_strict,
        })
    }
}

impl<'a> Format<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut kind: Option<Cow<'a, str>> = None;
        let mut schema = None;
        reader.object(|reader, key| {
            match key {
                "type" => kind = Some(reader.string()?.value()),
                "json_schema" => {
                    present(reader, |reader| {
                        reader.object(|reader, key| {
                            match key {
                                "schema" => schema = present(reader, Reader::raw)?,
                                _ => drop(reader.raw()?),
                            }
                            Ok(())
                        })
                    })?;
                }
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        match kind.as_deref() {
            Some("text") => Ok(Self::Text),
            Some("json_object") => Ok(Self::Object),
            Some("json_schema") => schema
                .map(Self::Schema)
                .ok_or_else(|| ParseError::missing("json_schema.schema")),
            Some(_) => Err(ParseError::expected("text, json_object or json_schema").within("type")),
            None => Err(ParseError::missing("type")),
        }
    }
}

/// Reads the field `name` of an object: a string, or nothing.
fn field<'a>(object: Raw<'a>, name: &str) -> Result<Option<Text<'a>>, ParseError> {
    let mut found = None;
    object.reader().object(|reader, key| {
        if key == name {
            found = present(reader, Reader::string)?;
        } else {
            reader.raw()?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Reads a value with `read`, unless it is `null`.
fn present<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, ParseError>,
) -> Result<Option<T>, ParseError> {
    if reader.kind()? == Kind::Null {
        reader.raw()?;
        return Ok(None);
    }
    read(reader).map(Some)
}

/// Writes `{"error":{"message","type","param","code"}}`.
pub fn error_body(kind: &str, code: Option<&str>, message: &str) -> Vec<u8> {
    serde_json::json!({
        "error": {"message": message, "type": kind, "param": null, "code": code},
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        Request::parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_place() {
        for (body, said) in [
            (r#"{"messages":[]}"#, "model"),
            (r#"{"model":"m"}"#, "messages"),
            (
                r#"{"model":"m","messages":[{"role":"tool","content":"x"}]}"#,
                "messages.0.tool_call_id",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio"}]}]}"#,
                "messages.0.content.0.type",
            ),
            (
                r#"{"model":"m","messages":[],"tools":[{"type":"custom"}]}"#,
                "tools.0.type",
            ),
            (r#"{"model":"m","messages":[],"functions":[]}"#, "functions"),
            (
                r#"{"model":"m","messages":[],"response_format":{"type":"json_schema"}}"#,
                "response_format.json_schema.schema",
            ),
            (r#"{"model":"m","messages":[]"#, "}"),
        ] {
            let found = refused(body);
            assert!(found.contains(said), "{body}: {found}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_nothing() {
        let body =
            br#"{"model":"m","messages":[],"frequency_penalty":0,"seed":null,"logprobs":false,
            "store":true,"logit_bias":{"1":2},"modalities":["text"],"whatever":[1]}"#;
        let request = Request::parse(body).unwrap();
        assert_eq!(request.without_place, ["store", "logit_bias"]);
    }
}
