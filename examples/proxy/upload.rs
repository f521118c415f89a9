//! Request bodies on their way to the origin.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use crate::stack::ReqBody;

/// The progress of an upload.
#[derive(Default)]
pub(crate) struct Progress {
    moved: Notify,
    is_broken: AtomicBool,
}

impl Progress {
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Whether the client has broken it off, or framed it wrongly.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// A request body that notes its progress, without trailers: an origin that merges them into the
/// fields of the request would read unchecked fields (RFC 9110 §6.5.1).
pub(crate) struct Upload {
    body: ReqBody,
    progress: Arc<Progress>,
}

impl Upload {
    pub(crate) fn new(body: ReqBody, progress: Arc<Progress>) -> Self {
        Self { body, progress }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.progress.moved.notify_one();
            match &frame {
                Some(Ok(frame)) if frame.is_trailers() => continue,
                Some(Err(_)) => self.progress.is_broken.store(true, Ordering::Relaxed),
                _ => {}
            }
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
