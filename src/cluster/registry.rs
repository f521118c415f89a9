//! Which nodes there are, and how far each has applied the log. Knows no server: what stands there is handed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::log::Position;
use crate::{
    sequence::{NotEverywhere, NotEverywhereReason},
    store::EntryId,
};

/// A node that has said nothing for so long may be gone. It is named, and not left out: it may go on serving.
/// A registry younger than this may not know all nodes yet.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// By how much clocks may differ over the time of a lease, which counts as so much longer. Before it they may
/// differ by anything: each registration is by the clock of the server, read a moment before.
const GRACE: Duration = Duration::from_secs(1);

/// Registrations of nodes that have said nothing for so long are removed.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;

/// The value of a node that has left.
const LEFT: &str = "left";

const BORN: &str = "born:";

/// What a node says of itself. With a lease it uses nothing unconfirmed once it was cut off for so long, counted
/// from before it says this.
pub(super) fn registration(
    run: &str,
    position: Option<Position>,
    now_ms: u64,
    lease: Option<Duration>,
) -> String {
    let position = position.map_or_else(|| "-".to_owned(), |position| position.id.to_string());
    match lease {
        None => format!("{run} {position} {now_ms}"),
        Some(lease) => format!("{run} {position} {now_ms} {}", lease.as_millis()),
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

/// What a node has said of itself.
pub(super) struct Node<'a> {
    run: &'a str,
    pub(super) position: Option<EntryId>,
    at_ms: u64,
    pub(super) lease: Option<Duration>,
}

impl<'a> Node<'a> {
    pub(super) fn parse(value: &'a str) -> Option<Self> {
        let mut words = value.split(' ');
        let (run, position, at_ms) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let lease = words.next().and_then(|lease| lease.parse().ok()).map(Duration::from_millis);
        Some(Self { run, position: parse_id(position), at_ms, lease })
    }

    pub(super) fn has_left(&self) -> bool {
        self.run == LEFT
    }

    /// Whether it reads the log of this run. Ids of different runs say nothing: lost ones are larger than new ones.
    pub(super) fn is_of(&self, run: &str) -> bool {
        self.run == run
    }

    /// How long ago it said this, by the server's clock.
    pub(super) fn silent_for(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.at_ms))
    }
}

/// Nodes that were seen in the registry and have not left since: they may serve, also if the server has lost them.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(BTreeMap<String, LastWord>);

#[derive(Clone, Copy, Debug)]
struct LastWord {
    at_ms: u64,
    lease: Option<Duration>,
}

impl Known {
    /// Notes which nodes are there now.
    pub(super) fn note(&mut self, survey: &Survey) {
        for (name, node) in survey.nodes() {
            match node {
                Some(node) if node.has_left() => _ = self.0.remove(name),
                Some(Node { at_ms, lease, .. }) => {
                    self.0.insert(name.to_owned(), LastWord { at_ms, lease });
                }
                None => {}
            }
        }
        self.0.retain(|_, word| !survey.is_old(word.at_ms));
    }

    /// Whether no node serves what the entry has purged: each has applied it, or its lease is over. `run` is the
    /// one from which this node reads the log.
    pub(super) fn check(
        &mut self,
        survey: &Survey,
        position: Position,
        run: Option<&str>,
    ) -> Result<(), NotEverywhere> {
        self.check_by(Rules::default(), survey, position, run)
    }

    pub(super) fn check_by(
        &mut self,
        rules: Rules,
        survey: &Survey,
        position: Position,
        run: Option<&str>,
    ) -> Result<(), NotEverywhere> {
        self.note(survey);
        survey.check(rules, position, run, self)
    }
}

#[cfg(test)]
impl Known {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

pub(super) fn parse_id(text: &str) -> Option<EntryId> {
    let (millis, number) = text.split_once('-')?;
    Some(EntryId { millis: millis.parse().ok()?, number: number.parse().ok()? })
}

impl Survey {
    /// The nodes, by what they have said if that can be read. Those that have left are among them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, Option<Node<'_>>)> {
        let nodes = self.fields.iter().filter(|(name, _)| !name.starts_with(BORN));
        nodes.map(|(name, value)| (&**name, Node::parse(value)))
    }

    /// The nodes that were heard lately and have not left.
    pub(super) fn present(&self) -> impl Iterator<Item = (&str, Node<'_>)> {
        let is_present = |node: &Node<'_>| !node.has_left() && !self.is_old(node.at_ms);
        self.nodes().filter_map(move |(name, node)| Some((name, node.filter(is_present)?)))
    }

    fn is_old(&self, at_ms: u64) -> bool {
        self.now_ms.saturating_sub(at_ms) > FORGOTTEN_AFTER_MS
    }

