//! Server-sent events: bytes in, frames out. Reads nothing and waits for nothing.
//!
//! Knows the framing of the WHATWG event stream format, and nothing of what the frames say.
//! The `id` and `retry` fields are read over: neither API uses them.

use std::ops::Range;

/// The longest record that is taken, in bytes without its closing blank line.
///
/// Upstream repeats a whole item in one record, so a record may be as long as an answer with all
/// its tool arguments (hundreds of kilobytes); 16 MiB leaves room and still bounds a stream that
/// never ends its record.
pub const RECORD_LIMIT: usize = 16 * 1024 * 1024;

/// A buffer that grew beyond this is given back once it is empty.
const KEPT_CAPACITY: usize = 256 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One record of an event stream: the `event` field and the joined `data` fields, both borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The `event` field; empty when the record had none.
    pub event: &'a str,
    /// The `data` fields joined by newlines.
    pub data: &'a str,
}

/// A record is longer than [`RECORD_LIMIT`]: the stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the event stream is longer than {RECORD_LIMIT} bytes")]
pub struct RecordTooLong;

/// Turns bytes, cut anywhere, into frames.
///
/// Lines end in LF, CRLF or CR. Invalid UTF-8 becomes U+FFFD. A record that no blank line ends is
/// no frame.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    scan: Scan,
    /// Data of a record with several `data` lines.
    joined: Vec<u8>,
    /// Texts that were not UTF-8 as they came.
    lossy_event: String,
    lossy_data: String,
    refused: bool,
}

impl Decoder {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// [`RecordTooLong`] once a record outgrows [`RECORD_LIMIT`], and from then on always. The
    /// frames before that record can still be taken.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), RecordTooLong> {
        if self.refused {
            return Err(RecordTooLong);
        }
        let consumed = self.scan.record;
        if consumed == self.buffer.len() {
            if self.buffer.capacity() > KEPT_CAPACITY {
                self.buffer = Vec::new();
            } else {
                self.buffer.clear();
            }
            self.scan.record = 0;
        } else if consumed > self.buffer.len() / 2 {
            // What moves is shorter than what was consumed, so each byte moves once on average.
            self.buffer.drain(..consumed);
            self.scan.record = 0;
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() - self.scan.record > RECORD_LIMIT {
            self.refuse_long_record()?;
        }
        Ok(())
    }

    /// Returns the next complete frame, or `None` until more bytes come.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let found = self.scan.next(&self.buffer)?;
        let data = if found.data_lines == 1 {
            &self.buffer[found.data]
        } else {
            self.joined.clear();
            join_data(&self.buffer[found.record], &mut self.joined);
            &self.joined
        };
        Some(Frame {
            event: read(&self.buffer[found.event], &mut self.lossy_event),
            data: read(data, &mut self.lossy_data),
        })
    }

    /// Says whether an unfinished record is buffered. Asked when [`Decoder::next_frame`] has
    /// nothing more to give: at the end of a stream it means that the stream was cut.
    pub fn has_tail(&self) -> bool {
        self.scan.record < self.buffer.len()
    }

    /// Looks for the record that is too long, if there is one, and forgets it and what follows.
    fn refuse_long_record(&mut self) -> Result<(), RecordTooLong> {
        let mut probe = self.scan;
        let long = loop {
            let start = probe.record;
            match probe.next(&self.buffer) {
                Some(found) if found.record.len() > RECORD_LIMIT => break found.record.start,
                Some(_) => {}
                None if self.buffer.len() - probe.record > RECORD_LIMIT => break probe.record,
                None => return Ok(()),
            }
            debug_assert!(probe.record > start);
        };
        self.buffer.truncate(long);
        if self.scan.record >= long {
            self.scan = Scan {
                record: long,
                ..Scan::default()
            };
        }
        self.refused = true;
        Err(RecordTooLong)
    }
}

/// Where the reading of a buffer stands. All positions but `record` count from `record`, so that
/// the buffer's consumed part can be dropped without touching them.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    /// Where the unfinished record begins.
    record: usize,
    /// Where its unfinished line begins.
    line: usize,
    /// Up to where that line is known to have no end.
    sought: usize,
    event: (usize, usize),
    /// The first `data` line.
    data: (usize, usize),
    data_lines: usize,
    /// Whether a field of this record was kept.
    has_fields: bool,
    /// The last line ended in CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line was seen: only it may begin with a byte order mark.
    begun: bool,
}

