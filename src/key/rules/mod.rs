//! Keys by rules, built in code or read from a document (feature `serde`).
//!
//! [`KeyRules`] is a [`KeyExtractor`](super::KeyExtractor). The first [`KeyRule`] that matches the host, the
//! method, the path and the [conditions](#conditions) of a request decides what is in the key and how
//! responses are stored. Without a rule, or with one that has no settings about keys, a request has the
//! [`DefaultKey`](super::DefaultKey).
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, body::Body, extract::RawQuery, routing::get};
//! use http::Request;
//! use tower::ServiceExt;
//! use tower_readthrough::{KeyRule, KeyRules, MemoryStore, ReadThroughLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The page of a product does not depend on user and session, which do not reach the handler.
//! let product = KeyRule::path("/get_fprod.php?uid={_}&pid={pid}&sid={_}")
//!     .cookies([])
//!     .fixed_ttl(Duration::from_millis(200))
//!     .tags(["product-{pid}"]);
//! let rules = KeyRules::builder()
//!     .rule(product)
//!     .rule(KeyRule::path("/account/{*rest}").bypass())
//!     .build()?;
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20)).key(rules).build()?;
//! let page = get(async |RawQuery(query): RawQuery| query.unwrap_or_default());
//! let app = Router::new().route("/get_fprod.php", page).layer(cache);
//!
//! for uid in [1, 2, 3] {
//!     let uri = format!("http://shop.example/get_fprod.php?uid={uid}&pid=7&sid=x{uid}");
//!     let response = app.clone().oneshot(Request::get(uri).body(Body::empty())?).await?;
//!     let page = axum::body::to_bytes(response.into_body(), 1024).await?;
//!     assert_eq!(page, "pid=7", "one page for all users");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Vocabulary
//!
//! Each name is a field of documents and a method of [`KeyRulesBuilder`] or [`KeyRule`]. The document has:
//!
//! | name | meaning |
//! |---|---|
//! | `rules` | the rules, of which the first match counts |
//! | `ignore_query` | parameters that no response depends on, for all rules without `keep_query` |
//! | `accept_encoding`, `accept_language` | what the application supports: each `Accept-Encoding` or `Accept-Language` is reduced to one member |
//! | `classes` | [`Classes`] of a header field: `field`, `name`, `classes` (each a `class` with its `patterns`), `otherwise` |
//! | `guard` | a [`Guard`]: `headers`, `only_headers`, `keyed`, `only`; `{}` is the default guard |
//! | `tag_fields` | [response fields](KeyRulesBuilder::tag_fields) that name tags, with their separators |
//! | `same_hosts` | groups of hosts that have the same resources |
//! | `namespace`, `scheme`, `whole_uri` | as for the [`DefaultKey`](super::DefaultKey) |
//!
//! A rule has:
//!
//! | name | meaning |
//! |---|---|
//! | `name` | what errors and warnings call it |
//! | `host`, `method`, `path` | the requests that it is for, by [`host`](KeyRule::host), [`method`](KeyRule::method) and [`path`](KeyRule::path) |
//! | `ignore_path_case` | its paths match in any case |
//! | `when` | only requests for which [`When`] holds: `cookies`, `no_cookies`, `headers`, `no_headers`, `query`, `no_query` |
//! | `bypass` | the requests have no key |
//! | `keep_query`, `ignore_query` | which parameters are in the key; `filter_*` is a prefix |
//! | `sort_query`, `drop_empty_query` | the order of parameters, or empty values, do not count |
//! | `no_vary_search` | responses name the parameters that count, in `No-Vary-Search` |
//! | `headers`, `cookies`, `extensions` | what else is in the key |
//! | `forward_unkeyed` | what is not in the key also reaches the origin |
//! | `body` | requests are reads by their [body](super#keys-from-bodies), of at most so many bytes |
//! | `graphql`, `persisted_queries` | GraphQL queries are reads |
//! | `json_body` | the normal form of a JSON body: `include`, `ignore`, `replace` |
//! | `fixed_ttl`, `default_ttl`, `negative_ttl`, `heuristic` | how long responses are fresh: always, by default, for 404 and 410, or by heuristic (`share`, `at_most`) |
//! | `ttl_jitter`, `refresh_ahead` | what keeps them from being fetched together: lifetimes shorter by up to a share, refreshes after a share of the lifetime |
//! | `stale_while_revalidate_for`, `stale_if_error_for`, `stale_despite_revalidate` | when responses are served stale |
//! | `revalidate_for`, `hit_for_miss_for` | how long stale responses with validators, and hit-for-miss entries, are kept |
//! | `store_set_cookie`, `store_private`, `store_no_store`, `store_authorized` | which responses are stored although their fields forbid it |
//! | `store_without` | response fields that only the client gets that caused the fetch |
//! | `tags` | the tags of responses, for [purges](#tags-and-purges) |
//!
//! # How a request is read
//!
//! Two requests may share an entry only if every service responds alike to both. A request that services read
//! in different ways is kept apart:
//!
//! * **Paths** are matched and keyed as the client wrote them, before routers of axum 0.8 remove a prefix
//!   (feature `axum`; without it see [`KeyRulesBuilder::whole_uri`], and with another version of axum put the
//!   layer outside of `nest`). A path that routers read in different ways (with `//`, dot segments, `;`, `\`
//!   or encoded characters such as `%2e`, `%2F` and `%61`) has a key only if the same rule, or no rule, is
//!   for all its readings, and if there are at most 16. A path that servers decode in different ways
//!   (`%u002e`, octets that are not encoded UTF-8, triple encoding) has no key. A rule that leaves a part of
//!   the path out of the key is for neither kind. So the rule for `/assets/{*rest}` is not for
//!   `/assets/..%2faccount`, and only a rule for `/report:all` is for `/report%3Aall`.
//! * **Case** counts in paths, except for rules that bypass: these match in any case, with or without a
//!   trailing slash, and with an extension (`/account.css` for `/account`).
//! * **Queries** are split at `&`, and names are decoded (`+` and `%`) before they are compared. Values are
//!   in the key as written: `id=7` and `id=%37` are two entries. A query that can be read in several ways
//!   (with a `;`, or a name that is not encoded UTF-8 or has control characters) is in the key whole, and
//!   matches no template. What a rule leaves out of the key does not reach the origin, unless the rule
//!   [forwards](KeyRule::forward_unkeyed) it. Servers differ in which of more than 256 parameters they read,
//!   so a query with more is in the key whole.
//! * **Fields that override the target**, such as `X-Forwarded-Host`, are in the key of a request that has
//!   them, as with [`DefaultKey`](super::DefaultKey), unless a [`Guard`] removes them.
//! * **Hosts** are compared without regard to case, and are in the key with their port. A request in which
//!   URI and `Host` differ has no key.
//! * **Cookies** that a rule names are in the key with all their values. The origin gets only these, in the
//!   order of the rule, so however it reads the field, all of it is in the key. A cookie ends at the next
//!   `;`, quoted or not, and the case of names counts. If the rule names any cookies, a request with more
//!   than 256 has all of them in the key, and all reach the origin.
//!
//! The key, the [identity](super::KeyExtractor::identity) by which unsafe requests and purges find entries,
//! and what the [`Guard`] lets pass all come from the same reading.
//!
//! # Conditions
//!
//! A rule with [`when`](KeyRule::when) is only for requests with cookies, header fields and a query that meet
//! its conditions. [`When`] lists all conditions.
//!
//! ```
//! # #[cfg(feature = "serde")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use http::Request;
//! use tower_readthrough::{KeyExtractor, KeyRules};
//!
//! let rules: KeyRules = serde_json::from_str(r#"{ "rules": [
//!     { "when": { "cookies": ["wordpress_logged_in_*"] }, "bypass": true },
//!     { "when": { "headers": ["user-agent: *bot*"], "no_query": ["preview"] }, "cookies": [], "fixed_ttl": "1h" },
//!     { "cookies": [], "fixed_ttl": "1m" }
//! ] }"#)?;
//! let key = |name: &str, value: &str| {
//!     let request = Request::get("http://blog.example/post/1").header(name, value).body(()).unwrap();
//!     rules.key(&request.into_parts().0)
//! };
//! assert_eq!(key("cookie", "_ga=1; wordpress_logged_in_5f=bob"), None);
//! assert!(key("user-agent", "Examplebot/1.0").is_some());
//! assert_ne!(key("user-agent", "Examplebot/1.0"), key("user-agent", "Mozilla/5.0"));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "serde"))]
//! # fn main() {}
//! ```
//!
//! * **Ambiguity.** Servers read some requests in different ways. A condition is ambiguous if one server
//!   could find what it names and another could not, or with another value: several cookies, parameters or
//!   field lines of one name with different values; quoted cookies, and cookies separated by commas or
//!   spaces; names and values that are encoded or in another case, `_` for `-` in fields, `.` for `_`
//!   elsewhere; `__Host-` or `__Secure-` before the name of a cookie; elements such as `a[]`; queries with a
//!   `;`; and more than 256 cookies or parameters. A rule that bypasses is for such a request. If the
//!   conditions of another rule are ambiguous, the request has no key
//!   ([`AmbiguousCondition`](super::Unkeyed::AmbiguousCondition)).
//! * **Entries.** A rule with conditions shares no entries with other rules, nor with rules that have other
//!   conditions. Conditions affect keys in no other way: cookies, fields and parameters that change the
//!   response by their values must also be in `cookies`, `headers` or `keep_query`.
//! * **The origin.** Conditions are evaluated on the request of the client. A cookie that is missing in
//!   `cookies`, a parameter that `keep_query` leaves out, or a field that the [`Guard`] removes can select a
//!   rule, but does not reach the origin, which responds as if it were absent.
//! * **Purges** by URL and unsafe requests have only a URI. They reach the entries of each rule that may be
//!   for it, whatever its conditions.
//! * **Order.** A rule that an earlier one covers is refused as unreachable. A rule with conditions covers
//!   only rules with the same or narrower conditions.
//!
//! # Storing
//!
//! The storing settings of a rule override the configured [`Rules`](crate::Rules), setting by setting.
//! `Rules` that a middleware puts into the extensions of the request take precedence. So does a
//! [`CacheKey`](super::CacheKey) in the extensions: then the rule only decides about storing.
//!
//! | setting | example |
//! |---|---|
//! | [`store_without`](KeyRule::store_without) | `["set-cookie", "x-request-id"]`: only the client that caused a fetch gets these fields |
//!
//! # Bodies
//!
//! With the feature `body-key`, requests can be reads by their body; see [`key`](super#keys-from-bodies). The
//! settings about the query, fields, cookies, extensions and tags work as for GET. All of the path is in the
//! key.
//!
//! | setting | meaning |
//! |---|---|
//! | `body` | the requests are reads, and their body of at most so many bytes is in the key: `65536` |
//! | `graphql` | they are reads only if every operation in the body is a query: `true` |
//! | `persisted_queries` | or if they name queries by these hashes: `["ecf4…"]` |
//! | `json_body` | the normal form of the JSON, or of a part of it, is in the key: `{ "ignore": ["/session"] }` |
//!
//! # Tags and purges
//!
//! Responses that are purged together share a tag, or a pattern of their URLs:
//!
//! | to purge | the rule has | the [purge](crate::purge) is of |
//! |---|---|---|
//! | one page in all spellings that share an entry | | its URL |
//! | pages of one user, by a capture of the path | `"path": "/user/{id}", "tags": ["user-{id}"]` | the tag `user-7` |
//! | by a kept parameter | `"keep_query": ["pid"], "tags": ["product-{pid}"]` | the tag `product-7` |
//! | by a value of another layer | `"extensions": ["tenant"], "tags": ["tenant-{tenant}"]` | the tag `tenant-acme` |
//! | by a segment of the path | `"tags": ["shelf-{path.2}"]` | the tag `shelf-3` |
//! | responses that the application tags for another cache | `"tag_fields": { "xkey": "space" }`, once for all rules | the tag |
//! | one user, with all queries | | the pattern `http://h/user/7` |
//! | all paths of `/user/{id}` | | the pattern `http://h/user/{id}` |
//! | all images | | the pattern `http://h/*.png` |
//! | a path and all below it, or a host | | the prefix `http://h/blog`, the host `h` |
//!
//! Tags are the cheapest, since they are found by a hash. Patterns are compared with each path.
//!
//! # Documents
//!
//! With the feature `serde`, rules are read from any format that serde supports. Fields have the names of the
//! methods of [`KeyRulesBuilder`] and [`KeyRule`], `host`, `method` and `path` are one string or a list, and
//! durations have units. Unknown fields are refused.
//!
//! ```
//! # #[cfg(feature = "serde")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_readthrough::{KeyRules, KeyRulesBuilder};
//!
//! let text = r#"{
//!     "accept_encoding": ["br", "gzip"],
//!     "guard": { "headers": ["x-preview-*"] },
//!     "rules": [
//!         { "path": "/account/{*rest}", "bypass": true },
//!         { "host": "api.example.com", "path": "/user/{id}", "default_ttl": "30s",
//!           "headers": ["authorization"], "cookies": [], "tags": ["user-{id}"] },
//!         { "path": "/search", "keep_query": ["q", "page"], "sort_query": true, "fixed_ttl": "500ms" },
//!         { "ignore_query": ["utm_*", "gclid"] }
//!     ]
//! }"#;
//! let rules: KeyRules = serde_json::from_str(text)?;
//!
//! // Read the builder to add what a document cannot contain.
//! let rules = serde_json::from_str::<KeyRulesBuilder>(text)?.namespace("eu").build()?;
//!
//! let broken = r#"{ "rules": [{ "path": "/user/{id}", "fixed_ttl": "0s" }] }"#;
//! let error = serde_json::from_str::<KeyRules>(broken).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "key rule 0 (`/user/{id}`): `fixed_ttl` is zero, so that nothing is ever fresh by it: \
//!      give it a longer time",
//! );
//! # drop(rules);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "serde"))]
//! # fn main() {}
//! ```
//!
//! # Checking
//!
//! [`KeyRules::check`] warns of rules that work, but probably not as intended, [`KeyRules::explain`]
//! describes what each rule does, and with the feature `serde` [`KeyRules::check_table`] checks rules against
//! a [table](crate::rule_table) of requests and their expected results. The `rules` example does all of this
//! on the command line (`--check FILE --table FILE`), prints a JSON Schema of documents for editors
//! (`--schema`), and drafts a document for an API that OpenAPI describes (`--from-openapi FILE`). It comes
//! with documents to copy and their tables: for WordPress, Drupal, Magento, a headless CMS, GraphQL, search,
//! images, an API gateway, a flash sale and a small SaaS.
//!
//! A document may name its schema in `$schema`.
//!
//! # Limits
//!
//! * Only GET and HEAD requests without a body have keys, except by rules with a
//!   [`body`](super#keys-from-bodies). A rule for GET alone leaves HEAD to later rules.
//! * Rules are found by the literal prefix of their paths and tried in order. Rules without a path are tried
//!   for each request.
//! * A purge by URL has no header fields, cookies and extensions: it reaches the entries for all their
//!   values, by each rule that may be for the URI.

