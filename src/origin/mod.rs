//! The state of the origin, and who may ask it.

#![cfg_attr(not(test), allow(dead_code, reason = "the layers that report and ask are not here yet"))]

mod answered_by;
mod health;
mod pause;
mod queue;
mod ramp;
mod rate;
mod stub;
mod tally;
mod voice;

pub use self::{
    answered_by::AnsweredBy,
    stub::{OriginHealth, OriginHealthBuilder},
};
pub(crate) use self::{
    pause::KeyPause,
    stub::{Answer, HeldBack, Pass, key_hash},
};
use crate::reasons::reasons;

reasons! {
    /// What the outcomes of requests say of an origin.
    pub enum OriginState {
        /// It responds.
        Up => "up",
        /// It does not respond, or mostly with failures: it is probed, and what is stored is served.
        Down => "down",
        /// It responds again, and gets more and more of the requests that are for it.
        Recovering => "recovering",
    }
}
