//! Whether a response may be stored, with which requests it may be shared (RFC 9111 §3), and for how long it
//! may be used (§4.2, RFC 5861).

use std::{num::NonZeroU16, time::Duration};

use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::time::Instant;

pub(crate) use super::not_stored::NotStored;
use super::{
    cache_control::{CacheControl, MAX_DELTA},
    conditions::Extent,
    request_fields::Credentials,
    response_fields::ResponseFields,
    rules::{Rules, Spread, Ttl},
    vary::Vary,
};

/// Whether other requests may share a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shareable,
    Unshareable(NotStored),
    /// The origin failed: all waiting callers get the failure, and none of them tries again.
    Failed {
        /// Whether the response has nothing that is for one client alone.
        for_all: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) sharing: Sharing,
    /// Whether it may be stored; also if only to be revalidated.
    pub(crate) is_storable: bool,
    pub(crate) terms: Freshness,
    /// Fields that only the client gets whose request the origin answered.
    pub(crate) withheld: Vec<HeaderName>,
    /// Why it is not stored although it may be.
    lost: Option<NotStored>,
}

impl Decision {
    /// Of a response that is not stored.
    pub(crate) fn not_stored(sharing: Sharing) -> Self {
        Self { sharing, is_storable: false, terms: Freshness::NONE, withheld: Vec::new(), lost: None }
    }

    /// Of a response that is stored already, under these terms.
    pub(crate) fn of_stored(terms: Freshness) -> Self {
        Self { terms, ..Self::not_stored(Sharing::Shareable) }
    }

    /// Why it is not stored, if it is not.
    pub(crate) fn not_stored_reason(&self) -> Option<NotStored> {
        match self.sharing {
            _ if self.is_storable => None,
            _ if self.lost.is_some() => self.lost,
            Sharing::Unshareable(why) => Some(why),
            Sharing::Failed { .. } => Some(NotStored::Failure),
            Sharing::Shareable => Some(NotStored::Method),
        }
    }

    /// The same of a response that does not reach the store, for this reason. Which requests may share it stays.
    pub(crate) fn lost(self, why: NotStored) -> Self {
        Self { is_storable: false, lost: Some(why), ..self }
    }

    /// Of a failure that is not stored.
    fn failed(for_all: bool, withheld: Vec<HeaderName>) -> Self {
        Self { withheld, ..Self::not_stored(Sharing::Failed { for_all }) }
    }

    /// Of a failure that would replace a usable stored response: it is shared and not stored.
    pub(crate) fn displacing(self, rules: &Rules) -> Self {
        let for_all = self.withheld.iter().all(|name| rules.store_without.has(name));
        Self::failed(for_all, self.withheld)
    }
}

/// For how long a response may be used, counted from when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Freshness {
    /// Which credentials a request may have to get the response. First in memory: every hit reads it.
    pub(crate) audience: Credentials,
    /// How much of the lifetime is left when a refresh may begin before its end. `None`: it may not.
    pub(crate) lead: Option<Lead>,
    pub(crate) fresh_for: Duration,
    pub(crate) stale_while_revalidate_for: Duration,
    pub(crate) stale_if_error_for: Duration,
    /// How long it is kept only to be revalidated.
    pub(crate) revalidate_for: Duration,
    /// Whether the lifetime comes from the rules: then it starts with the request, however old the response
    /// was. One from the response's own dates, even a heuristic one, does not (RFC 9111 §4.2).
    pub(crate) is_ours: bool,
    /// Whether even a client that accepts stale responses gets none (§4.2.4).
    pub(crate) forbids_stale: bool,
}

/// A share of a lifetime at its end, in 1/65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead(NonZeroU16);

impl Lead {
    const WHOLE: f64 = 65_536.0;

    /// Of a `lead` within the lifetime. Rounded down, so that it is never the whole.
    fn new(lead: Duration, lifetime: Duration) -> Option<Self> {
        // The conversion saturates, and makes zero of the share of no lifetime, which is not a number.
        NonZeroU16::new((lead.div_duration_f64(lifetime) * Self::WHOLE) as u16).map(Self)
    }

