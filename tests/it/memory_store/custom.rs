//! The contract of `Store`, for the store in memory and for other stores.

use super::*;

#[derive(Clone, Default)]
struct Simple {
    resources: Arc<Mutex<HashMap<CacheKey, Arc<Entry>>>>,
    sequence: Arc<Sequence>,
    refused: Arc<Mutex<u32>>,
}

impl Store for Simple {
    fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.resources.lock().unwrap().get(key).cloned()
    }

    fn apply(&self, key: &CacheKey, change: Change) -> Applied {
        let mut resources = self.resources.lock().unwrap();
        let (resource, applied) = Entry::apply(resources.get(key).map(|resource| &**resource), change);
        match resource {
            Some(resource) => _ = resources.insert(key.clone(), Arc::new(resource)),
            None => _ = resources.remove(key),
        }
        applied
    }

    fn sequence(&self) -> &Arc<Sequence> {
        &self.sequence
    }

    fn max_response_bytes(&self) -> usize {
        10_000
    }

    fn not_stored(&self, _: &CacheKey, reason: Applied) {
        *self.refused.lock().unwrap() += u32::from(reason == Applied::NotStored(NotStored::TooLarge));
    }
}

/// The contract of every store.
async fn keeps_the_contract<St: Store>(store: St) {
    let origin = ScriptedOrigin::new(|call, head| match head.uri.path() {
        "/personal" => ok("mine").header("cache-control", "private"),
        "/varied" => ok(head.headers["accept"].as_bytes().to_vec()).header("vary", "accept"),
        "/slow" if call == 1 => ok("old").after(secs(3)),
        "/slow" => ok("new"),
        "/confirmed" if head.headers.contains_key("if-none-match") => status(304),
        "/confirmed" => ok("x").header("etag", "\"1\""),
        _ => ok("x"),
    });
    let service = cached(&store, &origin);
    let slow = tokio::spawn({
        let service = service.clone();
        async move { get(&service, "/slow").await.body }
    });
    settle().await;
    assert_eq!(get(&service, "/slow").await.body, "new");
    assert_eq!(slow.await.unwrap(), "old");
    assert_eq!(get(&service, "/slow").await.body, "new", "a late fetch overwrites nothing");
    assert_eq!(origin.calls(), 2);

    get(&service, "/").await;
    tokio::time::advance(ms(9_999)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!get(&service, "/").await.is_hit());
    assert_eq!(get(&service, "/personal").await.cache(), "fwd=uri-miss; detail=private");
    assert_eq!(get(&service, "/personal").await.cache(), "fwd=bypass; detail=private");
    for is_hit in [false, true] {
        for accept in ["a", "b"] {
            let reply = get_with(&service, "/varied", &[("accept", accept)]).await;
            assert_eq!((&reply.body[..], reply.is_hit()), (accept.as_bytes(), is_hit));
        }
    }
    get(&service, "/confirmed").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/confirmed").await.body, "x");
    assert!(origin.last_request().headers.contains_key("if-none-match"));
    assert!(get(&service, "/confirmed").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_the_contract() {
    keeps_the_contract(MemoryStore::with_capacity_bytes(1 << 20)).await;
}

#[tokio::test(start_paused = true)]
async fn a_custom_store_works_with_all_layers() {
    let store = Simple::default();
    keeps_the_contract(store.clone()).await;
    let large = ScriptedOrigin::always(|| ok("x".repeat(10_001)));
    assert_eq!(get(&cached(&store, &large), "/large").await.body.len(), 10_001);
    assert_eq!(*store.refused.lock().unwrap(), 1);

    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("good") } else { error() });
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules().stale_if_error_for(secs(60))))
        .service(origin);
    get(&service, "/good").await;
    tokio::time::advance(secs(30)).await;
    assert_eq!(get(&service, "/good").await.body, "good");
}

/// A store that drops everything at once, which the contract allows.
#[derive(Clone, Default)]
struct Forgetful(Arc<Sequence>);

impl Store for Forgetful {
    fn get(&self, _: &[u8]) -> Option<Arc<Entry>> {
        None
    }

    fn apply(&self, _: &CacheKey, _: Change) -> Applied {
        Applied::Unchanged
    }

    fn sequence(&self) -> &Arc<Sequence> {
        &self.0
    }

    fn max_response_bytes(&self) -> usize {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_nothing_is_a_miss_and_never_an_error() {
    async fn check<S, B>(service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Failure> + Clone,
        B: http_body::Body<Data = bytes::Bytes>,
    {
        for _ in 0..3 {
            assert_eq!(get(&service, "/").await.status, StatusCode::OK);
            assert_eq!(send(&service, request("HEAD", "/", &[])).await.status, StatusCode::OK);
            assert!(try_send(&service, request("GET", "/error", &[])).await.is_err());
        }
    }
    let origin =
        ScriptedOrigin::new(|_, head| if head.uri.path() == "/error" { error() } else { ok("x").max_age(9) });
    check(cached(&Forgetful::default(), &origin)).await;
    assert_eq!(origin.calls(), 9);
}
