//! Responses streams become legal Messages streams: recorded ones, cut ones, and each kind of event.
//!
//! `laws/streams.rs` has any soup of events.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/grammar.rs"]
mod grammar;
#[path = "support/machine.rs"]
mod machine;

use std::fs;

use ccx::sse::{Decoder, Frame};
use ccx::translate::reasoning::Origin;
use ccx::translate::stream::{
    EMPTY_COMPLETION, Machine, NAMELESS_CALL, STALLED_ARGUMENTS, Step, TOO_LONG, UNSTATED,
};
use ccx::wire::responses::{StreamFailure, Usage};
use grammar::check;
use machine::*;
use serde_json::{Value, json};

/// Compares with a golden file; `CCX_BLESS=1` writes it instead.
fn golden(path: &str, text: &str) {
    let path = here().join("tests/golden").join(path);
    if std::env::var_os("CCX_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; CCX_BLESS=1 writes it", path.display()));
    assert!(
        wanted == text,
        "{} differs; CCX_BLESS=1 rewrites it. Now:\n{text}",
        path.display()
    );
}

#[test]
fn recorded_streams_translate_as_written_down() {
    for (name, stream) in fixtures() {
        let run = run(&[&stream]);
        check(&run.output);
        golden(&format!("streams/{name}.sse"), &run.output);
    }
}

#[test]
fn recorded_streams_fold_to_what_they_stream() {
    for (name, stream) in fixtures() {
        let streamed = run(&[&stream]);
        let (fold, step) = fold(&stream);
        assert_eq!(step, streamed.step, "{name}");
        assert_eq!(fold.usage(), streamed.usage, "{name}");
        if step == Step::Finished {
            same_message(&fold.into_body(), &check(&streamed.output));
        }
    }
}

#[test]
fn truncated_streams_are_legal_prefixes_and_never_look_whole() {
    for (name, stream) in fixtures() {
        let whole = run(&[&stream]);
        let mut checked = String::new();
        for cut in 0..stream.len() {
            let part = run(&[&stream[..cut]]);
            if part.output != checked {
                check(&part.output);
                checked.clone_from(&part.output);
            }
            if part.step == Step::Continue {
                assert!(
                    !part.output.contains("message_stop"),
                    "{name} cut at byte {cut}"
                );
                let told = part.output.split("event: error").next().unwrap();
                assert!(whole.output.starts_with(told), "{name} cut at byte {cut}");
            } else {
                // The cut came after the terminal event.
                assert_eq!(part, whole, "{name} cut at byte {cut}");
            }
        }
    }
}

