//! What it costs to write an envelope and to read it, as it is and compressed.

use tokio::time::Instant;

use bytes::Bytes;
use tower_readthrough::{
    CacheKey,
    store::{Compression, Envelope, EnvelopeError, Snapshot},
};

use super::{
    node::{SIZES, page},
    times::Times,
};

type Write = dyn Fn(&Envelope) -> Result<Bytes, EnvelopeError>;

pub(crate) fn measure() {
    let level =
        |level| move |envelope: &Envelope| envelope.to_compressed_bytes(Compression::level(level).unwrap());
    let forms: [(&str, &Write); 4] = [
        ("as it is", &|envelope| envelope.to_bytes()),
        ("level 1", &level(1)),
        ("level 3", &level(3)),
        ("level 9", &level(9)),
    ];
    for bytes in SIZES {
        let mut snapshot = Snapshot::default();
        snapshot.body = page(bytes);
        let envelope = Envelope::new(CacheKey::new("/page"), snapshot);
        // A body of 1 KiB is below the default size.
        for (name, write) in forms.into_iter().take(if bytes > 4096 { 4 } else { 1 }) {
            let [mut writes, mut reads] = [const { Times::new() }; 2];
            let mut written = Bytes::new();
            for _ in 0..100 {
                let began = Instant::now();
                written = write(&envelope).unwrap();
                writes.add(began);
                let began = Instant::now();
                assert!(Envelope::parse(&written, bytes).is_ok());
                reads.add(began);
            }
            println!(
                "{:>4} KiB {name:>8}: written in {:>8.1} µs, read in {:>7.1} µs, {:>6} bytes",
                bytes >> 10,
                writes.p50(),
                reads.p50(),
                written.len(),
            );
        }
    }
}
