//! Several nodes: purges that reach every process of a service.
//!
//! Each node keeps its own store. A [`Cluster`] joins them by a log on a Redis (7.0 or later) or Valkey server
//! (7.2 or later): each purge through a [`Purge`] handle, and each URL and group that an unsafe request
//! invalidates, is applied here at once and written to the log, and all nodes apply the log in its order.
//! Nothing else changes: a hit asks no server, and responses are not shared, unless there is a
//! [second tier](crate::tier).
//!
//! ```no_run
//! use std::time::Duration;
//! use tower_readthrough::{MemoryStore, ReadThroughLayer, cluster::Cluster};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20)).build()?;
//! let cluster = Cluster::builder("redis://127.0.0.1/", cache.purge()).namespace("shop").open()?;
//!
//! let purged = cache.purge().tag("product-7");
//! // No node serves it from here on.
//! purged.applied_everywhere(Duration::from_secs(1)).await?;
//! # cluster.leave().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds when
//!
//! | | |
//! |---|---|
//! | a purge call has returned | this node serves nothing that it reached, as without a cluster |
//! | [`state`](crate::Purged::state) is `Sent` | the server has it; each node that reads the log applies it as soon as it has read it |
//! | [`applied_everywhere`](crate::Purged::applied_everywhere) has returned | no node serves it |
//! | the server is away | all nodes go on serving; purges are applied here, wait, and are sent when it is back. The other nodes serve what was purged until then, or as long as [`when_cut_off`](ClusterBuilder::when_cut_off) lets them |
//! | a node was cut off | when it reads the log again, and cannot be sure that it has missed nothing, all that it holds is [unproven](crate::purge::Strength::Unproven): confirmed by the origin before it is used |
//! | the server was restarted, replaced or flushed | the same on all nodes. That is a wave of revalidations, one for each key that is asked for; an [`OriginLimit`](crate::OriginLimit) bounds it |
//! | more than 10,000 purges wait | they become one, which leaves everything unproven on the other nodes |
//! | a node ends with purges that wait | they are lost; `Queued` means that |
//!
//! # What is told
//!
//! Purges in words, of at most 4 KiB each: a longer one leaves everything unproven on the other nodes. Unsafe
//! requests to one URI are told at most once in 100 milliseconds, and the last one always is. What waits to be
//! told twice is told once.
//!
//! # Restarts
//!
//! With a [`SnapshotFile`](crate::store::SnapshotFile) a node that restarts uses at once what it had stored and
//! nothing has purged meanwhile: the file says how far the log was applied. Open the cluster first.
//!
//! With a [second tier](crate::tier) a node that starts with an empty store asks its origin for nothing that is fresh
//! there: it reads the log from its beginning, and by that knows what was purged before it was born, as far back as the
//! log goes. What is older is confirmed by the origin.
//!
//! # What is not promised
//!
//! * A node that is cut off serves what was purged elsewhere until the connection is back, unless
//!   [`when_cut_off`](ClusterBuilder::when_cut_off) says otherwise: a server that is away must not become an origin that is
//!   flooded.
//! * The log is read from the primary. Sentinel and Redis Cluster are not supported. TLS is, with the feature
//!   `redis-tls`: by a URL that begins with `rediss://`.
//! * All nodes need the same key rules: a purge of a URL is said as the URL, and read by the rules of each.
//! * The log deleted, and the server's clock set back, both at once: then
//!   [`applied_everywhere`](crate::Purged::applied_everywhere) can be wrong for a second.
//! * Any client that can write to the server can purge, and see what is purged.
//! * The names of tags, the URLs and the cache keys that are purged stand on the server, for as long as the last 65,536
//!   purges. It keeps no responses, unless there is a [second tier](crate::tier).

mod cut_off;
#[cfg(all(test, feature = "testing"))]
mod cut_off_tests;
mod follow;
mod log;
mod redis;
mod registry;
#[cfg(feature = "testing")]
mod shared_log;
mod standing;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};

