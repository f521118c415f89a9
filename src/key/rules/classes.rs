//! Classes of a field: what the application tells apart of many values.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use smallvec::SmallVec;

use super::{error::Problem, glob::Glob, guard::Guard, layout::parse_header};
use crate::http::fields::{self, MAX_NORMAL_BYTES};

/// Classes of a request header field, such as kinds of devices by `User-Agent` or image formats by `Accept`. The
/// class is in the key of a rule, and reaches the origin in a field of its own.
///
/// Fields like these have thousands of values, and a response that varies by one of them would be stored for each
/// value. An application that only tells a few classes apart gets the class instead:
///
/// * A rule that names the field of the class in its [`headers`](super::KeyRule::headers) has the class in its
///   key. The origin gets the class in this field, whatever the client sent in it, and the classified field is
///   **removed** from the request, so that no response can depend on more than the class. If both fields have
///   the same name, the class replaces the value: with `Classes::of("accept", "accept")` the origin gets
///   `Accept: image/avif`.
/// * `Vary` is compared with what the origin gets, so a response with `Vary: User-Agent` or `Vary: X-Device` is
///   shared by all requests of a class.
/// * For other rules, and for requests that no rule is for, the field of the class is removed, and the
///   classified field stays as it is. Requests without a key keep both fields.
/// * The first class with a pattern that matches the whole value counts, in any case. A `*` stands for any number
///   of characters. Several lines are joined with `, `. A request without the field, or with more than 1024
///   bytes of it, has the class [`otherwise`](Self::otherwise). Weights are not read: `image/avif;q=0` matches
///   `*image/avif*`.
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
    /// Classes of this request field, which reach the origin in the field `name`. Fields that the cache reads and
    /// credentials are refused for both.
    pub fn of(field: impl Into<String>, name: impl Into<String>) -> Self {
        Self { field: field.into(), name: name.into(), classes: Vec::new(), otherwise: None }
    }

    /// Adds a class, for values that match one of these patterns and no earlier class.
    pub fn class<P: Into<String>>(
        mut self,
        class: impl Into<String>,
        patterns: impl IntoIterator<Item = P>,
    ) -> Self {
        let patterns = patterns.into_iter().map(Into::into).collect();
        self.classes.push(Class { class: class.into(), patterns });
        self
    }

    /// The class of all other requests. Required: there is no default.
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

    /// Whether earlier classes match all values of a class.
    fn is_shadowed(&self, at: usize, class: &Class) -> bool {
        let glob = |text: &String| Glob::new(&text.to_ascii_lowercase());
        let earlier = || self.classes[..at].iter().flat_map(|class| &class.patterns).map(glob);
        class.patterns.iter().map(glob).all(|own| earlier().any(|other| other.covers(&own)))
    }

    fn compile(&self) -> Result<ClassDefinition, Problem> {
        let refused = |reason| Problem::Classes { name: self.name.as_str().into(), reason };
        let field = |text: &str| {
            let name = parse_header(text).ok().filter(|name| !is_reserved(name));
            name.ok_or_else(|| {
                refused("`field` and `name` cannot be fields that the cache reads, nor credentials")
            })
        };
        let value = |text: &str| {
            let value = HeaderValue::from_str(text).ok().filter(|_| !text.is_empty() && text.trim() == text);
            value.ok_or_else(|| refused("a class must be a field value that is not empty"))
        };
        let class = |class: &Class| match class.patterns.is_empty()
            || class.patterns.iter().any(String::is_empty)
        {
            true => Err(refused("each class needs `patterns` that are not empty, such as `*iPhone*`")),
            false => Ok((value(&class.class)?, class.patterns.iter().map(|text| Glob::new(text)).collect())),
        };
        if self.classes.is_empty() {
            return Err(refused("there is no class beside `otherwise`"));
        }
        let otherwise = self
            .otherwise
            .as_deref()
            .ok_or_else(|| refused("`otherwise` is missing; name the class of all other requests"))?;
        if self.classes.iter().enumerate().any(|(at, class)| self.is_shadowed(at, class)) {
            return Err(refused("a class matches nothing that an earlier one does not match"));
        }
        Ok(ClassDefinition {
            field: field(&self.field)?,
            name: field(&self.name)?,
            classes: self.classes.iter().map(class).collect::<Result<_, _>>()?,
            otherwise: value(otherwise)?,
        })
    }
}

