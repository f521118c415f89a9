//! Nodes that share purges over a real server.
//!
//! Time is real, since sockets take part. Tests wait for what a node says of itself, within a limit that only a
//! node that never gets there reaches.

#[allow(dead_code, unused_imports, reason = "the kit of the other tests, of which these use a part")]
#[path = "../it/support/mod.rs"]
mod support;

mod cut_off;
mod everywhere;
mod example;
mod fake;
mod link;
mod many;
mod model;
mod node;
mod outages;
mod process;
mod processes;
mod purges;
mod remote;
mod restarts;
mod server;
mod settings;
mod status;
mod tier;
mod tier_faults;
#[cfg(feature = "redis-tls")]
mod tls;
