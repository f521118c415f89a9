//! What a purge reaches, and that nobody who comes later gets it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::support::open::{Origin, bytes, call, fixed, get, ms, response, status, store};
use axum::body::Body;
use http::{Extensions, HeaderValue, Request, StatusCode, Uri, request::Parts};
use tokio::{task::JoinSet, time::sleep};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    BuildError, CacheKey, CacheStatus, CoalesceLayer, FillLayer, KeyExtractor, KeyLayer, LookupLayer,
    MemoryStore, Purge, PurgeError, ReadThrough, ReadThroughLayer, Rules, Store, StoreLayer,
};

const URI: &str = "http://h/a/b?c=1";

type Service = ReadThrough<Origin, MemoryStore>;

/// Answers with the number of the call; with tags, and for each `accept` another variant.
fn tagged() -> Origin {
    Origin::new(|n, _| async move {
        response(&[("surrogate-key", "red green"), ("vary", "accept")], n.to_string())
    })
}

fn stack_of(origin: &Origin, rules: Rules) -> (Service, Purge, MemoryStore) {
    let store = store();
    let layer = ReadThroughLayer::builder(store.clone()).rules(rules).build().unwrap();
    (layer.layer(origin.clone()), layer.purge(), store)
}

fn accepting(uri: &str, accept: &'static str) -> Request<Body> {
    let mut request = get(uri);
    request.headers_mut().insert("accept", accept.parse().unwrap());
    request
}

fn key(uri: &str) -> CacheKey {
    use tower_readthrough::DefaultKey;
    DefaultKey::new().key(&Request::get(uri).body(()).unwrap().into_parts().0).unwrap()
}

/// Whether a purge reaches what is stored for `URI`, in all its variants.
async fn reaches(purge: impl FnOnce(&Purge)) -> bool {
    let origin = tagged();
    let (service, handle, _) = stack_of(&origin, fixed(60_000));
    for accept in ["x", "y", "x", "y"] {
        call(&service, accepting(URI, accept)).await;
    }
    assert_eq!(origin.calls(), 2);
    purge(&handle);
    for accept in ["x", "y", "x", "y"] {
        call(&service, accepting(URI, accept)).await;
    }
    assert!([2, 4].contains(&origin.calls()), "both or none");
    origin.calls() == 4
}

/// Whether a purge leaves it alone. URIs that share a floor by their hash are purged together: one
/// time in some thousand, and not again in a store that hashes otherwise.
async fn spares(purge: impl Fn(&Purge)) -> bool {
    !reaches(&purge).await || !reaches(&purge).await || !reaches(&purge).await
}

#[tokio::test(start_paused = true)]
async fn each_kind_reaches_what_it_names_and_nothing_else() {
    assert!(spares(|_| ()).await);
    for url in [URI, "http://H/a/b?c=1", "https://h/a/b?c=1"] {
        assert!(reaches(|purge| _ = purge.url(url).unwrap()).await, "{url}");
    }
    for url in ["http://h/a/b", "http://h/a/b?c=2", "http://other/a/b?c=1", "http://h:81/a/b?c=1"] {
        assert!(spares(|purge| _ = purge.url(url).unwrap()).await, "{url}");
    }
    assert!(reaches(|purge| _ = purge.key(&key(URI))).await);
    assert!(spares(|purge| _ = purge.key(&key("http://h/"))).await);
    for tag in ["red", "green"] {
        assert!(reaches(|purge| _ = purge.tag(tag)).await, "{tag}");
    }
    for tag in ["Red", "red green", "re", ""] {
        assert!(spares(|purge| _ = purge.tag(tag)).await, "{tag}");
    }
    assert!(reaches(|purge| _ = purge.everything()).await);
}

