//! What a file has done so far, for statistics.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::{LoadReport, SnapshotFileError, WriteReport};

/// What a [`SnapshotFile`](super::SnapshotFile) has done so far.
///
/// By [`SnapshotFile::stats`](super::SnapshotFile::stats), and in the
/// [numbers](crate::StatsSnapshot::snapshot_file) of a cache with its store. Serialised (feature `serde`), times are in
/// seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct SnapshotFileStats {
    /// For how long it has been open.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "open_seconds", serialize_with = "crate::reasons::seconds")
    )]
    pub open_for: Duration,
    /// Files that were written.
    pub writes: u64,
    /// Writes that failed. Those that [wait for the lock](Self::waits_for_lock) have not.
    pub failed_writes: u64,
    /// Whether another process had the file when it was opened or was last to be written. It is written once that
    /// process has ended: see [`overlapping`](super::SnapshotFileBuilder::overlapping).
    pub waits_for_lock: bool,
    /// The last file that was written.
    pub last_write: Option<WriteReport>,
    /// How long ago that was. `None`: none was written yet.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "written_seconds_ago", serialize_with = "crate::reasons::maybe_seconds")
    )]
    pub written_ago: Option<Duration>,
    /// Why the last write failed, if no other one has succeeded since.
    pub last_error: Option<String>,
    /// What came of loading the file. `None`: it is still being loaded.
    pub load: Option<LoadReport>,
    /// Tells it from other files of the store.
    #[cfg_attr(any(feature = "serde", feature = "dashboard"), serde(skip))]
    opened_at: Option<Instant>,
}

impl SnapshotFileStats {
    /// The same with the writes since an earlier moment alone; of a file that was opened since, all of them.
    pub(crate) fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier.filter(|earlier| earlier.opened_at == self.opened_at) else {
            return self.clone();
        };
        Self {
            writes: self.writes.saturating_sub(earlier.writes),
            failed_writes: self.failed_writes.saturating_sub(earlier.failed_writes),
            ..self.clone()
        }
    }
}

/// What a file does after a write, in comparison with the write before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    None,
    FailsNow,
    WorksAgain,
    /// Another process has the file.
    Waits,
}

/// The writes of a file so far.
#[derive(Debug)]
struct Writes {
    opened_at: Instant,
    writes: u64,
    failed: u64,
    waits_for_lock: bool,
    last: Option<(WriteReport, Instant)>,
    last_error: Option<String>,
}

impl Writes {
    fn new(waits_for_lock: bool) -> Self {
        Self { opened_at: Instant::now(), writes: 0, failed: 0, waits_for_lock, last: None, last_error: None }
    }

    fn note(&mut self, written: Result<&WriteReport, &SnapshotFileError>) -> News {
        self.waits_for_lock = matches!(written, Err(SnapshotFileError::InUse(_)));
        match written {
            _ if self.waits_for_lock => News::Waits,
            Ok(report) => {
                self.writes = self.writes.saturating_add(1);
                self.last = Some((*report, Instant::now()));
                self.last_error.take().map_or(News::None, |_| News::WorksAgain)
            }
            Err(error) => {
                self.failed = self.failed.saturating_add(1);
                self.last_error.replace(error.to_string()).map_or(News::FailsNow, |_| News::None)
            }
        }
    }

    fn stats(&self, load: Option<LoadReport>) -> SnapshotFileStats {
        SnapshotFileStats {
            open_for: self.opened_at.elapsed(),
            writes: self.writes,
            failed_writes: self.failed,
            waits_for_lock: self.waits_for_lock,
            last_write: self.last.map(|(report, _)| report),
            written_ago: self.last.map(|(_, at)| at.elapsed()),
            last_error: self.last_error.clone(),
            load,
            opened_at: Some(self.opened_at),
        }
    }
}

/// What a file has done so far. A reader may keep this for a moment longer than the file is open, so it has neither
/// the lock nor the store.
#[derive(Debug)]
pub(super) struct Progress {
    loaded: watch::Receiver<Option<LoadReport>>,
    writes: Mutex<Writes>,
}

impl Progress {
    /// Of a file that is opened now, and whose load reports to the other end.
    pub(super) fn new(loaded: watch::Receiver<Option<LoadReport>>, waits_for_lock: bool) -> Self {
        Self { loaded, writes: Mutex::new(Writes::new(waits_for_lock)) }
    }

