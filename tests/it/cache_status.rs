//! What clients see in `Cache-Status` and `Proxy-Status`, as it is configured.

use http::{HeaderName, Response};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    BuildError, CacheKey, CacheStatus, CacheStatusDetail, CoalesceLayer, KeyRule, KeyRules, MemoryStore,
    OriginLimitLayer, ReadThroughBuilder, ReadThroughLayer, Refused, Rules,
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
    assert_eq!(field(&miss), format!("tower-readthrough;fwd=uri-miss;stored;fwd-status=200;{rest}"));
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
    assert!(hidden.is_ok(), "hidden from all but those who know it");
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
async fn all_who_share_an_error_of_the_cache_are_told_its_type() {
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

/// RFC 9209 §2: each intermediary adds its own line, and changes no other.
#[tokio::test(start_paused = true)]
async fn what_other_intermediaries_say_in_proxy_status_stays() {
    let said = ["proxy.example;error=connection_timeout", "tower-readthrough;error=connection_limit_reached"];
    let other = move || said.iter().fold(status(503), |reply, line| reply.header("proxy-status", line));
    for layer in [builder(), builder().cache_name("edge-1"), builder().cache_status(CacheStatusDetail::Off)] {
        let service = layer.build().unwrap().layer(ScriptedOrigin::always(other));
        // The leader of a fetch, and one who shares it.
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
