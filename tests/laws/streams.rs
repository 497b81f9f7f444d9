//! Whatever upstream says, in whatever order, cut anywhere and said twice: what comes out is a legal Messages stream.

use ccx::sse::Decoder;
use ccx::translate::search::Search;
use ccx::translate::stream::Step;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::grammar::check;
use super::machine::*;

fn soup_item() -> impl Strategy<Value = Value> {
    let piece = prop_oneof![
        Just(String::new()),
        Just(" ".to_owned()),
        "[a-c\"\\\\\n\u{e4}]{1,4}"
    ];
    let id = prop_oneof![
        Just(Value::Null),
        (0..4u64).prop_map(|id| json!(format!("i{id}")))
    ];
    (0..6u8, id, piece.clone(), piece, proptest::option::of(Just("gAA")), any::<bool>()).prop_map(
        |(kind, id, one, two, encrypted, has_name)| {
            let name = has_name.then_some("f");
            match kind {
                0 => json!({"type": "message", "id": id, "content": [{"text": one}, {"refusal": two}]}),
                1 => json!({"type": "reasoning", "id": id, "summary": [{"text": one}, {"text": two}], "encrypted_content": encrypted}),
                2 => json!({"type": "function_call", "id": id, "call_id": name, "name": name, "arguments": one}),
                3 => json!({"type": "web_search_call", "id": id, "status": name, "action": {"type": "search", "query": one,
                    "sources": [{"url": two}, {"url": "https://a"}]}}),
                4 => json!({"type": "web_search_call", "id": id, "status": if has_name { "failed" } else { "completed" },
                    "action": {"type": "open_page", "url": encrypted}}),
                _ => json!({"type": "custom_tool_call", "id": id, "call_id": name, "name": name, "input": two}),
            }
        },
    )
}

fn soup_event() -> impl Strategy<Value = Value> {
    let index = prop_oneof![1 => Just(Value::Null), 4 => (0..4u64).prop_map(|index| json!(index))];
    let id = prop_oneof![
        Just(Value::Null),
        (0..4u64).prop_map(|id| json!(format!("i{id}")))
    ];
    const NAMES: [&str; 12] = [
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.output_text.done",
        "response.reasoning_summary_text.done",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.done",
        "response.created",
        "response.unknown",
    ];
    let text = "[a-c\"\\\\\n\u{e4}]{0,4}";
    prop_oneof![
        6 => (proptest::sample::select(&NAMES[..]), index.clone(), id, 0..3u64, text).prop_map(|(name, index, id, part, text)| json!({
            "type": name, "output_index": index, "item_id": id, "content_index": part,
            "delta": text, "text": text, "arguments": text, "input": text,
        })),
        1 => (index.clone(), 0..3u64, text).prop_map(|(index, part, text)| json!({
            "type": "response.output_text.annotation.added", "output_index": index, "content_index": part,
            "annotation": {"type": "url_citation", "url": format!("https://{text}"), "title": text},
        })),
        2 => (index.clone(), soup_item()).prop_map(|(index, item)| json!({"type": "response.output_item.added", "output_index": index, "item": item})),
        3 => (index, soup_item()).prop_map(|(index, item)| json!({"type": "response.output_item.done", "output_index": index, "item": item})),
    ]
}

fn soup_end() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(json!({"type": "response.failed", "response": {"error": {"code": "a"}}}))),
        1 => Just(Some(json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}))),
        4 => proptest::collection::vec(soup_item(), 0..3).prop_map(|output| Some(json!({"type": "response.completed", "response": {"output": output}}))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_soup_of_events_is_a_legal_stream(
        events in proptest::collection::vec(soup_event(), 0..24),
        end in soup_end(),
    ) {
        let events: Vec<Value> = events.into_iter().chain(end).collect();
        let stream = stream(&events);
        let whole = run(&[stream.as_bytes()]);
        // The quick way is the plain way with less work.
        prop_assert_eq!(&run(&[slowed(&stream).as_bytes()]), &whole);
        told(&events);
        let search = Search { name: "web_search".to_owned(), max_uses: Some(2), ..Search::default() };
        let message = told_with(&searching(search), &events);
        // Each search has its result, and none has two.
        let ids = |kind: &str, field: &str| -> Vec<Value> {
            let found = message.content.iter().filter(|block| block["type"] == kind);
            found.map(|block| block[field].clone()).collect()
        };
        let results = ids("web_search_tool_result", "tool_use_id");
        let searches = ids("server_tool_use", "id");
        prop_assert!(searches.starts_with(&results));
        prop_assert!(message.end.is_none() || searches.len() == results.len());
    }

    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&run(&[&bytes]).output);
    }

    #[test]
    fn an_interleaving_tells_what_the_sequence_tells(
        order in proptest::collection::vec(0..3usize, 0..40),
        texts in proptest::collection::vec("[a-z\"\\\\\n ]{1,6}", 3),
    ) {
        // Three items, each with its own sequence of events, told in turns.
        let arguments = json!({"a": texts[1]}).to_string();
        let (head, tail) = arguments.split_at(4);
        let items = [
            vec![added(0, reasoning(0, &[], None)), summary_delta(0, 0, &texts[0]), done(0, reasoning(0, &[&texts[0]], Some("g")))],
            vec![added(1, call(1, "f", "")), arguments_delta(1, head), arguments_delta(1, tail), done(1, call(1, "f", &arguments))],
            vec![added(2, message(2, "")), text_delta(2, &texts[2]), done(2, message(2, &texts[2]))],
        ];
        let mut rest: Vec<_> = items.iter().map(|events| events.iter()).collect();
        // The first item begins: upstream announces items in their order.
        let mut events: Vec<Value> = rest.iter_mut().filter_map(|item| item.next().cloned()).collect();
        events.extend(order.iter().filter_map(|at| rest[*at].next().cloned()));
        events.extend(rest.into_iter().flatten().cloned());
        events.push(completed());
        let sequence: Vec<Value> = items.concat().into_iter().chain([completed()]).collect();
        prop_assert_eq!(content(&events), content(&sequence));
    }
}

