//! Work and memory that a crafted request costs.

use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, header};
use tower::{Layer, Service};
use tower_readthrough::{KeyRules, ReadThroughLayer, Rules};

use crate::support::{Body, ScriptedOrigin, bytes, call, fixed, get_request, response, store};

fn with(name: &HeaderName, value: &str) -> Request<Body> {
    let mut request = get_request("http://h/");
    request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    request
}

/// An origin that says in its body what it sees of a field.
fn echo(name: HeaderName, vary: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |_, request| {
        let seen = request.headers().get(&name).map_or(0, HeaderValue::len);
        async move { response(&[("vary", vary)], seen.to_string()) }
    })
}

/// `en;q=0,en,en,…`: each range finds a language that another one refuses.
#[tokio::test(start_paused = true)]
async fn a_long_accept_language_is_not_reduced_and_is_compared_as_it_is_written() {
    let rules = KeyRules::builder().accept_language(["en", "de"]).accept_encoding(["br"]).build().unwrap();
    for (name, start, member) in
        [(header::ACCEPT_LANGUAGE, "en;q=0", ",en"), (header::ACCEPT_ENCODING, "br;q=0.1", ",br")]
    {
        let origin = echo(name.clone(), "accept-language, accept-encoding");
        let layer =
            ReadThroughLayer::builder(store()).key(rules.clone()).rules(fixed(60_000)).build().unwrap();
        let stack = layer.layer(origin.clone());
        let long = format!("{start}{}", member.repeat(100_000));
        for _ in 0..2 {
            let (_, seen) = call(&stack, with(&name, &long)).await;
            assert_eq!(seen, long.len().to_string(), "{name} reaches the origin as it is written");
        }
        assert_eq!(origin.calls(), 1, "{name} is a hit as it is written");
        call(&stack, with(&name, &format!("{long},"))).await;
        assert_eq!(origin.calls(), 2, "{name} has no normal form");
        let most = format!("{start}{}", member.repeat(63));
        call(&stack, with(&name, &most)).await;
        call(&stack, with(&name, &most.replace(',', " , "))).await;
        assert_eq!(origin.calls(), 3, "{name} has a normal form up to 64 members");
        call(&stack, with(&name, &format!("{most}{member}"))).await;
        assert_eq!(origin.calls(), 4, "{name} has none with more");
    }
}

/// Each of them would otherwise have the field brought into its normal form again.
#[tokio::test(start_paused = true)]
async fn a_long_selecting_field_costs_no_more_where_many_variants_are_stored() {
    for name in ["accept", "accept-language", "accept-encoding", "cookie", "x-own"] {
        let allocated = async |variants: usize| {
            let name = HeaderName::from_static(name);
            let vary = "accept, accept-language, accept-encoding, cookie, x-own";
            let layer = ReadThroughLayer::builder(store()).rules(Rules::new()).build().unwrap();
            let origin = ScriptedOrigin::with_future(move |_, _| async move {
                response(&[("vary", vary), ("cache-control", "public, max-age=60")], "hello")
            });
            let mut stack = layer.layer(origin.clone());
            let long = "en, ".repeat(16_000);
            for number in 0..variants {
                call(&stack, with(&name, &format!("{long}x{number:02}"))).await;
            }
            // The variant that is compared last.
            let request = with(&name, &format!("{long}x00"));
            let mut response = None;
            let count = allocation_counter::measure(|| response = stack.call(request).now_or_never());
            let response = response.expect("answered at once").unwrap();
            assert_eq!(bytes(response).await, "hello");
            assert_eq!(origin.calls(), variants, "the last request is a hit");
            (count.count_total, count.bytes_total)
        };
        let (one, many) = (allocated(1).await, allocated(32).await);
        assert!(many.0 <= one.0 && many.1 <= one.1, "{name}: {one:?} with one, {many:?} with many");
    }
}

/// Each stored part would otherwise have it read again.
#[tokio::test(start_paused = true)]
async fn a_long_range_is_not_read() {
    let origin = ScriptedOrigin::with_future(|_, _| async { response(&[], "hello") });
    let layer = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap();
    let stack = layer.layer(origin.clone());
    call(&stack, get_request("http://h/")).await;
    let short = format!("bytes={}1-3", "0".repeat(500));
    assert_eq!(call(&stack, with(&header::RANGE, &short)).await.0, 206);
    for long in [format!("bytes={}1-3", "0".repeat(60_000)), format!("bytes={}", "0-0,".repeat(16_000))] {
        let (status, body) = call(&stack, with(&header::RANGE, &long)).await;
        assert_eq!(
            (status.as_u16(), &body[..]),
            (200, &b"hello"[..]),
            "the whole is served (RFC 9110 §14.2)"
        );
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn quotation_marks_that_are_never_closed_are_no_directives() {
    let origin = ScriptedOrigin::with_future(|_, _| async { response(&[], "hello") });
    let layer = ReadThroughLayer::builder(store())
        .rules(fixed(60_000))
        .lookup(|lookup| lookup.request_directives(true));
    let stack = layer.build().unwrap().layer(origin.clone());
    call(&stack, get_request("http://h/")).await;
    for (calls, name) in [(1, header::CACHE_CONTROL), (2, header::PRAGMA)] {
        let line = format!("\"{}", "\\\"".repeat(20_000));
        call(&stack, with(&name, &line)).await;
        assert_eq!(origin.calls(), calls, "{name}");
        call(&stack, with(&name, &format!("{line} no-cache"))).await;
        assert_eq!(origin.calls(), calls + 1, "{name}: what is not closed quotes nothing");
    }
}
