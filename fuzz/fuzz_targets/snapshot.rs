//! Anything as a snapshot file, as it is and with checksums that are right: what is loaded of it can be written, and
//! is the same when that is loaded.
//!
//! ```text
//! fuzz/run snapshot
//! ```
#![no_main]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;
use tower_readthrough::{
    CacheKey, MemoryStore,
    store::{LoadEnd, LoadReport, SnapshotFile, StoredResponse, WriteReport},
};
use xxhash_rust::xxh3::Xxh3;

const NAMESPACE: &str = "shop";
const FILE_HEADER_BYTES: usize = 32;
const END_BYTES: usize = 28;
const ENVELOPE_HEADER_BYTES: usize = 144;
const CHECKSUM_BYTES: usize = 16;

/// In memory, where there is such a directory: a file is written for each input.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = parent.join(format!("trt-fuzz-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    directory
});

/// Loads the file, and writes it again if that is asked for and there is something to write.
fn load(path: &Path, is_written: bool) -> (MemoryStore, LoadReport, WriteReport) {
    // One for each, so that the tasks of a store end with it.
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let store = MemoryStore::builder(64 << 20).snapshots(true).build().expect("a store");
        let file =
            SnapshotFile::builder(store.clone(), path).namespace(NAMESPACE).open().expect("no other one");
        let report = file.loaded().await;
        let written = match is_written && report.loaded > 0 {
            true => file.write().await.expect("what was loaded can be written"),
            false => WriteReport::default(),
        };
        (store, report, written)
    })
}

/// What is stored, in an order that does not depend on the table.
fn stored(store: &MemoryStore) -> Vec<String> {
    let text = |key: &CacheKey, response: &StoredResponse| {
        let (status, headers, body) = (response.status(), response.headers(), response.body());
        format!("{:?} {status} {headers:?} {body:?}", key.as_bytes())
    };
    let entries: Vec<_> = store.entries().collect();
    let variants =
        entries.iter().flat_map(|(key, entry)| entry.variants().iter().map(move |one| text(key, one)));
    let mut all: Vec<_> = variants.collect();
    all.sort();
    all
}

fn check(bytes: &[u8]) {
    let path = DIRECTORY.join("file");
    fs::write(&path, bytes).expect("room in the directory");
    let (first, report, written) = load(&path, true);
    assert!(!matches!(report.end, LoadEnd::Missing | LoadEnd::Full | LoadEnd::Io(_) | LoadEnd::Aborted));
    if report.loaded == 0 {
        return;
    }
    assert_eq!(written.skipped, 0, "what was read from an envelope fits into one");
    let (second, report, _) = load(&path, false);
    assert_eq!((report.end, report.skipped), (LoadEnd::Complete, 0));
    // What is over meanwhile is not needed.
    assert_eq!(report.loaded + report.unneeded, written.responses);
    let before = stored(&first);
    if report.loaded == before.len() as u64 {
        assert_eq!(before, stored(&second));
    }
}

fn checksum(parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = Xxh3::new();
    parts.iter().for_each(|part| sum.update(part));
    sum.digest128().to_le_bytes()
}

/// Writes the checksums of all that is as long as it says.
fn seal(file: &mut [u8]) -> Option<()> {
    let namespace = usize::from(u16::from_le_bytes([*file.get(6)?, *file.get(7)?]));
    let (header, mut rest) = file.split_at_mut_checked(FILE_HEADER_BYTES + namespace)?;
    let sum = checksum(&[&header[..FILE_HEADER_BYTES - CHECKSUM_BYTES], &header[FILE_HEADER_BYTES..]]);
    header[FILE_HEADER_BYTES - CHECKSUM_BYTES..FILE_HEADER_BYTES].copy_from_slice(&sum);
    let mut envelopes = 0_u64;
    while rest.len() != END_BYTES {
        let header = rest.get(..ENVELOPE_HEADER_BYTES)?;
        let length = |at| header[at..].first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
        let length = ENVELOPE_HEADER_BYTES + length(16)? + length(20)? + length(24)?;
        let (envelope, behind) = rest.split_at_mut_checked(length)?;
        let at = ENVELOPE_HEADER_BYTES - CHECKSUM_BYTES;
        let sum = checksum(&[&envelope[..at], &envelope[ENVELOPE_HEADER_BYTES..]]);
        envelope[at..ENVELOPE_HEADER_BYTES].copy_from_slice(&sum);
        (rest, envelopes) = (behind, envelopes + 1);
    }
    let at = END_BYTES - CHECKSUM_BYTES;
    rest[4..at].copy_from_slice(&envelopes.to_le_bytes());
    let sum = checksum(&[&rest[..at]]);
    rest[at..].copy_from_slice(&sum);
    Some(())
}

fuzz_target!(|data: &[u8]| {
    check(data);
    let mut sealed = data.to_vec();
    // As far as it goes.
    _ = seal(&mut sealed);
    if sealed != data {
        check(&sealed);
    }
});
