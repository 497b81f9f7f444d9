//! What a request asks, read the way a model would: the prompt, the folder, the tools, what came back.
//!
//! Reads a checked body; where the client says something in prose (its environment section, what it
//! wants of a side request) this looks for the fixed words of Claude Code 2.1.330 (observed 2026-11-25).

use serde_json::Value;

use super::scenario::Kind;

/// What stands before the folder in the client's environment section.
const FOLDER_LABEL: &str = "Primary working directory: ";

/// The type of the search that upstream runs; also what it is called here.
const SEARCH: &str = "web_search";

/// What the client says behind the result of a search for tools.
const TOOL_LOADED: &str = "Tool loaded.";

/// A request as the scenario sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What the client wants.
    pub kind: Kind,
    /// The model.
    pub model: String,
    /// The conversation (`prompt_cache_key`); empty when it has none.
    pub conversation: String,
    /// The last thing the user said, without the client's reminders.
    pub prompt: String,
    /// The working folder, where the client told it.
    pub folder: Option<String>,
    /// What the tools returned since the prompt, in the order of the calls.
    pub outputs: Vec<String>,
    /// The tools that are offered.
    pub tools: Vec<Tool>,
    /// Number of input items.
    pub items: usize,
    /// Which of them holds the prompt: the same for all requests of a turn.
    pub turn: usize,
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The names of its parameters.
    pub parameters: Vec<String>,
    /// Those that must be given.
    pub required: Vec<String>,
}

impl Asked {
    /// Reads `body`. Whatever is missing is empty.
    pub fn read(body: &Value) -> Self {
        let input = body["input"].as_array().map_or(&[][..], Vec::as_slice);
        let mut tools = Vec::new();
        collect_tools(&body["tools"], &mut tools);
        for item in input {
            if item["type"] == "additional_tools" {
                collect_tools(&item["tools"], &mut tools);
            }
        }
        let (prompt_at, prompt) = last_prompt(input);
        Self {
            kind: kind(body, input, &prompt, &tools),
            model: text_of(&body["model"]),
            conversation: text_of(&body["prompt_cache_key"]),
            folder: folder(body, input),
            outputs: outputs(&input[prompt_at..]),
            prompt,
            tools,
            items: input.len(),
            turn: prompt_at,
        }
    }

    /// Returns the offered tool `name`.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn collect_tools(list: &Value, tools: &mut Vec<Tool>) {
    for tool in list.as_array().into_iter().flatten() {
        match tool["type"].as_str() {
            Some("function") => {
                let schema = &tool["parameters"];
                let names = |value: &Value| match value {
                    Value::Object(map) => map.keys().cloned().collect(),
                    Value::Array(list) => list.iter().map(text_of).collect(),
                    _ => Vec::new(),
                };
                tools.push(Tool {
                    name: text_of(&tool["name"]),
                    parameters: names(&schema["properties"]),
                    required: names(&schema["required"]),
                });
            }
            Some("namespace") => collect_tools(&tool["tools"], tools),
            Some(SEARCH) => tools.push(Tool {
                name: SEARCH.to_owned(),
                parameters: Vec::new(),
                required: Vec::new(),
            }),
            _ => {}
        }
    }
}

/// The texts of a message's content, or of a call's output.
fn texts(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text],
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => Vec::new(),
    }
}

/// Where the turn begins that is to be answered, and what the user said there.
///
/// Reminders of the client may follow a tool's output in a user message: they start no turn.
fn last_prompt(input: &[Value]) -> (usize, String) {
    input
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, item)| item["role"] == "user")
        .find_map(|(at, item)| {
            // What the client puts before the prompt (a summary, a mentioned file) is not said now.
            texts(&item["content"])
                .into_iter()
                .rev()
                .map(|text| without_reminders(text).trim().to_owned())
                .find(|text| !text.is_empty() && text != TOOL_LOADED)
                .map(|said| (at, said))
        })
        .unwrap_or_default()
}

