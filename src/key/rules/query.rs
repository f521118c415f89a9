//! Which parameters of a query are in the key.
//!
//! One function reads queries for the key, for the identity of a URL, and for what reaches the origin.

use std::{borrow::Cow, collections::HashSet, iter, ops::Range};

use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use super::error::Problem;
use crate::work;

/// Parameters as written, `name=value`.
pub(super) type Parameters<'q> = SmallVec<[&'q str; 8]>;

/// The same with their decoded names.
type NamedParameters<'q> = SmallVec<[(Cow<'q, str>, &'q str); 8]>;

/// Parsers of frameworks read a thousand parameters or fewer, and differ in which ones they drop. Of more
/// parameters than these none is left out, so that every server reads what the key holds.
pub(super) const MAX_READ: usize = 256;

/// The order of more parameters than these counts.
const MAX_SORTED: usize = 256;

/// Which parameters count, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct QueryRules {
    /// Whether the origin also sees the parameters that do not count.
    forwards: bool,
    /// None: all but the ignored ones.
    keep: Option<Box<[ParameterName]>>,
    ignore: Box<[ParameterName]>,
    sorts: bool,
    drops_empty: bool,
}

/// The name of a parameter, or a prefix, which is written with a `*` at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ParameterName {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl ParameterName {
    /// # Errors
    ///
    /// No parameter can have this name.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        let is_name = !name.contains(['*', '&', '=', ';', ',']) && !name.contains(char::is_control);
        match is_prefix {
            _ if !is_name || is_prefix && name.is_empty() => Err(Problem::Parameter(text.into())),
            true => Ok(Self::Prefix(name.into())),
            false => Ok(Self::Exact(name.into())),
        }
    }

    pub(super) fn parse_all(names: &[String]) -> Result<Box<[Self]>, Problem> {
        names.iter().map(|name| Self::parse(name)).collect()
    }

    /// Whether it matches all names that the other one matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix(own), Self::Prefix(name) | Self::Exact(name)) => name.starts_with(&**own),
            (Self::Exact(own), Self::Exact(name)) => own == name,
            (Self::Exact(_), Self::Prefix(_)) => false,
        }
    }

    pub(super) fn is(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => work::is_same(own.as_bytes(), name.as_bytes()),
            Self::Prefix(start) => name.starts_with(&**start),
        }
    }

    /// Whether some framework may take `name` for this one: in another case, with `.` for `_` as in PHP, or as an
    /// element `name[..]`.
    pub(super) fn resembles(&self, name: &str) -> bool {
        let begins = |name: &str, start: &str| {
            let mut rest = folded(name);
            folded(start).all(|byte| rest.next() == Some(byte))
        };
        match self {
            Self::Exact(own) => resemble(own, name),
            Self::Prefix(start) => begins(name, start) || begins(base(name), start),
        }
    }
}

/// Whether some framework may take `name` for `own`; see [`ParameterName::resembles`].
pub(in crate::key) fn resemble(own: &str, name: &str) -> bool {
    [name, base(name)].into_iter().any(|name| folded(name).eq(folded(own)))
}

/// Folds what frameworks are known to treat alike. PHP ends a name at a NUL.
fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.trim_start_matches(' ').bytes().take_while(|byte| *byte != 0).map(|byte| {
        work::looked_at(1);
        match byte {
            b'.' | b' ' | b'[' => b'_',
            other => other.to_ascii_lowercase(),
        }
    })
}

impl QueryRules {
    /// Without `keep`, all parameters but those of `ignore` count.
    pub(super) fn new(keep: Option<Box<[ParameterName]>>, ignore: Box<[ParameterName]>) -> Self {
        Self { keep, ignore, ..Self::default() }
    }

    pub(super) fn sorted(self, sorts: bool) -> Self {
        Self { sorts, ..self }
    }

    pub(super) fn without_empty(self, drops_empty: bool) -> Self {
        Self { drops_empty, ..self }
    }

    pub(super) fn forwarding(self, forwards: bool) -> Self {
        Self { forwards, ..self }
    }

