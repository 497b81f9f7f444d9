//! What single fields and blocks become, as tables. The names in brackets are those of the hazards
//! that a table covers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "pages/translation.rs"]
mod page;

use ccx::catalogue::knobs::{Knob, Knobs, Summary, Verbosity};
use ccx::catalogue::model::{Effort, Lane, Model};
use ccx::translate::papers::{Paper, Papers};
use ccx::translate::reasoning::{Origin, Seal};
use ccx::translate::request::{
    Loss, LossPlace, RequestError, Target, ToolCache, Translated, translate,
};
use ccx::wire::messages::Request;
use serde_json::{Value, json};
use std::sync::Arc;

fn model() -> Model {
    Model {
        slug: "gpt-test".to_owned(),
        display_name: "GPT Test".to_owned(),
        listed: true,
        priority: 1,
        context_window: 272_000,
        effective_percent: 95,
        efforts: vec![Effort::Low, Effort::Medium, Effort::High, Effort::Xhigh],
        default_effort: Some(Effort::Medium),
        support_verbosity: true,
        default_verbosity: Some("low".to_owned()),
        service_tiers: Vec::new(),
        images: true,
        lite: false,
    }
}

fn origin() -> Origin {
    Origin::new("account", "gpt-test")
}

fn try_sent(body: &Value, lane: Lane, model: &Model) -> Result<Translated, RequestError> {
    let mut papers = Papers::default();
    let pages = ["one", "two"].map(|text| Some(text.to_owned()));
    papers.add("JVBERi0x", Arc::new(Paper::of(2, &pages)));
    try_told(body, lane, model, &papers)
}

fn try_told(
    body: &Value,
    lane: Lane,
    model: &Model,
    papers: &Papers<'_>,
) -> Result<Translated, RequestError> {
    let origin = origin();
    let target = Target {
        model,
        lane,
        origin: &origin,
        conversation: "c",
        tier: None,
        knobs: Knobs::default(),
        papers,
    };
    let body = serde_json::to_vec(body).unwrap();
    let request = Request::parse(&body).unwrap();
    translate(&request, &target, &mut ToolCache::default())
}

fn sent(body: &Value, lane: Lane) -> (Value, Vec<Loss>) {
    let translated = try_sent(body, lane, &model()).unwrap();
    (
        serde_json::from_slice(&translated.body).unwrap(),
        anywhere(&translated.losses),
    )
}

/// The losses without their places.
fn anywhere(losses: &[Loss]) -> Vec<Loss> {
    losses
        .iter()
        .map(|loss| loss.at(LossPlace::Field))
        .collect()
}

/// The items of a conversation, without the base developer message.
fn items(messages: Value, lane: Lane) -> (Value, Vec<Loss>) {
    let (body, losses) = sent(&json!({"model": "m", "messages": messages}), lane);
    let items = body["input"].as_array().unwrap();
    assert_eq!(
        items[0],
        json!({"type": "message", "role": "developer", "content": [
            {"type": "input_text", "text": "You are a helpful assistant."}
        ]})
    );
    (items[1..].into(), losses)
}

fn user(parts: Value) -> Value {
    json!({"type": "message", "role": "user", "content": parts})
}

fn input_text(text: &str) -> Value {
    json!({"type": "input_text", "text": text})
}

fn call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "T", "input": {}})
}

fn called(id: &str) -> Value {
    json!({"type": "function_call", "call_id": id, "name": "T", "arguments": "{}"})
}

fn output(id: &str, output: Value) -> Value {
    json!({"type": "function_call_output", "call_id": id, "output": output})
}

fn result(id: &str, content: Value) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": content})
}

fn signed(id: &str) -> Value {
    let origin = origin();
    let signature = Seal {
        account: &origin.account,
        model: &origin.model,
        id,
        encrypted: "gA==",
    }
    .write();
    json!({"type": "thinking", "thinking": "t", "signature": signature})
}

fn reasoning(id: &str) -> Value {
    json!({"type": "reasoning", "id": id, "summary": [], "content": null, "encrypted_content": "gA=="})
}

/// Runs a table of (what, messages, items, losses) on both lanes.
fn table(rows: &[(&str, Value, Value, &[Loss])]) {
    for (what, messages, expected, losses) in rows {
        for lane in [Lane::Full, Lane::Lite] {
            let (items, found) = items(messages.clone(), lane);
            assert_eq!(&items, expected, "{what}, {lane:?}");
            assert_eq!(&found, losses, "{what}, {lane:?}");
        }
    }
}

#[test]
fn messages_become_items_in_their_order() {
    // [D01, D02, D14, D18, D36, D37]
    table(&[
        (
            "a string and one text block mean the same",
            json!([{"role": "user", "content": "a"}, {"role": "user", "content": [
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
            ]}]),
            json!([
                user(json!([input_text("a")])),
                user(json!([input_text("a")]))
            ]),
            &[],
        ),
        (
            "empty texts leave nothing, white space stays",
            json!([
                {"role": "user", "content": ""},
                {"role": "user", "content": []},
                {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": " "}]}
            ]),
            json!([user(json!([input_text(" ")]))]),
            &[],
        ),
        (
            "system messages stay where they are",
            json!([
                {"role": "assistant", "content": "a"},
                {"role": "system", "content": "s", "output_config": {"effort": "low"}},
                {"role": "system", "content": [{"type": "text", "text": "t"}]},
                {"role": "user", "content": "u"}
            ]),
            json!([
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
                {"type": "message", "role": "developer", "content": [input_text("s")]},
                {"type": "message", "role": "developer", "content": [input_text("t")]},
                user(json!([input_text("u")]))
            ]),
            &[],
        ),
        (
            "text around results keeps its place",
            json!([
                {"role": "assistant", "content": [call("a"), call("b")]},
                {"role": "user", "content": [
                    {"type": "text", "text": "1"}, result("b", json!("B")), result("a", json!("A")), {"type": "text", "text": "2"}
                ]}
            ]),
            json!([
                called("a"),
                called("b"),
                user(json!([input_text("1")])),
                output("b", json!("B")),
                output("a", json!("A")),
                user(json!([input_text("2")]))
            ]),
            &[],
        ),
        (
            "the beginning of an answer is kept",
            json!([{"role": "user", "content": "u"}, {"role": "assistant", "content": "{"}]),
            json!([
                user(json!([input_text("u")])),
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "{"}]}
            ]),
            &[Loss::approximated("prefill")],
        ),
        (
            "unknown blocks leave a marker",
            json!([{"role": "user", "content": [{"type": "new\"kind", "x": [1]}, {"type": "text", "text": "u"}]}]),
            json!([user(json!([
                input_text("[Content of kind new\"kind cannot be shown here]"),
                input_text("u")
            ]))]),
            &[Loss::marked("unknown_block")],
        ),
    ]);
}

