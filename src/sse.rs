//! Server-sent events: bytes in, frames out. Reads nothing and waits for nothing.

/// One record of an event stream: the `event` field and the joined `data` fields, both borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The `event` field; empty when the record had none.
    pub event: &'a str,
    /// The `data` fields joined by newlines.
    pub data: &'a str,
}

/// Turns bytes, cut anywhere, into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete frame, or `None` until more bytes come.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        None
    }
}
