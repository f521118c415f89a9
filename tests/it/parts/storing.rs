//! Which parts are stored, how many, and next to what.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_206_that_is_not_one_complete_part_is_not_stored() {
    let bodies: [fn() -> ScriptedResponse; 6] = [
        || part(0, 4, 10, "abcd"),
        || part(0, 4, 10, "abcdef"),
        || part(0, 4, 10, "abcde").cut(),
        || status(206).max_age(10).header("content-range", "bytes 0-4/*").chunk("abcde"),
        || status(206).max_age(10).header("content-range", "bytes 5-4/10").chunk("abcde"),
        || status(206).max_age(10).header("content-type", "multipart/byteranges; boundary=x").chunk("abcde"),
    ];
    for (at, body) in bodies.into_iter().enumerate() {
        let origin = ScriptedOrigin::always(body);
        let service = cached(Rules::new(), &origin);
        range(&service, "bytes=0-4").await;
        assert!(!range(&service, "bytes=0-4").await.is_hit(), "{at}");
        assert_eq!(origin.calls(), 2, "{at}");
    }
    // Nor a response to several ranges, although it looks like one part.
    let origin = ScriptedOrigin::always(|| part(0, 4, 10, "abcde"));
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-1,3-4").await;
    assert!(!range(&service, "bytes=0-4").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_stale_from_the_start_is_not_kept() {
    let origin = ScriptedOrigin::new(|_, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("age", "10");
        answer.header("cache-control", "stale-while-revalidate=60")
    });
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    range(&cached_in(&store, Rules::new(), &origin), "bytes=0-4").await;
    assert_eq!(store.stats().entries, 0, "no request could get it");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_may_not_be_stored_removes_the_parts() {
    let origin = ScriptedOrigin::new(|call, head| match call {
        1 => serve(ALPHABET, head),
        _ => ok("mine").header("cache-control", "private"),
    });
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    get(&service, "/").await;
    assert_eq!(range(&service, "bytes=0-4").await.body, "mine");
}

#[tokio::test(start_paused = true)]
async fn a_complete_response_to_a_range_request_is_stored() {
    let origin = ScriptedOrigin::always(|| ok(ALPHABET).max_age(10));
    let service = cached(Rules::new(), &origin);
    assert_eq!(range(&service, "bytes=0-4").await.status, 200, "the origin knows no ranges");
    assert_eq!(range(&service, "bytes=0-4").await.body, "abcde");
    assert!(get(&service, "/").await.is_hit());
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn parts_are_bounded_in_number_and_size() {
    let content = "x".repeat(60_000);
    let origin = ScriptedOrigin::new(move |_, head| serve(&content, head).header("etag", "\"1\""));
    let store = MemoryStore::with_capacity_bytes(1 << 19);
    let service = cached_in(&store, Rules::new(), &origin);
    // With gaps between them: nothing can be combined.
    for at in 0..20 {
        range(&service, &format!("bytes={}-{}", at * 100, at * 100 + 50)).await;
    }
    assert!(range(&service, "bytes=1900-1950").await.is_hit());
    assert!(!range(&service, "bytes=0-50").await.is_hit(), "of more than eight the oldest goes");
    // Together they are larger than the store takes (32 KiB).
    range(&service, "bytes=20000-39999").await;
    range(&service, "bytes=40000-59999").await;
    assert!(range(&service, "bytes=20000-39999").await.is_hit(), "kept apart");
    assert!(range(&service, "bytes=40000-59999").await.is_hit());
    assert!(!range(&service, "bytes=30000-49999").await.is_hit());
    assert!(store.stats().bytes <= store.stats().capacity_bytes);
    tokio::time::advance(secs(3 * 3600)).await;
    range(&service, "bytes=0-0").await;
    assert!(store.stats().bytes < 4096, "what has expired gives its room back");
}

#[tokio::test(start_paused = true)]
async fn a_hit_for_miss_of_the_complete_response_is_not_one_of_its_parts() {
    let film = Arc::new("x".repeat(100_000));
    let origin = ScriptedOrigin::new(move |_, head| match head.headers.contains_key("range") {
        true => serve(&film, head).after(ms(20)),
        false => serve(&film, head).declares(100_000),
    });
    let store = MemoryStore::with_capacity_bytes(1 << 19);
    let service = ReadThroughLayer::builder(store).build().unwrap().layer(origin.clone());
    get(&service, "/").await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass; detail=too-large");
    let parts = (0..50).map(|_| get_with(&service, "/", &[("range", "bytes=0-9")]));
    assert!(join_all(parts).await.iter().all(|reply| reply.body == "xxxxxxxxxx"));
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hit_for_miss_of_parts_is_not_one_of_the_complete_response() {
    type Unshared = fn() -> ScriptedResponse;
    let private: Unshared = || part(0, 4, 10, "abcde").header("cache-control", "private");
    // An error may be the fault of one client, and leaves no hit-for-miss.
    let cases: [(Unshared, &str); 2] = [(|| status(400), "fwd=uri-miss"), (private, "fwd=bypass")];
    for (unshared, why) in cases {
        let origin = ScriptedOrigin::new(move |_, head| match head.headers.contains_key("range") {
            true => unshared(),
            false => ok(ALPHABET).max_age(10).after(ms(20)),
        });
        let service = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build().unwrap();
        let service = service.layer(origin.clone());
        get_with(&service, "/", &[("range", "bytes=0-4")]).await;
        let again = get_with(&service, "/", &[("range", "bytes=0-4")]).await;
        assert!(again.cache().starts_with(why), "{}", again.cache());
        join_all((0..50).map(|_| get(&service, "/"))).await;
        assert_eq!(origin.calls(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_response_that_is_too_large_leaves_its_parts() {
    let film = Arc::new("x".repeat(100_000));
    let origin = ScriptedOrigin::new(move |call, head| {
        let tag = if call < 4 { "\"1\"" } else { "\"2\"" };
        let answer = serve(&film, head).header("etag", tag);
        if call % 4 == 1 { answer } else { answer.declares(100_000) }
    });
    let service = cached_in(&MemoryStore::with_capacity_bytes(1 << 19), Rules::new(), &origin);
    range(&service, "bytes=0-9").await;
    range(&service, "bytes=0-").await;
    get(&service, "/").await;
    assert!(range(&service, "bytes=0-9").await.is_hit());
    range(&service, "bytes=0-").await;
    assert_eq!(origin.calls(), 4);
    assert_eq!(range(&service, "bytes=0-9").await.header("etag"), Some("\"2\""), "not of another");
}
