use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use http::{HeaderName, Method, Request, Response, StatusCode, header, request, response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::{fetch, recorder::Recording};
use crate::{
    body::{Body, ResponseBody},
    exchange::{
        self, failures,
        status::{self, CacheStatus},
    },
    http::{
        cache_control, conditions, cookies, fields,
        response_fields::{ResponseFields, retry_after},
        rules::Rules,
        storing,
    },
    key,
    layers::service::{EagerOneshot, HttpService, ResponseFuture},
    observe::Stats,
    sequence,
    store::{self, Store},
    tags::{TagFields, Tags},
};

/// Stores the responses of the wrapped service; see the [module](crate::fill).
pub struct FillLayer<St, P = ()> {
    shared: Arc<fetch::Shared<St, P>>,
}

impl<St, P> Clone for FillLayer<St, P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<St: Store> FillLayer<St> {
    /// Fills this store by the default [`Rules`].
    pub fn new(store: St) -> Self {
        let targets = fetch::Targets {
            names: Arc::from([cache_control::CDN_CACHE_CONTROL]),
            are_stripped: false,
            tags: TagFields::default(),
            tags_are_stripped: true,
        };
        let (store, policy, failures) =
            (exchange::ObservedStore::new(store), Arc::new(()), failures::FailurePolicy::default());
        let (rules, is_over_own_layer) = (Rules::new(), false);
        Self {
            shared: Arc::new(fetch::Shared { store, rules, policy, targets, failures, is_over_own_layer }),
        }
    }
}

impl<St: Store, P: fetch::Policy> FillLayer<St, P> {
    /// The rules where neither the request's extensions nor a policy says otherwise.
    #[must_use]
    pub fn rules(self, rules: Rules) -> Self {
        self.set(|shared| shared.rules = rules)
    }

    /// Decides for each response. Default: the rules as they are.
    #[must_use]
    pub fn policy<Q: fetch::Policy>(self, policy: Q) -> FillLayer<St, Q> {
        let fetch::Shared { store, rules, targets, failures, is_over_own_layer, .. } =
            Arc::unwrap_or_clone(self.shared);
        let policy = Arc::new(policy);
        FillLayer {
            shared: Arc::new(fetch::Shared { store, rules, policy, targets, failures, is_over_own_layer }),
        }
    }

    /// Tells this observer what comes of storing each response, and of each response that the service
    /// returns, if no [`Lookup`](crate::Lookup) above it does. Default: none.
    #[must_use]
    pub fn observer(self, observer: impl exchange::Observer) -> Self {
        self.set(|shared| shared.store.observers_mut().observe(observer))
    }

    /// Counts what comes of storing each response, and what the service returns if no
    /// [`Lookup`](crate::Lookup) above it counts; see [`Stats`]. Default: none.
    #[must_use]
    pub fn counted_by(self, stats: &Stats) -> Self {
        stats.read_store(self.shared.store.unobserved());
        self.set(|shared| shared.store.observers_mut().count(stats))
    }

    /// Which responses are failures, which are stored only with freshness of their own and where
    /// nothing better is stored. Default: [`DefaultFailures`](crate::DefaultFailures). Any 5xx but 501
    /// is treated so in any case.
    #[must_use]
    pub fn failures(self, failures: impl failures::Failures) -> Self {
        self.failure_policy(failures::FailurePolicy::new(failures))
    }

    pub(crate) fn failure_policy(self, failures: failures::FailurePolicy) -> Self {
        self.set(|shared| shared.failures = failures)
    }

    /// The targeted fields that speak to this cache, the most specific first: the first valid one
    /// takes the place of `Cache-Control` and `Expires` (RFC 9213 §2.2). Default:
    /// `CDN-Cache-Control` alone; none switches them off.
    #[must_use]
    pub fn targets(self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|shared| shared.targets.names = fields.into_iter().collect())
    }

    /// Fields of responses that name [tags](crate::tags), beside `Surrogate-Key` and `Cache-Tag`: their
    /// tags count as those do, and the fields are [stripped](Self::strip_tags) as those are. Default: none.
    ///
    /// Name no field that clients read: [`ReadThroughBuilder::build`](crate::ReadThroughBuilder::build) refuses those,
    /// and a layer of its own would remove them.
    #[must_use]
    pub fn tag_fields(self, fields: TagFields) -> Self {
        self.set(|shared| shared.targets.tags = fields)
    }

    /// Removes `Surrogate-Key` and `Cache-Tag`, and the other [fields](Self::tag_fields) that name tags,
    /// from all responses: they are for this cache, and say more about the origin than clients need to
    /// know. Default: yes. Switch it off where another cache in front of this one needs them.
    /// `Cache-Groups` is for all caches and stays.
    #[must_use]
    pub fn strip_tags(self, strip: bool) -> Self {
        self.set(|shared| shared.targets.tags_are_stripped = strip)
    }

    /// Removes the targeted fields from responses, so that caches farther on do not see what was
    /// meant for this one. Default: they are forwarded, for caches they are meant for as well.
    #[must_use]
    pub fn strip_targets(self, strip: bool) -> Self {
        self.set(|shared| shared.targets.are_stripped = strip)
    }
}

