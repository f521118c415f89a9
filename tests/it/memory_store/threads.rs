//! Changes by several threads.

use super::*;

#[tokio::test(start_paused = true)]
async fn updates_from_many_threads_leave_the_books_exact() {
    for capacity in [20_000, 1 << 20, 64 << 20] {
        let samples = [sample(0).await, sample(500).await, sample(5_000).await];
        let store = MemoryStore::with_capacity_bytes(capacity);
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, samples, runtime) = (&store, &samples, &runtime);
                scope.spawn(move || {
                    let _clock = runtime.enter();
                    let mut random = fastrand_like(thread);
                    let service = cached(store, &sized());
                    for _ in 0..2_000 {
                        match random() % 4 {
                            0 => drop(store.get(&key(random() % 100))),
                            1 => {
                                let path = format!("/{}/{}", random() % 3_000, random() % 20);
                                get(&service, &path).now_or_never().unwrap();
                            }
                            _ => match samples.get(random() % 4) {
                                Some(sample) => put(store, &key(random() % 100), sample),
                                None => remove(store, &key(random() % 100)),
                            },
                        }
                        assert!(store.stats().bytes <= capacity);
                    }
                });
            }
        });
        assert!(store.stats().entries > 0);
        tokio::time::sleep(secs(11)).await;
        let stats = store.stats();
        assert_eq!((stats.entries, stats.bytes), (0, 0), "{stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_change_of_a_key_is_lost_to_another_one() {
    let samples = MemoryStore::with_capacity_bytes(64 << 20);
    let varied = ScriptedOrigin::always(|| ok("x").header("vary", "accept"));
    let layer = StoreLayer::new(samples.clone()).rules(rules());
    let service = layer.key(|_: &http::request::Parts| Some(key(0))).layer(varied);
    for accept in 0..32 {
        get_with(&service, "/", &[("accept", &accept.to_string())]).await;
    }
    let entry = samples.get(key(0).as_bytes()).unwrap();
    assert_eq!(entry.variants().len(), 32);
    for round in 0..100 {
        let store = MemoryStore::with_capacity_bytes(64 << 20);
        std::thread::scope(|scope| {
            for variants in entry.variants().chunks(8) {
                let (store, runtime) = (&store, tokio::runtime::Handle::current());
                scope.spawn(move || {
                    let _clock = runtime.enter();
                    for response in variants.iter().map(Arc::clone) {
                        let (request, at) = (RequestHeaders::default(), Instant::now());
                        assert!(store.apply(&key(0), Change::Put { response, request, at }).is_stored());
                    }
                });
            }
        });
        assert_eq!(store.get(key(0).as_bytes()).unwrap().variants().len(), 32, "round {round}");
    }
}
