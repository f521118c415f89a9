//! What a purge reaches, and that no later request gets it.

mod bounds;
mod reach;
mod soft;
mod under_way;
mod unproven;

use crate::support::{Body, ScriptedOrigin, bytes, call, fixed, get_request, ms, response, status, store};
use http::{Extensions, HeaderValue, Request, StatusCode, Uri, request::Parts};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::sleep};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    BuildError, CacheKey, CacheStatus, CoalesceLayer, FillLayer, KeyExtractor, KeyLayer, LookupLayer,
    MemoryStore, Purge, PurgeError, ReadThrough, ReadThroughLayer, Rules, Store, StoreLayer,
};

const URI: &str = "http://h/a/b?c=1";

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

/// Responds with the number of the call, with tags, and with a variant for each `accept`.
fn tagged() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|n, _| async move {
        response(&[("surrogate-key", "red green"), ("vary", "accept")], n.to_string())
    })
}

fn stack_of(origin: &ScriptedOrigin, rules: Rules) -> (Service, Purge, MemoryStore) {
    let store = store();
    let layer = ReadThroughLayer::builder(store.clone()).rules(rules).build().unwrap();
    (layer.layer(origin.clone()), layer.purge(), store)
}

fn accepting(uri: &str, accept: &'static str) -> Request<Body> {
    let mut request = get_request(uri);
    request.headers_mut().insert("accept", accept.parse().unwrap());
    request
}

fn key(uri: &str) -> CacheKey {
    use tower_readthrough::DefaultKey;
    DefaultKey::new().key(&Request::get(uri).body(()).unwrap().into_parts().0).unwrap()
}

/// Whether a purge reaches what is stored for `URI`, in all its variants.
async fn reaches(purge: impl FnOnce(&Purge)) -> bool {
    let origin = tagged();
    let (service, handle, _) = stack_of(&origin, fixed(60_000));
    for accept in ["x", "y", "x", "y"] {
        call(&service, accepting(URI, accept)).await;
    }
    assert_eq!(origin.calls(), 2);
    purge(&handle);
    for accept in ["x", "y", "x", "y"] {
        call(&service, accepting(URI, accept)).await;
    }
    assert!([2, 4].contains(&origin.calls()), "both or none");
    origin.calls() == 4
}

/// Whether a purge does not reach it. URIs that share a floor by their hash are purged together: one
/// time in some thousand, and not again in a store that hashes otherwise.
async fn spares(purge: impl Fn(&Purge)) -> bool {
    !reaches(&purge).await || !reaches(&purge).await || !reaches(&purge).await
}

/// Fresh for ten seconds; sends a 304 from the second response on.
fn confirming() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|n, request| async move {
        let is_confirmed = request.headers().get("if-none-match").is_some_and(|tag| tag == "\"1\"");
        let fields = [("cache-control", "max-age=10"), ("etag", "\"1\""), ("surrogate-key", "red")];
        match is_confirmed {
            true => {
                let mut confirmed = status(304);
                confirmed.headers_mut().insert("cache-control", "max-age=10".parse().unwrap());
                confirmed
            }
            false => response(&fields, n.to_string()),
        }
    })
}

async fn seen(service: &Service, uri: &str) -> (String, String) {
    let response = service.clone().oneshot(get_request(uri)).await.unwrap();
    let status = CacheStatus::of(&response).map_or_else(String::new, |status| status.to_string());
    (status, String::from_utf8(bytes(response).await.to_vec()).unwrap())
}

type Apply = fn(&Purge);

/// All kinds of purges.
const KINDS: [(&str, Apply); 6] = [
    ("url", |purge| _ = purge.url(URI).unwrap()),
    ("key", |purge| _ = purge.key(&key(URI))),
    ("tag", |purge| _ = purge.tag("red")),
    ("path", |purge| _ = purge.path_prefix("http://h/a").unwrap()),
    ("prefix", |purge| _ = purge.key_prefix([])),
    ("everything", |purge| _ = purge.everything()),
];

fn origin_of_one_answer() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|n, _| async move {
        match n {
            1 => response(&[("surrogate-key", "red")], "1"),
            _ => status(503),
        }
    })
}

/// The content when the fetch began, which is sent 100 ms later.
fn slow(content: &Arc<AtomicU64>) -> ScriptedOrigin {
    let content = Arc::clone(content);
    ScriptedOrigin::with_future(move |_, _| {
        let content = content.load(Ordering::SeqCst);
        async move {
            sleep(ms(100)).await;
            response(&[("surrogate-key", "red")], content.to_string())
        }
    })
}

fn crowd(service: &Service, n: usize) -> JoinSet<String> {
    let mut callers = JoinSet::new();
    for _ in 0..n {
        let service = service.clone();
        callers.spawn(async move { seen(&service, URI).await.1 });
    }
    callers
}

/// Stores this many responses, each with a tag of its own and with one for all.
async fn fill_with(service: &Service, n: usize) {
    for i in 0..n {
        call(service, get_request(&format!("http://h/{i}"))).await;
    }
}

fn tag_per_path() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        let tags = format!("all t{}", request.uri().path().trim_matches('/'));
        response(&[("surrogate-key", &tags)], "x")
    })
}
