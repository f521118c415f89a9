//! Parts that are served (RFC 9111 §3.4).

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stored_part_serves_only_ranges_within_it() {
    let origin = ScriptedOrigin::new(|_, head| serve(ALPHABET, head).header("x", "1"));
    let service = cached(Rules::new(), &origin);
    assert_eq!(range(&service, "bytes=4-8").await.body, "efghi");
    for (within, body, content_range) in [
        ("bytes=4-8", "efghi", "bytes 4-8/10"),
        ("bytes=5-6", "fg", "bytes 5-6/10"),
        ("bytes=8-8", "i", "bytes 8-8/10"),
    ] {
        let reply = range(&service, within).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, body.as_bytes()), "{within}");
        assert_eq!(reply.header("content-range"), Some(content_range));
        assert_eq!(reply.header("content-length"), Some(&*body.len().to_string()));
        assert_eq!((reply.header("x"), reply.age()), (Some("1"), Some(0)));
        assert!(reply.is_hit(), "{within}");
    }
    assert_eq!(origin.calls(), 1);
    for beyond in ["bytes=3-8", "bytes=4-", "bytes=-1"] {
        let service = cached(Rules::new(), &origin);
        range(&service, "bytes=4-8").await;
        assert!(!range(&service, beyond).await.is_hit(), "{beyond}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_range_gets_no_part() {
    let origin = tagged("\"1\"");
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    let head = send(&service, request("HEAD", "/", &[("range", "bytes=0-4")])).await;
    assert!(!head.is_hit());
    let whole = get(&service, "/").await;
    assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, ALPHABET.as_bytes()));
    assert_eq!(whole.cache(), "fwd=partial");
    assert_eq!(origin.calls(), 3);
    // From now on ranges are cut out of the complete response.
    assert_eq!(range(&service, "bytes=2-9").await.body, "cdefghij");
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_part_may_be_shared_as_the_complete_response_may() {
    type Row = (&'static [(&'static str, &'static str)], fn(ScriptedResponse) -> ScriptedResponse);
    let rows: [Row; 4] = [
        (&[], |answer| answer.header("cache-control", "private")),
        (&[], |answer| answer.header("set-cookie", "a=b")),
        (&[("authorization", "me")], |answer| answer),
        (&[], |answer| answer.header("vary", "*")),
    ];
    for (at, (mine, personal)) in rows.into_iter().enumerate() {
        let origin = ScriptedOrigin::new(move |_, head| personal(serve(ALPHABET, head)));
        let service = cached(Rules::new(), &origin);
        let all: Vec<_> = mine.iter().copied().chain([("range", "bytes=0-4")]).collect();
        for _ in 0..2 {
            assert!(!get_with(&service, "/", &all).await.is_hit(), "{at}");
        }
    }
    let origin = ScriptedOrigin::new(|_, head| serve(ALPHABET, head).header("vary", "accept-language"));
    let service = cached(Rules::new(), &origin);
    let german = [("range", "bytes=0-4"), ("accept-language", "de")];
    get_with(&service, "/", &german).await;
    assert!(get_with(&service, "/", &german).await.is_hit());
    assert!(!range(&service, "bytes=0-4").await.is_hit(), "another variant");

    let origin = ScriptedOrigin::new(|call, head| {
        let content = if call == 1 { ALPHABET } else { "ABCDEFGHIJ" };
        serve(content, head).header("vary", "accept-language").header("etag", "\"both\"")
    });
    let service = cached(Rules::new(), &origin);
    get_with(&service, "/", &german).await;
    for wanted in ["bytes=5-9", "bytes=3-9"] {
        let english = [("range", wanted), ("accept-language", "en")];
        assert!(!get_with(&service, "/", &english).await.is_hit(), "{wanted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_is_served_while_it_is_fresh_and_not_invalidated() {
    let origin = ScriptedOrigin::new(|_, head| match head.method {
        Method::POST => status(204),
        _ => serve(ALPHABET, head).header("etag", "\"1\""),
    });
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    tokio::time::advance(secs(10) - ms(1)).await;
    assert!(range(&service, "bytes=0-4").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!range(&service, "bytes=0-4").await.is_hit(), "stale");
    assert!(range(&service, "bytes=0-4").await.is_hit());
    send(&service, request("POST", "/", &[])).await;
    assert!(!range(&service, "bytes=5-9").await.is_hit());
    assert!(!range(&service, "bytes=0-4").await.is_hit(), "invalidated, and not put together either");
}

#[tokio::test(start_paused = true)]
async fn conditions_are_evaluated_against_the_part() {
    let origin = tagged("\"1\"");
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    for (condition, value, code) in [
        ("if-range", "\"1\"", 206),
        ("if-none-match", "\"1\"", 304),
        ("if-none-match", "\"2\"", 206),
        ("if-match", "\"2\"", 412),
    ] {
        let reply = get_with(&service, "/", &[("range", "bytes=0-4"), (condition, value)]).await;
        assert_eq!(reply.status, code, "{condition} {value}");
        assert_eq!(origin.calls(), 1);
    }
    get_with(&service, "/", &[("range", "bytes=0-4"), ("if-range", "\"2\"")]).await;
    assert_eq!(origin.calls(), 2, "the client has another representation: it needs the whole");
    assert_eq!(origin.last_request().headers["if-range"], "\"2\"");
}

#[tokio::test(start_paused = true)]
async fn request_directives_count_for_parts() {
    let origin = tagged("\"1\"");
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let lookup = LookupLayer::new(store.clone()).request_directives(true);
    let service = lookup.layer(FillLayer::new(store).layer(origin.clone()));
    let range = ("range", "bytes=0-4");
    get_with(&service, "/", &[range]).await;
    assert!(get_with(&service, "/", &[range]).await.is_hit());
    for directive in ["no-cache", "min-fresh=11"] {
        let reply = get_with(&service, "/", &[range, ("cache-control", directive)]).await;
        assert!(!reply.is_hit() && reply.body == "abcde", "{directive}");
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn fill_alone_finds_parts_too() {
    let origin = tagged("\"1\"");
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = KeyLayer::default().layer(FillLayer::new(store).layer(origin.clone()));
    for body in ["abcde", "abcde"] {
        assert_eq!(get_with(&service, "/", &[("range", "bytes=0-4")]).await.body, body);
    }
    assert_eq!(get_with(&service, "/", &[("range", "bytes=1-2")]).await.body, "bc");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_requests_for_one_part_make_one_fetch() {
    let origin = ScriptedOrigin::new(|_, head| serve(ALPHABET, head).header("etag", "\"1\"").after(ms(20)));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ReadThroughLayer::builder(store).build().unwrap().layer(origin.clone());
    let ask = |range: &'static str| {
        let service = service.clone();
        async move { get_with(&service, "/", &[("range", range)]).await }
    };
    let wanted = ["bytes=0-4", "bytes=5-9"].into_iter().cycle().take(200);
    for (at, reply) in join_all(wanted.map(ask)).await.into_iter().enumerate() {
        assert_eq!(reply.status, 206);
        assert_eq!(reply.body, if at % 2 == 0 { "abcde" } else { "fghij" });
    }
    assert_eq!(origin.calls(), 2, "one for each part");
    assert_eq!(get(&service, "/").await.body, ALPHABET);
    assert_eq!(origin.calls(), 2, "which are the whole");
}

#[tokio::test(start_paused = true)]
async fn fill_alone_cuts_ranges_out_of_a_complete_response() {
    let origin = tagged("\"1\"");
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = KeyLayer::default().layer(FillLayer::new(store).layer(origin.clone()));
    get(&service, "/").await;
    let reply = get_with(&service, "/", &[("range", "bytes=1-2")]).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, &b"bc"[..]));
    assert_eq!(origin.calls(), 1);
}
