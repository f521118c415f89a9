//! Promises about each step of any schedule: requests, weather at the origin, clients that leave, and time.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use proptest::{prelude::*, test_runner::RngSeed};
use tokio::{task::JoinHandle, time::Instant};
use tower::{Layer, Service, ServiceExt};
use tower_readthrough::{
    CacheRequest, MemoryStore, OriginHealth, OriginLimitLayer, OriginState, Purpose, ReadThrough,
    ReadThroughLayer, RetryPolicy, Rules,
};

use crate::{
    origin::{Refused, key_of},
    run,
};

const KEYS: i64 = 6;
const DEADLINE: Duration = Duration::from_secs(8);
/// The least that there is between a failure and the next fetch for a key, and between two probes.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Weather {
    /// It answers after so many milliseconds.
    Good(u64),
    Bad,
    Refuses,
    Hangs,
    TooMany,
}

#[derive(Clone, Debug)]
enum Step {
    /// For a key that is stored.
    Request(i64),
    /// For one that is asked for once.
    Unique,
    Weather(Weather),
    /// A client leaves.
    Leave(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let weather = prop_oneof![
        3 => (0..3_000_u64).prop_map(Weather::Good),
        2 => Just(Weather::Bad),
        2 => Just(Weather::Refuses),
        2 => Just(Weather::Hangs),
        1 => Just(Weather::TooMany),
    ];
    let step = prop_oneof![
        10 => (0..KEYS).prop_map(Step::Request),
        6 => Just(Step::Unique),
        2 => weather.prop_map(Step::Weather),
        1 => any::<usize>().prop_map(Step::Leave),
        4 => (0..2_500_u64).prop_map(Step::Wait),
        1 => (2_500..40_000_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    permits: usize,
    revalidates: bool,
    is_patient: bool,
    retries: bool,
    fails_fast: bool,
    seed: u64,
}

fn settings() -> impl Strategy<Value = Settings> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (1..12_usize, switches, any::<u64>()).prop_map(
        |(permits, (revalidates, is_patient, retries, fails_fast), seed)| Settings {
            permits,
            revalidates,
            is_patient,
            retries,
            fails_fast,
            seed,
        },
    )
}

/// An origin that is as the weather is, and notes what comes to it.
#[derive(Clone)]
struct Sky(Arc<Mutex<Seen>>);

struct Seen {
    weather: Weather,
    calls: Vec<i64>,
    answers: usize,
    /// By key, and whether it is in the background. A probe is, and does not wait for a client's fetch that hangs.
    under_way: HashSet<(i64, bool)>,
    /// What is known of the pauses of keys.
    pauses: HashMap<i64, Pause>,
    sent: HashMap<i64, Instant>,
    faults: Vec<String>,
}

/// From the last failure on that began a pause for sure.
#[derive(Clone, Copy)]
struct Pause {
    /// Until then there is one for sure, …
    least: Instant,
    /// … and after that there is none for sure.
    most: Instant,
}

impl Sky {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Seen {
            weather: Weather::Good(0),
            calls: Vec::new(),
            answers: 0,
            under_way: HashSet::new(),
            pauses: HashMap::new(),
            sent: HashMap::new(),
            faults: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("nothing panics")
    }

    async fn answer(self, key: i64, is_refresh: bool) -> Result<Response<Full<Bytes>>, Refused> {
        let mut call = Call::begin(&self, key, is_refresh);
        let weather = self.lock().weather;
        let respond = |status, fields: &[(&str, &str)]| {
            let response = Response::builder().status(status);
            let response =
                fields.iter().fold(response, |response, (name, value)| response.header(*name, *value));
            response.body(Full::from("x")).expect("the response is valid")
        };
        match weather {
            Weather::Good(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                call.is_answered();
                let fields: &[_] = if key < 0 { &[("cache-control", "no-store")] } else { &[] };
                Ok(respond(StatusCode::OK, fields))
            }
            Weather::Bad => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(respond(StatusCode::SERVICE_UNAVAILABLE, &[]))
            }
            Weather::TooMany => {
                call.is_alive();
                Ok(respond(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "1")]))
            }
            Weather::Refuses => Err(Refused),
            Weather::Hangs => std::future::pending().await,
        }
    }
}

/// A request at the origin. When it ends without an answer, it has failed.
struct Call {
    sky: Sky,
    key: i64,
    is_refresh: bool,
    is_good: bool,
}

