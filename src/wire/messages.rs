//! Anthropic Messages: requests, as Claude Code sends them.
//!
//! Everything borrows from the body. Unknown fields and betas are ignored; a known field of the
//! wrong type is an error that names the place. Nothing here knows what upstream can take.

use std::borrow::Cow;

use crate::wire::blocks::Content;
use crate::wire::json::{Kind, Raw, Reader, Text};

pub use crate::wire::json::ParseError;

/// The body of `POST /v1/messages` or `…/count_tokens`, borrowed from the bytes received.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    /// The model's name as the client says it.
    pub model: Cow<'a, str>,
    /// Whether the answer is a stream; absent means no.
    pub stream: bool,
    /// The most tokens that the answer may have.
    pub max_tokens: Option<u64>,
    /// The base system prompt.
    pub system: Option<Content<'a>>,
    /// The conversation.
    pub messages: Vec<Message<'a>>,
    /// Tool definitions.
    pub tools: Tools<'a>,
    /// Which tool has to be called, if any.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// How much to think, in the older words.
    pub thinking: Option<Thinking<'a>>,
    /// Effort and format of the answer.
    pub output_config: OutputConfig<'a>,
    /// `metadata.user_id`, where the client puts the session.
    pub user_id: Option<Text<'a>>,
    /// `temperature`, if given.
    pub temperature: Option<Raw<'a>>,
    /// `top_p`, if given.
    pub top_p: Option<Raw<'a>>,
    /// `top_k`, if given.
    pub top_k: Option<Raw<'a>>,
    /// Texts at which the answer has to stop.
    pub stop_sequences: Vec<Cow<'a, str>>,
    /// Kinds of the edits that `context_management` asks for.
    pub context_edits: Vec<Cow<'a, str>>,
    /// Whether `safeguards` asks for a verdict on tool calls.
    pub safeguards: bool,
    /// Whether `speed` is `fast`.
    pub fast: bool,
    /// Length of the body in bytes.
    pub size_bytes: usize,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Content<'a>,
    /// Effort from this message on (`output_config.effort` of the message).
    pub effort: Option<Cow<'a, str>>,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person, and tools.
    User,
    /// The model.
    Assistant,
    /// The program around the model.
    System,
}

/// The tool definitions. They are large and seldom change, so they are only
/// read ([`Tools::list`]) by whoever needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tools<'a> {
    raw: Option<Raw<'a>>,
}

/// One tool definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool<'a> {
    /// `type`; absent for tools that the client runs.
    pub kind: Option<Cow<'a, str>>,
    /// What it is called.
    pub name: Text<'a>,
    /// What it does.
    pub description: Option<Text<'a>>,
    /// JSON Schema of its arguments, as written.
    pub schema: Option<Raw<'a>>,
    /// Whether it stays hidden until a `tool_reference` names it.
    pub defer_loading: bool,
    /// `allowed_domains` of a web search, as written.
    pub allowed_domains: Option<Raw<'a>>,
    /// `blocked_domains` of a web search, as written.
    pub blocked_domains: Option<Raw<'a>>,
    /// `max_uses` of a tool that the answering side runs, as written.
    pub max_uses: Option<Raw<'a>>,
    /// `user_location` of a web search, as written.
    pub user_location: Option<Raw<'a>>,
}

/// `tool_choice`.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolChoice<'a> {
    /// What is asked for.
    pub mode: ToolMode<'a>,
    /// Whether at most one tool may be called at a time.
    pub one_at_a_time: bool,
}

/// What `tool_choice` asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolMode<'a> {
    /// `auto`.
    Auto,
    /// `any`: some tool.
    Any,
    /// `none`.
    Never,
    /// `tool`: this one.
    Named(Text<'a>),
    /// Something that ccx does not know.
    Other(Cow<'a, str>),
}

/// `thinking`.
#[derive(Clone, Debug, PartialEq)]
pub struct Thinking<'a> {
    /// `enabled`, `adaptive`, `disabled` or what comes.
    pub kind: Cow<'a, str>,
    /// Tokens that thinking may take.
    pub budget_tokens: Option<u64>,
    /// Whether and how it is shown: `omitted`, `summarized`, `updates`.
    pub display: Option<Cow<'a, str>>,
}

