//! Path templates of OpenAPI as patterns of key rules.

use serde::{Serialize, Serializer};

/// A path, segment by segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// The text before a parameter, the name of the parameter, and the text after it.
    Capture {
        begin: String,
        name: String,
        end: String,
    },
}

impl Pattern {
    /// A segment with more than one parameter, which is captured entirely.
    pub(crate) fn of_template(path: &str) -> Self {
        Self(path.split('/').skip(1).map(Segment::of_template).collect())
    }

    /// The pattern without the names of captures.
    pub(crate) fn shape(&self) -> String {
        let shapes = self.0.iter().map(|segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Capture { begin, end, .. } => format!("/{begin}{{}}{end}"),
        });
        shapes.collect()
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        let both = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && both.into_iter().all(|(own, other)| own.covers(other))
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        let both = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && both.into_iter().all(|(own, other)| own.meets(other))
    }
}

impl Segment {
    fn of_template(text: &str) -> Self {
        let Some((begin, rest)) = text.split_once('{') else { return Self::Literal(text.into()) };
        match rest.split_once('}') {
            Some((name, end)) if !end.contains('{') => {
                Self::Capture { begin: begin.into(), name: word(name), end: end.into() }
            }
            _ => Self::Capture { begin: String::new(), name: word(text), end: String::new() },
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(own), Self::Literal(other)) => own == other,
            (Self::Literal(_), Self::Capture { .. }) => false,
            (Self::Capture { begin, end, .. }, Self::Literal(text)) => {
                text.len() > begin.len() + end.len() && text.starts_with(begin) && text.ends_with(end)
            }
            (Self::Capture { begin, end, .. }, Self::Capture { begin: other, end: others, .. }) => {
                other.starts_with(begin) && others.ends_with(end)
            }
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Capture { begin, end, .. }, Self::Capture { begin: other, end: others, .. }) => {
                (begin.starts_with(other) || other.starts_with(begin))
                    && (end.ends_with(others) || others.ends_with(end))
            }
            _ => self.covers(other) || other.covers(self),
        }
    }
}

/// A valid name for a capture.
fn word(text: &str) -> String {
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.split(|char| !is_word(char)).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = Vec::new();
        let segments = self.0.iter().enumerate().map(|(at, segment)| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Capture { begin, name, end } => {
                // `{_}` would leave the segment out of the key.
                let is_usable = name.contains(|char: char| char != '_') && !names.contains(name);
                let name = if is_usable { name.clone() } else { format!("segment_{}", at + 1) };
                names.push(name.clone());
                format!("/{begin}{{{name}}}{end}")
            }
        });
        serializer.serialize_str(&segments.collect::<String>())
    }
}
