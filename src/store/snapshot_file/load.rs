//! The file is loaded. Blocks the thread.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::PathBuf,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    Settings, Shared,
    format::{END, END_BYTES, FILE_HEADER_BYTES, FileHeader, end},
};
use crate::{
    http::not_stored::NotStored,
    key::CacheKey,
    store::{
        self, Store,
        envelope::{HEADER_BYTES, Header},
    },
};

/// What came of loading a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct LoadReport {
    /// Responses that are in the store now.
    pub loaded: u64,
    /// Responses that were not needed: their windows are over, they were purged since the process began, or
    /// something newer is stored.
    pub unneeded: u64,
    /// Responses that cannot be used here: they are too large for the store, or have a URL that cannot be
    /// read.
    pub skipped: u64,
    /// When the file was written, as far as it could be read. Serialised, in seconds since 1970.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "written_at_seconds", serialize_with = "since_1970")
    )]
    pub written_at: Option<SystemTime>,
    /// Why the load ended.
    pub end: LoadEnd,
}

/// Why a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadEnd {
    /// All of the file was read.
    Complete,
    /// There is no file.
    Missing,
    /// The file was written under another [namespace](super::SnapshotFileBuilder::namespace).
    OtherNamespace,
    /// The store is full. What the file had first was served last.
    Full,
    /// The file is damaged, cut, or was written by another version. All before that place was read.
    Bad(store::EnvelopeError),
    /// The file could not be read.
    Io(io::ErrorKind),
    /// The last handle was dropped, the runtime was shut down, or what loads has panicked.
    Aborted,
}

impl LoadReport {
    fn new(end: LoadEnd) -> Self {
        Self { loaded: 0, unneeded: 0, skipped: 0, written_at: None, end }
    }

    pub(super) fn aborted() -> Self {
        Self::new(LoadEnd::Aborted)
    }
}

impl LoadEnd {
    /// Returns its name, in kebab case. It does not change between versions. Of a [bad](Self::Bad) file it is
    /// [that of the error](store::EnvelopeError::as_str).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Missing => "missing",
            Self::OtherNamespace => "other-namespace",
            Self::Full => "full",
            Self::Bad(error) => error.as_str(),
            Self::Io(_) => "io",
            Self::Aborted => "aborted",
        }
    }

    /// All names.
    #[cfg(feature = "metrics")]
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        let io = Self::Io(io::ErrorKind::Other);
        let others =
            [Self::Complete, Self::Missing, Self::OtherNamespace, Self::Full, io, Self::Aborted].into_iter();
        others.map(Self::as_str).chain(store::EnvelopeError::ALL.map(store::EnvelopeError::as_str))
    }

    /// Whether nothing is wrong with the file.
    pub(super) const fn is_expected(self) -> bool {
        !matches!(self, Self::Bad(_) | Self::Io(_))
    }
}

#[cfg(any(feature = "serde", feature = "dashboard"))]
impl serde::Serialize for LoadEnd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(any(feature = "serde", feature = "dashboard"))]
#[allow(clippy::ref_option, reason = "as serde calls it")]
fn since_1970<S: serde::Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let since = at.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    crate::reasons::maybe_seconds(&since, serializer)
}

impl From<store::EnvelopeError> for LoadEnd {
    fn from(error: store::EnvelopeError) -> Self {
        Self::Bad(error)
    }
}

impl From<io::Error> for LoadEnd {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            // It was cut since its length was read.
            io::ErrorKind::UnexpectedEof => Self::Bad(store::EnvelopeError::Length),
            kind => Self::Io(kind),
        }
    }
}

/// How long a node of a cluster waits for the log before it loads a file. After that, what it loads is
/// unproven.
const JOIN_AT_MOST: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// Records between two looks at whether the load is still wanted.
const BATCH: u64 = 1000;

pub(super) struct Load {
    store: store::MemoryStore,
    path: PathBuf,
    namespace: String,
    trusts_freshness: bool,
    /// From before anything is read: purges from now on reach all that is loaded, and what is fetched from
    /// now on is newer.
    loading: store::Loading,
    evictions: u64,
    wanted: Weak<Shared>,
}

impl Load {
    pub(super) fn new(store: &store::MemoryStore, settings: &Settings, wanted: Weak<Shared>) -> Self {
        Self {
            loading: store.sequence().begin_load(),
            evictions: store.stats().evictions,
            store: store.clone(),
            path: settings.path.clone(),
            namespace: settings.namespace.clone(),
            trusts_freshness: settings.trusts_freshness,
            wanted,
        }
    }

    pub(super) fn run(&self) -> LoadReport {
        self.wait_for_purges();
        let mut report = LoadReport::new(LoadEnd::Complete);
        if let Err(end) = self.read_file(&mut report) {
            report.end = end;
        }
        report
    }

    /// In a cluster: until it is known what was purged, but not for long.
    fn wait_for_purges(&self) {
        let Some(journal) = self.store.sequence().journal() else { return };
        let waited = std::iter::repeat_n(LOOK, (JOIN_AT_MOST.as_millis() / LOOK.as_millis()) as usize);
        for pause in waited {
            if journal.is_caught_up() || self.wanted.strong_count() == 0 {
                return;
            }
            std::thread::sleep(pause);
        }
    }

