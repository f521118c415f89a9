//! What stands in a store, in a file that outlives the process.
//!
//! A [`SnapshotFile`] writes a [`MemoryStore`] to one file, at an interval and whenever it is told to, and
//! loads it when the next process starts.
//!
//! * **What is loaded is [unproven](StoredResponse::is_unproven).** It is not known what was purged since the
//!   file was written, so the origin has to confirm each response before it is used. Where it has validators,
//!   that is a 304 instead of the whole. If the fetch fails, what was loaded covers for it as long as its
//!   windows say, so that a process that starts while its origin is down has something to serve.
//!   [`trust_freshness`](SnapshotFileBuilder::trust_freshness) gives that up.
//! * **In a cluster** each response says up to where the log of purges was applied when it was fetched. A node
//!   that has joined before it opens the file, and has read the log, uses at once what nothing has purged since;
//!   what was purged is not loaded, and only what the log does not reach back to is unproven.
//! * **Writing** goes to a second file beside it, which is synced and then renamed: at each moment the file
//!   is one whole snapshot. What was served last is written first. Responses that are purged, expired or parts
//!   (206) are left out.
//! * **Loading** runs in the background. What is fetched meanwhile is newer and stays, purges reach what is
//!   loaded after them, and it ends where the store is full. Each response has a checksum: the first bad one
//!   ends the load, and all before it counts.
//! * **One process** writes a file. Another one that opens it is refused; see
//!   [`overlapping`](SnapshotFileBuilder::overlapping). It is locked by a file beside it. On Unix that
//!   file stays, and the lock ends with the process, however that ends. On other systems the file is the lock: after a
//!   crash it has to be removed by hand.
//! * **The file holds whole responses**, and only its owner can read it. It belongs on a local disk.
//!
//! The store has to [keep the texts](crate::MemoryStoreBuilder::snapshots) of what purges compare.
//!
//! ```
//! use tower_readthrough::{MemoryStore, store::SnapshotFile};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("trt-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let path = directory.join("cache");
//! let store = MemoryStore::builder(64 << 20).snapshots(true).build()?;
//! let file = SnapshotFile::builder(store.clone(), &path).namespace("shop 1").open()?;
//! // … serve with the store. When the process is told to end:
//! let written = file.write().await?;
//! assert_eq!(written.responses, 0);
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(())
//! # }
//! ```

mod format;
mod load;
mod lock;
mod status;
mod write;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

pub(in crate::store) use self::status::FileOfStore;
pub use self::{
    load::{LoadEnd, LoadReport},
    status::SnapshotFileStats,
    write::WriteReport,
};
use self::{
    lock::FileLock,
    status::{News, Progress},
};
#[cfg(doc)]
use crate::store::StoredResponse;
use crate::{
    store::{MemoryStore, Store},
    trace,
};

/// A file with what stands in a [`MemoryStore`]; see the [module](crate::store::snapshot_file).
///
/// A clone is a handle to the same. The last one that is dropped ends the load and the interval, and gives up
/// the lock; nothing is written then.
#[derive(Clone)]
pub struct SnapshotFile {
    shared: Arc<Shared>,
}

/// Configures a [`SnapshotFile`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SnapshotFileBuilder {
    store: MemoryStore,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    path: PathBuf,
    namespace: String,
    every: Option<Duration>,
    trusts_freshness: bool,
    is_overlapping: bool,
}

/// Why a [`SnapshotFile`] cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotFileError {
    /// Another process writes the file, or another handle in this one.
    #[error(
        "{} is in use by another process: give each process a file of its own, or let it wait for the other \
         one with `overlapping`", .0.display()
    )]
    InUse(PathBuf),
    /// The store does not keep what a snapshot needs.
    #[error("the store keeps no texts of tags and URLs: build it with `MemoryStoreBuilder::snapshots(true)`")]
    NoTexts,
    /// A setting is invalid.
    #[error("`{setting}` {reason}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it, and what to change.
        reason: &'static str,
    },
    /// Files are read and written by tasks.
    #[error("there is no tokio runtime: open the file inside one")]
    NoRuntime,
    /// The file system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// The runtime was shut down meanwhile.
    #[error("the write was given up, since the runtime ends")]
    Aborted,
}

