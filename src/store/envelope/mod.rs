//! Snapshots as bytes.
//!
//! One envelope is one [`Snapshot`] with its key, in a form that this crate reads back, in any process:
//!
//! ```text
//! header    144 bytes, little-endian: "TRTH", schema, flags, status, lengths, times, `as_of`, checksum
//! key       the whole key
//! head      header fields, trailers, selecting fields, URLs, tags and groups, each behind its length
//! body      the rest, as it is or as a frame of zstd
//! ```
//!
//! * **Bounds** are checked before anything is allocated: 512 fields, 1,024 texts of each kind, 256 KiB of key
//!   and head together, and a body of at most what the reader says.
//! * **The lengths add up** to the length of what was read, or it is refused: an envelope that was cut is no
//!   envelope.
//! * **The checksum** (xxh3, 128 bits) is over all else. It is against accidents, not against attackers: a process that
//!   can write where envelopes are kept decides what is served.
//! * **Names and values** of fields go through the parsers of [`http`]. Fields of a connection are refused.
//! * **The body** is a slice of what was read, and not copied, unless it is compressed. With the feature `zstd`
//!   `Envelope::to_compressed_bytes` writes such bodies; without it they are
//!   [an error](EnvelopeError::Compressed). The head says how long the body is, within the same bound as of any
//!   other, before anything is unpacked.
//! * **Readers refuse other schemas.** Files in `tests/golden/` hold each schema that there was.
//!
//! ```
//! use bytes::Bytes;
//! use tower_readthrough::{CacheKey, store::{Envelope, EnvelopeError, Snapshot}};
//!
//! let mut snapshot = Snapshot::default();
//! snapshot.body = "hello".into();
//! let written = Envelope::new(CacheKey::new("/page"), snapshot).to_bytes().unwrap();
//!
//! let read = Envelope::parse(&written, 1 << 20).unwrap();
//! assert_eq!((read.key().as_bytes(), &*read.snapshot().body), (&b"/page"[..], &b"hello"[..]));
//!
//! let cut = written.slice(..written.len() - 1);
//! assert_eq!(Envelope::parse(&cut, 1 << 20), Err(EnvelopeError::Length));
//! ```

#[cfg(feature = "zstd")]
mod compression;
#[cfg(test)]
mod envelope_tests;
mod header;
mod read;
mod write;

use bytes::Bytes;

#[cfg(feature = "zstd")]
pub use self::compression::Compression;
pub(crate) use self::header::{HEADER_BYTES, Header};
use super::Snapshot;
use crate::key::CacheKey;
pub use crate::sequence::{AsOf, EntryId};

/// Header fields and trailers together, and selecting fields.
const MAX_FIELDS: usize = 512;

/// URLs, tags, and groups, each.
const MAX_TEXTS: usize = 1024;

/// Key and head together.
const MAX_HEAD_BYTES: usize = 256 << 10;

/// The schema that is written.
pub(crate) const SCHEMA: u16 = 1;

/// A [`Snapshot`] with its key, to be written or as it was read; see the
/// [module](crate::store::envelope).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    key: CacheKey,
    snapshot: Snapshot,
    as_of: Option<AsOf>,
}

/// Why bytes are no [`Envelope`], or a snapshot does not fit into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The bytes do not begin like an envelope.
    #[error("it is no envelope")]
    Foreign,
    /// It was written by another version, in a form that this one does not read.
    #[error("it has another schema")]
    Schema,
    /// It was cut, or something follows it.
    #[error("its length is not what its header says")]
    Length,
    /// It was changed.
    #[error("its checksum is another one")]
    Checksum,
    /// It has more than 512 fields, more than 1,024 URLs, tags or groups, more than 256 KiB of key and head,
    /// or a body larger than the reader takes.
    #[error("it is larger than its bounds")]
    TooLarge,
    /// A part of it is not what it has to be: a field, a status, a text or a number.
    #[error("a part of it is invalid")]
    Invalid,
    /// Its body is compressed, and this build is without the feature `zstd`.
    #[error("its body is compressed, and the feature `zstd` is off")]
    Compressed,
}

