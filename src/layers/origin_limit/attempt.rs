//! One attempt, and how it ends.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{settings::Settings, whole::CutOff};
use crate::{
    exchange::Refused,
    origin::{Attempt, AttemptOutcome, Permit},
};

/// Reports how an attempt ends. Dropped before, the attempt was given up.
pub(super) struct Watch {
    attempt: Attempt,
    settings: Arc<Settings>,
}

impl Watch {
    pub(super) const fn new(attempt: Attempt, settings: Arc<Settings>) -> Self {
        Self { attempt, settings }
    }

    fn may_go_on(&self) -> bool {
        self.attempt.may_go_on(Instant::now())
    }

    pub(super) fn end(self, outcome: AttemptOutcome) -> Permit {
        self.attempt.finish(outcome, Instant::now())
    }

    fn end_with<B, E>(self, result: &Result<Response<B>, E>) -> Permit {
        let outcome = match result {
            Ok(response) => self.outcome_of(response),
            Err(_) => AttemptOutcome::Failure,
        };
        self.end(outcome)
    }

    fn outcome_of<B>(&self, response: &Response<B>) -> AttemptOutcome {
        let (status, headers) = (response.status(), response.headers());
        if status.as_u16() < 400 && !self.settings.failures.is_given() {
            return AttemptOutcome::Success;
        }
        if response.extensions().get::<Refused>().is_some() {
            return AttemptOutcome::Neither;
        }
        if response.extensions().get::<CutOff>().is_some() {
            return AttemptOutcome::Failure;
        }
        // It is well, and asks to be spared.
        if status == StatusCode::TOO_MANY_REQUESTS {
            return AttemptOutcome::TooMany;
        }
        match self.settings.failures.is_failure(status, headers) {
            true => AttemptOutcome::Failure,
            false => AttemptOutcome::Success,
        }
    }
}

/// Reports a failure unless it is disarmed before it is dropped, which a panic of the service prevents.
struct Unwinding<'a>(Option<&'a mut Option<Watch>>);

impl<'a> Unwinding<'a> {
    const fn of(watch: &'a mut Option<Watch>) -> Self {
        Self(Some(watch))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if let Some(watch) = self.0.take().and_then(Option::take) {
            drop(watch.end(AttemptOutcome::Failure));
        }
    }
}

pin_project! {
    /// The call of a service, under watch.
    pub(super) struct Watched<F> {
        #[pin]
        call: F,
        // `None`: it is not watched, or over.
        watch: Option<Watch>,
    }
}

impl<F> Watched<F> {
    pub(super) const fn unwatched(call: F) -> Self {
        Self { call, watch: None }
    }

    // Not inlined, the call is moved once more.
    #[inline(always)]
    pub(super) fn begin(watch: Watch, call: impl FnOnce() -> F) -> Self {
        let mut watch = Some(watch);
        let unwinding = Unwinding::of(&mut watch);
        let call = call();
        unwinding.disarm();
        Self { call, watch }
    }

    /// Whether the attempt goes on although its time is over.
    pub(super) fn may_go_on(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::may_go_on)
    }

    /// Ends the attempt in this way, if it is not over.
    pub(super) fn end(self: Pin<&mut Self>, outcome: AttemptOutcome) {
        drop(self.project().watch.take().map(|watch| watch.end(outcome)));
    }
}

impl<F, B, E> Future for Watched<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = (F::Output, Option<Permit>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let unwinding = Unwinding::of(this.watch);
        let polled = this.call.poll(cx);
        unwinding.disarm();
        polled.map(|result| {
            let permit = this.watch.take().map(|watch| watch.end_with(&result));
            (result, permit)
        })
    }
}
