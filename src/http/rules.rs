use std::time::Duration;

use super::{
    cookies::CookieNames,
    credentials::{CredentialNames, Keyed, WELL_KNOWN},
    withheld::WithheldNames,
};

/// How answers of the origin are to be stored: times, and what may be stored at all.
///
/// The default is the strict reading of RFC 9111 for a shared cache: the origin decides, and
/// nothing personal is stored. Every exception has a name.
///
/// Rules are cheap to clone. They come from [`ReadThrough`](crate::ReadThrough) or
/// [`FillLayer`](crate::FillLayer), a middleware may replace them for one request by putting
/// others into its extensions, and a [`Policy`](crate::Policy) has the last word once it sees
/// the response.
///
/// | answer | stored by default | stored if |
/// |---|---|---|
/// | fresh by its own `Cache-Control` or `Expires` | yes | |
/// | without a word about freshness, 200 203 300 301 308 | no | [`default_ttl`](Self::default_ttl) or [`fixed_ttl`](Self::fixed_ttl) |
/// | the same, 404 410 | no | [`negative_ttl`](Self::negative_ttl) |
/// | the same, any of these, 204 or 451, with `Last-Modified` | no | [`heuristic`](Self::heuristic) |
/// | `no-store` | no | [`store_no_store`](Self::store_no_store) |
/// | `private` without field names | no | [`store_private`](Self::store_private) |
/// | with `Set-Cookie` | no | without it: [`store_without`](Self::store_without); with it: [`store_set_cookie`](Self::store_set_cookie) |
/// | to a request with `Authorization` | if `public`, `must-revalidate` or `s-maxage` | [`store_authorized`](Self::store_authorized) |
/// | to a request with `Cookie`, without freshness of its own | no | [`cookies`](Self::cookies) |
/// | to a request with an [API key or a token](Self::WELL_KNOWN_CREDENTIALS), without freshness of its own | no | it is in the key of a [rule](crate::KeyRule::headers), or [`only_credentials`](Self::only_credentials) |
/// | with a status about one message or connection, such as 400, 405, 414, 429, 431 and 501 | no | never |
/// | `Vary: *`, 206 to anything but a request for one range, unasked 304, event streams without freshness of their own | no | never |
///
/// Whose own answer could not be stored does not get a stored one either: a request with
/// `Authorization` gets only what says that it is for all (or with the rule), and a request
/// with `Cookie`, an API key or a token nothing whose lifetime its origin did not give.
///
/// [`cookies`](Self::cookies) and [`credentials`](Self::credentials) say how a request is read. They
/// count where a layer or the stack is configured; a layer that derives keys by itself
/// ([`LookupLayer::rules`](crate::LookupLayer::rules), [`KeyLayer::rules`](crate::KeyLayer::rules))
/// gets the same rules as the layer that stores. `Rules` in the extensions of a request, or from a
/// policy, come too late for them.
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
    pub(crate) hit_for_miss_for: Duration,
    pub(crate) store_set_cookie: bool,
    pub(crate) store_without: WithheldNames,
    pub(crate) store_private: bool,
    pub(crate) store_no_store: bool,
    pub(crate) store_authorized: bool,
    pub(crate) never: bool,
    pub(crate) request: RequestRules,
}

/// What of a request is in its key, and what is for its client alone. Read where the key is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestRules {
    /// The cookies that are in every key.
    pub(crate) keyed: Keyed,
    pub(crate) credentials: CredentialNames,
}

impl RequestRules {
    /// Those of [`Rules::new`].
    pub(crate) const DEFAULT: Self = Self { keyed: Keyed::NOTHING, credentials: CredentialNames::DEFAULT };
}

/// A time after the lifetime of a response in which it may be served stale (RFC 5861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum StaleWindow {
    /// While a fresh one is fetched: [`Rules::stale_while_revalidate_for`].
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

