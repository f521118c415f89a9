//! In which order rules are tried.

use super::Rule;

/// What is more special comes first, as OpenAPI has it, and of two that both match some path the one that
/// bypasses.
pub(crate) fn in_order(mut left: Vec<Rule>) -> Vec<Rule> {
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_free = |rule: &Rule| !left.iter().any(|other| goes_before(other, rule));
        let next = left.iter().position(is_free).unwrap_or(0);
        ordered.push(left.remove(next));
    }
    ordered
}

fn goes_before(one: &Rule, other: &Rule) -> bool {
    let (Some(own), Some(path)) = (&one.path, &other.path) else { return false };
    match (path.covers(own), own.covers(path)) {
        (true, false) => true,
        (false, false) => one.bypass && !other.bypass && own.meets(path),
        _ => false,
    }
}
