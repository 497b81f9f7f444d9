//! The parts of a request that cost tokens, handed one by one to a [`Scale`].
//!
//! Says what costs something, and what that costs which is no text; how texts are weighed is the scale's: by the
//! tokenizer (`count`) or by their size (`estimate`). The rules, with their sources, stand in `docs/translation.md`.

use base64::Engine as _;

use crate::translate::items::LABEL;
use crate::translate::reasoning::Seal;
use crate::wire::blocks::{Block, Content, Document, Source};
use crate::wire::json::{Raw, Text};
use crate::wire::messages::{Message, Request, Role, Tools};

/// Around a message: `<|start|>user<|message|>…<|end|>`, in the format that OpenAI published for its models (harmony).
const MESSAGE_TOKENS: u64 = 4;

/// Around what the assistant says: a channel more.
const ANSWER_TOKENS: u64 = 6;

/// Around a call, and around its result: who calls whom, channel and content type. The ids are not shown to the model.
const CALL_TOKENS: u64 = 10;

/// A picture whose size cannot be told: what the Codex CLI takes any picture for, 7,373 bytes at four a token.
pub(super) const IMAGE_TOKENS: u64 = 1_844;

/// Side of the square patches that a picture is cut into, in pixels; each is a token.
const PATCH: u64 = 32;

/// A picture is scaled down to this many pixels on its longer side…
const LONGEST_SIDE: u64 = 2_048;

/// … and to this many patches.
const MOST_PATCHES: u64 = 2_500;

/// Where the size of a picture has to be found: behind a colour profile, at most.
const PICTURE_HEAD: usize = 96 * 1024;

/// Weighs what is handed to it.
pub(super) trait Scale {
    /// A text that the model reads.
    fn text(&mut self, text: Text<'_>);
    /// JSON that the model reads as it stands.
    fn json(&mut self, text: &str);
    /// Something that costs this many tokens.
    fn tokens(&mut self, tokens: u64);
    /// A picture in base64.
    fn picture(&mut self, data: &str);
    /// All tool definitions.
    fn tools(&mut self, tools: &Tools<'_>, loaded: &[Text<'_>]);
}

/// Hands every part of `request` to `scale`.
pub(super) fn weigh(request: &Request<'_>, scale: &mut impl Scale) {
    let mut walk = Walk {
        scale,
        loaded: Vec::new(),
    };
    if let Some(system) = &request.system {
        walk.scale.tokens(MESSAGE_TOKENS);
        walk.content(system);
    }
    for message in &request.messages {
        walk.message(message);
    }
    let Walk { scale, loaded } = walk;
    scale.tools(&request.tools, &loaded);
    if let Some(schema) = request.output_config.schema {
        scale.json(schema.text());
    }
}

/// Hands every part of one block to `scale`.
pub(super) fn weigh_block(block: &Block<'_>, scale: &mut impl Scale) {
    Walk {
        scale,
        loaded: Vec::new(),
    }
    .block(block);
}

/// Hands every part of one message to `scale`.
pub(super) fn weigh_message(message: &Message<'_>, scale: &mut impl Scale) {
    Walk {
        scale,
        loaded: Vec::new(),
    }
    .message(message);
}

struct Walk<'s, 'a, S> {
    scale: &'s mut S,
    /// Names of deferred tools that were loaded.
    loaded: Vec<Text<'a>>,
}

impl<'a, S: Scale> Walk<'_, 'a, S> {
    fn message(&mut self, message: &Message<'a>) {
        self.scale.tokens(match message.role {
            Role::Assistant => ANSWER_TOKENS,
            Role::User | Role::System => MESSAGE_TOKENS,
        });
        self.content(&message.content);
    }

    fn content(&mut self, content: &Content<'a>) {
        match content {
            Content::Text(text) => self.text(*text),
            Content::Blocks(blocks) => blocks.iter().for_each(|block| self.block(block)),
        }
    }

    fn text(&mut self, text: Text<'a>) {
        if !text.escaped().starts_with(LABEL) {
            self.scale.text(text);
        }
    }

    fn block(&mut self, block: &Block<'a>) {
        match block {
            Block::Text(text) => self.text(*text),
            Block::ToolReference(name) => {
                self.scale.text(*name);
                self.loaded.push(*name);
            }
            Block::Image(source) => self.image(source),
            Block::Document(document) => self.document(document),
            Block::ToolUse(call) | Block::ServerToolUse(call) => {
                self.scale.tokens(CALL_TOKENS);
                self.scale.text(call.name);
                if let Some(input) = call.input {
                    self.scale.json(input.text());
                }
            }
            Block::ToolResult(result) => {
                self.scale.tokens(CALL_TOKENS);
                if let Some(content) = &result.content {
                    self.content(content);
                }
            }
            Block::Thinking { signature, .. } => self.scale.tokens(reasoning(*signature)),
            Block::WebSearchResult(raw) => self.scale.json(raw.text()),
            Block::RedactedThinking(data) => self.scale.tokens(reasoning(*data)),
            Block::Other(_) => {}
        }
    }

    fn image(&mut self, source: &Source<'a>) {
        match source {
            Source::Base64 { data, .. } => self.scale.picture(data.escaped()),
            Source::Url(_) | Source::Text(_) | Source::Content(_) | Source::Other(_) => {
                self.scale.tokens(IMAGE_TOKENS);
            }
        }
    }

    fn document(&mut self, document: &Document<'a>) {
        for text in [document.title, document.context].into_iter().flatten() {
            self.scale.text(text);
        }
        match &document.source {
            Source::Base64 { data, .. } => {
                let size = data.escaped().len() as u64;
                self.scale.tokens((size / 30).max(IMAGE_TOKENS));
            }
            Source::Text(text) => self.scale.text(*text),
            Source::Content(content) => self.content(content),
            Source::Url(_) | Source::Other(_) => self.scale.tokens(IMAGE_TOKENS),
        }
    }
}

