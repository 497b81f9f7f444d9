//! Parts of content: text, images, and markers for what cannot be passed on.
//!
//! Parts go into the message of the role at hand, which the first part opens, or into the output of
//! a call. What upstream cannot take leaves a marker in its place: the model learns that something
//! was there, and the next turn works.

use crate::catalogue::model::Lane;
use crate::translate::items::{Items, Open};
use crate::translate::loss::Loss;
use crate::translate::{media, writer};
use crate::wire::blocks::{Block, Content, Source};
use crate::wire::json::Text;
use crate::wire::messages::Role;

impl<'a> Items<'_, 'a> {
    /// Writes a block that is neither call, result nor thinking.
    pub(super) fn part(&mut self, block: &Block<'a>) {
        match block {
            Block::Text(text) => self.text(*text),
            Block::Image(source) => self.image(source),
            Block::Document(document) => self.document(document),
            Block::ToolReference(name) => {
                self.loading
                    .extend(self.place.tools.deferred(&name.value()));
                let name = self.upstream_name(*name);
                self.noted("Loaded tool: ", &name, "");
            }
            Block::ServerToolUse(call) => self.server_call(call),
            Block::WebSearchResult(content) => self.search_results(*content),
            Block::Other(kind) => {
                self.lose(Loss::marked("unknown_block"));
                self.noted("[Content of kind ", kind, " cannot be shown here]");
            }
            Block::ToolUse(_) | Block::ToolResult(_) => {
                self.lose(Loss::marked("misplaced_block"));
                self.note("[A tool call or result that was out of place]");
            }
            Block::Thinking { .. } | Block::RedactedThinking(_) => {
                self.lose(Loss::dropped("thinking"));
            }
        }
    }

    /// Writes a text part; an empty text is none.
    pub(super) fn text(&mut self, text: Text<'a>) {
        if !text.is_empty() {
            self.begin_text();
            writer::inner(self.out, text);
            self.end_text();
        }
    }

    /// Writes a text part of our own words.
    pub(super) fn note(&mut self, words: &str) {
        self.noted(words, "", "");
    }

    /// Writes a text part: our words around somebody else's.
    pub(super) fn noted(&mut self, before: &str, theirs: &str, after: &str) {
        self.begin_text();
        for words in [before, theirs, after] {
            writer::characters(self.out, words);
        }
        self.end_text();
    }

    /// Writes all parts of `content`.
    pub(super) fn parts(&mut self, content: &Content<'a>) {
        match content {
            Content::Text(text) => self.text(*text),
            Content::Blocks(blocks) => blocks.iter().for_each(|block| self.part(block)),
        }
    }

    pub(super) fn image(&mut self, source: &Source<'a>) {
        if !self.place.images {
            return self.mark("image", "[An image was here; this model cannot see images]");
        }
        if !self.takes_media() {
            return self.mark("image", "[An image was here]");
        }
        match source {
            Source::Base64 { data, .. } => {
                if !self.picture(*data) {
                    return;
                }
            }
            Source::Url(url) if url.escaped().starts_with("data:") => {
                if !self.picture(*url) {
                    return;
                }
            }
            Source::Url(url)
                if self.place.lane == Lane::Full && url.value().starts_with("https://") =>
            {
                self.begin();
                writer::json(self.out, r#"{"type":"input_image","image_url":"#);
                writer::text(self.out, *url);
            }
            // The lite lane takes no addresses (contract chatgpt-codex §4), the full lane none that upstream cannot
            // fetch: it would refuse this turn and, with the picture in the history, every later one.
            Source::Url(url) => {
                self.lose(Loss::marked("image_url"));
                return self.noted("[An image was here, at ", &url.value(), "]");
            }
            Source::Text(_) | Source::Content(_) | Source::Other(_) => {
                return self.mark("image_source", "[An image was here that could not be read]");
            }
        }
        self.end_image();
    }

    /// Writes a picture that the request holds, but its end. Returns false, with a marker written, if it cannot be
    /// shown.
    fn picture(&mut self, data: Text<'a>) -> bool {
        if self.is_left_out(data) {
            self.mark("old_image", "[An image was here; too many came after it]");
            return false;
        }
        let Some((media_type, data)) = media::picture(data) else {
            self.mark("image_data", "[An image was here that could not be read]");
            return false;
        };
        self.begin();
        writer::json(self.out, r#"{"type":"input_image","image_url":"data:"#);
        writer::json(self.out, media_type);
        writer::json(self.out, ";base64,");
        writer::json(self.out, &data);
        self.out.push(b'"');
        true
    }

    fn end_image(&mut self) {
        // Tools of the client read small print off screenshots. The lite lane takes no `detail`.
        writer::json(
            self.out,
            match self.place.lane {
                Lane::Full => r#","detail":"high"}"#,
                Lane::Lite => "}",
            },
        );
    }

    pub(super) fn mark(&mut self, kind: &'static str, words: &str) {
        self.lose(Loss::marked(kind));
        self.note(words);
    }

    /// Says whether `data`, which comes next, is of the old pictures and files that do not fit any more.
    pub(super) fn is_left_out(&mut self, data: Text<'a>) -> bool {
        self.media_bytes += data.escaped().len();
        self.left_out > 0 && self.media_bytes <= self.left_out
    }

    /// Says whether images and files may stand where parts are written now.
    pub(super) fn takes_media(&self) -> bool {
        matches!(self.open, Open::Output { .. }) || self.role != Role::Assistant
    }

    /// Gets ready for a part: opens the message if none is open, else writes a comma if needed.
    pub(super) fn begin(&mut self) {
        match self.open {
            Open::Nothing => {
                self.item();
                writer::json(
                    self.out,
                    match self.role {
                        Role::User => r#"{"type":"message","role":"user","content":["#,
                        Role::Assistant => r#"{"type":"message","role":"assistant","content":["#,
                        Role::System => r#"{"type":"message","role":"developer","content":["#,
                    },
                );
                self.open = Open::Message;
            }
            Open::Output { is_empty: true } => self.open = Open::Output { is_empty: false },
            Open::Message | Open::Output { is_empty: false } => self.out.push(b','),
        }
    }

    pub(super) fn begin_text(&mut self) {
        self.begin();
        let is_output_text = self.open == Open::Message && self.role == Role::Assistant;
        writer::json(
            self.out,
            if is_output_text {
                r#"{"type":"output_text","text":""#
            } else {
                r#"{"type":"input_text","text":""#
            },
        );
    }

    pub(super) fn end_text(&mut self) {
        writer::json(self.out, r#""}"#);
    }
}