impl Call {
    fn begin(sky: &Sky, key: i64, is_refresh: bool) -> Self {
        let mut seen = sky.lock();
        let is_first = !seen.calls.contains(&key);
        seen.calls.push(key);
        if !seen.under_way.insert((key, is_refresh)) {
            seen.faults.push(format!("two fetches for {key} at the same time"));
        }
        let sent = seen.sent.get(&key).copied();
        if let Some(sent) = sent.filter(|_| is_first && key < 0)
            && sent.elapsed() > DEADLINE / 2 + Duration::from_millis(2)
        {
            seen.faults.push(format!("{key} has waited for {:?}", sent.elapsed()));
        }
        Self { sky: sky.clone(), key, is_refresh, is_good: false }
    }

    fn is_answered(&mut self) {
        let mut seen = self.sky.lock();
        seen.answers += 1;
        seen.pauses.remove(&self.key);
        self.is_good = true;
    }

    fn is_alive(&mut self) {
        self.sky.lock().answers += 1;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut seen = self.sky.lock();
        seen.under_way.remove(&(self.key, self.is_refresh));
        if self.is_good {
            return;
        }
        let now = Instant::now();
        let before = seen.pauses.get(&self.key).copied();
        let pause = match before {
            // It may have been within a pause, which it does not make longer then.
            Some(Pause { least, most }) if now < most => Pause { least, most: now + LONGEST_PAUSE },
            _ => Pause { least: now + LEAST_PAUSE, most: now + LONGEST_PAUSE },
        };
        seen.pauses.insert(self.key, pause);
    }
}

impl<B> Service<Request<B>> for Sky {
    type Response = Response<Full<Bytes>>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asked = request.extensions().get::<CacheRequest>();
        let is_refresh = asked.is_some_and(|asked| asked.purpose() == Purpose::Refresh);
        Box::pin(self.clone().answer(key_of(&request), is_refresh))
    }
}

type Reply = Result<StatusCode, ()>;

struct Client {
    key: i64,
    task: JoinHandle<Reply>,
}

struct Bench {
    settings: Settings,
    sky: Sky,
    health: OriginHealth,
    layer: ReadThroughLayer<MemoryStore>,
    service: ReadThrough<Sky, MemoryStore>,
    clients: Vec<Client>,
    unique: i64,
    /// When the last probe began, and what there was when the origin was down first, with no answer since.
    probed: Option<Instant>,
    down: Option<Down>,
}

#[derive(Clone, Copy)]
struct Down {
    calls: usize,
    answers: usize,
    flights: usize,
    /// Those since then that need the origin, and those that it has got as a probe.
    requests: usize,
}

async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}

impl Bench {
    async fn new(settings: Settings) -> Self {
        let second = Duration::from_secs(1);
        let rules = Rules::new()
            .default_ttl(5 * second)
            .stale_while_revalidate_for(if settings.revalidates {
                1_000_000 * second
            } else {
                Duration::ZERO
            })
            .stale_if_error_for(1_000_000 * second);
        let health = OriginHealth::builder()
            .seed(settings.seed)
            .fail_fast(settings.fails_fast)
            .build()
            .expect("it works");
        let builder = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
            .rules(rules)
            .outage(health.clone())
            .coalesce(|layer| {
                let layer = layer.fetch_deadline(DEADLINE);
                if settings.is_patient { layer } else { layer.stale_after(Duration::from_millis(100)) }
            })
            .origin_limit(OriginLimitLayer::new(settings.permits).max_queue(6).max_queue_wait(DEADLINE));
        let builder = if settings.retries { builder.retry(RetryPolicy::new()) } else { builder };
        let layer = builder.build().expect("the settings make sense");
        let sky = Sky::new();
        let service = layer.layer(sky.clone());
        let clients = Vec::new();
        let mut bench =
            Self { settings, sky, health, layer, service, clients, unique: 0, probed: None, down: None };
        (0..KEYS).for_each(|key| bench.send(key));
        tokio::time::sleep(second).await;
        bench.clients.clear();
        tokio::time::advance(5 * second).await;
        bench
    }

