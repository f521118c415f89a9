//! Five systems, each by its own rules, end to end on real sockets where sockets matter.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Extension, Path, RawQuery},
    routing::get,
};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tower::Layer;
use tower_readthrough::{KeyRule, KeyRules, KeyRulesBuilder, ReadThroughLayer, Rules, Tags};

use crate::support::{Body, store};

type Calls = Arc<AtomicUsize>;
type Stack = ReadThroughLayer<tower_readthrough::MemoryStore, KeyRules>;

/// Serves on a free port, for as long as the test runs.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn keys(rules: KeyRulesBuilder) -> KeyRules {
    rules.build().unwrap()
}

fn cache(keys: KeyRules, rules: Rules) -> Stack {
    ReadThroughLayer::builder(store()).key(keys).rules(rules).build().unwrap()
}

fn count(calls: &Calls) -> usize {
    calls.fetch_add(1, Ordering::SeqCst) + 1
}

struct Client {
    client: reqwest::Client,
    address: SocketAddr,
}

impl Client {
    async fn of(app: Router) -> Self {
        Self { client: reqwest::Client::new(), address: serve(app).await }
    }

    async fn ask(&self, method: http::Method, path: &str, fields: &[(&str, &str)]) -> (StatusCode, String) {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn get(&self, path: &str) -> String {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let (status, text) = self.ask(http::Method::GET, path, fields).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        text
    }
}

/// A headless CMS: its API is the same for all clients, whatever their campaign, and each response
/// has the tags of its endpoint.
#[tokio::test]
async fn a_headless_cms() {
    let calls = Calls::default();
    let handler = Arc::clone(&calls);
    let entry = get(async move |Path((kind, id)): Path<(String, u32)>, tags: Extension<Tags>| {
        let tags: Vec<_> = tags.iter().collect();
        ([("cache-control", "s-maxage=3600")], format!("{} {kind} {id} {}", count(&handler), tags.join(",")))
    });
    let rule = KeyRule::path("/api/{kind}/{id}")
        .ignore_query(["utm_*", "gclid", "fbclid"])
        .tags(["{kind}", "{kind}-{id}"]);
    let app = Router::new().route("/api/{kind}/{id}", entry);
    let client = Client::of(app.layer(cache(keys(KeyRules::builder().rule(rule)), Rules::new()))).await;

    let first = client.get("/api/articles/7").await;
    assert_eq!(first, "1 articles 7 articles,articles-7");
    for campaign in ["?utm_source=mail", "?gclid=1&utm_medium=x", "?fbclid=2"] {
        assert_eq!(client.get(&format!("/api/articles/7{campaign}")).await, first);
    }
    assert_eq!(client.get("/api/articles/7?locale=de&utm_id=1").await, "2 articles 7 articles,articles-7");
    assert_eq!(client.get("/api/articles/7?utm_id=2&locale=de").await, "2 articles 7 articles,articles-7");
    assert_eq!(client.get("/api/authors/7").await, "3 authors 7 authors,authors-7");
    // The editor saves, under any spelling of the URL.
    client.ask(http::Method::PUT, "/api/articles/7?utm_source=editor", &[]).await;
    assert_eq!(calls.load(Ordering::SeqCst), 3, "no such route, nothing changed");
}

/// A read API at high rates: the origin's own lifetimes, or one for all.
#[tokio::test(start_paused = true)]
async fn a_read_api() {
    use crate::support::{ScriptedOrigin, call, get_request, response};
    let origin = ScriptedOrigin::with_future(|n, request: http::Request<Body>| async move {
        match request.uri().path() {
            "/says" => response(&[("cache-control", "max-age=10")], n.to_string()),
            "/never" => response(&[("cache-control", "no-cache")], n.to_string()),
            _ => response(&[], n.to_string()),
        }
    });
    let after_two_seconds = async |rules: Rules, path: &str| {
        let keys = keys(KeyRules::builder().rule(KeyRule::any().sort_query()));
        let service = cache(keys, rules).layer(origin.clone());
        let before = origin.calls();
        for query in ["a=1&b=2", "b=2&a=1"] {
            call(&service, get_request(&format!("http://h{path}?{query}"))).await;
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        call(&service, get_request(&format!("http://h{path}?b=2&a=1"))).await;
        origin.calls() - before
    };
    let constant = || Rules::new().fixed_ttl(Duration::from_secs(1));
    assert_eq!(after_two_seconds(constant(), "/says").await, 2);
    assert_eq!(after_two_seconds(constant(), "/never").await, 2);
    assert_eq!(after_two_seconds(constant(), "/silent").await, 2);
    assert_eq!(after_two_seconds(Rules::new(), "/says").await, 1);
    assert_eq!(after_two_seconds(Rules::new(), "/never").await, 3);
    assert_eq!(after_two_seconds(Rules::new(), "/silent").await, 3);
}

/// An API gateway: each endpoint described in one place.
#[cfg(feature = "serde")]
#[tokio::test]
async fn an_api_gateway() {
    let document = r#"{
        "namespace": "gateway",
        "guard": {},
        "rules": [
            { "name": "live prices", "path": "/prices/live", "bypass": true },
            { "path": "/prices/{id}", "fixed_ttl": "60s", "keep_query": ["currency"], "tags": ["price-{id}"] },
            { "path": "/me/{*rest}", "headers": ["authorization"],
              "default_ttl": "60s", "stale_if_error_for": "10m" },
            { "path": "/public/{*rest}", "store_authorized": true, "cookies": [],
              "default_ttl": "1h", "negative_ttl": "10s", "ignore_query": ["utm_*"] }
        ]
    }"#;
    let keys: KeyRules = serde_json::from_str(document).unwrap();
    let calls = Calls::default();
    let handler = Arc::clone(&calls);
    let any = async move |Path(path): Path<String>, RawQuery(query): RawQuery, headers: HeaderMap| {
        let who = headers.get("authorization").map_or("-", |who| who.to_str().unwrap()).to_owned();
        let status = if path.ends_with("missing") { StatusCode::NOT_FOUND } else { StatusCode::OK };
        (status, format!("{} {path} {} {who}", count(&handler), query.unwrap_or_default()))
    };
    let client = Client::of(Router::new().route("/{*path}", get(any)).layer(cache(keys, Rules::new()))).await;

    // Bypassed; with a fixed lifetime for the parameter that counts.
    assert_eq!(client.get("/prices/live").await, "1 prices/live  -");
    assert_eq!(client.get("/prices/live").await, "2 prices/live  -");
    assert_eq!(client.get("/prices/7?currency=EUR&sid=1").await, "3 prices/7 currency=EUR -");
    assert_eq!(client.get("/prices/7?sid=2&currency=EUR").await, "3 prices/7 currency=EUR -");
    assert_eq!(client.get("/prices/7?currency=USD").await, "4 prices/7 currency=USD -");
    // One entry for each client.
    let as_user = |user: &'static str| [("authorization", user)];
    assert_eq!(client.get_with("/me/orders", &as_user("ann")).await, "5 me/orders  ann");
    assert_eq!(client.get_with("/me/orders", &as_user("bob")).await, "6 me/orders  bob");
    assert_eq!(client.get_with("/me/orders", &as_user("ann")).await, "5 me/orders  ann");
    assert_eq!(client.get("/me/orders").await, "7 me/orders  -");
    // One entry for all clients.
    assert_eq!(client.get_with("/public/docs", &as_user("ann")).await, "8 public/docs  ann");
    assert_eq!(client.get_with("/public/docs", &[("cookie", "sid=1")]).await, "8 public/docs  ann");
    for _ in 0..2 {
        let missing = client.ask(http::Method::GET, "/public/missing", &[]).await;
        assert_eq!(missing, (StatusCode::NOT_FOUND, "9 public/missing  -".into()));
    }
    // Without a rule the origin decides, and it sends no freshness.
    for expected in ["10 other  ann", "11 other  ann"] {
        assert_eq!(client.get_with("/other", &as_user("ann")).await, expected);
    }
}

/// A flash sale: one entry for each product, for all clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flash_sale() {
    const REQUESTS: usize = 2_000;
    let calls = Calls::default();
    let handler = Arc::clone(&calls);
    let page = get(async move |RawQuery(query): RawQuery| {
        count(&handler);
        let query = query.unwrap_or_default();
        query.split('&').find_map(|pair| pair.strip_prefix("pid=").map(str::to_owned)).unwrap_or_default()
    });
    // Long enough for the slowest test machine.
    let rule = KeyRule::path("/get_fprod.php?uid={_}&pid={pid}&sid={_}").fixed_ttl(Duration::from_secs(500));
    let cache = cache(keys(KeyRules::builder().rule(rule)), Rules::new());
    let client = Arc::new(Client::of(Router::new().route("/get_fprod.php", page).layer(cache)).await);
    let clients = (0..100).map(|n| {
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            for m in 0..REQUESTS / 100 {
                let (pid, seed) = ((n + m) % 20, fastrand::u64(..));
                let answer = client.get(&format!("/get_fprod.php?uid={seed}&pid={pid}&sid=s{seed:x}")).await;
                assert_eq!(answer, pid.to_string());
            }
        })
    });
    for client in futures_util::future::join_all(clients).await {
        client.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 20);
}

