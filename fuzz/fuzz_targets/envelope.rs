//! Anything as an envelope, as it is and behind a checksum that is right: it is refused, or means one thing, with its
//! body compressed too.
//!
//! ```text
//! cargo +nightly fuzz run envelope fuzz/corpus/envelope tests/golden
//! ```
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tower_readthrough::store::{Compression, Envelope};
use xxhash_rust::xxh3::Xxh3;

const HEADER_BYTES: usize = 144;
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

fuzz_target!(|data: &[u8]| {
    check(data);
    if data.len() >= HEADER_BYTES {
        let mut sealed = data.to_vec();
        let mut sum = Xxh3::new();
        sum.update(&sealed[..CHECKSUM_AT]);
        sum.update(&sealed[HEADER_BYTES..]);
        sealed[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.digest128().to_le_bytes());
        check(&sealed);
    }
});
