//! What is shared, and what is for one caller.

use super::*;

#[tokio::test(start_paused = true)]
async fn coalescing_above_a_cache_shares_what_the_cache_may_share() {
    let origin = slow(10);
    // Only the rules of the cache allow sharing this response.
    let cache = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin.clone());
    let service = KeyLayer::default().layer(CoalesceLayer::new().layer(cache));
    let answers = join_all((0..10).map(|_| service.clone().oneshot(get_request(URI)))).await;
    assert_eq!((origin.calls(), answers.len()), (1, 10));
}

/// Extensions of a response are not for other callers.
#[tokio::test(start_paused = true)]
async fn extensions_reach_the_first_caller_alone() {
    #[derive(Clone)]
    struct Session;
    let origin = ScriptedOrigin::with_future(|_, _| async {
        sleep(ms(10)).await;
        response(&[("connection", "x-hop"), ("x-hop", "1")], "hello").extension(Session)
    });
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let answers = join_all((0..3).map(|_| service.clone().oneshot(get_request(URI)))).await;
    let carries = |answer: &Response<_>| answer.extensions().get::<Session>().is_some();
    assert_eq!(answers.iter().filter(|answer| carries(answer.as_ref().unwrap())).count(), 1);
    assert!(answers.iter().all(|answer| !answer.as_ref().unwrap().headers().contains_key("x-hop")));
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().extensions().get::<Attempts>().is_none()));
}

#[tokio::test(start_paused = true)]
async fn head_and_get_and_conditional_requests_do_not_share() {
    let origin = slow(10);
    let service = coalesced(&CoalesceLayer::new(), &origin);
    let mut head = get_request(URI);
    *head.method_mut() = http::Method::HEAD;
    let mut conditional = get_request(URI);
    conditional.headers_mut().insert("if-none-match", "\"1\"".parse().unwrap());
    let mut range = get_request(URI);
    range.headers_mut().insert("range", "bytes=0-1".parse().unwrap());
    let (plain, ..) = tokio::join!(
        call(&service, get_request(URI)),
        call(&service, head),
        call(&service, conditional),
        call(&service, range)
    );
    assert_eq!(plain.1, "hello");
    assert_eq!(origin.calls(), 4);
}

/// A request without a key is passed on unchanged while fetches are under way.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_passes_through_unchanged() {
    let origin = slow(10);
    let service = CoalesceLayer::new().rules(fixed(1000)).layer(origin.clone());
    let started = Instant::now();
    let keyless = || Request::get("/").body(Body::empty()).unwrap();
    let answers = join_all((0..10).map(|_| service.clone().oneshot(keyless()))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((origin.calls(), started.elapsed()), (10, ms(10)));
}

#[tokio::test(start_paused = true)]
async fn services_made_from_one_layer_share_fetches() {
    let origin = slow(10);
    let layer = CoalesceLayer::new();
    let (one, other) = (coalesced(&layer, &origin), coalesced(&layer, &origin));
    let (a, b) = tokio::join!(call(&one, get_request(URI)), call(&other, get_request(URI)));
    assert_eq!((a.1, b.1), ("hello".into(), "hello".into()));
    // `rules` and other setters change the settings, and keep the table of fetches.
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_another_method_is_never_coalesced_even_with_a_key() {
    let origin = slow(10);
    let service = CoalesceLayer::new().rules(fixed(1000)).layer(origin.clone());
    let post = || {
        let mut request = Request::post(URI).body(Body::empty()).unwrap();
        request.extensions_mut().insert(tower_readthrough::CacheKey::new("k"));
        request
    };
    _ = tokio::join!(service.clone().oneshot(post()), service.clone().oneshot(post()));
    assert_eq!(origin.calls(), 2);
}

/// A response with a tag, after 100 ms.
fn tagged() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|number, _| async move {
        sleep(ms(100)).await;
        response(&[("cache-control", "max-age=60"), ("surrogate-key", "t")], number.to_string())
    })
}

/// A middleware that builds the request anew, and so drops the extensions of the layers above.
fn forgetful(request: Request<Body>) -> Request<Body> {
    let (head, body) = request.into_parts();
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut()) = (head.method, head.uri);
    request
}

#[tokio::test(start_paused = true)]
async fn a_response_that_the_policy_of_a_cache_below_keeps_private_is_not_shared() {
    let never = |_: &http::request::Parts, _: &http::response::Parts, rules: Rules| rules.never_store();
    let above = || ServiceBuilder::new().layer(KeyLayer::default()).layer(CoalesceLayer::new());
    let (stacked, forgotten) = (tagged(), tagged());
    let stack = above()
        .layer(ReadThroughLayer::builder(store()).policy(never).build().unwrap())
        .service(stacked.clone());
    let store_layer = above().map_request(forgetful).layer(StoreLayer::new(store()).policy(never));
    let store_layer = store_layer.service(forgotten.clone());
    join_all((0..5).map(|_| call(&stack, get_request(URI)))).await;
    join_all((0..5).map(|_| call(&store_layer, get_request(URI)))).await;
    assert_eq!((stacked.calls(), forgotten.calls()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_a_cache_below_purged_is_not_shared_with_later_requests() {
    let above = || ServiceBuilder::new().layer(KeyLayer::default()).layer(CoalesceLayer::new());
    let (cache, store_layer) = (ReadThroughLayer::builder(store()), StoreLayer::new(store()));
    let purges = [cache.purge(), store_layer.purge()];
    let stack = above().layer(cache.build().unwrap()).service(tagged());
    let store_layer = above().map_request(forgetful).layer(store_layer).service(tagged());
    let purging = async {
        sleep(ms(10)).await;
        purges.iter().for_each(|purge| _ = purge.tag("t"));
    };
    let later = async {
        sleep(ms(20)).await;
        (call(&stack, get_request(URI)).await.1, call(&store_layer, get_request(URI)).await.1)
    };
    let (_, _, (), later) =
        tokio::join!(call(&stack, get_request(URI)), call(&store_layer, get_request(URI)), purging, later);
    assert_eq!((later.0, later.1), ("2".into(), "2".into()));
}

#[tokio::test(start_paused = true)]
async fn the_caller_that_fetched_has_a_cache_status_even_without_the_field() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        response(&[("cache-control", "max-age=60"), ("connection", "cache-status")], "hello")
    });
    let answer = crate::support::stack(Rules::new()).layer(origin).oneshot(get_request(URI)).await.unwrap();
    assert_eq!(CacheStatus::of(&answer).unwrap().to_string(), "fwd=uri-miss; stored");
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_response_waited_counts_once_in_its_age() {
    let (store, (origin, sender)) = (store(), fed());
    let fill = FillLayer::new(store.clone()).rules(fixed(60_000));
    let below = CoalesceLayer::new().layer(fill.layer(origin));
    let first = LookupLayer::new(store.clone()).layer(below.clone());
    let other = LookupLayer::new(store).layer(CoalesceLayer::new().layer(below));
    let _reading = first.oneshot(get_request(URI)).await.unwrap();
    assert!(sender.send("the beginning"));
    sleep(ms(10_000)).await;
    // The first caller shares the fetch below, the second the response of the first.
    for _ in 0..2 {
        let late = other.clone().oneshot(get_request(URI)).await.unwrap();
        assert_eq!(late.headers()["age"], "10");
    }
}
