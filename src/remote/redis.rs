//! What a second tier keeps, on a Redis or Valkey server.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    Remote, RemoteError, RemoteRead, RemoteStatus,
    connection::{
        AbortOnDrop, Address, AddressError, Answer, Backoff, Commands, Connection, Location, ServerError,
        Value, accepted, bytes, commands, is_name, millis,
    },
};
use crate::trace;

/// After that many timeouts in a row the connection is taken for dead: nothing else tells of a server that has
/// stopped, or of a network that loses everything.
const MAX_TIMEOUTS: u32 = 3;

/// The server refuses what lies beyond its calendar.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Deletes a key if it has this value. No command of Redis 7 does that. An account needs the commands in it as well.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('unlink', KEYS[1]) end return 0";

/// Keeps values on a Redis (7.0 or later) or Valkey server (7.2 or later).
///
/// It has one connection of its own, which it makes in the background, and anew for ever when it is lost, with pauses
/// of 100 milliseconds to 5 seconds. A call never waits for a connection: while there is none it
/// fails at once. After three timeouts in a row the connection is left for a new one, and after an answer that is none
/// it is closed.
///
/// Keys on the server begin with `namespace:1:`. They share no hash tag, and none with the log of a
/// [`Cluster`](crate::cluster::Cluster) of the same namespace. Values have the lifetime that they are given, from one
/// millisecond up to ten years. Give the server a `maxmemory` and a policy that begins with `volatile`, so that it
/// makes room for new values, and keeps that log.
///
/// A clone is a handle to the same. The connection ends with the last one.
///
/// ```no_run
/// use tower_readthrough::remote::RedisRemote;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let remote = RedisRemote::builder("redis://127.0.0.1/").namespace("shop").open()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisRemote {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

/// Configures a [`RedisRemote`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisRemoteBuilder {
    location: Location,
    namespace: String,
    read_timeout: Duration,
    write_timeout: Duration,
}

/// Why a [`RedisRemote`] cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisRemoteError {
    /// The URL of the server cannot be used, for example since it asks for TLS without the feature `redis-tls`.
    #[error("invalid URL of a server: {0}")]
    Url(String),
    /// A certificate or key for TLS cannot be used, or the URL does not ask for TLS.
    #[error("invalid certificates: {0}")]
    Certificate(String),
    /// The namespace is invalid.
    #[error("`namespace`: {0:?} is not a valid name: give it 1 to 64 letters, digits, `-`, `_` or `.`")]
    Namespace(String),
    /// A timeout in which nothing can be answered.
    #[error("`{setting}` is less than a millisecond: give the server time to answer")]
    Timeout {
        /// The setting.
        setting: &'static str,
    },
    /// The connection is kept by a task.
    #[error("there is no tokio runtime: open it inside one")]
    NoRuntime,
}

impl RedisRemoteBuilder {
    /// What all processes that share values have in common: those of other namespaces on the same server see nothing
    /// of each other. 1 to 64 letters, digits, `-`, `_` or `.`. Default: `readthrough`.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// How long a read or a lease may take, since a request waits for it. At least a millisecond. Default:
    /// 50 milliseconds.
    pub const fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// How long all else may take. At least a millisecond. Default: 1 second.
    pub const fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// The certificates, in PEM, of the authorities that may have signed that of the server. Default: those of the
    /// system. Only for URLs that begin with `rediss://`.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.location.files().set_roots(pem);
        self
    }

    /// The certificate by which this process makes itself known to the server, with those of the authorities between,
    /// and its key, in PEM. Default: none. Only for URLs that begin with `rediss://`.
    #[cfg(feature = "redis-tls")]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.location.files().set_client(pem, key);
        self
    }

    /// Begins to connect, in the background. The server need not be there yet.
    ///
    /// # Errors
    ///
    /// If the URL, a certificate, the namespace or a timeout is invalid, or outside of a tokio runtime.
    pub fn open(self) -> Result<RedisRemote, RedisRemoteError> {
        let Self { location, namespace, read_timeout, write_timeout } = self;
        if !is_name(&namespace) {
            return Err(RedisRemoteError::Namespace(namespace));
        }
        for (setting, timeout) in [("read_timeout", read_timeout), ("write_timeout", write_timeout)] {
            if timeout < Duration::from_millis(1) {
                return Err(RedisRemoteError::Timeout { setting });
            }
        }
        let address = location.resolve()?;
        let runtime = Handle::try_current().map_err(|_| RedisRemoteError::NoRuntime)?;
        let shared = Arc::new(Shared {
            prefix: format!("{namespace}:1:").into_bytes(),
            read_timeout,
            write_timeout,
            link: Mutex::new(Link::new(Instant::now())),
        });
        let connecting = runtime.spawn(keep_connected(Arc::clone(&shared), address));
        Ok(RedisRemote { shared, _task: Arc::new(AbortOnDrop(connecting.abort_handle())) })
    }
}

