//! How many tokens a request is, roughly: by sizes, without a tokenizer.
//!
//! The rules, which lean to the high side because the client compacts by this number:
//! 3.5 bytes of text are one token (English prose has about 4.3, code about 3.2), JSON of tools
//! and tool inputs 4 bytes; a message costs 4 tokens around its text; an image 1,600, which is
//! what the client's largest picture costs; a document one token for 30 characters of base64, and
//! no less than an image.

use crate::wire::blocks::{Block, Content, Source};
use crate::wire::messages::Request;

const IMAGE_TOKENS: u64 = 1_600;
const MESSAGE_TOKENS: u64 = 4;

/// Bytes of the several kinds, and what is counted in tokens at once.
#[derive(Default)]
struct Sum {
    text_bytes: u64,
    json_bytes: u64,
    tokens: u64,
}

/// Returns an estimate of the input tokens of `request`. Never zero.
pub fn input_tokens(request: &Request<'_>) -> u64 {
    let mut sum = Sum::default();
    if let Some(system) = &request.system {
        sum.tokens += MESSAGE_TOKENS;
        sum.content(system);
    }
    for message in &request.messages {
        sum.tokens += MESSAGE_TOKENS;
        sum.content(&message.content);
    }
    if let Some(tools) = request.tools.raw() {
        sum.json(tools.text());
    }
    if let Some(schema) = request.output_config.schema {
        sum.json(schema.text());
    }
    (sum.tokens + sum.text_bytes * 2 / 7 + sum.json_bytes / 4).max(1)
}

impl Sum {
    fn text(&mut self, text: &str) {
        self.text_bytes += text.len() as u64;
    }

    fn json(&mut self, text: &str) {
        self.json_bytes += text.len() as u64;
    }

    fn content(&mut self, content: &Content<'_>) {
        match content {
            Content::Text(text) => self.text(text.escaped()),
            Content::Blocks(blocks) => blocks.iter().for_each(|block| self.block(block)),
        }
    }

    fn block(&mut self, block: &Block<'_>) {
        match block {
            Block::Text(text) | Block::ToolReference(text) => self.text(text.escaped()),
            Block::Image(_) => self.tokens += IMAGE_TOKENS,
            Block::Document(document) => {
                for text in [document.title, document.context].into_iter().flatten() {
                    self.text(text.escaped());
                }
                match &document.source {
                    Source::Base64 { data, .. } => {
                        self.tokens += (data.escaped().len() as u64 / 30).max(IMAGE_TOKENS);
                    }
                    Source::Text(text) => self.text(text.escaped()),
                    Source::Content(content) => self.content(content),
                    Source::Url(_) | Source::Other(_) => self.tokens += IMAGE_TOKENS,
                }
            }
            Block::ToolUse(call) | Block::ServerToolUse(call) => {
                self.json(call.name.escaped());
                if let Some(input) = call.input {
                    self.json(input.text());
                }
            }
            Block::ToolResult(result) => {
                if let Some(content) = &result.content {
                    self.content(content);
                }
            }
            // Upstream's own count of past reasoning is close to the size of its summary.
            Block::Thinking { thinking, .. } => self.text(thinking.escaped()),
            Block::WebSearchResult(raw) => self.json(raw.text()),
            Block::RedactedThinking(_) | Block::Other(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(body: &str) -> u64 {
        input_tokens(&Request::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn sizes_follow_the_stated_rules() {
        let text = "x".repeat(700);
        let cases = [
            (r#"{"model":"m","messages":[]}"#.to_owned(), 1),
            (
                format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#),
                204,
            ),
            (
                format!(
                    r#"{{"model":"m","system":"{text}","messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}},{{"type":"image","source":{{"type":"url","url":"u"}}}}]}}]}}"#
                ),
                2_008,
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(estimate(&body), expected);
        }
    }
}
