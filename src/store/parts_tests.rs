use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};

use super::*;
use crate::{MemoryStore, StoreLayer};

const TOTAL: usize = 2 << 20;

/// Of one representation of two mebibytes.
async fn part(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let range = request.headers()[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let response =
        Response::builder().status(206).header("etag", "\"1\"").header("cache-control", "max-age=60");
    let response = response.header("content-range", format!("bytes {first}-{last}/{TOTAL}"));
    Ok(response.body((first..=last).map(|at| at as u8).collect::<Bytes>().into()).unwrap())
}

/// A request may be small, whatever it touches.
#[tokio::test(start_paused = true)]
async fn what_a_request_makes_the_store_copy_is_bounded_by_its_own_bytes_and_not_by_what_is_stored() {
    let store = MemoryStore::with_capacity_bytes(256 << 20);
    let service = StoreLayer::new(store).layer(service_fn(part));
    let ask = async |first: usize, last: usize| {
        let request = Request::get("http://example.com/").header("range", format!("bytes={first}-{last}"));
        let response = service.clone().oneshot(request.body(Full::default()).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(
            body.len() == last - first + 1 && body.iter().zip(first..).all(|(byte, at)| *byte == at as u8)
        );
        COPIED.take()
    };
    ask(1 << 20, TOTAL - 10).await;
    let bound = 128 << 10;
    for n in 1..200 {
        let at = (1 << 20) - n;
        let copied = ask(at, at).await;
        assert!(copied <= bound, "{n}: {copied}");
    }
    // It overlaps what is stored on both sides of it, and closes the last gap.
    assert!(ask(TOTAL - 20, TOTAL - 2).await <= bound);
    assert!(ask(TOTAL - 1, TOTAL - 1).await <= bound);
    ask(0, 500_000).await;
    let last = ask(400_000, (1 << 20) - 100).await;
    assert!(last <= bound + (1 << 20) - 400_000, "{last}");
    for (first, last) in [(0, TOTAL - 1), (499_999, 500_001), ((1 << 20) - 150, (1 << 20) + 1)] {
        ask(first, last).await;
    }
}

fn pieces(lengths: &[usize]) -> Pieces {
    let mut next = 0_u8;
    let mut made = Pieces::default();
    for length in lengths {
        let piece: Bytes = std::iter::repeat_with(|| {
            next = next.wrapping_add(1);
            next
        })
        .take(*length)
        .collect();
        made.append(&piece.into());
    }
    made
}

#[test]
fn every_slice_is_what_it_would_be_of_one_piece() {
    let several = pieces(&[SMALL, 3, SMALL, 5]);
    assert_eq!(several.0.len(), 4, "none fits with its neighbour");
    let one = several.as_one().unwrap();
    for range in [0..1, 0..one.len(), SMALL - 1..SMALL + 4, SMALL + 1..SMALL + 2, one.len() - 1..one.len()] {
        assert_eq!(several.slice(range.clone()).concat(), one[range.clone()]);
        assert_eq!(several.cut(range.clone()).as_one().unwrap(), one[range]);
    }
}

#[test]
fn to_append_a_byte_costs_no_more_than_the_last_piece_that_is_small() {
    let mut many = pieces(&[16 << 20]);
    COPIED.set(0);
    for n in 1..=1000 {
        many.append(&Bytes::from_static(b"x").into());
        assert!(many.0.len() <= 2);
        assert!(COPIED.take() <= n);
    }
    for _ in 0..SMALL {
        many.append(&Bytes::from_static(b"x").into());
        assert!(COPIED.take() <= SMALL);
    }
    assert_eq!(many.0.len(), 3);
    assert_eq!(many.len(), (16 << 20) + 1000 + SMALL);
}
