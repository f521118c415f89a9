//! What a request asks of the layers below.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use http::{Extensions, HeaderMap, Request, request::Parts};
use tokio::time::Instant;

#[cfg(feature = "redis")]
use crate::observe::TierRead;
use crate::{
    exchange::status::{CacheStatus, Forward},
    http::{
        request_fields::{CredentialNames, Credentials, Keyed, RequestFacts, RequestFields},
        storing::NotStored,
        vary::Selection,
    },
    key,
    origin::{AnsweredBy, OriginHealth, Pass, Place},
    sequence::PurgeSnapshot,
    store,
};

/// What a request asks of the layers below: in its extensions, put there by [`Lookup`](crate::Lookup)
/// for each request that is sent on.
///
/// A service below may read it, for example to log the key and the purpose of a fetch.
///
/// ```
/// use tower_readthrough::{CacheRequest, Purpose};
///
/// fn is_refresh<B>(request: &http::Request<B>) -> bool {
///     let asked = request.extensions().get::<CacheRequest>();
///     asked.is_some_and(|asked| asked.purpose() == Purpose::Refresh)
/// }
/// # assert!(!is_refresh(&http::Request::new(())));
/// ```
#[derive(Clone, Debug)]
pub struct CacheRequest {
    key: key::CacheKey,
    purpose: Purpose,
    handling: Handling,
    /// What was known of purges when the request arrived. `None`: no layer has looked.
    arrival: Option<PurgeSnapshot>,
    candidate: StaleCandidate,
    is_hit_for_miss: bool,
    /// The selecting fields that responses under this key are known to have.
    selection: Option<Selection>,
    /// The fields of the request that its key holds.
    keyed: Keyed,
    /// The credentials of the request that its key does not hold.
    credentials: Credentials,
    facts: RequestFacts,
    /// The layer that asks may share the response, and has to be told with which requests.
    wants_shareability: bool,
    /// Whether several callers can wait for the fetch.
    is_of_flight: bool,
    /// Whether the cache has made the request conditional.
    validators: Option<OwnValidators>,
    /// What matters if the origin is slow or fails, and what of a second tier is known. Boxed, since most requests
    /// have none of it, and each caller that waits holds a request.
    trouble: Option<Box<Trouble>>,
    /// Why what is stored does not do.
    why: CacheStatus,
    /// The request as it goes down, kept by the layer that judges the response.
    copy: Option<Arc<RequestCopy>>,
}

/// What of a request matters if the origin is slow or fails.
#[derive(Clone, Debug, Default)]
struct Trouble {
    /// Set by a layer above that serves a stale response instead of a failure, as long as that may be.
    fallback: Option<Fallback>,
    /// What is told how the fetch ends, if there is a stale response that it is for.
    health: Option<OriginHealth>,
    /// The right to ask an origin that is not up.
    pass: Option<Arc<Pass>>,
    /// The place of the fetch in the queue to the origin, if several callers can share it.
    place: Option<Arc<Place>>,
    /// When the fetch is given up.
    deadline: Option<Instant>,
    /// What a second tier had for the request. It is in the store by now.
    found: Option<Arc<store::StoredResponse>>,
    /// What learns what is stored of the fetch.
    behind: Option<Arc<dyn store::WriteBehind>>,
}

/// What a request is sent on for, and how new its response has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// A client waits for the response, and nothing that is stored can be served.
    Client,
    /// A client waits, and its [directives](crate::LookupLayer::request_directives) refuse what is stored
    /// (RFC 9111 §5.2.1). Only a response will do that is fetched after the request arrived.
    Forced,
    /// No client waits: a stored response is refreshed in the background, or the request is one that refreshes
    /// nothing and finds out whether the [origin](crate::OriginHealth) is back. Only a response will do that is
    /// fetched after the request arrived.
    Refresh,
    /// As [`Refresh`](Self::Refresh), of a response that is [still fresh](crate::Rules::refresh_ahead).
    RefreshAhead,
    /// No client waits: the store is [warmed up](crate::warm_up).
    WarmUp,
}

