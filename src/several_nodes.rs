//! Several nodes: from one process to many that share purges, what that guarantees, and how to run it.
//!
//! One process with a cache needs nothing of this. With a second one behind the same load balancer a purge reaches
//! half of the requests, and an edit is visible or not by chance. A [`Cluster`](crate::cluster::Cluster) closes that gap
//! with a log of purges on a Redis or Valkey server: each node keeps its own store and its own hits, and applies what the
//! others purge.
//!
//! # The second process
//!
//! Three lines, in each process, and a server that all of them reach:
//!
//! ```
//! use std::time::Duration;
//! use tower_readthrough::{MemoryStore, PurgeState, ReadThroughLayer, cluster::{Cluster, WhenCutOff}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(256 << 20)).build()?;
//! // What the platform calls this process; two of one name would hide each other.
//! let node = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "web-1".into());
//! # let url = "redis://127.0.0.1:1/";
//! let cluster = Cluster::builder(url, cache.purge())
//!     .namespace("shop")
//!     .node(node)
//!     .when_cut_off(WhenCutOff::ValidateAfter(Duration::from_secs(30)))
//!     .open()?;
//!
//! // A process starts, serves and purges without the server, which is tried again for ever.
//! let purged = cache.purge().tag("product-7");
//! assert_eq!(purged.state(), PurgeState::Queued);
//! assert!(!cluster.status().is_connected);
//! // At the end of the process, so that no other node waits for it.
//! cluster.leave().await;
//! # Ok(())
//! # }
//! ```
//!
//! Whatever purges today purges all nodes from then on: code with a [`Purge`](crate::Purge) handle, the
//! [service](crate::purge), the dashboard, and unsafe requests (RFC 9111 §4.4). All nodes need the same key rules,
//! since a purge of a URL is told as a URL: during a deployment that changes rules, purge by tag, or once more when it is
//! over.
//!
//! A form that shows an editor the new text after saving waits for the others:
//!
//! ```no_run
//! # async fn saved(purge: tower_readthrough::Purge) {
//! match purge.tag("article-9").applied_everywhere(std::time::Duration::from_secs(1)).await {
//!     Ok(()) => println!("live on all nodes"),
//!     Err(error) => println!("live here, and soon everywhere: {error}"),
//! }
//! # }
//! ```
//!
//! # What is guaranteed, and when
//!
//! | moment | this node | the other nodes |
//! |---|---|---|
//! | a purge call returns | nothing that it reached is served | not yet, within a few milliseconds where the server is there |
//! | [`state`](crate::Purged::state) is `Sent` | the same | nothing is lost if this process ends now |
//! | [`applied_everywhere`](crate::Purged::applied_everywhere) returned `Ok` | the same | nothing that it reached is served by any of them |
//! | it returned names | the same | the named ones may serve it: they are slow, cut off, or gone without a word |
//! | the server is away | the same; what is purged waits | they serve what they have; with [`ValidateAfter`](crate::cluster::WhenCutOff::ValidateAfter) for no longer than that |
//! | a node is back after a short interruption | what was purged meanwhile is applied in order | the same |
//! | the server has lost its data, or another one took its place | all that is stored is confirmed by the origin before it is used, once | the same on each node |
//!
//! A [second tier](crate::Tier) and a [snapshot file](crate::store::SnapshotFile) change none of it. What they hold says up to
//! where its node had followed the log when it was fetched, and is judged by all that was purged since:
//!
//! | moment | what the tier holds | what a file holds |
//! |---|---|---|
//! | it was fetched before a purge that reaches it | not used, on any node that has applied the purge | not used after a restart, once the node has caught up |
//! | the log no longer reaches back to its fetch, or was lost | the origin confirms it before it is used | the same |
//! | this node has not caught up with the log | neither read nor written | waited for, and after two seconds loaded and confirmed by the origin before it is used |
//! | the server is away, or the node is cut off for longer than `ValidateAfter` allows | neither read nor written | loaded, and confirmed by the origin before it is used |
//!
//! # What is not
//!
//! * **Nothing is linearizable.** Between the return of a purge and its arrival on another node a client can see the new
//!   page here and the old one there. `applied_everywhere` ends that time for the caller, and nothing but the origin
//!   can end it for others.
//! * **A node without a limit that is cut off serves what it has**, until it is stale by itself. That is the default,
//!   since a server that is away must not become an origin that is flooded.
//! * **A process that ends with purges that were not sent takes them along.** Wait for `Sent` where that matters.
//! * **A response that was on its way is not called back.** A purge is for requests that arrive after it.
//! * **The limit of `when_cut_off` needs clocks that run at one rate**, within a second over that limit. A virtual machine
//!   that was suspended with its monotonic clock goes on where it was, and serves for the rest of the time.
//! * **The clock of the server is trusted** to say how long a node has been silent. Each node reads it anew with each read
//!   of the log: one that is there is seen again within two seconds, however the clock was set. Set forward by
//!   more than the limit, a node that is cut off, or any one for those two seconds, counts as safe too early.
//! * **Responses are not shared**: each node fetches for itself, unless it has a second tier.
//!
//! # Sizing
//!
//! | what | how much |
//! |---|---|
//! | the log | at most about 65,600 entries, 64 bytes each with short tags: 4 MB |
//! | a node, at the server | two connections, and a third from the first [`applied_everywhere`](crate::Purged::applied_everywhere) on; one more for a second tier; six commands at a time each second when nothing happens, or each quarter of `ValidateAfter` if that is less, and one more every two seconds |
//! | a fetch, at the server | one read of the second tier, and one or two writes behind it; two commands more with [`single_fetch`](crate::tier::TierBuilder::single_fetch) |
//! | a purge, at the server | about 15 µs of its thread for each node |
//! | a node, in its memory | 2 MiB for entries of the log, and the records of their purges, of 100 bytes: usually half as many as [`max_tag_records`](crate::MemoryStoreBuilder::max_tag_records) |
//! | purges that wait while the server is away | 10,000; more of them become one, which leaves everything unproven on the other nodes |
//! | a purge in words | 4 KiB; a longer one leaves everything unproven on the other nodes |
//!
//! Half of the records of purges that are possible are kept, and not only until all that is stored was checked: what a
//! second tier or a [snapshot file](crate::store::SnapshotFile) holds is judged by them. Purges of URLs have
//! no records but [floors](crate::MemoryStoreBuilder::floors) that they share: with many purges of URLs, and a second
//! tier or a file, more of them keep more of what is stored.
//!
//! # The server
//!
//! * **Versions**: Redis 7.0 or later, Valkey 7.2 or later. An older one is refused with a line in
//!   [`last_error`](crate::ClusterStatus::last_error).
//! * **Memory**: `maxmemory-policy` must not begin with `allkeys`: such a server drops the quiet log before anything
//!   else. Each time it does, all nodes confirm all that they hold. `volatile-lru` and `noeviction` keep it; a server
//!   that is full takes no purges until it has room, and nodes with `ValidateAfter` count as cut off meanwhile.
//!   [`may_evict_log`](crate::ClusterStatus::may_evict_log) and an event of `tracing` tell of it.
//! * **Persistence** is not needed. Without it a restart costs a wave of revalidations (below); with
//!   `appendonly yes` it costs the same, since a server that comes back may have lost its last second, and says so by a
//!   new run id. Purges of the last minute are told to it once more by the nodes that issued them.
//! * **Access**: any client that can write to it can purge, and read what is purged. Give it a password, or its own
//!   network, and TLS (`rediss://`, feature `redis-tls`) where the network is not trusted. What the account needs: `HSET`,
//!   `HSETNX`, `HGETALL`, `HDEL`, `XADD`, `XREAD`, `XRANGE`, `XINFO`, `INFO` and `TIME`, and the keys `{namespace}:*`, braces
//!   included. With `CONFIG GET` it also learns whether the server may drop the log. The account of a second tier
//!   needs `GET`, `SET`, `UNLINK`, `EVAL`, `INFO` and `TIME`, and the keys `namespace:1:*`. Both need `SELECT` where the URL
//!   names a database.
//! * **What stands in it**: URLs, tags and patterns as they were purged, and cache keys where
//!   [`Purge::key`](crate::Purge::key) or [`key_prefix`](crate::Purge::key_prefix) is used. A key can have in it what
//!   [tells users apart](crate::DefaultKey). The keys of a second tier are digests, unless
//!   [`plain_keys`](crate::tier::TierBuilder::plain_keys) is set; the responses in it are as they are.
//! * **Replicas** are not read from: a replica has a run id of its own, and lags.
//! * **Sentinel and Redis Cluster** are not supported: the URL names one server. Behind a name or an address that follows
//!   the primary a failover works as a restart does: a primary that was demoted refuses to register a node, which then
//!   connects anew.
//!
//! # What a restart of the server costs
//!
//! No failed request, and no response that a purge had reached. Each node takes what it holds for
//! [unproven](crate::purge::Strength::Unproven): the next request for each key waits for the origin to confirm it, which
//! costs a 304 where there are validators. That is a wave of as many requests as there are keys in use, shared by
//! all callers of a key. An [`OriginLimit`](crate::OriginLimitLayer) bounds how many are under way, and if
//! the origin fails the stored response covers for it.
//!
//! For ten seconds after it, or for the longest time that a node has with `ValidateAfter` and a second,
//! `applied_everywhere` confirms nothing (`Young`): a node that has not come back yet may be unknown to the new server.
//!
//! # Deployments
//!
//! * **A new process** reads the log from its beginning, which takes a third of a second for 65,536 entries, and serves
//!   meanwhile: what it fetches by itself is as good as ever.
//! * **An old process** should call [`leave`](crate::cluster::Cluster::leave) when it serves no more. Without that it is
//!   named by each `applied_everywhere` for an hour, or, with `ValidateAfter`, until that time and a second are over.
//! * **A restart with a [snapshot file](crate::store::SnapshotFile)** uses at once what nothing has purged meanwhile:
//!   open the cluster before the file.
//! * **Versions of this crate** can be mixed: a node that does not know what an entry of the log says takes it for any purge.
//!
//! # Watching it
//!
//! [`Cluster::status`](crate::cluster::Cluster::status) and [`StatsSnapshot::cluster`](crate::StatsSnapshot::cluster) say
//! how this node stands and what the others have said; the dashboard shows it under "Nodes", and the metrics begin with
//! `readthrough_cluster_`. Worth an alarm: `readthrough_cluster_heard_seconds` above a few seconds,
//! `readthrough_cluster_behind` that does not go back to 0, and any `readthrough_cluster_gaps_total` without a restart of
//! the server. `examples/cluster/grafana.json` has panels for them, for the second tier and for a snapshot file.
//!
//! Why a response was confirmed by the origin is in its `Cache-Status`, in events and in
//! [`StatsSnapshot::lost`](crate::StatsSnapshot::lost): `unproven` after a gap or from a file, `cut-off` while the node
//! hears nothing. What the second tier had for it is in [`CacheStatus::second_tier`](crate::CacheStatus::second_tier).
