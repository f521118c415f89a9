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

use http::{
    Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt, util::MapResponse};

use crate::{
    connection::{Connection, History},
    headers::{self, MAX_FIELDS},
    stack::ReqBody,
    upload::{Progress, Upload},
};

type Connector = MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> Connection>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_IDLE_CONNECTIONS: usize = 256;

/// The reason why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the origin took too long")]
    TimedOut,
    #[error("the origin switched protocols unasked")]
    UnaskedUpgrade,
    #[error("the response has a transfer coding that is not known")]
    UnknownCoding,
    #[error("the client did not send the whole body of its request, or framed it wrongly")]
    BrokenRequest,
    #[error("the request cannot be sent to the origin")]
    Unsendable(#[source] http::Error),
    #[error("the origin cannot be reached or broke off")]
    Broken(#[source] legacy::Error),
}

impl Error {
    /// The status that the client gets without a stored response.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::BrokenRequest => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

impl From<legacy::Error> for Error {
    fn from(error: legacy::Error) -> Self {
        // A connect timeout is an I/O error somewhere down the chain.
        let is_timeout = |cause: &io::Error| cause.kind() == io::ErrorKind::TimedOut;
        let has_timed_out = causes(&error).any(|cause| cause.downcast_ref().is_some_and(is_timeout));
        if has_timed_out { Self::TimedOut } else { Self::Broken(error) }
    }
}

fn causes(error: &legacy::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    iter::successors(std::error::Error::source(error), |cause| cause.source())
}

/// Whether a connection that had been idle was closed before a response.
fn is_worn_out(error: &legacy::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    let is_closed = |cause: &(dyn std::error::Error + 'static)| {
        let by_http = cause.downcast_ref::<hyper::Error>();
        let by_system = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        by_http.is_some_and(|error| error.is_incomplete_message() || error.is_closed())
            || matches!(by_system, Some(BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected))
    };
    History::has_response(error) && causes(error).any(is_closed)
}

/// Parses `http://HOST[:PORT]`, without a path: that would have to be removed from the references in
/// responses.
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
    clients: Clients,
    authority: Authority,
    timeout: Duration,
}

impl Origin {
    pub(crate) fn new(authority: Authority, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)));
        connector.set_nodelay(true);
        let connector = connector.map_response(Connection::new as fn(_) -> _);
        Self(Arc::new(Shared { clients: Clients::new(&connector), authority, timeout }))
    }

    async fn send(self, mut request: Request<ReqBody>) -> Result<Response<Incoming>, Error> {
        self.address(&mut request).map_err(Error::Unsendable)?;
        // The front keeps only upgrades that are passed on.
        let asks_for_upgrade = request.headers().contains_key(header::UPGRADE);
        let client_side = asks_for_upgrade.then(|| hyper::upgrade::on(&mut request));
        let mut response = self.fetch(request).await?;
        if headers::is_coded(response.headers()) {
            return Err(Error::UnknownCoding);
        }
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

    /// Waits for the head of the response.
    async fn fetch(&self, request: Request<ReqBody>) -> Result<Response<Incoming>, Error> {
        let progress = Arc::new(Progress::default());
        let upload = |body| Upload::new(body, Arc::clone(&progress));
        let mut response = pin!(self.0.clients.send(request.map(upload), &progress));
        loop {
            tokio::select! {
                response = &mut response => return match response {
                    Err(_) if progress.is_broken() => Err(Error::BrokenRequest),
                    response => Ok(response?),
                },
                // A long upload is not late as long as it moves.
                () = progress.moved() => {}
                () = tokio::time::sleep(self.0.timeout) => return Err(Error::TimedOut),
            }
        }
    }
}

/// Pools of connections to the origin.
struct Clients {
    /// For requests without a body. A request that is smuggled in the body of another is thus never on a
    /// connection from which a page is read later.
    plain: Client<Connector, Upload>,
    /// For requests with a body.
    uploads: Client<Connector, Upload>,
    /// Opens a connection for each request.
    unpooled: Client<Connector, Upload>,
}

impl Clients {
    fn new(connector: &Connector) -> Self {
        let client = |max_idle| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(max_idle)
                .http1_max_headers(MAX_FIELDS)
                .build(connector.clone())
        };
        Self {
            plain: client(MAX_IDLE_CONNECTIONS),
            uploads: client(MAX_IDLE_CONNECTIONS),
            unpooled: client(0),
        }
    }

    /// Sends a request, and once more on a connection of its own if the one from the pool turns out to
    /// have been closed: only idempotent requests without a response (RFC 9110 §9.2.2, RFC 9112 §9.3.1). A
    /// body cannot be sent twice.
    async fn send(
        &self,
        request: Request<Upload>,
        progress: &Arc<Progress>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        if !request.body().is_end_stream() {
            return self.uploads.request(request).await;
        }
        let again = request.method().is_idempotent().then(|| repetition(&request, progress));
        let response = note(self.plain.request(request).await);
        match (again, response) {
            (Some(again), Err(error)) if is_worn_out(&error) => self.unpooled.request(again).await,
            (Some(again), Ok((response, true))) if response.status() == StatusCode::REQUEST_TIMEOUT => {
                // The origin took an idle connection for a slow request (RFC 9110 §15.5.9).
                drop(response);
                self.unpooled.request(again).await
            }
            (_, response) => response.map(|(response, _)| response),
        }
    }
}

/// Whether the connection of a response had carried one before.
fn note(
    response: Result<Response<Incoming>, legacy::Error>,
) -> Result<(Response<Incoming>, bool), legacy::Error> {
    response.map(|mut response| {
        let is_reused = History::note_response(response.extensions_mut());
        (response, is_reused)
    })
}

fn repetition(request: &Request<Upload>, progress: &Arc<Progress>) -> Request<Upload> {
    let mut again = Request::new(Upload::new(ReqBody::default(), Arc::clone(progress)));
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    again
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

/// Both connections use another protocol from here on, which does not matter here.
async fn tunnel(client: OnUpgrade, origin: OnUpgrade) {
    if let (Ok(client), Ok(origin)) = tokio::join!(client, origin) {
        // However it ends, both sides learn of it when their connections are closed.
        _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(origin)).await;
    }
}
