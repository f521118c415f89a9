use crate::key::RuleError;

/// A configuration that cannot work, and what to change.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The store has no room for anything.
    #[error("the store holds nothing: give it a capacity of more than 0 bytes")]
    EmptyStore,
    /// The store takes so small responses only that it holds next to nothing.
    #[error(
        "the store takes responses of up to {max_response_bytes} bytes, their header fields included, which \
         is less than {at_least}: give it a larger capacity, or a larger `max_response_share`"
    )]
    SmallStore {
        /// The largest response that the store takes.
        max_response_bytes: usize,
        /// What it takes at least.
        at_least: usize,
    },
    /// See [`MemoryStoreBuilder::max_response_share`](crate::MemoryStoreBuilder::max_response_share).
    #[error("one response may take a share of the store that is more than 0 and at most 1, not {0}")]
    ResponseShare(f64),
    /// See [`Rules::heuristic`](crate::Rules::heuristic).
    #[error("`heuristic` takes a share of the time without change that is more than 0 and at most 1")]
    HeuristicShare,
    /// A name that none can have.
    #[error("`{setting}`: `{name}` is no name that one can have: leave it out, or spell it as a token")]
    Name {
        /// The setting.
        setting: &'static str,
        /// What was given.
        name: Box<str>,
    },
    /// A response field without which what is stored could not be used; see
    /// [`Rules::store_without`](crate::Rules::store_without).
    #[error(
        "`store_without`: `{0}` is no field that a response can be stored without: give the whole name of \
         one that says nothing about its content, its lifetime or its connection"
    )]
    Withheld(Box<str>),
    /// A field that cannot be one of [tags](crate::FillLayer::tag_fields).
    #[error("`tag_fields`: `{name}` cannot name tags: {reason}")]
    TagField {
        /// The name of the field.
        name: Box<str>,
        /// Why not.
        reason: &'static str,
    },
    /// A duration that must not be zero.
    #[error("`{setting}` is zero, so that {consequence}: give it a longer time")]
    ZeroDuration {
        /// The setting.
        setting: &'static str,
        /// What would happen.
        consequence: &'static str,
    },
    /// A number that must not be zero.
    #[error("`{setting}` is zero, so that {consequence}: give it at least 1")]
    ZeroLimit {
        /// The setting.
        setting: &'static str,
        /// What would happen.
        consequence: &'static str,
    },
    /// One setting makes another one useless.
    #[error("`{setting}` has no effect: {reason}")]
    NoEffect {
        /// The setting that does nothing.
        setting: &'static str,
        /// Why, and what to change.
        reason: &'static str,
    },
    /// Without the feature `axum` the path that a client asked for is not seen within
    /// `axum::Router::nest`, which cuts a prefix off.
    #[error(
        "without the feature `axum` two routers within `axum::Router::nest` would share entries: enable the \
         feature, or state with `whole_uri` of the key that nothing above the cache cuts the path"
    )]
    CutUri,
    /// A key rule cannot work.
    #[error(transparent)]
    KeyRule(#[from] RuleError),
}

/// What a response with three header fields and a body of a few bytes is charged.
const LEAST_RESPONSE_BYTES: usize = 640;

impl BuildError {
    /// Refuses a store in which there is no room for a usual response.
    pub(crate) fn check_room(max_response_bytes: usize) -> Result<(), Self> {
        match max_response_bytes < LEAST_RESPONSE_BYTES {
            true => Err(Self::SmallStore { max_response_bytes, at_least: LEAST_RESPONSE_BYTES }),
            false => Ok(()),
        }
    }
}
