//! Key rules as a document. The names are those of the builders' methods.

use std::{collections::BTreeMap, fmt, marker::PhantomData, time::Duration};

use http::uri::Scheme;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

#[cfg(feature = "body-key")]
use super::JsonBody;
use super::{
    Classes, Guard, KeyRule, KeyRules, KeyRulesBuilder, RuleError,
    classes::Class,
    overrides::{RuleOverrides, storing_settings},
    when::When,
};
use crate::{
    http::rules::{Heuristic, StaleWindow},
    tags::Separator,
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub(super) struct RulesDocument {
    /// The schema, for editors.
    #[serde(rename = "$schema")]
    _schema: Option<String>,
    namespace: String,
    scheme: Option<String>,
    whole_uri: bool,
    accept_encoding: Option<Vec<String>>,
    accept_language: Option<Vec<String>>,
    classes: Vec<Classes>,
    guard: Option<Guard>,
    tag_fields: BTreeMap<String, Separator>,
    ignore_query: Vec<String>,
    same_hosts: Vec<Vec<String>>,
    #[serde(deserialize_with = "numbered_rules")]
    rules: Vec<KeyRule>,
}

// The derived functions have the same names, and no field names in their errors.
impl<'de> Deserialize<'de> for RulesDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl<'de> Deserialize<'de> for RuleDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

#[cfg(feature = "body-key")]
impl<'de> Deserialize<'de> for JsonBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl<'de> Deserialize<'de> for Guard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl TryFrom<RulesDocument> for KeyRulesBuilder {
    type Error = String;

    fn try_from(document: RulesDocument) -> Result<Self, String> {
        let RulesDocument { namespace, scheme, whole_uri, accept_encoding, accept_language, .. } = document;
        let RulesDocument { classes, guard, tag_fields, ignore_query, same_hosts, rules, .. } = document;
        let tag_fields = tag_fields.into_iter().collect();
        let parse =
            |text: String| text.parse::<Scheme>().map_err(|error| format!("scheme `{text}`: {error}"));
        let scheme = scheme.map(parse).transpose()?;
        let extensions = Vec::new();
        Ok(Self {
            namespace,
            scheme,
            whole_uri,
            accept_encoding,
            accept_language,
            classes,
            guard,
            tag_fields,
            ignore_query,
            same_hosts,
            rules,
            extensions,
        })
    }
}

impl TryFrom<KeyRulesBuilder> for KeyRules {
    type Error = RuleError;

    fn try_from(builder: KeyRulesBuilder) -> Result<Self, RuleError> {
        builder.build()
    }
}

macro_rules! rule_document {
    ($(
        $(#[$doc:meta])*
        $setting:ident $arguments:tt -> $type:ty { value: $value:expr, document: $document:ty, $($rest:tt)* }
    )*) => {
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields, remote = "Self")]
        pub(super) struct RuleDocument {
            name: Option<String>,
            #[serde(alias = "hosts", deserialize_with = "one_or_more")]
            host: Vec<String>,
            #[serde(alias = "methods", deserialize_with = "one_or_more")]
            method: Vec<String>,
            when: Option<When>,
            #[serde(alias = "paths", deserialize_with = "some")]
            path: Option<Vec<String>>,
            ignore_path_case: bool,
            keep_query: Option<Vec<String>>,
            ignore_query: Vec<String>,
            sort_query: bool,
            drop_empty_query: bool,
            no_vary_search: bool,
            headers: Vec<String>,
            cookies: Option<Vec<String>>,
            extensions: Vec<String>,
            forward_unkeyed: bool,
            #[cfg(feature = "body-key")]
            body: Option<usize>,
            #[cfg(feature = "body-key")]
            graphql: bool,
            #[cfg(feature = "body-key")]
            persisted_queries: Vec<String>,
            #[cfg(feature = "body-key")]
            json_body: Option<JsonBody>,
            bypass: bool,
            tags: Vec<String>,
            $($setting: Option<$document>,)*
        }

        impl From<RuleDocument> for KeyRule {
            fn from(document: RuleDocument) -> Self {
                Self {
                    name: document.name,
                    hosts: document.host,
                    methods: document.method,
                    when: document.when,
                    paths: document.path,
                    ignore_path_case: document.ignore_path_case,
                    keep_query: document.keep_query,
                    ignore_query: document.ignore_query,
                    sort_query: document.sort_query,
                    drop_empty_query: document.drop_empty_query,
                    no_vary_search: document.no_vary_search,
                    headers: document.headers,
                    cookies: document.cookies,
                    extensions: document.extensions,
                    forward_unkeyed: document.forward_unkeyed,
                    #[cfg(feature = "body-key")]
                    body: document.body,
                    #[cfg(not(feature = "body-key"))]
                    body: None,
                    #[cfg(feature = "body-key")]
                    graphql: document.graphql,
                    #[cfg(feature = "body-key")]
                    persisted_queries: document.persisted_queries,
                    #[cfg(feature = "body-key")]
                    json_body: document.json_body,
                    bypass: document.bypass,
                    tags: document.tags,
                    overrides: RuleOverrides { $($setting: document.$setting.map(Into::into),)* },
                }
            }
        }
    };
}

