//! Fetches and bodies without a client end.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CacheStatus, CoalesceLayer, MemoryStore, OriginLimitLayer, ReadThrough, ReadThroughLayer,
};

use crate::support::{Body, ScriptedOrigin, fixed, get_request, hangs, ms, secs, settle, stack, store};

/// Counts the bodies that are there.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An origin with pages that come at once, and with streams that never end: a line in each interval.
fn endless(
    fields: &'static [(&'static str, &'static str)],
    every: Duration,
) -> (ScriptedOrigin, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let origin = ScriptedOrigin::with_future(move |_, request: Request<Body>| {
        let count = Arc::clone(&count);
        async move {
            if !request.uri().path().starts_with("/stream") {
                return crate::support::response(&[], "page");
            }
            let lines = futures_util::stream::unfold((Open::new(&count), 0), move |(open, n)| async move {
                if n > 0 {
                    sleep(every).await;
                }
                Some((Ok::<_, Infallible>(format!("{n}\n")), (open, n + 1)))
            });
            crate::support::response(fields, crate::streamed(lines))
        }
    });
    (origin, open)
}

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

fn limited(origin: &ScriptedOrigin) -> Service {
    let layer =
        ReadThroughLayer::builder(store()).rules(fixed(60_000)).origin_limit(OriginLimitLayer::new(2));
    layer.build().unwrap().layer(origin.clone())
}

/// Reads one line and leaves.
async fn visit(service: &Service, path: &str) {
    let response = service.clone().oneshot(get_request(path)).await.unwrap();
    assert!(response.into_body().frame().await.unwrap().is_ok());
}

const STREAMS: [&[(&str, &str)]; 9] = [
    &[("content-type", "application/x-ndjson")],
    &[("content-type", "application/ndjson; charset=utf-8")],
    &[("content-type", "application/jsonl")],
    &[("content-type", "application/x-json-stream")],
    &[("content-type", "application/stream+json")],
    &[("content-type", "application/json-seq")],
    &[("content-type", "application/geo+json-seq")],
    &[("content-type", "Text/Event-Stream")],
    &[("content-type", "multipart/x-mixed-replace; boundary=x")],
];

#[tokio::test(start_paused = true)]
async fn two_visits_to_streams_leave_the_origin_free() {
    for fields in STREAMS {
        let (origin, streams) = endless(fields, secs(5));
        let service = limited(&origin);
        for path in ["http://h/stream/1", "http://h/stream/2"] {
            visit(&service, path).await;
        }
        settle().await;
        assert_eq!(streams.load(Ordering::SeqCst), 0, "{fields:?}");
        assert_eq!(
            crate::support::call(&service, get_request("http://h/page")).await.1,
            "page",
            "{fields:?}"
        );
    }
}

