//! Conditions on a cookie, a header field or a parameter of a request.
//!
//! Each request is read in two ways at once: as all servers read it, and as any of them might. Where the two
//! differ, the condition is ambiguous.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::{glob::Glob, query};
use crate::{http::cookies::cookies, work::looked_at};

/// Servers differ in which of more cookies or parameters than these they read.
const MAX_READ: usize = 256;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    No,
    /// For some servers, and not for others.
    Ambiguous,
    Yes,
}

impl Holds {
    pub(super) fn negated(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Ambiguous => Self::Ambiguous,
            Self::Yes => Self::No,
        }
    }
}

/// A name, and a value if that matters.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    name: Glob,
    /// What is compared with folded names.
    folded: Glob,
    value: Option<Glob>,
}

impl Condition {
    pub(super) fn of_cookie(name: &str, value: Option<&str>) -> Option<Self> {
        let is_value = |value: &str| !value.contains([';', '"', ',']) && value.trim() == value;
        let is_valid = HeaderName::from_bytes(name.as_bytes()).is_ok() && value.is_none_or(is_value);
        is_valid.then(|| Self::new(name, &folded_name(name), value))
    }

    pub(super) fn of_field(name: &str, value: Option<&str>) -> Option<Self> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let is_valid = value.is_none_or(|value| HeaderValue::from_str(value).is_ok());
        is_valid.then(|| Self::new(name.as_str(), &name.as_str().replace('_', "-"), value))
    }

    pub(super) fn of_parameter(name: &str, value: Option<&str>) -> Option<Self> {
        let is_valid = !name.is_empty() && !name.contains(['&', ';', '#', '?', ',']);
        is_valid.then(|| Self::new(name, &folded_name(name), value))
    }

    fn new(name: &str, folded: &str, value: Option<&str>) -> Self {
        Self { name: Glob::new(name), folded: Glob::new(folded), value: value.map(Glob::new) }
    }

    /// Whether it holds wherever the other one does.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let is_value = match (&self.value, &other.value) {
            (None, _) => true,
            (Some(own), Some(other)) => own.covers(other),
            (Some(_), None) => false,
        };
        self.name.covers(&other.name) && is_value
    }
}

/// A cookie, a line of a field or a parameter, as servers may find it.
struct Occurrence<'a> {
    /// The name as all servers find it. None: some do not.
    name: Option<&'a [u8]>,
    /// What some server may take the name for.
    folded: SmallVec<[&'a [u8]; 3]>,
    /// The value as all servers read it. None: some do not.
    value: Option<&'a [u8]>,
    /// The values that some server may read.
    loose_values: [&'a [u8]; 2],
    /// Whether servers may differ in anything about it.
    is_vague: bool,
}

/// What a request has of one condition.
#[derive(Clone, Copy, Default)]
struct Evidence {
    /// All servers find it.
    is_there: bool,
    /// Some servers may find the name with another value.
    has_other: bool,
    /// Some servers may find it.
    may_be_there: bool,
    is_named: bool,
}

/// What a request has of the conditions of a clause.
struct Scan<'t> {
    conditions: &'t [Condition],
    each: SmallVec<[Evidence; 4]>,
}

impl<'t> Scan<'t> {
    fn new(conditions: &'t [Condition]) -> Self {
        Self { conditions, each: conditions.iter().map(|_| Evidence::default()).collect() }
    }

    fn record(&mut self, found: &Occurrence<'_>) {
        for (condition, evidence) in self.conditions.iter().zip(&mut self.each) {
            if !found.folded.iter().any(|name| condition.folded.is(name)) {
                continue;
            }
            let is_named = found.name.is_some_and(|name| condition.name.is(name));
            let is_value = |own: &Glob| found.value.is_some_and(|value| own.is(value));
            let is_like = |own: &Glob| found.loose_values.iter().any(|value| own.is_in_any_case(value));
            let is_there = is_named && condition.value.as_ref().is_none_or(is_value);
            evidence.is_named = true;
            evidence.is_there |= is_there;
            evidence.has_other |= !is_there && condition.value.is_some();
            evidence.may_be_there |= found.is_vague || condition.value.as_ref().is_none_or(is_like);
        }
    }

    /// Whether one of the conditions holds. Unless `is_clear`, servers differ in what they find at all.
    fn outcome(&self, is_clear: bool) -> Holds {
        let truth = |evidence: &Evidence| match *evidence {
            Evidence { is_there: true, has_other: false, .. } if is_clear => Holds::Yes,
            Evidence { is_there: true, .. } | Evidence { may_be_there: true, .. } => Holds::Ambiguous,
            Evidence { is_named: true, .. } if !is_clear => Holds::Ambiguous,
            _ => Holds::No,
        };
        self.each.iter().map(truth).max().unwrap_or(Holds::No)
    }
}

