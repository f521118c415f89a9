//! Key rules as documents.

use std::time::Duration;

use http::Request;
use tower_readthrough::{Guard, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, StaleWindow};

/// A document with every setting.
const ALL: &str = r#"{
    "namespace": "n",
    "scheme": "https",
    "whole_uri": true,
    "accept_encoding": ["br", "gzip"],
    "accept_language": ["en"],
    "guard": { "headers": ["x-a-*"], "only_headers": ["x-b"], "keyed": ["x-c"] },
    "ignore_query": ["gclid"],
    "same_hosts": [["a.example", "www.b.example"], ["h", "i", "j:8080"]],
    "rules": [
        { "name": "first", "host": ["a.example", "*.b.example"], "method": ["GET", "HEAD"], "path": "/a/{id}",
          "keep_query": ["q"], "sort_query": true, "headers": ["x-a"],
          "cookies": ["c"], "extensions": ["tenant"], "forward_unkeyed": true, "tags": ["a-{id}"],
          "fixed_ttl": "200ms", "negative_ttl": "1s", "heuristic": { "share": 0.1, "at_most": "1h 30m" },
          "stale_while_revalidate_for": "10s", "stale_if_error_for": "1day", "revalidate_for": "5m",
          "hit_for_miss_for": "0s", "store_set_cookie": true, "store_without": ["x-a"],
          "store_private": true,
          "store_no_store": true, "store_authorized": true, "stale_despite_revalidate": ["if-error"] },
        { "host": "c.example", "method": "GET", "path": "/search", "ignore_path_case": true, "no_vary_search": true, "default_ttl": "50us" },
        { "path": ["/account/{*rest}", "/cart/{**rest}"], "bypass": true },
        { "ignore_query": ["utm_*"], "drop_empty_query": true }
    ]
}"#;

fn in_code() -> KeyRulesBuilder {
    let (ms, secs) = (Duration::from_millis, Duration::from_secs);
    KeyRules::builder()
        .namespace("n")
        .scheme(http::uri::Scheme::HTTPS)
        .whole_uri()
        .accept_encoding(["br", "gzip"])
        .accept_language(["en"])
        .guard(Guard::new().headers(["x-a-*"]).only_headers(["x-b"]).keyed(["x-c"]))
        .ignore_query(["gclid"])
        .same_hosts(["a.example", "www.b.example"])
        .same_hosts(["h", "i", "j:8080"])
        .rule(
            KeyRule::path("/a/{id}")
                .name("first")
                .host("a.example")
                .host("*.b.example")
                .method("GET")
                .method("HEAD")
                .keep_query(["q"])
                .sort_query()
                .headers(["x-a"])
                .cookies(["c"])
                .extensions(["tenant"])
                .forward_unkeyed()
                .tags(["a-{id}"])
                .fixed_ttl(ms(200))
                .negative_ttl(secs(1))
                .heuristic(0.1, secs(5400))
                .stale_while_revalidate_for(secs(10))
                .stale_if_error_for(secs(86_400))
                .revalidate_for(secs(300))
                .hit_for_miss_for(Duration::ZERO)
                .store_set_cookie(true)
                .store_without(["x-a"])
                .store_private(true)
                .store_no_store(true)
                .store_authorized(true)
                .stale_despite_revalidate([StaleWindow::IfError]),
        )
        .rule(
            KeyRule::path("/search")
                .host("c.example")
                .method("GET")
                .ignore_path_case()
                .no_vary_search()
                .default_ttl(Duration::from_micros(50)),
        )
        .rule(KeyRule::paths(["/account/{*rest}", "/cart/{**rest}"]).bypass())
        .rule(KeyRule::any().ignore_query(["utm_*"]).drop_empty_query())
}

#[test]
fn a_document_has_every_setting_of_the_builder() {
    let read: KeyRulesBuilder = serde_json::from_str(ALL).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", in_code()));
    let build = |builder: KeyRulesBuilder| {
        builder.extension("tenant", |tenant: &String| Some(tenant.as_bytes().into())).build().unwrap()
    };
    let (read, written) = (build(read), build(in_code()));
    for uri in
        ["http://a.example/a/1?q=1", "http://c.example/search?a", "http://h/account/x", "http://h/x?utm_a"]
    {
        let mut head = Request::get(uri).body(()).unwrap().into_parts().0;
        head.extensions.insert("acme".to_owned());
        assert_eq!(read.key(&head), written.key(&head), "{uri}");
        let identity = |rules: &KeyRules| rules.identity(&head.uri, None, &head.extensions);
        assert_eq!(identity(&read), identity(&written), "{uri}");
    }
}

#[test]
fn an_empty_document_is_the_default_key() {
    let rules: KeyRules = serde_json::from_str("{}").unwrap();
    let head = Request::get("http://h/a?b").body(()).unwrap().into_parts().0;
    assert_eq!(rules.key(&head), tower_readthrough::DefaultKey::new().key(&head));
}

#[test]
fn misspelt_and_useless_settings_are_refused() {
    for (expected, rule) in [
        ("unknown field `tll`", r#""tll": "1s""#),
        ("key rule 0: unknown field `tll`", r#""tll": "1s""#),
        ("key rule 0: duplicate field `path`", r#""path": "/a", "path": "/b""#),
        ("key rule 0: duplicate field `host`", r#""host": "a", "hosts": ["b"]"#),
        ("time unit", r#""fixed_ttl": "10""#),
        ("`soon`", r#""fixed_ttl": "soon""#),
        ("invalid type: integer", r#""fixed_ttl": 10"#),
        ("invalid type", r#""bypass": "yes""#),
        ("key rule 0 (`x`): invalid path pattern", r#""path": "x""#),
        ("key rule 0 (`mine`): `fixed_ttl` is zero", r#""name": "mine", "fixed_ttl": "0ms""#),
        ("key rule 0 (`any path`): unknown extension `tenant`", r#""extensions": ["tenant"]"#),
        ("method `POST`", r#""method": "POST""#),
    ] {
        let document = format!(r#"{{ "rules": [{{ {rule} }}] }}"#);
        let error = serde_json::from_str::<KeyRules>(&document).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    for (expected, document) in [
        ("unknown field `rule`", r#"{ "rule": [] }"#),
        ("unknown field `header`", r#"{ "guard": { "header": [] } }"#),
        ("scheme `h ttp`", r#"{ "scheme": "h ttp" }"#),
        ("`headers or only_headers` has no effect", r#"{ "guard": { "only": [], "headers": ["x-a"] } }"#),
    ] {
        let error = serde_json::from_str::<KeyRules>(document).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}
