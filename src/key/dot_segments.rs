//! Dot segments of paths (RFC 3986 §5.2.4).

/// A path of these segments, with `.` and `..` resolved if `resolves_dots`, and without empty segments if
/// `merges_slashes`. It ends with a slash if the last segment is empty or resolved.
pub(super) fn join<'s>(
    segments: impl Iterator<Item = &'s str>,
    resolves_dots: bool,
    merges_slashes: bool,
) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        let is_dots = resolves_dots && matches!(segment, "." | "..");
        ends_in_directory = segment.is_empty() || is_dots;
        match segment {
            ".." if is_dots => drop(kept.pop()),
            _ if is_dots => {}
            "" if merges_slashes || segments.peek().is_none() => {}
            segment => kept.push(segment),
        }
    }
    let mut path: String = kept.iter().flat_map(|segment| ["/", segment]).collect();
    if ends_in_directory || path.is_empty() {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    #[test]
    fn dots_and_slashes_are_resolved_where_that_is_asked_for() {
        for (path, as_is, resolved, merged) in [
            ("", "/", "/", "/"),
            ("a", "/a", "/a", "/a"),
            ("a/", "/a/", "/a/", "/a/"),
            ("a//b", "/a//b", "/a//b", "/a/b"),
            ("a/./b/..", "/a/./b/..", "/a/", "/a/"),
            ("../..//a", "/../..//a", "//a", "/a"),
            ("...", "/...", "/...", "/..."),
        ] {
            let join = |resolves, merges| super::join(path.split('/'), resolves, merges);
            assert_eq!(
                (join(false, false), join(true, false), join(true, true)),
                (as_is.into(), resolved.into(), merged.into())
            );
        }
    }
}
