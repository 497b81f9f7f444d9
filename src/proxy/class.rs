//! What a request is for: the conversation itself, or one of the client's calls beside it.
//!
//! Decides on the shape of the request first and on the client's own label second: a label can be missing (other
//! clients, other versions) or wrong, and what depends on it must not go wrong with it. The shapes and labels are
//! those of client 2.1.330 (contract claude-code §1.3, §2.1, §7).

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;

use crate::catalogue::model::Effort;
use crate::wire::blocks::{Block, Content};
use crate::wire::json::Text;
use crate::wire::messages::{Request, Role};

/// What a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestClass {
    /// The person's conversation; also everything that is not known to be anything else.
    #[default]
    Main,
    /// A subagent's conversation.
    Subagent,
    /// A conversation that belongs to a workflow.
    Workflow,
    /// A question beside the conversation, answered from what it knows.
    SideReply,
    /// The conversation is to be replaced by its summary.
    Compaction,
    /// A title for the session.
    Title,
    /// The permission check of auto mode.
    Classifier(Stage),
    /// A web search.
    WebSearch,
    /// A fetched page is to be read.
    WebFetch,
    /// What the person may want to say next.
    Suggestion,
    /// Something small is to be named or summed up.
    Summary,
    /// One token: is somebody there?
    Probe,
    /// Another call beside the conversation.
    Auxiliary,
    /// A conversation of a client that speaks chat completions: whatever its shape, nothing is read into it.
    Chat,
    /// A conversation of a client that speaks upstream's own API.
    Responses,
}

/// A step of the permission check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// A word is enough.
    First,
    /// With reasons, asked where the first said that something is wrong.
    Second,
}

/// How the instruction of a compaction begins.
const COMPACTION: &str = "CRITICAL: Respond with TEXT ONLY";

/// What it asks for.
const SUMMARY: &str = "<summary>";

/// How the texts of a permission check begin.
const TRANSCRIPT: &str = "<transcript>";

/// How the text of a fetched page begins.
const PAGE: &str = r"\nWeb page content:\n---\n";

/// Up to how many bytes a list of tools is looked into: that of a web search has 80.
const SEARCH_TOOLS: usize = 4096;

/// What the client says of a request in its headers. Words that are not known count as absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Label<'a> {
    class: &'a str,
    /// The other of the two labels: tells calls beside the conversation apart.
    purpose: &'a str,
    is_agent: bool,
}

impl<'a> Label<'a> {
    fn read(headers: &'a HeaderMap) -> Self {
        let text = |name| {
            let value = headers.get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        Self {
            class: text("x-claude-code-request-class"),
            purpose: text("x-claude-1p-request-class"),
            is_agent: !text("x-claude-code-agent-id").is_empty(),
        }
    }
}

impl RequestClass {
    /// All classes of the Messages API.
    pub const ALL: [Self; 14] = [
        Self::Main,
        Self::Subagent,
        Self::Workflow,
        Self::SideReply,
        Self::Compaction,
        Self::Title,
        Self::Classifier(Stage::First),
        Self::Classifier(Stage::Second),
        Self::WebSearch,
        Self::WebFetch,
        Self::Suggestion,
        Self::Summary,
        Self::Probe,
        Self::Auxiliary,
    ];

    /// Says what a request to `/v1/messages` is for.
    pub fn of(headers: &HeaderMap, request: &Request<'_>) -> Self {
        let label = Label::read(headers);
        if let Some(class) = by_shape(request) {
            return class;
        }
        if is_compaction(request, label.class) {
            return Self::Compaction;
        }
        match label.class {
            "workflow" => Self::Workflow,
            "subagent" => Self::Subagent,
            "side_reply" => Self::SideReply,
            "auxiliary" => beside(request, label.purpose),
            // What calls itself a compaction and asks for no summary is none.
            _ if label.is_agent => Self::Subagent,
            _ => Self::Main,
        }
    }

