//! `Accept-Encoding` and `Accept-Language`, reduced to what the application supports.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::error::Problem;
use crate::{
    http::fields::{MAX_MEMBERS, MAX_WEIGHT, bounded_members, parse_weight},
    work,
};

/// The values that the application supports, in its order of preference. `None`: the field stays as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Negotiation {
    encodings: Option<Box<[HeaderValue]>>,
    languages: Option<Box<[HeaderValue]>>,
}

/// A range of a request with its weight in thousandths.
type Weighted<'a> = (&'a [u8], u16);
/// Without an allocation for what browsers send, since every hit pays for it.
type Accepted<'a> = SmallVec<[Weighted<'a>; 8]>;

impl Negotiation {
    pub(super) fn compile(
        encodings: Option<&[String]>,
        languages: Option<&[String]>,
    ) -> Result<Self, Problem> {
        // Programs name a locale `de_DE`, and no request does (RFC 5646 §2.1).
        if let Some(tag) = languages.into_iter().flatten().find(|tag| tag.contains('_')) {
            return Err(Problem::Language(tag.as_str().into()));
        }
        Ok(Self {
            encodings: encodings.map(|values| parse_values(values, Problem::Coding)).transpose()?,
            languages: languages.map(|values| parse_values(values, Problem::Language)).transpose()?,
        })
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.encodings.is_none() && self.languages.is_none()
    }

    /// Brings the fields of a request into their normal form.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in [header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE] {
            match self.normal_form(&name, headers) {
                None => {}
                Some(Some(value)) => set(headers, name, value),
                Some(None) => drop(headers.remove(name)),
            }
        }
    }

    /// The normal form of a field. `None`: as it is. `None` inside: absent.
    pub(super) fn normal_form(&self, name: &HeaderName, headers: &HeaderMap) -> Option<Option<HeaderValue>> {
        if *name == header::ACCEPT_ENCODING {
            encoding(self.encodings.as_deref()?, &weights(headers, name)?).map(Some)
        } else if *name == header::ACCEPT_LANGUAGE {
            language(self.languages.as_deref()?, weights(headers, name)?)
        } else {
            None
        }
    }
}

/// Unlike `insert`, does not grow a full map that has the name.
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let is_one_line = headers.get_all(&name).iter().nth(1).is_none();
    match headers.get_mut(&name) {
        Some(line) if is_one_line => *line = value,
        _ => drop(headers.insert(name, value)),
    }
}

/// The supported coding that the client prefers, or else `identity` (RFC 9110 §12.5.3), which is also the coding
/// for a request without the field. `None` if the client refuses even that.
fn encoding(known: &[HeaderValue], accepted: &[Weighted<'_>]) -> Option<HeaderValue> {
    let named = |coding: &[u8]| accepted.iter().find(|(range, _)| work::is_same_name(range, coding));
    let weight = |coding: &[u8]| named(coding).or_else(|| named(b"*")).map_or(0, |(_, weight)| *weight);
    let rest = named(b"identity").map(|(_, weight)| *weight);
    let mut best: Option<(&HeaderValue, u16)> = None;
    for coding in known {
        let weight = weight(coding.as_bytes());
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((coding, weight));
        }
    }
    match best {
        Some((coding, most)) if most >= rest.unwrap_or(0) => Some(coding.clone()),
        _ if rest == Some(0) || (rest.is_none() && named(b"*").is_some_and(|(_, weight)| *weight == 0)) => {
            None
        }
        _ => Some(HeaderValue::from_static("identity")),
    }
}

/// The language that a lookup finds (RFC 4647 §3.4), or one that the range is a prefix of. `None` inside: the
/// field is removed, and the application uses its default. `None` if the client refuses that.
fn language(known: &[HeaderValue], mut accepted: Accepted<'_>) -> Option<Option<HeaderValue>> {
    accepted.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    let (wanted, refused) = accepted.split_at(accepted.partition_point(|(_, weight)| *weight > 0));
    let is_refused = |tag: &[u8]| refused.iter().any(|(range, _)| work::is_same_name(range, tag));
    // Once for each language instead of each range that finds it. Few requests refuse any language.
    let refused_tags: SmallVec<[bool; 16]> = match refused.is_empty() {
        true => SmallVec::new(),
        false => known.iter().map(|tag| is_refused(tag.as_bytes())).collect(),
    };
    for (range, _) in wanted {
        if *range == b"*" {
            return Some(None);
        }
        let found = look_up(known, range).filter(|at| refused_tags.get(*at) != Some(&true));
        if let Some(at) = found {
            return Some(known.get(at).cloned());
        }
    }
    (!is_refused(b"*")).then_some(None)
}

