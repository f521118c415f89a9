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
pub(in super::super) struct Place(pub(in super::super) u32);

/// The hash of something that answers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Label(pub(in super::super) u64);

impl Label {
    /// All answers have it.
    pub(in super::super) const EVERYTHING: Self = Self(0);

    /// A soft purge of a place leaves a record: it has a moment, for which a floor has no room.
    pub(super) fn of_place(place: Place) -> Self {
        Self(u64::from(place.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// What is purged.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum What<'a> {
    Place(Place),
    Label(Label),
    KeyPrefix(&'a [u8]),
    Paths(&'a Pattern),
}

/// What purges can match of an answer, or of the request for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Matter<'a> {
    pub(in super::super) key: &'a [u8],
    /// Of the URL that was asked for, in its normal form; several in lines, and an empty one is any.
    pub(in super::super) path: &'a str,
    pub(in super::super) places: [Place; 2],
    pub(in super::super) labels: &'a [Label],
}