/// Returns the tokens of encrypted reasoning that goes back upstream; that of others does not.
///
/// As the Codex CLI estimates it: base64 of the text and of 650 bytes around it, four bytes a token.
fn reasoning(signature: Text<'_>) -> u64 {
    let sealed = Seal::open(signature.escaped());
    sealed.map_or(0, |seal| {
        (seal.encrypted.len() as u64 * 3 / 4).saturating_sub(650) / 4
    })
}

/// Returns the tokens of a picture in base64: a token for each patch of 32 by 32 pixels, after it was scaled down to
/// 2,048 pixels and to 2,500 patches, as OpenAI states it for detail `high`.
pub(super) fn picture_tokens(data: &str) -> u64 {
    let head = &data.as_bytes()[..data.len().min(PICTURE_HEAD) & !3];
    let head = head
        .strip_suffix(b"==")
        .or_else(|| head.strip_suffix(b"="))
        .unwrap_or(head);
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(head);
    let size = bytes
        .ok()
        .and_then(|bytes| imagesize::blob_size(&bytes).ok());
    size.map_or(IMAGE_TOKENS, |size| {
        patches(size.width as u64, size.height as u64)
    })
}

fn patches(width: u64, height: u64) -> u64 {
    let longest = width.max(height).max(1);
    let scale = |side: u64| {
        if longest <= LONGEST_SIDE {
            side
        } else {
            u64::try_from(u128::from(side) * u128::from(LONGEST_SIDE) / u128::from(longest))
                .unwrap_or(LONGEST_SIDE)
        }
    };
    let count = |side: u64| scale(side).div_ceil(PATCH).max(1);
    (count(width) * count(height)).min(MOST_PATCHES)
}

/// Returns the definitions among `tools` that the model is shown, as raw values: none that is deferred and not loaded.
pub(super) fn shown<'a>(tools: &Tools<'a>, loaded: &[Text<'_>]) -> Vec<Shown<'a>> {
    // Read once before; what cannot be read is refused where it matters.
    let tools = tools.list().unwrap_or_default();
    let is_shown = |name: Text<'_>| {
        loaded
            .iter()
            .any(|loaded| loaded.escaped() == name.escaped())
    };
    tools
        .into_iter()
        .filter(|tool| !tool.defer_loading || is_shown(tool.name))
        .map(|tool| Shown {
            name: tool.name,
            description: tool.description,
            schema: tool.schema,
        })
        .collect()
}

/// What the model is shown of a tool.
pub(super) struct Shown<'a> {
    pub(super) name: Text<'a>,
    pub(super) description: Option<Text<'a>>,
    pub(super) schema: Option<Raw<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_as_many_tokens_as_it_has_patches() {
        for (width, height, tokens) in [
            (1, 1, 1),
            (32, 32, 1),
            (33, 32, 2),
            (1024, 1024, 1024),
            (1920, 1080, 60 * 34),
            (2048, 4096, 32 * 64),
            (4096, 4096, 2_500),
            (u64::MAX, 1, 64),
            (0, 0, 1),
        ] {
            assert_eq!(patches(width, height), tokens, "{width}x{height}");
        }
    }

    #[test]
    fn the_size_of_a_picture_is_read_from_its_head() {
        // The first bytes of a PNG of 640 by 480.
        let png = "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA10dzk";
        assert_eq!(picture_tokens(png), 20 * 15);
        for unknown in ["", "A", "AAAA", "no base64!", "iVBORw0KGgo="] {
            assert_eq!(picture_tokens(unknown), IMAGE_TOKENS, "{unknown}");
        }
    }
}
