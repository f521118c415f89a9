//! Purges over HTTP, on real sockets: access, effects and refusals.

use std::net::SocketAddr;

use axum::Router;
use http::{Method, Request, StatusCode, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    DefaultKey, KeyExtractor, KeyRule, KeyRules, LookupLayer, MemoryStore, ReadThrough, ReadThroughLayer,
    Store,
    purge::{Access, Bearer, PurgeService},
    tags::Separator,
};

use crate::support::{Body, ScriptedOrigin, call, fixed, get_request, response, store};

const TOKEN: &str = "0123456789abcdef";

struct Site<K = DefaultKey> {
    cache: ReadThrough<ScriptedOrigin, MemoryStore, K>,
    origin: ScriptedOrigin,
    store: MemoryStore,
    service: PurgeService,
}

fn site() -> Site {
    let origin =
        ScriptedOrigin::with_future(
            |n, _| async move { response(&[("surrogate-key", "red")], n.to_string()) },
        );
    let store = store();
    let layer = ReadThroughLayer::builder(store.clone()).rules(fixed(60_000)).build().unwrap();
    let service = PurgeService::new(layer.purge(), Bearer::new(TOKEN));
    Site { cache: layer.layer(origin.clone()), origin, store, service }
}

impl<K: KeyExtractor> Site<K> {
    /// How many of these URIs are fetched again after a step.
    async fn reached(&self, uris: &[&str], act: impl AsyncFnOnce()) -> usize {
        for uri in uris {
            call(&self.cache, get_request(uri)).await;
        }
        act().await;
        let before = self.origin.calls();
        for uri in uris {
            call(&self.cache, get_request(uri)).await;
        }
        self.origin.calls() - before
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, Value) {
        self.ask(post("/purge").header("authorization", bearer()).body(body.into()).unwrap()).await
    }
}

fn bearer() -> String {
    format!("Bearer {TOKEN}")
}

fn post(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/json")
}

const URIS: [&str; 3] = ["http://h/a/1", "http://h/a/2?x=1", "http://h/b"];

#[tokio::test]
async fn a_list_of_what_to_purge_is_done_and_counted() {
    for (order, reached, counted) in [
        (json!({ "urls": ["http://h/a/1"] }), 1, [1, 0, 0]),
        (json!({ "urls": ["http://h/a/1", "http://h/b", "http://h/none"] }), 2, [3, 0, 0]),
        (json!({ "tags": ["red"] }), 3, [0, 1, 0]),
        (json!({ "tags": ["blue"] }), 0, [0, 1, 0]),
        (json!({ "prefixes": ["http://h/a"] }), 2, [0, 0, 1]),
        (json!({ "all": true }), 3, [0, 0, 0]),
        (
            json!({ "urls": ["http://h/b"], "prefixes": ["http://h/a/2/"], "tags": ["blue"], "soft": true }),
            2,
            [1, 1, 1],
        ),
    ] {
        let site = site();
        let said = site.reached(&URIS, async || {
            let (status, said) = site.post(order.to_string()).await;
            assert_eq!(status, StatusCode::OK, "{said}");
            assert_eq!(
                [&said["urls"], &said["tags"], &said["prefixes"]],
                [counted[0], counted[1], counted[2]]
            );
            assert_eq!(said["all"], order["all"] == true);
            assert_eq!(said["soft"], order["soft"] == true);
            assert_eq!(said["number"], site.store.sequence().current());
        });
        assert_eq!(said.await, reached, "{order}");
    }
}

