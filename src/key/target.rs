//! The target URI of a request (RFC 9110 §7.1), and which others have the same origin.

use std::hash::{BuildHasher, Hasher};

use http::{HeaderMap, HeaderValue, Uri, header, request::Parts, uri::Authority};

use crate::http::fields::lines;

/// What a request is about, whatever its key: what unsafe requests invalidate (RFC 9111 §4.4).
///
/// Made and cloned without an allocation.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Target {
    pub(crate) fn of(head: &Parts) -> Self {
        Self { uri: original_uri(head).clone(), host: lines(&head.headers, &header::HOST).next().cloned() }
    }

    /// A number for the URI; the same for HTTP/1 and HTTP/2.
    pub(crate) fn hash(&self, hasher: &impl BuildHasher) -> u64 {
        self.hash_with(path_and_query(&self.uri), hasher)
    }

    /// The number of what a `Location` or `Content-Location` refers to, if that is of the same
    /// origin: others cannot be spoken for.
    pub(crate) fn hash_of_reference(&self, reference: &str, hasher: &impl BuildHasher) -> Option<u64> {
        let reference = reference.split('#').next()?;
        if let Some((scheme, rest)) = reference.split_once("://")
            && !scheme.contains(['/', '?'])
        {
            return self.hash_of_absolute(Some(scheme), rest, hasher);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return self.hash_of_absolute(None, rest, hasher);
        }
        if reference.starts_with('/') {
            return Some(self.hash_with(reference, hasher));
        }
        let base = self.uri.path();
        let joined = match reference {
            query if query.starts_with('?') => format!("{base}{query}"),
            "" => path_and_query(&self.uri).to_owned(),
            relative => resolve(base, relative),
        };
        Some(self.hash_with(&joined, hasher))
    }

    fn hash_of_absolute(&self, scheme: Option<&str>, rest: &str, hasher: &impl BuildHasher) -> Option<u64> {
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        let is_same_scheme = match (scheme, self.uri.scheme_str()) {
            (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
            // HTTP/1 does not tell.
            _ => true,
        };
        let is_same = is_same_scheme && self.authority().eq_ignore_ascii_case(authority.as_bytes());
        let target = &rest[authority.len()..];
        is_same.then(|| match target.starts_with('/') {
            true => self.hash_with(target, hasher),
            false => self.hash_with(&format!("/{target}"), hasher),
        })
    }

    fn authority(&self) -> &[u8] {
        match (self.uri.authority(), &self.host) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => b"",
        }
    }

    fn hash_with(&self, path_and_query: &str, hasher: &impl BuildHasher) -> u64 {
        let mut state = hasher.build_hasher();
        for part in self.authority().chunks(64) {
            let mut lower = [0; 64];
            lower[..part.len()].copy_from_slice(part);
            lower.make_ascii_lowercase();
            state.write(&lower[..part.len()]);
        }
        state.write_u8(0);
        state.write(path_and_query.as_bytes());
        state.finish()
    }
}

/// The URI before axum's routers cut anything off it.
pub(super) fn original_uri(head: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = head.extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    &head.uri
}

/// The query counts as absent only if there is no `?`.
pub(super) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The authority of a request, if it has one alone and that can be used.
pub(super) fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let mut hosts = lines(headers, &header::HOST);
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return None;
    }
    match (uri.authority().map(Authority::as_str), host) {
        (Some(uri), Some(host)) if !host.eq_ignore_ascii_case(uri.as_bytes()) => None,
        (Some(uri), _) => usable(uri.as_bytes()),
        (None, Some(host)) => usable(host),
        (None, None) => None,
    }
}

static IS_HOST: [bool; 256] = {
    let mut is_host = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        is_host[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'['
                    | b']'
            );
        byte += 1;
    }
    is_host
};

/// RFC 9110 §4.2: no empty host, no userinfo, and none of the characters that would end a host.
fn usable(authority: &[u8]) -> Option<&[u8]> {
    (authority.iter().all(|byte| IS_HOST[usize::from(*byte)])
        && !matches!(authority.first(), None | Some(b':')))
    .then_some(authority)
}

/// A relative path resolved against the path of the base (RFC 3986 §5.2.3, §5.2.4).
fn resolve(base: &str, relative: &str) -> String {
    let (path, query) = relative.split_at(relative.find('?').unwrap_or(relative.len()));
    let mut segments: Vec<&str> = base.split('/').skip(1).collect();
    segments.pop();
    let ends_in_directory = matches!(path.rsplit('/').next(), Some("." | ".."));
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut resolved: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
    if ends_in_directory || resolved.is_empty() {
        resolved.push('/');
    }
    resolved + query
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn target(uri: &str, host: Option<&str>) -> Target {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        Target::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn references_are_resolved_and_those_to_other_origins_are_none() {
        let hasher = std::hash::RandomState::new();
        let base = target("http://h.example/a/b/c?q", None);
        for (reference, path) in [
            ("/x", "/x"),
            ("http://H.example/x?y#z", "/x?y"),
            ("//h.example/x", "/x"),
            ("http://h.example", "/"),
            ("http://h.example?y", "/?y"),
            ("x", "/a/b/x"),
            ("x?y=/../", "/a/b/x?y=/../"),
            ("../x", "/a/x"),
            ("../../../x", "/x"),
            ("..", "/a/"),
            ("../..", "/"),
            (".", "/a/b/"),
            ("./x/./y", "/a/b/x/y"),
            ("?y", "/a/b/c?y"),
            ("", "/a/b/c?q"),
            ("#z", "/a/b/c?q"),
            ("x?to=http://other/", "/a/b/x?to=http://other/"),
        ] {
            let expected = target(&format!("http://h.example{path}"), None).hash(&hasher);
            assert_eq!(base.hash_of_reference(reference, &hasher), Some(expected), "{reference}");
        }
        for other in
            ["http://other/x", "//other/x", "https://h.example/x", "http://h.example:81/x", "http:///x"]
        {
            assert_eq!(base.hash_of_reference(other, &hasher), None, "{other}");
        }
    }

    #[test]
    fn http1_and_http2_have_the_same_target() {
        let hasher = std::hash::RandomState::new();
        let http2 = target("http://h.example/x?y", None);
        assert_eq!(http2.hash(&hasher), target("/x?y", Some("H.Example")).hash(&hasher));
        assert_ne!(http2.hash(&hasher), target("/x", Some("h.example")).hash(&hasher));
        assert_ne!(http2.hash(&hasher), target("/x?y", Some("other")).hash(&hasher));
        let http1 = target("/a", Some("h.example"));
        assert_eq!(http1.hash_of_reference("https://h.example/a", &hasher), Some(http1.hash(&hasher)));
    }

    proptest::proptest! {
        #[test]
        fn any_reference_is_taken_without_panic(reference in ".{0,40}", path in "/[a-z./?]{0,20}") {
            if path.parse::<Uri>().is_ok() {
                let _ = target(&path, Some("h")).hash_of_reference(&reference, &std::hash::RandomState::new());
            }
        }
    }
}
