//! Bodies are compressed by zstd, as one frame each.

use std::num::NonZeroU8;

use http::{HeaderMap, header::CONTENT_ENCODING};

use super::{Envelope, EnvelopeError};

/// How the bodies of [envelopes](Envelope::to_compressed_bytes) are compressed. Default: level 1, above 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    level: NonZeroU8,
    above_bytes: usize,
}

const MAX_LEVEL: u8 = 22;

impl Compression {
    /// Returns a compression of this level of zstd, or `None` unless that is 1 (the fastest) to 22 (the smallest
    /// result).
    pub const fn level(level: u8) -> Option<Self> {
        match NonZeroU8::new(level) {
            Some(level) if level.get() <= MAX_LEVEL => Some(Self { level, above_bytes: 4 << 10 }),
            _ => None,
        }
    }

    /// Compresses only bodies of more bytes than that. Default: 4,096. With `usize::MAX` no body is
    /// compressed.
    #[must_use]
    pub const fn above_bytes(self, bytes: usize) -> Self {
        Self { above_bytes: bytes, ..self }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: NonZeroU8::MIN, above_bytes: 4 << 10 }
    }
}

/// The body as one frame, or `None` if it is better left as it is. `spare` bytes are needed besides.
pub(super) fn pack(envelope: &Envelope, compression: Compression, spare: usize) -> Option<Vec<u8>> {
    let Compression { level, above_bytes } = compression;
    let body = &envelope.snapshot.body;
    if body.len() <= above_bytes || is_encoded(&envelope.snapshot.headers) {
        return None;
    }
    let frame = zstd::bulk::compress(body, i32::from(level.get())).ok()?;
    (frame.len().saturating_add(spare) < body.len()).then_some(frame)
}

/// Whether the body has a coding already (RFC 9110 §8.4). What cannot be read may be one.
fn is_encoded(fields: &HeaderMap) -> bool {
    let is_identity = |value: &str| value.split(',').all(|coding| is_no_coding(coding.trim()));
    !fields.get_all(CONTENT_ENCODING).iter().all(|value| value.to_str().is_ok_and(is_identity))
}

fn is_no_coding(coding: &str) -> bool {
    coding.is_empty() || coding.eq_ignore_ascii_case("identity")
}

/// The body of a frame. `length` is within the bounds of the reader.
pub(super) fn unpack(frame: &[u8], length: usize) -> Result<Vec<u8>, EnvelopeError> {
    let body = zstd::bulk::decompress(frame, length).map_err(|_| EnvelopeError::Invalid)?;
    if body.len() == length { Ok(body) } else { Err(EnvelopeError::Invalid) }
}