    /// The parameters that count. `None` if the query can be read in several ways, or has more parameters than all
    /// servers read: then all of it counts as written.
    pub(super) fn select<'q>(&self, query: Option<&'q str>) -> Option<Parameters<'q>> {
        let Some(query) = query else { return Some(Parameters::new()) };
        let mut chosen: NamedParameters<'q> = SmallVec::new();
        let mut all = 0;
        for (name, pair) in read(query) {
            let name = name?;
            all += 1;
            if self.counts(&name) {
                chosen.push((name, pair));
            } else if all > MAX_READ || self.forwards && hides_another(pair) {
                return None;
            }
        }
        if all > MAX_READ && (chosen.len() < all || self.drops_empty) {
            return None;
        }
        if self.drops_empty {
            drop_empty(&mut chosen);
        }
        if self.sorts {
            return (chosen.len() <= MAX_SORTED).then(|| sorted(&chosen));
        }
        Some(chosen.into_iter().map(|(_, pair)| pair).collect())
    }

    fn counts(&self, name: &str) -> bool {
        match &self.keep {
            // A parameter too many in the key costs an entry. One too few would mix up responses.
            Some(keep) => keep.iter().any(|kept| kept.resembles(name)),
            None => !self.ignore.iter().any(|ignored| ignored.is(name)),
        }
    }
}

/// A parameter with its folded name, and the byte of the name by which it is sorted next.
struct FoldedParameter<'q> {
    name: SmallVec<[u8; 24]>,
    next: Option<u8>,
    pair: &'q str,
}

/// Sorts parameters by name, where names that a framework could take for the same one keep their order, which may
/// have a meaning.
///
/// Reads each byte once: comparing names in pairs would read long common prefixes again and again.
fn sorted<'q>(pairs: &NamedParameters<'q>) -> Parameters<'q> {
    let folded = |(name, pair): &(Cow<'q, str>, &'q str)| {
        let name = folded(base(name)).collect();
        FoldedParameter { name, next: None, pair }
    };
    let mut sorted: SmallVec<[FoldedParameter<'q>; 8]> = pairs.iter().map(folded).collect();
    // Groups of names, and the length of their common prefix.
    let mut groups: SmallVec<[(Range<usize>, usize); 8]> = SmallVec::from_iter([(0..sorted.len(), 0)]);
    while let Some((range, common)) = groups.pop() {
        let group = &mut sorted[range.clone()];
        if group.len() < 2 {
            continue;
        }
        work::looked_at(group.len());
        group.iter_mut().for_each(|folded| folded.next = folded.name.get(common).copied());
        group.sort_by_key(|folded| folded.next);
        let mut start = range.start;
        for same in group.chunk_by(|a, b| a.next == b.next) {
            let end = start + same.len();
            if same.iter().any(|folded| folded.next.is_some()) {
                groups.push((start..end, common + 1));
            }
            start = end;
        }
    }
    sorted.into_iter().map(|folded| folded.pair).collect()
}

/// The decoded values of all parameters that some framework may take for this one, also if it separates at `;`.
/// Values may be repeated.
pub(super) fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = Cow<'q, str>> {
    work::looked_at(query.len());
    let by_both = query.contains(';').then(|| query.split(['&', ';']));
    query.split('&').chain(by_both.into_iter().flatten()).filter_map(move |pair| {
        let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
        let own = decode(own).unwrap_or(Cow::Borrowed(own));
        resemble(name, &own).then(|| decode(value).unwrap_or(Cow::Borrowed(value)))
    })
}

/// Whether a parser that decodes a query before splitting it finds another parameter in this one.
pub(super) fn hides_another(pair: &str) -> bool {
    work::looked_at(pair.len());
    let octets = pair.as_bytes().windows(3);
    octets.into_iter().any(|octet| matches!(octet, b"%26" | b"%3b" | b"%3B"))
}

/// Drops parameters with an empty value, unless another parameter of the same name has a value: frameworks differ
/// in which one they take. A name alone (`?debug`) stays.
fn drop_empty(pairs: &mut NamedParameters<'_>) {
    let is_empty = |pair: &str| match pair.split_once('=') {
        Some((_, value)) => value.is_empty(),
        None => pair.is_empty(),
    };
    if !pairs.iter().any(|(_, pair)| is_empty(pair)) {
        return;
    }
    let folded = |name: &str| folded(base(name)).collect::<Vec<u8>>();
    let with_value: HashSet<Vec<u8>> =
        pairs.iter().filter(|(_, pair)| !is_empty(pair)).map(|(name, _)| folded(name)).collect();
    pairs.retain(|(name, pair)| !is_empty(pair) || !pair.is_empty() && with_value.contains(&folded(name)));
}

