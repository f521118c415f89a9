//! Key rules: which requests share an entry, and what invalidates it.

use std::{collections::HashSet, time::Duration};

use crate::support::open::{Origin, call, fixed, get, ms, response, status, store};
use axum::body::Body;
use http::{Request, StatusCode, request::Parts, uri::Scheme};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    BuildError, CacheKey, CacheStatus, DefaultKey, KeyExtractor, KeyLayer, KeyRule, KeyRules,
    KeyRulesBuilder, MemoryStore, ReadThrough, ReadThroughLayer, RuleError, Rules, StoreLayer, Tags,
};

type Service = ReadThrough<Origin, MemoryStore, KeyRules>;

fn rules(rules: impl IntoIterator<Item = KeyRule>) -> KeyRules {
    rules.into_iter().fold(KeyRules::builder(), KeyRulesBuilder::rule).build().unwrap()
}

fn head(request: http::request::Builder) -> Parts {
    request.body(()).unwrap().into_parts().0
}

fn key(rules: &KeyRules, uri: &str) -> Option<CacheKey> {
    rules.key(&head(Request::get(uri)))
}

fn identity(rules: &KeyRules, uri: &str) -> Option<CacheKey> {
    rules.identity(&uri.parse().unwrap(), None, &http::Extensions::new())
}

/// Answers with the number of the call, and stays fresh.
fn counting() -> Origin {
    Origin::new(|n, _| async move { response(&[("cache-control", "max-age=60")], n.to_string()) })
}

fn stack(rules: KeyRules, origin: &Origin) -> Service {
    ReadThroughLayer::builder(store()).key(rules).rules(fixed(60_000)).build().unwrap().layer(origin.clone())
}

fn request(uri: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::get(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// Of requests in one list all share an entry, and with no request in another list.
fn partition(rules: &KeyRules, groups: &[&[&str]]) {
    let mut seen = HashSet::new();
    for group in groups {
        let keys: HashSet<_> = group.iter().map(|uri| key(rules, uri).expect(uri)).collect();
        assert_eq!(keys.len(), 1, "{group:?} share an entry");
        let identities: HashSet<_> = group.iter().map(|uri| identity(rules, uri)).collect();
        assert_eq!(identities.len(), 1, "{group:?} are invalidated together");
        for key in keys {
            assert!(seen.insert(key), "{group:?} have an entry of their own");
        }
    }
}

#[test]
fn without_a_word_about_keys_the_key_is_the_default_one() {
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
    // Which of two values a framework takes is its own affair, and that one is empty may matter.
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

/// A `+` is a space to most services, and a plus to some.
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

/// What the service might take for another path gets nothing by a rule.
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

/// Not all who decode, resolve and cut do all of it.
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
        // To one who decodes once, `/account/me/..%2fstatic/x`.
        "/static/..%2faccount%2fme%2f..%252f..%252fstatic%2fx",
        // To one who resolves what he sees, `/account/%2e%2e/static/x`.
        "/static/../account/%2e%2e/static/x",
        "/static/../account/..%2fstatic/x",
        "/static/../account/..;/static/x",
        "/static;/../account/me/../../static/x",
        "/account%2fme",
        "/account%2fa%252fb",
        // To one who decodes letters alone.
        "/%61ccount/a%2f..%2f..",
        "/report%3Aall",
        "/report%3aall",
        "/caf%C3%A9",
        "/caf%c3%a9",
        // More readings than anybody wants to look at.
        "/static/%2561;b//c%5c./../%2e%2e;d%3fe/a%252f%252e%252e%2f;x//%2561/%2e%2e;v=%2f/x",
    ] {
        assert!(!has_key(path), "{path}");
    }
    for path in ["/static/a%20b", "/static/a%2fb", "/static/a;v", "/a%20b", "/report%20all", "/a//b"] {
        assert!(has_key(path), "{path}");
    }
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
    assert_eq!(key(&[], None), None, "nobody logged in");
    assert_eq!(key(&[], Some(Tenant(None))), None, "nobody logged in");
    assert_eq!(key(&[("cookie", "sid=1; ab=2")], a()), key(&[("cookie", "ab=2; sid=9")], a()));
    // The origin does not get them, so that no framework can take one for the other.
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

#[tokio::test(start_paused = true)]
async fn no_tenant_never_means_the_tenant_of_another_request() {
    #[derive(Clone)]
    struct Tenant(u64);
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/report").extensions(["tenant"]))
        .extension("tenant", |tenant: &Tenant| Some(tenant.0.to_be_bytes().to_vec().into()))
        .build()
        .unwrap();
    let origin = counting();
    let service = stack(rules, &origin);
    let ask = async |tenant: Option<u64>| {
        let mut request = get("http://h/report");
        tenant.map(|tenant| request.extensions_mut().insert(Tenant(tenant)));
        call(&service, request).await.1
    };
    assert_eq!(ask(Some(1)).await, "1");
    assert_eq!(ask(Some(1)).await, "1");
    assert_eq!(ask(Some(2)).await, "2");
    assert_eq!(ask(None).await, "3");
    assert_eq!(ask(None).await, "4", "not stored for anybody");
    assert_eq!(ask(Some(2)).await, "2");
}

#[tokio::test(start_paused = true)]
async fn a_rule_changes_what_it_mentions_about_storing_and_nothing_else() {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        match (n, request.uri().path()) {
            (2, _) => status(502),
            (_, "/long") => response(&[("cache-control", "max-age=1000")], n.to_string()),
            _ => response(&[], n.to_string()),
        }
    });
    let base =
        Rules::new().default_ttl(Duration::from_secs(10)).stale_if_error_for(Duration::from_secs(7200));
    let keys =
        rules([KeyRule::path("/short").default_ttl(ms(100)), KeyRule::path("/long").fixed_ttl(ms(100))]);
    let cache = ReadThroughLayer::builder(store())
        .key(keys)
        .rules(base)
        .retry(tower_readthrough::RetryPolicy::never());
    let service = cache.build().unwrap().layer(origin.clone());
    let ask = async |path: &str| call(&service, get(&format!("http://h{path}"))).await;
    assert_eq!(ask("/short").await.1, "1");
    tokio::time::advance(Duration::from_secs(5400)).await;
    assert_eq!(ask("/short").await.1, "1", "stale, within the window that the rule does not mention");
    assert_eq!(ask("/other").await.1, "3");
    assert_eq!(ask("/long").await.1, "4");
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(ask("/other").await.1, "3");
    assert_eq!(ask("/long").await.1, "5");
}

