//! Requests that a fetch makes for what it is fetching.

use axum::{Router, routing};
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::{HeaderMap, Request, Response};
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_readthrough::{
    CoalesceLayer, KeyLayer, KeyRule, KeyRules, OriginLimitLayer, ReadThroughLayer, RetryPolicy, Rules,
    StoreLayer,
};

use crate::support::{Body, ScriptedOrigin, fixed, get, ms, ok, secs, status, store};

type Site = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

fn site<S, B>(service: S) -> Site
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Site::new(service.map_response(|response: Response<B>| response.map(Body::new)))
}

async fn ask(site: &Site, path: &str) -> String {
    let request = Request::get(path).header("host", "h").body(Body::empty()).unwrap();
    let response =
        timeout(secs(29), site.clone().oneshot(request)).await.expect("it waits for itself").unwrap();
    assert_eq!(response.status(), 200);
    String::from_utf8(crate::support::bytes(response).await.to_vec()).unwrap()
}

/// A router that counts the calls of its one handler.
fn api(calls: &Arc<AtomicUsize>) -> Router {
    let calls = Arc::clone(calls);
    let handler = move || {
        let n = calls.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            sleep(ms(50)).await;
            n.to_string()
        }
    };
    Router::new().route("/api", routing::get(handler))
}

#[tokio::test(start_paused = true)]
async fn the_same_layer_value_may_be_twice_on_a_path() {
    let limit = || OriginLimitLayer::new(1);
    let rules = fixed(60_000).stale_while_revalidate_for(secs(60)).stale_if_error_for(secs(60));
    for cache in [
        ReadThroughLayer::builder(store()).rules(rules.clone()).build().unwrap(),
        ReadThroughLayer::builder(store()).rules(rules).origin_limit(limit()).build().unwrap(),
    ] {
        let calls = Arc::default();
        let site = Router::new().merge(api(&calls).layer(cache.clone())).layer(cache);
        let site = self::site(site);
        let bodies = join_all((0..100).map(|_| ask(&site, "/api"))).await;
        assert!(bodies.iter().all(|body| body == "1"));
        assert_eq!(ask(&site, "/api").await, "1");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        // A refresh reaches the handler through both, and what is stale is not taken for new.
        sleep(secs(61)).await;
        assert_eq!(ask(&site, "/api").await, "1", "stale");
        sleep(ms(60)).await;
        assert_eq!(ask(&site, "/api").await, "2");
        sleep(secs(130)).await;
        assert_eq!(ask(&site, "/api").await, "3");
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }
}

/// The second time the layer leaves the request alone, whatever its rules say.
#[tokio::test(start_paused = true)]
async fn a_request_that_passes_is_not_changed() {
    let rules = KeyRules::builder().rule(KeyRule::any().cookies([]).default_ttl(secs(60))).build().unwrap();
    let cache = ReadThroughLayer::builder(store()).key(rules).build().unwrap();
    let cookies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&cookies);
    let origin = service_fn(move |request: Request<Body>| {
        seen.lock().unwrap().push(request.headers().get("cookie").cloned());
        async { Ok::<_, Infallible>(Response::new(Body::from("x"))) }
    });
    let inner = cache.layer(origin).map_request(|mut request: Request<Body>| {
        request.headers_mut().insert("cookie", "a=1".parse().unwrap());
        request
    });
    let outer = cache.layer(inner);
    outer.oneshot(Request::get("http://h/").body(Body::default()).unwrap()).await.unwrap();
    assert_eq!(*cookies.lock().unwrap(), [Some("a=1".parse().unwrap())]);
}

/// The time before the last attempt is not part of the age, for the stack above either.
#[tokio::test(start_paused = true)]
async fn a_retry_in_an_inner_stack_does_not_age_the_response_of_the_outer_one() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => status(503).header("retry-after", "2"),
        _ => ok("x").max_age(1),
    });
    let inner = ReadThroughLayer::builder(store()).retry(RetryPolicy::new()).build().unwrap();
    let outer = ReadThroughLayer::builder(store()).build().unwrap();
    let service = outer.layer(inner.layer(origin.clone()));
    assert_eq!(get(&service, "/page").await.body, "x");
    assert!(get(&service, "/page").await.is_hit());
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn single_layers_may_be_twice_on_a_path() {
    let calls = Arc::default();
    let (coalesce, stored) =
        (CoalesceLayer::new().rules(fixed(60_000)), StoreLayer::new(store()).rules(fixed(60_000)));
    for site in [
        site(KeyLayer::default().layer(coalesce.clone().layer(coalesce.layer(api(&calls))))),
        site(stored.clone().layer(stored.layer(api(&calls)))),
    ] {
        let before = calls.load(Ordering::SeqCst);
        assert_eq!(ask(&site, "/api").await, (before + 1).to_string());
    }
}

