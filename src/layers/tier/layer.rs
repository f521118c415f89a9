//! The layer that asks the second tier before the origin.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, request::Parts};
use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep_until, timeout_at};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    clock::Clock,
    handle::{Shared, Tier},
    keys::Id,
    lease,
    read::{self, Usable, Wanted},
    write::FetchWriter,
};
use crate::{
    build_error::BuildError,
    exchange::{self, Purpose, status::CacheStatus},
    http::{
        request_fields::{CredentialNames, RequestFields},
        vary::Selection,
    },
    key::CacheKey,
    layers::service::{BoxFuture, EagerOneshot, HttpService},
    observe::{TierRead, TierWait},
    origin::OriginHealth,
    store::{Store, WriteBehind},
};

/// Asks a second tier before the service below; see the [module](crate::tier).
pub struct TierLayer<St> {
    shared: Arc<Reader<St>>,
}

#[derive(Clone)]
struct Reader<St> {
    store: St,
    tier: Tier,
    health: Option<OriginHealth>,
    /// How long a fetch waits for that of another node.
    patience: Duration,
    /// Whether the service below is a layer of this crate.
    is_over_own_layer: bool,
}

impl<St> Clone for TierLayer<St> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<St: Store> TierLayer<St> {
    /// Lets this tier serve this store. [`Fill`](crate::Fill) of the same store belongs below, and
    /// [`Coalesce`](crate::Coalesce) above.
    ///
    /// # Errors
    ///
    /// If the store keeps no texts of tags and URLs, or the tier serves another store.
    pub fn new(store: St, tier: Tier) -> Result<Self, BuildError> {
        tier.serve(store.sequence())?;
        let (health, patience, is_over_own_layer) = (None, lease::PATIENCE, false);
        Ok(Self { shared: Arc::new(Reader { store, tier, health, patience, is_over_own_layer }) })
    }

    /// Lets this health of the origin decide how long a stale response of the tier rests after a failed fetch.
    /// Default: none, and each request for it asks the origin.
    #[must_use]
    pub fn health(self, health: OriginHealth) -> Self {
        self.set(|shared| shared.health = Some(health))
    }

    /// Waits no longer than this for the fetch of another node.
    pub(crate) fn waiting_at_most(self, limit: Option<Duration>) -> Self {
        self.set(|shared| shared.patience = limit.map_or(lease::PATIENCE, |limit| limit.min(lease::PATIENCE)))
    }

    /// Says that the service below is a layer of this crate.
    pub(crate) fn over_own_layer(self) -> Self {
        self.set(|shared| shared.is_over_own_layer = true)
    }

    fn set(mut self, change: impl FnOnce(&mut Reader<St>)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl<St> fmt::Debug for TierLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TierLayer").field("tier", &self.shared.tier).finish_non_exhaustive()
    }
}

impl<S, St> Layer<S> for TierLayer<St> {
    type Service = TierService<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        TierService { inner, shared: Some(Arc::clone(&self.shared)) }
    }
}

/// The service of [`TierLayer`].
///
/// It wraps any service of [`http::Request`]s that can be cloned and sent to another thread, and so can its
/// futures and errors.
pub struct TierService<S, St> {
    inner: S,
    /// `None`: there is no tier.
    shared: Option<Arc<Reader<St>>>,
}

impl<S, St> TierService<S, St> {
    /// Without a tier, where there may be one.
    pub(crate) fn optional(layer: Option<&TierLayer<St>>, inner: S) -> Self {
        Self { inner, shared: layer.map(|layer| Arc::clone(&layer.shared)) }
    }
}

impl<S: Clone, St> Clone for TierService<S, St> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, St> fmt::Debug for TierService<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TierService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, St, ReqB, B> Service<Request<ReqB>> for TierService<S, St>
where
    S: HttpService<ReqB, Response = Response<B>>,
    St: Store,
    ReqB: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = TierFuture<S, ReqB>;

    /// Always ready: the service below is called when it is known whether it is needed.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let Some(shared) = &self.shared else {
            // Of the stack, where `Fill` is below.
            return TierFuture::pass(EagerOneshot::through(&mut self.inner, true, request));
        };
        let (mut head, body) = request.into_parts();
        match shared.way(&mut head) {
            Way::On => {
                let request = Request::from_parts(head, body);
                let is_own = shared.is_over_own_layer;
                TierFuture::pass(EagerOneshot::through(&mut self.inner, is_own, request))
            }
            Way::Look => {
                let (shared, inner) = (Arc::clone(shared), self.inner.clone());
                let future = async move {
                    let writer = shared.look(&mut head).await;
                    let response = inner.oneshot(Request::from_parts(head, body)).await;
                    if let Some(writer) = writer.filter(|_| !is_being_stored(&response)) {
                        writer.end_turn();
                    }
                    response
                };
                TierFuture { kind: Kind::Look { future: Box::pin(future) } }
            }
        }
    }
}

