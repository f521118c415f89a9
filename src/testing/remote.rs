//! A place for a second tier that does what a test says.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use crate::remote::{Remote, RemoteError, RemoteRead};

/// A [`Remote`] in memory, for tests of applications with a [second tier](crate::tier): it can be slow, fail, hang,
/// and answer with other bytes. Several tiers may have it in common. A clone is the same remote.
///
/// ```
/// use std::time::Duration;
/// use tower_readthrough::{remote::Remote, testing::ScriptedRemote};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let remote = ScriptedRemote::new();
/// remote.write(b"key", "value".into(), Duration::from_secs(9)).await.unwrap();
/// assert_eq!(remote.read(&[b"key"]).await.unwrap().values, [Some("value".into())]);
/// remote.fail(1);
/// assert!(remote.read(&[b"key"]).await.is_err());
/// tokio::time::advance(Duration::from_secs(9)).await;
/// assert_eq!(remote.read(&[b"key"]).await.unwrap().values, [None]);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ScriptedRemote {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<HashMap<Vec<u8>, Kept>>,
    faults: Mutex<VecDeque<Fault>>,
    delay_ms: AtomicU64,
    clock_ahead_ms: AtomicU64,
    calls: [AtomicU64; 5],
    began: (Instant, SystemTime),
    /// Which calls are held, and until when.
    gate: Mutex<Option<(Vec<RemoteCall>, Arc<Semaphore>)>>,
}

#[derive(Clone, Debug)]
struct Kept {
    value: Value,
    until: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bytes(Bytes),
    Token(u64),
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Fail,
    Hang,
    Panic,
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteCall {
    /// [`Remote::read`].
    Read,
    /// [`Remote::write`].
    Write,
    /// [`Remote::forget`].
    Forget,
    /// [`Remote::lease`].
    Lease,
    /// [`Remote::release`].
    Release,
}

/// Holds the calls of a [`ScriptedRemote`] until it is dropped.
#[derive(Debug)]
pub struct RemoteGate {
    shared: Arc<Shared>,
    gate: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            faults: Mutex::default(),
            delay_ms: AtomicU64::new(0),
            clock_ahead_ms: AtomicU64::new(0),
            calls: std::array::from_fn(|_| AtomicU64::new(0)),
            began: (Instant::now(), SystemTime::now()),
            gate: Mutex::default(),
        }
    }
}

impl ScriptedRemote {
    /// Returns an empty one, which answers at once. Its clock runs with that of tokio.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets each call take so long from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Lets so many of the next calls fail.
    pub fn fail(&self, calls: usize) {
        self.shared.faults.lock().extend(std::iter::repeat_n(Fault::Fail, calls));
    }

    /// Lets so many of the next calls never end.
    pub fn hang(&self, calls: usize) {
        self.shared.faults.lock().extend(std::iter::repeat_n(Fault::Hang, calls));
    }

    /// Lets so many of the next calls panic.
    pub fn panic(&self, calls: usize) {
        self.shared.faults.lock().extend(std::iter::repeat_n(Fault::Panic, calls));
    }

    /// Ends all faults that are left.
    pub fn heal(&self) {
        self.shared.faults.lock().clear();
    }

