use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A request body that can be empty, or of bytes at hand, whatever `B` is.
    ///
    /// [`RetryPolicy`](crate::RetryPolicy) repeats requests without a body, for which it needs
    /// to make a fresh, empty one. `axum::body::Body` can be that by itself, `hyper::body::Incoming`
    /// cannot: wrap it, once, where the request enters the stack. A
    /// [`BodyKeyLayer`](crate::key#keys-from-bodies) does so itself.
    ///
    /// ```
    /// use http_body::Body as _;
    /// use tower_readthrough::RequestBody;
    ///
    /// let body: RequestBody<hyper::body::Incoming> = RequestBody::default();
    /// assert!(body.is_end_stream());
    /// let body: RequestBody<hyper::body::Incoming> = bytes::Bytes::from("hello").into();
    /// assert_eq!(body.size_hint().exact(), Some(5));
    /// ```
    ///
    /// # Over hyper's client
    ///
    /// The layers settle the length of every response that passes through them: `Content-Length` beside
    /// `Transfer-Encoding` is removed, one that is repeated is given once, and one that is no number is
    /// removed (RFC 9112 §6.3, RFC 9110 §8.6). The service between the layers and hyper's client has to
    /// see to the rest, as a proxy does (RFC 9110 §7.6); the `proxy` example shows each step:
    ///
    /// * The fields of the connection are removed in both directions, those that `Connection` names
    ///   included (RFC 9110 §7.6.1). A response with another transfer coding than `chunked` is refused:
    ///   hyper's client does not decode it.
    /// * `Expect` is removed from requests. Hyper's server answers 100 by itself and its client sends the
    ///   body at once, so that an origin which refuses early would read the next request from that body,
    ///   and its response would be stored for another target.
    /// * `Trailer` and the trailers of requests are removed: an origin may merge them into the fields.
    /// * Requests with a body use another pool of connections than requests without one, so that no
    ///   response for the cache is read from a connection which has carried a body.
    /// * An idempotent request without a body is sent once more on a new connection if the one from the
    ///   pool turns out to have been closed (RFC 9112 §9.3.1).
    /// * Field names with an underscore are removed, where an origin may read them as the same name with a
    ///   hyphen.
    pub struct RequestBody<B>
    where
        B: HttpBody,
    {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B>
    where
        B: HttpBody,
    {
        Bytes { bytes: Bytes },
        Inner { #[pin] inner: B },
        Begun { begun: Box<Begun<B>> },
    }
}

/// A body that somebody has begun to read, as it would be if nobody had.
pub(crate) struct Begun<B: HttpBody> {
    /// What has been read, in one piece.
    pub(crate) data: Bytes,
    /// What came after it, if that is known: data beyond a bound, trailers, or an error.
    pub(crate) next: Option<Result<Frame<Bytes>, B::Error>>,
    pub(crate) rest: Pin<Box<B>>,
}

impl<B: HttpBody> RequestBody<B> {
    /// Wraps the body of a request.
    pub fn new(inner: B) -> Self {
        Self { kind: Kind::Inner { inner } }
    }

    #[cfg_attr(not(feature = "body-key"), allow(dead_code, reason = "only bodies for keys are read here"))]
    pub(crate) fn begun(begun: Begun<B>) -> Self {
        Self { kind: Kind::Begun { begun: Box::new(begun) } }
    }
}

impl<B: HttpBody> Default for RequestBody<B> {
    fn default() -> Self {
        Self::from(Bytes::new())
    }
}

impl<B: HttpBody> From<Bytes> for RequestBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self { kind: Kind::Bytes { bytes } }
    }
}

impl<B: HttpBody> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Bytes { bytes } => f.debug_tuple("RequestBody::Bytes").field(&bytes.len()).finish(),
            Kind::Inner { .. } => f.write_str("RequestBody::Inner"),
            Kind::Begun { .. } => f.write_str("RequestBody::Begun"),
        }
    }
}

type Next<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

impl<B: HttpBody<Data = Bytes>> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next<B::Error> {
        match self.project().kind.project() {
            KindProj::Bytes { bytes } => Poll::Ready(take(bytes).map(Ok)),
            KindProj::Inner { inner } => inner.poll_frame(cx),
            KindProj::Begun { begun } => begun.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes { bytes } => bytes.is_empty(),
            Kind::Inner { inner } => inner.is_end_stream(),
            Kind::Begun { begun } => {
                begun.data.is_empty() && begun.next.is_none() && begun.rest.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes { bytes } => SizeHint::with_exact(bytes.len() as u64),
            Kind::Inner { inner } => inner.size_hint(),
            Kind::Begun { begun } => begun.size_hint(),
        }
    }
}

impl<B: HttpBody<Data = Bytes>> Begun<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next<B::Error> {
        match take(&mut self.data).map(Ok).or_else(|| self.next.take()) {
            Some(known) => Poll::Ready(Some(known)),
            None => self.rest.as_mut().poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let next = self.next.as_ref().and_then(|next| next.as_ref().ok()?.data_ref());
        let known = (self.data.len() + next.map_or(0, Bytes::len)) as u64;
        let rest = self.rest.size_hint();
        let mut all = SizeHint::new();
        all.set_lower(known.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            all.set_upper(known.saturating_add(upper));
        }
        all
    }
}

/// What is left, as one frame.
fn take(bytes: &mut Bytes) -> Option<Frame<Bytes>> {
    (!bytes.is_empty()).then(|| Frame::data(std::mem::take(bytes)))
}
