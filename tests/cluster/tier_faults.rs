//! Faults of the server and of the way to it, with a second tier on it: no response fails, none is older than a purge
//! that its node has applied, and the tier is of use again without a restart.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::{Instant, sleep};
use tower_readthrough::{PurgeState, TierRead, cluster::WhenCutOff};

use super::{
    link::{Fault, Link},
    node::{LIMIT, believed, until},
    server::{Server, server},
    support::{ScriptedOrigin, get, ms, ok, secs},
    tier::{Node, numbered},
};

const PAGES: [&str; 4] = ["/0", "/1", "/2", "/3"];

/// Two nodes of one origin. The second one's way to the server can be harmed.
struct Site {
    server: Server,
    link: Link,
    version: Arc<AtomicU64>,
    origin: ScriptedOrigin,
    nodes: [Node; 2],
}

impl Site {
    async fn start() -> Option<Self> {
        let server = server().await?;
        let link = Link::to(server.port()).await;
        let version = Arc::new(AtomicU64::new(0));
        let known = Arc::clone(&version);
        let origin = ScriptedOrigin::new(move |_, _| {
            let version = known.load(Ordering::SeqCst).to_string();
            ok(version)
                .header("surrogate-key", "red")
                .header("cache-control", "max-age=3600, stale-if-error=3600")
        });
        let [near, far] = [server.url(), link.url()];
        let nodes =
            [Node::start(&near, &near, "n1", &origin, false), Node::start(&far, &far, "n2", &origin, false)];
        for node in &nodes {
            node.is_ready().await;
        }
        believed(&nodes[0].cache.purge()).await;
        let site = Self { server, link, version, origin, nodes };
        site.fill(0).await;
        Some(site)
    }

    /// Each node asks for one half of the pages, so that the tier has all.
    async fn fill(&self, version: u64) {
        for (number, page) in PAGES.iter().enumerate() {
            assert_eq!(self.nodes[number % 2].page(page).await, version.to_string());
        }
        for node in &self.nodes {
            node.written().await;
        }
    }

    /// No request fails, and the one of the node that has purged is up to date.
    async fn serves(&self, round: &str) {
        for (node, name) in self.nodes.iter().zip(["here", "there"]) {
            for page in PAGES {
                assert_eq!(get(&node.service, page).await.status, 200, "{round} {name}");
            }
            assert_eq!(get(&node.service, &format!("/{round}/{name}")).await.status, 200, "{round} {name}");
        }
        let version = self.version.load(Ordering::SeqCst).to_string();
        assert_eq!(self.nodes[0].page(PAGES[0]).await, version, "{round}");
    }

    /// Once the purge is known everywhere, nothing older is served: neither by these nodes nor by a young one.
    async fn is_up_to_date(&self, round: &str) {
        for node in &self.nodes {
            node.is_ready().await;
        }
        until("told", || self.nodes.iter().all(|node| node.cluster.status().waiting == 0)).await;
        // A server that has begun anew confirms nothing for a while.
        believed(&self.nodes[0].cache.purge()).await;
        let url = self.server.url();
        let young = Node::start(&url, &url, &format!("young-{round}"), &self.origin, false);
        young.is_ready().await;
        let version = self.version.load(Ordering::SeqCst).to_string();
        for node in self.nodes.iter().chain([&young]) {
            for page in PAGES {
                assert_eq!(node.page(page).await, version, "{round} {page}");
            }
        }
        young.cluster.leave().await;
    }

    /// What one node fetches is found by a young one, now or soon.
    async fn is_of_use_again(&self, round: &str) {
        let url = self.server.url();
        let began = Instant::now();
        for number in 0.. {
            let page = format!("/{round}/again/{number}");
            self.nodes[1].page(&page).await;
            self.nodes[1].written().await;
            let young = Node::start(&url, &url, &format!("user-{round}"), &self.origin, false);
            young.is_ready().await;
            let (is_hit, found) = (get(&young.service, &page).await.is_hit(), young.count(TierRead::Fresh));
            young.cluster.leave().await;
            if is_hit {
                return assert_eq!(found, 1);
            }
            // The breaker may wait for some seconds yet.
            assert!(began.elapsed() < LIMIT, "{round}: {:?}", self.nodes[1].tier.status());
            sleep(ms(50)).await;
        }
    }

    /// An edit, and its purge on the first node.
    fn edit(&self) -> tower_readthrough::Purged {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.nodes[0].cache.purge().tag("red")
    }
}

