//! Which conversation a request belongs to: the key of upstream's prompt cache.

use http::HeaderMap;
use sha2::{Digest as _, Sha256};

/// The client's session, told by the client or made up from what stays the same from turn to turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Becomes `prompt_cache_key` and the session headers: a UUID, at most 64 characters.
    pub key: String,
    /// The subagent within the session; empty for the main conversation.
    pub agent: String,
}

const LONGEST_KEY: usize = 64;

impl Conversation {
    /// Reads the conversation from the headers, else from `session_id` of the body's metadata, else
    /// derives a key from `first` (the conversation's beginning).
    pub fn of(headers: &HeaderMap, session_id: Option<&str>, first: &[u8]) -> Self {
        let header = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .filter(|value| is_key(value))
        };
        let key = header("x-claude-code-session-id")
            .or(session_id.filter(|id| is_key(id)))
            .map_or_else(|| derived(first), str::to_owned);
        Self {
            key,
            agent: header("x-claude-code-agent-id")
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// It goes into upstream headers: short, printable, no surprises.
fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_KEY
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Returns a UUID made from a digest (version 8, RFC 9562: vendor-specific).
fn derived(first: &[u8]) -> String {
    let digest = Sha256::digest(first);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_wins_then_the_body_then_a_digest() {
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap, body| Conversation::of(headers, body, b"hello").key;
        let made = of(&headers, None);
        assert_eq!(made.len(), 36);
        assert_eq!(made, of(&headers, None));
        assert_ne!(made, Conversation::of(&headers, None, b"other").key);
        assert_eq!(of(&headers, Some("from-body")), "from-body");
        assert_eq!(of(&headers, Some("a\r\nb")), made);
        headers.insert("x-claude-code-session-id", "from-header".parse().unwrap());
        headers.insert("x-claude-code-agent-id", "a01".parse().unwrap());
        assert_eq!(
            Conversation::of(&headers, Some("from-body"), b""),
            Conversation {
                key: "from-header".into(),
                agent: "a01".into()
            }
        );
    }
}
