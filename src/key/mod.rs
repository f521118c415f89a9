//! Cache keys: which requests share a stored response (RFC 9111 §2).
//!
//! A key is a string of bytes. Requests with the same key share a stored response, so everything that changes
//! the response must be in the key, or be named by the `Vary` of the response. There are three ways to derive
//! keys:
//!
//! * [`DefaultKey`], the default: scheme, authority, path and query as written.
//! * [`KeyRules`]: per endpoint, which parts of a request count, as data; see [`rules`].
//! * A closure over the request head, or any other [`KeyExtractor`]:
//!
//! ```
//! use http::request::Parts;
//! use tower_readthrough::{CacheKey, KeyExtractor};
//!
//! // One entry per product for all clients.
//! let by_product = |head: &Parts| {
//!     let id = head.uri.path().strip_prefix("/product/")?;
//!     Some(CacheKey::from_parts(["product", id]))
//! };
//! let (head, ()) = http::Request::get("/product/7?session=1").body(()).unwrap().into_parts();
//! assert_eq!(by_product.key(&head), Some(CacheKey::from_parts(["product", "7"])));
//! ```
//!
//! A [`CacheKey`] in the extensions of a request, from a middleware of your own, takes precedence over every
//! extractor.
//!
//! # Requests without a key
//!
//! All layers pass a request without a key on unchanged; `Cache-Status` of responses to GET and HEAD has the
//! reason ([`Unkeyed`]). These have no key with any extractor:
//!
//! * requests with another method or with a body, except [reads by their body](#keys-from-bodies);
//! * requests for a protocol other than HTTP (`Upgrade`, RFC 9110 §7.8);
//! * requests of which frameworks may read another method: with a field such as `X-HTTP-Method-Override`, or
//!   with the query parameter `_method`.
//!
//! # Keys from bodies
//!
//! Some services are read by POST, or by QUERY (RFC 10008): a search, GraphQL queries, a batch of ids. With
//! the feature `body-key` a rule can declare such requests, and GET requests with a body, as reads whose
//! response depends on the body. A layer in front of the cache reads the body, up to the bound of the rule.
//! The key holds the method, the URI without the parts of the query that the rule leaves out, `Content-Type`,
//! `Content-Encoding`, `Content-Language`, other parts that the rule names, and a SHA-256 digest of the body:
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
//!     let body = axum::body::to_bytes(response.into_body(), 1024).await?;
//!     assert_eq!(body, format!("found {query}"));
//! }
//! assert_eq!(seen, ["fwd=uri-miss; stored", "fwd=uri-miss; stored", "hit"]);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "body-key"))]
//! # fn main() {}
//! ```
//!
//! **Such a rule must be for reads only.** One for a POST that writes breaks the application: the second of
//! two equal orders gets the response to the first and never arrives, and a failed one is sent again.
//! Therefore each rule names its methods, and no rule matches a request with `X-HTTP-Method-Override`,
//! `X-Method-Override` or `X-HTTP-Method`, or with the name `_method` in its query or in a body within the
//! bound.
//!
//! * Some of these requests pass without a key, unchanged and without waiting for their bodies: those with a
//!   body that is longer than the bound, has trailers, fails, or is shorter than its `Content-Length`; those
//!   with preconditions, a `Range` or a key already; those without an extension that the rule names. They
//!   still count as reads, and invalidate nothing. A POST without such a rule does, also at the same URI.
//! * Stored responses are not revalidated, but fetched whole. Misses, background refreshes and
//!   [retries](crate::retry) send the whole body. A layer in between that changes the type of the
//!   [`RequestBody`] disables retries: the body layer belongs directly in front of the
//!   cache.
//! * RFC 9110 §9.3.3 allows storing a response to POST only if it has explicit freshness, and then for GET
//!   requests. Here the rules decide about storing it, as for GET, and it is only for equal POST requests.
//! * Purges and unsafe requests do not depend on bodies: they reach the entries for all bodies at a URI,
//!   and for GET; and for all queries of its path, if a rule with a body leaves out a part of its query.
//! * Each request in flight holds its body once, in a buffer of at most twice the bound. Limit their number
//!   by a concurrency limit in front, and the time to send a body by a timeout there.
//! * Bodies are compared byte for byte: another order of JSON members is another key, unless the rule has
//!   [`json_body`](KeyRule::json_body). Then the origin gets the normal form that the key holds.
//! * With [`graphql`](KeyRule::graphql) a rule distinguishes queries from mutations by every operation in the
//!   document: other claims of the client prove nothing. A document that is not a query, or is ambiguous, is
//!   not a read, and its success invalidates the entries for the URI.
//! * A rule with a `body` for GET (`"method": ["GET"]`) matches only requests with a body.
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
mod method_field;
pub mod rules;
mod target;
mod uri;

