//! Attempts to break the promises of the crate: leaks from one client to another, failures that
//! multiply, wrong responses, work without bound.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt, future::join_all};
use http::{HeaderName, Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_readthrough::{
    CacheKey, CoalesceLayer, FillLayer, KeyLayer, LookupLayer, MemoryStore, ReadThrough, ReadThroughLayer,
    RetryPolicy, Rules, StoreLayer,
};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, collect, get, get_with, hangs, ms, ok, request, response, secs,
    send, settle, status,
};

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(64 << 20)
}

fn stack(rules: Rules, origin: &ScriptedOrigin) -> Service {
    let layer = ReadThroughLayer::builder(store()).rules(rules).retry(RetryPolicy::never()).build().unwrap();
    layer.layer(origin.clone())
}

async fn crowd(service: &Service, n: usize, method: &str, fields: &[(&str, &str)]) -> Vec<Reply> {
    join_all((0..n).map(|_| send(service, request(method, "/", fields)))).await
}

// Leaks.

#[tokio::test(start_paused = true)]
async fn other_callers_get_only_the_status_of_a_private_failure() {
    for personal in ["private=\"set-cookie, x-user\"", "private", "max-age=60"] {
        let origin = ScriptedOrigin::always(move || {
            let answer = status(503).chunk("for alice").header("cache-control", personal);
            answer.header("set-cookie", "sid=alice").header("x-user", "alice").after(ms(50))
        });
        let service = stack(Rules::new(), &origin);
        let replies = crowd(&service, 3, "GET", &[]).await;
        assert!(replies.iter().all(|reply| reply.status == 503));
        let leaked = |reply: &&Reply| reply.headers.contains_key("set-cookie") || !reply.body.is_empty();
        // After the failure of a second caller it is shared.
        assert_eq!((origin.calls(), replies.iter().filter(leaked).count()), (2, 2), "{personal}");
    }
}

#[tokio::test(start_paused = true)]
async fn fields_and_trailers_named_private_reach_only_the_client_that_fetched() {
    let origin = ScriptedOrigin::always(|| {
        let answer =
            ok("x").header("cache-control", "max-age=60, private=\"x-user\"").header("x-user", "alice");
        answer.trailer("x-user", "alice").after(ms(50))
    });
    let service = stack(Rules::new(), &origin);
    let replies = crowd(&service, 10, "GET", &[]).await;
    assert_eq!(replies.iter().filter(|reply| reply.headers.contains_key("x-user")).count(), 1);
    let hit = get(&service, "/").await;
    assert!(hit.is_hit());
    assert_eq!(hit.header("x-user"), None);
    assert!(hit.trailers.is_none_or(|fields| fields.is_empty()));
    assert!(replies.iter().all(|reply| reply.trailers.as_ref().is_none_or(|fields| fields.is_empty())));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn fields_named_private_are_delivered_with_a_revalidation_too() {
    let origin = ScriptedOrigin::new(|n, _| {
        let answer = if n == 1 { ok("x") } else { status(304) };
        let answer =
            answer.header("etag", "\"1\"").header("cache-control", "max-age=1, private=\"set-cookie\"");
        answer.header("set-cookie", format!("sid={n}"))
    });
    let service = stack(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.header("set-cookie"), Some("sid=1"));
    assert_eq!(get(&service, "/").await.header("set-cookie"), None);
    tokio::time::advance(secs(2)).await;
    assert_eq!(get(&service, "/").await.header("set-cookie"), Some("sid=2"));
    assert_eq!(get(&service, "/").await.header("set-cookie"), None);
}

/// A page made of two parts, each fetched with the extensions of the request for the page.
#[tokio::test(start_paused = true)]
async fn a_cache_below_another_one_uses_the_uri_of_its_own_request() {
    let origin = ScriptedOrigin::new(|_, head| ok(head.uri.path().to_owned()).max_age(60).after(ms(50)));
    let layers = ServiceBuilder::new().layer(KeyLayer::default()).layer(CoalesceLayer::new());
    let inner = layers.service(origin.clone());
    let page = service_fn(move |request: Request<Body>| {
        let (inner, page) = (inner.clone(), request.into_parts().0);
        async move {
            let part = |path: &'static str| {
                let mut head = page.clone();
                head.uri = format!("http://example.com{path}").parse().unwrap();
                inner.clone().oneshot(Request::from_parts(head, Body::empty()))
            };
            let (a, b) = tokio::join!(part("/a"), part("/b"));
            let (a, b) = (collect(a.unwrap()).await, collect(b.unwrap()).await);
            Ok::<_, Failure>(Response::new(Body::from([a.body, b.body].concat())))
        }
    });
    let service = StoreLayer::new(store()).layer(page);
    assert_eq!(get(&service, "/page").await.body, "/a/b");
}

