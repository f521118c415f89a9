//! Variants and validators: no response of one variant for another.

use tower::Layer;
use tower_readthrough::{
    Fill, Lookup, MemoryStore, ReadThrough, ReadThroughService, RetryPolicy, Rules, StoreLayer,
};

use crate::support::Origin;

mod misfits;
mod selecting_fields;
mod validators;
mod without_vary;

type Stack = ReadThroughService<Origin, MemoryStore>;
type Single = Lookup<Fill<Origin, MemoryStore>, MemoryStore>;

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(1 << 20)
}

fn stack(origin: &Origin) -> Stack {
    ReadThrough::new(store()).retry(RetryPolicy::never()).build().unwrap().layer(origin.clone())
}

fn single(origin: &Origin) -> Single {
    StoreLayer::new(store()).rules(Rules::new()).layer(origin.clone())
}

/// Runs a check with an origin of its own, once for the assembled stack and once for single layers.
macro_rules! on_each {
    ($origin:expr, $check:expr) => {{
        let origin = $origin;
        let service = super::stack(&origin);
        ($check)(&service, &origin).await;
        let origin = $origin;
        let service = super::single(&origin);
        ($check)(&service, &origin).await;
    }};
}
use on_each;