/// A stream without the content type of one is recognised by its behaviour.
#[tokio::test(start_paused = true)]
async fn a_stalled_body_without_readers_counts_as_a_stream() {
    for fields in [&[][..], &[("content-type", "text/plain")]] {
        let (origin, streams) = endless(fields, secs(5));
        let service = limited(&origin);
        for path in ["http://h/stream/1", "http://h/stream/2"] {
            visit(&service, path).await;
        }
        sleep(ms(500)).await;
        // Within the time that a request waits for the origin.
        assert_eq!(crate::support::call(&service, get_request("http://h/page")).await.1, "page");
        assert_eq!(streams.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_callers_has_a_deadline_even_while_data_arrives() {
    let (origin, streams) = endless(&[], ms(200));
    let service = stack(fixed(600_000)).layer(origin.clone());
    visit(&service, "http://h/stream").await;
    sleep(secs(29)).await;
    assert_eq!(streams.load(Ordering::SeqCst), 1);
    // A caller that joins meanwhile gets the whole body, and the time counts from when it leaves.
    visit(&service, "http://h/stream").await;
    sleep(secs(29)).await;
    assert_eq!((streams.load(Ordering::SeqCst), origin.calls()), (1, 1));
    sleep(secs(2)).await;
    assert_eq!(streams.load(Ordering::SeqCst), 0);
    visit(&service, "http://h/stream").await;
    assert_eq!(origin.calls(), 2, "nothing is stored of it");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_can_be_set() {
    for (deadline, left) in [(secs(5), 0), (secs(20), 1), (Duration::ZERO, 0)] {
        let (origin, streams) = endless(&[], ms(200));
        let layer = ReadThroughLayer::builder(store()).rules(fixed(600_000));
        let layer = layer.coalesce(|layer| layer.abandoned_deadline(deadline)).build().unwrap();
        let service = layer.layer(origin.clone());
        visit(&service, "http://h/stream").await;
        settle().await;
        assert_eq!(streams.load(Ordering::SeqCst), usize::from(!deadline.is_zero()));
        sleep(secs(10)).await;
        assert_eq!(streams.load(Ordering::SeqCst), left, "{deadline:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_whose_head_no_caller_waits_for_has_a_deadline() {
    let origin = crate::support::ScriptedOrigin::always(hangs);
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let call = tokio::spawn(service.oneshot(crate::support::request("GET", "/", &[])));
    settle().await;
    call.abort();
    sleep(secs(29)).await;
    assert_eq!(origin.under_way(), 1);
    sleep(secs(2)).await;
    assert_eq!(origin.under_way(), 0);
}

/// The bound in bytes is the largest response that the store takes.
#[tokio::test(start_paused = true)]
async fn a_body_without_readers_ends_when_it_is_too_large_for_the_store() {
    const CHUNK: usize = 64 << 10;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = ScriptedOrigin::with_future(move |_, _| {
        let count = Arc::clone(&count);
        async move {
            let chunks = futures_util::stream::unfold((), move |()| {
                count.fetch_add(CHUNK, Ordering::SeqCst);
                async { Some((Ok::<_, Infallible>(vec![0; CHUNK]), ())) }
            });
            crate::support::response(&[], crate::streamed(chunks))
        }
    });
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let service = ReadThroughLayer::builder(store).rules(fixed(60_000)).build().unwrap().layer(origin);
    drop(service.oneshot(get_request("http://h/")).await.unwrap());
    sleep(secs(1)).await;
    let all = sent.load(Ordering::SeqCst);
    assert!(all <= 17 << 20, "{all}");
    sleep(secs(1)).await;
    assert_eq!(sent.load(Ordering::SeqCst), all);
}

/// A body of five chunks, one every three seconds.
fn slow_body(fields: &'static [(&'static str, &'static str)]) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |_, _| async move {
        let chunks = futures_util::stream::unfold(0, |n| async move {
            sleep(secs(3)).await;
            (n < 5).then(|| (Ok::<_, Infallible>("x"), n + 1))
        });
        crate::support::response(fields, crate::streamed(chunks))
    })
}

#[tokio::test(start_paused = true)]
async fn a_body_of_known_length_is_completed_and_stored_however_slow() {
    let origin = slow_body(&[("content-length", "5")]);
    let service = stack(fixed(60_000)).layer(origin.clone());
    drop(service.clone().oneshot(get_request("http://h/")).await.unwrap());
    sleep(secs(20)).await;
    assert_eq!(crate::support::call(&service, get_request("http://h/")).await.1, "xxxxx");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_with_a_reader_is_stored_however_slow() {
    let origin = slow_body(&[]);
    let service = stack(fixed(60_000)).layer(origin.clone());
    for _ in 0..2 {
        assert_eq!(crate::support::call(&service, get_request("http://h/")).await.1, "xxxxx");
    }
    assert_eq!(origin.calls(), 1);
}

/// The type alone says nothing where the length is known.
#[tokio::test(start_paused = true)]
async fn lines_of_json_with_a_known_length_are_stored() {
    let known: [&[(&str, &str)]; 2] = [
        &[("content-type", "application/x-ndjson")],
        &[("content-type", "application/x-ndjson"), ("content-length", "5")],
    ];
    for fields in known {
        let origin =
            ScriptedOrigin::with_future(move |_, _| async move { crate::support::response(fields, "hello") });
        let service = stack(fixed(60_000)).layer(origin.clone());
        for _ in 0..2 {
            assert_eq!(crate::support::call(&service, get_request("http://h/")).await.1, "hello");
        }
        let alone = CoalesceLayer::new().rules(fixed(60_000)).layer(origin.clone());
        let alone = tower_readthrough::KeyLayer::default().layer(alone);
        assert_eq!(crate::support::call(&alone, get_request("http://h/")).await.1, "hello");
        assert_eq!(origin.calls(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_why_it_is_passed_through() {
    let (origin, _) = endless(&[("content-type", "application/x-ndjson")], secs(5));
    let service = limited(&origin);
    let response: Response<_> = service.oneshot(get_request("http://h/stream")).await.unwrap();
    let status = CacheStatus::of(&response).unwrap().to_string();
    assert!(status.contains("stream") && !status.contains("stored"), "{status}");
}

/// A refresh in the background has no client.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_brings_no_end_ends() {
    let streams = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&streams);
    let origin = ScriptedOrigin::with_future(move |n, _| {
        let count = Arc::clone(&count);
        async move {
            if n == 1 {
                return crate::support::response(&[], "page");
            }
            let open = Open::new(&count);
            let chunks = futures_util::stream::unfold(open, |open| async move {
                sleep(ms(100)).await;
                Some((Ok::<_, Infallible>(vec![0_u8; 1 << 20]), open))
            });
            crate::support::response(&[], crate::streamed(chunks))
        }
    });
    let rules = fixed(1000).stale_while_revalidate_for(secs(600));
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let service = ReadThroughLayer::builder(store).rules(rules).build().unwrap().layer(origin.clone());
    crate::support::call(&service, get_request("http://h/")).await;
    sleep(secs(2)).await;
    assert_eq!(crate::support::call(&service, get_request("http://h/")).await.1, "page");
    settle().await;
    assert_eq!(streams.load(Ordering::SeqCst), 1);
    // Sooner than its deadline: it is too large for the store.
    let ended = async {
        while streams.load(Ordering::SeqCst) > 0 {
            sleep(ms(100)).await;
        }
    };
    timeout(secs(5), ended).await.unwrap();
}
