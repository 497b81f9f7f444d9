//! Any history that the Messages API takes, every kind of block in every place, with a mark in each thing said.
//!
//! A mark is a word that occurs once; what became of it tells what became of the block.

use ccx::translate::reasoning::{Origin, Seal};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::rules::ACCOUNT;

/// Stands for a mark until the whole history is there.
const HOLE: &str = "@@";

/// Stands for half of a surrogate pair, which no Rust string holds.
const HALF: &str = "%%";

/// The client's label of a request.
const LABEL: &str = "x-anthropic-billing-header: x";

/// Something that was said.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) word: String,
    /// Kinds of losses of which one must be recorded if the mark is not in what is sent; a kind stands for all that
    /// begin like it.
    pub(crate) excuses: Vec<&'static str>,
    /// Whether it stands inside of another block.
    pub(crate) is_nested: bool,
    /// Which block it is of: what is said of one block comes after what is said of the blocks before it. `None` for
    /// what may stand elsewhere.
    pub(crate) place: Option<u32>,
}

/// A request as bytes, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) request: Value,
    pub(crate) marks: Vec<Mark>,
}

impl History {
    /// The bytes of the request.
    pub(crate) fn body(&self) -> Vec<u8> {
        bytes(&self.request)
    }
}

/// The bytes of `request`.
pub(crate) fn bytes(request: &Value) -> Vec<u8> {
    request.to_string().replace(HALF, r"\ud83d").into_bytes()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "\\PC{0,12}".prop_map(|text| format!("{text}{HOLE}")),
        2 => "[\\x00-\\x7f]{0,12}".prop_map(|text| format!("{HOLE}{text}")),
        1 => Just(format!("{HALF}{HOLE}")),
        1 => Just(String::new()),
        1 => Just(" \n".to_owned()),
    ]
}

/// Few, so that calls and results meet, collide and miss each other.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-d]",
        1 => "[ab]".prop_map(|end| "x".repeat(80) + &end),
        1 => Just(String::new()),
        1 => "[.: é\"]{1,3}",
    ]
}

fn tool_name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("T".to_owned()),
        2 => Just("late.tool".to_owned()),
        1 => Just("mcp__".to_owned() + &"n".repeat(90)),
        1 => Just("LateToo".to_owned()),
        1 => "\\PC{0,4}",
    ]
}

/// Signatures of ours for this and other accounts and models, of nobody, and cut ones.
fn signature() -> impl Strategy<Value = String> {
    let seal = |account: &'static str, slug: &'static str| {
        "(rs_[a-z]{1,3}|[a-z]{0,80})".prop_map(move |id| {
            let origin = Origin::new(account, slug);
            Seal {
                account: &origin.account,
                model: &origin.model,
                id: &id,
                encrypted: HOLE,
            }
            .write()
        })
    };
    prop_oneof![
        2 => seal(ACCOUNT, "gpt-5.5"),
        2 => seal(ACCOUNT, "gpt-6.1-sol"),
        1 => seal("another", "gpt-6.1-sol"),
        1 => (seal(ACCOUNT, "gpt-5.5"), any::<prop::sample::Index>()).prop_map(|(seal, cut)| {
            let cut = cut.index(seal.len());
            let end = (cut..).find(|at| seal.is_char_boundary(*at)).unwrap_or_default();
            seal[..end].to_owned()
        }),
        1 => "[a-zA-Z0-9+/=]{0,40}",
    ]
}

fn source() -> impl Strategy<Value = Value> {
    let media_type = prop_oneof![
        4 => Just("image/png"),
        1 => Just("image/jpeg"),
        1 => Just("image/tiff"),
        1 => Just("text/plain"),
        3 => Just("application/pdf"),
        1 => Just(""),
    ];
    // What files of those types begin with, and what is none.
    let data = prop_oneof![
        4 => Just(format!("iVBORw0KGgoA{HOLE}")),
        1 => Just(format!("/9j/4AAQSkZJ{HOLE}")),
        3 => Just(format!("JVBERi0xLjcK{HOLE}")),
        1 => Just(format!("{HOLE}!")),
        1 => Just(String::new()),
    ];
    let url = prop_oneof![
        3 => Just(format!("https://example.com/{HOLE}.png")),
        1 => Just(format!("data:image/png;base64,iVBORw0KGgoA{HOLE}")),
        1 => Just(format!("http://example.com/{HOLE}.png")),
        1 => text(),
    ];
    prop_oneof![
        4 => (media_type, data).prop_map(
            |(media_type, data)| json!({"type": "base64", "media_type": media_type, "data": data})
        ),
        2 => url.prop_map(|url| json!({"type": "url", "url": url})),
        1 => text().prop_map(|data| json!({"type": "text", "media_type": "text/plain", "data": data})),
        1 => text().prop_map(|text| json!({"type": "content", "content": [{"type": "text", "text": text}]})),
        1 => text().prop_map(|text| json!({"type": "content", "content": text})),
        1 => Just(json!({"type": "file", "file_id": HOLE})),
    ]
}

