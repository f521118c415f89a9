//! Responses to HEAD, and the GET that is stored (RFC 9111 §4.3.5).

use super::*;

#[tokio::test(start_paused = true)]
async fn a_response_to_head_updates_the_stored_get_or_removes_it() {
    for (etag, length, survives) in [
        (Some("\"1\""), None, true),
        (Some("\"1\""), Some("5"), true),
        (Some("\"2\""), None, false),
        (Some("\"1\""), Some("6"), false),
    ] {
        let origin = ScriptedOrigin::new(move |n, head| {
            let answer =
                ok(if head.method == "GET" { "hello" } else { "" }).max_age(10).header("x", n.to_string());
            match (n, etag) {
                (2, Some(etag)) => answer.header("etag", etag),
                (2, None) => answer,
                _ => answer.header("etag", "\"1\""),
            }
        });
        let origin = match length {
            None => origin,
            Some(length) => ScriptedOrigin::new(move |n, head| {
                let body = if head.method == "GET" { "hello" } else { "" };
                let answer = ok(body).max_age(10).header("x", n.to_string()).header("etag", "\"1\"");
                if n == 2 { answer.header("content-length", length) } else { answer }
            }),
        };
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(11)).await;
        send(&service, request("HEAD", "/", &[])).await;
        let reply = get(&service, "/").await;
        assert_eq!(reply.body, "hello");
        assert_eq!((reply.is_hit(), reply.header("x")), (survives, Some(if survives { "2" } else { "3" })));
        let asked = origin.last_request().headers;
        assert!(!asked.contains_key("if-none-match"), "what is outdated is not asked about again");
    }
}

/// Content that changes with every response must not stay fresh because of a HEAD request.
#[tokio::test(start_paused = true)]
async fn a_response_to_head_without_validators_freshens_nothing() {
    let origin = ScriptedOrigin::new(|n, head| {
        ok(if head.method == "GET" { n.to_string() } else { String::new() }).max_age(10)
    });
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.body, "1");
    tokio::time::advance(secs(11)).await;
    send(&service, request("HEAD", "/", &[])).await;
    assert_eq!(get(&service, "/").await.body, "3");
}
