//! Fields that are excluded from stored responses, and the clients that get them.

use futures_util::future::join_all;
use http::{Request, Response};
use tower::{Layer, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_readthrough::{
    BuildError, CoalesceLayer, FillLayer, KeyLayer, KeyRule, KeyRules, LookupLayer, MemoryStore,
    ReadThroughLayer, Rules, StaleIfErrorLayer,
};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, ScriptedResponse, collect, ms, ok, request, secs, settle, status,
};

type Stack = (&'static str, ScriptedOrigin, Service);
type Service = BoxCloneService<Request<Body>, Reply, Failure>;

const WITHHELD: [&str; 2] = ["set-cookie", "x-request-id"];

fn without() -> KeyRule {
    KeyRule::any().store_without(WITHHELD)
}

fn rules(rule: KeyRule) -> KeyRules {
    KeyRules::builder().whole_uri().rule(rule).build().unwrap()
}

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(64 << 20)
}

/// The assembled stack, and its layers put together by hand, each with an origin of its own.
fn stacks(rule: &KeyRule, configured: &Rules, origin: impl Fn() -> ScriptedOrigin) -> [Stack; 2] {
    let key = rules(rule.clone());
    let assembled =
        ReadThroughLayer::builder(store()).key(key.clone()).rules(configured.clone()).build().unwrap();
    let store = store();
    let layers = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()).key(key).rules(configured.clone()))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(CoalesceLayer::new())
        .layer(FillLayer::new(store).rules(configured.clone()));
    let (first, second) = (origin(), origin());
    [
        ("assembled", first.clone(), boxed(assembled.layer(first))),
        ("by hand", second.clone(), boxed(layers.service(second))),
    ]
}

fn boxed<S, B>(service: S) -> Service
where
    S: tower::Service<Request<Body>, Response = Response<B>, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
{
    BoxCloneService::new(service.and_then(|response| async { Ok(collect(response).await) }))
}

async fn ask(service: &Service, method: &str, fields: &[(&str, &str)]) -> Reply {
    service.clone().oneshot(request(method, "/", fields)).await.unwrap()
}

async fn get(service: &Service) -> Reply {
    ask(service, "GET", &[]).await
}

/// With the fields for the client of this call alone.
fn personal(n: usize, answer: ScriptedResponse) -> ScriptedResponse {
    let answer = answer.header("set-cookie", format!("sid={n}")).header("set-cookie", "theme=dark");
    answer.header("x-request-id", n.to_string()).header("x-other", "stays")
}

/// The session cookie and the number that a client was given, and whether it got what is for all.
fn given(reply: &Reply) -> (Option<&str>, Option<&str>) {
    assert_eq!(reply.header("x-other"), Some("stays"), "{:?}", reply.headers);
    (reply.header("set-cookie"), reply.header("x-request-id"))
}

const NOTHING: (Option<&str>, Option<&str>) = (None, None);