    /// Waits for the end of the load.
    pub(super) async fn loaded(&self) -> LoadReport {
        // An error: what loads has ended without a report.
        _ = self.loaded.clone().wait_for(Option::is_some).await;
        self.load().unwrap_or_else(LoadReport::aborted)
    }

    /// Notes what came of a write.
    pub(super) fn note(&self, written: Result<&WriteReport, &SnapshotFileError>) -> News {
        self.writes.lock().note(written)
    }

    pub(super) fn stats(&self) -> SnapshotFileStats {
        let load = self.load();
        self.writes.lock().stats(load)
    }

    /// What came of the load. `None`: it goes on.
    fn load(&self) -> Option<LoadReport> {
        // Asked first: the last thing that what loads does is to report.
        let has_ended = self.loaded.has_changed().is_err();
        let report = self.loaded.borrow().clone();
        report.or_else(|| has_ended.then(LoadReport::aborted))
    }
}

/// The file of a store, if there is one.
#[derive(Debug, Default)]
pub(in crate::store) struct FileOfStore(Mutex<Weak<Progress>>);

impl FileOfStore {
    /// From now on this file is the one of the store.
    pub(super) fn set(&self, file: &Arc<Progress>) {
        *self.0.lock() = Arc::downgrade(file);
    }

    /// `None`: none was opened, or it is open no more.
    pub(in crate::store) fn stats(&self) -> Option<SnapshotFileStats> {
        self.current().map(|file| file.stats())
    }

    fn current(&self) -> Option<Arc<Progress>> {
        self.0.lock().upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, SnapshotFile};

    #[test]
    fn failures_in_a_row_are_told_once_and_so_is_their_end() {
        let (mut writes, report) = (Writes::new(false), WriteReport::default());
        let good = || Ok(&report);
        let error = SnapshotFileError::Aborted;
        let bad = || Err(&error);
        let told = [good(), bad(), bad(), good(), good(), bad()].map(|written| writes.note(written));
        let expected = [News::None, News::FailsNow, News::None, News::WorksAgain, News::None, News::FailsNow];
        assert_eq!(told, expected);
        let stats = writes.stats(None);
        assert_eq!((stats.writes, stats.failed_writes, stats.last_write), (3, 3, Some(report)));
        assert_eq!(stats.last_error, Some(error.to_string()));
    }

    #[test]
    fn what_was_written_since_an_earlier_moment_is_a_difference() {
        let mut writes = Writes::new(false);
        writes.note(Ok(&WriteReport { responses: 7, skipped: 1, bytes: 9 }));
        let earlier = writes.stats(None);
        writes.note(Ok(&WriteReport { responses: 8, skipped: 0, bytes: 10 }));
        let since = writes.stats(None).since(Some(&earlier));
        assert_eq!((since.writes, since.failed_writes), (1, 0));
        assert_eq!(since.last_write.map(|last| last.responses), Some(8), "what is so now stays");
        assert_eq!(writes.stats(None).since(None).writes, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_was_opened_since_is_counted_from_its_beginning() {
        let written = |times: u32| {
            let mut writes = Writes::new(false);
            (0..times).for_each(|_| _ = writes.note(Ok(&WriteReport::default())));
            writes
        };
        let first = written(5);
        tokio::time::advance(Duration::from_secs(1)).await;
        let (earlier, second) = (first.stats(None), written(2));
        // It has been open for longer than the first one was.
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(second.stats(None).since(Some(&earlier)).writes, 2);
    }

    /// Or a file that was closed could not be opened at once.
    #[tokio::test]
    async fn a_reader_of_the_numbers_does_not_keep_the_lock() {
        let path = std::env::temp_dir().join(format!("trt-lock-{}", std::process::id()));
        let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
        let open = || SnapshotFile::builder(store.clone(), &path).open();
        let file = open().unwrap();
        let reader = store.file().current();
        assert!(reader.is_some() && open().is_err());
        drop(file);
        assert!(open().is_ok());
        drop(reader);
        std::fs::remove_file(super::super::lock::beside(&path, ".lock")).unwrap();
    }
}
