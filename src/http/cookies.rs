//! The cookies of a request that are in its key, where rules name them.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header, request::Parts};
use smallvec::SmallVec;

use super::request_fields::first_line;
use crate::work;

/// Servers read at most a thousand cookies, some fewer. Of more than these none is left out.
const MAX_READ: usize = 256;

/// Names of the cookies that are in the key and reach the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CookieNames(Arc<[CookieName]>);

/// A name, or a prefix of names, written with a `*` at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CookieName {
    text: Box<str>,
    is_prefix: bool,
}

impl CookieName {
    fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(start) => Self { text: start.into(), is_prefix: true },
            None => Self { text: text.into(), is_prefix: false },
        }
    }

    fn is(&self, name: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match (self.is_prefix, name.get(..text.len())) {
            (false, _) => work::is_same(text, name),
            (true, Some(start)) => work::is_same(text, start),
            (true, None) => false,
        }
    }
}

/// The cookies of a request, as `name=value`.
pub(crate) type Cookies<'h> = SmallVec<[&'h [u8]; 4]>;

impl CookieNames {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(CookieName::new).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first that is neither the name of a cookie (RFC 6265 §4.1.1) nor a prefix with a `*` after it.
    pub(crate) fn invalid(&self) -> Option<String> {
        let is_token =
            |name: &str| http::HeaderName::from_bytes(name.as_bytes()).is_ok() && !name.contains('*');
        let broken = self.0.iter().find(|name| !is_token(&name.text))?;
        Some(format!("{}{}", broken.text, if broken.is_prefix { "*" } else { "" }))
    }

    /// The cookies with these names, in the order of the names, and with the same name in the order of the
    /// request (RFC 6265 §5.4). Of a request with more cookies than all servers read, its lines.
    pub(crate) fn of<'h>(&self, request: &'h HeaderMap) -> Cookies<'h> {
        self.named(request).unwrap_or_else(|| lines(request).collect())
    }

    /// `None` if there are too many cookies to leave any out.
    fn named<'h>(&self, request: &'h HeaderMap) -> Option<Cookies<'h>> {
        let mut named: SmallVec<[(usize, &[u8]); 4]> = SmallVec::new();
        if self.is_empty() {
            return Some(Cookies::new());
        }
        for (at, cookie) in cookies(request).enumerate() {
            if at >= MAX_READ {
                return None;
            }
            let own = name_of(cookie);
            named.extend(self.0.iter().position(|name| name.is(own)).map(|place| (place, cookie)));
        }
        // A stable sort keeps the order of cookies with the same name.
        named.sort_by_key(|(place, _)| *place);
        Some(named.into_iter().map(|(_, cookie)| cookie).collect())
    }

    /// Like [`keep`](Self::keep), and notes all cookies of the client if the origin does not get them all.
    pub(crate) fn keep_in(&self, head: &mut Parts) {
        let before: SmallVec<[HeaderValue; 1]> =
            head.headers.get_all(header::COOKIE).iter().cloned().collect();
        self.keep(&mut head.headers);
        let is_changed = !head.headers.get_all(header::COOKIE).iter().eq(&before);
        if is_changed && head.extensions.get::<OfClient>().is_none() {
            head.extensions.insert(OfClient(before));
        }
    }

    /// Leaves only the cookies with these names in a request, in one line and in the order of the key, so
    /// that requests with one key look the same to the origin.
    pub(crate) fn keep(&self, request: &mut HeaderMap) {
        let Some((line, has_more)) = first_line(request, &header::COOKIE) else { return };
        let Some(named) = self.named(request) else { return };
        let mut kept: SmallVec<[u8; 256]> = SmallVec::new();
        for cookie in named {
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(cookie);
        }
        if !has_more && line.as_bytes() == &kept[..] {
            return;
        }
        match HeaderValue::from_bytes(&kept) {
            Ok(kept) if !kept.is_empty() => _ = request.insert(header::COOKIE, kept),
            _ => _ = request.remove(header::COOKIE),
        }
    }
}

/// Request extension: all cookies of a client, where the origin does not get all of them.
#[derive(Clone, Debug)]
struct OfClient(SmallVec<[HeaderValue; 1]>);

