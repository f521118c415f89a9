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
//! A request that has no key is passed on untouched by every layer; responses to GET and HEAD say in
//! `Cache-Status` why there is none ([`Unkeyed`]). Requests of other methods, requests with a body and
//! requests for a protocol other than HTTP (`Upgrade`, RFC 9110 §7.8) have no key, whatever the extractor
//! says; but see [below](#keys-from-bodies). Neither has a GET by which frameworks may mean another method:
//! one with a field such as `X-HTTP-Method-Override`, or with the query parameter `_method`.
//!
//! A [`CacheKey`] that is in the request's extensions already, put there by a middleware of
//! your own, wins over every extractor.
//!
//! # Keys from bodies
//!
//! Some services are read by POST, or by QUERY (RFC 10008): a search, GraphQL queries, a batch of
//! ids. With the feature `body-key`, a rule can say that such requests are reads whose answer
//! depends on their body, of a GET as well. A layer in front of the cache reads the body, up to the bound
//! of the rule, and the key then holds the method, the URI but for what the rule leaves out of its query,
//! `Content-Type`, `Content-Encoding`, `Content-Language`, what else the rule names, and a SHA-256 digest
//! of the body:
//!
//! ```
//! # #[cfg(feature = "body-key")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use axum::{Router, body::Body, routing::post};
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_readthrough::{CacheStatus, KeyRule, KeyRules, MemoryStore, ReadThroughLayer};
//!
//! let search = KeyRule::path("/search").method("POST").body(64 << 10).fixed_ttl(Duration::from_secs(5));
//! let bodies = KeyRules::builder().rule(search).build_with_bodies()?;
//! let store = MemoryStore::with_capacity_bytes(64 << 20);
//! let cache = ReadThroughLayer::builder(store).key(bodies.rules()).build()?;
//! let app = Router::new()
//!     .route("/search", post(async |query: String| format!("found {query}")))
//!     .layer(ServiceBuilder::new().layer(bodies).layer(cache));
//!
//! let mut seen = Vec::new();
//! for query in ["shoes", "hats", "shoes"] {
//!     let request = Request::post("http://shop.example/search").body(Body::from(query))?;
//!     let response = app.clone().oneshot(request).await?;
//!     seen.push(CacheStatus::of(&response).unwrap().to_string());
//!     let answer = axum::body::to_bytes(response.into_body(), 1024).await?;
//!     assert_eq!(answer, format!("found {query}"));
//! }
//! assert_eq!(seen, ["fwd=uri-miss; stored", "fwd=uri-miss; stored", "hit"]);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "body-key"))]
//! # fn main() {}
//! ```
//!
//! **Such a rule must be about reads only.** One for a POST that writes breaks the application: the
//! second of two equal orders gets the answer to the first and never arrives, and a failed one is
//! sent again. Hence each rule names its methods, and a request with `X-HTTP-Method-Override`,
//! `X-Method-Override` or `X-HTTP-Method`, or with the name `_method` in its query or in a body within
//! the bound, is for none.
//!
//! * Without a key pass, as they come and as their bodies arrive: what is longer than the bound, has
//!   trailers, fails on the way or is shorter than its `Content-Length`; what has preconditions, a
//!   `Range` or a key already; what lacks an extension that the rule names. They are reads all the
//!   same, and invalidate nothing. A POST that no such rule is for does, also at the same URI.
//! * What is stored is not revalidated, but fetched whole. Misses, background refreshes and
//!   [retries](crate::retry) send the whole body. A layer in between that makes another type of the
//!   [`RequestBody`](crate::RequestBody) does away with retries: the layer of the bodies belongs
//!   directly in front of the cache.
//! * RFC 9110 §9.3.3 lets an answer to POST be stored only if it says how long it is fresh, and then
//!   answer GET. Here the rules say whether it is stored, as of GET, and it answers equal POSTs alone.
//! * Purges and unsafe requests do not see bodies: they reach what is stored for all bodies at a URI,
//!   and for GET; and for all queries of its path, if a rule with a body leaves out a part of its query.
//! * Each request under way holds its body once, with room to grow: twice the bound at most.
//!   How many there are is for a concurrency limit in front to say, and how long a client may take to
//!   send a body for a timeout there.
//! * Bodies are compared by their bytes: another order of JSON members is another key, unless the rule has
//!   [`json_body`](KeyRule::json_body). Then the origin gets the normal form that the key holds.
//! * By [`graphql`](KeyRule::graphql) a rule tells queries from mutations, by every operation in the
//!   document: what a client says beside it proves nothing. What is no query, or cannot be read without
//!   doubt, is no read, and a success of it invalidates what is stored for the URI.
//! * For GET (`"method": ["GET"]`) a rule with a `body` is about requests with a body alone.
//!
//! ```
//! # #[cfg(feature = "body-key")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use axum::{Router, body::Body, routing::post};
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_readthrough::{CacheStatus, JsonBody, KeyRule, KeyRules, MemoryStore, ReadThroughLayer};
//!
//! let graphql = KeyRule::path("/graphql")
//!     .method("POST")
//!     .body(64 << 10)
//!     .graphql()
//!     .json_body(JsonBody::new())
//!     .fixed_ttl(Duration::from_secs(5));
//! let bodies = KeyRules::builder().rule(graphql).build_with_bodies()?;
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20)).key(bodies.rules()).build()?;
//! let app = Router::new()
//!     .route("/graphql", post(async |body: String| body))
//!     .layer(ServiceBuilder::new().layer(bodies).layer(cache));
//!
//! let ask = async |body: &'static str| {
//!     let request = Request::post("http://api.example/graphql").header("content-type", "application/json");
//!     let response = app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
//!     CacheStatus::of(&response).map(|status| status.to_string())
//! };
//! assert_eq!(ask(r#"{"query": "{ a }", "variables": {}}"#).await.unwrap(), "fwd=uri-miss; stored");
//! assert_eq!(ask(r#"{"variables": {}, "query": "{ a }"}"#).await.unwrap(), "hit");
//! assert_eq!(ask(r#"{"query": "mutation { a }"}"#).await, None);
//! let again = "fwd=stale; stored; detail=invalidated";
//! assert_eq!(ask(r#"{"query": "{ a }", "variables": {}}"#).await.unwrap(), again);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "body-key"))]
//! # fn main() {}
//! ```

