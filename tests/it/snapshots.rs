//! Stored responses that leave the process and come back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::support::{
    Body, Reply, ScriptedOrigin, ScriptedResponse, error, get, get_with, ok, request, secs, send, status,
    try_send,
};
use http::{HeaderMap, Request, StatusCode, uri::Scheme};
use proptest::prelude::*;
use tokio::time::Instant;
use tower::Layer;
use tower_readthrough::{
    CacheKey, DefaultKey, KeyExtractor, MemoryStore, NotStored, Rules, Store, StoreLayer, StoredResponse,
    store::{Applied, Change, Moment, RequestHeaders, RestoreError, Snapshot},
};

fn store() -> MemoryStore {
    MemoryStore::builder(64 << 20).snapshots(true).build().unwrap()
}

fn layer(
    store: &MemoryStore,
) -> StoreLayer<MemoryStore, impl Fn(&http::request::Parts) -> Option<CacheKey> + Clone + use<>> {
    let by_path = |head: &http::request::Parts| Some(CacheKey::new(head.uri.path()));
    StoreLayer::new(store.clone()).rules(Rules::new().stale_if_error_for(secs(60))).key(by_path)
}

/// This moment, by a wall clock that runs like the one that tests hold.
fn moment(start: Instant) -> Moment {
    let instant = Instant::now();
    Moment { instant, time: SystemTime::UNIX_EPOCH + secs(2_000_000_000) + (instant - start) }
}

fn stored(store: &MemoryStore, path: &str) -> Arc<StoredResponse> {
    Arc::clone(&store.get(path.as_bytes()).unwrap().variants()[0])
}

/// Puts what a snapshot makes into a store.
fn load(snapshot: Snapshot, store: &MemoryStore, path: &str, now: Moment) -> Result<(), RestoreError> {
    let (key, loading) = (CacheKey::new(path), store.sequence().begin_load());
    let response = Arc::new(snapshot.restore(&key, &loading, now)?);
    let change = Change::Put { response, request: RequestHeaders::default(), at: now.instant };
    assert!(store.apply(&key, change).is_stored());
    Ok(())
}

/// Status, header fields, body, trailers, and how the response came about.
type Seen = (u16, Vec<(String, Vec<u8>)>, Vec<u8>, Option<HeaderMap>, String);

/// All that a client can see of a response.
fn seen(reply: &Reply) -> Seen {
    let fields = reply.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    (reply.status.as_u16(), fields.collect(), reply.body.to_vec(), reply.trailers.clone(), reply.cache())
}

#[derive(Clone, Debug)]
struct Case {
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
    trailer: bool,
    accept: Option<String>,
    tags: Vec<String>,
    wait: Duration,
}

fn cases() -> impl Strategy<Value = Case> {
    let names = ["x-a", "x-b", "etag", "content-type", "content-language", "server", "x-a", "last-modified"];
    let field = (proptest::sample::select(names.to_vec()), "[ -~]{0,20}");
    let kept =
        ["max-age=100", "public, max-age=60, stale-while-revalidate=30", "s-maxage=70, must-revalidate"];
    (
        proptest::collection::vec(field, 0..8),
        proptest::sample::select(kept.to_vec()),
        (any::<bool>(), proptest::option::of(0_u64..30)),
        proptest::collection::vec(any::<u8>(), 0..3_000),
        (any::<bool>(), proptest::option::of("[a-z]{1,3}(, ?[A-Z]{1,3};q=0\\.[0-9]){0,2}|[a-z]{5000}")),
        proptest::collection::vec("[a-z]{1,5}", 0..4),
        0_u64..25_000_000_000,
    )
        .prop_map(|(fields, cache_control, (varies, age), body, (trailer, accept), tags, wait)| {
            let mut fields: Vec<_> =
                fields.into_iter().map(|(name, value)| (name, value.trim().to_owned())).collect();
            fields.push(("cache-control", cache_control.to_owned()));
            fields.extend(age.map(|age| ("age", age.to_string())));
            if varies {
                fields.push(("vary", "accept-language, x-other".to_owned()));
            }
            if !tags.is_empty() {
                fields.push(("surrogate-key", tags.join(" ")));
                fields.push(("cache-groups", format!("\"{}\"", tags[0])));
            }
            Case { fields, body, trailer, accept, tags, wait: Duration::from_nanos(wait) }
        })
}

