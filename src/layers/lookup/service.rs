use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    answer::{from_below, from_part, from_store},
    below::{Below, Keyless},
    refresh::{Refresher, Refreshing},
    request::{Found, Question, Reader, Reading, accepts},
};
use crate::{
    body::{Body, BoxError},
    exchange::status::{CacheStatus, Stale},
    exchange::{CacheRequest, Observers, Refused},
    http::{
        cache_control::RequestDirectives, conditions::take_conditions, fields::remove_upgrade,
        request_fields::RequestFields, storing::Unshareable,
    },
    key::{self, CacheKey, DefaultKey, KeyBuffer, KeyExtractor, KeyFacts, Unkeyed},
    layers::future::ResponseFuture,
    layers::invalidation::{Invalidation, pass_on},
    layers::key::WithoutKey,
    purge::{Naming, Purge},
    store::{Store, StoredResponse},
};

/// The service of [`LookupLayer`](super::LookupLayer).
pub struct Lookup<S, St, K = DefaultKey> {
    pub(crate) inner: S,
    // One counter: a service may be cloned for each request, by all threads.
    pub(super) reader: Arc<Reader<St, K>>,
}

/// What is to be asked about a request in the place of the extractor, which may have changed since.
pub(crate) type Edition<'e> = Option<&'e dyn KeyExtractor>;

/// What is left to do with a request that the store alone does not settle.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and no hit has one")]
pub(crate) enum Open<B> {
    /// It has its answer, and something fresh is to be fetched.
    Refresh(Response<Body<B>>, Refresher, CacheRequest),
    /// The layers below are to be asked.
    Ask(CacheRequest, Scope),
    /// The request is that of a fetch for this very key: what is below is asked as if this layer were not
    /// there.
    Pass,
}

