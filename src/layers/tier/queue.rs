//! What waits to be written to the remote, within bounds.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep},
};

use super::{clock::Clock, keys::Id, lease::Lease};
use crate::{
    key::CacheKey,
    store::{AsOf, StoredResponse},
};

/// Changes that are written at a time.
const MAX_WRITERS: usize = 4;

/// How long the first writer waits, unless the queue is filling up. Otherwise it would run before those who wait for the
/// fetch: a miss of 600 KiB took 1.11 times as long as without a tier, and takes 1.01 times.
const HEAD_START: Duration = Duration::from_millis(1);

/// A writer that has not begun by then may be in a runtime that nothing drives.
const LONGEST_HEAD_START: Duration = Duration::from_millis(20);

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
    /// Until when a writer gives the response a head start, at most.
    waits_until: Option<Instant>,
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

    /// Lets tasks of the current runtime write what waits, as many as may and are needed. `may_wait`: whether there may
    /// be a response that its callers have not got yet.
    pub(super) fn run<W, F>(self: &Arc<Self>, may_wait: bool, write: W)
    where
        W: Fn(Job) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some(mut writer) = Writer::begin(self, may_wait) {
            runtime.spawn(async move {
                for other in writer.head_start().await {
                    tokio::spawn(other.run(write.clone()));
                }
                writer.run(write).await;
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
    /// It is the one that waits.
    is_waiting: bool,
}

impl Writer {
    /// Counts one more writer, if there is work for it. `None` as well while another one waits, unless the queue is
    /// filling up.
    fn begin(queue: &Arc<Queue>, may_wait: bool) -> Option<Self> {
        let mut state = queue.state.lock();
        if state.writers >= MAX_WRITERS || state.order.is_empty() {
            return None;
        }
        let is_waiting = may_wait && !state.is_filling_up(queue.bounds);
        if is_waiting {
            let now = Instant::now();
            if state.waits_until.is_some_and(|until| now < until) {
                return None;
            }
            state.waits_until = Some(now + LONGEST_HEAD_START);
        }
        state.writers += 1;
        Some(Self { queue: Arc::clone(queue), is_counted: true, is_waiting })
    }

    /// Waits, if it is the one that does, and returns the other writers that are needed then.
    async fn head_start(&mut self) -> Vec<Self> {
        if self.is_waiting {
            sleep(HEAD_START).await;
            self.is_waiting = false;
            self.queue.state.lock().waits_until = None;
        }
        let waiting = self.queue.state.lock().order.len();
        (1..waiting).map_while(|_| Self::begin(&self.queue, false)).collect()
    }

    async fn run<F: Future<Output = ()>>(mut self, write: impl Fn(Job) -> F) {
        while let Some((job, _busy)) = self.next() {
            pin!(write(job)).await;
        }
    }

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
    /// One response alone never does, whatever its size.
    fn is_filling_up(&self, bounds: Bounds) -> bool {
        let entries = self.waiting.len() + self.busy.len();
        entries > 1 && (entries > bounds.entries / 4 || self.bytes > bounds.bytes / 4)
    }

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
            let mut state = self.queue.state.lock();
            state.writers -= 1;
            state.waits_until = state.waits_until.filter(|_| !self.is_waiting);
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

    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        runtime::{Builder, Runtime},
        sync::Semaphore,
    };

    /// A queue of 40 changes and 100 bytes, whose writes wait for a permit each.
    struct Slow {
        queue: Arc<Queue>,
        begun: Arc<AtomicUsize>,
        may_go_on: Arc<Semaphore>,
    }

    impl Slow {
        fn new() -> Self {
            let queue = Arc::new(Queue::new(Bounds { entries: 40, bytes: 100 }));
            Self { queue, begun: Arc::default(), may_go_on: Arc::new(Semaphore::new(0)) }
        }

        /// Adds a change of as many bytes as its key has, and lets it be written.
        fn add(&self, key: &str) {
            let (key, change) = (CacheKey::new(key), Change::Remove { request: Box::default() });
            assert_eq!(self.queue.add(Id::of_key(&key), Job::new(&key, change)), Added::New);
            self.run(true);
        }

        fn run(&self, may_wait: bool) {
            let (begun, may_go_on) = (Arc::clone(&self.begun), Arc::clone(&self.may_go_on));
            self.queue.run(may_wait, move |_| {
                let (begun, may_go_on) = (Arc::clone(&begun), Arc::clone(&may_go_on));
                async move {
                    begun.fetch_add(1, Ordering::Relaxed);
                    may_go_on.acquire().await.unwrap().forget();
                }
            });
        }

        /// How many writes have begun, when all tasks have had their turns.
        async fn begun(&self) -> usize {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            self.begun.load(Ordering::Relaxed)
        }
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    fn tasks() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_within_the_head_start_waits_in_one_task_and_is_written_side_by_side() {
        let slow = Slow::new();
        ["/a", "/b", "/c", "/d", "/e"].iter().for_each(|key| slow.add(key));
        assert_eq!((slow.begun().await, tasks()), (0, 1));
        tokio::time::advance(HEAD_START).await;
        assert_eq!((slow.begun().await, tasks()), (MAX_WRITERS, MAX_WRITERS));
        slow.may_go_on.add_permits(5);
        slow.queue.idle().await;
        assert_eq!((slow.begun().await, tasks()), (5, 0));

        // The next one waits as the first one did.
        slow.add("/f");
        assert_eq!(slow.begun().await, 5);
        tokio::time::advance(HEAD_START).await;
        assert_eq!(slow.begun().await, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_fills_gives_no_head_start() {
        let slow = Slow::new();
        // More than a quarter of the bytes, and alone.
        slow.add(&"x".repeat(26));
        assert_eq!(slow.begun().await, 0);
        slow.add("y");
        assert_eq!((slow.begun().await, tasks()), (2, 3));

        // More than a quarter of the entries.
        let slow = Slow::new();
        (0..10_u8).for_each(|number| slow.add(&number.to_string()));
        assert_eq!(slow.begun().await, 0);
        slow.add("y");
        assert_eq!(slow.begun().await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_gives_no_head_start() {
        let slow = Slow::new();
        ["/a", "/b"].iter().for_each(|key| slow.add(key));
        slow.run(false);
        assert_eq!(slow.begun().await, 2);
    }

    #[test]
    fn a_writer_in_a_runtime_that_nothing_drives_keeps_no_other_from_writing() {
        let slow = Slow::new();
        let forgotten = runtime();
        forgotten.block_on(async { slow.add("/a") });
        slow.may_go_on.add_permits(2);
        runtime().block_on(async {
            // Its clock begins later than the other one.
            tokio::time::advance(2 * LONGEST_HEAD_START).await;
            slow.add("/b");
            tokio::time::timeout(Duration::from_secs(1), slow.queue.idle()).await.unwrap();
        });
        assert_eq!(slow.begun.load(Ordering::Relaxed), 2);
        drop(forgotten);
    }

    #[test]
    fn a_writer_whose_runtime_ends_while_it_waits_leaves_its_place_to_another_one() {
        let slow = Slow::new();
        let ended = runtime();
        ended.block_on(async { slow.add("/a") });
        drop(ended);
        slow.may_go_on.add_permits(1);
        runtime().block_on(async {
            slow.run(true);
            tokio::time::timeout(Duration::from_secs(1), slow.queue.idle()).await.unwrap();
        });
        assert_eq!(slow.begun.load(Ordering::Relaxed), 1);
    }

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