fn answer(case: &Case) -> ScriptedResponse {
    let mut answer = ok(case.body.clone());
    for (name, value) in &case.fields {
        answer = answer.header(name, value);
    }
    if case.trailer { answer.trailer("x-sum", "1") } else { answer }
}

async fn comes_back(case: Case) {
    let start = Instant::now();
    let (here, there) = (store(), store());
    let answered = case.clone();
    let service = layer(&here).layer(ScriptedOrigin::always(move || answer(&answered)));
    let fields: Vec<_> = case.accept.iter().map(|accept| ("accept-language", &**accept)).collect();
    get_with(&service, "/page", &fields).await;
    let before = stored(&here, "/page");
    let snapshot = before.snapshot(here.sequence(), moment(start)).expect("the store keeps texts");
    tokio::time::advance(case.wait).await;
    load(snapshot.clone(), &there, "/page", moment(start)).unwrap();

    let after = stored(&there, "/page");
    assert_eq!(after.snapshot(there.sequence(), moment(start)).unwrap(), snapshot, "and once more");
    assert_eq!((after.received_at(), after.expires_at()), (before.received_at(), before.expires_at()));
    for later in [0, 9, 10, 29, 30, 59, 60, 61, 90, 99, 100, 130].map(secs) {
        for instant in [later, later + Duration::from_nanos(1)].map(|later| before.received_at() + later) {
            let of = |response: &StoredResponse| {
                let usable =
                    [response.is_usable_while_revalidating(instant), response.is_usable_on_error(instant)];
                (response.age(instant), response.is_fresh(instant), usable)
            };
            assert_eq!(of(&after), of(&before));
        }
    }
    let restored = layer(&there).layer(ScriptedOrigin::always(error));
    let reply = get_with(&service, "/page", &fields).await;
    assert!(reply.is_hit());
    assert_eq!(seen(&get_with(&restored, "/page", &fields).await), seen(&reply));
    // It is for the same requests.
    let others = [("accept-language", "zz"), ("x-other", "1")];
    let is_hit = is_hit(&there, "/page", &others).await;
    assert_eq!(is_hit, get_with(&service, "/page", &others).await.is_hit());
    // It is found by all that purges compare.
    let purge = layer(&there).purge();
    let mut ways: Vec<Box<dyn Fn() + '_>> = vec![
        Box::new(|| _ = purge.url("http://example.com/page").unwrap()),
        Box::new(|| _ = purge.key(&CacheKey::new("/page"))),
        Box::new(|| _ = purge.path_prefix("http://example.com/page").unwrap()),
        Box::new(|| _ = purge.host("example.com").unwrap()),
        Box::new(|| _ = purge.pattern("http://*/p*e").unwrap()),
    ];
    for tag in &case.tags {
        ways.push(Box::new(|| _ = purge.tag(tag)));
    }
    for way in ways {
        load(snapshot.clone(), &there, "/page", moment(start)).unwrap();
        assert!(is_hit_for(&there, &fields).await);
        way();
        assert!(!is_hit_for(&there, &fields).await, "purged");
    }
}

async fn is_hit_for(store: &MemoryStore, fields: &[(&str, &str)]) -> bool {
    is_hit(store, "/page", fields).await
}

/// Whether something is served where the origin fails.
async fn is_hit(store: &MemoryStore, path: &str, fields: &[(&str, &str)]) -> bool {
    let service = layer(store).layer(ScriptedOrigin::always(error));
    try_send(&service, request("GET", path, fields)).await.is_ok_and(|reply| reply.is_hit())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_restored_response_is_the_same_in_all_that_can_be_seen(case in cases()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(comes_back(case));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_no_texts_says_that_there_is_no_snapshot() {
    let store = MemoryStore::with_capacity_bytes(64 << 20);
    get(&layer(&store).layer(ScriptedOrigin::always(|| ok("x").max_age(9))), "/page").await;
    assert!(stored(&store, "/page").snapshot(store.sequence(), Moment::now()).is_none());
    let (here, start) = (self::store(), Instant::now());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok("x").max_age(9))), "/page").await;
    let snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
    let store = MemoryStore::with_capacity_bytes(64 << 20);
    load(snapshot, &store, "/page", moment(start)).unwrap();
    assert!(is_hit(&store, "/page", &[]).await, "it needs them to take one, not to restore it");
    layer(&store).purge().url("http://example.com/page").unwrap();
    assert!(!is_hit(&store, "/page", &[]).await);
}