#[tokio::test(start_paused = true)]
async fn prefixes_of_paths_end_with_a_segment_and_those_of_keys_anywhere() {
    for prefix in
        ["http://h", "http://h/", "http://H/a", "http://h/a/", "http://h/a/b", "http://h/a/b/", "https://h/a"]
    {
        assert!(reaches(|purge| _ = purge.path_prefix(prefix).unwrap()).await, "{prefix}");
    }
    for prefix in
        ["http://h/a/b/c", "http://h/b", "http://h//a", "http://h/a/bb", "http://other/a", "http://h:81/a"]
    {
        assert!(spares(|purge| _ = purge.path_prefix(prefix).unwrap()).await, "{prefix}");
    }
    let key = key(URI);
    for length in [0, 1, key.as_bytes().len() - 1, key.as_bytes().len()] {
        assert!(reaches(|purge| _ = purge.key_prefix(&key.as_bytes()[..length])).await, "{length}");
    }
    assert!(spares(|purge| _ = purge.key_prefix(b"http")).await, "the key begins with a length");
    let longer = [key.as_bytes(), b"x"].concat();
    assert!(spares(|purge| _ = purge.key_prefix(&longer)).await);
}

#[tokio::test(start_paused = true)]
async fn paths_of_any_depth_are_reached() {
    let origin = tagged();
    let (service, purge, _) = stack_of(&origin, fixed(60_000));
    let deep = format!("http://h{}", "/x".repeat(3_000));
    call(&service, get(&deep)).await;
    for prefix in [format!("http://h{}", "/x".repeat(10)), deep.clone(), format!("{deep}/")] {
        let before = origin.calls();
        purge.path_prefix(&prefix).unwrap();
        call(&service, get(&deep)).await;
        assert_eq!(origin.calls(), before + 1);
    }
    purge.path_prefix(&format!("http://h{}/y", "/x".repeat(31))).unwrap();
    let before = origin.calls();
    call(&service, get(&deep)).await;
    assert_eq!(origin.calls(), before, "another path within the segments that count");
    purge.key_prefix(vec![b'k'; 5_000]);
}

#[test]
fn what_is_no_url_is_refused_with_a_reason() {
    let purge = LookupLayer::new(store()).purge();
    assert!(matches!(purge.url("/a"), Err(PurgeError::NotAbsolute(_))));
    assert!(matches!(purge.url("h:80"), Err(PurgeError::NotAbsolute(_))));
    assert!(matches!(purge.url(""), Err(PurgeError::NotAUrl(_))));
    assert!(matches!(purge.url("http://a b/"), Err(PurgeError::NotAUrl(_))));
    assert!(matches!(purge.url("http://me@h/"), Err(PurgeError::HasUser(_))));
    assert!(matches!(purge.path_prefix("http://h/a?b"), Err(PurgeError::HasQuery(_))));
    assert!(matches!(purge.path_prefix("blog"), Err(PurgeError::NotAbsolute(_))));
    assert!(purge.url("/a").unwrap_err().to_string().contains("http://"));
}

#[tokio::test(start_paused = true)]
async fn a_purge_says_which_number_it_took() {
    let store = store();
    let first = LookupLayer::new(store.clone()).purge().tag("x");
    let second = LookupLayer::new(store.clone()).purge().soft().url("http://h/").unwrap();
    assert!(first.number() < second.number());
    assert_eq!(second.number(), store.sequence().current());
    assert!(!first.is_soft() && second.is_soft());
}

/// One entry per product, and per language.
struct ByProduct;

impl KeyExtractor for ByProduct {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        let language = head.headers.get("accept-language").map_or(&[][..], |value| value.as_bytes());
        Some(CacheKey::from_parts([self.identity(&head.uri, None, &head.extensions)?.as_bytes(), language]))
    }

    fn identity(&self, uri: &Uri, _: Option<&HeaderValue>, _: &Extensions) -> Option<CacheKey> {
        let product = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("pid="))?;
        Some(CacheKey::from_parts(["product", product]))
    }
}

