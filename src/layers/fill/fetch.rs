//! One fetch: from the second look into the store to the head of the response, and what it means.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Method, Request, Response, StatusCode, header, request, response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{Policy, layer::Shared, recorder::Recording, revalidation::Candidate};
use crate::{
    body::{Body, ResponseBody},
    exchange::{self, status::CacheStatus},
    http::{
        conditions, cookies, range, request_fields::RequestFields, response_fields::ResponseFields,
        rules::Rules, storing, vary,
    },
    key,
    layers::service::EagerOneshot,
    sequence,
    store::{self, Store},
    tags::Tags,
};

pub(super) struct Fetch<St, P> {
    pub(super) layer: Arc<Shared<St, P>>,
    /// What the response is judged by.
    pub(super) client: Arc<exchange::RequestCopy>,
    /// Those that hold for this request.
    pub(super) rules: Rules,
    pub(super) search: Option<key::SearchKey>,
}

impl<St: Store, P: Policy> Fetch<St, P> {
    /// What is stored under the key by now.
    pub(super) fn resource(&self) -> Option<Arc<store::Entry>> {
        self.layer.store.get(self.client.asked().key())
    }

    /// Returns the response, if another fetch has stored it since the request arrived.
    #[inline(never)]
    pub(super) fn stored_meanwhile<B>(&self, resource: &store::Entry) -> Option<Response<Body<B>>> {
        let head = self.client.head();
        let selected = self.selected(resource, head);
        if let Some(stored) = selected.filter(|stored| self.is_stored_meanwhile(stored)) {
            return Some(self.stored_response_to(stored, head));
        }
        self.part_stored_meanwhile(resource, head).map(|part| self.part_response(part, head))
    }

    /// Numbers the fetch, and finds what the origin can be asked to confirm.
    pub(super) fn begin(self, resource: Option<&store::Entry>) -> (InFlight<St, P>, sequence::Fetching) {
        let client = self.client.head();
        let subject = self.subject(client);
        let fetching = self.layer.store.sequence().begin(&subject);
        // After the number was taken: what is purged from now on is not confirmed either.
        let candidate = self.candidate(resource, client);
        (InFlight { fetch: self, candidate, is_repeated: false, subject, sent_at: Instant::now() }, fetching)
    }

    /// What purges can match of the response before it is there.
    fn subject(&self, client: &request::Parts) -> Arc<sequence::Subject> {
        match self.client.asked().arrival() {
            Some(arrival) => Arc::clone(&arrival.subject),
            None => self.layer.store.sequence().subject(
                &key::DefaultKey::new(),
                client,
                self.client.asked().key(),
            ),
        }
    }

