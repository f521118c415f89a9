use std::{fmt, iter, sync::Arc, time::Duration};

use http::{HeaderName, header};

use super::{
    cache_control::CDN_CACHE_CONTROL,
    cookies::CookieNames,
    fields::is_hop_by_hop,
    request_fields::{CredentialNames, Keyed, WELL_KNOWN},
};

/// Which responses are stored, and for how long.
///
/// The default is the strict reading of RFC 9111 for a shared cache: the origin decides, and
/// nothing personal is stored. Every exception has a name.
///
/// Rules are cheap to clone. They are set on [`ReadThrough`](crate::ReadThrough) or
/// [`FillLayer`](crate::FillLayer); a middleware may replace them for one request by putting
/// others into its extensions, and a [`Policy`](crate::Policy) may replace them once it has
/// the head of the response.
///
/// | response | stored by default | stored with |
/// |---|---|---|
/// | fresh by its own `Cache-Control` or `Expires` | yes | |
/// | 200 203 300 301 308 without freshness | no | [`default_ttl`](Self::default_ttl) or [`fixed_ttl`](Self::fixed_ttl) |
/// | 404 410 without freshness | no | [`negative_ttl`](Self::negative_ttl) |
/// | any of these, 204 or 451 without freshness, but with `Last-Modified` | no | [`heuristic`](Self::heuristic) |
/// | `no-store` | no | [`store_no_store`](Self::store_no_store) |
/// | `private` without field names | no | [`store_private`](Self::store_private) |
/// | with `Set-Cookie` | no | [`store_without`](Self::store_without), which leaves the field out, or [`store_set_cookie`](Self::store_set_cookie) |
/// | to a request with `Authorization` | if `public`, `must-revalidate` or `s-maxage` | [`store_authorized`](Self::store_authorized) |
/// | to a request with `Cookie`, without freshness of its own | no | [`cookies`](Self::cookies) |
/// | to a request with an [API key or a token](Self::WELL_KNOWN_CREDENTIALS), without freshness of its own | no | the field in the key of a [rule](crate::KeyRule::headers), or [`only_credentials`](Self::only_credentials) |
/// | with a status about one message or connection, such as 400, 405, 414, 429, 431 and 501 | no | never |
/// | `Vary: *`, 206 to anything but a request for one range, unasked 304, event streams without freshness of their own | no | never |
///
/// A request whose own response could not be stored is not served a stored response either: one with
/// `Authorization` gets only responses that allow sharing explicitly (or by the rule), and one with `Cookie`,
/// an API key or a token only responses with a lifetime of the origin's own.
///
/// [`cookies`](Self::cookies) and [`credentials`](Self::credentials) say how requests are read. They have to
/// be set on the stack or the layer; a layer that derives keys by itself
/// ([`LookupLayer::rules`](crate::LookupLayer::rules), [`KeyLayer::rules`](crate::KeyLayer::rules))
/// needs the same rules as the layer that stores. In `Rules` from the extensions of a request or from a
/// policy these two have no effect.
///
/// ```
/// use std::time::Duration;
/// use tower_readthrough::Rules;
///
/// let rules = Rules::new()
///     .default_ttl(Duration::from_secs(10))
///     .stale_if_error_for(Duration::from_secs(3600));
/// # let _ = rules;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(crate) ttl: Ttl,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) heuristic: Option<Heuristic>,
    pub(crate) stale_while_revalidate_for: Duration,
    pub(crate) stale_if_error_for: Duration,
    pub(crate) stale_despite_revalidate: StaleWindows,
    pub(crate) revalidate_for: Duration,
    pub(crate) spread: Spread,
    pub(crate) hit_for_miss_for: Duration,
    pub(crate) store_set_cookie: bool,
    pub(crate) store_without: WithheldNames,
    pub(crate) store_private: bool,
    pub(crate) store_no_store: bool,
    pub(crate) store_authorized: bool,
    pub(crate) never: bool,
    pub(crate) request: RequestRules,
}

/// How requests are read where keys are derived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestRules {
    /// The cookies in every key.
    pub(crate) keyed: Keyed,
    pub(crate) credentials: CredentialNames,
}

impl RequestRules {
    /// The rules of [`Rules::new`].
    pub(crate) const DEFAULT: Self = Self { keyed: Keyed::NOTHING, credentials: CredentialNames::DEFAULT };
}

