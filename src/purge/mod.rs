//! Purges: what is stored and should not be served any more.
//!
//! [`Purge`] is a handle that anything may hold and clone: a handler that changed something, a
//! queue of events, an admin command. It comes from the [builder](crate::ReadThroughBuilder::purge) or from a
//! layer, whose key rules it knows.
//!
//! | purged | what it reaches |
//! |---|---|
//! | [`url`](Purge::url) | all that is stored for the URL, in all variants, by the key rules of the layer |
//! | [`key`](Purge::key) | what is stored under one cache key, in all variants |
//! | [`tag`](Purge::tag), [`tags`](Purge::tags) | all responses with the tag, or one of them; see [`tags`](crate::tags) |
//! | [`path_prefix`](Purge::path_prefix) | all that was fetched for URLs of a host, at a path and below |
//! | [`pattern`](Purge::pattern) | all that was fetched for URLs whose path matches: `http://h/img/*.png`, `http://h/user/{id}` |
//! | [`host`](Purge::host) | all that was fetched for URLs of a host |
//! | [`key_prefix`](Purge::key_prefix) | all keys that begin with these bytes |
//! | [`everything`](Purge::everything) | everything |
//!
//! * **A purge wins.** Once the call has returned, no request that arrives gets what was purged: not
//!   from the store, not while it is revalidated, not while the origin fails, and not from a fetch
//!   that began before and that others wait for. What such a fetch brings is not stored. Requests
//!   that arrived before the purge may still get it.
//! * **Soft** purges ([`soft`](Purge::soft)) make stale instead: what they reach is served in its
//!   `stale-while-revalidate` and `stale-if-error` windows, counted from the purge, and revalidated.
//!   The first purge counts that was noticed while it was stored. A soft purge does not lengthen
//!   what is left of a window.
//! * **Cost.** A purge takes about a microsecond, however much is stored and however many answers it
//!   reaches, and some microseconds in a storm of tens of thousands, when each looks at a part of what is
//!   stored. What it reaches is found out as it is asked for, and by a background task that gives
//!   the memory back, up to 250,000 entries a second. A hit costs one atomic load for as long as
//!   nothing is purged, and some hundred nanoseconds when it is the first after a purge.
//! * **Bounds.** See [`Sequence`] for what is remembered of purges, and for what
//!   happens if that is too much.
//! * **What cannot match** is refused, with what to do instead: a URL with a wildcard, or with a query that
//!   no rule for its path is for. Handles know the rules by which the stack stores: they come from its
//!   builder or its layer, or are [told](Purge::of).
//! * **Elsewhere.** A purge is about one store in this process; it is for the caller to tell others.
//!
//! Answers to unsafe requests purge too: their URI (RFC 9111 §4.4), and with
//! `Cache-Group-Invalidation` groups of the same origin (RFC 9875 §3), whatever their status.
//!
//! ```
//! use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use axum::body::Body;
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_readthrough::{MemoryStore, ReadThroughLayer, Rules};
//!
//! static PRICE: AtomicU32 = AtomicU32::new(10);
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
//!     .rules(Rules::new().fixed_ttl(Duration::from_secs(3600)));
//! let purge = cache.purge();
//! let shop = cache.build()?.layer(service_fn(async |_: Request<Body>| {
//!     let response = Response::builder().header("surrogate-key", "product-7 shelf-3");
//!     Ok::<_, Infallible>(response.body(Body::from(PRICE.load(Ordering::Relaxed).to_string())).unwrap())
//! }));
//! let price = async || {
//!     let request = Request::get("http://shop/lamp").body(Body::empty()).unwrap();
//!     let response = shop.clone().oneshot(request).await.unwrap();
//!     assert!(!response.headers().contains_key("surrogate-key"));
//!     response.into_body().collect().await.unwrap().to_bytes()
//! };
//!
//! assert_eq!(price().await, "10");
//! PRICE.store(8, Ordering::Relaxed);
//! assert_eq!(price().await, "10");
//! purge.tag("product-7");
//! assert_eq!(price().await, "8");
//!
//! assert!(purge.url("/lamp").is_err(), "of which host?");
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "purge-service")]
mod access;
#[cfg(feature = "purge-service")]
mod order;
mod pattern;
#[cfg(feature = "purge-service")]
pub mod service;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use http::{Request, Uri, request::Parts};

