//! One module for each kind of fault, each test named for what must hold.

mod bodies;
mod flights;
mod framing;
mod keys;
mod outage;
mod parts;
mod status;
mod storing;
mod variants;
