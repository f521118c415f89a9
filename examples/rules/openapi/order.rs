//! The order of rules.

use super::Rule;

/// More specific rules come first, as in OpenAPI. Of two rules that match a common path, the one that bypasses
/// comes first.
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
