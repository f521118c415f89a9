//! What is stored, and for how long it is fresh, compared with `http-cache-semantics`.
//!
//! Random pairs of requests and responses go through `StoreLayer` on the one side and through
//! `CachePolicy` for a shared cache on the other. Where the two disagree, a rule of [`RULES`] has
//! to say how the case is to be read by the RFC, and by that reading they have to agree.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};
use proptest::{
    option::weighted,
    prelude::*,
    sample::select,
    test_runner::{RngSeed, TestError, TestRunner},
};
use tower::Layer;
use tower_readthrough::{MemoryStore, Rules, StoreLayer};

use crate::support::{ScriptedOrigin, request, secs, send, status};

const CASES: u32 = 4000;

/// All lifetimes and ages are multiples of ten seconds, or nearly, and the probes lie in between, so
/// that the wall clock, which is not paused, makes no difference.
const PROBES: [Duration; 7] = [secs(5), secs(15), secs(25), secs(35), secs(45), secs(55), secs(65)];

/// Statuses that `http-cache-semantics` stores if told to.
const KNOWN_THERE: [u16; 14] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];

// The cases.

#[derive(Clone, Debug)]
struct Client {
    method: &'static str,
    accept: Option<&'static str>,
    authorization: bool,
    cookie: bool,
    cache_control: Option<&'static str>,
}

/// A time in seconds from now, in one of several formats.
#[derive(Clone, Copy, Debug)]
enum Date {
    Imf(i64),
    Asctime(i64),
    /// RFC 5322 has it, HTTP does not.
    WithOffset(i64),
    Junk,
}

/// A response to one request, and a second request that it may be served to.
#[derive(Clone, Debug)]
struct Case {
    first: Client,
    second: Client,
    status: u16,
    directives: Vec<&'static str>,
    targeted: Option<Vec<&'static str>>,
    expires: Option<Date>,
    date: Option<i64>,
    age: Option<&'static str>,
    is_dated: bool,
    vary: Option<&'static str>,
    sets_cookie: bool,
    pragma: bool,
}

fn client() -> impl Strategy<Value = Client> {
    let accept = select(&[None, None, None, Some("a/a, b/b"), Some("a/a,b/b"), Some("c/c")][..]);
    let cache_control = weighted(0.06, select(&["no-store", "no-cache", "max-age=0", "min-fresh=30"][..]));
    (prop::bool::weighted(0.06), accept, prop::bool::weighted(0.12), prop::bool::weighted(0.1), cache_control)
        .prop_map(|(is_head, accept, authorization, cookie, cache_control)| Client {
            method: if is_head { "HEAD" } else { "GET" },
            accept,
            authorization,
            cookie,
            cache_control,
        })
}

fn directives() -> impl Strategy<Value = Vec<&'static str>> {
    const LIFETIMES: &[&str] = &[
        "max-age=20",
        "max-age=40",
        "max-age=60",
        "max-age=0",
        "s-maxage=20",
        "s-maxage=40",
        "Max-Age=40",
        "max-age=\"40\"",
        "max-age = 40",
        "max-age=40s",
        "max-age",
        "s-maxage=99999999999999999999",
    ];
    const OTHERS: &[&str] = &[
        "no-store",
        "No-Store",
        "private",
        "private=\"x-a\"",
        "private=\"x-a, Set-Cookie\"",
        "no-cache",
        "no-cache=\"x-a\"",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "must-understand",
        "immutable",
        "x-unknown=1",
    ];
    let lifetimes = prop::collection::vec(select(LIFETIMES), 0..3);
    let others = prop::collection::vec(select(OTHERS), 0..3);
    (lifetimes, others).prop_flat_map(|(lifetimes, others)| Just([lifetimes, others].concat()).prop_shuffle())
}