/// What of an answer the layers below are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of it, for everybody.
    Whole,
    /// What anybody gets who asks for the same part.
    Part,
    /// The response is for this client alone, for this reason.
    Client(Unshareable),
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
    /// See [`LookupLayer::purge`](super::LookupLayer::purge).
    pub(crate) fn purge(&self) -> Purge {
        let extractor = Arc::clone(&self.reader.extractor);
        Purge::new(self.reader.store.clone(), Naming::new(extractor))
    }

    /// Lets the extractor note in a request what it needs to know of it later. Returns the one to ask about
    /// this request, if it is another one.
    // Where there is no other one, nothing of it is left.
    #[inline(always)]
    pub(crate) fn note(&self, head: &mut Parts) -> Option<Arc<dyn KeyExtractor>> {
        let edition = self.reader.extractor.edition();
        match &edition {
            None => self.reader.extractor.note(head),
            Some(edition) => edition.note(head),
        }
        edition
    }

    /// Writes the key of a request that [may have one](key::is_for_cache).
    #[inline(always)]
    pub(crate) fn find_key(
        &self,
        edition: Edition<'_>,
        head: &Parts,
        glance: &RequestFields<'_>,
        key: &mut KeyBuffer,
    ) -> Result<(), Unkeyed> {
        let rules = &self.reader.settings.request;
        match edition {
            None => key::find(&*self.reader.extractor, rules, head, glance, key),
            Some(edition) => key::find(edition, rules, head, glance, key),
        }
    }

    /// Whether [`normalise`](Self::normalise) has anything to do.
    #[inline(always)]
    pub(crate) fn normalises(&self, edition: Edition<'_>) -> bool {
        let rules = &self.reader.settings.request;
        match edition {
            None => key::normalises(&*self.reader.extractor, rules),
            Some(edition) => key::normalises(edition, rules),
        }
    }

    /// Brings a request that has this key into its normal form.
    #[inline(never)]
    pub(crate) fn normalise(&self, edition: Edition<'_>, head: &mut Parts, key: &mut KeyBuffer) {
        let rules = &self.reader.settings.request;
        match edition {
            None => key::normalise(&*self.reader.extractor, rules, head, key),
            Some(edition) => key::normalise(edition, rules, head, key),
        }
    }

    /// What is to be done with the response to a request that has none, for this reason. No layer below
    /// is to see a key, be it of a stack above.
    #[inline]
    pub(crate) fn keyless<ReqB>(&self, request: &mut Request<ReqB>, why: Option<Unkeyed>) -> Keyless {
        let extensions = request.extensions_mut();
        extensions.remove::<CacheKey>();
        extensions.remove::<CacheRequest>();
        extensions.remove::<KeyFacts>();
        let settings = &*self.reader.settings;
        let observers = why.map_or(Observers::NONE, |_| settings.observers.clone());
        let (invalidation, shows_status) = (Invalidation::of(&self.reader, request), settings.shows_status);
        Keyless { invalidation, why, shows_status, observers }
    }

    /// The response to a request that has a key, with a body of this kind, if the store has one and nothing
    /// else is to be done.
    ///
    /// The request stays where it is: a hit has nothing else to do with it.
    #[allow(clippy::result_large_err, reason = "it is taken apart at once, and only a miss moves it")]
    pub(crate) fn read<B, T>(
        &self,
        (key, edition): (&KeyBuffer, Edition<'_>),
        head: &Parts,
        glance: &mut RequestFields<'_>,
        wrap: impl FnOnce(Body<B>) -> T,
    ) -> Result<Response<T>, Open<B>> {
        let (now, settings) = (Instant::now(), &*self.reader.settings);
        glance.put_under(&settings.request.credentials, key.keyed());
        let glance = &*glance;
        let wishes = settings.follows_requests.then(|| RequestDirectives::parse(&head.headers));
        let reading = self.reader.read(key);
        let question = Question { key, edition, head, glance, settings, now };
        let stored = self.reader.select(&reading, glance);
        if let Some(stored) = stored
            && accepts(stored, wishes.as_ref(), now)
            && stored.is_fresh(now)
        {
            // Returned as it is made: to change it afterwards would let it be moved.
            return match question.is_plain() {
                true => Ok(stored.to_hit(head.method == Method::HEAD, now, wrap)),
                false => Ok(from_store(stored, &question, CacheStatus::hit()).map(wrap)),
            };
        }
        self.read_on(&reading, stored, &question, wishes).map(|response| response.map(wrap))
    }

    /// If the latest response cannot be served as it is, or if there is none.
    ///
    /// Apart from [`read`](Self::read), as what follows is: a hit makes no room on the stack for it.
    #[inline(never)]
    #[allow(clippy::result_large_err, reason = "as above")]
    fn read_on<B>(
        &self,
        reading: &Reading,
        stored: Option<&Arc<StoredResponse>>,
        question: &Question<'_>,
        wishes: Option<RequestDirectives>,
    ) -> Result<Response<Body<B>>, Open<B>> {
        if self.reader.is_asking(question) {
            return Err(Open::Pass);
        }
        let asked = match self.reader.find(reading, stored, question, wishes.as_ref()) {
            Found::Stale(stored) => {
                return Ok(from_store(stored, question, CacheStatus::stale(Stale::AsRequested)));
            }
            Found::Part(part) => return Ok(from_part(part, question, CacheStatus::hit())),
            Found::Refreshable(stored, asked) => {
                let serve = || from_store(stored, question, CacheStatus::stale(Stale::WhileRevalidating));
                match Refresher::claim(question, stored) {
                    Refreshing::Begin(refresher) => {
                        return Err(Open::Refresh(serve(), refresher, asked));
                    }
                    Refreshing::NotNow => return Ok(serve()),
                    Refreshing::Impossible => asked,
                }
            }
            Found::Nothing(asked) => asked,
        };
        let wishes = wishes.unwrap_or_default();
        if wishes.only_if_cached {
            let refused = Refused::NotStored.to_response(Duration::ZERO, asked.why());
            return Ok(question.settings.finish(refused, asked.why()));
        }
        let scope = match wishes.no_store {
            true => Scope::Client(Unshareable::NoStore),
            false => scope(question, &asked),
        };
        Err(Open::Ask(asked, scope))
    }

    /// What is left to do with a request after that, of whatever is `below`.
    #[inline(never)]
    pub(crate) fn go_on<F, ReqB, B, E>(
        &self,
        open: Open<B>,
        (key, edition): (&KeyBuffer, Edition<'_>),
        (mut head, body): (Parts, ReqB),
        below: impl FnOnce(Parts, ReqB) -> F,
    ) -> ResponseFuture<F, B, E>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let extractor = edition.unwrap_or(&*self.reader.extractor);
        key::prepare(extractor, key, &mut head);
        remove_upgrade(&mut head.headers);
        match open {
            Open::Refresh(served, refresher, asked) => {
                let (key, limit) = (asked.key().clone(), self.reader.store.max_response_bytes());
                let (head, body) = refresher.request(head, body, asked).into_parts();
                refresher.spawn(&self.reader.settings, (key, limit), below(head, body));
                ResponseFuture::ready(served)
            }
            Open::Ask(asked, scope) => self.forward(head, body, asked, scope, below),
            Open::Pass => {
                head.extensions.get_mut().map(CacheRequest::pass);
                ResponseFuture::pass(below(head, body))
            }
        }
    }

    /// Asks the layers below on behalf of all clients, unless the response is known to be for this one
    /// alone: then the request passes untouched.
    fn forward<F, ReqB, B, E>(
        &self,
        mut head: Parts,
        body: ReqB,
        mut asked: CacheRequest,
        scope: Scope,
        below: impl FnOnce(Parts, ReqB) -> F,
    ) -> ResponseFuture<F, B, E>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Who gave it a key above may share the answer there.
        let has_key = head.extensions.remove::<CacheKey>().is_some();
        let above = head.extensions.remove::<CacheRequest>();
        head.extensions.remove::<KeyFacts>();
        let is_shared_above = above.is_some_and(|above| !above.is_private()) || has_key;
        asked.want_shareability(is_shared_above);
        let conditions = match scope {
            Scope::Whole if !asked.is_hit_for_miss() => take_conditions(&mut head.headers),
            _ => None,
        };
        if conditions.is_some() {
            asked = asked.without_conditions();
        }
        let alone = match scope {
            Scope::Client(why) => Some(asked.for_one(why)),
            _ => None,
        };
        let why = asked.why();
        match alone {
            None => _ = head.extensions.insert(asked),
            // Neither stored nor shared, but what is stored may stand in for a failure.
            Some(_) if asked.candidate().is_some() => _ = head.extensions.insert(asked.private()),
            Some(_) => _ = head.extensions.insert(WithoutKey),
        }
        let method = head.method.clone();
        let answer = below(head, body);
        if conditions.is_none() && alone.is_none() && self.reader.settings.leaves_responses() {
            return ResponseFuture::pass(answer);
        }
        let limit = self.reader.store.max_response_bytes();
        let settings = Arc::clone(&self.reader.settings);
        ResponseFuture::boxed(async move {
            let mut answer = answer.await.inspect_err(|_| settings.observers.fail(alone.unwrap_or(why)))?;
            if let Some(alone) = alone {
                pass_on(&mut answer, None, None);
                alone.mark_passed(&mut answer);
                return Ok(settings.finish(answer.map(Body::inner), alone));
            }
            let completion = settings.completion(&answer, limit);
            let conditions = conditions.unwrap_or_default();
            Ok(settings.finish(from_below(&method, &conditions, answer, completion), why))
        })
    }
}

