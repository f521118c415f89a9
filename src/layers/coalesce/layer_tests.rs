use super::*;
use crate::{
    KeyLayer,
    exchange::status::{CACHE_STATUS, CacheStatus},
};
use bytes::Bytes;
use http_body_util::Full;
use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// How often the origin is asked by two requests at once.
async fn calls(layer: CoalesceLayer) -> u32 {
    let calls = AtomicU32::new(0);
    let calls: &'static AtomicU32 = Box::leak(Box::new(calls));
    let service = ServiceBuilder::new().layer(KeyLayer::default()).layer(layer).service(service_fn(
        async move |_: Request<Full<Bytes>>| {
            calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
        },
    ));
    let get = || service.clone().oneshot(Request::get("http://h/").body(Full::default()).unwrap());
    let (first, second) = tokio::join!(get(), get());
    assert!(first.is_ok() && second.is_ok());
    calls.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_response_that_the_layers_below_leave_unjudged_is_for_one_caller() {
    let layer = CoalesceLayer::new().rules(Rules::new().fixed_ttl(Duration::from_secs(1)));
    assert_eq!(calls(layer.clone()).await, 1);
    assert_eq!(calls(layer.judged_below()).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_shared_response_from_the_store_says_that_it_is_one() {
    let layer = CoalesceLayer::new().rules(Rules::new().fixed_ttl(Duration::from_secs(1)));
    let service = ServiceBuilder::new().layer(KeyLayer::default()).layer(layer).service(service_fn(
        async |_: Request<Full<Bytes>>| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut response = Response::new(Full::<Bytes>::from("hello"));
            // As `Fill` says it, when another fetch was faster.
            response.headers_mut().append(CACHE_STATUS, CacheStatus::hit().to_value());
            Ok::<_, Infallible>(response)
        },
    ));
    let get = || service.clone().oneshot(Request::get("http://h/").body(Full::default()).unwrap());
    let (first, second) = tokio::join!(get(), get());
    assert_eq!(CacheStatus::of(&first.unwrap()), Some(CacheStatus::hit()));
    assert_eq!(CacheStatus::of(&second.unwrap()), Some(CacheStatus::hit().collapsed()));
}
