//! A stored response without `Vary` does not stand in front of one with it (RFC 9111 §4.1).

use futures_util::future::join_all;
use http::request::Parts;
use tower::Layer;
use tower_readthrough::{CacheKey, FillLayer, LookupLayer, Store};

use super::on_each;

use crate::support::{
    ScriptedOrigin, ScriptedResponse, get, get_with, ms, ok, secs, settle, small_store, status,
};

fn origin_of(head: &Parts) -> Option<&str> {
    Some(head.headers.get("origin")?.to_str().unwrap())
}

/// S3 and other servers with CORS send `Vary` only if there was an `Origin`.
fn cors(directives: impl Fn(&Parts) -> &'static str + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, head| {
        let answer = ok(call.to_string()).header("cache-control", directives(head));
        match origin_of(head) {
            Some(origin) => answer.header("vary", "origin").header("access-control-allow-origin", origin),
            None => answer,
        }
    })
}

const A: &[(&str, &str)] = &[("origin", "https://a.example")];
const B: &[(&str, &str)] = &[("origin", "https://b.example")];

#[tokio::test(start_paused = true)]
async fn a_variant_that_matches_is_chosen_before_a_later_response_without_vary() {
    for first in [A, &[]] {
        on_each!(cors(|_| "max-age=60"), async |service: &_, origin: &ScriptedOrigin| {
            get_with(service, "/", A).await;
            get(service, "/").await;
            // In either order from the second round on.
            get_with(service, "/", first).await;
            let other = get_with(service, "/", A).await;
            assert_eq!(other.header("access-control-allow-origin"), Some("https://a.example"));
            assert!(other.is_hit() && other.body == "1");
            let plain = get(service, "/").await;
            assert!(plain.is_hit() && plain.body == "2");
            assert_eq!(origin.calls(), 2);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_variant_is_fetched_and_not_replaced_by_a_fresh_response_without_vary() {
    let lifetimes = |head: &Parts| if origin_of(head).is_some() { "max-age=10" } else { "max-age=60" };
    on_each!(cors(lifetimes), async |service: &_, origin: &ScriptedOrigin| {
        get_with(service, "/", A).await;
        get(service, "/").await;
        tokio::time::advance(secs(11)).await;
        let own = get_with(service, "/", A).await;
        assert_eq!(own.header("access-control-allow-origin"), Some("https://a.example"));
        assert_eq!((&own.body[..], origin.calls()), (&b"3"[..], 3));
        assert!(get_with(service, "/", A).await.is_hit());
        assert!(get(service, "/").await.is_hit());
    });
}

#[tokio::test(start_paused = true)]
async fn a_variant_is_served_while_it_is_refreshed() {
    on_each!(cors(|_| "max-age=10, stale-while-revalidate=60"), async |service: &_, _: &ScriptedOrigin| {
        get_with(service, "/", A).await;
        get(service, "/").await;
        tokio::time::advance(secs(11)).await;
        assert_eq!(get_with(service, "/", A).await.body, "1");
        settle().await;
        assert_eq!(get_with(service, "/", A).await.body, "3");
    });
}

#[tokio::test(start_paused = true)]
async fn a_variant_covers_a_failure_of_the_origin() {
    let origin = ScriptedOrigin::new(|call, head| match (call, origin_of(head)) {
        (3.., _) => status(503),
        (_, Some(_)) => ok("own").max_age(10).header("vary", "origin"),
        (_, None) => ok("plain").max_age(10),
    });
    let service = super::stack(&origin);
    get_with(&service, "/", A).await;
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    assert_eq!(get_with(&service, "/", A).await.body, "own");
    assert_eq!(get(&service, "/").await.body, "plain");
}

/// A resource that varies until its second response.
fn ceases_to_vary() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, head| {
        let answer: ScriptedResponse = ok(call.to_string()).max_age(10);
        let varies = call < 3 && origin_of(head).is_some();
        if varies { answer.header("vary", "origin") } else { answer }
    })
}

#[tokio::test(start_paused = true)]
async fn a_response_without_vary_takes_the_place_of_what_its_own_request_selected() {
    on_each!(ceases_to_vary(), async |service: &_, origin: &ScriptedOrigin| {
        get_with(service, "/", A).await;
        tokio::time::advance(secs(1)).await;
        get_with(service, "/", B).await;
        let forced = [A, &[("cache-control", "no-cache")]].concat();
        assert_eq!(get_with(service, "/", &forced).await.body, "3");
        let own = get_with(service, "/", A).await;
        assert!(own.is_hit() && own.body == "3", "not the one before");
        let other = get_with(service, "/", B).await;
        assert!(other.is_hit() && other.body == "2", "another request's is still its own");
        tokio::time::advance(secs(10)).await;
        assert_eq!(get_with(service, "/", B).await.body, "4");
        assert!(get_with(service, "/", A).await.is_hit());
        assert_eq!(origin.calls(), 4);
    });
}

#[tokio::test(start_paused = true)]
async fn a_response_that_ceased_to_vary_is_fetched_once_for_all() {
    let origin = ScriptedOrigin::new(|call, _| {
        let answer = ok(call.to_string()).max_age(10).after(ms(20));
        if call == 1 { answer.header("vary", "origin") } else { answer }
    });
    let service = super::stack(&origin);
    get_with(&service, "/", A).await;
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    let clients: Vec<_> = (0..20).map(|at| format!("https://{at}.example")).collect();
    let replies =
        join_all(clients.iter().map(async |origin| get_with(&service, "/", &[("origin", origin)]).await));
    assert!(replies.await.iter().all(|reply| reply.body == "3"));
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_late_variant_does_not_stand_before_a_later_response_without_vary() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("late").max_age(60).header("vary", "origin").after(ms(50)),
        _ => ok("later").max_age(60),
    });
    let service = super::single(&origin);
    let first = get_with(&service, "/", A);
    let second = async {
        tokio::time::sleep(ms(10)).await;
        get_with(&service, "/", A).await
    };
    tokio::join!(first, second);
    assert_eq!(get_with(&service, "/", A).await.body, "later");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_gives_way_with_vary_or_without() {
    for (before, after) in [(0, 32), (5, 31), (5, 40)] {
        let store = small_store();
        let one = |_: &Parts| Some(CacheKey::new("one"));
        let origin = cors(|_| "max-age=60");
        let fill = FillLayer::new(store.clone()).layer(origin.clone());
        let service = LookupLayer::new(store.clone()).key(one).request_directives(true).layer(fill);
        let ask = async |at: u32| {
            let origin = format!("https://{at}.example");
            get_with(&service, "/", &[("origin", &origin), ("cache-control", "no-cache")]).await
        };
        for at in 0..before {
            ask(at).await;
        }
        get(&service, "/").await;
        for at in before..before + after {
            ask(at).await;
        }
        assert_eq!(store.get(&CacheKey::new("one")).unwrap().variants().len(), 32);
        let calls = origin.calls();
        assert_eq!(get(&service, "/").await.is_hit(), after < 32, "{before} {after}");
        assert_eq!(origin.calls() - calls, usize::from(after >= 32));
        let last = format!("https://{}.example", before + after - 1);
        assert!(get_with(&service, "/", &[("origin", &last)]).await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_matches_is_chosen_before_a_later_one_without_vary() {
    let origin = || {
        ScriptedOrigin::new(|call, head| {
            let answer = status(206).chunk(format!("{call}1234")).header("content-range", "bytes 0-4/10");
            let answer = answer.max_age(60).header("etag", "\"1\"");
            if call < 3 && origin_of(head).is_some() { answer.header("vary", "origin") } else { answer }
        })
    };
    let range = ("range", "bytes=0-4");
    on_each!(origin(), async |service: &_, origin: &ScriptedOrigin| {
        let a = [range, A[0]];
        get_with(service, "/", &a).await;
        get_with(service, "/", &[range]).await;
        let own = get_with(service, "/", &a).await;
        assert!(own.is_hit() && own.body == "11234");
        assert_eq!(get_with(service, "/", &[range]).await.body, "21234");
        // A later response to the same request without `Vary` is preferred to it.
        let forced = [range, A[0], ("cache-control", "no-cache")];
        assert_eq!(get_with(service, "/", &forced).await.body, "31234");
        assert_eq!(get_with(service, "/", &a).await.body, "31234");
        assert_eq!(origin.calls(), 3);
    });
}
