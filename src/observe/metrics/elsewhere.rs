//! The series of what lies outside of the process: a second tier, a cluster, a snapshot file.

use std::time::Duration;

use tokio::time::Instant;

use super::Scope;
use crate::observe::{BreakerState, ClusterState, ClusterStatus, TierStanding, TierStatus};
#[cfg(feature = "snapshot")]
use crate::store::{LoadEnd, SnapshotFileStats};

/// What something says of itself, or has last said before it was gone.
#[derive(Clone, Debug)]
pub(super) struct Said<T> {
    last: T,
    at: Instant,
    is_gone: bool,
}

impl<T: Clone> Said<T> {
    /// Notes what it says now. `None`: it is gone.
    pub(super) fn note(said: &mut Option<Self>, now: Option<&T>) {
        match (now, said) {
            (Some(now), said) => *said = Some(Self { last: now.clone(), at: Instant::now(), is_gone: false }),
            (None, Some(said)) => said.is_gone = true,
            (None, None) => {}
        }
    }

    fn now(&self) -> Option<&T> {
        (!self.is_gone).then_some(&self.last)
    }

    /// How long ago that was, if it is gone.
    fn silent_for(&self) -> Duration {
        if self.is_gone { self.at.elapsed() } else { Duration::ZERO }
    }
}

impl Scope {
    pub(super) fn second_tier(&self, tier: &TierStatus) {
        for (result, more) in tier.reads.iter() {
            self.count("readthrough_tier_reads_total", [("result", result.as_str().into())], more);
        }
        for (result, more) in tier.writes.iter() {
            self.count("readthrough_tier_writes_total", [("result", result.as_str().into())], more);
        }
        for (result, more) in tier.waits.iter() {
            self.count("readthrough_tier_waits_total", [("result", result.as_str().into())], more);
        }
        self.set("readthrough_tier_queued", [], tier.queued as f64);
        self.set("readthrough_tier_queued_bytes", [], tier.queued_bytes as f64);
        for standing in TierStanding::ALL {
            let value = f64::from(u8::from(*standing == tier.standing));
            self.set("readthrough_tier_standing", [("state", standing.as_str().into())], value);
        }
        if let Some(remote) = &tier.remote {
            self.set("readthrough_tier_remote_connected", [], f64::from(u8::from(remote.is_connected)));
            self.count("readthrough_tier_remote_connections_total", [], remote.connections);
        }
        for (call, breaker) in [("read", tier.reads_breaker), ("write", tier.writes_breaker)] {
            for state in BreakerState::ALL {
                let labels = [("call", call.into()), ("state", state.as_str().into())];
                self.set("readthrough_tier_breaker", labels, f64::from(u8::from(*state == breaker)));
            }
        }
    }

    pub(super) fn cluster(&self, said: &Said<ClusterStatus>) {
        let (now, last) = (said.now(), &said.last);
        for state in ClusterState::ALL {
            let is_it = f64::from(u8::from(now.is_some_and(|now| now.state == *state)));
            self.set("readthrough_cluster_state", [("state", state.as_str().into())], is_it);
        }
        let heard = last.heard.unwrap_or(last.since).saturating_add(said.silent_for());
        self.set("readthrough_cluster_heard_seconds", [], heard.as_secs_f64());
        // What is stored outlasts the node.
        let is_too_long = now.is_none() && last.validates_after.is_some_and(|after| heard > after);
        let must_validate = f64::from(u8::from(last.must_validate || is_too_long));
        self.set("readthrough_cluster_must_validate", [], must_validate);
        if let Some(behind) = now.and_then(|now| now.behind) {
            self.set("readthrough_cluster_behind", [], behind as f64);
        }
        self.set("readthrough_cluster_waiting", [], now.map_or(0, |now| now.waiting) as f64);
        now.iter().for_each(|now| self.count("readthrough_cluster_gaps_total", [], now.gaps));
        let others = now.map_or(&[][..], |now| &now.others);
        let silent = others.iter().filter(|node| node.is_silent).count();
        for (state, nodes) in [("heard", others.len() - silent), ("silent", silent)] {
            self.set("readthrough_cluster_nodes", [("state", state.into())], nodes as f64);
        }
    }

    #[cfg(feature = "snapshot")]
    pub(super) fn snapshot_file(&self, said: &Said<SnapshotFileStats>) {
        let (now, last) = (said.now(), &said.last);
        let counts = now.map(|now| [("written", now.writes), ("failed", now.failed_writes)]);
        for (result, more) in counts.into_iter().flatten() {
            self.count("readthrough_snapshot_file_writes_total", [("result", result.into())], more);
        }
        let since = last.written_ago.unwrap_or(last.open_for).saturating_add(said.silent_for());
        self.set("readthrough_snapshot_file_written_seconds", [], since.as_secs_f64());
        let write = last.last_write.unwrap_or_default();
        self.set("readthrough_snapshot_file_bytes", [], write.bytes as f64);
        for (result, responses) in [("written", write.responses), ("skipped", write.skipped)] {
            let labels = [("result", result.into())];
            self.set("readthrough_snapshot_file_responses", labels, responses as f64);
        }
        self.load(now);
    }

    /// `None`: no file is open.
    #[cfg(feature = "snapshot")]
    fn load(&self, file: Option<&SnapshotFileStats>) {
        let load = file.and_then(|file| file.load.as_ref());
        let end = file.map(|_| load.map_or("loading", |load| load.end.as_str()));
        for name in LoadEnd::names().chain(["loading"]) {
            let is_it = f64::from(u8::from(end == Some(name)));
            self.set("readthrough_snapshot_file_load", [("end", name.into())], is_it);
        }
        let [loaded, unneeded, skipped] =
            load.map_or([0; 3], |load| [load.loaded, load.unneeded, load.skipped]);
        for (result, responses) in [("loaded", loaded), ("unneeded", unneeded), ("skipped", skipped)] {
            let labels = [("result", result.into())];
            self.set("readthrough_snapshot_file_load_responses", labels, responses as f64);
        }
    }
}
