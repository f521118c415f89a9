//! Bodies that break off.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::super::Failure;
use crate::body::BoxError;

pin_project! {
    /// The body of a service below [`Faults`](super::Faults): as it is, or broken off.
    #[derive(Debug)]
    pub struct FaultyBody<B> {
        #[pin]
        inner: Option<B>,
        cut: Cut,
    }
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Never,
    /// After this share of the first chunk.
    FirstChunk(f64),
    Now,
    Done,
}

impl<B> FaultyBody<B> {
    pub(super) fn whole(inner: B) -> Self {
        Self { inner: Some(inner), cut: Cut::Never }
    }

    pub(super) fn cut(inner: B, share: f64) -> Self {
        Self { inner: Some(inner), cut: Cut::FirstChunk(share) }
    }

    pub(super) fn empty() -> Self {
        Self { inner: None, cut: Cut::Never }
    }
}

impl<B> HttpBody for FaultyBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let share = match *this.cut {
            Cut::Never => return inner.poll_frame(cx).map_err(Into::into),
            Cut::Done => return Poll::Ready(None),
            Cut::FirstChunk(share) => share,
            Cut::Now => {
                *this.cut = Cut::Done;
                return Poll::Ready(Some(Err(Failure.into())));
            }
        };
        let frame = match ready!(inner.poll_frame(cx)) {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => None,
        };
        let Some(mut data) = frame else {
            *this.cut = Cut::Done;
            return Poll::Ready(Some(Err(Failure.into())));
        };
        *this.cut = Cut::Now;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
        data.truncate((data.len() as f64 * share) as usize);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match (&self.inner, self.cut) {
            (None, _) => true,
            (Some(inner), Cut::Never) => inner.is_end_stream(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B> Default for FaultyBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}
