//! The scenarios of the simulation from which the rules for outages come, on the real stack: its model of an
//! origin, its load, and the counts that it led to. Time is paused and all draws have seeds; what is left to chance
//! is where the hashes of keys fall, so that bounds are a few points wide.
//!
//! What runs by default is small. The sizes of the simulation, and the figures for the table in BENCHMARKS.md:
//!
//! ```sh
//! cargo test --release --all-features --test outage -- --ignored --nocapture --test-threads 1
//! ```

mod failing;
mod failover;
mod hanging;
mod load;
mod model;
mod origin;
mod overload;
mod recovery;
mod world;

/// Prints the figures of a scenario of full size.
fn row(scenario: &str, figures: &str) {
    println!("{scenario} | {figures}");
}

/// Runs a scenario on a runtime of its own whose time is paused.
fn run<T>(scenario: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(scenario)
}
