//! Read-through HTTP caching inside your own process, as composable Tower layers.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod build_error;
pub mod coalesce;
mod exchange;
mod executor;
pub mod fill;
mod future;
mod http;
pub mod key;
pub mod lookup;
pub mod origin_limit;
pub mod read_through;
pub mod retry;
mod shared_error;
pub mod stale_if_error;
mod status;
pub mod store;
mod store_layer;

pub use self::{
    body::{Body, BodyError, BoxError, RequestBody},
    build_error::BuildError,
    coalesce::{Coalesce, CoalesceLayer},
    exchange::{Asked, Refused},
    executor::Task,
    fill::{Fill, FillLayer, Policy},
    future::ResponseFuture,
    http::{rules::Rules, storing::Unshareable},
    key::{CacheKey, DefaultKey, Key, KeyExtractor, KeyLayer},
    lookup::{Lookup, LookupLayer},
    origin_limit::{OriginLimit, OriginLimitLayer},
    read_through::{ReadThrough, ReadThroughBody, ReadThroughLayer, ReadThroughService},
    retry::{Attempts, RetryPolicy},
    shared_error::SharedError,
    stale_if_error::{StaleIfError, StaleIfErrorLayer},
    status::{CacheStatus, Forward, Stale},
    store::{MemoryStore, MemoryStoreBuilder, Resource, Sequence, Store, StoreStats, StoredResponse},
    store_layer::StoreLayer,
};
