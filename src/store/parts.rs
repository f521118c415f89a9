//! Parts of representations that are not there as a whole (RFC 9111 §3.3, §3.4).

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use tokio::time::Instant;

use crate::{
    body::Body,
    http::{
        conditions::{self, Extent},
        fields,
        request_fields::RequestFields,
        storing::Freshness,
        vary::{Forms, Selection},
    },
    sequence::{Checked as _, Sequence},
    store::{Entry, HeadBuilder, Origin, StoredResponse},
};

/// Parts that one key may have, of all its variants. The next one takes the place of the oldest.
const MAX_PARTS: usize = 8;

/// A part of a response (206) in the store. It serves only requests for a range that lies within it.
///
/// A clone shares the content.
#[derive(Clone, Debug)]
pub struct Part {
    extent: Extent,
    /// The content: the response itself has none.
    pieces: Pieces,
    response: Arc<StoredResponse>,
}

impl Part {
    /// Its head and lifetimes. The body of that is empty.
    pub fn response(&self) -> &Arc<StoredResponse> {
        &self.response
    }

    /// The bytes that it has of the whole.
    pub fn range(&self) -> Range<usize> {
        self.extent.first..self.extent.end
    }

    /// How long the whole is, in bytes.
    pub fn total(&self) -> usize {
        self.extent.total
    }

    /// Returns the response to a request for a range that lies within, as that of a hit.
    pub(crate) fn to_hit<B>(&self, request: &HeaderMap, now: Instant) -> Response<Body<B>> {
        let mut response = self.response.to_hit(false, now, |body| body);
        if let Some(range) = self.extent.apply(request, &mut response) {
            *response.body_mut() = Body::pieces(self.pieces.slice(range));
        }
        response
    }

    /// What it costs to keep, in bytes.
    pub fn bytes(&self) -> usize {
        self.response.bytes() + self.pieces.bytes()
    }

    /// Whether it has all bytes of the whole, so that it can be [stored as one](Self::assembled).
    pub(crate) fn is_complete(&self) -> bool {
        self.extent.is_whole()
    }

