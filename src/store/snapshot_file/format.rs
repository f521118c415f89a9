//! The form of the file: a header, envelopes, and a mark at the end.
//!
//! ```text
//! header   "TRTF", schema, length of the namespace, time, checksum; the namespace
//! …        envelopes
//! end      "TRTE", the number of envelopes, checksum
//! ```
//!
//! Numbers are little-endian. The checksum of the header is over the namespace too. Files in `tests/golden/` hold each
//! schema that there was.

use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::Xxh3;

use crate::store::EnvelopeError;

const MAGIC: [u8; 4] = *b"TRTF";
const SCHEMA: u16 = 1;
pub(super) const FILE_HEADER_BYTES: usize = 32;

pub(super) const END: [u8; 4] = *b"TRTE";
pub(super) const END_BYTES: usize = 28;

/// The header of a file, with the namespace behind it.
pub(super) fn header(namespace: &str, written_at: SystemTime) -> Vec<u8> {
    let since = written_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&SCHEMA.to_le_bytes());
    header.extend_from_slice(&(namespace.len() as u16).to_le_bytes());
    header.extend_from_slice(&nanos.to_le_bytes());
    header.extend_from_slice(&checksum([&header, namespace.as_bytes()]));
    header.extend_from_slice(namespace.as_bytes());
    header
}

/// What a header says, before its namespace is read.
pub(super) struct FileHeader<'a> {
    bytes: &'a [u8; FILE_HEADER_BYTES],
}

impl<'a> FileHeader<'a> {
    pub(super) fn parse(bytes: &'a [u8; FILE_HEADER_BYTES]) -> Result<Self, EnvelopeError> {
        match bytes {
            [magic @ .., _, _, _, _] if !magic.starts_with(&MAGIC) => Err(EnvelopeError::Foreign),
            [_, _, _, _, low, high, ..] if u16::from_le_bytes([*low, *high]) != SCHEMA => {
                Err(EnvelopeError::Schema)
            }
            bytes => Ok(Self { bytes }),
        }
    }

    pub(super) fn namespace_bytes(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[6], self.bytes[7]]))
    }

    /// When the file was written, if the checksum is right.
    pub(super) fn written_at(&self, namespace: &[u8]) -> Result<SystemTime, EnvelopeError> {
        let (rest, sum) = self.bytes.split_at(FILE_HEADER_BYTES - 16);
        if checksum([rest, namespace]) != *sum {
            return Err(EnvelopeError::Checksum);
        }
        let nanos = rest.last_chunk().map_or(0, |nanos| u64::from_le_bytes(*nanos));
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)).ok_or(EnvelopeError::Invalid)
    }
}

/// The end of a file of so many envelopes.
pub(super) fn end(envelopes: u64) -> Vec<u8> {
    let mut end = END.to_vec();
    end.extend_from_slice(&envelopes.to_le_bytes());
    end.extend_from_slice(&checksum([&end, &[]]));
    end
}

fn checksum(parts: [&[u8]; 2]) -> [u8; 16] {
    let mut sum = Xxh3::new();
    parts.into_iter().for_each(|part| sum.update(part));
    sum.digest128().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_1_is_written_as_ever() {
        let file = include_bytes!("../../../tests/golden/snapshot-file-1.bin");
        let envelope = include_bytes!("../../../tests/golden/envelope-1.bin");
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_060);
        let written = [&header("shop", written_at), &envelope[..], &end(1)].concat();
        assert_eq!(written, file);
    }
}
