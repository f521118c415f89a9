//! The cache between front and origin.

use std::time::Duration;

use hyper::body::Incoming;
use tower::{Layer, ServiceExt, util::MapErr};
use tower_readthrough::{
    BuildError, DefaultKey, MemoryStore, OriginLimitLayer, ReadThrough, ReadThroughLayer, RequestBody,
    RetryPolicy, Rules, SharedError,
};

use crate::{
    Args,
    origin::{self, Origin},
};

/// The body of every request here.
pub(crate) type ReqBody = RequestBody<Incoming>;

/// A cheap handle to the one cache.
pub(crate) type Stack = ReadThrough<SharedOrigin, MemoryStore>;

/// The error of the client cannot be cloned, and all callers of one fetch get it.
type SharedOrigin = MapErr<Origin, fn(origin::Error) -> SharedError>;

/// No attempt begins later than this after the first one.
const RETRY_DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn build(args: &Args) -> Result<Stack, BuildError> {
    // All attempts together, including the wait for `--origin-limit`: the timeout of the origin should
    // take effect, not that of the cache.
    let patience = args.origin_timeout.saturating_add(RETRY_DEADLINE + Duration::from_secs(5));
    let mut cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(args.max_bytes))
        .key(key(args))
        .rules(rules(args))
        .retry(retry(args.retries))
        .lookup(|lookup| {
            lookup.refresh_deadline(patience).request_directives(!args.ignore_request_directives)
        })
        .coalesce(|coalesce| coalesce.wait_at_most(patience));
    if let Some(limit) = args.origin_limit {
        cache = cache.origin_limit(OriginLimitLayer::new(limit));
    }
    let origin = Origin::new(args.origin.clone(), args.origin_timeout);
    Ok(cache.build()?.layer(origin.map_err(SharedError::new as fn(_) -> _)))
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
