//! Purges: what is stored and must not be served any more.
//!
//! [`Purge`] is a handle to hold and clone anywhere: in a handler that changed something, a queue of events,
//! an admin command. It comes from the [builder](crate::ReadThroughBuilder::purge) or from a layer, and has
//! the key rules of that.
//!
//! | method | what it reaches |
//! |---|---|
//! | [`url`](Purge::url) | all that is stored for the URL, in all variants, by the key rules of the layer |
//! | [`key`](Purge::key) | what is stored under one cache key, in all variants |
//! | [`tag`](Purge::tag), [`tags`](Purge::tags) | all responses with the tag, or one of them; see [`tags`](crate::tags) |
//! | [`path_prefix`](Purge::path_prefix) | all that was fetched for URLs of a host, at a path and below |
//! | [`pattern`](Purge::pattern) | all that was fetched for URLs with a matching path: `http://h/img/*.png`, `http://h/user/{id}` |
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
//! * **Unproven** is between the two ([`unproven`](Purge::unproven)): what may have changed is not used before
//!   the origin has confirmed it, and still covers for an origin that fails.
//! * **Cost.** A purge takes about a microsecond, however much is stored and however many responses it
//!   reaches, and some microseconds among tens of thousands, when each checks a part of what is stored. What
//!   it reaches is found when it is requested, and by a background task that gives the memory back, up to
//!   250,000 entries a second. Copies that threads keep of hot entries are not served either, and go with
//!   their originals. A hit costs one atomic load for as long as nothing is purged, and some hundred
//!   nanoseconds when it is the first after a purge.
//! * **Bounds.** See [`Sequence`] for what is kept of purges, and for what happens at the limits.
//! * **What cannot match** is an error that says what to do instead: a URL with a wildcard, or with a query
//!   that no rule for its path stores. Handles know the rules by which the stack stores: they come from its
//!   builder or its layer, or are [given](Purge::of) them.
//! * **Other processes.** A purge reaches one store in this process. In a cluster (feature `redis`) the other
//!   nodes hear of it, and [`Purged::applied_everywhere`] waits for them.
//!
//! Responses to unsafe requests purge too: their URI (RFC 9111 §4.4), and with
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
//! assert!(purge.url("/lamp").is_err(), "it does not say the host");
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "purge-service")]
mod access;
#[cfg(feature = "purge-service")]
pub(crate) mod frame;
#[cfg(feature = "purge-service")]
mod order;
#[cfg(feature = "redis")]
mod other_node;
mod pattern;
#[cfg(feature = "purge-service")]
mod sender;
#[cfg(feature = "purge-service")]
pub mod service;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::{Request, Uri, request::Parts};
use tokio::time::Instant;

#[cfg(feature = "redis")]
pub(crate) use self::other_node::Applicable;
use self::pattern::UrlPattern;
#[cfg(feature = "purge-service")]
pub(crate) use self::sender::Sender;
#[cfg(feature = "purge-service")]
pub use self::{
    access::{Access, Authorize, Basic, Bearer},
    service::PurgeService,
};
pub use crate::sequence::{NotEverywhere, NotEverywhereReason, Strength};
#[cfg(feature = "purge-service")]
use crate::tags::TagFields;
use crate::{
    http::storing::after,
    key::{CacheKey, KeyExtractor, Origins, Target, normal_form},
    observe::{PurgeKind, Stats},
    sequence::{Glob, Message, MessageKind, Purging, Receipt, Sequence},
    store::{Change, Store},
};

/// A handle to purge what is stored; see the [module](self).
///
/// A clone costs one reference count.
#[derive(Clone)]
pub struct Purge {
    shared: Arc<dyn Purgeable>,
    strength: Strength,
    stats: Option<Stats>,
}

/// A purge that has happened: no request that arrives from now on gets what it reached.
///
/// How many responses that were is not known: the memory of what is not requested again is given back bit by
/// bit.
///
/// It is the receipt, too, where the store is part of a cluster (feature `redis`): then other nodes hear of it.
#[derive(Clone, Debug)]
pub struct Purged {
    number: u64,
    strength: Strength,
    receipts: Vec<Arc<dyn Receipt>>,
}

