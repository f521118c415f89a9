//! What threads copy of the store goes with what is stored.

use std::sync::{Arc, Weak};

use http::request::Parts;
use tower::Layer;
use tower_readthrough::{CacheKey, Entry, LookupLayer, MemoryStore, Rules, Store, StoreLayer, store::Change};

use crate::support::{ScriptedOrigin, get, ok, secs};

fn key() -> impl Fn(&Parts) -> Option<CacheKey> + Clone {
    |head: &Parts| Some(CacheKey::new(head.uri.path()))
}

/// The original and what this thread made of it.
async fn copied(store: &MemoryStore, origin: &ScriptedOrigin) -> [Weak<Entry>; 2] {
    let layer = StoreLayer::new(store.clone()).rules(Rules::new().default_ttl(secs(60))).key(key());
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    let original = store.get(b"/").unwrap();
    for _ in 0..50 {
        get(&service, "/").await;
    }
    let copy = store.get(b"/").unwrap();
    assert!(!Arc::ptr_eq(&original, &copy), "it is copied");
    [original, copy].map(|resource| Arc::downgrade(&resource))
}

fn remove(store: &MemoryStore) {
    store.apply(&CacheKey::new("/"), Change::Purge { number: u64::MAX });
}

#[tokio::test]
async fn a_copy_goes_with_its_original() {
    let (store, origin) = (MemoryStore::with_capacity_bytes(1 << 20), ScriptedOrigin::always(|| ok("hello")));
    let [original, copy] = copied(&store, &origin).await;
    assert!(original.upgrade().is_some() && copy.upgrade().is_some());
    remove(&store);
    assert!(original.upgrade().is_none() && copy.upgrade().is_none(), "removed");

    let [original, copy] = copied(&store, &origin).await;
    LookupLayer::new(store.clone()).purge().everything();
    remove(&store);
    assert!(original.upgrade().is_none() && copy.upgrade().is_none(), "purged");

    let [original, copy] = copied(&store, &origin).await;
    drop(store);
    assert!(original.upgrade().is_none() && copy.upgrade().is_none(), "the store is gone");
}

#[tokio::test]
async fn a_copy_goes_with_its_thread() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let theirs = store.clone();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(copied(&theirs, &ScriptedOrigin::always(|| ok("hello"))))
    };
    let [original, copy] = std::thread::spawn(run).join().unwrap();
    assert!(original.upgrade().is_some(), "it is still stored");
    assert!(copy.upgrade().is_none());
    drop(store);
}