#[test]
fn calls_and_results_are_paired() {
    // [D08, D11, D12]
    let long = "x".repeat(69);
    let (shortened, _) = items(
        json!([
            {"role": "assistant", "content": [call(&long)]},
            {"role": "user", "content": [result(&long, json!("r"))]}
        ]),
        Lane::Full,
    );
    let id = shortened[0]["call_id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    assert!(id.starts_with(&"x".repeat(31)));
    assert_eq!(shortened[1]["call_id"], id);

    table(&[
        (
            "a result without its call is told as text",
            json!([{"role": "user", "content": [result("a", json!("r")), {"type": "text", "text": "u"}]}]),
            json!([user(json!([
                input_text("[Result of a tool call that is not part of this conversation]"),
                input_text("r"),
                input_text("u")
            ]))]),
            &[Loss::approximated("orphan_tool_result")],
        ),
        (
            "a result before its call is no result of it",
            json!([
                {"role": "user", "content": [result("a", json!("r"))]},
                {"role": "assistant", "content": [call("a")]},
                {"role": "user", "content": "u"}
            ]),
            json!([
                user(json!([
                    input_text("[Result of a tool call that is not part of this conversation]"),
                    input_text("r")
                ])),
                called("a"),
                output("a", json!("[The call was interrupted; there is no result]")),
                user(json!([input_text("u")]))
            ]),
            &[
                Loss::approximated("orphan_tool_result"),
                Loss::approximated("missing_tool_result"),
            ],
        ),
        (
            "a second result is left out",
            json!([
                {"role": "assistant", "content": [call("a")]},
                {"role": "user", "content": [result("a", json!("r")), result("a", json!("again"))]}
            ]),
            json!([called("a"), output("a", json!("r"))]),
            &[Loss::dropped("repeated_tool_result")],
        ),
    ]);
}

#[test]
fn a_result_in_the_system_prompt_answers_no_call() {
    // Used to take the answer of a call in the conversation.
    let (body, losses) = sent(
        &json!({
            "model": "m",
            "system": [result("a", json!("r"))],
            "messages": [
                {"role": "assistant", "content": [call("a")]},
                {"role": "user", "content": [result("a", json!("r"))]}
            ]
        }),
        Lane::Full,
    );
    assert_eq!(body["input"][1], called("a"));
    assert_eq!(body["input"][2], output("a", json!("r")));
    assert_eq!(losses, [Loss::marked("misplaced_block")]);
}

#[test]
fn calls_with_the_same_id_are_told_apart() {
    let (items, losses) = items(
        json!([
            {"role": "assistant", "content": [call("a")]},
            {"role": "user", "content": [result("a", json!("1"))]},
            {"role": "assistant", "content": [call("a")]},
            {"role": "user", "content": [result("a", json!("2"))]}
        ]),
        Lane::Full,
    );
    assert_eq!(losses, []);
    assert_eq!(items[0], called("a"));
    assert_eq!(items[1], output("a", json!("1")));
    let second = items[2]["call_id"].as_str().unwrap();
    assert_ne!(second, "a");
    assert_eq!(items[3], output(second, json!("2")));
}

#[test]
fn results_say_what_the_tool_said() {
    // [D15, D16, D19, D20]
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}});
    let shown = |lane| match lane {
        Lane::Full => {
            json!({"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "high"})
        }
        Lane::Lite => {
            json!({"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="})
        }
    };
    for lane in [Lane::Full, Lane::Lite] {
        let rows = [
            (json!("a\"b\n"), false, json!("a\"b\n")),
            (json!("a"), true, json!("[error] a")),
            (json!(null), false, json!("(no output)")),
            (json!(""), true, json!("[error] (no output)")),
            (json!([]), false, json!("(no output)")),
            (
                json!([{"type": "text", "text": ""}]),
                false,
                json!("(no output)"),
            ),
            (json!([{"type": "text", "text": "t"}]), false, json!("t")),
            (
                json!([{"type": "text", "text": "t"}, image]),
                false,
                json!([input_text("t"), shown(lane)]),
            ),
            (
                json!([image]),
                true,
                json!([input_text("[error]"), shown(lane)]),
            ),
            (
                json!([{"type": "tool_reference", "tool_name": "X"}, {"type": "odd"}]),
                false,
                json!([
                    input_text("Loaded tool: X"),
                    input_text("[Content of kind odd cannot be shown here]")
                ]),
            ),
            (
                json!([result("b", json!("nested"))]),
                false,
                json!([input_text("[A tool call or result that was out of place]")]),
            ),
            (
                json!([{"type": "thinking", "thinking": "t"}]),
                false,
                json!([input_text("(no output)")]),
            ),
        ];
        for (content, is_error, expected) in rows {
            let (items, _) = items(
                json!([
                    {"role": "assistant", "content": [call("a")]},
                    {"role": "user", "content": [
                        {"tool_use_id": "a", "type": "tool_result", "content": content, "is_error": is_error}
                    ]}
                ]),
                lane,
            );
            assert_eq!(items[1], output("a", expected), "{content}");
        }
    }
}

#[test]
fn arguments_are_the_input_as_json_in_a_string() {
    // [D17]
    let rows = [
        (
            r#"{"b":1.50,"a":"\"\\ é\n"}"#,
            r#"{"b":1.50,"a":"\"\\ é\n"}"#,
        ),
        (r#"{"path":"\/x"}"#, r#"{"path":"\/x"}"#),
        (r#"{"half":"\ud800"}"#, r#"{"half":"\ufffd"}"#),
        ("[1,2]", "[1,2]"),
        ("null", "{}"),
        (r#""""#, "{}"),
        (r#""{\"a\":1""#, r#"{"a":1"#),
    ];
    for (input, expected) in rows {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"a","name":"T","input":{input}}}]}}]}}"#
        );
        let origin = origin();
        let model = model();
        let target = Target {
            model: &model,
            lane: Lane::Full,
            origin: &origin,
            conversation: "c",
            tier: None,
            knobs: Knobs::default(),
            papers: &Papers::default(),
        };
        let request = Request::parse(body.as_bytes()).unwrap();
        let translated = translate(&request, &target, &mut ToolCache::default()).unwrap();
        let value: Value = serde_json::from_slice(&translated.body).unwrap();
        assert_eq!(value["input"][1]["arguments"], expected, "{input}");
    }
}

