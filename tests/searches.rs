//! Searches of the web that upstream runs become calls and results as the client knows them, with the citations of the text.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/grammar.rs"]
mod grammar;
#[path = "support/machine.rs"]
mod machine;

use std::fs;

use ccx::translate::domains::Domains;
use ccx::translate::search::Search;
use ccx::translate::stream::{EMPTY_COMPLETION, Step};
use grammar::{Message, check};
use machine::*;
use serde_json::{Value, json};

fn rules() -> Search {
    Search {
        name: "web_search".to_owned(),
        max_uses: Some(8),
        domains: Domains::default(),
    }
}

fn answered(events: &[Value]) -> Message {
    told_with(&searching(rules()), events)
}

fn search(index: u64, query: &str) -> Value {
    json!({"type": "web_search_call", "id": format!("ws_{index}"), "status": "completed",
        "action": {"type": "search", "query": query, "queries": [query]}})
}

fn opened(index: u64, url: &str) -> Value {
    json!({"type": "web_search_call", "id": format!("ws_{index}"), "status": "completed",
        "action": {"type": "open_page", "url": url}})
}

/// Begins and ends a search with the events that upstream has for it.
fn searched(index: u64, item: Value) -> Vec<Value> {
    let id = item["id"].clone();
    let aside = |kind: &str| json!({"type": format!("response.web_search_call.{kind}"), "item_id": id, "output_index": index});
    vec![
        added(
            index,
            json!({"type": "web_search_call", "id": id, "status": "in_progress"}),
        ),
        aside("in_progress"),
        aside("searching"),
        aside("completed"),
        done(index, item),
    ]
}

fn citation(url: &str, title: &str) -> Value {
    json!({"type": "url_citation", "start_index": 0, "end_index": 3, "url": url, "title": title})
}

/// A text in two pieces, with its citations told on the way and in the end.
fn cited(index: u64, text: &str, citations: &[Value]) -> Vec<Value> {
    let (head, tail) = text.split_at(text.len() / 2);
    let whole = json!({"type": "message", "id": format!("i{index}"), "content": [
        {"type": "output_text", "text": text, "annotations": citations}]});
    let mut events = vec![
        added(
            index,
            json!({"type": "message", "id": format!("i{index}"), "content": []}),
        ),
        text_delta(index, head),
        text_delta(index, tail),
    ];
    for (number, citation) in citations.iter().enumerate() {
        events.push(json!({"type": "response.output_text.annotation.added", "item_id": format!("i{index}"),
            "output_index": index, "content_index": 0, "annotation_index": number, "annotation": citation}));
    }
    events.push(done(index, whole));
    events
}

fn call_block(number: u64, query: &str) -> Value {
    json!({"type": "server_tool_use", "id": format!("srvtoolu_ws_{number}"), "name": "web_search",
        "input": {"query": query}})
}

fn result_block(number: u64, pages: &[(&str, &str)]) -> Value {
    let pages: Vec<Value> = pages
        .iter()
        .map(|(url, title)| json!({"type": "web_search_result", "url": url, "title": title, "encrypted_content": "", "page_age": null}))
        .collect();
    json!({"type": "web_search_tool_result", "tool_use_id": format!("srvtoolu_ws_{number}"), "content": pages})
}

fn error_block(number: u64, code: &str) -> Value {
    json!({"type": "web_search_tool_result", "tool_use_id": format!("srvtoolu_ws_{number}"),
        "content": {"type": "web_search_tool_result_error", "error_code": code}})
}

fn cited_block(text: &str, pages: &[(&str, &str)]) -> Value {
    let citations: Vec<Value> = pages
        .iter()
        .map(|(url, title)| json!({"type": "web_search_result_location", "url": url, "title": title, "encrypted_index": "", "cited_text": ""}))
        .collect();
    json!({"type": "text", "text": text, "citations": citations})
}

/// Thought, search, thought, search, a page opened, an answer that cites what was found.
fn research() -> Vec<Value> {
    let citations = [
        citation("https://a.example/?utm_source=openai", "A \"quoted\""),
        citation("https://b.example/", "B"),
    ];
    [
        vec![
            added(0, reasoning(0, &[], None)),
            summary_delta(0, 0, "First."),
            done(0, reasoning(0, &["First."], Some("E1"))),
        ],
        searched(1, search(1, "rust \"news\"")),
        vec![done(2, reasoning(2, &["Second."], Some("E2")))],
        searched(3, search(3, "more")),
        searched(4, opened(4, "https://b.example/")),
        cited(5, "See A and B.", &citations),
        vec![completed()],
    ]
    .concat()
}

