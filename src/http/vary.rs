//! `Vary`: which request header fields select an answer (RFC 9111 §4.1).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use super::{cache_control::split_list, fields::lines};

/// What a response's `Vary` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    /// Nothing selects: one answer for all.
    Nothing,
    /// `*`, or what cannot be read: the answer fits no other request.
    Anything,
    /// These request fields, sorted, each once.
    Fields(Arc<[HeaderName]>),
}

impl Vary {
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut fields = Vec::new();
        for element in headers.get_all(header::VARY).iter().flat_map(|line| split_list(line.as_bytes())) {
            match HeaderName::from_bytes(element) {
                Ok(name) if element != b"*" => fields.push(name),
                _ => return Self::Anything,
            }
        }
        fields.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        fields.dedup();
        if fields.is_empty() { Self::Nothing } else { Self::Fields(fields.into()) }
    }
}

/// The values that a request has for the selecting fields of a response.
///
/// Values are compared after joining field lines and dropping white space round commas, as
/// §4.1 allows; an absent field is not an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Selection {
    fields: Arc<[HeaderName]>,
    values: Box<[Option<Box<[u8]>>]>,
}

impl Selection {
    pub(crate) fn new(fields: &Arc<[HeaderName]>, request: &HeaderMap) -> Self {
        let values = fields.iter().map(|name| normalised(request, name)).collect();
        Self { fields: Arc::clone(fields), values }
    }

    /// Whether a request with these fields would be selected too.
    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        self.fields.iter().zip(&self.values).all(|(name, value)| same(value.as_deref(), request, name))
    }

    pub(crate) fn fields(&self) -> &Arc<[HeaderName]> {
        &self.fields
    }

    /// Bytes on the heap, for the store's books.
    pub(crate) fn heap_bytes(&self) -> usize {
        let values: usize = self.values.iter().flatten().map(|value| value.len()).sum();
        values + self.fields.len() * (size_of::<HeaderName>() + size_of::<Option<Box<[u8]>>>())
    }
}

fn same(stored: Option<&[u8]>, request: &HeaderMap, name: &HeaderName) -> bool {
    let mut lines = lines(request, name);
    match (stored, lines.next(), lines.next()) {
        (None, first, _) => first.is_none(),
        (Some(_), None, _) => false,
        // The common case costs no allocation: one line, already in normal form.
        (Some(stored), Some(line), None) if stored == line.as_bytes() => true,
        (Some(stored), ..) => normalised(request, name).as_deref() == Some(stored),
    }
}

fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut value: Option<Vec<u8>> = None;
    for line in request.get_all(name) {
        let value = value.get_or_insert_default();
        for element in split_list(line.as_bytes()) {
            if !value.is_empty() {
                value.push(b',');
            }
            value.extend_from_slice(element);
        }
    }
    value.map(Vec::into_boxed_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn fields(lines: &[&str]) -> Vec<String> {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        match Vary::parse(&map(&lines)) {
            Vary::Fields(fields) => fields.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_come_in_any_case_order_and_number_of_lines() {
        assert_eq!(
            fields(&["Accept-Encoding , ACCEPT", "accept,,x-a"]),
            ["accept", "accept-encoding", "x-a"]
        );
        assert_eq!(Vary::parse(&map(&[])), Vary::Nothing);
        assert_eq!(Vary::parse(&map(&[("vary", " , ")])), Vary::Nothing);
    }

    #[test]
    fn a_star_or_junk_fits_nobody_else() {
        for value in ["*", "accept, *", "a b", "\"accept\"", "accept;q=1", "\u{fc}"] {
            assert_eq!(Vary::parse(&map(&[("vary", value)])), Vary::Anything, "{value}");
        }
        assert_eq!(Vary::parse(&map(&[("vary", "accept"), ("vary", "*")])), Vary::Anything);
    }

    fn matches(first: &[(&'static str, &str)], second: &[(&'static str, &str)]) -> bool {
        let Vary::Fields(fields) = Vary::parse(&map(&[("vary", "accept, x")])) else { unreachable!() };
        Selection::new(&fields, &map(first)).matches(&map(second))
    }

    #[test]
    fn selecting_values_match_up_to_white_space_and_lines() {
        assert!(matches(&[], &[("other", "1")]));
        assert!(matches(&[("accept", "a, b")], &[("accept", "a,b")]));
        assert!(matches(&[("accept", "a"), ("accept", "b")], &[("accept", "a , b")]));
        assert!(matches(&[("accept", "a,b")], &[("accept", "a,b")]));
        assert!(!matches(&[("accept", "a")], &[("accept", "A")]));
        assert!(!matches(&[("accept", "a,b")], &[("accept", "b,a")]));
        assert!(!matches(&[("accept", "a")], &[]));
        assert!(!matches(&[], &[("accept", "")]), "absent is not empty");
        assert!(!matches(&[("accept", "\"a, b\"")], &[("accept", "\"a,b\"")]), "quoted white space counts");
        assert!(!matches(&[("accept", "a"), ("x", "1")], &[("accept", "a"), ("x", "2")]));
    }

    proptest! {
        #[test]
        fn a_request_selects_what_was_stored_for_it(
            accept in proptest::collection::vec("[ -~]{0,12}", 0..3),
            x in proptest::collection::vec("[ -~]{0,12}", 0..3),
        ) {
            let mut request = Vec::new();
            request.extend(accept.iter().map(|value| ("accept", value.as_str())));
            request.extend(x.iter().map(|value| ("x", value.as_str())));
            prop_assert!(matches(&request, &request));
        }

        #[test]
        fn matching_agrees_with_equality_of_selections(
            a in proptest::collection::vec("[ab, \"]{0,6}", 0..3),
            b in proptest::collection::vec("[ab, \"]{0,6}", 0..3),
        ) {
            let fields: Arc<[HeaderName]> = Arc::from([header::ACCEPT]);
            let a: Vec<_> = a.iter().map(|value| ("accept", value.as_str())).collect();
            let b: Vec<_> = b.iter().map(|value| ("accept", value.as_str())).collect();
            let (first, second) = (Selection::new(&fields, &map(&a)), Selection::new(&fields, &map(&b)));
            prop_assert_eq!(first.matches(&map(&b)), first == second);
        }
    }
}