    fn selected<'a>(
        &self,
        resource: &'a store::Entry,
        head: &request::Parts,
    ) -> Option<&'a Arc<store::StoredResponse>> {
        resource.select(&self.client.asked().fields(&head.headers), self.layer.store.sequence())
    }

    /// Whether another fetch put it into the store since the request arrived.
    fn is_stored_meanwhile(&self, stored: &store::StoredResponse) -> bool {
        let is_for_all = self.client.asked().facts().is_for_all();
        self.is_recent(stored) && stored.is_fresh(Instant::now()) && is_for_all
    }

    fn is_recent(&self, stored: &store::StoredResponse) -> bool {
        !self.client.asked().needs_newer() || stored.begun() > self.client.asked().arrived_at()
    }

    fn candidate(&self, resource: Option<&store::Entry>, head: &request::Parts) -> Option<Candidate> {
        if self.client.asked().facts().is_conditional() || !key::kind_of(head).is_revalidatable() {
            return None;
        }
        let selected = match self.client.asked().candidate() {
            exchange::StaleCandidate::Whole { response, .. } => response,
            exchange::StaleCandidate::None | exchange::StaleCandidate::Part(_) => return None,
            exchange::StaleCandidate::Unknown => self.selected(resource?, head)?,
        };
        Candidate::new(Arc::clone(selected), self.layer.store.sequence())
    }

    fn part_stored_meanwhile<'a>(
        &self,
        resource: &'a store::Entry,
        head: &request::Parts,
    ) -> Option<&'a store::Part> {
        if !self.client.asked().facts().asks_for_one_part() {
            return None;
        }
        let (glance, sequence) = (self.client.asked().fields(&head.headers), self.layer.store.sequence());
        let part = resource.select_part(&glance, sequence, Instant::now())?;
        self.is_recent(part.response()).then_some(part)
    }

    fn stored_response_to<B>(
        &self,
        stored: &store::StoredResponse,
        head: &request::Parts,
    ) -> Response<Body<B>> {
        let (head_only, now) = (head.method == Method::HEAD, Instant::now());
        let mut response = stored.to_response(head_only, now, CacheStatus::hit());
        range::apply(&head.method, &head.headers, &mut response, stored.body());
        self.tell_sharers(&mut response, stored, now);
        response
    }

    fn part_response<B>(&self, part: &store::Part, head: &request::Parts) -> Response<Body<B>> {
        let now = Instant::now();
        let mut response = part.to_response(&head.headers, now, CacheStatus::hit());
        self.tell_sharers(&mut response, part.response(), now);
        response
    }

    fn tell_sharers<B>(
        &self,
        response: &mut Response<Body<B>>,
        stored: &store::StoredResponse,
        now: Instant,
    ) {
        if self.client.asked().wants_shareability() {
            let shareability = exchange::Shareability::of_stored(stored, now, self.layer.store.sequence());
            exchange::ResponseFacts::note_shareability(response.extensions_mut(), shareability);
        }
    }

    pub(super) fn decide(
        &self,
        (client, glance): (&request::Parts, &RequestFields<'_>),
        head: &response::Parts,
        extent: Option<range::Extent>,
        outline: &ResponseFields,
        origin: &store::Origin,
    ) -> (storing::Decision, Rules) {
        let rules = self.layer.policy.rules(client, head, self.rules.clone());
        let (kind, targets) = (key::kind_of(client), &self.layer.targets.names);
        let is_breakdown = self.layer.failures.is_breakdown(head.status, &head.headers);
        let response = storing::ResponseHead::new(head.status, &head.headers, outline)
            .with_extent(extent)
            .with_breakdown(is_breakdown);
        let mut decision = storing::judge(kind, glance.credentials, &response, &rules, targets);
        if is_breakdown && decision.is_storable && self.would_displace(client, outline) {
            decision = decision.displacing(&rules);
        }
        self.check_search(client, &head.headers, &mut decision);
        if origin.subject.is_excessive() && decision.sharing == storing::Sharing::Shareable {
            decision =
                storing::Decision::not_stored(storing::Sharing::Unshareable(storing::Unshareable::TooLarge));
        }
        (decision, rules)
    }

    /// A key may leave out parts of a query only as far as the response itself says so.
    fn check_search(&self, client: &request::Parts, response: &HeaderMap, decision: &mut storing::Decision) {
        let Some(search) = &self.search else { return };
        let is_kept = decision.is_storable || decision.sharing == storing::Sharing::Shareable;
        if is_kept {
            search.learn(client, response);
        }
        if search.agrees(client, response, (self.client.asked().key(), self.client.asked().keyed())) {
            return;
        }
        match &mut decision.sharing {
            storing::Sharing::Failed { for_all } => *for_all = false,
            _ if is_kept => {
                *decision = storing::Decision::not_stored(storing::Sharing::Unshareable(
                    storing::Unshareable::NoVarySearch,
                ));
            }
            _ => {}
        }
    }

    /// Whether a stored error would take the place of what may be served instead of it, to this
    /// client or to another. The store knows, also if no layer above has looked.
    fn would_displace(&self, client: &request::Parts, error: &ResponseFields) -> bool {
        let Some(resource) = self.layer.store.get(self.client.asked().key()) else { return false };
        let selection = error.vary.selection(&client.headers);
        let is_kept_apart = |stored: &store::StoredResponse| match (stored.selection(), &selection) {
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
        decision: &storing::Decision,
        rules: &Rules,
        origin: &store::Origin,
    ) {
        let storing::Sharing::Unshareable(why) = decision.sharing else { return };
        // A response to one client's condition or range says nothing about the response for others.
        if why == storing::Unshareable::Incomplete && self.client.asked().facts().is_conditional() {
            return;
        }
        let supersedes = match why {
            storing::Unshareable::Authorization
            | storing::Unshareable::Cookie
            | storing::Unshareable::Token
            | storing::Unshareable::Incomplete
            | storing::Unshareable::Framing => false,
            // An error may be the fault of this client, unless it says that nothing is there.
            _ => !storing::is_error(status) || storing::is_gone(status),
        } && key::kind_of(client).is_whole()
            && !decision.is_storable;
        let marker = self.marker((client, glance), status, rules, origin);
        if !supersedes && marker.is_none() {
            return;
        }
        // What is too large leaves the parts that are not.
        let spared =
            if why == storing::Unshareable::TooLarge { conditions::strong_tag(headers) } else { None };
        let change = match (supersedes, marker) {
            (false, Some(marker)) => store::Change::HitForMiss(marker),
            (_, hit_for_miss) => {
                let (request, spared_tag) = (self.client.to_headers(), spared.cloned());
                store::Change::Supersede { request, fetch_number: origin.begun, spared_tag, hit_for_miss }
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
        origin: &store::Origin,
    ) -> Option<store::HitForMiss> {
        let window = rules.hit_for_miss_for;
        let says_nothing = storing::is_error(status) || client.method == Method::HEAD || window.is_zero();
        (!says_nothing).then(|| store::HitForMiss::new(&client.method, glance, origin.received_at, window))
    }

    pub(super) fn sign<B>(
        &self,
        response: &mut Response<Body<B>>,
        from_origin: StatusCode,
        decision: storing::Decision,
        selection: Option<vary::Selection>,
        origin: &store::Origin,
    ) {
        let status = self.client.asked().why().stored(decision.is_storable);
        let mut status = status.answered(from_origin, response.status());
        if let storing::Sharing::Unshareable(why) = decision.sharing {
            status = status.unshared(why);
        }
        if self.client.asked().wants_shareability() {
            let times = (origin.received_at, origin.fresh_until(&decision.terms));
            let provenance =
                sequence::Provenance::of_fetch(self.layer.store.sequence(), &origin.subject, origin.begun);
            let limit = if decision.is_storable { self.layer.store.max_response_bytes() } else { 0 };
            let shareability = exchange::Shareability::new(decision, selection, times, Some(provenance));
            exchange::ResponseFacts::note_shareability(
                response.extensions_mut(),
                shareability.stored_up_to(limit),
            );
        }
        status.mark(response);
    }
}

/// A fetch whose request is on its way to the origin, and what the response is judged by.
pub(super) struct InFlight<St, P> {
    pub(super) fetch: Fetch<St, P>,
    /// What the request is conditional on, if it is by the cache's own doing.
    pub(super) candidate: Option<Candidate>,
    /// Whether this is the repetition without conditions.
    pub(super) is_repeated: bool,
    pub(super) subject: Arc<sequence::Subject>,
    pub(super) sent_at: Instant,
}

/// Sends the request once more, without conditions.
pub(super) type Again<F> = Box<dyn FnOnce() -> F + Send>;

pin_project! {
    /// Waits for the origin's response, beside what it will be judged by: that is large, and is not
    /// moved again.
    pub(super) struct FetchFuture<F, St, P> {
        #[pin]
        response: Option<F>,
        in_flight: InFlight<St, P>,
        // Only of a request that is conditional.
        again: Option<Again<F>>,
        // Until the response is there, and then for as long as it may be stored.
        fetching: Option<sequence::Fetching>,
    }
}

impl<F, St, P> FetchFuture<F, St, P> {
    // Else it is moved once more.
    #[inline(always)]
    pub(super) fn new(
        response: F,
        in_flight: InFlight<St, P>,
        again: Option<Again<F>>,
        fetching: sequence::Fetching,
    ) -> Self {
        Self { response: Some(response), in_flight, again, fetching: Some(fetching) }
    }
}

impl<F, St: Store, P: Policy, B, E> Future for FetchFuture<F, St, P>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: ResponseBody,
{
    type Output = Result<Response<Body<B>>, E>;

    #[allow(clippy::expect_used)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let response = this.response.as_mut().as_pin_mut().expect("polled after completion");
            let mut response = match ready!(response.poll(cx)) {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let fetch = &this.in_flight.fetch;
            let mut outline =
                fetch.layer.targets.outline(response.headers()).under(fetch.client.asked().keyed());
            outline.settle_length(&this.in_flight.fetch.client.head().method, &mut response);
            if let Some(again) = this.again.take_if(|_| this.in_flight.is_misfit(&response, &outline)) {
                // First, with what they hold, such as a place at the origin.
                drop(response);
                this.response.set(None);
                this.in_flight.repeat();
                this.response.set(Some(again()));
                continue;
            }
            let fetching = this.fetching.take().expect("polled after completion");
            return Poll::Ready(Ok(this.in_flight.conclude(response, &outline, fetching)));
        }
    }
}

impl<St: Store, P: Policy> InFlight<St, P> {
    /// Makes the request conditional, if there is something to confirm, and returns the way to send it
    /// without conditions. What cannot be sent twice stays without.
    pub(super) fn make_conditional<S, ReqB>(
        &mut self,
        head: &mut request::Parts,
        body: &ReqB,
        inner: &S,
    ) -> Option<Again<EagerOneshot<S, Request<ReqB>>>>
    where
        S: Service<Request<ReqB>> + Clone + Send + 'static,
        ReqB: HttpBody + Default + Send + 'static,
    {
        let candidate = self.candidate.take()?;
        let body = key::copy_of_body(body, &head.extensions)?;
        let mut inner = inner.clone();
        let (client, extensions) = (Arc::clone(&self.fetch.client), head.extensions.clone());
        candidate.make_conditional(&mut head.headers);
        self.candidate = Some(candidate);
        Some(Box::new(move || {
            let head = client.to_head(Some(&extensions));
            EagerOneshot::new(&mut inner, Request::from_parts(head, body))
        }))
    }

    /// Whether the response is due to the cache's own conditions and of no use to the client: a 304 that
    /// does not confirm the candidate, or a 412.
    fn is_misfit<B>(&self, response: &Response<B>, outline: &ResponseFields) -> bool {
        match (&self.candidate, response.status()) {
            (Some(candidate), StatusCode::NOT_MODIFIED) => {
                candidate.confirmed_by(response.headers(), &outline.vary).is_none()
            }
            (Some(_), status) => status == StatusCode::PRECONDITION_FAILED,
            (None, _) => false,
        }
    }

    /// Notes that the request goes out once more now, without conditions. The fetch keeps its number:
    /// what was purged since it began is not to be stored.
    fn repeat(&mut self) {
        (self.candidate, self.is_repeated, self.sent_at) = (None, true, Instant::now());
    }

    /// Returns what the client gets of the origin's response.
    fn conclude<B>(
        &self,
        response: Response<B>,
        outline: &ResponseFields,
        fetching: sequence::Fetching,
    ) -> Response<Body<B>>
    where
        B: ResponseBody,
    {
        let Self { fetch, .. } = self;
        let client = fetch.client.head();
        let (head, body) = response.into_parts();
        let sent_at = exchange::ResponseFacts::attempt_began(&head.extensions).unwrap_or(self.sent_at);
        let own = head.extensions.get::<Tags>();
        let fields = sequence::Tagged { headers: &head.headers, outline, fields: &fetch.layer.targets.tags };
        let subject = fetch.layer.store.sequence().tagged(&self.subject, client, fields, own);
        let origin = store::Origin::new(outline, sent_at, fetching.number, subject);
        if head.status == StatusCode::NOT_MODIFIED && (self.is_repeated || self.candidate.is_some()) {
            return self.not_modified(head, outline, &origin);
        }
        self.fetched((head, body), outline, &origin, fetching)
    }

    /// Apart, as all that is rare: the way of all others is long enough.
    #[inline(never)]
    fn not_modified<B>(
        &self,
        head: response::Parts,
        outline: &ResponseFields,
        origin: &store::Origin,
    ) -> Response<Body<B>> {
        let candidate = self.candidate.as_ref();
        match candidate.and_then(|candidate| candidate.confirmed_by(&head.headers, &outline.vary)) {
            Some(stored) => self.fetch.revalidated(self.fetch.client.head(), stored, head, origin),
            None => self.fetch.unasked(origin),
        }
    }

    fn fetched<B>(
        &self,
        (mut head, body): (response::Parts, B),
        outline: &ResponseFields,
        origin: &store::Origin,
        fetching: sequence::Fetching,
    ) -> Response<Body<B>>
    where
        B: ResponseBody,
    {
        let fetch = &self.fetch;
        let client = fetch.client.head();
        if client.method == Method::HEAD {
            fetch.learn_from_head(client, &head, &outline.vary, origin);
        }
        let glance = fetch.client.asked().fields(&client.headers);
        let asks_for_one_part = fetch.client.asked().facts().asks_for_one_part();
        let extent = range::Extent::for_all(asks_for_one_part, head.status, &head.headers);
        let (mut decision, rules) = fetch.decide((client, &glance), &head, extent, outline, origin);
        if decision.is_storable && fetch.is_too_large(outline, &body) {
            fetch.layer.store.not_stored(fetch.client.asked().key(), store::Applied::TooLarge);
            decision =
                storing::Decision::not_stored(storing::Sharing::Unshareable(storing::Unshareable::TooLarge));
        }
        fetch.note((client, &glance), (head.status, &head.headers), &decision, &rules, origin);
        let selection = store::selection(&outline.vary, &glance);
        fetch.layer.targets.strip(&mut head.headers, outline.has_tags);
        let body = match decision.is_storable {
            true => {
                let hit_for_miss = fetch.marker((client, &glance), head.status, &rules, origin);
                let recording =
                    Recording { extent, decision: &decision, selection: &selection, origin, hit_for_miss };
                recording.start(fetch, &head, (body, outline), fetching)
            }
            false => Body::declared(body, outline.content),
        };
        if rules.store_without.has(&header::SET_COOKIE) {
            cookies::spare_those_of_client(client, &mut head.headers);
        }
        // Said by a stack below of its own body, which nothing reads to its end for the store here.
        exchange::ResponseFacts::forget(&mut head.extensions);
        let mut response = Response::from_parts(head, body);
        let status = response.status();
        fetch.sign(&mut response, status, decision, selection, origin);
        response
    }
}
