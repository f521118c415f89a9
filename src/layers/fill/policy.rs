use http::{request, response};

use crate::http::rules::Rules;

/// Has the last word on the [`Rules`] for one response, once its head is there.
///
/// Gets the rules that hold so far, which are the configured ones or those that a middleware
/// put into the request's extensions, and returns those that are to be used. Implemented for
/// closures, and for `()`, which changes nothing.
///
/// ```
/// use std::time::Duration;
/// use http::{request, response};
/// use tower_readthrough::{Policy, Rules};
///
/// let policy = |request: &request::Parts, response: &response::Parts, rules: Rules| {
///     if request.uri.path().starts_with("/search") {
///         rules.fixed_ttl(Duration::from_millis(200))
///     } else if response.headers.contains_key("x-personal") {
///         rules.never_store()
///     } else {
///         rules
///     }
/// };
/// fn takes_policies(_: impl Policy) {}
/// takes_policies(policy);
/// ```
pub trait Policy: Send + Sync + 'static {
    /// Returns the rules for this response to this request.
    ///
    /// The heads are as they came: a request before the cache made it conditional, and a
    /// response with the extensions that the wrapped service gave it. Of a 304 the fields of
    /// the stored response are shown, updated by it.
    fn rules(&self, request: &request::Parts, response: &response::Parts, rules: Rules) -> Rules;

    /// Whether the heads matter at all: if not, less of them is copied.
    #[doc(hidden)]
    fn looks(&self) -> bool {
        true
    }
}

impl Policy for () {
    fn rules(&self, _: &request::Parts, _: &response::Parts, rules: Rules) -> Rules {
        rules
    }

    fn looks(&self) -> bool {
        false
    }
}

impl<F> Policy for F
where
    F: Fn(&request::Parts, &response::Parts, Rules) -> Rules + Send + Sync + 'static,
{
    fn rules(&self, request: &request::Parts, response: &response::Parts, rules: Rules) -> Rules {
        self(request, response, rules)
    }
}