/// A page whose handler asks for its own URL as JSON, in the way that `call` says.
fn self_asking(
    call: fn(BoxFuture<'static, String>) -> BoxFuture<'static, String>,
) -> (Site, Arc<AtomicUsize>) {
    let itself: Arc<OnceLock<Site>> = Arc::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let (inner, count) = (Arc::clone(&itself), Arc::clone(&calls));
    let handler = service_fn(move |request: Request<Body>| {
        let (inner, count) = (Arc::clone(&inner), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            sleep(ms(10)).await;
            if request.headers().get("accept").is_some_and(|accept| accept == "application/json") {
                return Ok::<_, Infallible>(
                    crate::support::response(&[("vary", "accept")], "json").into_response(),
                );
            }
            let site = inner.get().unwrap().clone();
            let part = call(Box::pin(async move {
                let request = Request::get("/page").header("host", "h").header("accept", "application/json");
                let response = site.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                String::from_utf8(crate::support::bytes(response).await.to_vec()).unwrap()
            }))
            .await;
            Ok(crate::support::response(&[("vary", "accept")], format!("page of {part}")).into_response())
        }
    });
    let cache = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap().layer(handler);
    let site = self::site(cache);
    itself.set(site.clone()).unwrap();
    (site, calls)
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_ask_its_own_url_for_another_representation() {
    let (site, calls) = self_asking(|part| part);
    let started = Instant::now();
    let pages = join_all((0..100).map(|_| ask(&site, "/page"))).await;
    assert!(pages.iter().all(|page| page == "page of json"));
    assert_eq!((started.elapsed(), calls.load(Ordering::SeqCst)), (ms(20), 2));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_asks_its_own_url_from_another_task_waits_no_longer_than_callers_do() {
    let (site, calls) = self_asking(|part| Box::pin(async { tokio::spawn(part).await.unwrap() }));
    let started = Instant::now();
    let request = Request::get("/page").header("host", "h").body(Body::empty()).unwrap();
    let page = site.oneshot(request).await.unwrap();
    assert_eq!(crate::support::bytes(page).await, "page of json");
    assert_eq!((started.elapsed(), calls.load(Ordering::SeqCst)), (secs(30) + ms(10), 2));
}

/// Over a socket nothing tells the inner request from that of another client.
#[tokio::test]
async fn a_handler_that_asks_its_own_url_over_a_socket_waits_no_longer_than_callers_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/page", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let (count, inner) = (Arc::clone(&calls), url.clone());
    let handler = move |headers: HeaderMap| {
        let (count, inner) = (Arc::clone(&count), inner.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let vary = [("vary", "accept")];
            if headers.get("accept").is_some_and(|accept| accept == "application/json") {
                return (vary, "json".to_owned());
            }
            let part = reqwest::Client::new().get(inner).header("accept", "application/json");
            let part = part.send().await.unwrap().text().await.unwrap();
            (vary, format!("page of {part}"))
        }
    };
    let cache =
        ReadThroughLayer::builder(store()).rules(fixed(60_000)).coalesce(|layer| layer.max_wait(ms(100)));
    let site = Router::new().route("/page", routing::get(handler)).layer(cache.build().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, site).await });
    for _ in 0..2 {
        let page = timeout(secs(30), reqwest::get(&url)).await.expect("it waits for itself").unwrap();
        assert_eq!((page.status().as_u16(), page.text().await.unwrap()), (200, "page of json".to_owned()));
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
    server.abort();
}

/// A page that asks for another one, which asks for the first.
#[tokio::test(start_paused = true)]
async fn a_cycle_through_another_url_is_recognised() {
    let itself: Arc<OnceLock<Site>> = Arc::default();
    let inner = Arc::clone(&itself);
    let handler = service_fn(move |request: Request<Body>| {
        let site = inner.get().unwrap().clone();
        async move {
            sleep(ms(10)).await;
            let depth = request.headers().get("x-depth").map_or(0, |depth| depth.as_bytes()[0] - b'0');
            let rest = match depth {
                2 => String::new(),
                _ => {
                    let path = if request.uri().path() == "/a" { "/b" } else { "/a" };
                    let request =
                        Request::get(path).header("host", "h").header("x-depth", (depth + 1).to_string());
                    let response = site.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                    String::from_utf8(crate::support::bytes(response).await.to_vec()).unwrap()
                }
            };
            let body = format!("{}{rest}", request.uri().path());
            let fields = [("vary", "x-depth"), ("cache-control", "max-age=60")];
            Ok::<_, Infallible>(crate::support::response(&fields, body).into_response())
        }
    });
    let cache = ReadThroughLayer::builder(store()).rules(Rules::new()).build().unwrap().layer(handler);
    let site = self::site(cache);
    itself.set(site.clone()).unwrap();
    assert_eq!(ask(&site, "/a").await, "/a/b/a");
}
