//! How long a stored response is fresh (RFC 9111 §4.2).

use super::*;

#[tokio::test(start_paused = true)]
async fn the_lifetime_that_the_origin_gives_is_kept_to_the_nanosecond() {
    assert_fresh_until(Rules::new(), secs(2), || ok("x").max_age(2)).await;
    assert_fresh_until(Rules::new(), secs(3), || ok("x").header("cache-control", "max-age=9, s-maxage=3"))
        .await;
    let date = httpdate::fmt_http_date(SystemTime::now());
    let expires = httpdate::fmt_http_date(SystemTime::now() + secs(3600));
    let origin = ScriptedOrigin::always(move || ok("x").header("date", &date).header("expires", &expires));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    // The wall clock is not paused, so `Date` may make the response a few seconds old.
    tokio::time::advance(secs(3580)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(secs(20)).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_default_lifetime_is_for_responses_without_freshness() {
    assert_fresh_until(ttl(), secs(10), || ok("x")).await;
    assert_fresh_until(ttl(), secs(2), || ok("x").max_age(2)).await;
    assert_eq!(calls_for_two(ttl(), &[], || ok("x").header("cache-control", "no-cache")).await, 2);
    assert_eq!(calls_for_two(ttl(), &[], || ok("x").header("expires", "0")).await, 2);
    assert_eq!(calls_for_two(ttl(), &[], || ok("x").max_age(0)).await, 2);
    assert_eq!(calls_for_two(Rules::new(), &[], || ok("x")).await, 2, "without one the origin decides");
}

#[tokio::test(start_paused = true)]
async fn a_heuristic_lifetime_counts_from_the_generation_of_the_response() {
    let modified = httpdate::fmt_http_date(SystemTime::now() - secs(1000));
    let origin =
        ScriptedOrigin::always(move || ok("x").header("last-modified", &modified).header("age", "60"));
    let service = cached(Rules::new().heuristic(0.1, secs(86_400)), &origin);
    get(&service, "/").await;
    // A tenth of the time without change, less the age that it came with. The wall clock
    // is not paused.
    tokio::time::advance(secs(38)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(secs(5)).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_fixed_lifetime_overrides_the_lifetime_of_the_response() {
    let rules = || Rules::new().fixed_ttl(secs(4));
    assert_fresh_until(rules(), secs(4), || ok("x").max_age(100)).await;
    assert_fresh_until(rules(), secs(4), || ok("x").max_age(0)).await;
    assert_fresh_until(rules(), secs(4), || ok("x").header("cache-control", "no-cache")).await;
    assert_fresh_until(rules(), secs(4), || ok("x")).await;
}

#[tokio::test(start_paused = true)]
async fn lifetimes_below_a_millisecond_count() {
    for lifetime in [Duration::from_micros(300), Duration::from_nanos(1), Duration::from_micros(999)] {
        assert_fresh_until(Rules::new().default_ttl(lifetime), lifetime, || ok("x")).await;
        assert_fresh_until(Rules::new().fixed_ttl(lifetime), lifetime, || ok("x")).await;
    }
    assert_fresh_until(ttl().fixed_ttl(ms(50)), ms(50), || ok("x")).await;
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_of_zero_stores_nothing_and_one_without_end_lasts() {
    assert_eq!(calls_for_two(Rules::new().default_ttl(Duration::ZERO), &[], || ok("x")).await, 2);
    assert_eq!(calls_for_two(Rules::new().fixed_ttl(Duration::ZERO), &[], || ok("x")).await, 2);
    for rules in [Rules::new().default_ttl(Duration::MAX), Rules::new().fixed_ttl(Duration::MAX)] {
        assert_fresh_until(rules.stale_if_error_for(Duration::MAX), secs(1 << 31), || ok("x")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn lifetimes_of_any_size_and_form_are_taken_without_panic() {
    for value in ["2147483648", "9223372036854775808", "18446744073709551616", "99999999999999999999999999"] {
        assert_fresh_until(Rules::new(), secs(1 << 31), move || {
            ok("x").header("cache-control", format!("max-age={value}"))
        })
        .await;
    }
    assert_fresh_until(Rules::new(), secs(7), || ok("x").header("cache-control", "max-age=\"7\"")).await;
    assert_fresh_until(Rules::new(), secs(1), || ok("x").header("cache-control", "max-age=1, max-age=9"))
        .await;
    for value in ["-1", "1.5", "", "x", "0x10", "1e3"] {
        let origin =
            ScriptedOrigin::always(move || ok("x").header("cache-control", format!("max-age={value}")));
        let service = cached(ttl(), &origin);
        for _ in 0..2 {
            assert!(!get(&service, "/").await.is_hit(), "{value}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_delay_is_part_of_the_age() {
    let origin = ScriptedOrigin::always(|| ok("x").after(secs(3)));
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    assert_eq!(get(&service, "/").await.age(), Some(3));
    tokio::time::advance(ms(6_999)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_took_longer_than_its_lifetime_is_not_served_again() {
    let origin = ScriptedOrigin::always(|| ok("x").after(secs(10)));
    let service = cached(ttl(), &origin);
    assert_eq!(get(&service, "/").await.body, "x");
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn the_received_age_counts() {
    assert_fresh_until(Rules::new(), secs(5), || ok("x").max_age(60).header("age", "55")).await;
    assert_fresh_until(Rules::new(), secs(60), || ok("x").max_age(60).header("age", "-5")).await;
    let old = httpdate::fmt_http_date(SystemTime::now() - secs(100));
    let origin = ScriptedOrigin::always(move || ok("x").max_age(60).header("date", &old));
    let service = cached(Rules::new(), &origin);
    for _ in 0..2 {
        assert!(!get(&service, "/").await.is_hit(), "as old as its date says");
    }
    for enormous in ["60", "2147483648", "18446744073709551616", "99999999999999999999999"] {
        let origin = ScriptedOrigin::always(move || ok("x").max_age(60).header("age", enormous));
        let service = cached(Rules::new(), &origin);
        for _ in 0..2 {
            assert!(!get(&service, "/").await.is_hit(), "{enormous}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn age_grows_by_the_second() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(100).header("age", "7"));
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.age(), Some(7), "what comes from the origin is untouched");
    for (step, age) in [(0, 7), (999, 7), (1, 8), (1_000, 9), (50_000, 59)] {
        tokio::time::advance(ms(step)).await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.age(), reply.is_hit()), (Some(age), true));
        assert_eq!(reply.headers.get_all("age").iter().count(), 1);
    }
}