/// `output_config`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputConfig<'a> {
    /// How hard the model should try.
    pub effort: Option<Cow<'a, str>>,
    /// The JSON Schema that the answer has to fit, as written.
    pub schema: Option<Raw<'a>>,
}

impl<'a> Request<'a> {
    /// Reads a body in one pass.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_knowing(body, &[])
    }

    /// As [`Request::parse`], only quicker if the body's tools are one of the lists in `tools`, which earlier bodies had:
    /// a list is half of many a request, and the same from turn to turn.
    pub fn parse_knowing(body: &'a [u8], tools: &[Raw<'_>]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(body)?;
        let mut model = None;
        let mut messages = None;
        let mut request = Self {
            model: Cow::Borrowed(""),
            stream: false,
            max_tokens: None,
            system: None,
            messages: Vec::new(),
            tools: Tools::default(),
            tool_choice: None,
            thinking: None,
            output_config: OutputConfig::default(),
            user_id: None,
            temperature: None,
            top_p: None,
            top_k: None,
            stop_sequences: Vec::new(),
            context_edits: Vec::new(),
            safeguards: false,
            fast: false,
            size_bytes: body.len(),
        };
        reader.object(|reader, key| {
            let into = &mut request;
            match key {
                "model" => model = Some(reader.string()?.value()),
                "messages" => messages = Some(read_messages(reader)?),
                "system" => into.system = present(reader, Content::read)?,
                "tools" => into.tools = Tools::read(reader, tools)?,
                "tool_choice" => into.tool_choice = present(reader, ToolChoice::read)?,
                "thinking" => into.thinking = present(reader, Thinking::read)?,
                "output_config" => {
                    if let Some(config) = present(reader, OutputConfig::read)? {
                        into.output_config.effort = config.effort;
                        into.output_config.schema = config.schema.or(into.output_config.schema);
                    }
                }
                // The older place of `output_config.format`.
                "output_format" => {
                    if let Some(schema) = present(reader, read_format)?.flatten() {
                        into.output_config.schema.get_or_insert(schema);
                    }
                }
                "stream" => into.stream = present(reader, Reader::bool)?.unwrap_or(false),
                "max_tokens" => into.max_tokens = present(reader, read_whole)?,
                "metadata" => into.user_id = present(reader, read_user_id)?.flatten(),
                "temperature" => into.temperature = present(reader, Reader::raw)?,
                "top_p" => into.top_p = present(reader, Reader::raw)?,
                "top_k" => into.top_k = present(reader, Reader::raw)?,
                "stop_sequences" => {
                    into.stop_sequences = present(reader, read_strings)?.unwrap_or_default();
                }
                "context_management" => {
                    into.context_edits = present(reader, read_edits)?.unwrap_or_default();
                }
                "safeguards" => into.safeguards = present(reader, Reader::raw)?.is_some(),
                "speed" => {
                    let speed = present(reader, Reader::string)?;
                    into.fast = speed.is_some_and(|speed| speed.value() == "fast");
                }
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        reader.end()?;
        request.model = model.ok_or_else(|| ParseError::missing("model"))?;
        request.messages = messages.ok_or_else(|| ParseError::missing("messages"))?;
        Ok(request)
    }

    /// Returns the client's session, which it puts into `metadata.user_id`: in a JSON string with a
    /// `session_id`, in older versions behind `_session_`.
    pub fn session_id(&self) -> Option<Cow<'_, str>> {
        #[derive(serde::Deserialize)]
        struct UserId<'a> {
            #[serde(borrow)]
            session_id: Option<Cow<'a, str>>,
        }
        let user_id = self.user_id?.value();
        let session = if user_id.starts_with('{') {
            serde_json::from_str::<UserId<'_>>(&user_id)
                .ok()?
                .session_id?
                .into_owned()
        } else {
            user_id.rsplit_once("_session_")?.1.to_owned()
        };
        (!session.is_empty()).then_some(Cow::Owned(session))
    }
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

fn read_messages<'a>(reader: &mut Reader<'a>) -> Result<Vec<Message<'a>>, ParseError> {
    let mut messages = Vec::new();
    reader.list(|reader| {
        messages.push(Message::read(reader)?);
        Ok(())
    })?;
    Ok(messages)
}

