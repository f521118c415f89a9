//! The response body of every layer here.
//!
//! One generic enum serves all layers, so that a hit needs no box, and a response that is passed on keeps its
//! own body. All that is large or rare is behind a box, so that a body that is nested in several layers is
//! only a few bytes larger.

use std::{
    collections::VecDeque,
    error::Error as StdError,
    fmt,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Any error that can cross a thread.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The body of the responses of a wrapped service.
pub(crate) trait ResponseBody: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B> ResponseBody for B where B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>;

pin_project! {
    /// The body of a response that went through one of the layers.
    ///
    /// It is one of: bytes out of a store, a reader of a fetch that several callers share,
    /// or the body of the wrapped service as it came. Which one cannot be told from outside
    /// and does not matter to its reader.
    pub struct Body<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Full { bytes: Bytes, trailers: Option<Arc<HeaderMap>> },
        Inner { #[pin] inner: B },
        // A reader of a shared fetch, a body that is observed, or a part of one.
        Boxed { body: BoxBody },
    }
}

/// Sees the frames of a body on their way to its reader.
///
/// Dropped when the body has ended, failed, or been dropped itself.
pub(crate) trait Observer: Send + 'static {
    fn data(&mut self, _chunk: &Bytes) {}
    fn trailers(&mut self, _trailers: &HeaderMap) {}
    /// The body ended as it should. Not called after an error, and nothing is after this.
    fn complete(&mut self) {}
    /// The body failed. Nothing is called after this.
    fn failed(&mut self) {}
}

impl<B> Body<B> {
    /// The body of the wrapped service, passed on as it is.
    pub fn inner(inner: B) -> Self {
        Self { kind: Kind::Inner { inner } }
    }

    /// Stored bytes, and the trailers that came with them.
    pub(crate) fn stored(bytes: Bytes, trailers: Option<Arc<HeaderMap>>) -> Self {
        Self { kind: Kind::Full { bytes, trailers } }
    }

    /// These bytes, one after the other.
    pub(crate) fn pieces(mut pieces: Vec<Bytes>) -> Self {
        match pieces.len() {
            0 | 1 => Self::from(pieces.pop().unwrap_or_default()),
            _ => Self::shared(Several(pieces.into())),
        }
    }

    /// Whether all of it is here.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self.kind, Kind::Full { .. })
    }

    pub(crate) fn shared(reader: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self { kind: Kind::Boxed { body: Box::pin(reader) } }
    }
}

impl<B> Body<Body<B>> {
    /// Undoes one level of nesting: the same body, in the type that one layer alone returns.
    ///
    /// Each layer wraps the body of the service below, so two layers stacked by hand return a
    /// `Body<Body<B>>`. Nothing is boxed or copied. [`ReadThrough`](crate::ReadThrough) does this for all its
    /// layers, and returns a `Body<B>`.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body::Body as _;
    /// use http_body_util::Full;
    /// use tower_readthrough::Body;
    ///
    /// let nested = Body::inner(Body::inner(Full::<Bytes>::from("hello")));
    /// let body: Body<Full<Bytes>> = nested.flatten();
    /// assert_eq!(body.size_hint().exact(), Some(5));
    /// ```
    #[inline]
    #[must_use]
    pub fn flatten(self) -> Body<B> {
        let kind = match self.kind {
            Kind::Full { bytes, trailers } => Kind::Full { bytes, trailers },
            Kind::Inner { inner } => inner.kind,
            Kind::Boxed { body } => Kind::Boxed { body },
        };
        Body { kind }
    }
}

impl<B> Body<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// These bytes of a body that is at least so long, without trailers. When all of them are read, `rest`
    /// gets what is left of the body.
    pub(crate) fn part(
        inner: B,
        part: &Range<usize>,
        rest: impl FnOnce(Pin<Box<B>>) + Send + 'static,
    ) -> Self {
        Self::shared(Part { inner: Some((Box::pin(inner), rest)), skip: part.start, take: part.len() })
    }

    /// The body of the wrapped service, which fails if it ends before this length.
    pub(crate) fn declared(inner: B, length: Option<u64>) -> Self {
        match length {
            None | Some(0) => Self::inner(inner),
            Some(_) => Self::shared(Declared::new(inner, length)),
        }
    }

    /// As [`declared`](Self::declared), with an observer of its frames.
    pub(crate) fn recorded(inner: B, length: Option<u64>, observer: impl Observer) -> Self {
        let inner = Declared::new(inner, length);
        Self::shared(Observed { inner, observer: Some(observer) })
    }
}

impl<B> Default for Body<B> {
    fn default() -> Self {
        Self::from(Bytes::new())
    }
}

impl<B> From<Bytes> for Body<B> {
    fn from(bytes: Bytes) -> Self {
        Self::stored(bytes, None)
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Full { bytes, .. } => return f.debug_tuple("Body::Full").field(&bytes.len()).finish(),
            Kind::Inner { .. } => "Body::Inner",
            Kind::Boxed { .. } => "Body::Boxed",
        };
        f.write_str(kind)
    }
}