    /// Returns the whole. Only for a [complete](Self::is_complete) part.
    pub(crate) async fn assembled(&self) -> Arc<StoredResponse> {
        let mut headers = self.response.headers();
        fields::remove_all(&mut headers, |name| *name == header::CONTENT_LENGTH);
        let body = self.pieces.assembled().await;
        let kept = HeadBuilder::new(StatusCode::OK, &headers, Some(body.len())).with_shared(body);
        let (terms, origin) = (*self.response.terms(), self.response.origin().clone());
        Arc::new(StoredResponse::new(kept, None, self.response.selection().cloned(), terms, origin))
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

    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&Arc<StoredResponse>) -> bool) {
        self.0.retain(|part| keeps(&part.response));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let responses: usize = self.iter().map(Part::bytes).sum();
        responses + self.0.capacity() * size_of::<Part>()
    }

    pub(super) fn drop_oldest(&mut self) {
        let oldest = self.0.iter().enumerate().min_by_key(|(_, part)| part.response.fetch_number());
        if let Some((oldest, _)) = oldest {
            self.0.remove(oldest);
        }
    }

    /// Returns a fresh part that has all that a request asks for.
    pub(super) fn select(
        &self,
        request: &RequestFields<'_>,
        sequence: &Sequence,
        now: Instant,
    ) -> Option<&Part> {
        let mut forms = Forms::default();
        self.0.iter().find(|Part { extent, response, .. }| {
            // First: it notes what a soft purge made stale.
            sequence.admits(response)
                && response.is_fresh(now)
                && response.matches(request, &mut forms)
                && extent.answers(request.fields, &response.hit_fields())
        })
    }

    /// Whether a later part shows that a whole response is of another representation.
    pub(super) fn outdate(&self, whole: &StoredResponse) -> bool {
        self.0.iter().any(|Part { extent, response, .. }| {
            let is_another = extent.total != whole.body().len()
                || conditions::confirms(&response.hit_fields(), &whole.hit_fields()) == Some(false);
            response.fetch_number() > whole.fetch_number()
                && response.selection() == whole.selection()
                && is_another
        })
    }

    /// Returns false if it is stale, or if there is a later part that is not known to be of the same
    /// representation. Earlier parts of another one go in any case.
    pub(super) fn put(&mut self, part: Part, now: Instant) -> bool {
        let Part { extent, response, .. } = &part;
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

/// A complete 206, before it is stored.
#[derive(Clone)]
pub(crate) struct Arrived {
    pub(crate) extent: Extent,
    pub(crate) headers: HeaderMap,
    /// Fields for the requesting client alone.
    pub(crate) withheld: Vec<HeaderName>,
    pub(crate) pieces: Pieces,
    pub(crate) selection: Option<Selection>,
    pub(crate) terms: Freshness,
    pub(crate) origin: Origin,
}

impl Arrived {
    /// Combines it with all stored parts of the same representation that it touches, as far as the result is
    /// not larger than `max_bytes`. Only a strong validator shows that they are of the same.
    pub(crate) fn combine(self, stored: &Entry, sequence: &Sequence, max_bytes: usize) -> Stored {
        let alone = self.clone().into_stored();
        // Combined with a part of a later fetch, it would not be seen as purged any more.
        if !sequence.admits(alone.response()) {
            return alone;
        }
        let together = self.take_up_all(stored, sequence, max_bytes).into_stored();
        // The bytes may fit, but not the fields beside them.
        if together.bytes() <= max_bytes { together } else { alone }
    }

    fn take_up_all(mut self, stored: &Entry, sequence: &Sequence, max_bytes: usize) -> Self {
        let Some(tag) = conditions::strong_tag(&self.headers).cloned() else { return self };
        let own = self.extent;
        let touching = stored.parts().filter(|part| {
            part.response.strong_tag().as_ref() == Some(&tag)
                && part.response.selection() == self.selection.as_ref()
                && sequence.admits(&part.response)
                && part.extent.touches(own)
        });
        let touching: Vec<_> = touching.collect();
        let (mut left, mut right) = (None::<&Part>, None::<&Part>);
        for &part in &touching {
            let Extent { first, end, .. } = part.extent;
            if first < own.first && left.is_none_or(|left| first < left.extent.first) {
                left = Some(part);
            } else if end > own.end && right.is_none_or(|right| end > right.extent.end) {
                right = Some(part);
            }
        }
        let join = |extent: Extent, part: Option<&Part>| part.map_or(extent, |part| part.extent.join(extent));
        left = left.filter(|left| join(own, Some(left)).len() <= max_bytes);
        right = right.filter(|right| {
            let is_apart = left.is_none_or(|left| left.extent.end <= right.extent.first);
            is_apart && join(join(own, left), Some(right)).len() <= max_bytes
        });
        self.put_between(left, right);
        let is_taken = |part: &&Part| {
            let is_within = own.first <= part.extent.first && part.extent.end <= own.end;
            is_within || [left, right].into_iter().flatten().any(|taken| std::ptr::eq(taken, *part))
        };
        touching.into_iter().filter(is_taken).for_each(|part| self.take_up_fields(part));
        self
    }

    /// Puts the content between that of stored parts on both sides. Of these, only the ends that meet are
    /// copied, however long they are.
    fn put_between(&mut self, left: Option<&Part>, right: Option<&Part>) {
        let own = self.extent;
        let start = left.map_or(own.first, |left| left.extent.end.clamp(own.first, own.end));
        let end = right.map_or(own.end, |right| right.extent.first.clamp(start, own.end));
        let mut pieces = left.map(|left| left.pieces.clone()).unwrap_or_default();
        pieces.append(&self.pieces.cut(start - own.first..end - own.first));
        if let Some(right) = right {
            pieces.append(&right.pieces);
        }
        for part in [left, right].into_iter().flatten() {
            self.extent = part.extent.join(self.extent);
        }
        self.pieces = pieces;
    }

    fn take_up_fields(&mut self, part: &Part) {
        let mut headers = part.response.headers();
        // What purges a part of it purges the whole.
        let purge_keys = Arc::new(self.origin.purge_keys.and(part.response.purge_keys()));
        // A part of an earlier fetch gives its bytes alone.
        if part.response.fetch_number() > self.origin.fetch_number {
            (self.terms, self.origin) = (*part.response.terms(), part.response.origin().clone());
        } else {
            conditions::freshen(&mut headers, &self.headers);
        }
        self.origin.purge_keys = purge_keys;
        let is_withheld = |name: &HeaderName| *name != header::DATE && self.withheld.contains(name);
        fields::remove_all(&mut headers, |name| fields::is_digest(name) || is_withheld(name));
        self.headers = headers;
    }

    /// Returns the whole if no byte is missing any more, or else a part. A whole in many pieces stays a part
    /// until it is [assembled](Part::assembled).
    pub(crate) fn into_stored(mut self) -> Stored {
        fields::remove_all(&mut self.headers, |name| {
            [header::CONTENT_RANGE, header::CONTENT_LENGTH, header::TRAILER].contains(name)
        });
        let Self { extent, headers, pieces, selection, terms, origin, .. } = self;
        let whole = if extent.is_whole() { pieces.as_one() } else { None };
        let status = if whole.is_some() { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        let length = whole.as_ref().map(Bytes::len);
        let kept = HeadBuilder::new(status, &headers, length).with_shared(whole.clone().unwrap_or_default());
        let response = Arc::new(StoredResponse::new(kept, None, selection, terms, origin));
        match whole {
            Some(_) => Stored::Whole(response),
            None => Stored::Part(Part { extent, pieces, response }),
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

    /// What it costs to keep.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Whole(response) => response.bytes(),
            Self::Part(part) => part.bytes(),
        }
    }
}

/// Two neighbours that are no longer than this together are put into one piece. So the pieces are few,
/// and what is copied to join some is bounded, however long they are.
const SMALL: usize = 64 << 10;

/// Pieces that are no longer than this together become one at once. Longer ones in the background.
const AT_ONCE: usize = 4 * SMALL;

#[cfg(test)]
thread_local! {
    static COPIED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Copies, and counts that in tests.
fn copy(bytes: &[u8], to: &mut BytesMut) {
    #[cfg(test)]
    COPIED.with(|copied| copied.set(copied.get() + bytes.len()));
    to.extend_from_slice(bytes);
}

/// Bytes in the pieces in which they came, so that they can be put together without a copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces(Vec<Bytes>);

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Vec::new() } else { vec![bytes] })
    }
}

