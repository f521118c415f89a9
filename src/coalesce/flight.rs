//! One fetch, many readers. Knows no Tower.
//!
//! A task of its own drives the fetch and appends what comes in to a log; callers wait for the
//! head and then read the log, each at its own pace. As long as the body is within the limit
//! the log is kept from its first chunk on, so that a caller can join at any time. A body that
//! turns out larger closes the flight to newcomers, and the log becomes a window round the
//! fastest reader: the fetch waits for him, and who falls too far behind him gets an error.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

use super::log::{Chunk, Entry, Log, Pace};
use crate::{
    body::BodyError,
    exchange::{Refused, Verdict},
    status::CacheStatus,
};

/// Charged for a chunk beside its bytes.
const CHUNK_OVERHEAD: usize = 64;

/// What became of the fetch, apart from the body.
#[derive(Debug)]
pub(super) enum Outcome {
    Head(Box<Head>),
    /// The service's own error, of whatever type it is.
    Error(Arc<dyn Any + Send + Sync>),
    /// There is no answer, and nobody is to try again because of it.
    Refused(Refused),
    /// The fetch panicked or was dropped: somebody else may try.
    Aborted,
}

/// The head of an answer, as all callers get it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) verdict: Verdict,
    /// How it came about, if the fields do not say it, or not any more.
    pub(super) came_about: Option<CacheStatus>,
    /// The size of the body, if the head told it.
    pub(super) size: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) started_at: Instant,
    outcome: OnceLock<Outcome>,
    log: Mutex<Log>,
    /// Set with the end in the log, so that whoever ends it once more need not look there.
    has_ended: AtomicBool,
    /// A reader has moved on, or the last caller has left.
    moved: Notify,
    max_held: usize,
}

/// What a reader finds at its place in the log.
pub(super) enum Found {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing yet.
    Pending,
    End,
    Failed(BodyError),
}

/// Whether a newcomer got on.
pub(super) enum Boarding {
    Aboard(Caller),
    Full,
    Closed,
}

impl Flight {
    pub(super) fn new(max_held: usize) -> Self {
        Self {
            started_at: Instant::now(),
            outcome: OnceLock::new(),
            log: Mutex::default(),
            has_ended: AtomicBool::new(false),
            moved: Notify::new(),
            max_held,
        }
    }

    /// A new one, with its first caller aboard.
    pub(super) fn begin(max_held: usize) -> Caller {
        let mut flight = Self::new(max_held);
        flight.log.get_mut().callers = 1;
        Caller(Arc::new(flight))
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Waits until the head is known, or that there will be none.
    pub(super) async fn settled(&self) -> &Outcome {
        loop {
            // Registered before looking, so that no change in between is missed.
            let changed = self.next_change();
            if let Some(outcome) = self.outcome.get() {
                return outcome;
            }
            changed.await;
        }
    }

    /// The first outcome stands.
    pub(super) fn settle(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            let changed = self.log.lock().changed.clone();
            wake(changed);
        }
    }

    pub(super) fn push_data(&self, data: Bytes, is_last: bool) {
        let bytes = data.len() + CHUNK_OVERHEAD;
        self.push(Chunk::Data(data), bytes, is_last);
    }

    pub(super) fn push_trailers(&self, trailers: HeaderMap) {
        if trailers.is_empty() {
            return;
        }
        self.push(Chunk::Trailers(Arc::new(trailers)), CHUNK_OVERHEAD, false);
    }

    fn push(&self, chunk: Chunk, bytes: usize, is_last: bool) {
        let mut log = self.log.lock();
        log.total += bytes as u64;
        if let Chunk::Data(data) = &chunk {
            log.body_bytes += data.len() as u64;
        }
        let end = log.total;
        log.chunks.push_back(Entry { chunk, end });
        if is_last {
            log.end.get_or_insert(Ok(()));
            self.has_ended.store(true, Ordering::Release);
        }
        // Nobody reads, and nobody can board any more.
        let unread = if log.is_closed && log.callers == 0 { log.forget() } else { VecDeque::new() };
        let changed = log.changed.clone();
        drop(log);
        drop(unread);
        wake(changed);
    }

