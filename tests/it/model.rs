//! The assembled stack against a reference model: random sequences of requests, changes and
//! failures, and for every response the question whether RFC 9110, 9111 and 5861 allow it.
//!
//! The model knows nothing of how a cache works. It has the list of all responses that the origin
//! ever made, and a predicate: may this response be served to this request now? Each response names
//! itself in `x-made`, so that what a client gets can be traced back to it.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use http::{Request, request::Parts};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{RngSeed, TestError, TestRunner},
};
use tokio::time::Instant;
use tower::Layer;
use tower_readthrough::{
    DefaultKey, KeyExtractor, MemoryStore, Purge, ReadThroughLayer, RetryPolicy, Rules, purge::Strength,
};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, ScriptedResponse, error, ms, request, secs, settle, status,
    try_send,
};

const URIS: usize = 2;
/// For responses without freshness.
const DEFAULT_TTL: Duration = secs(4);
/// For responses without `stale-if-error`.
const DEFAULT_STALE_IF_ERROR: Duration = secs(30);

// What can happen.

/// The fields by which the origin directs caches.
#[derive(Clone, Debug, Default)]
struct Caching {
    max_age: Option<u64>,
    s_maxage: Option<u64>,
    stale_while_revalidate: Option<u64>,
    stale_if_error: Option<u64>,
    no_store: bool,
    private: bool,
    no_cache: bool,
    must_revalidate: bool,
    public: bool,
    varies: bool,
    has_etag: bool,
    sets_cookie: bool,
    /// The age of the response when the origin sends it.
    age: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// The service returns an error.
    Error,
    /// 503 without fields.
    Bare,
    /// 503 with the fields of a success.
    Directed,
}

#[derive(Clone, Copy, Debug)]
enum Tag {
    Current,
    Previous,
    Other,
    Any,
}

#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    uri: usize,
    accept: Option<&'static str>,
    if_none_match: Option<Tag>,
    range: Option<&'static str>,
    cookie: bool,
    authorization: bool,
}

/// How a purge names entries.
#[derive(Clone, Copy, Debug)]
enum Means {
    Url,
    Key,
    Tag,
    Path,
}

