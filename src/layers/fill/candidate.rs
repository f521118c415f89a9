//! What the origin is asked to confirm, and whether a 304 confirms it (RFC 9111 §4.3.1, §4.3.4).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use crate::{
    http::{
        conditions::{confirms, make_conditional},
        vary::Vary,
    },
    sequence::Sequence,
    store::StoredResponse,
};

const VALIDATORS: [HeaderName; 2] = [header::ETAG, header::LAST_MODIFIED];

/// The stored response whose validators go into a request: the one that the request selects.
///
/// Validators of other variants are not sent, although §4.3.1 allows it. A tag speaks of the content
/// alone (RFC 9110 §8.8.1), many origins use one tag for all variants, and a 304 does not bring the
/// fields in which variants differ (§15.4.5).
pub(super) struct Candidate(Arc<StoredResponse>);

impl Candidate {
    /// `None` if the response cannot be confirmed.
    #[inline(never)]
    pub(super) fn new(selected: Arc<StoredResponse>, sequence: &Sequence) -> Option<Self> {
        let has_validator = || VALIDATORS.iter().any(|name| selected.value(name).is_some());
        // A purged response stays purged even if the origin would confirm it. And a 304 stands for a
        // 200 (RFC 9110 §15.4.5), so it confirms no error or redirection.
        let is_confirmable = sequence.admits(&selected) && selected.status().is_success() && has_validator();
        is_confirmable.then_some(Self(selected))
    }

    /// Makes a request conditional on its validators.
    #[inline(never)]
    pub(super) fn make_conditional(&self, request: &mut HeaderMap) {
        let [tag, modified] = VALIDATORS.map(|name| self.0.value(&name));
        make_conditional(request, tag, modified);
    }

    /// The stored response, if a 304 with this head and `Vary` confirms it.
    ///
    /// Not if its validator is another one. Nor if it names selecting fields that did not select the
    /// stored response: that was fetched for a request that may have had other values for them.
    pub(super) fn confirmed_by(&self, not_modified: &HeaderMap, vary: &Vary) -> Option<&Arc<StoredResponse>> {
        let Self(stored) = self;
        let is_selected_as_before = vary.is_within(stored.selection());
        let is_same = confirms(not_modified, &stored.headers()) != Some(false);
        (is_selected_as_before && is_same).then_some(stored)
    }
}
