//! What a URI names, for requests and purges that see no more of a request than that.

use http::{HeaderValue, Method, Uri};

use super::{KeyRules, extractor::Inner, shape::Match};
use crate::key::{CacheKey, KeyBuffer, KeyExtractor, normal::Authority};

impl KeyRules {
    /// What a URI names for the requests of a rule.
    pub(super) fn name_for(&self, found: &Match<'_, '_>, authority: Authority<'_>) -> Option<CacheKey> {
        let shape = found.rule.shape.as_ref()?;
        let mut identity = KeyBuffer::new();
        identity.push_lower_case(authority.as_bytes());
        shape.push_identity(found, &mut identity);
        Some(identity.to_key())
    }

    /// What a URI names for the requests of each rule that may be for it, by the conditions of rules.
    pub(super) fn each_name(
        &self,
        uri: &Uri,
        authority: Authority<'_>,
        each: &mut dyn FnMut(Option<CacheKey>),
    ) {
        let Inner { index, rules, .. } = &*self.inner;
        let mut reads = vec![Method::GET, Method::HEAD];
        for rule in index.candidates(uri.path()).into_iter().map(|rule| &rules[rule]) {
            let Some(found) = rule.at(authority, uri.path(), uri) else { continue };
            each(self.name_for(&found, authority));
            // No read gets past a rule that is for all of them.
            reads.retain(|method| rule.when.is_some() || !rule.is_for(method));
            if reads.is_empty() {
                break;
            }
        }
        let rest = self.inner.rest.as_ref().and_then(|rest| rest.at(authority, uri.path(), uri));
        each(rest.and_then(|found| self.name_for(&found, authority)));
        each(None);
    }

    /// Whether requests for several queries of this path share entries by their bodies. By which rule is
    /// not asked of each query: what one purges and invalidates, so does every other.
    pub(super) fn merges_bodies_at(&self, authority: Authority<'_>, path: &str) -> bool {
        let Inner { index, rules, .. } = &*self.inner;
        index.candidates(path).into_iter().any(|rule| rules[rule].merges_bodies_at(authority, path))
    }

    pub(super) fn authority_of<'a>(
        &'a self,
        uri: &'a Uri,
        host: Option<&'a HeaderValue>,
    ) -> Option<Authority<'a>> {
        let host = host.map(HeaderValue::as_bytes);
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes()).or(host)?;
        Some(Authority::of_target(authority, uri, self.assumed_scheme()).among(self.same_hosts()))
    }
}

/// What all URIs of a path name, where requests with different queries share entries by their bodies.
pub(super) fn all_queries(uri: &Uri, authority: Authority<'_>) -> CacheKey {
    let mut identity = KeyBuffer::new();
    identity.push_lower_case(authority.as_bytes());
    identity.push(b"all queries");
    identity.push_lower_case(uri.path().as_bytes());
    identity.to_key()
}