use self::pattern::UrlPattern;
#[cfg(feature = "purge-service")]
pub use self::{
    access::{Access, Authorize, Bearer},
    service::PurgeService,
};
#[cfg(feature = "purge-service")]
use crate::tags::TagFields;
use crate::{
    key::{CacheKey, KeyExtractor, Origins, Target, normal_form},
    sequence::{Glob, Sequence},
    store::{Change, Store},
};

/// A handle to purge what is stored; see the [module](self).
///
/// A clone costs one reference count.
#[derive(Clone)]
pub struct Purge {
    shared: Arc<dyn Purgeable>,
    is_soft: bool,
}

/// A purge that has happened: every request that arrives from now on is safe from what it reached.
///
/// How many answers that were is not known, and never will be: what nobody asks for is given back
/// bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    number: u64,
    is_soft: bool,
}

impl Purged {
    /// Its number in the store's [`Sequence`]: it reached what began below, and nothing else.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether what it reached is stale instead of gone.
    pub fn is_soft(&self) -> bool {
        self.is_soft
    }
}

/// Why nothing was purged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// It cannot be read as a URL.
    #[error("{0:?} is not a URL")]
    NotAUrl(String),
    /// It does not say which host it is about.
    #[error("{0:?} is not absolute: begin it with the scheme and the host, as in http://example.com/path")]
    NotAbsolute(String),
    /// It has a user, which is not part of what an answer is stored for.
    #[error("{0:?} has a user before the host: leave that out")]
    HasUser(String),
    /// A prefix of paths has no query.
    #[error(
        "{0:?} has a query, but prefixes and patterns are compared with paths: leave it out, or purge the URL"
    )]
    HasQuery(String),
    /// A URL is one URL.
    #[error(
        "{0:?} has a wildcard, and a URL is compared as it stands: purge it as a pattern, in which `*` stands \
         for anything and `{{id}}` for one segment of the path"
    )]
    Wildcard(String),
    /// What is stored at this path is stored by a rule that asks for another query.
    #[error(
        "{url:?} is not what the rule `{rule}` is for, which stores what is at this path: give all parameters \
         that it names, or purge a pattern, a prefix or a tag"
    )]
    OtherQuery {
        /// The URL.
        url: String,
        /// The name of the rule, or its path if it has no name.
        rule: String,
    },
    /// It cannot be read as a pattern of paths.
    #[error("{pattern:?} is no pattern of paths: {reason}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// Why not.
        reason: &'static str,
    },
    /// It cannot be read as a host.
    #[error("{0:?} is no host: it is a name, with its port if that is not the default one")]
    Host(String),
}

impl Purge {
    pub(crate) fn new<St: Store>(store: St, naming: Naming) -> Self {
        Self { shared: Arc::new(Of { store, naming }), is_soft: false }
    }

    /// A handle to any store, with the extractor of the layer that stores there: the same key rules, or
    /// URLs do not reach what is stored. A [stack](crate::ReadThroughBuilder::purge) and its layers give handles
    /// that know them.
    pub fn of<St: Store, K: KeyExtractor>(store: St, extractor: K) -> Self {
        Self::new(store, Naming::new(Arc::new(extractor)))
    }