/// A complete record, as ranges of the buffer.
struct Found {
    record: Range<usize>,
    event: Range<usize>,
    data: Range<usize>,
    data_lines: usize,
}

impl Scan {
    fn next(&mut self, buffer: &[u8]) -> Option<Found> {
        loop {
            if self.after_cr {
                let following = *buffer.get(self.record + self.line)?;
                self.after_cr = false;
                if following == b'\n' {
                    self.go_on_at(self.line + 1);
                }
            }
            let record = &buffer[self.record..];
            let Some(at) = memchr::memchr2(b'\n', b'\r', &record[self.sought..]) else {
                self.sought = record.len();
                return None;
            };
            let end = self.sought + at;
            if !std::mem::replace(&mut self.begun, true) && record.starts_with(BYTE_ORDER_MARK) {
                self.record += BYTE_ORDER_MARK.len();
                self.sought = 0;
                continue;
            }
            let start = self.line;
            self.after_cr = record[end] == b'\r';
            if start < end {
                self.take_line(record, start, end);
                self.go_on_at(end + 1);
                continue;
            }
            let base = self.record;
            let found = Found {
                record: base..base + end,
                event: base + self.event.0..base + self.event.1,
                data: base + self.data.0..base + self.data.1,
                data_lines: self.data_lines,
            };
            *self = Self {
                record: base + end + 1,
                after_cr: self.after_cr,
                begun: true,
                ..Self::default()
            };
            if found.data_lines > 0 {
                return Some(found);
            }
        }
    }

    /// Begins the next line at `position`; lines before the first field are dropped at once.
    fn go_on_at(&mut self, position: usize) {
        if self.has_fields {
            self.line = position;
        } else {
            self.record += position;
            self.line = 0;
        }
        self.sought = self.line;
    }

    fn take_line(&mut self, record: &[u8], start: usize, end: usize) {
        match field(&record[start..end]) {
            (b"data", value) => {
                if self.data_lines == 0 {
                    self.data = (start + value, end);
                }
                self.data_lines += 1;
                self.has_fields = true;
            }
            (b"event", value) => {
                self.event = (start + value, end);
                self.has_fields = true;
            }
            _ => {}
        }
    }
}

/// Splits a line into the field's name and the offset of its value. A comment has no name.
fn field(line: &[u8]) -> (&[u8], usize) {
    let colon = if line.starts_with(b"data:") {
        4
    } else if line.starts_with(b"event:") {
        5
    } else {
        memchr::memchr(b':', line).unwrap_or(line.len())
    };
    let value = match line.get(colon + 1) {
        Some(b' ') => colon + 2,
        _ => (colon + 1).min(line.len()),
    };
    (&line[..colon], value)
}

fn join_data(record: &[u8], joined: &mut Vec<u8>) {
    let mut is_first = true;
    // A CRLF yields an empty line more, which is no field.
    for line in record.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let (b"data", value) = field(line) {
            if !is_first {
                joined.push(b'\n');
            }
            is_first = false;
            joined.extend_from_slice(&line[value..]);
        }
    }
}

fn read<'a>(bytes: &'a [u8], lossy: &'a mut String) -> &'a str {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            *lossy = String::from_utf8_lossy(bytes).into_owned();
            lossy
        }
    }
}

