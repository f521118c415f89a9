//! Patterns of hosts.

use super::error::Problem;
use crate::key::uri::Authority;

/// A host, or all hosts below one, that a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPattern {
    /// In lower case. With a leading dot if the pattern is for all hosts below.
    name: Box<str>,
    is_below: bool,
    /// None: any port.
    port: Option<Box<str>>,
}

impl HostPattern {
    /// `example.com`, `example.com:8080`, `*.example.com` or `*.example.com:8080`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let broken = || Problem::Host(text.into());
        let (is_below, host) = match text.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (host, None),
        };
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = |name: &str| {
            let is_literal = name.starts_with('[') && name.ends_with(']');
            let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !name.is_empty()
                && !name.starts_with('.')
                && !name.ends_with('.')
                && (name.bytes().all(is_host) || is_literal && !is_below)
        };
        let labels = if is_below { name.strip_prefix('.').ok_or_else(broken)? } else { name };
        if !is_name(labels) || !port.is_none_or(is_port) {
            return Err(broken());
        }
        Ok(Self { name: name.to_ascii_lowercase().into(), is_below, port: port.map(Into::into) })
    }

    /// Whether it matches a host, without regard to case (RFC 9110 §4.2.3) and a trailing dot. An authority
    /// without a port has the default port.
    pub(super) fn is(&self, authority: Authority<'_>) -> bool {
        let (host, port) = authority.host_and_port();
        let is_name = |host: &[u8]| host.eq_ignore_ascii_case(self.name.as_bytes());
        let is_host = match self.is_below {
            false => is_name(host),
            true => {
                let start = host.len().checked_sub(self.name.len()).filter(|start| *start > 0);
                start.is_some_and(|start| is_name(&host[start..]))
            }
        };
        is_host && self.port.as_ref().is_none_or(|own| own.as_bytes() == port)
    }

    /// Whether this pattern matches all hosts that the other one matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let is_name = match (self.is_below, other.is_below) {
            (false, false) => self.name == other.name,
            (false, true) => false,
            (true, true) => other.name.ends_with(&*self.name),
            (true, false) => other.name.len() > self.name.len() && other.name.ends_with(&*self.name),
        };
        is_name && (self.port.is_none() || self.port == other.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pattern: &str) -> HostPattern {
        HostPattern::parse(pattern).unwrap()
    }

    #[test]
    fn hosts_match_in_any_case_and_with_any_port_unless_one_is_named() {
        let is = |pattern: &str, host: &str| parse(pattern).is(Authority::new(host.as_bytes(), None));
        for host in ["a.example", "A.Example", "a.example:8080", "a.example."] {
            assert!(is("a.Example", host), "{host}");
        }
        assert!(is("a:80", "a:80") && is("a:80", "a") && !is("a:80", "a:81"));
        assert!(is("[::1]", "[::1]") && is("[::1]", "[::1]:80"));
        assert!(is("*.example", "a.b.Example:1"));
        assert!(!is("*.example", "example") && !is("*.example", ".example"));
        assert!(is("*.example:81", "a.example:81") && !is("*.example:81", "a.example"));
        assert!(!is("a.example", "ba.example"));
    }

    #[test]
    fn invalid_hosts_are_refused() {
        for host in
            ["", "*", "*.", "*a", "a b", "a/b", "*.*.a", ":80", "a.", "a:", "a:b", "http://a", "*.[::1]"]
        {
            assert!(HostPattern::parse(host).is_err(), "{host:?}");
        }
    }

    #[test]
    fn patterns_cover_narrower_ones() {
        for (wide, narrow) in [
            ("a.example", "A.example"),
            ("a.example", "a.example:81"),
            ("*.example", "a.example"),
            ("*.example", "*.a.example:81"),
        ] {
            assert!(parse(wide).covers(&parse(narrow)), "{wide} {narrow}");
            assert!(
                wide.eq_ignore_ascii_case(narrow) || !parse(narrow).covers(&parse(wide)),
                "{wide} {narrow}"
            );
        }
        assert!(!parse("*.example").covers(&parse("example")));
        assert!(!parse("*.example").covers(&parse("badexample")));
    }
}