    pub(crate) fn of(self, lifetime: Duration) -> Duration {
        lifetime.mul_f64(f64::from(self.0.get()) / Self::WHOLE)
    }
}

/// How long after a response was stored it is not refreshed ahead.
const LEAST_BEFORE_REFRESH: Duration = Duration::from_secs(1);

impl Freshness {
    /// Draws how much shorter the lifetime is, and when a refresh may begin before its end, for a response
    /// whose head took so long. `draw` returns a number of at least 0 and less than 1.
    ///
    /// The moment of the refresh is spread over the end of the lifetime, and is early enough that the
    /// response is there in time as often as not (XFetch, doi:10.14778/2757807.2757813).
    pub(crate) fn spread(self, spread: Spread, cost: Duration, mut draw: impl FnMut() -> f64) -> Self {
        let shorter = spread.jitter.map_or(0.0, |jitter| jitter.as_f64() * draw());
        let fresh_for = self.fresh_for.mul_f64(1.0 - shorter);
        let lead = spread.refresh_ahead.map(|share| {
            let uniform = fresh_for.mul_f64((1.0 - share.as_f64()) * draw());
            let in_time = cost.min(MAX_DELTA).mul_f64(-(1.0 - draw()).ln());
            uniform.max(in_time).min(fresh_for.saturating_sub(LEAST_BEFORE_REFRESH))
        });
        let lead = lead.and_then(|lead| Lead::new(lead, fresh_for));
        Self { fresh_for, lead, ..self }
    }

    /// Of a response that must not be used again.
    pub(crate) const NONE: Self = Self {
        lead: None,
        fresh_for: Duration::ZERO,
        stale_while_revalidate_for: Duration::ZERO,
        stale_if_error_for: Duration::ZERO,
        revalidate_for: Duration::ZERO,
        is_ours: false,
        forbids_stale: true,
        audience: Credentials { authorization: false, cookie: false, token: false },
    };

    /// When a window after the lifetime closes, of a response whose head came in then: so long after it was
    /// asked for (`delay`), and so old (`initial_age`).
    pub(crate) fn closes_at(
        &self,
        received_at: Instant,
        (delay, initial_age): (Duration, Duration),
        window: Duration,
    ) -> Instant {
        let age = if self.is_ours { delay } else { initial_age };
        after(received_at, self.fresh_for.saturating_add(window).saturating_sub(age))
    }
}

/// The point in time `duration` after `start`, at most [`MAX_DELTA`] after it.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    let duration = duration.min(MAX_DELTA);
    start.checked_add(duration).unwrap_or(start)
}

/// Whether a status may be caused by one request, or by a failing origin.
pub(crate) fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Whether a status only says that the origin could not respond, and nothing about the resource.
pub(crate) fn is_breakdown(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// Whether a status says that the resource no longer exists.
pub(crate) fn is_gone(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// What a request that may have a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Get,
    Head,
    /// A read whose key holds its body, whatever its method.
    ReadByBody,
}

impl RequestKind {
    /// Whether the response is what is stored under the key of the request.
    pub(crate) fn is_whole(self) -> bool {
        self != Self::Head
    }

    /// Whether the cache may make the request conditional.
    pub(crate) fn is_revalidatable(self) -> bool {
        self == Self::Get
    }
}

/// The head of the response to judge.
pub(crate) struct ResponseHead<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    fields: &'a ResponseFields,
    extent: Option<Extent>,
    is_breakdown: bool,
}

impl<'a> ResponseHead<'a> {
    pub(crate) fn new(status: StatusCode, headers: &'a HeaderMap, fields: &'a ResponseFields) -> Self {
        Self { status, headers, fields, extent: None, is_breakdown: false }
    }

