//! What a body costs in memory that is larger than the store takes. Alone in its binary, since
//! it looks at the memory of the whole process.

mod support;

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::open::{Origin, fixed, get, response};
use tower::{Layer, ServiceExt};
use tower_readthrough::{MemoryStore, ReadThroughLayer};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 16 << 10;
const MIB: usize = 1 << 20;

/// Pages of four KiB.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}

fn gibibyte(declared: bool) -> Origin {
    Origin::new(move |_, _| async move {
        let chunks = futures_util::stream::iter(0..CHUNKS);
        let frames = chunks.map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; CHUNK]))));
        let length = (CHUNK * CHUNKS).to_string();
        let fields: &[_] = if declared { &[("content-length", length.as_str())] } else { &[] };
        response(fields, Body::new(StreamBody::new(frames)))
    })
}

#[tokio::test]
async fn a_gibibyte_passes_through_a_few_mebibytes() {
    for declared in [true, false] {
        let store = MemoryStore::with_capacity_bytes(64 << 20);
        let layer = ReadThroughLayer::builder(store.clone()).rules(fixed(60_000)).build().unwrap();
        let service = layer.layer(gibibyte(declared));
        let before = resident_bytes();
        let mut body = service.oneshot(get("http://h/")).await.unwrap().into_body();
        let (mut length, mut peak) = (0, before);
        while let Some(frame) = body.frame().await {
            length += frame.unwrap().into_data().unwrap().len();
            if length % (16 * MIB) == 0 {
                peak = peak.max(resident_bytes());
            }
        }
        assert_eq!(length, CHUNK * CHUNKS);
        let growth = peak.zip(before).map(|(peak, before)| peak - before);
        // What the store takes of one response is four MiB; some more for the allocator.
        assert!(growth.is_none_or(|growth| growth < 12 * MIB), "{growth:?} bytes");
        assert_eq!((store.stats().refused, store.stats().bytes < 1000), (1, true));
    }
}