    /// The same handle for soft purges: what they reach is stale from then on, and served as stale
    /// answers are.
    #[must_use]
    pub fn soft(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), is_soft: true }
    }

    /// What is stored for a URL: the answers to all requests for what it names by the
    /// [identity](KeyExtractor::identity) that the key rules have for it, whatever their header
    /// fields; without key rules for the URL as it stands, with its query. The scheme counts only
    /// where the identity says so.
    ///
    /// # Errors
    ///
    /// If it is not an absolute URL without a user, if its path has a wildcard (`*`; spelt `%2A` it is none),
    /// or if there are only key rules for its path with another query.
    pub fn url(&self, url: &str) -> Result<Purged, PurgeError> {
        Ok(self.url_of(&self.checked(url)?.0))
    }

    /// The head of a request for a URL that may be stored, and the rule by which it is named.
    fn checked(&self, url: &str) -> Result<(Parts, Option<String>), PurgeError> {
        let head = head(url)?;
        if has_wildcard(&head) {
            return Err(PurgeError::Wildcard(url.to_owned()));
        }
        let rule = self.shared.rule_of(&head);
        let rule = rule.map_err(|rule| PurgeError::OtherQuery { url: url.to_owned(), rule })?;
        Ok((head, rule))
    }

    fn url_of(&self, head: &Parts) -> Purged {
        self.purged(self.shared.purge_url(head, self.is_soft))
    }

    /// Several URLs at once.
    ///
    /// # Errors
    ///
    /// As of [`url`](Self::url), for the first that is none: then nothing is purged.
    pub fn urls<'u>(&self, urls: impl IntoIterator<Item = &'u str>) -> Result<Option<Purged>, PurgeError> {
        let heads = urls.into_iter().map(|url| self.checked(url)).collect::<Result<Vec<_>, _>>()?;
        Ok(heads.iter().map(|(head, _)| self.url_of(head)).last())
    }

    /// What is stored under a key.
    pub fn key(&self, key: &CacheKey) -> Purged {
        self.purged(self.shared.purge_key(key, self.is_soft))
    }

    /// All responses with one of these tags. Returns the last purge, if there is a tag.
    pub fn tags<'t>(&self, tags: impl IntoIterator<Item = &'t str>) -> Option<Purged> {
        tags.into_iter().map(|tag| self.tag(tag)).last()
    }

    /// All answers with this tag, or with a group of this name, whatever their origin.
    pub fn tag(&self, tag: &str) -> Purged {
        self.purged(self.sequence().purge_tag(tag, self.is_soft))
    }

    /// All that was fetched for URLs of a host at this path and below: `http://h/blog` is
    /// `http://h/blog`, `http://h/blog?page=2` and `http://h/blog/2026/`, but not
    /// `http://h/blogger`. A slash at the end changes nothing, and the scheme is not compared.
    /// Segments after the 32nd are left out, and what is at the 32nd and below is purged.
    ///
    /// Where one answer is stored for several URLs, the one counts for which it was fetched, and each for which
    /// it was revalidated. Case counts, also where a [rule](crate::KeyRule::ignore_path_case) ignores it.
    ///
    /// # Errors
    ///
    /// If it is not an absolute URL without user and query.
    pub fn path_prefix(&self, url: &str) -> Result<Purged, PurgeError> {
        Ok(self.path_prefix_of(&prefix(url)?))
    }

    fn path_prefix_of(&self, head: &Parts) -> Purged {
        self.purged(self.shared.purge_path(head, self.is_soft))
    }

    /// All that was fetched for URLs of a host, such as `example.com` or `example.com:8080`.
    ///
    /// # Errors
    ///
    /// If it is no host.
    pub fn host(&self, host: &str) -> Result<Purged, PurgeError> {
        Ok(self.path_prefix_of(&host_of(host)?))
    }

    /// All that was fetched for URLs whose path matches a pattern, with any query:
    ///
    /// * `http://example.com/img/*.png`: `*` stands for anything, also for several segments or for nothing;
    /// * `http://example.com/user/{id}`: `{id}` stands for one segment or a part of it, under any name, and
    ///   a last `{*rest}` for all that follows: what a path of a key rule is for. `/user/7` alone is one
    ///   of them, with all its queries;
    /// * `http://*/feed`: of every host.
    ///
    /// There are no regular expressions. The scheme is not compared, nor is a slash at the end, and paths
    /// are compared in their normal form. A pattern may have 1,024 bytes. Records of patterns are kept with
    /// those of [`key_prefix`](Self::key_prefix), and are as many: where tags or prefixes of the path say
    /// what is meant, they cost less.
    ///
    /// Where one response is stored for several URLs, the one counts for which it was fetched, and each for which it was
    /// revalidated.
    ///
    /// # Errors
    ///
    /// If it is no such pattern.
    ///
    /// ```
    /// use tower_readthrough::{MemoryStore, ReadThroughLayer};
    ///
    /// let purge = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).purge();
    /// assert!(purge.pattern("http://example.com/user/{id}").is_ok());
    /// assert!(purge.pattern("http://example.com/.*").is_err());
    /// ```
    pub fn pattern(&self, pattern: &str) -> Result<Purged, PurgeError> {
        Ok(self.pattern_of(&UrlPattern::parse(pattern)?))
    }

    fn pattern_of(&self, UrlPattern { host, paths, .. }: &UrlPattern) -> Purged {
        self.purged(self.shared.purge_paths(host.as_ref(), paths, self.is_soft))
    }

    /// All that is stored under keys that begin with these bytes. Of a prefix longer than 1,024
    /// bytes those count, so that more is purged.
    pub fn key_prefix(&self, prefix: impl AsRef<[u8]>) -> Purged {
        self.purged(self.sequence().purge_key_prefix(prefix.as_ref(), self.is_soft))
    }

    /// Everything.
    pub fn everything(&self) -> Purged {
        self.purged(self.sequence().purge_everything(self.is_soft))
    }

    fn sequence(&self) -> &Arc<Sequence> {
        self.shared.sequence()
    }

    #[cfg(feature = "purge-service")]
    fn tag_fields(&self) -> TagFields {
        self.shared.tag_fields()
    }

    fn purged(&self, number: u64) -> Purged {
        self.shared.relieve();
        Purged { number, is_soft: self.is_soft }
    }
}

