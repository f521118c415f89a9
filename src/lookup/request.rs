use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use crate::{
    body::Body,
    exchange::Asked,
    http::{
        conditions::{client_has, make_not_modified, only_origin_can_answer},
        storing::Credentials,
        vary::Selection,
    },
    key::{self, CacheKey, KeyExtractor},
    status::Forward,
    store::{Resource, Store, StoredResponse},
};

/// Finds what a request may be answered with.
pub(super) struct Reader<St, K> {
    pub(super) store: St,
    pub(super) extractor: Arc<K>,
}

impl<St: Clone, K> Clone for Reader<St, K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), extractor: Arc::clone(&self.extractor) }
    }
}

pub(super) enum Found {
    Fresh(Arc<StoredResponse>),
    /// Stale, but usable while a fresh one is fetched.
    Refreshable(Arc<StoredResponse>, Asked),
    Nothing(Asked),
}

impl<St: Store, K: KeyExtractor> Reader<St, K> {
    pub(super) fn key<B: HttpBody>(&self, head: &Parts, body: &B) -> Option<CacheKey> {
        key::find(&*self.extractor, head, body).filter(|_| !only_origin_can_answer(&head.headers))
    }

    pub(super) fn find(&self, key: CacheKey, head: &Parts, now: Instant) -> Found {
        // Noted before the store is read: what begins later is newer than what is found.
        let sequence = self.store.sequence();
        let arrival = sequence.current();
        let credentials = Credentials::of(&head.headers);
        let resource = self.store.get(&key);
        let stored =
            resource.as_ref().and_then(|resource| resource.select(&head.headers, credentials, sequence));
        if let Some(stored) = stored.filter(|stored| stored.is_fresh(now)) {
            return Found::Fresh(Arc::clone(stored));
        }
        let why = match &resource {
            _ if stored.is_some() => Forward::Stale,
            Some(resource) if resource.is_marked(credentials, now) => Forward::Bypass,
            Some(resource) if !resource.variants().is_empty() => Forward::VaryMiss,
            _ => Forward::UriMiss,
        };
        let asked = Asked {
            key,
            arrival,
            floor: sequence.floor(sequence.place_of(head)),
            is_forced: false,
            stored: Some(stored.cloned()),
            is_marked: resource.as_ref().is_some_and(|resource| resource.is_marked(credentials, now)),
            selection: resource.as_ref().and_then(|resource| known_selection(resource, head)),
            why,
        };
        match stored {
            Some(stored) if stored.is_usable_while_revalidating(now) => {
                Found::Refreshable(Arc::clone(stored), asked)
            }
            _ => Found::Nothing(asked),
        }
    }
}

/// The latest answer is the best guess at what selects the next one.
fn known_selection(resource: &Resource, head: &Parts) -> Option<Selection> {
    let fields = resource.variants().first()?.selection()?.fields();
    Some(Selection::new(fields, &head.headers))
}

/// Tells a client that has the response already just that (RFC 9110 §13.1).
pub(super) fn answer_conditions<B>(conditions: &HeaderMap, response: &mut Response<Body<B>>) {
    if response.status() == StatusCode::OK && client_has(conditions, response.headers()) {
        let mut status = response.status();
        make_not_modified(&mut status, response.headers_mut());
        *response.status_mut() = status;
        *response.body_mut() = Body::default();
    }
}
