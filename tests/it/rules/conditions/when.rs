//! Which rule a request has by its conditions.

use super::*;
use http::HeaderMap;
use tower_readthrough::{CacheStatus, KeyExtractor, KeyLayer, LookupLayer, Unkeyed, When};

const LOGGED_IN: &str = "wordpress_logged_in_5f=bob";

fn blog() -> KeyRulesBuilder {
    let signed_in = When::new().cookies(["wordpress_logged_in_*", "wp-postpass_*"]);
    let preview = When::new().query(["preview=true"]).no_headers(["x-crawler"]);
    KeyRules::builder()
        .rule(KeyRule::path("/{*all}").when(signed_in).bypass())
        .rule(KeyRule::path("/{*all}").when(preview).bypass())
        .rule(KeyRule::path("/{*all}").when(When::new().headers(["user-agent: *bot*"])).cookies([]))
        .rule(KeyRule::path("/{*all}").cookies([]))
}

fn counting() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) })
}

/// Which rule a request has: its bypass, or one that keys.
fn kind(keys: &KeyRules, uri: &str, fields: &[(&'static str, &str)]) -> &'static str {
    let of = |fields| {
        let head = request("GET", uri, fields).into_parts().0;
        let mut buffer = tower_readthrough::KeyBuffer::new();
        keys.write_key(&head, &mut buffer).map(|()| buffer.to_key())
    };
    match of(fields) {
        Err(Unkeyed::RuleBypass) => "bypass",
        Err(Unkeyed::AmbiguousCondition) => "doubt",
        Err(_) => "none",
        Ok(key) if Ok(&key) == of(&[]).as_ref() => "all",
        Ok(key) if Ok(&key) == of(&[("user-agent", "a bot")]).as_ref() => "bots",
        Ok(_) => "other",
    }
}

#[test]
fn the_first_rule_with_matching_conditions_applies() {
    let keys = blog().build().unwrap();
    let many = "x=1; ".repeat(256) + LOGGED_IN;
    for (uri, fields, expected) in [
        ("http://h/a", &[][..], "all"),
        ("http://h/a", &[("cookie", "_ga=1; wordpress_test=1")], "all"),
        ("http://h/a", &[("cookie", LOGGED_IN)], "bypass"),
        ("http://h/a", &[("cookie", "a=1"), ("cookie", "wp-postpass_x=1")], "bypass"),
        ("http://h/a?preview=true", &[], "bypass"),
        ("http://h/a?preview=false", &[], "all"),
        ("http://h/a?preview=true", &[("x-crawler", "1")], "other"),
        ("http://h/a", &[("user-agent", "Examplebot/1")], "bots"),
        ("http://h/a", &[("user-agent", "Firefox")], "all"),
        ("http://h/a", &[("user-agent", "a bot"), ("cookie", LOGGED_IN)], "bypass"),
        // A spelling that some server may take for it bypasses the cache.
        ("http://h/a", &[("cookie", "a=\"x; wordpress_logged_in_1=2\"")], "bypass"),
        ("http://h/a", &[("cookie", "WordPress%5Flogged_in_1=2")], "bypass"),
        ("http://h/a", &[("cookie", "__Host-wordpress_logged_in_1=2")], "bypass"),
        ("http://h/a", &[("cookie", &many)], "bypass"),
        ("http://h/a?preview=false&preview=true", &[], "bypass"),
        ("http://h/a?x;preview=true", &[], "bypass"),
        ("http://h/a?preview=true", &[("x_crawler", "1")], "bypass"),
        // And is not stored by another rule.
        ("http://h/a", &[("user-agent", "a bot"), ("user-agent", "Firefox")], "doubt"),
        ("http://h/a", &[("user_agent", "a bot")], "doubt"),
        ("http://h/a", &[("user-agent", "BOT")], "doubt"),
    ] {
        assert_eq!(kind(&keys, uri, fields), expected, "{uri} {fields:?}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn documents_have_conditions() {
    let read = |text: &str| serde_json::from_str::<KeyRules>(text).map_err(|error| error.to_string());
    let document = r#"{ "rules": [
        { "path": "/{*all}", "when": { "cookies": ["wordpress_logged_in_*", "wp-postpass_*"] }, "bypass": true },
        { "path": "/{*all}", "when": { "query": "preview=true", "no_headers": "x-crawler" }, "bypass": true },
        { "path": "/{*all}", "when": { "headers": ["user-agent: *bot*"] }, "cookies": [] },
        { "path": "/{*all}", "cookies": [] }
    ] }"#;
    let (read_rules, written) = (read(document).unwrap(), blog().build().unwrap());
    for fields in [&[][..], &[("user-agent", "a bot")], &[("cookie", LOGGED_IN)]] {
        let head = request("GET", "http://h/a", fields).into_parts().0;
        assert_eq!(read_rules.key(&head), written.key(&head));
    }
    for (when, says) in [
        ("{}", "`when` has no effect: it has no conditions"),
        (r#"{ "cookies": [] }"#, "an empty list"),
        (r#"{ "cookie": ["a"] }"#, "unknown field `cookie`"),
        (r#"{ "headers": ["x-preview=1"] }"#, "write `name` or `name: value`"),
        (r#"{ "cookies": ["a: b"] }"#, "write `name` or `name=value`"),
    ] {
        let error = read(&format!(r#"{{ "rules": [{{ "when": {when}, "bypass": true }}] }}"#)).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_condition_shadows_only_the_same_or_a_narrower_one() {
    let build = |first: KeyRule, second: KeyRule| KeyRules::builder().rule(first).rule(second).build();
    let rule = || KeyRule::path("/{*all}");
    let when = |cookie: &'static str| When::new().cookies([cookie]);
    for (first, second) in [
        (rule().when(when("a")).bypass(), rule()),
        (rule().when(when("a")).bypass(), rule().when(when("b"))),
        (rule().when(when("a=1")), rule().when(when("a"))),
        (rule().when(when("a")), rule().when(When::new().no_cookies(["a"]))),
    ] {
        assert!(build(first, second).is_ok());
    }
    for (first, second) in [
        (rule(), rule().when(when("a")).bypass()),
        (rule().when(when("a*")).bypass(), rule().when(when("ab"))),
        (rule().when(when("a")), KeyRule::path("/x").when(when("a")).bypass()),
    ] {
        assert!(build(first, second).unwrap_err().to_string().contains("never reached"));
    }
}

/// A condition divides entries although the rules say the same about keys.
#[tokio::test(start_paused = true)]
async fn rules_with_conditions_share_no_entries() {
    let beta = || KeyRule::any().when(When::new().headers(["x-beta: 1"]));
    for (keys, calls) in [
        (KeyRules::builder().rule(beta()), 2),
        (KeyRules::builder().rule(beta()).rule(KeyRule::any().store_private(true)), 2),
        (KeyRules::builder().rule(beta()).rule(KeyRule::any().when(When::new().headers(["x-gamma"]))), 3),
        (KeyRules::builder(), 1),
    ] {
        let origin = counting();
        let service = stack_by(fixed(60_000), keys, &origin);
        for _ in 0..2 {
            for fields in [&[][..], &[("x-beta", "1")], &[("x-gamma", "1")]] {
                text(&service, request("GET", "http://h/", fields)).await;
            }
        }
        assert_eq!(origin.calls(), calls);
    }
}

/// The rule is chosen by the request of the client, including fields that are removed for the origin.
#[tokio::test(start_paused = true)]
async fn a_field_of_a_condition_may_be_removed_from_the_request() {
    let seen = || {
        ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            let has = |name: &str| request.headers().contains_key(name);
            let query = request.uri().query().unwrap_or("-");
            let body = format!("{n} {} {} {query}", has("cookie"), has("x-host"));
            response(&[("no-vary-search", "params=(\"x\")")], body)
        })
    };
    let conditions: [(When, &str, Fields); 3] = [
        (When::new().cookies(["beta"]), "http://h/?a=1", &[("cookie", "beta=1; b=2")]),
        (When::new().headers(["x-host"]), "http://h/?a=1", &[("x-host", "evil")]),
        (When::new().query(["beta"]), "http://h/?a=1&beta=1", &[]),
    ];
    for (when, uri, fields) in conditions {
        let origin = seen();
        let rule = KeyRule::any().when(when).cookies([]).keep_query(["a"]).fixed_ttl(ms(1_000));
        let other = KeyRule::any().cookies([]).keep_query(["a"]).fixed_ttl(ms(9_000));
        let keys = KeyRules::builder().rule(rule).rule(other).guard(Guard::new());
        let service = stack_by(Rules::new(), keys, &origin);
        assert_eq!(
            text(&service, request("GET", uri, fields)).await,
            "1 false false a=1",
            "{uri} {fields:?}"
        );
        assert_eq!(text(&service, request("GET", "http://h/?a=1", &[])).await, "2 false false a=1");
        tokio::time::sleep(ms(2_000)).await;
        assert_eq!(
            text(&service, request("GET", uri, fields)).await,
            "3 false false a=1",
            "by its own lifetime"
        );
        assert_eq!(text(&service, request("GET", "http://h/?a=1", &[])).await, "2 false false a=1");
    }
}

/// What a response says about a path is remembered for the rule of its request.
#[tokio::test(start_paused = true)]
async fn no_vary_search_is_remembered_for_each_rule() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        response(&[("no-vary-search", "params=(\"x\")")], n.to_string())
    });
    let rule = || KeyRule::any().no_vary_search().cookies([]);
    let keys = KeyRules::builder().rule(rule().when(When::new().cookies(["beta"]))).rule(rule());
    let service = stack_by(fixed(60_000), keys, &origin);
    let beta = &[("cookie", "beta=1")][..];
    for (uri, fields, expected) in [
        ("http://h/?x=1", beta, "1"),
        ("http://h/?x=2", beta, "2"),
        ("http://h/?x=3", beta, "2"),
        ("http://h/?x=2", &[], "3"),
        ("http://h/?x=4", &[], "4"),
        ("http://h/?x=5", &[], "4"),
        ("http://h/?x=6", beta, "2"),
    ] {
        assert_eq!(text(&service, request("GET", uri, fields)).await, expected, "{uri} {fields:?}");
    }
}

/// As a URL, and as the target of an unsafe request or of its `Location`.
#[tokio::test(start_paused = true)]
async fn a_purge_reaches_the_entries_of_every_rule_that_may_be_for_a_uri() {
    let requests = || {
        [&[][..], &[("x-beta", "1")], &[("cookie", "tenant=a")], &[("accept", "text/markdown")]]
            .map(|fields| request("GET", "http://h/p?id=1&utm_x=1", fields))
    };
    let keys = || {
        KeyRules::builder()
            .rule(KeyRule::path("/p").when(When::new().headers(["x-beta: 1"])).keep_query(["id"]))
            .rule(
                KeyRule::path("/p?id={id}&utm_x={_}")
                    .when(When::new().cookies(["tenant"]))
                    .cookies(["tenant"]),
            )
            .rule(
                KeyRule::path("/p")
                    .when(When::new().headers(["accept: text/markdown"]))
                    .ignore_query(["utm_*"]),
            )
    };
    for last in [None, Some(KeyRule::path("/p").sort_query())] {
        let keys = last.into_iter().fold(keys(), KeyRulesBuilder::rule).build().unwrap();
        let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            match request.method() == "POST" {
                true => response(&[("location", "http://h/p?id=1&utm_x=1")], ""),
                false => response(&[], n.to_string()),
            }
        });
        let cache =
            ReadThroughLayer::builder(store()).key(keys.clone()).rules(fixed(60_000)).build().unwrap();
        let (purge, service) = (cache.purge(), cache.layer(origin.clone()));
        let of =
            |uri: &str, method: &str| Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        for purged in 0..5 {
            for _ in 0..2 {
                for request in requests() {
                    text(&service, request).await;
                }
            }
            let fetches = 4 * (purged + 1);
            let unsafe_calls = usize::from(purged > 1) + usize::from(purged > 2);
            assert_eq!(origin.calls(), fetches + unsafe_calls, "{purged}");
            match purged {
                0 => drop(purge.url("http://h/p?id=1&utm_x=1").unwrap()),
                1 => drop(call(&service, of("http://h/p?id=1&utm_x=1", "DELETE")).await.1),
                2 => drop(call(&service, of("http://h/other", "POST")).await.1),
                _ => {
                    purge.url("http://h/p?id=2").unwrap();
                    for request in requests() {
                        text(&service, request).await;
                    }
                    assert_eq!(origin.calls(), fetches + unsafe_calls, "another page");
                    break;
                }
            }
        }
    }
}

/// Single layers: the keys come from a `KeyLayer`, which has removed the field of the condition.
#[tokio::test(start_paused = true)]
async fn a_key_layer_remembers_the_rule_for_the_layers_below() {
    let keys = || {
        KeyRules::builder()
            .rule(KeyRule::any().when(When::new().cookies(["beta"])).keep_query(["a"]).cookies([]))
            .rule(KeyRule::any().keep_query(["b"]).cookies([]))
            .build()
            .unwrap()
    };
    let seen = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        response(&[], format!("{n} {}", request.uri().query().unwrap_or("-")))
    });
    let rules = keys();
    let store = store();
    let purge = tower_readthrough::Purge::of(store.clone(), rules.clone());
    let stack = tower::ServiceBuilder::new()
        .layer(KeyLayer::new(rules.clone()))
        .layer(LookupLayer::new(store.clone()).key(rules).rules(fixed(60_000)))
        .layer(tower_readthrough::FillLayer::new(store).rules(fixed(60_000)))
        .service(seen.clone());
    let beta = &[("cookie", "beta=1")][..];
    for (uri, fields, expected) in [
        ("http://h/?a=1&b=1", beta, "1 a=1"),
        ("http://h/?a=1&b=2", beta, "1 a=1"),
        ("http://h/?a=2&b=1", &[], "2 b=1"),
        ("http://h/?a=1&b=1", &[], "2 b=1"),
    ] {
        let body = call(&stack, request("GET", uri, fields)).await.1;
        assert_eq!(body, expected, "{uri} {fields:?}");
    }
    purge.url("http://h/?a=1&b=9").unwrap();
    assert_eq!(call(&stack, request("GET", "http://h/?a=1&b=3", beta)).await.1, "3 a=1");
    assert_eq!(
        call(&stack, request("GET", "http://h/?a=1&b=1", &[])).await.1,
        "2 b=1",
        "not named by that URI"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_keeps_the_rule_of_its_request() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        response(&[], format!("{n} {}", request.headers().contains_key("cookie")))
    });
    let rule = KeyRule::any().when(When::new().cookies(["beta"])).cookies([]).fixed_ttl(ms(100));
    let keys = KeyRules::builder().rule(rule.stale_while_revalidate_for(secs(9)));
    let keys = keys.rule(KeyRule::any().when(When::new().no_cookies(["beta"])).bypass());
    let service = stack_by(Rules::new(), keys, &origin);
    let beta = || request("GET", "http://h/", &[("cookie", "beta=1")]);
    for expected in ["1 false", "1 false", "2 false"] {
        assert_eq!(text(&service, beta()).await, expected);
        tokio::time::sleep(ms(if expected == "1 false" { 101 } else { 0 })).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_condition_is_reported() {
    let service = stack_by(fixed(60_000), blog(), &counting());
    let doubtful = request("GET", "http://h/a", &[("user_agent", "a bot")]);
    let response = tower::ServiceExt::oneshot(service, doubtful).await.unwrap();
    let status = CacheStatus::of(&response).unwrap();
    assert_eq!(status.unkeyed_reason(), Some(Unkeyed::AmbiguousCondition));
    let headers: &HeaderMap = response.headers();
    assert!(headers["cache-status"].to_str().unwrap().contains("ambiguous-condition"));
}