#[test]
fn a_search_is_a_call_a_result_and_a_text_that_cites() {
    // [I01]
    let message = answered(&research());
    let kinds: Vec<_> = message
        .content
        .iter()
        .map(|block| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "thinking",
            "server_tool_use",
            "web_search_tool_result",
            "thinking",
            "server_tool_use",
            "web_search_tool_result",
            "text",
        ]
    );
    assert_eq!(message.content[1], call_block(1, "rust \"news\""));
    assert_eq!(message.content[2], result_block(1, &[]));
    assert_eq!(message.content[4], call_block(3, "more"));
    let (a, b) = (
        ("https://a.example/", "A \"quoted\""),
        ("https://b.example/", "B"),
    );
    assert_eq!(message.content[5], result_block(3, &[b, a]));
    assert_eq!(message.content[6], cited_block("See A and B.", &[a, b]));
    let (reason, usage) = message.end.unwrap();
    assert_eq!(reason, "end_turn");
    assert_eq!(
        usage,
        json!({"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
            "output_tokens": 3, "server_tool_use": {"web_search_requests": 2}})
    );
}

#[test]
fn addresses_that_a_search_tells_itself_are_its_own() {
    let mut first = search(0, "a");
    first["action"]["sources"] = json!([{"type": "url", "url": "https://a.example/"}, {"type": "url", "url": "https://c.example/x"}]);
    let events = [
        searched(0, first),
        searched(1, search(1, "b")),
        cited(
            2,
            "text",
            &[
                citation("https://a.example/", "A"),
                citation("https://b.example/", "B"),
            ],
        ),
        vec![completed()],
    ]
    .concat();
    let message = answered(&events);
    assert_eq!(
        message.content[1],
        result_block(
            0,
            &[
                ("https://a.example/", "A"),
                ("https://c.example/x", "c.example")
            ]
        )
    );
    assert_eq!(
        message.content[3],
        result_block(1, &[("https://b.example/", "B")])
    );
}

#[test]
fn the_call_is_told_at_once_and_the_result_with_the_text() {
    let events = research();
    let at = events
        .iter()
        .position(|event| event["item"]["action"]["query"] == "rust \"news\"")
        .unwrap();
    let begun = run_with(searching(rules()), &[stream(&events[..=at]).as_bytes()]);
    assert!(begun.output.contains("server_tool_use"), "{}", begun.output);
    assert!(!begun.output.contains("web_search_tool_result"));
}

#[test]
fn where_a_stream_of_searches_is_cut_makes_no_difference() {
    let whole = stream(&research());
    let want = run_with(searching(rules()), &[whole.as_bytes()]);
    for at in 0..=whole.len() {
        let (head, tail) = whole.as_bytes().split_at(at);
        let run = run_with(searching(rules()), &[head, tail]);
        assert_eq!(run, want, "cut at byte {at}");
    }
    let slow = run_with(searching(rules()), &[slowed(&whole).as_bytes()]);
    assert_eq!(slow, want);
}

#[test]
fn a_stream_of_searches_that_stops_anywhere_is_legal_and_no_answer() {
    let events = research();
    for count in 0..events.len() {
        let run = run_with(searching(rules()), &[stream(&events[..count]).as_bytes()]);
        let message = check(&run.output);
        assert!(message.error.is_some(), "after {count} events");
        assert_eq!(message.end, None, "after {count} events");
    }
    // A failure in the middle is a failure.
    for count in 1..events.len() {
        let mut failing = events[..count].to_vec();
        failing.push(
            json!({"type": "response.failed", "response": {"error": {"code": "server_error"}}}),
        );
        let run = run_with(searching(rules()), &[stream(&failing).as_bytes()]);
        assert!(matches!(run.step, Step::Failed(_)), "after {count} events");
        check(&run.output);
    }
}

#[test]
fn failed_searches_and_those_beyond_the_limit_are_errors() {
    // [I02, I03]
    let mut failed = search(0, "a");
    failed["status"] = json!("failed");
    let rules = Search {
        max_uses: Some(2),
        ..rules()
    };
    let events = [
        searched(0, failed),
        searched(1, search(1, "b")),
        searched(2, search(2, "c")),
        cited(3, "text", &[citation("https://a.example/", "A")]),
        vec![completed()],
    ]
    .concat();
    let message = told_with(&searching(rules), &events);
    let a = ("https://a.example/", "A");
    assert_eq!(
        message.content,
        [
            call_block(0, "a"),
            error_block(0, "unavailable"),
            call_block(1, "b"),
            result_block(1, &[a]),
            call_block(2, "c"),
            error_block(2, "max_uses_exceeded"),
            cited_block("text", &[a]),
        ]
    );
    let usage = message.end.unwrap().1;
    assert_eq!(usage["server_tool_use"], json!({"web_search_requests": 1}));
}

