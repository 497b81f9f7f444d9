//! Whatever blocks a request is made of: it is translated without a panic into valid JSON in which
//! calls and outputs are paired, and cutting a conversation short changes nothing of its beginning.

use std::collections::BTreeMap;

use ccx::catalogue::model::{Effort, Lane, Model};
use ccx::translate::estimate::input_tokens;
use ccx::translate::papers::Papers;
use ccx::translate::reasoning::{Origin, Seal};
use ccx::translate::request::{Target, ToolCache, translate};
use ccx::wire::messages::Request;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn model() -> Model {
    Model {
        slug: "gpt-test".to_owned(),
        display_name: "GPT Test".to_owned(),
        listed: true,
        priority: 1,
        context_window: 272_000,
        effective_percent: 95,
        efforts: vec![Effort::Low, Effort::Medium],
        default_effort: None,
        support_verbosity: false,
        default_verbosity: None,
        service_tiers: Vec::new(),
        images: true,
        lite: false,
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "\\PC{0,12}",
        "[\\x00-\\x7f]{0,12}",
        Just("x-anthropic-billing-header: x".to_owned()),
    ]
}

/// Few, so that calls and results meet, collide and miss each other.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ab]",
        1 => Just("x".repeat(80)),
        1 => Just(String::new()),
    ]
}

fn tool_name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("T".to_owned()),
        Just("late.tool".to_owned()),
        "\\PC{0,4}"
    ]
}

fn signature() -> impl Strategy<Value = String> {
    let origin = Origin::new("account", "gpt-test");
    prop_oneof![
        "[a-z]{0,8}",
        "[a-z]{1,3}".prop_map(move |id| {
            Seal {
                account: &origin.account,
                model: &origin.model,
                id: &format!("rs_{id}"),
                encrypted: "gA==",
            }
            .write()
        }),
    ]
}

fn media() -> impl Strategy<Value = Value> {
    let source = prop_oneof![
        ("(image/png|application/pdf|\\PC{0,4})", "[A-Za-z+/=!]{0,8}").prop_map(
            |(media_type, data)| json!({"type": "base64", "media_type": media_type, "data": data})
        ),
        text().prop_map(|url| json!({"type": "url", "url": url})),
        text().prop_map(|data| json!({"type": "text", "media_type": "text/plain", "data": data})),
        text().prop_map(
            |text| json!({"type": "content", "content": [{"type": "text", "text": text}]})
        ),
        text().prop_map(|kind| json!({"type": format!("x{kind}")})),
    ];
    ("(image|document)", source, prop::option::of(text()))
        .prop_map(|(kind, source, title)| json!({"type": kind, "source": source, "title": title}))
}

