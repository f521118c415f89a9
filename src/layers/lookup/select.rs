//! What is stored for a request, and why it does not do (RFC 9111 §4, RFC 9211 §2.2).

use std::{sync::Arc, time::Duration};

use http::{Method, Response, request::Parts};
use tokio::{sync::Semaphore, time::Instant};

use super::report::Fetches;
use crate::{
    exchange::{
        self,
        status::{CacheStatus, Forward, Lost},
    },
    executor::Executor,
    http::{
        cache_control::RequestDirectives,
        request_fields::{Credentials, RequestFields},
        rules::RequestRules,
        storing::after,
        vary::{Forms, Selection},
    },
    key::{self, KeyBuffer, KeyExtractor},
    layers::invalidation::Invalidates,
    observe::Stats,
    origin::OriginHealth,
    purge::{Naming, Purge},
    sequence,
    store::{self, Store},
};

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) refresh_deadline: Duration,
    pub(super) health: OriginHealth,
    /// Whether stale responses are served without asking the origin because of what it has done.
    pub(super) serves_in_outages: bool,
    pub(super) max_stale_while_up: Option<Duration>,
    pub(super) refreshes: Arc<Semaphore>,
    pub(super) executor: Executor,
    pub(super) field: exchange::StatusField,
    pub(super) observers: exchange::Observers,
    pub(super) follows_requests: bool,
    pub(super) fetches_whole: bool,
    pub(super) request: RequestRules,
    /// `Some`: the cache only reports what it would do.
    pub(super) reports: Option<Arc<Fetches>>,
}

/// Refreshes under way at a time.
const MAX_REFRESHES: usize = 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh_deadline: Duration::from_secs(30),
            health: OriginHealth::default(),
            serves_in_outages: false,
            max_stale_while_up: None,
            refreshes: Arc::new(Semaphore::new(MAX_REFRESHES)),
            executor: Executor::default(),
            field: exchange::StatusField::default(),
            observers: exchange::Observers::NONE,
            follows_requests: false,
            fetches_whole: false,
            request: RequestRules::default(),
            reports: None,
        }
    }
}

impl Settings {
    /// Whether [`finish`](Self::finish) does nothing but count, for a response that says so much.
    #[inline]
    pub(super) fn leaves_responses(&self, detail: exchange::CacheStatusDetail) -> bool {
        self.field.leaves(detail) & self.observers.makes_no_records()
    }

    /// Finishes a response that leaves the cache: observers are told, and clients see what they are to see.
    /// `came_about` is how it came about, unless it says so itself, and `rule` that of the request, if it is wanted.
    pub(super) fn finish<B>(
        &self,
        mut response: Response<B>,
        (came_about, detail): (CacheStatus, exchange::CacheStatusDetail),
        rule: Option<&str>,
        full: impl FnOnce() -> exchange::FullStatus,
    ) -> Response<B> {
        self.observers.finish(&response, came_about, rule);
        self.field.write(&mut response, detail, full);
        response
    }
}

/// The extractor that holds for a request, if that is another one than the configured one.
pub(super) type Edition<'e> = Option<&'e dyn KeyExtractor>;

/// The store and what is read from it: what all services of a layer share.
pub(crate) struct Reader<St, K> {
    pub(super) store: St,
    pub(super) extractor: Arc<K>,
    pub(super) settings: Arc<Settings>,
}

impl<St: Store, K: KeyExtractor> Invalidates for Reader<St, K> {
    fn sequence(&self) -> &sequence::Sequence {
        self.store.sequence()
    }

    fn extractor(&self) -> &dyn KeyExtractor {
        &*self.extractor
    }

    fn stats(&self) -> Option<&Stats> {
        self.settings.observers.stats()
    }
}

/// A request, and the time at which it is looked up.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) key: &'a KeyBuffer,
    pub(super) edition: Edition<'a>,
    pub(super) head: &'a Parts,
    pub(super) fields: &'a RequestFields<'a>,
    pub(super) settings: &'a Settings,
    /// How much the response says.
    pub(super) detail: exchange::CacheStatusDetail,
    /// What names the rule of the request.
    pub(super) extractor: &'a dyn KeyExtractor,
    pub(super) now: Instant,
}

