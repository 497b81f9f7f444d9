//! Templates of scenarios: `{{source|filter:argument|…}}` in texts and arguments.
//!
//! Knows nothing of requests beyond the few sources below. A template that cannot be filled is an
//! error, never an empty string: a scenario that does not fit its request must be noticed.

use std::time::Duration;

use serde_json::Value;

use super::asked::Asked;
use crate::time::UnixSeconds;

/// What templates can name.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The request.
    pub asked: &'a Asked,
    /// The number of a repeated text, from 1.
    pub n: usize,
}

/// A template that cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("a template is not closed: {0}")]
    Open(String),
    /// No such source, or it has nothing.
    #[error("the request has no {0}")]
    Missing(String),
    /// No such filter, or an argument that it cannot take.
    #[error("no such filter: {0}")]
    Filter(String),
    /// The filter found nothing.
    #[error("{filter} finds nothing in {text:?}")]
    Nothing {
        /// The filter.
        filter: String,
        /// The beginning of what it was given.
        text: String,
    },
}

/// Fills every template of `text`.
pub fn fill(text: &str, sources: Sources<'_>) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (inside, after) = after
            .split_once("}}")
            .ok_or_else(|| TemplateError::Open(beginning(after)))?;
        out.push_str(&value(inside, sources)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Fills every string inside `value`.
pub fn fill_value(value: &Value, sources: Sources<'_>) -> Result<Value, TemplateError> {
    Ok(match value {
        Value::String(text) => Value::String(fill(text, sources)?),
        Value::Array(list) => Value::Array(
            list.iter()
                .map(|entry| fill_value(entry, sources))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, entry)| Ok((key.clone(), fill_value(entry, sources)?)))
                .collect::<Result<_, _>>()?,
        ),
        other => other.clone(),
    })
}

/// Replaces `{{now+SECONDS}}` in canned replies: a string that is nothing else becomes a number.
pub fn fill_times(value: &Value, now: UnixSeconds) -> Value {
    match value {
        Value::String(text) => seconds(text, now).map_or_else(|| value.clone(), Value::from),
        Value::Array(list) => list.iter().map(|entry| fill_times(entry, now)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, entry)| (key.clone(), fill_times(entry, now)))
            .collect(),
        other => other.clone(),
    }
}

/// Returns the time that `{{now+SECONDS}}` names, in seconds since 1970.
pub fn seconds(text: &str, now: UnixSeconds) -> Option<u64> {
    let after = text.strip_prefix("{{now+")?.strip_suffix("}}")?;
    Some(now.plus(Duration::from_secs(after.parse().ok()?)).0)
}

fn value(inside: &str, sources: Sources<'_>) -> Result<String, TemplateError> {
    let mut parts = inside.split('|');
    let name = parts.next().unwrap_or_default().trim();
    let mut text = source(name, sources)?;
    for filter in parts {
        let (word, argument) = filter.split_once(':').unwrap_or((filter, ""));
        text = apply(word.trim(), argument, &text, sources)?.ok_or_else(|| {
            TemplateError::Nothing {
                filter: filter.to_owned(),
                text: beginning(&text),
            }
        })?;
    }
    Ok(text)
}

/// `prompt`, `cwd`, `model`, `n`, `outputs`, `output.2`, `output.last`, each with `.line.N` behind it.
fn source(name: &str, sources: Sources<'_>) -> Result<String, TemplateError> {
    let missing = || TemplateError::Missing(name.to_owned());
    let (whole, line) = match name.split_once(".line.") {
        Some((whole, number)) => (whole, Some(number.parse::<usize>().map_err(|_| missing())?)),
        None => (name, None),
    };
    let asked = sources.asked;
    let text = match whole {
        "prompt" => asked.prompt.clone(),
        "cwd" => asked.folder.clone().ok_or_else(missing)?,
        "model" => asked.model.clone(),
        "n" => sources.n.to_string(),
        "outputs" => asked.outputs.len().to_string(),
        _ => {
            let which = whole.strip_prefix("output.").ok_or_else(missing)?;
            let output = match which {
                "last" => asked.outputs.last(),
                number => asked
                    .outputs
                    .get(number.parse::<usize>().map_err(|_| missing())?),
            };
            output.ok_or_else(missing)?.clone()
        }
    };
    match line {
        Some(number) => nth_line(&text, number).ok_or_else(missing),
        None => Ok(text),
    }
}

