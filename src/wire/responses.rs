//! OpenAI Responses: stream events and their items, as upstream says them.
//!
//! Tolerant by rule: a field of an unexpected type counts as absent, an event that cannot be read
//! is none. Texts stay as they came ([`literal`]): escaped JSON, to be spliced into other JSON.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What an event is about, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `response.output_text.delta`, `response.refusal.delta`: a piece of text ([`Delta`]).
    TextDelta,
    /// `response.reasoning_summary_text.delta` ([`Delta`]).
    SummaryDelta,
    /// `response.reasoning_text.delta`: reasoning in the raw, which is rare ([`Delta`]).
    ThoughtDelta,
    /// `response.function_call_arguments.delta` ([`Delta`]).
    ArgumentsDelta,
    /// `response.custom_tool_call_input.delta` ([`Delta`]).
    InputDelta,
    /// `response.output_text.done`, `response.refusal.done` ([`Whole`]).
    TextDone,
    /// `response.reasoning_summary_text.done` ([`Whole`]).
    SummaryDone,
    /// `response.reasoning_text.done` ([`Whole`]).
    ThoughtDone,
    /// `response.function_call_arguments.done` ([`Whole`]).
    ArgumentsDone,
    /// `response.custom_tool_call_input.done` ([`Whole`]).
    InputDone,
    /// `response.output_text.annotation.added` ([`Cited`](super::searches::Cited)).
    Annotation,
    /// `response.output_item.added` ([`ItemEvent`]).
    ItemAdded,
    /// `response.output_item.done` ([`ItemEvent`]); the item outranks its deltas.
    ItemDone,
    /// A terminal event: `response.completed`, and `response.done`, which some backends send in
    /// its place ([`Terminal`]).
    Completed,
    /// The terminal event `response.incomplete` ([`Terminal`]).
    Incomplete,
    /// The terminal event `response.failed` ([`Terminal`]).
    Failed,
    /// The terminal event `error` ([`failure`]).
    Error,
    /// An event that says nothing of the answer's content.
    Aside,
}

impl Kind {
    /// Returns the kind that goes by `name`; `None` for a name nobody has told us of.
    pub fn from_name(name: &str) -> Option<Self> {
        // The order is that of frequency in a stream.
        Some(match name {
            "response.output_text.delta" => Self::TextDelta,
            "response.function_call_arguments.delta" => Self::ArgumentsDelta,
            "response.reasoning_summary_text.delta" => Self::SummaryDelta,
            "response.custom_tool_call_input.delta" => Self::InputDelta,
            "response.reasoning_text.delta" => Self::ThoughtDelta,
            "response.refusal.delta" => Self::TextDelta,
            "response.output_item.added" => Self::ItemAdded,
            "response.output_item.done" => Self::ItemDone,
            "response.output_text.done" | "response.refusal.done" => Self::TextDone,
            "response.output_text.annotation.added" => Self::Annotation,
            "response.reasoning_summary_text.done" => Self::SummaryDone,
            "response.reasoning_text.done" => Self::ThoughtDone,
            "response.function_call_arguments.done" => Self::ArgumentsDone,
            "response.custom_tool_call_input.done" => Self::InputDone,
            "response.completed" | "response.done" => Self::Completed,
            "response.incomplete" => Self::Incomplete,
            "response.failed" => Self::Failed,
            "error" => Self::Error,
            "response.created"
            | "response.queued"
            | "response.in_progress"
            | "response.content_part.added"
            | "response.content_part.done"
            | "response.reasoning_summary_part.added"
            | "response.reasoning_summary_part.done"
            | "response.web_search_call.in_progress"
            | "response.web_search_call.searching"
            | "response.web_search_call.completed"
            | "response.metadata"
            | "codex.rate_limits"
            | "keepalive" => Self::Aside,
            _ => return None,
        })
    }

    /// Returns the kind of a frame: by its `event` field where that is a name we know, else by
    /// the data's `type`, else [`Kind::Error`] if the data holds nothing but an error.
    pub fn of(event: &str, data: &str) -> Self {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow, rename = "type")]
            kind: Option<&'a RawValue>,
            #[serde(borrow)]
            error: Option<&'a RawValue>,
            #[serde(borrow)]
            detail: Option<&'a RawValue>,
        }
        if let Some(kind) = Self::from_name(event) {
            return kind;
        }
        let Ok(head) = serde_json::from_str::<Head<'_>>(data) else {
            return Self::Aside;
        };
        match text(head.kind) {
            Some(name) => Self::from_name(&name).unwrap_or(Self::Aside),
            None if head.error.is_some() || head.detail.is_some() => Self::Error,
            None => Self::Aside,
        }
    }
}

