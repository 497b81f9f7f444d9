//! Chooses the step that answers a request and fills it in: texts, calls, ids, encrypted reasoning.
//!
//! A request that fits no step, a tool that is not offered, an argument that the tool does not have:
//! each is a [`Complaint`], answered as an error and kept, so that no demo and no test passes by luck.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::asked::{Asked, Tool};
use super::scenario::{
    Action, Call, Found, Pacing, Reply, Scenario, Search, Step, Text, Told, When, Window,
};
use super::seal;
use super::template::{Sources, TemplateError, fill, fill_times, fill_value, seconds};
use crate::time::UnixSeconds;

/// A scenario and how often its parts were used.
#[derive(Debug)]
pub struct Script {
    scenario: Scenario,
    used_steps: Vec<u32>,
    used_routes: Vec<u32>,
}

/// How one request is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The step's name.
    pub step: String,
    /// How fast.
    pub pacing: Pacing,
    /// With what.
    pub form: Form,
    /// What it says it took.
    pub usage: Told,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A whole HTTP answer.
    Reply(Reply),
    /// A stream.
    Stream {
        /// `resp_…`.
        response_id: String,
        /// Headers that replace the usual ones.
        headers: BTreeMap<String, String>,
        /// What it says, in order. There is always an [`Piece::Ending`] at the end.
        pieces: Vec<Piece>,
    },
}

/// One piece of a stream, filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// A reasoning item.
    Reasoning {
        /// `rs_…`.
        id: String,
        /// Summary parts.
        parts: Vec<String>,
        /// Sealed for account and model.
        encrypted: String,
    },
    /// A message.
    Text {
        /// `msg_…`.
        id: String,
        /// Its text.
        text: String,
        /// The pages that it cites.
        cited: Vec<Found>,
    },
    /// A search of the web, or a page that is opened.
    Search {
        /// `ws_…`.
        id: String,
        /// What is done.
        action: Value,
        /// Whether it fails.
        failed: bool,
    },
    /// A function call.
    Call {
        /// `fc_…`.
        id: String,
        /// `call_…`.
        call_id: String,
        /// The tool.
        name: String,
        /// JSON.
        arguments: String,
    },
    /// Silence.
    Wait(Duration),
    /// An event as it stands.
    Event(Value),
    /// Bytes as they stand.
    Raw(String),
    /// How it ends.
    Ending(Ending),
}

/// How a stream ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// `response.completed`.
    Completed,
    /// `response.failed` with this error.
    Failed(Value),
    /// `response.incomplete` for this reason.
    Incomplete(String),
    /// The body ends, no last event.
    Bare,
    /// The connection is dropped.
    Cut,
    /// Silence until the peer leaves.
    Stall,
}

/// The scenario cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// No step fits.
    #[error(
        "scenario {scenario}: no step fits a {kind:?} request of {model} with prompt {prompt:?} and {outputs} tool outputs"
    )]
    NoStep {
        /// The scenario.
        scenario: String,
        /// What the client wants.
        kind: super::scenario::Kind,
        /// The model.
        model: String,
        /// The beginning of the prompt.
        prompt: String,
        /// How many outputs came since.
        outputs: usize,
    },
    /// The tool is not offered.
    #[error("scenario {scenario}, step {step}: the request does not offer the tool {tool}")]
    NoTool {
        /// The scenario.
        scenario: String,
        /// The step.
        step: String,
        /// The tool.
        tool: String,
    },
    /// The tool has no such parameter, or needs one that is not given.
    #[error("scenario {scenario}, step {step}: tool {tool} and argument {argument} do not fit")]
    Argument {
        /// The scenario.
        scenario: String,
        /// The step.
        step: String,
        /// The tool.
        tool: String,
        /// The argument.
        argument: String,
    },
    /// A template cannot be filled.
    #[error("scenario {scenario}, step {step}: {source}")]
    Template {
        /// The scenario.
        scenario: String,
        /// The step.
        step: String,
        /// Why.
        source: TemplateError,
    },
}

impl Script {
    /// Takes up `scenario` at its beginning.
    pub fn new(scenario: Scenario) -> Self {
        Self {
            used_steps: vec![0; scenario.steps.len()],
            used_routes: vec![0; scenario.routes.len()],
            scenario,
        }
    }

    /// Returns the canned reply of `path`, if there is one left.
    pub fn route(&mut self, path: &str, now: UnixSeconds) -> Option<Reply> {
        let routes = self.scenario.routes.iter().zip(&mut self.used_routes);
        for (route, used) in routes {
            if route.path == path && route.times.is_none_or(|times| *used < times) {
                *used += 1;
                return Some(timed(&route.reply, now));
            }
        }
        None
    }