storing_settings!(rule_document);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeuristicDocument {
    share: f64,
    at_most: Span,
}

impl From<HeuristicDocument> for Heuristic {
    fn from(document: HeuristicDocument) -> Self {
        Self::new(document.share, document.at_most.0)
    }
}

/// A list of rules; errors have the number of the rule.
fn numbered_rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyRule>, D::Error> {
    numbered(deserializer, "key rule")
}

/// A duration with its unit: `200ms`, `10s`, `1h 30m`. A number alone has no unit, and is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(Duration);

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, like `200ms` or `10s`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                if text.contains('M') {
                    let reason = "`M` means months; write `m` for minutes, or `months`";
                    return Err(E::custom(format!("`{text}`: {reason}")));
                }
                let parsed = humantime::parse_duration(text);
                parsed.map(Span).map_err(|error| E::custom(format!("`{text}`: {error}")))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Like [`one_or_more`], for a field that may be absent.
pub(super) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    one_or_more(deserializer).map(Some)
}

/// A string, or a list of at least one string.
pub(crate) fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMore;

    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = list.next_element()? {
                texts.push(text);
            }
            match texts.is_empty() {
                true => Err(A::Error::custom("an empty list matches no request; remove it to match all")),
                false => Ok(texts),
            }
        }
    }

    deserializer.deserialize_any(OneOrMore)
}

/// A deserializer of structs that puts the name of the field before each error.
pub(crate) struct Named<D>(D);

impl<D> Named<D> {
    pub(crate) fn new(deserializer: D) -> Self {
        Self(deserializer)
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Named<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(NamedFields(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, NamedFields(visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct NamedFields<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for NamedFields<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(FieldNames { map, name: String::new() })
    }
}

struct FieldNames<A> {
    map: A,
    /// The name of the field that the next value is for.
    name: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for FieldNames<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.map.next_key::<String>()? else { return Ok(None) };
        let key = seed.deserialize(name.as_str().into_deserializer())?;
        self.name = name;
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let name = &self.name;
        let named = |error| A::Error::custom(format!("`{name}`: {error}"));
        self.map.next_value_seed(seed).map_err(named)
    }
}

/// Reads a list, and puts the name for an element and its number before each error.
pub(crate) fn numbered<'de, T, D>(deserializer: D, called: &'static str) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Numbered { called, of: PhantomData })
}

struct Numbered<T> {
    called: &'static str,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Numbered<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}s", self.called)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        let of = |index: usize| move |error| A::Error::custom(format!("{} {index}: {error}", self.called));
        while let Some(next) = list.next_element().map_err(of(all.len()))? {
            all.push(next);
        }
        Ok(all)
    }
}
