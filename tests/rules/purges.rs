//! What a purge understands and reaches.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use tower::Layer;
use tower_readthrough::{MemoryStore, Purge, ReadThrough, ReadThroughService, Store};

use crate::support::open::{Origin, call, fixed, get, response, store};

type Site = ReadThroughService<Origin, MemoryStore>;

/// Each page has a tag of its own.
fn tagged() -> (Origin, Site, Purge, MemoryStore) {
    let origin = Origin::new(|n, request: Request<Body>| async move {
        let tag = format!("page-{}", request.uri().path().trim_matches('/'));
        response(&[("surrogate-key", &tag)], n.to_string())
    });
    let store = store();
    let layer = ReadThrough::new(store.clone()).rules(fixed(3_600_000)).build().unwrap();
    (origin.clone(), layer.layer(origin), layer.purge(), store)
}

const PAGES: usize = 200;

async fn ask_for_all(site: &Site) {
    for page in 0..PAGES {
        call(site, get(&format!("http://h/{page}"))).await;
    }
}

/// A nightly reindexing purges far more tags than there may be records of, most of what is not stored.
#[tokio::test(start_paused = true)]
async fn a_storm_of_tag_purges_takes_what_it_names_and_nothing_else() {
    for yields_after in [usize::MAX, 1_000, 100] {
        let (origin, site, purge, store) = tagged();
        ask_for_all(&site).await;
        purge.tag("page-7");
        for tag in 0..70_000 {
            purge.tag(&format!("other-{tag}"));
            if tag % yields_after == yields_after - 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(store.sequence().records().0 <= 1 << 16);
        }
        let calls = origin.calls();
        ask_for_all(&site).await;
        assert_eq!(origin.calls(), calls + 1, "page 7 alone");
    }
}

/// However many records are dropped, no fetch brings back what was purged since it began.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_a_storm_overtakes_is_not_stored() {
    let origin = Origin::new(|n, _| async move {
        tokio::time::sleep(Duration::from_millis(if n == 1 { 500 } else { 0 })).await;
        response(&[("surrogate-key", "slow")], n.to_string())
    });
    let layer = ReadThrough::new(store()).rules(fixed(3_600_000)).build().unwrap();
    let (site, purge) = (layer.layer(origin.clone()), layer.purge());
    let under_way = tokio::spawn({
        let site = site.clone();
        async move { call(&site, get("http://h/slow")).await.1 }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    purge.tag("slow");
    for tag in 0..140_000 {
        purge.tag(&format!("other-{tag}"));
        if tag % 1_000 == 999 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(under_way.await.unwrap(), "1");
    assert_eq!(call(&site, get("http://h/slow")).await.1, "2");
}

/// Prefixes of keys have fewer records.
#[tokio::test(start_paused = true)]
async fn a_storm_of_prefix_purges_spares_what_it_does_not_name() {
    let (origin, site, purge, store) = tagged();
    ask_for_all(&site).await;
    for prefix in 0..3_000_u32 {
        purge.key_prefix([&[0xff; 4], &prefix.to_be_bytes()[..]].concat());
        assert!(store.sequence().records().1 <= 1 << 10);
    }
    let calls = origin.calls();
    ask_for_all(&site).await;
    assert_eq!(origin.calls(), calls);
}
