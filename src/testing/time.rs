//! Time that passes because a test says so.

use std::time::Duration;

use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep_until},
};

/// The step of tokio's timers.
const TICK: Duration = Duration::from_millis(1);

/// How many times other tasks run before and after time has passed.
const TURNS: usize = 50;

/// Lets this much time pass on tokio's paused clock, to the nanosecond, and all that it makes due happen.
///
/// Timers fire in the order in which they are due, and what they set off runs before the next one fires, whereas
/// `tokio::time::advance` lets the whole time pass in one step. Takes no real time.
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use tower_readthrough::testing::time;
///
/// # fn main() {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
/// # runtime.block_on(async {
/// // In a test with `#[tokio::test(start_paused = true)]`:
/// let start = Instant::now();
/// time::pass(Duration::from_micros(1_500)).await;
/// assert_eq!(start.elapsed(), Duration::from_micros(1_500));
/// # });
/// # }
/// ```
///
/// # Panics
///
/// If the clock is not paused, or outside a runtime.
pub async fn pass(duration: Duration) {
    assert!(
        is_paused(),
        "time can only be made to pass where it is paused: write `#[tokio::test(start_paused = true)]`, or call \
         `tokio::time::pause()` first"
    );
    let Some(end) = Instant::now().checked_add(duration) else {
        panic!("{duration:?} is longer than tokio's clock can run");
    };
    settle().await;
    // The runtime itself goes from timer to timer. It rounds up to whole ticks, so the rest is advanced by hand.
    if let Some(before) = end.checked_sub(TICK * 2).filter(|before| *before > Instant::now()) {
        sleep_until(before).await;
        settle().await;
    }
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        advance(left.min(TICK)).await;
        settle().await;
    }
}

/// Lets every task run that can, without letting paused time pass.
///
/// Each task gets fifty turns, which is enough for what a request sets off; a test that waits for a certain
/// event has a better sign of it.
pub async fn settle() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

/// Whether tokio's clock stands still while real time passes. Tokio itself does not say.
#[allow(clippy::disallowed_methods, reason = "the real clock is what tokio's is compared with")]
fn is_paused() -> bool {
    let (before, real) = (Instant::now(), std::time::Instant::now());
    while real.elapsed() < Duration::from_micros(20) {
        std::hint::spin_loop();
    }
    Instant::now() == before
}