/// The name without an element: `a` of `a[b]`, and of `[a]` as in Rack and `qs`.
fn base(name: &str) -> &str {
    const BRACKETS: [char; 2] = ['[', ']'];
    name.trim_start_matches(BRACKETS).split(BRACKETS).next().unwrap_or_default()
}

/// The parameters of a query (the `application/x-www-form-urlencoded` parser of the WHATWG URL
/// standard, §5.1), each with its decoded name, or `None` if that can be read in several ways.
pub(super) fn read(query: &str) -> impl Iterator<Item = (Option<Cow<'_, str>>, &str)> {
    work::looked_at(query.len());
    // Some frameworks also separate at `;`: `a=1;b=2` is one parameter or two.
    let is_clear = !query.contains(';');
    query.split('&').map(move |pair| (is_clear.then(|| name_of(pair)).flatten(), pair))
}

/// The decoded name of a parameter, unless it is ambiguous.
fn name_of(pair: &str) -> Option<Cow<'_, str>> {
    decode(pair.split('=').next()?)
}

/// Decodes `+` to a space, and `%` to octets of UTF-8. `None` if some decoders refuse or cut the text.
pub(super) fn decode(text: &str) -> Option<Cow<'_, str>> {
    work::looked_at(text.len());
    let is_verbatim = |byte: u8| !byte.is_ascii_control() && byte != b'%' && byte != b'+';
    if text.bytes().all(is_verbatim) {
        return Some(Cow::Borrowed(text));
    }
    let digits_follow = |at: usize| {
        let digits = text.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    let is_valid = text.match_indices('%').all(|(at, _)| digits_follow(at));
    (is_valid && is_plain(&decoded)).then(|| Cow::Owned(decoded.into_owned()))
}

fn is_plain(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_control())
}

