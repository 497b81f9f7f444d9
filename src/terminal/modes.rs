//! Knows which terminal modes a client has switched on, from the bytes it wrote.
//!
//! Fed with output cut anywhere; keeps only what [`Modes::reset`] needs to switch off exactly what was
//! left on. Knows the modes of contract supervision F11 and T14, nothing else of the screen.

use memchr::memchr;

/// Longest parameter text that is looked at. The longest that a client sends names some ten modes.
const PARAMETERS: usize = 128;

/// DEC private modes that are off at rest.
const OFF_AT_REST: &[u16] = &[
    1, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026, 2031,
];

/// DEC private modes that are on at rest: wrapping at the margin, a visible cursor.
const ON_AT_REST: &[u16] = &[7, 25];

/// The three ways to the alternate screen.
const ALTERNATE: &[u16] = &[47, 1047, 1049];

/// How a sequence is being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Text,
    Escape,
    Control(Vec<u8>),
    /// Inside a string (OSC, DCS, APC, PM, SOS); `bell` if BEL ends it too.
    String {
        bell: bool,
    },
    StringEscape {
        bell: bool,
    },
}

/// The keyboard protocol of one screen: kitty keeps them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keyboard {
    pushed: u32,
    has_flags: bool,
}

/// The modes of a terminal, as far as a client's output has changed them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    place: Place,
    changed: Vec<u16>,
    alternate: Option<u16>,
    main_keyboard: Keyboard,
    alternate_keyboard: Keyboard,
    modify_other_keys: bool,
}

impl Modes {
    /// Takes what the client wrote next.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.place == Place::Text {
                // Almost everything is text: jump to the next sequence.
                let Some(at) = memchr(ESCAPE, bytes) else {
                    return;
                };
                self.place = Place::Escape;
                bytes = &bytes[at + 1..];
                continue;
            }
            self.step(bytes[0]);
            bytes = &bytes[1..];
        }
    }

    /// Returns the sequences that switch off what is still on; empty if nothing is.
    pub fn reset(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut off = |mode: u16| {
            if self.changed.contains(&mode) {
                let end = if ON_AT_REST.contains(&mode) { 'h' } else { 'l' };
                out.extend_from_slice(format!("\x1b[?{mode}{end}").as_bytes());
            }
        };
        // First of all the screen must be shown again.
        off(2026);
        for mode in OFF_AT_REST.iter().filter(|mode| **mode != 2026) {
            off(*mode);
        }
        for mode in ON_AT_REST {
            off(*mode);
        }
        if self.modify_other_keys {
            out.extend_from_slice(b"\x1b[>4m");
        }
        if let Some(mode) = self.alternate {
            self.alternate_keyboard.reset(&mut out);
            out.extend_from_slice(format!("\x1b[?{mode}l").as_bytes());
        }
        self.main_keyboard.reset(&mut out);
        out
    }

    fn step(&mut self, byte: u8) {
        self.place = match (std::mem::take(&mut self.place), byte) {
            (Place::String { bell: true }, BELL) => Place::Text,
            (Place::String { bell }, ESCAPE) => Place::StringEscape { bell },
            (Place::String { .. } | Place::StringEscape { .. }, CANCEL | SUBSTITUTE) => Place::Text,
            (Place::String { bell }, _) => Place::String { bell },
            (Place::StringEscape { .. }, b'\\') => Place::Text,
            // Any other escape ends the string and begins anew.
            (Place::StringEscape { .. } | Place::Escape, _) => self.escape(byte),
            (Place::Control(_), ESCAPE) => Place::Escape,
            (Place::Control(_), CANCEL | SUBSTITUTE) => Place::Text,
            (Place::Control(parameters), 0x40..=0x7e) => {
                self.control(&parameters, byte);
                Place::Text
            }
            (Place::Control(mut parameters), 0x20..=0x3f) => {
                if parameters.len() < PARAMETERS {
                    parameters.push(byte);
                }
                Place::Control(parameters)
            }
            // Other control characters take effect inside a sequence without ending it.
            (place @ Place::Control(_), _) => place,
            (Place::Text, _) => Place::Text,
        };
    }

    fn escape(&mut self, byte: u8) -> Place {
        match byte {
            b'[' => Place::Control(Vec::new()),
            b']' => Place::String { bell: true },
            b'P' | b'X' | b'^' | b'_' => Place::String { bell: false },
            ESCAPE => Place::Escape,
            b'c' => {
                *self = Self::default();
                Place::Text
            }
            _ => Place::Text,
        }
    }

    fn control(&mut self, parameters: &[u8], end: u8) {
        if parameters.len() == PARAMETERS {
            return;
        }
        match (parameters.split_first(), end) {
            (Some((b'?', modes)), b'h') => self.set(modes, true),
            (Some((b'?', modes)), b'l') => self.set(modes, false),
            (Some((b'>', _)), b'u') => self.keyboard().push(),
            (Some((b'<', count)), b'u') => {
                let count = numbers(count).next().flatten().unwrap_or(1);
                self.keyboard().pop(count.max(1));
            }
            (Some((b'=', flags)), b'u') => self.keyboard().change(flags),
            (Some((b'>', keys)), b'm') => {
                let mut keys = numbers(keys);
                match (keys.next().flatten(), keys.next().flatten()) {
                    (Some(4), value) => self.modify_other_keys = value.unwrap_or(0) > 0,
                    (None, _) => self.modify_other_keys = false,
                    _ => {}
                }
            }
            (Some((b'>', keys)), b'n') if numbers(keys).next() == Some(Some(4)) => {
                self.modify_other_keys = false;
            }
            (Some((b'!', [])), b'p') => {
                // Soft reset: cursor, wrapping and cursor keys, not the reports of the mouse.
                self.changed.retain(|mode| ![1, 7, 25].contains(mode));
            }
            _ => {}
        }
    }

    fn set(&mut self, modes: &[u8], on: bool) {
        for mode in numbers(modes).flatten() {
            let Ok(mode) = u16::try_from(mode) else {
                continue;
            };
            if ALTERNATE.contains(&mode) {
                self.alternate = on.then_some(mode);
                continue;
            }
            let at_rest = ON_AT_REST.contains(&mode);
            if !at_rest && !OFF_AT_REST.contains(&mode) {
                continue;
            }
            self.changed.retain(|other| *other != mode);
            if on != at_rest {
                self.changed.push(mode);
            }
        }
    }

    const fn keyboard(&mut self) -> &mut Keyboard {
        match self.alternate {
            Some(_) => &mut self.alternate_keyboard,
            None => &mut self.main_keyboard,
        }
    }
}

