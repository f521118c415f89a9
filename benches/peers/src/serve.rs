//! A loopback server with one candidate in it, for `e2e/run.py`.
//!
//! `raw` is an axum handler that returns static bytes; `raw-dyn` one that clones the response of
//! eight fields.

use std::{convert::Infallible, fmt::Debug};

use axum::{Router, body::Body, routing::get, serve::ListenerExt};
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use tower::{Service, ServiceExt};

use crate::{
    args::Args,
    candidates::{self, Config, Meta, Visitor},
    origin::{Answer, Mode, OriginHandle},
    runner::current_thread,
};

const PATH: &str = "/api/v1/items/{id}";

struct Pick<'a> {
    name: &'a str,
    origin: OriginHandle,
    picked: Option<Router>,
}

impl Visitor for Pick<'_> {
    fn visit<F, S, B>(&mut self, meta: Meta, make: F)
    where
        F: Fn(&Config, &OriginHandle) -> S + Send + Sync + 'static,
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Debug + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Debug + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if meta.name != self.name {
            return;
        }
        let service = make(&Config::new(1000), &self.origin)
            .map_request(move |request| if meta.absolute_uri { with_absolute_uri(request) } else { request })
            // What axum does with the answer of any layer: it boxes, unless it is a `Body`.
            .map_response(|response: Response<B>| response.map(Body::new))
            .map_err(|error| -> Infallible { panic!("{error:?}") });
        self.picked = Some(Router::new().route_service(PATH, service));
    }
}

/// Servers see a path only; http-cache parses an absolute URL.
fn with_absolute_uri(mut request: Request<Body>) -> Request<Body> {
    let uri: Uri = format!("http://bench.local{}", request.uri()).parse().expect("a URI");
    *request.uri_mut() = uri;
    request
}

fn raw(origin: &OriginHandle) -> Router {
    let body: &'static [u8] = Box::leak(origin.template().body.to_vec().into_boxed_slice());
    let answer = async move || ([(header::CONTENT_TYPE, "application/json")], Bytes::from_static(body));
    Router::new().route(PATH, get(answer))
}

fn raw_dyn(origin: OriginHandle) -> Router {
    let answer = async move || origin.template().response::<Body>();
    Router::new().route(PATH, get(answer))
}

pub(crate) fn serve(args: &Args) {
    let (name, port, body) =
        (args.text("cand").expect("--cand"), args.number("port", 18100), args.number("body", 1024));
    let origin = OriginHandle::new(Answer::new(body, Mode::Shared));
    let app = match name {
        "raw" => raw(&origin),
        "raw-dyn" => raw_dyn(origin),
        _ => {
            let mut pick = Pick { name, origin, picked: None };
            candidates::visit_all(&mut pick);
            pick.picked.unwrap_or_else(|| panic!("no candidate {name}, see `list`"))
        }
    };
    current_thread().block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port as u16)).await.expect("a free port");
        let listener = listener.tap_io(|connection| _ = connection.set_nodelay(true));
        axum::serve(listener, app).await.expect("it serves for ever");
    });
}
