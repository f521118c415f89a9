//! The classes of requests.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use http::request::Parts;

/// Of a request of which nothing is said.
pub(crate) const DEFAULT_CLASS: u8 = 3;
pub(crate) const LOWEST_CLASS: u8 = 7;

type Classify = dyn Fn(&Parts) -> u8 + Send + Sync;

/// Which class a request has, from 0, the best, to 7.
#[derive(Clone, Default)]
pub(crate) struct Priority(Option<Arc<Classify>>);

impl Priority {
    pub(crate) fn new(classify: impl Fn(&Parts) -> u8 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(classify)))
    }

    /// Whether it says anything.
    pub(crate) const fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// The class of a request. The lowest one if the code of the application panics, or says more than that.
    pub(crate) fn class(&self, head: &Parts) -> u8 {
        let Some(classify) = &self.0 else { return DEFAULT_CLASS };
        catch_unwind(AssertUnwindSafe(|| classify(head))).unwrap_or(LOWEST_CLASS).min(LOWEST_CLASS)
    }
}

impl fmt::Debug for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Priority(custom)" } else { "Priority(default)" })
    }
}
