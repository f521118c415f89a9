//! Keys with as many values as there are clients.

use super::{Concern, Place};

/// Fields of which each client or each page sends another value.
const MANY_VALUES: [&str; 8] =
    ["accept", "cookie", "referer", "traceparent", "user-agent", "via", "x-forwarded-for", "x-request-id"];

/// Parts of the names of cookies by which a server knows a client.
const SESSION: [&str; 7] = ["sess", "logged_in", "auth", "token", "jwt", "remember_me", "connect.sid"];

impl Place<'_> {
    pub(super) fn keys(self) -> Vec<Concern> {
        let source = self.all.source();
        let fields = self.rule.headers.iter().map(|name| name.to_ascii_lowercase());
        let is_class =
            |name: &str| source.classes.iter().any(|classes| classes.name().eq_ignore_ascii_case(name));
        let is_open = |name: &String| match name.as_str() {
            name if is_class(name) => false,
            "accept-encoding" => source.accept_encoding.is_none(),
            "accept-language" => source.accept_language.is_none(),
            name => MANY_VALUES.contains(&name),
        };
        let fields = fields.filter(is_open).map(|name| Concern::ManyValues(name.into()));
        let cookies = self.rule.cookies.iter().flatten().filter(|name| is_session(name));
        let cookies = cookies.map(|name| Concern::SessionCookie(name.as_str().into()));
        let is_tree = self.path.is_none_or(|path| path.contains("{*"));
        let has_many_reads = self.rule.body.is_some() && is_tree;
        fields.chain(cookies).chain(has_many_reads.then_some(Concern::ManyReads)).collect()
    }
}

fn is_session(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "sid" || SESSION.iter().any(|part| name.contains(part))
}
