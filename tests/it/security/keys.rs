//! Cache poisoning and cache deception: what the key does not show, and paths read in two ways.

use http::{Request, request::Parts};
use tower::Layer;
use tower_readthrough::{
    CacheKey, DefaultKey, Guard, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, ReadThrough,
    ReadThroughLayer,
};

use crate::support::{Body, ScriptedOrigin, call, fixed, get_request, response, store};

fn request(uri: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let request =
        fields.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
    request(uri, fields).into_parts().0
}

/// Responds with everything that it sees of a request: a page may be made from any of it.
fn mirror() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        let mut fields: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        fields.sort();
        response(&[], format!("{} {}", request.uri(), fields.join(" ")))
    })
}

type Service = ReadThrough<ScriptedOrigin, MemoryStore, KeyRules>;

fn stack(keys: KeyRulesBuilder, origin: &ScriptedOrigin) -> Service {
    let keys = keys.build().unwrap();
    ReadThroughLayer::builder(store()).key(keys).rules(fixed(60_000)).build().unwrap().layer(origin.clone())
}

async fn text(service: &Service, request: Request<Body>) -> String {
    String::from_utf8(call(service, request).await.1.to_vec()).unwrap()
}

const OVERRIDES: [&str; 18] = [
    "forwarded",
    "x-forwarded-host",
    "X_Forwarded_Host",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-host",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-http-host-override",
    "x-url-scheme",
    "x-arr-ssl",
    "x-envoy-original-host",
    "x-proxied-https",
    "x-replaced-path",
];

mod host_header_poisoning {
    use super::*;

    #[test]
    fn a_field_that_overrides_the_target_is_in_the_default_key() {
        let key = |fields: &[(&str, &str)]| DefaultKey::new().key(&head("http://h/", fields)).unwrap();
        let plain = key(&[]);
        for name in OVERRIDES {
            let [one, two] = ["host=one", "host=two"].map(|value| key(&[(name, value)]));
            assert_ne!(one, plain, "{name}");
            assert_ne!(one, two, "{name}");
        }
        assert_eq!(key(&[("x-forwarded-for", "192.0.2.1"), ("x-real-ip", "192.0.2.1")]), plain);
        let [one, two] = ["192.0.2.1", "192.0.2.2"]
            .map(|client| key(&[("forwarded", &*format!("for={client};host=shop;proto=https"))]));
        assert_eq!(one, two, "behind a proxy that names its clients, all share an entry");
    }

