//! Scenarios: data files that say how the backend answers. Format: `docs/scenarios.md`.
//!
//! Only the shape of the file and the bundled files; choosing a step is `script`'s work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::limits::Plan;

/// A whole scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name that a person picks it by; a file without one gets its file name.
    #[serde(default)]
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// How fast answers come, where a step says nothing else.
    #[serde(default)]
    pub pacing: Pacing,
    /// What the accounts may do, by their forged names; others have no end.
    #[serde(default)]
    pub accounts: BTreeMap<String, Plan>,
    /// What models refuse for its length, by their names; others take anything.
    #[serde(default)]
    pub windows: BTreeMap<String, Window>,
    /// Canned replies of paths other than the model's; the first that fits answers.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// The first step whose `when` fits answers.
    pub steps: Vec<Step>,
}

/// How long a request a model takes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// In tokens, four bytes each. A request that is longer is refused before any step is looked for.
    pub tokens: usize,
    /// How it is refused; absent: as upstream does.
    #[serde(default)]
    pub reply: Option<Reply>,
    /// The `error` of a stream that fails at once, instead.
    #[serde(default)]
    pub failed: Option<Value>,
}

/// The counts that an answer tells, where they are not those of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Told {
    /// All of the input.
    pub input: Option<usize>,
    /// Of these, found in the cache.
    pub cached: Option<usize>,
}

/// How fast an answer comes. All zero is as fast as possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pacing {
    /// Milliseconds before the status line.
    pub accept_ms: u64,
    /// Milliseconds between the first events (`created`, `in_progress`) and the first item.
    pub first_ms: u64,
    /// Milliseconds before each delta.
    pub delta_ms: u64,
    /// Characters in a delta; zero means the whole text at once.
    pub delta_chars: usize,
}

/// A canned reply of one path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The path, without the query.
    pub path: String,
    /// How often it answers; after that the path behaves as ever. Absent: always.
    #[serde(default)]
    pub times: Option<u32>,
    /// The answer.
    pub reply: Reply,
}

/// A whole HTTP answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, besides the length. `content-type` follows the body when it is not given.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: a string goes out as it is, everything else as JSON.
    #[serde(default)]
    pub body: Value,
}

/// One answer and when it is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The name that shows in the record and in complaints.
    pub name: String,
    /// Which requests it answers.
    #[serde(default)]
    pub when: When,
    /// How often it answers at most.
    #[serde(default)]
    pub times: Option<u32>,
    /// Its own pacing instead of the scenario's.
    #[serde(default)]
    pub pacing: Option<Pacing>,
    /// An HTTP answer that is no stream. Either this or `answer`.
    #[serde(default)]
    pub reply: Option<Reply>,
    /// The stream's contents, in order.
    #[serde(default)]
    pub answer: Vec<Action>,
    /// Headers of the stream's answer that replace the usual ones.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What the answer says it took, instead of what the simulator counts.
    #[serde(default)]
    pub usage: Told,
}

/// What a request must be like. Everything that is said must hold; nothing said fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// What the client wants of it.
    pub kind: Option<Kind>,
    /// The model.
    pub model: Option<String>,
    /// Texts that the prompt must contain, upper and lower case alike.
    pub prompt: Vec<String>,
    /// How many tool outputs came since the prompt.
    pub outputs: Option<usize>,
    /// How many at least.
    pub outputs_from: Option<usize>,
    /// Tools that must be offered.
    pub offers: Vec<String>,
    /// A text that the newest tool output must contain.
    pub output: Option<String>,
}

/// What the client wants of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The conversation itself (also a subagent's).
    Main,
    /// A title of the session, as JSON.
    Title,
    /// A verdict of the permission check.
    Classifier,
    /// A summary that replaces the conversation.
    Compaction,
    /// A search of the web: there is no other tool.
    Search,
    /// Anything else that offers no tools.
    Side,
}

/// One piece of a stream.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A reasoning item with these summary parts and encrypted content of its own.
    Reasoning(Vec<String>),
    /// A message.
    Text(Text),
    /// A function call; several in a row are parallel ones.
    Call(Call),
    /// A search of the web, run by upstream. The next text cites what it finds.
    Search(Search),
    /// A page, opened by upstream.
    Open(String),
    /// Milliseconds without a byte.
    Wait(u64),
    /// Ends with `response.failed` and this `error`.
    Failed(Value),
    /// Ends with `response.incomplete` for this reason.
    Incomplete(String),
    /// An event as it stands: its `type` names it, a `sequence_number` is added.
    Event(Value),
    /// Bytes as they stand.
    Raw(String),
    /// Drops the connection in the middle of the body.
    Cut,
    /// Ends the body properly, but without a last event.
    End,
    /// Sends nothing more until the peer leaves.
    Stall,
}

