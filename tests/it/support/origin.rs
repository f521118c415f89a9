//! An origin that responds by a script.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body as HttpBody;
use tower::{BoxError, Service};

use super::{Body, Failure, ScriptedResponse};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A service that responds by a script, counts its calls, and records the heads of requests.
///
/// Clones share script, counts and record.
#[derive(Clone)]
pub(crate) struct ScriptedOrigin {
    script: Script,
    calls: Arc<AtomicUsize>,
    /// `None`: nothing is recorded.
    requests: Option<Arc<Mutex<Vec<request::Parts>>>>,
    under_way: Arc<AtomicUsize>,
    most_under_way: Arc<AtomicUsize>,
}

type ByHead = dyn Fn(usize, &request::Parts) -> ScriptedResponse + Send + Sync;
type ByRequest = dyn Fn(usize, Request<Body>) -> BoxFuture<ScriptedResponse> + Send + Sync;

#[derive(Clone)]
enum Script {
    Head(Arc<ByHead>),
    Request(Arc<ByRequest>),
}

impl fmt::Debug for ScriptedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedOrigin").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl ScriptedOrigin {
    /// The script gets the number of the call, from 1 on, and the head of the request. The body of the
    /// request is dropped unread.
    pub(crate) fn new(
        script: impl Fn(usize, &request::Parts) -> ScriptedResponse + Send + Sync + 'static,
    ) -> Self {
        Self::from_script(Script::Head(Arc::new(script)))
    }

    /// The script gets the number of the call, from 1 on, and the request with its body, and may wait.
    pub(crate) fn with_future<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, Request<Body>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ScriptedResponse> + Send + 'static,
    {
        Self::from_script(Script::Request(Arc::new(move |call, request| Box::pin(script(call, request)))))
    }

    /// Gives the same response to every request.
    pub(crate) fn always(response: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> Self {
        Self::new(move |_, _| response())
    }

    /// As [`new`](Self::new), without a record: for very many requests, and where their memory counts.
    pub(crate) fn unrecorded(
        script: impl Fn(usize, &request::Parts) -> ScriptedResponse + Send + Sync + 'static,
    ) -> Self {
        Self { requests: None, ..Self::new(script) }
    }

    fn from_script(script: Script) -> Self {
        Self {
            script,
            calls: Arc::default(),
            requests: Some(Arc::default()),
            under_way: Arc::default(),
            most_under_way: Arc::default(),
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many calls have not returned a head yet.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// How many calls were under way at the same time at most.
    pub(crate) fn most_under_way(&self) -> usize {
        self.most_under_way.load(Ordering::SeqCst)
    }

    /// The head of the request of this call, from 1 on.
    ///
    /// # Panics
    ///
    /// If there was no such call, or nothing is recorded.
    pub(crate) fn request(&self, number: usize) -> request::Parts {
        let requests = self.recorded();
        let request = number.checked_sub(1).and_then(|at| requests.get(at));
        request.unwrap_or_else(|| panic!("request {number} is asked for, of {}", requests.len())).clone()
    }

    /// The head of the last request.
    ///
    /// # Panics
    ///
    /// If there was none, or nothing is recorded.
    pub(crate) fn last_request(&self) -> request::Parts {
        let requests = self.recorded();
        requests.last().unwrap_or_else(|| panic!("the last request is asked for, and there was none")).clone()
    }

    fn recorded(&self) -> MutexGuard<'_, Vec<request::Parts>> {
        match &self.requests {
            Some(requests) => requests.lock().unwrap_or_else(PoisonError::into_inner),
            None => panic!("a request is asked for, and this origin records none"),
        }
    }

    fn record(&self, head: request::Parts) {
        if self.requests.is_some() {
            self.recorded().push(head);
        }
    }

    fn enter(&self) -> (usize, UnderWay) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        (call, UnderWay(Arc::clone(&self.under_way)))
    }
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<B> Service<Request<B>> for ScriptedOrigin
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Failure;
    type Future = BoxFuture<Result<Response<Body>, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (call, under_way) = self.enter();
        match &self.script {
            Script::Head(script) => {
                let (head, body) = request.into_parts();
                let response = script(call, &head);
                self.record(head);
                Box::pin(async move {
                    let _under_way = under_way;
                    response.play(body).await
                })
            }
            Script::Request(script) => {
                let (head, body) = request.into_parts();
                if self.requests.is_some() {
                    self.record(head.clone());
                }
                let response = script(call, Request::from_parts(head, Body::new(body)));
                Box::pin(async move {
                    let _under_way = under_way;
                    response.await.play(()).await
                })
            }
        }
    }
}
