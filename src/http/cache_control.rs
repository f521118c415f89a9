//! `Cache-Control` of a response (RFC 9111 §5.2.2, RFC 5861).

use std::time::Duration;

use http::{HeaderMap, header};

/// The longest lifetime that is told apart: 2^31 seconds (RFC 9111 §1.2.2), 68 years.
pub(crate) const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// The directives that mean something to a shared cache.
///
/// `private` and `no-cache` with field names count as if they had none, which RFC 9111
/// §5.2.2.4 and §5.2.2.7 allow: it is the stricter reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheControl {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl CacheControl {
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut parsed = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for directive in split_list(line.as_bytes()) {
                parsed.take(directive);
            }
        }
        parsed
    }

    /// Whether a stale answer is forbidden in so many words (RFC 9111 §4.2.4).
    pub(crate) fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.no_cache || self.s_maxage.is_some()
    }

    /// Of a directive that is there twice the first counts (RFC 9111 §4.2.1). A lifetime that
    /// cannot be read is none; a window that cannot be read was not given.
    fn take(&mut self, directive: &[u8]) {
        let (name, argument) = match directive.iter().position(|b| *b == b'=') {
            Some(at) => (&directive[..at], Some(&directive[at + 1..])),
            None => (directive, None),
        };
        let lifetime = || delta_seconds(argument).unwrap_or_default();
        match name.to_ascii_lowercase().as_slice() {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"max-age" => _ = self.max_age.get_or_insert_with(lifetime),
            b"s-maxage" => _ = self.s_maxage.get_or_insert_with(lifetime),
            b"stale-while-revalidate" => {
                self.stale_while_revalidate = self.stale_while_revalidate.or(delta_seconds(argument));
            }
            b"stale-if-error" => self.stale_if_error = self.stale_if_error.or(delta_seconds(argument)),
            _ => {}
        }
    }
}

/// Whole seconds, as a token or quoted. Too large a number means the largest (§1.2.2).
fn delta_seconds(argument: Option<&[u8]>) -> Option<Duration> {
    let argument = argument?;
    let digits = argument.strip_prefix(b"\"").and_then(|a| a.strip_suffix(b"\"")).unwrap_or(argument);
    seconds(digits)
}

/// A non-empty run of digits, saturating at [`MAX_DELTA`].
pub(crate) fn seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0')));
    Some(Duration::from_secs(number).min(MAX_DELTA))
}

/// The elements of a comma-separated list, trimmed; commas inside quoted strings do not
/// separate (RFC 9110 §5.6.1, §5.6.4). Empty elements are left out.
pub(crate) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |byte| {
        let separates = *byte == b',' && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
    .map(<[u8]>::trim_ascii)
    .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(lines: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        CacheControl::parse(&headers)
    }

    fn max_age(value: &str) -> Option<u64> {
        parse(&[&format!("max-age={value}")]).max_age.map(|age| age.as_secs())
    }

    #[test]
    fn directives_come_in_any_case_order_and_number_of_lines() {
        let parsed =
            parse(&["No-Store ,, PUBLIC", "max-age=60", "x-unknown=\"a,no-cache\", must-revalidate"]);
        assert!(parsed.no_store && parsed.public && parsed.must_revalidate);
        assert!(!parsed.no_cache && !parsed.private);
        assert_eq!(parsed.max_age, Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_lifetime_is_whole_seconds_or_nothing() {
        assert_eq!(max_age("0"), Some(0));
        assert_eq!(max_age("007"), Some(7));
        assert_eq!(max_age("\"7\""), Some(7));
        for invalid in ["-1", "1.5", "", "\"\"", "'7'", "7s", "+7", "0x7", "\"7"] {
            assert_eq!(max_age(invalid), Some(0), "{invalid}");
        }
        for huge in ["2147483648", "9223372036854775808", "18446744073709551616", &"9".repeat(4096)] {
            assert_eq!(max_age(huge), Some(1 << 31), "{huge}");
        }
    }

    #[test]
    fn the_first_of_two_counts() {
        assert_eq!(parse(&["max-age=1, max-age=2"]).max_age, Some(Duration::from_secs(1)));
        assert_eq!(parse(&["max-age=x", "max-age=2"]).max_age, Some(Duration::ZERO));
    }

    #[test]
    fn an_unreadable_window_was_not_given() {
        assert_eq!(parse(&["stale-if-error=soon"]).stale_if_error, None);
        assert_eq!(parse(&["stale-if-error=5"]).stale_if_error, Some(Duration::from_secs(5)));
    }

    #[test]
    fn qualified_private_and_no_cache_count_in_full() {
        let parsed = parse(&["private=\"set-cookie\", no-cache=\"x, y\", max-age=1"]);
        assert!(parsed.private && parsed.no_cache);
        assert_eq!(parsed.max_age, Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_forbids_a_stale_answer() {
        for directive in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"] {
            assert!(parse(&[directive]).forbids_stale(), "{directive}");
        }
        assert!(!parse(&["public, max-age=1, stale-if-error=1"]).forbids_stale());
    }

    proptest! {
        #[test]
        fn anything_parses_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = http::HeaderValue::from_bytes(&line) {
                let mut headers = HeaderMap::new();
                headers.insert(header::CACHE_CONTROL, value);
                let _ = CacheControl::parse(&headers);
            }
        }

        #[test]
        fn case_and_white_space_change_nothing(seconds in 0_u64..1 << 31, left in "[ \t]{0,3}", right in "[ \t]{0,3}") {
            let plain = parse(&[&format!("max-age={seconds},private")]);
            let odd = parse(&[&format!("{left}MAX-Age={seconds}{right},{left}Private{right},")]);
            prop_assert_eq!(plain, odd);
        }
    }
}
