//! The shop: makes pages slowly, a limited number at a time.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

/// The number of pages at a time, and the time that one takes; together, the capacity.
const WORKERS: usize = 40;
const PAGE_TIME: Duration = Duration::from_millis(8);
/// Requests that may wait for a worker; further ones get 503.
const QUEUE: usize = 1024;

/// A handle to the shop and to what it counts.
#[derive(Clone)]
pub(crate) struct Origin {
    shared: Arc<Shared>,
}

struct Shared {
    workers: Semaphore,
    queue: Semaphore,
    calls: AtomicU64,
    busy_micros: AtomicU64,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            workers: Semaphore::new(WORKERS),
            queue: Semaphore::new(QUEUE),
            calls: AtomicU64::new(0),
            busy_micros: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Requests that arrived, the refused ones included.
    pub(crate) fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// The share of this time that the workers were busy.
    pub(crate) fn busy_share(&self, time: Duration) -> f64 {
        let busy = Duration::from_micros(self.shared.busy_micros.load(Ordering::Relaxed));
        busy.as_secs_f64() / (time.as_secs_f64() * WORKERS as f64)
    }

    pub(crate) async fn serve(self, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let shop = self.clone();
            let service = service_fn(move |request| {
                let shop = shop.clone();
                async move { Ok::<_, Infallible>(shop.answer(&request).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let Shared { workers, queue, calls, busy_micros } = &*self.shared;
        calls.fetch_add(1, Ordering::Relaxed);
        let worker = match workers.try_acquire() {
            Ok(worker) => Ok(worker),
            Err(_) => match queue.try_acquire() {
                Ok(_place) => workers.acquire().await.map_err(|_| ()),
                Err(_) => Err(()),
            },
        };
        let Ok(_worker) = worker else {
            let mut refusal = Response::new(Full::from("too busy\n"));
            *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return refusal;
        };
        let began = Instant::now();
        tokio::time::sleep(PAGE_TIME).await;
        let busy = began.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        busy_micros.fetch_add(busy, Ordering::Relaxed);
        Response::new(Full::from(page(request)))
    }
}

/// About 2 KiB.
fn page(request: &Request<Incoming>) -> String {
    let product = request.uri().query().unwrap_or_default();
    format!("<html><h1>Product {product}</h1>{}</html>\n", "<p>Very cheap, today only.</p>".repeat(64))
}