pub use self::cut_off::WhenCutOff;
#[cfg(feature = "testing")]
pub use self::shared_log::{PurgeLog, PurgeLogNode};
use self::{
    log::{Log, Target, Ticket},
    redis::{Server, Writer},
    registry::Known,
    standing::{Said, Standing},
};
#[doc(no_inline)]
pub use crate::observe::{ClusterState, ClusterStatus, NodeStatus};
use crate::{
    http::storing::after,
    purge::{Applicable, Purge},
    remote::connection::{AddressError, Location, is_name},
    sequence::{AsOf, Journal, Message, NotEverywhere, NotEverywhereReason, Receipt, Strength},
};

/// A node of a cluster; see the [module](self).
///
/// A clone is a handle to the same. When the last one is dropped the node hears of no more purges, and
/// tells of none: keep one for as long as the process serves.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

/// Configures a [`Cluster`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClusterBuilder {
    location: Location,
    purge: Purge,
    namespace: String,
    node: String,
    when_cut_off: WhenCutOff,
}

/// Why a node cannot join a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The URL of the server cannot be used, for example since it asks for TLS without the feature `redis-tls`.
    #[error("invalid URL of a server: {0}")]
    Url(String),
    /// A certificate or key for TLS cannot be used, or the URL does not ask for TLS.
    #[error("invalid certificates: {0}")]
    Certificate(String),
    /// A name is invalid.
    #[error("`{setting}`: {name:?} is not a valid name: give it 1 to 64 letters, digits, `-`, `_` or `.`")]
    Name {
        /// The setting.
        setting: &'static str,
        /// The given name.
        name: String,
    },
    /// The time after which a node that is cut off validates is too short or too long.
    #[error("`when_cut_off`: {0:?} is not from 3 seconds to 1 hour")]
    WhenCutOff(Duration),
    /// The store is part of a cluster already.
    #[error("the store has joined a cluster already: keep the first handle")]
    Joined,
    /// The store [trusts](crate::store::SnapshotFileBuilder::trust_freshness) what it has loaded from a file.
    #[error(
        "the store trusts what it loads from a file, whatever other nodes have purged: leave `trust_freshness` out"
    )]
    TrustsFile,
    /// The log is followed by tasks.
    #[error("there is no tokio runtime: open the cluster inside one")]
    NoRuntime,
}

impl ClusterError {
    /// Why the store of this handle takes no journal.
    fn of_store(purge: &Purge) -> Self {
        if purge.is_joined() { Self::Joined } else { Self::TrustsFile }
    }
}

impl From<AddressError> for ClusterError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Url(why) => Self::Url(why),
            #[cfg(feature = "redis-tls")]
            AddressError::Certificate(why) => Self::Certificate(why),
        }
    }
}

struct Shared {
    purge: Purge,
    log: Mutex<Log>,
    server: Server,
    node: String,
    /// Something may have to be sent.
    wake: Notify,
    /// The run of the server from which the log is read, by its own name.
    run: Mutex<Option<String>>,
    standing: Standing,
    when_cut_off: WhenCutOff,
    /// Nodes that were seen in the registry.
    known: Mutex<Known>,
    /// Looks at the registry.
    surveyor: tokio::sync::Mutex<Option<Writer>>,
}

