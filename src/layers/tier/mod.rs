//! A second tier: what one node has fetched, the others need not fetch.
//!
//! Each node keeps its own store, which answers as ever. A [`Tier`] is asked for what is not there, once for all
//! callers of a fetch, before the origin is; and what a fetch has stored is written to it, after the response has gone
//! to the client. So a node that starts with an empty store asks the origin for nothing that is fresh in the tier.
//! Where it keeps things is a [`Remote`](crate::remote::Remote), such as a
//! [`RedisRemote`](crate::remote::RedisRemote).
//!
//! # It needs a cluster
//!
//! Purges reach the tier by the log of the [`Cluster`](crate::cluster::Cluster) that the store has joined, and by
//! nothing else: nothing in the remote is deleted by a purge. Each response there says up to where its writer had
//! applied the log when its fetch *began*. A node that reads it translates that into a number of its own
//! [`Sequence`](crate::Sequence), as if it had fetched the response itself; then it is stored and judged as any other. A
//! fetch that began before a purge loses therefore, however late it is written or read.
//!
//! **Without a cluster, and while the node has not read the log to its end, the tier does nothing**: it is neither
//! read nor written. [`Tier::status`] says so, and without a cluster one event at `warn` (feature `tracing`).
//!
//! ```
//! use tower::Layer;
//! use tower_readthrough::{
//!     MemoryStore, ReadThroughLayer, Tier, TierRead, TierWrite,
//!     testing::{Answer, Client, PurgeLog, ScriptedOrigin, ScriptedRemote},
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In a service: a `RedisRemote`, and a `Cluster` in place of the log in memory.
//! let (remote, log) = (ScriptedRemote::new(), PurgeLog::new());
//! let origin = ScriptedOrigin::always(|| Answer::ok("teapot").header("surrogate-key", "product-7").max_age(60));
//! let start_node = || {
//!     // The texts of tags and URLs are needed to write a response, and many floors to purge few beside the one.
//!     let store = MemoryStore::builder(64 << 20).snapshots(true).floors(1 << 20).build()?;
//!     let tier = Tier::builder(remote.clone()).build()?;
//!     let cache = ReadThroughLayer::builder(store).second_tier(tier.clone()).build()?;
//!     let joined = log.join(&cache.purge())?;
//!     Ok::<_, Box<dyn std::error::Error>>((cache, tier, joined))
//! };
//! let (first, tier, _joined) = start_node()?;
//! Client::new(first.layer(origin.clone())).get("/products/7").send().await.expect_body("teapot");
//! // At the end of a process, when it serves no more.
//! tier.flush(std::time::Duration::from_secs(1)).await;
//! assert_eq!(tier.status().writes.get(TierWrite::Written), 1);
//!
//! let (second, tier, _joined) = start_node()?;
//! let client = Client::new(second.layer(origin.clone()));
//! client.get("/products/7").send().await.expect_hit();
//! assert_eq!((origin.calls(), tier.status().reads.get(TierRead::Fresh)), (1, 1));
//!
//! // A purge on any node.
//! first.purge().tag("product-7");
//! client.get("/products/7").send().await;
//! assert_eq!((origin.calls(), tier.status().reads.get(TierRead::Purged)), (2, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # What is read
//!
//! One read for each fetch, before the origin is asked, also for a refresh in the background. Most take one round trip,
//! and one of a key whose `Vary` is not known here yet takes two.
//!
//! | in the tier | what happens |
//! |---|---|
//! | a fresh response | it is stored here and answers. `Cache-Status` says `hit; detail=second-tier`, since nothing was forwarded (RFC 9211 §2.1) |
//! | a stale one | it is stored here, the origin is asked to confirm it (`detail=second-tier-stale`), and it answers if that fails, by its `stale-if-error` |
//! | one of which it is not known what was purged since: the log does not reach back so far, or was lost | the origin is asked to confirm it (`detail=second-tier-unproven`), and nothing else |
//! | nothing, something purged, another key or variant, anything broken | the origin is asked. [`TierRead`](crate::TierRead) has a name for each |
//! | no answer: the remote is slow, late, full or gone | the origin is asked. A remote that has no bound of its own is left after a second |
//!
//! * Credentials count as they do for what is stored here: a response that is not for requests with such ones is not there
//!   for them (RFC 9111 §3.5).
//! * Conditions of a request (RFC 9110 §13) are judged on what is found, as on what is stored here.
//! * Not looked for: a request with [`no-cache`, `max-age` or `min-fresh`](crate::LookupLayer::request_directives), where
//!   these are followed; one for several ranges, or for a range under a condition; and one whose responses could not be
//!   shared a moment ago.
//! * HEAD and a single range are answered by a whole response. Parts (206) are not written.
//! * **Age** is counted by the clock of the remote, by which all nodes date what they write: their own clocks are not
//!   compared. What errs by a round trip errs towards older. A response that is dated more than a second ahead of that
//!   clock is one of which nothing is known.
//! * **Hits** have nothing to do with the tier.
//! * [`CacheStatus::second_tier`](crate::CacheStatus::second_tier) says of each response what was found.
//!
//! # What is written
//!
//! What a fetch has stored, or a 304 has prolonged, and nothing that came from the tier itself. It waits in a queue of
//! [1,024 responses](TierBuilder::max_queued) and [32 MiB](TierBuilder::max_queued_bytes), is written four at a time,
//! and stays for its lifetime and windows. The first write begins a millisecond later, so that it does not hold the
//! response up; if a quarter of the room is taken, it begins at once. The newest is dropped where there is no room, and
//! a newer response takes the place of an older one of the same. Changes under one key are made in their order. What is
//! purged before its turn is not written. If the origin sends something instead that is not stored, what the tier has is
//! removed, while it can be reached. A fetch for which the tier did not answer writes nothing, since no time on its
//! clock is known.
//!
//! # Failures
//!
//! None of them fails a response. After five in a row a breaker opens: for two seconds the remote is not asked, then
//! once, and each failure of that doubles the pause, up to 30 seconds. Reads and writes have one each: a server whose
//! memory is full is still read. A read that is not made costs one atomic load.
//!
//! # Turns
//!
//! With [`single_fetch`](TierBuilder::single_fetch) the nodes take turns at an origin. It is an optimisation: a node
//! that waits too long, or gets no lease, fetches. `Cache-Status` of what had to wait in vain has `detail=other-node`, if
//! nothing else is to be said of it ([`CacheStatus::has_waited_for_node`](crate::CacheStatus::has_waited_for_node)).
//!
//! # What it costs
//!
//! * Records of purges stay, up to half of [their most](crate::MemoryStoreBuilder::max_tag_records), since what the tier
//!   has may be older than all that is stored here.
//! * Each purge of a URL takes along what shares its [floor](crate::MemoryStoreBuilder::floors): with 65,536 floors
//!   the half of the tier after 45,000 purges, with 1,048,576 after 730,000.
//! * The store keeps the [texts](crate::MemoryStoreBuilder::snapshots) of tags and URLs.
//! * A process that can write to the remote decides what is served, and one that can read it reads responses. Keys
//!   there are digests, and say nothing, unless [they are to](TierBuilder::plain_keys).

mod breaker;
mod clock;
mod handle;
mod index;
mod keys;
mod layer;
mod lease;
mod queue;
mod read;
mod write;

#[cfg(test)]
pub(crate) use self::handle::default_settings;
pub use self::{
    handle::{FlushReport, Tier, TierBuilder},
    layer::{TierFuture, TierLayer, TierService},
};