impl<B> HttpBody for Body<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.project().kind.project() {
            KindProj::Full { bytes, trailers } => Poll::Ready(if bytes.is_empty() {
                trailers.take().map(|trailers| Ok(stored_trailers(trailers)))
            } else {
                Some(Ok(Frame::data(std::mem::take(bytes))))
            }),
            KindProj::Inner { inner } => inner.poll_frame(cx).map_err(BodyError::new),
            KindProj::Boxed { body } => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full { bytes, trailers } => bytes.is_empty() && trailers.is_none(),
            Kind::Inner { inner } => inner.is_end_stream(),
            Kind::Boxed { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Kind::Inner { inner } => inner.size_hint(),
            Kind::Boxed { body } => body.size_hint(),
        }
    }
}

/// Apart, since few bodies have trailers: polling makes no room for them.
#[cold]
fn stored_trailers(trailers: Arc<HeaderMap>) -> Frame<Bytes> {
    Frame::trailers(Arc::unwrap_or_clone(trailers))
}

pin_project! {
    /// A body with an observer of its frames.
    struct Observed<B, O> {
        #[pin]
        inner: B,
        observer: Option<O>,
    }
}

impl<B, O> HttpBody for Observed<B, O>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
    O: Observer,
{
    type Data = Bytes;
    type Error = BodyError;

    /// The observer learns of the end as soon as the body says so: hyper does not poll a body again that
    /// has said `is_end_stream`.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(observer) = this.observer {
                    if let Some(chunk) = frame.data_ref() {
                        observer.data(chunk);
                    } else if let Some(trailers) = frame.trailers_ref() {
                        observer.trailers(trailers);
                    }
                }
                if this.inner.is_end_stream() {
                    end(this.observer);
                }
            }
            Some(Err(_)) => {
                if let Some(mut observer) = this.observer.take() {
                    observer.failed();
                }
            }
            None => end(this.observer),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// A body that fails if it ends before it is as long as its head says.
    pub(crate) struct Declared<B> {
        #[pin]
        inner: B,
        // The bytes yet to come.
        missing: u64,
    }
}

impl<B> Declared<B> {
    pub(crate) fn new(inner: B, length: Option<u64>) -> Self {
        Self { inner, missing: length.unwrap_or_default() }
    }
}

impl<B> HttpBody for Declared<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx)).transpose().map_err(BodyError::new)?;
        match frame.as_ref().map(Frame::data_ref) {
            Some(Some(data)) => *this.missing = this.missing.saturating_sub(data.len() as u64),
            // Trailers follow the content.
            _ if *this.missing > 0 => {
                *this.missing = 0;
                return Poll::Ready(Some(Err(BodyError::Incomplete)));
            }
            _ => {}
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.missing == 0 && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn end(observer: &mut Option<impl Observer>) {
    if let Some(observer) = observer {
        observer.complete();
    }
    *observer = None;
}

/// A range of bytes of a body.
struct Part<B, R> {
    /// The body, and the function that gets the rest of it. `None` once it has been called.
    inner: Option<(Pin<Box<B>>, R)>,
    skip: usize,
    take: usize,
}

/// `R` is never pinned.
impl<B, R> Unpin for Part<B, R> {}

impl<B, R> Part<B, R>
where
    R: FnOnce(Pin<Box<B>>),
{
    /// Called at once at the end of the range: a body that says it is at its end may not be polled again.
    fn give_back(&mut self) {
        if let Some((inner, rest)) = self.inner.take() {
            rest(inner);
        }
    }
}

impl<B, R> HttpBody for Part<B, R>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
    R: FnOnce(Pin<Box<B>>),
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while let Some((inner, _)) = &mut this.inner
            && this.take > 0
        {
            let Some(frame) = ready!(inner.as_mut().poll_frame(cx)) else { break };
            let Ok(mut data) = frame.map_err(BodyError::new)?.into_data() else { continue };
            let skipped = data.len().min(this.skip);
            this.skip -= skipped;
            data.advance(skipped);
            data.truncate(this.take);
            if !data.is_empty() {
                this.take -= data.len();
                if this.take == 0 {
                    this.give_back();
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.take == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.take as u64)
    }
}

/// Bytes in memory, one frame for each piece.
struct Several(VecDeque<Bytes>);

impl HttpBody for Several {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// Why a response body ended early.
///
/// Cheap to clone, since one failed fetch may end the bodies of many callers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body of the wrapped service failed; the source says how.
    #[error("the origin's response body failed")]
    Origin(#[source] Arc<dyn StdError + Send + Sync>),
    /// This reader fell too far behind in a shared body of which no more could be held for it. See
    /// [`CoalesceLayer::max_held_bytes`](crate::CoalesceLayer::max_held_bytes) and
    /// [`CoalesceLayer::max_total_bytes`](crate::CoalesceLayer::max_total_bytes).
    #[error("this reader fell behind a shared response body of which no more can be held")]
    Lagged,
    /// No reader of a body that is too large to hold read on for longer than
    /// [`CoalesceLayer::max_read_pause`](crate::CoalesceLayer::max_read_pause).
    #[error("no reader of the response body read on")]
    Idle,
    /// The origin's response body ended before it was as long as its head declared.
    #[error("the origin's response body ended before its declared length")]
    Incomplete,
    /// The task that fetched the body was dropped before the end, for example because its
    /// runtime shut down, or the fetch was given up because no caller read it.
    #[error("the fetch of the response body was cancelled")]
    Cancelled,
}

impl BodyError {
    /// Wraps any error, once: an error that is a `BodyError` already stays what it is.
    #[cold]
    pub(crate) fn new(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(other) => Self::Origin(Arc::from(other)),
        }
    }
}
