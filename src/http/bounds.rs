//! How long a field may be to be brought into a normal form.
//!
//! Ordinary clients send a fraction of that. A longer field, or one with more members, is compared as
//! written, so that it costs a cache one look.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::split_list;

/// The length of all lines of a field together.
pub(crate) const MAX_NORMAL_BYTES: usize = 1024;

/// The length of a list that is sorted or compared with another one.
pub(crate) const MAX_MEMBERS: usize = 64;

/// The members of a list in all its lines (RFC 9110 §5.6.1), at most one more than allowed. `None` if they
/// are too long.
pub(crate) fn bounded_members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Option<impl Iterator<Item = &'a [u8]>> {
    let lines = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let is_short = lines().map(<[u8]>::len).sum::<usize>() <= MAX_NORMAL_BYTES;
    is_short.then(|| lines().flat_map(split_list).take(MAX_MEMBERS + 1))
}
