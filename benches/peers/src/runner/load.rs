//! Which requests are made.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Request, Uri, header};

/// Builds the request at a position. Called outside the timed part.
pub(crate) type Source = Arc<dyn Fn(u64) -> Request<Body> + Send + Sync>;

pub(crate) fn uri(n: u64, absolute: bool) -> Uri {
    let host = if absolute { "http://bench.local" } else { "" };
    format!("{host}/api/v1/items/{n:07}").parse().expect("a URI")
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::HOST, HeaderValue::from_static("bench.local"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64)"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
    headers
}

/// A GET as a server would see it, with four fields.
pub(crate) fn request(uri: Uri) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers();
    request
}

/// What is asked for at each position, with a URI made for the occasion: so many variants of one
/// key, then of the next. The origin varies by `Accept-Encoding`.
pub(crate) fn each(variants: u64, absolute: bool) -> Source {
    Arc::new(move |position| {
        let mut request = request(uri(position / variants, absolute));
        if variants > 1 {
            let value = HeaderValue::try_from(format!("x{}", position % variants)).expect("a value");
            request.headers_mut().insert(header::ACCEPT_ENCODING, value);
        }
        request
    })
}

/// A key of its own at each position.
pub(crate) fn unique(absolute: bool) -> Source {
    each(1, absolute)
}

/// The same in this order, again and again.
pub(crate) fn ordered(source: Source, order: &Arc<[u32]>) -> Source {
    let order = Arc::clone(order);
    Arc::new(move |position| source(u64::from(order[position as usize % order.len()])))
}

/// For one of few keys at each position, with URIs that are kept, as by a client.
pub(crate) fn kept(keys: usize, absolute: bool) -> Source {
    let uris: Vec<Uri> = (0..keys as u64).map(|n| uri(n, absolute)).collect();
    Arc::new(move |position| request(uris[position as usize].clone()))
}
