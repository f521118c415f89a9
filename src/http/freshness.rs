//! How long a response is fresh and how old it is (RFC 9111 §4.2).

use std::time::Duration;

use http::{HeaderMap, header};
use tokio::time::Instant;

use super::{
    cache_control::{CacheControl, MAX_DELTA},
    credentials::Credentials,
    date::parse,
    response_fields::ResponseFields,
};

/// For how long a response may be used, counted from when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Freshness {
    /// Which credentials a request may have to get the response. First in memory: every hit reads it.
    pub(crate) audience: Credentials,
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

impl Freshness {
    /// Of a response that must not be used again.
    pub(crate) const NONE: Self = Self {
        fresh_for: Duration::ZERO,
        stale_while_revalidate_for: Duration::ZERO,
        stale_if_error_for: Duration::ZERO,
        revalidate_for: Duration::ZERO,
        is_ours: false,
        forbids_stale: true,
        audience: Credentials { authorization: false, cookie: false, token: false },
    };
}

/// The explicit lifetime of a response in a shared cache (§4.2.1): `s-maxage`, else `max-age`, else `Expires`
/// minus `Date`. `None` if it has none.
///
/// An unreadable one means stale (§5.3). `Expires` does not count beside a targeted field (RFC 9213 §2.2).
pub(crate) fn explicit_lifetime(
    cache_control: &CacheControl,
    headers: &HeaderMap,
    fields: &ResponseFields,
) -> Option<Duration> {
    if let Some(lifetime) = cache_control.lifetime() {
        return Some(lifetime);
    }
    if cache_control.is_targeted() || !fields.has_expires {
        return None;
    }
    let expires = parse(headers.get(header::EXPIRES)?, fields.now);
    let date = fields.date.unwrap_or(fields.now);
    Some(expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default().min(MAX_DELTA))
}

/// For how long the representation had not changed when it was sent (§4.2.2), if that is known.
pub(crate) fn unchanged_for(headers: &HeaderMap, fields: &ResponseFields) -> Option<Duration> {
    let modified = parse(headers.get(header::LAST_MODIFIED)?, fields.now)?;
    let date = fields.date.unwrap_or(fields.now);
    date.duration_since(modified).ok()
}

/// How old a response was when it came in: `corrected_initial_age` of §4.2.3.
///
/// `delay` is the time from the request to the response. All of it counts, since the response may have been
/// made as soon as the request was sent.
pub(crate) fn initial_age(fields: &ResponseFields, delay: Duration) -> Duration {
    let apparent = fields.date.and_then(|date| fields.now.duration_since(date).ok()).unwrap_or_default();
    // `Date` has whole seconds, so the difference does too.
    let apparent = Duration::from_secs(apparent.as_secs());
    let corrected = fields.age.saturating_add(delay);
    apparent.max(corrected).min(MAX_DELTA)
}