#[tokio::test]
async fn a_purge_while_the_server_hangs_or_the_way_to_it_is_slow_or_broken_reaches_all() {
    let Some(site) = Site::start().await else { return };
    let slow = Fault::Slow(ms(200));
    for (round, fault) in [
        ("stopped", None),
        ("slow", Some(slow)),
        ("cut", Some(Fault::Cut)),
        ("hole", Some(Fault::Hole)),
        ("half", Some(Fault::Half)),
        ("garbage", Some(Fault::Garbage)),
    ] {
        match fault {
            None => site.server.signal("-STOP"),
            Some(fault) => site.link.set(fault),
        }
        let purged = site.edit();
        site.serves(round).await;
        match fault {
            None => site.server.signal("-CONT"),
            Some(_) => site.link.set(Fault::None),
        }
        until("sent", || purged.state() == PurgeState::Sent).await;
        site.is_up_to_date(round).await;
        site.is_of_use_again(round).await;
        site.fill(site.version.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn a_server_that_forgets_its_log_or_everything_serves_nothing_older() {
    let Some(mut site) = Site::start().await else { return };
    for round in ["trimmed", "log-deleted", "flushed", "killed"] {
        let gaps = site.nodes.iter().map(|node| node.cluster.status().gaps).max().unwrap();
        // The values stay where only the log is lost, and a young node does not hear of this purge.
        site.edit().applied_everywhere(LIMIT).await.unwrap();
        match round {
            "trimmed" => {
                drop(site.server.command(&["XTRIM", "{test}:1:purges", "MAXLEN", "0"]).await.unwrap());
            }
            "log-deleted" => drop(site.server.command(&["DEL", "{test}:1:purges"]).await.unwrap()),
            "flushed" => drop(site.server.command(&["FLUSHALL"]).await.unwrap()),
            _ => {
                site.server.kill();
                site.serves(round).await;
                site.server.start().await;
            }
        }
        until(round, || site.nodes.iter().all(|node| node.cluster.status().gaps > gaps)).await;
        site.is_up_to_date(round).await;
        site.is_of_use_again(round).await;
        site.fill(site.version.load(Ordering::SeqCst)).await;
    }
}

/// The values that come back are older than a purge of which the log that comes back says nothing.
#[tokio::test]
async fn a_server_that_comes_back_with_older_values_and_an_older_log_serves_nothing_older() {
    let Some(mut site) = Site::start().await else { return };
    site.server.command(&["SAVE"]).await.unwrap();
    for round in ["first", "second"] {
        site.edit().applied_everywhere(LIMIT).await.unwrap();
        site.fill(site.version.load(Ordering::SeqCst)).await;
        site.server.kill();
        site.server.start().await;
        let count = site.server.command(&["KEYS", "test:1:*"]).await.unwrap();
        assert!(matches!(count, redis::Value::Array(keys) if keys.len() >= PAGES.len()), "they are back");
        // At once, by one that has seen nothing but what came back.
        let url = site.server.url();
        let young = Node::start(&url, &url, &format!("first-{round}"), &site.origin, false);
        young.is_ready().await;
        for page in PAGES {
            assert_eq!(young.page(page).await, site.version.load(Ordering::SeqCst).to_string(), "{round}");
        }
        young.cluster.leave().await;
        site.is_up_to_date(round).await;
        site.is_of_use_again(round).await;
    }
}

/// The log is out of reach, and the values are not.
#[tokio::test]
async fn a_node_that_is_cut_off_validates_in_time_and_leaves_the_tier_alone() {
    let Some(site) = Site::start().await else { return };
    let limit = WhenCutOff::ValidateAfter(secs(3));
    let (far, near) = (site.link.url(), site.server.url());
    let there = Node::start_with(&far, &near, "n3", &site.origin, |cluster| cluster.when_cut_off(limit));
    there.is_ready().await;
    there.page(PAGES[0]).await;
    assert_eq!(there.count(TierRead::Fresh), 1);
    site.link.set(Fault::Hole);
    until("cut off", || there.cluster.status().must_validate).await;
    site.edit();
    let reads = there.tier.status().reads.total();
    for page in PAGES {
        assert_eq!(there.page(page).await, "1", "{page}");
    }
    let behind = there.tier.status().reads;
    assert_eq!(behind.total() - reads, behind.get(TierRead::Behind), "none is made: {behind:?}");
    site.link.set(Fault::None);
    until("heard again", || !there.cluster.status().must_validate).await;
    let page = "/afterwards";
    site.nodes[0].page(page).await;
    site.nodes[0].written().await;
    there.is_ready().await;
    assert!(get(&there.service, page).await.is_hit());
}

/// Wherever it is late: the answer of the origin, the write, the log on either side, or the read.
#[tokio::test]
async fn a_fetch_that_began_before_a_purge_of_another_node_loses_wherever_it_is_delayed() {
    let Some(server) = server().await else { return };
    let mut links = Vec::new();
    for _ in 0..4 {
        links.push(Link::to(server.port()).await);
    }
    let [here_log, here_values, there_log, there_values] = [0, 1, 2, 3].map(|n: usize| links[n].url());
    let origin = numbered();
    let here = Node::start(&here_log, &here_values, "n1", &origin, false);
    let there = Node::start(&there_log, &there_values, "n2", &origin, false);
    here.is_ready().await;
    there.is_ready().await;
    believed(&there.cache.purge()).await;
    for (slow, is_purged_before_the_answer) in (0..4).flat_map(|link| [(link, true), (link, false)]) {
        let path = format!("/{slow}/{is_purged_before_the_answer}");
        let gate = origin.hold();
        let (service, target) = (here.service.clone(), path.clone());
        let fetch = tokio::spawn(async move { get(&service, &target).await.body });
        gate.waiting(1).await;
        links[slow].set(Fault::Slow(ms(300)));
        let purge = || there.cache.purge().tag("red");
        let purged = if is_purged_before_the_answer {
            let purged = purge();
            gate.open();
            fetch.await.unwrap();
            purged
        } else {
            gate.open();
            fetch.await.unwrap();
            purge()
        };
        purged.applied_everywhere(LIMIT).await.unwrap();
        let calls = origin.calls();
        // Calls are counted from 0 in what they bring.
        for node in [&there, &here] {
            assert!(node.page(&path).await.parse::<usize>().unwrap() >= calls, "{path}");
        }
        links[slow].set(Fault::None);
        here.written().await;
        there.written().await;
        here.is_ready().await;
        there.is_ready().await;
    }
}
