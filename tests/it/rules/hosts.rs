//! Host aliases: several hosts with the same responses.

use http::Request;
use tower::Layer;
use tower_readthrough::{
    CacheKey, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, Purge, ReadThrough,
    ReadThroughLayer,
};

use crate::support::{Body, ScriptedOrigin, call, fixed, get_request, response, store};

fn builder() -> KeyRulesBuilder {
    KeyRules::builder().same_hosts(["shop.example", "www.shop.example"])
}

fn shop() -> KeyRules {
    builder().rule(KeyRule::path("/p?id={id}&uid={_}")).build().unwrap()
}

fn key(rules: &KeyRules, uri: &str) -> CacheKey {
    rules.key(&Request::get(uri).body(()).unwrap().into_parts().0).expect(uri)
}

#[test]
fn host_aliases_share_keys_and_identities() {
    let rules = shop();
    let identity = |uri: &str| rules.identity(&uri.parse().unwrap(), None, &Default::default());
    for path in ["/p?id=1&uid=2", "/other?x"] {
        let of = |host: &str| key(&rules, &format!("http://{host}{path}"));
        assert_eq!(of("shop.example"), of("WWW.Shop.Example:80"));
        for other in ["shop.example.", "www.shop.example:8080", "m.shop.example"] {
            assert_ne!(of("shop.example"), of(other), "{other}");
        }
        let of = |host: &str| identity(&format!("http://{host}{path}"));
        assert_eq!(of("shop.example"), of("www.shop.example"));
    }
    let with_host = Request::get("/other?x").header("host", "www.shop.example").body(()).unwrap();
    assert_eq!(rules.key(&with_host.into_parts().0), Some(key(&rules, "http://shop.example/other?x")));
}

#[test]
fn the_origin_sees_the_first_host_for_every_alias() {
    let rules = shop();
    for (uri, host) in [("http://www.Shop.example/a", None), ("/a", Some("WWW.shop.example:80"))] {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let before = rules.key(&head);
        rules.normalise(&mut head);
        rules.prepare(&mut head);
        let seen = head.uri.host().or(head.headers.get("host").map(|host| host.to_str().unwrap()));
        assert_eq!(seen, Some("shop.example"), "{uri}");
        assert_eq!(rules.key(&head), before);
    }
}

#[test]
fn host_aliases_apply_to_every_rule() {
    for (hosts, problem) in [
        (&["a.example"][..], "needs two hosts or more"),
        (&[], "needs two hosts or more"),
        (&["a.example", "*.example"], "`*.example` is not a valid host"),
        (&["a.example", "http://b"], "`http://b` is not a valid host"),
        (&["a.example", "A.example"], "names `a.example` twice"),
        (&["a.example", "www.shop.example"], "names `www.shop.example` twice"),
    ] {
        let error = builder().same_hosts(hosts.iter().copied()).build().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    for (host, other) in [
        ("shop.example", Some("www.shop.example")),
        ("*.shop.example", Some("shop.example")),
        ("*.example", None),
        ("b.example", None),
    ] {
        let built = builder().rule(KeyRule::any().host(host).keep_query(["q"])).build();
        assert_eq!(built.is_err(), other.is_some(), "{host}");
        if let (Err(error), Some(other)) = (built, other) {
            assert!(
                error.to_string().contains(&format!("makes `{other}` the same as a host of the rule")),
                "{error}"
            );
        }
    }
    builder().rule(KeyRule::any().host("shop.example").host("www.shop.example")).build().unwrap();
}

struct Site {
    service: ReadThrough<ScriptedOrigin, MemoryStore, KeyRules>,
    purge: Purge,
}

/// Responds with the number of the call and the host that it saw; in a group, and with a reference to `/a`
/// at `Location` for what is posted.
fn site() -> Site {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (name, value) = match (request.method().as_str(), request.uri().path()) {
            ("POST", "/create") => ("location", format!("http://{host}/a")),
            ("POST", "/groups") => ("cache-group-invalidation", "\"g\"".to_owned()),
            _ => ("cache-groups", "\"g\"".to_owned()),
        };
        response(&[(name, &value)], format!("{n} {host}"))
    });
    let cache = ReadThroughLayer::builder(store()).key(shop()).rules(fixed(60_000));
    let purge = cache.purge();
    Site { service: cache.build().unwrap().layer(origin), purge }
}

#[tokio::test(start_paused = true)]
async fn a_purge_for_one_alias_reaches_the_entries_of_all() {
    type Purging = fn(&Purge);
    let post = |uri: &str| Request::post(uri).body(Body::empty()).unwrap();
    let purges: [(&str, Option<Purging>); 7] = [
        ("url", Some(|purge| _ = purge.url("http://www.shop.example/a").unwrap())),
        ("url of the first", Some(|purge| _ = purge.url("http://shop.example/a").unwrap())),
        ("prefix", Some(|purge| _ = purge.path_prefix("http://www.shop.example/").unwrap())),
        ("prefix of the first", Some(|purge| _ = purge.path_prefix("http://shop.example/").unwrap())),
        ("/a", None),
        ("/create", None),
        ("/groups", None),
    ];
    for (what, purge) in purges {
        let site = site();
        let asked = async |host: &str| call(&site.service, get_request(&format!("http://{host}/a"))).await.1;
        assert_eq!(asked("www.shop.example").await, "1 shop.example", "{what}");
        assert_eq!(asked("shop.example").await, "1 shop.example", "{what}");
        match purge {
            Some(purge) => {
                purge(&site.purge);
                assert_eq!(asked("shop.example").await, "2 shop.example", "{what}");
            }
            None => {
                let answer = call(&site.service, post(&format!("http://www.shop.example{what}"))).await.1;
                assert_eq!(answer, "2 www.shop.example", "what has no key keeps its host");
                assert_eq!(asked("shop.example").await, "3 shop.example", "{what}");
            }
        }
    }
}
