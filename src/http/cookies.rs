//! Which cookies of a request count, where rules say so.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use smallvec::SmallVec;

use super::fields::first_line;
use crate::work::{is_same, looked_at};

/// Names of cookies: what is in the key and reaches the origin, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CookieNames(Arc<[Box<str>]>);

/// The cookies of a request, each with its name.
pub(crate) type Cookies<'h> = SmallVec<[&'h [u8]; 4]>;

impl CookieNames {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One that is no name of a cookie (RFC 6265 §4.1.1).
    pub(crate) fn invalid(&self) -> Option<&str> {
        // A `*` would be taken for all that begin so, which it is not.
        let is_token =
            |name: &str| http::HeaderName::from_bytes(name.as_bytes()).is_ok() && !name.contains('*');
        self.0.iter().map(|name| &**name).find(|name| !is_token(name))
    }

    /// The cookies of these names, by the order of the names, and of each name in the order of the
    /// request (RFC 6265 §5.4).
    pub(crate) fn of<'h>(&self, request: &'h HeaderMap) -> Cookies<'h> {
        let lines = request.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
        let cookies = lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
        let place = |cookie| {
            let own = name_of(cookie);
            self.0.iter().position(|name| is_same(name.as_bytes(), own))
        };
        let mut named: SmallVec<[(usize, &[u8]); 4]> =
            cookies.filter_map(|cookie| Some((place(cookie)?, cookie))).collect();
        // Keeps the order of those with the same name.
        named.sort_by_key(|(place, _)| *place);
        named.into_iter().map(|(_, cookie)| cookie).collect()
    }

    /// Leaves only the cookies of these names in a request, in one line and in the order in which they
    /// are in the key: what shares a key looks the same to the origin.
    pub(crate) fn keep(&self, request: &mut HeaderMap) {
        let Some((line, has_more)) = first_line(request, &header::COOKIE) else { return };
        let mut kept: SmallVec<[u8; 256]> = SmallVec::new();
        for cookie in self.of(request) {
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

fn name_of(cookie: &[u8]) -> &[u8] {
    let name = cookie.split(|byte| *byte == b'=').next().unwrap_or_default();
    looked_at(name.len());
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
    fn what_is_no_token_is_no_name() {
        assert_eq!(CookieNames::new(["sid", "__Host-x"]).invalid(), None);
        assert_eq!(CookieNames::new(["sid", "a b"]).invalid(), Some("a b"));
        assert_eq!(CookieNames::new([""]).invalid(), Some(""));
    }
}
