//! What the page shows of the nodes of a cluster.

use std::time::Duration;

use tower::Layer;
use tower_readthrough::{
    MemoryStore, ReadThroughLayer,
    cluster::{Cluster, WhenCutOff},
    dashboard::Dashboard,
    purge::Basic,
    store::SnapshotFile,
    testing::{Answer, Client, PurgeLog, ScriptedOrigin, ScriptedRemote},
    tier::Tier,
};

use super::{PASSWORD, browser::Browser, redis_server::server};

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never {what}");
}

fn cache() -> ReadThroughLayer<MemoryStore> {
    ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build().expect("a cache")
}

fn dashboard(cache: &ReadThroughLayer<MemoryStore>) -> Dashboard {
    Dashboard::builder(cache.stats(), Basic::new("ops", PASSWORD)).build().expect("a dashboard")
}

/// Opens the dashboard of a cache.
async fn open(browser: &Browser, cache: &ReadThroughLayer<MemoryStore>) {
    show(browser, dashboard(cache)).await;
}

async fn show(browser: &Browser, dashboard: Dashboard) {
    let app = axum::Router::new().nest_service("/-/cache", dashboard);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let password = PASSWORD.replace(' ', "%20");
    browser.go(&format!("http://ops:{password}@{address}/-/cache/data.json")).await;
    browser.go(&format!("http://{address}/-/cache")).await;
    browser.until("return document.getElementById('state').textContent === 'Up to date'").await;
}