impl<St: Clone, P> FillLayer<St, P> {
    fn set(mut self, change: impl FnOnce(&mut fetch::Shared<St, P>)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    pub(super) const fn shared(&self) -> &Arc<fetch::Shared<St, P>> {
        &self.shared
    }

    /// Says that the service below is a layer of this crate.
    pub(crate) fn over_own_layer(self) -> Self {
        self.set(|shared| shared.is_over_own_layer = true)
    }

    /// The fields that name tags, beside the two that always do.
    pub(crate) fn own_tag_fields(&self) -> &TagFields {
        &self.shared.targets.tags
    }

    /// The same with the fields that an extractor knows as well.
    pub(crate) fn and_tag_fields(self, fields: &TagFields) -> Self {
        self.set(|shared| shared.targets.tags = shared.targets.tags.and(fields))
    }
}

impl<St, P> FillLayer<St, P> {
    /// The fields with tags that are removed from what is passed on, beside the two that always are.
    pub(crate) fn strips_tags(&self) -> Option<TagFields> {
        self.shared.targets.stripped_tags()
    }
}

impl<St, P> fmt::Debug for FillLayer<St, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillLayer").field("rules", &self.shared.rules).finish_non_exhaustive()
    }
}

impl<S, St, P> Layer<S> for FillLayer<St, P> {
    type Service = Fill<S, St, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Fill { inner, layer: self.clone() }
    }
}

/// The service of [`FillLayer`].
///
/// It wraps any service of [`http::Request`]s that can be cloned and sent to another thread, and so can its
/// futures and errors.
pub struct Fill<S, St, P = ()> {
    inner: S,
    layer: FillLayer<St, P>,
}

impl<S: Clone, St, P> Clone for Fill<S, St, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, St, P> fmt::Debug for Fill<S, St, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

impl<S, St, P, ReqB, B> Service<Request<ReqB>> for Fill<S, St, P>
where
    S: HttpService<ReqB, Response = Response<B>>,
    St: Store,
    P: fetch::Policy,
    ReqB: HttpBody + Default + Send + 'static,
    B: ResponseBody,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: it may respond from the store.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let observers = self.layer.shared.store.observers().of_outermost(&mut head.extensions, None);
        if observers.is_empty() {
            return self.respond(head, body);
        }
        let why = CacheStatus::forwarded(status::Forward::Miss);
        self.respond(head, body).observed(&observers, why)
    }
}

