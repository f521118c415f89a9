use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use super::fetch::Client;
use crate::{
    body::{Body, BoxError, Observer},
    executor::Executor,
    http::{fields::clean_trailers, range::Extent, storing::Freshness, vary::Selection},
    sequence::Fetching,
    store::{
        Arrived, BodyBuffer, HeadBuilder, HitForMiss, Origin, Part, Pieces, Store, Stored, StoredResponse,
    },
};

/// So much room is made at once for what the head promises: a body that never comes takes no more.
const MAX_RESERVED: usize = 256 << 10;

/// What is known of a response when its head is there.
pub(super) struct Pending {
    pub(super) content: Content,
    /// How long the body is, if that is known.
    pub(super) length: Option<usize>,
    pub(super) withheld: Vec<HeaderName>,
    pub(super) selection: Option<Selection>,
    pub(super) terms: Freshness,
    pub(super) origin: Origin,
    /// What is purged while the body comes in has to be remembered.
    pub(super) fetching: Fetching,
}

/// What the body is the content of.
pub(super) enum Content {
    Whole(HeadBuilder),
    Part(Extent, HeaderMap),
}

/// Keeps the chunks of a body as they pass and stores the response when it is complete: at the end of
/// the body, or when the body is dropped after as many bytes as its head declared.
struct Recorder<St: Store> {
    store: St,
    client: Arc<Client>,
    /// `None` once the response is stored, or known not to be.
    pending: Option<Pending>,
    /// Copied: a chunk may be a small part of a large read buffer, and keep all of it alive.
    block: BodyBuffer,
    trailers: Option<Arc<HeaderMap>>,
    /// Left if the body is too large.
    marker: Option<HitForMiss>,
}

/// Watches a body, and that it is as long as its head says. One that is empty from the start is complete
/// now: it may never be polled.
pub(super) fn record<St: Store, B>(
    store: St,
    client: Arc<Client>,
    mut pending: Pending,
    marker: Option<HitForMiss>,
    (body, content): (B, Option<u64>),
) -> Body<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        let block = BodyBuffer::new(0);
        Recorder { store, client, pending: Some(pending), block, trailers: None, marker }.complete();
        return Body::declared(body, content);
    }
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let expected = expected.min(store.max_response_bytes()).min(MAX_RESERVED);
    let block = match &mut pending.content {
        Content::Whole(draft) => draft.block(expected),
        Content::Part(..) => BodyBuffer::new(expected),
    };
    let recorder = Recorder { store, client, pending: Some(pending), block, trailers: None, marker };
    Body::recorded(body, content, recorder)
}

impl<St: Store> Recorder<St> {
    fn give_up(&mut self) {
        self.pending = None;
        self.block = BodyBuffer::new(0);
        self.store.refused();
        if let Some(marker) = self.marker.filter(|marker| Instant::now() < marker.until) {
            self.store.update(&self.client.asked.key, &mut |resource| resource.mark(marker));
        }
    }
}

impl<St: Store> Observer for Recorder<St> {
    fn data(&mut self, chunk: &Bytes) {
        if self.pending.is_none() {
            return;
        }
        if self.block.len().saturating_add(chunk.len()) > self.store.max_response_bytes() {
            return self.give_up();
        }
        self.block.push(chunk);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        let mut trailers = trailers.clone();
        clean_trailers(&mut trailers, self.pending.as_ref().map_or(&[], |pending| &pending.withheld));
        self.trailers = (!trailers.is_empty()).then(|| Arc::new(trailers));
    }

    fn failed(&mut self) {
        self.pending = None;
    }

    fn complete(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        // As long as the head said, or else the body of itself, if they said anything (RFC 9111 §3.3).
        if pending.length.is_some_and(|length| length != self.block.len()) {
            return;
        }
        let block = std::mem::replace(&mut self.block, BodyBuffer::new(0));
        let Pending { content, withheld, selection, terms, origin, fetching: _fetching, .. } = pending;
        let limit = self.store.max_response_bytes();
        let stored = match content {
            Content::Whole(draft) => {
                let trailers = self.trailers.take();
                let response = StoredResponse::new(draft.with(block), trailers, selection, terms, origin);
                Stored::Whole(Arc::new(response))
            }
            Content::Part(extent, _) if block.len() != extent.len() => return,
            // With what else is stored of the same representation (RFC 9111 §3.4).
            Content::Part(extent, headers) => {
                let body = block.into_body();
                let pieces = Pieces::from(body);
                let arrived = Arrived { extent, headers, withheld, pieces, selection, terms, origin };
                match self.store.get(&self.client.asked.key) {
                    Some(resource) => arrived.combine(&resource, self.store.sequence(), limit),
                    None => arrived.into_stored(),
                }
            }
        };
        self.put(&stored);
    }
}

/// A server over HTTP/1 drops a body of a declared length without asking it for its end.
impl<St: Store> Drop for Recorder<St> {
    fn drop(&mut self) {
        let length = self.pending.as_ref().and_then(|pending| pending.length);
        if length == Some(self.block.len()) {
            self.complete();
        }
    }
}

impl<St: Store> Recorder<St> {
    fn put(&mut self, stored: &Stored) {
        let response = stored.response();
        if stored.bytes() > self.store.max_response_bytes() {
            return self.give_up();
        }
        // Whoever reads it asks again: this only spares the room.
        if !self.store.sequence().admits(response) {
            return;
        }
        let (request, now) = (&self.client.head.headers, Instant::now());
        self.store.update(&self.client.asked.key, &mut |resource| {
            _ = match stored {
                Stored::Whole(response) => resource.put(response, request, now),
                Stored::Part(part) => resource.put_part(part.clone(), request, now),
            };
        });
        if let Stored::Part(part) = stored
            && part.is_complete()
        {
            self.assemble(part.clone());
        }
    }

    /// Stores a whole that is too long to be put together while its body is polled.
    ///
    /// Outside a runtime it stays a part, and serves ranges alone.
    fn assemble(&self, part: Part) {
        if !Executor::is_available() {
            return;
        }
        let (store, client) = (self.store.clone(), Arc::clone(&self.client));
        Executor::default().spawn(async move {
            let whole = part.assembled().await;
            if store.sequence().admits(&whole) {
                let (key, request) = (&client.asked.key, &client.head.headers);
                store.update(key, &mut |resource| _ = resource.put(&whole, request, Instant::now()));
            }
        });
    }
}