impl From<AddressError> for RedisRemoteError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Url(why) => Self::Url(why),
            #[cfg(feature = "redis-tls")]
            AddressError::Certificate(why) => Self::Certificate(why),
        }
    }
}

impl From<ServerError> for RemoteError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Timeout(limit) => Self::Timeout(limit),
            error => Self::Failed(Box::new(error)),
        }
    }
}

impl RedisRemote {
    /// Returns a builder for values on the server at this URL
    /// (`redis://[user:password@]host[:port][/database]`, with the feature `redis-tls` also `rediss://`).
    pub fn builder(url: impl Into<String>) -> RedisRemoteBuilder {
        RedisRemoteBuilder {
            location: Location::new(url),
            namespace: "readthrough".to_owned(),
            read_timeout: Duration::from_millis(50),
            write_timeout: Duration::from_secs(1),
        }
    }

    /// Returns how it stands to the server now.
    pub fn status(&self) -> RemoteStatus {
        let link = self.shared.link.lock();
        RemoteStatus {
            is_connected: link.connection.is_some(),
            connections: link.connections,
            last_error: link.last_error.clone().filter(|_| link.connection.is_none()),
        }
    }
}

struct Shared {
    prefix: Vec<u8>,
    read_timeout: Duration,
    write_timeout: Duration,
    link: Mutex<Link>,
}

impl Shared {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    /// Asks, and notes how the connection does by what comes of it.
    async fn ask<T>(
        &self,
        pipe: &Commands,
        limit: Duration,
        read: impl FnOnce(Vec<Value>) -> Answer<T>,
    ) -> Result<T, RemoteError> {
        let mut connection = self.link.lock().connected()?;
        let began = Instant::now();
        let answer = connection.ask(pipe, limit).await.and_then(read);
        let thrown_away = self.link.lock().note(began, Instant::now(), answer.as_ref().err());
        match (thrown_away, &answer) {
            // From here on answers may reach the wrong calls.
            (Some(connection), Err(ServerError::Answer)) => connection.end(),
            (Some(connection), _) => connection.leave(),
            (None, _) => {}
        }
        Ok(answer?)
    }

    async fn ask_one<T>(
        &self,
        pipe: &Commands,
        limit: Duration,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, RemoteError> {
        let read = |answers: Vec<Value>| {
            let answer = answers.into_iter().next().ok_or(ServerError::Answer)?;
            read(&accepted(answer)?).ok_or(ServerError::Answer)
        };
        self.ask(pipe, limit, read).await
    }
}

/// The connection, and how it does.
struct Link {
    connection: Option<Connection>,
    connections: u64,
    last_error: Option<String>,
    /// In a row. Calls that waited at the same time have timed out once.
    timeouts: u32,
    /// When the last timeout was counted.
    counted_at: Instant,
    made_at: Instant,
    has_answered: bool,
}

impl Link {
    const fn new(now: Instant) -> Self {
        Self {
            connection: None,
            connections: 0,
            last_error: None,
            timeouts: 0,
            counted_at: now,
            made_at: now,
            has_answered: false,
        }
    }

    fn connected(&self) -> Answer<Connection> {
        let why = || self.last_error.as_deref().unwrap_or("not yet");
        self.connection.clone().ok_or_else(|| ServerError::Refused(format!("no connection: {}", why())))
    }

