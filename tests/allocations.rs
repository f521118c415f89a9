//! The allocations of hits, misses and waiting callers, each with its reason.

#[allow(dead_code, unused_imports, reason = "a part of it is used here")]
#[path = "it/support/mod.rs"]
mod support;

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use support::{Body, ScriptedOrigin, fixed, get_request, response, store};
use tower::{Layer, Service, ServiceExt};
use tower_readthrough::{Guard, KeyRule, KeyRules, MemoryStore, ReadThroughLayer, RetryPolicy, StoreLayer};

/// The allocations of one call whose response is there at once, with its body read to the end.
fn allocations<S, B>(service: &mut S, request: Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body + Unpin,
{
    let answer_and_read = || {
        let answer = service.call(request).now_or_never();
        let response = answer.expect("answered at once").unwrap_or_else(|_| unreachable!());
        let mut body = response.into_body();
        assert!(body.frame().now_or_never().is_some());
    };
    allocation_counter::measure(answer_and_read).count_total
}

/// The least of several misses: tables that happen to grow are left out.
fn least<S, B>(service: &mut S) -> u64
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body + Unpin,
{
    let counts = (0..32).map(|number| {
        let mut request = get_request(&format!("http://h/{number}"));
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip, br"));
        allocations(service, request)
    });
    counts.min().unwrap()
}

fn origin() -> ScriptedOrigin {
    let fields: Vec<_> = (0..8).map(|n| (format!("x-field-{n}"), "value")).collect();
    ScriptedOrigin::unrecorded(move |_, _| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        response(&fields, "hello")
    })
}

/// * 2: the entries and the index of the header map
const HIT: u64 = 2;

#[tokio::test]
async fn a_hit_allocates_what_it_hands_out_and_no_more() {
    let mut stack = support::stack(fixed(60_000)).layer(origin());
    let mut plain = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin());
    for _ in 0..2 {
        support::call(&stack, get_request("http://h/")).await;
        support::call(&plain, get_request("http://h/")).await;
    }
    assert_eq!(allocations(&mut plain, get_request("http://h/")), HIT);
    assert_eq!(allocations(&mut stack, get_request("http://h/")), HIT, "the other layers cost a hit nothing");
}

/// Nor do other nodes: neither a second tier nor a log of purges.
#[cfg(all(feature = "redis", feature = "testing"))]
#[tokio::test]
async fn a_hit_of_one_node_of_several_allocates_no_more() {
    use tower_readthrough::{
        Tier,
        testing::{PurgeLog, ScriptedRemote},
    };

    let tier = Tier::builder(ScriptedRemote::new()).build().unwrap();
    let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
    let cache = ReadThroughLayer::builder(store).rules(fixed(60_000)).second_tier(tier).build().unwrap();
    let _joined = PurgeLog::new().join(&cache.purge()).unwrap();
    let mut stack = cache.layer(origin());
    for _ in 0..2 {
        support::call(&stack, get_request("http://h/")).await;
    }
    assert_eq!(allocations(&mut stack, get_request("http://h/")), HIT);
}

/// Key rules cost a hit no allocation, whether or not one applies to the request.
#[tokio::test]
async fn a_hit_by_key_rules_allocates_no_more() {
    let rules = || {
        KeyRules::builder()
            .rule(KeyRule::path("/account/{*rest}").bypass())
            .rule(KeyRule::path("/p?uid={_}&pid={pid}&sid={_}").tags(["product-{pid}"]).cookies([]))
            .rule(KeyRule::path("/s/{id}").ignore_query(["utm_*"]).headers(["x-a"]).cookies(["currency"]))
            .guard(Guard::new())
            .accept_encoding(["br", "gzip"])
            .build()
            .unwrap()
    };
    for uri in ["http://h/", "http://h/p?uid=1&pid=2&sid=3", "http://h/s/1?a=1&utm_a=1&b=2"] {
        let configured = fixed(60_000).cookies(["currency"]);
        let cache = ReadThroughLayer::builder(store()).key(rules()).rules(configured).build().unwrap();
        let mut stack = cache.layer(origin());
        let request = || {
            let mut request = get_request(uri);
            request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
            request.headers_mut().insert("cookie", "sid=1; currency=EUR".parse().unwrap());
            request
        };
        support::call(&stack, request()).await;
        // The first hit makes what later hits compare with.
        allocations(&mut stack, request());
        assert_eq!(allocations(&mut stack, request()), HIT, "{uri}");
    }
}

