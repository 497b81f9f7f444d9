//! A quick reading of delta events, which are nearly all of a stream.
//!
//! Reads a flat JSON object in which each value is a string, a plain integer, a word or an empty
//! list, and gives up on anything else: then the general parser reads it. Where it does not give
//! up it agrees with the general parser (a property test holds that).

use std::borrow::Cow;

use super::responses::Delta;

/// Reads the data of a delta event, or gives up.
pub(super) fn delta(data: &str) -> Option<Delta<'_>> {
    let mut cursor = Cursor { data, at: 0 };
    let mut output_index = None;
    let mut content_index = None;
    let mut summary_index = None;
    let mut item_id = None;
    let mut delta = None;
    cursor.expect(b'{')?;
    loop {
        cursor.expect(b'"')?;
        // A field told twice is an error to the general parser, so it is left to that.
        match cursor.key()? {
            Key::Delta if delta.is_none() => delta = Some(cursor.string()?.0),
            Key::ItemId if item_id.is_none() => {
                let (id, has_escapes) = cursor.string()?;
                if has_escapes {
                    return None;
                }
                item_id = Some(id);
            }
            Key::OutputIndex if output_index.is_none() => output_index = Some(cursor.integer()?),
            Key::ContentIndex if content_index.is_none() => content_index = Some(cursor.integer()?),
            Key::SummaryIndex if summary_index.is_none() => summary_index = Some(cursor.integer()?),
            Key::Other => cursor.skip()?,
            _ => return None,
        }
        match cursor.next()? {
            b',' => {}
            b'}' if cursor.at == data.len() => break,
            _ => return None,
        }
    }
    Some(Delta {
        output_index,
        item_id: item_id.map(Cow::Borrowed),
        part: summary_index.or(content_index).unwrap_or(0),
        delta: Cow::Borrowed(delta?),
    })
}

#[derive(Clone, Copy)]
enum Key {
    Delta,
    ItemId,
    OutputIndex,
    ContentIndex,
    SummaryIndex,
    Other,
}

struct Cursor<'a> {
    data: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.data.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Reads a key behind its opening quote, and the colon.
    fn key(&mut self) -> Option<Key> {
        let rest = &self.data.as_bytes()[self.at..];
        // Compared as wholes, by the first byte: quicker than to look for the end of each.
        let (length, key) = match rest.first()? {
            b'd' if rest.starts_with(b"delta\":") => (7, Key::Delta),
            b'i' if rest.starts_with(b"item_id\":") => (9, Key::ItemId),
            b'o' if rest.starts_with(b"output_index\":") => (14, Key::OutputIndex),
            b'o' if rest.starts_with(b"obfuscation\":") => (13, Key::Other),
            b'c' if rest.starts_with(b"content_index\":") => (15, Key::ContentIndex),
            b's' if rest.starts_with(b"sequence_number\":") => (17, Key::Other),
            b's' if rest.starts_with(b"summary_index\":") => (15, Key::SummaryIndex),
            b't' if rest.starts_with(b"type\":") => (6, Key::Other),
            b'l' if rest.starts_with(b"logprobs\":") => (10, Key::Other),
            _ => (0, Key::Other),
        };
        if length > 0 {
            self.at += length;
            return Some(key);
        }
        let length = rest
            .iter()
            .take_while(|byte| matches!(byte, b'a'..=b'z' | b'_'))
            .count();
        self.at += length;
        self.expect(b'"')?;
        self.expect(b':')?;
        Some(Key::Other)
    }

    /// Reads a string value; returns its inside, still escaped, and whether it holds escapes.
    fn string(&mut self) -> Option<(&'a str, bool)> {
        self.expect(b'"')?;
        let start = self.at;
        let mut has_escapes = false;
        let bytes = self.data.as_bytes();
        loop {
            self.at += plain_prefix(&bytes[self.at..]);
            match self.next()? {
                b'"' => return Some((&self.data[start..self.at - 1], has_escapes)),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => has_escapes = true,
                    b'u' => {
                        let digits = bytes.get(self.at..self.at + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        has_escapes = true;
                        self.at += 4;
                    }
                    _ => return None,
                },
                // A control character.
                _ => return None,
            }
        }
    }

    /// Reads a number of at most 18 digits, which no overflow can reach.
    fn integer(&mut self) -> Option<u64> {
        let digits = &self.data.as_bytes()[self.at..];
        let length = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if length == 0 || length > 18 || (digits[0] == b'0' && length > 1) {
            return None;
        }
        self.at += length;
        let digits = &digits[..length];
        Some(
            digits
                .iter()
                .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
        )
    }

    fn skip(&mut self) -> Option<()> {
        let rest = &self.data.as_bytes()[self.at..];
        match *rest.first()? {
            b'"' => self.string().map(drop),
            b'0'..=b'9' => self.integer().map(drop),
            _ => {
                let word = [&b"[]"[..], b"null", b"true", b"false"]
                    .into_iter()
                    .find(|word| rest.starts_with(word))?;
                self.at += word.len();
                Some(())
            }
        }
    }
}

