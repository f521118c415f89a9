//! What key rules do to requests on their way: the guard against poisoned answers, fields in
//! normal form, and `No-Vary-Search`.

use std::time::Duration;

use crate::support::open::{Origin, call, fixed, get, ms, request, response, status, store, text};
use axum::body::Body;
use http::{Request, Response};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CacheStatus, Guard, KeyLayer, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, ReadThrough,
    ReadThroughLayer, Rules,
};

type Service = ReadThrough<Origin, MemoryStore, KeyRules>;

fn stack(keys: KeyRulesBuilder, origin: &Origin) -> Service {
    let keys = keys.build().unwrap();
    ReadThroughLayer::builder(store()).key(keys).rules(fixed(60_000)).build().unwrap().layer(origin.clone())
}

/// A page whose links hold what the request says about its host, and whose text its query.
fn gullible() -> Origin {
    Origin::new(|_, request: Request<Body>| async move {
        let host = request.headers().get("x-forwarded-host").map_or("shop", |host| host.to_str().unwrap());
        response(&[], format!("{host} {}", request.uri().query().unwrap_or("-")))
    })
}

/// With and without a guard; a rule that forwards what it does not key says that the origin may be
/// trusted with it.
#[tokio::test(start_paused = true)]
async fn no_client_gets_a_response_made_from_what_the_key_does_not_show() {
    let rule = || KeyRule::any().ignore_query(["utm_*"]);
    let keys = |rule| KeyRules::builder().rule(rule);
    let attack = || request("http://h/?utm_x=evil&a=1", &[("x-forwarded-host", "evil")]);
    let victim = || get("http://h/?a=1");

    let unguarded = stack(keys(rule()), &gullible());
    assert_eq!(text(&unguarded, attack()).await, "evil a=1");
    assert_eq!(text(&unguarded, victim()).await, "shop a=1");

    let guarded = stack(keys(rule()).guard(Guard::new()), &gullible());
    assert_eq!(text(&guarded, attack()).await, "shop a=1");
    assert_eq!(text(&guarded, victim()).await, "shop a=1");

    let forwarding = stack(keys(rule().forward_unkeyed()).guard(Guard::new()), &gullible());
    assert_eq!(text(&forwarding, attack()).await, "shop utm_x=evil&a=1");
    assert_eq!(text(&forwarding, victim()).await, "shop utm_x=evil&a=1");
}

/// A service behind CGI cannot tell a dash from an underscore.
#[tokio::test(start_paused = true)]
async fn a_listed_field_is_removed_in_every_spelling() {
    let keys = KeyRules::builder().rule(KeyRule::any()).guard(Guard::new());
    let origin = Origin::new(|_, request: Request<Body>| async move {
        let names: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
        response(&[], names.join(" "))
    });
    let fields =
        [("x_forwarded_host", "evil"), ("x-forwarded_host", "evil"), ("x_other", "1"), ("x-other", "1")];
    assert_eq!(text(&stack(keys, &origin), request("http://h/", &fields)).await, "x-other");
}

#[tokio::test(start_paused = true)]
async fn the_origin_sees_the_query_as_the_key_has_it() {
    let seen = |keys: KeyRule, uri: &'static str| async move {
        let service = stack(KeyRules::builder().rule(keys), &gullible());
        text(&service, get(&format!("http://h{uri}"))).await
    };
    let template = || KeyRule::path("/p?uid={_}&pid={pid}&view=full");
    for (rule, uri, expected) in [
        (KeyRule::any().keep_query(["a"]), "/?b=1&a=2&c", "shop a=2"),
        (KeyRule::any().keep_query(["a"]), "/?b=1", "shop -"),
        (KeyRule::any().keep_query(["a"]), "/?b=1;a=2", "shop b=1;a=2"),
        (KeyRule::any().sort_query(), "/?b=1&a=2&b=0", "shop a=2&b=1&b=0"),
        (KeyRule::any().drop_empty_query(), "/?b=&a=2", "shop a=2"),
        (KeyRule::any().keep_query(["a"]).forward_unkeyed(), "/?b=1&a=2", "shop b=1&a=2"),
        (template(), "/p?view=full&pid=%37&uid=1", "shop pid=%37&view=full"),
        (template(), "/p?view=full&pid=%37&uid=1&x", "shop view=full&pid=%37&uid=1&x"),
        (template().forward_unkeyed(), "/p?view=full&pid=7&uid=1", "shop view=full&pid=7&uid=1"),
        (KeyRule::path("/x"), "/?b=1&a=2", "shop b=1&a=2"),
    ] {
        assert_eq!(seen(rule, uri).await, expected, "{uri}");
    }
}

