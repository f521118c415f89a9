//! What all bodies under way may hold together.

use futures_util::{FutureExt, future::join_all};
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower::Layer;
use tower_readthrough::{BodyError, BuildError, CoalesceLayer, KeyLayer, MemoryStore, ReadThroughLayer};

use super::{apart, chunked, open, read, ready};

use crate::support::{ScriptedOrigin, call, fixed, get_request, ms, response, secs};

const KIB: usize = 1 << 10;

/// 200 KiB beside a store of 2 MiB, in one chunk or in many.
fn body(chunks: usize) -> ScriptedOrigin {
    ready(chunks, 200 * KIB / chunks)
}

#[tokio::test(start_paused = true)]
async fn stalled_readers_hold_no_more_than_the_budget() {
    for chunks in [1, 4, 100] {
        let (origin, store) = (body(chunks), MemoryStore::builder(2 << 20).max_response_share(0.25));
        let store = store.build().unwrap();
        let layer = ReadThroughLayer::builder(store.clone()).rules(fixed(600_000)).build().unwrap();
        let service = layer.layer(origin.clone());
        let mut idle = Vec::new();
        for n in 0..200 {
            let mut body = open(&service, &format!("http://h/{n}")).await;
            if n % 2 == 0 {
                body.frame().await.unwrap().unwrap();
            }
            idle.push(body);
            sleep(ms(1)).await;
            let stats = layer.coalesce_stats();
            assert!(stats.held_bytes <= stats.max_total_bytes, "{n} of {chunks}: {stats:?}");
        }
        let calls = origin.calls();
        let cold = (0..50).map(|_| call(&service, get_request("http://h/cold")));
        assert!(join_all(cold).await.iter().all(|(_, body)| body.len() == 200 * KIB));
        assert_eq!(call(&service, get_request("http://h/cold")).await.1.len(), 200 * KIB, "stored");
        assert_eq!(origin.calls(), calls + 1, "{chunks}");
        let stats = layer.coalesce_stats();
        assert!(stats.held_bytes <= stats.max_total_bytes, "{chunks}: {stats:?}");
        assert_eq!((stats.max_total_bytes, stats.lagged > 0), (2 << 20, true), "{stats:?}");

        // All fetches end, and without readers nothing is held.
        sleep(secs(61)).await;
        assert_eq!(layer.coalesce_stats().fetches, 0);
        drop(idle);
        assert_eq!(layer.coalesce_stats().held_bytes, 0);
    }
}