/// What a middleware says about one request goes before what the rules say about many.
#[tokio::test(start_paused = true)]
async fn rules_and_keys_of_a_middleware_go_first() {
    let origin = Origin::new(|n, _| async move { response(&[], n.to_string()) });
    let keys = rules([KeyRule::any().fixed_ttl(ms(60_000)).ignore_query(["x"])]);
    let service = stack(keys, &origin);
    for expected in ["1", "2"] {
        let mut request = get("http://h/?x=1");
        request.extensions_mut().insert(Rules::new().never_store());
        assert_eq!(call(&service, request).await.1, expected);
    }
    let own = |name: &str| {
        let mut request = get("http://h/?x=1");
        request.extensions_mut().insert(CacheKey::new(name));
        request
    };
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(call(&service, own("a")).await.1, "3");
    assert_eq!(call(&service, own("b")).await.1, "4");
    assert_eq!(call(&service, own("a")).await.1, "3");
}

/// A cache below is asked by its own rules.
#[tokio::test(start_paused = true)]
async fn what_a_rule_says_ends_with_its_cache() {
    let origin = Origin::new(|n, _| async move { response(&[], n.to_string()) });
    let inner = StoreLayer::new(store()).layer(origin.clone());
    let rule = KeyRule::path("/a").headers(["x-a"]).fixed_ttl(ms(60_000));
    let outer = StoreLayer::new(store()).key(rules([rule])).layer(inner);
    for (field, expected) in [("1", "1"), ("1", "1"), ("2", "2"), ("1", "1")] {
        assert_eq!(call(&outer, request("http://h/a", &[("x-a", field)])).await.1, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn tags_reach_the_origin_with_their_captures_decoded() {
    let origin = Origin::new(|_, request: Request<Body>| async move {
        let tags = request.extensions().get::<Tags>().map(|tags| tags.iter().collect::<Vec<_>>().join(" "));
        response(&[], tags.unwrap_or_default())
    });
    let service = stack(
        rules([
            KeyRule::path("/u/{id}").tags(["user", "user-{id}"]),
            KeyRule::path("/p?pid={pid}&s={_}").tags(["product-{pid}"]),
            KeyRule::path("/all").tags(["all"]),
        ]),
        &origin,
    );
    for (path, expected) in [
        ("/u/7", "user user-7"),
        ("/u/%37", "user user-7"),
        ("/p?s=1&pid=a+b%21", "product-a%20b!"),
        ("/all", "all"),
        ("/x", ""),
    ] {
        assert_eq!(call(&service, get(&format!("http://h{path}"))).await.1, expected, "{path}");
    }
    let mut tagged = get("http://h/u/8");
    tagged.extensions_mut().insert(Tags::from_iter(["own"]));
    assert_eq!(call(&service, tagged).await.1, "own user user-8");
}

/// The layers alone take the same rules.
#[tokio::test(start_paused = true)]
async fn rules_work_above_coalesce_and_fill_alone() {
    use tower_readthrough::{CoalesceLayer, FillLayer, LookupLayer};
    let keys = || rules([KeyRule::path("/a").keep_query(["b"]).fixed_ttl(ms(60_000))]);
    let origin = Origin::new(|n, _| async move {
        tokio::time::sleep(ms(10)).await;
        response(&[], n.to_string())
    });
    let shared = KeyLayer::new(keys()).layer(CoalesceLayer::new().layer(origin.clone()));
    let asks = (0..100).map(|n| {
        let shared = shared.clone();
        async move { call(&shared, get(&format!("http://h/a?b=1&n={n}"))).await.1 }
    });
    assert!(futures_util::future::join_all(asks).await.iter().all(|answer| answer == "1"));

    let store = store();
    let lookup = LookupLayer::new(store.clone()).key(keys());
    let service = lookup.layer(FillLayer::new(store).layer(origin.clone()));
    assert_eq!(call(&service, get("http://h/a?b=2&n=1")).await.1, "2");
    assert_eq!(call(&service, get("http://h/a?b=2&n=2")).await.1, "2");
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_invalidates_all_that_share_its_entry() {
    let origin = counting();
    let service = stack(
        rules([
            KeyRule::path("/p").keep_query(["pid"]),
            KeyRule::path("/u/{_}/{id}").headers(["x-a"]).forward_unkeyed(),
        ]),
        &origin,
    );
    for (stored, posted, goes) in [
        ("/p?pid=1&uid=5", "/p?pid=1&uid=9", true),
        ("/p?pid=1&uid=5", "/p?uid=5&pid=2", false),
        ("/p?pid=1&uid=5", "/p?uid=5", false),
        ("/u/1/7", "/u/2/7", true),
        ("/u/1/7", "/u/1/8", false),
        ("/x?a", "/x?a", true),
        ("/x?a", "/x?b", false),
    ] {
        let before = call(&service, get(&format!("http://h{stored}"))).await.1;
        let post = Request::post(posted).header("host", "H").body(Body::empty()).unwrap();
        call(&service, post).await;
        let after = call(&service, get(&format!("http://h{stored}"))).await.1;
        assert_eq!(after != before, goes, "{stored} {posted}");
    }
}

#[test]
fn what_cannot_work_is_refused_and_the_rule_named() {
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

/// A request that its rule sends round the cache is none of its business.
#[tokio::test(start_paused = true)]
async fn bypassed_requests_pass_untouched() {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        assert_eq!(request.headers()["accept-encoding"], "zstd, gzip");
        assert_eq!(request.headers()["x-forwarded-host"], "h");
        assert_eq!(request.uri(), "http://h/live?utm_a=1");
        response(&[("cache-control", "max-age=60")], n.to_string())
    });
    let keys = KeyRules::builder()
        .rule(KeyRule::path("/live").bypass())
        .rule(KeyRule::any().ignore_query(["utm_*"]))
        .guard(tower_readthrough::Guard::new())
        .accept_encoding(["gzip"])
        .build()
        .unwrap();
    let service = stack(keys, &origin);
    for n in ["1", "2"] {
        let live =
            request("http://h/live?utm_a=1", &[("accept-encoding", "zstd, gzip"), ("x-forwarded-host", "h")]);
        let response = service.clone().oneshot(live).await.unwrap();
        let why = CacheStatus::of(&response).and_then(|status| status.unkeyed_reason());
        assert_eq!(why, Some(tower_readthrough::Unkeyed::RuleBypass));
        assert_eq!(
            (response.status(), crate::support::open::bytes(response).await),
            (StatusCode::OK, n.into())
        );
    }
}
