//! `Cache-Control` of responses (RFC 9111 §5.2.2, RFC 5861, RFC 8246) and of requests (§5.2.1),
//! and the targeted fields that may take its place (RFC 9213).

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::fields;
use crate::work::looked_at;

/// The targeted field for CDN caches, which takes precedence over `Cache-Control` (RFC 9213 §3).
pub(crate) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The longest lifetime: 2^31 seconds (RFC 9111 §1.2.2), 68 years.
pub(crate) const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// The directives of a response that mean something to a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheControl {
    no_store: bool,
    no_cache: bool,
    private: bool,
    public: bool,
    must_revalidate: bool,
    proxy_revalidate: bool,
    must_understand: bool,
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
    withheld: Vec<HeaderName>,
    is_targeted: bool,
    /// A directive that forbids stale responses, in a member that is no single directive. What such a
    /// member allows does not count.
    must_revalidate_loosely: bool,
}

impl CacheControl {
    /// Returns the directives of the first valid field of `targets`, which replace those of `Cache-Control`
    /// (RFC 9213 §2.2).
    pub(super) fn targeted(headers: &HeaderMap, targets: &[HeaderName]) -> Option<Self> {
        targets.iter().find_map(|name| Self::parse(headers, name))
    }

    /// Adds the directives of one line of `Cache-Control`.
    pub(super) fn read(&mut self, line: &HeaderValue) {
        for member in fields::split_list(line.as_bytes()) {
            match Member::of(member) {
                Member::Directive(name, argument) => self.take(&in_lower_case(name), argument),
                Member::Words(words) => words.for_each(|word| self.take_loosely(word)),
            }
        }
    }

    /// Adds what a word forbids where the grammar has no directive, as in `private; max-age=60`. A lifetime
    /// counts if it is the shortest.
    fn take_loosely(&mut self, (word, argument): (&[u8], Option<&[u8]>)) {
        match &*in_lower_case(word) {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"must-revalidate" | b"proxy-revalidate" => self.must_revalidate_loosely = true,
            lifetime @ (b"max-age" | b"s-maxage") => {
                // It implies `proxy-revalidate` (§5.2.2.10).
                self.must_revalidate_loosely |= *lifetime == *b"s-maxage";
                let age = if self.s_maxage.is_some() { &mut self.s_maxage } else { &mut self.max_age };
                // An unreadable lifetime is zero if it is the first, as for a directive.
                let own = delta_seconds(argument).or(*age).unwrap_or_default();
                *age = Some(age.map_or(own, |before| before.min(own)));
            }
            _ => {}
        }
    }

