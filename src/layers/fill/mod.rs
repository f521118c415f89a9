//! The write path: stores what the origin responds with.
//!
//! [`Fill`] looks into the store once more before it asks the origin, because another fetch may
//! have ended meanwhile. It makes the request conditional if there is something to revalidate
//! (RFC 9111 §4.3.1), decides by [`Rules`] and [`Policy`] whether the response may be stored and
//! shared, and records the body while the client reads it. Only a complete body is stored, as soon as it is
//! complete: at its end, or when it is dropped after as many bytes as its head or its size hint declares,
//! since a server over HTTP/1 reads no further. A response with a length that contradicts itself or the body
//! is not stored ([`NotStored::Framing`](crate::NotStored::Framing)). A body that turns out too large is
//! passed on to its end without being held any longer.
//!
//! A part (206) is stored too, apart from whole responses, if it is for a request for one range
//! and says which part of how long a whole it is. Parts of one strong validator are put together
//! (RFC 9111 §3.4); up to eight that do not touch are kept for a key.
//!
//! A request is made conditional on the validators of the stored response that it selects, and of no
//! other variant: a request that selects none is sent without conditions. A tag speaks of the content
//! alone (RFC 9110 §8.8.1), and a 304 does not bring the fields in which variants differ (§15.4.5).
//!
//! A 304 freshens that stored response (RFC 9111 §4.3.4). It does not if its validator is another
//! one, or if its `Vary` names fields that did not select the stored response. Then the request is
//! sent once more without the conditions, in the same fetch, and so it is after a 412: the client did
//! not ask for them. This is why the body of a request is `Default`: an empty one is made for the
//! second request. A 304 to that one is a failure of the origin, 502. `Vary` itself is never taken
//! from a 304. A response to HEAD freshens what it describes too, or removes what it shows to be
//! outdated (§4.3.5).
//!
//! A response that may not be shared leaves a hit-for-miss entry in the store for a while
//! ([`Rules::hit_for_miss_for`]), and removes what it supersedes. An error leaves no such entry, and no error
//! but 404 and 410 removes anything: it may be the fault of one client, or of the origin. A response to HEAD
//! leaves no entry either.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_readthrough::{FillLayer, KeyLayer, MemoryStore, Rules};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let store = MemoryStore::with_capacity_bytes(1 << 20);
//! let origin = service_fn(async |_: Request<Full<Bytes>>| {
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//! });
//! let fill = FillLayer::new(store.clone()).rules(Rules::new().default_ttl(Duration::from_secs(5)));
//! let service = KeyLayer::default().layer(fill.layer(origin));
//!
//! let request = Request::get("http://example.com/").body(Full::default()).unwrap();
//! let response = service.oneshot(request).await.unwrap();
//! assert_eq!(store.stats().entries, 0); // not yet complete
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
//! assert_eq!(store.stats().entries, 1);
//! # }
//! ```
//!
//! [`Rules`]: crate::Rules
//! [`Rules::hit_for_miss_for`]: crate::Rules::hit_for_miss_for

mod fetch;
mod layer;
mod recorder;
mod report;
mod revalidation;

pub use self::{
    fetch::Policy,
    layer::{Fill, FillLayer},
};
