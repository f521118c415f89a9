//! Which paths, queries and hosts a rule is for.

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
        (
            &["/a/{id}", "/x"],
            "key rule 1 (`/x`): the tag `t-{id}` names a capture that the path does not have",
        ),
        (
            &["/new/{id}", "/old/{id}"],
            "key rule 1 (`/new/{id}`): its path `/old/{id}` is never reached: rule 0",
        ),
        (
            &["/new/{id}", "/new/{id}"],
            "key rule 1 (`/new/{id}`): its path `/new/{id}` is never reached: rule 1",
        ),
        (&[], "key rule 1 (`any path`): its list of paths is empty"),
    ] {
        let rule = KeyRule::paths(paths.iter().copied()).tags(["t-{id}"]);
        let error = error([KeyRule::path("/old/{*rest}").bypass(), rule]);
        assert!(error.starts_with(expected), "{error}");
    }
}

/// Else a new rule at the top of a document would make all that is stored useless.
#[test]
fn keys_depend_on_what_a_rule_says_and_not_on_where_it_stands() {
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

/// Two rules that leave out the same, of whom the keys do not say which of them was for a request.
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