impl fmt::Debug for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purge").field("is_soft", &self.is_soft).finish_non_exhaustive()
    }
}

/// The head of a request for this URL.
fn head(url: &str) -> Result<Parts, PurgeError> {
    let uri: Uri = url.parse().map_err(|_| PurgeError::NotAUrl(url.to_owned()))?;
    let (Some(authority), Some(_)) = (uri.authority(), uri.scheme()) else {
        return Err(PurgeError::NotAbsolute(url.to_owned()));
    };
    if authority.as_str().contains('@') {
        return Err(PurgeError::HasUser(url.to_owned()));
    }
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = uri;
    Ok(head)
}

/// Whether a URL has what means something in a pattern, or in a regular expression, and nothing in a URL.
///
/// Browsers leave all of these as they are in a query, of which only a capture is refused.
fn has_wildcard(head: &Parts) -> bool {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_capture = |(name, _): (&str, &str)| !name.is_empty() && is_name(name);
    let mut braces = head.uri.query().unwrap_or_default().split('{').skip(1);
    head.uri.path().contains(['*', '{', '}', '\\', '^', '|'])
        || braces.any(|rest| rest.split_once('}').is_some_and(is_capture))
}

/// The head of a request for what has this prefix.
fn prefix(url: &str) -> Result<Parts, PurgeError> {
    let head = head(url)?;
    match head.uri.query() {
        None if has_wildcard(&head) => Err(PurgeError::Wildcard(url.to_owned())),
        None => Ok(head),
        Some(_) => Err(PurgeError::HasQuery(url.to_owned())),
    }
}

/// The head of a request for the root of a host.
fn host_of(host: &str) -> Result<Parts, PurgeError> {
    let broken = || PurgeError::Host(host.to_owned());
    if host.is_empty() || host.contains(['/', '?', '#', '*', ':']) && !is_with_port(host) {
        return Err(broken());
    }
    head(&format!("http://{host}/")).map_err(|_| broken())
}

