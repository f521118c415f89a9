//! Keys by rules that are data: built in code, or read from a document (feature `serde`).
//!
//! [`KeyRules`] is a [`KeyExtractor`]. For each request the first [`KeyRule`] that matches its
//! host, method and path says what is in the key, and how the answers are stored. A request that
//! no rule is for, or whose rule says nothing about keys, has the [`DefaultKey`].
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, body::Body, extract::RawQuery, routing::get};
//! use http::Request;
//! use tower::ServiceExt;
//! use tower_readthrough::{KeyRule, KeyRules, MemoryStore, ReadThrough};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // User and session change nothing on the page of a product.
//! let product = KeyRule::path("/get_fprod.php?uid={_}&pid={pid}&sid={_}")
//!     .fixed_ttl(Duration::from_millis(200))
//!     .tags(["product-{pid}"]);
//! let rules = KeyRules::builder()
//!     .rule(product)
//!     .rule(KeyRule::path("/account/{*rest}").bypass())
//!     .build()?;
//! let cache = ReadThrough::new(MemoryStore::with_capacity_bytes(64 << 20)).key(rules).build()?;
//! let page = get(async |RawQuery(query): RawQuery| query.unwrap_or_default());
//! let app = Router::new().route("/get_fprod.php", page).layer(cache);
//!
//! for uid in [1, 2, 3] {
//!     let uri = format!("http://shop.example/get_fprod.php?uid={uid}&pid=7&sid=x{uid}");
//!     let response = app.clone().oneshot(Request::get(uri).body(Body::empty())?).await?;
//!     let page = axum::body::to_bytes(response.into_body(), 1024).await?;
//!     assert_eq!(page, "uid=1&pid=7&sid=x1", "one page for all");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How a request is read
//!
//! What two requests share, the service must answer alike. Wherever services differ in how they
//! read a request, it is kept apart from the others:
//!
//! * **Paths** are matched and keyed as the client wrote them, before axum's routers cut anything
//!   off. A path that routers read in different ways (with `//`, dot segments, `;`, `\` or encoded
//!   characters such as `%2e`, `%2F` and `%61`) has a key only if the same rule is for both
//!   readings, or none is; a rule that leaves a part of the path out is for no such path. So a
//!   path like `/assets/..%2faccount` gets nothing by the rule for `/assets/{*rest}`. Case counts.
//! * **Queries** are split at `&`, and names are decoded (`+` and `%`) to find out which rule is
//!   for them. Values are in the key as written: `id=7` and `id=%37` are two entries. A query that
//!   can be read in several ways (with a `;`, or a name that is not encoded UTF-8 without control
//!   characters) is in the key whole, and matches no template.
//! * **Hosts** are compared without their case, and are in the key with their port. A request
//!   whose URI and `Host` disagree has no key.
//! * **Cookies** are in the key with all their values. If there is a quoted one, the whole field
//!   is, since parsers differ about where it ends.
//!
//! The same reading makes the key, the [identity](KeyExtractor::identity) by which an unsafe
//! request or a purge finds what is stored, and what the [`Guard`] lets through.
//!
//! # Storing
//!
//! What a rule says about storing changes the [`Rules`](crate::Rules) that are configured, and
//! leaves the rest of them alone. `Rules` that a middleware put into the extensions of the request
//! go first. So does a [`CacheKey`] that is there already: then the rule only says how to store.
//!
//! # Documents
//!
//! With the feature `serde`, rules are read from any format that serde knows. The names are those
//! of the methods of [`KeyRulesBuilder`] and [`KeyRule`], `host` and `method` may be one or a list,
//! and times have units. What is misspelt is refused.
//!
//! ```
//! # #[cfg(feature = "serde")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_readthrough::{KeyRules, KeyRulesBuilder};
//!
//! let text = r#"{
//!     "accept_encoding": ["br", "gzip"],
//!     "guard": { "headers": ["x-forwarded-host"] },
//!     "rules": [
//!         { "path": "/account/{*rest}", "bypass": true },
//!         { "host": "api.example.com", "path": "/user/{id}", "default_ttl": "30s",
//!           "store_authorized": true, "headers": ["authorization"], "tags": ["user-{id}"] },
//!         { "path": "/search", "keep_query": ["q", "page"], "sort_query": true, "fixed_ttl": "500ms" },
//!         { "ignore_query": ["utm_*", "gclid"] }
//!     ]
//! }"#;
//! let rules: KeyRules = serde_json::from_str(text)?;
//!
//! // Where a rule needs what only code can say, read the builder.
//! let rules = serde_json::from_str::<KeyRulesBuilder>(text)?.namespace("eu").build()?;
//!
//! let broken = r#"{ "rules": [{ "path": "/user/{id}", "fixed_ttl": "0s" }] }"#;
//! let error = serde_json::from_str::<KeyRules>(broken).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "key rule 0 (`/user/{id}`): `fixed_ttl` is zero, so that nothing is ever fresh by it",
//! );
//! # drop(rules);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "serde"))]
//! # fn main() {}
//! ```
//!
//! # Limits
//!
//! * Only GET and HEAD requests without a body have keys. A rule for GET alone leaves HEAD to the
//!   rules after it.
//! * Rules are tried one after the other, at a few nanoseconds each as long as paths begin
//!   differently.
//! * A purge does not see header fields, cookies and extensions: it reaches what is stored for all
//!   of their values.