impl Means {
    fn apply(self, uri: Option<usize>, purge: &Purge) {
        let Some(uri) = uri else {
            return match self {
                Self::Tag => drop(purge.tag("all")),
                Self::Path => _ = purge.path_prefix("http://example.com/").unwrap(),
                Self::Key => drop(purge.key_prefix([])),
                Self::Url => drop(purge.everything()),
            };
        };
        let url = format!("http://example.com/{uri}");
        match self {
            Self::Url => _ = purge.url(&url).unwrap(),
            Self::Tag => _ = purge.tag(&format!("of-{uri}")),
            Self::Path => _ = purge.path_prefix(&url).unwrap(),
            Self::Key => {
                let (head, ()) = Request::get(url).body(()).unwrap().into_parts();
                purge.key(&DefaultKey::new().key(&head).unwrap());
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// Requests at the same time.
    Ask(Vec<Ask>),
    NewContent(usize),
    NewCaching(usize, Caching),
    Outage(usize, Option<Outage>),
    /// Of all URIs, or of one.
    Purge(Option<usize>, Means, Strength),
    /// How long the origin takes for its head.
    Delay(usize, Duration),
    Step(Duration),
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.06)
}

fn caching() -> impl Strategy<Value = Caching> {
    let window = || prop::option::weighted(0.35, select(&[0, 1, 2, 10, 60][..]));
    let times = (
        prop::option::weighted(0.75, select(&[0, 1, 2, 5, 60][..])),
        prop::option::weighted(0.1, select(&[0, 1, 3, 20][..])),
        window(),
        window(),
        prop::option::weighted(0.1, select(&[0, 1, 4][..])),
    );
    let limits = (rarely(), rarely(), rarely(), prop::bool::weighted(0.1), prop::bool::weighted(0.15));
    let others = (prop::bool::weighted(0.4), prop::bool::weighted(0.6), rarely());
    (times, limits, others).prop_map(|(times, limits, others)| {
        let (max_age, s_maxage, stale_while_revalidate, stale_if_error, age) = times;
        let (no_store, private, no_cache, must_revalidate, public) = limits;
        let (varies, has_etag, sets_cookie) = others;
        Caching {
            max_age,
            s_maxage,
            stale_while_revalidate,
            stale_if_error,
            no_store,
            private,
            no_cache,
            must_revalidate,
            public,
            varies,
            has_etag,
            sets_cookie,
            age,
        }
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let methods = prop_oneof![
        40 => Just("GET"), 6 => Just("HEAD"), 1 => Just("POST"), 1 => Just("PUT"), 1 => Just("DELETE"),
    ];
    let tags = select(&[Tag::Current, Tag::Previous, Tag::Other, Tag::Any][..]);
    let ranges = select(&["bytes=0-3", "bytes=2-", "bytes=-4", "bytes=1000-"][..]);
    (
        methods,
        0..URIS,
        select(&[None, Some("text/a"), Some("text/b")][..]),
        prop::option::weighted(0.12, tags),
        prop::option::weighted(0.08, ranges),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.12),
    )
        .prop_map(|(method, uri, accept, if_none_match, range, cookie, authorization)| Ask {
            method,
            uri,
            accept,
            if_none_match,
            range,
            cookie,
            authorization,
        })
}

fn step() -> impl Strategy<Value = Duration> {
    prop_oneof![
        // Edges of lifetimes and windows, from both sides.
        select(vec![Duration::ZERO, Duration::from_nanos(1), ms(1), ms(500), ms(999), secs(1), secs(2)]),
        (0..6_000_u64).prop_map(ms),
        (0..100_000_u64).prop_map(ms),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => ask().prop_map(|ask| Event::Ask(vec![ask])),
        2 => prop::collection::vec(ask(), 2..4).prop_map(Event::Ask),
        2 => (0..URIS).prop_map(Event::NewContent),
        2 => (0..URIS, caching()).prop_map(|(uri, caching)| Event::NewCaching(uri, caching)),
        2 => (0..URIS, prop::option::weighted(
            0.4, select(&[Outage::Error, Outage::Bare, Outage::Directed][..])
        )).prop_map(|(uri, outage)| Event::Outage(uri, outage)),
        1 => (0..URIS, select(&[0, 0, 300, 1500][..])).prop_map(|(uri, delay)| Event::Delay(uri, ms(delay))),
        1 => (
            prop::option::weighted(0.7, 0..URIS),
            select(&[Means::Url, Means::Key, Means::Tag, Means::Path][..]),
            select(&[Strength::Hard, Strength::Hard, Strength::Soft, Strength::Unproven][..]),
        ).prop_map(|(uri, means, strength)| Event::Purge(uri, means, strength)),
        6 => step().prop_map(Event::Step),
    ]
}

fn story() -> impl Strategy<Value = (Vec<Caching>, Vec<Event>)> {
    (prop::collection::vec(caching(), URIS), prop::collection::vec(event(), 1..160))
}

// The origin.

#[derive(Clone, Debug, Default)]
struct Entry {
    version: u32,
    caching: Caching,
    outage: Option<Outage>,
    delay: Duration,
}

impl Entry {
    /// Longer in every version: without validators only the length of a response to HEAD tells it
    /// from one for other content (RFC 9111 §4.3.5).
    fn content(&self, uri: usize, accept: Option<&str>, version: u32) -> String {
        let selected = if self.caching.varies { accept.unwrap_or("none") } else { "all" };
        format!("/{uri} for {selected}, version {version}{}", ".".repeat(8 * version as usize))
    }

    fn tag(&self, uri: usize, accept: Option<&str>, tag: Tag) -> String {
        match tag {
            Tag::Current => tag_of(&self.content(uri, accept, self.version)),
            Tag::Previous => tag_of(&self.content(uri, accept, self.version.saturating_sub(1))),
            Tag::Other => "\"other\"".into(),
            Tag::Any => "*".into(),
        }
    }
}

fn tag_of(content: &str) -> String {
    format!("\"{}\"", content.replace([' ', ','], "-"))
}

fn tag_matches(field: &str, etag: Option<&str>) -> bool {
    field == "*" || Some(field) == etag
}

/// The first and last byte that `range` means, if it means any.
fn slice(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first = match (first, last) {
        ("", suffix) => return Some((length - suffix.parse::<usize>().unwrap().min(length), length - 1)),
        (first, _) => first.parse().unwrap(),
    };
    let last = last.parse().map_or(length - 1, |last: usize| last.min(length - 1));
    (first < length).then_some((first, last))
}

/// A response of the origin.
#[derive(Clone, Debug)]
struct Made {
    /// The number of the request that it was fetched for.
    client: usize,
    uri: usize,
    method: String,
    accept: Option<String>,
    cookie: bool,
    authorization: bool,
    caching: Caching,
    /// `None`: an error of the service.
    status: Option<u16>,
    /// The content of a 200, or of the 200 that would have been sent.
    content: String,
    made_at: Instant,
    arrives_at: Instant,
}

#[derive(Debug, Default)]
struct World {
    resources: Vec<Entry>,
    made: Vec<Made>,
}

impl World {
    /// Whether a request selects this response, if it is in the store: unless an earlier one with
    /// `Vary` is there, which comes first if it matches.
    fn selects(&self, number: usize, ask: &Ask) -> bool {
        let made = &self.made[number];
        let is_before = |other: &Made| other.caching.varies && other.is_about(ask);
        made.suits(ask) && (made.caching.varies || !self.made[..number].iter().any(is_before))
    }

    /// Whether a fetch has failed since a response came in: no client waits after that until one succeeds.
    fn has_failed_since(&self, response: &Made, now: Instant) -> bool {
        let since = response.arrives_at..=now;
        let has_failed =
            |made: &Made| made.uri == response.uri && made.is_failure() && since.contains(&made.arrives_at);
        self.made.iter().any(has_failed)
    }

    /// Whether the origin as a whole may be taken for not up: it failed several times in a row, for any URI, or
    /// often. What is stored covers that for the URIs that did not fail, too.
    fn may_not_be_up(&self, now: Instant) -> bool {
        let mut made: Vec<_> = self.made.iter().filter(|made| made.arrives_at <= now).collect();
        made.sort_by_key(|made| made.arrives_at);
        let has_streak = made.windows(5).any(|made| made.iter().all(|made| made.is_failure()));
        has_streak || made.iter().filter(|made| made.is_failure()).count() >= 25
    }

    fn answer(&mut self, head: &Parts) -> ScriptedResponse {
        let field = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
        let uri: usize = head.uri.path()[1..].parse().unwrap();
        let resource = &mut self.resources[uri];
        let is_safe = head.method == "GET" || head.method == "HEAD";
        if !is_safe && resource.outage.is_none() {
            resource.version += 1;
        }
        let content = resource.content(uri, field("accept"), resource.version);
        let caching = match resource.outage {
            Some(Outage::Bare | Outage::Error) => Caching::default(),
            _ => resource.caching.clone(),
        };
        let etag = caching.has_etag.then(|| tag_of(&content));
        let has_it = is_safe && field("if-none-match").is_some_and(|tag| tag_matches(tag, etag.as_deref()));
        let range = field("range").filter(|_| head.method == "GET");
        let part = range.map(|range| slice(range, content.len()));
        let code = match (resource.outage, part) {
            (Some(Outage::Error), _) => None,
            (Some(_), _) => Some(503),
            _ if has_it => Some(304),
            (_, Some(None)) => Some(416),
            (_, Some(Some(_))) => Some(206),
            _ => Some(200),
        };
        self.made.push(Made {
            client: field("x-client").unwrap().parse().unwrap(),
            uri,
            method: head.method.to_string(),
            accept: field("accept").map(Into::into),
            cookie: field("cookie").is_some(),
            authorization: field("authorization").is_some(),
            caching: caching.clone(),
            status: code,
            content: content.clone(),
            made_at: Instant::now(),
            arrives_at: Instant::now() + resource.delay,
        });
        let Some(code) = code else { return error().after(resource.delay) };

        let mut answer = status(code)
            .header("x-made", (self.made.len() - 1).to_string())
            .header("cache-control", caching.cache_control())
            .header("surrogate-key", format!("all of-{uri}"))
            .after(resource.delay);
        let fields = [
            ("etag", etag),
            ("vary", caching.varies.then(|| "Accept".into())),
            ("set-cookie", caching.sets_cookie.then(|| "sid=1".into())),
            ("age", caching.age.map(|age| age.to_string())),
            ("content-length", (head.method == "HEAD").then(|| content.len().to_string())),
            (
                "content-range",
                part.filter(|_| matches!(code, 206 | 416)).map(|part| content_range(part, content.len())),
            ),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                answer = answer.header(name, value);
            }
        }
        match (code, part) {
            _ if head.method == "HEAD" => answer,
            (206, Some(Some((first, last)))) => answer.chunk(content[first..=last].to_owned()),
            (200 | 503, _) => answer.chunk(content),
            _ => answer,
        }
    }
}

fn content_range(part: Option<(usize, usize)>, length: usize) -> String {
    part.map_or_else(|| format!("bytes */{length}"), |(first, last)| format!("bytes {first}-{last}/{length}"))
}

impl Caching {
    /// Never empty: a 304 without the field would leave that of an earlier response in force.
    fn cache_control(&self) -> String {
        let flags = [
            ("no-store", self.no_store),
            ("private", self.private),
            ("no-cache", self.no_cache),
            ("must-revalidate", self.must_revalidate),
            ("public", self.public),
            ("x-unknown", true),
        ];
        let times = [
            ("max-age", self.max_age),
            ("s-maxage", self.s_maxage),
            ("stale-while-revalidate", self.stale_while_revalidate),
            ("stale-if-error", self.stale_if_error),
        ];
        let flags = flags.into_iter().filter(|flag| flag.1).map(|flag| flag.0.to_owned());
        let times = times.into_iter().filter_map(|(name, time)| Some(format!("{name}={}", time?)));
        flags.chain(times).collect::<Vec<_>>().join(", ")
    }

    /// RFC 9111 §4.2.1, §5.2.2.4.
    fn own_lifetime(&self) -> Option<Duration> {
        let given = self.s_maxage.or(self.max_age);
        if self.no_cache { Some(Duration::ZERO) } else { given.map(secs) }
    }

    /// RFC 9111 §4.2.4, §5.2.2.10. A window that the response itself names beside `s-maxage` counts.
    fn forbids_stale(&self, window: Option<u64>) -> bool {
        self.must_revalidate || self.no_cache || self.s_maxage.is_some() && window.is_none()
    }

    /// RFC 9111 §3.5.
    fn is_for_the_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }
}

// The model.

impl Made {
    fn etag(&self) -> Option<String> {
        self.caching.has_etag.then(|| tag_of(&self.content))
    }

