//! The form of the answer: a JSON Schema, and how wordy.
//!
//! A schema is asked for strictly only if it keeps the rules of strict mode as it is: objects list
//! all their properties as required and allow no others, and only keywords that strict mode knows
//! are used. A schema that does not is sent with `strict:false`; making it strict would turn
//! optional properties into required ones.

use crate::catalogue::knobs::Verbosity;
use crate::catalogue::model::Model;
use crate::translate::{schema, writer};
use crate::wire::json::{Kind, ParseError, Raw};

/// What upstream calls the answer; it must have a name.
const NAME: &str = "answer";

/// Keywords of strict mode, and those that say nothing about validity.
const STRICT_KEYWORDS: &[&str] = &[
    "$schema",
    "additionalProperties",
    "const",
    "description",
    "enum",
    "items",
    "properties",
    "required",
    "title",
    "type",
];

/// Levels of objects and arrays that strict mode takes.
const STRICT_LEVELS: usize = 5;

/// Writes the value of `text`. Returns false, with nothing written, if there is nothing to say.
pub(super) fn text(
    out: &mut Vec<u8>,
    model: &Model,
    wanted: Option<Verbosity>,
    schema: Option<Raw<'_>>,
) -> Result<bool, ParseError> {
    let verbosity = wanted
        .map(Verbosity::wire_name)
        .or(model.default_verbosity.as_deref())
        .filter(|_| model.support_verbosity);
    let schema = schema.filter(|schema| schema.kind() == Kind::Object);
    if verbosity.is_none() && schema.is_none() {
        return Ok(false);
    }
    out.push(b'{');
    let mut first = true;
    if let Some(verbosity) = verbosity {
        writer::comma(out, &mut first);
        writer::json(out, r#""verbosity":"#);
        writer::string(out, verbosity);
    }
    if let Some(schema) = schema {
        let is_strict = is_strict(schema, STRICT_LEVELS, true);
        writer::comma(out, &mut first);
        writer::json(out, r#""format":{"type":"json_schema","strict":"#);
        writer::json(out, if is_strict { "true" } else { "false" });
        writer::json(out, r#","schema":"#);
        schema::nested(out, schema)?;
        writer::json(out, r#","name":"#);
        writer::string(out, NAME);
        out.push(b'}');
    }
    out.push(b'}');
    Ok(true)
}

/// Says whether something of `schema` cannot be told: what would be dropped of a tool's schema is dropped here too.
pub(super) fn is_approximated(schema: Option<Raw<'_>>) -> Result<bool, ParseError> {
    match schema.filter(|schema| schema.kind() == Kind::Object) {
        None => Ok(false),
        // Written once more for this alone: it is seldom there, and small.
        Some(schema) => schema::nested(&mut Vec::new(), schema),
    }
}

/// Says whether `schema` keeps the rules of strict mode, with at most `levels` below it.
fn is_strict(schema: Raw<'_>, levels: usize, is_root: bool) -> bool {
    let mut kind = None;
    let mut properties = Vec::new();
    let mut required = Vec::new();
    let mut is_closed = false;
    let mut is_legal = schema.kind() == Kind::Object && levels > 0;
    if !is_legal {
        return false;
    }
    // Read once before, so that an error cannot happen; if it did, the schema is not strict.
    let read = schema.reader().object(|reader, key| {
        let value = reader.raw()?;
        is_legal &= STRICT_KEYWORDS.contains(&key);
        match key {
            "type" => kind = value.as_text().map(|kind| kind.value()),
            "additionalProperties" => is_closed = value.text() == "false",
            "items" => is_legal &= is_strict(value, levels - 1, false),
            "properties" => value.reader().object(|reader, name| {
                properties.push(name.to_owned());
                is_legal &= is_strict(reader.raw()?, levels - 1, false);
                Ok(())
            })?,
            "required" => value.reader().list(|reader| {
                required.push(reader.string()?.value());
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    });
    let is_object = kind.as_deref() == Some("object");
    read.is_ok()
        && is_legal
        && (is_object || !is_root)
        && (!is_object
            || is_closed
                && properties
                    .iter()
                    .all(|name| required.iter().any(|required| required == name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::Reader;

    #[test]
    fn strict_is_asked_for_only_where_the_schema_is_strict_already() {
        let cases = [
            (
                r#"{"type":"object","properties":{"title":{"type":"string"}},"required":["title"],"additionalProperties":false}"#,
                true,
            ),
            (
                r#"{"type":"object","properties":{"l":{"type":"array","items":{"type":"object","properties":{},"additionalProperties":false}}},"required":["l"],"additionalProperties":false}"#,
                true,
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"string"}},"required":[],"additionalProperties":false}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"string","pattern":"x"}},"required":["a"],"additionalProperties":false}"#,
                false,
            ),
            (r#"{"type":"array","items":{"type":"string"}}"#, false),
            (r#"{"type":"object","required":3}"#, false),
            ("{}", false),
        ];
        for (schema, expected) in cases {
            let raw = Reader::new(schema.as_bytes()).unwrap().raw().unwrap();
            assert_eq!(is_strict(raw, STRICT_LEVELS, true), expected, "{schema}");
        }
    }
}
