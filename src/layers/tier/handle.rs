//! The handle to a second tier: its settings, and what all that use it share.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    breaker::Breaker,
    index::KnownIndexes,
    keys::Naming,
    queue::{Bounds, Queue},
};
#[cfg(feature = "zstd")]
use crate::store::Compression;
use crate::{
    build_error::BuildError,
    observe::{NamedCounters, TierRead, TierStanding, TierStatus, TierWait, TierWrite},
    remote::{Remote, RemoteError},
    sequence::{Journal, Sequence},
    store::{Envelope, EnvelopeError},
    trace,
};

/// A second tier; see the [module](crate::tier). A cheap handle: clones are the same tier.
///
/// It serves one store.
#[derive(Clone)]
pub struct Tier {
    shared: Arc<Shared>,
}

/// Configures a [`Tier`].
#[must_use]
pub struct TierBuilder {
    remote: Arc<dyn Remote>,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    naming: Naming,
    bounds: Bounds,
    pub(super) fetches_once: bool,
    #[cfg(feature = "zstd")]
    compression: Option<Compression>,
}

/// What came of a [flush](Tier::flush).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlushReport {
    /// Responses that were written since the flush began.
    pub written: u64,
    /// Changes that could not be written since then, or were not needed any more: see
    /// [`TierStatus::writes`](crate::TierStatus::writes).
    pub not_written: u64,
    /// Changes that still wait, or are being written.
    pub left: usize,
}

/// What all handles, layers and tasks of a tier share.
pub(super) struct Shared {
    pub(super) remote: Arc<dyn Remote>,
    pub(super) settings: Settings,
    /// That of the store which the tier serves, once a layer is made.
    sequence: OnceLock<Arc<Sequence>>,
    pub(super) indexes: KnownIndexes,
    pub(super) queue: Arc<Queue>,
    pub(super) reading: Breaker,
    pub(super) writing: Breaker,
    pub(super) reads: NamedCounters<TierRead>,
    pub(super) writes: NamedCounters<TierWrite>,
    pub(super) waits: NamedCounters<TierWait>,
    has_warned: AtomicBool,
}

/// Why a tier is not used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    NotJoined,
    Behind,
}

impl TierBuilder {
    /// Whether cache keys of up to 512 bytes stand on the remote as they are, so that operators find
    /// them there. They may hold identifiers and secrets of users. The values hold them in any case. Default: no,
    /// digests stand there.
    pub fn plain_keys(mut self, are_plain: bool) -> Self {
        self.settings.naming.is_plain = are_plain;
        self
    }

    /// How many responses wait to be written at most, those included that are being written. At the limit the
    /// newest is dropped and counted. Default: 1,024.
    pub fn max_queued(mut self, responses: usize) -> Self {
        self.settings.bounds.entries = responses;
        self
    }

    /// How many bytes they have together at most, as the store counts them. They are shared with the store for as
    /// long as they are stored there. At the limit the newest is dropped and counted. Default: 32 MiB.
    pub fn max_queued_bytes(mut self, bytes: u64) -> Self {
        self.settings.bounds.bytes = bytes;
        self
    }

    /// Compresses what is written, where that makes it smaller and the response has no `Content-Encoding`. Nodes
    /// without the feature `zstd` find nothing then. Default: none.
    #[cfg(feature = "zstd")]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = Some(compression);
        self
    }

    /// Whether nodes take turns: of several that need the same response, and have nothing stale to serve, one asks
    /// the origin, and the others look into the tier after 25, 50, 100, … ms. They do so for two seconds,
    /// [`stale_after`](crate::CoalesceLayer::stale_after), or half of
    /// [`wait_at_most`](crate::CoalesceLayer::wait_at_most) or of
    /// [`fetch_deadline`](crate::CoalesceLayer::fetch_deadline), the least of these; then they ask the origin as well. The
    /// node that asks has ten seconds for it. Default: no, each node asks the origin by itself.
    ///
    /// It takes two calls of the remote more for each fetch.
    pub fn single_fetch(mut self, take_turns: bool) -> Self {
        self.settings.fetches_once = take_turns;
        self
    }

    /// The tier, to be given to [`ReadThroughBuilder::second_tier`](crate::ReadThroughBuilder::second_tier) or
    /// [`TierLayer::new`](crate::TierLayer::new).
    ///
    /// # Errors
    ///
    /// If a limit is zero.
    pub fn build(self) -> Result<Tier, BuildError> {
        let Self { remote, settings } = self;
        let Bounds { entries, bytes } = settings.bounds;
        for (setting, is_zero) in [("max_queued", entries == 0), ("max_queued_bytes", bytes == 0)] {
            if is_zero {
                return Err(BuildError::ZeroLimit { setting, consequence: "nothing is ever written" });
            }
        }
        let shared = Shared {
            remote,
            settings,
            sequence: OnceLock::new(),
            indexes: KnownIndexes::new(),
            queue: Arc::new(Queue::new(settings.bounds)),
            reading: Breaker::new(),
            writing: Breaker::new(),
            reads: NamedCounters::default(),
            writes: NamedCounters::default(),
            waits: NamedCounters::default(),
            has_warned: AtomicBool::new(false),
        };
        Ok(Tier { shared: Arc::new(shared) })
    }
}

impl Tier {
    /// Returns a builder for a tier that keeps responses in this remote.
    pub fn builder(remote: impl Remote) -> TierBuilder {
        TierBuilder { remote: Arc::new(remote), settings: Settings::default() }
    }

