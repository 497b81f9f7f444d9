//! The text of a PDF, page by page.
//!
//! Trusts neither the file nor the library that reads it: a page at which it panics is a page without text, and the
//! next one is tried. What a panic does not end (a loop, all memory, the whole stack) is for [`apart`](super::apart)
//! to end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pdf_extract::{Document, PlainTextOutput, output_doc_page};

/// The most pages that are looked at.
pub const MOST_PAGES: usize = 1_000;

/// What is told while a PDF is read.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Comes first: how many pages there are.
    Pages(usize),
    /// The text of the next page, the first one first; `None` where it could not be read.
    Page(Option<String>),
}

/// Reads `pdf` and tells what it finds until `tell` returns false.
///
/// Tells nothing of what is no PDF, is damaged, or asks for a password.
pub fn read(pdf: &[u8], mut tell: impl FnMut(Found) -> bool) {
    let Some(Some(document)) = guarded(|| open(pdf)) else {
        return;
    };
    let pages = guarded(|| document.get_pages().len()).unwrap_or_default();
    if pages == 0 || !tell(Found::Pages(pages)) {
        return;
    }
    for number in 1..=pages.min(MOST_PAGES) as u32 {
        let text = guarded(|| by_place(&document, number))
            .flatten()
            .or_else(|| guarded(|| document.extract_text(&[number]).ok()).flatten());
        if !tell(Found::Page(text.map(|text| tidy(&text)))) {
            return;
        }
    }
}

fn open(pdf: &[u8]) -> Option<Document> {
    let mut document = Document::load_mem(pdf).ok()?;
    // Many files are encrypted with no password at all, only to forbid this and that.
    if document.is_encrypted() {
        document.decrypt("").ok()?;
    }
    Some(document)
}

/// The text of a page in lines, by where each letter stands.
fn by_place(document: &Document, number: u32) -> Option<String> {
    let mut text = String::new();
    let mut output = PlainTextOutput::new(&mut text);
    output_doc_page(document, &mut output, number).ok()?;
    Some(text)
}

fn guarded<T>(read: impl FnOnce() -> T) -> Option<T> {
    // What a panic leaves half read is only read again.
    catch_unwind(AssertUnwindSafe(read)).ok()
}

/// Takes out what is no text: control characters, white space at the ends of lines, more than one empty line.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let line: String = line
            .chars()
            .map(|c| if c == '\t' { ' ' } else { c })
            .filter(|c| !c.is_control())
            .collect();
        let line = line.trim_end();
        if line.is_empty() {
            empty += 1;
            continue;
        }
        if !tidy.is_empty() {
            tidy.push_str(if empty > 0 { "\n\n" } else { "\n" });
        }
        empty = 0;
        tidy.push_str(line);
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_tidied() {
        for (text, expected) in [
            ("", ""),
            ("\n\n  \n", ""),
            ("\n\na \nb\n\n\n\n c\u{0}\u{7f}\td\r\n", "a\nb\n\n c d"),
        ] {
            assert_eq!(tidy(text), expected);
        }
    }

    #[test]
    fn what_is_no_pdf_tells_nothing() {
        for bytes in [
            &b""[..],
            b"%PDF-1.4",
            b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer<</Root 1 0 R>>\n%%EOF",
            &[0xff; 999],
        ] {
            read(bytes, |found| panic!("{found:?}"));
        }
    }
}
