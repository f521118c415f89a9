//! What holds between processes: one is killed, stopped, started again, or on a network of its own.

use std::{process::Command, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tower_readthrough::{PurgeState, TierWait, purge::NotEverywhereReason};

use super::{
    node::{LIMIT, Node, PAGE, believed, until},
    process::{HANGING, Process, Site, page},
    server::{server, server_with},
    support::{get, secs},
    tier,
};

const OTHER: &str = "http://example.com/other";

type Start = fn(&Site, &str, &str, u64) -> Process;

/// Without a second tier, and with one.
const STARTS: [Start; 2] = [Process::start, Process::start_with_tier];

#[tokio::test]
async fn a_purge_reaches_another_process() {
    join_all(STARTS.into_iter().zip([1, 0]).map(reaches_another_process)).await;
}

/// `calls`: of the origin of a node that asks for what another one has.
async fn reaches_another_process((start, calls): (Start, usize)) {
    let Some(server) = server().await else { return };
    let site = Site::new("two");
    let [mut here, mut there] = ["n1", "n2"].map(|name| start(&site, &server.url(), name, 0));
    for (node, calls) in [(&mut here, 1), (&mut there, calls)] {
        node.ask("caught-up").await;
        assert_eq!(node.page(PAGE).await, ("first".to_owned(), calls));
        assert_eq!(node.ask("flush").await, "0");
    }
    for edit in ["second", "third", "fourth"] {
        site.edit(edit);
        assert_eq!(here.ask("purge red").await, "Ok(())");
        assert_eq!(there.page(PAGE).await.0, edit);
        assert_eq!(here.page(PAGE).await.0, edit);
    }
}

/// The file is from before the purge, and the process was not there to hear of it.
#[tokio::test]
async fn a_process_that_was_killed_serves_nothing_that_was_purged() {
    join_all(STARTS.map(serves_nothing_that_was_purged_while_it_was_dead)).await;
}

async fn serves_nothing_that_was_purged_while_it_was_dead(start: Start) {
    let Some(server) = server().await else { return };
    let site = Site::new("killed");
    let other = Node::start(&server, "n1");
    let mut process = start(&site, &server.url(), "n2", 0);
    process.ask("caught-up").await;
    for url in [PAGE, OTHER] {
        process.page(url).await;
    }
    assert_eq!(process.ask("flush").await, "0");
    assert_eq!(process.ask("write").await, "true");
    site.edit("second");
    let purged = other.layer.purge().url(PAGE).unwrap();
    until("sent", || purged.state() == PurgeState::Sent).await;
    process.kill().await;
    for is_caught_up in [false, true] {
        let mut process = start(&site, &server.url(), "n2", 0);
        if is_caught_up {
            assert_eq!(process.ask("caught-up").await, "1", "of two one was purged");
            // What was not purged is as good as ever.
            assert_eq!(process.page(OTHER).await, ("first".to_owned(), 0));
        }
        assert_eq!(process.page(PAGE).await.0, "second", "caught up: {is_caught_up}");
        process.kill().await;
    }
}

/// Its first request comes before its tasks have a turn.
#[tokio::test]
async fn a_process_that_was_stopped_goes_on_with_what_is_not_purged() {
    join_all(STARTS.map(goes_on_after_it_was_stopped)).await;
}

async fn goes_on_after_it_was_stopped(start: Start) {
    let Some(server) = server().await else { return };
    let site = Site::new("stopped");
    let here = Node::start(&server, "n1");
    let mut there = start(&site, &server.url(), "n2", 3);
    there.ask("caught-up").await;
    for url in [PAGE, OTHER] {
        there.page(url).await;
    }
    believed(&here.layer.purge()).await;
    there.signal("-STOP");
    site.edit("second");
    let purged = here.layer.purge().url(PAGE).unwrap();
    let error = purged.applied_everywhere(Duration::from_millis(500)).await.unwrap_err();
    assert_eq!((error.reason(), error.nodes()), (NotEverywhereReason::Behind, &["n2".to_owned()][..]));
    purged.applied_everywhere(secs(20)).await.expect("it validates after three seconds");
    there.say(&format!("get {PAGE}")).await;
    there.signal("-CONT");
    assert_eq!(page(&there.hear().await), ("second".to_owned(), 3));
    // It needs no restart.
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < LIMIT, "it does not come back");
        let (_, before) = there.page(OTHER).await;
        if there.page(OTHER).await.1 == before {
            break;
        }
    }
}

