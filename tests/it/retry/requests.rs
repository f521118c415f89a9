//! What each attempt sends.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_retry_is_the_same_request_with_its_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tenant(&'static str);
    let origin = recovering(2, || status(503));
    let mut request = request("PUT", "/a?b", &[("x", "1"), ("x", "2")]);
    request.extensions_mut().insert(Tenant("t"));
    *request.version_mut() = http::Version::HTTP_2;
    send(&retried(eager(), &origin), request).await;
    for call in 1..=3 {
        let head = origin.request(call);
        assert_eq!(head.method, "PUT");
        assert_eq!(head.uri, "http://example.com/a?b");
        assert_eq!(head.version, http::Version::HTTP_2);
        assert_eq!(head.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.extensions.get(), Some(&Tenant("t")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_refused_by_the_limit_is_not_retried() {
    let origin = ScriptedOrigin::always(|| ok("").after(secs(60)));
    let policy = eager();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy.clone()))
        .layer(OriginLimitLayer::new(1).max_queue(0))
        .service(origin.clone());
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    settle().await;
    let reply = get(&service, "/").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.extensions.get(), Some(&Refused::QueueFull));
    assert_eq!(policy.retries(), 0);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_retry_holds_no_permit() {
    let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
        "/sick" => status(503).header("retry-after", "2"),
        _ => ok("well"),
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(eager().max_retries(1)))
        .layer(OriginLimitLayer::new(1).max_queue(0))
        .service(origin.clone());
    let sick = tokio::spawn(service.clone().oneshot(request("GET", "/sick", &[])));
    settle().await;
    assert_eq!(get(&service, "/well").await.body, "well");
    assert_eq!(sick.await.unwrap().unwrap().extensions().get::<Attempts>().unwrap().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_made_for_a_further_attempt_and_not_before() {
    static MADE: AtomicUsize = AtomicUsize::new(0);

    /// Cannot be cloned, and counts the bodies that are made for repetitions.
    struct Counted;

    impl Default for Counted {
        fn default() -> Self {
            MADE.fetch_add(1, Ordering::Relaxed);
            Self
        }
    }

    impl http_body::Body for Counted {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(None)
        }

        fn is_end_stream(&self) -> bool {
            true
        }
    }

    for (failures, method, made) in [(0, "GET", 0), (2, "GET", 2), (2, "POST", 0)] {
        MADE.store(0, Ordering::Relaxed);
        let calls = Arc::new(AtomicUsize::new(0));
        let origin = service_fn(move |_: Request<Counted>| {
            let status = if calls.fetch_add(1, Ordering::Relaxed) < failures { 503 } else { 200 };
            let response = Response::builder().status(status).body(Full::<Bytes>::default());
            async { response }
        });
        let request = Request::builder().method(method).body(Counted).unwrap();
        RetryLayer::new(eager()).layer(origin).oneshot(request).await.unwrap();
        assert_eq!(MADE.load(Ordering::Relaxed), made, "{failures} {method}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_above_has_changed_is_in_each_attempt() {
    let origin = recovering(1, || status(503));
    let sign = |mut request: Request<Body>| {
        request.headers_mut().insert("authorization", http::HeaderValue::from_static("to the origin"));
        request
    };
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(FillLayer::new(store))
        .map_request(sign)
        .layer(RetryLayer::new(eager()))
        .service(origin.clone());
    assert_eq!(get(&service, "/").await.body, "fine");
    for call in 1..=2 {
        assert_eq!(origin.request(call).headers["authorization"], "to the origin");
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_one_for_towers_own_layer_too() {
    let origin = recovering(2, || status(503));
    let service = ServiceBuilder::new().retry(eager()).service(origin.clone());
    let reply = get(&service, "/").await;
    assert_eq!((&*reply.body, reply.extensions.get::<Attempts>().unwrap().count()), (&b"fine"[..], 3));
    let sent_once =
        send(&ServiceBuilder::new().retry(eager()).service(origin), request("POST", "/", &[])).await;
    assert_eq!(sent_once.extensions.get::<Attempts>(), None);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_made_ready_before_each_attempt() {
    let (service, mut origin) =
        tower_test::mock::spawn_with(|mock| RetryLayer::new(eager().max_retries(1)).layer(mock));
    let mut service: tower_test::mock::Spawn<Retry<tower_test::mock::Mock<Request<Body>, Response<Body>>>> =
        service;
    origin.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut answer = tokio_test::task::spawn(service.call(request("GET", "/", &[])));
    tokio_test::assert_pending!(answer.poll());
    let (_, respond) = origin.next_request().await.unwrap();
    respond.send_response(Response::builder().status(503).body(Body::default()).unwrap());
    tokio_test::assert_pending!(answer.poll());
    tokio::time::advance(ms(1)).await;
    // The origin is not ready: the retry waits, and is not called unready.
    tokio_test::assert_pending!(answer.poll());
    tokio_test::assert_pending!(origin.poll_request());
    origin.allow(1);
    tokio_test::assert_pending!(answer.poll());
    let (_, respond) = origin.next_request().await.unwrap();
    respond.send_response(Response::new(Body::default()));
    assert_eq!(tokio_test::assert_ready_ok!(answer.poll()).status(), StatusCode::OK);
}