    /// Fields of nodes and runs of which nothing was heard for long.
    pub(super) fn forgotten(&self) -> Vec<String> {
        let is_old = |at_ms: u64| self.is_old(at_ms);
        let is_forgotten = |(name, value): &&(String, String)| match name.strip_prefix(BORN) {
            Some(run) => run != self.run && value.parse().is_ok_and(is_old),
            // What cannot be read may be of a later version.
            None => Node::parse(value).is_some_and(|node| is_old(node.at_ms)),
        };
        self.fields.iter().filter(is_forgotten).map(|(name, _)| name.clone()).collect()
    }

    fn check(
        &self,
        rules: Rules,
        position: Position,
        run: Option<&str>,
        known: &Known,
    ) -> Result<(), NotEverywhere> {
        let is_found = self.nonce == Some(position.nonce) && run == Some(&self.run);
        if !is_found && rules.finds_entry {
            return Err(NotEverywhere::new(NotEverywhereReason::NotSent, Vec::new()));
        }
        let age = self.age();
        let is_safe = |node: &Node<'_>| node.has_left() || self.is_safe(rules, node, position);
        let behind = self.nodes().filter(|(_, node)| !node.as_ref().is_some_and(is_safe));
        let here: BTreeSet<_> = self.nodes().map(|(name, _)| name).collect();
        // It has said nothing since the registry began: its lease is not younger.
        let is_excused = |word: &LastWord| word.lease.is_some_and(|lease| is_over(lease, age));
        let lost = known
            .0
            .iter()
            .filter(|(name, word)| rules.remembers_nodes && !here.contains(&***name) && !is_excused(word));
        let nodes = behind.map(|(name, _)| name).chain(lost.map(|(name, _)| &**name)).map(str::to_owned);
        let nodes: Vec<_> = nodes.collect();
        if !nodes.is_empty() {
            return Err(NotEverywhere::new(NotEverywhereReason::Behind, nodes));
        }
        // Who was registered in one that was lost, and has said nothing since, may serve for so long.
        let leases = self.nodes().filter_map(|(_, node)| node?.lease);
        let longest = leases.chain(known.0.values().filter_map(|word| word.lease)).max().unwrap_or_default();
        match is_over(longest, age) && age > SILENCE || !rules.has_grace {
            true => Ok(()),
            false => Err(NotEverywhere::new(NotEverywhereReason::Young, Vec::new())),
        }
    }

    /// For how long the registry is of this run.
    fn age(&self) -> Duration {
        let born = birth_field(&self.run);
        let born = self.fields.iter().find(|(name, _)| *name == born).and_then(|(_, at)| at.parse().ok());
        Duration::from_millis(born.map_or(0, |born: u64| self.now_ms.saturating_sub(born)))
    }

    /// Whether a node serves nothing that was purged up to there.
    fn is_safe(&self, rules: Rules, node: &Node<'_>, position: Position) -> bool {
        let silent_for = node.silent_for(self.now_ms);
        if !rules.names_silent && silent_for > SILENCE {
            return true;
        }
        let is_of_run = node.is_of(&self.run) || !rules.compares_runs;
        let has_applied = is_of_run && node.position.is_some_and(|applied| applied >= position.id);
        has_applied && silent_for <= SILENCE || node.lease.is_some_and(|lease| is_over(lease, silent_for))
    }
}

/// What the tests switch off, one at a time, to see it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) finds_entry: bool,
    pub(super) compares_runs: bool,
    pub(super) names_silent: bool,
    pub(super) remembers_nodes: bool,
    pub(super) has_grace: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            finds_entry: true,
            compares_runs: true,
            names_silent: true,
            remembers_nodes: true,
            has_grace: true,
        }
    }
}

