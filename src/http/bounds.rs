//! How much of a field is brought into a normal form.
//!
//! Clients send a fraction of it. A field of a request that is longer, or has more members, has no normal
//! form: it counts as it is written, so that it costs a cache one look at it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::cache_control::split_list;

/// Of all lines of a field together.
pub(crate) const MAX_NORMAL_BYTES: usize = 1024;

/// Of a list that has to be sorted or compared with another one.
pub(crate) const MAX_MEMBERS: usize = 64;

/// The members of a list in all its lines (RFC 9110 §5.6.1), and no more than one too many. None if they
/// are too long.
pub(crate) fn bounded_members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Option<impl Iterator<Item = &'a [u8]>> {
    let lines = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let is_short = lines().map(<[u8]>::len).sum::<usize>() <= MAX_NORMAL_BYTES;
    is_short.then(|| lines().flat_map(split_list).take(MAX_MEMBERS + 1))
}