/// A time after the lifetime of a response in which it may be served stale (RFC 5861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum StaleWindow {
    /// While a fresh response is fetched: [`Rules::stale_while_revalidate_for`].
    WhileRevalidating,
    /// When the origin fails: [`Rules::stale_if_error_for`].
    IfError,
}

/// The windows in which a response that must be revalidated is served stale all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StaleWindows {
    pub(crate) while_revalidating: bool,
    pub(crate) if_error: bool,
}

impl StaleWindows {
    const NONE: Self = Self { while_revalidating: false, if_error: false };
}

impl FromIterator<StaleWindow> for StaleWindows {
    fn from_iter<I: IntoIterator<Item = StaleWindow>>(windows: I) -> Self {
        windows.into_iter().fold(Self::NONE, |all, window| match window {
            StaleWindow::WhileRevalidating => Self { while_revalidating: true, ..all },
            StaleWindow::IfError => Self { if_error: true, ..all },
        })
    }
}

impl From<Vec<StaleWindow>> for StaleWindows {
    fn from(windows: Vec<StaleWindow>) -> Self {
        windows.into_iter().collect()
    }
}

/// A share of a time, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;

    /// NaN counts as zero.
    pub(crate) const fn new(share: f64) -> Self {
        // The conversion saturates.
        Self((share * Self::WHOLE as f64) as u32)
    }

    const fn is_within(self, least: u32, most: u32) -> bool {
        least <= self.0 && self.0 <= most
    }

    pub(crate) fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    fn of(self, time: Duration) -> Duration {
        // The longest time in millionths of nanoseconds fits.
        let nanos = time.as_nanos().saturating_mul(self.0.into()) / u128::from(Self::WHOLE);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(feature = "serde")]
impl From<f64> for Share {
    fn from(share: f64) -> Self {
        Self::new(share)
    }
}

/// Heuristic freshness (RFC 9111 §4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heuristic {
    /// Of the time without change.
    share: Share,
    pub(crate) at_most: Duration,
}

impl Heuristic {
    pub(crate) const fn new(share: f64, at_most: Duration) -> Self {
        Self { share: Share::new(share), at_most }
    }

    const fn is_possible(self) -> bool {
        self.share.is_within(1, Share::WHOLE)
    }

    pub(crate) fn lifetime(self, unchanged: Duration) -> Duration {
        self.share.of(unchanged).min(self.at_most)
    }
}

/// What keeps responses that were stored together from being fetched together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spread {
    /// By how much of itself a lifetime may be shorter.
    pub(crate) jitter: Option<Share>,
    /// After how much of the lifetime a refresh may begin at the earliest.
    pub(crate) refresh_ahead: Option<Share>,
}

impl Spread {
    const NONE: Self = Self { jitter: None, refresh_ahead: None };

    fn check(self) -> Result<(), InvalidRules> {
        let invalid = |share: Option<Share>, most| share.is_some_and(|share| !share.is_within(1, most));
        if invalid(self.jitter, Share::WHOLE / 2) {
            return Err(InvalidRules::Spread("ttl_jitter", "more than 0 and at most 0.5"));
        }
        match invalid(self.refresh_ahead, Share::WHOLE - 1) {
            true => Err(InvalidRules::Spread("refresh_ahead", "more than 0 and less than 1")),
            false => Ok(()),
        }
    }
}

/// The source of lifetimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    Origin,
    OriginOr(Duration),
    Fixed(Duration),
}

impl Default for Rules {
    fn default() -> Self {
        Self::new()
    }
}

impl Rules {
    /// The origin decides; see the table above.
    pub const fn new() -> Self {
        Self {
            ttl: Ttl::Origin,
            negative_ttl: None,
            heuristic: None,
            stale_while_revalidate_for: Duration::ZERO,
            stale_if_error_for: Duration::from_secs(3600),
            stale_despite_revalidate: StaleWindows::NONE,
            revalidate_for: Duration::from_secs(600),
            spread: Spread::NONE,
            hit_for_miss_for: Duration::from_secs(10),
            store_set_cookie: false,
            store_without: WithheldNames::NONE,
            store_private: false,
            store_no_store: false,
            store_authorized: false,
            never: false,
            request: RequestRules::DEFAULT,
        }
    }

    /// For responses that are only shared in flight, which need no lifetime: the default is the shortest.
    pub(crate) fn for_flight(self) -> Self {
        match self.ttl {
            Ttl::Origin => self.default_ttl(Duration::from_nanos(1)),
            _ => self,
        }
    }