#[test]
fn texts_are_spliced_as_they_were_escaped() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"\/ \u00e9 \ud83d\ude00 \ud800 \\ud800"}]}"#;
    let origin = origin();
    let model = model();
    let target = Target {
        model: &model,
        lane: Lane::Lite,
        origin: &origin,
        conversation: "c",
        tier: Some("priority"),
        knobs: Knobs::default(),
        papers: &Papers::default(),
    };
    let request = Request::parse(body).unwrap();
    let translated = translate(&request, &target, &mut ToolCache::default()).unwrap();
    assert_eq!(
        String::from_utf8(translated.body).unwrap(),
        concat!(
            r#"{"model":"gpt-test","stream":true,"service_tier":"priority","input":["#,
            r#"{"type":"message","role":"developer","content":[{"type":"input_text","text":"You are a helpful assistant."}]},"#,
            r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"\/ \u00e9 \ud83d\ude00 \ufffd \\ud800"}]}],"#,
            r#""parallel_tool_calls":false,"reasoning":{"effort":"medium","context":"all_turns"},"#,
            r#""store":false,"include":["reasoning.encrypted_content"],"prompt_cache_key":"c","text":{"verbosity":"low"}}"#
        )
    );
}

#[test]
fn only_our_reasoning_is_replayed_once_and_never_alone() {
    // [D38, E02, E03, E05]
    let said = |text: &str| json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]});
    let text = |text: &str| json!({"type": "text", "text": text});
    let foreign = json!({"type": "thinking", "thinking": "t", "signature": "EqQB"});
    let cut = {
        let mut block = signed("rs_1");
        let signature = block["signature"].as_str().unwrap().to_owned();
        block["signature"] = json!(signature[..signature.len() - 2]);
        block
    };
    let redacted = json!({"type": "redacted_thinking", "data": signed("rs_9")["signature"]});
    let go_on = json!({"role": "user", "content": "u"});
    let user = user(json!([input_text("u")]));
    table(&[
        (
            "before what it led to",
            json!([{"role": "assistant", "content": [signed("rs_1"), text("a"), signed("rs_2"), signed("rs_3"), call("c")]},
                {"role": "user", "content": [result("c", json!("r"))]}]),
            json!([
                reasoning("rs_1"),
                said("a"),
                reasoning("rs_2"),
                reasoning("rs_3"),
                called("c"),
                output("c", json!("r"))
            ]),
            &[],
        ),
        (
            "hidden reasoning too",
            json!([{"role": "assistant", "content": [redacted, text("a")]}, go_on]),
            json!([reasoning("rs_9"), said("a"), user]),
            &[],
        ),
        (
            "not that of others, not what was cut, not what was never signed",
            json!([{"role": "assistant", "content": [foreign, text("a"), cut, text("b"), {"type": "thinking", "thinking": "t"}]}, go_on]),
            json!([
                {"type": "message", "role": "assistant", "content": [
                    {"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}
                ]},
                user
            ]),
            &[
                Loss::dropped("thinking"),
                Loss::dropped("thinking"),
                Loss::dropped("thinking"),
            ],
        ),
        (
            "not alone",
            json!([{"role": "assistant", "content": [text("a"), signed("rs_1")]}, go_on]),
            json!([said("a"), user]),
            &[Loss::dropped("reasoning_alone")],
        ),
        (
            "not in front of an output that stands in",
            json!([{"role": "assistant", "content": [call("c"), signed("rs_1")]}, go_on]),
            json!([
                called("c"),
                output("c", json!("[The call was interrupted; there is no result]")),
                user
            ]),
            &[
                Loss::approximated("missing_tool_result"),
                Loss::dropped("reasoning_alone"),
            ],
        ),
        (
            "once, though the client sent it twice",
            json!([{"role": "assistant", "content": [signed("rs_1"), text("a")]}, {"role": "assistant", "content": [signed("rs_1"), text("b")]}, go_on]),
            json!([reasoning("rs_1"), said("a"), said("b"), user]),
            &[],
        ),
        (
            "over the border of two messages of one answer",
            json!([{"role": "assistant", "content": [signed("rs_1")]}, {"role": "assistant", "content": [text("b")]}, go_on]),
            json!([reasoning("rs_1"), said("b"), user]),
            &[],
        ),
    ]);
}

/// The smallest pictures that are known as such.
const PNG: &str = "iVBORw0KGgo=";
const JPEG: &str = "/9j/4AAQSkZJRg==";