/// Where a purge stands that was done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PurgeState {
    /// It is about this process alone: there is no cluster.
    Local,
    /// It waits to be sent to the other nodes. It is lost if this process ends before that.
    Queued,
    /// The log that all nodes read has it.
    Sent,
}

impl Purged {
    /// Returns its number in the store's [`Sequence`]: it reached responses of fetches with smaller numbers.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether what it reached is stale, instead of gone.
    pub fn is_soft(&self) -> bool {
        self.strength == Strength::Soft
    }

    /// Returns what it made of what it reached.
    pub fn strength(&self) -> Strength {
        self.strength
    }

    /// Returns whether the other nodes of a cluster can hear of it.
    pub fn state(&self) -> PurgeState {
        match &*self.receipts {
            [] => PurgeState::Local,
            all if all.iter().all(|receipt| receipt.is_sent()) => PurgeState::Sent,
            _ => PurgeState::Queued,
        }
    }

    /// Waits until all nodes of the cluster have applied it: from then on no node serves what it reached.
    /// Without a cluster that is so already.
    ///
    /// # Errors
    ///
    /// If it is not known to be so after this time: with the names of the nodes that have not said so. It is
    /// applied there as soon as they read the log.
    pub async fn applied_everywhere(&self, within: Duration) -> Result<(), NotEverywhere> {
        let until = after(Instant::now(), within);
        for receipt in &self.receipts {
            receipt.applied_everywhere(until.saturating_duration_since(Instant::now())).await?;
        }
        Ok(())
    }

    /// This one and a later one.
    fn and(mut self, later: Self) -> Self {
        self.receipts.extend(later.receipts);
        Self { receipts: self.receipts, ..later }
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
    /// It has a user, and responses are stored without one.
    #[error("{0:?} has a user before the host: leave that out")]
    HasUser(String),
    /// A prefix of paths has no query.
    #[error(
        "{0:?} has a query, but prefixes and patterns are compared with paths: leave it out, or purge the URL"
    )]
    HasQuery(String),
    /// It has a wildcard, but a URL is compared as it stands.
    #[error(
        "{0:?} has a wildcard, and a URL is compared as it stands: purge it as a pattern, in which `*` stands \
         for anything and `{{id}}` for one segment of the path"
    )]
    Wildcard(String),
    /// Responses at this path are stored by a rule that requires another query.
    #[error(
        "{url:?} is not what the rule `{rule}` is for, which stores responses at this path: give all \
         parameters that it names, or purge a pattern, a prefix or a tag"
    )]
    OtherQuery {
        /// The URL.
        url: String,
        /// The name of the rule, or its path if it has no name.
        rule: String,
    },
    /// It cannot be read as a pattern of paths.
    #[error("invalid path pattern {pattern:?}: {reason}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It cannot be read as a host.
    #[error(
        "{0:?} is not a valid host: expected a name such as `example.com`, with its port if that is not the default one"
    )]
    Host(String),
}

impl Purge {
    pub(crate) fn new<St: Store>(store: St, naming: Naming) -> Self {
        Self { shared: Arc::new(Of { store, naming }), strength: Strength::Hard, stats: None }
    }

    /// Returns a handle to any store, with the extractor of the layer that stores there: with other key
    /// rules, purges of URLs do not reach what is stored. A [stack](crate::ReadThroughBuilder::purge) and its
    /// layers return handles with the right one.
    pub fn of<St: Store, K: KeyExtractor>(store: St, extractor: K) -> Self {
        Self::new(store, Naming::new(Arc::new(extractor)))
    }

    /// Returns the same handle for soft purges: what they reach is stale from then on, and served as stale
    /// responses are.
    #[must_use]
    pub fn soft(&self) -> Self {
        Self { strength: Strength::Soft, ..self.clone() }
    }

    /// Returns the same handle for purges of what may have changed: what they reach is
    /// [unproven](Strength::Unproven), and is not used before the origin has confirmed it. For example where
    /// the connection over which changes are announced was lost for a while.
    ///
    /// What is reached still covers for an origin that fails, in the window for that, counted from the end of
    /// its lifetime as if nothing had been purged. It does not stand in for a fetch that is slow and goes on: a
    /// request that waits no longer for that gets a 504, and one that finds no place among those that wait a 503.
    #[must_use]
    pub fn unproven(&self) -> Self {
        Self { strength: Strength::Unproven, ..self.clone() }
    }