/// The same with callers that do not even poll for their response.
#[tokio::test(start_paused = true)]
async fn callers_that_do_not_take_their_response_hold_no_more_than_the_budget() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        sleep(ms(10)).await;
        response(&[], chunked(4, 50 * KIB))
    });
    let layer = CoalesceLayer::new().rules(fixed(600_000)).max_held_bytes(256 * KIB).max_total_bytes(1 << 20);
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let mut waiting = Vec::new();
    for n in 0..50 {
        let service = service.clone();
        let mut caller = Box::pin(async move { open(&service, &format!("http://h/{n}")).await });
        assert!((&mut caller).now_or_never().is_none(), "begun, and not polled again");
        waiting.push(caller);
        sleep(ms(20)).await;
        assert!(layer.stats().held_bytes <= 1 << 20, "{:?}", layer.stats());
    }
    assert!(layer.stats().held_bytes > 512 << 10, "{:?}", layer.stats());
    drop(waiting);
    assert_eq!(layer.stats().held_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn the_reader_furthest_behind_ends_first() {
    let origin = body(100);
    let layer = CoalesceLayer::new().rules(fixed(600_000)).max_held_bytes(256 * KIB).max_total_bytes(2 << 20);
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let read_some = async |n: usize, frames: usize| {
        let mut body = open(&service, &format!("http://h/{n}")).await;
        for _ in 0..frames {
            body.frame().await.unwrap().unwrap();
        }
        sleep(ms(1)).await;
        body
    };
    let mut bodies = Vec::new();
    for (n, frames) in [90, 10, 50].into_iter().enumerate() {
        bodies.push(read_some(n, frames).await);
    }
    let mut n = 3;
    while layer.stats().lagged == 0 {
        bodies.push(read_some(n, 80).await);
        n += 1;
        assert!(n < 100, "{:?}", layer.stats());
    }
    let lagged = layer.stats().lagged;
    let mut behind = Vec::new();
    for (n, body) in bodies.into_iter().enumerate() {
        if let Some(error) = read(body).await.1 {
            assert!(matches!(error, BodyError::Lagged), "{n}: {error:?}");
            behind.push(n);
        }
    }
    assert_eq!(behind, [1, 2][..lagged as usize], "by what they have left to read");
}

/// An origin that has its bodies ready, and many clients that read at a moderate speed: each fetch
/// waits for its reader instead of breaking another off.
#[tokio::test(start_paused = true)]
async fn readers_that_read_on_get_all_of_it_however_many_they_are() {
    let origin = body(100);
    let layer = CoalesceLayer::new().rules(fixed(600_000)).max_held_bytes(64 * KIB).max_total_bytes(1 << 20);
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let readers = (0..100).map(|n| {
        let service = service.clone();
        apart(async move {
            let mut body = open(&service, &format!("http://h/{n}")).await;
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                length += frame.unwrap().into_data().unwrap().len();
                sleep(ms(5 + n % 7)).await;
            }
            length
        })
    });
    let readers: Vec<_> = readers.collect();
    sleep(ms(100)).await;
    let stats = layer.stats();
    assert!(stats.held_bytes <= stats.max_total_bytes, "{stats:?}");
    assert_eq!(join_all(readers).await, vec![200 * KIB / 100 * 100; 100]);
    assert_eq!(layer.stats().lagged, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_all_callers_have_read_is_not_held() {
    let origin = body(100);
    let layer = CoalesceLayer::new().rules(fixed(600_000));
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let mut body = open(&service, "http://h/").await;
    sleep(ms(1)).await;
    let whole = layer.stats().held_bytes;
    assert!(whole > 200 * KIB as u64 - 2048 && whole < 220 * KIB as u64, "{whole}");
    for _ in 0..50 {
        body.frame().await.unwrap().unwrap();
    }
    assert!(layer.stats().held_bytes <= whole / 2);
    // The gauge is the same for all clones.
    assert_eq!(layer.clone().stats(), layer.stats());
    drop(body);
    assert_eq!(layer.stats().held_bytes, 0);
}

#[test]
fn a_budget_below_what_one_body_may_hold_is_refused() {
    let built = |change: fn(CoalesceLayer) -> CoalesceLayer| {
        ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).coalesce(change).build().err()
    };
    assert!(matches!(built(|layer| layer.max_total_bytes(1000)), Some(BuildError::NoEffect { .. })));
    assert!(matches!(built(|layer| layer.max_held_bytes(2 << 20)), Some(BuildError::NoEffect { .. })));
    assert!(matches!(built(|layer| layer.max_read_pause(secs(0))), Some(BuildError::ZeroDuration { .. })));
    assert_eq!(built(|layer| layer), None);
}

/// The declared length does not matter to it.
#[tokio::test(start_paused = true)]
async fn a_large_body_in_one_piece_is_counted_until_it_is_read() {
    let origin = ScriptedOrigin::with_future(|_, _| async { response(&[], vec![b'x'; 200 * KIB]) });
    let layer = CoalesceLayer::new().rules(fixed(600_000));
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let body = open(&service, "http://h/").await;
    assert_eq!(layer.stats().held_bytes, 200 * KIB as u64 + 64);
    assert_eq!(read(body).await.0, 200 * KIB);
    assert_eq!(layer.stats().held_bytes, 0);
}
