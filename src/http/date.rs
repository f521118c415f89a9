//! `HTTP-date` in its three formats and nothing else (RFC 9110 §5.6.7), but in any case: caches
//! are to be lenient there (RFC 9111 §4.2).

use std::time::{Duration, SystemTime};

use http::HeaderValue;

/// Half a century, for years of two digits.
const FIFTY_YEARS: Duration = Duration::from_secs(50 * 365 * 86_400 + 12 * 86_400);

/// The date that a field says, if it says one.
pub(crate) fn parse(value: &HeaderValue, now: SystemTime) -> Option<SystemTime> {
    if let Some(date) = read_usual(value.as_bytes()) {
        return Some(date);
    }
    let text = value.to_str().ok()?;
    read(text, now).or_else(|| read(&in_usual_case(text)?, now))
}

/// What every sender should write, `Sun, 06 Nov 1994 08:49:37 GMT`, and nearly all do. None for
/// anything else, be it a date.
fn read_usual(text: &[u8]) -> Option<SystemTime> {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
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
    let (weekday, [b',', b' ', d1, d2, b' ', rest @ ..]) = text.split_first_chunk()? else { return None };
    let (month, [b' ', y1, y2, y3, y4, b' ', rest @ ..]) = rest.split_first_chunk()? else { return None };
    let [h1, h2, b':', m1, m2, b':', s1, s2, b' ', b'G', b'M', b'T'] = rest else { return None };
    let two = |tens: &u8, ones: &u8| {
        let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
        digits.then(|| u64::from(tens - b'0') * 10 + u64::from(ones - b'0'))
    };
    let (day, year) = (two(d1, d2)?, two(y1, y2)? * 100 + two(y3, y4)?);
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    let at = MONTHS.iter().position(|(name, _)| *name == month)?;
    // Years begin in March, so that a leap day is the last of its year.
    let (year, first) = (year - u64::from(at >= 10 && year > 0), MONTHS[at].1);
    let end = MONTHS.get(at + 1).map_or(365 + u64::from(is_leap(year + 1)), |(_, first)| *first);
    let days = (year * 365 + year / 4 - year / 100 + year / 400 + first + day - u64::from(day > 0))
        .checked_sub(719_468)?;
    let is_valid = day > 0 && first + day <= end && hour < 24 && minute < 60 && second < 60;
    let is_weekday = DAYS[(days % 7) as usize] == weekday;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    (is_valid && is_weekday).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn read(text: &str, now: SystemTime) -> Option<SystemTime> {
    match rfc850_fields(text) {
        Some(fields) => fields.date(now),
        None => httpdate::parse_http_date(text).ok(),
    }
}

/// The longest date is `Wednesday, 06-Nov-94 08:49:37 GMT`.
const MAX_LENGTH: usize = 33;

/// Names as `Sun` and `Nov`, and the zone as `GMT`. None for what is no date however it is written.
fn in_usual_case(text: &str) -> Option<String> {
    if text.len() > MAX_LENGTH || !text.is_ascii() {
        return None;
    }
    let mut usual = text.to_ascii_lowercase();
    let mut starts_word = true;
    for at in 0..usual.len() {
        if starts_word {
            usual[at..=at].make_ascii_uppercase();
        }
        starts_word = !usual.as_bytes()[at].is_ascii_alphabetic();
    }
    if usual.ends_with(" Gmt") {
        let zone = usual.len() - 3;
        usual[zone..].make_ascii_uppercase();
    }
    Some(usual)
}

/// The parts of `Sunday, 06-Nov-94 08:49:37 GMT`.
struct Rfc850<'a> {
    weekday: &'a str,
    day: &'a str,
    month: &'a str,
    year: u32,
    time: &'a str,
}

fn rfc850_fields(text: &str) -> Option<Rfc850<'_>> {
    const WEEKDAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    // Of the three formats this one alone begins with the whole name of a day.
    let weekday = *WEEKDAYS.iter().find(|day| text.starts_with(**day))?;
    let rest = text[weekday.len()..].strip_prefix(", ")?;
    let (date, time) = rest.split_once(' ')?;
    let (day, date) = date.split_once('-')?;
    let (month, year) = date.split_once('-')?;
    let is_year = year.len() == 2 && year.bytes().all(|digit| digit.is_ascii_digit());
    is_year.then_some(())?;
    Some(Rfc850 { weekday: &weekday[..3], day, month, year: year.parse().ok()?, time })
}

impl Rfc850<'_> {
    /// More than fifty years ahead means the past.
    fn date(&self, now: SystemTime) -> Option<SystemTime> {
        let in_century = |century: u32| {
            let Self { weekday, day, month, year, time } = self;
            let text = format!("{weekday}, {day} {month} {} {time}", century + year);
            httpdate::parse_http_date(&text).ok()
        };
        let is_near = |date: &SystemTime| date.duration_since(now).map_or(true, |ahead| ahead <= FIFTY_YEARS);
        // The weekday fits one century alone, so that there is no other choice to make.
        [2100, 2000, 1900].into_iter().filter_map(in_century).find(is_near)
    }
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
        assert_eq!(at("Monday, 01-Jan-76 00:00:00 GMT"), None, "a Thursday in 1976, a Wednesday in 2076");
        assert_eq!(at("Wednesday, 01-Jan-76 00:00:00 GMT"), at("Wed, 01 Jan 2076 00:00:00 GMT"));
        assert_eq!(at("Tuesday, 01-Jan-80 00:00:00 GMT"), at("Tue, 01 Jan 1980 00:00:00 GMT"));
    }

    #[test]
    fn everything_else_is_no_date() {
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
            "Mon, 06 Nov 1994 08:49:37 GMT",
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
                prop_assert_eq!(httpdate::parse_http_date(&text).ok(), Some(date));
            }
        }

        #[test]
        fn anything_is_taken_without_panic(text in "[ -~]{0,60}", day in "[ -~]{0,4}", year in "[ -~]{0,4}") {
            let _ = at(&text);
            let _ = at(&format!("Sunday, {day}-Nov-{year} 08:49:37 GMT"));
        }
    }
}
