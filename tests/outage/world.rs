//! A stack in front of an origin, and what is known of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CoalesceLayer, MemoryStore, OriginHealth, OriginLimitLayer, OriginState, ReadThrough, ReadThroughLayer,
    RetryPolicy, Rules,
};

use crate::{
    load::{Clients, Got, Load},
    origin::{self, Model, Origin, Way},
};

type Service = ReadThrough<Origin, MemoryStore>;

/// How the stack is set up. The defaults are those of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) model: Model,
    pub(crate) permits: Option<usize>,
    pub(crate) places: usize,
    pub(crate) ttl: f64,
    /// For how long what is stale is served while it is fetched.
    pub(crate) revalidate_for: f64,
    /// For how long what is stale is served where the origin fails.
    pub(crate) falls_back_for: f64,
    pub(crate) stale_after: Option<f64>,
    pub(crate) wait_at_most: Option<f64>,
    pub(crate) fetch_deadline: Option<f64>,
    pub(crate) fails_fast: bool,
    pub(crate) retries: bool,
    /// Whether what is asked for is stored and stale at first.
    pub(crate) is_stored: bool,
    pub(crate) seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            model: Model::default(),
            permits: Some(64),
            places: 256,
            ttl: 600.0,
            revalidate_for: 0.0,
            falls_back_for: FOR_EVER,
            stale_after: None,
            wait_at_most: None,
            fetch_deadline: Some(60.0),
            fails_fast: false,
            retries: false,
            is_stored: true,
            seed: 5,
        }
    }
}

/// What is stale is served while it is fetched, for as long as it takes.
pub(crate) const FOR_EVER: f64 = 1e7;

pub(crate) struct World {
    pub(crate) origin: Origin,
    pub(crate) health: OriginHealth,
    pub(crate) layer: ReadThroughLayer<MemoryStore>,
    pub(crate) clients: Clients<Service>,
    states: Arc<Mutex<States>>,
}

/// The states of the origin, twenty times a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    by_tick: Vec<OriginState>,
}

const TICKS: f64 = 20.0;

impl States {
    fn is(state: OriginState) -> impl Fn(&&OriginState) -> bool {
        move |known| **known == state
    }

    /// How often the origin left the state in which it is up.
    pub(crate) fn outages(&self) -> usize {
        let pairs = self.by_tick.windows(2);
        pairs.filter(|pair| pair[0] == OriginState::Up && pair[1] != OriginState::Up).count()
    }

    /// The share of the time in which the origin was not up, in percent.
    pub(crate) fn not_up(&self) -> f64 {
        let up = self.by_tick.iter().filter(Self::is(OriginState::Up)).count();
        100.0 - 100.0 * up as f64 / self.by_tick.len().max(1) as f64
    }

    /// How many seconds after this one the origin is in another state than down.
    pub(crate) fn seen_after(&self, seconds: f64) -> Option<f64> {
        let from = (seconds * TICKS) as usize;
        let later = self.by_tick.iter().skip(from);
        later.clone().position(|state| *state != OriginState::Down).map(|ticks| ticks as f64 / TICKS)
    }

    /// How many seconds after this one the origin is up for the first time.
    pub(crate) fn up_after(&self, seconds: f64) -> Option<f64> {
        let later = self.by_tick.iter().skip((seconds * TICKS) as usize);
        later.clone().position(|state| *state == OriginState::Up).map(|ticks| ticks as f64 / TICKS)
    }

