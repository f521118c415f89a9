use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use crate::{
    body::{Body, BoxError, Observer},
    http::{fields::clean_trailers, range::Extent, storing::Terms, vary::Selection},
    key::CacheKey,
    store::{Arrived, Fetching, Marker, Origin, Store, Stored, StoredResponse},
};

/// What is known of a response when its head is there.
pub(super) struct Pending {
    pub(super) status: StatusCode,
    /// Of a 206.
    pub(super) extent: Option<Extent>,
    pub(super) headers: HeaderMap,
    pub(super) withheld: Vec<HeaderName>,
    pub(super) selection: Option<Selection>,
    pub(super) terms: Terms,
    pub(super) origin: Origin,
    /// What is purged while the body comes in has to be remembered.
    pub(super) fetching: Fetching,
}

/// Keeps the chunks of a body as they pass and stores the response when it is complete.
pub(super) struct Recorder<St> {
    store: St,
    key: CacheKey,
    /// `None` once the body turned out too large.
    pending: Option<Pending>,
    /// Copied: a chunk may be a small part of a large read buffer, and keep all of it alive.
    body: Vec<u8>,
    trailers: Option<Arc<HeaderMap>>,
    /// Left if the body is too large.
    marker: Marker,
}

impl<St: Store> Recorder<St> {
    pub(super) fn new(store: St, key: CacheKey, pending: Pending, marker: Marker) -> Self {
        Self { store, key, pending: Some(pending), body: Vec::new(), trailers: None, marker }
    }

    /// Watches a body. One that is empty from the start is complete now: nobody may poll it.
    pub(super) fn record<B>(mut self, body: B) -> Body<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            self.complete();
            return Body::inner(body);
        }
        // As much at once as is sure to come, within the limit.
        let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        self.body.reserve_exact(expected.min(self.store.max_response_bytes()));
        Body::observed(body, self)
    }

    fn give_up(&mut self) {
        self.pending = None;
        self.body = Vec::new();
        self.store.refused();
        let marker = self.marker;
        if marker.until > Instant::now() {
            self.store.update(&self.key, &mut |resource| resource.mark(marker));
        }
    }
}

impl<St: Store> Observer for Recorder<St> {
    fn data(&mut self, chunk: &Bytes) {
        if self.pending.is_none() {
            return;
        }
        if self.body.len().saturating_add(chunk.len()) > self.store.max_response_bytes() {
            return self.give_up();
        }
        self.body.extend_from_slice(chunk);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        let mut trailers = trailers.clone();
        clean_trailers(&mut trailers, self.pending.as_ref().map_or(&[], |pending| &pending.withheld));
        self.trailers = (!trailers.is_empty()).then(|| Arc::new(trailers));
    }

    fn complete(mut self) {
        let Some(pending) = self.pending.take() else { return };
        if !has_declared_length(&pending.headers, self.body.len()) {
            return;
        }
        let body = Bytes::from(std::mem::take(&mut self.body).into_boxed_slice());
        match pending.extent {
            Some(extent) => self.store_part(pending, extent, body),
            None => self.store_whole(pending, body),
        }
    }
}

impl<St: Store> Recorder<St> {
    fn store_whole(&mut self, pending: Pending, body: Bytes) {
        let Pending { status, headers, selection, terms, origin, fetching: _fetching, .. } = pending;
        let trailers = self.trailers.take();
        let response =
            Arc::new(StoredResponse::new(status, &headers, body, trailers, selection, terms, origin));
        self.put(&Stored::Whole(response));
    }

    /// With what else is stored of the same representation (RFC 9111 §3.4).
    fn store_part(&mut self, pending: Pending, extent: Extent, body: Bytes) {
        if body.len() != extent.len() {
            return;
        }
        let Pending { headers, withheld, selection, terms, origin, fetching: _fetching, .. } = pending;
        let arrived = Arrived { extent, headers, withheld, body, selection, terms, origin };
        let limit = self.store.max_response_bytes();
        self.put(&match self.store.get(&self.key) {
            Some(resource) => arrived.combine(&resource, self.store.sequence(), limit),
            None => arrived.into_stored(),
        });
    }

    fn put(&mut self, stored: &Stored) {
        let response = stored.response();
        if response.bytes() > self.store.max_response_bytes() {
            return self.give_up();
        }
        // Whoever reads it asks again: this only spares the room.
        if !self.store.sequence().admits(response) {
            return;
        }
        let now = Instant::now();
        self.store.update(&self.key, &mut |resource| {
            _ = match stored {
                Stored::Whole(response) => resource.put(response, now),
                Stored::Part(part) => resource.put_part(part.clone(), now),
            };
        });
    }
}

/// Whether the body is as long as the head said, if it said anything (RFC 9111 §3.3).
fn has_declared_length(headers: &HeaderMap, length: usize) -> bool {
    let mut declared = headers.get_all(header::CONTENT_LENGTH).iter();
    declared.all(|value| value.to_str().ok().and_then(|value| value.parse().ok()) == Some(length))
}