/// How a lifetime is guessed from when a representation last changed (RFC 9111 §4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heuristic {
    /// Of the time without change, in millionths.
    share: u32,
    pub(crate) at_most: Duration,
}

impl Heuristic {
    const WHOLE: u32 = 1_000_000;

    /// A share that is no number counts as none.
    pub(crate) const fn new(share: f64, at_most: Duration) -> Self {
        // The conversion saturates.
        Self { share: (share * Self::WHOLE as f64) as u32, at_most }
    }

    pub(crate) const fn is_possible(self) -> bool {
        0 < self.share && self.share <= Self::WHOLE
    }

    pub(crate) fn lifetime(self, unchanged: Duration) -> Duration {
        // Millionths of nanoseconds: a share of the longest time fits.
        let nanos = unchanged.as_nanos().saturating_mul(self.share.into()) / u128::from(Self::WHOLE);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos).min(self.at_most)
    }
}

/// Where a lifetime comes from.
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

    /// For what is shared in flight and then forgotten, which takes no lifetime: where nothing gives one,
    /// it is the shortest.
    pub(crate) fn for_flight(self) -> Self {
        match self.ttl {
            Ttl::Origin => self.default_ttl(Duration::from_nanos(1)),
            _ => self,
        }
    }

    /// An answer that says nothing about its freshness stays fresh for so long. What does say
    /// something (`max-age`, `Expires`, `no-cache`, …) is followed.
    ///
    /// Any precision down to a nanosecond counts. The time that the answer took is taken off
    /// (RFC 9111 §4.2.3). Longer than 68 years means 68 years.
    #[must_use]
    pub const fn default_ttl(mut self, fresh_for: Duration) -> Self {
        self.ttl = Ttl::OriginOr(fresh_for);
        self
    }

    /// Every response stays fresh for so long, whatever lifetime its fields give, `no-cache` and
    /// `max-age=0` included. `no-store`, `private` and `Set-Cookie` still keep it out of the store, and so
    /// do `Authorization`, `Cookie` and other [credentials](Self::credentials) of the request that are not
    /// in the key.
    ///
    /// Precision and limits as for [`default_ttl`](Self::default_ttl), which this replaces.
    #[must_use]
    pub const fn fixed_ttl(mut self, fresh_for: Duration) -> Self {
        self.ttl = Ttl::Fixed(fresh_for);
        self
    }

    /// A 404 or 410 that says nothing about its freshness stays fresh for so long. Default: they are
    /// not stored. Errors about one message or connection never are (400, 405, 414, 429, 501 and the
    /// like), and other errors only with freshness of their own.
    ///
    /// Precision and limits as for [`default_ttl`](Self::default_ttl).
    #[must_use]
    pub const fn negative_ttl(mut self, fresh_for: Duration) -> Self {
        self.negative_ttl = Some(fresh_for);
        self
    }

    /// A response that says nothing about its freshness but when it last changed stays fresh for this
    /// share of the time since then, and at most for so long (heuristic freshness, RFC 9111 §4.2.2).
    /// RFC 9111 suggests a share of 0.1. Only for 200, 203, 204, 300, 301, 308, 404, 410 and 451,
    /// and for what is `public`.
    ///
    /// Default: none. A guess keeps serving a file that was edited a moment ago. A default TTL goes
    /// first. The share is more than 0 and at most 1, which [`build`](crate::ReadThroughBuilder::build)
    /// checks; millionths count.
    #[must_use]
    pub const fn heuristic(mut self, share: f64, at_most: Duration) -> Self {
        self.heuristic = Some(Heuristic::new(share, at_most));
        self
    }

    /// How long after its lifetime an answer may be served while a fresh one is fetched in the
    /// background, if it has no `stale-while-revalidate` of its own (RFC 5861 §3). Default: 0,
    /// never.
    ///
    /// Directives that forbid stale answers win, as for
    /// [`stale_if_error_for`](Self::stale_if_error_for).
    #[must_use]
    pub const fn stale_while_revalidate_for(mut self, window: Duration) -> Self {
        self.stale_while_revalidate_for = window;
        self
    }

    /// How long after its lifetime an answer may be served when the origin fails, if it has no
    /// `stale-if-error` of its own (RFC 5861 §4). Default: one hour; 0 switches it off.
    ///
    /// `must-revalidate`, `proxy-revalidate`, `s-maxage` and `no-cache` in the answer forbid it
    /// (RFC 9111 §4.2.4), unless [`stale_despite_revalidate`](Self::stale_despite_revalidate) says
    /// otherwise. `s-maxage` does not forbid a window that the answer names itself, as in
    /// `s-maxage=60, stale-while-revalidate=300`: RFC 9111 §5.2.2.10 gives `s-maxage` the meaning of
    /// `proxy-revalidate` as well, but an origin that writes both directives means the window of RFC
    /// 5861 too, for private caches have no `s-maxage` to go by. That is our reading.
    #[must_use]
    pub const fn stale_if_error_for(mut self, window: Duration) -> Self {
        self.stale_if_error_for = window;
        self
    }

    /// In these windows a response is served stale although `must-revalidate`, `proxy-revalidate`,
    /// `s-maxage` or `no-cache` in it forbids that (RFC 9111 §4.2.4). The length of a window is what the
    /// response says, or else [`stale_while_revalidate_for`](Self::stale_while_revalidate_for) and
    /// [`stale_if_error_for`](Self::stale_if_error_for). Default: in none. A later call replaces an
    /// earlier one.
    ///
    /// For an origin whose `s-maxage` or `must-revalidate` is meant for a CDN, and which can bear stale
    /// responses in an outage. `max-stale` of a client still gets none.
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

    /// How long after its lifetime an answer with an `ETag` or `Last-Modified` is kept, so that
    /// the origin can say 304 instead of sending it again. Default: ten minutes.
    #[must_use]
    pub const fn revalidate_for(mut self, window: Duration) -> Self {
        self.revalidate_for = window;
        self
    }

    /// How long requests for something that turned out not to be shareable go to the origin
    /// side by side, without waiting for each other first. Default: ten seconds; 0 switches
    /// it off, and every burst waits for its first answer.
    #[must_use]
    pub const fn hit_for_miss_for(mut self, window: Duration) -> Self {
        self.hit_for_miss_for = window;
        self
    }

    /// Stores answers with `Set-Cookie`, cookie and all: every client gets the same one. See
    /// [`store_without`](Self::store_without) for storing them without it.
    #[must_use]
    pub const fn store_set_cookie(mut self, store: bool) -> Self {
        self.store_set_cookie = store;
        self
    }

    /// Response fields that are for one client alone: the one whose request the origin answered gets them,
    /// and what is stored or shared has none of them, as if the response named them in
    /// `Cache-Control: no-cache="…"` (RFC 9111 §5.2.2.4). A 304 gives its own to the client whose request
    /// was revalidated. Trailers of these names reach no client of a shared fetch, and a background refresh
    /// drops them. Default: none. A later call replaces an earlier one.
    ///
    /// `set-cookie` among them lets a response with `Set-Cookie` be stored, unless something else forbids
    /// that. **Its content must then be the same for all**: a page with a token of the session that the
    /// cookie begins is not.
    /// A cookie that the client has and that [`cookies`](Self::cookies) or a key rule kept from the origin is
    /// not set anew, in any response: an origin that sees no session begins one, which would replace the
    /// session of the client.
    ///
    /// What cannot be read without is refused by [`build`](crate::ReadThroughBuilder::build): `Vary`,
    /// `Cache-Control`, `CDN-Cache-Control`, `Expires`, `Date`, `Age`, `ETag`, `Last-Modified`,
    /// `No-Vary-Search`, `Location`, `Content-Type`, `Content-Encoding`, `Content-Length`, `Content-Range`,
    /// `Cache-Status`, and the fields of the connection.
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

    /// Stores answers that their origin marked `private`, and gives them to everybody.
    #[must_use]
    pub const fn store_private(mut self, store: bool) -> Self {
        self.store_private = store;
        self
    }

    /// Stores answers that their origin marked `no-store`.
    #[must_use]
    pub const fn store_no_store(mut self, store: bool) -> Self {
        self.store_no_store = store;
        self
    }

    /// Stores answers to requests with `Authorization` as if it were not there, and serves such
    /// requests from the store. Only right if the answer is the same for all who may ask.
    #[must_use]
    pub const fn store_authorized(mut self, store: bool) -> Self {
        self.store_authorized = store;
        self
    }

    /// Of a request that may be stored, exactly these cookies are in the key and reach the origin; the
    /// others are removed from it. Without any name, none is in the key and none reaches the origin.
    /// Such a request is answered from the store and stored like one without cookies, for what the
    /// origin sees of it is in the key.
    ///
    /// Default: all cookies reach the origin and none is in the key, so that responses without freshness
    /// of their own to requests with `Cookie` are not stored (`detail=cookie` in
    /// [`Cache-Status`](crate::CacheStatus)), and such requests get none of those that are stored.
    ///
    /// Requests without a key, of other methods for example, keep all their cookies. A
    /// [key rule](crate::KeyRule::cookies) that names cookies goes first. A cookie that selects a page by
    /// its value gives each value an entry of its own; a purge by URL or tag reaches all of them, and of
    /// a purge by key only one by [prefix](crate::Purge::key_prefix) does. A name is a token (RFC 6265
    /// §4.1.1), which [`build`](crate::ReadThroughBuilder::build) checks, and its case counts; `wordpress_*` stands
    /// for all names that begin so. All cookies of a request that has more than 256 are in the key and reach
    /// the origin, if any are named: servers read different ones of so many.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_readthrough::Rules;
    ///
    /// // What analytics and advertisement put into browsers changes no page.
    /// let same_for_all = Rules::new().default_ttl(Duration::from_secs(10)).cookies([]);
    /// let by_language = Rules::new().default_ttl(Duration::from_secs(10)).cookies(["lang"]);
    /// # drop((same_for_all, by_language));
    /// ```
    #[must_use]
    pub fn cookies<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.request.keyed = Keyed::new([], Some(CookieNames::new(names)));
        self
    }

    /// Fields that count as credentials of a client wherever they are not in the key: API keys and
    /// tokens, or what names a client. Under lifetimes of our own a request with one of them counts as one
    /// with `Cookie` does. [`only_credentials`](Self::only_credentials) replaces them.
    pub const WELL_KNOWN_CREDENTIALS: &[&str] = WELL_KNOWN;

    /// A field of these names is a credential as `Authorization` is (RFC 9111 §3.5): a response to a
    /// request with it is stored only if it says that it is for all, and such a request gets only
    /// what says so, whether the lifetime is the origin's or our own.
    /// [`store_authorized`](Self::store_authorized) is about these fields too. A field that is in the
    /// key of a [rule](crate::KeyRule::headers) keeps the entries apart and is no credential there.
    ///
    /// Adds to what was named before and to [`WELL_KNOWN_CREDENTIALS`](Self::WELL_KNOWN_CREDENTIALS).
    /// Default: none. What is no name of a field is refused by [`build`](crate::ReadThroughBuilder::build).
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

    /// As [`credentials`](Self::credentials), in place of what was named before and of
    /// [`WELL_KNOWN_CREDENTIALS`](Self::WELL_KNOWN_CREDENTIALS). `Authorization` and `Cookie` stay what
    /// they are.
    ///
    /// Only right if no other field lets a request see what others may not.
    #[must_use]
    pub fn only_credentials<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.request.credentials = CredentialNames::only(names);
        self
    }

    /// Stores nothing and shares nothing.
    #[must_use]
    pub const fn never_store(mut self) -> Self {
        self.never = true;
        self
    }
}
