//! Cookies with a listed prefix.

use super::*;

#[tokio::test(start_paused = true)]
async fn cookies_with_a_listed_prefix_are_in_the_key_and_reach_the_origin() {
    let origin = by_cookie();
    let rule = KeyRule::any().cookies(["wordpress_logged_in_*", "lang"]);
    let service = stack_by(fixed(60_000), KeyRules::builder().rule(rule), &origin);
    for (cookies, seen, calls) in [
        ("_ga=1", "", 1),
        ("_ga=2; wordpress_test_cookie=1", "", 1),
        ("lang=de; _ga=3; wordpress_logged_in_a1=bob", "wordpress_logged_in_a1=bob; lang=de", 2),
        ("wordpress_logged_in_a1=bob; lang=de", "wordpress_logged_in_a1=bob; lang=de", 2),
        ("wordpress_logged_in_a1=eve; lang=de", "wordpress_logged_in_a1=eve; lang=de", 3),
        ("wordpress_logged_in_b2=bob; lang=de", "wordpress_logged_in_b2=bob; lang=de", 4),
    ] {
        assert_eq!(text(&service, request("GET", "http://h/", &[("cookie", cookies)])).await, seen);
        assert_eq!(origin.calls(), calls, "{cookies}");
    }
}