/// What else is in a key that somebody made himself is not known.
#[tokio::test(start_paused = true)]
async fn the_query_of_a_request_with_a_key_of_its_own_stays() {
    let keys = KeyRules::builder().rule(KeyRule::any().keep_query(["a"])).guard(Guard::new());
    let mut own = request("http://h/?a=1&b=2", &[("x-forwarded-host", "evil")]);
    own.extensions_mut().insert(tower_readthrough::CacheKey::new("a=1&b=2"));
    assert_eq!(text(&stack(keys, &gullible()), own).await, "shop a=1&b=2");
}

/// What is stale is refreshed in the background, by the request of whoever came.
#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_is_guarded_too() {
    let keys =
        KeyRules::builder().rule(KeyRule::any().keep_query(["a"])).guard(Guard::new()).build().unwrap();
    let rules = fixed(100).stale_while_revalidate_for(Duration::from_secs(9));
    let cache = ReadThroughLayer::builder(store()).key(keys).rules(rules).build().unwrap();
    let service = cache.layer(gullible());
    let attack = || request("http://h/?a=1&b=2", &[("x-forwarded-host", "evil")]);
    for _ in 0..3 {
        assert_eq!(text(&service, attack()).await, "shop a=1");
        tokio::time::sleep(ms(150)).await;
    }
}

/// Hits compare what the client says with what the origin was told.
#[tokio::test(start_paused = true)]
async fn removed_fields_make_no_variants() {
    let origin = Origin::new(|n, _| async move { response(&[("vary", "x-forwarded-host")], n.to_string()) });
    let service = stack(KeyRules::builder().guard(Guard::new()), &origin);
    for host in ["a", "b", "c"] {
        assert_eq!(text(&service, request("http://h/", &[("x-forwarded-host", host)])).await, "1");
    }
    assert_eq!(text(&service, get("http://h/")).await, "1");
}

#[tokio::test(start_paused = true)]
async fn only_listed_fields_are_removed() {
    let origin = Origin::new(|_, request: Request<Body>| async move {
        let mut names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        response(&[], names.join(" "))
    });
    let fields = [("x-forwarded-host", "a"), ("x-forwarded-for", "b"), ("cookie", "c"), ("x-a", "d")];
    let service = stack(KeyRules::builder().guard(Guard::new().only_headers(["X-A", "cookie"])), &origin);
    assert_eq!(text(&service, request("http://h/", &fields)).await, "x-forwarded-for x-forwarded-host");
    let service = stack(KeyRules::builder().guard(Guard::new()), &origin);
    assert_eq!(text(&service, request("http://h/", &fields)).await, "cookie x-a x-forwarded-for");
    let post = Request::post("http://h/").header("x-forwarded-host", "a").body(Body::empty()).unwrap();
    assert_eq!(text(&service, post).await, "x-forwarded-host", "what has no key is left alone");
}

#[test]
fn a_guard_that_cannot_work_is_refused() {
    let build = |rule, guard| KeyRules::builder().rule(rule).guard(guard).build();
    for (expected, rule, guard) in [
        ("`x-host` is in the key", KeyRule::any().headers(["X-Host"]), Guard::new()),
        ("`cookie` is in the key", KeyRule::any().cookies(["a"]), Guard::new().headers(["cookie"])),
        ("`host` is not a field that a guard", KeyRule::any(), Guard::new().headers(["host"])),
        ("`a b` is not a field that a guard", KeyRule::any(), Guard::new().headers(["a b"])),
    ] {
        let error = build(rule, guard).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(build(KeyRule::path("/u/{_}").forward_unkeyed(), Guard::new()).is_ok());
}

/// Handlers in a nested router see the guarded query wherever they look.
#[cfg(feature = "axum")]
#[tokio::test]
async fn nested_routers_are_keyed_and_guarded_by_what_the_client_asked_for() {
    use axum::{Router, extract::OriginalUri, routing::get as on_get};
    let keys = KeyRules::builder()
        .rule(KeyRule::path("/api/{id}").keep_query(["a"]))
        .guard(Guard::new())
        .build()
        .unwrap();
    let cache = ReadThroughLayer::builder(store()).key(keys).rules(fixed(60_000)).build().unwrap();
    let handler =
        on_get(async |OriginalUri(original): OriginalUri, uri: http::Uri| format!("{original} {uri}"));
    let app = Router::new().nest("/api", Router::new().route("/{id}", handler).layer(cache));
    let ask = async |uri: &str| {
        let request = Request::get(uri).header("host", "h").body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        String::from_utf8(crate::support::open::bytes(response).await.to_vec()).unwrap()
    };
    assert_eq!(ask("/api/7?a=1&b=2").await, "/api/7?a=1 /7?a=1");
    assert_eq!(ask("/api/7?b=3&a=1").await, "/api/7?a=1 /7?a=1");
    assert_eq!(ask("/api/8?b=3").await, "/api/8 /8");
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_variants_as_the_application_has() {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        let field =
            |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        let said = format!("{n} {} {}", field("accept-encoding"), field("accept-language"));
        response(&[("vary", "accept-encoding, accept-language")], said)
    });
    let keys = KeyRules::builder().accept_encoding(["br", "gzip"]).accept_language(["en", "de"]);
    let service = stack(keys, &origin);
    let ask = async |encoding: &str, language: &str| {
        text(&service, request("http://h/", &[("accept-encoding", encoding), ("accept-language", language)]))
            .await
    };
    assert_eq!(ask("gzip, deflate, br, zstd", "de-DE,de;q=0.9,en;q=0.8").await, "1 br de");
    assert_eq!(ask("br;q=1.0, gzip;q=0.8, *;q=0.1", "de-AT").await, "1 br de");
    assert_eq!(ask("gzip", "en-US,en;q=0.5").await, "2 gzip en");
    assert_eq!(ask("x-gzip, gzip", "en").await, "2 gzip en");
    assert_eq!(ask("zstd", "fr").await, "3 identity -");
    assert_eq!(text(&service, get("http://h/")).await, "3 identity -");
    assert_eq!(ask("identity;q=0", "de").await, "4 identity;q=0 de");
}

