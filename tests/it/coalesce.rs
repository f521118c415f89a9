//! Coalescing: which requests share a fetch, within which limits, and how they read its body.

mod bodies;
mod callers;
mod runtime;
mod sharing;

use crate::support::{
    Body, BodySender, Failure, ScriptedOrigin, bytes, call, fixed, get_request, ms, response, store,
};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all};
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_readthrough::{
    Attempts, BodyError, CacheStatus, Coalesce, CoalesceLayer, FillLayer, Key, KeyLayer, LookupLayer,
    MemoryStore, ReadThroughLayer, Refused, Rules, StoreLayer,
};

const URI: &str = "http://h/";

/// Coalescing alone, without a store.
fn coalesced(layer: &CoalesceLayer, origin: &ScriptedOrigin) -> Key<Coalesce<ScriptedOrigin>> {
    KeyLayer::default().layer(layer.clone().rules(fixed(60_000)).layer(origin.clone()))
}

fn slow(delay: u64) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |_, _| async move {
        sleep(ms(delay)).await;
        response(&[], "hello")
    })
}

/// An origin whose first response has a body that the test sends chunk by chunk.
fn fed() -> (ScriptedOrigin, BodySender) {
    let (sender, body) = Body::fed();
    let body = Mutex::new(Some(body));
    let origin = ScriptedOrigin::with_future(move |_, _| {
        let body = body.lock().unwrap().take().unwrap();
        async { response(&[("etag", "\"a\"")], body) }
    });
    (origin, sender)
}

fn refusal<B>(response: &Response<B>) -> Option<Refused> {
    response.extensions().get().copied()
}