impl Question<'_> {
    /// Whether a stored response can be served as it stands, and no observer has to be told.
    pub(super) fn is_plain(&self) -> bool {
        !self.fields.has_precondition && !self.fields.has_range && self.settings.leaves_responses(self.detail)
    }

    /// Finishes a response that leaves the cache, which is this stored one if one is given.
    pub(super) fn finish<B>(
        &self,
        response: Response<B>,
        came_about: CacheStatus,
        stored: Option<&store::StoredResponse>,
    ) -> Response<B> {
        let full = || exchange::FullStatus { ttl: stored.map(|stored| stored.ttl(self.now)), ..self.full() };
        let rule = self.settings.observers.counts_by_rule().then(|| self.rule()).flatten();
        self.settings.finish(response, (came_about, self.detail), rule.as_deref(), full)
    }

    /// What a full status says of the request.
    pub(super) fn full(&self) -> exchange::FullStatus {
        exchange::FullStatus { ttl: None, key: Some(key::digest(self.key.as_bytes())), rule: self.rule() }
    }

    /// The name of the rule that decides about the request.
    fn rule(&self) -> Option<String> {
        self.edition.unwrap_or(self.extractor).rule(self.head)
    }
}

/// What the store had when a request arrived.
pub(super) struct Reading {
    /// Noted before the store was read: what begins later is newer than what was found.
    arrival: u64,
    entry: Option<Arc<store::Entry>>,
}