struct Tasks([AbortHandle; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl ClusterBuilder {
    /// What the nodes have in common: nodes of other namespaces on the same server hear nothing of each
    /// other. 1 to 64 letters, digits, `-`, `_` or `.`. Default: `readthrough`.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// The name of this node, by which [`NotEverywhere`] names it. Two nodes must not have the same. 1 to 64
    /// letters, digits, `-`, `_` or `.`. Default: a random one.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = name.into();
        self
    }

    /// What this node does while it hears of no purges. Default: [`WhenCutOff::ServeOn`].
    pub fn when_cut_off(mut self, what: WhenCutOff) -> Self {
        self.when_cut_off = what;
        self
    }

    /// The certificates, in PEM, of the authorities that may have signed that of the server. Default: those of the
    /// system. Only for URLs that begin with `rediss://`.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.location.files().set_roots(pem);
        self
    }

    /// The certificate by which this node makes itself known to the server, with those of the authorities between, and
    /// its key, in PEM. Default: none. Only for URLs that begin with `rediss://`.
    #[cfg(feature = "redis-tls")]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.location.files().set_client(pem, key);
        self
    }

    /// Joins. The server need not be there yet: it is tried again for ever.
    ///
    /// # Errors
    ///
    /// If the URL, a name or a time is invalid, if the store has joined a cluster already or trusts what it has
    /// loaded from a file, or outside of a tokio runtime.
    pub fn open(self) -> Result<Cluster, ClusterError> {
        let Self { location, purge, namespace, node, when_cut_off } = self;
        for (setting, name) in [("namespace", &namespace), ("node", &node)] {
            if !is_name(name) {
                return Err(ClusterError::Name { setting, name: name.clone() });
            }
        }
        if let Some(after) = when_cut_off.invalid() {
            return Err(ClusterError::WhenCutOff(after));
        }
        let server = Server::new(location.resolve()?, &namespace);
        let runtime = Handle::try_current().map_err(|_| ClusterError::NoRuntime)?;
        let shared = Arc::new(Shared {
            purge,
            log: Mutex::new(Log::new()),
            server,
            node,
            wake: Notify::new(),
            run: Mutex::default(),
            standing: Standing::new(),
            when_cut_off,
            known: Mutex::default(),
            surveyor: tokio::sync::Mutex::default(),
        });
        if !shared.purge.keep_journal(Arc::new(Following(Arc::downgrade(&shared)))) {
            return Err(ClusterError::of_store(&shared.purge));
        }
        when_cut_off.begin(&shared.purge);
        if let Some(stats) = shared.purge.stats() {
            let cluster = Arc::downgrade(&shared);
            stats.read_cluster(move || cluster.upgrade().map(|shared| shared.status()));
        }
        let follower = runtime.spawn(follow::read_log(Arc::downgrade(&shared)));
        let sender = runtime.spawn(follow::send_purges(Arc::downgrade(&shared)));
        let tasks = Tasks([follower.abort_handle(), sender.abort_handle()]);
        Ok(Cluster { shared, tasks: Arc::new(tasks) })
    }
}

impl Cluster {
    /// Returns a builder for a node whose purges go through this handle and others of the same store, and that
    /// follows the log of the server at this URL (`redis://[user:password@]host[:port][/database]`).
    pub fn builder(url: impl Into<String>, purge: Purge) -> ClusterBuilder {
        let node = format!("{:x}-{:016x}", std::process::id(), fastrand::u64(..));
        let (namespace, when_cut_off) = ("readthrough".to_owned(), WhenCutOff::default());
        ClusterBuilder { location: Location::new(url), purge, namespace, node, when_cut_off }
    }

    /// Returns how the node stands to the cluster now. The [statistics](crate::StatsSnapshot::cluster) of the cache
    /// say the same, if the handle that the cluster was made with is from
    /// [`ReadThroughLayer::purge`](crate::ReadThroughLayer::purge) or its builder.
    pub fn status(&self) -> ClusterStatus {
        self.shared.status()
    }

    /// Returns the name of this node.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// Leaves the cluster, so that no other node waits for this one. At the end of a process, when it serves no
    /// more. If the server is away, others name this node until an hour has passed, or the limit that it has by
    /// [`when_cut_off`](ClusterBuilder::when_cut_off), and a second.
    pub async fn leave(self) {
        self.tasks.0.iter().for_each(AbortHandle::abort);
        if let Ok(mut writer) = self.shared.server.writer().await {
            _ = writer.leave(&self.shared.node).await;
        }
    }
}

impl Shared {
    fn status(&self) -> ClusterStatus {
        let Said { is_connected, state, since, heard, last_error, may_evict_log, others } =
            self.standing.said();
        let log = self.log.lock();
        ClusterStatus {
            node: (&*self.node).into(),
            state,
            since,
            is_connected,
            is_caught_up: log.is_caught_up(),
            heard,
            validates_after: self.when_cut_off.lease(),
            must_validate: self.purge.is_cut_off(),
            position: log.position().map(|position| position.id.to_string().into()),
            behind: log.behind(),
            waiting: log.waiting(),
            gaps: log.gaps(),
            others,
            may_evict_log,
            last_error,
        }
    }

    /// Whether all nodes have applied an entry.
    async fn survey(&self, ticket: &Ticket) -> Result<(), NotEverywhere> {
        let not_sent = || NotEverywhere::new(NotEverywhereReason::NotSent, Vec::new());
        let position = ticket.position().ok_or_else(not_sent)?;
        let mut surveyor = self.surveyor.lock().await;
        let mut writer = match surveyor.take() {
            Some(writer) => writer,
            None => self.server.writer().await.map_err(|_| not_sent())?,
        };
        let survey = writer.survey(position).await.map_err(|_| not_sent())?;
        let forgotten = survey.forgotten();
        if forgotten.is_empty() || writer.forget(&forgotten).await.is_ok() {
            *surveyor = Some(writer);
        }
        drop(surveyor);
        let run = self.run.lock().clone();
        self.known.lock().check(&survey, position, run.as_deref())
    }
}

