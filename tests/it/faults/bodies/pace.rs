//! Bodies too large to hold: which reader sets the pace, which loses its place, and how long a fetch
//! waits.

use futures_util::future::join_all;
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower::Layer;
use tower_readthrough::{
    BodyError, CoalesceLayer, KeyLayer, MemoryStore, OriginLimitLayer, ReadThroughLayer,
};

use super::{apart, open, read, ready};

use crate::support::{ScriptedOrigin, call, fixed, get_request, ms, response, secs};

const KIB: usize = 1 << 10;

/// A store of 16 MiB takes 1 MiB; the body has 3 MiB.
#[tokio::test(start_paused = true)]
async fn readers_of_the_same_speed_get_all_of_a_body_too_large_to_hold() {
    for readers in [2, 8, 50] {
        let origin = ready(48, 64 * KIB);
        let store = MemoryStore::with_capacity_bytes(16 << 20);
        let service =
            ReadThroughLayer::builder(store).rules(fixed(60_000)).build().unwrap().layer(origin.clone());
        let together = (0..readers).map(|_| {
            let service = service.clone();
            apart(async move { read(open(&service, "http://h/").await).await.0 })
        });
        assert_eq!(join_all(together).await, vec![48 * 64 * KIB; readers]);
        assert_eq!(origin.calls(), 1, "they share it, since no length was told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_of_the_same_speed_on_several_threads_get_all_of_the_body() {
    let origin = ready(480, 64 * KIB);
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let service =
        ReadThroughLayer::builder(store).rules(fixed(60_000)).build().unwrap().layer(origin.clone());
    let together = (0..8).map(|_| {
        let service = service.clone();
        apart(async move { read(open(&service, "http://h/").await).await.0 })
    });
    assert_eq!(join_all(together).await, vec![480 * 64 * KIB; 8]);
}

/// The same in a layer alone, whatever the proportions.
#[tokio::test(start_paused = true)]
async fn a_reader_that_had_no_turn_does_not_count_as_slow() {
    for (chunks, chunk, held) in [(1000, 100, 2000), (30, 10_000, 2000), (3, 100_000, 50_000)] {
        let origin = ready(chunks, chunk);
        let layer = CoalesceLayer::new().rules(fixed(60_000)).max_held_bytes(held);
        let service = KeyLayer::default().layer(layer.layer(origin.clone()));
        let together = (0..5).map(|_| {
            let service = service.clone();
            apart(async move { read(open(&service, "http://h/").await).await.0 })
        });
        assert_eq!(join_all(together).await, [chunks * chunk; 5], "{chunks} of {chunk}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_loses_its_place_and_delays_the_others_for_its_turn_alone() {
    let origin = ready(1000, KIB);
    let layer = CoalesceLayer::new().rules(fixed(60_000)).max_held_bytes(20 * KIB);
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let (fast, slow) = tokio::join!(open(&service, "http://h/"), open(&service, "http://h/"));
    let began = tokio::time::Instant::now();
    let slow = apart(async move {
        let mut slow = slow;
        loop {
            match slow.frame().await {
                Some(Ok(_)) => sleep(ms(90)).await,
                end => return end,
            }
        }
    });
    assert_eq!(read(fast).await.0, 1000 * KIB);
    assert!(began.elapsed() < ms(500), "{:?}", began.elapsed());
    assert!(matches!(slow.await, Some(Err(BodyError::Lagged))));
}

#[tokio::test(start_paused = true)]
async fn stalled_downloads_free_their_places_at_the_origin() {
    // Declared: each is one caller's own. Not declared: shared.
    for declared in [false, true] {
        let origin = ScriptedOrigin::with_future(move |_, request| async move {
            let length = (4 << 20).to_string();
            let fields: &[_] = if declared { &[("content-length", length.as_str())] } else { &[] };
            match request.uri().path() {
                "/small" => response(&[], "hello"),
                _ => response(fields, super::chunked(64, 64 * KIB)),
            }
        });
        let store = MemoryStore::with_capacity_bytes(16 << 20);
        let limit = OriginLimitLayer::new(4);
        let layer =
            ReadThroughLayer::builder(store).rules(fixed(60_000)).origin_limit(limit).build().unwrap();
        let service = layer.layer(origin.clone());
        let mut idle = Vec::new();
        for n in 0..4 {
            let mut body = open(&service, &format!("http://h/{n}")).await;
            body.frame().await.unwrap().unwrap();
            idle.push(body);
        }
        sleep(secs(2)).await;
        assert_eq!(call(&service, get_request("http://h/small")).await.0, 503, "all places are taken");
        sleep(secs(if declared { 91 } else { 61 })).await;
        assert_eq!(call(&service, get_request("http://h/small")).await.0, 200, "declared: {declared}");
        let mut ended = 0;
        for body in idle {
            ended += usize::from(matches!(read(body).await.1, Some(BodyError::Idle)));
        }
        // What is each caller's own ends only as far as its place is needed.
        assert_eq!(ended, if declared { 1 } else { 4 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_for_less_than_the_limit_gets_all_of_it() {
    let origin = ready(300, KIB);
    let layer = CoalesceLayer::new().rules(fixed(60_000)).max_held_bytes(20 * KIB).max_read_pause(secs(5));
    let service = KeyLayer::default().layer(layer.layer(origin.clone()));
    let mut body = open(&service, "http://h/").await;
    let mut length = 0;
    for _ in 0..20 {
        sleep(ms(4900)).await;
        length += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    assert_eq!(length + read(body).await.0, 300 * KIB);
}

/// What is being stored is fetched to its end although the only reader stands still.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_being_stored_does_not_wait_for_a_stalled_reader() {
    let origin = ready(100, KIB);
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let coalesce = |layer: CoalesceLayer| layer.max_held_bytes(20 * KIB);
    let layer =
        ReadThroughLayer::builder(store.clone()).rules(fixed(600_000)).coalesce(coalesce).build().unwrap();
    let service = layer.layer(origin.clone());
    let idle = open(&service, "http://h/").await;
    sleep(secs(61)).await;
    assert_eq!(call(&service, get_request("http://h/")).await.1.len(), 100 * KIB);
    assert_eq!((origin.calls(), store.stats().entries), (1, 1));
    assert!(matches!(read(idle).await.1, Some(BodyError::Idle)));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_fetch_that_the_store_takes_is_completed_whatever_may_be_held() {
    let origin = ready(100, KIB);
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let coalesce = |layer: CoalesceLayer| layer.max_held_bytes(20 * KIB);
    let layer =
        ReadThroughLayer::builder(store.clone()).rules(fixed(600_000)).coalesce(coalesce).build().unwrap();
    let service = layer.layer(origin.clone());
    drop(open(&service, "http://h/").await);
    sleep(ms(1)).await;
    assert_eq!(call(&service, get_request("http://h/")).await.1.len(), 100 * KIB);
    assert_eq!((origin.calls(), store.stats().entries), (1, 1));

    // What the store does not take ends with its last reader.
    let origin = ready(100_000, KIB);
    let service = layer.layer(origin.clone());
    let mut body = open(&service, "http://h/large").await;
    body.frame().await.unwrap().unwrap();
    drop(body);
    sleep(ms(1)).await;
    assert_eq!(layer.coalesce_stats().fetches, 0);
}
