//! A pull reader over JSON text: values are visited where they lie and carried as they were written.
//!
//! A request is mostly text that goes from one format into the other unchanged. This reader visits
//! every byte once, hands out strings still escaped ([`Text`]) and whole values still raw ([`Raw`]),
//! and says *where* in the document something was wrong. It takes exactly the documents that
//! `serde_json` takes, with the same limit on depth; a property test holds it to that.
//!
//! It does not know what any field means.

use std::borrow::Cow;
use std::fmt;

/// Values nested deeper than this are refused, so that no document can exhaust the stack.
const DEPTH_LIMIT: u8 = 127;

/// A JSON string as it was written: still escaped, without its quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<'a> {
    escaped: &'a str,
    plain: bool,
    broken: bool,
}

/// Any JSON value as it was written, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    text: &'a str,
    broken: bool,
}

/// A value that outlives the document it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    text: String,
    broken: bool,
}

impl Kept {
    /// Returns the value.
    pub fn raw(&self) -> Raw<'_> {
        Raw {
            text: &self.text,
            broken: self.broken,
        }
    }
}

impl From<Raw<'_>> for Kept {
    fn from(raw: Raw<'_>) -> Self {
        Self {
            text: raw.text.to_owned(),
            broken: raw.broken,
        }
    }
}

/// What kind of value a document holds at some point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An array.
    List,
    /// An object.
    Object,
}

/// Why a document could not be read, and where. Its `Display` is fit to be shown to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Path of keys and indices, joined by dots; empty at the top.
    place: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    /// The text is not JSON from this byte on.
    Syntax {
        offset: usize,
        expected: &'static str,
    },
    /// Nested deeper than [`DEPTH_LIMIT`].
    TooDeep,
    /// Not UTF-8 from this byte on.
    NotUtf8 { offset: usize },
    /// JSON, but another kind of value than the field takes.
    Expected(&'static str),
    /// A field that has to be there is not.
    Missing,
}

impl ParseError {
    /// Says that the value read is not `what` the field takes.
    pub fn expected(what: &'static str) -> Self {
        Self::new(Problem::Expected(what))
    }

    /// Says that `field` has to be there.
    pub fn missing(field: &str) -> Self {
        Self::new(Problem::Missing).within(field)
    }

    /// Adds the key or index, under which the value was found, in front of the place.
    #[must_use]
    pub fn within(mut self, step: impl fmt::Display) -> Self {
        self.place = if self.place.is_empty() {
            step.to_string()
        } else {
            format!("{step}.{}", self.place)
        };
        self
    }

    /// Returns the byte of the document from which on it is no JSON; `None` if it is JSON, but not what was wanted.
    pub const fn offset(&self) -> Option<usize> {
        match self.problem {
            Problem::Syntax { offset, .. } | Problem::NotUtf8 { offset } => Some(offset),
            Problem::TooDeep | Problem::Expected(_) | Problem::Missing => None,
        }
    }

    fn new(problem: Problem) -> Self {
        Self {
            place: String::new(),
            problem,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        match &self.problem {
            Problem::Syntax { offset, expected } => {
                write!(f, "invalid JSON at byte {offset}: expected {expected}")
            }
            Problem::TooDeep => write!(f, "nested too deeply"),
            Problem::NotUtf8 { offset } => write!(f, "invalid UTF-8 at byte {offset}"),
            Problem::Expected(what) => write!(f, "expected {what}"),
            Problem::Missing => write!(f, "field is required"),
        }
    }
}

impl std::error::Error for ParseError {}

impl<'a> Text<'a> {
    /// Returns the string as it stands between its quotes.
    pub const fn escaped(&self) -> &'a str {
        self.escaped
    }

    /// Makes a string of our own `words`, which hold nothing that JSON escapes.
    pub const fn plain(words: &'a str) -> Self {
        Self {
            escaped: words,
            plain: true,
            broken: false,
        }
    }

