//! Variants and validators: no response of one variant for another.

use tower::Layer;
use tower_readthrough::{
    Fill, FillLayer, Lookup, LookupLayer, MemoryStore, ReadThrough, ReadThroughLayer, RetryPolicy,
};

mod misfits;
mod selecting_fields;
mod validators;
mod without_vary;

use crate::support::{ScriptedOrigin, small_store};

type Stack = ReadThrough<ScriptedOrigin, MemoryStore>;
type Single = Lookup<Fill<ScriptedOrigin, MemoryStore>, MemoryStore>;

/// The assembled stack, which does what requests ask of a cache.
fn stack(origin: &ScriptedOrigin) -> Stack {
    let layer = ReadThroughLayer::builder(small_store()).retry(RetryPolicy::never());
    layer.lookup(|lookup| lookup.request_directives(true)).build().unwrap().layer(origin.clone())
}

/// Lookup directly round Fill, as well.
fn single(origin: &ScriptedOrigin) -> Single {
    let store = small_store();
    let fill = FillLayer::new(store.clone()).layer(origin.clone());
    LookupLayer::new(store).request_directives(true).layer(fill)
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
