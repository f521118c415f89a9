//! One fetch at a time for what many ask for at once.
//!
//! The first caller of a key starts a fetch as a task of its own, and all callers, the first
//! included, read what it brings as it comes in. No client can cancel the fetch, stall it or
//! slow it down for the others, and when all have left it still completes, so that a store
//! below is filled.
//!
//! # Who shares an answer
//!
//! Only those for whom it may be reused. What may not be shared (`no-store`, `private`,
//! `Set-Cookie`, …) goes to the client whose request it answers, untouched and at its own pace,
//! and everybody else asks the origin himself, at once and side by side. A caller for whom the
//! wrong variant came in (RFC 9111 §4.1) joins those who want his own: one fetch per variant.
//!
//! An error of the service, and a 5xx that says that the origin could not answer, is everybody's
//! answer, once; of one that holds something personal the others get the bare status. A 4xx may be
//! the fault of the one who asked: one other caller tries, and if that brings another one, each of
//! the rest asks for himself, but for 429, which is then everybody's answer.
//!
//! [`Fill`](crate::Fill) below says which it is. That somebody wants to know it learns from the
//! request's extensions: where something in between loses them, everybody asks for himself. Without
//! `Fill` the [`Rules`](crate::Rules) given to [`CoalesceLayer::rules`] decide.
//!
//! # Limits
//!
//! | limit | default | at the limit |
//! |---|---|---|
//! | [`max_waiters`](CoalesceLayer::max_waiters) | 131,072 | 503 with `Retry-After: 1` for who comes next |
//! | [`max_flights`](CoalesceLayer::max_flights) | 16,384 | further requests go through on their own |
//! | [`max_wait`](CoalesceLayer::max_wait) | 30 s | 504 for the one who waited; the fetch goes on |
//! | [`max_flight_age`](CoalesceLayer::max_flight_age) | 60 s | the fetch is dropped: 504 for all, the first caller included; the next request starts afresh |
//! | [`max_held_bytes`](CoalesceLayer::max_held_bytes) | 4 MiB | the flight takes nobody on any more, holds at most a window of 4 MiB and goes at the pace of the fastest reader; who falls out of the window gets a body error |
//!
//! If the fetch panics, the first caller sees the panic as he would without this layer. Of the
//! others one starts a second fetch; if that fails in the same way, they get 503.
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
mod drive;
mod flight;
mod landing;
mod layer;
mod log;
mod reader;
mod slots;

pub use self::layer::{Coalesce, CoalesceLayer, CoalesceStats};