/// In the extensions of a request that warms up the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WarmUp;

/// In the extensions of a request that was sent before and is tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeated;

impl Purpose {
    /// Whether the fetch is to learn what the origin says, and what is stored is of no use instead.
    pub(crate) fn is_refresh(self) -> bool {
        matches!(self, Self::Refresh | Self::RefreshAhead)
    }
}

/// What the layers below do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    /// They share and store its response, where that may be.
    Shared,
    /// Its response is for one client alone. They may serve a stored one if the fetch fails.
    Private,
    /// They leave it alone: it is a part of a fetch that they have under way.
    Passed,
}

/// What is stored that the request selects.
#[derive(Clone, Debug)]
pub(crate) enum StaleCandidate {
    /// No layer has looked.
    Unknown,
    None,
    Whole {
        response: Arc<store::StoredResponse>,
        /// Only the directives of the request keep it from being served.
        is_servable: bool,
    },
    /// A fresh part that has all that the request asks for, and that its directives refuse.
    Part(Box<store::Part>),
}

impl CacheRequest {
    /// A request that is known by its key alone.
    pub(crate) fn by_key(
        key: key::CacheKey,
        keyed: Keyed,
        credentials: Credentials,
        facts: RequestFacts,
    ) -> Self {
        Self {
            key,
            purpose: Purpose::Client,
            handling: Handling::Shared,
            arrival: None,
            candidate: StaleCandidate::Unknown,
            is_hit_for_miss: false,
            selection: None,
            keyed,
            credentials,
            facts,
            wants_shareability: true,
            is_of_flight: false,
            trouble: None,
            validators: None,
            why: CacheStatus::forwarded(Forward::Miss),
            copy: None,
        }
    }

    /// A request that a layer has looked up.
    pub(crate) fn looked_up(
        self,
        arrival: PurgeSnapshot,
        candidate: StaleCandidate,
        why: CacheStatus,
    ) -> Self {
        Self { arrival: Some(arrival), candidate, why, wants_shareability: false, ..self }
    }

    pub(crate) fn for_purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// Lets the health of the origin decide about the stale response that was found.
    #[inline(always)]
    pub(crate) fn watched_by(mut self, health: &OriginHealth) -> Self {
        if self.candidate.is_whole() {
            self.trouble_mut().health = Some(health.clone());
        }
        self
    }