impl Target for Purge {
    type Purge = Applicable;

    fn purge(&self, purge: &Applicable) -> u64 {
        self.apply(purge)
    }

    fn doubt(&self, strength: Strength) {
        Self::doubt(self, strength);
    }

    fn current(&self) -> u64 {
        Self::current(self)
    }
}

/// What the store's sequence knows of the cluster.
#[derive(Debug)]
struct Following(Weak<Shared>);

impl Journal for Following {
    fn record(
        &self,
        message: &Message,
        is_invalidation: bool,
        purge: &mut dyn FnMut() -> u64,
    ) -> (u64, Arc<dyn Receipt>) {
        let Some(shared) = self.0.upgrade() else {
            return (purge(), Arc::new(Issued { ticket: Arc::default(), cluster: Weak::new() }));
        };
        let mut log = shared.log.lock();
        let (number, ticket) = log.issue(message, is_invalidation, Instant::now(), purge);
        drop(log);
        shared.wake.notify_one();
        (number, Arc::new(Issued { ticket, cluster: Weak::clone(&self.0) }))
    }

    fn as_of(&self, fetch_number: u64) -> Option<AsOf> {
        self.0.upgrade()?.log.lock().as_of(fetch_number)
    }

    fn begun(&self, as_of: AsOf) -> Option<u64> {
        let shared = self.0.upgrade()?;
        let log = shared.log.lock();
        log.begun(as_of, &shared.purge)
    }

    fn is_caught_up(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.log.lock().is_caught_up())
    }
}

/// A purge of this node.
struct Issued {
    ticket: Arc<Ticket>,
    cluster: Weak<Shared>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issued").field(&self.ticket.position()).finish()
    }
}

/// Between two looks at the registry, while all nodes are likely to say in a moment that they have applied it, and
/// at most.
const LOOK_PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
/// So many pauses are the shortest ones.
const SHORT_PAUSES: u32 = 8;

impl Receipt for Issued {
    fn is_sent(&self) -> bool {
        self.ticket.position().is_some()
    }

    fn applied_everywhere(&self, within: Duration) -> BoxFuture<'_, Result<(), NotEverywhere>> {
        Box::pin(async move {
            let until = after(Instant::now(), within);
            let [shortest, longest] = LOOK_PAUSES;
            let mut pauses = 0_u32;
            let mut last = NotEverywhere::new(NotEverywhereReason::NotSent, Vec::new());
            // One look may take longer: others wait for their turn, or the server does not answer.
            let looks = async {
                while let Some(shared) = self.cluster.upgrade() {
                    match shared.survey(&self.ticket).await {
                        Ok(()) => return true,
                        Err(error) => last = error,
                    }
                    drop(shared);
                    let doublings = pauses.saturating_sub(SHORT_PAUSES).min(16);
                    sleep((shortest * (1 << doublings)).min(longest)).await;
                    pauses = pauses.saturating_add(1);
                }
                false
            };
            let is_everywhere = timeout_at(until, looks).await.unwrap_or(false);
            if is_everywhere { Ok(()) } else { Err(last) }
        })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl ClusterBuilder {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        let Self { location, purge: _, namespace, node, when_cut_off } = self;
        let name = if node.len() > 16 { "random" } else { "some" };
        let when_cut_off = match when_cut_off {
            WhenCutOff::ServeOn => "serve on".to_owned(),
            WhenCutOff::ValidateAfter(after) => crate::defaults::tests::span(*after),
        };
        let tls = ["ClusterBuilder::root_certificates", "ClusterBuilder::client_certificate"];
        let mut settings = vec![
            ("ClusterBuilder::namespace", namespace.clone()),
            ("ClusterBuilder::node", name.to_owned()),
            ("ClusterBuilder::when_cut_off", when_cut_off),
        ];
        settings.extend(location.settings(tls));
        settings
    }
}