pin_project! {
    /// The response future of [`TierService`].
    pub struct TierFuture<S, ReqB>
    where
        S: Service<Request<ReqB>>,
    {
        #[pin]
        kind: Kind<S, ReqB>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<S, ReqB>
    where
        S: Service<Request<ReqB>>,
    {
        Pass { #[pin] below: EagerOneshot<S, Request<ReqB>> },
        // Most of it is the service below.
        Look { future: BoxFuture<Result<S::Response, S::Error>> },
    }
}

impl<S: Service<Request<ReqB>>, ReqB> TierFuture<S, ReqB> {
    #[inline(always)]
    fn pass(below: EagerOneshot<S, Request<ReqB>>) -> Self {
        Self { kind: Kind::Pass { below } }
    }
}

impl<S, ReqB> Future for TierFuture<S, ReqB>
where
    S: Service<Request<ReqB>> + Clone,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Pass { below } => below.poll(cx),
            KindProj::Look { future } => future.as_mut().poll(cx),
        }
    }
}

impl<S: Service<Request<ReqB>>, ReqB> fmt::Debug for TierFuture<S, ReqB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TierFuture").finish_non_exhaustive()
    }
}

/// Where a request goes next.
enum Way {
    On,
    Look,
}

impl<St: Store> Reader<St> {
    fn tier(&self) -> &Arc<Shared> {
        self.tier.shared()
    }

    /// Whether the tier is asked first. If not, what is stored of the response may be written to it all the same.
    fn way(&self, head: &mut Parts) -> Way {
        let Some(asked) = exchange::CacheRequest::of(head, &CredentialNames::DEFAULT) else { return Way::On };
        // Only the origin will do for a request that must be validated end to end. What `Lookup` can judge of the
        // conditions of a client it has taken out.
        let is_for_origin =
            asked.purpose() == Purpose::Forced || asked.is_hit_for_miss() || !asked.facts().is_for_all();
        match (self.tier().journal(), is_for_origin) {
            (Ok(_), false) => return Way::Look,
            (Ok(_), true) => {}
            (Err(_), true) => return Way::On,
            (Err(idle), false) => {
                drop(asked);
                let why = self.tier().note_idle(idle);
                exchange::CacheRequest::note_idle_tier(&mut head.extensions, why);
                return Way::On;
            }
        }
        // What the marker stands for has removed what was there.
        let may_be_there = !asked.is_hit_for_miss();
        let asked = asked.into_owned();
        self.write_behind(head, asked, FetchWriter::new(self.tier(), None, may_be_there));
        Way::On
    }

    fn write_behind(
        &self,
        head: &mut Parts,
        asked: exchange::CacheRequest,
        writer: FetchWriter,
    ) -> Arc<FetchWriter> {
        let writer = Arc::new(writer);
        head.extensions.insert(asked.written_behind(Arc::clone(&writer) as Arc<dyn WriteBehind>));
        writer
    }

    /// Asks the tier, and lets the layers below know what it has. Returns what will write the response, if it may be
    /// written.
    async fn look(&self, head: &mut Parts) -> Option<Arc<FetchWriter>> {
        let asked = exchange::CacheRequest::of(head, &CredentialNames::DEFAULT)?.into_owned();
        let fields = asked.fields(&head.headers);
        let (clock, usable) = self.look_once(&asked, &fields).await;
        let is_turn_needed = self.tier().settings.fetches_once && needs_turn(clock, &usable, &asked);
        let looked = Looked { clock, usable, lease: None, has_waited: false };
        let Looked { clock, usable, lease, has_waited } = match is_turn_needed {
            true => self.wait_for_turn(&asked, &fields, looked).await,
            false => looked,
        };
        let may_be_there = !matches!(usable, Usable::Nothing(TierRead::Miss));
        let asked = self.with(asked, usable, has_waited);
        match clock {
            // Of a response whose time on the clock of the remote is not known others could not tell the age.
            None => {
                head.extensions.insert(asked);
                None
            }
            clock => {
                let writer = FetchWriter::new(self.tier(), clock, may_be_there).holding(lease);
                Some(self.write_behind(head, asked, writer))
            }
        }
    }