impl<S, St: Store, P: fetch::Policy> Fill<S, St, P> {
    /// Inlined, what it returns is moved once more.
    #[inline(never)]
    fn respond<ReqB, B>(
        &mut self,
        mut head: request::Parts,
        body: ReqB,
    ) -> ResponseFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>
    where
        S: HttpService<ReqB, Response = Response<B>>,
        ReqB: HttpBody + Default + Send + 'static,
        B: ResponseBody,
    {
        let shared = &self.layer.shared;
        let rules = key::RuleOverrides::rules_for(&head.extensions, &shared.rules);
        // Meant for here, not for a cache below.
        head.extensions.remove::<key::RuleOverrides>();
        let search = head.extensions.remove::<key::SearchKey>();
        let Some(asked) = exchange::CacheRequest::of(&head, &shared.rules.request.credentials) else {
            // That of a part of a fetch above is stripped there.
            let is_part = head.extensions.get().is_some_and(exchange::CacheRequest::is_part_of_fetch);
            let strips_tags = self.layer.strips_tags().filter(|_| !is_part);
            let response = EagerOneshot::new(&self.inner, Request::from_parts(head, body));
            return ResponseFuture::pass_without_tags(response, strips_tags);
        };
        let asked = asked.into_owned();
        fields::remove_upgrade(&mut head.headers);
        let client = exchange::RequestCopy::new(shared.copy(&head), asked);
        let fetch = fetch::Fetch { layer: Arc::clone(shared), client, rules, search };
        let entry = fetch.entry();
        let stored = entry.as_deref().and_then(|stored| fetch.stored_meanwhile(stored));
        let stored = stored.or_else(|| fetch.found_fresh());
        if let Some(response) = stored {
            return ResponseFuture::ready(response);
        }
        fetch.client.attach(&mut head.extensions);
        let (mut in_flight, fetching) = InFlight::begin(fetch, entry.as_deref());
        let again = in_flight.make_conditional(&mut head, &body, &self.inner);
        let request = Request::from_parts(head, body);
        let response = EagerOneshot::through(&mut self.inner, shared.is_over_own_layer, request);
        ResponseFuture::boxed(FetchFuture::new(response, in_flight, again, fetching))
    }
}

/// A fetch whose request is on its way to the origin, and what the response is judged by.
struct InFlight<St, P> {
    fetch: fetch::Fetch<St, P>,
    /// What the request is conditional on, if it is by the cache's own doing.
    candidate: Option<fetch::Candidate>,
    /// Whether this is the repetition without conditions.
    is_repeated: bool,
    purge_keys: Arc<sequence::PurgeKeys>,
    sent_at: Instant,
}

/// Sends the request once more, without conditions.
type Again<F> = Box<dyn FnOnce() -> F + Send>;

pin_project! {
    /// Waits for the origin's response, beside what it will be judged by: that is large, and is not
    /// moved again.
    struct FetchFuture<F, St, P> {
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
    // Not inlined, the response future is moved once more.
    #[inline(always)]
    fn new(
        response: F,
        in_flight: InFlight<St, P>,
        again: Option<Again<F>>,
        fetching: sequence::Fetching,
    ) -> Self {
        Self { response: Some(response), in_flight, again, fetching: Some(fetching) }
    }
}

impl<F, St: Store, P: fetch::Policy, B, E> Future for FetchFuture<F, St, P>
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
                Err(error) => {
                    this.in_flight.note_failed_fetch(None);
                    let instead = this.in_flight.fetch.found_instead_of(None::<&Response<B>>);
                    return Poll::Ready(instead.ok_or(error));
                }
            };
            let fetch = &this.in_flight.fetch;
            let mut response_fields =
                fetch.layer.targets.response_fields(response.headers()).under(fetch.client.asked().keyed());
            response_fields.settle_length(&this.in_flight.fetch.client.head().method, &mut response);
            if let Some(again) = this.again.take_if(|_| this.in_flight.is_misfit(&response, &response_fields))
            {
                // Dropped before the request is sent again, with what they hold, such as a place at the origin.
                drop(response);
                this.response.set(None);
                this.in_flight.repeat();
                this.response.set(Some(again()));
                continue;
            }
            this.in_flight.note_failure(&response);
            if let Some(instead) = this.in_flight.instead_of_failure(&response) {
                return Poll::Ready(Ok(instead));
            }
            let fetching = this.fetching.take().expect("polled after completion");
            return Poll::Ready(Ok(this.in_flight.conclude(response, &response_fields, fetching)));
        }
    }
}