    /// The same handle, whose purges are counted here.
    pub(crate) fn counted_by(self, stats: Option<&Stats>) -> Self {
        Self { stats: stats.cloned(), ..self }
    }

    /// Purges what is stored for a URL: the responses to all requests for what it names by the
    /// [identity](KeyExtractor::identity) that the key rules have for it, whatever their header fields.
    /// Without key rules, those for the URL as it stands, with its query. The scheme counts only where the
    /// identity says so.
    ///
    /// # Errors
    ///
    /// If it is not an absolute URL without a user, if its path has a wildcard (`*`; write `%2A` for the
    /// character), or if key rules for its path store only other queries.
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
        let (what, key) = self.shared.of_url(head);
        let purged =
            self.issue(PurgeKind::Url, || self.said(MessageKind::Url, self.shared.text(head)), &what);
        if let (Some(key), Strength::Hard) = (key, self.strength) {
            self.shared.give_back(&key, purged.number);
        }
        purged
    }

    /// Purges several URLs at once. Returns the last purge, if there is a URL.
    ///
    /// # Errors
    ///
    /// That of [`url`](Self::url) for the first invalid one. Then nothing is purged.
    pub fn urls<'u>(&self, urls: impl IntoIterator<Item = &'u str>) -> Result<Option<Purged>, PurgeError> {
        let heads = urls.into_iter().map(|url| self.checked(url)).collect::<Result<Vec<_>, _>>()?;
        Ok(heads.iter().map(|(head, _)| self.url_of(head)).reduce(Purged::and))
    }

    /// Purges what is stored under a key.
    pub fn key(&self, key: &CacheKey) -> Purged {
        let message = || Message::new(MessageKind::Key, key.as_bytes(), self.strength);
        let purged = self.issue(PurgeKind::Key, message, &self.sequence().of_key(key));
        if self.strength == Strength::Hard {
            self.shared.give_back(key, purged.number);
        }
        purged
    }

    /// Purges all responses with one of these tags. Returns the last purge, if there is a tag.
    pub fn tags<'t>(&self, tags: impl IntoIterator<Item = &'t str>) -> Option<Purged> {
        tags.into_iter().map(|tag| self.tag(tag)).reduce(Purged::and)
    }

    /// Purges all responses with this tag, or with a group of this name from any origin.
    pub fn tag(&self, tag: &str) -> Purged {
        let message = || Message::new(MessageKind::Tag, tag.as_bytes(), self.strength);
        self.issue(PurgeKind::Tag, message, &self.sequence().of_tag(tag))
    }

    /// Purges all that was fetched for URLs of a host at this path and below: `http://h/blog` reaches
    /// `http://h/blog`, `http://h/blog?page=2` and `http://h/blog/2026/`, but not `http://h/blogger`. A final
    /// slash and the scheme are not compared. Segments after the 32nd are left out, so that more is purged.
    ///
    /// A response that is stored for several URLs is reached by the one for which it was fetched, and by each
    /// for which it was revalidated. Case counts, also where a [rule](crate::KeyRule::ignore_path_case)
    /// ignores it.
    ///
    /// # Errors
    ///
    /// If it is not an absolute URL without user and query.
    pub fn path_prefix(&self, url: &str) -> Result<Purged, PurgeError> {
        Ok(self.path_prefix_of(&prefix(url)?))
    }

    fn path_prefix_of(&self, head: &Parts) -> Purged {
        let kind = if head.uri.path() == "/" { PurgeKind::Host } else { PurgeKind::PathPrefix };
        let message = || self.said(MessageKind::Path, self.shared.text(head));
        self.issue(kind, message, &self.shared.of_path(head))
    }

    /// Purges all that was fetched for URLs of a host, such as `example.com` or `example.com:8080`.
    ///
    /// # Errors
    ///
    /// If it is not a valid host.
    pub fn host(&self, host: &str) -> Result<Purged, PurgeError> {
        Ok(self.path_prefix_of(&host_of(host)?))
    }

    /// Purges all that was fetched for URLs with a path that matches a pattern, and any query:
    ///
    /// * `http://example.com/img/*.png`: `*` stands for anything, also for several segments or for nothing;
    /// * `http://example.com/user/{id}`: `{id}` stands for one segment or a part of it, under any name, and a
    ///   last `{*rest}` for all that follows, as in the path of a key rule. Both match `/user/7`, with all
    ///   its queries;
    /// * `http://*/feed`: of every host.
    ///
    /// There are no regular expressions. The scheme is not compared, nor is a slash at the end, and paths
    /// are compared in their normal form. A pattern may have 1,024 bytes. Its record is kept with those of
    /// [`key_prefix`](Self::key_prefix), within the same limit: tags and prefixes of paths cost less.
    ///
    /// A response that is stored for several URLs is reached by the one for which it was fetched, and by each
    /// for which it was revalidated.
    ///
    /// # Errors
    ///
    /// If it is not a valid pattern.
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

    fn pattern_of(&self, UrlPattern { host, paths, url, .. }: &UrlPattern) -> Purged {
        let message = || Message::new(MessageKind::Pattern, url.as_bytes(), self.strength);
        self.issue(PurgeKind::Pattern, message, &self.shared.of_paths(host.as_ref(), paths))
    }

    /// Purges all that is stored under keys that begin with these bytes. Of a longer prefix the first 1,024
    /// bytes count, so that more is purged.
    pub fn key_prefix(&self, prefix: impl AsRef<[u8]>) -> Purged {
        let prefix = prefix.as_ref();
        let message = || Message::new(MessageKind::KeyPrefix, prefix, self.strength);
        self.issue(PurgeKind::KeyPrefix, message, &self.sequence().of_key_prefix(prefix))
    }

    /// Purges everything.
    pub fn everything(&self) -> Purged {
        let message = || Message::new(MessageKind::Everything, &[], self.strength);
        self.issue(PurgeKind::Everything, message, &Purging::everything())
    }

    fn sequence(&self) -> &Arc<Sequence> {
        self.shared.sequence()
    }

    #[cfg(feature = "purge-service")]
    fn tag_fields(&self) -> TagFields {
        self.shared.tag_fields()
    }

    fn issue(&self, kind: PurgeKind, message: impl FnOnce() -> Message, what: &Purging) -> Purged {
        let (number, receipt) = self.sequence().purge_as(message, what, self.strength);
        self.shared.relieve();
        if let Some(stats) = &self.stats {
            stats.purged(kind, self.strength);
        }
        Purged { number, strength: self.strength, receipts: receipt.into_iter().collect() }
    }

    /// What cannot be said to others leaves everything unproven there.
    fn said(&self, kind: MessageKind, url: Option<String>) -> Message {
        url.map_or_else(Message::doubt, |url| Message::new(kind, url.as_bytes(), self.strength))
    }
}

