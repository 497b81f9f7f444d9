//! The user's own `--settings`: found among the arguments, read as text, put under ours.
//!
//! Works on words and values only; files are opened in `private`. With two `--settings` the client
//! takes the last one whole (contract supervision F2), so that ours and theirs have to become one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::{Map, Value};

const SETTINGS: &str = "--settings";
const MODEL: &str = "--model";

/// Takes every `--settings X` and `--settings=X` before a `--` out of the client's arguments.
///
/// Returns the value that counts (the last), and the other arguments in their order. A last word
/// `--settings` without a value stays: the client has something to say about it.
pub fn split_arguments(arguments: &[OsString]) -> (Option<OsString>, Vec<OsString>) {
    let mut value = None;
    let mut rest = Vec::with_capacity(arguments.len());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word.clone());
            rest.extend(words.cloned());
            break;
        }
        if let Some(given) = after_equals(word, SETTINGS) {
            value = Some(given.to_owned());
        } else if word == SETTINGS {
            match words.next() {
                Some(given) => value = Some(given.clone()),
                None => rest.push(word.clone()),
            }
        } else {
            rest.push(word.clone());
        }
    }
    (value, rest)
}

/// Returns the model that the client's arguments choose, the last one said; empty if the name is left out.
pub fn model(arguments: &[OsString]) -> Option<&OsStr> {
    let mut words = arguments.iter().take_while(|word| *word != "--");
    let mut model = None;
    while let Some(word) = words.next() {
        if word == MODEL {
            model = Some(words.next().map_or(OsStr::new(""), OsString::as_os_str));
        } else if let Some(given) = after_equals(word, MODEL) {
            model = Some(given);
        }
    }
    model
}

fn after_equals<'a>(word: &'a OsStr, name: &str) -> Option<&'a OsStr> {
    let rest = word.as_bytes().strip_prefix(name.as_bytes())?;
    Some(OsStr::from_bytes(rest.strip_prefix(b"=")?))
}

/// What a value of `--settings` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// The settings themselves.
    Inline(&'a str),
    /// A file with them.
    File(&'a Path),
}

impl<'a> Source<'a> {
    /// Tells them apart as the client does: what begins and ends with a brace is JSON.
    pub fn of(value: &'a OsStr) -> Self {
        match value.to_str().map(str::trim) {
            Some(text) if text.starts_with('{') && text.ends_with('}') => Self::Inline(text),
            _ => Self::File(Path::new(value)),
        }
    }
}

/// Reads settings as the client does: strict JSON, a byte order mark or nothing at all is fine.
/// `None` if the client would refuse them.
pub fn parse(text: &str) -> Option<Map<String, Value>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Some(Map::new());
    }
    serde_json::from_str(text).ok()
}

/// Puts `ours` under `theirs`: their keys stay, but in `env` ours win. An `env` that is no map gives
/// way: the client would drop the whole file for it, and our keys with it.
pub fn merge(theirs: Map<String, Value>, ours: Map<String, Value>) -> Map<String, Value> {
    let mut merged = theirs;
    for (key, value) in ours {
        match (merged.get_mut(&key), value) {
            (Some(Value::Object(env)), Value::Object(our_env)) if key == "env" => {
                env.extend(our_env);
            }
            (Some(env), our_env) if key == "env" => *env = our_env,
            (Some(_), _) => {}
            (None, value) => {
                merged.insert(key, value);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::ffi::OsStringExt as _;

    fn words(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_last_settings_before_a_double_dash_count() {
        for (given, value, rest) in [
            (&["-p", "hi"][..], None, &["-p", "hi"][..]),
            (&["--settings", "a", "-p"], Some("a"), &["-p"]),
            (&["-p", "--settings=a", "x"], Some("a"), &["-p", "x"]),
            (
                &["--settings=a", "--settings", "b", "mcp", "list"],
                Some("b"),
                &["mcp", "list"],
            ),
            (
                &["--settings", "a", "--", "--settings", "b"],
                Some("a"),
                &["--", "--settings", "b"],
            ),
            (&["--settings="], Some(""), &[]),
            (&["-p", "--settings"], None, &["-p", "--settings"]),
            (&["--settings-x", "y"], None, &["--settings-x", "y"]),
            (&["", " "], None, &["", " "]),
        ] {
            assert_eq!(
                split_arguments(&words(given)),
                (value.map(OsString::from), words(rest)),
                "{given:?}"
            );
        }
    }

    #[test]
    fn words_that_are_no_text_stay_as_they_are() {
        let odd = OsString::from_vec(b"--settings=\xff".to_vec());
        let other = OsString::from_vec(b"\xfe\n".to_vec());
        let (value, rest) = split_arguments(&[odd, other.clone()]);
        assert_eq!(value.unwrap().as_bytes(), b"\xff");
        assert_eq!(rest, [other]);
    }

    #[test]
    fn a_chosen_model_is_seen() {
        for (line, expected) in [
            (&["-p", "--model", "opus"][..], Some("opus")),
            (&["--model=opus"], Some("opus")),
            (&["--model", "opus", "--model=haiku", "x"], Some("haiku")),
            (&["--model"], Some("")),
            (&["--", "--model", "opus"], None),
            (&["--models", "opus"], None),
        ] {
            let line = words(line);
            assert_eq!(model(&line), expected.map(OsStr::new), "{line:?}");
        }
    }

    #[test]
    fn inline_and_file_are_told_apart() {
        for (value, source) in [
            ("{}", Source::Inline("{}")),
            (" {\"a\":1}\n", Source::Inline("{\"a\":1}")),
            ("a.json", Source::File(Path::new("a.json"))),
            ("{a.json", Source::File(Path::new("{a.json"))),
            ("", Source::File(Path::new(""))),
        ] {
            assert_eq!(Source::of(OsStr::new(value)), source);
        }
    }

    #[test]
    fn settings_are_read_as_the_client_reads_them() {
        for fine in ["{}", "", " \n", "\u{feff}{\"a\":1}", r#"{"env":7}"#] {
            assert!(parse(fine).is_some(), "{fine:?}");
        }
        for bad in ["[]", "7", "{,}", "{\"a\":1,}", "// x\n{}"] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn theirs_stays_but_our_environment_wins() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let theirs = map(json!({"env": {"A": "1", "B": "2"}, "model": "x", "z": [1]}));
        let ours = map(json!({"env": {"B": "3", "C": "4"}, "model": "y", "new": true}));
        assert_eq!(
            Value::Object(merge(theirs, ours)),
            json!({"env": {"A": "1", "B": "3", "C": "4"}, "model": "x", "z": [1], "new": true})
        );
        let odd = merge(map(json!({"env": 7})), map(json!({"env": {"A": "1"}})));
        assert_eq!(Value::Object(odd), json!({"env": {"A": "1"}}));
    }
}
