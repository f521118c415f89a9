//! `Cache-Control` of responses (RFC 9111 §5.2.2, RFC 5861, RFC 8246) and of requests (§5.2.1),
//! and the targeted fields that may take its place (RFC 9213).

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::fields::has;

/// The longest lifetime that is told apart: 2^31 seconds (RFC 9111 §1.2.2), 68 years.
pub(crate) const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// The directives of a response that mean something to a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheControl {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// The fields that `no-cache` and `private` name, which no other client may get
    /// (§5.2.2.4, §5.2.2.7). Without names these directives are about the whole response.
    pub(crate) withheld: Vec<HeaderName>,
    /// Whether a targeted field said all this: then `Cache-Control` and `Expires` count for nothing.
    pub(crate) is_targeted: bool,
}

impl CacheControl {
    /// What the first valid field of `targets` says, which takes the place of `Cache-Control` (RFC 9213
    /// §2.2).
    pub(crate) fn targeted(headers: &HeaderMap, targets: &[HeaderName]) -> Option<Self> {
        targets.iter().find_map(|name| Self::parse(headers, name))
    }

    /// Takes what one more line of `Cache-Control` says.
    pub(super) fn read(&mut self, line: &HeaderValue) {
        for directive in split_list(line.as_bytes()) {
            let (name, argument) = name_and_argument(directive);
            self.take(&in_lower_case(name), argument);
        }
    }

    /// A structured field (RFC 9213 §2.1). One that is empty or cannot be parsed is ignored as a
    /// whole, and so is a member of the wrong type.
    fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        if !has(headers, name) {
            return None;
        }
        let lines = headers.get_all(name).iter().map(|line| line.as_bytes());
        let joined = lines.collect::<Vec<_>>().join(&b", "[..]);
        let members: Dictionary = Parser::new(&joined).parse().ok()?;
        if members.is_empty() {
            return None;
        }
        let mut parsed = Self { is_targeted: true, ..Self::default() };
        for (name, member) in &members {
            if let ListEntry::Item(item) = member {
                parsed.take_member(name.as_str(), item);
            }
        }
        Some(parsed)
    }

    fn take_member(&mut self, name: &str, item: &Item) {
        match (&item.bare_item, is_lifetime(name.as_bytes())) {
            (BareItem::Integer(seconds), true) => {
                let seconds = i64::from(*seconds).max(0).to_string();
                self.take(name.as_bytes(), Some(seconds.as_bytes()));
            }
            (BareItem::Boolean(true), false) => self.take(name.as_bytes(), None),
            (BareItem::String(fields), false) => {
                self.take(name.as_bytes(), Some(format!("\"{}\"", fields.as_str()).as_bytes()));
            }
            _ => {}
        }
    }

    /// Whether a stale answer is forbidden in so many words (RFC 9111 §4.2.4).
    pub(crate) fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.no_cache || self.s_maxage.is_some()
    }

    /// Of a directive that is there twice the first counts (RFC 9111 §4.2.1). A lifetime that
    /// cannot be read is none; a window that cannot be read was not given.
    fn take(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let lifetime = || delta_seconds(argument).unwrap_or_default();
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache |= !self.withhold(argument),
            b"private" => self.private |= !self.withhold(argument),
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"max-age" => _ = self.max_age.get_or_insert_with(lifetime),
            b"s-maxage" => _ = self.s_maxage.get_or_insert_with(lifetime),
            b"stale-while-revalidate" => {
                self.stale_while_revalidate = self.stale_while_revalidate.or(delta_seconds(argument));
            }
            b"stale-if-error" => self.stale_if_error = self.stale_if_error.or(delta_seconds(argument)),
            _ => {}
        }
    }

    /// Withholds the fields that are named. False if there are none, or not all are names: then
    /// the directive is about the whole response, which is the stricter reading.
    fn withhold(&mut self, argument: Option<&[u8]>) -> bool {
        let names = argument.map(unquoted).into_iter().flat_map(split_list);
        let names: Option<Vec<_>> = names.map(|name| HeaderName::from_bytes(name).ok()).collect();
        match names {
            Some(names) if !names.is_empty() => {
                self.withheld.extend(names);
                true
            }
            _ => false,
        }
    }
}

/// The directives of a request (RFC 9111 §5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_cache: bool,
    pub(crate) no_store: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    /// How stale an answer may be; without an argument, however stale.
    pub(crate) max_stale: Option<Duration>,
}

impl RequestDirectives {
    /// Without `Cache-Control`, `Pragma: no-cache` means `no-cache` (§5.4).
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut parsed = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            let mut pragmas =
                headers.get_all(header::PRAGMA).iter().flat_map(|line| split_list(line.as_bytes()));
            parsed.no_cache = pragmas.any(|pragma| pragma.eq_ignore_ascii_case(b"no-cache"));
            return parsed;
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            for directive in split_list(line.as_bytes()) {
                let (name, argument) = name_and_argument(directive);
                parsed.take(&in_lower_case(name), argument);
            }
        }
        parsed
    }

    fn take(&mut self, name: &[u8], argument: Option<&[u8]>) {
        match name {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => self.max_age = self.max_age.or(Some(delta_seconds(argument).unwrap_or_default())),
            b"min-fresh" => self.min_fresh = self.min_fresh.or(delta_seconds(argument)),
            b"max-stale" => {
                self.max_stale = self.max_stale.or(match argument {
                    None => Some(MAX_DELTA),
                    Some(_) => delta_seconds(argument),
                });
            }
            _ => {}
        }
    }
}

/// White space round the equals sign is not allowed (§5.2). The directive counts all the same,
/// with an argument that cannot be read: to ignore it would be the less strict reading.
fn name_and_argument(directive: &[u8]) -> (&[u8], Option<&[u8]>) {
    match directive.iter().position(|b| *b == b'=') {
        None => (directive, None),
        Some(at) => {
            let name = directive[..at].trim_ascii_end();
            (name, Some(if name.len() == at { &directive[at + 1..] } else { b" " }))
        }
    }
}

/// As nearly all write them.
fn in_lower_case(name: &[u8]) -> Cow<'_, [u8]> {
    match name.iter().any(u8::is_ascii_uppercase) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// Directives whose argument is a number of seconds.
fn is_lifetime(name: &[u8]) -> bool {
    matches!(name, b"max-age" | b"s-maxage" | b"stale-while-revalidate" | b"stale-if-error")
}

/// Whole seconds, as a token or quoted. Too large a number means the largest (§1.2.2).
fn delta_seconds(argument: Option<&[u8]>) -> Option<Duration> {
    seconds(unquoted(argument?))
}

fn unquoted(argument: &[u8]) -> &[u8] {
    argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument)
}

/// A non-empty run of digits, saturating at [`MAX_DELTA`].
pub(crate) fn seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0')));
    Some(Duration::from_secs(number).min(MAX_DELTA))
}

/// The elements of a comma-separated list, trimmed; commas inside quoted strings do not
/// separate (RFC 9110 §5.6.1, §5.6.4). Empty elements are left out.
pub(crate) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
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

#[cfg(test)]
#[path = "cache_control_tests.rs"]
mod tests;