mod builder;
mod compile;
mod compiled;
#[cfg(feature = "serde")]
mod document;
mod error;
mod guard;
mod negotiation;
mod no_vary_search;
mod parts;
mod pattern;
mod query;
mod rule;
mod shape;
mod template;

use std::sync::Arc;

use http::{HeaderMap, Method, header, request::Parts, uri::Authority};

pub(crate) use self::no_vary_search::SearchKey;
pub use self::{builder::KeyRulesBuilder, error::RuleError, guard::Guard, rule::KeyRule};

use self::{
    compiled::Compiled,
    guard::{CompiledGuard, replace_query},
    negotiation::Negotiation,
    no_vary_search::policy_of,
    pattern::other_reading,
    shape::{Match, QueryShape, Search, Shape},
};
use super::{
    CacheKey, DefaultKey, KeyBuffer, KeyExtractor,
    default::{push_lower_case, push_path_and_query},
    push_part,
    target::{authority, original_uri},
};
use crate::{http::changes::Changes, tags::Tags};

/// Derives keys by rules; see the [module](self).
///
/// A clone costs one reference count, and shares what was learned from `No-Vary-Search`. With the
/// feature `serde` it can be deserialised, unless a rule needs an
/// [extension](KeyRulesBuilder::extension), which a document cannot say how to read.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "KeyRulesBuilder"))]
pub struct KeyRules {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    default_key: DefaultKey,
    rules: Box<[Compiled]>,
    has_paths: bool,
    negotiation: Negotiation,
    guard: CompiledGuard,
}

/// One rule or another is for a request, depending on how its path is read.
struct Doubtful;

/// The rule that is for a request, if one is.
type Selected<'r, 'h> = Result<Option<Match<'r, 'h>>, Doubtful>;

impl KeyRules {
    /// No rules yet.
    pub fn builder() -> KeyRulesBuilder {
        KeyRulesBuilder::default()
    }

    fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    fn select<'h>(&self, head: &'h Parts, authority: &[u8], method: &Method) -> Selected<'_, 'h> {
        let rules = &*self.inner.rules;
        let target = original_uri(head);
        let found = rules
            .iter()
            .enumerate()
            .find_map(|(index, rule)| Some((index, rule.find(authority, method, target.path(), target)?)));
        if self.inner.has_paths
            && let Some(read) = other_reading(target.path())
        {
            let other = rules.iter().position(|rule| rule.find(authority, method, &read, target).is_some());
            let has_gaps = found.as_ref().is_some_and(|(_, found)| found.rule.has_path_gaps());
            if has_gaps || other != found.as_ref().map(|(index, _)| *index) {
                return Err(Doubtful);
            }
        }
        Ok(found.map(|(_, found)| found))
    }

    /// The rule of a request that may have a key, and its authority.
    fn rule_of<'h>(&self, head: &'h Parts) -> Option<(Selected<'_, 'h>, &'h [u8])> {
        let authority = authority(original_uri(head), &head.headers)?;
        Some((self.select(head, authority, &head.method), authority))
    }

    fn encode(
        &self,
        head: &Parts,
        authority: &[u8],
        found: &Match<'_, '_>,
        shape: &Shape,
        search: Search<'_>,
    ) -> Option<CacheKey> {
        let mut key = self.inner.default_key.begin(found.target, authority);
        shape.push_path(found, &mut key);
        shape.push_query(found, search, &mut key);
        push_rewritten(head, &mut key);
        shape.parts.push(head, &self.inner.negotiation, &mut key)?;
        Some(CacheKey::new(key))
    }

    /// Whether an answer may be kept under this key of its request, by what it says about its
    /// query.
    fn agrees_on_search(&self, head: &Parts, answer: &HeaderMap, key: &CacheKey) -> bool {
        let Some((Ok(Some(found)), authority)) = self.rule_of(head) else { return true };
        let Some(shape @ Shape { query: QueryShape::Learned(_), .. }) = &found.rule.shape else {
            return true;
        };
        let is_under = |policy: Option<&_>| {
            self.encode(head, authority, &found, shape, Search::By(policy)).as_ref() == Some(key)
        };
        // Under its whole query every answer is right.
        is_under(None) || policy_of(answer).is_some_and(|policy| is_under(Some(&policy)))
    }

    fn learn_search(&self, head: &Parts, answer: &HeaderMap) {
        let Some((Ok(Some(found)), authority)) = self.rule_of(head) else { return };
        if let Some(shape @ Shape { query: QueryShape::Learned(learned), .. }) = &found.rule.shape {
            let mut path = self.inner.default_key.begin(found.target, authority);
            shape.push_path(&found, &mut path);
            learned.note(&path, policy_of(answer).as_ref());
        }
    }
}

