//! How a response came about, in the terms of RFC 9211.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use sfv::{Integer, ItemSerializer, KeyRef, RefBareItem, TokenRef};

use crate::{
    exchange::Refused,
    http::{fields::has, not_stored::NotStored},
    key::Unkeyed,
    observe::TierRead,
    origin::HeldBack,
    reasons::reasons,
    sequence::Loss,
    store::HIT,
};

/// The response field of RFC 9211.
pub(crate) const CACHE_STATUS: HeaderName = header::CACHE_STATUS;

/// The name of this cache in it.
pub(super) const NAME: &str = "tower-readthrough";

/// How a response came about, in the terms of RFC 9211.
///
/// Every response that a layer here had to do with has one, for logs; see [`of`](Self::of). Clients find it
/// in the `Cache-Status` field. Of several layers the outermost one that decided has the last word.
/// [`LookupLayer::cache_status`](crate::LookupLayer::cache_status) leaves the field out. An
/// [`Observer`](crate::Observer) is told more.
///
/// ```
/// use tower_readthrough::CacheStatus;
///
/// fn log<B>(response: &http::Response<B>) -> String {
///     match CacheStatus::of(response) {
///         Some(status) => status.to_string(),
///         None => "not asked".into(),
///     }
/// }
/// # assert_eq!(log(&http::Response::new(())), "not asked");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// `None`: the request did not go to the origin, it is a hit.
    forward: Option<Forward>,
    /// The status of the response of the origin, where the client gets another status.
    forward_status: Option<StatusCode>,
    stale: Option<Stale>,
    lost: Option<Lost>,
    storing: Storing,
    is_collapsed: bool,
    /// What the second tier had, if it was asked for this.
    second_tier: Option<TierRead>,
    /// Another node had its turn to ask the origin.
    has_waited: bool,
    unshareable: Option<NotStored>,
    unkeyed: Option<Unkeyed>,
    /// The cache itself responded, with an error.
    refused: Option<Refused>,
}

reasons! {
    /// Why a stale response was served.
    pub enum Stale {
        /// A fresh one is being fetched (RFC 5861 §3).
        WhileRevalidating => "stale-while-revalidate", BeforeFetch;
        /// The origin failed, or could not be asked (RFC 5861 §4).
        IfError => "stale-if-error", WithHead;
        /// The client accepts stale responses (`max-stale`, RFC 9111 §5.2.1.2).
        AsRequested => "max-stale", BeforeFetch;
        /// The origin took longer than [`stale_after`](crate::CoalesceLayer::stale_after) or another limit of
        /// the wait. The fetch goes on.
        OriginSlow => "origin-slow", WithHead;
        /// The last fetch of this response failed, and the pause after it is not over
        /// ([`key_pause`](crate::OriginHealthBuilder::key_pause)), or the next one is under way.
        OriginFailed => "origin-failed", BeforeFetch;
        /// The [origin](crate::OriginHealth) is down, and was not asked.
        OriginDown => "origin-down", BeforeFetch;
        /// The [origin](crate::OriginHealth) is recovering, and was not asked so that it is not overrun.
        OriginRecovering => "origin-recovering", BeforeFetch;
        /// The [origin](crate::OriginHealth) said that it gets too many requests (429), and was not asked.
        OriginBusy => "origin-busy", BeforeFetch;
    }
}

impl From<HeldBack> for Stale {
    fn from(why: HeldBack) -> Self {
        match why {
            HeldBack::Down => Self::OriginDown,
            HeldBack::Recovering => Self::OriginRecovering,
            HeldBack::RateLimited => Self::OriginBusy,
        }
    }
}

reasons! {
    /// Why a request went to the origin (the `fwd` parameter, RFC 9211 §2.2).
    pub enum Forward {
        /// Nothing is stored under its key.
        UriMiss => "uri-miss", BeforeFetch;
        /// Something is stored under its key, but no response whose `Vary` the request matches.
        VaryMiss => "vary-miss", BeforeFetch;
        /// Nothing that can be used, for no more specific reason.
        Miss => "miss", BeforeFetch;
        /// What is stored is stale: its lifetime has ended, or something else has made it stale or removed
        /// it ([`CacheStatus::lost_reason`]).
        Stale => "stale", BeforeFetch;
        /// A part is stored, but not all of what the request asks for.
        Partial => "partial", BeforeFetch;
        /// The response was not shareable a moment ago (hit-for-miss), or the request has no key
        /// ([`CacheStatus::unkeyed_reason`]).
        Bypass => "bypass", BeforeFetch;
        /// A stored response could be used, but not for a request with these directives or credentials.
        Request => "request", BeforeFetch;
    }
}

