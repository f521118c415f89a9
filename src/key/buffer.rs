use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::CacheKey;
use crate::{
    http::{
        cookies::CookieNames,
        fields::{self, MAX_NORMAL_BYTES},
        request_fields::{Keyed, Overrides, overrides_target},
    },
    work::looked_at,
};

/// Longer keys are on the heap.
const INLINE: usize = 240;

/// A length that leaves no room in the array, not even for an empty part.
const SPILLED: usize = INLINE + 1;

/// How many bytes are put into lower case at a time.
const CHUNK: usize = 16;

/// A key that is being written, on the stack unless it is very long.
///
/// A lookup needs only this; a key that is kept becomes a [`CacheKey`].
///
/// ```
/// use tower_readthrough::{CacheKey, KeyBuffer};
///
/// let mut key = KeyBuffer::new();
/// key.push("product");
/// key.push("7");
/// assert_eq!(key.to_key(), CacheKey::from_parts(["product", "7"]));
/// ```
#[derive(Clone)]
pub struct KeyBuffer {
    /// The length of the key in the array, or else [`SPILLED`].
    length: usize,
    inline: [u8; INLINE],
    /// The whole key, if it is too long for the array.
    spilled: Vec<u8>,
    keyed: Keyed,
    /// Whether the request may have fields that override its target.
    has_overrides: bool,
    /// Whether the cookies of the rules for all requests will follow at the end.
    expects_cookies: bool,
}

impl Default for KeyBuffer {
    fn default() -> Self {
        Self {
            length: 0,
            inline: [0; INLINE],
            spilled: Vec::new(),
            keyed: Keyed::default(),
            has_overrides: true,
            expects_cookies: false,
        }
    }
}

impl KeyBuffer {
    /// An empty key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes whether the request overrides its target.
    #[inline]
    pub(super) fn note(&mut self, overrides: Overrides) {
        self.has_overrides = overrides.target;
    }

    /// Notes whether the cookies of the rules for all requests follow.
    #[inline]
    pub(super) fn expect_cookies(&mut self, keyed: &Keyed) {
        self.expects_cookies = keyed.cookies().is_some();
    }

    /// Whether the key decides which cookies reach the origin.
    pub(super) fn holds_cookies(&self) -> bool {
        self.expects_cookies || self.keyed.has(&header::COOKIE)
    }

    /// What the key holds beside the URI.
    #[inline]
    pub(crate) fn keyed(&self) -> &Keyed {
        &self.keyed
    }

    pub(super) fn set_keyed(&mut self, keyed: Keyed) {
        self.keyed = keyed;
    }

    /// Appends the cookies with these names.
    pub(super) fn push_cookies(&mut self, names: &CookieNames, request: &HeaderMap) {
        if !names.is_empty() {
            let cookies = names.of(request);
            self.push((cookies.len() as u64).to_le_bytes());
            cookies.iter().for_each(|cookie| self.push(cookie));
        }
    }

    /// Appends the fields of a request that override its target.
    #[inline]
    pub(super) fn push_overrides(&mut self, headers: &HeaderMap) {
        if self.has_overrides {
            self.push_each_override(headers);
        }
    }

    #[inline(never)]
    fn push_each_override(&mut self, headers: &HeaderMap) {
        self.push_fields(headers.iter().filter(|(name, _)| overrides_target(name)));
    }