    /// Sets the clock ahead.
    pub fn set_clock_ahead(&self, by: Duration) {
        self.shared
            .clock_ahead_ms
            .store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Holds calls of these kinds from now on, before anything is read or changed, until the gate is dropped. It
    /// takes the place of one before. [`Release`](RemoteCall::Release) is never held.
    pub fn hold(&self, kinds: impl IntoIterator<Item = RemoteCall>) -> RemoteGate {
        let gate = Arc::new(Semaphore::new(0));
        *self.shared.gate.lock() = Some((kinds.into_iter().collect(), Arc::clone(&gate)));
        RemoteGate { shared: Arc::clone(&self.shared), gate }
    }

    /// Returns how often it was called, calls included that failed or have not ended.
    pub fn calls(&self, kind: RemoteCall) -> u64 {
        self.shared.calls[kind as usize].load(Ordering::Relaxed)
    }

    /// Returns all keys, in their order.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<_> = self.shared.kept.lock().keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// Returns what is kept under a key, and for how long still.
    pub fn kept(&self, key: &[u8]) -> Option<(Bytes, Duration)> {
        let kept = self.shared.kept.lock();
        let Kept { value: Value::Bytes(bytes), until } = kept.get(key)? else { return None };
        Some((bytes.clone(), until.saturating_duration_since(Instant::now())))
    }

    /// Changes everything that is kept by this function, which gets the key and the value.
    pub fn change(&self, mut change: impl FnMut(&[u8], Bytes) -> Bytes) {
        for (key, kept) in &mut *self.shared.kept.lock() {
            if let Value::Bytes(bytes) = &mut kept.value {
                *bytes = change(key, std::mem::take(bytes));
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.shared.kept.lock().clear();
    }

    async fn called(&self, kind: RemoteCall) -> Result<(), RemoteError> {
        self.shared.calls[kind as usize].fetch_add(1, Ordering::Relaxed);
        let gate = self.shared.gate.lock().clone();
        if let Some((_, gate)) = gate.filter(|(kinds, _)| kinds.contains(&kind)) {
            // It is closed, and opened by being closed for good.
            _ = gate.acquire().await;
        }
        let delay = Duration::from_millis(self.shared.delay_ms.load(Ordering::Relaxed));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let fault = self.shared.faults.lock().pop_front();
        match fault {
            None => Ok(()),
            Some(Fault::Fail) => Err(RemoteError::Failed("as the test says".into())),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Panic) => panic!("as the test says"),
        }
    }

    fn get(&self, key: &[u8]) -> Option<Value> {
        let mut kept = self.shared.kept.lock();
        if kept.get(key).is_some_and(|kept| kept.until <= Instant::now()) {
            kept.remove(key);
        }
        kept.get(key).map(|kept| kept.value.clone())
    }

    fn put(&self, key: &[u8], value: Value, lifetime: Duration) {
        let now = Instant::now();
        let until = now.checked_add(lifetime).unwrap_or_else(|| now + Duration::from_secs(1 << 30));
        self.shared.kept.lock().insert(key.to_vec(), Kept { value, until });
    }

    fn now_ms(&self) -> u64 {
        let (instant, time) = self.shared.began;
        let now = time
            + instant.elapsed()
            + Duration::from_millis(self.shared.clock_ahead_ms.load(Ordering::Relaxed));
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Remote for ScriptedRemote {
    fn read<'a>(&'a self, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<RemoteRead, RemoteError>> {
        Box::pin(async move {
            self.called(RemoteCall::Read).await?;
            let bytes = |key: &&[u8]| match self.get(key) {
                Some(Value::Bytes(bytes)) => Some(bytes),
                _ => None,
            };
            Ok(RemoteRead { now_ms: self.now_ms(), values: keys.iter().map(bytes).collect() })
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), RemoteError>> {
        Box::pin(async move {
            self.called(RemoteCall::Write).await?;
            self.put(key, Value::Bytes(value), lifetime);
            Ok(())
        })
    }

    fn forget<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), RemoteError>> {
        Box::pin(async move {
            self.called(RemoteCall::Forget).await?;
            self.shared.kept.lock().remove(key);
            Ok(())
        })
    }

    fn lease<'a>(
        &'a self,
        key: &'a [u8],
        token: u64,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<bool, RemoteError>> {
        Box::pin(async move {
            self.called(RemoteCall::Lease).await?;
            let is_free = self.get(key).is_none();
            if is_free {
                self.put(key, Value::Token(token), lifetime);
            }
            Ok(is_free)
        })
    }

    /// Never fails, and takes no time.
    fn release<'a>(&'a self, key: &'a [u8], token: u64) -> BoxFuture<'a, Result<(), RemoteError>> {
        self.shared.calls[RemoteCall::Release as usize].fetch_add(1, Ordering::Relaxed);
        if self.get(key) == Some(Value::Token(token)) {
            self.shared.kept.lock().remove(key);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for RemoteGate {
    fn drop(&mut self) {
        *self.shared.gate.lock() = None;
        self.gate.close();
    }
}
