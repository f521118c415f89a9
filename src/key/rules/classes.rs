//! Classes of a field: what the application tells apart of many values.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use smallvec::SmallVec;

use super::{error::Problem, glob::Glob, guard::Guard, parts::parse_header};
use crate::http::{
    bounds::MAX_NORMAL_BYTES,
    fields::{is_spelling_of, remove_all},
};

/// Classes of a request's header field, such as kinds of devices by `User-Agent` or formats of images by
/// `Accept`. The class is in the key of a rule, and reaches the origin in a field of its own.
///
/// Fields like these have thousands of values, and a response that varies by one of them is stored as
/// often. An application that tells a few classes apart gets the class instead:
///
/// * A rule that names the field of the class in its [`headers`](super::KeyRule::headers) has the class in
///   its key. Its origin gets the class in this field, in place of whatever the client sent in it, and the
///   field that was classified is **removed** from the request, so that no response can depend on more than
///   the class. Where both have the same name, the class stands in place of the value: the origin of
///   `Classes::of("accept", "accept")` gets a plain `Accept: image/avif`.
/// * `Vary` is compared with what the origin gets. A response that says `Vary: User-Agent` or
///   `Vary: X-Device` is therefore one for all requests of a class.
/// * For other rules, and for requests that no rule is for, the field of the class is removed from what the
///   client sent, and the field that is classified stays as it is. The requests that have no key are
///   passed on untouched, with both.
/// * The first class counts of which a pattern matches the whole value, in any case; a `*` stands for any
///   characters, or none. Several lines are joined with `, `. A request without the field, or with more
///   than 1024 bytes of it, is of the class [`otherwise`](Self::otherwise). Weights are not read:
///   `image/avif;q=0` matches `*image/avif*`.
///
/// ```
/// use http::Request;
/// use tower_readthrough::{Classes, KeyExtractor, KeyRule, KeyRules};
///
/// let device = Classes::of("user-agent", "x-device")
///     .class("tablet", ["*iPad*"])
///     .class("mobile", ["*iPhone*", "*Android*Mobile*"])
///     .otherwise("desktop");
/// let rules = KeyRules::builder()
///     .classes(device)
///     .rule(KeyRule::path("/assets/{*file}"))
///     .rule(KeyRule::path("/{*page}").headers(["x-device"]))
///     .build()?;
///
/// let key = |agent: &str| {
///     let request = Request::get("http://shop.example/lamp").header("user-agent", agent).body(()).unwrap();
///     rules.key(&request.into_parts().0)
/// };
/// assert_eq!(key("Mozilla/5.0 (iPhone; 1)"), key("Mozilla/5.0 (iPhone; 2)"));
/// assert_ne!(key("Mozilla/5.0 (iPhone; 1)"), key("Mozilla/5.0 (X11; Linux)"));
/// # Ok::<(), tower_readthrough::RuleError>(())
/// ```
///
/// In a document:
///
/// ```json
/// { "classes": [{
///     "field": "user-agent",
///     "name": "x-device",
///     "classes": [{ "class": "mobile", "patterns": ["*iPhone*", "*Android*Mobile*"] }],
///     "otherwise": "desktop"
/// }] }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields, remote = "Self"))]
#[must_use]
pub struct Classes {
    field: String,
    name: String,
    classes: Vec<Class>,
    otherwise: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields, remote = "Self"))]
pub(super) struct Class {
    class: String,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::document::one_or_more"))]
    patterns: Vec<String>,
}

impl Classes {
    /// Classes of this field of requests, which reach the origin in the field `name`. Not of fields that
    /// the cache itself reads, nor of credentials.
    pub fn of(field: impl Into<String>, name: impl Into<String>) -> Self {
        Self { field: field.into(), name: name.into(), classes: Vec::new(), otherwise: None }
    }

    /// Adds a class, for the values that none before it is for and that match one of these patterns.
    pub fn class<P: Into<String>>(
        mut self,
        class: impl Into<String>,
        patterns: impl IntoIterator<Item = P>,
    ) -> Self {
        let patterns = patterns.into_iter().map(Into::into).collect();
        self.classes.push(Class { class: class.into(), patterns });
        self
    }

    /// The class of all other requests. It has no default: rules without it are refused.
    pub fn otherwise(mut self, class: impl Into<String>) -> Self {
        self.otherwise = Some(class.into());
        self
    }

