//! What PDF files say, for models that are not handed files.
//!
//! Taking the text out of a PDF costs time and is done elsewhere, before a request is translated; here is what
//! comes of it. A translation looks its PDFs up in [`Papers`] and stays a pure function.

use std::sync::Arc;

use crate::catalogue::model::Lane;
use crate::wire::blocks::{Block, Content, Document, Source};
use crate::wire::messages::Message;

/// The only kind of document that upstream reads as a file.
const PDF: &str = "application/pdf";

/// The longest text that the model is told of one PDF: about 100,000 tokens, which leaves it room to work. It is
/// told what was cut.
pub const LONGEST_TEXT_BYTES: usize = 400_000;

/// What is known of one PDF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paper {
    /// It holds text.
    Text {
        /// How many pages it has.
        pages: usize,
        /// How many of them `text` goes through.
        shown: usize,
        /// The text, each page under a line with its number.
        text: String,
    },
    /// It has pages, but no text on them.
    Scan {
        /// How many pages it has.
        pages: usize,
    },
    /// It could not be read.
    Unreadable,
}

impl Paper {
    /// Returns a word for it, for the log.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Scan { .. } => "pictures",
            Self::Unreadable => "nothing",
        }
    }

    /// Returns about how much memory it takes, in bytes.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Text { text, .. } => text.len() + 64,
            Self::Scan { .. } | Self::Unreadable => 64,
        }
    }

    /// Makes one of the texts of the first pages, in their order, of a PDF that has `pages`. `None` is a page that
    /// could not be read.
    pub fn of(pages: usize, texts: &[Option<String>]) -> Self {
        let mut text = String::new();
        let mut shown = 0;
        let mut says_something = false;
        for (at, page) in texts.iter().enumerate() {
            let left = LONGEST_TEXT_BYTES.saturating_sub(text.len());
            if left == 0 {
                break;
            }
            let said = page
                .as_deref()
                .map_or("(this page cannot be read)", str::trim);
            says_something |= page.is_some() && !said.is_empty();
            if at > 0 {
                text.push_str("\n\n");
            }
            text.push_str(&format!("[Page {}]\n", at + 1));
            text.push_str(&said[..said.floor_char_boundary(left)]);
            shown = at + 1;
        }
        match (texts.is_empty(), says_something) {
            (false, true) => Self::Text { pages, shown, text },
            (false, false) if texts.iter().any(Option::is_some) => Self::Scan { pages },
            (true | false, _) => Self::Unreadable,
        }
    }
}

/// The PDFs of one request that are known, by their base64 as it stands in the request.
#[derive(Clone, Debug, Default)]
pub struct Papers<'a> {
    known: Vec<(&'a str, Arc<Paper>)>,
}

impl<'a> Papers<'a> {
    /// Adds what is known of the PDF `data`.
    pub fn add(&mut self, data: &'a str, paper: Arc<Paper>) {
        self.known.push((data, paper));
    }

    /// Returns what is known of the PDF `data`. Nothing counts as unreadable.
    pub(super) fn get(&self, data: &str) -> &Paper {
        let known = self.known.iter().find(|(known, _)| *known == data);
        known.map_or(&Paper::Unreadable, |(_, paper)| paper)
    }
}

/// Returns the PDFs in `messages` that must be in [`Papers`] for a request on `lane`, as their base64 stands there.
/// None where files are taken as they are; none in almost every conversation.
pub fn wanted<'a>(messages: &[Message<'a>], lane: Lane) -> Vec<&'a str> {
    let mut found = Vec::new();
    if lane == Lane::Lite {
        for message in messages {
            gather(&message.content, &mut found);
        }
    }
    found
}

fn gather<'a>(content: &Content<'a>, found: &mut Vec<&'a str>) {
    let Content::Blocks(blocks) = content else {
        return;
    };
    for block in blocks {
        match block {
            Block::ToolResult(result) => {
                if let Some(content) = &result.content {
                    gather(content, found);
                }
            }
            Block::Document(document) => match &document.source {
                Source::Content(content) => gather(content, found),
                Source::Base64 { data, .. } if is_pdf(document) => found.push(data.escaped()),
                _ => {}
            },
            _ => {}
        }
    }
}

/// Says whether a document is a PDF in the request itself, by what was declared.
pub(super) fn is_pdf(document: &Document<'_>) -> bool {
    matches!(&document.source, Source::Base64 { media_type, .. }
        if media_type.value().trim().eq_ignore_ascii_case(PDF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_one_text_or_none() {
        let page = |text: &str| Some(text.to_owned());
        assert_eq!(
            Paper::of(3, &[page(" a\n"), None, page("")]),
            Paper::Text {
                pages: 3,
                shown: 3,
                text: "[Page 1]\na\n\n[Page 2]\n(this page cannot be read)\n\n[Page 3]\n"
                    .to_owned(),
            }
        );
        assert_eq!(Paper::of(2, &[page(" \n"), None]), Paper::Scan { pages: 2 });
        assert_eq!(Paper::of(2, &[None, None]), Paper::Unreadable);
        assert_eq!(Paper::of(0, &[]), Paper::Unreadable);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let page = Some("é".repeat(LONGEST_TEXT_BYTES / 4));
        let Paper::Text { pages, shown, text } = Paper::of(9, &vec![page; 5]) else {
            panic!("it is text");
        };
        assert_eq!((pages, shown), (9, 2));
        assert!((LONGEST_TEXT_BYTES..LONGEST_TEXT_BYTES + 100).contains(&text.len()));
    }
}
