//! An error may be the fault of one request: it changes nothing for other clients.

use futures_util::future::join_all;
use http::StatusCode;
use tower_readthrough::{CacheStatus, Forward, Rules};

use super::{Cache, Served, caches, layers, stack};

use crate::support::{
    ScriptedOrigin, ScriptedResponse, get, get_with, ms, ok, request, secs, send, small_store, status,
};

/// Errors that are not failures of the service, with and without directives about storing.
fn errors() -> Vec<(String, impl Fn() -> ScriptedResponse + Send + Sync + Clone + 'static)> {
    let fields = [
        None,
        Some(("cache-control", "no-store")),
        Some(("cache-control", "private")),
        Some(("cache-control", "no-cache")),
        Some(("cache-control", "max-age=0")),
        Some(("set-cookie", "a=b")),
    ];
    let mut errors = Vec::new();
    for code in [400, 401, 403, 404, 405, 410, 414, 422, 429, 431, 451, 501] {
        for field in fields {
            let answer = move || {
                let answer = status(code).after(ms(10));
                match field {
                    Some((name, value)) => answer.header(name, value),
                    None => answer,
                }
            };
            errors.push((format!("{code} {field:?}"), answer));
        }
    }
    errors
}

/// Gives this response to requests with the field `bad`, and a page that may be shared to all others.
fn origin(bad: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::new(move |_, head| match head.headers.contains_key("bad") {
        true => bad(),
        false => ok("page").max_age(60).after(ms(10)),
    })
}

const BAD: &[(&str, &str)] = &[("bad", "1")];

async fn crowd(service: &Served, callers: usize) -> Vec<StatusCode> {
    let replies = join_all((0..callers).map(|_| get(service, "/"))).await;
    replies.into_iter().map(|reply| reply.status).collect()
}

fn coalescing(rules: Rules) -> [(&'static str, Cache); 2] {
    [("the stack", stack(rules.clone())), ("layers", layers(rules))]
}

#[tokio::test(start_paused = true)]
async fn an_error_for_one_client_leaves_a_cold_key_shared() {
    for (error, answer) in errors() {
        for (name, cache) in coalescing(Rules::new()) {
            let origin = origin(answer.clone());
            let service = cache(origin.clone());
            get_with(&service, "/", BAD).await;
            assert!(crowd(&service, 20).await.iter().all(|status| *status == 200), "{name} {error}");
            assert_eq!(origin.calls(), 2, "{name} {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_error_for_one_client_the_next_caller_fetches_for_all() {
    for (error, answer) in errors() {
        for (name, cache) in coalescing(Rules::new()) {
            let origin = origin(answer.clone());
            let service = cache(origin.clone());
            let (_, replies) = tokio::join!(get_with(&service, "/", BAD), crowd(&service, 20));
            assert!(replies.iter().all(|status| *status == 200), "{name} {error}");
            assert_eq!(origin.calls(), 2, "{name} {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_for_one_client_does_not_remove_a_stale_response() {
    let rules = Rules::new().stale_if_error_for(secs(600));
    for (error, answer) in errors() {
        // These mean that the resource is gone.
        if error.starts_with("404") || error.starts_with("410") {
            continue;
        }
        for (name, cache) in caches(rules.clone()) {
            let origin = ScriptedOrigin::new({
                let answer = answer.clone();
                move |call, head| match (call, head.headers.contains_key("bad")) {
                    (1, _) => ok("page").max_age(60),
                    (_, true) => answer(),
                    _ => status(503),
                }
            });
            let service = cache(origin.clone());
            get(&service, "/").await;
            tokio::time::advance(secs(61)).await;
            get_with(&service, "/", BAD).await;
            let reply = get(&service, "/").await;
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"page"[..]), "{name} {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_to_head_says_nothing_about_sharing_of_get() {
    type Head = fn() -> ScriptedResponse;
    let heads: [Head; 4] =
        [|| status(405), || status(500), || ok("").header("cache-control", "no-store"), || ok("")];
    for (n, head) in heads.into_iter().enumerate() {
        for (name, cache) in coalescing(Rules::new()) {
            let origin = ScriptedOrigin::new(move |_, request| match request.method.as_str() {
                "HEAD" => head(),
                _ => ok("page").max_age(60).after(ms(10)),
            });
            let service = cache(origin.clone());
            send(&service, request("HEAD", "/", &[])).await;
            assert!(crowd(&service, 20).await.iter().all(|status| *status == 200), "{name} {n}");
            assert_eq!(origin.calls(), 2, "{name} {n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_that_may_not_be_shared_still_says_so_for_head() {
    for (name, cache) in caches(Rules::new()) {
        let origin = ScriptedOrigin::always(|| ok("mine").header("cache-control", "private"));
        let service = cache(origin.clone());
        get(&service, "/").await;
        let head = send(&service, request("HEAD", "/", &[])).await;
        let why = head.cache_status.and_then(|status: CacheStatus| status.forward_reason());
        assert_eq!(why, Some(Forward::Bypass), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_burst_of_429_costs_the_origin_two_requests() {
    for field in ["", "no-store", "private"] {
        for (name, cache) in coalescing(Rules::new()) {
            let origin = ScriptedOrigin::always(move || {
                let answer = status(429).header("retry-after", "5").after(ms(10));
                if field.is_empty() { answer } else { answer.header("cache-control", field) }
            });
            let service = cache(origin.clone());
            for burst in 1..=3 {
                let replies = join_all((0..200).map(|_| get(&service, "/"))).await;
                assert!(replies.iter().all(|reply| reply.status == 429), "{name} {field}");
                assert!(
                    replies.iter().all(|reply| reply.header("retry-after") == Some("5")),
                    "{name} {field}"
                );
                assert_eq!(origin.calls(), 2 * burst, "{name} {field}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_too_large_for_the_store_leaves_no_hit_for_miss() {
    use tower::{Layer, ServiceExt};
    let store = small_store();
    let layer = tower_readthrough::StoreLayer::new(store.clone());
    let origin = ScriptedOrigin::always(|| {
        let chunk = vec![b'x'; 1 << 20];
        status(404).max_age(60).chunk(chunk.clone()).chunk(chunk)
    });
    let service = super::boxed(layer.layer(origin).boxed_clone());
    let reply = get(&service, "/").await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (404, 2 << 20));
    assert_eq!(store.stats().entries, 0);
}
