//! The limits of coalescing, and what a flight does with its body.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::open::{Origin, bytes, call, fixed, get, ms, response, store};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all};
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_readthrough::{
    Attempts, BodyError, CacheStatus, Coalesce, CoalesceLayer, FillLayer, Key, KeyLayer, LookupLayer,
    MemoryStore, ReadThroughLayer, Refused, Rules, StoreLayer,
};

const URI: &str = "http://h/";

/// Coalescing alone, without a store.
fn coalesced(layer: &CoalesceLayer, origin: &Origin) -> Key<Coalesce<Origin>> {
    KeyLayer::default().layer(layer.clone().rules(fixed(60_000)).layer(origin.clone()))
}

fn slow(delay: u64) -> Origin {
    Origin::new(move |_, _| async move {
        sleep(ms(delay)).await;
        response(&[], "hello")
    })
}

type Fed = Result<&'static [u8], &'static str>;

/// An origin whose body the test feeds chunk by chunk.
fn fed() -> (Origin, mpsc::UnboundedSender<Fed>) {
    let (feed, chunks) = mpsc::unbounded_channel::<Fed>();
    let chunks = Arc::new(Mutex::new(Some(chunks)));
    let origin = Origin::new(move |_, _| {
        let chunks = chunks.lock().unwrap().take();
        async move {
            let mut chunks = chunks.unwrap();
            let stream = futures_util::stream::poll_fn(move |cx| chunks.poll_recv(cx));
            let frames = stream.map(|chunk| chunk.map(|data| Frame::data(Bytes::from_static(data))));
            response(
                &[("etag", "\"a\"")],
                Body::new(StreamBody::new(frames.map(|frame| frame.map_err(std::io::Error::other)))),
            )
        }
    });
    (origin, feed)
}

fn refusal<B>(response: &Response<B>) -> Option<Refused> {
    response.extensions().get().copied()
}