    /// The field in which the class reaches the origin.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn in_words(&self) -> String {
        let classes = self.classes.iter().map(|class| class.class.as_str());
        let all: Vec<&str> = classes.chain(self.otherwise.as_deref()).collect();
        format!("{} of {} by {}", self.name, all.join(", "), self.field)
    }

    /// Whether no value is left for a class by those before it.
    fn is_taken_before(&self, at: usize, class: &Class) -> bool {
        let glob = |text: &String| Glob::new(&text.to_ascii_lowercase());
        let earlier = || self.classes[..at].iter().flat_map(|class| &class.patterns).map(glob);
        class.patterns.iter().map(glob).all(|own| earlier().any(|other| other.covers(&own)))
    }

    fn compile(&self) -> Result<Definition, Problem> {
        let refused = |reason| Problem::Classes { name: self.name.as_str().into(), reason };
        let field = |text: &str| {
            let name = parse_header(text).ok().filter(|name| !is_taken(name));
            name.ok_or_else(|| {
                refused("`field` and `name` are fields that neither the cache reads nor carry credentials")
            })
        };
        let value = |text: &str| {
            let value = HeaderValue::from_str(text).ok().filter(|_| !text.is_empty() && text.trim() == text);
            value.ok_or_else(|| refused("a class is the value of a field, and not empty"))
        };
        let class = |class: &Class| match class.patterns.is_empty()
            || class.patterns.iter().any(String::is_empty)
        {
            true => Err(refused("each class has `patterns`, such as `*iPhone*`")),
            false => Ok((value(&class.class)?, class.patterns.iter().map(|text| Glob::new(text)).collect())),
        };
        if self.classes.is_empty() {
            return Err(refused("there are none but `otherwise`"));
        }
        let otherwise = self
            .otherwise
            .as_deref()
            .ok_or_else(|| refused("say in `otherwise` what all other requests are"))?;
        if self.classes.iter().enumerate().any(|(at, class)| self.is_taken_before(at, class)) {
            return Err(refused("a class before another one has all of its values"));
        }
        Ok(Definition {
            field: field(&self.field)?,
            name: field(&self.name)?,
            classes: self.classes.iter().map(class).collect::<Result<_, _>>()?,
            otherwise: value(otherwise)?,
        })
    }
}

/// Fields that have a meaning to the cache, or say who the client is.
fn is_taken(name: &HeaderName) -> bool {
    let credentials = [header::COOKIE, header::AUTHORIZATION, header::PROXY_AUTHORIZATION];
    Guard::OF_THE_CACHE.contains(name) || credentials.contains(name) || *name == header::ACCEPT_LANGUAGE
}

#[derive(Debug)]
struct Definition {
    field: HeaderName,
    name: HeaderName,
    classes: Box<[(HeaderValue, Box<[Glob]>)]>,
    otherwise: HeaderValue,
}

/// The classes of all fields.
#[derive(Clone, Debug, Default)]
pub(super) struct CompiledClasses(Option<Arc<[Definition]>>);

/// The classes of a request whose classified fields may be removed by now: in its extensions.
#[derive(Clone, Debug)]
pub(super) struct Classified {
    by: Arc<[Definition]>,
    values: SmallVec<[HeaderValue; 2]>,
}

