//! Takes out of a text what must not leave the machine: known secrets by value, others by their name or their form, and
//! long runs of base64. Pure.
//!
//! Works on text, not on JSON: a stream of events, a request and a nested string are treated alike, and JSON stays JSON.
//! What a model writes piece by piece, so that a secret is cut in two, is not found.

use crate::secret::Secret;

/// Shorter values are no secrets but words.
const SHORTEST_VALUE: usize = 6;

/// A run of base64 that is longer is data: a picture, a file, sealed reasoning.
const LONGEST_RUN: usize = 256;

/// The values of these are left out, whatever they are.
const NAMES: &[&str] = &[
    "access_token",
    "account_id",
    "account_uuid",
    "api_key",
    "apikey",
    "authorization",
    "chatgpt-account-id",
    "chatgpt_account_id",
    "chatgpt_user_id",
    "client_secret",
    "code_verifier",
    "cookie",
    "device_id",
    "email",
    "encrypted_content",
    "id_token",
    "organization_uuid",
    "password",
    "refresh_token",
    "safety_identifier",
    "secret",
    "session_token",
    "set-cookie",
    "signature",
    "token",
    "user_id",
    "x-api-key",
];

/// What stands in the place of a value that a name gives away.
const LEFT_OUT: &str = "(left out)";

/// Knows secrets by their values.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    /// The longest first: one may be a part of another.
    values: Vec<(Secret<String>, &'static str)>,
}

impl Redactor {
    /// Makes one that knows `values` and what to say instead of each.
    pub fn new(values: impl IntoIterator<Item = (String, &'static str)>) -> Self {
        let values = values.into_iter();
        let mut values: Vec<_> = values
            .filter(|(value, _)| value.len() >= SHORTEST_VALUE)
            .map(|(value, word)| (Secret::new(value), word))
            .collect();
        values.sort_by_key(|(value, _)| std::cmp::Reverse(value.expose().len()));
        Self { values }
    }

    /// Returns `text` without what is secret in it.
    pub fn clean(&self, text: &str) -> String {
        let mut clean = by_form(text);
        for (value, word) in &self.values {
            if clean.contains(value.expose().as_str()) {
                clean = clean.replace(value.expose().as_str(), word);
            }
        }
        clean
    }
}

const fn is_run(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_' | b'-' | b'=')
}

const fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-')
}

const fn is_domain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')
}

fn by_form(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    // What was not copied yet begins here.
    let mut from = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'"' {
            if let Some((begin, end)) = named_value(bytes, at) {
                out.push_str(&text[from..begin]);
                out.push_str(LEFT_OUT);
                (from, at) = (end, end);
                continue;
            }
        } else if byte == b'@' {
            if let Some((begin, end)) = address(bytes, from, at) {
                out.push_str(&text[from..begin]);
                out.push_str("(e-mail)");
                (from, at) = (end, end);
                continue;
            }
        } else if is_run(byte) {
            let length = bytes[at..].iter().take_while(|byte| is_run(**byte)).count();
            let run = &text[at..at + length];
            if let Some((length, word)) = of_run(bytes, at, run) {
                out.push_str(&text[from..at]);
                out.push_str(&word);
                at += length;
                from = at;
            } else {
                at += length;
            }
            continue;
        }
        at += 1;
    }
    out.push_str(&text[from..]);
    out
}

/// What a run of letters is by its form, and how much of the text belongs to it.
fn of_run(bytes: &[u8], at: usize, run: &str) -> Option<(usize, String)> {
    if run.starts_with("eyJ") && run.len() >= 16 && bytes.get(at + run.len()) == Some(&b'.') {
        let is_token = |byte: &&u8| is_run(**byte) || **byte == b'.';
        let whole = bytes[at..].iter().take_while(is_token).count();
        return Some((whole, "(token)".to_owned()));
    }
    if run.starts_with("sk-") && run.len() >= 16 {
        return Some((run.len(), "(key)".to_owned()));
    }
    if bytes[..at].ends_with(b"Bearer ") && run.len() >= 8 {
        return Some((run.len(), "(token)".to_owned()));
    }
    let is_data = run.len() >= LONGEST_RUN;
    is_data.then(|| (run.len(), format!("({} letters left out)", run.len())))
}

