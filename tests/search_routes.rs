//! Searches through the whole proxy: which model and lane answers, what the client and the ledger are told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use ccx::simulate::record::Seen;
use serde_json::{Value, json};
use support::proxy::{Proxy, prompt};

const LITE: &str = "x-openai-internal-codex-responses-lite";

/// What Claude Code's WebSearch asks.
fn search(model: &str, is_stream: bool) -> Value {
    let mut request = prompt("Perform a web search for the query: crabs", is_stream);
    request["model"] = json!(model);
    request["tools"] =
        json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]);
    request["tool_choice"] = json!({"type": "tool", "name": "web_search"});
    request
}

/// Upstream searches once and cites a page.
fn scenario() -> Value {
    json!({"about": "searches", "steps": [
        {"name": "search", "when": {"offers": ["web_search"]}, "answer": [
            {"reasoning": ["**Searching**"]},
            {"search": {"query": "crabs", "results": [{"title": "Crabs", "url": "https://crabs.example/"}]}},
            {"text": "They walk sideways (https://crabs.example/)."},
        ]},
        {"name": "else", "answer": [{"text": "No search here."}]},
    ]})
}

/// The request that upstream saw last.
fn last(proxy: &Proxy) -> Seen {
    let requests = proxy.backend.requests();
    let answered = requests.into_iter().filter(Seen::is_response);
    answered.last().unwrap()
}