impl Reading {
    /// The whole responses under the key.
    pub(super) fn variants(&self) -> &[Arc<store::StoredResponse>] {
        self.entry.as_deref().map_or(&[], store::Entry::variants)
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> usize {
        self.entry.as_deref().map_or(0, |entry| entry.parts().count())
    }

    /// How long requests with these credentials do not wait for each other.
    pub(super) fn hit_for_miss_for(
        &self,
        credentials: Credentials,
        is_for_part: bool,
        now: Instant,
    ) -> Option<Duration> {
        let until = self.entry.as_deref()?.hit_for_miss_until(credentials, is_for_part)?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and only a miss moves it")]
pub(super) enum Found<'a> {
    /// As stale as the client says that it may be (RFC 9111 §5.2.1.2).
    Stale(&'a store::StoredResponse),
    /// A part that has what is asked for.
    Part(&'a store::Part),
    /// Stale, but usable while a fresh one is fetched.
    Refreshable(&'a Arc<store::StoredResponse>, exchange::CacheRequest),
    /// Stale, and usable if the origin fails.
    Fallback(&'a Arc<store::StoredResponse>, exchange::CacheRequest),
    Nothing(exchange::CacheRequest),
}

impl<St: Store, K: KeyExtractor> Reader<St, K> {
    /// A handle to purge what is stored, which names URLs as the layer does.
    pub(crate) fn purge(&self) -> Purge {
        let naming = Naming::new(Arc::clone(&self.extractor) as _);
        Purge::new(self.store.clone(), naming).counted_by(self.settings.observers.stats())
    }

    /// The name of the cache in metrics.
    #[cfg(feature = "metrics")]
    pub(crate) fn cache_name(&self) -> &str {
        self.settings.field.cache_name()
    }

    pub(super) fn read(&self, key: &KeyBuffer) -> Reading {
        let arrival = self.store.sequence().current();
        Reading { arrival, entry: self.store.get(key.as_bytes()) }
    }

    /// Returns the latest stored response that the request selects, fresh or not.
    #[inline(always)]
    pub(super) fn select<'a>(
        &self,
        reading: &'a Reading,
        fields: &RequestFields<'_>,
    ) -> Option<&'a Arc<store::StoredResponse>> {
        reading.entry.as_deref()?.select(fields, self.store.sequence())
    }

    /// What there is if that is not fresh, or not fresh enough.
    pub(super) fn find<'a>(
        &self,
        reading: &'a Reading,
        stored: Option<&'a Arc<store::StoredResponse>>,
        question: &Question<'_>,
        wishes: Option<&RequestDirectives>,
    ) -> Found<'a> {
        let now = question.now;
        let max_stale = wishes.and_then(|wishes| wishes.max_stale);
        if let (Some(stored), Some(max_stale)) = (stored, max_stale)
            && accepts(stored, wishes, now)
            && stored.is_usable_if_stale_by(max_stale, now)
        {
            return Found::Stale(stored);
        }
        let entry = reading.entry.as_deref();
        let part = entry.and_then(|entry| self.find_part(entry, question));
        if let Some(part) = part.filter(|part| accepts(part.response(), wishes, now)) {
            return Found::Part(part);
        }
        let wants_newer = wishes.is_some_and(|wishes| wishes.no_cache);
        let is_fresh = part.is_some() || stored.is_some_and(|stored| stored.is_fresh(now));
        // What another layer below finds may be too old for it, as what is stored here is.
        let is_for_origin =
            wishes.is_some_and(|wishes| wishes.max_age.is_some() || wishes.min_fresh.is_some());
        let purpose = match wants_newer || is_fresh || is_for_origin {
            true => exchange::Purpose::Forced,
            false if question.head.extensions.get::<exchange::WarmUp>().is_some() => {
                exchange::Purpose::WarmUp
            }
            false => exchange::Purpose::Client,
        };
        let usable = stored.filter(|stored| stored.is_usable_while_revalidating(now));
        let accepted = |stored: &&'a Arc<store::StoredResponse>| accepts(stored, wishes, now);
        let acceptable = usable.filter(accepted).filter(|stored| self.serves_while_up(stored, question));
        let candidate = match (stored, part) {
            (Some(stored), _) => {
                let is_servable = usable.is_some() && acceptable.is_none();
                exchange::StaleCandidate::Whole { response: Arc::clone(stored), is_servable }
            }
            (None, Some(part)) => exchange::StaleCandidate::Part(Box::new(part.clone())),
            (None, None) => exchange::StaleCandidate::None,
        };
        let is_refused = is_fresh || wants_newer && usable.is_some();
        let asked = self.asked(reading, candidate, question, is_refused).for_purpose(purpose);
        let may_fall_back = self.settings.serves_in_outages && !is_refused;
        let fallback = stored.filter(|stored| may_fall_back && is_fallback(stored, now)).filter(accepted);
        match acceptable {
            Some(stored) => Found::Refreshable(stored, asked),
            None => match fallback {
                Some(stored) => Found::Fallback(stored, asked),
                None => Found::Nothing(asked),
            },
        }
    }

    /// What a refresh of a response asks that is still fresh.
    pub(super) fn asked_ahead(
        &self,
        reading: &Reading,
        stored: &Arc<store::StoredResponse>,
        question: &Question<'_>,
    ) -> exchange::CacheRequest {
        let response = Arc::clone(stored);
        let candidate = exchange::StaleCandidate::Whole { response, is_servable: false };
        self.asked(reading, candidate, question, false).for_purpose(exchange::Purpose::RefreshAhead)
    }

    /// Whether a stale response within its window may be served without waiting while the origin is up.
    fn serves_while_up(&self, stored: &store::StoredResponse, question: &Question<'_>) -> bool {
        let Settings { health, max_stale_while_up, .. } = &*self.settings;
        max_stale_while_up.is_none_or(|limit| {
            stored.is_stale_by_at_most(limit, question.now) || !health.is_up(question.head)
        })
    }

    /// Whether the request was made by a fetch of a layer with this store for the same key: the same layer
    /// value is on a path twice.
    pub(super) fn is_asking(&self, question: &Question<'_>) -> bool {
        let is_same = |arrival: &sequence::PurgeSnapshot| arrival.is_of(self.store.sequence());
        question.head.extensions.get::<exchange::CacheRequest>().is_some_and(|asked| {
            asked.key().as_bytes() == question.key.as_bytes() && asked.arrival().is_some_and(is_same)
        })
    }

    /// What is asked of the layers below. `is_refused`: the directives of the request refuse what could be
    /// served.
    fn asked(
        &self,
        reading: &Reading,
        candidate: exchange::StaleCandidate,
        question: &Question<'_>,
        is_refused: bool,
    ) -> exchange::CacheRequest {
        let Question { key, edition, head, fields, settings, now, .. } = *question;
        let (sequence, entry) = (self.store.sequence(), reading.entry.as_deref());
        let facts = fields.facts(&head.method);
        let asks_for_part = facts.asks_for_one_part() && !settings.fetches_whole && !candidate.is_whole();
        let is_hit_for_miss =
            entry.is_some_and(|entry| entry.is_hit_for_miss(fields.credentials, asks_for_part, now));
        let why = match &candidate {
            _ if is_refused => CacheStatus::forwarded(Forward::Request),
            exchange::StaleCandidate::Whole { response, .. } => selected(response, sequence, now),
            _ if is_hit_for_miss => CacheStatus::forwarded(Forward::Bypass),
            _ => unselected(entry, question, sequence),
        };
        let extractor = edition.unwrap_or(&*self.extractor);
        let (key, keyed) = (key.to_key(), key.keyed().clone());
        let purge_keys = sequence.keys(extractor, head, &key);
        exchange::CacheRequest::by_key(key, keyed, fields.credentials, facts)
            .looked_up(sequence.arrival(reading.arrival, purge_keys), candidate, why)
            .watched_by(&settings.health)
            .hit_for_miss(is_hit_for_miss)
            .selecting(entry.and_then(|entry| known_selection(entry, head)))
    }
}

impl<St: Store, K> Reader<St, K> {
    /// A fresh part that has all of what a request asks for.
    fn find_part<'a>(&self, entry: &'a store::Entry, question: &Question<'_>) -> Option<&'a store::Part> {
        let Question { head, fields, now, .. } = *question;
        if head.method != Method::GET {
            return None;
        }
        entry.select_part(fields, self.store.sequence(), now)
    }
}

/// Whether a stale response may be served if the origin fails, in whichever window.
fn is_fallback(stored: &store::StoredResponse, now: Instant) -> bool {
    stored.is_usable_on_error(now) || stored.is_usable_while_revalidating(now)
}

/// Whether the client takes a stored response of this age (RFC 9111 §5.2.1).
#[inline]
pub(super) fn accepts(
    stored: &store::StoredResponse,
    wishes: Option<&RequestDirectives>,
    now: Instant,
) -> bool {
    wishes.is_none_or(|wishes| {
        !wishes.no_cache
            && wishes.max_age.is_none_or(|max_age| stored.age(now) <= max_age)
            && wishes.min_fresh.is_none_or(|min_fresh| stored.is_fresh(after(now, min_fresh)))
    })
}

/// The latest response is the best guess at what selects the next one.
fn known_selection(entry: &store::Entry, head: &Parts) -> Option<Selection> {
    let fields = entry.latest()?.selection()?.fields();
    Some(Selection::new(fields, &head.headers))
}

/// Returns why a request is sent on that selects this response, which is not fresh.
pub(super) fn selected(
    stored: &store::StoredResponse,
    sequence: &sequence::Sequence,
    now: Instant,
) -> CacheStatus {
    match stored.is_stale_by_purge(now) {
        true if !stored.is_unproven() => CacheStatus::lost(Lost::Purged),
        true if sequence.is_cut_off() => CacheStatus::lost(Lost::CutOff),
        true => CacheStatus::lost(Lost::Unproven),
        false => CacheStatus::forwarded(Forward::Stale),
    }
}

/// Returns why a request is sent on that selects no whole response, and has no hit-for-miss entry.
///
/// What is purged counts only where nothing else is left: it may be given back at any time, and that
/// must make no difference.
fn unselected(
    entry: Option<&store::Entry>,
    question: &Question<'_>,
    sequence: &sequence::Sequence,
) -> CacheStatus {
    let Question { key, fields, now, .. } = question;
    let Some(entry) = entry else { return lost_or_missing(sequence, key.as_bytes()) };
    let is_left = |stored: &&store::StoredResponse| sequence.admits(*stored);
    let variants = || entry.variants().iter().map(|variant| &**variant);
    // Only the credentials of the request keep it from this one.
    let mut forms = Forms::default();
    let is_selected = |variant: &&store::StoredResponse| variant.is_selected_by(fields, &mut forms);
    if let Some(barred) = variants().filter(is_left).find(is_selected) {
        let why = if barred.is_fresh(*now) { Forward::Request } else { Forward::Stale };
        return CacheStatus::forwarded(why);
    }
    let mut forms = Forms::default();
    let has_part = |part: &store::Part| {
        let response = part.response();
        sequence.admits(response) && response.is_fresh(*now) && response.matches(fields, &mut forms)
    };
    if entry.parts().any(has_part) {
        return CacheStatus::forwarded(Forward::Partial);
    }
    if variants().any(|variant| is_left(&variant)) {
        return CacheStatus::forwarded(Forward::VaryMiss);
    }
    let mut lost = variants().chain(entry.parts().map(|part| &**part.response()));
    match lost.find(|stored| !is_left(stored)) {
        Some(lost) => CacheStatus::lost(sequence.loss(lost).into()),
        None => lost_or_missing(sequence, key.as_bytes()),
    }
}

fn lost_or_missing(sequence: &sequence::Sequence, key: &[u8]) -> CacheStatus {
    let loss = sequence.loss_of_key(key);
    loss.map_or(CacheStatus::forwarded(Forward::UriMiss), |loss| CacheStatus::lost(loss.into()))
}
