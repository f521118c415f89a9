//! Bodies, trailers and fields: what is stored of a message, and when it is complete (RFC 9111 §3.1, §3.3).

use super::*;

#[tokio::test(start_paused = true)]
async fn unrequested_206_and_304_responses_are_passed_on_and_never_stored() {
    for code in [206, 304] {
        let origin = ScriptedOrigin::always(move || {
            status(code).max_age(60).chunk(if code == 206 { "par" } else { "" }).header("etag", "\"1\"")
        });
        let store = small_store();
        let rules = Rules::new().fixed_ttl(secs(60)).hit_for_miss_for(Duration::ZERO);
        let service = cached_in(&store, rules, &origin);
        for call in 1..3 {
            let reply = get(&service, "/").await;
            assert_eq!((reply.status.as_u16(), origin.calls()), (code, call));
            assert_eq!(unshareable(&reply), Some(NotStored::Partial));
        }
        assert_eq!(store.stats().entries, 0);
    }
    // It has no meaning in a 200 (RFC 9110 §14.4).
    let origin = ScriptedOrigin::always(|| ok("whole").max_age(60).header("content-range", "bytes 0-2/9"));
    assert_eq!(unshareable(&get(&cached(Rules::new(), &origin), "/").await), None);
}

#[tokio::test(start_paused = true)]
async fn the_response_to_a_condition_or_range_is_not_for_other_clients() {
    for (code, field) in
        [(412, ("if-match", "\"2\"")), (416, ("range", "bytes=9-")), (206, ("range", "bytes=0-1"))]
    {
        let origin = ScriptedOrigin::new(move |_, head| match head.headers.contains_key(field.0) {
            true => status(code).max_age(60),
            false => ok("whole").max_age(60),
        });
        // Without Lookup, which passes such requests on, Fill sees them with a key.
        let store = small_store();
        let fill = KeyLayer::default().layer(FillLayer::new(store.clone()).layer(origin.clone()));
        assert_eq!(get_with(&fill, "/", &[field]).await.status.as_u16(), code);
        assert_eq!(store.stats().entries, 0, "neither the answer nor a marker");
        assert_eq!(get(&fill, "/").await.body, "whole", "{code}");
        assert_eq!(get_with(&fill, "/", &[field]).await.status.as_u16(), code);
        assert_eq!(get(&fill, "/").await.cache(), "hit", "nor does it remove what is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_declared_is_passed_on_and_never_stored() {
    type Row = (fn() -> ScriptedResponse, &'static str, bool);
    let rows: [Row; 8] = [
        (|| ok("hello").cut(), "hello", false),
        (|| ok("").cut(), "", false),
        (|| ok("hel").header("content-length", "5"), "hel", false),
        (|| ok("hello you").header("content-length", "5"), "hello you", false),
        (|| ok("").header("content-length", "5"), "", false),
        (|| ok("hello").header("content-length", "5").header("content-length", "6"), "hello", false),
        (|| ok("hello").header("content-length", "five"), "hello", false),
        (|| ok("hel").chunk("lo").header("content-length", "5"), "hello", true),
    ];
    for (answer, body, is_stored) in rows {
        let origin = ScriptedOrigin::always(move || answer().max_age(60));
        let store = small_store();
        // Without hit-for-misses every entry is a response.
        let service = cached_in(&store, Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
        let reply = get(&service, "/").await;
        assert_eq!(reply.body, body, "the client gets what the origin sent");
        assert_eq!(store.stats().entries, u64::from(is_stored), "{:?}", answer());
        assert_eq!(get(&service, "/").await.is_hit(), is_stored);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_read_to_its_end_is_not_stored() {
    use http_body_util::BodyExt;
    let origin = ScriptedOrigin::always(|| ok("one").chunk("two").max_age(60));
    let store = small_store();
    let service = cached_in(&store, Rules::new(), &origin);
    let mut body = service.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(store.stats().entries, 0);
    assert_eq!(get(&service, "/").await.body, "onetwo");
    assert_eq!(store.stats().entries, 1);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_stored_as_soon_as_its_body_is_complete() {
    use http_body_util::BodyExt;
    let origin = ScriptedOrigin::always(|| ok("one").chunk("two").max_age(60));
    let service = cached(Rules::new(), &origin);
    let mut body = service.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    // The body is at its end, and is not polled again.
    assert!(get(&service, "/").await.is_hit());
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn an_empty_response_is_stored_without_polling_its_body() {
    for code in [200, 204, 301] {
        let origin = ScriptedOrigin::always(move || status(code).max_age(60).header("location", "/x"));
        let service = cached(Rules::new(), &origin);
        drop(service.clone().oneshot(request("GET", "/", &[])).await.unwrap());
        let hit = get(&service, "/").await;
        assert_eq!((hit.status.as_u16(), hit.is_hit()), (code, true));
        assert_eq!(hit.header("content-length"), (code != 204).then_some("0"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_length_and_date_gets_both() {
    let origin = ScriptedOrigin::always(|| ok("hel").chunk("lo").max_age(60));
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.header("content-length"), None);
    let hit = get(&service, "/").await;
    assert_eq!((hit.header("content-length"), &hit.body[..]), (Some("5"), &b"hello"[..]));
    assert!(httpdate::parse_http_date(hit.header("date").unwrap()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn trailers_are_stored_and_replayed() {
    let origin = ScriptedOrigin::always(|| ok("hello").max_age(60).trailer("x-sum", "42"));
    let service = cached(Rules::new(), &origin);
    for hit in [false, true, true] {
        let reply = get(&service, "/").await;
        assert_eq!((reply.is_hit(), &reply.body[..]), (hit, &b"hello"[..]));
        assert_eq!(reply.trailers.unwrap()["x-sum"], "42");
    }
    assert!(send(&service, request("HEAD", "/", &[])).await.trailers.is_none());
    let origin = ScriptedOrigin::always(|| ok("").max_age(60).trailer("x-sum", "0"));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    let hit = get(&service, "/").await;
    assert!(hit.is_hit());
    assert_eq!(hit.trailers.unwrap()["x-sum"], "0", "also after an empty body");
}

#[tokio::test(start_paused = true)]
async fn fields_of_one_connection_are_not_replayed() {
    let origin = ScriptedOrigin::always(|| {
        ok("x")
            .max_age(60)
            .header("connection", "close, X-Hop")
            .header("connection", "x-other")
            .header("x-hop", "1")
            .header("x-other", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c")
            .header("x-kept", "1")
    });
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.header("x-hop"), Some("1"), "the first answer is untouched");
    let hit = get(&service, "/").await;
    let mut names: Vec<_> = hit.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["age", "cache-control", "cache-status", "content-length", "date", "x-kept"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_response_reaches_its_client_as_the_origin_sent_it() {
    let origin = ScriptedOrigin::always(|| {
        ok("one").chunk("two").declares(6).max_age(60).header("x", "1").header("x", "2")
    });
    let service = cached(Rules::new(), &origin);
    let response = service.clone().oneshot(request("GET", "/", &[])).await.unwrap();
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(6));
    let reply = collect(response).await;
    // Except that `Cache-Status` says how it came about.
    assert_eq!((&reply.body[..], reply.headers.len()), (&b"onetwo"[..], 4));
    assert_eq!(reply.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
}
