//! What a request to purge is taken for, checked before anything is purged.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts};
use serde::{Deserialize, Serialize};

use super::{Purge, PurgeError, display, frame::Refusal, host_of, pattern::UrlPattern, prefix};
use crate::tags::{Separator, TagFields, for_each_tag_of};

/// What is to be purged, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Order {
    urls: Vec<String>,
    tags: Vec<String>,
    prefixes: Vec<String>,
    patterns: Vec<String>,
    hosts: Vec<String>,
    all: bool,
    soft: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    urls: usize,
    tags: usize,
    prefixes: usize,
    patterns: usize,
    hosts: usize,
    all: bool,
    soft: bool,
    number: u64,
    purged: Vec<Understood>,
}

/// What one argument was taken for.
#[derive(Debug, Serialize)]
struct Understood {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<String>,
    /// The key rule by which a URL is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// One purge that can be done.
enum Step {
    Url(Parts),
    Tag(String),
    Prefix(Parts),
    Pattern(UrlPattern),
    All,
}

const SOFT_PURGE: HeaderName = HeaderName::from_static("fastly-soft-purge");
const PURGE_METHOD: HeaderName = HeaderName::from_static("x-purge-method");
const XKEY_PURGE: HeaderName = HeaderName::from_static("xkey-purge");
const XKEY_SOFT_PURGE: HeaderName = HeaderName::from_static("xkey-softpurge");
const MAGENTO_PATTERN: HeaderName = HeaderName::from_static("x-magento-tags-pattern");

/// What fields are about that say what to purge.
const SCOPES: [&str; 5] = ["regex", "pattern", "tag", "prefix", "host"];

/// In which requests to other caches name tags.
static TAG_FIELDS: [(HeaderName, Separator); 9] = [
    (HeaderName::from_static("surrogate-key"), Separator::Space),
    (HeaderName::from_static("cache-tag"), Separator::Comma),
    (HeaderName::from_static("cache-tags"), Separator::Space),
    (HeaderName::from_static("edge-cache-tag"), Separator::Comma),
    (HeaderName::from_static("xkey"), Separator::Space),
    (XKEY_PURGE, Separator::Space),
    (XKEY_SOFT_PURGE, Separator::Space),
    (HeaderName::from_static("x-drupal-cache-tags"), Separator::Space),
    (HeaderName::from_static("x-magento-tags"), Separator::Comma),
];

impl Order {
    /// Of a request of method PURGE for this URL: the tags in its fields, or else the URL.
    pub(super) fn of_purge(
        headers: &HeaderMap,
        own: &TagFields,
        url: impl FnOnce() -> Result<String, Refusal>,
    ) -> Result<Self, Refusal> {
        let soft = match single(headers, &SOFT_PURGE)? {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                return Err(Refusal::bad(format!("`Fastly-Soft-Purge` is 1 or 0, not {other:?}")));
            }
        };
        // Where tags are named for both, all of them are gone.
        let is_soft_by_name = headers.contains_key(XKEY_SOFT_PURGE) && !headers.contains_key(XKEY_PURGE);
        let mut order = Self { soft: soft || is_soft_by_name, ..Self::default() };
        let is_pattern = match single(headers, &PURGE_METHOD)? {
            None | Some("default" | "exact") => false,
            Some("regex") => true,
            Some(other) => {
                return Err(Refusal::bad(format!(
                    "`X-Purge-Method` is default, exact or regex, not {other:?}"
                )));
            }
        };
        order.read_tags(headers, own)?;
        if order.items() > 0 || order.all {
            return Ok(order);
        }
        match is_pattern {
            false => order.urls.push(url()?),
            true => order.patterns.push(without_expression(&url()?)?),
        }
        Ok(order)
    }

    fn read_tags(&mut self, headers: &HeaderMap, own: &TagFields) -> Result<(), Refusal> {
        let (tags, mut is_text) = (&mut self.tags, true);
        let mut push = |tag: &[u8]| match str::from_utf8(tag) {
            Ok(tag) => tags.push(tag.to_owned()),
            Err(_) => is_text = false,
        };
        let known = TAG_FIELDS.iter().map(|(name, separator)| (name, *separator));
        let others = own.iter().filter(|(name, _)| TAG_FIELDS.iter().all(|(known, _)| known != *name));
        let mut read = Vec::new();
        for (name, separator) in known.chain(others).filter(|(name, _)| headers.contains_key(*name)) {
            for_each_tag_of(headers, name, separator, &mut push);
            read.push(name.clone());
        }
        if !is_text {
            return Err(Refusal::bad("a tag is not valid UTF-8"));
        }
        let has_field = !read.is_empty();
        match single(headers, &MAGENTO_PATTERN)? {
            None => {}
            Some(".*") => self.all = true,
            Some(pattern) => self.tags.extend(tags_of_magento(pattern)?),
        }
        if has_field && self.tags.is_empty() {
            return Err(Refusal::bad("a field for tags is empty"));
        }
        // What is meant for a cache that understands more must not be taken for something else. Other
        // fields may be for the access check.
        let is_unknown = |name: &&HeaderName| {
            let says_what = |what: &str| name.as_str().contains(what);
            let is_about_purges = says_what("purge") && SCOPES.into_iter().any(says_what);
            is_about_purges && !read.contains(name)
        };
        match headers.keys().find(is_unknown) {
            Some(name) => Err(Refusal::bad(format!("unknown field `{name}`"))),
            None => Ok(()),
        }
    }

