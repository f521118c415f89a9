//! Bodies of requests and responses.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tokio::sync::mpsc;
use tower::BoxError;

/// The error of an origin that fails, as a service or in the middle of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the origin failed")
    }
}

impl std::error::Error for Failure {}

/// A body of any kind, for requests and responses.
pub(crate) struct Body(UnsyncBoxBody<Bytes, BoxError>);

impl Body {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    pub(crate) fn empty() -> Self {
        Self::new(Empty::new())
    }

    /// A body of unknown length whose frames the test sends one by one. It ends when the sender is dropped.
    pub(crate) fn fed() -> (BodySender, Self) {
        let (sender, frames) = mpsc::unbounded_channel();
        (BodySender(sender), Self::new(Fed(frames)))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(content: Bytes) -> Self {
        Self::new(Full::new(content))
    }
}

impl From<&'static str> for Body {
    fn from(content: &'static str) -> Self {
        Bytes::from(content).into()
    }
}

impl From<String> for Body {
    fn from(content: String) -> Self {
        Bytes::from(content).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(content: Vec<u8>) -> Self {
        Bytes::from(content).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size_hint", &self.0.size_hint()).finish_non_exhaustive()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Sends the frames of a [`Body::fed`].
#[derive(Clone, Debug)]
pub(crate) struct BodySender(mpsc::UnboundedSender<Result<Frame<Bytes>, Failure>>);

impl BodySender {
    /// Sends a chunk. Whether the body is still there to take it.
    pub(crate) fn send(&self, chunk: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(chunk.into()))).is_ok()
    }

    /// Breaks the body off with an error.
    pub(crate) fn fail(&self) -> bool {
        self.0.send(Err(Failure)).is_ok()
    }

    /// Whether nothing reads the body any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Returns once nothing reads the body any more.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

struct Fed(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Failure>>);

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.0.poll_recv(cx)
    }
}

/// A body of exactly these frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    left: VecDeque<Result<Frame<Bytes>, Failure>>,
    declared: Option<u64>,
}

impl Frames {
    pub(super) fn push(&mut self, frame: Result<Frame<Bytes>, Failure>) {
        self.left.push_back(frame);
    }

    /// What the body says about its length, true or not.
    pub(super) fn declare(&mut self, length: u64) {
        self.declared = Some(length);
    }
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Poll::Ready(self.left.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
