//! Which paths, queries and hosts a rule applies to.

use std::collections::HashSet;

use http::{Method, Request};
use tower_readthrough::{CacheKey, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, Unkeyed};

fn rules(rules: impl IntoIterator<Item = KeyRule>) -> KeyRules {
    rules.into_iter().fold(KeyRules::builder(), KeyRulesBuilder::rule).build().unwrap()
}

fn error(rules: impl IntoIterator<Item = KeyRule>) -> String {
    let built = rules.into_iter().fold(KeyRules::builder(), KeyRulesBuilder::rule).build();
    built.expect_err("refused").to_string()
}

fn key(rules: &KeyRules, uri: &str) -> Option<CacheKey> {
    rules.key(&Request::get(uri).body(()).unwrap().into_parts().0)
}

/// Whether requests for this URI bypass the cache.
fn bypasses(rules: &KeyRules, uri: &str) -> bool {
    let head = Request::get(uri).body(()).unwrap().into_parts().0;
    rules.write_key(&head, &mut Default::default()) == Err(Unkeyed::RuleBypass)
}

#[test]
fn a_rule_with_several_paths_is_for_each_of_them() {
    let rules = rules([
        KeyRule::paths(["/account", "/account/{*rest}", "/p?id={_}"]).bypass(),
        KeyRule::paths(["/a/{id}", "/b/{id}", "/c?x={x}&id={_}"]).tags(["t"]).headers(["x-a"]),
    ]);
    for uri in ["http://h/account", "http://h/account/x/y", "http://h/p?id=1"] {
        assert!(bypasses(&rules, uri), "{uri}");
    }
    for uri in ["http://h/accounts", "http://h/p?id=1&x", "http://h/p"] {
        assert!(!bypasses(&rules, uri), "{uri}");
    }
    let keys = ["http://h/a/1", "http://h/b/1", "http://h/c?x=1&id=2", "http://h/c?x=2&id=2", "http://h/d/1"];
    let keys: HashSet<_> = keys.iter().map(|uri| key(&rules, uri).expect(uri)).collect();
    assert_eq!(keys.len(), 5, "what one path leaves out is in the keys of the others");
    assert_eq!(key(&rules, "http://h/c?x=1&id=2"), key(&rules, "http://h/c?id=3&x=1"));
}

#[test]
fn errors_name_the_path_that_is_wrong() {
    for (paths, expected) in [
        (&["/a/{id}", "/b/*"][..], "key rule 1 (`/b/*`): `/b/*` has a wildcard in another syntax"),
        (&["/a/{id}", "/x"], "key rule 1 (`/x`): invalid tag `t-{id}`"),
        (
            &["/new/{id}", "/old/{id}"],
            "key rule 1 (`/new/{id}`): the path `/old/{id}` is never reached: rule 0",
        ),
        (
            &["/new/{id}", "/new/{id}"],
            "key rule 1 (`/new/{id}`): the path `/new/{id}` is never reached: rule 1",
        ),
        (&[], "key rule 1 (`any path`): the list of paths is empty"),
    ] {
        let rule = KeyRule::paths(paths.iter().copied()).tags(["t-{id}"]);
        let error = error([KeyRule::path("/old/{*rest}").bypass(), rule]);
        assert!(error.starts_with(expected), "{error}");
    }
}

/// Otherwise a new rule at the top of a document would make every stored entry unreachable.
#[test]
fn keys_depend_on_the_settings_of_a_rule_and_not_on_its_position() {
    let product = || KeyRule::path("/p?uid={_}&pid={pid}");
    let page = || KeyRule::path("/pages/{id}").host("h").keep_query(["page"]);
    let other = || KeyRule::path("/x").headers(["x-a"]);
    let uris = ["http://h/p?uid=1&pid=2", "http://h/pages/1?page=2&x=3", "http://h/default"];
    let keys = |all: &KeyRules| uris.map(|uri| key(all, uri).expect(uri));
    let first = keys(&rules([product(), page()]));
    for all in [
        rules([page(), product()]),
        rules([other(), page(), KeyRule::path("/y").method("HEAD"), product().name("renamed").tags(["t"])]),
        rules([page().host("second"), product().fixed_ttl(std::time::Duration::from_secs(1))]),
    ] {
        assert_eq!(keys(&all), first);
    }
    let changed = keys(&rules([product().headers(["x-a"]), page().sort_query()]));
    assert_ne!(changed[0], first[0]);
    assert_ne!(changed[1], first[1]);
    assert_eq!(changed[2], first[2]);
}

