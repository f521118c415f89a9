//! Tower's readiness contract, for every layer and for the stack.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    limit::{ConcurrencyLimit, ConcurrencyLimitLayer},
};
use tower_readthrough::{
    CoalesceLayer, FillLayer, KeyLayer, LookupLayer, OriginLimitLayer, ReadThroughLayer, RetryPolicy,
    SharedError, StaleIfErrorLayer, StoreLayer,
};

use crate::support::{
    Body, BoxFuture, Failure, ScriptedOrigin, bytes, call, fixed, get_request, ms, response, store,
};

const URI: &str = "http://h/";

/// Panics if it is called without having been made ready, as `tower::limit` does, and has room for one.
fn strict() -> ConcurrencyLimit<ScriptedOrigin> {
    ConcurrencyLimitLayer::new(1).layer(ScriptedOrigin::with_future(|_, _| async { response(&[], "hello") }))
}

/// The ordinary way to use a service, three times over a service with room for one.
async fn keeps_the_contract<S, B>(mut service: S)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Failure> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    for _ in 0..3 {
        let answer = async { service.ready().await.unwrap().call(get_request(URI)).await.unwrap() };
        let answer = tokio::time::timeout(ms(1000), answer).await.expect("does not hang");
        assert_eq!(bytes(answer).await, "hello");
    }
    // A clone that is called without the original ever being used again.
    let answer =
        tokio::time::timeout(ms(1000), call(&service, get_request(URI))).await.expect("does not hang");
    assert_eq!(answer.1, "hello");
}

#[tokio::test(start_paused = true)]
async fn every_layer_and_the_stack_keep_the_contract() {
    keeps_the_contract(KeyLayer::default().layer(strict())).await;
    keeps_the_contract(LookupLayer::new(store()).layer(strict())).await;
    keeps_the_contract(StaleIfErrorLayer::new(store()).layer(strict())).await;
    keeps_the_contract(CoalesceLayer::new().layer(strict())).await;
    keeps_the_contract(KeyLayer::default().layer(CoalesceLayer::new().layer(strict()))).await;
    keeps_the_contract(KeyLayer::default().layer(FillLayer::new(store()).layer(strict()))).await;
    keeps_the_contract(OriginLimitLayer::new(1).layer(strict())).await;
    keeps_the_contract(tower::retry::RetryLayer::new(RetryPolicy::new()).layer(strict())).await;
    keeps_the_contract(StoreLayer::new(store()).rules(fixed(60_000)).layer(strict())).await;
    keeps_the_contract(StoreLayer::new(store()).layer(strict())).await;
    keeps_the_contract(crate::support::stack(fixed(60_000)).layer(strict())).await;
    keeps_the_contract(crate::support::stack(tower_readthrough::Rules::new()).layer(strict())).await;
}

#[tokio::test(start_paused = true)]
async fn hits_are_served_while_the_origin_holds_its_only_permit() {
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        response(&[], "hello")
    });
    let limited = ConcurrencyLimitLayer::new(1).layer(origin.clone());
    let stack =
        crate::support::stack(fixed(1000).stale_while_revalidate_for(ms(60_000))).layer(limited.clone());
    let plain = StoreLayer::new(store()).rules(fixed(60_000)).layer(limited);
    call(&stack, get_request(URI)).await;
    call(&plain, get_request(URI)).await;
    let hung = tokio::spawn(stack.clone().oneshot(get_request("http://h/hang")));
    while origin.calls() < 3 {
        tokio::task::yield_now().await;
    }
    // The ordinary way: ready first, then call.
    for _ in 0..3 {
        assert_eq!(
            bytes(
                ServiceExt::<Request<Body>>::ready_oneshot(stack.clone())
                    .await
                    .unwrap()
                    .call(get_request(URI))
                    .await
                    .unwrap()
            )
            .await,
            "hello"
        );
        assert_eq!(
            bytes(
                ServiceExt::<Request<Body>>::ready_oneshot(plain.clone())
                    .await
                    .unwrap()
                    .call(get_request(URI))
                    .await
                    .unwrap()
            )
            .await,
            "hello"
        );
    }
    // Stale, with a refresh that cannot get through.
    tokio::time::sleep(ms(2000)).await;
    assert_eq!(call(&stack, get_request(URI)).await, (StatusCode::OK, "hello".into()));
    hung.abort();
}

/// Never ready.
#[derive(Clone)]
struct Never;

impl Service<Request<Body>> for Never {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = std::future::Pending<Result<Response<Body>, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_may_respond_itself_is_ready_when_its_service_is_not() {
    async fn is_ready<S: Service<Request<Body>, Error = Failure>>(mut service: S) {
        assert!(tokio::time::timeout(ms(1), service.ready()).await.is_ok());
    }
    is_ready(LookupLayer::new(store()).layer(Never)).await;
    is_ready(StaleIfErrorLayer::new(store()).layer(Never)).await;
    is_ready(CoalesceLayer::new().layer(Never)).await;
    is_ready(FillLayer::new(store()).layer(Never)).await;
    is_ready(OriginLimitLayer::new(1).layer(Never)).await;
    is_ready(crate::support::stack(fixed(1)).layer(Never)).await;
}

/// A wait inside can be bounded, whatever is ready.
#[tokio::test(start_paused = true)]
async fn a_miss_over_a_service_that_is_never_ready_ends_in_504() {
    let layer =
        ReadThroughLayer::builder(store()).coalesce(|layer| layer.wait_at_most(ms(100))).build().unwrap();
    let service = layer.layer(Never);
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::GATEWAY_TIMEOUT);
}

