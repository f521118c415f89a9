//! Two small upstreams, so that the example runs by itself.

use std::{io, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use http::uri::Authority;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

/// Starts an upstream where none is named.
pub(crate) async fn or_start(given: Option<Authority>, upstream: fn() -> Router) -> io::Result<Authority> {
    if let Some(given) = given {
        return Ok(given);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, upstream()).await });
    address.to_string().parse().map_err(io::Error::other)
}

/// Prices take 40 ms, and lists 120 ms and say nothing of their lifetime.
pub(crate) fn catalogue() -> Router {
    let price = async |Path(id): Path<u32>| {
        sleep(Duration::from_millis(40)).await;
        match id {
            0 => StatusCode::NOT_FOUND.into_response(),
            id => Json(json!({ "id": id, "price": 10 + id % 90 })).into_response(),
        }
    };
    let list = async |Query(query): Query<Value>| {
        sleep(Duration::from_millis(120)).await;
        Json(json!({ "query": query, "items": (1..=20).collect::<Vec<_>>() }))
    };
    Router::new().route("/catalogue/prices/{id}", get(price)).route("/catalogue/{list}", get(list))
}

/// Every order is for one client alone.
pub(crate) fn orders() -> Router {
    let order = async |Path(id): Path<u32>| -> Response {
        sleep(Duration::from_millis(15)).await;
        ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "order": id }))).into_response()
    };
    Router::new().route("/orders/{id}", get(order).post(order))
}
