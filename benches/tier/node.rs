//! Nodes over an origin in the process, with a second tier on a server and without.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt};
use tower_readthrough::{
    MemoryStore, ReadThrough, ReadThroughLayer, Tier,
    cluster::Cluster,
    remote::{RedisRemote, Remote},
};

pub(crate) const SIZES: [usize; 3] = [1 << 10, 100 << 10, 600 << 10];

/// Text as pages have it: words of few letters, that repeat at no fixed distance.
pub(crate) fn page(bytes: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(7);
    let words: Vec<String> =
        (0..400).map(|_| (0..random.usize(2..9)).map(|_| random.lowercase()).collect()).collect();
    let mut text = Vec::with_capacity(bytes + 80);
    while text.len() < bytes {
        let [tag, word, other] = [(); 3].map(|()| &words[random.usize(..words.len())]);
        text.extend_from_slice(
            format!("<li class=\"{tag}\">{word} {other} {}</li>\n", random.u16(..)).as_bytes(),
        );
    }
    text.truncate(bytes);
    text.into()
}

/// Answers each path with one page, and eight fields.
#[derive(Clone)]
pub(crate) struct Origin {
    page: Bytes,
    vary: &'static str,
    delay: Duration,
    calls: Arc<AtomicU64>,
}

impl Origin {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { page: page(bytes), vary: "", delay: Duration::ZERO, calls: Arc::default() }
    }

    pub(crate) fn with_vary(self, vary: &'static str) -> Self {
        Self { vary, ..self }
    }

    pub(crate) fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.page.len()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let mut response = Response::builder()
            .header("content-type", "text/html; charset=utf-8")
            .header("cache-control", "public, max-age=3600")
            .header("etag", format!("\"{path}\""))
            .header("last-modified", "Sat, 01 Aug 2026 12:00:00 GMT")
            .header("content-language", "en")
            .header("x-content-type-options", "nosniff")
            .header("surrogate-key", format!("page{path} all"));
        if !self.vary.is_empty() {
            response = response.header("vary", self.vary);
        }
        response.body(Full::new(self.page.clone())).unwrap()
    }
}

impl Service<Request<Full<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (origin, path) = (self.clone(), request.uri().path().to_owned());
        Box::pin(async move {
            if !origin.delay.is_zero() {
                sleep(origin.delay).await;
            }
            Ok(origin.answer(&path))
        })
    }
}

/// What stands between callers and the origin.
#[derive(Clone)]
pub(crate) struct Stack(ReadThrough<Origin, MemoryStore>);

impl Stack {
    /// Without a second tier.
    pub(crate) fn alone(origin: &Origin) -> Self {
        // As the store of a node with a tier has to be.
        let layer = ReadThroughLayer::builder(store()).build().unwrap();
        Self(layer.layer(origin.clone()))
    }

    /// The body for a path, read to its end.
    pub(crate) async fn get(&mut self, path: &str, accept: &str) -> Bytes {
        let mut request = Request::get(format!("http://h{path}"));
        if !accept.is_empty() {
            request = request.header("accept-language", accept);
        }
        let request = request.body(Full::default()).unwrap();
        let response = self.0.ready().await.unwrap().call(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    }
}

fn store() -> MemoryStore {
    MemoryStore::builder(1 << 30).snapshots(true).build().unwrap()
}

/// A stack with a second tier.
pub(crate) struct Node {
    pub(crate) stack: Stack,
    pub(crate) tier: Tier,
    _cluster: Cluster,
}

impl Node {
    /// A node that follows the log, and is connected.
    pub(crate) async fn start(url: &str, namespace: &str, origin: &Origin) -> Self {
        let remote = patient_remote(url, namespace).await;
        Self::over(remote, url, namespace, origin).await
    }

    pub(crate) async fn over(remote: impl Remote, url: &str, namespace: &str, origin: &Origin) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tier = Tier::builder(remote).build().unwrap();
        let layer = ReadThroughLayer::builder(store()).second_tier(tier.clone()).build().unwrap();
        let name = format!("n{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let cluster = Cluster::builder(url, layer.purge()).namespace(namespace).node(name).open().unwrap();
        while !cluster.status().is_caught_up {
            sleep(Duration::from_millis(5)).await;
        }
        Self { stack: Stack(layer.layer(origin.clone())), tier, _cluster: cluster }
    }

    /// Returns when all is written, or given up.
    pub(crate) async fn written(&self) {
        assert_eq!(self.tier.flush(Duration::from_secs(60)).await.left, 0);
    }
}

/// Where no time is tested, a busy machine must not make a miss of a hit.
pub(crate) async fn patient_remote(url: &str, namespace: &str) -> RedisRemote {
    let remote = RedisRemote::builder(url).namespace(namespace).read_timeout(Duration::from_secs(1));
    connected(remote.open().unwrap()).await
}

pub(crate) async fn connected(remote: RedisRemote) -> RedisRemote {
    while !remote.status().is_connected {
        sleep(Duration::from_millis(5)).await;
    }
    remote
}
