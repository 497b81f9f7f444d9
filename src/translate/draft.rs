//! One item of the answer while it is written: what was told of it, in pieces, as a whole, or
//! both, becomes content blocks, each piece of text once.
//!
//! Does not know of the other items; whether its turn has come is the caller's affair.

use std::borrow::Cow;

use crate::translate::cut::Cut;
use crate::translate::hits::{self, Found};
use crate::translate::reasoning::Seal;
use crate::translate::records::{self, Block, Blocks};
use crate::translate::stream::Setup;
use crate::translate::tidy;
use crate::wire::responses::{Item, ItemKind};
use crate::wire::searches::{self, Page};

/// Which text of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// A message's text or refusal.
    Text,
    /// A reasoning summary.
    Summary,
    /// Reasoning in the raw.
    Thought,
    /// The arguments of a function call.
    Arguments,
    /// The input of a custom call.
    Input,
}

impl Channel {
    /// The kind of item that has this text.
    pub(super) const fn item(self) -> ItemKind {
        match self {
            Self::Text => ItemKind::Message,
            Self::Summary | Self::Thought => ItemKind::Reasoning,
            Self::Arguments => ItemKind::Call,
            Self::Input => ItemKind::CustomCall,
        }
    }
}

/// A part of an item: the channel, and its place among the channel's parts.
pub(super) type Part = (Channel, u64);

/// Something told of an item. Texts are still escaped.
#[derive(Debug)]
pub(super) enum Told<'a> {
    /// The next piece of a part.
    Piece(Part, Cow<'a, str>),
    /// All of a part.
    Whole(Part, Cow<'a, str>),
    /// A page that a part cites.
    Cite(Part, Page),
    /// The whole item, as JSON.
    Done(Cow<'a, str>),
}

impl Told<'_> {
    /// Bytes that it takes to hold this.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Piece(_, text) | Self::Whole(_, text) | Self::Done(text) => text.len(),
                Self::Cite(_, page) => page.url.len() + page.title.as_ref().map_or(0, String::len),
            }
    }

    fn into_owned(self) -> Told<'static> {
        match self {
            Self::Piece(part, text) => Told::Piece(part, Cow::Owned(text.into_owned())),
            Self::Whole(part, text) => Told::Whole(part, Cow::Owned(text.into_owned())),
            Self::Cite(part, page) => Told::Cite(part, page),
            Self::Done(item) => Told::Done(Cow::Owned(item.into_owned())),
        }
    }
}

/// What a draft is written with.
pub(super) struct Pen<'a> {
    pub(super) setup: &'a Setup,
    pub(super) is_started: &'a mut bool,
    pub(super) blocks: &'a mut Blocks,
    /// The watch over the answer, where it has bounds.
    pub(super) cut: Option<&'a mut Cut>,
    pub(super) out: &'a mut Vec<u8>,
}

impl Pen<'_> {
    /// Writes `message_start`, once.
    pub(super) fn start(&mut self) {
        if !std::mem::replace(self.is_started, true) {
            let Setup {
                message_id,
                model,
                input_tokens,
                ..
            } = self.setup;
            records::message_start(message_id, model, *input_tokens, self.out);
        }
    }

    pub(super) fn open(&mut self, block: Block<'_>) {
        self.start();
        if self.cut.is_some() {
            self.end_text();
            if let Some(cut) = &mut self.cut {
                cut.begin_block();
                if cut.is_over() {
                    self.blocks.shut(self.out);
                } else if matches!(block, Block::Text) {
                    // All of it may turn out to be a stop sequence.
                    self.blocks.close(self.out);
                    cut.is_block_due = true;
                    return;
                }
            }
        }
        self.blocks.open(block, self.out);
    }

    /// Writes a piece of text, as far as the answer may go.
    fn text(&mut self, literal: &str) {
        let Some(cut) = &mut self.cut else {
            return self.delta(literal);
        };
        if cut.is_over() {
            return;
        }
        let shown = cut.take(literal);
        self.show(&shown);
        if self.cut.as_ref().is_some_and(|cut| cut.is_over()) {
            self.blocks.shut(self.out);
        }
    }

    /// Writes a piece of a call, which is counted but never cut.
    fn argument(&mut self, literal: &str) {
        if let Some(cut) = &mut self.cut {
            cut.count(literal);
        }
        self.delta(literal);
    }

    /// Writes what was held back of a text: nothing more of it will come.
    fn end_text(&mut self) {
        if let Some(cut) = &mut self.cut
            && !cut.is_over()
        {
            let held = cut.end_text();
            self.show(&held);
            if let Some(cut) = &mut self.cut {
                cut.is_block_due = false;
            }
        }
    }

    /// Writes what the watch lets through; begins the block that is due.
    fn show(&mut self, literal: &str) {
        let Some(cut) = &mut self.cut else { return };
        if literal.is_empty() {
            return;
        }
        if std::mem::take(&mut cut.is_block_due) {
            self.blocks.open(Block::Text, self.out);
        }
        self.blocks.delta(literal, self.out);
    }

    /// Says whether a text block is open, or will be with the first text that may be shown.
    fn has_text_block(&self) -> bool {
        self.blocks.is_open() || self.cut.as_ref().is_some_and(|cut| cut.is_block_due)
    }

    /// Ends the open block, if one is open.
    pub(super) fn close(&mut self) {
        self.end_text();
        self.blocks.close(self.out);
    }

    pub(super) fn delta(&mut self, literal: &str) {
        self.blocks.delta(literal, self.out);
    }

    /// Writes a block that comes as a whole.
    pub(super) fn whole(&mut self, content: &str) {
        self.start();
        self.end_text();
        self.blocks.whole(content, self.out);
    }
}

