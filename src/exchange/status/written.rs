//! What misses say most of the time, written out: a text is checked byte by byte whenever a value is
//! made of it, but not when a value is cloned.

use http::{HeaderValue, StatusCode};

use super::{CacheStatus, Forward};
use crate::key::Unkeyed;

/// Of answers that are stored, and of the first one to HEAD.
static WRITTEN: [(CacheStatus, HeaderValue); 13] = {
    const fn first(why: Forward, text: &'static str) -> (CacheStatus, HeaderValue) {
        (CacheStatus::forwarded(why).stored(true), HeaderValue::from_static(text))
    }
    const fn shared(why: Forward, text: &'static str) -> (CacheStatus, HeaderValue) {
        (CacheStatus::forwarded(why).stored(true).collapsed(), HeaderValue::from_static(text))
    }
    /// What a 304 confirmed.
    const CONFIRMED: CacheStatus = CacheStatus {
        forward_status: Some(StatusCode::NOT_MODIFIED),
        ..CacheStatus::forwarded(Forward::Stale).stored(true)
    };
    [
        first(Forward::UriMiss, "tower-readthrough;fwd=uri-miss;stored"),
        shared(Forward::UriMiss, "tower-readthrough;fwd=uri-miss;stored;collapsed"),
        first(Forward::VaryMiss, "tower-readthrough;fwd=vary-miss;stored"),
        shared(Forward::VaryMiss, "tower-readthrough;fwd=vary-miss;stored;collapsed"),
        first(Forward::Miss, "tower-readthrough;fwd=miss;stored"),
        shared(Forward::Miss, "tower-readthrough;fwd=miss;stored;collapsed"),
        first(Forward::Stale, "tower-readthrough;fwd=stale;stored"),
        shared(Forward::Stale, "tower-readthrough;fwd=stale;stored;collapsed"),
        (CONFIRMED, HeaderValue::from_static("tower-readthrough;fwd=stale;fwd-status=304;stored")),
        (
            CONFIRMED.collapsed(),
            HeaderValue::from_static("tower-readthrough;fwd=stale;fwd-status=304;stored;collapsed"),
        ),
        first(Forward::Request, "tower-readthrough;fwd=request;stored"),
        shared(Forward::Request, "tower-readthrough;fwd=request;stored;collapsed"),
        (
            CacheStatus::forwarded(Forward::UriMiss),
            HeaderValue::from_static("tower-readthrough;fwd=uri-miss"),
        ),
    ]
};

/// Of requests without a key.
static UNKEYED: [(Unkeyed, HeaderValue); Unkeyed::ALL.len()] = [
    (Unkeyed::NoHost, HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=no-host")),
    (Unkeyed::UnusableHost, HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=unusable-host")),
    (Unkeyed::RuleBypass, HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=rule-bypass")),
    (Unkeyed::AmbiguousPath, HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=ambiguous-path")),
    (
        Unkeyed::AmbiguousCondition,
        HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=ambiguous-condition"),
    ),
    (
        Unkeyed::MissingExtension,
        HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=missing-extension"),
    ),
    (Unkeyed::Body, HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=body")),
    (Unkeyed::Upgrade, HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=upgrade")),
    (
        Unkeyed::MethodOverride,
        HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=method-override"),
    ),
    (Unkeyed::NoKey, HeaderValue::from_static("tower-readthrough;fwd=bypass;detail=no-key")),
];

impl CacheStatus {
    pub(super) fn written(self) -> Option<&'static HeaderValue> {
        match self.unkeyed_reason() {
            Some(why) => UNKEYED.iter().find(|(own, _)| *own == why).map(|(_, value)| value),
            None => WRITTEN.iter().find(|(status, _)| *status == self).map(|(_, value)| value),
        }
    }

    pub(super) fn find_written(is_it: impl Fn(&HeaderValue) -> bool) -> Option<Self> {
        let written = WRITTEN.iter().find(|(_, value)| is_it(value)).map(|(status, _)| *status);
        let unkeyed = || UNKEYED.iter().find(|(_, value)| is_it(value));
        written.or_else(|| unkeyed().map(|(why, _)| Self::unkeyed(*why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_out_is_what_would_be_said() {
        let reasons = [
            Forward::UriMiss,
            Forward::VaryMiss,
            Forward::Miss,
            Forward::Stale,
            Forward::Partial,
            Forward::Bypass,
            Forward::Request,
        ];
        for why in reasons {
            for (is_stored, is_collapsed) in [(false, false), (false, true), (true, false), (true, true)] {
                for forward_status in [None, Some(StatusCode::NOT_MODIFIED)] {
                    let status = CacheStatus::forwarded(why).stored(is_stored);
                    let status = CacheStatus { is_collapsed, forward_status, ..status };
                    assert_eq!(status.to_value(), status.serialize().unwrap());
                }
            }
        }
        for why in Unkeyed::ALL {
            let status = CacheStatus::unkeyed(*why);
            assert_eq!(status.written().cloned(), status.serialize());
        }
    }
}