use std::{any::Any, borrow::Borrow, fmt, ops::Deref, sync::Arc};

use bytes::Bytes;
use http::{Extensions, HeaderValue, Method, Request, Uri, header, request::Parts, uri::Scheme};
use http_body::Body as HttpBody;
use smallvec::SmallVec;

#[cfg(feature = "body-key")]
use crate::request_body::RequestBody;
use crate::{
    build_error::BuildError,
    http::{
        request_fields::{Credentials, Keyed, Overrides, RequestFields},
        rules::RequestRules,
        storing::RequestKind,
    },
    reasons::reasons,
    tags::TagFields,
};

#[cfg(feature = "body-key")]
pub(crate) use self::body::with_body_key;
#[cfg(feature = "body-key")]
use self::body::{Action, Form, JsonShape, Persisted, Reading, parse_pointer};
#[cfg(feature = "body-key")]
pub use self::rules::{JsonBody, JsonConstant};
#[cfg(feature = "dashboard")]
pub(crate) use self::uri::original as original_uri_of;
#[cfg(feature = "purge-service")]
pub(crate) use self::uri::original_uri;
pub use self::{
    buffer::KeyBuffer,
    rules::{
        Classes, Guard, KeyRule, KeyRules, KeyRulesBuilder, KeyRulesHandle, RuleError, RuleSummary,
        RuleWarning, When,
    },
    uri::{DefaultKey, SameHosts},
};
pub(crate) use self::{
    rules::{RuleOverrides, SearchKey},
    target::{Hashes, Origins, Target},
    uri::normal_form,
};

/// The key of an entry in a store; see the [module](self).
///
/// A clone costs one reference count. Two keys are equal when their bytes are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CacheKey(Arc<[u8]>);