/// A piece of an item's text, arguments or input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Which item, by place.
    pub output_index: Option<u64>,
    /// Which item, by id.
    pub item_id: Option<Cow<'a, str>>,
    /// Which part of the item's content or summary; zero where there is only one.
    pub part: u64,
    /// The piece, still escaped ([`literal`]).
    pub delta: Cow<'a, str>,
}

#[derive(Deserialize)]
struct PlainDelta<'a> {
    output_index: Option<u64>,
    #[serde(borrow)]
    item_id: Option<Cow<'a, str>>,
    content_index: Option<u64>,
    summary_index: Option<u64>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
}

impl<'a> Delta<'a> {
    /// Reads the data of a delta event. Equal to [`Delta::parse`], only quicker.
    pub fn read(data: &'a str) -> Option<Self> {
        super::scan::delta(data).or_else(|| Self::parse(data))
    }

    /// Reads the data of a delta event by the general parser.
    pub fn parse(data: &'a str) -> Option<Self> {
        let plain: PlainDelta<'a> = serde_json::from_str(data).ok()?;
        Some(Self {
            output_index: plain.output_index,
            item_id: plain.item_id,
            part: plain.summary_index.or(plain.content_index).unwrap_or(0),
            delta: literal(plain.delta?)?,
        })
    }
}

/// The whole of what the deltas of one part told in pieces.
#[derive(Debug, Deserialize)]
pub struct Whole<'a> {
    /// Which item, by place.
    pub output_index: Option<u64>,
    /// Which item, by id.
    #[serde(borrow)]
    pub item_id: Option<Cow<'a, str>>,
    content_index: Option<u64>,
    summary_index: Option<u64>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

impl<'a> Whole<'a> {
    /// Which part of the item's content or summary; zero where there is only one.
    pub fn part(&self) -> u64 {
        self.summary_index.or(self.content_index).unwrap_or(0)
    }

    /// The whole text, still escaped ([`literal`]).
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let value = self.text.or(self.refusal);
        literal(value.or(self.arguments).or(self.input)?)
    }
}

/// The data of an item event.
#[derive(Debug, Deserialize)]
pub struct ItemEvent<'a> {
    /// The item's place in the answer. Missing in events of some backends.
    pub output_index: Option<u64>,
    /// The item.
    #[serde(borrow)]
    pub item: &'a RawValue,
}

/// An item of the answer. What is missing depends on the type and on how far the item has come.
#[derive(Debug, Deserialize)]
pub struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    call_id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    summary: Option<&'a RawValue>,
    #[serde(borrow)]
    encrypted_content: Option<&'a RawValue>,
}

/// The types of item that become content of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// `message`.
    Message,
    /// `reasoning`.
    Reasoning,
    /// `function_call`.
    Call,
    /// `custom_tool_call`: the input is free text.
    CustomCall,
    /// `web_search_call` ([`Call`](super::searches::Call)).
    Search,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
}

impl<'a> Item<'a> {
    /// Reads an item.
    pub fn parse(data: &'a str) -> Option<Self> {
        serde_json::from_str(data).ok()
    }

    /// The type; `None` for items that are no content of the answer.
    pub fn kind(&self) -> Option<ItemKind> {
        match text(self.kind)?.as_ref() {
            "message" => Some(ItemKind::Message),
            "reasoning" => Some(ItemKind::Reasoning),
            "function_call" => Some(ItemKind::Call),
            "custom_tool_call" => Some(ItemKind::CustomCall),
            "web_search_call" => Some(ItemKind::Search),
            _ => None,
        }
    }

    /// The item's id; `None` if empty.
    pub fn id(&self) -> Option<Cow<'a, str>> {
        text(self.id).filter(|id| !id.is_empty())
    }

    /// The id that the call's output must name; `None` if empty.
    pub fn call_id(&self) -> Option<Cow<'a, str>> {
        text(self.call_id).filter(|id| !id.is_empty())
    }

    /// The tool's name; `None` if empty.
    pub fn name(&self) -> Option<Cow<'a, str>> {
        text(self.name).filter(|name| !name.is_empty())
    }

    /// The arguments of a function call, JSON in a string, still escaped ([`literal`]).
    pub fn arguments(&self) -> Option<Cow<'a, str>> {
        literal(self.arguments?)
    }

    /// The input of a custom call, free text, still escaped ([`literal`]).
    pub fn input(&self) -> Option<Cow<'a, str>> {
        literal(self.input?)
    }

    /// The texts and refusals of the content, still escaped; a part without text is empty.
    pub fn content(&self) -> Vec<Cow<'a, str>> {
        parts(self.content)
    }

    /// The parts of a reasoning summary, still escaped.
    pub fn summary(&self) -> Vec<Cow<'a, str>> {
        parts(self.summary)
    }

    /// The encrypted reasoning; `None` if empty.
    pub fn encrypted(&self) -> Option<Cow<'a, str>> {
        text(self.encrypted_content).filter(|encrypted| !encrypted.is_empty())
    }
}