    /// Of a part that every client gets which asks for it: it may be stored where the whole might be (RFC
    /// 9111 §3.3).
    pub(crate) fn with_extent(self, extent: Option<Extent>) -> Self {
        let status = extent.map_or(self.status, |_| StatusCode::OK);
        Self { status, extent, ..self }
    }

    /// Whether it only says that the origin could not respond.
    pub(crate) fn with_breakdown(self, is_breakdown: bool) -> Self {
        Self { is_breakdown, ..self }
    }
}

/// Decides whether a response may be stored and with which requests it may be shared (RFC 9111 §3).
///
/// `targets` are the fields that go before `Cache-Control` (RFC 9213), the most specific one first. The
/// credentials are those that the key of the request does not hold.
pub(crate) fn judge(
    request: RequestKind,
    credentials: Credentials,
    response: &ResponseHead<'_>,
    rules: &Rules,
    targets: &[HeaderName],
) -> Decision {
    let targeted = CacheControl::targeted(response.headers, targets);
    let cache_control = targeted.as_ref().unwrap_or(&response.fields.cache_control);
    Case { request, credentials, response, cache_control, rules }.decide()
}

/// The source of a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Origin,
    /// Heuristic freshness (RFC 9111 §4.2.2).
    Guess,
    Rules,
}

/// A response to judge, with all that the decision depends on.
struct Case<'a> {
    request: RequestKind,
    credentials: Credentials,
    response: &'a ResponseHead<'a>,
    /// Of the targeted field, if there is one.
    cache_control: &'a CacheControl,
    rules: &'a Rules,
}