/// In the key they count as the origin sees them, without `Vary`.
#[tokio::test(start_paused = true)]
async fn a_normalised_field_is_in_the_key_in_normal_form() {
    let origin = Origin::new(|n, _| async move { response(&[], n.to_string()) });
    let keys = KeyRules::builder()
        .accept_language(["en", "de"])
        .rule(KeyRule::any().headers(["accept-language", "accept-encoding"]));
    let service = stack(keys, &origin);
    for (language, expected) in
        [("de-CH", "1"), ("de", "1"), ("en", "2"), ("en, de;q=0.5", "2"), ("fr", "3"), ("it", "3")]
    {
        assert_eq!(text(&service, request("http://h/", &[("accept-language", language)])).await, expected);
    }
    assert_eq!(text(&service, get("http://h/")).await, "3");
    assert_eq!(text(&service, request("http://h/", &[("accept-encoding", "br")])).await, "4");
}

/// The origin leaves out what it is told in `says`, by path.
fn searching(says: impl Fn(usize, &str) -> Option<&'static str> + Send + Sync + 'static) -> Origin {
    Origin::new(move |n, request: Request<Body>| {
        let mut answer: Response<Body> = response(&[("cache-control", "max-age=60")], n.to_string());
        if let Some(said) = says(n, request.uri().path()) {
            answer.headers_mut().insert("no-vary-search", said.parse().unwrap());
        }
        async { answer }
    })
}

fn search() -> KeyRulesBuilder {
    KeyRules::builder().rule(KeyRule::path("/{*rest}").no_vary_search())
}

