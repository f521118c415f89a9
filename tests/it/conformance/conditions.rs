//! Conditional requests of clients (RFC 9110 §13).

use super::*;

#[tokio::test]
async fn conditional_requests_are_evaluated_against_the_stored_response() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fields = "cache-control: max-age=60
        date: Sun, 06 Nov 2050 08:49:37 GMT
        etag: \"a\"
        last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let page = bench.page(&[ok(fields)]);
    page.get("").await;
    for (section, request, expected) in [
        ("9110 13.1.2", "if-none-match: \"a\"", 304),
        ("9110 13.1.2", "if-none-match: W/\"a\"", 304),
        ("9110 13.1.2", "if-none-match: \"b\", \"a\"", 304),
        ("9110 13.1.2", "if-none-match: \"a\", \"b\"", 304),
        ("9110 13.1.2", "if-none-match: \"b\",,W/\"a\" , \"c\"", 304),
        ("9110 13.1.2", "if-none-match: \"b\"\nif-none-match: \"a\"", 304),
        ("9110 13.1.2", "if-none-match: *", 304),
        ("9110 13.1.2", "if-none-match: \"b\"", 200),
        ("9110 13.1.2", "if-none-match: \"b\", W/\"c\"", 200),
        ("9110 8.8.3", "if-none-match: \"A\"", 200),
        ("9110 8.8.3", "if-none-match: a", 200),
        ("9110 8.8.3", "if-none-match: \"b, \"a\"\"", 200),
        ("9110 8.8.3", "if-none-match: w/\"a\"", 200),
        ("9110 13.1.3", "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("9110 13.1.3", "if-modified-since: Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("9110 13.1.3", "if-modified-since: Sun Nov  6 08:49:37 1994", 304),
        ("9110 13.1.3", "if-modified-since: {-60}", 304),
        ("9110 13.1.3", "if-modified-since: Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("9110 13.1.3", "if-modified-since: yesterday", 200),
        ("9110 13.2.2", "if-none-match: \"b\"\nif-modified-since: {-60}", 200),
        ("9110 13.2.2", "if-none-match: \"a\"\nif-modified-since: Sun, 06 Nov 1994 08:49:36 GMT", 304),
    ] {
        let got = page.get(request).await;
        let body = if expected == 200 { "1" } else { "" };
        wrong.check((section, request), got.text(), (expected, body));
        let head = page.send("HEAD", request).await;
        wrong.check((section, "HEAD", request), head.text(), (expected, ""));
    }
    wrong.check("9110 13", page.calls(), 1);

    for (section, code, stored, request, expected) in [
        ("9110 8.8.3.2", 200, "etag: W/\"a\"", "if-none-match: \"a\"", 304),
        ("9110 8.8.3.2", 200, "etag: W/\"a\"", "if-none-match: W/\"a\"", 304),
        ("9110 13.1.2", 200, "", "if-none-match: \"a\"", 200),
        ("9110 13.1.2", 200, "", "if-none-match: *", 304),
        ("4.3.2", 200, "date: {-30}", "if-modified-since: {-20}", 304),
        ("4.3.2", 200, "date: {-30}", "if-modified-since: {-40}", 200),
        // Only a success is compared.
        ("9110 13.2.1", 404, "etag: \"a\"", "if-none-match: \"a\"", 404),
        ("9110 13.2.1", 301, "etag: \"a\"", "if-none-match: \"a\"", 301),
    ] {
        let page = bench.page(&[status(code, &format!("cache-control: max-age=60\n{stored}"))]);
        page.get("").await;
        let got = page.get(request).await;
        wrong.check((section, code, stored, request), (got.status, page.calls()), (expected, 1));
    }
    wrong.report();
}

/// These are for origins, and caches may ignore them (9110 13.1.1, 13.1.4; 4.3.2). This cache
/// evaluates them as its origin would.
#[tokio::test]
async fn preconditions_for_origins_are_evaluated_by_the_origin() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let with_both = "etag: \"a\"\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    for (section, code, stored, request, expected) in [
        ("9110 13.1.1", 200, with_both, "if-match: \"a\"", 200),
        ("9110 13.1.1", 200, with_both, "if-match: \"b\", \"a\"", 200),
        ("9110 13.1.1", 200, with_both, "if-match: *", 200),
        ("9110 13.1.1", 200, with_both, "if-match: \"b\"", 412),
        ("9110 13.1.1", 200, with_both, "if-match: W/\"a\"", 412),
        ("9110 8.8.3.2", 200, "etag: W/\"a\"", "if-match: W/\"a\"", 412),
        ("9110 13.1.4", 200, with_both, "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("9110 13.1.4", 200, with_both, "if-unmodified-since: Sun, 06 Nov 1994 08:49:36 GMT", 412),
        ("9110 13.1.4", 200, with_both, "if-unmodified-since: yesterday", 200),
        ("9110 13.1.4", 200, "date: {-30}", "if-unmodified-since: {-40}", 200),
        (
            "9110 13.2.2",
            200,
            with_both,
            "if-match: \"a\"\nif-unmodified-since: Sun, 06 Nov 1994 08:49:36 GMT",
            200,
        ),
        ("9110 13.2.2", 200, with_both, "if-match: \"a\"\nif-none-match: \"a\"", 304),
        ("9110 13.2.2", 200, with_both, "if-match: \"b\"\nif-none-match: \"a\"", 412),
        ("9110 13.2.2", 200, with_both, "range: bytes=0-0\nif-match: \"b\"", 412),
        ("9110 13.2.2", 200, with_both, "range: bytes=0-0\nif-match: \"a\"", 206),
        ("9110 13.2.1", 404, with_both, "if-match: \"b\"", 404),
    ] {
        let page = bench.page(&[status(code, &format!("cache-control: max-age=60\n{stored}"))]);
        page.get("").await;
        let got = page.get(request).await;
        wrong.check((section, stored, request), (got.status, page.calls()), (expected, 1));
    }
    // Unsafe requests pass with their preconditions, and nothing is invalidated if these fail (4.4).
    let fresh = ok("cache-control: max-age=60");
    let page = bench.page(&[fresh.clone(), status(412, ""), fresh]);
    page.get("").await;
    wrong.check("9110 13.1.1", page.send("PUT", "if-match: \"b\"").await.status, 412);
    wrong.check("9110 13.1.1", page.seen()[1].field("if-match"), Some("\"b\""));
    wrong.check("4.4", page.get("").await.answer(), Some("1"));
    wrong.report();
}

#[tokio::test]
async fn a_304_has_the_fields_that_a_client_needs_and_none_of_the_content() {
    let bench = Bench::start().await;
    let page = bench.page(&[ok("cache-control: max-age=60
        content-location: /elsewhere
        content-type: text/plain
        date: {-30}
        etag: \"a\"
        expires: {60}
        vary: x")]);
    let first = page.get("").await;
    let got = page.get("if-none-match: \"a\"").await;
    assert_eq!(got.text(), (304, ""));
    for name in ["cache-control", "content-location", "date", "etag", "expires", "vary"] {
        assert!(got.field(name).is_some(), "9110 15.4.5: {name}");
        assert_eq!(got.fields(name), first.fields(name), "9110 15.4.5");
    }
    assert!(got.age() >= 29, "5.1");
    assert!([None, Some("1")].contains(&got.field("content-length")), "9110 8.6");
}
