//! What key rules change in requests: the guard against poisoned responses, fields in
//! normal form, and `No-Vary-Search`.

use std::time::Duration;

use http::Request;
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CacheStatus, Guard, KeyLayer, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, ReadThrough,
    ReadThroughLayer, Rules,
};

use crate::support::{
    Body, ScriptedOrigin, call, fixed, get_request, ms, request, response, status, store, text,
};

type Service = ReadThrough<ScriptedOrigin, MemoryStore, KeyRules>;

fn stack(keys: KeyRulesBuilder, origin: &ScriptedOrigin) -> Service {
    let keys = keys.build().unwrap();
    ReadThroughLayer::builder(store()).key(keys).rules(fixed(60_000)).build().unwrap().layer(origin.clone())
}

/// A page with the host of the request in its links, and the query in its text.
fn gullible() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        let host = request.headers().get("x-forwarded-host").map_or("shop", |host| host.to_str().unwrap());
        response(&[], format!("{host} {}", request.uri().query().unwrap_or("-")))
    })
}

/// With and without a guard. A rule that forwards unkeyed parts says that the origin may be
/// trusted with them.
#[tokio::test(start_paused = true)]
async fn no_client_gets_a_response_made_from_unkeyed_input() {
    let rule = || KeyRule::any().ignore_query(["utm_*"]);
    let keys = |rule| KeyRules::builder().rule(rule);
    let attack = || request("GET", "http://h/?utm_x=evil&a=1", &[("x-forwarded-host", "evil")]);
    let victim = || get_request("http://h/?a=1");

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
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        let names: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
        response(&[], names.join(" "))
    });
    let fields =
        [("x_forwarded_host", "evil"), ("x-forwarded_host", "evil"), ("x_other", "1"), ("x-other", "1")];
    assert_eq!(text(&stack(keys, &origin), request("GET", "http://h/", &fields)).await, "x-other");
}

#[tokio::test(start_paused = true)]
async fn the_origin_sees_the_query_as_the_key_has_it() {
    let seen = |keys: KeyRule, uri: &'static str| async move {
        let service = stack(KeyRules::builder().rule(keys), &gullible());
        text(&service, get_request(&format!("http://h{uri}"))).await
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

/// The contents of a key that the application made are not known.
#[tokio::test(start_paused = true)]
async fn the_query_of_a_request_with_a_key_of_its_own_stays() {
    let keys = KeyRules::builder().rule(KeyRule::any().keep_query(["a"])).guard(Guard::new());
    let mut own = request("GET", "http://h/?a=1&b=2", &[("x-forwarded-host", "evil")]);
    own.extensions_mut().insert(tower_readthrough::CacheKey::new("a=1&b=2"));
    assert_eq!(text(&stack(keys, &gullible()), own).await, "shop a=1&b=2");
}

/// A background refresh sends the request of the client that found the response stale.
#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_is_guarded_too() {
    let keys =
        KeyRules::builder().rule(KeyRule::any().keep_query(["a"])).guard(Guard::new()).build().unwrap();
    let rules = fixed(100).stale_while_revalidate_for(Duration::from_secs(9));
    let cache = ReadThroughLayer::builder(store()).key(keys).rules(rules).build().unwrap();
    let service = cache.layer(gullible());
    let attack = || request("GET", "http://h/?a=1&b=2", &[("x-forwarded-host", "evil")]);
    for _ in 0..3 {
        assert_eq!(text(&service, attack()).await, "shop a=1");
        tokio::time::sleep(ms(150)).await;
    }
}

/// Hits compare the request of the client with the one that was sent to the origin.
#[tokio::test(start_paused = true)]
async fn removed_fields_make_no_variants() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        response(&[("vary", "x-forwarded-host")], n.to_string())
    });
    let service = stack(KeyRules::builder().guard(Guard::new()), &origin);
    for host in ["a", "b", "c"] {
        assert_eq!(text(&service, request("GET", "http://h/", &[("x-forwarded-host", host)])).await, "1");
    }
    assert_eq!(text(&service, get_request("http://h/")).await, "1");
}

