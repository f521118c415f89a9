//! With whom a response may be shared, and how it came about.

use std::sync::Arc;

use http::HeaderName;
use tokio::time::Instant;

use crate::{
    http::{
        credentials::Credentials,
        storing::{Decision, Sharing, Unshareable},
        vary::Selection,
    },
    sequence::{Provenance, Sequence},
    store::StoredResponse,
};

/// Which requests may share a response: in its extensions, put there by `Fill` where
/// [several may](CacheRequest::is_for_many), and passed on by a `Coalesce` that is not the uppermost.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Shareable {
        selection: Option<Selection>,
        audience: Credentials,
        /// When the answer was as old as its head says.
        received_at: Instant,
        fresh_until: Instant,
        /// `None`: it did not come from a layer that numbers its fetches.
        lineage: Option<Provenance>,
        /// Fields that are for the one alone who asked.
        withheld: Vec<HeaderName>,
        /// How large a body may become that is being stored. 0: it is not.
        stored_up_to: u64,
    },
    Unshareable(Unshareable),
    Failed {
        selection: Option<Selection>,
        received_at: Instant,
        for_all: bool,
        lineage: Option<Provenance>,
        withheld: Vec<HeaderName>,
    },
}

impl Verdict {
    /// Of the same answer with an age that is true now.
    pub(crate) fn handed_on(&self) -> Self {
        let mut verdict = self.clone();
        match &mut verdict {
            Self::Shareable { received_at, .. } | Self::Failed { received_at, .. } => {
                *received_at = Instant::now();
            }
            Self::Unshareable(_) => {}
        }
        verdict
    }

    /// Of what is stored.
    pub(crate) fn of(stored: &StoredResponse, now: Instant, sequence: &Arc<Sequence>) -> Self {
        Self::Shareable {
            selection: stored.selection().cloned(),
            audience: stored.terms().audience,
            received_at: now,
            fresh_until: stored.fresh_until(),
            lineage: Some(Provenance::of_stored(sequence, stored)),
            withheld: Vec::new(),
            stored_up_to: 0,
        }
    }

    /// The fields that are for the one alone who asked, of what others get as well.
    pub(crate) fn withheld(&self) -> &[HeaderName] {
        match self {
            Self::Shareable { withheld, .. } | Self::Failed { withheld, .. } => withheld,
            Self::Unshareable(_) => &[],
        }
    }

    pub(crate) const fn is_shareable(&self) -> bool {
        matches!(self, Self::Shareable { .. })
    }

    /// Says how large the body may become that is being stored.
    pub(crate) fn storing(mut self, limit: usize) -> Self {
        if let Self::Shareable { stored_up_to, .. } = &mut self {
            *stored_up_to = limit as u64;
        }
        self
    }

    pub(crate) fn stored_up_to(&self) -> u64 {
        match self {
            Self::Shareable { stored_up_to, .. } => *stored_up_to,
            _ => 0,
        }
    }

    pub(crate) fn new(
        decision: Decision,
        selection: Option<Selection>,
        (received_at, fresh_until): (Instant, Instant),
        lineage: Option<Provenance>,
    ) -> Self {
        match decision.sharing {
            Sharing::Unshareable(why) => Self::Unshareable(why),
            Sharing::Failed { for_all } => {
                Self::Failed { selection, received_at, for_all, lineage, withheld: decision.withheld }
            }
            Sharing::Shareable => Self::Shareable {
                selection,
                audience: decision.terms.audience,
                received_at,
                fresh_until,
                lineage,
                withheld: decision.withheld,
                stored_up_to: 0,
            },
        }
    }
}

/// The body of this response is read to its end by any caller: in the extensions of what the first
/// caller of a shared fetch gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompletesItself;

/// When the attempt began that led to this response: in its extensions, put there by the
/// layer that let the request wait before. The time before is not part of the response's age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptBegan(pub(crate) Instant);

/// How many attempts it took to get a response: in its extensions, unless the request is one that
/// may not be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts(u32);

impl Attempts {
    pub(crate) const fn new(count: u32) -> Self {
        Self(count)
    }

    /// 1 if the first one was the last.
    pub const fn count(&self) -> u32 {
        self.0
    }
}
