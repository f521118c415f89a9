//! Values of selecting fields are the same only where the field's own specification says so
//! (RFC 9111 §4.1).

use http::Request;

use super::on_each;

use crate::support::{Body, ScriptedOrigin, ok, send};

fn lines(name: &str, lines: &[&str]) -> Request<Body> {
    let mut request = Request::get("http://example.com/");
    for line in lines {
        request = request.header(name, *line);
    }
    request.body(Body::default()).unwrap()
}

fn varying(name: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, _| ok(call.to_string()).max_age(60).header("vary", name))
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_not_a_list_is_compared_byte_for_byte() {
    for name in ["cookie", "user-agent", "x-tenant", "origin", "referer", "from", "x-forwarded-for"] {
        for (first, second) in [
            (&["a=1,b=2"][..], &["a=1, b=2"][..]),
            (&["a=1, b=2"], &["a=1,  b=2"]),
            (&["a=1,b=2"], &["a=1,,b=2"]),
            (&["a=1,"], &["a=1"]),
            (&["a=1,b=2"], &["a=1", "b=2"]),
            (&["a=1, b=2"], &["a=1", "b=2"]),
            (&["a=1", "b=2"], &["b=2", "a=1"]),
            (&["a"], &["A"]),
            (&["a; b"], &["a;b"]),
            (&[","], &[""]),
            (&[""], &[]),
        ] {
            on_each!(varying(name), async |service: &_, origin: &ScriptedOrigin| {
                for wanted in [first, second, first, second] {
                    send(service, lines(name, wanted)).await;
                }
                assert_eq!(origin.calls(), 2, "{name}: {first:?} {second:?}");
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_lines_of_a_field_that_is_not_a_list_select_another_variant() {
    on_each!(varying("x-tenant"), async |service: &_, origin: &ScriptedOrigin| {
        for wanted in [&["a", ""][..], &["a"], &["", "a"], &["a", ""]] {
            send(service, lines("x-tenant", wanted)).await;
        }
        assert_eq!(origin.calls(), 3);
    });
}

/// HTTP/2 and HTTP/3 may split the field, which is one line again elsewhere (RFC 9113 §8.2.3).
#[tokio::test(start_paused = true)]
async fn cookies_in_several_lines_equal_those_in_one() {
    on_each!(varying("cookie"), async |service: &_, origin: &ScriptedOrigin| {
        send(service, lines("cookie", &["a=1; b=2"])).await;
        assert!(send(service, lines("cookie", &["a=1", "b=2"])).await.is_hit());
        assert_eq!(origin.calls(), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn lists_are_the_same_up_to_white_space_and_lines() {
    for name in ["accept", "access-control-request-headers", "cache-control", "prefer", "te", "via"] {
        on_each!(varying(name), async |service: &_, origin: &ScriptedOrigin| {
            send(service, lines(name, &["a, b"])).await;
            assert!(send(service, lines(name, &["a,b"])).await.is_hit(), "{name}");
            assert!(send(service, lines(name, &["a", "b"])).await.is_hit(), "{name}");
            send(service, lines(name, &["b,a"])).await;
            assert_eq!(origin.calls(), 2, "{name}");
        });
    }
}

/// RFC 9110 §12.5.4: some recipients take the first of those with equal weight.
#[tokio::test(start_paused = true)]
async fn the_order_of_languages_with_equal_weight_counts() {
    on_each!(varying("accept-language"), async |service: &_, origin: &ScriptedOrigin| {
        send(service, lines("accept-language", &["de, en"])).await;
        send(service, lines("accept-language", &["en, de"])).await;
        assert_eq!(origin.calls(), 2);
        assert!(send(service, lines("accept-language", &["DE,en"])).await.is_hit());
        send(service, lines("accept-language", &["en;q=0.5, de"])).await;
        assert!(send(service, lines("accept-language", &["de, en;q=0.50"])).await.is_hit());
        assert_eq!(origin.calls(), 3);
    });
    on_each!(varying("accept-encoding"), async |service: &_, origin: &ScriptedOrigin| {
        send(service, lines("accept-encoding", &["gzip, br"])).await;
        assert!(send(service, lines("accept-encoding", &["br, gzip"])).await.is_hit());
        assert_eq!(origin.calls(), 1);
    });
}
