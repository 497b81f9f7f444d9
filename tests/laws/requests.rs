//! Whatever a conversation is made of: what is sent keeps every rule of its lane, says everything that was said or
//! records that it could not, in the order in which it was said, and the same in every turn.

use ccx::catalogue::model::Lane;
use ccx::translate::estimate::input_tokens;
use ccx::translate::papers::Papers;
use ccx::translate::request::{ToolCache, Translated};
use ccx::wire::messages::Request;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::history::{History, Mark, bytes, history};
use super::rules::{LANES, check, sent, translated_with};

/// Every text of `value`, keys excluded, in order, one after the other.
fn said(value: &Value, into: &mut String) {
    match value {
        Value::String(text) => {
            into.push_str(text);
            into.push('\n');
        }
        Value::Array(values) => values.iter().for_each(|value| said(value, into)),
        Value::Object(fields) => fields.values().for_each(|value| said(value, into)),
        _ => {}
    }
}

fn is_excused(mark: &Mark, translated: &Translated) -> bool {
    translated
        .losses
        .iter()
        .any(|loss| mark.excuses.iter().any(|kind| loss.kind.starts_with(kind)))
}

/// Everything marked is in `body`, or its loss is on record.
fn assert_nothing_vanished(history: &History, translated: &Translated, body: &Value) {
    let mut all = String::new();
    said(body, &mut all);
    let mut vanished = 0;
    for mark in &history.marks {
        if !all.contains(&mark.word) {
            assert!(
                is_excused(mark, translated),
                "{mark:?} vanished; losses: {:?}\n{body:#}",
                translated.losses
            );
            // What stands inside of another block may share that one's loss.
            vanished += usize::from(!mark.is_nested && !mark.excuses.contains(&"document"));
        }
    }
    assert!(
        vanished <= translated.losses.len(),
        "{vanished} of {:?}",
        translated.losses
    );
}

/// What is said of the conversation is said in its order.
fn assert_in_order(history: &History, body: &Value) {
    let mut all = String::new();
    said(&body["input"], &mut all);
    let found = |mark: &Mark| Some((mark.place?, all.find(&mark.word)?));
    let mut furthest = (0, 0);
    for (place, at) in history.marks.iter().filter_map(found) {
        if place > furthest.0 {
            assert!(
                at > furthest.1,
                "block {place} is told before block {}\n{body:#}",
                furthest.0
            );
        }
        furthest = (place, furthest.1.max(at));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), cases: 400, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_becomes_a_request_that_keeps_every_rule_and_loses_nothing_in_silence(history in history()) {
        let body = history.body();
        let request = Request::parse(&body).unwrap();
        assert!(input_tokens(&request) > 0);
        let mut cache = ToolCache::default();
        for lane in LANES {
            let translated = sent(&body, lane);
            let value = check(&translated.body, lane);
            assert_nothing_vanished(&history, &translated, &value);
            assert_in_order(&history, &value);
            for field in ["temperature", "top_p", "top_k"] {
                let is_lost = translated.losses.iter().any(|loss| loss.kind == field);
                prop_assert_eq!(is_lost, history.request.get(field).is_some(), "{}", field);
            }
            // The same bytes from the same request, also where its tools are known.
            prop_assert_eq!(&translated.body, &sent(&body, lane).body);
            for _ in 0..2 {
                let again = translated_with(&request, lane, &Papers::default(), &mut cache).unwrap();
                prop_assert_eq!(&translated.body, &again.body);
                prop_assert_eq!(&translated.losses, &again.losses);
            }
        }
    }

    /// Only where the cut parts a call from its result, or reasoning from what it led to, may the
    /// beginning differ.
    #[test]
    fn a_longer_conversation_begins_like_the_shorter_one(history in history(), cut: prop::sample::Index) {
        let mut shorter = history.request.clone();
        let messages = shorter["messages"].as_array_mut().unwrap();
        let cut = 1 + cut.index(messages.len());
        messages.truncate(cut);
        let text = messages.iter().map(Value::to_string).collect::<String>();
        let rest: String = history.request["messages"].as_array().unwrap()[cut..].iter().map(Value::to_string).collect();
        prop_assume!(!text.contains("\"tool_use\"") || !rest.contains("\"tool_result\""));
        prop_assume!(!text.contains("ccx1:"));
        for lane in LANES {
            let (long, short) = (sent(&history.body(), lane).body, sent(&bytes(&shorter), lane).body);
            prop_assert!(input(&long).starts_with(input(&short)));
        }
    }

    /// The turn that the client really adds: what the model said and what came of it.
    #[test]
    fn an_answered_turn_keeps_everything_before_it(history in history(), is_call: bool) {
        let mut longer = history.request.clone();
        let messages = longer["messages"].as_array_mut().unwrap();
        // Ended by the person, so that nothing is left open.
        messages.push(json!({"role": "user", "content": "go on"}));
        let shorter = bytes(&longer);
        let messages = longer["messages"].as_array_mut().unwrap();
        if is_call {
            messages.push(json!({"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_new", "name": "T", "input": {}}]}));
            messages.push(json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_new", "content": "done"}]}));
        } else {
            messages.push(json!({"role": "assistant", "content": [{"type": "text", "text": "so be it"}]}));
            messages.push(json!({"role": "user", "content": [{"type": "text", "text": "thanks"}]}));
        }
        for lane in LANES {
            let (long, short) = (sent(&bytes(&longer), lane).body, sent(&shorter, lane).body);
            prop_assert!(input(&long).starts_with(input(&short)));
            if lane == Lane::Full {
                let value = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["tools"].clone();
                prop_assert_eq!(value(&long), value(&short));
            }
        }
    }

    #[test]
    fn damaged_bodies_never_panic(history in history(), at: prop::sample::Index, byte: u8) {
        let mut body = history.body();
        let at = at.index(body.len());
        let _ = Request::parse(&body[..at]);
        body[at] = byte;
        if let Ok(request) = Request::parse(&body) {
            for lane in LANES {
                let _ = super::rules::translated(&request, lane);
            }
        }
    }
}

/// The list of items, without its end.
fn input(body: &[u8]) -> &str {
    #[derive(serde::Deserialize)]
    struct Sent<'a> {
        #[serde(borrow)]
        input: &'a RawValue,
    }
    let sent: Sent<'_> = serde_json::from_slice(body).unwrap();
    sent.input.get().strip_suffix(']').unwrap()
}