/// Whether a lease is over after such a silence.
fn is_over(lease: Duration, silence: Duration) -> bool {
    silence > lease.saturating_add(GRACE)
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

    type Checked = Result<(), (NotEverywhereReason, Vec<String>)>;

    fn check(survey: &Survey, known: &[&str]) -> Checked {
        check_by(Rules::default(), survey, known)
    }

    fn check_by(rules: Rules, survey: &Survey, known: &[&str]) -> Checked {
        let lease = |name: &str| {
            name.split_once(' ').map(|(_, millis)| Duration::from_millis(millis.parse().unwrap()))
        };
        let name = |name: &str| name.split(' ').next().unwrap_or_default().to_owned();
        let word = |known: &&str| (name(known), LastWord { at_ms: NOW, lease: lease(known) });
        let known = Known(known.iter().map(word).collect());
        let checked = survey.check(rules, ENTRY, Some("a"), &known);
        checked.map_err(|error| (error.reason(), error.nodes().to_vec()))
    }

    /// Each line is missed by one rule alone.
    #[test]
    fn what_one_rule_leaves_out_is_not_everywhere() {
        let all = Rules::default();
        let (born, live) = (("born:a", "1"), ("n1", "a 500-2 999999"));
        let young = ("born:a", "990000");
        for (rules, nonce, fields, known) in [
            (Rules { finds_entry: false, ..all }, 8, vec![born, live], vec![]),
            (Rules { compares_runs: false, ..all }, 7, vec![born, live, ("n2", "b 900-0 999999")], vec![]),
            (Rules { names_silent: false, ..all }, 7, vec![born, live, ("n2", "a 500-1 989999")], vec![]),
            (Rules { remembers_nodes: false, ..all }, 7, vec![born, live], vec!["n2"]),
            (Rules { has_grace: false, ..all }, 7, vec![young, live], vec![]),
        ] {
            let survey = Survey { nonce: Some(nonce), ..survey(&fields) };
            assert!(check(&survey, &known).is_err(), "{rules:?}");
            assert_eq!(check_by(rules, &survey, &known), Ok(()), "{rules:?}");
        }
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
    fn a_node_that_has_left_is_not_waited_for_and_a_silent_one_is_forgotten_after_an_hour() {
        let now = NOW + 10 * FORGOTTEN_AFTER_MS;
        let old = survey(&[
            ("n1", "a 1-0 5"),
            ("n2", &departure(now)),
            ("n3", "?"),
            ("born:a", "1"),
            ("born:b", "1"),
        ]);
        let old = Survey { now_ms: now, ..old };
        let left = |(name, node): (_, Option<Node<'_>>)| Some((name, node?.has_left()));
        let left: Vec<_> = old.nodes().filter_map(left).collect();
        assert_eq!(left, [("n1", false), ("n2", true)]);
        assert_eq!(old.present().count(), 0);
        // What cannot be read may be of a later version.
        assert_eq!(old.forgotten(), ["n1", "born:b"]);
    }

    /// Another node may have removed its registration by then.
    #[test]
    fn a_node_that_was_seen_is_remembered_until_it_leaves_or_an_hour_has_passed() {
        let mut known = Known::default();
        known.note(&survey(&[("n1", "a 500-2 999999"), ("n2", "a 500-2 999999 20000"), ("n3", "?")]));
        let names = |known: &Known| known.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&known), ["n1", "n2"]);
        known.note(&survey(&[("n2", &departure(NOW))]));
        assert_eq!(names(&known), ["n1"]);
        known.note(&Survey { now_ms: 999_999 + FORGOTTEN_AFTER_MS, ..survey(&[]) });
        assert_eq!(names(&known), ["n1"]);
        known.note(&Survey { now_ms: NOW + FORGOTTEN_AFTER_MS, ..survey(&[]) });
        assert_eq!(names(&known), Vec::<String>::new());
    }

    #[test]
    fn a_registration_is_read_as_it_is_written() {
        let lease = Some(Duration::from_secs(10));
        for (position, lease) in [(Some(ENTRY), None), (None, lease), (Some(ENTRY), lease)] {
            let written = registration("run", position, 9, lease);
            let node = Node::parse(&written).unwrap();
            let id = position.map(|position| position.id);
            assert_eq!((node.run, node.position, node.at_ms, node.lease), ("run", id, 9, lease));
            assert!(!node.has_left());
        }
        assert!(Node::parse(&departure(9)).unwrap().has_left());
    }

    /// A node with a lease confirms each response once that is over. Each line breaks one rule.
    #[test]
    fn a_node_whose_lease_is_over_is_not_waited_for() {
        use NotEverywhereReason::{Behind, Young};
        let (born, live) = (("born:a", "1"), ("n1", "a 500-2 999999 20000"));
        let behind = Err((Behind, vec!["n2".to_owned()]));
        for (silent, known, expected) in [
            // 21 s, and a moment.
            (("n2", "a 500-1 978999 20000"), "n2 20000", Ok(())),
            (("n2", "b - 978999 20000"), "n2 20000", Ok(())),
            (("n2", "a 500-1 979000 20000"), "n2 20000", behind.clone()),
            (("n2", "a 500-1 978999 30000"), "n2 30000", behind.clone()),
            (("n2", "a 500-1 1"), "n2", behind.clone()),
            // One that has applied it, and then fell silent, may have lost that.
            (("n2", "a 500-2 980000 20000"), "n2 20000", behind.clone()),
            // It stands in a registry that was lost.
            (("n1", "a 500-2 999999 20000"), "n2 20000", Ok(())),
            (("n1", "a 500-2 999999"), "n2", behind),
        ] {
            assert_eq!(check(&survey(&[born, live, silent]), &[known]), expected, "{silent:?}");
        }
        // The registry is younger than the lease of one that may have been in the last one.
        let young = [("born:a", "979000"), live];
        assert_eq!(check(&survey(&young), &["n1 20000"]), Err((Young, vec![])));
        let young = [("born:a", "980000"), ("n1", "a 500-2 999999")];
        assert_eq!(check(&survey(&young), &["n2 20000"]), Err((Behind, vec!["n2".to_owned()])));
        let old = [("born:a", "978999"), live];
        assert_eq!(check(&survey(&old), &["n1 20000", "n2 20000"]), Ok(()));
    }
}
