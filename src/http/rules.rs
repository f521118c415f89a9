use std::time::Duration;

/// How answers of the origin are to be stored: times, and what may be stored at all.
///
/// The default is the strict reading of RFC 9111 for a shared cache: the origin decides, and
/// nothing personal is stored. Every exception has a name.
///
/// Rules are a small value. They come from [`ReadThrough`](crate::ReadThrough) or
/// [`FillLayer`](crate::FillLayer), a middleware may replace them for one request by putting
/// others into its extensions, and a [`Policy`](crate::Policy) has the last word once it sees
/// the response.
///
/// | answer | stored by default | stored if |
/// |---|---|---|
/// | fresh by its own `Cache-Control` or `Expires` | yes | |
/// | without a word about freshness, 200 203 300 301 308 | no | [`default_ttl`](Self::default_ttl) or [`fixed_ttl`](Self::fixed_ttl) |
/// | the same, 404 405 410 414 501 | no | [`negative_ttl`](Self::negative_ttl) |
/// | the same, any of these or 204, with `Last-Modified` | for a tenth of its age | [`max_heuristic_ttl`](Self::max_heuristic_ttl) |
/// | `no-store` | no | [`store_no_store`](Self::store_no_store) |
/// | `private` without field names | no | [`store_private`](Self::store_private) |
/// | with `Set-Cookie` | no | [`store_set_cookie`](Self::store_set_cookie) |
/// | to a request with `Authorization` | if `public`, `must-revalidate` or `s-maxage` | [`store_authorized`](Self::store_authorized) |
/// | to a request with `Cookie`, without freshness of its own | no | [`store_cookie_requests`](Self::store_cookie_requests) |
/// | `Vary: *`, 206 to anything but a request for one range, unasked 304, event streams without freshness of their own | no | never |
///
/// Whose own answer could not be stored does not get a stored one either: a request with
/// `Authorization` gets only what says that it is for all (or with the rule), and a request
/// with `Cookie` nothing whose lifetime its origin did not give (without the rule).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(crate) ttl: Ttl,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) max_heuristic_ttl: Duration,
    pub(crate) stale_while_revalidate_for: Duration,
    pub(crate) stale_if_error_for: Duration,
    pub(crate) revalidate_for: Duration,
    pub(crate) hit_for_miss_for: Duration,
    pub(crate) store_set_cookie: bool,
    pub(crate) store_private: bool,
    pub(crate) store_no_store: bool,
    pub(crate) store_authorized: bool,
    pub(crate) store_cookie_requests: bool,
    pub(crate) never: bool,
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
            max_heuristic_ttl: Duration::from_secs(86_400),
            stale_while_revalidate_for: Duration::ZERO,
            stale_if_error_for: Duration::from_secs(3600),
            revalidate_for: Duration::from_secs(600),
            hit_for_miss_for: Duration::from_secs(10),
            store_set_cookie: false,
            store_private: false,
            store_no_store: false,
            store_authorized: false,
            store_cookie_requests: false,
            never: false,
        }
    }

    /// For what is shared in flight and then forgotten, which takes no lifetime: where nothing gives one,
    /// it is the shortest.
    pub(crate) const fn for_flight(self) -> Self {
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

    /// Every answer stays fresh for so long, whatever lifetime its fields give, `no-cache` and
    /// `max-age=0` included. `no-store`, `private`, `Set-Cookie` and `Authorization` still keep
    /// it out of the store.
    ///
    /// Precision and limits as for [`default_ttl`](Self::default_ttl), which this replaces.
    #[must_use]
    pub const fn fixed_ttl(mut self, fresh_for: Duration) -> Self {
        self.ttl = Ttl::Fixed(fresh_for);
        self
    }

    /// Errors that tend to last (404, 405, 410, 414, 501) stay fresh for so long if they say
    /// nothing about it themselves. Default: they are not stored. 5xx answers other than 501
    /// are stored only with explicit freshness.
    #[must_use]
    pub const fn negative_ttl(mut self, fresh_for: Duration) -> Self {
        self.negative_ttl = Some(fresh_for);
        self
    }

    /// An answer that says nothing about its freshness but when it last changed stays fresh for
    /// a tenth of the time since then, and at most for so long (RFC 9111 §4.2.2). Only for
    /// statuses for which that makes sense, and for what is `public`. Default: one day; 0
    /// switches it off. A default TTL goes first.
    #[must_use]
    pub const fn max_heuristic_ttl(mut self, fresh_for: Duration) -> Self {
        self.max_heuristic_ttl = fresh_for;
        self
    }

    /// How long after its lifetime an answer may be served while a fresh one is fetched in the
    /// background, if it has no `stale-while-revalidate` of its own (RFC 5861 §3). Default: 0,
    /// never. Directives that forbid stale answers win.
    #[must_use]
    pub const fn stale_while_revalidate_for(mut self, window: Duration) -> Self {
        self.stale_while_revalidate_for = window;
        self
    }

    /// How long after its lifetime an answer may be served when the origin fails, if it has no
    /// `stale-if-error` of its own (RFC 5861 §4). Default: one hour; 0 switches it off.
    ///
    /// `must-revalidate`, `proxy-revalidate`, `s-maxage` and `no-cache` in the answer forbid it
    /// (RFC 9111 §4.2.4).
    #[must_use]
    pub const fn stale_if_error_for(mut self, window: Duration) -> Self {
        self.stale_if_error_for = window;
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

    /// Stores answers with `Set-Cookie`, cookie and all: every client gets the same one.
    #[must_use]
    pub const fn store_set_cookie(mut self, store: bool) -> Self {
        self.store_set_cookie = store;
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

    /// Where the origin gives no lifetime: treats requests with `Cookie` like those without. Only
    /// right if the service ignores cookies, or says in `Vary` that it does not.
    #[must_use]
    pub const fn store_cookie_requests(mut self, store: bool) -> Self {
        self.store_cookie_requests = store;
        self
    }

    /// Stores nothing and shares nothing.
    #[must_use]
    pub const fn never_store(mut self) -> Self {
        self.never = true;
        self
    }
}
