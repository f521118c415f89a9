//! One fetch at a time for what many ask for at once.
//!
//! The first caller of a key starts a fetch as a task of its own, and all callers, the first
//! included, read what it brings as it comes in. No client can cancel the fetch, stall it or
//! slow it down for the others, and when all have left it still goes on for a while, so that a store
//! below is filled.
//!
//! # Who shares a response
//!
//! Only callers for whom it may be reused. What may not be shared (`no-store`, `private`,
//! `Set-Cookie`, …) goes to the client whose request it answers, untouched and at its own pace,
//! and all others ask the origin themselves, at once and side by side. A caller for whom the
//! wrong variant came in (RFC 9111 §4.1) joins those who want the same one: one fetch per variant.
//! So does a caller who came after a purge of what is under way, or who has credentials that the
//! response is not for, or who has none where it may be for the session of the client that asked. It goes
//! on so as long as each response says something that was not known; after that one more fetch is made,
//! and a caller that cannot have that one either gets 503.
//!
//! A failure (an error of the service, a panic, or a 5xx that says that the origin could not answer) may
//! be the fault of the request that was sent: one other caller tries, and if that fails too, it is the
//! answer for all who wait. Of one that holds something personal the others get the bare status. Callers
//! for whom [`StaleIfError`](crate::StaleIfError) has a stale response get that at the first failure.
//! After two 4xx the rest ask in 16 parts, each of which shares a response: after an error they ask in 16
//! parts of it, and then each for itself. But 429 is the answer for all after two.
//!
//! [`Fill`](crate::Fill) below says which it is. That a layer above wants to know it learns from the
//! request's extensions: where something in between loses them, each caller asks for itself. Without
//! `Fill` the [`Rules`](crate::Rules) given to [`CoalesceLayer::rules`] decide.
//!
//! # Limits
//!
//! | limit | default | at the limit |
//! |---|---|---|
//! | [`max_waiters`](CoalesceLayer::max_waiters) | 131,072 | 503 with `Retry-After: 1` for the next caller |
//! | [`max_flights`](CoalesceLayer::max_flights) | 16,384 | further requests go through on their own |
//! | [`max_wait`](CoalesceLayer::max_wait) | 30 s | callers get a stale response if there is one; of the others one begins a fetch beside the slow one, then 2, 4, 8, … in each second that follows, until two of these have failed |
//! | [`max_flight_age`](CoalesceLayer::max_flight_age) | 60 s | the fetch takes no callers on any more, and the next request begins another one |
//! | [`wait_at_most`](CoalesceLayer::wait_at_most) | none | a stale response, else 504, for any caller; the fetch goes on |
//! | [`abandoned_deadline`](CoalesceLayer::abandoned_deadline) | 30 s | a fetch that its last caller left so long ago ends |
//! | [`max_held_bytes`](CoalesceLayer::max_held_bytes) | 4 MiB | the flight takes on no more callers, holds at most a window of 4 MiB and goes at the pace of its fastest reader; a reader that falls out of the window gets a body error |
//! | [`max_total_bytes`](CoalesceLayer::max_total_bytes) | 64 MiB; in [`ReadThrough`](crate::ReadThrough) the capacity of the store | the reader that is furthest behind gets a body error |
//! | [`max_read_pause`](CoalesceLayer::max_read_pause) | 60 s | readers of a body beyond `max_held_bytes` get a body error; a smaller one is fetched without waiting for them |
//!
//! A reader that is about to fall out of the window is waited for up to 100 ms, since it may not have had
//! a turn yet. In that time it has to make up a quarter of the window. Of what is known to be too large
//! for the store when its head arrives, each caller fetches its own.
//!
//! What is held of all bodies together is a gauge: [`CoalesceLayer::stats`].
//!
//! The first caller waits for its own fetch as long as that takes, as it would without this layer, and
//! so does every other caller in the end: no limit that is set by default takes a response away.
//!
//! If the fetch panics, the first caller sees the panic as it would without this layer.
//!
//! # Requests that are made by a fetch
//!
//! A service below may ask for what is being fetched: the same layer value may be twice on a path, and
//! a handler may ask its own URL for another representation. In the task of the fetch such a request is
//! recognised by its key, and passes. Where the service spawns a task or goes over a socket before
//! it asks, the request waits for the fetch that waits for it: after `max_wait` it asks beside it.
//!
//! # Tasks
//!
//! A fetch becomes a task of its own when it first has to wait for something: one that never does
//! needs none. From then on it has neither the task-locals nor the tracing span of the request. Hand
//! over what you need with [`CoalesceLayer::executor`], which gets the whole fetch from its
//! beginning. Outside a tokio runtime there are no tasks: every request goes through on its own.
//!
//! Requests with conditions of their own are not coalesced, and those for a range only with others
//! for the same one.
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

mod budget;
mod caller;
mod dispatch;
mod flight;
mod flights;
mod layer;
mod log;
mod outcome;
mod settings;
mod task;
mod waiter;

pub use self::layer::{Coalesce, CoalesceLayer, CoalesceStats};
