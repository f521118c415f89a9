//! Bodies that end before they are as long as their head says.

use futures_util::future::join_all;
use http::StatusCode;
use tower::Layer;
use tower_readthrough::{CoalesceLayer, KeyLayer, MemoryStore, ReadThroughLayer, StoreLayer};

use crate::support::{ScriptedOrigin, ScriptedResponse, fixed, get, ms, ok, request, send, status};

/// Three bytes of five, with these fields.
fn short(fields: &'static [(&'static str, &'static str)], by_field: bool) -> ScriptedOrigin {
    ScriptedOrigin::always(move || {
        let answer = ok("abc").after(ms(10));
        let answer = if by_field { answer.header("content-length", "5") } else { answer.declares(5) };
        fields.iter().fold(answer, |answer: ScriptedResponse, (name, value)| answer.header(name, value))
    })
}

const KINDS: [&[(&str, &str)]; 4] = [
    &[("cache-control", "max-age=60")],
    &[("cache-control", "no-store")],
    &[("cache-control", "private")],
    &[("cache-control", "max-age=60"), ("set-cookie", "a=1")],
];

#[tokio::test(start_paused = true)]
async fn no_caller_of_the_stack_takes_a_short_body_for_complete() {
    for (fields, by_field) in KINDS.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
        let (origin, store) = (short(fields, by_field), MemoryStore::with_capacity_bytes(1 << 20));
        let service = ReadThroughLayer::builder(store).build().unwrap().layer(origin.clone());
        for reply in join_all((0..3).map(|_| get(&service, "/"))).await {
            assert!(reply.is_cut, "{fields:?} {by_field}");
        }
        let calls = origin.calls();
        assert!(get(&service, "/").await.is_cut, "and it is not stored");
        assert_eq!(origin.calls(), calls + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn no_caller_of_a_single_layer_takes_a_short_body_for_complete() {
    for (fields, by_field) in KINDS.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
        let origin = short(fields, by_field);
        let stored = StoreLayer::new(MemoryStore::with_capacity_bytes(1 << 20)).layer(origin.clone());
        assert!(get(&stored, "/").await.is_cut && get(&stored, "/").await.is_cut);
        assert_eq!(origin.calls(), 2, "not stored");

        let shared = KeyLayer::default().layer(CoalesceLayer::new().layer(origin.clone()));
        for reply in join_all((0..3).map(|_| get(&shared, "/"))).await {
            assert!(reply.is_cut, "{fields:?} {by_field}");
        }
    }
}

/// Trailers stand behind the content, and do not make it longer.
#[tokio::test(start_paused = true)]
async fn trailers_or_an_empty_body_do_not_complete_a_short_body() {
    let answers: [fn() -> ScriptedResponse; 3] = [
        || ok("abc").header("content-length", "5").trailer("x-sum", "3").max_age(60),
        || ok("").header("content-length", "5").max_age(60),
        || ok("").header("content-length", "5").header("cache-control", "no-store"),
    ];
    for answer in answers {
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let service =
            ReadThroughLayer::builder(store.clone()).build().unwrap().layer(ScriptedOrigin::always(answer));
        assert!(get(&service, "/").await.is_cut);
        let service = StoreLayer::new(store).layer(ScriptedOrigin::always(answer));
        assert!(get(&service, "/").await.is_cut);
        let service = KeyLayer::default().layer(CoalesceLayer::new().layer(ScriptedOrigin::always(answer)));
        assert!(get(&service, "/").await.is_cut);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_content_by_method_or_status_is_complete() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let origin = ScriptedOrigin::new(|_, head| {
        let mut answer = ok("").header("content-length", "5").max_age(60);
        if head.uri.path() == "/304" {
            answer = status(304).header("content-length", "5").header("etag", "\"a\"");
        }
        answer
    });
    let layer = ReadThroughLayer::builder(store.clone()).build().unwrap();
    let alone = CoalesceLayer::new().rules(fixed(60_000));
    let alone = KeyLayer::default().layer(alone.layer(origin.clone()));
    let service = layer.layer(origin.clone());
    for reply in [
        send(&service, request("HEAD", "/", &[])).await,
        send(&alone, request("HEAD", "/", &[])).await,
        send(&service, request("GET", "/304", &[("if-none-match", "\"a\"")])).await,
        send(&alone, request("GET", "/304", &[("if-none-match", "\"a\"")])).await,
    ] {
        assert!(!reply.is_cut);
        assert!([StatusCode::OK, StatusCode::NOT_MODIFIED].contains(&reply.status));
    }
}