async fn answers(service: &Service, asked: &[(&str, &str)]) {
    for (uri, expected) in asked {
        assert_eq!(text(service, get(&format!("http://h{uri}"))).await, *expected, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_say_which_parameters_they_do_not_depend_on() {
    let origin = searching(|_, path| match path {
        "/a" => Some("params=(\"id\" \"b c\")"),
        "/b" => Some("params, except=(\"q\")"),
        "/c" => Some("key-order"),
        "/d" => Some("params=id"),
        _ => None,
    });
    let service = stack(search(), &origin);
    answers(
        &service,
        &[
            // What the origin said is known from its first answer on.
            ("/a?q=1&id=1", "1"),
            ("/a?q=1&id=1", "2"),
            ("/a?q=1&id=2", "2"),
            ("/a?id=3&q=1&b+c=4&b%20c", "2"),
            ("/a?q=2&id=1", "3"),
            ("/a?q=1;id=1", "4"),
            ("/b?q=1&x=1", "5"),
            ("/b?q=1&x=2", "6"),
            ("/b?y&q=1", "6"),
            ("/b?q=2", "7"),
            ("/c?a=1&b=2", "8"),
            ("/c?b=2&a=1", "9"),
            ("/c?a=1&b=2", "9"),
            ("/d?id=1", "10"),
            ("/d?id=2", "11"),
            ("/e?id=1", "12"),
            ("/e?id=2", "13"),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_switch_is_off_by_default() {
    let service = stack(KeyRules::builder(), &searching(|_, _| Some("params")));
    answers(&service, &[("/a?id=1", "1"), ("/a?id=2", "2"), ("/a?id=3", "3")]).await;
}

/// An answer that does not say so itself answers no other query, whatever its path said before.
#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_say_so_is_for_its_own_query_alone() {
    let says = |n: usize| [Some("params"), None, Some("params")][(n - 1).min(2)];
    let service = stack(search(), &searching(move |n, _| says(n)));
    answers(&service, &[("/a?id=1", "1"), ("/a?id=2", "2"), ("/a?id=3", "3"), ("/a?id=4", "4"), ("/a", "4")])
        .await;

    // What was stored under the old word is never given to those who ask under the new one.
    let says = |n: usize| match n {
        1 | 2 => "params=(\"x\")",
        _ => "params, except=(\"id\")",
    };
    let service = stack(search(), &searching(move |n, _| Some(says(n))));
    answers(&service, &[("/a", "1"), ("/a?id=5&x=1", "2"), ("/a?id=5&x=2", "2"), ("/a?id=6", "3")]).await;
    answers(&service, &[("/a?id=5&y=1", "4"), ("/a?id=5&y=2", "4")]).await;
}

/// Callers who wait together under one key all get an answer for their own query.
#[tokio::test(start_paused = true)]
async fn callers_are_let_go_if_the_answer_is_not_for_all_of_them() {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        tokio::time::sleep(ms(10)).await;
        let said = if n == 1 { "params" } else { "?" };
        let uri = request.uri().to_string();
        response(&[("cache-control", "max-age=60"), ("no-vary-search", said)], uri)
    });
    let service = stack(search(), &origin);
    call(&service, get("http://h/a?id=0")).await;
    let asks = (1..20).map(|id| {
        let (service, uri) = (service.clone(), format!("http://h/a?id={id}"));
        async move { assert_eq!(text(&service, get(&uri)).await, uri) }
    });
    futures_util::future::join_all(asks).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_shows_nobody_the_query_of_another() {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        tokio::time::sleep(ms(10)).await;
        if n == 1 {
            return response(&[("cache-control", "max-age=60"), ("no-vary-search", "params")], "");
        }
        let mut failed = response(&[("cache-control", "no-cache")], request.uri().to_string());
        *failed.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        failed
    });
    let keys = search().build().unwrap();
    let cache = ReadThroughLayer::builder(store()).key(keys).build();
    let service = cache.unwrap().layer(origin.clone());
    call(&service, get("http://h/a?id=0")).await;
    let asks = (1..20).map(|id| {
        let (service, uri) = (service.clone(), format!("http://h/a?id={id}"));
        async move {
            let (status, body) = call(&service, get(&uri)).await;
            (status.as_u16(), body.is_empty() || body == uri)
        }
    });
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| *answer == (503, true)), "{answers:?}");
    // One client's failure is not that of all: a second caller asks, and its failure is shared.
    assert_eq!(origin.calls(), 3, "and costs the origin two calls");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_teaches_nothing() {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        match (n, request.method().as_str()) {
            (2, _) => status(404),
            (_, "HEAD") => response(&[], ""),
            _ => response(&[("cache-control", "max-age=60"), ("no-vary-search", "params")], n.to_string()),
        }
    });
    let cache = ReadThroughLayer::builder(store())
        .key(search().build().unwrap())
        .rules(Rules::new())
        .build()
        .unwrap();
    let service = cache.layer(origin);
    answers(&service, &[("/a?id=1", "1")]).await;
    call(&service, get("http://h/a?id=2")).await;
    call(&service, Request::head("http://h/a?id=3").body(Body::empty()).unwrap()).await;
    tokio::time::advance(Duration::from_secs(11)).await;
    answers(&service, &[("/a?id=4", "4"), ("/a?id=5", "4")]).await;
}

/// Who changes one query of a path cannot know which others share its answer.
#[tokio::test(start_paused = true)]
async fn an_unsafe_request_invalidates_every_query_of_the_path() {
    let service = stack(search(), &searching(|_, _| Some("params=(\"id\")")));
    answers(&service, &[("/a?id=1", "1"), ("/a?id=1", "2"), ("/a?q=1", "3"), ("/b", "4"), ("/b", "5")]).await;
    call(&service, Request::post("http://h/a?id=9").body(Body::empty()).unwrap()).await;
    answers(&service, &[("/a?id=2", "7"), ("/a?q=1", "8"), ("/b", "5")]).await;
}

/// With the key found above, the answer is compared with it below.
#[tokio::test(start_paused = true)]
async fn a_key_layer_takes_part() {
    let origin = searching(|_, _| Some("params"));
    let fill = tower_readthrough::StoreLayer::new(store());
    let service = KeyLayer::new(search().build().unwrap()).layer(fill.layer(origin));
    for (uri, expected) in [("http://h/a?1", "1"), ("http://h/a?2", "2"), ("http://h/a?3", "2")] {
        assert_eq!(call(&service, get(uri)).await.1, expected);
    }
    let stored = service.clone().oneshot(get("http://h/a?4")).await.unwrap();
    assert!(CacheStatus::of(&stored).unwrap().is_hit());
}
