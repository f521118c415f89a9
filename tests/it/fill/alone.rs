//! `FillLayer` without the other layers.

use super::*;

#[tokio::test(start_paused = true)]
async fn fill_alone_looks_in_the_store_before_it_fetches() {
    let origin = ScriptedOrigin::always(|| ok("x"));
    let store = small_store();
    let fill = KeyLayer::default().layer(FillLayer::new(store.clone()).rules(ttl()).layer(origin.clone()));
    get(&fill, "/").await;
    let reply = get(&fill, "/").await;
    assert_eq!((reply.cache().as_str(), origin.calls()), ("hit", 1));
    // The same store, read by another layer over another service.
    let other = LookupLayer::new(store).layer(ScriptedOrigin::always(error));
    assert_eq!(get(&other, "/").await.body, "x");
    assert_eq!(send(&fill, request("HEAD", "/", &[])).await.header("content-length"), Some("1"));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_response_stored_while_a_request_waited_is_served_to_it() {
    let origin = ScriptedOrigin::always(|| ok("").max_age(60).after(ms(10)));
    let store = small_store();
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .concurrency_limit(1)
        .layer(FillLayer::new(store))
        .service(origin.clone());
    let ask = || tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    let first = ask();
    settle().await;
    let second = ask();
    for answer in [first, second] {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn fill_passes_a_request_without_a_key_through() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let store = small_store();
    let fill = FillLayer::new(store.clone()).layer(origin.clone());
    for call in 1..3 {
        let reply = get(&fill, "/").await;
        assert_eq!((reply.cache().as_str(), origin.calls()), ("not asked", call));
    }
    assert_eq!((store.stats().entries, store.sequence().current()), (0, 0));
}
