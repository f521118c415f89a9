//! `examples/gateway` as a program: which clients get in, rules that change, purges, the dashboard, metrics, and its end. And
//! `examples/statsd`.
#![cfg(all(feature = "serde", feature = "dashboard", feature = "metrics"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Stdio,
};

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const RULES: &str = include_str!("../examples/gateway/rules.json");
const PASSWORD: &str = "a password for tests";

fn command(args: &[&str]) -> Command {
    example("gateway", args)
}

fn example(name: &str, args: &[&str]) -> Command {
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(2).expect("the directory of the target");
    let program = target.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "run `cargo build --all-features --example {name}` first");
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program with rules of its own, and its demonstration upstreams.
struct Gateway {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
    rules: PathBuf,
    client: Client,
}

impl Gateway {
    async fn start(name: &str) -> Self {
        let rules = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
        fs::write(&rules, RULES).expect("a file for the rules");
        let path = rules.to_str().expect("a path in UTF-8");
        let args = ["--listen", "127.0.0.1:0", "--password", PASSWORD, "--rules", path];
        let mut child = command(&args).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("a line").expect("the first one");
        let url =
            line.split_whitespace().find_map(|word| word.strip_suffix(',')).expect("the address").to_owned();
        Self { child, lines, url, rules, client: Client::new() }
    }

    async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Reply {
        let method: Method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.expect("a response");
        let status = response.status();
        let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let cache = field("cache-status").unwrap_or_default().replace("gateway;", "");
        Reply { status, cache, body: response.text().await.expect("a body") }
    }

