//! Where an answer has to stop although upstream would go on: stop sequences, and a limit of tokens.
//!
//! Upstream takes neither (contract chatgpt-codex §3), so its text is watched as it comes. Texts stay escaped: they
//! are looked at in UTF-16 units, which is what an escape stands for, and so a stop sequence is found however it is
//! escaped and over however many pieces it is spread. Text is held back only while it may be the beginning of one.
//!
//! A request without bounds has no [`Cut`], and pays for none.

use std::sync::Arc;

use crate::wire::messages::Request;

/// Below this many tokens of answer the client means its `max_tokens` as a limit, and does not merely allow what the
/// model can do: its smallest allowance for a model is 32,000 (contract claude-code §2).
pub const MEANT_AS_LIMIT: u64 = 16_384;

/// The most stop sequences, and the most UTF-16 units of one; what is beyond is refused.
const MOST_STOPS: usize = 64;
const LONGEST_STOP: usize = 1_024;

/// A token has this many parts; see [`weight`].
const PARTS: u64 = 60;

/// What ends an answer early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    stops: Vec<Stop>,
    /// In parts of a token.
    limit: Option<u64>,
}

/// Stop sequences that cannot be watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stop_sequences: at most {MOST_STOPS} of at most {LONGEST_STOP} characters each can be watched for"
)]
pub struct TooManyStops;

/// A stop sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stop {
    text: String,
    units: Vec<u16>,
    /// By the number of units matched: how many still match once the next one does not.
    fallback: Vec<usize>,
}

impl Bounds {
    /// Returns the bounds of `request`; `None` if it has none.
    ///
    /// `max_tokens` counts where it is meant as a limit: below [`MEANT_AS_LIMIT`]. An empty stop sequence stops
    /// nothing.
    ///
    /// # Errors
    ///
    /// There are more stop sequences, or longer ones, than can be watched for.
    pub fn of(request: &Request<'_>) -> Result<Option<Arc<Self>>, TooManyStops> {
        let limit = request.max_tokens.filter(|most| *most < MEANT_AS_LIMIT);
        let wanted = request
            .stop_sequences
            .iter()
            .filter(|text| !text.is_empty());
        let stops: Vec<Stop> = wanted.map(|text| Stop::new(text)).collect();
        if stops.len() > MOST_STOPS || stops.iter().any(|stop| stop.units.len() > LONGEST_STOP) {
            return Err(TooManyStops);
        }
        let has_any = limit.is_some() || !stops.is_empty();
        Ok(has_any.then(|| {
            Arc::new(Self {
                stops,
                limit: limit.map(|tokens| tokens * PARTS),
            })
        }))
    }
}

impl Stop {
    fn new(text: &str) -> Self {
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut fallback = vec![0; units.len() + 1];
        let mut matched = 0;
        for at in 1..units.len() {
            while matched > 0 && units[at] != units[matched] {
                matched = fallback[matched];
            }
            if units[at] == units[matched] {
                matched += 1;
            }
            fallback[at + 1] = matched;
        }
        Self {
            text: text.to_owned(),
            units,
            fallback,
        }
    }

    /// Returns how many units match once `unit` has come after `matched` of them.
    fn step(&self, mut matched: usize, unit: u16) -> usize {
        while matched > 0 && self.units.get(matched) != Some(&unit) {
            matched = self.fallback[matched];
        }
        if self.units.get(matched) == Some(&unit) {
            matched += 1;
        }
        matched
    }
}

/// Why an answer was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// At the stop sequence of this number.
    Stop(usize),
    Limit,
}

/// The watch over one answer.
#[derive(Debug)]
pub(super) struct Cut {
    bounds: Arc<Bounds>,
    /// By stop sequence: how many of its units match the end of the text.
    matched: Vec<usize>,
    /// The end of the text so far that may belong to a stop sequence, still escaped.
    held: String,
    /// The bytes of each of its units.
    sizes: Vec<u8>,
    /// Parts of tokens so far.
    spent: u64,
    over: Option<Over>,
    /// Whether a text block has to begin before the next text is shown.
    pub(super) is_block_due: bool,
}

