//! How many tokens a request is, roughly: by sizes, without a tokenizer.
//!
//! For `message_start`, on whose way nothing may be slow; `count` is exact. The sizes lean to the high side: 3.5 bytes
//! of text are one token (English prose has about 4.3, code about 3.2), JSON of tools and tool inputs 4 bytes. What is no
//! text costs what `weigh` says; a picture what any picture does.

use crate::translate::weigh::{IMAGE_TOKENS, Scale, weigh};
use crate::wire::json::Text;
use crate::wire::messages::{Request, Tools};

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
    weigh(request, &mut sum);
    (sum.tokens + sum.text_bytes * 2 / 7 + sum.json_bytes / 4).max(1)
}

impl Scale for Sum {
    fn text(&mut self, text: Text<'_>) {
        self.text_bytes += text.escaped().len() as u64;
    }

    fn json(&mut self, text: &str) {
        self.json_bytes += text.len() as u64;
    }

    fn tokens(&mut self, tokens: u64) {
        self.tokens += tokens;
    }

    fn picture(&mut self, _data: &str) {
        self.tokens += IMAGE_TOKENS;
    }

    fn tools(&mut self, tools: &Tools<'_>, _loaded: &[Text<'_>]) {
        if let Some(tools) = tools.raw() {
            self.json(tools.text());
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
                2_252,
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(estimate(&body), expected);
        }
    }
}