impl<S, St, K> Lookup<S, St, K>
where
    St: Store,
    K: KeyExtractor,
{
    /// Asks the service below for what has no key.
    fn pass<ReqB, B>(
        &self,
        mut request: Request<ReqB>,
        why: Option<Unkeyed>,
    ) -> ResponseFuture<Below<S, Request<ReqB>>, B, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<B>> + Clone,
        B: HttpBody,
    {
        let keyless = self.keyless(&mut request, why);
        if why.is_some() {
            request.extensions_mut().insert(WithoutKey);
        }
        ResponseFuture::pass(Below::keyless(self.inner.clone(), request, keyless))
    }
}

fn scope(question: &Question<'_>, asked: &CacheRequest) -> Scope {
    let facts = asked.facts();
    match facts.has_range() && !question.settings.fetches_whole && !asked.candidate().is_whole() {
        false => Scope::Whole,
        true if facts.asks_for_one_part() => Scope::Part,
        true => Scope::Client(Unshareable::Incomplete),
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
    type Future = ResponseFuture<Below<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: a hit does not wait for the service below.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        if !key::is_for_cache(&request) {
            let why = Unkeyed::of(&request);
            return self.pass(request, why);
        }
        let (mut head, body) = request.into_parts();
        let edition = self.note(&mut head);
        let edition = edition.as_deref();
        let (mut glance, mut key) = (RequestFields::of(&head.headers), KeyBuffer::new());
        if let Err(why) = self.find_key(edition, &head, &glance, &mut key) {
            return self.pass(Request::from_parts(head, body), Some(why));
        }
        if self.normalises(edition) {
            self.normalise(edition, &mut head, &mut key);
            glance = RequestFields::of(&head.headers);
        }
        let below = |head, body| Below::keyed(self.inner.clone(), Request::from_parts(head, body));
        match self.read((&key, edition), &head, &mut glance, |body| body) {
            Ok(response) => ResponseFuture::ready(response),
            Err(open) => self.go_on(open, (&key, edition), (head, body), below),
        }
    }
}
