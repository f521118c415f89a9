//! Ranges and preconditions of clients, evaluated on stored responses (RFC 9110 §13, §14).

use tower::Layer;
use tower_readthrough::{MemoryStore, Rules, StoreLayer};

use crate::support::{
    Cached, Reply, ScriptedOrigin, ScriptedResponse, cached, get, get_with, ms, ok, request, secs, send,
    settle, status,
};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn alphabet() -> ScriptedResponse {
    ok("abcdefghij")
        .max_age(60)
        .header("etag", "\"1\"")
        .header("last-modified", MODIFIED)
        .header("date", "Sun, 06 Nov 1994 08:49:38 GMT")
        .header("content-type", "text/plain")
        .header("age", "0")
}

/// A service that has the alphabet in its store, for ever.
async fn stored() -> (Cached, ScriptedOrigin) {
    let origin = ScriptedOrigin::always(alphabet);
    let store = StoreLayer::new(MemoryStore::with_capacity_bytes(1 << 20));
    let service = store.rules(Rules::new().fixed_ttl(secs(u64::MAX))).layer(origin.clone());
    get(&service, "/").await;
    (service, origin)
}

async fn with_range(range: &str) -> Reply {
    let (service, origin) = stored().await;
    let reply = get_with(&service, "/", &[("range", range)]).await;
    assert_eq!(origin.calls(), 1, "from the store");
    reply
}

#[tokio::test(start_paused = true)]
async fn one_range_is_a_part_of_what_is_stored() {
    for (range, body, content_range) in [
        ("bytes=0-3", "abcd", "bytes 0-3/10"),
        ("bytes=4-", "efghij", "bytes 4-9/10"),
        ("bytes=-2", "ij", "bytes 8-9/10"),
        ("bytes=9-99", "j", "bytes 9-9/10"),
    ] {
        let reply = with_range(range).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, body.as_bytes()), "{range}");
        assert_eq!(reply.header("content-range"), Some(content_range));
        assert_eq!(reply.header("content-length"), Some(&*body.len().to_string()));
        assert_eq!(reply.header("content-type"), Some("text/plain"));
        assert!(reply.is_hit() && reply.age().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn several_ranges_are_several_parts() {
    let reply = with_range("bytes=0-1, -2").await;
    assert_eq!(reply.status, 206);
    let content_type = reply.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let expected = [("bytes 0-1/10", "ab"), ("bytes 8-9/10", "ij")].map(|(range, data)| {
        format!("--{boundary}\r\ncontent-type: text/plain\r\ncontent-range: {range}\r\n\r\n{data}\r\n")
    });
    assert_eq!(reply.body, format!("{}--{boundary}--\r\n", expected.concat()));
    assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
    assert_eq!(reply.header("content-range"), None);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_is_not_there_is_416_and_one_that_cannot_be_read_is_ignored() {
    let reply = with_range("bytes=10-").await;
    assert_eq!((reply.status.as_u16(), reply.header("content-range")), (416, Some("bytes */10")));
    assert_eq!((reply.header("content-length"), reply.body.len()), (Some("0"), 0));
    for range in ["bytes=3-2", "lines=0-1", "bytes=0-9,0-9", "bytes=x"] {
        let reply = with_range(range).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"abcdefghij"[..]), "{range}");
    }
}

#[tokio::test(start_paused = true)]
async fn if_range_decides_whether_a_part_will_do() {
    let (service, _) = stored().await;
    for (validator, expected) in [
        ("\"1\"", 206),
        (MODIFIED, 206),
        ("\"2\"", 200),
        ("W/\"1\"", 200),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
    ] {
        let reply = get_with(&service, "/", &[("range", "bytes=0-3"), ("if-range", validator)]).await;
        assert_eq!(reply.status, expected, "{validator}");
    }
}

#[tokio::test(start_paused = true)]
async fn preconditions_go_before_ranges_and_head_has_none() {
    let (service, _) = stored().await;
    let not_modified = [("range", "bytes=0-3"), ("if-none-match", "\"1\"")];
    assert_eq!(get_with(&service, "/", &not_modified).await.status, 304);
    let head = send(&service, request("HEAD", "/", &[("range", "bytes=0-3")])).await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some("10")));
}

/// The origin is asked as the client asked it, and the part it sends is not mistaken for all.
#[tokio::test(start_paused = true)]
async fn a_range_of_what_is_not_stored_passes_untouched_and_leaves_nothing_behind() {
    let origin = ScriptedOrigin::new(|_, head| match head.headers.contains_key("range") {
        true => status(206).max_age(60).header("content-range", "bytes 0-1/5").chunk("he"),
        false => ok("hello").max_age(60),
    });
    let service = cached(Rules::new(), &origin);
    for fields in [
        [("range", "bytes=0-1"), ("if-none-match", "\"x\"")],
        [("range", "bytes=0-1"), ("if-range", "\"x\"")],
    ] {
        let before = origin.calls();
        let reply = get_with(&service, "/", &fields).await;
        assert_eq!((reply.cache().as_str(), origin.calls()), ("fwd=uri-miss; detail=partial", before + 1));
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, &b"he"[..]));
        for (name, value) in fields {
            assert_eq!(origin.last_request().headers[name], *value);
        }
    }
    assert_eq!(get(&service, "/").await.body, "hello");
    assert_eq!(get_with(&service, "/", &[("range", "bytes=0-1")]).await.body, "he");
    assert_eq!(origin.calls(), 3, "the last one came from the store");
}