/// The length of the part that holds no quote, backslash or control character.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    /// Marks the zero bytes of `word`; marks above the first one may be wrong.
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & HIGH
    }
    let mut length = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c)) | control;
        if found != 0 {
            return length + found.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    length
        + rest
            .iter()
            .take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f))
            .count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_agrees(data: &str) -> bool {
        let quick = delta(data);
        if let Some(quick) = &quick {
            assert_eq!(Some(quick), Delta::parse(data).as_ref(), "{data}");
        }
        quick.is_some()
    }

    #[test]
    fn deltas_as_upstream_writes_them_are_read_quickly() {
        for data in [
            r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hello\n\"you\" \ud83d\u00e4 ä 😀","logprobs":[],"obfuscation":"x8a","sequence_number":4}"#,
            r#"{"type":"response.reasoning_summary_text.delta","item_id":"rs_1","output_index":10,"summary_index":2,"delta":"","sequence_number":123456789012345678}"#,
            r#"{"delta":"x"}"#,
        ] {
            assert!(assert_agrees(data), "{data}");
        }
        for data in [
            "",
            "{}",
            r#"{"delta":"x"} "#,
            r#" {"delta":"x"}"#,
            r#"{"delta" :"x"}"#,
            r#"{"delta":"x","delta":"y"}"#,
            r#"{"delta":"x","output_index":01}"#,
            r#"{"delta":"x","output_index":1.5}"#,
            r#"{"delta":"x","output_index":-1}"#,
            r#"{"delta":"x","output_index":null}"#,
            r#"{"delta":"x","item_id":"a\u0062"}"#,
            r#"{"delta":"\x"}"#,
            r#"{"delta":"\u12g4"}"#,
            "{\"delta\":\"a\tb\"}",
            "{\"delta\":\"0123456789\u{1}\"}",
            r#"{"delta":"x","logprobs":[{"token":"x"}]}"#,
            r#"{"delta":"x",}"#,
            r#"{"delta":"x""#,
            r#"{"delta":5}"#,
        ] {
            assert!(!assert_agrees(data), "{data}");
        }
    }

    #[test]
    fn a_delta_that_is_cut_or_damaged_is_never_read_otherwise_than_by_the_general_parser() {
        let data = r#"{"type":"t","item_id":"msg_1","output_index":0,"content_index":0,"delta":"a\n\u00e4b","logprobs":[],"sequence_number":4}"#;
        for at in 0..data.len() {
            assert_agrees(&data[..at]);
            for damage in ["\"", "\\", "}", "0", ",", "\u{1}", "ä", "[", ":"] {
                assert_agrees(&format!("{}{damage}{}", &data[..at], &data[at..]));
                assert_agrees(&format!("{}{damage}{}", &data[..at], &data[at + 1..]));
            }
        }
    }

    proptest! {
        #[test]
        fn quick_and_general_reading_agree(
            fields in proptest::collection::vec(
                (
                    prop_oneof![
                        Just("delta"), Just("item_id"), Just("output_index"), Just("content_index"),
                        Just("summary_index"), Just("type"), Just("logprobs"), Just("x")
                    ],
                    prop_oneof![
                        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
                        any::<u64>().prop_map(|number| number.to_string()),
                        (0u64..20).prop_map(|number| number.to_string()),
                        r#"("|\\|\\u[0-9a-f]{3,4}|[a-z]|,){1,9}"#,
                        prop_oneof![Just("[]"), Just("null"), Just("true"), Just("{}"), Just("-1"), Just("1e3")]
                            .prop_map(str::to_owned),
                    ],
                ),
                0..6,
            ),
        ) {
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            assert_agrees(&format!("{{{}}}", fields.join(",")));
        }

        #[test]
        fn the_plain_prefix_ends_at_the_first_special_byte(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let slow = bytes.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            prop_assert_eq!(plain_prefix(&bytes), slow);
        }
    }
}
