//! A capture as a scenario: the simulated ChatGPT answers as the real one did.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::capture::keeper;
use crate::capture::transcript::{Transcript, Turn};
use crate::error::{Kind, Report};
use crate::simulate::scenario::Scenario;

/// Makes a scenario of the capture in `file`.
///
/// # Errors
///
/// It cannot be read, is no capture, or nothing was asked upstream in it.
pub fn scenario(file: &Path) -> Result<Scenario, Report> {
    let wrong = |error: anyhow::Error| Report::new(Kind::Usage, error);
    let name = file.display();
    let transcript = keeper::load(file)
        .with_context(|| format!("could not read the capture {name}"))
        .map_err(wrong)?;
    if transcript.exchanges.is_empty() {
        let error = anyhow::anyhow!("nothing was asked upstream in {name}");
        return Err(
            wrong(error).hint("that request was refused before: there is nothing to play back")
        );
    }
    let text = text(&transcript).to_string();
    Scenario::parse("replay", &text).map_err(|error| wrong(error.into()))
}

/// The attempts in their order, the last one for ever; once for a conversation, once for a question without tools.
fn text(transcript: &Transcript) -> Value {
    let last = transcript.exchanges.len() - 1;
    let steps = ["main", "side"].into_iter().flat_map(|kind| {
        let turns = transcript.exchanges.iter().enumerate();
        turns.map(move |(at, turn)| {
            let mut step = answer(turn);
            step["name"] = json!(format!("{kind} {}", at + 1));
            step["when"] = json!({"kind": kind});
            if at < last {
                step["times"] = json!(1);
            }
            step
        })
    });
    let steps: Vec<Value> = steps.collect();
    json!({"about": format!("the capture of {}", transcript.id), "steps": steps})
}

fn answer(turn: &Turn) -> Value {
    match &turn.failure {
        Some(failure) if turn.response.is_empty() => {
            json!({"reply": {"status": 503, "body": {"error": {"message": failure}}}})
        }
        _ => json!({"answer": [{"raw": stream(&turn.response)}, "end"]}),
    }
}

/// The stream without the two events that the simulator begins with itself.
fn stream(response: &str) -> String {
    let response = response.replace("\r\n", "\n");
    let frames = response.split_inclusive("\n\n").filter(|frame| {
        let begins = |name: &str| frame.starts_with(&format!("event: {name}\n"));
        !begins("response.created") && !begins("response.in_progress")
    });
    frames.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_in_their_order_and_the_last_one_stays() {
        let turn = |response: &str, failure: Option<&str>| Turn {
            response: response.to_owned(),
            failure: failure.map(str::to_owned),
            ..Turn::default()
        };
        let events =
            "event: response.created\ndata: {}\n\nevent: x\ndata: 1\n\nevent: y\ndata: 2\n";
        let transcript = Transcript {
            exchanges: vec![turn("", Some("too much")), turn(events, None)],
            ..Transcript::default()
        };
        let value = text(&transcript);
        assert_eq!(value["steps"].as_array().map(Vec::len), Some(4));
        let (first, second) = (&value["steps"][0], &value["steps"][1]);
        assert_eq!(
            (&first["times"], &second["times"]),
            (&json!(1), &json!(null))
        );
        assert_eq!(first["reply"]["status"], 503);
        let raw = "event: x\ndata: 1\n\nevent: y\ndata: 2\n";
        assert_eq!(second["answer"], json!([{"raw": raw}, "end"]));
        Scenario::parse("x", &value.to_string()).unwrap();
    }
}
