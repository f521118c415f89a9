//! Bodies that hold a permit, and which of them their callers have left unread.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    body::{BodyError, BoxError},
    http::freshness::after,
};

/// The bodies that hold the permits of one limit.
#[derive(Default)]
pub(super) struct Holders {
    all: Mutex<Vec<Weak<dyn Idle>>>,
    /// Before that none of them can have been left unread for too long.
    next_look: Mutex<Option<Instant>>,
}

trait Idle: Send + Sync {
    /// Since when its caller has not asked for more. `None`: it waits for more, or has all.
    fn idle_since(&self) -> Option<Instant>;
    /// Ends the body and gives its permit back, unless its caller has come back since then.
    fn end(&self, idle_since: Instant);
}

impl Holders {
    /// Keeps the permit until the body is in, dropped, or ended for the sake of another attempt.
    pub(super) fn hold<B>(&self, permit: OwnedSemaphorePermit, body: B) -> Held<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let inner = Inner { body: Box::pin(body), idle_since: Some(Instant::now()), _permit: permit };
        let held = Arc::new(Place { state: Mutex::new(State::Open(inner)) });
        let weak: Weak<dyn Idle> = Arc::downgrade(&(Arc::clone(&held) as Arc<dyn Idle>));
        let mut all = self.all.lock();
        if all.len() == all.capacity() {
            all.retain(|held| held.strong_count() > 0);
        }
        all.push(weak);
        Held { place: held }
    }

    /// Ends the body that has been left unread longest, if that is `most` or longer. Returns when to
    /// look again.
    pub(super) fn make_room(&self, most: Duration) -> Instant {
        let now = Instant::now();
        let mut next_look = self.next_look.lock();
        if let Some(at) = *next_look
            && now < at
        {
            return at;
        }
        let held: Vec<_> = self.all.lock().iter().filter_map(Weak::upgrade).collect();
        let mut idle: Vec<_> = held.iter().filter_map(|held| Some((held.idle_since()?, held))).collect();
        idle.sort_by_key(|(since, _)| *since);
        let is_due = |since: &Instant| after(*since, most) <= now;
        let longest = idle.first().filter(|(since, _)| is_due(since));
        // Whatever is held from now on is due later.
        let next = idle.get(usize::from(longest.is_some())).map_or(now, |(since, _)| *since);
        let at = after(next, most);
        *next_look = Some(at);
        drop(next_look);
        if let Some((since, longest)) = longest {
            longest.end(*since);
        }
        at
    }
}

/// A body and its permit, which either its caller or an attempt that waits may end.
struct Place<B> {
    state: Mutex<State<B>>,
}

enum State<B> {
    Open(Inner<B>),
    /// It is being looked at, for which no lock is held.
    InUse,
    Over,
    Ended,
}

struct Inner<B> {
    body: Pin<Box<B>>,
    idle_since: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl<B> Place<B> {
    /// `None` if it is over or was ended.
    fn with<T>(&self, look: impl FnOnce(&mut Inner<B>) -> T) -> Option<T> {
        let mut inner = self.take()?;
        let found = look(&mut inner);
        *self.state.lock() = State::Open(inner);
        Some(found)
    }

    fn take(&self) -> Option<Inner<B>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::InUse) {
            State::Open(inner) => Some(inner),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl<B: Send> Idle for Place<B> {
    fn idle_since(&self) -> Option<Instant> {
        match &*self.state.lock() {
            State::Open(inner) => inner.idle_since,
            _ => None,
        }
    }

    fn end(&self, idle_since: Instant) {
        let mut state = self.state.lock();
        // At once: what is not open for a moment would look like a body that is complete.
        if matches!(&*state, State::Open(inner) if inner.idle_since == Some(idle_since)) {
            let ended = std::mem::replace(&mut *state, State::Ended);
            drop(state);
            drop(ended);
        }
    }
}

/// A body that holds a permit.
pub(super) struct Held<B> {
    place: Arc<Place<B>>,
}

impl<B> HttpBody for Held<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(mut inner) = self.place.take() else {
            let state = std::mem::replace(&mut *self.place.state.lock(), State::Over);
            return Poll::Ready(match state {
                State::Ended => Some(Err(BodyError::Idle)),
                // The body has panicked.
                State::InUse => Some(Err(BodyError::Cancelled)),
                State::Over | State::Open(_) => None,
            });
        };
        let frame = inner.body.as_mut().poll_frame(cx);
        let is_over = match &frame {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => inner.body.is_end_stream(),
            Poll::Ready(_) => true,
        };
        inner.idle_since = frame.is_ready().then(Instant::now);
        *self.place.state.lock() = if is_over { State::Over } else { State::Open(inner) };
        frame.map_err(BodyError::new)
    }

    fn is_end_stream(&self) -> bool {
        let is_end = self.place.with(|inner| inner.body.is_end_stream());
        is_end.unwrap_or_else(|| matches!(*self.place.state.lock(), State::Over))
    }

    fn size_hint(&self) -> SizeHint {
        self.place.with(|inner| inner.body.size_hint()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use tokio::sync::Semaphore;

    /// A body that yields one chunk after the other, without end.
    fn endless() -> impl HttpBody<Data = Bytes, Error = std::convert::Infallible> + Send + 'static {
        StreamBody::new(futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(b"x")))))
    }

    #[test]
    fn a_body_that_is_ended_while_it_is_read_is_not_taken_for_complete() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let holders = Holders::default();
        for n in 0..300_usize {
            let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let mut held = holders.hold(permit, endless());
            let place = Arc::clone(&held.place);
            let start = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..n % 64 {
                        std::hint::spin_loop();
                    }
                    while !matches!(*place.state.lock(), State::Ended | State::Over) {
                        if let Some(since) = place.idle_since() {
                            place.end(since);
                        }
                    }
                });
                start.wait();
                let mut cx = Context::from_waker(std::task::Waker::noop());
                loop {
                    match Pin::new(&mut held).poll_frame(&mut cx) {
                        Poll::Ready(Some(Ok(_))) => std::thread::yield_now(),
                        Poll::Ready(Some(Err(error))) => break assert!(matches!(error, BodyError::Idle)),
                        other => panic!("{n}: {other:?}"),
                    }
                }
            });
        }
    }
}