#[tokio::test(start_paused = true)]
async fn one_waiter_too_many_gets_503_at_once() {
    let origin = slow(50);
    let service = coalesced(&CoalesceLayer::new().max_waiters(2), &origin);
    let started = Instant::now();
    let answers = join_all((0..4).map(|_| service.clone().oneshot(get(URI)))).await;
    assert_eq!(started.elapsed(), ms(50));
    let statuses: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 200, 503]);
    let refused = answers[3].as_ref().unwrap();
    assert_eq!(refusal(refused), Some(Refused::TooManyWaiters));
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_who_leaves_gives_up_his_place() {
    let origin = slow(1_000_000);
    let service = coalesced(&CoalesceLayer::new().max_waiters(1).max_flight_age(Duration::MAX), &origin);
    let first = tokio::spawn(service.clone().oneshot(get(URI)));
    sleep(ms(1)).await;
    for _ in 0..1000 {
        let waiting = tokio::time::timeout(ms(1), service.clone().oneshot(get(URI)));
        assert!(waiting.await.is_err(), "waits, and is not refused");
    }
    first.abort();
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_waits_long_asks_beside_the_fetch_and_gets_what_is_there_first() {
    let origin = slow(100);
    let service = coalesced(&CoalesceLayer::new().max_wait(ms(30)), &origin);
    let first = tokio::spawn(service.clone().oneshot(get(URI)));
    sleep(ms(10)).await;
    let started = Instant::now();
    assert_eq!(call(&service, get(URI)).await.0, StatusCode::OK);
    assert_eq!((started.elapsed(), origin.calls()), (ms(90), 2));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_a_response_has_one_successor_and_the_next_starts_afresh() {
    let origin = Origin::new(|n, _| async move {
        if n == 1 {
            std::future::pending::<()>().await;
        }
        response(&[], "hello")
    });
    let layer = CoalesceLayer::new().max_flight_age(ms(100)).max_wait(Duration::from_secs(10));
    let service = coalesced(&layer, &origin);
    let first = tokio::spawn(service.clone().oneshot(get(URI)));
    tokio::task::yield_now().await;
    let answers = join_all((0..100).map(|_| call(&service, get(URI)))).await;
    assert!(answers.iter().all(|answer| answer.1 == "hello"));
    assert_eq!(origin.calls(), 2);
    assert_eq!(call(&service, get(URI)).await.0, StatusCode::OK);
    assert!(!first.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_dropped_has_one_successor_and_one_that_never_runs_holds_nobody_for_ever() {
    let origin = slow(10);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let layer = CoalesceLayer::new().executor(move |task| {
        counter.fetch_add(1, Ordering::SeqCst);
        drop(task);
    });
    let service = coalesced(&layer, &origin);
    let answers = join_all((0..100).map(|_| service.clone().oneshot(get(URI)))).await;
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status(), refusal(&answer)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(Refused::FetchAborted))
        );
    }
    assert_eq!(origin.calls(), 0);

    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeper = Arc::clone(&kept);
    let layer = CoalesceLayer::new().max_flight_age(ms(50)).max_wait(ms(20)).executor(move |task| {
        let mut kept = keeper.lock().unwrap();
        kept.push(task);
        if kept.len() > 1 {
            tokio::spawn(kept.pop().unwrap());
        }
    });
    let service = coalesced(&layer, &origin);
    let stuck = tokio::spawn(service.clone().oneshot(get(URI)));
    sleep(ms(10)).await;
    assert_eq!(call(&service, get(URI)).await.0, StatusCode::OK, "one that asks beside it");
    sleep(ms(50)).await;
    assert_eq!(call(&service, get(URI)).await.0, StatusCode::OK, "an overdue fetch keeps nobody");
    stuck.abort();
}

/// Slots go away by identity: a fetch that ends late must not take a newer one's place away.
#[tokio::test(start_paused = true)]
async fn a_late_fetch_leaves_the_slot_of_its_successor_alone() {
    let origin = slow(100);
    let kept = Arc::new(Mutex::new(None));
    let keeper = Arc::clone(&kept);
    let layer = CoalesceLayer::new().max_flight_age(ms(200)).executor(move |task| {
        let mut kept = keeper.lock().unwrap();
        match *kept {
            None => *kept = Some(task),
            Some(_) => drop(tokio::spawn(task)),
        }
    });
    let service = coalesced(&layer, &origin);
    let overdue = tokio::spawn(service.clone().oneshot(get(URI)));
    sleep(ms(201)).await;
    let second = tokio::spawn(service.clone().oneshot(get(URI)));
    sleep(ms(1)).await;
    drop(kept.lock().unwrap().take());
    assert_eq!(overdue.await.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(call(&service, get(URI)).await.1, "hello");
    assert_eq!(bytes(second.await.unwrap().unwrap()).await, "hello");
    assert_eq!(origin.calls(), 1, "the third caller joined the second");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_may_end_with_its_last_caller() {
    struct Ended(Arc<AtomicUsize>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicUsize::new(0));
    for (deadline, expected) in [(Duration::from_secs(5), 0), (Duration::ZERO, 1)] {
        ended.store(0, Ordering::SeqCst);
        let counter = Arc::clone(&ended);
        let origin = Origin::new(move |_, _| {
            let ended = Ended(Arc::clone(&counter));
            async move {
                sleep(Duration::from_secs(5)).await;
                drop(ended);
                response(&[], "hello")
            }
        });
        let service = coalesced(&CoalesceLayer::new().abandoned_deadline(deadline), &origin);
        let first = tokio::spawn(service.clone().oneshot(get(URI)));
        let second = tokio::spawn(service.clone().oneshot(get(URI)));
        sleep(ms(10)).await;
        first.abort();
        sleep(ms(10)).await;
        assert_eq!(ended.load(Ordering::SeqCst), 0, "somebody still waits");
        second.abort();
        sleep(ms(10)).await;
        assert_eq!(ended.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_breaks_off_for_all() {
    let (origin, feed) = fed();
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let readers = join_all((0..10).map(|_| service.clone().oneshot(get(URI)))).await;
    feed.send(Ok(b"half")).unwrap();
    feed.send(Err("reset")).unwrap();
    for reader in readers {
        let mut body = reader.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(&error, BodyError::Origin(source) if source.to_string() == "reset"), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn above_a_cache_it_goes_by_what_that_says_of_answers() {
    let origin = slow(10);
    // Only the rules of the cache let this be shared.
    let cache = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin.clone());
    let service = KeyLayer::default().layer(CoalesceLayer::new().layer(cache));
    let answers = join_all((0..10).map(|_| service.clone().oneshot(get(URI)))).await;
    assert_eq!((origin.calls(), answers.len()), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_slow_body_late_gets_all_of_it_and_its_age() {
    let (origin, feed) = fed();
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let first = service.clone().oneshot(get(URI)).await.unwrap();
    feed.send(Ok(b"a")).unwrap();
    sleep(Duration::from_secs(3)).await;
    let late = service.clone().oneshot(get(URI)).await.unwrap();
    assert!(!first.headers().contains_key("age"));
    assert_eq!(late.headers()["age"], "3");
    assert!(CacheStatus::of(&late).unwrap().is_collapsed());
    feed.send(Ok(b"b")).unwrap();
    drop(feed);
    assert_eq!((bytes(first).await, bytes(late).await), ("ab".into(), "ab".into()));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_body_that_is_no_longer_fresh() {
    let origin = Origin::new(|n, _| async move {
        let rest = futures_util::stream::once(async {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"!")))
        });
        let first = Ok(Frame::data(Bytes::from(n.to_string())));
        response(&[], Body::new(StreamBody::new(futures_util::stream::iter([first]).chain(rest))))
    });
    let layer = CoalesceLayer::new().rules(fixed(100));
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let first = service.clone().oneshot(get(URI)).await.unwrap();
    sleep(ms(99)).await;
    let second = service.clone().oneshot(get(URI)).await.unwrap();
    sleep(ms(1)).await;
    let third = service.clone().oneshot(get(URI)).await.unwrap();
    assert_eq!(
        (bytes(first).await, bytes(second).await, bytes(third).await),
        ("1!".into(), "1!".into(), "2!".into())
    );
}

/// A body larger than may be held: paced by the fastest reader, in a bounded window.
#[tokio::test(start_paused = true)]
async fn a_body_too_large_to_hold_goes_at_the_pace_of_its_fastest_reader() {
    const CHUNK: usize = 1000;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let origin = Origin::new(move |n, _| {
        let sent = Arc::clone(&counter);
        async move {
            let chunks = futures_util::stream::iter(0..1000).map(move |_| {
                if n == 1 {
                    sent.fetch_add(CHUNK, Ordering::SeqCst);
                }
                Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; CHUNK])))
            });
            response(&[], Body::new(StreamBody::new(chunks)))
        }
    });
    let service = coalesced(&CoalesceLayer::new().max_held_bytes(20 * CHUNK), &origin);
    // Together, since the flight closes as soon as the body turns out too large.
    let (fast, slow) = tokio::join!(service.clone().oneshot(get(URI)), service.clone().oneshot(get(URI)));
    let (mut fast, mut slow) = (fast.unwrap().into_body(), slow.unwrap().into_body());
    sleep(ms(1)).await;
    let ahead = sent.load(Ordering::SeqCst);
    assert!(ahead <= 21 * CHUNK, "nobody has read yet: {ahead}");

    let mut read = 0;
    while let Some(frame) = fast.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        let ahead = sent.load(Ordering::SeqCst) - read;
        assert!(ahead <= 21 * CHUNK, "{ahead}");
    }
    assert_eq!(read, 1000 * CHUNK);
    assert!(matches!(slow.frame().await.unwrap().unwrap_err(), BodyError::Lagged));

    // A newcomer did not join the closed flight but started one of his own.
    assert_eq!(call(&service, get(URI)).await.1.len(), 1000 * CHUNK);
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_too_large_to_hold_survives_its_fastest_reader_and_ends_with_the_last() {
    let held = Arc::new(());
    let witness = Arc::clone(&held);
    let origin = Origin::new(move |_, _| {
        let witness = Arc::clone(&witness);
        async move {
            let chunks = futures_util::stream::repeat(()).map(move |()| {
                let _ = &witness;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1000])))
            });
            response(&[], Body::new(StreamBody::new(chunks)))
        }
    });
    let before = Arc::strong_count(&held);
    let service = coalesced(&CoalesceLayer::new().max_held_bytes(10_000), &origin);
    // Together, since the flight closes as soon as the body turns out too large.
    let (fast, slow) = tokio::join!(service.clone().oneshot(get(URI)), service.clone().oneshot(get(URI)));
    let (mut fast, mut slow) = (fast.unwrap().into_body(), slow.unwrap().into_body());
    for _ in 0..5 {
        fast.frame().await.unwrap().unwrap();
    }
    drop(fast);
    for _ in 0..100 {
        slow.frame().await.unwrap().unwrap();
    }
    drop(slow);
    sleep(ms(1)).await;
    assert_eq!(Arc::strong_count(&held), before, "the fetch has ended");
}

