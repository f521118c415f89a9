//! Warnings about rules that work and are probably a mistake.

use std::time::Duration;

use tower_readthrough::{Classes, Guard, KeyRule, KeyRules, KeyRulesBuilder, When};

const TTL: Duration = Duration::from_secs(10);

fn rules<const N: usize>(rules: [KeyRule; N]) -> KeyRulesBuilder {
    rules.into_iter().fold(KeyRules::builder(), KeyRulesBuilder::rule)
}

/// Without the names of the rules.
fn warnings(builder: KeyRulesBuilder) -> Vec<(usize, String)> {
    let warnings = builder.build().unwrap().check();
    let text = |warning: &tower_readthrough::RuleWarning| {
        let text = warning.to_string();
        let begin = format!("key rule {} (`{}`): ", warning.index(), warning.rule());
        text.strip_prefix(&begin).unwrap().to_owned()
    };
    warnings.iter().map(|warning| (warning.index(), text(warning))).collect()
}

fn path(path: &str) -> KeyRule {
    KeyRule::path(path)
}

#[test]
fn ordinary_rules_give_no_warning() {
    for builder in [
        rules([path("/account").bypass(), path("/account/{*rest}").bypass(), path("/{*rest}").cookies([])]),
        rules([path("/a?id={id}").cookies([]).fixed_ttl(TTL), path("/a").keep_query(["id"])]),
        rules([path("/a/special"), path("/a/{id}"), KeyRule::any().bypass()]),
        rules([path("/a").cookies([]).default_ttl(TTL), KeyRule::any().ignore_query(["utm_*"])]),
        rules([path("/a").headers(["authorization"]).cookies(["lang"]).store_private(true)]),
        rules([path("/a").host("a.example"), path("/b").host("a.example"), path("/c")]),
        rules([path("/a").host("a.example"), path("/{*rest}").host("b.example").bypass()]),
        rules([path("/a").host("a.example").host("www.a.example"), path("/b")])
            .same_hosts(["a.example", "www.a.example"]),
        rules([path("/a").extensions(["tenant"]).store_authorized(true)])
            .extension("tenant", |tenant: &String| Some(tenant.as_bytes().into())),
        rules([path("/a").default_ttl(TTL)]).guard(Guard::new().headers(["cookie"])),
        rules([path("/a").default_ttl(TTL)]).guard(Guard::only(["accept"])),
        rules([path("/a").headers(["accept-language"])]).accept_language(["de"]),
        rules([path("/a").headers(["Accept"])])
            .classes(Classes::of("accept", "accept").class("image/webp", ["*image/webp*"]).otherwise("*/*")),
        rules([path("/{*rest}").bypass()]),
        rules([path("/{*file}.css").cookies([]).fixed_ttl(TTL)]),
        rules([path("/a").when(When::new().cookies(["sid"])).bypass(), path("/a").cookies([])]),
        rules([
            path("/a").when(When::new().no_cookies(["sid", "s*"])).cookies([]),
            path("/a").when(When::new().cookies(["sid"])).bypass(),
        ]),
        rules([KeyRule::paths(["/a/{*rest}", "/a"]).bypass()]),
        rules([KeyRule::paths(["/a/{*rest}", "/b", "/{c}"])]),
        rules([path("/a/{*rest}").method("GET"), path("/a/b").method("HEAD")]),
    ] {
        assert_eq!(warnings(builder), []);
    }
}

