//! Whether a request may have the response of another one, and where it goes if not.
//!
//! A caller that cannot have a response has learned something: that a fetch failed, which fields select a
//! variant, that the response is for one kind of credentials only, that a purge came in between. It goes
//! on to the flight of all that have learned the same, by a [`FlightKey`] that says so.
//!
//! # Failures
//!
//! A failure may be the fault of the request that was sent, for example of a header field that the origin
//! does not like. So it is shared only after a second fetch, for another caller, has failed as well. More
//! than one would be wrong for an origin in trouble, where each fetch costs a timeout; less would let one
//! client fail all others.
//!
//! An error that may be for one client each (a 4xx) cannot be shared at all, however often it comes. Among
//! many callers there may still be some for whom there is a response to share. So after two errors the
//! callers split into 16 groups, which ask side by side; after another error such a group splits
//! again, and after that each caller asks alone. A few hundred fetches then find the callers that can
//! share, instead of one fetch for each of a hundred thousand. 429 says that there are too many requests
//! already, and is the response for all after two.

use std::sync::Arc;

use http::{HeaderName, Response, StatusCode, request::Parts};

use super::{
    dispatch,
    flight::{Flight, Subscriber},
    flights::FlightKey,
    outcome::{FetchOutcome, SharedHead},
};
use crate::{
    body::Body,
    exchange::{CacheRequest, Refused, Verdict, status::CacheStatus},
    http::{
        credentials::Credentials,
        request_fields::RequestFields,
        storing::Unshareable,
        vary::{Forms, Selection},
    },
    sequence::Provenance,
};

/// Into how many groups callers split after an error.
const GROUPS: u16 = 16;

/// After an error of their fetch that follows so many failures, callers ask alone.
const MAX_FAILURES: u8 = 3;

/// A request that waits for the response of another one.
#[derive(Clone)]
pub(super) struct Waiter {
    head: Parts,
    key: FlightKey,
    credentials: Credentials,
    /// The number of the fetch that had begun last when the request arrived.
    arrived: u64,
}

/// What a caller does once the outcome of a flight is known.
pub(super) enum Next<B, E> {
    Respond(Result<Response<Body<B>>, E>),
    /// Join those who want the same, by what is known now.
    Rejoin(FlightKey),
    /// Join the next flight of the same key.
    RejoinLater,
    /// Join a group of those who want the same, or else ask alone.
    Split(FlightKey),
    /// Ask the origin for this caller alone.
    Alone,
}

impl Waiter {
    pub(super) fn new(head: Parts, key: FlightKey, credentials: Credentials, arrived: u64) -> Self {
        Self { head, key, credentials, arrived }
    }

    pub(super) fn head(&self) -> &Parts {
        &self.head
    }

    pub(super) fn key(&self) -> &FlightKey {
        &self.key
    }

    pub(super) fn credentials(&self) -> Credentials {
        self.credentials
    }

    pub(super) fn set_key(&mut self, key: FlightKey) {
        self.key = key;
    }

    pub(super) fn into_head(self) -> Parts {
        self.head
    }

    /// Notes that several callers may get the response. Returns whether a layer above had noted so.
    pub(super) fn set_for_many(&mut self) -> bool {
        let request = self.head.extensions.get_mut::<CacheRequest>();
        request.is_some_and(|request| request.want_shareability(true))
    }

    /// `None`: the request is cached by its key alone.
    fn request(&self) -> Option<&CacheRequest> {
        self.head.extensions.get()
    }

    /// Why the request is on its way to the origin.
    pub(super) fn why(&self) -> Option<CacheStatus> {
        self.request().map(CacheRequest::why)
    }

    /// Whether a layer above serves a stale response instead of a failure.
    pub(super) fn has_fallback(&self) -> bool {
        self.request().is_some_and(CacheRequest::has_fallback)
    }

    pub(super) fn refuse<B>(&self, refused: Refused) -> Response<Body<B>> {
        dispatch::refuse(refused, self.why())
    }