    fn is_failure(&self) -> bool {
        self.status.is_none_or(|status| status == 503)
    }

    fn lifetime(&self) -> Duration {
        let default = if self.is_failure() { Duration::ZERO } else { DEFAULT_TTL };
        self.caching.own_lifetime().unwrap_or(default)
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.duration_since(self.made_at)
    }

    /// RFC 9111 §4.2.3. A lifetime by rules does not count the time before this cache.
    fn age(&self, now: Instant) -> Duration {
        let before = self.caching.own_lifetime().and(self.caching.age).unwrap_or(0);
        secs(before) + self.elapsed(now)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.lifetime()
    }

    fn is_within(&self, window: Option<u64>, default: Duration, now: Instant) -> bool {
        let length = window.map_or(default, secs);
        !self.caching.forbids_stale(window) && self.age(now) < self.lifetime() + length
    }

    fn is_usable_while_revalidating(&self, now: Instant) -> bool {
        self.is_within(self.caching.stale_while_revalidate, Duration::ZERO, now)
    }

    fn is_usable_on_error(&self, now: Instant) -> bool {
        self.is_fresh(now) || self.is_within(self.caching.stale_if_error, DEFAULT_STALE_IF_ERROR, now)
    }

    /// Whether other clients may have it (RFC 9111 §3, §3.5).
    fn is_shareable(&self) -> bool {
        matches!(self.status, Some(200 | 304 | 503)) && self.is_for_all()
    }