#[tokio::test(start_paused = true)]
async fn excluded_fields_reach_only_the_client_that_fetched_them() {
    let origin = || {
        let answer = || ok("page").max_age(60).trailer("x-request-id", "t").after(ms(50));
        ScriptedOrigin::new(move |n, _| personal(n, answer()))
    };
    for (name, origin, service) in stacks(&without(), &Rules::new(), origin) {
        let replies = join_all((0..10).map(|_| get(&service))).await;
        assert_eq!(origin.calls(), 1, "{name}");
        let (own, others): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| given(reply) != NOTHING);
        assert_eq!((own.len(), others.len()), (1, 9), "{name}");
        assert_eq!(given(own[0]), (Some("sid=1"), Some("1")));
        assert_eq!(own[0].headers.get_all("set-cookie").iter().count(), 2, "with all its lines");
        assert_eq!(own[0].cache(), "fwd=uri-miss");
        assert!(others.iter().all(|reply| reply.cache() == "fwd=uri-miss; collapsed"), "{name}");
        assert!(others.iter().all(|reply| reply.body == "page"));
        assert!(replies.iter().all(|reply| reply.trailers.as_ref().is_none_or(|fields| fields.is_empty())));
        let hit = get(&service).await;
        assert_eq!((hit.cache(), given(&hit)), ("hit".into(), NOTHING), "{name}");
        assert!(hit.trailers.is_none_or(|fields| fields.is_empty()), "{name}");
        assert_eq!(given(&ask(&service, "HEAD", &[]).await), NOTHING);
        assert_eq!(origin.calls(), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn parts_are_stored_without_excluded_fields_too() {
    let origin = || {
        ScriptedOrigin::new(|n, head| {
            let range = head.headers.get("range").map(|range| range.to_str().unwrap().to_owned());
            let (body, range) = match range.as_deref() {
                Some("bytes=0-1") => ("ab", "bytes 0-1/4"),
                _ => ("cd", "bytes 2-3/4"),
            };
            let part = status(206).chunk(body).max_age(60).header("etag", "\"1\"");
            personal(n, part.header("content-range", range))
        })
    };
    for (name, _, service) in stacks(&without(), &Rules::new(), origin) {
        let first = ask(&service, "GET", &[("range", "bytes=0-1")]).await;
        assert!(given(&first).0.is_some(), "{name}");
        let again = ask(&service, "GET", &[("range", "bytes=0-1")]).await;
        assert_eq!((again.is_hit(), given(&again)), (true, NOTHING), "{name}");
        assert!(given(&ask(&service, "GET", &[("range", "bytes=2-3")]).await).0.is_some());
        settle().await;
        let whole = get(&service).await;
        assert_eq!((&whole.body[..], whole.is_hit(), given(&whole)), (&b"abcd"[..], true, NOTHING), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn excluded_fields_of_a_304_reach_the_client_that_revalidated() {
    let origin = || {
        ScriptedOrigin::new(|n, _| {
            let answer = if n == 1 { ok("page") } else { status(304) };
            personal(n, answer.header("etag", "\"1\"").max_age(1))
        })
    };
    // A background refresh has no client to which they could be given.
    let refreshed = without().stale_while_revalidate_for(secs(60));
    for (rule, of_second) in [(without(), (Some("sid=2"), Some("2"))), (refreshed, NOTHING)] {
        for (name, origin, service) in stacks(&rule, &Rules::new(), origin) {
            assert_eq!(given(&get(&service).await), (Some("sid=1"), Some("1")), "{name}");
            tokio::time::advance(secs(2)).await;
            assert_eq!(given(&get(&service).await), of_second, "{name}");
            settle().await;
            assert_eq!(origin.calls(), 2, "{name}");
            let hit = get(&service).await;
            assert_eq!((hit.is_hit(), given(&hit)), (true, NOTHING), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_to_head_freshens_without_storing_excluded_fields() {
    let origin = || {
        ScriptedOrigin::new(|n, _| {
            let page = ok("page").header("etag", "\"1\"").header("content-length", "4");
            personal(n, page.max_age(10))
        })
    };
    for (name, origin, service) in stacks(&without(), &Rules::new(), origin) {
        get(&service).await;
        tokio::time::advance(secs(15)).await;
        assert_eq!(given(&ask(&service, "HEAD", &[]).await).0, Some("sid=2"), "{name}");
        let hit = get(&service).await;
        assert_eq!((hit.is_hit(), given(&hit)), (true, NOTHING), "{name}");
        assert_eq!(origin.calls(), 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_covered_failure_get_no_excluded_fields() {
    let origin = || {
        ScriptedOrigin::new(|n, _| match n {
            1 => personal(n, ok("page").max_age(1)),
            _ => personal(n, status(503).chunk("sorry").after(ms(50))),
        })
    };
    for (name, _, service) in stacks(&without(), &Rules::new(), origin) {
        get(&service).await;
        tokio::time::advance(secs(2)).await;
        for reply in join_all((0..3).map(|_| get(&service))).await {
            assert_eq!((reply.status.as_u16(), given(&reply)), (200, NOTHING), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_failure_has_no_excluded_fields() {
    let origin = || ScriptedOrigin::new(|n, _| personal(n, status(503).chunk("sorry").after(ms(50))));
    for (name, origin, service) in stacks(&without(), &Rules::new(), origin) {
        let replies = join_all((0..5).map(|_| get(&service))).await;
        assert_eq!(origin.calls(), 2, "{name}");
        assert!(replies.iter().all(|reply| reply.status == 503 && reply.body == "sorry"), "{name}");
        assert_eq!(replies.iter().filter(|reply| given(reply) != NOTHING).count(), 2, "{name}");
    }
}

/// A failure that would be stored, were nothing better there.
#[tokio::test(start_paused = true)]
async fn a_failure_that_is_not_stored_is_shared_without_excluded_fields() {
    let origin = ScriptedOrigin::new(|n, _| match n {
        1 => personal(n, ok("page").max_age(1)),
        _ => personal(n, status(503).chunk("sorry").max_age(60).after(ms(50))),
    });
    let store = store();
    let layers = ServiceBuilder::new().layer(LookupLayer::new(store.clone()).key(rules(without())));
    let service = layers.layer(CoalesceLayer::new()).layer(FillLayer::new(store)).service(origin.clone());
    let service = boxed(service);
    get(&service).await;
    tokio::time::advance(secs(2)).await;
    let replies = join_all((0..5).map(|_| get(&service))).await;
    assert!(replies.iter().all(|reply| reply.status == 503 && reply.body == "sorry"));
    assert_eq!(replies.iter().filter(|reply| given(reply) != NOTHING).count(), 2);
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn coalescing_alone_shares_no_excluded_fields() {
    let origin = ScriptedOrigin::new(|n, _| personal(n, ok("page").max_age(60)).after(ms(50)));
    let configured = Rules::new().store_without(WITHHELD);
    let by_rule = ServiceBuilder::new()
        .layer(KeyLayer::new(rules(without())))
        .layer(CoalesceLayer::new().rules(Rules::new()))
        .service(origin.clone());
    let by_rules = ServiceBuilder::new()
        .layer(KeyLayer::default())
        .layer(CoalesceLayer::new().rules(configured))
        .service(origin.clone());
    for (n, service) in [boxed(by_rule), boxed(by_rules)].iter().enumerate() {
        let replies = join_all((0..5).map(|_| get(service))).await;
        assert_eq!(origin.calls(), n + 1);
        assert_eq!(replies.iter().filter(|reply| given(reply) != NOTHING).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_with_set_cookie_is_stored_only_without_the_field() {
    let table = [
        (KeyRule::any(), Rules::new(), "fwd=uri-miss; detail=set-cookie"),
        (KeyRule::any().store_without(["x-request-id"]), Rules::new(), "fwd=uri-miss; detail=set-cookie"),
        (KeyRule::any().store_without(["Set-Cookie"]), Rules::new(), "fwd=uri-miss"),
        (KeyRule::any(), Rules::new().store_without(["set-cookie"]), "fwd=uri-miss"),
        // A rule says all about it.
        (
            KeyRule::any().store_without([""; 0]),
            Rules::new().store_without(["set-cookie"]),
            "fwd=uri-miss; detail=set-cookie",
        ),
    ];
    for (rule, configured, cache) in table {
        let origin = || ScriptedOrigin::new(|n, _| personal(n, ok("page").max_age(60)));
        for (name, _, service) in stacks(&rule, &configured, origin) {
            assert_eq!(get(&service).await.cache(), cache, "{name}: {rule:?}");
        }
    }
}

#[test]
fn fields_that_cannot_be_excluded_are_refused() {
    let reason =
        "give the whole name of a field that is not about its content, its lifetime or its connection";
    for name in ["vary", "Cache-Control", "x-*", "set-cookie, x-a", "connection"] {
        let error = KeyRules::builder().whole_uri().rule(KeyRule::any().store_without([name])).build();
        let said = error.unwrap_err().to_string();
        let expected = format!("`store_without`: a response cannot be stored without `{name}`: {reason}");
        assert_eq!(said, format!("key rule 0 (`any path`): {expected}"));
        let built = ReadThroughLayer::builder(store()).rules(Rules::new().store_without([name])).build();
        assert_eq!(built.err(), Some(BuildError::Withheld(name.into())));
    }
    let both = KeyRule::any().store_set_cookie(true).store_without(["set-cookie"]);
    let said = KeyRules::builder().whole_uri().rule(both).build().unwrap_err().to_string();
    let expected =
        "`store_set_cookie` has no effect: `store_without` names `set-cookie`, which is not stored then";
    assert_eq!(said, format!("key rule 0 (`any path`): {expected}"));
    let both = Rules::new().store_set_cookie(true).store_without(["set-cookie"]);
    assert_eq!(ReadThroughLayer::builder(store()).rules(both).build().unwrap_err().to_string(), expected);
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn a_document_excludes_fields_by_the_same_name() {
    let text = r#"{ "whole_uri": true, "rules": [{ "store_without": ["set-cookie"] }] }"#;
    let rules: KeyRules = serde_json::from_str(text).unwrap();
    let origin = ScriptedOrigin::new(|n, _| personal(n, ok("page").max_age(60)));
    let service = ReadThroughLayer::builder(store()).key(rules).build().unwrap().layer(origin.clone());
    let service = boxed(service);
    assert_eq!(given(&get(&service).await), (Some("sid=1"), Some("1")));
    assert_eq!(given(&get(&service).await), (None, Some("1")));
}

/// An origin that sees no session begins one: not in the place of the one that the client has.
#[tokio::test(start_paused = true)]
async fn a_cookie_that_was_kept_from_the_origin_is_not_set_anew() {
    let origin = || {
        ScriptedOrigin::new(|n, _| {
            let answer = if n < 3 { ok("x") } else { status(304) };
            let lifetime = if n == 2 { "no-store" } else { "max-age=1" };
            let answer = personal(n, answer.header("cache-control", lifetime).header("etag", "\"1\""));
            answer.header("set-cookie", "group=b; path=/")
        })
    };
    let rule = without().cookies(["group"]);
    for (name, origin, service) in stacks(&rule, &Rules::new(), origin) {
        for (cookie, expected) in [
            ("sid=old; group=a", &["theme=dark", "group=b; path=/"][..]),
            ("sid=old", &["theme=dark", "group=b; path=/"]),
            ("sid=old; theme=light; group=a", &["group=b; path=/"]),
        ] {
            let reply = ask(&service, "GET", &[("cookie", cookie)]).await;
            let set = reply.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
            assert_eq!(set.collect::<Vec<_>>(), expected, "{name}, {cookie}");
            tokio::time::sleep(secs(2)).await;
        }
        assert_eq!(origin.calls(), 3, "{name}");
    }
}
