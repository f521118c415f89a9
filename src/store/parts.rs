//! Parts of representations that are not there as a whole (RFC 9111 §3.3, §3.4).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use tokio::time::Instant;

use super::{Draft, Origin, Resource, Sequence, StoredResponse};
use crate::{
    body::Body,
    http::{
        conditions::{confirms, freshen, strong_tag},
        fields::{is_digest, remove_all},
        glance::Glance,
        range::Extent,
        storing::Terms,
        vary::Selection,
    },
    status::CacheStatus,
};

/// Parts that one key may have, of all its variants. The next one takes the place of the oldest.
const MAX_PARTS: usize = 8;

/// A 206 in the store. No plain GET ever sees it: whoever looks for parts asks for a range.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    extent: Extent,
    response: Arc<StoredResponse>,
}

impl Part {
    pub(crate) fn response(&self) -> &Arc<StoredResponse> {
        &self.response
    }

    /// As a client gets it who asks for a range that lies within.
    pub(crate) fn to_response<B>(
        &self,
        request: &HeaderMap,
        now: Instant,
        status: CacheStatus,
    ) -> Response<Body<B>> {
        let mut response = self.response.to_response(false, now, status);
        self.extent.apply(request, &mut response, self.response.body());
        response
    }
}

/// The parts of one key, by [rank](StoredResponse::rank).
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts(Vec<Part>);

impl Parts {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Part> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(&Arc<StoredResponse>) -> bool) {
        self.0.retain(|part| keeps(&part.response));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let responses: usize = self.iter().map(|part| part.response.bytes()).sum();
        responses + self.0.capacity() * size_of::<Part>()
    }

    pub(super) fn drop_oldest(&mut self) {
        let oldest = self.0.iter().enumerate().min_by_key(|(_, part)| part.response.begun());
        if let Some((oldest, _)) = oldest {
            self.0.remove(oldest);
        }
    }

    /// A fresh part that has all that a request asks for.
    pub(super) fn select(&self, request: &Glance<'_>, sequence: &Sequence, now: Instant) -> Option<&Part> {
        self.0.iter().find(|Part { extent, response }| {
            // First, for it notes what is stale by a soft purge.
            sequence.admits(response)
                && response.is_fresh(now)
                && response.matches(request)
                && extent.answers(request.fields, &response.headers())
        })
    }

    /// Whether a part came later that shows a whole response to be of another representation.
    pub(super) fn outdate(&self, whole: &StoredResponse) -> bool {
        self.0.iter().any(|Part { extent, response }| {
            let is_another = extent.total != whole.body().len()
                || confirms(&response.headers(), &whole.headers()) == Some(false);
            response.begun() > whole.begun() && response.selection() == whole.selection() && is_another
        })
    }

    /// False if it is stale, or if a part came later that is not known to be of the same
    /// representation. Parts of another one that came before go in any case.
    pub(super) fn put(&mut self, part: Part, now: Instant) -> bool {
        let Part { extent, response } = &part;
        let is_rival = |other: &Part| {
            let is_same = is_same(&other.response, response) && other.extent.total == extent.total;
            other.response.selection() == response.selection() && !is_same
        };
        let is_outdated_by = |other: &Part| {
            let is_beside = other.response.selection() != response.selection();
            other.response.supersedes(response) && (is_beside || is_rival(other))
        };
        if self.0.iter().any(is_outdated_by) {
            return false;
        }
        let is_within = |other: &Part| {
            other.response.selection() == response.selection()
                && extent.first <= other.extent.first
                && other.extent.end <= extent.end
        };
        let is_fresh = response.is_fresh(now);
        self.0.retain(|other| !(is_rival(other) || is_fresh && is_within(other)));
        if is_fresh {
            if self.0.len() >= MAX_PARTS {
                self.drop_oldest();
            }
            let place = self.0.partition_point(|other| other.response.rank() > response.rank());
            self.0.insert(place, part);
        }
        is_fresh
    }
}

