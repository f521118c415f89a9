//! What the store in memory holds, and that its statistics are right.

mod capacity;
mod custom;
mod expiry;
mod threads;
mod variants;

use crate::support::{
    Body, Failure, ScriptedOrigin, ScriptedResponse, error, get, get_with, ms, ok, request, secs, send,
    settle, status, try_send,
};
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder};
use tower_readthrough::{
    BuildError, CacheKey, Entry, FillLayer, LookupLayer, MemoryStore, NotStored, Rules, Sequence,
    StaleIfErrorLayer, Store, StoreLayer,
    store::{Applied, Change, RequestHeaders},
};

type Cached<St> = tower_readthrough::Lookup<tower_readthrough::Fill<ScriptedOrigin, St>, St>;

fn rules() -> Rules {
    Rules::new().default_ttl(secs(10)).stale_if_error_for(Duration::ZERO).hit_for_miss_for(secs(5))
}

fn cached<St: Store>(store: &St, origin: &ScriptedOrigin) -> Cached<St> {
    StoreLayer::new(store.clone()).rules(rules()).layer(origin.clone())
}

/// Responds to `/<bytes>/<anything>` with that many bytes.
fn sized() -> ScriptedOrigin {
    ScriptedOrigin::new(|_, head| {
        let bytes = head.uri.path().split('/').nth(1).unwrap().parse().unwrap();
        ok(vec![b'x'; bytes])
    })
}

/// An entry with a response of this many bytes, to be stored under any number of keys.
async fn sample(bytes: usize) -> Entry {
    let store = MemoryStore::with_capacity_bytes(64 << 20);
    let by_one_key = |_: &http::request::Parts| Some(CacheKey::new("sample"));
    let service = StoreLayer::new(store.clone()).rules(rules()).key(by_one_key).layer(sized());
    get(&service, &format!("/{bytes}")).await;
    (*store.get(&CacheKey::new("sample")).unwrap()).clone()
}

fn put(store: &impl Store, key: &CacheKey, resource: &Entry) {
    for response in resource.variants().iter().map(Arc::clone) {
        let (request, at) = (RequestHeaders::default(), Instant::now());
        store.apply(key, Change::Put { response, request, at });
    }
}

fn remove(store: &impl Store, key: &CacheKey) {
    store.apply(key, Change::Purge { number: u64::MAX });
}

fn key(number: usize) -> CacheKey {
    CacheKey::new(number.to_le_bytes())
}

/// A sequence of numbers that looks random, the same each time.
fn fastrand_like(mut state: u64) -> impl FnMut() -> usize {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    }
}