    /// The lifetime of a response without freshness of its own (`max-age`, `Expires`, `no-cache`, …).
    /// Default: none.
    ///
    /// It has the precision of a nanosecond, and starts when the request was sent (RFC 9111 §4.2.3). Longer
    /// than 68 years means 68 years.
    #[must_use]
    pub const fn default_ttl(mut self, fresh_for: Duration) -> Self {
        self.ttl = Ttl::OriginOr(fresh_for);
        self
    }

    /// The lifetime of every response, even with another one of its own, `no-cache` and `max-age=0` included.
    /// `no-store`, `private` and `Set-Cookie` still keep it out of the store, and so do `Authorization`,
    /// `Cookie` and other [credentials](Self::credentials) of the request that are not in the key.
    ///
    /// Precision and limits as for [`default_ttl`](Self::default_ttl), which this replaces.
    #[must_use]
    pub const fn fixed_ttl(mut self, fresh_for: Duration) -> Self {
        self.ttl = Ttl::Fixed(fresh_for);
        self
    }

    /// The lifetime of a 404 or 410 without freshness of its own. Default: they are not stored. Errors about
    /// one message or connection never are (400, 405, 414, 429, 501 and the like), and other errors only with
    /// freshness of their own.
    ///
    /// Precision and limits as for [`default_ttl`](Self::default_ttl).
    #[must_use]
    pub const fn negative_ttl(mut self, fresh_for: Duration) -> Self {
        self.negative_ttl = Some(fresh_for);
        self
    }

    /// Heuristic freshness (RFC 9111 §4.2.2): a response with `Last-Modified` and without freshness of its
    /// own stays fresh for this share of the time since it changed, and not longer than `at_most`. RFC 9111
    /// suggests a share of 0.1. Only for 200, 203, 204, 300, 301, 308, 404, 410 and 451, and for `public`
    /// responses.
    ///
    /// Default: none, since a heuristic lifetime keeps serving a file that was just edited. A default TTL
    /// takes precedence. The share is more than 0 and at most 1, which
    /// [`build`](crate::ReadThroughBuilder::build) checks, with a precision of millionths.
    #[must_use]
    pub const fn heuristic(mut self, share: f64, at_most: Duration) -> Self {
        self.heuristic = Some(Heuristic::new(share, at_most));
        self
    }

    /// How long after its lifetime a response may be served while a fresh one is fetched in the
    /// background, if it has no `stale-while-revalidate` of its own (RFC 5861 §3). Default: 0,
    /// never.
    ///
    /// Directives that forbid stale responses take precedence, as for
    /// [`stale_if_error_for`](Self::stale_if_error_for).
    #[must_use]
    pub const fn stale_while_revalidate_for(mut self, window: Duration) -> Self {
        self.stale_while_revalidate_for = window;
        self
    }

    /// How long after its lifetime a response may be served when the origin fails, if it has no
    /// `stale-if-error` of its own (RFC 5861 §4). Default: one hour; 0 switches it off.
    ///
    /// `must-revalidate`, `proxy-revalidate`, `s-maxage` and `no-cache` in the response forbid it
    /// (RFC 9111 §4.2.4), unless [`stale_despite_revalidate`](Self::stale_despite_revalidate) allows it.
    /// `s-maxage` does not forbid a window that the response gives itself, as in
    /// `s-maxage=60, stale-while-revalidate=300`. RFC 9111 §5.2.2.10 gives `s-maxage` the meaning of
    /// `proxy-revalidate`, but an origin that writes both directives must mean the window of RFC 5861 for
    /// shared caches, since private ones ignore `s-maxage`. This is an interpretation.
    #[must_use]
    pub const fn stale_if_error_for(mut self, window: Duration) -> Self {
        self.stale_if_error_for = window;
        self
    }

    /// The windows in which a response is served stale although its `must-revalidate`, `proxy-revalidate`,
    /// `s-maxage` or `no-cache` forbids that (RFC 9111 §4.2.4). The length of a window is that of the
    /// response, or else of [`stale_while_revalidate_for`](Self::stale_while_revalidate_for) and
    /// [`stale_if_error_for`](Self::stale_if_error_for). Default: none. A later call replaces an
    /// earlier one.
    ///
    /// For an origin whose `s-maxage` or `must-revalidate` is meant for a CDN, and whose responses may be
    /// served stale in an outage. A client's `max-stale` still gets none of them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_readthrough::{Rules, StaleWindow};
    ///
    /// let day = Duration::from_secs(86_400);
    /// let rules = Rules::new().stale_if_error_for(day).stale_despite_revalidate([StaleWindow::IfError]);
    /// # drop(rules);
    /// ```
    #[must_use]
    pub fn stale_despite_revalidate(mut self, windows: impl IntoIterator<Item = StaleWindow>) -> Self {
        self.stale_despite_revalidate = windows.into_iter().collect();
        self
    }

