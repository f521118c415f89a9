//! Reading header fields: lists, numbers, weights and dates, and which fields belong to one connection (RFC
//! 9110 §7.6.1).

use std::{
    cmp::Ordering,
    hint::black_box,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::work::looked_at;

pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::TE
        | header::TRANSFER_ENCODING
        | header::UPGRADE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection" | "proxy-authentication-info"),
    }
}

/// Removes the fields that must not be stored or forwarded (RFC 9111 §3.1), and those that `Connection`
/// names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection` is such a field itself: without any it names nothing.
    if headers.keys().any(is_hop_by_hop) {
        let named = named_by_connection(headers);
        remove_all(headers, |name| is_hop_by_hop(name) || named.contains(name));
    }
}

/// The fields that `Connection` names.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    if !has(headers, &header::CONNECTION) {
        return Vec::new();
    }
    let lines = headers.get_all(header::CONNECTION).iter();
    let names = lines.flat_map(|line| split_list(line.as_bytes()));
    names.filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Whether a request asks for a protocol other than HTTP on its connection (RFC 9110 §7.8): then its response
/// is a connection, not a message. Another version of HTTP, or TLS, would bring the same message.
#[cold]
pub(crate) fn asks_for_another_protocol(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::UPGRADE).iter().inspect(|line| looked_at(line.len()));
    let mut protocols = lines.flat_map(|line| split_list(line.as_bytes()));
    named_by_connection(headers).contains(&header::UPGRADE)
        && protocols.any(|protocol| !carries_http(protocol))
}

fn carries_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    [&b"http"[..], b"h2c", b"h2", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Removes `Upgrade` from a request whose response may be shared: a response that switches protocols would be
/// for the connection of a single caller.
pub(crate) fn remove_upgrade(headers: &mut HeaderMap) {
    if has(headers, &header::UPGRADE) {
        remove_all(headers, |name| [header::UPGRADE, HTTP2_SETTINGS].contains(name));
    }
}

/// Removes fields and keeps the order of the others, which `HeaderMap::remove` does not.
pub(crate) fn remove_all(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&is_removed) {
        let kept = headers.iter().filter(|(name, _)| !is_removed(name));
        *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
}

/// Whether a service behind CGI or the like takes both names for the same one (RFC 3875 §4.1.18).
pub(crate) fn is_spelling_of(own: &[u8], name: &[u8]) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    own.len() == name.len() && own.iter().zip(name).all(|(own, byte)| dashed(*own) == dashed(*byte))
}

/// An order of names in which [spellings](is_spelling_of) of one name are equal.
pub(crate) fn by_spelling(one: &HeaderName, other: &HeaderName) -> Ordering {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.as_str().bytes().map(dashed).cmp(other.as_str().bytes().map(dashed))
}

/// Whether a field is present, by comparing names: fields are few.
pub(crate) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|other| other == name)
}

/// Whether a field is about the content of one message, not about a representation: another part of that has
/// another digest (RFC 9530 §2).
pub(crate) fn is_digest(name: &HeaderName) -> bool {
    ["content-md5", "content-digest"].contains(&name.as_str())
}

/// Removes from trailers the fields that must not be there (RFC 9110 §6.5.1), and the withheld ones.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap, withheld: &[HeaderName]) {
    remove_hop_by_hop(trailers);
    remove_all(trailers, |name| *name == header::SET_COOKIE || withheld.contains(name));
}

/// The elements of a comma-separated list, trimmed and without empty ones (RFC 9110 §5.6.1). Commas inside
/// quoted strings do not separate (§5.6.4).
pub(crate) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    looked_at(line.len());
    let (mut quoted, mut escaped) = (false, false);
    let has_quotes = line.contains(&b'"');
    line.split(move |byte| {
        let separates = *byte == b',' && !quoted;
        match byte {
            _ if !has_quotes => {}
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
    .map(<[u8]>::trim_ascii)
    .filter(|element| !element.is_empty())
}

/// Parses a number of digits alone, without a sign (RFC 9110 §8.6). A number that is too large becomes the
/// largest.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    looked_at(text.len());
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let append = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| text.iter().fold(0, append))
}

/// The length of all lines together of a field that is brought into a normal form.
///
/// Ordinary clients send a fraction of that. A longer field, or one with more members, is compared as
/// written, so that it costs a cache one look.
pub(crate) const MAX_NORMAL_BYTES: usize = 1024;