impl fmt::Debug for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purge").field("strength", &self.strength).finish_non_exhaustive()
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
    /// And the key of such a request, if it has one.
    fn of_url(&self, head: &Parts) -> (Purging, Option<CacheKey>);
    fn of_path(&self, head: &Parts) -> Purging;
    fn of_paths(&self, host: Option<&Parts>, paths: &Glob) -> Purging;
    /// A URL in words that mean the same in another process.
    fn text(&self, head: &Parts) -> Option<String>;
    /// Gives the memory back at once. The number alone keeps it from being served.
    fn give_back(&self, key: &CacheKey, number: u64);
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

    /// Returns the current one. Calls of it hold no lock.
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

    fn of_url(&self, head: &Parts) -> (Purging, Option<CacheKey>) {
        let extractor = self.naming.edition();
        (self.sequence().of_target(&*extractor, head), extractor.key(head))
    }

    fn of_path(&self, head: &Parts) -> Purging {
        self.sequence().of_path(&*self.naming.edition(), head)
    }

    fn of_paths(&self, host: Option<&Parts>, paths: &Glob) -> Purging {
        self.sequence().of_paths(&*self.naming.edition(), host, paths)
    }

    fn text(&self, head: &Parts) -> Option<String> {
        Target::of(head, Origins::of(&*self.naming.edition())).to_text()
    }

    fn give_back(&self, key: &CacheKey, number: u64) {
        if self.store.get(key.as_bytes()).is_some() {
            self.store.apply(key, Change::Purge { number });
        }
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
}