#[tokio::test]
async fn an_invalid_purge_is_refused_with_a_reason_and_does_nothing() {
    let site = site();
    let many = json!({ "tags": vec!["red"; 1_025] }).to_string();
    let long = json!({ "tags": ["x".repeat(70_000)] }).to_string();
    let before = site.store.sequence().current();
    for (body, expected) in [
        ("", 400),
        ("{}", 400),
        ("[]", 400),
        ("{", 400),
        ("null", 400),
        (r#"{"all": false}"#, 400),
        (r#"{"all": 1}"#, 400),
        (r#"{"everything": true}"#, 400),
        (r#"{"tags": "red"}"#, 400),
        (r#"{"tags": ["red", ""]}"#, 400),
        (r#"{"tags": ["red"], "tags": ["red"]}"#, 400),
        (r#"{"all": true, "urls": ["/a"]}"#, 400),
        (r#"{"tags": ["red"], "urls": ["http://h/a/1", "not a url"]}"#, 400),
        (r#"{"tags": ["red"], "prefixes": ["http://h/a?x"]}"#, 400),
        (r#"{"urls": ["http://me@h/"]}"#, 400),
        (r#"{"tags": ["red"]} {"tags": ["red"]}"#, 400),
        (&many, 400),
        (&long, 413),
    ] {
        let (status, said) = site.post(body.to_owned()).await;
        assert_eq!(status.as_u16(), expected, "{body:.60} {said}");
        assert!(said["error"].as_str().is_some_and(|reason| reason.len() > 10), "{said}");
    }
    let deep = "[".repeat(60_000);
    assert_eq!(site.post(deep).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(site.post(vec![0xff; 100]).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(site.store.sequence().current(), before);

    let small = PurgeService::new(LookupLayer::new(site.store.clone()).purge(), Bearer::new(TOKEN))
        .max_body_bytes(100)
        .max_items(2);
    let ask = async |body: Value| {
        let request =
            post("/purge").header("authorization", bearer()).body(Body::from(body.to_string())).unwrap();
        small.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(ask(json!({ "tags": ["a"], "urls": ["http://h/"] })).await, 200);
    assert_eq!(ask(json!({ "tags": ["a", "b"], "urls": ["http://h/"] })).await, 400);
    assert_eq!(ask(json!({ "tags": ["a".repeat(100)] })).await, 413);
}

#[tokio::test]
async fn a_purge_without_access_does_nothing() {
    let site = site();
    let before = site.store.sequence().current();
    let orders = [
        ("/purge", Method::POST),
        ("http://h/a/1", Method::from_bytes(b"PURGE").unwrap()),
        ("/", Method::GET),
    ];
    for (target, method) in orders {
        let long = format!("{}x", bearer());
        for token in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some(TOKEN),
            Some("Basic 0123456789abcdef"),
            Some("Bearer 0123456789abcdeX"),
            Some("Bearer 0"),
            Some(&long),
        ] {
            let mut request = Request::builder().method(method.clone()).uri(target);
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let request = request.body(Body::from(r#"{"all": true}"#)).unwrap();
            let response = site.service.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {token:?}");
            assert!(response.headers().contains_key("www-authenticate"));
        }
    }
    let twice = post("/purge").header("authorization", bearer()).header("authorization", bearer());
    assert_eq!(
        site.ask(twice.body(Body::from(r#"{"all": true}"#)).unwrap()).await.0,
        StatusCode::UNAUTHORIZED
    );
    let without_token = PurgeService::new(LookupLayer::new(site.store.clone()).purge(), Bearer::new(""));
    let empty =
        post("/purge").header("authorization", "Bearer ").body(Body::from(r#"{"all": true}"#)).unwrap();
    assert_eq!(without_token.oneshot(empty).await.unwrap().status(), StatusCode::UNAUTHORIZED);

    // A custom check, for which the body is not read.
    let by_address = |head: &Parts| match head.headers.contains_key("x-from-here") {
        true => Access::Granted,
        false => Access::Forbidden,
    };
    let service = PurgeService::new(LookupLayer::new(site.store.clone()).purge(), by_address);
    let endless = crate::streamed(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = post("/purge").body(endless).unwrap();
    assert_eq!(service.clone().oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(site.store.sequence().current(), before);
    let request = post("/purge").header("x-from-here", "1").body(Body::from(r#"{"all": true}"#)).unwrap();
    assert_eq!(service.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let site = site();
    let before = site.store.sequence().current();
    for (method, path, expected) in [
        ("POST", "/", 404),
        ("POST", "/purges", 404),
        ("GET", "/x", 404),
        ("GET", "/purge", 405),
        ("DELETE", "/purge", 405),
    ] {
        let request = Request::builder().method(method).uri(path).header("authorization", bearer());
        let request = request.body(Body::from(r#"{"all": true}"#)).unwrap();
        assert_eq!(site.ask(request).await.0.as_u16(), expected, "{method} {path}");
    }
    assert_eq!(site.store.sequence().current(), before);
    let request = post("/admin/purge").header("authorization", bearer());
    assert_eq!(site.ask(request.body(Body::from(r#"{"all": true}"#)).unwrap()).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_in_is_given_up() {
    let site = site();
    let endless = crate::streamed(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    assert_eq!(site.post(endless).await.0, StatusCode::REQUEST_TIMEOUT);
}

// Sockets.

async fn serve(service: PurgeService) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let app = Router::new().nest("/admin", Router::new().route_service("/purge", service.clone()));
    let app = app.fallback_service(service);
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

/// Sends these bytes, and returns the status and the last line of the response.
async fn raw(addr: SocketAddr, request: String) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.lines().last().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn purge_takes_a_url_in_either_form() {
    for (target, host, reached, expected) in [
        ("http://h/a/1", "admin", 1, 200),
        ("/a/2?x=1", "h", 1, 200),
        ("/a/2?x=1", "H", 1, 200),
        ("/a/2", "h", 0, 200),
        ("/a/1", "other", 0, 200),
        ("http://h/b", "h", 1, 200),
        ("*", "h", 0, 400),
        ("/a/1", "h/b?", 0, 400),
        ("/a/1", "h/b#", 0, 400),
        ("/b", "h?", 0, 400),
        ("/a/1", "me@h", 0, 400),
        ("/a/1", "", 0, 400),
    ] {
        let site = site();
        let addr = serve(site.service.clone()).await;
        let token = bearer();
        let request = format!(
            "PURGE {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: {token}\r\nconnection: close\r\n\r\n"
        );
        let reached_here = site.reached(&URIS, async || {
            let (status, said) = raw(addr, request).await;
            assert_eq!(status, expected, "{target} {said}");
        });
        assert_eq!(reached_here.await, reached, "{target} of {host}");
    }
}

#[tokio::test]
async fn posts_and_strangers_on_a_socket() {
    let site = site();
    let addr = serve(site.service.clone()).await;
    let order = r#"{"tags":["red"]}"#;
    let request = |path: &str, token: &str, order: &str| {
        let length = order.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: admin\r\nauthorization: {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{order}"
        )
    };
    for path in ["/purge", "/admin/purge"] {
        let reached = site.reached(&URIS, async || {
            assert_eq!(raw(addr, request(path, &bearer(), order)).await.0, 200);
        });
        assert_eq!(reached.await, 3);
    }
    let reached = site.reached(&URIS, async || {
        assert_eq!(raw(addr, request("/purge", "Bearer guess", order)).await.0, 401);
        let (status, said) = raw(addr, request("/purge", &bearer(), "{\"tag\":[]}")).await;
        assert_eq!(status, 400);
        assert!(said.contains("unknown field"), "{said}");
        assert_eq!(
            raw(addr, "PURGE /a/1 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".into()).await.0,
            401
        );
        assert_eq!(raw(addr, request("/purge", &bearer(), &"x".repeat(100_000))).await.0, 413);
    });
    assert_eq!(reached.await, 0);
}

/// A site with key rules.
fn by_rules() -> Site<KeyRules> {
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/get_fprod.php?uid={_}&pid={pid}&sid={_}").name("product"))
        .rule(KeyRule::path("/list").keep_query(["page"]))
        .tag_fields([("x-shop-tags", Separator::Comma)])
        .build()
        .unwrap();
    let origin =
        ScriptedOrigin::with_future(
            |n, _| async move { response(&[("x-shop-tags", "a, b")], n.to_string()) },
        );
    let store = store();
    let layer = ReadThroughLayer::builder(store.clone()).key(rules).rules(fixed(60_000)).build().unwrap();
    let service = PurgeService::new(layer.purge(), Bearer::new(TOKEN));
    Site { cache: layer.layer(origin.clone()), origin, store, service }
}

fn purge(uri: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method("PURGE").uri(uri).header("authorization", bearer());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_response_repeats_what_is_purged() {
    let site = by_rules();
    let order = json!({
        "urls": ["HTTP://Shop.example:80/get_fprod.php?sid=1&pid=7&uid=2", "http://h/%7eme?q=%c3%a9"],
        "tags": ["product-7"],
        "prefixes": ["http://H/a/"],
        "patterns": ["http://*/user/{id}", "http://H/img/*.png"],
        "hosts": ["Shop.Example:8080"],
        "all": true,
        "soft": true,
    });
    let (status, said) = site.post(order.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let counted = ["urls", "tags", "prefixes", "patterns", "hosts"].map(|kind| said[kind].as_u64().unwrap());
    assert_eq!((counted, &said["all"], &said["soft"]), ([2, 1, 1, 2, 1], &json!(true), &json!(true)));
    assert_eq!(
        said["purged"],
        json!([
            { "kind": "all" },
            {
                "kind": "url", "argument": "shop.example/get_fprod.php?sid=1&pid=7&uid=2", "rule": "product"
            },
            { "kind": "url", "argument": "h/~me?q=%C3%A9" },
            { "kind": "tag", "argument": "product-7" },
            { "kind": "prefix", "argument": "h/a/" },
            { "kind": "pattern", "argument": "*/user/{id}" },
            { "kind": "pattern", "argument": "h/img/*.png" },
            { "kind": "host", "argument": "shop.example:8080" },
        ])
    );
}

#[tokio::test]
async fn patterns_and_hosts_reach_what_they_name() {
    let uris = ["http://h/a/1", "http://h/a/2?x=1", "http://h/b", "http://g/a/1", "http://h:81/a/1"];
    for (order, reached) in [
        (json!({ "patterns": ["http://h/a/*"] }), 2),
        (json!({ "patterns": ["http://h/a/{id}", "http://h/b"] }), 3),
        (json!({ "patterns": ["http://*/a/1"] }), 3),
        (json!({ "hosts": ["h"] }), 3),
        (json!({ "hosts": ["h:81", "G"] }), 2),
        (json!({ "patterns": ["http://x/a/*"], "hosts": ["x"] }), 0),
    ] {
        let site = site();
        let act = async || assert_eq!(site.post(order.to_string()).await.0, StatusCode::OK);
        assert_eq!(site.reached(&uris, act).await, reached, "{order}");
    }
}

/// A purge that can reach nothing is refused.
#[tokio::test]
async fn a_purge_that_cannot_match_is_refused() {
    let site = by_rules();
    let before = site.store.sequence().current();
    for (order, says) in [
        (json!({ "urls": ["http://h/a/*"] }), "as a pattern"),
        (json!({ "urls": ["http://h/.*"] }), "as a pattern"),
        (json!({ "urls": ["http://h/user/{id}"] }), "as a pattern"),
        (json!({ "urls": ["http://h/p?pid={pid}"] }), "as a pattern"),
        (json!({ "prefixes": ["http://h/a/*"] }), "as a pattern"),
        (json!({ "urls": ["http://h/get_fprod.php?pid=7"] }), "the rule `product`"),
        (json!({ "urls": ["http://h/get_fprod.php"] }), "the rule `product`"),
        (json!({ "tags": ["red,blue"] }), "not one tag"),
        (json!({ "tags": ["red blue"] }), "not one tag"),
        (json!({ "tags": [" red"] }), "not one tag"),
        (json!({ "tags": ["product-*"] }), "no wildcards"),
        (json!({ "tags": ["product-{pid}"] }), "no wildcards"),
        (json!({ "patterns": ["/a/*"] }), "begin it with the scheme"),
        (json!({ "patterns": ["http://h/a/.*"] }), "no regular expressions"),
        (json!({ "patterns": ["http://h/a?x=*"] }), "has a query"),
        (json!({ "patterns": ["http://*.example/a"] }), "a host is whole"),
        (json!({ "hosts": ["http://h"] }), "is not a valid host"),
        (json!({ "hosts": ["h/a"] }), "is not a valid host"),
        (json!({ "hosts": [""] }), "is not a valid host"),
        (json!({ "hosts": ["*.example"] }), "is not a valid host"),
        (json!({ "tags": ["red"], "hosts": ["a b"] }), "is not a valid host"),
    ] {
        let (status, said) = site.post(order.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{order}");
        assert!(said["error"].as_str().is_some_and(|reason| reason.contains(says)), "{order} {said}");
    }
    for (uri, fields, says) in [
        ("http://h/.*", &[][..], "as a pattern"),
        ("http://h/a/(.+)", &[("x-purge-method", "regex")], "`.*` at the end"),
        ("http://h/(a)/.*", &[("x-purge-method", "regex")], "`.*` at the end"),
        ("http://h/a", &[("x-purge-method", "ban")], "X-Purge-Method"),
        ("http://h/a", &[("x-purge-regex", ".*")], "unknown field `x-purge-regex`"),
        ("http://h/a", &[("fastly-soft-purge", "yes")], "Fastly-Soft-Purge"),
        ("http://h/a", &[("surrogate-key", " ")], "is empty"),
        ("http://h/a", &[("cache-tag", "a b")], "not one tag"),
        ("http://h/", &[("x-magento-tags-pattern", "cat_.*")], "as Magento writes it"),
        ("http://h/", &[("x-magento-tags-pattern", "((^|,)a*(,|$))")], "as Magento writes it"),
        ("http://h/get_fprod.php?pid=7", &[], "the rule `product`"),
    ] {
        let (status, said) = site.ask(purge(uri, fields)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{uri} {fields:?}");
        assert!(said["error"].as_str().is_some_and(|reason| reason.contains(says)), "{uri} {said}");
    }
    let mut not_text = purge("http://h/", &[]);
    not_text.headers_mut().insert("xkey", http::HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let (status, said) = site.ask(not_text).await;
    assert_eq!((status, said["error"].as_str().unwrap().contains("UTF-8")), (StatusCode::BAD_REQUEST, true));
    assert_eq!(site.store.sequence().current(), before, "nothing was purged");
}

#[tokio::test]
async fn purge_takes_tags_of_fields_and_is_soft_on_demand() {
    for (uri, fields, understood, soft) in [
        ("http://h/x", &[("surrogate-key", "a b, c")][..], &["tag a", "tag b", "tag c"][..], false),
        ("http://h/x", &[("cache-tag", "a, b"), ("cache-tag", "c")], &["tag a", "tag b", "tag c"], false),
        ("http://h/x", &[("xkey", "a"), ("fastly-soft-purge", "1")], &["tag a"], true),
        ("http://h/x", &[("xkey-softpurge", "a b")], &["tag a", "tag b"], true),
        ("http://h/x", &[("xkey-softpurge", "a"), ("xkey-purge", "b")], &["tag b", "tag a"], false),
        ("http://h/x", &[("cache-tags", "node:1 node_list")], &["tag node:1", "tag node_list"], false),
        ("http://h/x", &[("x-shop-tags", "a, b")], &["tag a", "tag b"], false),
        (
            "http://h/",
            &[("x-magento-tags-pattern", "((^|,)cat_p_1(,|$))|((^|,)cat_c(,|$))")],
            &["tag cat_p_1", "tag cat_c"],
            false,
        ),
        ("http://h/", &[("x-magento-tags-pattern", ".*")], &["all"], false),
        ("http://h/x", &[("fastly-soft-purge", "1"), ("x-purge-token", "x")], &["url h/x"], true),
        ("http://h/x", &[("fastly-soft-purge", "0"), ("x-purge-method", "default")], &["url h/x"], false),
        ("http://h/x/.*", &[("x-purge-method", "regex")], &["pattern h/x/*"], false),
    ] {
        let (status, said) = by_rules().ask(purge(uri, fields)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        let purged = said["purged"].as_array().unwrap().iter().map(|one| {
            let texts = [&one["kind"], &one["argument"]].into_iter().filter_map(Value::as_str);
            texts.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(purged.collect::<Vec<_>>(), understood, "{fields:?}");
        assert_eq!(said["soft"], soft, "{fields:?}");
    }
    let site = by_rules();
    let act = async || assert_eq!(site.ask(purge("http://h/", &[("x-shop-tags", "b")])).await.0, 200);
    assert_eq!(site.reached(&URIS, act).await, 3);
    let limited = PurgeService::new(LookupLayer::new(store()).purge(), Bearer::new(TOKEN)).max_items(2);
    let refused = limited.oneshot(purge("http://h/", &[("surrogate-key", "a b c")])).await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
}