fn media() -> impl Strategy<Value = Value> {
    let words = (prop::option::of(text()), prop::option::of(text()));
    prop_oneof![
        source().prop_map(|source| json!({"type": "image", "source": source})),
        (source(), words).prop_map(|(source, (title, context))| {
            json!({"type": "document", "source": source, "title": title, "context": context})
        }),
    ]
}

fn input() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(json!({"a": format!("\"\\\n{HOLE}"), "z": 1, "b": [1.50, null]})),
        1 => Just(json!({})),
        1 => Just(json!(null)),
        1 => Just(json!([HOLE])),
        1 => text().prop_map(Value::from),
    ]
}

/// Any block but a result.
fn leaf() -> impl Strategy<Value = Value> {
    let found = prop_oneof![
        3 => Just(json!([{"type": "web_search_result", "title": "t", "url": format!("https://example.com/{HOLE}"), "encrypted_content": "e"}, 3])),
        1 => Just(json!({"type": "web_search_tool_result_error", "error_code": "unavailable"})),
        1 => Just(json!([])),
    ];
    let cited = json!([{"type": "web_search_result_location", "url": "u", "title": "t", "cited_text": "c"}]);
    prop_oneof![
        5 => text().prop_map(|text| json!({"type": "text", "text": text})),
        1 => text().prop_map(move |text| json!({"type": "text", "text": text, "citations": cited, "cache_control": {"type": "ephemeral"}})),
        4 => media(),
        5 => (id(), tool_name(), input())
            .prop_map(|(id, name, input)| json!({"type": "tool_use", "id": id, "name": name, "input": input})),
        3 => signature().prop_map(|signature| json!({"type": "thinking", "thinking": "t", "signature": signature})),
        1 => Just(json!({"type": "thinking", "thinking": "t"})),
        1 => signature().prop_map(|data| json!({"type": "redacted_thinking", "data": data})),
        2 => tool_name().prop_map(|name| json!({"type": "tool_reference", "tool_name": name})),
        1 => input().prop_map(|input| json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": input})),
        1 => found.prop_map(|content| json!({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": content})),
        1 => "[a-z_]{1,8}".prop_map(|kind| json!({"type": format!("x{kind}"), "text": HOLE})),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    prop_oneof![2 => leaf(), 1 => result()]
}

fn result() -> impl Strategy<Value = Value> {
    let inner = prop_oneof![
        6 => leaf(),
        1 => (id(), text()).prop_map(
            |(id, text)| json!({"type": "tool_result", "tool_use_id": id, "content": text})
        ),
    ];
    let content = prop_oneof![
        2 => text().prop_map(Value::from),
        1 => Just(Value::Null),
        4 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
    ];
    (id(), content, prop::option::of(any::<bool>())).prop_map(|(id, content, is_error)| {
        json!({"type": "tool_result", "tool_use_id": id, "content": content, "is_error": is_error})
    })
}

fn message() -> impl Strategy<Value = Value> {
    let content = prop_oneof![
        1 => text().prop_map(Value::from),
        4 => prop::collection::vec(block(), 0..5).prop_map(Value::from),
    ];
    ("(user|assistant|system)", content)
        .prop_map(|(role, content)| json!({"role": role, "content": content}))
}

/// A round of calls as the client tells it: thinking, calls, all their results in some order, a text.
fn round() -> impl Strategy<Value = Vec<Value>> {
    let calls = prop::collection::vec((tool_name(), input(), text()), 1..4);
    (signature(), calls, any::<bool>(), "[0-9]{8}").prop_map(
        |(signature, calls, is_reversed, stem)| {
            let mut said = vec![json!({"type": "thinking", "thinking": "t", "signature": signature})];
            let mut heard = Vec::new();
            for (number, (name, input, text)) in calls.into_iter().enumerate() {
                let id = format!("toolu_{stem}_{number}");
                said.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
                heard.push(json!({"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": text}]}));
            }
            if is_reversed {
                heard.reverse();
            }
            heard.push(json!({"type": "text", "text": HOLE}));
            vec![
                json!({"role": "assistant", "content": said}),
                json!({"role": "user", "content": heard}),
            ]
        },
    )
}

fn tools() -> impl Strategy<Value = Value> {
    let schema = prop_oneof![
        Just(json!({})),
        Just(
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=x)", "description": HOLE}, "pattern": {"type": "string"}}})
        ),
        Just(
            json!({"$schema": "s", "anyOf": [{"type": "object", "properties": {"b": {"type": "number"}}}], "description": HOLE})
        ),
        Just(
            json!({"type": ["object", "null"], "properties": {"l": {"type": "array"}}, "required": ["l"]})
        ),
        Just(
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"r": {"$ref": "#/$defs/a"}}}}})
        ),
        Just(
            json!({"type": "object", "propertyNames": {"pattern": "^x"}, "additionalProperties": {"oneOf": [{"const": 1}]}})
        ),
        Just(json!({"type": "string"})),
    ];
    let tool = (tool_name(), schema, any::<bool>()).prop_map(|(name, schema, is_late)| {
        let mut tool = json!({"name": name, "description": HOLE, "input_schema": schema});
        if is_late {
            tool["defer_loading"] = json!(true);
        }
        tool
    });
    let hosted = prop_oneof![
        Just(
            json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 3, "allowed_domains": ["example.com"]})
        ),
        Just(json!({"type": "bash_20250124", "name": "bash"})),
    ];
    prop::collection::vec(prop_oneof![5 => tool, 1 => hosted], 0..6).prop_map(Value::from)
}