/// Two rules that leave out the same parts still have keys of their own.
#[test]
fn rules_for_other_requests_have_other_keys() {
    let all = rules([
        KeyRule::path("/a/{_}/{x}").forward_unkeyed(),
        KeyRule::path("/b/{_}/{x}").forward_unkeyed(),
        KeyRule::path("/c?x={x}&a={_}"),
        KeyRule::path("/c?x={x}&b={_}"),
        KeyRule::path("/c?x={x}&b={_}&c={c}"),
        KeyRule::any().method("GET").keep_query(["x"]),
    ]);
    let uris = ["/a/1/x", "/b/1/x", "/c?x=1&a=1", "/c?x=1&b=1", "/c?x=1&b=1&c=2", "/c?x=1"];
    let keys: HashSet<_> = uris.iter().map(|uri| key(&all, &format!("http://h{uri}")).unwrap()).collect();
    assert_eq!(keys.len(), uris.len());
    let head = Request::builder().method(Method::HEAD).uri("http://h/c?x=1").body(()).unwrap();
    assert_ne!(all.key(&head.into_parts().0), key(&all, "http://h/c?x=1"), "the default key");
}

/// Every spelling in which browsers send the path of a rule is handled by the rule.
#[test]
fn paths_as_browsers_encode_them_are_cached_by_their_rule() {
    for (pattern, paths) in [
        ("/caf\u{e9}/{id}", ["/caf%C3%A9/1", "/caf%c3%a9/1", "/caf\u{e9}/1"]),
        ("/caf%C3%A9/{id}", ["/caf%C3%A9/1", "/caf%c3%a9/1", "/caf\u{e9}/1"]),
        ("/a b/{id}", ["/a%20b/1", "/a%20b/%20", "/a%20b/b%2Cc"]),
        ("/a,b/{id}", ["/a,b/1", "/a%2Cb/1", "/a%2cb/1"]),
        ("/a%2Cb/{id}", ["/a,b/1", "/a%2Cb/1", "/a%2cb/1"]),
        (
            "/{lang}/\u{43a}\u{430}\u{442}/{**rest}",
            ["/ru/%D0%BA%D0%B0%D1%82", "/ru/%d0%BA%d0%B0%d1%82/", "/%C3%A9/%D0%BA%D0%B0%D1%82/x"],
        ),
    ] {
        let rules = rules([KeyRule::path(pattern).keep_query(["q"])]);
        for path in paths {
            let (plain, other) = (format!("http://h{path}?q=1"), format!("http://h{path}?x=2&q=1"));
            assert!(key(&rules, &plain).is_some(), "{pattern} {path}");
            assert_eq!(key(&rules, &plain), key(&rules, &other), "{pattern} {path}");
        }
        let keys: HashSet<_> = paths.iter().map(|path| key(&rules, &format!("http://h{path}"))).collect();
        assert_eq!(keys.len(), paths.len(), "each spelling has an entry of its own");
        let identity = |path: &str| {
            rules.identity(&format!("http://h{path}").parse().unwrap(), None, &Default::default())
        };
        assert!(identity(paths[0]).is_some());
        if pattern.starts_with("/caf") {
            assert_eq!(identity(paths[0]), identity(paths[1]), "and is purged with the others");
            assert_eq!(identity(paths[0]), identity(paths[2]));
        }
    }
}