impl Pieces {
    fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// What they cost to keep.
    fn bytes(&self) -> usize {
        self.len() + self.0.capacity() * size_of::<Bytes>()
    }

    /// These bytes of them, without a copy.
    fn slice(&self, mut range: Range<usize>) -> Vec<Bytes> {
        let mut slices = Vec::new();
        for piece in &self.0 {
            let (start, end) = (range.start.min(piece.len()), range.end.min(piece.len()));
            if start < end {
                slices.push(piece.slice(start..end));
            }
            range = range.start.saturating_sub(piece.len())..range.end.saturating_sub(piece.len());
        }
        slices
    }

    /// These bytes of them, as they are to be kept: what is cut off must not keep the rest in memory.
    fn cut(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        let mut bytes = BytesMut::with_capacity(range.len());
        self.slice(range).iter().for_each(|piece| copy(piece, &mut bytes));
        bytes.freeze().into()
    }

    /// One after the other.
    fn append(&mut self, other: &Self) {
        let mut others = other.0.iter();
        if let (Some(last), Some(first)) = (self.0.last_mut(), other.0.first())
            && last.len() + first.len() <= SMALL
        {
            let mut joined = BytesMut::with_capacity(last.len() + first.len());
            copy(last, &mut joined);
            copy(first, &mut joined);
            *last = joined.freeze();
            others.next();
        }
        self.0.reserve_exact(others.len());
        self.0.extend(others.cloned());
    }

    /// In one piece, if that costs little.
    fn as_one(&self) -> Option<Bytes> {
        match &*self.0 {
            [] => Some(Bytes::new()),
            [one] => Some(one.clone()),
            _ if self.len() > AT_ONCE => None,
            pieces => {
                let mut bytes = BytesMut::with_capacity(self.len());
                pieces.iter().for_each(|piece| copy(piece, &mut bytes));
                Some(bytes.freeze())
            }
        }
    }

    /// In one piece, with a turn for other tasks now and then.
    async fn assembled(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len());
        for chunk in self.0.iter().flat_map(|piece| piece.chunks(AT_ONCE)) {
            copy(chunk, &mut bytes);
            tokio::task::yield_now().await;
        }
        bytes.freeze()
    }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
