#![allow(
    dead_code,
    missing_docs,
    clippy::use_self,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "until the handle is here"
)]
use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock},
};

use http::request::Parts;
use tokio::time::Instant;

use super::pause::{Backoff, Draws, KeyPause};

/// Stub.
#[derive(Clone, Debug)]
pub struct OriginHealth {
    pause: KeyPause,
}

#[derive(Debug)]
pub(crate) struct Pass;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldBack {
    Down,
    Recovering,
    RateLimited,
}

pub(crate) enum Answer {
    Fetch(Option<Arc<Pass>>),
    Serve(HeldBack),
}

impl OriginHealth {
    pub(crate) fn is_up(&self) -> bool {
        true
    }

    pub(crate) fn ask_with_stale(&self, _: &Parts, _: u64, _: Instant) -> Answer {
        Answer::Fetch(None)
    }

    pub(crate) fn key_pause(&self) -> &KeyPause {
        &self.pause
    }
}

impl Pass {
    pub(crate) fn reason(&self) -> HeldBack {
        HeldBack::Down
    }
}

/// The hash of a key, which is another one in each process.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    HASHER.get_or_init(RandomState::new).hash_one(key)
}

/// Stub.
#[derive(Debug)]
pub struct OriginHealthBuilder {
    pause: KeyPause,
}

impl OriginHealth {
    /// Stub.
    pub fn builder() -> OriginHealthBuilder {
        OriginHealthBuilder { pause: OriginHealth::new().pause }
    }
}

impl OriginHealthBuilder {
    /// Stub.
    pub fn key_pause(mut self, min: std::time::Duration, max: std::time::Duration) -> Self {
        self.pause = KeyPause::new(Backoff { min, max }, Draws::new(7));
        self
    }

    /// Stub.
    pub fn build(self) -> Result<OriginHealth, crate::BuildError> {
        Ok(OriginHealth { pause: self.pause })
    }
}

impl OriginHealth {
    /// Stub.
    pub fn new() -> Self {
        let backoff =
            Backoff { min: std::time::Duration::from_secs(1), max: std::time::Duration::from_secs(30) };
        Self { pause: KeyPause::new(backoff, Draws::new(7)) }
    }
}

impl Default for OriginHealth {
    fn default() -> Self {
        Self::new()
    }
}
