//! `Cache-Control` of responses (RFC 9111 §5.2.2, RFC 5861, RFC 8246) and of requests (§5.2.1),
//! and the targeted fields that may take its place (RFC 9213).

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::fields::has;
use crate::work::looked_at;

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
    /// A directive that forbids stale responses, in a member that is no single directive. What such a
    /// member allows does not count.
    pub(crate) must_revalidate_loosely: bool,
}

impl CacheControl {
    /// What the first valid field of `targets` says, which takes the place of `Cache-Control` (RFC 9213
    /// §2.2).
    pub(crate) fn targeted(headers: &HeaderMap, targets: &[HeaderName]) -> Option<Self> {
        targets.iter().find_map(|name| Self::parse(headers, name))
    }

    /// Takes what one more line of `Cache-Control` says.
    pub(super) fn read(&mut self, line: &HeaderValue) {
        for member in split_list(line.as_bytes()) {
            match Member::of(member) {
                Member::Directive(name, argument) => self.take(&in_lower_case(name), argument),
                Member::Words(words) => words.for_each(|word| self.take_loosely(word)),
            }
        }
    }

    /// Takes what a word forbids that stands where no directive may stand, as in
    /// `private; max-age=60`. A lifetime counts if it is the shortest.
    fn take_loosely(&mut self, (word, argument): (&[u8], Option<&[u8]>)) {
        match &*in_lower_case(word) {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"must-revalidate" | b"proxy-revalidate" => self.must_revalidate_loosely = true,
            lifetime @ (b"max-age" | b"s-maxage") => {
                // It has the meaning of `proxy-revalidate` as well (§5.2.2.10).
                self.must_revalidate_loosely |= *lifetime == *b"s-maxage";
                let age = if self.s_maxage.is_some() { &mut self.s_maxage } else { &mut self.max_age };
                // One that cannot be read is none, as of a directive: if it is the first.
                let own = delta_seconds(argument).or(*age).unwrap_or_default();
                *age = Some(age.map_or(own, |before| before.min(own)));
            }
            _ => {}
        }
    }

    /// A structured field (RFC 9213 §2.1). One that is empty or cannot be parsed is ignored as a
    /// whole, unless a word in it forbids something; a member of the wrong type is ignored.
    fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        if !has(headers, name) {
            return None;
        }
        let lines = headers.get_all(name).iter().map(|line| line.as_bytes());
        let joined = lines.collect::<Vec<_>>().join(&b", "[..]);
        let mut parsed = Self { is_targeted: true, ..Self::default() };
        let Ok(members) = Parser::new(&joined).parse::<Dictionary>() else {
            words(&joined).for_each(|word| parsed.take_loosely(word));
            let forbids = parsed.no_store || parsed.private || parsed.no_cache;
            return forbids.then_some(parsed);
        };
        if members.is_empty() {
            return None;
        }
        for (name, member) in &members {
            if let ListEntry::Item(item) = member {
                parsed.take_member(name.as_str(), item);
                // `max-age=60;private`: the parameters of a member mean nothing by themselves.
                item.params.keys().for_each(|name| parsed.take_loosely((name.as_str().as_bytes(), None)));
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
        self.demands_revalidation() || self.s_maxage.is_some()
    }

    /// As [`forbids_stale`](Self::forbids_stale), also in the windows that the response names itself.
    pub(crate) fn demands_revalidation(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.must_revalidate_loosely || self.no_cache
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
            let mut pragmas = headers.get_all(header::PRAGMA).iter().flat_map(|line| words(line.as_bytes()));
            parsed.no_cache = pragmas.any(|(pragma, _)| pragma.eq_ignore_ascii_case(b"no-cache"));
            return parsed;
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            for member in split_list(line.as_bytes()) {
                match Member::of(member) {
                    Member::Directive(name, argument) => parsed.take(&in_lower_case(name), argument),
                    Member::Words(words) => words.for_each(|(word, _)| parsed.take_loosely(word)),
                }
            }
        }
        parsed
    }

    /// As [`CacheControl::take_loosely`].
    fn take_loosely(&mut self, word: &[u8]) {
        match &*in_lower_case(word) {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"max-age" => self.max_age = Some(Duration::ZERO),
            _ => {}
        }
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

/// A member of the list that `Cache-Control` is.
enum Member<'a, W> {
    Directive(&'a [u8], Option<&'a [u8]>),
    /// Several things in one, or none that the grammar knows (§5.2).
    Words(W),
}

impl<'a> Member<'a, ()> {
    fn of(member: &'a [u8]) -> Member<'a, impl Iterator<Item = Word<'a>>> {
        let mut halves = member.splitn(2, |byte| *byte == b'=');
        let (name, argument) = (halves.next().unwrap_or_default(), halves.next());
        match name.iter().copied().all(is_in_word) && argument.is_none_or(is_argument) {
            true => Member::Directive(name, argument),
            false => Member::Words(words(member)),
        }
    }
}

/// A word, and what follows it after an equals sign.
type Word<'a> = (&'a [u8], Option<&'a [u8]>);

/// The words outside of quoted strings. A quotation mark that is never closed quotes nothing.
fn words(text: &[u8]) -> impl Iterator<Item = Word<'_>> {
    looked_at(text.len());
    let mut rest = text;
    // After a mark that is never closed all others are escaped, and none of them is closed either.
    let mut are_closed = true;
    std::iter::from_fn(move || {
        loop {
            let (first, after) = rest.split_first()?;
            match first {
                b'"' if are_closed => match closed_by(after) {
                    Some(at) => rest = &after[at + 1..],
                    None => (rest, are_closed) = (after, false),
                },
                byte if is_in_word(*byte) => break,
                _ => rest = after,
            }
        }
        let (word, after) = rest.split_at(word_length(rest));
        rest = after;
        let argument = after.strip_prefix(b"=").map(argument_of);
        Some((word, argument))
    })
}

fn word_length(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_in_word(*byte)).unwrap_or(text.len())
}

/// The argument that `text` begins with; an unreadable one if what follows is no word.
fn argument_of(text: &[u8]) -> &[u8] {
    let (argument, after) = text.split_at(argument_length(text));
    let next =
        after.iter().inspect(|_| looked_at(1)).find(|byte| !matches!(byte, b' ' | b'\t' | b';' | b','));
    if next.is_none_or(u8::is_ascii_alphabetic) { argument } else { b" " }
}

/// Up to where a token or a quoted string reaches.
fn argument_length(text: &[u8]) -> usize {
    match text.strip_prefix(b"\"").and_then(closed_by) {
        Some(at) => at + 2,
        None => text.iter().inspect(|_| looked_at(1)).position(|byte| !is_token(*byte)).unwrap_or(text.len()),
    }
}

/// Where a quoted string ends whose opening quotation mark has been read.
fn closed_by(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        looked_at(1);
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

/// Whether this is a token or a quoted string, and without a word of its own that forbids.
fn is_argument(argument: &[u8]) -> bool {
    let forbidding: [&[u8]; 3] = [b"no-store", b"no-cache", b"private"];
    let forbids = |word: &[u8]| forbidding.iter().any(|other| word.eq_ignore_ascii_case(other));
    argument_length(argument) == argument.len() && !words(argument).any(|(word, _)| forbids(word))
}

/// RFC 9110 §5.6.2.
const fn is_token(byte: u8) -> bool {
    is_in_word(byte) || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~')
}

const fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
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

#[cfg(test)]
#[path = "cache_control_tests.rs"]
mod tests;
