use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A request body `B`, or an empty one, or bytes in memory.
    ///
    /// [`RetryPolicy`](crate::RetryPolicy) repeats requests without a body, for which it has to create an
    /// empty one. `axum::body::Body` can be empty, `hyper::body::Incoming` cannot be created: wrap it once
    /// where the request enters the stack. A [`BodyKeyLayer`](crate::key#keys-from-bodies) does so itself.
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
    /// The layers correct the declared length of every response: `Content-Length` beside
    /// `Transfer-Encoding` is removed, a repeated one is written once, and an invalid one is
    /// removed (RFC 9112 §6.3, RFC 9110 §8.6). The service between the layers and hyper's client has to
    /// do the rest, as a proxy does (RFC 9110 §7.6); the `proxy` example shows each step:
    ///
    /// * Remove the fields of the connection in both directions, including those that `Connection` names (RFC
    ///   9110 §7.6.1). Refuse a response with a transfer coding other than `chunked`, which hyper's client
    ///   does not decode.
    /// * Remove `Expect` from requests. Hyper's server sends the 100 itself and its client sends the
    ///   body at once, so that an origin that refuses early would read the next request from that body,
    ///   and its response would be stored for another target.
    /// * Remove `Trailer` and the trailers of requests: an origin may merge them into the fields.
    /// * Use separate connection pools for requests with and without a body, so that no response for the
    ///   cache is read from a connection that has carried a body.
    /// * Send an idempotent request without a body once more on a new connection if the pooled one turns out
    ///   to be closed (RFC 9112 §9.3.1).
    /// * Remove fields with an underscore in their name if the origin may read it as a hyphen.
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

/// A body that was read in part, which yields everything from the start.
pub(crate) struct Begun<B: HttpBody> {
    /// The data read, in one piece.
    pub(crate) data: Bytes,
    /// The next frame, if it was read: data beyond a bound, trailers, or an error.
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

/// The remaining bytes as one frame.
fn take(bytes: &mut Bytes) -> Option<Frame<Bytes>> {
    (!bytes.is_empty()).then(|| Frame::data(std::mem::take(bytes)))
}