    /// Returns whether it is the first one.
    fn connect(&mut self, connection: Connection, now: Instant) -> bool {
        self.connection = Some(connection);
        (self.made_at, self.counted_at) = (now, now);
        (self.timeouts, self.has_answered) = (0, false);
        self.connections = self.connections.saturating_add(1);
        self.connections == 1
    }

    /// Returns what is to be dropped once the lock is released, and whether it has ever answered.
    fn ended(&mut self) -> (Option<Connection>, bool) {
        let ended = self.throw_away("the connection was closed".to_owned());
        (ended, std::mem::take(&mut self.has_answered))
    }

    /// Notes what came of a call. Returns the connection if that is to be thrown away.
    fn note(&mut self, began: Instant, now: Instant, error: Option<&ServerError>) -> Option<Connection> {
        if began < self.made_at {
            return None;
        }
        match error {
            None | Some(ServerError::Refused(_)) => {
                (self.timeouts, self.has_answered) = (0, true);
                None
            }
            // Whose answer the next one will be is not known either.
            Some(error @ ServerError::Answer) => self.throw_away(error.to_string()),
            Some(ServerError::Timeout(_)) => self.timed_out(began, now),
            // The task that keeps the connection sees its end.
            Some(_) => None,
        }
    }

    fn timed_out(&mut self, began: Instant, now: Instant) -> Option<Connection> {
        if began >= self.counted_at {
            (self.timeouts, self.counted_at) = (self.timeouts.saturating_add(1), now);
        }
        if self.timeouts < MAX_TIMEOUTS {
            return None;
        }
        self.throw_away(format!("{MAX_TIMEOUTS} timeouts in a row"))
    }

    fn throw_away(&mut self, why: String) -> Option<Connection> {
        let thrown_away = self.connection.take()?;
        self.last_error = Some(why);
        Some(thrown_away)
    }
}

/// Connects for as long as there is a handle, which aborts it.
async fn keep_connected(shared: Arc<Shared>, address: Address) {
    let mut backoff = Backoff::new();
    let mut lost_at = None::<Instant>;
    loop {
        match connect(&address).await {
            Ok((connection, driver)) => {
                let is_first = shared.link.lock().connect(connection.clone(), Instant::now());
                if let Some(lost_at) = lost_at.take() {
                    trace::remote_back(lost_at.elapsed(), is_first);
                }
                connection.lasts(driver).await;
                drop(connection);
                let (ended, has_answered) = shared.link.lock().ended();
                drop(ended);
                if has_answered {
                    backoff = Backoff::new();
                }
            }
            Err(error) => shared.link.lock().last_error = Some(error.to_string()),
        }
        if lost_at.is_none() {
            lost_at = Some(Instant::now());
            let why = shared.link.lock().last_error.clone();
            trace::remote_lost(why.as_deref().unwrap_or_default());
        }
        sleep(backoff.next()).await;
    }
}

async fn connect(address: &Address) -> Answer<(Connection, JoinHandle<()>)> {
    let (mut connection, driver) = address.connect().await?;
    connection.hello().await?;
    Ok((connection, driver))
}

impl Remote for RedisRemote {
    fn connection(&self) -> Option<RemoteStatus> {
        Some(self.status())
    }

