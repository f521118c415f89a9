//! Cookies of requests, which a rule names or which keep a response from being stored.

use super::Both;
use http::request::Parts;
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{
    CacheKey, CoalesceLayer, FillLayer, Guard, KeyLayer, KeyRule, KeyRules, MemoryStore, NotStored,
    ReadThroughLayer, RetryPolicy, Rules, StoreLayer,
};

use crate::support::{ScriptedOrigin, fixed, get_with, ok, request, secs, settle};

fn cookie(head: &Parts) -> String {
    let lines = head.headers.get_all("cookie").iter().map(|line| line.to_str().unwrap());
    lines.collect::<Vec<_>>().join(" | ")
}

/// Responds with the cookies that it sees.
fn echo() -> ScriptedOrigin {
    ScriptedOrigin::new(|_, head| ok(format!("[{}]", cookie(head))))
}

#[tokio::test(start_paused = true)]
async fn a_cookie_that_bypasses_says_so_also_where_something_is_stored() {
    let both = Both::new(fixed(60_000), echo());
    for _ in 0..2 {
        for reply in both.get("/", &[("cookie", "_ga=1")]).await {
            assert_eq!(reply.cache_status.unwrap().not_stored_reason(), Some(NotStored::Cookie));
            assert!(reply.header("cache-status").unwrap().ends_with("detail=cookie"));
        }
    }
    both.get("/", &[]).await;
    for reply in both.get("/", &[("cookie", "_ga=1")]).await {
        assert_eq!(&reply.body[..], b"[_ga=1]", "all cookies reach the origin");
        assert!(reply.cache().ends_with("detail=cookie"), "{}", reply.cache());
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_name_all_clients_share_a_response_and_no_cookie_reaches_the_origin() {
    for rules in [fixed(60_000), Rules::new().default_ttl(secs(60))] {
        let both = Both::new(rules.cookies([]), echo());
        for fields in [&[("cookie", "_ga=1")][..], &[], &[("cookie", "_ga=2; sid=3")], &[("cookie", "\"")]] {
            for reply in both.get("/", fields).await {
                assert_eq!(&reply.body[..], b"[]");
            }
        }
        assert_eq!(both.origin.calls(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn exactly_the_named_cookies_are_in_the_key_and_reach_the_origin() {
    let both = Both::new(fixed(60_000).cookies(["sid", "lang"]), echo());
    let table = [
        (vec!["sid=a; _ga=1"], "[sid=a]", 1),
        (vec!["_ga=2; sid=a"], "[sid=a]", 1),
        (vec!["_ga=2", "sid=a"], "[sid=a]", 1),
        (vec!["sid=b"], "[sid=b]", 2),
        (vec!["lang=de; sid=b"], "[sid=b; lang=de]", 3),
        (vec!["sid=b; x=y; lang=de"], "[sid=b; lang=de]", 3),
        (vec!["SID=b; xsid=1; x=1 sid=2"], "[]", 4),
        (vec![], "[]", 4),
        (vec!["sid=\"b; lang=de\""], "[sid=\"b; lang=de\"]", 5),
    ];
    for (lines, body, calls) in table {
        let fields: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
        for reply in both.get("/", &fields).await {
            assert_eq!(reply.body, body, "{lines:?}");
        }
        assert_eq!(both.origin.calls(), 2 * calls, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_keeps_its_cookies() {
    let both = Both::new(fixed(60_000).cookies([]), echo());
    for reply in both.send(|| request("POST", "/", &[("cookie", "sid=1")])).await {
        assert_eq!(&reply.body[..], b"[sid=1]");
    }
    let rules = KeyRules::builder().rule(KeyRule::path("/account").bypass()).build().unwrap();
    let service = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).key(rules);
    let service = service.rules(fixed(60_000).cookies([])).build().unwrap().layer(echo());
    assert_eq!(get_with(&service, "/account", &[("cookie", "sid=1")]).await.body, "[sid=1]");
    assert_eq!(get_with(&service, "/other", &[("cookie", "sid=1")]).await.body, "[]");
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_says_by_itself_still_holds() {
    let origin = ScriptedOrigin::new(|_, head| {
        let answer = ok(cookie(head)).header("vary", "cookie");
        if head.uri.path() == "/set" { answer.header("set-cookie", "sid=1") } else { answer }
    });
    let both = Both::new(fixed(60_000).cookies(["sid"]), origin);
    assert!(!both.store("/set", &[("cookie", "sid=1; x=1")]).await);
    assert!(both.store("/vary", &[("cookie", "sid=1; x=1")]).await);
    assert!(both.get("/vary", &[("cookie", "x=2; sid=1")]).await.iter().all(|reply| reply.is_hit()));
}

fn by_rule(rule: KeyRule) -> KeyRules {
    KeyRules::builder().rule(rule).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_key_rule_says_the_same_and_goes_first() {
    let stack = |rule: KeyRule, rules: Rules| {
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        ReadThroughLayer::builder(store).key(by_rule(rule)).rules(rules).build().unwrap().layer(echo())
    };
    let none = KeyRule::any().cookies([]).fixed_ttl(secs(60));
    for service in [stack(none.clone(), Rules::new()), stack(none, fixed(60_000).cookies(["sid"]))] {
        for (line, is_hit) in [("sid=1", false), ("sid=2; x=1", true), ("", true)] {
            let reply = get_with(&service, "/", &[("cookie", line)]).await;
            assert_eq!((&reply.body[..], reply.is_hit()), (&b"[]"[..], is_hit), "{line}");
        }
    }
    let sid = stack(KeyRule::any().cookies(["sid"]), fixed(60_000).cookies([]));
    for (line, body, is_hit) in [
        ("x=1; sid=1", "[sid=1]", false),
        ("sid=1; x=2", "[sid=1]", true),
        ("sid=2", "[sid=2]", false),
        ("x=2", "[]", false),
    ] {
        let reply = get_with(&sid, "/", &[("cookie", line)]).await;
        assert_eq!((&reply.body[..], reply.is_hit()), (body.as_bytes(), is_hit), "{line}");
    }
    let whole = stack(KeyRule::any().headers(["cookie"]), fixed(60_000).cookies([]));
    for (line, is_hit) in [("x=1; sid=1", false), ("x=1; sid=1", true), ("sid=1; x=1", false)] {
        let reply = get_with(&whole, "/", &[("cookie", line)]).await;
        assert_eq!((&*reply.body, reply.is_hit()), (format!("[{line}]").as_bytes(), is_hit));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_rule_that_names_no_cookie_leaves_them_to_the_rules() {
    let rules = by_rule(KeyRule::any().ignore_query(["utm_*"]));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let layer =
        ReadThroughLayer::builder(store).key(rules).rules(fixed(60_000).cookies(["sid"])).build().unwrap();
    let service = layer.layer(echo());
    for (path, line, body, is_hit) in [
        ("/?utm_a=1", "x=1; sid=1", "[sid=1]", false),
        ("/?utm_a=2", "sid=1", "[sid=1]", true),
        ("/", "sid=2", "[sid=2]", false),
    ] {
        let reply = get_with(&service, path, &[("cookie", line)]).await;
        assert_eq!((&reply.body[..], reply.is_hit()), (body.as_bytes(), is_hit), "{path} {line}");
    }
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn an_empty_list_in_a_document_is_a_whole_statement() {
    let text = r#"{ "rules": [
        { "path": "/get_fprod.php?uid={_}&pid={pid}&sid={_}", "cookies": [], "fixed_ttl": "200ms" },
        { "path": "/me", "headers": ["authorization"], "fixed_ttl": "1m" }
    ] }"#;
    let rules: KeyRules = serde_json::from_str(text).unwrap();
    let origin = ScriptedOrigin::always(|| ok("x"));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ReadThroughLayer::builder(store).key(rules).build().unwrap().layer(origin.clone());
    for uid in 0..50 {
        let path = format!("/get_fprod.php?uid={uid}&pid=7&sid={uid}");
        get_with(&service, &path, &[("cookie", &format!("_ga={uid}"))]).await;
    }
    assert_eq!(origin.calls(), 1, "fifty browsers, one product");
    for (user, is_hit) in [("a", false), ("a", true), ("b", false), ("b", true)] {
        assert_eq!(get_with(&service, "/me", &[("authorization", user)]).await.is_hit(), is_hit, "{user}");
    }
    assert!(!crate::support::get(&service, "/me").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn no_vary_search_agrees_with_cookies_in_the_key() {
    let origin = ScriptedOrigin::always(|| ok("x").header("no-vary-search", "params=(\"a\")"));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let layer = ReadThroughLayer::builder(store).key(by_rule(KeyRule::any().no_vary_search()));
    let service = layer.rules(fixed(60_000).cookies(["sid"])).build().unwrap().layer(origin.clone());
    for (path, sid, is_hit) in
        [("/?a=1", "1", false), ("/?a=2", "1", false), ("/?a=3", "1", true), ("/?a=3", "2", false)]
    {
        let reply = get_with(&service, path, &[("cookie", &format!("sid={sid}"))]).await;
        assert_eq!(reply.is_hit(), is_hit, "{path} {sid}: {}", reply.cache());
    }
}

#[tokio::test(start_paused = true)]
async fn callers_share_a_fetch_by_the_cookies_in_the_key_alone() {
    let check = |bodies: &[bytes::Bytes]| {
        assert!(bodies.iter().enumerate().all(|(n, body)| *body == format!("sid={}", n % 2)), "{bodies:?}");
    };
    let origin = ScriptedOrigin::new(|_, head| ok(cookie(head)).after(secs(1)));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let stack = ReadThroughLayer::builder(store)
        .rules(fixed(60_000).cookies(["sid"]))
        .build()
        .unwrap()
        .layer(origin.clone());
    let line = |n: usize| format!("_ga={n}; sid={}", n % 2);
    let replies = (0..100).map(async |n| get_with(&stack, "/", &[("cookie", &line(n))]).await.body);
    check(&futures_util::future::join_all(replies).await);
    assert_eq!(origin.calls(), 2);
    // The single layers.
    let origin = ScriptedOrigin::new(|_, head| ok(cookie(head)).after(secs(1)));
    let rules = fixed(60_000).cookies(["sid"]);
    let service = ServiceBuilder::new()
        .layer(KeyLayer::default().rules(rules.clone()))
        .layer(CoalesceLayer::new().rules(rules))
        .service(origin.clone());
    let replies = (0..100).map(async |n| get_with(&service, "/", &[("cookie", &line(n))]).await.body);
    check(&futures_util::future::join_all(replies).await);
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_stores_below_a_layer_that_keys_knows_what_is_in_the_key() {
    let (rules, origin) = (fixed(60_000).cookies(["sid"]), echo());
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(KeyLayer::default().rules(rules.clone()))
        .layer(StoreLayer::new(store).rules(fixed(60_000)))
        .service(origin.clone());
    for (line, is_hit) in [("sid=1; x=1", false), ("x=2; sid=1", true), ("sid=2", false)] {
        assert_eq!(get_with(&service, "/", &[("cookie", line)]).await.is_hit(), is_hit, "{line}");
    }
    // Rules for the layer that stores alone change no key, so that nothing is stored.
    let (store, origin) = (MemoryStore::with_capacity_bytes(1 << 20), echo());
    let service = ServiceBuilder::new()
        .layer(KeyLayer::default())
        .layer(FillLayer::new(store).rules(rules))
        .service(origin.clone());
    for _ in 0..2 {
        let reply = get_with(&service, "/", &[("cookie", "sid=1")]).await;
        assert_eq!(reply.cache(), "fwd=miss; detail=cookie");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_applications_own_has_the_cookies_too_and_a_prefix_purges_them() {
    let origin = echo();
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let layer =
        ReadThroughLayer::builder(store).rules(fixed(60_000).cookies(["sid"])).retry(RetryPolicy::never());
    let layer = layer.key(|_: &Parts| Some(CacheKey::from_parts(["page"]))).build().unwrap();
    let (purge, service) = (layer.purge(), layer.layer(origin.clone()));
    for (line, is_hit) in [("sid=1", false), ("sid=2", false), ("sid=1; x=1", true)] {
        assert_eq!(get_with(&service, "/", &[("cookie", line)]).await.is_hit(), is_hit, "{line}");
    }
    purge.key_prefix(CacheKey::from_parts(["page"]).as_bytes());
    assert!(!get_with(&service, "/", &[("cookie", "sid=1")]).await.is_hit());
    purge.url("http://example.com/").unwrap();
    assert!(!get_with(&service, "/", &[("cookie", "sid=1")]).await.is_hit(), "a purge by URL reaches all");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_with_the_cookies_that_are_in_the_key() {
    let rules = fixed(60_000).fixed_ttl(secs(1)).stale_while_revalidate_for(secs(60)).cookies(["sid"]);
    let both = Both::new(rules, echo());
    both.get("/", &[("cookie", "x=1; sid=1")]).await;
    tokio::time::advance(secs(2)).await;
    both.get("/", &[("cookie", "x=2; sid=1")]).await;
    settle().await;
    assert_eq!(both.origin.calls(), 4);
    assert_eq!(cookie(&both.origin.last_request()), "sid=1");
    assert!(both.get("/", &[("cookie", "sid=1")]).await.iter().all(|reply| reply.cache() == "hit"));
}

#[tokio::test(start_paused = true)]
async fn rules_of_one_request_come_too_late_for_its_cookies() {
    let both = Both::new(fixed(60_000), echo());
    let with_rules = || {
        let mut request = request("GET", "/", &[("cookie", "sid=1")]);
        request.extensions_mut().insert(fixed(60_000).cookies(["sid"]));
        request
    };
    both.send(with_rules).await;
    for reply in both.send(with_rules).await {
        assert!(!reply.is_hit(), "what is not in the key is not stored");
    }
    let both = Both::new(fixed(60_000).cookies([]), echo());
    let with_rules = || {
        let mut request = request("GET", "/", &[("cookie", "sid=1")]);
        request.extensions_mut().insert(fixed(60_000));
        request
    };
    both.send(with_rules).await;
    assert!(both.send(with_rules).await.iter().all(|reply| reply.is_hit() && reply.body == "[]"));
}

#[test]
fn what_cannot_be_a_name_is_refused() {
    let build = |rules: Rules| {
        ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
            .rules(rules)
            .build()
            .unwrap_err()
            .to_string()
    };
    assert!(build(Rules::new().cookies(["a b"])).starts_with("`cookies`: `a b` is not a valid name"));
    assert!(build(Rules::new().credentials(["a b"])).starts_with("`credentials`: `a b` is not a valid name"));
    let twice = KeyRules::builder().rule(KeyRule::any().headers(["Cookie"]).cookies(["sid"])).build();
    assert!(twice.unwrap_err().to_string().contains("`cookies` has no effect"));
    let guarded = KeyRules::builder().guard(Guard::new().headers(["cookie"]));
    assert!(guarded.clone().rule(KeyRule::any().cookies(["sid"])).build().is_err());
    assert!(guarded.rule(KeyRule::any().cookies([])).build().is_ok());
}