/// A client that does not read must not stall the others.
#[tokio::test(start_paused = true)]
async fn a_reader_who_does_not_read_stalls_nobody() {
    let (origin, feed) = fed();
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let idle = service.clone().oneshot(get(URI)).await.unwrap();
    let reader = service.clone().oneshot(get(URI)).await.unwrap();
    for _ in 0..100 {
        feed.send(Ok(b"x")).unwrap();
    }
    drop(feed);
    assert_eq!(bytes(reader).await.len(), 100);
    assert_eq!(bytes(idle).await.len(), 100, "it is all still there");
}

#[tokio::test(start_paused = true)]
async fn trailers_and_sizes_reach_every_reader() {
    let origin = Origin::new(|_, _| async {
        sleep(ms(10)).await;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "5".parse().unwrap());
        let frames =
            [Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"hello"))), Ok(Frame::trailers(trailers))];
        let body: UnsyncBoxBody<_, _> = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        response(&[], Body::new(body))
    });
    let service = coalesced(&CoalesceLayer::new(), &origin);
    for answer in join_all((0..3).map(|_| service.clone().oneshot(get(URI)))).await {
        let collected = answer.unwrap().into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "5");
        assert_eq!(collected.to_bytes(), "hello");
    }
    let origin = slow(10);
    let service = coalesced(&CoalesceLayer::new(), &origin);
    for answer in join_all((0..3).map(|_| service.clone().oneshot(get(URI)))).await {
        assert_eq!(answer.unwrap().body().size_hint().exact(), Some(5));
    }
}

