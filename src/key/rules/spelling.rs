//! Suggestions for patterns in the syntax of other routers and caches.

/// The spelling here of a path pattern with wildcards in another syntax: `:id` and `<id>` for `{id}`, `*` for
/// `{*rest}`, or an expression within a capture. `None` if it has none.
pub(super) fn of_path(text: &str) -> Option<String> {
    if is_own(text) {
        return None;
    }
    let last = text.split('/').count() - 1;
    let mut unnamed = 0;
    let segments = text.split('/').enumerate().map(|(at, segment)| {
        segment_of(segment, at == last, || {
            unnamed += 1;
            if unnamed == 1 { "any".into() } else { format!("any{unnamed}") }
        })
    });
    let suggestion = segments.collect::<Vec<_>>().join("/");
    // A pattern that is still in another syntax has no single spelling here.
    Some(if is_own(&suggestion) { suggestion } else { "/user/{id} or /assets/{*rest}".into() })
}

/// The spelling here of a value in a query template.
pub(super) fn of_value(name: &str, value: &str) -> Option<String> {
    let value = match value.strip_prefix(':') {
        Some(capture) if is_name(capture) => format!("{{{capture}}}"),
        _ if value.contains('*') && !value.contains(['{', '}']) => "{_}".to_owned(),
        _ => return None,
    };
    Some(format!("{name}={value}"))
}

/// Whether all wildcards are captures with valid names.
fn is_own(text: &str) -> bool {
    let mut rest = text;
    let mut literal = String::new();
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}').filter(|_| brace == "{") else {
            // Invalid, which the parser reports better.
            return true;
        };
        if !is_name(name.trim_start_matches('*')) {
            // An empty name is invalid too.
            return name.is_empty();
        }
        rest = after;
    }
    literal.push_str(rest);
    let has_foreign = literal.contains(['*', '<', '>', '(', ')', '[', ']', '^', '$', '|', '\\']);
    !has_foreign && !literal.split('/').any(|segment| segment.starts_with(':'))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn segment_of(segment: &str, is_last: bool, unnamed: impl FnOnce() -> String) -> String {
    let name = segment.trim_start_matches([':', '<', '{', '*']).split([':', '>', '}', '*', '(', '?']).next();
    let name = name.filter(|name| is_name(name) && !name.starts_with('.'));
    let is_capture = segment.starts_with([':', '<']) || segment.starts_with('{') && segment.contains(':');
    let is_rest = is_last && segment.contains('*') && !segment.starts_with('{');
    match (name, is_capture) {
        (Some(name), true) if is_rest => return format!("{{*{name}}}"),
        (Some(name), true) => return format!("{{{name}}}"),
        (Some(name), false) if is_rest && segment.starts_with('*') => return format!("{{*{name}}}"),
        _ => {}
    }
    match segment.split_once('*') {
        _ if matches!(segment, "(.*)" | "[^/]+" | "(.+)") => format!("{{{}}}", unnamed()),
        Some(("", "*")) if is_last => "{**rest}".to_owned(),
        Some((start, end)) if is_last => format!("{start}{{*rest}}{end}"),
        Some((start, end)) => format!("{start}{{{}}}{end}", unnamed()),
        None => segment.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_in_our_syntax_stay() {
        for text in [
            "/",
            "/a/{id}",
            "/{*rest}",
            "/{_}/{*_}",
            "/a:b",
            "/v1/users:batch",
            "/{{a}}",
            "/{",
            "/{}",
            "/a{b}",
        ] {
            assert_eq!(of_path(text), None, "{text}");
        }
        for (name, value) in [("a", "{a}"), ("a", "1"), ("a", "")] {
            assert_eq!(of_value(name, value), None);
        }
    }

    #[test]
    fn patterns_in_other_syntaxes_have_a_suggestion() {
        for (text, spelling) in [
            ("/u/:id", "/u/{id}"),
            ("/u/:id/x", "/u/{id}/x"),
            ("/a/*", "/a/{*rest}"),
            ("/a/*/b", "/a/{any}/b"),
            ("/*/*/b", "/{any}/{any2}/b"),
            ("/a/*path", "/a/{*path}"),
            ("/a/:path*", "/a/{*path}"),
            ("/a/**", "/a/{**rest}"),
            ("/img*.png", "/img{*rest}.png"),
            ("/*.css", "/{*rest}.css"),
            ("/a/*.css", "/a/{*rest}.css"),
            ("/img*/b", "/img{any}/b"),
            ("/u/<id>", "/u/{id}"),
            ("/u/{id:[0-9]+}", "/u/{id}"),
            ("/u/{id:[0-9]+}/x", "/u/{id}/x"),
        ] {
            assert_eq!(of_path(text).as_deref(), Some(spelling), "{text}");
        }
        for text in ["/a(b|c)", "/a/(.*)\\.php$"] {
            assert!(of_path(text).is_some(), "{text}");
        }
        assert_eq!(of_value("uid", "*").as_deref(), Some("uid={_}"));
        assert_eq!(of_value("uid", ":uid").as_deref(), Some("uid={uid}"));
    }
}