impl<'a> Message<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut role = None;
        let mut content = None;
        let mut effort = None;
        reader.object(|reader, key| {
            match key {
                "role" => {
                    role = Some(match reader.string()?.value().as_ref() {
                        "user" => Role::User,
                        "assistant" => Role::Assistant,
                        "system" => Role::System,
                        _ => return Err(ParseError::expected("user, assistant or system")),
                    });
                }
                "content" => content = Some(Content::read(reader)?),
                "output_config" => {
                    effort = present(reader, OutputConfig::read)?.and_then(|config| config.effort);
                }
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        Ok(Self {
            role: role.ok_or_else(|| ParseError::missing("role"))?,
            content: content.ok_or_else(|| ParseError::missing("content"))?,
            effort,
        })
    }
}

impl<'a> Tools<'a> {
    /// Returns the definitions as they were written; `None` if there are none.
    pub const fn raw(&self) -> Option<Raw<'a>> {
        self.raw
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.raw
            .is_none_or(|raw| raw.text()[1..].trim_start().starts_with(']'))
    }

    /// Reads the definitions. Errors say `tools.<index>.…`.
    pub fn list(&self) -> Result<Vec<Tool<'a>>, ParseError> {
        let mut tools = Vec::new();
        if let Some(raw) = self.raw {
            raw.reader()
                .list(|reader| {
                    tools.push(Tool::read(reader)?);
                    Ok(())
                })
                .map_err(|error| error.within("tools"))?;
        }
        Ok(tools)
    }

    fn read(reader: &mut Reader<'a>, known: &[Raw<'_>]) -> Result<Self, ParseError> {
        let raw = match known.iter().find_map(|known| reader.known(*known)) {
            Some(raw) => raw,
            None => reader.raw()?,
        };
        match raw.kind() {
            Kind::Null => Ok(Self::default()),
            Kind::List => Ok(Self { raw: Some(raw) }),
            _ => Err(ParseError::expected("an array")),
        }
    }
}

impl<'a> Tool<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut kind = None;
        let mut name = None;
        let mut description = None;
        let mut schema = None;
        let mut defer_loading = false;
        let mut allowed_domains = None;
        let mut blocked_domains = None;
        let mut max_uses = None;
        let mut user_location = None;
        reader.object(|reader, key| {
            match key {
                "type" => kind = present(reader, Reader::string)?.map(|kind| kind.value()),
                "name" => name = Some(reader.string()?),
                "description" => description = present(reader, Reader::string)?,
                "input_schema" => schema = present(reader, Reader::raw)?,
                "defer_loading" => {
                    defer_loading = present(reader, Reader::bool)?.unwrap_or(false);
                }
                "allowed_domains" => allowed_domains = present(reader, Reader::raw)?,
                "blocked_domains" => blocked_domains = present(reader, Reader::raw)?,
                "max_uses" => max_uses = present(reader, Reader::raw)?,
                "user_location" => user_location = present(reader, Reader::raw)?,
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        Ok(Self {
            kind,
            name: name.ok_or_else(|| ParseError::missing("name"))?,
            description,
            schema,
            defer_loading,
            allowed_domains,
            blocked_domains,
            max_uses,
            user_location,
        })
    }
}

impl<'a> ToolChoice<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut kind = None;
        let mut name = None;
        let mut one_at_a_time = false;
        reader.object(|reader, key| {
            match key {
                "type" => kind = Some(reader.string()?.value()),
                "name" => name = present(reader, Reader::string)?,
                "disable_parallel_tool_use" => {
                    one_at_a_time = present(reader, Reader::bool)?.unwrap_or(false);
                }
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        let kind = kind.ok_or_else(|| ParseError::missing("type"))?;
        let mode = match kind.as_ref() {
            "auto" => ToolMode::Auto,
            "any" => ToolMode::Any,
            "none" => ToolMode::Never,
            "tool" => ToolMode::Named(name.ok_or_else(|| ParseError::missing("name"))?),
            _ => ToolMode::Other(kind),
        };
        Ok(Self {
            mode,
            one_at_a_time,
        })
    }
}

impl<'a> Thinking<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut kind = None;
        let mut budget_tokens = None;
        let mut display = None;
        reader.object(|reader, key| {
            match key {
                "type" => kind = Some(reader.string()?.value()),
                "budget_tokens" => budget_tokens = present(reader, read_whole)?,
                "display" => display = present(reader, Reader::string)?.map(|text| text.value()),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        Ok(Self {
            kind: kind.ok_or_else(|| ParseError::missing("type"))?,
            budget_tokens,
            display,
        })
    }
}

impl<'a> OutputConfig<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut config = Self::default();
        reader.object(|reader, key| {
            match key {
                "effort" => {
                    config.effort = present(reader, Reader::string)?.map(|text| text.value());
                }
                "format" => config.schema = present(reader, read_format)?.flatten(),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        Ok(config)
    }
}

/// Reads `{"type":"json_schema","schema":…}`; another type has no schema.
fn read_format<'a>(reader: &mut Reader<'a>) -> Result<Option<Raw<'a>>, ParseError> {
    let mut schema = None;
    reader.object(|reader, key| {
        match key {
            "schema" => schema = present(reader, Reader::raw)?,
            _ => drop(reader.raw()?),
        }
        Ok(())
    })?;
    Ok(schema)
}

fn read_whole(reader: &mut Reader<'_>) -> Result<u64, ParseError> {
    reader
        .raw()?
        .text()
        .parse()
        .map_err(|_| ParseError::expected("a whole number that is not negative"))
}

fn read_user_id<'a>(reader: &mut Reader<'a>) -> Result<Option<Text<'a>>, ParseError> {
    let mut user_id = None;
    reader.object(|reader, key| {
        let value = reader.raw()?;
        if key == "user_id" {
            user_id = value.as_text();
        }
        Ok(())
    })?;
    Ok(user_id)
}

