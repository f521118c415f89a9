//! A remote that is slow, late, wrong or gone is a miss, and never a failed response.

use super::*;
use bytes::Bytes;
use tower_readthrough::{BreakerState, MemoryStore, store::Envelope};

/// A site with one page, and a node that has nothing.
async fn filled() -> (Site, Node) {
    let site = Site::default();
    site.node().fill("/").await;
    let node = site.node();
    (site, node)
}

#[tokio::test(start_paused = true)]
async fn a_slow_remote_delays_a_miss_and_nothing_else() {
    let (site, node) = filled().await;
    site.remote.delay(ms(200));
    let began = tokio::time::Instant::now();
    assert_eq!(node.get("/").await.cache(), "hit; detail=second-tier");
    assert_eq!(began.elapsed(), ms(200));
    let began = tokio::time::Instant::now();
    assert!(node.get("/").await.is_hit());
    assert_eq!(began.elapsed(), ms(0));
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_hangs_is_left_after_a_second() {
    let (site, node) = filled().await;
    site.remote.hang(1);
    let began = tokio::time::Instant::now();
    assert_eq!(node.get("/").await.cache(), "fwd=uri-miss");
    assert_eq!((began.elapsed(), node.count(TierRead::Timeout)), (secs(1), 1));
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_fails_or_panics_is_a_miss() {
    let (site, node) = filled().await;
    site.remote.fail(1);
    assert_eq!((node.page("/").await, node.count(TierRead::Failed)), ("0".to_owned(), 1));
    site.remote.panic(1);
    assert_eq!(node.get("/other").await.status, 200);
    assert_eq!(node.count(TierRead::Failed), 2);
    // Of what the clock of the remote was not asked for nothing is written.
    node.written().await;
    assert_eq!(node.tier.status().writes.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_or_panics_changes_nothing_here() {
    let site = Site::default();
    let node = site.node();
    for panics in [false, true] {
        site.remote.delay(ms(10));
        node.get(&format!("/{panics}")).await;
        if panics {
            site.remote.panic(1);
        } else {
            site.remote.fail(1);
        }
        node.written().await;
        assert_eq!(node.count_of_writes(TierWrite::Failed), 1 + u64::from(panics));
        assert!(node.get(&format!("/{panics}")).await.is_hit());
    }
    site.remote.delay(ms(0));
    node.fill("/").await;
    assert_eq!(node.count_of_writes(TierWrite::Written), 1, "and the next one is written");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_whole_envelope_of_this_schema_is_a_miss_that_is_counted_by_its_kind() {
    type Change = fn(Bytes) -> Bytes;
    let garbage: Change = |_| Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\nowned");
    let empty: Change = |_| Bytes::new();
    let cut: Change = |bytes| bytes.slice(..bytes.len() - 1);
    let longer: Change = |bytes| [&bytes[..], b"x"].concat().into();
    let changed: Change = |bytes| {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes.into()
    };
    // Bits of the header that have no meaning, and the length of the body in it.
    let flags: Change = |bytes| {
        let mut bytes = bytes.to_vec();
        bytes[7] = 0xff;
        bytes.into()
    };
    let large: Change = |bytes| {
        let mut bytes = bytes.to_vec();
        bytes[24..32].fill(0xff);
        bytes.into()
    };
    let schema: Change = |bytes| {
        let mut bytes = bytes.to_vec();
        bytes[4] = 99;
        bytes.into()
    };
    for (change, kind) in [
        (garbage, TierRead::Foreign),
        (empty, TierRead::Foreign),
        (cut, TierRead::WrongLength),
        (longer, TierRead::WrongLength),
        (changed, TierRead::WrongChecksum),
        (flags, TierRead::Invalid),
        (large, TierRead::TooLarge),
        (schema, TierRead::OtherSchema),
    ] {
        let (site, node) = filled().await;
        site.remote.change(|_, bytes| change(bytes));
        let reply = node.get("/").await;
        assert_eq!((reply.cache(), node.count(kind)), ("fwd=uri-miss".to_owned(), 1), "{kind}");
        assert_eq!(node.tier.status().reads.total(), 1, "{kind}: and under no other name");
        // The next success takes its place.
        node.written().await;
        assert!(site.node().get("/").await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn no_cut_of_an_envelope_is_served() {
    let (site, _) = filled().await;
    let [key] = <[_; 1]>::try_from(site.remote.keys()).unwrap();
    let (whole, _) = site.remote.kept(&key).unwrap();
    for length in 0..whole.len() {
        let node = site.node();
        site.remote.change(|_, _| whole.slice(..length));
        node.get("/").await;
        assert_eq!(node.origin.calls(), 1, "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_date_ahead_of_the_clock_says_nothing() {
    let (site, node) = filled().await;
    // The server is another one, whose clock is behind.
    let other = Site { remote: ScriptedRemote::new(), log: site.log.clone() };
    let ahead = other.node();
    other.remote.set_clock_ahead(secs(2));
    ahead.fill("/").await;
    other.remote.set_clock_ahead(secs(0));
    let reader = other.node();
    assert_eq!((reader.page("/").await, reader.origin.calls()), ("0".to_owned(), 1));
    assert_eq!(reader.count(TierRead::Unproven), 1);
    drop(node);
    // Less than a second is within what clocks differ.
    other.remote.clear();
    other.remote.set_clock_ahead(ms(900));
    ahead.cache.purge().everything();
    ahead.fill("/").await;
    other.remote.set_clock_ahead(secs(0));
    assert!(other.node().get("/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_the_store_takes_is_a_miss() {
    let site = Site::default();
    let large = ScriptedOrigin::always(|| ok(vec![0; 100_000]).max_age(60));
    site.node_of(&large).fill("/").await;
    let tier = Tier::builder(site.remote.clone()).build().unwrap();
    let small = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let cache = ReadThroughLayer::builder(small).second_tier(tier.clone()).build().unwrap();
    let _log = site.log.join(&cache.purge()).unwrap();
    assert_eq!(get(&cache.layer(large.clone()), "/").await.body.len(), 100_000);
    assert_eq!((large.calls(), tier.status().reads.get(TierRead::TooLarge)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn after_five_failures_a_remote_is_not_asked_for_a_while() {
    let (site, node) = filled().await;
    site.remote.fail(5);
    for page in 0..5 {
        assert_eq!(node.get(&format!("/{page}")).await.status, 200);
    }
    let reads = site.reads();
    assert_eq!(node.tier.status().reads_breaker, BreakerState::Open);
    for page in 5..50 {
        assert_eq!(node.get(&format!("/{page}")).await.status, 200);
    }
    assert_eq!((site.reads(), node.count(TierRead::Open)), (reads, 45));
    // One finds out whether it is back.
    tokio::time::advance(secs(2)).await;
    site.remote.fail(1);
    node.page("/50").await;
    node.page("/51").await;
    assert_eq!(site.reads(), reads + 1);
    tokio::time::advance(secs(4)).await;
    assert!(node.get("/").await.is_hit());
    assert_eq!(node.tier.status().reads_breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_takes_no_writes_is_still_read() {
    let (site, node) = filled().await;
    for page in 0..5 {
        site.remote.delay(ms(1));
        node.get(&format!("/{page}")).await;
        site.remote.fail(1);
        node.written().await;
    }
    let status = node.tier.status();
    assert_eq!((status.writes_breaker, status.reads_breaker), (BreakerState::Open, BreakerState::Closed));
    let writes = site.writes();
    node.get("/5").await;
    node.written().await;
    assert_eq!((site.writes(), node.count_of_writes(TierWrite::Open)), (writes, 1));
    assert!(node.get("/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn an_envelope_that_was_written_without_a_log_is_only_a_source_of_validators() {
    let (site, node) = filled().await;
    site.remote.change(|_, bytes| {
        let (key, snapshot) = Envelope::parse(&bytes, 1 << 20).unwrap().into_parts();
        Envelope::new(key, snapshot).to_bytes().unwrap()
    });
    node.page("/").await;
    assert_eq!((node.origin.calls(), node.count(TierRead::Unproven)), (1, 1));
    assert!(node.origin.last_request().headers.contains_key("if-none-match"));
}
