//! Purges by tag, pattern, URL and key under rules.

use std::time::Duration;

use http::Request;
use tower::Layer;
use tower_readthrough::{
    KeyRule, KeyRules, MemoryStore, Purge, PurgeError, ReadThrough, ReadThroughLayer, Store,
};

use crate::support::{Body, ScriptedOrigin, call, fixed, get_request, response, store};

type Site = ReadThrough<ScriptedOrigin, MemoryStore>;

/// Each page has a tag of its own.
fn tagged() -> (ScriptedOrigin, Site, Purge, MemoryStore) {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        let tag = format!("page-{}", request.uri().path().trim_matches('/'));
        response(&[("surrogate-key", &tag)], n.to_string())
    });
    let store = store();
    let layer = ReadThroughLayer::builder(store.clone()).rules(fixed(3_600_000)).build().unwrap();
    (origin.clone(), layer.layer(origin), layer.purge(), store)
}

const PAGES: usize = 200;

async fn ask_for_all(site: &Site) {
    for page in 0..PAGES {
        call(site, get_request(&format!("http://h/{page}"))).await;
    }
}

/// A nightly reindexing purges far more tags than there are records, most of them without an entry.
#[tokio::test(start_paused = true)]
async fn many_tag_purges_reach_only_their_tags() {
    for yields_after in [usize::MAX, 1_000, 100] {
        let (origin, site, purge, store) = tagged();
        ask_for_all(&site).await;
        purge.tag("page-7");
        for tag in 0..70_000 {
            purge.tag(&format!("other-{tag}"));
            if tag % yields_after == yields_after - 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(store.sequence().records().0 <= 1 << 16);
        }
        let calls = origin.calls();
        ask_for_all(&site).await;
        assert_eq!(origin.calls(), calls + 1, "page 7 alone");
    }
}

