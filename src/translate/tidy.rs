//! Arguments of calls that the client would refuse although the model meant well.
//!
//! Models of upstream fill in what is optional. Most tools take that; the client's `Read` refuses a `pages` that names
//! none, and the model, which sees an error about something it did not want, tries the same again.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The client's tool that reads a file.
const READ: &str = "Read";

/// Its argument that chooses pages of a PDF.
const PAGES: &str = "pages";

/// Says whether something may have to be left out of the arguments of a call of `tool` (the client's name).
pub(super) fn has_work(tool: &str) -> bool {
    tool == READ
}

/// Returns the arguments of a call of such a tool without `pages` where that says nothing; both escaped, as they stand
/// in a string. What is no JSON object stays as it is.
pub(super) fn arguments(escaped: &str) -> Cow<'_, str> {
    if !escaped.contains(PAGES) {
        return Cow::Borrowed(escaped);
    }
    tidied(escaped).map_or(Cow::Borrowed(escaped), Cow::Owned)
}

fn tidied(escaped: &str) -> Option<String> {
    let text: String = serde_json::from_str(&format!("\"{escaped}\"")).ok()?;
    let mut arguments: Map<String, Value> = serde_json::from_str(&text).ok()?;
    let says_nothing = match arguments.get(PAGES)? {
        Value::Null => true,
        Value::String(pages) => pages.trim().is_empty(),
        _ => false,
    };
    if !says_nothing {
        return None;
    }
    arguments.shift_remove(PAGES);
    let text = Value::from(Value::Object(arguments).to_string()).to_string();
    Some(text[1..text.len() - 1].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_say_nothing_are_left_out() {
        for (given, expected) in [
            (
                r#"{\"file_path\":\"a\",\"pages\":\"\"}"#,
                r#"{\"file_path\":\"a\"}"#,
            ),
            (r#"{\"pages\": \" \", \"offset\":2}"#, r#"{\"offset\":2}"#),
            (r#"{\"pages\":null}"#, "{}"),
            (r#"{\"pages\":\"1-3\"}"#, r#"{\"pages\":\"1-3\"}"#),
            (
                r#"{\"file_path\":\"pages\"}"#,
                r#"{\"file_path\":\"pages\"}"#,
            ),
            (r#"{\"pages\":\"\""#, r#"{\"pages\":\"\""#),
            (r#"[\"pages\"]"#, r#"[\"pages\"]"#),
        ] {
            assert_eq!(arguments(given), expected);
        }
        assert!(has_work("Read") && !has_work("mcp__x__Read"));
    }
}
