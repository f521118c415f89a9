//! Hits from the store, and how stored responses are kept fresh.

mod conditions;
mod head;
mod hits;
mod pass_through;
mod refresh;

use crate::support::{
    Body, Cached, Reply, ScriptedOrigin, ScriptedResponse, cached, error, get, get_with, hangs, ms, ok,
    panics, request, secs, send, serve, settle, small_store, status, try_send, ttl,
};
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, request::Parts};
use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_readthrough::{
    CacheKey, CacheRequest, DefaultKey, FillLayer, LookupLayer, MemoryStore, OriginHealth, Purpose, Rules,
    Stale, StoreLayer,
};

/// A cache with a configured lookup.
fn cached_with(
    rules: Rules,
    origin: &ScriptedOrigin,
    setup: impl FnOnce(LookupLayer<MemoryStore>) -> LookupLayer<MemoryStore>,
) -> Cached {
    let store = small_store();
    let fill = FillLayer::new(store.clone()).rules(rules);
    setup(LookupLayer::new(store)).layer(fill.layer(origin.clone()))
}

fn refreshing() -> Rules {
    ttl().stale_while_revalidate_for(secs(60))
}

fn is_refreshing(reply: &Reply) -> bool {
    stale_reason(reply) == Some(Stale::WhileRevalidating)
}

/// Whether a stale response was served because the last refresh failed.
fn is_resting(reply: &Reply) -> bool {
    stale_reason(reply) == Some(Stale::OriginFailed)
}

fn stale_reason(reply: &Reply) -> Option<Stale> {
    reply.cache_status.and_then(|status| status.stale_reason())
}

/// Responds with the number of the call.
fn numbered() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| ok(format!("v{call}")))
}

fn failing(then: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, _| if call == 1 { ok("v1") } else { then() })
}

fn error_only() -> ScriptedOrigin {
    ScriptedOrigin::always(error)
}

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
