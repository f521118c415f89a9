//! The `proxy` example as a program, over real sockets.
//!
//! `cargo test` builds the examples before it runs this. With `--test proxy` alone, build it
//! first: `cargo build --example proxy`.

mod connections;
mod forwarding;
mod outages;
mod serving;

use crate::sockets::program::{Proxy, cache_status, command};
use crate::sockets::raw::{RawOrigin, exchange};
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    task::{JoinHandle, JoinSet},
};

/// Responds with the request that it saw, and counts.
struct Origin {
    addr: SocketAddr,
    calls: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            // Dropped with the task, so that connections end with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    answer(request)
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(connection.with_upgrades());
            }
        });
        Self { addr, calls, task }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn kill(self) {
        self.task.abort();
        _ = self.task.await;
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/never" {
        std::future::pending::<()>().await;
    }
    if request.uri().path() == "/upgrade" {
        return Ok(upgrade(&mut request));
    }
    if let Some(len) = request.uri().path().strip_prefix("/page/") {
        return Ok(Response::new(Full::from(page(len.parse().unwrap()))));
    }
    let body = request.body_mut().collect().await.unwrap().to_bytes();
    let fields =
        request.headers().iter().map(|(name, value)| json!([name.as_str(), value.to_str().unwrap()]));
    let echo = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "fields": fields.collect::<Vec<_>>(),
        "body": std::str::from_utf8(&body).unwrap(),
    });
    let response = Response::builder()
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-authenticate", "Basic")
        .header("x-end", "1")
        .header("vary", "x-lang")
        .body(Full::from(echo.to_string()));
    Ok(response.unwrap())
}

/// A page in which no two places are equal.
fn page(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(u32::to_be_bytes).take(len).collect()
}

/// Echoes everything from then on.
fn upgrade(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let protocol = request.headers()["upgrade"].clone();
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
        _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", protocol);
    response.body(Full::default()).unwrap()
}

async fn echo(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn field<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = echo["fields"].as_array().unwrap().iter();
    fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