    /// Whether it is a part for a request for one (RFC 9111 §3.3).
    fn is_shareable_part(&self, ask: &Ask) -> bool {
        self.status == Some(206) && ask.method == "GET" && ask.range.is_some() && self.is_for_all()
    }

    fn is_for_all(&self) -> bool {
        let caching = &self.caching;
        let is_personal = caching.no_store || caching.private || caching.sets_cookie;
        let is_safe = self.method == "GET" || self.method == "HEAD";
        is_safe && !is_personal && self.admits(self.cookie, self.authorization)
    }

    /// Whether a request with these credentials may have it: only if its own response could be stored.
    fn admits(&self, cookie: bool, authorization: bool) -> bool {
        (!authorization || self.caching.is_for_the_authorized())
            && (!cookie || self.caching.own_lifetime().is_some())
    }

    /// Whether it is a response to such a request (RFC 9111 §4.1).
    fn is_about(&self, ask: &Ask) -> bool {
        self.uri == ask.uri && (!self.caching.varies || self.accept.as_deref() == ask.accept)
    }

    /// Whether a client may have it although it was fetched for another, at any time.
    fn suits(&self, ask: &Ask) -> bool {
        let admits = self.admits(ask.cookie, ask.authorization);
        let is_shareable = self.is_shareable() || self.is_shareable_part(ask);
        !ask.is_unsafe() && self.is_about(ask) && is_shareable && admits
    }
}

impl Ask {
    fn is_unsafe(&self) -> bool {
        !matches!(self.method, "GET" | "HEAD")
    }