    /// Returns the beginning of the string, of at most `bytes` bytes as it was written, cut between characters.
    #[must_use]
    pub fn head(&self, bytes: usize) -> Self {
        let mut end = 0;
        while end < self.escaped.len() {
            let rest = &self.escaped.as_bytes()[end..];
            let step = match rest[0] {
                b'\\' => escape(rest).map_or(rest.len(), |(used, _)| used),
                _ => memchr::memchr(b'\\', rest)
                    .unwrap_or(rest.len())
                    .min(self.escaped.floor_char_boundary(bytes.max(end)) - end),
            };
            if step == 0 || end + step > bytes {
                break;
            }
            end += step;
        }
        Self {
            escaped: &self.escaped[..end],
            plain: self.plain,
            broken: self.broken,
        }
    }

    /// Says whether the string is empty.
    pub const fn is_empty(&self) -> bool {
        self.escaped.is_empty()
    }

    /// Says whether it holds an escaped half of a surrogate pair, which is no character.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Returns what the string says. Halves of surrogate pairs become U+FFFD.
    pub fn value(&self) -> Cow<'a, str> {
        if self.plain {
            return Cow::Borrowed(self.escaped);
        }
        let mut value = String::with_capacity(self.escaped.len());
        self.for_each_part(|part| value.push_str(part));
        Cow::Owned(value)
    }

    /// Hands out what the string says part by part, in order: as in [`Text::value`], but nothing is gathered.
    pub fn for_each_part(&self, mut each: impl FnMut(&str)) {
        let mut rest = self.escaped;
        while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()).filter(|_| !self.plain) {
            each(&rest[..at]);
            let escape = &rest[at + 1..];
            let (character, used) = match escape.as_bytes()[0] {
                b'u' => unicode_escape(escape),
                b'b' => ('\u{8}', 1),
                b'f' => ('\u{c}', 1),
                b'n' => ('\n', 1),
                b'r' => ('\r', 1),
                b't' => ('\t', 1),
                other => (char::from(other), 1),
            };
            each(character.encode_utf8(&mut [0; 4]));
            rest = &escape[used..];
        }
        each(rest);
    }
}

/// Reads `uXXXX`, or `uXXXX\uXXXX` of a pair: the character and the bytes used.
fn unicode_escape(escape: &str) -> (char, usize) {
    let unit = |text: &str| u32::from_str_radix(text, 16).unwrap_or(0xFFFD);
    let first = unit(&escape[1..5]);
    if let Some(character) = char::from_u32(first) {
        return (character, 5);
    }
    let second = escape[5..]
        .strip_prefix("\\u")
        .and_then(|rest| rest.get(..4))
        .map_or(0, unit);
    if first < 0xDC00 && (0xDC00..0xE000).contains(&second) {
        let pair = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        (char::from_u32(pair).unwrap_or('\u{FFFD}'), 11)
    } else {
        ('\u{FFFD}', 5)
    }
}

impl<'a> Raw<'a> {
    /// Makes a value of JSON of our own.
    pub const fn known(text: &'a str) -> Self {
        Self {
            text,
            broken: false,
        }
    }

    /// Returns the value as it was written.
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// Says whether a string inside holds half of a surrogate pair.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Returns the kind of the value.
    pub fn kind(&self) -> Kind {
        match self.text.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::List,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// Returns the value if it is a string.
    pub fn as_text(&self) -> Option<Text<'a>> {
        (self.kind() == Kind::Text)
            .then(|| self.reader().string().ok())
            .flatten()
    }

    /// Starts to read the value.
    pub const fn reader(&self) -> Reader<'a> {
        Reader {
            text: self.text,
            at: 0,
            depth: 0,
            broken: false,
        }
    }
}

/// Reads one JSON document, value by value. See the module.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
    /// Whether a string with half of a surrogate pair was passed.
    broken: bool,
}

type Outcome<T> = Result<T, ParseError>;

impl<'a> Reader<'a> {
    /// Starts to read `bytes`. Fails if they are not UTF-8.
    pub fn new(bytes: &'a [u8]) -> Outcome<Self> {
        let text = simdutf8::compat::from_utf8(bytes).map_err(|error| {
            ParseError::new(Problem::NotUtf8 {
                offset: error.valid_up_to(),
            })
        })?;
        Ok(Self {
            text,
            at: 0,
            depth: 0,
            broken: false,
        })
    }