fn case() -> impl Strategy<Value = Case> {
    let statuses = prop_oneof![
        3 => Just(200),
        2 => select(&[
            203, 204, 206, 299, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 416, 418, 500,
            501, 503,
        ][..]),
    ];
    let seconds = || select(&[-10, 0, 20, 50][..]);
    let expires = prop_oneof![
        6 => seconds().prop_map(Date::Imf),
        1 => seconds().prop_map(Date::Asctime),
        1 => seconds().prop_map(Date::WithOffset),
        1 => Just(Date::Junk),
    ];
    let targeted = select(&["max-age=40", "max-age=0", "no-store", "private", "no-cache", "public"][..])
        .prop_map(|directive| vec![directive]);
    let times = (
        weighted(0.3, expires),
        weighted(0.3, select(&[-20, 0][..])),
        weighted(0.2, select(&["0", "10", "30", "10, 30", "x"][..])),
        prop::bool::weighted(0.4),
    );
    let others = (
        weighted(0.2, select(&["accept", "Accept, x-a", "*", "accept, *"][..])),
        prop::bool::weighted(0.08),
        prop::bool::weighted(0.08),
    );
    (client(), client(), statuses, directives(), weighted(0.06, targeted), times, others).prop_map(
        |(first, second, status, directives, targeted, times, others)| Case {
            // A response to HEAD is not stored here at all.
            first: Client { method: "GET", ..first },
            second,
            status,
            directives,
            targeted,
            expires: times.0,
            date: times.1,
            age: times.2,
            is_dated: times.3,
            vary: others.0,
            sets_cookie: others.1,
            pragma: others.2,
        },
    )
}

impl Client {
    fn fields(&self) -> Vec<(&'static str, &'static str)> {
        let accept = self.accept.map(|accept| ("accept", accept));
        let authorization = self.authorization.then_some(("authorization", "Basic eA=="));
        let cookie = self.cookie.then_some(("cookie", "sid=1"));
        let cache_control = self.cache_control.map(|directives| ("cache-control", directives));
        [accept, authorization, cookie, cache_control].into_iter().flatten().collect()
    }
}

impl Date {
    fn to_field(self, now: SystemTime) -> String {
        let imf = |from_now| httpdate::fmt_http_date(moved(now, from_now));
        match self {
            Self::Imf(from_now) => imf(from_now),
            Self::Asctime(from_now) => {
                let parts = imf(from_now);
                let parts: Vec<_> = parts.split(' ').collect();
                let day: u8 = parts[1].parse().unwrap();
                format!("{} {} {day:>2} {} {}", &parts[0][..3], parts[2], parts[4], parts[3])
            }
            Self::WithOffset(from_now) => imf(from_now).replace("GMT", "+0000"),
            Self::Junk => "0".into(),
        }
    }
}

fn moved(now: SystemTime, by: i64) -> SystemTime {
    let distance = secs(by.unsigned_abs());
    if by < 0 { now - distance } else { now + distance }
}