#[tokio::test(start_paused = true)]
async fn only_listed_fields_are_removed() {
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        let mut names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        response(&[], names.join(" "))
    });
    let fields = [("x-forwarded-host", "a"), ("x-forwarded-for", "b"), ("cookie", "c"), ("x-a", "d")];
    let service = stack(KeyRules::builder().guard(Guard::new().only_headers(["X-A", "cookie"])), &origin);
    assert_eq!(
        text(&service, request("GET", "http://h/", &fields)).await,
        "x-forwarded-for x-forwarded-host"
    );
    let service = stack(KeyRules::builder().guard(Guard::new()), &origin);
    assert_eq!(text(&service, request("GET", "http://h/", &fields)).await, "cookie x-a x-forwarded-for");
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
        String::from_utf8(crate::support::bytes(response).await.to_vec()).unwrap()
    };
    assert_eq!(ask("/api/7?a=1&b=2").await, "/api/7?a=1 /7?a=1");
    assert_eq!(ask("/api/7?b=3&a=1").await, "/api/7?a=1 /7?a=1");
    assert_eq!(ask("/api/8?b=3").await, "/api/8 /8");
}

#[tokio::test(start_paused = true)]
async fn normalised_fields_make_as_many_variants_as_the_application_has() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        let field =
            |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        let said = format!("{n} {} {}", field("accept-encoding"), field("accept-language"));
        response(&[("vary", "accept-encoding, accept-language")], said)
    });
    let keys = KeyRules::builder().accept_encoding(["br", "gzip"]).accept_language(["en", "de"]);
    let service = stack(keys, &origin);
    let ask = async |encoding: &str, language: &str| {
        text(
            &service,
            request("GET", "http://h/", &[("accept-encoding", encoding), ("accept-language", language)]),
        )
        .await
    };
    assert_eq!(ask("gzip, deflate, br, zstd", "de-DE,de;q=0.9,en;q=0.8").await, "1 br de");
    assert_eq!(ask("br;q=1.0, gzip;q=0.8, *;q=0.1", "de-AT").await, "1 br de");
    assert_eq!(ask("gzip", "en-US,en;q=0.5").await, "2 gzip en");
    assert_eq!(ask("x-gzip, gzip", "en").await, "2 gzip en");
    assert_eq!(ask("zstd", "fr").await, "3 identity -");
    assert_eq!(text(&service, get_request("http://h/")).await, "3 identity -");
    assert_eq!(ask("identity;q=0", "de").await, "4 identity;q=0 de");
}

/// In the key they count as the origin sees them, without `Vary`.
#[tokio::test(start_paused = true)]
async fn a_normalised_field_is_in_the_key_in_normal_form() {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let keys = KeyRules::builder()
        .accept_language(["en", "de"])
        .rule(KeyRule::any().headers(["accept-language", "accept-encoding"]));
    let service = stack(keys, &origin);
    for (language, expected) in
        [("de-CH", "1"), ("de", "1"), ("en", "2"), ("en, de;q=0.5", "2"), ("fr", "3"), ("it", "3")]
    {
        assert_eq!(
            text(&service, request("GET", "http://h/", &[("accept-language", language)])).await,
            expected
        );
    }
    assert_eq!(text(&service, get_request("http://h/")).await, "3");
    assert_eq!(text(&service, request("GET", "http://h/", &[("accept-encoding", "br")])).await, "4");
}