/// What was rewritten on the way here. What a router of axum cut off counts as that alone, for the
/// rest is in the key already, but for what the rule leaves out.
fn push_rewritten(head: &Parts, key: &mut KeyBuffer) {
    let target = original_uri(head);
    if head.uri.path_and_query() == target.path_and_query() {
        return;
    }
    let is_same_query = head.uri.query() == target.query();
    match target.path().strip_suffix(head.uri.path()).filter(|_| is_same_query) {
        Some(cut) => push_part(key, cut.as_bytes()),
        None => {
            push_part(key, b"?");
            push_path_and_query(key, &head.uri);
        }
    }
}

impl KeyExtractor for KeyRules {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        let (selected, authority) = self.rule_of(head)?;
        match selected.ok()? {
            Some(found) if found.rule.is_bypass => None,
            Some(ref found @ Match { rule: Compiled { shape: Some(shape), .. }, .. }) => {
                self.encode(head, authority, found, shape, Search::AsLearned)
            }
            _ => self.inner.default_key.key(head),
        }
    }

    fn identity(&self, head: &Parts) -> Option<CacheKey> {
        let target = original_uri(head);
        let host = head.headers.get(header::HOST).map(|host| host.as_bytes());
        let authority = target.authority().map(Authority::as_str).map(str::as_bytes).or(host)?;
        // As GET, the method by which all that is stored was asked for.
        let Ok(Some(found)) = self.select(head, authority, &Method::GET) else { return None };
        let shape = found.rule.shape.as_ref()?;
        let mut identity = KeyBuffer::new();
        push_lower_case(&mut identity, authority);
        shape.push_path(&found, &mut identity);
        shape.push_query(&found, Search::Omitted, &mut identity);
        Some(CacheKey::new(identity))
    }

    fn normalise(&self, head: &mut Parts) {
        self.inner.negotiation.apply(&mut head.headers);
        self.inner.guard.strip(&mut head.headers);
    }

    fn prepare(&self, head: &mut Parts) {
        // What is in a key of somebody else's making is not known here.
        let is_own = head.extensions.get::<CacheKey>().is_none();
        let (changes, tags, learns, query) = {
            let Some((Ok(Some(found)), _)) = self.rule_of(head) else { return };
            let rule = found.rule;
            let shape = rule.shape.as_ref().filter(|_| is_own);
            let learns = shape.is_some_and(|shape| matches!(shape.query, QueryShape::Learned(_)));
            let is_guarded = self.inner.guard.query && !rule.forwards_unkeyed;
            let pairs = shape.filter(|_| is_guarded).and_then(|shape| shape.guarded(&found));
            let tags = rule.tags.add_to(head.extensions.get::<Tags>(), &found);
            (rule.changes, tags, learns, pairs.map(|pairs| query::write(&pairs)))
        };
        changes.map(|changes: Changes| head.extensions.insert(changes));
        tags.map(|tags| head.extensions.insert(tags));
        learns.then(|| head.extensions.insert(SearchKey(self.clone())));
        if let Some(query) = query {
            replace_query(head, &query);
        }
    }
}
