//! Keys by rules that are data: built in code, or read from a document (feature `serde`).
//!
//! [`KeyRules`] is a [`KeyExtractor`](super::KeyExtractor). For each request the first [`KeyRule`]
//! that matches its host, method and path, and whose [conditions](#conditions) hold, says what is in the
//! key, and how the answers are stored.
//! A request that no rule is for, or whose rule says nothing about keys, has the
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
//! // User and session change nothing on the page of a product, and do not reach the handler.
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
//!     assert_eq!(page, "pid=7", "one page for all");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Vocabulary
//!
//! Each name is a field of documents and a method of [`KeyRulesBuilder`] or [`KeyRule`]. The whole document says:
//!
//! | name | what it says |
//! |---|---|
//! | `rules` | the rules: the first one that matches counts |
//! | `ignore_query` | parameters that change no page, for all rules that do not keep parameters of their own |
//! | `accept_encoding`, `accept_language` | what the application has: of each `Accept-Encoding` or `Accept-Language` one member is left |
//! | `classes` | [`Classes`] of a header field: `field`, `name`, `classes` (each a `class` with its `patterns`), `otherwise` |
//! | `guard` | a [`Guard`]: `headers`, `only_headers`, `keyed`, `only`; `{}` is the default one |
//! | `tag_fields` | [fields of responses](KeyRulesBuilder::tag_fields) that name tags, with their separators |
//! | `same_hosts` | groups of hosts that have the same resources |
//! | `namespace`, `scheme`, `whole_uri` | as of the [`DefaultKey`](super::DefaultKey) |
//!
//! and a rule:
//!
//! | name | what it says |
//! |---|---|
//! | `name` | how errors and warnings call it |
//! | `host`, `method`, `path` | which requests it is for, by [`host`](KeyRule::host), [`method`](KeyRule::method) and [`path`](KeyRule::path) |
//! | `ignore_path_case` | the case of letters in its path does not count |
//! | `when` | only requests of which [`When`] holds: `cookies`, `no_cookies`, `headers`, `no_headers`, `query`, `no_query` |
//! | `bypass` | they have no key |
//! | `keep_query`, `ignore_query` | which parameters are in the key; `filter_*` for all that begin so |
//! | `sort_query`, `drop_empty_query` | their order, or empty values, do not count |
//! | `no_vary_search` | responses say themselves which parameters count |
//! | `headers`, `cookies`, `extensions` | what else is in the key |
//! | `forward_unkeyed` | what is not in the key reaches the origin all the same |
//! | `body` | reads by a [body](super#keys-from-bodies), of so many bytes |
//! | `graphql`, `persisted_queries` | reads by GraphQL |
//! | `json_body` | the normal form of a JSON body: `include`, `ignore`, `replace` |
//! | `fixed_ttl`, `default_ttl`, `negative_ttl`, `heuristic` | how long responses are fresh: always, if they do not say it, if nothing is there, or by a guess (`share`, `at_most`) |
//! | `stale_while_revalidate_for`, `stale_if_error_for`, `stale_despite_revalidate` | when they are served stale |
//! | `revalidate_for`, `hit_for_miss_for` | how long validators, and what cannot be shared, are remembered |
//! | `store_set_cookie`, `store_private`, `store_no_store`, `store_authorized` | what is stored although it says not to |
//! | `store_without` | fields that go only to the client whose request fetched them |
//! | `tags` | by what they can be purged; [below](#tags-and-purges) |
//!
//! # How a request is read
//!
//! What two requests share, the service must answer alike. Wherever services differ in how they
//! read a request, it is kept apart from the others:
//!
//! * **Paths** are matched and keyed as the client wrote them, before routers of axum 0.8 cut anything
//!   off (feature `axum`; without it see [`KeyRulesBuilder::whole_uri`], and with another version of axum
//!   put the layer outside of `nest`). A path that routers read in different ways (with `//`, dot segments, `;`, `\` or encoded
//!   characters such as `%2e`, `%2F` and `%61`) has a key only if the same rule is for all
//!   readings, or none is, and there are not more than 16. A path that servers decode differently
//!   (`%u002e`, octets that are not encoded UTF-8, what is encoded three times) has none. A rule that
//!   leaves a part of the path out is for neither. So a path like `/assets/..%2faccount` gets nothing by
//!   the rule for `/assets/{*rest}`, nor `/report%3Aall` by another one than `/report:all`.
//! * **Case** counts in paths, but not for rules that bypass: they are for every case, with and
//!   without a slash at the end, and with an ending (`/account.css` for `/account`).
//! * **Queries** are split at `&`, and names are decoded (`+` and `%`) to find out which rule is
//!   for them. Values are in the key as written: `id=7` and `id=%37` are two entries. A query that
//!   can be read in several ways (with a `;`, or a name that is not encoded UTF-8 without control
//!   characters) is in the key whole, and matches no template. What a rule leaves out of the key does
//!   not reach the origin, unless the rule [forwards](KeyRule::forward_unkeyed) it. Of more than 256
//!   parameters servers read different ones: then none is left out, and the query is in the key whole.
//! * **Fields that override the target**, such as `X-Forwarded-Host`, are in the key of a request that
//!   has them, as with [`DefaultKey`](super::DefaultKey), unless a [`Guard`] removes them.
//! * **Hosts** are compared without their case, and are in the key with their port. A request
//!   whose URI and `Host` disagree has no key.
//! * **Cookies** that a rule names are in the key with all their values, and the origin gets these and
//!   no others, in the order of the rule: however it reads the field, all of it is in the key. A
//!   cookie ends at the next `;`, be it quoted or not, and the case of names counts. A request with more
//!   than 256 cookies has all of them in the key, and sends them on, if the rule names any.
//!
//! The same reading makes the key, the [identity](super::KeyExtractor::identity) by which an unsafe
//! request or a purge finds what is stored, and what the [`Guard`] lets through.
//!
//! # Conditions
//!
//! A rule with a [`when`](KeyRule::when) is only for the requests of which its conditions hold: of their
//! cookies, their header fields and their query. [`When`] has the table of what can be said.
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
//! * **Doubt.** Servers read some requests in different ways. A condition is in doubt where a server could
//!   find what it names and another one not, or with another value: several cookies, parameters or lines of
//!   one name with different values; quoted cookies, and cookies that are separated by commas or blanks;
//!   names and values that are encoded or in another case, `_` for `-` in fields, `.` for `_` elsewhere;
//!   `__Host-` or `__Secure-` before the name of a cookie; elements such as `a[]`; queries with a `;`; and
//!   more than 256 cookies or parameters. A rule that bypasses is for such a request. Any other rule is
//!   not, and neither is one after it: the request has no key
//!   ([`AmbiguousCondition`](super::Unkeyed::AmbiguousCondition)).
//! * **Entries.** A rule with conditions shares no entries with other rules, nor with rules that have other
//!   conditions. That is all that a condition does to keys. What changes the response by its value, and not
//!   only by what the condition tells apart, has to be named in `cookies`, `headers` or `keep_query` too.
//! * **The origin.** Conditions look at the request of the client. A cookie that a condition names and
//!   `cookies` does not, a parameter that `keep_query` leaves out, or a field that the [`Guard`] removes
//!   chooses the rule, and does not reach the origin, which responds as if it were not there.
//! * **Purges** by URL and unsafe requests see the URI alone. They reach what is stored for it by each rule
//!   that may be for it, whatever its conditions.
//! * **Order.** A rule that another one covers is refused as never reached. One with conditions covers only
//!   rules with the same or narrower ones.
//!
//! # Storing
//!
//! What a rule says about storing changes the [`Rules`](crate::Rules) that are configured, and
//! leaves the rest of them alone. `Rules` that a middleware put into the extensions of the request
//! go first. So does a [`CacheKey`](super::CacheKey) that is there already: then the rule only says how to store.
//!
//! | setting | what it says about responses |
//! |---|---|
//! | [`store_without`](KeyRule::store_without) | these fields reach the client alone whose request fetched them: `["set-cookie", "x-request-id"]` |
//!
//! # Bodies
//!
//! With the feature `body-key`, a rule can say that requests are reads by their body; see
//! [`key`](super#keys-from-bodies). What it says about the query, fields, cookies, extensions and tags holds
//! for them as for GET. All of the path is in the key.
//!
//! | setting | what it says about requests |
//! |---|---|
//! | `body` | they are reads, and their body of at most so many bytes is in the key: `65536` |
//! | `graphql` | only if every operation in the body is a query: `true` |
//! | `persisted_queries` | and what clients name by these hashes instead: `["ecf4…"]` |
//! | `json_body` | the normal form of the JSON, or of a part of it, is in the key: `{ "ignore": ["/session"] }` |
//!
//! # Tags and purges
//!
//! What is to be purged together is named when it is stored, by tags, or by how its URL is made:
//!
//! | to purge | the rule says | the [purge](crate::purge) is of |
//! |---|---|---|
//! | one page in all spellings that the rule takes for one | | its URL |
//! | what shows a product, by a capture of the path | `"path": "/user/{id}", "tags": ["user-{id}"]` | the tag `user-7` |
//! | by a kept parameter | `"keep_query": ["pid"], "tags": ["product-{pid}"]` | the tag `product-7` |
//! | by a value of another layer | `"extensions": ["tenant"], "tags": ["tenant-{tenant}"]` | the tag `tenant-acme` |
//! | by a segment of the path | `"tags": ["shelf-{path.2}"]` | the tag `shelf-3` |
//! | what the application tags for another cache | `"tag_fields": { "xkey": "space" }`, once for all rules | the tag |
//! | one user with all queries | | the pattern `http://h/user/7` |
//! | all that `/user/{id}` is for | | the pattern `http://h/user/{id}` |
//! | all images | | the pattern `http://h/*.png` |
//! | all at a path and below, or of a host | | the prefix `http://h/blog`, the host `h` |
//!
//! Tags are found by a hash and cost the least; patterns are compared with each path.
//!
//! # Documents
//!
//! With the feature `serde`, rules are read from any format that serde knows. The names are those
//! of the methods of [`KeyRulesBuilder`] and [`KeyRule`], `host`, `method` and `path` may be one or a list,
//! and times have units. What is misspelt is refused.
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
//! # Checking
//!
//! [`KeyRules::check`] warns of what works and is probably not meant, such as a rule that an earlier one
//! leaves nothing for, [`KeyRules::explain`] says in words what each rule does, and with the feature `serde`
//! [`KeyRules::check_table`] holds rules against a [table](crate::rule_table) of requests and what they must
//! give. The `rules` example does all of it from the command line (`--check FILE --table FILE`), prints a
//! JSON Schema of documents for editors (`--schema`), and begins a document for an API that OpenAPI
//! describes (`--from-openapi FILE`). Beside it are documents to copy, with their tables: for WordPress,
//! Drupal, Magento, a headless CMS, GraphQL, search, images, an API gateway, a flash sale and a small SaaS.
//!
//! A document may name its schema in `$schema`, for editors.
//!
//! # Limits
//!
//! * Only GET and HEAD requests without a body have keys, but for rules with a
//!   [`body`](super#keys-from-bodies). A rule for GET alone leaves HEAD to the rules after it.
//! * Of many rules only those are tried, one after the other, whose paths begin as the request's does
//!   up to their first capture. Rules without a path are tried for each request.
//! * A purge does not see header fields, cookies and extensions: it reaches what is stored for all
//!   of their values, by each rule that may be for the URI.

