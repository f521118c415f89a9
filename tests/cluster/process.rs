//! Nodes that are processes of their own: this program, started once more.
//!
//! What their origin has stands in a file, so that a test can change it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use tower::Layer;
use tower_readthrough::{
    MemoryStore, ReadThroughLayer, Rules, Tier,
    cluster::{Cluster, WhenCutOff},
    remote::RedisRemote,
    store::SnapshotFile,
};

use super::{
    node::{LIMIT, until},
    server::signal,
    support::{ScriptedOrigin, get, ms, ok, secs},
};

/// The URL of the server, the name of the node, after how many seconds it validates, whether it has a second tier there,
/// and the directory of its files.
const SETTINGS: &str = "TRT_TEST_NODE";

/// What the origin of all nodes has, and where they write their files.
pub(crate) struct Site(PathBuf);

impl Site {
    pub(crate) fn new(name: &str) -> Self {
        static SITES: AtomicUsize = AtomicUsize::new(0);
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("trt-site-{name}-{}-{number}", std::process::id()));
        _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let site = Self(directory);
        site.edit("first");
        site
    }

    pub(crate) fn edit(&self, content: &str) {
        // In one step: a node may be reading it.
        fs::write(self.0.join("new"), content).unwrap();
        fs::rename(self.0.join("new"), content_in(&self.0)).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn content_in(directory: &Path) -> PathBuf {
    directory.join("content")
}

/// The page that takes the origin longer than any test.
pub(crate) const HANGING: &str = "http://example.com/hanging";

/// A node in a process of its own. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What a process answered with, and how often its origin was asked by then.
pub(crate) type Page = (String, usize);

impl Process {
    /// With [`WhenCutOff::ValidateAfter`] so many seconds, or [`WhenCutOff::ServeOn`] for 0.
    pub(crate) fn start(site: &Site, url: &str, name: &str, validates_after: u64) -> Self {
        Self::start_by(&[], site, url, name, (validates_after, false))
    }

    /// With a second tier on the same server, for which nodes take turns.
    pub(crate) fn start_with_tier(site: &Site, url: &str, name: &str, validates_after: u64) -> Self {
        Self::start_by(&[], site, url, name, (validates_after, true))
    }

    /// Started by another program, which is given first.
    pub(crate) fn start_by(
        by: &[&str],
        site: &Site,
        url: &str,
        name: &str,
        (validates_after, has_tier): (u64, bool),
    ) -> Self {
        let own = std::env::current_exe().unwrap();
        let words = by.iter().map(|word| (*word).to_owned()).chain([own.to_str().unwrap().to_owned()]);
        let words: Vec<_> = words.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args([
            "--exact",
            "process::a_node_that_other_tests_start",
            "--ignored",
            "--nocapture",
        ]);
        command
            .env(SETTINGS, format!("{url} {name} {validates_after} {has_tier} {}", site.0.to_str().unwrap()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output).lines() }
    }

    pub(crate) async fn say(&mut self, order: &str) {
        self.input.write_all(format!("{order}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> String {
        let answer = async {
            loop {
                let line = self.output.next_line().await.unwrap().expect("the process goes on");
                // The other lines are those of the test harness.
                if let Some(answer) = line.strip_prefix("> ") {
                    return answer.to_owned();
                }
            }
        };
        timeout(LIMIT * 2, answer).await.expect("an answer")
    }

    pub(crate) async fn ask(&mut self, order: &str) -> String {
        self.say(order).await;
        self.hear().await
    }

    pub(crate) async fn page(&mut self, path: &str) -> Page {
        page(&self.ask(&format!("get {path}")).await)
    }

    pub(crate) fn signal(&self, signal: &str) {
        signal::send(signal, self.child.id().unwrap());
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

pub(crate) fn page(answer: &str) -> Page {
    let (content, calls) = answer.split_once(' ').unwrap();
    (content.to_owned(), calls.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "other tests start it, and talk to it"]
async fn a_node_that_other_tests_start() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let mut settings = settings.split(' ');
    let [url, name, validates_after, has_tier, directory] = std::array::from_fn(|_| settings.next().unwrap());
    let store = MemoryStore::builder(16 << 20).snapshots(true).build().unwrap();
    let rules = Rules::new().fixed_ttl(secs(3600)).stale_if_error_for(secs(3600));
    let remote = RedisRemote::builder(url).namespace("test").read_timeout(ms(800)).open().unwrap();
    let tier = Tier::builder(remote.clone()).single_fetch(true).build().unwrap();
    let layer = ReadThroughLayer::builder(store.clone()).rules(rules);
    let layer = if has_tier == "true" { layer.second_tier(tier.clone()) } else { layer };
    let layer = layer.build().unwrap();
    let content = content_in(Path::new(directory));
    let origin = ScriptedOrigin::new(move |_, request| {
        let delay = if HANGING.ends_with(request.uri.path()) { secs(3600) } else { secs(0) };
        ok(fs::read_to_string(&content).unwrap()).header("surrogate-key", "red").after(delay)
    });
    let when_cut_off = match validates_after.parse().unwrap() {
        0 => WhenCutOff::ServeOn,
        seconds => WhenCutOff::ValidateAfter(secs(seconds)),
    };
    let cluster = Cluster::builder(url, layer.purge()).namespace("test").node(name);
    let cluster = cluster.when_cut_off(when_cut_off).open().unwrap();
    let file = SnapshotFile::builder(store, Path::new(directory).join(name)).open().unwrap();
    let service = layer.layer(origin.clone());
    let mut orders = BufReader::new(stdin()).lines();
    while let Ok(Some(order)) = orders.next_line().await {
        let (order, argument) = order.split_once(' ').unwrap_or((&order, ""));
        match order {
            "get" => {
                let page = get(&service, argument).await;
                let content = if page.status == 200 {
                    String::from_utf8(page.body.to_vec()).unwrap()
                } else {
                    page.status.to_string()
                };
                println!("> {content} {}", origin.calls());
            }
            "purge" => {
                let purged = layer.purge().tag(argument).applied_everywhere(Duration::from_secs(30)).await;
                println!("> {purged:?}");
            }
            "flush" => println!("> {}", tier.flush(LIMIT).await.left),
            "write" => println!("> {:?}", file.write().await.is_ok()),
            "caught-up" => {
                until("caught up", || cluster.status().is_caught_up).await;
                until("connected", || remote.status().is_connected).await;
                println!("> {}", file.loaded().await.loaded);
            }
            "status" => println!("> {}", cluster.status().state),
            order => panic!("{order}"),
        }
    }
}