/// A process that was killed is waited for until it would validate, and not until an hour is over.
#[tokio::test]
async fn a_process_that_was_killed_is_not_waited_for_where_it_would_validate() {
    let Some(server) = server().await else { return };
    let site = Site::new("lease");
    let here = Node::start(&server, "n1");
    let mut there = Process::start(&site, &server.url(), "n2", 3);
    there.ask("caught-up").await;
    believed(&here.layer.purge()).await;
    there.kill().await;
    let began = Instant::now();
    here.layer.purge().tag("red").applied_everywhere(secs(20)).await.unwrap();
    assert!(began.elapsed() > secs(1), "it may have been cut off, and served on");
}

/// It had its turn, and can neither fetch nor give its turn back.
#[tokio::test]
async fn a_process_that_was_killed_during_its_fetch_holds_up_no_other() {
    let Some(server) = server().await else { return };
    let site = Site::new("turn");
    let here = tier::Node::start(&server.url(), &server.url(), "n1", &tier::numbered(), true);
    here.is_ready().await;
    let mut there = Process::start_with_tier(&site, &server.url(), "n2", 0);
    there.ask("caught-up").await;
    there.say(&format!("get {HANGING}")).await;
    let began = Instant::now();
    while server.command(&["KEYS", "test:1:1:l:*"]).await.unwrap() == redis::Value::Array(vec![]) {
        assert!(began.elapsed() < LIMIT, "it does not take its turn");
        sleep(Duration::from_millis(10)).await;
    }
    there.kill().await;
    let page =
        timeout(secs(5), get(&here.service, HANGING)).await.expect("it waits no longer than two seconds");
    assert_eq!((page.status, here.origin.calls()), (http::StatusCode::OK, 1));
    assert_eq!(here.tier.status().waits.get(TierWait::Fetched), 1);
}

/// A network of its own, or a line that says why there is none.
struct Network(String);

impl Network {
    fn new() -> Option<Self> {
        let name = format!("trt{}", std::process::id());
        let network = Self(name.clone());
        let (outer, inner) = (network.outer(), format!("{name}i"));
        let steps = [
            vec!["netns", "add", &name],
            vec!["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &name],
            vec!["addr", "add", "10.213.77.1/30", "dev", &outer],
            vec!["link", "set", &outer, "up"],
            vec!["-n", &name, "addr", "add", "10.213.77.2/30", "dev", &inner],
            vec!["-n", &name, "link", "set", &inner, "up"],
            vec!["-n", &name, "link", "set", "lo", "up"],
        ];
        let failed = steps.iter().find(|step| !network.ip(step));
        if let Some(step) = failed {
            eprintln!("skipped: no network namespaces here (`ip {}` as root)", step.join(" "));
            return None;
        }
        Some(network)
    }

    fn outer(&self) -> String {
        format!("{}o", self.0)
    }

    fn ip(&self, step: &[&str]) -> bool {
        Command::new("ip").args(step).output().is_ok_and(|output| output.status.success())
    }

    /// Nothing arrives, and nothing is refused.
    fn set(&self, is_up: bool) {
        assert!(self.ip(&["link", "set", &self.outer(), if is_up { "up" } else { "down" }]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.ip(&["netns", "del", &self.0]);
        self.ip(&["link", "del", &self.outer()]);
    }
}

#[tokio::test]
async fn a_process_whose_network_is_gone_serves_on_and_comes_back() {
    let Some(server) = server_with(&["--bind", "0.0.0.0", "--protected-mode", "no"]).await else { return };
    let Some(network) = Network::new() else { return };
    let site = Site::new("network");
    let here = Node::start(&server, "n1");
    here.caught_up().await;
    let url = format!("redis://10.213.77.1:{}/", server.port());
    let mut there = Process::start_by(&["ip", "netns", "exec", &network.0], &site, &url, "n2", (0, false));
    there.ask("caught-up").await;
    there.page(PAGE).await;
    for (edit, before, calls) in [("second", "first", 1), ("third", "second", 2)] {
        network.set(false);
        site.edit(edit);
        let purged = here.layer.purge().tag("red");
        until("sent", || purged.state() == PurgeState::Sent).await;
        assert_eq!(there.page(PAGE).await, (before.to_owned(), calls), "it serves what it has");
        let began = Instant::now();
        while there.ask("status").await != "cut-off" {
            assert!(began.elapsed() < LIMIT, "it does not notice");
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(there.page(PAGE).await.0, before);
        network.set(true);
        while there.page(PAGE).await.0 != edit {
            assert!(began.elapsed() < LIMIT * 2, "it does not come back");
            sleep(Duration::from_millis(50)).await;
        }
    }
}
