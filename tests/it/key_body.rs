//! Keys from request bodies: reads by POST and QUERY.

mod bodies;
mod fetches;
mod invalidation;
mod layers;
mod properties;
mod rules;
mod storing;

use crate::support::{Body, ScriptedOrigin, bytes, call, fixed, get_request, ms, response, status, store};
use axum::{Router, routing::post};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_readthrough::{
    BodyKey, BodyKeyLayer, CacheKey, CacheStatus, CoalesceLayer, JsonBody, KeyExtractor, KeyLayer, KeyRule,
    KeyRules, MemoryStore, ReadThrough, ReadThroughLayer, RequestBody, RetryPolicy, Rules, SharedError,
    StoreLayer,
};

const SEARCH: &str = "http://h/search";

const BOUND: usize = 64;

type Fields = &'static [(&'static str, &'static str)];

/// The origin takes the body that comes out of the layers.
type Front = tower::util::MapRequest<ScriptedOrigin, fn(Request<RequestBody<Body>>) -> Request<Body>>;

type Stack = BodyKey<ReadThrough<Front, MemoryStore, KeyRules>>;

fn front(origin: &ScriptedOrigin) -> Front {
    origin.clone().map_request(|request| request.map(Body::new))
}

fn search() -> KeyRule {
    KeyRule::path("/search").method("POST").method("QUERY").body(BOUND)
}

fn layer(rule: KeyRule) -> BodyKeyLayer {
    KeyRules::builder().rule(rule).build_with_bodies().unwrap()
}

fn stack_by(rule: KeyRule, rules: Rules, origin: &ScriptedOrigin) -> Stack {
    let bodies = layer(rule);
    let retry = RetryPolicy::new().backoff(ms(1), ms(1));
    let cache =
        ReadThroughLayer::builder(store()).key(bodies.rules()).rules(rules).retry(retry).build().unwrap();
    bodies.layer(cache.layer(front(origin)))
}

fn stack(origin: &ScriptedOrigin) -> Stack {
    stack_by(search(), fixed(60_000), origin)
}

/// Responds with the number of the call, the method and the body.
fn echo() -> ScriptedOrigin {
    echo_with(&[])
}

fn echo_with(fields: Fields) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |n, request| async move { response(fields, said(n, request).await) })
}

async fn said(n: usize, request: Request<Body>) -> String {
    let method = request.method().clone();
    let body = request.into_body().collect().await;
    let body = body.map_or_else(|error| error.to_string(), |body| text(&body.to_bytes()));
    format!("{n} {method} {body}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn request(method: &str, uri: &str, fields: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn post_of(body: impl Into<Body>) -> Request<Body> {
    request("POST", SEARCH, &[], body)
}

async fn ask(stack: &Stack, request: Request<Body>) -> String {
    text(&call(stack, request).await.1)
}

async fn ask_all(stack: &Stack, requests: impl IntoIterator<Item = Request<Body>>) -> Vec<String> {
    let mut answers = Vec::new();
    for request in requests {
        answers.push(ask(stack, request).await);
    }
    answers
}

/// Of unknown length, in these pieces.
fn pieces<const N: usize>(pieces: [&'static str; N]) -> Body {
    crate::streamed(stream::iter(pieces.map(Ok::<_, Infallible>)))
}