#[tokio::test]
async fn every_model_searches_itself_or_by_its_sibling() {
    // [I01]
    let proxy = Proxy::start(&scenario());
    let rows = [
        ("claude-opus-5-5", "gpt-6.1-sol", false),
        ("gpt-6-astra", "gpt-6-astra", false),
        ("sonnet", "gpt-6.1-terra", false),
        ("gpt-5.5", "gpt-5.5", false),
        ("claude-haiku-5-5", "gpt-6-sol", true),
        ("gpt-5.6-luna", "gpt-5.6-sol", true),
    ];
    for (number, (model, answers, stands_in)) in (1..).zip(rows) {
        let answer = proxy.messages(&search(model, true)).await;
        assert_eq!(answer.status, 200, "{model}: {}", answer.body);
        let events = answer.events();
        let block = |kind: &str| {
            let begun = events
                .iter()
                .map(|(_, data)| &data["content_block"])
                .find(|block| block["type"] == kind);
            begun
                .unwrap_or_else(|| panic!("{model}: no {kind}"))
                .clone()
        };
        let call = block("server_tool_use");
        assert_eq!(call["name"], "web_search");
        let result = block("web_search_tool_result");
        assert_eq!(result["tool_use_id"], call["id"]);
        assert_eq!(
            result["content"],
            json!([{"type": "web_search_result", "title": "Crabs", "url": "https://crabs.example/",
                "encrypted_content": "", "page_age": null}])
        );
        assert_eq!(
            answer.text(),
            "They walk sideways (https://crabs.example/)."
        );
        let usage = &events
            .iter()
            .rfind(|(name, _)| name == "message_delta")
            .unwrap()
            .1["usage"];
        assert_eq!(usage["server_tool_use"], json!({"web_search_requests": 1}));

        let seen = last(&proxy);
        assert_eq!(seen.body["model"], answers, "{model}");
        assert_eq!(seen.header(LITE), None, "{model}");
        assert_eq!(
            seen.body["tool_choice"],
            json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]})
        );
        let (entries, _) = proxy.finished(number).await;
        let entry = entries.last().unwrap();
        assert_eq!(
            (entry.asked.as_str(), entry.model.as_str()),
            (model, answers)
        );
        assert_eq!(entry.losses.contains(&"search_model"), stands_in, "{model}");
    }
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn a_whole_answer_says_the_same() {
    let proxy = Proxy::start(&scenario());
    let body = proxy.messages(&search("gpt-6.1-sol", false)).await.json();
    let content = body["content"].as_array().unwrap();
    let kinds: Vec<_> = content
        .iter()
        .map(|block| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "thinking",
            "server_tool_use",
            "web_search_tool_result",
            "text"
        ]
    );
    assert_eq!(content[1]["input"], json!({"query": "crabs"}));
    assert_eq!(
        content[3]["citations"],
        json!([{"type": "web_search_result_location", "url": "https://crabs.example/", "title": "Crabs",
            "encrypted_index": "", "cited_text": ""}])
    );
    assert_eq!(body["stop_reason"], "end_turn");
    assert_eq!(
        body["usage"]["server_tool_use"],
        json!({"web_search_requests": 1})
    );
    // The answer is history that the next turn can be asked with.
    let mut next = search("gpt-6.1-sol", false);
    next["messages"] = json!([
        next["messages"][0],
        {"role": "assistant", "content": content},
        {"role": "user", "content": "and once more"},
    ]);
    let answer = proxy.messages(&next).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = last(&proxy);
    let input = seen.body["input"].as_array().unwrap();
    let calls: Vec<_> = input
        .iter()
        .filter(|item| item["type"] == "web_search_call")
        .collect();
    assert_eq!(
        calls,
        [
            &json!({"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "crabs"}})
        ]
    );
    assert!(
        seen.body
            .to_string()
            .contains("Crabs: https://crabs.example/"),
        "what was found is still known"
    );
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn a_conversation_keeps_its_model_and_searches_where_it_can() {
    let proxy = Proxy::start(&scenario());
    let beside = |model: &str| {
        let mut request = prompt("what do crabs do", true);
        request["model"] = json!(model);
        request["tools"] = json!([
            {"name": "Look", "input_schema": {"type": "object", "properties": {}}},
            {"type": "web_search_20260318", "name": "web_search"},
        ]);
        request
    };
    proxy.messages(&beside("gpt-6.1-sol")).await;
    let seen = last(&proxy);
    assert_eq!(
        (seen.body["model"].as_str(), seen.header(LITE)),
        (Some("gpt-6.1-sol"), None)
    );
    let kinds: Vec<_> = seen.body["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["function", "web_search"]);

    // Luna has the lite lane only: it goes on without the search, and that is told.
    let answer = proxy.messages(&beside("gpt-6-luna")).await;
    assert_eq!(answer.text(), "No search here.");
    let seen = last(&proxy);
    assert_eq!(
        (seen.body["model"].as_str(), seen.header(LITE)),
        (Some("gpt-6-luna"), Some("true"))
    );
    assert!(!seen.body.to_string().contains("web_search"));
    let (entries, totals) = proxy.finished(2).await;
    assert_eq!(entries[1].losses, ["web_search"]);
    assert_eq!(totals.losses.get("web_search"), Some(&1));
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn bounds_reach_upstream_and_hold_here() {
    // [I02]
    let proxy = Proxy::start(&json!({"about": "leaks", "steps": [
        {"name": "leak", "answer": [
            {"search": {"query": "a", "results": [
                {"title": "In", "url": "https://docs.rs/x"}, {"title": "Out", "url": "https://out.example/"}]}},
            {"search": {"query": "b", "results": [{"title": "Late", "url": "https://docs.rs/late"}], "sources": true}},
            {"text": "Both."},
        ]},
    ]}));
    let mut request = search("gpt-6.1-sol", false);
    request["tools"][0]["max_uses"] = json!(1);
    request["tools"][0]["allowed_domains"] = json!(["docs.rs"]);
    request["tools"][0]["user_location"] =
        json!({"type": "approximate", "country": "DE", "city": "Köln"});
    let body = proxy.messages(&request).await.json();
    let seen = last(&proxy);
    let tool = &seen.body["tools"][0];
    assert_eq!(tool["filters"], json!({"allowed_domains": ["docs.rs"]}));
    assert_eq!(
        tool["user_location"],
        json!({"type": "approximate", "country": "DE", "city": "Köln"})
    );
    assert!(seen.body["input"].to_string().contains("at most once"));
    let results: Vec<_> = body["content"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|block| block["type"] == "web_search_tool_result")
        .map(|block| block["content"].clone())
        .collect();
    assert_eq!(results.len(), 2);
    let addresses: Vec<_> = results[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| page["url"].as_str().unwrap())
        .collect();
    assert_eq!(addresses, ["https://docs.rs/x"]);
    assert_eq!(
        results[1],
        json!({"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"})
    );
    assert_eq!(
        body["usage"]["server_tool_use"],
        json!({"web_search_requests": 1})
    );

    // What cannot be bounded is not asked at all.
    let before = proxy.backend.requests().len();
    request["tools"][0]["allowed_domains"] = json!(["docs.rs/x"]);
    let (status, kind, message) = proxy.messages(&request).await.error();
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert!(
        message.starts_with("tools.0.allowed_domains.0:"),
        "{message}"
    );
    assert_eq!(proxy.backend.requests().len(), before);
}

#[tokio::test]
async fn a_search_that_fails_is_an_answer() {
    // [I03]
    let proxy = Proxy::start(&json!({"about": "fails", "steps": [
        {"name": "fail", "answer": [
            {"search": {"query": "a", "failed": true}},
            {"text": "The search is down."},
        ]},
    ]}));
    let answer = proxy.messages(&search("gpt-6.1-sol", true)).await;
    assert_eq!(answer.last(), "message_stop");
    let failed = answer
        .events()
        .into_iter()
        .find(|(_, data)| data["content_block"]["type"] == "web_search_tool_result")
        .unwrap()
        .1;
    assert_eq!(
        failed["content_block"]["content"],
        json!({"type": "web_search_tool_result_error", "error_code": "unavailable"})
    );
    assert_eq!(answer.text(), "The search is down.");
}
