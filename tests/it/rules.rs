//! Key rules as their authors write them: the effect of each setting on a request, a response
//! and a purge.

#[cfg(feature = "body-key")]
mod bodies;
mod conditions;
#[cfg(all(feature = "serde", feature = "body-key"))]
mod documents;
mod handles;
mod hosts;
mod linter;
mod matching;
#[cfg(all(feature = "serde", feature = "body-key"))]
mod openapi;
mod purges;
mod responses;
#[cfg(all(feature = "serde", feature = "body-key"))]
mod schema;
#[cfg(feature = "serde")]
mod tables;
mod tags;
