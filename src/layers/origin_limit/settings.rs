//! What is configured, and the way of an attempt through it.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::{Extensions, Request, Response, request::Parts};
use tokio::time::Instant;

use super::{
    Watch, Watched,
    held::{Holders, HoldersByOrigin},
    whole::MOST_BYTES,
};
use crate::{
    body::{Body, ResponseBody},
    build_error::BuildError,
    exchange::{
        self,
        failures::FailurePolicy,
        status::{CacheStatus, Forward},
    },
    executor::Executor,
    http::{response_fields, storing::after},
    key::CacheKey,
    origin,
};

type Exempt = dyn Fn(&Parts) -> bool + Send + Sync;

/// What the services of one layer share.
#[derive(Clone)]
pub(super) struct Settings {
    /// `None`: no limit.
    max_attempts: Option<usize>,
    pub(super) max_queue: usize,
    pub(super) max_queue_wait: Duration,
    pub(super) max_read_pause: Duration,
    pub(super) retry_after: Duration,
    /// `None`: all responses are passed on as they come.
    pub(super) hold_until_complete: Option<usize>,
    pub(super) priority: origin::Priority,
    pub(super) exempt: Option<Arc<Exempt>>,
    pub(super) failures: FailurePolicy,
    health: origin::OriginHealth,
    health_is_given: bool,
    /// Whether attempts are reported, and asked about, at all.
    reports: bool,
    holders: Arc<HoldersByOrigin>,
    /// Whether a layer above corrects what responses say of their length.
    is_under_own_layer: bool,
    /// The last one that was given of those that mean nothing without a limit.
    setting_of_limit: Option<&'static str>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("max_attempts", &self.max_attempts)
            .field("max_queue", &self.max_queue)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn limited(max_attempts: usize) -> Self {
        Self { max_attempts: Some(max_attempts), ..Self::unlimited() }
    }

    pub(super) fn unlimited() -> Self {
        Self {
            max_attempts: None,
            max_queue: 1024,
            max_queue_wait: Duration::from_secs(1),
            max_read_pause: Duration::from_secs(90),
            retry_after: Duration::from_secs(1),
            hold_until_complete: None,
            priority: origin::Priority::default(),
            exempt: None,
            failures: FailurePolicy::default(),
            health: origin::OriginHealth::new(),
            health_is_given: false,
            reports: true,
            holders: Arc::default(),
            is_under_own_layer: false,
            setting_of_limit: None,
        }
    }

    pub(super) fn note_setting_of_limit(&mut self, name: &'static str) {
        self.setting_of_limit = Some(name);
    }

    pub(super) fn give_health(&mut self, health: origin::OriginHealth) {
        (self.health, self.health_is_given, self.holders) = (health, true, Arc::default());
    }

    pub(super) fn share_health(&mut self, health: &origin::OriginHealth) {
        self.reports = !health.is_group();
        self.health = match self.reports {
            true => health.clone(),
            // Those of the group are reported to below.
            false => origin::OriginHealth::unwatched(),
        };
    }

    pub(super) fn note_own_layer_above(&mut self) {
        self.is_under_own_layer = true;
    }

    /// Whether what responses say of their length is to be corrected here.
    pub(super) const fn settles_length(&self) -> bool {
        !self.is_under_own_layer
    }

    pub(super) const fn health(&self) -> &origin::OriginHealth {
        &self.health
    }

    pub(super) const fn health_is_given(&self) -> bool {
        self.health_is_given
    }

    /// Also by another layer with the same health.
    pub(super) fn is_limited(&self) -> bool {
        self.max_attempts.is_some() || self.health.is_limited()
    }

    pub(super) fn classes(&self) -> Option<&origin::Priority> {
        Some(&self.priority).filter(|_| self.is_limited())
    }

    /// Whether requests pass as if there were no layer.
    pub(super) fn is_idle(&self) -> bool {
        !self.reports && !self.is_limited()
    }

