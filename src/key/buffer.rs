use std::fmt;

use http::{HeaderMap, header};

use super::CacheKey;
use crate::http::{cookies::CookieNames, credentials::Keyed, overrides::Overrides};

/// Longer keys are written on the heap.
const INLINE: usize = 240;

/// A length that leaves no room in the array, not even for nothing.
const SPILLED: usize = INLINE + 1;

/// What is put into lower case at a time.
const CHUNK: usize = 16;

/// A key while it is written: on the stack, for all but very long ones.
///
/// To look something up takes no more than this; only what is kept becomes a [`CacheKey`].
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
    /// Of what is in the array, or else [`SPILLED`].
    length: usize,
    inline: [u8; INLINE],
    /// All of a key that is too long.
    spilled: Vec<u8>,
    keyed: Keyed,
    /// Whether the request may have fields that override its target.
    has_overrides: bool,
    /// Whether rules for all requests say which cookies count, which come last.
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

    #[inline]
    pub(super) fn may_hold_overrides(&self) -> bool {
        self.has_overrides
    }

    /// Notes that the cookies follow which the rules for all requests name, if they name any.
    #[inline]
    pub(super) fn expect_cookies(&mut self, keyed: &Keyed) {
        self.expects_cookies = keyed.cookies().is_some();
    }

    /// Whether it is said which cookies are in the key: no others reach the origin.
    pub(super) fn holds_cookies(&self) -> bool {
        self.expects_cookies || self.keyed.has(&header::COOKIE)
    }

    /// What of the request is in the key, beside its URI.
    #[inline]
    pub(crate) fn keyed(&self) -> &Keyed {
        &self.keyed
    }

    pub(super) fn set_keyed(&mut self, keyed: Keyed) {
        self.keyed = keyed;
    }

    /// Appends the cookies of these names.
    pub(super) fn push_cookies(&mut self, names: &CookieNames, request: &HeaderMap) {
        if !names.is_empty() {
            let cookies = names.of(request);
            self.push((cookies.len() as u64).to_le_bytes());
            cookies.iter().for_each(|cookie| self.push(cookie));
        }
    }

    /// Appends a value and, before it, its length, so that different values never run together
    /// into the same key.
    #[inline]
    pub fn push(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        match self.room_for(part.len()) {
            Some(room) => room.copy_from_slice(part),
            None => self.push_long(part),
        }
    }

    /// As [`push`](Self::push), in lower case.
    #[inline]
    pub(super) fn push_lower_case(&mut self, part: &[u8]) {
        match self.room_for(part.len()) {
            Some(room) => {
                room.copy_from_slice(part);
                let start = self.length - part.len();
                // By whole chunks: what lies behind the key counts for nothing yet.
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

    /// Appends the length of a part that is neither long itself nor makes the key long, and room
    /// for it.
    #[inline]
    fn room_for(&mut self, length: usize) -> Option<&mut [u8]> {
        const WIDTH: usize = size_of::<u16>();
        let end = self.length + WIDTH + length;
        let (width, room) = self.inline.get_mut(self.length..end)?.split_first_chunk_mut::<WIDTH>()?;
        // The whole array is far shorter than what needs another length.
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

    /// Takes bytes that are a key already, in place of everything so far.
    #[inline]
    pub(super) fn set(&mut self, key: &CacheKey) {
        self.length = 0;
        self.spilled.clear();
        self.extend(key);
    }

    /// Appends bytes that are parts of a key already.
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

    /// The key, to be kept.
    pub fn to_key(&self) -> CacheKey {
        CacheKey::new(self.as_bytes())
    }
}

impl fmt::Debug for KeyBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBuffer(\"{}\")", self.as_bytes().escape_ascii())
    }
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
        fn lower_case_is_that_of_the_part_alone(before in "A{0,300}", part in "[aA]{0,300}") {
            let (mut lower, mut expected) = (KeyBuffer::new(), KeyBuffer::new());
            lower.push(&before);
            lower.push_lower_case(part.as_bytes());
            expected.push(&before);
            expected.push(part.to_ascii_lowercase());
            prop_assert_eq!(lower.as_bytes(), expected.as_bytes());
        }
    }
}