/// A small body would keep alive the rest of what it was read with.
#[tokio::test(start_paused = true)]
async fn a_small_body_is_copied_and_a_large_one_is_not() {
    let start = Instant::now();
    for (bytes, is_copied) in [(1, true), (16 << 10, true), ((16 << 10) + 1, false)] {
        let (here, there) = (store(), store());
        let large = ScriptedOrigin::always(move || ok("x".repeat(bytes)).max_age(9));
        get(&layer(&here).layer(large), "/page").await;
        let snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
        let body = snapshot.body.clone();
        load(snapshot, &there, "/page", moment(start)).unwrap();
        let restored = stored(&there, "/page");
        assert_eq!(
            (restored.body(), restored.body().as_ptr() != body.as_ptr()),
            (&body, is_copied),
            "{bytes}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_while_it_is_loaded_is_not_served() {
    let (here, start) = (store(), Instant::now());
    let tagged = || ok("x").header("surrogate-key", "t").header("cache-groups", "\"g\"").max_age(900);
    get(&layer(&here).layer(ScriptedOrigin::always(tagged)), "/page").await;
    let snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
    let post = async |store: &MemoryStore, path: &str, answer: fn() -> ScriptedResponse| {
        send(&layer(store).layer(ScriptedOrigin::always(answer)), request("POST", path, &[])).await;
    };
    for step in 0..5 {
        let (there, key) = (store(), CacheKey::new("/page"));
        let loading = there.sequence().begin_load();
        let purge = layer(&there).purge();
        match step {
            0 => drop(purge.tag("t")),
            1 => drop(purge.url("http://example.com/page").unwrap()),
            2 => post(&there, "/page", || ok("done")).await,
            3 => post(&there, "/other", || ok("done").header("cache-group-invalidation", "\"g\"")).await,
            _ => {}
        }
        // What the purges left is given back, but not what the load needs to know.
        tokio::time::sleep(secs(5)).await;
        let response = Arc::new(snapshot.clone().restore(&key, &loading, moment(start)).unwrap());
        let change = Change::Put { response, request: RequestHeaders::default(), at: Instant::now() };
        there.apply(&key, change);
        drop(loading);
        assert_eq!(is_hit(&there, "/page", &[]).await, step == 4, "step {step}");
        if step == 4 {
            post(&there, "/page", || ok("done")).await;
            assert!(!is_hit(&there, "/page", &[]).await, "an unsafe request reaches what was restored");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_began_before_a_load_wins_over_it() {
    let (here, there, start) = (store(), store(), Instant::now());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok("old").max_age(9))), "/page").await;
    let snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
    let service = layer(&there).layer(ScriptedOrigin::always(|| ok("new").max_age(9).after(secs(1))));
    let fetch = tokio::spawn(async move { get(&service, "/page").await.body });
    crate::support::settle().await;
    load(snapshot, &there, "/page", moment(start)).unwrap();
    assert_eq!(fetch.await.unwrap(), "new");
    assert_eq!(stored(&there, "/page").body(), "new");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_restored_says_why() {
    let start = Instant::now();
    let now = moment(start);
    let (here, loading) = (store(), store().sequence().begin_load());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok("x").max_age(9))), "/page").await;
    let whole = stored(&here, "/page").snapshot(here.sequence(), now).unwrap();
    for status in [StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED] {
        let mut part = whole.clone();
        part.status = status;
        let restored = part.restore(&CacheKey::new("/page"), &loading, now);
        assert_eq!(restored.unwrap_err(), RestoreError::InvalidStatus);
    }
    let mut many = whole;
    many.texts.tags = (0..2000).map(|n| n.to_string().into()).collect();
    let restored = many.restore(&CacheKey::new("/page"), &loading, now);
    assert_eq!(restored.unwrap_err(), RestoreError::TooManyTexts);
    for (urls, is_valid) in [
        (vec![], false),
        (vec!["/page"], false),
        (vec!["//example.com"], false),
        (vec!["//example.com/page"], true),
        (vec!["http://example.com/page", "https://example.com/other"], true),
        (vec!["http://example.com/page", "::"], false),
    ] {
        let mut snapshot = Snapshot::default();
        snapshot.received_at = now.time;
        snapshot.lifetimes.fresh_for = secs(10);
        snapshot.texts.urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let result = load(snapshot, &store(), "/page", now);
        assert_eq!(result, if is_valid { Ok(()) } else { Err(RestoreError::InvalidUrl) }, "{urls:?}");
    }
}

