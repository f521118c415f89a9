//! The table as it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::{
    http::rules::Rules,
    key::rules::{Named, Span, numbered, one_or_more},
};

/// Requests and what key rules must make of them; see the [module](super).
///
/// Deserialised from JSON, or any other format that serde knows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct RuleTable {
    pub(super) host: Option<String>,
    pub(super) headers: Fields,
    pub(super) response: Option<Fields>,
    #[serde(deserialize_with = "numbered_rows")]
    rows: Vec<Row>,
    #[serde(skip)]
    rules: Rules,
}

impl RuleTable {
    /// How responses are stored where the key rules say nothing about it: what
    /// [`ReadThroughBuilder::rules`](crate::ReadThroughBuilder::rules) has. Default: [`Rules::new`].
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn storing(&self) -> &Rules {
        &self.rules
    }
}

/// Header fields by their names. None: there is none of that name.
pub(super) type Fields = BTreeMap<String, Option<Lines>>;

/// One line, or several.
#[derive(Clone, Debug)]
pub(super) struct Lines(Vec<String>);

impl Lines {
    pub(super) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_or_more(deserializer).map(Self)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub(super) struct Row {
    pub(super) request: String,
    pub(super) host: Option<String>,
    pub(super) headers: Fields,
    pub(super) body: Option<serde_json::Value>,
    pub(super) extensions: BTreeMap<String, String>,
    pub(super) status: Option<u16>,
    pub(super) response: Option<Fields>,
    pub(super) why: Option<String>,
    #[serde(deserialize_with = "present")]
    pub(super) rule: Option<Option<String>>,
    pub(super) entry: Option<String>,
    pub(super) bypass: Option<String>,
    pub(super) ttl: Option<Span>,
    pub(super) stale_while_revalidate: Option<Span>,
    pub(super) stale_if_error: Option<Span>,
    pub(super) not_stored: Option<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) purged_by: Vec<String>,
    pub(super) kept_by: Vec<String>,
    pub(super) origin: Option<String>,
    pub(super) origin_headers: Fields,
    pub(super) stored_headers: Fields,
}

impl Row {
    /// How errors call it.
    pub(super) fn label(&self) -> String {
        let remark = self.why.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
        format!("`{}`{remark}", self.request)
    }

    pub(super) fn expects_something(&self) -> bool {
        let Self { rule, entry, bypass, ttl, not_stored, tags, purged_by, kept_by, origin, .. } = self;
        let Self { stale_while_revalidate, stale_if_error, origin_headers, stored_headers, .. } = self;
        let has_fields = !(origin_headers.is_empty() && stored_headers.is_empty());
        rule.is_some()
            || [entry, bypass, not_stored, origin].iter().any(|text| text.is_some())
            || [ttl, stale_while_revalidate, stale_if_error].iter().any(|span| span.is_some())
            || tags.is_some()
            || has_fields
            || !(purged_by.is_empty() && kept_by.is_empty())
    }
}

/// A `null` is something else than a field that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn numbered_rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Row>, D::Error> {
    numbered(deserializer, "row")
}

// Derived are functions of the same name, without names in their errors.
impl<'de> Deserialize<'de> for RuleTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}
