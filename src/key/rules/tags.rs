//! The tags that a rule gives to responses.

use http::Extensions;
use percent_encoding::percent_decode_str;

use super::{compiled::Match, error::Problem, layout::Extension, query};
use crate::tags::Tags;

/// The tags that a rule gives to responses.
#[derive(Debug)]
pub(super) struct TagTemplates(RuleTags);

#[derive(Debug)]
enum RuleTags {
    None,
    /// The same for all requests.
    Fixed(Tags),
    Templates(Box<[TagTemplate]>),
}

#[derive(Debug)]
struct TagTemplate(Box<[Piece]>);

#[derive(Debug)]
enum Piece {
    Text(Box<str>),
    Value(ValueSource),
}

/// Where the value for a name in a tag comes from.
#[derive(Clone, Debug)]
pub(super) enum ValueSource {
    Capture(Box<str>),
    /// A parameter of `keep_query`, with all its values.
    Parameter(Box<str>),
    Extension(Extension),
    /// A segment of the path, from 1.
    Segment(usize),
}

impl ValueSource {
    /// The source of a name like `path.2`.
    pub(super) fn segment(name: &str) -> Option<Self> {
        let number = name.strip_prefix("path.")?.parse().ok()?;
        (1..=MAX_SEGMENTS).contains(&number).then_some(Self::Segment(number))
    }

    fn is_parameter(&self) -> bool {
        matches!(self, Self::Parameter(_))
    }

    /// The value that a request has, if it has one. Parameters, which may have several, have none here.
    fn value(&self, found: &Match<'_, '_>, extensions: &Extensions) -> Option<String> {
        match self {
            Self::Capture(name) => found.capture(name),
            Self::Extension(extension) => extension.text(extensions),
            Self::Segment(number) => {
                let mut segments = found.target().path().split('/').filter(|segment| !segment.is_empty());
                let segment = segments.nth(number - 1)?;
                Some(percent_decode_str(segment).decode_utf8_lossy().into_owned())
            }
            Self::Parameter(_) => None,
        }
    }
}

/// The number of segments that purges by prefix tell apart.
const MAX_SEGMENTS: usize = 32;

impl TagTemplates {
    /// `source`: where the value for a name comes from.
    pub(super) fn parse(
        tags: &[String],
        source: impl Fn(&str) -> Result<ValueSource, Problem>,
    ) -> Result<Self, Problem> {
        let parse = |tag: &String| TagTemplate::parse(tag, &source);
        let templates: Vec<TagTemplate> = tags.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self(match templates.iter().all(TagTemplate::is_fixed) {
            _ if templates.is_empty() => RuleTags::None,
            true => RuleTags::Fixed(tags.iter().map(String::as_str).collect()),
            false => RuleTags::Templates(templates.into()),
        }))
    }

    /// These tags for a match, after those that the request already has.
    pub(super) fn add_to(&self, extensions: &Extensions, found: &Match<'_, '_>) -> Option<Tags> {
        let own = match &self.0 {
            RuleTags::None => return None,
            RuleTags::Fixed(own) => own.clone(),
            RuleTags::Templates(templates) => {
                let mut tags = Vec::new();
                templates.iter().for_each(|template| template.render(found, extensions, &mut tags));
                tags.into_iter().collect()
            }
        };
        Some(match extensions.get::<Tags>() {
            None => own,
            Some(tags) => tags.iter().chain(own.iter()).collect(),
        })
    }
}

impl TagTemplate {
    fn parse(tag: &str, source: &impl Fn(&str) -> Result<ValueSource, Problem>) -> Result<Self, Problem> {
        if tag.contains([' ', '\t', ',']) {
            return Err(Problem::SeveralTags(tag.into()));
        }
        let pieces = split(tag).ok_or_else(|| Problem::Tag(tag.into()))?;
        let piece = |(text, is_name): (&str, bool)| match is_name {
            false => Ok(Piece::Text(text.into())),
            true => source(text).map(Piece::Value).map_err(|problem| match problem {
                Problem::Tag(_) => Problem::Tag(tag.into()),
                other => other,
            }),
        };
        let own = Self(pieces.into_iter().map(piece).collect::<Result<_, _>>()?);
        match own.sources().filter(|source| source.is_parameter()).count() {
            0 | 1 => Ok(own),
            _ => Err(Problem::TagParameters(tag.into())),
        }
    }

    fn is_fixed(&self) -> bool {
        self.sources().next().is_none()
    }

    fn sources(&self) -> impl Iterator<Item = &ValueSource> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value(source) => Some(source),
            Piece::Text(_) => None,
        })
    }

    /// Adds a tag for each value of its parameter that some server may read, or no tag if the request lacks a
    /// value.
    fn render(&self, found: &Match<'_, '_>, extensions: &Extensions, tags: &mut Vec<String>) {
        let parameter = self.sources().find_map(|source| match source {
            ValueSource::Parameter(name) => Some(name),
            _ => None,
        });
        let mut push = |value: &str| {
            let text = |piece: &Piece| match piece {
                Piece::Text(text) => Some(text.to_string()),
                Piece::Value(source) if source.is_parameter() => Some(encoded(value)),
                Piece::Value(source) => source.value(found, extensions).as_deref().map(encoded),
            };
            tags.extend(self.0.iter().map(text).collect::<Option<String>>());
        };
        match parameter {
            None => push(""),
            Some(name) => {
                let query = found.target().query().unwrap_or_default();
                query::values(query, name).for_each(|value| push(&value));
            }
        }
    }
}

/// A value in a tag, with separators of tags encoded.
fn encoded(value: &str) -> String {
    let separates = |character: char| matches!(character, ' ' | ',') || character.is_ascii_control();
    let mut tag = String::with_capacity(value.len());
    for character in value.chars() {
        match separates(character) {
            true => tag.push_str(&format!("%{:02X}", u32::from(character))),
            false => tag.push(character),
        }
    }
    tag
}

/// The texts of a tag and the names in braces. `None` if it is empty, or a brace is not closed or not opened.
fn split(tag: &str) -> Option<Vec<(&str, bool)>> {
    let mut pieces = Vec::new();
    let mut rest = tag;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        pieces.extend([(text, false), (name, true)]);
        rest = after;
    }
    pieces.push((rest, false));
    let is_closed = |(text, is_name): &(&str, bool)| *is_name || !text.contains('}');
    (!tag.is_empty() && pieces.iter().all(is_closed)).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_text_and_names() {
        assert_eq!(
            split("a-{b}-{c}").unwrap(),
            [("a-", false), ("b", true), ("-", false), ("c", true), ("", false)]
        );
        for tag in ["", "{", "a}", "{a", "a{b}c}"] {
            assert_eq!(split(tag), None, "{tag}");
        }
    }

    #[test]
    fn segments_have_numbers() {
        assert!(matches!(ValueSource::segment("path.2"), Some(ValueSource::Segment(2))));
        for name in ["path", "path.", "path.0", "path.33", "path.x", "2", "xpath.2"] {
            assert!(ValueSource::segment(name).is_none(), "{name}");
        }
    }

    #[test]
    fn separators_of_tags_stay_encoded() {
        assert_eq!(encoded("a b,c\tü"), "a%20b%2Cc%09ü");
    }
}