reasons! {
    /// What made a stored response stale, or removed it, other than the end of its lifetime.
    ///
    /// If several have: a hard purge or an invalidation is said first, then `CutOff`, `Unproven`, and a soft purge.
    pub enum Lost {
        /// It was [purged](crate::Purge): hard, whether its lifetime was over or not, or soft before the end of that.
        Purged => "purged", BeforeFetch;
        /// An unsafe request has changed what it is about (RFC 9111 §4.4).
        Invalidated => "invalidated", BeforeFetch;
        /// It is not known whether it was purged, for example since it was loaded from a file, or since the node may
        /// have missed purges of others ([`Purge::unproven`](crate::Purge::unproven)). The origin has to confirm it.
        Unproven => "unproven", BeforeFetch;
        /// The node hears of no purges of others, and has not for too long
        /// (`WhenCutOff::ValidateAfter` of a [cluster](crate::several_nodes)). The origin has to confirm it.
        CutOff => "cut-off", BeforeFetch;
    }
}

impl From<Loss> for Lost {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Purged => Self::Purged,
            Loss::Invalidated => Self::Invalidated,
        }
    }
}

/// Whether the response of the origin is being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storing {
    No,
    /// Its length is not known yet, and it may be too large.
    Unsure,
    Yes,
}

/// The value of a parameter.
enum Value {
    True,
    Token(&'static str),
    Status(StatusCode),
}

/// What hits say, written out. That the field of a response is one of these very strings, and not
/// just the same text, tells that it was put there in this process: what came in over a connection
/// is never taken for ours.
static STALE_HITS: [(Stale, HeaderValue); Stale::ALL.len()] = [
    (
        Stale::WhileRevalidating,
        HeaderValue::from_static("tower-readthrough;hit;detail=stale-while-revalidate"),
    ),
    (Stale::IfError, HeaderValue::from_static("tower-readthrough;hit;detail=stale-if-error")),
    (Stale::AsRequested, HeaderValue::from_static("tower-readthrough;hit;detail=max-stale")),
    (Stale::OriginSlow, HeaderValue::from_static("tower-readthrough;hit;detail=origin-slow")),
    (Stale::OriginFailed, HeaderValue::from_static("tower-readthrough;hit;detail=origin-failed")),
    (Stale::OriginDown, HeaderValue::from_static("tower-readthrough;hit;detail=origin-down")),
    (Stale::OriginRecovering, HeaderValue::from_static("tower-readthrough;hit;detail=origin-recovering")),
    (Stale::OriginBusy, HeaderValue::from_static("tower-readthrough;hit;detail=origin-busy")),
];

/// What misses say most of the time, written out as well: a value that is made of a text is checked byte
/// by byte, and one that is cloned is not. Of responses that are stored, of the first one to HEAD, and of those that
/// the second tier had.
static WRITTEN: [(CacheStatus, HeaderValue); 14] = {
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
            CacheStatus::forwarded(Forward::UriMiss).unshared(NotStored::Method),
            HeaderValue::from_static("tower-readthrough;fwd=uri-miss"),
        ),
        (
            CacheStatus::hit().hit_in_second_tier(),
            HeaderValue::from_static("tower-readthrough;hit;detail=second-tier"),
        ),
    ]
};

