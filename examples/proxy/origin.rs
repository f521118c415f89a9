//! The innermost service: sends a request to the origin.
//!
//! Everything here happens once per attempt, so retries and background refreshes go this way too.

use std::{
    future::Future,
    io, iter,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::sync::Notify;
use tower::Service;

use crate::{headers, stack::ReqBody};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_IDLE_CONNECTIONS: usize = 256;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the origin took too long")]
    TimedOut,
    #[error("the origin switched protocols unasked")]
    UnaskedUpgrade,
    #[error("the request cannot be sent to the origin")]
    Unsendable(#[source] http::Error),
    #[error("the origin cannot be reached or broke off")]
    Broken(#[source] legacy::Error),
}

impl Error {
    /// What the client is told if nothing better can be found.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

impl From<legacy::Error> for Error {
    fn from(error: legacy::Error) -> Self {
        // A connect timeout is an I/O error somewhere down the chain.
        let mut causes = iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let is_timeout = |cause: &io::Error| cause.kind() == io::ErrorKind::TimedOut;
        if causes.any(|cause| cause.downcast_ref().is_some_and(is_timeout)) {
            return Self::TimedOut;
        }
        Self::Broken(error)
    }
}

/// Takes `http://HOST[:PORT]`, and nothing more: a path would have to be cut off again from what
/// the origin says about itself.
pub(crate) fn parse_url(url: &str) -> Result<Authority, String> {
    let parts = url.parse::<Uri>().map_err(|error| error.to_string())?.into_parts();
    if parts.scheme != Some(Scheme::HTTP) {
        return Err("only HTTP is spoken to the origin: begin it with http://".into());
    }
    if parts.path_and_query.is_some_and(|path| path != "/") {
        return Err("it must have no path: requests keep theirs".into());
    }
    match parts.authority {
        Some(authority) if authority.as_str().contains('@') => Err("it must have no user".into()),
        Some(authority) => Ok(authority),
        None => Err("it has no host".into()),
    }
}

/// A handle, because each request has one.
#[derive(Clone)]
pub(crate) struct Origin(Arc<Shared>);

struct Shared {
    client: Client<HttpConnector, Upload>,
    authority: Authority,
    timeout: Duration,
}

impl Origin {
    pub(crate) fn new(authority: Authority, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build(connector);
        Self(Arc::new(Shared { client, authority, timeout }))
    }

    async fn send(self, mut request: Request<ReqBody>) -> Result<Response<Incoming>, Error> {
        self.address(&mut request).map_err(Error::Unsendable)?;
        let client_side =
            headers::ask_for_upgrade(request.headers_mut()).then(|| hyper::upgrade::on(&mut request));
        let mut response = self.fetch(request).await?;
        let upgraded = headers::from_origin(&mut response);
        match (upgraded, client_side) {
            (true, Some(client_side)) => {
                tokio::spawn(tunnel(client_side, hyper::upgrade::on(&mut response)));
            }
            (true, None) => return Err(Error::UnaskedUpgrade),
            (false, _) => {}
        }
        Ok(response)
    }

    /// Points the request at the origin.
    fn address(&self, request: &mut Request<ReqBody>) -> Result<(), http::Error> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.0.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()?;
        *request.version_mut() = Version::HTTP_11;
        // The client puts the origin's own authority in its place.
        request.headers_mut().remove(header::HOST);
        Ok(())
    }

    /// Until the head of the answer is there.
    async fn fetch(&self, request: Request<ReqBody>) -> Result<Response<Incoming>, Error> {
        let moved = Arc::new(Notify::new());
        let upload = |body| Upload { body, moved: Arc::clone(&moved) };
        let mut answer = pin!(self.0.client.request(request.map(upload)));
        loop {
            tokio::select! {
                answer = &mut answer => return Ok(answer?),
                // A long upload is not late as long as it moves.
                () = moved.notified() => {}
                () = tokio::time::sleep(self.0.timeout) => return Err(Error::TimedOut),
            }
        }
    }
}

impl Service<Request<ReqBody>> for Origin {
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

/// Both connections speak another protocol from here on; what it is does not matter.
async fn tunnel(client: OnUpgrade, origin: OnUpgrade) {
    if let (Ok(client), Ok(origin)) = tokio::join!(client, origin) {
        // However it ends, both sides learn of it when their connections are closed.
        _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(origin)).await;
    }
}

/// A request body that says when it moves.
struct Upload {
    body: ReqBody,
    moved: Arc<Notify>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.moved.notify_one();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
