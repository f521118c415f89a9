//! Read-through HTTP caching inside your own process, as composable Tower layers.
//!
//! Wrap a service – an axum router, a hyper client in a proxy, anything that takes an `http::Request` and
//! returns an `http::Response` – and its responses are stored and reused by the rules of HTTP caching
//! (RFC 9111). An expired key costs the origin one request however many clients ask for it, and stored
//! responses cover for an origin that fails.
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, body::Body, routing::get};
//! use http::Request;
//! use tower::ServiceExt;
//! use tower_readthrough::{CacheStatus, ReadThroughLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::with_ttl(Duration::from_secs(10));
//! let app = Router::new().route("/", get(async || "hello")).layer(cache);
//!
//! let mut seen = Vec::new();
//! for _ in 0..2 {
//!     let request = Request::get("/").header("host", "example.com").body(Body::empty())?;
//!     let response = app.clone().oneshot(request).await?;
//!     seen.push(CacheStatus::of(&response).unwrap().to_string());
//!     axum::body::to_bytes(response.into_body(), 1024).await?;
//! }
//! assert_eq!(seen, ["fwd=uri-miss; stored", "hit"]);
//! # Ok(())
//! # }
//! ```
//!
//! A request has a key only if it names its host: without the `host` line both responses would say
//! `fwd=bypass; detail=no-host`.
//!
//! # Where to start
//!
//! | type | what it is for |
//! |---|---|
//! | [`ReadThroughLayer`] | the whole stack as one layer: [`with_ttl`](ReadThroughLayer::with_ttl) in one line, [`builder`](ReadThroughLayer::builder) with every setting |
//! | [`MemoryStore`] | keeps responses, bounded in bytes |
//! | [`Rules`] | which responses are stored, for how long, and how long they serve as stale ones |
//! | [`KeyRules`] | which requests share a response, per endpoint, in code or from a document |
//! | [`Purge`] | removes what has changed: by tag, URL, pattern, host or key |
//! | [`CacheStatus`] | how a response came about; [`why`] says what to do about it |
//! | [`Stats`] | what the cache has done so far, in numbers |
//! | [`OriginLimitLayer`], [`RetryLayer`] | bound and repeat the requests that reach the origin |
//!
//! What is on and off until you say otherwise is in one table: [`defaults`].
//!
//! # The picture
//!
//! A request enters at the top left. Each arrow is one layer that calls the next.
//!
//! ```text
//! once per client   Key → Lookup → StaleIfError ─┐
//!                            │           │       │
//!                          Store ────────┘       │
//!                            │                   │
//!                            └────────┐          │
//! once per fetch    ┌─────────────────│──────────┘
//!                   └→ Coalesce → Fill → Retry → OriginLimit → origin
//! ```
//!
//! | layer | its one duty |
//! |---|---|
//! | [`key`] | derives the cache key of a request, or none; `Lookup` can do it itself |
//! | [`lookup`] | answers from the store where it may |
//! | [`stale_if_error`] | serves a stale response when everything to the right failed |
//! | [`coalesce`] | fetches the same thing once at a time, for all callers that ask for it |
//! | [`fill`] | stores and revalidates what the origin sends |
//! | `tier` | asks a second tier before the origin (feature `redis`) |
//! | [`retry`] | tries again, within a budget, what may be tried again |
//! | [`origin_limit`] | bounds the attempts under way at the origin |
//!
//! [`Failover`] takes the place of the origin where there are several of the same.
//! [`ReadThroughLayer`] assembles them all; `Retry` and `OriginLimit` are off until they are configured.
//! [`StoreLayer`] is `Lookup` directly round `Fill`. Each layer is public and of use alone, and in any subset
//! of this order, with other Tower layers between. They talk through extensions of the request and the
//! response. [`Lookup`], [`Coalesce`] and [`StaleIfError`] derive a key where no layer above did; a request
//! without a key passes.
//!
//! # What it promises
//!
//! * **A hit never waits for the origin.** A layer that may answer by itself is always ready, also over a
//!   service that is saturated or hangs.
//! * **Your error type stays yours**, so that the stack goes straight into `axum::Router::layer`.
//! * **One origin call per key** while the origin is healthy: ten thousand callers of a cold or expired key
//!   make one request.
//! * **No client can cancel, stall or slow another**, and no client waits less because of the cache: no limit
//!   that is set by default takes a response away from a client that waits for it.
//! * **A response is shared only with callers that may reuse it.** What `Vary` keeps apart stays
//!   apart. A validator of one variant never confirms another.
//! * **A failure does not multiply.** A failed fetch is followed by one more, for a second caller, since the
//!   first may be the fault of one request; then all that wait get the failure, or a stale response.
//! * **Incomplete is never stored**, and never handed on as complete.
//! * **A purge wins**: a request that arrives after it never gets what was purged.
//! * **Safe and unsurprising by default.** Whatever changes what an application does is off until asked for.
//! * **Everything is bounded**, and each bound says what happens at it.
//! * **Nothing is silent.** Every response that the cache had to do with says how it came about, and `build()`
//!   refuses configuration that cannot have an effect.
//!
//! # What a service needs
//!
//! | requirement | why | what helps |
//! |---|---|---|
//! | the service is `Clone` | a fetch becomes a task of its own | `tower::buffer`, or an `Arc` inside |
//! | its error is `Clone` | all callers of a failed fetch get it | [`SharedError`] |
//! | the request body is `http_body::Body` | over HTTP/2 nothing else shows that a GET has one | [`RequestBody`] |
//! | … and `Default` | revalidations and retries send requests again, without a body | [`RequestBody`] |
//!
//! Lifetimes run on tokio's clock, to the nanosecond, so tests can pause it. The runtime has its time enabled,
//! as `#[tokio::main]` and `enable_all` do. Outside a runtime nothing is coalesced, refreshed or tried again,
//! and everything else works.
//!
//! # Where authentication goes
//!
//! A hit does not reach what is below the cache. A check below it, be it a middleware, an extractor or
//! the origin, sees only what is not answered from the store.
//!
//! * **Above the cache** the check sees each request. Where responses differ by user or tenant, put the
//!   result into the extensions of the request and into the key
//!   ([`KeyRule::extensions`](key::rules), or a [`KeyExtractor`] of your own).
//! * **Below the cache** a client that the check lets in must get a response that is for that client
//!   alone, or for all. The cache knows by these fields that a request has credentials:
//!
//! | field | without freshness of the origin's own | with it |
//! |---|---|---|
//! | `Authorization`, and what [`Rules::credentials`] names | not shared | shared if `public`, `must-revalidate` or `s-maxage` (RFC 9111 §3.5) |
//! | `Cookie`, and [`Rules::WELL_KNOWN_CREDENTIALS`] such as `X-Api-Key` | not shared | shared |
//! | any of these in the key: [`KeyRule::headers`], [`KeyRule::cookies`], [`Rules::cookies`] | shared by those with the same value | the same |
//! | anything else: the address of a client, a certificate, a query parameter, another field | **shared** | shared |
//!
//! "Not shared" holds in both directions: the response is not stored, and the request gets none that is
//! stored for others. A field that carries a credential and is not in the table needs
//! [`Rules::credentials`]; that of an origin which gives its own `max-age` to responses for one user needs
//! it too, for `X-Api-Key` and its like. The origin says so best itself: `private`, `no-store` or `Vary`.
//!
//! # Security
//!
//! [`security`] lists the published attacks on caches, and what holds against each by default. Left to you:
//!
//! * **Access by what is not in the table above**, such as a key in a field of your own, a certificate or an
//!   address: under a `default_ttl` or `fixed_ttl` all clients share the response. The check belongs above
//!   the cache.
//! * **Responses that differ by a field** need `Vary`, or the field in the key. [`KeyRules`] remove no field
//!   without a [`Guard`].
//! * **Bypass by spelling**: a [`bypass`](KeyRule::bypass) is for any case, final slash and ending of its path. A
//!   check of your own that goes by paths has to be so too.
//! * **Purges by URL** reach the spellings that share a key. A page at several paths needs a [tag](tags).
//! * **Rewrites** of the URI belong above the cache, or its key is not what the router serves.
//! * **`Cache-Status` and `Age`** show any client whether others have asked before;
//!   [`cache_status`](LookupLayer::cache_status) hides the first.
//!
//! # Features
//!
//! * `axum` (on by default): [`DefaultKey`] and [`KeyRules`] key requests inside `axum::Router::nest` of
//!   axum 0.8 by the URI that the client asked for. Without it they have to be told that nothing cuts the
//!   path ([`DefaultKey::whole_uri`]).
//! * `serde`: [`KeyRules`] and [`KeyRulesBuilder`] can be deserialised, from JSON or TOML for
//!   example; see [`key::rules`](key::rules#documents). `rule_table` checks them against tables of requests.
//! * `body-key`: a [layer](key#keys-from-bodies) keys what is read by POST or QUERY by a digest of
//!   the request body.
//! * `metrics`: counters, gauges and histograms through the `metrics` facade.
//! * `tracing`: a span for each shared fetch and each refresh within that of the request, events at `debug` for
//!   what becomes of each request and whether each fetched response is stored, and one at `warn` when the state of an
//!   origin changes. No query of a URL is shown, unless `trace_queries` is set.
//! * `purge-service`: `purge::PurgeService` takes purges over HTTP.
//! * `redis`: `cluster::Cluster` makes purges reach all processes of a service, over a Redis or Valkey server, and a
//!   `tier::Tier` is a second tier that they have in common; the guide is the module `several_nodes`.
//! * `redis-tls`: TLS to that server, by rustls with ring. What the process has chosen as its provider is neither used
//!   nor changed.
//! * `zstd`: `store::Envelope::to_compressed_bytes`, for values of the second tier; without it compressed
//!   envelopes are not read.
//! * `snapshot`: `store::SnapshotFile` keeps what is stored in a file, for the next start, and `store::Envelope` is
//!   the form of one response as bytes.
//! * `dashboard`: a page that shows what the cache does, as a Tower service; see the module of that name. Brings
//!   `purge-service`.
//! * `testing`: a scripted origin, a client that asserts why it got what it got, and faults, for tests of
//!   applications; see the module of that name.
//!
//! # Limits
//!
//! * What is stored is in the memory of one process. It ends with that, unless a
//!   [snapshot file](store#a-store-that-outlives-its-process) or a second tier keeps it. A purge is about
//!   one store, unless a `cluster` joins it with others.
//! * Requests over HTTP/1 count as `http`. A service behind TLS says so with [`DefaultKey::scheme`] or
//!   [`KeyRulesBuilder::scheme`], so that purges of `https` URLs reach what is stored.
//! * Only GET and HEAD have keys, but for [reads by their body](key#keys-from-bodies).
//! * A fetch becomes a task of its own when it first has to wait; see [`coalesce`](coalesce#tasks) for
//!   task-locals and tracing spans.
//! * A body that fails after its head was sent cannot be replaced by a stale one.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod body;
mod build_error;
#[cfg(feature = "redis")]
pub mod cluster;
pub mod defaults;
mod exchange;
mod executor;
mod http;
pub mod key;
mod layers;
mod observe;
mod origin;
pub mod outage;
pub mod purge;
mod reasons;
#[cfg(feature = "redis")]
pub mod remote;
mod request_body;
#[cfg(feature = "serde")]
pub mod rule_table;
#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}
#[doc = include_str!("../SECURITY.md")]
pub mod security {}
mod sequence;
#[cfg(feature = "redis")]
pub mod several_nodes;
mod shared_error;
pub mod stack;
pub mod store;
pub mod tags;
#[cfg(feature = "testing")]
pub mod testing;