#[cfg(feature = "body-key")]
mod body;
mod buffer;
mod default;
mod dot_segments;
mod facts;
mod method_field;
mod normal;
mod overrides;
mod read;
pub mod rules;
mod same_hosts;
mod target;
mod unkeyed;

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use http::{Extensions, HeaderValue, Method, Request, Uri, header, request::Parts, uri::Scheme};
use http_body::Body as HttpBody;
use smallvec::SmallVec;

use crate::{
    build_error::BuildError,
    http::{credentials::Keyed, request_fields::RequestFields, rules::RequestRules},
    tags::TagFields,
};

#[cfg(feature = "body-key")]
pub(crate) use self::body::with_body_key;
#[cfg(feature = "body-key")]
use self::body::{Action, Form, JsonShape, Persisted, Reading, parse_pointer};
#[cfg(feature = "body-key")]
pub use self::rules::{JsonBody, JsonConstant};
#[cfg(feature = "purge-service")]
pub(crate) use self::target::original_uri;
pub use self::{
    buffer::KeyBuffer,
    default::DefaultKey,
    rules::{
        Classes, Guard, KeyRule, KeyRules, KeyRulesBuilder, KeyRulesHandle, RuleError, RuleSummary,
        RuleWarning, When,
    },
    same_hosts::SameHosts,
    unkeyed::Unkeyed,
};
pub(crate) use self::{
    facts::KeyFacts,
    normal::normal_form,
    read::{copy_of_body, has_content, is_read_by_rule, kind_of},
    rules::{RuleOverrides, SearchKey},
    target::{Hashes, Origins, Target},
};

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

    /// Writes the key of this request into an empty buffer. Default: what [`key`](Self::key) returns.
    ///
    /// This is what the layers call, and a key that is written here costs a hit no allocation.
    ///
    /// # Errors
    ///
    /// Why the request has no key.
    fn write_key(&self, head: &Parts, buffer: &mut KeyBuffer) -> Result<(), Unkeyed> {
        self.key(head).map(|key| buffer.set(&key)).ok_or(Unkeyed::NoKey)
    }

    /// What the URI of this request names, whoever asks and however: what is invalidated
    /// together. Default: none, each target URI names a thing of its own.
    ///
    /// An extractor whose keys leave out parts of the URI says so here, so that an unsafe request
    /// to one spelling, or a purge of it, reaches what was stored for another (RFC 9111 §4.4).
    /// Asked about requests of every method, with and without a body, by their URI, their `Host` and
    /// their extensions, all as [`key`](Self::key) sees them; of the extensions only what a router left
    /// there of the URI is to count. Requests with the same key must have the same identity.
    fn identity(&self, _uri: &Uri, _host: Option<&HeaderValue>, _: &Extensions) -> Option<CacheKey> {
        None
    }

    /// What a purge of this URI is by: the name of a rule, for those who ask for the purge. Default: none,
    /// it is the URI as it stands.
    ///
    /// # Errors
    ///
    /// What the query would have to be, if there are only rules for its path with another one.
    fn rule_of_url(&self, _uri: &Uri, _host: Option<&HeaderValue>) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// Calls `each` with what the URI names for each kind of request for it: what an unsafe request to the
    /// URI, or a purge of it, reaches. None is the URI itself. Default: its
    /// [identity](Self::identity) alone.
    ///
    /// An extractor whose identity depends on more than the URI, which it has [noted](Self::note), says so
    /// here. What it is for a request must be among these.
    fn identities(
        &self,
        uri: &Uri,
        host: Option<&HeaderValue>,
        extensions: &Extensions,
        each: &mut dyn FnMut(Option<CacheKey>),
    ) {
        each(self.identity(uri, host, extensions));
    }

    /// Notes in the extensions of a request what the other methods need to know of it, for its fields are
    /// changed on the way to the origin. Called before all others, for each request that may have a key.
    /// Default: nothing.
    fn note(&self, _head: &mut Parts) {}

    /// The scheme that all requests are taken to have, whatever their URIs say. Default: none, it is
    /// that of the URI, or `http`.
    ///
    /// It says which port is the default one, and whether a `Location` names the same origin.
    fn assumed_scheme(&self) -> Option<&Scheme> {
        None
    }

    /// Fields of responses that name [tags](crate::tags), beside `Surrogate-Key` and `Cache-Tag`; see
    /// [`KeyRulesBuilder::tag_fields`]. Default: none. Asked when [`ReadThrough`](crate::ReadThrough)
    /// or [`StoreLayer`](crate::StoreLayer) is built, and by the purge service.
    fn tag_fields(&self) -> TagFields {
        TagFields::default()
    }

    /// The hosts of which several are one. Default: none.
    ///
    /// An extractor whose keys have one host in the place of another says so here, so that purges of
    /// prefixes and what responses refer to are about all of them.
    fn same_hosts(&self) -> Option<&SameHosts> {
        None
    }

    /// The extractor as it is now, if it may change while requests are served; then the layers use what
    /// this returns for all of one request, a purge or an unsafe request, and call nothing else of it but
    /// [`check`](Self::check) and [`tag_fields`](Self::tag_fields). Default: none, it never changes.
    fn edition(&self) -> Option<Arc<dyn KeyExtractor>> {
        None
    }

    /// Whether it can work. Default: yes. Asked when a stack with it is built.
    ///
    /// # Errors
    ///
    /// Says what to change.
    fn check(&self) -> Result<(), BuildError> {
        Ok(())
    }

    /// Brings the fields of a request that has a key into the form in which they are compared
    /// with what a stored answer was selected by (`Vary`, RFC 9111 §4.1), and in which the origin
    /// sees them. Default: they stay as they are.
    ///
    /// Called once the key is known, on hits too, so it had better be cheap. What it changes must
    /// not change the key.
    fn normalise(&self, _head: &mut Parts) {}

    /// Whether [`normalise`](Self::normalise) may change a request. Default: yes.
    ///
    /// Without that the fields of a request are looked at once on a hit, and not twice.
    fn normalises(&self) -> bool {
        true
    }

    /// Makes a request that has a key ready for the origin. Default: nothing to do.
    ///
    /// Called when nothing that is stored answers it, or when that is to be refreshed: a hit does
    /// not pay for it. [`Rules`](crate::Rules) for the answer go into the extensions here.
    fn prepare(&self, _head: &mut Parts) {}
}