/// The same with the lifetimes of a sale, in paused time.
#[tokio::test(start_paused = true)]
async fn a_flash_sale_by_the_millisecond() {
    use crate::support::{ScriptedOrigin, call, get_request, ms, response};
    for ttl in [50, 500] {
        let origin = ScriptedOrigin::with_future(|_, _| async move {
            tokio::time::sleep(ms(10)).await;
            response(&[], "page")
        });
        let rule = KeyRule::path("/get_fprod.php?uid={_}&pid={pid}&sid={_}").fixed_ttl(ms(ttl));
        let service = cache(keys(KeyRules::builder().rule(rule)), Rules::new()).layer(origin.clone());
        let round = async |requests: usize| {
            let asks = (0..requests).map(|n| {
                let (uid, sid) = (fastrand::u64(..), fastrand::u64(..));
                let uri = format!("http://shop/get_fprod.php?uid={uid}&pid={}&sid={sid:x}", n % 20);
                let service = service.clone();
                async move { call(&service, get_request(&uri)).await.0 }
            });
            assert!(
                futures_util::future::join_all(asks).await.iter().all(|status| *status == StatusCode::OK)
            );
        };
        round(10_000).await;
        assert_eq!(origin.calls(), 20);
        tokio::time::advance(ms(ttl - 11)).await;
        round(1_000).await;
        assert_eq!(origin.calls(), 20, "{ttl} ms are not over");
        tokio::time::advance(ms(11)).await;
        round(1_000).await;
        assert_eq!(origin.calls(), 40, "{ttl} ms are over");
    }
}

/// A small SaaS: no rules at all, and no response of one customer for another.
#[tokio::test]
async fn one_persons_saas() {
    let calls = Calls::default();
    let handler = Arc::clone(&calls);
    let any = async move |Path(path): Path<String>, headers: HeaderMap| {
        let who = headers.get("cookie").map_or("-", |who| who.to_str().unwrap()).to_owned();
        let caching = if path == "logo" { "public, max-age=600" } else { "private" };
        ([("cache-control", caching)], format!("{} {path} {who}", count(&handler)))
    };
    let keys = KeyRules::builder().build().unwrap();
    let client = Client::of(Router::new().route("/{*path}", get(any)).layer(cache(keys, Rules::new()))).await;
    assert_eq!(client.get("/logo").await, "1 logo -");
    assert_eq!(client.get("/logo").await, "1 logo -");
    assert_eq!(client.get("/logo?v=2").await, "2 logo -");
    assert_eq!(client.get_with("/invoices", &[("cookie", "ann")]).await, "3 invoices ann");
    assert_eq!(client.get_with("/invoices", &[("cookie", "bob")]).await, "4 invoices bob");
    assert_eq!(client.get_with("/invoices", &[("cookie", "ann")]).await, "5 invoices ann");
}