impl EnvelopeError {
    /// Returns its name, in kebab case. It does not change between versions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Schema => "other-schema",
            Self::Length => "wrong-length",
            Self::Checksum => "wrong-checksum",
            Self::TooLarge => "too-large",
            Self::Invalid => "invalid",
            Self::Compressed => "compressed",
        }
    }

    #[cfg(any(feature = "metrics", all(test, feature = "redis")))]
    pub(crate) const ALL: [Self; 7] = [
        Self::Foreign,
        Self::Schema,
        Self::Length,
        Self::Checksum,
        Self::TooLarge,
        Self::Invalid,
        Self::Compressed,
    ];
}

impl Envelope {
    /// Returns an envelope with this snapshot.
    pub fn new(key: CacheKey, snapshot: Snapshot) -> Self {
        Self { key, snapshot, as_of: None }
    }

    /// Says up to where the writer had applied a log of purges when the fetch began.
    #[must_use]
    pub fn with_as_of(self, as_of: Option<AsOf>) -> Self {
        Self { as_of, ..self }
    }

    /// Returns the key.
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Returns the snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns key and snapshot.
    pub fn into_parts(self) -> (CacheKey, Snapshot) {
        (self.key, self.snapshot)
    }

    /// Returns up to where the writer had applied a log of purges, if there was one.
    pub fn as_of(&self) -> Option<AsOf> {
        self.as_of
    }

    /// Returns the envelope as bytes.
    ///
    /// Lengths of time are written in nanoseconds in 64 bits: 584 years and more are read back as
    /// [`Duration::MAX`](std::time::Duration::MAX), and a time before 1970 as 1970.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](EnvelopeError::TooLarge) if it would not be read back because of its bounds,
    /// [`Invalid`](EnvelopeError::Invalid) because of a field of a connection.
    pub fn to_bytes(&self) -> Result<Bytes, EnvelopeError> {
        let mut bytes = self.to_head(self.snapshot.body.len())?;
        bytes.extend_from_slice(&self.snapshot.body);
        Ok(bytes.into())
    }

    /// Returns the envelope as bytes, with its body compressed by zstd where that makes it smaller.
    ///
    /// A body stays as it is up to [a size](Compression::above_bytes), and if the response has a
    /// `Content-Encoding` other than `identity` (RFC 9110 §8.4). It is compressed at once: a megabyte takes
    /// some milliseconds, at the highest levels a second.
    ///
    /// # Errors
    ///
    /// As [`to_bytes`](Self::to_bytes).
    #[cfg(feature = "zstd")]
    pub fn to_compressed_bytes(&self, compression: Compression) -> Result<Bytes, EnvelopeError> {
        let packed = compression::pack(self, compression, write::UNPACKED_LENGTH_BYTES);
        let compressed = packed.and_then(|frame| {
            let mut bytes = write::head(self, Some(&frame), frame.len()).ok()?;
            bytes.extend_from_slice(&frame);
            Some(bytes.into())
        });
        compressed.map_or_else(|| self.to_bytes(), Ok)
    }

    /// Reads an envelope with a body of at most `max_body_bytes`. The values of its fields are parts of the bytes, which
    /// they keep alive, and so is a body that was not compressed.
    ///
    /// # Errors
    ///
    /// If the bytes are anything but one whole envelope within its bounds.
    pub fn parse(bytes: &Bytes, max_body_bytes: usize) -> Result<Self, EnvelopeError> {
        read::envelope(bytes, max_body_bytes)
    }

    /// All but the body, with room for `spare` bytes behind it.
    pub(crate) fn to_head(&self, spare: usize) -> Result<Vec<u8>, EnvelopeError> {
        write::head(self, None, spare)
    }
}
