//! Validation (RFC 9111 §4.3).

use super::*;

#[tokio::test]
async fn a_stale_response_is_validated_by_its_own_validators() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (section, fields, tag, date) in [
        ("4.3.1", "etag: \"a\"", Some("\"a\""), None),
        ("4.3.1", "etag: W/\"a\"", Some("W/\"a\""), None),
        ("4.3.1", "etag: \"\"", Some("\"\""), None),
        ("4.3.1", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT", None, Some(modified)),
        ("4.3.1", "etag: \"a\"\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT", Some("\"a\""), Some(modified)),
        ("4.3.1", "", None, None),
    ] {
        let page = bench.page(&[ok(&format!("{STALE}{fields}"))]);
        // The validators of the client do not go to the origin.
        let (_, second) = (page.get("").await, page.get("if-none-match: \"mine\"").await);
        let seen = page.seen();
        let asked = (seen[1].field("if-none-match"), seen[1].field("if-modified-since"));
        wrong.check((section, fields), asked, (tag, date));
        wrong.check((section, fields), second.text(), (200, "2"));
    }
    wrong.report();

    // A fresh response needs no validation, unless it says so (5.2.2.4).
    let page = bench.page(&[ok("cache-control: max-age=60\netag: \"a\"")]);
    assert!(is_reused(&page, "").await, "4.2");
    let no_cache = ok("cache-control: max-age=60, no-cache\netag: \"a\"").body("one");
    let page = bench.page(&[no_cache, status(304, "cache-control: no-cache\netag: \"a\"")]);
    for calls in 1..4 {
        assert_eq!(page.get("").await.text(), (200, "one"), "5.2.2.4");
        assert_eq!(page.calls(), calls, "5.2.2.4");
    }
}

#[tokio::test]
async fn a_304_freshens_the_stored_response() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let stale = |validator: &str| {
        ok(&format!("{STALE}{validator}\nx-old: 1\nx-both: 1\nx-both: 1\ndate: {{-20}}")).body("one")
    };
    for (validator, update) in [
        ("etag: \"a\"", "etag: \"a\""),
        ("etag: \"a\"", ""),
        ("etag: W/\"a\"", "etag: W/\"a\""),
        ("last-modified: {-99999}", ""),
        ("etag: \"a\"\nlast-modified: {-99999}", "etag: \"a\""),
    ] {
        let update = format!("cache-control: max-age=60\n{update}\nx-both: 2\nx-new: 2\ndate: {{0}}");
        let page = bench.page(&[stale(validator), status(304, &update)]);
        page.get("").await;
        for round in ["validated", "reused"] {
            let got = page.get("").await;
            wrong.check((round, validator, "4.3.3"), got.text(), (200, "one"));
            wrong.check((round, validator, "3.2"), got.answer(), Some("2"));
            wrong.check((round, validator, "3.2"), got.fields("x-both"), vec!["2"]);
            wrong.check(
                (round, validator, "3.2"),
                (got.field("x-old"), got.field("x-new")),
                (Some("1"), Some("2")),
            );
            wrong.check((round, validator, "3.2"), got.field("content-length"), Some("3"));
            wrong.check((round, validator, "4.2.3"), got.age() <= 2, true);
            wrong.check((round, validator, "4.3.4"), page.calls(), 2);
        }
    }
    // A 304 with another validator freshens nothing, and is followed by a request without conditions.
    let other = status(304, "cache-control: max-age=60\netag: \"b\"");
    let page = bench.page(&[stale("etag: \"a\""), other, ok("").body("three")]);
    page.get("").await;
    wrong.check("4.3.4", page.get("").await.text(), (200, "three"));
    wrong.check("4.3.4", page.seen()[2].field("if-none-match"), None);
    wrong.report();
}

#[tokio::test]
async fn no_variant_is_confirmed_by_a_validator_of_another() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let variant = |body: &str| ok("cache-control: max-age=60\nvary: x\netag: \"a\"").body(body);
    let page = bench.page(&[variant("one"), variant("two")]);
    page.get("x: 1").await;
    wrong.check("4.1", page.get("x: 2").await.text(), (200, "two"));
    wrong.check("4.3.1", page.seen()[1].field("if-none-match"), None);
    wrong.check("4", page.get("x: 1").await.text(), (200, "one"));
    wrong.check("4", page.calls(), 2);
    wrong.report();
}

#[tokio::test]
async fn any_other_response_to_a_validation_is_passed_on() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let stored = |directive: &str| {
        ok(&format!("cache-control: max-age=1{directive}\nage: 10\netag: \"a\"")).body("one")
    };
    let two = |code| status(code, "cache-control: max-age=60").body("two");
    for (directive, code, expected) in [
        ("", 200, (200, "two")),
        ("", 404, (404, "two")),
        // A server error may be covered by a stale response, where nothing forbids that.
        ("", 503, (200, "one")),
        (", must-revalidate", 200, (200, "two")),
        (", must-revalidate", 503, (503, "two")),
        (", proxy-revalidate", 503, (503, "two")),
    ] {
        let page = bench.page(&[stored(directive), two(code)]);
        page.get("").await;
        let got = page.get("").await;
        wrong.check(("4.3.3", directive, code), got.text(), expected);
    }
    wrong.report();
}
