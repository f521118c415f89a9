//! What a key rule changes about the [`Rules`] that hold for its requests.

use std::time::Duration;

use http::Extensions;

use super::{
    rules::{Despite, Heuristic, Rules, Ttl},
    withheld::WithheldNames,
};

/// Changes to the configured rules: in a request's extensions, put there with its key.
///
/// Not whole [`Rules`], which would put all that a rule does not mention back to the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleOverrides {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) heuristic: Option<Heuristic>,
    pub(crate) stale_while_revalidate_for: Option<Duration>,
    pub(crate) stale_if_error_for: Option<Duration>,
    pub(crate) despite_revalidate: Option<Despite>,
    pub(crate) revalidate_for: Option<Duration>,
    pub(crate) hit_for_miss_for: Option<Duration>,
    pub(crate) store_set_cookie: Option<bool>,
    pub(crate) store_without: Option<WithheldNames>,
    pub(crate) store_private: Option<bool>,
    pub(crate) store_no_store: Option<bool>,
    pub(crate) store_authorized: Option<bool>,
}

impl RuleOverrides {
    fn apply(&self, rules: Rules) -> Rules {
        Rules {
            ttl: self.ttl.unwrap_or(rules.ttl),
            negative_ttl: self.negative_ttl.or(rules.negative_ttl),
            heuristic: self.heuristic.or(rules.heuristic),
            stale_while_revalidate_for: self
                .stale_while_revalidate_for
                .unwrap_or(rules.stale_while_revalidate_for),
            stale_if_error_for: self.stale_if_error_for.unwrap_or(rules.stale_if_error_for),
            despite_revalidate: self.despite_revalidate.unwrap_or(rules.despite_revalidate),
            revalidate_for: self.revalidate_for.unwrap_or(rules.revalidate_for),
            hit_for_miss_for: self.hit_for_miss_for.unwrap_or(rules.hit_for_miss_for),
            store_set_cookie: self.store_set_cookie.unwrap_or(rules.store_set_cookie),
            store_without: self.store_without.clone().unwrap_or(rules.store_without),
            store_private: self.store_private.unwrap_or(rules.store_private),
            store_no_store: self.store_no_store.unwrap_or(rules.store_no_store),
            store_authorized: self.store_authorized.unwrap_or(rules.store_authorized),
            never: rules.never,
            request: rules.request,
        }
    }
}

/// The rules for a request: those that a middleware put into its extensions, else the configured
/// ones with what the key rule of the request changes about them.
pub(crate) fn rules_for(request: &Extensions, configured: &Rules) -> Rules {
    match (request.get::<Rules>(), request.get::<RuleOverrides>()) {
        (Some(own), _) => own.clone(),
        (None, Some(changes)) => changes.apply(configured.clone()),
        (None, None) => configured.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mentioned_changes_and_a_middleware_wins() {
        let configured = Rules::new().stale_if_error_for(Duration::from_secs(5)).negative_ttl(Duration::ZERO);
        let mut request = Extensions::new();
        assert_eq!(rules_for(&request, &configured), configured);
        let ttl = Some(Ttl::Fixed(Duration::from_secs(1)));
        request.insert(RuleOverrides { ttl, store_authorized: Some(true), ..RuleOverrides::default() });
        let changed = configured.clone().fixed_ttl(Duration::from_secs(1)).store_authorized(true);
        assert_eq!(rules_for(&request, &configured), changed);
        request.insert(Rules::new());
        assert_eq!(rules_for(&request, &configured), Rules::new());
    }
}