/// Even if records are dropped, no fetch restores a response purged since it began.
#[tokio::test(start_paused = true)]
async fn a_fetch_overtaken_by_many_purges_is_not_stored() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        tokio::time::sleep(Duration::from_millis(if n == 1 { 500 } else { 0 })).await;
        response(&[("surrogate-key", "slow")], n.to_string())
    });
    let layer = ReadThroughLayer::builder(store()).rules(fixed(3_600_000)).build().unwrap();
    let (site, purge) = (layer.layer(origin.clone()), layer.purge());
    let under_way = tokio::spawn({
        let site = site.clone();
        async move { call(&site, get_request("http://h/slow")).await.1 }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    purge.tag("slow");
    for tag in 0..140_000 {
        purge.tag(&format!("other-{tag}"));
        if tag % 1_000 == 999 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(under_way.await.unwrap(), "1");
    assert_eq!(call(&site, get_request("http://h/slow")).await.1, "2");
}

/// Prefixes of keys have fewer records.
#[tokio::test(start_paused = true)]
async fn many_prefix_purges_reach_only_their_prefixes() {
    let (origin, site, purge, store) = tagged();
    ask_for_all(&site).await;
    for prefix in 0..3_000_u32 {
        purge.key_prefix([&[0xff; 4], &prefix.to_be_bytes()[..]].concat());
        assert!(store.sequence().records().1 <= 1 << 10);
    }
    let calls = origin.calls();
    ask_for_all(&site).await;
    assert_eq!(origin.calls(), calls);
}

/// The URIs that are fetched again after a purge.
async fn reached(rules: KeyRules, uris: &[&'static str], act: impl FnOnce(&Purge)) -> Vec<&'static str> {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let layer = ReadThroughLayer::builder(store()).key(rules).rules(fixed(3_600_000)).build().unwrap();
    let (service, purge) = (layer.layer(origin.clone()), layer.purge());
    let ask = async || {
        let mut bodies = Vec::new();
        for uri in uris {
            bodies.push(call(&service, get_request(uri)).await.1);
        }
        bodies
    };
    let before = ask().await;
    assert_eq!(ask().await, before, "all are stored");
    act(&purge);
    let after = ask().await;
    let pairs = before.iter().zip(&after).zip(uris);
    pairs.filter(|((before, after), _)| before != after).map(|(_, uri)| *uri).collect()
}

/// With keys that hold the path, and with those that leave parts of it out.
fn users() -> [KeyRules; 3] {
    let build = |rule| KeyRules::builder().rule(rule).build().unwrap();
    [
        KeyRules::builder().build().unwrap(),
        build(KeyRule::path("/user/{id}").keep_query(["page"])),
        build(KeyRule::path("/{_}/{id}").forward_unkeyed()),
    ]
}

const USERS: [&str; 6] = [
    "http://h/user/7",
    "http://h/user/8?page=2",
    "http://h/user/9?page=3",
    "http://h/user/7/posts",
    "http://h/usher/5",
    "http://g/user/7",
];

#[tokio::test(start_paused = true)]
async fn a_pattern_reaches_every_entry_of_a_template() {
    for rules in users() {
        for (pattern, expected) in [
            ("http://h/user/7", &[0][..]),
            ("https://H/user/8", &[1]),
            ("http://h/user/{id}", &[0, 1, 2]),
            ("http://h/user/*", &[0, 1, 2, 3]),
            ("http://*/user/{id}", &[0, 1, 2, 5]),
            ("http://h/us{x}/{id}/", &[0, 1, 2, 4]),
            ("http://h/user/{id}/{*rest}", &[3]),
            ("http://h/%75ser/*7", &[0]),
            ("http://h/user", &[]),
            ("http://x/*", &[]),
        ] {
            let expected: Vec<_> = expected.iter().map(|at| USERS[*at]).collect();
            let act = |purge: &Purge| _ = purge.pattern(pattern).unwrap();
            assert_eq!(reached(rules.clone(), &USERS, act).await, expected, "{pattern}");
        }
        let host = |purge: &Purge| _ = purge.host("G").unwrap();
        assert_eq!(reached(rules.clone(), &USERS, host).await, [USERS[5]]);
    }
}

/// A long path under a key of its own, and one that is written in another way.
#[tokio::test(start_paused = true)]
async fn patterns_compare_the_normal_form_of_every_path() {
    let uris = ["http://h/caf%c3%a9/%7Eme", "http://h///////////////x/y", "http://h/a//b"];
    for rules in [users()[0].clone(), users()[1].clone()] {
        for (pattern, expected) in [
            ("http://h/caf%C3%A9/~{name}", uris[0]),
            ("http://h/*//x/*", uris[1]),
            ("http://h/a//b", uris[2]),
        ] {
            let act = |purge: &Purge| _ = purge.pattern(pattern).unwrap();
            assert_eq!(reached(rules.clone(), &uris, act).await, [expected], "{pattern}");
        }
    }
}

/// As with every purge, a response under way is not stored, and is only for earlier requests.
#[tokio::test(start_paused = true)]
async fn a_pattern_wins_against_a_fetch_under_way() {
    for (pattern, wins) in [("http://h/user/{id}", true), ("http://h/other/{id}", false)] {
        let origin = ScriptedOrigin::with_future(|n, _| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            response(&[], n.to_string())
        });
        let layer = ReadThroughLayer::builder(store()).rules(fixed(3_600_000)).build().unwrap();
        let (service, purge) = (layer.layer(origin.clone()), layer.purge());
        let ask = || {
            let service = service.clone();
            tokio::spawn(async move { call(&service, get_request("http://h/user/7?x=1")).await.1 })
        };
        let before = ask();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let purged = purge.pattern(pattern).unwrap();
        assert!(!purged.is_soft());
        let after = ask();
        assert_eq!(before.await.unwrap(), "1");
        assert_eq!(after.await.unwrap(), if wins { "2" } else { "1" });
        assert_eq!(ask().await.unwrap(), if wins { "2" } else { "1" }, "stored");
    }
}

/// Callers with one key may ask for several paths: the pattern is about the path that was fetched.
#[tokio::test(start_paused = true)]
async fn a_pattern_matches_the_fetched_path_where_several_share_a_key() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        response(&[], n.to_string())
    });
    let rules = KeyRules::builder().rule(KeyRule::path("/{_}/{id}").forward_unkeyed()).build().unwrap();
    let layer = ReadThroughLayer::builder(store()).key(rules).rules(fixed(3_600_000)).build().unwrap();
    let (service, purge) = (layer.layer(origin.clone()), layer.purge());
    let ask = |uri: &'static str| {
        let service = service.clone();
        tokio::spawn(async move { call(&service, get_request(uri)).await.1 })
    };
    let before = ask("http://h/red/7");
    tokio::time::sleep(Duration::from_millis(10)).await;
    purge.pattern("http://h/red/*").unwrap();
    let after = ask("http://h/blue/7");
    assert_eq!(before.await.unwrap(), "1");
    assert_eq!(after.await.unwrap(), "2", "it arrived after the purge");
}

