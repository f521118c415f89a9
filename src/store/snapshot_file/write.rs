//! The file is written. Blocks the thread.

use std::{
    cmp::Reverse,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use super::{
    Settings, SnapshotFileError, format, io_error,
    lock::{beside, private},
};
use crate::{
    key::CacheKey,
    store::{Envelope, MemoryStore, Moment, Store, StoredResponse},
};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct WriteReport {
    /// Responses that are in the file.
    pub responses: u64,
    /// Responses that do not fit into an [envelope](crate::store::envelope): they have more fields, tags or
    /// text than that takes.
    pub skipped: u64,
    /// The length of the file in bytes.
    pub bytes: u64,
}

const BUFFER_BYTES: usize = 1 << 20;

pub(super) fn write(store: &MemoryStore, settings: &Settings) -> Result<WriteReport, SnapshotFileError> {
    let temporary = beside(&settings.path, ".tmp");
    let written = write_to(&temporary, store, settings).and_then(|report| {
        fs::rename(&temporary, &settings.path)?;
        sync_directory(&settings.path)?;
        Ok(report)
    });
    written.map_err(|error| {
        _ = fs::remove_file(&temporary);
        io_error(&settings.path)(error)
    })
}

fn write_to(path: &Path, store: &MemoryStore, settings: &Settings) -> io::Result<WriteReport> {
    // Of a process that was killed: no other one has the lock now.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = private().create_new(true).open(path)?;
    let (mut writer, now) = (Writer::new(file), Moment::now());
    writer.push(&format::header(&settings.namespace, now.time))?;
    for key in by_last_use(store) {
        let Some(entry) = store.peek(key.as_bytes()) else { continue };
        for response in entry.variants().iter().filter(|response| now.instant < response.expires_at()) {
            writer.push_response(&key, response, store, now)?;
        }
    }
    writer.finish()
}

/// The keys of a store: first what was served last, and then what was never served, the latest first.
fn by_last_use(store: &MemoryStore) -> impl Iterator<Item = CacheKey> {
    let use_of = |response: &StoredResponse| {
        let used_at = response.used_at();
        (used_at.is_some(), used_at.unwrap_or(response.received_at()))
    };
    let entries = store.entries().filter_map(|(key, entry)| {
        let used = entry.variants().iter().map(|response| use_of(response)).max()?;
        Some((Reverse(used), key))
    });
    let mut keys: Vec<_> = entries.collect();
    keys.sort_by_key(|(used, _)| *used);
    keys.into_iter().map(|(_, key)| key)
}

struct Writer {
    file: BufWriter<File>,
    report: WriteReport,
}

impl Writer {
    fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER_BYTES, file), report: WriteReport::default() }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.report.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn push_response(
        &mut self,
        key: &CacheKey,
        response: &StoredResponse,
        store: &MemoryStore,
        now: Moment,
    ) -> io::Result<()> {
        let Some(snapshot) = response.snapshot(store.sequence(), now) else { return Ok(()) };
        // What is unproven has seen less than its number says.
        let journal = store.sequence().journal().filter(|_| !snapshot.is_unproven);
        let as_of = journal.and_then(|journal| journal.as_of(response.fetch_number()));
        let envelope = Envelope::new(key.clone(), snapshot).with_as_of(as_of);
        let Ok(head) = envelope.to_head(0) else {
            self.report.skipped += 1;
            return Ok(());
        };
        self.push(&head)?;
        self.push(&envelope.snapshot().body)?;
        self.report.responses += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<WriteReport> {
        self.push(&format::end(self.report.responses))?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.report)
    }
}

/// Makes the new name of the file last.
fn sync_directory(path: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened.
    if cfg!(unix) {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