    fn send(&mut self, key: i64) {
        self.sky.lock().sent.insert(key, Instant::now());
        let request = Request::get(format!("http://origin/{key}")).body(Empty::<Bytes>::new());
        let response = self.service.clone().oneshot(request.expect("the request is valid"));
        let task = tokio::spawn(async move {
            let response = response.await.map_err(drop)?;
            let status = response.status();
            response.into_body().collect().await.map_err(drop)?;
            Ok(status)
        });
        self.clients.push(Client { key, task });
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Request(key) => self.request(key).await?,
            Step::Unique => {
                self.unique -= 1;
                self.send(self.unique);
                self.down.iter_mut().for_each(|down| down.requests += 1);
                settle().await;
            }
            Step::Weather(weather) => self.sky.lock().weather = weather,
            Step::Leave(which) if !self.clients.is_empty() => {
                let client = self.clients.swap_remove(which % self.clients.len());
                client.task.abort();
                settle().await;
            }
            Step::Leave(_) => {}
            Step::Wait(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                settle().await;
            }
        }
        self.check()
    }

    /// Sends a request for a key that is stored, and looks at what it does at once.
    async fn request(&mut self, key: i64) -> Result<(), TestCaseError> {
        let (state, now) = (self.health.state(), Instant::now());
        let (calls, pause) = {
            let seen = self.sky.lock();
            (seen.calls.len(), seen.pauses.get(&key).copied())
        };
        self.send(key);
        settle().await;
        let new = self.sky.lock().calls.len() - calls;
        self.down.iter_mut().for_each(|down| down.requests += new);
        let is_paused = pause.is_some_and(|pause| now < pause.least);
        let is_answered = self.clients.last().is_some_and(|client| client.task.is_finished());
        match state {
            OriginState::Down => {
                prop_assert!(new <= 1, "{} fetches begin while the origin is down", new);
                prop_assert!(is_answered, "a client waits for an origin that is down");
                if new == 1 {
                    let since = self.probed.map(|probed| now - probed);
                    prop_assert!(since.is_none_or(|since| since >= LEAST_PAUSE), "a probe after {:?}", since);
                    self.probed = Some(now);
                }
            }
            _ if is_paused => {
                prop_assert_eq!(new, 0, "a key that rests is fetched");
                prop_assert!(is_answered, "a client waits for a key that rests");
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let (flights, state) = (self.layer.coalesce_stats().fetches, self.health.state());
        let seen = self.sky.lock();
        prop_assert_eq!(&seen.faults, &Vec::<String>::new());
        let under_way = seen.under_way.len();
        prop_assert!(under_way <= self.settings.permits + 1, "{} under way", under_way);
        // Without an answer nothing is tried again: no more fetches than requests.
        let now = Down { calls: seen.calls.len(), answers: seen.answers, flights, requests: 0 };
        self.down = match self.down.filter(|down| state == OriginState::Down && down.answers == now.answers) {
            Some(down) => {
                let fetches = now.calls - down.calls;
                prop_assert!(fetches <= down.requests + down.flights, "{} fetches", fetches);
                Some(down)
            }
            None => Some(now).filter(|_| state == OriginState::Down),
        };
        Ok(())
    }

    /// Everything ends, and the origin is up again.
    async fn end(mut self) -> Result<(), TestCaseError> {
        self.sky.lock().weather = Weather::Good(1);
        tokio::time::sleep(DEADLINE + Duration::from_secs(1)).await;
        settle().await;
        let left = (self.layer.coalesce_stats().fetches, self.sky.lock().under_way.len());
        prop_assert_eq!(left, (0, 0), "fetches and calls are left after the deadline");
        for client in std::mem::take(&mut self.clients) {
            prop_assert!(client.task.is_finished(), "{} waits", client.key);
            let reply = client.task.await.expect("no client panics");
            let is_served = matches!(reply, Ok(StatusCode::OK | StatusCode::TOO_MANY_REQUESTS));
            prop_assert!(client.key < 0 || is_served, "{}: {:?} although it is stored", client.key, reply);
        }
        for round in 0.. {
            (0..KEYS).for_each(|key| self.send(key));
            tokio::time::sleep(Duration::from_secs(11)).await;
            if round > 0 {
                prop_assert_ne!(self.health.state(), OriginState::Down, "after a success");
            }
            if self.health.state() == OriginState::Up {
                break;
            }
            prop_assert!(round < 5, "the origin is not up again");
        }
        // All permits are there again.
        self.sky.lock().weather = Weather::Hangs;
        for _ in 0..self.settings.permits {
            self.unique -= 1;
            self.send(self.unique);
        }
        settle().await;
        prop_assert_eq!(self.sky.lock().under_way.len(), self.settings.permits);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, rng_seed: RngSeed::Fixed(5861), ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold_at_each_step(settings in settings(), steps in steps()) {
        run(async {
            let mut bench = Bench::new(settings).await;
            for step in &steps {
                bench.step(step).await?;
            }
            bench.end().await
        })?;
    }
}
