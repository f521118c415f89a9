//! What is stored, for how long, and for which clients.

mod alone;
mod audience;
mod freshness;
mod head;
mod hit_for_miss;
mod malformed;
mod messages;
mod revalidation;
mod size;
mod variants;

use crate::support::{
    Cached, Failure, Reply, ScriptedOrigin, ScriptedResponse, cached, cached_in, collect, error, get,
    get_with, ms, ok, request, secs, send, settle, small_store, status, try_send, ttl,
};
use http::{HeaderValue, StatusCode};
use proptest::prelude::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_readthrough::{FillLayer, KeyLayer, LookupLayer, MemoryStore, NotStored, Rules, Store, StoreLayer};

fn unshareable(reply: &Reply) -> Option<NotStored> {
    reply.cache_status.unwrap().not_stored_reason()
}

/// How often the origin is called for two equal requests in a row.
async fn calls_for_two(rules: Rules, fields: &[(&str, &str)], answer: fn() -> ScriptedResponse) -> usize {
    let origin = ScriptedOrigin::always(answer);
    let service = cached(rules, &origin);
    let first = get_with(&service, "/", fields).await;
    let second = get_with(&service, "/", fields).await;
    assert_eq!(first.body, second.body);
    assert_eq!(second.is_hit(), origin.calls() == 1);
    let status = first.cache_status.unwrap();
    assert_eq!(status.is_stored(), second.is_hit(), "the first answer says what becomes of it");
    origin.calls()
}

/// Checks that a response is a hit until `end`, to the nanosecond, and not from then on.
async fn assert_fresh_until(
    rules: Rules,
    end: Duration,
    answer: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
) {
    let origin = ScriptedOrigin::always(answer);
    let service = cached(rules, &origin);
    get(&service, "/").await;
    tokio::time::advance(end - Duration::from_nanos(1)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(Duration::from_nanos(1)).await;
    let reply = get(&service, "/").await;
    assert!(!reply.is_hit());
    assert_eq!(origin.calls(), 2);
}

/// Sends a 304 with the fields of `update` to a request with the tag.
fn confirming(update: impl Fn(usize) -> ScriptedResponse + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, head| match head.headers.get("if-none-match") {
        Some(tag) if tag == "\"1\"" => update(call),
        _ => ok("hello").max_age(10).header("etag", "\"1\"").header("x", "old").header("content-type", "a/b"),
    })
}
