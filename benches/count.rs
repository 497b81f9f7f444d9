//! Counting tokens: a megabyte of several kinds of text, and 22 counts of such a body at once, as `/context` asks.

#![allow(missing_docs, reason = "the macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ccx::proxy::counting::Counting;
use ccx::translate::count::input_tokens;
use ccx::translate::tokenizer::Tokenizer;
use ccx::wire::messages::Request;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

const MEGABYTE: usize = 1_000_000;

fn letters(alphabet: &[char], count: usize) -> String {
    let mut state = 1u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            alphabet[state as usize % alphabet.len()]
        })
        .collect()
}

/// A body of about a megabyte, in texts of 20 kB, each its own.
fn body(text: &str) -> Bytes {
    let chars: Vec<char> = text.chars().collect();
    let messages: Vec<_> = chars
        .chunks(20_000)
        .enumerate()
        .map(|(at, part)| {
            let part: String = part.iter().collect();
            json!({"role": "user", "content": format!("{at} {part}")})
        })
        .collect();
    json!({"model": "m", "messages": messages})
        .to_string()
        .into()
}

fn kinds() -> Vec<(&'static str, String)> {
    let source = include_str!("../src/wire/json.rs");
    let alphabet = |range: std::ops::RangeInclusive<char>| range.collect::<Vec<_>>();
    let base64: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let minified: String = source.split_whitespace().collect();
    vec![
        ("code", source.chars().cycle().take(MEGABYTE).collect()),
        (
            "minified",
            minified.chars().cycle().take(MEGABYTE).collect(),
        ),
        ("base64", letters(&base64, MEGABYTE)),
        (
            "cjk",
            letters(&alphabet('\u{4e00}'..='\u{6000}'), MEGABYTE / 3),
        ),
        ("one word", "a".repeat(MEGABYTE)),
        ("spaces", " ".repeat(MEGABYTE)),
    ]
}

fn counts(criterion: &mut Criterion) {
    let tokenizer = Tokenizer::new();
    let mut group = criterion.benchmark_group("count");
    group.sample_size(10);
    group.bench_function("load", |bencher| bencher.iter(Tokenizer::new));
    for (kind, text) in kinds() {
        let body = body(&text);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("first", kind), |bencher| {
            bencher.iter(|| {
                let request = Request::parse(black_box(&body)).unwrap();
                input_tokens(&request, &tokenizer, &Mutex::default(), || true)
            });
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (kind, text) in kinds() {
        let body = body(&text);
        // The tokenizer is loaded within the measured time.
        group.bench_function(BenchmarkId::new("22 at once", kind), |bencher| {
            bencher.iter_batched(
                || Arc::new(Counting::default()),
                |counting| {
                    runtime.block_on(async {
                        let counts: Vec<_> = (0..22)
                            .map(|_| {
                                let (counting, body) = (Arc::clone(&counting), body.clone());
                                tokio::spawn(async move { counting.count(body).await.unwrap() })
                            })
                            .collect();
                        for count in counts {
                            black_box(count.await.unwrap());
                        }
                    });
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, counts);
criterion_main!(benches);
