//! Tool schemas: what has to change so that upstream takes them.
//!
//! Servers of tools write every dialect of JSON Schema there is, and one schema that upstream refuses fails the whole
//! request, not only its tool. Nothing is checked or tidied beyond that. The first rule rests on contract chatgpt-codex
//! §5.3, the others on the public API's published rules for function parameters and on JSON Schema's own meta-schema:
//!
//! - `pattern` is dropped, as a keyword only: upstream's regex dialect refuses some.
//! - `$schema` is dropped at the root: it means nothing to the model.
//! - The root becomes an object with `properties`; unions and references at the root are merged into it (`merge`).
//! - An array says what its `items` are, in one schema.
//! - A keyword whose value is of a kind that JSON Schema forbids is dropped, as are unknown words in `type`.
//! - A `$ref` to what the document does not hold is dropped: nothing is fetched.
//! - Below [`DEEPEST`] levels anything goes.

use crate::translate::writer;
use crate::wire::json::{Kind, ParseError, Raw, Text};

mod merge;

/// Levels of schemas within schemas that are told. Ten is much; a recursion that somebody has unrolled has more.
const DEEPEST: usize = 32;

/// Keywords that upstream refuses at the root.
const NOT_AT_ROOT: &[&str] = &["allOf", "anyOf", "enum", "not", "oneOf"];

/// What `type` may say.
const TYPES: &[&str] = &[
    "array", "boolean", "integer", "null", "number", "object", "string",
];

/// What a keyword holds.
#[derive(Clone, Copy)]
enum Holds {
    /// One schema.
    Schema,
    /// Several schemas, in a list.
    Schemas,
    /// Schemas under names which are not keywords.
    Named,
    /// The kind of value, or several.
    Type,
    /// The values.
    Values,
    /// Names of properties.
    Names,
    /// Where another schema is.
    Reference,
    /// A value of this kind.
    One(Kind),
    /// Anything.
    Anything,
}

impl Holds {
    /// Those that nearly every schema has come first: a list of tools has thousands of keywords.
    fn of(keyword: &str) -> Self {
        match keyword {
            "type" => Self::Type,
            "description" | "title" => Self::One(Kind::Text),
            "properties" => Self::Named,
            "items" | "additionalProperties" => Self::Schema,
            "required" => Self::Names,
            "enum" => Self::Values,
            "default" => Self::Anything,
            "$ref" => Self::Reference,
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => Self::Schemas,
            "minimum" | "maximum" | "minLength" | "maxLength" | "minItems" | "maxItems"
            | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" | "minContains"
            | "maxContains" | "minProperties" | "maxProperties" => Self::One(Kind::Number),
            "format" | "$anchor" | "$comment" | "$id" | "contentEncoding" | "contentMediaType" => {
                Self::One(Kind::Text)
            }
            "deprecated" | "readOnly" | "uniqueItems" | "writeOnly" => Self::One(Kind::Bool),
            "$defs" | "definitions" | "dependentSchemas" | "patternProperties" => Self::Named,
            "additionalItems"
            | "contains"
            | "contentSchema"
            | "else"
            | "if"
            | "not"
            | "propertyNames"
            | "then"
            | "unevaluatedItems"
            | "unevaluatedProperties" => Self::Schema,
            _ => Self::Anything,
        }
    }
}

/// Writes the schema of a tool's arguments. Returns whether it said something that upstream could not be told.
///
/// The errors are those of reading; a value that was read before gives none.
pub(super) fn parameters(out: &mut Vec<u8>, schema: Option<Raw<'_>>) -> Result<bool, ParseError> {
    let Some(schema) = schema.filter(|schema| schema.kind() == Kind::Object) else {
        writer::json(out, r#"{"type":"object","properties":{}}"#);
        return Ok(schema.is_some());
    };
    let mut writing = Writing {
        document: schema,
        is_changed: false,
    };
    writing.root(out)?;
    Ok(writing.is_changed)
}

/// Writes any schema with the rules for schemas below the root. Returns whether it was changed.
pub(super) fn nested(out: &mut Vec<u8>, schema: Raw<'_>) -> Result<bool, ParseError> {
    let mut writing = Writing {
        document: schema,
        is_changed: false,
    };
    writing.schema(out, schema, 0)?;
    Ok(writing.is_changed)
}

/// A document that is being written.
struct Writing<'a> {
    /// What local references point into.
    document: Raw<'a>,
    /// Whether something could not be told.
    is_changed: bool,
}

impl<'a> Writing<'a> {
    fn root(&mut self, out: &mut Vec<u8>) -> Result<(), ParseError> {
        let begin = out.len();
        if self.plain_root(out)? {
            return Ok(());
        }
        out.truncate(begin);
        self.is_changed = true;
        merge::write(self, out, &merge::root(self.document)?)
    }