    /// What this caller does, given the outcome of a flight that it has joined or was redirected to.
    #[inline(never)]
    pub(super) fn next<B, E: Clone + 'static>(&self, flight: &Flight, subscriber: Subscriber) -> Next<B, E> {
        let shares_failures = self.key.failures() > 0 || self.has_fallback();
        let aborted = || Next::Respond(Ok(self.refuse(Refused::FetchAborted)));
        match flight.outcome() {
            Some(FetchOutcome::Head(head)) => self.next_after(head, flight, subscriber),
            Some(FetchOutcome::Error(error)) if shares_failures => {
                // The type differs where one layer value wraps services of different errors.
                let error = error.downcast_ref::<E>();
                error.map_or_else(aborted, |error| Next::Respond(Err(error.clone())))
            }
            Some(FetchOutcome::Aborted) if shares_failures => aborted(),
            Some(FetchOutcome::Error(_) | FetchOutcome::Aborted) | None => self.retry(),
        }
    }

    fn next_after<B, E>(&self, head: &SharedHead, flight: &Flight, subscriber: Subscriber) -> Next<B, E> {
        match head.verdict() {
            Verdict::Unshareable(why) => self.next_after_unshareable(*why, head, flight),
            // The tags were not known before, and were purged since this request arrived.
            Verdict::Shareable { lineage: Some(lineage), .. }
            | Verdict::Failed { lineage: Some(lineage), .. }
                if !lineage.is_for(self.request().and_then(CacheRequest::arrival)) =>
            {
                Next::Rejoin(self.key.not_below(lineage.floor()))
            }
            // What a layer below refused is not the fault of a request, and another one makes it worse.
            Verdict::Failed { .. }
                if self.key.failures() == 0 && !head.is_refused() && !self.has_fallback() =>
            {
                self.retry()
            }
            Verdict::Failed { selection, for_all, .. } => {
                let is_shared = *for_all && self.is_selected(selection);
                let subscriber = is_shared.then_some(subscriber);
                self.respond(head, subscriber)
            }
            // Begun before this caller came: all of its kind share the next one.
            Verdict::Shareable { lineage, .. } if self.is_too_old(lineage, flight.number()) => {
                Next::RejoinLater
            }
            Verdict::Shareable { audience, .. } if !self.credentials.admitted_to(*audience) => {
                Next::Rejoin(self.key.only_for(self.credentials))
            }
            Verdict::Shareable { selection, .. } if !self.is_selected(selection) => {
                Next::Rejoin(self.key.selecting(self.own_selection(selection.as_ref())))
            }
            Verdict::Shareable { .. } => self.respond(head, Some(subscriber)),
        }
    }

    fn next_after_unshareable<B, E>(
        &self,
        why: Unshareable,
        head: &SharedHead,
        flight: &Flight,
    ) -> Next<B, E> {
        if self.is_of_session(why, head, flight.leader_credentials()) {
            return Next::Rejoin(self.key.only_for(self.credentials));
        }
        let failures = self.key.failures();
        match head.is_error() {
            true if failures == 0 => self.retry(),
            // An origin that says so twice is not asked again for all the others.
            _ if head.status() == StatusCode::TOO_MANY_REQUESTS => self.respond(head, None),
            true if failures < MAX_FAILURES => Next::Split(self.key.split(flight.next_group(GROUPS), GROUPS)),
            _ => Next::Alone,
        }
    }

    /// A failure may be the fault of the request that was sent: that of another caller is tried.
    fn retry<B, E>(&self) -> Next<B, E> {
        Next::Rejoin(self.key.clone().after_failure())
    }

    /// Responds with the shared response, or without a subscriber with its status alone.
    fn respond<B, E>(&self, head: &SharedHead, subscriber: Option<Subscriber>) -> Next<B, E> {
        let mut response = match subscriber {
            Some(subscriber) => head.to_response(subscriber.into_body(head.size())),
            None => head.to_bare_response(),
        };
        // A layer above shares the response as well.
        if self.request().is_some_and(CacheRequest::wants_shareability) {
            response.extensions_mut().insert(head.verdict().handed_on());
        }
        Next::Respond(Ok(response))
    }

    fn is_selected(&self, selection: &Option<Selection>) -> bool {
        selection.as_ref().is_none_or(|selection| {
            selection.matches(&RequestFields::of(&self.head.headers), &mut Forms::default())
        })
    }

    /// This request's values of all fields that are known to select a response, those that were known
    /// before included: where responses differ in what they name, a caller must not come back to a
    /// flight key that it has had.
    fn own_selection(&self, named: Option<&Selection>) -> Option<Selection> {
        let known = self.key.selection().map_or(&[][..], |known| known.fields());
        let fields = named.map(|named| all_fields(known, named.fields()));
        fields.map(|fields| Selection::new(&fields, &self.head.headers))
    }

    /// Whether a response may be for one client because the leader's request had a session, while this
    /// one has none.
    fn is_of_session(&self, why: Unshareable, head: &SharedHead, leader: Credentials) -> bool {
        use Unshareable::{Cookie, Error, NoStore, NotFresh, Private, SetCookie, Token};
        let has_session = leader.cookie || leader.token;
        let is_of_session = match why {
            Cookie | Token => true,
            NoStore | Private | SetCookie | NotFresh | Error => {
                has_session && head.status() != StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        };
        let own = self.credentials;
        is_of_session && !own.cookie && !own.token && !self.key.is_only_for(own)
    }

    /// Whether only a fetch will do that began after this caller came, and this one did not: by the number
    /// that the store gave it, else by that of its flight.
    fn is_too_old(&self, lineage: &Option<Provenance>, flight: u64) -> bool {
        let is_newer = |request: &CacheRequest| match lineage {
            Some(lineage) => lineage.begun() > request.arrived_at(),
            None => flight > self.arrived,
        };
        self.request().is_some_and(|request| request.needs_newer() && !is_newer(request))
    }
}

fn all_fields(known: &[HeaderName], named: &Arc<[HeaderName]>) -> Arc<[HeaderName]> {
    if known.iter().all(|field| named.contains(field)) {
        return Arc::clone(named);
    }
    let mut all: Vec<_> = known.iter().chain(&**named).cloned().collect();
    all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    all.dedup();
    all.into()
}