    /// Without a guard no field is removed: an application behind a proxy needs them.
    #[tokio::test(start_paused = true)]
    async fn no_client_gets_the_links_of_another_and_the_application_sees_the_field() {
        let keyed_by_rules = KeyRules::builder().rule(KeyRule::any().ignore_query(["utm_*"]));
        let service = stack(keyed_by_rules, &mirror());
        let layer = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap();
        let without_rules = layer.layer(mirror());
        for name in OVERRIDES {
            let attack = || request("http://h/", &[(name, "host=evil")]);
            assert!(text(&service, attack()).await.contains("evil"), "{name}");
            assert!(!text(&service, get_request("http://h/")).await.contains("evil"), "{name}");
            let seen =
                async |request| String::from_utf8(call(&without_rules, request).await.1.to_vec()).unwrap();
            assert!(seen(attack()).await.contains("evil"), "{name}");
            assert!(!seen(get_request("http://h/")).await.contains("evil"), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_purge_by_url_reaches_the_entries_of_all_overrides() {
        let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
        let cache = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap();
        let (service, purge) = (cache.layer(origin.clone()), cache.purge());
        let requests = || {
            let fields = [&[][..], &[("x-forwarded-host", "a")], &[("forwarded", "host=b;for=c")]];
            fields.map(|fields| request("http://h/", fields))
        };
        for request in requests() {
            call(&service, request).await;
        }
        purge.url("http://h/").unwrap();
        for (request, expected) in requests().into_iter().zip(["4", "5", "6"]) {
            assert_eq!(call(&service, request).await.1, expected);
        }
    }
}

mod method_override {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_get_that_may_be_taken_for_another_method_has_no_key() {
        let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
        let layer = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap();
        let service = layer.layer(origin.clone());
        assert_eq!(call(&service, get_request("http://h/")).await.1, "1");
        let names =
            ["x-http-method-override", "x-http-method", "x-method-override", "X_HTTP_Method_Override"];
        for (name, expected) in names.into_iter().zip(["2", "3", "4", "5"]) {
            assert_eq!(call(&service, request("http://h/", &[(name, "DELETE")])).await.1, expected, "{name}");
        }
        let queries = ["_method=DELETE", "a=1&_method=put", "%5Fmethod=PATCH", "a=1;.method=DELETE"];
        for (query, expected) in queries.into_iter().zip([["6", "7"], ["8", "9"], ["10", "11"], ["12", "13"]])
        {
            for expected in expected {
                let uri = format!("http://h/?{query}");
                assert_eq!(call(&service, get_request(&uri)).await.1, expected, "{query}");
            }
        }
        assert_eq!(call(&service, get_request("http://h/")).await.1, "1");
    }
}

mod unkeyed_parameters {
    use super::*;

    /// Parsers read a thousand parameters, or fewer: which `id` that is depends on those before it.
    #[tokio::test(start_paused = true)]
    async fn with_more_parameters_than_all_servers_read_none_is_left_out_of_the_key() {
        let junk = "a=&".repeat(255);
        let mirror = mirror();
        let rules = KeyRules::builder().rule(KeyRule::path("/p").keep_query(["id"]));
        let service = stack(rules, &mirror);
        for (junk, expected) in [(&*junk, "id=1"), (&format!("{junk}a=&"), &format!("{junk}a=&id=1"))] {
            for _ in 0..2 {
                let seen = text(&service, get_request(&format!("http://h/p?{junk}id=1"))).await;
                assert!(seen.starts_with(&format!("http://h/p?{expected} ")), "{seen}");
            }
        }
        assert_eq!(mirror.calls(), 2);
    }

    /// Names that common parsers take for `id`, or from which they make it.
    #[tokio::test(start_paused = true)]
    async fn the_origin_sees_only_what_the_key_holds() {
        let service = stack(KeyRules::builder().rule(KeyRule::path("/p").keep_query(["id"])), &mirror());
        for query in [
            "id=1&utm_source=evil",
            "utm_source=x%26id=evil&id=1",
            "id=1&utm_source=x%26id=evil",
            "cb=evil&id=1",
        ] {
            let seen = text(&service, get_request(&format!("http://h/p?{query}"))).await;
            assert!(seen.starts_with("http://h/p?id=1 "), "{seen}");
        }
        for query in
            ["[id]=evil&id=1", "id[]=evil&id=1", "]id=evil&id=1", "ID=evil&id=1", "%5Bid%5D=evil&id=1"]
        {
            text(&service, get_request(&format!("http://h/p?{query}"))).await;
            assert!(!text(&service, get_request("http://h/p?id=1")).await.contains("evil"), "{query}");
        }
    }

    /// The rule says that the application needs what the key does not show.
    #[tokio::test(start_paused = true)]
    async fn a_forwarded_parameter_displaces_no_kept_one() {
        let rule = KeyRule::path("/p").keep_query(["id"]).forward_unkeyed();
        let service = stack(KeyRules::builder().rule(rule), &mirror());
        let template = KeyRule::path("/p?id={id}&uid={_}").forward_unkeyed();
        let template = stack(KeyRules::builder().rule(template), &mirror());
        let junk = "a=1&".repeat(1000);
        for query in ["uid=x%26id=evil&id=1", "id=1&uid=%3bid=evil", &format!("{junk}id=1&evil=1")] {
            for service in [&service, &template] {
                text(service, get_request(&format!("http://h/p?{query}"))).await;
                assert!(
                    !text(service, get_request("http://h/p?id=1&uid=5")).await.contains("evil"),
                    "{query}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_switch_without_a_value_is_not_the_page_without_it() {
        let service = stack(KeyRules::builder().rule(KeyRule::any().drop_empty_query()), &mirror());
        assert!(text(&service, get_request("http://h/?debug")).await.contains("debug"));
        assert!(!text(&service, get_request("http://h/")).await.contains("debug"));
        assert!(!text(&service, get_request("http://h/?debug=")).await.contains("debug"));
        let forwarding = KeyRule::any().drop_empty_query().forward_unkeyed();
        let error = KeyRules::builder().rule(forwarding).build().unwrap_err();
        assert!(error.to_string().contains("`forward_unkeyed` has no effect: `drop_empty_query`"), "{error}");
    }
}

mod framework_headers {
    use super::*;

    fn guarded(guard: Guard) -> Service {
        stack(KeyRules::builder().guard(guard), &mirror())
    }

    #[tokio::test(start_paused = true)]
    async fn internal_fields_of_frameworks_do_not_reach_the_origin() {
        let service = guarded(Guard::new());
        for name in [
            "x-forwarded-host",
            "x-original-url",
            "x-rewrite-url",
            "x-middleware-subrequest",
            "x-middleware-request-cookie",
            "x-invoke-status",
            "x-now-route-matches",
            "x-react-router-spa-mode",
            "x-react-router-prerender-data",
        ] {
            assert_eq!(text(&service, request("http://h/", &[(name, "evil")])).await, "http://h/ ", "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_framework_have_entries_of_their_own() {
        let service = guarded(Guard::new());
        for name in [
            "rsc",
            "next-router-state-tree",
            "next-router-prefetch",
            "x-nextjs-data",
            "hx-request",
            "hx-target",
            "turbo-frame",
            "x-inertia",
            "x-inertia-partial-data",
            "x-forwarded-proto",
            "x-forwarded-scheme",
        ] {
            let attack = text(&service, request("http://h/", &[(name, "evil")])).await;
            assert_eq!(attack, format!("http://h/ {name}=evil"));
            assert_eq!(text(&service, get_request("http://h/")).await, "http://h/ ", "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn named_fields_are_added_replaced_keyed_or_the_only_ones() {
        let all = [("x-a", "1"), ("x-host", "2"), ("x-original-url", "3"), ("x-b-c", "4"), ("cookie", "5")];
        for (guard, expected) in [
            (Guard::new(), "cookie=5 x-a=1 x-b-c=4"),
            (Guard::new().headers(["X-A", "x-b-*"]), "cookie=5"),
            (Guard::new().only_headers(["x-a"]), "cookie=5 x-b-c=4 x-host=2 x-original-url=3"),
            (Guard::new().keyed(["x-host"]), "cookie=5 x-a=1 x-b-c=4 x-host=2"),
            (Guard::only(["x-a"]), "x-a=1"),
            (Guard::only(["cookie"]).keyed(["x-b-*"]), "cookie=5 x-b-c=4"),
        ] {
            let service = guarded(guard.clone());
            assert_eq!(
                text(&service, request("http://h/", &all)).await,
                format!("http://h/ {expected}"),
                "{guard:?}"
            );
        }
        let keyed = guarded(Guard::new().keyed(["x-host", "x-v"]));
        for name in ["x-host", "x-v"] {
            assert!(text(&keyed, request("http://h/", &[(name, "evil")])).await.contains("evil"));
            assert!(!text(&keyed, get_request("http://h/")).await.contains("evil"), "{name}");
        }
        let replaced = guarded(Guard::new().only_headers(["x-a"]));
        assert!(text(&replaced, request("http://h/", &[("x-host", "evil")])).await.contains("evil"));
        assert!(
            !text(&replaced, get_request("http://h/")).await.contains("evil"),
            "what is not removed is keyed"
        );
    }

    /// What a rule has in its keys differs from rule to rule, and so does what passes.
    #[tokio::test(start_paused = true)]
    async fn an_allow_list_lets_through_what_the_rule_of_the_request_keys() {
        let keys =
            KeyRules::builder().rule(KeyRule::path("/a").headers(["x-a"])).guard(Guard::only(["accept"]));
        let service = stack(keys, &mirror());
        let fields = [("x-a", "1"), ("x-b", "2"), ("accept", "3"), ("authorization", "4")];
        assert_eq!(text(&service, request("http://h/a", &fields)).await, "http://h/a accept=3 x-a=1");
        assert_eq!(text(&service, request("http://h/b", &fields)).await, "http://h/b accept=3");
        assert_eq!(text(&service, request("http://h/a", &[("x-a", "2")])).await, "http://h/a x-a=2");
    }

    #[test]
    fn a_guard_that_cannot_work_has_an_error() {
        let none: [&str; 0] = [];
        for (guard, expected) in [
            (Guard::new().headers(["x-a"]).keyed(["x-a"]), "`x-a` is in the key"),
            (Guard::only(["x-a"]).headers(["x-b"]), "`headers or only_headers` has no effect"),
            (Guard::only(none).only_headers(none), "`headers or only_headers` has no effect"),
            (Guard::new().headers(["c*"]), "is not a field that a guard can remove"),
            (Guard::new().headers(["range"]), "`range` is not a field that a guard can remove"),
            (Guard::new().headers(["x-*-y"]), "`x-*-y` is not a field that a guard can remove"),
        ] {
            let error = KeyRules::builder().guard(guard).build().expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

mod underscores {
    use super::*;

    /// To a service behind CGI they are the same.
    #[tokio::test(start_paused = true)]
    async fn another_spelling_of_a_keyed_guarded_or_selecting_field_does_not_pass() {
        let keys = KeyRules::builder()
            .rule(KeyRule::path("/a").headers(["x-tenant"]))
            .rule(KeyRule::path("/b").headers(["x_tenant"]))
            .guard(Guard::new().keyed(["x_kept"]));
        let service = stack(keys, &mirror());
        let fields = [("x_host", "1"), ("X_Tenant", "2"), ("accept_language", "3"), ("x_kept", "4")];
        assert_eq!(text(&service, request("http://h/c", &fields)).await, "http://h/c x_kept=4 x_tenant=2");
        let service = stack(
            KeyRules::builder().rule(KeyRule::path("/a").headers(["x-tenant"])).guard(Guard::new()),
            &mirror(),
        );
        assert_eq!(text(&service, request("http://h/a", &fields)).await, "http://h/a ");
    }
}

mod cache_deception {
    use super::*;

    fn key(keys: &KeyRules, path: &str) -> Option<CacheKey> {
        keys.key(&head(&format!("http://h{path}"), &[]))
    }

    #[test]
    fn a_path_that_servers_decode_differently_has_no_key_under_rules() {
        let rule = KeyRule::path("/assets/{*rest}").fixed_ttl(std::time::Duration::from_secs(60));
        let keys = KeyRules::builder().rule(rule).build().unwrap();
        for path in [
            "/assets/%u002e%u002e/account",
            "/assets/%c0%ae%c0%ae/account",
            "/assets/%e0%80%ae%e0%80%ae/account",
            "/assets/%ef%bc%8e%ef%bc%8e/account",
            "/assets/%ef%bc%8f..%ef%bc%8faccount",
            "/assets/%25252e%25252e%25252faccount",
            "/assets/%zz",
            "/assets/%",
            "/assets/\u{ff0e}\u{ff0e}/account",
        ] {
            assert_eq!(key(&keys, path), None, "{path}");
        }
        for path in ["/assets/app.js", "/assets/caf%C3%A9.png", "/assets/a%20b.css"] {
            assert!(key(&keys, path).is_some(), "{path}");
        }
    }

    #[test]
    fn a_bypass_is_for_every_spelling_of_its_path() {
        let keys = KeyRules::builder()
            .rule(KeyRule::path("/account/help.html"))
            .rule(KeyRule::path("/Account").bypass())
            .rule(KeyRule::path("/my/{page}/").bypass())
            .rule(KeyRule::path("/private/{*rest}").bypass())
            .build()
            .unwrap();
        for path in [
            "/Account",
            "/account",
            "/ACCOUNT",
            "/account/",
            "/account.css",
            "/ACCOUNT.json",
            "/account.css/",
            "/%61ccount",
            "/my/cart",
            "/my/cart/",
            "/MY/Cart.js",
            "/PRIVATE/x",
            "/private/a/b.css",
        ] {
            assert_eq!(key(&keys, path), None, "{path}");
        }
        for path in ["/", "/accounts", "/account/help.html", "/my", "/my/cart/x", "/privat", "/.account"] {
            assert!(key(&keys, path).is_some(), "{path}");
        }
    }
}
