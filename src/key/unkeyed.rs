#[cfg(feature = "body-key")]
use http::request::Parts;
use http::{Request, Uri};
use http_body::Body as HttpBody;

use super::{is_get_or_head, is_read_by_rule, method_field};
use crate::{
    http::request_fields::{Overrides, RequestFields},
    reasons::reasons,
};

reasons! {
    /// Why a request has no key, so that the cache passes it on unchanged.
    ///
    /// `Cache-Status` of responses to GET and HEAD requests, and to [reads by their
    /// body](crate::key#keys-from-bodies), is `fwd=bypass` with this reason as `detail`; see
    /// [`CacheStatus::unkeyed_reason`](crate::CacheStatus::unkeyed_reason). Other methods never have a key,
    /// so their responses have no such field.
    pub enum Unkeyed {
        /// Neither the URI nor a `Host` field names a host (`no-host`). In a test with an origin-form URI,
        /// send a `Host` field or an absolute URI.
        NoHost => "no-host",
        /// The host is not valid, there are several `Host` fields, or the URI and `Host` disagree
        /// (`unusable-host`; RFC 9110 §7.2).
        UnusableHost => "unusable-host",
        /// By a rule: [`KeyRule::bypass`](crate::KeyRule::bypass) (`rule-bypass`).
        RuleBypass => "rule-bypass",
        /// Different rules apply to the ways in which servers read the path (`ambiguous-path`); see
        /// [`rules`](crate::key::rules#how-a-request-is-read).
        AmbiguousPath => "ambiguous-path",
        /// A rule's [condition](crate::KeyRule::when) holds for some of the ways in which servers read the
        /// request (`ambiguous-condition`); see [`rules`](crate::key::rules#conditions).
        AmbiguousCondition => "ambiguous-condition",
        /// The request lacks an extension that the rule has in its keys (`missing-extension`).
        MissingExtension => "missing-extension",
        /// The request has a body that is not part of a key (`body`).
        Body => "body",
        /// The request asks for a protocol other than HTTP (`upgrade`; RFC 9110 §7.8).
        Upgrade => "upgrade",
        /// Frameworks may read another method, from a field such as
        /// `X-HTTP-Method-Override` or from the query parameter `_method` (`method-override`).
        MethodOverride => "method-override",
        /// The [`KeyExtractor`](crate::KeyExtractor) returned no key (`no-key`).
        NoKey => "no-key",
    }
}

impl Unkeyed {
    /// Why a request is not [for the cache](super::is_for_cache). `None` for methods that never are.
    pub(crate) fn of<B: HttpBody>(request: &Request<B>) -> Option<Self> {
        let is_read = is_get_or_head(request.method()) || is_read_by_rule(request.extensions());
        is_read.then(|| {
            let overrides = RequestFields::of(request.headers()).overrides;
            Self::by(request.uri(), overrides).unwrap_or(Self::Body)
        })
    }

    /// Whether frameworks may read another method of a request.
    #[cfg(feature = "body-key")]
    pub(super) fn overrides_method(head: &Parts) -> bool {
        let overrides = RequestFields::of(&head.headers).overrides;
        Self::by(&head.uri, overrides) == Some(Self::MethodOverride)
    }

    /// Why a request with this URI and these overrides has no key, if frameworks may read another method or
    /// it asks for another protocol.
    #[inline]
    pub(super) fn by(uri: &Uri, overrides: Overrides) -> Option<Self> {
        let names_method = overrides.method || uri.query().is_some_and(method_field::is_in_query);
        match (names_method, overrides.protocol) {
            (true, _) => Some(Self::MethodOverride),
            (false, true) => Some(Self::Upgrade),
            (false, false) => None,
        }
    }
}
