//! Small responses that are held until they are complete.

use super::*;
use crate::support::{BodySender, response, settle};
use tower_readthrough::{
    BuildError, CacheKey, Failover, OriginHealth, OriginState, ReadThrough, ReadThroughLayer, RetryPolicy,
    Rules, Stale,
};

const HELD: usize = 100;

/// Ten bytes are declared, and five come.
fn cut() -> ScriptedResponse {
    ok("12345").header("content-length", "10").cut()
}

/// As `cut`, but it looks complete.
fn short() -> ScriptedResponse {
    ok("12345").header("content-length", "10")
}

fn whole() -> ScriptedResponse {
    ok("12345").chunk("67890").header("content-length", "10").header("cache-control", "max-age=1")
}

fn holding(
    origin: &ScriptedOrigin,
    retry: RetryPolicy,
) -> ReadThrough<ScriptedOrigin, tower_readthrough::MemoryStore> {
    let layer = ReadThroughLayer::builder(crate::support::small_store())
        .rules(Rules::new().stale_if_error_for(secs(60)))
        .retry(retry)
        .origin_limit(OriginLimitLayer::new(64).hold_until_complete(HELD))
        .build()
        .unwrap();
    layer.layer(origin.clone())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_tried_again() {
    for broken in [cut, short] {
        let origin = ScriptedOrigin::new(move |call, _| if call == 1 { broken() } else { whole() });
        let reply = get(&holding(&origin, RetryPolicy::new()), "/").await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"1234567890"[..]));
        assert_eq!(origin.calls(), 2);
        // Without this setting the client has half of it.
        let origin = ScriptedOrigin::new(move |call, _| if call == 1 { broken() } else { whole() });
        let layer =
            ReadThroughLayer::builder(crate::support::small_store()).retry(RetryPolicy::new()).build();
        let reply = get(&layer.unwrap().layer(origin.clone()), "/").await;
        assert!(reply.is_cut);
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn something_stale_takes_the_place_of_a_body_that_breaks_off() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { whole() } else { cut() });
    let service = holding(&origin, RetryPolicy::never());
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    let reply = get(&service, "/").await;
    assert_eq!((reply.status, &reply.body[..], reply.is_cut), (StatusCode::OK, &b"1234567890"[..], false));
    assert_eq!(reply.cache_status.and_then(|status| status.stale_reason()), Some(Stale::IfError));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_anything_else_the_response_is_a_502_and_counts_as_a_failure() {
    for layer in [OriginLimitLayer::new(64), OriginLimitLayer::unlimited()] {
        // Whatever the policy says of 502.
        let health = OriginHealth::new();
        let layer = layer
            .hold_until_complete(HELD)
            .health(health.clone())
            .failures(|status: StatusCode, _: &http::HeaderMap| status == 500);
        let service = layer.layer(ScriptedOrigin::always(cut));
        for number in 0..20 {
            let mut request = request("GET", &format!("/{number}"), &[]);
            request.extensions_mut().insert(CacheKey::new(format!("key {number}")));
            let reply = send(&service, request).await;
            assert_eq!(
                (reply.status, &reply.body[..], refused(&reply)),
                (StatusCode::BAD_GATEWAY, &b""[..], None)
            );
        }
        assert_eq!(health.state(), OriginState::Down);
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_response_is_as_it_was() {
    let origin = ScriptedOrigin::always(|| whole().header("x-other", "1").trailer("x-sum", "2"));
    let service = OriginLimitLayer::new(64).hold_until_complete(10).layer(origin);
    let reply = get(&service, "/").await;
    assert_eq!(
        (&reply.body[..], reply.header("x-other"), reply.is_cut),
        (&b"1234567890"[..], Some("1"), false)
    );
    assert_eq!(reply.trailers.unwrap().get("x-sum").unwrap(), "2");
}

/// A response with such a length, and the sender of its body.
async fn begun(
    limit: usize,
    length: Option<&'static str>,
    request: Request<crate::support::Body>,
) -> (BodySender, impl Future<Output = Option<http::Response<tower_readthrough::Body<crate::support::Body>>>>)
{
    let (sender, body) = crate::support::Body::fed();
    let body = std::sync::Mutex::new(Some(body));
    let origin = ScriptedOrigin::always(move || {
        let fields: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
        response(&fields, body.lock().unwrap().take().unwrap())
    });
    let service = OriginLimitLayer::new(64).hold_until_complete(limit).layer(origin);
    let response = tokio::spawn(service.oneshot(request));
    settle().await;
    let is_there = response.is_finished();
    (sender, async move { if is_there { response.await.unwrap().ok() } else { None } })
}

#[tokio::test(start_paused = true)]
async fn what_is_longer_or_of_unknown_length_or_changes_something_is_not_held() {
    let with = |method: &str| request(method, "/", &[]);
    for (length, request, is_held) in [
        (Some("10"), with("GET"), true),
        (Some("11"), with("GET"), false),
        (None, with("GET"), false),
        (Some("10"), with("POST"), false),
        (Some("10"), with("OPTIONS"), true),
    ] {
        let name = format!("{} {length:?}", request.method());
        let (sender, response) = begun(10, length, request).await;
        let response = response.await;
        assert_eq!(response.is_none(), is_held, "{name}");
        drop((sender, response));
    }
    // A POST that is a read has a key.
    let mut read = with("POST");
    read.extensions_mut().insert(CacheKey::new("read"));
    let (_sender, response) = begun(10, Some("10"), read).await;
    assert!(response.await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_has_no_content_is_not_waited_for() {
    for (method, code) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 200)] {
        let length = if code == 200 && method == "GET" { "0" } else { "10" };
        let origin = ScriptedOrigin::always(move || status(code).header("content-length", length));
        let service = OriginLimitLayer::new(64).hold_until_complete(HELD).layer(origin);
        let reply = send(&service, request(method, "/", &[])).await;
        assert_eq!((reply.status.as_u16(), reply.is_cut), (code, false), "{method} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_permit_is_free_when_the_body_is_complete() {
    let origin = ScriptedOrigin::always(whole);
    let service = OriginLimitLayer::new(1).max_queue(0).hold_until_complete(HELD).layer(origin);
    let unread = service.clone().oneshot(request("GET", "/1", &[])).await.unwrap();
    assert_eq!(get(&service, "/2").await.status, StatusCode::OK);
    drop(unread);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_a_body_is_held_leaves_nothing_behind() {
    let (sender, body) = crate::support::Body::fed();
    sender.send("12345");
    let body = std::sync::Mutex::new(Some(body));
    let origin = ScriptedOrigin::new(move |_, _| match body.lock().unwrap().take() {
        Some(body) => response(&[("content-length", "10")], body),
        None => whole(),
    });
    let health = OriginHealth::new();
    let layer = OriginLimitLayer::new(1).max_queue(0).hold_until_complete(HELD).health(health.clone());
    let service = layer.layer(origin.clone());
    let client = tokio::spawn(service.clone().oneshot(request("GET", "/1", &[])));
    settle().await;
    assert!(!client.is_finished());
    assert_eq!(refused(&get(&service, "/2").await), Some(Refused::QueueFull));
    client.abort();
    settle().await;
    assert!(sender.is_closed());
    assert_eq!(get(&service, "/3").await.body, "1234567890");
    assert_eq!(health.state(), OriginState::Up);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_moves_a_request_on_to_the_next_origin() {
    let origins = [ScriptedOrigin::always(cut), ScriptedOrigin::always(whole)];
    let failover = Failover::builder(origins[0].clone(), [origins[1].clone()])
        .origin_limit(|_| OriginLimitLayer::unlimited().hold_until_complete(HELD))
        .build()
        .unwrap();
    assert_eq!(get(&failover, "/").await.body, "1234567890");
    assert_eq!(origins.map(|origin| origin.calls()), [1, 1]);
}

#[test]
fn a_limit_out_of_bounds_is_refused() {
    let built = |bytes| {
        ReadThroughLayer::builder(crate::support::small_store())
            .origin_limit(OriginLimitLayer::unlimited().hold_until_complete(bytes))
            .build()
            .err()
    };
    assert!(matches!(built(0), Some(BuildError::ZeroLimit { setting: "hold_until_complete", .. })));
    assert_eq!(built(1 << 20), None);
    let refused = built((1 << 20) + 1);
    assert!(matches!(refused, Some(BuildError::LargeLimit { setting: "hold_until_complete", .. })));
    assert!(refused.unwrap().to_string().contains("1048576"));
}