impl Cut {
    pub(super) fn new(bounds: &Arc<Bounds>) -> Self {
        Self {
            bounds: Arc::clone(bounds),
            matched: vec![0; bounds.stops.len()],
            held: String::new(),
            sizes: Vec::new(),
            spent: 0,
            over: None,
            is_block_due: false,
        }
    }

    /// Says whether the answer has come to its end.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Returns the stop sequence at which the answer ended.
    pub(super) fn stopped_at(&self) -> Option<&str> {
        match self.over? {
            Over::Stop(at) => Some(&self.bounds.stops[at].text),
            Over::Limit => None,
        }
    }

    /// Returns the tokens of the answer so far, by estimate.
    pub(super) fn tokens(&self) -> u64 {
        self.spent.div_ceil(PARTS)
    }

    /// Counts something that cannot be cut: the arguments of a call.
    pub(super) fn count(&mut self, literal: &str) {
        self.spent += units(literal).map(|(unit, _)| weight(unit)).sum::<u64>();
    }

    /// Ends the answer if nothing more may come: called where another block would begin.
    pub(super) fn begin_block(&mut self) {
        if self.over.is_none() && self.is_spent() {
            self.over = Some(Over::Limit);
        }
    }

    fn is_spent(&self) -> bool {
        self.bounds.limit.is_some_and(|limit| self.spent >= limit)
    }

    /// Takes the next piece of a text; returns what may be shown now. Nothing may be taken once the answer is over.
    pub(super) fn take(&mut self, literal: &str) -> String {
        let mut end = self.held.len();
        self.held.push_str(literal);
        for (unit, size) in units(literal) {
            let is_half = (0xdc00..0xe000).contains(&unit);
            if self.is_spent() && !is_half {
                self.over = Some(Over::Limit);
                self.held.truncate(end);
                return std::mem::take(&mut self.held);
            }
            end += usize::from(size);
            self.sizes.push(size);
            self.spent += weight(unit);
            if let Some((at, length)) = self.step(unit) {
                self.over = Some(Over::Stop(at));
                let kept = self.sizes.len() - length;
                let cut: usize = self.sizes[kept..].iter().copied().map(usize::from).sum();
                self.held.truncate(end - cut);
                return std::mem::take(&mut self.held);
            }
        }
        let kept = self.matched.iter().copied().max().unwrap_or(0);
        let shown = self.sizes.len() - kept;
        let bytes: usize = self.sizes.drain(..shown).map(usize::from).sum();
        let kept = self.held.split_off(bytes);
        std::mem::replace(&mut self.held, kept)
    }

    /// Ends a text; returns what was held of it. A stop sequence does not reach from one text into another.
    pub(super) fn end_text(&mut self) -> String {
        self.matched.fill(0);
        self.sizes.clear();
        std::mem::take(&mut self.held)
    }

    /// Takes a unit in; returns the stop sequence that it completes, and the number of its units. Of several that end
    /// here it is the one that began first.
    fn step(&mut self, unit: u16) -> Option<(usize, usize)> {
        let mut found: Option<(usize, usize)> = None;
        for (at, stop) in self.bounds.stops.iter().enumerate() {
            let matched = stop.step(self.matched[at], unit);
            self.matched[at] = matched;
            if matched == stop.units.len() && found.is_none_or(|(_, longest)| matched > longest) {
                found = Some((at, matched));
            }
        }
        found
    }
}

/// What a UTF-16 unit counts, in sixtieths of a token.
///
/// Meant to be rather too little than too much, so that no answer ends before its limit: five letters of ASCII are a
/// token, three of other scripts, one and a half of the East Asian ones. The vocabulary of the models has four and a
/// half, two and a half and one and a quarter of them to a token in prose.
const fn weight(unit: u16) -> u64 {
    match unit {
        0..0x80 => 12,
        0x80..0x2e80 => 20,
        _ => 40,
    }
}

/// The UTF-16 units of an escaped text, each with the bytes that it takes there.
fn units(literal: &str) -> Units<'_> {
    Units {
        rest: literal,
        low: None,
    }
}

