//! Rules that are for some requests only, by more than their path.

use axum::body::Body;
use http::{Request, header};
use tower::Layer;
use tower_readthrough::{
    Classes, Guard, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, ReadThrough,
    ReadThroughLayer, Rules,
};

use crate::support::open::{Origin, call, fixed, request, response, store, text};

type Fields = &'static [(&'static str, &'static str)];
type Service = ReadThrough<Origin, MemoryStore, KeyRules>;

fn stack_by(rules: Rules, keys: KeyRulesBuilder, origin: &Origin) -> Service {
    let keys = keys.build().unwrap();
    ReadThroughLayer::builder(store()).key(keys).rules(rules).build().unwrap().layer(origin.clone())
}

/// Says which cookies it got, and that all may have the page.
fn by_cookie() -> Origin {
    Origin::new(|_, request: Request<Body>| async move {
        let cookies = request.headers().get_all(header::COOKIE).iter().map(|line| line.to_str().unwrap());
        response(&[("cache-control", "max-age=60")], cookies.collect::<Vec<_>>().join("|"))
    })
}

/// It changes where others are removed on the way, and what is learned from a response is found by its key.
#[tokio::test(start_paused = true)]
async fn the_order_of_keyed_fields_counts_for_nothing() {
    const FIELDS: [(&str, &str); 6] = [
        ("cookie", "a=1"),
        ("x-t-a", "1"),
        ("hx-request", "2"),
        ("x-forwarded-host", "3"),
        ("x-t-b", "4"),
        ("hx-target", "5"),
    ];
    let any = || KeyRule::any().cookies([]).no_vary_search();
    for keys in [
        KeyRules::builder().rule(any().headers(["x-t-*"])),
        KeyRules::builder().guard(Guard::new()).rule(any()),
        KeyRules::builder().guard(Guard::new().keyed(["x-forwarded-host"])).rule(any().headers(["x-t-*"])),
    ] {
        let origin = by_cookie();
        let service = stack_by(Rules::new(), keys, &origin);
        for turn in 0..FIELDS.len() {
            let mut fields = FIELDS;
            fields.rotate_left(turn);
            assert_eq!(text(&service, request("http://h/", &fields)).await, "");
        }
        assert_eq!(origin.calls(), 1);
    }
    // To a service behind CGI both are one field, whose first line counts, or the last.
    let spellings = [("x-t-a", "1"), ("x_t_a", "2")];
    let rules = KeyRules::builder().rule(any().headers(["x-t-*"])).build().unwrap();
    let key = |fields: &[_]| rules.key(&request("http://h/", fields).into_parts().0);
    assert_ne!(key(&spellings), key(&[spellings[1], spellings[0]]));
}

mod guards {
    use super::*;

    const EVIL: &[(&str, &str)] = &[("cookie", "name=evil")];

