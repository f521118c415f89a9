//! Connections to a Redis or Valkey server: for the log of a cluster, and for what a second tier keeps.
//!
//! The sockets are made here, and not by the client library: so the end of a connection is noticed at once, and
//! TLS does not depend on what the process has chosen for others.
//!
//! No other file names the client library: a new major version of it is a change to this one.

use std::{fmt, io, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use futures_util::future::{select, select_ok};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    aio::MultiplexedConnection,
};
pub(crate) use redis::{Pipeline as Commands, Value, pipe as commands};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    sync::Notify,
    task::{AbortHandle, JoinHandle},
    time::{Instant, timeout},
};

use super::tls::{Tls, TlsFiles};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a server cannot be used, or is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("{0}")]
    Client(#[from] RedisError),
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("{0} is too old: Redis 7.0 or Valkey 7.2 is needed")]
    Version(String),
    /// In the server's words.
    #[error("{0}")]
    Refused(String),
    #[error("an answer that cannot be read")]
    Answer,
}

pub(crate) type Answer<T> = Result<T, ServerError>;

/// Why what was said of a server cannot be used.
#[derive(Clone, Debug)]
pub(crate) enum AddressError {
    Url(String),
    #[cfg(feature = "redis-tls")]
    Certificate(String),
}

/// What was said of a server. Its URL may hold a password.
#[derive(Clone)]
pub(crate) struct Location {
    url: String,
    files: TlsFiles,
}

impl Location {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), files: TlsFiles::new() }
    }

    #[cfg(feature = "redis-tls")]
    pub(crate) fn files(&mut self) -> &mut TlsFiles {
        &mut self.files
    }

    pub(crate) fn resolve(&self) -> Result<Address, AddressError> {
        let mut url = redis::parse_redis_url(&self.url)
            .ok_or_else(|| AddressError::Url("it does not begin with `redis://` and a host".to_owned()))?;
        // That would be TLS without a check of whom it leads to.
        if url.fragment().is_some() {
            return Err(AddressError::Url("it has a fragment".to_owned()));
        }
        let plain = match url.scheme() {
            "rediss" => Some("redis"),
            "valkeys" => Some("valkey"),
            _ => None,
        };
        if let Some(plain) = plain {
            _ = url.set_scheme(plain);
        }
        let info = url.into_connection_info().map_err(|error| AddressError::Url(error.to_string()))?;
        let place = match info.addr().clone() {
            ConnectionAddr::Tcp(host, port) => Place::Tcp { host, port },
            ConnectionAddr::Unix(path) if cfg!(unix) => Place::Unix(path),
            _ => return Err(AddressError::Url("there are no such sockets here".to_owned())),
        };
        let tls = match &place {
            Place::Tcp { host, .. } if plain.is_some() => Some(self.files.tls_to(host)?),
            _ => {
                self.files.none()?;
                None
            }
        };
        Ok(Address(Arc::new(AddressParts { place, tls, settings: info.redis_settings().clone() })))
    }
}

#[cfg(test)]
impl Location {
    pub(crate) fn settings(&self, names: [&'static str; 2]) -> Vec<crate::defaults::tests::Setting> {
        self.files.settings(names)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location").finish_non_exhaustive()
    }
}

/// Where a server is, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Address(Arc<AddressParts>);

struct AddressParts {
    place: Place,
    tls: Option<Tls>,
    settings: RedisConnectionInfo,
}

enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// A new connection, and the task that ends with it.
    pub(crate) async fn connect(&self) -> Answer<(Connection, JoinHandle<()>)> {
        within(CONNECT_TIMEOUT, self.open()).await?
    }

    async fn open(&self) -> Answer<(Connection, JoinHandle<()>)> {
        let AddressParts { place, tls, .. } = &*self.0;
        match (place, tls) {
            (Place::Tcp { host, port }, None) => self.over(tcp(host, *port).await?).await,
            (Place::Tcp { host, port }, Some(tls)) => {
                self.over(tls.over(tcp(host, *port).await?).await?).await
            }
            #[cfg(unix)]
            (Place::Unix(path), _) => self.over(UnixStream::connect(path).await?).await,
            #[cfg(not(unix))]
            (Place::Unix(_), _) => Err(ServerError::Answer),
        }
    }

    async fn over<S>(&self, socket: S) -> Answer<(Connection, JoinHandle<()>)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Our own timeout is round each call.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&self.0.settings, socket, config);
        let (link, driver) = made.await?;
        let driving = tokio::spawn(driver);
        let end = Arc::new(AbortOnDrop(driving.abort_handle()));
        Ok((Connection { link, end, left: Arc::default() }, driving))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").finish_non_exhaustive()
    }
}

/// To the first of its addresses that takes the connection: one that is silent is waited for beside the others.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let connecting: Vec<_> =
        lookup_host((host, port)).await?.map(|addr| Box::pin(TcpStream::connect(addr))).collect();
    if connecting.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    let (socket, _) = select_ok(connecting).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A clone is a handle to the same. It is closed with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    link: MultiplexedConnection,
    end: Arc<AbortOnDrop>,
    left: Arc<Notify>,
}

/// What a server says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// `None` if it does not say.
    pub(crate) run: Option<String>,
    pub(crate) clock: Clock,
}

/// The clock of a server, as it was read at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    now_ms: u64,
    at: Instant,
}

impl Clock {
    /// By the answer to a `TIME` that was sent at this moment: ahead by what that took on its way, and never behind.
    pub(crate) fn read(answer: Value, sent_at: Instant) -> Answer<Self> {
        let now_ms = millis(accepted(answer)?).ok_or(ServerError::Answer)?;
        Ok(Self { now_ms, at: sent_at })
    }

