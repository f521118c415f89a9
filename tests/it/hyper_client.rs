//! The stack over hyper's client, as in a proxy: request and response bodies are `Incoming`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, routing::get};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_readthrough::{MemoryStore, ReadThroughLayer, RequestBody, Rules, SharedError};

async fn origin(calls: Arc<AtomicUsize>) -> SocketAddr {
    let handler = get(async move || calls.fetch_add(1, Ordering::SeqCst).to_string());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/x", handler)).await });
    address
}

/// A server that passes requests on to the origin, through the cache.
async fn proxy(origin: SocketAddr) -> SocketAddr {
    let rules = Rules::new().default_ttl(std::time::Duration::from_secs(60));
    let cache =
        ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).rules(rules).build().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<Incoming>>();
    let service = ServiceBuilder::new()
        .map_request(move |request: Request<Incoming>| {
            let mut request = request.map(RequestBody::new);
            *request.uri_mut() = format!("http://{origin}{}", request.uri().path()).parse().unwrap();
            request.headers_mut().remove("host");
            request
        })
        .layer(cache)
        .service(client.map_err(SharedError::new));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(connection), service));
        }
    });
    address
}

#[tokio::test]
async fn the_stack_wraps_a_hyper_client_with_one_map_err() {
    let calls = Arc::new(AtomicUsize::new(0));
    let proxy = proxy(origin(Arc::clone(&calls)).await).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for _ in 0..3 {
        let request = Request::get(format!("http://{proxy}/x")).body(Empty::new()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "0");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
