//! The series of what lies outside of the process: a second tier, a cluster, a snapshot file.

use super::Scope;
use crate::observe::{BreakerState, ClusterState, ClusterStatus, TierStanding, TierStatus};
#[cfg(feature = "snapshot")]
use crate::store::{LoadEnd, SnapshotFileStats};

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

    pub(super) fn cluster(&self, now: &ClusterStatus) {
        for state in ClusterState::ALL {
            let is_it = f64::from(u8::from(*state == now.state));
            self.set("readthrough_cluster_state", [("state", state.as_str().into())], is_it);
        }
        let heard = now.heard.unwrap_or(now.since);
        self.set("readthrough_cluster_heard_seconds", [], heard.as_secs_f64());
        self.set("readthrough_cluster_must_validate", [], f64::from(u8::from(now.must_validate)));
        if let Some(behind) = now.behind {
            self.set("readthrough_cluster_behind", [], behind as f64);
        }
        self.set("readthrough_cluster_waiting", [], now.waiting as f64);
        self.count("readthrough_cluster_gaps_total", [], now.gaps);
        let silent = now.others.iter().filter(|node| node.is_silent).count();
        for (state, nodes) in [("heard", now.others.len() - silent), ("silent", silent)] {
            self.set("readthrough_cluster_nodes", [("state", state.into())], nodes as f64);
        }
    }

    #[cfg(feature = "snapshot")]
    pub(super) fn snapshot_file(&self, file: &SnapshotFileStats) {
        for (result, more) in [("written", file.writes), ("failed", file.failed_writes)] {
            self.count("readthrough_snapshot_file_writes_total", [("result", result.into())], more);
        }
        let since = file.written_ago.unwrap_or(file.open_for);
        self.set("readthrough_snapshot_file_written_seconds", [], since.as_secs_f64());
        let last = file.last_write.unwrap_or_default();
        self.set("readthrough_snapshot_file_bytes", [], last.bytes as f64);
        for (result, responses) in [("written", last.responses), ("skipped", last.skipped)] {
            let labels = [("result", result.into())];
            self.set("readthrough_snapshot_file_responses", labels, responses as f64);
        }
        let end = file.load.as_ref().map_or("loading", |load| load.end.as_str());
        for name in LoadEnd::names().chain(["loading"]) {
            let is_it = f64::from(u8::from(name == end));
            self.set("readthrough_snapshot_file_load", [("end", name.into())], is_it);
        }
        let load = file.load.as_ref();
        let [loaded, unneeded, skipped] =
            load.map_or([0; 3], |load| [load.loaded, load.unneeded, load.skipped]);
        for (result, responses) in [("loaded", loaded), ("unneeded", unneeded), ("skipped", skipped)] {
            let labels = [("result", result.into())];
            self.set("readthrough_snapshot_file_load_responses", labels, responses as f64);
        }
    }
}
