//! A remote that is slow, late, wrong or gone is a miss, and never a failed response.

use super::*;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tower_readthrough::{
    BreakerState, MemoryStore,
    remote::{Remote, RemoteError, RemoteRead},
    store::Envelope,
};

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

/// Of a response with the fields that select it first the fields are written: without them it would not be found.
#[tokio::test(start_paused = true)]
async fn what_others_cannot_find_is_not_written() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| tagged(call).header("vary", "accept-language").max_age(60));
    let node = site.node_of(&origin);
    let held = site.remote.hold([RemoteCall::Write]);
    node.get("/").await;
    site.remote.fail(1);
    drop(held);
    node.written().await;
    assert_eq!((site.writes(), node.count_of_writes(TierWrite::Failed)), (1, 1));
    assert_eq!(node.count_of_writes(TierWrite::Written), 0);
}

/// Answers with one value too few or too many.
#[derive(Debug)]
struct Miscounting(ScriptedRemote, AtomicBool);

impl Remote for Miscounting {
    fn read<'a>(&'a self, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<RemoteRead, RemoteError>> {
        Box::pin(async move {
            let mut read = self.0.read(keys).await?;
            match self.1.load(Ordering::Relaxed) {
                true => read.values.push(None),
                false => _ = read.values.remove(0),
            }
            Ok(read)
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), RemoteError>> {
        self.0.write(key, value, lifetime)
    }

    fn forget<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), RemoteError>> {
        self.0.forget(key)
    }

    fn lease<'a>(
        &'a self,
        key: &'a [u8],
        token: u64,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<bool, RemoteError>> {
        self.0.lease(key, token, lifetime)
    }

    fn release<'a>(&'a self, key: &'a [u8], token: u64) -> BoxFuture<'a, Result<(), RemoteError>> {
        self.0.release(key, token)
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_answers_something_else_than_was_asked_has_failed() {
    for answers_more in [false, true] {
        let (site, _) = filled().await;
        let remote = Miscounting(site.remote.clone(), AtomicBool::new(answers_more));
        let tier = Tier::builder(remote).build().unwrap();
        let cache = ReadThroughLayer::builder(store()).second_tier(tier.clone()).build().unwrap();
        let _log = site.log.join(&cache.purge()).unwrap();
        let reply = get(&cache.layer(numbered()), "/").await;
        assert_eq!(
            (reply.cache(), tier.status().reads.get(TierRead::Failed)),
            ("fwd=uri-miss".to_owned(), 1)
        );
    }
}

/// The whole is served, whatever else is broken.
#[tokio::test(start_paused = true)]
async fn what_is_whole_is_served_beside_what_is_broken() {
    for broken in [0, 1] {
        let site = Site::default();
        let origin = ScriptedOrigin::new(|call, _| match call {
            1 => ok("plain").max_age(60),
            _ => ok("chosen").header("vary", "accept-language").max_age(60),
        });
        let node = site.node_with(
            &origin,
            |tier| tier,
            |cache| cache.lookup(|lookup| lookup.request_directives(true)),
        );
        node.fill("/").await;
        let [plain] = <[_; 1]>::try_from(site.remote.keys()).unwrap();
        get_with(&node.service, "/", &[("cache-control", "no-cache"), ("accept-language", "de")]).await;
        node.written().await;
        let index = tier_index_key(&site);
        // One of the two, or the other one.
        site.remote.change(|key, bytes| match (key == plain, key == index) {
            (_, true) => bytes,
            (is_plain, _) if is_plain == (broken == 0) => bytes.slice(1..),
            _ => bytes,
        });
        let reply = get_with(&site.node().service, "/", &[("accept-language", "de")]).await;
        assert_eq!(reply.body, if broken == 0 { "chosen" } else { "plain" });
    }
}

/// The one with the names of selecting fields.
fn tier_index_key(site: &Site) -> Vec<u8> {
    let is_index = |key: &Vec<u8>| site.remote.kept(key).unwrap().0.starts_with(b"TRTI");
    site.remote.keys().into_iter().find(is_index).unwrap()
}

/// An index says where responses of any lifetime are.
#[tokio::test(start_paused = true)]
async fn an_index_outlives_what_it_was_written_with() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| tagged(call).header("vary", "accept-language").max_age(60));
    site.node_of(&origin).fill("/").await;
    let (_, left) = site.remote.kept(&tier_index_key(&site)).unwrap();
    assert_eq!(left, secs(24 * 3600));
}

/// No node writes that, and a file of one that is doubtful may be brought there.
#[tokio::test(start_paused = true)]
async fn what_was_doubtful_where_it_was_written_is_so_here() {
    let (site, node) = filled().await;
    site.remote.change(|_, bytes| {
        let envelope = Envelope::parse(&bytes, 1 << 20).unwrap();
        let (as_of, (key, mut snapshot)) = (envelope.as_of(), envelope.into_parts());
        snapshot.is_unproven = true;
        Envelope::new(key, snapshot).with_as_of(as_of).to_bytes().unwrap()
    });
    let reply = node.get("/").await;
    assert_eq!((reply.is_hit(), node.count(TierRead::Unproven)), (false, 1));
}
