//! A kit for tests of applications that use this crate (feature `testing`).
//!
//! What is to be known of a cache in a test is how often the origin was asked, what each client got, and why. So
//! there is an origin that does what a script says and counts, a client that knows the decision of the cache,
//! and a clock that the test moves. None of it needs a socket or real time.
//!
//! ```toml
//! [dev-dependencies]
//! tower-readthrough = { version = "0.1", features = ["testing"] }
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! ```
//! use std::time::Duration;
//! use tower::Layer;
//! use tower_readthrough::{
//!     Forward, MemoryStore, ReadThroughLayer, Stale, NotStored,
//!     testing::{Answer, Client, Script, ScriptedOrigin, time},
//! };
//!
//! # fn main() {
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
//! # runtime.block_on(test());
//! # }
//! // In a test with `#[tokio::test(start_paused = true)]`:
//! # async fn test() {
//! let origin = ScriptedOrigin::strict()
//!     .on("/products/{id}", Answer::ok("teapot").max_age(60).then(Answer::error()).repeat())
//!     .on("GET /account", Answer::ok("alice").header("cache-control", "no-store").repeat())
//!     .on("/export", Script::from_fn(|_, _| Answer::ok("0123456789").max_age(60).cut_after(4)));
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build().unwrap();
//! let client = Client::new(cache.layer(origin.clone()));
//!
//! // A hundred clients at once are one call of the origin.
//! let gate = origin.hold();
//! let page = client.get("/products/7");
//! let (seen, ()) = tokio::join!(page.burst(100), async {
//!     gate.waiting(1).await;
//!     gate.open();
//! });
//! assert!(seen.iter().all(|seen| seen.body == "teapot"));
//! assert_eq!(origin.calls_of("/products/{id}"), 1);
//! client.get("/products/7").send().await.expect_hit();
//!
//! // The origin fails afterwards, and what is stale serves.
//! time::pass(Duration::from_secs(61)).await;
//! client.get("/products/7").send().await.expect_stale(Stale::IfError).expect_body("teapot");
//!
//! // What is for one client alone is not stored, and neither is half of a body.
//! client.get("/account").send().await.expect_not_stored(NotStored::NoStore);
//! client.get("/account").send().await.expect_miss(Forward::Bypass);
//! assert!(client.get("/export").send().await.is_cut);
//! client.get("/export").send().await.expect_miss(Forward::UriMiss);
//! // Here `origin` is dropped, and fails if a request was not scripted, or an answer not given.
//! # }
//! ```
//!
//! | part | what it does |
//! |---|---|
//! | [`ScriptedOrigin`] | answers by pattern, closure or function; counts calls, keeps the heads of requests |
//! | [`Answer`], [`Script`] | delays, failures, hangs, panics, bodies that are cut, drip or never end; several in turn |
//! | [`Gate`] | holds calls of the origin until the test has seen what happens meanwhile: in place of a sleep |
//! | [`Client`], [`Seen`] | requests to any service, alone or in a burst, and assertions on what came back and why |
//! | [`time::pass`] | lets paused time pass, timer by timer |
//! | `check_rules`, `check_rules_file` | [key rules](crate::KeyRules) against a table of requests (feature `serde`) |
//! | `PurgeLog` | stores of one process as nodes of a cluster (feature `redis`) |
//! | `ScriptedRemote` | a place for a second tier that can be slow, fail and hang (feature `redis`) |
//! | [`FaultsLayer`] | faults at random, the same ones for the same seed |
//!
//! # Limits
//!
//! * A mistake in a test panics where it is made, with what was asked for and what was there.
//! * An origin keeps the heads of 10,000 requests, and lists 20 different ones that were not scripted.
//! * [`Faults`] refuses to be part of a release unless it is allowed.
//! * Tokio's paused clock runs on by itself when nothing else can run, and sockets do not keep it from that: where
//!   there are sockets, time should not be paused.

mod answer;
mod body;
mod client;
mod faults;
mod gate;
mod origin;
#[cfg(feature = "redis")]
mod remote;
#[cfg(feature = "serde")]
mod rules;
mod script;
mod seen;
pub mod time;

#[cfg(feature = "redis")]
pub use self::remote::{RemoteCall, RemoteGate, ScriptedRemote};
#[cfg(feature = "serde")]
pub use self::rules::{check_rules, check_rules_file};
pub use self::{
    answer::Answer,
    body::{BodySender, Failure, TestBody},
    client::{Client, ClientRequest, DropAfter},
    faults::{Faults, FaultsBuilder, FaultsError, FaultsLayer, FaultyBody, Injected, MakeError, NoError},
    gate::Gate,
    origin::ScriptedOrigin,
    script::{Matcher, Script},
    seen::Seen,
};
#[cfg(feature = "redis")]
pub use crate::cluster::{PurgeLog, PurgeLogNode};
