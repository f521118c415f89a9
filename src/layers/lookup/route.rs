//! The way of a request through the lookup: served from the store, or sent on.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use super::{answer, outage::Way, refresh::Refresher, report::Report, select};
use crate::{
    body::{Body, ResponseBody},
    exchange::{
        self,
        status::{CacheStatus, Stale},
    },
    http::{
        cache_control::RequestDirectives, conditions::take_conditions, fields::remove_upgrade,
        request_fields::RequestFields, storing::NotStored,
    },
    key::{self, KeyExtractor},
    layers::{
        invalidation::{Invalidation, pass_on},
        service::ResponseFuture,
    },
    store::{Store, StoredResponse},
    tags::TagFields,
};

/// What is to be done with the response to a request without a key.
pub(crate) struct Keyless {
    /// What it invalidates.
    invalidation: Option<Invalidation>,
    /// Why there is no key, if responses to such requests say it.
    why: Option<key::Unkeyed>,
    /// `None`: nothing is told, counted or hidden. In one piece, since futures have room for it.
    settings: Option<Arc<select::Settings>>,
    detail: exchange::CacheStatusDetail,
    /// What a full status says, and the rule if it is wanted.
    full: Option<Box<exchange::FullStatus>>,
}

impl Keyless {
    /// Nothing: the request is that of a fetch of this very cache.
    pub(crate) const PASSED: Self = Self {
        invalidation: None,
        why: None,
        settings: None,
        detail: exchange::CacheStatusDetail::Short,
        full: None,
    };

    /// Whether responses to such requests say why there is no key.
    pub(super) const fn says_why(&self) -> bool {
        self.why.is_some()
    }

    /// Finishes what the service below returned.
    #[inline]
    pub(crate) fn finished<B: HttpBody, E>(
        &self,
        mut result: Result<Response<B>, E>,
        strips_tags: Option<&TagFields>,
    ) -> Result<Response<B>, E> {
        match &mut result {
            Ok(response) => self.finish(response, strips_tags),
            Err(_) => self.fail(),
        }
        result
    }

    #[inline]
    fn finish<B: HttpBody>(&self, response: &mut Response<B>, strips_tags: Option<&TagFields>) {
        pass_on(response, self.invalidation.as_ref(), strips_tags);
        if let Some(why) = self.why {
            let came_about = CacheStatus::unkeyed(why);
            came_about.mark_passed(response);
            self.settings
                .iter()
                .for_each(|settings| settings.observers.finish(response, came_about, self.rule()));
        }
        if let Some(settings) = &self.settings {
            let full = || self.full.as_deref().cloned().unwrap_or_default();
            settings.field.write(response, self.detail, full);
        }
    }

    /// Tells observers that there is no response.
    fn fail(&self) {
        if let (Some(why), Some(settings)) = (self.why, &self.settings) {
            settings.observers.fail(CacheStatus::unkeyed(why), self.rule());
        }
    }

    fn rule(&self) -> Option<&str> {
        self.full.as_ref()?.rule.as_deref()
    }
}

/// What is to be done with a request that the store alone does not settle.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and no hit has one")]
enum Open<B> {
    /// A stale response is served, and a fresh one fetched.
    Refresh(Response<Body<B>>, Refresher, exchange::CacheRequest),
    /// The request goes on to the layers below.
    Forward(exchange::CacheRequest, Scope),
    /// The request was made by a fetch for this very key, and goes on as if this layer were not there.
    Pass,
}

/// What the layers below are to respond with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The whole, for all clients.
    Whole,
    /// The part that all clients get that request the same one.
    Part,
    /// The response is for this client alone, for this reason.
    Client(NotStored),
}

/// Where a request goes after the lookup of its key.
pub(crate) trait Route<ReqB>: Sized {
    /// Whether what is below is a layer of this crate.
    const IS_OVER_OWN_LAYER: bool;
    /// The body of responses from the store.
    type Stored;
    /// The body of responses from below.
    type Below: ResponseBody;
    type Error: Send + 'static;
    /// A call of what is below.
    type Call: Future<Output = Result<Response<Self::Below>, Self::Error>> + Send + 'static;
    /// A call of what is below that begins when it is polled: the request that starts a background refresh
    /// must not block on it or inherit its panic.
    type Refresh: Future<Output = Result<Response<Self::Below>, Self::Error>> + Send + 'static;
    type Future;