/// Fields beside the conversation.
fn fields() -> impl Strategy<Value = Value> {
    let choice = prop_oneof![
        Just(json!({"type": "auto"})),
        Just(json!({"type": "any", "disable_parallel_tool_use": true})),
        Just(json!({"type": "none"})),
        tool_name().prop_map(|name| json!({"type": "tool", "name": name})),
        Just(json!({"type": "x"})),
    ];
    let thinking = prop_oneof![
        Just(json!({"type": "adaptive", "display": "omitted"})),
        Just(json!({"type": "disabled"})),
        (0..70_000u32).prop_map(|budget| json!({"type": "enabled", "budget_tokens": budget})),
    ];
    let config = prop_oneof![
        "(none|minimal|low|medium|high|xhigh|max|ultra|x)"
            .prop_map(|effort| json!({"effort": effort})),
        Just(
            json!({"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}})
        ),
    ];
    (
        prop::option::of(choice),
        prop::option::of(thinking),
        prop::option::of(config),
        prop::option::of(0.0..1.0f64),
        prop::option::of(1..200_000u32),
        any::<bool>(),
    )
        .prop_map(|(choice, thinking, config, temperature, max_tokens, is_odd)| {
            let mut fields = Map::new();
            for (name, value) in [
                ("tool_choice", choice),
                ("thinking", thinking),
                ("output_config", config),
                ("temperature", temperature.map(Value::from)),
                ("max_tokens", max_tokens.map(Value::from)),
            ] {
                if let Some(value) = value {
                    fields.insert(name.to_owned(), value);
                }
            }
            if is_odd {
                fields.extend(
                    json!({
                        "top_p": 0.5, "top_k": 3, "stop_sequences": ["</block>"], "betas": ["x"], "speed": "fast",
                        "metadata": {"user_id": "u"}, "safeguards": [{"type": "dangerous_tool_use"}], "mcp_servers": [],
                        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                    })
                    .as_object()
                    .unwrap()
                    .clone(),
                );
            }
            fields.into()
        })
}

/// Any history, and every field that goes with one.
pub(crate) fn history() -> impl Strategy<Value = History> {
    let messages = prop::collection::vec(
        prop_oneof![
            3 => message().prop_map(|message| vec![message]),
            1 => round(),
        ],
        1..7,
    )
    .prop_map(|parts| parts.concat());
    let system = prop_oneof![
        Just(Value::Null),
        text().prop_map(Value::from),
        (text(), text()).prop_map(
            |(one, two)| json!([{"type": "text", "text": LABEL}, {"type": "text", "text": one}, {"type": "text", "text": two, "cache_control": {"type": "ephemeral"}}])
        ),
    ];
    (messages, system, tools(), fields(), any::<bool>()).prop_map(
        |(messages, system, tools, fields, is_backwards)| {
            let mut request = fields;
            request["model"] = json!("claude-opus-5-5");
            request["messages"] = messages.into();
            request["system"] = system;
            request["tools"] = tools;
            let marks = marked(&mut request);
            if is_backwards {
                backwards(&mut request);
            }
            History { request, marks }
        },
    )
}

/// Turns the order of all keys around, so that nothing is known of an object before its end.
fn backwards(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(backwards),
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            *fields = old.into_iter().rev().collect();
            fields.values_mut().for_each(backwards);
        }
        _ => {}
    }
}

