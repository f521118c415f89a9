//! A kit for testing caches: an origin that responds by a script, bodies whose frames and timing the
//! test chooses, and a client that collects whole responses.
//!
//! ```text
//! let origin = ScriptedOrigin::new(|call, _| ok(format!("v{call}")).max_age(60).after(ms(50)));
//! let service = layer.layer(origin.clone());
//! assert_eq!(get(&service, "/").await.body, "v1");
//! assert!(get(&service, "/").await.is_hit());
//! assert_eq!(origin.calls(), 1);
//! ```
//!
//! Nothing here knows how the cache works. A mistake in a script panics, and the message says what was asked
//! for and what was there.

mod body;
mod client;
mod origin;
mod response;
mod setup;

use std::time::Duration;

pub(crate) use self::{
    body::{Body, BodySender, Failure},
    client::{Reply, bytes, call, collect, get, get_request, get_with, request, send, serve, text, try_send},
    origin::{BoxFuture, ScriptedOrigin},
    response::{ScriptedResponse, error, hangs, ok, panics, response, status},
    setup::{Cached, cached, cached_in, fixed, small_store, stack, store, ttl},
};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Lets every task run that can, without letting paused time pass.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