fn is_with_port(host: &str) -> bool {
    let is_address = host.starts_with('[') && host.ends_with(']');
    let port = host.rsplit_once(':').map(|(_, port)| port);
    !host.contains(['/', '?', '#', '*'])
        && (is_address || port.is_some_and(|port| port.parse::<u16>().is_ok()))
}

/// Host, path and query of a URL in the form in which they are compared.
fn display(head: &Parts) -> String {
    let target = Target::of(head, Origins::default());
    let query = head.uri.query().map(|query| format!("?{}", normal_form(query))).unwrap_or_default();
    format!("{}{}{query}", target.host(), target.path())
}

/// A store and what names its keys, whatever their types.
trait Purgeable: Send + Sync {
    fn sequence(&self) -> &Arc<Sequence>;
    fn purge_url(&self, head: &Parts, is_soft: bool) -> u64;
    fn purge_path(&self, head: &Parts, is_soft: bool) -> u64;
    fn purge_key(&self, key: &CacheKey, is_soft: bool) -> u64;
    fn purge_paths(&self, host: Option<&Parts>, paths: &Glob, is_soft: bool) -> u64;
    fn rule_of(&self, head: &Parts) -> Result<Option<String>, String>;
    #[cfg(feature = "purge-service")]
    fn tag_fields(&self) -> TagFields;
    /// After each purge.
    fn relieve(&self);
}

struct Of<St> {
    store: St,
    naming: Naming,
}

/// What names URLs for the handles of a layer, those included that were taken before its key was set.
#[derive(Clone)]
pub(crate) struct Naming(Arc<RwLock<Arc<dyn KeyExtractor>>>);

impl Naming {
    pub(crate) fn new(extractor: Arc<dyn KeyExtractor>) -> Self {
        Self(Arc::new(RwLock::new(extractor)))
    }

    pub(crate) fn set(&self, extractor: Arc<dyn KeyExtractor>) {
        let before = {
            let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, extractor)
        };
        // Not under the lock: it may be the caller's own code.
        drop(before);
    }

    /// As it is now. Calls of it hold no lock.
    pub(crate) fn extractor(&self) -> Arc<dyn KeyExtractor> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, for all of one purge.
    fn edition(&self) -> Arc<dyn KeyExtractor> {
        let extractor = self.extractor();
        extractor.edition().unwrap_or(extractor)
    }
}

impl<St: Store> Purgeable for Of<St> {
    fn sequence(&self) -> &Arc<Sequence> {
        self.store.sequence()
    }

    fn purge_url(&self, head: &Parts, is_soft: bool) -> u64 {
        let extractor = self.naming.edition();
        let number = self.sequence().purge_target(&*extractor, head, is_soft);
        if let (Some(key), false) = (extractor.key(head), is_soft) {
            self.give_back(&key, number);
        }
        number
    }

    fn purge_path(&self, head: &Parts, is_soft: bool) -> u64 {
        self.sequence().purge_path(&*self.naming.edition(), head, is_soft)
    }

    fn purge_paths(&self, host: Option<&Parts>, paths: &Glob, is_soft: bool) -> u64 {
        self.sequence().purge_paths(&*self.naming.edition(), host, paths, is_soft)
    }

    fn rule_of(&self, head: &Parts) -> Result<Option<String>, String> {
        self.naming.edition().rule_of_url(&head.uri, None)
    }

    #[cfg(feature = "purge-service")]
    fn tag_fields(&self) -> TagFields {
        self.naming.extractor().tag_fields()
    }

    fn relieve(&self) {
        self.store.purged();
    }

    fn purge_key(&self, key: &CacheKey, is_soft: bool) -> u64 {
        let number = self.sequence().purge_key(key, is_soft);
        if !is_soft {
            self.give_back(key, number);
        }
        number
    }
}

impl<St: Store> Of<St> {
    /// The number alone makes it safe. This spares the memory of what is known to be of no use.
    fn give_back(&self, key: &CacheKey, number: u64) {
        if self.store.get(key).is_some() {
            self.store.apply(key, Change::Purge { number });
        }
    }
}