    #[tokio::test(start_paused = true)]
    async fn a_cookie_that_no_rule_names_is_in_the_key() {
        let origin = by_cookie();
        let guarded = stack_by(Rules::new(), KeyRules::builder().guard(Guard::new()), &origin);
        for (fields, calls) in [
            (EVIL, 1),
            (EVIL, 1),
            (&[], 2),
            (&[("cookie", "a=1")], 3),
            (&[("cookie", "a"), ("cookie", "1")], 4),
        ] {
            let seen: Vec<&str> = fields.iter().map(|(_, value)| *value).collect();
            assert_eq!(text(&guarded, request("http://h/", fields)).await, seen.join("|"));
            assert_eq!(origin.calls(), calls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_about_cookies_holds_in_place_of_the_guard() {
        let said = |rule: KeyRule| KeyRules::builder().rule(rule).guard(Guard::new());
        let by_guard = |guard| KeyRules::builder().guard(guard);
        for (rules, keys, seen) in [
            (Rules::new(), said(KeyRule::any().cookies([])), ""),
            (Rules::new().cookies([]), KeyRules::builder().guard(Guard::new()), ""),
            (Rules::new().cookies(["a"]), KeyRules::builder().guard(Guard::new()), ""),
            (Rules::new().cookies(["name"]), said(KeyRule::any().cookies([])), ""),
            (Rules::new(), by_guard(Guard::new().headers(["cookie"])), ""),
            (Rules::new(), by_guard(Guard::only(["accept"])), ""),
            (Rules::new(), by_guard(Guard::only(["cookie"])), "name=evil"),
            (Rules::new(), KeyRules::builder(), "name=evil"),
        ] {
            let origin = by_cookie();
            let service = stack_by(rules, keys.clone(), &origin);
            assert_eq!(text(&service, request("http://h/", EVIL)).await, seen, "{keys:?}");
            let shares = !format!("{keys:?}").contains("only: Some");
            let other = if shares { seen } else { "" };
            assert_eq!(text(&service, request("http://h/", &[])).await, other, "{keys:?}");
        }
    }

    /// Without freshness of its own a response to a client's own cookies is nobody else's, nor stored.
    #[tokio::test(start_paused = true)]
    async fn a_cookie_in_the_key_of_a_guard_is_still_a_credential() {
        let origin = Origin::new(|n, _| async move { response(&[], n.to_string()) });
        let service = stack_by(fixed(60_000), KeyRules::builder().guard(Guard::new()), &origin);
        for expected in ["1", "2"] {
            assert_eq!(text(&service, request("http://h/", EVIL)).await, expected);
        }
    }
}

mod prefixes {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cookies_that_begin_so_are_in_the_key_and_reach_the_origin() {
        let origin = by_cookie();
        let rule = KeyRule::any().cookies(["wordpress_logged_in_*", "lang"]);
        let service = stack_by(fixed(60_000), KeyRules::builder().rule(rule), &origin);
        for (cookies, seen, calls) in [
            ("_ga=1", "", 1),
            ("_ga=2; wordpress_test_cookie=1", "", 1),
            ("lang=de; _ga=3; wordpress_logged_in_a1=bob", "wordpress_logged_in_a1=bob; lang=de", 2),
            ("wordpress_logged_in_a1=bob; lang=de", "wordpress_logged_in_a1=bob; lang=de", 2),
            ("wordpress_logged_in_a1=eve; lang=de", "wordpress_logged_in_a1=eve; lang=de", 3),
            ("wordpress_logged_in_b2=bob; lang=de", "wordpress_logged_in_b2=bob; lang=de", 4),
        ] {
            assert_eq!(text(&service, request("http://h/", &[("cookie", cookies)])).await, seen);
            assert_eq!(origin.calls(), calls, "{cookies}");
        }
    }
}

mod when {
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

    fn counting() -> Origin {
        Origin::new(|n, _| async move { response(&[], n.to_string()) })
    }

    /// Which rule a request has: its bypass, or one that keys.
    fn kind(keys: &KeyRules, uri: &str, fields: &[(&'static str, &str)]) -> &'static str {
        let of = |fields| {
            let head = request(uri, fields).into_parts().0;
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
    fn the_first_rule_whose_conditions_hold_is_for_a_request() {
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
            // What some server may take for it goes round the cache.
            ("http://h/a", &[("cookie", "a=\"x; wordpress_logged_in_1=2\"")], "bypass"),
            ("http://h/a", &[("cookie", "WordPress%5Flogged_in_1=2")], "bypass"),
            ("http://h/a", &[("cookie", "__Host-wordpress_logged_in_1=2")], "bypass"),
            ("http://h/a", &[("cookie", &many)], "bypass"),
            ("http://h/a?preview=false&preview=true", &[], "bypass"),
            ("http://h/a?x;preview=true", &[], "bypass"),
            ("http://h/a?preview=true", &[("x_crawler", "1")], "bypass"),
            // And is not stored by a rule that is for something else.
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
            let head = request("http://h/a", fields).into_parts().0;
            assert_eq!(read_rules.key(&head), written.key(&head));
        }
        for (when, says) in [
            ("{}", "`when` has no effect: it has no conditions"),
            (r#"{ "cookies": [] }"#, "an empty list"),
            (r#"{ "cookie": ["a"] }"#, "unknown field `cookie`"),
            (r#"{ "headers": ["x-preview=1"] }"#, "write `name` or `name: value`"),
            (r#"{ "cookies": ["a: b"] }"#, "write `name` or `name=value`"),
        ] {
            let error =
                read(&format!(r#"{{ "rules": [{{ "when": {when}, "bypass": true }}] }}"#)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_condition_shadows_only_what_has_the_same_or_a_narrower_one() {
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
                    text(&service, request("http://h/", fields)).await;
                }
            }
            assert_eq!(origin.calls(), calls);
        }
    }

    /// The rule is chosen by what the client sent, also where the origin does not get to see it.
    #[tokio::test(start_paused = true)]
    async fn what_a_condition_looked_at_may_be_removed_from_the_request() {
        let seen = || {
            Origin::new(|n, request: Request<Body>| async move {
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
            let rule =
                KeyRule::any().when(when).cookies([]).keep_query(["a"]).fixed_ttl(crate::support::ms(1_000));
            let other = KeyRule::any().cookies([]).keep_query(["a"]).fixed_ttl(crate::support::ms(9_000));
            let keys = KeyRules::builder().rule(rule).rule(other).guard(Guard::new());
            let service = stack_by(Rules::new(), keys, &origin);
            assert_eq!(text(&service, request(uri, fields)).await, "1 false false a=1", "{uri} {fields:?}");
            assert_eq!(text(&service, request("http://h/?a=1", &[])).await, "2 false false a=1");
            tokio::time::sleep(crate::support::ms(2_000)).await;
            assert_eq!(
                text(&service, request(uri, fields)).await,
                "3 false false a=1",
                "by its own lifetime"
            );
            assert_eq!(text(&service, request("http://h/?a=1", &[])).await, "2 false false a=1");
        }
    }

    /// What is learned of a path is learned for the rule that the request had.
    #[tokio::test(start_paused = true)]
    async fn what_responses_say_of_queries_is_kept_by_rule() {
        let origin =
            Origin::new(
                |n, _| async move { response(&[("no-vary-search", "params=(\"x\")")], n.to_string()) },
            );
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
            assert_eq!(text(&service, request(uri, fields)).await, expected, "{uri} {fields:?}");
        }
    }

    /// As a URL, and as the target of an unsafe request or of its `Location`.
    #[tokio::test(start_paused = true)]
    async fn a_purge_reaches_the_entries_of_every_rule_that_may_be_for_a_uri() {
        let requests = || {
            [&[][..], &[("x-beta", "1")], &[("cookie", "tenant=a")], &[("accept", "text/markdown")]]
                .map(|fields| request("http://h/p?id=1&utm_x=1", fields))
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
            let origin = Origin::new(|n, request: Request<Body>| async move {
                match request.method() == "POST" {
                    true => response(&[("location", "http://h/p?id=1&utm_x=1")], ""),
                    false => response(&[], n.to_string()),
                }
            });
            let cache =
                ReadThroughLayer::builder(store()).key(keys.clone()).rules(fixed(60_000)).build().unwrap();
            let (purge, service) = (cache.purge(), cache.layer(origin.clone()));
            let of = |uri: &str, method: &str| {
                Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
            };
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

    /// Layers by hand: the keys come from a layer of their own, which has removed what was looked at.
    #[tokio::test(start_paused = true)]
    async fn a_key_layer_remembers_the_rule_for_the_layers_below() {
        let keys = || {
            KeyRules::builder()
                .rule(KeyRule::any().when(When::new().cookies(["beta"])).keep_query(["a"]).cookies([]))
                .rule(KeyRule::any().keep_query(["b"]).cookies([]))
                .build()
                .unwrap()
        };
        let seen = Origin::new(|n, request: Request<Body>| async move {
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
            let body = call(&stack, request(uri, fields)).await.1;
            assert_eq!(body, expected, "{uri} {fields:?}");
        }
        purge.url("http://h/?a=1&b=9").unwrap();
        assert_eq!(call(&stack, request("http://h/?a=1&b=3", beta)).await.1, "3 a=1");
        assert_eq!(call(&stack, request("http://h/?a=1&b=1", &[])).await.1, "2 b=1", "not named by that URI");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_in_the_background_keeps_the_rule_of_its_request() {
        let origin = Origin::new(|n, request: Request<Body>| async move {
            response(&[], format!("{n} {}", request.headers().contains_key("cookie")))
        });
        let rule =
            KeyRule::any().when(When::new().cookies(["beta"])).cookies([]).fixed_ttl(crate::support::ms(100));
        let keys = KeyRules::builder().rule(rule.stale_while_revalidate_for(crate::support::secs(9)));
        let keys = keys.rule(KeyRule::any().when(When::new().no_cookies(["beta"])).bypass());
        let service = stack_by(Rules::new(), keys, &origin);
        let beta = || request("http://h/", &[("cookie", "beta=1")]);
        for expected in ["1 false", "1 false", "2 false"] {
            assert_eq!(text(&service, beta()).await, expected);
            tokio::time::sleep(crate::support::ms(if expected == "1 false" { 101 } else { 0 })).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubtful_request_says_so() {
        let service = stack_by(fixed(60_000), blog(), &counting());
        let doubtful = request("http://h/a", &[("user_agent", "a bot")]);
        let response = tower::ServiceExt::oneshot(service, doubtful).await.unwrap();
        let status = CacheStatus::of(&response).unwrap();
        assert_eq!(status.unkeyed_reason(), Some(Unkeyed::AmbiguousCondition));
        let headers: &HeaderMap = response.headers();
        assert!(headers["cache-status"].to_str().unwrap().contains("ambiguous-condition"));
    }
}

/// Says which fields it got.
fn by_fields() -> Origin {
    Origin::new(|n, request: Request<Body>| async move {
        let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            format!(" {name}={}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = request.headers().iter().map(line).collect();
        lines.sort_unstable();
        response(&[], format!("{n}{}", lines.concat()))
    })
}

mod field_prefixes {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fields_that_begin_so_are_in_the_key_whatever_a_guard_removes() {
        for guard in [None, Some(Guard::new()), Some(Guard::only([""; 0]))] {
            let origin = by_fields();
            let mut keys = KeyRules::builder().rule(KeyRule::any().headers(["X-Tenant-*"]));
            let is_guarded = guard.is_some();
            if let Some(guard) = guard {
                keys = keys.guard(guard);
            }
            let service = stack_by(fixed(60_000), keys, &origin);
            for (fields, expected) in [
                (&[][..], "1"),
                (&[("x-tenant-id", "a")], "2 x-tenant-id=a"),
                (&[("x-tenant-id", "b")], "3 x-tenant-id=b"),
                (&[("x-tenant-id", "a"), ("x-tenant-plan", "c")], "4 x-tenant-id=a x-tenant-plan=c"),
                (&[("x-tenant-id", "a")], "2 x-tenant-id=a"),
            ] {
                assert_eq!(text(&service, request("http://h/", fields)).await, expected);
            }
            // A service behind CGI takes it for the same, so it is in the key, or removed.
            let misspelt = text(&service, request("http://h/", &[("x_tenant_id", "evil")])).await;
            assert!(
                if is_guarded { !misspelt.contains("evil") } else { misspelt.starts_with('5') },
                "{misspelt}"
            );
            assert_eq!(text(&service, request("http://h/", &[])).await, "1");
        }
    }

    #[test]
    fn beginnings_that_are_none_or_that_a_guard_removes_are_refused() {
        let error = |keys: KeyRulesBuilder| keys.build().unwrap_err().to_string();
        for name in ["*", "x-*-y", "if-*", "h*", "x-**"] {
            assert!(
                error(KeyRules::builder().rule(KeyRule::any().headers([name])))
                    .contains("is not a header field")
            );
        }
        let keyed = || KeyRules::builder().rule(KeyRule::any().headers(["x-forwarded-*"]));
        assert!(
            error(keyed().guard(Guard::new()))
                .contains("`x-forwarded-*` is in the key, but the guard removes")
        );
        assert!(keyed().guard(Guard::new().keyed(["x-forwarded-*"])).build().is_ok());
        assert!(keyed().build().is_ok());
    }

    /// A credential in the key gives each of its values an entry of its own.
    #[tokio::test(start_paused = true)]
    async fn a_credential_that_begins_so_is_in_the_key() {
        let origin = Origin::new(|n, _| async move { response(&[], n.to_string()) });
        let service =
            stack_by(fixed(60_000), KeyRules::builder().rule(KeyRule::any().headers(["x-api-*"])), &origin);
        for (key, expected) in [("a", "1"), ("a", "1"), ("b", "2")] {
            assert_eq!(text(&service, request("http://h/", &[("x-api-key", key)])).await, expected);
        }
    }

    /// Beside what the cache reads, only what is in the key reaches the origin.
    #[tokio::test(start_paused = true)]
    async fn a_guard_without_names_sends_on_only_what_is_in_the_key() {
        let origin = by_fields();
        let rule = KeyRule::any().headers(["x-tenant-*", "accept"]).cookies(["lang"]);
        let keys = KeyRules::builder().rule(rule).guard(Guard::only([""; 0]).keyed(["x-version"]));
        let service = stack_by(fixed(60_000), keys, &origin);
        let fields: Fields = &[
            ("accept", "text/html"),
            ("accept-encoding", "br"),
            ("authorization", "secret"),
            ("cookie", "lang=de; sid=1"),
            ("user-agent", "x"),
            ("x-real-ip", "192.0.2.1"),
            ("x-tenant-id", "a"),
            ("x-version", "2"),
        ];
        assert_eq!(
            text(&service, request("http://h/", fields)).await,
            "1 accept-encoding=br accept=text/html cookie=lang=de x-tenant-id=a x-version=2",
        );
    }
}

mod classes {
    use super::*;
    use tower_readthrough::{CacheKey, Classes, KeyExtractor, KeyLayer, LookupLayer, Purge, When};

    const PHONE: (&str, &str) = ("user-agent", "Mozilla/5.0 (iPhone; 1)");

    fn device() -> Classes {
        Classes::of("User-Agent", "X-Device")
            .class("mobile", ["*iphone*", "*Android*Mobile*"])
            .otherwise("desktop")
    }

    fn by_device() -> KeyRulesBuilder {
        KeyRules::builder()
            .classes(device())
            .rule(KeyRule::path("/plain"))
            .rule(KeyRule::path("/{*page}").headers(["x-device"]))
    }

    /// Two phones share a page, and no client makes up its class or has its own agent seen.
    #[tokio::test(start_paused = true)]
    async fn requests_of_a_class_share_a_response_that_knows_the_class_alone() {
        for guard in [None, Some(Guard::new()), Some(Guard::only([""; 0]))] {
            let mut keys = by_device();
            if let Some(guard) = guard {
                keys = keys.guard(guard);
            }
            let service = stack_by(fixed(60_000), keys, &by_fields());
            for (fields, expected) in [
                (&[PHONE][..], "1 x-device=mobile"),
                (&[("user-agent", "Mozilla/5.0 (iPhone; 2)")], "1 x-device=mobile"),
                (&[("user-agent", "Mozilla/5.0 (Linux; Android 15) Mobile Safari")], "1 x-device=mobile"),
                (&[("user-agent", "Mozilla/5.0 (X11)")], "2 x-device=desktop"),
                (&[], "2 x-device=desktop"),
                (&[("x-device", "mobile")], "2 x-device=desktop"),
                (&[("x-device", "<evil>"), PHONE], "1 x-device=mobile"),
                (&[("x_device", "<evil>"), ("user_agent", "iPhone")], "2 x-device=desktop"),
            ] {
                assert_eq!(text(&service, request("http://h/a", fields)).await, expected, "{fields:?}");
            }
        }
    }

    /// A made-up class would reach the origin of a page that is for all.
    #[tokio::test(start_paused = true)]
    async fn without_the_class_in_the_key_the_field_does_not_reach_the_origin() {
        let service = stack_by(fixed(60_000), by_device(), &by_fields());
        let fields = [("x-device", "<evil>"), ("X_Device", "<evil>"), PHONE];
        let expected = format!("1 user-agent={}", PHONE.1);
        assert_eq!(text(&service, request("http://h/plain", &fields)).await, expected);
        let mut own = request("http://h/a", &fields);
        own.extensions_mut().insert(CacheKey::new("a key that knows of no class"));
        assert_eq!(text(&service, own).await, format!("2 user-agent={}", PHONE.1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_varies_by_the_classified_field_is_one_for_a_class() {
        let origin = Origin::new(|n, _| async move {
            response(&[("vary", "User-Agent, X-Device, Accept")], n.to_string())
        });
        let format =
            Classes::of("accept", "accept").class("image/avif", ["*image/avif*"]).otherwise("image/jpeg");
        let rule = KeyRule::any().headers(["x-device", "accept"]);
        let service = stack_by(
            fixed(60_000),
            KeyRules::builder().classes(device()).classes(format).rule(rule),
            &origin,
        );
        for (agent, accept, expected) in [
            ("iPhone 1", "image/avif", "1"),
            ("iPhone 2", "*/*, image/avif;q=0.9", "1"),
            ("iPhone 3", "*/*", "2"),
            ("other", "image/webp", "3"),
            ("another", "text/html", "3"),
        ] {
            let fields = [("user-agent", agent), ("accept", accept)];
            assert_eq!(text(&service, request("http://h/", &fields)).await, expected, "{agent} {accept}");
        }
    }

    /// The class stands in place of the value where both have one name, and is not classified again.
    #[tokio::test(start_paused = true)]
    async fn a_class_may_replace_the_field_itself() {
        let format = Classes::of("accept", "accept")
            .class("best", ["image/*"])
            .class("image/x", ["best"])
            .otherwise("*/*");
        let keys = || {
            let rule = KeyRule::path("/images/{*all}").headers(["accept"]);
            KeyRules::builder().classes(format.clone()).rule(rule).build().unwrap()
        };
        let (origin, store) = (by_fields(), store());
        let stack = tower::ServiceBuilder::new()
            .layer(KeyLayer::new(keys()))
            .layer(LookupLayer::new(store.clone()).key(keys()).rules(fixed(60_000)))
            .layer(tower_readthrough::FillLayer::new(store.clone()).rules(fixed(60_000)))
            .service(origin.clone());
        for (accept, expected) in
            [("image/a", "1 accept=best"), ("image/b", "1 accept=best"), ("best", "2 accept=image/x")]
        {
            let body = call(&stack, request("http://h/images/1", &[("accept", accept)])).await.1;
            assert_eq!(body, expected);
        }
        let other = call(&stack, request("http://h/", &[("accept", "image/a")])).await.1;
        assert_eq!(other, "3 accept=image/a");
        Purge::of(store, keys()).url("http://h/images/1").unwrap();
        assert_eq!(
            call(&stack, request("http://h/images/1", &[("accept", "image/b")])).await.1,
            "4 accept=best"
        );
    }

    /// What is removed for the origin is still known to a refresh, and to a layer below.
    #[tokio::test(start_paused = true)]
    async fn a_class_stays_what_it_was_when_the_field_is_gone() {
        let rules = || by_device().build().unwrap();
        let keys = rules();
        let mut head = request("http://h/a", &[PHONE]).into_parts().0;
        keys.note(&mut head);
        let key = keys.key(&head);
        for _ in 0..2 {
            keys.normalise(&mut head);
            assert_eq!(keys.key(&head), key);
            assert_eq!(head.headers.get("x-device").unwrap(), "mobile");
            assert!(!head.headers.contains_key("user-agent"));
        }
        // Another request is another one, whatever became of its fields before.
        keys.note(&mut head);
        assert_ne!(keys.key(&head), key);

        let stale = KeyRule::any().headers(["x-device"]).stale_while_revalidate_for(crate::support::secs(9));
        let keys = KeyRules::builder().classes(device()).rule(stale);
        let service = stack_by(fixed(100), keys, &by_fields());
        for expected in ["1 x-device=mobile", "1 x-device=mobile", "2 x-device=mobile"] {
            assert_eq!(text(&service, request("http://h/a", &[PHONE])).await, expected);
            tokio::time::sleep(crate::support::ms(if expected.starts_with('1') { 101 } else { 0 })).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn conditions_see_the_field_before_it_is_classified() {
        let when = When::new().headers(["user-agent: *bot*"]);
        let keys = KeyRules::builder()
            .classes(device())
            .rule(KeyRule::any().when(when))
            .rule(KeyRule::any().headers(["x-device"]));
        let service = stack_by(fixed(60_000), keys, &by_fields());
        for (agent, expected) in [
            ("a bot (iPhone)", "1 user-agent=a bot (iPhone)"),
            ("iPhone", "2 x-device=mobile"),
            ("an iPhone", "2 x-device=mobile"),
        ] {
            assert_eq!(text(&service, request("http://h/", &[("user-agent", agent)])).await, expected);
        }
    }

    #[test]
    fn what_is_classified_is_not_in_the_key_as_well() {
        let error = |keys: KeyRulesBuilder| keys.build().unwrap_err().to_string();
        let both =
            KeyRules::builder().classes(device()).rule(KeyRule::any().headers(["x-device", "user-agent"]));
        assert!(error(both).contains("only the class of `user-agent` is in the key"));
        let guarded = by_device().guard(Guard::new().keyed(["user-agent"]));
        assert!(error(guarded).contains("only the class of `user-agent` is in the key"));
        let unused = KeyRules::builder().classes(device()).rule(KeyRule::any());
        assert_eq!(error(unused), "key rules: classes `x-device`: no rule names this field in its `headers`",);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn documents_have_classes() {
        let read = |text: &str| serde_json::from_str::<KeyRules>(text).map_err(|error| error.to_string());
        let document = |classes: &str| {
            format!(
                r#"{{ "classes": [{classes}], "rules": [
                {{ "path": "/plain" }}, {{ "path": "/{{*page}}", "headers": ["x-device"] }}
            ] }}"#
            )
        };
        let device = r#"{ "field": "user-agent", "name": "x-device", "otherwise": "desktop", "classes": [
            { "class": "mobile", "patterns": ["*iphone*", "*Android*Mobile*"] }
        ] }"#;
        let (read_rules, written) = (read(&document(device)).unwrap(), by_device().build().unwrap());
        for fields in [&[][..], &[PHONE]] {
            let head = request("http://h/a", fields).into_parts().0;
            assert_eq!(read_rules.key(&head), written.key(&head));
        }
        for (classes, says) in [
            (r#"{ "field": "user-agent" }"#, "missing field `name`"),
            (
                r#"{ "field": "user-agent", "name": "x-device", "classes": [] }"#,
                "there is no class beside `otherwise`",
            ),
            (
                r#"{ "field": "user-agent", "name": "x-device", "classes": [{ "class": "a", "patterns": [] }] }"#,
                "an empty list",
            ),
            (
                r#"{ "field": "user-agent", "name": "x-device", "classes": [{ "class": "a", "patterns": "a" }] }"#,
                "`otherwise` is missing",
            ),
            (
                r#"{ "field": "cookie", "name": "x-device", "otherwise": "b", "classes": [{ "class": "a", "patterns": "a" }] }"#,
                "nor credentials",
            ),
        ] {
            let error = read(&document(classes)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

/// Rules that change no field are not asked to, on hits; all that may change one are.
#[test]
fn rules_say_whether_they_change_the_fields_of_requests() {
    let rule = || KeyRule::path("/a").headers(["x-device"]).cookies(["lang"]);
    let device = || Classes::of("user-agent", "x-device").class("mobile", ["*iPhone*"]).otherwise("desktop");
    for (rules, normalises) in [
        (KeyRules::builder().rule(rule()).ignore_query(["utm_*"]), false),
        (KeyRules::builder().rule(rule()).accept_encoding(["br"]), true),
        (KeyRules::builder().rule(rule()).accept_language(["de"]), true),
        (KeyRules::builder().rule(rule()).guard(Guard::new()), true),
        (KeyRules::builder().rule(rule()).classes(device()), true),
    ] {
        assert_eq!(rules.build().unwrap().normalises(), normalises);
    }
}
