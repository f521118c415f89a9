use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tokio::{sync::Semaphore, time::Instant};
use tower::{ServiceExt, util::Oneshot};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    answer::{from_below, from_part, from_store},
    refresh::{Refresher, Refreshing},
    request::{Found, Question, Reader},
};
use crate::{
    body::{Body, BoxError},
    build_error::BuildError,
    exchange::{Asked, Refused},
    executor::{Executor, Task},
    future::ResponseFuture,
    http::{
        cache_control::RequestDirectives, conditions::take_conditions, glance::Glance,
        range::asks_for_one_part,
    },
    key::{self, CacheKey, DefaultKey, KeyBuffer, KeyExtractor},
    purge::Purge,
    status::{CacheStatus, Stale},
    store::{Invalidation, Store},
};

/// Answers from a store; see the [module](crate::lookup).
#[derive(Clone)]
pub struct LookupLayer<St, K = DefaultKey> {
    store: St,
    extractor: Arc<K>,
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) refresh_deadline: Duration,
    pub(super) refresh_pause: Duration,
    pub(super) refreshes: Arc<Semaphore>,
    pub(super) executor: Executor,
    pub(super) shows_status: bool,
    pub(super) follows_requests: bool,
    pub(super) fetches_whole: bool,
}

/// What of an answer the layers below are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All of it, for everybody.
    Whole,
    /// What anybody gets who asks for the same part.
    Part,
    /// What this client says, for it alone.
    Client,
}

/// Refreshes under way at a time.
const MAX_REFRESHES: usize = 1024;

impl<St: Store> LookupLayer<St> {
    /// Answers from this store under the [`DefaultKey`].
    pub fn new(store: St) -> Self {
        let settings = Settings {
            refresh_deadline: Duration::from_secs(30),
            refresh_pause: Duration::from_secs(1),
            refreshes: Arc::new(Semaphore::new(MAX_REFRESHES)),
            executor: Executor::default(),
            shows_status: true,
            follows_requests: false,
            fetches_whole: false,
        };
        Self { store, extractor: Arc::new(DefaultKey::new()), settings: Arc::new(settings) }
    }
}

impl<St: Store, K: KeyExtractor> LookupLayer<St, K> {
    /// Derives keys in another way. Default: [`DefaultKey`].
    #[must_use]
    pub fn key<L: KeyExtractor>(self, extractor: L) -> LookupLayer<St, L> {
        LookupLayer { store: self.store, extractor: Arc::new(extractor), settings: self.settings }
    }

    /// A handle to purge what is stored, which names URLs as this layer does, with the
    /// [`key`](Self::key) that it has by now.
    pub fn purge(&self) -> Purge {
        Purge::new(self.store.clone(), Arc::clone(&self.extractor))
    }

