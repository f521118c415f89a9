mod written;

use std::fmt;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response, header};
use sfv::{ItemSerializer, KeyRef, RefBareItem, TokenRef};

use crate::http::{fields::has, storing::Unshareable};

/// The response field of RFC 9211.
pub(crate) const CACHE_STATUS: HeaderName = header::CACHE_STATUS;

/// How this cache is called in it.
const NAME: &str = "tower-readthrough";

/// How an answer came about, in the terms of RFC 9211.
///
/// Every response that a layer here had to do with has one, for logs and metrics; see
/// [`of`](Self::of). For everybody else it is in the response's `Cache-Status` field. Of several
/// layers the outermost one that decided has the last word.
/// [`LookupLayer::cache_status`](crate::LookupLayer::cache_status) leaves the field out.
///
/// ```
/// use tower_readthrough::CacheStatus;
///
/// fn log<B>(response: &http::Response<B>) -> String {
///     match CacheStatus::of(response) {
///         Some(status) => status.to_string(),
///         None => "not asked".into(),
///     }
/// }
/// # assert_eq!(log(&http::Response::new(())), "not asked");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    outcome: Outcome,
    is_stored: bool,
    is_collapsed: bool,
    unshareable: Option<Unshareable>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Hit,
    Stale(Stale),
    Forwarded(Forward),
}

/// Why a stale answer was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stale {
    /// A fresh one is being fetched (RFC 5861 §3).
    WhileRevalidating,
    /// The origin failed (RFC 5861 §4).
    IfError,
    /// The client takes stale answers (`max-stale`, RFC 9111 §5.2.1.2).
    AsRequested,
}

/// Why a request went to the origin (the `fwd` parameter, RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forward {
    /// Nothing is stored under its key.
    UriMiss,
    /// Something is stored under its key, but nothing that the request selects.
    VaryMiss,
    /// Nothing that can be used, for no more specific reason.
    Miss,
    /// What is stored is stale.
    Stale,
    /// The answer was not shareable a moment ago (hit-for-miss).
    Bypass,
    /// What is stored is fresh, but the request asks for something newer.
    Request,
}

/// What hits say, written out. That the field of a response is one of these very strings, and not
/// just the same text, tells that it was put there in this process: what came in over a connection
/// is never taken for ours.
static HITS: [(Outcome, HeaderValue); 4] = [
    (Outcome::Hit, HeaderValue::from_static("tower-readthrough;hit")),
    (
        Outcome::Stale(Stale::WhileRevalidating),
        HeaderValue::from_static("tower-readthrough;hit;detail=stale-while-revalidate"),
    ),
    (Outcome::Stale(Stale::IfError), HeaderValue::from_static("tower-readthrough;hit;detail=stale-if-error")),
    (Outcome::Stale(Stale::AsRequested), HeaderValue::from_static("tower-readthrough;hit;detail=max-stale")),
];

