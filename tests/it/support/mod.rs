//! What the tests of this crate begin with: the public kit ([`tower_readthrough::testing`]) under the short names
//! that all of them use, and the stores, rules and caches of this repository.
//!
//! ```text
//! let origin = ScriptedOrigin::new(|call, _| ok(format!("v{call}")).max_age(60).after(ms(50)));
//! let service = layer.layer(origin.clone());
//! assert_eq!(get(&service, "/").await.body, "v1");
//! assert!(get(&service, "/").await.is_hit());
//! assert_eq!(origin.calls(), 1);
//! ```

mod client;
mod response;
#[cfg(feature = "metrics")]
pub(crate) mod series;
mod setup;

use std::{future::Future, pin::Pin, time::Duration};

pub(crate) use tower_readthrough::testing::{
    Answer as ScriptedResponse, BodySender, Failure, ScriptedOrigin, TestBody as Body, time::settle,
};

pub(crate) use self::{
    client::{Reply, bytes, call, collect, get, get_request, get_with, request, send, serve, text, try_send},
    response::{error, hangs, ok, panics, response, status},
    setup::{Cached, cached, cached_in, fixed, small_store, stack, store, ttl},
};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