    /// The body has ended. The first end stands.
    pub(super) fn end(&self, end: Result<(), BodyError>) {
        if self.has_ended.load(Ordering::Acquire) {
            return;
        }
        let mut log = self.log.lock();
        // Who sees a body break off and asks again gets another one.
        log.is_closed |= end.is_err();
        if log.end.is_none() {
            log.end = Some(end);
            self.has_ended.store(true, Ordering::Release);
            let changed = log.changed.clone();
            drop(log);
            wake(changed);
        }
    }

    /// Lets the pump go on when there is room. At the first call beyond the limit it is told
    /// to close the flight.
    pub(super) async fn pace(&self) -> Pace {
        loop {
            let moved = self.moved.notified();
            let pace = self.log.lock().pace(self.max_held);
            match pace {
                Some(pace) => return pace,
                None => moved.await,
            }
        }
    }

    /// Waits until there is no caller left. From then on nobody can board.
    pub(super) async fn abandoned(&self) {
        loop {
            let moved = self.moved.notified();
            if self.log.lock().close_if_empty() {
                return;
            }
            moved.await;
        }
    }

    /// One more caller, unless there are `limit` already.
    pub(super) fn board(self: &Arc<Self>, limit: usize) -> Boarding {
        let mut log = self.log.lock();
        if log.is_closed {
            return Boarding::Closed;
        }
        if log.callers >= limit {
            return Boarding::Full;
        }
        log.callers += 1;
        Boarding::Aboard(Caller(Arc::clone(self)))
    }

    /// Resolves at the next change after this call.
    pub(super) fn next_change(&self) -> OwnedNotified {
        let changed = Arc::clone(self.log.lock().changed.get_or_insert_default());
        changed.notified_owned()
    }

    /// What stands at this place of the log.
    pub(super) fn read(&self, place: usize) -> Found {
        let mut log = self.log.lock();
        let Some(at) = place.checked_sub(log.first) else { return Found::Failed(BodyError::Lagged) };
        let Some(entry) = log.chunks.get(at) else {
            return match &log.end {
                None => Found::Pending,
                Some(Ok(())) => Found::End,
                Some(Err(error)) => Found::Failed(error.clone()),
            };
        };
        let (chunk, end) = (entry.chunk.clone(), entry.end);
        log.fastest = log.fastest.max(end);
        let dropped = if log.is_window { log.trim(self.max_held) } else { Vec::new() };
        let is_window = log.is_window;
        drop(log);
        drop(dropped);
        if is_window {
            self.moved.notify_one();
        }
        match chunk {
            Chunk::Data(data) => Found::Data(data),
            Chunk::Trailers(trailers) => Found::Trailers(Arc::unwrap_or_clone(trailers)),
        }
    }

    /// The body, if all of it is there in one piece of this length, and nothing else.
    pub(super) fn whole(&self, length: u64) -> Option<Bytes> {
        let log = self.log.lock();
        match (&log.end, log.chunks.len(), log.chunks.front()) {
            (Some(Ok(())), 1, Some(Entry { chunk: Chunk::Data(data), .. }))
                if data.len() as u64 == length =>
            {
                Some(data.clone())
            }
            _ => None,
        }
    }

    /// Whether a reader at this place has had everything.
    pub(super) fn is_end(&self, place: usize) -> bool {
        let log = self.log.lock();
        matches!(log.end, Some(Ok(()))) && place == log.first + log.chunks.len()
    }
}

/// Tells of a change those who wait for one, if there are any.
fn wake(changed: Option<Arc<Notify>>) {
    if let Some(changed) = changed {
        changed.notify_waiters();
    }
}

/// A caller's seat on a flight; given up when dropped.
#[derive(Debug)]
pub(super) struct Caller(Arc<Flight>);

impl Caller {
    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.0
    }

    /// The fields of the shared head. Whoever holds the flight alone needs no copy: nobody else can
    /// board it any more.
    pub(super) fn take_fields(&mut self) -> HeaderMap {
        if let Some(Outcome::Head(head)) = Arc::get_mut(&mut self.0).and_then(|own| own.outcome.get_mut()) {
            return std::mem::take(&mut head.headers);
        }
        match self.0.outcome() {
            Some(Outcome::Head(head)) => head.headers.clone(),
            _ => HeaderMap::new(),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let left = {
            let mut log = self.0.log.lock();
            log.callers -= 1;
            log.callers
        };
        if left == 0 {
            self.0.moved.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
