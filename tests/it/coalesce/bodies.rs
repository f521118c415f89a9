//! Bodies that several callers read.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_breaks_off_for_all() {
    let (origin, sender) = fed();
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let readers = join_all((0..10).map(|_| service.clone().oneshot(get_request(URI)))).await;
    assert!(sender.send("half"));
    assert!(sender.fail());
    for reader in readers {
        let mut body = reader.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(
            matches!(&error, BodyError::Origin(source) if source.to_string() == Failure.to_string()),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_a_slow_body_late_gets_the_whole_body_and_its_age() {
    let (origin, sender) = fed();
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let first = service.clone().oneshot(get_request(URI)).await.unwrap();
    assert!(sender.send("a"));
    sleep(Duration::from_secs(3)).await;
    let late = service.clone().oneshot(get_request(URI)).await.unwrap();
    assert!(!first.headers().contains_key("age"));
    assert_eq!(late.headers()["age"], "3");
    assert!(CacheStatus::of(&late).unwrap().is_collapsed());
    assert!(sender.send("b"));
    drop(sender);
    assert_eq!((bytes(first).await, bytes(late).await), ("ab".into(), "ab".into()));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_caller_joins_a_body_that_is_no_longer_fresh() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        let rest = futures_util::stream::once(async {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"!")))
        });
        let first = Ok(Frame::data(Bytes::from(n.to_string())));
        response(&[], Body::new(StreamBody::new(futures_util::stream::iter([first]).chain(rest))))
    });
    let layer = CoalesceLayer::new().rules(fixed(100));
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let first = service.clone().oneshot(get_request(URI)).await.unwrap();
    sleep(ms(99)).await;
    let second = service.clone().oneshot(get_request(URI)).await.unwrap();
    sleep(ms(1)).await;
    let third = service.clone().oneshot(get_request(URI)).await.unwrap();
    assert_eq!(
        (bytes(first).await, bytes(second).await, bytes(third).await),
        ("1!".into(), "1!".into(), "2!".into())
    );
}

/// A body larger than may be held is paced by the fastest reader, in a bounded window.
#[tokio::test(start_paused = true)]
async fn a_body_too_large_to_hold_goes_at_the_pace_of_its_fastest_reader() {
    const CHUNK: usize = 1000;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let origin = ScriptedOrigin::with_future(move |n, _| {
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
    // Together, since the flight closes as soon as the body turns out to be too large.
    let (fast, slow) =
        tokio::join!(service.clone().oneshot(get_request(URI)), service.clone().oneshot(get_request(URI)));
    let (mut fast, mut slow) = (fast.unwrap().into_body(), slow.unwrap().into_body());
    sleep(ms(1)).await;
    let ahead = sent.load(Ordering::SeqCst);
    assert!(ahead <= 21 * CHUNK, "no caller has read yet: {ahead}");

    let mut read = 0;
    while let Some(frame) = fast.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        let ahead = sent.load(Ordering::SeqCst) - read;
        assert!(ahead <= 21 * CHUNK, "{ahead}");
    }
    assert_eq!(read, 1000 * CHUNK);
    assert!(matches!(slow.frame().await.unwrap().unwrap_err(), BodyError::Lagged));

    // A later caller did not join the closed flight, but started a flight of its own.
    assert_eq!(call(&service, get_request(URI)).await.1.len(), 1000 * CHUNK);
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_too_large_to_hold_survives_its_fastest_reader_and_ends_with_the_last() {
    let held = Arc::new(());
    let witness = Arc::clone(&held);
    let origin = ScriptedOrigin::with_future(move |_, _| {
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
    // Together, since the flight closes as soon as the body turns out to be too large.
    let (fast, slow) =
        tokio::join!(service.clone().oneshot(get_request(URI)), service.clone().oneshot(get_request(URI)));
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
async fn a_client_that_does_not_read_does_not_stall_the_others() {
    let (origin, sender) = fed();
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let idle = service.clone().oneshot(get_request(URI)).await.unwrap();
    let reader = service.clone().oneshot(get_request(URI)).await.unwrap();
    for _ in 0..100 {
        assert!(sender.send("x"));
    }
    drop(sender);
    assert_eq!(bytes(reader).await.len(), 100);
    assert_eq!(bytes(idle).await.len(), 100, "it is all still there");
}

#[tokio::test(start_paused = true)]
async fn trailers_and_sizes_reach_every_reader() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        sleep(ms(10)).await;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "5".parse().unwrap());
        let frames =
            [Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"hello"))), Ok(Frame::trailers(trailers))];
        let body: UnsyncBoxBody<_, _> = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        response(&[], Body::new(body))
    });
    let service = coalesced(&CoalesceLayer::new(), &origin);
    for answer in join_all((0..3).map(|_| service.clone().oneshot(get_request(URI)))).await {
        let collected = answer.unwrap().into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "5");
        assert_eq!(collected.to_bytes(), "hello");
    }
    let origin = slow(10);
    let service = coalesced(&CoalesceLayer::new(), &origin);
    for answer in join_all((0..3).map(|_| service.clone().oneshot(get_request(URI)))).await {
        assert_eq!(answer.unwrap().body().size_hint().exact(), Some(5));
    }
}

#[tokio::test]
async fn a_body_that_lets_others_run_between_its_chunks_still_does() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        let chunks = futures_util::stream::unfold(0, |n| async move {
            if n == 100 {
                return None;
            }
            tokio::task::yield_now().await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        response(&[], Body::new(StreamBody::new(chunks)))
    });
    let service = crate::support::stack(fixed(60_000)).layer(origin);
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
    assert_eq!(call(&service, get_request("http://h/")).await.1.len(), 100);
    other.abort();
    let turns = turns.load(Ordering::SeqCst);
    assert!(turns > 50, "only {turns} turns for others in 100 chunks");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_needs_no_body_does_not_set_the_pace_of_its_readers() {
    const CHUNKS: usize = 400;
    const CHUNK: usize = 16 << 10;
    let origin = ScriptedOrigin::with_future(|_, _| async {
        let chunks = futures_util::stream::iter(0..CHUNKS);
        let frames = chunks.map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; CHUNK]))));
        sleep(ms(1)).await;
        response(&[("etag", "\"a\"")], Body::new(StreamBody::new(frames)))
    });
    let store = MemoryStore::with_capacity_bytes(4 << 20);
    let service =
        ReadThroughLayer::builder(store).rules(fixed(60_000)).build().unwrap().layer(origin.clone());
    let mut conditional = get_request(URI);
    conditional.headers_mut().insert("if-none-match", "\"a\"".parse().unwrap());
    let first = tokio::spawn(service.clone().oneshot(conditional));
    tokio::task::yield_now().await;
    let reader = tokio::spawn(service.oneshot(get_request(URI)));
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
async fn a_fetch_is_abandoned_when_its_caller_needs_no_body_and_leaves() {
    let (origin, sender) = fed();
    let layer = ReadThroughLayer::builder(store())
        .rules(fixed(60_000))
        .coalesce(|layer| layer.abandoned_deadline(Duration::ZERO));
    let mut conditional = get_request(URI);
    conditional.headers_mut().insert("if-none-match", "\"a\"".parse().unwrap());
    let answer = layer.build().unwrap().layer(origin).oneshot(conditional).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    assert!(!sender.is_closed());
    drop(answer);
    // At once, and not only at the deadline of a refresh.
    assert_eq!(tokio::time::timeout(ms(1), sender.closed()).await, Ok(()));
}