    fn trouble_mut(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// For this stale response, which a layer has found that no other had looked for.
    pub(crate) fn with_stale(self, response: Arc<store::StoredResponse>, health: &OriginHealth) -> Self {
        let candidate = StaleCandidate::Whole { response, is_servable: false };
        Self { candidate, ..self }.watched_by(health)
    }

    #[cfg(feature = "redis")]
    /// Says what a second tier had for the request: it is as good as if it had been fetched now.
    pub(crate) fn with_found(mut self, response: Arc<store::StoredResponse>) -> Self {
        self.trouble_mut().found = Some(response);
        self.copy = None;
        self
    }

    /// What a second tier had for the request.
    pub(crate) fn found(&self) -> Option<&Arc<store::StoredResponse>> {
        self.trouble.as_ref()?.found.as_ref()
    }

    #[cfg(feature = "redis")]
    /// Says what the origin can be asked to confirm, in place of what a layer above has found. `None` for the
    /// health: it is never served.
    pub(crate) fn confirming(
        mut self,
        response: Arc<store::StoredResponse>,
        health: Option<&OriginHealth>,
    ) -> Self {
        self.candidate = StaleCandidate::Whole { response, is_servable: false };
        self.copy = None;
        match health {
            Some(health) => self.watched_by(health),
            None => self,
        }
    }

    #[cfg(feature = "redis")]
    /// Says what a second tier had for the request, and whether that was looked for until another node had fetched.
    pub(crate) fn by_second_tier(mut self, had: TierRead, has_waited: bool) -> Self {
        self.why = self.why.with_second_tier(had, has_waited);
        self.copy = None;
        self
    }

    #[cfg(feature = "redis")]
    /// Says why the second tier was not asked for a request.
    pub(crate) fn note_idle_tier(request: &mut Extensions, why: TierRead) {
        if let Some(asked) = request.get_mut::<Self>() {
            asked.why = asked.why.with_second_tier(why, false);
            asked.copy = None;
        }
    }

    #[cfg(feature = "redis")]
    /// Says what learns what is stored of the fetch.
    pub(crate) fn written_behind(mut self, behind: Arc<dyn store::WriteBehind>) -> Self {
        self.trouble_mut().behind = Some(behind);
        self.copy = None;
        self
    }

    /// With the right to ask an origin that is not up, if one was needed.
    pub(crate) fn with_pass(mut self, pass: Option<Arc<Pass>>) -> Self {
        if pass.is_some() {
            self.trouble_mut().pass = pass;
        }
        self
    }

    /// Says when the fetch is given up, unless that is sooner already.
    pub(crate) fn end_at(&mut self, deadline: Instant) {
        let own = &mut self.trouble_mut().deadline;
        *own = Some(own.map_or(deadline, |sooner| sooner.min(deadline)));
        self.copy = None;
    }

    pub(crate) fn selecting(self, selection: Option<Selection>) -> Self {
        Self { selection, ..self }
    }

    /// Whether the response was not shareable a moment ago, so that no other request waits for it.
    pub(crate) fn hit_for_miss(self, is_hit_for_miss: bool) -> Self {
        Self { is_hit_for_miss, ..self }
    }

    /// The same once its conditions and its range have been taken out.
    pub(crate) fn without_conditions(self) -> Self {
        Self { facts: RequestFacts::default(), ..self }
    }

    /// The same for one client alone.
    pub(crate) fn private(self) -> Self {
        Self { handling: Handling::Private, ..self }
    }

    /// Lets the layers below leave the request alone.
    pub(crate) fn pass(&mut self) {
        self.handling = Handling::Passed;
        self.copy = None;
    }

    /// Says whether the layer that asks has to be told with which requests it may share the response.
    /// Returns what was said before.
    pub(crate) fn want_shareability(&mut self, wants: bool) -> bool {
        self.copy = None;
        std::mem::replace(&mut self.wants_shareability, wants)
    }

    /// Says that a failure will not reach the client as long as this may be served instead.
    pub(crate) fn announce_fallback(&mut self, fallback: Fallback) {
        self.trouble_mut().fallback = Some(fallback);
        self.copy = None;
    }

    /// Lets the layers below know what a layer keeps of the request, this included: whatever changes it
    /// afterwards drops the copy.
    pub(crate) fn keep_copy(&mut self, copy: Arc<RequestCopy>) {
        self.copy = Some(copy);
    }

    pub(crate) fn copy(&self) -> Option<&Arc<RequestCopy>> {
        self.copy.as_ref()
    }

    /// What a request asks on behalf of all clients: as `Lookup` says, else by its key alone, else nothing.
    /// Fields that became credentials on the way here, or are so by these names, count as well.
    ///
    /// This is where a layer looks at the fields of a request, once: a service between the layers may have
    /// changed them.
    pub(crate) fn of<'h>(head: &'h Parts, names: &CredentialNames) -> Option<Cow<'h, Self>> {
        Self::with_private(head, names).filter(|asked| asked.handling == Handling::Shared)
    }

    /// As [`of`](Self::of), and also what is asked for one client alone.
    pub(crate) fn with_private<'h>(head: &'h Parts, names: &CredentialNames) -> Option<Cow<'h, Self>> {
        let mut fields = RequestFields::of(&head.headers);
        if !key::may_have_key(head, &fields) {
            return None;
        }
        let facts = fields.facts(&head.method);
        if let Some(asked) = head.extensions.get::<Self>() {
            if asked.handling == Handling::Passed {
                return None;
            }
            fields.put_under(names, &asked.keyed);
            let credentials = asked.credentials.and(fields.credentials);
            return Some(match (credentials, facts) == (asked.credentials, asked.facts) {
                true => Cow::Borrowed(asked),
                false => Cow::Owned(Self { credentials, facts, ..asked.clone() }),
            });
        }
        let key = head.extensions.get::<key::CacheKey>()?;
        let read = head.extensions.get::<key::KeyFacts>().cloned().unwrap_or_default();
        fields.put_under(names, read.keyed());
        let credentials = read.credentials().and(fields.credentials);
        Some(Cow::Owned(Self::by_key(key.clone(), read.keyed().clone(), credentials, facts)))
    }

    /// Returns the key under which the response is stored.
    pub fn key(&self) -> &key::CacheKey {
        &self.key
    }

    /// Returns what the request is sent on for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether the response is for one client alone.
    pub(crate) fn is_private(&self) -> bool {
        self.handling == Handling::Private
    }

    /// Whether the request is a part of a fetch that the layers have under way.
    pub(crate) fn is_part_of_fetch(&self) -> bool {
        self.handling == Handling::Passed
    }

    /// Whether only a response will do that is fetched after the request arrived.
    pub(crate) fn needs_newer(&self) -> bool {
        let is_cut_off = self.arrival.as_ref().is_some_and(PurgeSnapshot::is_cut_off);
        is_cut_off || self.purpose == Purpose::Forced || self.purpose.is_refresh()
    }

    /// What was known of purges when the request arrived, if a layer has looked.
    pub(crate) fn arrival(&self) -> Option<&PurgeSnapshot> {
        self.arrival.as_ref()
    }

    /// The number of the store's sequence when the request arrived, or 0.
    pub(crate) fn arrived_at(&self) -> u64 {
        self.arrival.as_ref().map_or(0, |arrival| arrival.number)
    }

    pub(crate) fn candidate(&self) -> &StaleCandidate {
        &self.candidate
    }

    pub(crate) fn is_hit_for_miss(&self) -> bool {
        self.is_hit_for_miss
    }

    pub(crate) fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    pub(crate) fn keyed(&self) -> &Keyed {
        &self.keyed
    }

    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials
    }

    pub(crate) fn facts(&self) -> RequestFacts {
        self.facts
    }

    pub(crate) fn wants_shareability(&self) -> bool {
        self.wants_shareability
    }

    /// Whether a layer above serves a stale response instead of a failure.
    pub(crate) fn has_fallback(&self) -> bool {
        self.fallback().is_some()
    }

    /// What it would serve.
    pub(crate) fn fallback(&self) -> Option<&Fallback> {
        self.trouble.as_ref()?.fallback.as_ref()
    }

    /// Whether there is a stale response that may be served if the origin fails.
    pub(crate) fn has_stale(&self) -> bool {
        let StaleCandidate::Whole { response, .. } = &self.candidate else { return false };
        let now = Instant::now();
        self.has_fallback() || response.is_usable_on_error(now) || response.is_usable_while_revalidating(now)
    }

    /// How long the last fetch of the response under this key took, to its head.
    pub(crate) fn last_cost(&self) -> Option<Duration> {
        match &self.candidate {
            StaleCandidate::Whole { response, .. } => Some(response.origin().delay),
            _ => None,
        }
    }

    /// Says that several callers can wait for the fetch of this request.
    pub(crate) fn note_flight(&mut self) {
        self.is_of_flight = true;
        self.copy = None;
    }

    /// The same of a request that asks nothing of the cache.
    pub(crate) fn note_bare_flight(request: &mut Extensions) {
        request.insert(OfFlight);
    }

    /// Whether several callers can wait for the fetch.
    pub(crate) fn is_of_flight(&self) -> bool {
        self.is_of_flight
    }

    /// Whether that was said of a request that asks nothing of the cache.
    pub(crate) fn is_bare_of_flight(request: &Extensions) -> bool {
        request.get::<OfFlight>().is_some()
    }

    /// Says that the fetch has this place in the queue, which all its callers share.
    pub(crate) fn take_place(&mut self, place: Arc<Place>) {
        self.trouble_mut().place = Some(place);
        self.copy = None;
    }

    /// The place of the fetch in the queue, if several callers share it.
    pub(crate) fn place(&self) -> Option<&Arc<Place>> {
        self.trouble.as_ref()?.place.as_ref()
    }

    /// The right to ask an origin that is not up.
    pub(crate) fn origin_pass(&self) -> Option<&Arc<Pass>> {
        self.trouble.as_ref()?.pass.as_ref()
    }

    /// Takes the right to ask an origin that is not up out of a request.
    pub(crate) fn take_pass(request: &mut Extensions) -> Option<Arc<Pass>> {
        let own = request.remove::<PassOf>().map(|PassOf(pass)| pass);
        own.or_else(|| request.get_mut::<Self>()?.trouble.as_mut()?.pass.take())
    }

    /// Gives a request this right, and no other.
    pub(crate) fn put_pass(request: &mut Extensions, pass: Option<Arc<Pass>>) {
        match (request.get_mut::<Self>(), pass) {
            (Some(asked), Some(pass)) => asked.trouble_mut().pass = Some(pass),
            (Some(asked), None) => asked.trouble.iter_mut().for_each(|trouble| trouble.pass = None),
            (None, Some(pass)) => drop(request.insert(PassOf(pass))),
            (None, None) => {}
        }
    }

    /// Whether a request has a key, so that how it ends says something of the origin.
    pub(crate) fn has_key(request: &Extensions) -> bool {
        request.get::<Self>().is_some() || request.get::<key::CacheKey>().is_some()
    }

    /// The right of a request that asks nothing of the cache.
    pub(crate) fn bare_pass(request: &Extensions) -> Option<&Arc<Pass>> {
        request.get::<PassOf>().map(|PassOf(pass)| pass)
    }

    /// Notes that the cache has made a request conditional on a stored response.
    pub(crate) fn note_validators(request: &mut Extensions, stored: &store::StoredResponse) {
        let validators = OwnValidators(stored.answering_origin());
        match request.get_mut::<Self>() {
            Some(asked) => asked.validators = Some(validators),
            None => drop(request.insert(validators)),
        }
    }

    /// The conditions of a request, if the cache has made them.
    pub(crate) fn own_validators(request: &Extensions) -> Option<OwnValidators> {
        match request.get::<Self>() {
            Some(asked) => asked.validators,
            None => request.get::<OwnValidators>().copied(),
        }
    }

    /// When the fetch is given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.trouble.as_ref()?.deadline
    }

    /// What has to be told that the fetch has failed, if there is a stale response.
    pub(crate) fn key_watch(&self) -> Option<KeyWatch> {
        let StaleCandidate::Whole { response, .. } = &self.candidate else { return None };
        let health = self.trouble.as_ref()?.health.clone()?;
        Some(KeyWatch { response: Arc::clone(response), health })
    }

    /// Why what is stored does not do.
    pub(crate) fn why(&self) -> CacheStatus {
        self.why
    }

    /// The fields of a request that asks this, without another look at all of them.
    pub(crate) fn fields<'h>(&self, request: &'h HeaderMap) -> RequestFields<'h> {
        RequestFields::known(request, self.credentials, self.facts)
    }

    /// How the response comes about to a request that is for one client alone, for this reason.
    pub(crate) fn for_one(&self, why: NotStored) -> CacheStatus {
        let forwarded = match why {
            // A directive of the request, not what is stored, sends it there (RFC 9211 §2.2).
            NotStored::NoStore => CacheStatus::forwarded(Forward::Request),
            _ => self.why,
        };
        forwarded.unshared(why)
    }
}

