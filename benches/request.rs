//! From the bytes of a request to the bytes for upstream, by size.
//!
//! `parse` reads only; `translate` reads and writes with the tools known from the turn before, as in
//! a conversation; `first` does so with a list of tools never seen.

#![allow(missing_docs, reason = "the macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use ccx::catalogue::knobs::Knobs;
use ccx::catalogue::model::{Effort, Lane, Model};
use ccx::translate::papers::Papers;
use ccx::translate::reasoning::{Origin, Seal};
use ccx::translate::request::{Target, ToolCache, translate};
use ccx::wire::messages::Request;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

/// Lines as they stand in source files: short, with indents, quotes and escapes.
fn source(lines: usize) -> String {
    (0..lines)
        .map(|line| format!("{line}\t    let name_{line} = call(\"value {line}\", 'x');\n"))
        .collect()
}

fn tools(count: usize) -> Value {
    (0..count)
        .map(|at| {
            json!({
                "name": format!("tool_{at}"),
                "description": "what it does, when to use it, and when not. ".repeat(20),
                "input_schema": {
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "type": "object",
                    "properties": {
                        "path": {"type": "string", "description": "where it is ".repeat(10)},
                        "mode": {"type": "string", "enum": ["a", "b"], "description": "how ".repeat(20)},
                        "lines": {"type": "array", "items": {"type": "integer", "minimum": 0}}
                    },
                    "required": ["path"],
                    "additionalProperties": false
                }
            })
        })
        .collect()
}

fn body(origin: &Origin, tool_count: usize, rounds: usize, lines: usize) -> Vec<u8> {
    let signature = Seal {
        account: &origin.account,
        model: &origin.model,
        id: "rs_1",
        encrypted: &"gAAA".repeat(300),
    }
    .write();
    let mut messages = vec![
        json!({"role": "user", "content": [{"type": "text", "text": "<system-reminder>\nx\n</system-reminder>"}, {"type": "text", "text": "go"}]}),
        json!({"role": "system", "content": "environment ".repeat(20), "output_config": {"effort": "medium"}}),
    ];
    for round in 0..rounds {
        messages.push(json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "what next", "signature": format!("{signature}{round}")},
            {"type": "text", "text": "I read the file."},
            {"type": "tool_use", "id": format!("toolu_{round}"), "name": "tool_0", "input": {"path": format!("/p/{round}"), "lines": [1, 2]}}
        ]}));
        messages.push(json!({"role": "user", "content": [
            {"tool_use_id": format!("toolu_{round}"), "type": "tool_result", "content": source(lines)}
        ]}));
    }
    serde_json::to_vec(&json!({
        "model": "claude-opus-5-5",
        "messages": messages,
        "system": [{"type": "text", "text": "x-anthropic-billing-header: x"}, {"type": "text", "text": "be good ".repeat(20)}],
        "tools": tools(tool_count),
        "max_tokens": 128_000,
        "thinking": {"type": "adaptive", "display": "updates"},
        "output_config": {"effort": "medium"},
        "stream": true
    }))
    .unwrap()
}

fn requests(criterion: &mut Criterion) {
    let model = Model {
        slug: "gpt-test".to_owned(),
        display_name: "GPT Test".to_owned(),
        listed: true,
        priority: 1,
        context_window: 272_000,
        effective_percent: 95,
        efforts: vec![Effort::Low, Effort::Medium],
        default_effort: Some(Effort::Medium),
        support_verbosity: true,
        default_verbosity: Some("low".to_owned()),
        service_tiers: Vec::new(),
        images: true,
        lite: true,
    };
    let origin = Origin::new("account", &model.slug);
    let target = Target {
        model: &model,
        lane: Lane::Lite,
        origin: &origin,
        conversation: "conversation-1",
        tier: None,
        knobs: Knobs::default(),
        papers: &Papers::default(),
    };
    let sizes = [
        ("2kB", body(&origin, 1, 0, 0)),
        ("150kB", body(&origin, 60, 8, 60)),
        ("3MB", body(&origin, 60, 180, 250)),
    ];
    let mut group = criterion.benchmark_group("request");
    for (name, body) in &sizes {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("copy", name), |bencher| {
            bencher.iter(|| black_box(body.clone()));
        });
        group.bench_function(BenchmarkId::new("parse", name), |bencher| {
            bencher.iter(|| black_box(Request::parse(black_box(body)).unwrap().messages.len()));
        });
        group.bench_function(BenchmarkId::new("translate", name), |bencher| {
            let mut cache = ToolCache::default();
            bencher.iter(|| {
                let request = Request::parse(black_box(body)).unwrap();
                translate(&request, &target, &mut cache).unwrap().body
            });
        });
        group.bench_function(BenchmarkId::new("first", name), |bencher| {
            bencher.iter(|| {
                let request = Request::parse(black_box(body)).unwrap();
                translate(&request, &target, &mut ToolCache::default())
                    .unwrap()
                    .body
            });
        });
    }
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