    /// Whether those do that have no key.
    pub(super) fn ignores_keyless(&self) -> bool {
        let are_counted = self.reports && self.health.counts_without_key();
        !self.is_limited() && !are_counted
    }

    /// Gives the limit to the health, before the first attempt. Returns whether it is not limited otherwise.
    pub(super) fn take_effect(&self) -> bool {
        self.max_attempts.is_none_or(|permits| self.health.limit(permits, self.max_queue))
    }

    pub(super) fn check(&self) -> Result<(), BuildError> {
        if let Some(setting) = self.setting_of_limit.filter(|_| !self.is_limited()) {
            let reason = "there is no limit; use `OriginLimitLayer::new`";
            return Err(BuildError::NoEffect { setting, reason });
        }
        if self.max_attempts == Some(0) {
            let consequence = "nothing ever reaches the origin";
            return Err(BuildError::ZeroLimit { setting: "max_attempts", consequence });
        }
        if self.max_queue_wait.is_zero() && self.max_queue > 0 {
            let consequence = "no attempt ever waits; use `max_queue(0)` for that";
            return Err(BuildError::ZeroDuration { setting: "max_queue_wait", consequence });
        }
        if self.max_read_pause.is_zero() {
            let consequence = "every body is broken off while another attempt waits";
            return Err(BuildError::ZeroDuration { setting: "max_read_pause", consequence });
        }
        self.check_held()?;
        if !self.take_effect() {
            let reason =
                "its health has a limit of another size already; give each limit a health of its own";
            return Err(BuildError::NoEffect { setting: "origin_limit", reason });
        }
        Ok(())
    }

    fn check_held(&self) -> Result<(), BuildError> {
        let setting = "hold_until_complete";
        match self.hold_until_complete {
            Some(0) => Err(BuildError::ZeroLimit { setting, consequence: "nothing is held" }),
            Some(bytes) if bytes > MOST_BYTES => {
                let consequence = "each attempt may hold that much memory";
                Err(BuildError::LargeLimit { setting, most: MOST_BYTES, consequence })
            }
            _ => Ok(()),
        }
    }

    /// Where a request is to enter, and as what. `None`: its head has to be looked at for that.
    #[inline]
    pub(super) fn entrance<B>(&self, request: &Request<B>) -> Option<(&Arc<origin::Gate>, origin::Entrance)> {
        let gate = self.health.only_gate().filter(|_| self.exempt.is_none())?;
        let entrance = of_extensions(request.extensions());
        // The callers that share a place have said their classes.
        (entrance.place.is_some() || !self.priority.is_given()).then_some((gate, entrance))
    }

    /// The same for any request, which it returns again: a head by itself is to be had in no other way.
    pub(super) fn entrance_of<B>(
        &self,
        request: Request<B>,
    ) -> (Request<B>, Arc<origin::Gate>, origin::Entrance) {
        if let Some((gate, entrance)) = self.entrance(&request) {
            return (request, Arc::clone(gate), entrance);
        }
        let entrance = of_extensions(request.extensions());
        let (head, body) = request.into_parts();
        let class = match entrance.place.is_none() {
            true => self.priority.class(&head),
            false => entrance.class,
        };
        let entrance = origin::Entrance { class, is_exempt: self.is_exempt(&head), ..entrance };
        let gate = self.health.gate(&head);
        (Request::from_parts(head, body), gate, entrance)
    }

    fn is_exempt(&self, head: &Parts) -> bool {
        let Some(exempt) = &self.exempt else { return false };
        // Code of the application, which must not take a request down.
        catch_unwind(AssertUnwindSafe(|| exempt(head))).unwrap_or(false)
    }