    fn call_below(&mut self, request: Request<ReqB>) -> Self::Call;
    fn refresh_below(&mut self, request: Request<ReqB>) -> Self::Refresh;
    fn stored(self, response: Response<Body<Self::Stored>>) -> Self::Future;
    fn forwarded(self, response: ResponseFuture<Self::Call, Self::Below, Self::Error>) -> Self::Future;
    fn keyless(self, request: Request<ReqB>, keyless: Keyless) -> Self::Future;
    /// Of a request that goes to the origin as it is, with what would have become of it.
    fn report(self, request: Request<ReqB>, report: Report) -> Self::Future;
    /// Of a request that was made by a fetch for the same key.
    fn passed(self, request: Request<ReqB>) -> Self::Future;
}

impl<St, K> select::Reader<St, K>
where
    St: Store,
    K: KeyExtractor,
{
    /// Looks the request up, and sends it on its way.
    // As what it calls on the way of a hit: each call that is not inlined moves the request.
    #[inline(always)]
    pub(crate) fn route<R, ReqB>(self: &Arc<Self>, mut request: Request<ReqB>, route: R) -> R::Future
    where
        R: Route<ReqB>,
        ReqB: HttpBody,
    {
        let detail = self.settings.field.take(request.headers_mut());
        if !key::is_for_cache(&request) {
            let why = key::Unkeyed::of(&request);
            return self.keyless(request, (why, detail), None, route);
        }
        if let Some(fetches) = &self.settings.reports {
            return self.report(fetches, request, route);
        }
        let (mut head, body) = request.into_parts();
        let edition = self.note(&mut head);
        let edition = edition.as_deref();
        let mut fields = RequestFields::of(&head.headers);
        let mut key = key::KeyBuffer::new();
        if let Err(why) = self.find_key(edition, &head, &fields, &mut key) {
            let rule = self.rule_said(edition, &head, detail);
            return self.keyless(Request::from_parts(head, body), (Some(why), detail), rule, route);
        }
        if self.normalises(edition) {
            self.normalise(edition, &mut head, &mut key);
            fields = RequestFields::of(&head.headers);
        }
        match self.respond((&key, edition), &head, &mut fields, detail) {
            Ok(response) => route.stored(response),
            Err(open) => self.go_on(open, (&key, edition), Request::from_parts(head, body), detail, route),
        }
    }

    /// Lets the extractor note in a request what it needs to know of it later. Returns the one that holds
    /// for this request, if it is another one.
    // Costs nothing where the extractor has no editions.
    #[inline(always)]
    pub(super) fn note(&self, head: &mut Parts) -> Option<Arc<dyn KeyExtractor>> {
        let edition = self.extractor.edition();
        match &edition {
            None => self.extractor.note(head),
            Some(edition) => edition.note(head),
        }
        edition
    }

    /// Writes the key of a request that [may have one](key::is_for_cache).
    #[inline(always)]
    pub(super) fn find_key(
        &self,
        edition: select::Edition<'_>,
        head: &Parts,
        fields: &RequestFields<'_>,
        key: &mut key::KeyBuffer,
    ) -> Result<(), key::Unkeyed> {
        let rules = &self.settings.request;
        match edition {
            None => key::find(&*self.extractor, rules, head, fields, key),
            Some(edition) => key::find(edition, rules, head, fields, key),
        }
    }

    /// Whether [`normalise`](Self::normalise) has anything to do.
    #[inline(always)]
    pub(super) fn normalises(&self, edition: select::Edition<'_>) -> bool {
        let rules = &self.settings.request;
        match edition {
            None => key::normalises(&*self.extractor, rules),
            Some(edition) => key::normalises(edition, rules),
        }
    }

    /// Brings a request that has this key into its normal form.
    #[inline(never)]
    pub(super) fn normalise(&self, edition: select::Edition<'_>, head: &mut Parts, key: &mut key::KeyBuffer) {
        let rules = &self.settings.request;
        match edition {
            None => key::normalise(&*self.extractor, rules, head, key),
            Some(edition) => key::normalise(edition, rules, head, key),
        }
    }

    /// Sends a request on that has no key, for the reason `why`. It also loses the key that an outer stack
    /// may have left behind.
    #[inline(always)]
    pub(super) fn keyless<R, ReqB>(
        self: &Arc<Self>,
        mut request: Request<ReqB>,
        (why, detail): (Option<key::Unkeyed>, exchange::CacheStatusDetail),
        rule: Option<String>,
        route: R,
    ) -> R::Future
    where
        R: Route<ReqB>,
    {
        let extensions = request.extensions_mut();
        extensions.remove::<key::CacheKey>();
        extensions.remove::<exchange::CacheRequest>();
        extensions.remove::<key::KeyFacts>();
        if why.is_none() {
            self.settings.observers.count_other_method();
        }
        let is_finished = why.is_some() || !self.settings.field.leaves(detail);
        let settings = is_finished.then(|| Arc::clone(&self.settings));
        let invalidation = Invalidation::of(self, &request);
        let full = rule.map(|rule| Box::new(exchange::FullStatus::of_rule(rule)));
        let keyless = Keyless { invalidation, why, settings, detail, full };
        route.keyless(request, keyless)
    }

    /// The name of the rule of a request, if the response says it, or requests are counted by it.
    pub(super) fn rule_said(
        &self,
        edition: select::Edition<'_>,
        head: &Parts,
        detail: exchange::CacheStatusDetail,
    ) -> Option<String> {
        let is_said = detail == exchange::CacheStatusDetail::Full || self.settings.observers.counts_by_rule();
        is_said.then(|| edition.unwrap_or(&*self.extractor).rule(head)).flatten()
    }

    /// The response to a request that has a key, if the store has one and nothing else is to be done.
    ///
    /// The request stays where it is: a hit has nothing else to do with it.
    #[inline(always)]
    #[allow(clippy::result_large_err, reason = "it is taken apart at once, and only a miss moves it")]
    fn respond<B>(
        &self,
        (key, edition): (&key::KeyBuffer, select::Edition<'_>),
        head: &Parts,
        fields: &mut RequestFields<'_>,
        detail: exchange::CacheStatusDetail,
    ) -> Result<Response<Body<B>>, Open<B>> {
        let (now, settings) = (Instant::now(), &*self.settings);
        fields.put_under(&settings.request.credentials, key.keyed());
        let fields = &*fields;
        let wishes = settings.follows_requests.then(|| RequestDirectives::parse(&head.headers));
        let reading = self.read(key);
        let extractor = &*self.extractor;
        let question = select::Question { key, edition, head, fields, settings, detail, extractor, now };
        let stored = self.select(&reading, fields);
        if let Some(stored) = stored
            && select::accepts(stored, wishes.as_ref(), now)
            && stored.is_fresh(now)
            && !stored.is_refresh_due(now)
        {
            // Returned as it is made: to change it afterwards would let it be moved.
            return match question.is_plain() {
                true => {
                    settings.observers.count_hit();
                    Ok(stored.to_hit(head.method == Method::HEAD, now, |body| body))
                }
                false => Ok(answer::from_store(stored, &question, CacheStatus::hit())),
            };
        }
        self.respond_otherwise(&reading, stored, &question, wishes)
    }

    /// If the latest response cannot be served as it is, or if there is none.
    ///
    /// Apart from [`respond`](Self::respond), as what follows is: a hit makes no room on the stack for it.
    #[inline(never)]
    #[allow(clippy::result_large_err, reason = "as above")]
    fn respond_otherwise<B>(
        &self,
        reading: &select::Reading,
        stored: Option<&Arc<StoredResponse>>,
        question: &select::Question<'_>,
        wishes: Option<RequestDirectives>,
    ) -> Result<Response<Body<B>>, Open<B>> {
        if self.is_asking(question) {
            return Err(Open::Pass);
        }
        if let Some(stored) = stored
            && select::accepts(stored, wishes.as_ref(), question.now)
            && stored.is_fresh(question.now)
        {
            let served = answer::from_store(stored, question, CacheStatus::hit());
            return match Refresher::claim_ahead(question, stored, wishes.as_ref()) {
                Some(refresher) => {
                    Err(Open::Refresh(served, refresher, self.asked_ahead(reading, stored, question)))
                }
                None => Ok(served),
            };
        }
        let asked = match self.find(reading, stored, question, wishes.as_ref()) {
            select::Found::Stale(stored) => {
                let why = select::selected(stored, self.store.sequence(), question.now);
                return Ok(answer::from_store(stored, question, why.served_stale(Stale::AsRequested)));
            }
            select::Found::Part(part) => return Ok(answer::from_part(part, question, CacheStatus::hit())),
            select::Found::Refreshable(stored, asked) | select::Found::Fallback(stored, asked)
                if asked.purpose() == exchange::Purpose::WarmUp =>
            {
                let way = Way::of_warm_up(question, stored);
                return self.respond_stale(way, stored, question, asked, wishes);
            }
            select::Found::Refreshable(stored, asked) => {
                let way = Way::of_refreshable(question, stored, wishes.as_ref());
                return self.respond_stale(way, stored, question, asked, wishes);
            }
            select::Found::Fallback(stored, asked) => {
                let way = Way::of_fallback(question, stored, wishes.as_ref());
                return self.respond_stale(way, stored, question, asked, wishes);
            }
            select::Found::Nothing(asked) => asked,
        };
        self.forward(question, asked, wishes)
    }

    /// If the latest response is stale, and may be served all the same.
    #[allow(clippy::result_large_err, reason = "as above")]
    fn respond_stale<B>(
        &self,
        way: Way,
        stored: &Arc<StoredResponse>,
        question: &select::Question<'_>,
        asked: exchange::CacheRequest,
        wishes: Option<RequestDirectives>,
    ) -> Result<Response<Body<B>>, Open<B>> {
        let looked = asked.why();
        let serve = |why| answer::from_store(stored, question, looked.served_stale(why));
        match way {
            Way::Serve(why) => Ok(serve(why)),
            Way::Refresh(refresher, pass, why) => {
                Err(Open::Refresh(serve(why), refresher, asked.with_pass(pass)))
            }
            Way::Forward(pass) => self.forward(question, asked.with_pass(pass), wishes),
        }
    }

    #[allow(clippy::result_large_err, reason = "as above")]
    fn forward<B>(
        &self,
        question: &select::Question<'_>,
        asked: exchange::CacheRequest,
        wishes: Option<RequestDirectives>,
    ) -> Result<Response<Body<B>>, Open<B>> {
        let wishes = wishes.unwrap_or_default();
        if wishes.only_if_cached {
            let refused = exchange::Refused::NotStored.to_response(Duration::ZERO, asked.why());
            return Ok(question.finish(refused, asked.why(), None));
        }
        let scope = match wishes.no_store {
            true => Scope::Client(NotStored::NoStore),
            false => scope(question, &asked),
        };
        Err(Open::Forward(asked, scope))
    }

    /// Sends a request on that the store alone does not settle.
    #[inline(never)]
    fn go_on<R, ReqB>(
        &self,
        open: Open<R::Stored>,
        (key, edition): (&key::KeyBuffer, select::Edition<'_>),
        request: Request<ReqB>,
        detail: exchange::CacheStatusDetail,
        mut route: R,
    ) -> R::Future
    where
        R: Route<ReqB>,
    {
        // It goes on as if this layer were not there.
        if matches!(open, Open::Pass) {
            return route.passed(request);
        }
        let (mut head, body) = request.into_parts();
        // Before what follows changes the request. No response says that of a refresh.
        let rule = match open {
            Open::Forward(..) => self.rule_said(edition, &head, detail),
            _ => None,
        };
        key::prepare(edition.unwrap_or(&*self.extractor), key, &mut head);
        remove_upgrade(&mut head.headers);
        match open {
            Open::Refresh(served, refresher, asked) => {
                let (key, limit) = (asked.key().clone(), self.store.max_response_bytes());
                let response = route.refresh_below(refresher.request(head, body, asked));
                refresher.spawn(&self.settings, (key, limit), response);
                route.stored(served)
            }
            Open::Forward(asked, scope) => {
                let why = asked.why();
                let then = self.prepare(&mut head, asked, scope, (detail, rule));
                let response = route.call_below(Request::from_parts(head, body));
                route.forwarded(match then {
                    None => {
                        let observers = &self.settings.observers;
                        ResponseFuture::pass_counted(response, R::IS_OVER_OWN_LAYER, observers, why)
                    }
                    Some(then) => ResponseFuture::boxed(then.finish(response)),
                })
            }
            Open::Pass => route.passed(Request::from_parts(head, body)),
        }
    }

    /// Makes it a request on behalf of all clients, unless the response is known to be for this one alone: then
    /// nothing of the request is changed but what it asks of the layers below. Returns what there is to do with the
    /// response.
    fn prepare(
        &self,
        head: &mut Parts,
        mut asked: exchange::CacheRequest,
        scope: Scope,
        (detail, rule): (exchange::CacheStatusDetail, Option<String>),
    ) -> Option<Then> {
        let is_full = detail == exchange::CacheStatusDetail::Full;
        let key = is_full.then(|| asked.key().digest());
        // A layer above that gave it a key may share the response there.
        let has_key = head.extensions.remove::<key::CacheKey>().is_some();
        let above = head.extensions.remove::<exchange::CacheRequest>();
        head.extensions.remove::<key::KeyFacts>();
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
        let why = alone.unwrap_or(asked.why());
        match alone {
            None => _ = head.extensions.insert(asked),
            // Neither stored nor shared, but a fetch with its limits, and what is stored may stand in for a failure.
            Some(_) => _ = head.extensions.insert(asked.private()),
        }
        let is_done = conditions.is_none() && alone.is_none() && self.settings.leaves_responses(detail);
        (!is_done).then(|| Then {
            method: head.method.clone(),
            conditions: conditions.unwrap_or_default(),
            is_alone: alone.is_some(),
            why,
            limit: self.store.max_response_bytes(),
            settings: Arc::clone(&self.settings),
            detail,
            full: exchange::FullStatus { ttl: None, key, rule },
        })
    }
}

/// What is to be done with the response of the layers below.
struct Then {
    method: Method,
    conditions: HeaderMap,
    /// Whether the response is for this client alone.
    is_alone: bool,
    /// Why the request is sent on.
    why: CacheStatus,
    limit: usize,
    settings: Arc<select::Settings>,
    detail: exchange::CacheStatusDetail,
    full: exchange::FullStatus,
}

impl Then {
    async fn finish<B, E>(
        self,
        response: impl Future<Output = Result<Response<B>, E>>,
    ) -> Result<Response<Body<B>>, E>
    where
        B: ResponseBody,
    {
        let Self { method, conditions, is_alone, why, limit, settings, detail, full } = self;
        let mut response =
            response.await.inspect_err(|_| settings.observers.fail(why, full.rule.as_deref()))?;
        let rule = settings.observers.counts_by_rule().then(|| full.rule.clone()).flatten();
        if is_alone {
            pass_on(&mut response, None, None);
            why.mark_passed(&mut response);
            why.not_stored_reason().iter().for_each(|why| settings.observers.count_not_stored(*why));
            return Ok(settings.finish(response.map(Body::inner), (why, detail), rule.as_deref(), || full));
        }
        let completion = settings.completion(&response, limit);
        let response = answer::from_below(&method, &conditions, response, completion);
        Ok(settings.finish(response, (why, detail), rule.as_deref(), || full))
    }
}

pub(super) fn scope(question: &select::Question<'_>, asked: &exchange::CacheRequest) -> Scope {
    let facts = asked.facts();
    match facts.has_range() && !question.settings.fetches_whole && !asked.candidate().is_whole() {
        false => Scope::Whole,
        true if facts.asks_for_one_part() => Scope::Part,
        true => Scope::Client(NotStored::Partial),
    }
}