/// Whether two responses are of one representation, byte for byte (RFC 9110 §8.8.1).
fn is_same(a: &StoredResponse, b: &StoredResponse) -> bool {
    a.strong_tag().is_some_and(|tag| b.strong_tag() == Some(tag))
}

/// A 206 that came in whole, before it is put into the store.
#[derive(Clone)]
pub(crate) struct Arrived {
    pub(crate) extent: Extent,
    pub(crate) headers: HeaderMap,
    /// Fields that are for the client alone whose request it answers.
    pub(crate) withheld: Vec<HeaderName>,
    pub(crate) body: Bytes,
    pub(crate) selection: Option<Selection>,
    pub(crate) terms: Terms,
    pub(crate) origin: Origin,
}

impl Arrived {
    /// With all stored parts of the same representation that it touches, as far as the result is not
    /// larger than `max_bytes`. Only a strong validator shows that they are of the same.
    pub(crate) fn combine(self, stored: &Resource, sequence: &Sequence, max_bytes: usize) -> Stored {
        let alone = self.clone().into_stored();
        // Beside what began later nobody would see any more that it was purged.
        if !sequence.admits(alone.response()) {
            return alone;
        }
        let together = self.take_up_all(stored, sequence, max_bytes).into_stored();
        // The bytes may fit, but not the fields beside them.
        if together.response().bytes() <= max_bytes { together } else { alone }
    }

    fn take_up_all(mut self, stored: &Resource, sequence: &Sequence, max_bytes: usize) -> Self {
        let Some(tag) = strong_tag(&self.headers).cloned() else { return self };
        let mut parts: Vec<_> = stored.parts().collect();
        while let Some(at) = parts.iter().position(|part| {
            part.response.strong_tag().as_ref() == Some(&tag)
                && part.response.selection() == self.selection.as_ref()
                && sequence.admits(&part.response)
                && part.extent.touches(self.extent)
                && part.extent.join(self.extent).len() <= max_bytes
        }) {
            self.take_up(parts.swap_remove(at));
        }
        self
    }

    fn take_up(&mut self, part: &Part) {
        let extent = part.extent.join(self.extent);
        let mut body = BytesMut::zeroed(extent.len());
        for (extent_of, bytes) in [(part.extent, part.response.body()), (self.extent, &self.body)] {
            let start = extent_of.first - extent.first;
            body[start..start + bytes.len()].copy_from_slice(bytes);
        }
        (self.extent, self.body) = (extent, body.freeze());
        let mut headers = part.response.headers().into_owned();
        CacheStatus::unmark(&mut headers);
        // What purges a part of it purges the whole.
        let subject = self.origin.subject.and(part.response.subject());
        // What comes late gives its bytes alone.
        if part.response.begun() > self.origin.begun {
            (self.terms, self.origin) = (*part.response.terms(), part.response.origin().clone());
        } else {
            freshen(&mut headers, &self.headers);
        }
        self.origin.subject = subject;
        let is_withheld = |name: &HeaderName| *name != header::DATE && self.withheld.contains(name);
        remove_all(&mut headers, |name| is_digest(name) || is_withheld(name));
        self.headers = headers;
    }

    /// What is to be stored of it: the whole, if nothing is missing any more, or a part.
    pub(crate) fn into_stored(mut self) -> Stored {
        remove_all(&mut self.headers, |name| {
            [header::CONTENT_RANGE, header::CONTENT_LENGTH, header::TRAILER].contains(name)
        });
        let status = if self.extent.is_whole() { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        let Self { extent, headers, body, selection, terms, origin, .. } = self;
        let kept = Draft::new(status, &headers, Some(body.len())).with_shared(body);
        let response = Arc::new(StoredResponse::new(kept, None, selection, terms, origin));
        match extent.is_whole() {
            true => Stored::Whole(response),
            false => Stored::Part(Part { extent, response }),
        }
    }
}

pub(crate) enum Stored {
    Whole(Arc<StoredResponse>),
    Part(Part),
}

impl Stored {
    pub(crate) fn response(&self) -> &Arc<StoredResponse> {
        match self {
            Self::Whole(response) => response,
            Self::Part(part) => &part.response,
        }
    }
}
