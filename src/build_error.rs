use crate::key::RuleError;

/// A configuration that cannot work, and what to change.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The store has no room for anything.
    #[error("the store holds nothing: give it a capacity of more than 0 bytes")]
    EmptyStore,
    /// See [`MemoryStoreBuilder::max_response_share`](crate::MemoryStoreBuilder::max_response_share).
    #[error("one response may take a share of the store that is more than 0 and at most 1, not {0}")]
    ResponseShare(f64),
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
    /// A key rule cannot work.
    #[error(transparent)]
    KeyRule(#[from] RuleError),
}
