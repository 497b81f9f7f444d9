//! Every recorded request of the client translates on both lanes, to what the golden files say.
//!
//! `CCX_BLESS=1` rewrites the golden files; the difference is to be reviewed like code. Long texts
//! and schemas stand there as their beginning, length and digest.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/rules.rs"]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ccx::catalogue::model::Lane;
use ccx::pdf::text::{self, Found};
use ccx::translate::papers::{Paper, Papers, wanted};
use ccx::translate::request::{Loss, LossPlace, ToolCache, Translated};
use ccx::wire::messages::Request;
use rules::{LANES, check, translated_with};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What the recorded requests of one file lose, on both lanes or on one.
struct Expected {
    file: &'static str,
    on: Option<Lane>,
    losses: &'static [Loss],
}

const EXPECTED: &[Expected] = &[
    Expected {
        file: "04-",
        on: None,
        losses: &[Loss::dropped("safeguards")],
    },
    Expected {
        file: "06-",
        on: None,
        losses: &[Loss::dropped("thinking")],
    },
    Expected {
        file: "12-",
        on: Some(Lane::Lite),
        losses: &[Loss::dropped("web_search")],
    },
    Expected {
        file: "19-",
        on: Some(Lane::Lite),
        losses: &[Loss::approximated("document_text")],
    },
];

struct Recorded {
    name: String,
    body: Vec<u8>,
}

fn recorded() -> Vec<Recorded> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/claude-code");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    paths.sort();
    let requests: Vec<_> = paths
        .into_iter()
        .filter_map(|path| {
            let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let body = &file["request"]["body"];
            body.is_object().then(|| Recorded {
                name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                body: serde_json::to_vec(body).unwrap(),
            })
        })
        .collect();
    assert_eq!(requests.len(), 35);
    requests
}

/// What the PDFs of a request say, taken out here and now.
fn papers<'a>(request: &Request<'a>, lane: Lane) -> Papers<'a> {
    let mut papers = Papers::default();
    for data in wanted(&request.messages, lane) {
        let (mut pages, mut texts) = (0, Vec::new());
        text::read(&STANDARD.decode(data).unwrap(), |found| {
            match found {
                Found::Pages(count) => pages = count,
                Found::Page(text) => texts.push(text),
            }
            true
        });
        papers.add(data, Arc::new(Paper::of(pages, &texts)));
    }
    papers
}

fn sent(body: &[u8], lane: Lane) -> Translated {
    let request = Request::parse(body).unwrap();
    let papers = papers(&request, lane);
    translated_with(&request, lane, &papers, &mut ToolCache::default()).unwrap()
}

/// The value with what is long told by its beginning, length and digest.
fn abridged(value: &Value, is_schema_shown: bool) -> Value {
    let digest = |bytes: &[u8]| {
        Sha256::digest(bytes)[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    match value {
        Value::String(text) if text.chars().count() > 160 => {
            let head: String = text.chars().take(60).collect();
            json!(format!(
                "{head}… ({} bytes, {})",
                text.len(),
                digest(text.as_bytes())
            ))
        }
        Value::Array(values) => values
            .iter()
            .map(|value| abridged(value, is_schema_shown))
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let text = value.to_string();
                let value = if key == "parameters" && !is_schema_shown && text.len() > 300 {
                    json!(format!(
                        "({} bytes, {})",
                        text.len(),
                        digest(text.as_bytes())
                    ))
                } else {
                    abridged(value, is_schema_shown)
                };
                (key.clone(), value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[test]
fn recorded_requests_become_what_the_golden_files_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/requests");
    let bless = std::env::var_os("CCX_BLESS").is_some();
    let mut wrong = Vec::new();
    for Recorded { name, body } in recorded() {
        for (lane, suffix) in [(Lane::Full, "full"), (Lane::Lite, "lite")] {
            let value: Value = serde_json::from_slice(&sent(&body, lane).body).unwrap();
            // One request shows every schema in full, the others by digest.
            let is_schema_shown = name.starts_with("30-") && lane == Lane::Full;
            let mut text =
                serde_json::to_string_pretty(&abridged(&value, is_schema_shown)).unwrap();
            text.push('\n');
            let path = directory.join(format!("{name}.{suffix}.json"));
            if bless {
                fs::create_dir_all(&directory).unwrap();
                fs::write(&path, &text).unwrap();
            } else if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
                wrong.push(path);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "differ from the golden files (CCX_BLESS=1 rewrites them): {wrong:#?}"
    );
}

#[test]
fn recorded_requests_lose_only_what_is_known() {
    for Recorded { name, body } in recorded() {
        for lane in LANES {
            let expected: Vec<Loss> = EXPECTED
                .iter()
                .filter(|it| name.starts_with(it.file) && it.on.is_none_or(|on| on == lane))
                .flat_map(|it| it.losses)
                .copied()
                .collect();
            let losses = sent(&body, lane).losses;
            let losses: Vec<_> = losses
                .iter()
                .map(|loss| loss.at(LossPlace::Field))
                .collect();
            assert_eq!(losses, expected, "{name} {lane:?}");
        }
    }
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    for Recorded { name, body } in recorded() {
        for lane in LANES {
            assert_eq!(sent(&body, lane).body, sent(&body, lane).body, "{name}");
        }
    }
}

#[test]
fn bodies_keep_the_rules_of_their_lane() {
    for Recorded { name, body } in recorded() {
        for lane in LANES {
            let value = check(&sent(&body, lane).body, lane);
            assert!(
                !value.to_string().contains("x-anthropic-billing-header"),
                "{name} sends the label"
            );
        }
    }
}

#[test]
fn the_session_is_read_from_every_main_request() {
    for Recorded { name, body } in recorded() {
        let request = Request::parse(&body).unwrap();
        let session = request.session_id();
        if name.contains("count-tokens") {
            assert_eq!(session, None, "{name}");
        } else {
            assert_eq!(session.unwrap().len(), 36, "{name}");
        }
    }
}
