//! Invalidation (RFC 9111 §4.4).

use super::*;

#[tokio::test]
async fn an_unsafe_request_invalidates_its_targets() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fresh = ok("cache-control: max-age=60");
    for (method, code, is_invalidated) in [
        ("POST", 200, true),
        ("POST", 201, true),
        ("POST", 303, true),
        ("PUT", 204, true),
        ("DELETE", 200, true),
        ("PATCH", 200, true),
        ("M-SEARCH", 200, true),
        ("UNKNOWN", 204, true),
        ("POST", 400, false),
        ("PUT", 409, false),
        ("DELETE", 404, false),
        ("UNKNOWN", 405, false),
        ("POST", 500, false),
        ("POST", 503, false),
        ("OPTIONS", 200, false),
        ("TRACE", 200, false),
    ] {
        let page = bench.page(&[fresh.clone(), status(code, "").body(""), fresh.clone()]);
        page.get("").await;
        wrong.check(("9110 9.2", method), page.send(method, "").await.status, code);
        let got = page.get("").await;
        wrong.check(("4.4", method, code), got.answer(), Some(if is_invalidated { "3" } else { "1" }));
    }

    for field in ["location", "content-location"] {
        for (prefix, code, is_invalidated) in [
            (String::new(), 201, true),
            (bench.proxy.url(""), 200, true),
            (format!("//{}", bench.proxy.addr), 200, true),
            ("http://elsewhere.example".to_owned(), 200, false),
            ("http://127.0.0.1".to_owned(), 200, false),
            ("//elsewhere.example".to_owned(), 200, false),
            (String::new(), 400, false),
            (String::new(), 500, false),
        ] {
            let named = bench.page(std::slice::from_ref(&fresh));
            named.get("").await;
            let fields = format!("{field}: {prefix}{}", named.path);
            bench.page(&[status(code, &fields)]).send("POST", "").await;
            wrong.check(("4.4", code, fields), named.get("").await.is_hit(), !is_invalidated);
        }
    }
    wrong.report();
}