/// What misses say whose response is being stored and has no declared length. Unlike what is [`WRITTEN`], it does
/// not stand for the whole: others say the same of what is not stored.
static UNSURE: [(Forward, [HeaderValue; 2]); Forward::ALL.len()] = {
    // A part of the other text, so that it has an address of its own.
    const fn alone_and_shared(shared: &'static str) -> [HeaderValue; 2] {
        let (alone, _) = shared.split_at(shared.len() - ";collapsed".len());
        [HeaderValue::from_static(alone), HeaderValue::from_static(shared)]
    }
    [
        (Forward::UriMiss, alone_and_shared("tower-readthrough;fwd=uri-miss;collapsed")),
        (Forward::VaryMiss, alone_and_shared("tower-readthrough;fwd=vary-miss;collapsed")),
        (Forward::Miss, alone_and_shared("tower-readthrough;fwd=miss;collapsed")),
        (Forward::Stale, alone_and_shared("tower-readthrough;fwd=stale;collapsed")),
        (Forward::Partial, alone_and_shared("tower-readthrough;fwd=partial;collapsed")),
        (Forward::Bypass, alone_and_shared("tower-readthrough;fwd=bypass;collapsed")),
        (Forward::Request, alone_and_shared("tower-readthrough;fwd=request;collapsed")),
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
    /// How this response came about. `None`: no layer here had anything to do with it.
    ///
    /// It is in the extensions of the response, except for a hit and for what is stored that say all of it
    /// in `Cache-Status`: an extension would cost a hit more than everything else that it hands out.
    pub fn of<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().copied().or_else(|| Self::shown(response.headers()))
    }

    /// What the last member of the field says, if that is ours and written out.
    pub(crate) fn shown(headers: &HeaderMap) -> Option<Self> {
        // Most have none, which is known sooner like this.
        if !has(headers, &CACHE_STATUS) {
            return None;
        }
        let last = headers.get_all(CACHE_STATUS).iter().next_back()?.as_bytes();
        let is_last = |value: &HeaderValue| std::ptr::eq(value.as_bytes(), last);
        if is_last(&HIT) {
            return Some(Self::hit());
        }
        let hit = STALE_HITS.iter().find(|(_, value)| is_last(value));
        hit.map(|(stale, _)| Self::stale(*stale)).or_else(|| Self::find_written(is_last))
    }

    /// Says so in the `Cache-Status` of the response, and in its extensions unless that shows it. What a
    /// layer below refused before the origin was asked stays as it said, and so does why it refused later.
    pub(crate) fn mark<B>(self, response: &mut Response<B>) {
        let before = Self::of(response);
        let status = match before {
            Some(refused) if refused.is_refused_at_once() => Self {
                is_collapsed: self.is_collapsed,
                refused: refused.refused,
                ..self.unsent().knowing(refused)
            },
            Some(Self { refused: Some(why), .. }) if self.refused.is_none() => self.refused(why),
            _ => self,
        };
        match before.is_some() {
            true => status.replace_last(response.headers_mut()),
            false => _ = response.headers_mut().append(CACHE_STATUS, status.to_value()),
        }
        match response.extensions_mut().get_mut() {
            Some(before) => *before = status,
            None if status.written().is_some() => {}
            None => _ = response.extensions_mut().insert(status),
        }
    }

    /// As [`mark`](Self::mark), of a response that was only passed on: what a layer below said stays.
    pub(crate) fn mark_passed<B>(self, response: &mut Response<B>) {
        if Self::of(response).is_none() {
            self.mark(response);
        }
    }

    /// As [`mark`](Self::mark), of a response out of the store, which says that it is a hit.
    pub(crate) fn serve<B>(self, mut response: Response<B>) -> Response<B> {
        // A plain hit. To compare all of it costs a hit 84 instructions (`peers instr hit`).
        if self.is_hit() && self.stale.is_none() && self.second_tier.is_none() {
            return response;
        }
        self.replace_last(response.headers_mut());
        let is_shown = match self.stale {
            Some(why) => self == Self::stale(why),
            None => self.written().is_some(),
        };
        match response.extensions_mut().get_mut() {
            Some(before) => *before = self,
            None if is_shown => {}
            None => _ = response.extensions_mut().insert(self),
        }
        response
    }

    fn replace_last(self, headers: &mut HeaderMap) {
        self.replace_with(headers, self.to_value());
    }

    /// Lets our member be this one.
    pub(super) fn replace_with(self, headers: &mut HeaderMap, value: HeaderValue) {
        let is_only_one = headers.get_all(CACHE_STATUS).iter().nth(1).is_none();
        match headers.get_mut(CACHE_STATUS) {
            // `insert` and `entry` would let a full map grow before they look for the name.
            Some(ours) if is_only_one => *ours = value,
            _ => {
                Self::unmark(headers);
                headers.append(CACHE_STATUS, value);
            }
        }
    }

    /// Calls `each` with the parameters that the field has.
    pub(super) fn each_parameter(self, each: &mut dyn FnMut(&str, Option<String>)) {
        for (name, value) in self.parameters() {
            each(
                name,
                match value {
                    Value::True => None,
                    Value::Token(token) => Some(token.to_owned()),
                    Value::Status(status) => Some(status.as_u16().to_string()),
                },
            );
        }
    }

    /// Removes our member from a response that has one, and leaves it in the extensions.
    pub(crate) fn hide<B>(response: &mut Response<B>) {
        // What passed untouched has none, and another cache's is not ours to remove.
        if let Some(status) = Self::of(response) {
            Self::unmark(response.headers_mut());
            response.extensions_mut().insert(status);
        }
    }

    /// Removes our member, the last one, and leaves what other caches said.
    fn unmark(headers: &mut HeaderMap) {
        let mut members: Vec<_> = headers.get_all(CACHE_STATUS).iter().cloned().collect();
        members.pop();
        headers.remove(CACHE_STATUS);
        members.into_iter().for_each(|other| _ = headers.append(CACHE_STATUS, other));
    }

    /// A list member (RFC 9211 §2). Those of hits and most misses are written out, and cost nothing.
    pub(crate) fn to_value(self) -> HeaderValue {
        let hit = match self.stale {
            _ if !self.is_hit() || self.is_from_second_tier() => None,
            None => Some(&HIT),
            Some(stale) => STALE_HITS.iter().find(|(hit, _)| *hit == stale).map(|(_, value)| value),
        };
        let shown = self.as_shown();
        match hit.or_else(|| shown.written()).or_else(|| shown.unsure()) {
            Some(value) => value.clone(),
            None => self.serialize().unwrap_or(HeaderValue::from_static(NAME)),
        }
    }

    /// The same without what the field does not say.
    fn as_shown(self) -> Self {
        let is_said = self.second_tier.is_some_and(is_said) || self.has_waited;
        if is_said { self } else { Self { second_tier: None, ..self } }
    }

    /// The value that says so, if it is written out.
    fn written(self) -> Option<&'static HeaderValue> {
        match self.unkeyed_reason() {
            Some(why) => UNKEYED.iter().find(|(own, _)| *own == why).map(|(_, value)| value),
            None => WRITTEN.iter().find(|(status, _)| *status == self).map(|(_, value)| value),
        }
    }

    /// The value of a plain miss of which it is not known yet whether it is stored.
    fn unsure(self) -> Option<&'static HeaderValue> {
        let why = self.forward?;
        let plain = Self { storing: Storing::Unsure, ..Self::forwarded(why) };
        let values = UNSURE
            .iter()
            .find(|(own, _)| *own == why)
            .filter(|_| Self { is_collapsed: false, ..self } == plain);
        values.and_then(|(_, values)| values.get(usize::from(self.is_collapsed)))
    }

    fn find_written(is_it: impl Fn(&HeaderValue) -> bool) -> Option<Self> {
        let written = WRITTEN.iter().find(|(_, value)| is_it(value)).map(|(status, _)| *status);
        let unkeyed = || UNKEYED.iter().find(|(_, value)| is_it(value));
        written.or_else(|| unkeyed().map(|(why, _)| Self::unkeyed(*why)))
    }

    fn serialize(self) -> Option<HeaderValue> {
        let parameters = self.parameters().filter_map(|(name, value)| {
            let value = match value {
                Value::Token(token) => RefBareItem::from(TokenRef::from_str(token).ok()?),
                Value::Status(status) => RefBareItem::from(Integer::from(status.as_u16())),
                Value::True => RefBareItem::from(true),
            };
            Some((KeyRef::from_str(name).ok()?, value))
        });
        let member = ItemSerializer::new().bare_item(TokenRef::from_str(NAME).ok()?).parameters(parameters);
        HeaderValue::try_from(member.finish()).ok()
    }

    /// The parameters of RFC 9211 §2.
    fn parameters(self) -> impl Iterator<Item = (&'static str, Value)> {
        let forward = self.forward.map(|why| ("fwd", Value::Token(why.as_str())));
        [
            forward.or_else(|| self.is_hit().then_some(("hit", Value::True))),
            self.forward_status.map(|status| ("fwd-status", Value::Status(status))),
            (self.storing == Storing::Yes).then_some(("stored", Value::True)),
            // Of what was not forwarded nothing was collapsed (RFC 9211 §2.6).
            (self.is_collapsed && self.forward.is_some()).then_some(("collapsed", Value::True)),
            self.detail().map(|why| ("detail", Value::Token(why))),
        ]
        .into_iter()
        .flatten()
    }

    pub(crate) const fn hit() -> Self {
        Self {
            forward: None,
            forward_status: None,
            stale: None,
            lost: None,
            storing: Storing::No,
            is_collapsed: false,
            second_tier: None,
            has_waited: false,
            unshareable: None,
            unkeyed: None,
            refused: None,
        }
    }

    /// Of a fresh response that was in the second tier, where this is why it was asked.
    pub(crate) const fn hit_in_second_tier(self) -> Self {
        Self { second_tier: Some(TierRead::Fresh), ..self.unsent() }
    }

    /// Without the origin, of which this is only what was found out on the way there.
    const fn unsent(self) -> Self {
        let Self { lost, second_tier, has_waited, .. } = self;
        Self { lost, second_tier, has_waited, ..Self::hit() }
    }

    /// With what a layer below says of the fetch itself.
    pub(super) fn knowing(self, below: Self) -> Self {
        Self {
            is_collapsed: self.is_collapsed || below.is_collapsed,
            second_tier: below.second_tier.or(self.second_tier),
            has_waited: self.has_waited || below.has_waited,
            ..self
        }
    }

    /// With what the second tier had, and whether another node had its turn to ask the origin before.
    #[cfg(feature = "redis")]
    pub(crate) const fn with_second_tier(self, had: TierRead, has_waited: bool) -> Self {
        Self { second_tier: Some(had), has_waited, ..self }
    }

    pub(crate) const fn stale(why: Stale) -> Self {
        Self { stale: Some(why), ..Self::hit() }
    }

    pub(crate) const fn forwarded(why: Forward) -> Self {
        Self { forward: Some(why), ..Self::hit() }
    }

    /// Of a request without a key.
    pub(crate) const fn unkeyed(why: Unkeyed) -> Self {
        Self { unkeyed: Some(why), ..Self::forwarded(Forward::Bypass) }
    }

    /// Of a request on its way to the origin that is refused.
    pub(crate) const fn refused(self, why: Refused) -> Self {
        let before = if why.is_before_origin() { self.unsent() } else { self };
        Self { refused: Some(why), ..before }
    }

    /// Whether the cache responded with an error without asking the origin.
    const fn is_refused_at_once(&self) -> bool {
        self.refused.is_some() && self.forward.is_none()
    }

    /// Of a request that selects nothing but what was lost.
    pub(crate) const fn lost(why: Lost) -> Self {
        Self { lost: Some(why), ..Self::forwarded(Forward::Stale) }
    }

    /// Of a stale response that is served without asking the origin, where this is why it would be asked.
    pub(crate) const fn served_stale(self, why: Stale) -> Self {
        Self { stale: Some(why), ..self.unsent() }
    }

    /// Of a stale response that is served because this fetch failed, or takes too long.
    pub(crate) const fn rescued(self, why: Stale) -> Self {
        Self { stale: Some(why), unshareable: None, refused: None, storing: Storing::No, ..self }
    }

    /// Notes the status of the response of the origin, unless the client gets the same (RFC 9211 §2.3).
    pub(crate) fn answered(self, from_origin: StatusCode, sent: StatusCode) -> Self {
        let from_origin = self.forward_status.unwrap_or(from_origin);
        let is_other = !self.is_hit() && from_origin != sent;
        Self { forward_status: is_other.then_some(from_origin), ..self }
    }

    pub(crate) const fn stored(self, is_stored: bool) -> Self {
        self.storing(is_stored, true)
    }

    /// Of a response that is being stored or not, and whose length is known or not.
    pub(crate) const fn storing(self, is_stored: bool, has_length: bool) -> Self {
        let storing = match (is_stored, has_length) {
            (false, _) => Storing::No,
            (true, false) => Storing::Unsure,
            (true, true) => Storing::Yes,
        };
        Self { storing, ..self }
    }

    pub(crate) const fn unshared(self, why: NotStored) -> Self {
        Self { unshareable: Some(why), ..self }
    }

    pub(crate) const fn collapsed(self) -> Self {
        Self { is_collapsed: true, ..self }
    }

    /// Whether the body is a stored one, even if the origin was asked in vain before.
    pub(crate) const fn is_from_store(&self) -> bool {
        self.is_hit() || self.stale.is_some()
    }

    /// Whether it came from the store, fresh or stale, without the origin being asked.
    pub const fn is_hit(&self) -> bool {
        self.forward.is_none() && self.refused.is_none()
    }

    /// Whether it was stale when it was served, and why it was served all the same.
    pub const fn stale_reason(&self) -> Option<Stale> {
        self.stale
    }

    /// Why the request went to the origin, if it did.
    pub const fn forward_reason(&self) -> Option<Forward> {
        self.forward
    }

    /// The status of the response of the origin, if the client gets another one (the `fwd-status`
    /// parameter, RFC 9211 §2.3).
    ///
    /// A 304 for what is stored, a failure for which a stale response is served, or the 200 of
    /// which the client gets a range.
    pub const fn forward_status(&self) -> Option<StatusCode> {
        self.forward_status
    }

    /// The `detail` parameter (RFC 9211 §2.8), if there is one.
    ///
    /// Why a stale response was served, else why the cache itself responded with an error, else why the
    /// request has no key, else why the response of the origin was for this client
    /// alone, else `second-tier` if the response [came from there](Self::is_from_second_tier), else what made a stored
    /// response [stale or removed it](Self::lost_reason), else `second-tier-stale` or `second-tier-unproven` if the origin was
    /// asked to confirm what a second tier has. Else `other-node` if the request
    /// [waited for the fetch of another node](Self::has_waited_for_node) in vain.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self { stale: Some(why), .. } => Some(why.as_str()),
            Self { refused: Some(why), .. } => Some(why.as_str()),
            Self { unkeyed: Some(why), .. } => Some(why.as_str()),
            Self { unshareable: Some(why), .. } if !why.is_seen_otherwise() => Some(why.as_str()),
            Self { second_tier: Some(TierRead::Fresh), forward: None, .. } => Some("second-tier"),
            Self { lost: Some(why), .. } => Some(why.as_str()),
            Self { second_tier: Some(TierRead::Stale), .. } => Some("second-tier-stale"),
            Self { second_tier: Some(TierRead::Unproven), .. } => Some("second-tier-unproven"),
            Self { has_waited: true, .. } => Some("other-node"),
            _ => None,
        }
    }

    /// Whether the response of the origin is being stored: it will be stored once it is complete, unless a
    /// reason is found that is known only [after the body](crate::Known::AfterBody), of which an
    /// [`Observer`](crate::Observer) is told.
    ///
    /// The field has `stored` (RFC 9211 §2.5) only if the length of the response is known with its head. Of one
    /// whose length is not known it says nothing, since it may be too large to be stored.
    pub const fn is_stored(&self) -> bool {
        !matches!(self.storing, Storing::No)
    }

    /// Why the response of the origin is not stored, as far as that is known with its head. `None` also if
    /// it is stored only to be revalidated.
    pub const fn not_stored_reason(&self) -> Option<NotStored> {
        if self.is_stored() { None } else { self.unshareable }
    }

    /// Why the request has no key, if it has none.
    pub const fn unkeyed_reason(&self) -> Option<Unkeyed> {
        self.unkeyed
    }

    /// Why the cache itself answered with an error, if it did.
    pub const fn refused_reason(&self) -> Option<Refused> {
        self.refused
    }

    /// Whether the response was not in the store, but fresh in a second tier: it is a
    /// [hit](Self::is_hit), for the origin was not asked.
    pub const fn is_from_second_tier(&self) -> bool {
        self.is_hit() && self.stale.is_none() && matches!(self.second_tier, Some(TierRead::Fresh))
    }

    /// What a second tier had for the fetch of this request, or why it was not asked. `None`: there was no fetch,
    /// there is no second tier, or only the origin would do. Also if the fetch brought no response of which the
    /// layers could say more: the service returned an error, or the wait for another request's fetch was over.
    pub const fn second_tier(&self) -> Option<TierRead> {
        self.second_tier
    }

    /// Whether the fetch waited for the one of another node, where nodes [take turns](crate::tier#turns). If the
    /// response [came from the second tier](Self::is_from_second_tier), that one has brought it.
    pub const fn has_waited_for_node(&self) -> bool {
        self.has_waited
    }

    /// What made the stored response stale, or removed it, other than the end of its lifetime. `None`: there was
    /// none, it was fresh, or its lifetime is over and nothing has removed it. Also if something else is left under the
    /// key that this request does not select.
    pub const fn lost_reason(&self) -> Option<Lost> {
        self.lost
    }

    /// Whether this client shared the fetch of another one.
    pub const fn is_collapsed(&self) -> bool {
        self.is_collapsed
    }
}

/// Whether the field says that the tier had this.
const fn is_said(had: TierRead) -> bool {
    matches!(had, TierRead::Fresh | TierRead::Stale | TierRead::Unproven)
}

impl fmt::Display for CacheStatus {
    /// The parameters of RFC 9211 §2, such as `fwd=stale; stored; collapsed` or
    /// `fwd=uri-miss; detail=no-store`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, value)) in self.parameters().enumerate() {
            f.write_str(if n > 0 { "; " } else { "" })?;
            f.write_str(name)?;
            match value {
                Value::True => {}
                Value::Token(token) => write!(f, "={token}")?,
                Value::Status(status) => write!(f, "={}", status.as_u16())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
