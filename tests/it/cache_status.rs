//! What clients see in `Cache-Status` and `Proxy-Status`, as it is configured.

use http::{HeaderName, Response};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    BuildError, CacheKey, CacheStatus, CacheStatusDetail, CoalesceLayer, KeyRule, KeyRules, MemoryStore,
    NotStored, OriginHealth, OriginLimitLayer, OriginState, ReadThroughBuilder, ReadThroughLayer, Refused,
    Rules,
};

use crate::support::{
    Reply, ScriptedOrigin, collect, get, get_with, hangs, ms, ok, request, secs, send, settle, small_store,
    status,
};

const SECRET: &str = "a secret that is long";
const FIELD: HeaderName = HeaderName::from_static("x-cache-debug");

fn builder() -> ReadThroughBuilder<MemoryStore> {
    ReadThroughLayer::builder(small_store())
}

fn field(reply: &Reply) -> &str {
    reply.header("cache-status").unwrap_or("none")
}

fn key_of(reply: &Reply) -> String {
    let field = field(reply);
    let (_, rest) = field.split_once("key=\"").unwrap_or_else(|| panic!("{field}"));
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_full_field_says_what_is_left_of_the_lifetime_the_key_and_the_rule() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let rules = KeyRules::builder().rule(KeyRule::path("/p/{id}").name("a \"product\"")).build().unwrap();
    let rules_of_storing = Rules::new().stale_while_revalidate_for(secs(60));
    let layer = builder().key(rules).rules(rules_of_storing).cache_status(CacheStatusDetail::Full);
    let service = layer.build().unwrap().layer(origin);
    let miss = get(&service, "/p/1").await;
    let key = key_of(&miss);
    let rest = format!("key=\"{key}\";rule=\"a \\\"product\\\"\"");
    assert_eq!(field(&miss), format!("tower-readthrough;fwd=uri-miss;fwd-status=200;{rest}"));
    assert_eq!(key, key_of(&get(&service, "/p/1").await), "it is that of the key");
    assert_ne!(key, key_of(&get(&service, "/p/2").await));
    tokio::time::advance(secs(15)).await;
    let hit = get(&service, "/p/1").await;
    assert_eq!(field(&hit), format!("tower-readthrough;hit;ttl=45;{rest}"));
    assert_eq!(hit.cache(), "hit", "the extension says the same as ever");
    tokio::time::advance(secs(50)).await;
    let stale = get(&service, "/p/1").await;
    let expected = format!("tower-readthrough;hit;detail=stale-while-revalidate;ttl=-5;{rest}");
    assert_eq!(field(&stale), expected);
    let other = get(&service, "/other").await;
    assert!(!field(&other).contains("rule="), "{}", field(&other));
}

#[tokio::test(start_paused = true)]
async fn a_full_field_has_the_rule_by_which_a_request_has_no_key() {
    let rules = KeyRules::builder().rule(KeyRule::path("/account").name("account").bypass()).build().unwrap();
    let layer = builder().key(rules).cache_status(CacheStatusDetail::Full).build().unwrap();
    let reply = get(&layer.layer(ScriptedOrigin::always(|| ok("x"))), "/account").await;
    let expected = "tower-readthrough;fwd=bypass;detail=rule-bypass;fwd-status=200;rule=\"account\"";
    assert_eq!(field(&reply), expected);
}

