//! Pictures and files in base64: what they really are, and which of a long conversation are sent.
//!
//! Upstream refuses the whole request for one picture that it cannot read, and the client sends it again with every
//! later turn. So a picture is looked at before it goes out. Whoever declared it may be wrong about its type: tools
//! name files by their extensions.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::catalogue::model::Lane;
use crate::translate::papers::is_pdf;
use crate::wire::blocks::{Block, Content, Source};
use crate::wire::json::Text;
use crate::wire::messages::Message;

/// The largest picture, in characters of base64: 20 MB, the public API's limit for one picture.
const LARGEST_PICTURE: usize = 20_000_000 / 3 * 4;

/// How many bytes of base64 a request may carry. The body stays below the 32 MB that the client and others in
/// between allow, with room for all text that a window holds.
const MOST_BYTES: usize = 24 << 20;

/// What is left out at a time, in bytes of base64. Each time rewrites the beginning of the conversation, and upstream has to
/// read it anew; in large steps that is seldom.
const STEP_BYTES: usize = 8 << 20;

/// Returns the media type that upstream knows for the picture in `data`, and its clean base64. `None` if it is none
/// that upstream reads (PNG, JPEG, GIF, WebP).
pub(super) fn picture(data: Text<'_>) -> Option<(&'static str, Cow<'_, str>)> {
    let data = base64(data).filter(|data| data.len() <= LARGEST_PICTURE)?;
    let head = head(&data);
    let media_type = match head.as_slice() {
        [0x89, b'P', b'N', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => "image/webp",
        _ => return None,
    };
    Some((media_type, data))
}

/// Returns the text of a file of a `text/` kind.
pub(super) fn plain_text(data: Text<'_>) -> Option<String> {
    let bytes = STANDARD.decode(base64(data)?.as_bytes()).ok()?;
    String::from_utf8(bytes).ok()
}

/// Returns `data` as standard base64 with its padding; `None` if it is something else.
///
/// Almost always it is that already. Otherwise these are set right: white space in it, the alphabet of addresses,
/// missing padding, bits behind the last byte, a data URL's head in front.
pub(super) fn base64(data: Text<'_>) -> Option<Cow<'_, str>> {
    let written = data.escaped();
    if is_clean(written.as_bytes()) {
        return Some(Cow::Borrowed(written));
    }
    let value = data.value();
    let value = match value.split_once(";base64,") {
        Some((head, rest)) if head.starts_with("data:") => rest,
        _ => &value,
    };
    let mut clean: String = value
        .chars()
        .filter(|c| !c.is_ascii_whitespace() && *c != '=')
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    while matches!(clean.len() % 4, 2 | 3) {
        clean.push('=');
    }
    if let Some(at) = clean.bytes().rposition(|byte| byte != b'=')
        && let Some(last) = last_digit(clean.as_bytes()[at], clean.len() - 1 - at)
    {
        clean.replace_range(at..=at, char::from(last).encode_utf8(&mut [0; 4]));
    }
    is_clean(clean.as_bytes()).then_some(Cow::Owned(clean))
}

/// Says whether `bytes` are base64 as every reader takes it.
fn is_clean(bytes: &[u8]) -> bool {
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &bytes[..bytes.len() - padding];
    !digits.is_empty()
        && padding <= 2
        && bytes.len().is_multiple_of(4)
        && digits
            .last()
            .is_some_and(|last| last_digit(*last, padding) == Some(*last))
        && digits.iter().fold(true, |is_base64, byte| {
            is_base64 & (byte.is_ascii_alphanumeric() | matches!(byte, b'+' | b'/'))
        })
}

/// Returns the last digit without the bits that `padding` says are behind the last byte: strict readers refuse them.
fn last_digit(digit: u8, padding: usize) -> Option<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = DIGITS.iter().position(|known| *known == digit)?;
    let behind = (1_usize << (2 * padding.min(2))) - 1;
    Some(DIGITS[value & !behind])
}

/// The first bytes, at most 12.
fn head(data: &str) -> Vec<u8> {
    let head = &data[..data.len().min(16)];
    STANDARD.decode(head).unwrap_or_default()
}

/// Returns how many bytes of base64, counted from the beginning of the conversation, are left out, so that a
/// request of `size_bytes` with `messages` is not too large.
///
/// A step back grows only with another step's worth of new pictures: until then a turn begins with the bytes of the
/// turn before it.
pub(super) fn left_out(size_bytes: usize, messages: &[Message<'_>], lane: Lane) -> usize {
    // It cannot hold more than itself.
    if size_bytes <= MOST_BYTES {
        return 0;
    }
    let total: usize = messages
        .iter()
        .map(|message| within(&message.content, lane))
        .sum();
    total.saturating_sub(MOST_BYTES).div_ceil(STEP_BYTES) * STEP_BYTES
}

fn within(content: &Content<'_>, lane: Lane) -> usize {
    let Content::Blocks(blocks) = content else {
        return 0;
    };
    let bytes = |block: &Block<'_>| match block {
        Block::Image(Source::Base64 { data, .. } | Source::Url(data)) => data.escaped().len(),
        Block::Document(document) => match &document.source {
            Source::Base64 { media_type, data }
                if media_type.escaped().starts_with("image")
                    || lane == Lane::Full && is_pdf(document) =>
            {
                data.escaped().len()
            }
            Source::Content(content) => within(content, lane),
            _ => 0,
        },
        Block::ToolResult(result) => {
            let content = result.content.as_ref();
            content.map_or(0, |content| within(content, lane))
        }
        _ => 0,
    };
    blocks.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::Reader;
    use crate::wire::messages::Request;

    fn text(json: &str) -> Text<'_> {
        Reader::new(json.as_bytes()).unwrap().string().unwrap()
    }

    #[test]
    fn pictures_are_known_by_their_bytes() {
        for (data, expected) in [
            (r#""iVBORw0KGgo=""#, Some(("image/png", "iVBORw0KGgo="))),
            (
                r#""/9j/4AAQSkZJRg==""#,
                Some(("image/jpeg", "/9j/4AAQSkZJRg==")),
            ),
            // Bits behind the last byte.
            (r#""iVBORw0KGgp=""#, Some(("image/png", "iVBORw0KGgo="))),
            (
                r#""iVBORw0KGg9/Zv""#,
                Some(("image/png", "iVBORw0KGg9/Zg==")),
            ),
            (
                r#""\/9j\/4AAQSkZJRg==""#,
                Some(("image/jpeg", "/9j/4AAQSkZJRg==")),
            ),
            (
                r#""_9j_4AAQSkZJRg""#,
                Some(("image/jpeg", "/9j/4AAQSkZJRg==")),
            ),
            (r#""R0lGODlhAQAB""#, Some(("image/gif", "R0lGODlhAQAB"))),
            (
                r#""UklGRiQAAABXRUJQVlA4""#,
                Some(("image/webp", "UklGRiQAAABXRUJQVlA4")),
            ),
            (
                r#""data:image/jpeg;base64,iVBO\nRw0K\r\nGgo""#,
                Some(("image/png", "iVBORw0KGgo=")),
            ),
            // A sound, a vector picture, a bitmap, and what is no base64.
            (r#""UklGRiQAAABXQVZFZm10""#, None),
            (r#""PHN2ZyB4bWxucz0iIi8+""#, None),
            (r#""Qk06AAAAAAAA""#, None),
            (r#""iVBORw0KGgo!""#, None),
            (r#""iVBOR""#, None),
            (r#""====""#, None),
            (r#""""#, None),
        ] {
            let found = picture(text(data));
            let found = found.as_ref().map(|(kind, data)| (*kind, data.as_ref()));
            assert_eq!(found, expected, "{data}");
        }
        let large = format!(r#""iVBORw0K{}""#, "A".repeat(LARGEST_PICTURE));
        assert_eq!(picture(text(&large)), None);
    }

    #[test]
    fn plain_text_is_read_where_it_is_text() {
        assert_eq!(plain_text(text(r#""aMOpbGxv""#)).as_deref(), Some("héllo"));
        assert_eq!(plain_text(text(r#""/////w==""#)), None);
    }

    #[test]
    fn what_is_left_out_grows_in_steps() {
        let half = "A".repeat(STEP_BYTES / 2);
        let image = format!(
            r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{half}"}}}}"#
        );
        let body = |images: usize| {
            let result =
                format!(r#"{{"type":"tool_result","tool_use_id":"t","content":[{image}]}}"#);
            let blocks = vec![result; images].join(",");
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{blocks}]}}]}}"#)
        };
        for (images, steps) in [(0, 0), (5, 0), (6, 0), (7, 1), (8, 1), (9, 2), (12, 3)] {
            let body = body(images);
            let request = Request::parse(body.as_bytes()).unwrap();
            assert_eq!(
                left_out(request.size_bytes, &request.messages, Lane::Lite),
                steps * STEP_BYTES,
                "{images}"
            );
        }
    }
}
