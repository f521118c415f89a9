//! What the layers tell each other, in the extensions of requests and responses.
//!
//! No layer knows another one. Each reads what is there and does without what is not. What is public is
//! for users: they put it in, or they may read it. The rest is private to the crate.
//!
//! # In requests
//!
//! | extension | content | written by | read by |
//! |---|---|---|---|
//! | `CacheRequest` (public to read) | what a request asks of the layers below: key, purpose, stale candidate, facts | `Lookup`; `StaleIfError` and `Coalesce` add what they can do; `Fill` adds its copy of the head, and whether it has made the request conditional | `StaleIfError`, `Coalesce`, `Fill`, `Retry`, services below |
//! | `CacheKey` (public) | the key | users, `Key`, `BodyKey`, layers that stand alone | `Lookup`, and all layers where no `Lookup` is above them |
//! | `Rules` (public) | the rules for this request | users | `Fill`, `Coalesce` alone |
//! | `Tags` (public) | tags of the response | users, rules of keys | `Fill` |
//! | `Told` | a layer above tells an observer of the response | layers without a `Lookup` above that have an observer | the same |
//! | `WarmUp` | the request warms up the store | `warm_up` | `Lookup` |
//! | `PassOf`, `OwnValidators`, `OfFlight` | what `CacheRequest` says of a right to ask an origin that is not up, of conditions of the cache, and of callers that share the fetch, where there is none | `Failover`, `Fill`, `Coalesce` | `OriginLimit`, `Failover` |
//! | `Repeated` | the request was sent before, and is tried again | `Retry` | `Failover` |
//! | `WithoutKey` | a layer above has looked for a key, and there is none | `Key`, `Lookup` | layers that would look for one |
//! | `KeyFacts`, `Identity` | what the layer that made the key knows of it: fields and credentials in it, what the target names | `Key`, `BodyKey` | `Lookup`, invalidation |
//! | `ReadByRule` | a rule says that the request is a read, and the body that was read for its key | `BodyKey` | the room of keys, `Fill`, `Retry` |
//! | `ChosenRule`, `Classified` | which rule and which classes a request has, found once | rules of keys | rules of keys |
//! | `RuleOverrides`, `SearchKey` | what the rule changes about storing, and which parameters of the query count | rules of keys | `Fill`, which removes them |
//! | `OfClient` | the cookies of the client, before those that the key does not hold were removed | rules of keys | `Fill` |
//!
//! Those of the last five lines are about keys. They are read there or by what the rules of a key decide, and
//! the room of keys is below this one, so they are no part of `CacheRequest`.
//!
//! # In responses
//!
//! | extension | content | written by | read by |
//! |---|---|---|---|
//! | `ResponseFacts` | which requests may share the response, when its attempt began, whether its body completes itself | `Fill`, `Coalesce`, `Retry`, `OriginLimit` | `Coalesce`, `Fill`, `Lookup` |
//! | `CacheStatus` (public) | how the response came about, unless its `Cache-Status` field shows it | whichever layer decided last | users, layers above |
//! | `Refused` (public) | the response is one of the cache itself | `Refused::to_response` | users, `Retry`, `StaleIfError`, `Coalesce` |
//! | `AnsweredBy` (public) | which of several origins it came from | `Failover` | users, `Fill`, the record |
//! | `Attempts` (public) | how many attempts it took | `Retry` | users, the record |
//! | `Tags` (public) | tags of the response | services below | `Fill` |
//! | `NoLength` | the response had fields about its length that contradict each other, and has lost them | `response_fields` | `Fill` |
//!
//! # How a response is finished
//!
//! Each layer says how a response came about by `CacheStatus::mark`: in the field, which
//! is written out for what happens often and then is its own record, else in an extension as well. The
//! outermost layer finishes it: it makes a [`Record`] for the observer, if there is one, and removes the field
//! if it is to be hidden. A plain hit is made with the field in it, and nothing is inserted.

pub(crate) mod failures;
pub(crate) mod record;
mod refused;
mod request;
mod response;
pub(crate) mod status;
mod status_field;

pub use self::{
    record::{BackgroundEvent, Observer, Outcome, Record, RefreshResult, Role},
    refused::Refused,
    request::{CacheRequest, Purpose},
    response::Attempts,
    status_field::CacheStatusDetail,
};
pub(crate) use self::{
    record::{ObservedStore, Observers},
    refused::{served_instead, tell_protocol_error},
    request::{
        Fallback, KeyWatch, Repeated, RequestCopy, StaleCandidate, WarmUp, head_of, without_extensions,
    },
    response::{ResponseFacts, Shareability},
    status_field::{FullStatus, StatusField},
};
