//! Signals to a process.

use std::{fs, process::Command, thread::sleep, time::Duration};

/// Sends a signal. Returns after `-STOP` when the process does nothing any more.
pub(crate) fn send(signal: &str, id: u32) {
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
    let mut looks = 0;
    while signal == "-STOP" && !is_stopped(id) {
        looks += 1;
        assert!(looks < 10_000, "{id} goes on");
        sleep(Duration::from_millis(1));
    }
}

/// Whether all its threads are stopped: the others go on until the first one has had a turn on a processor.
fn is_stopped(id: u32) -> bool {
    // Not all systems tell.
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return true };
    let mut states =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The name before it is in brackets, and may contain some.
    states.all(|state| state.rsplit(") ").next().is_some_and(|state| state.starts_with('T')))
}
