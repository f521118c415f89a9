//! Variants of one key.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_has_at_most_32_variants_and_the_newest_stay() {
    let store = MemoryStore::with_capacity_bytes(16 << 20);
    let origin = ScriptedOrigin::always(|| ok("x").header("vary", "user-agent"));
    let one = |_: &http::request::Parts| Some(CacheKey::new("one"));
    let service = StoreLayer::new(store.clone()).rules(rules()).key(one).layer(origin.clone());
    let mut most = 0;
    for number in 0..1_000 {
        get_with(&service, "/", &[("user-agent", &format!("browser {number}"))]).await;
        most = most.max(store.stats().bytes);
        assert!(store.get(&CacheKey::new("one")).unwrap().variants().len() <= 32);
    }
    assert_eq!(store.get(&CacheKey::new("one")).unwrap().variants().len(), 32);
    assert_eq!((store.stats().entries, origin.calls()), (1, 1_000));
    for number in 968..1_000 {
        assert!(get_with(&service, "/", &[("user-agent", &format!("browser {number}"))]).await.is_hit());
    }
    assert!(!get_with(&service, "/", &[("user-agent", "browser 967")]).await.is_hit());
    assert!(most < 64_000, "{most}");
}

#[tokio::test(start_paused = true)]
async fn variants_together_fit_into_one_part_of_the_store() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let origin = ScriptedOrigin::always(|| ok("x".repeat(20_000)).header("vary", "accept"));
    let service = cached(&store, &origin);
    for number in 0..10 {
        get_with(&service, "/", &[("accept", &number.to_string())]).await;
        assert!(store.stats().bytes <= 1 << 17, "{:?}", store.stats());
        assert!(get_with(&service, "/", &[("accept", &number.to_string())]).await.is_hit());
    }
    assert!(get_with(&service, "/", &[("accept", "8")]).await.is_hit(), "the newest that fit");
    assert!(!get_with(&service, "/", &[("accept", "1")]).await.is_hit());
}
