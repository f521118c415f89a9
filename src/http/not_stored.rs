//! Why a response is not stored.

use super::rules::Rules;
use crate::reasons::reasons;

reasons! {
    /// Why the response to a request with a key is not stored.
    ///
    /// As far as it is known [with the head](crate::Known::WithHead), the client whose request the response
    /// answers gets it alone. Why a request has no key, and so nothing to store its response under, is
    /// [`Unkeyed`](crate::Unkeyed).
    pub enum NotStored {
        /// `Cache-Control: no-store` (RFC 9111 §5.2.2.5), or that directive in a request whose
        /// [directives are followed](crate::LookupLayer::request_directives) (§5.2.1.5).
        NoStore => "no-store", WithHead;
        /// `Cache-Control: private` (RFC 9111 §5.2.2.7).
        Private => "private", WithHead;
        /// The response sets a cookie that is neither [left out](crate::Rules::store_without) nor
        /// [stored](crate::Rules::store_set_cookie).
        SetCookie => "set-cookie", WithHead;
        /// The request has `Authorization`, or a [credential](crate::Rules::credentials) that the rules name,
        /// and the response has no directive that allows sharing it all the same (RFC 9111 §3.5).
        Authorization => "authorization", WithHead;
        /// The request has a `Cookie`, and the response has no freshness of its own.
        Cookie => "cookie", WithHead;
        /// The request has an API key or a token in one of
        /// [`Rules::WELL_KNOWN_CREDENTIALS`](crate::Rules::WELL_KNOWN_CREDENTIALS), and the response has no
        /// freshness of its own.
        Token => "token", WithHead;
        /// `Vary: *`, or an invalid `Vary` (RFC 9111 §4.1).
        VaryStar => "vary-star", WithHead;
        /// The response has no lifetime, or one of zero, or must be revalidated each time (`no-cache`).
        NotFresh => "not-fresh", WithHead;
        /// A [failure](crate::Failures) without freshness of its own, or where something stale can be served.
        /// `Cache-Status` does not repeat what the status says.
        Failure => "failure", WithHead;
        /// Another error without freshness of its own, or about one message or connection: 400, 401, 405 to 408,
        /// 411, 413 to 415, 417, 421, 422, 425, 426, 428, 429, 431, 501, 505, 508, 510 and 511.
        Status => "status", WithHead;
        /// The response to HEAD has no content to store. `Cache-Status` does not repeat what the method says.
        Method => "method", WithHead;
        /// A part of a representation or a change of one (206, 226), a response to the condition or range
        /// of one client (304, 412, 416), or about the connection (1xx, 305, 306).
        Partial => "partial", WithHead;
        /// The declared length is invalid, ambiguous, or not that of the body, or the transfer coding is not
        /// `chunked` (RFC 9112 §6.3).
        Framing => "framing", WithHead;
        /// A stream by its media type (`text/event-stream`, `application/x-ndjson` and the like) without a
        /// declared length and without freshness of its own.
        Stream => "stream", WithHead;
        /// `No-Vary-Search` differs from that of earlier responses for this path.
        NoVarySearch => "no-vary-search", WithHead;
        /// The response has more [tags](crate::tags) than are kept of one.
        TooManyTags => "too-many-tags", WithHead;
        /// The [`Rules`](crate::Rules) forbid it ([`Rules::never_store`](crate::Rules::never_store)), or no
        /// layer says whether it may be shared.
        Policy => "policy", WithHead;
        /// The response is larger than the store accepts. By its declared length that is known with the head.
        TooLarge => "too-large", AfterBody;
        /// Its body broke off, was left unread, or was not as long as its head said.
        Incomplete => "incomplete", AfterBody;
        /// It was purged or invalidated since its fetch began (RFC 9111 §4.4).
        PurgedMeanwhile => "purged-meanwhile", AfterBody;
        /// The result of a later fetch is stored.
        Outdated => "outdated", AfterBody;
        /// Its lifetime and all windows after it were over when its body was complete.
        Expired => "expired", AfterBody;
        /// The store did not keep it, for a reason of its own.
        StoreRefused => "store-refused", AfterBody;
    }
}

impl NotStored {
    /// Whether the method or the status of the response says it already.
    pub(crate) const fn is_seen_otherwise(self) -> bool {
        matches!(self, Self::Method | Self::Failure)
    }

    /// Returns the names of the header fields that it can come from, in lower case, the most likely one first.
    /// None: it comes from no field.
    ///
    /// ```
    /// use tower_readthrough::NotStored;
    ///
    /// assert_eq!(NotStored::SetCookie.fields(), ["set-cookie"]);
    /// assert!(NotStored::Status.fields().is_empty());
    /// ```
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::NoStore | Self::Private => &["cache-control", "cdn-cache-control"],
            Self::NotFresh => &["cache-control", "cdn-cache-control", "expires"],
            Self::SetCookie => &["set-cookie"],
            Self::Authorization => &["authorization"],
            Self::Cookie => &["cookie"],
            Self::Token => Rules::WELL_KNOWN_CREDENTIALS,
            Self::VaryStar => &["vary"],
            Self::Framing => &["content-length", "transfer-encoding"],
            Self::Stream => &["content-type"],
            Self::NoVarySearch => &["no-vary-search"],
            Self::TooManyTags => &["surrogate-key", "cache-tag", "cache-groups"],
            Self::Status
            | Self::Failure
            | Self::Method
            | Self::Partial
            | Self::Policy
            | Self::TooLarge
            | Self::Incomplete
            | Self::PurgedMeanwhile
            | Self::Outdated
            | Self::Expired
            | Self::StoreRefused => &[],
        }
    }
}
