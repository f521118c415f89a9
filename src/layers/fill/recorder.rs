//! From the head of a response to its place in the store, while its body is read.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, response};
use tokio::time::Instant;

use crate::{
    body, exchange,
    executor::Executor,
    http::{conditions, fields, response_fields::ResponseFields, storing, vary},
    origin::AnsweredBy,
    sequence,
    store::{self, Store},
};

/// A response that may be stored, and how.
pub(super) struct Recording<'a> {
    pub(super) extent: Option<conditions::Extent>,
    pub(super) decision: &'a storing::Decision,
    pub(super) selection: &'a Option<vary::Selection>,
    pub(super) origin: &'a store::Origin,
    /// Left if the body is too large.
    pub(super) hit_for_miss: Option<store::HitForMiss>,
}

impl Recording<'_> {
    /// Stores the response once its body, which is returned, has been read.
    pub(super) fn start<St: Store, B: body::ResponseBody>(
        self,
        (store, client): (St, &Arc<exchange::RequestCopy>),
        head: &response::Parts,
        (body, response_fields): (B, &ResponseFields),
        fetching: sequence::Fetching,
    ) -> body::Body<B> {
        let Self { extent, decision, selection, origin, hit_for_miss } = self;
        let fields = kept(&head.headers, response_fields, &decision.withheld);
        let length = response_fields.content.and_then(|length| usize::try_from(length).ok());
        let pending = Pending {
            content: match extent {
                Some(extent) => Content::Part(extent, fields.into_owned()),
                None => Content::Whole(store::HeadBuilder::new(head.status, &fields, length)),
            },
            length,
            withheld: decision.withheld.clone(),
            selection: selection.clone(),
            terms: decision.terms,
            origin: origin.clone(),
            answered_by: head.extensions.get().copied(),
            fetching,
        };
        record(store, Arc::clone(client), pending, hit_for_miss, (body, response_fields.content))
    }
}

/// The most bytes that are reserved for a body by its declared length: it may never arrive.
const MAX_RESERVED: usize = 256 << 10;

/// What is known of a response when its head is there.
struct Pending {
    content: Content,
    /// How long the body is, if that is known.
    length: Option<usize>,
    withheld: Vec<HeaderName>,
    selection: Option<vary::Selection>,
    terms: storing::Freshness,
    origin: store::Origin,
    answered_by: Option<AnsweredBy>,
    /// What is purged while the body comes in has to be remembered.
    fetching: sequence::Fetching,
}

/// What the body is the content of.
enum Content {
    Whole(store::HeadBuilder),
    Part(conditions::Extent, HeaderMap),
}

/// Keeps the chunks of a body as they pass and stores the response when it is complete: at the end of
/// the body, or when the body is dropped after as many bytes as its head declared.
struct Recorder<St: Store> {
    store: St,
    client: Arc<exchange::RequestCopy>,
    /// `None` once the response is stored, or known not to be.
    pending: Option<Pending>,
    /// Copied: a chunk may be a small part of a large read buffer, and keep all of it alive.
    block: store::BodyBuffer,
    trailers: Option<Arc<HeaderMap>>,
    /// Left if the body is too large.
    marker: Option<store::HitForMiss>,
}

/// Watches a body, and that it is as long as its head says. One that is empty from the start is complete
/// now: it may never be polled.
fn record<St: Store, B>(
    store: St,
    client: Arc<exchange::RequestCopy>,
    mut pending: Pending,
    marker: Option<store::HitForMiss>,
    (body, content): (B, Option<u64>),
) -> body::Body<B>
where
    B: body::ResponseBody,
{
    if body.is_end_stream() {
        let block = store::BodyBuffer::new(0);
        Recorder { store, client, pending: Some(pending), block, trailers: None, marker }.finish();
        return body::Body::declared(body, content);
    }
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let expected = expected.min(store.max_response_bytes()).min(MAX_RESERVED);
    let block = match &mut pending.content {
        Content::Whole(draft) => draft.block(expected),
        Content::Part(..) => store::BodyBuffer::new(expected),
    };
    let recorder = Recorder { store, client, pending: Some(pending), block, trailers: None, marker };
    body::Body::recorded(body, content, recorder)
}

impl<St: Store> Recorder<St> {
    /// Stores what came in, and says what came of it.
    fn finish(&mut self) -> store::Applied {
        let Some(pending) = self.pending.take() else { return store::Applied::Unchanged };
        let block = std::mem::replace(&mut self.block, store::BodyBuffer::new(0));
        // As long as the head said, or else the body of itself, if they said anything (RFC 9111 §3.3).
        let expected = match &pending.content {
            Content::Whole(_) => pending.length,
            Content::Part(extent, _) => Some(extent.len()),
        };
        let is_incomplete = [expected, pending.length].iter().flatten().any(|length| *length != block.len());
        if is_incomplete {
            return self.refuse(store::Applied::NotStored(storing::NotStored::Incomplete));
        }
        // Until it is stored: what is purged meanwhile has to be remembered.
        let (stored, _fetching) = self.stored(pending, block);
        if stored.bytes() > self.store.max_response_bytes() {
            return self.give_up();
        }
        // Each request that selects it asks again: this only spares the room.
        if !self.store.sequence().admits(stored.response()) {
            return self.refuse(store::Applied::NotStored(storing::NotStored::PurgedMeanwhile));
        }
        self.put(stored)
    }

