//! Which stored response may answer a request: the cache key (RFC 9111 §2).
//!
//! A key is a string of bytes. Two requests with the same key share a stored response, so
//! everything that changes the answer must be in it, or be named by the answer's `Vary`.
//! [`DefaultKey`] takes the scheme, the authority, the path and the query as they stand.
//! [`KeyRules`] say for each endpoint what counts, as data; see [`rules`]. Anything else is a
//! closure over the request head:
//!
//! ```
//! use http::request::Parts;
//! use tower_readthrough::{CacheKey, KeyExtractor};
//!
//! // One entry per product, whoever asks for it.
//! let by_product = |head: &Parts| {
//!     let id = head.uri.path().strip_prefix("/product/")?;
//!     Some(CacheKey::from_parts(["product", id]))
//! };
//! let (head, ()) = http::Request::get("/product/7?session=1").body(()).unwrap().into_parts();
//! assert_eq!(by_product.key(&head), Some(CacheKey::from_parts(["product", "7"])));
//! ```
//!
//! A request that has no key is none of the cache's business: every layer passes it on
//! untouched. So are requests of other methods than GET and HEAD, requests with a body and
//! requests to switch the protocol, whatever the extractor says.
//!
//! A [`CacheKey`] that is in the request's extensions already, put there by a middleware of
//! your own, wins over every extractor.

mod buffer;
mod default;
mod layer;
pub mod rules;
mod target;

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use http::{Method, header, request::Parts};
use http_body::Body as HttpBody;

use crate::http::fields::has;

#[cfg(feature = "purge-service")]
pub(crate) use self::target::original_uri;
pub use self::{
    buffer::KeyBuffer,
    default::DefaultKey,
    layer::{Key, KeyLayer},
    rules::{Guard, KeyRule, KeyRules, KeyRulesBuilder, RuleError},
};
pub(crate) use self::{rules::SearchKey, target::Target};

/// Identifies what a store holds; see the [module](self).
///
/// A clone costs one reference count. Two keys are equal when their bytes are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CacheKey(Arc<[u8]>);

impl CacheKey {
    /// A key of exactly these bytes.
    ///
    /// To put several values into one key use [`from_parts`](Self::from_parts), which keeps
    /// `("ab", "c")` and `("a", "bc")` apart.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(Arc::from(bytes.as_ref()))
    }

    /// A key of several values, each preceded by its length, so that different values can
    /// never run together into the same key.
    pub fn from_parts<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut key = KeyBuffer::new();
        parts.into_iter().for_each(|part| key.push(part));
        key.to_key()
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey(\"{}\")", self.0.escape_ascii())
    }
}

impl Deref for CacheKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// So that a map of keys can be asked for the bytes of one.
impl Borrow<[u8]> for CacheKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Derives the key of a request, or none if the request is not to be cached.
///
/// Implemented for closures over the request head; see the [module](self).
pub trait KeyExtractor: Send + Sync + 'static {
    /// The key of this request.
    ///
    /// Only GET and HEAD requests without a body are ever asked about. The method is not
    /// part of the key: a HEAD request is answered from what a GET left in the store.
    fn key(&self, head: &Parts) -> Option<CacheKey>;

    /// Writes the key of this request into an empty buffer; false if it has none. Default: what
    /// [`key`](Self::key) says.
    ///
    /// This is what the layers call, and a key that is written here costs a hit no allocation.
    fn write_key(&self, head: &Parts, buffer: &mut KeyBuffer) -> bool {
        match self.key(head) {
            Some(key) => {
                buffer.set(&key);
                true
            }
            None => false,
        }
    }
    /// What the URI of this request names, whoever asks and however: what is invalidated
    /// together. Default: none, each target URI names a thing of its own.
    ///
    /// An extractor whose keys leave out parts of the URI says so here, so that an unsafe request
    /// to one spelling, or a purge of it, reaches what was stored for another (RFC 9111 §4.4).
    /// Asked about requests of every method, with and without a body. Only the host and the URI
    /// count: requests with the same key must have the same identity, header fields or not.
    fn identity(&self, _head: &Parts) -> Option<CacheKey> {
        None
    }

    /// Brings the fields of a request that has a key into the form in which they are compared
    /// with what a stored answer was selected by (`Vary`, RFC 9111 §4.1), and in which the origin
    /// sees them. Default: they stay as they are.
    ///
    /// Called once the key is known, on hits too, so it had better be cheap. What it changes must
    /// not change the key.
    fn normalise(&self, _head: &mut Parts) {}

    /// Makes a request that has a key ready for the origin. Default: nothing to do.
    ///
    /// Called when nothing that is stored answers it, or when that is to be refreshed: a hit does
    /// not pay for it. [`Rules`](crate::Rules) for the answer go into the extensions here.
    fn prepare(&self, _head: &mut Parts) {}
}

