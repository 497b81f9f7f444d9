//! A root that is a union or a reference becomes one object.
//!
//! Upstream wants the arguments of a function to be one object with `properties`. What can be chosen between is told
//! as one object that allows all of it: each property that some alternative has, and as required only what every
//! alternative requires. The model may then mix alternatives; the server of the tool says so.

use std::collections::BTreeSet;

use crate::translate::writer;
use crate::wire::json::{Kind, ParseError, Raw, Text};

use super::{Fields, NOT_AT_ROOT, Writing};

/// How many schemas are looked into for one root: references can lead in circles, and fan out.
const MOST_SCHEMAS: usize = 200;

/// One object in place of several.
#[derive(Debug, Default)]
pub(super) struct Merged<'a> {
    /// Properties in the order in which they were met, each with the schemas that it has somewhere.
    properties: Vec<(Text<'a>, Vec<Raw<'a>>)>,
    required: BTreeSet<String>,
    /// What else the root says.
    rest: Vec<(Text<'a>, Raw<'a>)>,
}

/// Merges the root of `document`, which is a union or a reference.
pub(super) fn root(document: Raw<'_>) -> Result<Merged<'_>, ParseError> {
    let mut walk = Walk {
        document,
        path: Vec::new(),
        left: MOST_SCHEMAS,
    };
    collect(document, &mut walk)
}

/// A walk through the schemas that a root consists of.
struct Walk<'a> {
    document: Raw<'a>,
    /// Those that are being looked into.
    path: Vec<Raw<'a>>,
    /// How many more may be.
    left: usize,
}

fn collect<'a>(schema: Raw<'a>, walk: &mut Walk<'a>) -> Result<Merged<'a>, ParseError> {
    let mut merged = Merged::default();
    if schema.kind() != Kind::Object || walk.left == 0 || walk.path.contains(&schema) {
        return Ok(merged);
    }
    let document = walk.document;
    let is_root = walk.path.is_empty();
    walk.left -= 1;
    walk.path.push(schema);
    let mut together = Vec::new();
    let mut choices = Vec::new();
    schema.reader().raw_object(|reader, key| {
        let value = reader.raw()?;
        match (key.value().as_ref(), value.kind()) {
            ("properties", Kind::Object) => value.reader().raw_object(|reader, key| {
                merged.property(key, [reader.raw()?]);
                Ok(())
            })?,
            ("required", Kind::List) => value.reader().list(|reader| {
                if let Some(name) = reader.raw()?.as_text() {
                    merged.required.insert(name.value().into_owned());
                }
                Ok(())
            })?,
            ("$ref", Kind::Text) => {
                let target = value.as_text();
                together.extend(target.and_then(|path| resolve(document, &path.value())));
            }
            ("allOf", Kind::List) => value.reader().list(|reader| {
                together.push(reader.raw()?);
                Ok(())
            })?,
            ("anyOf" | "oneOf", Kind::List) => {
                let mut branches = Vec::new();
                value.reader().list(|reader| {
                    branches.push(reader.raw()?);
                    Ok(())
                })?;
                choices.push(branches);
            }
            ("type" | "properties" | "required" | "$ref" | "$schema" | "pattern", _) => {}
            (name, _) if is_root && !NOT_AT_ROOT.contains(&name) => merged.rest.push((key, value)),
            _ => {}
        }
        Ok(())
    })?;
    for schema in together {
        let other = collect(schema, walk)?;
        merged.required.extend(other.required.iter().cloned());
        merged.properties_of(other);
    }
    for branches in choices {
        let mut common: Option<BTreeSet<String>> = None;
        for branch in branches {
            if !may_be_object(branch)? {
                continue;
            }
            let other = collect(branch, walk)?;
            common = Some(match common {
                None => other.required.clone(),
                Some(common) => common.intersection(&other.required).cloned().collect(),
            });
            merged.properties_of(other);
        }
        merged.required.extend(common.unwrap_or_default());
    }
    walk.path.pop();
    Ok(merged)
}