impl CacheKey {
    /// A key of exactly these bytes.
    ///
    /// For several values use [`from_parts`](Self::from_parts), with which `("ab", "c")` and `("a", "bc")`
    /// differ.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(Arc::from(bytes.as_ref()))
    }

    /// A key of several values, each after its length, so that different values never form the same key.
    pub fn from_parts<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut key = KeyBuffer::new();
        parts.into_iter().for_each(|part| key.push(part));
        key.to_key()
    }

    /// The same bytes, without a copy.
    pub(crate) fn to_shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }

    /// Returns a digest of the key in 16 hexadecimal digits, by which a key can be told from others where the
    /// key itself should not be shown. It is the same in all processes and versions.
    ///
    /// It is not a secret: a guess at the key can be checked by it.
    ///
    /// ```
    /// use tower_readthrough::CacheKey;
    ///
    /// assert_eq!(CacheKey::new("a").digest(), "af63dc4c8601ec8c");
    /// ```
    pub fn digest(&self) -> String {
        digest(&self.0)
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// FNV-1a, 64 bits.
pub(crate) fn digest(key: &[u8]) -> String {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", key.iter().fold(0xcbf2_9ce4_8422_2325, mix))
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

/// Allows lookups in maps of keys by the bytes of one.
impl Borrow<[u8]> for CacheKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Derives the key of a request, or none if it must not be cached.
///
/// Implemented for closures over the request head; see the [module](self).
pub trait KeyExtractor: Send + Sync + 'static {
    /// Returns the key of this request.
    ///
    /// Called for GET and HEAD requests without a body alone. The method is not part of the key: a HEAD
    /// request is answered from the response to a GET.
    fn key(&self, head: &Parts) -> Option<CacheKey>;

    /// Writes the key of this request into an empty buffer. Default: the result of [`key`](Self::key).
    ///
    /// The layers call this method. Overriding it saves a hit the allocation of a [`CacheKey`].
    ///
    /// # Errors
    ///
    /// Returns why the request has no key.
    fn write_key(&self, head: &Parts, buffer: &mut KeyBuffer) -> Result<(), Unkeyed> {
        self.key(head).map(|key| buffer.set(&key)).ok_or(Unkeyed::NoKey)
    }

    /// Returns what the URI of this request names: the entries that are invalidated together. Default: none,
    /// each target URI is a resource of its own.
    ///
    /// Override it if keys leave out parts of the URI, so that an unsafe request to one URI, or a purge of
    /// it, reaches the responses stored for another (RFC 9111 §4.4). Called for requests of every method,
    /// with and without a body, with their URI, their `Host` and their extensions, as [`key`](Self::key) gets
    /// them. It may depend on the extensions only as far as routers keep the URI there. Requests with the
    /// same key must have the same identity.
    fn identity(&self, _uri: &Uri, _host: Option<&HeaderValue>, _: &Extensions) -> Option<CacheKey> {
        None
    }

    /// Returns the name of the rule for a purge of this URI, which the purge service reports. Default: none,
    /// the purge is of the URI as written.
    ///
    /// # Errors
    ///
    /// Returns the expected query, if the rules for the path are all for another one.
    fn rule_of_url(&self, _uri: &Uri, _host: Option<&HeaderValue>) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// Returns the name of the rule that decides about a request with this head, for [records of
    /// decisions](crate::ReadThroughLayer::explain). Default: none, there are no rules.
    fn rule(&self, _head: &Parts) -> Option<String> {
        None
    }

    /// Calls `each` with every identity that requests for the URI may have: what an unsafe request to the
    /// URI, or a purge of it, reaches. `None` is the URI itself. Default: its [identity](Self::identity)
    /// alone.
    ///
    /// Override it if the identity depends on anything beside the URI, which was [noted](Self::note). The
    /// identity of each request must be among these.
    fn identities(
        &self,
        uri: &Uri,
        host: Option<&HeaderValue>,
        extensions: &Extensions,
        each: &mut dyn FnMut(Option<CacheKey>),
    ) {
        each(self.identity(uri, host, extensions));
    }

    /// Notes in the extensions of a request what the other methods need, since its fields change on the way
    /// to the origin. Called before all others, for each request that may have a key. Default: nothing.
    fn note(&self, _head: &mut Parts) {}

    /// Returns the scheme of all requests, whatever their URIs have. Default: none, it is that of the URI, or
    /// `http`.
    ///
    /// It decides which port is the default one, and whether a `Location` names the same origin.
    fn assumed_scheme(&self) -> Option<&Scheme> {
        None
    }

    /// Returns the response fields that name [tags](crate::tags), beside `Surrogate-Key` and `Cache-Tag`; see
    /// [`KeyRulesBuilder::tag_fields`]. Default: none. Called when [`ReadThrough`](crate::ReadThrough)
    /// or [`StoreLayer`](crate::StoreLayer) is built, and by the purge service.
    fn tag_fields(&self) -> TagFields {
        TagFields::default()
    }

    /// Returns the groups of hosts that share entries. Default: none.
    ///
    /// Override it if keys have one host in place of another, so that purges of prefixes and the references
    /// in responses are for all of them.
    fn same_hosts(&self) -> Option<&SameHosts> {
        None
    }

    /// Returns the current edition of an extractor that may change while requests are served. The layers use
    /// one edition throughout a request or a purge, and call only [`check`](Self::check) and
    /// [`tag_fields`](Self::tag_fields) on the extractor itself. Default: none, it never changes.
    fn edition(&self) -> Option<Arc<dyn KeyExtractor>> {
        None
    }

    /// Checks the configuration when a stack is built. Default: it is valid.
    ///
    /// # Errors
    ///
    /// Returns what to change.
    fn check(&self) -> Result<(), BuildError> {
        Ok(())
    }

    /// Normalises the fields of a request with a key. The origin gets this form, and the selecting fields of
    /// a stored response are compared in it (`Vary`, RFC 9111 §4.1). Default: the fields do not change.
    ///
    /// Called after the key is written, on hits too, so it should be cheap. The changes must not affect the
    /// key.
    fn normalise(&self, _head: &mut Parts) {}

    /// Whether [`normalise`](Self::normalise) may change a request. Default: yes.
    ///
    /// If not, a hit reads the fields of a request only once.
    fn normalises(&self) -> bool {
        true
    }

    /// Prepares a request with a key for the origin. Default: no changes.
    ///
    /// Called on misses and for refreshes, not on hits. [`Rules`](crate::Rules) for the response can be put
    /// into the extensions here.
    fn prepare(&self, _head: &mut Parts) {}
}

reasons! {
    /// Why a request has no key, so that the cache passes it on unchanged.
    ///
    /// `Cache-Status` of responses to GET and HEAD requests, and to [reads by their
    /// body](crate::key#keys-from-bodies), is `fwd=bypass` with this reason as `detail`; see
    /// [`CacheStatus::unkeyed_reason`](crate::CacheStatus::unkeyed_reason). Other methods never have a key,
    /// so their responses have no such field.
    pub enum Unkeyed {
        /// Neither the URI nor a `Host` field names a host (`no-host`). In a test with an origin-form URI,
        /// send a `Host` field or an absolute URI.
        NoHost => "no-host", BeforeFetch;
        /// The host is not valid, there are several `Host` fields, or the URI and `Host` disagree
        /// (`unusable-host`; RFC 9110 §7.2).
        UnusableHost => "unusable-host", BeforeFetch;
        /// By a rule: [`KeyRule::bypass`](crate::KeyRule::bypass) (`rule-bypass`).
        RuleBypass => "rule-bypass", BeforeFetch;
        /// Different rules apply to the ways in which servers read the path (`ambiguous-path`); see
        /// [`rules`](crate::key::rules#how-a-request-is-read).
        AmbiguousPath => "ambiguous-path", BeforeFetch;
        /// A rule's [condition](crate::KeyRule::when) holds for some of the ways in which servers read the
        /// request (`ambiguous-condition`); see [`rules`](crate::key::rules#conditions).
        AmbiguousCondition => "ambiguous-condition", BeforeFetch;
        /// The request lacks an extension that the rule has in its keys (`missing-extension`).
        MissingExtension => "missing-extension", BeforeFetch;
        /// The request has a body that is not part of a key (`body`).
        Body => "body", BeforeFetch;
        /// The request asks for a protocol other than HTTP (`upgrade`; RFC 9110 §7.8).
        Upgrade => "upgrade", BeforeFetch;
        /// Frameworks may read another method, from a field such as
        /// `X-HTTP-Method-Override` or from the query parameter `_method` (`method-override`).
        MethodOverride => "method-override", BeforeFetch;
        /// The [`KeyExtractor`] returned no key (`no-key`).
        NoKey => "no-key", BeforeFetch;
    }
}

impl Unkeyed {
    /// Why a request is not [for the cache](is_for_cache). `None` for methods that never are.
    pub(crate) fn of<B: HttpBody>(request: &Request<B>) -> Option<Self> {
        let is_read = is_get_or_head(request.method()) || is_read_by_rule(request.extensions());
        is_read.then(|| {
            let overrides = RequestFields::of(request.headers()).overrides;
            Self::by(request.uri(), overrides).unwrap_or(Self::Body)
        })
    }

    /// Whether frameworks may read another method of a request.
    #[cfg(feature = "body-key")]
    fn overrides_method(head: &Parts) -> bool {
        let overrides = RequestFields::of(&head.headers).overrides;
        Self::by(&head.uri, overrides) == Some(Self::MethodOverride)
    }

    /// Why a request with this URI and these overrides has no key, if frameworks may read another method or
    /// it asks for another protocol.
    #[inline]
    fn by(uri: &Uri, overrides: Overrides) -> Option<Self> {
        let names_method = overrides.method || uri.query().is_some_and(method_field::is_in_query);
        match (names_method, overrides.protocol) {
            (true, _) => Some(Self::MethodOverride),
            (false, true) => Some(Self::Upgrade),
            (false, false) => None,
        }
    }
}

/// Request extension from [`Key`](crate::Key): what the URI names by the extractor of that layer.
///
/// The first is the identity of a read; other requests invalidate all of them.
#[derive(Clone, Debug)]
pub(crate) struct Identity(pub(crate) SmallVec<[Option<CacheKey>; 1]>);

/// What the layer that gave a request its key has learned about it: in the request's extensions, where its
/// fields alone do not say the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyFacts {
    keyed: Keyed,
    credentials: Credentials,
}

