//! The `cluster` example as a program.

use tokio::time::timeout;

use super::{server::server, support::secs};

/// What the `cluster` example shows.
#[tokio::test]
async fn the_example_finds_no_old_page_and_no_failure() {
    if server().await.is_none() {
        return;
    }
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join("cluster");
    assert!(program.exists(), "run `cargo build --all-features --example cluster` first");
    let mut command = tokio::process::Command::new(program);
    command.args(["--json", "--pages", "1000", "--purges", "50"]).kill_on_drop(true);
    let output = timeout(secs(120), command.output()).await.expect("it ends").unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert_eq!((&report["failed"], &report["stale_after_purge"]), (&0.into(), &0.into()));
    assert!(report["requests"].as_u64().unwrap() > 100, "{report}");
    // A debug build on a busy machine may take longer than a node waits for the other one.
    assert!((1..=2).contains(&report["origin_calls_cold"].as_u64().unwrap()), "{report}");
    assert!(report["purge_p99_ms"].is_f64() && report["recovered_seconds"].is_f64(), "{report}");
}
