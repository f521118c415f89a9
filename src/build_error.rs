use crate::{http::rules::InvalidRules, key::RuleError};

/// Why a configuration is refused, and what to change.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The store has a capacity of 0 bytes.
    #[error("the store has a capacity of 0 bytes: give it a larger one")]
    EmptyStore,
    /// The largest response that the store accepts is smaller than ordinary ones.
    #[error(
        "the store accepts responses of up to {max_response_bytes} bytes, including their header fields, which \
         is less than {at_least}: give it a larger capacity or a larger `max_response_share`"
    )]
    SmallStore {
        /// The largest response that the store accepts.
        max_response_bytes: usize,
        /// The least that is allowed.
        at_least: usize,
    },
    /// See [`MemoryStoreBuilder::max_response_share`](crate::MemoryStoreBuilder::max_response_share).
    #[error("`max_response_share` is {0}: give it a share that is more than 0 and at most 1")]
    ResponseShare(f64),
    /// See [`Rules::heuristic`](crate::Rules::heuristic).
    #[error("`heuristic` has an invalid share: give it one that is more than 0 and at most 1")]
    HeuristicShare,
    /// An invalid name.
    #[error("`{setting}`: `{name}` is not a valid name: remove it, or write it as a token")]
    Name {
        /// The setting.
        setting: &'static str,
        /// The given name.
        name: Box<str>,
    },
    /// A title that is empty or too long to be shown.
    #[error("`{setting}`: `{title}` cannot be a title: give it 1 to 60 characters")]
    Title {
        /// The setting.
        setting: &'static str,
        /// The given title.
        title: Box<str>,
    },
    /// A path below which no request can arrive.
    #[error(
        "`{setting}`: `{path}` cannot be a path to mount at: begin it with `/`, and leave out a `/` at the end"
    )]
    Mount {
        /// The setting.
        setting: &'static str,
        /// The given path.
        path: Box<str>,
    },
    /// A name of the cache that cannot be in `Cache-Status`; see
    /// [`ReadThroughBuilder::cache_name`](crate::ReadThroughBuilder::cache_name).
    #[error("`cache_name`: `{name}` is not a valid name: give it 1 to 64 printable ASCII characters")]
    CacheName {
        /// The given name.
        name: Box<str>,
    },
    /// A secret that could be guessed; see
    /// [`ReadThroughBuilder::full_cache_status_for`](crate::ReadThroughBuilder::full_cache_status_for).
    #[error("`full_cache_status_for`: the secret is too short: give it at least {at_least} bytes")]
    ShortSecret {
        /// The least length.
        at_least: usize,
    },
    /// A response field without which a stored response cannot be used; see
    /// [`Rules::store_without`](crate::Rules::store_without).
    #[error(
        "`store_without`: a response cannot be stored without `{0}`: give the whole name of a field that is not \
         about its content, its lifetime or its connection"
    )]
    Withheld(Box<str>),
    /// A field that cannot be a [tag field](crate::FillLayer::tag_fields).
    #[error("`tag_fields`: `{name}` cannot name tags: {reason}")]
    TagField {
        /// The name of the field.
        name: Box<str>,
        /// Why not.
        reason: &'static str,
    },
    /// A duration of zero.
    #[error("`{setting}` is zero, so that {consequence}: give it a longer time")]
    ZeroDuration {
        /// The setting.
        setting: &'static str,
        /// What would happen.
        consequence: &'static str,
    },
    /// A range that ends before it begins.
    #[error("`{setting}`: the least is more than the most: exchange them")]
    InvertedRange {
        /// The setting.
        setting: &'static str,
    },
    /// A limit of zero.
    #[error("`{setting}` is zero, so that {consequence}: give it at least 1")]
    ZeroLimit {
        /// The setting.
        setting: &'static str,
        /// What would happen.
        consequence: &'static str,
    },
    /// A limit above its bound.
    #[error("`{setting}` is more than {most}, so that {consequence}: give it less")]
    LargeLimit {
        /// The setting.
        setting: &'static str,
        /// The bound.
        most: usize,
        /// What would happen.
        consequence: &'static str,
    },
    /// A share outside its bounds.
    #[error("`{setting}` is an invalid share: give it a number that is {bounds}")]
    Share {
        /// The setting.
        setting: &'static str,
        /// What it has to be.
        bounds: &'static str,
    },
    /// A setting has no effect because of another one.
    #[error("`{setting}` has no effect: {reason}")]
    NoEffect {
        /// The setting without effect.
        setting: &'static str,
        /// Why, and what to change.
        reason: &'static str,
    },
    /// Without the feature `axum` the path of the client is not visible inside `axum::Router::nest`, which
    /// cuts off a prefix.
    #[error(
        "without the feature `axum` two routers inside `axum::Router::nest` would share entries: enable the \
         feature, or state with `whole_uri` of the key that no router above the cache cuts off a part of the path"
    )]
    CutUri,
    /// An invalid key rule.
    #[error(transparent)]
    KeyRule(#[from] RuleError),
}

impl From<InvalidRules> for BuildError {
    fn from(invalid: InvalidRules) -> Self {
        match invalid {
            InvalidRules::Zero(setting) => {
                Self::ZeroDuration { setting, consequence: "nothing is ever fresh by it" }
            }
            InvalidRules::Share => Self::HeuristicShare,
            InvalidRules::Spread(setting, bounds) => Self::Share { setting, bounds },
            InvalidRules::Withheld(name) => Self::Withheld(name),
            InvalidRules::WithheldCookie => Self::NoEffect {
                setting: "store_set_cookie",
                reason: "`store_without` names `set-cookie`, which is not stored then",
            },
        }
    }
}

/// The cost of a response with three header fields and a body of a few bytes.
const LEAST_RESPONSE_BYTES: usize = 640;

impl BuildError {
    /// Refuses a store without room for an ordinary response.
    pub(crate) fn check_room(max_response_bytes: usize) -> Result<(), Self> {
        match max_response_bytes < LEAST_RESPONSE_BYTES {
            true => Err(Self::SmallStore { max_response_bytes, at_least: LEAST_RESPONSE_BYTES }),
            false => Ok(()),
        }
    }
}
