//! Which conversation a request belongs to: the key of upstream's prompt cache.

use http::HeaderMap;
use sha2::{Digest as _, Sha256};

use crate::proxy::class::RequestClass;
use crate::wire::blocks::{Block, Content};
use crate::wire::messages::Request;

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
    /// Reads the conversation from the headers, else from the request's metadata, else derives a key from the texts
    /// of the first message, which stay the same however long the conversation grows.
    pub fn of(headers: &HeaderMap, request: &Request<'_>) -> Self {
        let session_id = request.session_id();
        let session_id = session_id.as_deref();
        let header = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .filter(|value| is_key(value))
        };
        let key = header("x-claude-code-session-id")
            .or(session_id.filter(|id| is_key(id)))
            .map_or_else(|| derived(request), str::to_owned);
        Self {
            key,
            agent: header("x-claude-code-agent-id")
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

impl Conversation {
    /// Reads the conversation of a client that speaks upstream's own API: from the headers that upstream's client sends,
    /// else from the key of the prompt cache, else from `beginning`, which stays the same from turn to turn.
    pub fn native(headers: &HeaderMap, cache_key: Option<&str>, beginning: &[&str]) -> Self {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let known = header("session-id").or(header("session_id")).or(cache_key);
        let key = known.filter(|key| is_key(key)).map(str::to_owned);
        let key = key.unwrap_or_else(|| {
            let mut digest = Sha256::new();
            for text in beginning {
                digest.update(text);
                digest.update([0]);
            }
            uuid(&digest.finalize())
        });
        Self {
            key,
            agent: String::new(),
        }
    }
}

/// Returns the key of calls of `class` beside the conversation `key`: a cache of their own, and no trace in the
/// conversation's.
pub fn beside(key: &str, class: RequestClass) -> String {
    let mut digest = Sha256::new();
    digest.update(key);
    digest.update([0]);
    digest.update(class.name());
    uuid(&digest.finalize())
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
fn derived(request: &Request<'_>) -> String {
    let mut digest = Sha256::new();
    match request.messages.first().map(|first| &first.content) {
        None => {}
        Some(Content::Text(text)) => digest.update(text.escaped()),
        Some(Content::Blocks(blocks)) => {
            for block in blocks {
                if let Block::Text(text) = block {
                    digest.update(text.escaped());
                }
            }
        }
    }
    uuid(&digest.finalize())
}

fn uuid(digest: &[u8]) -> String {
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
        let conversation = |headers: &HeaderMap, messages: &str, user: &str| {
            let user_id = serde_json::json!(format!("user__session_{user}"));
            let body = format!(
                r#"{{"model":"m","metadata":{{"user_id":{user_id}}},"messages":[{messages}]}}"#
            );
            Conversation::of(headers, &Request::parse(body.as_bytes()).unwrap())
        };
        let hello = r#"{"role":"user","content":"hello"}"#;
        let of = |headers: &HeaderMap, user: &str| conversation(headers, hello, user).key;
        let made = of(&headers, "");
        assert_eq!(made.len(), 36);
        for (messages, is_same) in [
            (hello, true),
            (
                r#"{"role":"user","content":[{"type":"text","text":"hello"}]}"#,
                true,
            ),
            (
                r#"{"role":"user","content":"hello"},{"role":"assistant","content":"x"}"#,
                true,
            ),
            (r#"{"role":"user","content":"other"}"#, false),
        ] {
            let key = conversation(&headers, messages, "").key;
            assert_eq!(key == made, is_same, "{messages}");
        }
        assert_eq!(of(&headers, "from-body"), "from-body");
        assert_eq!(of(&headers, "a\r\nb"), made);
        headers.insert("x-claude-code-session-id", "from-header".parse().unwrap());
        headers.insert("x-claude-code-agent-id", "a01".parse().unwrap());
        assert_eq!(
            conversation(&headers, hello, "from-body"),
            Conversation {
                key: "from-header".into(),
                agent: "a01".into()
            }
        );
    }
}