    /// Returns the name in the ledger, the log and the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Subagent => "subagent",
            Self::Workflow => "workflow",
            Self::SideReply => "side-reply",
            Self::Compaction => "compaction",
            Self::Title => "title",
            Self::Classifier(_) => "classifier",
            Self::WebSearch => "web-search",
            Self::WebFetch => "web-fetch",
            Self::Suggestion => "suggestion",
            Self::Summary => "summary",
            Self::Probe => "probe",
            Self::Auxiliary => "auxiliary",
            Self::Chat => "chat",
            Self::Responses => "responses",
        }
    }

    /// Returns how long the whole answer may take; `None` where the client waits as long as something comes. The
    /// client gives the permission check 60 s, and asks again where it fails (contract claude-code §1.2, §2.1).
    pub const fn deadline(self) -> Option<Duration> {
        match self {
            Self::Classifier(Stage::First) => Some(Duration::from_secs(15)),
            Self::Classifier(Stage::Second) => Some(Duration::from_secs(40)),
            Self::Main
            | Self::Subagent
            | Self::Workflow
            | Self::SideReply
            | Self::Compaction
            | Self::Title
            | Self::WebSearch
            | Self::WebFetch
            | Self::Suggestion
            | Self::Summary
            | Self::Probe
            | Self::Auxiliary
            | Self::Chat
            | Self::Responses => None,
        }
    }

    /// Says whether the request carries a conversation on, or ends it in a summary. All others are calls beside one:
    /// they must leave no trace in it.
    pub const fn is_conversation(self) -> bool {
        match self {
            Self::Main
            | Self::Subagent
            | Self::Workflow
            | Self::Compaction
            | Self::Chat
            | Self::Responses => true,
            Self::SideReply
            | Self::Title
            | Self::Classifier(_)
            | Self::WebSearch
            | Self::WebFetch
            | Self::Suggestion
            | Self::Summary
            | Self::Probe
            | Self::Auxiliary => false,
        }
    }

    /// Says whether the request begins with the conversation's own messages, so that upstream's cache of them serves
    /// it too.
    pub const fn has_conversation(self) -> bool {
        match self {
            Self::SideReply | Self::Suggestion | Self::Auxiliary => true,
            Self::Title
            | Self::Classifier(_)
            | Self::WebSearch
            | Self::WebFetch
            | Self::Summary
            | Self::Probe => false,
            Self::Main
            | Self::Subagent
            | Self::Workflow
            | Self::Compaction
            | Self::Chat
            | Self::Responses => true,
        }
    }
}

/// Which model serves the calls beside a conversation, and how hard it tries.
///
/// By the class's name: a model, an effort, or both in one word (`haiku-low`). An effort alone leaves the model as the
/// client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    set: Vec<(&'static str, String)>,
}

/// Leaves everything as the client asked.
const AS_ASKED: &str = "as-asked";

impl Default for Classes {
    /// Small calls go to the small model, which thinks little. What begins with the conversation stays on its model,
    /// whose cache has the conversation.
    fn default() -> Self {
        let usual = |class: RequestClass, word: &str| (class.name(), word.to_owned());
        Self {
            set: vec![
                usual(RequestClass::Title, "haiku-low"),
                usual(RequestClass::Classifier(Stage::First), "haiku-none"),
                usual(RequestClass::WebFetch, "haiku-low"),
                usual(RequestClass::Summary, "haiku-low"),
                usual(RequestClass::Probe, "haiku-low"),
                usual(RequestClass::Suggestion, "low"),
            ],
        }
    }
}

impl Classes {
    /// Returns the names of the classes that can be set: all but the conversation itself.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = RequestClass::ALL.map(RequestClass::name).to_vec();
        names.retain(|name| *name != RequestClass::Main.name());
        names.dedup();
        names
    }

    /// Sets what serves the class `name`; says whether there is such a class and the word can be one.
    pub fn set(&mut self, name: &str, word: &str) -> bool {
        let Some(name) = Self::names().into_iter().find(|known| *known == name) else {
            return false;
        };
        if word.trim().is_empty() {
            return false;
        }
        self.set.retain(|(known, _)| *known != name);
        self.set.push((name, word.trim().to_owned()));
        true
    }

    /// Returns the name of the model for a request of `class` that asks for `asked`.
    pub fn model<'a>(&'a self, class: RequestClass, asked: &'a str) -> Cow<'a, str> {
        let found = self.set.iter().find(|(name, _)| *name == class.name());
        match found.map(|(_, word)| word.as_str()) {
            None | Some(AS_ASKED) => Cow::Borrowed(asked),
            Some(word) if Effort::parse(word).is_some() => Cow::Owned(format!("{asked}-{word}")),
            Some(word) => Cow::Borrowed(word),
        }
    }
}

/// The classes whose requests look like no other.
fn by_shape(request: &Request<'_>) -> Option<RequestClass> {
    let [only] = request.messages.as_slice() else {
        return None;
    };
    if only.role != Role::User {
        return None;
    }
    if !request.tools.is_empty() {
        return is_search(request).then_some(RequestClass::WebSearch);
    }
    let first = texts(&only.content).next()?.escaped();
    if first.starts_with(TRANSCRIPT) && !request.stream {
        let stops = &request.stop_sequences;
        return Some(RequestClass::Classifier(if stops.is_empty() {
            Stage::Second
        } else {
            Stage::First
        }));
    }
    if request.max_tokens == Some(1) {
        return Some(RequestClass::Probe);
    }
    if first.starts_with(PAGE) {
        return Some(RequestClass::WebFetch);
    }
    let schema = request.output_config.schema;
    schema
        .is_some_and(|schema| asks_for_title(schema.text()))
        .then_some(RequestClass::Title)
}