/// The length of a list that is sorted or compared with another one.
pub(crate) const MAX_MEMBERS: usize = 64;

/// The members of a list in all its lines (RFC 9110 §5.6.1), at most one more than allowed. `None` if they
/// are too long.
pub(crate) fn bounded_members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Option<impl Iterator<Item = &'a [u8]>> {
    let lines = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let is_short = lines().map(<[u8]>::len).sum::<usize>() <= MAX_NORMAL_BYTES;
    is_short.then(|| lines().flat_map(split_list).take(MAX_MEMBERS + 1))
}

/// The weight of a preference that names none (RFC 9110 §12.4.2), in thousandths.
pub(crate) const MAX_WEIGHT: u16 = 1000;

/// Reads a `qvalue` in thousandths. `None` if it is not one.
pub(crate) fn parse_weight(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut digits = decimals.iter().copied().chain(std::iter::repeat(b'0'));
    let thousandths = (0..3).try_fold(0, |sum, _| {
        let digit = digits.next().filter(u8::is_ascii_digit)?;
        Some(sum * 10 + u16::from(digit - b'0'))
    })?;
    match (whole, thousandths) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(MAX_WEIGHT),
        _ => None,
    }
}

/// Half a century, for years of two digits.
const FIFTY_YEARS: Duration = Duration::from_secs(50 * 365 * 86_400 + 12 * 86_400);

/// Parses an `HTTP-date` in exactly its three formats (RFC 9110 §5.6.7), with letters in any case: caches are to
/// be lenient there (RFC 9111 §4.2). The name of the day need not fit the rest: senders with a wrong one still
/// know the date.
pub(crate) fn parse_date(value: &HeaderValue, now: SystemTime) -> Option<SystemTime> {
    let text = value.as_bytes();
    read_date(text, now).or_else(|| read_date(&date_in_usual_case(text)?, now))
}

fn read_date(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    read_usual_date(text).or_else(|| read_rfc850(text, now)).or_else(|| read_asctime(text))
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
fn read_usual_date(text: &[u8]) -> Option<SystemTime> {
    let (name, [b',', b' ', day @ .., b'G', b'M', b'T']) = text.split_first_chunk::<3>()? else {
        return None;
    };
    let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ .., b' '] = day else { return None };
    let year = two_digits(*y1, *y2)? * 100 + two_digits(*y3, *y4)?;
    is_short_name(name).then_some(())?;
    date_at(year, [*m1, *m2, *m3], two_digits(*d1, *d2)?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`. A date more than fifty years ahead is in the past.
fn read_rfc850(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = DAYS.iter().find_map(|name| text.strip_prefix(name.as_bytes()))?;
    let [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ .., b' ', b'G', b'M', b'T'] = text
    else {
        return None;
    };
    let (day, year) = (two_digits(*d1, *d2)?, two_digits(*y1, *y2)?);
    let is_near = |date: &SystemTime| date.duration_since(now).map_or(true, |ahead| ahead <= FIFTY_YEARS);
    let in_century = |century: u64| date_at(century + year, [*m1, *m2, *m3], day, time);
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
    let year = two_digits(*y1, *y2)? * 100 + two_digits(*y3, *y4)?;
    is_short_name(name).then_some(())?;
    date_at(year, [*m1, *m2, *m3], two_digits(tens, *d2)?, time)
}

fn is_short_name(name: &[u8; 3]) -> bool {
    DAYS.iter().any(|day| day.as_bytes().starts_with(name))
}

fn two_digits(tens: u8, ones: u8) -> Option<u64> {
    let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
    digits.then(|| u64::from(tens - b'0') * 10 + u64::from(ones - b'0'))
}

/// The date at a time such as `08:49:37`. `None` before 1970.
fn date_at(year: u64, month: [u8; 3], day: u64, time: &[u8]) -> Option<SystemTime> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?, two_digits(*s1, *s2)?);
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
fn date_in_usual_case(text: &[u8]) -> Option<Vec<u8>> {
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

/// Whether a secret that was sent is the one that is expected. All bytes are compared, whichever of them differ, so
/// that the time says nothing about them.
pub(crate) fn is_secret(sent: &[u8], expected: &[u8]) -> bool {
    let differences = sent.iter().zip(expected).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    black_box(differences) == 0 && sent.len() == expected.len()
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