    fn is_plain_get(&self) -> bool {
        self.method == "GET" && self.if_none_match.is_none() && self.range.is_none()
    }

    fn to_request(&self, client: usize, tag: Option<&str>) -> Request<Body> {
        let client = client.to_string();
        let mut fields = vec![("x-client", client.as_str())];
        fields.extend(self.accept.map(|accept| ("accept", accept)));
        fields.extend(tag.map(|tag| ("if-none-match", tag)));
        fields.extend(self.range.map(|range| ("range", range)));
        fields.extend(self.cookie.then_some(("cookie", "sid=1")));
        fields.extend(self.authorization.then_some(("authorization", "Basic eA==")));
        request(self.method, &format!("/{}", self.uri), &fields)
    }
}

/// How often each case occurred, so that a model that checks nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    fresh: usize,
    while_revalidating: usize,
    on_error: usize,
    collapsed: usize,
    confirmed: usize,
    not_modified: usize,
    partial: usize,
    failures: usize,
    bound_to_hit: usize,
    bound_to_refresh: usize,
    bound_to_cover: usize,
    invalidations: usize,
    purges: usize,
    stale_by_purge: usize,
    unproven: usize,
}

/// A successful unsafe request: later requests get no response made before it.
#[derive(Debug)]
struct Invalidated {
    uri: usize,
    /// The number of the response to it.
    before: usize,
}

#[derive(Debug, Default)]
struct Model {
    world: Arc<Mutex<World>>,
    invalidated: Vec<Invalidated>,
    /// Purged softly: not fresh any more from then on.
    softened: Vec<(Invalidated, Instant)>,
    /// Not used any more before the origin has confirmed it, but for a failed fetch.
    doubted: Vec<Invalidated>,
    /// Responses by number that are certainly stored, per URI.
    kept: [Vec<usize>; URIS],
    clients: usize,
}

/// A request under way, or with a response.
struct CacheRequest<'a> {
    ask: &'a Ask,
    client: usize,
    tag: Option<String>,
    began_at: Instant,
}