impl KeyFacts {
    pub(crate) fn new(keyed: Keyed, credentials: Credentials) -> Self {
        Self { keyed, credentials }
    }

    /// What of the request its key holds, beside the URI.
    pub(crate) fn keyed(&self) -> &Keyed {
        &self.keyed
    }

    /// The credentials that its key does not hold.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials
    }
}

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

/// Writes the key of a request that [may have one](is_for_cache): the one in its extensions, or else that of
/// the extractor. Call [`normalise`] next.
#[inline(always)]
pub(crate) fn find(
    extractor: &(impl KeyExtractor + ?Sized),
    rules: &RequestRules,
    head: &Parts,
    fields: &RequestFields<'_>,
    buffer: &mut KeyBuffer,
) -> Result<(), Unkeyed> {
    Unkeyed::by(&head.uri, fields.overrides).map_or(Ok(()), Err)?;
    buffer.note(fields.overrides);
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
        // Extractors do not get the body that the key would need.
        None => return Err(Unkeyed::Body),
    }
    Ok(())
}

/// Whether [`normalise`] has anything to do.
#[inline]
pub(crate) fn normalises(extractor: &(impl KeyExtractor + ?Sized), rules: &RequestRules) -> bool {
    extractor.normalises() || !rules.keyed.is_nothing()
}