    /// Writes a root that is an object already. Returns whether it is one: what was written of a union or a reference
    /// is of no use.
    fn plain_root(&mut self, out: &mut Vec<u8>) -> Result<bool, ParseError> {
        let mut fields = Fields::open(out);
        let mut has_type = false;
        let mut has_properties = false;
        let mut is_plain = true;
        let document = self.document;
        document.reader().raw_object(|reader, key| {
            let value = reader.raw()?;
            match key.value().as_ref() {
                "$schema" | "pattern" => {}
                "type" => {
                    has_type = true;
                    fields.key(key);
                    writer::json(fields.out, r#""object""#);
                    self.is_changed |= value.text() != r#""object""#;
                }
                "$ref" if value.kind() == Kind::Text => is_plain = false,
                "allOf" | "anyOf" | "oneOf" if value.kind() == Kind::List => is_plain = false,
                name if NOT_AT_ROOT.contains(&name) => self.is_changed = true,
                name => {
                    if name == "properties" {
                        if value.kind() != Kind::Object {
                            return Ok(());
                        }
                        has_properties = true;
                    }
                    self.keyword(&mut fields, key, name, value, 0)?;
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
        Ok(is_plain)
    }

    fn schema(
        &mut self,
        out: &mut Vec<u8>,
        schema: Raw<'a>,
        depth: usize,
    ) -> Result<(), ParseError> {
        match schema.kind() {
            Kind::Object if depth < DEEPEST => self.object(out, schema, depth),
            Kind::Bool => {
                writer::raw(out, schema);
                Ok(())
            }
            // Too deep, or no schema at all: anything goes.
            _ => {
                self.is_changed = true;
                writer::json(out, "{}");
                Ok(())
            }
        }
    }

    fn object(
        &mut self,
        out: &mut Vec<u8>,
        schema: Raw<'a>,
        depth: usize,
    ) -> Result<(), ParseError> {
        let mut fields = Fields::open(out);
        let mut is_array = false;
        let mut has_items = false;
        schema.reader().raw_object(|reader, key| {
            let value = reader.raw()?;
            match key.value().as_ref() {
                "pattern" if value.kind() == Kind::Text => {}
                name => {
                    is_array |= name == "type" && value.text().contains(r#""array""#);
                    let is_written = self.keyword(&mut fields, key, name, value, depth)?;
                    has_items |= name == "items" && is_written;
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

    /// Writes a keyword with its value, unless upstream would refuse it. Returns whether it did.
    fn keyword(
        &mut self,
        fields: &mut Fields<'_>,
        key: Text<'a>,
        name: &str,
        value: Raw<'a>,
        depth: usize,
    ) -> Result<bool, ParseError> {
        let kind = value.kind();
        let holds = Holds::of(name);
        let is_legal = match holds {
            Holds::Schema => {
                matches!(kind, Kind::Object | Kind::Bool) || (kind == Kind::List && name == "items")
            }
            Holds::Schemas | Holds::Values => kind == Kind::List && !is_empty(value),
            Holds::Named => kind == Kind::Object,
            Holds::Type => is_type(value),
            Holds::Names => is_list_of_texts(value),
            Holds::Reference => self.leads_somewhere(value),
            Holds::One(wanted) => kind == wanted,
            Holds::Anything => true,
        };
        // A tuple, in the words of older drafts.
        let is_tuple = matches!(holds, Holds::Schema) && kind == Kind::List;
        self.is_changed |= is_tuple || !is_legal;
        if !is_legal || (is_tuple && is_empty(value)) {
            return Ok(false);
        }
        fields.key(key);
        match holds {
            Holds::Schema if is_tuple => {
                writer::json(fields.out, r#"{"anyOf":"#);
                self.list(fields.out, value, depth + 1)?;
                fields.out.push(b'}');
            }
            Holds::Schema => self.schema(fields.out, value, depth + 1)?,
            Holds::Schemas => self.list(fields.out, value, depth + 1)?,
            Holds::Named => {
                let mut named = Fields::open(fields.out);
                value.reader().raw_object(|reader, key| {
                    named.key(key);
                    self.schema(named.out, reader.raw()?, depth + 1)
                })?;
                fields.out.push(b'}');
            }
            _ => writer::raw(fields.out, value),
        }
        Ok(true)
    }

    /// Writes a list of schemas.
    fn list(&mut self, out: &mut Vec<u8>, list: Raw<'a>, depth: usize) -> Result<(), ParseError> {
        out.push(b'[');
        let mut first = true;
        list.reader().list(|reader| {
            writer::comma(out, &mut first);
            self.schema(out, reader.raw()?, depth)
        })?;
        out.push(b']');
        Ok(())
    }

    /// Says whether a reference points to a place in the document that is still there.
    fn leads_somewhere(&self, reference: Raw<'_>) -> bool {
        let Some(reference) = reference.as_text() else {
            return false;
        };
        let reference = reference.value();
        let first = reference
            .strip_prefix("#/")
            .and_then(|path| path.split('/').next());
        let is_gone = first.is_some_and(|first| NOT_AT_ROOT.contains(&first));
        !is_gone && merge::resolve(self.document, &reference).is_some()
    }
}

fn is_empty(list: Raw<'_>) -> bool {
    list.text()[1..].trim_start() == "]"
}

fn is_type(value: Raw<'_>) -> bool {
    let is_known = |text: Text<'_>| TYPES.contains(&text.value().as_ref());
    match value.kind() {
        Kind::Text => value.as_text().is_some_and(is_known),
        Kind::List => {
            let mut all = true;
            let mut any = false;
            // It was read before, so nothing here can fail.
            let _ = value.reader().list(|reader| {
                all &= reader.raw()?.as_text().is_some_and(is_known);
                any = true;
                Ok(())
            });
            all && any
        }
        _ => false,
    }
}

fn is_list_of_texts(value: Raw<'_>) -> bool {
    let mut all = value.kind() == Kind::List;
    if all {
        // It was read before, so nothing here can fail.
        let _ = value.reader().list(|reader| {
            all &= reader.raw()?.kind() == Kind::Text;
            Ok(())
        });
    }
    all
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

    /// A schema with one property, and what that becomes.
    fn inner(schema: &str) -> (String, bool) {
        let around = |inner: &str| format!(r#"{{"type":"object","properties":{{"p":{inner}}}}}"#);
        let (sent, is_changed) = sent(&around(schema));
        let (before, after) = around("|")
            .split_once('|')
            .map(|(a, b)| (a.len(), b.len()))
            .unwrap();
        (sent[before..sent.len() - after].to_owned(), is_changed)
    }

    #[test]
    fn what_upstream_takes_stays_as_it_was_written() {
        for schema in [
            r#"{"type":"object","properties":{"a":{"type":"array","items":{"enum":["pattern",{"pattern":"x"}]}}},"required":["a"],"additionalProperties":false}"#,
            r##"{"type":"object","properties":{"n":{"$ref":"#/$defs/node"}},"$defs":{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"}}}}}"##,
            r##"{"type":"object","properties":{"n":{"$ref":"#/definitions/a~1b%20c"},"me":{"$ref":"#"}},"definitions":{"a/b c":{"const":1}}}"##,
            r#"{"type":"object","properties":{"a":{"type":["string","null"]},"b":{"nullable":true,"type":"string"},"c":true,"d":{"const":null},"e":{},"f":{"anyOf":[{"type":"string"},false]},"g":{"oneOf":[{"type":"integer","minimum":1}]},"type":{"type":"string"},"$ref":{"type":"string"},"required":{"type":"boolean"}}}"#,
            r#"{"type":"object","properties":{},"if":{"required":["a"]},"then":{"required":["b"]},"x-order":3}"#,
        ] {
            assert_eq!(sent(schema), (schema.to_owned(), false));
        }
    }

    #[test]
    fn roots_become_objects() {
        // [D26]
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
                r#"{"type":["object","null"],"properties":null}"#,
                r#"{"type":"object","properties":{}}"#,
                true,
            ),
            (
                r#"{"type":"string","enum":["a"]}"#,
                r#"{"type":"object","properties":{}}"#,
                true,
            ),
            ("true", r#"{"type":"object","properties":{}}"#, true),
            ("null", r#"{"type":"object","properties":{}}"#, true),
        ];
        for (schema, expected, is_changed) in cases {
            assert_eq!(sent(schema), (expected.to_owned(), is_changed), "{schema}");
        }
    }

    #[test]
    fn unions_and_references_at_the_root_become_one_object() {
        let cases = [
            // One of two forms: each property of both, required what both require.
            (
                r#"{"description":"d","oneOf":[
                    {"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"string"}},"required":["kind","x"]},
                    {"properties":{"kind":{"const":"b"},"y":{"type":"integer"}},"required":["kind"]},
                    {"type":"null"}]}"#,
                r#"{"type":"object","properties":{"kind":{"anyOf":[{"const":"a"},{"const":"b"}]},"x":{"type":"string"},"y":{"type":"integer"}},"required":["kind"],"description":"d"}"#,
            ),
            // Its own properties, of which one of two must be there.
            (
                r#"{"type":"object","properties":{"a":{},"b":{}},"required":["c","a"],"anyOf":[{"required":["a"]},{"required":["b"]}],"additionalProperties":false}"#,
                r#"{"type":"object","properties":{"a":{},"b":{}},"required":["a"],"additionalProperties":false}"#,
            ),
            (
                r##"{"allOf":[{"$ref":"#/$defs/base"},{"properties":{"b":{"pattern":"x"}},"required":["b"]}],"$defs":{"base":{"type":"object","properties":{"a":{"$ref":"#/$defs/base"}},"required":["a"]}}}"##,
                r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/base"},"b":{}},"required":["a","b"],"$defs":{"base":{"type":"object","properties":{"a":{"$ref":"#/$defs/base"}},"required":["a"]}}}"##,
            ),
            (
                r##"{"$ref":"#/definitions/Args","definitions":{"Args":{"type":"object","properties":{"a":{"type":"string"}}}},"$schema":"x"}"##,
                r##"{"type":"object","properties":{"a":{"type":"string"}},"definitions":{"Args":{"type":"object","properties":{"a":{"type":"string"}}}}}"##,
            ),
            // In circles, and into what is there no more.
            (
                r##"{"$ref":"#","anyOf":[{"$ref":"#"},{"properties":{"p":{"$ref":"#/anyOf/1"}}}]}"##,
                r#"{"type":"object","properties":{"p":{}}}"#,
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(sent(schema), (expected.to_owned(), true), "{schema}");
        }
    }

    #[test]
    fn keywords_that_no_reader_takes_are_dropped() {
        for (schema, expected, is_changed) in [
            // By the rule of upstream's regex dialect: no loss.
            (
                r#"{"propertyNames":{"pattern":"x"},"additionalProperties":{"anyOf":[{"pattern":"y"},true]}}"#,
                r#"{"propertyNames":{},"additionalProperties":{"anyOf":[{},true]}}"#,
                false,
            ),
            (
                r#"{"type":"array"}"#,
                r#"{"type":"array","items":{}}"#,
                false,
            ),
            (
                r#"{"type":["array","null"],"prefixItems":[{}]}"#,
                r#"{"type":["array","null"],"prefixItems":[{}],"items":{}}"#,
                false,
            ),
            (
                r#"{"type":"array","items":[{"type":"string"},{"pattern":"x"}]}"#,
                r#"{"type":"array","items":{"anyOf":[{"type":"string"},{}]}}"#,
                true,
            ),
            (
                r#"{"type":"array","items":[ ]}"#,
                r#"{"type":"array","items":{}}"#,
                true,
            ),
            (r#"{"type":"int","title":"t"}"#, r#"{"title":"t"}"#, true),
            (r#"{"type":["string","file"]}"#, "{}", true),
            (r#"{"type":[]}"#, "{}", true),
            (
                r#"{"type":"string","required":true}"#,
                r#"{"type":"string"}"#,
                true,
            ),
            (r#"{"required":[1]}"#, "{}", true),
            (r#"{"enum":[]}"#, "{}", true),
            (r#"{"enum":null,"anyOf":[],"oneOf":{}}"#, "{}", true),
            (
                r#"{"minimum":0,"exclusiveMinimum":true}"#,
                r#"{"minimum":0}"#,
                true,
            ),
            (
                r#"{"description":null,"default":null}"#,
                r#"{"default":null}"#,
                true,
            ),
            (
                r#"{"properties":[],"additionalProperties":null}"#,
                "{}",
                true,
            ),
            (
                r#"{"properties":{"a":"string"}}"#,
                r#"{"properties":{"a":{}}}"#,
                true,
            ),
            (
                r#"{"$ref":"https://e.x/s.json","description":"d"}"#,
                r#"{"description":"d"}"#,
                true,
            ),
            (r##"{"$ref":"#/$defs/gone"}"##, "{}", true),
            (r##"{"$ref":"#anchor"}"##, "{}", true),
            (r#""string""#, "{}", true),
        ] {
            assert_eq!(inner(schema), (expected.to_owned(), is_changed), "{schema}");
        }
    }

    #[test]
    fn a_deep_schema_is_cut_and_the_deepest_is_refused_by_the_reader_and_not_by_the_stack() {
        let deep = |levels: usize| {
            format!(
                "{}{}{}",
                r#"{"items":"#.repeat(levels),
                "{}",
                "}".repeat(levels)
            )
        };
        let (sent, is_changed) = sent(&deep(120));
        assert_eq!(sent.matches("items").count(), DEEPEST);
        assert!(is_changed);
        assert!(
            Reader::new(deep(100_000).as_bytes())
                .unwrap()
                .raw()
                .is_err()
        );
    }

    #[test]
    fn references_that_fan_out_are_looked_into_so_often_and_no_more() {
        let levels: Vec<_> = (0..60)
            .map(|level| {
                let next = level + 1;
                format!(r##""{level}":{{"allOf":[{{"$ref":"#/$defs/{next}"}},{{"$ref":"#/$defs/{next}"}}]}}"##)
            })
            .collect();
        let schema = format!(
            r##"{{"$ref":"#/$defs/0","$defs":{{{}}}}}"##,
            levels.join(",")
        );
        assert!(sent(&schema).1);
    }
}
