//! The side of the clients: connections, and responses that the proxy makes itself.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tower_readthrough::{Body, RequestBody, SharedError};

use crate::{
    headers::{self, Hop, MAX_FIELDS},
    origin,
    socket::Socket,
    stack::Stack,
};

type Answer = Response<Body<Incoming>>;

/// How long a client may take to send the head of a request, or to stay idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_HEAD_BYTES: u32 = 64 << 10;
const MAX_STREAMS: u32 = 200;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// State that all connections share.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) stack: Stack,
    pub(crate) hop: Arc<Hop>,
}

/// Serves requests until `shutdown` is ready, and then those under way.
pub(crate) async fn serve(listener: TcpListener, front: Front, shutdown: impl Future<Output = ()>) {
    let server = server();
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connect(&server, &graceful, front.clone(), stream, peer),
                Err(error) => recover(&error).await,
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    _ = timeout(SHUTDOWN_GRACE, graceful.shutdown()).await;
}

fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD_BYTES as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES)
        .keep_alive_interval(PING_INTERVAL);
    server
}

fn connect(
    server: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    front: Front,
    stream: TcpStream,
    peer: SocketAddr,
) {
    // A response is written at once: waiting for more data would only delay it.
    _ = stream.set_nodelay(true);
    let asked = Arc::new(Notify::new());
    let service = service_fn({
        let (asked, peer) = (Arc::clone(&asked), headers::address(peer));
        move |request| {
            asked.notify_one();
            answer(&front, &peer, request)
        }
    });
    let connection = server.serve_connection_with_upgrades(Socket::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        // Until it is known which version the client speaks, no other timeout runs.
        tokio::select! {
            _ = &mut connection => return,
            asked = timeout(HEAD_TIMEOUT, asked.notified()) => if asked.is_err() { return },
        }
        // Only the client needs to know how the connection ended.
        _ = connection.await;
    });
}

/// When the process runs out of file descriptors, trying again at once would only waste time.
async fn recover(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Calls the cache at once, not when the future is first polled: after a hit the request is dropped,
/// and the connection reads the next one into the same buffer.
fn answer(
    front: &Front,
    peer: &HeaderValue,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Answer, Infallible>> + use<> {
    let answer = match refusal(&request, &front.hop) {
        Some(status) => Err(status),
        None => {
            front.hop.take_over(&mut request, peer);
            // The stack is always ready.
            Ok(front.stack.call(request.map(RequestBody::new)))
        }
    };
    async {
        Ok(match answer {
            Ok(answer) => answer.await.unwrap_or_else(|error| plain(status_of(&error))),
            Err(status) => plain(status),
        })
    }
}

/// Requests that do not need the origin.
fn refusal<B>(request: &Request<B>, hop: &Hop) -> Option<StatusCode> {
    if request.method() == Method::CONNECT {
        return Some(StatusCode::NOT_IMPLEMENTED);
    }
    // The request would wait for its own response.
    if hop.has_seen(request.headers()) {
        return Some(StatusCode::LOOP_DETECTED);
    }
    if let Some(status) = headers::unknown_coding(request.headers()) {
        return Some(status);
    }
    // RFC 9112 §3.2. The cache and the origin could take different ones of two hosts.
    let hosts = request.headers().get_all(header::HOST).iter().count();
    (hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11).then_some(StatusCode::BAD_REQUEST)
}

fn status_of(error: &SharedError) -> StatusCode {
    let error = error.get_ref().downcast_ref::<origin::Error>();
    error.map_or(StatusCode::BAD_GATEWAY, origin::Error::status)
}

fn plain(status: StatusCode) -> Answer {
    let mut answer =
        Response::new(format!("{status}\n").into_bytes()).map(|text| Body::from(bytes::Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}