    /// What it shows now.
    pub(crate) fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now_ms.saturating_add(since)
    }
}

impl Connection {
    /// Closes it. Calls that wait for an answer fail.
    pub(super) fn end(&self) {
        self.end.0.abort();
    }

    /// Lets calls that wait for an answer have their time. No other call will be made.
    pub(super) fn leave(&self) {
        self.left.notify_one();
    }

    /// Returns once it has ended or was left.
    pub(super) async fn lasts(&self, driver: JoinHandle<()>) {
        _ = select(pin!(driver), pin!(self.left.notified())).await;
    }

    /// The answers to all commands, those included that are errors. After a timeout what was asked may still be
    /// done.
    pub(crate) async fn ask(&mut self, pipe: &Commands, limit: Duration) -> Answer<Vec<Value>> {
        let answers = within(limit, self.link.send_packed_commands(pipe, 0, pipe.len())).await??;
        if answers.len() == pipe.len() { Ok(answers) } else { Err(ServerError::Answer) }
    }

    /// Asks what the server is, and refuses one that is too old.
    pub(crate) async fn hello(&mut self) -> Answer<Hello> {
        let mut pipe = commands();
        pipe.cmd("INFO").arg("server").cmd("TIME");
        let at = Instant::now();
        let answers = self.ask(&pipe, CONNECT_TIMEOUT).await?;
        let [info, time] = answers.try_into().map_err(|_| ServerError::Answer)?;
        let clock = Clock::read(time, at)?;
        let info = text(info).unwrap_or_default();
        check_version(&info)?;
        Ok(Hello { run: info_field(&info, "run_id").map(str::to_owned), clock })
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = T>) -> Answer<T> {
    timeout(limit, answer).await.map_err(|_| ServerError::Timeout(limit))
}

/// Pauses after failures: doubling, half of each at random, for ever.
pub(crate) struct Backoff(Duration);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }
}

const MAX_NAME_BYTES: usize = 64;

/// Whether this can be the name of a namespace or node: it stands in keys, between colons and in braces.
pub(crate) fn is_name(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_valid)
}

/// Redis 7.0 is the first that tells of deleted entries, and Valkey begins there.
fn check_version(info: &str) -> Answer<()> {
    let (name, version, least) = match info_field(info, "valkey_version") {
        Some(version) => ("Valkey", version, (7, 2)),
        None => ("Redis", info_field(info, "redis_version").unwrap_or("7.0"), (7, 0)),
    };
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < least { Err(ServerError::Version(format!("{name} {version}"))) } else { Ok(()) }
}

pub(crate) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

// Answers are read without trust in their form.

/// An answer that is no error.
pub(crate) fn accepted(value: Value) -> Answer<Value> {
    match refusal(&value) {
        Some(why) => Err(ServerError::Refused(why)),
        None => Ok(value),
    }
}

/// Why the server has refused what was asked, if it has, in its words.
pub(crate) fn refusal(answer: &Value) -> Option<String> {
    match answer {
        Value::ServerError(error) => {
            Some(format!("{} {}", error.code(), error.details().unwrap_or_default()))
        }
        _ => None,
    }
}

pub(crate) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

pub(crate) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

pub(crate) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) | Value::Set(values) => values,
        _ => Vec::new(),
    }
}

/// Of `TIME`.
pub(crate) fn millis(value: Value) -> Option<u64> {
    let mut numbers = list(value).into_iter().map(|number| text(number)?.parse::<u64>().ok());
    let (seconds, micros) = (numbers.next()??, numbers.next()??);
    Some(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_do_not_tell_of_deleted_entries_are_refused() {
        for (info, is_fit) in [
            ("redis_version:7.0.15\r\nrun_id:x\r\n", true),
            ("redis_version:8.2.3\r\n", true),
            ("redis_version:6.2.14\r\n", false),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n", true),
            ("redis_version:7.2.4\r\nvalkey_version:7.1.0\r\n", false),
            // A service that hides it.
            ("", true),
        ] {
            assert_eq!(check_version(info).is_ok(), is_fit, "{info:?}");
        }
        let refused = check_version("redis_version:6.2.14").unwrap_err().to_string();
        assert_eq!(refused, "Redis 6.2.14 is too old: Redis 7.0 or Valkey 7.2 is needed");
    }

    #[test]
    fn a_url_that_cannot_be_followed_is_refused() {
        for url in [
            "",
            "127.0.0.1:6379",
            "http://127.0.0.1/",
            "redis://",
            "redis://127.0.0.1/x",
            "redis://127.0.0.1/#insecure",
            "rediss://127.0.0.1/#insecure",
            "REDISS://127.0.0.1/#insecure",
        ] {
            let refused = Location::new(url).resolve();
            assert!(matches!(refused, Err(AddressError::Url(_))), "{url}");
        }
        for url in ["redis://h", "redis://u:p@h:1/2", "valkey://[::1]:7", "redis://h?protocol=resp3"] {
            assert!(Location::new(url).resolve().is_ok(), "{url}");
        }
    }

    #[cfg(not(feature = "redis-tls"))]
    #[test]
    fn tls_is_refused_in_a_line_that_says_what_to_add() {
        for url in ["rediss://127.0.0.1/", "valkeys://127.0.0.1/"] {
            let Err(AddressError::Url(why)) = Location::new(url).resolve() else { panic!("{url}") };
            assert_eq!(why, "it asks for TLS: add the feature `redis-tls`");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let location = Location::new("redis://user:hunter2@127.0.0.1/");
        let shown = format!("{location:?} {:?}", location.resolve().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn pauses_double_up_to_the_longest_with_half_of_each_at_random() {
        let mut backoff = Backoff::new();
        for most in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let (pause, most) = (backoff.next(), Duration::from_millis(most));
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
        }
    }
}
