//! Anything as an envelope, as it is and behind a length and a checksum that are right: it is refused, or means one
//! thing, with its body compressed too.
//!
//! ```text
//! fuzz/run envelope
//! ```
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tower_readthrough::store::{Compression, Envelope};
use xxhash_rust::xxh3::Xxh3;

const HEADER_BYTES: usize = 144;
const KEY_LENGTH_AT: usize = 16;
const HEAD_LENGTH_AT: usize = 20;
const BODY_LENGTH_AT: usize = 24;
const CHECKSUM_AT: usize = 128;

fn check(bytes: &[u8]) {
    if let Ok(read) = Envelope::parse(&Bytes::copy_from_slice(bytes), 1 << 20) {
        let written = read.to_bytes().expect("what was read fits");
        let compressed = read.to_compressed_bytes(Compression::default().above_bytes(0)).expect("it fits");
        assert!(compressed.len() <= written.len());
        assert_eq!(Envelope::parse(&compressed, 1 << 20).as_ref(), Ok(&read));
        assert_eq!(Envelope::parse(&written, 1 << 20), Ok(read));
    }
}

/// Makes the body as long as what is left for it, and writes the checksum.
fn seal(bytes: &mut [u8]) -> Option<()> {
    let (header, rest) = bytes.split_at_mut_checked(HEADER_BYTES)?;
    let length = |at: usize| header[at..].first_chunk().map(|length| u64::from(u32::from_le_bytes(*length)));
    let body = (rest.len() as u64).checked_sub(length(KEY_LENGTH_AT)? + length(HEAD_LENGTH_AT)?)?;
    header[BODY_LENGTH_AT..][..8].copy_from_slice(&body.to_le_bytes());
    let mut sum = Xxh3::new();
    sum.update(&header[..CHECKSUM_AT]);
    sum.update(rest);
    header[CHECKSUM_AT..].copy_from_slice(&sum.digest128().to_le_bytes());
    Some(())
}

fuzz_target!(|data: &[u8]| {
    check(data);
    let mut sealed = data.to_vec();
    if seal(&mut sealed).is_some() {
        check(&sealed);
    }
});