    /// Returns the window of `model`, if it is shorter than `tokens`.
    pub fn overflows(&self, model: &str, tokens: usize) -> Option<&Window> {
        let window = self.scenario.windows.get(model)?;
        (tokens > window.tokens).then_some(window)
    }

    /// Says how to answer `asked`, for the account `account` (its ChatGPT id).
    /// `now` fills the times of canned errors.
    pub fn answer(
        &mut self,
        asked: &Asked,
        account: &str,
        now: UnixSeconds,
    ) -> Result<Planned, Complaint> {
        let scenario = &self.scenario;
        let (at, step) = scenario
            .steps
            .iter()
            .enumerate()
            .find(|(at, step)| {
                step.times.is_none_or(|times| self.used_steps[*at] < times)
                    && fits(&step.when, asked)
            })
            .ok_or_else(|| Complaint::NoStep {
                scenario: scenario.name.clone(),
                kind: asked.kind,
                model: asked.model.clone(),
                prompt: asked.prompt.chars().take(60).collect(),
                outputs: asked.outputs.len(),
            })?;
        self.used_steps[at] += 1;
        let form = match &step.reply {
            Some(reply) => Form::Reply(timed(reply, now)),
            None => Filling {
                scenario,
                step,
                asked,
                account,
                now,
            }
            .stream()?,
        };
        Ok(Planned {
            step: step.name.clone(),
            pacing: step.pacing.unwrap_or(scenario.pacing),
            form,
            usage: step.usage,
        })
    }
}

/// Says whether `asked` is what `when` describes.
pub fn fits(when: &When, asked: &Asked) -> bool {
    let contains = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
    let count = asked.outputs.len();
    when.kind.is_none_or(|kind| kind == asked.kind)
        && when
            .model
            .as_ref()
            .is_none_or(|model| *model == asked.model)
        && when.prompt.iter().all(|part| contains(&asked.prompt, part))
        && when.outputs.is_none_or(|outputs| outputs == count)
        && when.outputs_from.is_none_or(|least| least <= count)
        && when.offers.iter().all(|name| asked.tool(name).is_some())
        && when.output.as_ref().is_none_or(|part| {
            asked
                .outputs
                .last()
                .is_some_and(|output| contains(output, part))
        })
}

/// Returns `reply` with its times filled in.
fn timed(reply: &Reply, now: UnixSeconds) -> Reply {
    Reply {
        status: reply.status,
        headers: reply
            .headers
            .iter()
            .map(|(name, value)| {
                let value = seconds(value, now).map_or_else(|| value.clone(), |at| at.to_string());
                (name.clone(), value)
            })
            .collect(),
        body: fill_times(&reply.body, now),
    }
}

/// A step that is being filled in.
struct Filling<'a> {
    scenario: &'a Scenario,
    step: &'a Step,
    asked: &'a Asked,
    account: &'a str,
    now: UnixSeconds,
}

