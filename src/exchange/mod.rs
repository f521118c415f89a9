//! What the layers tell each other, in the extensions of requests and responses.
//!
//! No layer knows another one. Each reads what is there and does without what is not.

pub(crate) mod copy;
pub(crate) mod failures;
mod refused;
mod request;
mod response;
pub(crate) mod status;

pub use self::{
    refused::Refused,
    request::{CacheRequest, Purpose},
};
pub(crate) use self::{
    request::StaleCandidate,
    response::{AttemptBegan, CompletesItself, Verdict},
};
