use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use http::{
    HeaderMap, HeaderName, Request, Response,
    request::{self, Parts},
    response,
};
use http_body::Body as HttpBody;
use tower_layer::Layer;
use tower_service::Service;

use super::fetch::{Fetch, FetchFuture};
use crate::{
    body::{Body, ResponseBody},
    exchange::{
        self, failures,
        status::{self, CacheStatus},
    },
    http::{cache_control, fields, response_fields::ResponseFields, rules::Rules, tag_fields},
    key,
    layers::service::{EagerOneshot, HttpService, ResponseFuture},
    store::Store,
    tags::TagFields,
};

/// Stores the responses of the wrapped service; see the [module](crate::fill).
pub struct FillLayer<St, P = ()> {
    shared: Arc<Shared<St, P>>,
}

impl<St, P> Clone for FillLayer<St, P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// What all services of a layer share.
pub(super) struct Shared<St, P> {
    pub(super) store: exchange::ObservedStore<St>,
    rules: Rules,
    pub(super) policy: Arc<P>,
    pub(super) targets: Targets,
    pub(super) failures: failures::FailurePolicy,
}

impl<St: Clone, P> Clone for Shared<St, P> {
    fn clone(&self) -> Self {
        let Self { store, rules, policy, targets, failures } = self;
        Self {
            store: store.clone(),
            rules: rules.clone(),
            policy: Arc::clone(policy),
            targets: targets.clone(),
            failures: failures.clone(),
        }
    }
}

/// The fields that speak to this cache before `Cache-Control` does (RFC 9213).
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub(super) names: Arc<[HeaderName]>,
    are_stripped: bool,
    /// Those that name tags, beside the two that always do.
    pub(super) tags: TagFields,
    tags_are_stripped: bool,
}

impl Targets {
    fn stripped_tags(&self) -> Option<TagFields> {
        self.tags_are_stripped.then(|| self.tags.clone())
    }

    pub(super) fn strip(&self, headers: &mut HeaderMap, may_have_tags: bool) {
        if self.are_stripped {
            fields::remove_all(headers, |name| self.names.contains(name));
        }
        if self.tags_are_stripped && may_have_tags {
            tag_fields::strip(headers, &self.tags);
        }
    }

    /// What of the fields of a response decides about storing it.
    pub(super) fn outline(&self, headers: &HeaderMap) -> ResponseFields {
        let mut outline = ResponseFields::of(headers, SystemTime::now());
        outline.has_tags |= self.tags.are_in(headers);
        outline
    }
}

impl<St: Store> FillLayer<St> {
    /// Fills this store by the default [`Rules`].
    pub fn new(store: St) -> Self {
        let targets = Targets {
            names: Arc::from([cache_control::CDN_CACHE_CONTROL]),
            are_stripped: false,
            tags: TagFields::default(),
            tags_are_stripped: true,
        };
        let (store, policy, failures) =
            (exchange::ObservedStore::new(store), Arc::new(()), failures::FailurePolicy::default());
        Self { shared: Arc::new(Shared { store, rules: Rules::new(), policy, targets, failures }) }
    }
}

impl<St: Store, P: Policy> FillLayer<St, P> {
    /// The rules where neither the request's extensions nor a policy says otherwise.
    #[must_use]
    pub fn rules(self, rules: Rules) -> Self {
        self.set(|shared| shared.rules = rules)
    }

    /// Decides for each response. Default: the rules as they are.
    #[must_use]
    pub fn policy<Q: Policy>(self, policy: Q) -> FillLayer<St, Q> {
        let Shared { store, rules, targets, failures, .. } = Arc::unwrap_or_clone(self.shared);
        FillLayer { shared: Arc::new(Shared { store, rules, policy: Arc::new(policy), targets, failures }) }
    }

    /// Tells this observer what comes of storing each response, and of each response that the service
    /// returns, if no [`Lookup`](crate::Lookup) above it does. Default: none.
    #[must_use]
    pub fn observer(self, observer: impl exchange::Observer) -> Self {
        self.observers(exchange::Observers::new(observer))
    }