impl CompiledClasses {
    /// `is_keyed` says whether a rule has a field in its keys.
    pub(super) fn compile(all: &[Classes], is_keyed: impl Fn(&HeaderName) -> bool) -> Result<Self, Problem> {
        let definitions = all.iter().map(Classes::compile).collect::<Result<Vec<_>, _>>()?;
        for (at, own) in definitions.iter().enumerate() {
            let refused = |reason| Err(Problem::Classes { name: own.name.as_str().into(), reason });
            let others = || definitions.iter().enumerate().filter(|(other, _)| *other != at);
            if others().any(|(_, other)| other.name == own.name || other.field == own.name) {
                return refused("`name` is a field of other classes");
            }
            if !is_keyed(&own.name) {
                return refused("no rule has this field in its `headers`");
            }
        }
        Ok(Self((!definitions.is_empty()).then(|| definitions.into())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The fields that do not reach the origin of a rule with these fields in its keys.
    pub(super) fn replaced<'c>(&'c self, keyed: &'c [HeaderName]) -> impl Iterator<Item = &'c HeaderName> {
        let used = self.0.iter().flat_map(|all| all.iter()).filter(|own| keyed.contains(&own.name));
        used.filter(|own| own.field != own.name).map(|own| &own.field)
    }

    /// The class of a request that this field tells. None: the field tells no class.
    pub(super) fn value_of(&self, name: &HeaderName, head: &Parts) -> Option<HeaderValue> {
        let definitions = self.0.as_ref()?;
        let at = definitions.iter().position(|own| own.name == *name)?;
        let known = self.known(head).and_then(|known| known.values.get(at));
        Some(known.unwrap_or_else(|| definitions[at].classify(&head.headers)).clone())
    }

    fn known<'h>(&self, head: &'h Parts) -> Option<&'h Classified> {
        let own = self.0.as_ref()?;
        head.extensions.get::<Classified>().filter(|known| Arc::ptr_eq(&known.by, own))
    }

    pub(super) fn are_known(&self, head: &Parts) -> bool {
        self.known(head).is_some()
    }

    /// The classes of a request from which nothing was removed yet.
    pub(super) fn classify(&self, head: &Parts) -> Option<Classified> {
        let by = self.0.as_ref()?;
        let values = by.iter().map(|own| own.classify(&head.headers).clone()).collect();
        Some(Classified { by: Arc::clone(by), values })
    }

    /// Puts the classes that are in the key of a request into their fields, and removes what they stand for.
    pub(super) fn apply(&self, head: &mut Parts, is_keyed: impl Fn(&HeaderName) -> bool) {
        let Some(definitions) = &self.0 else { return };
        let is_replaced = |name: &HeaderName| {
            definitions.iter().any(|own| {
                let is_own =
                    |field: &HeaderName| is_spelling_of(field.as_str().as_bytes(), name.as_str().as_bytes());
                match is_keyed(&own.name) {
                    true => is_own(&own.field) || is_own(&own.name),
                    false => own.field != own.name && is_own(&own.name),
                }
            })
        };
        let is_any_keyed = definitions.iter().any(|own| is_keyed(&own.name));
        let known =
            if is_any_keyed { self.known(head).cloned().or_else(|| self.classify(head)) } else { None };
        remove_all(&mut head.headers, is_replaced);
        let Some(known) = known else { return };
        for (own, value) in definitions.iter().zip(&known.values).filter(|(own, _)| is_keyed(&own.name)) {
            head.headers.insert(own.name.clone(), value.clone());
        }
        head.extensions.insert(known);
    }
}

impl Definition {
    fn classify(&self, headers: &HeaderMap) -> &HeaderValue {
        let lines: SmallVec<[&[u8]; 2]> =
            headers.get_all(&self.field).iter().map(HeaderValue::as_bytes).collect();
        let length: usize = lines.iter().map(|line| line.len()).sum();
        if lines.is_empty() || length > MAX_NORMAL_BYTES {
            return &self.otherwise;
        }
        let joined;
        let text = match &*lines {
            [line] => line,
            lines => {
                joined = lines.join(&b", "[..]);
                &*joined
            }
        };
        let is_of = |(_, patterns): &&(HeaderValue, Box<[Glob]>)| {
            patterns.iter().any(|pattern| pattern.is_in_any_case(text))
        };
        self.classes.iter().find(is_of).map_or(&self.otherwise, |(class, _)| class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats() -> Classes {
        Classes::of("accept", "x-format")
            .class("avif", ["*image/avif*"])
            .class("webp", ["*image/webp*", "*image/*+webp"])
            .otherwise("jpeg")
    }

    #[test]
    fn the_first_class_counts_that_matches() {
        let own = formats().compile().unwrap();
        let long = format!("image/avif, {}", "x".repeat(MAX_NORMAL_BYTES));
        for (lines, expected) in [
            (&["image/webp, image/AVIF"][..], "avif"),
            (&["image/webp"], "webp"),
            (&["text/html", "image/webp;q=0.1"], "webp"),
            (&["*/*"], "jpeg"),
            (&[""], "jpeg"),
            (&[], "jpeg"),
            (&[&long], "jpeg"),
        ] {
            let headers = lines.iter().map(|line| (header::ACCEPT, line.parse().unwrap())).collect();
            assert_eq!(own.classify(&headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn classes_that_cannot_work_are_refused() {
        let of = |field, name| Classes::of(field, name).class("a", ["*a*"]).otherwise("b");
        let compile = |all: &[Classes]| CompiledClasses::compile(all, |name| name != "x-unused");
        for all in [
            &[Classes::of("accept", "x-a").class("a", ["*a*"])][..],
            &[Classes::of("accept", "x-a").otherwise("b")],
            &[Classes::of("accept", "x-a").class("a", [""; 0]).otherwise("b")],
            &[Classes::of("accept", "x-a").class("a", [""]).otherwise("b")],
            &[Classes::of("accept", "x-a").class("", ["*a*"]).otherwise("b")],
            &[Classes::of("accept", "x-a").class("a", ["*a*"]).otherwise(" b")],
            &[of("cookie", "x-a")],
            &[of("accept", "x-a").class("c", ["*AB*"])],
            &[of("accept", "x-a").class("c", ["b", "*"]).class("d", ["c"])],
            &[of("accept", "authorization")],
            &[of("accept-encoding", "x-a")],
            &[of("accept", "host")],
            &[of("accept", "x a")],
            &[of("accept", "x-*")],
            &[of("accept", "x-unused")],
            &[of("accept", "x-a"), of("user-agent", "x-a")],
            &[of("accept", "x-a"), of("x-a", "x-b")],
        ] {
            assert!(compile(all).is_err(), "{all:?}");
        }
        for all in [&[][..], &[of("accept", "accept")], &[of("accept", "x-a"), of("accept", "x-b")]] {
            assert!(compile(all).is_ok(), "{all:?}");
        }
    }
}