/// Puts a mark into every hole of the request, and lists them.
fn marked(request: &mut Value) -> Vec<Mark> {
    let mut marker = Marker {
        place: Some(0),
        ..Marker::default()
    };
    marker.say(&mut request["system"], &[], false);
    for message in request["messages"].as_array_mut().unwrap() {
        marker.content(&mut message["content"], &[], false);
    }
    marker.place = None;
    for tool in request["tools"].as_array_mut().unwrap() {
        // What is not loaded is not shown; that is no loss.
        if tool["defer_loading"] != json!(true) {
            marker.say(&mut tool["description"], &["duplicate_tool"], false);
        }
        let mut rest = Marker {
            count: marker.count,
            ..Marker::default()
        };
        rest.say(tool, &[], true);
        marker.count = rest.count;
    }
    marker.marks
}

#[derive(Default)]
struct Marker {
    count: u32,
    marks: Vec<Mark>,
    place: Option<u32>,
}

impl Marker {
    /// Marks the content of a message or of a result.
    fn content(&mut self, content: &mut Value, around: &[&'static str], is_nested: bool) {
        let Value::Array(blocks) = content else {
            self.next();
            return self.say(content, around, is_nested);
        };
        for block in blocks {
            self.next();
            let kind = block["type"].as_str().unwrap().to_owned();
            let excuses: &[&'static str] = match kind.as_str() {
                "text" | "tool_reference" => &[],
                "image" => &["image"],
                "document" => &["document", "image"],
                "tool_use" if is_nested => &["misplaced_block"],
                "tool_use" => &[],
                "tool_result" if is_nested => &["misplaced_block"],
                "tool_result" => &["repeated_tool_result"],
                "thinking" | "redacted_thinking" => &["thinking", "reasoning_alone"],
                "server_tool_use" | "web_search_tool_result" => &["server_tool_use", "web_search"],
                _ => &["unknown_block"],
            };
            let excuses = [around, excuses].concat();
            if kind == "tool_result" {
                self.content(&mut block["content"], &excuses, true);
            } else {
                let from = self.marks.len();
                self.say(block, &excuses, is_nested);
                // Reasoning waits for what it led to.
                if kind.ends_with("thinking") {
                    self.marks[from..]
                        .iter_mut()
                        .for_each(|mark| mark.place = None);
                }
            }
        }
    }

    fn next(&mut self) {
        self.place = self.place.map(|place| place + 1);
    }

    /// Fills every hole in `value`.
    fn say(&mut self, value: &mut Value, excuses: &[&'static str], is_nested: bool) {
        match value {
            Value::String(text) if text.contains(HOLE) => {
                // Of base64's alphabet and of a length that it may have.
                let word = format!("mark{:03}z", self.count);
                self.count += 1;
                *text = text.replacen(HOLE, &word, 1);
                self.marks.push(Mark {
                    word,
                    excuses: excuses.to_vec(),
                    is_nested,
                    place: self.place,
                });
            }
            Value::Array(values) => {
                for value in values {
                    self.say(value, excuses, is_nested);
                }
            }
            Value::Object(fields) => {
                for value in fields.values_mut() {
                    self.say(value, excuses, is_nested);
                }
            }
            _ => {}
        }
    }
}
