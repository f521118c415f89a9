//! Fills a store before clients ask for what is in it.
//!
//! [`warm_up`] sends a list of requests through a cache, a few at a time, and reads each response to its
//! end, so that it is stored as if a client had asked for it. What is stored already and fresh costs the origin
//! nothing; what is stale is fetched, also where a client would be served at once, unless the last fetch failed a moment
//! ago or the origin is not up. With an [origin limit](crate::OriginLimit) warm-up takes only permits that the requests of clients
//! leave: below half of them, and without a place in the queue.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, service_fn};
//! use tower_readthrough::{ReadThroughLayer, warm_up::warm_up};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let cache = ServiceBuilder::new()
//!     .layer(ReadThroughLayer::with_ttl(Duration::from_secs(60)))
//!     .service(service_fn(async |_: Request<Full<Bytes>>| {
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//!     }));
//! let pages = ["/", "/about"].map(|path| {
//!     Request::get(format!("http://example.com{path}")).body(Full::default()).unwrap()
//! });
//! let report = warm_up(&cache, pages, 8).await;
//! assert_eq!((report.stored, report.total), (2, 2));
//! # }
//! ```

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use crate::{
    exchange::{Refused, WarmUp, status::CacheStatus},
    executor::Executor,
};

/// How many requests a report names.
pub const MAX_REPORTED: usize = 1_000;

/// How long a request waits that got no place at the origin, and how often it does.
const WAIT: Duration = Duration::from_millis(100);
const MAX_WAITS: u32 = 100;

/// What became of the requests of a [`warm_up`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WarmUpReport {
    /// How many there were.
    pub total: usize,
    /// How many responses were stored, by these requests or by others that asked for the same at the time.
    pub stored: usize,
    /// How many were there already, and fresh.
    pub fresh: usize,
    /// How many brought nothing: responses that are not stored, refusals and errors.
    pub not_stored: usize,
    /// What became of each request that brought nothing, in the order in which they ended, and at most
    /// [`MAX_REPORTED`] of them.
    pub failures: Vec<NotWarmed>,
}

/// A request of a [`warm_up`] that brought nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NotWarmed {
    /// What was asked for.
    pub uri: Uri,
    /// The status of the response. `None`: the service returned an error, or the body broke off.
    pub status: Option<StatusCode>,
    /// How the response came about, if there was one; see [`CacheStatus::detail`].
    pub cache_status: Option<CacheStatus>,
}

/// What a request came to.
enum Warmed {
    Stored,
    Fresh,
    Not(NotWarmed),
}

/// Sends these requests through a cache, `concurrency` of them at a time (0 counts as 1), and reads the
/// responses to their ends.
///
/// It ends when all requests have ended, and never earlier: drop the future to stop. A request for which the
/// [origin limit](crate::OriginLimit) has no place tries again for ten seconds. Requests are sent as they
/// are: give them the `Host`, and the fields of `Vary`, that those of clients have.
///
/// # Errors
///
/// Errors of the service are in the report, without their texts.
pub async fn warm_up<S, ReqB, B, E>(
    cache: &S,
    requests: impl IntoIterator<Item = Request<ReqB>>,
    concurrency: usize,
) -> WarmUpReport
where
    S: Service<Request<ReqB>, Response = Response<B>, Error = E> + Clone,
    ReqB: Default,
    B: HttpBody<Data = Bytes>,
    E: fmt::Debug,
{
    let warming = requests.into_iter().map(|request| warm(cache.clone(), request));
    let warmed = stream::iter(warming).buffer_unordered(concurrency.max(1));
    warmed.fold(WarmUpReport::default(), async |report, warmed| report.and(warmed)).await
}

impl WarmUpReport {
    fn and(mut self, warmed: Warmed) -> Self {
        self.total += 1;
        match warmed {
            Warmed::Stored => self.stored += 1,
            Warmed::Fresh => self.fresh += 1,
            Warmed::Not(failure) => {
                self.not_stored += 1;
                if self.failures.len() < MAX_REPORTED {
                    self.failures.push(failure);
                }
            }
        }
        self
    }
}

async fn warm<S, ReqB, B, E>(cache: S, request: Request<ReqB>) -> Warmed
where
    S: Service<Request<ReqB>, Response = Response<B>, Error = E> + Clone,
    ReqB: Default,
    B: HttpBody<Data = Bytes>,
{
    let (mut head, mut body) = request.into_parts();
    head.extensions.insert(WarmUp);
    let mut waits = 0;
    loop {
        let request = Request::from_parts(head.clone(), std::mem::take(&mut body));
        let outcome = cache.clone().oneshot(request).await;
        let has_no_place = outcome.as_ref().is_ok_and(|response| has_no_place(response));
        if !has_no_place || waits == MAX_WAITS || !Executor::is_available() {
            return warmed(head.uri, outcome).await;
        }
        waits += 1;
        tokio::time::sleep(WAIT).await;
    }
}

fn has_no_place<B>(response: &Response<B>) -> bool {
    response.extensions().get::<Refused>() == Some(&Refused::QueueFull)
}

async fn warmed<B: HttpBody<Data = Bytes>, E>(uri: Uri, outcome: Result<Response<B>, E>) -> Warmed {
    let Ok(response) = outcome else {
        return Warmed::Not(NotWarmed { uri, status: None, cache_status: None });
    };
    let (status, cache_status) = (response.status(), CacheStatus::of(&response));
    let is_whole = response.into_body().collect().await.is_ok();
    match cache_status {
        Some(said) if is_whole && said.is_hit() && said.stale_reason().is_none() => Warmed::Fresh,
        Some(said) if is_whole && said.is_stored() => Warmed::Stored,
        _ => Warmed::Not(NotWarmed { uri, status: is_whole.then_some(status), cache_status }),
    }
}