/// What was restored together has one number.
#[tokio::test(start_paused = true)]
async fn variants_restored_together_make_room_for_each_other() {
    let (here, there, start) = (store(), store(), Instant::now());
    let varied = || ok("x").header("vary", "accept-language").max_age(900);
    let service = layer(&here).layer(ScriptedOrigin::always(varied));
    for language in ["de", "en", "fr"] {
        get_with(&service, "/page", &[("accept-language", language)]).await;
    }
    let (key, loading) = (CacheKey::new("/page"), there.sequence().begin_load());
    let entry = here.get(key.as_bytes()).unwrap();
    for variant in entry.variants() {
        let snapshot = variant.snapshot(here.sequence(), moment(start)).unwrap();
        let response = Arc::new(snapshot.restore(&key, &loading, moment(start)).unwrap());
        let change = Change::Put { response, request: RequestHeaders::default(), at: Instant::now() };
        assert!(there.apply(&key, change).is_stored());
    }
    let mut entry = (*there.get(key.as_bytes()).unwrap()).clone();
    assert_eq!(entry.variants().len(), 3);
    entry.shrink_to(1);
    assert_eq!(entry.variants().len(), 1, "the latest stays");
}

#[tokio::test(start_paused = true)]
async fn a_purged_response_does_not_leave_the_process() {
    let (here, start) = (store(), Instant::now());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok("x").max_age(900))), "/page").await;
    let response = stored(&here, "/page");
    layer(&here).purge().soft().url("http://example.com/page").unwrap();
    let snapshot = response.snapshot(here.sequence(), moment(start)).unwrap();
    assert!(snapshot.stale_after.is_some(), "a soft purge makes it stale there as well");
    assert!(!snapshot.is_unproven);
    layer(&here).purge().url("http://example.com/page").unwrap();
    assert!(response.snapshot(here.sequence(), moment(start)).is_none());
}

/// Whether a restored response needs the origin's word is what its snapshot says.
#[tokio::test(start_paused = true)]
async fn what_is_unproven_stays_so_when_it_leaves_the_process() {
    let (here, start) = (store(), Instant::now());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok("x").max_age(900))), "/page").await;
    layer(&here).purge().unproven().everything();
    let snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
    assert!(snapshot.is_unproven && snapshot.stale_after.is_none());
    for (is_unproven, calls) in [(true, 1), (false, 0)] {
        let (there, origin) = (store(), ScriptedOrigin::always(|| ok("y").max_age(900)));
        let mut snapshot = snapshot.clone();
        snapshot.is_unproven = is_unproven;
        load(snapshot, &there, "/page", moment(start)).unwrap();
        assert_eq!(stored(&there, "/page").is_unproven(), is_unproven);
        get(&layer(&there).layer(origin.clone()), "/page").await;
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_makes_nothing_younger() {
    let (here, there, start) = (store(), store(), Instant::now());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok("x").max_age(9))), "/page").await;
    let mut snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
    snapshot.received_at += secs(3600);
    load(snapshot, &there, "/page", moment(start)).unwrap();
    assert!(stored(&there, "/page").received_at() <= start);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_a_store_is_not_restored_and_replaces_nothing() {
    let (here, start) = (store(), Instant::now());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok(vec![b'x'; 200_000]).max_age(900))), "/page").await;
    let snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
    let there = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    get(&layer(&there).layer(ScriptedOrigin::always(|| ok("small").max_age(900))), "/page").await;
    let (key, loading) = (CacheKey::new("/page"), there.sequence().begin_load());
    let response = Arc::new(snapshot.restore(&key, &loading, moment(start)).unwrap());
    let change = Change::Put { response, request: RequestHeaders::default(), at: Instant::now() };
    assert_eq!(there.apply(&key, change), Applied::NotStored(NotStored::TooLarge));
    assert_eq!((stored(&there, "/page").body(), there.stats().refused), (&"small".into(), 1));
}

