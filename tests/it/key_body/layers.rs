//! The layer among others, and over sockets.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    let bodies = layer(search());
    let origin = ConcurrencyLimitLayer::new(1).layer(front(&echo()));
    let mut service = bodies.layer(origin);
    for n in 1..=3 {
        let answer = async { service.ready().await.unwrap().call(post_of("a")).await.unwrap() };
        let answer = tokio::time::timeout(ms(10), answer).await.expect("not stuck");
        assert_eq!(bytes(answer).await, format!("{n} POST a"));
    }
}

#[tokio::test(start_paused = true)]
async fn layers_stacked_by_hand_do_the_same() {
    let origin = echo();
    let bodies = layer(search().fixed_ttl(ms(60_000)));
    let stored = ServiceBuilder::new()
        .layer(bodies.clone())
        .layer(StoreLayer::new(store()).key(bodies.rules()))
        .service(front(&origin));
    assert_eq!(call(&stored, post_of("a")).await.1, "1 POST a");
    assert_eq!(call(&stored, post_of("a")).await.1, "1 POST a");

    let slow = ScriptedOrigin::with_future(|n, request| async move {
        sleep(ms(10)).await;
        response(&[], said(n, request).await)
    });
    let shared = ServiceBuilder::new()
        .layer(bodies.clone())
        .layer(KeyLayer::new(bodies.rules()))
        .layer(CoalesceLayer::new())
        .service(front(&slow));
    let answers = join_all((0..4).map(|_| call(&shared, post_of("a")))).await;
    assert!(answers.iter().all(|(_, answer)| answer == "1 POST a"));
}

/// The cache below derives keys of its own, which hold no body.
#[tokio::test]
async fn another_cache_below_lets_such_requests_through() {
    let origin = echo();
    let below = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap();
    let inner = below.layer(front(&origin)).map_response(|answer| answer.map(Body::new));
    let bodies = layer(search().fixed_ttl(ms(60_000)));
    let above = ReadThroughLayer::builder(store()).key(bodies.rules()).build().unwrap();
    let stack = bodies.layer(above.layer(inner));
    call(&stack, get_request(SEARCH)).await;
    for body in ["a", "b", "a"] {
        let answer = call(&stack, post_of(body)).await.1;
        assert!(answer.ends_with(body.as_bytes()));
    }
    call(&stack, get_request(SEARCH)).await;
    // GET is not stored above, only below: the reads have not invalidated it.
    assert_eq!(origin.calls(), 3);
}

async fn served() -> (String, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let bodies = layer(search());
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let handler = async move |body: Bytes| {
        counter.fetch_add(1, Ordering::SeqCst);
        body
    };
    let app =
        Router::new().route("/search", post(handler)).layer(ServiceBuilder::new().layer(bodies).layer(cache));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/search", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, calls)
}

#[tokio::test]
async fn bodies_are_keyed_over_sockets_too() {
    let (url, calls) = served().await;
    let client = reqwest::Client::new();
    let ask = async |body: reqwest::Body| {
        let answer = client.post(&url).body(body).send().await.unwrap();
        text(&answer.bytes().await.unwrap())
    };
    for body in ["a", "b", "a", "b"] {
        assert_eq!(ask(body.into()).await, body);
    }
    let chunked = stream::iter(["a", ""].map(Ok::<_, Infallible>));
    assert_eq!(ask(reqwest::Body::wrap_stream(chunked)).await, "a");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let long = "x".repeat(1 << 20);
    for _ in 0..2 {
        assert_eq!(ask(long.clone().into()).await, long);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}