    /// Waits until this node is to fetch, or need not any more, or has waited long enough.
    async fn wait_for_turn(
        &self,
        asked: &exchange::CacheRequest,
        fields: &RequestFields<'_>,
        mut looked: Looked,
    ) -> Looked {
        let key = self.lease_key(asked.key(), fields);
        let deadline = Instant::now() + self.patience(asked);
        let mut pauses = lease::Pauses::new();
        // The time that the remote takes counts.
        while Instant::now() < deadline {
            let lease = match timeout_at(deadline, self.tier().take_turn(&key)).await {
                Err(_) | Ok(lease::Turn::Own(None)) => break,
                Ok(lease::Turn::Own(lease)) => lease,
                Ok(lease::Turn::Other) => {
                    looked.has_waited = true;
                    sleep_until(deadline.min(Instant::now() + pauses.next(fastrand::f64()))).await;
                    None
                }
            };
            // With a lease as well: another node may have given it back between the two calls.
            match timeout_at(deadline, self.look_once(asked, fields)).await {
                Ok(again) => (looked.clock, looked.usable) = again,
                Err(_) => return Looked { lease, ..looked },
            }
            if !needs_turn(looked.clock, &looked.usable, asked) {
                break;
            }
            if lease.is_some() {
                return Looked { lease, ..looked };
            }
        }
        looked
    }

    async fn look_once(
        &self,
        asked: &exchange::CacheRequest,
        fields: &RequestFields<'_>,
    ) -> (Option<Clock>, Usable) {
        let entry = self.store.get(asked.key().as_bytes());
        let wanted = Wanted { key: asked.key(), fields, max_body_bytes: self.store.max_response_bytes() };
        let stored_here = entry.as_deref().map(|entry| entry.variants());
        let looked = self.tier().look(wanted, stored_here).await;
        let usable = match (looked.envelope, looked.clock) {
            (Ok(envelope), Some(clock)) => read::judge(&self.store, self.tier(), (envelope, clock), fields),
            (Err(why), _) => Usable::Nothing(why),
            (Ok(_), None) => Usable::Nothing(TierRead::Failed),
        };
        (looked.clock, usable)
    }

    /// Those that need the same variant take turns, as far as it is known what selects one.
    fn lease_key(&self, key: &CacheKey, fields: &RequestFields<'_>) -> Vec<u8> {
        let index = self.tier().indexes.of(key);
        let selection = index.sets().first().map(|names| Selection::new(names, fields.fields));
        self.tier().naming().lease(key, Id::of(key, selection.as_ref()))
    }

    fn patience(&self, asked: &exchange::CacheRequest) -> Duration {
        // The other half is for a fetch of its own.
        let left = asked.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()) / 2);
        left.map_or(self.patience, |left| left.min(self.patience))
    }

    /// The request with what the tier has for it.
    fn with(
        &self,
        asked: exchange::CacheRequest,
        usable: Usable,
        has_waited: bool,
    ) -> exchange::CacheRequest {
        let (asked, outcome) = match usable {
            Usable::Stored(response) if response.is_fresh(Instant::now()) => {
                (asked.with_found(response), TierRead::Fresh)
            }
            Usable::Stored(response) => {
                let asked = asked.with_found(Arc::clone(&response));
                (asked.confirming(response, self.health.as_ref()), TierRead::Stale)
            }
            // What is stored here is at least known not to be purged.
            Usable::Unproven(response) if !asked.candidate().is_whole() => {
                (asked.confirming(response, None), TierRead::Unproven)
            }
            Usable::Unproven(_) => (asked, TierRead::Unneeded),
            Usable::Nothing(why) => (asked, why),
        };
        self.tier().reads.add(outcome);
        if has_waited {
            let is_found = outcome == TierRead::Fresh;
            self.tier().waits.add(if is_found { TierWait::Found } else { TierWait::Fetched });
        }
        asked.by_second_tier(outcome, has_waited)
    }
}

/// What came of looking into the tier for a request.
struct Looked {
    clock: Option<Clock>,
    usable: Usable,
    /// The turn of this node, if it has one.
    lease: Option<lease::Lease>,
    /// Whether another node had its turn before.
    has_waited: bool,
}

/// Whether what is read of the body may still be stored.
fn is_being_stored<B, E>(response: &Result<Response<B>, E>) -> bool {
    response.as_ref().is_ok_and(|response| CacheStatus::of(response).is_some_and(|status| status.is_stored()))
}

/// Whether a client waits that has nothing to be served meanwhile, and the remote has answered.
fn needs_turn(clock: Option<Clock>, usable: &Usable, asked: &exchange::CacheRequest) -> bool {
    let has_nothing = !matches!(usable, Usable::Stored(_)) && !asked.has_stale();
    clock.is_some() && has_nothing
}
