//! What must hold for any bytes at all: a law for each fuzz target. Each panics where its law is broken.
//!
//! `shell/fuzz.sh` builds and runs the targets; `tests/laws` tries the same laws with generated input that is
//! nearer to what really comes.

#![allow(clippy::unwrap_used, reason = "a law that is broken panics")]

#[path = "../../tests/support/grammar.rs"]
mod grammar;
#[path = "../../tests/support/machine.rs"]
mod machine;
#[path = "../../tests/support/rules.rs"]
mod rules;

use ccx::settings::merge;
use ccx::settings::patch::{Document, Place, quoted};
use ccx::sse::Decoder;
use ccx::translate::estimate::input_tokens;
use ccx::translate::stream::Step;
use ccx::wire::messages::Request;
use serde_json::{Map, Value};

/// The frames of an event stream do not depend on how its bytes were cut.
///
/// The first byte says where: after so many bytes, and after so many again.
pub fn decoder(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = frames(&[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(step).max(1)).collect();
    assert_eq!(frames(&pieces), whole, "cut every {step} bytes");
}

/// All frames, and whether something is left at the end.
fn frames(pieces: &[&[u8]]) -> (Vec<(String, String)>, bool) {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in pieces {
        decoder.feed(piece).unwrap();
        while let Some(frame) = decoder.next_frame() {
            found.push((frame.event.to_owned(), frame.data.to_owned()));
        }
    }
    (found, decoder.has_tail())
}

/// A body is refused, or becomes a request that keeps every rule of its lane, the same every time.
pub fn request(bytes: &[u8]) {
    let Ok(request) = Request::parse(bytes) else {
        return;
    };
    let _ = input_tokens(&request);
    for lane in rules::LANES {
        let Ok(translated) = rules::translated(&request, lane) else {
            continue;
        };
        rules::check(&translated.body, lane);
        let again = rules::translated(&request, lane).unwrap();
        assert_eq!(translated.body, again.body);
    }
}

/// Whatever upstream sends becomes a legal Messages stream, the same however it was cut, streamed or whole.
pub fn stream(bytes: &[u8]) {
    let whole = machine::run(&[bytes]);
    // The client takes half of a surrogate pair, and so it passes as it is; the checker's reader does not.
    if whole.output.contains("\\ud") || whole.output.contains("\\uD") {
        return;
    }
    let message = grammar::check(&whole.output);
    assert_eq!(message.end.is_some(), whole.step == Step::Finished);
    let pieces: Vec<&[u8]> = bytes.chunks(7).collect();
    assert_eq!(machine::run(&pieces), whole);
    let (fold, step) = machine::fold(bytes);
    assert_eq!(step, whole.step);
    if step == Step::Finished {
        machine::same_message(&fold.into_body(), &message);
    }
}

/// An edited settings file holds what was put in and everything else as it was, to the byte, and can be put back.
///
/// Settings that are merged: every key of theirs stays, our environment wins. The two stand one after the other with
/// a zero byte between them; the first is the file that is edited.
pub fn settings(bytes: &[u8]) {
    let file = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    edited(file);
    merged(bytes);
}

fn edited(file: &[u8]) {
    let Ok(before) = Document::read(file) else {
        return;
    };
    assert_eq!(before.text().as_bytes(), file, "what is read is what was written");
    for place in [
        Place::Env("ANTHROPIC_BASE_URL".to_owned()),
        Place::Top("model".to_owned()),
    ] {
        let was = before.get(&place).map(str::to_owned);
        let value = quoted("http://127.0.0.1:1/\"\u{e9}\n");
        let mut after = before.clone();
        after.set(&place, &value);
        assert_eq!(after.get(&place), Some(value.as_str()));
        assert_eq!(Document::read(after.text().as_bytes()).as_ref(), Ok(&after));
        match &was {
            Some(was) => {
                after.set(&place, was);
                assert_eq!(after.text(), before.text());
            }
            None => {
                assert!(after.remove(&place));
                if !before.has_env() {
                    after.remove_empty_env();
                }
                assert_eq!(merge::parse(after.text()), merge::parse(before.text()));
            }
        }
    }
}

fn merged(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (theirs, ours) = text.split_once('\0').unwrap_or((text, "{}"));
    let (Some(theirs), Some(ours)) = (merge::parse(theirs), merge::parse(ours)) else {
        return;
    };
    let merged = merge::merge(theirs.clone(), ours.clone());
    let environment = |of: &Map<String, Value>| of.get("env").and_then(Value::as_object).cloned();
    for (key, value) in &theirs {
        if key != "env" || !ours.contains_key("env") {
            assert_eq!(merged.get(key), Some(value), "{key} of theirs");
        }
    }
    for (key, value) in environment(&ours).unwrap_or_default() {
        assert_eq!(environment(&merged).unwrap().get(&key), Some(&value), "{key} of our environment");
    }
    if ours.get("env").is_some_and(Value::is_object) {
        for (key, value) in environment(&theirs).unwrap_or_default() {
            let is_ours = environment(&ours).unwrap().contains_key(&key);
            assert!(is_ours || environment(&merged).unwrap().get(&key) == Some(&value), "{key}");
        }
    }
    let written = Value::Object(merged.clone()).to_string();
    // Numbers may differ in their last digit: they are read and written as floating point.
    let again = merge::parse(&written).expect("it is JSON");
    assert!(again.keys().eq(merged.keys()));
}