impl Case<'_> {
    fn decide(&self) -> Decision {
        let ResponseHead { status, headers, fields, is_breakdown, .. } = *self.response;
        let explicit = fields.explicit_lifetime(self.cache_control, headers);
        let (lifetime, source) = self.lifetime(explicit);
        let is_fresh = lifetime > Duration::ZERO;
        let barrier = self.barrier();
        let withheld = self.rules.store_without.and(self.cache_control.withheld());
        if is_breakdown && !(is_fresh && barrier.is_none()) {
            return Decision::failed(barrier.is_none() && self.is_impersonal(), withheld);
        }
        let is_own = source == Source::Origin;
        let barrier = barrier.or_else(|| self.barrier_without_own_freshness(is_fresh && !is_own));
        let sharing = match barrier {
            Some(why) => Sharing::Unshareable(why),
            None if is_fresh => Sharing::Shareable,
            None if is_error(status) => Sharing::Unshareable(NotStored::Status),
            None => Sharing::Unshareable(NotStored::NotFresh),
        };
        let is_storable = self.request.is_whole()
            && barrier.is_none()
            && (is_fresh || self.is_useful_when_stale(explicit.is_some()));
        Decision { sharing, is_storable, terms: self.terms(lifetime, source), withheld, lost: None }
    }

    /// Whether a failure holds nothing that is for one client.
    fn is_impersonal(&self) -> bool {
        !(self.credentials.cookie || self.credentials.token) && self.cache_control.withheld().is_empty()
    }

    /// Whether a response without a lifetime can be revalidated, or served stale by its own directives.
    fn is_useful_when_stale(&self, has_explicit_lifetime: bool) -> bool {
        let says_when_stale = has_explicit_lifetime || self.cache_control.is_no_cache();
        let can_be_confirmed = self.request.is_revalidatable() && self.response.fields.has_validator;
        says_when_stale && (can_be_confirmed || self.has_window())
    }

    /// What keeps the response from being shared, however fresh it is.
    fn barrier(&self) -> Option<NotStored> {
        let Self { response, cache_control, rules, .. } = *self;
        [
            (rules.never, NotStored::Policy),
            (is_incomplete(response.status), NotStored::Partial),
            (is_about_message(response.status), NotStored::Status),
            (self.has_wrong_length(), NotStored::Framing),
            (
                cache_control.forbids_storing(is_understood(response.status)) && !rules.store_no_store,
                NotStored::NoStore,
            ),
            (cache_control.is_private() && !rules.store_private, NotStored::Private),
            (self.sets_cookie() && !rules.store_set_cookie, NotStored::SetCookie),
            (self.credentials.authorization && !self.admits_authorization(), NotStored::Authorization),
            (response.fields.vary == Vary::Anything, NotStored::VaryStar),
        ]
        .into_iter()
        .find_map(|(holds, why)| holds.then_some(why))
    }

    fn has_wrong_length(&self) -> bool {
        let ResponseHead { fields, extent, .. } = self.response;
        let is_of_part = |extent: &Extent| fields.content.is_none_or(|length| length == extent.len() as u64);
        fields.length.is_err() || !extent.as_ref().is_none_or(is_of_part)
    }

    fn sets_cookie(&self) -> bool {
        self.response.fields.sets_cookie
            && !self.cache_control.withheld().contains(&header::SET_COOKIE)
            && !self.rules.store_without.has(&header::SET_COOKIE)
    }

    /// Whether the response gives itself a window in which it may be served stale.
    fn has_window(&self) -> bool {
        let (said, despite) = (self.cache_control, self.rules.stale_despite_revalidate);
        let windows = [
            (said.stale_while_revalidate(), despite.while_revalidating),
            (said.stale_if_error(), despite.if_error),
        ];
        windows.into_iter().any(|(own, despite)| !self.window(own, Duration::ZERO, despite).is_zero())
    }

    /// How long the response may be served stale: its own window, else the default, unless its directives
    /// forbid that and no rule overrides them.
    fn window(&self, own: Option<Duration>, default: Duration, despite_revalidate: bool) -> Duration {
        let said = self.cache_control;
        let is_forbidden = match own {
            Some(_) => said.demands_revalidation(),
            None => said.forbids_stale(),
        };
        match is_forbidden && !despite_revalidate {
            true => Duration::ZERO,
            false => own.unwrap_or(default).min(MAX_DELTA),
        }
    }

    /// Whether requests with `Authorization` may share the response (RFC 9111 §3.5).
    fn admits_authorization(&self) -> bool {
        self.cache_control.allows_authorization() || self.rules.store_authorized
    }

    /// The lifetime and its source.
    fn lifetime(&self, explicit: Option<Duration>) -> (Duration, Source) {
        let of_rules = |ttl: Duration| (ttl.min(MAX_DELTA), Source::Rules);
        if let (Ttl::Fixed(ttl), true) = (self.rules.ttl, self.gets_default()) {
            return of_rules(ttl);
        }
        if self.cache_control.is_no_cache() {
            return (Duration::ZERO, Source::Origin);
        }
        if let Some(explicit) = explicit {
            return (explicit, Source::Origin);
        }
        match (self.rules.ttl, self.rules.negative_ttl) {
            (Ttl::OriginOr(ttl), _) if self.gets_default() => of_rules(ttl),
            (_, Some(ttl)) if is_gone(self.response.status) && !self.response.is_breakdown => of_rules(ttl),
            _ => (self.heuristic().min(MAX_DELTA), Source::Guess),
        }
    }

    /// Whether a default or fixed lifetime is for this response.
    fn gets_default(&self) -> bool {
        gets_default(self.response.status) && !self.response.is_breakdown
    }

    /// RFC 9111 §4.2.2: for statuses that are heuristically cacheable, and for `public` responses.
    fn heuristic(&self) -> Duration {
        let ResponseHead { status, is_breakdown, .. } = *self.response;
        let is_cacheable = gets_default(status) || is_gone(status) || matches!(status.as_u16(), 204 | 451);
        let is_cacheable = is_cacheable && !is_breakdown || self.cache_control.is_public();
        match self.rules.heuristic.filter(|_| is_cacheable) {
            Some(heuristic) => {
                let unchanged = self.response.fields.unchanged_for(self.response.headers).unwrap_or_default();
                heuristic.lifetime(unchanged)
            }
            None => Duration::ZERO,
        }
    }

    /// A lifetime that is not the origin's does not mean that other clients may see the response.
    fn barrier_without_own_freshness(&self, has_foreign_lifetime: bool) -> Option<NotStored> {
        if !has_foreign_lifetime {
            return None;
        }
        if self.credentials.cookie {
            return Some(NotStored::Cookie);
        }
        if self.credentials.token {
            return Some(NotStored::Token);
        }
        let may_have_no_end = self.response.fields.content.is_none() && is_stream(self.response.headers);
        may_have_no_end.then_some(NotStored::Stream)
    }

    fn terms(&self, fresh_for: Duration, source: Source) -> Freshness {
        let (said, rules, despite) = (self.cache_control, self.rules, self.rules.stale_despite_revalidate);
        Freshness {
            fresh_for,
            lead: None,
            stale_while_revalidate_for: self.window(
                said.stale_while_revalidate(),
                rules.stale_while_revalidate_for,
                despite.while_revalidating,
            ),
            stale_if_error_for: match self.response.is_breakdown {
                // An old failure is not better than a new one.
                true => Duration::ZERO,
                false => self.window(said.stale_if_error(), rules.stale_if_error_for, despite.if_error),
            },
            revalidate_for: match self.response.fields.has_validator {
                true => rules.revalidate_for.min(MAX_DELTA),
                false => Duration::ZERO,
            },
            is_ours: source == Source::Rules,
            forbids_stale: said.forbids_stale(),
            audience: Credentials {
                // A request whose own response could not be stored is not served a stored one either.
                authorization: self.admits_authorization(),
                cookie: source == Source::Origin,
                token: source == Source::Origin,
            },
        }
    }
}

