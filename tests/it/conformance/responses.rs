//! What the cache says in a response: `Age`, `Content-Length` and `Cache-Status`; and HEAD.

use super::*;

#[tokio::test]
async fn a_stored_response_has_an_age() {
    let bench = Bench::start().await;
    let mut aging = Vec::new();
    // Aged by its `Age`, by its `Date`, and not at all.
    for (fields, age) in [("age: 30", 30), ("date: {-30}", 29), ("", 0)] {
        let page = bench.page(&[ok(&format!("cache-control: max-age=60\n{fields}"))]);
        let (first, second) = (page.get("").await, page.get("").await);
        assert!(second.is_hit());
        assert!((age..age + 3).contains(&second.age()), "5.1: {fields:?}: {}", second.age());
        let date = second.field("date").expect("9110 6.6.1");
        assert!(first.field("date").is_none_or(|first| first == date), "kept (4.2.3)");
        aging.push((page, second));
    }
    for (page, before) in aging {
        eventually(async || page.get("").await.age() > before.age()).await;
        assert_eq!(page.get("").await.field("date"), before.field("date"), "4.2.3");
        assert_eq!(page.calls(), 1);
    }
}

#[tokio::test]
async fn the_length_is_true_whatever_the_origin_did() {
    let bench = Bench::start().await;
    let chunked = ok("cache-control: max-age=60\ntransfer-encoding: chunked");
    for (reply, body) in [
        (ok("cache-control: max-age=60").body("0123456789"), "0123456789"),
        (ok("cache-control: max-age=60").body(""), ""),
        (ok("cache-control: max-age=60").body("0123").until_close(), "0123"),
        (chunked.body("2\r\n01\r\n1\r\n2\r\n0\r\n\r\n"), "012"),
    ] {
        let page = bench.page(&[reply]);
        let length = body.len().to_string();
        page.get("").await;
        let hit = page.get("").await;
        assert_eq!((hit.text(), hit.field("transfer-encoding")), ((200, body), None), "9112 6.2");
        assert_eq!(hit.field("content-length"), Some(&*length), "9110 8.6");
        let head = page.send("HEAD", "").await;
        assert_eq!(head.text(), (200, ""), "9110 9.3.2");
        assert_eq!(head.field("content-length"), Some(&*length), "9110 9.3.2");
        assert!(head.is_hit() && page.calls() == 1, "4");
    }
}

#[tokio::test]
async fn a_response_to_head_is_not_one_to_get() {
    let bench = Bench::start().await;
    let page = bench.page(&[ok("cache-control: max-age=60").body("0123456789")]);
    let head = page.send("HEAD", "").await;
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")), "9110 9.3.2");
    assert_eq!(page.get("").await.text(), (200, "0123456789"), "4");
    assert!(page.send("HEAD", "").await.is_hit(), "4");
    let methods: Vec<_> = page.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["HEAD", "GET"]);
}

#[tokio::test]
async fn a_response_to_head_freshens_or_removes_the_stored_get() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let stored = ok(&format!("{STALE}etag: \"a\"")).body("0123456789");
    for (fields, body, is_renewed) in [
        ("etag: \"a\"", "0123456789", true),
        ("etag: \"b\"", "0123456789", false),
        ("etag: \"a\"", "01234", false),
    ] {
        let head = ok(&format!("cache-control: max-age=60\nx-new: 1\n{fields}")).body(body);
        let page = bench.page(&[stored.clone(), head, ok("")]);
        page.get("").await;
        page.send("HEAD", "").await;
        let got = page.get("").await;
        let renewed = (got.is_hit(), got.field("x-new"), got.body.as_deref());
        let expected =
            if is_renewed { (true, Some("1"), Some("0123456789")) } else { (false, None, Some("3")) };
        wrong.check(("4.3.5", fields, body), renewed, expected);
        wrong.check(("4.3.5", fields, body), page.seen().last().unwrap().field("if-none-match"), None);
    }
    wrong.report();
}

#[tokio::test]
async fn cache_status_says_how_a_response_came_about() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fresh = "cache-control: max-age=60\nvary: x";
    let twice = |reply: Reply| vec![reply.clone(), reply];
    for (section, replies, first, second, expected) in [
        ("9211 2.1", twice(ok(fresh)), "", "", None),
        ("9211 2.2", twice(ok(fresh)), "", "x: 1", Some(("vary-miss", true))),
        ("9211 2.2", twice(ok(fresh)), "", "cache-control: no-cache", Some(("request", true))),
        ("9211 2.2", twice(ok("cache-control: no-store")), "", "", Some(("bypass", false))),
        ("9211 2.2", vec![ok(STALE), ok(fresh)], "", "", Some(("stale", true))),
        ("9211 2.2", vec![ok(STALE), ok("cache-control: private")], "", "", Some(("stale", false))),
    ] {
        let page = bench.page(&replies);
        let miss = page.get(first).await;
        wrong.check("9211 2.2", miss.forwarded().as_deref(), Some("uri-miss"));
        let got = page.get(second).await;
        let is_stored = got.cache_status().get("stored") == Some(&BareItem::Boolean(true));
        wrong.check((section, second), got.is_hit(), expected.is_none());
        let forwarded = got.forwarded();
        let found = forwarded.as_deref().map(|why| (why, is_stored));
        wrong.check((section, second, &replies), found, expected);
    }
    wrong.report();

    // Members of other caches come first, that of the cache nearest to the origin before all others.
    let page = bench.page(&[ok(&format!("{fresh}\ncache-status: Inner; fwd=miss; stored, Middle; hit"))]);
    for _ in 0..2 {
        let members = page.get("").await.fields("cache-status").join(", ");
        assert!(
            members.starts_with("Inner; fwd=miss; stored, Middle; hit, tower-readthrough;"),
            "9211 2: {members}"
        );
    }
}
