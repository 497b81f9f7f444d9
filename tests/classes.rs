//! What each recorded request of the client is taken for, with its own labels and without them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use ccx::proxy::class::{RequestClass, Stage};
use ccx::wire::messages::Request;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

const LABELS: [&str; 2] = ["x-claude-code-request-class", "x-claude-1p-request-class"];

fn recorded() -> Vec<(String, HeaderMap, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/claude-code");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let request = &file["request"];
        let target = request["target"].as_str().unwrap_or_default();
        if !request["body"].is_object() || target.contains("count_tokens") {
            continue;
        }
        let mut headers = HeaderMap::new();
        for pair in request["headers"].as_array().unwrap() {
            let name: HeaderName = pair[0].as_str().unwrap().parse().unwrap();
            let value = HeaderValue::from_str(pair[1].as_str().unwrap()).unwrap();
            headers.insert(name, value);
        }
        let body = serde_json::to_vec(&request["body"]).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        found.push((name, headers, body));
    }
    assert_eq!(found.len(), 33);
    found
}

/// By the beginning of the file's name; all others are the main conversation. The prose of the fixtures is filler: a
/// compaction and a fetched page cannot be known by it.
fn expected(name: &str) -> RequestClass {
    match &name[..2] {
        "05" => RequestClass::Title,
        "08" | "09" | "10" | "32" => RequestClass::Subagent,
        "12" => RequestClass::WebSearch,
        "24" => RequestClass::Classifier(Stage::First),
        "25" => RequestClass::Classifier(Stage::Second),
        "35" => RequestClass::Probe,
        _ => RequestClass::Main,
    }
}

#[test]
fn every_recorded_request_is_known_for_what_it_is() {
    for (name, mut headers, body) in recorded() {
        let request = Request::parse(&body).unwrap();
        assert_eq!(
            RequestClass::of(&headers, &request),
            expected(&name),
            "{name}"
        );
        for label in LABELS {
            headers.remove(label);
        }
        assert_eq!(
            RequestClass::of(&headers, &request),
            expected(&name),
            "{name} without labels"
        );
    }
}