/// The right of a request that asks nothing of the cache.
#[derive(Clone, Debug)]
struct PassOf(Arc<Pass>);

/// Several callers can wait for the fetch of a request that asks nothing of the cache.
#[derive(Clone, Copy, Debug)]
struct OfFlight;

/// The conditions that the cache adds to a request, and the origin, of several, that gave the validators.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnValidators(Option<AnsweredBy>);

impl OwnValidators {
    /// Whether this origin gave them.
    pub(crate) fn are_of(self, index: usize) -> bool {
        self.0.is_some_and(|origin| origin.index() == index)
    }
}

/// The stale response that a fetch is for, and how long it rests after a failure.
#[derive(Debug)]
pub(crate) struct KeyWatch {
    response: Arc<store::StoredResponse>,
    health: OriginHealth,
}

impl KeyWatch {
    /// Notes that the fetch has failed: the stale response is served without another one until the pause is
    /// over, or until the time that the origin asked for.
    pub(crate) fn note_failed_fetch(&self, asked_for: Option<Duration>) {
        store::note_failed_fetch(&self.response, Instant::now(), self.health.key_pause(), asked_for);
    }
}

/// Whether what a layer above would serve instead of a failure may still be served.
#[derive(Clone)]
pub(crate) struct Fallback(Arc<dyn Fn() -> bool + Send + Sync>);

