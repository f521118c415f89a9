//! Callers that cannot share a response move to another fetch together.

use futures_util::future::join_all;
use tokio::time::sleep;
use tower::Layer;
use tower_readthrough::{CoalesceLayer, KeyLayer, ReadThroughLayer, Refused, StoreLayer};

use crate::support::{ScriptedOrigin, fixed, get, get_with, ms, ok, store};

/// A news site in a minute like any other: a client with a cookie is first, an editor purges a tag while
/// the page is fetched, and the page varies.
#[tokio::test(start_paused = true)]
async fn a_purge_a_cookie_and_a_vary_together_make_a_few_fetches() {
    let origin = ScriptedOrigin::unrecorded(|_, head| {
        let language = head.headers.get("accept-language").map_or("-", |value| value.to_str().unwrap());
        let answer =
            ok(language.to_owned()).header("surrogate-key", "news").header("vary", "accept-language");
        answer.after(ms(100))
    });
    let cache = ReadThroughLayer::builder(store()).rules(fixed(60_000));
    let purge = cache.purge();
    let service = cache.build().unwrap().layer(origin.clone());
    let callers = async |count: usize| {
        join_all((0..count).map(async |n| {
            let language = ["de", "en", "fr"][n % 3];
            assert_eq!(get_with(&service, "/", &[("accept-language", language)]).await.body, language);
        }))
        .await
    };
    let purging = async {
        for _ in 0..3 {
            sleep(ms(30)).await;
            _ = purge.tag("news");
        }
    };
    let late = async {
        sleep(ms(95)).await;
        callers(500).await
    };
    let cookie = get_with(&service, "/", &[("cookie", "sid=1")]);
    tokio::join!(cookie, callers(500), late, purging);
    assert!(origin.calls() <= 12, "{}", origin.calls());
}

#[tokio::test(start_paused = true)]
async fn callers_that_move_more_than_three_times_move_together() {
    // Each response names one more field.
    const FIELDS: [&str; 6] = ["x-a", "x-b", "x-c", "x-d", "x-e", "x-f"];
    let origin = ScriptedOrigin::unrecorded(|n, head| {
        let mine = head.headers["x-f"].to_str().unwrap().to_owned();
        FIELDS[..n.min(6)]
            .iter()
            .fold(ok(mine).max_age(60).after(ms(50)), |answer, field| answer.header("vary", field))
    });
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let bodies = join_all((0..1000).map(async |n| {
        let value = (n % 4).to_string();
        let fields: Vec<_> = FIELDS.iter().map(|field| (*field, value.as_str())).collect();
        (get_with(&service, "/", &fields).await.body, value.clone())
    }));
    for (body, value) in bodies.await {
        assert_eq!(body, value);
    }
    assert!(origin.calls() <= 16, "{}", origin.calls());
}

/// The selecting fields of one response are still known at the next.
#[tokio::test(start_paused = true)]
async fn moves_end_even_if_responses_differ_in_their_selecting_fields() {
    let origin = ScriptedOrigin::unrecorded(|n, head| {
        let all = ["x-a", "x-b"].map(|name| head.headers[name].to_str().unwrap().to_owned()).concat();
        ok(all).max_age(60).header("vary", ["x-a", "x-b"][n % 2]).after(ms(50))
    });
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let replies = join_all((0..1000).map(async |n| {
        let (a, b) = ((n % 3).to_string(), (n / 3 % 3).to_string());
        let reply = get_with(&service, "/", &[("x-a", &a), ("x-b", &b)]).await;
        assert_eq!(reply.status, 200);
    }));
    replies.await;
    assert!(origin.calls() <= 30, "{}", origin.calls());
}

#[tokio::test(start_paused = true)]
async fn purges_all_the_time_do_not_multiply_fetches() {
    let origin =
        ScriptedOrigin::unrecorded(|_, _| ok("x").max_age(60).header("surrogate-key", "t").after(ms(100)));
    let cache = ReadThroughLayer::builder(store());
    let purge = cache.purge();
    let service = cache.build().unwrap().layer(origin.clone());
    let purging = async {
        for _ in 0..200 {
            sleep(ms(10)).await;
            _ = purge.tag("t");
        }
    };
    let callers = join_all((0..2000_u64).map(async |n| {
        sleep(ms(n)).await;
        assert_eq!(get(&service, "/").await.body, "x");
    }));
    tokio::join!(purging, callers);
    // 2 s of fetches that take 100 ms each, side by side where a purge came between.
    assert!(origin.calls() <= 220, "{}", origin.calls());
}

/// Every response is purged before it arrives: callers share one more fetch, and there is none after it.
#[tokio::test(start_paused = true)]
async fn callers_whose_moves_never_end_share_one_more_fetch_and_are_refused() {
    let origin =
        ScriptedOrigin::unrecorded(|_, _| ok("x").max_age(60).header("surrogate-key", "t").after(ms(100)));
    let below = StoreLayer::new(store());
    let purge = below.purge();
    // Without Lookup the arrival of a request is not known: any purge since the start of a fetch counts.
    let above = CoalesceLayer::new().max_wait(ms(400));
    let service = KeyLayer::default().layer(above.layer(below.layer(origin.clone())));
    let purging = tokio::spawn(async move {
        loop {
            sleep(ms(10)).await;
            _ = purge.tag("t");
        }
    });
    let replies = join_all((0..1000).map(|_| get(&service, "/"))).await;
    purging.abort();
    let refused = |reply: &&crate::support::Reply| reply.extensions.get() == Some(&Refused::FetchAborted);
    assert!(replies.iter().all(|reply| matches!(reply.status.as_u16(), 200 | 503)));
    assert!(replies.iter().filter(refused).count() > 900);
    assert!(origin.calls() <= 8, "{}", origin.calls());
}
