//! The memory that the process really takes for a full store, in a process of its own.
//!
//! `memory_store` tests the statistics of the store; this tests that they are true.
#![cfg(target_os = "linux")]

#[allow(dead_code, unused_imports, reason = "a part of it is used here")]
#[path = "it/support/mod.rs"]
mod support;

use std::sync::Arc;

use support::{ScriptedOrigin, get, ok, secs};
use tokio::time::Instant;
use tower::Layer;
use tower_readthrough::{
    CacheKey, MemoryStore, Rules, Store, StoreLayer, StoreStats,
    store::{Change, RequestHeaders},
};

const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 64 * MIB;

/// Requests that pass through a store: how many, their paths, and the sizes of the responses.
struct Load {
    name: &'static str,
    requests: usize,
    path: fn(usize) -> String,
    size: fn(usize) -> usize,
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Sends all requests, and returns the most memory that this took beyond `before`.
async fn growth(before: u64, load: &Load) -> (u64, StoreStats) {
    let store = MemoryStore::with_capacity_bytes(CAPACITY);
    let size = load.size;
    let origin = ScriptedOrigin::unrecorded(move |call, _| ok(vec![b'x'; size(call)]));
    let rules = Rules::new().fixed_ttl(secs(1)).stale_if_error_for(secs(36_000));
    let service = StoreLayer::new(store.clone()).rules(rules).layer(origin);
    let mut most = 0;
    for number in 0..load.requests {
        get(&service, &(load.path)(number)).await;
        if number % 1_000 == 999 {
            assert!(store.stats().bytes <= CAPACITY);
            most = most.max(resident().saturating_sub(before));
            // From here on entries are stale and kept: they are replaced when they are requested again.
            tokio::time::advance(secs(1)).await;
        }
    }
    (most, store.stats())
}

#[tokio::test(start_paused = true)]
async fn a_full_store_takes_little_more_than_its_capacity() {
    let loads = [
        // Where an entry costs more than its bytes. Without optimisation a million would take
        // half a minute; these are a quarter more than the store holds.
        Load { name: "tiny", requests: 100_000, path: |n| format!("/{n}"), size: |_| 10 },
        Load { name: "mixed", requests: 25_000, path: |n| format!("/{n}"), size: |n| n * 7_919 % 16_384 },
        // Long keys, to notice keys that are kept without an entry.
        Load { name: "keys", requests: 25_000, path: |n| format!("/{n:04000}"), size: |_| 10 },
        Load { name: "again", requests: 20_000, path: |n| format!("/{:04000}", n % 1_000), size: |_| 10 },
    ];
    // Before the first store: the others reuse its memory.
    let before = resident();
    for load in &loads {
        let (took, stats) = growth(before, load).await;
        let name = load.name;
        let is_full = name != "again";
        assert_eq!(stats.evictions > 0, is_full, "{name}: {stats:?}");
        // The promise is 64 MiB more than that, which would hide statistics that are wrong by half.
        assert!(took * 10 < (CAPACITY + 4 * MIB) * 13, "{name}: {} MiB", took / MIB);
        // Far less would mean that the statistics charge for memory that is not used.
        assert!(!is_full || took > CAPACITY / 2, "{name}: {} MiB", took / MIB);
    }
    // Entries that are removed again and again keep no memory either.
    let store = MemoryStore::with_capacity_bytes(CAPACITY);
    let by_one_key = |_: &http::request::Parts| Some(CacheKey::new("one"));
    let layer = StoreLayer::new(store.clone()).rules(Rules::new().fixed_ttl(secs(3_600))).key(by_one_key);
    get(&layer.layer(ScriptedOrigin::always(|| ok("x"))), "/").await;
    let sample = store.get(&CacheKey::new("one")).unwrap();
    for _ in 0..3_000 {
        let key = CacheKey::new([0; 50_000]);
        let (response, request) = (Arc::clone(&sample.variants()[0]), RequestHeaders::default());
        store.apply(&key, Change::Put { response, request, at: Instant::now() });
        store.apply(&key, Change::Purge { number: u64::MAX });
    }
    let took = resident().saturating_sub(before);
    assert_eq!(store.stats().entries, 1);
    assert!(took * 10 < (CAPACITY + 4 * MIB) * 13, "{} MiB", took / MIB);
}
