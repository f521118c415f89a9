//! Rules as their authors write them: what each setting of the vocabulary does to a request, a response
//! and a purge.

#[cfg(feature = "body-key")]
mod bodies;
mod conditions;
mod documents;
mod handles;
mod hosts;
mod linter;
mod matching;
mod openapi;
mod purges;
mod responses;
mod schema;
mod tables;
mod tags;

#[path = "../support/mod.rs"]
mod support;