/// Says whether all tools are the hosted search.
fn is_search(request: &Request<'_>) -> bool {
    let Some(raw) = request.tools.raw() else {
        return false;
    };
    if raw.text().len() > SEARCH_TOOLS {
        return false;
    }
    request.tools.list().is_ok_and(|tools| {
        tools.iter().all(|tool| {
            let kind = tool.kind.as_deref();
            kind.is_some_and(|kind| kind.starts_with("web_search"))
        })
    })
}

/// Says whether a schema has the one property `title`.
fn asks_for_title(schema: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Schema<'a> {
        #[serde(borrow)]
        properties: std::collections::BTreeMap<&'a str, serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Schema<'_>>(schema)
        .is_ok_and(|schema| schema.properties.keys().eq([&"title"]))
}

/// Says whether the last thing said is the client's instruction to sum the conversation up.
///
/// A label is enough only if a summary is asked for, and the words are enough only without a label: a person may
/// quote them.
fn is_compaction(request: &Request<'_>, label: &str) -> bool {
    let mut unseen = request.messages.iter().rev();
    let last = unseen.find(|message| message.role != Role::System);
    let Some(last) = last.filter(|message| message.role == Role::User) else {
        return false;
    };
    let Some(said) = texts(&last.content).last().map(|text| text.escaped()) else {
        return false;
    };
    match label {
        "compaction" => said.contains(SUMMARY),
        "" => said.starts_with(COMPACTION) && said.contains(SUMMARY),
        _ => false,
    }
}

/// Tells calls apart that the client only calls auxiliary.
fn beside(request: &Request<'_>, purpose: &str) -> RequestClass {
    let is_small = request.messages.len() <= 2 && request.tools.is_empty();
    match purpose {
        "followup-generation" => RequestClass::Suggestion,
        "summary-extraction" if is_small => RequestClass::Summary,
        _ => RequestClass::Auxiliary,
    }
}

