//! Published attacks on caches, each by its name, with the variations that the same weakness allows.

#[path = "security/desync.rs"]
mod desync;
#[path = "security/keys.rs"]
mod keys;
#[path = "security/purging.rs"]
mod purging;
#[path = "security/stored.rs"]
mod stored;
mod support;
#[path = "security/work.rs"]
mod work;