fn in_base64(kind: &str, media_type: &str, data: &str) -> Value {
    json!({"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}})
}

#[test]
fn images_are_passed_or_marked() {
    // [D20, D21]
    let by_url = |url: &str| json!({"type": "image", "source": {"type": "url", "url": url}});
    let shown = |kind: &str, data: &str, lane| {
        let url = format!("data:{kind};base64,{data}");
        json!([match lane {
            Lane::Full => json!({"type": "input_image", "image_url": url, "detail": "high"}),
            Lane::Lite => json!({"type": "input_image", "image_url": url}),
        }])
    };
    let unreadable = || json!([input_text("[An image was here that could not be read]")]);
    for lane in [Lane::Full, Lane::Lite] {
        let at_address = match lane {
            Lane::Full => {
                json!([{"type": "input_image", "image_url": "https://e.x/i.png", "detail": "high"}])
            }
            Lane::Lite => json!([input_text("[An image was here, at https://e.x/i.png]")]),
        };
        let lost_address = Loss::marked("image_url");
        let rows: [(Value, Value, Option<Loss>); 10] = [
            // Upstream fetches nothing else, and refuses the request for it.
            (
                by_url("http://e.x/i.png"),
                json!([input_text("[An image was here, at http://e.x/i.png]")]),
                Some(lost_address),
            ),
            (
                in_base64("image", "image/png", PNG),
                shown("image/png", PNG, lane),
                None,
            ),
            // The bytes say what it is, not who sent it.
            (
                in_base64("image", "image/png", JPEG),
                shown("image/jpeg", JPEG, lane),
                None,
            ),
            (
                in_base64("image", "text/html", PNG),
                shown("image/png", PNG, lane),
                None,
            ),
            (
                by_url(&format!("data:image/png;base64,{PNG}")),
                shown("image/png", PNG, lane),
                None,
            ),
            (
                by_url("https://e.x/i.png"),
                at_address,
                (lane == Lane::Lite).then_some(lost_address),
            ),
            (
                in_base64("image", "image/png", "not base64!"),
                unreadable(),
                Some(Loss::marked("image_data")),
            ),
            (
                in_base64("image", "image/svg+xml", "PHN2ZyB4bWxucz0iIi8+"),
                unreadable(),
                Some(Loss::marked("image_data")),
            ),
            (
                in_base64("image", "image/png", ""),
                unreadable(),
                Some(Loss::marked("image_data")),
            ),
            (
                json!({"type": "image", "source": {"type": "file", "file_id": "f"}}),
                unreadable(),
                Some(Loss::marked("image_source")),
            ),
        ];
        for (block, parts, loss) in rows {
            // As the user shows it, and as tools do: alone, behind a text, in a failure.
            let (sent, found) = items(json!([{"role": "user", "content": [block]}]), lane);
            assert_eq!(sent, json!([user(parts.clone())]), "{block}");
            assert_eq!(found, Vec::from_iter(loss), "{block}");
            let text = json!({"type": "text", "text": "t"});
            for (content, is_error, before) in [
                (json!([block]), false, vec![]),
                (json!([text, block]), false, vec!["t"]),
                (json!([text, block]), true, vec!["[error]", "t"]),
            ] {
                let mut returned = result("a", content);
                returned["is_error"] = json!(is_error);
                let (sent, _) = items(
                    json!([
                        {"role": "assistant", "content": [call("a")]},
                        {"role": "user", "content": [returned]}
                    ]),
                    lane,
                );
                let mut expected: Vec<_> = before.into_iter().map(input_text).collect();
                expected.extend(parts.as_array().unwrap().iter().cloned());
                // A single text is told as a string.
                let is_text = expected.len() == 1 && expected[0]["type"] == "input_text";
                if !is_text {
                    assert_eq!(sent[1], output("a", json!(expected)), "{block}");
                }
            }
        }
    }
}

#[test]
fn documents_are_passed_told_or_marked() {
    // [D19, D20]
    let pdf = in_base64("document", "application/pdf", "JVBERi0x");
    let mut named = pdf.clone();
    named["title"] = json!("a \"b\"");
    named["context"] = json!("from here");
    let text_document = json!({
        "type": "document", "title": "notes", "context": "from here",
        "source": {"type": "text", "media_type": "text/plain", "data": "N"}
    });
    let by_url = json!({"type": "document", "title": "far", "source": {"type": "url", "url": "https://e.x/d.pdf"}});
    let blocks = json!({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "B"}]}});
    let no_document = input_text("[A document was here that cannot be shown]");
    let both = [Lane::Full, Lane::Lite];
    let rows: [(Value, &[Lane], Value, &[Loss]); 11] = [
        (
            pdf.clone(),
            &[Lane::Full],
            json!([{"type": "input_file", "filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}]),
            &[],
        ),
        (
            named.clone(),
            &[Lane::Full],
            json!([
                input_text("from here"),
                {"type": "input_file", "filename": "a \"b\"", "file_data": "data:application/pdf;base64,JVBERi0x"}
            ]),
            &[],
        ),
        (
            pdf,
            &[Lane::Lite],
            json!([
                input_text("[Text of a PDF, 2 pages; pictures and layout are not shown]"),
                input_text("[Page 1]\none\n\n[Page 2]\ntwo")
            ]),
            &[Loss::approximated("document_text")],
        ),
        (
            named,
            &[Lane::Lite],
            json!([
                input_text("from here"),
                input_text(
                    "[Text of the PDF \"a \"b\"\", 2 pages; pictures and layout are not shown]"
                ),
                input_text("[Page 1]\none\n\n[Page 2]\ntwo")
            ]),
            &[Loss::approximated("document_text")],
        ),
        (
            in_base64("document", "application/pdf", "AAAA"),
            &[Lane::Lite],
            json!([input_text("[A PDF was here that could not be read]")]),
            &[Loss::marked("document")],
        ),
        (
            text_document,
            &both,
            json!([
                input_text("Document: notes"),
                input_text("from here"),
                input_text("N")
            ]),
            &[],
        ),
        (blocks, &both, json!([input_text("B")]), &[]),
        (
            in_base64("document", "text/markdown", "aMOpbGxv"),
            &both,
            json!([input_text("h\u{e9}llo")]),
            &[],
        ),
        (
            in_base64("document", "image/png", "PHN2Zz48"),
            &both,
            json!([input_text("[An image was here that could not be read]")]),
            &[Loss::marked("image_data")],
        ),
        (
            by_url,
            &both,
            json!([
                input_text("Document: far"),
                input_text("[A document was here, at https://e.x/d.pdf; it was not fetched]")
            ]),
            &[Loss::marked("document_url")],
        ),
        (
            in_base64("document", "application/msword", "AAAA"),
            &both,
            json!([no_document]),
            &[Loss::marked("document")],
        ),
    ];
    for (block, lanes, parts, losses) in rows {
        for &lane in lanes {
            let (sent, found) = items(json!([{"role": "user", "content": [block]}]), lane);
            assert_eq!(sent, json!([user(parts.clone())]), "{block}");
            assert_eq!(found, losses, "{block}");
            let (sent, _) = items(
                json!([
                    {"role": "assistant", "content": [call("a")]},
                    {"role": "user", "content": [result("a", json!([{"type": "text", "text": "t"}, block]))]}
                ]),
                lane,
            );
            let mut expected = vec![input_text("t")];
            expected.extend(parts.as_array().unwrap().iter().cloned());
            assert_eq!(sent[1], output("a", json!(expected)), "{block}");
        }
    }
}

#[test]
fn a_scan_and_a_pdf_that_was_cut_say_so() {
    for (paper, expected, loss) in [
        (
            Paper::Scan { pages: 1 },
            vec![
                "[A PDF was here, 1 page; it holds no text, only pictures, which cannot be shown]",
            ],
            Loss::marked("document"),
        ),
        (
            Paper::Text {
                pages: 9,
                shown: 4,
                text: "T".to_owned(),
            },
            vec![
                "[Text of a PDF, 9 pages; pictures and layout are not shown; only the beginning: it ends on page 4]",
                "T",
            ],
            Loss::approximated("document_text"),
        ),
    ] {
        let mut papers = Papers::default();
        papers.add("JVBERi0x", Arc::new(paper));
        let body = json!({"model": "m", "messages": [{"role": "user", "content": [
            in_base64("document", "application/pdf", "JVBERi0x")
        ]}]});
        let translated = try_told(&body, Lane::Lite, &model(), &papers).unwrap();
        let sent: Value = serde_json::from_slice(&translated.body).unwrap();
        let expected: Vec<_> = expected.into_iter().map(input_text).collect();
        assert_eq!(sent["input"][1], user(json!(expected)));
        assert_eq!(anywhere(&translated.losses), [loss]);
    }
}

#[test]
fn old_pictures_of_a_long_conversation_are_left_out_in_steps() {
    // [D21]: 24 MiB may stay; beyond that the oldest go, 8 MiB at a time.
    let picture = format!("{}{}", &PNG[..8], "A".repeat((4 << 20) - 8));
    let file = in_base64("document", "application/pdf", &picture).to_string();
    let picture = in_base64("image", "image/png", &picture).to_string();
    let sent_on = |lane: Lane, block: &str, count: usize| {
        let message = |at: usize| {
            format!(r#"{{"role":"user","content":[{{"type":"text","text":"{at}"}},{block}]}}"#)
        };
        let messages: Vec<_> = (0..count).map(message).collect();
        let body = format!(r#"{{"model":"m","messages":[{}]}}"#, messages.join(","));
        let request = Request::parse(body.as_bytes()).unwrap();
        let (origin, model, papers) = (origin(), model(), Papers::default());
        let target = Target {
            model: &model,
            lane,
            origin: &origin,
            conversation: "c",
            tier: None,
            knobs: Knobs::default(),
            papers: &papers,
        };
        translate(&request, &target, &mut ToolCache::default()).unwrap()
    };
    let sent = |count: usize| sent_on(Lane::Lite, &picture, count);
    let (earlier, later) = (sent(7), sent(8));
    assert_eq!(anywhere(&earlier.losses), [Loss::marked("old_image"); 2]);
    assert_eq!(later.losses, earlier.losses);
    let same = earlier.body.iter().zip(&later.body);
    let same = same.take_while(|(a, b)| a == b).count();
    assert!(same > 5 * (4 << 20), "the prefix stays: {same}");
    let start = String::from_utf8_lossy(&later.body[..2_000]).into_owned();
    assert!(
        start.contains("[An image was here; too many came after it]"),
        "{start}"
    );
    let files = sent_on(Lane::Full, &file, 7);
    assert_eq!(anywhere(&files.losses), [Loss::marked("old_document"); 2]);
}

#[test]
fn a_model_without_eyes_gets_a_marker() {
    let blind = Model {
        images: false,
        ..model()
    };
    let body = json!({"model": "m", "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    ]}]});
    let translated = try_sent(&body, Lane::Full, &blind).unwrap();
    assert_eq!(anywhere(&translated.losses), [Loss::marked("image")]);
}

#[test]
fn searches_of_the_past_are_told_as_text() {
    // [D39]
    let (items, losses) = items(
        json!([
            {"role": "assistant", "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": [
                    {"type": "web_search_result", "title": "T", "url": "https://e.x", "encrypted_content": "x"}
                ]},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"}},
                {"type": "text", "text": "a", "citations": []}
            ]},
            {"role": "user", "content": "u"}
        ]),
        Lane::Full,
    );
    let texts: Vec<_> = items[0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            (
                part["type"].as_str().unwrap(),
                part["text"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        texts,
        [
            ("output_text", r#"[Called web_search with {"query":"q"}]"#),
            ("output_text", "[Search results]\n- T: https://e.x"),
            ("output_text", "[The search failed: unavailable]"),
            ("output_text", "a"),
        ]
    );
    assert_eq!(losses.len(), 3);
}

#[test]
fn searches_that_upstream_made_are_its_own_again_where_the_lane_has_them() {
    // [D39]
    let history = json!([
        {"role": "assistant", "content": [
            {"type": "server_tool_use", "id": "srvtoolu_ws_1", "name": "web_search", "input": {"query": "a \"b\""}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_ws_1", "content": [
                {"type": "web_search_result", "title": "T", "url": "https://e.x", "encrypted_content": "", "page_age": null}
            ]},
            {"type": "server_tool_use", "id": "srvtoolu_ws_2", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_ws_2", "content": []},
            {"type": "text", "text": "a", "citations": [
                {"type": "web_search_result_location", "url": "https://e.x", "title": "T", "encrypted_index": "", "cited_text": ""}]}
        ]},
        {"role": "user", "content": "u"}
    ]);
    let (full, losses) = items(history.clone(), Lane::Full);
    assert_eq!(
        full[0],
        json!({"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "a \"b\""}})
    );
    let texts = |item: &Value| -> Vec<String> {
        let parts = item["content"].as_array().unwrap();
        parts
            .iter()
            .map(|part| part["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let found = "[Search results]\n- T: https://e.x";
    assert_eq!(
        texts(&full[1]),
        [
            found,
            "[Called web_search with {}]",
            "[Search results]",
            "a"
        ]
    );
    let kinds: Vec<_> = losses.iter().map(|loss| loss.kind).collect();
    assert_eq!(
        kinds,
        ["web_search_result", "server_tool_use", "web_search_result"]
    );
    // What has no place on the lite lane is words, and so is a call that stands in a result.
    let (lite, _) = items(history, Lane::Lite);
    assert_eq!(texts(&lite[0]).len(), 5);
    let (inside, _) = items(
        json!([
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t", "name": "T", "input": {}},
                {"type": "tool_result", "tool_use_id": "t", "content": [
                    {"type": "server_tool_use", "id": "srvtoolu_ws_1", "name": "web_search", "input": {"query": "q"}}]}
            ]},
            {"role": "user", "content": "u"}
        ]),
        Lane::Full,
    );
    assert_eq!(
        inside[1]["output"][0]["text"],
        r#"[Called web_search with {"query":"q"}]"#
    );
}

fn with_tools(tools: Value, more: Value) -> Value {
    let mut body =
        json!({"model": "m", "messages": [{"role": "user", "content": "u"}], "tools": tools});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn tool_choice_never_names_what_is_not_there() {
    // [D23, D24]
    let tool = json!([{"name": "T", "input_schema": {}}]);
    let search = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 8, "allowed_domains": ["e.x"]}]);
    let rows = [
        (json!([]), json!({"type": "any"}), json!(null), json!(null)),
        (tool.clone(), json!(null), json!("auto"), json!(true)),
        (
            tool.clone(),
            json!({"type": "auto", "disable_parallel_tool_use": true}),
            json!("auto"),
            json!(false),
        ),
        (
            tool.clone(),
            json!({"type": "any"}),
            json!("required"),
            json!(true),
        ),
        (
            tool.clone(),
            json!({"type": "none"}),
            json!("none"),
            json!(true),
        ),
        (
            tool.clone(),
            json!({"type": "tool", "name": "T"}),
            json!({"type": "function", "name": "T"}),
            json!(true),
        ),
        (
            tool.clone(),
            json!({"type": "tool", "name": "gone"}),
            json!("auto"),
            json!(true),
        ),
        (tool, json!({"type": "new"}), json!("auto"), json!(true)),
        (
            search,
            json!({"type": "tool", "name": "web_search"}),
            json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}),
            json!(true),
        ),
    ];
    for (tools, choice, expected, parallel) in rows {
        let body = with_tools(tools, json!({"tool_choice": choice}));
        let (full, _) = sent(&body, Lane::Full);
        assert_eq!(full["tool_choice"], expected, "{choice}");
        assert_eq!(full["parallel_tool_calls"], parallel, "{choice}");
        let (lite, _) = sent(&body, Lane::Lite);
        assert_eq!(lite["parallel_tool_calls"], false, "{choice}");
    }
}

#[test]
fn hosted_search_goes_where_it_is_taken() {
    let body = with_tools(
        json!([{"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["e.x"], "blocked_domains": null}]),
        json!({}),
    );
    let (full, losses) = sent(&body, Lane::Full);
    assert_eq!(
        full["tools"],
        json!([{"type": "web_search", "external_web_access": true, "search_content_types": ["text", "image"],
            "filters": {"allowed_domains": ["e.x"]}}])
    );
    assert_eq!(losses, []);
    let told = full["input"][0]["content"].as_array().unwrap();
    assert_eq!(
        told.last().unwrap()["text"],
        "Cite every page that your answer uses."
    );
    let (lite, losses) = sent(&body, Lane::Lite);
    assert!(!lite.to_string().contains("web_search"));
    assert_eq!(losses, [Loss::dropped("web_search")]);
    assert_eq!(lite["input"][0]["content"].as_array().unwrap().len(), 1);
}

#[test]
fn there_is_one_hosted_search_and_it_stands_beside_the_functions() {
    // [I04]
    let tools = json!([
        {"name": "T", "input_schema": {}},
        {"type": "web_search_20260209", "name": "look_up", "max_uses": 3},
        {"type": "web_search_preview", "name": "again"},
    ]);
    let body = with_tools(
        tools,
        json!({"tool_choice": {"type": "tool", "name": "look_up"}}),
    );
    let (full, losses) = sent(&body, Lane::Full);
    let kinds: Vec<_> = full["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["function", "web_search"]);
    assert_eq!(
        full["tool_choice"],
        json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]})
    );
    assert_eq!(losses, [Loss::dropped("duplicate_tool")]);
    let translated = try_sent(&body, Lane::Full, &model()).unwrap();
    let search = translated.search.unwrap();
    assert_eq!(
        (search.name.as_str(), search.max_uses),
        ("look_up", Some(3))
    );
    assert_eq!(try_sent(&body, Lane::Lite, &model()).unwrap().search, None);
}

#[test]
fn a_search_that_cannot_be_bounded_is_refused() {
    // [I02]
    let body = with_tools(
        json!([{"name": "T"}, {"type": "web_search_20250305", "name": "s", "allowed_domains": ["a.example", "b.example/x"]}]),
        json!({}),
    );
    for lane in [Lane::Full, Lane::Lite] {
        let error = try_sent(&body, lane, &model()).unwrap_err().to_string();
        assert!(error.starts_with("tools.1.allowed_domains.1:"), "{error}");
    }
}

#[test]
fn illegal_tool_names_are_mapped_everywhere_and_back() {
    // [D10]: also a deferred tool that was never loaded, and one that is in the history only.
    let long = format!("mcp__{}", "server".repeat(12));
    let body = json!({
        "model": "m",
        "tools": [
            {"name": long, "input_schema": {}},
            {"name": "late.tool", "defer_loading": true, "input_schema": {}},
            {"name": long, "input_schema": {}}
        ],
        "tool_choice": {"type": "tool", "name": long},
        "messages": [
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "a", "name": long, "input": {}},
                {"type": "tool_use", "id": "b", "name": "gone tool", "input": {}}
            ]},
            {"role": "user", "content": [result("a", json!("r")), result("b", json!("r"))]}
        ]
    });
    let translated = try_sent(&body, Lane::Full, &model()).unwrap();
    let value: Value = serde_json::from_slice(&translated.body).unwrap();
    let name = value["tools"][0]["name"].as_str().unwrap();
    assert_eq!(name.len(), 64);
    assert_eq!(value["tools"].as_array().unwrap().len(), 1);
    assert_eq!(value["input"][1]["name"], name);
    assert_eq!(value["tool_choice"]["name"], name);
    assert_eq!(translated.names.original(name), long);
    let gone = value["input"][2]["name"].as_str().unwrap();
    assert_eq!(translated.names.original(gone), "gone tool");
    assert_eq!(
        anywhere(&translated.losses),
        [Loss::dropped("duplicate_tool")]
    );

    let mut names = ccx::translate::names::ToolNames::default();
    let late = names.rename("late.tool".into(), |_| false);
    assert_eq!(translated.names.original(&late), "late.tool");
}

#[test]
fn a_reference_loads_its_tool_once_wherever_it_stands() {
    // [D27]: also when the call that loaded it was cut away.
    let reference = json!({"type": "tool_reference", "tool_name": "Late"});
    let loaded = || json!([reference]);
    let conversations = [
        json!([
            {"role": "assistant", "content": [call("a")]},
            {"role": "user", "content": [result("a", loaded()), result("a", loaded()), {"type": "text", "text": "u"}]}
        ]),
        json!([{"role": "user", "content": [result("cut", loaded()), {"type": "text", "text": "u"}]}]),
        json!([{"role": "user", "content": [reference, {"type": "text", "text": "u"}]}, {"role": "user", "content": "v"}]),
    ];
    for messages in conversations {
        let body = json!({
            "model": "m", "messages": messages, "tool_choice": {"type": "tool", "name": "Late"},
            "tools": [{"name": "T", "input_schema": {}}, {"name": "Late", "defer_loading": true, "input_schema": {}}]
        });
        let (full, _) = sent(&body, Lane::Full);
        let names: Vec<_> = full["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].clone())
            .collect();
        assert_eq!(names, ["T", "Late"]);
        assert_eq!(full["tool_choice"]["name"], "Late");
        let (lite, _) = sent(&body, Lane::Lite);
        assert_eq!(lite["tool_choice"]["name"], "Late");
        let items = lite["input"].as_array().unwrap();
        let shown: Vec<_> = items
            .iter()
            .filter(|item| item["type"] == "additional_tools")
            .collect();
        assert_eq!(shown.len(), 2, "{lite}");
        assert_eq!(shown[1]["tools"][0]["name"], "Late");
        // A reference that nobody can follow shows nothing.
        let gone = json!({"model": "m", "messages": messages, "tools": [{"name": "T", "input_schema": {}}]});
        assert_eq!(
            sent(&gone, Lane::Full).0["tools"].as_array().unwrap().len(),
            1
        );
    }
}

#[test]
fn another_model_in_mid_conversation_gets_everything_but_the_reasoning() {
    // [D13, E03, E04]: also while a call is open, and when the request offers no tools.
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": [signed("rs_1"), {"type": "text", "text": "a"}, call("a"), call("b")]},
        {"role": "user", "content": [result("a", json!("r")), result("b", json!("r"))]}
    ]});
    let request = serde_json::to_vec(&body).unwrap();
    let request = Request::parse(&request).unwrap();
    let mut bodies = Vec::new();
    for slug in ["gpt-test", "gpt-other"] {
        for lane in [Lane::Full, Lane::Lite] {
            let target = Target {
                model: &model(),
                lane,
                origin: &Origin::new("account", slug),
                conversation: "c",
                tier: None,
                knobs: Knobs::default(),
                papers: &Papers::default(),
            };
            let translated = translate(&request, &target, &mut ToolCache::default()).unwrap();
            let sent: Value = serde_json::from_slice(&translated.body).unwrap();
            let items = sent["input"].as_array().unwrap()[2..].to_vec();
            bodies.push((items, anywhere(&translated.losses)));
        }
    }
    let said = json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]});
    let rest = vec![
        said,
        called("a"),
        called("b"),
        output("a", json!("r")),
        output("b", json!("r")),
    ];
    let mut own = vec![reasoning("rs_1")];
    own.extend(rest.clone());
    let other = (rest, vec![Loss::dropped("thinking")]);
    assert_eq!(
        bodies,
        [(own.clone(), vec![]), (own, vec![]), other.clone(), other]
    );
}