fn block() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(|text| json!({"type": "text", "text": text})),
        media(),
        (id(), tool_name(), prop_oneof![Just(json!({"a": "\"\\\n"})), Just(json!(null)), text().prop_map(Value::from)])
            .prop_map(|(id, name, input)| json!({"type": "tool_use", "id": id, "name": name, "input": input})),
        signature().prop_map(|signature| json!({"type": "thinking", "thinking": "t", "signature": signature})),
        signature().prop_map(|data| json!({"type": "redacted_thinking", "data": data})),
        tool_name().prop_map(|name| json!({"type": "tool_reference", "tool_name": name})),
        tool_name().prop_map(|name| json!({"type": "server_tool_use", "id": "s", "name": name, "input": {"q": 1}})),
        prop_oneof![Just(json!([{"title": "t", "url": "u"}, 3])), Just(json!({}))]
            .prop_map(|content| json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": content})),
        text().prop_map(|kind| json!({"type": format!("x{kind}"), "text": 3})),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let content = prop_oneof![
            text().prop_map(Value::from),
            Just(Value::Null),
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ];
        (id(), content, prop::option::of(any::<bool>())).prop_map(|(id, content, is_error)| {
            json!({"type": "tool_result", "tool_use_id": id, "content": content, "is_error": is_error})
        })
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

fn request() -> impl Strategy<Value = Value> {
    let tools = json!([
        {"name": "T", "input_schema": {}},
        {"name": "late.tool", "defer_loading": true, "input_schema": {"type": "object"}},
        {"type": "web_search_20250305", "name": "web_search"}
    ]);
    (
        prop::collection::vec(message(), 1..8),
        prop::option::of(prop::collection::vec(block(), 0..3)),
        any::<bool>(),
    )
        .prop_map(move |(messages, system, has_tools)| {
            let tools = if has_tools { tools.clone() } else { json!([]) };
            json!({"model": "m", "messages": messages, "system": system, "tools": tools})
        })
}

fn sent(request: &Value, lane: Lane) -> Vec<u8> {
    let model = model();
    let origin = Origin::new("account", "gpt-test");
    let target = Target {
        model: &model,
        lane,
        origin: &origin,
        conversation: "c",
        tier: None,
        effort: None,
        papers: &Papers::default(),
    };
    let body = serde_json::to_vec(request).unwrap();
    let request = Request::parse(&body).unwrap();
    assert!(input_tokens(&request) > 0);
    translate(&request, &target, &mut ToolCache::default())
        .unwrap()
        .body
}

/// The number of calls and outputs with each id, in the order: every call comes first.
fn assert_paired(input: &[Value]) {
    let mut open: BTreeMap<&str, i32> = BTreeMap::new();
    for item in input {
        let Some(id) = item["call_id"].as_str() else {
            continue;
        };
        assert!(id.chars().count() <= 64 && !id.is_empty(), "{id}");
        match item["type"].as_str().unwrap() {
            "function_call" => assert_eq!(open.insert(id, 1), None, "called twice: {id}"),
            _ => assert_eq!(open.insert(id, 0), Some(1), "not called: {id}"),
        }
    }
    assert!(open.values().all(|count| *count == 0), "{open:?}");
}

fn assert_reasoning_leads_somewhere(input: &[Value]) {
    for pair in input.windows(2) {
        if pair[0]["type"] == "reasoning" {
            assert!(
                pair[1]["type"] == "reasoning"
                    || pair[1]["type"] == "function_call"
                    || pair[1]["role"] == "assistant",
                "{}",
                pair[1]
            );
        }
    }
    assert!(input.last().is_none_or(|item| item["type"] != "reasoning"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn any_soup_of_blocks_becomes_a_request_that_keeps_the_rules(request in request()) {
        for lane in [Lane::Full, Lane::Lite] {
            let body = sent(&request, lane);
            let value: Value = serde_json::from_slice(&body).unwrap();
            let input = value["input"].as_array().unwrap();
            assert_paired(input);
            assert_reasoning_leads_somewhere(input);
            prop_assert!(input.iter().any(|item| item["role"] == "developer" && item["type"] == "message"));
            for part in input.iter().filter_map(|item| item["content"].as_array()).flatten() {
                prop_assert!(part["text"] != "", "an empty part");
            }
            prop_assert_eq!(&body, &sent(&request, lane));
        }
    }

    /// Only where the cut parts a call from its result, or reasoning from what it led to, may the
    /// beginning differ.
    #[test]
    fn a_longer_conversation_begins_like_the_shorter_one(request in request(), cut: prop::sample::Index) {
        let mut shorter = request.clone();
        let messages = shorter["messages"].as_array_mut().unwrap();
        let cut = 1 + cut.index(messages.len());
        messages.truncate(cut);
        let text = messages.iter().map(Value::to_string).collect::<String>();
        let rest: String = request["messages"].as_array().unwrap()[cut..].iter().map(Value::to_string).collect();
        prop_assume!(!text.contains("tool_use\"") || !rest.contains("tool_result\""));
        prop_assume!(!text.contains("ccx1:"));
        for lane in [Lane::Full, Lane::Lite] {
            let (long, short) = (sent(&request, lane), sent(&shorter, lane));
            prop_assert!(input(&long).starts_with(input(&short)));
        }
    }

    #[test]
    fn damaged_bodies_never_panic(request in request(), at: prop::sample::Index, byte: u8) {
        let mut body = serde_json::to_vec(&request).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = Request::parse(&body);
        let _ = Request::parse(&body[..at]);
    }
}

fn input(body: &[u8]) -> &str {
    #[derive(serde::Deserialize)]
    struct Sent<'a> {
        #[serde(borrow)]
        input: &'a RawValue,
    }
    let sent: Sent<'_> = serde_json::from_slice(body).unwrap();
    sent.input.get().strip_suffix(']').unwrap()
}