/// One item of the answer.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) kind: ItemKind,
    /// The item's place in the answer, where it was told.
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    call_id: Option<String>,
    name: Option<String>,
    /// Told before its turn, or before the call's name was known.
    held: Vec<Told<'static>>,
    /// What was written of each part, still escaped.
    written: Vec<(Part, String)>,
    /// The part written last.
    current: Option<Part>,
    /// Whether the whole item was told: nothing told later counts.
    pub(super) is_done: bool,
    /// Whether everything was written and the block is closed.
    pub(super) is_finished: bool,
    /// Whether the arguments are told at the end, when it is known what can be left out of them.
    is_tidied: bool,
    /// Bytes of whitespace at the end of the arguments so far.
    pub(super) blank_run: usize,
    has_arguments: bool,
    /// What a search found; told when it is done.
    pub(super) found: Option<Box<Found>>,
    /// Addresses that were cited in the block at hand.
    cited: Vec<String>,
}

impl Draft {
    pub(super) fn new(kind: ItemKind, index: Option<u64>, id: Option<&str>) -> Self {
        Self {
            kind,
            index,
            id: id.map(str::to_owned),
            call_id: None,
            name: None,
            held: Vec::new(),
            written: Vec::new(),
            current: None,
            is_done: false,
            is_finished: false,
            is_tidied: false,
            blank_run: 0,
            has_arguments: false,
            found: None,
            cited: Vec::new(),
        }
    }

    /// Says whether the item is a call.
    pub(super) fn is_call(&self) -> bool {
        matches!(self.kind, ItemKind::Call | ItemKind::CustomCall)
    }