    /// How long after its lifetime a response with an `ETag` or `Last-Modified` is kept, so that
    /// the origin can confirm it with a 304 instead of sending it again. Default: ten minutes.
    #[must_use]
    pub const fn revalidate_for(mut self, window: Duration) -> Self {
        self.revalidate_for = window;
        self
    }

    /// Makes each lifetime shorter by up to this share of itself, at random, so that responses that were
    /// stored together do not expire together. Default: none. The share is more than 0 and at most 0.5, which
    /// [`build`](crate::ReadThroughBuilder::build) checks.
    ///
    /// It takes 0.4 for the worst second of a herd to be three times the mean; 0.1 leaves seven times. More
    /// requests find a stale response then, so consider [`refresh_ahead`](Self::refresh_ahead) first. Clients
    /// see the lifetime that the origin gave.
    #[must_use]
    pub const fn ttl_jitter(mut self, share: f64) -> Self {
        self.spread.jitter = Some(Share::new(share));
        self
    }

    /// Refreshes a response in the background before it expires, when it is requested after this share of
    /// its lifetime: at a moment that is drawn at random between this share and the end when the response is
    /// stored, and early enough for the time that the last fetch took. Default: never. The share is more
    /// than 0 and less than 1, which [`build`](crate::ReadThroughBuilder::build) checks.
    ///
    /// With 0.6 a herd of responses that were stored together costs the origin in its worst second three
    /// times the mean, and about a fifth more fetches altogether. A request that comes before that moment
    /// costs nothing, and none waits for the refresh. It does not begin within a second of storing, nor while the
    /// [origin](crate::OriginHealth) is not up, nor if the [origin limit](crate::OriginLimit) has no place for
    /// it.
    #[must_use]
    pub const fn refresh_ahead(mut self, share: f64) -> Self {
        self.spread.refresh_ahead = Some(Share::new(share));
        self
    }

    /// How long after a response that cannot be shared further requests for its key go to the origin without
    /// waiting for each other. Default: ten seconds; with 0 every burst waits for its first response.
    #[must_use]
    pub const fn hit_for_miss_for(mut self, window: Duration) -> Self {
        self.hit_for_miss_for = window;
        self
    }

    /// Whether responses with `Set-Cookie` are stored together with it, so that every client gets the same
    /// cookie. Default: no. [`store_without`](Self::store_without) stores them without it.
    #[must_use]
    pub const fn store_set_cookie(mut self, store: bool) -> Self {
        self.store_set_cookie = store;
        self
    }