/// A port that is the default one of another scheme is a part of the host.
#[tokio::test(start_paused = true)]
async fn a_purge_reaches_what_was_restored_under_an_assumed_scheme() {
    for (host, url) in [("h:80", "https://h:80/page"), ("h:443", "https://h/page")] {
        let (here, there, start) = (store(), store(), Instant::now());
        let by_scheme = DefaultKey::new().scheme(Scheme::HTTPS);
        let over = |store: &MemoryStore| StoreLayer::new(store.clone()).key(by_scheme.clone());
        let request = || Request::get("/page").header("host", host).body(Body::default()).unwrap();
        let origin = || ScriptedOrigin::always(|| ok("x").max_age(900));
        send(&over(&here).layer(origin()), request()).await;
        let key = by_scheme.key(&request().into_parts().0).unwrap();
        let before = Arc::clone(&here.get(key.as_bytes()).unwrap().variants()[0]);
        let loading = there.sequence().begin_load();
        let snapshot = before.snapshot(here.sequence(), moment(start)).unwrap();
        let response = Arc::new(snapshot.restore(&key, &loading, moment(start)).unwrap());
        let change = Change::Put { response, request: RequestHeaders::default(), at: Instant::now() };
        assert!(there.apply(&key, change).is_stored());
        let service = over(&there).layer(origin());
        assert!(send(&service, request()).await.is_hit(), "{host}");
        // By the URL alone: a purge of a URL would reach the key as well.
        over(&there).purge().path_prefix(url).unwrap();
        assert!(!send(&service, request()).await.is_hit(), "{host}");
    }
}

/// One of each URL that has confirmed it would make each further 304 dearer, until it cannot be stored any more.
#[tokio::test(start_paused = true)]
async fn what_is_confirmed_for_many_urls_does_not_keep_them_all() {
    let (start, store) = (Instant::now(), store());
    let origin = ScriptedOrigin::new(|_, head| {
        let answer = if head.headers.contains_key("if-none-match") { status(304) } else { ok("page") };
        answer.header("etag", "\"1\"").header("cache-groups", "\"group\"").max_age(10)
    });
    let layer = layer(&store);
    let service = layer.layer(origin.clone());
    for n in 0..1_100 {
        assert_eq!(get(&service, &format!("/p?gclid={n}")).await.body, "page");
        tokio::time::advance(secs(11)).await;
    }
    assert_eq!(origin.calls(), 1_100);
    let snapshot = stored(&store, "/p").snapshot(store.sequence(), moment(start)).unwrap();
    let texts = &snapshot.texts;
    assert_eq!((texts.urls.len(), texts.groups.len()), (1, 1), "{texts:?}");
    let there = self::store();
    load(snapshot.clone(), &there, "/p", moment(start)).unwrap();
    // In the file and the second tier, too.
    #[cfg(feature = "snapshot")]
    assert!(tower_readthrough::store::Envelope::new(CacheKey::new("/p"), snapshot).to_bytes().is_ok());
}

/// What a fetch brings that began before the load is newer.
#[tokio::test(start_paused = true)]
async fn what_is_loaded_does_not_displace_a_fetch_under_way() {
    let (start, here, there) = (Instant::now(), store(), store());
    get(&layer(&here).layer(ScriptedOrigin::always(|| ok("old").max_age(100))), "/page").await;
    let snapshot = stored(&here, "/page").snapshot(here.sequence(), moment(start)).unwrap();
    let origin = ScriptedOrigin::always(|| ok("new").max_age(100));
    let (gate, layer) = (origin.hold(), layer(&there));
    let service = layer.layer(origin.clone());
    let fetched = tokio::spawn({
        let service = service.clone();
        async move { get(&service, "/page").await.body }
    });
    gate.waiting(1).await;
    layer.purge().tag("another");
    load(snapshot, &there, "/page", moment(start)).unwrap();
    gate.open();
    assert_eq!(fetched.await.unwrap(), "new");
    assert_eq!((get(&service, "/page").await.body, origin.calls()), ("new".into(), 1));
}
