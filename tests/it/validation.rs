//! What a 304 confirms of a stored response, and what of it a 304 changes (RFC 9111 §4.3.4).

use crate::support::{Answer, Origin, get_with, ms, ok, secs, status};
use http::request::Parts;
use tower::Layer;
use tower_readthrough::{Fill, Lookup, MemoryStore, Rules, StoreLayer};

type Cached = Lookup<Fill<Origin, MemoryStore>, MemoryStore>;

fn cached(origin: &Origin) -> Cached {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    StoreLayer::new(store).rules(Rules::new()).layer(origin.clone())
}

fn asked_about(head: &Parts) -> Option<&str> {
    Some(head.headers.get("if-none-match")?.to_str().unwrap())
}

fn variant(body: &str, tag: &str) -> Answer {
    ok(body.to_owned()).max_age(10).header("vary", "accept-language").header("etag", tag)
}

async fn ask(service: &Cached, language: &str) -> crate::support::Reply {
    get_with(service, "/", &[("accept-language", language)]).await
}

#[tokio::test(start_paused = true)]
async fn bytes_that_came_under_a_weak_tag_never_get_a_strong_one() {
    // As servers do that compress on the way out: their 304 has the tag of what they compress.
    let coded = |head: &Parts| head.headers.get("accept-encoding").is_some_and(|value| value == "gzip");
    let origin = Origin::new(move |_, head| {
        let named =
            |answer: Answer, tag| answer.max_age(10).header("vary", "accept-encoding").header("etag", tag);
        match asked_about(head) {
            Some(tags) if tags.contains("\"1\"") => named(status(304), "\"1\""),
            _ if coded(head) => named(ok("coded").header("content-encoding", "gzip"), "W/\"1\""),
            _ => named(ok("plain"), "\"1\""),
        }
    });
    let service = cached(&origin);
    let ask = async |coding| get_with(&service, "/", &[("accept-encoding", coding)]).await;
    ask("gzip").await;
    ask("identity").await;
    tokio::time::advance(secs(11)).await;
    // What goes out compressed goes on to be.
    let coded = ask("gzip").await;
    assert_eq!((&coded.body[..], coded.header("etag")), (&b"coded"[..], Some("W/\"1\"")));
    assert_eq!(ask("br").await.body, "plain");

    let service = cached(&origin);
    let ask = async |coding| get_with(&service, "/", &[("accept-encoding", coding)]).await;
    ask("gzip").await;
    tokio::time::advance(secs(11)).await;
    ask("gzip").await;
    assert_eq!(ask("br").await.body, "plain", "it did not say that it takes gzip");
}

#[tokio::test(start_paused = true)]
async fn a_date_does_not_give_stored_bytes_a_strong_tag() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::new(move |call, _| match call {
        1 => ok("coded").max_age(10).header("last-modified", date),
        _ => status(304).max_age(10).header("last-modified", date).header("etag", "\"1\""),
    });
    let service = cached(&origin);
    ask(&service, "en").await;
    tokio::time::advance(secs(11)).await;
    let reply = ask(&service, "en").await;
    assert_eq!((&reply.body[..], reply.header("etag")), (&b"coded"[..], None));
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_was_replaced_meanwhile_stays_replaced() {
    let origin = Origin::new(|call, _| match call {
        1 | 2 => variant("old", "\"1\""),
        // The page changes in German alone.
        3 => variant("new", "\"2\"").after(ms(20)),
        4 => status(304).max_age(10).header("etag", "\"1\"").after(ms(50)),
        _ => status(599),
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    ask(&service, "en").await;
    tokio::time::advance(secs(11)).await;
    let (german, english) = tokio::join!(ask(&service, "de"), ask(&service, "en"));
    assert_eq!((&german.body[..], &english.body[..]), (&b"new"[..], &b"old"[..]));
    assert_eq!(ask(&service, "de").await.body, "new");
}
