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

/// A key of its own at each position.
pub(crate) fn unique(absolute: bool) -> Source {
    Arc::new(move |position| request(uri(position, absolute)))
}

/// Requests for a fixed set of keys.
#[derive(Clone)]
pub(crate) struct Load {
    uris: Arc<[Uri]>,
    order: Arc<[u32]>,
}

impl Load {
    /// With URIs of its own, as on a connection of its own.
    pub(crate) fn new(keys: usize, order: &Arc<[u32]>, absolute: bool) -> Self {
        Self { uris: (0..keys as u64).map(|n| uri(n, absolute)).collect(), order: Arc::clone(order) }
    }

    /// Each key once.
    pub(crate) fn each(&self) -> Source {
        let uris = Arc::clone(&self.uris);
        Arc::new(move |position| request(uris[position as usize].clone()))
    }

    /// In the given order, again and again.
    pub(crate) fn ordered(&self) -> Source {
        let Self { uris, order } = self.clone();
        Arc::new(move |position| request(uris[order[position as usize % order.len()] as usize].clone()))
    }
}