/// Normalises a request with this key, and adds the cookies of the rules for all requests to the key.
pub(crate) fn normalise(
    extractor: &(impl KeyExtractor + ?Sized),
    rules: &RequestRules,
    head: &mut Parts,
    buffer: &mut KeyBuffer,
) {
    extractor.normalise(head);
    key_cookies(&rules.keyed, head, buffer);
}

/// Adds cookies to the key, unless a rule has already chosen its cookies.
fn key_cookies(keyed: &Keyed, head: &Parts, buffer: &mut KeyBuffer) {
    let Some(names) = keyed.cookies().filter(|_| !buffer.keyed().has(&header::COOKIE)) else { return };
    buffer.push_cookies(names, &head.headers);
    let all = match buffer.keyed().is_nothing() {
        true => keyed.clone(),
        false => buffer.keyed().and_cookies(names.clone()),
    };
    buffer.set_keyed(all);
}

/// Prepares a request with this key for the origin.
pub(crate) fn prepare(extractor: &(impl KeyExtractor + ?Sized), key: &KeyBuffer, head: &mut Parts) {
    if let Some(names) = key.keyed().cookies() {
        names.keep_in(head);
    }
    extractor.prepare(head);
}

pub(crate) fn is_get_or_head(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a request may have a key, apart from its fields: only GET, HEAD and reads by a body may.
///
/// Checked before the request is split into head and body, so that requests without a key are not moved.
#[inline]
pub(crate) fn is_for_cache<B: HttpBody>(request: &Request<B>) -> bool {
    match is_get_or_head(request.method()) {
        true => request.body().is_end_stream() || is_keyed_with_content(request.extensions()),
        false => has_content(request.extensions()),
    }
}

/// Whether the key of a GET with a body holds the body.
#[cold]
fn is_keyed_with_content(extensions: &Extensions) -> bool {
    has_content(extensions) && extensions.get::<CacheKey>().is_some()
}

/// Whether a request may have a key, whatever its body.
pub(crate) fn may_have_key(head: &Parts, fields: &RequestFields<'_>) -> bool {
    let is_read = is_get_or_head(&head.method) || has_content(&head.extensions);
    is_read && Unkeyed::by(&head.uri, fields.overrides).is_none()
}

/// Request extension from [`BodyKey`](crate::BodyKey) alone: a rule declares the request a read, whatever its
/// method.
#[cfg_attr(not(feature = "body-key"), allow(dead_code, reason = "only bodies for keys are read"))]
#[derive(Clone, Debug)]
struct ReadByRule {
    /// `None` if the body is not in the key, as it is too large or for another reason.
    content: Option<Content>,
}

/// The whole body of a request, and how to make a copy of it.
#[cfg_attr(not(feature = "body-key"), allow(dead_code, reason = "only bodies for keys are read"))]
#[derive(Clone)]
struct Content {
    bytes: Bytes,
    /// Knows the type of the body, which cannot be in the extensions.
    fill: fn(&mut dyn Any, &Bytes) -> bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Content").field(&self.bytes.len()).finish()
    }
}

