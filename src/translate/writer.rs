//! Writes JSON into a byte buffer: strings spliced still escaped, values as they came.
//!
//! One change is made to what is spliced: an escaped half of a surrogate pair becomes `\ufffd`.
//! It is legal JSON but no character, and a strict reader refuses the whole request for it.

use crate::wire::json::{Raw, Text};

/// Writes `text` with its quotes.
pub(super) fn text(out: &mut Vec<u8>, value: Text<'_>) {
    out.push(b'"');
    inner(out, value);
    out.push(b'"');
}

/// Writes `text` without quotes: inside a string that the caller has opened.
pub(super) fn inner(out: &mut Vec<u8>, value: Text<'_>) {
    if value.is_broken() {
        mend(out, value.escaped());
    } else {
        out.extend_from_slice(value.escaped().as_bytes());
    }
}

/// Writes a value as it was written.
pub(super) fn raw(out: &mut Vec<u8>, value: Raw<'_>) {
    if value.is_broken() {
        mend(out, value.text());
    } else {
        out.extend_from_slice(value.text().as_bytes());
    }
}

/// Writes a value as a string that holds its JSON.
pub(super) fn raw_as_string(out: &mut Vec<u8>, value: Raw<'_>) {
    if value.is_broken() {
        let mut mended = Vec::with_capacity(value.text().len());
        mend(&mut mended, value.text());
        quote(out, &mended);
    } else {
        quote(out, value.text().as_bytes());
    }
}

/// Writes `value` as a JSON string.
pub(super) fn string(out: &mut Vec<u8>, value: &str) {
    quote(out, value.as_bytes());
}

/// Writes the characters of `value`, escaped, inside a string that the caller has opened.
pub(super) fn characters(out: &mut Vec<u8>, value: &str) {
    escape(out, value.as_bytes());
}

/// Writes what is known to be JSON.
pub(super) fn json(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(value.as_bytes());
}

/// Writes a comma unless this is the `first` element, which it then no longer is.
pub(super) fn comma(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

fn quote(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    escape(out, bytes);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut done = 0;
    for at in memchr::memchr2_iter(b'"', b'\\', bytes) {
        controls(out, &bytes[done..at]);
        out.extend_from_slice(&[b'\\', bytes[at]]);
        done = at + 1;
    }
    controls(out, &bytes[done..]);
}

/// Writes bytes that hold neither quotes nor backslashes.
fn controls(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes
        .iter()
        .fold(false, |found, byte| found | (*byte < 0x20))
    {
        out.extend_from_slice(bytes);
        return;
    }
    for byte in bytes {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

/// Writes JSON text with every escaped half of a surrogate pair replaced.
fn mend(out: &mut Vec<u8>, json: &str) {
    let unit = |at: usize| {
        json.get(at..at + 6)
            .and_then(|escape| escape.strip_prefix("\\u"))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let mut done = 0;
    while let Some(found) = memchr::memchr(b'\\', &json.as_bytes()[done..]) {
        let at = done + found;
        out.extend_from_slice(&json.as_bytes()[done..at]);
        let (length, lone) = match unit(at) {
            Some(0xD800..0xDC00) if matches!(unit(at + 6), Some(0xDC00..0xE000)) => (12, false),
            Some(0xD800..0xE000) => (6, true),
            Some(_) => (6, false),
            None => (2, false),
        };
        if lone {
            out.extend_from_slice(b"\\ufffd");
        } else {
            out.extend_from_slice(&json.as_bytes()[at..at + length]);
        }
        done = at + length;
    }
    out.extend_from_slice(&json.as_bytes()[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::Reader;
    use proptest::prelude::*;

    fn spliced(document: &str) -> String {
        let value = Reader::new(document.as_bytes()).unwrap().raw().unwrap();
        let mut out = Vec::new();
        raw(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn halves_of_surrogate_pairs_become_the_replacement_character() {
        let cases = [
            (r#""plain""#, r#""plain""#),
            (r#""\ud83d\ude00 \/ \u00e9""#, r#""\ud83d\ude00 \/ \u00e9""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d \uD83Dx""#, r#""\\ud83d \ufffdx""#),
            (r#"{"\udfff":["\udbff"]}"#, r#"{"\ufffd":["\ufffd"]}"#),
        ];
        for (document, expected) in cases {
            assert_eq!(spliced(document), expected);
            serde_json::from_str::<serde_json::Value>(expected).unwrap();
        }
    }

    #[test]
    fn a_value_inside_a_string_reads_back_as_that_value() {
        let document = "{\"a\":\n\t[\"\\n\\\"\", \"é\\ud800\"]}";
        let value = Reader::new(document.as_bytes()).unwrap().raw().unwrap();
        let mut out = Vec::new();
        raw_as_string(&mut out, value);
        let inner: String = serde_json::from_slice(&out).unwrap();
        assert_eq!(inner, "{\"a\":\n\t[\"\\n\\\"\", \"é\\ufffd\"]}");
    }

    proptest! {
        #[test]
        fn any_string_is_written_as_that_string(value in "\\PC*|[\\x00-\\x7f]{0,40}") {
            let mut out = Vec::new();
            string(&mut out, &value);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }
    }
}
