//! Which nodes there are, and how far each has applied the log. Knows no server: what stands there is handed in.

use std::{collections::BTreeSet, time::Duration};

use super::log::Position;
use crate::{
    sequence::{NotEverywhere, NotEverywhereReason},
    store::EntryId,
};

/// A node that has said nothing for so long may be gone. It is named, and not left out: it may go on serving.
/// A registry younger than this may not know all nodes yet.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// Registrations of nodes that have said nothing for so long are removed.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;

/// The value of a node that has left.
const LEFT: &str = "left";

const BORN: &str = "born:";

/// What a node says of itself.
pub(super) fn registration(run: &str, position: Option<Position>, now_ms: u64) -> String {
    match position {
        Some(Position { id, .. }) => format!("{run} {id} {now_ms}"),
        None => format!("{run} - {now_ms}"),
    }
}

/// What a node says when it leaves.
pub(super) fn departure(now_ms: u64) -> String {
    format!("{LEFT} - {now_ms}")
}

/// The field that says since when the registry is of this run of the server.
pub(super) fn birth_field(run: &str) -> String {
    format!("{BORN}{run}")
}

/// The registry at one moment, with the server's word on one entry of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// The run of the server.
    pub(super) run: String,
    /// The server's clock.
    pub(super) now_ms: u64,
    /// The nonce of the entry that was asked for.
    pub(super) nonce: Option<u64>,
    /// Fields and values.
    pub(super) fields: Vec<(String, String)>,
}

struct Node<'a> {
    run: &'a str,
    position: Option<EntryId>,
    at_ms: u64,
}

impl<'a> Node<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let mut words = value.split(' ');
        let (run, position, at_ms) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        Some(Self { run, position: parse_id(position), at_ms })
    }
}

pub(super) fn parse_id(text: &str) -> Option<EntryId> {
    let (millis, number) = text.split_once('-')?;
    Some(EntryId { millis: millis.parse().ok()?, number: number.parse().ok()? })
}

impl Survey {
    /// The names of the nodes that are there, and of those that have left.
    pub(super) fn names(&self) -> (BTreeSet<String>, Vec<String>) {
        let (mut here, mut left) = (BTreeSet::new(), Vec::new());
        for (name, value) in self.fields.iter().filter(|(name, _)| !name.starts_with(BORN)) {
            match value.starts_with(LEFT) {
                true => left.push(name.clone()),
                false => _ = here.insert(name.clone()),
            }
        }
        (here, left)
    }

    /// Fields of nodes and runs of which nothing was heard for long.
    pub(super) fn forgotten(&self) -> Vec<String> {
        let is_old = |at_ms: u64| self.now_ms.saturating_sub(at_ms) > FORGOTTEN_AFTER_MS;
        let is_forgotten = |(name, value): &&(String, String)| match name.strip_prefix(BORN) {
            Some(run) => run != self.run && value.parse().is_ok_and(is_old),
            None => Node::parse(value).is_none_or(|node| is_old(node.at_ms)),
        };
        self.fields.iter().filter(is_forgotten).map(|(name, _)| name.clone()).collect()
    }

    /// Whether all nodes have applied the entry. `run` is the one from which this node reads the log, and
    /// `known` are nodes that were seen before.
    pub(super) fn check(
        &self,
        position: Position,
        run: Option<&str>,
        known: &BTreeSet<String>,
    ) -> Result<(), NotEverywhere> {
        if self.nonce != Some(position.nonce) || run != Some(&self.run) {
            return Err(NotEverywhere::new(NotEverywhereReason::NotSent, Vec::new()));
        }
        let (here, _) = self.names();
        let missing = known.difference(&here).cloned();
        let behind = self.fields.iter().filter(|(name, value)| {
            here.contains(name) && !Node::parse(value).is_some_and(|node| self.has_applied(&node, position))
        });
        let nodes: Vec<_> = behind.map(|(name, _)| name.clone()).chain(missing).collect();
        if !nodes.is_empty() {
            return Err(NotEverywhere::new(NotEverywhereReason::Behind, nodes));
        }
        let born = birth_field(&self.run);
        let born = self.fields.iter().find(|(name, _)| *name == born).and_then(|(_, at)| at.parse().ok());
        let age = born.map_or(0, |born: u64| self.now_ms.saturating_sub(born));
        match u128::from(age) > LEASE.as_millis() {
            true => Ok(()),
            false => Err(NotEverywhere::new(NotEverywhereReason::Young, Vec::new())),
        }
    }