struct Shared {
    store: MemoryStore,
    settings: Settings,
    /// `None` for as long as another process has it.
    lock: Mutex<Option<FileLock>>,
    /// Held while the file is written.
    writing: Arc<tokio::sync::Mutex<()>>,
    progress: Arc<Progress>,
}

/// A longer one cannot be written.
const MAX_NAMESPACE_BYTES: usize = 1024;

impl SnapshotFileBuilder {
    /// What the file is about. One that was written under another name is not loaded, and replaced by the
    /// next write. Change it when key rules change so that a key means something else. At most 1,024 bytes.
    /// Default: empty.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.settings.namespace = name.into();
        self
    }

    /// Writes the file again and again, with this pause between two writes: at most so much is lost with a
    /// process that is killed. Default: it is written only by [`SnapshotFile::write`].
    pub fn every(mut self, pause: Duration) -> Self {
        self.settings.every = Some(pause);
        self
    }

    /// Uses what is loaded for as long as it is fresh, without asking the origin first. **Purges since the
    /// file was written are lost**: those of other processes, those while no process ran, and those after the
    /// last write of this one. For responses that nothing purges. Refused where the store is part of a cluster, and
    /// a store that does this can join none. Default: what is loaded is [unproven](StoredResponse::is_unproven).
    pub fn trust_freshness(mut self) -> Self {
        self.settings.trusts_freshness = true;
        self
    }

    /// Whether the file may be opened while another process has it, such as the one before this one, which
    /// still has requests to finish. Then it is loaded at once, and written once the other process has ended: before
    /// that the interval [waits](SnapshotFileStats::waits_for_lock), and [`write`](SnapshotFile::write) returns
    /// [`InUse`](SnapshotFileError::InUse). Default: no, and [`open`](Self::open) refuses.
    pub fn overlapping(mut self, is_allowed: bool) -> Self {
        self.settings.is_overlapping = is_allowed;
        self
    }

    /// Opens the file, and begins to load it in the background if there is one.
    ///
    /// # Errors
    ///
    /// If another process has the file, if the store keeps no texts, if a setting is invalid, if the lock
    /// cannot be made, or outside of a tokio runtime. What is wrong with the content of the file is no error:
    /// see [`loaded`](SnapshotFile::loaded).
    pub fn open(self) -> Result<SnapshotFile, SnapshotFileError> {
        let Self { store, settings } = self;
        settings.check(&store)?;
        let runtime = Handle::try_current().map_err(|_| SnapshotFileError::NoRuntime)?;
        let lock = FileLock::take(&settings.path)?;
        if lock.is_none() && !settings.is_overlapping {
            return Err(SnapshotFileError::InUse(settings.path));
        }
        if settings.trusts_freshness && !store.sequence().keep_no_journal() {
            let reason = "loses purges of other nodes: leave it out where the store is part of a cluster";
            return Err(SnapshotFileError::Setting { setting: "trust_freshness", reason });
        }
        let (report, loaded) = watch::channel(None);
        let progress = Arc::new(Progress::new(loaded, lock.is_none()));
        store.file().set(&progress);
        let (lock, writing) = (Mutex::new(lock), Arc::default());
        let shared = Arc::new(Shared { store, settings, lock, writing, progress });
        let load = load::Load::new(&shared.store, &shared.settings, Arc::downgrade(&shared));
        let path = shared.settings.path.clone();
        runtime.spawn_blocking(move || {
            let loaded = load.run();
            let (end, count) = (loaded.end, loaded.loaded);
            // First: a subscriber of events, which may panic, is code of the application.
            report.send_replace(Some(loaded));
            trace::file_loaded(&path, end.as_str(), end.is_expected(), count);
        });
        if let Some(every) = shared.settings.every {
            runtime.spawn(write_every(every, Arc::downgrade(&shared)));
        }
        Ok(SnapshotFile { shared })
    }
}

