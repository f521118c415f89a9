//! Memory and bounds of purges.

use super::*;

#[tokio::test(start_paused = true)]
async fn purged_entries_are_removed_without_a_request() {
    let origin = tag_per_path();
    let (service, purge, store) = stack_of(&origin, fixed(3_600_000));
    fill_with(&service, 1_000).await;
    assert_eq!(store.stats().entries, 1_000);
    for i in 0..500 {
        purge.tag(&format!("t{i}"));
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(store.stats().entries, 500);
    assert_eq!(store.sequence().records(), (0, 0), "nothing can match them any more");
    fill_with(&service, 1_000).await;
    assert_eq!(origin.calls(), 1_500, "the others were left alone");
    purge.key_prefix([]);
    sleep(Duration::from_secs(3)).await;
    assert_eq!((store.stats().entries, store.sequence().records()), (0, (0, 0)));
    // A response that can still be served is kept.
    fill_with(&service, 10).await;
    purge.soft().everything();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(store.stats().entries, 10, "within the default window for errors");
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_key_or_url_removes_the_entry_at_once() {
    let (service, purge, store) = stack_of(&tag_per_path(), fixed(3_600_000));
    fill_with(&service, 2).await;
    purge.url("http://h/0").unwrap();
    assert_eq!(store.stats().entries, 1);
    purge.key(&key("http://h/1"));
    assert_eq!(store.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_takes_long_finds_the_purges_since_it_began() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        if n == 1 {
            sleep(Duration::from_secs(25)).await;
        }
        response(&[("surrogate-key", request.uri().path().trim_matches('/'))], n.to_string())
    });
    let (service, purge, store) = stack_of(&origin, fixed(3_600_000));
    let slow = service.clone();
    let slow = tokio::spawn(async move { seen(&slow, "http://h/slow").await.1 });
    sleep(ms(100)).await;
    fill_with(&service, 10).await;
    purge.tag("slow");
    purge.tag("0");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(store.stats().entries, 9, "swept");
    assert_eq!(store.sequence().records(), (2, 0), "the slow one may have any tag");
    assert_eq!(slow.await.unwrap(), "1");
    assert_ne!(seen(&service, "http://h/slow").await.1, "1", "it was not stored");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(store.sequence().records(), (0, 0));
    let calls = origin.calls();
    seen(&service, "http://h/slow").await;
    fill_with(&service, 10).await;
    assert_eq!(origin.calls(), calls + 1, "nothing else was lost");
}

/// A full index drops the oldest record; entries from before it that were not checked since are lost.
#[test]
fn a_full_index_of_purges_purges_more_and_never_less() {
    /// Too many to check them all within ten purges.
    const PAGES: usize = 200;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let store = MemoryStore::builder(64 << 20).max_tag_records(10).max_prefix_records(3).build().unwrap();
    let origin = tag_per_path();
    let layer = ReadThroughLayer::builder(store.clone()).rules(fixed(3_600_000)).build().unwrap();
    let (service, purge) = (layer.layer(origin.clone()), layer.purge());
    runtime().block_on(fill_with(&service, PAGES));
    // The runtime is gone, and the sweep with it.
    purge.tag("t7");
    for i in 1_000..1_009 {
        purge.tag(&format!("t{i}"));
    }
    assert_eq!(store.sequence().records(), (10, 0));
    runtime().block_on(async {
        call(&service, get_request("http://h/1")).await;
        assert_eq!(origin.calls(), PAGES, "nothing was forgotten so far");
        purge.tag("t2000");
        assert_eq!(store.sequence().records(), (10, 0));
        call(&service, get_request("http://h/1")).await;
        assert_eq!(origin.calls(), PAGES, "it was looked at meanwhile");
        call(&service, get_request("http://h/7")).await;
        assert_eq!(origin.calls(), PAGES + 1, "the record of t7 is gone, but not what it says");
        // Once half of the records are taken, each purge checks a part of the entries.
        for page in 2..PAGES {
            call(&service, get_request(&format!("http://h/{page}"))).await;
        }
        assert!(
            (PAGES + 2..2 * PAGES - 1).contains(&origin.calls()),
            "some were not looked at: {}",
            origin.calls()
        );
    });
    for i in 0..10 {
        purge.key_prefix([i]);
    }
    assert_eq!(store.sequence().records().1, 3);
    for _ in 0..100 {
        purge.tag("same");
        purge.key_prefix("same");
    }
    assert!(store.sequence().records().1 <= 3);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_purges_leaves_hits_right_and_memory_flat() {
    const TAGS: u64 = 500;
    let contents: Arc<Vec<AtomicU64>> = Arc::new((0..TAGS).map(|_| AtomicU64::new(0)).collect());
    let of_origin = Arc::clone(&contents);
    let origin = ScriptedOrigin::with_future(move |_, request: Request<Body>| {
        let page: u64 = request.uri().path().trim_matches('/').parse().unwrap();
        let content = of_origin[(page % TAGS) as usize].load(Ordering::SeqCst);
        async move {
            sleep(ms(page % 7)).await;
            response(&[("surrogate-key", &format!("t{}", page % TAGS))], content.to_string())
        }
    });
    let (service, purge, store) = stack_of(&origin, fixed(3_600_000));
    let mut random = 42_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut most_records, mut most_bytes, mut hits) = (0, 0, 0);
    for step in 0..60_000_u64 {
        // Most purges are of tags that no entry has.
        match next(20) {
            0 => {
                let tag = next(TAGS);
                contents[tag as usize].fetch_add(1, Ordering::SeqCst);
                purge.tag(&format!("t{tag}"));
            }
            _ => _ = purge.tag(&format!("nothing-{step}")),
        }
        let page = next(2_000);
        let at_least = contents[(page % TAGS) as usize].load(Ordering::SeqCst);
        let (how, body) = seen(&service, &format!("http://h/{page}")).await;
        assert!(body.parse::<u64>().unwrap() >= at_least, "{how}: {body} where {at_least} was there");
        hits += u64::from(how == "hit");
        sleep(ms(1)).await;
        if step > 10_000 {
            most_records = most_records.max(store.sequence().records().0);
            most_bytes = most_bytes.max(store.stats().bytes);
        }
    }
    assert!(most_records < 20_000, "{most_records}");
    assert!(most_bytes < 2_000 * 2_000, "{most_bytes}");
    assert!(hits > 10_000, "{hits} of 60,000");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(store.sequence().records(), (0, 0));
}

#[test]
fn a_store_too_small_for_purge_records_is_refused() {
    let builder = || MemoryStore::builder(1 << 20);
    for builder in [builder().max_tag_records(0), builder().max_prefix_records(0), builder().floors(0)] {
        assert!(matches!(builder.build(), Err(BuildError::ZeroLimit { .. })));
    }
}

/// Of one part all URLs are in it, and of many hardly two are in the same.
#[tokio::test(start_paused = true)]
async fn the_more_parts_there_are_the_less_does_a_purge_of_a_url_take_along() {
    for (floors, kept) in [(1, 0..=0), (1 << 20, 95..=100)] {
        let origin = tagged();
        let store = MemoryStore::builder(64 << 20).floors(floors).build().unwrap();
        let layer = ReadThroughLayer::builder(store).rules(fixed(60_000)).build().unwrap();
        let (service, purge) = (layer.layer(origin.clone()), layer.purge());
        let page = |n: usize| get_request(&format!("http://example.com/page-{n}"));
        for n in 0..100 {
            call(&service, page(n)).await;
        }
        for n in 0..100 {
            purge.url(&format!("http://example.com/other-{n}")).unwrap();
        }
        for n in 0..100 {
            call(&service, page(n)).await;
        }
        assert!(kept.contains(&(200 - origin.calls())), "{floors}: {} of 200", origin.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_does_not_reach_another_store() {
    let origin = tagged();
    let (one, purge, _) = stack_of(&origin, fixed(60_000));
    let (other, _, _) = stack_of(&origin, fixed(60_000));
    call(&one, get_request(URI)).await;
    call(&other, get_request(URI)).await;
    purge.everything();
    call(&other, get_request(URI)).await;
    assert_eq!(origin.calls(), 2);
    call(&one, get_request(URI)).await;
    assert_eq!(origin.calls(), 3);
}

fn _is_handy(purge: Purge) {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: T) {}
    check(purge);
}