#[test]
fn effort_follows_the_order_of_who_says_it() {
    // [D30, D31]
    let message = |effort: Value| json!([{"role": "system", "content": "s", "output_config": effort}, {"role": "user", "content": "u"}]);
    let rows = [
        (json!({}), "medium", None),
        (json!({"output_config": {"effort": "high"}}), "high", None),
        (
            json!({"output_config": {"effort": "high"}, "messages": message(json!({"effort": "low"}))}),
            "low",
            None,
        ),
        (
            json!({"output_config": {"effort": "high"}, "messages": message(json!({}))}),
            "high",
            None,
        ),
        (
            json!({"output_config": {"effort": "max"}}),
            "xhigh",
            Some(Loss::approximated("effort")),
        ),
        (
            json!({"output_config": {"effort": "odd"}}),
            "medium",
            Some(Loss::dropped("effort")),
        ),
        (json!({"thinking": {"type": "adaptive"}}), "medium", None),
        (json!({"thinking": {"type": "disabled"}}), "low", None),
        (
            json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}),
            "high",
            None,
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            "low",
            None,
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 10_000}}),
            "medium",
            None,
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 31_999}}),
            "high",
            None,
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 64_000}}),
            "xhigh",
            None,
        ),
    ];
    for (more, expected, loss) in rows {
        let (body, losses) = sent(&with_tools(json!([]), more.clone()), Lane::Full);
        assert_eq!(body["reasoning"]["effort"], expected, "{more}");
        assert_eq!(losses, Vec::from_iter(loss), "{more}");
    }
}

