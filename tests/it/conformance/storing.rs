//! What is stored (RFC 9111 §3).

use super::*;

#[tokio::test]
async fn private_responses_are_not_stored() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    for (section, request, code, fields, expected) in [
        ("5.2.2.5", "", 200, "cache-control: no-store", ASKED),
        ("5.2.2.5", "", 200, "cache-control: no-store, max-age=60", ASKED),
        ("5.2.2.5", "", 200, "cache-control: no-store\nexpires: {60}", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private, max-age=60", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private, s-maxage=60", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private=\"\", max-age=60", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private=\"x-a\", max-age=60", REUSED),
        ("5.2.2.4", "", 200, "cache-control: no-cache=\"x-a\", max-age=60", REUSED),
        ("7.3", "", 200, "cache-control: max-age=60\nset-cookie: a=b", ASKED),
        ("7.3", "cookie: a=b", 200, "cache-control: max-age=60", REUSED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60", ASKED),
        ("3.5", "authorization: x", 200, "expires: {60}", ASKED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60, proxy-revalidate", ASKED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60, public", REUSED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60, must-revalidate", REUSED),
        ("3.5", "authorization: x", 200, "cache-control: s-maxage=60", REUSED),
        ("5.2.2.3", "", 200, "cache-control: max-age=60, must-understand", REUSED),
        ("5.2.2.3", "", 200, "cache-control: max-age=60, must-understand, no-store", REUSED),
        ("5.2.2.3", "", 404, "cache-control: max-age=60, must-understand, no-store", REUSED),
        ("5.2.2.3", "", 299, "cache-control: max-age=60, must-understand", ASKED),
        ("5.2.2.3", "", 599, "cache-control: max-age=60, must-understand", ASKED),
        ("5.2.2.3", "", 599, "cache-control: max-age=60, must-understand, no-store", ASKED),
    ] {
        let page = bench.page(&[status(code, fields)]);
        wrong.check((section, request, code, fields), is_reused(&page, request).await, expected);
    }
    wrong.report();
}

#[tokio::test]
async fn only_a_complete_response_is_reused_as_complete() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fresh = "cache-control: max-age=60";
    let chunked = "cache-control: max-age=60\ntransfer-encoding: chunked";
    let part = "cache-control: max-age=60\ncontent-range: bytes 0-0/10";
    let whole = ok(fresh).body("whole");
    for (section, request, reply, first, second) in [
        ("3.3", "", ok(fresh).body("who").cut(), None, "whole"),
        ("3.3", "", ok(chunked).body("3\r\nwho\r\n"), None, "whole"),
        ("3.3", "", ok(chunked).body("3\r\nwho\r\n0\r\n\r\n"), Some("who"), "who"),
        ("3.3", "", ok(fresh).body("who").until_close(), Some("who"), "who"),
        ("3.4", "range: bytes=0-0", status(206, part).body("w"), Some("w"), "whole"),
        ("3.4", "", status(206, part).body("w"), Some("w"), "whole"),
        ("4.3.4", "", status(304, fresh), Some(""), "whole"),
    ] {
        let page = bench.page(&[reply.clone(), whole.clone()]);
        let (one, two) = (page.get(request).await, page.get("").await);
        wrong.check((section, &reply), (one.body.as_deref(), two.text()), (first, (200, second)));
    }
    wrong.report();
}

#[tokio::test]
async fn fields_are_reused_but_those_that_are_for_one_message() {
    let bench = Bench::start().await;
    let page = bench.page(&[ok("cache-control: max-age=60
        connection: x-hop, x-other
        x-hop: 1
        x-other: 1
        keep-alive: timeout=5
        proxy-authenticate: Basic
        proxy-connection: keep-alive
        te: trailers
        x-repeated: b
        content-type: text/plain;charset=utf-8
        content-language: de
        x-repeated: a, a
        content-location: /elsewhere
        etag: \"a\"
        x-repeated:
        last-modified: {-60}
        vary: accept
        warning: 110 - \"x\"
        x-repeated: b
        x-frame-options: DENY
        unknown-field: \u{fc}?")]);
    let (first, second) = (page.get("").await, page.get("").await);
    assert!(second.is_hit() && page.calls() == 1);
    for name in
        ["connection", "x-hop", "x-other", "keep-alive", "proxy-authenticate", "proxy-connection", "te"]
    {
        assert_eq!(second.field(name), None, "{name} (9110 7.6.1, 9111 3.1)");
    }
    assert_eq!(second.fields("x-repeated"), ["b", "a, a", "", "b"], "in order (9110 5.3)");
    let others = |got: &Got| {
        let fields = got.headers.iter().filter(|(name, _)| !["age", "cache-status"].contains(&name.as_str()));
        fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    let (mut first, mut second) = (others(&first), others(&second));
    assert!(second.len() >= 16, "{second:?}");
    // The origin sent no Date (9110 6.6.1).
    first.retain(|(name, _)| name != "date");
    second.retain(|(name, _)| name != "date");
    assert_eq!(second, first, "3.1");
}

#[tokio::test]
async fn fields_that_are_not_stored_reach_only_the_client_that_fetched_them() {
    let bench = Bench::start().await;
    for directive in [
        "private=\"x-a\"",
        "no-cache=\"x-a\"",
        "private=\"X-A , set-cookie\"",
        "private=\"set-cookie\", no-cache=\"x-a\"",
        "private=x-a",
    ] {
        let fields = format!("cache-control: max-age=60, {directive}\nx-a: 1\nx-b: 2");
        let page = bench.page(&[ok(&fields)]);
        let (first, second) = (page.get("").await, page.get("").await);
        assert_eq!((first.field("x-a"), first.field("x-b")), (Some("1"), Some("2")), "{directive}");
        assert!(second.is_hit(), "{directive}");
        assert_eq!((second.field("x-a"), second.field("x-b")), (None, Some("2")), "5.2.2.4, 5.2.2.7");
    }
    let page = bench.page(&[ok("cache-control: max-age=60, private=\"set-cookie\"\nset-cookie: a=b")]);
    assert_eq!(page.get("").await.field("set-cookie"), Some("a=b"));
    let second = page.get("").await;
    assert_eq!((second.is_hit(), second.field("set-cookie")), (true, None), "5.2.2.7");
}