#[tokio::test(start_paused = true)]
async fn only_a_stored_200_has_parts() {
    for code in [203, 404] {
        let origin = ScriptedOrigin::always(move || status(code).max_age(60).chunk("abcdefghij"));
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        let reply = get_with(&service, "/", &[("range", "bytes=0-3")]).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (code, 10));
    }
}

#[tokio::test(start_paused = true)]
async fn preconditions_are_evaluated_on_a_miss_and_on_a_hit_and_the_response_is_stored() {
    for (fields, expected) in [
        (&[("if-match", "\"1\"")][..], 200),
        (&[("if-match", "\"2\"")], 412),
        (&[("if-unmodified-since", MODIFIED)], 200),
        (&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], 412),
        (&[("if-none-match", "\"1\"")], 304),
        (&[("if-modified-since", MODIFIED)], 304),
        (&[("if-match", "\"1\""), ("if-none-match", "\"1\"")], 304),
    ] {
        let origin = ScriptedOrigin::always(|| alphabet().header("x", "kept"));
        let store = StoreLayer::new(MemoryStore::with_capacity_bytes(1 << 20));
        let service = store.rules(Rules::new().fixed_ttl(secs(u64::MAX))).layer(origin.clone());
        for _ in 0..2 {
            let reply = get_with(&service, "/", fields).await;
            assert_eq!(reply.status, expected, "{fields:?}");
            assert_eq!(reply.body.is_empty(), expected != 200);
            assert_eq!(reply.header("etag"), Some("\"1\""));
            // What this client did not want is read for the others.
            settle().await;
        }
        for (name, _) in fields {
            assert!(!origin.request(1).headers.contains_key(*name), "the request is for all clients");
        }
        assert_eq!(get(&service, "/").await.body, "abcdefghij");
        assert_eq!(origin.calls(), 1, "{fields:?}");
    }
}

/// Stale, and so fetched completely, for all clients.
#[tokio::test(start_paused = true)]
async fn a_range_of_what_is_stale_revalidates_it_and_survives_the_origin() {
    let origin = ScriptedOrigin::new(|n, head| match n {
        1 => alphabet(),
        2 => {
            assert!(head.headers.contains_key("if-none-match") && !head.headers.contains_key("range"));
            status(304).max_age(60).header("etag", "\"1\"")
        }
        _ => status(503),
    });
    let layer = tower_readthrough::ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20));
    let layer = layer.rules(Rules::new().fixed_ttl(secs(1))).retry(tower_readthrough::RetryPolicy::never());
    let service = layer.build().unwrap().layer(origin.clone());
    get(&service, "/").await;
    for _ in 2..=3 {
        tokio::time::advance(secs(2)).await;
        let reply = get_with(&service, "/", &[("range", "bytes=2-4")]).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, &b"cde"[..]));
        assert_eq!(reply.header("content-range"), Some("bytes 2-4/10"));
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn many_ranges_share_one_fetch_of_the_complete_response_if_configured() {
    for chunk in [1, 3, 10] {
        let origin = ScriptedOrigin::always(move || {
            let whole = ok("").declares(10).max_age(60).after(ms(50));
            b"abcdefghij".chunks(chunk).fold(whole, |answer, data| answer.chunk(data.to_vec()))
        });
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let layer = tower_readthrough::ReadThroughLayer::builder(store);
        let layer = layer.lookup(|lookup| lookup.fetch_whole_for_ranges(true)).build().unwrap();
        let service = layer.layer(origin.clone());
        let part = |range: &'static str| {
            let service = service.clone();
            async move { get_with(&service, "/", &[("range", range)]).await }
        };
        let (a, b, c, d, e) = tokio::join!(
            part("bytes=0-2"),
            part("bytes=4-7"),
            part("bytes=-1"),
            part("bytes=20-"),
            part("bytes=0-0,2-2")
        );
        let bodies = [&a.body[..], &b.body, &c.body, &d.body, &e.body];
        assert_eq!(bodies, [&b"abc"[..], b"efgh", b"j", b"", b"abcdefghij"]);
        let statuses = [&a, &b, &c, &d, &e].map(|reply| reply.status.as_u16());
        assert_eq!(statuses, [206, 206, 206, 416, 200]);
        assert_eq!(d.header("content-range"), Some("bytes */10"));
        assert_eq!(b.header("content-length"), Some("4"));
        assert_eq!(get(&service, "/").await.body, "abcdefghij");
        assert_eq!(origin.calls(), 1);
    }
}
