//! What is told of an outage: that it begins, and that it is over.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::time::{Instant, advance};
use tower::Layer;
use tower_readthrough::{
    MemoryStore, OriginChange, OriginHealth, OriginHealthBuilder, OriginLimitLayer, OriginState, ReadThrough,
    ReadThroughLayer, Rules,
};

use crate::support::{ScriptedOrigin, error, get_request, ms, ok, secs, small_store, try_send};

fn cached(health: &OriginHealth, origin: &ScriptedOrigin) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new())
        .outage(health.clone())
        .origin_limit(OriginLimitLayer::new(64))
        .build()
        .unwrap();
    layer.layer(origin.clone())
}

/// A health, and what it has told.
fn told(builder: OriginHealthBuilder) -> (OriginHealth, Arc<Mutex<Vec<OriginChange>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let changes = Arc::clone(&told);
    let builder = builder.seed(1).on_change(move |change| changes.lock().unwrap().push(change.clone()));
    (builder.build().unwrap(), told)
}

/// Ten requests a second for what is not stored.
async fn requests(service: &ReadThrough<ScriptedOrigin, MemoryStore>, host: &str, seconds: usize) {
    for key in 0..10 * seconds {
        _ = try_send(service, get_request(&format!("http://{host}/{key}"))).await;
        advance(ms(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_when_it_begins_and_once_when_it_is_over_however_the_origin_flaps() {
    let began = Instant::now();
    // It fails for five of eight seconds, until it works.
    let is_good = move || began.elapsed() > secs(60) || began.elapsed().as_secs() % 8 >= 5;
    let origin = ScriptedOrigin::unrecorded(move |_, _| if is_good() { ok("x") } else { error() });
    let (health, told) = told(OriginHealth::builder());
    let service = cached(&health, &origin);
    requests(&service, "a", 3).await;
    {
        let told = told.lock().unwrap();
        let [change] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&*change.origin, change.state), ("default", OriginState::Down));
        assert_eq!((change.lasted, change.relapses), (secs(0), 0));
    }
    requests(&service, "a", 87).await;
    assert_eq!(health.state(), OriginState::Up);
    let told = told.lock().unwrap();
    let [_, change] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&*change.origin, change.state), ("default", OriginState::Up));
    assert!((secs(55)..secs(75)).contains(&change.lasted), "{:?}", change.lasted);
    assert!((4..=8).contains(&change.relapses), "{}", change.relapses);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_always_up_or_has_no_one_to_tell_is_silent() {
    let (health, told) = told(OriginHealth::builder());
    requests(&cached(&health, &ScriptedOrigin::unrecorded(|_, _| ok("x"))), "a", 20).await;
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_origin_is_told_of_by_its_name() {
    let by_host = OriginHealth::builder().origin(|head| head.uri.host().unwrap_or_default().into());
    let (health, told) = told(by_host);
    let origin = ScriptedOrigin::unrecorded(|_, head| match head.uri.host() {
        Some("bad") => error(),
        _ => ok("x"),
    });
    let service = cached(&health, &origin);
    requests(&service, "good", 5).await;
    requests(&service, "bad", 5).await;
    let told: Vec<_> =
        told.lock().unwrap().iter().map(|change| (change.origin.to_string(), change.state)).collect();
    assert_eq!(told, [("bad".to_owned(), OriginState::Down)]);
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_ask_for_the_state_and_a_panic_of_one_changes_nothing() {
    let calls = Arc::new(AtomicUsize::new(0));
    let health: Arc<Mutex<Option<OriginHealth>>> = Arc::default();
    let (counted, asked) = (Arc::clone(&calls), Arc::clone(&health));
    let built = OriginHealth::builder().on_change(move |change| {
        counted.fetch_add(1, SeqCst);
        let health = asked.lock().unwrap().clone();
        assert_eq!(health.map(|health| health.state()), Some(change.state));
        panic!("of the application");
    });
    let built = built.build().unwrap();
    *health.lock().unwrap() = Some(built.clone());
    requests(&cached(&built, &ScriptedOrigin::unrecorded(|_, _| error())), "a", 5).await;
    assert_eq!((calls.load(SeqCst), built.state()), (1, OriginState::Down));
}