#[tokio::test(start_paused = true)]
async fn a_url_is_what_it_names_by_the_rules_of_the_layer() {
    let origin = tagged();
    let builder = ReadThroughLayer::builder(store()).key(ByProduct).rules(fixed(60_000));
    let (purge, service) = (builder.purge(), builder.build().unwrap().layer(origin.clone()));
    let ask = async |language: &'static str| {
        let mut request = get("http://h/p?pid=7&session=1");
        request.headers_mut().insert("accept-language", language.parse().unwrap());
        call(&service, request).await
    };
    for language in ["de", "en", "de", "en"] {
        ask(language).await;
    }
    assert_eq!(origin.calls(), 2);
    purge.url("http://h/p?pid=8").unwrap();
    for language in ["de", "en"] {
        ask(language).await;
    }
    assert_eq!(origin.calls(), 2);
    purge.url("http://h/p?session=2&pid=7").unwrap();
    for language in ["de", "en", "de", "en"] {
        ask(language).await;
    }
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn every_layer_that_looks_into_the_store_obeys() {
    let origin = tagged();
    let store = store();
    let layer = StoreLayer::new(store.clone()).rules(fixed(60_000));
    let purge = layer.purge();
    let service = layer.layer(origin.clone());
    call(&service, get(URI)).await;
    call(&service, get(URI)).await;
    assert_eq!(origin.calls(), 1);
    purge.tag("red");
    call(&service, get(URI)).await;
    assert_eq!(origin.calls(), 2);
    LookupLayer::new(store.clone()).purge().url(URI).unwrap();
    call(&service, get(URI)).await;
    assert_eq!(origin.calls(), 3);
}

// Soft.

/// Fresh for ten seconds; the second answer on confirms.
fn confirming() -> Origin {
    Origin::new(|n, request| async move {
        let is_confirmed = request.headers().get("if-none-match").is_some_and(|tag| tag == "\"1\"");
        let fields = [("cache-control", "max-age=10"), ("etag", "\"1\""), ("surrogate-key", "red")];
        match is_confirmed {
            true => {
                let mut confirmed = status(304);
                confirmed.headers_mut().insert("cache-control", "max-age=10".parse().unwrap());
                confirmed
            }
            false => response(&fields, n.to_string()),
        }
    })
}

async fn seen(service: &Service, uri: &str) -> (String, String) {
    let response = service.clone().oneshot(get(uri)).await.unwrap();
    let status = CacheStatus::of(&response).map_or_else(String::new, |status| status.to_string());
    (status, String::from_utf8(bytes(response).await.to_vec()).unwrap())
}

type Apply = fn(&Purge);

/// All kinds.
const KINDS: [(&str, Apply); 6] = [
    ("url", |purge| _ = purge.url(URI).unwrap()),
    ("key", |purge| _ = purge.key(&key(URI))),
    ("tag", |purge| _ = purge.tag("red")),
    ("path", |purge| _ = purge.path_prefix("http://h/a").unwrap()),
    ("prefix", |purge| _ = purge.key_prefix([])),
    ("everything", |purge| _ = purge.everything()),
];

