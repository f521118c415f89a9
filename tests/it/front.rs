//! Each thread keeps copies of the entries that it serves most, and no response may show that.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use http::Method;
use tokio::time::Instant;
use tower::Layer;
use tower_readthrough::{
    CacheKey, Entry, MemoryStore, Rules, Store, StoreLayer,
    store::{Change, RequestHeaders},
};

use crate::support::{ScriptedOrigin, get, get_with, ok, request, secs, send, settle};

/// So many reads of a key that it is copied.
const OFTEN: usize = 50;

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(16 << 20)
}

fn layer(store: &MemoryStore) -> StoreLayer<MemoryStore> {
    StoreLayer::new(store.clone()).rules(Rules::new().default_ttl(secs(60)))
}

/// Entries with the numbers from 0 on as their bodies.
async fn numbered(count: usize) -> Vec<Arc<Entry>> {
    let store = store();
    let service = layer(&store)
        .key(|head: &http::request::Parts| Some(CacheKey::new(head.uri.path())))
        .layer(ScriptedOrigin::new(|_, head| ok(head.uri.path()[1..].to_owned())));
    let mut resources = Vec::new();
    for number in 0..count {
        let path = format!("/{number}");
        get(&service, &path).await;
        resources.push(store.get(path.as_bytes()).unwrap());
    }
    resources
}

fn put(store: &MemoryStore, key: &CacheKey, entry: &Entry) {
    let (response, request) = (Arc::clone(&entry.variants()[0]), RequestHeaders::default());
    assert!(store.apply(key, Change::Put { response, request, at: Instant::now() }).is_stored());
}

fn number(resource: &Entry) -> usize {
    std::str::from_utf8(resource.variants()[0].body()).unwrap().parse().unwrap()
}

#[tokio::test]
async fn once_an_update_has_returned_no_thread_gets_the_old_entry() {
    let (store, resources) = (store(), numbered(300).await);
    let (key, published) = (CacheKey::new("key"), AtomicUsize::new(0));
    let write = |number: usize| put(&store, &key, &resources[number]);
    write(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while published.load(Ordering::Acquire) < resources.len() - 1 {
                    let at_least = published.load(Ordering::Acquire);
                    let found = number(&store.get(&key).unwrap());
                    assert!(found >= at_least, "{found} after {at_least}");
                }
            });
        }
        for number in 1..resources.len() {
            // So many reads that copies are made.
            (0..2_000).for_each(|_| _ = store.get(&key));
            write(number);
            published.store(number, Ordering::Release);
        }
    });
}

#[tokio::test]
async fn a_removed_entry_is_gone_in_all_threads() {
    let (store, resources) = (store(), numbered(1).await);
    let (key, barrier) = (CacheKey::new("key"), Barrier::new(3));
    put(&store, &key, &resources[0]);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                (0..OFTEN).for_each(|_| assert!(store.get(&key).is_some()));
                barrier.wait();
                barrier.wait();
                assert!(store.get(&key).is_none());
            });
        }
        barrier.wait();
        store.apply(&key, Change::Purge { number: u64::MAX });
        barrier.wait();
    });
}

#[tokio::test]
async fn stores_do_not_see_each_others_copies() {
    let (one, other, resources) = (store(), store(), numbered(2).await);
    let key = CacheKey::new("key");
    for (store, resource) in [(&one, &resources[0]), (&other, &resources[1])] {
        put(store, &key, resource);
    }
    for store in [&one, &other, &one] {
        (0..OFTEN).for_each(|_| _ = store.get(&key));
    }
    assert_eq!((number(&one.get(&key).unwrap()), number(&other.get(&key).unwrap())), (0, 1));
}

#[tokio::test]
async fn an_entry_in_use_is_not_evicted() {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = layer(&store).layer(ScriptedOrigin::new(|_, _| ok("x".repeat(1_000))));
    for _ in 0..OFTEN {
        get(&service, "/hot").await;
    }
    for n in 0..5_000 {
        get(&service, &format!("/{n}")).await;
        assert!(get(&service, "/hot").await.is_hit(), "after {n} others");
    }
    assert!(store.stats().evictions > 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_copy_gives_the_same_response_as_its_original() {
    let store = store();
    let origin = ScriptedOrigin::new(|call, _| {
        ok("x".repeat(100)).header("etag", format!("\"{call}\"")).header("vary", "accept").max_age(60)
    });
    let service = layer(&store).layer(origin.clone());
    let first = get_with(&service, "/", &[("accept", "a")]).await;
    for n in 0..OFTEN as u64 {
        let reply = get_with(&service, "/", &[("accept", "a")]).await;
        assert!(reply.is_hit());
        assert_eq!((reply.age(), &reply.body), (Some(n), &first.body));
        assert_eq!(reply.header("etag"), Some("\"1\""));
        assert!(reply.headers.get_all("cache-status").iter().eq(["tower-readthrough;hit"]));
        tokio::time::advance(secs(1)).await;
    }
    let held = get_with(&service, "/", &[("accept", "a"), ("if-none-match", "\"1\"")]).await;
    assert_eq!(held.status, 304);
    assert!(!get_with(&service, "/", &[("accept", "b")]).await.is_hit(), "another variant");
    tokio::time::advance(secs(10)).await;
    assert!(!get_with(&service, "/", &[("accept", "a")]).await.is_hit(), "no longer fresh");
    for _ in 0..OFTEN {
        assert!(get_with(&service, "/", &[("accept", "a")]).await.is_hit());
    }
    send(&service, request("PUT", "/", &[])).await;
    assert!(!get_with(&service, "/", &[("accept", "a")]).await.is_hit(), "invalidated");
    assert_eq!(origin.last_request().method, Method::GET);
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_is_refreshed_once_for_the_copies_of_all_threads() {
    let store = store();
    let origin = ScriptedOrigin::new(|call, _| {
        let answer = ok("x").header("cache-control", "max-age=1, stale-while-revalidate=60");
        if call > 1 { answer.after(secs(5)) } else { answer }
    });
    let service = layer(&store).layer(origin.clone());
    for _ in 0..OFTEN {
        get(&service, "/").await;
    }
    tokio::time::advance(secs(2)).await;
    for _ in 0..OFTEN {
        assert!(get(&service, "/").await.cache_status.unwrap().stale_reason().is_some());
    }
    settle().await;
    assert_eq!(origin.calls(), 2);
    // A new thread has no copy yet, and makes one of the entry that is being refreshed.
    let resource = thread::spawn({
        let (store, key) = (store.clone(), CacheKey::from_parts(["", "http", "example.com", "/"]));
        move || (0..OFTEN).fold(None, |_, _| store.get(&key))
    });
    assert!(resource.join().unwrap().is_some());
    get(&service, "/").await;
    settle().await;
    assert_eq!(origin.calls(), 2);
}