    fn read<'a>(&'a self, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<RemoteRead, RemoteError>> {
        Box::pin(async move {
            let mut pipe = commands();
            pipe.cmd("TIME");
            keys.iter().for_each(|key| _ = pipe.cmd("GET").arg(self.shared.key(key)));
            let read = |answers: Vec<Value>| {
                let mut answers = answers.into_iter();
                let time = accepted(answers.next().unwrap_or(Value::Nil))?;
                let now_ms = millis(time).ok_or(ServerError::Answer)?;
                Ok(RemoteRead { now_ms, values: answers.map(value).collect::<Answer<_>>()? })
            };
            self.shared.ask(&pipe, self.shared.read_timeout, read).await
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), RemoteError>> {
        Box::pin(async move {
            let mut pipe = commands();
            pipe.cmd("SET").arg(self.shared.key(key)).arg(&*value).arg("PX").arg(lifetime_ms(lifetime));
            drop(value);
            self.shared.ask_one(&pipe, self.shared.write_timeout, done).await
        })
    }

    fn forget<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), RemoteError>> {
        Box::pin(async move {
            let mut pipe = commands();
            pipe.cmd("UNLINK").arg(self.shared.key(key));
            self.shared.ask_one(&pipe, self.shared.write_timeout, counted).await
        })
    }

    fn lease<'a>(
        &'a self,
        key: &'a [u8],
        token: u64,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<bool, RemoteError>> {
        Box::pin(async move {
            let mut pipe = commands();
            pipe.cmd("SET").arg(self.shared.key(key)).arg(token);
            pipe.arg("NX").arg("PX").arg(lifetime_ms(lifetime));
            let is_taken = |answer: &Value| {
                if *answer == Value::Nil { Some(false) } else { done(answer).map(|()| true) }
            };
            self.shared.ask_one(&pipe, self.shared.read_timeout, is_taken).await
        })
    }

    fn release<'a>(&'a self, key: &'a [u8], token: u64) -> BoxFuture<'a, Result<(), RemoteError>> {
        Box::pin(async move {
            let mut pipe = commands();
            pipe.cmd("EVAL").arg(RELEASE).arg(1).arg(self.shared.key(key)).arg(token);
            self.shared.ask_one(&pipe, self.shared.write_timeout, counted).await
        })
    }
}

/// "OK".
fn done(answer: &Value) -> Option<()> {
    (*answer == Value::Okay).then_some(())
}

/// How many keys were deleted.
fn counted(answer: &Value) -> Option<()> {
    matches!(answer, Value::Int(_)).then_some(())
}

/// What stands under a key, taken over without a copy. What is of another type was not written by this crate.
fn value(answer: Value) -> Answer<Option<Bytes>> {
    match answer {
        Value::Nil => Ok(None),
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(None),
        answer => bytes(accepted(answer)?).map(|value| Some(value.into())).ok_or(ServerError::Answer),
    }
}

fn lifetime_ms(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.min(LONGEST_LIFETIME).as_millis()).unwrap_or(u64::MAX).max(1)
}

impl fmt::Debug for RedisRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRemote").field("status", &self.status()).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl RedisRemoteBuilder {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::span;
        let Self { location, namespace, read_timeout, write_timeout } = self;
        let tls = ["RedisRemoteBuilder::root_certificates", "RedisRemoteBuilder::client_certificate"];
        let mut settings = vec![
            ("RedisRemoteBuilder::namespace", namespace.clone()),
            ("RedisRemoteBuilder::read_timeout", span(*read_timeout)),
            ("RedisRemoteBuilder::write_timeout", span(*write_timeout)),
        ];
        settings.extend(location.settings(tls));
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_not_copied() {
        let read = vec![7; 600 << 10];
        let at = read.as_ptr();
        let value = value(Value::BulkString(read)).unwrap().unwrap();
        assert_eq!((value.as_ptr(), value.len()), (at, 600 << 10));
    }

    #[test]
    fn lifetimes_are_within_what_the_server_takes() {
        for (lifetime, ms) in [
            (Duration::ZERO, 1),
            (Duration::from_micros(1500), 1),
            (Duration::from_secs(60), 60_000),
            (Duration::MAX, 315_360_000_000),
        ] {
            assert_eq!(lifetime_ms(lifetime), ms);
        }
    }

    #[test]
    fn calls_that_time_out_together_count_as_one() {
        let made = Instant::now() + Duration::from_secs(1);
        let at = |ms| made + Duration::from_millis(ms);
        let mut link = Link::new(made);
        let timeout = ServerError::Timeout(Duration::ZERO);
        let late = || Some(&timeout);
        // From before the connection was made.
        _ = link.note(made - Duration::from_millis(1), at(10), late());
        _ = link.note(made - Duration::from_millis(1), at(10), None);
        assert_eq!((link.timeouts, link.has_answered), (0, false), "that was another connection");
        for began in [0, 5, 49] {
            _ = link.note(at(began), at(50 + began), late());
        }
        assert_eq!(link.timeouts, 1);
        _ = link.note(at(50), at(100), late());
        assert_eq!(link.timeouts, 2);
        _ = link.note(at(60), at(110), None);
        _ = link.note(at(110), at(160), late());
        assert_eq!(link.timeouts, 1);
    }
}