/// A server that decodes nothing has another page there, or none.
#[test]
fn an_unexpected_spelling_is_kept_apart_where_the_path_is_not_in_the_key() {
    let rules = rules([KeyRule::path("/a,b/{_}/{id}").forward_unkeyed(), KeyRule::any().bypass()]);
    let of = |path: &str| key(&rules, &format!("http://h{path}"));
    assert!(of("/a,b/1/7").is_some());
    assert_eq!(of("/a,b/1/7"), of("/a,b/2/7"));
    assert!(of("/a%2Cb/1/7").is_some());
    assert_ne!(of("/a,b/1/7"), of("/a%2Cb/1/7"));
    assert_eq!(of("/a%2C%62/1/7"), None, "what is encoded needlessly may be another path");
}

#[test]
fn other_readings_are_by_no_rule_whatever_is_encoded() {
    let rules = rules([KeyRule::path("/report:all").bypass(), KeyRule::path("/{x}").keep_query(["q"])]);
    assert!(bypasses(&rules, "http://h/report%3Aall") && bypasses(&rules, "http://h/REPORT%3aall/"));
    for path in ["/%72eport:all", "/x/..%2freport:all", "/report%253Aall"] {
        assert_eq!(key(&rules, &format!("http://h{path}")), None, "{path}");
    }
    assert!(key(&rules, "http://h/caf%C3%A9").is_some());
}

#[test]
fn endings_and_trees_are_patterns() {
    let rules = rules([
        KeyRule::path("/account/{**rest}").bypass(),
        KeyRule::paths(["/{*file}.css", "/{*file}.js", "/img/{_}/{name}.png"])
            .keep_query(["v"])
            .forward_unkeyed(),
    ]);
    for path in ["/account", "/account/", "/ACCOUNT/x.css", "/account.css", "/account/a/b.js"] {
        assert!(bypasses(&rules, &format!("http://h{path}")), "{path}");
    }
    let of = |path: &str| key(&rules, &format!("http://h{path}"));
    for path in ["/a.css", "/a/b.min.js", "/.a/b.js", "/accounts.js"] {
        assert_eq!(of(&format!("{path}?v=1&x=2")), of(&format!("{path}?v=1")), "{path}");
        assert!(of(path).is_some());
    }
    for path in ["/a.css/b", "/a.CSS", "/.css", "/a.jsx"] {
        assert_ne!(of(&format!("{path}?v=1&x=2")), of(&format!("{path}?v=1")), "{path}");
    }
}

/// A tree that is not in the key, and one that is: `/a` and `/a/` are two pages for most servers.
#[test]
fn the_root_of_a_tree_is_not_an_entry_below_it() {
    let rules = rules([
        KeyRule::path("/a/{_}/{**rest}").forward_unkeyed().tags(["t-{rest}"]),
        KeyRule::path("/b/{**_}").forward_unkeyed(),
    ]);
    let of = |path: &str| key(&rules, &format!("http://h{path}")).expect(path);
    let keys: HashSet<_> = ["/a/1", "/a/1/", "/a/1/x", "/a/1/x/", "/a/1/x/y"].map(of).into();
    assert_eq!(keys.len(), 5);
    assert_eq!(of("/a/1/x"), of("/a/2/x"));
    assert_eq!(HashSet::from(["/b", "/b/", "/b/x/y"].map(of)).len(), 1);
}

#[test]
fn case_counts_unless_a_rule_says_otherwise() {
    let any = || KeyRule::path("/Products/{id}").ignore_path_case().keep_query(["q"]);
    let all = rules([any(), KeyRule::path("/Other/{id}").keep_query(["q"])]);
    let is_by_rule = |path: &str| {
        let of = |query: &str| key(&all, &format!("http://h{path}?{query}"));
        of("q=1&x=2") == of("q=1")
    };
    for path in ["/Products/A", "/products/A", "/PRODUCTS/a", "/Other/A"] {
        assert!(is_by_rule(path), "{path}");
    }
    assert!(!is_by_rule("/other/A"));
    let identity =
        |path: &str| all.identity(&format!("http://h{path}").parse().unwrap(), None, &Default::default());
    assert_ne!(key(&all, "http://h/products/A"), key(&all, "http://h/Products/A"), "as they are written");
    assert_eq!(identity("/products/A"), identity("/PRODUCTS/a"), "but purged together");
    assert_ne!(identity("/Other/A"), identity("/Other/a"));
    let storing =
        rules([KeyRule::path("/P").ignore_path_case().fixed_ttl(std::time::Duration::from_secs(1))]);
    let identity =
        |path: &str| storing.identity(&format!("http://h{path}").parse().unwrap(), None, &Default::default());
    assert!(identity("/p").is_some());
    assert_eq!(identity("/p"), identity("/P"));
    for rule in [KeyRule::any().ignore_path_case(), KeyRule::path("/a").ignore_path_case().bypass()] {
        assert!(error([rule]).contains("has no effect"));
    }
}