#[tokio::test(start_paused = true)]
async fn what_is_purged_softly_is_revalidated() {
    for (kind, apply) in KINDS {
        let origin = confirming();
        let (service, purge, _) = stack_of(&origin, Rules::new());
        seen(&service, URI).await;
        assert_eq!(seen(&service, URI).await, ("hit".into(), "1".into()));
        apply(&purge.soft());
        let (how, body) = seen(&service, URI).await;
        assert!(how.contains("fwd=stale"), "{kind}: {how}");
        assert_eq!(body, "1", "{kind}: confirmed");
        assert_eq!(seen(&service, URI).await, ("hit".into(), "1".into()), "{kind}: fresh again");
        assert_eq!(origin.calls(), 2, "{kind}");
        // A hard one is not even confirmed.
        apply(&purge);
        assert_eq!(seen(&service, URI).await.1, "3", "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_softly_is_served_while_it_is_revalidated_for_the_window_from_then_on() {
    for (kind, apply) in KINDS {
        let origin = Origin::new(|n, _| async move {
            sleep(ms(100)).await;
            response(&[("surrogate-key", "red")], n.to_string())
        });
        let rules = fixed(60_000).stale_while_revalidate_for(ms(5_000));
        let (service, purge, _) = stack_of(&origin, rules);
        seen(&service, URI).await;
        sleep(ms(10_000)).await;
        apply(&purge.soft());
        sleep(ms(4_000)).await;
        let (how, body) = seen(&service, URI).await;
        assert_eq!(body, "1", "{kind}: {how}");
        assert_ne!(how, "hit", "{kind}: it says that it is stale");
        sleep(ms(200)).await;
        assert_eq!(seen(&service, URI).await, ("hit".into(), "2".into()), "{kind}");
        apply(&purge.soft());
        sleep(ms(5_001)).await;
        assert_eq!(seen(&service, URI).await.1, "3", "{kind}: the window is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_softly_covers_an_outage_and_what_is_purged_hard_does_not() {
    for (kind, apply) in KINDS {
        let origin = Origin::new(|n, _| async move {
            match n {
                1 => response(&[("surrogate-key", "red")], "1"),
                _ => status(503),
            }
        });
        let rules = fixed(60_000).stale_if_error_for(ms(5_000));
        let (service, purge, _) = stack_of(&origin, rules.clone());
        seen(&service, URI).await;
        apply(&purge.soft());
        sleep(ms(4_000)).await;
        assert_eq!(call(&service, get(URI)).await, (StatusCode::OK, "1".into()), "{kind}");
        sleep(ms(1_001)).await;
        assert_eq!(call(&service, get(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE, "{kind}");

        let (service, purge, _) = stack_of(&origin_of_one_answer(), rules);
        seen(&service, URI).await;
        apply(&purge);
        assert_eq!(call(&service, get(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE, "{kind}");
    }
}

fn origin_of_one_answer() -> Origin {
    Origin::new(|n, _| async move {
        match n {
            1 => response(&[("surrogate-key", "red")], "1"),
            _ => status(503),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_does_not_lengthen_what_is_left() {
    let rules = fixed(10_000).stale_if_error_for(ms(10_000));
    let (service, purge, _) = stack_of(&origin_of_one_answer(), rules);
    seen(&service, URI).await;
    sleep(ms(19_000)).await;
    purge.soft().everything();
    assert_eq!(call(&service, get(URI)).await.0, StatusCode::OK);
    sleep(ms(1_100)).await;
    purge.soft().everything();
    assert_eq!(call(&service, get(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

// Fetches under way.

/// The content when the fetch began, which is sent 100 ms later.
fn slow(content: &Arc<AtomicU64>) -> Origin {
    let content = Arc::clone(content);
    Origin::new(move |_, _| {
        let content = content.load(Ordering::SeqCst);
        async move {
            sleep(ms(100)).await;
            response(&[("surrogate-key", "red")], content.to_string())
        }
    })
}

fn crowd(service: &Service, n: usize) -> JoinSet<String> {
    let mut callers = JoinSet::new();
    for _ in 0..n {
        let service = service.clone();
        callers.spawn(async move { seen(&service, URI).await.1 });
    }
    callers
}

#[tokio::test(start_paused = true)]
async fn a_fetch_under_way_serves_who_came_before_and_nobody_after() {
    for (kind, apply) in KINDS {
        for is_soft in [false, true] {
            let content = Arc::new(AtomicU64::new(1));
            let origin = slow(&content);
            let (service, purge, store) = stack_of(&origin, fixed(60_000));
            let before = crowd(&service, 50);
            sleep(ms(50)).await;
            content.store(2, Ordering::SeqCst);
            apply(&if is_soft { purge.soft() } else { purge });
            let after = crowd(&service, 50);
            assert!(before.join_all().await.iter().all(|body| body == "1"), "{kind}");
            assert!(after.join_all().await.iter().all(|body| body == "2"), "{kind}");
            assert_eq!(seen(&service, URI).await, ("hit".into(), "2".into()), "{kind}");
            assert_eq!(origin.calls(), 2, "{kind}: all who came after share a fetch");
            let stored = store.get(&key(URI)).unwrap();
            assert_eq!(stored.variants().len(), 1);
        }
    }
}

/// What a failure says may be purged like anything else.
#[tokio::test(start_paused = true)]
async fn a_failure_under_way_serves_who_came_before_and_nobody_after() {
    for (kind, apply) in KINDS {
        let origin = Origin::new(|n, _| async move {
            sleep(ms(100)).await;
            let mut answer = response(&[("surrogate-key", "red")], n.to_string());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        });
        let (service, purge, _) = stack_of(&origin, Rules::new());
        let before = crowd(&service, 50);
        sleep(ms(50)).await;
        apply(&purge);
        let after = crowd(&service, 50);
        let (before, after) = (before.join_all().await, after.join_all().await);
        assert!(before.iter().any(|body| body == "1"), "{kind}: {before:?}");
        assert!(after.iter().all(|body| body != "1"), "{kind}: {after:?}");
        // Two for each crowd: a failure is shared once a second caller's fetch failed too.
        assert!(origin.calls() <= 4, "{kind}: {}", origin.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_while_its_body_comes_in_is_not_stored() {
    for (kind, apply) in KINDS {
        let origin = Origin::new(|n, _| async move {
            let chunks = futures_util::stream::unfold(0, move |at| async move {
                sleep(ms(50)).await;
                (at < 2).then(|| (Ok::<_, std::convert::Infallible>(n.to_string()), at + 1))
            });
            response(&[("surrogate-key", "red")], Body::from_stream(chunks))
        });
        let (service, purge, store) = stack_of(&origin, fixed(60_000));
        let response = service.clone().oneshot(get(URI)).await.unwrap();
        apply(&purge);
        let late = service.clone().oneshot(get(URI)).await.unwrap();
        assert_eq!(bytes(response).await, "11", "{kind}");
        assert_eq!(bytes(late).await, "22", "{kind}: who came after did not join");
        sleep(ms(500)).await;
        assert_eq!(seen(&service, URI).await.1, "22", "{kind}");
        assert_eq!((origin.calls(), store.stats().entries), (2, 1), "{kind}");
    }
}

/// However often a tag is purged, nobody asks twice for want of luck.
#[tokio::test(start_paused = true)]
async fn a_purge_storm_does_not_multiply_fetches() {
    let content = Arc::new(AtomicU64::new(1));
    let origin = slow(&content);
    let (service, purge, _) = stack_of(&origin, fixed(60_000));
    let mut callers = JoinSet::new();
    for n in 1..=1_000_u64 {
        let (at_least, service) = (content.load(Ordering::SeqCst), service.clone());
        callers.spawn(async move { (at_least, seen(&service, URI).await.1.parse::<u64>().unwrap()) });
        sleep(ms(1)).await;
        content.store(n + 1, Ordering::SeqCst);
        purge.tag("red");
    }
    for (at_least, got) in callers.join_all().await {
        assert!(got >= at_least, "{got} was purged, {at_least} was there");
    }
    assert!(origin.calls() <= 50, "{} calls for 1,000 callers in 1.1 s", origin.calls());
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_under_way_does_not_bring_back_what_is_purged() {
    for (kind, apply) in KINDS {
        let origin = Origin::new(|n, request: Request<Body>| async move {
            match n {
                1 => response(
                    &[("cache-control", "max-age=1"), ("etag", "\"1\""), ("surrogate-key", "red")],
                    "old",
                ),
                2 => {
                    assert!(request.headers().contains_key("if-none-match"));
                    sleep(ms(100)).await;
                    let mut confirmed = status(304);
                    confirmed.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
                    confirmed
                }
                _ => response(&[("cache-control", "max-age=60")], "new"),
            }
        });
        let (service, purge, _) = stack_of(&origin, Rules::new());
        seen(&service, URI).await;
        sleep(ms(2_000)).await;
        let confirming = service.clone();
        let confirming = tokio::spawn(async move { seen(&confirming, URI).await.1 });
        sleep(ms(50)).await;
        apply(&purge);
        let after = service.clone();
        let after = tokio::spawn(async move { seen(&after, URI).await.1 });
        assert_eq!(confirming.await.unwrap(), "old", "{kind}: he came before");
        assert_eq!(after.await.unwrap(), "new", "{kind}");
        assert_eq!(seen(&service, URI).await.1, "new", "{kind}");
    }
}

/// Who waited for a fetch that broke down asks himself, and knows of an answer that is gone by then.
#[tokio::test(start_paused = true)]
async fn what_is_purged_before_the_fetch_begins_is_not_confirmed() {
    for (kind, apply) in KINDS {
        let origin = Origin::new(|n, request: Request<Body>| async move {
            let fields = [("cache-control", "max-age=1"), ("etag", "\"1\""), ("surrogate-key", "red")];
            match n {
                1 => response(&fields, "old"),
                2 => {
                    sleep(ms(100)).await;
                    panic!("the origin broke down");
                }
                _ if request.headers().contains_key("if-none-match") => status(304),
                _ => response(&[("cache-control", "max-age=60")], "new"),
            }
        });
        // Nothing stale covers the failure.
        let rules = Rules::new().stale_if_error_for(Duration::ZERO);
        let (service, purge, _) = stack_of(&origin, rules);
        seen(&service, URI).await;
        sleep(ms(2_000)).await;
        let mut callers = crowd(&service, 2);
        sleep(ms(50)).await;
        apply(&purge);
        while callers.join_next().await.is_some() {}
        assert_eq!(origin.calls(), 3, "{kind}");
        assert_eq!(seen(&service, URI).await.1, "new", "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_under_way_does_not_bring_back_what_is_purged() {
    for (kind, apply) in KINDS {
        let content = Arc::new(AtomicU64::new(1));
        let origin = slow(&content);
        let (service, purge, _) = stack_of(&origin, fixed(1_000).stale_while_revalidate_for(ms(60_000)));
        seen(&service, URI).await;
        sleep(ms(2_000)).await;
        assert_eq!(seen(&service, URI).await.1, "1", "{kind}: stale");
        sleep(ms(50)).await;
        content.store(2, Ordering::SeqCst);
        apply(&purge);
        assert_eq!(seen(&service, URI).await.1, "2", "{kind}");
        sleep(ms(500)).await;
        assert_eq!(seen(&service, URI).await.1, "2", "{kind}");
    }
}

/// Where nobody knows when the request arrived.
/// Parts of one representation grow together, but not with what was purged meanwhile.
#[tokio::test(start_paused = true)]
async fn a_part_under_way_does_not_bring_back_what_is_purged() {
    for (kind, apply) in KINDS {
        let origin = Origin::new(|n, request: Request<Body>| async move {
            let is_first = request.headers()["range"] == "bytes=0-4";
            let body = futures_util::stream::once(async move {
                sleep(ms(if n == 1 { 100 } else { 0 })).await;
                Ok::<_, std::convert::Infallible>(n.to_string().repeat(5))
            });
            let extent = if is_first { "bytes 0-4/15" } else { "bytes 5-9/15" };
            let fields = [("content-range", extent), ("etag", "\"1\""), ("surrogate-key", "red")];
            let mut part = response(&fields, Body::from_stream(body));
            *part.status_mut() = StatusCode::PARTIAL_CONTENT;
            part
        });
        let (service, purge, _) = stack_of(&origin, fixed(60_000));
        let range = |range: &'static str| {
            let mut request = get(URI);
            request.headers_mut().insert("range", range.parse().unwrap());
            request
        };
        let slow = service.clone().oneshot(range("bytes=0-4")).await.unwrap();
        apply(&purge);
        assert_eq!(call(&service, range("bytes=5-9")).await.1, "22222", "{kind}");
        assert_eq!(bytes(slow).await, "11111", "{kind}: it came before");
        sleep(ms(200)).await;
        assert_eq!(call(&service, range("bytes=0-4")).await.1, "33333", "{kind}");
        assert_eq!(call(&service, range("bytes=3-7")).await.1, "33222", "{kind}: of one piece again");
        assert_eq!(origin.calls(), 3, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn coalescing_without_a_lookup_errs_on_the_safe_side() {
    for (kind, apply) in KINDS {
        let content = Arc::new(AtomicU64::new(1));
        let origin = slow(&content);
        let store = store();
        let fill = FillLayer::new(store.clone()).rules(fixed(60_000));
        let stack = KeyLayer::default().layer(CoalesceLayer::new().layer(fill.layer(origin.clone())));
        let callers = |n| {
            let mut callers = JoinSet::new();
            for _ in 0..n {
                let stack = stack.clone();
                callers.spawn(async move { call(&stack, get(URI)).await.1 });
            }
            callers
        };
        let before = callers(10);
        sleep(ms(50)).await;
        content.store(2, Ordering::SeqCst);
        apply(&LookupLayer::new(store.clone()).purge());
        let after = callers(10);
        before.join_all().await;
        assert!(after.join_all().await.iter().all(|body| body == "2"), "{kind}");
        assert!(origin.calls() <= 3, "{kind}: {}", origin.calls());
    }
}

// Bounds.

/// So many answers, each with a tag of its own and one for all.
async fn fill_with(service: &Service, n: usize) {
    for i in 0..n {
        call(service, get(&format!("http://h/{i}"))).await;
    }
}

fn tag_per_path() -> Origin {
    Origin::new(|_, request: Request<Body>| async move {
        let tags = format!("all t{}", request.uri().path().trim_matches('/'));
        response(&[("surrogate-key", &tags)], "x")
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_is_given_back_without_being_asked_for() {
    let origin = tag_per_path();
    let (service, purge, store) = stack_of(&origin, fixed(3_600_000));
    fill_with(&service, 1_000).await;
    assert_eq!(store.stats().entries, 1_000);
    for i in 0..500 {
        purge.tag(&format!("t{i}"));
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(store.stats().entries, 500);
    assert_eq!(store.sequence().records(), (0, 0), "nothing can match them any more");
    fill_with(&service, 1_000).await;
    assert_eq!(origin.calls(), 1_500, "the others were left alone");
    purge.key_prefix([]);
    sleep(Duration::from_secs(3)).await;
    assert_eq!((store.stats().entries, store.sequence().records()), (0, (0, 0)));
    // What can still be served is kept, what cannot is not.
    fill_with(&service, 10).await;
    purge.soft().everything();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(store.stats().entries, 10, "within the default window for errors");
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_key_or_url_gives_back_at_once() {
    let (service, purge, store) = stack_of(&tag_per_path(), fixed(3_600_000));
    fill_with(&service, 2).await;
    purge.url("http://h/0").unwrap();
    assert_eq!(store.stats().entries, 1);
    purge.key(&key("http://h/1"));
    assert_eq!(store.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_takes_long_finds_the_purges_since_it_began() {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        if n == 1 {
            sleep(Duration::from_secs(25)).await;
        }
        response(&[("surrogate-key", request.uri().path().trim_matches('/'))], n.to_string())
    });
    let (service, purge, store) = stack_of(&origin, fixed(3_600_000));
    let slow = service.clone();
    let slow = tokio::spawn(async move { seen(&slow, "http://h/slow").await.1 });
    sleep(ms(100)).await;
    fill_with(&service, 10).await;
    purge.tag("slow");
    purge.tag("0");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(store.stats().entries, 9, "swept");
    assert_eq!(store.sequence().records(), (2, 0), "the slow one may have any tag");
    assert_eq!(slow.await.unwrap(), "1");
    assert_ne!(seen(&service, "http://h/slow").await.1, "1", "it was not stored");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(store.sequence().records(), (0, 0));
    let calls = origin.calls();
    seen(&service, "http://h/slow").await;
    fill_with(&service, 10).await;
    assert_eq!(origin.calls(), calls + 1, "nothing else was lost");
}

/// A full index forgets the oldest; what began before that and was not looked at since is lost.
#[test]
fn too_many_records_purge_more_and_never_less() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let store = MemoryStore::builder(64 << 20).max_tag_records(10).max_prefix_records(3).build().unwrap();
    let origin = tag_per_path();
    let layer = ReadThroughLayer::builder(store.clone()).rules(fixed(3_600_000)).build().unwrap();
    let (service, purge) = (layer.layer(origin.clone()), layer.purge());
    runtime().block_on(fill_with(&service, 50));
    // The runtime is gone, and the sweep with it.
    purge.tag("t7");
    for i in 1_000..1_009 {
        purge.tag(&format!("t{i}"));
    }
    assert_eq!(store.sequence().records(), (10, 0));
    runtime().block_on(async {
        call(&service, get("http://h/1")).await;
        assert_eq!(origin.calls(), 50, "nothing was forgotten so far");
        purge.tag("t2000");
        assert_eq!(store.sequence().records(), (10, 0));
        call(&service, get("http://h/1")).await;
        assert_eq!(origin.calls(), 50, "it was looked at meanwhile");
        call(&service, get("http://h/7")).await;
        assert_eq!(origin.calls(), 51, "the record of t7 is gone, but not what it says");
        // Each purge has looked at a part of what is stored since half of the records were taken.
        for page in 2..50 {
            call(&service, get(&format!("http://h/{page}"))).await;
        }
        assert!((52..99).contains(&origin.calls()), "some were not looked at: {}", origin.calls());
    });
    for i in 0..10 {
        purge.key_prefix([i]);
    }
    assert_eq!(store.sequence().records().1, 3);
    for _ in 0..100 {
        purge.tag("same");
        purge.key_prefix("same");
    }
    assert!(store.sequence().records().1 <= 3);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_purges_leaves_hits_right_and_memory_flat() {
    const TAGS: u64 = 500;
    let contents: Arc<Vec<AtomicU64>> = Arc::new((0..TAGS).map(|_| AtomicU64::new(0)).collect());
    let of_origin = Arc::clone(&contents);
    let origin = Origin::new(move |_, request: Request<Body>| {
        let page: u64 = request.uri().path().trim_matches('/').parse().unwrap();
        let content = of_origin[(page % TAGS) as usize].load(Ordering::SeqCst);
        async move {
            sleep(ms(page % 7)).await;
            response(&[("surrogate-key", &format!("t{}", page % TAGS))], content.to_string())
        }
    });
    let (service, purge, store) = stack_of(&origin, fixed(3_600_000));
    let mut random = 42_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut most_records, mut most_bytes, mut hits) = (0, 0, 0);
    for step in 0..60_000_u64 {
        // Most purges are of tags that nothing has, as in a storm.
        match next(20) {
            0 => {
                let tag = next(TAGS);
                contents[tag as usize].fetch_add(1, Ordering::SeqCst);
                purge.tag(&format!("t{tag}"));
            }
            _ => _ = purge.tag(&format!("nothing-{step}")),
        }
        let page = next(2_000);
        let at_least = contents[(page % TAGS) as usize].load(Ordering::SeqCst);
        let (how, body) = seen(&service, &format!("http://h/{page}")).await;
        assert!(body.parse::<u64>().unwrap() >= at_least, "{how}: {body} where {at_least} was there");
        hits += u64::from(how == "hit");
        sleep(ms(1)).await;
        if step > 10_000 {
            most_records = most_records.max(store.sequence().records().0);
            most_bytes = most_bytes.max(store.stats().bytes);
        }
    }
    assert!(most_records < 20_000, "{most_records}");
    assert!(most_bytes < 2_000 * 2_000, "{most_bytes}");
    assert!(hits > 10_000, "{hits} of 60,000");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(store.sequence().records(), (0, 0));
}

#[test]
fn records_have_to_have_room() {
    let builder = || MemoryStore::builder(1 << 20);
    for builder in [builder().max_tag_records(0), builder().max_prefix_records(0)] {
        assert!(matches!(builder.build(), Err(BuildError::ZeroLimit { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn two_stores_have_nothing_to_do_with_each_other() {
    let origin = tagged();
    let (one, purge, _) = stack_of(&origin, fixed(60_000));
    let (other, _, _) = stack_of(&origin, fixed(60_000));
    call(&one, get(URI)).await;
    call(&other, get(URI)).await;
    purge.everything();
    call(&other, get(URI)).await;
    assert_eq!(origin.calls(), 2);
    call(&one, get(URI)).await;
    assert_eq!(origin.calls(), 3);
}

fn _is_handy(purge: Purge) {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: T) {}
    check(purge);
}
