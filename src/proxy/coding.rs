//! Content codings of a request's body: which were applied, and the body without them.
//!
//! Works on bytes: who reads them from the socket, and on which thread they are decoded, is decided in `intake`.
//! The limit counts decoded bytes, of every layer: a few kilobytes can stand for gigabytes.

use std::io::{self, BufRead, Read};

use brotli_decompressor::Decompressor;
use bytes::{Buf as _, Bytes};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// How many codings may lie over each other. Nobody applies two on purpose.
const MOST_LAYERS: usize = 4;

/// How much is decoded at a time.
const STEP_BYTES: usize = 64 * 1024;

/// Buffer of the brotli decoder, in bytes.
const BROTLI_BUFFER: usize = 16 * 1024;

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 1950. Some senders mean the bare RFC 1951, which is taken too.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, one frame or several.
    Zstd,
}

/// A coding that is not understood, or too many of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCoding {
    /// Not one of [`Coding`].
    #[error(
        "content-encoding {0:?} is not understood; send the body as it is, or in gzip, deflate, br or zstd"
    )]
    Name(String),
    /// More than anybody applies.
    #[error("more than {MOST_LAYERS} content-encodings lie over each other")]
    TooMany,
}

/// Why a body cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is longer than allowed.
    #[error("the decoded body is longer than {limit} bytes")]
    TooLarge {
        /// What was allowed.
        limit: u64,
    },
    /// It is not what its headers say, or was cut.
    #[error("the body is not valid {coding:?} data: {source}")]
    Broken {
        /// What it should have been.
        coding: Coding,
        /// What the decoder says.
        source: io::Error,
    },
}

/// Reads the values of all `content-encoding` headers, in their order. Returns the codings in the order in which
/// they were applied; none for a body that is as it is.
///
/// # Errors
///
/// A coding that is not understood; more of them than anybody applies.
pub fn codings<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Coding>, UnknownCoding> {
    let mut found = Vec::new();
    for value in values {
        for name in value.split(|byte| *byte == b',') {
            let name = name.trim_ascii();
            let coding = match name.to_ascii_lowercase().as_slice() {
                b"" | b"identity" => continue,
                b"gzip" | b"x-gzip" => Coding::Gzip,
                b"deflate" => Coding::Deflate,
                b"br" => Coding::Brotli,
                b"zstd" => Coding::Zstd,
                _ => {
                    let name = String::from_utf8_lossy(&name[..name.len().min(40)]);
                    return Err(UnknownCoding::Name(name.into_owned()));
                }
            };
            if found.len() == MOST_LAYERS {
                return Err(UnknownCoding::TooMany);
            }
            found.push(coding);
        }
    }
    Ok(found)
}

/// Undoes `codings`, the one applied last first. No layer may be longer than `limit` bytes.
///
/// # Errors
///
/// The body is longer, or broken.
pub fn decode(codings: &[Coding], body: Bytes, limit: u64) -> Result<Bytes, DecodeError> {
    let mut body = body;
    for coding in codings.iter().rev().copied() {
        body = layer(coding, body, limit)?;
    }
    Ok(body)
}

fn layer(coding: Coding, body: Bytes, limit: u64) -> Result<Bytes, DecodeError> {
    let broken = |source| DecodeError::Broken { coding, source };
    let mut out = Vec::new();
    let mut body = body.reader();
    match coding {
        Coding::Gzip => fill(&mut out, MultiGzDecoder::new(&mut body), limit),
        Coding::Deflate if is_zlib(body.get_ref()) => {
            fill(&mut out, ZlibDecoder::new(&mut body), limit)
        }
        Coding::Deflate => fill(&mut out, DeflateDecoder::new(&mut body), limit),
        Coding::Brotli => fill(&mut out, Decompressor::new(&mut body, BROTLI_BUFFER), limit),
        Coding::Zstd => zstd(&mut out, &mut body, limit),
    }
    .map_err(broken)?;
    if out.len() as u64 > limit {
        return Err(DecodeError::TooLarge { limit });
    }
    Ok(out.into())
}

/// Reads until the end, or until more than `limit` bytes are there.
fn fill(out: &mut Vec<u8>, mut decoder: impl Read, limit: u64) -> io::Result<()> {
    loop {
        let left = (limit + 1).saturating_sub(out.len() as u64);
        let step = left.min(STEP_BYTES as u64);
        if step == 0 || decoder.by_ref().take(step).read_to_end(out)? == 0 {
            return Ok(());
        }
    }
}