#[test]
fn a_summary_is_asked_for_where_thinking_is_shown() {
    let rows = [
        (json!(null), false),
        (json!({"type": "disabled"}), false),
        (json!({"type": "adaptive", "display": "omitted"}), false),
        (json!({"type": "adaptive", "display": "updates"}), true),
        (json!({"type": "enabled", "budget_tokens": 2000}), true),
    ];
    for (thinking, expected) in rows {
        let (body, _) = sent(
            &with_tools(json!([]), json!({"thinking": thinking})),
            Lane::Lite,
        );
        assert_eq!(
            body["reasoning"]["summary"] == "auto",
            expected,
            "{thinking}"
        );
    }
}

#[test]
fn a_schema_for_the_answer_is_named() {
    // [D29]
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    for place in [
        json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
        json!({"output_format": {"type": "json_schema", "schema": schema}}),
        json!({"output_format": {"type": "json_schema", "schema": schema}, "output_config": {"effort": "low"}}),
    ] {
        let (body, _) = sent(&with_tools(json!([]), place), Lane::Lite);
        assert_eq!(
            body["text"],
            json!({"verbosity": "low", "format": {"type": "json_schema", "strict": false, "schema": schema, "name": "answer"}})
        );
    }
}

const FIELDS_WITHOUT_PLACE: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "context_management",
    "safeguards",
    "speed",
];