/// Says whether a schema does not rule out objects by its `type`.
fn may_be_object(schema: Raw<'_>) -> Result<bool, ParseError> {
    let mut may_be = schema.kind() == Kind::Object;
    if may_be {
        schema.reader().object(|reader, key| {
            let value = reader.raw()?;
            if key == "type" {
                may_be = value.text().contains(r#""object""#);
            }
            Ok(())
        })?;
    }
    Ok(may_be)
}

impl<'a> Merged<'a> {
    fn property(&mut self, key: Text<'a>, schemas: impl IntoIterator<Item = Raw<'a>>) {
        let known = self.properties.iter_mut();
        let mut known = known.filter(|(name, _)| name.value() == key.value());
        let known = match known.next() {
            Some((_, known)) => known,
            None => {
                self.properties.push((key, Vec::new()));
                let (_, known) = self.properties.last_mut().expect("it was just put there");
                known
            }
        };
        for schema in schemas {
            if !known.contains(&schema) {
                known.push(schema);
            }
        }
    }

    fn properties_of(&mut self, other: Self) {
        for (key, schemas) in other.properties {
            self.property(key, schemas);
        }
    }
}

/// Writes it by the rules for every schema.
pub(super) fn write<'a>(
    writing: &mut Writing<'a>,
    out: &mut Vec<u8>,
    merged: &Merged<'a>,
) -> Result<(), ParseError> {
    let mut fields = Fields::open(out);
    fields.add(r#""type":"object","properties":"#);
    let mut properties = Fields::open(fields.out);
    for (key, schemas) in &merged.properties {
        properties.key(*key);
        match schemas.as_slice() {
            [only] => writing.schema(properties.out, *only, 1)?,
            several => {
                writer::json(properties.out, r#"{"anyOf":["#);
                let mut first = true;
                for schema in several {
                    writer::comma(properties.out, &mut first);
                    writing.schema(properties.out, *schema, 2)?;
                }
                writer::json(properties.out, "]}");
            }
        }
    }
    fields.out.push(b'}');
    let is_there = |name: &str| {
        let mut keys = merged.properties.iter();
        keys.any(|(key, _)| key.value() == name)
    };
    let mut first = true;
    for name in merged.required.iter().filter(|name| is_there(name)) {
        if first {
            fields.add(r#""required":["#);
        }
        writer::comma(fields.out, &mut first);
        writer::string(fields.out, name);
    }
    if !first {
        fields.out.push(b']');
    }
    for (key, value) in &merged.rest {
        writing.keyword(&mut fields, *key, &key.value(), *value, 0)?;
    }
    out.push(b'}');
    Ok(())
}

/// Returns what a reference points to: a JSON pointer into `document` behind a `#` (RFC 6901, section 6).
pub(super) fn resolve<'a>(document: Raw<'a>, reference: &str) -> Option<Raw<'a>> {
    let path = reference.strip_prefix('#')?;
    let mut at = document;
    for step in path.split('/').skip(1) {
        let step = percent_decoded(step).replace("~1", "/").replace("~0", "~");
        let mut found = None;
        // It was read before, so nothing here can fail.
        let _ = match at.kind() {
            Kind::Object => at.reader().object(|reader, key| {
                let value = reader.raw()?;
                if key == step {
                    found = Some(value);
                }
                Ok(())
            }),
            Kind::List => {
                let wanted: usize = step.parse().ok()?;
                let mut place = 0;
                at.reader().list(|reader| {
                    let value = reader.raw()?;
                    if place == wanted {
                        found = Some(value);
                    }
                    place += 1;
                    Ok(())
                })
            }
            _ => return None,
        };
        at = found?;
    }
    // `#name` is an anchor, which is not looked for.
    (path.is_empty() || path.starts_with('/')).then_some(at)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *byte == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