fn parts(list: Option<&RawValue>) -> Vec<Cow<'_, str>> {
    let list: Vec<Option<Part<'_>>> = list
        .and_then(|list| serde_json::from_str(list.get()).ok())
        .unwrap_or_default();
    list.into_iter()
        .map(|part| {
            part.and_then(|part| part.text.or(part.refusal))
                .and_then(literal)
                .unwrap_or_default()
        })
        .collect()
}

/// The `response` of a terminal event.
#[derive(Debug, Default, Deserialize)]
pub struct Terminal<'a> {
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    incomplete_details: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

impl<'a> Terminal<'a> {
    /// Reads the data of a terminal event; `None` if it is not a JSON object.
    pub fn parse(data: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            response: Option<Terminal<'a>>,
            #[serde(borrow)]
            error: Option<&'a RawValue>,
        }
        // Long: upstream repeats the request's instructions and tools in it. So it is read in one pass.
        if let Ok(event) = serde_json::from_str::<Event<'a>>(data) {
            let mut terminal = event.response.unwrap_or_default();
            terminal.error = terminal.error.or(event.error);
            return Some(terminal);
        }
        Self::parse_apart(data)
    }

    /// Reads the event and its `response` one after the other, so that a `response` that is no object counts as one that
    /// says nothing.
    fn parse_apart(data: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            response: Option<&'a RawValue>,
            #[serde(borrow)]
            error: Option<&'a RawValue>,
        }
        let event: Event<'a> = serde_json::from_str(data).ok()?;
        let mut terminal: Self = event
            .response
            .and_then(|response| serde_json::from_str(response.get()).ok())
            .unwrap_or_default();
        terminal.error = terminal.error.or(event.error);
        Some(terminal)
    }

    /// The `status`, where it was told.
    pub fn status(&self) -> Option<Cow<'a, str>> {
        text(self.status)
    }

    /// The usage; `None` if upstream did not say.
    pub fn usage(&self) -> Option<Usage> {
        serde_json::from_str(self.usage?.get()).ok()
    }

    /// The error inside the event.
    pub fn error(&self) -> Option<StreamFailure> {
        let value: Value = serde_json::from_str(self.error?.get()).ok()?;
        Some(StreamFailure::from_value(&value, &Value::Null))
    }

    /// Why the answer is incomplete.
    pub fn incomplete_reason(&self) -> Option<String> {
        let details: Value = serde_json::from_str(self.incomplete_details?.get()).ok()?;
        details.get("reason")?.as_str().map(str::to_owned)
    }

    /// The answer's items. The backend leaves the list empty in a stream.
    pub fn output(&self) -> Vec<&'a RawValue> {
        self.output
            .and_then(|output| serde_json::from_str(output.get()).ok())
            .unwrap_or_default()
    }
}

/// Token counts of an answer. `input_tokens` includes the cached ones, `output_tokens` the reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "UsageShape")]
pub struct Usage {
    /// All input tokens.
    pub input_tokens: u64,
    /// Of these, read from the cache; never more than `input_tokens`.
    pub cached_tokens: u64,
    /// All output tokens.
    pub output_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
}

#[derive(Deserialize)]
struct UsageShape {
    input_tokens: Option<u64>,
    input_tokens_details: Option<UsageDetails>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<UsageDetails>,
}

#[derive(Deserialize)]
struct UsageDetails {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl From<UsageShape> for Usage {
    fn from(shape: UsageShape) -> Self {
        let input_tokens = shape.input_tokens.unwrap_or(0);
        let cached = shape
            .input_tokens_details
            .and_then(|details| details.cached_tokens);
        let reasoning = shape
            .output_tokens_details
            .and_then(|details| details.reasoning_tokens);
        Self {
            input_tokens,
            cached_tokens: cached.unwrap_or(0).min(input_tokens),
            output_tokens: shape.output_tokens.unwrap_or(0),
            reasoning_tokens: reasoning.unwrap_or(0),
        }
    }
}

/// A failure that upstream reported inside a stream, as it said it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFailure {
    /// `error.code`.
    pub code: Option<String>,
    /// `error.type`.
    pub kind: Option<String>,
    /// `error.message`.
    pub message: Option<String>,
    /// `status` of an `error` event.
    pub status: Option<u16>,
    /// `resets_at` (seconds since 1970), where it was told.
    pub resets_at: Option<u64>,
    /// `incomplete_details.reason` of a `response.incomplete` that is no ordinary end.
    pub incomplete: Option<String>,
}