    pub(super) fn of_json(text: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(text).map_err(|error| Refusal::bad(error.to_string()))
    }

    fn items(&self) -> usize {
        let Self { urls, tags, prefixes, patterns, hosts, .. } = self;
        urls.len() + tags.len() + prefixes.len() + patterns.len() + hosts.len()
    }

    /// All of it or nothing.
    pub(super) fn apply(&self, purge: &Purge, max_items: usize) -> Result<Done, Refusal> {
        let items = self.items();
        if items > max_items {
            return Err(Refusal::bad(format!("{items} items are too many: send at most {max_items}")));
        }
        if items == 0 && !self.all {
            let kinds = "`urls`, `tags`, `prefixes`, `patterns`, `hosts` or `all`";
            return Err(Refusal::bad(format!("nothing to purge: give {kinds}")));
        }
        let (steps, purged): (Vec<Step>, Vec<Understood>) = self.steps(purge)?.into_iter().unzip();
        let purge = if self.soft { purge.soft() } else { purge.clone() };
        let number = steps.iter().map(|step| step.apply(&purge)).last().unwrap_or_default();
        let Self { urls, tags, prefixes, patterns, hosts, all, soft } = self;
        Ok(Done {
            urls: urls.len(),
            tags: tags.len(),
            prefixes: prefixes.len(),
            patterns: patterns.len(),
            hosts: hosts.len(),
            all: *all,
            soft: *soft,
            number,
            purged,
        })
    }

    fn steps(&self, purge: &Purge) -> Result<Vec<(Step, Understood)>, Refusal> {
        let said = |kind, argument, rule| Understood { kind, argument: Some(argument), rule };
        let mut steps = Vec::with_capacity(self.items() + 1);
        if self.all {
            steps.push((Step::All, Understood { kind: "all", argument: None, rule: None }));
        }
        for url in &self.urls {
            let (head, rule) = purge.checked(url)?;
            let understood = said("url", display(&head), rule);
            steps.push((Step::Url(head), understood));
        }
        for tag in &self.tags {
            steps.push((Step::Tag(checked_tag(tag)?.to_owned()), said("tag", tag.clone(), None)));
        }
        for url in &self.prefixes {
            let head = prefix(url)?;
            let argument = display(&head);
            steps.push((Step::Prefix(head), said("prefix", argument, None)));
        }
        for url in &self.patterns {
            let pattern = UrlPattern::parse(url)?;
            let argument = pattern.text.clone();
            steps.push((Step::Pattern(pattern), said("pattern", argument, None)));
        }
        for host in &self.hosts {
            let head = host_of(host)?;
            let argument = display(&head).trim_end_matches('/').to_owned();
            steps.push((Step::Prefix(head), said("host", argument, None)));
        }
        Ok(steps)
    }
}

impl Step {
    /// Returns the number of the purge.
    fn apply(&self, purge: &Purge) -> u64 {
        match self {
            Self::Url(head) => purge.url_of(head),
            Self::Tag(tag) => purge.tag(tag),
            Self::Prefix(head) => purge.path_prefix_of(head),
            Self::Pattern(pattern) => purge.pattern_of(pattern),
            Self::All => purge.everything(),
        }
        .number()
    }
}

impl From<PurgeError> for Refusal {
    fn from(error: PurgeError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

/// A tag that a response can have by its fields or by a rule: what is several, or none, reaches nothing.
fn checked_tag(tag: &str) -> Result<&str, Refusal> {
    let separates = |character: char| character == ',' || character.is_whitespace() || character.is_control();
    if tag.is_empty() {
        return Err(Refusal::bad("a tag is empty"));
    }
    if tag.contains(separates) {
        return Err(Refusal::bad(format!(
            "{tag:?} is not one tag: give each of them as a string of its own"
        )));
    }
    if tag.contains(['*', '{', '}']) {
        let reason = "tags are compared whole, and have no wildcards: `patterns` are for paths";
        return Err(Refusal::bad(format!("invalid tag {tag:?}: {reason}")));
    }
    Ok(tag)
}

/// The value of a field that may be there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::to_str);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value.trim())),
        _ => Err(Refusal::bad(format!("`{name}` is repeated, or not ASCII text"))),
    }
}

/// The pattern that a WordPress plugin means by `.*` at the end of an address.
fn without_expression(url: &str) -> Result<String, Refusal> {
    let is_plain = |start: &&str| !start.contains(['(', ')', '[', ']', '+', '$', '*']);
    match url.strip_suffix(".*").filter(is_plain) {
        Some(start) => Ok(format!("{start}*")),
        None => {
            Err(Refusal::bad("unsupported regular expression: only `.*` at the end of the URL is supported"))
        }
    }
}

/// The tags of `((^|,)cat_p_1(,|$))|((^|,)cat_c_2(,|$))`, which is how Magento writes a list of them.
fn tags_of_magento(pattern: &str) -> Result<Vec<String>, Refusal> {
    let of_tag = |text: &str| {
        let tag = text.strip_prefix('|').unwrap_or(text).strip_prefix("((^|,)")?;
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        (!tag.is_empty() && tag.bytes().all(is_tag)).then(|| tag.to_owned())
    };
    let tags = pattern.strip_suffix("(,|$))").and_then(|all| all.split("(,|$))").map(of_tag).collect());
    tags.ok_or_else(|| {
        Refusal::bad("invalid `X-Magento-Tags-Pattern`: expected a list of tags as Magento writes it")
    })
}