#[test]
fn what_lies_outside_the_domains_is_not_shown() {
    // [I02]
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "q"}], "tools": [
        {"type": "web_search_20250305", "name": "web_search", "blocked_domains": ["evil.example"]}]})
    .to_string();
    let request = ccx::wire::messages::Request::parse(body.as_bytes()).unwrap();
    let model = &ccx::catalogue::list::Catalogue::bundled().models[0];
    let origin = ccx::translate::reasoning::Origin::new("a", "m");
    let target = ccx::translate::request::Target {
        model,
        lane: ccx::catalogue::model::Lane::Full,
        origin: &origin,
        conversation: "c",
        tier: None,
        knobs: ccx::catalogue::knobs::Knobs::default(),
        papers: &ccx::translate::papers::Papers::default(),
    };
    let mut cache = ccx::translate::request::ToolCache::default();
    let translated = ccx::translate::request::translate(&request, &target, &mut cache).unwrap();
    let rules = (*translated.search.unwrap()).clone();
    let mut told = search(0, "a");
    told["action"]["sources"] = json!([{"type": "url", "url": "https://x.evil.example/"}, {"type": "url", "url": "https://a.example/"}]);
    let events = [
        searched(0, told),
        searched(1, opened(1, "https://evil.example/page")),
        cited(
            2,
            "text",
            &[
                citation("https://evil.example/", "E"),
                citation("https://a.example/", "A"),
            ],
        ),
        vec![completed()],
    ]
    .concat();
    let message = told_with(&searching(rules), &events);
    let a = ("https://a.example/", "A");
    assert_eq!(
        message.content,
        [
            call_block(0, "a"),
            result_block(0, &[a]),
            cited_block("text", &[a])
        ]
    );
}

#[test]
fn searches_stand_beside_calls_and_commentary() {
    let events = [
        searched(0, search(0, "a")),
        vec![done(1, message(1, "Looking further."))],
        searched(2, search(2, "b")),
        cited(3, "Found.", &[citation("https://a.example/", "A")]),
        vec![
            added(4, call(4, "Read", "")),
            arguments_delta(4, "{}"),
            done(4, call(4, "Read", "{}")),
            completed(),
        ],
    ]
    .concat();
    let message = answered(&events);
    let a = ("https://a.example/", "A");
    assert_eq!(
        message.content,
        [
            call_block(0, "a"),
            result_block(0, &[]),
            text("Looking further."),
            call_block(2, "b"),
            result_block(2, &[a]),
            cited_block("Found.", &[a]),
            tool("call4", "Read", json!({})),
        ]
    );
    assert_eq!(message.end.unwrap().0, "tool_use");

    // Nothing but a call after the search: what was found is not known, that it was made is.
    let events = [
        searched(0, search(0, "a")),
        vec![done(1, call(1, "Read", "{}")), completed()],
    ]
    .concat();
    let content = answered(&events).content;
    assert_eq!(content[..2], [call_block(0, "a"), result_block(0, &[])]);
    assert_eq!(content[2], tool("call1", "Read", json!({})));
}

#[test]
fn an_answer_that_is_cut_at_its_limit_keeps_its_searches() {
    let events = [
        searched(0, search(0, "a")),
        vec![
            added(1, json!({"type": "message", "id": "i1", "content": []})),
            text_delta(1, "Half of"),
            json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}),
        ],
    ]
    .concat();
    let message = answered(&events);
    assert_eq!(
        message.content,
        [call_block(0, "a"), result_block(0, &[]), text("Half of")]
    );
    let (reason, usage) = message.end.unwrap();
    assert_eq!(reason, "max_tokens");
    assert_eq!(
        usage,
        json!({"output_tokens": 0, "server_tool_use": {"web_search_requests": 1}})
    );
}

#[test]
fn a_search_that_never_ended_says_nothing_and_is_no_answer() {
    let begun = added(
        0,
        json!({"type": "web_search_call", "id": "ws_0", "status": "in_progress"}),
    );
    let run = run_with(
        searching(rules()),
        &[stream(&[begun.clone(), completed()]).as_bytes()],
    );
    let Step::Failed(failure) = run.step else {
        panic!("{:?}", run.step)
    };
    assert_eq!(failure.code.as_deref(), Some(EMPTY_COMPLETION));
    let events = [vec![begun], cited(1, "text", &[]), vec![completed()]].concat();
    assert_eq!(answered(&events).content, [text("text")]);
}

#[test]
fn an_answer_without_a_search_counts_none() {
    let events = [cited(0, "text", &[]), vec![completed()]].concat();
    let message = answered(&events);
    assert_eq!(message.content, [text("text")]);
    assert_eq!(
        message.end.unwrap().1["server_tool_use"],
        json!({"web_search_requests": 0})
    );
}

#[test]
fn a_search_that_nobody_asked_for_is_not_told() {
    let message = told(&research());
    let kinds: Vec<_> = message
        .content
        .iter()
        .map(|block| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["thinking", "thinking", "text"]);
    assert_eq!(message.end.unwrap().1.get("server_tool_use"), None);
}

#[test]
fn the_recorded_search_translates_as_written_down() {
    let recorded = &fixtures()["web-search-call-then-text"];
    let run = run_with(searching(rules()), &[recorded]);
    check(&run.output);
    let path = here().join("tests/golden/streams/web-search-call-then-text.asked.sse");
    if std::env::var_os("CCX_BLESS").is_some() {
        fs::write(&path, &run.output).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    assert!(
        wanted == run.output,
        "differs; CCX_BLESS=1 rewrites it. Now:\n{}",
        run.output
    );
}