impl Settings {
    fn check(&self, store: &MemoryStore) -> Result<(), SnapshotFileError> {
        let refuse = |setting, reason| Err(SnapshotFileError::Setting { setting, reason });
        if self.every == Some(Duration::ZERO) {
            return refuse("every", "is zero, so that it would do nothing but write: give it a longer time");
        }
        if self.namespace.len() > MAX_NAMESPACE_BYTES {
            return refuse("namespace", "has more than 1,024 bytes: give it a shorter one");
        }
        if self.path.file_name().is_none() {
            return refuse("path", "does not name a file: add one to the directory");
        }
        if !store.sequence().has_texts() {
            return Err(SnapshotFileError::NoTexts);
        }
        Ok(())
    }
}

impl SnapshotFile {
    /// Returns a builder for a file of what stands in a store.
    pub fn builder(store: MemoryStore, path: impl AsRef<Path>) -> SnapshotFileBuilder {
        let settings = Settings {
            path: path.as_ref().to_owned(),
            namespace: String::new(),
            every: None,
            trusts_freshness: false,
            is_overlapping: false,
        };
        SnapshotFileBuilder { store, settings }
    }

    /// Writes all that stands in the store, and returns when it is on disk. A load that is still under way is
    /// awaited first, so that nothing is lost of what it has not come to yet.
    ///
    /// If this is dropped, a write that has begun goes on.
    ///
    /// # Errors
    ///
    /// If the file system refuses, or another process has the file. Then the file is what it was.
    pub async fn write(&self) -> Result<WriteReport, SnapshotFileError> {
        self.loaded().await;
        let turn = Arc::clone(&self.shared.writing).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        let written = tokio::task::spawn_blocking(move || {
            let written = shared.write();
            drop(turn);
            written
        });
        written.await.unwrap_or(Err(SnapshotFileError::Aborted))
    }

    /// Waits for the end of the load, and returns what came of it.
    pub async fn loaded(&self) -> LoadReport {
        self.shared.progress.loaded().await
    }

    /// Returns what it has done so far. The [statistics](crate::StatsSnapshot::snapshot_file) of a cache with this store
    /// say the same; of several files of one store, of the one that was opened last.
    pub fn stats(&self) -> SnapshotFileStats {
        self.shared.progress.stats()
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.shared.settings.path
    }
}

impl Shared {
    fn write(&self) -> Result<WriteReport, SnapshotFileError> {
        let written = self.take_lock().and_then(|()| write::write(&self.store, &self.settings));
        match (self.progress.note(written.as_ref()), &written) {
            (News::FailsNow, Err(error)) => trace::file_not_written(error),
            (News::Waits, _) => trace::file_in_use(&self.settings.path),
            (News::WorksAgain, _) => trace::file_written_again(&self.settings.path),
            _ => {}
        }
        written
    }

    fn take_lock(&self) -> Result<(), SnapshotFileError> {
        let mut lock = self.lock.lock();
        if lock.is_none() {
            *lock = FileLock::take(&self.settings.path)?;
        }
        match *lock {
            Some(_) => Ok(()),
            None => Err(SnapshotFileError::InUse(self.settings.path.clone())),
        }
    }
}

/// Writes until the last handle is dropped. What fails is in the [statistics](SnapshotFile::stats), and is
/// tried again after the next pause.
async fn write_every(pause: Duration, shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        _ = SnapshotFile { shared }.write().await;
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> SnapshotFileError {
    move |source| SnapshotFileError::Io { path: path.to_owned(), source }
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotFile").field("path", &self.path()).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl SnapshotFileBuilder {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::{option, span, switch};
        let Settings { path: _, namespace, every, trusts_freshness, is_overlapping } = &self.settings;
        let name = if namespace.is_empty() { "empty" } else { "some" };
        vec![
            ("SnapshotFileBuilder::namespace", name.to_owned()),
            ("SnapshotFileBuilder::every", option(*every, span)),
            ("SnapshotFileBuilder::trust_freshness", switch(*trusts_freshness)),
            ("SnapshotFileBuilder::overlapping", switch(*is_overlapping)),
        ]
    }
}