    /// Returns how the tier stands, and what it has done so far.
    pub fn status(&self) -> TierStatus {
        let shared = &*self.shared;
        let (queued, queued_bytes) = shared.queue.size();
        TierStatus {
            standing: match shared.journal() {
                Ok(_) => TierStanding::Joined,
                Err(Idle::Behind) => TierStanding::Behind,
                Err(Idle::NotJoined) => TierStanding::NotJoined,
            },
            reads_breaker: shared.reading.state(),
            writes_breaker: shared.writing.state(),
            reads: shared.reads.counts(),
            writes: shared.writes.counts(),
            waits: shared.waits.counts(),
            queued,
            queued_bytes,
            remote: shared.remote.connection(),
        }
    }

    /// Writes what waits, for no longer than this: at the end of a process, when it serves no more. Responses
    /// that are stored meanwhile are written as well.
    ///
    /// What is left then is lost with the process. That costs requests to the origin, and nothing else.
    pub async fn flush(&self, within: Duration) -> FlushReport {
        let outcomes = || {
            let counts = self.shared.writes.counts();
            let written = counts.get(TierWrite::Written);
            (written, counts.total().saturating_sub(written))
        };
        let (written_before, others_before) = outcomes();
        self.shared.write_behind(false);
        // What is left then is told.
        _ = timeout(within, self.shared.queue.idle()).await;
        let ((written, others), (left, _)) = (outcomes(), self.shared.queue.size());
        FlushReport {
            written: written.saturating_sub(written_before),
            not_written: others.saturating_sub(others_before),
            left,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Lets the tier serve the store of this sequence.
    pub(super) fn serve(&self, sequence: &Arc<Sequence>) -> Result<(), BuildError> {
        let refuse = |reason| Err(BuildError::NoEffect { setting: "second_tier", reason });
        if !sequence.has_texts() {
            let reason = "the store keeps no texts of tags and URLs, so that nothing could be written; build it with \
                          `MemoryStoreBuilder::snapshots(true)`";
            return refuse(reason);
        }
        let served = self.shared.sequence.get_or_init(|| Arc::clone(sequence));
        if !Arc::ptr_eq(served, sequence) {
            return refuse("the tier serves another store; build one for each store");
        }
        sequence.keep_records();
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            naming: Naming { is_plain: false },
            bounds: Bounds { entries: 1024, bytes: 32 << 20 },
            fetches_once: false,
            #[cfg(feature = "zstd")]
            compression: None,
        }
    }
}

impl Settings {
    pub(super) fn to_bytes(self, envelope: &Envelope) -> Result<Bytes, EnvelopeError> {
        #[cfg(feature = "zstd")]
        if let Some(compression) = self.compression {
            return envelope.to_compressed_bytes(compression);
        }
        envelope.to_bytes()
    }
}

/// Waits for a call of the remote until then. It may hang, and panic at once.
pub(super) async fn until<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, RemoteError>>,
) -> Result<T, RemoteError> {
    let limit = deadline.saturating_duration_since(Instant::now());
    match timeout_at(deadline, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(RemoteError::Failed("it panicked".into())),
        Err(_) => Err(RemoteError::Timeout(limit)),
    }
}

impl Shared {
    pub(super) fn naming(&self) -> Naming {
        self.settings.naming
    }

    pub(super) fn sequence(&self) -> Option<&Arc<Sequence>> {
        self.sequence.get()
    }

    /// What is known of the purges of other nodes, if that is all of them.
    pub(super) fn journal(&self) -> Result<&Arc<dyn Journal>, Idle> {
        let sequence = self.sequence().ok_or(Idle::NotJoined)?;
        let journal = sequence.journal().ok_or(Idle::NotJoined)?;
        // It may have been silent for too long before its connection counts as lost.
        if journal.is_caught_up() && !sequence.is_cut_off() { Ok(journal) } else { Err(Idle::Behind) }
    }

    /// Counts a fetch that the tier cannot be asked for, and returns under which name.
    pub(super) fn note_idle(&self, idle: Idle) -> TierRead {
        let why = match idle {
            Idle::Behind => TierRead::Behind,
            Idle::NotJoined => TierRead::NotJoined,
        };
        self.reads.add(why);
        if idle == Idle::NotJoined && !self.has_warned.swap(true, Ordering::Relaxed) {
            trace::tier_without_cluster();
        }
        why
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").field("remote", &self.shared.remote).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for TierBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { remote, settings } = self;
        f.debug_struct("TierBuilder").field("remote", remote).field("settings", settings).finish()
    }
}

/// As the table of [defaults](crate::defaults) has them.
#[cfg(test)]
pub(crate) fn default_settings() -> Vec<crate::defaults::tests::Setting> {
    use crate::defaults::tests::switch;
    let settings = Settings::default();
    let Settings { naming, bounds, fetches_once, .. } = settings;
    vec![
        ("TierBuilder::plain_keys", switch(naming.is_plain)),
        ("TierBuilder::single_fetch", switch(fetches_once)),
        #[cfg(feature = "zstd")]
        (
            "TierBuilder::compression",
            crate::defaults::tests::option(settings.compression, |_| "some".to_owned()),
        ),
        ("TierBuilder::max_queued", bounds.entries.to_string()),
        ("TierBuilder::max_queued_bytes", format!("{} MiB", bounds.bytes >> 20)),
    ]
}