#[test]
fn rules_covered_by_earlier_ones_are_refused() {
    for (first, second) in [
        (KeyRule::path("/account/{**rest}"), KeyRule::path("/account")),
        (KeyRule::path("/{*file}.css"), KeyRule::path("/a/{x}.css")),
        (KeyRule::path("/A/{x}").ignore_path_case(), KeyRule::path("/a/b")),
        (KeyRule::path("/caf%c3%a9"), KeyRule::path("/caf\u{e9}")),
        (KeyRule::path("/a,b/{x}"), KeyRule::path("/a%2Cb/{y}")),
        (KeyRule::paths(["/x", "/a/{x}"]), KeyRule::paths(["/a/b", "/c"])),
    ] {
        let error = error([first, second.headers(["x-a"])]);
        assert!(error.contains("is never reached: rule 0 matches all"), "{error}");
    }
}

const FLASH: &str = "/get_fprod.php?uid={_}&pid={pid}&sid={_?}";

fn flash() -> KeyRulesBuilder {
    KeyRules::builder().ignore_query(["utm_*", "gclid"])
}

/// The target that the origin sees.
fn shown(rules: &KeyRules, uri: &str) -> String {
    let mut head = Request::get(uri).body(()).unwrap().into_parts().0;
    rules.normalise(&mut head);
    rules.prepare(&mut head);
    head.uri.to_string()
}

#[test]
fn a_template_matches_with_ignored_and_without_optional_parameters() {
    let rules = flash().rule(KeyRule::path(FLASH).ignore_query(["ref"])).build().unwrap();
    let expected = key(&rules, "http://h/get_fprod.php?uid=1&pid=2&sid=3").unwrap();
    for query in [
        "uid=1&pid=2",
        "pid=2&sid=&uid",
        "utm_source=x&uid=1&pid=2&utm_source=y&gclid",
        "uid=1&pid=2&sid=3&%75tm_x=%26pid=3",
        "ref=a&uid=1&pid=2",
    ] {
        let uri = format!("http://h/get_fprod.php?{query}");
        assert_eq!(key(&rules, &uri), Some(expected.clone()), "{query}");
        assert_eq!(shown(&rules, &uri), "http://h/get_fprod.php?pid=2", "{query}");
    }
    for query in [
        "pid=2",
        "uid=1&pid=2&x",
        "uid=1&pid=2&Pid=3",
        "uid=1&pid=3&utm_x",
        "uid=1&pid=2;utm_x",
        "uid=1&pid=2&utmx",
    ] {
        assert_ne!(
            key(&rules, &format!("http://h/get_fprod.php?{query}")),
            Some(expected.clone()),
            "{query}"
        );
    }
}

#[test]
fn ignored_parameters_do_not_evade_a_bypass_by_a_template() {
    let preview = KeyRule::path("/page?preview={_}").ignore_query(["x"]).bypass();
    let rules = flash().rule(preview).build().unwrap();
    for query in ["preview=1", "preview=1&utm_source=x", "gclid=1&preview=&x=2"] {
        assert!(bypasses(&rules, &format!("http://h/page?{query}")), "{query}");
    }
    assert!(!bypasses(&rules, "http://h/page?preview=1&y"));
    let error = error([KeyRule::path("/page").ignore_query(["x"]).bypass()]);
    assert!(error.contains("`bypass` has no effect"), "{error}");
}

