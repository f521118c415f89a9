//! Under which keys a remote keeps things.
//!
//! A key of the remote is a digest, so that it says nothing of the cache key: that may have identifiers of users in
//! it. Different keys may have one digest, which is why what is read has the whole key in it.

use std::sync::Arc;

use http::HeaderName;
use xxhash_rust::xxh3::Xxh3;

use crate::{http::vary::Selection, key::CacheKey, store::envelope::SCHEMA};

/// What [`SCHEMA`] is written as.
const SCHEMA_TEXT: &str = "1";
const _: () = assert!(SCHEMA == 1);

/// Of a digest.
const DIGITS: usize = 32;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Longer cache keys are always written as digests.
const MAX_PLAIN_BYTES: usize = 512;

/// The names of the fields that select a response.
pub(super) type Names = Arc<[HeaderName]>;

/// Names a response among all of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(u128);

/// How keys are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming {
    /// Whether cache keys are legible.
    pub(super) is_plain: bool,
}

impl Id {
    pub(super) fn of_key(key: &CacheKey) -> Self {
        Self::of(key, None)
    }

    /// Of the variant of a response that these values select.
    pub(super) fn of(key: &CacheKey, selection: Option<&Selection>) -> Self {
        let mut digest = Xxh3::new();
        let mut push = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        push(key.as_bytes());
        for (name, value) in selection.into_iter().flat_map(Selection::to_parts) {
            push(name.as_str().as_bytes());
            match value {
                Some((normal, _)) => push(normal),
                None => digest_of_absence(&mut push),
            }
        }
        Self(digest.digest128())
    }
}

/// No value has such a length.
fn digest_of_absence(push: &mut impl FnMut(&[u8])) {
    push(&[]);
    push(&[0]);
}

impl Naming {
    /// Where the names of selecting fields are.
    pub(super) fn index(self, key: &CacheKey) -> Vec<u8> {
        self.write("i", key, Id::of_key(key))
    }

    /// Where the response is that has no `Vary`, or the one that these values select.
    pub(super) fn variant(self, key: &CacheKey, selection: Option<&Selection>) -> Vec<u8> {
        self.write("v", key, Id::of(key, selection))
    }

    /// Where the lease of the fetch is.
    pub(super) fn lease(self, key: &CacheKey, id: Id) -> Vec<u8> {
        self.write("l", key, id)
    }

    /// Readers of other schemas have other keys: neither overwrites what only the other can read.
    fn write(self, kind: &str, key: &CacheKey, Id(id): Id) -> Vec<u8> {
        let plain = Some(key.as_bytes()).filter(|key| self.is_plain && key.len() <= MAX_PLAIN_BYTES);
        let mut written = Vec::with_capacity(plain.map_or(0, <[u8]>::len) + 16 + DIGITS);
        for part in [SCHEMA_TEXT, kind].into_iter().map(str::as_bytes).chain(plain) {
            written.extend_from_slice(part);
            written.push(b':');
        }
        // With `format!` the keys of a read take 3,900 instructions more, of 82,000 for a response of the tier.
        written.extend((0..DIGITS).rev().map(|digit| HEX[(id >> (4 * digit)) as usize & 15]));
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, header};
    use std::collections::HashSet;

    fn select(value: Option<&'static str>) -> Selection {
        let mut request = HeaderMap::new();
        value.into_iter().for_each(|value| _ = request.insert(header::ORIGIN, value.parse().unwrap()));
        Selection::new(&Arc::from([header::ORIGIN]), &request)
    }

    #[test]
    fn keys_of_different_things_are_different_and_say_nothing_of_the_cache_key() {
        let naming = Naming { is_plain: false };
        let keys = [CacheKey::new("/secret"), CacheKey::new("/secret/")];
        let selections = [None, Some(select(None)), Some(select(Some(""))), Some(select(Some("a")))];
        let mut written = HashSet::new();
        for key in &keys {
            assert!(written.insert(naming.index(key)));
            for selection in &selections {
                let id = Id::of(key, selection.as_ref());
                assert!(written.insert(naming.variant(key, selection.as_ref())));
                assert!(written.insert(naming.lease(key, id)));
            }
        }
        assert!(written.iter().all(|key| !key.windows(6).any(|part| part == b"secret")));
        let Id(id) = Id::of_key(&keys[0]);
        assert_eq!(naming.index(&keys[0]), format!("{SCHEMA}:i:{id:032x}").into_bytes());
    }

    #[test]
    fn a_plain_key_is_legible_unless_it_is_long() {
        let naming = Naming { is_plain: true };
        assert!(naming.variant(&CacheKey::new("/page"), None).starts_with(b"1:v:/page:"));
        assert_eq!(naming.variant(&CacheKey::new("x".repeat(513)), None).len(), 4 + 32);
    }
}