impl Fallback {
    pub(crate) fn new(is_usable: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_usable))
    }

    pub(crate) fn is_usable(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").finish_non_exhaustive()
    }
}

impl StaleCandidate {
    /// Whether a layer has looked, and found nothing.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether there is a whole response.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole { .. })
    }
}

/// What one layer keeps of a request, for itself and for the layers below it: in the [`CacheRequest`]
/// that goes down with the request.
#[derive(Debug)]
pub(crate) struct RequestCopy {
    head: Parts,
    asked: CacheRequest,
}

impl RequestCopy {
    /// `head` may go without its extensions.
    pub(crate) fn new(head: Parts, asked: CacheRequest) -> Arc<Self> {
        Arc::new(Self { head, asked })
    }

    pub(crate) const fn head(&self) -> &Parts {
        &self.head
    }

    pub(crate) const fn asked(&self) -> &CacheRequest {
        &self.asked
    }

    /// The header fields of the request, for a change to the store.
    pub(crate) fn to_headers(self: &Arc<Self>) -> store::RequestHeaders {
        store::RequestHeaders::shared(Arc::clone(self))
    }

    /// Lets the layers below know of the copy. It says what `request` asks of the cache, if that is there.
    pub(crate) fn attach(self: &Arc<Self>, request: &mut Extensions) {
        if let Some(asked) = request.get_mut::<CacheRequest>() {
            asked.keep_copy(Arc::clone(self));
        }
    }

