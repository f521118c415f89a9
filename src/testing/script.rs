//! Which requests an origin answers, and with what.

use std::{collections::VecDeque, fmt, sync::Arc};

use http::request::Parts;

use super::Answer;

/// The answers to the requests that a [`Matcher`] chooses, in the order in which they are given.
///
/// Made of one [`Answer`], which is given once, of an array or vector of them, or of a
/// [function](Self::from_fn). It is met once each of its answers was given, or the function was called.
pub struct Script(Source);

enum Source {
    Answers(Answers),
    Function(Arc<Function>),
}

type Function = dyn Fn(usize, &Parts) -> Answer + Send + Sync;

struct Answers {
    left: VecDeque<Answer>,
    repeats_last: bool,
    /// Whether the last one, which repeats, was given.
    is_met: bool,
}

impl Script {
    /// Calls this function for each request, with the number of the request among those of this script, from 1 on.
    pub fn from_fn(answer: impl Fn(usize, &Parts) -> Answer + Send + Sync + 'static) -> Self {
        Self(Source::Function(Arc::new(answer)))
    }

    /// Adds an answer after the others.
    ///
    /// # Panics
    ///
    /// If an answer can never be given: after a function, or after an answer that repeats.
    #[must_use]
    #[track_caller]
    pub fn then(mut self, next: Answer) -> Self {
        match &mut self.0 {
            Source::Answers(answers) if !answers.repeats_last => answers.left.push_back(next),
            _ => panic!("an answer after one that repeats would never be given"),
        }
        self
    }

    /// Gives the last answer any number of times.
    ///
    /// # Panics
    ///
    /// If there is none, or it has a body that exists once ([`Answer::with_body`]).
    #[must_use]
    #[track_caller]
    pub fn repeat(mut self) -> Self {
        if let Source::Answers(answers) = &mut self.0 {
            let Some(last) = answers.left.back() else { panic!("there is no answer to repeat") };
            let can_repeat = last.again().is_some();
            assert!(can_repeat, "an answer `with_body` can be given once; write `Script::from_fn` instead");
            answers.repeats_last = true;
        }
        self
    }

    /// Whether it has an answer for no request at all.
    fn is_empty(&self) -> bool {
        matches!(&self.0, Source::Answers(answers) if answers.left.is_empty())
    }
}

impl From<Answer> for Script {
    fn from(answer: Answer) -> Self {
        vec![answer].into()
    }
}

impl<const N: usize> From<[Answer; N]> for Script {
    fn from(answers: [Answer; N]) -> Self {
        Vec::from(answers).into()
    }
}

impl From<Vec<Answer>> for Script {
    fn from(answers: Vec<Answer>) -> Self {
        Self(Source::Answers(Answers { left: answers.into(), repeats_last: false, is_met: false }))
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Answers(answers) => f.debug_tuple("Script").field(&answers.left).finish(),
            Source::Function(_) => f.write_str("Script(function)"),
        }
    }
}

/// Which requests a [`Script`] is for: a path pattern, a closure over the head, or any.
///
/// A pattern is that of axum's router, `/p/{id}` or `/files/{*rest}`, for the path without the query. It may begin
/// with a method: `POST /cart`.
pub struct Matcher(Kind);