impl StreamFailure {
    /// Reads an `error` value; `outer` is the event around it.
    fn from_value(error: &Value, outer: &Value) -> Self {
        let field = |name: &str| match error.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let number = |value: Option<&Value>| match value? {
            Value::Number(number) => number
                .as_u64()
                .or_else(|| number.as_f64().map(|float| float as u64)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let status = ["status", "status_code"]
            .iter()
            .find_map(|name| number(outer.get(name)).or_else(|| number(error.get(name))));
        Self {
            code: field("code"),
            kind: field("type"),
            message: field("message").or_else(|| error.as_str().map(str::to_owned)),
            status: status.and_then(|status| u16::try_from(status).ok()),
            resets_at: number(error.get("resets_at")).or_else(|| number(outer.get("resets_at"))),
            incomplete: None,
        }
    }
}

/// Reads the data of an `error` event: nested (`error:{…}`), flat (`code` and `message` beside
/// `type`), or a bare `detail`. What cannot be read is a failure that says nothing.
pub fn failure(data: &str) -> StreamFailure {
    let event: Value = serde_json::from_str(data).unwrap_or(Value::Null);
    match event.get("error").or_else(|| event.get("detail")) {
        Some(error) if !error.is_null() => StreamFailure::from_value(error, &event),
        _ => StreamFailure {
            // The event's own type says only that it is an error.
            kind: None,
            ..StreamFailure::from_value(&event, &event)
        },
    }
}

/// The inside of a JSON string, still escaped: `"a\n"` gives `a\n` of three characters.
///
/// Any such text may stand inside any other JSON string. Lone surrogates (`\ud83d`) pass, as
/// they do in the JSON of JavaScript; two halves in neighbouring pieces become whole again.
/// An object or array is taken for the string it should have been encoded into.
pub fn literal(value: &RawValue) -> Option<Cow<'_, str>> {
    let json = value.get();
    if let Some(inside) = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        return Some(Cow::Borrowed(inside));
    }
    if !json.starts_with(['{', '[']) {
        return None;
    }
    let quoted = serde_json::to_string(json).ok()?;
    Some(Cow::Owned(quoted[1..quoted.len() - 1].to_owned()))
}

/// A string value, decoded; any other value counts as absent.
fn text(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value?.get())
        .ok()
        .map(|text| text.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_agrees(data: &str) {
        let told = |terminal: Option<Terminal<'_>>| format!("{terminal:?}");
        assert_eq!(
            told(Terminal::parse(data)),
            told(Terminal::parse_apart(data)),
            "{data}"
        );
    }

    #[test]
    fn a_terminal_event_is_read_alike_in_one_pass_and_in_two() {
        for response in [
            r#"{"status":"completed","usage":{"input_tokens":1},"output":[],"tools":[{"a":"\""}]}"#,
            r#"{"status":"a","status":"b"}"#,
            r#"["completed"]"#,
            r#""no object""#,
            "null",
            "5",
            "{",
        ] {
            for event in [
                format!(r#"{{"type":"t","response":{response}}}"#),
                format!(r#"{{"error":{{"code":"c"}},"response":{response},"x":1}}"#),
                format!(r#"{{"response":{response},"response":{response}}}"#),
                response.to_owned(),
            ] {
                assert_agrees(&event);
                for cut in 0..event.len() {
                    assert_agrees(&event[..cut]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_terminal_event_is_read_alike_in_one_pass_and_in_two(
            fields in proptest::collection::vec(
                (
                    prop_oneof![
                        Just("status"), Just("usage"), Just("error"), Just("incomplete_details"),
                        Just("output"), Just("response"), Just("x")
                    ],
                    prop_oneof![Just("{}"), Just("[1]"), Just("null"), Just("\"a\""), Just("1e9"), Just("{\"status\":2}")],
                ),
                0..6,
            ),
            outer in any::<bool>(),
        ) {
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let object = format!("{{{}}}", fields.join(","));
            assert_agrees(&if outer { object } else { format!("{{\"response\":{object}}}") });
        }
    }
}