    /// Returns how many bytes were read.
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// Says what kind of value comes next.
    pub fn kind(&mut self) -> Outcome<Kind> {
        Ok(match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::List,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => return Err(self.syntax("a value")),
        })
    }

    /// Reads a string. Any other value is an error, but leaves the reader behind that value.
    pub fn string(&mut self) -> Outcome<Text<'a>> {
        match self.kind()? {
            Kind::Text => self.quoted(),
            _ => self.refuse("a string"),
        }
    }

    /// Reads `true` or `false`.
    pub fn bool(&mut self) -> Outcome<bool> {
        match self.kind()? {
            Kind::Bool => Ok(self.raw()?.text == "true"),
            _ => self.refuse("true or false"),
        }
    }

    /// Reads any value and returns it as it was written.
    pub fn raw(&mut self) -> Outcome<Raw<'a>> {
        self.kind()?;
        let start = self.at;
        let before = std::mem::replace(&mut self.broken, false);
        self.skip()?;
        let broken = self.broken;
        self.broken |= before;
        Ok(Raw {
            text: &self.text[start..self.at],
            broken,
        })
    }

    /// Passes the next value without looking into it, if it is written like `known`: an object or a list that was read
    /// as a whole before, at the same depth. `None`, and nothing is passed, if it is another.
    pub fn known(&mut self, known: Raw<'_>) -> Option<Raw<'a>> {
        if !matches!(known.kind(), Kind::Object | Kind::List) {
            return None;
        }
        self.kind().ok()?;
        // It ends where its bracket closes, whatever follows: what begins like it is it.
        let rest = &self.text[self.at..];
        let text = rest
            .starts_with(known.text)
            .then(|| &rest[..known.text.len()])?;
        self.at += text.len();
        self.broken |= known.broken;
        Some(Raw {
            text,
            broken: known.broken,
        })
    }

    /// Visits the fields of an object; `each` has to read the value of the key it is given.
    /// Errors get the key put in front.
    pub fn object(&mut self, mut each: impl FnMut(&mut Self, &str) -> Outcome<()>) -> Outcome<()> {
        if self.kind()? != Kind::Object {
            return self.refuse("an object");
        }
        self.fields(|reader, key| {
            let key = key.value();
            each(reader, &key).map_err(|error| error.within(&key))
        })
    }

    /// Visits the fields of an object, keys as they were written.
    pub fn raw_object(
        &mut self,
        each: impl FnMut(&mut Self, Text<'a>) -> Outcome<()>,
    ) -> Outcome<()> {
        if self.kind()? != Kind::Object {
            return self.refuse("an object");
        }
        self.fields(each)
    }

    /// Visits the elements of an array; `each` has to read them. Errors get the index put in front.
    pub fn list(&mut self, mut each: impl FnMut(&mut Self) -> Outcome<()>) -> Outcome<()> {
        if self.kind()? != Kind::List {
            return self.refuse("an array");
        }
        let mut index = 0usize;
        self.elements(|reader| {
            each(reader).map_err(|error| error.within(index))?;
            index += 1;
            Ok(())
        })
    }

    /// Makes sure that nothing but white space is left.
    pub fn end(&mut self) -> Outcome<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.syntax("the end")),
        }
    }

    fn refuse<T>(&mut self, what: &'static str) -> Outcome<T> {
        self.skip()?;
        Err(ParseError::expected(what))
    }

    fn skip(&mut self) -> Outcome<()> {
        match self.kind()? {
            Kind::Object => self.fields(|reader, _| reader.skip()),
            Kind::List => self.elements(Self::skip),
            Kind::Text => self.quoted().map(drop),
            Kind::Number => self.number(),
            Kind::Null => self.word("null"),
            Kind::Bool if self.peek() == Some(b't') => self.word("true"),
            Kind::Bool => self.word("false"),
        }
    }

    fn fields(&mut self, mut each: impl FnMut(&mut Self, Text<'a>) -> Outcome<()>) -> Outcome<()> {
        self.enter()?;
        if self.peek() == Some(b'}') {
            return self.leave();
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax("a key"));
            }
            let key = self.quoted()?;
            if self.peek() != Some(b':') {
                return Err(self.syntax("`:`"));
            }
            self.at += 1;
            each(self, key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.leave(),
                _ => return Err(self.syntax("`,` or `}`")),
            }
        }
    }

    fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Outcome<()>) -> Outcome<()> {
        self.enter()?;
        if self.peek() == Some(b']') {
            return self.leave();
        }
        loop {
            each(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.leave(),
                _ => return Err(self.syntax("`,` or `]`")),
            }
        }
    }

    fn enter(&mut self) -> Outcome<()> {
        if self.depth == DEPTH_LIMIT {
            return Err(ParseError::new(Problem::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self) -> Outcome<()> {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    /// Passes white space and returns the byte that follows.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn word(&mut self, word: &'static str) -> Outcome<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.syntax(word));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Outcome<()> {
        let bytes = self.text.as_bytes();
        let digits = |from: usize| {
            bytes[from..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count()
        };
        let mut at = self.at;
        if bytes[at] == b'-' {
            at += 1;
        }
        let whole = digits(at);
        let leading_zero = whole > 1 && bytes[at] == b'0';
        at += whole;
        let mut right = whole > 0 && !leading_zero;
        if right && bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            at += 1 + fraction;
            right = fraction > 0;
        }
        if right && matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(bytes.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            let exponent = digits(at);
            at += exponent;
            right = exponent > 0;
        }
        self.at = at;
        if right {
            Ok(())
        } else {
            Err(self.syntax("a number"))
        }
    }

    /// Reads the string whose opening quote is next.
    fn quoted(&mut self) -> Outcome<Text<'a>> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut plain = true;
        let mut broken = false;
        loop {
            at += plain_length(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    let Some((used, lone)) = escape(&bytes[at..]) else {
                        self.at = at;
                        return Err(self.syntax("an escape"));
                    };
                    at += used;
                    broken |= lone;
                }
                Some(_) => {
                    self.at = at;
                    return Err(self.syntax("a string without control characters"));
                }
                None => {
                    self.at = at;
                    return Err(self.syntax("`\"`"));
                }
            }
        }
        self.at = at + 1;
        self.broken |= broken;
        Ok(Text {
            escaped: &self.text[start..at],
            plain,
            broken,
        })
    }

    fn syntax(&self, expected: &'static str) -> ParseError {
        ParseError::new(Problem::Syntax {
            offset: self.at,
            expected,
        })
    }
}