impl Model {
    /// Checks that the response is allowed. `kept`: what had to be in the store for it.
    fn check(
        &self,
        asked: &CacheRequest<'_>,
        reply: &Result<Reply, Failure>,
        now: Instant,
        kept: &[usize],
        seen: &mut Seen,
    ) {
        let world = self.world.lock().unwrap();
        let CacheRequest { ask, client, began_at, .. } = asked;
        // Failures of fetches that this request may have waited for.
        let has_failed = world
            .made
            .iter()
            .any(|made| made.uri == ask.uri && made.is_failure() && made.arrives_at >= *began_at);
        let number = match reply {
            Ok(reply) => reply.header("x-made").map(|number| number.parse::<usize>().unwrap()),
            Err(_) => None,
        };
        let is_failure = reply.as_ref().map_or(true, |reply| reply.status == 503);
        seen.failures += usize::from(is_failure);
        for kept in kept.iter().copied().filter(|kept| world.selects(*kept, ask)) {
            let made = &world.made[kept];
            if !made.is_fresh(*began_at) && made.is_usable_while_revalidating(*began_at) {
                seen.bound_to_refresh += 1;
                assert_eq!(number, Some(kept), "not served at once although it may be: {made:?}");
            }
            // A range that is not in the store goes to the origin unchanged.
            if has_failed && made.is_usable_on_error(now) && ask.range.is_none() {
                seen.bound_to_cover += 1;
                assert!(!is_failure, "a failure shows although this may cover it: {made:?}");
            }
        }
        let (Ok(reply), Some(number)) = (reply, number) else {
            assert!(has_failed, "a failure that is none of the origin's: {reply:?}");
            assert!(is_failure && reply.as_ref().map_or(true, |reply| reply.body.is_empty()));
            return;
        };

        let made = &world.made[number];
        let is_own = made.client == *client;
        assert!(!reply.is_cut);
        assert_eq!(made.uri, ask.uri);
        if ask.is_unsafe() {
            assert!(is_own, "an unsafe request is never answered from what is stored");
            return;
        }
        let is_news = made.arrives_at >= *began_at;
        if !is_own {
            // A failure of the origin is a response for all waiting callers.
            let is_shared_failure = made.is_failure() && is_news && made.is_about(ask) && made.is_shareable();
            assert!(made.suits(ask) || is_shared_failure, "not for this client: {made:?}");
            let is_gone = |gone: &Invalidated| gone.uri == ask.uri && number < gone.before;
            let status = reply.header("cache-status").unwrap_or_default();
            let is_not_up = ["origin-down", "origin-recovering"].iter().any(|why| status.contains(why));
            let is_covered =
                has_failed || world.has_failed_since(made, now) || is_not_up && world.may_not_be_up(now);
            assert!(!self.invalidated.iter().any(is_gone), "invalidated: {made:?}");
            let softened = self.softened.iter().filter(|(gone, _)| is_gone(gone)).map(|(_, at)| *at).min();
            if let Some(at) = softened {
                let window = |own: Option<u64>, default| {
                    !made.caching.forbids_stale(own) && now < at + own.map_or(default, secs)
                };
                let stale = window(made.caching.stale_while_revalidate, Duration::ZERO);
                let on_error = window(made.caching.stale_if_error, DEFAULT_STALE_IF_ERROR);
                let is_open = stale || on_error && is_covered;
                assert!(is_news || is_open, "purged softly, and not in a window: {made:?}");
                seen.stale_by_purge += 1;
            }
            if self.doubted.iter().any(is_gone) {
                let is_covered = has_failed || world.has_failed_since(made, now);
                assert!(is_news || is_covered && made.is_usable_on_error(now), "unproven: {made:?}");
                seen.unproven += 1;
            }
            if made.is_fresh(now) {
                seen.fresh += 1;
            } else if is_news {
                // Requests at the same time share one response (RFC 9111 §4).
                seen.collapsed += 1;
            } else if made.is_usable_while_revalidating(now) {
                seen.while_revalidating += 1;
            } else {
                assert!(is_covered && made.is_usable_on_error(now), "too old: {made:?}");
                seen.on_error += 1;
            }
        }
        Self::check_age(made, reply, is_news, now);
        Self::check_form(made, reply, asked, is_own && made.method == "GET", seen);
    }

    /// RFC 9111 §5.1: a stored response has an age. A 412 or 416 is made at this moment.
    fn check_age(made: &Made, reply: &Reply, is_news: bool, now: Instant) {
        let sent_with = made.caching.age.unwrap_or(0);
        let real = sent_with + made.elapsed(now).as_secs();
        match reply.age() {
            Some(age) if is_news => assert!((sent_with..=real).contains(&age), "{age} of {real}"),
            Some(age) => assert_eq!(age, real),
            None => {
                let is_made_now = matches!(reply.status.as_u16(), 412 | 416);
                assert!(is_news || is_made_now, "a stored answer without Age");
            }
        }
    }

    /// RFC 9110 §9.3.2, §13, §14.
    fn check_form(made: &Made, reply: &Reply, asked: &CacheRequest<'_>, is_own: bool, seen: &mut Seen) {
        let (ask, mut etag) = (asked.ask, made.etag());
        if made.method == "HEAD" && etag.is_none() {
            // The freshened response may have had a tag, and keeps it.
            etag = reply.header("etag").map(|_| tag_of(&made.content));
        }
        let has_it = asked.tag.as_deref().is_some_and(|tag| tag_matches(tag, etag.as_deref()));
        let part = ask.range.map(|range| slice(range, made.content.len()));
        assert_eq!(reply.header("etag"), etag.as_deref());
        assert_eq!(reply.headers.contains_key("set-cookie"), made.caching.sets_cookie);
        match reply.status.as_u16() {
            304 => {
                seen.not_modified += 1;
                assert!(has_it, "304 to a client that does not have it: {made:?}");
                assert!(reply.body.is_empty());
            }
            206 | 416 => {
                seen.partial += 1;
                assert_eq!(ask.method, "GET");
                let part = part.expect("a part that was not asked for");
                let expected = content_range(part, made.content.len());
                assert_eq!(reply.header("content-range"), Some(expected.as_str()));
                assert_eq!(reply.status == 206, part.is_some());
                assert_eq!(reply.body, part.map_or("", |(first, last)| &made.content[first..=last]));
            }
            200 | 503 => {
                assert_eq!(reply.status == 503, made.status == Some(503));
                seen.confirmed += usize::from(is_own && made.status == Some(304));
                let content = if ask.method == "HEAD" { "" } else { &made.content };
                assert_eq!(reply.body, content, "not the content of {made:?}");
                let length = reply.header("content-length").map(|length| length.parse().unwrap());
                assert!(length.is_none_or(|length: usize| length == made.content.len()));
            }
            other => panic!("unexpected status {other}"),
        }
    }