mod trace;
pub mod why;
mod work;

#[cfg(feature = "redis")]
pub use self::layers::tier;
pub use self::layers::{coalesce, fill, lookup, origin_limit, probe, retry, stale_if_error, warm_up};
#[cfg(feature = "dashboard")]
pub use self::observe::dashboard;
#[cfg(feature = "metrics")]
pub use self::observe::metrics;
#[cfg(feature = "serde")]
#[doc(inline)]
pub use self::rule_table::{RuleTable, TableError, TableMiss};
pub use self::stack::failover;
#[cfg(feature = "redis")]
#[doc(inline)]
pub use self::tier::{Tier, TierLayer};
#[doc(inline)]
pub use self::{
    body::{Body, BodyError, BoxError},
    build_error::BuildError,
    coalesce::{Coalesce, CoalesceLayer},
    exchange::failures::{DefaultFailures, Failures},
    exchange::status::{CacheStatus, Forward, Lost, Stale},
    exchange::{
        Attempts, BackgroundEvent, CacheRequest, CacheStatusDetail, Observer, Outcome, Purpose, Record,
        RefreshResult, Refused, Role,
    },
    executor::Task,
    failover::{Failover, FailoverBuilder, FailoverFuture},
    fill::{Fill, FillLayer, Policy},
    http::{
        not_stored::NotStored,
        rules::{Rules, StaleWindow},
    },
    key::{
        CacheKey, Classes, DefaultKey, Guard, KeyBuffer, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder,
        KeyRulesHandle, RuleError, RuleSummary, RuleWarning, SameHosts, Unkeyed, When,
    },
    layers::key::{Key, KeyLayer},
    layers::service::ResponseFuture,
    lookup::{Lookup, LookupLayer},
    observe::{
        BreakerState, ClusterState, ClusterStatus, CoalesceStats, Counts, Explanation, NodeStatus,
        OriginStats, PurgeKind, Refreshes, RemoteStatus, RuleStats, Stats, StatsSnapshot, StoredSummary,
        TierRead, TierStanding, TierStatus, TierWait, TierWrite,
    },
    origin::{AnsweredBy, Latency, OriginChange, OriginHealth, OriginHealthBuilder, OriginState},
    origin_limit::{OriginLimit, OriginLimitFuture, OriginLimitLayer},
    purge::{Purge, PurgeError, PurgeState, Purged},
    reasons::{Known, Named},
    request_body::RequestBody,
    retry::{Retry, RetryFuture, RetryLayer, RetryPolicy},
    sequence::Sequence,
    shared_error::SharedError,
    stack::{ReadThrough, ReadThroughBuilder, ReadThroughFuture, ReadThroughLayer, StoreLayer},
    stale_if_error::{StaleIfError, StaleIfErrorLayer},
    store::{Entry, MemoryStore, MemoryStoreBuilder, Store, StoreStats, StoredResponse},
    tags::Tags,
};
#[cfg(feature = "body-key")]
#[doc(inline)]
pub use self::{
    key::{JsonBody, JsonConstant},
    layers::body_key::{BodyKey, BodyKeyFuture, BodyKeyLayer},
};
