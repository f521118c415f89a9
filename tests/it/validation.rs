//! Which stored response a 304 freshens, and what it changes in it (RFC 9111 §4.3.4).

use http::request::Parts;
use tower_readthrough::Rules;

use crate::support::{
    Cached, Reply, ScriptedOrigin, ScriptedResponse, cached, get_with, ms, ok, secs, status,
};

fn asked_about(head: &Parts) -> Option<&str> {
    Some(head.headers.get("if-none-match")?.to_str().unwrap())
}

fn variant(body: &str, tag: &str) -> ScriptedResponse {
    ok(body.to_owned()).max_age(10).header("vary", "accept-language").header("etag", tag)
}

async fn ask(service: &Cached, language: &str) -> Reply {
    get_with(service, "/", &[("accept-language", language)]).await
}

#[tokio::test(start_paused = true)]
async fn a_304_never_gives_a_strong_tag_to_bytes_stored_under_a_weak_one() {
    // Servers that compress on the way out send a 304 with the tag of the uncompressed content.
    let coded = |head: &Parts| head.headers.get("accept-encoding").is_some_and(|value| value == "gzip");
    let origin = ScriptedOrigin::new(move |_, head| {
        let named = |answer: ScriptedResponse, tag| {
            answer.max_age(10).header("vary", "accept-encoding").header("etag", tag)
        };
        match asked_about(head) {
            Some(tags) if tags.contains("\"1\"") => named(status(304), "\"1\""),
            _ if coded(head) => named(ok("coded").header("content-encoding", "gzip"), "W/\"1\""),
            _ => named(ok("plain"), "\"1\""),
        }
    });
    let service = cached(Rules::new(), &origin);
    let ask = async |coding| get_with(&service, "/", &[("accept-encoding", coding)]).await;
    ask("gzip").await;
    ask("identity").await;
    tokio::time::advance(secs(11)).await;
    // Compressed responses stay compressed.
    let coded = ask("gzip").await;
    assert_eq!((&coded.body[..], coded.header("etag")), (&b"coded"[..], Some("W/\"1\"")));
    assert_eq!(ask("br").await.body, "plain");

    let service = cached(Rules::new(), &origin);
    let ask = async |coding| get_with(&service, "/", &[("accept-encoding", coding)]).await;
    ask("gzip").await;
    tokio::time::advance(secs(11)).await;
    ask("gzip").await;
    assert_eq!(ask("br").await.body, "plain", "it did not say that it takes gzip");
}

#[tokio::test(start_paused = true)]
async fn a_date_does_not_give_stored_bytes_a_strong_tag() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = ScriptedOrigin::new(move |call, _| match call {
        1 => ok("coded").max_age(10).header("last-modified", date),
        _ => status(304).max_age(10).header("last-modified", date).header("etag", "\"1\""),
    });
    let service = cached(Rules::new(), &origin);
    ask(&service, "en").await;
    tokio::time::advance(secs(11)).await;
    let reply = ask(&service, "en").await;
    assert_eq!((&reply.body[..], reply.header("etag")), (&b"coded"[..], None));
}

#[tokio::test(start_paused = true)]
async fn a_304_does_not_restore_a_replaced_variant() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 | 2 => variant("old", "\"1\""),
        // The page changes in German alone.
        3 => variant("new", "\"2\"").after(ms(20)),
        4 => status(304).max_age(10).header("etag", "\"1\"").after(ms(50)),
        _ => status(599),
    });
    let service = cached(Rules::new(), &origin);
    ask(&service, "de").await;
    ask(&service, "en").await;
    tokio::time::advance(secs(11)).await;
    let (german, english) = tokio::join!(ask(&service, "de"), ask(&service, "en"));
    assert_eq!((&german.body[..], &english.body[..]), (&b"new"[..], &b"old"[..]));
    assert_eq!(ask(&service, "de").await.body, "new");
}