/// Whether a request has one of these cookies.
pub(super) fn of_cookies(conditions: &[Condition], headers: &HeaderMap) -> Holds {
    let mut scan = Scan::new(conditions);
    let (mut count, mut is_clear) = (0, true);
    for cookie in cookies(headers).filter(|cookie| !cookie.is_empty()) {
        looked_at(cookie.len());
        count += 1;
        // Some servers stop at an invalid cookie, and some find other cookies in it.
        is_clear &= cookie.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b','));
        match is_clear {
            true => record_cookie(cookie, true, &mut scan),
            false => {
                // Some servers strip all white space of Unicode.
                let is_end = |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b',');
                cookie.split(is_end).for_each(|piece| record_cookie(piece, false, &mut scan));
            }
        }
    }
    scan.outcome(count <= MAX_READ)
}

fn record_cookie(cookie: &[u8], is_clear: bool, scan: &mut Scan<'_>) {
    const PREFIXES: [&[u8]; 4] = [b"__host-http-", b"__host-", b"__secure-", b"__http-"];
    let (name, value) = halves(cookie);
    let unassigned = cookie.iter().position(|byte| *byte != b'=').unwrap_or(cookie.len());
    let (loose, _) = halves(&cookie[unassigned..]);
    let folded = fold(loose);
    let loose_value: SmallVec<[u8; 64]> = percent_decode(value).collect();
    let mut names = SmallVec::from_iter([&folded[..]]);
    names.extend(PREFIXES.iter().filter_map(|prefix| folded.strip_prefix(*prefix)).take(1));
    // Some servers take a name alone for a value.
    let is_exact = is_clear && unassigned == 0 && cookie.contains(&b'=');
    scan.record(&Occurrence {
        name: is_exact.then_some(name),
        folded: names,
        value: Some(value),
        loose_values: [value, &loose_value],
        is_vague: !is_clear,
    });
}

/// Whether a request has one of these fields.
pub(super) fn of_fields(conditions: &[Condition], headers: &HeaderMap) -> Holds {
    let mut scan = Scan::new(conditions);
    for name in headers.keys() {
        let text = name.as_str();
        looked_at(text.len());
        let dashed: SmallVec<[u8; 32]> =
            text.bytes().map(|byte| if byte == b'_' { b'-' } else { byte }).collect();
        if !conditions.iter().any(|condition| condition.folded.is(&dashed)) {
            continue;
        }
        let lines: SmallVec<[&[u8]; 4]> =
            headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()).collect();
        let mut record = |value: &[u8]| {
            scan.record(&Occurrence {
                name: Some(text.as_bytes()),
                folded: SmallVec::from_iter([&dashed[..]]),
                value: (lines.len() == 1).then_some(value),
                loose_values: [value; 2],
                is_vague: false,
            });
        };
        // Servers take the first line, the last line, or all lines.
        lines.iter().for_each(|line| record(line));
        if lines.len() > 1 {
            record(&lines.join(&b", "[..]));
        }
    }
    scan.outcome(true)
}

/// Whether a query has one of these parameters.
pub(super) fn of_parameters(conditions: &[Condition], query: Option<&str>) -> Holds {
    let Some(query) = query else { return Holds::No };
    let mut names = query.split(['&', ';']).map(|pair| pair.split('=').next().unwrap_or_default());
    // Servers refuse such a query, cut it off, or decode it to different names.
    if names.any(|name| query::decode(name).is_none()) {
        return Holds::Ambiguous;
    }
    let mut scan = Scan::new(conditions);
    let is_clear = !query.contains(';') && !query::hides_another(query);
    let count = record_parameters(query.as_bytes(), is_clear, &mut scan);
    if !is_clear {
        let decoded: Vec<u8> = percent_decode(query.as_bytes()).collect();
        record_parameters(&decoded, false, &mut scan);
    }
    scan.outcome(is_clear && count <= MAX_READ)
}

fn record_parameters(query: &[u8], is_clear: bool, scan: &mut Scan<'_>) -> usize {
    looked_at(query.len());
    let pairs = query.split(|byte| matches!(byte, b'&' | b';')).filter(|pair| !pair.is_empty());
    pairs.inspect(|pair| record_parameter(pair, is_clear, scan)).count()
}

