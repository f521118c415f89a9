//! Which requests share a key.

use super::*;

#[test]
fn rules_without_key_settings_use_the_default_key() {
    let storing = [
        KeyRules::builder().build().unwrap(),
        rules([KeyRule::path("/a/{id}").fixed_ttl(ms(1)).tags(["a-{id}"]).store_authorized(true)]),
        rules([KeyRule::any().default_ttl(ms(1))]),
    ];
    for rules in &storing {
        for uri in ["http://h/a/1", "https://h/a/1?b=c&&d", "http://h/", "http://h:80/a/%2e%2E/x;y?a;b"] {
            assert_eq!(key(rules, uri), DefaultKey::new().key(&head(Request::get(uri))), "{uri}");
            assert_eq!(identity(rules, uri), None, "{uri}");
        }
        assert_eq!(key(rules, "/a/1"), None, "no host");
    }
    let named = KeyRules::builder().namespace("n").scheme(Scheme::HTTPS).build().unwrap();
    let default = DefaultKey::new().namespace("n").scheme(Scheme::HTTPS);
    assert_eq!(key(&named, "http://h/"), default.key(&head(Request::get("http://h/"))));
}

#[test]
fn parameters_are_kept_ignored_sorted_and_dropped() {
    partition(
        &rules([KeyRule::any().ignore_query(["utm_*", "gclid"])]),
        &[
            &["http://h/a", "http://h/a?utm_source=x"][..1],
            &["http://h/a?b=1", "http://h/a?utm_source=x&b=1&gclid=2", "http://h/a?b=1&%75tm_x"],
            &["http://h/a?b=2"],
            &["http://h/a?b=%31"],
            &["http://h/a?b=1&B=1"],
            &["http://h/a?b=1&c=2"],
            &["http://h/a?c=2&b=1"],
            &["http://h/a?b=1&"],
            &["http://h/a?utm_source=x;b=1"],
            &["http://h/a?b=1&utm_source=x;b=3"],
            &["http://h/x?b=1"],
            &["http://other/a?b=1"],
            &["https://h/a?b=1"],
        ],
    );
    partition(
        &rules([KeyRule::path("/a").keep_query(["b", "f_*"]).sort_query().drop_empty_query()]),
        &[
            &["http://h/a", "http://h/a?", "http://h/a?x=1", "http://h/a?b=", "http://h/a?b=&c"],
            &["http://h/a?b"],
            &["http://h/a?b=1&f_x=2", "http://h/a?f_x=2&b=1", "http://h/a?f_x=2&z&b=1&f_y="],
            &["http://h/a?b=1&b=2"],
            &["http://h/a?b=2&b=1"],
            &["http://h/b?b=1&f_x=2"],
            &["http://h/b?f_x=2&b=1"],
        ],
    );
    // Frameworks differ in which of two values they take, and an empty value may matter.
    partition(
        &rules([KeyRule::any().drop_empty_query()]),
        &[
            &["http://h/a?b=1", "http://h/a?b=1&c=", "http://h/a?c=&b=1&&d="][..1],
            &["http://h/a?b=&b=1", "http://h/a?b=&b=1&c=", "http://h/a?c=&b=&b=1"],
            &["http://h/a?b=1&b="],
            &["http://h/a?b&b=1"],
            &["http://h/a?B=&b=1"],
            &["http://h/a?b[]=&b=1"],
        ],
    );
    let none: [&str; 0] = [];
    partition(
        &rules([KeyRule::any().keep_query(none)]),
        &[&["http://h/a", "http://h/a?b=1"], &["http://h/b?c"]],
    );
}

#[test]
fn parts_of_the_path_are_left_out_by_name() {
    let rules = rules([
        KeyRule::path("/u/{_}/p/{pid}").forward_unkeyed(),
        KeyRule::path("/s/{id}/{*_}").forward_unkeyed(),
    ]);
    partition(
        &rules,
        &[
            &["http://h/u/1/p/7", "http://h/u/2/p/7"],
            &["http://h/u/1/p/8"],
            &["http://h/u/1/p/7?x"],
            &["http://h/s/1/a/b", "http://h/s/1/c"],
            &["http://h/s/2/c"],
            &["http://h/s/1"],
            &["http://h/u/1/p/7/"],
        ],
    );
    for uri in
        ["/u/../p/7", "/u/%2e%2e/p/7", "/u/1/p/..", "/u/1;x/p/7", "/u/1%2F2/p/7", "/s/1//x", "/u/%31/p/7"]
    {
        assert_eq!(key(&rules, &format!("http://h{uri}")), None, "{uri}: what would the service read?");
    }
}

