//! What would become of a request, and why: plain data, and a text for people.

use std::{fmt, time::Duration};

use crate::{
    exchange::Outcome,
    key::{CacheKey, Unkeyed},
    origin::OriginState,
};

/// What would become of a request, and why, as [`ReadThroughLayer::explain`](crate::ReadThroughLayer::explain)
/// finds out without asking the origin.
///
/// `Display` writes several lines for people, whose wording may change in any version. Serialised (features
/// `serde` and `dashboard`) it has the same content. Neither has the query of the URL, nor the key, which may
/// hold it, unless [`show_query`](Self::show_query) says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    pub(crate) method: String,
    /// Up to the query.
    pub(crate) url: String,
    pub(crate) query: Option<String>,
    pub(crate) shows_query: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) detail: Option<&'static str>,
    pub(crate) rule: Option<String>,
    pub(crate) key: Option<CacheKey>,
    pub(crate) stored: Vec<StoredSummary>,
    pub(crate) parts: usize,
    pub(crate) hit_for_miss_for: Option<Duration>,
    pub(crate) is_refreshed: bool,
    pub(crate) origin: OriginState,
}

/// One stored response under the key of a request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct StoredSummary {
    /// The status.
    pub status: u16,
    /// What it takes of the store, in bytes.
    pub bytes: usize,
    /// How many seconds ago the origin made it.
    pub age_seconds: u64,
    /// How many seconds it stays fresh; less than 0 if it is stale.
    pub fresh_for_seconds: i64,
    /// How many seconds after that it may be served while a fresh one is fetched.
    pub stale_while_revalidate_seconds: u64,
    /// How many seconds after that it may be served if the origin fails.
    pub stale_if_error_seconds: u64,
    /// The names of the request fields that select it (`Vary`).
    pub selected_by: Vec<String>,
    /// Whether this request selects it.
    pub is_selected: bool,
    /// Whether it was purged, so that it is never served again.
    pub is_purged: bool,
    /// Its tags. `None`: the store does not [keep their texts](crate::MemoryStoreBuilder::snapshots).
    pub tags: Option<Vec<String>>,
    /// The credentials with which requests do not get it.
    pub not_for: Vec<&'static str>,
}

impl Explanation {
    /// Lets the texts and the serialised form have the query, and the key as text.
    #[must_use]
    pub fn show_query(self) -> Self {
        Self { shows_query: true, ..self }
    }

    /// Returns what would become of the request. `None`: it is of a method that never has a key, and is
    /// passed on.
    ///
    /// A request that would be forwarded may share the fetch of another one, or be refused by a limit.
    pub const fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Returns what `Cache-Status` would say as `detail`.
    pub const fn detail(&self) -> Option<&'static str> {
        self.detail
    }

    /// Returns the name of the [key rule](crate::KeyRule::name) that decides about the request. `None`: no
    /// rule is for it, or there are none.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// Returns the key. `None`: it has none.
    pub const fn key(&self) -> Option<&CacheKey> {
        self.key.as_ref()
    }

    /// Returns the whole responses that are stored under the key.
    pub fn stored(&self) -> &[StoredSummary] {
        &self.stored
    }

    /// Returns how many parts of responses are stored under the key.
    pub const fn parts(&self) -> usize {
        self.parts
    }

    /// Returns for how long requests like this one do not wait for each other, since a response could not be
    /// shared a moment ago. `None`: they do.
    pub const fn hit_for_miss_for(&self) -> Option<Duration> {
        self.hit_for_miss_for
    }

    /// Whether a stored response would be served, and another one fetched in the background.
    pub const fn is_refreshed(&self) -> bool {
        self.is_refreshed
    }

    /// Returns the state of the origin that the request is for. Of [several](crate::Failover), as
    /// [`OriginHealth::state`](crate::OriginHealth::state).
    pub const fn origin(&self) -> OriginState {
        self.origin
    }

    fn url(&self) -> String {
        match &self.query {
            None => self.url.clone(),
            Some(query) if self.shows_query => format!("{}?{query}", self.url),
            Some(_) => format!("{}?\u{2026}", self.url),
        }
    }

    fn key_text(&self) -> Option<String> {
        let key = self.key.as_ref()?;
        Some(match self.shows_query {
            true => format!("{} ({})", key.as_bytes().escape_ascii(), key.digest()),
            false => key.digest(),
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.method, self.url())?;
        match self.outcome {
            None => writeln!(f, "  outcome  passed on: the method never has a key")?,
            Some(outcome) => writeln!(f, "  outcome  {outcome}{}", in_brackets(self.extra_detail()))?,
        }
        if self.is_refreshed {
            writeln!(f, "           and a fresh response is fetched in the background")?;
        }
        writeln!(f, "  rule     {}", self.rule().unwrap_or("none"))?;
        writeln!(f, "  key      {}", self.key_text().as_deref().unwrap_or("none"))?;
        writeln!(f, "  origin   {}", self.origin)?;
        if let Some(left) = self.hit_for_miss_for {
            writeln!(f, "  marker   hit-for-miss, for {} s more", left.as_secs())?;
        }
        match self.stored.len() + self.parts {
            0 => write!(f, "  stored   nothing"),
            _ => write!(f, "  stored   {} whole, {} in parts", self.stored.len(), self.parts),
        }?;
        self.stored.iter().try_for_each(|stored| write!(f, "\n{stored}"))
    }
}