/// It may be too large, which is known after its body (RFC 9211 §2.5).
#[tokio::test(start_paused = true)]
async fn of_a_response_without_a_length_the_field_does_not_say_that_it_is_stored() {
    for (declared, expected) in [
        (false, ["tower-readthrough;fwd=uri-miss", "tower-readthrough;fwd=uri-miss;collapsed"]),
        (true, ["tower-readthrough;fwd=uri-miss;stored", "tower-readthrough;fwd=uri-miss;stored;collapsed"]),
    ] {
        let script = move |_: usize, _: &http::request::Parts| {
            let response = status(200).max_age(60).after(ms(10)).chunk("hel").chunk("lo");
            if declared { response.header("content-length", "5") } else { response }
        };
        let layer = builder().build().unwrap();
        let service = layer.layer(ScriptedOrigin::new(script));
        let (first, second) = tokio::join!(get(&service, "/"), get(&service, "/"));
        assert_eq!([field(&first), field(&second)], expected);
        for reply in [&first, &second] {
            let said = reply.cache_status.expect("it is in the extension");
            assert_eq!((said.is_stored(), said.not_stored_reason()), (true, None), "it is being stored");
        }
        assert_eq!(field(&get(&service, "/").await), "tower-readthrough;hit", "and it was");
    }
}

/// What a purge has overtaken by then is not stored, and says so.
#[tokio::test(start_paused = true)]
async fn a_confirmed_response_that_was_purged_meanwhile_does_not_say_that_it_is_stored() {
    let layer = builder().build().unwrap();
    let purge = layer.purge();
    let script = move |n: usize, _: &http::request::Parts| {
        if n == 1 {
            return ok("x").max_age(10).header("etag", "\"1\"");
        }
        purge.everything();
        status(304).header("etag", "\"1\"").max_age(10)
    };
    let service = layer.layer(ScriptedOrigin::new(script));
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    let confirmed = get(&service, "/").await;
    assert_eq!(confirmed.cache(), "fwd=stale; fwd-status=304; detail=purged-meanwhile");
    let counts = layer.stats().snapshot();
    assert_eq!((counts.stored, counts.not_stored.get(NotStored::PurgedMeanwhile)), (1, 1), "told once");
}

