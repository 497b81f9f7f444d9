//! Holds the tables of `docs/translation.md` to the code, row by row.
//!
//! Each row of the tables of fields, blocks and tools has requests here. What is lost of them on the two lanes, and
//! how, must be what the row says; a row without requests and requests without a row are failures too.

use std::collections::{BTreeMap, BTreeSet};

use ccx::catalogue::model::Lane;
use ccx::translate::request::Loss;
use serde_json::{Value, json};

use super::{JPEG, PNG, call, in_base64, result, sent, signed};

/// Beginnings of a row's first cell (of the row that it goes on from, of itself), and requests.
type Rows = Vec<(&'static str, &'static str, Vec<Value>)>;

/// A request with these fields.
fn with(fields: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "u"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A request whose user says these blocks.
fn user(blocks: Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": blocks}]}))
}

/// A request in which the assistant says these blocks, and the user `then`.
fn assistant(blocks: Value, then: Value) -> Value {
    with(json!({"messages": [
        {"role": "user", "content": "u"}, {"role": "assistant", "content": blocks}, {"role": "user", "content": then}
    ]}))
}

fn tools(tools: Value) -> Value {
    with(json!({"tools": tools}))
}

fn schema(schema: Value) -> Value {
    tools(json!([{"name": "T", "input_schema": schema}]))
}

fn fields() -> Rows {
    let tool = json!([{"name": "T", "input_schema": {}}]);
    vec![
        ("`model`", "`model`", vec![with(json!({}))]),
        (
            "`stream`",
            "`stream`",
            vec![
                with(json!({"stream": true})),
                with(json!({"stream": false})),
            ],
        ),
        (
            "`system`",
            "`system`",
            vec![
                with(json!({"system": "s"})),
                with(
                    json!({"system": [{"type": "text", "text": "x-anthropic-billing-header: 1"}]}),
                ),
            ],
        ),
        ("`messages`", "`messages`", vec![with(json!({}))]),
        ("`tools`", "`tools`", vec![tools(tool.clone())]),
        (
            "`tool_choice`",
            "`tool_choice`",
            ["auto", "any", "none"]
                .map(|kind| with(json!({"tools": tool, "tool_choice": {"type": kind}})))
                .into_iter()
                .chain([with(
                    json!({"tools": tool, "tool_choice": {"type": "tool", "name": "T"}}),
                )])
                .chain([with(json!({"tool_choice": {"type": "any"}}))])
                .collect(),
        ),
        (
            "`tool_choice`",
            "… naming a tool",
            vec![
                with(json!({"tools": tool, "tool_choice": {"type": "tool", "name": "gone"}})),
                with(json!({"tools": tool, "tool_choice": {"type": "new"}})),
            ],
        ),
        (
            "`tool_choice.disable",
            "`tool_choice.disable",
            vec![with(
                json!({"tools": tool, "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
            )],
        ),
        (
            "`output_config.effort`",
            "`output_config.effort`",
            vec![with(json!({"output_config": {"effort": "max"}}))],
        ),
        (
            "`output_config.effort`",
            "… that is not an effort",
            vec![with(json!({"output_config": {"effort": "odd"}}))],
        ),
        (
            "`thinking`",
            "`thinking`",
            vec![
                with(json!({"thinking": {"type": "enabled", "budget_tokens": 31_999}})),
                with(json!({"thinking": {"type": "disabled"}})),
                with(json!({"thinking": {"type": "adaptive"}})),
            ],
        ),
        (
            "`thinking.display`",
            "`thinking.display`",
            vec![with(
                json!({"thinking": {"type": "adaptive", "display": "omitted"}}),
            )],
        ),
        (
            "`output_config.format`",
            "`output_config.format`",
            vec![with(
                json!({"output_format": {"type": "json_schema", "schema": {"type": "object"}}}),
            )],
        ),
        (
            "`output_config.format`",
            "… with what",
            vec![with(
                json!({"output_format": {"type": "json_schema", "schema": {"type": "object", "required": true}}}),
            )],
        ),
        (
            "`metadata.user_id`",
            "`metadata.user_id`",
            vec![with(json!({"metadata": {"user_id": "u"}}))],
        ),
        (
            "`temperature`",
            "`temperature`",
            vec![with(json!({"temperature": 1, "top_p": 1, "top_k": 1}))],
        ),
        (
            "`stop_sequences`",
            "`stop_sequences`",
            vec![with(json!({"stop_sequences": ["x"]}))],
        ),
        (
            "`max_tokens`",
            "`max_tokens`",
            vec![
                with(json!({"max_tokens": 64})),
                with(json!({"max_tokens": 32_000})),
            ],
        ),
        (
            "`context_management`",
            "`context_management`",
            vec![
                with(
                    json!({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}),
                ),
                with(
                    json!({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
                ),
            ],
        ),
        ("`speed`", "`speed`", vec![with(json!({"speed": "fast"}))]),
        (
            "`safeguards`",
            "`safeguards`",
            vec![with(json!({"safeguards": [{}]}))],
        ),
        (
            "a conversation that ends",
            "a conversation that ends",
            vec![with(
                json!({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "{"}]}),
            )],
        ),
        (
            "`cache_control`",
            "`cache_control`",
            vec![
                with(
                    json!({"betas": ["x"], "mcp_servers": [], "container": null, "speed": "standard"}),
                ),
                user(
                    json!([{"type": "text", "text": "u", "cache_control": {"type": "ephemeral"}}]),
                ),
            ],
        ),
    ]
}

fn blocks() -> Rows {
    let by_url =
        |kind: &str| json!({"type": kind, "source": {"type": "url", "url": "https://e.x/f"}});
    let by_id = |kind: &str| json!({"type": kind, "source": {"type": "file", "file_id": "f"}});
    let text = json!({"type": "text", "text": "t"});
    let thinking =
        |signature: &str| json!({"type": "thinking", "thinking": "t", "signature": signature});
    let answered = |content: Value| assistant(json!([call("a")]), json!([result("a", content)]));
    vec![
        (
            "message of role",
            "message of role",
            vec![with(json!({"messages": [
                {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"},
                {"role": "system", "content": "s"}, {"role": "user", "content": "u"}
            ]}))],
        ),
        (
            "`text`",
            "`text`",
            vec![user(json!([text, {"type": "text", "text": ""}]))],
        ),
        (
            "`image`",
            "`image`",
            vec![
                user(json!([
                    in_base64("image", "image/png", PNG),
                    in_base64("image", "image/png", JPEG)
                ])),
                answered(json!([text, in_base64("image", "image/png", PNG)])),
            ],
        ),
        (
            "`image`",
            "… not one of these",
            vec![user(json!([
                in_base64("image", "image/svg+xml", "PHN2Zz48"),
                in_base64("image", "image/png", "?")
            ]))],
        ),
        ("`image`", "… by URL", vec![user(json!([by_url("image")]))]),
        (
            "`image`",
            "… of another source",
            vec![user(json!([by_id("image")]))],
        ),
        (
            "`image`",
            "… for a model without",
            vec![assistant(
                json!([in_base64("image", "image/png", PNG)]),
                json!("u"),
            )],
        ),
        (
            "`document`",
            "`document`",
            vec![user(json!([
                {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
                {"type": "document", "source": {"type": "content", "content": [text]}},
                in_base64("document", "text/csv", "YSxi"),
                in_base64("document", "image/png", PNG)
            ]))],
        ),
        (
            "`document`",
            "… PDF in base64",
            vec![
                user(json!([in_base64(
                    "document",
                    "application/pdf",
                    "JVBERi0x"
                )])),
                answered(json!([
                    text,
                    in_base64("document", "application/pdf", "JVBERi0x")
                ])),
            ],
        ),
        (
            "`document`",
            "… PDF without text",
            vec![user(json!([
                by_id("document"),
                in_base64("document", "application/msword", "AAAA")
            ]))],
        ),
        (
            "`document`",
            "… by URL",
            vec![user(json!([by_url("document")]))],
        ),
        ("`tool_use`", "`tool_use`", vec![answered(json!("r"))]),
        (
            "`tool_use`",
            "… without a result",
            vec![assistant(json!([call("a")]), json!("u"))],
        ),
        (
            "`tool_result`",
            "`tool_result`",
            vec![answered(json!(null)), answered(json!([text, text]))],
        ),
        (
            "`tool_result`",
            "… without its call",
            vec![user(json!([result("a", json!("r"))]))],
        ),
        (
            "`tool_result`",
            "… a second one",
            vec![assistant(
                json!([call("a")]),
                json!([result("a", json!("r")), result("a", json!("r"))]),
            )],
        ),
        (
            "`tool_reference`",
            "`tool_reference`",
            vec![answered(
                json!([{"type": "tool_reference", "tool_name": "X"}]),
            )],
        ),
        (
            "`thinking`",
            "`thinking`",
            vec![assistant(json!([signed("rs_1"), text]), json!("u"))],
        ),
        (
            "`thinking`",
            "… signed by others",
            vec![assistant(
                json!([thinking("EqQB"), thinking(""), {"type": "redacted_thinking", "data": "x"}, text]),
                json!("u"),
            )],
        ),
        (
            "`thinking`",
            "… with nothing",
            vec![assistant(json!([text, signed("rs_1")]), json!("u"))],
        ),
        (
            "`server_tool_use` of a search",
            "`server_tool_use` of a search",
            vec![assistant(
                json!([{"type": "server_tool_use", "id": "srvtoolu_ws_1", "name": "web_search", "input": {"query": "q"}}, text]),
                json!("u"),
            )],
        ),
        (
            "`server_tool_use` of others",
            "`server_tool_use` of others",
            vec![assistant(
                json!([{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, text]),
                json!("u"),
            )],
        ),
        (
            "`citations`",
            "`citations`",
            vec![assistant(
                json!([{"type": "text", "text": "t", "citations": [
                    {"type": "web_search_result_location", "url": "https://a.example", "title": "A"}]}]),
                json!("u"),
            )],
        ),
        (
            "`web_search_tool_result`",
            "`web_search_tool_result`",
            vec![assistant(
                json!([{"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, text]),
                json!("u"),
            )],
        ),
        (
            "a call or result inside",
            "a call or result inside",
            vec![
                answered(json!([result("b", json!("r"))])),
                with(json!({"system": [call("a")]})),
            ],
        ),
        (
            "any other block",
            "any other block",
            vec![user(json!([{"type": "new"}]))],
        ),
    ]
}

fn tool_rows() -> Rows {
    let deferred = json!([{"name": "T", "defer_loading": true, "input_schema": {}}]);
    vec![
        (
            "a tool of the client",
            "a tool of the client",
            vec![schema(json!({"type": "object"}))],
        ),
        (
            "its name",
            "its name",
            vec![tools(json!([{"name": "a.b", "input_schema": {}}]))],
        ),
        (
            "its schema",
            "its schema",
            vec![schema(
                json!({"$schema": "x", "properties": {"a": {"type": "array", "pattern": "x"}}}),
            )],
        ),
        (
            "its schema",
            "… a union",
            vec![
                schema(json!({"anyOf": [{"properties": {"a": {}}}]})),
                schema(json!({"$ref": "#/$defs/a", "$defs": {"a": {}}})),
            ],
        ),
        (
            "its schema",
            "… `not`",
            vec![
                schema(json!({"not": {}})),
                schema(json!({"type": "string"})),
                schema(json!({"properties": {"a": {"$ref": "#/gone"}}})),
                schema(json!({"properties": {"a": {"type": "int"}}})),
            ],
        ),
        (
            "a second tool",
            "a second tool",
            vec![tools(
                json!([{"name": "T", "input_schema": {}}, {"name": "T", "input_schema": {}}]),
            )],
        ),
        (
            "`defer_loading",
            "`defer_loading",
            vec![tools(deferred.clone())],
        ),
        (
            "`defer_loading",
            "… loaded by",
            vec![{
                let loaded = json!([{"type": "tool_reference", "tool_name": "T"}]);
                let mut body = assistant(json!([call("a")]), json!([result("a", loaded)]));
                body["tools"] = deferred;
                body
            }],
        ),
        (
            "`web_search`",
            "`web_search`",
            vec![
                tools(json!([{"type": "web_search_20250305", "name": "web_search"}])),
                tools(json!([{"type": "web_search_preview", "name": "web_search"}])),
            ],
        ),
        (
            "`web_search`",
            "… a second one",
            vec![tools(json!([
                {"type": "web_search_20250305", "name": "web_search"}, {"type": "web_search", "name": "again"}]))],
        ),
        (
            "other tools",
            "other tools",
            vec![tools(
                json!([{"type": "code_execution_20250825", "name": "code_execution"}]),
            )],
        ),
    ]
}

/// Rows whose requests take tens of megabytes. Another test tries them:
/// `old_pictures_of_a_long_conversation_are_left_out_in_steps`.
const ELSEWHERE: &[&str] = &[
    "… an old one",
    "… PDF in base64 on the full lane, an old one",
];

/// The rows of the table under `heading`: the first cell of the row that it goes on from, its own first cell, what
/// it becomes, the kinds of loss.
fn rows_under<'p>(
    page: &'p str,
    heading: &str,
) -> Vec<(&'p str, &'p str, &'p str, BTreeSet<&'p str>)> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut parent = "";
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [first, becomes, losses] = cells.as_slice() else {
            let [first, becomes] = cells.as_slice() else {
                panic!("not three cells: {line}");
            };
            panic!("not three cells: {first}, {becomes}");
        };
        if !first.starts_with('…') {
            parent = first;
        }
        let kinds = losses.split(',').map(|kind| kind.trim().trim_matches('`'));
        rows.push((
            parent,
            *first,
            *becomes,
            kinds.filter(|kind| !kind.is_empty()).collect(),
        ));
    }
    rows
}

#[test]
fn each_row_of_the_page_says_what_is_lost() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/translation.md")).unwrap();
    for (heading, examples) in [
        ("Fields", fields()),
        ("Blocks", blocks()),
        ("Tools", tool_rows()),
    ] {
        let mut tried = BTreeSet::new();
        for (parent, first, becomes, kinds) in rows_under(&page, heading) {
            if ELSEWHERE.iter().any(|row| first.starts_with(row)) {
                continue;
            }
            let found = examples.iter().position(|(of, row, _)| {
                parent.starts_with(of) && first.starts_with(row) && (of != row || first == parent)
            });
            let at = found.unwrap_or_else(|| panic!("{heading}, {first}: no request is tried"));
            tried.insert(at);
            let mut lost: BTreeMap<&str, &str> = BTreeMap::new();
            for body in &examples[at].2 {
                for lane in [Lane::Full, Lane::Lite] {
                    let (_, losses) = sent(body, lane);
                    lost.extend(losses.iter().map(|Loss { kind, how, .. }| (*kind, *how)));
                }
            }
            let lost_kinds: BTreeSet<&str> = lost.keys().copied().collect();
            assert_eq!(lost_kinds, kinds, "{heading}, {first}");
            for how in lost.values() {
                assert!(
                    becomes.contains(how),
                    "{heading}, {first}: {how} is not said"
                );
            }
        }
        for (at, (of, row, _)) in examples.iter().enumerate() {
            assert!(
                tried.contains(&at),
                "{heading}: there is no row {of} / {row}"
            );
        }
    }
}
