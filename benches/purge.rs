//! What a purge costs in a store of a million entries, and what the requests after it cost.
//!
//! ```text
//! cargo bench --bench purge
//! ```
//!
//! 1,000,000 answers under 100,000 tags, 100,000 of them under one and the same. Needs some 3 GB.
//! All times are taken on one thread, from outside, and include what else the machine does.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use futures_util::FutureExt;
use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_readthrough::{MemoryStore, ReadThroughLayer, Rules, Store};

const ENTRIES: usize = 1_000_000;
const TAGS: usize = 100_000;
/// What has the tag that is purged.
const LARGE: usize = 100_000;
/// Hits that are measured in each round.
const HITS: usize = 200_000;

fn uri(n: usize) -> String {
    format!("http://h/{}/{n}", n % 1000)
}

fn request(n: usize) -> Request<Body> {
    Request::get(uri(n)).body(Body::empty()).unwrap()
}

async fn origin(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let n: usize = request.uri().path().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let large = if n < LARGE { " large" } else { "" };
    let response = Response::builder().header("surrogate-key", format!("t{}{large}", n % TAGS));
    Ok(response.body(Body::from("x")).unwrap())
}

/// The times of so many hits, in nanoseconds, sorted.
fn hits<S>(service: &mut S, of: impl Iterator<Item = usize>) -> Vec<u64>
where
    S: Service<Request<Body>>,
{
    let mut times: Vec<u64> = of
        .map(|n| {
            let request = request(n);
            let began = Instant::now();
            let answer = service.call(request).now_or_never();
            let time = began.elapsed();
            assert!(answer.is_some(), "a hit is answered at once");
            time.as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    times
}

fn print(name: &str, times: &[u64]) {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let mean = times.iter().sum::<u64>() / times.len() as u64;
    println!("{name:<44}{mean:>8}{:>8}{:>8}{:>8}", at(0.5), at(0.99), at(0.999));
}

fn main() {
    let store = MemoryStore::with_capacity_bytes(8 << 30);
    let rules = Rules::new().fixed_ttl(Duration::from_secs(24 * 3600));
    let layer = ReadThroughLayer::builder(store.clone()).rules(rules).build().unwrap();
    let purge = layer.purge();
    let mut service = layer.layer(service_fn(origin));

    // Outside a runtime nothing happens in the background while it is measured.
    for n in 0..ENTRIES {
        let answer = service.clone().oneshot(request(n)).now_or_never();
        let response = answer.expect("the origin answers at once").unwrap();
        _ = http_body_util::BodyExt::collect(response.into_body()).now_or_never();
    }
    let stats = store.stats();
    println!("{} entries, {} MB charged, {TAGS} tags\n", stats.entries, stats.bytes >> 20);

    // Those that the purge does not reach, in an order that caches of the processor do not like.
    let others = || (0..HITS).map(|n| LARGE + n * 7_919 % (ENTRIES - LARGE));
    println!("{:<44}{:>8}{:>8}{:>8}{:>8}", "hits, ns", "mean", "p50", "p99", "p99.9");
    hits(&mut service, others());
    print("nothing was purged", &hits(&mut service, others()));

    let began = Instant::now();
    purge.tag("large");
    let one = began.elapsed();
    print("the first after a purge of 100,000 entries", &hits(&mut service, others()));
    print("the second", &hits(&mut service, others()));

    let began = Instant::now();
    for n in 0..10_000 {
        purge.tag(&format!("other-{n}"));
    }
    let many = began.elapsed() / 10_000;
    print("the first after 10,000 more", &hits(&mut service, others()));
    for n in 0..1_000 {
        purge.key_prefix(format!("nothing-{n}"));
    }
    print("the first after 1,000 of prefixes of keys", &hits(&mut service, others()));

    println!("\npurge of the tag of {LARGE} entries: {one:?}");
    println!("purge of another tag: {many:?}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        // Something is stored, which starts the background task.
        let response = service.clone().oneshot(request(ENTRIES)).await.unwrap();
        _ = http_body_util::BodyExt::collect(response.into_body()).await;
        while store.sequence().records() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("all given back after {:?}, {} entries left", began.elapsed(), store.stats().entries);
    });
}