/// A key on such a request must not let the layers below share its response.
#[tokio::test(start_paused = true)]
async fn a_key_on_a_request_that_may_have_none_is_removed() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).after(ms(50)));
    let layers = ServiceBuilder::new().layer(LookupLayer::new(store())).layer(CoalesceLayer::new());
    let service = layers.service(origin.clone());
    let with_body = || {
        let mut request = request("GET", "/", &[]).map(|_| Body::from("content"));
        request.extensions_mut().insert(CacheKey::new("k"));
        request
    };
    tokio::join!(send(&service, with_body()), send(&service, with_body()));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn targeted_fields_are_stripped_only_if_asked_for() {
    for strip in [false, true] {
        let origin =
            ScriptedOrigin::always(|| ok("x").header("our-control", "max-age=60").header("etag", "\"1\""));
        let fill =
            FillLayer::new(store()).targets([HeaderName::from_static("our-control")]).strip_targets(strip);
        let service = KeyLayer::default().layer(fill.layer(origin.clone()));
        for _ in 0..2 {
            assert_eq!(get(&service, "/").await.headers.contains_key("our-control"), !strip);
        }
        assert_eq!(origin.calls(), 1, "it gives the lifetime");
    }
}

// Multiplication.

#[tokio::test(start_paused = true)]
async fn head_requests_with_credentials_share_public_responses() {
    for (said, field) in [("max-age=60", "cookie"), ("public, max-age=60", "authorization")] {
        let origin = ScriptedOrigin::always(move || ok("").header("cache-control", said).after(ms(50)));
        let service = stack(Rules::new(), &origin);
        crowd(&service, 1000, "HEAD", &[(field, "x")]).await;
        assert_eq!(origin.calls(), 1, "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_if_range_without_a_range_changes_nothing() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).after(ms(50)));
    let service = stack(Rules::new(), &origin);
    crowd(&service, 1000, "GET", &[("if-range", "\"1\"")]).await;
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_returns_429_is_not_called_more_often() {
    let origin = ScriptedOrigin::new(|n, _| match n {
        1 => ok("x").max_age(1),
        _ => status(429).header("retry-after", "5").after(ms(50)),
    });
    let service = stack(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    let replies = crowd(&service, 1000, "GET", &[]).await;
    let is_told = |reply: &Reply| reply.status == 429 && reply.header("retry-after") == Some("5");
    let is_stale = |reply: &Reply| reply.status == 200 && reply.body == "x";
    assert!(replies.iter().all(|reply| is_told(reply) || is_stale(reply)));
    assert_eq!(replies.iter().filter(|reply| is_told(reply)).count(), 1, "the first one learns it for all");
    let calls = origin.calls();
    assert_eq!(calls, 2);
    // For as long as it asked for.
    let replies = crowd(&service, 1000, "GET", &[]).await;
    assert!(replies.iter().all(is_stale));
    assert_eq!(origin.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn one_bad_request_neither_removes_what_is_stored_nor_switches_coalescing_off() {
    let origin = ScriptedOrigin::new(|_, head| match head.headers.contains_key("x-poison") {
        true => status(431).after(ms(50)),
        false => ok("x").header("cache-control", "max-age=1, stale-while-revalidate=600").after(ms(50)),
    });
    let service = stack(Rules::new(), &origin);
    // As the first of a cold crowd.
    let poison = get_with(&service, "/", &[("x-poison", "1")]);
    let (_, replies) = tokio::join!(poison, crowd(&service, 1000, "GET", &[]));
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(origin.calls(), 2);
    // As a refresh.
    tokio::time::advance(secs(2)).await;
    assert_eq!(get_with(&service, "/", &[("x-poison", "1")]).await.status, 200, "stale");
    tokio::time::sleep(secs(2)).await;
    let before = origin.calls();
    crowd(&service, 1000, "GET", &[]).await;
    settle().await;
    assert_eq!(origin.calls() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_501_does_not_remove_the_response_that_covers_failures() {
    let origin = ScriptedOrigin::new(|n, _| match n {
        1 => ok("x").max_age(1),
        2 => status(522),
        _ => status(503),
    });
    let service = stack(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    assert_eq!(get(&service, "/").await.status, 522);
    assert_eq!(get(&service, "/").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_410_removes_the_stored_response() {
    for code in [404, 410] {
        let origin = ScriptedOrigin::new(move |n, _| match n {
            1 => ok("x").max_age(1),
            2 => status(code),
            _ => status(503),
        });
        let service = stack(Rules::new(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(2)).await;
        assert_eq!(get(&service, "/").await.status, code);
        assert_eq!(get(&service, "/").await.status, 503, "no stale answer of what is not there any more");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_during_a_refresh_share_it() {
    let origin = ScriptedOrigin::new(|n, _| {
        let answer = ok("x").header("cache-control", "max-age=1, stale-while-revalidate=1");
        answer.after(if n == 1 { ms(0) } else { ms(500) })
    });
    let service = stack(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(ms(1900)).await;
    get(&service, "/").await;
    tokio::time::advance(ms(200)).await;
    crowd(&service, 1000, "GET", &[]).await;
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn logging_in_does_not_invalidate_the_page_that_comes_next() {
    let origin = ScriptedOrigin::unrecorded(|_, head| match head.method.as_str() {
        "POST" => status(303).header("location", "/"),
        _ => ok("home").max_age(3600).after(ms(200)),
    });
    let service = stack(Rules::new(), &origin);
    get(&service, "/").await;
    for _ in 0..100 {
        send(&service, request("POST", "/login", &[])).await;
        assert!(get(&service, "/").await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn unsafe_requests_elsewhere_leave_what_is_stored() {
    let origin = ScriptedOrigin::unrecorded(|_, head| match head.method.as_str() {
        "POST" => ok(""),
        _ => ok("x").max_age(3600),
    });
    let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 30)).build().unwrap();
    let service = layer.layer(origin.clone());
    for page in 0..100 {
        get(&service, &format!("/page/{page}")).await;
    }
    for n in 0..10_000 {
        send(&service, request("POST", &format!("/search?q={n}"), &[])).await;
    }
    let mut hits = 0;
    for page in 0..100 {
        hits += usize::from(get(&service, &format!("/page/{page}")).await.is_hit());
    }
    // 2^18 floors: on average four of the hundred.
    assert!(hits > 80, "{hits} of 100 left");
}

// Wrong responses.

#[tokio::test(start_paused = true)]
async fn an_entry_of_a_rewritten_uri_is_invalidated_by_the_original_uri() {
    let origin =
        ScriptedOrigin::new(
            |n, head| if head.method == "PUT" { ok("") } else { ok(n.to_string()).max_age(3600) },
        );
    let store = store();
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .map_request(|mut request: Request<Body>| {
            *request.uri_mut() = format!("http://example.com/v1{}", request.uri().path()).parse().unwrap();
            request
        })
        .layer(FillLayer::new(store))
        .service(origin.clone());
    assert_eq!(get(&service, "/x").await.body, "1");
    assert_eq!(get(&service, "/x").await.body, "1");
    send(&service, request("PUT", "/x", &[])).await;
    assert_eq!(get(&service, "/x").await.body, "3");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_lifetime_counts_from_the_request_whatever_the_age() {
    let origin =
        ScriptedOrigin::always(|| ok("x").header("cache-control", "max-age=86400").header("age", "3600"));
    let service = stack(Rules::new().fixed_ttl(secs(60)), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(59)).await;
    assert_eq!(get(&service, "/").await.age(), Some(3659));
    tokio::time::advance(secs(1)).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_begins_to_send_entity_tags_confirms_by_the_date() {
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = ScriptedOrigin::new(move |_, head| {
        let answer = match head.headers.contains_key("if-modified-since") {
            true => status(304).header("etag", "\"1\""),
            false => ok("x"),
        };
        answer.header("cache-control", "s-maxage=1").header("last-modified", modified)
    });
    let service = stack(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    assert_eq!(get(&service, "/").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn two_large_variants_live_side_by_side() {
    let origin = ScriptedOrigin::unrecorded(|_, _| {
        ok(vec![b'x'; 40_000]).max_age(3600).header("vary", "accept-language")
    });
    let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build().unwrap();
    let service = layer.layer(origin.clone());
    for _ in 0..10 {
        for language in ["de", "en"] {
            get_with(&service, "/", &[("accept-language", language)]).await;
        }
    }
    assert_eq!(origin.calls(), 2);
}

// Bodies and bounds.

#[tokio::test(start_paused = true)]
async fn a_body_in_small_chunks_is_stored_after_every_caller_left() {
    let origin = ScriptedOrigin::always(|| {
        (0..1000).fold(ok("").max_age(60).after(ms(10)), |answer, _| answer.chunk("0123456789"))
    });
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ReadThroughLayer::builder(store.clone()).build().unwrap().layer(origin.clone());
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    tokio::time::sleep(ms(5)).await;
    first.abort();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(store.stats().entries, 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_declared_too_large_to_hold_is_not_shared() {
    const LENGTH: usize = 100_000;
    let origin = ScriptedOrigin::always(|| {
        let answer = ok("").max_age(60).after(ms(10)).declares(LENGTH as u64);
        (0..LENGTH / 1000).fold(answer, |answer, _| answer.chunk(vec![b'x'; 1000]))
    });
    let layers =
        ServiceBuilder::new().layer(KeyLayer::default()).layer(CoalesceLayer::new().max_held_bytes(20_000));
    let service = layers.service(origin.clone());
    let ask = || service.clone().oneshot(request("GET", "/", &[]));
    let (fast, slow) = tokio::join!(ask(), ask());
    let fast = tokio::spawn(collect(fast.unwrap()));
    tokio::time::sleep(ms(20)).await;
    for reply in [collect(slow.unwrap()).await, fast.await.unwrap()] {
        assert_eq!((reply.is_cut, reply.body.len()), (false, LENGTH));
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn fetches_under_way_are_bounded_even_without_waiting_callers() {
    let origin = ScriptedOrigin::unrecorded(|_, _| hangs());
    let layer = ReadThroughLayer::builder(store()).coalesce(|layer| layer.max_flights(100)).build().unwrap();
    let service = layer.layer(origin.clone());
    for n in 0..1000 {
        let call = tokio::spawn(service.clone().oneshot(request("GET", &format!("/{n}"), &[])));
        settle().await;
        call.abort();
    }
    settle().await;
    assert_eq!(origin.under_way(), 100);
    // The places are free again when the fetches are abandoned.
    tokio::time::sleep(secs(61)).await;
    assert_eq!(origin.under_way(), 0);
}

/// An endless supply of 64 KiB chunks, counted.
fn large(chunks: usize, sent: &Arc<AtomicUsize>) -> ScriptedOrigin {
    let sent = Arc::clone(sent);
    ScriptedOrigin::with_future(move |_, _| {
        let sent = Arc::clone(&sent);
        async move {
            tokio::time::sleep(ms(5)).await;
            let chunks = futures_util::stream::iter(0..chunks).map(move |_| {
                sent.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(vec![b'x'; 64 << 10])
            });
            let fields = [("cache-control", "max-age=60"), ("etag", "\"1\"")];
            response(&fields, crate::streamed(chunks))
        }
    })
}

fn asks(fields: &[(&str, &str)]) -> Request<Body> {
    request("GET", "/", fields).map(|_| crate::support::Body::empty())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gets_304_neither_paces_another_reader_nor_reads_the_body() {
    let sent = Arc::new(AtomicUsize::new(0));
    let service = crate::support::stack(Rules::new()).layer(large(400, &sent));
    let (slow, has) = tokio::join!(
        service.clone().oneshot(asks(&[])),
        service.clone().oneshot(asks(&[("if-none-match", "\"1\"")]))
    );
    assert_eq!(has.unwrap().status(), 304);
    let (mut slow, mut read) = (slow.unwrap().into_body(), 0);
    while let Some(frame) = slow.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(ms(1)).await;
    }
    assert_eq!(read, 400 * (64 << 10));

    let sent = Arc::new(AtomicUsize::new(0));
    for layered in [true, false] {
        sent.store(0, Ordering::SeqCst);
        let answer = match layered {
            true => {
                let stack = ReadThroughLayer::builder(store()).build().unwrap();
                let service = stack.layer(large(16_000, &sent));
                service.oneshot(asks(&[("if-none-match", "\"1\"")])).await.unwrap().status()
            }
            false => {
                let service = StoreLayer::new(store()).layer(large(16_000, &sent));
                service.oneshot(asks(&[("if-none-match", "\"1\"")])).await.unwrap().status()
            }
        };
        assert_eq!(answer, 304);
        tokio::time::sleep(secs(60)).await;
        assert!(sent.load(Ordering::SeqCst) < 100, "{} chunks", sent.load(Ordering::SeqCst));
    }
}

/// A failure that may not replace the stored response is shared, without its private fields.
#[tokio::test(start_paused = true)]
async fn a_failure_that_is_not_stored_keeps_private_fields_from_other_callers() {
    let origin = ScriptedOrigin::new(|n, _| match n {
        1 => ok("x").max_age(1),
        _ => {
            let failure = status(503).header("cache-control", "max-age=60, private=\"x-user\"");
            failure.header("x-user", "alice").after(ms(50))
        }
    });
    let store = store();
    let layers = ServiceBuilder::new().layer(LookupLayer::new(store.clone())).layer(CoalesceLayer::new());
    let service = layers.layer(FillLayer::new(store)).service(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    let replies = join_all((0..10).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.status == 503));
    assert_eq!(replies.iter().filter(|reply| reply.headers.contains_key("x-user")).count(), 2);
    // After the failure of a second caller it is shared.
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_executor_is_not_part_of_the_age() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(1));
    let late = |task| {
        tokio::spawn(async move {
            tokio::time::sleep(secs(2)).await;
            tokio::spawn(task);
        });
    };
    let service = ReadThroughLayer::builder(store()).executor(late).build().unwrap().layer(origin.clone());
    for _ in 0..2 {
        assert_eq!(get(&service, "/").await.body, "x");
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shared_fetch_is_named_once_in_cache_status_or_not_at_all() {
    for (shows, members) in [(true, 2), (false, 1)] {
        let origin =
            ScriptedOrigin::always(|| ok("x").max_age(60).header("cache-status", "Origin;hit").after(ms(10)));
        let layer =
            ReadThroughLayer::builder(store()).lookup(|lookup| lookup.cache_status(shows)).build().unwrap();
        let service = layer.layer(origin.clone());
        let replies = join_all((0..3).map(|_| get(&service, "/"))).await;
        for reply in &replies {
            assert_eq!(reply.headers.get_all("cache-status").iter().count(), members, "{:?}", reply.headers);
        }
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn without_our_member_the_cache_status_of_other_caches_is_unchanged() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).header("cache-status", "Origin;hit"));
    let layer =
        ReadThroughLayer::builder(store()).lookup(|lookup| lookup.cache_status(false)).build().unwrap();
    let service = layer.layer(origin.clone());
    for fields in [&[("range", "bytes=0-0,1-1")][..], &[], &[], &[("range", "bytes=0-0")]] {
        let reply = get_with(&service, "/", fields).await;
        let members: Vec<_> = reply.headers.get_all("cache-status").iter().collect();
        assert_eq!(members, ["Origin;hit"], "{fields:?}");
    }
    assert_eq!(origin.calls(), 2);
}
