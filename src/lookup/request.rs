use std::sync::Arc;

use http::{Method, request::Parts};
use tokio::time::Instant;

use crate::{
    exchange::Asked,
    http::{
        cache_control::RequestDirectives, freshness::after, range::asks_for_one_part, storing::Credentials,
        vary::Selection,
    },
    key::{CacheKey, KeyExtractor},
    status::{CacheStatus, Forward, Stale},
    store::{Part, Resource, Store, StoredResponse},
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
    /// To be served, and how it came about.
    Usable(Arc<StoredResponse>, CacheStatus),
    /// A part that has what is asked for.
    Part(Part),
    /// Stale, but usable while a fresh one is fetched.
    Refreshable(Arc<StoredResponse>, Asked),
    Nothing(Asked),
}

impl<St: Store, K: KeyExtractor> Reader<St, K> {
    pub(super) fn find(
        &self,
        key: CacheKey,
        head: &Parts,
        wishes: &RequestDirectives,
        fetches_whole: bool,
        now: Instant,
    ) -> Found {
        // Noted before the store is read: what begins later is newer than what is found.
        let sequence = self.store.sequence();
        let arrival = sequence.current();
        let credentials = Credentials::of(&head.headers);
        let resource = self.store.get(&key);
        let stored =
            resource.as_ref().and_then(|resource| resource.select(&head.headers, credentials, sequence));
        if let Some((stored, status)) = stored.and_then(|stored| usable(stored, wishes, now)) {
            return Found::Usable(Arc::clone(stored), status);
        }
        let part = resource.as_ref().and_then(|resource| self.find_part(resource, head, now));
        if let Some(part) = part.filter(|part| accepts(part.response(), wishes, now)) {
            return Found::Part(part.clone());
        }
        let asks_for_part =
            !fetches_whole && stored.is_none() && asks_for_one_part(&head.method, &head.headers);
        let is_marked =
            resource.as_ref().is_some_and(|resource| resource.is_marked(credentials, asks_for_part, now));
        let has_variants = resource.as_ref().is_some_and(|resource| !resource.variants().is_empty());
        let is_refused =
            wishes.no_cache || part.is_some() || stored.is_some_and(|stored| stored.is_fresh(now));
        let why = match stored {
            _ if is_refused => Forward::Request,
            Some(_) => Forward::Stale,
            None if is_marked => Forward::Bypass,
            None if has_variants => Forward::VaryMiss,
            None => Forward::UriMiss,
        };
        let subject = sequence.subject(&*self.extractor, head, &key);
        let asked = Asked {
            key,
            arrival: Some(sequence.arrival(arrival, subject)),
            is_forced: is_refused,
            stored: Some(stored.cloned()),
            is_marked,
            selection: resource.as_ref().and_then(|resource| known_selection(resource, head)),
            why,
        };
        match stored {
            Some(stored) if accepts(stored, wishes, now) && stored.is_usable_while_revalidating(now) => {
                Found::Refreshable(Arc::clone(stored), asked)
            }
            _ => Found::Nothing(asked),
        }
    }
}

impl<St: Store, K> Reader<St, K> {
    /// A fresh part that has all of what a request asks for.
    fn find_part<'a>(&self, resource: &'a Resource, head: &Parts, now: Instant) -> Option<&'a Part> {
        if head.method != Method::GET {
            return None;
        }
        let credentials = Credentials::of(&head.headers);
        resource.select_part(&head.headers, credentials, self.store.sequence(), now)
    }
}

/// Fresh, or as stale as the client says that it may be (RFC 9111 §5.2.1.2).
fn usable<'a>(
    stored: &'a Arc<StoredResponse>,
    wishes: &RequestDirectives,
    now: Instant,
) -> Option<(&'a Arc<StoredResponse>, CacheStatus)> {
    if !accepts(stored, wishes, now) {
        return None;
    }
    if stored.is_fresh(now) {
        return Some((stored, CacheStatus::hit()));
    }
    let may_be_stale = wishes.max_stale.is_some_and(|max_stale| stored.is_usable_if_stale_by(max_stale, now));
    may_be_stale.then_some((stored, CacheStatus::stale(Stale::AsRequested)))
}

/// Whether the client takes a stored answer of this age (RFC 9111 §5.2.1).
fn accepts(stored: &StoredResponse, wishes: &RequestDirectives, now: Instant) -> bool {
    !wishes.no_cache
        && wishes.max_age.is_none_or(|max_age| stored.age(now) <= max_age)
        && wishes.min_fresh.is_none_or(|min_fresh| stored.is_fresh(after(now, min_fresh)))
}

/// The latest answer is the best guess at what selects the next one.
fn known_selection(resource: &Resource, head: &Parts) -> Option<Selection> {
    let fields = resource.variants().first()?.selection()?.fields();
    Some(Selection::new(fields, &head.headers))
}
