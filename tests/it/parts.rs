//! Parts of responses that are not stored completely: stored, served and combined (RFC 9111 §3.3, §3.4).

mod combining;
mod properties;
mod serving;
mod storing;

use crate::support::{
    Cached, Reply, ScriptedOrigin, ScriptedResponse, cached, cached_in, get, get_with, ms, ok, request, secs,
    send, status,
};
use futures_util::future::join_all;
use http::{Method, request::Parts};
use proptest::prelude::*;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tower::Layer;
use tower_readthrough::{FillLayer, KeyLayer, LookupLayer, MemoryStore, ReadThroughLayer, Rules};

const ALPHABET: &str = "abcdefghij";

/// One range of the content, as `first-last`, or the whole content.
fn serve(content: &str, head: &Parts) -> ScriptedResponse {
    let Some(range) = head.headers.get("range") else { return ok(content.to_owned()).max_age(10) };
    let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let length = content.len();
    let (first, last) = match (first.parse(), last.parse::<usize>()) {
        (Err(_), Ok(suffix)) => (length - suffix, length - 1),
        (first, last) => (first.unwrap(), last.unwrap_or(length - 1)),
    };
    part(first, last, length, &content[first..=last])
}

fn part(first: usize, last: usize, length: usize, body: &str) -> ScriptedResponse {
    let content_range = format!("bytes {first}-{last}/{length}");
    status(206).max_age(10).header("content-range", content_range).chunk(body.to_owned())
}

fn tagged(tag: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::new(move |_, head| serve(ALPHABET, head).header("etag", tag))
}

async fn range(service: &Cached, range: &str) -> Reply {
    get_with(service, "/", &[("range", range)]).await
}
