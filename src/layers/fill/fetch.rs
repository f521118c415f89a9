//! One fetch: from the second look into the store to the head of the response.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, request, response};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use super::{Policy, begun::Begun, candidate::Candidate, layer::Shared};
use crate::{
    body::Body,
    exchange::status::CacheStatus,
    exchange::{RequestCopy, ResponseFacts, Shareability, StaleCandidate},
    http::{
        conditions::strong_tag,
        range::{self, Extent},
        request_fields::RequestFields,
        response_fields::ResponseFields,
        rules::Rules,
        storing::{self, Decision, ResponseHead, Sharing, Unshareable, is_error, is_gone},
        vary::Selection,
    },
    key::{self, DefaultKey, SearchKey},
    sequence::{Fetching, Provenance, Subject},
    store::{Change, Entry, HitForMiss, Origin, Part, Store, StoredResponse},
};

pub(super) struct Fetch<St, P> {
    pub(super) layer: Arc<Shared<St, P>>,
    /// What the response is judged by.
    pub(super) client: Arc<RequestCopy>,
    /// Those that hold for this request.
    pub(super) rules: Rules,
    pub(super) search: Option<SearchKey>,
}

impl<St: Store, P: Policy> Fetch<St, P> {
    /// What is stored under the key by now.
    pub(super) fn resource(&self) -> Option<Arc<Entry>> {
        self.layer.store.get(self.client.asked().key())
    }

    /// Returns the response, if another fetch has stored it since the request arrived.
    #[inline(never)]
    pub(super) fn stored_meanwhile<B>(&self, resource: &Entry) -> Option<Response<Body<B>>> {
        let head = self.client.head();
        let selected = self.selected(resource, head);
        if let Some(stored) = selected.filter(|stored| self.is_stored_meanwhile(stored)) {
            return Some(self.stored_response_to(stored, head));
        }
        self.part_stored_meanwhile(resource, head).map(|part| self.part_response(part, head))
    }

    /// Numbers the fetch, and finds what the origin can be asked to confirm.
    pub(super) fn begin(self, resource: Option<&Entry>) -> (Begun<St, P>, Fetching) {
        let client = self.client.head();
        let subject = self.subject(client);
        let fetching = self.layer.store.sequence().begin(&subject);
        // After the number was taken: what is purged from now on is not confirmed either.
        let candidate = self.candidate(resource, client);
        (Begun { fetch: self, candidate, is_repeated: false, subject, sent_at: Instant::now() }, fetching)
    }

    /// What purges can match of the response before it is there.
    fn subject(&self, client: &request::Parts) -> Arc<Subject> {
        match self.client.asked().arrival() {
            Some(arrival) => Arc::clone(&arrival.subject),
            None => {
                self.layer.store.sequence().subject(&DefaultKey::new(), client, self.client.asked().key())
            }
        }
    }