impl<St: Store, P: fetch::Policy> InFlight<St, P> {
    /// Numbers the fetch, and finds what the origin can be asked to confirm.
    fn begin(fetch: fetch::Fetch<St, P>, entry: Option<&store::Entry>) -> (Self, sequence::Fetching) {
        let purge_keys = fetch.purge_keys();
        let fetching = fetch.layer.store.sequence().begin(&purge_keys);
        // After the number was taken: what is purged from now on is not confirmed either.
        let candidate = fetch.candidate(entry);
        (Self { fetch, candidate, is_repeated: false, purge_keys, sent_at: Instant::now() }, fetching)
    }

    /// Makes the request conditional, if there is something to confirm, and returns the way to send it
    /// without conditions. What cannot be sent twice stays without.
    fn make_conditional<S, ReqB>(
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
        let inner = inner.clone();
        let (client, extensions) = (Arc::clone(&self.fetch.client), head.extensions.clone());
        candidate.make_conditional(&mut head.headers);
        exchange::CacheRequest::note_validators(&mut head.extensions, candidate.stored());
        self.candidate = Some(candidate);
        Some(Box::new(move || {
            let head = client.to_head(Some(&extensions));
            EagerOneshot::new(&inner, Request::from_parts(head, body))
        }))
    }

    /// Whether the response is due to the cache's own conditions and of no use to the client: a 304 that
    /// does not confirm the candidate, or a 412.
    fn is_misfit<B>(&self, response: &Response<B>, response_fields: &ResponseFields) -> bool {
        match (&self.candidate, response.status()) {
            (Some(candidate), StatusCode::NOT_MODIFIED) => {
                candidate.confirmed_by(response.headers(), &response_fields.vary).is_none()
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

    /// Lets what is stored rest after a failure, and after a 429 as long as the origin asks for.
    fn note_failure<B>(&self, response: &Response<B>) {
        let (status, headers) = (response.status(), response.headers());
        let is_refused = || response.extensions().get::<exchange::Refused>().is_some();
        let is_failure = || self.fetch.layer.failures.is_failure(status, headers);
        if (status.is_client_error() || status.is_server_error())
            && !is_refused()
            && (status == StatusCode::TOO_MANY_REQUESTS || is_failure())
        {
            self.note_failed_fetch(retry_after(headers, SystemTime::now()));
        }
    }

    /// What a second tier had, if this response is a failure that it may be used instead of.
    fn instead_of_failure<A, B>(&self, response: &Response<A>) -> Option<Response<Body<B>>> {
        self.fetch.client.asked().found()?;
        let has_failed = self.fetch.layer.failures.has_failed(response);
        has_failed.then(|| self.fetch.found_instead_of(Some(response)))?
    }

    fn note_failed_fetch(&self, asked_for: Option<Duration>) {
        if let Some(watch) = self.fetch.client.asked().key_watch() {
            watch.note_failed_fetch(asked_for);
        }
    }

    /// Returns what the client gets of the origin's response.
    fn conclude<B>(
        &self,
        response: Response<B>,
        response_fields: &ResponseFields,
        fetching: sequence::Fetching,
    ) -> Response<Body<B>>
    where
        B: ResponseBody,
    {
        let Self { fetch, .. } = self;
        let client = fetch.client.head();
        let (head, body) = response.into_parts();
        let sent_at = exchange::ResponseFacts::attempt_began(&head.extensions).unwrap_or(self.sent_at);
        if let Some(stats) = fetch.layer.store.observers().stats() {
            stats.fetched(self.sent_at, sent_at);
        }
        let own = head.extensions.get::<Tags>();
        let fields =
            sequence::Tagged { headers: &head.headers, response_fields, fields: &fetch.layer.targets.tags };
        let purge_keys = fetch.layer.store.sequence().tagged(&self.purge_keys, client, fields, own);
        let origin = store::Origin::new(response_fields, sent_at, fetching.number, purge_keys);
        if head.status == StatusCode::NOT_MODIFIED && (self.is_repeated || self.candidate.is_some()) {
            return self.not_modified(head, response_fields, &origin);
        }
        self.fetched((head, body), response_fields, &origin, fetching)
    }

    /// Not inlined, since it is rare.
    #[inline(never)]
    fn not_modified<B>(
        &self,
        head: response::Parts,
        response_fields: &ResponseFields,
        origin: &store::Origin,
    ) -> Response<Body<B>> {
        let candidate = self.candidate.as_ref();
        match candidate.and_then(|candidate| candidate.confirmed_by(&head.headers, &response_fields.vary)) {
            Some(stored) => self.fetch.revalidated(self.fetch.client.head(), stored, head, origin),
            None => self.fetch.unasked(origin),
        }
    }

    fn fetched<B>(
        &self,
        (mut head, body): (response::Parts, B),
        response_fields: &ResponseFields,
        origin: &store::Origin,
        fetching: sequence::Fetching,
    ) -> Response<Body<B>>
    where
        B: ResponseBody,
    {
        let fetch = &self.fetch;
        let client = fetch.client.head();
        if client.method == Method::HEAD {
            fetch.learn_from_head(client, &head, &response_fields.vary, origin);
        }
        let fields = fetch.client.asked().fields(&client.headers);
        let asks_for_one_part = fetch.client.asked().facts().asks_for_one_part();
        let extent = conditions::Extent::for_all(asks_for_one_part, head.status, &head.headers);
        let (mut decision, rules) = fetch.decide((client, &fields), &head, extent, response_fields, origin);
        if decision.is_storable && fetch.is_too_large(response_fields, &body) {
            let why = storing::NotStored::TooLarge;
            let store = fetch.layer.store.unobserved();
            store.not_stored(fetch.client.asked().key(), store::Applied::NotStored(why));
            decision = storing::Decision::not_stored(storing::Sharing::Unshareable(why));
        }
        if decision.is_storable && fetch.is_purged(origin) {
            decision = decision.lost(storing::NotStored::PurgedMeanwhile);
        }
        fetch.note((client, &fields), (head.status, &head.headers), &decision, &rules, origin);
        fetch.tell(&decision);
        let has_length = response_fields.content.is_some() || body.size_hint().exact().is_some();
        let selection = store::selection(&response_fields.vary, &fields);
        fetch.layer.targets.strip(&mut head.headers, response_fields.has_tags);
        let body = match decision.is_storable {
            true => {
                let hit_for_miss = fetch.marker((client, &fields), head.status, &rules, origin);
                let recording =
                    Recording { extent, decision: &decision, selection: &selection, origin, hit_for_miss };
                recording.start(
                    (fetch.layer.store.clone(), &fetch.client),
                    &head,
                    (body, response_fields),
                    fetching,
                )
            }
            false => Body::declared(body, response_fields.content),
        };
        if rules.store_without.has(&header::SET_COOKIE) {
            cookies::spare_those_of_client(client, &mut head.headers);
        }
        // Said by a stack below of its own body, which nothing reads to its end for the store here.
        exchange::ResponseFacts::forget(&mut head.extensions);
        let mut response = Response::from_parts(head, body);
        let status = response.status();
        fetch.sign(&mut response, status, decision, selection, origin, has_length);
        response
    }
}

#[cfg(test)]
impl<St, P> FillLayer<St, P> {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::switch;
        let fetch::Targets { names, are_stripped, tags, tags_are_stripped } = &self.shared.targets;
        let has_tags = tags.iter().next().is_some();
        let is_builtin = **names == [cache_control::CDN_CACHE_CONTROL];
        vec![
            ("FillLayer::targets", if is_builtin { "CDN-Cache-Control" } else { "others" }.to_owned()),
            ("FillLayer::strip_targets", switch(*are_stripped)),
            ("FillLayer::tag_fields", if has_tags { "some" } else { "none" }.to_owned()),
            ("FillLayer::strip_tags", switch(*tags_are_stripped)),
        ]
    }
}