#[tokio::test(start_paused = true)]
async fn the_secret_opens_the_full_field_and_goes_no_further() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).header("vary", "x-cache-debug"));
    let layer = builder().full_cache_status_for(FIELD, SECRET).build().unwrap();
    let service = layer.layer(origin.clone());
    let ask = async |secret| get_with(&service, "/", &[("x-cache-debug", secret)]).await;
    let miss = ask(SECRET).await;
    assert!(field(&miss).contains(";fwd-status=200;key="), "{}", field(&miss));
    assert_eq!(field(&get(&service, "/").await), "tower-readthrough;hit", "one entry for all");
    assert!(field(&ask(SECRET).await).starts_with("tower-readthrough;hit;ttl=60;key="));
    for other in ["", "a secret that is lonG", "a secret that is long and more", "a secret"] {
        assert_eq!(field(&ask(other).await), "tower-readthrough;hit", "{other}");
    }
    send(&service, request("POST", "/form", &[("x-cache-debug", SECRET)])).await;
    for number in 1..=origin.calls() {
        assert!(!origin.request(number).headers.contains_key(FIELD), "request {number}");
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cache_has_the_name_that_it_was_given() {
    let rows = [("edge-1", "edge-1;hit"), ("Edge 1", "\"Edge 1\";hit"), ("a\"b\\", "\"a\\\"b\\\\\";hit")];
    for (name, expected) in rows {
        let layer = builder().cache_name(name).build().unwrap();
        let service = layer.layer(ScriptedOrigin::always(|| ok("x").max_age(60)));
        get(&service, "/").await;
        let hit = get(&service, "/").await;
        assert_eq!((field(&hit), hit.cache().as_str()), (expected, "hit"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_refused() {
    let long = "x".repeat(65);
    for name in ["", "caf\u{e9}", "a\nb", &long] {
        let refused = builder().cache_name(name).build();
        assert!(matches!(refused, Err(BuildError::CacheName { .. })), "{name:?}");
    }
    let short = builder().full_cache_status_for(FIELD, "fifteen bytes!!").build();
    assert!(matches!(short, Err(BuildError::ShortSecret { at_least: 16 })));
    let taken = builder().full_cache_status_for(http::header::COOKIE, SECRET).build();
    assert!(matches!(taken, Err(BuildError::Name { .. })));
    let twice = builder().cache_status(CacheStatusDetail::Full).full_cache_status_for(FIELD, SECRET).build();
    assert!(matches!(twice, Err(BuildError::NoEffect { .. })));
    let hidden = builder().cache_status(false).full_cache_status_for(FIELD, SECRET).build();
    assert!(hidden.is_ok(), "hidden from all clients that do not know it");
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_off_is_in_no_response_and_the_extension_is() {
    let layer = builder().cache_status(CacheStatusDetail::Off).build().unwrap();
    let service = layer.layer(ScriptedOrigin::always(|| ok("x").max_age(60)));
    for _ in 0..2 {
        let response = service.clone().oneshot(request("GET", "/", &[])).await.unwrap();
        assert!(!response.headers().contains_key("cache-status"));
        assert!(CacheStatus::of(&response).is_some());
        collect(response).await;
    }
}

fn proxy_status<B>(response: &Response<B>) -> &str {
    response.headers().get("proxy-status").map_or("none", |value| value.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_errors_of_the_cache_say_their_type_in_proxy_status() {
    let limit = || OriginLimitLayer::new(1).max_queue(0);
    for (name, expected) in [
        (None, "tower-readthrough;error=connection_limit_reached;details=\"queue-full\""),
        (Some("edge-1"), "edge-1;error=connection_limit_reached;details=\"queue-full\""),
    ] {
        let layer = name.map_or(builder(), |name| builder().cache_name(name)).origin_limit(limit());
        let service = layer.build().unwrap().layer(ScriptedOrigin::always(hangs));
        drop(tokio::spawn(service.clone().oneshot(request("GET", "/held", &[]))));
        settle().await;
        let refused = service.clone().oneshot(request("GET", "/", &[])).await.unwrap();
        assert_eq!((refused.status().as_u16(), proxy_status(&refused)), (503, expected));
    }
    let hidden = builder().cache_status(false).coalesce(|coalesce| coalesce.wait_at_most(ms(10)));
    let service = hidden.build().unwrap().layer(ScriptedOrigin::always(hangs));
    let refused = service.oneshot(request("GET", "/", &[])).await.unwrap();
    assert_eq!((refused.status().as_u16(), proxy_status(&refused)), (504, "none"));
    let service = builder().build().unwrap().layer(ScriptedOrigin::always(|| status(304)));
    let refused = service.oneshot(request("GET", "/", &[])).await.unwrap();
    assert_eq!((refused.status().as_u16(), proxy_status(&refused)), (304, "none"), "it is the origin's own");
}

/// Followers of a fetch that was refused get the same as its leader.
#[tokio::test(start_paused = true)]
async fn all_callers_that_share_an_error_of_the_cache_are_told_its_type() {
    let coalesce = |coalesce: CoalesceLayer| coalesce.fetch_deadline(ms(10));
    let service = builder().coalesce(coalesce).build().unwrap().layer(ScriptedOrigin::always(hangs));
    let ask = || service.clone().oneshot(request("GET", "/", &[]));
    let (leader, follower) = tokio::join!(ask(), ask());
    for response in [leader.unwrap(), follower.unwrap()] {
        let expected = "tower-readthrough;error=http_response_timeout;details=\"fetch-timeout\"";
        assert_eq!((response.status().as_u16(), proxy_status(&response)), (504, expected));
    }
    assert!(Refused::ALL.iter().all(|refused| !refused.proxy_error().is_empty()));
}

#[test]
fn a_digest_is_not_the_key() {
    let (one, other) = (CacheKey::new("http://h/?token=1"), CacheKey::new("http://h/?token=2"));
    assert_eq!((one.digest().len(), one.digest() == other.digest()), (16, false));
}

#[tokio::test(start_paused = true)]
async fn what_the_limit_holds_back_says_why() {
    // The client refuses what is stored, so that the limit next to the origin decides.
    let fresh = [("cache-control", "no-cache")];
    let rules = || Rules::new().default_ttl(secs(10)).stale_if_error_for(secs(3_600));
    let layer = |health: &OriginHealth| {
        let builder = builder().rules(rules()).lookup(|lookup| lookup.request_directives(true));
        builder.outage(health.clone()).origin_limit(OriginLimitLayer::new(64)).build().unwrap()
    };
    // It is up, and has sent 429.
    let health = OriginHealth::new();
    let origin = ScriptedOrigin::new(|call, _| if call <= 2 { ok("x") } else { status(429) });
    let service = layer(&health).layer(origin.clone());
    for path in ["/one", "/two"] {
        get(&service, path).await;
    }
    tokio::time::advance(secs(11)).await;
    assert_eq!(get_with(&service, "/one", &fresh).await.status, 429);
    let reply = get_with(&service, "/two", &fresh).await;
    assert_eq!((health.state(), reply.cache()), (OriginState::Up, "hit; detail=origin-busy".into()));
    assert_eq!(origin.calls(), 3);
    // It recovers, and has all that it bears.
    let health = OriginHealth::new();
    let origin = ScriptedOrigin::new(|call, head| match (call, head.uri.path()) {
        (1, _) | (_, "/back") => ok("x"),
        (2..=21, _) => status(503),
        _ => hangs(),
    });
    let service = layer(&health).layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    for key in 0..20 {
        get(&service, &format!("/{key}")).await;
    }
    assert_eq!(health.state(), OriginState::Down);
    assert_eq!(get_with(&service, "/", &fresh).await.cache(), "hit; detail=origin-down");
    get(&service, "/back").await;
    for key in 0..20 {
        drop(tokio::spawn(service.clone().oneshot(request("GET", &format!("/held/{key}"), &[]))));
    }
    settle().await;
    let reply = get_with(&service, "/", &fresh).await;
    let expected = (OriginState::Recovering, "hit; detail=origin-recovering".into());
    assert_eq!((health.state(), reply.cache()), expected);
}

/// RFC 9209 §2: each intermediary adds its own line, and changes no other.
#[tokio::test(start_paused = true)]
async fn what_other_intermediaries_say_in_proxy_status_stays() {
    let said = ["proxy.example;error=connection_timeout", "tower-readthrough;error=connection_limit_reached"];
    let other = move || said.iter().fold(status(503), |reply, line| reply.header("proxy-status", line));
    for layer in [builder(), builder().cache_name("edge-1"), builder().cache_status(CacheStatusDetail::Off)] {
        let service = layer.build().unwrap().layer(ScriptedOrigin::always(other));
        // The leader of a fetch, and a follower.
        let ask = || service.clone().oneshot(request("GET", "/", &[]));
        let (leader, follower) = tokio::join!(ask(), ask());
        for response in [leader.unwrap(), follower.unwrap()] {
            let lines: Vec<_> = response.headers().get_all("proxy-status").iter().collect();
            assert_eq!(lines, said);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_makes_no_sense_is_told_under_the_name_of_the_cache() {
    for (layer, expected) in [
        (builder(), "tower-readthrough;error=http_protocol_error"),
        (builder().cache_name("edge-1"), "edge-1;error=http_protocol_error"),
        (builder().cache_status(CacheStatusDetail::Off), "none"),
    ] {
        // A 304 that confirms something else, also to a request without conditions.
        let origin = ScriptedOrigin::new(|call, _| match call {
            1 => ok("x").max_age(1).header("etag", "\"1\""),
            _ => status(304).header("etag", "\"2\""),
        });
        // Nothing covers for it.
        let layer = layer.rules(Rules::new().stale_if_error_for(ms(0)));
        let service = layer.build().unwrap().layer(origin);
        get(&service, "/").await;
        tokio::time::advance(secs(2)).await;
        let ask = || service.clone().oneshot(request("GET", "/", &[]));
        let (leader, follower) = tokio::join!(ask(), ask());
        for response in [leader.unwrap(), follower.unwrap()] {
            assert_eq!((response.status().as_u16(), proxy_status(&response)), (502, expected));
        }
    }
}