fn record_parameter(pair: &[u8], is_clear: bool, scan: &mut Scan<'_>) {
    let (name, value) = halves(pair);
    let read = |text| std::str::from_utf8(text).ok().and_then(query::decode);
    let (exact, value_read) = (read(name), read(value));
    let spaced = |text: &[u8]| -> SmallVec<[u8; 64]> {
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect()
    };
    let (name, value) = (spaced(name), spaced(value));
    let folded = fold(&name);
    // `a[b]` is an element of `a`, and some servers take `[a]` for `a`.
    let is_bracket = |byte: &u8| matches!(byte, b'[' | b']');
    let decoded: SmallVec<[u8; 64]> = percent_decode(&name).collect();
    let base = fold(decoded.split(is_bracket).find(|part| !part.is_empty()).unwrap_or_default());
    let loose_value: SmallVec<[u8; 64]> = percent_decode(&value).collect();
    let is_exact = is_clear && value_read.is_some();
    scan.record(&Occurrence {
        name: exact.as_deref().filter(|_| is_exact).map(str::as_bytes),
        folded: SmallVec::from_iter([&folded[..], &base[..]]),
        value: value_read.as_deref().map(str::as_bytes),
        loose_values: [&value, &loose_value],
        is_vague: false,
    });
}

fn halves(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, b""),
    }
}

/// Folds what frameworks are known to treat alike: encoding, case, leading spaces, what follows a NUL, and what
/// PHP takes for an underscore.
fn fold(name: &[u8]) -> SmallVec<[u8; 64]> {
    let decoded: SmallVec<[u8; 64]> = percent_decode(name).collect();
    let name = decoded.split(|byte| *byte == 0).next().unwrap_or_default();
    name.trim_ascii_start().iter().map(|byte| folded_byte(*byte)).collect()
}

fn folded_name(name: &str) -> String {
    name.chars().map(|char| u8::try_from(char).map_or(char, |byte| folded_byte(byte).into())).collect()
}

