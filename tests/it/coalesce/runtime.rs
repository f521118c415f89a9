//! Tasks, executors and runtimes.

use super::*;

#[test]
fn outside_a_runtime_requests_go_through_one_by_one() {
    let origin = ScriptedOrigin::with_future(|_, _| async { response(&[], "hello") });
    let stack = crate::support::stack(fixed(60_000)).layer(origin.clone());
    let alone = coalesced(&CoalesceLayer::new(), &origin);
    let answer = futures_util::FutureExt::now_or_never(async {
        for _ in 0..2 {
            assert_eq!(call(&stack, get_request(URI)).await.1, "hello");
        }
        call(&alone, get_request(URI)).await.1
    });
    assert_eq!(answer.unwrap(), "hello");
    assert_eq!(origin.calls(), 2, "the stack has stored its answer");
}

#[test]
fn a_runtime_may_shut_down_while_fetches_are_under_way() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let origin = ScriptedOrigin::with_future(|_, _| std::future::pending());
    let service = coalesced(&CoalesceLayer::new(), &origin);
    for n in 0..100 {
        let service = service.clone();
        runtime.spawn(async move { service.oneshot(get_request(&format!("http://h/{n}"))).await });
    }
    runtime.block_on(async {
        while origin.calls() < 100 {
            tokio::task::yield_now().await;
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    // In the next runtime every slot is free.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let waiting = service.clone().oneshot(get_request("http://h/1"));
        tokio::spawn(waiting);
        while origin.calls() < 101 {
            tokio::task::yield_now().await;
        }
    });
}

/// An origin whose German response is private, so that no request shares a refresh of the English one,
/// which is due after a second.
fn half_shared(begun: impl Fn() + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |_, request: Request<Body>| {
        begun();
        let german = request.headers()["accept-language"] == "de";
        async move {
            let rules = if german { "no-store" } else { "max-age=1, stale-while-revalidate=100" };
            response(&[("vary", "accept-language"), ("cache-control", rules)], "hello")
        }
    })
}

fn in_language(language: &'static str) -> Request<Body> {
    let mut request = get_request("http://h/");
    request.headers_mut().insert("accept-language", http::HeaderValue::from_static(language));
    request
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_not_shared_runs_in_a_task_of_its_own() {
    let begun = Arc::new(Mutex::new(Vec::new()));
    let places = Arc::clone(&begun);
    let origin = half_shared(move || {
        places.lock().unwrap().push(tokio::task::try_id());
        let count = places.lock().unwrap().len();
        assert!(count < 3, "in call, on purpose");
    });
    let service = crate::support::stack(Rules::new()).layer(origin);
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