    /// Response fields for one client: only the client whose request the origin answered gets them, and
    /// stored or shared responses have none of them, as if the response named them in `Cache-Control:
    /// no-cache="…"` (RFC 9111 §5.2.2.4). Those of a 304 go to the client whose request led to the
    /// revalidation. Trailers of these names reach no client of a shared fetch, and a background refresh
    /// drops them. Default: none. A later call replaces an earlier one.
    ///
    /// With `set-cookie` a response with `Set-Cookie` may be stored, unless something else forbids that.
    /// **Its content must then be the same for all clients**: a page with a token of the session that the
    /// cookie starts is not. No response sets a cookie that the client has and that
    /// [`cookies`](Self::cookies) or a key rule kept from the origin: an origin that sees no session starts
    /// one, which would replace the session of the client.
    ///
    /// Fields that a response cannot be used without are refused by
    /// [`build`](crate::ReadThroughBuilder::build): `Vary`, `Cache-Control`, `CDN-Cache-Control`, `Expires`,
    /// `Date`, `Age`, `ETag`, `Last-Modified`, `No-Vary-Search`, `Location`, `Content-Type`,
    /// `Content-Encoding`, `Content-Length`, `Content-Range`, `Cache-Status`, and the fields of the
    /// connection.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_readthrough::Rules;
    ///
    /// let rules = Rules::new()
    ///     .default_ttl(Duration::from_secs(10))
    ///     .store_without(["set-cookie", "x-request-id"]);
    /// # drop(rules);
    /// ```
    #[must_use]
    pub fn store_without<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.store_without = names.into_iter().collect();
        self
    }

    /// Whether `private` responses are stored and shared with all clients. Default: no.
    #[must_use]
    pub const fn store_private(mut self, store: bool) -> Self {
        self.store_private = store;
        self
    }

    /// Whether `no-store` responses are stored. Default: no.
    #[must_use]
    pub const fn store_no_store(mut self, store: bool) -> Self {
        self.store_no_store = store;
        self
    }

    /// Whether `Authorization` is ignored: responses to requests with it are stored, and such requests are
    /// answered from the store. Default: no. Only right if the response is the same for all clients that have
    /// access.
    #[must_use]
    pub const fn store_authorized(mut self, store: bool) -> Self {
        self.store_authorized = store;
        self
    }

    /// The cookies that are in the key and reach the origin, for requests with a key; all others are removed.
    /// With no name, none is in the key and none reaches the origin. Such a request is answered from the
    /// store like one without cookies, since its key holds all cookies that the origin gets.
    ///
    /// Default: all cookies reach the origin and none is in the key, so that responses without freshness
    /// of their own to requests with `Cookie` are not stored (`detail=cookie` in
    /// [`Cache-Status`](crate::CacheStatus)), and such requests get no stored responses of that kind.
    ///
    /// Requests without a key, such as those of other methods, keep all their cookies. The cookies of a [key
    /// rule](crate::KeyRule::cookies) take precedence. Each value of a cookie in the key has an entry of its
    /// own; a purge by URL or tag reaches all of them, a purge by key only with a
    /// [prefix](crate::Purge::key_prefix). A name is a token (RFC 6265 §4.1.1), which
    /// [`build`](crate::ReadThroughBuilder::build) checks, and its case counts; `wordpress_*` means all names
    /// with that prefix. If any are named and a request has more than 256 cookies, all of them are in the key
    /// and reach the origin, since servers differ in which of so many they read.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_readthrough::Rules;
    ///
    /// // The cookies of analytics and advertisement change no page.
    /// let same_for_all = Rules::new().default_ttl(Duration::from_secs(10)).cookies([]);
    /// let by_language = Rules::new().default_ttl(Duration::from_secs(10)).cookies(["lang"]);
    /// # drop((same_for_all, by_language));
    /// ```
    #[must_use]
    pub fn cookies<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.request.keyed = Keyed::new([], Some(CookieNames::new(names)));
        self
    }

    /// Fields that count as credentials where they are not in the key: API keys, tokens, and names of
    /// clients. They count as `Cookie` does, for responses without a lifetime of the origin's own.
    /// [`only_credentials`](Self::only_credentials) replaces them.
    pub const WELL_KNOWN_CREDENTIALS: &[&str] = WELL_KNOWN;

    /// Names of fields that are credentials as `Authorization` is (RFC 9111 §3.5): a response to a request
    /// with one of them is stored only if it allows sharing explicitly, and such a request gets only such
    /// responses, whatever the source of the lifetime. [`store_authorized`](Self::store_authorized) is about
    /// these fields too. A field in the key of a [rule](crate::KeyRule::headers) keeps the entries apart and
    /// is not a credential there.
    ///
    /// Adds to earlier names and to [`WELL_KNOWN_CREDENTIALS`](Self::WELL_KNOWN_CREDENTIALS).
    /// Default: none. Invalid names are refused by [`build`](crate::ReadThroughBuilder::build).
    ///
    /// ```
    /// use tower_readthrough::Rules;
    ///
    /// let rules = Rules::new().credentials(["x-api-key", "x-tenant-token"]);
    /// # drop(rules);
    /// ```
    #[must_use]
    pub fn credentials<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.request.credentials = self.request.credentials.with(names);
        self
    }

    /// Like [`credentials`](Self::credentials), but replaces earlier names and
    /// [`WELL_KNOWN_CREDENTIALS`](Self::WELL_KNOWN_CREDENTIALS). `Authorization` and `Cookie` stay
    /// credentials.
    ///
    /// Only right if no other field gives a request access to anything that others must not see.
    #[must_use]
    pub fn only_credentials<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.request.credentials = CredentialNames::only(names);
        self
    }

    /// No response is stored or shared.
    #[must_use]
    pub const fn never_store(mut self) -> Self {
        self.never = true;
        self
    }

    /// Checks what is said about storing.
    pub(crate) fn check(&self) -> Result<(), InvalidRules> {
        let times = [
            ("fixed_ttl", if let Ttl::Fixed(ttl) = self.ttl { Some(ttl) } else { None }),
            ("default_ttl", if let Ttl::OriginOr(ttl) = self.ttl { Some(ttl) } else { None }),
            ("negative_ttl", self.negative_ttl),
            ("heuristic", self.heuristic.map(|heuristic| heuristic.at_most)),
        ];
        if let Some((setting, _)) = times.iter().find(|(_, time)| time.is_some_and(|time| time.is_zero())) {
            return Err(InvalidRules::Zero(setting));
        }
        if self.heuristic.is_some_and(|heuristic| !heuristic.is_possible()) {
            return Err(InvalidRules::Share);
        }
        self.spread.check()?;
        if let Some(name) = self.store_without.invalid() {
            return Err(InvalidRules::Withheld(name.into()));
        }
        match self.store_set_cookie && self.store_without.has(&header::SET_COOKIE) {
            true => Err(InvalidRules::WithheldCookie),
            false => Ok(()),
        }
    }
}

