//! Asking the origin about several stored responses at once, and what its 304 confirms of them
//! (RFC 9111 §4.3.1, §4.3.4).

mod support;

use http::request::Parts;
use support::{Answer, Origin, get_with, ok, request, secs, send, status};
use tower::Layer;
use tower_readthrough::{Fill, Lookup, MemoryStore, Rules, StoreLayer};

type Cached = Lookup<Fill<Origin, MemoryStore>, MemoryStore>;

fn cached(origin: &Origin) -> Cached {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    StoreLayer::new(store).rules(Rules::new()).layer(origin.clone())
}

fn language(head: &Parts) -> &str {
    head.headers["accept-language"].to_str().unwrap()
}

fn asked_about(head: &Parts) -> Option<&str> {
    Some(head.headers.get("if-none-match")?.to_str().unwrap())
}

fn variant(body: &str, tag: &str) -> Answer {
    ok(body.to_owned()).max_age(10).header("vary", "accept-language").header("etag", tag)
}

/// One page in German and one in English, which is what all others get too.
fn bilingual(name: impl Fn(&str) -> String + Send + Sync + 'static) -> Origin {
    Origin::new(move |_, head| {
        let body = if language(head) == "de" { "de" } else { "en" };
        let tag = name(body);
        match asked_about(head) {
            Some(tags) if tags.split(", ").any(|asked| asked == tag) => {
                status(304).max_age(10).header("etag", tag).header("x-confirmed", language(head))
            }
            _ => variant(body, &tag),
        }
    })
}

async fn ask(service: &Cached, language: &str) -> support::Reply {
    get_with(service, "/", &[("accept-language", language)]).await
}