    fn selected<'a>(&self, resource: &'a Entry, head: &request::Parts) -> Option<&'a Arc<StoredResponse>> {
        resource.select(&self.client.asked().fields(&head.headers), self.layer.store.sequence())
    }

    /// Whether another fetch put it into the store since the request arrived.
    fn is_stored_meanwhile(&self, stored: &StoredResponse) -> bool {
        let is_for_all = self.client.asked().facts().is_for_all();
        self.is_recent(stored) && stored.is_fresh(Instant::now()) && is_for_all
    }

    fn is_recent(&self, stored: &StoredResponse) -> bool {
        !self.client.asked().needs_newer() || stored.begun() > self.client.asked().arrived_at()
    }

    fn candidate(&self, resource: Option<&Entry>, head: &request::Parts) -> Option<Candidate> {
        if self.client.asked().facts().is_conditional() || !key::kind_of(head).is_revalidatable() {
            return None;
        }
        let selected = match self.client.asked().candidate() {
            StaleCandidate::Whole { response, .. } => response,
            StaleCandidate::None | StaleCandidate::Part(_) => return None,
            StaleCandidate::Unknown => self.selected(resource?, head)?,
        };
        Candidate::new(Arc::clone(selected), self.layer.store.sequence())
    }

    fn part_stored_meanwhile<'a>(&self, resource: &'a Entry, head: &request::Parts) -> Option<&'a Part> {
        if !self.client.asked().facts().asks_for_one_part() {
            return None;
        }
        let (glance, sequence) = (self.client.asked().fields(&head.headers), self.layer.store.sequence());
        let part = resource.select_part(&glance, sequence, Instant::now())?;
        self.is_recent(part.response()).then_some(part)
    }

    fn stored_response_to<B>(&self, stored: &StoredResponse, head: &request::Parts) -> Response<Body<B>> {
        let (head_only, now) = (head.method == Method::HEAD, Instant::now());
        let mut response = stored.to_response(head_only, now, CacheStatus::hit());
        range::apply(&head.method, &head.headers, &mut response, stored.body());
        self.tell_sharers(&mut response, stored, now);
        response
    }

    fn part_response<B>(&self, part: &Part, head: &request::Parts) -> Response<Body<B>> {
        let now = Instant::now();
        let mut response = part.to_response(&head.headers, now, CacheStatus::hit());
        self.tell_sharers(&mut response, part.response(), now);
        response
    }

    fn tell_sharers<B>(&self, response: &mut Response<Body<B>>, stored: &StoredResponse, now: Instant) {
        if self.client.asked().wants_shareability() {
            let shareability = Shareability::of_stored(stored, now, self.layer.store.sequence());
            ResponseFacts::note_shareability(response.extensions_mut(), shareability);
        }
    }

    pub(super) fn decide(
        &self,
        (client, glance): (&request::Parts, &RequestFields<'_>),
        head: &response::Parts,
        extent: Option<Extent>,
        outline: &ResponseFields,
        origin: &Origin,
    ) -> (Decision, Rules) {
        let rules = self.layer.policy.rules(client, head, self.rules.clone());
        let (kind, targets) = (key::kind_of(client), &self.layer.targets.names);
        let is_breakdown = self.layer.failures.is_breakdown(head.status, &head.headers);
        let response = ResponseHead::new(head.status, &head.headers, outline)
            .with_extent(extent)
            .with_breakdown(is_breakdown);
        let mut decision = storing::judge(kind, glance.credentials, &response, &rules, targets);
        if is_breakdown && decision.is_storable && self.would_displace(client, outline) {
            decision = decision.displacing(&rules);
        }
        self.check_search(client, &head.headers, &mut decision);
        if origin.subject.is_excessive() && decision.sharing == Sharing::Shareable {
            decision = Decision::not_stored(Sharing::Unshareable(Unshareable::TooLarge));
        }
        (decision, rules)
    }

    /// A key may leave out parts of a query only as far as the response itself says so.
    fn check_search(&self, client: &request::Parts, response: &HeaderMap, decision: &mut Decision) {
        let Some(search) = &self.search else { return };
        let is_kept = decision.is_storable || decision.sharing == Sharing::Shareable;
        if is_kept {
            search.learn(client, response);
        }
        if search.agrees(client, response, (self.client.asked().key(), self.client.asked().keyed())) {
            return;
        }
        match &mut decision.sharing {
            Sharing::Failed { for_all } => *for_all = false,
            _ if is_kept => {
                *decision = Decision::not_stored(Sharing::Unshareable(Unshareable::NoVarySearch));
            }
            _ => {}
        }
    }

    /// Whether a stored error would take the place of what may be served instead of it, to this
    /// client or to another. The store knows, also if no layer above has looked.
    fn would_displace(&self, client: &request::Parts, error: &ResponseFields) -> bool {
        let Some(resource) = self.layer.store.get(self.client.asked().key()) else { return false };
        let selection = error.vary.selection(&client.headers);
        let is_kept_apart = |stored: &StoredResponse| match (stored.selection(), &selection) {
            (Some(theirs), Some(ours)) => theirs.fields() == ours.fields() && theirs != ours,
            _ => false,
        };
        let (now, sequence) = (Instant::now(), self.layer.store.sequence());
        resource.variants().iter().any(|stored| {
            // First, for it notes what is stale by a soft purge.
            sequence.admits(stored)
                && stored.is_usable_on_error(now)
                && !self.layer.failures.is_breakdown(stored.status(), &stored.headers())
                && !is_kept_apart(stored)
        })
    }

    pub(super) fn is_too_large(&self, outline: &ResponseFields, body: &impl HttpBody) -> bool {
        let limit = self.layer.store.max_response_bytes() as u64;
        outline.content.unwrap_or(body.size_hint().lower()) > limit
    }

    /// Leaves a marker for what cannot be shared, and removes what the response supersedes.
    pub(super) fn note(
        &self,
        (client, glance): (&request::Parts, &RequestFields<'_>),
        (status, headers): (StatusCode, &HeaderMap),
        decision: &Decision,
        rules: &Rules,
        origin: &Origin,
    ) {
        let Sharing::Unshareable(why) = decision.sharing else { return };
        // A response to one client's condition or range says nothing about the response for others.
        if why == Unshareable::Incomplete && self.client.asked().facts().is_conditional() {
            return;
        }
        let supersedes = match why {
            Unshareable::Authorization
            | Unshareable::Cookie
            | Unshareable::Token
            | Unshareable::Incomplete
            | Unshareable::Framing => false,
            // An error may be the fault of this client, unless it says that nothing is there.
            _ => !is_error(status) || is_gone(status),
        } && key::kind_of(client).is_whole()
            && !decision.is_storable;
        let marker = self.marker((client, glance), status, rules, origin);
        if !supersedes && marker.is_none() {
            return;
        }
        // What is too large leaves the parts that are not.
        let spared = if why == Unshareable::TooLarge { strong_tag(headers) } else { None };
        let change = match (supersedes, marker) {
            (false, Some(marker)) => Change::HitForMiss(marker),
            (_, hit_for_miss) => {
                let (request, spared_tag) = (self.client.to_headers(), spared.cloned());
                Change::Supersede { request, fetch_number: origin.begun, spared_tag, hit_for_miss }
            }
        };
        self.layer.store.apply(self.client.asked().key(), change);
    }

    /// What a response that cannot be shared leaves for requests like this one.
    ///
    /// Nothing if it is an error, which may be the fault of one client and must not end sharing for
    /// all others, and nothing for HEAD, since the response to GET may well be shareable.
    pub(super) fn marker(
        &self,
        (client, glance): (&request::Parts, &RequestFields<'_>),
        status: StatusCode,
        rules: &Rules,
        origin: &Origin,
    ) -> Option<HitForMiss> {
        let window = rules.hit_for_miss_for;
        let says_nothing = is_error(status) || client.method == Method::HEAD || window.is_zero();
        (!says_nothing).then(|| HitForMiss::new(&client.method, glance, origin.received_at, window))
    }

    pub(super) fn sign<B>(
        &self,
        response: &mut Response<Body<B>>,
        from_origin: StatusCode,
        decision: Decision,
        selection: Option<Selection>,
        origin: &Origin,
    ) {
        let status = self.client.asked().why().stored(decision.is_storable);
        let mut status = status.answered(from_origin, response.status());
        if let Sharing::Unshareable(why) = decision.sharing {
            status = status.unshared(why);
        }
        if self.client.asked().wants_shareability() {
            let times = (origin.received_at, origin.fresh_until(&decision.terms));
            let provenance = Provenance::of_fetch(self.layer.store.sequence(), &origin.subject, origin.begun);
            let limit = if decision.is_storable { self.layer.store.max_response_bytes() } else { 0 };
            let shareability = Shareability::new(decision, selection, times, Some(provenance));
            ResponseFacts::note_shareability(response.extensions_mut(), shareability.stored_up_to(limit));
        }
        status.mark(response);
    }
}