impl Filling<'_> {
    fn stream(&self) -> Result<Form, Complaint> {
        let mut pieces = Vec::with_capacity(self.step.answer.len() + 1);
        let mut found = Vec::new();
        for action in &self.step.answer {
            let mut piece = self.piece(action, pieces.len())?;
            match (&mut piece, action) {
                (_, Action::Search(search)) if !search.failed => {
                    found.extend(search.results.iter().cloned());
                }
                (Piece::Text { cited, .. }, _) => *cited = std::mem::take(&mut found),
                _ => {}
            }
            let is_end = matches!(piece, Piece::Ending(_));
            pieces.push(piece);
            if is_end {
                break;
            }
        }
        if !matches!(pieces.last(), Some(Piece::Ending(_))) {
            pieces.push(Piece::Ending(Ending::Completed));
        }
        Ok(Form::Stream {
            response_id: self.id("resp", 0),
            headers: self.step.headers.clone(),
            pieces,
        })
    }

    fn piece(&self, action: &Action, at: usize) -> Result<Piece, Complaint> {
        Ok(match action {
            Action::Reasoning(parts) => {
                let id = self.id("rs", at);
                Piece::Reasoning {
                    parts: parts
                        .iter()
                        .map(|part| self.fill(part, 1))
                        .collect::<Result<_, _>>()?,
                    encrypted: seal::seal(self.account, &self.asked.model, &id),
                    id,
                }
            }
            Action::Text(text) => Piece::Text {
                id: self.id("msg", at),
                text: match text {
                    Text::Once(text) => self.fill(text, 1)?,
                    Text::Repeated { text, repeat } => (1..=*repeat)
                        .map(|n| self.fill(text, n))
                        .collect::<Result<_, _>>()?,
                },
                cited: Vec::new(),
            },
            Action::Call(call) => self.call(call, at)?,
            Action::Search(search) => self.search(search, at)?,
            Action::Open(url) => {
                self.offered("web_search")?;
                Piece::Search {
                    id: self.id("ws", at),
                    action: json!({"type": "open_page", "url": url}),
                    failed: false,
                }
            }
            Action::Wait(milliseconds) => Piece::Wait(Duration::from_millis(*milliseconds)),
            Action::Event(event) => Piece::Event(event.clone()),
            Action::Raw(bytes) => Piece::Raw(bytes.clone()),
            Action::Failed(error) => Piece::Ending(Ending::Failed(fill_times(error, self.now))),
            Action::Incomplete(reason) => Piece::Ending(Ending::Incomplete(reason.clone())),
            Action::Cut => Piece::Ending(Ending::Cut),
            Action::End => Piece::Ending(Ending::Bare),
            Action::Stall => Piece::Ending(Ending::Stall),
        })
    }

    fn offered(&self, name: &str) -> Result<&Tool, Complaint> {
        self.asked.tool(name).ok_or_else(|| Complaint::NoTool {
            scenario: self.scenario.name.clone(),
            step: self.step.name.clone(),
            tool: name.to_owned(),
        })
    }

    fn search(&self, search: &Search, at: usize) -> Result<Piece, Complaint> {
        self.offered("web_search")?;
        let query = self.fill(&search.query, 1)?;
        let mut action = json!({"type": "search", "query": query, "queries": [query]});
        if search.sources {
            let sources = search.results.iter();
            action["sources"] = sources
                .map(|found| json!({"type": "url", "url": found.url}))
                .collect();
        }
        Ok(Piece::Search {
            id: self.id("ws", at),
            action,
            failed: search.failed,
        })
    }

    fn call(&self, call: &Call, at: usize) -> Result<Piece, Complaint> {
        let tool = self.offered(&call.name)?;
        let unknown = call
            .arguments
            .keys()
            .find(|name| !tool.parameters.contains(name));
        let missing = tool
            .required
            .iter()
            .find(|name| !call.arguments.contains_key(*name));
        if let Some(argument) = unknown.or(missing) {
            return Err(Complaint::Argument {
                scenario: self.scenario.name.clone(),
                step: self.step.name.clone(),
                tool: call.name.clone(),
                argument: argument.clone(),
            });
        }
        let arguments = self.templated(fill_value(
            &Value::Object(call.arguments.clone()),
            self.sources(1),
        ))?;
        Ok(Piece::Call {
            id: self.id("fc", at),
            call_id: call.call_id.clone().unwrap_or_else(|| self.id("call", at)),
            name: call.name.clone(),
            arguments: arguments.to_string(),
        })
    }

    fn sources(&self, n: usize) -> Sources<'_> {
        Sources {
            asked: self.asked,
            n,
        }
    }

    fn fill(&self, text: &str, n: usize) -> Result<String, Complaint> {
        self.templated(fill(text, self.sources(n)))
    }

    fn templated<T>(&self, filled: Result<T, TemplateError>) -> Result<T, Complaint> {
        filled.map_err(|source| Complaint::Template {
            scenario: self.scenario.name.clone(),
            step: self.step.name.clone(),
            source,
        })
    }

    /// An id that is the same in every run and differs from item to item of a conversation: its
    /// input grows with each request.
    fn id(&self, prefix: &str, at: usize) -> String {
        let Asked { kind, items, .. } = self.asked;
        let seed = json!([
            self.scenario.name,
            self.step.name,
            format!("{kind:?}"),
            items,
            at
        ]);
        let digest = Sha256::digest(format!("{prefix}{seed}"));
        let hex: String = digest[..12]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{prefix}_{hex}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::scenario::Kind;

    const NOW: UnixSeconds = UnixSeconds(1000);

    fn asked() -> Asked {
        Asked {
            kind: Kind::Main,
            model: "gpt-6.1-sol".to_owned(),
            conversation: "c".to_owned(),
            prompt: "Read the Notes".to_owned(),
            folder: Some("/home/a".to_owned()),
            outputs: vec!["first".to_owned(), "File not found".to_owned()],
            tools: vec![Tool {
                name: "Read".to_owned(),
                parameters: vec!["file_path".to_owned(), "limit".to_owned()],
                required: vec!["file_path".to_owned()],
            }],
            items: 5,
            turn: 1,
        }
    }

    fn script(steps: &str) -> Script {
        let text = format!(r#"{{"about":"","steps":{steps}}}"#);
        Script::new(Scenario::parse("t", &text).unwrap())
    }

    #[test]
    fn everything_that_is_said_must_hold() {
        let asked = asked();
        for (when, want) in [
            (json!({}), true),
            (json!({"kind": "main"}), true),
            (json!({"kind": "title"}), false),
            (json!({"model": "gpt-5.5"}), false),
            (json!({"prompt": ["read", "notes"]}), true),
            (json!({"prompt": ["read", "write"]}), false),
            (json!({"outputs": 2}), true),
            (json!({"outputs": 1}), false),
            (json!({"outputs_from": 2}), true),
            (json!({"outputs_from": 3}), false),
            (json!({"offers": ["Read"]}), true),
            (json!({"offers": ["Write"]}), false),
            (json!({"output": "NOT FOUND"}), true),
            (json!({"output": "first"}), false),
        ] {
            let parsed: When = serde_json::from_value(when.clone()).unwrap();
            assert_eq!(fits(&parsed, &asked), want, "{when}");
        }
    }

    #[test]
    fn a_step_is_filled_in_the_same_way_each_time() {
        let steps = r#"[{"name":"a","answer":[
            {"reasoning":["Look at {{cwd}}"]},
            {"call":{"name":"Read","arguments":{"file_path":"{{cwd}}/x"}}},
            {"call":{"name":"Read","arguments":{"file_path":"/y","limit":3}}}
        ]}]"#;
        let planned = script(steps).answer(&asked(), "acc", NOW).unwrap();
        assert_eq!(
            script(steps).answer(&asked(), "acc", NOW),
            Ok(planned.clone())
        );
        let Form::Stream { pieces, .. } = planned.form else {
            panic!("no stream");
        };
        let Piece::Reasoning {
            parts, encrypted, ..
        } = &pieces[0]
        else {
            panic!("no reasoning");
        };
        assert_eq!(parts, &["Look at /home/a"]);
        assert!(seal::is_intact("acc", "gpt-6.1-sol", encrypted));
        let Piece::Call {
            call_id, arguments, ..
        } = &pieces[1]
        else {
            panic!("no call");
        };
        assert_eq!(arguments, r#"{"file_path":"/home/a/x"}"#);
        assert!(call_id.len() <= 64);
        let Piece::Call {
            call_id: second,
            arguments,
            ..
        } = &pieces[2]
        else {
            panic!("no call");
        };
        assert_ne!(call_id, second);
        assert_eq!(arguments, r#"{"file_path":"/y","limit":3}"#);
        assert_eq!(pieces[3], Piece::Ending(Ending::Completed));
    }

    #[test]
    fn a_step_with_a_number_of_times_gives_way() {
        let mut script = script(
            r#"[{"name":"fault","times":2,"reply":{"status":500,"body":"oops"}},
                {"name":"then","answer":["cut", {"text":"never"}]}]"#,
        );
        let names: Vec<String> = (0..3)
            .map(|_| script.answer(&asked(), "acc", NOW).unwrap().step)
            .collect();
        assert_eq!(names, ["fault", "fault", "then"]);
        let Form::Stream { pieces, .. } = script.answer(&asked(), "acc", NOW).unwrap().form else {
            panic!("no stream");
        };
        assert_eq!(pieces, [Piece::Ending(Ending::Cut)]);
    }

    #[test]
    fn what_does_not_fit_the_request_is_said() {
        for (steps, message) in [
            (
                r#"[{"name":"a","when":{"outputs":9},"answer":["cut"]}]"#,
                "scenario t: no step fits a Main request of gpt-6.1-sol with prompt \"Read the Notes\" and 2 tool outputs",
            ),
            (
                r#"[{"name":"a","answer":[{"call":{"name":"Write","arguments":{}}}]}]"#,
                "scenario t, step a: the request does not offer the tool Write",
            ),
            (
                r#"[{"name":"a","answer":[{"call":{"name":"Read","arguments":{"path":"x"}}}]}]"#,
                "scenario t, step a: tool Read and argument path do not fit",
            ),
            (
                r#"[{"name":"a","answer":[{"call":{"name":"Read","arguments":{"limit":1}}}]}]"#,
                "scenario t, step a: tool Read and argument file_path do not fit",
            ),
            (
                r#"[{"name":"a","answer":[{"text":"{{output.7}}"}]}]"#,
                "scenario t, step a: the request has no output.7",
            ),
        ] {
            let complaint = script(steps).answer(&asked(), "acc", NOW).unwrap_err();
            assert_eq!(complaint.to_string(), message);
        }
    }
}