/// A 304 to a request for another path of the same key adds that path.
#[tokio::test(start_paused = true)]
async fn a_pattern_reaches_a_response_revalidated_for_another_path() {
    let origin = || {
        ScriptedOrigin::with_future(|n, _| async move {
            let fields = [("etag", "\"1\""), ("cache-control", "max-age=1")];
            let made = response(&fields, n.to_string());
            if n == 2 { made.status(304) } else { made }
        })
    };
    let rules = KeyRules::builder().rule(KeyRule::path("/{_}/{id}").forward_unkeyed()).build().unwrap();
    for (pattern, expected) in
        [("http://h/red/*", "3"), ("http://h/blue/{id}", "3"), ("http://h/green/*", "1")]
    {
        let layer = ReadThroughLayer::builder(store()).key(rules.clone()).build().unwrap();
        let (service, purge) = (layer.layer(origin()), layer.purge());
        assert_eq!(call(&service, get_request("http://h/red/7")).await.1, "1");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(call(&service, get_request("http://h/blue/7")).await.1, "1", "confirmed");
        purge.pattern(pattern).unwrap();
        assert_eq!(call(&service, get_request("http://h/red/7")).await.1, expected);
    }
}

/// Each spelling of a path has an entry of its own, and a purge of a URL reaches all of them.
#[tokio::test(start_paused = true)]
async fn purges_reach_paths_in_any_case_where_case_does_not_count() {
    let uris = ["http://h/img/a", "http://h/IMG/a", "http://h/other/a"];
    let rules = || {
        KeyRules::builder()
            .rule(KeyRule::path("/img/{name}").tags(["img"]).ignore_path_case())
            .build()
            .unwrap()
    };
    for (act, expected) in [
        ((|purge| _ = purge.url("http://h/Img/a").unwrap()) as fn(&Purge), &uris[..2]),
        (|purge| _ = purge.tag("img"), &uris[..2]),
        (|purge| _ = purge.path_prefix("http://h/img").unwrap(), &uris[..1]),
        (|purge| _ = purge.pattern("http://h/IMG/{name}").unwrap(), &uris[1..2]),
    ] {
        assert_eq!(reached(rules(), &uris, act).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn soft_patterns_make_entries_stale_and_hard_ones_remove_them() {
    let (origin, site, purge, store) = tagged();
    ask_for_all(&site).await;
    purge.soft().pattern("http://h/{page}").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(store.stats().entries, PAGES as u64, "stale, and kept");
    ask_for_all(&site).await;
    assert_eq!(origin.calls(), 2 * PAGES);
    purge.pattern("http://h/1*").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(store.stats().entries, 89, "those that begin otherwise");
    assert_eq!(store.sequence().records(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_pattern_purges_reach_only_their_patterns() {
    let (origin, site, purge, store) = tagged();
    ask_for_all(&site).await;
    for pattern in 0..3_000 {
        purge.pattern(&format!("http://h/other/{pattern}/*")).unwrap();
        assert!(store.sequence().records().1 <= 1 << 10);
    }
    let calls = origin.calls();
    ask_for_all(&site).await;
    assert_eq!(origin.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn several_purges_apply_together_or_not_at_all() {
    let none: [&str; 0] = [];
    for (act, expected) in [
        (
            (|purge| _ = purge.urls([USERS[0], USERS[4]]).unwrap().unwrap()) as fn(&Purge),
            &[USERS[0], USERS[4]][..],
        ),
        (|purge| _ = purge.urls([USERS[0], "/relative"]).unwrap_err(), &none),
        (|purge| assert!(purge.urls([]).unwrap().is_none() && purge.tags([]).is_none()), &none),
        (|purge| _ = purge.tags(["id-7", "id-9"]).unwrap(), &[USERS[0], USERS[2], USERS[5]]),
    ] {
        let rules = KeyRules::builder().rule(KeyRule::path("/user/{id}").tags(["id-{id}"])).build().unwrap();
        assert_eq!(reached(rules, &USERS, act).await, expected);
    }
}

/// A purge that can reach nothing is refused by a handle as by the service.
#[test]
fn urls_that_cannot_match_are_refused() {
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/p?uid={_}&pid={pid}").host("shop.example"))
        .rule(KeyRule::path("/q?a={a}").bypass())
        .build()
        .unwrap();
    let purge = ReadThroughLayer::builder(store()).key(rules).purge();
    for (url, says) in [
        ("http://shop.example/p?pid=7", "the rule `/p?uid={_}&pid={pid}`"),
        ("http://shop.example/p", "the rule `/p?uid={_}&pid={pid}`"),
        ("http://shop.example/*", "as a pattern"),
        ("http://shop.example/p?uid={_}&pid=7", "as a pattern"),
    ] {
        let error = purge.url(url).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    for url in [
        "http://shop.example/p?uid=1&pid=7",
        "http://other.example/p?pid=7",
        "http://shop.example/q",
        "http://h/a?q=*",
        "http://h/css?family=Sans|Serif&filter={%22a%22:1}&x=^1",
    ] {
        assert!(purge.url(url).is_ok(), "{url}");
    }
    for host in ["a/b", "", "http://a", "*", "a:b:c", "me@a", "http:", "a:65536"] {
        assert!(matches!(purge.host(host), Err(PurgeError::Host(_))), "{host}");
    }
    for host in ["a", "A.example:8080", "[::1]", "[::1]:80", "[fe80::abcd]"] {
        assert!(purge.host(host).is_ok(), "{host}");
    }
}

/// Tables name purges of every kind.
#[cfg(feature = "serde")]
#[test]
fn tables_check_purges_by_pattern_host_and_tag() {
    let rules: KeyRules = serde_json::from_str(
        r#"{ "tag_fields": { "xkey": "space" },
             "rules": [{ "path": "/list", "keep_query": ["pid"], "tags": ["p-{pid}"], "fixed_ttl": "1m" }] }"#,
    )
    .unwrap();
    let table = |purged_by: &str, kept_by: &str| {
        let table = serde_json::json!({ "host": "h", "rows": [{
            "request": "GET /list?pid=7&x=1", "response": { "xkey": "a b" }, "tags": ["p-7", "a", "b"],
            "purged_by": [purged_by], "kept_by": [kept_by],
        }] });
        rules.check_table(&serde_json::from_value(table).unwrap()).map_err(|error| error.to_string())
    };
    for (purged_by, kept_by) in [
        ("pattern /l*", "pattern /list/*"),
        ("pattern http://*/{any}", "pattern http://g/{any}"),
        ("host h", "host g"),
        ("tag p-7", "tag p-8"),
        ("tag b", "tag c"),
    ] {
        assert_eq!(table(purged_by, kept_by), Ok(()));
        assert!(table(kept_by, purged_by).unwrap_err().contains("`kept_by`"), "{kept_by}");
    }
    assert!(table("pattern /.*", "host g").unwrap_err().contains("no regular expressions"));
}

#[tokio::test(start_paused = true)]
async fn a_location_that_is_not_encoded_is_invalidated() {
    let origin =
        ScriptedOrigin::with_future(
            |n, _| async move { response(&[("location", "/caf\u{e9}")], n.to_string()) },
        );
    let layer = ReadThroughLayer::builder(store()).rules(fixed(3_600_000)).build().unwrap();
    let service = layer.layer(origin.clone());
    call(&service, get_request("http://h/caf%C3%A9")).await;
    call(&service, Request::post("http://h/").body(Body::empty()).unwrap()).await;
    assert_eq!(call(&service, get_request("http://h/caf%C3%A9")).await.1, "3");
}
