//! What is written to the tier, when, and within which bounds.

use super::*;
use tower_readthrough::{CacheKey, Rules, store::Envelope};

const MIB: u64 = 1 << 20;

#[tokio::test(start_paused = true)]
async fn a_client_does_not_wait_for_the_write() {
    let site = Site::default();
    let node = site.node();
    node.page("/0").await;
    node.written().await;
    let gate = site.remote.hold([RemoteCall::Write]);
    assert_eq!(node.get("/1").await.status, 200);
    assert_eq!(node.tier.status().queued, 1);
    drop(gate);
    node.written().await;
    assert_eq!(node.count_of_writes(TierWrite::Written), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_for_one_client_alone_is_never_written() {
    let site = Site::default();
    for (request, response) in [
        (&[][..], &[("cache-control", "private, max-age=60")][..]),
        (&[], &[("cache-control", "no-store")]),
        (&[], &[("cache-control", "max-age=60"), ("set-cookie", "id=1")]),
        (&[], &[("cache-control", "max-age=60"), ("vary", "*")]),
        (&[("authorization", "Basic x")], &[("cache-control", "max-age=60")]),
    ] {
        let fields = response.to_vec();
        let origin = ScriptedOrigin::always(move || {
            fields.iter().fold(ok("secret"), |answer, (name, value)| answer.header(name, value))
        });
        let node = site.node_of(&origin);
        get_with(&node.service, "/", request).await;
        node.written().await;
    }
    let rules = Rules::new().default_ttl(secs(60));
    let node = site.node_with(&ScriptedOrigin::always(|| ok("x")), |tier| tier, |cache| cache.rules(rules));
    get_with(&node.service, "/cookie", &[("cookie", "id=1")]).await;
    get_with(&node.service, "/token", &[("x-api-key", "1")]).await;
    node.written().await;
    assert_eq!((site.writes(), site.remote.keys()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_response_is_kept_as_long_as_it_is_of_use() {
    let site = Site::default();
    let origin = ScriptedOrigin::always(|| {
        ok("x").header("cache-control", "max-age=60, stale-if-error=100, stale-while-revalidate=30")
    });
    let rules = Rules::new().revalidate_for(secs(5));
    let node = site.node_with(&origin, |tier| tier, |cache| cache.rules(rules));
    node.fill("/").await;
    let [key] = <[_; 1]>::try_from(site.remote.keys()).unwrap();
    assert_eq!(site.remote.kept(&key).unwrap().1, secs(160));
}

#[tokio::test(start_paused = true)]
async fn keys_say_nothing_unless_they_are_asked_to() {
    let site = Site::default();
    site.node().fill("/secret?token=1").await;
    assert!(!site.remote.keys().iter().any(|key| key.windows(5).any(|part| part == b"token")));
    let node = site.node_with(&numbered(), |tier| tier.plain_keys(true), |cache| cache);
    node.fill("/page?id=1").await;
    assert!(site.remote.keys().iter().any(|key| key.windows(10).any(|part| part == b"/page?id=1")));
    // The whole key is with the response in any case.
    let other = site.remote.keys().into_iter().map(|key| site.remote.kept(&key).unwrap().0);
    let keys: Vec<CacheKey> =
        other.map(|bytes| Envelope::parse(&bytes, 1 << 20).unwrap().key().clone()).collect();
    assert_eq!(keys.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_came_from_the_tier_is_not_written_back() {
    let site = Site::default();
    site.node().fill("/").await;
    let writes = site.writes();
    let there = site.node();
    there.page("/").await;
    there.written().await;
    assert_eq!((site.writes(), there.tier.status().writes.total()), (writes, 0));
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_of_entries_the_newest_is_dropped() {
    let site = Site::default();
    let node = site.node_with(&numbered(), |tier| tier.max_queued(3), |cache| cache);
    let gate = site.remote.hold([RemoteCall::Write]);
    for page in ["/0", "/1", "/2", "/3", "/4"] {
        node.get(page).await;
    }
    let status = node.tier.status();
    assert_eq!((status.queued, status.writes.get(TierWrite::QueueFull)), (3, 2));
    drop(gate);
    node.written().await;
    assert_eq!((node.tier.status().queued_bytes, site.remote.keys().len()), (0, 3));
    let there = site.node();
    for page in ["/0", "/1", "/2"] {
        assert!(there.get(page).await.is_hit(), "{page} came first");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_of_bytes_the_newest_is_dropped() {
    let site = Site::default();
    let large = ScriptedOrigin::always(|| ok(vec![0; 1 << 20]).max_age(60));
    let node = site.node_with(&large, |tier| tier.max_queued_bytes(5 * MIB / 2), |cache| cache);
    site.remote.delay(ms(10));
    let pages = ["/0", "/1", "/2"];
    futures_util::future::join_all(pages.map(|page| node.get(page))).await;
    assert_eq!(node.count_of_writes(TierWrite::QueueFull), 1);
    let bytes = node.tier.status().queued_bytes;
    assert!((2 * MIB..5 * MIB / 2).contains(&bytes), "{bytes}");
    node.written().await;
    node.get("/3").await;
    node.written().await;
    assert_eq!(node.count_of_writes(TierWrite::Written), 3);
}

#[tokio::test(start_paused = true)]
async fn a_newer_response_takes_the_place_of_one_that_waits() {
    let site = Site::default();
    let node = site.node();
    // Four others are being written.
    let gate = site.remote.hold([RemoteCall::Write]);
    for page in ["/0", "/1", "/2", "/3", "/page"] {
        node.get(page).await;
        begin_writing().await;
    }
    node.cache.purge().everything();
    node.page("/page").await;
    assert_eq!(node.count_of_writes(TierWrite::Replaced), 1);
    drop(gate);
    node.written().await;
    assert_eq!(site.node().page("/page").await, node.page("/page").await);
}

#[tokio::test(start_paused = true)]
async fn a_newer_response_is_written_after_an_older_one_that_is_being_written() {
    let site = Site::default();
    let node = site.node();
    let gate = site.remote.hold([RemoteCall::Write]);
    node.page("/").await;
    begin_writing().await;
    assert_eq!(site.writes(), 1, "it is being written");
    _ = node.cache.purge().url("http://example.com/").unwrap();
    let newest = node.page("/").await;
    begin_writing().await;
    assert_eq!((node.tier.status().queued, site.writes()), (2, 1), "it waits");
    drop(gate);
    node.written().await;
    let there = site.node();
    assert_eq!((there.page("/").await, there.origin.calls()), (newest, 0));
}

#[tokio::test(start_paused = true)]
async fn a_flush_writes_what_waits_and_tells_what_is_left() {
    let site = Site::default();
    let node = site.node();
    site.remote.delay(ms(100));
    let pages: Vec<_> = (0..10).map(|page| format!("/{page}")).collect();
    futures_util::future::join_all(pages.iter().map(|page| node.get(page))).await;
    // Four at a time.
    let first = node.tier.flush(ms(150)).await;
    assert_eq!((first.written, first.not_written, first.left), (4, 0, 6));
    let second = node.tier.flush(secs(9)).await;
    assert_eq!((second.written, second.left), (6, 0));
    site.remote.fail(2);
    node.cache.purge().everything();
    site.remote.heal();
    node.page("/0").await;
    site.remote.fail(1);
    let third = node.tier.flush(secs(9)).await;
    assert_eq!((third.written, third.not_written, third.left), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_does_not_send_any_more_is_removed_from_the_tier() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("0").header("vary", "accept-language").max_age(60),
        _ => ok("personal").header("cache-control", "no-store"),
    });
    let here =
        site.node_with(&origin, |tier| tier, |cache| cache.lookup(|lookup| lookup.request_directives(true)));
    here.fill("/").await;
    get_with(&here.service, "/", &[("cache-control", "no-cache")]).await;
    here.written().await;
    assert_eq!(here.count_of_writes(TierWrite::Removed), 1);
    let there = site.node();
    assert_eq!((there.page("/").await, there.origin.calls()), ("0".to_owned(), 1));
    assert_eq!(there.count(TierRead::Miss), 1);
}

#[tokio::test(start_paused = true)]
async fn what_expires_before_its_turn_is_not_written() {
    let site = Site::default();
    let origin = ScriptedOrigin::always(|| ok("x").header("cache-control", "max-age=1"));
    let rules = || Rules::new().revalidate_for(secs(0)).stale_if_error_for(secs(0));
    let node = site.node_with(&origin, |tier| tier, |cache| cache.rules(rules()));
    let gate = site.remote.hold([RemoteCall::Write]);
    for page in ["/0", "/1", "/2", "/3", "/4"] {
        node.get(page).await;
        begin_writing().await;
    }
    tokio::time::advance(secs(2)).await;
    drop(gate);
    node.written().await;
    // Four were being written.
    assert_eq!((node.count_of_writes(TierWrite::Written), node.count_of_writes(TierWrite::Expired)), (4, 1));
}

/// A process that is killed in the middle of a write leaves nothing that is taken for a whole.
#[test]
fn a_runtime_that_ends_while_a_response_is_written_leaves_the_rest_to_be_counted() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (site, first) = (Site::default(), runtime());
    let (node, gate) = first.block_on(async {
        let node = site.node();
        node.page("/0").await;
        node.written().await;
        let gate = site.remote.hold([RemoteCall::Write]);
        node.page("/1").await;
        begin_writing().await;
        (node, gate)
    });
    drop(first);
    drop(gate);
    assert_eq!(site.remote.keys().len(), 1);
    let second = runtime();
    second.block_on(async {
        let report = node.tier.flush(secs(9)).await;
        assert_eq!(report.left, 0, "the places of the writers are free again");
    });
    assert_eq!(node.count_of_writes(TierWrite::Aborted), 1);
}

/// A node that has not seen the response knows its variants by what the tier says.
#[tokio::test(start_paused = true)]
async fn variants_are_removed_by_a_node_that_did_not_write_them() {
    let site = Site::default();
    let vary = ScriptedOrigin::always(|| ok("old").header("vary", "accept-language").max_age(60));
    site.node_of(&vary).fill("/").await;
    let personal = ScriptedOrigin::always(|| ok("personal").header("cache-control", "no-store"));
    let follow =
        |cache: ReadThroughBuilder<MemoryStore>| cache.lookup(|lookup| lookup.request_directives(true));
    let other = site.node_with(&personal, |tier| tier, follow);
    get_with(&other.service, "/", &[("cache-control", "no-cache")]).await;
    other.written().await;
    let third = site.node();
    assert_eq!((third.page("/").await, third.count(TierRead::Miss)), ("0".to_owned(), 1));
}

/// What waits, or is being written, comes before the removal that follows it.
#[tokio::test(start_paused = true)]
async fn a_removal_comes_after_what_was_to_be_written_before() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("old").header("vary", "accept-language").max_age(60),
        _ => ok("personal").header("cache-control", "no-store"),
    });
    let follow =
        |cache: ReadThroughBuilder<MemoryStore>| cache.lookup(|lookup| lookup.request_directives(true));
    let here = site.node_with(&origin, |tier| tier, follow);
    let gate = site.remote.hold([RemoteCall::Write]);
    here.page("/").await;
    begin_writing().await;
    get_with(&here.service, "/", &[("cache-control", "no-cache")]).await;
    begin_writing().await;
    drop(gate);
    here.written().await;
    let third = site.node();
    assert_eq!((third.page("/").await, third.count(TierRead::Miss)), ("0".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_that_cannot_be_there() {
    let site = Site::default();
    let node = site.node_of(&ScriptedOrigin::always(|| ok("personal").header("cache-control", "no-store")));
    for page in 0..20 {
        for _ in 0..2 {
            node.page(&format!("/{page}")).await;
        }
    }
    node.written().await;
    assert_eq!(site.remote.calls(RemoteCall::Forget), 0);
}

/// It keeps the fields of its request.
#[tokio::test(start_paused = true)]
async fn a_removal_takes_room_in_the_queue() {
    let site = Site::default();
    let origin = ScriptedOrigin::always(|| ok("personal").header("cache-control", "no-store"));
    let follow =
        |cache: ReadThroughBuilder<MemoryStore>| cache.lookup(|lookup| lookup.request_directives(true));
    let node = site.node_with(&origin, |tier| tier.max_queued_bytes(1 << 10), follow);
    let large = "x".repeat(2_000);
    get_with(&node.service, "/", &[("cache-control", "no-cache"), ("x-large", &large)]).await;
    node.written().await;
    assert_eq!((node.count_of_writes(TierWrite::QueueFull), site.remote.calls(RemoteCall::Forget)), (1, 0));
}

/// As one that fails: what waits behind it is written.
#[tokio::test(start_paused = true)]
async fn a_write_that_panics_ends_no_other() {
    let site = Site::default();
    let node = site.node();
    let gate = site.remote.hold([RemoteCall::Write]);
    for page in 0..10 {
        node.page(&format!("/{page}")).await;
        begin_writing().await;
    }
    site.remote.panic(4);
    drop(gate);
    begin_writing().await;
    // Not by `flush`, which begins writers anew.
    let count = |kind| node.count_of_writes(kind);
    assert_eq!((count(TierWrite::Written), count(TierWrite::Failed), node.tier.status().queued), (6, 4, 0));
}

/// What is dropped for a newer one takes no room.
#[tokio::test(start_paused = true)]
async fn what_is_replaced_counts_no_more() {
    let site = Site::default();
    let large = ScriptedOrigin::always(|| ok(vec![0; 1 << 20]).max_age(60));
    let node = site.node_with(&large, |tier| tier.max_queued_bytes(13 * MIB / 2), |cache| cache);
    let gate = site.remote.hold([RemoteCall::Write]);
    for page in ["/0", "/1", "/2", "/3"] {
        node.get(page).await;
        begin_writing().await;
    }
    for _ in 0..10 {
        node.cache.purge().everything();
        node.get("/page").await;
    }
    let counts = [TierWrite::Replaced, TierWrite::QueueFull].map(|outcome| node.count_of_writes(outcome));
    assert_eq!((counts, node.tier.status().queued), ([9, 0], 5));
    drop(gate);
    node.written().await;
    assert_eq!(node.tier.status().queued_bytes, 0);
}

/// A runtime may end while it writes: another one writes what is stored later.
#[test]
fn the_end_of_a_runtime_leaves_room_for_other_writers() {
    let paused = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let (site, node) = {
        let _in = paused();
        let _guard = _in.enter();
        let site = Site::default();
        let node = site.node();
        (site, node)
    };
    let gate = site.remote.hold([RemoteCall::Write]);
    for number in 0..8 {
        paused().block_on(async {
            node.page(&format!("/{number}")).await;
            begin_writing().await;
        });
    }
    drop(gate);
    paused().block_on(async {
        node.page("/last").await;
        begin_writing().await;
        assert_eq!(node.count_of_writes(TierWrite::Aborted), 8);
        assert_eq!(node.count_of_writes(TierWrite::Written), 1);
    });
}