/// What one client's answer carries in its extensions is not for the others.
#[tokio::test(start_paused = true)]
async fn extensions_reach_the_first_caller_alone() {
    #[derive(Clone)]
    struct Session;
    let origin = Origin::new(|_, _| async {
        sleep(ms(10)).await;
        let mut answer = response(&[("connection", "x-hop"), ("x-hop", "1")], "hello");
        answer.extensions_mut().insert(Session);
        answer
    });
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let answers = join_all((0..3).map(|_| service.clone().oneshot(get(URI)))).await;
    let carries = |answer: &Response<_>| answer.extensions().get::<Session>().is_some();
    assert_eq!(answers.iter().filter(|answer| carries(answer.as_ref().unwrap())).count(), 1);
    assert!(answers.iter().all(|answer| !answer.as_ref().unwrap().headers().contains_key("x-hop")));
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().extensions().get::<Attempts>().is_none()));
}

#[tokio::test(start_paused = true)]
async fn head_and_get_and_conditional_requests_do_not_share() {
    let origin = slow(10);
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let mut head = get(URI);
    *head.method_mut() = http::Method::HEAD;
    let mut conditional = get(URI);
    conditional.headers_mut().insert("if-none-match", "\"1\"".parse().unwrap());
    let mut range = get(URI);
    range.headers_mut().insert("range", "bytes=0-1".parse().unwrap());
    let (plain, ..) = tokio::join!(
        call(&service, get(URI)),
        call(&service, head),
        call(&service, conditional),
        call(&service, range)
    );
    assert_eq!(plain.1, "hello");
    assert_eq!(origin.calls(), 4);
}

