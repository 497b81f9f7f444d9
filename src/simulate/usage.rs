//! Token counts: the same request counts the same, and a cached prefix shows as such.
//!
//! Four bytes are a token here. The cache works as upstream's does in the eyes of a client: what
//! counts is a byte-identical prefix shared with an earlier request of the same model and
//! `prompt_cache_key`, in steps of 128 tokens. It stores digests, not texts.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};

use serde_json::{Value, json};

/// Bytes of a token.
const TOKEN_BYTES: usize = 4;

/// Tokens of a cache block.
pub const BLOCK_TOKENS: usize = 128;

/// Conversations that are remembered, and requests of each: a session has its main thread, its
/// title, some subagents.
const CONVERSATIONS: usize = 64;
const REQUESTS: usize = 8;

/// The counts of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All of the input.
    pub input: usize,
    /// Of these, found in the cache.
    pub cached: usize,
    /// All of the output.
    pub output: usize,
    /// Of these, reasoning.
    pub reasoning: usize,
}

/// What was asked before.
#[derive(Debug, Default)]
pub struct Cache {
    conversations: HashMap<(String, String), VecDeque<Vec<u64>>>,
    order: VecDeque<(String, String)>,
}

impl Tokens {
    /// Returns the `usage` object of `response.completed`.
    pub fn to_json(self) -> Value {
        json!({
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        })
    }
}

/// Returns how many tokens `text` counts.
pub fn count(text: &str) -> usize {
    text.len().div_ceil(TOKEN_BYTES)
}

impl Cache {
    /// Counts the input of `body` and what of it an earlier request already said; remembers it.
    pub fn admit(&mut self, body: &Value) -> Tokens {
        let prompt = rendered(body);
        let blocks = blocks(prompt.as_bytes());
        let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let key = (word("model"), word("prompt_cache_key"));
        let mut cached = 0;
        if !key.1.is_empty() {
            let earlier = self.conversations.entry(key.clone()).or_default();
            cached = earlier
                .iter()
                .map(|old| old.iter().zip(&blocks).take_while(|(a, b)| a == b).count())
                .max()
                .unwrap_or(0);
            earlier.push_back(blocks);
            if earlier.len() > REQUESTS {
                earlier.pop_front();
            }
            self.order.retain(|known| *known != key);
            self.order.push_back(key);
            if self.order.len() > CONVERSATIONS
                && let Some(oldest) = self.order.pop_front()
            {
                self.conversations.remove(&oldest);
            }
        }
        Tokens {
            input: count(&prompt),
            cached: cached * BLOCK_TOKENS,
            ..Tokens::default()
        }
    }
}

/// What the model reads, in its order: tools, instructions, items.
fn rendered(body: &Value) -> String {
    let mut prompt = String::new();
    let list = |name: &str| body[name].as_array().into_iter().flatten();
    for tool in list("tools") {
        prompt.push_str(&tool.to_string());
        prompt.push('\n');
    }
    prompt.push_str(body["instructions"].as_str().unwrap_or_default());
    prompt.push('\n');
    for item in list("input") {
        prompt.push_str(&item.to_string());
        prompt.push('\n');
    }
    prompt
}

/// The digest of each whole block together with everything before it.
fn blocks(bytes: &[u8]) -> Vec<u64> {
    let mut digest = DefaultHasher::new();
    bytes
        .chunks_exact(BLOCK_TOKENS * TOKEN_BYTES)
        .map(|block| {
            digest.write(block);
            digest.finish()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(key: &str, texts: &[&str]) -> Value {
        let input: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
        json!({"model": "m", "prompt_cache_key": key, "input": input})
    }

    #[test]
    fn a_shared_prefix_is_cached_in_whole_blocks() {
        let long = "x".repeat(5000);
        let mut cache = Cache::default();
        let first = cache.admit(&body("a", &[&long]));
        assert_eq!(first.cached, 0);
        // 1 + 11 + 5000 + 1 + 1 bytes: nine whole blocks of 512.
        assert_eq!(first.input, 1254);
        assert_eq!(cache.admit(&body("a", &[&long, "more"])).cached, 9 * 128);
        assert_eq!(cache.admit(&body("b", &[&long])).cached, 0);
        // A request in between that says something else does not push the prefix out.
        assert_eq!(cache.admit(&body("a", &["title"])).cached, 0);
        assert_eq!(cache.admit(&body("a", &[&long, "more"])).cached, 9 * 128);
        let changed = format!("y{}", &long[1..]);
        assert_eq!(cache.admit(&body("a", &[&changed])).cached, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut cache = Cache::default();
        for number in 0..200 {
            cache.admit(&body(&number.to_string(), &["x"]));
            cache.admit(&body("one", &["x"]));
        }
        assert!(cache.conversations.len() <= CONVERSATIONS);
        assert_eq!(cache.order.len(), cache.conversations.len());
        assert!(
            cache
                .conversations
                .values()
                .all(|all| all.len() <= REQUESTS)
        );
    }
}
