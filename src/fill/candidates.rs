//! What the origin is asked to confirm, and what a 304 confirms of it (RFC 9111 §4.3.1, §4.3.4).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

use crate::{
    http::{
        conditions::{confirms, has_validator, make_conditional, strong_tag},
        storing::Credentials,
    },
    store::{Resource, Sequence, StoredResponse},
};

/// Bytes of all tags together that go into a request: common servers take 8 KiB of a field. Without
/// the rest the origin sends a whole answer.
const MAX_TAG_BYTES: usize = 2048;

/// The stored responses whose validators go into a request.
#[derive(Default)]
pub(super) struct Candidates {
    /// What the request selects.
    own: Option<Arc<StoredResponse>>,
    /// What other requests select, but this one may have as well if the origin says so. Only by
    /// strong tags: by a weak one an answer in another coding may be the same (RFC 9110 §8.8.1).
    others: Vec<Arc<StoredResponse>>,
}

impl Candidates {
    #[inline(never)]
    pub(super) fn new(
        own: Option<Arc<StoredResponse>>,
        resource: Option<&Resource>,
        request: &HeaderMap,
        sequence: &Sequence,
    ) -> Self {
        // What was purged is gone, even if the origin would say that it is still the same.
        let own = own.filter(|own| sequence.admits(own));
        let own = own.filter(|own| is_confirmable(own) && has_validator(&own.headers()));
        let is_dated_only = own.as_ref().is_some_and(|own| own.value(&header::ETAG).is_none());
        let others = match resource {
            // With any tag the origin would not look at the date (RFC 9110 §13.1.3).
            Some(resource) if !is_dated_only => {
                let credentials = Credentials::of(request);
                let may_match = |other: &&Arc<StoredResponse>| {
                    sequence.admits(other)
                        && credentials.admitted_to(other.terms().audience)
                        && is_confirmable(other)
                        && other.strong_tag().is_some()
                        && own.as_ref().is_none_or(|own| !own.is(other) && !is_only_alike(own, other))
                };
                let mut left = MAX_TAG_BYTES.saturating_sub(own.as_deref().map_or(0, tag_bytes));
                let fits = |other: &&Arc<StoredResponse>| {
                    let rest = left.checked_sub(tag_bytes(other));
                    rest.inspect(|rest| left = *rest).is_some()
                };
                resource.variants().iter().filter(may_match).take_while(fits).cloned().collect()
            }
            _ => Vec::new(),
        };
        Self { own, others }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_none() && self.others.is_empty()
    }

    /// Makes a request conditional on their validators, of each one once.
    pub(super) fn ask(&self, request: &mut HeaderMap) {
        if !self.is_empty() {
            self.make_conditional(request);
        }
    }

    #[inline(never)]
    fn make_conditional(&self, request: &mut HeaderMap) {
        let mut tags: Vec<HeaderValue> = Vec::new();
        for tag in self.all().filter_map(|stored| stored.value(&header::ETAG)) {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        let modified = self.own.as_ref().and_then(|own| own.value(&header::LAST_MODIFIED));
        make_conditional(request, &tags, modified);
    }

    /// What a 304 is about. `None` if its validator is none of those that it was asked about, or
    /// if it has none and so may mean any of several.
    pub(super) fn confirmed_by(&self, not_modified: &HeaderMap) -> Option<&Arc<StoredResponse>> {
        if self.others.is_empty() {
            return self.own.as_ref().filter(|own| confirms(not_modified, &own.headers()) != Some(false));
        }
        let same = self.all().find(|stored| is_same(not_modified, stored));
        let names_tag = not_modified.contains_key(header::ETAG);
        let is_own = |own: &&Arc<StoredResponse>| confirms(not_modified, &own.headers()) == Some(true);
        let weakly = || self.own.as_ref().filter(is_own).filter(|_| names_tag);
        same.or_else(weakly)
    }

    /// Whether a 304 shows that this origin is better asked about one stored response at a time.
    pub(super) fn are_too_many_for(&self, not_modified: &HeaderMap) -> bool {
        let asked_by_tag = self.all().any(|stored| stored.value(&header::ETAG).is_some());
        let is_unnamed = asked_by_tag && !not_modified.contains_key(header::ETAG);
        is_unnamed || !self.others.is_empty() && self.confirmed_by(not_modified).is_none()
    }

    /// What others select of the confirmed validator: it is as fresh as what goes to this request.
    pub(super) fn siblings(&self, not_modified: &HeaderMap) -> impl Iterator<Item = &Arc<StoredResponse>> {
        self.others.iter().filter(|other| is_same(not_modified, other))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<StoredResponse>> {
        self.own.iter().chain(&self.others)
    }
}

/// A 304 says that there would be a 200 (RFC 9110 §15.4.5): it confirms no stored error or
/// redirection.
fn is_confirmable(stored: &StoredResponse) -> bool {
    stored.status().is_success()
}

/// With what separates it from the next one.
fn tag_bytes(stored: &StoredResponse) -> usize {
    stored.value(&header::ETAG).map_or(0, |tag| tag.len() + 2)
}

/// Whether a 304 could mean the one and name the other: what compresses on the way out weakens the
/// tag of a 200, but not of a 304.
fn is_only_alike(own: &StoredResponse, other: &StoredResponse) -> bool {
    let (Some(tag), Some(others)) = (own.value(&header::ETAG), other.strong_tag()) else {
        return false;
    };
    tag.as_bytes().strip_prefix(b"W/") == Some(others.as_bytes())
}

fn is_same(head: &HeaderMap, stored: &StoredResponse) -> bool {
    strong_tag(head).is_some_and(|tag| stored.strong_tag().as_ref() == Some(tag))
}
