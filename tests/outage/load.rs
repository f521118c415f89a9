//! Requests as they come to a cache: at random, some keys much more often than others.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Empty};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_readthrough::CacheStatus;

/// Keys of which the first ones are asked for most: Zipf, with 0.9.
#[derive(Clone, Debug)]
pub(crate) struct Popularity(Arc<[f64]>);

impl Popularity {
    pub(crate) fn new(keys: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += (rank as f64).powf(-0.9);
            sum
        });
        Self(sums.collect())
    }

    /// All keys alike.
    fn even(keys: usize) -> Self {
        Self((1..=keys).map(|rank| rank as f64).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn pick(&self, rng: &mut fastrand::Rng) -> i64 {
        let at = rng.f64() * self.0.last().copied().unwrap_or_default();
        self.0.partition_point(|sum| *sum < at).min(self.len() - 1) as i64
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) keys: Popularity,
    /// Requests a second for these keys, and for keys that are asked for once.
    pub(crate) stored: f64,
    pub(crate) unique: f64,
    /// POSTs a second.
    pub(crate) posts: f64,
    /// How long a client stays.
    pub(crate) patience: Option<Duration>,
    /// For what cannot be stored: the class of each, at random. Empty: there are none.
    pub(crate) classes: &'static [u8],
}

impl Load {
    pub(crate) fn new(keys: usize, stored: f64, unique: f64) -> Self {
        let keys = Popularity::new(keys);
        Self { keys, stored, unique, posts: 0.0, patience: None, classes: &[] }
    }

    /// For so many keys that are asked for equally often.
    pub(crate) fn even(keys: usize, stored: f64) -> Self {
        Self { keys: Popularity::even(keys), ..Self::new(1, stored, 0.0) }
    }
}

/// What clients got in one second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Second {
    pub(crate) hit: u64,
    pub(crate) stale: u64,
    /// From the origin.
    pub(crate) fresh: u64,
    pub(crate) failed: u64,
}

/// What clients got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) requests: u64,
    pub(crate) seconds: Vec<Second>,
    /// How long those waited that got something stale.
    pub(crate) stale_waits: Vec<Duration>,
    /// By class or kind: how many there were, and how many got a response in time.
    pub(crate) by_class: [(u64, u64); 8],
}

impl Got {
    pub(crate) fn sum(&self, from: f64, to: f64) -> Second {
        let seconds = self.seconds.iter().take(to as usize).skip(from as usize);
        seconds.fold(Second::default(), |sum, second| Second {
            hit: sum.hit + second.hit,
            stale: sum.stale + second.stale,
            fresh: sum.fresh + second.fresh,
            failed: sum.failed + second.failed,
        })
    }

    pub(crate) fn total(&self) -> Second {
        self.sum(0.0, f64::MAX)
    }

    /// The share of stale responses, in percent.
    pub(crate) fn stale_share(&self, from: f64, to: f64) -> f64 {
        let Second { hit, stale, fresh, failed } = self.sum(from, to);
        percent(stale, hit + stale + fresh + failed)
    }

    /// From which second after this one on at least this share was fresh for five seconds.
    pub(crate) fn fresh_after(&self, from: f64, share: f64) -> Option<usize> {
        (from as usize..self.seconds.len().saturating_sub(5))
            .find(|second| {
                let second = *second as f64;
                self.stale_share(second, second + 5.0) <= 100.0 - share
            })
            .map(|second| second - from as usize)
    }

    /// How long the slowest of so many percent of the stale responses waited.
    pub(crate) fn stale_wait(&self, percentile: f64) -> Duration {
        let mut waits = self.stale_waits.clone();
        waits.sort_unstable();
        let at = (waits.len() as f64 * percentile / 100.0) as usize;
        waits.get(at.min(waits.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub(crate) fn served(&self, class: usize) -> f64 {
        let (asked, served) = self.by_class[class];
        percent(served, asked)
    }
}

pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// The classes of a request that say so: GETs of stored keys, and POSTs.
pub(crate) const GET: usize = 6;
pub(crate) const POST: usize = 7;

#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    class: usize,
}

/// Clients of one service.
#[derive(Clone)]
pub(crate) struct Clients<S> {
    service: S,
    start: Instant,
    got: Arc<Mutex<Got>>,
    patience: Option<Duration>,
}

impl<S, B> Clients<S>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Future: Send> + Clone + Send + Sync + 'static,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    pub(crate) fn new(service: S) -> Self {
        Self { service, start: Instant::now(), got: Arc::default(), patience: None }
    }

    pub(crate) fn got(&self) -> Got {
        self.got.lock().expect("nothing panics").clone()
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Sends this load until so many seconds after the start, and then waits for what is under way.
    pub(crate) async fn send(&mut self, load: &Load, until: f64, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        self.patience = load.patience;
        let rates = [load.stored, load.unique, load.posts];
        let rate: f64 = rates.iter().sum();
        let (mut t, mut unique) = (self.seconds(), 0_i64);
        loop {
            t -= (1.0 - rng.f64()).ln() / rate;
            if t >= until {
                break;
            }
            tokio::time::sleep_until(self.start + Duration::from_secs_f64(t)).await;
            let which = rng.f64() * rate;
            if which < rates[0] {
                self.request(Method::GET, load.keys.pick(&mut rng), GET).await;
                continue;
            }
            unique -= 1;
            let is_get = which < rates[0] + rates[1];
            let class = rng.choice(load.classes).copied().map_or(0, usize::from);
            match is_get {
                true => self.request(Method::GET, unique, class).await,
                false => self.request(Method::POST, unique, POST).await,
            }
        }
    }

    async fn request(&self, method: Method, key: i64, class: usize) {
        let mut request = Request::builder().method(method).uri(format!("http://origin/{key}"));
        if class > 0 && class < GET {
            request = request.header("class", class);
        }
        let request = request.body(Empty::new()).expect("the request is valid");
        let sent = Sent { at: Instant::now(), class };
        let response = self.service.clone().oneshot(request);
        let mut response = Box::pin(response);
        // What is stored is there at once.
        let at_once = std::future::poll_fn(|cx| Poll::Ready(response.as_mut().poll(cx))).await;
        {
            let mut got = self.got.lock().expect("nothing panics");
            got.requests += 1;
            got.by_class[class].0 += 1;
        }
        if let Poll::Ready(response) = at_once {
            self.note(response.as_ref().ok(), sent);
            return;
        }
        let clients = self.clone();
        tokio::spawn(async move {
            let response = async { response.await.ok() };
            let response = match clients.patience {
                Some(patience) => tokio::time::timeout(patience, response).await.unwrap_or_default(),
                None => response.await,
            };
            clients.note(response.as_ref(), sent);
            if let Some(response) = response {
                _ = response.into_body().collect().await;
            }
        });
    }

    fn note(&self, response: Option<&Response<B>>, Sent { at, class }: Sent) {
        let status = response.and_then(CacheStatus::of);
        let is_good = response.is_some_and(|response| response.status().is_success());
        let mut got = self.got.lock().expect("nothing panics");
        let second = self.seconds() as usize;
        if got.seconds.len() <= second {
            got.seconds.resize(second + 1, Second::default());
        }
        got.by_class[class].1 += u64::from(is_good);
        let counts = &mut got.seconds[second];
        match status {
            _ if !is_good => counts.failed += 1,
            Some(status) if status.stale_reason().is_some() => {
                counts.stale += 1;
                got.stale_waits.push(at.elapsed());
            }
            Some(status) if status.is_hit() => counts.hit += 1,
            _ => counts.fresh += 1,
        }
    }
}
