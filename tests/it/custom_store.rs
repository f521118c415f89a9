//! Stores as a user writes them: one from scratch, and one that wraps the store in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::support::{ScriptedOrigin, error, get, get_with, ok, request, secs, send, status, try_send};
use tower::Layer;
use tower_readthrough::{
    CacheKey, MemoryStore, NotStored, ReadThroughLayer, Rules, Sequence, Store, StoreLayer,
    store::{Applied, Change, Entry},
};

/// A map under one lock, without a bound.
#[derive(Clone, Default)]
struct Map {
    entries: Arc<Mutex<HashMap<CacheKey, Arc<Entry>>>>,
    sequence: Arc<Sequence>,
}

impl Store for Map {
    fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.entries.lock().unwrap().get(key).cloned()
    }

    fn apply(&self, key: &CacheKey, change: Change) -> Applied {
        let mut entries = self.entries.lock().unwrap();
        let (entry, applied) = Entry::apply(entries.get(key).map(|entry| &**entry), change);
        match entry {
            Some(entry) => _ = entries.insert(key.clone(), Arc::new(entry)),
            None => _ = entries.remove(key),
        }
        applied
    }

    fn sequence(&self) -> &Arc<Sequence> {
        &self.sequence
    }

    fn max_response_bytes(&self) -> usize {
        10_000
    }
}

/// Tells of all that happens to a store, as a write-behind or a replica wants to know it.
#[derive(Clone)]
struct Logged<St> {
    inner: St,
    log: Arc<Mutex<Vec<(&'static str, Applied)>>>,
}

impl<St> Logged<St> {
    fn new(inner: St) -> Self {
        Self { inner, log: Arc::default() }
    }

    fn take(&self) -> Vec<(&'static str, Applied)> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn push(&self, what: &'static str, applied: Applied) {
        self.log.lock().unwrap().push((what, applied));
    }
}

impl<St: Store> Store for Logged<St> {
    fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.inner.get(key)
    }

    fn apply(&self, key: &CacheKey, change: Change) -> Applied {
        let what = match &change {
            Change::Put { response, .. } => {
                assert!(response.fetch_number() > 0 && !response.headers().contains_key("age"));
                "put"
            }
            Change::Confirm { .. } => "confirm",
            Change::PutPart { part, .. } => {
                assert!(part.range().len() < part.total());
                "part"
            }
            Change::HitForMiss(_) => "hit-for-miss",
            Change::Supersede { hit_for_miss: Some(_), .. } => "supersede and hit-for-miss",
            Change::Supersede { .. } => "supersede",
            Change::Purge { .. } => "purge",
            Change::Prune { .. } => "prune",
            _ => "new",
        };
        let applied = self.inner.apply(key, change);
        self.push(what, applied);
        applied
    }

    fn sequence(&self) -> &Arc<Sequence> {
        self.inner.sequence()
    }

    fn max_response_bytes(&self) -> usize {
        self.inner.max_response_bytes()
    }

    fn capacity_bytes(&self) -> u64 {
        self.inner.capacity_bytes()
    }

    fn purged(&self) {
        self.inner.purged();
    }

    fn not_stored(&self, key: &CacheKey, reason: Applied) {
        self.inner.not_stored(key, reason);
        self.push("nothing", reason);
    }
}

fn origin() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, head| match head.uri.path() {
        "/confirmed" if head.headers.contains_key("if-none-match") => status(304).max_age(10),
        "/confirmed" => ok("x").header("etag", "\"1\"").max_age(10),
        "/private" => ok("mine").header("cache-control", "private"),
        "/large" => ok("x".repeat(20_000)).max_age(10),
        "/cut" => ok("half").declares(8).cut().max_age(10),
        "/tagged" => ok(call.to_string()).header("surrogate-key", "t").max_age(10),
        "/varied" => ok(head.headers["accept"].as_bytes().to_vec()).header("vary", "accept").max_age(10),
        "/part" if head.headers.contains_key("range") => status(206)
            .chunk("hello")
            .header("content-range", "bytes 0-4/10")
            .header("etag", "\"1\"")
            .max_age(10),
        "/broken" => error(),
        _ => ok(call.to_string()).max_age(10),
    })
}

