//! PDFs on a lane that takes no files: read once, in a process that nothing in a file can turn against the session.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ccx::pdf::apart::{Reader, Reading};
use serde_json::{Value, json};
use support::pdf;
use support::proxy::Proxy;

fn reader() -> Reader {
    Reader::new(env!("CARGO_BIN_EXE_ccx").into())
}

fn read(bytes: &[u8]) -> Reading {
    reader().read(bytes, 1 << 20).unwrap()
}

#[test]
fn pages_are_read_in_their_order_and_lines() {
    let reading = read(&pdf::of(&["one\ntwo", "", "(three) \\ 3"]));
    let page = |text: &str| Some(text.to_owned());
    assert_eq!(
        reading,
        Reading {
            pages: 3,
            texts: vec![page("one\ntwo"), page(""), page("(three) \\ 3")],
        }
    );
    // What was enough is not read on.
    let some = reader()
        .read(&pdf::of(&["one", "two", "three"]), 2)
        .unwrap();
    assert_eq!((some.pages, some.texts), (3, vec![page("one")]));
}

#[test]
fn what_is_no_pdf_or_broken_is_nothing_read() {
    let whole = pdf::of(&["one", "two"]);
    for bytes in [&b""[..], b"no pdf", b"%PDF-1.7", &whole[..40], &[0; 4096]] {
        assert_eq!(read(bytes), Reading::default(), "{} bytes", bytes.len());
    }
}

#[test]
fn a_hostile_pdf_harms_only_the_process_that_reads_it() {
    // Nested deeper than any stack; a tree of pages and a form that hold themselves; a stream that
    // unpacks to gigabytes.
    let nested = format!("{}{}", "[".repeat(3_000_000), "]".repeat(3_000_000));
    let hostile = [
        pdf::raw(&["<< /Type /Catalog /Pages 2 0 R >>", &nested]),
        pdf::raw(&[
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Count 1 /Kids [2 0 R] >>",
        ]),
        pdf::raw(&[
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /XObject << /F 5 0 R >> >> >>",
            "<< /Length 6 >>\nstream\n/F Do \nendstream",
            "<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F 5 0 R >> >> /Length 6 >>\nstream\n/F Do \nendstream",
        ]),
        pdf::bomb(),
    ];
    for (number, bytes) in hostile.iter().enumerate() {
        let reading = reader().read(bytes, 1 << 20).unwrap();
        let said: usize = reading.texts.iter().flatten().map(String::len).sum();
        assert!(said <= 16 << 20, "file {number}");
    }
    assert_eq!(read(&pdf::of(&["still here"])).pages, 1);
}

#[test]
fn a_program_that_cannot_be_started_is_an_error() {
    assert!(Reader::new("/nowhere/ccx".into()).read(b"%PDF", 1).is_err());
}

/// A conversation in which the tool `Read` returned a PDF.
fn conversation(pdf: &[u8], turns: usize) -> Value {
    let document = json!({"type": "document", "title": "report.pdf", "source": {
        "type": "base64", "media_type": "application/pdf", "data": STANDARD.encode(pdf)}});
    let mut messages = vec![
        json!({"role": "user", "content": "read it"}),
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Read", "input": {}}]}),
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [
            {"type": "text", "text": "PDF file read"}, document]}]}),
    ];
    for turn in 1..turns {
        messages.push(json!({"role": "assistant", "content": format!("answer {turn}")}));
        messages.push(json!({"role": "user", "content": "and now?"}));
    }
    json!({"model": "claude-opus-5-5", "max_tokens": 32_000, "system": "You are a test.",
        "tools": [{"name": "Read", "input_schema": {"type": "object", "properties": {}}}], "messages": messages})
}

#[tokio::test]
async fn a_pdf_is_told_as_its_text_and_the_same_in_every_turn() {
    // [D19]
    let scenario =
        json!({"about": "one answer", "steps": [{"name": "only", "answer": [{"text": "fine"}]}]});
    let proxy = Proxy::start(&scenario);
    let pdf = pdf::of(&["Quarterly report", "All is well."]);
    for turns in 1..=3 {
        let answer = proxy.messages(&conversation(&pdf, turns)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let (entries, _) = proxy.finished(3).await;
    assert!(
        entries
            .iter()
            .all(|entry| entry.losses.contains(&"document_text"))
    );
    let requests = proxy.backend.requests();
    let sent: Vec<&Value> = requests
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| seen.body.as_ref())
        .collect();
    let output = |body: &Value| {
        let items = body["input"].as_array().unwrap();
        let item = items
            .iter()
            .find(|item| item["type"] == "function_call_output");
        item.unwrap()["output"].clone()
    };
    assert_eq!(
        output(sent[0]),
        json!([
            {"type": "input_text", "text": "PDF file read"},
            {"type": "input_text", "text": "[Text of the PDF \"report.pdf\", 2 pages; pictures and layout are not shown]"},
            {"type": "input_text", "text": "[Page 1]\nQuarterly report\n\n[Page 2]\nAll is well."}
        ])
    );
    assert!(sent.iter().all(|body| output(body) == output(sent[0])));
}

#[tokio::test]
async fn a_pdf_that_cannot_be_read_is_named_and_the_turn_goes_on() {
    // [D20]
    let scenario =
        json!({"about": "one answer", "steps": [{"name": "only", "answer": [{"text": "fine"}]}]});
    let proxy = Proxy::start(&scenario);
    for _ in 0..2 {
        let answer = proxy
            .messages(&conversation(b"%PDF-1.4 and nothing", 1))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let requests = proxy.backend.requests();
    let sent: Vec<String> = requests
        .iter()
        .filter(|seen| seen.is_response())
        .map(|seen| seen.body.to_string())
        .collect();
    assert!(
        sent[0].contains("[The PDF \\\"report.pdf\\\" was here that could not be read]"),
        "{}",
        sent[0]
    );
    assert_eq!(sent[0], sent[1]);
}
