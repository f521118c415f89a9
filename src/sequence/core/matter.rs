//! What purges and answers have in common.

use super::Pattern;

/// What became of a stored response that may not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Purged,
    /// By a request with an unsafe method (RFC 9111 §4.4).
    Invalidated,
}

/// Where the floor of a URI or a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloorIndex(pub(in super::super) u32);

/// The hash of something that answers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TagHash(pub(in super::super) u64);

impl TagHash {
    /// All answers have it.
    pub(crate) const EVERYTHING: Self = Self(0);

    /// A soft purge of a place leaves a record: it has a moment, for which a floor has no room.
    pub(super) fn of_place(place: FloorIndex) -> Self {
        Self(u64::from(place.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// What is purged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PurgeKind<'a> {
    Place(FloorIndex),
    TagHash(TagHash),
    KeyPrefix(&'a [u8]),
    Paths(&'a Pattern),
}

/// What purges can match of an answer, or of the request for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matter<'a> {
    pub(crate) key: &'a [u8],
    /// Of the URL that was asked for, in its normal form; several in lines, and an empty one is any.
    pub(crate) path: &'a str,
    pub(crate) places: [FloorIndex; 2],
    pub(crate) labels: &'a [TagHash],
}
