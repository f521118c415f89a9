use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;

use crate::request_body::Begun;

/// A body after reading it for a key.
pub(super) enum Body<B: HttpBody> {
    Whole(Bytes),
    /// Longer than the bound, failed, or with trailers.
    Begun(Begun<B>),
}

/// Reads a body of at most `max_bytes`.
///
/// Chunks are copied into one buffer: kept as they are, chunks of one byte each would take a hundred times as
/// much memory, and each may keep a large buffer alive. Nothing is reserved for data that has not arrived.
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