    /// What these requests have certainly left in the store; nothing where that is not certain.
    fn learn(&mut self, asked: &[CacheRequest<'_>], first_made: usize) {
        let world = self.world.lock().unwrap();
        for (number, made) in world.made.iter().enumerate().skip(first_made) {
            let ask = asked.iter().find(|asked| asked.client == made.client).unwrap().ask;
            if ask.is_unsafe() {
                if !made.is_failure() {
                    // URIs may share the floor that an invalidation raises.
                    self.kept = Default::default();
                }
                continue;
            }
            let kept = &mut self.kept[made.uri];
            // A part says nothing about the complete response, nor does a response for one client
            // because of its credentials.
            let is_about_others = made.admits(made.cookie, made.authorization);
            let is_personal = made.caching.private || made.caching.no_store || made.caching.sets_cookie;
            if made.is_failure() {
                // A response that may be stored replaces one that is no better.
                let is_storable = made.is_shareable() && made.lifetime() > Duration::ZERO;
                let then = made.arrives_at + ms(1);
                kept.retain(|kept| !is_storable || world.made[*kept].is_usable_on_error(then));
                continue;
            }
            let is_part = matches!(made.status, Some(206 | 416));
            if is_part || !is_about_others && !is_personal {
                continue;
            }
            let is_certain = asked.len() == 1 && ask.is_plain_get() && made.is_shareable();
            if is_certain && made.lifetime() > Duration::ZERO {
                kept.retain(|other| {
                    let other = &world.made[*other];
                    made.caching.varies && other.caching.varies && other.accept != made.accept
                });
                kept.push(number);
            } else {
                kept.clear();
            }
        }
    }

    async fn play(&mut self, events: &[Event], seen: &mut Seen) {
        let world = Arc::clone(&self.world);
        let origin = ScriptedOrigin::new(move |_, head| world.lock().unwrap().answer(head));
        let rules = Rules::new().default_ttl(DEFAULT_TTL).stale_if_error_for(DEFAULT_STALE_IF_ERROR);
        let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20));
        let purge = cache.purge();
        let service = cache
            .rules(rules)
            .retry(RetryPolicy::never())
            .lookup(|lookup| lookup.request_directives(false))
            .build()
            .unwrap()
            .layer(origin);
        for event in events {
            let change = |uri: &usize, change: &dyn Fn(&mut Entry)| {
                change(&mut self.world.lock().unwrap().resources[*uri]);
            };
            match event {
                Event::NewContent(uri) => change(uri, &|resource| resource.version += 1),
                Event::NewCaching(uri, new) => change(uri, &|resource| resource.caching = new.clone()),
                Event::Outage(uri, new) => change(uri, &|resource| resource.outage = *new),
                Event::Delay(uri, new) => change(uri, &|resource| resource.delay = *new),
                Event::Purge(uri, means, strength) => {
                    let purge = match strength {
                        Strength::Soft => purge.soft(),
                        Strength::Unproven => purge.unproven(),
                        _ => purge.clone(),
                    };
                    means.apply(*uri, &purge);
                    self.note_purge(*uri, *strength);
                    seen.purges += 1;
                }
                Event::Step(step) => tokio::time::advance(*step).await,
                Event::Ask(asks) => self.ask(&service, asks, seen).await,
            }
        }
    }

    fn note_purge(&mut self, uri: Option<usize>, strength: Strength) {
        let before = self.world.lock().unwrap().made.len();
        // URIs with the same hash are purged too.
        self.kept = Default::default();
        for uri in (0..URIS).filter(|other| uri.is_none_or(|uri| uri == *other)) {
            let gone = Invalidated { uri, before };
            match strength {
                Strength::Soft => self.softened.push((gone, Instant::now())),
                Strength::Unproven => self.doubted.push(gone),
                _ => self.invalidated.push(gone),
            }
        }
    }

    async fn ask<S, B>(&mut self, service: &S, asks: &[Ask], seen: &mut Seen)
    where
        S: tower::Service<Request<Body>, Response = http::Response<B>, Error = Failure> + Clone,
        B: http_body::Body<Data = bytes::Bytes>,
    {
        let began_at = Instant::now();
        let first_made = self.world.lock().unwrap().made.len();
        let asked: Vec<_> = asks
            .iter()
            .map(|ask| {
                self.clients += 1;
                let resource = &self.world.lock().unwrap().resources[ask.uri];
                let tag = ask.if_none_match.map(|tag| resource.tag(ask.uri, ask.accept, tag));
                CacheRequest { ask, client: self.clients, tag, began_at }
            })
            .collect();
        let replies = join_all(asked.iter().map(async |asked| {
            let request = asked.ask.to_request(asked.client, asked.tag.as_deref());
            (try_send(service, request).await, Instant::now())
        }))
        .await;
        // Refreshes in the background end before anything else happens. Timers count milliseconds.
        settle().await;
        let is_under_way =
            |made: &Made| made.arrives_at > made.made_at && made.arrives_at + ms(1) > Instant::now();
        while self.world.lock().unwrap().made.iter().any(is_under_way) {
            tokio::time::advance(ms(100)).await;
            settle().await;
        }

        for (asked, (reply, at)) in asked.iter().zip(&replies) {
            // Of several requests at a time one may remove the response of the others.
            let kept = if asks.len() == 1 { &self.kept[asked.ask.uri][..] } else { &[] };
            self.check(asked, reply, *at, kept, seen);
        }
        self.check_that_hits_are_hits(&asked, first_made, seen);
        self.learn(&asked, first_made);
        for (asked, (reply, _)) in asked.iter().zip(&replies) {
            if let Ok(reply) = reply
                && asked.ask.is_unsafe()
                && reply.status == 200
            {
                seen.invalidations += 1;
                let before = reply.header("x-made").unwrap().parse().unwrap();
                self.invalidated.push(Invalidated { uri: asked.ask.uri, before });
            }
        }
    }

    /// A request for a response that is certainly stored and fresh does not reach the origin.
    fn check_that_hits_are_hits(&self, asked: &[CacheRequest<'_>], first_made: usize, seen: &mut Seen) {
        let world = self.world.lock().unwrap();
        let is_hit = |asked: &CacheRequest<'_>| {
            let mut kept = self.kept[asked.ask.uri].iter().copied();
            kept.any(|kept| world.selects(kept, asked.ask) && world.made[kept].is_fresh(asked.began_at))
        };
        if asked.iter().all(is_hit) {
            seen.bound_to_hit += 1;
            assert_eq!(world.made[first_made..].iter().map(|made| made.client).next(), None);
        }
    }
}