/// `None` when the filter finds nothing.
fn apply(
    word: &str,
    argument: &str,
    text: &str,
    sources: Sources<'_>,
) -> Result<Option<String>, TemplateError> {
    let number = || {
        argument
            .parse::<usize>()
            .map_err(|_| TemplateError::Filter(format!("{word}:{argument}")))
    };
    Ok(match word {
        "trim" => Some(text.trim().to_owned()),
        "line" => nth_line(text, number()?),
        "lines" => Some(text.lines().count().to_string()),
        "word" => text
            .split_whitespace()
            .nth(number()?.saturating_sub(1))
            .map(str::to_owned),
        "first" => Some(text.chars().take(number()?).collect()),
        "after" => text
            .split_once(argument)
            .and_then(|(_, after)| after.lines().next())
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty()),
        "ending" => text
            .split_whitespace()
            .map(|word| {
                // A dot may end the sentence or begin the path.
                word.trim_start_matches(|c| ",;:()\"'`".contains(c))
                    .trim_end_matches(|c| ",;:()\"'`.!?".contains(c))
            })
            .find(|word| word.ends_with(argument) && word.len() > argument.len())
            .map(str::to_owned),
        "numberless" => Some(
            text.lines()
                .map(without_number)
                .collect::<Vec<_>>()
                .join("\n")
                // A file's last newline is shown as an empty line with a number.
                .trim_end()
                .to_owned(),
        ),
        "absolute" if text.starts_with('/') => Some(text.to_owned()),
        "absolute" => {
            let folder = source("cwd", sources)?;
            Some(format!("{}/{text}", folder.trim_end_matches('/')))
        }
        "or" if text.trim().is_empty() => Some(argument.to_owned()),
        "or" => Some(text.to_owned()),
        "shell" => Some(format!("'{}'", text.replace('\'', r"'\''"))),
        "json" => Some(Value::from(text).to_string()),
        _ => return Err(TemplateError::Filter(word.to_owned())),
    })
}

/// Line `number`, from 1.
fn nth_line(text: &str, number: usize) -> Option<String> {
    text.lines().nth(number.checked_sub(1)?).map(str::to_owned)
}

/// The client numbers the lines of a file that it reads: `   12→text` or `12<tab>text`.
fn without_number(line: &str) -> &str {
    let digits = line
        .trim_start()
        .trim_start_matches(|c: char| c.is_ascii_digit());
    if digits.len() == line.trim_start().len() {
        return line;
    }
    digits
        .strip_prefix('\t')
        .or_else(|| digits.strip_prefix('→'))
        .unwrap_or(line)
}

fn beginning(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::simulate::scenario::Kind;

    fn asked() -> Asked {
        Asked {
            kind: Kind::Main,
            model: "gpt-6.1-sol".to_owned(),
            conversation: "c".to_owned(),
            prompt: "Read notes.txt, write \"out.md\".\nrun: ls -l".to_owned(),
            folder: Some("/home/a".to_owned()),
            outputs: vec![
                "1\tone\n2\ttwo\n3\t".to_owned(),
                String::new(),
                "z".to_owned(),
            ],
            tools: Vec::new(),
            items: 3,
            turn: 1,
        }
    }

    #[test]
    fn templates_are_filled() {
        let asked = asked();
        let sources = Sources {
            asked: &asked,
            n: 3,
        };
        for (text, want) in [
            ("plain", "plain"),
            ("{{cwd}}/x", "/home/a/x"),
            ("{{n}} of {{model}}", "3 of gpt-6.1-sol"),
            ("{{output.0.line.2}}", "2\ttwo"),
            ("{{output.0|numberless|line:2}}", "two"),
            ("{{output.last}}{{outputs}}", "z3"),
            ("{{output.1|or:nothing}}", "nothing"),
            ("{{prompt|after:run:}}", "ls -l"),
            ("{{prompt|ending:.md|absolute}}", "/home/a/out.md"),
            ("{{prompt|ending:.txt}}", "notes.txt"),
            ("{{prompt|word:1|json}}", "\"Read\""),
            ("{{output.0|lines}} {{prompt|first:4}}", "3 Read"),
            ("{{output.0|numberless|lines}}", "2"),
            ("{{prompt|word:4|shell}}", "'\"out.md\".'"),
        ] {
            assert_eq!(fill(text, sources).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(
            fill_value(&json!({"a": ["{{n}}", 1]}), sources),
            Ok(json!({"a": ["3", 1]}))
        );
    }

    #[test]
    fn times_become_numbers() {
        let value = json!({"a": ["{{now+60}}", "{{now}}", 1], "b": "x{{now+1}}"});
        assert_eq!(
            fill_times(&value, UnixSeconds(1000)),
            json!({"a": [1060, "{{now}}", 1], "b": "x{{now+1}}"})
        );
    }

    #[test]
    fn what_cannot_be_filled_is_an_error() {
        let mut asked = asked();
        asked.folder = None;
        let sources = Sources {
            asked: &asked,
            n: 1,
        };
        for (text, message) in [
            ("{{prompt", "a template is not closed: prompt"),
            ("{{cwd}}", "the request has no cwd"),
            ("{{output.7}}", "the request has no output.7"),
            ("{{output.0.line.9}}", "the request has no output.0.line.9"),
            ("{{prompt|shout}}", "no such filter: shout"),
            ("{{prompt|line:x}}", "no such filter: line:x"),
            (
                "{{model|after:q}}",
                "after:q finds nothing in \"gpt-6.1-sol\"",
            ),
        ] {
            assert_eq!(fill(text, sources).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn only_line_numbers_are_taken_away() {
        for (line, want) in [
            ("1\tone", "one"),
            ("    12→x", "x"),
            ("12 monkeys", "12 monkeys"),
            ("  two", "  two"),
            ("", ""),
        ] {
            assert_eq!(without_number(line), want);
        }
    }
}
