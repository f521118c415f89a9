//! Entries that expire are removed.

use super::*;

#[tokio::test(start_paused = true)]
async fn expired_entries_are_removed_without_any_traffic() {
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let service = cached(&store, &sized());
    for number in 0..1_000 {
        get(&service, &format!("/100/{number}")).await;
    }
    assert_eq!((store.stats().entries, store.stats().expirations), (1_000, 0));
    tokio::time::sleep(ms(9_990)).await;
    assert_eq!(store.stats().entries, 1_000, "not a moment too early");
    tokio::time::sleep(ms(210)).await;
    let stats = store.stats();
    assert_eq!((stats.entries, stats.bytes, stats.expirations, stats.evictions), (0, 0, 1_000, 0));
}

#[tokio::test(start_paused = true)]
async fn entries_are_removed_in_the_order_of_their_expiry() {
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let origin = ScriptedOrigin::new(|_, head| ok("x").max_age(head.uri.path()[1..].parse().unwrap()));
    let service = cached(&store, &origin);
    for seconds in (1..=20).rev() {
        get(&service, &format!("/{seconds}")).await;
        settle().await; // The task goes to sleep, and has to be woken for the next one.
    }
    tokio::time::sleep(ms(250)).await;
    for left in (0..20).rev() {
        tokio::time::sleep(secs(1)).await;
        assert_eq!(store.stats().entries, left);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_kept_while_it_can_be_served_stale_or_revalidated() {
    let none = rules().revalidate_for(Duration::ZERO);
    for (rules, kept_for) in [
        (none.clone(), 10),
        (none.clone().stale_if_error_for(secs(20)), 30),
        (none.clone().stale_while_revalidate_for(secs(25)), 35),
        (none.clone().revalidate_for(secs(40)), 50),
        (none.revalidate_for(secs(5)).stale_if_error_for(secs(7)), 17),
    ] {
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let origin = ScriptedOrigin::always(|| ok("x").header("etag", "\"1\""));
        get(&StoreLayer::new(store.clone()).rules(rules).layer(origin), "/").await;
        tokio::time::sleep(secs(kept_for) - ms(1)).await;
        assert_eq!(store.stats().entries, 1, "{kept_for}");
        tokio::time::sleep(ms(201)).await;
        assert_eq!(store.stats().entries, 0, "{kept_for}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_expires_leaves_the_others() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let origin = ScriptedOrigin::new(|_, head| {
        ok("x").header("vary", "accept").max_age(head.headers["accept"].to_str().unwrap().parse().unwrap())
    });
    let service = cached(&store, &origin);
    get_with(&service, "/", &[("accept", "5")]).await;
    get_with(&service, "/", &[("accept", "50")]).await;
    let both = store.stats().bytes;
    tokio::time::sleep(ms(5_200)).await;
    let stats = store.stats();
    assert_eq!((stats.entries, stats.expirations), (1, 0));
    assert!(stats.bytes < both, "the room of the other one is given back");
    assert!(get_with(&service, "/", &[("accept", "50")]).await.is_hit());
    tokio::time::sleep(secs(50)).await;
    assert_eq!((store.stats().entries, store.stats().bytes, store.stats().expirations), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_background_task_ends_with_the_store() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    assert_eq!(tasks(), 0);
    let service = cached(&store, &sized());
    get(&service, "/1").await;
    get(&service, "/2").await;
    settle().await;
    assert_eq!(tasks(), 1);
    drop((store, service));
    settle().await;
    assert_eq!(tasks(), 0);
}

#[test]
fn a_store_that_moves_to_another_runtime_removes_expired_entries_there() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    for round in 1..4 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            get(&cached(&store, &sized()), "/1").await;
            assert!(store.stats().entries > 0);
            // Each runtime begins its time at the same point, so this goes further each time.
            tokio::time::sleep(secs(100 * round)).await;
            assert_eq!(store.stats().entries, 0);
            get(&cached(&store, &sized()), "/1/left").await;
        });
        assert_eq!(store.stats().entries, 1);
    }
}

#[test]
fn without_a_runtime_a_store_works_too() {
    let store = MemoryStore::with_capacity_bytes(100_000);
    let service = cached(&store, &sized());
    for number in 0..1_000 {
        get(&service, &format!("/100/{number}")).now_or_never().unwrap();
        assert!(get(&service, &format!("/100/{number}")).now_or_never().unwrap().is_hit());
        assert!(store.stats().bytes <= 100_000);
    }
}

#[test]
fn a_store_removes_expired_entries_for_callers_outside_its_runtime() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = StoreLayer::new(store.clone()).rules(rules().default_ttl(ms(1))).layer(sized());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(get(&service, "/1"));
    // By the wall clock, since no clock is paused here.
    let stores = (0..200_000).take_while(|_| store.stats().expirations == 0);
    stores.for_each(|number| _ = get(&service, &format!("/1/{number}")).now_or_never().unwrap());
    assert!(store.stats().expirations > 0);
}