impl CacheStatus {
    /// How this response came about. `None`: no layer here had anything to do with it.
    ///
    /// It is in the extensions of the response, except for a hit and for what is stored that say it
    /// in `Cache-Status`: an extension would cost a hit more than everything else that it hands out.
    pub fn of<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().copied().or_else(|| Self::shown(response.headers()))
    }

    /// What the last member of the field says, if that is ours and written out.
    pub(crate) fn shown(headers: &HeaderMap) -> Option<Self> {
        // Most have none, which is known sooner like this.
        if !has(headers, &CACHE_STATUS) {
            return None;
        }
        let last = headers.get_all(CACHE_STATUS).iter().next_back()?.as_bytes();
        let is_last = |value: &HeaderValue| std::ptr::eq(value.as_bytes(), last);
        let hit = HITS.iter().find(|(_, value)| is_last(value)).map(|(outcome, _)| Self::new(*outcome));
        hit.or_else(|| Self::find_written(is_last))
    }

    /// Says so in the `Cache-Status` of the response, and in its extensions unless that shows it.
    pub(crate) fn mark<B>(self, response: &mut Response<B>) {
        match Self::of(response).is_some() {
            true => self.replace_last(response.headers_mut()),
            false => _ = response.headers_mut().append(CACHE_STATUS, self.to_value()),
        }
        match response.extensions_mut().get_mut() {
            Some(before) => *before = self,
            None if self.written().is_some() => {}
            None => _ = response.extensions_mut().insert(self),
        }
    }

    /// As [`mark`](Self::mark), for the head of a stored response, which says that it is a hit. Returns
    /// the extensions of the response.
    #[inline]
    pub(crate) fn mark_stored(self, headers: &mut HeaderMap) -> Extensions {
        let mut extensions = Extensions::new();
        if self.outcome != Outcome::Hit {
            self.replace_last(headers);
        }
        if !self.is_hit() {
            extensions.insert(self);
        }
        extensions
    }

    fn replace_last(self, headers: &mut HeaderMap) {
        let is_only_one = headers.get_all(CACHE_STATUS).iter().nth(1).is_none();
        match headers.get_mut(CACHE_STATUS) {
            // `insert` and `entry` would let a full map grow before they look for the name.
            Some(ours) if is_only_one => *ours = self.to_value(),
            _ => {
                Self::unmark(headers);
                headers.append(CACHE_STATUS, self.to_value());
            }
        }
    }

    /// Removes our member from a response that has one, and leaves it in the extensions.
    pub(crate) fn hide<B>(response: &mut Response<B>) {
        // What passed untouched has none, and another cache's is not ours to remove.
        if let Some(status) = Self::of(response) {
            Self::unmark(response.headers_mut());
            response.extensions_mut().insert(status);
        }
    }

    /// Removes our member, the last one, and leaves what other caches said.
    pub(crate) fn unmark(headers: &mut HeaderMap) {
        let mut members: Vec<_> = headers.get_all(CACHE_STATUS).iter().cloned().collect();
        members.pop();
        headers.remove(CACHE_STATUS);
        members.into_iter().for_each(|other| _ = headers.append(CACHE_STATUS, other));
    }

    /// A list member (RFC 9211 §2). Those of hits and most misses are written out, and cost nothing.
    pub(crate) fn to_value(self) -> HeaderValue {
        let hit = HITS.iter().find(|(outcome, _)| *outcome == self.outcome).map(|(_, value)| value);
        match hit.or_else(|| self.written()) {
            Some(value) => value.clone(),
            None => self.serialize().unwrap_or(HeaderValue::from_static(NAME)),
        }
    }

    /// What a plain hit says.
    pub(crate) fn hit_value() -> &'static HeaderValue {
        &HITS[0].1
    }

    fn serialize(self) -> Option<HeaderValue> {
        let parameters = self.parameters().filter_map(|(name, token)| {
            let value = match token {
                Some(token) => RefBareItem::from(TokenRef::from_str(token).ok()?),
                None => RefBareItem::from(true),
            };
            Some((KeyRef::from_str(name).ok()?, value))
        });
        let member = ItemSerializer::new().bare_item(TokenRef::from_str(NAME).ok()?).parameters(parameters);
        HeaderValue::try_from(member.finish()).ok()
    }

    /// The parameters of RFC 9211 §2, each with its token or `true`.
    fn parameters(self) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
        let (first, detail) = match self.outcome {
            Outcome::Hit => (("hit", None), None),
            Outcome::Stale(why) => (("hit", None), Some(why.as_str())),
            Outcome::Forwarded(why) => {
                (("fwd", Some(why.as_str())), self.unshareable.map(Unshareable::as_str))
            }
        };
        [
            Some(first),
            self.is_stored.then_some(("stored", None)),
            self.is_collapsed.then_some(("collapsed", None)),
            detail.map(|why| ("detail", Some(why))),
        ]
        .into_iter()
        .flatten()
    }

    pub(crate) const fn hit() -> Self {
        Self::new(Outcome::Hit)
    }

    pub(crate) const fn stale(why: Stale) -> Self {
        Self::new(Outcome::Stale(why))
    }

    pub(crate) const fn forwarded(why: Forward) -> Self {
        Self::new(Outcome::Forwarded(why))
    }

    const fn new(outcome: Outcome) -> Self {
        Self { outcome, is_stored: false, is_collapsed: false, unshareable: None }
    }

    pub(crate) const fn stored(self, is_stored: bool) -> Self {
        Self { is_stored, ..self }
    }

    pub(crate) const fn unshared(self, why: Unshareable) -> Self {
        Self { unshareable: Some(why), ..self }
    }

    pub(crate) const fn collapsed(self) -> Self {
        Self { is_collapsed: true, ..self }
    }

    /// Whether it came from the store, fresh or stale.
    pub const fn is_hit(&self) -> bool {
        matches!(self.outcome, Outcome::Hit | Outcome::Stale(_))
    }

    /// Whether it was stale when it was served, and why it was served all the same.
    pub const fn stale_reason(&self) -> Option<Stale> {
        match self.outcome {
            Outcome::Stale(why) => Some(why),
            _ => None,
        }
    }

    /// Why the request went to the origin, if it did.
    pub const fn forward_reason(&self) -> Option<Forward> {
        match self.outcome {
            Outcome::Forwarded(why) => Some(why),
            _ => None,
        }
    }

    /// Whether the answer of the origin is stored, once it is complete.
    pub const fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Why the answer of the origin was for this client alone, if it was.
    pub const fn unshareable_reason(&self) -> Option<Unshareable> {
        self.unshareable
    }

    /// Whether this client shared the fetch of another one.
    pub const fn is_collapsed(&self) -> bool {
        self.is_collapsed
    }
}

impl Stale {
    const fn as_str(self) -> &'static str {
        match self {
            Self::WhileRevalidating => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::AsRequested => "max-stale",
        }
    }
}

impl Forward {
    const fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
            Self::Request => "request",
        }
    }
}

impl fmt::Display for CacheStatus {
    /// The parameters of RFC 9211 §2, such as `fwd=stale; stored; collapsed` or
    /// `fwd=uri-miss; detail=no-store`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, token)) in self.parameters().enumerate() {
            f.write_str(if n > 0 { "; " } else { "" })?;
            f.write_str(name)?;
            token.map_or(Ok(()), |token| write!(f, "={token}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
