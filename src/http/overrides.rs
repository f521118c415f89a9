//! Request fields that override the target URI, `Host` or the method.
//!
//! Frameworks build links and redirects from them, so a response to a request with one of them must not be
//! served to a request without it, whatever its `Vary`.

use http::{HeaderMap, HeaderName, header};

use super::fields;

/// Fields by which a request overrides the host, the path or the scheme of its target.
pub(crate) const TARGET_OVERRIDES: [&str; 29] = [
    "forwarded",
    "front-end-https",
    "x-arr-ssl",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-proxied-https",
    "x-replaced-path",
    "x-rewrite-url",
    "x-scheme",
    "x-script-name",
    "x-url-scheme",
    "x-waws-unencoded-url",
];

/// Fields that override the method in many frameworks.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// What the fields of a request override.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// Whether frameworks may read another method.
    pub(crate) method: bool,
    /// Whether it asks for a protocol other than HTTP.
    pub(crate) protocol: bool,
    /// Whether frameworks may read another host, path or scheme.
    pub(crate) target: bool,
}

impl Overrides {
    /// Notes what a field with this name overrides. Call [`settle`](Self::settle) after the last one.
    pub(super) fn note(&mut self, name: &HeaderName) {
        self.protocol |= *name == header::UPGRADE;
        self.method |= is_one_of(&METHOD_OVERRIDES, name);
        self.target |= overrides_target(name);
    }

    /// Decides what depends on several fields.
    #[inline]
    pub(super) fn settle(&mut self, headers: &HeaderMap) {
        if self.protocol {
            self.protocol = fields::asks_for_another_protocol(headers);
        }
    }
}

/// Whether a field is one of [`TARGET_OVERRIDES`].
pub(crate) fn overrides_target(name: &HeaderName) -> bool {
    is_one_of(&TARGET_OVERRIDES, name)
}

fn is_one_of(names: &[&str], name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // All of them begin with these letters, and few other names do.
    matches!(name.first(), Some(b'f' | b'x'))
        && names.iter().any(|own| fields::is_spelling_of(own.as_bytes(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(name: &str) -> Overrides {
        let mut overrides = Overrides::default();
        overrides.note(&HeaderName::from_bytes(name.as_bytes()).unwrap());
        overrides
    }

    #[test]
    fn every_listed_field_is_found_in_both_spellings() {
        let nothing = Overrides::default();
        for (names, expected) in [
            (&METHOD_OVERRIDES[..], Overrides { method: true, ..nothing }),
            (&TARGET_OVERRIDES[..], Overrides { target: true, ..nothing }),
            (&["x-forwarded-for", "from", "x-requested-with", "host", "if-none-match"], nothing),
        ] {
            for name in names {
                assert_eq!(overrides(name), expected, "{name}");
                assert_eq!(overrides(&name.replace('-', "_")), expected, "{name}");
            }
        }
    }
}
