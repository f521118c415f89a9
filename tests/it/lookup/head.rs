//! HEAD requests.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_head_request_is_a_hit_of_get_with_its_length() {
    let origin = ScriptedOrigin::always(|| ok("hello").header("x", "1"));
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    let head = send(&service, request("HEAD", "/", &[])).await;
    assert_eq!((head.cache().as_str(), head.status, head.body.len()), ("hit", StatusCode::OK, 0));
    assert_eq!(
        (head.header("content-length"), head.header("x"), head.age()),
        (Some("5"), Some("1"), Some(2))
    );
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_get_request_is_never_a_hit_of_head() {
    for length in [Some("5"), None] {
        let origin = ScriptedOrigin::new(move |_, head| match (head.method.as_str(), length) {
            ("HEAD", Some(length)) => ok("").max_age(60).header("content-length", length),
            ("HEAD", None) => ok("").max_age(60),
            _ => ok("hello").max_age(60),
        });
        let service = cached(Rules::new(), &origin);
        for calls in 1..3 {
            let head = send(&service, request("HEAD", "/", &[])).await;
            assert_eq!((head.header("content-length"), head.body.len()), (length, 0));
            assert_eq!((origin.last_request().method.as_str(), origin.calls()), ("HEAD", calls));
        }
        assert_eq!(get(&service, "/").await.body, "hello");
        assert_eq!(get(&service, "/").await.body, "hello");
        assert_eq!(origin.calls(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_to_head_does_not_remove_the_stored_get() {
    let origin = ScriptedOrigin::new(|_, head| match head.method == "HEAD" {
        true => status(404).header("cache-control", "no-store"),
        false => ok("hello").max_age(10).header("etag", "\"1\""),
    });
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(send(&service, request("HEAD", "/", &[])).await.status, StatusCode::NOT_FOUND);
    get(&service, "/").await;
    assert_eq!(origin.last_request().headers["if-none-match"], "\"1\"", "it is still there to confirm");
}
