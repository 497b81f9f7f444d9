//! A long conversation, turn by turn, as the client replays it: what upstream saw in one turn is the
//! beginning of what it sees in the next, byte by byte, so that its prompt cache serves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ccx::catalogue::knobs::Knobs;
use ccx::catalogue::model::{Effort, Lane, Model};
use ccx::translate::papers::Papers;
use ccx::translate::reasoning::{Origin, Seal};
use ccx::translate::request::{Target, ToolCache, translate};
use ccx::wire::messages::Request;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const TURNS: usize = 20;

/// In this turn the model loads a deferred tool.
const LOADING_TURN: usize = 7;

fn model(lane: Lane) -> Model {
    Model {
        slug: "gpt-test".to_owned(),
        display_name: "GPT Test".to_owned(),
        listed: true,
        priority: 1,
        context_window: 272_000,
        effective_percent: 95,
        efforts: vec![Effort::Low, Effort::Medium, Effort::High],
        default_effort: Some(Effort::Medium),
        support_verbosity: true,
        default_verbosity: Some("low".to_owned()),
        service_tiers: Vec::new(),
        images: true,
        lite: lane == Lane::Lite,
    }
}

fn signature(origin: &Origin, turn: usize) -> String {
    Seal {
        account: &origin.account,
        model: &origin.model,
        id: &format!("rs_{turn}"),
        encrypted: &format!("gAAAA-{turn}="),
    }
    .write()
}

/// The system message as it is replayed, or as it comes when it is new.
fn system(text: &str, is_newest: bool) -> Value {
    let content = if is_newest {
        json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
    } else {
        json!(text)
    };
    json!({"role": "system", "content": content, "output_config": {"effort": "medium"}})
}

/// The model's answer in `turn`.
fn answer(origin: &Origin, turn: usize) -> Value {
    let mut blocks = vec![
        json!({"type": "thinking", "thinking": format!("thought {turn}"), "signature": signature(origin, turn)}),
    ];
    if turn.is_multiple_of(2) {
        blocks.push(json!({"type": "text", "text": format!("answer {turn} \"é\" \n")}));
    }
    if turn == LOADING_TURN {
        blocks.push(json!({"type": "tool_use", "id": "toolu_search", "name": "ToolSearch", "input": {"query": "select:WebFetch"}}));
    }
    for call in 0..turn % 4 {
        blocks.push(json!({
            "type": "tool_use", "id": format!("toolu_{turn}_{call}"), "name": "Read",
            "input": {"file_path": format!("/p/{turn}\\{call}"), "limit": 3}
        }));
    }
    json!({"role": "assistant", "content": blocks})
}

/// What the client says next: results in order of completion, then the person's words.
fn reaction(turn: usize) -> Value {
    let mut blocks = Vec::new();
    for call in (0..turn % 4).rev() {
        let id = format!("toolu_{turn}_{call}");
        blocks.push(match call {
            0 => json!({"type": "tool_result", "tool_use_id": id, "content": "line\n\tline"}),
            1 => json!({"type": "tool_result", "tool_use_id": id, "is_error": true, "content": "Exit code 3"}),
            _ => json!({"type": "tool_result", "tool_use_id": id, "content": [
                {"type": "text", "text": "a picture"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
            ]}),
        });
    }
    if turn == LOADING_TURN {
        blocks.push(
            json!({"type": "tool_result", "tool_use_id": "toolu_search", "content": [
                {"type": "tool_reference", "tool_name": "WebFetch"}
            ]}),
        );
    }
    blocks.push(json!({"type": "text", "text": format!("go on {turn}")}));
    json!({"role": "user", "content": blocks})
}

fn tools(turn: usize) -> Value {
    let tool = |name: &str| {
        json!({"name": name, "description": format!("does {name}"), "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "properties": {"pattern": {"type": "string", "pattern": "^x"}}, "additionalProperties": false
        }})
    };
    let deferred = |name: &str| {
        let mut tool = tool(name);
        tool["defer_loading"] = json!(true);
        tool
    };
    let mut tools = vec![tool("Read"), tool("ToolSearch"), tool("Write")];
    // The client puts loaded tools in their place by the alphabet, not at the end.
    if turn > LOADING_TURN {
        tools.insert(1, deferred("WebFetch"));
    }
    tools.push(deferred("DeferredToolPlaceholder"));
    tools.into()
}