    /// Parses a structured field (RFC 9213 §2.1). An empty or invalid one is ignored as a whole, unless a
    /// word in it forbids something; a member of the wrong type is ignored.
    fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        if !fields::has(headers, name) {
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
                // `max-age=60;private`: the parameters of a member have no meaning of their own.
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

    /// Whether the directives come from a targeted field, beside which `Cache-Control` and `Expires` do not
    /// count (RFC 9213 §2.2).
    pub(super) fn is_targeted(&self) -> bool {
        self.is_targeted
    }

    /// Whether the response must not be stored. With `must-understand`, `no-store` is only for caches that
    /// do not know what the status requires of them (RFC 9111 §5.2.2.3).
    pub(super) fn forbids_storing(&self, is_status_understood: bool) -> bool {
        match self.must_understand {
            true => !is_status_understood,
            false => self.no_store,
        }
    }

    /// Whether the whole response is for one client.
    pub(super) fn is_private(&self) -> bool {
        self.private
    }

    pub(super) fn is_public(&self) -> bool {
        self.public
    }

    /// Whether each use needs a revalidation.
    pub(super) fn is_no_cache(&self) -> bool {
        self.no_cache
    }

    /// Whether requests with `Authorization` may share the response (RFC 9111 §3.5).
    pub(super) fn allows_authorization(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// The explicit lifetime in a shared cache.
    pub(super) fn lifetime(&self) -> Option<Duration> {
        self.s_maxage.or(self.max_age)
    }

    /// RFC 5861 §3.
    pub(super) fn stale_while_revalidate(&self) -> Option<Duration> {
        self.stale_while_revalidate
    }

    /// RFC 5861 §4.
    pub(super) fn stale_if_error(&self) -> Option<Duration> {
        self.stale_if_error
    }

    /// The fields that `no-cache` and `private` name, which no other client may get (RFC 9111 §5.2.2.4,
    /// §5.2.2.7). Without names these directives are about the whole response.
    pub(super) fn withheld(&self) -> &[HeaderName] {
        &self.withheld
    }

    /// Whether stale responses are forbidden explicitly (RFC 9111 §4.2.4).
    pub(super) fn forbids_stale(&self) -> bool {
        self.demands_revalidation() || self.s_maxage.is_some()
    }

    /// Like [`forbids_stale`](Self::forbids_stale), also within the windows that the response gives itself.
    pub(super) fn demands_revalidation(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.must_revalidate_loosely || self.no_cache
    }

    /// The first of repeated directives counts (RFC 9111 §4.2.1). An unreadable lifetime is zero; an
    /// unreadable window counts as absent.
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

    /// Withholds the named fields. Returns false if there are none or one is invalid: then the directive is
    /// about the whole response, which is the stricter reading.
    fn withhold(&mut self, argument: Option<&[u8]>) -> bool {
        let names = argument.map(unquoted).into_iter().flat_map(fields::split_list);
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
    /// How stale a response may be: [`MAX_DELTA`] without an argument.
    pub(crate) max_stale: Option<Duration>,
}

impl RequestDirectives {
    /// Parses `Cache-Control`, or in its absence `Pragma: no-cache` (RFC 9111 §5.4).
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut parsed = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            let mut pragmas = headers.get_all(header::PRAGMA).iter().flat_map(|line| words(line.as_bytes()));
            parsed.no_cache = pragmas.any(|(pragma, _)| pragma.eq_ignore_ascii_case(b"no-cache"));
            return parsed;
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            for member in fields::split_list(line.as_bytes()) {
                match Member::of(member) {
                    Member::Directive(name, argument) => parsed.take(&in_lower_case(name), argument),
                    Member::Words(words) => words.for_each(|(word, _)| parsed.take_loosely(word)),
                }
            }
        }
        parsed
    }

    /// Like [`CacheControl::take_loosely`].
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

/// A list member of `Cache-Control`.
enum Member<'a, W> {
    Directive(&'a [u8], Option<&'a [u8]>),
    /// Not a single directive by the grammar (§5.2).
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

/// A word, and its argument after an equals sign.
type Word<'a> = (&'a [u8], Option<&'a [u8]>);

/// Returns the words outside quoted strings. An unclosed quotation mark quotes nothing.
fn words(text: &[u8]) -> impl Iterator<Item = Word<'_>> {
    looked_at(text.len());
    let mut rest = text;
    // After an unclosed mark all others are escaped, and none of them can be closed either.
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

/// Returns the argument that `text` begins with, or an unreadable one unless a word follows it.
fn argument_of(text: &[u8]) -> &[u8] {
    let (argument, after) = text.split_at(argument_length(text));
    let next =
        after.iter().inspect(|_| looked_at(1)).find(|byte| !matches!(byte, b' ' | b'\t' | b';' | b','));
    if next.is_none_or(u8::is_ascii_alphabetic) { argument } else { b" " }
}

/// The length of the token or quoted string that `text` begins with.
fn argument_length(text: &[u8]) -> usize {
    match text.strip_prefix(b"\"").and_then(closed_by) {
        Some(at) => at + 2,
        None => text.iter().inspect(|_| looked_at(1)).position(|byte| !is_token(*byte)).unwrap_or(text.len()),
    }
}

/// The position of the closing quotation mark, after the opening one.
fn closed_by(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        looked_at(1);
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

/// Whether this is a token or a quoted string, and no word in it forbids anything.
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

/// Borrowed if it is in lower case, as nearly all names are.
fn in_lower_case(name: &[u8]) -> Cow<'_, [u8]> {
    match name.iter().any(u8::is_ascii_uppercase) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// Whether the argument of a directive is a number of seconds.
fn is_lifetime(name: &[u8]) -> bool {
    matches!(name, b"max-age" | b"s-maxage" | b"stale-while-revalidate" | b"stale-if-error")
}

/// Parses whole seconds, as a token or quoted. Larger numbers mean the largest (§1.2.2).
fn delta_seconds(argument: Option<&[u8]>) -> Option<Duration> {
    seconds(unquoted(argument?))
}

fn unquoted(argument: &[u8]) -> &[u8] {
    argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument)
}

/// Whole seconds, at most [`MAX_DELTA`].
pub(crate) fn seconds(text: &[u8]) -> Option<Duration> {
    fields::digits(text).map(|number| Duration::from_secs(number).min(MAX_DELTA))
}

#[cfg(test)]
#[path = "cache_control_tests.rs"]
mod tests;
