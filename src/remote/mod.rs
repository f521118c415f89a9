//! Where a second tier keeps what it is given.
//!
//! A [`Remote`] keeps bytes under keys outside of the process. It knows nothing of responses and purges:
//! what it keeps is judged by the reader, so that a remote may lose, delay and reorder what it
//! is given, and may answer with what is old. A value that was damaged is a miss: it is read through the bounds and
//! the checksum of an [envelope](crate::store::envelope).
//!
//! [`RedisRemote`] is the one to use. It has a connection of its own and a time for each call, and a call never
//! waits for a connection. A remote of your own, on a disk for example, implements the trait:
//!
//! ```
//! use std::{collections::HashMap, sync::Mutex, time::{Duration, SystemTime}};
//!
//! use bytes::Bytes;
//! use futures_util::future::BoxFuture;
//! use tower_readthrough::remote::{Remote, RemoteError, RemoteRead};
//!
//! type Values = HashMap<Vec<u8>, (Bytes, Option<SystemTime>)>;
//!
//! #[derive(Debug, Default)]
//! struct Shelf(Mutex<Values>);
//!
//! fn get(values: &Values, key: &[u8]) -> Option<Bytes> {
//!     let (value, until) = values.get(key)?;
//!     until.is_none_or(|until| until > SystemTime::now()).then(|| value.clone())
//! }
//!
//! fn put(values: &mut Values, key: &[u8], value: Bytes, lifetime: Duration) {
//!     values.insert(key.into(), (value, SystemTime::now().checked_add(lifetime)));
//! }
//!
//! type Answer<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;
//!
//! impl Remote for Shelf {
//!     fn read<'a>(&'a self, keys: &'a [&'a [u8]]) -> Answer<'a, RemoteRead> {
//!         Box::pin(async move {
//!             let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
//!             let values = self.0.lock().unwrap();
//!             let values = keys.iter().map(|key| get(&values, key)).collect();
//!             Ok(RemoteRead { now_ms: now.as_millis() as u64, values })
//!         })
//!     }
//!
//!     fn write<'a>(&'a self, key: &'a [u8], value: Bytes, lifetime: Duration) -> Answer<'a, ()> {
//!         put(&mut self.0.lock().unwrap(), key, value, lifetime);
//!         Box::pin(async { Ok(()) })
//!     }
//!
//!     fn forget<'a>(&'a self, key: &'a [u8]) -> Answer<'a, ()> {
//!         self.0.lock().unwrap().remove(key);
//!         Box::pin(async { Ok(()) })
//!     }
//!
//!     fn lease<'a>(&'a self, key: &'a [u8], token: u64, lifetime: Duration) -> Answer<'a, bool> {
//!         let mut values = self.0.lock().unwrap();
//!         let is_free = get(&values, key).is_none();
//!         if is_free {
//!             put(&mut values, key, token.to_string().into(), lifetime);
//!         }
//!         Box::pin(async move { Ok(is_free) })
//!     }
//!
//!     fn release<'a>(&'a self, key: &'a [u8], token: u64) -> Answer<'a, ()> {
//!         let mut values = self.0.lock().unwrap();
//!         if get(&values, key).is_some_and(|held| held == token.to_string()) {
//!             values.remove(key);
//!         }
//!         Box::pin(async { Ok(()) })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), RemoteError> {
//! let shelf = Shelf::default();
//! shelf.write(b"page", "hello".into(), Duration::from_secs(60)).await?;
//! let read = shelf.read(&[b"page", b"none"]).await?;
//! assert_eq!(read.values, [Some("hello".into()), None]);
//!
//! assert!(shelf.lease(b"fetch", 1, Duration::from_secs(10)).await?);
//! assert!(!shelf.lease(b"fetch", 2, Duration::from_secs(10)).await?);
//! # Ok(())
//! # }
//! ```
//!
//! # Servers
//!
//! Redis 7.0 and Valkey 7.2, and later ones; an older server is refused when the connection is made. Values are read
//! from and written to one server, without Sentinel and Redis Cluster. With the feature `redis-tls` a URL that
//! begins with `rediss://` asks for TLS: a server whose certificate no trusted authority has signed for that host
//! is refused, and there is no way round that.
//!
//! What stands on the server can be read and replaced by all that have its password: see [security](crate::security).

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

pub use self::redis::{RedisRemote, RedisRemoteBuilder, RedisRemoteError};
#[doc(no_inline)]
pub use crate::observe::RemoteStatus;

/// Keeps bytes under keys outside of the process, for some time.
///
/// All calls may fail, and none may wait without an end: each needs a bound of its own.
pub trait Remote: fmt::Debug + Send + Sync + 'static {
    /// Reads what is kept under these keys, and the clock of the remote.
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

    /// Returns how it stands to its server, for the [statistics](crate::TierStatus::remote) of a tier. Returns at once.
    /// Default: `None`, it has no connection.
    fn connection(&self) -> Option<RemoteStatus> {
        None
    }
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