/// The text of a message.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Once.
    Once(String),
    /// Many times; `{{n}}` is the number, from 1.
    Repeated {
        /// The text.
        text: String,
        /// How often.
        repeat: usize,
    },
}

/// A function call.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool's name; it must be offered.
    pub name: String,
    /// Its arguments; strings in it are templates. Each name must be in the tool's schema.
    pub arguments: serde_json::Map<String, Value>,
    /// Its id, where a test wants a certain one; else one is made.
    #[serde(default)]
    pub call_id: Option<String>,
}

/// A search of the web.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// What is looked for.
    pub query: String,
    /// What is found.
    #[serde(default)]
    pub results: Vec<Found>,
    /// Whether the call itself tells the addresses of what it found, too.
    #[serde(default)]
    pub sources: bool,
    /// Whether it fails.
    #[serde(default)]
    pub failed: bool,
}

/// A page that a search finds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// Its title.
    pub title: String,
    /// Its address.
    pub url: String,
}

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Neither a bundled name nor a file.
    #[error("no scenario is called {name}; there are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The bundled names.
        known: Vec<&'static str>,
    },
    /// The file cannot be read.
    #[error("could not read the scenario {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no scenario.
    #[error("{name} is not a scenario")]
    Malformed {
        /// Its name or path.
        name: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It has the shape of a scenario but cannot work.
    #[error("step {step} of {name}: {why}")]
    Senseless {
        /// The scenario.
        name: String,
        /// The step.
        step: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Scenarios with a file of their own.
const SINGLE: &[(&str, &str)] = &[
    ("chat", include_str!("scenarios/chat.json")),
    ("job", include_str!("scenarios/job.json")),
];

/// Faults, many small ones in one file: name → scenario.
const FAULTS: &str = include_str!("scenarios/faults.json");

/// Answers of side requests, for every scenario.
const SIDE: &str = include_str!("scenarios/side.json");

impl Scenario {
    /// Returns the names of the bundled scenarios, those without faults first.
    pub fn names() -> Vec<&'static str> {
        let single = SINGLE.iter().map(|(name, _)| *name);
        single.chain(faults().into_keys()).collect()
    }

    /// Returns the bundled scenario `name`.
    pub fn bundled(name: &str) -> Result<Self, ScenarioError> {
        let single = SINGLE
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| *text);
        let text = single.or_else(|| faults().get(name).map(|raw| raw.get()));
        match text {
            Some(text) => Self::parse(name, text),
            None => Err(ScenarioError::Unknown {
                name: name.to_owned(),
                known: Self::names(),
            }),
        }
    }

    /// Reads the scenario in the file `path`.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a scenario; `name` is what it is called when it does not say so itself.
    ///
    /// Steps for the client's side requests (title, permission check, summary) are added at the end.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self =
            serde_json::from_str(text).map_err(|source| ScenarioError::Malformed {
                name: name.to_owned(),
                source,
            })?;
        if scenario.name.is_empty() {
            name.clone_into(&mut scenario.name);
        }
        for step in &scenario.steps {
            let why = match (&step.reply, step.answer.is_empty()) {
                (Some(_), false) => "it has both a reply and an answer",
                (None, true) => "it has neither a reply nor an answer",
                _ => continue,
            };
            return Err(ScenarioError::Senseless {
                name: scenario.name.clone(),
                step: step.name.clone(),
                why,
            });
        }
        let side: Self = serde_json::from_str(SIDE).expect("the bundled side steps are a scenario");
        scenario.steps.extend(side.steps);
        Ok(scenario)
    }

    /// Returns the scenario without any pacing: as fast as possible. Waits that are part of an
    /// answer stay.
    #[must_use]
    pub fn unpaced(mut self) -> Self {
        self.pacing = Pacing::default();
        for step in &mut self.steps {
            step.pacing = None;
        }
        self
    }
}

fn faults() -> BTreeMap<&'static str, &'static RawValue> {
    serde_json::from_str(FAULTS).expect("the bundled faults are a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_scenario_is_one() {
        for name in Scenario::names() {
            let scenario = Scenario::bundled(name).unwrap();
            assert_eq!(scenario.name, name);
            assert!(scenario.steps.len() > 4, "{name} has steps of its own");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, message) in [
            ("{", "x is not a scenario"),
            (r#"{"about":"","steps":[],"more":1}"#, "x is not a scenario"),
            (
                r#"{"about":"","steps":[{"name":"a"}]}"#,
                "step a of x: it has neither a reply nor an answer",
            ),
            (
                r#"{"about":"","steps":[{"name":"a","reply":{"status":500},"answer":["cut"]}]}"#,
                "step a of x: it has both a reply and an answer",
            ),
        ] {
            let error = Scenario::parse("x", text).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        assert!(
            Scenario::bundled("nothing")
                .unwrap_err()
                .to_string()
                .contains("chat")
        );
    }
}
