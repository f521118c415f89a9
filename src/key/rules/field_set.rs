use http::HeaderName;

use super::error::Problem;
use crate::http::fields::is_spelling_of;

/// Names of header fields, and beginnings of names, found without hashing.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldSet {
    /// By their lengths.
    names: Vec<Vec<Box<str>>>,
    prefixes: Vec<Box<str>>,
}

impl FieldSet {
    /// Names as they are written in rules, in any case; one that ends in `*` stands for all that
    /// begin so.
    pub(super) fn parse<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, Problem> {
        let mut set = Self::default();
        for text in names {
            let refused = || Problem::Guard(text.into());
            let (stem, is_prefix) = match text.strip_suffix('*') {
                Some(stem) => (stem, true),
                None => (text, false),
            };
            let name = HeaderName::from_bytes(stem.as_bytes()).map_err(|_| refused())?;
            match is_prefix {
                _ if stem.contains('*') => return Err(refused()),
                true => set.prefixes.push(name.as_str().into()),
                false => set.insert(name.as_str()),
            }
        }
        Ok(set)
    }

    pub(super) fn insert(&mut self, name: &str) {
        if self.names.len() <= name.len() {
            self.names.resize_with(name.len() + 1, Vec::new);
        }
        self.names[name.len()].push(name.into());
    }

    /// Whether a name is in the set, with a dash for each underscore.
    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        let named = self.names.get(name.len());
        named.is_some_and(|names| names.iter().any(|own| is_spelling_of(own.as_bytes(), name)))
            || self.prefixes.iter().any(|prefix| {
                name.get(..prefix.len()).is_some_and(|start| is_spelling_of(prefix.as_bytes(), start))
            })
    }

    /// Whether all names that begin so are in the set.
    pub(super) fn contains_prefix(&self, start: &str) -> bool {
        self.prefixes.iter().any(|own| start.starts_with(&**own))
    }

    /// Takes in all names that begin so.
    pub(super) fn insert_prefix(&mut self, start: &str) {
        self.prefixes.push(start.into());
    }

    /// Whether a name in it may begin so.
    pub(super) fn has_any_with(&self, start: &str) -> bool {
        self.names.iter().flatten().any(|name| name.starts_with(start))
            || self.prefixes.iter().any(|own| own.starts_with(start) || start.starts_with(&**own))
    }

    /// Whether a name is in the set as it is written.
    pub(super) fn contains_exactly(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.names.get(name.len()).is_some_and(|names| names.iter().any(|own| **own == *name))
            || self.prefixes.iter().any(|prefix| name.starts_with(&**prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whole_and_by_their_beginnings() {
        let set = FieldSet::parse(["X-Host", "x-forwarded-*"]).unwrap();
        for (name, is_in, is_in_exactly) in [
            ("x-host", true, true),
            ("x_host", true, false),
            ("x-forwarded-for", true, true),
            ("x_forwarded_for", true, false),
            ("x-forwarded", false, false),
            ("x-hosts", false, false),
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!((set.contains(&name), set.contains_exactly(&name)), (is_in, is_in_exactly), "{name}");
        }
        for name in ["", "*", "a b", "x-*-y", "x-**"] {
            assert!(FieldSet::parse([name]).is_err(), "{name:?}");
        }
    }
}
