//! What waits to be written to the remote, within bounds.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{clock::Clock, keys::Id, lease::Lease};
use crate::{
    key::CacheKey,
    store::{AsOf, StoredResponse},
};

/// Changes that are written at a time.
const MAX_WRITERS: usize = 4;

/// A change to what the remote has.
#[derive(Debug)]
pub(super) enum Change {
    /// A response that was stored here.
    Write {
        response: Arc<StoredResponse>,
        /// What its fetch had seen of the purges of other nodes.
        as_of: AsOf,
        /// `None`: the clock of the remote has to be read.
        clock: Option<Clock>,
        /// Given back when it is written.
        lease: Option<Lease>,
    },
    /// What a request with these fields selects is outdated.
    Remove { request: Box<HeaderMap> },
}

impl Change {
    fn bytes(&self) -> u64 {
        match self {
            Self::Write { response, .. } => response.bytes() as u64,
            Self::Remove { request } => {
                let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
                request.iter().map(bytes).sum::<usize>() as u64
            }
        }
    }
}

/// A change under a key.
#[derive(Debug)]
pub(super) struct Job {
    key: CacheKey,
    /// Of the key. What has the same is done in its order: a removal is about all variants.
    place: Id,
    change: Change,
    bytes: u64,
}

impl Job {
    pub(super) fn new(key: &CacheKey, change: Change) -> Self {
        let bytes = change.bytes().saturating_add(key.as_bytes().len() as u64);
        Self { key: key.clone(), place: Id::of_key(key), change, bytes }
    }

    pub(super) fn into_parts(self) -> (CacheKey, Change) {
        (self.key, self.change)
    }
}

/// What came of adding a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    /// One of the same that waited is dropped.
    Replaced,
    /// There is no room, and the new one is dropped.
    Full,
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    /// Notified when there is nothing left.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Id, Job>,
    order: VecDeque<Id>,
    /// The places of what is being written now. The next change there waits for that.
    busy: HashSet<Id>,
    /// Of all that is waiting or being written.
    bytes: u64,
    writers: usize,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), idle: Notify::new() }
    }

    /// Adds a job. A job of the same that waits is dropped for it.
    pub(super) fn add(&self, id: Id, job: Job) -> Added {
        let mut state = self.state.lock();
        let (replaced_bytes, is_new) = match state.waiting.get(&id) {
            Some(waiting) => (waiting.bytes, false),
            None => (0, true),
        };
        let bytes = (state.bytes - replaced_bytes).saturating_add(job.bytes);
        let has_room = bytes <= self.bounds.bytes;
        if !has_room || is_new && state.waiting.len() + state.busy.len() >= self.bounds.entries {
            // Dropped where nothing is locked, as is what it replaces.
            drop(state);
            drop(job);
            return Added::Full;
        }
        state.bytes = bytes;
        let replaced = state.waiting.insert(id, job);
        if !is_new {
            state.order.retain(|other| *other != id);
        }
        state.order.push_back(id);
        drop(state);
        drop(replaced);
        if is_new { Added::New } else { Added::Replaced }
    }

    /// Whether there is work for one more writer, which counts from now on.
    fn begin_writer(&self) -> bool {
        let mut state = self.state.lock();
        let is_needed = state.writers < MAX_WRITERS && !state.order.is_empty();
        state.writers += usize::from(is_needed);
        is_needed
    }

    /// Lets tasks of the current runtime write what waits, as many as may and are needed.
    pub(super) fn run<F>(self: &Arc<Self>, write: impl Fn(Job) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.begin_writer() {
            let mut writer = Writer { queue: Arc::clone(self), is_counted: true };
            runtime.spawn(async move {
                while let Some((job, _busy)) = writer.next() {
                    pin!(write(job)).await;
                }
            });
        }
    }

    /// Returns when nothing waits and nothing is being written.
    pub(super) async fn idle(&self) {
        loop {
            let mut idle = pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.busy.is_empty()
    }

    /// How many changes there are, those included that are being written, and how many bytes.
    pub(super) fn size(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.waiting.len() + state.busy.len(), state.bytes)
    }

    fn settled(&self, place: Id, bytes: u64) {
        let mut state = self.state.lock();
        state.busy.remove(&place);
        state.bytes -= bytes;
        let is_idle = state.waiting.is_empty() && state.busy.is_empty();
        drop(state);
        if is_idle {
            self.idle.notify_waiters();
        }
    }
}

/// One task that writes. Its place is free when it finds no more work, or is dropped.
struct Writer {
    queue: Arc<Queue>,
    is_counted: bool,
}

impl Writer {
    /// The next job whose like is not being written now. After `None` the writer counts no more: what is added
    /// from then on begins another one.
    fn next(&mut self) -> Option<(Job, Busy)> {
        let mut state = self.queue.state.lock();
        let next = state.next();
        if next.is_none() && std::mem::take(&mut self.is_counted) {
            state.writers -= 1;
        }
        let job = next?;
        let busy = Busy { queue: Arc::clone(&self.queue), place: job.place, bytes: job.bytes };
        Some((job, busy))
    }
}

impl State {
    fn next(&mut self) -> Option<Job> {
        let is_free = |id: &Id| self.waiting.get(id).is_some_and(|job| !self.busy.contains(&job.place));
        let at = self.order.iter().position(is_free)?;
        let id = self.order.remove(at)?;
        let job = self.waiting.remove(&id)?;
        self.busy.insert(job.place);
        Some(job)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.is_counted {
            self.queue.state.lock().writers -= 1;
        }
    }
}

/// A job that is being written.
struct Busy {
    queue: Arc<Queue>,
    place: Id,
    bytes: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.queue.settled(self.place, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replaces_another_one_comes_last_and_leaves_no_place_behind() {
        let queue = Queue::new(Bounds { entries: 9, bytes: u64::MAX });
        let keys = ["/a", "/b"].map(CacheKey::new);
        let add = |key: &CacheKey| {
            let change = Change::Remove { request: Box::default() };
            queue.add(Id::of_key(key), Job::new(key, change))
        };
        let added = [&keys[0], &keys[1], &keys[0]].map(add);
        assert_eq!(added, [Added::New, Added::New, Added::Replaced]);
        let mut state = queue.state.lock();
        let order = [(); 3].map(|()| state.next().map(|job| job.into_parts().0));
        let [first, last] = keys;
        assert_eq!(order, [Some(last), Some(first), None]);
        assert!(state.order.is_empty());
    }
}
