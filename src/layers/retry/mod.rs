//! Trying again what may be tried again.
//!
//! [`Retry`] repeats a request whose response was an error of the service, a 408, 502, 503 or
//! 504, if that can do no harm: its method is idempotent (RFC 9110 §9.2.2) and it has no body, or
//! it is a [read by its body](crate::key#keys-from-bodies), which is sent again.
//! It waits with exponential backoff and full jitter, or for as long as `Retry-After` asks for
//! within a bound, and begins no attempt after an overall deadline. A budget keeps retries to a
//! share of the requests that succeeded, so that a failing origin is not sent twice its usual load.
//! [`RetryPolicy`] has these settings.
//!
//! In the stack nothing is tried again while the [origin](crate::OriginHealth) is not up, nor where a stale response
//! may be served instead ([`despite_stale`](RetryPolicy::despite_stale)).
//!
//! What [`OriginLimit`](crate::OriginLimit) did not let through ([`Refused`](crate::Refused)) is not tried
//! again. The decision is made when the head of the response is there: a body that breaks off later is not
//! requested again.
//!
//! A request is copied only if it may be repeated, and late: below [`Fill`](crate::Fill), which keeps a
//! copy of its head anyway, the head is copied only for a second attempt. A body is never copied, since
//! only requests without one are repeated, and [reads by their body](crate::key#keys-from-bodies), whose
//! bytes are shared. `tower::retry` takes a [`RetryPolicy`] as well, but copies each request first.
//!
//! ```
//! use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}};
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Empty;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_readthrough::{Attempts, RetryLayer, RetryPolicy};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let origin = service_fn(async |_: Request<Empty<Bytes>>| {
//!     let mut response = Response::new(Empty::<Bytes>::new());
//!     if CALLS.fetch_add(1, Ordering::Relaxed) == 0 {
//!         *response.status_mut() = StatusCode::BAD_GATEWAY;
//!     }
//!     Ok::<_, Infallible>(response)
//! });
//! let service = RetryLayer::new(RetryPolicy::new()).layer(origin);
//! let response = service.oneshot(Request::new(Empty::new())).await.unwrap();
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.extensions().get::<Attempts>().unwrap().count(), 2);
//! # }
//! ```

mod policy;
mod service;

pub use self::{
    policy::RetryPolicy,
    service::{Retry, RetryFuture, RetryLayer},
};