/// The point in time `duration` after `start`, at most [`MAX_DELTA`] after it.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    let duration = duration.min(MAX_DELTA);
    start.checked_add(duration).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use std::time::SystemTime;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";

    fn noon() -> SystemTime {
        httpdate::parse_http_date(NOON).unwrap()
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn lifetime(fields: &[(&str, &str)]) -> Option<u64> {
        let headers = headers(fields);
        let fields = ResponseFields::of(&headers, noon());
        explicit_lifetime(&fields.cache_control, &headers, &fields).map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn s_maxage_goes_before_max_age_goes_before_expires() {
        let expires = ("expires", "Sun, 06 Nov 1994 12:00:09 GMT");
        assert_eq!(lifetime(&[("cache-control", "max-age=5, s-maxage=3"), expires]), Some(3));
        assert_eq!(lifetime(&[("cache-control", "max-age=5"), expires]), Some(5));
        assert_eq!(lifetime(&[expires]), Some(9));
        assert_eq!(lifetime(&[("date", "Sun, 06 Nov 1994 12:00:04 GMT"), expires]), Some(5));
        assert_eq!(lifetime(&[]), None);
    }

    #[test]
    fn a_targeted_field_leaves_nothing_to_expires() {
        let expires = ("expires", "Sun, 06 Nov 1994 12:00:09 GMT");
        let headers = headers(&[("cdn-cache-control", "public"), ("cache-control", "max-age=5"), expires]);
        let targets = [HeaderName::from_static("cdn-cache-control")];
        let targeted = CacheControl::targeted(&headers, &targets).unwrap();
        assert_eq!(explicit_lifetime(&targeted, &headers, &ResponseFields::of(&headers, noon())), None);
    }

    #[test]
    fn the_time_without_change_ends_when_the_response_was_sent() {
        let guess = |fields: &[(&str, &str)]| {
            let headers = headers(fields);
            unchanged_for(&headers, &ResponseFields::of(&headers, noon()))
                .map(|unchanged| unchanged.as_secs())
        };
        let modified = ("last-modified", "Sun, 06 Nov 1994 11:00:00 GMT");
        assert_eq!(guess(&[modified]), Some(3600));
        assert_eq!(guess(&[modified, ("date", "Sun, 06 Nov 1994 11:10:00 GMT")]), Some(600));
        assert_eq!(guess(&[modified, ("date", "Sun, 06 Nov 1994 10:59:59 GMT")]), None);
        assert_eq!(guess(&[]), None);
        assert_eq!(guess(&[("last-modified", "yesterday")]), None);
    }

    #[test]
    fn an_unreadable_or_past_expires_is_stale() {
        for value in ["0", "-1", "", "tomorrow", "Sun, 06 Nov 1994 11:59:59 GMT"] {
            assert_eq!(lifetime(&[("expires", value)]), Some(0), "{value}");
        }
    }

    #[test]
    fn the_age_is_the_larger_of_what_date_and_age_say() {
        let age = |fields: &[(&str, &str)], delay| {
            initial_age(&ResponseFields::of(&headers(fields), noon()), Duration::from_millis(delay))
                .as_millis()
        };
        assert_eq!(age(&[], 60), 60);
        assert_eq!(age(&[("age", "2")], 60), 2_060);
        assert_eq!(age(&[("age", "2, 9")], 0), 2_000);
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 11:59:00 GMT"), ("age", "2")], 60), 60_000);
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 12:01:00 GMT")], 60), 60, "a clock that is ahead");
        for junk in ["-1", "1.5", "x", ""] {
            assert_eq!(age(&[("age", junk)], 5), 5, "{junk}");
        }
    }

    proptest! {
        #[test]
        fn age_grows_with_all_that_it_is_made_of(
            ages in any::<[u64; 2]>(),
            delays in any::<[u64; 2]>(),
            since in proptest::array::uniform2(0_u64..1 << 29),
        ) {
            let of = |pick: fn([u64; 2]) -> u64| {
                let date = httpdate::fmt_http_date(noon() - Duration::from_secs(pick(since)));
                let headers = headers(&[("age", &pick(ages).to_string()), ("date", &date)]);
                initial_age(&ResponseFields::of(&headers, noon()), Duration::from_nanos(pick(delays)))
            };
            prop_assert!(of(|[a, b]| a.min(b)) <= of(|[a, b]| a.max(b)));
        }

        #[test]
        fn the_lifetime_grows_with_what_the_origin_says(
            seconds in any::<[u64; 2]>(),
            expires in proptest::array::uniform2(0_u64..1 << 32),
            name in proptest::sample::select(&["max-age", "s-maxage"][..]),
        ) {
            let said = |pick: fn([u64; 2]) -> u64| lifetime(&[
                ("cache-control", &format!("{name}={}", pick(seconds))),
            ]);
            prop_assert!(said(|[a, b]| a.min(b)) <= said(|[a, b]| a.max(b)));
            let until = |pick: fn([u64; 2]) -> u64| {
                let end = noon() - Duration::from_secs(1 << 29) + Duration::from_secs(pick(expires) / 4);
                lifetime(&[("date", NOON), ("expires", &httpdate::fmt_http_date(end))])
            };
            prop_assert!(until(|[a, b]| a.min(b)) <= until(|[a, b]| a.max(b)));
        }

        #[test]
        fn dates_never_panic(date in "[ -~]{0,40}", expires in "[ -~]{0,40}", age in "[ -~]{0,30}") {
            let headers = headers(&[("date", &date), ("expires", &expires), ("age", &age)]);
            let fields = ResponseFields::of(&headers, noon());
            let _ = explicit_lifetime(&fields.cache_control, &headers, &fields);
            let _ = initial_age(&fields, Duration::MAX);
        }
    }

    #[test]
    fn far_times_saturate() {
        let now = Instant::now();
        assert!(after(now, Duration::MAX) > now);
        assert_eq!(after(now, Duration::ZERO), now);
    }
}