    /// Appends these lines. The order of fields with different names does not count, since it changes when others
    /// are removed.
    pub(super) fn push_fields<'h>(&mut self, lines: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>) {
        let mut lines: SmallVec<[_; 8]> = lines.collect();
        lines.sort_by(|(a, _), (b, _)| fields::by_spelling(a, b));
        lines.iter().for_each(|(name, value)| self.push_field(name, value));
    }

    /// Appends one line of a field.
    fn push_field(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.push(name.as_str());
        match name.as_str() {
            "forwarded" if value.len() <= MAX_NORMAL_BYTES => self.push(without_addresses(value.as_bytes())),
            _ => self.push(value.as_bytes()),
        }
    }

    /// Appends the length of a value and the value, so that different values never form the same key.
    #[inline]
    pub fn push(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        match self.room_for(part.len()) {
            Some(room) => room.copy_from_slice(part),
            None => self.push_long(part),
        }
    }

    /// Like [`push`](Self::push), in lower case.
    #[inline]
    pub(super) fn push_lower_case(&mut self, part: &[u8]) {
        match self.room_for(part.len()) {
            Some(room) => {
                room.copy_from_slice(part);
                let start = self.length - part.len();
                // In whole chunks, since bytes after the key have no meaning yet.
                let (chunks, rest) = self.inline[start..].as_chunks_mut::<CHUNK>();
                let needed = part.len().div_ceil(CHUNK);
                chunks.iter_mut().take(needed).for_each(|chunk| chunk.make_ascii_lowercase());
                if needed > chunks.len() {
                    rest.make_ascii_lowercase();
                }
            }
            None => self.push_long(&part.to_ascii_lowercase()),
        }
    }

    /// Appends a length, and returns room for a part of that length. `None` if the array has none.
    #[inline]
    fn room_for(&mut self, length: usize) -> Option<&mut [u8]> {
        const WIDTH: usize = size_of::<u16>();
        let end = self.length + WIDTH + length;
        let (width, room) = self.inline.get_mut(self.length..end)?.split_first_chunk_mut::<WIDTH>()?;
        // The array is far shorter than the parts that need a wider length.
        *width = (length as u16).to_le_bytes();
        self.length = end;
        Some(room)
    }

    #[cold]
    fn push_long(&mut self, part: &[u8]) {
        match u16::try_from(part.len()) {
            Ok(length) if length < u16::MAX => self.extend(&length.to_le_bytes()),
            _ => {
                self.extend(&u16::MAX.to_le_bytes());
                self.extend(&(part.len() as u64).to_le_bytes());
            }
        }
        self.extend(part);
    }

    /// Replaces everything so far by a key.
    #[inline]
    pub(super) fn set(&mut self, key: &CacheKey) {
        self.length = 0;
        self.spilled.clear();
        self.extend(key);
    }

    /// Appends encoded parts of a key.
    #[inline]
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        match self.inline.get_mut(self.length..end) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.length = end;
            }
            None => self.spill(bytes),
        }
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        if let Some(inline) = self.inline.get(..self.length) {
            self.spilled.extend_from_slice(inline);
            self.length = SPILLED;
        }
        self.spilled.extend_from_slice(bytes);
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        self.inline.get(..self.length).unwrap_or(&self.spilled)
    }

    /// Copies the key into a [`CacheKey`].
    pub fn to_key(&self) -> CacheKey {
        CacheKey::new(self.as_bytes())
    }
}

impl fmt::Debug for KeyBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBuffer(\"{}\")", self.as_bytes().escape_ascii())
    }
}

/// A line of `Forwarded` (RFC 7239 §4) without the addresses of the client and of the proxies, with which
/// each client would have entries of its own. They are not part of the target.
fn without_addresses(line: &[u8]) -> Vec<u8> {
    let elements = fields::split_list(line).map(|element| {
        looked_at(element.len());
        let pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        pairs.filter(|pair| !is_address(pair)).collect::<Vec<_>>().join(&b';')
    });
    elements.collect::<Vec<_>>().join(&b',')
}

/// Whether a pair is `for` or `by`, with a value that cannot be read as more than one pair.
fn is_address(pair: &[u8]) -> bool {
    let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let (name, value) = (&pair[..equals], &pair[equals + 1..]);
    let is_node = |byte: &u8| byte.is_ascii_alphanumeric() || b".:_-[]\"".contains(byte);
    (name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")) && value.iter().all(is_node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_of_any_length_are_kept_apart(
            a in proptest::collection::vec("[aA]{0,300}", 0..4),
            b in proptest::collection::vec("[aA]{0,300}", 0..4),
        ) {
            let key = |parts: &[String]| {
                let mut key = KeyBuffer::new();
                parts.iter().for_each(|part| key.push(part));
                key.to_key()
            };
            prop_assert_eq!(key(&a) == key(&b), a == b);
            let mut set = KeyBuffer::new();
            set.push("before");
            set.set(&key(&a));
            prop_assert_eq!(set.to_key(), key(&a));
        }

        #[test]
        fn only_the_part_is_put_into_lower_case(before in "A{0,300}", part in "[aA]{0,300}") {
            let (mut lower, mut expected) = (KeyBuffer::new(), KeyBuffer::new());
            lower.push(&before);
            lower.push_lower_case(part.as_bytes());
            expected.push(&before);
            expected.push(part.to_ascii_lowercase());
            prop_assert_eq!(lower.as_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn only_addresses_are_left_out_of_forwarded() {
        for (line, expected) in [
            ("for=192.0.2.1", ""),
            ("for=192.0.2.1;host=a;proto=https", "host=a;proto=https"),
            ("For=\"[2001:db8::1]:47\"; by=_proxy ;HOST=a", "HOST=a"),
            ("for=1.2.3.4, for=5.6.7.8;host=b", ",host=b"),
            ("for=\"a,host=evil\"", "for=\"a,host=evil\""),
            ("for=\"a;host=evil\"", "host=evil\""),
            ("for=a host=evil", "for=a host=evil"),
        ] {
            assert_eq!(
                without_addresses(line.as_bytes()).escape_ascii().to_string().replace("\\\"", "\""),
                expected,
                "{line}"
            );
        }
    }
}
