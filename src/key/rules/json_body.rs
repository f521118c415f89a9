//! Which parts of a JSON body are in the key.

use std::collections::BTreeMap;

use super::error::Problem;
use crate::key::{Action, JsonShape, parse_pointer};

/// Puts the normal form of a JSON body, or of a part of it, into the key instead of its bytes; see
/// [`KeyRule::json_body`](crate::KeyRule::json_body).
///
/// White space and the order of members do not count. The spelling of numbers and strings does (`1.0` differs
/// from `1`), and so does the order in lists. **The origin gets the normal form as well**, so that it sees the
/// same request from all clients that share an entry, unless the rule has
/// [`forward_unkeyed`](crate::KeyRule::forward_unkeyed).
///
/// Parts are named by JSON Pointers (RFC 6901): `/params/page`. In a list, `*` stands for each element: `/*/id`.
///
/// The bytes of a body are in the key, and reach the origin unchanged, if
///
/// * servers may read it in several ways: a name is repeated, possibly in another case, or differs from a named
///   one only in case;
/// * it has a list where a pointer of [`include`](Self::include) names a member, or more than 32 levels;
/// * it is not JSON in UTF-8 by its `Content-Type` or its text, or has a `Content-Encoding`;
/// * a request field has a digest or signature of it.
///
/// ```
/// use tower_readthrough::{JsonBody, KeyRule};
///
/// // Clients number their calls, and the response repeats the number: all clients get 1.
/// let calls = KeyRule::path("/rpc").method("POST").body(64 << 10).json_body(JsonBody::new().replace("/id", 1));
/// let search = KeyRule::path("/search")
///     .method("POST")
///     .body(64 << 10)
///     .json_body(JsonBody::new().ignore(["/session", "/tracking/id"]));
/// # drop((calls, search));
/// ```
///
/// In a document: `"json_body": { "ignore": ["/session"], "replace": { "/id": 1 } }`; `{}` is the normal
/// form of the whole body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(default, deny_unknown_fields, remote = "Self")
)]
pub struct JsonBody {
    include: Option<Vec<String>>,
    ignore: Vec<String>,
    replace: BTreeMap<String, JsonConstant>,
}

/// A value that replaces what clients send; see [`JsonBody::replace`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(untagged))]
#[non_exhaustive]
pub enum JsonConstant {
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Integer(i64),
    /// A string.
    String(String),
}

impl From<bool> for JsonConstant {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for JsonConstant {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for JsonConstant {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl JsonConstant {
    fn to_text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::String(value) => serde_json::Value::from(value.as_str()).to_string(),
        }
    }
}

impl JsonBody {
    /// The whole body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these parts are in the key and reach the origin. Default: all.
    #[must_use]
    pub fn include<P: Into<String>>(mut self, pointers: impl IntoIterator<Item = P>) -> Self {
        self.include.get_or_insert_default().extend(pointers.into_iter().map(Into::into));
        self
    }

    /// These parts are not in the key, and do not reach the origin. Default: none.
    ///
    /// A JSON-RPC request without an `id` gets no response: [`replace`](Self::replace) the `id` instead.
    #[must_use]
    pub fn ignore<P: Into<String>>(mut self, pointers: impl IntoIterator<Item = P>) -> Self {
        self.ignore.extend(pointers.into_iter().map(Into::into));
        self
    }

    /// If this part is present, the key and the origin have `value` in its place. Default: nothing is replaced.
    ///
    /// A response that repeats the part has this value. **A JSON-RPC client that compares the `id` of a response
    /// with its own works with this only if it always sends this value**: calls of clients that number them
    /// cannot be shared, and their `id` has to stay in the key.
    #[must_use]
    pub fn replace(mut self, pointer: impl Into<String>, value: impl Into<JsonConstant>) -> Self {
        self.replace.insert(pointer.into(), value.into());
        self
    }

    pub(super) fn compile(&self) -> Result<JsonShape, Problem> {
        let replaced = |(pointer, value): (&'_ String, &JsonConstant)| {
            (pointer.clone(), Action::Replace(value.to_text().into()))
        };
        let steps = self.include.iter().flatten().map(|pointer| (pointer.clone(), Action::Include));
        let steps = steps.chain(self.ignore.iter().map(|pointer| (pointer.clone(), Action::Ignore)));
        let steps = steps.chain(self.replace.iter().map(replaced)).map(|(pointer, action)| {
            let path = parse_pointer(&pointer).ok_or_else(|| Problem::Pointer(pointer.as_str().into()))?;
            Ok((path, action))
        });
        let steps = steps.collect::<Result<Vec<_>, Problem>>()?;
        let is_named_before = |at: usize| steps[..at].iter().any(|(path, _)| *path == steps[at].0);
        if let Some(at) = (0..steps.len()).find(|at| is_named_before(*at)) {
            return Err(Problem::RepeatedPointer(to_pointer(&steps[at].0).into()));
        }
        if self.include.as_ref().is_some_and(Vec::is_empty) {
            let reason = "`include` is empty, so nothing would be in the key";
            return Err(Problem::NoEffect { setting: "json_body", reason });
        }
        match steps.iter().find(|step| self.is_idle(step, &steps)) {
            Some((path, _)) => Err(Problem::IdlePointer(to_pointer(path).into())),
            None => Ok(JsonShape::new(self.include.is_some(), steps)),
        }
    }

    /// Whether other steps already decide about what this step names.
    fn is_idle(&self, (path, action): &Step, all: &[Step]) -> bool {
        let is_within = |is_such: fn(&Action) -> bool| {
            let is_around = |other: &[Box<str>]| other.len() < path.len() && path.starts_with(other);
            all.iter().any(|(other, own)| is_such(own) && is_around(other))
        };
        let is_included = is_within(|own| *own == Action::Include);
        is_within(|own| *own != Action::Include)
            || match action {
                Action::Include => is_included,
                Action::Ignore => self.include.is_some() && !is_included,
                Action::Replace(_) => false,
            }
    }
}

/// A path, and what is done with the part at it.
type Step = (Box<[Box<str>]>, Action);

fn to_pointer(path: &[Box<str>]) -> String {
    path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect()
}
