use std::fmt;

use http::Request;
use http_body::Body as HttpBody;

use super::{has_method_in_query, is_get_or_head, is_read_by_rule, overrides::Overrides};
use crate::http::fields::asks_for_another_protocol;

/// Why a request has no key, so that the cache passes it on untouched.
///
/// Responses to GET and HEAD requests, and to [reads by their body](crate::key#keys-from-bodies), say
/// it in `Cache-Status` as `fwd=bypass` with this as `detail`; see
/// [`CacheStatus::unkeyed_reason`](crate::CacheStatus::unkeyed_reason). Other methods never have a
/// key, which is not said of each response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unkeyed {
    /// Neither the URI nor a `Host` field names a host (`no-host`). In a test with an origin-form URI,
    /// send a `Host` field or an absolute URI.
    NoHost,
    /// The host is not valid, there are several `Host` fields, or the URI and `Host` disagree
    /// (`unusable-host`; RFC 9110 §7.2).
    UnusableHost,
    /// A rule says so: [`KeyRule::bypass`](crate::KeyRule::bypass) (`rule-bypass`).
    RuleBypass,
    /// Servers read the path in several ways for which different rules apply (`ambiguous-path`); see
    /// [`rules`](crate::key::rules#how-a-request-is-read).
    AmbiguousPath,
    /// Servers read the request in several ways, and a rule's [condition](crate::KeyRule::when) holds by some
    /// of them (`ambiguous-condition`); see [`rules`](crate::key::rules#conditions).
    AmbiguousCondition,
    /// An extension that the rule has in its keys is not in the request (`missing-extension`).
    MissingExtension,
    /// The request has a body that is not part of a key (`body`).
    Body,
    /// The request asks for another protocol (`upgrade`; RFC 9110 §7.8).
    Upgrade,
    /// Frameworks may take the request for one of another method, by a field such as
    /// `X-HTTP-Method-Override` or by the query parameter `_method` (`method-override`).
    MethodOverride,
    /// The [`KeyExtractor`](crate::KeyExtractor) has no key for it, for a reason of its own (`no-key`).
    NoKey,
}

impl Unkeyed {
    pub(crate) const ALL: [Self; 10] = [
        Self::NoHost,
        Self::UnusableHost,
        Self::RuleBypass,
        Self::AmbiguousPath,
        Self::AmbiguousCondition,
        Self::MissingExtension,
        Self::Body,
        Self::Upgrade,
        Self::MethodOverride,
        Self::NoKey,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoHost => "no-host",
            Self::UnusableHost => "unusable-host",
            Self::RuleBypass => "rule-bypass",
            Self::AmbiguousPath => "ambiguous-path",
            Self::AmbiguousCondition => "ambiguous-condition",
            Self::MissingExtension => "missing-extension",
            Self::Body => "body",
            Self::Upgrade => "upgrade",
            Self::MethodOverride => "method-override",
            Self::NoKey => "no-key",
        }
    }

    /// Why a request is not [for the cache](super::for_cache). None for the methods of requests that
    /// never are.
    pub(crate) fn of<B: HttpBody>(request: &Request<B>) -> Option<Self> {
        let is_read = is_get_or_head(request.method()) || is_read_by_rule(request.extensions());
        is_read.then(|| {
            let headers = request.headers();
            match Overrides::of(headers).method || has_method_in_query(request.uri()) {
                true => Self::MethodOverride,
                false if asks_for_another_protocol(headers) => Self::Upgrade,
                false => Self::Body,
            }
        })
    }
}

impl fmt::Display for Unkeyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