impl Case {
    fn fields(&self, now: SystemTime) -> Vec<(&'static str, String)> {
        let imf = |from_now| Date::Imf(from_now).to_field(now);
        let joined = |directives: &Vec<&str>| (!directives.is_empty()).then(|| directives.join(", "));
        let fields = [
            ("cache-control", joined(&self.directives)),
            ("cdn-cache-control", self.targeted.as_ref().and_then(joined)),
            ("expires", self.expires.map(|expires| expires.to_field(now))),
            ("date", self.date.map(imf)),
            ("age", self.age.map(Into::into)),
            ("last-modified", self.is_dated.then(|| imf(-300))),
            ("vary", self.vary.map(Into::into)),
            ("set-cookie", self.sets_cookie.then(|| "sid=1".into())),
            ("pragma", self.pragma.then(|| "no-cache".into())),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn has(&self, directive: &str) -> bool {
        self.directives.contains(&directive)
    }

    /// The case without some of the directives, if there are any of them.
    fn without(&self, goes: impl Fn(&str) -> bool) -> Option<Self> {
        let kept: Vec<_> = self.directives.iter().copied().filter(|directive| !goes(directive)).collect();
        (kept.len() < self.directives.len()).then(|| Self { directives: kept, ..self.clone() })
    }

    /// The case with the directives written in another way, if that is another one.
    fn rewritten(&self, rewrite: impl Fn(&'static str) -> &'static str) -> Option<Self> {
        let directives: Vec<_> = self.directives.iter().map(|directive| rewrite(directive)).collect();
        (directives != self.directives).then(|| Self { directives, ..self.clone() })
    }
}

fn name_of(directive: &str) -> &str {
    directive.split('=').next().unwrap()
}

// The two sides. Each returns at how many probes in a row the response is served to the second request.

async fn ours(case: &Case, now: SystemTime) -> usize {
    let (fields, code) = (case.fields(now), case.status);
    let origin = ScriptedOrigin::always(move || {
        fields.iter().fold(status(code), |answer, (name, value)| answer.header(name, value))
    });
    // The other implementation does so by default.
    let rules = Rules::new().heuristic(0.1, secs(86_400));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = StoreLayer::new(store).rules(rules).layer(origin.clone());
    send(&service, request(case.first.method, "/", &case.first.fields())).await;
    let mut passed = Duration::ZERO;
    for (hits, probe) in PROBES.into_iter().enumerate() {
        tokio::time::advance(probe - passed).await;
        passed = probe;
        let reply = send(&service, request(case.second.method, "/", &case.second.fields())).await;
        assert_eq!(reply.is_hit(), origin.calls() == 1);
        if !reply.is_hit() {
            return hits;
        }
    }
    PROBES.len()
}

fn theirs(case: &Case, now: SystemTime) -> usize {
    let request = |client: &Client| {
        let request = Request::builder().method(client.method).uri("http://example.com/");
        let request =
            client.fields().into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.body(()).unwrap()
    };
    let response = Response::builder().status(case.status);
    let response =
        case.fields(now).iter().fold(response, |response, (name, value)| response.header(*name, value));
    let options = CacheOptions { shared: true, ..CacheOptions::default() };
    let policy = CachePolicy::new_options(&request(&case.first), &response.body(()).unwrap(), now, options);
    let second = request(&case.second);
    let is_fresh = |probe: &Duration| {
        policy.is_storable()
            && matches!(policy.before_request(&second, now + *probe), BeforeRequest::Fresh(_))
    };
    PROBES.iter().take_while(|probe| is_fresh(probe)).count()
}

// The rules that decide between the two.

/// How a case is to be read.
enum Reading {
    /// As this case, which is not in dispute.
    As(Box<Case>),
    /// The response is not served to the second request.
    Never,
}

struct Rule {
    name: &'static str,
    /// The sentence that decides.
    because: &'static str,
    reading: fn(&Case) -> Option<Reading>,
}

fn read_as(case: Option<Case>) -> Option<Reading> {
    case.map(|case| Reading::As(Box::new(case)))
}

fn never(applies: bool) -> Option<Reading> {
    applies.then_some(Reading::Never)
}

/// In this order: each rule assumes that those before it have been applied.
const RULES: &[Rule] = &[
    Rule {
        name: "targeted fields go first",
        because: "RFC 9213 §2.2: the cache MUST select the first field with a valid, non-empty value and \
                  use its value to determine the caching policy for the response, and it MUST ignore the \
                  Cache-Control and Expires header fields in that response",
        reading: |case| {
            let directives = case.targeted.clone()?;
            read_as(Some(Case { directives, targeted: None, expires: None, ..case.clone() }))
        },
    },
    Rule {
        name: "names of directives in any case",
        because: "RFC 9111 §5.2: Cache directives are identified by a token, to be compared \
                  case-insensitively",
        reading: |case| {
            read_as(case.rewritten(|directive| match directive {
                "Max-Age=40" => "max-age=40",
                "No-Store" => "no-store",
                other => other,
            }))
        },
    },
    Rule {
        name: "a lifetime that cannot be read is none",
        because: "RFC 9111 §4.2.1: Caches are encouraged to consider responses that have invalid freshness \
                  information to be stale",
        reading: |case| {
            read_as(case.rewritten(|directive| match directive {
                "max-age" | "max-age=40s" | "max-age = 40" => "max-age=0",
                other => other,
            }))
        },
    },
    Rule {
        name: "too long a lifetime is the longest",
        because: "RFC 9111 §1.2.2: If a cache receives a delta-seconds value greater than the greatest \
                  integer it can represent, the cache MUST consider the value to be 2147483648",
        reading: |case| {
            read_as(case.rewritten(|directive| match directive {
                "s-maxage=99999999999999999999" => "s-maxage=2147483648",
                other => other,
            }))
        },
    },
    Rule {
        name: "qualified private and no-cache are about fields",
        because: "RFC 9111 §5.2.2.7 (and §5.2.2.4): only the listed header fields are limited to a single \
                  user: a shared cache MUST NOT store the listed header fields but MAY store the remainder \
                  of the response message without those header fields",
        reading: |case| {
            let is_qualified =
                |directive: &str| directive.starts_with("private=") || directive.starts_with("no-cache=");
            let withheld = case.has("private=\"x-a, Set-Cookie\"");
            let sets_cookie = case.sets_cookie && !withheld;
            read_as(case.without(is_qualified).map(|case| Case { sets_cookie, ..case }))
        },
    },
    Rule {
        name: "of several values the first",
        because: "RFC 9111 §4.2.1: When there is more than one value present for a given directive, either \
                  the first occurrence should be used or the response should be considered stale",
        reading: |case| {
            let mut first: Vec<&str> = Vec::new();
            for directive in &case.directives {
                if !first.iter().any(|other| name_of(other) == name_of(directive)) {
                    first.push(directive);
                }
            }
            let is_shorter = first.len() < case.directives.len();
            read_as(is_shorter.then(|| Case { directives: first, ..case.clone() }))
        },
    },
    Rule {
        name: "must-understand makes no-store count for unknown statuses alone",
        because: "RFC 9111 §5.2.2.3: The must-understand response directive limits caching of the response \
                  to a cache that understands and conforms to the requirements for that response's status \
                  code",
        reading: |case| match case.has("must-understand") && matches!(case.status, 299 | 418) {
            true => Some(Reading::Never),
            false => case.has("must-understand").then(|| {
                let goes = |directive: &str| matches!(directive, "must-understand" | "no-store");
                Reading::As(Box::new(case.without(goes).unwrap()))
            }),
        },
    },
    Rule {
        name: "proxy-revalidate is about stale answers",
        because: "RFC 9111 §5.2.2.8: once the response has become stale, a shared cache MUST NOT reuse that \
                  response to satisfy another request until it has been successfully validated",
        reading: |case| read_as(case.without(|directive| directive == "proxy-revalidate")),
    },
    Rule {
        name: "immutable gives no lifetime",
        because: "RFC 8246 §2: the origin server will not update the representation of that resource during \
                  the freshness lifetime of the response",
        reading: |case| read_as(case.without(|directive| directive == "immutable")),
    },
    Rule {
        name: "Pragma means nothing in responses",
        because: "RFC 9111 §5.4: the meaning of \"Pragma: no-cache\" in responses was never specified",
        reading: |case| read_as(case.pragma.then(|| Case { pragma: false, ..case.clone() })),
    },
    Rule {
        name: "HTTP-date has three formats",
        because: "RFC 9110 §5.6.7: A recipient that parses a timestamp value in an HTTP field MUST accept \
                  all three HTTP-date formats",
        reading: |case| match case.expires? {
            Date::Asctime(time) => read_as(Some(Case { expires: Some(Date::Imf(time)), ..case.clone() })),
            _ => None,
        },
    },
    Rule {
        name: "HTTP-date has no other format",
        because: "RFC 9111 §5.3: A cache recipient MUST interpret invalid date formats, especially the value \
                  \"0\", as representing a time in the past",
        reading: |case| match case.expires? {
            Date::WithOffset(_) => read_as(Some(Case { expires: Some(Date::Junk), ..case.clone() })),
            _ => None,
        },
    },
    Rule {
        name: "of several ages the first",
        because: "RFC 9111 §5.1: a cache encountering a message with a list-based Age field value SHOULD use \
                  the first member of the field value",
        reading: |case| {
            read_as((case.age == Some("10, 30")).then(|| Case { age: Some("10"), ..case.clone() }))
        },
    },
    Rule {
        name: "an old Date makes an answer old",
        because: "RFC 9111 §4.2.3: corrected_initial_age = max(apparent_age, corrected_age_value)",
        reading: |case| {
            let is_older = case.date == Some(-20) && case.age != Some("30");
            read_as(is_older.then(|| Case { age: Some("20"), ..case.clone() }))
        },
    },
    Rule {
        name: "every final status can be stored",
        because: "RFC 9111 §3: the response status code is final; if the response status code is 206 or \
                  304, or the must-understand cache directive is present: the cache understands the \
                  response status code",
        reading: |case| {
            let is_whole = !matches!(case.status, 206 | 304 | 416);
            let is_unknown_there = !KNOWN_THERE.contains(&case.status);
            // Known there, and not cacheable by default either.
            read_as((is_whole && is_unknown_there).then(|| Case { status: 302, ..case.clone() }))
        },
    },
    Rule {
        name: "directives of requests are advice",
        because: "RFC 9111 §5.2.1: They are advisory; caches MAY implement them, but are not required to",
        reading: |case| {
            let advises = case.first.cache_control.or(case.second.cache_control).is_some();
            read_as(advises.then(|| {
                let mut case = case.clone();
                (case.first.cache_control, case.second.cache_control) = (None, None);
                case
            }))
        },
    },
    Rule {
        name: "GET answers HEAD",
        because: "RFC 9110 §9.3.1: The response to a GET request is cacheable; a cache MAY use it to satisfy \
                  subsequent GET and HEAD requests",
        reading: |case| {
            let second = Client { method: "GET", ..case.second.clone() };
            read_as((case.second.method == "HEAD").then(|| Case { second, ..case.clone() }))
        },
    },
    Rule {
        name: "white space does not select",
        because: "RFC 9111 §4.1: adding or removing whitespace, where allowed in the header field's syntax",
        reading: |case| {
            let is_spaced = |client: &Client| client.accept == Some("a/a, b/b");
            (is_spaced(&case.first) || is_spaced(&case.second)).then(|| {
                let mut case = case.clone();
                for client in [&mut case.first, &mut case.second] {
                    client.accept =
                        client.accept.map(|accept| if is_spaced(client) { "a/a,b/b" } else { accept });
                }
                Reading::As(Box::new(case))
            })
        },
    },
    Rule {
        name: "a status about one message is not stored",
        because: "RFC 9111 §2: caching is an entirely OPTIONAL feature of HTTP; the request that such a \
                  response answers may be malformed in a way that the cache key does not show",
        reading: |case| never(matches!(case.status, 400 | 405 | 414 | 501)),
    },
    Rule {
        name: "Set-Cookie is for one client",
        because: "RFC 9111 §2: caching is an entirely OPTIONAL feature of HTTP; reuse is the default \
                  behavior when no requirement or local configuration prevents it",
        reading: |case| never(case.sets_cookie),
    },
    Rule {
        name: "a request whose own response may not be stored does not get another's",
        because: "RFC 9111 §2, as for Set-Cookie; §3.5 names what opens an answer to Authorization",
        reading: |case| {
            let is_for_all =
                |directive: &&str| matches!(name_of(directive), "public" | "must-revalidate" | "s-maxage");
            never(case.second.authorization && !case.directives.iter().any(is_for_all))
        },
    },
    Rule {
        name: "a guessed lifetime is not for requests with Cookie",
        because: "RFC 9111 §4.2.2: a cache MAY assign a heuristic expiration time",
        reading: |case| {
            let is_lifetime = |directive: &&str| matches!(name_of(directive), "max-age" | "s-maxage");
            let is_guessed = case.expires.is_none() && !case.directives.iter().any(is_lifetime);
            never(is_guessed && (case.first.cookie || case.second.cookie))
        },
    },
];

/// The rules by which the case must be read for the other side to give our result.
fn classify(case: &Case, ours: usize, now: SystemTime) -> Option<Vec<&'static str>> {
    let agrees = |reading: &Reading| match reading {
        Reading::As(case) => theirs(case, now) == ours,
        Reading::Never => ours == 0,
    };
    let alone = RULES.iter().find(|rule| (rule.reading)(case).is_some_and(|reading| agrees(&reading)));
    if let Some(rule) = alone {
        return Some(vec![rule.name]);
    }
    let (mut read, mut by) = (case.clone(), Vec::new());
    for rule in RULES {
        let Some(reading) = (rule.reading)(&read) else { continue };
        by.push(rule.name);
        if agrees(&reading) {
            return Some(by);
        }
        match reading {
            Reading::As(case) => read = *case,
            Reading::Never => return None,
        }
    }
    None
}

#[test]
fn every_disagreement_with_another_implementation_has_a_rule_that_decides_it() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let config = ProptestConfig {
        cases: CASES,
        rng_seed: RngSeed::Fixed(9111),
        failure_persistence: None,
        ..Default::default()
    };
    // How many cases agreed and were fresh, how many did not, and which rules decided.
    let seen = RefCell::new((0, 0, vec![0; RULES.len()]));
    let result = TestRunner::new(config).run(&case(), |case| {
        let now = SystemTime::now();
        let (ours, theirs) = (runtime.block_on(ours(&case, now)), theirs(&case, now));
        let mut seen = seen.borrow_mut();
        if ours == theirs {
            *if ours > 0 { &mut seen.0 } else { &mut seen.1 } += 1;
            return Ok(());
        }
        let Some(by) = classify(&case, ours, now) else {
            return Err(TestCaseError::fail(format!("fresh at {ours} probes here and at {theirs} there")));
        };
        for (rule, count) in RULES.iter().zip(&mut seen.2) {
            *count += usize::from(by == [rule.name]);
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, case)) = result {
        panic!("{reason}, and no rule decides: {case:?}\n{:?}", case.fields(SystemTime::now()));
    }
    let (fresh, not_fresh, decided) = seen.into_inner();
    assert!(fresh > 200 && not_fresh > 200, "hardly any agreement: {fresh}, {not_fresh}");
    for (rule, count) in RULES.iter().zip(decided) {
        assert!(count > 0, "never decides anything alone: {}, although {}", rule.name, rule.because);
    }
}