impl Explanation {
    /// The detail, unless it is the reason of the outcome.
    fn extra_detail(&self) -> Option<&'static str> {
        self.detail.filter(|detail| self.outcome.and_then(Outcome::reason) != Some(detail))
    }
}

fn in_brackets(text: Option<&str>) -> String {
    text.map(|text| format!(" ({text})")).unwrap_or_default()
}

impl fmt::Display for StoredSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let selected = if self.is_selected { "selected" } else { "not selected" };
        let purged = if self.is_purged { ", purged" } else { "" };
        write!(f, "    {} of {} bytes, {selected}{purged}", self.status, self.bytes)?;
        match self.fresh_for_seconds {
            left @ 1.. => write!(f, "; {} s old, fresh for {left} s", self.age_seconds)?,
            over => write!(f, "; {} s old, stale since {} s", self.age_seconds, -over)?,
        }
        let windows = [
            ("while it is revalidated", self.stale_while_revalidate_seconds),
            ("if the origin fails", self.stale_if_error_seconds),
        ];
        for (when, seconds) in windows.into_iter().filter(|(_, seconds)| *seconds > 0) {
            write!(f, ", then served {when} for {seconds} s")?;
        }
        if !self.selected_by.is_empty() {
            write!(f, "; selected by {}", self.selected_by.join(", "))?;
        }
        if !self.not_for.is_empty() {
            write!(f, "; not for requests with {}", self.not_for.join(", "))?;
        }
        match self.tags.as_deref() {
            Some(tags @ [_, ..]) => write!(f, "; tags {}", tags.join(" ")),
            _ => Ok(()),
        }
    }
}

#[cfg(any(feature = "serde", feature = "dashboard"))]
impl serde::Serialize for Explanation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Explanation", 12)?;
        fields.serialize_field("method", &self.method)?;
        fields.serialize_field("url", &self.url())?;
        fields.serialize_field("outcome", self.outcome.map_or("passed", Outcome::as_str))?;
        fields.serialize_field("reason", &self.outcome.and_then(Outcome::reason))?;
        fields.serialize_field("detail", &self.detail)?;
        fields.serialize_field("is_refreshed", &self.is_refreshed)?;
        fields.serialize_field("rule", &self.rule)?;
        fields.serialize_field("key", &self.key_text())?;
        fields.serialize_field("origin", &self.origin)?;
        fields.serialize_field("hit_for_miss_seconds", &self.hit_for_miss_for.map(|left| left.as_secs()))?;
        fields.serialize_field("stored", &self.stored)?;
        fields.serialize_field("parts", &self.parts)?;
        fields.end()
    }
}

impl Explanation {
    /// Of a request without a key, for this reason if there is one to give.
    pub(crate) fn without_key(self, why: Option<Unkeyed>) -> Self {
        let outcome = why.map(Outcome::Unkeyed);
        Self { outcome, detail: why.map(Unkeyed::as_str), key: None, ..self }
    }
}
