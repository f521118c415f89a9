//! Several hosts with the same resources.

use http::uri::Scheme;

use super::normal::Authority;

/// Groups of hosts with the same resources, which share entries, purges and invalidations. Built by
/// [`KeyRulesBuilder::same_hosts`](crate::KeyRulesBuilder::same_hosts).
#[derive(Clone, Debug)]
pub struct SameHosts {
    /// In lower case and sorted, with the indices of their groups.
    names: Box<[(Box<[u8]>, usize)]>,
    /// The first host of each group, which is in keys in place of all others.
    firsts: Box<[Box<[u8]>]>,
}

impl SameHosts {
    /// Of groups without repeated hosts. The default ports are those of this scheme.
    pub(super) fn new(groups: &[Vec<String>], scheme: Option<&Scheme>) -> Self {
        let normal = |host: &str| -> Box<[u8]> {
            Authority::new(host.as_bytes(), scheme).as_bytes().to_ascii_lowercase().into()
        };
        let named = |(at, group): (usize, &Vec<String>)| -> Vec<_> {
            group.iter().map(|host| (normal(host), at)).collect()
        };
        let mut names: Vec<_> = groups.iter().enumerate().flat_map(named).collect();
        names.sort();
        let firsts = groups.iter().filter_map(|group| Some(normal(group.first()?))).collect();
        Self { names: names.into(), firsts }
    }

    /// The first host of the group of `host`, if it is in any. Hosts include their ports, unless these are
    /// the default ones.
    pub(super) fn first_of(&self, host: &[u8]) -> Option<&[u8]> {
        let compared =
            |(own, _): &(Box<[u8]>, usize)| own.iter().copied().cmp(host.iter().map(u8::to_ascii_lowercase));
        let at = self.names.binary_search_by(compared).ok()?;
        self.firsts.get(self.names[at].1).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_of_a_group_is_found_in_any_case() {
        let groups = [vec!["B.example", "a.example", "c.example:8080"], vec!["d:80", "[::1]"]];
        let groups = groups.map(|group| group.iter().map(ToString::to_string).collect());
        let hosts = SameHosts::new(&groups, None);
        for (host, first) in [
            ("A.example", Some("b.example")),
            ("b.example", Some("b.example")),
            ("c.example:8080", Some("b.example")),
            ("D", Some("d")),
            ("[::1]", Some("d")),
            ("c.example", None),
            ("a.example.", None),
            ("a.exampl", None),
            ("xa.example", None),
            ("", None),
        ] {
            assert_eq!(hosts.first_of(host.as_bytes()), first.map(str::as_bytes), "{host}");
        }
    }
}
