//! The read path: serves from the store what may be served from it.
//!
//! [`Lookup`] derives the key of a request, looks it up, and serves what it finds if that is
//! fresh and selected by the request (RFC 9111 §4). It is always ready, whatever state the
//! service below is in: a hit never waits for the origin.
//!
//! * **Stale while revalidating** (RFC 5861 §3): inside the window the stale response goes out at
//!   once, and the client's own request goes on in the background, whole with its extensions but
//!   without its conditions. One refresh per stored response at a time, each with a deadline; after
//!   one that failed there is a pause before the next. A HEAD receives the stale head and leaves
//!   refreshing to the next GET: the service below it may be a handler for HEAD alone. So does a request
//!   with `no-store`, where that is followed.
//! * **The client's own preconditions** (RFC 9110 §13) are evaluated here, to 304 or 412, on what
//!   is stored or on what the origin sends, so that the response of the origin is one for all clients.
//!   Where responses are known not to be shareable, preconditions go on to the origin instead.
//! * **Ranges** (RFC 9110 §14) are served from a stored response: one as 206, several as
//!   `multipart/byteranges`. What is stale is revalidated as a whole. Where nothing is stored the
//!   origin is asked for the range alone, unless [`LookupLayer::fetch_whole_for_ranges`] says
//!   otherwise. The part is kept: it serves ranges within it, and grows together with others that
//!   have the same strong validator, until it is the whole (RFC 9111 §3.4). Requests for several
//!   ranges, and for a range under a condition, then pass as they are: their fetches have the limits of
//!   the others, and nothing of them is stored.
//! * **Invalidation** (RFC 9111 §4.4): a request of an unsafe or unknown method that succeeds
//!   invalidates its URI, and what `Location` and `Content-Location` of a 2xx response name on the
//!   same origin, in all variants. What is being fetched at that moment is neither stored nor served to
//!   requests that arrive later.
//! * **Cache directives in requests** are followed only with
//!   [`LookupLayer::request_directives`]: a public service does not let any client force a
//!   fetch.
//! * Every response to GET and HEAD says in `Cache-Status` how it came about (RFC 9211), or why the request
//!   has no key ([`Unkeyed`](crate::Unkeyed)).
//!
//! ```
//! use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_readthrough::{MemoryStore, Rules, StoreLayer};
//!
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let store = MemoryStore::with_capacity_bytes(1 << 20);
//! let service = ServiceBuilder::new()
//!     .layer(StoreLayer::new(store).rules(Rules::new().default_ttl(Duration::from_secs(5))))
//!     .service(service_fn(async |_: Request<Full<Bytes>>| {
//!         CALLS.fetch_add(1, Ordering::Relaxed);
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//!     }));
//!
//! for _ in 0..3 {
//!     let request = Request::get("http://example.com/").body(Full::default()).unwrap();
//!     let response = service.clone().oneshot(request).await.unwrap();
//!     assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
//! }
//! assert_eq!(CALLS.load(Ordering::Relaxed), 1);
//! # }
//! ```

mod answer;
mod explain;
mod foresee;
mod layer;
mod outage;
mod refresh;
mod report;
mod route;
mod select;

pub use self::layer::{Lookup, LookupLayer};
pub(crate) use self::{
    report::Report,
    route::{Keyless, Route},
    select::Reader,
};