fn texts<'c, 'a>(content: &'c Content<'a>) -> impl Iterator<Item = Text<'a>> + 'c {
    let (one, blocks) = match content {
        Content::Text(text) => (Some(*text), &[][..]),
        Content::Blocks(blocks) => (None, blocks.as_slice()),
    };
    one.into_iter()
        .chain(blocks.iter().filter_map(|block| match block {
            Block::Text(text) => Some(*text),
            _ => None,
        }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn class(labels: &[(&str, &str)], rest: &str) -> RequestClass {
        let headers = labels
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::try_from(*name).unwrap(),
                    HeaderValue::try_from(*value).unwrap(),
                )
            })
            .collect();
        let body = format!(r#"{{"model":"m",{rest}}}"#);
        RequestClass::of(&headers, &Request::parse(body.as_bytes()).unwrap())
    }

    fn messages(last: &str) -> String {
        format!(
            r#""messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":"b"}},{{"role":"user","content":{last}}}]"#
        )
    }

    const CLASS: &str = "x-claude-code-request-class";
    const PURPOSE: &str = "x-claude-1p-request-class";

    #[test]
    fn shapes_speak_for_themselves_whatever_the_label() {
        let title = r#""output_config":{"format":{"type":"json_schema","schema":{"type":"object","properties":{"title":{"type":"string"}}}}}"#;
        let one = |text: &str| format!(r#""messages":[{{"role":"user","content":{text}}}]"#);
        let hello = one(r#""hello""#);
        let check = one(
            r#"[{"type":"text","text":"<transcript>\n"},{"type":"text","text":"</transcript>\n"}]"#,
        );
        let search = r#""tools":[{"type":"web_search_20250305","name":"web_search","max_uses":8}]"#;
        for (rest, expected) in [
            (format!("{hello},{title},\"tools\":[]"), RequestClass::Title),
            (
                format!(r#"{check},"max_tokens":64,"stop_sequences":["</block>"]"#),
                RequestClass::Classifier(Stage::First),
            ),
            (
                format!(r#"{check},"max_tokens":8192"#),
                RequestClass::Classifier(Stage::Second),
            ),
            (format!(r#"{check},"stream":true"#), RequestClass::Main),
            (format!("{hello},{search}"), RequestClass::WebSearch),
            (
                format!(r#"{hello},"tools":[{{"name":"web_search"}}]"#),
                RequestClass::Main,
            ),
            (
                one(r#""\nWeb page content:\n---\nx""#),
                RequestClass::WebFetch,
            ),
            (format!(r#"{hello},"max_tokens":1"#), RequestClass::Probe),
            (hello, RequestClass::Main),
            (r#""messages":[]"#.to_owned(), RequestClass::Main),
        ] {
            for label in ["", "main", "made up"] {
                assert_eq!(class(&[(CLASS, label)], &rest), expected, "{label} {rest}");
            }
        }
    }

    #[test]
    fn a_schema_with_more_than_a_title_is_the_persons_own() {
        let rest = r#""messages":[{"role":"user","content":"x"}],"output_config":{"format":{"type":"json_schema","schema":{"type":"object","properties":{"title":{},"body":{}}}}}"#;
        assert_eq!(class(&[], rest), RequestClass::Main);
    }

    #[test]
    fn labels_tell_conversations_apart() {
        let plain = messages(r#""go on""#);
        for (labels, expected) in [
            (&[][..], RequestClass::Main),
            (&[(CLASS, "main")], RequestClass::Main),
            (&[(CLASS, "subagent")], RequestClass::Subagent),
            (&[("x-claude-code-agent-id", "a1")], RequestClass::Subagent),
            (&[(CLASS, "workflow")], RequestClass::Workflow),
            (&[(CLASS, "side_reply")], RequestClass::SideReply),
            (&[(CLASS, "auxiliary")], RequestClass::Auxiliary),
            (
                &[(CLASS, "auxiliary"), (PURPOSE, "followup-generation")],
                RequestClass::Suggestion,
            ),
            (&[(CLASS, "compaction")], RequestClass::Main),
            (&[(CLASS, "\u{e9}")], RequestClass::Main),
        ] {
            assert_eq!(class(labels, &plain), expected, "{labels:?}");
        }
    }

    #[test]
    fn small_calls_go_to_the_small_model_and_what_is_set_counts() {
        let mut classes = Classes::default();
        let of = |classes: &Classes, class| classes.model(class, "opus").into_owned();
        for (class, expected) in [
            (RequestClass::Main, "opus"),
            (RequestClass::Subagent, "opus"),
            (RequestClass::Compaction, "opus"),
            (RequestClass::WebSearch, "opus"),
            (RequestClass::Title, "haiku-low"),
            (RequestClass::Classifier(Stage::First), "haiku-none"),
            (RequestClass::Classifier(Stage::Second), "haiku-none"),
            (RequestClass::Suggestion, "opus-low"),
        ] {
            assert_eq!(of(&classes, class), expected, "{class:?}");
        }
        assert!(classes.set("classifier", "sonnet"));
        assert!(classes.set("title", "as-asked"));
        assert!(classes.set("subagent", "medium"));
        assert!(!classes.set("main", "haiku"));
        assert!(!classes.set("tittle", "haiku"));
        assert!(!classes.set("title", " "));
        let stage = RequestClass::Classifier(Stage::Second);
        assert_eq!(of(&classes, stage), "sonnet");
        assert_eq!(of(&classes, RequestClass::Title), "opus");
        assert_eq!(of(&classes, RequestClass::Subagent), "opus-medium");
    }

    #[test]
    fn only_a_small_call_counts_as_a_summary() {
        let labels = [(CLASS, "auxiliary"), (PURPOSE, "summary-extraction")];
        let small = r#""messages":[{"role":"user","content":"x"}]"#;
        assert_eq!(class(&labels, small), RequestClass::Summary);
        let long = messages(r#""x""#);
        assert_eq!(class(&labels, &long), RequestClass::Auxiliary);
    }

    #[test]
    fn a_compaction_asks_for_a_summary_in_what_was_said_last() {
        let words = r#"CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\nan <analysis> block followed by a <summary> block"#;
        let said = messages(&format!(r#""{words}""#));
        let after_results = messages(&format!(
            r#"[{{"type":"tool_result","tool_use_id":"t","content":"x"}},{{"type":"text","text":"{words}"}}]"#
        ));
        let quoted = messages(&format!(r#""what does this mean: {words}""#));
        let earlier = messages(&format!(
            r#"[{{"type":"text","text":"{words}"}},{{"type":"text","text":"hello"}}]"#
        ));
        let answered = said.replace(
            r#""}]"#,
            r#""},{"role":"assistant","content":"x"},{"role":"user","content":"y"}]"#,
        );
        let then_system = said.replace(r#""}]"#, r#""},{"role":"system","content":"x"}]"#);
        for (rest, unlabelled, labelled) in [
            (&said, true, true),
            (&after_results, true, true),
            (&then_system, true, true),
            (&quoted, false, true),
            (&earlier, false, false),
            (&answered, false, false),
        ] {
            for (label, is_compaction) in
                [("", unlabelled), ("compaction", labelled), ("main", false)]
            {
                let expected = if is_compaction {
                    RequestClass::Compaction
                } else {
                    RequestClass::Main
                };
                assert_eq!(class(&[(CLASS, label)], rest), expected, "{label} {rest}");
            }
        }
    }
}