#[test]
fn what_upstream_has_no_place_for_is_counted() {
    // [D05, D34]
    let body = with_tools(
        json!(null),
        json!({
            "temperature": 0.5, "top_p": 1, "top_k": 3, "stop_sequences": ["x"], "max_tokens": 64,
            "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}, "safeguards": [{}],
            "metadata": {"user_id": "u"}, "betas": ["x"], "mcp_servers": [], "container": null, "speed": "fast"
        }),
    );
    let (_, losses) = sent(&body, Lane::Lite);
    let kinds: Vec<_> = losses.iter().map(|loss| loss.kind).collect();
    assert_eq!(kinds, FIELDS_WITHOUT_PLACE);
}

#[test]
fn requests_that_cannot_be_translated_say_why() {
    let rows = [
        (
            json!({"model": "m", "messages": []}),
            "messages: at least one message is required",
        ),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": "u"}], "tools": [{"name": 3}]}),
            "tools.0.name: expected a string",
        ),
    ];
    for (body, expected) in rows {
        let error = try_sent(&body, Lane::Full, &model()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn every_loss_stands_in_the_documentation() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/translation.md")).unwrap();
    // Those of plain fields are told by a table, not one by one.
    let mut kinds: std::collections::BTreeSet<String> = FIELDS_WITHOUT_PLACE
        .iter()
        .map(|kind| (*kind).to_owned())
        .collect();
    let mut places = vec![root.join("src/translate")];
    while let Some(place) = places.pop() {
        if place.is_dir() {
            let entries = std::fs::read_dir(&place).unwrap();
            places.extend(entries.map(|entry| entry.unwrap().path()));
            continue;
        }
        let source = std::fs::read_to_string(place).unwrap();
        for call in ["dropped(\"", "approximated(\"", "marked(\"", "mark(\""] {
            kinds.extend(source.match_indices(call).map(|(at, _)| {
                let name = source[at + call.len()..].split('"').next();
                name.unwrap().to_owned()
            }));
        }
    }
    assert!(kinds.len() > 15, "{kinds:?}");
    for kind in kinds {
        assert!(
            page.contains(&format!("`{kind}`")),
            "{kind} is not explained"
        );
    }
}

#[test]
fn what_the_person_has_set_comes_before_what_the_request_says() {
    // [D30, D31, D33]
    let model = model();
    let origin = origin();
    let sent = |body: Value, knobs: Knobs, tier: Option<&str>| {
        let mut whole = json!({"model": "m", "messages": [{"role": "user", "content": "u"}]});
        let more = body.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(more);
        let target = Target {
            model: &model,
            lane: Lane::Full,
            origin: &origin,
            conversation: "c",
            tier,
            knobs,
            papers: &Papers::default(),
        };
        let bytes = serde_json::to_vec(&whole).unwrap();
        let request = Request::parse(&bytes).unwrap();
        let translated = translate(&request, &target, &mut ToolCache::default()).unwrap();
        let body: Value = serde_json::from_slice(&translated.body).unwrap();
        (body, translated.losses)
    };
    let none = Knobs::default;
    let effort = |effort| Knobs {
        effort: Knob::Is(effort),
        ..none()
    };
    let bounds = |least, most| Knobs {
        effort_min: least,
        effort_max: most,
        ..none()
    };
    let high = json!({"output_config": {"effort": "high"}});
    let off = json!({"thinking": {"type": "disabled"}});
    for (body, knobs, want) in [
        (&high, effort(Effort::Low), "low"),
        (&json!({}), effort(Effort::High), "high"),
        (&off, effort(Effort::High), "high"),
        (&off, bounds(Knob::Is(Effort::High), Knob::Unset), "low"),
        (
            &high,
            bounds(Knob::Unset, Knob::Is(Effort::Medium)),
            "medium",
        ),
        (
            &json!({}),
            bounds(Knob::Unset, Knob::Is(Effort::Low)),
            "low",
        ),
        (
            &json!({}),
            bounds(Knob::Is(Effort::High), Knob::Unset),
            "high",
        ),
        (&json!({}), none(), "medium"),
    ] {
        let (sent, losses) = sent(body.clone(), knobs, None);
        assert_eq!(sent["reasoning"]["effort"], want, "{body} {knobs:?}");
        assert_eq!(losses, [], "{body} {knobs:?}");
    }

    let summary = |summary| Knobs {
        summary: Knob::Is(summary),
        ..none()
    };
    let thinks = |display: &str| json!({"thinking": {"type": "adaptive", "display": display}});
    for (body, knobs, want) in [
        (thinks("updates"), none(), json!("auto")),
        (thinks("omitted"), none(), Value::Null),
        (thinks("omitted"), summary(Summary::Shown), json!("auto")),
        (
            thinks("updates"),
            summary(Summary::Detailed),
            json!("detailed"),
        ),
        (thinks("updates"), summary(Summary::Hidden), Value::Null),
        (json!({}), summary(Summary::Shown), Value::Null),
        (off.clone(), summary(Summary::Shown), Value::Null),
    ] {
        let (sent, _) = sent(body.clone(), knobs, None);
        assert_eq!(sent["reasoning"]["summary"], want, "{body} {knobs:?}");
    }

    let wordy = Knobs {
        verbosity: Knob::Is(Verbosity::High),
        ..none()
    };
    assert_eq!(sent(json!({}), wordy, None).0["text"]["verbosity"], "high");
    assert_eq!(sent(json!({}), none(), None).0["text"]["verbosity"], "low");

    let fast = json!({"speed": "fast"});
    let (body, losses) = sent(fast.clone(), none(), Some("priority"));
    assert_eq!(
        (&body["service_tier"], losses),
        (&json!("priority"), vec![])
    );
    let (body, losses) = sent(fast, none(), None);
    assert_eq!(body["service_tier"], Value::Null);
    assert_eq!(losses, [Loss::dropped("speed")]);
    let (_, losses) = sent(json!({"speed": "standard"}), none(), None);
    assert_eq!(losses, []);
}

#[test]
fn reasoning_does_not_lead_to_the_tools_that_are_shown_after_it() {
    let body = json!({
        "model": "claude-opus-5-5",
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_reference", "tool_name": "Late"}, signed("rs_1")]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
            {"role": "user", "content": "go on"}
        ],
        "tools": [{"name": "Late", "defer_loading": true, "input_schema": {}}]
    });
    let (sent, _) = sent(&body, Lane::Lite);
    let kinds: Vec<&str> = sent["input"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    let shown = kinds.iter().rposition(|kind| *kind == "additional_tools");
    let reasoning = kinds.iter().position(|kind| *kind == "reasoning");
    assert!(shown.is_some() && shown < reasoning, "{kinds:?}");
    assert_eq!(kinds[reasoning.unwrap() + 1], "message", "{kinds:?}");
}