    /// How long a refresh in the background may take, body included, before it is given up and
    /// another one may begin. Default: 30 seconds.
    #[must_use]
    pub fn refresh_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.refresh_deadline = deadline)
    }

    /// How long after a refresh that brought nothing the next one may begin. Default: one second.
    #[must_use]
    pub fn refresh_pause(self, pause: Duration) -> Self {
        self.set(|settings| settings.refresh_pause = pause)
    }

    /// How many refreshes may be under way at a time, in all services of this layer together.
    /// At the limit stale answers are served without a refresh. Default: 1024.
    #[must_use]
    pub fn max_refreshes(self, limit: usize) -> Self {
        self.set(|settings| settings.refreshes = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
    }

    /// Whether answers that a cache here had to do with say in a `Cache-Status` field how they came
    /// about (RFC 9211). Default: yes.
    #[must_use]
    pub fn cache_status(self, show: bool) -> Self {
        self.set(|settings| settings.shows_status = show)
    }

    /// What is done with a range of something that is not stored: fetch the whole, so that others
    /// can share the fetch, and serve the range out of it (RFC 9110 §14.2 allows to serve the
    /// whole, which is done where its length is not known, and for several ranges). Default: no,
    /// the origin is asked for the range, and the part is kept: a client that wants a minute of a
    /// film should not have to wait for all of it, nor the store take it.
    ///
    /// Of what is stored but stale the whole is asked for in any case.
    #[must_use]
    pub fn fetch_whole_for_ranges(self, whole: bool) -> Self {
        self.set(|settings| settings.fetches_whole = whole)
    }

    /// Whether cache directives in requests are followed (RFC 9111 §5.2.1, and `Pragma: no-cache`):
    /// `no-cache`, `no-store`, `max-age`, `min-fresh`, `max-stale` and `only-if-cached`.
    ///
    /// Default: no. They let any client ask the origin for something newer than what is stored,
    /// which is what browsers do when somebody reloads a page. Those who do so at the same time
    /// share a fetch, so that a key costs the origin one request at a time; only requests with
    /// `no-store` go there on their own.
    #[must_use]
    pub fn request_directives(self, follow: bool) -> Self {
        self.set(|settings| settings.follows_requests = follow)
    }

    /// Runs refreshes with this function instead of `tokio::spawn`; as
    /// [`CoalesceLayer::executor`](crate::CoalesceLayer::executor).
    #[must_use]
    pub fn executor(self, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.executor = Executor::new(spawn))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if self.store.max_response_bytes() == 0 {
            return Err(BuildError::EmptyStore);
        }
        if self.settings.refresh_deadline.is_zero() {
            let consequence = "no refresh can ever succeed";
            return Err(BuildError::ZeroDuration { setting: "refresh_deadline", consequence });
        }
        if self.settings.refreshes.available_permits() == 0 {
            let consequence = "what is stale is never refreshed in the background";
            return Err(BuildError::ZeroLimit { setting: "max_refreshes", consequence });
        }
        Ok(())
    }
}

impl<St, K> fmt::Debug for LookupLayer<St, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupLayer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<S, St: Clone, K> Layer<S> for LookupLayer<St, K> {
    type Service = Lookup<S, St, K>;

    fn layer(&self, inner: S) -> Self::Service {
        let (store, extractor, settings) =
            (self.store.clone(), Arc::clone(&self.extractor), Arc::clone(&self.settings));
        Lookup { inner, reader: Arc::new(Reader { store, extractor, settings }) }
    }
}

/// The service of [`LookupLayer`].
pub struct Lookup<S, St, K = DefaultKey> {
    pub(crate) inner: S,
    // One counter: a service may be cloned for each request, by all threads.
    reader: Arc<Reader<St, K>>,
}

impl<S: Clone, St, K> Clone for Lookup<S, St, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), reader: Arc::clone(&self.reader) }
    }
}