    /// The number of the fetch for which a response stands, and whether nothing is known of what was purged
    /// since.
    fn begun(&self, as_of: Option<store::AsOf>) -> (u64, bool) {
        let Some(journal) = self.store.sequence().journal() else {
            return (self.loading.number(), !self.trusts_freshness);
        };
        // Before the first purge: all that are known count.
        let begun = as_of.and_then(|as_of| journal.begun(as_of));
        (begun.unwrap_or(0), begun.is_none())
    }

    fn read_file(&self, report: &mut LoadReport) -> Result<(), LoadEnd> {
        let mut source = Source::open(File::open(&self.path)?)?;
        let first = source.array::<FILE_HEADER_BYTES>()?;
        let header = FileHeader::parse(&first)?;
        let namespace = source.bytes(header.namespace_bytes())?;
        report.written_at = Some(header.written_at(&namespace)?);
        if namespace != self.namespace.as_bytes() {
            return Err(LoadEnd::OtherNamespace);
        }
        let mut read = 0_u64;
        while let Some(envelope) = source.next_envelope(self.store.max_response_bytes(), read)? {
            read += 1;
            match envelope {
                Some(envelope) => self.store(envelope, report)?,
                None => report.skipped += 1,
            }
            if read.is_multiple_of(BATCH) {
                if self.wanted.strong_count() == 0 {
                    return Err(LoadEnd::Aborted);
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Whether the store has the same of a later time. Numbers alone do not tell: a purge since that fetch,
    /// before the load began, makes the load look later.
    fn has_newer(&self, key: &CacheKey, response: &store::StoredResponse) -> bool {
        self.store.peek(key.as_bytes()).is_some_and(|entry| {
            let is_same = |stored: &store::StoredResponse| stored.selection() == response.selection();
            entry
                .variants()
                .iter()
                .any(|stored| is_same(stored) && stored.received_at() > response.received_at())
        })
    }

    fn store(&self, envelope: store::Envelope, report: &mut LoadReport) -> Result<(), LoadEnd> {
        let ((begun, is_unproven), now) = (self.begun(envelope.as_of()), store::Moment::now());
        let (key, mut snapshot) = envelope.into_parts();
        snapshot.is_unproven |= is_unproven;
        let Ok(response) = snapshot.restore_as(begun, &key, &self.loading, now) else {
            report.skipped += 1;
            return Ok(());
        };
        if self.has_newer(&key, &response) {
            report.unneeded += 1;
            return Ok(());
        }
        let (stats, needed) = (self.store.stats(), (key.as_bytes().len() + response.bytes()) as u64);
        let is_full =
            stats.evictions > self.evictions || stats.bytes.saturating_add(needed) > stats.capacity_bytes;
        if is_full {
            return Err(LoadEnd::Full);
        }
        let (response, request) = (Arc::new(response), store::RequestHeaders::default());
        match self.store.apply(&key, store::Change::Put { response, request, at: now.instant }) {
            store::Applied::Stored => report.loaded += 1,
            store::Applied::NotStored(NotStored::TooLarge) => report.skipped += 1,
            _ => report.unneeded += 1,
        }
        Ok(())
    }
}

/// A file, and how much of it is left.
struct Source {
    file: BufReader<File>,
    rest: u64,
}

impl Source {
    fn open(file: File) -> io::Result<Self> {
        let rest = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(1 << 20, file), rest })
    }

    /// An error before anything is allocated, if there is less.
    fn take(&mut self, length: usize) -> Result<(), store::EnvelopeError> {
        self.rest = self.rest.checked_sub(length as u64).ok_or(store::EnvelopeError::Length)?;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LoadEnd> {
        self.take(N)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, LoadEnd> {
        self.take(length)?;
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// `None` behind the last of them, if there were `read`; `Some(None)` for one with a larger body.
    fn next_envelope(
        &mut self,
        max_body: usize,
        read: u64,
    ) -> Result<Option<Option<store::Envelope>>, LoadEnd> {
        if self.rest == END_BYTES as u64 {
            let bytes = self.array::<END_BYTES>()?;
            return match bytes[..] == end(read) {
                true => Ok(None),
                false if bytes.starts_with(&END) => Err(store::EnvelopeError::Checksum.into()),
                false => Err(store::EnvelopeError::Length.into()),
            };
        }
        let first = self.array::<HEADER_BYTES>()?;
        let header = Header::parse(&first, usize::try_from(self.rest).unwrap_or(usize::MAX))?;
        let length = header.envelope_bytes().saturating_sub(HEADER_BYTES);
        if header.body_bytes() > max_body {
            self.take(length)?;
            self.file.seek_relative(i64::try_from(length).map_err(|_| store::EnvelopeError::Length)?)?;
            return Ok(Some(None));
        }
        self.take(length)?;
        let mut bytes = vec![0; HEADER_BYTES + length];
        let (start, rest) = bytes.split_at_mut(HEADER_BYTES);
        start.copy_from_slice(&first);
        self.file.read_exact(rest)?;
        Ok(Some(Some(store::Envelope::parse(&Bytes::from(bytes), max_body)?)))
    }
}
