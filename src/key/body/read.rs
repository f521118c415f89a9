use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;

use crate::request_body::Begun;

/// What becomes of a body that is read for a key.
pub(super) enum Body<B: HttpBody> {
    Whole(Bytes),
    /// It is longer than the bound, failed, or has trailers.
    Begun(Begun<B>),
}

/// Reads a body that is not longer than this.
///
/// Its chunks are copied together: kept as they come, chunks of a byte each would take a hundred
/// times as much, and each may hold all of a large buffer that it is a part of. Nothing is reserved
/// for what has not arrived.
pub(super) async fn read<B: HttpBody<Data = Bytes>>(body: B, max_bytes: usize) -> Body<B> {
    let mut rest = Box::pin(body);
    let mut data = BytesMut::new();
    let is_beyond = |known: usize, rest: &B| rest.size_hint().lower() > (max_bytes - known) as u64;
    let next = loop {
        if is_beyond(data.len(), &rest) {
            break None;
        }
        let chunk = match rest.frame().await.map(|frame| frame.map(Frame::into_data)) {
            None => return Body::Whole(data.freeze()),
            Some(Ok(Ok(chunk))) => chunk,
            Some(Ok(Err(trailers))) => break Some(Ok(trailers)),
            Some(Err(error)) => break Some(Err(error)),
        };
        if chunk.len() > max_bytes - data.len() {
            break Some(Ok(Frame::data(chunk)));
        }
        data.extend_from_slice(&chunk);
    };
    Body::Begun(Begun { data: data.freeze(), next, rest })
}