enum Kind {
    Pattern(Box<str>),
    Head(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
    Any,
}

impl Matcher {
    /// Any request.
    pub const ANY: Self = Self(Kind::Any);
}

impl From<&str> for Matcher {
    fn from(pattern: &str) -> Self {
        Self(Kind::Pattern(pattern.into()))
    }
}

impl From<String> for Matcher {
    fn from(pattern: String) -> Self {
        Self(Kind::Pattern(pattern.into()))
    }
}

impl<F: Fn(&Parts) -> bool + Send + Sync + 'static> From<F> for Matcher {
    fn from(matches: F) -> Self {
        Self(Kind::Head(Arc::new(matches)))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Matcher {
    fn label(&self) -> &str {
        match &self.0 {
            Kind::Pattern(pattern) => pattern,
            Kind::Head(_) => "a closure",
            Kind::Any => "any request",
        }
    }

    fn compile(self) -> Result<Test, String> {
        match self.0 {
            Kind::Any => Ok(Test::Any),
            Kind::Head(matches) => Ok(Test::Head(matches)),
            Kind::Pattern(pattern) => {
                let (method, path) = match pattern.split_once(' ') {
                    Some((method, path)) => (Some(method.into()), path),
                    None => (None, &*pattern),
                };
                if !path.starts_with('/') {
                    return Err(format!("`{pattern}` is not a pattern: a path begins with `/`"));
                }
                let mut router = matchit::Router::new();
                let inserted = router.insert(path, ());
                inserted.map_err(|error| format!("`{pattern}` is not a pattern: {error}"))?;
                Ok(Test::Path(method, Box::new(router)))
            }
        }
    }
}

#[derive(Clone)]
enum Test {
    Path(Option<Box<str>>, Box<matchit::Router<()>>),
    Head(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
    Any,
}

impl Test {
    fn matches(&self, head: &Parts) -> bool {
        match self {
            Self::Path(method, router) => {
                let is_method = method.as_ref().is_none_or(|method| **method == *head.method.as_str());
                is_method && router.at(head.uri.path()).is_ok()
            }
            Self::Head(matches) => matches(head),
            Self::Any => true,
        }
    }
}

/// A script with what it is for and how often it was asked.
pub(super) struct Scene {
    label: Box<str>,
    test: Arc<Test>,
    script: Script,
    calls: usize,
    /// Of a function none.
    answers: usize,
}

impl Scene {
    /// Fails with what is wrong with it.
    pub(super) fn new(matcher: Matcher, script: Script) -> Result<Self, String> {
        let label = matcher.label().into();
        if script.is_empty() {
            return Err(format!("the script for `{label}` has no answers"));
        }
        let answers = match &script.0 {
            Source::Answers(answers) => answers.left.len(),
            Source::Function(_) => 0,
        };
        Ok(Self { label, test: Arc::new(matcher.compile()?), script, calls: 0, answers })
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// How many requests this scene was for, those without an answer left included.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Whether the scene is for a request. To be called without a lock, since it may call a closure of the test.
    pub(super) fn test(&self) -> impl Fn(&Parts) -> bool + use<> {
        let test = Arc::clone(&self.test);
        move |head| test.matches(head)
    }

    /// Counts a request.
    pub(super) fn enter(&mut self) {
        self.calls += 1;
    }

    pub(super) fn has_next(&self) -> bool {
        !self.script.is_empty()
    }

    /// What the next request gets. `None`: all answers were given.
    pub(super) fn next(&mut self) -> Option<Next> {
        match &mut self.script.0 {
            Source::Function(function) => Some(Next::Call(Arc::clone(function), self.calls)),
            Source::Answers(answers) => answers.next().map(|answer| Next::Answer(Box::new(answer))),
        }
    }

    /// What of the script was not asked for, if anything.
    pub(super) fn unmet(&self) -> Option<String> {
        match &self.script.0 {
            Source::Function(_) if self.calls > 0 => None,
            Source::Function(_) => Some(format!("`{}` was never asked for", self.label)),
            Source::Answers(answers) => {
                let left = answers.left.len() - usize::from(answers.is_met);
                let (label, all) = (&self.label, self.answers);
                let plural = if all == 1 { "" } else { "s" };
                (left > 0).then(|| format!("`{label}` gave {} of its {all} answer{plural}", all - left))
            }
        }
    }
}

impl Answers {
    fn next(&mut self) -> Option<Answer> {
        if self.repeats_last && self.left.len() == 1 {
            self.is_met = true;
            return self.left.front().and_then(Answer::again);
        }
        self.left.pop_front()
    }
}

/// What a scene says to a request.
pub(super) enum Next {
    Answer(Box<Answer>),
    /// With the number of the request.
    Call(Arc<Function>, usize),
}

impl Next {
    /// To be called without a lock.
    pub(super) fn answer(self, head: &Parts) -> Answer {
        match self {
            Self::Answer(answer) => *answer,
            Self::Call(function, number) => function(number, head),
        }
    }
}