/// * 1: the key
/// * 1: the names that purges match
/// * 3: the cache request in the extensions of the request, which are a boxed table
/// * 1: the future
/// * 3: the copy of the request's head, and its fields
/// * 1: the stored fields and body, in one block
/// * 1: the names of the selecting fields
/// * 1: the recorder of the body
/// * 1: the reference count of the stored block
/// * 2: the response and the entry in the table
const MISS: u64 = 15;

/// Without the allocations of the origin.
#[tokio::test]
async fn a_miss_allocates_what_is_kept_and_little_else() {
    let fields = [
        ("date", "Fri, 20 Nov 2026 12:00:00 GMT"),
        ("content-type", "text/html"),
        ("etag", "\"1\""),
        ("vary", "accept-encoding, accept-language"),
    ];
    let origin = || ScriptedOrigin::unrecorded(move |_, _| response(&fields, "hello"));
    let mut plain = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin());
    let (bare, miss) = (least(&mut origin()), least(&mut plain));
    assert!(miss <= bare + MISS, "{miss} - {bare} = {}", miss - bare);
}

#[tokio::test]
async fn a_request_without_a_key_costs_nothing() {
    let post = || Request::post("http://h/").body(Body::empty()).unwrap();
    let bare = allocations(&mut origin(), post());
    let mut stack = support::stack(fixed(60_000)).layer(origin());
    let mut plain = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin());
    assert_eq!(allocations(&mut stack, post()), bare);
    assert_eq!(allocations(&mut plain, post()), bare);
}

/// The allocations of a miss in the layers between Lookup and the origin, beyond those of a plain store:
///
/// * 2: the wait for a response, and the fetch
/// * 3: the flight, its head, and its log
/// * 1: the extensions, which only the first caller gets
/// * 3: whether the response may be shared, in its extensions
/// * 1: the number of attempts
const LAYERS: u64 = 10;

#[tokio::test]
async fn a_miss_through_all_layers_allocates_little_more_than_one_through_a_store() {
    let mut stack = support::stack(fixed(60_000)).layer(origin());
    let mut plain = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin());
    let (stack, plain) = (least(&mut stack), least(&mut plain));
    assert!(stack <= plain + LAYERS, "{stack} instead of {plain}");
}

/// The head is copied once, by the layer that judges the response.
#[tokio::test]
async fn a_request_that_may_be_repeated_is_not_copied_before() {
    let retrying = ReadThroughLayer::builder(store()).rules(fixed(60_000)).retry(RetryPolicy::new());
    let mut retrying = retrying.build().unwrap().layer(origin());
    let mut once = support::stack(fixed(60_000)).layer(origin());
    assert_eq!(least(&mut retrying), least(&mut once));
}

/// Servers keep a future for each request, hit or not, and it is moved into its task.
#[test]
fn the_future_of_a_request_stays_small() {
    #[derive(Clone)]
    struct Ready;

    impl Service<Request<Full<Bytes>>> for Ready {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            std::future::ready(Ok(Response::default()))
        }
    }

    let mut service = support::stack(fixed(60_000)).layer(Ready);
    let future = service.call(Request::new(Full::default()));
    assert!(size_of_val(&future) <= 392, "{}", size_of_val(&future));
}

/// The bytes of a caller that waits for the fetch of another: the future, the request with its
/// extensions, the place in the flight, and a timer.
const WAITING: usize = 2_300;

#[tokio::test(start_paused = true)]
async fn a_waiting_caller_holds_little_more_than_its_request() {
    let mut stack = support::stack(fixed(60_000)).layer(ScriptedOrigin::unrecorded(|_, _| {
        response(&[("x-field", "value")], "hello").after(support::ms(100))
    }));
    let requests = [0; 3].map(|_| get_request("http://h/"));
    let mut callers = Vec::with_capacity(requests.len());
    let mut held = Vec::new();
    for request in requests {
        let allocated = allocation_counter::measure(|| {
            let mut answer = Box::pin(stack.call(request));
            assert!((&mut answer).now_or_never().is_none());
            callers.push(answer);
        });
        held.push(usize::try_from(allocated.bytes_current).unwrap());
    }
    assert!(held[2] <= WAITING, "{held:?}");
    for answer in callers {
        assert_eq!(answer.await.unwrap().into_body().collect().await.unwrap().to_bytes(), "hello");
    }
}

