//! Storing what is not for all.

use http::header;

use super::{Concern, Place};

impl Place<'_> {
    pub(super) fn storing(self) -> Vec<Concern> {
        let overrides = &self.rule.overrides;
        let is_on = |setting: Option<bool>| setting == Some(true);
        let is_fixed = overrides.fixed_ttl.is_some();
        let lacks = "neither `Authorization` nor a cookie nor an extension that tells clients apart";
        let lacks_authorization = "neither `Authorization` nor an extension that tells clients apart";
        let for_all = |setting, lacks| Concern::ForAll { setting, lacks };
        [
            (is_on(overrides.store_private) && !self.tells_clients_apart(), for_all("store_private", lacks)),
            (
                is_on(overrides.store_no_store) && !self.tells_clients_apart(),
                for_all("store_no_store", lacks),
            ),
            (
                is_on(overrides.store_authorized)
                    && !self.keys_field("authorization")
                    && self.rule.extensions.is_empty(),
                for_all("store_authorized", lacks_authorization),
            ),
            (is_on(overrides.store_set_cookie), Concern::SetCookie),
            (is_fixed && self.rule.forward_unkeyed, Concern::ForwardedAndFixed),
            (is_fixed && self.is_for_every_path(), Concern::FixedEverywhere),
        ]
        .into_iter()
        .filter_map(|(is_so, concern)| is_so.then_some(concern))
        .chain(self.cookies_unsaid())
        .collect()
    }

    fn is_for_every_path(self) -> bool {
        self.path.is_none_or(|path| path.starts_with("/{*") && path.find('}') == path.len().checked_sub(1))
    }

    fn tells_clients_apart(self) -> bool {
        let has_cookie = self.rule.cookies.as_ref().is_some_and(|names| !names.is_empty());
        has_cookie
            || self.keys_field("authorization")
            || self.keys_field("cookie")
            || !self.rule.extensions.is_empty()
    }

    fn keys_field(self, field: &str) -> bool {
        self.rule.headers.iter().any(|name| name.eq_ignore_ascii_case(field))
    }

    /// A lifetime of our own is not for requests with cookies that nothing is said about.
    fn cookies_unsaid(self) -> Option<Concern> {
        let overrides = &self.rule.overrides;
        let ttls = [("fixed_ttl", overrides.fixed_ttl), ("default_ttl", overrides.default_ttl)];
        let (setting, _) = ttls.into_iter().find(|(_, ttl)| ttl.is_some())?;
        let is_said = self.rule.cookies.is_some()
            || self.keys_field("cookie")
            || self.all.guard().strips(&header::COOKIE);
        (!is_said).then_some(Concern::CookiesUnsaid(setting))
    }
}