impl Keyboard {
    const fn push(&mut self) {
        self.pushed = self.pushed.saturating_add(1);
    }

    fn pop(&mut self, count: u32) {
        // Popping past the bottom of the stack resets the flags.
        if count > self.pushed {
            self.has_flags = false;
        }
        self.pushed = self.pushed.saturating_sub(count);
    }

    fn change(&mut self, flags: &[u8]) {
        let mut flags = numbers(flags).map(|number| number.unwrap_or(0));
        let (value, way) = (flags.next().unwrap_or(0), flags.next().unwrap_or(1));
        // Way 3 takes flags away; which are left is not kept, so they count as on.
        if way != 3 && self.pushed == 0 {
            self.has_flags = value != 0 || (way == 2 && self.has_flags);
        }
    }

    fn reset(&self, out: &mut Vec<u8>) {
        if self.pushed > 0 {
            out.extend_from_slice(format!("\x1b[<{}u", self.pushed).as_bytes());
        }
        if self.has_flags {
            out.extend_from_slice(b"\x1b[=0u");
        }
    }
}

/// Returns what switches every known mode off, for a terminal whose output nobody watched.
pub const fn reset_all() -> &'static [u8] {
    b"\x1b[?2026l\x1b[?1l\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\
      \x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?2004l\x1b[?2031l\x1b[?7h\x1b[?25h\x1b[>4m\
      \x1b[<99u\x1b[?1049l\x1b[<99u"
}

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;
const CANCEL: u8 = 0x18;
const SUBSTITUTE: u8 = 0x1a;

