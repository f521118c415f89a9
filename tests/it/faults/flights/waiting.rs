//! A slow response delays no caller longer than it would without the cache.

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_readthrough::{CoalesceLayer, KeyLayer, LookupLayer, ReadThroughLayer, Refused, StaleIfErrorLayer};

use crate::support::{
    Reply, ScriptedOrigin, call, fixed, get, get_request, get_with, hangs, ms, ok, request, response, secs,
    send, settle, status, store,
};

fn refusal(reply: &Reply) -> Option<Refused> {
    reply.extensions.get().copied()
}

/// A response that may not be shared, one that may, and one without a directive.
const KINDS: [&[(&str, &str)]; 4] = [
    &[("cache-control", "private, max-age=60")],
    &[("cache-control", "no-store")],
    &[("cache-control", "max-age=60")],
    &[],
];

#[tokio::test(start_paused = true)]
async fn a_slow_response_reaches_the_client_that_waits_for_it() {
    for kind in KINDS {
        for fields in [&[][..], &[("authorization", "x")], &[("cookie", "a=b")], &[("range", "bytes=0-1")]] {
            let origin = ScriptedOrigin::always(move || {
                kind.iter()
                    .fold(ok("report").after(secs(90)), |answer, (name, value)| answer.header(name, value))
            });
            let stack = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
            let alone = CoalesceLayer::new().rules(fixed(60_000));
            let alone = KeyLayer::default().layer(alone.layer(origin.clone()));
            let reply = get_with(&stack, "/", fields).await;
            assert_eq!(
                (reply.status, &reply.body[..]),
                (StatusCode::OK, &b"report"[..]),
                "{kind:?} {fields:?}"
            );
            assert_eq!(get_with(&alone, "/", fields).await.body, "report", "{kind:?} {fields:?}");
            assert_eq!(send(&stack, request("HEAD", "/head", fields)).await.status, StatusCode::OK);
            assert_eq!(origin.calls(), 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_is_not_cut_while_a_client_waits_for_it() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        let chunks = futures_util::stream::unfold(0, |n| async move {
            sleep(secs(90)).await;
            (n < 3).then(|| (Ok::<_, std::io::Error>(n.to_string()), n + 1))
        });
        response(&[], crate::streamed(chunks))
    });
    let service = crate::support::stack(fixed(3_600_000)).layer(origin.clone());
    let (status, body) = call(&service, get_request("http://h/")).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"012"[..]));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_waiting_caller_gets_the_response_even_if_it_did_not_start_the_fetch() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).after(secs(90)));
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    settle().await;
    let started = Instant::now();
    let second = tokio::spawn(async move { get(&service, "/").await });
    sleep(secs(10)).await;
    first.abort();
    assert_eq!(second.await.unwrap().body, "x");
    // The fetch of the first caller goes on for it, beside the one of its own.
    assert_eq!((started.elapsed(), origin.calls()), (secs(90), 2));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_blocks_no_other_caller_for_ever() {
    let origin = ScriptedOrigin::new(|n, _| if n == 1 { hangs() } else { ok("x").max_age(60) });
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    settle().await;
    let started = Instant::now();
    let replies = join_all((0..1000).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.body == "x"));
    assert_eq!((started.elapsed(), origin.calls()), (secs(30), 2), "one successor for all");
    // A later request finds it stored, and the first caller still waits for its own fetch.
    assert!(get(&service, "/").await.is_hit());
    assert!(!first.is_finished());
}

/// Many callers of a page that takes a little longer than callers wait for each other.
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_response_a_second_too_slow_make_a_few_calls() {
    let origin = ScriptedOrigin::unrecorded(|_, _| ok("x").max_age(60).after(secs(31)));
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let started = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let service = service.clone();
        callers.spawn(async move { get(&service, "/").await });
    }
    for reply in callers.join_all().await {
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"x"[..]));
    }
    assert_eq!(started.elapsed(), secs(31));
    assert!((2..=8).contains(&origin.calls()), "{}", origin.calls());
}