struct Units<'a> {
    rest: &'a str,
    /// The second half of a character that was begun; it takes no more bytes.
    low: Option<u16>,
}

impl Iterator for Units<'_> {
    type Item = (u16, u8);

    fn next(&mut self) -> Option<(u16, u8)> {
        if let Some(low) = self.low.take() {
            return Some((low, 0));
        }
        let bytes = self.rest.as_bytes();
        if bytes.first() == Some(&b'\\') {
            let (unit, size) = match bytes.get(1) {
                Some(b'u') => {
                    let digits = self.rest.get(2..6);
                    let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                    (unit.unwrap_or(0xfffd), 6)
                }
                Some(b'n') => (0x0a, 2),
                Some(b't') => (0x09, 2),
                Some(b'r') => (0x0d, 2),
                Some(b'b') => (0x08, 2),
                Some(b'f') => (0x0c, 2),
                Some(other) => (u16::from(*other), 2),
                None => (0x5c, 1),
            };
            // Only a text that is no JSON string is shorter than its last escape.
            let size = self.rest.floor_char_boundary(size);
            self.rest = &self.rest[size..];
            return Some((unit, u8::try_from(size).unwrap_or(u8::MAX)));
        }
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        let mut pair = [0; 2];
        let encoded = next.encode_utf16(&mut pair);
        self.low = encoded.get(1).copied();
        Some((encoded[0], u8::try_from(next.len_utf8()).unwrap_or(4)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(stops: &[&str], max_tokens: Option<u64>) -> Option<Arc<Bounds>> {
        let body = serde_json::json!({
            "model": "m",
            "messages": [],
            "stop_sequences": stops,
            "max_tokens": max_tokens,
        });
        let body = body.to_string();
        Bounds::of(&Request::parse(body.as_bytes()).unwrap()).unwrap()
    }

    fn escaped(text: &str) -> String {
        let json = serde_json::to_string(text).unwrap();
        json[1..json.len() - 1].to_owned()
    }

    fn plain(literal: &str) -> String {
        serde_json::from_str(&format!("\"{literal}\"")).unwrap()
    }

    /// Runs pieces through a watch: what was shown, and the stop sequence at which it ended.
    fn run(pieces: &[&str], cut: &mut Cut) -> String {
        let mut shown = String::new();
        for piece in pieces {
            shown += &cut.take(piece);
            if cut.is_over() {
                return shown;
            }
        }
        shown + &cut.end_text()
    }

    #[test]
    fn a_request_without_bounds_has_none() {
        assert_eq!(bounds(&[], None), None);
        assert_eq!(bounds(&[""], Some(MEANT_AS_LIMIT)), None);
        assert!(bounds(&[], Some(MEANT_AS_LIMIT - 1)).is_some());
    }

    #[test]
    fn what_cannot_be_watched_for_is_refused() {
        for stops in [
            vec!["x".to_owned(); MOST_STOPS + 1],
            vec!["x".repeat(LONGEST_STOP + 1)],
        ] {
            let body = serde_json::json!({"model": "m", "messages": [], "stop_sequences": stops});
            let body = body.to_string();
            let request = Request::parse(body.as_bytes()).unwrap();
            assert_eq!(Bounds::of(&request), Err(TooManyStops));
        }
    }

    #[test]
    fn nothing_is_held_that_cannot_be_a_beginning() {
        let mut cut = Cut::new(&bounds(&["</block>"], None).unwrap());
        for (piece, shown) in [
            ("<blo", "<blo"),
            ("ck>no", "ck>no"),
            ("<", ""),
            ("/b", ""),
            ("lue>", "</blue>"),
        ] {
            assert_eq!(cut.take(piece), shown, "{piece}");
        }
        assert_eq!(cut.take(" </block"), " ");
        assert_eq!(cut.end_text(), "</block");
    }

    #[test]
    fn the_sequence_is_found_however_it_is_written() {
        for (stop, pieces, expected) in [
            (
                "</block>",
                &["<block>no</", "block>", "rest"][..],
                "<block>no",
            ),
            ("</block>", &[r"no<\/block\u003e"], "no"),
            ("\n\nHuman:", &[r"a\n", r"\u000aHuman", ":"], "a"),
            ("ä😀", &[r"x\u00e4", r"\ud83d", r"\ude00y"], "x"),
            ("ä😀", &["xä😀y"], "x"),
            ("\"", &[r#"say \"hi\""#], "say "),
            ("aab", &["aaab"], "a"),
        ] {
            let mut cut = Cut::new(&bounds(&[stop], None).unwrap());
            assert_eq!(run(pieces, &mut cut), expected, "{stop:?}");
            assert_eq!(cut.stopped_at(), Some(stop));
        }
    }

    #[test]
    fn of_several_that_end_together_the_first_to_begin_counts() {
        let mut cut = Cut::new(&bounds(&["b", "ab", "zz"], None).unwrap());
        assert_eq!(run(&["xab"], &mut cut), "x");
        assert_eq!(cut.stopped_at(), Some("ab"));
    }

    #[test]
    fn a_limit_ends_a_text_when_more_comes_than_it_allows() {
        let limit = bounds(&[], Some(2)).unwrap();
        let mut cut = Cut::new(&limit);
        assert_eq!(run(&["0123456789"], &mut cut), "0123456789");
        assert!(!cut.is_over());
        assert_eq!(cut.take("x"), "");
        assert!(cut.is_over() && cut.stopped_at().is_none());
        assert_eq!(cut.tokens(), 2);

        // A character is never cut in two.
        let mut cut = Cut::new(&limit);
        assert_eq!(run(&[r"\ud83d\ude00😀!"], &mut cut), r"\ud83d\ude00😀");
    }

    #[test]
    fn what_is_held_at_the_limit_is_shown() {
        let mut cut = Cut::new(&bounds(&["</block>"], Some(1)).unwrap());
        assert_eq!(run(&["no</", "blue"], &mut cut), "no</b");
        assert!(cut.is_over());
    }

    #[test]
    fn a_call_is_counted_and_the_next_block_does_not_begin() {
        let mut cut = Cut::new(&bounds(&["x"], Some(1)).unwrap());
        cut.begin_block();
        cut.count("xxxxxx");
        assert!(!cut.is_over());
        cut.begin_block();
        assert!(cut.is_over());
    }

    proptest! {
        #[test]
        fn the_cut_does_not_depend_on_pieces(
            text in "[ab<ä😀\n]{0,40}",
            stops in proptest::collection::vec("[ab<ä😀\n]{1,4}", 1..4),
            cuts in proptest::collection::vec(0usize..80, 0..8),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            // The first end of a stop sequence in the text, and of those that end there the longest.
            let first = (0..=text.len())
                .filter(|end| text.is_char_boundary(*end))
                .find_map(|end| {
                    let ending = stops.iter().filter(|stop| text[..end].ends_with(**stop));
                    let longest = ending.max_by_key(|stop| stop.len())?;
                    Some((&text[..end - longest.len()], *longest))
                });
            let literal = escaped(&text);
            let mut ends: Vec<usize> = cuts
                .into_iter()
                .map(|at| literal.floor_char_boundary(at.min(literal.len())))
                // Upstream's pieces are whole strings: none is cut within an escape.
                .filter(|at| !literal[..*at].ends_with('\\'))
                .collect();
            ends.extend([0, literal.len()]);
            ends.sort_unstable();
            let pieces: Vec<&str> = ends.windows(2).map(|two| &literal[two[0]..two[1]]).collect();
            let mut cut = Cut::new(&bounds(&stops, None).unwrap());
            let shown = plain(&run(&pieces, &mut cut));
            match first {
                Some((before, stop)) => {
                    prop_assert_eq!(shown, before);
                    prop_assert_eq!(cut.stopped_at(), Some(stop));
                }
                None => {
                    prop_assert_eq!(shown, text.as_str());
                    prop_assert!(!cut.is_over());
                }
            }
        }
    }
}