/// A request without a key is passed on as it is, whatever the layer is busy with.
#[tokio::test(start_paused = true)]
async fn without_a_key_the_layer_is_transparent() {
    let origin = slow(10);
    let service = CoalesceLayer::new().rules(fixed(1000)).layer(origin.clone());
    let started = Instant::now();
    let keyless = || get("/");
    let answers = join_all((0..10).map(|_| service.clone().oneshot(keyless()))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((origin.calls(), started.elapsed()), (10, ms(10)));
}

#[test]
fn outside_a_runtime_requests_go_through_one_by_one() {
    let origin = Origin::new(|_, _| async { response(&[], "hello") });
    let stack = crate::support::open::stack(fixed(60_000)).layer(origin.clone());
    let alone = coalesced(&CoalesceLayer::new(), &origin);
    let answer = futures_util::FutureExt::now_or_never(async {
        for _ in 0..2 {
            assert_eq!(call(&stack, get(URI)).await.1, "hello");
        }
        call(&alone, get(URI)).await.1
    });
    assert_eq!(answer.unwrap(), "hello");
    assert_eq!(origin.calls(), 2, "the stack has stored its answer");
}

#[test]
fn a_runtime_may_shut_down_while_fetches_are_under_way() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let origin = Origin::new(|_, _| std::future::pending());
    let service = coalesced(&CoalesceLayer::new(), &origin);
    for n in 0..100 {
        let service = service.clone();
        runtime.spawn(async move { service.oneshot(get(&format!("http://h/{n}"))).await });
    }
    runtime.block_on(async {
        while origin.calls() < 100 {
            tokio::task::yield_now().await;
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    // The next runtime finds every slot free.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let waiting = service.clone().oneshot(get("http://h/1"));
        tokio::spawn(waiting);
        while origin.calls() < 101 {
            tokio::task::yield_now().await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn services_made_from_one_layer_share_fetches() {
    let origin = slow(10);
    let layer = CoalesceLayer::new();
    let (one, other) = (coalesced(&layer, &origin), coalesced(&layer, &origin));
    let (a, b) = tokio::join!(call(&one, get(URI)), call(&other, get(URI)));
    assert_eq!((a.1, b.1), ("hello".into(), "hello".into()));
    // `rules` and the like make another setting, not another table of fetches.
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_another_method_is_never_coalesced_even_with_a_key() {
    let origin = slow(10);
    let service = CoalesceLayer::new().rules(fixed(1000)).layer(origin.clone());
    let post = || {
        let mut request = Request::post(URI).body(Body::empty()).unwrap();
        request.extensions_mut().insert(tower_readthrough::CacheKey::new("k"));
        request
    };
    _ = tokio::join!(service.clone().oneshot(post()), service.clone().oneshot(post()));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_body_that_lets_others_run_between_its_chunks_still_does() {
    let origin = Origin::new(|_, _| async {
        let chunks = futures_util::stream::unfold(0, |n| async move {
            if n == 100 {
                return None;
            }
            tokio::task::yield_now().await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        Response::new(Body::new(StreamBody::new(chunks)))
    });
    let service = crate::support::open::stack(fixed(60_000)).layer(origin);
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    assert_eq!(call(&service, get("http://h/")).await.1.len(), 100);
    other.abort();
    let turns = turns.load(Ordering::SeqCst);
    assert!(turns > 50, "only {turns} turns for others in 100 chunks");
}

/// An origin whose German answer is for one alone, so that nobody shares a refresh of the English one,
/// which is due after a second.
fn half_shared(begun: impl Fn() + Send + Sync + 'static) -> Origin {
    Origin::new(move |_, request: Request<Body>| {
        begun();
        let german = request.headers()["accept-language"] == "de";
        async move {
            let rules = if german { "no-store" } else { "max-age=1, stale-while-revalidate=100" };
            response(&[("vary", "accept-language"), ("cache-control", rules)], "hello")
        }
    })
}

fn in_language(language: &'static str) -> Request<Body> {
    let mut request = get("http://h/");
    request.headers_mut().insert("accept-language", http::HeaderValue::from_static(language));
    request
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_nobody_shares_is_begun_in_a_task_of_its_own_too() {
    let begun = Arc::new(Mutex::new(Vec::new()));
    let places = Arc::clone(&begun);
    let origin = half_shared(move || {
        places.lock().unwrap().push(tokio::task::try_id());
        let count = places.lock().unwrap().len();
        assert!(count < 3, "in call, on purpose");
    });
    let service = crate::support::open::stack(Rules::new()).layer(origin);
    for language in ["en", "de"] {
        assert_eq!(call(&service, in_language(language)).await.0, StatusCode::OK);
    }
    sleep(ms(2000)).await;
    let client = tokio::spawn(async move { (call(&service, in_language("en")).await, tokio::task::id()) });
    let (answer, client) = client.await.expect("there is a stale answer");
    assert_eq!(answer, (StatusCode::OK, "hello".into()));
    sleep(ms(10)).await;
    let begun = begun.lock().unwrap();
    assert!(begun.len() == 3 && begun[2] != Some(client), "{begun:?}");
}

/// An answer with a tag, after 100 ms.
fn tagged() -> Origin {
    Origin::new(|number, _| async move {
        sleep(ms(100)).await;
        response(&[("cache-control", "max-age=60"), ("surrogate-key", "t")], number.to_string())
    })
}

/// As a middleware that makes the request anew, and loses what the layers above told those below.
fn forgetful(request: Request<Body>) -> Request<Body> {
    let (head, body) = request.into_parts();
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut()) = (head.method, head.uri);
    request
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_of_a_cache_below_keeps_for_one_is_for_one() {
    let never = |_: &http::request::Parts, _: &http::response::Parts, rules: Rules| rules.never_store();
    let above = || ServiceBuilder::new().layer(KeyLayer::default()).layer(CoalesceLayer::new());
    let (stacked, forgotten) = (tagged(), tagged());
    let stack = above()
        .layer(ReadThroughLayer::builder(store()).policy(never).build().unwrap())
        .service(stacked.clone());
    let store_layer = above().map_request(forgetful).layer(StoreLayer::new(store()).policy(never));
    let store_layer = store_layer.service(forgotten.clone());
    join_all((0..5).map(|_| call(&stack, get(URI)))).await;
    join_all((0..5).map(|_| call(&store_layer, get(URI)))).await;
    assert_eq!((stacked.calls(), forgotten.calls()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn what_a_cache_below_purged_is_for_nobody_who_comes_later() {
    let above = || ServiceBuilder::new().layer(KeyLayer::default()).layer(CoalesceLayer::new());
    let (cache, store_layer) = (ReadThroughLayer::builder(store()), StoreLayer::new(store()));
    let purges = [cache.purge(), store_layer.purge()];
    let stack = above().layer(cache.build().unwrap()).service(tagged());
    let store_layer = above().map_request(forgetful).layer(store_layer).service(tagged());
    let purging = async {
        sleep(ms(10)).await;
        purges.iter().for_each(|purge| _ = purge.tag("t"));
    };
    let later = async {
        sleep(ms(20)).await;
        (call(&stack, get(URI)).await.1, call(&store_layer, get(URI)).await.1)
    };
    let (_, _, (), later) =
        tokio::join!(call(&stack, get(URI)), call(&store_layer, get(URI)), purging, later);
    assert_eq!((later.0, later.1), ("2".into(), "2".into()));
}

#[tokio::test(start_paused = true)]
async fn who_fetched_knows_how_even_if_the_origin_takes_the_field_away() {
    let origin = Origin::new(|_, _| async {
        response(&[("cache-control", "max-age=60"), ("connection", "cache-status")], "hello")
    });
    let answer = crate::support::open::stack(Rules::new()).layer(origin).oneshot(get(URI)).await.unwrap();
    assert_eq!(CacheStatus::of(&answer).unwrap().to_string(), "fwd=uri-miss; stored");
}

#[tokio::test(start_paused = true)]
async fn the_time_that_an_answer_waited_counts_once_in_its_age() {
    let (store, (origin, feed)) = (store(), fed());
    let fill = FillLayer::new(store.clone()).rules(fixed(60_000));
    let below = CoalesceLayer::new().layer(fill.layer(origin));
    let first = LookupLayer::new(store.clone()).layer(below.clone());
    let other = LookupLayer::new(store).layer(CoalesceLayer::new().layer(below));
    let _reading = first.oneshot(get(URI)).await.unwrap();
    feed.send(Ok(b"the beginning")).unwrap();
    sleep(ms(10_000)).await;
    // The first of them shares the fetch below, the second what the first one got.
    for _ in 0..2 {
        let late = other.clone().oneshot(get(URI)).await.unwrap();
        assert_eq!(late.headers()["age"], "10");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_the_answer_already_does_not_set_the_pace_for_those_who_read_it() {
    const CHUNKS: usize = 400;
    const CHUNK: usize = 16 << 10;
    let origin = Origin::new(|_, _| async {
        let chunks = futures_util::stream::iter(0..CHUNKS);
        let frames = chunks.map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; CHUNK]))));
        sleep(ms(1)).await;
        response(&[("etag", "\"a\"")], Body::new(StreamBody::new(frames)))
    });
    let store = MemoryStore::with_capacity_bytes(4 << 20);
    let service =
        ReadThroughLayer::builder(store).rules(fixed(60_000)).build().unwrap().layer(origin.clone());
    let mut conditional = get(URI);
    conditional.headers_mut().insert("if-none-match", "\"a\"".parse().unwrap());
    let first = tokio::spawn(service.clone().oneshot(conditional));
    tokio::task::yield_now().await;
    let reader = tokio::spawn(service.oneshot(get(URI)));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::NOT_MODIFIED);
    let mut body = reader.await.unwrap().unwrap().into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().unwrap().len();
        sleep(ms(10)).await;
    }
    assert_eq!((length, origin.calls()), (CHUNKS * CHUNK, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_is_abandoned_by_who_has_the_answer_already_and_leaves() {
    let (origin, feed) = fed();
    let layer = ReadThroughLayer::builder(store())
        .rules(fixed(60_000))
        .coalesce(|layer| layer.abandoned_deadline(Duration::ZERO));
    let mut conditional = get(URI);
    conditional.headers_mut().insert("if-none-match", "\"a\"".parse().unwrap());
    let answer = layer.build().unwrap().layer(origin).oneshot(conditional).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    assert!(!feed.is_closed());
    drop(answer);
    // At once, and not when a refresh would be given up.
    assert_eq!(tokio::time::timeout(ms(1), feed.closed()).await, Ok(()));
}