/// Removes `Set-Cookie` for cookies that the client has and that the origin did not get: it would replace the
/// session of the client by a new one.
pub(crate) fn spare_those_of_client(request: &Parts, response: &mut HeaderMap) {
    let Some(OfClient(lines)) = request.extensions.get() else { return };
    let was_sent = |name: &[u8]| cookies(&request.headers).any(|cookie| name_of(cookie) == name);
    let is_of_client = |name: &[u8]| {
        let mut own = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        own.any(|cookie| name_of(cookie.trim_ascii()) == name)
    };
    let is_removed = |line: &HeaderValue| {
        let name = name_of(line.as_bytes().trim_ascii());
        is_of_client(name) && !was_sent(name)
    };
    if !response.get_all(header::SET_COOKIE).iter().any(is_removed) {
        return;
    }
    let kept: Vec<HeaderValue> =
        response.get_all(header::SET_COOKIE).iter().filter(|line| !is_removed(line)).cloned().collect();
    response.remove(header::SET_COOKIE);
    kept.into_iter().for_each(|line| _ = response.append(header::SET_COOKIE, line));
}

fn lines(request: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    request.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes)
}

/// All cookies of a request as written, also invalid ones.
pub(crate) fn cookies(request: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    lines(request).flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

fn name_of(cookie: &[u8]) -> &[u8] {
    let name = cookie.split(|byte| *byte == b'=').next().unwrap_or_default();
    work::looked_at(name.len());
    name.trim_ascii_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, line.parse().unwrap())).collect()
    }

    fn kept(names: &[&str], lines: &[&str]) -> Option<String> {
        let (names, mut request) = (CookieNames::new(names.iter().copied()), request(lines));
        names.keep(&mut request);
        assert!(request.get_all(header::COOKIE).iter().count() <= 1, "one line is left");
        let before: Vec<Vec<u8>> = names.of(&request).iter().map(|cookie| cookie.to_vec()).collect();
        names.keep(&mut request);
        assert_eq!(names.of(&request).to_vec(), before, "once is enough");
        request.get(header::COOKIE).map(|line| line.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_the_named_cookies_are_left_in_the_order_of_the_names() {
        let names = &["a", "b"];
        assert_eq!(kept(names, &["b=2; x=9; a=1"]).as_deref(), Some("a=1; b=2"));
        assert_eq!(kept(names, &["b=2", "sid=9", "a=1;a=3"]).as_deref(), Some("a=1; a=3; b=2"));
        assert_eq!(kept(names, &["a; b="]).as_deref(), Some("a; b="));
        assert_eq!(kept(names, &["A=1; aa=1; x=a"]), None);
        assert_eq!(kept(names, &["x=1 a=1; a=2 b=3"]).as_deref(), Some("a=2 b=3"));
        assert_eq!(kept(&[], &["a=1"]), None);
        assert_eq!(kept(names, &[]), None);
    }

    #[test]
    fn names_may_be_given_by_a_prefix() {
        let names = &["wp_*", "wp", "a"];
        assert_eq!(
            kept(names, &["a=1; wp_2=x; b=2; wp_1=y; wp=3"]).as_deref(),
            Some("wp_2=x; wp_1=y; wp=3; a=1")
        );
        assert_eq!(kept(names, &["w=1; WP_1=2; awp_=3"]), None);
    }

    /// A server that reads fewer would take a different one.
    #[test]
    fn more_cookies_than_every_server_reads_are_all_kept() {
        let names = CookieNames::new(["a"]);
        for (junk, is_read) in [(MAX_READ - 1, true), (MAX_READ, false)] {
            let line = format!("{}a=1", "x=1; ".repeat(junk));
            let mut request = request(&[&line]);
            let expected = if is_read { "a=1" } else { &line };
            assert_eq!(names.of(&request).to_vec(), [expected.as_bytes()]);
            names.keep(&mut request);
            assert_eq!(request[header::COOKIE], expected);
            assert_eq!(kept(&[], &[&line]), None, "without a name none is kept");
        }
    }

    #[test]
    fn a_name_is_a_token() {
        assert_eq!(CookieNames::new(["sid", "__Host-x", "wp_*"]).invalid(), None);
        for text in ["a b", "", "*", "a*b", "a**"] {
            assert_eq!(CookieNames::new(["sid", text]).invalid().as_deref(), Some(text));
        }
    }
}
