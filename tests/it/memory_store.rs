//! What the store in memory holds, and that its books are right.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{
    Answer, Body, Origin, error, get, get_with, ms, ok, request, secs, send, settle, status, try_send,
};
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder};
use tower_readthrough::{
    BuildError, CacheKey, Entry, FillLayer, LookupLayer, MemoryStore, Rules, Sequence, StaleIfErrorLayer,
    Store, StoreLayer,
    store::{Applied, Change, RequestHeaders},
};

type Cached<St> = tower_readthrough::Lookup<tower_readthrough::Fill<Origin, St>, St>;

fn rules() -> Rules {
    Rules::new().default_ttl(secs(10)).stale_if_error_for(Duration::ZERO).hit_for_miss_for(secs(5))
}

fn cached<St: Store>(store: &St, origin: &Origin) -> Cached<St> {
    StoreLayer::new(store.clone()).rules(rules()).layer(origin.clone())
}

/// Answers `/<bytes>/<anything>` with so many bytes.
fn sized() -> Origin {
    Origin::new(|_, head| {
        let bytes = head.uri.path().split('/').nth(1).unwrap().parse().unwrap();
        ok(vec![b'x'; bytes])
    })
}

/// What the store holds for an answer of so many bytes, to be put under any number of keys.
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

// The bound.

/// In all. Without optimisation a million would take ten seconds.
const KEYS: usize = if cfg!(debug_assertions) { 250_000 } else { 1_000_000 };

