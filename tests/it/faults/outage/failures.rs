//! Which responses are failures, in every layer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{
    CoalesceLayer, DefaultFailures, Failures, FillLayer, KeyLayer, LookupLayer, ReadThroughLayer,
    RetryPolicy, Rules, StaleIfErrorLayer,
};

use super::{Cache, boxed, caches};

use crate::support::{ScriptedOrigin, ScriptedResponse, get, ms, ok, secs, settle, small_store, status};

fn rules() -> Rules {
    Rules::new().default_ttl(secs(10)).stale_if_error_for(secs(600))
}

/// Responds once with a page, and then with this response.
fn failing(then: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, _| if call == 1 { ok("page") } else { then() })
}

/// The failures of the tests: a status of a gateway, a 200 with a field that says so, and no 503.
fn own(status: StatusCode, headers: &HeaderMap) -> bool {
    match status.as_u16() {
        503 => false,
        520 => true,
        _ => headers.contains_key("x-failed") || DefaultFailures.is_failure(status, headers),
    }
}

/// All ways to put the layers together, with these failures.
fn caches_with(rules: Rules, failures: impl Failures + Clone) -> [(&'static str, Cache); 3] {
    let stack = ReadThroughLayer::builder(small_store())
        .rules(rules.clone())
        .failures(failures.clone())
        .build()
        .unwrap();
    let shared = small_store();
    let layers = ServiceBuilder::new()
        .layer(LookupLayer::new(shared.clone()))
        .layer(StaleIfErrorLayer::new(shared.clone()).failures(failures.clone()))
        .layer(CoalesceLayer::new().failures(failures.clone()))
        .layer(FillLayer::new(shared).rules(rules.clone()).failures(failures.clone()));
    let shared = small_store();
    let uncoalesced = ServiceBuilder::new()
        .layer(LookupLayer::new(shared.clone()))
        .layer(StaleIfErrorLayer::new(shared.clone()).failures(failures.clone()))
        .layer(FillLayer::new(shared).failures(failures).rules(rules));
    [
        ("the stack", Box::new(move |origin| boxed(stack.layer(origin)))),
        ("layers", Box::new(move |origin| boxed(layers.service(origin)))),
        ("without Coalesce", Box::new(move |origin| boxed(uncoalesced.service(origin)))),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_408_of_the_service_is_covered_by_a_stale_response() {
    for (name, cache) in caches(rules()) {
        let origin = failing(|| status(408).after(ms(10)));
        let service = cache(origin.clone());
        get(&service, "/").await;
        tokio::time::advance(secs(11)).await;
        let reply = get(&service, "/").await;
        assert_eq!(
            (reply.status.as_u16(), &reply.body[..], origin.calls()),
            (200, &b"page"[..], 2),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_408_of_the_service_is_shared_by_all_waiting_callers() {
    let rules = rules();
    let without_fill = ServiceBuilder::new().layer(KeyLayer::default()).layer(CoalesceLayer::new());
    let mut caches: Vec<_> = caches(rules).into_iter().take(2).collect();
    caches.push(("without Fill", Box::new(move |origin| boxed(without_fill.service(origin)))));
    for (name, cache) in caches {
        let origin = ScriptedOrigin::always(|| status(408).after(ms(10)));
        let service = cache(origin.clone());
        for burst in 1..=3 {
            let replies = join_all((0..100).map(|_| get(&service, "/"))).await;
            assert!(replies.iter().all(|reply| reply.status == 408), "{name}");
            assert!(origin.calls() <= 2 * burst, "{name}: {}", origin.calls());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_is_no_failure() {
    for (name, cache) in caches(rules()) {
        let origin = failing(|| status(429));
        let service = cache(origin.clone());
        get(&service, "/").await;
        tokio::time::advance(secs(11)).await;
        assert_eq!(get(&service, "/").await.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_custom_failure_policy_is_used() {
    type Case = (&'static str, fn() -> ScriptedResponse, u16);
    let cases: [Case; 5] = [
        ("a status of its own", || status(520), 200),
        ("a field of its own", || ok("sorry").header("x-failed", "1"), 200),
        ("what is one by default", || status(502), 200),
        ("a default that is none any more", || status(503), 503),
        ("what is none at all", || status(404), 404),
    ];
    for (case, answer, expected) in cases {
        for (name, cache) in caches_with(rules(), own) {
            let origin = failing(answer);
            let service = cache(origin.clone());
            get(&service, "/").await;
            tokio::time::advance(secs(11)).await;
            let reply = get(&service, "/").await;
            assert_eq!(reply.status.as_u16(), expected, "{name}: {case}");
            assert_eq!(reply.body == "page", expected == 200, "{name}: {case}");
        }
    }
}

/// The default lifetime, which any other 200 has, is not for one that is a failure.
#[tokio::test(start_paused = true)]
async fn a_failure_by_its_fields_is_shared_and_not_stored() {
    let rules = rules().fixed_ttl(secs(10));
    for (name, cache) in caches_with(rules, own) {
        let origin = ScriptedOrigin::new(|call, _| match call {
            1 | 2 => ok("sorry").header("x-failed", "1").after(ms(10)),
            _ => ok("page").after(ms(10)),
        });
        let service = cache(origin.clone());
        get(&service, "/").await;
        assert_eq!(origin.calls(), 1, "{name}");
        get(&service, "/").await;
        assert_eq!(origin.calls(), 2, "{name}: the failure was not stored");
        assert_eq!(get(&service, "/").await.body, "page", "{name}");
        assert!(get(&service, "/").await.is_hit(), "{name}");
        let sick = ScriptedOrigin::always(|| status(520).after(ms(10)));
        let service = cache(sick.clone());
        let replies = join_all((0..100).map(|_| get(&service, "/sick"))).await;
        assert!(replies.iter().all(|reply| reply.status == 520), "{name}");
        assert!(name == "without Coalesce" || sick.calls() <= 2, "{name}: {}", sick.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_by_its_fields_leaves_the_stale_response() {
    let rules = rules().stale_while_revalidate_for(secs(600));
    for (name, cache) in caches_with(rules, own) {
        let origin = failing(|| ok("sorry").header("x-failed", "1"));
        let service = cache(origin.clone());
        get(&service, "/").await;
        for _ in 0..3 {
            tokio::time::advance(secs(11)).await;
            assert_eq!(get(&service, "/").await.body, "page", "{name}");
            settle().await;
        }
        assert_eq!(origin.calls(), 4, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_follow_the_failures_of_the_stack_but_for_500() {
    let retry = || RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO).max_retries(1);
    let stack =
        |failures: fn(StatusCode, &HeaderMap) -> bool, retry: RetryPolicy, origin: &ScriptedOrigin| {
            let layer = ReadThroughLayer::builder(small_store())
                .rules(rules())
                .failures(failures)
                .retry(retry)
                .build()
                .unwrap();
            boxed(layer.layer(origin.clone()))
        };
    for (code, calls) in [(200, 1), (404, 1), (408, 2), (429, 1), (500, 1), (502, 2), (503, 1), (520, 2)] {
        let origin = ScriptedOrigin::always(move || status(code));
        get(&stack(own, retry(), &origin), "/").await;
        assert_eq!(origin.calls(), calls, "{code}");
    }
    // The policy of the layer itself wins.
    for (code, calls) in [(500, 2), (502, 1), (520, 1)] {
        let origin = ScriptedOrigin::always(move || status(code));
        let retry = retry().failures(|status: StatusCode, _: &HeaderMap| status == 500);
        get(&stack(own, retry, &origin), "/").await;
        assert_eq!(origin.calls(), calls, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_not_asked_about_what_comes_from_the_store() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = {
        let asked = Arc::clone(&asked);
        move |status: StatusCode, headers: &HeaderMap| {
            asked.fetch_add(1, Ordering::SeqCst);
            DefaultFailures.is_failure(status, headers)
        }
    };
    for (name, cache) in caches_with(rules(), counting) {
        let service = cache(ScriptedOrigin::always(|| ok("page")));
        get(&service, "/").await;
        let before = asked.load(Ordering::SeqCst);
        assert!(before > 0, "{name}");
        for _ in 0..10 {
            assert!(get(&service, "/").await.is_hit(), "{name}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), before, "{name}");
    }
}

#[test]
fn failures_that_would_not_count_are_refused() {
    let never = |_: StatusCode, _: &HeaderMap| false;
    let built =
        ReadThroughLayer::builder(small_store()).coalesce(|coalesce| coalesce.failures(never)).build();
    assert!(built.unwrap_err().to_string().contains("ReadThroughBuilder::failures"));
}
