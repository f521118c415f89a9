use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;

use super::flight::{Found, Subscriber};
use crate::body::BodyError;

pin_project! {
    /// The body of a shared response, as one caller reads it.
    pub(super) struct Reader {
        caller: Subscriber,
        // Bytes yet to come, if the head told the size.
        remaining: Option<u64>,
        #[pin]
        change: Option<OwnedNotified>,
    }
}

impl Reader {
    pub(super) fn new(caller: Subscriber, size: Option<u64>) -> Self {
        Self { caller, remaining: size, change: None }
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        loop {
            let frame = match this.caller.read() {
                Found::Data(data) => {
                    *this.remaining = this.remaining.map(|bytes| bytes.saturating_sub(data.len() as u64));
                    Frame::data(data)
                }
                Found::Trailers(trailers) => Frame::trailers(trailers),
                Found::End => return Poll::Ready(None),
                Found::Failed(error) => return Poll::Ready(Some(Err(error))),
                Found::Pending => {
                    // Registered first and looked again, so that no change in between is missed.
                    match this.change.as_mut().as_pin_mut() {
                        None => this.change.set(Some(this.caller.flight().next_change())),
                        Some(change) => {
                            ready!(change.poll(cx));
                            this.change.set(None);
                        }
                    }
                    continue;
                }
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.caller.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
