//! A type-erased handle on each candidate: dynamic dispatch once per batch of requests, the loop
//! inside is compiled for the concrete service.

mod live;
mod load;
mod together;

use std::{collections::HashMap, fmt::Debug, future::Future, pin::Pin};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, response::Parts};
use tokio::runtime::{Builder, Runtime};
use tower::Service;

use self::live::Svc;
pub(crate) use self::load::{Source, each, kept, ordered, request, unique, uri};
use crate::{
    candidates::{self, Config, Meta, Visitor},
    origin::OriginHandle,
};

/// Requests are built in batches of so many, untimed.
const BATCH: usize = 256;

/// Per request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) ns: f64,
    pub(crate) allocs: f64,
    pub(crate) bytes: f64,
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One service that is up.
pub(crate) trait Live: Send {
    /// The requests of the source from `from` on, one after the other on the calling thread.
    fn ask(&mut self, runtime: &Runtime, source: &Source, from: u64, count: usize) -> Sample;

    /// `count` requests of each source, each source in a task of its own, at the same time; ns
    /// per request and thread. None if the threads did not really run at the same time.
    fn together(&mut self, runtime: &Runtime, sources: &[Source], from: u64, count: usize) -> Option<f64>;

    /// One request: the head of the answer and the length of its body, or the service's error.
    fn head(&self, request: Request<Body>) -> BoxFuture<Result<(Parts, usize), String>>;

    /// One request, its body read to the end: the length.
    fn get(&self, request: Request<Body>) -> BoxFuture<usize>;
}

pub(crate) trait Candidate: Send + Sync {
    fn meta(&self) -> Meta;
    /// Of the service's future; a boxed one counts as two words.
    fn future_bytes(&self) -> usize;
    fn make(&self, config: &Config, origin: &OriginHandle) -> Box<dyn Live>;
}

struct Entry<F> {
    meta: Meta,
    make: F,
}

impl<F, S, B> Candidate for Entry<F>
where
    F: Fn(&Config, &OriginHandle) -> S + Send + Sync + 'static,
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Debug + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Debug,
{
    fn meta(&self) -> Meta {
        self.meta
    }

    fn future_bytes(&self) -> usize {
        size_of::<S::Future>()
    }

    fn make(&self, config: &Config, origin: &OriginHandle) -> Box<dyn Live> {
        Box::new(Svc((self.make)(config, origin)))
    }
}

#[derive(Default)]
struct Collect(Vec<Box<dyn Candidate>>);

impl Visitor for Collect {
    fn visit<F, S, B>(&mut self, meta: Meta, make: F)
    where
        F: Fn(&Config, &OriginHandle) -> S + Send + Sync + 'static,
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Debug + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Debug + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.0.push(Box::new(Entry { meta, make }));
    }
}

pub(crate) fn all() -> Vec<Box<dyn Candidate>> {
    let mut collect = Collect::default();
    candidates::visit_all(&mut collect);
    collect.0
}

/// Those named, in this order; if none are, all that `keep` takes.
pub(crate) fn chosen(only: Option<&str>, keep: impl Fn(&Meta) -> bool) -> Vec<Box<dyn Candidate>> {
    let Some(only) = only else {
        return all().into_iter().filter(|candidate| keep(&candidate.meta())).collect();
    };
    let mut by_name: HashMap<_, _> = all().into_iter().map(|each| (each.meta().name, each)).collect();
    let take = |name| by_name.remove(name).unwrap_or_else(|| panic!("no candidate {name}, see `list`"));
    only.split(',').map(take).collect()
}

pub(crate) fn one(name: &str) -> Box<dyn Candidate> {
    chosen(Some(name), |_| true).remove(0)
}

pub(crate) fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) fn threads(count: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(count).enable_all().build().expect("a runtime")
}
