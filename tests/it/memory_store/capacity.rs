//! The bound in bytes, and what is charged to it.

use super::*;

/// Without optimisation a million would take ten seconds.
const KEYS: usize = if cfg!(debug_assertions) { 250_000 } else { 1_000_000 };

#[tokio::test(start_paused = true)]
async fn the_bytes_never_exceed_the_capacity() {
    let samples = [sample(0).await, sample(100).await, sample(3_000).await];
    for capacity in [1, 500, 10_000, 1 << 20, 16 << 20] {
        let store = MemoryStore::with_capacity_bytes(capacity);
        for number in 0..KEYS / 5 {
            put(&store, &key(number), &samples[number % samples.len()]);
            let stats = store.stats();
            assert!(stats.bytes <= capacity, "{stats:?}");
        }
        let stats = store.stats();
        assert_eq!(stats.capacity_bytes, capacity);
        assert_eq!(
            stats.entries + stats.evictions + stats.refused,
            (KEYS / 5) as u64,
            "each key is stored, was pushed out, or is too large for the store"
        );
        assert!(capacity < 1 << 20 || stats.bytes > capacity / 10 * 8, "the room is used: {stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_evicted_response_is_dropped() {
    let sample = sample(100).await;
    let response = Arc::clone(&sample.variants()[0]);
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let before = Arc::strong_count(&response);
    for number in 0..10_000 {
        put(&store, &key(number), &sample);
    }
    assert!(store.stats().evictions > 0);
    assert_eq!(Arc::strong_count(&response) - before, store.stats().entries as usize);
    tokio::time::sleep(secs(11)).await;
    assert_eq!(Arc::strong_count(&response), before);
    put(&store, &key(0), &sample);
    drop(store);
    settle().await;
    assert_eq!(Arc::strong_count(&response), before, "nothing of the store outlives it");
}

#[tokio::test(start_paused = true)]
async fn responses_of_all_sizes_stay_within_the_capacity() {
    let origin = sized();
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = cached(&store, &origin);
    let mut random = fastrand_like(7);
    let mut refused = 0;
    for number in 0..3_000 {
        let bytes = random() % 100_000;
        let reply = get(&service, &format!("/{bytes}/{number}")).await;
        assert_eq!(reply.body.len(), bytes);
        refused += u64::from(bytes > store.max_response_bytes());
        let stats = store.stats();
        assert!(stats.bytes <= 1 << 20, "{stats:?}");
    }
    let stats = store.stats();
    assert!(stats.evictions > 0);
    // A body that just fits may be too large with its fields.
    assert!((refused..refused + 60).contains(&stats.refused), "{refused} {stats:?}");
}

#[tokio::test(start_paused = true)]
async fn keys_fields_and_selecting_values_are_charged() {
    let charged = async |path: String, fields: &[(&str, &str)], answer: fn() -> ScriptedResponse| {
        let store = MemoryStore::with_capacity_bytes(64 << 20);
        get_with(&cached(&store, &ScriptedOrigin::always(answer)), &path, fields).await;
        assert_eq!(store.stats().entries, 1);
        store.stats().bytes
    };
    let plain = charged("/".into(), &[], || ok("x")).await;
    assert!(plain > 500, "an entry costs more than its bytes");
    assert_eq!(charged("/".into(), &[], || ok("x".repeat(1_001))).await, plain + 1_000 + 3, "content-length");
    assert_eq!(charged(format!("/{}", "k".repeat(1_000)), &[], || ok("x")).await, plain + 1_000);
    assert!(charged("/".into(), &[], || ok("x").header("h", "v".repeat(1_000))).await > plain + 1_000);
    assert!(charged("/".into(), &[], || ok("x").trailer("h", "v")).await > plain);
    let long = "v".repeat(1_000);
    let varied = charged("/".into(), &[("accept", &long)], || ok("x").header("vary", "accept")).await;
    assert!(varied > plain + 1_000);
}

#[tokio::test(start_paused = true)]
async fn one_response_takes_its_share_and_no_more() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let limit = store.max_response_bytes();
    assert!(limit < 1 << 16 && limit > 60_000);
    let service = cached(&store, &sized());
    for (bytes, refused) in [(60_000, 0), (limit + 1, 1), (1 << 20, 2), (limit, 3)] {
        assert_eq!(get(&service, &format!("/{bytes}")).await.body.len(), bytes);
        assert_eq!(store.stats().refused, refused, "{bytes}");
    }
    assert!(get(&service, "/60000").await.is_hit());
    let whole = MemoryStore::builder(1 << 20).max_response_share(1.0).build().unwrap();
    let service = cached(&whole, &sized());
    get(&service, "/1000000").await;
    assert!(get(&service, "/1000000").await.is_hit());
    get(&service, "/1000001").await;
    assert!(get(&service, "/1000001").await.is_hit(), "it takes the place of the other one");
    assert!(whole.stats().bytes <= 1 << 20);
}

#[test]
fn a_store_that_cannot_work_is_refused() {
    let with = |share| MemoryStore::builder(1 << 20).max_response_share(share).build();
    for share in [0.0, -1.0, 1.000_1, f64::NAN, f64::INFINITY] {
        assert!(matches!(with(share), Err(BuildError::ResponseShare(_))), "{share}");
    }
    for share in [1.0, 0.5, 0.01] {
        assert!(with(share).is_ok(), "{share}");
    }
    assert!(matches!(with(f64::MIN_POSITIVE), Err(BuildError::SmallStore { .. })));
    assert!(matches!(MemoryStore::builder(0).build(), Err(BuildError::EmptyStore)));
}

#[tokio::test(start_paused = true)]
async fn stores_too_small_for_anything_are_harmless() {
    for capacity in [0, 1, 447, 448, 1_000, 5_000] {
        let store = MemoryStore::with_capacity_bytes(capacity);
        let origin = ScriptedOrigin::new(|call, _| match call % 2 {
            0 => ok("x"),
            _ => ok("x").header("cache-control", "no-store"),
        });
        let service = cached(&store, &origin);
        for number in 0..100 {
            assert_eq!(get(&service, &format!("/{}", number % 10)).await.body, "x");
            assert!(store.stats().bytes <= capacity, "{:?}", store.stats());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hit_for_misses_are_bounded_and_removed_too() {
    let origin = ScriptedOrigin::always(|| ok("x").header("cache-control", "no-store"));
    let store = MemoryStore::with_capacity_bytes(100_000);
    let service = cached(&store, &origin);
    for number in 0..2_000 {
        get(&service, &format!("/{number}")).await;
        assert!(store.stats().bytes <= 100_000);
    }
    assert!(store.stats().entries > 50 && store.stats().evictions > 1_000, "{:?}", store.stats());
    tokio::time::sleep(ms(5_200)).await;
    assert_eq!((store.stats().entries, store.stats().bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_entry_in_frequent_use_survives_a_scan() {
    let sample = sample(1_000).await;
    let store = MemoryStore::with_capacity_bytes(2 << 20);
    let hot: Vec<_> = (0..200).map(key).collect();
    for _ in 0..3 {
        for key in &hot {
            if store.get(key).is_none() {
                put(&store, key, &sample);
            }
        }
    }
    // A crawler: twenty times the capacity, each key once.
    for number in 0..20_000 {
        put(&store, &key(1_000_000 + number), &sample);
    }
    assert!(store.stats().evictions > 18_000, "the scan was larger than the store");
    let kept = hot.iter().filter(|key| store.get(key).is_some()).count();
    assert!(kept >= 190, "{kept} of 200 are left");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_response_does_not_count_as_an_eviction() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = cached(&store, &sized());
    for round in 1..=5 {
        for number in 0..10 {
            get(&service, &format!("/100/{number}")).await;
        }
        // Replaced before it is removed: it has just expired.
        tokio::time::advance(ms(10_001)).await;
        let stats = store.stats();
        assert_eq!(stats.evictions, 0, "round {round}: {stats:?}");
    }
    let sample = sample(100).await;
    for _ in 0..100 {
        put(&store, &key(1), &sample);
    }
    assert_eq!(store.stats().evictions, 0);
}
