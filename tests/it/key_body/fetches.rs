//! Fetches that send a body: shared, repeated, abandoned.

use super::*;

#[tokio::test(start_paused = true)]
async fn equal_bodies_share_a_fetch() {
    let origin = ScriptedOrigin::with_future(|n, request| async move {
        sleep(ms(10)).await;
        response(&[("cache-control", "max-age=60")], said(n, request).await)
    });
    let stack = stack_by(search(), Rules::new(), &origin);
    let answers = join_all((0..100).map(|n| ask(&stack, post_of(["a", "b"][n % 2])))).await;
    assert_eq!(origin.calls(), 2);
    assert!(answers.iter().enumerate().all(|(n, answer)| answer.ends_with(["POST a", "POST b"][n % 2])));
}

#[tokio::test(start_paused = true)]
async fn callers_that_cannot_share_a_fetch_send_their_own_bodies() {
    let origin = ScriptedOrigin::with_future(|n, request| async move {
        sleep(ms(10)).await;
        response(&[("cache-control", "private")], said(n, request).await)
    });
    let stack = stack(&origin);
    let mut answers = join_all((0..5).map(|_| ask(&stack, post_of("a")))).await;
    answers.sort();
    assert_eq!(answers, (1..=5).map(|n| format!("{n} POST a")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_retry_sends_the_body_again() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let origin = {
        let seen = Arc::clone(&seen);
        ScriptedOrigin::with_future(move |n, request| {
            let seen = Arc::clone(&seen);
            async move {
                let said = said(n, request).await;
                seen.lock().unwrap().push(said.clone());
                if n < 3 { status(503) } else { response(&[], said) }
            }
        })
    };
    assert_eq!(ask(&stack(&origin), post_of(pieces(["a", "b"]))).await, "3 POST ab");
    assert_eq!(*seen.lock().unwrap(), ["1 POST ab", "2 POST ab", "3 POST ab"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_an_error_of_the_service_sends_the_body_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let origin = service_fn(move |request: Request<RequestBody<Body>>| {
        let n = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            match n {
                0 => Err(SharedError::new(std::io::Error::other("refused"))),
                _ => Ok(Response::new(Body::from(body))),
            }
        }
    });
    let bodies = layer(search());
    let retry = tower_readthrough::RetryPolicy::new();
    let cache =
        ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(50)).retry(retry).build().unwrap();
    let answer = bodies.layer(cache.layer(origin)).oneshot(request("QUERY", SEARCH, &[], "a")).await.unwrap();
    assert_eq!((bytes(answer).await, calls.load(Ordering::SeqCst)), ("a".into(), 2));
}

/// A layer that replaces the body may have changed it, so that it cannot be sent again.
#[tokio::test(start_paused = true)]
async fn a_body_that_another_layer_has_made_is_not_sent_again_empty() {
    let origin = ScriptedOrigin::with_future(|n, request| async move {
        let said = said(n, request).await;
        if n == 1 { status(503) } else { response(&[], said) }
    });
    let bodies = layer(search());
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let inner =
        cache.layer(origin.clone()).map_request(|request: Request<RequestBody<Body>>| request.map(Body::new));
    let stack = bodies.layer(inner);
    assert_eq!(call(&stack, post_of("a")).await, (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()));
    for _ in 0..2 {
        assert_eq!(call(&stack, post_of("a")).await, (StatusCode::OK, "2 POST a".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_sends_its_body_leaves_nothing_behind() {
    let origin = echo();
    let stack = stack(&origin);
    let (sender, receiver) = tokio::sync::mpsc::channel::<&str>(1);
    let body = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|chunk| (Ok::<_, Infallible>(chunk), receiver))
    });
    sender.send("a").await.unwrap();
    let left = tokio::time::timeout(ms(10), ask(&stack, post_of(crate::streamed(body)))).await;
    assert!(left.is_err() && sender.is_closed());
    assert_eq!(origin.calls(), 0);
    assert_eq!(ask(&stack, post_of("a")).await, "1 POST a");
}