#[test]
fn streams_do_not_depend_on_chunking() {
    for (name, stream) in fixtures() {
        let whole = run(&[&stream]);
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(run(&[head, tail]), whole, "{name} cut at byte {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(run(&bytes), whole, "{name} byte by byte");
        let crlf = String::from_utf8(stream).unwrap().replace('\n', "\r\n");
        assert_eq!(run(&[crlf.as_bytes()]), whole, "{name} with CRLF");
    }
}

#[test]
fn interleaved_items_become_blocks_in_upstreams_order() {
    let events = [
        added(0, message(0, "")),
        added(1, call(1, "a", "")),
        added(2, call(2, "short", "")),
        arguments_delta(2, "{\"x\":"),
        text_delta(0, "He"),
        arguments_delta(1, "{\"y\""),
        done(2, call(2, "short", "{\"x\":1}")),
        text_delta(0, "llo"),
        arguments_delta(1, ":2}"),
        done(0, message(0, "Hello")),
        done(1, call(1, "a", "{\"y\":2}")),
        completed(),
    ];
    assert_eq!(
        content(&events),
        [
            text("Hello"),
            tool("call1", "a", json!({"y": 2})),
            tool("call2", "mcp__a very long name", json!({"x": 1})),
        ]
    );
}

#[test]
fn every_text_is_told_once_however_it_comes() {
    let deltas = [text_delta(0, "He"), text_delta(0, "llo")];
    let done_text = json!({"type": "response.output_text.done", "output_index": 0, "item_id": "i0", "content_index": 0, "text": "Hello"});
    let item_done = done(0, message(0, "Hello"));
    let in_completed =
        json!({"type": "response.completed", "response": {"output": [message(0, "Hello")]}});
    for events in [
        vec![deltas[0].clone(), deltas[1].clone(), completed()],
        vec![deltas[0].clone(), done_text.clone(), completed()],
        vec![deltas[0].clone(), item_done.clone(), completed()],
        vec![
            done_text.clone(),
            done_text.clone(),
            item_done.clone(),
            item_done.clone(),
            completed(),
        ],
        vec![item_done.clone(), deltas[1].clone(), done_text, completed()],
        vec![item_done, in_completed.clone()],
        vec![
            added(0, message(0, "")),
            deltas[0].clone(),
            in_completed.clone(),
        ],
        vec![in_completed],
    ] {
        assert_eq!(content(&events), [text("Hello")], "{events:?}");
    }
    // What was streamed cannot be taken back, and is not told again in other words.
    let events = [
        text_delta(0, "Hullo"),
        done(0, message(0, "Hello you")),
        completed(),
    ];
    assert_eq!(content(&events), [text("Hullo")]);
}

#[test]
fn arguments_are_told_once_and_never_empty() {
    let arguments_done = |arguments: &str| json!({"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "i0", "arguments": arguments});
    let whole = "{\"a\":\"\\n\"}";
    let begin = added(0, call(0, "f", ""));
    let end = done(0, call(0, "f", whole));
    let wanted = [tool("call0", "f", json!({"a": "\n"}))];
    for events in [
        vec![
            begin.clone(),
            arguments_delta(0, "{\"a\":"),
            arguments_done(whole),
            end.clone(),
            completed(),
        ],
        vec![begin.clone(), arguments_done(whole), completed()],
        vec![begin.clone(), end.clone(), completed()],
        vec![end.clone(), completed()],
        // The name comes last.
        vec![
            arguments_delta(0, "{\"a\":"),
            arguments_done(whole),
            end.clone(),
            completed(),
        ],
        vec![
            added(0, call(0, "", "")),
            arguments_delta(0, "{\"a\":"),
            end,
            completed(),
        ],
        vec![
            begin.clone(),
            done(
                0,
                json!({"type": "function_call", "id": "i0", "arguments": {"a": "\n"}}),
            ),
            completed(),
        ],
    ] {
        assert_eq!(content(&events), wanted, "{events:?}");
    }
    for empty in ["", " ", "\n\t"] {
        let events = [
            begin.clone(),
            arguments_delta(0, empty),
            done(0, call(0, "f", empty)),
            completed(),
        ];
        assert_eq!(
            content(&events),
            [tool("call0", "f", json!({}))],
            "{empty:?}"
        );
    }
    // Arguments that contradict what was streamed add nothing to it.
    let events = [
        begin,
        arguments_delta(0, "{\"a\":1"),
        done(0, call(0, "f", "{ \"a\": 1}")),
        completed(),
    ];
    assert_eq!(content(&events), [tool("call0", "f", json!("{\"a\":1"))]);
}

#[test]
fn blank_pages_of_a_read_are_left_out() {
    // [D28]: the client's `Read` refuses them, and the model does not know what it did wrong.
    let whole = r#"{"file_path":"a","pages":""}"#;
    let pieces = |name: &str| {
        vec![
            added(0, call(0, name, "")),
            arguments_delta(0, r#"{"file_path":"a","#),
            arguments_delta(0, r#""pages":""}"#),
            done(0, call(0, name, whole)),
            completed(),
        ]
    };
    let read = [tool("call0", "Read", json!({"file_path": "a"}))];
    assert_eq!(content(&pieces("Read")), read);
    assert_eq!(
        content(&[done(0, call(0, "Read", whole)), completed()]),
        read
    );
    let other = [tool(
        "call0",
        "mcp__x__Read",
        json!({"file_path": "a", "pages": ""}),
    )];
    assert_eq!(content(&pieces("mcp__x__Read")), other);
    // What is not told to its end does not become whole.
    let cut = [
        added(0, call(0, "Read", "")),
        arguments_delta(0, r#"{"pages":"""#),
        json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}),
    ];
    assert_eq!(
        told(&cut).content,
        [tool("call0", "Read", json!(r#"{"pages":"""#))]
    );
    let none = [done(0, call(0, "Read", "")), completed()];
    assert_eq!(content(&none), [tool("call0", "Read", json!({}))]);
}

#[test]
fn a_call_needs_a_name_but_no_id() {
    let events = [
        done(
            0,
            json!({"type": "function_call", "name": "f", "id": "fc_1", "arguments": "{}"}),
        ),
        completed(),
    ];
    assert_eq!(content(&events), [tool("fc_1", "f", json!({}))]);
    let events = [
        done(
            0,
            json!({"type": "function_call", "name": "f", "call_id": null, "arguments": "{}"}),
        ),
        completed(),
    ];
    assert_eq!(content(&events), [tool("call_msg_1_0", "f", json!({}))]);
    for events in [
        vec![done(
            0,
            json!({"type": "function_call", "call_id": "c", "arguments": "{}"}),
        )],
        vec![arguments_delta(0, "{}"), completed()],
    ] {
        assert_eq!(failure(&events).code.as_deref(), Some(NAMELESS_CALL));
    }
}

#[test]
fn arguments_that_stall_in_whitespace_fail() {
    let mut events = vec![
        added(0, call(0, "Read", "")),
        arguments_delta(0, "{\"a\":1,"),
    ];
    let blank = " \n".repeat(500);
    events.extend((0..40).map(|_| arguments_delta(0, &blank)));
    events.push(completed());
    assert_eq!(failure(&events).code.as_deref(), Some(STALLED_ARGUMENTS));
}

#[test]
fn reasoning_is_one_thinking_block_with_its_seal() {
    let seal = "ccx1:0123456789ab:gpt-6:i0:gAAA==;";
    let answer = done(1, message(1, "x"));
    for (events, wanted) in [
        (
            vec![
                summary_delta(0, 0, "a"),
                summary_delta(0, 1, "b"),
                done(0, reasoning(0, &["a", "b"], Some("gAAA=="))),
            ],
            Some(thinking("a\n\nb", seal)),
        ),
        (
            vec![done(0, reasoning(0, &["a", "b"], Some("gAAA==")))],
            Some(thinking("a\n\nb", seal)),
        ),
        (
            vec![
                added(0, reasoning(0, &[], None)),
                done(0, reasoning(0, &[], Some("gAAA=="))),
            ],
            Some(thinking("", seal)),
        ),
        (
            vec![
                added(0, reasoning(0, &[], None)),
                done(0, reasoning(0, &["a"], None)),
            ],
            Some(thinking("a", "")),
        ),
        (
            vec![
                added(0, reasoning(0, &[], None)),
                done(0, reasoning(0, &[""], Some(""))),
            ],
            None,
        ),
        (
            vec![
                json!({"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "raw"}),
                done(0, reasoning(0, &[], None)),
            ],
            Some(thinking("raw", "")),
        ),
    ] {
        let events = [events, vec![answer.clone(), completed()]].concat();
        let wanted: Vec<Value> = wanted.into_iter().chain([text("x")]).collect();
        assert_eq!(content(&events), wanted, "{events:?}");
    }
}

#[test]
fn parts_of_a_message_are_blocks_and_refusals_are_text() {
    let item = json!({"type": "message", "id": "i0", "content": [
        {"type": "output_text", "text": "a"}, null, {"type": "refusal", "refusal": "I cannot"}, {"type": "output_image"}
    ]});
    let refusal = json!({"type": "response.refusal.delta", "output_index": 0, "item_id": "i0", "content_index": 2, "delta": "I can"});
    let message = told(&[text_delta(0, "a"), refusal, done(0, item), completed()]);
    assert_eq!(message.content, [text("a"), text("I cannot")]);
    assert_eq!(message.end.unwrap().0, "end_turn");
}

#[test]
fn a_custom_call_carries_its_text_as_input() {
    let item = |input: &str| json!({"type": "custom_tool_call", "id": "i0", "call_id": "c", "name": "short", "input": input});
    let delta = json!({"type": "response.custom_tool_call_input.delta", "output_index": 0, "item_id": "i0", "delta": "say \"h"});
    for events in [
        vec![
            added(0, item("")),
            delta,
            done(0, item("say \"hi\"\n\\")),
            completed(),
        ],
        vec![done(0, item("say \"hi\"\n\\")), completed()],
    ] {
        assert_eq!(
            content(&events),
            [tool(
                "c",
                "mcp__a very long name",
                json!({"input": "say \"hi\"\n\\"})
            )]
        );
    }
    assert_eq!(
        content(&[done(0, item("")), completed()]),
        [tool("c", "mcp__a very long name", json!({"input": ""}))]
    );
}

#[test]
fn items_without_place_or_id_are_kept_apart() {
    let bare = |text: &str| json!({"type": "response.output_item.done", "item": {"type": "message", "content": [{"type": "output_text", "text": text}]}});
    assert_eq!(
        content(&[bare("a"), bare("b"), completed()]),
        [text("a"), text("b")]
    );
    let delta = |text: &str| json!({"type": "response.output_text.delta", "delta": text});
    assert_eq!(
        content(&[delta("a"), delta("b"), bare("abc"), completed()]),
        [text("abc")]
    );
    // The same place again, but another item.
    let events = [
        done(0, message(0, "a")),
        done(0, message(1, "b")),
        done(0, message(1, "b")),
        completed(),
    ];
    assert_eq!(content(&events), [text("a"), text("b")]);
}

#[test]
fn usage_is_told_in_anthropics_terms() {
    let run = run(&[stream(&[done(0, message(0, "a")), completed()]).as_bytes()]);
    assert_eq!(
        run.usage,
        Some(Usage {
            input_tokens: 10,
            cached_tokens: 4,
            output_tokens: 3,
            reasoning_tokens: 1
        })
    );
    let usage = check(&run.output).end.unwrap().1;
    assert_eq!(
        usage,
        json!({"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 3})
    );
    for odd in [json!(null), json!("many"), json!({"input_tokens": "x"})] {
        let end = json!({"type": "response.completed", "response": {"usage": odd}});
        let usage = told(&[done(0, message(0, "a")), end]).end.unwrap().1;
        assert_eq!(usage, json!({"output_tokens": 0}));
    }
    let more_cached = json!({"type": "response.done", "response": {"usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 5}, "output_tokens_details": null}}});
    let usage = told(&[done(0, message(0, "a")), more_cached])
        .end
        .unwrap()
        .1;
    assert_eq!(
        usage,
        json!({"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1, "output_tokens": 0})
    );
}

#[test]
fn failures_are_read_in_every_shape() {
    let code = |code: &str| StreamFailure {
        code: Some(code.to_owned()),
        ..StreamFailure::default()
    };
    for (event, wanted) in [
        (
            json!({"type": "response.failed", "response": {"error": {"code": "a", "message": "m", "type": "t", "resets_at": 7}}}),
            StreamFailure {
                message: Some("m".to_owned()),
                kind: Some("t".to_owned()),
                resets_at: Some(7),
                ..code("a")
            },
        ),
        (
            json!({"type": "response.failed", "response": {"error": null}}),
            StreamFailure::default(),
        ),
        (json!({"type": "response.failed"}), StreamFailure::default()),
        (
            json!({"type": "response.completed", "response": {"status": "failed", "error": null}}),
            StreamFailure::default(),
        ),
        (
            json!({"type": "response.completed", "response": {"error": {"code": "a"}}}),
            code("a"),
        ),
        (
            json!({"type": "response.done", "response": {"status": "failed", "error": {"code": "a"}}}),
            code("a"),
        ),
        (
            json!({"type": "error", "error": {"code": "a"}, "status": 429}),
            StreamFailure {
                status: Some(429),
                ..code("a")
            },
        ),
        (
            json!({"type": "error", "error": {"code": null, "message": null, "type": null}, "status": null}),
            StreamFailure::default(),
        ),
        (
            json!({"type": "error", "error": "boom"}),
            StreamFailure {
                message: Some("boom".to_owned()),
                ..StreamFailure::default()
            },
        ),
        (
            json!({"type": "error", "code": "a", "message": null, "param": null}),
            code("a"),
        ),
        (json!({"type": "error", "code": 500}), code("500")),
        (
            json!({"type": "error", "error": null, "code": "a"}),
            code("a"),
        ),
        (
            json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}),
            StreamFailure {
                incomplete: Some("content_filter".to_owned()),
                ..StreamFailure::default()
            },
        ),
        (
            json!({"type": "response.incomplete", "response": {"incomplete_details": null}}),
            StreamFailure {
                incomplete: Some(UNSTATED.to_owned()),
                ..StreamFailure::default()
            },
        ),
        (completed(), code(EMPTY_COMPLETION)),
    ] {
        assert_eq!(failure(std::slice::from_ref(&event)), wanted, "{event}");
    }
    for data in [r#"{"error":{"code":"a"}}"#, r#"{"detail":{"code":"a"}}"#] {
        let step = run(&[format!("data: {data}\n\n").as_bytes()]).step;
        assert_eq!(step, Step::Failed(code("a")), "{data}");
    }
    assert_eq!(
        run(&[b"event: error\ndata: no json\n\n"]).step,
        Step::Failed(StreamFailure::default())
    );
}

#[test]
fn the_last_token_ends_the_turn_with_what_there_is() {
    let end = json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}});
    for (events, wanted) in [
        (vec![text_delta(0, "half")], vec![text("half")]),
        (vec![], vec![]),
        (vec![arguments_delta(0, "{\"a")], vec![]),
        (
            vec![added(0, call(0, "f", "")), arguments_delta(0, "{\"a")],
            vec![tool("call0", "f", json!("{\"a"))],
        ),
    ] {
        let message = told(&[events, vec![end.clone()]].concat());
        assert_eq!(message.content, wanted);
        assert_eq!(message.end.unwrap().0, "max_tokens");
    }
}

#[test]
fn what_says_nothing_is_passed_over() {
    let noise = "data: [DONE]\n\ndata: not json\n\nevent: keepalive\ndata: {}\n\nevent: response.created\ndata: {\n\n\
        event: response.output_text.delta\ndata: {\"delta\":7}\n\nevent: response.output_text.delta\ndata: {\"delta\":\"x\"\n\n\
        event: response.output_item.done\ndata: {\"item\":[1]}\n\nevent: response.output_item.done\ndata: {\"item\":{\"type\":7}}\n\n\
        event: response.completed\ndata: {\"response\":{\n\n";
    let mut machine = Machine::new(setup());
    let mut out = Vec::new();
    let mut decoder = Decoder::default();
    decoder.feed(noise.as_bytes()).unwrap();
    while let Some(frame) = decoder.next_frame() {
        assert_eq!(machine.feed(frame, &mut out), Step::Continue, "{frame:?}");
    }
    assert!(out.is_empty());
    assert!(!machine.is_committed());
}

#[test]
fn only_content_commits_and_an_attempt_can_be_begun_again() {
    let mut machine = Machine::new(setup());
    let mut out = Vec::new();
    let feed = |machine: &mut Machine, event: Value, out: &mut Vec<u8>| {
        let (name, data) = (
            event["type"].as_str().unwrap().to_owned(),
            event.to_string(),
        );
        machine.feed(
            Frame {
                event: &name,
                data: &data,
            },
            out,
        )
    };
    feed(
        &mut machine,
        json!({"type": "response.created", "response": {}}),
        &mut out,
    );
    feed(&mut machine, json!({"type": "codex.rate_limits"}), &mut out);
    assert!(!machine.has_begun());
    machine.start(&mut out);
    feed(&mut machine, added(0, reasoning(0, &[], None)), &mut out);
    feed(
        &mut machine,
        text_delta(1, "held, lost with its attempt"),
        &mut out,
    );
    assert!(machine.has_begun() && !machine.is_committed());
    let step = feed(&mut machine, json!({"type": "response.failed"}), &mut out);
    assert_eq!(step, Step::Failed(StreamFailure::default()));
    machine.restart(Origin {
        account: "other".to_owned(),
        model: "gpt-6".to_owned(),
    });
    assert!(!machine.has_begun());
    feed(
        &mut machine,
        done(0, reasoning(0, &[], Some("g"))),
        &mut out,
    );
    assert!(machine.is_committed());
    feed(&mut machine, done(1, message(1, "yes")), &mut out);
    assert_eq!(feed(&mut machine, completed(), &mut out), Step::Finished);
    let message = check(&String::from_utf8(out).unwrap());
    assert_eq!(
        message.content,
        [thinking("", "ccx1:other:gpt-6:i0:g;"), text("yes")]
    );
}

#[test]
fn an_empty_completion_can_be_settled_for() {
    let events = stream(&[completed()]);
    let (mut fold, step) = fold(events.as_bytes());
    assert!(matches!(step, Step::Failed(_)));
    fold.end_empty();
    let body: Value = serde_json::from_slice(&fold.into_body()).unwrap();
    assert_eq!(body["content"], json!([]));
    assert_eq!(body["stop_reason"], "end_turn");
    assert_eq!(body["usage"]["input_tokens"], 6);
}

#[test]
fn held_content_above_the_decoders_limit_fails_the_fold_and_no_more() {
    let megabyte = "x".repeat(1 << 20);
    let mut events = vec![added(0, reasoning(0, &[], None))];
    events.extend((0..17).map(|_| text_delta(1, &megabyte)));
    events.push(completed());
    let stream = stream(&events);
    assert_eq!(run(&[stream.as_bytes()]).step, Step::Finished);
    let (_, step) = fold(stream.as_bytes());
    let Step::Failed(failure) = step else {
        panic!("{step:?}");
    };
    assert_eq!(failure.code.as_deref(), Some(TOO_LONG));
}

#[test]
fn an_answer_without_end_fails() {
    let megabyte = "x".repeat(1 << 20);
    let events = vec![text_delta(0, &megabyte); 65];
    assert_eq!(failure(&events).code.as_deref(), Some(TOO_LONG));
}

#[test]
fn halves_of_a_surrogate_pair_pass_as_they_are() {
    let delta = |half: &str| {
        format!(
            "event: response.output_text.delta\ndata: {{\"output_index\":0,\"delta\":\"{half}\"}}\n\n"
        )
    };
    let stream = delta(r"\ud83d") + &delta(r"\ude00") + &self::stream(&[completed()]);
    let run = run(&[stream.as_bytes()]);
    assert!(
        run.output.contains(r#""text":"\ud83d"}"#) && run.output.contains(r#""text":"\ude00"}"#)
    );
    let (fold, _) = fold(stream.as_bytes());
    let body: Value = serde_json::from_slice(&fold.into_body()).unwrap();
    assert_eq!(body["content"], json!([{"type": "text", "text": "😀"}]));
}

#[test]
fn quick_and_plain_reading_write_the_same() {
    for (name, stream) in fixtures() {
        let stream = String::from_utf8(stream).unwrap();
        assert_eq!(
            run(&[slowed(&stream).as_bytes()]),
            run(&[stream.as_bytes()]),
            "{name}"
        );
        let nameless: String = stream
            .lines()
            .filter(|line| !line.starts_with("event:"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(
            run(&[nameless.as_bytes()]),
            run(&[stream.as_bytes()]),
            "{name} without event fields"
        );
    }
}
