//! `HTTP-date` in exactly its three formats (RFC 9110 §5.6.7), with letters in any case: caches are to be
//! lenient there (RFC 9111 §4.2).

use std::time::{Duration, SystemTime};

use http::HeaderValue;

/// Half a century, for years of two digits.
const FIFTY_YEARS: Duration = Duration::from_secs(50 * 365 * 86_400 + 12 * 86_400);

/// Parses a date. The name of the day need not fit the rest: senders with a wrong one still know the date.
pub(crate) fn parse(value: &HeaderValue, now: SystemTime) -> Option<SystemTime> {
    let text = value.as_bytes();
    read(text, now).or_else(|| read(&in_usual_case(text)?, now))
}

fn read(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    read_usual(text).or_else(|| read_rfc850(text, now)).or_else(|| read_asctime(text))
}

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The months, and the days of the year before each. Years begin in March here, so that a leap day is the
/// last day of its year.
const MONTHS: [(&[u8; 3], u64); 12] = [
    (b"Mar", 0),
    (b"Apr", 31),
    (b"May", 61),
    (b"Jun", 92),
    (b"Jul", 122),
    (b"Aug", 153),
    (b"Sep", 184),
    (b"Oct", 214),
    (b"Nov", 245),
    (b"Dec", 275),
    (b"Jan", 306),
    (b"Feb", 337),
];

/// `Sun, 06 Nov 1994 08:49:37 GMT`, which senders must write, and nearly all do. By hand: 340 instructions,
/// where `httpdate` takes 780 (callgrind) and refuses a wrong name of the day.
fn read_usual(text: &[u8]) -> Option<SystemTime> {
    let (name, [b',', b' ', day @ .., b'G', b'M', b'T']) = text.split_first_chunk::<3>()? else {
        return None;
    };
    let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ .., b' '] = day else { return None };
    let year = two(*y1, *y2)? * 100 + two(*y3, *y4)?;
    is_short_name(name).then_some(())?;
    date(year, [*m1, *m2, *m3], two(*d1, *d2)?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`. A date more than fifty years ahead is in the past.
fn read_rfc850(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = DAYS.iter().find_map(|name| text.strip_prefix(name.as_bytes()))?;
    let [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ .., b' ', b'G', b'M', b'T'] = text
    else {
        return None;
    };
    let (day, year) = (two(*d1, *d2)?, two(*y1, *y2)?);
    let is_near = |date: &SystemTime| date.duration_since(now).map_or(true, |ahead| ahead <= FIFTY_YEARS);
    let in_century = |century: u64| date(century + year, [*m1, *m2, *m3], day, time);
    [2100, 2000, 1900].into_iter().filter_map(in_century).find(is_near)
}

/// `Sun Nov  6 08:49:37 1994`.
fn read_asctime(text: &[u8]) -> Option<SystemTime> {
    let (name, [b' ', m1, m2, m3, b' ', d1, d2, b' ', time @ .., b' ', y1, y2, y3, y4]) =
        text.split_first_chunk::<3>()?
    else {
        return None;
    };
    let tens = if *d1 == b' ' { b'0' } else { *d1 };
    let year = two(*y1, *y2)? * 100 + two(*y3, *y4)?;
    is_short_name(name).then_some(())?;
    date(year, [*m1, *m2, *m3], two(tens, *d2)?, time)
}

fn is_short_name(name: &[u8; 3]) -> bool {
    DAYS.iter().any(|day| day.as_bytes().starts_with(name))
}

fn two(tens: u8, ones: u8) -> Option<u64> {
    let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
    digits.then(|| u64::from(tens - b'0') * 10 + u64::from(ones - b'0'))
}

/// The date at a time such as `08:49:37`. `None` before 1970.
fn date(year: u64, month: [u8; 3], day: u64, time: &[u8]) -> Option<SystemTime> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
    let at = MONTHS.iter().position(|(name, _)| **name == month)?;
    let (year, first) = (year - u64::from(at >= 10 && year > 0), MONTHS[at].1);
    let end = MONTHS.get(at + 1).map_or(365 + u64::from(is_leap(year + 1)), |(_, first)| *first);
    let days = (year * 365 + year / 4 - year / 100 + year / 400 + first + day - u64::from(day > 0))
        .checked_sub(719_468)?;
    let is_valid = day > 0 && first + day <= end && hour < 24 && minute < 60 && second < 60;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    is_valid.then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// The longest date is `Wednesday, 06-Nov-94 08:49:37 GMT`.
const MAX_LENGTH: usize = 33;

/// With names such as `Sun` and `Nov`, and `GMT`. `None` if the text cannot be a date in any case.
fn in_usual_case(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_LENGTH || !text.is_ascii() {
        return None;
    }
    let mut usual = text.to_ascii_lowercase();
    let mut starts_word = true;
    for byte in &mut usual {
        if starts_word {
            byte.make_ascii_uppercase();
        }
        starts_word = !byte.is_ascii_alphabetic();
    }
    if usual.ends_with(b" Gmt") {
        let zone = usual.len() - 3;
        usual[zone..].make_ascii_uppercase();
    }
    Some(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Option<u64> {
        let now = httpdate::parse_http_date("Fri, 20 Nov 2026 12:00:00 GMT").unwrap();
        let date = parse(&HeaderValue::from_str(text).unwrap(), now)?;
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
            assert_eq!(read_usual(httpdate::fmt_http_date(date).as_bytes()), Some(date));
        }
        for invalid in ["Mon, 29 Feb 2027 00:00:00 GMT", "Tue, 31 Nov 2026 00:00:00 GMT"] {
            assert_eq!(read_usual(invalid.as_bytes()), None, "{invalid}");
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
            prop_assert_eq!(read_usual(text.as_bytes()), Some(date));
            text.replace_range(at..=at, &other);
            if let Some(date) = read_usual(text.as_bytes()) {
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
}