#[tokio::test(start_paused = true)]
async fn a_request_that_selects_nothing_asks_about_all_variants() {
    let origin = bilingual(|body| format!("\"{body}\""));
    let service = cached(&origin);
    ask(&service, "de").await;
    ask(&service, "en").await;
    assert_eq!(asked_about(&origin.last_request()), Some("\"de\""));

    let french = ask(&service, "fr").await;
    assert_eq!(asked_about(&origin.last_request()), Some("\"en\", \"de\""), "the latest first");
    assert_eq!((french.status.as_u16(), &french.body[..]), (200, &b"en"[..]));
    assert_eq!(french.header("x-confirmed"), Some("fr"));
    assert_eq!(french.cache(), "fwd=vary-miss; stored");
    assert!(ask(&service, "fr").await.is_hit());
    assert_eq!(ask(&service, "en").await.header("x-confirmed"), Some("fr"), "its own is renewed too");
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn all_variants_of_a_confirmed_validator_are_fresh_again() {
    let origin = bilingual(|body| format!("\"{body}\""));
    let service = cached(&origin);
    for language in ["de", "en", "fr"] {
        ask(&service, language).await;
    }
    tokio::time::advance(secs(10)).await;
    assert_eq!(ask(&service, "fr").await.body, "en");
    assert_eq!(asked_about(&origin.last_request()), Some("\"en\", \"de\""), "each tag once");
    assert!(ask(&service, "en").await.is_hit(), "the same validator");
    assert_eq!(origin.calls(), 4);
    assert!(!ask(&service, "de").await.is_hit(), "another one");
}

#[tokio::test(start_paused = true)]
async fn variants_under_another_vary_stay_as_they_are() {
    let origin = Origin::new(|call, head| match call {
        1 | 2 => variant(language(head), "\"1\""),
        _ => status(304).max_age(10).header("etag", "\"1\"").header("vary", "accept-language, x"),
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    ask(&service, "en").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(ask(&service, "en").await.body, "en");
    assert!(!ask(&service, "de").await.is_hit(), "nobody knows its x");
}

#[tokio::test(start_paused = true)]
async fn what_is_only_weakly_the_same_is_not_for_others() {
    // As servers do that compress: the tag of another coding differs in its weakness alone.
    let origin = bilingual(|body| format!("W/\"{body}\""));
    let service = cached(&origin);
    ask(&service, "en").await;
    assert_eq!(ask(&service, "fr").await.body, "en");
    assert_eq!(asked_about(&origin.last_request()), None);
    tokio::time::advance(secs(10)).await;
    ask(&service, "fr").await;
    assert_eq!(asked_about(&origin.last_request()), Some("W/\"en\""), "its own");
}

#[tokio::test(start_paused = true)]
async fn a_strong_confirmation_is_not_for_what_is_weakly_the_same() {
    let origin = Origin::new(|call, head| match call {
        1 => variant("gzip", "W/\"1\""),
        2 => variant("plain", "\"2\""),
        _ if asked_about(head).is_some() => status(304).max_age(10).header("etag", "\"1\""),
        _ => variant("whole", "\"3\""),
    });
    let service = cached(&origin);
    ask(&service, "gzip").await;
    ask(&service, "plain").await;
    // Neither is what it confirms: the origin contradicts itself, and is asked for the whole next.
    assert_eq!(ask(&service, "other").await.status, 502);
    assert_eq!(asked_about(&origin.last_request()), Some("\"2\""));
    assert_eq!(ask(&service, "other").await.body, "whole");
}

#[tokio::test(start_paused = true)]
async fn what_has_only_a_date_is_asked_about_alone() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::new(move |call, head| match call {
        1 => variant("de", "\"de\""),
        2 => ok("en").max_age(10).header("vary", "accept-language").header("last-modified", date),
        // A recipient that sees any tag does not look at the date (RFC 9110 §13.1.3).
        _ if asked_about(head).is_some() => ok("asked in vain").max_age(10),
        _ => status(304).max_age(10),
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    ask(&service, "en").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(ask(&service, "en").await.body, "en");
    assert_eq!(origin.last_request().headers["if-modified-since"], date);
    // Its 304 needed no tag, and so says nothing about those that do.
    ask(&service, "fr").await;
    assert_eq!(asked_about(&origin.last_request()), Some("\"de\""));
}

#[tokio::test(start_paused = true)]
async fn variants_for_others_are_not_asked_about() {
    let origin = Origin::new(|call, head| {
        let said = if call == 1 { "max-age=10" } else { "public, max-age=10" };
        let body = if asked_about(head).is_some() { "asked" } else { "not asked" };
        ok(body).header("cache-control", said).header("vary", "accept-language").header("etag", "\"1\"")
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    let mine = [("authorization", "me"), ("accept-language", "en")];
    assert_eq!(get_with(&service, "/", &mine).await.body, "not asked");
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_names_no_validator_is_asked_about_one_at_a_time() {
    let origin = Origin::new(|_, head| match asked_about(head) {
        Some(_) => status(304).max_age(10),
        None => variant(language(head), &format!("\"{}\"", language(head))),
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(ask(&service, "de").await.body, "de", "only one was asked about");
    for language in ["en", "fr"] {
        assert_eq!(ask(&service, language).await.body, language);
        assert_eq!(asked_about(&origin.last_request()), None);
    }
    tokio::time::advance(secs(10)).await;
    for language in ["de", "en"] {
        assert_eq!(ask(&service, language).await.body, language);
        assert_eq!(asked_about(&origin.last_request()), Some(&*format!("\"{language}\"")), "its own alone");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_confirmation_that_may_mean_any_of_several_is_the_last() {
    let origin = Origin::new(|_, head| match asked_about(head) {
        Some(_) => status(304).max_age(10),
        None => variant(language(head), &format!("\"{}\"", language(head))),
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    assert_eq!(ask(&service, "en").await.status, 502);
    for language in ["en", "fr"] {
        assert_eq!(ask(&service, language).await.body, language);
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_a_date_alone_may_mean_any() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::new(move |call, head| match asked_about(head) {
        Some(_) if call > 2 => status(304).max_age(10).header("last-modified", date),
        _ => variant(language(head), &format!("\"{}\"", language(head))).header("last-modified", date),
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    ask(&service, "en").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(ask(&service, "en").await.status, 502);
    assert_eq!(asked_about(&origin.last_request()), Some("\"en\", \"de\""));
}

#[tokio::test(start_paused = true)]
async fn what_was_invalidated_is_not_asked_about() {
    let origin = Origin::new(|_, head| match head.method {
        http::Method::POST => status(204),
        _ => variant(language(head), &format!("\"{}\"", language(head))),
    });
    let service = cached(&origin);
    ask(&service, "de").await;
    send(&service, request("POST", "/", &[])).await;
    ask(&service, "en").await;
    assert_eq!(asked_about(&origin.last_request()), None);
    ask(&service, "fr").await;
    assert_eq!(asked_about(&origin.last_request()), Some("\"en\""));
}
