//! What the tests and the model of the gate begin with, over the gate of the module that includes this.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Attempt, Entered, Entrance, Failure, Gate, OriginState, Waiting};

pub(super) fn miss(key: u64) -> Entrance {
    Entrance { key: Some(key), ..Entrance::default() }
}

#[track_caller]
pub(super) fn admitted(gate: &Arc<Gate>, entrance: Entrance) -> Attempt {
    match gate.enter(entrance, Instant::now()) {
        Entered::Admitted(attempt) => attempt,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn queued(gate: &Arc<Gate>, entrance: Entrance) -> Waiting {
    match gate.enter(entrance, Instant::now()) {
        Entered::Queued(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

/// How many attempts begin now, and hold their permits until then.
pub(super) fn free(gate: &Arc<Gate>) -> usize {
    let mut attempts = Vec::new();
    while let Entered::Admitted(attempt) = gate.enter(miss(0), Instant::now()) {
        attempts.push(attempt);
    }
    attempts.len()
}

pub(super) fn go_down(gate: &Arc<Gate>) {
    for key in 100..120 {
        drop(admitted(gate, miss(key)).finish(Failure, Instant::now()));
    }
    assert_eq!(gate.state(Instant::now()), OriginState::Down);
}