    /// Calls the service once there is a permit. `is_over`: whether the origin has nothing more to do for a body,
    /// which needs no permit then.
    pub(super) async fn admit<F, B, E>(
        self: Arc<Self>,
        gate: Arc<origin::Gate>,
        entrance: origin::Entrance,
        is_over: fn(&B) -> bool,
        call: impl FnOnce() -> F,
    ) -> Result<Response<Body<B>>, E>
    where
        F: Future<Output = Result<Response<B>, E>>,
        B: ResponseBody,
    {
        let holders = self.holders.of(&gate);
        let attempt = match self.enter(&gate, entrance, &holders).await {
            Ok(attempt) => attempt,
            Err(refusal) => return Ok(self.refuse(refusal)),
        };
        let give_up_at = attempt.give_up_at().filter(|_| Executor::is_available());
        let began = Instant::now();
        let watch = Watch::new(attempt, self);
        let mut call = pin!(Watched::begin(watch, call));
        let (result, ended) = match give_up_at {
            None => call.ended().await,
            Some(at) => match tokio::time::timeout_at(at, call.as_mut().ended()).await {
                Ok(ended) => ended,
                Err(_) if call.may_go_on() => call.ended().await,
                Err(_) => {
                    call.end(origin::AttemptOutcome::TimedOut);
                    return Ok(refused(exchange::Refused::AttemptTimeout, Duration::ZERO));
                }
            },
        };
        let mut response = result?;
        if ended.as_ref().is_none_or(|ended| ended.settings.settles_length()) {
            response_fields::settle_length(&mut response);
        }
        exchange::ResponseFacts::note_attempt(response.extensions_mut(), began);
        let permit = ended.map(|ended| ended.permit).filter(|_| !is_over(response.body()));
        Ok(response.map(|body| hold(&holders, permit, body)))
    }

    async fn enter(
        &self,
        gate: &Arc<origin::Gate>,
        entrance: origin::Entrance,
        holders: &Holders,
    ) -> Result<origin::Attempt, origin::Refusal> {
        let now = Instant::now();
        // No runtime, no clock: the wait is bounded by the queue alone.
        let leave_at = Executor::is_available().then(|| self.leave_at(entrance.deadline, now));
        match gate.enter(origin::Entrance { leave_at, ..entrance }, now) {
            origin::Entered::Admitted(attempt) => Ok(attempt),
            origin::Entered::Refused(refusal) => Err(refusal),
            origin::Entered::Queued(waiting) => match leave_at {
                None => waiting.await,
                Some(leave_at) => self.wait(gate, waiting, leave_at, holders).await,
            },
        }
    }

    /// What waits until half of its time is over leaves the other half to those that have more.
    fn leave_at(&self, deadline: Option<Instant>, now: Instant) -> Instant {
        let leave_at = after(now, self.max_queue_wait);
        let half = deadline.map(|deadline| now + deadline.saturating_duration_since(now) / 2);
        half.map_or(leave_at, |half| half.min(leave_at))
    }

    async fn wait(
        &self,
        gate: &Arc<origin::Gate>,
        mut waiting: origin::Waiting,
        leave_at: Instant,
        holders: &Holders,
    ) -> Result<origin::Attempt, origin::Refusal> {
        loop {
            let next_look = match gate.is_full() {
                true => holders.make_room(self.max_read_pause),
                // It is not for a permit that it waits.
                false => after(Instant::now(), self.max_read_pause),
            };
            match tokio::time::timeout_at(next_look.min(leave_at), &mut waiting).await {
                Ok(result) => return result,
                Err(_) if Instant::now() >= leave_at => return Err(origin::Refusal::TooLate),
                Err(_) => {}
            }
        }
    }

    pub(super) fn refuse<B>(&self, refusal: origin::Refusal) -> Response<Body<B>> {
        const LEAST: Duration = Duration::from_secs(1);
        match refusal {
            origin::Refusal::QueueFull | origin::Refusal::Busy => {
                refused(exchange::Refused::QueueFull, self.retry_after)
            }
            origin::Refusal::TooLate => refused(exchange::Refused::QueueTimeout, self.retry_after),
            origin::Refusal::HeldBack(why) => refused(why.into(), LEAST),
            origin::Refusal::Down { next_probe } => {
                refused(exchange::Refused::OriginDown, next_probe.max(LEAST))
            }
        }
    }
}