#[cfg(feature = "body-key")]
impl ReadByRule {
    const WITHOUT_KEY: Self = Self { content: None };

    /// For a request with this body, which is sent as a `RequestBody<B>`.
    fn with_content<B: HttpBody + 'static>(bytes: Bytes) -> Self {
        Self { content: Some(Content { bytes, fill: fill::<B> }) }
    }
}

#[cfg(feature = "body-key")]
fn fill<B: HttpBody + 'static>(body: &mut dyn Any, bytes: &Bytes) -> bool {
    let body = body.downcast_mut::<RequestBody<B>>();
    body.map(|body| *body = RequestBody::from(bytes.clone())).is_some()
}

/// Whether a rule declares the request a read.
pub(crate) fn is_read_by_rule(extensions: &Extensions) -> bool {
    extensions.get::<ReadByRule>().is_some()
}

fn content(extensions: &Extensions) -> Option<&Content> {
    extensions.get::<ReadByRule>()?.content.as_ref()
}

/// Whether the key of a request holds its body.
pub(crate) fn has_content(extensions: &Extensions) -> bool {
    content(extensions).is_some()
}

/// The kind of a request that may have a key.
pub(crate) fn kind_of(head: &Parts) -> RequestKind {
    match head.method {
        _ if has_content(&head.extensions) => RequestKind::ReadByBody,
        Method::GET => RequestKind::Get,
        _ => RequestKind::Head,
    }
}

/// A copy of the body of a request: an empty one, or the one in its key. `None` if the body is unknown, or if
/// a layer in between changed its type: an empty body would make another request.
pub(crate) fn copy_of_body<ReqB>(body: &ReqB, extensions: &Extensions) -> Option<ReqB>
where
    ReqB: HttpBody + Default + 'static,
{
    if body.is_end_stream() {
        return Some(ReqB::default());
    }
    let content = content(extensions)?;
    let mut body = ReqB::default();
    (content.fill)(&mut body, &content.bytes).then_some(body)
}

#[cfg(test)]
mod tests;