mod body;
#[cfg(feature = "body-key")]
mod body_rule;
mod builder;
mod classes;
mod compiled;
mod condition;
#[cfg(feature = "serde")]
mod document;
mod error;
mod explain;
mod extractor;
mod glob;
mod guard;
mod handle;
mod host;
#[cfg(feature = "body-key")]
mod json_body;
mod layout;
mod lint;
mod negotiation;
mod no_vary_search;
mod normaliser;
mod overrides;
mod pattern;
mod query;
mod readings;
mod rule;
mod segment;
mod selection;
mod spelling;
mod tags;
mod template;
#[cfg(feature = "serde")]
mod trials;
mod when;

#[cfg(feature = "body-key")]
pub(super) use self::body_rule::BodyRule;
#[cfg(feature = "body-key")]
pub use self::json_body::{JsonBody, JsonConstant};
pub(super) use self::query::resemble;
pub use self::{
    builder::KeyRulesBuilder, classes::Classes, error::RuleError, explain::RuleSummary, extractor::KeyRules,
    guard::Guard, handle::KeyRulesHandle, lint::RuleWarning, rule::KeyRule, when::When,
};
#[cfg(feature = "serde")]
pub(crate) use self::{
    document::{Named, Span, numbered, one_or_more},
    trials::RowExtensions,
};
pub(crate) use self::{no_vary_search::SearchKey, overrides::RuleOverrides};