/// What the URI names by an extractor above: in the request's extensions, put there by [`Key`].
///
/// The first is that of the request, where it is a read, and all are what it invalidates otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Identity(pub(crate) SmallVec<[Option<CacheKey>; 1]>);

impl<F> KeyExtractor for F
where
    F: Fn(&Parts) -> Option<CacheKey> + Send + Sync + 'static,
{
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        self(head)
    }

    fn normalises(&self) -> bool {
        false
    }
}

/// Writes the key of a request that [may have one](is_for_cache): its own if it carries one, else
/// the extractor's. Call [`normalise`] next.
#[inline(always)]
pub(crate) fn find(
    extractor: &(impl KeyExtractor + ?Sized),
    rules: &RequestRules,
    head: &Parts,
    glance: &RequestFields<'_>,
    buffer: &mut KeyBuffer,
) -> Result<(), Unkeyed> {
    Unkeyed::by(&head.uri, glance.overrides).map_or(Ok(()), Err)?;
    buffer.note(glance.overrides);
    match head.extensions.get::<CacheKey>() {
        Some(own) => {
            buffer.set(own);
            if let Some(facts) = head.extensions.get::<KeyFacts>() {
                buffer.set_keyed(facts.keyed().clone());
            }
        }
        None if is_get_or_head(&head.method) => {
            buffer.expect_cookies(&rules.keyed);
            extractor.write_key(head, buffer)?;
        }
        // No extractor knows the body of a read by its body.
        None => return Err(Unkeyed::Body),
    }
    Ok(())
}

