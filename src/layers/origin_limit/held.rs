//! Response bodies that hold a permit. The one that has been left unread longest can be ended when another
//! attempt needs its permit.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::{
    body,
    http::storing::after,
    origin::{Gate, Permit},
};

/// The bodies that hold permits, by the origin that they came from.
#[derive(Default)]
pub(super) struct HoldersByOrigin(RwLock<HashMap<usize, Arc<Holders>>>);

impl HoldersByOrigin {
    /// The gates of a health live as long as it does, and there is a bounded number of them.
    pub(super) fn of(&self, gate: &Arc<Gate>) -> Arc<Holders> {
        let address = Arc::as_ptr(gate).addr();
        if let Some(holders) = self.0.read().get(&address) {
            return Arc::clone(holders);
        }
        Arc::clone(self.0.write().entry(address).or_default())
    }
}

/// The bodies that hold the permits of one origin.
#[derive(Default)]
pub(super) struct Holders {
    all: Mutex<Vec<Weak<dyn Idle>>>,
    /// Until then no body can have been left unread for too long.
    next_look: Mutex<Option<Instant>>,
}

trait Idle: Send + Sync {
    /// When the body was last read. `None`: its caller waits for more, or has all of it.
    fn idle_since(&self) -> Option<Instant>;
    /// Ends the body and returns its permit, unless it has been read since then.
    fn end(&self, idle_since: Instant);
}

impl Holders {
    /// Returns a body that keeps the permit until it is complete, dropped, or ended for another attempt.
    pub(super) fn hold<B>(&self, permit: Permit, body: B) -> Held<B>
    where
        B: body::ResponseBody,
    {
        let inner = Inner { body: Box::pin(body), idle_since: Some(Instant::now()), _permit: permit };
        let shared = Arc::new(Shared { state: Mutex::new(State::Open(inner)) });
        let weak: Weak<dyn Idle> = Arc::downgrade(&(Arc::clone(&shared) as Arc<dyn Idle>));
        let mut all = self.all.lock();
        if all.len() == all.capacity() {
            all.retain(|held| held.strong_count() > 0);
        }
        all.push(weak);
        Held { shared }
    }

    /// Ends the body that has been left unread longest, if that is `max_pause` or longer. Returns when to
    /// call this again.
    pub(super) fn make_room(&self, max_pause: Duration) -> Instant {
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
        let is_due = |since: &Instant| after(*since, max_pause) <= now;
        let longest = idle.first().filter(|(since, _)| is_due(since));
        // A body that is held from now on is due later.
        let next = idle.get(usize::from(longest.is_some())).map_or(now, |(since, _)| *since);
        let at = after(next, max_pause);
        *next_look = Some(at);
        drop(next_look);
        if let Some((since, longest)) = longest {
            longest.end(*since);
        }
        at
    }
}

/// A body and its permit. Either its caller or a waiting attempt may end it.
struct Shared<B> {
    state: Mutex<State<B>>,
}

enum State<B> {
    Open(Inner<B>),
    /// It is in use, without the lock.
    InUse,
    /// Its caller has all of it.
    Over,
    /// It was ended for another attempt.
    Ended,
}

struct Inner<B> {
    body: Pin<Box<B>>,
    idle_since: Option<Instant>,
    _permit: Permit,
}

impl<B> Shared<B> {
    /// `None`: it is over or was ended.
    fn with<T>(&self, get: impl FnOnce(&Inner<B>) -> T) -> Option<T> {
        let inner = self.take()?;
        let value = get(&inner);
        *self.state.lock() = State::Open(inner);
        Some(value)
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

impl<B: Send> Idle for Shared<B> {
    fn idle_since(&self) -> Option<Instant> {
        match &*self.state.lock() {
            State::Open(inner) => inner.idle_since,
            _ => None,
        }
    }

    fn end(&self, idle_since: Instant) {
        let mut state = self.state.lock();
        // In one step: a body that is not open in between would look complete.
        if matches!(&*state, State::Open(inner) if inner.idle_since == Some(idle_since)) {
            let ended = std::mem::replace(&mut *state, State::Ended);
            drop(state);
            drop(ended);
        }
    }
}

/// A body that holds a permit.
pub(super) struct Held<B> {
    shared: Arc<Shared<B>>,
}

impl<B> HttpBody for Held<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<body::BoxError>,
{
    type Data = Bytes;
    type Error = body::BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::BodyError>>> {
        let Some(mut inner) = self.shared.take() else {
            let state = std::mem::replace(&mut *self.shared.state.lock(), State::Over);
            return Poll::Ready(match state {
                State::Ended => Some(Err(body::BodyError::Idle)),
                // The body has panicked.
                State::InUse => Some(Err(body::BodyError::Cancelled)),
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
        *self.shared.state.lock() = if is_over { State::Over } else { State::Open(inner) };
        frame.map_err(body::BodyError::new)
    }

    fn is_end_stream(&self) -> bool {
        let is_end = self.shared.with(|inner| inner.body.is_end_stream());
        is_end.unwrap_or_else(|| matches!(*self.shared.state.lock(), State::Over))
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.with(|inner| inner.body.size_hint()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{AttemptOutcome, Entered, Entrance, OriginHealth};
    use http_body_util::StreamBody;

    fn permit() -> Permit {
        let health = OriginHealth::new();
        assert!(health.limit(1, 0));
        match health.only_gate().unwrap().enter(Entrance::default(), Instant::now()) {
            Entered::Admitted(attempt) => attempt.finish(AttemptOutcome::Success, Instant::now()),
            other => panic!("{other:?}"),
        }
    }

    /// A body that yields chunks without end.
    fn endless() -> impl HttpBody<Data = Bytes, Error = std::convert::Infallible> + Send + 'static {
        StreamBody::new(futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(b"x")))))
    }

    #[test]
    fn a_body_ended_while_it_is_read_does_not_look_complete() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let holders = Holders::default();
        for n in 0..300_usize {
            let permit = permit();
            let mut held = holders.hold(permit, endless());
            let shared = Arc::clone(&held.shared);
            let start = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..n % 64 {
                        std::hint::spin_loop();
                    }
                    while !matches!(*shared.state.lock(), State::Ended | State::Over) {
                        if let Some(since) = shared.idle_since() {
                            shared.end(since);
                        }
                    }
                });
                start.wait();
                let mut cx = Context::from_waker(std::task::Waker::noop());
                loop {
                    match Pin::new(&mut held).poll_frame(&mut cx) {
                        Poll::Ready(Some(Ok(_))) => std::thread::yield_now(),
                        Poll::Ready(Some(Err(error))) => {
                            break assert!(matches!(error, body::BodyError::Idle));
                        }
                        other => panic!("{n}: {other:?}"),
                    }
                }
            });
        }
    }
}
