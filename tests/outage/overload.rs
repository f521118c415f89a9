//! More requests than the origin takes: which requests go first, and which are dropped.

use std::time::Duration;

use crate::{
    load::{GET, Load, POST},
    origin::{Model, Way},
    row, run,
    world::Setup,
};

/// A quarter of the requests is of the best class, a quarter of the next, and half of the last one.
const CLASSES: &[u8] = &[1, 2, 3, 3];

/// So many times what 16 permits of 50 ms each bear.
async fn by_class(over: f64, until: f64) -> [f64; 3] {
    let model = Model { workers: 16, ..Model::default() };
    let setup =
        Setup { model, permits: Some(16), is_stored: false, fetch_deadline: None, ..Setup::default() };
    let mut world = setup.build(1, |_, _| Way::Work).await;
    let patience = Some(Duration::from_secs(2));
    world.send(&Load { patience, classes: CLASSES, ..Load::new(1, 0.0, 320.0 * over) }, until).await;
    let got = world.end(5.0).await;
    [1, 2, 3].map(|class| got.served(class))
}

#[test]
fn in_an_overload_better_classes_are_served() {
    let [best, middle, last] = run(by_class(2.0, 10.0));
    assert!(best >= 99.5, "{best}");
    assert!(middle >= 85.0, "{middle}");
    assert!(last <= 12.0, "{last}");
}

#[test]
#[ignore = "of full size"]
fn classes_of_full_size() {
    for over in [2.0, 5.0] {
        let [best, middle, last] = run(by_class(over, 60.0));
        let figures = format!("served {best:.1} / {middle:.1} / {last:.1} %");
        row(&format!("three classes (25, 25, 50 %), {over} × what 16 permits bear"), &figures);
    }
}

/// Returns the shares of GETs and POSTs that were served.
async fn flash_sale(permits: usize, window: f64, until: f64) -> (f64, f64) {
    let model = Model { workers: permits, ..Model::default() };
    let setup = Setup {
        model,
        permits: Some(permits),
        ttl: 0.2,
        revalidate_for: window,
        is_stored: false,
        falls_back_for: 0.0,
        fetch_deadline: None,
        ..Setup::default()
    };
    let mut world = setup.build(20, |_, _| Way::Work).await;
    let patience = Some(Duration::from_secs(2));
    let load = Load { posts: 2_000.0, patience, ..Load::even(20, 10_000.0) };
    world.send(&load, until).await;
    let got = world.end(5.0).await;
    (got.served(GET), got.served(POST))
}

#[test]
fn a_flash_sale_serves_pages_beside_orders() {
    let (gets, posts) = run(flash_sale(20, 0.0, 1.5));
    assert!(gets >= 85.0, "{gets}");
    assert!((12.0..=32.0).contains(&posts), "{posts}");
    let (gets, _) = run(flash_sale(20, 10.0, 1.0));
    assert!(gets >= 98.0, "{gets}");
}

#[test]
#[ignore = "of full size"]
fn a_flash_sale_of_full_size() {
    for (permits, window) in [(20, 0.0), (20, 10.0), (64, 0.0), (64, 10.0)] {
        let (gets, posts) = run(flash_sale(permits, window, 15.0));
        let name = format!("flash sale, {permits} permits, stale window {window} s");
        row(&name, &format!("GETs {gets:.1} %, POSTs {posts:.1} %"));
    }
}