#[tokio::test(start_paused = true)]
async fn the_bytes_never_exceed_the_capacity_whatever_passes() {
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
async fn what_is_pushed_out_is_let_go() {
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
async fn answers_of_all_sizes_through_the_layer_stay_in_bounds() {
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
    // A body that just fits may be too large together with its fields.
    assert!((refused..refused + 60).contains(&stats.refused), "{refused} {stats:?}");
}

/// A sequence of numbers that looks random, the same each time.
fn fastrand_like(mut state: u64) -> impl FnMut() -> usize {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    }
}

#[tokio::test(start_paused = true)]
async fn keys_fields_and_selecting_values_are_charged() {
    let charged = async |path: String, fields: &[(&str, &str)], answer: fn() -> Answer| {
        let store = MemoryStore::with_capacity_bytes(64 << 20);
        get_with(&cached(&store, &Origin::always(answer)), &path, fields).await;
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
        let origin = Origin::new(|call, _| match call % 2 {
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
async fn markers_are_bounded_and_given_back_as_well() {
    let origin = Origin::always(|| ok("x").header("cache-control", "no-store"));
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
async fn what_is_asked_for_often_survives_a_scan() {
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
    // A crawler: twenty times what the store holds, each key once.
    for number in 0..20_000 {
        put(&store, &key(1_000_000 + number), &sample);
    }
    assert!(store.stats().evictions > 18_000, "the scan was larger than the store");
    let kept = hot.iter().filter(|key| store.get(key).is_some()).count();
    assert!(kept >= 190, "{kept} of 200 are left");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_the_place_of_another_is_no_eviction() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = cached(&store, &sized());
    for round in 1..=5 {
        for number in 0..10 {
            get(&service, &format!("/100/{number}")).await;
        }
        // Replaced before it is given back: it has just expired.
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

// Expiry.

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_given_back_without_any_traffic() {
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let service = cached(&store, &sized());
    for number in 0..1_000 {
        get(&service, &format!("/100/{number}")).await;
    }
    assert_eq!((store.stats().entries, store.stats().expirations), (1_000, 0));
    tokio::time::sleep(ms(9_990)).await;
    assert_eq!(store.stats().entries, 1_000, "not a moment too early");
    tokio::time::sleep(ms(210)).await;
    let stats = store.stats();
    assert_eq!((stats.entries, stats.bytes, stats.expirations, stats.evictions), (0, 0, 1_000, 0));
}

#[tokio::test(start_paused = true)]
async fn each_is_given_back_in_its_time_the_last_stored_first_if_need_be() {
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let origin = Origin::new(|_, head| ok("x").max_age(head.uri.path()[1..].parse().unwrap()));
    let service = cached(&store, &origin);
    for seconds in (1..=20).rev() {
        get(&service, &format!("/{seconds}")).await;
        settle().await; // The task goes to sleep, and has to be woken for the next one.
    }
    tokio::time::sleep(ms(250)).await;
    for left in (0..20).rev() {
        tokio::time::sleep(secs(1)).await;
        assert_eq!(store.stats().entries, left);
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_be_used_stale_or_confirmed_is_kept_until_it_cannot() {
    let none = rules().revalidate_for(Duration::ZERO);
    for (rules, kept_for) in [
        (none.clone(), 10),
        (none.clone().stale_if_error_for(secs(20)), 30),
        (none.clone().stale_while_revalidate_for(secs(25)), 35),
        (none.clone().revalidate_for(secs(40)), 50),
        (none.revalidate_for(secs(5)).stale_if_error_for(secs(7)), 17),
    ] {
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let origin = Origin::always(|| ok("x").header("etag", "\"1\""));
        get(&StoreLayer::new(store.clone()).rules(rules).layer(origin), "/").await;
        tokio::time::sleep(secs(kept_for) - ms(1)).await;
        assert_eq!(store.stats().entries, 1, "{kept_for}");
        tokio::time::sleep(ms(201)).await;
        assert_eq!(store.stats().entries, 0, "{kept_for}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_expires_leaves_the_others() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let origin = Origin::new(|_, head| {
        ok("x").header("vary", "accept").max_age(head.headers["accept"].to_str().unwrap().parse().unwrap())
    });
    let service = cached(&store, &origin);
    get_with(&service, "/", &[("accept", "5")]).await;
    get_with(&service, "/", &[("accept", "50")]).await;
    let both = store.stats().bytes;
    tokio::time::sleep(ms(5_200)).await;
    let stats = store.stats();
    assert_eq!((stats.entries, stats.expirations), (1, 0));
    assert!(stats.bytes < both, "the room of the other one is given back");
    assert!(get_with(&service, "/", &[("accept", "50")]).await.is_hit());
    tokio::time::sleep(secs(50)).await;
    assert_eq!((store.stats().entries, store.stats().bytes, store.stats().expirations), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_background_task_ends_with_the_store() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    assert_eq!(tasks(), 0);
    let service = cached(&store, &sized());
    get(&service, "/1").await;
    get(&service, "/2").await;
    settle().await;
    assert_eq!(tasks(), 1);
    drop((store, service));
    settle().await;
    assert_eq!(tasks(), 0);
}

#[test]
fn a_store_that_moves_to_another_runtime_gives_back_there() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    for round in 1..4 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            get(&cached(&store, &sized()), "/1").await;
            assert!(store.stats().entries > 0);
            // Each runtime begins its time at the same point, so this goes further each time.
            tokio::time::sleep(secs(100 * round)).await;
            assert_eq!(store.stats().entries, 0);
            get(&cached(&store, &sized()), "/1/left").await;
        });
        assert_eq!(store.stats().entries, 1);
    }
}

#[test]
fn without_a_runtime_a_store_works_too() {
    let store = MemoryStore::with_capacity_bytes(100_000);
    let service = cached(&store, &sized());
    for number in 0..1_000 {
        get(&service, &format!("/100/{number}")).now_or_never().unwrap();
        assert!(get(&service, &format!("/100/{number}")).now_or_never().unwrap().is_hit());
        assert!(store.stats().bytes <= 100_000);
    }
}

#[test]
fn a_store_gives_back_for_who_is_outside_the_runtime_of_its_sweeper() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = StoreLayer::new(store.clone()).rules(rules().default_ttl(ms(1))).layer(sized());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(get(&service, "/1"));
    // By the clock on the wall: there is no other.
    let stores = (0..200_000).take_while(|_| store.stats().expirations == 0);
    stores.for_each(|number| _ = get(&service, &format!("/1/{number}")).now_or_never().unwrap());
    assert!(store.stats().expirations > 0);
}

// Variants.

#[tokio::test(start_paused = true)]
async fn a_key_has_at_most_32_variants_and_the_newest_stay() {
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let origin = Origin::always(|| ok("x").header("vary", "user-agent"));
    let one = |_: &http::request::Parts| Some(CacheKey::new("one"));
    let service = StoreLayer::new(store.clone()).rules(rules()).key(one).layer(origin.clone());
    let mut most = 0;
    for number in 0..1_000 {
        get_with(&service, "/", &[("user-agent", &format!("browser {number}"))]).await;
        most = most.max(store.stats().bytes);
        assert!(store.get(&CacheKey::new("one")).unwrap().variants().len() <= 32);
    }
    assert_eq!(store.get(&CacheKey::new("one")).unwrap().variants().len(), 32);
    assert_eq!((store.stats().entries, origin.calls()), (1, 1_000));
    for number in 968..1_000 {
        assert!(get_with(&service, "/", &[("user-agent", &format!("browser {number}"))]).await.is_hit());
    }
    assert!(!get_with(&service, "/", &[("user-agent", "browser 967")]).await.is_hit());
    assert!(most < 64_000, "{most}");
}

#[tokio::test(start_paused = true)]
async fn variants_together_fit_into_one_part_of_the_store() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let origin = Origin::always(|| ok("x".repeat(20_000)).header("vary", "accept"));
    let service = cached(&store, &origin);
    for number in 0..10 {
        get_with(&service, "/", &[("accept", &number.to_string())]).await;
        assert!(store.stats().bytes <= 1 << 17, "{:?}", store.stats());
        assert!(get_with(&service, "/", &[("accept", &number.to_string())]).await.is_hit());
    }
    assert!(get_with(&service, "/", &[("accept", "8")]).await.is_hit(), "the newest that fit");
    assert!(!get_with(&service, "/", &[("accept", "1")]).await.is_hit());
}

// Threads.

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
    let varied = Origin::always(|| ok("x").header("vary", "accept"));
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

// A store of one's own.

#[derive(Clone, Default)]
struct Simple {
    resources: Arc<Mutex<HashMap<CacheKey, Arc<Entry>>>>,
    sequence: Arc<Sequence>,
    refused: Arc<Mutex<u32>>,
}

impl Store for Simple {
    fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.resources.lock().unwrap().get(key).cloned()
    }

    fn apply(&self, key: &CacheKey, change: Change) -> Applied {
        let mut resources = self.resources.lock().unwrap();
        let (resource, applied) = Entry::apply(resources.get(key).map(|resource| &**resource), change);
        match resource {
            Some(resource) => _ = resources.insert(key.clone(), Arc::new(resource)),
            None => _ = resources.remove(key),
        }
        applied
    }

    fn sequence(&self) -> &Arc<Sequence> {
        &self.sequence
    }

    fn max_response_bytes(&self) -> usize {
        10_000
    }

    fn not_stored(&self, _: &CacheKey, reason: Applied) {
        *self.refused.lock().unwrap() += u32::from(reason == Applied::TooLarge);
    }
}

/// What holds for every store.
async fn keeps_the_contract<St: Store>(store: St) {
    let origin = Origin::new(|call, head| match head.uri.path() {
        "/personal" => ok("mine").header("cache-control", "private"),
        "/varied" => ok(head.headers["accept"].as_bytes().to_vec()).header("vary", "accept"),
        "/slow" if call == 1 => ok("old").after(secs(3)),
        "/slow" => ok("new"),
        "/confirmed" if head.headers.contains_key("if-none-match") => status(304),
        "/confirmed" => ok("x").header("etag", "\"1\""),
        _ => ok("x"),
    });
    let service = cached(&store, &origin);
    let slow = tokio::spawn({
        let service = service.clone();
        async move { get(&service, "/slow").await.body }
    });
    settle().await;
    assert_eq!(get(&service, "/slow").await.body, "new");
    assert_eq!(slow.await.unwrap(), "old");
    assert_eq!(get(&service, "/slow").await.body, "new", "a late fetch overwrites nothing");
    assert_eq!(origin.calls(), 2);

    get(&service, "/").await;
    tokio::time::advance(ms(9_999)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!get(&service, "/").await.is_hit());
    assert_eq!(get(&service, "/personal").await.cache(), "fwd=uri-miss; detail=private");
    assert_eq!(get(&service, "/personal").await.cache(), "fwd=bypass; detail=private");
    for is_hit in [false, true] {
        for accept in ["a", "b"] {
            let reply = get_with(&service, "/varied", &[("accept", accept)]).await;
            assert_eq!((&reply.body[..], reply.is_hit()), (accept.as_bytes(), is_hit));
        }
    }
    get(&service, "/confirmed").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/confirmed").await.body, "x");
    assert!(origin.last_request().headers.contains_key("if-none-match"));
    assert!(get(&service, "/confirmed").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_the_contract() {
    keeps_the_contract(MemoryStore::with_capacity_bytes(1 << 20)).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_of_ones_own_works_with_all_layers() {
    let store = Simple::default();
    keeps_the_contract(store.clone()).await;
    let large = Origin::always(|| ok("x".repeat(10_001)));
    assert_eq!(get(&cached(&store, &large), "/large").await.body.len(), 10_001);
    assert_eq!(*store.refused.lock().unwrap(), 1);

    let origin = Origin::new(|call, _| if call == 1 { ok("good") } else { error() });
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules().stale_if_error_for(secs(60))))
        .service(origin);
    get(&service, "/good").await;
    tokio::time::advance(secs(30)).await;
    assert_eq!(get(&service, "/good").await.body, "good");
}

/// A store that forgets everything at once, as one may.
#[derive(Clone, Default)]
struct Forgetful(Arc<Sequence>);

impl Store for Forgetful {
    fn get(&self, _: &[u8]) -> Option<Arc<Entry>> {
        None
    }

    fn apply(&self, _: &CacheKey, _: Change) -> Applied {
        Applied::Unchanged
    }

    fn sequence(&self) -> &Arc<Sequence> {
        &self.0
    }

    fn max_response_bytes(&self) -> usize {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_nothing_is_a_miss_and_never_an_error() {
    async fn check<S, B>(service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = crate::support::Failure> + Clone,
        B: http_body::Body<Data = bytes::Bytes>,
    {
        for _ in 0..3 {
            assert_eq!(get(&service, "/").await.status, StatusCode::OK);
            assert_eq!(send(&service, request("HEAD", "/", &[])).await.status, StatusCode::OK);
            assert!(try_send(&service, request("GET", "/error", &[])).await.is_err());
        }
    }
    let origin =
        Origin::new(|_, head| if head.uri.path() == "/error" { error() } else { ok("x").max_age(9) });
    check(cached(&Forgetful::default(), &origin)).await;
    assert_eq!(origin.calls(), 9);
}
