//! Paths that can be read in several ways.

use super::*;

/// A `+` is a space for most services, and a plus sign for some.
#[test]
fn a_literal_of_a_template_is_kept_apart_where_it_is_spelt_in_another_way() {
    let rules = rules([KeyRule::path("/p?view=a%20b&id={id}&sid={_}")]);
    partition(
        &rules,
        &[
            &["http://h/p?view=a%20b&id=1&sid=1", "http://h/p?sid=2&id=1&view=a%20b"],
            &["http://h/p?view=a+b&id=1&sid=1", "http://h/p?sid=2&id=1&view=a+b"],
            &["http://h/p?view=%61%20b&id=1&sid=1"],
            &["http://h/p?%76iew=a%20b&id=1&sid=1"],
        ],
    );
}

/// A path that the service might take for another one has no key by a rule.
#[test]
fn a_path_that_can_be_read_in_two_ways_is_kept_apart_or_has_no_key() {
    let rules = rules([
        KeyRule::path("/account/{*rest}").bypass(),
        KeyRule::path("/static/{*rest}").ignore_query(["v"]).store_authorized(true),
    ]);
    let has_key = |path: &str| key(&rules, &format!("http://h{path}")).is_some();
    for path in [
        "/account/me",
        "/%61ccount/me",
        "//account/me",
        "/./account/me",
        "/x/../account/me",
        "/account;v=1/me",
        "/account%2fme",
        "/account\\me",
        "/static/../account/me",
        "/static/..%2faccount/me",
        "/static/%2e%2e/account/me",
        "/static/%252e%252e/account/me",
        "/static/..;/account/me",
        "/static/..%5caccount/me",
        "/static/..%3b/account/me",
        "/static/../other",
        "/x/../static/a",
    ] {
        if path.contains('\\') && format!("http://h{path}").parse::<http::Uri>().is_err() {
            continue;
        }
        assert!(!has_key(path), "{path}");
    }
    partition(
        &rules,
        &[
            &["http://h/static/a", "http://h/static/a?v=1"],
            &["http://h/static/./a", "http://h/static/./a?v=2"],
            &["http://h/static//a"],
            &["http://h/static/%61"],
            &["http://h/static/a;v"],
            &["http://h/static/a%2fb"],
            &["http://h/static/a/b"],
            &["http://h/x/../y"],
            &["http://h/x/%2e%2e/y"],
            &["http://h/y"],
        ],
    );
}

/// Servers differ in whether they decode, resolve and cut paths.
#[test]
fn a_path_is_kept_apart_from_what_some_service_may_read_in_it() {
    let rules = rules([
        KeyRule::path("/account/{id}").bypass(),
        KeyRule::path("/account/{id}/{*rest}").bypass(),
        KeyRule::path("/report:all").bypass(),
        KeyRule::path("/caf\u{e9}").bypass(),
        KeyRule::path("/static/{*rest}").ignore_query(["v"]).store_authorized(true),
        KeyRule::any().fixed_ttl(Duration::from_secs(1)).store_authorized(true),
    ]);
    let has_key = |path: &str| key(&rules, &format!("http://h{path}")).is_some();
    for path in [
        // For a server that decodes once, `/account/me/..%2fstatic/x`.
        "/static/..%2faccount%2fme%2f..%252f..%252fstatic%2fx",
        // For a server that resolves without decoding, `/account/%2e%2e/static/x`.
        "/static/../account/%2e%2e/static/x",
        "/static/../account/..%2fstatic/x",
        "/static/../account/..;/static/x",
        "/static;/../account/me/../../static/x",
        "/account%2fme",
        "/account%2fa%252fb",
        // For a server that decodes only letters.
        "/%61ccount/a%2f..%2f..",
        "/report%3Aall",
        "/report%3aall",
        "/caf%C3%A9",
        "/caf%c3%a9",
        // More readings than the bound.
        "/static/%2561;b//c%5c./../%2e%2e;d%3fe/a%252f%252e%252e%2f;x//%2561/%2e%2e;v=%2f/x",
    ] {
        assert!(!has_key(path), "{path}");
    }
    for path in ["/static/a%20b", "/static/a%2fb", "/static/a;v", "/a%20b", "/report%20all", "/a//b"] {
        assert!(has_key(path), "{path}");
    }
}