/// Finds the value behind a name that ends with the quote at `at`: where it begins and ends.
fn named_value(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let back = |mut end: usize, is_part: fn(u8) -> bool| {
        while end > 0 && is_part(bytes[end - 1]) {
            end -= 1;
        }
        end
    };
    let name_end = back(at, |byte| byte == b'\\');
    let name_begin = back(name_end, |byte| {
        byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-')
    });
    if name_begin == 0 || bytes[name_begin - 1] != b'"' {
        return None;
    }
    let name = &bytes[name_begin..name_end];
    if !NAMES
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    {
        return None;
    }
    let spaces = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let colon = spaces(at + 1);
    if bytes.get(colon) != Some(&b':') {
        return None;
    }
    // In a string within a string, quotes have backslashes before them: as many at the end as at the beginning.
    let open = spaces(colon + 1);
    let depth = bytes[open..]
        .iter()
        .take_while(|byte| **byte == b'\\')
        .count();
    if bytes.get(open + depth) != Some(&b'"') {
        return None;
    }
    let begin = open + depth + 1;
    let mut end = begin;
    loop {
        if *bytes.get(end)? == b'"' {
            let slashes = end - back(end, |byte| byte == b'\\').max(begin);
            // Each level of strings doubles those that are text; what is left over belongs to the quote.
            if slashes < depth || slashes % (2 * (depth + 1)) == depth {
                return Some((begin, end - slashes.min(depth)));
            }
        }
        end += 1;
    }
}

/// Finds the address around the `@` at `at`, no further back than `from`.
fn address(bytes: &[u8], from: usize, at: usize) -> Option<(usize, usize)> {
    let local = bytes[from..at]
        .iter()
        .rev()
        .take_while(|byte| is_local(**byte))
        .count();
    let mut begin = at - local;
    // The first letter may belong to an escape: `\n`.
    if begin > from && bytes[begin - 1] == b'\\' && local > 0 {
        begin += 1;
    }
    let domain = bytes[at + 1..]
        .iter()
        .take_while(|byte| is_domain(**byte))
        .count();
    let domain = &bytes[at + 1..at + 1 + domain];
    let length = domain
        .iter()
        .rposition(|byte| byte.is_ascii_alphanumeric())?
        + 1;
    let last_dot = domain[..length].iter().rposition(|byte| *byte == b'.')?;
    let top = &domain[last_dot + 1..length];
    let is_top = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
    (begin < at && is_top && last_dot > 0).then_some((begin, at + 1 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> String {
        let values = [
            ("account-4711".to_owned(), "(account)"),
            ("short".to_owned(), "(never)"),
            ("account-4711-and-more".to_owned(), "(other)"),
        ];
        Redactor::new(values).clean(text)
    }

    #[test]
    fn secrets_go_by_value_name_and_form() {
        // [J04]
        for (text, wanted) in [
            (
                "nothing secret: a/b, x=1 & c",
                "nothing secret: a/b, x=1 & c",
            ),
            ("a short account-4711!", "a short (account)!"),
            ("account-4711-and-more", "(other)"),
            (
                r#"{"access_token":"abc","x":"y"}"#,
                r#"{"access_token":"(left out)","x":"y"}"#,
            ),
            (
                r#"{"Authorization" : "a\"b", "x":1}"#,
                r#"{"Authorization" : "(left out)", "x":1}"#,
            ),
            (
                r#"{"token":null,"email":"" }"#,
                r#"{"token":null,"email":"(left out)" }"#,
            ),
            (
                r#""{\"user_id\":\"u-1\",\"a\":\"b\"}""#,
                r#""{\"user_id\":\"(left out)\",\"a\":\"b\"}""#,
            ),
            (
                r#"{"secret":"a\\","b":"c"}"#,
                r#"{"secret":"(left out)","b":"c"}"#,
            ),
            (
                r#""{\"secret\":\"a\\\"b\\\\\",\"a\":\"b\"}""#,
                r#""{\"secret\":\"(left out)\",\"a\":\"b\"}""#,
            ),
            ("Bearer abcdefghij.", "Bearer (token)."),
            ("sk-abcdefghijklmnop and sk-ip", "(key) and sk-ip"),
            (
                "x eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln y",
                "x (token) y",
            ),
            ("ask ada@example.org.", "ask (e-mail)."),
            (r#""to\nada.b+c@mail.example.co.uk""#, r#""to\n(e-mail)""#),
            (
                "git@host and @decorator and a@b.1",
                "git@host and @decorator and a@b.1",
            ),
            ("a@b.de,c@d.org", "(e-mail),(e-mail)"),
            ("\u{e4}@x.org \u{1f600}", "\u{e4}@x.org \u{1f600}"),
        ] {
            assert_eq!(clean(text), wanted, "{text}");
        }
    }

    #[test]
    fn pictures_and_sealed_reasoning_become_their_length() {
        // [J05]
        let data = "iVBORw0KGgo".repeat(100);
        let text = format!(r#"{{"data":"{data}","n":1}}"#);
        assert_eq!(clean(&text), r#"{"data":"(1100 letters left out)","n":1}"#);
    }

    #[test]
    fn json_stays_json_wherever_it_is_cut() {
        let text = r#"{"secret":"a\\","email":"ada@b.org","signature":"x","t":"Bearer abcdefgh \" \n c@d.de"}"#;
        let cleaned = clean(text);
        serde_json::from_str::<serde_json::Value>(&cleaned).expect(&cleaned);
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            clean(&text[..end]);
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let redactor = Redactor::new([("hidden-value".to_owned(), "x")]);
        assert!(!format!("{redactor:?}").contains("hidden-value"));
    }
}