impl<S: fmt::Debug, St, K> fmt::Debug for Lookup<S, St, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, St, K> Lookup<S, St, K>
where
    St: Store,
    K: KeyExtractor,
{
    /// Writes the key of a request that this layer has anything to do with, which is in its normal
    /// form from then on; false: it has none.
    pub(crate) fn find_key<ReqB>(&self, head: &mut Parts, body: &ReqB, key: &mut KeyBuffer) -> bool
    where
        ReqB: HttpBody,
    {
        key::find(&*self.reader.extractor, head, body, key)
    }

    /// What a request invalidates that has none.
    pub(crate) fn invalidation(&self, head: &Parts) -> Option<Invalidation> {
        Invalidation::of(&self.reader, head)
    }

    /// As `call`, for a request that has a key, and of whatever is `below`: the answer if it is
    /// there at once, else its future.
    #[allow(clippy::result_large_err, reason = "it is taken apart at once, and only a miss moves it")]
    pub(crate) fn answer<F, ReqB, B, E>(
        &self,
        key: &KeyBuffer,
        mut head: Parts,
        body: ReqB,
        below: impl FnOnce(Request<ReqB>) -> F,
    ) -> Result<Response<Body<B>>, ResponseFuture<F, B, E>>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (now, glance) = (Instant::now(), Glance::of(&head.headers));
        let wishes = match self.reader.settings.follows_requests {
            true => RequestDirectives::parse(&head.headers),
            false => RequestDirectives::default(),
        };
        let reading = self.reader.read(key);
        let fetches_whole = self.reader.settings.fetches_whole;
        let question = Question { key, head: &head, glance, fetches_whole, now };
        let asked = match self.reader.find(&reading, &question, &wishes) {
            Found::Usable(stored, status) => {
                return Ok(self.serve(from_store(stored, &head, glance, status, now)));
            }
            Found::Part(part) => return Ok(self.serve(from_part(part, &head, CacheStatus::hit(), now))),
            Found::Refreshable(stored, asked) => match Refresher::claim(&self.reader.settings, stored, now) {
                Refreshing::Impossible => asked,
                refreshing => {
                    let status = CacheStatus::stale(Stale::WhileRevalidating);
                    let served = self.serve(from_store(stored, &head, glance, status, now));
                    if let Refreshing::Begin(refresher) = refreshing {
                        self.reader.extractor.prepare(&mut head);
                        let request = refresher.request(head, body, asked);
                        refresher.spawn(&self.reader.settings.executor, below(request));
                    }
                    return Ok(served);
                }
            },
            Found::Nothing(asked) => asked,
        };
        if wishes.only_if_cached {
            return Ok(Refused::NotStored.to_response(Duration::ZERO));
        }
        let scope = self.scope(&head, glance, &asked);
        let is_for_all = scope != Scope::Client && !wishes.no_store;
        self.reader.extractor.prepare(&mut head);
        Err(self.forward(head, body, is_for_all.then_some(asked), scope, below))
    }

    fn scope(&self, head: &Parts, glance: Glance<'_>, asked: &Asked) -> Scope {
        let asks_for_part =
            glance.has_range && !self.reader.settings.fetches_whole && !matches!(asked.stored, Some(Some(_)));
        match asks_for_part {
            false => Scope::Whole,
            true if asks_for_one_part(&head.method, &head.headers) => Scope::Part,
            true => Scope::Client,
        }
    }

    fn serve<B>(&self, mut response: Response<Body<B>>) -> Response<Body<B>> {
        if !self.reader.settings.shows_status {
            CacheStatus::hide(&mut response);
        }
        response
    }

    /// Asks the layers below. On behalf of everybody, if there is something to ask for and the
    /// answer is not known to be for one alone; else the request passes untouched.
    fn forward<F, ReqB, B, E>(
        &self,
        mut head: Parts,
        body: ReqB,
        asked: Option<Asked>,
        scope: Scope,
        below: impl FnOnce(Request<ReqB>) -> F,
    ) -> ResponseFuture<F, B, E>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Who gave it a key above may share the answer there.
        let has_key = head.extensions.remove::<CacheKey>().is_some();
        let is_for_many = head.extensions.remove::<Asked>().is_some() || has_key;
        let conditions = match &asked {
            Some(asked) if !asked.is_marked && scope == Scope::Whole => take_conditions(&mut head.headers),
            _ => HeaderMap::new(),
        };
        asked.map(|asked| head.extensions.insert(Asked { is_for_many, ..asked }));
        let method = head.method.clone();
        let answer = below(Request::from_parts(head, body));
        if conditions.is_empty() && self.reader.settings.shows_status {
            return ResponseFuture::pass(answer);
        }
        let limit = self.reader.store.max_response_bytes();
        let settings = Arc::clone(&self.reader.settings);
        ResponseFuture::boxed(async move {
            let (mut response, unread) = from_below(&method, &conditions, answer.await?);
            if let Some(unread) = unread {
                settings.complete(unread, &response, limit);
            }
            if !settings.shows_status {
                CacheStatus::hide(&mut response);
            }
            Ok(response)
        })
    }
}

impl<S, St, K, ReqB, B> Service<Request<ReqB>> for Lookup<S, St, K>
where
    S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    St: Store,
    K: KeyExtractor,
    ReqB: HttpBody + Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<Oneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: a hit does not wait for the service below.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let mut key = KeyBuffer::new();
        let below = |request| self.inner.clone().oneshot(request);
        match self.find_key(&mut head, &body, &mut key) {
            true => self.answer(&key, head, body, below).map_or_else(|future| future, ResponseFuture::ready),
            false => {
                // The layers below are to see none either.
                head.extensions.remove::<CacheKey>();
                head.extensions.remove::<Asked>();
                let invalidation = self.invalidation(&head);
                ResponseFuture::pass(below(Request::from_parts(head, body))).then(invalidation)
            }
        }
    }
}
