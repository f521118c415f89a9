//! What the answers to unsafe requests invalidate.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header, request::Parts};

use super::Sequence;
use crate::{
    http::{fields::lines, tag_fields},
    key::{KeyExtractor, Target},
};

/// What an unsafe request invalidates once it has succeeded (RFC 9111 §4.4), and what its answer
/// says that it invalidates (RFC 9875 §3).
pub(crate) struct Invalidation {
    sequence: Arc<Sequence>,
    extractor: Arc<dyn KeyExtractor>,
    target: Target,
}

impl Invalidation {
    /// None for methods that are known to be safe (RFC 9110 §9.2.1, and QUERY).
    pub(crate) fn of(
        sequence: &Arc<Sequence>,
        extractor: &Arc<impl KeyExtractor>,
        head: &Parts,
    ) -> Option<Self> {
        let is_safe = matches!(
            head.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::CONNECT
        ) || head.method.as_str() == "QUERY";
        (!is_safe).then(|| {
            let (sequence, target) = (Arc::clone(sequence), Target::of(&**extractor, head));
            let extractor = Arc::clone(extractor);
            Self { sequence, extractor, target }
        })
    }

    /// The target URI, unless the request failed; if it succeeded, also what `Location` and
    /// `Content-Location` refer to on the same origin. The target of a redirection is only where
    /// the client goes next, for example after a login.
    pub(crate) fn apply(&self, status: StatusCode, headers: &HeaderMap) {
        // Most answers name nothing else, and one look at their fields tells.
        let (mut refers, mut names_groups) = (false, false);
        for name in headers.keys() {
            refers |= *name == header::LOCATION || *name == header::CONTENT_LOCATION;
            names_groups |= *name == tag_fields::CACHE_GROUP_INVALIDATION;
        }
        if names_groups {
            self.purge_groups(headers);
        }
        if !(status.is_success() || status.is_redirection()) {
            return;
        }
        let hasher = self.sequence.hasher();
        self.sequence.purge_target(&self.target, false);
        if !status.is_success() || !refers {
            return;
        }
        for field in [&header::LOCATION, &header::CONTENT_LOCATION] {
            let reference = lines(headers, field).next().and_then(|value| value.to_str().ok());
            let hash_of = |reference| self.target.hash_of_reference(reference, &*self.extractor, hasher);
            if let Some(hash) = reference.and_then(hash_of) {
                self.sequence.purge_place(hash, false);
            }
        }
    }

    /// The groups of the same origin that the answer names, whatever its status: it says so in so
    /// many words.
    fn purge_groups(&self, headers: &HeaderMap) {
        for group in tag_fields::groups(headers, &tag_fields::CACHE_GROUP_INVALIDATION) {
            for hash in self.target.groups_to_purge(&group, self.sequence.hasher()) {
                self.sequence.purge_label(hash);
            }
        }
    }
}
