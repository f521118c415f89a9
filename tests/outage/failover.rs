//! Two origins in an order.

use std::time::Duration;

use tower::Layer;
use tower_readthrough::{Failover, MemoryStore, OriginHealth, OriginLimitLayer, ReadThroughLayer};

use crate::{
    load::{Clients, Got, Load, percent},
    origin::{Model, Origin, Way},
    row, run,
};

type Mode = fn(f64, i64) -> Way;

const A: Model =
    Model { workers: 20, cost: 0.05, cold: 1.0, dies_at: usize::MAX, seed: 11, timeout: Some(5.0) };
const WELL: Mode = |_, _| Way::Work;

struct Two {
    got: Got,
    first: Origin,
    second: Origin,
}

/// A hundred requests a second for what is not stored, over two origins.
async fn two(models: [Model; 2], modes: [Mode; 2], until: f64, cools_at: Option<f64>) -> Two {
    let [first, second] = [0, 1].map(|n| Origin::new(models[n], modes[n]));
    let limit = |index| {
        let health = OriginHealth::builder()
            .seed(7 + index as u64)
            .stalled_after(Duration::from_secs(3))
            .build()
            .expect("the settings make sense");
        OriginLimitLayer::new(64).max_queue(256).health(health)
    };
    let origins = Failover::builder(first.clone(), [second.clone()])
        .origin_limit(limit)
        .build()
        .expect("two are enough");
    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
        .outage(origins.health().clone())
        .build()
        .expect("the settings make sense");
    [&first, &second].into_iter().for_each(Origin::begin);
    first.warm();
    if let Some(at) = cools_at {
        let first = first.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs_f64(at)).await;
            first.cool();
        });
    }
    let mut clients = Clients::new(cache.layer(origins));
    clients.send(&Load::new(1, 0.0, 100.0), until, 3).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    Two { got: clients.got(), first, second }
}

impl Two {
    fn failed(&self) -> f64 {
        percent(self.got.total().failed, self.got.requests)
    }

    fn calls(&self) -> [f64; 2] {
        [&self.first, &self.second].map(|origin| percent(origin.counts().calls, self.got.requests))
    }

    /// How many seconds after this one the first origin has its load again.
    fn back_after(&self, seconds: f64) -> Option<usize> {
        let by_second = self.first.counts().calls_by_second;
        by_second.iter().skip(seconds as usize).position(|calls| *calls >= 80)
    }

    fn figures(&self) -> String {
        let [first, second] = self.calls();
        format!("failed {:.1} %, calls {first:.1} / {second:.1} % of the requests", self.failed())
    }
}

fn refuses_for_a_minute(t: f64, _: i64) -> Way {
    if (60.0..120.0).contains(&t) { Way::Refuse } else { Way::Work }
}

fn hangs_for_a_minute(t: f64, _: i64) -> Way {
    if (60.0..120.0).contains(&t) { Way::Hang } else { Way::Work }
}

fn flaps(t: f64, _: i64) -> Way {
    if ((t / 5.0) as u64).is_multiple_of(2) { Way::Refuse } else { Way::Work }
}

fn check_noise(until: f64) -> Two {
    let two = run(two([A, A], [|_, _| Way::Fail(0.01), WELL], until, None));
    let [first, second] = two.calls();
    assert!(first >= 99.0 && second <= 2.5, "{first} {second}");
    assert_eq!(two.got.total().failed, 0);
    two
}

#[test]
fn noise_moves_no_load_away_from_the_first_origin() {
    check_noise(60.0);
}

fn check_away(until: f64) -> Two {
    let two = run(two([A, A], [refuses_for_a_minute, WELL], until, None));
    assert_eq!(two.got.total().failed, 0);
    assert!(two.back_after(120.0).is_some_and(|seconds| seconds <= 10), "{:?}", two.back_after(120.0));
    two
}

#[test]
fn the_first_origin_has_its_load_back_soon_after_it_was_away() {
    check_away(150.0);
}

/// What the second origin cannot bear fails, whatever the order: no more than that, and it does not break down.
fn check_weak(until: f64) -> Two {
    let weak = Model { workers: 20, cost: 20.0 / 60.0, dies_at: 100, ..A };
    let two = run(two([A, weak], [refuses_for_a_minute, WELL], until, None));
    let (failed, deaths) = (two.got.total().failed, two.second.counts().deaths);
    // Forty of a hundred for a minute, and what waited in the queue for too long.
    assert!((2_400..=3_000).contains(&failed), "{failed}");
    assert_eq!(deaths, 0);
    assert!(two.back_after(120.0).is_some_and(|seconds| seconds <= 10), "{:?}", two.back_after(120.0));
    two
}

#[test]
fn a_second_origin_that_is_too_weak_serves_what_it_bears() {
    check_weak(150.0);
}

#[test]
#[ignore = "of full size"]
fn two_origins_of_full_size() {
    let until = 300.0;
    row("two origins, the first with 1 % noise", &check_noise(until).figures());
    let away = check_away(until);
    let back = away.back_after(120.0);
    row("two origins, the first refuses for 60 s", &format!("{}, back after {back:?} s", away.figures()));

    let hangs = run(two([A, A], [hangs_for_a_minute, WELL], until, None));
    let back = hangs.back_after(120.0);
    assert!(hangs.failed() <= 2.0 && back.is_some_and(|seconds| seconds <= 10), "{}", hangs.figures());
    row("two origins, the first hangs for 60 s", &format!("{}, back after {back:?} s", hangs.figures()));

    let half: Mode = |_, _| Way::Fail(0.5);
    let broken = run(two([A, A], [half, half], until, None));
    assert!((20.0..=30.0).contains(&broken.failed()), "{}", broken.figures());
    row("two origins, both fail half of the time", &broken.figures());

    let flapping = run(two([A, A], [flaps, WELL], until, None));
    assert_eq!(flapping.got.total().failed, 0);
    row("two origins, the first flaps each 5 s", &flapping.figures());

    let cold = Model { cold: 0.2, dies_at: 60, ..A };
    let cold = run(two([cold, A], [refuses_for_a_minute, WELL], until, Some(119.9)));
    assert_eq!((cold.got.total().failed, cold.first.counts().deaths), (0, 0));
    let back = cold.back_after(120.0);
    row(
        "two origins, the first comes back cold, dies at 60",
        &format!("{}, back after {back:?} s", cold.figures()),
    );

    let weak = check_weak(until);
    let back = weak.back_after(120.0);
    row("two origins, the second bears 60 of 100/s", &format!("{}, back after {back:?} s", weak.figures()));

    let both = run(two([A, A], [refuses_for_a_minute, refuses_for_a_minute], until, None));
    assert!((18.0..=22.0).contains(&both.failed()), "{}", both.figures());
    row("two origins, both refuse for 60 s", &both.figures());
}
