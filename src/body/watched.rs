//! Bodies that are watched or cut on their way to their readers.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{BodyError, BoxError, Observer};

pin_project! {
    /// A body with an observer of its frames.
    pub(super) struct Observed<B, O> {
        #[pin]
        pub(super) inner: B,
        pub(super) observer: Option<O>,
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

    /// The observer learns of the end as soon as the body says so: hyper does not poll a body
    /// any more that has said `is_end_stream`.
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
    /// A body that fails where it ends before it is as long as its head says.
    pub(crate) struct Declared<B> {
        #[pin]
        inner: B,
        // What has yet to come.
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
            // Trailers stand behind the content.
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

/// What lies between some bytes of a body.
pub(super) struct Part<B, R> {
    /// With what gets the rest of it. `None` once that has it.
    pub(super) inner: Option<(Pin<Box<B>>, R)>,
    pub(super) skip: usize,
    pub(super) take: usize,
}

/// `R` is never pinned.
impl<B, R> Unpin for Part<B, R> {}

impl<B, R> Part<B, R>
where
    R: FnOnce(Pin<Box<B>>),
{
    /// Now, for a body that is at its end may not be polled any more.
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

/// Bytes that are there, in several frames.
pub(super) struct Several(pub(super) VecDeque<Bytes>);

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