fn refused<B>(why: exchange::Refused, retry_after: Duration) -> Response<Body<B>> {
    why.to_response(retry_after, CacheStatus::forwarded(Forward::Miss))
}

/// What a request asks of the cache decides what its attempt is.
fn of_extensions(extensions: &Extensions) -> origin::Entrance {
    let Some(asked) = extensions.get::<exchange::CacheRequest>() else {
        let key = extensions.get::<CacheKey>().map(|key| origin::key_hash(key.as_bytes()));
        let pass = exchange::CacheRequest::bare_pass(extensions).cloned();
        let is_shared = exchange::CacheRequest::is_bare_of_flight(extensions);
        return origin::Entrance {
            key,
            pass,
            class: origin::DEFAULT_CLASS,
            is_shared,
            ..origin::Entrance::default()
        };
    };
    let place = asked.place().cloned();
    origin::Entrance {
        // The best of those that share the place, if there is one.
        class: if place.is_some() { origin::LOWEST_CLASS } else { origin::DEFAULT_CLASS },
        is_shared: asked.is_of_flight(),
        place,
        key: Some(origin::key_hash(asked.key().as_bytes())),
        has_stale: asked.has_stale(),
        kind: kind_of(asked.purpose()),
        last_cost: asked.last_cost(),
        pass: asked.origin_pass().cloned(),
        deadline: asked.deadline(),
        ..origin::Entrance::default()
    }
}

const fn kind_of(purpose: exchange::Purpose) -> origin::Kind {
    match purpose {
        exchange::Purpose::RefreshAhead => origin::Kind::RefreshAhead,
        exchange::Purpose::WarmUp => origin::Kind::WarmUp,
        exchange::Purpose::Client | exchange::Purpose::Forced | exchange::Purpose::Refresh => {
            origin::Kind::Request
        }
    }
}

/// Keeps the permit until the body is complete, or is no longer read.
fn hold<B: ResponseBody>(holders: &Holders, permit: Option<origin::Permit>, body: B) -> Body<B> {
    match permit {
        Some(permit) if !body.is_end_stream() => Body::shared(holders.hold(permit, body)),
        _ => Body::inner(body),
    }
}

#[cfg(test)]
impl Settings {
    /// As the table of [defaults](crate::defaults) has them.
    pub(super) fn rows(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::{option, span};
        let Self {
            max_attempts,
            max_queue,
            max_queue_wait,
            max_read_pause,
            retry_after,
            hold_until_complete,
            priority,
            exempt,
            failures,
            health: _,
            health_is_given: _,
            reports: _,
            holders: _,
            is_under_own_layer: _,
            setting_of_limit: _,
        } = self;
        if max_attempts.is_none() {
            return Vec::new();
        }
        let some = |is_given: bool| option(is_given.then_some("some"), str::to_owned);
        let class = if priority.is_given() { "some".to_owned() } else { origin::DEFAULT_CLASS.to_string() };
        vec![
            ("OriginLimitLayer::max_queue", max_queue.to_string()),
            ("OriginLimitLayer::max_queue_wait", span(*max_queue_wait)),
            ("OriginLimitLayer::max_read_pause", span(*max_read_pause)),
            ("OriginLimitLayer::retry_after", span(*retry_after)),
            ("OriginLimitLayer::hold_until_complete", option(hold_until_complete.as_ref(), usize::to_string)),
            ("OriginLimitLayer::priority", class),
            ("OriginLimitLayer::exempt", some(exempt.is_some())),
            (
                "OriginLimitLayer::failures",
                if failures.is_given() { "some" } else { "of the stack" }.to_owned(),
            ),
        ]
    }
}
