//! What is stored here is written to the remote, behind the response.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    clock::Clock,
    handle::{Shared, until},
    index::Index,
    keys::Id,
    lease::Lease,
    queue::{Added, Change, Job},
    read::READ_BOUND,
};
use crate::{
    http::vary::Selection,
    key::CacheKey,
    observe::TierWrite,
    remote::RemoteError,
    store::{AsOf, Envelope, StoredResponse, WriteBehind},
};

/// A remote has a bound of its own for each call. This one is for those that have not.
const WRITE_BOUND: Duration = Duration::from_secs(5);

/// An index is small, and says where responses of any lifetime are.
const LEAST_INDEX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What the fetch of one request has to do with the tier. Goes down with the request.
pub(super) struct FetchWriter {
    tier: Arc<Shared>,
    clock: Option<Clock>,
    /// Whether the tier may have something that the response takes the place of.
    may_be_there: bool,
    lease: Mutex<Option<Lease>>,
}

impl std::fmt::Debug for FetchWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchWriter").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl FetchWriter {
    pub(super) fn new(tier: &Arc<Shared>, clock: Option<Clock>, may_be_there: bool) -> Self {
        Self { tier: Arc::clone(tier), clock, may_be_there, lease: Mutex::default() }
    }

    pub(super) fn holding(self, lease: Option<Lease>) -> Self {
        Self { lease: Mutex::new(lease), ..self }
    }

    /// Nothing will be stored: another node may fetch.
    pub(super) fn end_turn(&self) {
        let lease = self.lease.lock().take();
        drop(lease);
    }
}

impl WriteBehind for FetchWriter {
    fn stored(&self, key: &CacheKey, response: &Arc<StoredResponse>) {
        let lease = self.lease.lock().take();
        let Ok(journal) = self.tier.journal() else { return self.tier.writes.add(TierWrite::Behind) };
        // Of the beginning of the fetch, and not of now.
        let Some(as_of) = journal.as_of(response.fetch_number()) else {
            return self.tier.writes.add(TierWrite::Undated);
        };
        if let Some(selection) = response.selection() {
            self.tier.indexes.learn(key, selection.fields());
        }
        let (id, response) = (Id::of(key, response.selection()), Arc::clone(response));
        self.tier.enqueue(id, key, Change::Write { response, as_of, clock: self.clock, lease });
    }

    fn superseded(&self, key: &CacheKey, request: &HeaderMap) {
        if self.may_be_there && self.tier.journal().is_ok() {
            let request = Box::new(request.clone());
            self.tier.enqueue(Id::of_key(key), key, Change::Remove { request });
        }
    }
}

impl Shared {
    fn enqueue(self: &Arc<Self>, id: Id, key: &CacheKey, change: Change) {
        match self.queue.add(id, Job::new(key, change)) {
            Added::New => {}
            Added::Replaced => self.writes.add(TierWrite::Replaced),
            Added::Full => self.writes.add(TierWrite::QueueFull),
        }
        self.write_behind(true);
    }

    /// Lets tasks write what waits. `may_wait`: whether a response that is on its way comes first.
    pub(super) fn write_behind(self: &Arc<Self>, may_wait: bool) {
        let tier = Arc::clone(self);
        self.queue.run(may_wait, move |job| {
            let tier = Arc::clone(&tier);
            async move {
                let mut counted = Counted { tier: &tier, outcome: TierWrite::Aborted };
                counted.outcome = tier.perform(job).await;
            }
        });
    }

    async fn perform(&self, job: Job) -> TierWrite {
        let (key, change) = job.into_parts();
        match change {
            Change::Remove { request } => self.remove(&key, &request).await,
            Change::Write { response, as_of, clock, lease } => {
                let outcome = self.write(&key, &response, as_of, clock).await;
                drop(lease);
                outcome
            }
        }
    }