    pub(crate) fn last(&self) -> OriginState {
        self.by_tick.last().copied().unwrap_or(OriginState::Up)
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl Setup {
    fn layer(&self, health: &OriginHealth) -> ReadThroughLayer<MemoryStore> {
        let rules = Rules::new()
            .default_ttl(seconds(self.ttl))
            .stale_while_revalidate_for(seconds(self.revalidate_for))
            .stale_if_error_for(seconds(self.falls_back_for));
        let builder = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(8 << 30))
            .rules(rules)
            .coalesce(|layer| self.limits(layer))
            .outage(health.clone());
        let builder = match self.permits {
            Some(permits) => builder.origin_limit(
                OriginLimitLayer::new(permits).max_queue(self.places).max_queue_wait(seconds(60.0)).priority(
                    |head| {
                        let class =
                            head.headers.get("class").and_then(|class| class.to_str().ok()?.parse().ok());
                        class.unwrap_or(if head.method == Method::POST { 1 } else { 3 })
                    },
                ),
            ),
            None => builder,
        };
        let builder = if self.retries { builder.retry(RetryPolicy::new()) } else { builder };
        builder.build().expect("the settings make sense")
    }

    fn limits(&self, layer: CoalesceLayer) -> CoalesceLayer {
        let layer = match self.stale_after {
            Some(time) => layer.stale_after(seconds(time)),
            None => layer,
        };
        let layer = match self.wait_at_most {
            Some(time) => layer.wait_at_most(seconds(time)),
            None => layer,
        };
        match self.fetch_deadline {
            Some(time) => layer.fetch_deadline(seconds(time)),
            None => layer,
        }
    }

    /// A world whose origin does this, at so many seconds after the start, for a key.
    pub(crate) async fn build(
        self,
        keys: usize,
        mode: impl Fn(f64, i64) -> Way + Send + Sync + 'static,
    ) -> World {
        let origin = Origin::new(self.model, mode);
        let health = OriginHealth::builder()
            .seed(self.seed)
            .fail_fast(self.fails_fast)
            .build()
            .expect("the defaults work");
        let layer = self.layer(&health);
        let service = layer.layer(origin.clone());
        if self.is_stored {
            fill(&service, keys, self.permits.unwrap_or(64)).await;
            tokio::time::advance(seconds(self.ttl + 1.0)).await;
        }
        origin.begin();
        let clients = Clients::new(service);
        World { origin, health, layer, clients, states: Arc::default() }
    }
}

/// Stores all keys.
async fn fill(service: &Service, keys: usize, at_a_time: usize) {
    for first in (0..keys).step_by(at_a_time) {
        let all = (first..keys.min(first + at_a_time)).map(|key| get(service, key as i64));
        futures_util::future::join_all(all).await;
    }
}

/// Gets one response, and reads it to its end.
async fn get(service: &Service, key: i64) {
    let request = Request::get(format!("http://origin/{key}")).body(Empty::<Bytes>::new());
    let response = service.clone().oneshot(request.expect("the request is valid")).await;
    let response: Result<_, origin::Refused> = response;
    let response = response.expect("the origin answers while the store is filled");
    assert!(response.into_body().collect().await.is_ok());
}

impl World {
    /// Sends a load until so many seconds after the start.
    pub(crate) async fn send(&mut self, load: &Load, until: f64) {
        let watching = tokio::spawn(watch(self.health.clone(), Arc::clone(&self.states)));
        self.clients.send(load, until, 3).await;
        watching.abort();
    }

    /// Waits until nothing is under way any more, and checks that nothing is left.
    pub(crate) async fn end(&self, wait: f64) -> Got {
        tokio::time::sleep(seconds(wait)).await;
        let got = self.clients.got();
        let answered = got.total();
        assert_eq!(
            answered.hit + answered.stale + answered.fresh + answered.failed,
            got.requests,
            "each request has one response"
        );
        assert_eq!((self.layer.coalesce_stats().fetches, self.origin.counts().under_way), (0, 0));
        got
    }

    pub(crate) fn states(&self) -> States {
        self.states.lock().expect("nothing panics").clone()
    }
}

async fn watch(health: OriginHealth, states: Arc<Mutex<States>>) {
    let mut ticks = tokio::time::interval(seconds(1.0 / TICKS));
    loop {
        ticks.tick().await;
        let state = health.state();
        states.lock().expect("nothing panics").by_tick.push(state);
    }
}