fn folded_byte(byte: u8) -> u8 {
    match byte {
        b'.' | b' ' | b'+' | b'[' => b'_',
        other => other.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Holds::*, *};
    use http::header;

    fn cookie(condition: &str, lines: &[&str]) -> Holds {
        let (name, value) =
            condition.split_once('=').map_or((condition, None), |(name, value)| (name, Some(value)));
        let headers = lines.iter().map(|line| (header::COOKIE, line.parse().unwrap())).collect();
        of_cookies(&[Condition::of_cookie(name, value).unwrap()], &headers)
    }

    #[test]
    fn a_cookie_is_present_if_every_server_finds_it() {
        for (condition, lines, expected) in [
            ("a", &["a=1"][..], Yes),
            ("a", &["b=1; a=1"], Yes),
            ("a", &["b=1", "a="], Yes),
            ("a", &["a=1; a=2"], Yes),
            ("wp_*", &["x=1; wp_=2"], Yes),
            ("*", &["x=1"], Yes),
            ("a=1", &["a=1"], Yes),
            ("a=1*", &["a=12"], Yes),
            ("a", &["a=1; b=\"x, y\""], Yes),
            ("a", &[][..], No),
            ("a", &[""], No),
            ("*", &[""], No),
            ("a", &["b=a; ab=1; b=a=1"], No),
            ("a=1", &["a=2"], No),
            ("a", &["prefs={\"b\":1,\"c\":2}"], No),
        ] {
            assert_eq!(cookie(condition, lines), expected, "{condition} {lines:?}");
        }
    }

    #[test]
    fn cookies_that_servers_read_differently_are_ambiguous() {
        let many = "x=1; ".repeat(MAX_READ);
        let too_many = [format!("{many}a=1"), format!("a=2; {many}")];
        for (condition, lines) in [
            ("a", &["A=1"][..]),
            ("a", &["%61=1"]),
            ("a_b", &["a.b=1"]),
            ("a", &["a"]),
            ("a", &["=a=1"]),
            ("a", &["__Host-a=1"]),
            ("a", &["__Secure-A=1"]),
            ("a", &["b=\"x; a=1\""]),
            ("a", &["b=1, a=1"]),
            ("a", &["b=1 a=1"]),
            ("a", &["b=\"; a=1"]),
            ("a", &["a =1"]),
            ("a_b", &["a+b=1"]),
            ("a", &["a%00b=1"]),
            ("a=1", &["a=1; a=2"]),
            ("a=1", &["a=2", "a=1"]),
            ("a=1", &["a=1; A=2"]),
            ("a=1", &["a=\"1\""]),
            ("a=1", &["a=%31"]),
            ("a=x", &["a=X"]),
            ("a=1", &[&too_many[0]]),
            ("a", &[&too_many[0]]),
            ("a=1", &[&too_many[1]]),
        ] {
            assert_eq!(cookie(condition, lines), Ambiguous, "{condition} {lines:?}");
        }
        // Python and JavaScript strip all white space of Unicode.
        for blank in ["\u{a0}", "\u{85}", "\u{2003}", "\u{3000}"] {
            let lines = [HeaderValue::from_str(&format!("b=1; {blank}a=1")).unwrap()];
            let latin = HeaderValue::from_bytes(b"b=1; \xa0a=1").unwrap();
            for line in lines.into_iter().chain([latin]) {
                let headers = [(header::COOKIE, line)].into_iter().collect();
                assert_eq!(
                    of_cookies(&[Condition::of_cookie("a", None).unwrap()], &headers),
                    Ambiguous,
                    "{headers:?}"
                );
            }
        }
        assert_eq!(cookie("b", &[&too_many[0]]), No, "no server finds it");
    }

    fn field(condition: &str, lines: &[(&'static str, &str)]) -> Holds {
        let (name, value) =
            condition.split_once(": ").map_or((condition, None), |(name, value)| (name, Some(value)));
        let lines = lines.iter().map(|(name, line)| (HeaderName::from_static(name), line.parse().unwrap()));
        of_fields(&[Condition::of_field(name, value).unwrap()], &lines.collect())
    }

    #[test]
    fn fields_are_read_as_servers_read_them() {
        for (condition, lines, expected) in [
            ("X-A", &[("x-a", "")][..], Yes),
            ("x-*", &[("x-a", "1")], Yes),
            ("x-a: 1", &[("x-a", "1")], Yes),
            ("x-a: *bot*", &[("x-a", "Googlebot/2.1")], Yes),
            ("x-a", &[], No),
            ("x-a", &[("x-ab", "1")], No),
            ("x-a: 1", &[("x-a", "2")], No),
            ("x-a", &[("x-a", "1"), ("x-a", "2")], Yes),
            ("x-a", &[("x_a", "1")], Ambiguous),
            ("x-a: 1", &[("x-a", "1"), ("x_a", "2")], Ambiguous),
            ("x-a: 1", &[("x-a", "1"), ("x-a", "2")], Ambiguous),
            ("x-a: 1, 2", &[("x-a", "1"), ("x-a", "2")], Ambiguous),
            ("x-a: on", &[("x-a", "ON")], Ambiguous),
        ] {
            assert_eq!(field(condition, lines), expected, "{condition} {lines:?}");
        }
    }

    fn parameter(condition: &str, query: &str) -> Holds {
        let (name, value) =
            condition.split_once('=').map_or((condition, None), |(name, value)| (name, Some(value)));
        of_parameters(&[Condition::of_parameter(name, value).unwrap()], Some(query))
    }

    #[test]
    fn parameters_are_read_as_servers_read_them() {
        let many = "x&".repeat(MAX_READ);
        for (condition, query, expected) in [
            ("a", "a", Yes),
            ("a", "b=1&a=", Yes),
            ("a", "%61=1", Yes),
            ("a*", "ab=1", Yes),
            ("*", "x", Yes),
            ("a=1 2", "a=1+2", Yes),
            ("a=1", "a=%31", Yes),
            ("a", "", No),
            ("*", "&", No),
            ("a", "b=a&ab=1", No),
            ("a=1", "a=2", No),
            ("a", "A=1", Ambiguous),
            ("a", "a[]=1", Ambiguous),
            ("a", "[a]=1", Ambiguous),
            ("a_b", "a.b=1", Ambiguous),
            ("a", "b=1;a=1", Ambiguous),
            ("a", "b=1%26a=1", Ambiguous),
            ("a", "a=1;b", Ambiguous),
            ("a", "a=%ff", Ambiguous),
            ("a=1", "a=1&a=2", Ambiguous),
            ("a=true", "a=True", Ambiguous),
            ("a", &format!("{many}a"), Ambiguous),
            // PHP ends a name at a NUL, classic ASP.NET decodes `%u`, and many refuse the query.
            ("a", "a%00b=1", Ambiguous),
            ("ab", "b=1&%u0061b=1", Ambiguous),
            ("a", "%c1%a1=1", Ambiguous),
            ("a", "b=%00&c=%zz&d=100%", No),
        ] {
            assert_eq!(parameter(condition, query), expected, "{condition} {query}");
        }
        assert_eq!(of_parameters(&[Condition::of_parameter("a", None).unwrap()], None), No);
    }
}
