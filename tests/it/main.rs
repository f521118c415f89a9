//! The promises of the crate, by topic. `tests/README.md` says where to look for which.

mod architecture;
mod axum_apps;
mod build;
mod cache_status;
#[cfg(all(feature = "snapshot", unix))]
mod client_program;
mod coalesce;
mod conformance;
mod custom_store;
mod differential;
mod explain;
mod failover;
mod faults;
mod fill;
mod front;
mod hyper_client;
mod invalidation;
#[cfg(feature = "body-key")]
mod key_body;
#[cfg(feature = "serde")]
mod key_document;
mod key_guard;
mod key_properties;
mod key_purge;
mod key_rules;
mod key_systems;
mod lookup;
mod memory_store;
#[cfg(feature = "metrics")]
mod metrics;
mod model;
mod observer;
mod origin_limit;
mod outage;
mod parts;
#[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
mod places;
mod promises;
mod proxy;
mod purge;
#[cfg(feature = "purge-service")]
mod purge_service;
mod ranges;
mod readiness;
#[cfg(all(feature = "body-key", feature = "serde"))]
mod readme;
mod report_only;
mod request_directives;
mod retry;
mod rules;
mod rust_version;
mod security;
#[cfg(feature = "snapshot")]
mod snapshot_file;
mod snapshots;
mod sockets;
mod stale_if_error;
mod stampede;
mod stats;
mod support;
mod tags;
mod testing;
#[cfg(feature = "tracing")]
mod tracing;
mod validation;
mod with_ttl;

use bytes::Bytes;
use futures_util::TryStream;
use tower::BoxError;

/// A body of the chunks of a stream, of unknown length.
fn streamed<S>(chunks: S) -> support::Body
where
    S: TryStream<Ok: Into<Bytes>, Error: Into<BoxError>> + Send + 'static,
{
    support::Body::new(axum::body::Body::from_stream(chunks))
}
