//! How the node stands to its cluster, as far as it knows.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::registry::{Node, SILENCE, Survey};
use crate::{
    observe::{ClusterState, NodeStatus},
    store::EntryId,
    trace,
};

/// What is known of the connection and of the other nodes.
#[derive(Debug)]
pub(super) struct Standing(Mutex<State>);

#[derive(Debug)]
struct State {
    is_connected: bool,
    is_caught_up: bool,
    since: Instant,
    /// The log was read to its end.
    heard: Option<Instant>,
    last_error: Option<String>,
    /// Since when the node is cut off, as it was told.
    cut_off_since: Option<Instant>,
    may_evict_log: bool,
    has_warned: bool,
    /// What the other nodes had said when the registry was last looked at.
    others: Vec<NodeStatus>,
    surveyed: Instant,
}

/// What a node says of itself at one moment.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) is_connected: bool,
    pub(super) state: ClusterState,
    pub(super) since: Duration,
    pub(super) heard: Option<Duration>,
    pub(super) last_error: Option<String>,
    pub(super) may_evict_log: bool,
    pub(super) others: Vec<NodeStatus>,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            is_connected: false,
            is_caught_up: false,
            since: Instant::now(),
            heard: None,
            last_error: None,
            cut_off_since: None,
            may_evict_log: false,
            has_warned: false,
            others: Vec::new(),
            surveyed: Instant::now(),
        }))
    }

    /// There is a connection to a server.
    pub(super) fn connected(&self, node: &str, may_evict_log: bool) {
        let warns = {
            let mut state = self.0.lock();
            state.turn(true, false);
            state.may_evict_log = may_evict_log;
            may_evict_log && !std::mem::replace(&mut state.has_warned, may_evict_log)
        };
        if warns {
            trace::log_may_be_evicted(node);
        }
    }

    /// There is none.
    pub(super) fn failed(&self, node: &str, error: &str) {
        let is_news = {
            let mut state = self.0.lock();
            state.turn(false, false);
            state.others.clear();
            let is_news = state.cut_off_since.is_none();
            state.cut_off_since.get_or_insert_with(Instant::now);
            state.last_error = Some(error.to_owned());
            is_news
        };
        if is_news {
            trace::cut_off(node, error);
        }
    }

    /// What the server said was applied, and whether the log was read to its end by that. `refusal` is why it has
    /// refused some of what it was asked.
    pub(super) fn read(&self, node: &str, is_caught_up: bool, refusal: Option<String>) {
        let (lasted, is_first) = {
            let mut state = self.0.lock();
            state.turn(true, is_caught_up);
            state.last_error = refusal;
            let is_first = state.heard.is_none();
            if is_caught_up {
                state.heard = Some(Instant::now());
            }
            let lasted = state.cut_off_since.take_if(|_| is_caught_up).map(|since| since.elapsed());
            (lasted, is_first)
        };
        if let Some(lasted) = lasted {
            trace::caught_up(node, lasted, is_first);
        }
    }

    /// The registry was looked at. `behind_of` says how far a node is behind whose last entry is this one: that is
    /// noted, since the log grows faster than the registry is looked at.
    pub(super) fn surveyed(&self, own: &str, survey: &Survey, behind_of: impl Fn(EntryId) -> Option<u64>) {
        let others = others(own, survey, behind_of);
        let mut state = self.0.lock();
        (state.others, state.surveyed) = (others, Instant::now());
    }

    pub(super) fn said(&self) -> Said {
        let state = self.0.lock();
        let standing = match (state.is_connected, state.is_caught_up) {
            (false, _) => ClusterState::CutOff,
            (true, false) => ClusterState::CatchingUp,
            (true, true) => ClusterState::CaughtUp,
        };
        Said {
            is_connected: state.is_connected,
            state: standing,
            since: state.since.elapsed(),
            heard: state.heard.map(|heard| heard.elapsed()),
            last_error: state.last_error.clone(),
            may_evict_log: state.may_evict_log,
            others: state.others_now(),
        }
    }
}

impl State {
    fn turn(&mut self, is_connected: bool, is_caught_up: bool) {
        if (self.is_connected, self.is_caught_up) != (is_connected, is_caught_up) {
            (self.is_connected, self.is_caught_up) = (is_connected, is_caught_up);
            self.since = Instant::now();
        }
    }

    fn others_now(&self) -> Vec<NodeStatus> {
        let since = self.surveyed.elapsed();
        let aged = |other: &NodeStatus| {
            let heard = other.heard.saturating_add(since);
            NodeStatus { heard, is_silent: heard > SILENCE, ..other.clone() }
        };
        self.others.iter().map(aged).collect()
    }
}

/// What the other nodes have said, by their names.
fn others(own: &str, survey: &Survey, behind_of: impl Fn(EntryId) -> Option<u64>) -> Vec<NodeStatus> {
    let status = |(name, node): (&str, Node<'_>)| {
        let heard = node.silent_for(survey.now_ms);
        let position = node.position.filter(|_| node.is_of(&survey.run));
        NodeStatus {
            name: name.into(),
            position: node.position.map(|position| position.to_string().into()),
            behind: position.and_then(&behind_of),
            heard,
            is_silent: heard > SILENCE,
            validates_after: node.lease,
        }
    };
    let mut others: Vec<_> = survey.present().filter(|(name, _)| *name != own).map(status).collect();
    others.sort_by(|a, b| a.name.cmp(&b.name));
    others
}