fn read_strings<'a>(reader: &mut Reader<'a>) -> Result<Vec<Cow<'a, str>>, ParseError> {
    let mut strings = Vec::new();
    reader.list(|reader| {
        strings.push(reader.string()?.value());
        Ok(())
    })?;
    Ok(strings)
}

/// Reads the `type` of every element of `edits`.
fn read_edits<'a>(reader: &mut Reader<'a>) -> Result<Vec<Cow<'a, str>>, ParseError> {
    let mut kinds = Vec::new();
    reader.object(|reader, key| {
        if key != "edits" {
            return reader.raw().map(drop);
        }
        reader.list(|reader| {
            reader.object(|reader, key| {
                let value = reader.raw()?;
                if key == "type" {
                    kinds.extend(value.as_text().map(|kind| kind.value()));
                }
                Ok(())
            })
        })
    })?;
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::blocks::Block;

    #[test]
    fn wrong_types_are_named_with_their_place() {
        let cases = [
            ("[]", "expected an object"),
            ("{}", "model: field is required"),
            (r#"{"model":"m"}"#, "messages: field is required"),
            (r#"{"model":1}"#, "model: expected a string"),
            (r#"{"stream":"yes"}"#, "stream: expected true or false"),
            (
                r#"{"max_tokens":-1}"#,
                "max_tokens: expected a whole number that is not negative",
            ),
            (r#"{"tools":{}}"#, "tools: expected an array"),
            (
                r#"{"messages":[{"role":"user","content":"x"},{"role":"boss"}]}"#,
                "messages.1.role: expected user, assistant or system",
            ),
            (
                r#"{"messages":[{"role":"user"}]}"#,
                "messages.0.content: field is required",
            ),
            (
                r#"{"messages":[{"content":3}]}"#,
                "messages.0.content: expected a string or an array of blocks",
            ),
            (
                r#"{"messages":[{"content":[{"type":"text","text":3}]}]}"#,
                "messages.0.content.0.text: expected a string",
            ),
            (
                r#"{"messages":[{"content":[{"text":"x"}]}]}"#,
                "messages.0.content.0.type: field is required",
            ),
            (
                r#"{"messages":[{"content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"image","source":{"type":"base64","data":"x"}}]}]}]}"#,
                "messages.0.content.0.content.0.source.media_type: field is required",
            ),
            (
                r#"{"messages":[{"content":[{"content":7,"type":"tool_result","tool_use_id":"a"}]}]}"#,
                "messages.0.content.0.content: expected a string or an array of blocks",
            ),
            (
                r#"{"messages":[{"content":[{"type":"tool_result","tool_use_id":"a","is_error":"no"}]}]}"#,
                "messages.0.content.0.is_error: expected true or false",
            ),
            (
                r#"{"thinking":{"type":"enabled","budget_tokens":"many"}}"#,
                "thinking.budget_tokens: expected a whole number that is not negative",
            ),
            (
                r#"{"tool_choice":{"type":"tool"}}"#,
                "tool_choice.name: field is required",
            ),
        ];
        for (body, expected) in cases {
            let error = Request::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{body}");
        }
    }

    #[test]
    fn what_is_unknown_is_tolerated() {
        let body = r#"{
            "model": "m", "new": {"a": [1]}, "betas": ["x"], "speed": "fast", "system": null, "tools": null,
            "messages": [{"role": "user", "id": 7, "content": [
                {"type": "new_block", "text": 3, "content": {"source": 1}},
                {"type": "text", "text": "t", "citations": null, "cache_control": {"type": "ephemeral"}}
            ]}],
            "metadata": {"user_id": 7}, "context_management": null, "tool_choice": {"type": "new"}
        }"#;
        let request = Request::parse(body.as_bytes()).unwrap();
        assert!(!request.stream);
        assert_eq!(request.session_id(), None);
        let Content::Blocks(blocks) = &request.messages[0].content else {
            panic!("blocks were read as text");
        };
        assert_eq!(blocks[0], Block::Other("new_block".into()));
        assert!(matches!(blocks[1], Block::Text(text) if text.escaped() == "t"));
    }

    #[test]
    fn the_order_of_fields_in_a_block_does_not_matter() {
        let read = |block: &str| {
            let body =
                format!(r#"{{"model":"m","messages":[{{"content":[{block}],"role":"user"}}]}}"#);
            format!("{:?}", Request::parse(body.as_bytes()).unwrap().messages)
        };
        assert_eq!(
            read(
                r#"{"type":"tool_result","tool_use_id":"a","content":[{"type":"text","text":"x"}],"is_error":true}"#
            ),
            read(
                r#"{"is_error":true,"content":[{"text":"x","type":"text"}],"tool_use_id":"a","type":"tool_result"}"#
            ),
        );
    }

    #[test]
    fn a_body_reads_alike_whether_its_tools_are_known_or_not() {
        let lists = [
            "null",
            "[]",
            "[ ]",
            r#"[{"name":"a"}]"#,
            r#"[{"name":"a"},{"name":"b"}]"#,
            r#"[{"name":"\ud83d"}]"#,
            r#"[{"name":"ä"}]"#,
        ];
        let body = |tools: &str, rest: &str| {
            format!(r#"{{"model":"m","tools": {tools}{rest},"messages":[]}}"#)
        };
        let sources = lists.map(|tools| body(tools, ""));
        let known: Vec<Raw<'_>> = sources
            .iter()
            .filter_map(|source| Request::parse(source.as_bytes()).unwrap().tools.raw())
            .collect();
        assert_eq!(known.len(), lists.len() - 1);
        for tools in lists
            .into_iter()
            .chain([r#"[{"name":"c"}]"#, "[", "5", "{}"])
        {
            for rest in ["", " ", "]", "x", r#","tools":[]"#] {
                let body = body(tools, rest);
                for cut in 0..=body.len() {
                    let bytes = &body.as_bytes()[..cut];
                    let plain = Request::parse(bytes);
                    assert_eq!(Request::parse_knowing(bytes, &known), plain, "{body} {cut}");
                }
            }
        }
    }

    #[test]
    fn no_tools_are_told_from_some() {
        for (tools, is_empty) in [
            ("null", true),
            ("[]", true),
            ("[ \n]", true),
            (r#"[{"name":"a"}]"#, false),
        ] {
            let body = format!(r#"{{"model":"m","messages":[],"tools":{tools}}}"#);
            let request = Request::parse(body.as_bytes()).unwrap();
            assert_eq!(request.tools.is_empty(), is_empty, "{tools}");
        }
    }

    #[test]
    fn the_session_is_found_in_both_forms() {
        let cases = [
            (
                r#""{\"device_id\":\"d\",\"session_id\":\"s-1\"}""#,
                Some("s-1"),
            ),
            (r#""user_0f_account__session_s-2""#, Some("s-2")),
            (r#""{\"session_id\":\"\"}""#, None),
            (r#""{\"session_id\":3}""#, None),
            (r#""somebody""#, None),
            ("null", None),
        ];
        for (user_id, expected) in cases {
            let body =
                format!(r#"{{"model":"m","messages":[],"metadata":{{"user_id":{user_id}}}}}"#);
            let request = Request::parse(body.as_bytes()).unwrap();
            assert_eq!(request.session_id().as_deref(), expected, "{user_id}");
        }
    }
}
