//! The way of an answer: SSE decoding, event translation, fold.
//!
//! Each answer has 1,000 deltas, fed in reads of 16 KiB.

use std::hint::black_box;
use std::sync::Arc;

use ccx::sse::Decoder;
use ccx::translate::fold::Fold;
use ccx::translate::names::ToolNames;
use ccx::translate::reasoning::Origin;
use ccx::translate::stream::{Machine, Setup};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const READ: usize = 16 * 1024;
const DELTAS: usize = 1000;

fn setup() -> Setup {
    Setup {
        message_id: "msg_1".to_owned(),
        model: "gpt-6.1-sol".to_owned(),
        origin: Origin::new("account", "gpt-6.1-sol"),
        names: Arc::new(ToolNames::default()),
        search: None,
        input_tokens: 1000,
        bounds: None,
        answers_safeguards: false,
    }
}

/// An answer of 1,000 text deltas, in upstream's order of keys and with ids of its length.
fn answer() -> Vec<u8> {
    let id = "msg_0c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f6a7b";
    // Mostly a word, now and then something that JSON escapes.
    let piece = |number: usize| match number % 16 {
        7 => r"\n\n",
        11 => r#" \"so"#,
        _ => " words",
    };
    let mut text = format!(
        "event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{{\"id\":\"resp_1\"}}}}\n\n\
         event: response.output_item.added\ndata: {{\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{{\"type\":\"message\",\"id\":\"{id}\",\"content\":[]}}}}\n\n"
    );
    for number in 0..DELTAS {
        let piece = piece(number);
        text.push_str(&format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"content_index\":0,\"delta\":\"{piece}\",\"item_id\":\"{id}\",\"logprobs\":[],\"obfuscation\":\"aB3dE5fG7h\",\"output_index\":0,\"sequence_number\":{number}}}\n\n"
        ));
    }
    text.push_str(&format!(
        "event: response.output_item.done\ndata: {{\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{{\"type\":\"message\",\"id\":\"{id}\",\"content\":[{{\"type\":\"output_text\",\"text\":\"{}\"}}]}}}}\n\n\
         event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"id\":\"resp_1\",\"usage\":{{\"input_tokens\":10,\"output_tokens\":1000}}}}}}\n\n",
        (0..DELTAS).map(piece).collect::<String>()
    ));
    text.into_bytes()
}

fn decode(stream: &[u8]) -> usize {
    let mut decoder = Decoder::default();
    let mut bytes = 0;
    for read in stream.chunks(READ) {
        decoder.feed(read).expect("records are short");
        while let Some(frame) = decoder.next_frame() {
            bytes += frame.data.len();
        }
    }
    bytes
}

fn translate(stream: &[u8], out: &mut Vec<u8>) {
    let mut decoder = Decoder::default();
    let mut machine = Machine::new(setup());
    for read in stream.chunks(READ) {
        decoder.feed(read).expect("records are short");
        out.clear();
        while let Some(frame) = decoder.next_frame() {
            machine.feed(frame, out);
        }
    }
}

fn fold(stream: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::default();
    let mut fold = Fold::new(setup());
    for read in stream.chunks(READ) {
        decoder.feed(read).expect("records are short");
        while let Some(frame) = decoder.next_frame() {
            fold.feed(frame);
        }
    }
    fold.into_body()
}

fn benches(criterion: &mut Criterion) {
    let stream = answer();
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Elements(DELTAS as u64));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode(black_box(&stream)))
    });
    let mut out = Vec::new();
    group.bench_function("decode and translate", |bencher| {
        bencher.iter(|| translate(black_box(&stream), &mut out));
    });
    group.bench_function("decode and fold", |bencher| {
        bencher.iter(|| black_box(fold(black_box(&stream))));
    });
    group.finish();
}

criterion_group!(stream, benches);
criterion_main!(stream);
