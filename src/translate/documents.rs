//! Documents: files that upstream reads, texts in place, and what is told of the rest.
//!
//! Nothing is fetched: what stands at an address stays there, and the model is told the address.

use crate::catalogue::model::Lane;
use crate::translate::items::Items;
use crate::translate::loss::Loss;
use crate::translate::papers::{Paper, is_pdf};
use crate::translate::{media, writer};
use crate::wire::blocks::{Document, Source};
use crate::wire::json::Text;

/// What a file is called that has no name.
const NAMELESS: &str = "document.pdf";

impl<'a> Items<'_, 'a> {
    pub(super) fn document(&mut self, document: &Document<'a>) {
        match &document.source {
            Source::Text(text) => {
                self.heading(document);
                self.text(*text);
            }
            Source::Content(content) => {
                self.heading(document);
                self.parts(content);
            }
            Source::Base64 { data, .. } if is_pdf(document) => match self.place.lane {
                Lane::Full => self.file(document, *data),
                Lane::Lite => self.paper(document, data.escaped()),
            },
            Source::Base64 { media_type, data } if media_type.escaped().starts_with("text/") => {
                self.heading(document);
                match media::plain_text(*data) {
                    Some(text) => self.note(&text),
                    None => self.no_document(),
                }
            }
            Source::Base64 { media_type, .. } if media_type.escaped().starts_with("image") => {
                self.heading(document);
                self.image(&document.source);
            }
            Source::Url(url) => {
                self.heading(document);
                self.lose(Loss::marked("document_url"));
                self.noted(
                    "[A document was here, at ",
                    &url.value(),
                    "; it was not fetched]",
                );
            }
            Source::Base64 { .. } | Source::Other(_) => {
                self.heading(document);
                self.no_document();
            }
        }
    }

    /// Writes a PDF as a file, which upstream reads itself.
    fn file(&mut self, document: &Document<'a>, data: Text<'a>) {
        if self.is_left_out(data) {
            self.heading(document);
            return self.mark("old_document", "[A PDF was here; too much came after it]");
        }
        let Some(data) = media::base64(data).filter(|_| self.takes_media()) else {
            self.heading(document);
            return self.no_document();
        };
        self.context(document);
        self.begin();
        writer::json(self.out, r#"{"type":"input_file","filename":"#);
        match document.title.filter(|title| !title.is_empty()) {
            Some(title) => writer::text(self.out, title),
            None => writer::string(self.out, NAMELESS),
        }
        writer::json(self.out, r#","file_data":"data:application/pdf;base64,"#);
        writer::json(self.out, &data);
        writer::json(self.out, r#""}"#);
    }

    /// Writes what is known of a PDF's text.
    fn paper(&mut self, document: &Document<'a>, data: &str) {
        let papers = self.place.papers;
        let title = match document.title.filter(|title| !title.is_empty()) {
            Some(title) => format!("the PDF \"{}\"", title.value()),
            None => "a PDF".to_owned(),
        };
        let of_pages = |pages: usize| match pages {
            1 => "1 page".to_owned(),
            pages => format!("{pages} pages"),
        };
        let (words, text) = match papers.get(data) {
            Paper::Text { pages, shown, text } => {
                self.lose(Loss::approximated("document_text"));
                let cut = match shown < pages {
                    true => format!("; only the beginning: it ends on page {shown}"),
                    false => String::new(),
                };
                let words = format!(
                    "[Text of {title}, {}; pictures and layout are not shown{cut}]",
                    of_pages(*pages)
                );
                (words, Some(text))
            }
            Paper::Scan { pages } => {
                self.lose(Loss::marked("document"));
                let words = format!(
                    "[{} was here, {}; it holds no text, only pictures, which cannot be shown]",
                    capital(&title),
                    of_pages(*pages)
                );
                (words, None)
            }
            Paper::Unreadable => {
                self.lose(Loss::marked("document"));
                let words = format!("[{} was here that could not be read]", capital(&title));
                (words, None)
            }
        };
        self.context(document);
        self.note(&words);
        if let Some(text) = text {
            self.note(text);
        }
    }

    fn no_document(&mut self) {
        self.mark("document", "[A document was here that cannot be shown]");
    }

    /// Writes what is said about a document in front of it.
    fn heading(&mut self, document: &Document<'a>) {
        if let Some(title) = document.title.filter(|title| !title.is_empty()) {
            self.begin_text();
            writer::json(self.out, "Document: ");
            writer::inner(self.out, title);
            self.end_text();
        }
        self.context(document);
    }

    fn context(&mut self, document: &Document<'a>) {
        if let Some(context) = document.context {
            self.text(context);
        }
    }
}

fn capital(title: &str) -> String {
    let mut letters = title.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