/// Every poll waits for a message of its own: the response is for one client, which its head shows.
#[tokio::test(start_paused = true)]
async fn long_polls_are_delayed_by_no_more_than_the_doubling() {
    const CLIENTS: usize = 1000;
    for (kind, fields) in [("no-store", &[][..]), ("private", &[]), ("max-age=60", &[("authorization", "x")])]
    {
        let origin =
            ScriptedOrigin::unrecorded(move |_, _| ok("x").header("cache-control", kind).after(secs(300)));
        let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
        let started = Instant::now();
        let polls = (0..CLIENTS).map(async |_| {
            assert_eq!(get_with(&service, "/", fields).await.body, "x");
            started.elapsed()
        });
        let mut polls = join_all(polls).await;
        polls.sort_unstable();
        for (n, elapsed) in polls.into_iter().enumerate() {
            // The first at once, one after 30 s, two more a second later, then four.
            let delay = if n == 0 { 0 } else { 30 + u64::from(n.ilog2()) };
            assert!(elapsed <= secs(300 + delay), "{kind}: {n} after {elapsed:?}");
        }
        assert_eq!(origin.calls(), CLIENTS);
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_of_any_fetch_decides_for_all_waiting_callers() {
    // The second response is private, and arrives long before the first.
    let origin = ScriptedOrigin::new(|n, _| {
        let answer = ok(n.to_string()).header("cache-control", "no-store");
        answer.after(if n == 1 { secs(300) } else { secs(2) })
    });
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let started = Instant::now();
    let polls = (0..101).map(async |n| {
        let body = get(&service, "/").await.body;
        (n, body, started.elapsed())
    });
    let polls = join_all(polls).await;
    // At 30 s one, at 31 s two, at 32 s the head of the first of them.
    let late = polls.iter().filter(|(n, _, elapsed)| *n > 0 && *elapsed > secs(34)).count();
    assert_eq!((late, origin.calls()), (0, 101));
    let bodies: std::collections::HashSet<_> = polls.iter().map(|(_, body, _)| body).collect();
    assert_eq!(bodies.len(), 101, "each has its own");
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_fetch_closed_by_its_age_decides_for_callers_of_the_next() {
    let origin =
        ScriptedOrigin::new(|n, _| ok(n.to_string()).max_age(600).after(secs(if n == 1 { 70 } else { 300 })));
    let layer =
        ReadThroughLayer::builder(store()).coalesce(|layer| layer.max_flight_age(secs(20))).build().unwrap();
    let service = layer.layer(origin.clone());
    let first = async { get(&service, "/").await.body };
    let later = async {
        sleep(secs(50)).await;
        join_all((0..10).map(|_| get(&service, "/"))).await
    };
    let (first, later) = tokio::join!(first, later);
    assert_eq!((first, origin.calls()), ("1".into(), 2));
    // The first of them waits for its own.
    assert_eq!(later.iter().filter(|reply| reply.body == "1").count(), 9);
}

#[tokio::test(start_paused = true)]
async fn callers_with_a_stale_response_get_it_when_the_fetch_is_slow() {
    let origin = ScriptedOrigin::new(|n, _| {
        let answer = ok(n.to_string()).header("cache-control", "max-age=1, stale-if-error=600");
        answer.after(if n == 1 { ms(0) } else { secs(90) })
    });
    let stack = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    get(&stack, "/").await;
    sleep(secs(2)).await;
    let started = Instant::now();
    let replies = join_all((0..5).map(async |_| (get(&stack, "/").await.body, started.elapsed()))).await;
    assert_eq!(replies[0], ("2".into(), secs(90)), "the first caller waits for its own fetch");
    assert!(replies[1..].iter().all(|reply| *reply == ("1".into(), secs(30))), "{replies:?}");
    assert_eq!(origin.calls(), 2);
}

/// The same of layers that are stacked by hand.
#[tokio::test(start_paused = true)]
async fn single_layers_serve_stale_responses_to_waiting_callers_too() {
    let origin = ScriptedOrigin::new(|n, _| {
        let answer = ok(n.to_string()).header("cache-control", "max-age=1, stale-if-error=600");
        answer.after(if n == 1 { ms(0) } else { secs(90) })
    });
    let store = store();
    let below = tower_readthrough::FillLayer::new(store.clone()).layer(origin.clone());
    let below = StaleIfErrorLayer::new(store.clone()).layer(CoalesceLayer::new().layer(below));
    let (keyed, looked) = (KeyLayer::default().layer(below.clone()), LookupLayer::new(store).layer(below));
    get(&looked, "/").await;
    sleep(secs(2)).await;
    let waiting = async {
        settle().await;
        (get(&keyed, "/").await.body, get(&looked, "/").await.body)
    };
    let (first, waiting) = tokio::join!(get(&looked, "/"), waiting);
    assert_eq!((first.body, waiting), ("2".into(), ("1".into(), "1".into())));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_to_the_wait_is_for_all_callers_and_the_fetch_goes_on() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(600).after(secs(20)));
    let layer =
        ReadThroughLayer::builder(store()).coalesce(|layer| layer.wait_at_most(secs(5))).build().unwrap();
    let service = layer.layer(origin.clone());
    let started = Instant::now();
    for reply in join_all((0..10).map(|_| get(&service, "/"))).await {
        assert_eq!(
            (reply.status, refusal(&reply)),
            (StatusCode::GATEWAY_TIMEOUT, Some(Refused::WaitTimeout))
        );
    }
    assert_eq!(started.elapsed(), secs(5));
    sleep(secs(15)).await;
    settle().await;
    assert!(get(&service, "/").await.is_hit());
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_to_the_wait_serves_stale_responses_where_allowed() {
    let origin = ScriptedOrigin::new(|n, _| {
        let answer = ok(n.to_string()).header("cache-control", "max-age=1, stale-if-error=600");
        answer.after(if n == 1 { ms(0) } else { secs(90) })
    });
    let layer =
        ReadThroughLayer::builder(store()).coalesce(|layer| layer.wait_at_most(secs(5))).build().unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    sleep(secs(2)).await;
    let replies = join_all((0..3).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.body == "1"), "{replies:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_fetch_gives_its_place_up_and_keeps_its_callers() {
    let origin = ScriptedOrigin::new(|_, head| {
        let is_slow = head.uri.path() == "/slow";
        ok("x").max_age(60).after(if is_slow { secs(300) } else { secs(1) })
    });
    let layer = ReadThroughLayer::builder(store()).coalesce(|layer| layer.max_flights(1)).build().unwrap();
    let service = layer.layer(origin.clone());
    let slow = tokio::spawn({
        let service = service.clone();
        async move { get(&service, "/slow").await.body }
    });
    sleep(secs(59)).await;
    join_all((0..10).map(|_| get(&service, "/a"))).await;
    assert_eq!(origin.calls(), 11, "no place for another");
    sleep(secs(1)).await;
    join_all((0..10).map(|_| get(&service, "/b"))).await;
    assert_eq!(origin.calls(), 12);
    assert_eq!(timeout(secs(300), slow).await.unwrap().unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn a_failure_beside_a_slow_fetch_is_for_its_own_caller() {
    let origin =
        ScriptedOrigin::new(|n, _| if n == 2 { status(500) } else { ok("x").max_age(60).after(secs(35)) });
    let service =
        ReadThroughLayer::builder(store()).retry(tower_readthrough::RetryPolicy::never()).build().unwrap();
    let service = service.layer(origin.clone());
    let replies = join_all((0..100).map(|_| get(&service, "/"))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 500).count(), 1);
    assert!(replies.iter().filter(|reply| reply.status != 500).all(|reply| reply.body == "x"));
}