#[tokio::test]
async fn selecting_values_are_charged_to_the_store() {
    const ENTRIES: u64 = 2_000;
    for count in [1, 8, 40] {
        let names: Vec<_> = (0..count).map(|n| format!("x-field-of-a-request-{n}")).collect();
        let (store, vary) = (store(), names.join(", "));
        let origin = ScriptedOrigin::unrecorded(move |_, _| response(&[("vary", &vary)], "hello"));
        let mut service = StoreLayer::new(store.clone()).rules(fixed(60_000)).layer(origin);
        let mut ask = |number: u64| {
            let mut request = get_request(&format!("http://h/{number}"));
            for name in &names {
                let name = http::HeaderName::try_from(name).unwrap();
                request.headers_mut().insert(name, HeaderValue::from_static("1"));
            }
            allocations(&mut service, request)
        };
        ask(ENTRIES);
        let before = store.stats().bytes;
        let held = allocation_counter::measure(|| (0..ENTRIES).for_each(|n| _ = ask(n))).bytes_current;
        let (held, charged) = (held.cast_unsigned() / ENTRIES, (store.stats().bytes - before) / ENTRIES);
        assert!(held <= charged && charged <= held + held / 2 + 300, "{charged} for {held}");
    }
}

/// What the store charges covers what it holds and the overhead of the allocator, and little more.
#[tokio::test]
async fn what_an_entry_holds_is_charged() {
    const ENTRIES: u64 = 2_000;
    for (fields, body) in [(0, 10), (0, 1_024), (8, 100), (8, 5_000), (60, 100), (90, 100)] {
        let store = store();
        let origin = ScriptedOrigin::unrecorded(move |number, _| {
            let fields: Vec<_> =
                (0..fields).map(|n| (format!("x-field-{n}"), format!("{number:020}"))).collect();
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            response(&fields, vec![b'x'; body])
        });
        let mut service = StoreLayer::new(store.clone()).rules(fixed(60_000)).layer(origin);
        allocations(&mut service, get_request("http://h/"));
        let before = store.stats().bytes;
        let fill = || {
            (0..ENTRIES).for_each(|n| _ = allocations(&mut service, get_request(&format!("http://h/{n}"))));
        };
        let held = allocation_counter::measure(fill).bytes_current;
        let (held, charged) = (held.cast_unsigned() / ENTRIES, (store.stats().bytes - before) / ENTRIES);
        // The overhead of about six blocks of memory.
        assert!(held + 60 <= charged && charged <= held + held / 2 + 150, "{charged} for {held}");
    }
}

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 16 << 10;
const MIB: u64 = 1 << 20;

/// An origin with a body of a GiB, in chunks.
fn gibibyte(declared: bool) -> ScriptedOrigin {
    ScriptedOrigin::unrecorded(move |_, _| {
        let chunks = futures_util::stream::iter(0..CHUNKS);
        let frames = chunks.map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; CHUNK]))));
        let length = (CHUNK * CHUNKS).to_string();
        let fields: &[_] = if declared { &[("content-length", length.as_str())] } else { &[] };
        response(fields, Body::new(StreamBody::new(frames)))
    })
}

/// The store takes 4 MiB of one response; nothing beyond that may be held.
#[test]
fn a_body_larger_than_the_store_takes_passes_through_a_few_mebibytes() {
    for declared in [true, false] {
        let store = MemoryStore::with_capacity_bytes(64 << 20);
        let layer = ReadThroughLayer::builder(store.clone()).rules(fixed(60_000)).build().unwrap();
        let service = layer.layer(gibibyte(declared));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // One thread runs all of it, and allocations are counted by thread.
        let held = allocation_counter::measure(|| {
            runtime.block_on(async {
                let mut body = service.oneshot(get_request("http://h/")).await.unwrap().into_body();
                let mut length = 0;
                while let Some(frame) = body.frame().await {
                    length += frame.unwrap().into_data().unwrap().len();
                }
                assert_eq!(length, CHUNK * CHUNKS);
            });
        });
        assert!(held.bytes_max < 12 * MIB, "{} bytes", held.bytes_max);
        assert_eq!((store.stats().refused, store.stats().bytes < 1000), (1, true));
    }
}