/// Why rules about storing cannot work. Shown as the [`BuildError`](crate::BuildError) that it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InvalidRules {
    /// This time is zero.
    Zero(&'static str),
    /// The share of heuristic freshness.
    Share,
    /// This share is not within these bounds.
    Spread(&'static str, &'static str),
    /// A field without which a response cannot be stored.
    Withheld(Box<str>),
    /// `Set-Cookie` is to be stored and to be left out.
    WithheldCookie,
}

/// The names of response fields that are neither stored nor shared: only the client gets them whose request
/// fetched them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WithheldNames {
    names: Option<Arc<[HeaderName]>>,
    /// A given name that cannot be withheld.
    invalid: Option<Arc<str>>,
}

impl WithheldNames {
    pub(crate) const NONE: Self = Self { names: None, invalid: None };

    pub(crate) fn invalid(&self) -> Option<&str> {
        self.invalid.as_deref()
    }

    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.names.as_ref().is_some_and(|names| names.contains(name))
    }

    /// These and the names in the response itself.
    pub(crate) fn and(&self, said: &[HeaderName]) -> Vec<HeaderName> {
        let own = self.names.iter().flat_map(|names| names.iter());
        said.iter().chain(own.filter(|name| !said.contains(name))).cloned().collect()
    }
}

impl<N: AsRef<str>> FromIterator<N> for WithheldNames {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let (mut known, mut invalid) = (Vec::new(), None);
        for text in names {
            match withheld_name(text.as_ref()) {
                Some(name) => known.push(name),
                None => invalid = Some(text.as_ref().into()),
            }
        }
        Self { names: (!known.is_empty()).then(|| known.into()), invalid }
    }
}

impl From<Vec<String>> for WithheldNames {
    fn from(names: Vec<String>) -> Self {
        names.into_iter().collect()
    }
}

/// The names, separated by commas.
impl fmt::Display for WithheldNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.iter().flat_map(|names| names.iter());
        let separators = iter::once("").chain(iter::repeat(", "));
        names.zip(separators).try_for_each(|(name, separator)| write!(f, "{separator}{name}"))
    }
}

/// Parses the name of a field that a response can be used without. Others describe its content, its audience
/// and its lifetime, to this cache and to those after it.
fn withheld_name(text: &str) -> Option<HeaderName> {
    const ESSENTIAL: [HeaderName; 16] = [
        header::AGE,
        header::CACHE_CONTROL,
        header::CACHE_STATUS,
        CDN_CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::DATE,
        header::ETAG,
        header::EXPIRES,
        header::LAST_MODIFIED,
        header::LOCATION,
        header::TRAILER,
        header::VARY,
        HeaderName::from_static("no-vary-search"),
    ];
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    name.filter(|name| !text.contains('*') && !is_hop_by_hop(name) && !ESSENTIAL.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_a_response_cannot_be_used_without_are_refused() {
        for name in ["set-cookie", "Set-Cookie", "x-request-id", "server-timing", "content-language"] {
            assert_eq!(WithheldNames::from_iter([name]).invalid(), None, "{name}");
        }
        for name in ["vary", "Cache-Control", "etag", "connection", "cache-status", "x-*", "a b", "", "x,y"] {
            assert_eq!(WithheldNames::from_iter(["set-cookie", name]).invalid(), Some(name), "{name}");
        }
    }

    #[test]
    fn a_name_given_twice_is_withheld_once() {
        let names = WithheldNames::from_iter(["x-a", "x-b"]);
        assert_eq!(names.and(&[HeaderName::from_static("x-b")]), ["x-b", "x-a"]);
        assert!(WithheldNames::NONE.and(&[]).is_empty());
    }
}