/// An origin with a `No-Vary-Search` by call and path.
fn searching(says: impl Fn(usize, &str) -> Option<&'static str> + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |n, request: Request<Body>| {
        let mut answer = response(&[("cache-control", "max-age=60")], n.to_string());
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
        assert_eq!(text(service, get_request(&format!("http://h{uri}"))).await, *expected, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_vary_search_names_parameters_that_do_not_count() {
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
            // The field is known from the first response on.
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

/// A response without the field is served to no other query, whatever earlier ones of the path said.
#[tokio::test(start_paused = true)]
async fn a_response_without_no_vary_search_is_for_its_own_query_alone() {
    let says = |n: usize| [Some("params"), None, Some("params")][(n - 1).min(2)];
    let service = stack(search(), &searching(move |n, _| says(n)));
    answers(&service, &[("/a?id=1", "1"), ("/a?id=2", "2"), ("/a?id=3", "3"), ("/a?id=4", "4"), ("/a", "4")])
        .await;

    // A response stored under the old field is not served to requests under the new one.
    let says = |n: usize| match n {
        1 | 2 => "params=(\"x\")",
        _ => "params, except=(\"id\")",
    };
    let service = stack(search(), &searching(move |n, _| Some(says(n))));
    answers(&service, &[("/a", "1"), ("/a?id=5&x=1", "2"), ("/a?id=5&x=2", "2"), ("/a?id=6", "3")]).await;
    answers(&service, &[("/a?id=5&y=1", "4"), ("/a?id=5&y=2", "4")]).await;
}

/// Callers that wait under one key all get a response for their own query.
#[tokio::test(start_paused = true)]
async fn waiting_callers_with_another_query_fetch_for_themselves() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        tokio::time::sleep(ms(10)).await;
        let said = if n == 1 { "params" } else { "?" };
        let uri = request.uri().to_string();
        response(&[("cache-control", "max-age=60"), ("no-vary-search", said)], uri)
    });
    let service = stack(search(), &origin);
    call(&service, get_request("http://h/a?id=0")).await;
    let asks = (1..20).map(|id| {
        let (service, uri) = (service.clone(), format!("http://h/a?id={id}"));
        async move { assert_eq!(text(&service, get_request(&uri)).await, uri) }
    });
    futures_util::future::join_all(asks).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_for_one_query_is_not_shown_to_callers_with_another() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        tokio::time::sleep(ms(10)).await;
        if n == 1 {
            return response(&[("cache-control", "max-age=60"), ("no-vary-search", "params")], "");
        }
        response(&[("cache-control", "no-cache")], request.uri().to_string()).status(503)
    });
    let keys = search().build().unwrap();
    let cache = ReadThroughLayer::builder(store()).key(keys).build();
    let service = cache.unwrap().layer(origin.clone());
    call(&service, get_request("http://h/a?id=0")).await;
    let asks = (1..20).map(|id| {
        let (service, uri) = (service.clone(), format!("http://h/a?id={id}"));
        async move {
            let (status, body) = call(&service, get_request(&uri)).await;
            (status.as_u16(), body.is_empty() || body == uri)
        }
    });
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| *answer == (503, true)), "{answers:?}");
    // One failure is not shared: a second caller fetches, and its failure is.
    assert_eq!(origin.calls(), 3, "and costs the origin two calls");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_stored_changes_no_keys() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
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
    call(&service, get_request("http://h/a?id=2")).await;
    call(&service, Request::head("http://h/a?id=3").body(Body::empty()).unwrap()).await;
    tokio::time::advance(Duration::from_secs(11)).await;
    answers(&service, &[("/a?id=4", "4"), ("/a?id=5", "4")]).await;
}

/// An unsafe request for one query of a path cannot tell which other queries share the response.
#[tokio::test(start_paused = true)]
async fn an_unsafe_request_invalidates_every_query_of_the_path() {
    let service = stack(search(), &searching(|_, _| Some("params=(\"id\")")));
    answers(&service, &[("/a?id=1", "1"), ("/a?id=1", "2"), ("/a?q=1", "3"), ("/b", "4"), ("/b", "5")]).await;
    call(&service, Request::post("http://h/a?id=9").body(Body::empty()).unwrap()).await;
    answers(&service, &[("/a?id=2", "7"), ("/a?q=1", "8"), ("/b", "5")]).await;
}

/// The key is found above, and the response is compared with it below.
#[tokio::test(start_paused = true)]
async fn a_key_layer_takes_part() {
    let origin = searching(|_, _| Some("params"));
    let fill = tower_readthrough::StoreLayer::new(store());
    let service = KeyLayer::new(search().build().unwrap()).layer(fill.layer(origin));
    for (uri, expected) in [("http://h/a?1", "1"), ("http://h/a?2", "2"), ("http://h/a?3", "2")] {
        assert_eq!(call(&service, get_request(uri)).await.1, expected);
    }
    let stored = service.clone().oneshot(get_request("http://h/a?4")).await.unwrap();
    assert!(CacheStatus::of(&stored).unwrap().is_hit());
}