    /// Ids of different runs say nothing: lost ones are larger than new ones.
    fn has_applied(&self, node: &Node<'_>, position: Position) -> bool {
        let is_live = u128::from(self.now_ms.saturating_sub(node.at_ms)) <= LEASE.as_millis();
        is_live && node.run == self.run && node.position.is_some_and(|applied| applied >= position.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;
    const ENTRY: Position = Position { id: EntryId { millis: 500, number: 2 }, nonce: 7 };

    fn survey(fields: &[(&str, &str)]) -> Survey {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Survey { run: "a".into(), now_ms: NOW, nonce: Some(7), fields: fields.collect() }
    }

    fn check(survey: &Survey, known: &[&str]) -> Result<(), (NotEverywhereReason, Vec<String>)> {
        let known = known.iter().map(|name| (*name).to_owned()).collect();
        let checked = survey.check(ENTRY, Some("a"), &known);
        checked.map_err(|error| (error.reason(), error.nodes().to_vec()))
    }

    /// Each line breaks one rule.
    #[test]
    fn only_what_all_nodes_have_said_is_everywhere() {
        use NotEverywhereReason::{Behind, NotSent, Young};
        let born = ("born:a", "1");
        let all = [born, ("n1", "a 500-2 999999"), ("n2", "a 600-0 990000")];
        assert_eq!(check(&survey(&all), &["n1", "n2"]), Ok(()));
        let named = |name: &str| Err((Behind, vec![name.to_owned()]));
        for (fields, known, expected) in [
            (vec![born, ("n1", "a 500-1 999999")], vec![], named("n1")),
            (vec![born, ("n1", "a - 999999")], vec![], named("n1")),
            (vec![born, ("n1", "b 900-0 999999")], vec![], named("n1")),
            (vec![born, ("n1", "a 500-2 989999")], vec![], named("n1")),
            (vec![born, ("n1", "what is this")], vec![], named("n1")),
            (vec![born, ("n1", "a 500-2 999999")], vec!["n2"], named("n2")),
            (vec![("n1", "a 500-2 999999")], vec![], Err((Young, vec![]))),
            (vec![("born:a", "990000"), ("n1", "a 500-2 999999")], vec![], Err((Young, vec![]))),
            (vec![("born:b", "1"), ("n1", "a 500-2 999999")], vec![], Err((Young, vec![]))),
        ] {
            assert_eq!(check(&survey(&fields), &known), expected, "{fields:?}");
        }
        let lost = Survey { nonce: Some(8), ..survey(&all) };
        assert_eq!(check(&lost, &[]), Err((NotSent, vec![])), "another entry has its id");
        let other = Survey { run: "b".into(), ..survey(&all) };
        assert_eq!(check(&other, &[]), Err((NotSent, vec![])), "another server");
    }

    #[test]
    fn who_has_left_is_not_waited_for_and_who_is_silent_is_forgotten_after_an_hour() {
        let now = NOW + 10 * FORGOTTEN_AFTER_MS;
        let old = survey(&[("n1", "a 1-0 5"), ("n2", &departure(now)), ("born:a", "1"), ("born:b", "1")]);
        let old = Survey { now_ms: now, ..old };
        assert_eq!(old.names(), (BTreeSet::from(["n1".to_owned()]), vec!["n2".to_owned()]));
        assert_eq!(old.forgotten(), ["n1", "born:b"]);
    }

    #[test]
    fn a_registration_is_read_as_it_is_written() {
        let written = registration("run", Some(ENTRY), 9);
        let node = Node::parse(&written).unwrap();
        assert_eq!((node.run, node.position, node.at_ms), ("run", Some(ENTRY.id), 9));
        assert_eq!(Node::parse(&registration("run", None, 9)).unwrap().position, None);
    }
}
