//! Name-value pairs as a query string or a form body carries them.
//!
//! Knows no names and no meaning. Source: WHATWG URL, "application/x-www-form-urlencoded"; RFC 3986, section 2.3.

/// Writes `pairs` in their order. A space becomes `%20`, which every reader of either kind understands.
pub fn encode(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        escape(name, &mut text);
        text.push('=');
        escape(value, &mut text);
    }
    text
}

/// Returns the value of the first pair called `name`, decoded; bytes that are no UTF-8 are replaced.
pub fn value(pairs: &str, name: &str) -> Option<String> {
    pairs.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key) == name).then(|| unescape(value))
    })
}

fn escape(text: &str, out: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        }
    }
}

fn unescape(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match bytes[at] {
            b'%' => digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2))),
            _ => None,
        };
        match (escaped, bytes[at]) {
            (Some((high, low)), _) => {
                // Two digits of four bits each.
                out.push((high << 4 | low) as u8);
                at += 2;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_read() {
        for (pairs, name, expected) in [
            ("code=a&state=b", "state", Some("b")),
            ("code=a+b%20c%2B", "code", Some("a b c+")),
            ("code=a&code=b", "code", Some("a")),
            ("co%64e=a", "code", Some("a")),
            ("code", "code", Some("")),
            ("code=%", "code", Some("%")),
            ("code=%zz%4", "code", Some("%zz%4")),
            ("code=%ff", "code", Some("\u{fffd}")),
            ("code=a=b", "code", Some("a=b")),
            ("xcode=a", "code", None),
            ("", "code", None),
        ] {
            assert_eq!(value(pairs, name).as_deref(), expected, "{pairs}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(name in "[a-z]{1,8}", text in ".{0,64}") {
            let pairs = encode(&[("0", "x"), (&name, &text)]);
            prop_assert!(pairs.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(value(&pairs, &name), Some(text));
        }
    }
}