/// Appends one record. Neither `event` nor `data` may hold a line end: JSON without whitespace
/// between its parts never does.
pub fn encode(event: &str, data: &[u8], out: &mut Vec<u8>) {
    debug_assert!(memchr::memchr2(b'\n', b'\r', data).is_none());
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames and whether a tail is left.
    fn decode(chunks: &[&[u8]]) -> (Vec<(String, String)>, bool) {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for chunk in chunks {
            decoder.feed(chunk).unwrap();
            while let Some(frame) = decoder.next_frame() {
                frames.push((frame.event.to_owned(), frame.data.to_owned()));
            }
        }
        (frames, decoder.has_tail())
    }

    fn frames(text: &[u8]) -> Vec<(String, String)> {
        decode(&[text]).0
    }

    fn pair(event: &str, data: &str) -> (String, String) {
        (event.to_owned(), data.to_owned())
    }

    const TRICKY: &[u8] = b"\xef\xbb\xbf: hello\r\n\r\nevent: ping\ndata: {}\n\ndata:x\r\rdata: a\r\ndata\r\ndata:  b\r\nid: 7\r\nretry:\r\n\r\n\
        :\nevent: only\n\n\xff\xfe\ndata: \xf0\x9f\x98\x80\xff!\nevent: \xc3(\n\ncolonless\ndata: z\nevent: one\nevent: two\n\ndata: tail";

    #[test]
    fn the_format_is_read_as_it_is_written_down() {
        assert_eq!(
            frames(TRICKY),
            [
                pair("ping", "{}"),
                pair("", "x"),
                pair("", "a\n\n b"),
                pair("\u{fffd}(", "😀\u{fffd}!"),
                pair("two", "z"),
            ]
        );
        assert_eq!(
            frames(b"\xef\xbb\xbfdata: a\ndata: b\n\n"),
            [pair("", "a\nb")]
        );
        assert_eq!(frames(b"data\n\n"), [pair("", "")]);
        assert_eq!(frames(b"data: a\n\xef\xbb\xbfdata: b\n\n"), [pair("", "a")]);
        assert_eq!(frames(b"\n\n\r\n\r\r"), []);
    }

    #[test]
    fn frames_do_not_depend_on_chunking() {
        let whole = decode(&[TRICKY]);
        assert!(whole.1, "the last record has no end");
        for cut in 0..=TRICKY.len() {
            let (head, tail) = TRICKY.split_at(cut);
            assert_eq!(decode(&[head, tail]), whole, "cut at byte {cut}");
            for second in 0..=tail.len() {
                let (middle, end) = tail.split_at(second);
                assert_eq!(decode(&[head, middle, end]), whole, "{cut}, {second}");
            }
        }
        let bytes: Vec<&[u8]> = TRICKY.chunks(1).collect();
        assert_eq!(decode(&bytes), whole, "byte by byte");
    }

    #[test]
    fn a_tail_is_no_frame() {
        for (text, has_tail) in [
            (&b"data: x\n\n"[..], false),
            (b"data: x\n", true),
            (b"data: x", true),
            (b": comment\n", false),
            (b"data: x\r\n\r\n", false),
            (b"data: x\r\n\r", false),
            (b"", false),
        ] {
            assert_eq!(decode(&[text]).1, has_tail, "{text:?}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut bytes = Vec::new();
        encode("ping", b"{\"a\":\"\\n\"}", &mut bytes);
        encode("x", b"", &mut bytes);
        assert_eq!(
            frames(&bytes),
            [pair("ping", r#"{"a":"\n"}"#), pair("x", "")]
        );
    }

    #[test]
    fn a_record_without_end_is_refused_and_earlier_frames_are_kept() {
        let mut stream = b"data: first\n\ndata: ".to_vec();
        stream.resize(stream.len() + RECORD_LIMIT, b'x');
        for size in [stream.len(), 1 << 20] {
            let mut decoder = Decoder::default();
            let outcome = stream
                .chunks(size)
                .try_for_each(|chunk| decoder.feed(chunk));
            assert_eq!(outcome, Err(RecordTooLong));
            assert_eq!(decoder.next_frame().unwrap().data, "first");
            assert_eq!(decoder.next_frame(), None);
            assert!(!decoder.has_tail());
            assert_eq!(decoder.feed(b"\n\n"), Err(RecordTooLong));
            assert_eq!(decoder.next_frame(), None);
        }
    }

    #[test]
    fn the_longest_record_is_taken_and_many_records_need_no_limit() {
        let mut stream = b"data: ".to_vec();
        stream.resize(RECORD_LIMIT - 1, b'x');
        stream.extend_from_slice(b"\n\n");
        stream.extend_from_slice(&b"data: small\n\n".repeat(100_000));
        let mut decoder = Decoder::default();
        decoder.feed(&stream).unwrap();
        let mut count = 0;
        while decoder.next_frame().is_some() {
            count += 1;
        }
        assert_eq!(count, 100_001);
    }

    #[test]
    fn consumed_bytes_are_dropped() {
        let mut decoder = Decoder::default();
        for _ in 0..10_000 {
            decoder.feed(b"data: 0123456789\n\ndata: 01234").unwrap();
            while decoder.next_frame().is_some() {}
            decoder.feed(b"56789\n\n").unwrap();
            while decoder.next_frame().is_some() {}
        }
        assert!(
            decoder.buffer.capacity() < 1024,
            "{}",
            decoder.buffer.capacity()
        );
    }
}
