//! What is refused, and what a tier says that cannot do anything.

use super::*;
use tower_readthrough::{BuildError, Store, TierLayer, TierStanding};

fn tier(site: &Site) -> Tier {
    Tier::builder(site.remote.clone()).build().unwrap()
}

#[test]
fn a_store_that_keeps_no_texts_is_refused_with_what_to_write() {
    let site = Site::default();
    let plain = MemoryStore::with_capacity_bytes(1 << 20);
    let refused = ReadThroughLayer::builder(plain.clone()).second_tier(tier(&site)).build();
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("MemoryStoreBuilder::snapshots(true)"), "{text}");
    assert_eq!(TierLayer::new(plain, tier(&site)).unwrap_err().to_string(), text);
}

#[test]
fn what_would_do_nothing_is_refused() {
    let site = Site::default();
    let remote = || Tier::builder(site.remote.clone());
    for (built, setting) in [
        (remote().max_queued(0).build(), "max_queued"),
        (remote().max_queued_bytes(0).build(), "max_queued_bytes"),
    ] {
        assert!(matches!(built, Err(BuildError::ZeroLimit { setting: named, .. }) if named == setting));
    }
    let reporting = ReadThroughLayer::builder(store()).second_tier(tier(&site)).report_only().build();
    assert!(matches!(reporting, Err(BuildError::NoEffect { setting: "second_tier", .. })));
    // One tier for two stores would mix their purges.
    let shared = tier(&site);
    let first = store();
    assert!(ReadThroughLayer::builder(first.clone()).second_tier(shared.clone()).build().is_ok());
    assert!(ReadThroughLayer::builder(first).second_tier(shared.clone()).build().is_ok());
    assert!(ReadThroughLayer::builder(store()).second_tier(shared).build().is_err());
    for floors in [0, (1 << 20) + 1] {
        assert!(MemoryStore::builder(1 << 20).floors(floors).build().is_err(), "{floors}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_without_a_cluster_does_nothing_and_says_so() {
    let site = Site::default();
    let tier = tier(&site);
    let cache = ReadThroughLayer::builder(store()).second_tier(tier.clone()).build().unwrap();
    let origin = numbered();
    let service = cache.layer(origin.clone());
    assert_eq!(tier.status().standing, TierStanding::NotJoined);
    get(&service, "/").await;
    tier.flush(secs(1)).await;
    assert_eq!((site.reads(), site.writes()), (0, 0));
    assert_eq!(tier.status().reads.get(TierRead::NotJoined), 1);
    let _log = site.log.join(&cache.purge()).unwrap();
    assert_eq!(tier.status().standing, TierStanding::Joined);
    get(&service, "/other").await;
    tier.flush(secs(1)).await;
    assert_eq!((site.reads(), site.writes()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn hits_have_nothing_to_do_with_the_tier() {
    let site = Site::default();
    let node = site.node();
    node.fill("/").await;
    site.remote.hang(1_000);
    let calls = (site.reads(), site.writes());
    for _ in 0..1_000 {
        assert_eq!(node.get("/").await.cache(), "hit");
    }
    assert_eq!((site.reads(), site.writes()), calls);
}

#[test]
fn a_store_has_as_many_floors_as_it_is_told() {
    let store = MemoryStore::builder(1 << 20).floors(1).build().unwrap();
    assert_eq!(store.sequence().current(), 0);
}