#[test]
fn each_warning_names_its_rule_and_says_what_to_change() {
    let any = KeyRule::any;
    let cases: Vec<(KeyRulesBuilder, usize, &str)> = vec![
        (
            rules([
                path("/a").host("a.example"),
                path("/a").host("b.example"),
                path("/a").host("b.example").host("a.example"),
            ]),
            2,
            "this rule is never reached: earlier rules match",
        ),
        (
            rules([path("/a").method("GET"), path("/a").method("HEAD"), path("/a")]),
            2,
            "this rule is never reached",
        ),
        (
            rules([path("/a/{*rest}").host("a.example"), path("/a/b").host("a.example").host("b.example")]),
            1,
            "rule 0 (`/a/{*rest}`) has a wider path and takes some requests of this rule",
        ),
        (
            rules([any().host("a.example"), path("/a").host("*.example")]),
            1,
            "rule 0 (`any path`) has a wider path",
        ),
        (
            rules([path("/shop/{*rest}"), path("/{country}/account").bypass()]),
            1,
            "rule 0 (`/shop/{*rest}`) takes some requests that this rule bypasses",
        ),
        (
            rules([path("/a").cookies([]), path("/{*all}").when(When::new().cookies(["sid"])).bypass()]),
            1,
            "rule 0 (`/a`) takes some requests that this rule bypasses",
        ),
        (rules([path("/account/{*rest}").bypass()]), 0, "only paths below `/account` are bypassed"),
        (
            rules([
                KeyRule::paths(["/b", "/shop/{*rest}"]),
                KeyRule::paths(["/c", "/{country}/account"]).bypass(),
            ]),
            1,
            "rule 0 (`/b`) takes some requests that this rule bypasses",
        ),
        (rules([path("/a").name("x"), path("/b").name("x")]), 1, "rule 0 has the same name"),
        (
            rules([path("/a").host("a.example"), path("/b").host("b.example"), path("/c")]),
            2,
            "this rule is for every host, while other rules",
        ),
        (
            rules([path("/a").headers(["User-Agent"])]),
            0,
            "`user-agent` in the key stores an entry for each of its values",
        ),
        (rules([path("/a").headers(["accept-language"])]), 0, "`accept-language` in the key stores"),
        (rules([path("/a").cookies(["PHPSESSID"])]), 0, "the cookie `PHPSESSID` looks like a session"),
        (rules([path("/a").cookies(["sid"])]), 0, "the cookie `sid` looks like a session"),
        (rules([path("/a").fixed_ttl(TTL)]), 0, "browsers send cookies, and with `fixed_ttl` alone"),
        (rules([path("/a").default_ttl(TTL)]), 0, "browsers send cookies, and with `default_ttl` alone"),
        (
            rules([path("/a").keep_query(["q"]).forward_unkeyed().cookies([]).fixed_ttl(TTL)]),
            0,
            "with `forward_unkeyed` and `fixed_ttl`",
        ),
        (rules([KeyRule::paths(["/a", "/b"]).fixed_ttl(TTL)]), 0, "browsers send cookies"),
        (rules([any().cookies([]).fixed_ttl(TTL)]), 0, "with `fixed_ttl` for every path"),
        (rules([path("/{**all}").cookies([]).fixed_ttl(TTL)]), 0, "with `fixed_ttl` for every path"),
        (
            rules([path("/a").cookies([]).store_private(true)]),
            0,
            "with `store_private`, a response for one client",
        ),
        (rules([path("/a").store_no_store(true)]), 0, "with `store_no_store`, a response for one client"),
        (
            rules([path("/a").cookies(["a"]).store_authorized(true)]),
            0,
            "with `store_authorized`, a response for one client",
        ),
        (rules([path("/a").store_set_cookie(true)]), 0, "with `store_set_cookie`, the cookie of one client"),
    ];
    for (builder, index, begins) in cases {
        let found = warnings(builder);
        let is_there = found.iter().any(|(at, text)| *at == index && text.starts_with(begins));
        assert!(is_there && found.len() == 1, "{begins}: {found:?}");
    }
}

#[cfg(feature = "body-key")]
#[test]
fn reads_by_post_on_many_paths_are_warned_of() {
    let of = |rule: KeyRule| {
        let layer = rules([rule.method("POST").body(100)]).build_with_bodies().unwrap();
        layer.rules().check().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of(path("/search")), [""; 0]);
    for rule in [path("/api/{*rest}"), KeyRule::any()] {
        let found = of(rule);
        assert!(
            found.len() == 1
                && found[0].contains("this rule treats all requests with a body as reads on many paths"),
            "{found:?}"
        );
    }
}
