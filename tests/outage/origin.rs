//! An origin with workers, which becomes slower when too much is in it, and may die of it.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{sync::oneshot, time::Instant};
use tower::Service;

/// What the origin does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// It takes as long as it takes.
    Work,
    /// The connection is refused.
    Refuse,
    /// It answers with this status.
    Status(u16),
    Hang,
    /// It fails with this probability, and works otherwise.
    Fail(f64),
    /// It answers after so many seconds, however much is in it.
    After(f64),
    /// It lets so many a second through, and sends 429 with `Retry-After: 2` to the rest.
    Rate(f64),
}

/// What kind of origin it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) workers: usize,
    /// Seconds of work for a request.
    pub(crate) cost: f64,
    /// The share of its speed with which it begins after it was away, to become whole in a minute.
    pub(crate) cold: f64,
    /// With so many requests in it, it dies: all are refused, and so is what comes in the next ten seconds.
    pub(crate) dies_at: usize,
    pub(crate) seed: u64,
    /// After so many seconds a request is given up.
    pub(crate) timeout: Option<f64>,
}

impl Default for Model {
    fn default() -> Self {
        Self { workers: 10, cost: 0.05, cold: 1.0, dies_at: usize::MAX, seed: 11, timeout: None }
    }
}

type Mode = dyn Fn(f64, i64) -> Way + Send + Sync;

#[derive(Clone)]
pub(crate) struct Origin {
    shared: Arc<Shared>,
}

struct Shared {
    model: Model,
    mode: Box<Mode>,
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    /// `None`: the store is filled beforehand.
    start: Option<Instant>,
    /// `None`: it becomes warm from the first request on that it works for.
    warm_since: Option<f64>,
    dead_until: f64,
    generation: u64,
    queue: VecDeque<oneshot::Sender<bool>>,
    working: HashMap<u64, oneshot::Sender<bool>>,
    next_job: u64,
    tokens: (f64, f64),
    counts: Counts,
}

/// What came to the origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) calls_by_second: Vec<u64>,
    pub(crate) good: u64,
    pub(crate) too_many: u64,
    pub(crate) deaths: u32,
    pub(crate) under_way: usize,
    /// The most that were in it at the same time, where it works.
    pub(crate) most_inside: usize,
}

impl Counts {
    pub(crate) fn between(&self, from: f64, to: f64) -> u64 {
        self.calls_by_second.iter().take(to as usize).skip(from as usize).sum()
    }
}

/// The connection was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection refused")
    }
}

impl std::error::Error for Refused {}

impl Origin {
    pub(crate) fn new(model: Model, mode: impl Fn(f64, i64) -> Way + Send + Sync + 'static) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(model.seed),
            start: None,
            warm_since: None,
            dead_until: -1.0,
            generation: 0,
            queue: VecDeque::new(),
            working: HashMap::new(),
            next_job: 0,
            tokens: (1.0, 0.0),
            counts: Counts::default(),
        };
        Self { shared: Arc::new(Shared { model, mode: Box::new(mode), state: Mutex::new(state) }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no model panics")
    }

    /// From now on it is what its mode says.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        state.start = Some(Instant::now());
        state.counts = Counts::default();
    }

    /// Makes it warm, as after a long time at work.
    pub(crate) fn warm(&self) {
        self.lock().warm_since = Some(f64::NEG_INFINITY);
    }