    async fn write(
        &self,
        key: &CacheKey,
        response: &StoredResponse,
        as_of: AsOf,
        clock: Option<Clock>,
    ) -> TierWrite {
        if self.journal().is_err() {
            return TierWrite::Behind;
        }
        let Some(clock) = self.clock_for_writing(clock).await else { return TierWrite::Failed };
        let (now, naming) = (Instant::now(), self.naming());
        let lifetime = response.expires_at().saturating_duration_since(now);
        if lifetime.is_zero() {
            return TierWrite::Expired;
        }
        let bytes = match self.envelope(key, response, as_of, clock) {
            Ok(bytes) => bytes,
            Err(why) => return why,
        };
        if response.selection().is_some() {
            let index = self.indexes.of(key);
            let lifetime = lifetime.max(LEAST_INDEX_LIFETIME);
            let written = self.put(&naming.index(key), index.to_bytes(key).into(), lifetime).await;
            if written != TierWrite::Written {
                return written;
            }
        }
        self.put(&naming.variant(key, response.selection()), bytes, lifetime).await
    }

    /// The clock that the fetch has read, or else that of now: what came before the answer is no younger by it.
    async fn clock_for_writing(&self, clock: Option<Clock>) -> Option<Clock> {
        match clock {
            Some(clock) => Some(clock),
            None => self.read(&[], Instant::now() + READ_BOUND).await.ok().map(|(_, clock)| clock),
        }
    }

    fn envelope(
        &self,
        key: &CacheKey,
        response: &StoredResponse,
        as_of: AsOf,
        clock: Clock,
    ) -> Result<Bytes, TierWrite> {
        let sequence = self.sequence().ok_or(TierWrite::Behind)?;
        let snapshot = response.snapshot(sequence, clock.for_writing()).ok_or(TierWrite::Purged)?;
        if snapshot.is_unproven || snapshot.stale_after.is_some() {
            return Err(TierWrite::Purged);
        }
        let envelope = Envelope::new(key.clone(), snapshot).with_as_of(Some(as_of));
        self.settings.to_bytes(&envelope).map_err(|_| TierWrite::TooLarge)
    }

    async fn put(&self, key: &[u8], bytes: Bytes, lifetime: Duration) -> TierWrite {
        self.within_bound(async { self.remote.write(key, bytes, lifetime).await }, TierWrite::Written).await
    }

    /// Removes all that the tier may have for a request with these fields. Which there are another node may know,
    /// and has written there.
    async fn remove(&self, key: &CacheKey, request: &HeaderMap) -> TierWrite {
        let naming = self.naming();
        if let Ok((read, _)) = self.read(&[naming.index(key)], Instant::now() + READ_BOUND).await {
            let there = read.values.into_iter().flatten().find_map(|bytes| Index::parse(&bytes, key));
            let sets = there.iter().flat_map(Index::sets);
            sets.rev().for_each(|names| self.indexes.learn(key, names));
        }
        let index = self.indexes.of(key);
        let selections = index.sets().iter().map(|names| Some(Selection::new(names, request)));
        let selections: Vec<_> = std::iter::once(None).chain(selections).collect();
        for selection in selections {
            let key = naming.variant(key, selection.as_ref());
            let removed =
                self.within_bound(async { self.remote.forget(&key).await }, TierWrite::Removed).await;
            if removed != TierWrite::Removed {
                return removed;
            }
        }
        TierWrite::Removed
    }

    async fn within_bound(
        &self,
        call: impl Future<Output = Result<(), RemoteError>>,
        done: TierWrite,
    ) -> TierWrite {
        let Some(breaker) = self.writing.call() else { return TierWrite::Open };
        match until(Instant::now() + WRITE_BOUND, call).await {
            Ok(()) => {
                breaker.succeeded();
                done
            }
            Err(error) => {
                breaker.failed();
                if matches!(error, RemoteError::Timeout(_)) { TierWrite::Timeout } else { TierWrite::Failed }
            }
        }
    }
}

/// Counts a change when it is dropped, also where its task is.
struct Counted<'a> {
    tier: &'a Shared,
    outcome: TierWrite,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.tier.writes.add(self.outcome);
    }
}
