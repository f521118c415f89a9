use super::*;
use proptest::prelude::*;

#[test]
fn a_number_has_digits_and_nothing_else() {
    for (text, number) in [("0", 0), ("007", 7), ("18446744073709551616", u64::MAX)] {
        assert_eq!(digits(text.as_bytes()), Some(number));
    }
    for text in ["", "+7", "-7", " 7", "7 ", "7.0", "0x7", "\u{663}"] {
        assert_eq!(digits(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_protocol_that_carries_http_is_not_another_one() {
    let asks = |connection: &[&'static str], upgrade: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for line in connection {
            headers.append(header::CONNECTION, HeaderValue::from_static(line));
        }
        for line in upgrade {
            headers.append(header::UPGRADE, HeaderValue::from_static(line));
        }
        asks_for_another_protocol(&headers)
    };
    let named = ["Upgrade, HTTP2-Settings"];
    for http in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.2", "TLS/1.0, HTTP/1.1", "h2,h2c", ""] {
        assert!(!asks(&named, &[http]), "{http}");
    }
    for other in ["websocket", "WebSocket", "h2c, websocket", "echo/1", "h2cx"] {
        assert!(asks(&named, &[other]), "{other}");
        assert!(asks(&["close", "upgrade"], &["h2c", other]), "{other}");
        assert!(!asks(&["keep-alive"], &[other]), "{other}");
        assert!(!asks(&[], &[other]), "{other}");
    }
    assert!(!asks(&named, &[]));
}

#[test]
fn fields_of_the_connection_are_removed_and_others_stay() {
    let mut headers = HeaderMap::new();
    headers.append(header::CONNECTION, "close, X-Hop".parse().unwrap());
    headers.append(header::CONNECTION, "x-other".parse().unwrap());
    for name in ["x-hop", "x-other", "keep-alive", "te", "proxy-authenticate", "x-kept", "etag"] {
        headers.append(name, "1".parse().unwrap());
    }
    remove_hop_by_hop(&mut headers);
    let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-kept", "etag"]);
}

#[test]
fn weights_have_three_decimals_at_most() {
    for (text, weight) in
        [("0", 0), ("1", 1000), ("0.5", 500), ("0.25", 250), ("0.001", 1), ("1.000", 1000), ("0.", 0)]
    {
        assert_eq!(parse_weight(text.as_bytes()), Some(weight), "{text}");
    }
    for text in ["", "2", "1.001", "0.0001", "0,5", "-1", ".5", "0.x", "+0"] {
        assert_eq!(parse_weight(text.as_bytes()), None, "{text}");
    }
}

fn at(text: &str) -> Option<u64> {
    let now = httpdate::parse_http_date("Fri, 20 Nov 2026 12:00:00 GMT").unwrap();
    let date = parse_date(&HeaderValue::from_str(text).unwrap(), now)?;
    Some(date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
}

#[test]
fn the_three_formats_are_read() {
    for text in
        ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
    {
        assert_eq!(at(text), Some(784_111_777), "{text}");
    }
}

#[test]
fn the_case_does_not_matter() {
    for text in [
        "sun, 06 nov 1994 08:49:37 gmt",
        "SUN, 06 NOV 1994 08:49:37 GMT",
        "Sun, 06 nOV 1994 08:49:37 Gmt",
        "sunday, 06-nov-94 08:49:37 gmt",
        "SUNDAY, 06-NOV-94 08:49:37 GMT",
        "sun nov  6 08:49:37 1994",
    ] {
        assert_eq!(at(text), Some(784_111_777), "{text}");
    }
}

#[test]
fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
    assert_eq!(at("Monday, 01-Jan-76 00:00:00 GMT"), at("Wed, 01 Jan 2076 00:00:00 GMT"));
    assert_eq!(at("Wednesday, 01-Jan-76 00:00:00 GMT"), at("Wed, 01 Jan 2076 00:00:00 GMT"));
    assert_eq!(at("Tuesday, 01-Jan-80 00:00:00 GMT"), at("Tue, 01 Jan 1980 00:00:00 GMT"));
}

#[test]
fn a_wrong_weekday_changes_nothing() {
    for text in [
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Tuesday, 06-Nov-94 08:49:37 GMT",
        "Wed Nov  6 08:49:37 1994",
        "mon, 06 nov 1994 08:49:37 gmt",
    ] {
        assert_eq!(at(text), Some(784_111_777), "{text}");
    }
}

#[test]
fn other_texts_are_not_dates() {
    for text in [
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Nov, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "784111777",
        "0",
        "",
    ] {
        assert_eq!(at(text), None, "{text}");
    }
}

#[test]
fn the_usual_format_is_read_on_every_day() {
    for day in 0..200_000 {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400 + day % 86_400);
        assert_eq!(read_usual_date(httpdate::fmt_http_date(date).as_bytes()), Some(date));
    }
    for invalid in ["Mon, 29 Feb 2027 00:00:00 GMT", "Tue, 31 Nov 2026 00:00:00 GMT"] {
        assert_eq!(read_usual_date(invalid.as_bytes()), None, "{invalid}");
    }
}

proptest! {
    #[test]
    fn the_usual_format_is_read_as_the_library_does(
        second in 0_u64..253_402_300_800,
        at in 0_usize..29,
        other in "[ -~]",
    ) {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let mut text = httpdate::fmt_http_date(date);
        prop_assert_eq!(read_usual_date(text.as_bytes()), Some(date));
        text.replace_range(at..=at, &other);
        if let Some(date) = read_usual_date(text.as_bytes()) {
            // The library refuses a weekday that is not that of the date.
            prop_assert_eq!(&httpdate::fmt_http_date(date)[3..], &text[3..]);
        }
    }

    #[test]
    fn anything_is_taken_without_panic(text in "[ -~]{0,60}", day in "[ -~]{0,4}", year in "[ -~]{0,4}") {
        let _ = at(&text);
        let _ = at(&format!("Sunday, {day}-Nov-{year} 08:49:37 GMT"));
    }
}