/// A query of these parameters.
pub(super) fn write(pairs: &[&str]) -> String {
    let separators = iter::once("").chain(iter::repeat("&"));
    separators.zip(pairs).flat_map(|(separator, pair)| [separator, pair]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Box<[ParameterName]> {
        names.iter().map(|name| ParameterName::parse(name).unwrap()).collect()
    }

    fn select(rules: &QueryRules, query: &str) -> Option<String> {
        rules.select(Some(query)).map(|pairs| write(&pairs))
    }

    fn keep(kept: &[&str]) -> QueryRules {
        QueryRules::new(Some(names(kept)), Box::default())
    }

    fn ignore(ignored: &[&str]) -> QueryRules {
        QueryRules::new(None, names(ignored))
    }

    #[test]
    fn kept_parameters_stay_as_written() {
        for (query, expected) in [
            ("a=1&b=2", "a=1"),
            ("b=2&a=%31", "a=%31"),
            ("a=1&a=2", "a=1&a=2"),
            ("%61=1", "%61=1"),
            ("a", "a"),
            ("a=", "a="),
            ("", ""),
            ("b", ""),
            ("a=100%", "a=100%"),
            ("aa=1", ""),
        ] {
            assert_eq!(select(&keep(&["a"]), query).as_deref(), Some(expected), "{query}");
        }
        assert_eq!(keep(&["a"]).select(None), Some(Parameters::new()));
    }

    /// Otherwise the response to `A=2` would be stored for all requests without `a`.
    #[test]
    fn names_that_a_framework_could_take_for_a_kept_one_are_kept_too() {
        for query in [
            "[a]=1",
            "[[a=1",
            "[]a=1",
            "a]=1",
            "%5Ba%5D=1",
            "A=1",
            "a[]=1",
            "a[b][c]=1",
            "%41=1",
            "+a=1",
            "%20a=1",
            "a%5B0%5D=1",
        ] {
            assert_eq!(select(&keep(&["a"]), query).as_deref(), Some(query));
        }
        for query in ["a.b=1", "a+b=1", "a_b=1", "A[b=1", "a%2eb=1", "a%5bb=1"] {
            assert_eq!(select(&keep(&["a_b"]), query).as_deref(), Some(query));
        }
        assert_eq!(select(&keep(&["filter_*"]), "Filter.x=1&filte=2").as_deref(), Some("Filter.x=1"));
    }

    #[test]
    fn ignored_names_and_prefixes_match_decoded_and_exactly() {
        let rules = ignore(&["utm_*", "gclid"]);
        for (query, expected) in [
            ("utm_source=x&a=1&gclid=2", "a=1"),
            ("%75tm_source=x&a=1", "a=1"),
            ("utm=x&gclid2=1", "utm=x&gclid2=1"),
            ("UTM_source=x&utm.a=1", "UTM_source=x&utm.a=1"),
            ("a=1&&b", "a=1&&b"),
            ("", ""),
        ] {
            assert_eq!(select(&rules, query).as_deref(), Some(expected), "{query}");
        }
    }

    /// Parameter cloaking: one server reads an ignored parameter where another reads one that counts.
    #[test]
    fn ambiguous_queries_count_entirely() {
        for query in ["utm_source=x;a=2", "utm_a=1&b;c", "utm_%zz=1", "utm_%", "utm_%ff=1", "utm_%00=1"] {
            assert_eq!(select(&ignore(&["utm_*"]), query), None, "{query}");
            assert_eq!(select(&keep(&["a"]), query), None, "{query}");
        }
    }

    /// An ignored parameter must not hide one that counts.
    #[test]
    fn queries_with_a_forwarded_parameter_that_could_hide_another_count_entirely() {
        let forwarding = keep(&["a"]).forwarding(true);
        for query in ["a=1&x=%26a=2", "a=1&x%3ba=2", "x=%3Ba=2"] {
            assert_eq!(select(&forwarding, query), None, "{query}");
            assert!(select(&keep(&["a"]), query).is_some(), "{query}");
        }
        assert_eq!(select(&forwarding, "a=1%26b&x=2").as_deref(), Some("a=1%26b"));
    }

    /// A server that reads a thousand parameters may take another `a` than one that reads all.
    #[test]
    fn queries_of_more_parameters_than_every_server_reads_count_entirely() {
        let drop = QueryRules::default().without_empty(true);
        let forwarding = keep(&["a"]).forwarding(true);
        for rules in [keep(&["a"]), ignore(&["x"]), forwarding, drop] {
            let query = |count: usize| format!("x&{}a=2", "a=1&".repeat(count - 2));
            assert!(select(&rules, &query(MAX_READ)).is_some());
            assert_eq!(select(&rules, &query(MAX_READ + 1)), None);
        }
        let many = "a=1&".repeat(1_000);
        assert!(select(&keep(&["a"]), &format!("{many}a=2")).is_some(), "nothing is left out");
    }

    #[test]
    fn sorting_keeps_the_order_within_a_name() {
        let sort = QueryRules::default().sorted(true);
        for (query, expected) in [
            ("b=1&a=2", "a=2&b=1"),
            ("a=2&b=0&a=1", "a=2&a=1&b=0"),
            ("a[1]=x&b&a[0]=y", "a[1]=x&a[0]=y&b"),
            ("%61=2&a=1", "%61=2&a=1"),
            ("A=2&a=1", "A=2&a=1"),
        ] {
            assert_eq!(select(&sort, query).as_deref(), Some(expected), "{query}");
        }
    }

    #[test]
    fn empty_parameters_are_dropped_on_request() {
        let drop = QueryRules::default().without_empty(true);
        assert_eq!(select(&drop, "a=&b&&c=1&=2").as_deref(), Some("b&c=1&=2"));
        assert_eq!(select(&QueryRules::default(), "a=&b&&c=1").as_deref(), Some("a=&b&&c=1"));
    }

    #[test]
    fn invalid_parameter_names_are_refused() {
        for name in ["*", "a*b", "a&b", "a=", "a;", "a\n"] {
            assert!(ParameterName::parse(name).is_err(), "{name:?}");
        }
        assert_eq!(ParameterName::parse("a*"), Ok(ParameterName::Prefix("a".into())));
        assert!(ParameterName::parse("").is_ok(), "the parameter without a name");
    }
}