/// Returns how many bytes come before the first quote, backslash or control character.
///
/// Escapes stand every few bytes in source text, and never in base64: eight bytes at a time for
/// the former, then vectors for the latter.
fn plain_length(bytes: &[u8]) -> usize {
    const NEAR: usize = 64;
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk().filter(|_| at < NEAR) {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let end = memchr::memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len(), |found| at + found);
    // Folded without an early exit so that it becomes vector code.
    let has_control = bytes[at..end]
        .iter()
        .fold(false, |found, byte| found | (*byte < 0x20));
    if has_control {
        at + bytes[at..end]
            .iter()
            .take_while(|byte| **byte >= 0x20)
            .count()
    } else {
        end
    }
}

/// Marks, in the highest bit of each byte, where `word` holds a quote, a backslash or a control
/// character. Only the lowest mark is exact.
const fn stops(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGH: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let found = (quote.wrapping_sub(ONES) & !quote)
        | (backslash.wrapping_sub(ONES) & !backslash)
        | (word.wrapping_sub(ONES * 0x20) & !word);
    found & HIGH
}

/// Reads the escape that `bytes` begin with: its length, and whether it is half of a surrogate
/// pair. `None` if it is no escape.
fn escape(bytes: &[u8]) -> Option<(usize, bool)> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some((2, false)),
        b'u' => {
            let unit = hexadecimal(bytes.get(2..6)?)?;
            match unit {
                0xD800..0xDC00 => {
                    let pair = bytes
                        .get(6..12)
                        .filter(|next| next.starts_with(b"\\u"))
                        .and_then(|next| hexadecimal(&next[2..]))
                        .is_some_and(|second| (0xDC00..0xE000).contains(&second));
                    Some(if pair { (12, false) } else { (6, true) })
                }
                0xDC00..0xE000 => Some((6, true)),
                _ => Some((6, false)),
            }
        }
        _ => None,
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        Some(value * 16 + char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn read(document: &[u8]) -> Outcome<Raw<'_>> {
        let mut reader = Reader::new(document)?;
        let raw = reader.raw()?;
        reader.end()?;
        Ok(raw)
    }

    #[test]
    fn it_takes_what_serde_json_takes() {
        let documents = [
            "{}",
            " [ ] ",
            "[1,-0,0.5,1e3,1E-2,-1.5e+10]",
            r#"{"a":{"b":[null,true,false,"x"]},"a":1}"#,
            r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#,
            "",
            "{",
            "[1,]",
            "[,1]",
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{a:1}"#,
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "+1",
            "nul",
            "truefalse",
            "{} {}",
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            "\"",
            r#""\"#,
            "// c\n1",
        ];
        for document in documents {
            assert_eq!(
                read(document.as_bytes()).is_ok(),
                serde_json::from_str::<Value>(document).is_ok(),
                "{document}"
            );
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        let syntax = |document: &[u8]| read(document).unwrap_err().to_string();
        assert_eq!(
            syntax(br#"{"a":[1,2"#),
            "invalid JSON at byte 9: expected `,` or `]`"
        );
        assert_eq!(syntax(b"\"a\xff\""), "invalid UTF-8 at byte 2");
        let error = ParseError::expected("a string")
            .within("text")
            .within(0)
            .within("content");
        assert_eq!(error.to_string(), "content.0.text: expected a string");
        assert_eq!(
            ParseError::missing("model").to_string(),
            "model: field is required"
        );
    }

    #[test]
    fn no_depth_exhausts_the_stack() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested =
                |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
            assert!(read(nested(127).as_bytes()).is_ok());
            assert_eq!(
                read(nested(128).as_bytes()).unwrap_err().to_string(),
                "nested too deeply"
            );
            assert!(read(nested(1_000_000).as_bytes()).is_err());
            assert_eq!(
                serde_json::from_str::<Value>(&nested(128)).is_ok(),
                read(nested(128).as_bytes()).is_ok()
            );
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_are_noticed_and_replaced() {
        let cases = [
            (r#""\ud83d\ude00""#, false, "😀"),
            (r#""\ud83d""#, true, "\u{FFFD}"),
            (r#""\ude00\ud83d""#, true, "\u{FFFD}\u{FFFD}"),
            (r#""\ud83dx\ud83d\ude00""#, true, "\u{FFFD}x😀"),
            (r#""\\ud83d""#, false, r"\ud83d"),
        ];
        for (document, is_broken, value) in cases {
            let raw = read(document.as_bytes()).unwrap();
            assert_eq!(raw.is_broken(), is_broken, "{document}");
            let text = raw.as_text().unwrap();
            assert_eq!(text.is_broken(), is_broken, "{document}");
            assert_eq!(text.value(), value, "{document}");
        }
        let mut reader = Reader::new(br#"["\ud83d","ok"]"#).unwrap();
        let mut broken = Vec::new();
        reader
            .list(|reader| {
                broken.push(reader.raw()?.is_broken());
                Ok(())
            })
            .unwrap();
        assert_eq!(broken, [true, false]);
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("\\PC{0,6}", inner), 0..6).prop_map(|fields| fields
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
            ]
        })
    }

    #[test]
    fn plain_bytes_are_counted_up_to_the_first_that_is_not() {
        for length in 0..200 {
            for stop in [b'"', b'\\', 0, 0x1f, b'\n'] {
                let mut bytes = "aé\u{7f} ".repeat(50).into_bytes();
                bytes.truncate(length);
                assert_eq!(plain_length(&bytes), length);
                bytes.extend_from_slice(&[stop, b'x', 0, b'"']);
                assert_eq!(plain_length(&bytes), length, "{stop}");
            }
        }
    }

    proptest! {
        #[test]
        fn documents_are_carried_byte_by_byte(value in document(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            prop_assert_eq!(read(text.as_bytes()).unwrap().text(), &text);
            if let Some(string) = value.as_str() {
                prop_assert_eq!(read(text.as_bytes()).unwrap().as_text().unwrap().value(), string);
            }
        }

        #[test]
        fn damaged_documents_are_taken_or_refused_as_by_serde_json(
            value in document(), at: prop::sample::Index, byte: u8,
        ) {
            let mut bytes = value.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let ours = read(&bytes);
            let theirs = serde_json::from_slice::<&serde_json::value::RawValue>(&bytes);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        }
    }
}
