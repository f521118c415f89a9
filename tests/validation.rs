//! Asking the origin about several stored responses at once, and what its 304 confirms of them
//! (RFC 9111 §4.3.1, §4.3.4).

mod support;

use http::request::Parts;
use support::{Answer, Origin, get_with, ms, ok, request, secs, send, status};
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
    assert_eq!(french.cache(), "fwd=vary-miss; fwd-status=304; stored");
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

#[tokio::test(start_paused = true)]
async fn an_origin_is_not_asked_about_more_than_fits_into_a_request() {
    let origin = Origin::new(|call, head| {
        variant(language(head), &format!("\"{call:0>400}\""))
            .header("x-asked", asked_about(head).unwrap_or(""))
    });
    let service = cached(&origin);
    for at in 0..20 {
        let asked = ask(&service, &format!("x{at}")).await.header("x-asked").unwrap().to_owned();
        assert!(asked.len() <= 2048, "{}", asked.len());
        assert!(at == 0 || asked.starts_with(&format!("\"{at:0>400}\"")), "the latest first");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_entity_tag_is_not_put_into_a_list() {
    for junk in ["\"", "\"a", "\"a\", \"b\"", "\"a\" "] {
        let origin = Origin::new(move |_, head| variant(language(head), junk));
        let service = cached(&origin);
        ask(&service, "de").await;
        ask(&service, "en").await;
        let asked = asked_about(&origin.last_request()).map(str::to_owned);
        assert!(asked.is_none_or(|tags| tags == "\"a\""), "{junk}");
    }
}
