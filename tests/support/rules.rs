//! What every translated request keeps to, whatever it was made of.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test binaries, each uses a part"
)]

use std::collections::BTreeMap;

use ccx::catalogue::knobs::Knobs;
use ccx::catalogue::model::{Effort, Lane, Model};
use ccx::simulate::check::check as refusal;
use ccx::translate::papers::Papers;
use ccx::translate::reasoning::Origin;
use ccx::translate::request::{RequestError, Target, ToolCache, Translated, translate};
use ccx::wire::messages::Request;
use serde_json::Value;

pub const LANES: [Lane; 2] = [Lane::Full, Lane::Lite];

/// The account that every request is sent for.
pub const ACCOUNT: &str = "account";

/// What §3 of the contract lists as refused, and what only the other API has.
pub const FORBIDDEN: &[&str] = &[
    "max_output_tokens",
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_retention",
    "stream_options",
    "truncation",
    "stop",
    "stop_sequences",
    "previous_response_id",
    "instructions",
    "messages",
    "system",
    "thinking",
    "context_management",
    "safeguards",
    "output_config",
];

/// A model of the bundled catalogue that is served on `lane`.
pub fn model(lane: Lane) -> Model {
    let (slug, efforts, default) = match lane {
        Lane::Full => ("gpt-5.5", 4, Effort::Medium),
        Lane::Lite => ("gpt-6.1-sol", 6, Effort::Low),
    };
    let all = [
        Effort::Low,
        Effort::Medium,
        Effort::High,
        Effort::Xhigh,
        Effort::Max,
        Effort::Ultra,
    ];
    Model {
        slug: slug.to_owned(),
        display_name: slug.to_uppercase(),
        listed: true,
        priority: 1,
        context_window: 272_000,
        effective_percent: 95,
        efforts: all[..efforts].to_vec(),
        default_effort: Some(default),
        support_verbosity: true,
        default_verbosity: Some("low".to_owned()),
        service_tiers: vec!["priority".to_owned()],
        images: true,
        lite: lane == Lane::Lite,
    }
}

/// Translates `request` as the first one that a cache of tools sees.
pub fn translated(request: &Request<'_>, lane: Lane) -> Result<Translated, RequestError> {
    translated_with(request, lane, &Papers::default(), &mut ToolCache::default())
}

/// Translates `request` for the model of `lane`, where its PDFs say `papers`.
pub fn translated_with(
    request: &Request<'_>,
    lane: Lane,
    papers: &Papers<'_>,
    cache: &mut ToolCache,
) -> Result<Translated, RequestError> {
    let model = model(lane);
    let origin = Origin::new(ACCOUNT, &model.slug);
    let target = Target {
        model: &model,
        lane,
        origin: &origin,
        conversation: "conversation-1",
        tier: None,
        knobs: Knobs::default(),
        papers,
    };
    translate(request, &target, cache)
}

/// Translates the bytes of a request that is known to be one.
pub fn sent(body: &[u8], lane: Lane) -> Translated {
    translated(&Request::parse(body).unwrap(), lane).unwrap()
}

/// Holds the body of a translated request to the rules of its lane and returns it.
#[track_caller]
pub fn check(body: &[u8], lane: Lane) -> Value {
    let value: Value = serde_json::from_slice(body).expect("it is JSON");
    if let Err(refused) = refusal(lane == Lane::Lite, &value) {
        panic!("upstream refuses it: {refused:?}\n{value:#}");
    }
    let fields = value.as_object().unwrap();
    for forbidden in FORBIDDEN {
        assert!(!fields.contains_key(*forbidden), "{forbidden} is sent");
    }
    let input = value["input"].as_array().unwrap();
    assert!(
        input
            .iter()
            .any(|item| item["role"] == "developer" && item["type"] == "message"),
        "no developer message"
    );
    for part in input
        .iter()
        .filter_map(|item| item["content"].as_array())
        .flatten()
    {
        assert_ne!(part["text"], "", "an empty part");
    }
    assert_paired(input);
    assert_reasoning_leads_somewhere(input);
    value
}

/// Every call has a legal name and id and one output, which comes after it.
fn assert_paired(input: &[Value]) {
    let mut open: BTreeMap<&str, bool> = BTreeMap::new();
    for item in input {
        let Some(id) = item["call_id"].as_str() else {
            continue;
        };
        assert!(id.chars().count() <= 64 && !id.is_empty(), "{id}");
        match item["type"].as_str().unwrap() {
            "function_call" => {
                assert_eq!(open.insert(id, true), None, "called twice: {id}");
                let name = item["name"].as_str().unwrap();
                let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                assert!(
                    (1..=64).contains(&name.len()) && name.chars().all(is_plain),
                    "{name}"
                );
            }
            _ => assert_eq!(open.insert(id, false), Some(true), "not called: {id}"),
        }
    }
    assert!(open.values().all(|is_open| !is_open), "{open:?}");
}

/// Upstream refuses reasoning without what it led to.
fn assert_reasoning_leads_somewhere(input: &[Value]) {
    for pair in input.windows(2) {
        if pair[0]["type"] == "reasoning" {
            assert!(
                pair[1]["type"] == "reasoning"
                    || pair[1]["type"] == "function_call"
                    || pair[1]["role"] == "assistant",
                "{}",
                pair[1]
            );
        }
    }
    assert!(input.last().is_none_or(|item| item["type"] != "reasoning"));
}
