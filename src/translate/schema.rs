//! Tool schemas: what has to change so that upstream takes them.
//!
//! Nothing is checked or tidied beyond that. Each rule answers a refusal that would fail the whole
//! request, not only the tool (the first by contract chatgpt-codex §5.3, the others by the public
//! API's published rules for function parameters):
//!
//! - `pattern` is dropped, as a keyword only: upstream's regex dialect refuses some.
//! - `$schema` is dropped at the root: it means nothing to the model.
//! - The root becomes an object with `properties`, and without `anyOf`, `oneOf`, `allOf`, `not`,
//!   `enum` beside them.
//! - An array says what its `items` are.

use crate::translate::writer;
use crate::wire::json::{Kind, ParseError, Raw, Text};

/// Keywords that hold one schema (`items` may hold several).
const ONE: &[&str] = &[
    "items",
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "prefixItems",
];

/// Keywords that hold schemas under names which are not keywords.
const NAMED: &[&str] = &[
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Keywords that upstream refuses at the root.
const NOT_AT_ROOT: &[&str] = &["allOf", "anyOf", "enum", "not", "oneOf"];

/// Writes the schema of a tool's arguments. Returns whether the root said something that
/// upstream could not be told.
///
/// The errors are those of reading; a value that was read before gives none.
pub(super) fn parameters(out: &mut Vec<u8>, schema: Option<Raw<'_>>) -> Result<bool, ParseError> {
    let Some(schema) = schema.filter(|schema| schema.kind() == Kind::Object) else {
        writer::json(out, r#"{"type":"object","properties":{}}"#);
        return Ok(schema.is_some());
    };
    let mut fields = Fields::open(out);
    let mut has_type = false;
    let mut has_properties = false;
    let mut is_changed = false;
    schema.reader().raw_object(|reader, key| {
        let value = reader.raw()?;
        match key.value().as_ref() {
            "$schema" | "pattern" => {}
            "type" => {
                has_type = true;
                fields.key(key);
                writer::json(fields.out, r#""object""#);
                is_changed |= value.text() != r#""object""#;
            }
            name if NOT_AT_ROOT.contains(&name) => is_changed = true,
            name => {
                if name == "properties" {
                    if value.kind() != Kind::Object {
                        return Ok(());
                    }
                    has_properties = true;
                }
                fields.keyword(key, name, value)?;
            }
        }
        Ok(())
    })?;
    if !has_type {
        fields.add(r#""type":"object""#);
    }
    if !has_properties {
        fields.add(r#""properties":{}"#);
    }
    out.push(b'}');
    Ok(is_changed)
}

/// Writes any schema with the rules for schemas below the root.
pub(super) fn nested(out: &mut Vec<u8>, schema: Raw<'_>) -> Result<(), ParseError> {
    match schema.kind() {
        Kind::Object => object(out, schema),
        Kind::List => {
            out.push(b'[');
            let mut first = true;
            schema.reader().list(|reader| {
                writer::comma(out, &mut first);
                nested(out, reader.raw()?)
            })?;
            out.push(b']');
            Ok(())
        }
        _ => {
            writer::raw(out, schema);
            Ok(())
        }
    }
}

fn object(out: &mut Vec<u8>, schema: Raw<'_>) -> Result<(), ParseError> {
    let mut fields = Fields::open(out);
    let mut is_array = false;
    let mut has_items = false;
    schema.reader().raw_object(|reader, key| {
        let value = reader.raw()?;
        match key.value().as_ref() {
            "pattern" if value.kind() == Kind::Text => {}
            name => {
                is_array |= name == "type" && value.text() == r#""array""#;
                has_items |= matches!(name, "items" | "prefixItems");
                fields.keyword(key, name, value)?;
            }
        }
        Ok(())
    })?;
    if is_array && !has_items {
        fields.add(r#""items":{}"#);
    }
    out.push(b'}');
    Ok(())
}

/// The fields of an object that is being written.
struct Fields<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Fields<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn key(&mut self, key: Text<'_>) {
        writer::comma(self.out, &mut self.first);
        writer::text(self.out, key);
        self.out.push(b':');
    }

    fn add(&mut self, field: &str) {
        writer::comma(self.out, &mut self.first);
        writer::json(self.out, field);
    }

    fn keyword(&mut self, key: Text<'_>, name: &str, value: Raw<'_>) -> Result<(), ParseError> {
        self.key(key);
        if ONE.contains(&name) {
            nested(self.out, value)
        } else if NAMED.contains(&name) && value.kind() == Kind::Object {
            let mut named = Fields::open(self.out);
            value.reader().raw_object(|reader, key| {
                named.key(key);
                nested(named.out, reader.raw()?)
            })?;
            self.out.push(b'}');
            Ok(())
        } else {
            writer::raw(self.out, value);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::Reader;

    fn sent(schema: &str) -> (String, bool) {
        let raw = Reader::new(schema.as_bytes()).unwrap().raw().unwrap();
        let mut out = Vec::new();
        let is_changed = parameters(&mut out, Some(raw)).unwrap();
        (String::from_utf8(out).unwrap(), is_changed)
    }

    #[test]
    fn schemas_change_only_where_upstream_would_refuse_them() {
        let same = r#"{"type":"object","properties":{"a":{"type":"array","items":{"enum":["pattern",{"pattern":"x"}]}}},"required":["a"],"additionalProperties":false}"#;
        assert_eq!(sent(same), (same.to_owned(), false));
        let cases = [
            ("{}", r#"{"type":"object","properties":{}}"#, false),
            (
                r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}"#,
                r#"{"type":"object","properties":{}}"#,
                false,
            ),
            (
                r#"{"properties":{"pattern":{"type":"string","pattern":"^(?!x)"},"properties":{"type":"string"}}}"#,
                r#"{"properties":{"pattern":{"type":"string"},"properties":{"type":"string"}},"type":"object"}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"m":{"propertyNames":{"pattern":"x"},"additionalProperties":{"anyOf":[{"pattern":"y"},true]}}}}"#,
                r#"{"type":"object","properties":{"m":{"propertyNames":{},"additionalProperties":{"anyOf":[{},true]}}}}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"l":{"type":"array"}}}"#,
                r#"{"type":"object","properties":{"l":{"type":"array","items":{}}}}"#,
                false,
            ),
            (
                r#"{"anyOf":[{"type":"object"}],"properties":{"a":{}}}"#,
                r#"{"properties":{"a":{}},"type":"object"}"#,
                true,
            ),
            (
                r#"{"type":["object","null"],"properties":null}"#,
                r#"{"type":"object","properties":{}}"#,
                true,
            ),
            ("true", r#"{"type":"object","properties":{}}"#, true),
        ];
        for (schema, expected, is_changed) in cases {
            assert_eq!(sent(schema), (expected.to_owned(), is_changed), "{schema}");
        }
    }

    #[test]
    fn a_deep_schema_is_refused_by_the_reader_and_not_by_the_stack() {
        let deep = |levels: usize| {
            format!(
                "{}{}{}",
                r#"{"items":"#.repeat(levels),
                "{}",
                "}".repeat(levels)
            )
        };
        assert!(sent(&deep(120)).0.len() > 1_000);
        assert!(
            Reader::new(deep(100_000).as_bytes())
                .unwrap()
                .raw()
                .is_err()
        );
    }
}