#[test]
fn a_template_is_for_exactly_its_parameters() {
    let rules = rules([KeyRule::path("/get_fprod.php?uid={_}&pid={pid}&sid={_}")]);
    let page = |query: &str| format!("http://h/get_fprod.php{query}");
    let same = ["?uid=1&pid=7&sid=x", "?uid=2&pid=7&sid=", "?sid=3&pid=7&uid=4"].map(page);
    let same: Vec<_> = same.iter().map(String::as_str).collect();
    let others = [
        "?uid=1&pid=8&sid=x",
        "?uid=1&pid=%37&sid=x",
        "?uid=1&pid=7",
        "?uid=1&pid=7&sid=x&debug=1",
        "?uid=1&pid=7&pid=8&sid=x",
        "?uid=1&pid=7&sid=x;pid=8",
        "?uid=1&PID=7&sid=x",
        "",
    ]
    .map(page);
    let others: Vec<[&str; 1]> = others.iter().map(|uri| [uri.as_str()]).collect();
    let groups: Vec<&[&str]> = std::iter::once(&same[..]).chain(others.iter().map(|uri| &uri[..])).collect();
    partition(&rules, &groups);
}

#[test]
fn hosts_and_methods_choose_the_rule_and_the_first_one_wins() {
    let rules = rules([
        KeyRule::path("/a").host("One.example").bypass(),
        KeyRule::path("/a").host("*.example").method("GET").keep_query(["b"]),
        KeyRule::path("/a").keep_query(["c"]),
    ]);
    let key = |method: &str, uri: &str| rules.key(&head(Request::builder().method(method).uri(uri)));
    assert_eq!(key("GET", "http://one.example/a"), None);
    assert_eq!(key("GET", "http://ONE.example:8080/a"), None);
    assert_eq!(key("GET", "http://two.example/a?b=1"), key("GET", "http://TWO.example/a?b=1&c=2"));
    assert_eq!(key("HEAD", "http://two.example/a?c=1"), key("HEAD", "http://two.example/a?b=1&c=1"));
    assert_ne!(key("GET", "http://two.example/a?b=1"), key("GET", "http://two.example:81/a?b=1"));
    assert_ne!(
        key("GET", "http://two.example/a"),
        key("HEAD", "http://two.example/a"),
        "two rules, two keys"
    );
    let (http1, http2) = (Request::get("/a?c=1").header("host", "H:1"), Request::get("http://h:1/a?c=1&x"));
    assert_eq!(rules.key(&head(http1)), rules.key(&head(http2)));
    assert_eq!(rules.key(&head(Request::get("http://h/a").header("host", "other"))), None);
}