/// The position of the known language that a range finds.
fn look_up(known: &[HeaderValue], range: &[u8]) -> Option<usize> {
    let mut shortened = range;
    loop {
        if let Some(at) = known.iter().position(|tag| work::is_same_name(tag.as_bytes(), shortened)) {
            return Some(at);
        }
        match shortened.iter().inspect(|_| work::looked_at(1)).rposition(|byte| *byte == b'-') {
            Some(end) => shortened = &shortened[..end],
            None => break,
        }
    }
    known.iter().position(|tag| {
        let (start, rest) = tag.as_bytes().split_at(range.len().min(tag.len()));
        work::is_same_name(start, range) && rest.starts_with(b"-")
    })
}

/// The elements of the field with their weights (RFC 9110 §12.4.2), those of weight 0 included.
/// `None` if an element is invalid, or there are more than have a [normal form](crate::http::fields::MAX_MEMBERS).
fn weights<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Accepted<'a>> {
    let accepted: Accepted<'_> = bounded_members(headers, name)?.map(weighted).collect::<Option<_>>()?;
    (accepted.len() <= MAX_MEMBERS).then_some(accepted)
}

fn weighted(element: &[u8]) -> Option<Weighted<'_>> {
    work::looked_at(element.len());
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let range = parts.next().filter(|range| is_range(range))?;
    let weight = match parts.next() {
        None => MAX_WEIGHT,
        Some([b'q' | b'Q', b'=', value @ ..]) => parse_weight(value)?,
        Some(_) => return None,
    };
    parts.next().is_none().then_some((range, weight))
}

fn is_range(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*+".contains(byte))
}

/// Parses the values that the application supports, as the origin will see them.
fn parse_values(values: &[String], problem: fn(Box<str>) -> Problem) -> Result<Box<[HeaderValue]>, Problem> {
    let parse = |text: &String| {
        let is_name = is_range(text.as_bytes()) && text != "*" && !text.eq_ignore_ascii_case("identity");
        let value = HeaderValue::from_str(text).ok().filter(|_| is_name);
        value.ok_or_else(|| problem(text.as_str().into()))
    };
    values.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(known: &[&str], name: HeaderName, lines: &[&str]) -> Option<String> {
        let known = Some(known.iter().map(|value| HeaderValue::from_str(value).unwrap()).collect());
        let negotiation = match name == header::ACCEPT_ENCODING {
            true => Negotiation { encodings: known, languages: None },
            false => Negotiation { encodings: None, languages: known },
        };
        let mut headers = HeaderMap::new();
        lines.iter().for_each(|line| _ = headers.append(&name, HeaderValue::from_str(line).unwrap()));
        negotiation.apply(&mut headers);
        let first = headers.clone();
        negotiation.apply(&mut headers);
        assert_eq!(first, headers, "the normal form is in normal form");
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn encodings_become_the_best_supported_one() {
        for (lines, expected) in [
            (&["gzip, deflate, br, zstd"][..], "br"),
            (&["gzip", "br;q=0.5"], "gzip"),
            (&["deflate, GZIP;q=0.1"], "gzip"),
            (&["deflate"], "identity"),
            (&[], "identity"),
            (&[""], "identity"),
            (&["*"], "br"),
            (&["br;q=0, *;q=0.5"], "gzip"),
            (&["identity, gzip;q=0.5"], "identity"),
            (&["br;q=0,gzip;q=0.000"], "identity"),
            (&["identity;q=0, deflate"], "identity;q=0, deflate"),
            (&["*;q=0"], "*;q=0"),
            (&["gzip;q=2"], "gzip;q=2"),
            (&["gzip;level=1"], "gzip;level=1"),
            (&["gzip;q=0.5;x"], "gzip;q=0.5;x"),
            (&["gzip;q=0.0001"], "gzip;q=0.0001"),
            (&["g zip"], "g zip"),
        ] {
            assert_eq!(
                normal(&["br", "gzip"], header::ACCEPT_ENCODING, lines).as_deref(),
                Some(expected),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn languages_become_the_best_supported_one() {
        for (lines, expected) in [
            (&["de-CH, en;q=0.5"][..], Some("de")),
            (&["fr, en-us;q=0.5, de;q=0.9"], Some("de")),
            (&["pt"], Some("pt-BR")),
            (&["pt-PT"], None),
            (&["PT-br-x-y"], Some("pt-BR")),
            (&["fr"], None),
            (&["*"], None),
            (&["fr, *;q=0.5"], None),
            (&["en;q=0, en-GB"], None),
            (&["fr, *;q=0"], Some("fr, *;q=0")),
            (&["en", "de"], Some("en")),
            (&["e n"], Some("e n")),
            (&[], None),
        ] {
            assert_eq!(
                normal(&["en", "de", "pt-BR"], header::ACCEPT_LANGUAGE, lines).as_deref(),
                expected,
                "{lines:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_value_has_a_normal_form(value in "[a-z*;q=01., -]{0,30}") {
            normal(&["br", "gzip"], header::ACCEPT_ENCODING, &[&value]);
            normal(&["en", "de-CH"], header::ACCEPT_LANGUAGE, &[&value]);
        }
    }
}