/// Statuses that default and fixed TTLs are for: whole representations and permanent redirects.
fn gets_default(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 300 | 301 | 308)
}

/// Statuses without a whole representation: parts (RFC 9110 §15.3.7), changes (RFC 3229
/// §10.4.1), responses to preconditions and ranges, and what concerns the connection.
fn is_incomplete(status: StatusCode) -> bool {
    status.is_informational() || matches!(status.as_u16(), 206 | 226 | 304..=306 | 412 | 416)
}

/// Statuses about one message, its credentials or its connection, not about the resource: another request
/// for it may get another response. RFC 6585 forbids storing 428, 429, 431 and 511, and RFC 8470 §5.2
/// expects another response to the request after a 425. Storing the others would let the malformed request
/// of one client decide the response for all clients.
///
/// | stored if fresh by their own fields | |
/// |---|---|
/// | 2xx but 206 and 226, 300 to 303, 307, 308 | responses about the resource |
/// | 402, 403, 404, 409, 410, 418, 423, 424, 451 | its state, or access to it |
/// | 500, 502, 503, 504, 506, 507 | the state of the origin |
/// | unregistered ones | as their class (RFC 9110 §15) |
fn is_about_message(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        400 | 401
            | 405..=408
            | 411
            | 413..=415
            | 417
            | 421
            | 422
            | 425
            | 426
            | 428
            | 429
            | 431
            | 501
            | 505
            | 508
            | 510
            | 511
    )
}

/// Final statuses whose caching requirements RFC 9110 §15 and RFC 9111 state.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=205 | 300..=303 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// Media types of bodies that may be endless.
const STREAMS: [&str; 11] = [
    "text/event-stream",
    "multipart/x-mixed-replace",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/x-json-stream",
    "application/stream+json",
    "application/json-seq",
];

fn is_stream(headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    // RFC 8091: the suffix of sequences of JSON texts.
    let has_suffix =
        essence.rsplit_once('+').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json-seq"));
    has_suffix || STREAMS.iter().any(|stream| essence.eq_ignore_ascii_case(stream))
}

#[cfg(test)]
#[path = "storing_tests.rs"]
mod tests;