/// An event of a recorded stream, as it stands there.
type Recorded = String;

/// Every frame of every recorded stream, its blank line included.
fn recorded() -> Vec<Vec<Recorded>> {
    let whole = |stream: Vec<u8>| {
        let text = String::from_utf8(stream).unwrap();
        text.split_inclusive("\n\n").map(str::to_owned).collect()
    };
    fixtures().into_values().map(whole).collect()
}

/// What may befall the frames of a stream on their way.
#[derive(Clone, Debug)]
enum Mishap {
    Drop(prop::sample::Index),
    Repeat(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    /// A frame of another stream comes in between.
    Stray(prop::sample::Index, prop::sample::Index),
    Unknown(prop::sample::Index, String),
    /// A byte is lost, with what JSON it was part of.
    Byte(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        at().prop_map(Mishap::Drop),
        at().prop_map(Mishap::Repeat),
        (at(), at()).prop_map(|(one, two)| Mishap::Swap(one, two)),
        (at(), at()).prop_map(|(to, from)| Mishap::Stray(to, from)),
        (at(), "[a-z._]{0,12}").prop_map(|(to, kind)| Mishap::Unknown(to, kind)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mishap::Byte(at, byte)),
        at().prop_map(Mishap::Cut),
    ]
}

/// The bytes of stream number `which` after all that befell it.
fn befallen(streams: &[Vec<Recorded>], which: prop::sample::Index, mishaps: &[Mishap]) -> Vec<u8> {
    let mut frames = which.get(streams).clone();
    for mishap in mishaps {
        let count = frames.len();
        if count == 0 {
            break;
        }
        match mishap {
            Mishap::Drop(at) => drop(frames.remove(at.index(count))),
            Mishap::Repeat(at) => frames.insert(at.index(count), at.get(&frames).clone()),
            Mishap::Swap(one, two) => frames.swap(one.index(count), two.index(count)),
            Mishap::Stray(to, from) => {
                let all: Vec<&Recorded> = streams.iter().flatten().collect();
                frames.insert(to.index(count), (*from.get(&all)).clone());
            }
            Mishap::Unknown(to, kind) => {
                let frame =
                    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"delta\":\"x\"}}\n\n");
                frames.insert(to.index(count), frame);
            }
            Mishap::Byte(..) | Mishap::Cut(_) => {}
        }
    }
    let mut bytes = frames.concat().into_bytes();
    for mishap in mishaps {
        if bytes.is_empty() {
            break;
        }
        match mishap {
            Mishap::Byte(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Mishap::Cut(at) => bytes.truncate(at.index(bytes.len())),
            _ => {}
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), cases: 2000, ..ProptestConfig::default() })]

    /// Also: it is the same however the bytes were cut, streamed or folded, and what was not ended by upstream
    /// does not look whole.
    #[test]
    fn whatever_befalls_a_recorded_stream_it_stays_legal(
        which: prop::sample::Index,
        mishaps in prop::collection::vec(mishap(), 0..6),
        cut: prop::sample::Index,
    ) {
        let bytes = befallen(&recorded(), which, &mishaps);
        let mut decoder = Decoder::default();
        decoder.feed(&bytes).unwrap();
        while decoder.next_frame().is_some() {}
        let whole = run(&[&bytes]);
        let message = check(&whole.output);
        prop_assert_eq!(message.end.is_some(), whole.step == Step::Finished);
        let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(&run(&[head, tail]), &whole);
        let (fold, step) = fold(&bytes);
        prop_assert_eq!(&step, &whole.step);
        if step == Step::Finished {
            same_message(&fold.into_body(), &message);
        }
    }
}