    /// Makes it cold, as after a restart.
    pub(crate) fn cool(&self) {
        self.lock().warm_since = None;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    async fn answer(self, key: i64) -> Result<Response<Full<Bytes>>, Refused> {
        let _under_way = UnderWay::begin(&self);
        match self.way(key) {
            None => {
                sleep(self.shared.model.cost).await;
                Ok(good(key))
            }
            Some(Way::Refuse) => {
                sleep(0.001).await;
                Err(Refused)
            }
            Some(Way::Status(status)) => {
                sleep(0.005).await;
                Ok(bad(status))
            }
            Some(Way::Hang) => std::future::pending().await,
            Some(Way::After(seconds)) => {
                sleep(seconds).await;
                self.lock().counts.good += 1;
                Ok(good(key))
            }
            Some(Way::Work | Way::Fail(_) | Way::Rate(_)) => match self.take_in().await {
                Ok(true) => Ok(good(key)),
                _ => Err(Refused),
            },
        }
    }

    /// What becomes of a request, as far as that is known when it comes. `None`: the store is filled.
    fn way(&self, key: i64) -> Option<Way> {
        let mut state = self.lock();
        let t = state.start?.elapsed().as_secs_f64();
        let State { counts, rng, tokens, .. } = &mut *state;
        counts.calls += 1;
        let second = t as usize;
        counts.calls_by_second.resize(counts.calls_by_second.len().max(second + 1), 0);
        counts.calls_by_second[second] += 1;
        let way = match (self.shared.mode)(t, key) {
            Way::Fail(share) if rng.f64() < share => Way::Status(503),
            Way::Rate(rate) => {
                let filled = (tokens.0 + (t - tokens.1) * rate).min(rate);
                let passes = filled >= 1.0;
                *tokens = (filled - f64::from(u8::from(passes)), t);
                counts.too_many += u64::from(!passes);
                if passes { Way::Work } else { Way::Status(429) }
            }
            way => way,
        };
        let is_dead = t < state.dead_until;
        Some(if is_dead { Way::Refuse } else { way })
    }

    fn take_in(&self) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.lock();
        state.queue.push_back(answer);
        let inside = state.working.len() + state.queue.len();
        state.counts.most_inside = state.counts.most_inside.max(inside);
        if inside > self.shared.model.dies_at {
            self.die(&mut state);
        }
        self.go_on(&mut state);
        answered
    }

    fn go_on(&self, state: &mut State) {
        let Model { workers, cost, cold, .. } = self.shared.model;
        while state.working.len() < workers
            && let Some(answer) = state.queue.pop_front()
        {
            let t = state.start.map_or(0.0, |start| start.elapsed().as_secs_f64());
            let since = *state.warm_since.get_or_insert(t);
            let speed = (cold + (1.0 - cold) * (t - since) / 60.0).min(1.0);
            let inside = state.working.len() + 1 + state.queue.len();
            let crowd = inside.saturating_sub(2 * workers) as f64 / (8 * workers) as f64;
            let seconds = cost * (0.5 + state.rng.f64()) * (1.0 + crowd) / speed;
            state.next_job += 1;
            let (job, generation) = (state.next_job, state.generation);
            state.working.insert(job, answer);
            // It goes on also if the caller has gone.
            let origin = self.clone();
            tokio::spawn(async move {
                sleep(seconds).await;
                origin.finish(job, generation);
            });
        }
    }

    fn finish(&self, job: u64, generation: u64) {
        let mut state = self.lock();
        if generation == state.generation
            && let Some(answer) = state.working.remove(&job)
        {
            state.counts.good += 1;
            _ = answer.send(true);
            self.go_on(&mut state);
        }
    }

    fn die(&self, state: &mut State) {
        let t = state.start.map_or(0.0, |start| start.elapsed().as_secs_f64());
        state.counts.deaths += 1;
        state.generation += 1;
        (state.dead_until, state.warm_since) = (t + 10.0, None);
        let working = state.working.drain().map(|(_, answer)| answer);
        let victims: Vec<_> = working.chain(state.queue.drain(..)).collect();
        victims.into_iter().for_each(|victim| _ = victim.send(false));
    }
}

struct UnderWay<'a>(&'a Origin);

impl<'a> UnderWay<'a> {
    fn begin(origin: &'a Origin) -> Self {
        origin.lock().counts.under_way += 1;
        Self(origin)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let counts = &mut self.0.lock().counts;
        counts.under_way = counts.under_way.saturating_sub(1);
    }
}

async fn sleep(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// What is asked for once is not stored.
fn good(key: i64) -> Response<Full<Bytes>> {
    let response = Response::builder();
    let response = if key < 0 { response.header("cache-control", "no-store") } else { response };
    response.body(Full::from("x")).expect("the response is valid")
}

fn bad(status: u16) -> Response<Full<Bytes>> {
    let response = Response::builder().status(StatusCode::from_u16(status).expect("a status"));
    let response = if status == 429 { response.header("retry-after", "2") } else { response };
    response.body(Full::default()).expect("the response is valid")
}

/// The key that a request is for: its path.
pub(crate) fn key_of<B>(request: &Request<B>) -> i64 {
    request.uri().path()[1..].parse().expect("the path is a number")
}

impl<B> Service<Request<B>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.clone().answer(key_of(&request));
        match self.shared.model.timeout {
            None => Box::pin(answer),
            Some(seconds) => Box::pin(async move {
                let answer = tokio::time::timeout(Duration::from_secs_f64(seconds), answer);
                answer.await.unwrap_or(Err(Refused))
            }),
        }
    }
}
