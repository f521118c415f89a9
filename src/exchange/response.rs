//! What layers say of a response to the layers above.

use std::sync::Arc;

use http::{Extensions, HeaderName};
use tokio::time::Instant;

use crate::{
    http::{
        request_fields::Credentials,
        storing::{Decision, NotStored, Sharing},
        vary::Selection,
    },
    sequence::{Provenance, Sequence},
    store::StoredResponse,
};

/// What the layers above have to know of a response: in its extensions, in one piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseFacts {
    shareability: Option<Shareability>,
    attempt_began: Option<Instant>,
    completes_itself: bool,
}

/// Which requests may share a response, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Shareability {
    decision: Decision,
    selection: Option<Selection>,
    /// When the response was as old as its head says.
    received_at: Instant,
    fresh_until: Instant,
    /// `None`: it did not come from a layer that numbers its fetches.
    provenance: Option<Provenance>,
    /// How large a body may become that is being stored. 0: it is not.
    stored_up_to: u64,
}

impl ResponseFacts {
    fn of(response: &mut Extensions) -> &mut Self {
        response.get_or_insert_default()
    }

    /// Says which requests may share the response, to a layer that
    /// [wants to know](super::CacheRequest::wants_shareability).
    pub(crate) fn note_shareability(response: &mut Extensions, shareability: Shareability) {
        Self::of(response).shareability = Some(shareability);
    }

    /// Takes what was said of that. The rest stays for the layers above.
    pub(crate) fn take_shareability(response: &mut Extensions) -> Option<Shareability> {
        response.get_mut::<Self>()?.shareability.take()
    }

    /// Says when the attempt began that led to the response. What the request waited before is not part of
    /// the response's age.
    pub(crate) fn note_attempt(response: &mut Extensions, began: Instant) {
        Self::of(response).attempt_began = Some(began);
    }

    /// When the attempt began that led to the response, if a layer let the request wait before.
    pub(crate) fn attempt_began(response: &Extensions) -> Option<Instant> {
        response.get::<Self>()?.attempt_began
    }

    /// Says that the body is read to its end by any caller of a shared fetch.
    pub(crate) fn note_shared_body(response: &mut Extensions) {
        Self::of(response).completes_itself = true;
    }

    /// Whether the body is read to its end although this client leaves it: it is that of a shared fetch,
    /// as the first caller gets it.
    pub(crate) fn completes_itself(response: &Extensions) -> bool {
        response.get::<Self>().is_some_and(|facts| facts.completes_itself)
    }

    /// Removes what was said to layers that the response has passed. When its attempt began counts for the
    /// layers above as well.
    pub(crate) fn forget(response: &mut Extensions) {
        if let Some(facts) = response.get_mut::<Self>() {
            (facts.shareability, facts.completes_itself) = (None, false);
        }
    }
}

impl Shareability {
    pub(crate) fn new(
        decision: Decision,
        selection: Option<Selection>,
        (received_at, fresh_until): (Instant, Instant),
        provenance: Option<Provenance>,
    ) -> Self {
        Self { decision, selection, received_at, fresh_until, provenance, stored_up_to: 0 }
    }

    /// Of a response for one client alone.
    pub(crate) fn unshareable(why: NotStored) -> Self {
        let now = Instant::now();
        Self::new(Decision::not_stored(Sharing::Unshareable(why)), None, (now, now), None)
    }

    /// Of a stored response.
    pub(crate) fn of_stored(stored: &StoredResponse, now: Instant, sequence: &Arc<Sequence>) -> Self {
        let decision = Decision::of_stored(*stored.terms());
        let provenance = Provenance::of_stored(sequence, stored);
        Self::new(decision, stored.selection().cloned(), (now, stored.fresh_until()), Some(provenance))
    }

    /// Says how large the body may become that is being stored.
    pub(crate) fn stored_up_to(self, limit: usize) -> Self {
        Self { stored_up_to: limit as u64, ..self }
    }

    /// The same of the same response with an age that is true now.
    pub(crate) fn handed_on(&self) -> Self {
        Self { received_at: Instant::now(), ..self.clone() }
    }

    pub(crate) fn sharing(&self) -> Sharing {
        self.decision.sharing
    }

    pub(crate) fn is_shareable(&self) -> bool {
        self.sharing() == Sharing::Shareable
    }

    pub(crate) fn is_unshareable(&self) -> bool {
        matches!(self.sharing(), Sharing::Unshareable(_))
    }

    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.sharing(), Sharing::Failed { .. })
    }

    /// Which credentials a request may have to share it.
    pub(crate) fn audience(&self) -> Credentials {
        self.decision.terms.audience
    }

    pub(crate) fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    pub(crate) fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Whether it may be shared with requests that arrive now.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_shareable() && Instant::now() < self.fresh_until
    }

    pub(crate) fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }

    /// The fields of a shared response that its first client alone gets.
    pub(crate) fn withheld(&self) -> &[HeaderName] {
        if self.is_unshareable() { &[] } else { &self.decision.withheld }
    }

    /// How large a body may become that is being stored and shared. 0: it is not.
    pub(crate) fn max_stored(&self) -> u64 {
        if self.is_shareable() { self.stored_up_to } else { 0 }
    }
}

/// How many attempts it took to get a response: in its extensions, unless the request is one that
/// may not be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts(u32);

impl Attempts {
    pub(crate) const fn new(count: u32) -> Self {
        Self(count)
    }

    /// Returns the number. 1 if the first attempt was the last.
    pub const fn count(&self) -> u32 {
        self.0
    }
}