fn play(caching: &[Caching], events: &[Event], seen: &mut Seen) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let mut model = Model::default();
    model.world.lock().unwrap().resources =
        caching.iter().map(|caching| Entry { caching: caching.clone(), ..Entry::default() }).collect();
    runtime.block_on(model.play(events, seen));
}

#[test]
fn every_response_is_allowed_by_the_model() {
    let config =
        ProptestConfig { rng_seed: RngSeed::Fixed(9111), failure_persistence: None, ..Default::default() };
    let is_whole_run = config.cases >= 256;
    let seen = RefCell::new(Seen::default());
    let result = TestRunner::new(config).run(&story(), |(caching, events)| {
        play(&caching, &events, &mut seen.borrow_mut());
        Ok(())
    });
    if let Err(TestError::Fail(reason, (caching, events))) = result {
        let caching = caching.iter().map(|caching| format!("\n{caching:?}")).collect::<String>();
        let events = events.iter().map(|event| format!("\n{event:?}")).collect::<String>();
        panic!("{reason}\nThe shortest story that shows it:{caching}{events}");
    }
    let seen = seen.into_inner();
    if is_whole_run {
        let counts = [
            seen.fresh,
            seen.while_revalidating,
            seen.on_error,
            seen.collapsed,
            seen.confirmed,
            seen.not_modified,
            seen.partial,
            seen.failures,
            seen.bound_to_hit,
            seen.bound_to_refresh,
            seen.bound_to_cover,
            seen.invalidations,
            seen.purges,
            seen.stale_by_purge,
            seen.unproven,
        ];
        assert!(counts.iter().all(|count| *count >= 20), "the stories miss something: {seen:?}");
    }
}
