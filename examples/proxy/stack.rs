//! The cache between front and origin.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::{TryFutureExt, future::Either};
use http::{
    Request, Response, Uri,
    uri::{Authority, Scheme},
};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, Service, ServiceExt, util::MapErr};
use tower_readthrough::{
    Body, BuildError, DefaultKey, Failover, MemoryStore, OriginHealth, OriginLimitLayer, ReadThrough,
    ReadThroughBuilder, ReadThroughLayer, RequestBody, RetryPolicy, Rules, SharedError, probe::Probe,
};

use crate::{
    Args,
    origin::{self, Origin},
};

/// The body of every request here.
pub(crate) type ReqBody = RequestBody<Incoming>;

/// A cheap handle to the one cache, over one origin or several.
#[derive(Clone)]
pub(crate) enum Stack {
    One(ReadThrough<SharedOrigin, MemoryStore>),
    Several(ReadThrough<Failover<SharedOrigin>, MemoryStore>),
}

/// The error of the client cannot be cloned, and all callers of one fetch get it.
type SharedOrigin = MapErr<Origin, fn(origin::Error) -> SharedError>;

/// No attempt begins later than this after the first one.
const RETRY_DEADLINE: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(5);

impl Stack {
    /// The stack is always ready.
    pub(crate) fn call(
        &self,
        request: Request<ReqBody>,
    ) -> impl Future<Output = Result<Response<Body<Incoming>>, SharedError>> + use<> {
        match self {
            Self::One(stack) => Either::Left(stack.clone().call(request)),
            Self::Several(stack) => {
                let response = stack.clone().call(request);
                Either::Right(response.map_ok(|response| response.map(Body::flatten)))
            }
        }
    }
}

pub(crate) fn build(args: &Args) -> Result<Stack, BuildError> {
    let mut origins = args.origin.iter().map(|authority| {
        let origin = Origin::new(authority.clone(), args.origin_timeout);
        origin.map_err(SharedError::new as fn(_) -> _)
    });
    let (Some(first), others) = (origins.next(), origins.collect::<Vec<_>>()) else {
        let reason = "there is none; name one";
        return Err(BuildError::NoEffect { setting: "--origin", reason });
    };
    let healths = args.origin.iter().map(|_| OriginHealth::builder().fail_fast(args.fail_fast).build());
    let healths = healths.collect::<Result<Vec<_>, _>>()?;
    for (authority, health) in args.origin.iter().zip(&healths) {
        probe(args, authority, health);
    }
    let limits = {
        let (limit, healths) = (args.origin_limit, healths.clone());
        move |index: usize| {
            let layer = limit.map_or_else(OriginLimitLayer::unlimited, OriginLimitLayer::new);
            layer.health(healths[index].clone())
        }
    };
    if others.is_empty() {
        let cache = cache(args).outage(healths[0].clone()).origin_limit(limits(0));
        return Ok(Stack::One(cache.build()?.layer(first)));
    }
    let origins = Failover::builder(first, others).origin_limit(limits).build()?;
    let cache = cache(args).outage(origins.health().clone());
    Ok(Stack::Several(cache.build()?.layer(origins)))
}

/// All settings that are not about the origins.
fn cache(args: &Args) -> ReadThroughBuilder<MemoryStore> {
    // All attempts together, including the wait for `--origin-limit`: the timeout of the origin should
    // take effect, not that of the cache.
    let patience = args.origin_timeout.saturating_add(RETRY_DEADLINE + Duration::from_secs(5));
    ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(args.max_bytes))
        .key(key(args))
        .rules(rules(args))
        .retry(retry(args.retries))
        .lookup(|lookup| {
            lookup.refresh_deadline(patience).request_directives(!args.ignore_request_directives)
        })
        .coalesce(|coalesce| {
            let coalesce = coalesce.wait_at_most(patience);
            match args.stale_after {
                Some(limit) => coalesce.stale_after(limit),
                None => coalesce,
            }
        })
}

/// Asks an origin that is down for the path of `--probe`, for as long as the program runs.
fn probe(args: &Args, authority: &Authority, health: &OriginHealth) {
    let Some(path) = &args.probe else { return };
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority.clone()).path_and_query(path.clone());
    let Ok(request) = uri.build().and_then(|uri| Request::get(uri).body(())) else { return };
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    tokio::spawn(Probe::new(health.clone(), request).every(PROBE_EVERY).run(client));
}

fn key(args: &Args) -> DefaultKey {
    match &args.scheme {
        Some(scheme) => DefaultKey::new().scheme(scheme.clone()),
        None => DefaultKey::new(),
    }
}

fn rules(args: &Args) -> Rules {
    let rules = Rules::new().stale_if_error_for(args.stale_if_error).store_set_cookie(args.store_set_cookie);
    let rules = match args.heuristic_freshness {
        true => rules.heuristic(0.1, Duration::from_secs(86_400)),
        false => rules,
    };
    let rules = rules.credentials(args.credentials.iter().map(String::as_str));
    let rules = match &args.cookies {
        Some(names) => rules.cookies(names.split(',').filter(|name| !name.is_empty())),
        None => rules,
    };
    let rules = match args.refresh_ahead {
        Some(share) => rules.refresh_ahead(share),
        None => rules,
    };
    match (args.default_ttl, args.force_ttl) {
        (_, Some(ttl)) => rules.fixed_ttl(ttl),
        (Some(ttl), None) => rules.default_ttl(ttl),
        (None, None) => rules,
    }
}

fn retry(retries: u32) -> RetryPolicy {
    match retries {
        0 => RetryPolicy::never(),
        _ => RetryPolicy::new().max_retries(retries).deadline(RETRY_DEADLINE),
    }
}
