//! What a file has done so far, for statistics.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

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
    /// Writes that failed.
    pub failed_writes: u64,
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
}

impl SnapshotFileStats {
    /// The same with the writes since an earlier moment alone.
    pub(crate) fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self.clone() };
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
}

/// The writes of a file so far.
#[derive(Debug)]
pub(super) struct Writes {
    opened_at: Instant,
    writes: u64,
    failed: u64,
    last: Option<(WriteReport, Instant)>,
    last_error: Option<String>,
}

impl Writes {
    pub(super) fn new() -> Self {
        Self { opened_at: Instant::now(), writes: 0, failed: 0, last: None, last_error: None }
    }

    /// Notes what came of a write.
    pub(super) fn note(&mut self, written: Result<&WriteReport, &SnapshotFileError>) -> News {
        match written {
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

    pub(super) fn stats(&self, load: Option<LoadReport>) -> SnapshotFileStats {
        SnapshotFileStats {
            open_for: self.opened_at.elapsed(),
            writes: self.writes,
            failed_writes: self.failed,
            last_write: self.last.map(|(report, _)| report),
            written_ago: self.last.map(|(_, at)| at.elapsed()),
            last_error: self.last_error.clone(),
            load,
        }
    }
}

/// What says how the file of a store does, if there is one.
#[derive(Default)]
pub(in crate::store) struct FileOfStore(Mutex<Option<Source>>);

type Source = Arc<dyn Fn() -> Option<SnapshotFileStats> + Send + Sync>;

impl FileOfStore {
    /// From now on this file is the one of the store.
    pub(super) fn set(&self, source: impl Fn() -> Option<SnapshotFileStats> + Send + Sync + 'static) {
        let replaced = self.0.lock().replace(Arc::new(source));
        drop(replaced);
    }

    /// `None`: none was opened, or it is open no more.
    pub(in crate::store) fn stats(&self) -> Option<SnapshotFileStats> {
        let source = self.0.lock().clone();
        source.and_then(|source| source())
    }
}

impl fmt::Debug for FileOfStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOfStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_told_once_and_so_is_their_end() {
        let (mut writes, report) = (Writes::new(), WriteReport::default());
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
        let mut writes = Writes::new();
        writes.note(Ok(&WriteReport { responses: 7, skipped: 1, bytes: 9 }));
        let earlier = writes.stats(None);
        writes.note(Ok(&WriteReport { responses: 8, skipped: 0, bytes: 10 }));
        let since = writes.stats(None).since(Some(&earlier));
        assert_eq!((since.writes, since.failed_writes), (1, 0));
        assert_eq!(since.last_write.map(|last| last.responses), Some(8), "what is so now stays");
        assert_eq!(writes.stats(None).since(None).writes, 2);
    }
}
