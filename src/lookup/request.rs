use std::sync::Arc;

use http::{Method, request::Parts};
use tokio::time::Instant;

use super::layer::Settings;
use crate::{
    exchange::Asked,
    http::{
        cache_control::RequestDirectives, freshness::after, glance::Glance, range::asks_for_one_part,
        vary::Selection,
    },
    key::{KeyBuffer, KeyExtractor},
    status::{CacheStatus, Forward, Stale},
    store::{Invalidates, Part, Resource, Sequence, Store, StoredResponse},
};

/// Finds what a request may be answered with.
pub(super) struct Reader<St, K> {
    pub(super) store: St,
    pub(super) extractor: Arc<K>,
    pub(super) settings: Arc<Settings>,
}

impl<St: Store, K: KeyExtractor> Invalidates for Reader<St, K> {
    fn sequence(&self) -> &Sequence {
        self.store.sequence()
    }

    fn extractor(&self) -> &dyn KeyExtractor {
        &*self.extractor
    }
}

/// What is asked, and when.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) key: &'a KeyBuffer,
    pub(super) head: &'a Parts,
    pub(super) glance: Glance<'a>,
    pub(super) fetches_whole: bool,
    pub(super) now: Instant,
}

/// What the store had when a request arrived.
pub(super) struct Reading {
    /// Noted before the store was read: what begins later is newer than what was found.
    arrival: u64,
    resource: Option<Arc<Resource>>,
}

#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and only a miss moves it")]
pub(super) enum Found<'a> {
    /// To be served, and how it came about.
    Usable(&'a StoredResponse, CacheStatus),
    /// A part that has what is asked for.
    Part(&'a Part),
    /// Stale, but usable while a fresh one is fetched.
    Refreshable(&'a Arc<StoredResponse>, Asked),
    Nothing(Asked),
}

impl<St: Store, K: KeyExtractor> Reader<St, K> {
    pub(super) fn read(&self, key: &KeyBuffer) -> Reading {
        let arrival = self.store.sequence().current();
        Reading { arrival, resource: self.store.get(key.as_bytes()) }
    }

    #[inline]
    pub(super) fn find<'a>(
        &self,
        reading: &'a Reading,
        question: &Question<'_>,
        wishes: &RequestDirectives,
    ) -> Found<'a> {
        let Question { glance, now, .. } = *question;
        let (sequence, resource) = (self.store.sequence(), reading.resource.as_deref());
        let stored = resource.and_then(|resource| resource.select(&glance, sequence));
        if let Some(stored) = stored
            && let Some(status) = usable(stored, wishes, now)
        {
            return Found::Usable(stored, status);
        }
        let part = resource.and_then(|resource| self.find_part(resource, question));
        if let Some(part) = part.filter(|part| accepts(part.response(), wishes, now)) {
            return Found::Part(part);
        }
        let is_refused =
            wishes.no_cache || part.is_some() || stored.is_some_and(|stored| stored.is_fresh(now));
        let asked = self.asked(reading, stored, question, is_refused);
        match stored {
            Some(stored) if accepts(stored, wishes, now) && stored.is_usable_while_revalidating(now) => {
                Found::Refreshable(stored, asked)
            }
            _ => Found::Nothing(asked),
        }
    }

    /// What is asked of the layers below.
    fn asked(
        &self,
        reading: &Reading,
        stored: Option<&Arc<StoredResponse>>,
        question: &Question<'_>,
        is_refused: bool,
    ) -> Asked {
        let Question { key, head, glance, fetches_whole, now } = *question;
        let (sequence, resource) = (self.store.sequence(), reading.resource.as_deref());
        let asks_for_part = glance.has_range
            && !fetches_whole
            && stored.is_none()
            && asks_for_one_part(&head.method, &head.headers);
        let is_marked =
            resource.is_some_and(|resource| resource.is_marked(glance.credentials, asks_for_part, now));
        let has_variants = resource.is_some_and(|resource| !resource.variants().is_empty());
        let why = match stored {
            _ if is_refused => Forward::Request,
            Some(_) => Forward::Stale,
            None if is_marked => Forward::Bypass,
            None if has_variants => Forward::VaryMiss,
            None => Forward::UriMiss,
        };
        let key = key.to_key();
        let subject = sequence.subject(&*self.extractor, head, &key);
        Asked {
            key,
            arrival: Some(sequence.arrival(reading.arrival, subject)),
            is_forced: is_refused,
            stored: Some(stored.cloned()),
            is_marked,
            selection: resource.and_then(|resource| known_selection(resource, head)),
            is_for_many: false,
            why,
        }
    }
}

impl<St: Store, K> Reader<St, K> {
    /// A fresh part that has all of what a request asks for.
    fn find_part<'a>(&self, resource: &'a Resource, question: &Question<'_>) -> Option<&'a Part> {
        let Question { head, glance, now, .. } = *question;
        if head.method != Method::GET {
            return None;
        }
        resource.select_part(&glance, self.store.sequence(), now)
    }
}

/// Fresh, or as stale as the client says that it may be (RFC 9111 §5.2.1.2).
fn usable(stored: &StoredResponse, wishes: &RequestDirectives, now: Instant) -> Option<CacheStatus> {
    if !accepts(stored, wishes, now) {
        return None;
    }
    if stored.is_fresh(now) {
        return Some(CacheStatus::hit());
    }
    let may_be_stale = wishes.max_stale.is_some_and(|max_stale| stored.is_usable_if_stale_by(max_stale, now));
    may_be_stale.then_some(CacheStatus::stale(Stale::AsRequested))
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
