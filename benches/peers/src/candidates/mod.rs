//! Every cache that is measured, behind one visitor, so that all measurements and the loopback
//! servers take the same ones. To add a candidate, add one `visitor.visit(...)` call.

mod by_hand;
mod floor;
pub(crate) mod ours;
#[cfg(feature = "rivals")]
mod rivals;
#[cfg(feature = "seeing")]
mod seeing;
#[cfg(feature = "several")]
mod several;
mod sketch;
mod sketch_front;
mod stores;
#[cfg(feature = "rivals")]
mod tower_cache;

use std::{fmt::Debug, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tower::Service;

use crate::origin::OriginHandle;

/// What a cache is asked to do.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    /// How many entries it should hold.
    pub(crate) capacity: usize,
    /// None: as long as the origin says (a day), or an hour where a cache has to be told.
    pub(crate) ttl: Option<Duration>,
    /// How many key rules are tried, for the candidate that has some.
    pub(crate) key_rules: usize,
}

impl Config {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, ttl: None, key_rules: 1 }
    }

    fn explicit_ttl(&self) -> Duration {
        self.ttl.unwrap_or(Duration::from_secs(3600))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// No cache at all: the limit.
    Limit,
    /// Hand-written read-through service around a general-purpose map or cache.
    ByHand,
    /// A published Tower layer.
    Layer,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Needs `http://host/path` instead of the origin-form URIs that a server sees.
    pub(crate) absolute_uri: bool,
    /// Holds no more than `Config::capacity` entries.
    pub(crate) bounded: bool,
    /// Takes a TTL of less than a second from `Config::ttl`.
    pub(crate) short_ttl: bool,
    /// Differs from another candidate in special cases: takes part only where those are measured,
    /// or if it is named.
    pub(crate) special: bool,
}

const fn meta(name: &'static str, kind: Kind) -> Meta {
    Meta { name, kind, absolute_uri: false, bounded: true, short_ttl: true, special: false }
}

pub(crate) trait Visitor {
    fn visit<F, S, B>(&mut self, meta: Meta, make: F)
    where
        F: Fn(&Config, &OriginHandle) -> S + Send + Sync + 'static,
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Debug + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Debug + Into<Box<dyn std::error::Error + Send + Sync>>;
}

pub(crate) fn visit_all<V: Visitor>(visitor: &mut V) {
    floor::visit(visitor);
    by_hand::visit(visitor);
    ours::visit(visitor);
    #[cfg(feature = "seeing")]
    seeing::visit(visitor);
    #[cfg(feature = "several")]
    several::visit(visitor);
    #[cfg(feature = "rivals")]
    rivals::visit(visitor);
}