/// What the URI names by an extractor above: in the request's extensions, put there by [`Key`].
#[derive(Clone, Debug)]
pub(crate) struct Identity(pub(crate) CacheKey);

impl<F> KeyExtractor for F
where
    F: Fn(&Parts) -> Option<CacheKey> + Send + Sync + 'static,
{
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        self(head)
    }
}

/// Writes the key of a request that may have one: its own if it carries one, else the extractor's.
/// A request that has one is in its normal form from then on. False: it has none.
pub(crate) fn find<B: HttpBody>(
    extractor: &impl KeyExtractor,
    head: &mut Parts,
    body: &B,
    buffer: &mut KeyBuffer,
) -> bool {
    if !may_have_key(head) || !body.is_end_stream() {
        return false;
    }
    let has_key = match head.extensions.get::<CacheKey>() {
        Some(own) => {
            buffer.set(own);
            true
        }
        None => extractor.write_key(head, buffer),
    };
    if has_key {
        extractor.normalise(head);
    }
    has_key
}

/// Only GET and HEAD are answered from a store, and never a request to switch protocols
/// (RFC 9110 §7.8), whose answer is a connection and no message.
pub(crate) fn may_have_key(head: &Parts) -> bool {
    matches!(head.method, Method::GET | Method::HEAD) && !has(&head.headers, &header::UPGRADE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn head(builder: http::request::Builder) -> Parts {
        builder.body(()).unwrap().into_parts().0
    }

    fn key_of(extractor: &impl KeyExtractor, head: &mut Parts, body: &impl HttpBody) -> Option<CacheKey> {
        let mut buffer = KeyBuffer::new();
        find(extractor, head, body, &mut buffer).then(|| buffer.to_key())
    }

    #[test]
    fn a_key_in_the_request_wins() {
        let own = CacheKey::new("mine");
        let (mut head, ()) = Request::get("http://h/").body(()).unwrap().into_parts();
        head.extensions.insert(own.clone());
        let body = http_body_util::Empty::<bytes::Bytes>::new();
        assert_eq!(key_of(&DefaultKey::new(), &mut head, &body), Some(own));
    }

    #[test]
    fn bodies_other_methods_and_upgrades_have_no_key() {
        let empty = http_body_util::Empty::<bytes::Bytes>::new();
        let full = http_body_util::Full::<bytes::Bytes>::from("x");
        let key = DefaultKey::new();
        assert!(key_of(&key, &mut head(Request::get("http://h/")), &empty).is_some());
        assert!(key_of(&key, &mut head(Request::head("http://h/")), &empty).is_some());
        assert!(key_of(&key, &mut head(Request::get("http://h/")), &full).is_none());
        assert!(key_of(&key, &mut head(Request::post("http://h/")), &empty).is_none());
        assert!(key_of(&key, &mut head(Request::get("http://h/").method("QUERY")), &empty).is_none());
        assert!(
            key_of(&key, &mut head(Request::get("http://h/").header("upgrade", "websocket")), &empty)
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn keys_of_parts_are_equal_only_for_equal_parts(
            a in proptest::collection::vec(".{0,6}", 0..5),
            b in proptest::collection::vec(".{0,6}", 0..5),
        ) {
            prop_assert_eq!(CacheKey::from_parts(&a) == CacheKey::from_parts(&b), a == b);
        }
    }
}
