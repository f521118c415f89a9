//! Bodies whose frames and timing a test chooses.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep},
};

use crate::body::BoxError;

/// The error of a [`ScriptedOrigin`](super::ScriptedOrigin) that fails, as a service or in the middle of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the origin failed")
    }
}

impl std::error::Error for Failure {}

/// A body of any kind, for requests and responses in tests.
///
/// ```
/// use tower_readthrough::testing::{Seen, TestBody};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let (sender, body) = TestBody::fed();
/// sender.send("half of ");
/// sender.send("it");
/// sender.fail();
/// let seen = Seen::of(http::Response::new(body)).await;
/// assert_eq!(seen.body, "half of it");
/// assert!(seen.is_cut);
/// # }
/// ```
pub struct TestBody(UnsyncBoxBody<Bytes, BoxError>);

impl TestBody {
    /// Wraps another body.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    /// Returns a body without content.
    pub fn empty() -> Self {
        Self::new(Empty::new())
    }

    /// Returns a body of unknown length whose frames the test sends one by one. It ends when the sender and all
    /// its clones are dropped.
    pub fn fed() -> (BodySender, Self) {
        let (sender, frames) = mpsc::unbounded_channel();
        (BodySender(sender), Self::new(Fed(frames)))
    }
}

impl Default for TestBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for TestBody {
    fn from(content: Bytes) -> Self {
        Self::new(Full::new(content))
    }
}

impl From<&'static str> for TestBody {
    fn from(content: &'static str) -> Self {
        Bytes::from(content).into()
    }
}

impl From<String> for TestBody {
    fn from(content: String) -> Self {
        Bytes::from(content).into()
    }
}

impl From<Vec<u8>> for TestBody {
    fn from(content: Vec<u8>) -> Self {
        Bytes::from(content).into()
    }
}

impl fmt::Debug for TestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestBody").field("size_hint", &self.0.size_hint()).finish_non_exhaustive()
    }
}

impl HttpBody for TestBody {
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

/// Sends the frames of a [`TestBody::fed`].
#[derive(Clone, Debug)]
pub struct BodySender(mpsc::UnboundedSender<Result<Frame<Bytes>, Failure>>);

impl BodySender {
    /// Sends a chunk. Returns whether the body is still there to take it.
    pub fn send(&self, chunk: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(chunk.into()))).is_ok()
    }

    /// Breaks the body off with a [`Failure`]. Returns whether the body is still there.
    pub fn fail(&self) -> bool {
        self.0.send(Err(Failure)).is_ok()
    }

    /// Whether nothing reads the body any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Returns once nothing reads the body any more.
    pub async fn closed(&self) {
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

/// One step of a scripted body.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    Fail,
    Wait(Duration),
}

/// A body of these pieces, and what comes after them for ever.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    left: VecDeque<Piece>,
    for_ever: Option<(Bytes, Duration)>,
    declared: Option<u64>,
    /// How many bytes come before the body breaks off.
    cut_after: Option<usize>,
    waits: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    pub(super) fn new(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self { left: pieces.into_iter().collect(), ..Self::default() }
    }

    /// Goes on with this chunk after each pause.
    pub(super) fn then_for_ever(self, for_ever: Option<(Bytes, Duration)>) -> Self {
        Self { for_ever, ..self }
    }

    /// Breaks off after so many bytes, or at the end.
    pub(super) fn cut_after(self, cut_after: Option<usize>) -> Self {
        Self { cut_after, ..self }
    }

    /// Has this size hint.
    pub(super) fn declaring(self, declared: Option<u64>) -> Self {
        Self { declared, ..self }
    }

    fn next(&mut self) -> Option<Piece> {
        let Some(left) = self.cut_after else { return self.next_uncut() };
        let piece = if left == 0 { None } else { self.next_uncut() };
        match piece {
            Some(Piece::Data(mut data)) => {
                data.truncate(left);
                self.cut_after = Some(left - data.len());
                Some(Piece::Data(data))
            }
            Some(Piece::Wait(pause)) => Some(Piece::Wait(pause)),
            Some(Piece::Trailers(_) | Piece::Fail) | None => {
                *self = Self::default();
                Some(Piece::Fail)
            }
        }
    }

    fn next_uncut(&mut self) -> Option<Piece> {
        if self.left.is_empty()
            && let Some((chunk, every)) = &self.for_ever
        {
            self.left.extend([Piece::Data(chunk.clone()), Piece::Wait(*every)]);
        }
        self.left.pop_front()
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if let Some(waits) = &mut self.waits {
                ready!(waits.as_mut().poll(cx));
                self.waits = None;
            }
            return Poll::Ready(match self.next() {
                Some(Piece::Wait(pause)) => {
                    self.waits = Some(Box::pin(sleep(pause)));
                    continue;
                }
                Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Piece::Fail) => Some(Err(Failure)),
                None => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.for_ever.is_none() && self.cut_after.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