/// The request in which the client asks for the answer of `turn`.
fn request(origin: &Origin, turn: usize) -> Vec<u8> {
    let mut messages = vec![
        json!({"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>\nday\n</system-reminder>"},
            {"type": "text", "text": "begin"}
        ]}),
        system("environment", turn == 0),
    ];
    for past in 0..turn {
        messages.push(answer(origin, past));
        messages.push(reaction(past));
        if past % 5 == 4 {
            messages.push(system(&format!("mode {past}"), past + 1 == turn));
        }
    }
    // The cache mark stands on the newest message.
    let newest = messages.last_mut().unwrap();
    if let Some(block) = newest["content"]
        .as_array_mut()
        .and_then(|blocks| blocks.last_mut())
    {
        block["cache_control"] = json!({"type": "ephemeral"});
    }
    let body = json!({
        "model": "claude-opus-5-5",
        "messages": messages,
        "system": [
            {"type": "text", "text": format!("x-anthropic-billing-header: cc_version=2.1.330.{turn:03x}; cc_entrypoint=cli;")},
            {"type": "text", "text": "identity", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "prompt", "cache_control": {"type": "ephemeral"}}
        ],
        "tools": tools(turn),
        "max_tokens": 128_000,
        "thinking": {"type": "adaptive", "display": "updates"},
        "output_config": {"effort": "medium"},
        "stream": true
    });
    serde_json::to_vec(&body).unwrap()
}

#[derive(serde::Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    prompt_cache_key: &'a str,
}

/// The array without its closing bracket.
fn open_end(array: &RawValue) -> &str {
    array.get().strip_suffix(']').unwrap()
}

fn replay(lane: Lane) -> Vec<Vec<u8>> {
    let model = model(lane);
    let origin = Origin::new("account", &model.slug);
    let mut cache = ToolCache::default();
    (0..=TURNS)
        .map(|turn| {
            let body = request(&origin, turn);
            let target = Target {
                model: &model,
                lane,
                origin: &origin,
                conversation: "conversation-1",
                tier: None,
                knobs: Knobs::default(),
                papers: &Papers::default(),
            };
            let translated =
                translate(&Request::parse(&body).unwrap(), &target, &mut cache).unwrap();
            assert_eq!(translated.losses, [], "turn {turn}");
            translated.body
        })
        .collect()
}

#[test]
fn each_turn_begins_with_the_bytes_of_the_turn_before() {
    for lane in [Lane::Full, Lane::Lite] {
        let bodies = replay(lane);
        for (turn, pair) in bodies.windows(2).enumerate() {
            let before: Sent<'_> = serde_json::from_slice(&pair[0]).unwrap();
            let after: Sent<'_> = serde_json::from_slice(&pair[1]).unwrap();
            assert_eq!(before.prompt_cache_key, after.prompt_cache_key);
            assert_begins(open_end(after.input), open_end(before.input), turn);
            if let (Some(before), Some(after)) = (before.tools, after.tools) {
                assert_begins(open_end(after), open_end(before), turn);
            }
        }
    }
}

fn assert_begins(after: &str, before: &str, turn: usize) {
    let same = before
        .bytes()
        .zip(after.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    assert!(
        same == before.len(),
        "turn {} leaves turn {turn} after {same} bytes: {:?} becomes {:?}",
        turn + 1,
        &before
            .get(same..)
            .unwrap_or_default()
            .chars()
            .take(80)
            .collect::<String>(),
        &after
            .get(same..)
            .unwrap_or_default()
            .chars()
            .take(80)
            .collect::<String>(),
    );
}

#[test]
fn encrypted_reasoning_stands_once_before_what_it_led_to() {
    for lane in [Lane::Full, Lane::Lite] {
        let bodies = replay(lane);
        let body: Value = serde_json::from_slice(bodies.last().unwrap()).unwrap();
        let input = body["input"].as_array().unwrap();
        let mut turns = 0;
        for (at, item) in input.iter().enumerate() {
            if item["type"] != "reasoning" {
                continue;
            }
            assert_eq!(item["id"], format!("rs_{turns}"));
            assert_eq!(item["encrypted_content"], format!("gAAAA-{turns}="));
            let next = &input[at + 1];
            assert!(
                next["type"] == "function_call" || next["role"] == "assistant",
                "{next}"
            );
            turns += 1;
        }
        assert_eq!(turns, TURNS, "{lane:?}");
    }
}

#[test]
fn a_loaded_tool_is_shown_after_the_result_that_loaded_it() {
    let names = |tools: &Value| -> Vec<String> {
        tools
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let lite: Value = serde_json::from_slice(replay(Lane::Lite).last().unwrap()).unwrap();
    let shown: Vec<_> = lite["input"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, item)| item["type"] == "additional_tools")
        .collect();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0].0, 0);
    assert_eq!(names(&shown[0].1["tools"]), ["Read", "ToolSearch", "Write"]);
    assert_eq!(names(&shown[1].1["tools"]), ["WebFetch"]);
    let before = &lite["input"][shown[1].0 - 1];
    assert_eq!(before["call_id"], "toolu_search");
    assert_eq!(before["type"], "function_call_output");

    let full: Value = serde_json::from_slice(replay(Lane::Full).last().unwrap()).unwrap();
    assert_eq!(
        names(&full["tools"]),
        ["Read", "ToolSearch", "Write", "WebFetch"]
    );
}
