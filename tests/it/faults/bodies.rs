//! What callers read while it is under way: budgets, pace, and bodies that end early.

mod budget;
mod copies;
mod pace;
mod short;

use std::{convert::Infallible, future::Future};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, StreamBody};
use tower::{Service, ServiceExt};

use crate::support::{Failure, ScriptedOrigin, get_request, response};

/// An origin that has all chunks of its body ready, and does not declare the length.
fn ready(chunks: usize, chunk: usize) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |_, _| async move { response(&[], chunked(chunks, chunk)) })
}

fn chunked(chunks: usize, chunk: usize) -> crate::support::Body {
    let chunks = futures_util::stream::iter(0..chunks);
    let frames = chunks.map(move |_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; chunk]))));
    crate::support::Body::new(StreamBody::new(frames))
}

/// The body of the response, not read yet.
async fn open<S, B>(service: &S, uri: &str) -> B
where
    S: Service<Request<crate::support::Body>, Response = Response<B>, Error = Failure> + Clone,
{
    service.clone().oneshot(get_request(uri)).await.unwrap().into_body()
}

/// The length of a body, and the error that ends it.
async fn read<B: HttpBody<Data = Bytes>>(body: B) -> (usize, Option<B::Error>) {
    let mut body = std::pin::pin!(body);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => length += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return (length, Some(error)),
        }
    }
    (length, None)
}

/// In a task of its own.
fn apart<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T> {
    let task = tokio::spawn(task);
    async { task.await.unwrap() }
}