mod body;
mod builder;
mod choice;
mod classes;
mod compile;
mod compiled;
mod coverage;
#[cfg(feature = "serde")]
mod document;
mod error;
mod explain;
mod extractor;
mod field_set;
mod glob;
mod guard;
mod handle;
mod host;
mod index;
#[cfg(feature = "body-key")]
mod json_body;
mod lint;
#[cfg(feature = "serde")]
mod named;
mod names;
mod negotiation;
mod no_vary_search;
mod overrides;
mod parts;
mod pattern;
mod query;
mod readings;
mod rule;
mod segment;
mod shape;
mod sightings;
mod spelling;
mod tags;
mod template;
#[cfg(feature = "serde")]
mod trials;
mod when;

#[cfg(feature = "body-key")]
pub(super) use self::body::BodyRule;
#[cfg(feature = "body-key")]
pub use self::json_body::{JsonBody, JsonConstant};
pub(super) use self::query::resemble;
pub use self::{
    builder::KeyRulesBuilder, classes::Classes, error::RuleError, explain::RuleSummary, extractor::KeyRules,
    guard::Guard, handle::KeyRulesHandle, lint::RuleWarning, rule::KeyRule, when::When,
};
#[cfg(feature = "serde")]
pub(crate) use self::{
    document::{Span, one_or_more},
    named::{Named, numbered},
    trials::RowExtensions,
};
pub(crate) use self::{no_vary_search::SearchKey, overrides::RuleOverrides};