#[test]
fn services_and_layers_are_send_sync_clone_and_debug() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug + 'static>(_: &T) {}
    let stack = crate::support::stack(fixed(1));
    check(&stack);
    check(&stack.layer(()));
    check(&StoreLayer::new(store()));
    check(&StoreLayer::new(store()).layer(()));
    check(&StaleIfErrorLayer::new(store()).layer(()));
    check(&CoalesceLayer::new().layer(()));
    check(&OriginLimitLayer::new(1).layer(()));
    check(&KeyLayer::default().layer(()));
    check(&RetryPolicy::new());
    check(&store());
}

type Answering = BoxFuture<Result<Response<Body>, Failure>>;

/// A middleware that passes readiness on, and asks what is below in a way of its own.
#[derive(Clone)]
struct Middleware<S>(S, fn(&mut S, Request<Body>) -> Answering);

impl<S> Service<Request<Body>> for Middleware<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Failure>,
{
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        (self.1)(&mut self.0, request)
    }
}

/// As many a middleware written by hand: a clone that is made ready by itself does the work.
fn by_a_clone(service: &mut ConcurrencyLimit<ScriptedOrigin>, request: Request<Body>) -> Answering {
    let service = service.clone();
    Box::pin(async move {
        tokio::task::yield_now().await;
        service.oneshot(request).await
    })
}

/// Turns POSTs away, as authorization, CORS or a size limit do.
fn guarded(service: &mut ConcurrencyLimit<ScriptedOrigin>, request: Request<Body>) -> Answering {
    if request.method() == http::Method::POST {
        return Box::pin(async { Ok(crate::support::status(403).into_response()) });
    }
    Box::pin(service.call(request))
}

fn post(uri: &str) -> Request<Body> {
    Request::post(uri).body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_middleware_that_calls_a_clone_finds_room_for_it() {
    for room in [1, 4] {
        let limited = ConcurrencyLimitLayer::new(room);
        let origin = || ScriptedOrigin::with_future(|_, _| async { response(&[], "hello") });
        let service =
            crate::support::stack(fixed(60_000)).layer(Middleware(limited.layer(origin()), by_a_clone));
        let answers = (0..room).map(|n| {
            let service = service.clone();
            async move { call(&service, get_request(&format!("http://h/{n}"))).await.0 }
        });
        assert!(futures_util::future::join_all(answers).await.iter().all(StatusCode::is_success));
    }
}

/// One service, used the ordinary way: ready, call, ready, call.
#[tokio::test(start_paused = true)]
async fn a_request_refused_below_keeps_no_permit() {
    let mut service = crate::support::stack(fixed(60_000)).layer(Middleware(strict(), guarded));
    for (request, status) in [(post(URI), StatusCode::FORBIDDEN), (get_request(URI), StatusCode::OK)] {
        let answer = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

fn shedding(
    origin: ScriptedOrigin,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = SharedError, Future: Send>
+ Clone
+ Send
+ 'static {
    ServiceBuilder::new()
        .map_err(|error: tower::BoxError| SharedError::new(std::io::Error::other(error)))
        .load_shed()
        .concurrency_limit(1)
        .service(origin)
}

fn slow() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(ms(50)).await;
        }
        response(&[], "hello")
    })
}

/// Where it would take the next free permit, and keep it.
#[tokio::test(start_paused = true)]
async fn a_shed_request_has_no_place_in_the_queue() {
    let layer =
        ReadThroughLayer::builder(store()).rules(fixed(60_000)).retry(RetryPolicy::never()).build().unwrap();
    let mut service = layer.layer(shedding(slow()));
    let first = tokio::spawn(service.clone().oneshot(get_request("http://h/slow")));
    tokio::time::sleep(ms(10)).await;
    assert!(service.ready().await.unwrap().call(post("http://h/")).await.is_err());
    assert!(first.await.unwrap().is_ok());
    tokio::time::sleep(ms(1000)).await;
    for n in 0..3 {
        let got = service.clone().oneshot(get_request(&format!("http://h/{n}"))).await;
        assert!(got.is_ok(), "{n}: there is no other request: {:?}", got.err());
    }
}

/// The same from a retry, which waits for long.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_retry_has_no_place_in_the_queue() {
    let policy = RetryPolicy::new().backoff(ms(3_000_000), ms(3_000_000)).deadline(ms(9_000_000));
    let layer = ReadThroughLayer::builder(store()).rules(fixed(60_000)).retry(policy).build().unwrap();
    let service = layer.layer(shedding(slow()));
    let first = tokio::spawn(service.clone().oneshot(get_request("http://h/slow")));
    tokio::time::sleep(ms(10)).await;
    let second = tokio::spawn(service.clone().oneshot(get_request("http://h/second")));
    assert!(first.await.unwrap().is_ok());
    tokio::time::sleep(ms(10)).await;
    assert!(!second.is_finished(), "it waits to be tried again");
    let got = service.clone().oneshot(post("http://h/")).await;
    assert!(got.is_ok(), "there is no other request: {:?}", got.err());
}

/// A clone of a router takes several allocations.
#[tokio::test(start_paused = true)]
async fn a_miss_clones_the_service_three_times_and_a_hit_never() {
    struct Counted(Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }

    impl Service<Request<Body>> for Counted {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Response::new(Body::from("hello"))))
        }
    }

    let clones = Arc::new(AtomicUsize::new(0));
    let mut service = crate::support::stack(fixed(60_000)).layer(Counted(Arc::clone(&clones)));
    for (request, most) in [(get_request(URI), 3), (get_request(URI), 0), (post(URI), 1)] {
        let before = clones.load(Ordering::Relaxed);
        let response = service.call(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert!(clones.load(Ordering::Relaxed) - before <= most, "{most}");
    }
}