#[tokio::test]
async fn the_page_shows_what_the_second_tier_does() {
    let browser = browser!();
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().expect("a store");
    let tier = Tier::builder(ScriptedRemote::new()).build().expect("a tier");
    let cache = ReadThroughLayer::builder(store).second_tier(tier.clone()).build().expect("a cache");
    let is_shown = "return !document.getElementById('tier-panel').hidden";
    let log = PurgeLog::new();
    let node = log.join(&cache.purge()).expect("a node");
    let dashboard = dashboard(&cache);
    let origin = ScriptedOrigin::always(|| Answer::ok("x").max_age(60));
    let service = Client::new(dashboard.watch(cache).layer(origin));
    show(&browser, dashboard).await;
    browser.until(is_shown).await;
    service.get("/").send().await.expect_status(200);
    tier.flush(Duration::from_secs(10)).await;
    browser.until("return document.querySelectorAll('#tier-writes .number').length > 0").await;
    assert_eq!(browser.rows("#tier-reads").await, [["miss", "1"]]);
    assert_eq!(browser.rows("#tier-writes").await, [["written", "1"]]);
    let decision = &browser.rows("#decisions").await[0];
    assert_eq!((&*decision[3], &*decision[4]), ("forwarded", "uri-miss; second tier: miss"));
    let note = "In use; breaker of reads and writes closed; 0 waiting to be written, of 0 B.";
    assert_eq!(browser.text("#tier-note").await, note);
    node.cut_off();
    browser
        .until("return document.getElementById('tier-note').textContent.startsWith('Not in use until')")
        .await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_shows_this_node_and_the_others_and_what_has_failed() {
    let browser = browser!();
    let Some(mut server) = server().await else { return };
    let (here, there) = (cache(), cache());
    let join = |cache: &ReadThroughLayer<MemoryStore>, name: &str| {
        Cluster::builder(server.url(), cache.purge())
            .node(name)
            .when_cut_off(WhenCutOff::ValidateAfter(Duration::from_secs(20)))
    };
    let own = join(&here, "edge-<b>1</b>").open();
    assert!(own.is_err(), "no markup can come from a name");
    let own = join(&here, "edge-1").open().expect("a cluster");
    let other = join(&there, "edge-2").open().expect("a cluster");
    until("all seen", || {
        own.status().others.len() == 1 && own.status().is_caught_up && other.status().is_caught_up
    })
    .await;

    open(&browser, &here).await;
    let rows = browser.rows("#nodes").await;
    let position = own.status().position.expect("a position");
    let [own_row, other_row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(own_row[0], "edge-1 (this node)");
    assert!(own_row[1].starts_with("caught-up for ") && own_row[2].ends_with(" ago"), "{own_row:?}");
    assert_eq!(own_row[3..], [&*position, "0", "0", "1", "20 s"]);
    assert_eq!((&*other_row[0], &*other_row[1], &*other_row[7]), ("edge-2", "heard", "20 s"));
    assert_eq!(browser.text("#nodes-note").await, "Purges reach all of these by one log.");
    assert_eq!(
        browser.run("return document.getElementById('nodes-panel').getAttribute('aria-labelledby')").await,
        "t-nodes"
    );
    // Each cell belongs to a column that says what it is.
    let columns = "return document.querySelectorAll('#nodes thead th[scope=col]').length";
    assert_eq!(browser.run(columns).await, own_row.len());

    server.kill();
    browser.until("return document.querySelector('#nodes .cut-off') !== null").await;
    until("noticed", || own.status().last_error.is_some()).await;
    browser
        .until(
            "return document.getElementById('nodes-note').textContent.includes('The last connection failed')",
        )
        .await;
    // It shows no node of which it hears nothing.
    assert_eq!(browser.rows("#nodes").await.len(), 1);
    server.start().await;
    browser.until("return document.querySelector('#nodes .caught-up') !== null").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_figures_name_the_nodes_only_in_a_cluster() {
    let cache = cache();
    let dashboard =
        Dashboard::builder(cache.stats(), Basic::new("ops", "secret")).build().expect("a dashboard");
    let client = Client::new(dashboard).header("authorization", "Basic b3BzOnNlY3JldA==");
    let figures = async || -> serde_json::Value {
        serde_json::from_slice(&client.get("/data.json").send().await.body).expect("JSON")
    };
    assert!(figures().await["totals"]["cluster"].is_null());
    let cluster =
        Cluster::builder("redis://127.0.0.1:1/", cache.purge()).node("edge-1").open().expect("a cluster");
    until("refused", || cluster.status().last_error.is_some()).await;
    let service = Client::new(cache.layer(ScriptedOrigin::always(|| Answer::ok("x"))));
    service.get("/").send().await.expect_status(200);
    let figures = figures().await["totals"]["cluster"].take();
    assert_eq!((&figures["node"], &figures["state"]), (&"edge-1".into(), &"cut-off".into()));
    assert_eq!((&figures["waiting"], &figures["must_validate"]), (&0.into(), &false.into()));
    assert!(figures["last_error"].is_string() && figures["heard_seconds_ago"].is_null(), "{figures}");
    assert_eq!(figures["others"], serde_json::json!([]));
}

#[tokio::test]
async fn the_page_shows_what_the_snapshot_file_holds_and_what_has_failed() {
    let browser = browser!();
    let directory = std::env::temp_dir().join(format!("trt-dashboard-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().expect("a store");
    let cache = ReadThroughLayer::builder(store.clone()).build().expect("a cache");
    open(&browser, &cache).await;
    assert_eq!(browser.run("return document.getElementById('file-panel').hidden").await, true);
    let file = SnapshotFile::builder(store, directory.join("cache")).open().expect("a file");
    browser.until("return !document.getElementById('file-panel').hidden").await;
    browser.until("return document.getElementById('file-load').textContent.startsWith('missing')").await;
    assert_eq!(browser.text("#file-written").await, "never");
    let note = async || browser.text("#file-note").await;
    assert!(note().await.starts_with("This process has not written it yet"), "{}", note().await);
    let service = Client::new(cache.layer(ScriptedOrigin::always(|| Answer::ok("x").max_age(60))));
    service.get("/").send().await.expect_status(200);
    file.write().await.expect("it is written");
    browser.until("return document.getElementById('file-responses').textContent === '1'").await;
    assert_eq!(browser.text("#file-writes").await, "1 written, 0 failed");
    assert_eq!(note().await, "The next process loads what was stored when it was last written.");
    std::fs::create_dir(directory.join("cache.tmp")).expect("a directory in the way");
    assert!(file.write().await.is_err());
    browser
        .until("return document.getElementById('file-note').textContent.startsWith('The last write failed')")
        .await;
    assert_eq!(browser.text("#file-writes").await, "1 written, 1 failed");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    std::fs::remove_dir_all(&directory).expect("it is removed");
}

#[tokio::test]
async fn the_page_says_why_the_snapshot_file_is_not_written_and_was_not_loaded() {
    let browser = browser!();
    let directory = std::env::temp_dir().join(format!("trt-dashboard-waits-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("cache"), "something else").expect("a file");
    let store = || MemoryStore::builder(1 << 20).snapshots(true).build().expect("a store");
    let (old, new) = (store(), store());
    let cache = ReadThroughLayer::builder(new.clone()).build().expect("a cache");
    open(&browser, &cache).await;
    let of = |store| SnapshotFile::builder(store, directory.join("cache"));
    let old = of(old).open().expect("a file");
    let file = of(new).overlapping(true).open().expect("a file");
    file.loaded().await;
    let is_told =
        |what: &str| format!("return document.getElementById('file-note').textContent === '{what}'");
    let damaged = "At the start it was not loaded to its end: the rest cannot be read (wrong-length).";
    let waits = "Another process has the file: it is written once that process has ended.";
    browser.until(&is_told(&format!("{waits} {damaged}"))).await;
    drop(old);
    file.write().await.expect("it is written");
    let written = "The next process loads what was stored when it was last written.";
    browser.until(&is_told(&format!("{written} {damaged}"))).await;
    assert_eq!(browser.text("#file-writes").await, "1 written, 0 failed");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    std::fs::remove_dir_all(&directory).expect("it is removed");
}