    /// As a client with this token.
    async fn get(&self, path: &str, token: &str) -> Reply {
        self.send("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    async fn says(&mut self, end: &str) {
        let line = self.lines.next_line().await.expect("a line").expect("one more");
        assert!(line.ends_with(end), "{line:?} ends with {end:?}");
    }
}

struct Reply {
    status: StatusCode,
    cache: String,
    body: String,
}

#[tokio::test]
async fn tenants_get_in_by_their_tokens_and_share_nothing() {
    let gateway = Gateway::start("tenants").await;
    assert_eq!(gateway.get("/catalogue/prices/7", "guess").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.send("GET", "/catalogue/prices/7", &[], "").await.status, StatusCode::UNAUTHORIZED);
    let first = gateway.get("/catalogue/list?b=2&a=1", "acme-secret").await;
    assert_eq!((first.status, first.cache.as_str()), (StatusCode::OK, "fwd=uri-miss;stored"));
    assert_eq!(gateway.get("/catalogue/list?a=1&b=2", "acme-secret").await.cache, "hit");
    assert_eq!(gateway.get("/catalogue/list?a=1&b=2", "globex-secret").await.cache, "fwd=uri-miss;stored");
    assert_eq!(gateway.get("/catalogue/list?a=1&b=2", "guess").await.status, StatusCode::UNAUTHORIZED);
    let order = gateway.get("/orders/1", "acme-secret").await;
    assert_eq!(
        (order.body.as_str(), order.cache.as_str()),
        (r#"{"order":1}"#, "fwd=bypass;detail=rule-bypass")
    );
}

#[tokio::test]
async fn rules_are_replaced_when_their_file_changes_unless_they_are_invalid() {
    let mut gateway = Gateway::start("reload").await;
    gateway.get("/catalogue/list", "acme-secret").await;
    assert_eq!(gateway.get("/catalogue/list", "acme-secret").await.cache, "hit");
    let bypassed = r#"{"rules": [{"path": "/catalogue/{**rest}", "bypass": true}]}"#;
    fs::write(&gateway.rules, bypassed).expect("the rules change");
    gateway.says("the rules are replaced").await;
    let seen = gateway.get("/catalogue/list", "acme-secret").await;
    assert_eq!(seen.cache, "fwd=bypass;detail=rule-bypass");
    fs::write(&gateway.rules, r#"{"rules": [{"path": "catalogue"}]}"#).expect("the rules change");
    let errors = BufReader::new(gateway.child.stderr.take().expect("its errors"));
    let error = errors.lines().next_line().await.expect("a line").expect("an error");
    assert!(
        error.contains("invalid path pattern") && error.ends_with("the rules stay as they are"),
        "{error}"
    );
    let seen = gateway.get("/catalogue/list", "acme-secret").await;
    assert_eq!(seen.cache, "fwd=bypass;detail=rule-bypass");
}

#[tokio::test]
async fn operators_purge_and_see_the_dashboard_and_tenants_do_not() {
    let gateway = Gateway::start("operators").await;
    gateway.get("/catalogue/list", "acme-secret").await;
    let order = r#"{"all": true}"#;
    let bearer = format!("Bearer {PASSWORD}");
    let json = ("content-type", "application/json");
    for token in ["Bearer acme-secret", "Basic b3BzOmE="] {
        let seen = gateway.send("POST", "/-/purge", &[("authorization", token), json], order).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
        for path in ["/-/cache/data.json", "/-/metrics"] {
            let seen = gateway.send("GET", path, &[("authorization", token)], "").await;
            assert_eq!(
                (seen.status, seen.body.contains("readthrough")),
                (StatusCode::UNAUTHORIZED, false),
                "{path}"
            );
        }
    }
    assert_eq!(gateway.send("GET", "/-/metrics", &[], "").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.get("/catalogue/list", "acme-secret").await.cache, "hit");
    let seen = gateway.send("POST", "/-/purge", &[("authorization", &bearer), json], order).await;
    assert_eq!(seen.status, StatusCode::OK);
    assert_eq!(gateway.get("/catalogue/list", "acme-secret").await.cache, "fwd=stale;stored;detail=purged");
    // `ops:a password for tests` in base64.
    let ops = ("authorization", "Basic b3BzOmEgcGFzc3dvcmQgZm9yIHRlc3Rz");
    let page = gateway.send("GET", "/-/cache", &[ops], "").await;
    assert!(page.body.starts_with("<!doctype html>"));
    let figures = gateway.send("GET", "/-/cache/data.json", &[ops], "").await;
    let figures: Value = serde_json::from_str(&figures.body).expect("JSON");
    assert_eq!((&figures["name"], &figures["totals"]["hits"]), (&"Gateway".into(), &1.into()));
    assert_eq!(figures["totals"]["origins"][0]["name"], "catalogue");
    assert_eq!(figures["can_explain"], true);
    // As the first tenant, whose list is stored.
    for (path, expected) in [
        ("/catalogue/list", ["outcome  hit", "rule     catalogue", "fresh for "]),
        ("/orders/1", ["outcome  unkeyed=rule-bypass", "rule     orders", "stored   nothing"]),
    ] {
        let url = format!("{}{path}", gateway.url).replace(':', "%3A").replace('/', "%2F");
        let seen = gateway.send("GET", &format!("/-/cache/explain.json?url={url}"), &[ops], "").await;
        let explained: Value = serde_json::from_str(&seen.body).expect("JSON");
        let text = explained["text"].as_str().expect("a text");
        assert!(expected.iter().all(|line| text.contains(line)), "{text}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn at_its_end_it_answers_what_it_has_accepted() {
    let mut gateway = Gateway::start("end").await;
    let (_, ()) = tokio::join!(
        async {
            let seen = gateway.get("/catalogue/slow", "acme-secret").await;
            assert_eq!(seen.status, StatusCode::OK);
        },
        async {
            // The upstream takes 120 ms: the figures say when the request is there.
            let ops = ("authorization", "Basic b3BzOmEgcGFzc3dvcmQgZm9yIHRlc3Rz");
            loop {
                let figures = gateway.send("GET", "/-/cache/data.json", &[ops], "").await;
                let figures: Value = serde_json::from_str(&figures.body).expect("JSON");
                if figures["totals"]["coalesce"]["fetches"] == 1 {
                    break;
                }
            }
            let id = gateway.child.id().expect("it runs").to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("a signal").success());
        },
    );
    gateway.says("all requests are answered").await;
    assert!(gateway.child.wait().await.expect("an end").success());
}

#[tokio::test]
async fn a_document_is_validated_and_explained() {
    let directory = "examples/gateway";
    let (rules, table) = (format!("{directory}/rules.json"), format!("{directory}/rules.table.json"));
    let done = command(&["--check", &rules, "--table", &table]).output().await.expect("an end");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for line in ["rule 1 `prices`", "  stores  for 2s", "rule 3 `everything else`", "the table is met"] {
        assert!(said.contains(line), "{line:?} is in:\n{said}");
    }
    assert!(!said.contains("warning"), "{said}");
    let wrong = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("wrong.json");
    fs::write(&wrong, r#"{"rules": [{"path": "/p", "fixed_ttl": "soon"}]}"#).expect("a file");
    let failed = command(&["--check", wrong.to_str().expect("a path")]).output().await.expect("an end");
    assert!(!failed.status.success() && !failed.stderr.is_empty());
    let unnamed = command(&["--token", "a-token-alone"]).output().await.expect("an end");
    let said = String::from_utf8_lossy(&unnamed.stderr);
    assert!(!unnamed.status.success() && said.contains("write it as TOKEN=TENANT"), "{said}");
}

/// Names of metrics in a query, and the labels that it selects or sums by.
fn named_in(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<String> = query.split(|c| !is_name(c)).map(str::to_owned).collect();
    let metrics = words.into_iter().filter(|word| word.starts_with("readthrough_")).collect();
    let braces = query.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let selected =
        braces.flat_map(|list| list.split(',')).filter_map(|term| term.split(['=', '!', '~']).next());
    let by = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let labels = selected.chain(by.flat_map(|list| list.split(','))).map(|label| label.trim().to_owned());
    (metrics, labels.filter(|label| !label.is_empty()).collect())
}

fn queries(panel: &Value, found: &mut Vec<String>) {
    for (name, value) in panel.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("expr" | "definition", Value::String(query)) => found.push(query.clone()),
            _ => queries(value, found),
        }
    }
    panel.as_array().into_iter().flatten().for_each(|panel| queries(panel, found));
}

#[tokio::test]
async fn the_dashboard_for_grafana_asks_for_what_is_scraped_and_for_all_of_it() {
    let gateway = Gateway::start("grafana").await;
    for path in ["/catalogue/list", "/catalogue/list", "/catalogue/prices/1", "/orders/1"] {
        gateway.get(path, "acme-secret").await;
    }
    let bearer = format!("Bearer {PASSWORD}");
    let scraped = gateway.send("GET", "/-/metrics", &[("authorization", &bearer)], "").await.body;
    // Name and labels of each series.
    let mut series = BTreeMap::<String, BTreeSet<String>>::new();
    for line in scraped.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).expect("a series");
        let labels = rest.split('}').next().unwrap_or_default().split("\",");
        let labels = labels.filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
        series.entry(name.to_owned()).or_default().extend(labels);
    }
    assert!(series["readthrough_requests_total"].contains("outcome"), "{series:?}");
    let grafana: Value =
        serde_json::from_str(include_str!("../examples/gateway/grafana.json")).expect("JSON");
    let mut found = Vec::new();
    queries(&grafana, &mut found);
    assert!(found.len() > 10);
    let mut asked = BTreeSet::new();
    for query in found {
        let (metrics, labels) = named_in(&query);
        assert!(!metrics.is_empty(), "{query}");
        for metric in &metrics {
            let known = series.get(metric).unwrap_or_else(|| panic!("{metric} is not scraped, in {query}"));
            // What Prometheus adds itself.
            let unknown: Vec<_> = labels
                .iter()
                .filter(|label| !known.contains(*label) && !["job", "instance"].contains(&label.as_str()))
                .collect();
            assert_eq!(unknown, Vec::<&String>::new(), "{query}");
        }
        asked.extend(metrics);
    }
    let parts = ["_bucket", "_sum", "_count"];
    let whole = |name: &str| parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned();
    let asked: BTreeSet<_> = asked.iter().map(|name| whole(name)).collect();
    let unused: Vec<_> = series.keys().map(|name| whole(name)).filter(|name| !asked.contains(name)).collect();
    assert_eq!(unused, Vec::<String>::new());
}

#[tokio::test]
async fn statsd_gets_what_the_cache_has_counted() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let statsd = socket.local_addr().expect("an address").to_string();
    let args = ["--listen", "127.0.0.1:0", "--every", "100", "--statsd", &statsd];
    let mut child = example("statsd", &args).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let line = lines.next_line().await.expect("a line").expect("the first one");
    let url = line.rsplit(' ').next().expect("the address");
    for _ in 0..8 {
        assert_eq!(reqwest::get(url).await.expect("a response").text().await.expect("a body"), "hello");
    }
    // Differences come in, until all are there: seven hits, and one miss, whatever order they have.
    let (mut hits, mut misses, mut buffer) = (0, 0, vec![0; 65_536]);
    while (hits, misses) != (7, 1) {
        let length = socket.recv(&mut buffer).await.expect("a datagram");
        let text = str::from_utf8(&buffer[..length]).expect("text");
        for line in text.lines().filter(|line| line.starts_with("shop.readthrough_requests_total:")) {
            let value =
                line.split([':', '|']).nth(1).and_then(|value| value.parse::<u64>().ok()).expect("a number");
            hits += if line.contains("outcome:hit") { value } else { 0 };
            misses += if line.contains("reason:uri-miss") { value } else { 0 };
        }
        assert!(hits <= 7 && misses <= 1, "{hits} hits, {misses} misses");
    }
}

#[test]
fn it_is_less_than_two_hundred_lines() {
    assert!(include_str!("../examples/gateway/main.rs").lines().count() < 200);
}
