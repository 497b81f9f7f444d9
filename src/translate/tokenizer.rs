//! How many tokens a text is: the vocabulary and the rules of o200k, which the models of the catalogue use.
//!
//! Knows texts, not requests (see `count`). Loading takes a tenth of a second and 20 MB, so whoever owns a
//! [`Tokenizer`] makes it when it is needed and lets go of it.

use std::fmt;

use tiktoken::CoreBpe;

use crate::wire::json::Text;

/// Texts are counted in slices of at most this many bytes, so that a run of a million letters without a break, which
/// costs more than its share, costs 64 times a small one, and whoever has to stop can.
const SLICE_BYTES: usize = 16 * 1024;

/// The loaded vocabulary.
pub struct Tokenizer(CoreBpe);

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokenizer")
    }
}

/// A text that is being counted: fed part by part, kept in a small buffer that serves the next text too.
#[derive(Debug)]
pub struct Tally<'t> {
    tokenizer: &'t Tokenizer,
    buffer: String,
    tokens: u64,
}

impl Tokenizer {
    /// Unpacks the vocabulary.
    #[expect(
        clippy::new_without_default,
        reason = "it costs too much to happen by default"
    )]
    pub fn new() -> Self {
        Self(tiktoken::encoding::o200k_base())
    }

    /// Starts to count a text.
    pub fn tally(&self) -> Tally<'_> {
        Tally {
            tokenizer: self,
            buffer: String::new(),
            tokens: 0,
        }
    }

    /// Counts a whole text.
    pub fn count(&self, text: &str) -> u64 {
        let mut tally = self.tally();
        tally.feed(text, &mut || true);
        tally.finish()
    }

    /// Counts what a JSON string says.
    pub fn count_text(&self, text: Text<'_>) -> u64 {
        let mut tally = self.tally();
        text.for_each_part(|part| {
            tally.feed(part, &mut || true);
        });
        tally.finish()
    }
}

impl Tally<'_> {
    /// Takes the next part of the text. `may_go_on` is asked for each slice that is counted; once it says no, nothing
    /// is counted any more, and `false` is returned.
    pub fn feed(&mut self, mut part: &str, may_go_on: &mut impl FnMut() -> bool) -> bool {
        while !part.is_empty() {
            let taken = part.floor_char_boundary(SLICE_BYTES - self.buffer.len());
            self.buffer.push_str(&part[..taken]);
            part = &part[taken..];
            if part.is_empty() {
                break;
            }
            if !may_go_on() {
                return false;
            }
            let cut = cut(&self.buffer);
            self.tokens += self.tokenizer.0.count(&self.buffer[..cut]) as u64;
            self.buffer.drain(..cut);
        }
        true
    }

    /// Returns the tokens of the text, and is ready for another.
    pub fn finish(&mut self) -> u64 {
        self.tokens += self.tokenizer.0.count(&self.buffer) as u64;
        self.buffer.clear();
        std::mem::take(&mut self.tokens)
    }
}

/// Returns where a full buffer may be cut.
///
/// Before a space that follows something else than white space: by the rules of o200k a word takes the space before it
/// and never the one behind, so that the parts count exactly what the whole does. Where there is none (base64, Chinese,
/// minified code), at the end: that costs a token or two in thousands.
fn cut(text: &str) -> usize {
    let half = text.floor_char_boundary(text.len() / 2);
    let spaces = memchr::memrchr_iter(b' ', &text.as_bytes()[half..]);
    spaces
        .map(|at| half + at)
        .find(|at| {
            let before = text[..*at].chars().next_back();
            before.is_some_and(|before| !before.is_whitespace())
        })
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

    /// Counts that are published with the vocabulary: its own tests, and the examples of its documentation.
    #[test]
    fn counts_are_those_of_the_vocabulary() {
        for (text, tokens) in [
            ("", 0),
            ("hello world", 2),
            ("antidisestablishmentarianism", 6),
            ("2 + 2 = 4", 7),
            ("お誕生日おめでとう", 8),
            ("tiktoken is great!", 6),
        ] {
            assert_eq!(TOKENIZER.count(text), tokens, "{text}");
        }
    }

    #[test]
    fn slices_count_what_the_whole_does() {
        let words = "The quick brown fox; jumps   over\n\n    let x = foo_bar(1234567, 'it''s');\t// done\r\n";
        for text in [
            words.repeat(1_000),
            "ein wort ".repeat(9_000),
            format!("{}{}", " ".repeat(SLICE_BYTES * 2), words.repeat(300)),
        ] {
            assert!(text.len() > 2 * SLICE_BYTES);
            let whole = TOKENIZER.0.count(&text) as u64;
            let sliced = TOKENIZER.count(&text);
            assert!(sliced.abs_diff(whole) <= 4, "{whole} {sliced}");
        }
        let text = words.repeat(1_000);
        assert_eq!(TOKENIZER.count(&text), TOKENIZER.0.count(&text) as u64);
    }

    #[test]
    fn texts_without_a_break_are_counted_within_a_thousandth() {
        for piece in [
            "function(a,b){return{a:b,c:[1,2,3]}};",
            "AbC+/xYz0123",
            "代码质量",
            "é",
        ] {
            let text = piece.repeat(100_000 / piece.len());
            let whole = TOKENIZER.0.count(&text) as u64;
            let sliced = TOKENIZER.count(&text);
            assert!(
                sliced.abs_diff(whole) <= whole / 1000 + 8,
                "{piece}: {whole} {sliced}"
            );
        }
    }

    #[test]
    fn a_tally_stops_when_told_to_and_serves_another_text() {
        let mut tally = TOKENIZER.tally();
        let mut asked = 0;
        let text = "word ".repeat(SLICE_BYTES);
        assert!(!tally.feed(&text, &mut || {
            asked += 1;
            asked < 3
        }));
        assert_eq!(asked, 3);
        tally.finish();
        assert!(tally.feed("hello world", &mut || false));
        assert_eq!(tally.finish(), 2);
    }

    proptest::proptest! {
        #[test]
        fn parts_do_not_matter(text in "(?s).{0,300}", at in 0usize..300) {
            let at = text.floor_char_boundary(at);
            let mut tally = TOKENIZER.tally();
            tally.feed(&text[..at], &mut || true);
            tally.feed(&text[at..], &mut || true);
            proptest::prop_assert_eq!(tally.finish(), TOKENIZER.count(&text));
        }

        /// A longer text may be fewer tokens by a few, where its end completes a word; never by more.
        #[test]
        fn a_text_that_goes_on_is_never_much_less(text in "(?s).{0,200}", more in "(?s).{0,200}") {
            let whole = TOKENIZER.count(&format!("{text}{more}"));
            proptest::prop_assert!(whole + 8 >= TOKENIZER.count(&text));
        }
    }
}
