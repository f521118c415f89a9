//! What a hit costs in allocations, each with its reason.

mod support;

use axum::body::Body;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use support::open::{Origin, fixed, get, response, store};
use tower::{Layer, Service};
use tower_readthrough::StoreLayer;

/// The allocations of one call that is answered at once, its body read to the end.
fn allocations<S, B>(service: &mut S, request: Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body + Unpin,
{
    let answer_and_read = || {
        let answer = service.call(request).now_or_never();
        let response = answer.expect("answered at once").unwrap_or_else(|_| unreachable!());
        let mut body = response.into_body();
        assert!(body.frame().now_or_never().is_some());
    };
    allocation_counter::measure(answer_and_read).count_total
}

fn origin() -> Origin {
    let fields: Vec<_> = (0..8).map(|n| (format!("x-field-{n}"), "value")).collect();
    Origin::new(move |_, _| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let answer = response(&fields, "hello");
        async { answer }
    })
}

/// * 2: the entries and the index of the header map
const HIT: u64 = 2;

#[tokio::test]
async fn a_hit_allocates_what_it_hands_out_and_no_more() {
    let mut stack = support::open::stack(fixed(60_000)).layer(origin());
    let mut plain = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin());
    for _ in 0..2 {
        support::open::call(&stack, get("http://h/")).await;
        support::open::call(&plain, get("http://h/")).await;
    }
    assert_eq!(allocations(&mut plain, get("http://h/")), HIT);
    assert_eq!(allocations(&mut stack, get("http://h/")), HIT, "the other layers cost a hit nothing");
}

#[tokio::test]
async fn a_request_without_a_key_costs_nothing() {
    let post = || Request::post("http://h/").body(Body::empty()).unwrap();
    let bare = allocations(&mut origin(), post());
    let mut stack = support::open::stack(fixed(60_000)).layer(origin());
    assert_eq!(allocations(&mut stack, post()), bare);
}
