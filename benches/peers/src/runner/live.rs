//! One request after the other.

use std::{fmt::Debug, future::poll_fn, hint::black_box, pin::pin};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::{Request, Response, response::Parts};
use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};

use super::{BATCH, BoxFuture, Live, Sample, Source, together};
use crate::{alloc::counters, clock::thread_cpu_ns};

pub(super) struct Svc<S>(pub(super) S);

async fn drain<B>(body: B) -> usize
where
    B: http_body::Body,
    B::Error: Debug,
{
    let mut body = pin!(body);
    let mut length = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame.expect("a whole body").into_data() {
            length += data.remaining();
            black_box(data.chunk().as_ptr());
        }
    }
    length
}

/// What is timed: readiness, the call, reading the body, dropping request and response.
#[inline(always)]
pub(super) async fn exchange<S, B>(service: &mut S, request: Request<Body>) -> usize
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Debug,
    B: http_body::Body,
    B::Error: Debug,
{
    let response = service.ready().await.expect("ready").call(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let length = drain(body).await;
    black_box(&head);
    length
}

impl<S, B> Live for Svc<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Debug + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Debug,
{
    fn ask(&mut self, runtime: &Runtime, source: &Source, from: u64, count: usize) -> Sample {
        let mut service = self.0.clone();
        let mut requests = Vec::with_capacity(BATCH);
        runtime.block_on(async {
            let (mut ns, mut allocs, mut bytes) = (0, 0, 0);
            for first in (0..count).step_by(BATCH) {
                let batch = first..count.min(first + BATCH);
                requests.extend(batch.map(|at| source(from + at as u64)));
                let (counted, started) = (counters(), thread_cpu_ns());
                for request in requests.drain(..) {
                    exchange(&mut service, request).await;
                }
                ns += thread_cpu_ns() - started;
                let now = counters();
                allocs += now.0 - counted.0;
                bytes += now.1 - counted.1;
            }
            let [ns, allocs, bytes] = [ns, allocs, bytes].map(|sum| sum as f64 / count as f64);
            Sample { ns, allocs, bytes }
        })
    }

    fn together(&mut self, runtime: &Runtime, sources: &[Source], from: u64, count: usize) -> Option<f64> {
        together::run(&self.0, runtime, sources, from, count)
    }

    fn head(&self, request: Request<Body>) -> BoxFuture<Result<(Parts, usize), String>> {
        let service = self.0.clone();
        Box::pin(async move {
            let response = service.oneshot(request).await.map_err(|error| format!("{error:?}"))?;
            let (head, body) = response.into_parts();
            Ok((head, drain(body).await))
        })
    }

    fn get(&self, request: Request<Body>) -> BoxFuture<usize> {
        let mut service = self.0.clone();
        Box::pin(async move { exchange(&mut service, request).await })
    }
}
