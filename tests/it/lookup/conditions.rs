//! Conditional requests of clients (RFC 9110 §13).

use super::*;

fn with_validators() -> ScriptedOrigin {
    ScriptedOrigin::always(|| {
        ok("hello")
            .max_age(60)
            .header("etag", "\"1\"")
            .header("last-modified", MODIFIED)
            .header("content-type", "text/plain")
            .header("content-length", "5")
            .header("vary", "accept")
    })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_the_response_gets_304_on_a_hit_and_on_a_miss() {
    let yes: [&[(&str, &str)]; 7] = [
        &[("if-none-match", "\"1\"")],
        &[("if-none-match", "W/\"1\"")],
        &[("if-none-match", "\"0\", \"1\"")],
        &[("if-none-match", "\"0\""), ("if-none-match", "\"1\"")],
        &[("if-none-match", "*")],
        &[("if-modified-since", MODIFIED)],
        &[("if-modified-since", "Sun, 06 Nov 1994 08:49:38 GMT")],
    ];
    let no: [&[(&str, &str)]; 5] = [
        &[("if-none-match", "\"2\"")],
        &[("if-none-match", "1")],
        &[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")],
        &[("if-modified-since", "yesterday")],
        &[("if-none-match", "\"2\""), ("if-modified-since", MODIFIED)],
    ];
    for is_hit in [false, true] {
        for (fields, has_it) in yes.map(|f| (f, true)).into_iter().chain(no.map(|f| (f, false))) {
            let origin = with_validators();
            let service = cached(Rules::new(), &origin);
            if is_hit {
                get(&service, "/").await;
            }
            let reply = get_with(&service, "/", fields).await;
            assert_eq!(reply.is_hit(), is_hit);
            assert_eq!(reply.status.as_u16(), if has_it { 304 } else { 200 }, "{fields:?}");
            assert_eq!(reply.body, if has_it { "" } else { "hello" });
            assert_eq!(reply.header("content-length"), (!has_it).then_some("5"));
            assert_eq!(reply.header("content-type"), (!has_it).then_some("text/plain"));
            for (name, value) in [("etag", "\"1\""), ("cache-control", "max-age=60"), ("vary", "accept")] {
                assert_eq!(reply.header(name), Some(value));
            }
            assert_eq!(origin.calls(), 1);
            let sent = origin.request(1).headers;
            assert!(!sent.contains_key("if-none-match") && !sent.contains_key("if-modified-since"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_of_a_head_request_are_evaluated_too() {
    let service = cached(Rules::new(), &with_validators());
    get(&service, "/").await;
    let condition = |tag| request("HEAD", "/", &[("if-none-match", tag)]);
    assert_eq!(send(&service, condition("\"1\"")).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(send(&service, condition("\"2\"")).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn only_a_success_can_turn_into_not_modified() {
    for code in [301, 404, 500] {
        let origin = ScriptedOrigin::always(move || status(code).max_age(60).header("etag", "\"1\""));
        let service = cached(Rules::new(), &origin);
        for _ in 0..2 {
            let reply = get_with(&service, "/", &[("if-none-match", "\"1\"")]).await;
            assert_eq!(reply.status.as_u16(), code);
        }
    }
}
