//! What the process really takes for a full store, alone in a process of its own.
//!
//! The books are tested in `memory_store.rs`; this is whether they tell the truth.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Origin, get, ok, secs};
use tower::Layer;
use tower_readthrough::{MemoryStore, Rules, Store, StoreLayer};

const MIB: u64 = 1 << 20;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Lets answers of these sizes pass through a store of so many bytes, and says what that took
/// at most, beyond what the process took `before`.
async fn growth(
    before: u64,
    capacity: u64,
    keys: usize,
    size: impl Fn(usize) -> usize + Send + Sync + 'static,
) -> u64 {
    let store = MemoryStore::with_capacity_bytes(capacity);
    let origin = Origin::forgetful(move |call, _| ok(vec![b'x'; size(call)]));
    let rules = Rules::new().default_ttl(secs(3600));
    let service = StoreLayer::new(store.clone()).rules(rules).layer(origin);
    let mut most = 0;
    for number in 0..keys {
        get(&service, &format!("/{number}")).await;
        if number % 1_000 == 0 {
            assert!(store.stats().bytes <= capacity);
            most = most.max(resident().saturating_sub(before));
        }
    }
    assert!(store.stats().evictions > 0, "the store was full: {:?}", store.stats());
    assert!(store.max_response_bytes() > 0);
    most
}

#[tokio::test(start_paused = true)]
async fn a_full_store_takes_little_more_than_its_capacity() {
    // Before the first store: the second one is given the memory of the first.
    let before = resident();
    // Small answers are where an entry costs more than its bytes.
    for (capacity, keys, name, size) in [
        (64 * MIB, 150_000, "tiny", (|_| 10) as fn(usize) -> usize),
        (64 * MIB, 30_000, "mixed", |call| call * 7_919 % 16_384),
    ] {
        let took = growth(before, capacity, keys, size).await;
        // The promise is 64 MiB more than that, which would hide books that are wrong by half.
        assert!(took * 10 < (capacity + 4 * MIB) * 13, "{name}: {} MiB", took / MIB);
        // Were it far less, the books would charge for what is not there.
        assert!(took > capacity / 2, "{name}: {} MiB", took / MIB);
    }
}