fn zstd(out: &mut Vec<u8>, body: &mut impl BufRead, limit: u64) -> io::Result<()> {
    while !body.fill_buf()?.is_empty() && out.len() as u64 <= limit {
        match StreamingDecoder::new(&mut *body) {
            Ok(mut frame) => {
                fill(out, &mut frame, limit)?;
                let decoder = frame.into_frame_decoder();
                let told = decoder.get_checksum_from_data();
                if decoder.is_finished()
                    && told.is_some()
                    && told != decoder.get_calculated_checksum()
                {
                    return Err(io::Error::other("its checksum is another"));
                }
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let skipped = io::copy(&mut body.take(u64::from(length)), &mut io::sink())?;
                if skipped < u64::from(length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(())
}

/// Says whether `body` begins as RFC 1950 wants it.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..]
        if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    const LIMIT: u64 = 1024 * 1024;

    fn hello() -> String {
        format!("hello, {}", "again ".repeat(50))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    /// What other encoders than those of our own decoders make of [`hello`].
    fn foreign() -> [(Coding, Vec<u8>); 4] {
        [
            (
                Coding::Gzip,
                "H4sIAAAAAAAAA8tIzcnJ11FITE/MzBsliSIBLpATxDMBAAA=",
            ),
            (Coding::Deflate, "eJzLSM3JyddRSExPzMwbJYkiAWvRbKE="),
            (Coding::Deflate, "y0jNycnXUUhMT8zMGyWJIgE="),
            (Coding::Brotli, "GzIB+KXDztLc1CCr1QEX6XQYaQ=="),
        ]
        .map(|(coding, text)| (coding, STANDARD.decode(text).unwrap()))
    }

    #[test]
    fn names_are_read_as_headers_have_them() {
        let read = |values: &[&str]| codings(values.iter().map(|value| value.as_bytes()));
        for (values, expected) in [
            (&[][..], vec![]),
            (&["identity"], vec![]),
            (&[" , identity ,"], vec![]),
            (&["GZip"], vec![Coding::Gzip]),
            (&["x-gzip, br"], vec![Coding::Gzip, Coding::Brotli]),
            (
                &["zstd", "deflate,identity"],
                vec![Coding::Zstd, Coding::Deflate],
            ),
        ] {
            assert_eq!(read(values), Ok(expected), "{values:?}");
        }
        assert_eq!(
            read(&["gzip, compress"]),
            Err(UnknownCoding::Name("compress".into()))
        );
        assert_eq!(
            read(&["gzip,gzip", "gzip,gzip,gzip"]),
            Err(UnknownCoding::TooMany)
        );
    }

    #[test]
    fn every_coding_is_undone_also_in_layers() {
        let told = hello();
        let told = told.as_bytes();
        let mut rows = foreign()
            .map(|(coding, body)| (vec![coding], body))
            .to_vec();
        rows.extend([
            (vec![], told.to_vec()),
            (vec![Coding::Zstd], zstd_frame(told)),
            (vec![Coding::Zstd, Coding::Gzip], gzip(&zstd_frame(told))),
            (vec![Coding::Gzip, Coding::Deflate], zlib(&gzip(told))),
        ]);
        // Several members, several frames, and a frame that is to be skipped.
        let (first, second) = told.split_at(100);
        rows.push((vec![Coding::Gzip], [gzip(first), gzip(second)].concat()));
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frames = [zstd_frame(first), skipped, zstd_frame(second)].concat();
        rows.push((vec![Coding::Zstd], frames));
        for (codings, body) in rows {
            let decoded = decode(&codings, body.into(), LIMIT).unwrap();
            assert_eq!(decoded, told, "{codings:?}");
        }
    }

    #[test]
    fn what_is_cut_or_something_else_is_broken_and_nothing_panics() {
        let told = hello();
        let mut rows = foreign().to_vec();
        rows.push((Coding::Zstd, zstd_frame(told.as_bytes())));
        for (coding, body) in rows {
            for end in 1..body.len() {
                let cut = Bytes::copy_from_slice(&body[..end]);
                let decoded = decode(&[coding], cut, LIMIT);
                // Some codings have bytes behind their last block that hold no text.
                if let Ok(decoded) = decoded {
                    assert!(told.as_bytes() == decoded, "{coding:?} cut at {end}");
                }
                let mut changed = body.clone();
                changed[end] ^= 0x55;
                let _ = decode(&[coding], changed.into(), LIMIT);
            }
            let plain = decode(&[coding], Bytes::from_static(b"{\"model\":\"m\"}"), LIMIT);
            assert!(
                matches!(plain, Err(DecodeError::Broken { .. })),
                "{coding:?}"
            );
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit_in_every_layer() {
        let zeros = vec![0; 2 * LIMIT as usize];
        let brotli = STANDARD
            .decode("y///P/gnAOKxQCD3/o///3/wTwDEYRGA7v0f////4J8AiMMCAN37P/7//8E/ARCHBQC693/8//+DfwIgDgsAdO//+P//B/8EQBwWAOje//H//w/+CYA4LADQvf/j//8f/BMAcVgAoHv/x///P/gnAOKwAED3/o///3/wTwDEYQGA7v0f////4J8AiMMCAN37P/7//8E/")
            .unwrap();
        for (codings, body) in [
            (vec![Coding::Gzip], gzip(&zeros)),
            (vec![Coding::Deflate], zlib(&zeros)),
            (vec![Coding::Zstd], zstd_frame(&zeros)),
            (vec![Coding::Brotli], brotli),
            (vec![Coding::Gzip, Coding::Gzip], gzip(&gzip(&zeros))),
            (vec![Coding::Zstd, Coding::Gzip], gzip(&zeros)),
        ] {
            let error = decode(&codings, body.into(), LIMIT).unwrap_err();
            assert!(
                matches!(error, DecodeError::TooLarge { .. }),
                "{codings:?}: {error}"
            );
        }
        // Exactly as long as allowed is not too long.
        let most = vec![0; LIMIT as usize];
        assert_eq!(
            decode(&[Coding::Gzip], gzip(&most).into(), LIMIT).unwrap(),
            most
        );
    }
}
