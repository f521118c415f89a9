//! Patterns of paths, as they are written.

use http::request::Parts;

use super::{PurgeError, head};
use crate::{
    key::normal_form,
    sequence::{Glob, Segment},
};

/// Longer ones are refused: some of them are kept.
const MAX_BYTES: usize = 1024;

/// The paths of a host, or of any, that a purge is about.
#[derive(Debug)]
pub(super) struct UrlPattern {
    /// A request for the root of the host.
    pub(super) host: Option<Parts>,
    pub(super) paths: Glob,
    /// Host and path in their normal form.
    #[cfg_attr(not(feature = "purge-service"), allow(dead_code, reason = "said by the service"))]
    pub(super) text: String,
    /// As it was written.
    pub(super) url: String,
}

impl UrlPattern {
    /// `http://example.com/img/*.png`, `http://*/user/{id}`.
    pub(super) fn parse(url: &str) -> Result<Self, PurgeError> {
        let broken = |reason| PurgeError::Pattern { pattern: url.to_owned(), reason };
        if url.len() > MAX_BYTES {
            return Err(broken("it has more than 1,024 bytes"));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(PurgeError::NotAbsolute(url.to_owned()));
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if path.is_empty() {
            return Err(broken("it has no path: end it with `/*` for all of the host"));
        }
        if path.contains('?') {
            return Err(PurgeError::HasQuery(url.to_owned()));
        }
        if ["\\", "^", "|", ".*", ".+", "#"].iter().any(|text| path.contains(text)) {
            return Err(broken("`*` alone stands for anything, and there are no regular expressions"));
        }
        let (host, authority) = match host {
            "*" => (None, "*".to_owned()),
            _ => {
                let head = head(&format!("{scheme}://{host}/"))?;
                let authority = super::display(&head).trim_end_matches('/').to_owned();
                (Some(head), authority)
            }
        };
        if authority.contains('*') && host.is_some() {
            return Err(broken("a host is whole, or `*` for every host"));
        }
        let paths = glob(path).map_err(broken)?;
        Ok(Self { host, paths, text: format!("{authority}{}", shown(path)), url: url.to_owned() })
    }
}

/// As it is compared, with the braces of captures.
fn shown(path: &str) -> String {
    normal_form(path).replace("%7B", "{").replace("%7D", "}")
}

fn glob(path: &str) -> Result<Glob, &'static str> {
    let path = match path.strip_suffix('/') {
        Some(start) if !start.is_empty() => start,
        _ => path,
    };
    if !path.contains(['{', '}']) {
        return Ok(Glob::Texts(path.split('*').map(|text| normal_form(text).into()).collect()));
    }
    let mut segments: Vec<&str> = path.split('/').skip(1).collect();
    let rest = segments.pop_if(|last| last.starts_with("{*") && last.ends_with('}')).is_some();
    let segments = segments.into_iter().map(segment).collect::<Result<_, _>>()?;
    Ok(Glob::Segments { segments, rest })
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    const MIXED: &str = "it has captures like `{id}`, and `*` beside them can only be in a last `{*rest}`";
    const BROKEN: &str =
        "a brace is not closed, or a segment has several captures: `{id}` stands for one segment";
    if text.contains('*') {
        return Err(MIXED);
    }
    let Some((before, after)) = text.split_once('{') else {
        return if text.contains('}') { Err(BROKEN) } else { Ok(Segment::Text(normal_form(text).into())) };
    };
    match after.split_once('}') {
        Some((name, after)) if !name.is_empty() && !format!("{before}{name}{after}").contains(['{', '}']) => {
            Ok(Segment::Any { before: normal_form(before).into(), after: normal_form(after).into() })
        }
        _ => Err(BROKEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(pattern: &str, path: &str) -> bool {
        UrlPattern::parse(&format!("http://h{pattern}")).unwrap().paths.matches(path)
    }

    #[test]
    fn patterns_are_texts_with_stars_or_segments_with_captures() {
        for (pattern, matching, other) in [
            ("/user/{id}", "/user/7", "/user/7/posts"),
            ("/user/{id}/", "/user/7", "/user/"),
            ("/user/{id}/{*rest}", "/user/7/posts/1", "/user/7"),
            ("/{*rest}", "/a", "/"),
            ("/img/{name}.png", "/img/a.png", "/img/a.gif"),
            ("/img/*.png", "/img/a/b.png", "/img/a.gif"),
            ("/caf%c3%a9/*", "/caf%C3%A9/1", "/cafe/1"),
            ("/%7Eme/{id}", "/~me/1", "/me/1"),
            ("/", "/", "/a"),
            ("/*", "/", "x"),
            ("/a/", "/a", "/a/b"),
        ] {
            assert!(is(pattern, matching), "{pattern}");
            assert!(!is(pattern, other), "{pattern}");
        }
    }

    #[test]
    fn what_is_understood_is_in_its_normal_form() {
        for (pattern, text) in [
            ("http://Shop.Example:80/a/*", "shop.example/a/*"),
            ("http://*/%7euser/{id}", "*/~user/{id}"),
            ("https://h/é*", "h/%C3%A9*"),
        ] {
            assert_eq!(UrlPattern::parse(pattern).unwrap().text, text);
        }
    }

    #[test]
    fn what_cannot_match_is_refused() {
        let long = format!("http://h/{}", "x".repeat(1024));
        for pattern in [
            "/a/*",
            "h/a/*",
            "http://h",
            "http://h/a?b=*",
            "http://h/.*",
            "http://h/a/(.+)$",
            "http://h/a|b",
            "http://*.example.com/a",
            "http://me@h/a/*",
            "http:///a",
            "http://h/{",
            "http://h/a}",
            "http://h/{}",
            "http://h/{a}{b}",
            "http://h/{*rest}/a",
            "http://h/a*/{id}",
            &long,
        ] {
            let error = UrlPattern::parse(pattern).expect_err(pattern).to_string();
            assert!(error.len() > 20, "{error}");
        }
    }
}
