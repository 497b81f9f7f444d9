//! A Responses request becomes one that upstream takes on a ChatGPT plan.
//!
//! Items, tools and schemas are copied as they were written, but for what is refused (contract chatgpt-codex §3 to §5): ids of
//! items that were never stored, the role `system`, plain strings in place of lists, and the fields that have no place.

use std::borrow::Cow;

use crate::catalogue::knobs::Knobs;
use crate::catalogue::model::{Effort, Lane, Model};
use crate::translate::ids::call_id;
use crate::translate::loss::Loss;
use crate::translate::writer;
use crate::wire::json::{Kind, ParseError, Raw, Reader, Text};

/// Stands in for instructions: upstream wants some.
const NO_INSTRUCTIONS: &str = "You are a helpful assistant.";

/// The longest key of the prompt cache that upstream takes, in bytes.
const LONGEST_KEY: usize = 64;

/// What upstream may include in an answer.
const ENCRYPTED: &str = "reasoning.encrypted_content";

/// Fields that have no place upstream, each with how it is written where it asks for nothing.
const WITHOUT_PLACE: &[(&str, &[&str])] = &[
    ("max_output_tokens", &[]),
    ("max_tool_calls", &[]),
    ("temperature", &["1", "1.0"]),
    ("top_logprobs", &["0"]),
    ("top_p", &["1", "1.0"]),
    ("truncation", &["\"disabled\""]),
];

/// A request, read as far as ccx has to know it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The model's name as the client says it.
    pub model: Text<'a>,
    /// Whether the answer is a stream; absent means no.
    pub stream: bool,
    /// What the prompt cache goes by.
    pub cache_key: Option<Text<'a>>,
    /// How fast it should go.
    pub service_tier: Option<Text<'a>>,
    input: Raw<'a>,
    instructions: Option<Text<'a>>,
    tools: Vec<Raw<'a>>,
    tool_choice: Option<Raw<'a>>,
    parallel_tool_calls: Option<bool>,
    reasoning: Option<Raw<'a>>,
    text: Option<Raw<'a>>,
    client_metadata: Option<Raw<'a>>,
    losses: Vec<Loss>,
    size_bytes: usize,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The catalogue entry of the model.
    pub model: &'a Model,
    /// The form of the request: see [`Request::lane`].
    pub lane: Lane,
    /// The conversation.
    pub conversation: &'a str,
    /// `service_tier` to ask for.
    pub tier: Option<&'a str>,
    /// What the person has set.
    pub knobs: Knobs,
}

