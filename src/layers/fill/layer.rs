use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tower_layer::Layer;
use tower_service::Service;

use super::{Policy, begun::Asking, fetch::Fetch};
use crate::{
    body::{Body, BoxError},
    exchange::failures::{FailurePolicy, Failures},
    exchange::{
        CacheRequest, ObservedStore, Observer, Observers,
        copy::{RequestCopy, without_extensions},
        status::{CacheStatus, Forward},
    },
    http::{
        cache_control::CDN_CACHE_CONTROL,
        fields::{remove_all, remove_upgrade},
        response_fields::ResponseFields,
        rules::Rules,
        tag_fields,
    },
    key::{RuleOverrides, SearchKey},
    layers::eager_oneshot::EagerOneshot,
    layers::future::ResponseFuture,
    store::Store,
    tags::TagFields,
};

/// Stores what the wrapped service answers; see the [module](crate::fill).
#[derive(Clone)]
pub struct FillLayer<St, P = ()> {
    pub(super) store: ObservedStore<St>,
    rules: Rules,
    pub(super) policy: Arc<P>,
    pub(super) targets: Targets,
    pub(super) failures: FailurePolicy,
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
    pub(super) fn strip(&self, headers: &mut HeaderMap, may_have_tags: bool) {
        if self.are_stripped {
            remove_all(headers, |name| self.names.contains(name));
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
            names: Arc::from([CDN_CACHE_CONTROL]),
            are_stripped: false,
            tags: TagFields::default(),
            tags_are_stripped: true,
        };
        let (store, failures) = (ObservedStore::new(store), FailurePolicy::default());
        Self { store, rules: Rules::new(), policy: Arc::new(()), targets, failures }
    }
}

impl<St: Store, P: Policy> FillLayer<St, P> {
    /// The rules where neither the request's extensions nor a policy says otherwise.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Decides for each answer. Default: the rules as they are.
    #[must_use]
    pub fn policy<Q: Policy>(self, policy: Q) -> FillLayer<St, Q> {
        let Self { store, rules, targets, failures, .. } = self;
        FillLayer { store, rules, policy: Arc::new(policy), targets, failures }
    }

    /// Tells this observer what comes of storing each response, and of each response that the service
    /// returns, if no [`Lookup`](crate::Lookup) above it does. Default: none.
    #[must_use]
    pub fn observer(self, observer: impl Observer) -> Self {
        self.observers(Observers::new(observer))
    }

    pub(crate) fn observers(mut self, observers: Observers) -> Self {
        self.store.observe(observers);
        self
    }

    /// Which responses are failures, which are stored only with freshness of their own and where
    /// nothing better is stored. Default: [`DefaultFailures`](crate::DefaultFailures). Any 5xx but 501
    /// is treated so in any case.
    #[must_use]
    pub fn failures(self, failures: impl Failures) -> Self {
        self.failure_policy(FailurePolicy::new(failures))
    }

    pub(crate) fn failure_policy(mut self, failures: FailurePolicy) -> Self {
        self.failures = failures;
        self
    }

    /// The targeted fields that speak to this cache, the most specific first: the first valid one
    /// takes the place of `Cache-Control` and `Expires` (RFC 9213 §2.2). Default:
    /// `CDN-Cache-Control` alone; none switches them off.
    #[must_use]
    pub fn targets(mut self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.targets.names = fields.into_iter().collect();
        self
    }

    /// Fields of responses that name [tags](crate::tags), beside `Surrogate-Key` and `Cache-Tag`: their
    /// tags count as those do, and the fields are [stripped](Self::strip_tags) as those are. Default: none.
    ///
    /// Name no field that clients read: [`ReadThroughBuilder::build`](crate::ReadThroughBuilder::build) refuses those,
    /// and a layer of its own would remove them.
    #[must_use]
    pub fn tag_fields(mut self, fields: TagFields) -> Self {
        self.targets.tags = fields;
        self
    }

    /// Removes `Surrogate-Key` and `Cache-Tag`, and the other [fields](Self::tag_fields) that name tags,
    /// from all answers: they are for this cache, and say more about the origin than clients need to
    /// know. Default: yes. Switch it off where another cache in front of this one needs them.
    /// `Cache-Groups` is for all caches and stays.
    #[must_use]
    pub fn strip_tags(mut self, strip: bool) -> Self {
        self.targets.tags_are_stripped = strip;
        self
    }

    /// Removes the targeted fields from answers, so that caches farther on do not see what was
    /// meant for this one. Default: they are forwarded, for caches they are meant for as well.
    #[must_use]
    pub fn strip_targets(mut self, strip: bool) -> Self {
        self.targets.are_stripped = strip;
        self
    }
}

impl<St: Clone, P> FillLayer<St, P> {
    /// The fields that name tags, beside the two that always do.
    pub(crate) fn own_tag_fields(&self) -> &TagFields {
        &self.targets.tags
    }