/// Returns `text` without its `<system-reminder>` parts.
fn without_reminders(text: &str) -> String {
    const OPEN: &str = "<system-reminder>";
    const CLOSE: &str = "</system-reminder>";
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        kept.push_str(&rest[..start]);
        rest = rest[start..]
            .split_once(CLOSE)
            .map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

/// The outputs of the calls after the prompt. Parallel calls may come back in any order; the order
/// of the calls is what a scenario can rely on.
fn outputs(turn: &[Value]) -> Vec<String> {
    let calls = turn.iter().filter(|item| {
        matches!(
            item["type"].as_str(),
            Some("function_call" | "custom_tool_call")
        )
    });
    calls
        .filter_map(|call| {
            turn.iter().find(|item| {
                item["call_id"] == call["call_id"]
                    && matches!(
                        item["type"].as_str(),
                        Some("function_call_output" | "custom_tool_call_output")
                    )
            })
        })
        .map(|output| without_reminders(&texts(&output["output"]).join("\n")))
        .collect()
}

/// The newest folder that the client named: it says so anew when it changes.
fn folder(body: &Value, input: &[Value]) -> Option<String> {
    body["instructions"]
        .as_str()
        .into_iter()
        .chain(input.iter().flat_map(|item| texts(&item["content"])))
        .filter_map(|text| text.rsplit_once(FOLDER_LABEL))
        .filter_map(|(_, after)| after.lines().next())
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .map(str::to_owned)
}

fn kind(body: &Value, input: &[Value], prompt: &str, tools: &[Tool]) -> Kind {
    let is_toolless = tools.is_empty();
    if !is_toolless && tools.iter().all(|tool| tool.name == SEARCH) {
        return Kind::Search;
    }
    let format = &body["text"]["format"];
    if format["type"] == "json_schema" && format["schema"]["properties"]["title"].is_object() {
        return Kind::Title;
    }
    let mut said = input
        .iter()
        .filter(|item| item["role"] == "user")
        .flat_map(|item| texts(&item["content"]));
    if is_toolless && said.any(|text| text.trim_start().starts_with("<transcript>")) {
        return Kind::Classifier;
    }
    if prompt.contains("<summary>") && prompt.contains("summary of the conversation") {
        return Kind::Compaction;
    }
    if is_toolless { Kind::Side } else { Kind::Main }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(texts: &[&str]) -> Value {
        let parts: Vec<Value> = texts
            .iter()
            .map(|text| json!({"type": "input_text", "text": text}))
            .collect();
        json!({"type": "message", "role": "user", "content": parts})
    }

    fn call(id: &str) -> Value {
        json!({"type": "function_call", "call_id": id, "name": "Bash", "arguments": "{}"})
    }

    fn output(id: &str, text: &str) -> Value {
        json!({"type": "function_call_output", "call_id": id, "output": text})
    }

    #[test]
    fn a_turn_is_read_as_the_model_would() {
        let body = json!({
            "model": "gpt-6.1-sol",
            "prompt_cache_key": "c1",
            "input": [
                {"type": "additional_tools", "role": "developer", "tools": [
                    {"type": "function", "name": "Read", "parameters": {
                        "type": "object",
                        "properties": {"file_path": {"type": "string"}, "limit": {}},
                        "required": ["file_path"],
                        "additionalProperties": false,
                    }},
                    {"type": "namespace", "name": "n", "tools": [
                        {"type": "function", "name": "Bash", "parameters": {"type": "object"}},
                    ]},
                ]},
                user(&["<system-reminder>\nx\n</system-reminder>\n", "first"]),
                {"type": "message", "role": "developer", "content": [{"type": "input_text",
                    "text": "# Environment\n - Primary working directory: /home/a b\n - More"}]},
                call("old"),
                output("old", "of an earlier turn"),
                user(&["<system-reminder>a</system-reminder>do it<system-reminder>b"]),
                call("1"),
                call("2"),
                output("2", "two"),
                {"type": "function_call_output", "call_id": "1",
                    "output": [{"type": "input_text", "text": "one"}]},
                user(&["<system-reminder>late</system-reminder>"]),
            ],
        });
        let asked = Asked::read(&body);
        assert_eq!(asked.kind, Kind::Main);
        assert_eq!(asked.prompt, "do it");
        assert_eq!(asked.folder.as_deref(), Some("/home/a b"));
        assert_eq!(asked.outputs, ["one", "two"]);
        assert_eq!(
            asked.tool("Read"),
            Some(&Tool {
                name: "Read".to_owned(),
                parameters: vec!["file_path".to_owned(), "limit".to_owned()],
                required: vec!["file_path".to_owned()],
            })
        );
        assert!(asked.tool("Bash").is_some());
    }

    #[test]
    fn kinds_are_told_apart() {
        let title = json!({"type": "json_schema", "schema": {"properties": {"title": {}}}});
        let tools = json!([{"type": "function", "name": "Read", "parameters": {}}]);
        let summary = "make a summary of the conversation in <summary> tags";
        for (kind, body) in [
            (
                Kind::Title,
                json!({"text": {"format": title}, "input": [user(&["x"])]}),
            ),
            (
                Kind::Classifier,
                json!({"input": [user(&["<transcript>\n", "x"])]}),
            ),
            (
                Kind::Compaction,
                json!({"tools": tools, "input": [user(&[summary])]}),
            ),
            (
                Kind::Side,
                json!({"input": [user(&["what does the page say"])]}),
            ),
            (
                Kind::Main,
                json!({"tools": tools, "input": [user(&["<transcript>"])]}),
            ),
            (
                Kind::Search,
                json!({"tools": [{"type": "web_search"}], "input": [user(&["x"])]}),
            ),
            (Kind::Side, json!({})),
        ] {
            assert_eq!(Asked::read(&body).kind, kind, "{body}");
        }
    }
}