    /// Says whether enough is known to begin the block: a call needs a name and an id.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_call() || (self.name.is_some() && self.call_id.is_some())
    }

    /// Takes ids and the name from the item as far as it was told.
    pub(super) fn learn(&mut self, item: &Item<'_>) {
        let learn = |known: &mut Option<String>, told: Option<Cow<'_, str>>| {
            if known.is_none() {
                *known = told.map(Cow::into_owned);
            }
        };
        learn(&mut self.id, item.id());
        learn(&mut self.call_id, item.call_id());
        learn(&mut self.name, item.name());
    }

    /// Makes up the id of a call that was told without: the client only has to name it again.
    pub(super) fn assume_call_id(&mut self, otherwise: impl FnOnce() -> String) {
        if self.is_call() && self.name.is_some() && self.call_id.is_none() {
            self.call_id = Some(self.id.clone().unwrap_or_else(otherwise));
        }
    }

    /// Keeps what was told until the item's turn.
    pub(super) fn hold(&mut self, told: Told<'_>) {
        match (self.held.last_mut(), told) {
            (Some(Told::Piece(last, text)), Told::Piece(part, more)) if *last == part => {
                text.to_mut().push_str(&more);
            }
            (_, told) => self.held.push(told.into_owned()),
        }
    }

    /// Says whether something is kept for the item's turn.
    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Writes what is known of a search whose turn has come.
    pub(super) fn search(&mut self, pen: &mut Pen<'_>) {
        let id = self.id.as_deref().unwrap_or_default();
        if let Some(found) = &mut self.found {
            self.is_finished |= found.write(id, pen);
        }
    }

    /// Writes what was held.
    pub(super) fn release(&mut self, pen: &mut Pen<'_>) {
        for told in std::mem::take(&mut self.held) {
            self.write(&told, pen);
        }
    }

    /// Writes what was told. The item must be ready and its turn must have come.
    pub(super) fn write(&mut self, told: &Told<'_>, pen: &mut Pen<'_>) {
        if self.is_finished {
            return;
        }
        match told {
            Told::Piece(part, text) => self.piece(*part, text, pen),
            Told::Whole(part, text) => self.whole(*part, text, pen),
            Told::Cite(part, page) => self.cite(*part, page, pen),
            Told::Done(json) => {
                if let Some(item) = Item::parse(json) {
                    self.item(&item, json, pen);
                }
                self.finish(pen);
            }
        }
    }

    /// Writes the next piece of a part.
    pub(super) fn piece(&mut self, part: Part, text: &str, pen: &mut Pen<'_>) {
        if text.is_empty() {
            return;
        }
        self.open(part, pen);
        self.current = Some(part);
        match self.written.iter_mut().rev().find(|(key, _)| *key == part) {
            Some((_, written)) => written.push_str(text),
            None => self.written.push((part, text.to_owned())),
        }
        match part.0 {
            Channel::Input => pen.argument(&escaped_again(text)),
            Channel::Arguments => {
                self.has_arguments |= !is_blank(text);
                if !self.is_tidied {
                    pen.argument(text);
                }
            }
            Channel::Text => pen.text(text),
            Channel::Summary | Channel::Thought => pen.delta(text),
        }
    }

    /// Sees to it that the block is open that the part's next piece belongs to.
    fn open(&mut self, part: Part, pen: &mut Pen<'_>) {
        let is_open = pen.blocks.is_open();
        match part.0 {
            // Each part of a message is a block of its own.
            Channel::Text if self.current == Some(part) && pen.has_text_block() => {}
            Channel::Text => {
                self.cited.clear();
                pen.open(Block::Text);
            }
            // All of an item's reasoning is one block, for it has one signature.
            Channel::Summary | Channel::Thought if !is_open => {
                pen.open(Block::Thinking);
            }
            Channel::Summary | Channel::Thought => {
                if self.current != Some(part) {
                    pen.delta(r"\n\n");
                }
            }
            Channel::Arguments | Channel::Input => self.open_call(pen),
        }
    }

    fn open_call(&mut self, pen: &mut Pen<'_>) {
        if pen.blocks.is_open() {
            return;
        }
        let name = self.name.as_deref().unwrap_or_default();
        let tool = Block::Tool {
            id: self.call_id.as_deref().unwrap_or_default(),
            name: pen.setup.names.original(name),
        };
        pen.open(tool);
        self.is_tidied =
            self.kind == ItemKind::Call && tidy::has_work(pen.setup.names.original(name));
        if self.kind == ItemKind::CustomCall {
            pen.delta(r#"{\"input\":\""#);
        }
    }

    /// Writes what is new in the whole of a part.
    ///
    /// What was written cannot be taken back: where the whole does not begin with it, the whole
    /// adds nothing.
    fn whole(&mut self, part: Part, text: &str, pen: &mut Pen<'_>) {
        let written = self
            .written
            .iter()
            .find(|(key, _)| *key == part)
            .map_or("", |(_, written)| written.as_str());
        match text.strip_prefix(written) {
            Some(rest) => self.piece(part, rest, pen),
            None => {
                if let Some(rest) = decoded_rest(text, written) {
                    self.piece(part, &rest, pen);
                }
            }
        }
    }

    fn parts(&mut self, channel: Channel, texts: &[Cow<'_, str>], pen: &mut Pen<'_>) {
        for (place, text) in (0..).zip(texts) {
            self.whole((channel, place), text, pen);
        }
    }

    /// Writes the citation of `page`, once, if its part is the one that is open.
    fn cite(&mut self, part: Part, page: &Page, pen: &mut Pen<'_>) {
        let Some(search) = &pen.setup.search else {
            return;
        };
        let url = hits::clean(&page.url);
        if !pen.blocks.is_open()
            || self.current != Some(part)
            || self.cited.iter().any(|known| known == url)
        {
            return;
        }
        if let Some(citation) = hits::citation(page, &search.domains) {
            self.cited.push(url.to_owned());
            pen.blocks.citation(&citation, pen.out);
        }
    }

    /// Writes the texts of a message, each with what it cites.
    fn message(&mut self, item: &Item<'_>, json: &str, pen: &mut Pen<'_>) {
        if pen.setup.search.is_none() {
            return self.parts(Channel::Text, &item.content(), pen);
        }
        let citations = searches::citations(json);
        for (place, text) in item.content().iter().enumerate() {
            let part = (Channel::Text, place as u64);
            self.whole(part, text, pen);
            let cited = citations.get(place).map_or(&[][..], Vec::as_slice);
            if !cited.is_empty() {
                // The text is whole, so nothing of it is held back any more.
                pen.end_text();
            }
            for page in cited {
                self.cite(part, page, pen);
            }
        }
    }

    fn item(&mut self, item: &Item<'_>, json: &str, pen: &mut Pen<'_>) {
        match self.kind {
            ItemKind::Message => self.message(item, json, pen),
            ItemKind::Reasoning => {
                self.parts(Channel::Summary, &item.summary(), pen);
                self.parts(Channel::Thought, &item.content(), pen);
                if let Some(encrypted) = item.encrypted() {
                    if !pen.blocks.is_open() {
                        pen.open(Block::Thinking);
                    }
                    let seal = Seal {
                        account: &pen.setup.origin.account,
                        model: &pen.setup.origin.model,
                        id: self.id.as_deref().unwrap_or_default(),
                        encrypted: &encrypted,
                    };
                    pen.blocks.signature(&seal.write(), pen.out);
                }
            }
            ItemKind::Call => self.parts(Channel::Arguments, item.arguments().as_slice(), pen),
            ItemKind::CustomCall => self.parts(Channel::Input, item.input().as_slice(), pen),
            // Told by the machine, which knows of the other searches.
            ItemKind::Search => {}
        }
    }

    /// Ends an item that was cut off: a call that was not told to its end must not look complete.
    pub(super) fn cut_off(&mut self, pen: &mut Pen<'_>) {
        if !self.is_call() {
            return self.finish(pen);
        }
        self.is_finished = true;
        if let Some(arguments) = self.untold() {
            pen.argument(&arguments);
        }
        pen.close();
        self.written = Vec::new();
    }

    /// The arguments that were kept until the end, where they were.
    fn untold(&mut self) -> Option<String> {
        let is_kept = std::mem::take(&mut self.is_tidied);
        let mut parts = std::mem::take(&mut self.written).into_iter();
        is_kept
            .then(|| parts.next().map(|(_, text)| text))
            .flatten()
    }

    /// Ends the item: nothing more will be told of it.
    pub(super) fn finish(&mut self, pen: &mut Pen<'_>) {
        self.search(pen);
        self.is_finished = true;
        match self.kind {
            ItemKind::Call => {
                self.open_call(pen);
                if let Some(arguments) = self.untold() {
                    pen.argument(&tidy::arguments(&arguments));
                }
                if !self.has_arguments {
                    pen.delta("{}");
                }
            }
            ItemKind::CustomCall => {
                self.open_call(pen);
                pen.delta(r#"\"}"#);
            }
            ItemKind::Message | ItemKind::Reasoning | ItemKind::Search => {}
        }
        pen.close();
        self.written = Vec::new();
    }
}

/// Says whether an escaped text is whitespace only.
pub(super) fn is_blank(text: &str) -> bool {
    let mut bytes = text.bytes();
    loop {
        match bytes.next() {
            None => return true,
            Some(b' ') => {}
            Some(b'\\') if matches!(bytes.next(), Some(b'n' | b't' | b'r')) => {}
            Some(_) => return false,
        }
    }
}

/// Escapes an escaped text once more, so that it can stand in a string inside a string.
fn escaped_again(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    // An escaped text holds quotes only behind backslashes.
    Cow::Owned(text.replace('\\', r"\\").replace('"', r#"\""#))
}

/// The rest of `text` behind `written`, where the two are escaped in different ways.
fn decoded_rest(text: &str, written: &str) -> Option<String> {
    let decode = |text: &str| serde_json::from_str::<String>(&format!("\"{text}\"")).ok();
    let (text, written) = (decode(text)?, decode(written)?);
    let rest = serde_json::Value::from(text.strip_prefix(&written)?).to_string();
    Some(rest[1..rest.len() - 1].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_means_nothing_but_json_whitespace() {
        for (text, blank) in [
            ("", true),
            ("  ", true),
            (r" \n\t\r", true),
            (r"\\n", false),
            ("{", false),
            (r" \u0020", false),
        ] {
            assert_eq!(is_blank(text), blank, "{text}");
        }
    }

    #[test]
    fn a_text_escaped_twice_is_itself_after_two_decodings() {
        for text in ["plain", "a\"b\\c\nd", "\u{1}ä😀", "\\\"\\\\"] {
            let once = serde_json::to_string(text).unwrap();
            let twice = format!("\"\\\"{}\\\"\"", escaped_again(&once[1..once.len() - 1]));
            let outer: String = serde_json::from_str(&twice).unwrap();
            let inner: String = serde_json::from_str(&outer).unwrap();
            assert_eq!(inner, text);
        }
    }

    #[test]
    fn the_rest_is_found_under_different_escapes() {
        assert_eq!(decoded_rest(r"\u00e4b\n", "ä").as_deref(), Some(r"b\n"));
        assert_eq!(decoded_rest("abc", "x"), None);
        assert_eq!(decoded_rest("abc", r"\ud800"), None);
    }
}