#[test]
fn fields_cookies_and_extensions_are_in_the_key() {
    #[derive(Clone)]
    struct Tenant(Option<&'static str>);
    let rules = KeyRules::builder()
        .extension("tenant", |tenant: &Tenant| tenant.0.map(|name| name.as_bytes().into()))
        .rule(KeyRule::any().headers(["x-currency"]).cookies(["ab"]).extensions(["tenant"]))
        .build()
        .unwrap();
    let key = |fields: &[(&'static str, &str)], tenant: Option<Tenant>| {
        let mut head = request("http://h/", fields).into_parts().0;
        tenant.map(|tenant| head.extensions.insert(tenant));
        rules.key(&head)
    };
    let a = || Some(Tenant(Some("a")));
    assert_eq!(key(&[], None), None, "without a login");
    assert_eq!(key(&[], Some(Tenant(None))), None, "without a login");
    assert_eq!(key(&[("cookie", "sid=1; ab=2")], a()), key(&[("cookie", "ab=2; sid=9")], a()));
    // The origin does not get the others, so that no framework can take one for another.
    for cookie in ["AB=1", "%61b=1", "ab[0]=1", "ab[x]=1"] {
        assert_eq!(key(&[("cookie", cookie)], a()), key(&[], a()), "{cookie}");
    }
    let different = [
        key(&[], a()),
        key(&[], Some(Tenant(Some("")))),
        key(&[], Some(Tenant(Some("b")))),
        key(&[("x-currency", "EUR")], a()),
        key(&[("x-currency", "")], a()),
        key(&[("cookie", "ab=1")], a()),
        key(&[("cookie", "ab=")], a()),
        key(&[("x-currency", "a"), ("cookie", "ab=1")], a()),
    ];
    let keys: HashSet<_> = different.iter().map(|key| key.as_ref().unwrap()).collect();
    assert_eq!(keys.len(), different.len());
}

#[test]
fn rules_that_cannot_work_are_refused_with_their_names() {
    const ZERO: Duration = Duration::ZERO;
    let build = |rule| KeyRules::builder().rule(KeyRule::path("/first")).rule(rule).build();
    for (expected, rule) in [
        ("(`/a/{b`): invalid path pattern", KeyRule::path("/a/{b")),
        ("(`a`): invalid path pattern", KeyRule::path("a")),
        ("(`shop`): invalid path pattern", KeyRule::path("/{a}{b}").name("shop")),
        ("two captures are named `a`", KeyRule::path("/{a}/{a}")),
        ("two captures are named `a`", KeyRule::path("/{a}?b={a}")),
        ("`b` in the query of the path", KeyRule::path("/a?b")),
        ("names the parameter `b` twice", KeyRule::path("/a?b={x}&b={y}")),
        ("`a b` is not a valid host", KeyRule::any().host("a b")),
        ("requests of method `POST`", KeyRule::any().method("POST")),
        ("requests of method `get`", KeyRule::any().method("get")),
        ("`a*b` is not a parameter name", KeyRule::any().ignore_query(["a*b"])),
        ("`*` is not a parameter name", KeyRule::any().keep_query(["*"])),
        ("`a b` is not a header field", KeyRule::any().headers(["a b"])),
        ("`Host` is not a header field", KeyRule::any().headers(["Host"])),
        ("`if-none-match` is not a header field", KeyRule::any().headers(["if-none-match"])),
        ("`a;b` is not a cookie", KeyRule::any().cookies(["a;b"])),
        ("unknown extension `tenant`", KeyRule::any().extensions(["tenant"])),
        ("invalid tag `x-{y}`", KeyRule::path("/{z}").tags(["x-{y}"])),
        ("invalid tag `x-{_}`", KeyRule::path("/{_}").tags(["x-{_}"])),
        ("invalid tag ``", KeyRule::any().tags([""])),
        ("`fixed_ttl` is zero", KeyRule::any().fixed_ttl(ZERO)),
        ("`default_ttl` is zero", KeyRule::any().default_ttl(ZERO)),
        ("`negative_ttl` is zero", KeyRule::any().negative_ttl(ZERO)),
        ("`default_ttl` has no effect", KeyRule::any().default_ttl(ms(1)).fixed_ttl(ms(1))),
        ("`ignore_query` has no effect", KeyRule::any().ignore_query(["a"]).keep_query(["b"])),
        ("sort_query or drop_empty_query` has no effect", KeyRule::path("/a?b={c}").sort_query()),
        ("`no_vary_search` has no effect", KeyRule::any().no_vary_search().sort_query()),
        ("`ignore_query` has no effect", KeyRule::path("/p?a={a}&b={_}").ignore_query(["utm_x", "b"])),
        ("`bypass` has no effect", KeyRule::any().bypass().fixed_ttl(ms(1))),
        ("`bypass` has no effect", KeyRule::any().bypass().headers(["x"])),
        ("`forward_unkeyed` has no effect: all", KeyRule::any().forward_unkeyed()),
        ("a part of the path that is not in the key", KeyRule::path("/u/{_}")),
        ("never reached: rule 0", KeyRule::path("/first").host("h")),
    ] {
        let error = build(rule).expect_err(expected);
        assert!(error.to_string().starts_with("key rule 1 (`"), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.index(), Some(1));
    }
    let error = KeyRules::builder().rule(KeyRule::any()).rule(KeyRule::path("/a")).build().unwrap_err();
    assert!(error.to_string().contains("rule 1 (`/a`): this rule is never reached: rule 0"), "{error}");
    for (expected, builder) in [
        ("`g zip` is not a content coding", KeyRules::builder().accept_encoding(["g zip"])),
        ("`*` is not a language tag", KeyRules::builder().accept_language(["*"])),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!((error.to_string().contains(expected), error.rule()), (true, None), "{error}");
    }
    let build = || -> Result<(), BuildError> {
        KeyRules::builder().rule(KeyRule::path("x")).build()?;
        Ok(())
    };
    assert!(matches!(build(), Err(BuildError::KeyRule(RuleError { .. }))));
}

#[test]
fn rules_are_a_value_like_others() {
    fn is_value<T: Clone + std::fmt::Debug + Send + Sync + 'static>() {}
    is_value::<KeyRules>();
    is_value::<KeyRulesBuilder>();
    is_value::<KeyRule>();
}