    /// The copy that came down with a request, if no layer on the way has changed the request since.
    ///
    /// Compared field by field in their order: cheaper than a second copy, and a difference that is none
    /// only costs that.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<&Arc<Self>> {
        let copy = request.extensions().get::<CacheRequest>()?.copy()?;
        let Parts { method, uri, version, headers, .. } = &copy.head;
        let is_same = method == request.method()
            && *version == request.version()
            && headers.len() == request.headers().len()
            && uri == request.uri()
            && headers.iter().eq(request.headers());
        is_same.then_some(copy)
    }

    /// The head once more, with these extensions. Without any, with what it asks of the cache alone.
    pub(crate) fn to_head(self: &Arc<Self>, extensions: Option<&Extensions>) -> Parts {
        let mut head = without_extensions(&self.head);
        match extensions {
            Some(extensions) => head.extensions.clone_from(extensions),
            None => {
                let mut asked = self.asked.clone();
                asked.keep_copy(Arc::clone(self));
                head.extensions.insert(asked);
            }
        }
        head
    }
}

impl store::Headers for RequestCopy {
    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    fn fields(&self) -> RequestFields<'_> {
        self.asked.fields(&self.head.headers)
    }

    fn write_behind(&self) -> Option<&Arc<dyn store::WriteBehind>> {
        self.asked.trouble.as_ref()?.behind.as_ref()
    }
}

/// A copy of a request's head without its extensions, each of which would have to be boxed again.
pub(crate) fn without_extensions(head: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method.clone_from(&head.method);
    copy.uri.clone_from(&head.uri);
    copy.version = head.version;
    copy.headers.clone_from(&head.headers);
    copy
}

/// A copy of a request's head, whatever its body.
pub(crate) fn head_of<B>(request: &Request<B>) -> Request<()> {
    let mut copy = Request::new(());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    copy
}
