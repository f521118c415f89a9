//! A rule that has been checked and can be applied.

use http::{Method, Uri};

use super::{
    host::HostPattern,
    pattern::PathPattern,
    shape::{Match, Shape},
    template::{QueryTemplate, Slots},
};
use crate::{http::changes::Changes, key::normal::Authority, tags::Tags};

#[derive(Debug, Default)]
pub(super) struct Compiled {
    /// Which rule it is, of those that were written.
    pub(super) index: usize,
    /// None: every host.
    pub(super) hosts: Box<[HostPattern]>,
    /// None: GET and HEAD, or every method to bypass.
    pub(super) methods: Box<[Method]>,
    pub(super) path: Option<PathPattern>,
    pub(super) template: Option<QueryTemplate>,
    /// None: the default key.
    pub(super) shape: Option<Shape>,
    pub(super) is_bypass: bool,
    /// If it bypasses, its path for those servers that read paths loosely.
    pub(super) loose_path: Option<PathPattern>,
    /// How much of a body is read for the key, if it is in the key.
    pub(super) max_body: Option<usize>,
    pub(super) forwards_unkeyed: bool,
    pub(super) changes: Option<Changes>,
    pub(super) tags: TagTemplates,
}

impl Compiled {
    pub(super) fn find<'r, 'h>(
        &'r self,
        authority: Authority<'_>,
        method: &Method,
        path: &'h str,
        target: &'h Uri,
    ) -> Option<Match<'r, 'h>> {
        if !self.is_for(method) || !self.is_for_host(authority) {
            return None;
        }
        let captures = match &self.path {
            Some(pattern) => Some(pattern.at(path)?),
            None => None,
        };
        Some(Match { rule: self, target, captures, slots: self.slots(target)? })
    }

    /// Whether it sends a request round the cache that some servers read so.
    pub(super) fn bypasses(
        &self,
        authority: Authority<'_>,
        method: &Method,
        loosened: &str,
        target: &Uri,
    ) -> bool {
        let is_for_path = self.loose_path.as_ref().is_some_and(|pattern| pattern.at(loosened).is_some());
        is_for_path && self.is_for(method) && self.is_for_host(authority) && self.slots(target).is_some()
    }

    fn is_for_host(&self, authority: Authority<'_>) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host.is(authority))
    }

    /// What the template captures, if there is one. None: the query does not match.
    fn slots<'h>(&self, target: &'h Uri) -> Option<Option<Slots<'h>>> {
        match &self.template {
            Some(template) => template.at(target.query()?).map(Some),
            None => Some(None),
        }
    }

    fn is_for(&self, method: &Method) -> bool {
        match self.methods.is_empty() {
            true => self.is_bypass || matches!(*method, Method::GET | Method::HEAD),
            false => self.methods.contains(method),
        }
    }

    pub(super) fn ignores_path_case(&self) -> bool {
        self.path.as_ref().is_some_and(PathPattern::ignores_case)
    }

    pub(super) fn has_path_gaps(&self) -> bool {
        self.path.as_ref().is_some_and(PathPattern::has_gaps)
    }
}

/// The tags that a rule gives.
#[derive(Debug, Default)]
pub(super) enum TagTemplates {
    #[default]
    None,
    /// Without captures, made once.
    Fixed(Tags),
    Templates(Box<[Box<[Piece]>]>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Box<str>),
    Capture(Box<str>),
}

impl TagTemplates {
    /// None if a tag names a capture that is not there.
    pub(super) fn parse(tags: &[String], is_capture: impl Fn(&str) -> bool) -> Result<Self, &str> {
        let templates: Vec<Box<[Piece]>> = tags
            .iter()
            .map(|tag| pieces(tag).filter(|pieces| are_known(pieces, &is_capture)).ok_or(tag.as_str()))
            .collect::<Result<_, _>>()?;
        Ok(match templates.iter().flatten().any(|piece| matches!(piece, Piece::Capture(_))) {
            _ if templates.is_empty() => Self::None,
            true => Self::Templates(templates.into()),
            false => Self::Fixed(tags.iter().map(String::as_str).collect()),
        })
    }

    /// These tags for a match, after those that the request has already.
    pub(super) fn add_to(&self, tags: Option<&Tags>, found: &Match<'_, '_>) -> Option<Tags> {
        let own = match self {
            Self::None => return None,
            Self::Fixed(own) => own.clone(),
            Self::Templates(templates) => templates.iter().map(|pieces| render(pieces, found)).collect(),
        };
        Some(match tags {
            None => own,
            Some(tags) => tags.iter().chain(own.iter()).collect(),
        })
    }
}

fn are_known(pieces: &[Piece], is_capture: &impl Fn(&str) -> bool) -> bool {
    pieces.iter().all(|piece| !matches!(piece, Piece::Capture(name) if !is_capture(name)))
}

fn render(pieces: &[Piece], found: &Match<'_, '_>) -> String {
    let mut tag = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => tag.push_str(text),
            Piece::Capture(name) => tag.push_str(&found.capture(name).unwrap_or_default()),
        }
    }
    tag
}

/// None if a brace is not closed or not opened.
fn pieces(tag: &str) -> Option<Box<[Piece]>> {
    let mut pieces = Vec::new();
    let mut rest = tag;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        pieces.push(Piece::Text(text.into()));
        pieces.push(Piece::Capture(name.into()));
        rest = after;
    }
    pieces.push(Piece::Text(rest.into()));
    let is_closed = |piece: &Piece| !matches!(piece, Piece::Text(text) if text.contains('}'));
    (!tag.is_empty() && pieces.iter().all(is_closed)).then(|| pieces.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_text_and_captures() {
        let (text, capture) =
            (|text: &str| Piece::Text(text.into()), |name: &str| Piece::Capture(name.into()));
        let parsed = pieces("a-{b}-{c}").unwrap();
        assert_eq!(*parsed, [text("a-"), capture("b"), text("-"), capture("c"), text("")]);
        for tag in ["", "{", "a}", "{a", "a{b}c}"] {
            assert_eq!(pieces(tag), None, "{tag}");
        }
    }
}