/// Reads numbers between semicolons; an empty or unreadable one is `None`.
fn numbers(text: &[u8]) -> impl Iterator<Item = Option<u32>> + '_ {
    text.split(|byte| *byte == b';')
        .map(|number| std::str::from_utf8(number).ok()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_on(output: &[&str]) -> String {
        let mut modes = Modes::default();
        for part in output {
            modes.feed(part.as_bytes());
        }
        String::from_utf8(modes.reset()).unwrap()
    }

    #[test]
    fn exactly_what_is_on_is_switched_off() {
        for (output, reset) in [
            ("plain text\r\n", ""),
            ("\x1b[?2004h", "\x1b[?2004l"),
            ("\x1b[?2004h\x1b[?2004l", ""),
            ("\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?25l\x1b[?25h", ""),
            ("\x1b[?7l", "\x1b[?7h"),
            ("\x1b[?1000;1006h", "\x1b[?1000l\x1b[?1006l"),
            ("\x1b[?1000;1006h\x1b[?1000l", "\x1b[?1006l"),
            ("\x1b[?1004h\x1b[?2026h", "\x1b[?2026l\x1b[?1004l"),
            ("\x1b[?2031h\x1b[?2031h", "\x1b[?2031l"),
            ("\x1b[?1049h", "\x1b[?1049l"),
            ("\x1b[?47h\x1b[?47l", ""),
            ("\x1b[>5u", "\x1b[<1u"),
            ("\x1b[>5u\x1b[>1u\x1b[<u", "\x1b[<1u"),
            ("\x1b[>5u\x1b[<3u", ""),
            ("\x1b[=5u", "\x1b[=0u"),
            ("\x1b[=5;1u\x1b[=0u", ""),
            ("\x1b[?u", ""),
            ("\x1b[>4;2m", "\x1b[>4m"),
            ("\x1b[>4;2m\x1b[>4m", ""),
            ("\x1b[>4;2m\x1b[>4n", ""),
            // Pushes belong to the screen they were made on.
            ("\x1b[>5u\x1b[?1049h\x1b[>1u", "\x1b[<1u\x1b[?1049l\x1b[<1u"),
            ("\x1b[>5u\x1b[?1049h\x1b[>1u\x1b[<u\x1b[?1049l\x1b[<u", ""),
            // Inside strings nothing counts, and strings end as they should.
            ("\x1b]0;a title \x1b\\\x1b[?2004h", "\x1b[?2004l"),
            ("\x1b]0;title\x07\x1b[?2004h", "\x1b[?2004l"),
            ("\x1b_Gq=2;\x07AAAA[?2004h\x1b\\", ""),
            ("\x1bP+q[?25l\x1b\\", ""),
            // A cancelled sequence is none; a control character inside one does not end it.
            ("\x1b[?2004\x18h", ""),
            ("\x1b[?20\n04h", "\x1b[?2004l"),
            ("\x1b[?2004\x1b[?1004h", "\x1b[?1004l"),
            // A full reset ends everything; a question about a mode changes nothing.
            ("\x1b[?2004;1049h\x1bc", ""),
            ("\x1b[?25l\x1b[?1000h\x1b[!p", "\x1b[?1000l"),
            ("\x1b[?2026$p\x1b[?9999h\x1b[?99999999999h", ""),
        ] {
            assert_eq!(left_on(&[output]), reset, "{output:?}");
        }
    }

    #[test]
    fn cuts_do_not_matter() {
        let output = "a\x1b[?1000;1006h\x1b]0;t\x1b\\\x1b[>5u\x1b[>4;2m\x1b[?1049h\x1b[?25lz";
        let whole = left_on(&[output]);
        for cut in 0..=output.len() {
            let (head, tail) = output.split_at(cut);
            assert_eq!(left_on(&[head, tail]), whole, "cut at {cut}");
        }
        let singly: Vec<&str> = output.split("").collect();
        assert_eq!(left_on(&singly), whole);
    }

    #[test]
    fn after_a_reset_nothing_is_on() {
        let mut modes = Modes::default();
        modes.feed(b"\x1b[?1000;1002;1003;1006;1016;1004;2004;2026;2031h\x1b[?25;7l");
        modes.feed(b"\x1b[>4;2m\x1b[>5u\x1b[?1049h\x1b[=3u\x1b[>1u");
        for reset in [modes.reset(), reset_all().to_vec()] {
            let mut after = modes.clone();
            after.feed(&reset);
            assert_eq!(after, Modes::default());
        }
    }

    #[test]
    fn endless_parameters_are_not_kept() {
        let mut modes = Modes::default();
        modes.feed(b"\x1b[?");
        modes.feed(&[b'1'; 100_000]);
        modes.feed(b"h\x1b[?2004h");
        assert_eq!(modes.reset(), b"\x1b[?2004l");
    }
}
