//! Rules with a mistake are refused with the right spelling.

use tower_readthrough::{KeyRule, KeyRules};

fn error(rule: KeyRule) -> String {
    KeyRules::builder().rule(rule).build().expect_err("it has no effect").to_string()
}

#[test]
fn wildcards_of_other_syntaxes_are_refused_with_the_right_spelling() {
    for (path, instead) in [
        ("/u/:id", "/u/{id}"),
        ("/a/*", "/a/{*rest}"),
        ("/admin/*/users", "/admin/{any}/users"),
        ("/a/:path*", "/a/{*path}"),
        ("/u/<id>", "/u/{id}"),
        ("/u/{id:[0-9]+}", "/u/{id}"),
        ("/p?uid=*&pid={pid}", "uid={_}"),
        ("/p?uid=:uid", "uid={uid}"),
    ] {
        for rule in [KeyRule::path(path), KeyRule::path(path).bypass()] {
            let error = error(rule);
            assert!(error.contains(&format!("write `{instead}`")), "{path}: {error}");
        }
    }
    for path in ["/v1/users:batch", "/report:all", "/a/{id}", "/a-b_c.d~e"] {
        assert!(KeyRules::builder().rule(KeyRule::path(path)).build().is_ok(), "{path}");
    }
}

#[test]
fn names_with_wildcards_where_names_are_whole_are_refused() {
    assert!(error(KeyRule::any().cookies(["wordpress_*_in"])).contains("is not a cookie name"));
    assert!(error(KeyRule::any().headers(["x-*-for"])).contains("is not a header field"));
}

#[test]
fn mistakes_in_names_and_texts_are_refused() {
    for (rule, says) in [
        (KeyRule::any().ignore_query(["utm_source,utm_medium"]), "one name per string"),
        (KeyRule::any().keep_query(["a,b"]), "one name per string"),
        (KeyRule::any().tags(["a, b"]), "not one tag"),
        (KeyRule::any().tags(["a b"]), "not one tag"),
        (KeyRule::path("/p?id=5#top"), "fragment"),
        (KeyRule::path("/p#top"), "fragment"),
        (KeyRule::any().host("example.com."), "is not a valid host"),
        (KeyRule::any().host("http://example.com"), "is not a valid host"),
        (KeyRule::any().host("example.com/a"), "is not a valid host"),
    ] {
        let error = error(rule);
        assert!(error.contains(says), "{error}");
    }
    let languages = KeyRules::builder().accept_language(["de_DE"]).build();
    assert!(
        languages
            .unwrap_err()
            .to_string()
            .contains("`de_DE` is not a language tag; write one like `de` or `de-AT`")
    );
    for host in ["*.example.com:8080", "example.com:80", "[::1]:80"] {
        assert!(KeyRules::builder().rule(KeyRule::any().host(host)).build().is_ok(), "{host}");
    }
}

/// Patterns are compared by what they match, not by their text.
#[test]
fn rules_that_are_never_reached_are_refused() {
    let path = KeyRule::path;
    let never = [
        (path("/{*all}"), path("/account/{*rest}").bypass()),
        (path("/a/{id}"), path("/a/special")),
        (path("/a/{id}"), path("/a/{other}").headers(["x-a"])),
        (path("/p?a={a}&b={b}"), path("/p?b={x}&a=1")),
        (path("/p"), path("/p?a={a}")),
        (path("/a").host("*.example.com"), path("/a").host("Shop.example.com")),
        (path("/a").host("Example.com"), path("/a").host("example.COM:8080")),
        (path("/a").host("a.example").host("b.example"), path("/a").host("b.example")),
        (path("/a").method("GET").method("HEAD"), path("/a")),
        (path("/a"), path("/a").method("GET")),
        (KeyRule::any(), path("/a").host("a.example")),
    ];
    for (first, second) in never {
        let built = KeyRules::builder().rule(first.clone()).rule(second.clone()).build();
        let error = built.expect_err(&format!("{first:?} {second:?}"));
        assert_eq!(error.index(), Some(1));
        assert!(error.to_string().contains("never reached: rule 0"), "{error}");
        let other_way_round = KeyRules::builder().rule(second).rule(first).build();
        let is_same = |error: &tower_readthrough::RuleError| error.to_string().contains("never reached");
        assert!(other_way_round.as_ref().err().is_none_or(is_same));
    }
    let reached = [
        (path("/a/special"), path("/a/{id}")),
        (path("/{*all}"), path("/")),
        (path("/a/{id}"), path("/a/{id}/{*rest}")),
        (path("/p?a=1"), path("/p?a={a}")),
        (path("/p?a={a}"), path("/p")),
        (path("/a").host("shop.example.com"), path("/a").host("*.example.com")),
        (path("/a").host("*.example.com"), path("/a").host("example.com")),
        (path("/a").host("a.example:81"), path("/a").host("a.example")),
        (path("/a").method("GET"), path("/a")),
    ];
    for (first, second) in reached {
        let built = KeyRules::builder().rule(first.clone()).rule(second.clone()).build();
        assert!(built.is_ok(), "{first:?} {second:?}: {built:?}");
    }
}

#[cfg(feature = "serde")]
mod documents {
    use tower_readthrough::KeyRules;

    fn error(text: &str) -> String {
        serde_json::from_str::<KeyRules>(text).expect_err(text).to_string()
    }

    #[test]
    fn errors_name_the_rule_and_the_field() {
        for (text, says) in [
            (r#"{"rules": [{}, {"fixed_ttl": 10}]}"#, "key rule 1: `fixed_ttl`: invalid type: integer `10`"),
            (r#"{"rules": [{"fixed_ttl": 10}]}"#, "a duration with its unit, like `200ms` or `10s`"),
            (r#"{"rules": [{"fixed_ttl": "5M"}]}"#, "`fixed_ttl`: `5M`: `M` means months"),
            (r#"{"rules": [{"fixed_ttl": "5"}]}"#, "`fixed_ttl`: `5`"),
            (r#"{"rules": [{"bypass": "yes"}]}"#, "key rule 0: `bypass`: invalid type"),
            (r#"{"rules": [{"host": []}]}"#, "key rule 0: `host`: an empty list"),
            (r#"{"rules": [{"method": []}]}"#, "key rule 0: `method`: an empty list"),
            (r#"{"rules": [{"host": 5}]}"#, "`host`: invalid type: integer `5`, expected a string or a list"),
            (r#"{"guard": {"headers": 1}}"#, "`guard`: `headers`: invalid type"),
            (r#"{"accept_language": "de"}"#, "`accept_language`: invalid type"),
            (r#"{"rules": [{"tll": "5s"}]}"#, "key rule 0: unknown field `tll`"),
        ] {
            let error = error(text);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn valid_rules_are_accepted() {
        let text =
            r#"{"guard": {}, "rules": [{"host": ["a"], "method": "GET", "path": "/a", "fixed_ttl": "5m"}]}"#;
        serde_json::from_str::<KeyRules>(text).unwrap();
    }
}
