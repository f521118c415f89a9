//! Clients that ask for pages at a steady rate, whatever becomes of their requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Request;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;
use tower_readthrough::CacheStatus;

use crate::cache::{ReqBody, Stack};

const PAGES: u32 = 500;

/// What became of the requests of some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) stale: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
}

/// The clients. They end with the program.
pub(crate) struct Load(Arc<Counters>);

impl Load {
    pub(crate) fn begin(stack: Stack, rate: u32) -> Self {
        let counters = Arc::<Counters>::default();
        let shared = Arc::clone(&counters);
        tokio::spawn(async move {
            let began = Instant::now();
            for number in 0_u32.. {
                sleep_until(began + Duration::from_secs(1) * number / rate).await;
                tokio::spawn(ask(stack.clone(), Arc::clone(&shared)));
            }
        });
        Self(counters)
    }

    /// What ended since the last call.
    pub(crate) fn take(&self) -> Counts {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let Counters { requests, failed, stale } = &*self.0;
        Counts { requests: take(requests), failed: take(failed), stale: take(stale) }
    }
}

fn page(number: u32) -> Option<Request<ReqBody>> {
    Request::get(format!("http://site.example/{number}")).body(ReqBody::default()).ok()
}

/// A request for each page.
pub(crate) fn all_pages() -> impl Iterator<Item = Request<ReqBody>> {
    (0..PAGES).filter_map(page)
}

async fn ask(stack: Stack, counters: Arc<Counters>) {
    let Some(request) = page(fastrand::u32(..PAGES)) else { return };
    let response = stack.oneshot(request).await;
    let is_stale = response.as_ref().is_ok_and(|response| {
        CacheStatus::of(response).is_some_and(|status| status.stale_reason().is_some())
    });
    let is_whole = match response {
        Ok(response) if response.status().is_success() => response.into_body().collect().await.is_ok(),
        _ => false,
    };
    counters.requests.fetch_add(1, Ordering::Relaxed);
    counters.failed.fetch_add(u64::from(!is_whole), Ordering::Relaxed);
    counters.stale.fetch_add(u64::from(is_stale), Ordering::Relaxed);
}