/// What holds for a cache with any store. `steps` is called with the name of each step behind it.
async fn serves<St: Store>(store: St, steps: impl Fn(&str)) {
    let rules = Rules::new().stale_if_error_for(secs(0)).hit_for_miss_for(secs(5));
    let cache = ReadThroughLayer::builder(store.clone()).rules(rules);
    let purge = cache.purge();
    let origin = origin();
    let service = cache.build().unwrap().layer(origin.clone());

    assert!(!get(&service, "/a").await.is_hit());
    assert!(get(&service, "/a").await.is_hit());
    steps("put");
    send(&service, request("POST", "/a", &[])).await;
    assert!(!get(&service, "/a").await.is_hit(), "an unsafe request invalidates");
    steps("put");
    purge.url("http://example.com/a").unwrap();
    assert!(!get(&service, "/a").await.is_hit(), "purged by its URL");
    steps("purge, put");

    get(&service, "/tagged").await;
    purge.tag("t");
    assert!(!get(&service, "/tagged").await.is_hit(), "purged by its tag");
    steps("put, put");

    for is_hit in [false, true] {
        for accept in ["a", "b"] {
            let reply = get_with(&service, "/varied", &[("accept", accept)]).await;
            assert_eq!((&reply.body[..], reply.is_hit()), (accept.as_bytes(), is_hit));
        }
    }
    steps("put, put");

    get(&service, "/confirmed").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/confirmed").await.body, "x");
    assert!(origin.last_request().headers.contains_key("if-none-match"));
    assert!(get(&service, "/confirmed").await.is_hit());
    steps("put, confirm");

    assert_eq!(get(&service, "/private").await.cache(), "fwd=uri-miss; detail=private");
    assert_eq!(get(&service, "/private").await.cache(), "fwd=bypass; detail=private");
    steps("supersede and hit-for-miss, supersede and hit-for-miss");

    for is_hit in [false, true] {
        let reply = get_with(&service, "/part", &[("range", "bytes=0-4")]).await;
        assert_eq!((&reply.body[..], reply.is_hit()), (&b"hello"[..], is_hit));
    }
    assert_eq!(get_with(&service, "/part", &[("range", "bytes=1-2")]).await.body, "el");
    steps("part");

    assert_eq!(get(&service, "/large").await.body.len(), 20_000);
    assert!(get(&service, "/cut").await.is_cut);
    assert!(try_send(&service, request("GET", "/broken", &[])).await.is_err());
    steps("too large, hit-for-miss, incomplete");
}

#[tokio::test(start_paused = true)]
async fn a_map_under_a_lock_is_a_store() {
    serves(Map::default(), |_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_learns_of_all_that_changes_and_of_all_that_is_not_stored() {
    let stored = |what| (what, Applied::Stored);
    let expected = |step: &str| match step {
        "put" => vec![stored("put")],
        "purge, put" => vec![("purge", Applied::Removed), stored("put")],
        "put, put" => vec![stored("put"), stored("put")],
        "put, confirm" => vec![stored("put"), stored("confirm")],
        "supersede and hit-for-miss, supersede and hit-for-miss" => {
            vec![stored("supersede and hit-for-miss"); 2]
        }
        "part" => vec![stored("part")],
        "too large, hit-for-miss, incomplete" => {
            let refused = |reason| ("nothing", reason);
            vec![
                stored("hit-for-miss"),
                refused(Applied::NotStored(NotStored::TooLarge)),
                refused(Applied::NotStored(NotStored::Incomplete)),
            ]
        }
        _ => unreachable!("{step}"),
    };
    let memory = Logged::new(MemoryStore::builder(64 << 20).max_response_share(1e-4).build().unwrap());
    serves(memory.clone(), |step| assert_eq!(memory.take(), expected(step), "{step}")).await;
    let map = Logged::new(Map::default());
    serves(map.clone(), |step| assert_eq!(map.take(), expected(step), "{step}")).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_wrapper_has_logged_can_be_repeated_elsewhere() {
    #[derive(Clone)]
    struct Queued(MemoryStore, Arc<Mutex<Vec<(CacheKey, Change)>>>);

    impl Store for Queued {
        fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
            self.0.get(key)
        }

        fn apply(&self, key: &CacheKey, change: Change) -> Applied {
            self.1.lock().unwrap().push((key.clone(), change.clone()));
            self.0.apply(key, change)
        }

        fn sequence(&self) -> &Arc<Sequence> {
            self.0.sequence()
        }

        fn max_response_bytes(&self) -> usize {
            self.0.max_response_bytes()
        }
    }

    let store = Queued(MemoryStore::with_capacity_bytes(64 << 20), Arc::default());
    let service = StoreLayer::new(store.clone()).rules(Rules::new()).layer(origin());
    for path in ["/a", "/b", "/tagged", "/private", "/a"] {
        get(&service, path).await;
    }
    for accept in ["a", "b"] {
        get_with(&service, "/varied", &[("accept", accept)]).await;
    }
    let (copy, origin) = (Map::default(), ScriptedOrigin::always(error));
    for (key, change) in store.1.lock().unwrap().drain(..) {
        assert!(copy.apply(&key, change).is_stored());
    }
    let service = StoreLayer::new(copy).rules(Rules::new()).layer(origin);
    for path in ["/a", "/b", "/tagged"] {
        assert!(get(&service, path).await.is_hit(), "{path}");
    }
    assert_eq!(get_with(&service, "/varied", &[("accept", "b")]).await.body, "b");
}
