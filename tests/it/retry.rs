//! Which requests are retried, when, and how often.

mod policy;
mod requests;
mod stacked;

use crate::support::{
    Body, Failure, ScriptedOrigin, ScriptedResponse, collect, error, get, ms, ok, request, secs, send, serve,
    settle, status, try_send,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};
use tokio::time::{Duration, Instant};
use tower::{Layer, ServiceBuilder, ServiceExt, retry::budget::TpsBudget, service_fn};
use tower_readthrough::{
    Attempts, CacheRequest, FillLayer, KeyLayer, LookupLayer, MemoryStore, OriginLimitLayer, ReadThrough,
    ReadThroughLayer, Refused, Retry, RetryLayer, RetryPolicy, Rules,
};

fn retried(policy: RetryPolicy, origin: &ScriptedOrigin) -> Retry<ScriptedOrigin> {
    RetryLayer::new(policy).layer(origin.clone())
}

/// Any number of retries, at once: what ends them is not the budget, nor the time.
fn eager() -> RetryPolicy {
    RetryPolicy::new().max_retries(1000).backoff(Duration::ZERO, Duration::ZERO).budget(TpsBudget::new(
        secs(10),
        100_000,
        0.2,
    ))
}

/// Fails `failures` times, then succeeds.
fn recovering(
    failures: usize,
    failure: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, _| if call <= failures { failure() } else { ok("fine") })
}

/// When the calls of the origin began, after the first one.
fn timed(
    answer: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
) -> (ScriptedOrigin, Arc<Mutex<Vec<Instant>>>) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let origin = ScriptedOrigin::always(move || {
        noted.lock().unwrap().push(Instant::now());
        answer()
    });
    (origin, times)
}