/// Whether the cache reads a field, or it is a credential.
fn is_reserved(name: &HeaderName) -> bool {
    let credentials = [header::COOKIE, header::AUTHORIZATION, header::PROXY_AUTHORIZATION];
    Guard::OF_THE_CACHE.contains(name) || credentials.contains(name) || *name == header::ACCEPT_LANGUAGE
}

#[derive(Debug)]
struct ClassDefinition {
    field: HeaderName,
    name: HeaderName,
    classes: Box<[(HeaderValue, Box<[Glob]>)]>,
    otherwise: HeaderValue,
}

/// The classes of all fields, checked.
#[derive(Clone, Debug, Default)]
pub(super) struct CompiledClasses(Option<Arc<[ClassDefinition]>>);

/// The classes of a request: in its extensions, since the classified fields may be removed from it.
#[derive(Clone, Debug)]
pub(super) struct Classified {
    by: Arc<[ClassDefinition]>,
    values: SmallVec<[HeaderValue; 2]>,
}

impl CompiledClasses {
    /// `is_keyed`: whether any rule has a field in its keys.
    pub(super) fn compile(all: &[Classes], is_keyed: impl Fn(&HeaderName) -> bool) -> Result<Self, Problem> {
        let definitions = all.iter().map(Classes::compile).collect::<Result<Vec<_>, _>>()?;
        for (at, own) in definitions.iter().enumerate() {
            let refused = |reason| Err(Problem::Classes { name: own.name.as_str().into(), reason });
            let others = || definitions.iter().enumerate().filter(|(other, _)| *other != at);
            if others().any(|(_, other)| other.name == own.name || other.field == own.name) {
                return refused("`name` is already a field of other classes");
            }
            if !is_keyed(&own.name) {
                return refused("no rule names this field in its `headers`");
            }
        }
        Ok(Self((!definitions.is_empty()).then(|| definitions.into())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The fields that are removed for a rule with these fields in its keys.
    pub(super) fn replaced<'c>(&'c self, keyed: &'c [HeaderName]) -> impl Iterator<Item = &'c HeaderName> {
        let used = self.0.iter().flat_map(|all| all.iter()).filter(|own| keyed.contains(&own.name));
        used.filter(|own| own.field != own.name).map(|own| &own.field)
    }

    /// The class of a request, if this field carries one.
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

    /// Puts the classes in the key of a request into their fields, and removes the classified fields.
    pub(super) fn apply(&self, head: &mut Parts, is_keyed: impl Fn(&HeaderName) -> bool) {
        let Some(definitions) = &self.0 else { return };
        let is_replaced = |name: &HeaderName| {
            definitions.iter().any(|own| {
                let is_own = |field: &HeaderName| {
                    fields::is_spelling_of(field.as_str().as_bytes(), name.as_str().as_bytes())
                };
                match is_keyed(&own.name) {
                    true => is_own(&own.field) || is_own(&own.name),
                    false => own.field != own.name && is_own(&own.name),
                }
            })
        };
        let is_any_keyed = definitions.iter().any(|own| is_keyed(&own.name));
        let known =
            if is_any_keyed { self.known(head).cloned().or_else(|| self.classify(head)) } else { None };
        fields::remove_all(&mut head.headers, is_replaced);
        let Some(known) = known else { return };
        for (own, value) in definitions.iter().zip(&known.values).filter(|(own, _)| is_keyed(&own.name)) {
            head.headers.insert(own.name.clone(), value.clone());
        }
        head.extensions.insert(known);
    }
}

impl ClassDefinition {
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
    fn the_first_matching_class_counts() {
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