    fn stored(&mut self, pending: Pending, block: store::BodyBuffer) -> (store::Stored, sequence::Fetching) {
        let Pending { content, withheld, selection, terms, origin, answered_by, fetching, .. } = pending;
        let stored = match content {
            Content::Whole(draft) => {
                let trailers = self.trailers.take();
                let response =
                    store::StoredResponse::new(draft.with(block), trailers, selection, terms, origin);
                store::Stored::Whole(Arc::new(response.answered_by(answered_by)))
            }
            // With what else is stored of the same representation (RFC 9111 §3.4).
            Content::Part(extent, headers) => {
                let pieces = block.into_body().into();
                let arrived = store::Arrived { extent, headers, withheld, pieces, selection, terms, origin };
                match self.store.get(self.client.asked().key()) {
                    Some(entry) => {
                        arrived.combine(&entry, self.store.sequence(), self.store.max_response_bytes())
                    }
                    None => arrived.into_stored(),
                }
            }
        };
        (stored, fetching)
    }

    fn put(&self, stored: store::Stored) -> store::Applied {
        let (request, at) = (self.client.to_headers(), Instant::now());
        let key = self.client.asked().key();
        let part = match stored {
            store::Stored::Whole(response) => {
                return self.store.apply(key, store::Change::Put { response, request, at });
            }
            store::Stored::Part(part) => part,
        };
        let complete = part.is_complete().then(|| part.clone());
        let applied = self.store.apply(key, store::Change::PutPart { part, request, at });
        complete.into_iter().for_each(|part| self.assemble(part));
        applied
    }

    /// Stores a whole that is too long to be put together while its body is polled.
    ///
    /// Outside a runtime it stays a part, and serves ranges alone.
    fn assemble(&self, part: store::Part) {
        if !Executor::is_available() {
            return;
        }
        let (store, client) = (self.store.clone(), Arc::clone(&self.client));
        Executor::default().spawn(Box::pin(async move {
            let response = part.assembled().await;
            let (key, request) = (client.asked().key(), client.to_headers());
            match store.sequence().admits(&response) {
                true => _ = store.apply(key, store::Change::Put { response, request, at: Instant::now() }),
                false => {
                    store.not_stored(key, store::Applied::NotStored(storing::NotStored::PurgedMeanwhile));
                }
            }
        }));
    }

    /// The body is too large: keeps no more of it, and leaves a marker.
    fn give_up(&mut self) -> store::Applied {
        self.pending = None;
        self.block = store::BodyBuffer::new(0);
        if let Some(marker) = self.marker.filter(|marker| Instant::now() < marker.until()) {
            self.store.apply(self.client.asked().key(), store::Change::HitForMiss(marker));
        }
        self.refuse(store::Applied::NotStored(storing::NotStored::TooLarge))
    }

    fn refuse(&self, reason: store::Applied) -> store::Applied {
        self.store.not_stored(self.client.asked().key(), reason);
        reason
    }
}

impl<St: Store> body::Observer for Recorder<St> {
    fn data(&mut self, chunk: &Bytes) {
        if self.pending.is_none() {
            return;
        }
        if self.block.len().saturating_add(chunk.len()) > self.store.max_response_bytes() {
            self.give_up();
            return;
        }
        self.block.push(chunk);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        let mut trailers = trailers.clone();
        fields::clean_trailers(&mut trailers, self.pending.as_ref().map_or(&[], |pending| &pending.withheld));
        self.trailers = (!trailers.is_empty()).then(|| Arc::new(trailers));
    }

    fn failed(&mut self) {
        if self.pending.take().is_some() {
            self.refuse(store::Applied::NotStored(storing::NotStored::Incomplete));
            if let Some(watch) = self.client.asked().key_watch() {
                watch.note_failed_fetch(None);
            }
        }
    }

    fn complete(&mut self) {
        self.finish();
    }
}

/// A server over HTTP/1 drops a body of a declared length without asking it for its end.
impl<St: Store> Drop for Recorder<St> {
    fn drop(&mut self) {
        let Some(pending) = &self.pending else { return };
        _ = match pending.length == Some(self.block.len()) {
            true => self.finish(),
            false => self.refuse(store::Applied::NotStored(storing::NotStored::Incomplete)),
        };
    }
}

/// The fields that may be kept, with a valid `Date` in any case.
fn kept<'a>(
    headers: &'a HeaderMap,
    response_fields: &ResponseFields,
    withheld: &[HeaderName],
) -> Cow<'a, HeaderMap> {
    let mut kept = Cow::Borrowed(headers);
    if !response_fields.has_date() || headers.keys().any(|name| withheld.contains(name)) {
        fields::remove_all(kept.to_mut(), |name| withheld.contains(name));
        response_fields.give_date(kept.to_mut());
    }
    kept
}