/// Whether [`normalise`] has anything to do.
#[inline]
pub(crate) fn normalises(extractor: &(impl KeyExtractor + ?Sized), rules: &RequestRules) -> bool {
    extractor.normalises() || !rules.keyed.is_nothing()
}

/// Brings a request that has this key into its normal form, and adds to the key what the rules for all
/// requests say.
pub(crate) fn normalise(
    extractor: &(impl KeyExtractor + ?Sized),
    rules: &RequestRules,
    head: &mut Parts,
    buffer: &mut KeyBuffer,
) {
    extractor.normalise(head);
    key_cookies(&rules.keyed, head, buffer);
}

/// Puts cookies into the key, unless it has its own already.
fn key_cookies(keyed: &Keyed, head: &Parts, buffer: &mut KeyBuffer) {
    let Some(names) = keyed.cookies().filter(|_| !buffer.keyed().has(&header::COOKIE)) else { return };
    buffer.push_cookies(names, &head.headers);
    let all = match buffer.keyed().is_nothing() {
        true => keyed.clone(),
        false => buffer.keyed().and_cookies(names.clone()),
    };
    buffer.set_keyed(all);
}

/// Makes a request that has this key ready for the origin.
pub(crate) fn prepare(extractor: &(impl KeyExtractor + ?Sized), key: &KeyBuffer, head: &mut Parts) {
    if let Some(names) = key.keyed().cookies() {
        names.keep_in(head);
    }
    extractor.prepare(head);
}

pub(crate) fn is_get_or_head(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a request may have a key, by all but its fields: only GET, HEAD and reads by a body are
/// answered from a store.
///
/// Asked before it is taken apart: most requests that have none are not moved for the cache's sake.
#[inline]
pub(crate) fn is_for_cache<B: HttpBody>(request: &Request<B>) -> bool {
    match is_get_or_head(request.method()) {
        true => request.body().is_end_stream() || is_keyed_with_content(request.extensions()),
        false => has_content(request.extensions()),
    }
}

/// Whether the key of a GET with a body holds that.
#[cold]
fn is_keyed_with_content(extensions: &Extensions) -> bool {
    has_content(extensions) && extensions.get::<CacheKey>().is_some()
}

/// Whether a request may have a key, whatever its body.
pub(crate) fn may_have_key(head: &Parts, glance: &RequestFields<'_>) -> bool {
    let is_read = is_get_or_head(&head.method) || has_content(&head.extensions);
    is_read && Unkeyed::by(&head.uri, glance.overrides).is_none()
}

#[cfg(test)]
mod tests;