    pub(crate) fn observers(self, observers: exchange::Observers) -> Self {
        self.set(|shared| shared.store.observe(observers))
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
    fn set(mut self, change: impl FnOnce(&mut Shared<St, P>)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
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

impl<St, P: Policy> Shared<St, P> {
    /// Returns the client's head, for judging the response. Without its extensions, if only the key or what
    /// is asked of the cache is in them and no policy looks at them.
    fn copy(&self, head: &Parts) -> Parts {
        match head.extensions.len() {
            ..=1 if !self.policy.looks() => exchange::without_extensions(head),
            _ => head.clone(),
        }
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
    P: Policy,
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
        let (head, body) = request.into_parts();
        let observers = self.layer.shared.store.observers().of_outermost(&head.extensions, None);
        let why = CacheStatus::forwarded(status::Forward::Miss);
        self.respond(head, body).observed(&observers, why)
    }
}

impl<S, St: Store, P: Policy> Fill<S, St, P> {
    fn respond<ReqB, B>(
        &mut self,
        mut head: Parts,
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
            // What passes as a part of a fetch above is stripped there.
            let is_part = head.extensions.get::<exchange::CacheRequest>().is_some();
            let strips_tags = self.layer.strips_tags().filter(|_| !is_part);
            let response = EagerOneshot::new(&mut self.inner, Request::from_parts(head, body));
            return ResponseFuture::pass_without_tags(response, strips_tags);
        };
        let asked = asked.into_owned();
        fields::remove_upgrade(&mut head.headers);
        let client = exchange::RequestCopy::new(shared.copy(&head), asked);
        let fetch = Fetch { layer: Arc::clone(shared), client, rules, search };
        let resource = fetch.resource();
        let stored = resource.as_deref().and_then(|stored| fetch.stored_meanwhile(stored));
        if let Some(response) = stored {
            return ResponseFuture::ready(response);
        }
        fetch.client.attach(&mut head.extensions);
        let (mut in_flight, fetching) = fetch.begin(resource.as_deref());
        let again = in_flight.make_conditional(&mut head, &body, &self.inner);
        let response = EagerOneshot::new(&mut self.inner, Request::from_parts(head, body));
        ResponseFuture::boxed(FetchFuture::new(response, in_flight, again, fetching))
    }
}

/// Has the last word on the [`Rules`] for one response, once its head is there.
///
/// Gets the rules that hold so far, which are the configured ones or those that a middleware
/// put into the request's extensions, and returns those that are to be used. Implemented for
/// closures, and for `()`, which changes nothing.
///
/// ```
/// use std::time::Duration;
/// use http::{request, response};
/// use tower_readthrough::{Policy, Rules};
///
/// let policy = |request: &request::Parts, response: &response::Parts, rules: Rules| {
///     if request.uri.path().starts_with("/search") {
///         rules.fixed_ttl(Duration::from_millis(200))
///     } else if response.headers.contains_key("x-personal") {
///         rules.never_store()
///     } else {
///         rules
///     }
/// };
/// fn takes_policies(_: impl Policy) {}
/// takes_policies(policy);
/// ```
pub trait Policy: Send + Sync + 'static {
    /// Returns the rules for this response to this request.
    ///
    /// The heads are as they came: a request before the cache made it conditional, and a
    /// response with the extensions that the wrapped service gave it. Of a 304 the fields of
    /// the stored response are shown, updated by it.
    fn rules(&self, request: &request::Parts, response: &response::Parts, rules: Rules) -> Rules;

    /// Whether the heads matter at all: if not, less of them is copied.
    #[doc(hidden)]
    fn looks(&self) -> bool {
        true
    }
}

impl Policy for () {
    fn rules(&self, _: &request::Parts, _: &response::Parts, rules: Rules) -> Rules {
        rules
    }

    fn looks(&self) -> bool {
        false
    }
}

impl<F> Policy for F
where
    F: Fn(&request::Parts, &response::Parts, Rules) -> Rules + Send + Sync + 'static,
{
    fn rules(&self, request: &request::Parts, response: &response::Parts, rules: Rules) -> Rules {
        self(request, response, rules)
    }
}

#[cfg(test)]
impl<St, P> FillLayer<St, P> {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::switch;
        let Targets { names, are_stripped, tags, tags_are_stripped } = &self.shared.targets;
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
