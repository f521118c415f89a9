//! Where a second tier keeps what it is given.
//!
//! A [`Remote`] keeps bytes under keys outside of the process. It knows nothing of responses and purges:
//! what it keeps is judged by the reader, so that a remote may lose, delay and reorder what it
//! is given, and may answer with what is old.

pub(crate) mod connection;
mod redis;
#[cfg(not(feature = "redis-tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "redis-tls")]
mod tls;

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::redis::{RedisRemote, RedisRemoteBuilder, RedisRemoteError, RedisRemoteStatus};

/// Keeps bytes under keys outside of the process, for some time.
///
/// All calls may fail, and none may wait without an end: each needs a bound of its own.
pub trait Remote: fmt::Debug + Send + Sync + 'static {
    /// Reads what is kept under these keys, at one moment, and the clock of the remote.
    fn read<'a>(&'a self, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<RemoteRead, RemoteError>>;

    /// Keeps a value under a key for `lifetime`, instead of what is there.
    fn write<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), RemoteError>>;

    /// Removes what is kept under a key.
    fn forget<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), RemoteError>>;

    /// Writes `token` under a key for `lifetime` if nothing is kept there. Returns whether it did.
    fn lease<'a>(
        &'a self,
        key: &'a [u8],
        token: u64,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<bool, RemoteError>>;

    /// Removes what is kept under a key if that is this token.
    fn release<'a>(&'a self, key: &'a [u8], token: u64) -> BoxFuture<'a, Result<(), RemoteError>>;
}

/// What a [`Remote`] answered to a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteRead {
    /// The clock of the remote, in milliseconds since 1970. It must never differ by much between two nodes
    /// that ask the same remote.
    pub now_ms: u64,
    /// The values, in the order of the keys.
    pub values: Vec<Option<Bytes>>,
}

/// Why a [`Remote`] did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// It did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It cannot be reached, or broke off.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}