    /// The same with the fields that an extractor knows as well.
    pub(crate) fn and_tag_fields(&self, fields: &TagFields) -> Self {
        let mut targets = self.targets.clone();
        targets.tags = targets.tags.and(fields);
        let (store, policy) = (self.store.clone(), Arc::clone(&self.policy));
        Self { store, rules: self.rules.clone(), policy, targets, failures: self.failures.clone() }
    }
}

impl<St, P: Policy> FillLayer<St, P> {
    /// The client's head, for judging the answer. Where only the key or what is asked of the cache is
    /// in its extensions, and no policy looks, they can be left out.
    fn copy(&self, head: &Parts) -> Parts {
        match head.extensions.len() {
            ..=1 if !self.policy.looks() => without_extensions(head),
            _ => head.clone(),
        }
    }
}

impl<St, P> fmt::Debug for FillLayer<St, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillLayer").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl<S, St: Clone, P> Layer<S> for FillLayer<St, P> {
    type Service = Fill<S, St, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Fill { inner, layer: Arc::new(self.and_tag_fields(&TagFields::default())) }
    }
}

/// The service of [`FillLayer`].
pub struct Fill<S, St, P = ()> {
    pub(crate) inner: S,
    layer: Arc<FillLayer<St, P>>,
}

impl<S, St, P> Fill<S, St, P> {
    /// The fields with tags that are removed from what is passed on, beside the two that always are.
    pub(crate) fn strips_tags(&self) -> Option<TagFields> {
        let Targets { tags, tags_are_stripped, .. } = &self.layer.targets;
        tags_are_stripped.then(|| tags.clone())
    }
}

impl<S: Clone, St, P> Clone for Fill<S, St, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: Arc::clone(&self.layer) }
    }
}

impl<S: fmt::Debug, St, P> fmt::Debug for Fill<S, St, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

impl<S, St, P, ReqB, B> Service<Request<ReqB>> for Fill<S, St, P>
where
    S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    St: Store,
    P: Policy,
    ReqB: HttpBody + Default + Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: it may answer from the store.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (head, body) = request.into_parts();
        let called = |inner, head, body| EagerOneshot::new(inner, Request::from_parts(head, body));
        let observers = self.layer.store.observers().of_outermost(&head.extensions, None);
        let why = CacheStatus::forwarded(Forward::Miss);
        self.clone().ask(head, body, called).observed(&observers, why)
    }
}

impl<S, St: Store, P: Policy> Fill<S, St, P> {
    /// As `call`, for the last time, of what is `below`, which may want to know what is noted of a
    /// fetch here, and is asked twice if a condition of the cache's own leads nowhere.
    pub(crate) fn ask<F, ReqB, B, E>(
        self,
        mut head: Parts,
        body: ReqB,
        below: impl FnOnce(S, Parts, ReqB) -> F + Clone + Send + 'static,
    ) -> ResponseFuture<F, B, E>
    where
        S: Clone + Send + 'static,
        ReqB: HttpBody + Default + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let rules = RuleOverrides::rules_for(&head.extensions, &self.layer.rules);
        // Meant for here, not for a cache below.
        head.extensions.remove::<RuleOverrides>();
        let search = head.extensions.remove::<SearchKey>();
        match CacheRequest::of(&head, &self.layer.rules.request.credentials) {
            None => {
                // What passes as a part of a fetch above is stripped there.
                let strips_tags =
                    self.strips_tags().filter(|_| head.extensions.get::<CacheRequest>().is_none());
                let below = below(self.inner, head, body);
                ResponseFuture::pass(below).strip_tags(strips_tags)
            }
            Some(asked) => {
                let asked = asked.into_owned();
                remove_upgrade(&mut head.headers);
                let copy = self.layer.copy(&head);
                let client = RequestCopy::new(copy, asked);
                let fetch = Fetch { layer: self.layer, client, rules, search };
                let resource = fetch.resource();
                let stored = resource.as_deref().and_then(|stored| fetch.stored_meanwhile(stored));
                if let Some(answer) = stored {
                    return ResponseFuture::ready(answer);
                }
                fetch.client.attach(&mut head.extensions);
                let (mut begun, fetching) = fetch.begin(resource.as_deref());
                let again = begun.make_conditional(&mut head, &body, (&self.inner, &below));
                // In one expression: what is made apart would be moved once more.
                ResponseFuture::boxed(Asking::new(below(self.inner, head, body), begun, again, fetching))
            }
        }
    }
}

#[cfg(test)]
impl<St, P> FillLayer<St, P> {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::switch;
        let Targets { names, are_stripped, tags, tags_are_stripped } = &self.targets;
        let has_tags = tags.iter().next().is_some();
        let is_builtin = **names == [CDN_CACHE_CONTROL];
        vec![
            ("FillLayer::targets", if is_builtin { "CDN-Cache-Control" } else { "others" }.to_owned()),
            ("FillLayer::strip_targets", switch(*are_stripped)),
            ("FillLayer::tag_fields", if has_tags { "some" } else { "none" }.to_owned()),
            ("FillLayer::strip_tags", switch(*tags_are_stripped)),
        ]
    }
}
