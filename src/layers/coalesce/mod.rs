//! Shares one fetch between all callers that ask for the same response at the same time.
//!
//! The first caller of a key starts a fetch, which runs as a task of its own. All callers, the first
//! included, read the response while it comes in. No client can cancel the fetch, stall it, or slow it down
//! for the others. When all callers have left, the fetch still goes on for a while, so that a store below
//! is filled.
//!
//! # Which callers share a response
//!
//! Only those for which it may be reused. A response that may not be shared (`no-store`, `private`,
//! `Set-Cookie`, …) goes to the client that it was fetched for, untouched and at that client's pace. All
//! other callers then ask the origin themselves, at once and side by side.
//!
//! A response may also be shareable, but not with every caller that waited for it. These callers wait
//! again, each with those that need the same:
//!
//! * those that need another variant (RFC 9111 §4.1): one fetch for each variant;
//! * those that arrived after a purge of what was being fetched;
//! * those with credentials that the response is not for, and those without where it may belong to the
//!   session of the client that it was fetched for.
//!
//! A caller goes on so as long as each response says something new, for up to `max_wait`. After that one
//! more fetch is made, and a caller that cannot have that response either gets 503.
//!
//! # Failures
//!
//! A failure is an error of the service, a panic, or a 5xx response which says that the origin could not
//! answer. It may be the fault of the request that was sent, so one other caller tries. If that fetch fails
//! too, its failure is the response for all callers that wait. If it holds something personal, the others
//! get only its status. Callers for which [`StaleIfError`](crate::StaleIfError) has a stale response get that
//! at the first failure.
//!
//! After two 4xx responses the remaining callers ask in 16 groups, each of which shares a response. After
//! an error a group splits once more, and then each caller asks for itself. 429 is the response for all
//! callers after two.
//!
//! # Which layer decides
//!
//! [`Fill`](crate::Fill) below says which requests may share a response. It learns from the request's
//! extensions that a layer above wants to know: where something in between loses them, each caller asks
//! for itself. Without `Fill`, the [`Rules`](crate::Rules) given to [`CoalesceLayer::rules`] decide.
//!
//! # Limits
//!
//! | limit | default | at the limit |
//! |---|---|---|
//! | [`max_waiters`](CoalesceLayer::max_waiters) | 131,072 | 503 with `Retry-After: 1` for the next caller |
//! | [`max_flights`](CoalesceLayer::max_flights) | 16,384 | further requests go through on their own |
//! | [`max_wait`](CoalesceLayer::max_wait) | 30 s | callers get a stale response if there is one; one of the others begins a fetch beside the slow one, then 2, 4, 8, … in each second that follows, until two of these have failed |
//! | [`max_flight_age`](CoalesceLayer::max_flight_age) | 60 s | the fetch takes no more callers, and the next request begins another one |
//! | [`stale_after`](CoalesceLayer::stale_after) | none | a stale response, if there is one; the fetch goes on |
//! | [`fetch_deadline`](CoalesceLayer::fetch_deadline) | none | the fetch ends; a stale response, else 504 |
//! | [`wait_at_most`](CoalesceLayer::wait_at_most) | none | a stale response, else 504, for any caller; a fetch that others can share goes on |
//! | [`abandoned_deadline`](CoalesceLayer::abandoned_deadline) | 30 s | a fetch without callers for so long ends |
//! | [`max_held_bytes`](CoalesceLayer::max_held_bytes) | 4 MiB | the fetch takes no more callers, holds at most a window of 4 MiB and goes at the pace of its fastest reader; a reader that falls out of the window gets a body error |
//! | [`max_total_bytes`](CoalesceLayer::max_total_bytes) | 64 MiB; in [`ReadThrough`](crate::ReadThrough) the capacity of the store | the slowest reader gets a body error |
//! | [`max_read_pause`](CoalesceLayer::max_read_pause) | 60 s | readers of a body beyond `max_held_bytes` get a body error; a smaller one is fetched without waiting for them |
//!
//! A reader that is about to fall out of the window is waited for up to 100 ms, since its task may not have
//! been scheduled yet. In that time it has to catch up to a quarter of the window. If a response is known
//! to be too large for the store when its head arrives, each caller fetches its own.
//!
//! [`CoalesceLayer::stats`] tells how much is held of all bodies together.
//!
//! The first caller waits for its own fetch as long as that takes, as it would without this layer, and
//! so does every other caller in the end: no limit that is set by default takes a response away.
//!
//! If the fetch panics, the first caller sees the panic as it would without this layer.
//!
//! # Requests that are made by a fetch
//!
//! A service below may ask for what is being fetched: the same layer value may be on a path twice, and
//! a handler may ask its own URL for another representation. In the task of the fetch such a request is
//! recognised by its key, and passes. If the service spawns a task or goes over a socket before it asks,
//! the request waits for the fetch that waits for it, and fetches beside it after `max_wait`.
//!
//! # Tasks
//!
//! A fetch becomes a task when it first has to wait for something. From then on it has neither the
//! task-locals nor, without the feature `tracing`, the span of the request. Hand over what you need with
//! [`CoalesceLayer::executor`], which gets the whole fetch from its beginning. Outside a tokio runtime there
//! are no tasks: every request goes through on its own.
//!
//! Conditional requests are not coalesced, and those for a range only with others for the same range.
//!
//! ```
//! use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_readthrough::{CoalesceLayer, KeyLayer, Rules};
//!
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(KeyLayer::default())
//!     .layer(CoalesceLayer::new().rules(Rules::new().fixed_ttl(Duration::from_secs(1))))
//!     .service(service_fn(async |_: Request<Full<Bytes>>| {
//!         CALLS.fetch_add(1, Ordering::Relaxed);
//!         tokio::time::sleep(Duration::from_millis(50)).await;
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//!     }));
//! let get = async || {
//!     let request = Request::get("http://example.com/").body(Full::default()).unwrap();
//!     service.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
//! };
//! assert_eq!(tokio::join!(get(), get(), get()), ("hello".into(), "hello".into(), "hello".into()));
//! assert_eq!(CALLS.load(Ordering::Relaxed), 1);
//! # }
//! ```

mod alone;
mod budget;
mod caller;
mod fetch;
mod flight;
mod flights;
mod layer;
mod log;
mod settings;

pub use self::layer::{Coalesce, CoalesceLayer};