impl<'a> Request<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// It cannot be read, or asks for what upstream keeps of earlier answers: it keeps nothing.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(body)?;
        let (mut model, mut input) = (None, None);
        let mut request = Self {
            model: Text::default(),
            stream: false,
            cache_key: None,
            service_tier: None,
            input: Raw::known("[]"),
            instructions: None,
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            reasoning: None,
            text: None,
            client_metadata: None,
            losses: Vec::new(),
            size_bytes: body.len(),
        };
        reader.object(|reader, key| {
            let into = &mut request;
            match key {
                "model" => model = Some(reader.string()?),
                "input" => input = Some(reader.raw()?),
                "stream" => into.stream = present(reader, Reader::bool)?.unwrap_or(false),
                "prompt_cache_key" => into.cache_key = present(reader, Reader::string)?,
                "service_tier" => into.service_tier = present(reader, Reader::string)?,
                "instructions" => into.instructions = present(reader, Reader::string)?,
                "tools" => {
                    present(reader, |reader| {
                        reader.list(|reader| {
                            into.tools.push(reader.raw()?);
                            Ok(())
                        })
                    })?;
                }
                "tool_choice" => into.tool_choice = present(reader, Reader::raw)?,
                "parallel_tool_calls" => {
                    into.parallel_tool_calls = present(reader, Reader::bool)?;
                }
                "reasoning" => into.reasoning = object(reader)?,
                "text" => into.text = object(reader)?,
                "client_metadata" => into.client_metadata = object(reader)?,
                "include" => {
                    present(reader, |reader| {
                        reader.list(|reader| {
                            if reader.string()?.value() != ENCRYPTED {
                                into.losses.push(Loss::dropped("include"));
                            }
                            Ok(())
                        })
                    })?;
                }
                "previous_response_id" | "conversation" | "prompt" => {
                    if present(reader, Reader::raw)?.is_some() {
                        return Err(ParseError::expected(
                            "left out: nothing is stored on a ChatGPT plan, so `input` has to hold the whole conversation",
                        ));
                    }
                }
                "background" => {
                    if present(reader, Reader::bool)? == Some(true) {
                        return Err(ParseError::expected(
                            "false: nothing is stored on a ChatGPT plan",
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
                        into.losses.push(Loss::dropped(name));
                    }
                }
            }
            Ok(())
        })?;
        reader.end()?;
        request.model = model.ok_or_else(|| ParseError::missing("model"))?;
        request.input = input.ok_or_else(|| ParseError::missing("input"))?;
        if !matches!(request.input.kind(), Kind::Text | Kind::List) {
            return Err(ParseError::expected("a string or an array").within("input"));
        }
        Ok(request)
    }

    /// Returns what stays the same however long the conversation grows: the instructions, and the items up to the first
    /// thing that the person says, as they were written.
    pub fn beginning(&self) -> Vec<&'a str> {
        let instructions = self.instructions.map_or("", |text| text.escaped());
        let mut beginning = vec![instructions];
        if self.input.kind() == Kind::Text {
            beginning.push(self.input.text());
        }
        let mut has_asked = false;
        // What is no item is told later.
        let _ = self.items(|item| {
            if !has_asked {
                beginning.push(item.text());
                has_asked = role_of(item).is_some_and(|role| role == "user");
            }
            Ok(())
        });
        beginning
    }

    /// Returns the type of the last item; empty if that is a message, or there is none.
    pub fn last_kind(&self) -> String {
        let mut last = String::new();
        let _ = self.items(|item| {
            last = kind_of(item);
            Ok(())
        });
        match last.as_str() {
            "message" => String::new(),
            _ => last,
        }
    }

    /// Says which form of a request `model` is sent: `wanted`, unless its tools are run by upstream, for which there is no
    /// place on the lite lane.
    pub fn lane(&self, model: &Model, wanted: Lane) -> Lane {
        let has_hosted = self.tools.iter().any(|tool| !is_lite_tool(&kind_of(*tool)));
        match has_hosted && model.has_full_lane() {
            true => Lane::Full,
            false => wanted,
        }
    }

    fn items(
        &self,
        mut each: impl FnMut(Raw<'a>) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        if self.input.kind() != Kind::List {
            return Ok(());
        }
        self.input
            .reader()
            .list(|reader| each(reader.raw()?))
            .map_err(|error| error.within("input"))
    }

    /// Writes what upstream is sent, and says what it is not told.
    ///
    /// # Errors
    ///
    /// An item is not what it must be.
    pub fn translate(&self, target: &Target<'_>) -> Result<(Vec<u8>, Vec<Loss>), ParseError> {
        let mut losses = self.losses.clone();
        let mut body = Vec::with_capacity(self.size_bytes + self.size_bytes / 16 + 1_024);
        let out = &mut body;
        writer::json(out, r#"{"model":"#);
        writer::string(out, &target.model.slug);
        writer::json(out, r#","stream":true"#);
        if let Some(tier) = target.tier {
            writer::json(out, r#","service_tier":"#);
            writer::string(out, tier);
        }
        writer::json(out, r#","input":["#);
        let has_tools = self.input_items(out, target, &mut losses)?;
        out.push(b']');
        if has_tools && target.lane == Lane::Full {
            writer::json(out, r#","tools":["#);
            list(out, self.tools.iter().copied());
            out.push(b']');
        }
        if let Some(choice) = self.tool_choice.filter(|_| has_tools) {
            writer::json(out, r#","tool_choice":"#);
            writer::raw(out, choice);
        }
        match (target.lane, self.parallel_tool_calls) {
            (Lane::Lite, _) => writer::json(out, r#","parallel_tool_calls":false"#),
            (Lane::Full, Some(false)) if has_tools => {
                writer::json(out, r#","parallel_tool_calls":false"#);
            }
            (Lane::Full, _) if has_tools => writer::json(out, r#","parallel_tool_calls":true"#),
            (Lane::Full, _) => {}
        }
        self.reasoning(out, target, &mut losses)?;
        writer::json(
            out,
            r#","store":false,"include":["reasoning.encrypted_content"],"prompt_cache_key":"#,
        );
        match self.cache_key.map(|key| key.value()) {
            Some(key) if !key.is_empty() && key.len() <= LONGEST_KEY => writer::string(out, &key),
            _ => writer::string(out, target.conversation),
        }
        self.text(out, target)?;
        if let Some(metadata) = self.client_metadata {
            writer::json(out, r#","client_metadata":"#);
            writer::raw(out, metadata);
        }
        out.push(b'}');
        Ok((body, losses))
    }

    /// Returns how hard the model is asked to think: what is set, else what is asked for, else the model's default, each as
    /// far as the model goes.
    pub fn effort(&self, target: &Target<'_>) -> Option<Effort> {
        let (model, knobs) = (target.model, target.knobs);
        let asked = self.reasoning.and_then(|value| text_of(value, "effort"));
        let asked = asked.and_then(|name| Effort::parse(&name.value()));
        let wanted = knobs.effort.value().or(asked).or(model.default_effort)?;
        Some(model.clamp(knobs.bounded(wanted)))
    }

    /// Writes the input; says whether there are tools.
    fn input_items(
        &self,
        out: &mut Vec<u8>,
        target: &Target<'_>,
        losses: &mut Vec<Loss>,
    ) -> Result<bool, ParseError> {
        let mut first = true;
        let mut has_tools = !self.tools.is_empty();
        if target.lane == Lane::Lite && has_tools {
            let kept = |tool: &Raw<'a>| is_lite_tool(&kind_of(*tool));
            let tools: Vec<Raw<'a>> = self.tools.iter().copied().filter(kept).collect();
            let lost = self.tools.len() - tools.len();
            losses.extend((0..lost).map(|_| Loss::dropped("hosted_tool")));
            has_tools = !tools.is_empty();
            if has_tools {
                writer::comma(out, &mut first);
                writer::json(
                    out,
                    r#"{"type":"additional_tools","role":"developer","tools":["#,
                );
                list(out, tools.into_iter());
                writer::json(out, "]}");
            }
        }
        let (mut is_instructed, mut brings_tools) = (self.instructions.is_some(), false);
        self.items(|item| {
            brings_tools |= kind_of(item) == "additional_tools";
            is_instructed |= role_of(item).is_some_and(|role| is_program(&role));
            Ok(())
        })?;
        if let Some(text) = self.instructions {
            message(out, "developer", text, &mut first);
        } else if !is_instructed {
            writer::comma(out, &mut first);
            writer::json(
                out,
                r#"{"type":"message","role":"developer","content":[{"type":"input_text","text":"#,
            );
            writer::string(out, NO_INSTRUCTIONS);
            writer::json(out, "}]}");
        }
        if let Some(text) = self.input.as_text() {
            message(out, "user", text, &mut first);
        }
        self.items(|one| item(out, one, target.lane, &mut first, losses))?;
        Ok(has_tools || brings_tools)
    }

    fn reasoning(
        &self,
        out: &mut Vec<u8>,
        target: &Target<'_>,
        losses: &mut Vec<Loss>,
    ) -> Result<(), ParseError> {
        let mut summary = None;
        if let Some(reasoning) = self.reasoning {
            let read = reasoning.reader().object(|reader, key| {
                match key {
                    "effort" => drop(present(reader, Reader::string)?),
                    "summary" => summary = present(reader, Reader::string)?,
                    _ => drop(reader.raw()?),
                }
                Ok(())
            });
            read.map_err(|error| error.within("reasoning"))?;
        }
        let named = self.reasoning.and_then(|value| text_of(value, "effort"));
        let asked = named.and_then(|name| Effort::parse(&name.value()));
        let effort = self.effort(target);
        if named.is_some() && asked.is_none() {
            losses.push(Loss::dropped("effort"));
        } else if let (Some(asked), Some(taken)) = (asked, effort)
            && target.knobs.effort.value().is_none()
            && target.knobs.bounded(asked).wire_name() != taken.wire_name()
        {
            losses.push(Loss::approximated("effort"));
        }
        let mut first = true;
        let mut field = |out: &mut Vec<u8>, name: &str| {
            writer::json(
                out,
                match first {
                    true => r#","reasoning":{"#,
                    false => ",",
                },
            );
            first = false;
            writer::string(out, name);
            out.push(b':');
        };
        if let Some(effort) = effort {
            field(out, "effort");
            writer::string(out, effort.wire_name());
        }
        if let Some(summary) = summary.filter(|summary| summary.value() != "none") {
            field(out, "summary");
            writer::text(out, summary);
        }
        if target.lane == Lane::Lite {
            field(out, "context");
            writer::string(out, "all_turns");
        }
        if !first {
            out.push(b'}');
        }
        Ok(())
    }

    fn text(&self, out: &mut Vec<u8>, target: &Target<'_>) -> Result<(), ParseError> {
        let (mut verbosity, mut format) = (None, None);
        if let Some(text) = self.text {
            let read = text.reader().object(|reader, key| {
                match key {
                    "verbosity" => verbosity = present(reader, Reader::string)?,
                    "format" => format = object(reader)?,
                    _ => drop(reader.raw()?),
                }
                Ok(())
            });
            read.map_err(|error| error.within("text"))?;
        }
        let asked = verbosity.map(|text| text.value());
        let set = target.knobs.verbosity.value();
        let verbosity = set
            .map(|set| Cow::Borrowed(set.wire_name()))
            .or(asked)
            .or_else(|| target.model.default_verbosity.as_deref().map(Cow::Borrowed))
            .filter(|_| target.model.support_verbosity);
        let format = format.filter(|format| kind_of(*format) != "text");
        if verbosity.is_none() && format.is_none() {
            return Ok(());
        }
        writer::json(out, r#","text":{"#);
        let mut first = true;
        if let Some(verbosity) = verbosity {
            writer::comma(out, &mut first);
            writer::json(out, r#""verbosity":"#);
            writer::string(out, &verbosity);
        }
        if let Some(format) = format {
            writer::comma(out, &mut first);
            writer::json(out, r#""format":"#);
            writer::raw(out, format);
        }
        out.push(b'}');
        Ok(())
    }
}

/// Says whether the program around the model speaks.
fn is_program(role: &str) -> bool {
    matches!(role, "system" | "developer")
}

/// Says whether the lite lane has a place for a tool of this type.
fn is_lite_tool(kind: &str) -> bool {
    matches!(kind, "function" | "custom" | "tool_search" | "namespace")
}

fn list<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = Raw<'a>>) {
    let mut first = true;
    for value in values {
        writer::comma(out, &mut first);
        writer::raw(out, value);
    }
}

/// Writes a message with one text.
fn message(out: &mut Vec<u8>, role: &str, text: Text<'_>, first: &mut bool) {
    writer::comma(out, first);
    writer::json(out, r#"{"type":"message","role":"#);
    writer::string(out, role);
    writer::json(out, r#","content":["#);
    part(out, role, text);
    writer::json(out, "]}");
}

fn part(out: &mut Vec<u8>, role: &str, text: Text<'_>) {
    let kind = match role {
        "assistant" => "output_text",
        _ => "input_text",
    };
    writer::json(out, r#"{"type":""#);
    writer::json(out, kind);
    writer::json(out, r#"","text":"#);
    writer::text(out, text);
    out.push(b'}');
}

/// Returns a field of an object that is a string; nothing if it is not there, or `value` is none.
fn text_of<'a>(value: Raw<'a>, name: &str) -> Option<Text<'a>> {
    if value.kind() != Kind::Object {
        return None;
    }
    let mut found = None;
    let read = value.reader().object(|reader, key| {
        let value = reader.raw()?;
        if key == name {
            found = value.as_text();
        }
        Ok(())
    });
    read.ok()?;
    found
}

fn kind_of(value: Raw<'_>) -> String {
    text_of(value, "type").map_or_else(String::new, |kind| kind.value().into_owned())
}

fn role_of(value: Raw<'_>) -> Option<Cow<'_, str>> {
    text_of(value, "role").map(|role| role.value())
}

/// Writes an item without what upstream refuses in it.
fn item(
    out: &mut Vec<u8>,
    item: Raw<'_>,
    lane: Lane,
    first: &mut bool,
    losses: &mut Vec<Loss>,
) -> Result<(), ParseError> {
    if item.kind() != Kind::Object {
        return Err(ParseError::expected("an object"));
    }
    let kind = kind_of(item);
    let role = role_of(item);
    match kind.as_str() {
        // Nothing is stored, so an id alone names nothing.
        "item_reference" => {
            losses.push(Loss::dropped("item_reference"));
            return Ok(());
        }
        "reasoning" if text_of(item, "encrypted_content").is_none_or(|text| text.is_empty()) => {
            losses.push(Loss::dropped("reasoning"));
            return Ok(());
        }
        _ => {}
    }
    writer::comma(out, first);
    out.push(b'{');
    let mut inner = true;
    if kind.is_empty() {
        writer::json(out, r#""type":"message""#);
        inner = false;
    }
    item.reader().raw_object(|reader, key| {
        let value = reader.raw()?;
        let name = key.value();
        match name.as_ref() {
            // Ids of what was never stored may be too long; none is needed.
            "id" => return Ok(()),
            "content" if value.kind() == Kind::Null && kind != "reasoning" => return Ok(()),
            _ => {}
        }
        writer::comma(out, &mut inner);
        writer::text(out, key);
        out.push(b':');
        match (name.as_ref(), role.as_deref()) {
            ("role", Some("system")) => writer::json(out, r#""developer""#),
            ("call_id", _) => match value.as_text() {
                Some(id) => writer::string(out, &call_id(id.value(), 0)),
                None => writer::raw(out, value),
            },
            ("content", Some(role)) => match value.as_text() {
                Some(text) => {
                    out.push(b'[');
                    part(out, role, text);
                    out.push(b']');
                }
                None => content(out, value, lane)?,
            },
            ("output", _) if value.kind() == Kind::List => content(out, value, lane)?,
            _ => writer::raw(out, value),
        }
        Ok(())
    })?;
    out.push(b'}');
    Ok(())
}

/// Writes a list of parts. The lite lane takes no `detail` of pictures.
fn content(out: &mut Vec<u8>, value: Raw<'_>, lane: Lane) -> Result<(), ParseError> {
    if lane == Lane::Full || value.kind() != Kind::List {
        writer::raw(out, value);
        return Ok(());
    }
    out.push(b'[');
    let mut first = true;
    value.reader().list(|reader| {
        let part = reader.raw()?;
        writer::comma(out, &mut first);
        if kind_of(part) != "input_image" {
            writer::raw(out, part);
            return Ok(());
        }
        out.push(b'{');
        let mut inner = true;
        part.reader().raw_object(|reader, key| {
            let value = reader.raw()?;
            if key.value() != "detail" {
                writer::comma(out, &mut inner);
                writer::text(out, key);
                out.push(b':');
                writer::raw(out, value);
            }
            Ok(())
        })?;
        out.push(b'}');
        Ok(())
    })?;
    out.push(b']');
    Ok(())
}

/// Returns a translated body without the reasoning that only one account can read; `None` if it has none.
pub fn without_reasoning(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    let mut has_any = false;
    out.push(b'{');
    let mut first = true;
    let mut reader = Reader::new(body).ok()?;
    let read = reader.raw_object(|reader, key| {
        let value = reader.raw()?;
        writer::comma(&mut out, &mut first);
        writer::text(&mut out, key);
        out.push(b':');
        if key.value() != "input" {
            writer::raw(&mut out, value);
            return Ok(());
        }
        out.push(b'[');
        let mut inner = true;
        value.reader().list(|reader| {
            let item = reader.raw()?;
            if matches!(kind_of(item).as_str(), "reasoning" | "compaction") {
                has_any = true;
            } else {
                writer::comma(&mut out, &mut inner);
                writer::raw(&mut out, item);
            }
            Ok(())
        })?;
        out.push(b']');
        Ok(())
    });
    out.push(b'}');
    (read.is_ok() && has_any).then_some(out)
}

/// Reads an object, or nothing.
fn object<'a>(reader: &mut Reader<'a>) -> Result<Option<Raw<'a>>, ParseError> {
    let value = reader.raw()?;
    match value.kind() {
        Kind::Object => Ok(Some(value)),
        Kind::Null => Ok(None),
        _ => Err(ParseError::expected("an object")),
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