#[test]
fn globally_ignored_parameters_are_in_no_key_and_do_not_reach_the_origin() {
    let rules = flash()
        .rule(KeyRule::path("/kept").keep_query(["utm_source"]))
        .rule(KeyRule::path("/own").ignore_query(["x"]))
        .rule(KeyRule::path("/seen").forward_unkeyed())
        .rule(KeyRule::path("/campaign?utm_source={s}"))
        .rule(KeyRule::path("/tagged").tags(["t"]))
        .build()
        .unwrap();
    let of = |uri: &str| key(&rules, &format!("http://h{uri}")).expect(uri);
    for path in ["/own", "/seen", "/tagged", "/no-rule"] {
        assert_eq!(of(&format!("{path}?a=1&utm_source=x")), of(&format!("{path}?gclid=1&a=1")), "{path}");
        assert_ne!(of(&format!("{path}?a=1&utm_source=x")), of(&format!("{path}?gclid=1&a=2")), "{path}");
        let seen = if path == "/seen" { "?a=1&utm_source=x" } else { "?a=1" };
        assert_eq!(
            shown(&rules, &format!("http://h{path}?a=1&utm_source=x")),
            format!("http://h{path}{seen}")
        );
        let identity = |uri: &str| {
            rules.identity(&format!("http://h{path}{uri}").parse().unwrap(), None, &Default::default())
        };
        assert_eq!(identity("?a=1"), identity("?a=1&utm_source=x"));
        assert!(identity("?a=1").is_some());
    }
    assert_eq!(of("/own?a=1&x=2"), of("/own?a=1&utm_source=x"));
    assert_ne!(of("/kept?utm_source=x"), of("/kept?utm_source=y"));
    assert_eq!(of("/kept?utm_source=x&utm_medium=1"), of("/kept?utm_source=x"));
    assert_ne!(of("/campaign?utm_source=x&utm_medium=z"), of("/campaign?utm_source=y"));
    assert_eq!(of("/campaign?utm_source=x&utm_medium=z"), of("/campaign?utm_source=x"));
    let head = Request::post("http://h/no-rule?utm_source=x").body(()).unwrap().into_parts().0;
    assert_eq!(
        rules.write_key(&head, &mut Default::default()),
        KeyRules::builder().build().unwrap().write_key(&head, &mut Default::default())
    );
}

#[test]
fn templates_that_tolerate_more_cover_those_with_more_parameters() {
    let tolerant = KeyRule::path("/p?id={_}").ignore_query(["ref", "u*"]);
    for second in ["/p?id={id}", "/p?id={id}&ref={r}", "/p?ux={u}&id=1"] {
        let error = error([tolerant.clone(), KeyRule::path(second)]);
        assert!(error.contains("is never reached"), "{error}");
    }
    let reached =
        [KeyRule::path("/p?id={_}"), tolerant, KeyRule::path("/p?id={id}&x={_?}"), KeyRule::path("/p?x={_}")];
    rules(reached);
    for names in [&["a b=c"][..], &["*"], &["utm_source,utm_medium"]] {
        let error = KeyRules::builder().ignore_query(names.iter().copied()).build().unwrap_err().to_string();
        assert!(error.starts_with("key rules: `"), "{error}");
    }
}

/// The response to a purge names its rule, and globally ignored parameters are no rule.
#[test]
fn globally_ignored_parameters_do_not_appear_as_a_rule() {
    let rules = flash().rule(KeyRule::path(FLASH)).build().unwrap();
    let rule_of = |uri: &str| rules.rule_of_url(&format!("http://h{uri}").parse().unwrap(), None);
    assert_eq!(rule_of("/get_fprod.php?uid=1&pid=2&utm_x"), Ok(Some(FLASH.to_owned())));
    assert_eq!(rule_of("/get_fprod.php?pid=2"), Err(FLASH.to_owned()));
    assert_eq!(rule_of("/other?utm_x=1"), Ok(None));
}
