//! A second tier.

mod breaker;
mod clock;
mod handle;
mod index;
mod keys;
mod layer;
mod lease;
mod queue;
mod read;
mod write;

pub use self::{
    handle::{FlushReport, Tier, TierBuilder},
    layer::{TierFuture, TierLayer, TierService},
};
