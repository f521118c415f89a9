//! Surviving an outage: what the layers do when the origin is slow, failing or gone, and how to set them up.
//!
//! # What happens by itself
//!
//! The stack that [`ReadThrough`](crate::ReadThrough) builds does this without a setting:
//!
//! * A response that is stale and within its `stale-if-error` window ([one hour](crate::Rules::stale_if_error_for)
//!   unless the response or the rules say otherwise) is served when the fetch of a fresh one fails
//!   (`detail=stale-if-error`).
//! * After a failed fetch its key rests, for 1 s that doubles to 30 s, half of it at random
//!   ([`key_pause`](crate::OriginHealthBuilder::key_pause)). Until the pause is over the stale response is served at
//!   once (`detail=origin-failed`). After it the next client waits for a fetch again.
//! * When the origin as a whole fails, its [state](crate::OriginState) is `down`. What is stale is served at once
//!   (`detail=origin-down`), and one request at a time finds out in the background whether the origin
//!   is back, after 1 s that doubles to 10 s ([`probe_every`](crate::OriginHealthBuilder::probe_every)).
//! * After the first success it is `recovering`: it gets as many fetches at a time as its answers show it to
//!   bear, so that a million stale keys do not arrive together (`detail=origin-recovering`).
//!
//! What has nothing stored, has no key, or is unsafe goes to the origin as it would without a cache, unless
//! there is an [origin limit](#choosing-the-limit).
//!
//! [`OriginHealth`](crate::OriginHealth) says when an origin is down, and [`OriginHealth::state`](crate::OriginHealth::state)
//! which state it is in.
//!
//! # Pages that stay up for hours
//!
//! A headless CMS whose customers' pages must not break with it. Its responses say `max-age` and nothing
//! about failures, so the rules keep them for a day; the limit lets 64 requests at a time through.
//!
//! ```
//! use std::time::Duration;
//! use tower_readthrough::{MemoryStore, OriginHealth, OriginLimitLayer, ReadThroughLayer, Rules};
//!
//! # fn main() -> Result<(), tower_readthrough::BuildError> {
//! let health = OriginHealth::new();
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(256 << 20))
//!     .rules(Rules::new().stale_if_error_for(Duration::from_secs(86_400)))
//!     .origin_limit(OriginLimitLayer::new(64))
//!     .outage(health.clone())
//!     .build()?;
//! // For a page of its own, or an alarm.
//! assert_eq!(health.state().as_str(), "up");
//! # drop(cache);
//! # Ok(())
//! # }
//! ```
//!
//! If responses say `s-maxage` or `must-revalidate` and mean a CDN by it, add
//! [`stale_despite_revalidate`](crate::Rules::stale_despite_revalidate). How stale a response may be while the origin
//! is well is a setting of its own, [`max_stale_while_up`](crate::LookupLayer::max_stale_while_up).
//!
//! # A flash sale
//!
//! Lifetimes of a fraction of a second, and more requests than the origin bears. The limit is what it bears
//! ([see below](#choosing-the-limit)). Orders go before pages in the queue, and pages are shared: one place in
//! four, and every fourth permit, is for fetches that several callers can share, so that orders do not
//! starve pages either. A stale window lets no client wait for a page that is being fetched.
//!
//! ```
//! use std::time::Duration;
//! use http::Method;
//! use tower_readthrough::{MemoryStore, OriginLimitLayer, ReadThroughLayer, Rules};
//!
//! # fn main() -> Result<(), tower_readthrough::BuildError> {
//! let rules = Rules::new()
//!     .fixed_ttl(Duration::from_millis(200))
//!     .stale_while_revalidate_for(Duration::from_secs(10));
//! let limit = OriginLimitLayer::new(20).priority(|head| match head.method {
//!     Method::POST => 1,
//!     _ => 3,
//! });
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
//!     .rules(rules)
//!     .origin_limit(limit)
//!     .build()?;
//! # drop(cache);
//! # Ok(())
//! # }
//! ```
//!
//! # A slow origin
//!
//! Three limits with three names, all off by default:
//!
//! | setting | counts | at the end |
//! |---|---|---|
//! | [`stale_after`](crate::CoalesceLayer::stale_after) | from the beginning of the fetch | a client that can have a stale response gets it, and the fetch goes on and is stored; a client that comes later does not wait at all |
//! | [`wait_at_most`](crate::CoalesceLayer::wait_at_most) | from the arrival of the client | any client gets a stale response or 504, and a fetch that others can share goes on |
//! | [`fetch_deadline`](crate::CoalesceLayer::fetch_deadline) | from the beginning of the fetch, the queue included | the fetch ends, its permit is free, and it has failed |
//!
//! ```
//! use std::time::Duration;
//! use tower_readthrough::{MemoryStore, ReadThroughLayer};
//!
//! # fn main() -> Result<(), tower_readthrough::BuildError> {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
//!     .coalesce(|coalesce| {
//!         coalesce
//!             .stale_after(Duration::from_millis(50))
//!             .wait_at_most(Duration::from_secs(5))
//!             .fetch_deadline(Duration::from_secs(10))
//!     })
//!     .build()?;
//! # drop(cache);
//! # Ok(())
//! # }
//! ```
//!
//! An origin that hangs is noticed when five keys have waited for 10 s and nothing was answered
//! ([`stalled_after`](crate::OriginHealthBuilder::stalled_after)). Set a `fetch_deadline` in any case: without it a
//! fetch that hangs holds its permit for as long as the origin holds the connection.
//!
//! # Two clouds
//!
//! The same application in two places. [`Failover`](crate::Failover) stands where the one origin did: a request goes
//! to the first place that is well, and one that fails there moves on to the other. The cache above it looks at both
//! together, so that it serves what is stale only while neither is well. Each place has a limit of its own, which
//! holds small responses until they are complete: one that breaks off moves on as well.
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_readthrough::{AnsweredBy, Failover, MemoryStore, OriginLimitLayer, ReadThroughLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Clients of the two places, each with a timeout: what hangs does not move on.
//! let client = |status, body| {
//!     service_fn(move |_: Request<Full<Bytes>>| async move {
//!         Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::from(body)).unwrap())
//!     })
//! };
//! let (near, far) = (client(StatusCode::BAD_GATEWAY, ""), client(StatusCode::OK, "from afar"));
//! # let (near, far) = (tower::util::BoxCloneSyncService::new(near), tower::util::BoxCloneSyncService::new(far));
//! let places = Failover::builder(near, [far])
//!     .origin_limit(|_| OriginLimitLayer::new(64).hold_until_complete(64 << 10))
//!     .build()?;
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
//!     .outage(places.health().clone())
//!     .build()?;
//!
//! let response = cache.layer(places).oneshot(Request::new(Full::default())).await?;
//! assert_eq!(response.extensions().get::<AnsweredBy>().unwrap().index(), 1);
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "from afar");
//! # Ok(())
//! # }
//! ```
//!
//! Validators go only to the place that gave them, unless both give the same ones
//! ([`replicas`](crate::FailoverBuilder::replicas)). Neither place bears more than its limit: if the
//! second one alone cannot take the load, requests are refused, and what is stale is served.
//!
//! # Many keys that expire together
//!
//! After a purge or a start everything is stored at about the same time, and expires together.
//! [`Rules::refresh_ahead`](crate::Rules::refresh_ahead) with 0.6 spreads the fetches over the last two fifths of the
//! lifetime, at a fifth more of them, and no client waits; [`Rules::ttl_jitter`](crate::Rules::ttl_jitter) with 0.4
//! spreads the ends. [`warm_up`](crate::warm_up) fills the store beforehand.
//!
//! # Choosing the limit
//!
//! [`OriginLimit`](crate::OriginLimit) bounds the requests under way, which is what an origin can have too much
//! of; a rate it cannot. No recovery replaces a limit that the origin bears: in a simulation of an origin that
//! collapses at 48 requests at a time, a limit of 32 needed nothing else, while with one of 64 over an origin that
//! collapses at 40 it was the recovery that kept it alive, and not always.
//!
//! * Begin with the number of its workers, threads or database connections, or with what Little's law says: the
//!   requests a second that it answers at full load, times the seconds that one takes then. 100 a second at
//!   0.2 s are 20.
//! * If several processes cache in front of one origin, divide by their number: nothing is shared between
//!   them.
//! * Too low shows as refusals (`queue-full`, `queue-timeout`) while the origin is idle; too high as responses
//!   that become slower under load without becoming more.
//! * [Exempt](crate::OriginLimitLayer::exempt) what keeps a connection open, such as streams of events.
//!
//! With a limit the origin is spared while it is down: what has nothing stored goes on, eight at a time, and
//! is given up after 4 to 5 s. [`fail_fast`](crate::OriginHealthBuilder::fail_fast) refuses it
//! instead, which is right where waiting is worse than failing.
