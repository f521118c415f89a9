//! What the layers tell each other, in the extensions of requests and responses.
//!
//! No layer knows another one. Each reads what is there and does without what is not.

pub(crate) mod failures;
pub(crate) mod record;
mod refused;
mod request;
mod response;
pub(crate) mod status;

pub use self::{
    record::{BackgroundEvent, Observer, Outcome, Record, RefreshResult, Role},
    refused::Refused,
    request::{CacheRequest, Purpose},
    response::Attempts,
};
pub(crate) use self::{
    record::{ObservedStore, Observers},
    request::{RequestCopy, StaleCandidate, head_of, without_extensions},
    response::{ResponseFacts, Shareability},
};
